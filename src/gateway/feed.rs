//! What the sessions of a path share: the ring that they read, and the worker's clock.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::ring::Ring;
use super::view::View;

/// A path's messages as clients with one view get them, on one worker.
pub(super) struct Feed {
    pub(super) view: View,
    pub(super) ring: RefCell<Ring>,
    /// Bytes that the ring keeps at most for clients that lag, but for its newest segment. Views with a filter share one.
    pub(super) limit: Rc<Cell<usize>>,
    /// Seconds since the worker started, moved by its tick: cheap to read.
    pub(super) clock: Rc<Cell<u32>>,
    /// What clients were written.
    pub(super) tally: Tally,
    /// When messages were appended last.
    pub(super) last_append: Cell<u32>,
    /// Clients that read from the journal just now. For them the ring keeps a tail, so that they can come back.
    pub(super) replaying: Cell<usize>,
    /// The lowest cursor at which a session has come to the ring since the last offer began.
    pub(super) joined: Cell<u64>,
    /// The worker's: one for each client that is given a piece of the journal.
    pub(super) turns: Arc<Semaphore>,
}

impl Feed {
    /// The cursor below which the ring has to cut.
    pub(super) fn floor(&self) -> u64 {
        self.ring.borrow().floor(self.limit.get())
    }
}

/// Counts the messages that clients of a feed are written. Nearly all of them are written exactly what was appended last: those
/// are counted by one addition for each client, and only the others by a look at the ring.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Where in the ring begins what was appended last.
    fresh: Cell<u64>,
    /// Messages in it.
    messages: Cell<u64>,
    /// Clients that were written all of it, and nothing else.
    whole: Cell<u64>,
    /// Messages besides.
    others: Cell<u64>,
}

impl Tally {
    /// From now on so many messages, which begin at this place of the ring, were appended last. Gives what was counted
    /// since it was [taken](Self::take), which goes with what was appended before.
    pub(super) fn begin(&self, fresh: u64, messages: u64) -> u64 {
        let counted = self.take();
        self.fresh.set(fresh);
        self.messages.set(messages);
        counted
    }

    /// A client was written a stretch of the ring.
    #[inline]
    pub(super) fn stretch(&self, ring: &Ring, from: u64, to: u64) {
        if from == self.fresh.get() && to == ring.head() {
            self.whole.set(self.whole.get() + 1);
        } else {
            self.part(ring, from, to);
        }
    }

    /// Apart, so that what is done for each client stays short.
    #[cold]
    fn part(&self, ring: &Ring, from: u64, to: u64) {
        self.others(ring.messages(from, to));
    }

    /// Clients were written so many messages besides.
    pub(super) fn others(&self, messages: u64) {
        self.others.set(self.others.get() + messages);
    }

    /// What was counted since it was taken.
    pub(super) fn take(&self) -> u64 {
        self.whole.take() * self.messages.get() + self.others.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::segment::tests::batch;
    use crate::gateway::segment::{Format, Segment};

    #[test]
    fn what_was_appended_last_and_everything_else_is_counted_by_the_message() {
        let (mut ring, tally) = (Ring::default(), Tally::default());
        let append = |ring: &mut Ring, first: u64| {
            let head = ring.head();
            let batches = [batch(first, 1, 1), batch(first + 1, 1, 1)];
            let mut made =
                Segment::encode(Format::EventStream, first, batches.iter().map(|batch| &batch[..]));
            ring.append(made.remove(0));
            head
        };
        let fresh = append(&mut ring, 0);
        assert_eq!(tally.begin(fresh, 2), 0);
        (0..3).for_each(|_| tally.stretch(&ring, 0, ring.head()));
        // One that is slow, and gets the first message only.
        tally.stretch(&ring, 0, ring.head() / 2);
        let fresh = append(&mut ring, 2);
        assert_eq!(tally.begin(fresh, 2), 7);
        tally.stretch(&ring, fresh, ring.head());
        tally.stretch(&ring, fresh / 2, ring.head());
        tally.others(10);
        assert_eq!((tally.take(), tally.take()), (2 + 3 + 10, 0));
    }
}
