//! How long to wait before the next try. Pure: chance and time are given.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);
/// A connection that has held this long is healthy: the next failure starts from the beginning.
const HEALTHY: Duration = Duration::from_secs(60);

/// Doubles from 0.2 to 30 seconds, each wait shortened by chance by up to a half, so that many clients of
/// one broker do not come back together.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after a failure. `held` is how long the connection had held; `chance` is in 0 to 1.
    pub(super) fn next(&mut self, held: Duration, chance: f64) -> Duration {
        if held >= HEALTHY {
            self.failures = 0;
        }
        let whole = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        whole.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_half_a_minute_and_starts_again_after_a_healthy_minute() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..10).map(|_| backoff.next(Duration::ZERO, 0.0).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(backoff.next(Duration::from_secs(59), 0.0).as_millis(), 30_000);
        assert_eq!(backoff.next(Duration::from_secs(60), 0.0).as_millis(), 200);
    }

    #[test]
    fn chance_takes_off_up_to_a_half() {
        assert_eq!(Backoff::default().next(Duration::ZERO, 1.0).as_millis(), 100);
        assert_eq!(Backoff::default().next(Duration::ZERO, 0.5).as_millis(), 150);
    }

    #[test]
    fn never_overflows() {
        let mut backoff = Backoff { failures: u32::MAX };
        assert_eq!(backoff.next(Duration::ZERO, 0.0), LONGEST);
    }
}
