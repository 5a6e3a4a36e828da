//! The thread that writes the journal: it commits together whatever has come meanwhile.
//!
//! A commit that fails is tried again until it succeeds; until then nothing is acknowledged or delivered of it.
//! While the disk is full, boundaries of events that are durable already are written all the same, into room that
//! was set aside. Retention deletes a slice with each commit, so that it never holds one up for long.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, ErrorCode, params};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::commit::{Ids, NewRun, Work};
use super::facts::{ActionFacts, PathFacts, SourceFacts};
use super::file::Files;
use super::reader::{self, Reader};
use super::retention::{Kept, pass, sweep};
use super::{ActionId, Arrived, Durable, Health, PERMIT_BYTES, QUEUE_BYTES, SourceId, rows};
use crate::journal::ReadError;
use crate::model::event_id;
use crate::model::gateway::Retention;
use crate::telemetry::{self, METRICS, trace};

/// Bytes of events that one commit takes at most, but for one group that is larger alone.
const COMMIT_BYTES: usize = 4 * 1024 * 1024;
/// How often retention looks when nothing is written.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a commit that failed waits before it is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// Bytes of SQLite's log that are worth moving when the disk is full.
const LONG_LOG: u64 = 4 * 1024 * 1024;

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Command {
    /// Write events of a source.
    Events { source: SourceId, first: u64, bytes: usize, arrived: Arrived, _permit: OwnedSemaphorePermit },
    /// Write a run of a path.
    Run { run: NewRun, _permit: OwnedSemaphorePermit },
    /// Find or make a source.
    Source { name: String, reply: mpsc::Sender<Result<SourceId, ReadError>> },
    /// Find or make an action.
    Action {
        trigger: String,
        number: usize,
        source: SourceId,
        path: i64,
        floor: u64,
        reply: mpsc::Sender<Result<ActionId, ReadError>>,
    },
    /// Retire the actions that nobody has asked for.
    RetireOthers { reply: mpsc::Sender<Result<HashSet<ActionId>, ReadError>> },
    /// Retire these actions.
    Retire { actions: Vec<ActionId> },
    /// Note up to where an action has taken events that it has made nothing of.
    Took { action: ActionId, end: u64 },
    /// Keep what an action has not had within its path's retention, or all of it.
    Hold { action: ActionId, is_held: bool },
    /// Find or make a path.
    Path { name: String, retention: Retention, reply: mpsc::Sender<Result<NewPath, ReadError>> },
    /// Reply when everything before is committed.
    Flush { reply: mpsc::Sender<()> },
    /// The same, and end.
    Stop { reply: mpsc::Sender<()> },
}

/// A path that the writer knows from now on, and how far it is committed.
pub(super) type NewPath = (PathFacts, watch::Receiver<u64>);

/// The state of the thread.
pub(super) struct Writer {
    db: Connection,
    files: Arc<Files>,
    queue: Receiver<Command>,
    health: watch::Sender<Health>,
    ids: HashMap<SourceId, Ids>,
    /// The offset after the last committed event of each source.
    durable: HashMap<SourceId, u64>,
    /// Who is told of it.
    told: Arc<Durable>,
    paths: Vec<Kept>,
    /// The actions of this start's triggers.
    active: HashSet<ActionId>,
    /// The highest number that an action has had.
    last_action: ActionId,
    /// Those that take nothing for a while.
    on_hold: HashSet<ActionId>,
    /// When it was last looked what of theirs retention does not keep.
    looked: Instant,
    /// Sources of which retention has more to delete.
    unfinished: HashSet<SourceId>,
    /// Taken from the queue, not committed.
    held: VecDeque<Command>,
    held_bytes: usize,
    swept: Instant,
    /// One permit for each [`PERMIT_BYTES`] that may still wait.
    room: Arc<Semaphore>,
}

/// Whether the thread goes on.
enum Next {
    On,
    End,
}

impl Writer {
    pub(super) fn new(
        db: Connection,
        files: Arc<Files>,
        queue: Receiver<Command>,
        health: watch::Sender<Health>,
        sources: &[SourceFacts],
        paths: Vec<(PathFacts, Retention, watch::Sender<u64>)>,
        (told, room): (Arc<Durable>, Arc<Semaphore>),
    ) -> Self {
        let ids = |s: &SourceFacts| Ids { high: s.high, disorder: s.disorder, written: s.disorder };
        Self {
            db,
            files,
            queue,
            health,
            ids: sources.iter().map(|source| (source.id, ids(source))).collect(),
            told,
            durable: sources.iter().map(|source| (source.id, source.next)).collect(),
            paths: paths.into_iter().map(kept).collect(),
            active: HashSet::new(),
            last_action: 0,
            on_hold: HashSet::new(),
            looked: Instant::now(),
            unfinished: HashSet::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            swept: Instant::now(),
            room,
        }
    }

