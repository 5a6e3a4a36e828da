//! Reads a journal on disk: where an event stands on a path, and what follows it. Also used by the commands that
//! look into a journal, of a running server too.
//!
//! What belongs together is read in one transaction, or retention could delete between two looks. Numbers that a
//! damaged row holds are never trusted: they end in an error, not in a loop or a panic.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::facts::{ActionFacts, PathFacts, SourceFacts};
use super::file::{self, Files, OpenError};
use super::rows;
use crate::journal::reading::Reading;
use crate::journal::{Found, Position, ReadError, ReadLimit, Start, Stored};
use crate::model::event::{Event, EventId};
use crate::model::event_id;
use crate::model::repeat::Repeats;

/// A connection to a journal that only reads.
#[derive(Debug)]
pub struct Reader {
    pub(super) db: Connection,
}

/// A row of `runs`.
#[derive(Debug)]
struct RunRow {
    key: i64,
    source: i64,
    first: u64,
    events: u64,
    counts: Vec<u64>,
    at: i64,
}

/// A row of `events`.
#[derive(Debug)]
pub(super) struct EventsRow {
    first: u64,
    count: u64,
    pub(super) data: Bytes,
}

impl RunRow {
    const SELECT: &str = "SELECT r.key, a.source, r.first, r.events, r.counts, r.at FROM runs r JOIN actions a ON a.id = r.action";

    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let counts = rows::counts(row.get_ref(4)?.as_blob()?);
        Ok(Self {
            key: row.get(0)?,
            source: row.get(1)?,
            first: rows::number(row.get(2)?),
            events: rows::number(row.get(3)?),
            counts,
            at: row.get(5)?,
        })
    }

    /// An error if its numbers cannot be right.
    fn sound(self) -> Result<Self, ReadError> {
        let sum = self.counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count));
        match sum == self.events {
            true => Ok(self),
            false => Err(ReadError::Failed(format!("the run at position {} is damaged", self.position()))),
        }
    }

    fn position(&self) -> Position {
        rows::place(self.key)
    }
}

pub(super) fn millis(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as i64
}

