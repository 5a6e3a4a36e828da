//! What users want, who may do what, and what was changed by whom: kept in `data_dir/resources.db`, and in memory to
//! be read.
//!
//! Every change is one transaction of one writer at a time, on disk before it is answered. Resources of the
//! configuration file stand beside the stored ones and are not written. Whoever makes things run follows
//! [`Store::version`], which tells that something has changed. Nothing is queued: writers wait for each other.

mod record;
mod tables;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use jiff::Timestamp;
use tokio::sync::watch;

pub use self::record::{Kind, Origin, Record};
pub use self::tables::{OpenError, StoredAudit};

use self::tables::Tables;
use crate::model::id::Id;

/// What one call changes, in one transaction.
#[derive(Debug, Default)]
pub struct Change {
    /// Records to add, or to put in place of those with their kind and id.
    pub put: Vec<Record>,
    /// Records that go.
    pub delete: Vec<(Kind, Id)>,
    /// Tokens that are no longer valid, with the second at which they would have ended by themselves.
    pub revoke: Vec<(String, i64)>,
    /// The operation that tells of the change: its id, its resource and its encoded form.
    pub operation: Option<(String, Id, Vec<u8>)>,
    /// What the audit log says.
    pub audit: Option<StoredAudit>,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError<E> {
    /// Whoever makes it refuses.
    #[error("refused")]
    Refused(E),
    /// A call with the same key has made it; this is the id of its operation.
    #[error("made before, by the operation {0}")]
    Repeated(String),
    /// The disk does.
    #[error("failed to write: {0}")]
    Disk(String),
}

/// Everything that can be asked for without the disk.
#[derive(Debug, Default)]
pub struct State {
    records: BTreeMap<Kind, BTreeMap<Id, Record>>,
    /// Tokens that are no longer valid.
    revoked: HashMap<String, i64>,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    state: RwLock<State>,
    tables: Mutex<Tables>,
    version: watch::Sender<u64>,
}

impl State {
    /// The record of a kind with this id.
    pub fn get(&self, kind: Kind, id: &str) -> Option<&Record> {
        self.records.get(&kind)?.get(id)
    }

    /// All records of a kind, by id.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = &Record> {
        self.after(kind, "")
    }

    /// The records of a kind whose ids come after `id`.
    pub fn after(&self, kind: Kind, id: &str) -> impl Iterator<Item = &Record> {
        let from = (Bound::Excluded(id), Bound::Unbounded);
        self.records
            .get(&kind)
            .into_iter()
            .flat_map(move |of_kind| of_kind.range::<str, _>(from).map(|(_, record)| record))
    }

    /// The record of a kind with this name in a folder, or under a parent if the kind has one.
    pub fn named(&self, kind: Kind, owner: &str, name: &str) -> Option<&Record> {
        self.all(kind).find(|record| record.owner() == owner && record.name == name)
    }

    /// Whether a token is no longer valid.
    pub fn is_revoked(&self, token: &str) -> bool {
        self.revoked.contains_key(token)
    }

    fn insert(&mut self, record: Record) {
        self.records.entry(record.kind).or_default().insert(record.id.clone(), record);
    }

    fn apply(&mut self, change: &mut Change) {
        for record in change.put.drain(..) {
            self.insert(record);
        }
        for (kind, id) in &change.delete {
            self.records.get_mut(kind).and_then(|of_kind| of_kind.remove(id));
        }
        if !change.revoke.is_empty() {
            let now = Timestamp::now().as_second();
            self.revoked.retain(|_, until| *until > now);
            self.revoked.extend(change.revoke.drain(..));
        }
    }
}

impl Store {
    /// Opens the database in `folder`, or makes it. `of_file` is what the configuration file declares.
    pub fn open(folder: &Path, of_file: Vec<Record>) -> Result<Self, OpenError> {
        let tables = Tables::open(folder)?;
        let mut state = State { revoked: tables.revoked(Timestamp::now().as_second())?, ..State::default() };
        for record in tables.records()? {
            state.insert(record);
        }
        for record in of_file {
            if let Some(stored) = state.get(record.kind, &record.id) {
                return Err(OpenError::Twice(stored.kind.name(), stored.id.clone()));
            }
            state.insert(record);
        }
        let (state, tables) = (RwLock::new(state), Mutex::new(tables));
        Ok(Self { state, tables, version: watch::Sender::new(0) })
    }

