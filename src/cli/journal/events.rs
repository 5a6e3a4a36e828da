//! The events of a path that are asked for, oldest first: `journal cat`, and what `journal export` shares with it.

use std::io::{self, Write};
use std::time::SystemTime;

use anyhow::Context;
use uuid::Uuid;

use super::Failure;
use crate::cli::{output, render};
use crate::journal::disk::{PathFacts, Reader};
use crate::journal::{Found, Position, ReadError, ReadLimit, Start};
use crate::model::event::Event;
use crate::model::message;

/// How much is read at once.
const LIMIT: ReadLimit = ReadLimit { bytes: 1 << 20, grid: u64::MAX };

/// What to print, and how.
#[derive(Debug, clap::Args)]
pub(super) struct Cat {
    #[command(flatten)]
    selection: Selection,
    /// Print time, topic and payload, as text where it is UTF-8.
    #[arg(long, conflicts_with = "batches")]
    decode: bool,
    /// Print the messages instead, one a line, as they were broadcast; --count counts messages.
    #[arg(long)]
    batches: bool,
}

/// Which events of which path; without a start all that are kept.
#[derive(Debug, clap::Args)]
pub(super) struct Selection {
    /// The path, /{gateway id}{path}.
    path: String,
    /// Begin after the event with this id.
    #[arg(long, value_name = "ID", group = "start")]
    last_event_id: Option<Uuid>,
    /// Begin with what was broadcast at this time, or so long ago: 2026-01-31T08:00:00Z, 90s, 5m, 24h.
    #[arg(long, value_name = "TIME|DURATION", group = "start", value_parser = since)]
    since: Option<Start>,
    /// Begin with the last so many events.
    #[arg(long, value_name = "N", group = "start", value_parser = clap::value_parser!(u64).range(1..))]
    last: Option<u64>,
    /// Begin with the event at this position.
    #[arg(long, value_name = "POSITION", group = "start")]
    from: Option<u64>,
    /// End after so many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

fn since(text: &str) -> Result<Start, String> {
    Start::since(text, SystemTime::now()).ok_or_else(|| format!("not {}", Start::SINCE))
}

/// Prints what is asked for.
pub(super) fn cat(reader: &Reader, cat: &Cat) -> Result<(), Failure> {
    let path = super::path(reader, &cat.selection.path)?;
    let mut out = io::BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let mut left = cat.selection.count.unwrap_or(u64::MAX);
    let read = each_batch(reader, &path, &cat.selection, |events| {
        let wanted = if cat.batches { events } else { first(events, left) };
        left -= if cat.batches { 1 } else { wanted.len() as u64 };
        if cat.batches {
            out.write_all(&message::join(wanted))?;
            out.write_all(b"\n")?;
        } else if cat.decode {
            render::events(&message::join(wanted), &mut out)?;
        } else {
            put_lines(wanted, &mut out)?;
        }
        Ok(left > 0)
    });
    // What could be read is printed, whatever came then.
    let flushed = out.flush();
    Ok(super::written(read?.and(flushed))?)
}

/// Writes what is asked for, as lines of JSON. Gives the number of events and of bytes, or why `out` does not
/// take them.
pub(super) fn write(
    reader: &Reader,
    path: &PathFacts,
    selection: &Selection,
    out: &mut impl Write,
) -> anyhow::Result<io::Result<(u64, u64)>> {
    let mut left = selection.count.unwrap_or(u64::MAX);
    let (mut events, mut bytes) = (0, 0);
    let done = each_batch(reader, path, selection, |batch| {
        let wanted = first(batch, left);
        put_lines(wanted, out)?;
        left -= wanted.len() as u64;
        events += wanted.len() as u64;
        bytes += wanted.iter().map(|event| event.json.len() as u64 + 1).sum::<u64>();
        Ok(left > 0)
    });
    Ok(done?.map(|()| (events, bytes)))
}

impl Selection {
    /// The path's facts, from the journal.
    pub(super) fn path(&self, reader: &Reader) -> Result<PathFacts, Failure> {
        super::path(reader, &self.path)
    }

    /// Where the first event stands that is asked for; says so if others before it are kept no more.
    fn begin(&self, reader: &Reader, path: &PathFacts) -> Result<Position, ReadError> {
        let after = self.last_event_id.map(Start::After);
        let Some(start) = after.or(self.since).or(self.last.map(Start::Last)) else {
            return Ok(self.from.unwrap_or(path.oldest));
        };
        let found = reader.find(path.id, start)?;
        if found.gap {
            output::to_stderr(format_args!("{found}"));
        }
        Ok(found.position)
    }
}

/// Reads batch after batch, up to what is there now. What retention has deleted is left out, and said so. `take`
/// says whether it wants more; its error is given back apart from those of the journal.
fn each_batch(
    reader: &Reader,
    path: &PathFacts,
    selection: &Selection,
    mut take: impl FnMut(&[Event]) -> io::Result<bool>,
) -> anyhow::Result<io::Result<()>> {
    let mut position = selection.begin(reader, path).context("failed to read the journal")?;
    while position < path.next {
        let stored = match reader.read(path.id, position, LIMIT) {
            Err(ReadError::Gone { oldest }) => {
                position = oldest;
                // Retention goes on meanwhile, and what was the oldest may be gone by now.
                let first = loop {
                    match reader.read(path.id, position, ReadLimit { bytes: 1, grid: 1 }) {
                        Err(ReadError::Gone { oldest }) if oldest > position => position = oldest,
                        first => break first.unwrap_or_default(),
                    }
                };
                let oldest = first.first().and_then(|batch| batch.events.first()).map(|event| event.id);
                output::to_stderr(format_args!("{}", Found { position, gap: true, oldest }));
                continue;
            }
            stored => stored.with_context(|| format!("failed to read the journal at position {position}"))?,
        };
        if stored.is_empty() {
            break;
        }
        for batch in &stored {
            position = batch.position + batch.events.len() as u64;
            match take(&batch.events) {
                Ok(true) => {}
                Ok(false) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
        }
    }
    Ok(Ok(()))
}

fn first(events: &[Event], most: u64) -> &[Event] {
    &events[..events.len().min(usize::try_from(most).unwrap_or(usize::MAX))]
}

fn put_lines(events: &[Event], out: &mut impl Write) -> io::Result<()> {
    for event in events {
        out.write_all(&event.json)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}
