//! The files of the journal: the database with its tables, the lock, and the reserve for a full disk.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::database::{Form, Stamp, create_private, create_private_file};

/// The database in the journal's folder; SQLite keeps its log beside it.
const DATABASE: &str = "journal.db";
/// That log.
const LOG: &str = "journal.db-wal";
/// Held by the process that writes.
const LOCK: &str = "journal.lock";
/// Room that is given free when the disk is full.
const RESERVE: &str = "journal.reserve";
/// Its size: enough for the boundaries of what is durable, and for retention to make room.
const RESERVE_BYTES: usize = 8 * 1024 * 1024;

/// Bytes that opening every database may take.
const LEAST_ROOM: u64 = 1024 * 1024;

/// The form of the tables. A journal with an older one is brought to it, one with a newer one is refused.
const VERSION: i64 = 2;
/// Says "this is a journal of ours": "Trig" in ASCII.
const APPLICATION: i64 = 0x5472_6967;
const FORM: Form = Form { application: APPLICATION, version: VERSION, upgrades: UPGRADES, tables: TABLES };

/// How long to wait for a lock that another process holds.
const BUSY: Duration = Duration::from_secs(5);

const UPGRADES: &[&str] = &["ALTER TABLE actions ADD COLUMN passed INTEGER NOT NULL DEFAULT 0;"];

const TABLES: &str = "
CREATE TABLE sources (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    disorder INTEGER NOT NULL DEFAULT 0  -- how far an id stood below a higher one that came before it
) STRICT;
CREATE TABLE paths (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    floor INTEGER NOT NULL DEFAULT 0     -- the position after the last one that was deleted
) STRICT;
CREATE TABLE actions (
    id INTEGER PRIMARY KEY,
    trigger TEXT NOT NULL,
    number INTEGER NOT NULL,             -- of the trigger's actions
    source INTEGER NOT NULL REFERENCES sources,
    path INTEGER NOT NULL REFERENCES paths,
    floor INTEGER NOT NULL,              -- the offset it began with, or after its last run that was deleted
    retired INTEGER NOT NULL DEFAULT 0,  -- whether its trigger is no more; one of the same name is another one
    passed INTEGER NOT NULL DEFAULT 0    -- the offset after the last event that it will never batch
) STRICT;
CREATE UNIQUE INDEX actions_by_name ON actions (trigger, number, source, path) WHERE NOT retired;
CREATE TABLE events (
    key INTEGER PRIMARY KEY,             -- source << 47 | offset of the first event
    count INTEGER NOT NULL,
    high INTEGER NOT NULL,               -- what the highest id so far sorts by
    repeats BLOB NOT NULL,               -- how senders name these events when they repeat them
    data BLOB NOT NULL                   -- lines of JSON
) STRICT;
CREATE TABLE runs (
    key INTEGER PRIMARY KEY,             -- path << 47 | position of the first event
    action INTEGER NOT NULL REFERENCES actions,
    first INTEGER NOT NULL,              -- offset of the first event
    events INTEGER NOT NULL,
    bytes INTEGER NOT NULL,              -- of the events' JSON
    at INTEGER NOT NULL,                 -- milliseconds since 1970
    counts BLOB NOT NULL                 -- events of each batch
) STRICT;
CREATE INDEX runs_by_action ON runs (action, first);
";

/// Why a journal does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process writes to it.
    #[error("{0} is in use by another process")]
    Locked(PathBuf),
    /// It was not made by this program, or by another version of it.
    #[error("{0} is not a journal of this version of the program (form {1}, expected {VERSION})")]
    Foreign(PathBuf, i64),
    /// There is none.
    #[error("{0} does not exist")]
    Missing(PathBuf),
    /// A file cannot be made or read.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    /// The database is damaged or cannot be read.
    #[error("{0}: {1}")]
    Database(PathBuf, rusqlite::Error),
}

/// The folder of a journal that this process writes to.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    _lock: File,
}

