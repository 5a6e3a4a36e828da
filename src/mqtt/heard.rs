//! [`Heard`]: what came from a device last, for people who look. A device that was never there has none; one that was takes at
//! most [`LAST`] messages of [`BYTES`] bytes.
//!
//! The connection's [`Recent`] notes publishes without a lock or a clock; they are told once for all that was read together.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;

use super::space::Route;
use crate::model::activity::{DeviceActivity, DeviceMessage};
use crate::model::id::Id;

/// Messages of a device that are kept.
const LAST: usize = 3;
/// Bytes of each.
const BYTES: usize = 1024;

/// What came from a device since the start.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    connections: AtomicU32,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    messages: u64,
    seen_at: Option<SystemTime>,
    /// The newest first.
    last: VecDeque<DeviceMessage>,
}

/// The device is connected as long as this lives.
#[derive(Debug)]
pub(crate) struct Presence(Arc<Heard>);

/// What came on a connection and is not told yet.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    messages: u64,
    /// The last of them, each in the place that its number gives it.
    last: [Option<Note>; LAST],
}

/// Where a publish went, how it begins, and how long it is.
#[derive(Debug)]
struct Note {
    route: Arc<Route>,
    begin: Vec<u8>,
    size: usize,
}

impl Heard {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device has connected.
    pub(crate) fn connect(self: &Arc<Self>) -> Presence {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.said().seen_at = Some(SystemTime::now());
        Presence(Arc::clone(self))
    }

    /// A message came that was not read from a connection.
    pub(crate) fn hear(&self, topic: &str, payload: &[u8]) {
        let now = SystemTime::now();
        let mut said = self.said();
        said.messages += 1;
        said.seen_at = Some(now);
        said.push(topic, now, Bytes::copy_from_slice(begin(payload)), payload.len());
    }

    /// What is known of the device with this id.
    pub(crate) fn read(&self, id: &Id) -> DeviceActivity {
        let said = self.said();
        DeviceActivity {
            id: id.clone(),
            is_connected: self.connections.load(Ordering::Relaxed) > 0,
            last_seen_at: said.seen_at,
            messages: said.messages,
            last_messages: said.last.iter().cloned().collect(),
        }
    }
}

impl Said {
    fn push(&mut self, topic: &str, at: SystemTime, payload: Bytes, size: usize) {
        self.last.truncate(LAST - 1);
        self.last.push_front(DeviceMessage { topic: topic.into(), at, payload, size });
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.said().seen_at = Some(SystemTime::now());
    }
}

impl Recent {
    /// Notes a publish.
    pub(crate) fn note(&mut self, route: &Arc<Route>, payload: &[u8]) {
        let place = &mut self.last[self.messages as usize % LAST];
        self.messages += 1;
        let new = || Note { route: Arc::clone(route), begin: Vec::new(), size: 0 };
        let note = place.get_or_insert_with(new);
        if !Arc::ptr_eq(&note.route, route) {
            note.route = Arc::clone(route);
        }
        note.begin.clear();
        note.begin.extend_from_slice(begin(payload));
        note.size = payload.len();
    }

    /// Tells what was noted.
    pub(crate) fn tell(&mut self, heard: &Heard) {
        if self.messages == 0 {
            return;
        }
        let now = SystemTime::now();
        let mut said = heard.said();
        let messages = std::mem::take(&mut self.messages);
        said.messages += messages;
        said.seen_at = Some(now);
        for number in messages.saturating_sub(LAST as u64)..messages {
            if let Some(Note { route, begin, size }) = self.last[number as usize % LAST].take() {
                said.push(&route.canonical.topic, now, begin.into(), size);
            }
        }
    }
}

fn begin(payload: &[u8]) -> &[u8] {
    &payload[..payload.len().min(BYTES)]
}

#[cfg(test)]
mod tests {
    use super::super::access::Canonical;
    use super::*;

    fn route(topic: &str) -> Arc<Route> {
        let canonical = Canonical { topic: topic.into(), device_id: None, permanent: false };
        Arc::new(Route { canonical, links: Vec::new(), targets: Vec::new() })
    }

    #[test]
    fn the_last_three_are_kept_the_newest_first_and_cut() {
        let (heard, mut recent) = (Heard::default(), Recent::default());
        recent.tell(&heard);
        assert_eq!(heard.read(&"d".into()), DeviceActivity { id: "d".into(), ..DeviceActivity::default() });
        let route = route("$devices/d/events");
        for payload in ["1", "2", "3", "4"] {
            recent.note(&route, payload.as_bytes());
        }
        recent.tell(&heard);
        recent.note(&route, &[b'x'; BYTES + 1]);
        recent.tell(&heard);
        heard.hear("$devices/d/state", b"on");
        let seen = heard.read(&"d".into());
        assert_eq!(seen.messages, 6);
        let last: Vec<_> =
            seen.last_messages.iter().map(|last| (&*last.topic, last.payload.len(), last.size)).collect();
        let (events, state) = ("$devices/d/events", "$devices/d/state");
        assert_eq!(last, [(state, 2, 2), (events, BYTES, BYTES + 1), (events, 1, 1)]);
        assert_eq!(seen.last_messages[2].payload, "4");
        assert!(seen.last_seen_at.is_some());
    }

    #[test]
    fn it_is_connected_until_its_last_connection_has_gone() {
        let heard = Arc::new(Heard::default());
        let is_connected = || heard.read(&"d".into()).is_connected;
        assert!(!is_connected());
        let (one, two) = (heard.connect(), heard.connect());
        drop(one);
        assert!(is_connected());
        drop(two);
        assert!(!is_connected() && heard.read(&"d".into()).last_seen_at.is_some());
    }
}
