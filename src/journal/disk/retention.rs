//! What retention deletes: runs that are over their path's bounds, and events that nobody needs any more. It goes
//! along with a commit, a slice at a time.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::time::SystemTime;

use rusqlite::{Transaction, params};
use tokio::sync::watch;

use super::facts::ActionFacts;
use super::{ActionId, SourceId, reader, rows};
use crate::model::event_id;
use crate::model::gateway::Retention;

/// Rows of a path, or of a source, that one commit deletes.
const SLICE: usize = 128;

/// What is kept of a path.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) id: i64,
    pub(super) retention: Retention,
    /// Told how far the path is committed.
    pub(super) committed: watch::Sender<u64>,
    pub(super) oldest: u64,
    pub(super) next: u64,
    pub(super) bytes: u64,
    /// When the oldest run was appended, if that is known.
    pub(super) oldest_at: Option<i64>,
}

/// What a sweep has deleted, to be noted when it is committed.
#[derive(Default)]
pub(super) struct Swept {
    /// Path, its oldest position, what it has left in bytes, when its oldest run was appended.
    paths: Vec<(i64, u64, u64, Option<i64>)>,
    /// Sources that have more to delete than one slice.
    pub(super) unfinished: HashSet<SourceId>,
}

impl Swept {
    pub(super) fn apply(self, paths: &mut [Kept]) -> HashSet<SourceId> {
        for (id, oldest, bytes, oldest_at) in self.paths {
            if let Some(path) = paths.iter_mut().find(|path| path.id == id) {
                (path.oldest, path.bytes, path.oldest_at) = (oldest, bytes, oldest_at);
            }
        }
        self.unfinished
    }
}

/// Deletes a slice of what retention does not keep: runs, and the events of these sources that no run and no action
/// needs any more.
pub(super) fn sweep(
    tx: &Transaction<'_>,
    paths: &[Kept],
    mut sources: HashSet<SourceId>,
    now: SystemTime,
) -> rusqlite::Result<Swept> {
    let mut swept = Swept::default();
    for path in paths {
        let expired = reader::millis(now) - i64::try_from(path.retention.age.as_millis()).unwrap_or(i64::MAX);
        let is_old = |at: i64| at < expired;
        let is_over = |oldest: u64, bytes: u64| {
            bytes > path.retention.bytes || path.next - oldest > path.retention.events
        };
        if path.oldest >= path.next
            || !(is_over(path.oldest, path.bytes) || path.oldest_at.is_some_and(is_old))
        {
            continue;
        }
        let (mut oldest, mut bytes, mut oldest_at) = (path.oldest, path.bytes, None);
        let keys = rows::keys(path.id);
        let mut floors: HashMap<ActionId, u64> = HashMap::new();
        {
            let mut query = tx.prepare_cached(
                "SELECT key, action, first, events, bytes, at FROM runs WHERE key BETWEEN ? AND ? ORDER BY key LIMIT ?",
            )?;
            let mut found = query.query(params![keys.start(), keys.end(), SLICE as i64 + 1])?;
            let mut looked = 0;
            while let Some(row) = found.next()? {
                let (position, at) = (rows::place(row.get(0)?), row.get::<_, i64>(5)?);
                let end = position + row.get::<_, i64>(3)? as u64;
                // The newest run stays, however large it is, until it is too old.
                let goes = is_old(at) || is_over(position, bytes) && end < path.next;
                if looked == SLICE || !goes {
                    oldest_at = Some(at);
                    break;
                }
                looked += 1;
                oldest = end;
                bytes = bytes.saturating_sub(row.get::<_, i64>(4)? as u64);
                floors.insert(row.get(1)?, (row.get::<_, i64>(2)? + row.get::<_, i64>(3)?) as u64);
            }
        }
        if oldest == path.oldest {
            continue;
        }
        tx.prepare_cached("DELETE FROM runs WHERE key BETWEEN ? AND ?")?
            .execute(params![keys.start(), rows::key(path.id, oldest) - 1])?;
        tx.prepare_cached("UPDATE paths SET floor = ? WHERE id = ?")?
            .execute(params![oldest as i64, path.id])?;
        for (action, floor) in floors {
            tx.prepare_cached("UPDATE actions SET floor = max(floor, ?) WHERE id = ?")?
                .execute(params![floor as i64, action])?;
            let source: i64 = tx
                .prepare_cached("SELECT source FROM actions WHERE id = ?")?
                .query_row([action], |row| row.get(0))?;
            sources.insert(source);
        }
        swept.paths.push((path.id, oldest, bytes, oldest_at));
    }
    for source in sources {
        if !sweep_source(tx, source)? {
            swept.unfinished.insert(source);
        }
    }
    Ok(swept)
}

