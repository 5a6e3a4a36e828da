//! `triggercast journal`: looks into the journal on disk. It only reads, so a server may write meanwhile.

mod events;
mod export;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use clap::Subcommand;
use serde::Serialize;

use super::output::count;
use super::{Failure, output};
use crate::config;
use crate::journal::disk::{OpenError, PathFacts, Reader};

pub(super) const EXAMPLES: &str = "\
Examples:
  triggercast journal ls                                     the paths and what is kept of them
  triggercast journal cat /main/ws --since 5m | jq .         the events of the last five minutes
  triggercast journal cat /main/ws --last 10 --decode        the last ten, payloads as text
  triggercast journal verify --data /var/lib/triggercast     is a journal whole?
  triggercast journal export /main/ws events.jsonl           a path as a file

They only read, also while a server writes. Exit codes: 0 done, 2 bad configuration or arguments, 1 anything else.";

/// Where the journal is, and what to do with it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder that holds the journal; without it, the `data_dir` of the configuration.
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the paths: events and bytes that are kept, with their positions and times.
    Ls {
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Print the events of a path, oldest first, one a line, as they were broadcast.
    Cat(events::Cat),
    /// Check that the journal is whole; print every fault as a line.
    Verify,
    /// Write the events of a path to a file, one a line.
    Export(export::Args),
}

/// Does what the arguments say.
pub(super) fn run(args: Args, config: &Path) -> Result<(), Failure> {
    let folder = match args.data {
        Some(folder) => folder,
        None => config::load(config)?.data_dir,
    };
    match args.command {
        Command::Ls { json } => ls(&open(&folder)?, json),
        Command::Cat(cat) => events::cat(&open(&folder)?, &cat),
        Command::Verify => verify(&folder),
        Command::Export(export) => export::run(&open(&folder)?, &export),
    }
}

fn open(folder: &Path) -> anyhow::Result<Reader> {
    Reader::open(folder).context("failed to open the journal")
}

fn paths(reader: &Reader) -> anyhow::Result<Vec<PathFacts>> {
    reader.paths().context("failed to read the journal")
}

/// The path with this name.
fn path(reader: &Reader, name: &str) -> Result<PathFacts, Failure> {
    let paths = paths(reader)?;
    let known = match paths.len() {
        0 => "no path".to_owned(),
        _ => paths.iter().map(|path| path.name.as_str()).collect::<Vec<_>>().join(", "),
    };
    let unknown = || Failure::Input(format!("{name:?} is not a path of the journal; it has {known}"));
    paths.into_iter().find(|path| path.name == name).ok_or_else(unknown)
}

fn ls(reader: &Reader, json: bool) -> Result<(), Failure> {
    let paths = paths(reader)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let printed = match json {
        true => paths.iter().try_for_each(|path| {
            serde_json::to_writer(&mut out, &Listed::of(path))?;
            out.write_all(b"\n")
        }),
        false => table(&paths, &mut out),
    };
    Ok(written(printed.and_then(|()| out.flush()))?)
}

/// The positions of the oldest and the newest event.
fn edges(path: &PathFacts) -> Option<(u64, u64)> {
    (path.oldest < path.next).then(|| (path.oldest, path.next - 1))
}

/// A path as `ls --json` shows it.
#[derive(Serialize)]
struct Listed<'a> {
    path: &'a str,
    events: u64,
    bytes: u64,
    oldest: Option<u64>,
    newest: Option<u64>,
    oldest_at: Option<String>,
    newest_at: Option<String>,
}

impl<'a> Listed<'a> {
    fn of(path: &'a PathFacts) -> Self {
        let (oldest, newest) = edges(path).unzip();
        let (oldest_at, newest_at) = path.times.unzip();
        Self {
            path: &path.name,
            events: path.next.saturating_sub(path.oldest),
            bytes: path.bytes,
            oldest,
            newest,
            oldest_at: oldest_at.map(rfc3339),
            newest_at: newest_at.map(rfc3339),
        }
    }
}

fn table(paths: &[PathFacts], out: &mut impl Write) -> io::Result<()> {
    let mut rows = vec![["PATH", "EVENTS", "BYTES", "OLDEST", "NEWEST", "FROM", "TO"].map(ToOwned::to_owned)];
    rows.extend(paths.iter().map(|path| {
        let Listed { path, events, bytes, oldest, newest, oldest_at, newest_at } = Listed::of(path);
        let or_none = |what: Option<String>| what.unwrap_or_else(|| "-".to_owned());
        let position = |position: Option<u64>| or_none(position.map(|position| position.to_string()));
        [
            path.to_owned(),
            events.to_string(),
            bytes.to_string(),
            position(oldest),
            position(newest),
            or_none(oldest_at),
            or_none(newest_at),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let [name, events, bytes, oldest, newest, from, _] = [0, 1, 2, 3, 4, 5, 6].map(width);
    for [a, b, c, d, e, f, g] in &rows {
        // Names and times to the left, numbers to the right.
        writeln!(out, "{a:name$}  {b:>events$}  {c:>bytes$}  {d:>oldest$}  {e:>newest$}  {f:from$}  {g}")?;
    }
    Ok(())
}

/// In UTC, with milliseconds.
fn rfc3339(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::MAX);
    format!("{time:.3}")
}

/// Prints faults as they are found. A reader that has gone does not change the outcome.
fn verify(folder: &Path) -> Result<(), Failure> {
    let mut faults = 0;
    let mut tell = |fault: &dyn Display| {
        faults += 1;
        say(fault)
    };
    let found = match Reader::open(folder) {
        Ok(reader) => {
            let events =
                reader.verify(|fault| tell(&fault)).map_err(|error| tell(&format_args!("database: {error}")));
            // What cannot be counted has been told.
            (reader.paths().map_or(0, |paths| paths.len()), events.unwrap_or_default())
        }
        Err(error @ OpenError::Database(..)) => {
            tell(&format_args!("database: {error}"));
            (0, 0)
        }
        Err(error) => return Err(anyhow::Error::new(error).context("failed to open the journal").into()),
    };
    let (paths, events) = (count(found.0, "path"), count(found.1 as usize, "event"));
    if faults > 0 {
        say(&format_args!("{paths}, {events}, {}", count(faults, "fault")));
        return Err(Failure::Told);
    }
    say(&format_args!("{paths}, {events}, no faults"));
    Ok(())
}

/// Prints a line. Whoever does not read it is not told.
fn say(line: &dyn Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// What came of writing to stdout.
fn written(result: io::Result<()>) -> anyhow::Result<()> {
    output::closed_is_done(result).context("stdout cannot be written")
}
