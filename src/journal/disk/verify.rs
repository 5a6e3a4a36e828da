//! Checks a journal on disk: that the database is whole, and that what stands in its rows fits together.
//!
//! Everything is read as it stood at one moment, so a server may write meanwhile; its log file grows until the
//! end of the check. Events have no checksum: a payload that has become another payload is not noticed.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Display;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rusqlite::{Row, params};
use serde::Deserialize;
use serde_json::Value;

use super::facts::{ActionFacts, PathFacts, SourceFacts};
use super::reader::{Reader, millis};
use super::rows;
use crate::journal::{ReadError, ReadLimit, Stored};
use crate::model::event::{Event, EventId, IOT_MESSAGE};
use crate::model::event_id;

/// How much of a path is read at once.
const LIMIT: ReadLimit = ReadLimit { bytes: 1 << 20, grid: u64::MAX };

/// An event's JSON, as far as it must be there.
#[derive(Deserialize)]
struct Form {
    event_metadata: Metadata,
    details: serde_json::Map<String, Value>,
}

#[derive(Deserialize)]
struct Metadata {
    event_id: String,
    event_type: String,
    created_at: String,
}

/// Tells faults, each with what it is about.
struct Faults<F>(F);

impl<F: FnMut(String)> Faults<F> {
    fn tell(&mut self, what: impl Display, fault: impl Display) {
        (self.0)(format!("{what}: {fault}"));
    }

    /// What cannot be read at all is a fault, too.
    fn or_tell<T>(&mut self, what: impl Display, result: Result<T, ReadError>) -> Option<T> {
        result.inspect_err(|error| self.tell(what, error)).ok()
    }
}

/// The columns of a run that reading does not need.
struct RunCheck {
    position: u64,
    action: i64,
    first: u64,
    events: u64,
    bytes: u64,
    at: i64,
    counts: Vec<u8>,
}

impl RunCheck {
    const SELECT: &str = "SELECT key, action, first, events, bytes, at, counts FROM runs";

    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            position: rows::place(row.get(0)?),
            action: row.get(1)?,
            first: rows::number(row.get(2)?),
            events: rows::number(row.get(3)?),
            bytes: rows::number(row.get(4)?),
            at: row.get(5)?,
            counts: row.get(6)?,
        })
    }
}

impl Reader {
    /// Checks everything that can be checked, and calls `fault` for what is wrong. Gives the number of events on
    /// all paths that can be read as they are. An error: nothing can be checked.
    pub fn verify(&self, fault: impl FnMut(String)) -> Result<u64, ReadError> {
        let _snapshot = self.snapshot()?;
        let mut faults = Faults(fault);
        let done = self.verify_database(&mut faults);
        faults.or_tell("database", done);
        let sources = faults.or_tell("sources", self.sources()).unwrap_or_default();
        let actions = faults.or_tell("actions", self.actions()).unwrap_or_default();
        let paths = faults.or_tell("paths", self.paths()).unwrap_or_default();
        for source in &sources {
            let needs = actions.iter().filter(|action| action.source == source.id);
            let needs: Vec<_> = needs.filter_map(ActionFacts::needs_to_come).collect();
            let done = self.verify_source(source, &needs, &mut faults);
            faults.or_tell(format_args!("source {}", source.name), done);
        }
        for action in &actions {
            let done = self.verify_action(action, &mut faults);
            faults.or_tell(of_action(action), done);
        }
        let mut events = 0;
        for path in &paths {
            let done = self.verify_path(path, &actions, &mut events, &mut faults);
            faults.or_tell(format_args!("path {}", path.name), done);
        }
        Ok(events)
    }

    /// What SQLite can tell, and that no row is without its owner.
    fn verify_database(&self, faults: &mut Faults<impl FnMut(String)>) -> Result<(), ReadError> {
        let mut check = self.db.prepare("PRAGMA integrity_check")?;
        let mut lines = check.query([])?;
        while let Some(line) = lines.next()? {
            match line.get::<_, String>(0)?.as_str() {
                "ok" => {}
                // It may tell several things at once.
                other => other.lines().for_each(|line| faults.tell("database", line)),
            }
        }
        let mut check = self.db.prepare("PRAGMA foreign_key_check")?;
        let mut lines = check.query([])?;
        while let Some(line) = lines.next()? {
            let (table, parent) = (line.get::<_, String>(0)?, line.get::<_, String>(2)?);
            let row: Option<i64> = line.get(1)?;
            faults
                .tell("database", format_args!("row {} of {table} names none of {parent}", row.unwrap_or(0)));
        }
        let bits = rows::PLACE_BITS;
        for (table, owners) in [("events", "sources"), ("runs", "paths")] {
            let sql = format!(
                "SELECT key >> {bits} AS owner, count(*) FROM {table} WHERE owner NOT IN (SELECT id FROM {owners})
                 GROUP BY owner"
            );
            let mut check = self.db.prepare(&sql)?;
            let mut found = check.query([])?;
            while let Some(row) = found.next()? {
                let (owner, count) = (row.get::<_, i64>(0)?, row.get::<_, i64>(1)?);
                faults.tell(
                    "database",
                    format_args!("{count} rows of {table} belong to none of {owners} ({owner})"),
                );
            }
        }
        Ok(())
    }