    /// What there is now. It is not changed while the guard lives, so keep it short.
    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grows with every change of records.
    pub fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Makes a change that `decide` finds right, unless a call with the same key (subject, method, key) has made it
    /// already. Nothing else changes meanwhile. Blocks until it is on disk.
    pub fn change<T, E>(
        &self,
        key: Option<[String; 3]>,
        decide: impl FnOnce(&State) -> Result<(Change, T), E>,
    ) -> Result<T, ChangeError<E>> {
        let disk = |error: rusqlite::Error| ChangeError::Disk(error.to_string());
        let mut tables = self.tables();
        if let Some(key) = &key
            && let Some(operation) = tables.repeated(key).map_err(disk)?
        {
            return Err(ChangeError::Repeated(operation));
        }
        let (mut change, result) = decide(&self.state()).map_err(ChangeError::Refused)?;
        tables.write(&change, key.as_ref()).map_err(disk)?;
        let is_seen = !change.put.is_empty() || !change.delete.is_empty();
        self.state.write().unwrap_or_else(PoisonError::into_inner).apply(&mut change);
        if is_seen {
            self.version.send_modify(|version| *version += 1);
        }
        Ok(result)
    }

    /// The encoded operation with this id.
    pub fn operation(&self, id: &str) -> Result<Option<Vec<u8>>, String> {
        self.tables().operation(id).map_err(|error| error.to_string())
    }

    /// Encoded operations about a resource, the newest first, from before the id `before`.
    pub fn operations(&self, resource: &str, before: &str, most: usize) -> Result<Vec<Vec<u8>>, String> {
        self.tables().operations(resource, before, most).map_err(|error| error.to_string())
    }

    /// Lines of the audit log, the newest first, from before the number `before`; of one resource if it is named.
    pub fn audit(&self, resource: &str, before: i64, most: usize) -> Result<Vec<(i64, StoredAudit)>, String> {
        self.tables().audit(resource, before, most).map_err(|error| error.to_string())
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: Kind, id: &str, name: &str) -> Record {
        Record::new(kind, id.into(), "default".into(), name.to_owned(), vec![1, 2])
    }

    fn put(store: &Store, record: Record) {
        let change = Change { put: vec![record], ..Change::default() };
        store.change(None, |_| Ok::<_, ()>((change, ()))).unwrap();
    }

    #[test]
    fn what_was_put_is_there_after_it_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), vec![]).unwrap();
        let mut version = store.version();
        put(&store, record(Kind::Trigger, "a", "one"));
        assert!(version.has_changed().unwrap());
        version.mark_unchanged();
        put(&store, record(Kind::Trigger, "b", "two"));
        put(&store, record(Kind::Gateway, "a", "one"));
        let delete = Change { delete: vec![(Kind::Trigger, "a".into())], ..Change::default() };
        store.change(None, |_| Ok::<_, ()>((delete, ()))).unwrap();
        let revoke = Change { revoke: vec![("t".into(), i64::MAX)], ..Change::default() };
        store.change(None, |_| Ok::<_, ()>((revoke, ()))).unwrap();
        drop(store);
        let store = Store::open(folder.path(), vec![]).unwrap();
        let state = store.state();
        let ids = |kind| state.all(kind).map(|record| &*record.id).collect::<Vec<_>>();
        assert_eq!((ids(Kind::Trigger), ids(Kind::Gateway)), (vec!["b"], vec!["a"]));
        assert_eq!(state.named(Kind::Trigger, "default", "two").unwrap().body[..], [1, 2]);
        assert!(state.named(Kind::Trigger, "default", "one").is_none());
        assert!(state.is_revoked("t") && !state.is_revoked("u"));
    }

    #[test]
    fn a_refused_change_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), vec![]).unwrap();
        let refused = store.change(None, |_| Err::<(Change, ()), _>("no"));
        assert!(matches!(refused, Err(ChangeError::Refused("no"))));
        assert!(!store.version().has_changed().unwrap());
    }

    #[test]
    fn a_resource_of_the_file_may_not_have_the_id_of_a_stored_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), vec![]).unwrap();
        put(&store, record(Kind::Gateway, "main", "main"));
        drop(store);
        let error = Store::open(folder.path(), vec![record(Kind::Gateway, "main", "main")]).unwrap_err();
        assert!(error.to_string().contains("main"), "{error}");
    }

    #[test]
    fn operations_are_listed_newest_first_and_found_by_their_key() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), vec![]).unwrap();
        let key = |key: &str| ["me".to_owned(), "Create".to_owned(), key.to_owned()];
        for id in ["o1", "o2", "o3"] {
            let operation = Some((id.to_owned(), "t".into(), id.as_bytes().to_vec()));
            let change = Change { operation, ..Change::default() };
            store.change(Some(key(id)), |_| Ok::<_, ()>((change, ()))).unwrap();
        }
        assert_eq!(store.operation("o2").unwrap().unwrap(), b"o2");
        assert_eq!(store.operations("t", "", 2).unwrap(), [b"o3", b"o2"]);
        assert_eq!(store.operations("t", "o2", 2).unwrap(), [b"o1"]);
        let again = store.change(Some(key("o3")), |_| Ok::<_, ()>((Change::default(), ())));
        assert!(matches!(again, Err(ChangeError::Repeated(id)) if id == "o3"));
    }
}
