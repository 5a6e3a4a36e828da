//! Follows single events from their publish to the sockets, by log lines or by spans for a collector, when that is asked for.
//!
//! Every stage asks [`is_on`], which is one branch when it is off. Who lets an event in decides whether it is followed; the
//! later stages know it by its id, and the workers, which see encoded messages, by its place on a path. What is
//! remembered is bounded: the oldest is followed no further.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use opentelemetry::KeyValue;

use super::otlp::{self, Stage};
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
    /// The collector that is told of them instead of the log: a URL of http or https, which speaks OTLP over gRPC.
    pub otlp: Option<String>,
}

impl Default for Wanted {
    /// All.
    fn default() -> Self {
        Self { one_in: 1, device: None, topic: None, otlp: None }
    }
}

/// An event that is followed.
#[derive(Debug, Clone, Copy)]
struct Followed {
    /// When it came in.
    received: SystemTime,
    /// When the last batch with it closed.
    batched: SystemTime,
    /// It was on disk, at least of one source: every source that takes it writes it, and so does an action with jq.
    is_journaled: bool,
}

/// What is followed just now.
#[derive(Debug, Default)]
struct Traces {
    wanted: Wanted,
    /// Those that matched.
    matched: u32,
    followed: HashMap<EventId, Followed>,
    /// In the order in which they came.
    order: VecDeque<EventId>,
    /// With the time when they were broadcast.
    placed: BTreeMap<(PathKey, u64), (EventId, SystemTime)>,
    places: VecDeque<(PathKey, u64)>,
}

impl Traces {
    /// Whether an event that comes in is followed; it is from now on.
    fn enter(&mut self, id: EventId, device: &str, topic: &str, now: SystemTime) -> bool {
        let Wanted { one_in, device: wanted, topic: filter, otlp: _ } = &self.wanted;
        let matches = wanted.as_ref().is_none_or(|wanted| wanted == device)
            && filter.as_ref().is_none_or(|filter| topic::matches(filter, topic));
        if !matches {
            return false;
        }
        let is_due = self.matched.is_multiple_of((*one_in).max(1));
        self.matched = self.matched.wrapping_add(1);
        let followed = Followed { received: now, batched: now, is_journaled: false };
        if is_due && self.followed.insert(id, followed).is_none() {
            if self.order.len() >= MOST
                && let Some(oldest) = self.order.pop_front()
            {
                self.followed.remove(&oldest);
            }
            self.order.push_back(id);
        }
        is_due
    }

    /// Events are on disk: those of them that are followed and were not before, with the times when they came in.
    fn journal<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>) -> Vec<(EventId, SystemTime)> {
        let first_time = |event: &Event| {
            let followed = self.followed.get_mut(&event.id)?;
            let was = std::mem::replace(&mut followed.is_journaled, true);
            (!was).then_some((event.id, followed.received))
        };
        events.into_iter().filter_map(first_time).collect()
    }

    /// A followed event has its place on a path.
    fn place(&mut self, path: &PathKey, position: u64, id: EventId, now: SystemTime) {
        let place = (path.clone(), position);
        if self.placed.insert(place.clone(), (id, now)).is_none() {
            if self.places.len() >= MOST
                && let Some(oldest) = self.places.pop_front()
            {
                self.placed.remove(&oldest);
            }
            self.places.push_back(place);
        }
    }

    /// The followed events on a stretch of a path, and when they were broadcast.
    fn on(&self, path: &PathKey, places: Range<u64>) -> Vec<(EventId, SystemTime)> {
        if places.is_empty() {
            return Vec::new();
        }
        let range = (path.clone(), places.start)..(path.clone(), places.end);
        self.placed.range(range).map(|(_, placed)| *placed).collect()
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
    let now = SystemTime::now();
    if traces().enter(event.id, device, topic, now) {
        tracing::trace!(target: TARGET, event_id = %event.id, device, topic, "received");
        otlp::tell(event.id, now, now, || {
            let device = KeyValue::new("triggercast.device_id", device.to_owned());
            let topic = KeyValue::new("messaging.destination.name", topic.to_owned());
            Stage { name: "received", attributes: vec![device, topic] }
        });
    }
}

/// Events are on disk. Told once, though several sources may write one.
pub fn journaled<'a>(events: impl IntoIterator<Item = &'a Event>) {
    let now = SystemTime::now();
    let followed = traces().journal(events);
    for (id, since) in followed {
        tracing::trace!(target: TARGET, event_id = %id, "journaled");
        otlp::tell(id, since, now, || Stage { name: "journaled", attributes: Vec::new() });
    }
}

