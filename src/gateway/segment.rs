//! A stretch of a path as its clients get it: encoded messages, and where each stands in the path's order. Pure.
//!
//! For clients with a filter a stretch may hold events that they do not get, and then fewer messages than batches, or none.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::frame;
pub(super) use super::frame::Format;
use crate::journal::Position;
use crate::model::event::Event;
use crate::model::event_id;

/// Encoded messages that follow each other in the order of a path. A clone shares the bytes.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    /// Whole messages.
    pub(super) bytes: Bytes,
    /// The position of the first event that it is about.
    pub(super) first: Position,
    /// The position after the last one.
    pub(super) end: Position,
    /// What the id of the first event sorts by that has a message; 0 if none has.
    pub(super) entered: u64,
    /// When it was broadcast, by [`event_id::moment`]; of several that are joined, the first with a message. 0 if it was not.
    pub(super) sent: u64,
    /// Messages in it.
    pub(super) messages: u32,
    /// Where batches begin, but for those that follow one without a message and have none themselves. The first stands
    /// at 0.
    marks: Arc<[Mark]>,
}

/// Where a batch begins. It has a message, unless the next mark stands at the same byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    /// In the bytes of the segment.
    at: u32,
    /// The position of the batch's first event, counted from the segment's.
    events: u32,
}

/// What is sent of a batch.
#[derive(Debug, Clone)]
pub(super) struct Part<'a> {
    /// Its events, with those that are not sent.
    pub(super) count: usize,
    /// Those that are.
    pub(super) events: Cow<'a, [Event]>,
}

impl<'a> From<&'a [Event]> for Part<'a> {
    fn from(batch: &'a [Event]) -> Self {
        Self { count: batch.len(), events: Cow::Borrowed(batch) }
    }
}

/// A place in a segment's bytes, seen from the message that it lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    /// Where the next message begins in the segment's bytes.
    pub(super) end: usize,
    /// The position of the next message's first event.
    pub(super) next: Position,
}

impl Segment {
    /// Encodes batches that follow each other, the first at `first`, in segments of about
    /// [`frame::SEGMENT_BYTES`].
    pub(super) fn encode<'a>(
        format: Format,
        first: Position,
        batches: impl IntoIterator<Item = impl Into<Part<'a>>>,
    ) -> Vec<Self> {
        Self::encode_up_to(frame::SEGMENT_BYTES, format, first, batches)
    }

    /// As [`Self::encode`], all in one segment.
    pub(super) fn encode_one<'a>(
        format: Format,
        first: Position,
        batches: impl IntoIterator<Item = impl Into<Part<'a>>>,
    ) -> Self {
        let empty = || Builder::new(first).build();
        Self::encode_up_to(usize::MAX, format, first, batches).pop().unwrap_or_else(empty)
    }

    fn encode_up_to<'a>(
        most: usize,
        format: Format,
        first: Position,
        batches: impl IntoIterator<Item = impl Into<Part<'a>>>,
    ) -> Vec<Self> {
        let mut segments = Vec::with_capacity(1);
        let mut open = Builder::new(first);
        for part in batches {
            let Part { count, events } = part.into();
            if events.is_empty() {
                open.skip(count);
                continue;
            }
            let len = frame::encoded_len(format, &events);
            if !open.bytes.is_empty() && open.bytes.len() + len > most {
                let next = Builder::new(open.end);
                segments.push(std::mem::replace(&mut open, next).build());
            }
            if format != Format::Deflated {
                // What is compressed needs far less, and how much is not known.
                open.bytes.reserve(len);
            }
            open.mark(open.end);
            open.count(&events);
            frame::put(&mut open.bytes, format, &events);
            open.end += count as u64;
        }
        if open.end > open.first {
            segments.push(open.build());
        }
        segments
    }

    /// The same, broadcast at this [`event_id::moment`].
    pub(super) fn broadcast(mut segments: Vec<Self>, sent: u64) -> Vec<Self> {
        segments.iter_mut().for_each(|segment| segment.sent = sent);
        segments
    }

    /// Joins neighbours up to [`frame::SEGMENT_BYTES`]: fewer, larger writes for every connection.
    pub(super) fn join(segments: Vec<Self>) -> Vec<Self> {
        let mut joined: Vec<Self> = Vec::with_capacity(segments.len());
        let mut open: Option<Builder> = None;
        let mut segments = segments.into_iter().peekable();
        while let Some(segment) = segments.next() {
            let len = open.as_ref().map_or(0, |open| open.bytes.len()) + segment.bytes.len();
            let goes_on = segments.peek().is_some_and(|next| {
                next.first == segment.end && len + next.bytes.len() <= frame::SEGMENT_BYTES
            });
            if open.is_none() && !goes_on {
                joined.push(segment);
                continue;
            }
            let mut all = open.take().unwrap_or_else(|| Builder::new(segment.first));
            all.append(&segment);
            if goes_on {
                open = Some(all);
            } else {
                joined.push(all.build());
            }
        }
        joined
    }

    /// Messages that end behind the byte `from` and not behind the byte `to`.
    pub(super) fn messages_between(&self, from: usize, to: usize) -> u64 {
        // A message ends where the next one begins; a batch without one begins where it ends.
        let begins = self.marks.iter().skip(1).map(|mark| mark.at as usize);
        let mut last = 0;
        let ends = begins.chain([self.bytes.len()]).filter(|end| std::mem::replace(&mut last, *end) != *end);
        ends.filter(|end| from < *end && *end <= to).count() as u64
    }

    /// The message that the byte `at` belongs to; at the first byte of one, that is the one before.
    pub(super) fn message_before(&self, at: usize) -> Message {
        match self.marks.get(self.marks.partition_point(|mark| (mark.at as usize) < at)) {
            Some(next) => Message { end: next.at as usize, next: self.first + u64::from(next.events) },
            None => Message { end: self.bytes.len(), next: self.end },
        }
    }

    /// Where the message begins that is the first one from `position` on; `None` if that lies within a message.
    pub(super) fn start_of(&self, position: Position) -> Option<usize> {
        if position >= self.end {
            return (position == self.end).then_some(self.bytes.len());
        }
        let events = position.checked_sub(self.first)?;
        let next = self.marks.partition_point(|mark| u64::from(mark.events) <= events);
        let mark = self.marks.get(next.checked_sub(1)?)?;
        let next = self.marks.get(next).map_or(self.bytes.len(), |mark| mark.at as usize);
        (u64::from(mark.events) == events || next == mark.at as usize).then_some(mark.at as usize)
    }
}

