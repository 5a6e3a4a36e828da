//! The rules of the house as tests: layout, imports, and the documents against the code.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each module may import besides itself: only what stands below it, or downstream of it.
const IMPORTS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("telemetry", &["model"]),
    ("database", &[]),
    ("fuzzing", &[]),
    ("config", &["model", "telemetry"]),
    ("proto", &[]),
    ("identity", &[]),
    ("jq", &[]),
    ("console", &["model"]),
    ("tls", &["database", "identity", "model", "telemetry"]),
    ("store", &["database", "model"]),
    ("api", &["config", "database", "identity", "model", "proto", "store", "telemetry"]),
    ("journal", &["database", "model", "telemetry"]),
    ("mqtt", &["model", "telemetry", "tls"]),
    ("container_registry", &["database", "model", "telemetry"]),
    ("gateway", &["journal", "model", "telemetry", "tls"]),
    ("batch", &["gateway", "journal", "model", "telemetry"]),
    ("source", &["batch", "container_registry", "mqtt", "journal", "jq", "model", "telemetry"]),
    (
        "engine",
        &["source", "batch", "gateway", "container_registry", "mqtt", "journal", "jq", "model", "telemetry"],
    ),
    (
        "management",
        &[
            "api",
            "console",
            "source",
            "container_registry",
            "journal",
            "database",
            "identity",
            "model",
            "proto",
            "telemetry",
            "tls",
        ],
    ),
    ("cli", &["config", "journal", "model", "proto", "telemetry", "tls"]),
    (
        "server",
        &[
            "management",
            "api",
            "console",
            "store",
            "engine",
            "source",
            "gateway",
            "container_registry",
            "mqtt",
            "journal",
            "jq",
            "config",
            "model",
            "telemetry",
            "tls",
        ],
    ),
];

/// Crates that only these files may name.
const KEPT_TO: &[(&str, &[&str])] = &[
    ("actix_web_actors", &["src/gateway/session.rs"]),
    ("rumqttc", &["src/source/mqtt", "src/cli/simulate"]),
    ("rmqtt_codec", &["src/mqtt/"]),
    ("anyhow", &["src/main.rs", "src/cli/"]),
    ("tokio_tungstenite", &["src/cli/listen"]),
    ("rusqlite", &["src/database.rs", "src/journal/", "src/container_registry/store/", "src/store/"]),
    (
        "tonic",
        &["src/proto/raw.rs", "src/management/grpc.rs", "src/management/incoming.rs", "src/cli/remote/"],
    ),
    ("axum", &["src/management/grpc.rs"]),
    ("opentelemetry", &["src/telemetry/otlp.rs", "src/telemetry/trace.rs"]),
    ("jaq_", &["src/jq/"]),
    ("jsonwebtoken", &["src/identity/key.rs", "src/cli/remote/"]),
    ("rcgen", &["src/tls/", "src/model/certificate.rs"]),
    ("subtle", &["src/model/secret.rs", "src/identity/secret.rs"]),
    ("reqwest", &["src/container_registry/client/", "src/gateway/outbound/"]),
];

/// Lines of a source file without its tests.
const MAX_LINES: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, ending: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("node_modules") {
                    walk(&path, ending, found);
                }
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), ending, &mut found);
    found.sort();
    let name = |path: &PathBuf| path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    let text = |path: &PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    found.iter().map(|path| (name(path), text(path))).collect()
}

fn sources() -> Vec<(String, String)> {
    let found = files("src", ".rs");
    assert!(found.len() > 20, "the sources are not where this test looks");
    found
}

/// A file's text up to what is compiled for tests only (but for the line that names a file of tests).
fn code(text: &str) -> &str {
    let mark = "\n#[cfg(test)]\n";
    let is_item = |(at, _): &(usize, &str)| !text[at + mark.len()..].starts_with("mod tests;");
    text.match_indices(mark).find(is_item).map_or(text, |(at, _)| &text[..at])
}

