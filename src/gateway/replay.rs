//! A session that is not at the ring: how it leaves it, what it still has to send from before, what it wants next, and
//! how it comes back. Pure.

use bytes::{Buf, Bytes};
use tokio::sync::OwnedSemaphorePermit;

use super::ring::{Located, Ring};
use super::segment::Segment;
use crate::journal::Position;

/// Where a client begins in the journal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begin {
    /// The first event it wants.
    pub(super) position: Position,
    /// Whether it begins with the oldest that is kept, if that is later: it was told of a gap, or asked for a time.
    pub(super) skips: bool,
}

/// What a session sends while it does not read the ring.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// The rest of a message that is begun. It is always finished.
    rest: Bytes,
    /// Messages from the journal, and how many of their bytes are sent.
    sending: Option<(Segment, usize)>,
    /// Held while they are being sent.
    turn: Option<OwnedSemaphorePermit>,
    /// The position of the event after those.
    next: Position,
    /// Whether the journal had nothing more at `next`: the ring goes on from there.
    pub(super) at_end: bool,
    /// Somebody has been asked for what follows `next`.
    asked: bool,
    /// It began here because its client asked for what it had missed, not because it was slow.
    resuming: bool,
    /// See [`Begin`]; until the first messages have come.
    skips: bool,
}

/// Whether a session may go on in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Join {
    /// There, and it reads no more from the journal.
    At(u64),
    /// When the ring has come so far, or the journal has no more.
    Later,
    /// When it has read again what the journal has, though that had no more before.
    NotYet,
    /// It has missed so many events, as its path's policy wants, and may try again.
    Skipped(u64),
}

impl Replay {
    /// With the rest of a message, and the position of the event after it.
    fn new(rest: Bytes, next: Position) -> Self {
        Self { rest, next, ..Self::default() }
    }

    /// For a session that leaves the ring at `cursor`. `None`: it has missed nothing.
    pub(super) fn leave(ring: &Ring, cursor: u64) -> Option<Self> {
        ring.leave(cursor).map(|leave| Self::new(leave.rest, leave.next))
    }

    /// Goes on in the ring if that has what comes next, when everything from before is sent. With `drops_oldest` it gives
    /// up what the ring has no more, unless its client asked for it.
    pub(super) fn join(&mut self, ring: &Ring, drops_oldest: bool) -> Join {
        match ring.locate(self.next) {
            Located::At(cursor) => Join::At(cursor),
            Located::Ahead => Join::Later,
            Located::Behind => {
                let oldest = ring.oldest().filter(|oldest| *oldest > self.next);
                if let Some(oldest) = oldest.filter(|_| drops_oldest && !self.resuming) {
                    let missed = oldest - self.next;
                    self.next = oldest;
                    return Join::Skipped(missed);
                }
                // Once more from the journal.
                if std::mem::take(&mut self.at_end) { Join::NotYet } else { Join::Later }
            }
        }
    }

    /// The position from which it wants to be given messages, and whether it may be a later one. It is asked once.
    pub(super) fn wants(&mut self) -> Option<(Position, bool)> {
        if self.at_end || self.asked || !self.bytes().is_empty() {
            return None;
        }
        self.asked = true;
        Some((self.next, self.skips))
    }

    /// What it asked for from `from` on is answered. False: it did not ask for that; it may have been to the ring and back
    /// meanwhile.
    pub(super) fn is_answered(&mut self, from: Position) -> bool {
        let is_answer = self.asked && self.next == from;
        self.asked &= !is_answer;
        is_answer
    }

    /// For a client that asked for it.
    pub(super) fn resume(begin: Begin) -> Self {
        Self { resuming: true, next: begin.position, skips: begin.skips, ..Self::default() }
    }

    /// What it misses in the ring is not its fault: no policy for slow ones applies.
    pub(super) fn resume_on(&mut self) {
        self.resuming = true;
    }

    /// The position of the next event that is not in what is being sent.
    pub(super) fn next(&self) -> Position {
        self.next
    }

    /// Goes on at another position.
    pub(super) fn skip_to(&mut self, next: Position) {
        self.next = next;
    }

    /// The journal gave this. What does not follow is not taken. `turn` is given back when it is sent, or the
    /// client takes no more.
    pub(super) fn give(&mut self, segment: Segment, turn: Option<OwnedSemaphorePermit>) {
        if segment.first == self.next || self.skips && segment.first > self.next {
            self.skips = false;
            self.next = segment.end;
            if !segment.bytes.is_empty() {
                self.sending = Some((segment, 0));
                self.turn = turn;
            }
        }
    }

