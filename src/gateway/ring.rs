//! The shared log of encoded frames of one path on one worker. A session is a cursor over it.
//!
//! Pure. Positions count the bytes ever appended, so a cursor is one number; it stands at a frame's start
//! exactly when it stands at a segment's start or at the head.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

/// Segments of encoded frames between [`Ring::base`] and [`Ring::head`].
#[derive(Debug)]
pub(super) struct Ring {
    segments: VecDeque<Segment>,
    head: u64,
    /// Most bytes that are kept for cursors that lag.
    limit: usize,
}

#[derive(Debug)]
struct Segment {
    start: u64,
    bytes: Bytes,
}

impl Ring {
    /// An empty ring that keeps at most `limit` bytes once [`Self::trim`] is called.
    pub(super) fn new(limit: usize) -> Self {
        Self { segments: VecDeque::new(), head: 0, limit }
    }

    /// Position after the last byte: where a new session starts.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Bytes that are kept.
    pub(super) fn len(&self) -> usize {
        self.segments.front().map_or(0, |first| (self.head - first.start) as usize)
    }

    /// Appends a segment of whole frames.
    pub(super) fn append(&mut self, bytes: Bytes) {
        let start = self.head;
        self.head += bytes.len() as u64;
        self.segments.push_back(Segment { start, bytes });
    }

    /// The position below which [`Self::trim`] would cut now. A cursor below it is too slow.
    pub(super) fn floor(&self) -> u64 {
        let mut kept = self.len();
        for segment in &self.segments {
            // The newest segment stays, however large it is.
            if kept <= self.limit || segment.start + segment.bytes.len() as u64 == self.head {
                return segment.start;
            }
            kept -= segment.bytes.len();
        }
        self.head
    }

    /// Drops segments that end at or below `position`.
    pub(super) fn trim(&mut self, position: u64) {
        while self.segments.front().is_some_and(|s| s.start + s.bytes.len() as u64 <= position) {
            self.segments.pop_front();
        }
        if self.segments.is_empty() {
            self.segments = VecDeque::new();
        }
    }

    /// Whether a frame may be put in before the byte at `cursor`.
    pub(super) fn is_boundary(&self, cursor: u64) -> bool {
        cursor == self.head || self.find(cursor).is_some_and(|at| self.segments[at].start == cursor)
    }

    /// What is left of the segment that `cursor` stands in; empty at the head.
    pub(super) fn rest_of_segment(&self, cursor: u64) -> Bytes {
        self.find(cursor).map_or_else(Bytes::new, |at| {
            let segment = &self.segments[at];
            segment.bytes.slice((cursor - segment.start) as usize..)
        })
    }

    /// Fills `out` with what follows `cursor` and returns how many slices are filled.
    pub(super) fn slices<'a>(&'a self, cursor: u64, out: &mut [IoSlice<'a>]) -> usize {
        let Some(first) = self.find(cursor) else { return 0 };
        let mut filled = 0;
        for (slot, segment) in out.iter_mut().zip(self.segments.range(first..)) {
            let skip = cursor.saturating_sub(segment.start) as usize;
            *slot = IoSlice::new(&segment.bytes[skip..]);
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

    fn read(ring: &Ring, cursor: u64) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = ring.slices(cursor, &mut slices);
        slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn a_cursor_reads_what_follows_it() {
        let mut ring = Ring::new(100);
        ring.append(Bytes::from_static(b"abc"));
        ring.append(Bytes::from_static(b"de"));
        assert_eq!(read(&ring, 0), b"abcde");
        assert_eq!(read(&ring, 1), b"bcde");
        assert_eq!(read(&ring, 3), b"de");
        assert_eq!(read(&ring, 5), b"");
        assert!(ring.is_boundary(3) && ring.is_boundary(5) && !ring.is_boundary(4));
        assert_eq!(ring.rest_of_segment(1), "bc");
        assert_eq!(ring.rest_of_segment(5), "");
    }

    #[test]
    fn the_floor_keeps_the_limit_and_the_newest_segment() {
        let mut ring = Ring::new(4);
        ring.append(Bytes::from_static(b"abc"));
        assert_eq!(ring.floor(), 0);
        ring.append(Bytes::from_static(b"de"));
        assert_eq!(ring.floor(), 3);
        ring.append(Bytes::from_static(b"0123456789"));
        assert_eq!(ring.floor(), 5);
        ring.trim(ring.floor());
        assert_eq!(ring.len(), 10);
        ring.trim(ring.head());
        assert_eq!(ring.len(), 0);
        assert_eq!(ring.floor(), 15);
    }

    proptest! {
        #[test]
        fn reading_by_any_steps_gives_every_byte_once(
            segments in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..9), 1..20),
            steps in prop::collection::vec(1usize..7, 1..200),
        ) {
            let mut ring = Ring::new(10);
            let mut cursor = 0;
            let mut got = Vec::new();
            let mut steps = steps.into_iter().cycle();
            for segment in &segments {
                ring.append(Bytes::from(segment.clone()));
                let step = steps.next().unwrap();
                let mut some = read(&ring, cursor);
                some.truncate(step);
                cursor += some.len() as u64;
                got.extend(some);
                ring.trim(cursor);
            }
            while cursor < ring.head() {
                let some = read(&ring, cursor);
                cursor += some.len() as u64;
                got.extend(some);
            }
            prop_assert_eq!(got, segments.concat());
        }
    }
}