fn time(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis.max(0) as u64)
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Reader {
    /// Opens the journal in this folder, and changes nothing in it.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let db = file::open_read_only(folder)?;
        // Whoever closes a database last moves its log into it. That is left to the server.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .map_err(|error| OpenError::Database(folder.to_owned(), error))?;
        Ok(Self { db })
    }

    pub(super) fn of(files: &Files) -> Result<Self, OpenError> {
        Ok(Self { db: files.reader()? })
    }

    /// Until this is dropped, everything is read as it is at the first look.
    pub(super) fn snapshot(&self) -> rusqlite::Result<Option<Transaction<'_>>> {
        // There is one already when one read needs another.
        self.db.is_autocommit().then(|| self.db.unchecked_transaction()).transpose()
    }

    /// Every path that the journal knows, by name.
    pub fn paths(&self) -> Result<Vec<PathFacts>, ReadError> {
        let _snapshot = self.snapshot()?;
        let mut paths = self.db.prepare_cached("SELECT id, name FROM paths ORDER BY name")?;
        let known: Vec<(i64, String)> =
            paths.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        known.into_iter().map(|(id, name)| self.path_facts(id, name)).collect()
    }

    /// The path with this name.
    pub(super) fn path(&self, name: &str) -> Result<Option<PathFacts>, ReadError> {
        let mut query = self.db.prepare_cached("SELECT id FROM paths WHERE name = ?")?;
        let id: Option<i64> = query.query_row([name], |row| row.get(0)).optional()?;
        id.map(|id| self.path_facts(id, name.to_owned())).transpose()
    }

    fn path_facts(&self, id: i64, name: String) -> Result<PathFacts, ReadError> {
        let Edges { oldest, next, times } = self.edges(id)?;
        let keys = rows::keys(id);
        let bytes: i64 = self
            .db
            .prepare_cached("SELECT coalesce(sum(bytes), 0) FROM runs WHERE key BETWEEN ? AND ?")?
            .query_row(params![keys.start(), keys.end()], |row| row.get(0))?;
        let times = times.map(|(oldest, newest)| (time(oldest), time(newest)));
        Ok(PathFacts { id, name, oldest, next, bytes: rows::number(bytes), times })
    }

    /// Every source that the journal knows.
    pub(super) fn sources(&self) -> Result<Vec<SourceFacts>, ReadError> {
        let mut sources = self.db.prepare("SELECT id, name, disorder FROM sources ORDER BY id")?;
        let known: Vec<(i64, String, i64)> = sources
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<Result<_, _>>()?;
        let facts = |(id, name, disorder): (i64, String, i64)| {
            let newest = self.events_before(id, rows::MAX_PLACE)?;
            // The newest row always stays.
            let (next, high) = newest.map_or((0, 0), |(key, count, high)| (rows::place(key) + count, high));
            Ok(SourceFacts { id, name, next, high, disorder: disorder as u64 })
        };
        known.into_iter().map(facts).collect()
    }

    /// What the highest id of a source sorts by; 0 if it has no events.
    pub(super) fn highest(&self, source: i64) -> Result<u64, ReadError> {
        Ok(self.events_before(source, rows::MAX_PLACE)?.map_or(0, |(_, _, high)| high))
    }

    /// Every action that the journal knows.
    pub(super) fn actions(&self) -> Result<Vec<ActionFacts>, ReadError> {
        Ok(ActionFacts::all(&self.db, None)?)
    }

    /// Calls `take` with how senders named their publishes, and for which source, the newest row first.
    pub(super) fn repeats(&self, mut take: impl FnMut(i64, Repeats)) -> Result<(), ReadError> {
        let sql = "SELECT key, repeats FROM events WHERE length(repeats) > 0 ORDER BY high DESC, key DESC";
        let mut query = self.db.prepare(sql)?;
        let mut found = query.query([])?;
        while let Some(row) = found.next()? {
            let source = rows::owner(row.get(0)?);
            let repeats = rows::repeats(row.get_ref(1)?.as_blob().unwrap_or_default());
            repeats.into_iter().rev().for_each(|repeats| take(source, repeats));
        }
        Ok(())
    }

    /// Where a start is on the path with this number.
    pub fn find(&self, path: i64, start: Start) -> Result<Found, ReadError> {
        let _snapshot = self.snapshot()?;
        let facts = self.edges(path)?;
        let lacks = |time: SystemTime| {
            facts.oldest > 0 && facts.times.is_none_or(|(oldest, _)| millis(time) < oldest)
        };
        let (position, gap) = match start {
            Start::Last(count) => (facts.next.saturating_sub(count).max(facts.oldest), false),
            Start::Since(time) => (self.since(path, millis(time), &facts)?, lacks(time)),
            Start::After(id) => match (self.position_of(path, id)?, event_id::time(id)) {
                (Some(position), _) => (position + 1, false),
                (None, Some(time)) => (self.since(path, millis(time), &facts)?, lacks(time)),
                (None, None) => (facts.oldest, true),
            },
        };
        let oldest = match gap {
            true => self.read(path, facts.oldest, ReadLimit { bytes: 1, grid: 1 })?,
            false => Vec::new(),
        };
        let oldest = oldest.first().and_then(|batch| batch.events.first()).map(|event| event.id);
        Ok(Found { position, gap, oldest })
    }

    /// Committed batches from `from` on, up to what cannot be read; an error if that is the first.
    pub fn read(&self, path: i64, from: Position, limit: ReadLimit) -> Result<Vec<Stored>, ReadError> {
        let _snapshot = self.snapshot()?;
        let mut reading = Reading::new(from, limit);
        let keys = rows::keys(path);
        let Some(first) = self.run_at(path, from)? else {
            let Edges { oldest, next, .. } = self.edges(path)?;
            return match from {
                _ if from < oldest => Err(ReadError::Gone { oldest }),
                _ if from < next => Err(ReadError::Failed(format!("the run at position {from} is missing"))),
                _ => Ok(Vec::new()),
            };
        };
        let sql = format!("{} WHERE r.key BETWEEN ? AND ? ORDER BY r.key", RunRow::SELECT);
        let mut query = self.db.prepare_cached(&sql)?;
        let mut runs = query.query(params![first, keys.end()])?;
        let mut row: Option<(i64, EventsRow)> = None;
        let mut expected = rows::place(first);
        'runs: while let Some(run) = runs.next()? {
            let run = match RunRow::of(run)?.sound() {
                // What stands before a fault or a hole is given; the next read begins there, and fails.
                Err(_) if !reading.stored.is_empty() => break,
                Ok(run) if run.position() != expected => break,
                run => run?,
            };
            let (mut position, mut offset) = (run.position(), run.first);
            expected += run.events;
            for count in &run.counts {
                let skip = reading.from().saturating_sub(position).min(*count);
                let wanted = offset + skip..offset + count;
                let batch = match self.events(run.source, wanted, &mut row) {
                    Err(_) if !reading.stored.is_empty() => break 'runs,
                    batch => batch?,
                };
                if !reading.take_rest(position + skip, position + count, batch) {
                    break 'runs;
                }
                position += count;
                offset += count;
            }
        }
        Ok(reading.stored)
    }

    /// The offset after the last event that an action will never batch.
    pub(super) fn passed(&self, action: i64) -> Result<u64, ReadError> {
        let mut query = self.db.prepare_cached("SELECT passed FROM actions WHERE id = ?")?;
        Ok(query.query_row([action], |row| row.get(0)).optional()?.map_or(0, rows::number))
    }

    /// Events of a source from an offset on, as many as stand in one row.
    pub(super) fn backlog(&self, source: i64, from: u64) -> Result<Vec<Event>, ReadError> {
        let Some((key, ..)) = self.events_before(source, from)? else { return Ok(Vec::new()) };
        let row = self.events_row(key)?;
        let skip = from.saturating_sub(row.first);
        if skip < row.count {
            return Ok(rows::events(&row.data, skip as usize).collect());
        }
        let next = rows::key(source, row.first + row.count);
        let exists = self.events_before(source, rows::place(next))?.is_some_and(|(key, ..)| key == next);
        if !exists {
            return Ok(Vec::new());
        }
        Ok(rows::events(&self.events_row(next)?.data, 0).collect())
    }

    // --- Inside -------------------------------------------------------------------------------------

    fn edges(&self, path: i64) -> Result<Edges, ReadError> {
        let floor: i64 = self
            .db
            .prepare_cached("SELECT floor FROM paths WHERE id = ?")?
            .query_row([path], |row| row.get(0))?;
        let keys = rows::keys(path);
        let edge = |order: &str| {
            let sql = format!(
                "SELECT key, events, at FROM runs WHERE key BETWEEN ? AND ? ORDER BY key {order} LIMIT 1"
            );
            let row = |row: &Row<'_>| Ok((rows::place(row.get(0)?), rows::number(row.get(1)?), row.get(2)?));
            self.db.prepare_cached(&sql)?.query_row(params![keys.start(), keys.end()], row).optional()
        };
        let (oldest, newest): (Option<(u64, u64, i64)>, _) = (edge("ASC")?, edge("DESC")?);
        let floor = rows::number(floor);
        Ok(Edges {
            oldest: oldest.map_or(floor, |(position, ..)| position),
            next: newest.map_or(floor, |(position, events, _)| position + events),
            times: oldest.zip(newest).map(|((.., oldest), (.., newest))| (oldest, newest)),
        })
    }

    /// The key of the run that holds a position.
    fn run_at(&self, path: i64, position: Position) -> Result<Option<i64>, ReadError> {
        let row = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let run = self
            .db
            .prepare_cached(
                "SELECT key, events FROM runs WHERE key BETWEEN ? AND ? ORDER BY key DESC LIMIT 1",
            )?
            .query_row(params![rows::keys(path).start(), rows::key(path, position)], row)
            .optional()?;
        Ok(run
            .filter(|(key, events)| position < rows::place(*key) + rows::number(*events))
            .map(|(key, _)| key))
    }

    /// Where the first run stands that was appended at this time or later. Times never fall along a path, so
    /// they are searched by halves.
    fn since(&self, path: i64, at: i64, edges: &Edges) -> Result<Position, ReadError> {
        let sql = format!("{} WHERE r.key BETWEEN ? AND ? ORDER BY r.key DESC LIMIT 1", RunRow::SELECT);
        let mut query = self.db.prepare_cached(&sql)?;
        let (mut low, mut high) = (edges.oldest, edges.next);
        while low < high {
            let middle = low + (high - low) / 2;
            let (first, last) = (*rows::keys(path).start(), rows::key(path, middle));
            let run = query.query_row([first, last], RunRow::of).optional()?;
            match run {
                Some(run) if run.at >= at => high = run.position(),
                // Further, even if runs are missing here.
                Some(run) => low = (run.position() + run.events).max(middle + 1),
                None => break,
            }
        }
        Ok(low)
    }

    /// The first place of an event on a path.
    fn position_of(&self, path: i64, id: EventId) -> Result<Option<Position>, ReadError> {
        let mut query = self.db.prepare_cached(
            "SELECT a.id, a.source, s.disorder FROM actions a JOIN sources s ON s.id = a.source WHERE a.path = ? ORDER BY a.source",
        )?;
        let row = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        let actions: Vec<(i64, i64, i64)> = query.query_map([path], row)?.collect::<Result<_, _>>()?;
        let mut position = None;
        let mut looked: Option<(i64, Option<u64>)> = None;
        for (action, source, disorder) in actions {
            let offset = match looked {
                Some((known, offset)) if known == source => offset,
                _ => self.offset_of(source, id, disorder as u64)?,
            };
            looked = Some((source, offset));
            let Some(offset) = offset else { continue };
            let run = self
                .db
                .prepare_cached(
                    "SELECT key, first, events FROM runs WHERE action = ? AND first <= ? ORDER BY first DESC LIMIT 1",
                )?
                .query_row(params![action, offset as i64], row)
                .optional()?;
            let here = run
                .filter(|(_, first, events)| offset < rows::number(*first) + rows::number(*events))
                .map(|(key, first, _)| rows::place(key) + (offset - rows::number(first)));
            position = position.into_iter().chain(here).min();
        }
        Ok(position)
    }

    /// The offset of an event in a source. Along a source the highest id so far never falls, so it is searched
    /// by halves; from there on no event can stand further than the source's disorder.
    fn offset_of(&self, source: i64, id: EventId, disorder: u64) -> Result<Option<u64>, ReadError> {
        let order = event_id::order(id);
        let Some((last, count, high)) = self.events_before(source, rows::MAX_PLACE)? else { return Ok(None) };
        if high < order {
            return Ok(None);
        }
        let (mut low, mut end) = (0, rows::place(last) + count);
        while low < end {
            let middle = low + (end - low) / 2;
            match self.events_before(source, middle)? {
                Some((key, _, high)) if high >= order => end = rows::place(key),
                Some((key, count, _)) => low = (rows::place(key) + count).max(middle + 1),
                // Deleted: what is left begins later.
                None => low = middle + 1,
            }
        }
        let mut query = self.db.prepare_cached(
            "SELECT key, count, data, high FROM events WHERE key BETWEEN ? AND ? ORDER BY key",
        )?;
        let mut found = query.query(params![rows::key(source, low), rows::keys(source).end()])?;
        let wanted = id.hyphenated().to_string();
        while let Some(row) = found.next()? {
            let data = row.get_ref(2)?.as_blob().unwrap_or_default();
            // The id may stand in a payload too, so a line that has it is looked at as an event.
            if memchr::memmem::find(data, wanted.as_bytes()).is_some() {
                let at = rows::events(&Bytes::copy_from_slice(data), 0).position(|event| event.id == id);
                if let Some(at) = at {
                    return Ok(Some(rows::place(row.get(0)?) + at as u64));
                }
            }
            if row.get::<_, i64>(3)? as u64 > order.saturating_add(disorder) {
                break;
            }
        }
        Ok(None)
    }

    /// Key, number of events and highest id of the row that begins at or before an offset.
    pub(super) fn events_before(
        &self,
        source: i64,
        offset: u64,
    ) -> Result<Option<(i64, u64, u64)>, ReadError> {
        let row = |row: &Row<'_>| {
            Ok((row.get::<_, i64>(0)?, rows::number(row.get(1)?), row.get::<_, i64>(2)? as u64))
        };
        Ok(self
            .db
            .prepare_cached(
                "SELECT key, count, high FROM events WHERE key BETWEEN ? AND ? ORDER BY key DESC LIMIT 1",
            )?
            .query_row(params![rows::keys(source).start(), rows::key(source, offset)], row)
            .optional()?)
    }

    pub(super) fn events_row(&self, key: i64) -> Result<EventsRow, ReadError> {
        let row = |row: &Row<'_>| {
            let data = Bytes::from(row.get::<_, Vec<u8>>(2)?);
            Ok(EventsRow { first: rows::place(row.get(0)?), count: rows::number(row.get(1)?), data })
        };
        Ok(self
            .db
            .prepare_cached("SELECT key, count, data FROM events WHERE key = ?")?
            .query_row([key], row)?)
    }

    /// The events of a stretch of a source. `row` is the row that was read last: neighbours are often in it.
    fn events(
        &self,
        source: i64,
        wanted: Range<u64>,
        row: &mut Option<(i64, EventsRow)>,
    ) -> Result<Vec<Event>, ReadError> {
        let mut events = Vec::with_capacity((wanted.end - wanted.start).min(1024) as usize);
        let mut offset = wanted.start;
        while offset < wanted.end {
            let holds = |row: &EventsRow| (row.first..row.first + row.count).contains(&offset);
            if !row.as_ref().is_some_and(|(owner, row)| *owner == source && holds(row)) {
                let missing = || {
                    ReadError::Failed(format!("the event at offset {offset} of source {source} is missing"))
                };
                let (key, ..) = self.events_before(source, offset)?.ok_or_else(missing)?;
                let found = self.events_row(key)?;
                if !holds(&found) {
                    return Err(missing());
                }
                *row = Some((source, found));
            }
            let Some((_, row)) = row.as_ref() else { break };
            let before = events.len();
            let take = (wanted.end.min(row.first + row.count) - offset) as usize;
            events.extend(rows::events(&row.data, (offset - row.first) as usize).take(take));
            if events.len() - before != take {
                return Err(ReadError::Failed(format!(
                    "events at offset {offset} of source {source} are damaged"
                )));
            }
            offset += take as u64;
        }
        Ok(events)
    }
}

/// Both ends of a path.
#[derive(Debug)]
struct Edges {
    oldest: Position,
    next: Position,
    /// Milliseconds since 1970 of the oldest and the newest run.
    times: Option<(i64, i64)>,
}
