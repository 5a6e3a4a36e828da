//! The shared log of encoded messages of one path on one worker. A session is a cursor over it.
//!
//! Pure. A cursor counts the bytes ever appended, so it is one number. Segments also say which stretch of the path's
//! order they hold, so that a session can come from the journal and go back to it.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

use super::segment::Segment;
use crate::journal::Position;

/// Segments of encoded frames between [`Ring::base`] and [`Ring::head`].
#[derive(Debug, Default)]
pub(super) struct Ring {
    segments: VecDeque<Placed>,
    head: u64,
    /// The position after the last event that was appended; unknown until the first is.
    end: Option<Position>,
    /// The position that the first one is expected at, at the latest.
    expected: Option<Position>,
    /// From here on every message of the path is in a segment. For clients with a filter there may be stretches without
    /// any, which take no room.
    since: Position,
}

#[derive(Debug)]
struct Placed {
    start: u64,
    segment: Segment,
}

impl Placed {
    fn end(&self) -> u64 {
        self.start + self.segment.bytes.len() as u64
    }
}

/// Where a position is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Located {
    /// A message begins there, or will, at the head.
    At(u64),
    /// The ring has not come so far.
    Ahead,
    /// The ring has it no more, or no message begins there.
    Behind,
}

/// What a session has to know that leaves the ring at its cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leave {
    /// What is left of the message that is begun; empty between messages.
    pub(super) rest: Bytes,
    /// The position of the event after it.
    pub(super) next: Position,
}

impl Ring {
    /// Position after the last byte: where a new session starts.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Bytes that are kept.
    pub(super) fn len(&self) -> usize {
        self.segments.front().map_or(0, |first| (self.head - first.start) as usize)
    }

    /// The position that comes next, if that is known.
    pub(super) fn next(&self) -> Option<Position> {
        self.end.or(self.expected)
    }

    /// What the first segment begins with, at the latest. What is known stays.
    pub(super) fn expect(&mut self, position: Position) {
        self.expected.get_or_insert(position);
    }

    /// Whether nothing is missed between what was appended and this.
    pub(super) fn is_followed_by(&self, segment: &Segment) -> bool {
        match (self.end, self.expected) {
            (Some(end), _) => end == segment.first,
            (None, Some(expected)) => segment.first <= expected,
            (None, None) => true,
        }
    }

    /// The position of the oldest event that is kept, or of the next one.
    pub(super) fn oldest(&self) -> Option<Position> {
        self.end.map(|_| self.since)
    }

    /// Appends a segment. If it does not follow, nothing of what was before may be kept any more.
    pub(super) fn append(&mut self, segment: Segment) {
        if self.end != Some(segment.first) {
            self.since = segment.first;
        }
        self.end = Some(segment.end);
        if segment.bytes.is_empty() {
            return;
        }
        let start = self.head;
        self.head += segment.bytes.len() as u64;
        self.segments.push_back(Placed { start, segment });
    }

    /// The cursor below which [`Self::trim`] has to cut, so that at most `limit` bytes are kept. One below it is too slow.
    pub(super) fn floor(&self, limit: usize) -> u64 {
        let mut kept = self.len();
        for placed in &self.segments {
            // The newest segment stays, however large it is.
            if kept <= limit || placed.end() == self.head {
                return placed.start;
            }
            kept -= placed.segment.bytes.len();
        }
        self.head
    }

    /// Drops segments that end at or below `cursor`.
    pub(super) fn trim(&mut self, cursor: u64) {
        while let Some(gone) = self.segments.pop_front_if(|placed| placed.end() <= cursor) {
            self.since = gone.segment.end;
        }
        if self.segments.is_empty() {
            self.segments = VecDeque::new();
        }
    }

    /// Whether a frame may be put in before the byte at `cursor`.
    pub(super) fn is_boundary(&self, cursor: u64) -> bool {
        cursor == self.head || self.find(cursor).is_some_and(|at| self.segments[at].start == cursor)
    }

    /// What a session takes along that leaves the ring at `cursor`. `None`: the ring has never held anything, so
    /// the session has missed nothing.
    pub(super) fn leave(&self, cursor: u64) -> Option<Leave> {
        let at = match (self.find(cursor), self.next()) {
            (Some(at), _) => at,
            (None, Some(end)) => return Some(Leave { rest: Bytes::new(), next: end }),
            (None, None) => return None,
        };
        let Placed { start, segment } = &self.segments[at];
        let begun = (cursor - start) as usize;
        if begun == 0 {
            return Some(Leave { rest: Bytes::new(), next: segment.first });
        }
        let message = segment.message_before(begun);
        // A copy: one slow client must not keep a whole segment.
        let rest = Bytes::copy_from_slice(&segment.bytes[begun..message.end]);
        Some(Leave { rest, next: message.next })
    }