/// A segment that is being made.
struct Builder {
    bytes: BytesMut,
    first: Position,
    end: Position,
    entered: u64,
    sent: u64,
    messages: u32,
    marks: Vec<Mark>,
}

impl Builder {
    fn new(first: Position) -> Self {
        Self {
            bytes: BytesMut::new(),
            first,
            end: first,
            entered: 0,
            sent: 0,
            messages: 0,
            marks: Vec::new(),
        }
    }

    /// The next message begins here. A segment holds far less than 4 GiB and 2^32 events.
    fn mark(&mut self, position: Position) {
        self.marks.push(Mark { at: self.bytes.len() as u32, events: (position - self.first) as u32 });
    }

    /// The next message has these events.
    fn count(&mut self, events: &[Event]) {
        self.messages += 1;
        if self.entered == 0 {
            self.entered = events.first().map_or(0, |event| event_id::order(event.id));
        }
    }

    /// The next batch has no message.
    fn skip(&mut self, count: usize) {
        if self.marks.last().is_none_or(|mark| (mark.at as usize) < self.bytes.len()) {
            self.mark(self.end);
        }
        self.end += count as u64;
    }

    fn append(&mut self, segment: &Segment) {
        let (at, events) = (self.bytes.len() as u32, (segment.first - self.first) as u32);
        self.marks
            .extend(segment.marks.iter().map(|mark| Mark { at: mark.at + at, events: mark.events + events }));
        self.bytes.extend_from_slice(&segment.bytes);
        self.messages += segment.messages;
        if self.entered == 0 {
            (self.entered, self.sent) = (segment.entered, segment.sent);
        }
        self.end = segment.end;
    }

