//! What is done with the tables: notifications and snapshots in, events into the outbox and out of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, params};

use super::{Added, Job, StoreError, tables};
use crate::container_registry::repository::{Change, Doubt, Outcome, Push, Repository, Snapshot};
use crate::container_registry::touched::Reading;
use crate::model::container::{
    ContainerEvent, ContainerEventType, ContainerRegistry, ContainerRegistryKind, Trace,
};
use crate::model::event::Event;
use crate::model::event_id;

/// Events of a registry that may wait for its triggers.
pub const MAX_UNTOLD: usize = 100_000;
/// The first reading of what was there before us tells nothing of what it finds; if it could not read all, the next.
const SILENT: u8 = 3;
/// Ids of notifications that are remembered, of all registries together.
const MAX_SEEN: i64 = 10_000;

/// A registry in the store.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    /// Its number.
    pub(crate) number: i64,
    /// What is declared of it.
    pub(crate) declared: Arc<ContainerRegistry>,
    /// Whether any trigger wants its events.
    pub(crate) has_triggers: Arc<AtomicBool>,
}

impl Registry {
    /// Whether the configuration names its repositories.
    pub(crate) fn has_list(&self) -> bool {
        self.declared.repositories.is_some()
    }

    /// How many readings of a repository tell nothing of what they find: what is new to a catalog that is known is new.
    fn silence(&self, is_known: bool) -> u8 {
        if is_known && !self.has_list() { 0 } else { SILENT }
    }
}

/// Something that a sender says has happened.
#[derive(Debug, Clone)]
pub(crate) struct Observation {
    /// Where.
    pub(crate) repository: String,
    /// What.
    pub(crate) what: What,
    /// When, by the registry's clock: microseconds since 1970.
    pub(crate) at: i64,
    /// The same, for people.
    pub(crate) created_at: SystemTime,
    /// Whether it may be out of date.
    pub(crate) is_unsure: bool,
    /// The sender's own id of it.
    pub(crate) id: Option<String>,
    /// The operation that it is part of.
    pub(crate) trace: Trace,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A manifest was pushed.
    Push { digest: String, tag: Option<String>, is_told: bool, tells_untagged: bool },
    /// A manifest, or a blob, was deleted.
    DeleteImage { digest: String },
    /// A tag was removed; of this image, if that is known.
    DeleteTag { tag: String, digest: Option<String> },
    /// The repository was deleted.
    DeleteRepository,
}

impl What {
    /// The tags and digests that it is about.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let (digest, tag) = match self {
            Self::Push { digest, tag, .. } => (Some(digest), tag.as_ref()),
            Self::DeleteImage { digest } => (Some(digest), None),
            Self::DeleteTag { tag, digest } => (digest.as_ref(), Some(tag)),
            // All that goes is different from what was read.
            Self::DeleteRepository => (None, None),
        };
        digest.into_iter().chain(tag).map(String::as_str)
    }
}

/// What became of observations.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Observed {
    /// Events that were made of them.
    pub(crate) events: usize,
    /// Observations that had been made before, by their sender's id.
    pub(crate) duplicates: usize,
    /// What to ask the registry.
    pub(crate) doubts: Vec<(String, Doubt)>,
}

/// An event of the outbox.
#[derive(Debug, Clone)]
pub(crate) struct Untold {
    pub(crate) event_type: ContainerEventType,
    pub(crate) repository: String,
    pub(crate) tags: String,
    pub(crate) event: Event,
}

/// Finds or makes a registry; its number, and where each of its sources goes on. A new source begins with what comes now,
/// and those that are not named any more are forgotten, as are the events that only they have not taken.
pub(crate) fn open(job: &Job<'_>, name: &str, sources: &[String]) -> Result<(i64, Vec<i64>), StoreError> {
    let db = job.db;
    let number = tables::registry(db, name)?;
    let newest = newest(db, number)?;
    let known = |source: &String| {
        let sql = "SELECT number FROM cursors WHERE registry = ? AND source = ?";
        db.query_row(sql, params![number, source], |row| row.get(0)).optional()
    };
    let cursors: Vec<i64> =
        sources.iter().map(|source| Ok(known(source)?.unwrap_or(newest))).collect::<rusqlite::Result<_>>()?;
    db.execute("DELETE FROM cursors WHERE registry = ?", [number])?;
    let taken = sources.iter().zip(&cursors).map(|(source, at)| ((number, source.clone()), *at));
    take(db, &taken.collect())?;
    if sources.is_empty() {
        forget(db, number, newest)?;
    }
    Ok((number, cursors))
}

