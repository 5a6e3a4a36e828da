//! How a client sees its path: in which format, and with which filter. Pure.
//!
//! Clients with the same view share one ring on their worker, and one encoding. Events for filters travel to a worker as
//! they are ([`Unencoded`]), since a GatewayActor does not know who wants what.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use super::filter::{Facts, Filter};
use super::segment::{Format, Part, Segment};
use crate::journal::{Appended, Position, Stored};
use crate::model::event::Event;

/// How clients see a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct View {
    /// What they speak.
    pub(super) format: Format,
    /// What they want; none: everything.
    pub(super) filter: Option<Arc<Filter>>,
}

impl From<Format> for View {
    /// Without a filter.
    fn from(format: Format) -> Self {
        Self { format, filter: None }
    }
}

impl View {
    /// What the journal had, encoded for these clients, all in one.
    pub(super) fn encode_one(&self, stored: &[Stored]) -> Option<Segment> {
        let first = stored.first()?.position;
        let parts =
            stored.iter().map(|batch| self.part(&batch.events, |_, event| Cow::Owned(Facts::of(event))));
        Some(Segment::encode_one(self.format, first, parts))
    }

    /// What these clients get of a batch. `facts` knows its events by their place.
    fn part<'a>(&self, batch: &'a [Event], facts: impl Fn(usize, &Event) -> Cow<'a, Facts>) -> Part<'a> {
        let Some(filter) = &self.filter else { return Part::from(batch) };
        let wanted = |(at, event): &(usize, &Event)| filter.wants(&facts(*at, event));
        let events: Vec<Event> =
            batch.iter().enumerate().filter(wanted).map(|(_, event)| event.clone()).collect();
        Part { count: batch.len(), events: Cow::Owned(events) }
    }
}

/// Runs of a path that follow each other, not encoded yet. All workers share them.
#[derive(Debug)]
pub(super) struct Unencoded {
    runs: Vec<Appended>,
    /// When they were broadcast, by [`event_id::moment`](crate::model::event_id::moment).
    sent: u64,
    bytes: usize,
    /// What filters look at, of every event in order: made once, by the first who needs it.
    facts: OnceLock<Vec<Facts>>,
}

impl Unencoded {
    /// These runs, which are broadcast at this moment.
    pub(super) fn new(runs: Vec<Appended>, sent: u64) -> Self {
        let batches = runs.iter().flat_map(|run| run.batches.iter());
        let bytes = batches.flatten().map(|event| size_of_val(event) + event.json.len()).sum();
        Self { runs, sent, bytes, facts: OnceLock::new() }
    }

    /// What it takes while it waits.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The position of the first event.
    pub(super) fn first(&self) -> Option<Position> {
        self.runs.first().map(|run| run.position)
    }

    fn batches(&self) -> impl Iterator<Item = &[Event]> {
        self.runs.iter().flat_map(|run| run.batches.iter().map(|batch| &batch[..]))
    }