    /// The cursor at which the first message from `position` on begins.
    pub(super) fn locate(&self, position: Position) -> Located {
        match self.end {
            Some(end) if position == end => return Located::At(self.head),
            Some(end) if position < end => {}
            _ => return Located::Ahead,
        }
        if position < self.since {
            return Located::Behind;
        }
        let at = self.segments.partition_point(|placed| placed.segment.end <= position);
        // Between two segments, and behind the last, there is no message.
        let Some(Placed { start, segment }) = self.segments.get(at) else { return Located::At(self.head) };
        let offset = if position < segment.first { Some(0) } else { segment.start_of(position) };
        offset.map_or(Located::Behind, |offset| Located::At(start + offset as u64))
    }

    /// Messages that end behind the byte at `from` and not behind that at `to`.
    pub(super) fn messages(&self, from: u64, to: u64) -> u64 {
        let Some(first) = self.find(from) else { return 0 };
        let passed = self.segments.range(first..).take_while(|placed| placed.start < to);
        let of = |placed: &Placed| match (from <= placed.start, placed.end() <= to) {
            (true, true) => u64::from(placed.segment.messages),
            _ => {
                let begun = from.saturating_sub(placed.start) as usize;
                placed.segment.messages_between(begun, (to - placed.start) as usize)
            }
        };
        passed.map(of).sum()
    }

    /// The segment that `cursor` stands in, from there on; `None` at the head, and below what is kept.
    pub(super) fn rest(&self, cursor: u64) -> Option<(Bytes, Position)> {
        let placed = &self.segments[self.find(cursor)?];
        Some((placed.segment.bytes.slice((cursor - placed.start) as usize..), placed.segment.end))
    }

    /// Fills `out` with what follows `cursor` and returns how many slices are filled.
    pub(super) fn slices<'a>(&'a self, cursor: u64, out: &mut [IoSlice<'a>]) -> usize {
        let Some(first) = self.find(cursor) else { return 0 };
        let mut filled = 0;
        for (slot, placed) in out.iter_mut().zip(self.segments.range(first..)) {
            let skip = cursor.saturating_sub(placed.start) as usize;
            *slot = IoSlice::new(&placed.segment.bytes[skip..]);
            filled += 1;
        }
        filled
    }