impl Files {
    /// Makes the folder if need be, and locks it for this process.
    pub(super) fn lock(folder: &Path) -> Result<Self, OpenError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |error| OpenError::Io(path, error)
        };
        create_private(folder).map_err(io(folder))?;
        let path = folder.join(LOCK);
        let lock = File::create(&path).map_err(io(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(folder.to_owned())),
            Err(TryLockError::Error(error)) => return Err(OpenError::Io(path, error)),
        }
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    /// Opens the database for writing; makes its tables if it is new.
    pub(super) fn writer(&self) -> Result<Connection, OpenError> {
        let path = self.folder.join(DATABASE);
        // The folder may have been there before, with other rights. SQLite's log gets those of the database.
        create_private_file(&path).map_err(|error| OpenError::Io(path.clone(), error))?;
        let open = || -> rusqlite::Result<(Connection, Stamp)> {
            let db = Connection::open(&path)?;
            // Who looks into the journal may hold a lock for a moment, as after a crash.
            db.busy_timeout(BUSY)?;
            db.pragma_update(None, "page_size", 16384)?;
            db.pragma_update(None, "journal_mode", "wal")?;
            // Every commit is on disk before it is reported.
            db.pragma_update(None, "synchronous", "full")?;
            // 16 MiB of log before it is moved into the tables.
            db.pragma_update(None, "wal_autocheckpoint", 1024)?;
            db.pragma_update(None, "cache_size", -8192)?;
            db.set_prepared_statement_cache_capacity(32);
            let stamp = FORM.prepare(&db)?;
            Ok((db, stamp))
        };
        expect_ours(path.clone(), open())
    }

    /// Opens the database for reading.
    pub(super) fn reader(&self) -> Result<Connection, OpenError> {
        open_read_only(&self.folder)
    }

    /// Sets room aside for a full disk, if there is none set aside yet, and as long as some is left besides.
    pub(super) fn set_reserve(&self) -> io::Result<()> {
        let path = self.folder.join(RESERVE);
        if fs::metadata(&path).is_ok_and(|file| file.len() >= RESERVE_BYTES as u64) {
            return Ok(());
        }
        let write = || {
            let mut file = File::create(&path)?;
            // Written, not only declared, so that the room is really taken.
            let part = vec![0; 1024 * 1024];
            for _ in 0..=RESERVE_BYTES / part.len() {
                file.write_all(&part)?;
            }
            file.set_len(RESERVE_BYTES as u64)?;
            file.sync_all()
        };
        write().inspect_err(|_| drop(fs::remove_file(&path)))
    }

    /// How long SQLite's log is.
    pub(super) fn log_bytes(&self) -> u64 {
        fs::metadata(self.folder.join(LOG)).map_or(0, |log| log.len())
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        let size = |name| fs::metadata(self.folder.join(name)).map_or(0, |file| file.len());
        [DATABASE, LOG, RESERVE].into_iter().map(size).sum()
    }

    /// Bytes that may still be written where they are.
    pub(super) fn room(&self) -> Option<u64> {
        let found = nix::sys::statvfs::statvfs(&self.folder).ok()?;
        Some(found.blocks_available().saturating_mul(found.fragment_size()))
    }

    /// Gives the reserve free if nothing else is left, so that what opens next has room to begin with.
    pub(super) fn make_room(&self) {
        if self.room().is_some_and(|room| room < LEAST_ROOM) && self.free_reserve() {
            tracing::warn!(folder = %self.folder.display(), "the disk is full; the room set aside for that is used");
        }
    }

    /// Gives the reserve free. Says whether there was one.
    pub(super) fn free_reserve(&self) -> bool {
        fs::remove_file(self.folder.join(RESERVE)).is_ok()
    }
}

/// Opens the database of a journal for reading, also while another process writes to it.
pub(super) fn open_read_only(folder: &Path) -> Result<Connection, OpenError> {
    let path = folder.join(DATABASE);
    if !path.exists() {
        return Err(OpenError::Missing(path));
    }
    let open = || -> rusqlite::Result<(Connection, Stamp)> {
        // Reading a log that nobody has open needs its index beside it, which SQLite makes.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&path, flags)
            .or_else(|_| Connection::open_with_flags(&path, read_only))?;
        db.busy_timeout(BUSY)?;
        db.pragma_update(None, "query_only", true)?;
        let stamp = FORM.check(&db)?;
        Ok((db, stamp))
    };
    expect_ours(path.clone(), open())
}

fn expect_ours(
    path: PathBuf,
    opened: rusqlite::Result<(Connection, Stamp)>,
) -> Result<Connection, OpenError> {
    match opened {
        Ok((db, Stamp::Ours)) => Ok(db),
        Ok((_, Stamp::Foreign(version))) => Err(OpenError::Foreign(path, version)),
        Err(error) => Err(OpenError::Database(path, error)),
    }
}