/// Lets actions that take nothing for a while pass what retention does not keep for them. Gives the sources of these.
pub(super) fn pass(
    tx: &Transaction<'_>,
    paths: &[Kept],
    on_hold: &HashSet<ActionId>,
    now: SystemTime,
) -> rusqlite::Result<HashSet<SourceId>> {
    let mut sources = HashSet::new();
    for action in ActionFacts::all_of(tx, on_hold.iter())? {
        let Some(path) = paths.iter().find(|path| path.id == action.path) else { continue };
        if let Some(from) = kept_from(tx, &action, &path.retention, now)? {
            tx.prepare_cached("UPDATE actions SET passed = max(passed, ?) WHERE id = ?")?
                .execute(params![from as i64, action.id])?;
            sources.insert(action.source);
        }
    }
    Ok(sources)
}

/// From which offset on retention keeps what an action has not had; `None` if it keeps everything.
fn kept_from(
    tx: &Transaction<'_>,
    action: &ActionFacts,
    retention: &Retention,
    now: SystemTime,
) -> rusqlite::Result<Option<u64>> {
    let expired = now.checked_sub(retention.age).map_or(0, event_id::order_at);
    let mut query = tx.prepare_cached(
        "SELECT key, count, high, length(data) FROM events WHERE key BETWEEN ? AND ? ORDER BY key DESC",
    )?;
    let mut found =
        query.query(params![rows::key(action.source, action.cursor), rows::keys(action.source).end()])?;
    let (mut from, mut events, mut bytes) = (None, 0, 0);
    while let Some(row) = found.next()? {
        let (first, count) = (rows::place(row.get(0)?), rows::number(row.get(1)?));
        events += count;
        bytes += rows::number(row.get(3)?);
        let is_old = (row.get::<_, i64>(2)? as u64) < expired;
        // The newest row stays, however large it is, until it is too old.
        let is_over = from.is_some() && (events > retention.events || bytes > retention.bytes);
        if is_old || is_over {
            return Ok(Some(from.unwrap_or(first + count)));
        }
        from = Some(first);
    }
    // All rows that begin at the cursor or behind it are within the bounds; that which it lies in stays with them.
    Ok(None)
}

/// Deletes a slice of the events of a source that nobody needs: before, between and behind the stretches that its
/// actions need. False: there are more.
fn sweep_source(tx: &Transaction<'_>, source: SourceId) -> rusqlite::Result<bool> {
    // The newest row tells where the source goes on, and its highest id.
    let newest: Option<i64> = tx
        .prepare_cached("SELECT max(key) FROM events WHERE key BETWEEN ? AND ?")?
        .query_row(params![rows::keys(source).start(), rows::keys(source).end()], |row| row.get(0))?;
    let Some(newest) = newest.map(rows::place) else { return Ok(true) };
    let mut needs: Vec<_> = ActionFacts::all(tx, Some(source))?.iter().flat_map(ActionFacts::needs).collect();
    needs.push(newest..u64::MAX);
    needs.sort_unstable_by_key(|needs| needs.start);
    let (mut from, mut is_done) = (0, true);
    for needs in needs {
        if from < needs.start {
            is_done &= delete_events(tx, source, from..needs.start)?;
        }
        from = from.max(needs.end);
    }
    Ok(is_done)
}

/// Deletes a slice of the rows of a source that lie in a stretch of it as a whole. False: there are more.
fn delete_events(tx: &Transaction<'_>, source: SourceId, stretch: Range<u64>) -> rusqlite::Result<bool> {
    let (first, end) = (rows::key(source, stretch.start), rows::key(source, stretch.end));
    let slice: Vec<(i64, i64)> = tx
        .prepare_cached("SELECT key, count FROM events WHERE key >= ? AND key < ? ORDER BY key LIMIT ?")?
        .query_map(params![first, end, SLICE as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let is_inside = |(key, count): &&(i64, i64)| rows::place(*key) + *count as u64 <= stretch.end;
    let Some((last, _)) = slice.iter().take_while(is_inside).last() else { return Ok(true) };
    tx.prepare_cached("DELETE FROM events WHERE key BETWEEN ? AND ?")?.execute(params![first, last])?;
    Ok(slice.len() < SLICE)
}