fn is_test_file(name: &str) -> bool {
    name.ends_with("/tests.rs")
}

#[test]
fn every_file_says_first_what_it_does() {
    for (name, text) in sources().iter().chain(&files("tests", ".rs")) {
        assert!(text.starts_with("//! "), "{name} does not start with '//! '");
    }
}

#[test]
fn files_are_small() {
    for (name, text) in sources() {
        let lines = code(&text).lines().count();
        assert!(
            is_test_file(&name) || lines <= MAX_LINES,
            "{name} has {lines} lines without its tests, more than {MAX_LINES}"
        );
    }
}

#[test]
fn modules_import_downwards_only() {
    let allowed: BTreeMap<_, _> = IMPORTS.iter().copied().collect();
    let mut seen = BTreeSet::new();
    for (name, text) in sources() {
        let module = name.trim_start_matches("src/").split(['/', '.']).next().unwrap().to_owned();
        if matches!(module.as_str(), "main" | "lib") {
            continue;
        }
        let allowed = allowed
            .get(module.as_str())
            .unwrap_or_else(|| panic!("{name}: module '{module}' has no place in IMPORTS"));
        for part in code(&text).split("crate::").skip(1) {
            let names: Vec<&str> = match part.strip_prefix('{') {
                Some(group) => group.split('}').next().unwrap().split(',').map(str::trim).collect(),
                None => vec![part],
            };
            for used in names {
                let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                let is_for_tests = used == "fuzzing" && is_test_file(&name);
                if used.is_empty() || used == module || is_for_tests {
                    continue;
                }
                assert!(allowed.contains(&used), "{name} imports '{used}', which is not below '{module}'");
                seen.insert((module.clone(), used.to_owned()));
            }
        }
    }
    assert!(seen.contains(&("batch".into(), "gateway".into())), "the test sees no imports");
}

#[test]
fn crates_stay_where_they_belong() {
    for (krate, places) in KEPT_TO {
        for (name, text) in sources() {
            let used = text.contains(&format!("{krate}::")) || text.contains(&format!("use {krate}"));
            assert!(!used || places.iter().any(|place| name.starts_with(place)), "{name} uses {krate}");
        }
    }
}

#[test]
fn documents_name_no_place_of_a_machine() {
    let roots = ["README.md", "ARCHITECTURE.md", "SECURITY.md", "actors.md", "CHANGELOG.md", "config.yaml"];
    let documents =
        roots.iter().map(|name| (name.to_string(), fs::read_to_string(root().join(name)).unwrap()));
    let ours = ["docs", "examples", "deploy"].into_iter().flat_map(|folder| files(folder, ""));
    for (name, text) in documents.chain(ours).chain(sources()) {
        for word in ["/work/", "/root/", "/home/"] {
            assert!(!text.contains(word), "{name} names {word}");
        }
    }
}

