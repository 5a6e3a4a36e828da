//! Container registries: their notifications in, events about images and tags out.
//!
//! The way of an event: `webhook` takes a notification in if its sender proves who it is (`access`); `notification`
//! reads the sender's form; the `store` compares it with what is known of the repository ([`repository`] decides what
//! has changed) and keeps the new state and its events together, in one commit, before the sender is answered; a
//! [`Link`] hands the events to a source. What senders lose is made up by `reconcile`, which asks the registry
//! itself through `client`.

mod access;
mod client;
mod followed;
mod link;
mod manifest;
mod notification;
mod reconcile;
pub mod repository;
mod store;
mod touched;
pub mod webhook;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

pub use self::client::AskError;
pub use self::followed::Reconciled;
pub use self::link::Link;
pub use self::store::index::MAX_UNTOLD;
pub use self::store::{OpenError, StoreError, WAITING};

use self::client::Client;
use self::followed::Followed;
use self::link::Feed;
use self::store::Store;
use self::store::index::Registry;
use crate::model::Resources;
use crate::model::condition::Condition;
use crate::model::container::{ContainerFilter, ContainerRegistry};
use crate::model::id::Id;
use crate::model::trigger::{Pause, TriggerSource};

/// What may wait to be asked of a registry. What finds no room is found by a reconciliation of all of it.
pub const QUESTIONS: usize = 1024;

/// Bodies that are read at once of a registry, of senders who have shown the token.
pub const READING: usize = 64;
/// Bodies that are read at once of a registry, of senders who prove themselves by a signature of it.
pub const READING_UNPROVED: usize = 8;

/// Why registries cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database cannot be opened.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// It cannot be written.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// A registry's client cannot be made.
    #[error("container registry '{0}': {1}")]
    Client(Id, AskError),
}

/// Why a source has no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It is in no registry of ours.
    #[error("there is no container registry '{0}'")]
    Unknown(Id),
    /// The one that it had has still to end.
    #[error("the link before has still to end")]
    Ending,
}

/// All container registries that are followed.
pub struct Registries {
    by_id: HashMap<Id, Arc<Followed>>,
    store: Arc<Store>,
    runtime: Handle,
    stop: watch::Sender<bool>,
}

impl std::fmt::Debug for Registries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.by_id.keys()).finish()
    }
}

impl Registries {
    /// Opens what is known of the registries in `folder`, and begins to ask those that have an address. The tasks run on
    /// `runtime`. `None` if there are no registries.
    pub async fn start(
        folder: &Path,
        resources: &Resources,
        runtime: &Handle,
    ) -> Result<Option<Self>, StartError> {
        if resources.container_registries.is_empty() {
            return Ok(None);
        }
        let store = Arc::new(Store::open(folder)?);
        let (stop, stopped) = watch::channel(false);
        let mut by_id = HashMap::new();
        for declared in &resources.container_registries {
            let declared = Arc::new(declared.clone());
            let client = Client::new(&declared);
            let client = client.map_err(|error| StartError::Client(declared.id.clone(), error))?;
            let sources: HashSet<_> = sources_of(resources).collect();
            let own = sources.into_iter().filter(|source| is_of(source, &declared));
            let sources: Vec<_> = own.cloned().collect();
            let (name, names) =
                (declared.id.clone(), sources.iter().map(ToString::to_string).collect::<Vec<_>>());
            let (number, cursors) = store.work(move |job| store::index::open(job, &name, &names)).await?;
            let (questions, asked) = mpsc::channel(QUESTIONS);
            let (requests, requested) = mpsc::channel(1);
            let has_triggers = Arc::new(AtomicBool::new(!sources.is_empty()));
            let followed = Arc::new(Followed::new(
                Registry { number, declared: Arc::clone(&declared), has_triggers },
                Arc::clone(&store),
                client,
                sources.into_iter().zip(cursors).collect(),
                questions,
                requests,
            ));
            runtime.spawn(reconcile::run(Arc::clone(&followed), requested, stopped.clone()));
            runtime.spawn(reconcile::answer(Arc::clone(&followed), asked, stopped.clone()));
            by_id.insert(declared.id.clone(), followed);
        }
        let numbers: Vec<_> = by_id.values().map(|followed| followed.registry.number).collect();
        store.work(move |job| store::index::retire_others(job, &numbers)).await?;
        Ok(Some(Self { by_id, store, runtime: runtime.clone(), stop }))
    }

