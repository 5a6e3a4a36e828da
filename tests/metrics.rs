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
    let document = read("docs/metrics.md");
    let rows: String = document
        .lines()
        .filter(|line| line.starts_with("| `triggercast_") || line.starts_with("| `api_gateway_"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(rows, table(), "docs/metrics.md must have these rows:\n{}", table());
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
