//! What keeps events safe and in order: the [`Journal`] port, and [`Journals`], which knows the journal of each path.
//!
//! Every path has one total order of events: a GatewayActor appends a [`Run`] of batches and may deliver it when
//! it is committed, so live delivery, replay and a restart show the same order. An event's place in it is its
//! [`Position`]. Two implementations: `disk` (SQLite; it also keeps the events of every source from before they
//! were batched, so that senders can be acknowledged) and `memory`. One suite of tests runs over both.

pub mod disk;
pub mod memory;
mod reading;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::SystemTime;

use tokio::sync::watch;

use self::disk::Disk;
use self::memory::Memory;
use crate::model::duration;
use crate::model::event::{Event, EventId};
use crate::model::gateway::{Durability, Gateway, GatewayPath, PathKey, Retention};

/// An event's place in the order of its path. The first event ever has 0.
pub type Position = u64;

/// Batches that one action of a trigger closed together, for one path.
#[derive(Debug, Clone)]
pub struct Run {
    /// The path.
    pub path: PathKey,
    /// The action, for a path on disk: where in its source's order the batches stand.
    pub origin: Option<Origin>,
    /// At least one batch of at least one event each, in order.
    pub batches: Arc<Vec<Vec<Event>>>,
}

/// Where the events of a run stand in the order of their source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The action, as [`disk::Disk::action`] names it.
    pub action: disk::ActionId,
    /// The offset of the run's first event in its source; the others follow without a gap.
    pub first: u64,
}

/// A run that has its place.
#[derive(Debug, Clone)]
pub struct Appended {
    /// Where its first event stands.
    pub position: Position,
    /// What of it is new, which is all of it unless an actor has started again.
    pub batches: Arc<Vec<Vec<Event>>>,
}

/// Every path, with where its events are kept and how much of them.
pub type Paths = HashMap<PathKey, (Durability, Retention)>;

/// The paths of these gateways.
pub fn paths(gateways: &[Gateway]) -> Paths {
    let of = |gateway: &Gateway, path: &GatewayPath| {
        let key = PathKey { gateway_id: gateway.id.clone(), path: path.path.as_str().into() };
        (key, (path.durability, path.retention))
    };
    gateways.iter().flat_map(|gateway| gateway.paths.iter().map(move |path| of(gateway, path))).collect()
}

/// Why a run has no place yet.
#[derive(Debug)]
pub enum NotAppended {
    /// The journal's queue is full: wait for [`Journal::room`] and try again.
    Full(Run),
    /// The path already has all of it.
    Known,
}

/// Where a client wants to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// After this event.
    After(EventId),
    /// With what was broadcast from this moment on.
    Since(SystemTime),
    /// With the last so many events.
    Last(u64),
}

impl Start {
    /// What [`Self::since`] reads, for messages.
    pub const SINCE: &str = "a time such as 2026-01-31T08:00:00Z, or a duration such as 90s, 5m or 24h";

    /// From this time on, or from so long before `now`.
    pub fn since(text: &str, now: SystemTime) -> Option<Self> {
        if let Some(ago) = duration::parse(text) {
            let time = now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
            return Some(Self::Since(time.max(SystemTime::UNIX_EPOCH)));
        }
        let time: jiff::Timestamp = text.parse().ok()?;
        Some(Self::Since(time.into()))
    }
}

/// Where that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The first event to send.
    pub position: Position,
    /// Whether anything that was asked for is kept no more.
    pub gap: bool,
    /// The oldest event that is kept.
    pub oldest: Option<EventId>,
}

impl fmt::Display for Found {
    /// Whether everything that was asked for is there, in the words that clients get.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.gap, self.oldest) {
            (false, _) => f.write_str("complete"),
            (true, Some(oldest)) => write!(f, "gap; oldest={oldest}"),
            (true, None) => f.write_str("gap"),
        }
    }
}

/// A batch, or what follows a position in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Where its first event stands.
    pub position: Position,
    /// At least one.
    pub events: Vec<Event>,
}

/// How much is read at once. A read ends with a batch; it holds one at least.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimit {
    /// Bytes of JSON after which it ends.
    pub bytes: usize,
    /// It ends where it passes a multiple of this position, so that many readers ask for the same stretches.
    pub grid: u64,
}

/// Why nothing can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// What follows the position is kept no more; the oldest that is kept stands at `oldest`.
    #[error("what is asked for is kept no more")]
    Gone {
        /// The lowest position that can be read.
        oldest: Position,
    },
    /// The journal cannot be read.
    #[error("{0}")]
    Failed(String),
}

/// The order of every path, and what is kept of it.
pub trait Journal: fmt::Debug + Send + Sync {
    /// Puts a run at the end of its path's order.
    fn append(&self, run: Run) -> Result<Appended, NotAppended>;

