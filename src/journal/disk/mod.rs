//! The journal on disk: a SQLite database that one thread writes to, in groups, and several read.
//!
//! Events of a source are written when they come in, and their sender is acknowledged when that is committed.
//! The batches of a path are written as runs, which name stretches of sources. [`Disk`] gives every event and run
//! its place under one lock and queues it in that order; `writer` commits. The queue is bounded by
//! [`QUEUE_BYTES`]; when it is full those who append wait. `commit` is what it writes, `retention` deletes, `reader`
//! reads, `verify` checks, `file` knows the files, `rows` what stands in them.

mod changes;
mod commit;
mod facts;
mod file;
mod newest;
mod reader;
mod recall;
mod retention;
mod rows;
mod verify;
mod writer;

use std::collections::HashMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub use self::facts::PathFacts;
pub use self::file::OpenError;
pub use self::reader::Reader;

use self::commit::NewRun;
use self::file::Files;
use self::writer::{Command, Writer};
use super::{
    Appended, Found, Journal, NotAppended, Origin, Paths, Position, ReadError, ReadLimit, Run, Start, Stored,
};
use crate::model::event::Event;
use crate::model::event_id;
use crate::model::gateway::{Durability, PathKey, Retention};
use crate::model::id::Id;
use crate::model::receipt::Receipt;
use crate::model::repeat::Repeats;

/// Bytes of events that may wait for the writer. What is larger alone waits until the queue is empty.
pub const QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// What a command counts in the queue besides its events.
const COMMAND_BYTES: usize = 512;
/// A permit of the queue stands for so many bytes.
const PERMIT_BYTES: usize = 1024;
/// How long a flush may take, as before a source is read again from the journal.
const PATIENCE: Duration = Duration::from_secs(5);

/// An action of a trigger in the journal.
pub type ActionId = i64;
/// A source in the journal.
pub type SourceId = i64;

/// Whether the journal takes events, as `/readyz` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Writing,
    /// It keeps trying. Nothing is acknowledged meanwhile.
    Failing {
        /// What went wrong last.
        error: String,
        /// Since when.
        since: SystemTime,
    },
}

/// The journal on disk, open for writing.
#[derive(Debug)]
pub struct Disk {
    files: Arc<Files>,
    state: Mutex<State>,
    commands: mpsc::Sender<Command>,
    room: Arc<Semaphore>,
    durable: Arc<Durable>,
    health: watch::Receiver<Health>,
    readers: Mutex<Vec<Reader>>,
    /// What senders may repeat, from before this start, until their session is seen.
    repeats: Mutex<HashMap<u64, Repeats>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The offset after the last committed event of sources that somebody follows.
type Durable = Mutex<HashMap<SourceId, watch::Sender<u64>>>;

/// Where everything stands, also what is queued and not committed.
#[derive(Debug, Default)]
struct State {
    paths: HashMap<PathKey, PathState>,
    sources: HashMap<SourceId, u64>,
    actions: HashMap<ActionId, ActionState>,
}

#[derive(Debug)]
struct PathState {
    id: i64,
    next: Position,
    /// Milliseconds since 1970 of the last run.
    at: i64,
    committed: watch::Receiver<Position>,
}

#[derive(Debug)]
struct ActionState {
    source: SourceId,
    /// The offset of the first event that it has neither batched nor let pass.
    cursor: u64,
    /// Whether it takes nothing for a while, so that retention may let events pass it.
    is_held: bool,
}

impl Disk {
    /// Gives the room free that is set aside for a full disk, if it is full: what else is kept in `folder` needs some to
    /// open. Refused while another process has the journal.
    pub fn make_room(folder: &Path) -> Result<(), OpenError> {
        Files::lock(folder).map(|files| files.make_room())
    }

