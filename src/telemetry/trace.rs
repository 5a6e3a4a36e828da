//! Follows single events from their publish to the sockets, by log lines, when that is asked for.
//!
//! Every stage asks [`is_on`], which is one branch when it is off. Who lets an event in decides whether it is followed; the
//! later stages know it by its id, and the workers, which see encoded messages, by its place on a path. What is
//! remembered is bounded: the oldest is followed no further.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use crate::model::event::{Event, EventId};
use crate::model::gateway::PathKey;
use crate::model::topic;

/// Events, and places on paths, that are remembered.
const MOST: usize = 4096;

/// What directives of `RUST_LOG` call the lines of traces.
pub(super) const TARGET: &str = "triggercast::trace";

static ON: AtomicBool = AtomicBool::new(false);
static TRACES: LazyLock<Mutex<Traces>> = LazyLock::new(Mutex::default);

/// Which events are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// One of so many of those that match.
    pub one_in: u32,
    /// Only those of this device.
    pub device: Option<String>,
    /// Only those whose topic, or repository, this filter matches.
    pub topic: Option<String>,
}

impl Default for Wanted {
    /// All.
    fn default() -> Self {
        Self { one_in: 1, device: None, topic: None }
    }
}

/// What is followed just now.
#[derive(Debug, Default)]
struct Traces {
    wanted: Wanted,
    /// Those that matched.
    matched: u32,
    followed: HashSet<EventId>,
    /// In the order in which they came.
    order: VecDeque<EventId>,
    placed: BTreeMap<(PathKey, u64), EventId>,
    places: VecDeque<(PathKey, u64)>,
}

impl Traces {
    /// Whether an event that comes in is followed; it is from now on.
    fn enter(&mut self, id: EventId, device: &str, topic: &str) -> bool {
        let Wanted { one_in, device: wanted, topic: filter } = &self.wanted;
        let matches = wanted.as_ref().is_none_or(|wanted| wanted == device)
            && filter.as_ref().is_none_or(|filter| topic::matches(filter, topic));
        if !matches {
            return false;
        }
        let is_due = self.matched.is_multiple_of((*one_in).max(1));
        self.matched = self.matched.wrapping_add(1);
        if is_due && self.followed.insert(id) {
            if self.order.len() >= MOST
                && let Some(oldest) = self.order.pop_front()
            {
                self.followed.remove(&oldest);
            }
            self.order.push_back(id);
        }
        is_due
    }

    /// A followed event has its place on a path.
    fn place(&mut self, path: &PathKey, position: u64, id: EventId) {
        let place = (path.clone(), position);
        if self.placed.insert(place.clone(), id).is_none() {
            if self.places.len() >= MOST
                && let Some(oldest) = self.places.pop_front()
            {
                self.placed.remove(&oldest);
            }
            self.places.push_back(place);
        }
    }

    /// The followed events on a stretch of a path.
    fn on(&self, path: &PathKey, places: Range<u64>) -> Vec<EventId> {
        if places.is_empty() {
            return Vec::new();
        }
        let range = (path.clone(), places.start)..(path.clone(), places.end);
        self.placed.range(range).map(|(_, id)| *id).collect()
    }
}

fn traces() -> MutexGuard<'static, Traces> {
    TRACES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Follows these events from now on.
pub(super) fn start(wanted: Wanted) {
    traces().wanted = wanted;
    ON.store(true, Ordering::Relaxed);
}

/// Whether any event is followed.
#[inline]
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// An event comes in, of a device (or of none) on a topic or in a repository.
pub fn received(event: &Event, device: &str, topic: &str) {
    if traces().enter(event.id, device, topic) {
        tracing::trace!(target: TARGET, event_id = %event.id, device, topic, "received");
    }
}

/// Events have passed a stage; `place` says of whom.
pub fn passed<'a>(stage: &'static str, place: &str, events: impl IntoIterator<Item = &'a Event>) {
    let followed: Vec<EventId> = {
        let traces = traces();
        let ids = events.into_iter().map(|event| event.id);
        ids.filter(|id| traces.followed.contains(id)).collect()
    };
    for id in followed {
        tracing::trace!(target: TARGET, event_id = %id, place, "{stage}");
    }
}

/// Events are broadcast on a path, the first of them at this position.
pub fn broadcast<'a>(path: &PathKey, first: u64, events: impl IntoIterator<Item = &'a Event>) {
    let mut followed = Vec::new();
    {
        let mut traces = traces();
        for (event, position) in events.into_iter().zip(first..) {
            if traces.followed.contains(&event.id) {
                traces.place(path, position, event.id);
                followed.push((event.id, position));
            }
        }
    }
    for (id, position) in followed {
        tracing::trace!(target: TARGET, event_id = %id, %path, position, "broadcast");
    }
}

/// A worker has written a stretch of a path to those of its clients that keep up.
pub fn written(path: &PathKey, places: Range<u64>, worker: usize, clients: usize) {
    let followed = traces().on(path, places);
    for id in followed {
        tracing::trace!(target: TARGET, event_id = %id, %path, worker, clients, "written");
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn path() -> PathKey {
        PathKey { gateway_id: "main".into(), path: "/ws".into() }
    }

    #[test]
    fn what_is_wanted_is_followed_one_in_so_many() {
        let wanted = Wanted { one_in: 2, device: Some("d".into()), topic: Some("a/+".into()) };
        let mut traces = Traces { wanted, ..Traces::default() };
        let mut enter = |n, device, topic| traces.enter(Uuid::from_u128(n), device, topic);
        assert!(enter(1, "d", "a/b"));
        assert!(!enter(2, "other", "a/b") && !enter(3, "d", "b/a"));
        assert!(!enter(4, "d", "a/c"));
        assert!(enter(5, "d", "a/c"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut traces = Traces::default();
        for n in 0..MOST as u128 + 10 {
            assert!(traces.enter(Uuid::from_u128(n), "", ""));
            traces.place(&path(), n as u64, Uuid::from_u128(n));
        }
        assert_eq!((traces.followed.len(), traces.order.len()), (MOST, MOST));
        assert_eq!((traces.placed.len(), traces.places.len()), (MOST, MOST));
        assert_eq!(traces.on(&path(), 0..12), [Uuid::from_u128(10), Uuid::from_u128(11)]);
        let other = PathKey { path: "/x".into(), ..path() };
        assert!(traces.on(&other, 0..u64::MAX).is_empty());
    }
}
