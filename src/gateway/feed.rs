//! What the sessions of a path share: the ring that they read, and the worker's clock.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::ring::Ring;

/// A path's frames on one worker.
pub(super) struct Feed {
    pub(super) ring: RefCell<Ring>,
    /// Seconds since the worker started, moved by its tick: cheap to read.
    pub(super) clock: Rc<Cell<u32>>,
    /// When frames were appended last.
    pub(super) last_append: Cell<u32>,
}
