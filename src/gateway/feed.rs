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
    /// Messages that were written to clients and are not in the path's meter yet.
    pub(super) written: Cell<u64>,
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

    /// Clients were written so many messages.
    pub(super) fn count(&self, messages: u64) {
        self.written.set(self.written.get() + messages);
    }
}