    /// Rows without holes in what is needed, and in them events with ids that are new.
    fn verify_source(
        &self,
        source: &SourceFacts,
        needs: &[Range<u64>],
        faults: &mut Faults<impl FnMut(String)>,
    ) -> Result<(), ReadError> {
        let keys = rows::keys(source.id);
        let mut query = self.db.prepare(
            "SELECT key, count, high, repeats, data FROM events WHERE key BETWEEN ? AND ? ORDER BY key",
        )?;
        let mut found = query.query(params![keys.start(), keys.end()])?;
        let (mut expected, mut is_oldest) = (0, true);
        let mut ids = Ids { disorder: source.disorder, high: 0, recent: BTreeSet::new() };
        while let Some(row) = found.next()? {
            let (first, count) = (rows::place(row.get(0)?), rows::number(row.get(1)?));
            let high = row.get::<_, i64>(2)? as u64;
            let (repeats, data) = (row.get::<_, Vec<u8>>(3)?, Bytes::from(row.get::<_, Vec<u8>>(4)?));
            let mut tell = |offset: u64, what: &dyn Display| {
                faults.tell(format_args!("source {}, offset {offset}", source.name), what)
            };
            // What nobody will batch is looked at where it has been broadcast.
            let is_missed = needs.iter().any(|needs| needs.start < first && expected < needs.end);
            if (first > expected && is_missed) || (first < expected && !is_oldest) {
                tell(expected, &format_args!("the next row is at offset {first}"));
            }
            // Lines are counted by hand: reading stops at the first that is no event.
            let mut lines = 0;
            for line in data.split_inclusive(|byte| *byte == b'\n') {
                let text = line.strip_suffix(b"\n");
                match text.ok_or_else(|| "not a whole line".to_owned()).and_then(id_of) {
                    Ok(id) => {
                        if let Some(fault) = ids.take(id) {
                            tell(first + lines, &fault);
                        }
                    }
                    Err(fault) => tell(first + lines, &format_args!("the event is damaged: {fault}")),
                }
                lines += 1;
            }
            if lines != count || count == 0 {
                tell(first, &format_args!("the row holds {lines} events, not {count}"));
            }
            if ids.high > high {
                tell(first, &"the highest id is higher than the row says");
            }
            ids.high = ids.high.max(high);
            let mut again = Vec::with_capacity(repeats.len());
            rows::repeats(&repeats).iter().for_each(|repeats| rows::put_repeats(&mut again, repeats));
            if again != repeats {
                tell(first, &"how senders repeat these events cannot be read");
            }
            (expected, is_oldest) = (first + count, false);
        }
        Ok(())
    }

