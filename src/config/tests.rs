//! `docs/configuration.md` against the code: the same keys, and of each what it takes and what stands for it when it is not there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::fields::{Reading, Value, child_key, item_key};
use super::tree::{Key, Kind, Node, Text};
use super::{Settings, read, tree};

/// What the reference says of one key.
struct Row {
    key: String,
    takes: String,
    default: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The rows of its tables. The line above a table names the places that its keys stand in, in backquotes.
fn reference() -> Vec<Row> {
    let text = std::fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let quoted = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let mut rows = Vec::new();
    let mut places: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        match cells[..] {
            [keys, takes, default, what] if keys.starts_with('`') => {
                assert!(what.len() > 10, "{line}");
                for place in &places {
                    rows.extend(quoted(keys).iter().map(|key| Row {
                        key: child_key(place, key),
                        takes: takes.to_owned(),
                        default: default.to_owned(),
                    }));
                }
            }
            _ if line.starts_with("Under ") => places = quoted(line),
            _ if line.starts_with("At the top") => places = vec![String::new()],
            _ => {}
        }
    }
    rows
}

/// A file that has every key.
fn whole() -> (PathBuf, Node) {
    let file = root().join("tests/fixtures/config/every-key.yaml");
    let tree = tree::read(&std::fs::read_to_string(&file).unwrap()).unwrap();
    (file, tree)
}

/// What comes of a tree, and all that was asked of it.
fn outcome(file: &Path, tree: &Node) -> (Settings, Reading) {
    let mut reading = Reading::of(file);
    (read(&Value::root(tree), &mut reading), reading)
}

/// A key without the indexes and names that the user chose: `gateways[].paths[].limits`.
fn general(key: &str) -> String {
    let mut parts = key.split('[');
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |key, part| format!("{key}[]{}", part.split_once(']').unwrap().1))
}

/// The keys of a tree that are written so in general.
fn find(node: &Node, key: &str, wanted: &str, found: &mut Vec<String>) {
    if general(key) == wanted {
        found.push(key.to_owned());
    }
    match &node.kind {
        Kind::Map(entries) => {
            entries.iter().for_each(|(name, node)| find(node, &child_key(key, &name.name), wanted, found));
        }
        Kind::List(items) => {
            let each = |(index, node)| find(node, &item_key(key, index), wanted, found);
            items.iter().enumerate().for_each(each);
        }
        _ => {}
    }
}

/// The tree with another value at a key, or without the key.
fn with(node: &Node, at: &str, wanted: &str, value: Option<&Node>) -> Option<Node> {
    if at == wanted {
        return value.cloned();
    }
    let kind = match &node.kind {
        Kind::Map(entries) => {
            let change = |(key, node): &(Key, Node)| {
                Some((key.clone(), with(node, &child_key(at, &key.name), wanted, value)?))
            };
            Kind::Map(entries.iter().filter_map(change).collect())
        }
        Kind::List(items) => {
            let change = |(index, node)| with(node, &item_key(at, index), wanted, value);
            Kind::List(items.iter().enumerate().filter_map(change).collect())
        }
        other => other.clone(),
    };
    Some(Node { kind, place: node.place })
}

/// What the code says about a key that holds a text it cannot take: how the second column begins. Empty: any text may do.
fn takes(file: &Path, tree: &Node, key: &str) -> String {
    let text = Kind::Text(Text { value: "no such value".into(), written: None });
    let text = Node { kind: text, place: None };
    let fault = |at: &str, node: &Node| {
        let (_, reading) = outcome(file, &with(tree, "", key, Some(node)).unwrap());
        reading.faults.into_iter().find(|fault| fault.key == at).map(|fault| fault.message)
    };
    let form = |message: String| {
        let words = |words: &str| words.replace('"', "`");
        if let Some((_, list)) = message.split_once(" is not one of ") {
            words(list)
        } else if message.contains("is not true or false") {
            "`true`, `false`".to_owned()
        } else if message.contains("is not a whole number (") || message.contains("is not a duration: ") {
            message.rsplit_once('(').unwrap().1.trim_end_matches(')').to_owned()
        } else {
            ["a list", "a map"]
                .iter()
                .find(|kind| message.starts_with(*kind))
                .map_or(String::new(), |kind| kind.to_string())
        }
    };
    let whole = fault(key, &text).map(form).unwrap_or_default();
    if whole != "a list" {
        return whole;
    }
    let item = fault(&item_key(key, 0), &Node { kind: Kind::List(vec![text]), place: None }).map(form);
    item.filter(|item| item.starts_with('`')).map_or(whole, |item| format!("a list of {item}"))
}

/// Whether a reading without a key says that it is missing.
fn is_missed(key: &str, reading: &Reading) -> bool {
    let (parent, name) = key.rsplit_once('.').unwrap_or(("", key));
    let name = format!("`{name}`");
    let mut faults = reading.faults.iter().filter(|fault| fault.key == parent);
    faults.any(|fault| fault.message.contains(&name) && fault.message.contains("missing"))
}

#[test]
fn the_reference_has_exactly_the_keys_of_the_code() {
    let (file, tree) = whole();
    let (_, reading) = outcome(&file, &tree);
    assert_eq!(reading.faults, []);
    let asked = reading.asked.iter().filter(|(of, _)| *of == file).map(|(_, key)| general(key));
    let asked: BTreeSet<String> = asked.collect();
    let mut rows: Vec<String> = reference().into_iter().map(|row| row.key).collect();
    rows.sort_unstable();
    let written: BTreeSet<String> = rows.iter().cloned().collect();
    assert_eq!(rows.len(), written.len(), "a key stands twice in docs/configuration.md: {rows:?}");
    let missing: Vec<_> = asked.difference(&written).collect();
    let stale: Vec<_> = written.difference(&asked).collect();
    assert!(missing.is_empty() && stale.is_empty(), "missing: {missing:#?}, stale: {stale:#?}");
}

#[test]
fn the_reference_says_of_each_key_what_it_takes_and_what_its_default_is() {
    let (file, tree) = whole();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for Row { key: general, takes: says, default } in reference() {
        let mut places = Vec::new();
        find(&tree, "", &general, &mut places);
        assert!(!places.is_empty(), "every-key.yaml lacks {general}");
        let mut is_needed = false;
        for key in places {
            let taken = takes(&file, &tree, &key);
            if !says.starts_with(&taken) {
                wrong.push(format!("{key} takes {taken}; the reference says {says}"));
            }
            let silent = with(&tree, "", &key, None).unwrap();
            let (silent, silent_reading) = outcome(&file, &silent);
            if let Some(default) = default.strip_prefix('`').and_then(|text| text.strip_suffix('`')) {
                let value = tree::read(default).unwrap();
                let (told, reading) = outcome(&file, &with(&tree, "", &key, Some(&value)).unwrap());
                let faults = [silent_reading.faults, reading.faults].concat();
                if !faults.is_empty() || silent != told {
                    wrong.push(format!("{key}: {default} is not its default {faults:?}"));
                }
                checked += 1;
            } else {
                is_needed |= is_missed(&key, &silent_reading);
            }
        }
        if default.contains("needed") != is_needed {
            wrong.push(format!("{general}: is it {default}?"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(checked > 60, "{checked}");
}
