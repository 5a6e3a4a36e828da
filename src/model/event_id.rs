//! Event ids: UUIDs of version 7 that sort in the order in which they were made, whatever the clock does.
//!
//! The leading 60 bits (RFC 9562 section 6.2, method 3: milliseconds, then finer time in place of random bits)
//! never repeat and never fall, over all threads and, with [`start_after`], over restarts. The rest is random.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// An event's identity.
pub type EventId = Uuid;

/// Bits of [`order`] that are finer than a millisecond.
const FINE_BITS: u32 = 12;

/// The one that makes this process' ids.
static IDS: Ids = Ids::new();

/// An id for an event that enters at `now`, or just after the newest one if that is later.
pub fn next(now: SystemTime) -> EventId {
    IDS.next(now)
}

/// Every id made from now on sorts after this one. Called with the newest of a journal.
pub fn start_after(order: u64) {
    IDS.start_after(order);
}

/// Makes ids. It holds the leading bits of the newest: milliseconds in the upper 48, their 4096ths in the lower 12.
#[derive(Debug)]
struct Ids(AtomicU64);

impl Ids {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    fn next(&self, now: SystemTime) -> EventId {
        let now = moment(now);
        let mut newest = self.0.load(Ordering::Relaxed);
        loop {
            let order = now.max(newest + 1);
            match self.0.compare_exchange_weak(newest, order, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return from_parts(order, rand::random()),
                Err(newer) => newest = newer,
            }
        }
    }

    fn start_after(&self, order: u64) {
        self.0.fetch_max(order, Ordering::Relaxed);
    }
}

/// What ids sort by: unique to an id of this process. For an id of another version, what stands in its place.
pub fn order(id: EventId) -> u64 {
    let (upper, _) = id.as_u64_pair();
    upper >> 16 << FINE_BITS | upper & 0xfff
}

/// When an event with this id entered, to the millisecond; `None` if the id is of another version than 7.
pub fn time(id: EventId) -> Option<SystemTime> {
    (id.get_version_num() == 7).then(|| UNIX_EPOCH + Duration::from_millis(order(id) >> FINE_BITS))
}

/// What an id of this time would sort by, as exactly as ids know it: for [`age`].
pub fn moment(time: SystemTime) -> u64 {
    let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let fine = u64::from(time.subsec_nanos() % 1_000_000) * 4096 / 1_000_000;
    (time.as_millis() as u64) << FINE_BITS | fine
}

/// How long before `now` the event entered whose id sorts by this, as exactly as ids know it; zero if it was later.
pub fn age(order: u64, now: SystemTime) -> Duration {
    let fine = ((order & ((1 << FINE_BITS) - 1)) * 1_000_000) >> FINE_BITS;
    let entered = Duration::from_millis(order >> FINE_BITS) + Duration::from_nanos(fine);
    now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(entered)
}

/// What ids that are made at this time sort by, or just before it.
pub fn order_at(time: SystemTime) -> u64 {
    (time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64) << FINE_BITS
}

fn from_parts(order: u64, random: u64) -> EventId {
    let upper = order >> FINE_BITS << 16 | 0x7000 | order & 0xfff;
    Uuid::from_u64_pair(upper, 0x8000_0000_0000_0000 | random >> 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_version_7_with_their_time() {
        let at = UNIX_EPOCH + Duration::from_millis(4_000_000_000_000);
        let id = Ids::new().next(at);
        assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
        assert_eq!(time(id), Some(at));
        let fine = Duration::from_micros(750);
        let entered = order(Ids::new().next(at + fine));
        let late = age(entered, at + Duration::from_millis(3)).as_micros();
        assert!((2250..2252).contains(&late), "{late}");
        assert_eq!(age(entered, at), Duration::ZERO);
        assert_eq!(moment(at + fine), entered);
        assert_eq!(time(uuid::Builder::from_random_bytes([9; 16]).into_uuid()), None);
        assert_eq!(from_parts(order(id), 0).as_u64_pair().0, id.as_u64_pair().0);
    }

    #[test]
    fn a_clock_that_steps_back_does_not_disorder_ids() {
        let (made, now) = (Ids::new(), SystemTime::now());
        let step = |n| if n % 2 == 0 { now } else { now - Duration::from_secs(3600) };
        let ids: Vec<_> = (0..1000).map(|n| made.next(step(n))).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1] && order(pair[0]) < order(pair[1])));
    }

    #[test]
    fn ids_go_on_after_those_of_a_journal() {
        let (made, now) = (Ids::new(), SystemTime::now());
        let newest = Ids::new().next(now + Duration::from_secs(3600));
        made.start_after(order(newest));
        assert!(made.next(now) > newest);
    }

    #[test]
    fn ids_of_many_threads_differ() {
        let made = || (0..10_000).map(|_| order(next(SystemTime::now()))).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(made)).collect();
        let mut all: Vec<u64> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
