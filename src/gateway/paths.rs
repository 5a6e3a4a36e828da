//! The paths of one worker, found by key and view.
//!
//! A view without a filter stays once it was there. Views with filters are many, so they go with their last client, and a path
//! has at most [`MAX_FILTERED`] of them on a worker.

use std::collections::HashMap;
use std::rc::Rc;

use uuid::Uuid;

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

/// One path.
#[derive(Default)]
struct Views {
    plain: [Option<Rc<Path>>; Format::ALL.len()],
    filtered: HashMap<View, Rc<Path>>,
}

impl Views {
    fn all(&self) -> impl Iterator<Item = &Rc<Path>> {
        self.plain.iter().flatten().chain(self.filtered.values())
    }

    /// Forgets filters that nobody has any more.
    fn sweep(&mut self) {
        self.filtered.retain(|_, path| path.len() > 0 || Rc::strong_count(path) > 1);
    }
}

impl Paths {
    /// The session with this id, whose key is this in the view that it has.
    pub(super) fn session(&self, path: &PathKey, key: usize, id: Uuid) -> Option<Rc<Session>> {
        let mut sessions = self.0.get(path)?.all().filter_map(|view| view.session(key));
        sessions.find(|session| session.guest.id == id)
    }

    /// A path as clients with this view see it, made if it is not there. `None`: there are too many filters.
    pub(super) fn open(
        &mut self,
        key: &PathKey,
        view: &View,
        make: impl FnOnce() -> Path,
    ) -> Option<Rc<Path>> {
        if !self.0.contains_key(key) {
            self.0.insert(key.clone(), Views::default());
        }
        let views = self.0.get_mut(key)?;
        if view.filter.is_none() {
            let plain = &mut views.plain[view.format as usize];
            return Some(Rc::clone(plain.get_or_insert_with(|| Rc::new(make()))));
        }
        if let Some(known) = views.filtered.get(view) {
            return Some(Rc::clone(known));
        }
        if views.filtered.len() >= MAX_FILTERED {
            views.sweep();
        }
        if views.filtered.len() >= MAX_FILTERED {
            return None;
        }
        let path = Rc::new(make());
        views.filtered.insert(view.clone(), Rc::clone(&path));
        Some(path)
    }

    /// A path that has, or had, clients of this format without a filter.
    pub(super) fn plain(&self, key: &PathKey, format: Format) -> Option<&Rc<Path>> {
        self.0.get(key)?.plain[format as usize].as_ref()
    }

    /// A path as its clients with filters see it.
    pub(super) fn filtered(&self, key: &PathKey) -> Vec<Rc<Path>> {
        self.0.get(key).map(|views| views.filtered.values().cloned().collect()).unwrap_or_default()
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
