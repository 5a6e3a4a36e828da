//! [`ActionMeter`]: what one action of a trigger has done, and how its open batch stands. Its BatchActor writes it, once for
//! a group of events or a batch; calls and `/metrics` read it.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::roster::Meter;
use crate::model::activity::ActionActivity;
use crate::model::id::Id;
use crate::model::trigger::BatchClose;

/// A trigger's id, and which of its actions.
pub type ActionKey = (Id, usize);

/// Where instants are counted from: there is no other way to a number.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What an action has done since the start, and its open batch.
#[derive(Debug, Default)]
pub struct ActionMeter {
    events: AtomicU64,
    closed: [AtomicU64; BatchClose::ALL.len()],
    /// Events that jq did not let through, by [`Self::DROPS`].
    dropped: [AtomicU64; Self::DROPS.len()],
    open_events: AtomicU64,
    open_bytes: AtomicU64,
    /// Nanoseconds after [`BEGAN`]; 0: no batch is open.
    closes_at: AtomicU64,
    /// Milliseconds since 1970; 0: none has left.
    last_batch_at: AtomicU64,
}

impl ActionMeter {
    /// Why jq does not let an event through, in words.
    pub const DROPS: [&str; 4] = ["filtered", "error", "over_budget", "too_large"];

    /// The open batch holds this just now.
    pub fn open(&self, events: usize, bytes: usize, deadline: Option<Instant>) {
        let after = |deadline: Instant| deadline.saturating_duration_since(*BEGAN).as_nanos().max(1) as u64;
        self.open_events.store(events as u64, Ordering::Relaxed);
        self.open_bytes.store(bytes as u64, Ordering::Relaxed);
        self.closes_at.store(deadline.map_or(0, after), Ordering::Relaxed);
    }

    /// A batch has closed.
    pub fn close(&self, why: BatchClose, events: usize) {
        self.closed[why as usize].fetch_add(1, Ordering::Relaxed);
        self.events.fetch_add(events as u64, Ordering::Relaxed);
    }

    /// The gateway has taken the batches that closed.
    pub fn leave(&self, now: SystemTime) {
        let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        self.last_batch_at.store(millis, Ordering::Relaxed);
    }

    /// jq has not let an event through.
    pub fn drop_event(&self, why: &'static str) {
        if let Some(at) = Self::DROPS.iter().position(|word| *word == why) {
            self.dropped[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Events that jq did not let through, in the order of [`Self::DROPS`].
    pub fn dropped(&self) -> [u64; Self::DROPS.len()] {
        self.dropped.each_ref().map(|number| number.load(Ordering::Relaxed))
    }

    /// How it stands. `now` and `clock` are the same moment.
    pub fn read(&self, now: Instant, clock: SystemTime) -> ActionActivity {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let closed = self.closed.each_ref().map(load);
        let closes_at = Some(load(&self.closes_at)).filter(|nanos| *nanos > 0).map(|nanos| {
            let deadline = *BEGAN + Duration::from_nanos(nanos);
            clock + deadline.saturating_duration_since(now)
        });
        let last = Some(load(&self.last_batch_at)).filter(|millis| *millis > 0);
        ActionActivity {
            events: load(&self.events),
            batches: closed.iter().sum(),
            closed,
            open_events: load(&self.open_events),
            open_bytes: load(&self.open_bytes),
            closes_at,
            last_batch_at: last.map(|millis| UNIX_EPOCH + Duration::from_millis(millis)),
        }
    }
}

impl Meter for ActionMeter {
    fn absorb(&self, other: &Self) {
        let add = |to: &AtomicU64, from: &AtomicU64| {
            to.fetch_add(from.load(Ordering::Relaxed), Ordering::Relaxed);
        };
        add(&self.events, &other.events);
        self.closed.iter().zip(&other.closed).for_each(|(to, from)| add(to, from));
        self.dropped.iter().zip(&other.dropped).for_each(|(to, from)| add(to, from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_what_was_written() {
        let meter = ActionMeter::default();
        let (now, clock) = (Instant::now(), UNIX_EPOCH + Duration::from_secs(1_000));
        assert_eq!(meter.read(now, clock), ActionActivity::default());
        meter.open(3, 300, Some(now + Duration::from_secs(2)));
        meter.close(BatchClose::Count, 10);
        meter.close(BatchClose::Cutoff, 4);
        meter.leave(clock);
        meter.drop_event("error");
        let seen = meter.read(now, clock);
        assert_eq!((seen.events, seen.batches, seen.open_events, seen.open_bytes), (14, 2, 3, 300));
        assert_eq!(seen.closes_at, Some(clock + Duration::from_secs(2)));
        assert_eq!(seen.last_batch_at, Some(clock));
        assert_eq!(seen.closed_for(BatchClose::Count), 1);
        assert_eq!(meter.dropped(), [0, 1, 0, 0]);
        meter.open(0, 0, None);
        assert_eq!(meter.read(now, clock).closes_at, None);
    }

    #[test]
    fn what_is_counted_adds_up_and_what_is_open_does_not() {
        let (sum, one) = (ActionMeter::default(), ActionMeter::default());
        one.open(1, 10, None);
        one.close(BatchClose::Drain, 2);
        sum.absorb(&one);
        sum.absorb(&one);
        let seen = sum.read(Instant::now(), SystemTime::now());
        assert_eq!((seen.events, seen.batches, seen.open_events), (4, 2, 0));
    }
}