    /// Index of the segment that holds the byte at `cursor`.
    fn find(&self, cursor: u64) -> Option<usize> {
        let newest = self.segments.back()?;
        if cursor >= self.head || cursor < self.segments.front()?.start {
            return None;
        }
        if cursor >= newest.start {
            return Some(self.segments.len() - 1);
        }
        Some(self.segments.partition_point(|s| s.start <= cursor) - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gateway::segment::tests::batch;
    use crate::gateway::segment::{Format, Part};

    fn read(ring: &Ring, cursor: u64) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = ring.slices(cursor, &mut slices);
        slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    /// One segment with a message for each batch size.
    fn segment(first: Position, counts: &[usize]) -> Segment {
        let mut next = first;
        let batches: Vec<_> = counts
            .iter()
            .map(|count| {
                let made = batch(next, *count, 1);
                next += *count as u64;
                made
            })
            .collect();
        Segment::encode(Format::EventStream, first, batches.iter().map(|batch| &batch[..])).remove(0)
    }

    #[test]
    fn a_cursor_reads_what_follows_it() {
        let mut ring = Ring::default();
        let (one, two) = (segment(0, &[1, 2]), segment(3, &[1]));
        let (a, b) = (one.bytes.clone(), two.bytes.clone());
        ring.append(one);
        ring.append(two);
        assert_eq!(read(&ring, 0), [&a[..], &b[..]].concat());
        assert_eq!(read(&ring, 1), [&a[1..], &b[..]].concat());
        assert_eq!(read(&ring, a.len() as u64), b);
        assert_eq!(read(&ring, ring.head()), b"");
        assert!(ring.is_boundary(a.len() as u64) && ring.is_boundary(ring.head()) && !ring.is_boundary(4));
    }

    #[test]
    fn messages_count_when_their_last_byte_is_passed() {
        let mut ring = Ring::default();
        ring.append(segment(0, &[1, 2]));
        ring.append(segment(3, &[1]));
        let first = segment(0, &[1]).bytes.len() as u64;
        let head = ring.head();
        let second = segment(0, &[1, 2]).bytes.len() as u64;
        for (from, to, count) in [
            (0, head, 3),
            (second, head, 1),
            (0, first, 1),
            (0, first - 1, 0),
            (1, first, 1),
            (first - 1, head - 1, 2),
            (first, second, 1),
            (head, head, 0),
        ] {
            assert_eq!(ring.messages(from, to), count, "{from} {to}");
        }
    }

    #[test]
    fn positions_are_found_where_messages_begin() {
        let mut ring = Ring::default();
        assert_eq!(ring.locate(0), Located::Ahead, "an empty ring does not know where its path stands");
        ring.append(segment(10, &[1, 2]));
        ring.append(segment(13, &[1]));
        let second = segment(10, &[1]).bytes.len() as u64;
        let third = segment(10, &[1, 2]).bytes.len() as u64;
        let expected = [
            (9, Located::Behind),
            (10, Located::At(0)),
            (11, Located::At(second)),
            (12, Located::Behind),
            (13, Located::At(third)),
            (14, Located::At(ring.head())),
            (15, Located::Ahead),
        ];
        for (position, located) in expected {
            assert_eq!(ring.locate(position), located, "{position}");
        }
        ring.trim(third);
        assert_eq!(ring.locate(11), Located::Behind);
        ring.trim(ring.head());
        assert_eq!((ring.locate(13), ring.locate(14)), (Located::Behind, Located::At(ring.head())));
    }

    #[test]
    fn a_session_leaves_with_the_rest_of_its_message() {
        let mut ring = Ring::default();
        assert_eq!(ring.leave(0), None);
        ring.append(segment(10, &[1, 2]));
        let (whole, first) = (segment(10, &[1, 2]).bytes, segment(10, &[1]).bytes);
        assert_eq!(ring.leave(0), Some(Leave { rest: Bytes::new(), next: 10 }));
        assert_eq!(ring.leave(1), Some(Leave { rest: first.slice(1..), next: 11 }));
        assert_eq!(ring.leave(first.len() as u64), Some(Leave { rest: Bytes::new(), next: 11 }));
        let rest = whole.slice(first.len() + 3..);
        assert_eq!(ring.leave(first.len() as u64 + 3), Some(Leave { rest, next: 13 }));
        assert_eq!(ring.leave(ring.head()), Some(Leave { rest: Bytes::new(), next: 13 }));
    }

    #[test]
    fn stretches_without_messages_take_no_room_and_are_found() {
        let nothing = |first, count| {
            let part = Part { count, events: Vec::new().into() };
            Segment::encode(Format::EventStream, first, [part]).remove(0)
        };
        let mut ring = Ring::default();
        ring.append(nothing(10, 5));
        assert_eq!((ring.head(), ring.next(), ring.oldest()), (0, Some(15), Some(10)));
        assert_eq!((ring.locate(9), ring.locate(12)), (Located::Behind, Located::At(0)));
        ring.append(segment(15, &[2]));
        ring.append(nothing(17, 3));
        ring.append(nothing(20, 3));
        ring.append(segment(23, &[1]));
        let second = segment(15, &[2]).bytes.len() as u64;
        let expected = [
            (10, Located::At(0)),
            (15, Located::At(0)),
            (16, Located::Behind),
            (17, Located::At(second)),
            (21, Located::At(second)),
            (23, Located::At(second)),
            (24, Located::At(ring.head())),
        ];
        for (position, located) in expected {
            assert_eq!(ring.locate(position), located, "{position}");
        }
        assert_eq!(ring.leave(second), Some(Leave { rest: Bytes::new(), next: 23 }));
        ring.trim(second);
        assert_eq!((ring.locate(16), ring.locate(18)), (Located::Behind, Located::At(second)));
        ring.append(nothing(24, 6));
        ring.trim(ring.head());
        assert_eq!((ring.locate(23), ring.locate(25)), (Located::Behind, Located::At(ring.head())));
        assert_eq!(ring.leave(ring.head()), Some(Leave { rest: Bytes::new(), next: 30 }));
        // Something between was not appended.
        ring.append(nothing(40, 2));
        assert_eq!((ring.locate(30), ring.locate(40)), (Located::Behind, Located::At(ring.head())));
    }

    #[test]
    fn the_floor_keeps_the_limit_and_the_newest_segment() {
        let len = segment(0, &[1]).bytes.len();
        let mut ring = Ring::default();
        for n in 0..2 {
            ring.append(segment(n, &[1]));
            assert_eq!(ring.floor(2 * len), 0);
        }
        ring.append(segment(2, &[1]));
        assert_eq!(ring.floor(2 * len), len as u64);
        let giant = segment(3, &[1; 6]);
        ring.append(giant.clone());
        assert_eq!(ring.floor(2 * len), 3 * len as u64);
        ring.trim(ring.floor(2 * len));
        assert_eq!(ring.len(), giant.bytes.len());
        ring.trim(ring.head());
        assert_eq!((ring.len(), ring.floor(2 * len)), (0, ring.head()));
    }

    proptest! {
        #[test]
        fn reading_by_any_steps_gives_every_byte_once(
            segments in prop::collection::vec(prop::collection::vec(1usize..4, 1..4), 1..20),
            steps in prop::collection::vec(1usize..70, 1..200),
        ) {
            let mut ring = Ring::default();
            let mut cursor = 0;
            let (mut got, mut all) = (Vec::new(), Vec::new());
            let mut next = 0;
            let mut steps = steps.into_iter().cycle();
            for counts in &segments {
                let segment = segment(next, counts);
                next = segment.end;
                all.extend_from_slice(&segment.bytes);
                ring.append(segment);
                let mut some = read(&ring, cursor);
                some.truncate(steps.next().unwrap());
                cursor += some.len() as u64;
                got.extend(some);
                ring.trim(cursor);
            }
            while cursor < ring.head() {
                let some = read(&ring, cursor);
                cursor += some.len() as u64;
                got.extend(some);
            }
            prop_assert_eq!(got, all);
        }
    }
}
