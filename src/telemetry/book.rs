//! [`Book`]: makes metrics, registers them and remembers them, so that `docs/metrics.md` can be held against them.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::reasons::{Counts, Label, Word};
use super::shown::Kind;
use super::spread::Spread;

/// What stands before our names.
const OURS: &str = "triggercast";
/// What stands before those of the model system.
const MODELS: &str = "api_gateway";

/// A metric as Prometheus has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its whole name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its labels.
    pub labels: Vec<&'static str>,
    /// What it says.
    pub help: &'static str,
    /// The words of its labels that are there from the start, each with its label.
    pub words: Vec<(&'static str, Word)>,
}

/// Metrics on their way into a registry.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) registry: Registry,
    pub(super) listed: Vec<Listed>,
}

impl Book {
    fn ours(&mut self) -> &mut Registry {
        self.registry.sub_registry_with_prefix(OURS)
    }

    fn list(&mut self, name: &str, kind: &'static str, labels: &[&'static str], help: &'static str) {
        self.list_as(format!("{OURS}_{name}"), kind, labels, help);
    }

    fn list_as(&mut self, mut name: String, kind: &'static str, labels: &[&'static str], help: &'static str) {
        if kind == "counter" {
            name.push_str("_total");
        }
        self.listed.push(Listed { name, kind, labels: labels.to_vec(), help, words: Vec::new() });
    }

    pub(super) fn counter(&mut self, name: &'static str, help: &'static str) -> Counter {
        let counter = Counter::default();
        self.ours().register(name, help, counter.clone());
        self.list(name, "counter", &[], help);
        counter
    }

    /// Counters by the words of labels.
    pub(super) fn counts<const N: usize>(
        &mut self,
        name: &'static str,
        labels: [Label; N],
        help: &'static str,
    ) -> Counts<N> {
        let counts = Counts::new(labels);
        self.ours().register(name, help, counts.clone());
        self.list(name, "counter", &labels.map(|(label, _)| label), help);
        let words =
            labels.into_iter().flat_map(|(label, words)| words.iter().map(move |word| (label, *word)));
        if let Some(listed) = self.listed.last_mut() {
            listed.words.extend(words);
        }
        counts
    }

    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str) -> Gauge<i64, AtomicI64> {
        let gauge = Gauge::default();
        self.ours().register(name, help, gauge.clone());
        self.list(name, "gauge", &[], help);
        gauge
    }

    /// Of numbers, with these upper bounds.
    pub(super) fn numbers(&mut self, name: &'static str, bounds: &[u64], help: &'static str) -> Spread {
        let spread = Spread::of_numbers(bounds.iter().copied());
        self.ours().register(name, help, spread.clone());
        self.list(name, "histogram", &[], help);
        spread
    }

    /// Of times in seconds: the lowest bound, how much higher each next one is, and how many there are.
    pub(super) fn times(
        &mut self,
        name: &'static str,
        (first, factor, bounds): (Duration, f64, i32),
        help: &'static str,
    ) -> Spread {
        let spread = Spread::of_times(first, factor, bounds);
        self.ours().register_with_unit(name, help, Unit::Seconds, spread.clone());
        self.list(&format!("{name}_seconds"), "histogram", &[], help);
        spread
    }

    /// Metrics that are read when they are asked for.
    pub(super) fn collector(&mut self, collector: impl Collector, shows: &[Kind]) {
        self.ours().register_collector(Box::new(collector));
        self.list_all(&format!("{OURS}_"), shows);
    }

    /// The same under names of the model system.
    pub(super) fn models(&mut self, collector: impl Collector, shows: &[Kind]) {
        self.registry.sub_registry_with_prefix(MODELS).register_collector(Box::new(collector));
        self.list_all(&format!("{MODELS}_"), shows);
    }

    /// The same under names that all programs use.
    pub(super) fn everybodys(&mut self, collector: impl Collector, shows: &[Kind]) {
        self.registry.register_collector(Box::new(collector));
        self.list_all("", shows);
    }

    fn list_all(&mut self, prefix: &str, shows: &[Kind]) {
        for Kind { name, kind, labels, help } in shows {
            self.list_as(format!("{prefix}{name}"), kind, labels, help);
        }
    }
}