    /// Opens the journal in `folder`, or makes it, for the paths among `paths` that are kept on disk. Event ids
    /// sort after all that the journal holds from now on.
    pub fn open(folder: &Path, paths: &Paths) -> Result<Self, OpenError> {
        let files = Arc::new(Files::lock(folder)?);
        let database = |error: rusqlite::Error| OpenError::Database(folder.to_owned(), error);
        let read =
            |error: ReadError| OpenError::Io(folder.to_owned(), std::io::Error::other(error.to_string()));
        let db = files.writer()?;
        let kept: Vec<_> =
            paths.iter().filter(|(_, (durability, _))| *durability == Durability::Disk).collect();
        for (key, _) in &kept {
            db.execute("INSERT OR IGNORE INTO paths (name) VALUES (?)", [key.to_string()])
                .map_err(database)?;
        }
        let reader = Reader::of(&files)?;
        let facts = reader.paths().map_err(read)?;
        let mut state = State::default();
        let mut retention = Vec::new();
        for facts in &facts {
            let Some((key, (_, keep))) = kept.iter().find(|(key, _)| key.to_string() == facts.name) else {
                // A path that is no more: what was broadcast there goes in its time.
                retention.push((facts.clone(), Retention::default(), watch::Sender::new(facts.next)));
                continue;
            };
            let at = facts.times.map_or(0, |(_, newest)| reader::millis(newest));
            let (committed, seen) = watch::channel(facts.next);
            state
                .paths
                .insert((*key).clone(), PathState { id: facts.id, next: facts.next, at, committed: seen });
            retention.push((facts.clone(), *keep, committed));
        }
        let sources = reader.sources().map_err(read)?;
        for source in &sources {
            event_id::start_after(source.high);
            state.sources.insert(source.id, source.next);
        }
        let actions = reader.actions().map_err(read)?;
        for action in actions.iter().filter(|action| !action.retired) {
            let cursor = ActionState { source: action.source, cursor: action.cursor, is_held: false };
            state.actions.insert(action.id, cursor);
        }
        let repeats = recall::recall(&reader).map_err(read)?;
        if let Err(error) = files.set_reserve() {
            tracing::warn!(%error, "failed to set room aside for a full disk");
        }
        let (commands, queue) = mpsc::channel();
        let (health, healthy) = watch::channel(Health::Writing);
        let durable = Arc::<Durable>::default();
        let told = Arc::clone(&durable);
        let room = Arc::new(Semaphore::new(QUEUE_BYTES / PERMIT_BYTES));
        let told = (told, Arc::clone(&room));
        let writer = Writer::new(db, Arc::clone(&files), queue, health, &sources, retention, told);
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| OpenError::Io(folder.to_owned(), error))?;
        Ok(Self {
            files,
            state: Mutex::new(state),
            commands,
            room,
            durable,
            health: healthy,
            readers: Mutex::new(vec![reader]),
            repeats: Mutex::new(repeats),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Whether the journal takes events.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn room_for(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_many_owned(permits(bytes)).ok()
    }

    /// The source with this name, known from now on. Blocks for one commit at most.
    pub fn source(&self, name: &str) -> Result<SourceId, ReadError> {
        let (reply, done) = mpsc::channel();
        self.ask(Command::Source { name: name.to_owned(), reply }, &done)?.inspect(|id| {
            self.state().sources.entry(*id).or_insert(0);
        })
    }

    /// The action with this number of a trigger, on a source and a path. A new one begins with the source's next
    /// event. Blocks for one commit at most.
    pub fn action(
        &self,
        trigger: &Id,
        number: usize,
        source: SourceId,
        path: &PathKey,
    ) -> Result<ActionId, ReadError> {
        let (path, floor) = {
            let state = self.state();
            let known = state.paths.get(path).map(|path| path.id);
            let missing = || ReadError::Failed(format!("the journal does not know the path {path}"));
            (known.ok_or_else(missing)?, state.sources.get(&source).copied().unwrap_or(0))
        };
        let (reply, done) = mpsc::channel();
        let trigger = trigger.to_string();
        let id = self.ask(Command::Action { trigger, number, source, path, floor, reply }, &done)??;
        self.state().actions.entry(id).or_insert(ActionState { source, cursor: floor, is_held: false });
        Ok(id)
    }

    /// Every action that was not asked for is retired: its trigger is no more. Call it when all have been asked for.
    pub fn retire_others(&self) -> Result<(), ReadError> {
        let (reply, done) = mpsc::channel();
        let active = self.ask(Command::RetireOthers { reply }, &done)??;
        self.state().actions.retain(|action, _| active.contains(action));
        Ok(())
    }

    /// Puts events that came together at the end of their source. The receipt is accepted when they are
    /// committed. Gives the offset of the first, or everything back if the queue is full.
    pub fn log(&self, source: SourceId, arrived: Arrived) -> Result<u64, Arrived> {
        let bytes = arrived.events.iter().map(|event| event.json.len()).sum();
        let mut state = self.state();
        let Some(permit) = self.room_for(bytes) else { return Err(arrived) };
        let next = state.sources.entry(source).or_insert(0);
        let first = *next;
        *next += arrived.events.len() as u64;
        if let Some((action, end)) = arrived.made_of
            && let Some(action) = state.actions.get_mut(&action)
        {
            action.cursor = action.cursor.max(end);
        }
        // An error means that the writer has ended: the receipt goes with the command and refuses.
        let _ = self.commands.send(Command::Events { source, first, bytes, arrived, _permit: permit });
        Ok(first)
    }

    /// The offset of the first event that an action has not batched.
    pub fn cursor(&self, action: ActionId) -> u64 {
        self.state().actions.get(&action).map_or(0, |action| action.cursor)
    }

    /// The offset of a source's next event, when everything before it is committed. Blocks.
    pub fn flushed(&self, source: SourceId) -> Result<u64, ReadError> {
        let next = self.state().sources.get(&source).copied().unwrap_or(0);
        let (reply, done) = mpsc::channel();
        self.ask(Command::Flush { reply }, &done)?;
        Ok(next)
    }

    /// What the highest id of a source's committed events sorts by ([`event_id::order`]); 0 if there are none. Blocks.
    pub fn highest(&self, source: SourceId) -> Result<u64, ReadError> {
        self.with_reader(|reader| reader.highest(source))
    }

    /// Events of a source from an offset on, as many as stand in one row; one at least. They must be committed.
    /// Blocks.
    pub fn backlog(&self, source: SourceId, from: u64) -> Result<Vec<Event>, ReadError> {
        let events = self.with_reader(|reader| reader.backlog(source, from))?;
        if events.is_empty() {
            return Err(ReadError::Failed(format!(
                "the event at offset {from} of source {source} is missing"
            )));
        }
        Ok(events)
    }

    /// Ready when the queue may have room for events of so many bytes.
    pub fn has_room(&self, bytes: usize) -> impl Future<Output = ()> + Send + use<> {
        let room = Arc::clone(&self.room);
        // Half of it at least, so that those who wait are not woken for every command.
        let half = (QUEUE_BYTES / PERMIT_BYTES / 2) as u32;
        let permits = permits(bytes).max(half);
        // The semaphore is never closed.
        async move { drop(room.acquire_many(permits).await) }
    }

    /// What this sender may repeat from before the start. It is told once.
    pub fn take_repeats(&self, session: u64) -> Option<Repeats> {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner).remove(&session)
    }

    /// What all senders may repeat that have not been told yet.
    pub fn take_all_repeats(&self) -> impl Iterator<Item = Repeats> + use<> {
        std::mem::take(&mut *self.repeats.lock().unwrap_or_else(PoisonError::into_inner)).into_values()
    }

    /// Commits what is queued, and ends. Waits for a bounded time.
    pub fn close(&self) {
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let (reply, done) = mpsc::channel();
        let _ = self.commands.send(Command::Stop { reply });
        if done.recv_timeout(PATIENCE).is_err() {
            tracing::warn!("the journal did not commit everything in time");
            return;
        }
        // A panic of it has been logged.
        let _ = thread.join();
    }

    fn ask<T>(&self, command: Command, done: &mpsc::Receiver<T>) -> Result<T, ReadError> {
        let ended = |_| ReadError::Failed("the journal has ended".to_owned());
        self.commands.send(command).map_err(|_| ended(()))?;
        done.recv_timeout(PATIENCE).map_err(|error| match error {
            mpsc::RecvTimeoutError::Timeout => {
                ReadError::Failed("the journal does not answer in time".to_owned())
            }
            mpsc::RecvTimeoutError::Disconnected => ended(()),
        })
    }

    fn with_reader<R>(&self, work: impl FnOnce(&Reader) -> Result<R, ReadError>) -> Result<R, ReadError> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = match idle {
            Some(reader) => reader,
            None => Reader::of(&self.files).map_err(|error| ReadError::Failed(error.to_string()))?,
        };
        let done = work(&reader);
        // After a failure a fresh connection may do better.
        if !matches!(done, Err(ReadError::Failed(_))) {
            self.readers.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        }
        done
    }