    /// The next bytes to send; empty: all are sent.
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.sending {
            Some((segment, sent)) if self.rest.is_empty() => &segment.bytes[*sent..],
            _ => &self.rest,
        }
    }

    /// So many of them are sent. Gives the messages that end with them.
    pub(super) fn sent(&mut self, bytes: usize) -> u64 {
        if !self.rest.is_empty() {
            self.rest.advance(bytes);
            return u64::from(self.rest.is_empty());
        }
        let Some((segment, sent)) = &mut self.sending else { return 0 };
        let messages = segment.messages_between(*sent, *sent + bytes);
        *sent += bytes;
        if *sent >= segment.bytes.len() {
            self.sending = None;
            self.turn = None;
        }
        messages
    }

    /// Whether no message is begun.
    pub(super) fn is_boundary(&self) -> bool {
        self.rest.is_empty() && self.sending.as_ref().is_none_or(|(_, sent)| *sent == 0)
    }

    /// Keeps the message that is begun and gives up the rest: a client that does not read must cost little. It is
    /// asked for again.
    pub(super) fn shrink(&mut self) {
        self.turn = None;
        let Some((segment, sent)) = self.sending.take() else { return };
        debug_assert!(self.rest.is_empty());
        let message = segment.message_before(sent);
        // A copy, so that the segment can go.
        self.rest = Bytes::copy_from_slice(&segment.bytes[sent..message.end]);
        self.next = message.next;
        self.at_end = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gateway::segment::tests::batch;
    use crate::gateway::segment::{Format, Part};

    fn segment(first: Position, counts: &[usize]) -> Segment {
        let mut next = first;
        let batches: Vec<_> = counts
            .iter()
            .map(|count| {
                let made = batch(next, *count, 3);
                next += *count as u64;
                made
            })
            .collect();
        Segment::encode_one(Format::EventStream, first, batches.iter().map(|batch| &batch[..]))
    }

    proptest! {
        /// However little the socket takes, and whenever the session is shrunk, every byte goes out once, and
        /// never more than one message is kept while it is shrunk.
        #[test]
        fn every_byte_is_sent_once(
            counts in prop::collection::vec(1usize..4, 1..12),
            steps in prop::collection::vec((1usize..400, any::<bool>()), 1..60),
        ) {
            let whole = segment(0, &counts);
            let mut replay = Replay::new(Bytes::from_static(b"rest"), 0);
            let mut sent = Vec::new();
            let mut steps = steps.into_iter().chain(std::iter::repeat((400, false)));
            while replay.next() < whole.end || !replay.bytes().is_empty() {
                if replay.bytes().is_empty() {
                    // As the journal does: from the position on, up to some later message.
                    let at = whole.start_of(replay.next()).unwrap();
                    let rest: Vec<usize> = {
                        let mut position = 0;
                        counts.iter().filter(|count| { position += **count as u64; position > replay.next() }).copied().collect()
                    };
                    let given = segment(replay.next(), &rest);
                    prop_assert_eq!(&given.bytes[..], &whole.bytes[at..]);
                    replay.give(given, None);
                }
                let (step, shrink) = steps.next().unwrap();
                let step = step.min(replay.bytes().len());
                sent.extend_from_slice(&replay.bytes()[..step]);
                replay.sent(step);
                if shrink {
                    replay.shrink();
                    prop_assert!(replay.bytes().len() < 200);
                }
            }
            prop_assert!(replay.is_boundary());
            prop_assert_eq!(sent, [b"rest", &whole.bytes[..]].concat());
        }
    }

    #[test]
    fn a_stretch_without_messages_is_passed_and_its_turn_given_back() {
        let turns = std::sync::Arc::new(tokio::sync::Semaphore::new(1));
        let nothing =
            Segment::encode_one(Format::WebSocket, 5, [Part { count: 4, events: Vec::new().into() }]);
        let mut replay = Replay::new(Bytes::new(), 5);
        replay.give(nothing, std::sync::Arc::clone(&turns).try_acquire_owned().ok());
        assert!(replay.bytes().is_empty() && replay.is_boundary() && replay.next() == 9);
        assert_eq!(turns.available_permits(), 1);
    }

    #[test]
    fn what_does_not_follow_is_not_taken() {
        let mut replay = Replay::new(Bytes::new(), 5);
        replay.give(segment(0, &[1, 2]), None);
        assert!(replay.bytes().is_empty() && replay.next() == 5);
    }
}
