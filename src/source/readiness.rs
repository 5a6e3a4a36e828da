//! Whether the server does its work: what the engine writes and `/readyz` tells.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use dashmap::DashMap;
use tokio::sync::watch;

use super::Condition;
use crate::journal::disk::Health;

/// The state of the server and of every source.
#[derive(Debug, Default)]
pub struct Readiness {
    serving: AtomicBool,
    sources: DashMap<String, watch::Receiver<Condition>>,
    journal: OnceLock<watch::Receiver<Health>>,
}

impl Readiness {
    /// Says whether the server takes events: false before everything has started and while it stops.
    pub fn set_serving(&self, serving: bool) {
        self.serving.store(serving, Ordering::Release);
    }

    /// Whether the server takes events.
    pub fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Acquire)
    }

    /// Watches a source under a name that people know it by.
    pub fn watch(&self, name: String, condition: watch::Receiver<Condition>) {
        self.sources.insert(name, condition);
    }

    /// Watches a source no more.
    pub fn forget(&self, name: &str) {
        self.sources.remove(name);
    }

    /// The condition of a source.
    pub fn source(&self, name: &str) -> Option<Condition> {
        self.sources.get(name).map(|condition| condition.borrow().clone())
    }

    /// Watches the journal.
    pub fn watch_journal(&self, health: watch::Receiver<Health>) {
        // There is one for the life of the process.
        let _ = self.journal.set(health);
    }

    /// Whether the journal takes events; `None` if no path needs one.
    pub fn journal(&self) -> Option<Health> {
        self.journal.get().map(|health| health.borrow().clone())
    }

    /// The sources and their conditions, by name.
    pub fn sources(&self) -> Vec<(String, Condition)> {
        let mut sources: Vec<_> =
            self.sources.iter().map(|entry| (entry.key().clone(), entry.value().borrow().clone())).collect();
        sources.sort_by(|a, b| a.0.cmp(&b.0));
        sources
    }
}
