//! The database of the container registries: its tables, and rows of a repository as a [`Repository`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::container_registry::repository::{Image, Repository, Tag};
use crate::database::{Form, Stamp, create_private, create_private_file};
use crate::model::event::Event;
use crate::model::event_id;

/// The database in the data folder.
const DATABASE: &str = "registries.db";
/// The form of the tables. A database with another one is refused, not changed.
const VERSION: i64 = 1;
/// Says "these are registries of ours": "TrgR" in ASCII.
const APPLICATION: i64 = 0x5472_6752;
const FORM: Form = Form { application: APPLICATION, version: VERSION, upgrades: &[], tables: TABLES };
/// How long to wait for a lock that another process holds for a moment.
const BUSY: Duration = Duration::from_secs(5);

const TABLES: &str = "
CREATE TABLE registries (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    is_known INTEGER NOT NULL DEFAULT 0, -- whether it has named its repositories once
    newest INTEGER NOT NULL DEFAULT 0    -- the number of its newest event
) STRICT;
CREATE TABLE repositories (
    id INTEGER PRIMARY KEY,
    registry INTEGER NOT NULL REFERENCES registries,
    name TEXT NOT NULL,
    silent INTEGER NOT NULL,             -- how many more readings tell nothing of what they find
    UNIQUE (registry, name)
) STRICT;
CREATE TABLE images (
    repository INTEGER NOT NULL REFERENCES repositories,
    digest TEXT NOT NULL,
    is_told INTEGER NOT NULL,
    as_of INTEGER NOT NULL,              -- microseconds since 1970, by the registry's clock
    PRIMARY KEY (repository, digest)
) STRICT, WITHOUT ROWID;
CREATE TABLE tags (
    repository INTEGER NOT NULL REFERENCES repositories,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    as_of INTEGER NOT NULL,
    PRIMARY KEY (repository, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE seen (                      -- ids of the notifications that were taken
    number INTEGER PRIMARY KEY,
    registry INTEGER NOT NULL REFERENCES registries,
    id TEXT NOT NULL,
    UNIQUE (registry, id)
) STRICT;
CREATE TABLE outbox (                    -- events that some trigger has not taken yet
    key INTEGER PRIMARY KEY,             -- registry << 47 | number
    event_type INTEGER NOT NULL,
    repository TEXT NOT NULL,
    tags TEXT NOT NULL,                  -- the tags that it is about, one a line
    data BLOB NOT NULL                   -- JSON
) STRICT;
CREATE TABLE cursors (                   -- up to which number sources have taken events
    registry INTEGER NOT NULL REFERENCES registries,
    source TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (registry, source)
) STRICT, WITHOUT ROWID;
";

/// Why the database does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file cannot be made or read.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    /// It was not made by this program, or by another version of it.
    #[error("{0} is not an index of this version of the program (form {1}, expected {VERSION})")]
    Foreign(PathBuf, i64),
    /// It is damaged, cannot be read, or another process has it.
    #[error("{0}: {1}")]
    Database(PathBuf, rusqlite::Error),
}

/// Opens the database for this process alone.
pub(super) fn open(folder: &Path) -> Result<Connection, OpenError> {
    let path = folder.join(DATABASE);
    create_private(folder).map_err(|error| OpenError::Io(folder.to_owned(), error))?;
    create_private_file(&path).map_err(|error| OpenError::Io(path.clone(), error))?;
    let open = || -> rusqlite::Result<(Connection, Stamp)> {
        let db = Connection::open(&path)?;
        db.busy_timeout(BUSY)?;
        // Two processes would each tell what the other has told.
        db.pragma_update(None, "locking_mode", "exclusive")?;
        db.pragma_update(None, "journal_mode", "wal")?;
        // A notification is answered when it is on disk.
        db.pragma_update(None, "synchronous", "full")?;
        // 16 MiB of log before it is moved into the tables.
        db.pragma_update(None, "wal_autocheckpoint", 4096)?;
        db.pragma_update(None, "cache_size", -8192)?;
        db.set_prepared_statement_cache_capacity(32);
        let stamp = FORM.prepare(&db)?;
        Ok((db, stamp))
    };
    let database = |error| OpenError::Database(path.clone(), error);
    let (db, stamp) = open().map_err(database)?;
    if let Stamp::Foreign(version) = stamp {
        return Err(OpenError::Foreign(path, version));
    }
    let newest = || -> rusqlite::Result<()> {
        let mut registries = db.prepare("SELECT id FROM registries")?;
        for registry in registries.query_map([], |row| row.get(0))? {
            let (first, end) = outbox(registry?);
            let sql = "SELECT data FROM outbox WHERE key >= ? AND key < ? ORDER BY key DESC LIMIT 1";
            let json = db.query_row(sql, [first, end], |row| row.get::<_, Vec<u8>>(0)).optional()?;
            if let Some(event) = json.and_then(|json| Event::from_json(json.into())) {
                event_id::start_after(event_id::order(event.id));
            }
        }
        Ok(())
    };
    newest().map_err(database)?;
    Ok(db)
}

/// Bits of a key of the outbox that are the event's number.
const NUMBER_BITS: u32 = 47;

/// The keys of a registry's events: from the first, to the end.
pub(super) fn outbox(registry: i64) -> (i64, i64) {
    (registry << NUMBER_BITS, (registry + 1) << NUMBER_BITS)
}

/// The number of a registry; it gets one if it has none.
pub(super) fn registry(db: &Connection, name: &str) -> rusqlite::Result<i64> {
    db.execute("INSERT OR IGNORE INTO registries (name) VALUES (?)", [name])?;
    db.query_row("SELECT id FROM registries WHERE name = ?", [name], |row| row.get(0))
}

/// The number of a repository, and how many more readings tell nothing of what they find.
pub(super) fn repository(db: &Connection, registry: i64, name: &str) -> rusqlite::Result<Option<(i64, u8)>> {
    db.prepare_cached("SELECT id, silent FROM repositories WHERE registry = ? AND name = ?")?
        .query_row(params![registry, name], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

/// Reads rows of a repository into `part`: a tag, with its image.
pub(super) fn load_tag(
    db: &Connection,
    repository: i64,
    name: &str,
    part: &mut Repository,
) -> rusqlite::Result<()> {
    let mut query = db.prepare_cached("SELECT digest, as_of FROM tags WHERE repository = ? AND name = ?")?;
    let tag = |row: &rusqlite::Row<'_>| Ok(Tag { digest: row.get(0)?, as_of: row.get(1)? });
    if let Some(tag) = query.query_row(params![repository, name], tag).optional()? {
        load_image(db, repository, &tag.digest, part)?;
        part.tags.insert(name.to_owned(), tag);
    }
    Ok(())
}

/// The same: an image.
pub(super) fn load_image(
    db: &Connection,
    repository: i64,
    digest: &str,
    part: &mut Repository,
) -> rusqlite::Result<()> {
    let mut query =
        db.prepare_cached("SELECT is_told, as_of FROM images WHERE repository = ? AND digest = ?")?;
    let image = |row: &rusqlite::Row<'_>| Ok(Image { is_told: row.get(0)?, as_of: row.get(1)? });
    if let Some(image) = query.query_row(params![repository, digest], image).optional()? {
        part.images.insert(digest.to_owned(), image);
    }
    Ok(())
}

/// The same: the tags of an image.
pub(super) fn load_tags_of(
    db: &Connection,
    repository: i64,
    digest: &str,
    part: &mut Repository,
) -> rusqlite::Result<()> {
    let mut query = db.prepare_cached("SELECT name, as_of FROM tags WHERE repository = ? AND digest = ?")?;
    let tag =
        |row: &rusqlite::Row<'_>| Ok((row.get(0)?, Tag { digest: digest.to_owned(), as_of: row.get(1)? }));
    for tag in query.query_map(params![repository, digest], tag)? {
        let (name, tag) = tag?;
        part.tags.insert(name, tag);
    }
    Ok(())
}

/// All of a repository.
pub(super) fn load_all(db: &Connection, repository: i64) -> rusqlite::Result<Repository> {
    let mut tags = db.prepare_cached("SELECT name, digest, as_of FROM tags WHERE repository = ?")?;
    let tags = tags
        .query_map([repository], |row| Ok((row.get(0)?, Tag { digest: row.get(1)?, as_of: row.get(2)? })))?
        .collect::<rusqlite::Result<BTreeMap<_, _>>>()?;
    let mut images = db.prepare_cached("SELECT digest, is_told, as_of FROM images WHERE repository = ?")?;
    let images = images
        .query_map([repository], |row| Ok((row.get(0)?, Image { is_told: row.get(1)?, as_of: row.get(2)? })))?
        .collect::<rusqlite::Result<BTreeMap<_, _>>>()?;
    Ok(Repository { tags, images })
}

/// Every image of a registry: its repository, its digest and its tags.
pub(crate) fn load_images(db: &Connection, registry: &str) -> rusqlite::Result<Vec<KnownImage>> {
    let mut images = db.prepare_cached(
        "SELECT p.name, i.digest, (SELECT group_concat(t.name, char(10)) FROM tags t
             WHERE t.repository = p.id AND t.digest = i.digest)
         FROM images i JOIN repositories p ON p.id = i.repository JOIN registries r ON r.id = p.registry
         WHERE r.name = ? AND i.is_told ORDER BY p.name, i.digest",
    )?;
    let image = |row: &rusqlite::Row<'_>| {
        let tags: Option<String> = row.get(2)?;
        let tags = tags.iter().flat_map(|tags| tags.lines()).map(str::to_owned).collect();
        Ok((row.get(0)?, row.get(1)?, tags))
    };
    images.query_map([registry], image)?.collect()
}

/// A repository, a digest, and the tags of the image.
pub(crate) type KnownImage = (String, String, Vec<String>);

/// Writes what has become of `before`, the rows that were read.
pub(super) fn save(
    db: &Connection,
    repository: i64,
    before: &Repository,
    after: &Repository,
) -> rusqlite::Result<()> {
    let mut put = db.prepare_cached("INSERT OR REPLACE INTO tags VALUES (?, ?, ?, ?)")?;
    for (name, tag) in after.tags.iter().filter(|(name, tag)| before.tags.get(*name) != Some(tag)) {
        put.execute(params![repository, name, tag.digest, tag.as_of])?;
    }
    let mut delete = db.prepare_cached("DELETE FROM tags WHERE repository = ? AND name = ?")?;
    for name in before.tags.keys().filter(|name| !after.tags.contains_key(*name)) {
        delete.execute(params![repository, name])?;
    }
    let mut put = db.prepare_cached("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?)")?;
    for (digest, image) in after.images.iter().filter(|(name, image)| before.images.get(*name) != Some(image))
    {
        put.execute(params![repository, digest, image.is_told, image.as_of])?;
    }
    let mut delete = db.prepare_cached("DELETE FROM images WHERE repository = ? AND digest = ?")?;
    for digest in before.images.keys().filter(|digest| !after.images.contains_key(*digest)) {
        delete.execute(params![repository, digest])?;
    }
    Ok(())
}
