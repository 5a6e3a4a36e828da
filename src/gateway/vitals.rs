//! Decides whether a connection lives and is in use. Pure; times are seconds on the worker's clock.

/// Seconds without input after which a ping is sent.
const PING_AFTER: u32 = 15;
/// Seconds without input after which the peer is dead: with a ping lost or unanswered in between, and a
/// clock that moves once a second, it is found within 40 seconds.
const DEAD_AFTER: u32 = 35;
/// What is known about a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vitals {
    /// When it opened.
    pub(super) opened: u32,
    /// When bytes came last, or when the kernel last took bytes after it had been full.
    pub(super) last_input: u32,
    /// When it was last in use: a message in either direction, or a ping of the client.
    pub(super) last_activity: u32,
    /// Whether a ping has been sent since the last input.
    pub(super) pinged: bool,
    /// Seconds without use after which it is idle.
    pub(super) idle: u32,
    /// Seconds that it may live.
    pub(super) lifetime: u32,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing.
    Fine,
    /// Ask whether it lives.
    Ping,
    /// It does not live: end it.
    Dead,
    /// It is not used: close it.
    Idle,
    /// It has lived its time: close it.
    Old,
}

impl Vitals {
    /// What is to be done at `now`.
    pub(super) fn check(self, now: u32) -> Finding {
        let silent = now.saturating_sub(self.last_input);
        let unused = now.saturating_sub(self.last_activity.max(self.opened));
        if silent >= DEAD_AFTER {
            Finding::Dead
        } else if now.saturating_sub(self.opened) >= self.lifetime {
            Finding::Old
        } else if unused >= self.idle {
            Finding::Idle
        } else if silent >= PING_AFTER && !self.pinged {
            Finding::Ping
        } else {
            Finding::Fine
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Vitals =
        Vitals { opened: 100, last_input: 100, last_activity: 100, pinged: false, idle: 600, lifetime: 3600 };

    #[test]
    fn a_silent_peer_is_asked_once_and_then_dead() {
        assert_eq!(FRESH.check(114), Finding::Fine);
        assert_eq!(FRESH.check(115), Finding::Ping);
        let pinged = Vitals { pinged: true, ..FRESH };
        assert_eq!(pinged.check(134), Finding::Fine);
        assert_eq!(pinged.check(135), Finding::Dead);
    }

    #[test]
    fn answered_pings_do_not_count_as_use() {
        let alive = |now| Vitals { last_input: now, ..FRESH };
        assert_eq!(alive(699).check(699), Finding::Fine);
        assert_eq!(alive(700).check(700), Finding::Idle);
        let used = Vitals { last_activity: 500, ..alive(1099) };
        assert_eq!(used.check(1099), Finding::Fine);
        assert_eq!(Vitals { last_input: 1100, ..used }.check(1100), Finding::Idle);
    }

    #[test]
    fn a_connection_in_use_lives_an_hour() {
        let busy = |now| Vitals { last_input: now, last_activity: now, ..FRESH };
        assert_eq!(busy(3699).check(3699), Finding::Fine);
        assert_eq!(busy(3700).check(3700), Finding::Old);
    }

    #[test]
    fn a_path_that_was_used_before_the_connection_opened_does_not_age_it() {
        assert_eq!(Vitals { last_activity: 0, ..FRESH }.check(110), Finding::Fine);
    }
}
