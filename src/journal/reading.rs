//! How much one read of a journal gives: gathers batches up to a limit. Pure; used by both journals.

use super::{Position, ReadLimit, Stored};
use crate::model::event::Event;

/// Gathers batches up to a limit.
#[derive(Debug)]
pub(super) struct Reading {
    from: Position,
    limit: ReadLimit,
    bytes: usize,
    pub(super) stored: Vec<Stored>,
}

impl Reading {
    pub(super) fn new(from: Position, limit: ReadLimit) -> Self {
        Self { from, limit, bytes: 0, stored: Vec::new() }
    }

    /// The position that is read from.
    pub(super) fn from(&self) -> Position {
        self.from
    }

    /// Takes a batch that stands at `position`, or what of it is wanted. False: no more is taken.
    pub(super) fn take(&mut self, position: Position, batch: &[Event]) -> bool {
        let skip = (self.from.saturating_sub(position) as usize).min(batch.len());
        let rest = batch.get(skip..).unwrap_or_default().to_vec();
        self.take_rest(position + skip as u64, position + batch.len() as u64, rest)
    }

    /// Takes what is wanted of a batch, which stands at `position`; the batch ends at `end`.
    pub(super) fn take_rest(&mut self, position: Position, end: Position, events: Vec<Event>) -> bool {
        if events.is_empty() {
            return true;
        }
        self.bytes += events.iter().map(|event| event.json.len()).sum::<usize>();
        self.stored.push(Stored { position, events });
        let grid = self.limit.grid.max(1);
        self.bytes < self.limit.bytes && end / grid == self.from / grid
    }
}
