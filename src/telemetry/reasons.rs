//! [`Reasons`]: counters by words that are known from the start, so that the first time is seen as a rise from 0.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// A word of a label, and what it means.
pub type Word = (&'static str, &'static str);

/// A label, and the words that it can have.
pub type Label = (&'static str, &'static [Word]);

/// Counters by the words of one label.
pub type Reasons = Counts<1>;

/// What a word counts as that the label does not have: a fault of the program.
const OTHER: &str = "other";

/// Counters by the words of some labels, one for each of their combinations. A clone is the same. Words are found by
/// looking at one after the other, since they are few, and nothing is locked.
#[derive(Debug, Clone)]
pub struct Counts<const N: usize>(Arc<Inner<N>>);

#[derive(Debug)]
struct Inner<const N: usize> {
    labels: [&'static str; N],
    counts: Box<[([&'static str; N], AtomicU64)]>,
    other: AtomicU64,
}

impl<const N: usize> Counts<N> {
    /// All words of these labels, at 0.
    pub fn new(labels: [Label; N]) -> Self {
        let mut rows = vec![[""; N]];
        for (at, (_, words)) in labels.iter().enumerate() {
            let with = |row: [&'static str; N]| {
                words.iter().map(move |(word, _)| {
                    let mut row = row;
                    row[at] = *word;
                    row
                })
            };
            rows = rows.into_iter().flat_map(with).collect();
        }
        let counts = rows.into_iter().map(|row| (row, AtomicU64::new(0))).collect();
        Self(Arc::new(Inner { labels: labels.map(|(label, _)| label), counts, other: AtomicU64::new(0) }))
    }

    fn find(&self, words: [&str; N]) -> Option<&AtomicU64> {
        self.0.counts.iter().find(|(known, _)| *known == words).map(|(_, count)| count)
    }

    /// Counts so many under these words.
    pub fn add(&self, words: [&str; N], number: u64) {
        let found = self.find(words);
        found.unwrap_or(&self.0.other).fetch_add(number, Ordering::Relaxed);
        debug_assert!(found.is_some(), "{words:?} are no words of {:?}", self.0.labels);
    }

    /// What these words have counted.
    pub fn get(&self, words: [&str; N]) -> u64 {
        self.find(words).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// What all words have counted together.
    pub fn all(&self) -> u64 {
        self.0.counts.iter().map(|(_, count)| count.load(Ordering::Relaxed)).sum()
    }

    /// Its words, in order.
    pub fn words(&self) -> impl Iterator<Item = [&'static str; N]> {
        self.0.counts.iter().map(|(words, _)| *words)
    }
}

impl<const N: usize> EncodeMetric for Counts<N> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Inner { labels, counts, other } = &*self.0;
        let mut show = |words: [&'static str; N], count: u64| {
            let mut at = 0;
            let labels = labels.map(|label| {
                at += 1;
                (label, words[at - 1])
            });
            encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)
        };
        counts.iter().try_for_each(|(words, count)| show(*words, count.load(Ordering::Relaxed)))?;
        match other.load(Ordering::Relaxed) {
            0 => Ok(()),
            other => show([OTHER; N], other),
        }
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// The words that a function of a source file gives, as `name()` of an enum does: for tests that hold them against
/// those of a counter.
#[cfg(test)]
pub(crate) fn words_in<'a>(source: &'a str, function: &str) -> std::collections::BTreeSet<&'a str> {
    let body = source.split(&format!("fn {function}(")).nth(1).unwrap();
    let body = body.split("\n    }\n").next().unwrap();
    body.split("=> \"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    const FRUIT: Label = ("fruit", &[("apple", "Red"), ("pear", "Green")]);
    const SIZE: Label = ("size", &[("big", "Big"), ("small", "Small")]);

    fn text<const N: usize>(counts: &Counts<N>) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        registry.register("c", "Counts", counts.clone());
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn all_words_are_there_from_the_start() {
        let counts = Reasons::new([FRUIT]);
        assert!(text(&counts).contains("c_total{fruit=\"apple\"} 0\nc_total{fruit=\"pear\"} 0\n"));
        counts.add(["pear"], 2);
        counts.add(["pear"], 1);
        assert_eq!((counts.get(["pear"]), counts.get(["apple"]), counts.all()), (3, 0, 3));
        assert!(text(&counts).contains("c_total{fruit=\"apple\"} 0\nc_total{fruit=\"pear\"} 3\n"));
    }

    #[test]
    fn two_labels_have_all_combinations() {
        let counts = Counts::new([FRUIT, SIZE]);
        counts.add(["pear", "big"], 1);
        let text = text(&counts);
        assert_eq!(text.lines().filter(|line| line.starts_with("c_total{")).count(), 4, "{text}");
        assert!(text.contains("c_total{fruit=\"pear\",size=\"big\"} 1"), "{text}");
    }

    #[test]
    fn a_word_that_is_not_known_is_counted_as_other() {
        let counts = Reasons::new([FRUIT]);
        let counted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| counts.add(["plum"], 1)));
        assert_eq!(counted.is_err(), cfg!(debug_assertions));
        assert!(text(&counts).contains("c_total{fruit=\"other\"} 1"));
        assert_eq!((counts.get(["plum"]), counts.all()), (0, 0));
    }
}
