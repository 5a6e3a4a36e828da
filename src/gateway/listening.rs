//! Where a client of server-sent events stands: what its path and its response's body share.

use std::cell::{Cell, RefCell};
use std::task::Waker;

use super::ring::{Located, Ring};
use crate::journal::Position;

/// A client of server-sent events, as its path sees it.
#[derive(Debug, Default)]
pub(super) struct Listening {
    /// The position of the next event to send; unknown before the first event after a live start.
    pub(super) next: Cell<Option<Position>>,
    /// It reads from the journal.
    pub(super) replaying: Cell<bool>,
    /// What follows was not sent to the ring, by no fault of the client.
    pub(super) lost: Cell<bool>,
    pub(super) ended: Cell<bool>,
    pub(super) waker: RefCell<Option<Waker>>,
}

impl Listening {
    /// Where it stands in the ring, if it reads there.
    pub(super) fn cursor(&self, ring: &Ring) -> Option<u64> {
        match ring.locate(self.next.get()?) {
            Located::At(cursor) if !self.replaying.get() => Some(cursor),
            _ => None,
        }
    }

    /// The first segment of an empty ring begins here.
    pub(super) fn begin(&self, first: Position) {
        if self.next.get().is_none() {
            self.next.set(Some(first));
        }
    }

    /// Reads on from the journal: the ring does not go on where it stood.
    pub(super) fn replay(&self) {
        self.lost.set(true);
    }

    /// There is more.
    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Ends the response after what is begun.
    pub(super) fn end(&self) {
        self.ended.set(true);
        self.wake();
    }
}
