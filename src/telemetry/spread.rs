//! [`Spread`]: a histogram without a lock, since it is written where messages go out.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// How often numbers came, by ranges. A clone is the same.
#[derive(Debug, Clone)]
pub struct Spread(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The highest number of each range but the last, which has no end.
    bounds: Box<[u64]>,
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
    /// What is told is a number divided by this.
    unit: f64,
}

impl Spread {
    /// Of numbers, with these upper bounds, which rise.
    pub fn of_numbers(bounds: impl IntoIterator<Item = u64>) -> Self {
        Self::new(bounds.into_iter().collect(), 1.0)
    }

    /// Of times, which are told in seconds: so many bounds, each so much higher than the one before.
    pub fn of_times(first: Duration, factor: f64, bounds: i32) -> Self {
        let bound = |n| first.mul_f64(factor.powi(n)).as_nanos() as u64;
        Self::new((0..bounds).map(bound).collect(), 1e9)
    }

    fn new(bounds: Box<[u64]>, unit: f64) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Inner { bounds, counts, sum: AtomicU64::new(0), unit }))
    }

    /// Counts a number.
    pub fn observe(&self, number: u64) {
        let range = self.0.bounds.partition_point(|bound| *bound < number);
        if let Some(count) = self.0.counts.get(range) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.0.sum.fetch_add(number, Ordering::Relaxed);
    }

    /// Counts a time.
    pub fn observe_time(&self, time: Duration) {
        self.observe(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How many times came, and all of them added up.
    pub fn times(&self) -> (u64, Duration) {
        let count = self.0.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        (count, Duration::from_nanos(self.0.sum.load(Ordering::Relaxed)))
    }
}

impl EncodeMetric for Spread {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Inner { bounds, counts, sum, unit } = &*self.0;
        let bounds = bounds.iter().map(|bound| *bound as f64 / unit).chain([f64::INFINITY]);
        let counts = counts.iter().map(|count| count.load(Ordering::Relaxed));
        let ranges: Vec<_> = bounds.zip(counts).collect();
        let all = ranges.iter().map(|(_, count)| count).sum();
        let sum = sum.load(Ordering::Relaxed) as f64 / unit;
        encoder.encode_histogram::<NoLabelSet>(sum, all, &ranges, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    fn text(spread: &Spread) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        registry.register("s", "A spread", spread.clone());
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn numbers_stand_in_their_ranges_and_add_up() {
        let spread = Spread::of_numbers([1, 10]);
        [0, 1, 2, 10, 11].into_iter().for_each(|number| spread.observe(number));
        let text = text(&spread);
        for line in ["s_sum 24.0", "s_count 5", "le=\"1.0\"} 2", "le=\"10.0\"} 4", "le=\"+Inf\"} 5"] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn times_are_told_in_seconds() {
        let spread = Spread::of_times(Duration::from_millis(1), 10.0, 3);
        assert_eq!(spread.times(), (0, Duration::ZERO));
        spread.observe_time(Duration::from_millis(10));
        spread.observe_time(Duration::from_millis(30));
        assert_eq!(spread.times(), (2, Duration::from_millis(40)));
        let text = text(&spread);
        for line in ["s_sum 0.04\n", "le=\"0.001\"} 0", "le=\"0.01\"} 1", "le=\"0.1\"} 2"] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
