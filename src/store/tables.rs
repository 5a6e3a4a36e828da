//! The tables of the store.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Change;
use super::record::{Kind, Origin, Record};
use crate::database::{self, Form, Stamp};
use crate::model::id::Id;

/// "TCrs": triggercast, resources.
const APPLICATION: i64 = 0x5443_7273;
const FORM: Form = Form { application: APPLICATION, version: 1, upgrades: &[], tables: TABLES };
/// How long to wait for a lock that another process holds for a moment.
const BUSY: Duration = Duration::from_secs(5);
/// Operations and lines of the audit log that are kept, each; and keys of calls for so many seconds.
const MOST_LINES: i64 = 100_000;
const KEY_SECONDS: i64 = 24 * 3600;
/// One change in so many looks whether too much is kept.
const SWEEP_EVERY: u64 = 64;

const TABLES: &str = "
CREATE TABLE records (
  kind TEXT NOT NULL, id TEXT NOT NULL, folder TEXT NOT NULL, parent TEXT NOT NULL, name TEXT NOT NULL,
  body BLOB NOT NULL, secret TEXT NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID;
CREATE TABLE operations (id TEXT PRIMARY KEY, resource TEXT NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX operations_by_resource ON operations (resource, id);
CREATE TABLE audit (
  number INTEGER PRIMARY KEY, at INTEGER NOT NULL, subject TEXT NOT NULL, method TEXT NOT NULL,
  resource TEXT NOT NULL, request TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL);
CREATE INDEX audit_by_resource ON audit (resource, number);
CREATE TABLE keys (
  subject TEXT NOT NULL, method TEXT NOT NULL, key TEXT NOT NULL, operation TEXT NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY (subject, method, key)) WITHOUT ROWID;
CREATE TABLE revoked (token TEXT PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID;
";

/// Why the store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or a file in it cannot be used.
    #[error("{0}: {1}")]
    Io(PathBuf, std::io::Error),
    /// The database cannot be read.
    #[error("{0}")]
    Database(#[from] rusqlite::Error),
    /// The file is not ours, or of another version.
    #[error("{0} is not a database of resources, or of version {1}; this program has version {version}", version = FORM.version)]
    Foreign(PathBuf, i64),
    /// A resource was made by a call and stands in the configuration file too.
    #[error("the {0} '{1}' of the configuration file was also made by a call; rename or delete one of them")]
    Twice(&'static str, Id),
}

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAudit {
    /// Microseconds since 1970.
    pub at: i64,
    /// Who.
    pub subject: String,
    /// The full name of the call.
    pub method: String,
    /// What was changed.
    pub resource: Id,
    /// The id of the request.
    pub request: String,
    /// JSON of the resource before it, or nothing.
    pub before: String,
    /// JSON of the resource after it, or nothing.
    pub after: String,
}

/// The database, open for writing.
#[derive(Debug)]
pub(super) struct Tables {
    db: Connection,
    changes: u64,
}

impl Tables {
    pub(super) fn open(folder: &Path) -> Result<Self, OpenError> {
        database::create_private(folder).map_err(|error| OpenError::Io(folder.to_owned(), error))?;
        let file = folder.join("resources.db");
        // It holds hashes of passwords. SQLite gives its other files the same rights.
        database::create_private_file(&file).map_err(|error| OpenError::Io(file.clone(), error))?;
        let db = Connection::open(&file)?;
        db.busy_timeout(BUSY)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        match FORM.prepare(&db)? {
            Stamp::Ours => Ok(Self { db, changes: 0 }),
            Stamp::Foreign(version) => Err(OpenError::Foreign(file, version)),
        }
    }

    pub(super) fn records(&self) -> rusqlite::Result<Vec<Record>> {
        let mut query =
            self.db.prepare("SELECT kind, id, folder, parent, name, body, secret FROM records")?;
        let record = |row: &Row<'_>| -> rusqlite::Result<Option<Record>> {
            let text = |column| row.get::<_, String>(column).map(Id::from);
            let Some(kind) = Kind::of_name(&row.get::<_, String>(0)?) else { return Ok(None) };
            let (id, folder, parent) = (text(1)?, text(2)?, text(3)?);
            let (name, body, secret) = (row.get(4)?, row.get::<_, Vec<u8>>(5)?.into(), row.get(6)?);
            Ok(Some(Record { kind, id, folder, parent, name, body, secret, origin: Origin::Store }))
        };
        query.query_map([], record)?.filter_map(Result::transpose).collect()
    }

    pub(super) fn revoked(&self, now: i64) -> rusqlite::Result<HashMap<String, i64>> {
        let mut query = self.db.prepare("SELECT token, until FROM revoked WHERE until > ?")?;
        query.query_map([now], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    }

    pub(super) fn write(&mut self, change: &Change, key: Option<&[String; 3]>) -> rusqlite::Result<()> {
        self.changes += 1;
        let sweeps = self.changes % SWEEP_EVERY == 1;
        let now = Timestamp::now().as_second();
        let tx = self.db.transaction()?;
        for record in &change.put {
            let Record { kind, id, folder, parent, name, body, secret, .. } = record;
            tx.prepare_cached("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?, ?)")?
                .execute(params![kind.name(), &**id, &**folder, &**parent, name, body, secret])?;
        }
        for (kind, id) in &change.delete {
            tx.prepare_cached("DELETE FROM records WHERE kind = ? AND id = ?")?
                .execute(params![kind.name(), &**id])?;
        }
        for (token, until) in &change.revoke {
            tx.execute("INSERT OR REPLACE INTO revoked VALUES (?, ?)", params![token, until])?;
        }
        if let Some((id, resource, body)) = &change.operation {
            tx.prepare_cached("INSERT INTO operations VALUES (?, ?, ?)")?.execute(params![
                id,
                &**resource,
                body
            ])?;
            if let Some([subject, method, key]) = key {
                tx.prepare_cached("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?)")?
                    .execute(params![subject, method, key, id, now])?;
            }
        }
        if let Some(audit) = &change.audit {
            let StoredAudit { at, subject, method, resource, request, before, after } = audit;
            tx.prepare_cached(
                "INSERT INTO audit (at, subject, method, resource, request, before, after) VALUES (?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![at, subject, method, &**resource, request, before, after])?;
        }
        if sweeps {
            tx.execute("DELETE FROM revoked WHERE until <= ?", [now])?;
            tx.execute("DELETE FROM keys WHERE at < ?", [now - KEY_SECONDS])?;
            tx.execute(
                "DELETE FROM audit WHERE number <= (SELECT max(number) FROM audit) - ?",
                [MOST_LINES],
            )?;
            tx.execute(
                "DELETE FROM operations WHERE id < (SELECT id FROM operations ORDER BY id DESC LIMIT 1 OFFSET ?)",
                [MOST_LINES],
            )?;
        }
        tx.commit()
    }

    pub(super) fn operation(&self, id: &str) -> rusqlite::Result<Option<Vec<u8>>> {
        let mut query = self.db.prepare_cached("SELECT body FROM operations WHERE id = ?")?;
        query.query_row([id], |row| row.get(0)).optional()
    }

    pub(super) fn operations(
        &self,
        resource: &str,
        before: &str,
        most: usize,
    ) -> rusqlite::Result<Vec<Vec<u8>>> {
        let mut query = self.db.prepare_cached(
            "SELECT body FROM operations WHERE resource = ?1 AND (?2 = '' OR id < ?2) ORDER BY id DESC LIMIT ?3",
        )?;
        query.query_map(params![resource, before, most as i64], |row| row.get(0))?.collect()
    }

    pub(super) fn repeated(&self, [subject, method, key]: &[String; 3]) -> rusqlite::Result<Option<String>> {
        let since = Timestamp::now().as_second() - KEY_SECONDS;
        let mut query = self.db.prepare_cached(
            "SELECT operation FROM keys WHERE subject = ? AND method = ? AND key = ? AND at >= ?",
        )?;
        query.query_row(params![subject, method, key, since], |row| row.get(0)).optional()
    }

    pub(super) fn audit(
        &self,
        resource: &str,
        before: i64,
        most: usize,
    ) -> rusqlite::Result<Vec<(i64, StoredAudit)>> {
        let mut query = self.db.prepare_cached(
            "SELECT number, at, subject, method, resource, request, before, after FROM audit
             WHERE (?1 = '' OR resource = ?1) AND number < ?2 ORDER BY number DESC LIMIT ?3",
        )?;
        let line = |row: &Row<'_>| {
            let audit = StoredAudit {
                at: row.get(1)?,
                subject: row.get(2)?,
                method: row.get(3)?,
                resource: Id::from(row.get::<_, String>(4)?),
                request: row.get(5)?,
                before: row.get(6)?,
                after: row.get(7)?,
            };
            Ok((row.get(0)?, audit))
        };
        query.query_map(params![resource, before, most as i64], line)?.collect()
    }
}