    /// Until [`Command::Stop`], or the end of those who ask.
    pub(super) fn run(mut self) {
        loop {
            match telemetry::contain("journal", || self.turn()) {
                Some(Next::On) => {}
                Some(Next::End) => return,
                None => {
                    // What was held is refused: its senders keep it. Nothing after it may be written before it.
                    tracing::error!("the journal ends after a panic; start the server again");
                    self.fail("a panic in the journal".to_owned());
                    return;
                }
            }
        }
    }

    fn turn(&mut self) -> Next {
        match self.queue.recv_timeout(PAUSE) {
            Ok(command) => self.hold(command),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Next::End,
        }
        self.gather();
        METRICS.journal_queue_bytes.set(self.waiting());
        while let Err(error) = self.commit() {
            self.fail(error.to_string());
            if is_full(&error) && self.files.free_reserve() {
                tracing::debug!("the room that was set aside is given free");
            }
            if self.wait_for_room(&error) {
                return Next::End;
            }
        }
        self.recovered();
        let next = self.finish();
        METRICS.journal_queue_bytes.set(self.waiting());
        next
    }

    /// Bytes that wait.
    fn waiting(&self) -> i64 {
        ((QUEUE_BYTES / PERMIT_BYTES).saturating_sub(self.room.available_permits()) * PERMIT_BYTES) as i64
    }

    fn hold(&mut self, command: Command) {
        if let Command::Events { bytes, .. } = &command {
            self.held_bytes += bytes;
        }
        self.held.push_back(command);
    }

    /// Takes what is queued, as much as one commit may have.
    fn gather(&mut self) {
        while self.held_bytes < COMMIT_BYTES
            && let Ok(command) = self.queue.try_recv()
        {
            self.hold(command);
        }
    }

    /// After a failure: until it is time to try again. True: the thread is to end.
    fn wait_for_room(&mut self, error: &rusqlite::Error) -> bool {
        let mut retry = Instant::now() + RETRY;
        loop {
            if self.held.iter().any(|command| matches!(command, Command::Stop { .. })) {
                // What is held is dropped, and so refused: its senders keep it.
                tracing::error!(%error, "the journal ends without having written everything");
                return true;
            }
            self.write_boundaries();
            let left = retry.saturating_duration_since(Instant::now());
            // Commands that keep coming do not put the next attempt off.
            let command =
                if left.is_zero() { Err(RecvTimeoutError::Timeout) } else { self.queue.recv_timeout(left) };
            match command {
                Ok(command) => self.hold(command),
                Err(RecvTimeoutError::Disconnected) => return true,
                // The reserve is the first to get the room that has come: before that there is too little. Or
                // retention has made room inside.
                Err(RecvTimeoutError::Timeout) if is_full(error) => {
                    self.shorten_log();
                    if self.files.set_reserve().is_ok() || self.free_bytes() > 2 * self.held_bytes as u64 {
                        return false;
                    }
                    retry = Instant::now() + RETRY;
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.reopen();
                    return false;
                }
            }
        }
    }