    /// Runs that follow each other in the source, in the order in which they stand on the path.
    fn verify_action(
        &self,
        action: &ActionFacts,
        faults: &mut Faults<impl FnMut(String)>,
    ) -> Result<(), ReadError> {
        let (floor, passed) =
            self.db.query_row("SELECT floor, passed FROM actions WHERE id = ?", [action.id], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        let sql = format!("{} WHERE action = ? ORDER BY first", RunCheck::SELECT);
        let mut query = self.db.prepare(&sql)?;
        let mut found = query.query([action.id])?;
        let (mut expected, mut position) = (rows::number(floor), 0);
        while let Some(row) = found.next()? {
            let run = RunCheck::of(row)?;
            // It may have let some pass before it.
            let is_next = run.first == expected || (expected..=rows::number(passed)).contains(&run.first);
            if !is_next {
                let RunCheck { position, first, .. } = run;
                let fault =
                    format_args!("the run at position {position} begins with offset {first}, not {expected}");
                faults.tell(of_action(action), fault);
            }
            if run.position < position {
                let fault = format_args!("the run at position {} stands before an older one", run.position);
                faults.tell(of_action(action), fault);
            }
            (expected, position) = (run.first + run.events, run.position);
        }
        Ok(())
    }

    /// Runs without holes and with times that do not fall, each one with its events. Counts the events.
    fn verify_path(
        &self,
        path: &PathFacts,
        actions: &[ActionFacts],
        events: &mut u64,
        faults: &mut Faults<impl FnMut(String)>,
    ) -> Result<(), ReadError> {
        let floor: i64 =
            self.db.query_row("SELECT floor FROM paths WHERE id = ?", [path.id], |row| row.get(0))?;
        let keys = rows::keys(path.id);
        let sql = format!("{} WHERE key BETWEEN ? AND ? ORDER BY key", RunCheck::SELECT);
        let mut query = self.db.prepare(&sql)?;
        let mut found = query.query(params![keys.start(), keys.end()])?;
        let (mut expected, mut at) = (rows::number(floor), i64::MIN);
        let mut ahead = VecDeque::new();
        while let Some(row) = found.next()? {
            let run = RunCheck::of(row)?;
            let mut tell = |what: &dyn Display| {
                faults.tell(format_args!("path {}, position {}", path.name, run.position), what);
            };
            if run.position != expected {
                tell(&format_args!("the run that stands here was expected at {expected}"));
            }
            if run.at < at {
                tell(&"an earlier time than that of the run before");
            }
            if actions.iter().any(|action| action.id == run.action && action.path != path.id) {
                tell(&"a run of an action that has another path");
            }
            let counts = rows::counts(&run.counts);
            let mut again = Vec::with_capacity(run.counts.len());
            rows::put_counts(&mut again, counts.iter().map(|count| *count as usize));
            let sum = counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count));
            if again != run.counts || sum != run.events || sum == 0 {
                tell(&format_args!("batches of {sum} events in a run of {}", run.events));
            }
            match self.content(path.id, &run, &mut ahead) {
                Ok(Content { bytes, newest }) => {
                    *events += run.events;
                    if bytes != run.bytes {
                        tell(&format_args!("{bytes} bytes of events in a run of {}", run.bytes));
                    }
                    if newest.and_then(event_id::time).is_some_and(|made| millis(made) > run.at) {
                        tell(&"broadcast before one of its events was made");
                    }
                }
                Err(error) => tell(&error),
            }
            (expected, at) = (run.position + run.events, run.at);
        }
        Ok(())
    }

    /// Reads a run's events as a client would. `ahead` is what was read beyond the run before.
    fn content(&self, path: i64, run: &RunCheck, ahead: &mut VecDeque<Stored>) -> Result<Content, ReadError> {
        let mut content = Content { bytes: 0, newest: None };
        let mut position = run.position;
        while position < run.position + run.events {
            if ahead.front().is_none_or(|batch| batch.position != position) {
                *ahead = self.read(path, position, LIMIT)?.into();
            }
            let Some(batch) = ahead.pop_front().filter(|batch| batch.position == position) else {
                return Err(ReadError::Failed(format!("nothing can be read at position {position}")));
            };
            position += batch.events.len() as u64;
            content.bytes += batch.events.iter().map(|event| event.json.len() as u64).sum::<u64>();
            content.newest = content.newest.max(batch.events.iter().map(|event| event.id).max());
        }
        Ok(content)
    }
}

fn of_action(action: &ActionFacts) -> String {
    format!("action {} of trigger {}", action.number, action.trigger)
}

/// What the events of a run are together.
struct Content {
    bytes: u64,
    newest: Option<EventId>,
}

/// The ids of a source, as far back as one may stand below the highest.
struct Ids {
    disorder: u64,
    high: u64,
    recent: BTreeSet<(u64, EventId)>,
}

impl Ids {
    /// Takes the next id; says what is wrong with it.
    fn take(&mut self, id: EventId) -> Option<String> {
        let order = event_id::order(id);
        let lowest = self.high.saturating_sub(self.disorder);
        self.high = self.high.max(order);
        let is_new = self.recent.insert((order, id));
        let oldest = self.high.saturating_sub(self.disorder);
        while self.recent.first().is_some_and(|(order, _)| *order < oldest) {
            self.recent.pop_first();
        }
        if order < lowest {
            return Some(format!("the id {id} is older than it may be here"));
        }
        (!is_new).then(|| format!("the id {id} is there twice"))
    }
}

/// The id of an event; what is wrong, if it is none.
fn id_of(line: &[u8]) -> Result<EventId, String> {
    if line.first() == Some(&b'"') {
        let event = rows::made_event(&Bytes::copy_from_slice(line)).ok_or("it does not begin with an id")?;
        serde_json::from_slice::<serde::de::IgnoredAny>(&event.json).map_err(|error| error.to_string())?;
        return Ok(event.id);
    }
    let event = Event::from_json(Bytes::copy_from_slice(line)).ok_or("it does not begin as one")?;
    let form: Form = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if form.event_metadata.event_id != event.id.hyphenated().to_string() {
        return Err("it has two ids".to_owned());
    }
    let Form { event_metadata: Metadata { event_type, created_at, .. }, details } = form;
    created_at.parse::<jiff::Timestamp>().map_err(|error| format!("created_at: {error}"))?;
    if event_type != IOT_MESSAGE {
        return Ok(event.id);
    }
    let text = |name: &str| details.get(name).and_then(Value::as_str).ok_or(format!("{name} is missing"));
    text("mqtt_topic")?;
    STANDARD.decode(text("payload")?).map_err(|error| format!("payload: {error}"))?;
    Ok(event.id)
}