/// Rows of the table under a heading of actors.md, as cells.
fn table(heading: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("actors.md")).unwrap();
    let section = text
        .split(&format!("\n## {heading}\n"))
        .nth(1)
        .unwrap_or_else(|| panic!("actors.md has no '## {heading}'"));
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// The names in backquotes of a cell.
fn quoted(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

/// The type in `impl {trait} for {type}` lines, with the message for handlers.
fn implementations(pattern: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for (file, text) in sources() {
        for line in code(&text).lines() {
            let Some(rest) = line.strip_prefix(pattern) else { continue };
            let Some((message, actor)) = rest.split_once(" for ") else { continue };
            let word = |text: &str| text.trim_end_matches([' ', '{', '>']).to_owned();
            found.push((file.clone(), word(message), word(actor)));
        }
    }
    found
}

/// Every test that the table of attacks names is there.
#[test]
fn attacks_md_names_tests_that_there_are() {
    let all_tests: String =
        sources().into_iter().chain(files("tests", ".rs")).map(|(_, text)| text).collect();
    let table = fs::read_to_string(root().join("docs/attacks.md")).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    let cells = rows.map(|row| row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap());
    let tests: BTreeSet<String> = cells.flat_map(quoted).collect();
    assert!(tests.len() > 60, "{}", tests.len());
    for test in tests {
        assert!(all_tests.contains(&format!("fn {test}(")), "no test is called {test}");
    }
}

#[test]
fn actors_md_lists_exactly_the_actors_and_their_messages() {
    let mut expected: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for (file, _, actor) in implementations("impl Actor") {
        expected.insert(actor, (file, BTreeSet::new()));
    }
    for pattern in ["impl Handler<", "impl StreamHandler<"] {
        for (_, message, actor) in implementations(pattern) {
            let message =
                if message.starts_with("Result<ws::Message") { "ws::Message".to_owned() } else { message };
            expected.get_mut(&actor).unwrap_or_else(|| panic!("{actor} is no actor")).1.insert(message);
        }
    }
    let mut listed = BTreeMap::new();
    for row in table("Actors") {
        let name = quoted(&row[0]).pop_first().unwrap();
        let file = quoted(&row[1]).pop_first().unwrap();
        listed.insert(name, (file, quoted(&row[3])));
    }
    assert_eq!(listed, expected);
}

#[test]
fn actors_md_gives_every_queue_its_bound_and_a_test_that_fills_it() {
    let all_tests: String =
        sources().into_iter().chain(files("tests", ".rs")).map(|(_, text)| text).collect();
    let rows = table("Queues");
    assert!(rows.len() >= 8);
    for row in rows {
        let constant = quoted(&row[1]);
        for constant in &constant {
            let (file, name) =
                constant.split_once(' ').unwrap_or_else(|| panic!("{constant}: write `file NAME`"));
            let text = fs::read_to_string(root().join(file)).unwrap();
            assert!(text.contains(name), "{file} has no {name}");
        }
        for test in quoted(&row[3]) {
            assert!(all_tests.contains(&format!("fn {test}(")), "no test is called {test}");
        }
        assert!(!constant.is_empty() && !quoted(&row[3]).is_empty(), "{row:?}");
    }
}

/// Every document that people read, by its name.
fn documents() -> Vec<(String, String)> {
    let mut found: Vec<_> =
        ["docs", "examples", "deploy", "bench"].iter().flat_map(|folder| files(folder, ".md")).collect();
    for entry in fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "md") {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            found.push((name, fs::read_to_string(path).unwrap()));
        }
    }
    found
}

/// The lines of a document that are no code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// Where the links of a document lead that are not of the web.
fn links(text: &str) -> Vec<&str> {
    let targets = prose(text).flat_map(|line| line.split("](").skip(1));
    targets.filter_map(|rest| rest.split(')').next()).filter(|target| !target.contains("://")).collect()
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn links_of_documents_lead_somewhere() {
    let mut checked = 0;
    for (name, text) in documents() {
        for link in links(&text) {
            let (file, part) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => root().join(&name),
                file => root().join(&name).parent().unwrap().join(file),
            };
            assert!(target.exists(), "{name}: there is no {link}");
            if !part.is_empty() {
                let target = fs::read_to_string(&target).unwrap();
                let mut headings = prose(&target).filter(|line| line.starts_with('#'));
                let is_there = headings.any(|line| anchor(line.trim_start_matches('#').trim()) == part);
                assert!(is_there, "{name}: there is no heading for {link}");
            }
            checked += 1;
        }
    }
    assert!(checked > 100, "{checked}");
}

#[test]
fn the_book_has_every_page_once() {
    let summary = fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    let mut listed: Vec<String> = links(&summary).iter().map(|link| format!("docs/{link}")).collect();
    listed.sort_unstable();
    let pages = files("docs", ".md").into_iter().map(|(name, _)| name);
    let pages: Vec<String> = pages.filter(|name| name != "docs/SUMMARY.md").collect();
    assert_eq!(listed, pages);
}
