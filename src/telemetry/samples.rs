//! How things stood, every two seconds of the last ten minutes. Pure; the server takes the samples.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::activity::Sample;

/// Time between two samples.
pub const PAUSE: Duration = Duration::from_secs(2);
/// Samples that are kept.
pub const KEPT: usize = 300;

/// The newest samples, in order.
#[derive(Debug, Default)]
pub struct Samples {
    kept: VecDeque<Sample>,
    last: u64,
}

impl Samples {
    /// Adds a sample; it gets the next number. The oldest goes.
    pub fn push(&mut self, sample: Sample) {
        self.last += 1;
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Sample { number: self.last, ..sample });
    }

    /// Those after this number. One that there has not been yet is of an earlier start: then all.
    pub fn after(&self, number: u64) -> Vec<Sample> {
        let number = if number > self.last { 0 } else { number };
        let first = self.kept.partition_point(|sample| sample.number <= number);
        self.kept.range(first..).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn sample(events: u64) -> Sample {
        Sample {
            number: 0,
            at: UNIX_EPOCH,
            events,
            batches: 0,
            deliveries: 0,
            websocket_connections: 0,
            mqtt_connections: 0,
            writes: 0,
            lag_sum: Duration::ZERO,
        }
    }

    #[test]
    fn the_newest_are_kept_and_told_from_where_the_caller_stands() {
        let mut samples = Samples::default();
        assert!(samples.after(0).is_empty());
        (1..=KEPT as u64 + 10).for_each(|events| samples.push(sample(events)));
        let all = samples.after(0);
        assert_eq!((all.len(), all[0].number, all[0].events), (KEPT, 11, 11));
        let last = KEPT as u64 + 10;
        assert_eq!(samples.after(last - 2).iter().map(|s| s.number).collect::<Vec<_>>(), [last - 1, last]);
        assert!(samples.after(last).is_empty());
        assert_eq!(samples.after(last + 1).len(), KEPT, "a number of an earlier start");
    }
}