/// Forgets the events of registries that are followed no more.
pub(crate) fn retire_others(job: &Job<'_>, followed: &[i64]) -> Result<(), StoreError> {
    let mut registries = job.db.prepare("SELECT id FROM registries")?;
    for number in registries.query_map([], |row| row.get(0))? {
        let number: i64 = number?;
        if !followed.contains(&number) {
            forget(job.db, number, newest(job.db, number)?)?;
            job.db.execute("DELETE FROM cursors WHERE registry = ?", [number])?;
        }
    }
    Ok(())
}

/// Notes up to where sources have taken events, and deletes what all of a registry have.
pub(super) fn take(db: &Connection, taken: &HashMap<(i64, String), i64>) -> rusqlite::Result<()> {
    let mut put = db.prepare_cached("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)")?;
    let mut told = db.prepare_cached("SELECT min(number) FROM cursors WHERE registry = ?")?;
    for ((registry, source), number) in taken {
        put.execute(params![registry, source, number])?;
    }
    let registries: BTreeSet<i64> = taken.keys().map(|(registry, _)| *registry).collect();
    registries.into_iter().try_for_each(|registry| {
        let told = told.query_row([registry], |row| row.get(0))?;
        forget(db, registry, told)
    })
}

/// Deletes the events of a registry up to this number.
fn forget(db: &Connection, registry: i64, number: i64) -> rusqlite::Result<()> {
    let (first, _) = tables::outbox(registry);
    let sql = "DELETE FROM outbox WHERE key >= ? AND key <= ?";
    db.prepare_cached(sql)?.execute([first, first | number]).map(drop)
}

/// The number of the newest event of a registry; 0 if it never had one.
fn newest(db: &Connection, registry: i64) -> rusqlite::Result<i64> {
    db.prepare_cached("SELECT newest FROM registries WHERE id = ?")?.query_row([registry], |row| row.get(0))
}

/// Takes observations of one notification, in order.
pub(crate) fn observe(
    job: &mut Job<'_>,
    registry: &Registry,
    observations: &[Observation],
) -> Result<Observed, StoreError> {
    has_room(job.db, registry)?;
    let mut observed = Observed::default();
    for observation in observations {
        if let Some(id) = &observation.id
            && !is_new(job.db, registry, id)?
        {
            observed.duplicates += 1;
            continue;
        }
        let outcome = change(job.db, registry, observation)?;
        observed.events += outcome.changes.len();
        let repository = &observation.repository;
        observed.doubts.extend(outcome.doubts.into_iter().map(|doubt| (repository.clone(), doubt)));
        tell(job, registry, repository, &outcome.changes, observation.created_at, &observation.trace)?;
    }
    Ok(observed)
}

fn change(db: &Connection, registry: &Registry, observation: &Observation) -> Result<Outcome, StoreError> {
    let (at, is_unsure) = (observation.at, observation.is_unsure);
    let number = match (tables::repository(db, registry.number, &observation.repository)?, &observation.what)
    {
        (Some((number, _)), _) => number,
        // What is new to a registry that is known is known from its beginning.
        (None, What::Push { .. }) => {
            make(db, registry, &observation.repository, registry.silence(is_known(db, registry)?))?
        }
        // Nothing is known that could go.
        (None, _) => return Ok(Outcome::default()),
    };
    let mut part = Repository::default();
    match &observation.what {
        What::Push { digest, tag, .. } => {
            tables::load_image(db, number, digest, &mut part)?;
            tag.iter().try_for_each(|tag| tables::load_tag(db, number, tag, &mut part))?;
        }
        What::DeleteImage { digest } => {
            tables::load_image(db, number, digest, &mut part)?;
            tables::load_tags_of(db, number, digest, &mut part)?;
        }
        What::DeleteTag { tag, .. } => {
            tables::load_tag(db, number, tag, &mut part)?;
            if let Some(digest) = part.tags.get(tag).map(|tag| tag.digest.clone()) {
                tables::load_tags_of(db, number, &digest, &mut part)?;
            }
        }
        What::DeleteRepository => part = tables::load_all(db, number)?,
    }
    // Without a clock of its own that is asked for, what comes later is later.
    let at = if registry.declared.kind == ContainerRegistryKind::Generic { at.max(part.as_of()) } else { at };
    let before = part.clone();
    let outcome = match &observation.what {
        What::Push { digest, tag, is_told, tells_untagged } => {
            let push =
                Push { digest, tag: tag.as_deref(), is_told: *is_told, tells_untagged: *tells_untagged };
            part.push(push, at, is_unsure)
        }
        What::DeleteImage { digest } => part.delete_image(digest, at),
        What::DeleteTag { tag, digest } => part.delete_tag(tag, digest.as_deref(), at, is_unsure),
        What::DeleteRepository => part.delete_all(at),
    };
    tables::save(db, number, &before, &part)?;
    Ok(outcome)
}

