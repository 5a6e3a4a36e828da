//! What one commit writes: groups of events, joined to rows, and runs.

use std::collections::HashMap;

use rusqlite::{Transaction, params};

use super::{ActionId, Arrived, SourceId, rows};
use crate::model::event_id;

/// Bytes of one row of events; groups of a source are joined up to it.
const ROW_BYTES: usize = 128 * 1024;
/// Events of one row.
const ROW_EVENTS: usize = 1024;

/// A run with its place.
#[derive(Debug)]
pub(super) struct NewRun {
    pub(super) path: i64,
    pub(super) position: u64,
    pub(super) action: ActionId,
    pub(super) source: SourceId,
    pub(super) first: u64,
    pub(super) events: u64,
    pub(super) bytes: u64,
    pub(super) at: i64,
    pub(super) counts: Vec<usize>,
}

/// How ids stand in a source.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Ids {
    pub(super) high: u64,
    pub(super) disorder: u64,
    /// The disorder that is written.
    pub(super) written: u64,
}

/// What one commit writes.
#[derive(Default)]
pub(super) struct Work<'a> {
    /// Groups of each source, in order.
    sources: Vec<(SourceId, Vec<(u64, &'a Arrived)>)>,
    pub(super) runs: Vec<&'a NewRun>,
    /// Actions with the offset after the events that they have taken.
    pub(super) took: Vec<(ActionId, u64)>,
}

impl<'a> Work<'a> {
    pub(super) fn events(&mut self, source: SourceId, first: u64, arrived: &'a Arrived) {
        match self.sources.iter_mut().find(|(known, _)| *known == source) {
            Some((_, groups)) => groups.push((first, arrived)),
            None => self.sources.push((source, vec![(first, arrived)])),
        }
    }

    pub(super) fn write(
        &self,
        tx: &Transaction<'_>,
        ids: &mut HashMap<SourceId, Ids>,
    ) -> rusqlite::Result<()> {
        let made = self.sources.iter().flat_map(|(_, groups)| groups).filter_map(|(_, group)| group.made_of);
        for (action, end) in made.chain(self.took.iter().copied()) {
            tx.prepare_cached("UPDATE actions SET passed = max(passed, ?) WHERE id = ?")?
                .execute(params![end as i64, action])?;
        }
        for (source, groups) in &self.sources {
            write_events(tx, *source, groups, ids.entry(*source).or_default())?;
        }
        let mut insert = tx.prepare_cached(
            "INSERT INTO runs (key, action, first, events, bytes, at, counts) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?;
        let mut counts = Vec::new();
        let mut runs = self.runs.iter().peekable();
        while let Some(run) = runs.next() {
            let (mut events, mut bytes) = (run.events, run.bytes);
            counts.clear();
            rows::put_counts(&mut counts, run.counts.iter().copied());
            // Runs that follow each other on the path and in the source become one row.
            while let Some(more) = runs.next_if(|next| {
                next.path == run.path
                    && next.action == run.action
                    && next.position == run.position + events
                    && next.first == run.first + events
                    && next.at == run.at
                    && bytes < ROW_BYTES as u64
            }) {
                rows::put_counts(&mut counts, more.counts.iter().copied());
                events += more.events;
                bytes += more.bytes;
            }
            let key = rows::key(run.path, run.position);
            insert.execute(params![
                key,
                run.action,
                run.first as i64,
                events as i64,
                bytes as i64,
                run.at,
                counts
            ])?;
        }
        Ok(())
    }
}

fn write_events(
    tx: &Transaction<'_>,
    source: SourceId,
    groups: &[(u64, &Arrived)],
    ids: &mut Ids,
) -> rusqlite::Result<()> {
    let mut insert =
        tx.prepare_cached("INSERT INTO events (key, count, high, repeats, data) VALUES (?, ?, ?, ?, ?)")?;
    let mut groups = groups.iter().peekable();
    let (mut data, mut repeats) = (Vec::new(), Vec::new());
    while let Some((first, arrived)) = groups.next() {
        data.clear();
        repeats.clear();
        let mut count = 0;
        let mut put = |arrived: &Arrived, data: &mut Vec<u8>| {
            for event in arrived.events.iter() {
                let order = event_id::order(event.id);
                ids.disorder = ids.disorder.max(ids.high.saturating_sub(order));
                ids.high = ids.high.max(order);
            }
            count += arrived.events.len();
            if arrived.made_of.is_some() {
                rows::put_made_events(data, arrived.events.iter());
            } else {
                rows::put_events(data, arrived.events.iter());
            }
            if let Some(more) = &arrived.repeats {
                rows::put_repeats(&mut repeats, more);
            }
            count
        };
        let mut events = put(arrived, &mut data);
        while let Some((_, more)) =
            groups.next_if(|(_, next)| data.len() < ROW_BYTES && events + next.events.len() <= ROW_EVENTS)
        {
            events = put(more, &mut data);
        }
        insert.execute(params![rows::key(source, *first), events as i64, ids.high as i64, repeats, data])?;
    }
    if ids.disorder > ids.written {
        // Twice what was seen, so that it is written seldom.
        ids.written = ids.disorder.saturating_mul(2).min(i64::MAX as u64);
        ids.disorder = ids.written;
        tx.prepare_cached("UPDATE sources SET disorder = ? WHERE id = ?")?
            .execute(params![ids.written as i64, source])?;
    }
    Ok(())
}
