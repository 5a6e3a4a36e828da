//! The paths of one worker, found by key and view.
//!
//! A view without a filter stays once it was there. Views with filters are many, so they go with their last client; a path
//! has at most [`MAX_FILTERED`] of them on a worker, and their rings share what one of the others may keep alone.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use slab::Slab;
use uuid::Uuid;

use super::frame::SEGMENT_BYTES;
use super::path::Path;
use super::segment::Format;
use super::socket::Session;
use super::view::View;
use crate::model::gateway::PathKey;

/// Views with a filter of one path. Each has a ring, and every batch is held against each filter.
pub(super) const MAX_FILTERED: usize = 1000;

/// Every path of a worker.
#[derive(Default)]
pub(super) struct Paths(HashMap<PathKey, Views>);

/// One path. The number of a view is that of its format, or comes after those.
struct Views {
    plain: [Option<Rc<Path>>; Format::ALL.len()],
    filtered: Slab<Rc<Path>>,
    /// Where they are.
    slots: HashMap<View, usize>,
    /// What each of the others may keep, and all of these together.
    backlog_bytes: Rc<Cell<usize>>,
    /// What each of these may keep.
    share: Rc<Cell<usize>>,
}

/// What a new view is given.
pub(super) struct Room {
    /// By which it is found. It is another's when the view has gone.
    pub(super) number: u16,
    /// Bytes that its ring may keep.
    pub(super) limit: Rc<Cell<usize>>,
}

/// What each of so many rings may keep that share this. A ring keeps its newest segment in any case.
fn share(backlog_bytes: usize, rings: usize) -> usize {
    (backlog_bytes / rings.max(1)).max(SEGMENT_BYTES.min(backlog_bytes))
}

impl Views {
    fn new(backlog_bytes: usize) -> Self {
        Self {
            plain: Default::default(),
            filtered: Slab::new(),
            slots: HashMap::new(),
            backlog_bytes: Rc::new(Cell::new(backlog_bytes)),
            share: Rc::new(Cell::new(backlog_bytes)),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Rc<Path>> {
        self.plain.iter().flatten().chain(self.filtered.iter().map(|(_, path)| path))
    }

    fn view(&self, number: u16) -> Option<&Rc<Path>> {
        let number = usize::from(number);
        match number.checked_sub(Format::ALL.len()) {
            None => self.plain[number].as_ref(),
            Some(slot) => self.filtered.get(slot),
        }
    }

    /// The view, made if it is not there. `None`: there are too many filters.
    fn open(&mut self, view: &View, make: impl FnOnce(Room) -> Path) -> Option<Rc<Path>> {
        if view.filter.is_none() {
            let room = Room { number: view.format as u16, limit: Rc::clone(&self.backlog_bytes) };
            let plain = &mut self.plain[view.format as usize];
            return Some(Rc::clone(plain.get_or_insert_with(|| Rc::new(make(room)))));
        }
        if let Some(slot) = self.slots.get(view) {
            return self.filtered.get(*slot).cloned();
        }
        if self.filtered.len() >= MAX_FILTERED {
            self.sweep();
        }
        if self.filtered.len() >= MAX_FILTERED {
            return None;
        }
        let entry = self.filtered.vacant_entry();
        let number = (Format::ALL.len() + entry.key()) as u16;
        self.slots.insert(view.clone(), entry.key());
        let path = Rc::new(make(Room { number, limit: Rc::clone(&self.share) }));
        entry.insert(Rc::clone(&path));
        self.divide();
        Some(path)
    }

    /// Forgets filters that nobody has any more.
    fn sweep(&mut self) {
        let before = self.filtered.len();
        self.filtered.retain(|_, path| path.len() > 0 || Rc::strong_count(path) > 1);
        if self.filtered.len() < before {
            self.slots.retain(|_, slot| self.filtered.contains(*slot));
            self.divide();
        }
        if self.filtered.is_empty() {
            (self.filtered, self.slots) = Default::default();
        }
    }

    fn divide(&self) {
        self.share.set(share(self.backlog_bytes.get(), self.filtered.len()));
    }
}

impl Paths {
    /// The session with this id, by the number of its view and its key there.
    pub(super) fn session(&self, path: &PathKey, view: u16, key: u32, id: Uuid) -> Option<Rc<Session>> {
        let session = self.0.get(path)?.view(view)?.session(key as usize)?;
        (session.guest.id == id).then_some(session)
    }

    /// A path as clients with this view see it, made if it is not there. `None`: there are too many filters.
    pub(super) fn open(
        &mut self,
        key: &PathKey,
        backlog_bytes: usize,
        view: &View,
        make: impl FnOnce(Room) -> Path,
    ) -> Option<Rc<Path>> {
        if !self.0.contains_key(key) {
            self.0.insert(key.clone(), Views::new(backlog_bytes));
        }
        let views = self.0.get_mut(key)?;
        // It may have changed since the last client came.
        if views.backlog_bytes.replace(backlog_bytes) != backlog_bytes {
            views.divide();
        }
        views.open(view, make)
    }

    /// A path that has, or had, clients of this format without a filter.
    pub(super) fn plain(&self, key: &PathKey, format: Format) -> Option<&Rc<Path>> {
        self.0.get(key)?.plain[format as usize].as_ref()
    }

    /// A path as its clients with filters see it.
    pub(super) fn filtered(&self, key: &PathKey) -> Vec<Rc<Path>> {
        let views = self.0.get(key).into_iter().flat_map(|views| &views.filtered);
        views.map(|(_, path)| Rc::clone(path)).collect()
    }

    /// Whether there are any of those.
    pub(super) fn has_filters(&self, key: &PathKey) -> bool {
        self.0.get(key).is_some_and(|views| !views.filtered.is_empty())
    }

    /// A path in every view.
    pub(super) fn views(&self, key: &PathKey) -> Vec<Rc<Path>> {
        self.0.get(key).map(|views| views.all().cloned().collect()).unwrap_or_default()
    }

    /// All paths in all views.
    pub(super) fn all(&self) -> impl Iterator<Item = &Rc<Path>> {
        self.0.values().flat_map(Views::all)
    }

    /// Forgets filters that nobody has any more.
    pub(super) fn sweep(&mut self) {
        self.0.values_mut().for_each(Views::sweep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_that_share_a_backlog_keep_no_more_than_it_or_one_segment_each() {
        const MIB: usize = 1024 * 1024;
        assert_eq!([0, 1, 2, 16].map(|rings| share(16 * MIB, rings)), [16 * MIB, 16 * MIB, 8 * MIB, MIB]);
        assert_eq!(share(16 * MIB, MAX_FILTERED), SEGMENT_BYTES);
        assert_eq!([1, 10].map(|rings| share(65_536, rings)), [65_536, 65_536]);
    }
}
