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
    /// From the first event of its oldest run to after the last of its newest.
    pub(super) runs: Option<Range<u64>>,
    /// The offset of the first event that it has neither batched nor let pass.
    pub(super) cursor: u64,
    /// Its trigger is no more.
    pub(super) retired: bool,
}

impl ActionFacts {
    /// The actions of a source, or all.
    pub(super) fn all(db: &Connection, source: Option<i64>) -> rusqlite::Result<Vec<Self>> {
        let mut query = db.prepare_cached(
            "SELECT a.id, a.trigger, a.number, a.source, a.path, max(a.floor, a.passed), a.retired,
               (SELECT min(r.first) FROM runs r WHERE r.action = a.id),
               (SELECT r.first + r.events FROM runs r WHERE r.action = a.id ORDER BY r.first DESC LIMIT 1)
             FROM actions a WHERE ?1 IS NULL OR a.source = ?1 ORDER BY a.id",
        )?;
        let row = |row: &Row<'_>| {
            let oldest = row.get::<_, Option<i64>>(7)?.map(rows::number);
            let end = row.get::<_, Option<i64>>(8)?.map(rows::number);
            Ok(Self {
                id: row.get(0)?,
                trigger: row.get(1)?,
                number: row.get(2)?,
                source: row.get(3)?,
                path: row.get(4)?,
                runs: oldest.zip(end).map(|(oldest, end)| oldest..end),
                cursor: rows::number(row.get(5)?).max(end.unwrap_or(0)),
                retired: row.get(6)?,
            })
        };
        query.query_map([source], row)?.collect()
    }

    /// The actions with these ids.
    pub(super) fn all_of<'a>(
        db: &Connection,
        ids: impl Iterator<Item = &'a i64>,
    ) -> rusqlite::Result<Vec<Self>> {
        let ids: Vec<i64> = ids.copied().collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut all = Self::all(db, None)?;
        all.retain(|action| ids.contains(&action.id));
        Ok(all)
    }

    /// The stretches of its source that it needs: that of its runs and, unless it is retired, what comes.
    pub(super) fn needs(&self) -> impl Iterator<Item = Range<u64>> {
        self.runs.clone().into_iter().chain(self.needs_to_come())
    }

    /// What of its source it will batch; nothing if it is retired.
    pub(super) fn needs_to_come(&self) -> Option<Range<u64>> {
        (!self.retired).then_some(self.cursor..u64::MAX)
    }
}
