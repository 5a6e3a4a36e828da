//! [`Roster`]: meters by what they measure, bounded in how many have a label of their own.
//!
//! Whoever does the work holds its meter and writes it without asking anybody; the roster is asked when a meter is
//! entered, and by those who read. What has gone is told no more, but for what had no label: counters never fall.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Meters that have labels of their own, of one kind. The rest is told together, as `other`.
pub(super) const MOST_LABELS: usize = 1000;

/// Numbers about one thing.
pub trait Meter: Default {
    /// Adds what `other` has counted, but not how it stands just now.
    fn absorb(&self, other: &Self);
}

/// Meters by what they measure.
#[derive(Debug)]
pub struct Roster<K, M>(Mutex<Inner<K, M>>);

#[derive(Debug)]
struct Inner<K, M> {
    seats: BTreeMap<K, Seat<M>>,
    named: usize,
    /// What those have counted that had no label and have gone; `None` as long as there were none.
    gone: Option<M>,
}

#[derive(Debug)]
struct Seat<M> {
    meter: Arc<M>,
    has_label: bool,
}

impl<K, M> Default for Roster<K, M> {
    fn default() -> Self {
        Self(Mutex::new(Inner { seats: BTreeMap::new(), named: 0, gone: None }))
    }
}

impl<K: Ord + Clone, M: Meter> Roster<K, M> {
    fn lock(&self) -> MutexGuard<'_, Inner<K, M>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The meter of this: that which there is, or a new one.
    pub fn enter(&self, key: &K) -> Arc<M> {
        self.enter_as(key, Arc::default())
    }

    /// The same with a meter that there has been before.
    pub fn enter_as(&self, key: &K, meter: Arc<M>) -> Arc<M> {
        let mut inner = self.lock();
        let has_label = inner.named < MOST_LABELS;
        if let Some(seat) = inner.seats.get(key) {
            return Arc::clone(&seat.meter);
        }
        inner.named += usize::from(has_label);
        inner.seats.insert(key.clone(), Seat { meter: Arc::clone(&meter), has_label });
        meter
    }

    /// The meter of this, if there is one.
    pub fn get(&self, key: &K) -> Option<Arc<M>> {
        self.lock().seats.get(key).map(|seat| Arc::clone(&seat.meter))
    }

    /// Lets those go that are not wanted.
    pub fn keep(&self, is_wanted: impl Fn(&K) -> bool) {
        let mut inner = self.lock();
        let gone: Vec<K> = inner.seats.keys().filter(|key| !is_wanted(key)).cloned().collect();
        for key in gone {
            let Some(seat) = inner.seats.remove(&key) else { continue };
            match seat.has_label {
                true => inner.named -= 1,
                false => inner.gone.get_or_insert_default().absorb(&seat.meter),
            }
        }
    }

    /// Those with a label, in order, and what the others have counted together, if there were any.
    pub fn read(&self) -> (Vec<(K, Arc<M>)>, Option<M>) {
        let inner = self.lock();
        let named = inner.seats.iter().filter(|(_, seat)| seat.has_label);
        let named = named.map(|(key, seat)| (key.clone(), Arc::clone(&seat.meter))).collect();
        let mut others = inner.seats.values().filter(|seat| !seat.has_label).peekable();
        let is_used = inner.gone.is_some() || others.peek().is_some();
        let other = is_used.then(|| {
            let sum = M::default();
            inner.gone.iter().for_each(|gone| sum.absorb(gone));
            others.for_each(|seat| sum.absorb(&seat.meter));
            sum
        });
        (named, other)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    impl Meter for AtomicU64 {
        fn absorb(&self, other: &Self) {
            self.fetch_add(other.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    type Numbers = Roster<usize, AtomicU64>;

    fn count(roster: &Numbers, key: usize, number: u64) {
        roster.enter(&key).fetch_add(number, Ordering::Relaxed);
    }

    fn read(roster: &Numbers) -> (Vec<(usize, u64)>, Option<u64>) {
        let (named, other) = roster.read();
        let named = named.into_iter().map(|(key, meter)| (key, meter.load(Ordering::Relaxed))).collect();
        (named, other.map(|other| other.into_inner()))
    }

    #[test]
    fn a_meter_is_found_again_until_it_is_not_wanted() {
        let roster = Numbers::default();
        count(&roster, 1, 1);
        count(&roster, 1, 2);
        count(&roster, 2, 5);
        assert_eq!(read(&roster), (vec![(1, 3), (2, 5)], None));
        roster.keep(|key| *key != 1);
        assert_eq!(read(&roster), (vec![(2, 5)], None));
        assert!(roster.get(&1).is_none());
        count(&roster, 1, 1);
        assert_eq!(read(&roster), (vec![(1, 1), (2, 5)], None));
    }

    #[test]
    fn what_has_no_label_is_told_together_and_never_falls() {
        let roster = Numbers::default();
        (0..MOST_LABELS + 3).for_each(|key| count(&roster, key, 1));
        let (named, other) = read(&roster);
        assert_eq!((named.len(), other), (MOST_LABELS, Some(3)));
        roster.keep(|key| *key != MOST_LABELS && *key != 0);
        let (named, other) = read(&roster);
        assert_eq!((named.len(), other), (MOST_LABELS - 1, Some(3)));
        // The next has a label again; who came without one stays so.
        count(&roster, 5000, 7);
        count(&roster, MOST_LABELS + 1, 1);
        let (named, other) = read(&roster);
        assert_eq!((named.len(), named.last().copied(), other), (MOST_LABELS, Some((5000, 7)), Some(4)));
    }
}
