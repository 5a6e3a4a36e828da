//! Where the paths, sources and actions of a journal stand.

use std::ops::Range;
use std::time::SystemTime;

use rusqlite::{Connection, Row};

use super::rows;
use crate::journal::Position;

/// A path as the journal has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathFacts {
    /// Its number in the journal.
    pub id: i64,
    /// As in a URL: `/{gateway_id}{path}`.
    pub name: String,
    /// The lowest position that is kept.
    pub oldest: Position,
    /// The position of the next event.
    pub next: Position,
    /// Bytes of JSON that are kept.
    pub bytes: u64,
    /// When the oldest and the newest that is kept were broadcast.
    pub times: Option<(SystemTime, SystemTime)>,
}

/// A source as the journal has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceFacts {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) next: u64,
    pub(super) high: u64,
    pub(super) disorder: u64,
}

/// An action as the journal has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ActionFacts {
    pub(super) id: i64,
    pub(super) trigger: String,
    pub(super) number: i64,
    pub(super) source: i64,
    pub(super) path: i64,
    /// The offset of the first event of its oldest run.
    pub(super) oldest: Option<u64>,
    /// The offset of the first event that it has not batched.
    pub(super) cursor: u64,
    /// Its trigger is no more.
    pub(super) retired: bool,
}

impl ActionFacts {
    /// The actions of a source, or all.
    pub(super) fn all(db: &Connection, source: Option<i64>) -> rusqlite::Result<Vec<Self>> {
        let mut query = db.prepare_cached(
            "SELECT a.id, a.trigger, a.number, a.source, a.path, a.floor, a.retired,
               (SELECT min(r.first) FROM runs r WHERE r.action = a.id),
               (SELECT r.first + r.events FROM runs r WHERE r.action = a.id ORDER BY r.first DESC LIMIT 1)
             FROM actions a WHERE ?1 IS NULL OR a.source = ?1 ORDER BY a.id",
        )?;
        let row = |row: &Row<'_>| {
            Ok(Self {
                id: row.get(0)?,
                trigger: row.get(1)?,
                number: row.get(2)?,
                source: row.get(3)?,
                path: row.get(4)?,
                oldest: row.get::<_, Option<i64>>(7)?.map(rows::number),
                cursor: rows::number(row.get::<_, Option<i64>>(8)?.map_or_else(|| row.get(5), Ok)?),
                retired: row.get(6)?,
            })
        };
        query.query_map([source], row)?.collect()
    }

    /// The stretch of its source that it needs: what its runs hold and, unless it is retired, what comes after.
    pub(super) fn needs(&self) -> Range<u64> {
        let end = if self.retired { self.cursor } else { u64::MAX };
        self.oldest.unwrap_or(self.cursor)..end
    }
}