/// The programs of a trigger do not let an event through.
pub fn dropped(trigger: &str, event: EventId, reason: &'static str) {
    let now = SystemTime::now();
    let since = traces().followed.get(&event).map(|followed| followed.received);
    let Some(since) = since else { return };
    tracing::trace!(target: TARGET, event_id = %event, trigger, reason, "dropped");
    otlp::tell(event, since, now, || {
        let trigger = KeyValue::new("triggercast.trigger", trigger.to_owned());
        let reason = KeyValue::new("triggercast.reason", reason);
        Stage { name: "dropped", attributes: vec![trigger, reason] }
    });
}

/// A batch of a trigger with these events has closed.
pub fn batched<'a>(trigger: &str, events: impl IntoIterator<Item = &'a Event>) {
    let now = SystemTime::now();
    let mut followed = Vec::new();
    {
        let mut traces = traces();
        for event in events {
            if let Some(known) = traces.followed.get_mut(&event.id) {
                known.batched = now;
                followed.push((event.id, known.received));
            }
        }
    }
    for (id, since) in followed {
        tracing::trace!(target: TARGET, event_id = %id, trigger, "batched");
        otlp::tell(id, since, now, || {
            let trigger = KeyValue::new("triggercast.trigger", trigger.to_owned());
            Stage { name: "batched", attributes: vec![trigger] }
        });
    }
}

/// Events are broadcast on a path, the first of them at this position.
pub fn broadcast<'a>(path: &PathKey, first: u64, events: impl IntoIterator<Item = &'a Event>) {
    let now = SystemTime::now();
    let mut followed = Vec::new();
    {
        let mut traces = traces();
        for (event, position) in events.into_iter().zip(first..) {
            if let Some(Followed { batched, .. }) = traces.followed.get(&event.id).copied() {
                traces.place(path, position, event.id, now);
                followed.push((event.id, position, batched));
            }
        }
    }
    for (id, position, since) in followed {
        tracing::trace!(target: TARGET, event_id = %id, %path, position, "broadcast");
        otlp::tell(id, since, now, || {
            let path = KeyValue::new("triggercast.path", path.to_string());
            let position = KeyValue::new("triggercast.position", position as i64);
            Stage { name: "broadcast", attributes: vec![path, position] }
        });
    }
}

/// A worker has written a stretch of a path to those of its clients that keep up.
pub fn written(path: &PathKey, places: Range<u64>, worker: usize, clients: usize) {
    let now = SystemTime::now();
    let followed = traces().on(path, places);
    for (id, since) in followed {
        tracing::trace!(target: TARGET, event_id = %id, %path, worker, clients, "written");
        otlp::tell(id, since, now, || {
            let path = KeyValue::new("triggercast.path", path.to_string());
            let worker = KeyValue::new("triggercast.worker", worker as i64);
            let clients = KeyValue::new("triggercast.clients", clients as i64);
            Stage { name: "written", attributes: vec![path, worker, clients] }
        });
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
        let wanted = Wanted { one_in: 2, device: Some("d".into()), topic: Some("a/+".into()), otlp: None };
        let mut traces = Traces { wanted, ..Traces::default() };
        let mut enter =
            |n, device, topic| traces.enter(Uuid::from_u128(n), device, topic, SystemTime::UNIX_EPOCH);
        assert!(enter(1, "d", "a/b"));
        assert!(!enter(2, "other", "a/b") && !enter(3, "d", "b/a"));
        assert!(!enter(4, "d", "a/c"));
        assert!(enter(5, "d", "a/c"));
    }

    #[test]
    fn an_event_is_journaled_once_though_several_sources_write_it() {
        let mut traces = Traces::default();
        let event = |n| Event { id: Uuid::from_u128(n), json: bytes::Bytes::new() };
        traces.enter(event(1).id, "", "", SystemTime::UNIX_EPOCH);
        assert_eq!(traces.journal([&event(1), &event(2)]), [(event(1).id, SystemTime::UNIX_EPOCH)]);
        assert_eq!(traces.journal([&event(1), &event(2)]), []);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut traces = Traces::default();
        for n in 0..MOST as u128 + 10 {
            assert!(traces.enter(Uuid::from_u128(n), "", "", SystemTime::UNIX_EPOCH));
            traces.place(&path(), n as u64, Uuid::from_u128(n), SystemTime::UNIX_EPOCH);
        }
        assert_eq!((traces.followed.len(), traces.order.len()), (MOST, MOST));
        assert_eq!((traces.placed.len(), traces.places.len()), (MOST, MOST));
        let first = [10, 11].map(|n| (Uuid::from_u128(n), SystemTime::UNIX_EPOCH));
        assert_eq!(traces.on(&path(), 0..12), first);
        let other = PathKey { path: "/x".into(), ..path() };
        assert!(traces.on(&other, 0..u64::MAX).is_empty());
    }
}