/// A repository as the store has it.
pub(crate) fn read(job: &Job<'_>, registry: &Registry, name: &str) -> Result<Repository, StoreError> {
    match tables::repository(job.db, registry.number, name)? {
        Some((number, _)) => Ok(tables::load_all(job.db, number)?),
        None => Ok(Repository::default()),
    }
}

/// Whether an image is known, and if so whether it is told.
pub(crate) fn knows(
    job: &Job<'_>,
    registry: &Registry,
    name: &str,
    digest: &str,
) -> Result<Option<bool>, StoreError> {
    let mut part = Repository::default();
    if let Some((number, _)) = tables::repository(job.db, registry.number, name)? {
        tables::load_image(job.db, number, digest, &mut part)?;
    }
    Ok(part.images.get(digest).map(|image| image.is_told))
}

/// What became of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Events that were made of it.
    pub(crate) events: usize,
    /// Whether nothing of it had to be left out.
    pub(crate) is_settled: bool,
}

/// Makes a repository as the registry shows it, but for what has changed since `before` was read; the number of events.
/// The first reading of a repository that was there before us tells nothing of what is found there.
pub(crate) fn apply(
    job: &mut Job<'_>,
    registry: &Registry,
    reading: &Reading,
    before: &Repository,
    snapshot: Snapshot,
    trace: &Trace,
) -> Result<Applied, StoreError> {
    has_room(job.db, registry)?;
    let name = reading.repository();
    let (number, silent) = match tables::repository(job.db, registry.number, name)? {
        Some(known) => known,
        None if snapshot.tags.values().all(Option::is_none) => {
            return Ok(Applied { events: 0, is_settled: true });
        }
        None => (make(job.db, registry, name, 0)?, 0),
    };
    let is_silent = snapshot.is_complete && silent > 0;
    let now = tables::load_all(job.db, number)?;
    let mut touched = reading.names();
    if is_silent {
        // A tag that was there before is no news because its image got another one.
        touched.retain(|name| !name.contains(':'));
    }
    let settled = snapshot.clone().settled(before, &now, &touched);
    let is_settled = settled == snapshot;
    let mut after = now.clone();
    let mut changes = after.compare(&settled);
    tables::save(job.db, number, &now, &after)?;
    if is_silent {
        // What is known already was told by notifications.
        changes.retain(|change| change.event_type.is_deletion() || now.tags.contains_key(&change.tag));
        let left = if snapshot.unread.is_empty() { 0 } else { silent - 1 };
        job.db.execute("UPDATE repositories SET silent = ? WHERE id = ?", [i64::from(left), number])?;
    }
    let created_at = UNIX_EPOCH + Duration::from_micros(u64::try_from(snapshot.as_of).unwrap_or(0));
    tell(job, registry, name, &changes, created_at, trace)?;
    Ok(Applied { events: changes.len(), is_settled })
}