    /// The runs as clients with this view get them.
    pub(super) fn encode(&self, view: &View) -> Vec<Segment> {
        let Some(first) = self.first() else { return Vec::new() };
        let facts = self.facts.get_or_init(|| self.batches().flatten().map(Facts::of).collect());
        let mut next = 0;
        let parts = self.batches().map(|batch| {
            let of_batch = &facts[next..next + batch.len()];
            next += batch.len();
            view.part(batch, |at, _| Cow::Borrowed(&of_batch[at]))
        });
        Segment::broadcast(Segment::encode(view.format, first, parts), self.sent)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::gateway::replay::{Begin, Join, Replay};
    use crate::gateway::ring::Ring;

    /// What happens to a client.
    #[derive(Debug, Clone)]
    enum Step {
        /// A batch of events of these devices is broadcast.
        Broadcast(Vec<u8>),
        /// The same, and its worker does not get it.
        Lose(Vec<u8>),
        /// The socket takes so many bytes.
        Send(usize),
        /// The socket is full while it reads from the journal.
        Shrink,
        /// It falls behind: the ring drops what it has not read.
        Pass,
        /// The journal answers, with so many batches at most.
        Read(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let batch = || prop::collection::vec(0u8..4, 1..5);
        prop_oneof![
            6 => batch().prop_map(Step::Broadcast),
            1 => batch().prop_map(Step::Lose),
            6 => (1usize..300).prop_map(Step::Send),
            1 => Just(Step::Shrink),
            1 => Just(Step::Pass),
            3 => (1usize..6).prop_map(Step::Read),
        ]
    }

    /// A client between the ring and the journal, as `socket` moves it.
    struct Reader {
        view: View,
        ring: Ring,
        cursor: u64,
        replay: Option<Replay>,
        got: Vec<u8>,
    }

    impl Reader {
        fn deliver(&mut self, run: Appended) {
            for segment in Unencoded::new(vec![run], 0).encode(&self.view) {
                if !self.ring.is_followed_by(&segment) {
                    self.leave();
                    self.ring.trim(self.ring.head());
                }
                self.ring.append(segment);
            }
        }

        fn leave(&mut self) {
            if self.replay.is_none() {
                self.replay = Replay::leave(&self.ring, self.cursor);
            }
        }

        /// Comes to the ring if it can.
        fn join(&mut self) {
            let Some(replay) = self.replay.as_mut().filter(|replay| replay.bytes().is_empty()) else {
                return;
            };
            if let Join::At(cursor) = replay.join(&self.ring, false) {
                self.cursor = cursor;
                self.replay = None;
            }
        }

        fn send(&mut self, most: usize) {
            let Some(replay) = &mut self.replay else {
                if let Some((bytes, _)) = self.ring.rest(self.cursor) {
                    let part = &bytes[..most.min(bytes.len())];
                    self.got.extend_from_slice(part);
                    self.cursor += part.len() as u64;
                    self.ring.trim(self.cursor);
                }
                return;
            };
            let part = &replay.bytes()[..most.min(replay.bytes().len())];
            self.got.extend_from_slice(part);
            let sent = part.len();
            replay.sent(sent);
            self.join();
        }

        fn read(&mut self, journal: &[Stored], batches: usize) {
            let Some(replay) = self.replay.as_mut() else { return };
            let Some((position, _)) = replay.wants() else { return };
            let stored = from(journal, position);
            assert!(replay.is_answered(position));
            match self.view.encode_one(&stored[..batches.min(stored.len())]) {
                Some(segment) => replay.give(segment, None),
                None => {
                    replay.at_end = true;
                    self.join();
                }
            }
        }
    }

    /// What the journal has from a position on.
    fn from(journal: &[Stored], position: Position) -> Vec<Stored> {
        let later = journal.iter().filter(|batch| batch.position + batch.events.len() as u64 > position);
        let cut = |batch: &Stored| {
            let skip = position.saturating_sub(batch.position);
            Stored { position: batch.position + skip, events: batch.events[skip as usize..].to_vec() }
        };
        later.map(cut).collect()
    }

    fn stored(position: Position, devices: &[u8]) -> Stored {
        let event = |(n, device): (usize, &u8)| {
            let n = position + n as u64;
            let json = format!(r#"{{"details":{{"device_id":"d{device}"}},"n":{n}}}"#);
            Event { id: Uuid::from_u128(n.into()), json: Bytes::from(json) }
        };
        Stored { position, events: devices.iter().enumerate().map(event).collect() }
    }

    proptest! {
        /// Through broadcasts that arrive or do not, a full socket, the journal and back: what a client with a filter
        /// gets is what it wants of everything from its start on, each event once and in order.
        #[test]
        fn nothing_that_is_wanted_is_missed_or_doubled(
            devices in prop::collection::btree_set(0u8..4, 0..3),
            before in prop::collection::vec(prop::collection::vec(0u8..4, 1..5), 0..6),
            start: prop::sample::Index,
            steps in prop::collection::vec(step(), 0..80),
        ) {
            let query: String = devices.iter().map(|device| format!("device=d{device}&")).collect();
            let filter = Filter::read(&query).ok().flatten().map(Arc::new);
            let view = View { format: Format::EventStream, filter };
            let mut journal: Vec<Stored> = Vec::new();
            let mut end = 0;
            let mut append = |journal: &mut Vec<Stored>, devices: &[u8]| {
                let batch = stored(end, devices);
                let run = Appended { position: end, batches: Arc::new(vec![batch.events.clone()]) };
                end += devices.len() as u64;
                journal.push(batch);
                run
            };
            for devices in &before {
                append(&mut journal, devices);
            }
            let total: usize = before.iter().map(Vec::len).sum();
            let start = start.index(total + 1) as Position;
            let begin = Begin { position: start, skips: false };
            let mut reader =
                Reader { view, ring: Ring::default(), cursor: 0, replay: Some(Replay::resume(begin)), got: Vec::new() };
            reader.ring.expect(total as Position);
            for step in steps {
                match step {
                    Step::Broadcast(devices) => reader.deliver(append(&mut journal, &devices)),
                    Step::Lose(devices) => drop(append(&mut journal, &devices)),
                    Step::Send(most) => reader.send(most),
                    Step::Shrink => reader.replay.iter_mut().for_each(Replay::shrink),
                    Step::Pass => {
                        reader.leave();
                        reader.ring.trim(reader.ring.head());
                    }
                    Step::Read(batches) => reader.read(&journal, batches),
                }
            }
            // One more arrives, which shows what was lost before it, and then the client takes everything.
            reader.deliver(append(&mut journal, &[0, 1, 2, 3]));
            for _ in 0..400 {
                reader.send(1000);
                reader.read(&journal, 100);
            }
            let expected = reader.view.encode_one(&from(&journal, start)).unwrap();
            prop_assert_eq!(String::from_utf8(reader.got).unwrap(), String::from_utf8(expected.bytes.to_vec()).unwrap());
        }
    }
}