    fn build(self) -> Segment {
        let Self { bytes, first, end, entered, sent, messages, marks } = self;
        Segment { bytes: bytes.freeze(), first, end, entered, sent, messages, marks: marks.into() }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    /// A batch of events whose JSON is digits.
    pub(in crate::gateway) fn batch(first: u64, count: usize, len: usize) -> Vec<Event> {
        let event =
            |n| Event { id: Uuid::from_u128(u128::from(n)), json: Bytes::from(format!("{n:0>len$}")) };
        (first..first + count as u64).map(event).collect()
    }

    proptest! {
        #[test]
        fn every_message_is_found_where_it_begins(
            sizes in prop::collection::vec((1usize..5, prop_oneof![1usize..50, 30_000usize..40_000]), 1..12),
            format in prop::sample::select(Format::ALL.to_vec()),
        ) {
            let mut next = 7;
            let batches: Vec<_> = sizes.iter().map(|(count, len)| {
                let made = batch(next, *count, *len);
                next += *count as u64;
                made
            }).collect();
            let one_by_one: Vec<Vec<u8>> =
                batches.iter().map(|batch| Segment::encode(format, 0, [&batch[..]])[0].bytes.to_vec()).collect();
            let apart = Segment::encode(format, 7, batches.iter().map(|batch| &batch[..]));
            let apart = Segment::broadcast(apart, 9);
            for segments in [apart.clone(), Segment::join(apart)] {
                prop_assert!(segments.iter().all(|segment| segment.sent == 9));
                prop_assert_eq!(segments.iter().flat_map(|s| s.bytes.to_vec()).collect::<Vec<_>>(), one_by_one.concat());
                let mut position = 7;
                for (batch, bytes) in batches.iter().zip(&one_by_one) {
                    let segment = segments.iter().find(|s| s.first <= position && position < s.end).unwrap();
                    let at = segment.start_of(position).unwrap();
                    prop_assert!(segment.bytes[at..].starts_with(bytes));
                    let end = position + batch.len() as u64;
                    let expected = Message { end: at + bytes.len(), next: end };
                    prop_assert_eq!(segment.message_before(at + 1), expected);
                    prop_assert_eq!(segment.message_before(at + bytes.len()), expected);
                    if batch.len() > 1 {
                        prop_assert_eq!(segment.start_of(position + 1), None);
                    }
                    position = end;
                }
                prop_assert!(segments.windows(2).all(|pair| pair[0].end == pair[1].first));
                prop_assert_eq!(segments.iter().map(|s| s.messages as usize).sum::<usize>(), batches.len());
                prop_assert!(segments.iter().all(|s| s.entered == event_id::order(Uuid::from_u128(u128::from(s.first)))));
            }
        }
    }

    proptest! {
        /// With batches of which some have no message, or only a part of their events.
        #[test]
        fn a_position_between_messages_is_where_the_next_one_begins(
            sizes in prop::collection::vec((1usize..5, 0usize..5), 1..14),
            cut: prop::sample::Index,
        ) {
            let mut next = 7;
            let parts: Vec<_> = sizes.iter().map(|(count, kept)| {
                let made = batch(next, *count, 3);
                next += *count as u64;
                let events = Cow::Owned(made[..(*kept).min(*count)].to_vec());
                Part { count: *count, events }
            }).collect();
            // In one piece, and joined from two.
            let cut = cut.index(parts.len() + 1);
            let split = 7 + parts[..cut].iter().map(|part| part.count as u64).sum::<u64>();
            let two = [
                Segment::encode(Format::EventStream, 7, parts[..cut].iter().cloned()),
                Segment::encode(Format::EventStream, split, parts[cut..].iter().cloned()),
            ];
            let whole = Segment::encode(Format::EventStream, 7, parts.iter().cloned());
            for segments in [whole, Segment::join(two.concat())] {
                let [segment] = &segments[..] else { panic!("{segments:?}") };
                prop_assert_eq!((segment.first, segment.end), (7, next));
                prop_assert_eq!(segment.messages_between(0, segment.bytes.len()), u64::from(segment.messages));
                let (mut position, mut at) = (7, 0);
                for part in &parts {
                    let len = if part.events.is_empty() { 0 } else { frame::encoded_len(Format::EventStream, &part.events) };
                    prop_assert_eq!(segment.start_of(position), Some(at));
                    for inside in 1..part.count as u64 {
                        // What lies within a batch without a message lies before the next one.
                        prop_assert_eq!(segment.start_of(position + inside), (len == 0).then_some(at));
                    }
                    position += part.count as u64;
                    at += len;
                    if len > 0 {
                        prop_assert_eq!(segment.messages_between(at - len, at), 1);
                        prop_assert_eq!(segment.messages_between(at - len, at - 1), 0);
                        prop_assert_eq!(segment.messages_between(at - 1, at), 1);
                        let message = Message { end: at, next: position };
                        prop_assert_eq!(segment.message_before(at - len + 1), message);
                        prop_assert_eq!(segment.message_before(at), message);
                    }
                }
                prop_assert_eq!((segment.start_of(next), segment.start_of(next + 1)), (Some(at), None));
                prop_assert_eq!(segment.bytes.len(), at);
            }
        }
    }
}