    /// Ready when the queue may have room.
    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Where the first event of a path stands that is not committed. What stands below may be delivered.
    fn committed(&self, path: &PathKey) -> Option<watch::Receiver<Position>>;

    /// Where a start is. Blocks.
    fn find(&self, path: &PathKey, start: Start) -> Result<Found, ReadError>;

    /// Committed batches from `from` on; none at the end. Blocks.
    fn read(&self, path: &PathKey, from: Position, limit: ReadLimit) -> Result<Vec<Stored>, ReadError>;
}

/// Appends a run, however long it takes to get room. `None`: the path already has all of it.
pub async fn append(journal: Arc<dyn Journal>, mut run: Run) -> Option<Appended> {
    loop {
        match journal.append(run) {
            Ok(appended) => return Some(appended),
            Err(NotAppended::Known) => return None,
            Err(NotAppended::Full(back)) => run = back,
        }
        journal.room().await;
    }
}

/// The journal of each path.
#[derive(Debug)]
pub struct Journals {
    /// The journal on disk, if any path has its order there.
    disk: Option<Arc<Disk>>,
    memory: Arc<Memory>,
    paths: RwLock<HashMap<PathKey, Place>>,
}

/// Where a path has its order.
#[derive(Debug, Clone)]
struct Place {
    journal: Arc<dyn Journal>,
    is_on_disk: bool,
    retention: Retention,
}

impl Journals {
    /// The journals of these paths. `disk` holds those with [`Durability::Disk`].
    pub fn new(paths: &Paths, disk: Option<Arc<Disk>>) -> Self {
        let journals = Self { disk, memory: Arc::default(), paths: RwLock::default() };
        journals.put(paths);
        journals
    }

    /// Knows these paths from now on, besides those that it knows, and keeps so much of them. A path that it knows stays
    /// where it is until the next start, on disk or in memory. Blocks for commits.
    pub fn add(&self, paths: &Paths) -> Result<(), ReadError> {
        let mut new = Paths::new();
        let mut changed = Paths::new();
        for (key, (durability, retention)) in paths {
            match self.paths().get(key) {
                None => drop(new.insert(key.clone(), (*durability, *retention))),
                Some(place) if place.retention != *retention => {
                    let durability = if place.is_on_disk { Durability::Disk } else { Durability::Memory };
                    changed.insert(key.clone(), (durability, *retention));
                }
                Some(_) => {}
            }
        }
        if let Some(disk) = &self.disk {
            disk.add_paths(&new)?;
            disk.retain(&changed)?;
        }
        self.put(&new);
        self.put(&changed);
        Ok(())
    }

    fn put(&self, paths: &Paths) {
        let mut known = self.paths.write().unwrap_or_else(PoisonError::into_inner);
        for (key, (durability, retention)) in paths {
            let place = match (&self.disk, durability) {
                (Some(disk), Durability::Disk) => {
                    let journal = Arc::clone(disk) as Arc<dyn Journal>;
                    Place { journal, is_on_disk: true, retention: *retention }
                }
                _ => {
                    self.memory.add(key, *retention);
                    let journal = Arc::clone(&self.memory) as Arc<dyn Journal>;
                    Place { journal, is_on_disk: false, retention: *retention }
                }
            };
            known.insert(key.clone(), place);
        }
    }

    fn paths(&self) -> RwLockReadGuard<'_, HashMap<PathKey, Place>> {
        self.paths.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every path of these gateways in memory, as tests want it.
    #[cfg(test)]
    pub(crate) fn in_memory(gateways: &[Gateway]) -> Self {
        Self::new(&paths(gateways), None)
    }

    /// The same journal for every path of these gateways, as tests want it.
    #[cfg(test)]
    pub(crate) fn one(gateways: &[Gateway], journal: &Arc<dyn Journal>) -> Self {
        let place = |key| {
            let journal = Arc::clone(journal);
            (key, Place { journal, is_on_disk: false, retention: Retention::default() })
        };
        let paths = paths(gateways).into_keys().map(place).collect();
        Self { disk: None, memory: Arc::default(), paths: RwLock::new(paths) }
    }

    /// The journal of a path; `None` if there is no such path.
    pub fn of(&self, path: &PathKey) -> Option<Arc<dyn Journal>> {
        self.paths().get(path).map(|place| Arc::clone(&place.journal))
    }

    /// Whether a path's order is on disk.
    pub fn is_on_disk(&self, path: &PathKey) -> bool {
        self.paths().get(path).is_some_and(|place| place.is_on_disk)
    }

    /// The journal on disk.
    pub fn disk(&self) -> Option<&Arc<Disk>> {
        self.disk.as_ref()
    }
}