    /// Knows the sources of these triggers from now on. A new one begins with what happens next. Call it before their
    /// links are made.
    pub async fn apply(&self, resources: &Resources) -> Result<(), StartError> {
        for followed in self.by_id.values() {
            let declared = &followed.registry.declared;
            let sources: HashSet<_> = sources_of(resources).collect();
            let own: Vec<_> = sources.into_iter().filter(|source| is_of(source, declared)).cloned().collect();
            if !followed.lacks(&own) {
                continue;
            }
            let (name, names) =
                (declared.id.clone(), own.iter().map(ToString::to_string).collect::<Vec<_>>());
            let (_, cursors) = self.store.work(move |job| store::index::open(job, &name, &names)).await?;
            followed.registry.has_triggers.store(!own.is_empty(), Ordering::Relaxed);
            followed.set_sources(own.into_iter().zip(cursors));
        }
        Ok(())
    }

    /// Every image that is known of a registry: its repository, its digest and its tags.
    pub async fn images(&self, registry: &str) -> Result<Vec<(String, String, Vec<String>)>, StartError> {
        let registry = registry.to_owned();
        Ok(self.store.work(move |job| Ok(store::tables::load_images(job.db, &registry)?)).await?)
    }

    /// What a registry told last since the start, as JSON, the newest first.
    pub fn recent(&self, registry: &str) -> Vec<Bytes> {
        self.by_id
            .get(registry)
            .map(|followed| self.store.recent(followed.registry.number))
            .unwrap_or_default()
    }

    fn followed<'a>(
        &'a self,
        source: &'a TriggerSource,
    ) -> Result<(&'a Arc<Followed>, &'a ContainerFilter), LinkError> {
        let TriggerSource::ContainerRegistry { registry_id, filter } = source else {
            return Err(LinkError::Unknown(Id::from(source.to_string())));
        };
        let followed = self.by_id.get(registry_id);
        Ok((followed.ok_or_else(|| LinkError::Unknown(registry_id.clone()))?, filter))
    }

    /// Ends the link that a source had. Without an error it has ended, and what it had handed over is in the journal
    /// or is not: only then can be said what the journal has.
    pub fn end_link(&self, source: &TriggerSource) -> Result<(), LinkError> {
        let (followed, _) = self.followed(source)?;
        if followed.end_link(source) { Ok(()) } else { Err(LinkError::Ending) }
    }

    /// The events that a source wants. `known` is what the ids of events sort by that its journal has. It has no other
    /// link: see [`Self::end_link`].
    pub fn link(&self, source: &TriggerSource, known: u64) -> Result<Link, LinkError> {
        let (followed, filter) = self.followed(source)?;
        let feed =
            Feed { followed: Arc::clone(followed), source: source.clone(), filter: filter.clone(), known };
        let (link, stop, task) = link::link(feed);
        followed.begin_link(source, stop, self.runtime.spawn(task));
        Ok(link)
    }

    /// Whether notifications can be taken.
    pub fn condition(&self) -> watch::Receiver<Condition> {
        self.store.condition()
    }

    /// Takes no more notifications and asks no registry any more.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Commits what waits, and ends. Call it when the sources have ended. Blocks.
    pub fn close(&self) {
        self.stop();
        self.store.close();
    }
}

/// The sources of triggers that want events, now or later.
fn sources_of(resources: &Resources) -> impl Iterator<Item = &TriggerSource> {
    let wanting = resources.triggers.iter().filter(|trigger| trigger.pause != Some(Pause::Drop));
    wanting.map(|trigger| &trigger.source)
}

fn is_of(source: &TriggerSource, registry: &ContainerRegistry) -> bool {
    matches!(source, TriggerSource::ContainerRegistry { registry_id, .. } if *registry_id == registry.id)
}

/// Microseconds since 1970.
fn micros(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_micros()).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
