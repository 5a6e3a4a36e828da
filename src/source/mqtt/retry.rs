//! When to connect again, and when trying again is of no use: pure decisions, asked by [`super::task`].

use std::time::Duration;

/// The first wait, and the least.
const FIRST: Duration = Duration::from_millis(200);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);
/// A connection that lived this long was healthy: the next wait is the first again.
pub(super) const HEALTHY: Duration = Duration::from_secs(60);
/// Failures of one kind, in a row, each of a connection that had resumed its session, that are no accident.
const REPEATS: u32 = 5;

/// How long to wait before the next attempt: it doubles, with jitter, so that a broker that comes back is
/// not met by all its clients at once.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Starts with the first wait.
    pub(super) fn new() -> Self {
        Self { next: FIRST }
    }

    /// The wait after a connection that lived for `lived` (zero if there was none). `jitter` is from 0 to 1.
    pub(super) fn wait(&mut self, lived: Duration, jitter: f64) -> Duration {
        if lived >= HEALTHY {
            self.next = FIRST;
        }
        let base = self.next;
        self.next = (base * 2).min(LONGEST);
        base.mul_f64(1.0 + 0.5 * jitter.clamp(0.0, 1.0)).min(LONGEST)
    }
}

/// Notices a connection that is made again and again and fails each time in the same way, without a message
/// getting through in between: a message that cannot be read, or another client with the same id.
#[derive(Debug, Default)]
pub(super) struct RepeatGuard {
    error: String,
    count: u32,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended<'a> {
    /// In words.
    pub(super) error: &'a str,
    /// The broker had kept our session.
    pub(super) session_present: bool,
    /// Something was acknowledged on it.
    pub(super) progress: bool,
    /// How long it lived.
    pub(super) lived: Duration,
}

impl RepeatGuard {
    /// Notes the end of a connection. True once, when it is clear that it will not get better by itself.
    pub(super) fn note(&mut self, ending: Ended<'_>) -> bool {
        if !ending.session_present || ending.progress || ending.lived >= HEALTHY {
            *self = Self::default();
            return false;
        }
        if self.error != ending.error {
            *self = Self { error: ending.error.to_owned(), count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count == REPEATS
    }

    /// Whether the connection is known to fail again and again.
    pub(super) fn is_raised(&self) -> bool {
        self.count >= REPEATS
    }

    /// A message got through, or the connection has lived long enough.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENDING: Ended<'static> =
        Ended { error: "e", session_present: true, progress: false, lived: Duration::ZERO };

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..10).map(|_| backoff.wait(Duration::ZERO, 0.0).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
    }

    #[test]
    fn a_healthy_connection_begins_anew() {
        let mut backoff = Backoff::new();
        for _ in 0..10 {
            backoff.wait(Duration::from_secs(59), 0.0);
        }
        assert_eq!(backoff.wait(HEALTHY, 0.0), FIRST);
    }

    proptest! {
        #[test]
        fn no_wait_leaves_its_bounds(lived in prop::collection::vec(0u64..120, 1..40), jitter in -1.0f64..2.0) {
            let mut backoff = Backoff::new();
            for lived in lived {
                let wait = backoff.wait(Duration::from_secs(lived), jitter);
                prop_assert!((FIRST..=LONGEST).contains(&wait), "{wait:?}");
            }
        }
    }

    #[test]
    fn the_fifth_failure_of_one_kind_raises_once() {
        let mut guard = RepeatGuard::default();
        let raised: Vec<_> = (0..7).map(|_| guard.note(ENDING)).collect();
        assert_eq!(raised, [false, false, false, false, true, false, false]);
        assert!(guard.is_raised());
        guard.clear();
        assert!(!guard.is_raised());
    }

    #[test]
    fn any_sign_of_life_starts_the_count_again() {
        for sign in [
            Ended { error: "other", ..ENDING },
            Ended { session_present: false, ..ENDING },
            Ended { progress: true, ..ENDING },
            Ended { lived: HEALTHY, ..ENDING },
        ] {
            let mut guard = RepeatGuard::default();
            (0..4).for_each(|_| assert!(!guard.note(ENDING)));
            assert!(!guard.note(sign), "{sign:?}");
            assert!(!guard.note(ENDING), "{sign:?}");
        }
    }
}