/// Names of the repositories that have a tag or an image.
pub(crate) fn repositories(job: &Job<'_>, registry: &Registry) -> Result<Vec<String>, StoreError> {
    let mut query = job.db.prepare_cached(
        "SELECT name FROM repositories r WHERE registry = ?
           AND (EXISTS (SELECT 1 FROM tags t WHERE t.repository = r.id)
             OR EXISTS (SELECT 1 FROM images i WHERE i.repository = r.id))",
    )?;
    Ok(query.query_map([registry.number], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Whether the registry has named its repositories once. What it names later is new.
pub(crate) fn is_known(db: &Connection, registry: &Registry) -> Result<bool, StoreError> {
    let mut query = db.prepare_cached("SELECT is_known FROM registries WHERE id = ?")?;
    Ok(query.query_row([registry.number], |row| row.get(0))?)
}

/// The registry has these repositories. Those that were there before us are read first without telling: at the first
/// time all, later those that were added to a list of the configuration.
pub(crate) fn name_all(job: &Job<'_>, registry: &Registry, names: &[String]) -> Result<(), StoreError> {
    if is_known(job.db, registry)? && !registry.has_list() {
        return Ok(());
    }
    let sql = "INSERT OR IGNORE INTO repositories (registry, name, silent) VALUES (?, ?, ?)";
    let mut put = job.db.prepare_cached(sql)?;
    names.iter().try_for_each(|name| put.execute(params![registry.number, name, SILENT]).map(drop))?;
    if !registry.has_list() {
        job.db.execute("UPDATE registries SET is_known = 1 WHERE id = ?", [registry.number])?;
    }
    Ok(())
}

/// Events of a registry after this number, so many at most, and the last number that was looked at.
pub(crate) fn untold(
    job: &Job<'_>,
    registry: &Registry,
    after: i64,
    most: usize,
) -> Result<(Vec<Untold>, i64), StoreError> {
    let mut query = job.db.prepare_cached(
        "SELECT key, event_type, repository, tags, data FROM outbox WHERE key > ? AND key < ? ORDER BY key LIMIT ?",
    )?;
    let (first, end) = tables::outbox(registry.number);
    let row = |row: &rusqlite::Row<'_>| {
        Ok((row.get(0)?, row.get::<_, i64>(1)?, row.get(2)?, row.get(3)?, row.get::<_, Vec<u8>>(4)?))
    };
    let (mut found, mut last) = (Vec::new(), after);
    for row in query.query_map(params![first | after, end, most as i64], row)? {
        let (key, event_type, repository, tags, data): (i64, _, _, _, _) = row?;
        let number = key - first;
        last = number;
        let (Some(event), Some(event_type)) = (
            Event::from_json(data.into()),
            usize::try_from(event_type).ok().and_then(|at| ContainerEventType::ALL.get(at).copied()),
        ) else {
            tracing::error!(number, "an event in the outbox cannot be read; it is left out");
            continue;
        };
        found.push(Untold { event_type, repository, tags, event });
    }
    Ok((found, last))
}

fn make(db: &Connection, registry: &Registry, name: &str, silent: u8) -> rusqlite::Result<i64> {
    let sql = "INSERT INTO repositories (registry, name, silent) VALUES (?, ?, ?)";
    db.prepare_cached(sql)?.insert(params![registry.number, name, silent])
}

fn has_room(db: &Connection, registry: &Registry) -> Result<(), StoreError> {
    let (first, end) = tables::outbox(registry.number);
    // Numbers have no holes.
    let sql = "SELECT key FROM outbox WHERE key >= ? AND key < ? ORDER BY key LIMIT 1";
    let oldest: Option<i64> = db.prepare_cached(sql)?.query_row([first, end], |row| row.get(0)).optional()?;
    let Some(oldest) = oldest else { return Ok(()) };
    let waiting = newest(db, registry.number)? - (oldest - first) + 1;
    if waiting < MAX_UNTOLD as i64 { Ok(()) } else { Err(StoreError::Full(MAX_UNTOLD)) }
}

/// Notes the id of an observation. Says whether it was not noted already.
fn is_new(db: &Connection, registry: &Registry, id: &str) -> rusqlite::Result<bool> {
    let added = db
        .prepare_cached("INSERT OR IGNORE INTO seen (registry, id) VALUES (?, ?)")?
        .execute(params![registry.number, id])?;
    if added > 0 {
        db.prepare_cached("DELETE FROM seen WHERE number <= ?")?
            .execute([db.last_insert_rowid() - MAX_SEEN])?;
    }
    Ok(added > 0)
}

/// Puts events into the outbox.
fn tell(
    job: &mut Job<'_>,
    registry: &Registry,
    repository: &str,
    changes: &[Change],
    created_at: SystemTime,
    trace: &Trace,
) -> Result<(), StoreError> {
    if !registry.has_triggers.load(Ordering::Relaxed) {
        return Ok(());
    }
    let mut put = job.db.prepare_cached(
        "INSERT INTO outbox (key, event_type, repository, tags, data) VALUES (?, ?, ?, ?, ?)",
    )?;
    let (first, _) = tables::outbox(registry.number);
    let mut number = newest(job.db, registry.number)?;
    for change in changes {
        let event = ContainerEvent {
            event_type: change.event_type,
            registry: &registry.declared,
            repository,
            digest: &change.digest,
            tag: &change.tag,
            created_at,
            trace,
        };
        let event = event.encode(event_id::next(SystemTime::now()));
        number += 1;
        put.execute(params![
            first | number,
            // Its place among all of them.
            change.event_type as i64,
            repository,
            change.tags.join("\n"),
            &event.json[..]
        ])?;
        job.told.push(Added { registry: registry.number, repository: repository.to_owned(), event });
    }
    if !changes.is_empty() {
        job.db
            .prepare_cached("UPDATE registries SET newest = ? WHERE id = ?")?
            .execute([number, registry.number])?;
        job.newest.insert(registry.number, number);
    }
    Ok(())
}

/// What the index holds, for tests: every repository with anything in it.
#[cfg(test)]
pub(crate) fn all(
    job: &Job<'_>,
    registry: &Registry,
) -> Result<std::collections::BTreeMap<String, Repository>, StoreError> {
    let names = repositories(job, registry)?;
    names.into_iter().map(|name| read(job, registry, &name).map(|found| (name, found))).collect()
}