    /// Moves SQLite's log into the tables if that gives much room free: it holds pages many times over, so on a
    /// small disk it can be what has filled it. What cannot be moved stays.
    fn shorten_log(&self) {
        if self.files.log_bytes() < LONG_LOG {
            return;
        }
        if let Err(error) = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            tracing::debug!(%error, "failed to shorten the journal's log");
        }
    }

    /// Room in the database that deleted rows have left.
    fn free_bytes(&self) -> u64 {
        let number =
            |pragma| self.db.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).unwrap_or(0);
        (number("freelist_count") * number("page_size")) as u64
    }

    /// A connection that has failed in another way than for want of room is not trusted any more.
    fn reopen(&mut self) {
        match self.files.writer() {
            Ok(db) => self.db = db,
            Err(error) => tracing::debug!(%error, "failed to open the journal again"),
        }
    }

    /// While events cannot be written: writes the runs of those that are durable.
    fn write_boundaries(&mut self) {
        let mut blocked = Vec::new();
        let (runs, rest) = std::mem::take(&mut self.held).into_iter().partition(|command| match command {
            Command::Run { run, .. } => {
                let durable = self.durable.get(&run.source).is_some_and(|end| run.first + run.events <= *end);
                // A path's runs stand without a hole, so nothing behind one that must wait is written.
                if !durable {
                    blocked.push(run.path);
                }
                durable && !blocked.contains(&run.path)
            }
            _ => false,
        });
        self.held = runs;
        // Also without any: retention goes on. What cannot be written is tried again with the rest.
        let _ = self.commit();
        // They stand before the rest now; what stood between them is of other paths, or events.
        self.held.extend(rest);
    }

    /// Commits what is held, and acknowledges it. What waits for a commit stays held.
    fn commit(&mut self) -> rusqlite::Result<()> {
        if self.held.is_empty() && self.swept.elapsed() < PAUSE {
            return Ok(());
        }
        let began = Instant::now();
        let mut work = Work::default();
        for command in &self.held {
            match command {
                Command::Events { source, first, arrived, .. } => work.events(*source, *first, arrived),
                Command::Run { run, .. } => work.runs.push(run),
                Command::Took { action, end } => work.took.push((*action, *end)),
                _ => {}
            }
        }
        let mut ids = self.ids.clone();
        let tx = self.db.transaction()?;
        work.write(&tx, &mut ids)?;
        let mut sources = self.unfinished.clone();
        if !self.on_hold.is_empty() && self.looked.elapsed() >= PAUSE {
            self.looked = began;
            sources.extend(pass(&tx, &self.paths, &self.on_hold, SystemTime::now())?);
        }
        let swept = sweep(&tx, &self.paths, sources, SystemTime::now())?;
        tx.commit()?;
        // From here on it is durable.
        METRICS.count_commit(began.elapsed());
        self.swept = began;
        self.ids = ids;
        self.unfinished = swept.apply(&mut self.paths);
        let held = std::mem::take(&mut self.held);
        self.held = held.into_iter().filter_map(|command| self.committed(command)).collect();
        for path in &self.paths {
            path.committed.send_if_modified(|seen| std::mem::replace(seen, path.next) != path.next);
        }
        Ok(())
    }

    /// Notes what is committed. What waits for a commit is given back.
    fn committed(&mut self, command: Command) -> Option<Command> {
        match command {
            Command::Events { source, first, bytes, arrived, .. } => {
                let events = arrived.events.len() as u64;
                METRICS.journal_events.inc_by(events);
                let entered = arrived.events.first().map_or(0, |event| event_id::order(event.id));
                if entered > 0 && arrived.made_of.is_none() {
                    METRICS.journal_lag_seconds.observe_time(event_id::age(entered, SystemTime::now()));
                }
                self.held_bytes -= bytes;
                self.durable.insert(source, first + events);
                if let Some(told) = self.told.lock().unwrap_or_else(PoisonError::into_inner).get(&source) {
                    told.send_replace(first + events);
                }
                if trace::is_on() {
                    trace::journaled(arrived.events.iter());
                }
                arrived.receipt.accept();
                None
            }
            Command::Run { run, .. } => {
                if let Some(path) = self.paths.iter_mut().find(|path| path.id == run.path) {
                    path.next = run.position + run.events;
                    path.bytes += run.bytes;
                    path.oldest_at.get_or_insert(run.at);
                }
                None
            }
            Command::Took { .. } => None,
            other => Some(other),
        }
    }

    /// Answers what waits for a commit.
    fn finish(&mut self) -> Next {
        for command in std::mem::take(&mut self.held) {
            match command {
                Command::Source { name, reply } => drop(reply.send(self.source(&name))),
                Command::Action { trigger, number, source, path, floor, reply } => {
                    let found = self.action(&trigger, number, source, path, floor);
                    self.active.extend(found.as_ref().ok());
                    let _ = reply.send(found);
                }
                Command::RetireOthers { reply } => {
                    let active = self.active.clone();
                    let retired = self.retire(|action| !active.contains(&action));
                    let _ = reply.send(retired.map(|()| active));
                }
                Command::Retire { actions } => {
                    self.active.retain(|action| !actions.contains(action));
                    self.on_hold.retain(|action| !actions.contains(action));
                    if let Err(error) = self.retire(|action| actions.contains(&action)) {
                        tracing::warn!(%error, "failed to forget actions; the next start does");
                    }
                }
                Command::Hold { action, is_held: true } => drop(self.on_hold.insert(action)),
                Command::Hold { action, is_held: false } => drop(self.on_hold.remove(&action)),
                Command::Path { name, retention, reply } => drop(reply.send(self.path(&name, retention))),
                Command::Flush { reply } => drop(reply.send(())),
                Command::Stop { reply } => {
                    let _ = reply.send(());
                    return Next::End;
                }
                Command::Events { .. } | Command::Run { .. } | Command::Took { .. } => {}
            }
        }
        Next::On
    }

    fn source(&mut self, name: &str) -> Result<SourceId, ReadError> {
        self.db.execute("INSERT OR IGNORE INTO sources (name) VALUES (?)", [name])?;
        let id = self.db.query_row("SELECT id FROM sources WHERE name = ?", [name], |row| row.get(0))?;
        rows::check_owner(id)?;
        Ok(id)
    }

    fn action(
        &mut self,
        trigger: &str,
        number: usize,
        source: SourceId,
        path: i64,
        floor: u64,
    ) -> Result<ActionId, ReadError> {
        // No number is given twice while the process lives, also when the action that had it is deleted.
        let highest: i64 =
            self.db.query_row("SELECT coalesce(max(id), 0) FROM actions", [], |row| row.get(0))?;
        self.last_action = self.last_action.max(highest);
        let made = self.db.execute(
            "INSERT OR IGNORE INTO actions (id, trigger, number, source, path, floor) VALUES (?, ?, ?, ?, ?, ?)",
            params![self.last_action + 1, trigger, number as i64, source, path, floor as i64],
        )?;
        self.last_action += made as i64;
        Ok(self.db.query_row(
            "SELECT id FROM actions WHERE trigger = ? AND number = ? AND source = ? AND path = ? AND NOT retired",
            params![trigger, number as i64, source, path],
            |row| row.get(0),
        )?)
    }

    fn path(&mut self, name: &str, retention: Retention) -> Result<NewPath, ReadError> {
        self.db.execute("INSERT OR IGNORE INTO paths (name) VALUES (?)", [name])?;
        let reader = Reader::of(&self.files).map_err(|error| ReadError::Failed(error.to_string()))?;
        let facts = reader.path(name)?;
        let facts = facts.ok_or_else(|| ReadError::Failed(format!("the path {name} was not made")))?;
        rows::check_owner(facts.id)?;
        if let Some(known) = self.paths.iter_mut().find(|path| path.id == facts.id) {
            // It was one of an earlier time, or was taken away meanwhile.
            known.retention = retention;
            return Ok((facts, known.committed.subscribe()));
        }
        let (committed, seen) = watch::channel(facts.next);
        self.paths.push(kept((facts.clone(), retention, committed)));
        Ok((facts, seen))
    }

    fn retire(&mut self, is_retired: impl Fn(ActionId) -> bool) -> Result<(), ReadError> {
        let tx = self.db.transaction()?;
        for action in ActionFacts::all(&tx, None)? {
            if is_retired(action.id) {
                tx.execute("UPDATE actions SET retired = 1 WHERE id = ?", [action.id])?;
            }
        }
        tx.execute("DELETE FROM actions WHERE retired AND id NOT IN (SELECT action FROM runs)", [])?;
        Ok(tx.commit()?)
    }

    fn fail(&mut self, error: String) {
        METRICS.journal_failures.inc();
        self.health.send_if_modified(|health| match health {
            Health::Failing { error: known, .. } => {
                *known = error;
                true
            }
            Health::Writing => {
                tracing::error!(error, "the journal cannot be written; nothing is acknowledged until it can");
                *health = Health::Failing { error, since: SystemTime::now() };
                true
            }
        });
    }

    fn recovered(&mut self) {
        let was = self
            .health
            .send_if_modified(|health| std::mem::replace(health, Health::Writing) != Health::Writing);
        if was {
            tracing::info!("the journal is written again");
            if let Err(error) = self.files.set_reserve() {
                tracing::debug!(%error, "failed to set room aside for a full disk");
            }
        }
    }
}

fn kept((facts, retention, committed): (PathFacts, Retention, watch::Sender<u64>)) -> Kept {
    Kept {
        id: facts.id,
        retention,
        committed,
        oldest: facts.oldest,
        next: facts.next,
        bytes: facts.bytes,
        oldest_at: facts.times.map(|(oldest, _)| reader::millis(oldest)),
    }
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}
