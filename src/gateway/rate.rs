//! How fast a client may do something: a bucket that fills with time. Pure; times are seconds on the caller's clock.

/// Seconds' worth that may be used at once.
const BURST_SECONDS: u32 = 10;

/// What has been used and not been earned back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Used {
    units: u32,
    at: u32,
}

impl Used {
    /// This many more at `now`, if `per_second` allows. Gives what is used then; `None`: it is too much.
    pub(super) fn take(self, units: u32, now: u32, per_second: u32) -> Option<Self> {
        let earned = now.saturating_sub(self.at).saturating_mul(per_second);
        let units = self.units.saturating_sub(earned).saturating_add(units);
        (units <= per_second.saturating_mul(BURST_SECONDS)).then_some(Self { units, at: now })
    }

    /// Whether nothing of it counts any more at `now`.
    pub(super) fn is_over(self, now: u32, per_second: u32) -> bool {
        now.saturating_sub(self.at).saturating_mul(per_second) >= self.units
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_seconds_worth_at_once_and_then_the_rate() {
        let mut used = Used::default();
        let mut take = |units, now| {
            let taken = used.take(units, now, 5);
            used = taken.unwrap_or(used);
            taken.is_some()
        };
        assert!(take(50, 100) && !take(1, 100));
        assert!(take(5, 101) && !take(1, 101));
        // A clock that stands still, or goes back, earns nothing.
        assert!(!take(1, 99));
        assert!(take(50, 111) && !take(1, 111));
        assert!(!used.is_over(120, 5) && used.is_over(121, 5));
    }

    #[test]
    fn nothing_overflows() {
        let used = Used::default().take(u32::MAX, u32::MAX, u32::MAX).unwrap();
        assert_eq!(used.take(1, u32::MAX, u32::MAX), Some(used));
        assert_eq!(Used::default().take(11, 0, 1), None);
    }
}
