//! Decides which events make a batch. Pure: the time is given, nothing is sent. Used by `BatchActor`.

use std::time::Instant;

use crate::model::event::Event;
use crate::model::message;
pub use crate::model::trigger::BatchClose as Close;
use crate::model::trigger::BatchSettings;

/// A closed batch: at least one event, in the order they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The events.
    pub events: Vec<Event>,
    /// Why it closed.
    pub close: Close,
    /// When its first event came.
    pub opened: Instant,
}

/// The open batch of one trigger action.
#[derive(Debug)]
pub struct Buffer {
    settings: BatchSettings,
    events: Vec<Event>,
    /// Bytes of the events' JSON together.
    events_len: usize,
    /// When the open batch must close. `None` while there is none.
    deadline: Option<Instant>,
}

impl Buffer {
    /// No batch is open.
    pub fn new(settings: BatchSettings) -> Self {
        Self { settings, events: Vec::new(), events_len: 0, deadline: None }
    }

    /// Events in the open batch, and bytes of their JSON.
    pub fn held(&self) -> (usize, usize) {
        (self.events.len(), self.events_len)
    }

    /// When [`Self::close_if_due`] has something to close; `None` while no batch is open.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes an event that came at `now` and appends every batch that closes by it to `closed`.
    pub fn push(&mut self, event: Event, now: Instant, closed: &mut Vec<Batch>) {
        // Timers run late under a flood, so the deadline is looked at here too.
        self.close_if_due(now, closed);
        if message::len(1, event.json.len()) > self.settings.max_bytes {
            self.close(Close::Bytes, closed);
            closed.push(Batch { events: vec![event], close: Close::Oversize, opened: now });
            return;
        }
        if message::len(self.events.len() + 1, self.events_len + event.json.len()) > self.settings.max_bytes {
            self.close(Close::Bytes, closed);
        }
        if self.events.is_empty() {
            self.deadline = Some(now + self.settings.cutoff);
        }
        self.events_len += event.json.len();
        self.events.push(event);
        if self.events.len() >= self.settings.max_count {
            self.close(Close::Count, closed);
        }
    }