    fn path_id(&self, path: &PathKey) -> Result<i64, ReadError> {
        let id = self.state().paths.get(path).map(|path| path.id);
        id.ok_or_else(|| ReadError::Failed(format!("the journal does not know the path {path}")))
    }
}

/// Events that came together, to be written.
#[derive(Debug)]
pub struct Arrived {
    /// At least one.
    pub events: Arc<[Event]>,
    /// How their sender would repeat them.
    pub repeats: Option<Repeats>,
    /// What they were made of: the action that made them, and the offset after the events that it has taken for them.
    pub made_of: Option<(ActionId, u64)>,
    /// Accepted when they are committed.
    pub receipt: Receipt,
}

impl Journal for Disk {
    fn append(&self, run: Run) -> Result<Appended, NotAppended> {
        let Some(Origin { action, first }) = run.origin else { return Err(NotAppended::Known) };
        let mut state = self.state();
        let State { paths, actions, .. } = &mut *state;
        let (Some(path), Some(action_state)) = (paths.get_mut(&run.path), actions.get_mut(&action)) else {
            tracing::error!(path = %run.path, action, "a run for a path or action that the journal does not know");
            return Err(NotAppended::Known);
        };
        // An actor that started again sends what its predecessor may have sent already.
        let known = action_state.cursor.saturating_sub(first) as usize;
        let batches = without_first(&run.batches, known);
        let first = first + known as u64;
        if batches.is_empty() || first > action_state.cursor {
            if first > action_state.cursor {
                tracing::error!(path = %run.path, action, first, expected = action_state.cursor,
                    "a run leaves events out; it is not taken");
            }
            return Err(NotAppended::Known);
        }
        let Some(permit) = self.room_for(8 * batches.len()) else { return Err(NotAppended::Full(run)) };
        let newest = batches.iter().flatten().map(|event| event.id).max();
        let made = newest.and_then(event_id::time).map_or(0, reader::millis);
        // Never before the run before it, nor before one of its ids was made: both are searched by time.
        path.at = reader::millis(SystemTime::now()).max(path.at).max(made);
        let counts: Vec<usize> = batches.iter().map(Vec::len).collect();
        let events = counts.iter().sum::<usize>() as u64;
        let bytes = batches.iter().flatten().map(|event| event.json.len() as u64).sum();
        let position = path.next;
        path.next += events;
        action_state.cursor = first + events;
        let new = NewRun {
            path: path.id,
            position,
            action,
            source: action_state.source,
            first,
            events,
            bytes,
            at: path.at,
            counts,
        };
        // An error means that the writer has ended; what is not committed is not delivered.
        let _ = self.commands.send(Command::Run { run: new, _permit: permit });
        Ok(Appended { position, batches })
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.has_room(0))
    }

