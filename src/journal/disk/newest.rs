//! The newest events of an action's source, for people who look.

use rusqlite::{OptionalExtension, params};

use super::{Disk, Reader, rows};
use crate::journal::ReadError;
use crate::model::event::Event;
use crate::model::id::Id;
use crate::telemetry::METRICS;

impl Disk {
    /// The newest committed events of a source that an action has taken or will take, the newest first, so many at most.
    /// `None`: the journal does not know the action. Blocks.
    pub fn newest(
        &self,
        trigger: &Id,
        number: usize,
        source: &str,
        most: usize,
    ) -> Result<Option<Vec<Event>>, ReadError> {
        self.with_reader(|reader| reader.newest(trigger, number, source, most))
    }

    /// Bytes of its files.
    pub fn size(&self) -> u64 {
        self.files.bytes()
    }

    /// Tells how much room its files take, and how much there is.
    pub fn measure(&self) {
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        METRICS.journal_bytes.set(signed(self.size()));
        if let Some(free) = self.files.room() {
            METRICS.disk_free_bytes.set(signed(free));
        }
    }
}

impl Reader {
    fn newest(
        &self,
        trigger: &str,
        number: usize,
        source: &str,
        most: usize,
    ) -> Result<Option<Vec<Event>>, ReadError> {
        let _snapshot = self.snapshot()?;
        let mut query = self.db.prepare_cached(
            "SELECT s.id, min(a.floor) FROM sources s JOIN actions a ON a.source = s.id
             WHERE s.name = ? AND a.trigger = ? AND a.number = ? AND NOT a.retired GROUP BY s.id",
        )?;
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, rows::number(row.get(1)?)));
        let known = query.query_row(params![source, trigger, number as i64], row).optional()?;
        let Some((source, floor)) = known else { return Ok(None) };
        let mut newest: Vec<Event> = Vec::new();
        let mut before = rows::MAX_PLACE;
        while newest.len() < most
            && let Some((key, count, _)) = self.events_before(source, before)?
        {
            let first = rows::place(key);
            let wanted = floor.saturating_sub(first).min(count) as usize;
            let row: Vec<Event> = rows::events(&self.events_row(key)?.data, wanted).collect();
            newest.extend(row.into_iter().rev().take(most - newest.len()));
            if first <= floor {
                break;
            }
            before = first - 1;
        }
        Ok(Some(newest))
    }
}
