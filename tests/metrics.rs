//! The documents about metrics against the metrics: `docs/metrics.md`, and what `deploy/` asks Prometheus for.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use triggercast::telemetry::METRICS;

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The table as the program knows it.
fn table() -> String {
    let row = |metric: &&triggercast::telemetry::Listed| {
        let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        format!("| `{}` | {} | {} | {} |\n", metric.name, metric.kind, labels, metric.help)
    };
    METRICS.listed().iter().map(row).collect()
}

#[test]
fn the_document_lists_exactly_the_metrics_that_there_are() {
    let rows = rows("By Prometheus");
    assert_eq!(rows, table(), "docs/metrics.md must have these rows:\n{}", table());
}

/// The table of words as the program knows it.
fn words() -> String {
    let listed = METRICS.listed();
    let rows = listed.iter().flat_map(|metric| {
        metric.words.iter().map(|(label, (word, means))| {
            let word = if *label == "reason" { (*word).to_owned() } else { format!("{label}=\"{word}\"") };
            format!("| `{}` | `{word}` | {means} |\n", metric.name)
        })
    });
    rows.collect()
}

/// The rows of the document under a heading.
fn rows(heading: &str) -> String {
    let document = read("docs/metrics.md");
    let section = document.split(&format!("## {heading}\n")).nth(1).unwrap();
    let section = section.split("\n#").next().unwrap();
    let is_metric = |line: &&str| {
        ["triggercast_", "api_gateway_", "process_"]
            .iter()
            .any(|name| line.starts_with(&format!("| `{name}")))
    };
    let rows = section.lines().filter(is_metric);
    rows.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_document_says_what_every_word_means() {
    let words = words();
    assert!(words.lines().count() > 100 && words.lines().all(|row| row.matches('|').count() == 4));
    assert_eq!(rows("The words of `reason`"), words, "docs/metrics.md must have these rows:\n{words}");
}

/// What stands between quotes directly after each place of `before` and, if a comma comes first, an argument.
fn quoted<'a>(text: &'a str, before: &str) -> Vec<(&'a str, &'a str)> {
    let found = text.split(before).skip(1).filter_map(|rest| {
        let (name, rest) = rest.split_once('"')?;
        let is_direct = name.len() < 40
            && name.trim_end_matches([',', ' ']).chars().all(|c| c.is_ascii_lowercase() || c == '_');
        is_direct.then(|| (name.trim_end_matches([',', ' ']), rest.split('"').next().unwrap_or_default()))
    });
    found.collect()
}

/// Every word that stands in the code where it is counted.
#[test]
fn words_are_counted_that_there_are() {
    let known: BTreeSet<(String, &str)> = METRICS
        .listed()
        .iter()
        .flat_map(|metric| metric.words.iter().map(|(_, (word, _))| (metric.name.clone(), *word)))
        .collect();
    let mut counted = 0;
    let mut check = |metric: &str, word: &str| {
        counted += 1;
        assert!(
            known.contains(&(format!("triggercast_{metric}_total"), word)),
            "{metric} has no word {word:?}"
        );
    };
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            for before in ["count(&METRICS.", "count_by(&METRICS."] {
                quoted(&text, before).iter().for_each(|(metric, word)| check(metric, word));
            }
            for (before, metric) in [
                ("contain(", "actor_panics"),
                ("count_panic(", "actor_panics"),
                ("count_restart(", "actor_restarts"),
            ] {
                quoted(&text, before)
                    .iter()
                    .filter(|(name, _)| name.is_empty())
                    .for_each(|(_, word)| check(metric, word));
            }
        }
    }
    assert!(counted > 40, "{counted}");
}

/// Words of a text that are names of ours.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c: char| !is_part(c));
    words.filter(|word| word.starts_with("triggercast_")).map(str::to_owned).collect()
}

#[test]
fn dashboards_and_alerts_ask_for_metrics_that_there_are() {
    let mut known = BTreeSet::new();
    for metric in METRICS.listed() {
        match metric.kind {
            "histogram" => {
                known.extend(["_bucket", "_sum", "_count"].map(|end| format!("{}{end}", metric.name)));
            }
            _ => drop(known.insert(metric.name.clone())),
        }
    }
    for file in ["deploy/grafana/triggercast.json", "deploy/prometheus/triggercast.rules.yml"] {
        let used = names(&read(file));
        assert!(used.len() > 5, "{file} asks for nothing");
        let unknown: Vec<_> = used.difference(&known).collect();
        assert!(unknown.is_empty(), "{file} asks for {unknown:?}");
    }
}

#[test]
fn what_is_shown_is_listed() {
    let text = METRICS.text();
    let listed: BTreeSet<_> = METRICS.listed().iter().map(|metric| metric.name.clone()).collect();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut shown = 0;
    for line in types {
        let (name, kind) = line.split_once(' ').unwrap();
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        assert!(listed.contains(&name), "{name} is not listed");
        shown += 1;
    }
    assert!(shown > 20 && text.ends_with("# EOF\n"), "{text}");
}