    fn committed(&self, path: &PathKey) -> Option<watch::Receiver<Position>> {
        self.state().paths.get(path).map(|path| path.committed.clone())
    }

    fn find(&self, path: &PathKey, start: Start) -> Result<Found, ReadError> {
        let id = self.path_id(path)?;
        self.with_reader(|reader| reader.find(id, start))
    }

    fn read(&self, path: &PathKey, from: Position, limit: ReadLimit) -> Result<Vec<Stored>, ReadError> {
        let id = self.path_id(path)?;
        self.with_reader(|reader| reader.read(id, from, limit))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.close();
    }
}

/// The permits of a command with events of so many bytes.
fn permits(bytes: usize) -> u32 {
    bytes.saturating_add(COMMAND_BYTES).div_ceil(PERMIT_BYTES).min(QUEUE_BYTES / PERMIT_BYTES) as u32
}

/// Batches without their first events; those that become empty are left out.
fn without_first(batches: &Arc<Vec<Vec<Event>>>, mut known: usize) -> Arc<Vec<Vec<Event>>> {
    if known == 0 {
        return Arc::clone(batches);
    }
    let rest = batches.iter().filter_map(|batch| {
        let skip = known.min(batch.len());
        known -= skip;
        batch.get(skip..).filter(|rest| !rest.is_empty()).map(<[Event]>::to_vec)
    });
    Arc::new(rest.collect())
}