    /// Closes the open batch if its deadline has come.
    pub fn close_if_due(&mut self, now: Instant, closed: &mut Vec<Batch>) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.close(Close::Cutoff, closed);
        }
    }

    /// Closes the open batch, whatever it holds.
    pub fn drain(&mut self, closed: &mut Vec<Batch>) {
        self.close(Close::Drain, closed);
    }

    fn close(&mut self, close: Close, closed: &mut Vec<Batch>) {
        self.events_len = 0;
        // There is a deadline while there are events.
        if let Some(deadline) = self.deadline.take() {
            let opened = deadline.checked_sub(self.settings.cutoff).unwrap_or(deadline);
            closed.push(Batch { events: std::mem::take(&mut self.events), close, opened });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn event(n: u128, len: usize) -> Event {
        Event { id: Uuid::from_u128(n), json: Bytes::from(vec![b'1'; len]) }
    }

    fn settings(max_count: usize, max_bytes: usize, cutoff_ms: u64) -> BatchSettings {
        BatchSettings { max_count, max_bytes, cutoff: Duration::from_millis(cutoff_ms) }
    }

    fn closes(batches: &[Batch]) -> Vec<(Close, usize)> {
        batches.iter().map(|b| (b.close, b.events.len())).collect()
    }

    #[test]
    fn closes_when_full() {
        let (mut buffer, mut out) = (Buffer::new(settings(2, 1000, 1000)), Vec::new());
        let now = Instant::now();
        for n in 0..5 {
            buffer.push(event(n, 10), now, &mut out);
        }
        assert_eq!(closes(&out), [(Close::Count, 2), (Close::Count, 2)]);
        assert!(buffer.deadline().is_some());
    }

    #[test]
    fn closes_before_the_event_that_would_pass_the_limit() {
        let limit = message::len(2, 20);
        let (mut buffer, mut out) = (Buffer::new(settings(100, limit, 1000)), Vec::new());
        let now = Instant::now();
        for n in 0..3 {
            buffer.push(event(n, 10), now, &mut out);
        }
        assert_eq!(closes(&out), [(Close::Bytes, 2)]);
    }

    #[test]
    fn an_oversize_event_travels_alone_and_in_order() {
        let (mut buffer, mut out) = (Buffer::new(settings(100, 100, 1000)), Vec::new());
        let now = Instant::now();
        for (n, len) in [(0, 10), (1, 200), (2, 10)] {
            buffer.push(event(n, len), now, &mut out);
        }
        buffer.drain(&mut out);
        assert_eq!(closes(&out), [(Close::Bytes, 1), (Close::Oversize, 1), (Close::Drain, 1)]);
        let order: Vec<_> = out.iter().flat_map(|b| &b.events).map(|e| e.id.as_u128()).collect();
        assert_eq!(order, [0, 1, 2]);
    }

    #[test]
    fn the_cutoff_counts_from_the_first_event() {
        let (mut buffer, mut out) = (Buffer::new(settings(100, 1000, 100)), Vec::new());
        let start = Instant::now();
        buffer.push(event(0, 10), start, &mut out);
        buffer.push(event(1, 10), start + Duration::from_millis(99), &mut out);
        assert_eq!(buffer.deadline(), Some(start + Duration::from_millis(100)));
        buffer.close_if_due(start + Duration::from_millis(99), &mut out);
        assert!(out.is_empty());
        buffer.close_if_due(start + Duration::from_millis(100), &mut out);
        assert_eq!(closes(&out), [(Close::Cutoff, 2)]);
        assert_eq!(buffer.deadline(), None);
    }

    #[test]
    fn a_late_timer_does_not_let_an_event_into_a_batch_that_is_due() {
        let (mut buffer, mut out) = (Buffer::new(settings(100, 1000, 100)), Vec::new());
        let start = Instant::now();
        buffer.push(event(0, 10), start, &mut out);
        buffer.push(event(1, 10), start + Duration::from_millis(500), &mut out);
        assert_eq!(closes(&out), [(Close::Cutoff, 1)]);
        assert_eq!(buffer.deadline(), Some(start + Duration::from_millis(600)));
    }

    #[test]
    fn draining_an_empty_buffer_gives_no_batch() {
        let (mut buffer, mut out) = (Buffer::new(settings(2, 1000, 100)), Vec::new());
        buffer.drain(&mut out);
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn never_over_a_limit_nothing_lost_doubled_or_moved(
            max_count in 1usize..20,
            max_bytes in 30usize..300,
            cutoff_ms in 1u64..50,
            arrivals in prop::collection::vec((0u64..30, 0usize..320), 0..200),
        ) {
            let wanted = settings(max_count, max_bytes, cutoff_ms);
            let (mut buffer, mut out) = (Buffer::new(wanted), Vec::new());
            let start = Instant::now();
            let mut now = start;
            let mut times = Vec::new();
            let mut sent_at = Vec::new();
            for (n, (wait, len)) in arrivals.iter().enumerate() {
                now += Duration::from_millis(*wait);
                times.push(now);
                buffer.push(event(n as u128, *len), now, &mut out);
                sent_at.resize(out.len(), now);
            }
            buffer.drain(&mut out);
            sent_at.resize(out.len(), now);

            let order: Vec<_> = out.iter().flat_map(|b| &b.events).map(|e| e.id.as_u128() as usize).collect();
            prop_assert_eq!(order, (0..arrivals.len()).collect::<Vec<_>>());
            let mut first = 0;
            for (batch, sent_at) in out.iter().zip(sent_at) {
                let bytes = message::len(batch.events.len(), batch.events.iter().map(|e| e.json.len()).sum());
                prop_assert!(!batch.events.is_empty() && batch.events.len() <= max_count);
                if batch.close == Close::Oversize {
                    prop_assert!(batch.events.len() == 1 && bytes > max_bytes);
                } else {
                    prop_assert!(bytes <= max_bytes);
                    // Every event of a batch came before the batch's deadline.
                    let last = first + batch.events.len() - 1;
                    prop_assert!(times[last] < times[first] + wanted.cutoff);
                    prop_assert!(sent_at >= times[last]);
                }
                first += batch.events.len();
            }
        }
    }
}
