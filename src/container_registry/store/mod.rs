//! [`Store`]: the durable state of all container registries, in a SQLite database that one thread works on.
//!
//! A job is a piece of work in a transaction; jobs that wait together are committed together, and a job's caller has
//! its result when that is on disk. [`WAITING`] jobs may wait; a notification that finds no room is refused, so that its
//! sender keeps it. `tables` knows the tables, `index` what is done with them.

pub(super) mod index;
pub(super) mod tables;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

pub use self::tables::OpenError;

use crate::model::condition::Condition;
use crate::model::event::Event;
use crate::telemetry::{self, METRICS, trace};

/// Jobs that may wait.
pub const WAITING: usize = 256;
/// Jobs of one commit.
const TOGETHER: usize = 64;
/// How long what was taken may stay in the outbox when nothing else is written.
const PAUSE: Duration = Duration::from_secs(1);
/// Events of a registry that are kept for people who look.
const RECENT: usize = 20;
/// How long a stop waits for the last commit.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a job was not done. Nothing of it is there.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// [`WAITING`] jobs wait already.
    #[error("too many notifications at once")]
    Busy,
    /// So many events wait to be taken by triggers that no more are taken in.
    #[error("{0} events wait to be taken by triggers")]
    Full(usize),
    /// The database cannot be written or read.
    #[error("the index cannot be written: {0}")]
    Failed(String),
    /// The server stops.
    #[error("the server stops")]
    Ended,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Tells the caller of a job that was done how its commit went.
type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Tells the caller of a job that was not done why.
type Refusal = Box<dyn FnOnce() + Send>;
type Work = Box<dyn FnOnce(&mut Job<'_>) -> Result<Reply, Refusal> + Send>;

enum Command {
    Work {
        work: Work,
        writes: bool,
        _permit: OwnedSemaphorePermit,
    },
    /// A source has taken the events of a registry up to this number.
    Taken {
        registry: i64,
        source: String,
        number: i64,
    },
    Stop,
}

/// What a job works with.
pub(super) struct Job<'a> {
    /// The tables.
    pub(super) db: &'a Connection,
    /// The newest number in the outbox of each registry that got some, for those who wait for it.
    pub(super) newest: &'a mut HashMap<i64, i64>,
    /// The events that it puts there.
    pub(super) told: &'a mut Vec<Added>,
}

/// An event that came into the outbox of a registry.
pub(super) struct Added {
    pub(super) registry: i64,
    pub(super) repository: String,
    pub(super) event: Event,
}

/// The last events of each registry, the newest first.
type Recent = Arc<Mutex<HashMap<i64, VecDeque<Bytes>>>>;

/// The store, open.
pub(super) struct Store {
    commands: mpsc::Sender<Command>,
    room: Arc<Semaphore>,
    newest: Arc<Mutex<HashMap<i64, watch::Sender<i64>>>>,
    recent: Recent,
    condition: watch::Receiver<Condition>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens the database in `folder`, or makes it. Event ids sort after all that it holds from now on.
    pub(super) fn open(folder: &Path) -> Result<Self, OpenError> {
        let db = tables::open(folder)?;
        let (commands, queue) = mpsc::channel();
        let (condition, seen) = watch::channel(Condition::Running);
        let newest = Arc::new(Mutex::new(HashMap::new()));
        let recent = Recent::default();
        let writer = Writer {
            db,
            taken: HashMap::new(),
            newest: Arc::clone(&newest),
            recent: Arc::clone(&recent),
            condition,
        };
        let thread = std::thread::Builder::new()
            .name("registries".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(|error| OpenError::Io(folder.to_owned(), error))?;
        Ok(Self {
            commands,
            room: Arc::new(Semaphore::new(WAITING)),
            newest,
            recent,
            condition: seen,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Whether the store can be written.
    pub(super) fn condition(&self) -> watch::Receiver<Condition> {
        self.condition.clone()
    }

    /// Tells the newest number of a registry's outbox.
    pub(super) fn newest(&self, registry: i64) -> watch::Receiver<i64> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.entry(registry).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// The last events of a registry since the start, the newest first.
    pub(super) fn recent(&self, registry: i64) -> Vec<Bytes> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.get(&registry).into_iter().flatten().cloned().collect()
    }

    /// Does a job if there is room for it; its result comes when it is on disk.
    pub(super) async fn try_work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Job<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.room).try_acquire_owned().map_err(|_| StoreError::Busy)?;
        self.send(permit, true, work).await
    }

    /// Does a job when there is room for it; its result comes when it is on disk.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Job<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.room).acquire_owned().await.map_err(|_| StoreError::Ended)?;
        self.send(permit, true, work).await
    }

    /// The same for a job that only reads.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Job<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.room).acquire_owned().await.map_err(|_| StoreError::Ended)?;
        self.send(permit, false, work).await
    }

    async fn send<T: Send + 'static>(
        &self,
        permit: OwnedSemaphorePermit,
        writes: bool,
        work: impl FnOnce(&mut Job<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, done) = oneshot::channel();
        // A caller that waits no more is no fault.
        let work: Work = Box::new(move |job| match work(job) {
            Ok(value) => Ok(Box::new(move |end| drop(reply.send(end.map(|()| value))))),
            Err(error) => Err(Box::new(move || drop(reply.send(Err(error))))),
        });
        self.commands.send(Command::Work { work, writes, _permit: permit }).map_err(|_| StoreError::Ended)?;
        done.await.unwrap_or(Err(StoreError::Ended))
    }

    /// A source has taken the events of a registry up to this number; what all have taken is kept no more. It is
    /// written with the next commit, or soon.
    pub(super) fn taken(&self, registry: i64, source: String, number: i64) {
        // An error means that the store has ended: they are offered again after the next start, and known.
        let _ = self.commands.send(Command::Taken { registry, source, number });
    }

    /// Commits what waits, and ends. Waits for a bounded time.
    pub(super) fn close(&self) {
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let _ = self.commands.send(Command::Stop);
        let began = Instant::now();
        while !thread.is_finished() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(2));
        }
        if thread.is_finished() {
            // A panic of it has been logged.
            let _ = thread.join();
        }
    }
}

/// The state of the thread.
struct Writer {
    db: Connection,
    /// Up to where sources have taken events, as far as it is not written yet.
    taken: HashMap<(i64, String), i64>,
    newest: Arc<Mutex<HashMap<i64, watch::Sender<i64>>>>,
    recent: Recent,
    condition: watch::Sender<Condition>,
}

impl Writer {
    fn run(mut self, queue: &mpsc::Receiver<Command>) {
        let mut goes_on = true;
        let mut written = Instant::now();
        while goes_on {
            let (mut works, mut writes) = (Vec::new(), false);
            let mut next = match queue.recv_timeout(PAUSE) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            while let Some(command) = next {
                match command {
                    Command::Work { work, writes: one_writes, _permit } => {
                        writes |= one_writes;
                        works.push((work, _permit));
                    }
                    Command::Taken { registry, source, number } => {
                        self.taken.insert((registry, source), number);
                    }
                    Command::Stop => goes_on = false,
                }
                next = (works.len() < TOGETHER).then(|| queue.try_recv().ok()).flatten();
            }
            // What was taken goes with what is written anyway, or when it has waited long enough.
            let is_due = !self.taken.is_empty() && (written.elapsed() >= PAUSE || !goes_on);
            if works.is_empty() && !is_due {
                continue;
            }
            if writes || is_due {
                written = Instant::now();
            }
            // A job that panics takes its commit with it: its callers are told so by their channels.
            let done = telemetry::contain("registries", || self.commit(works, writes || is_due));
            let done = done.unwrap_or_else(|| Err("a panic in the index".to_owned()));
            // That it can be read does not say that it can be written.
            if writes || is_due || done.is_err() {
                self.note(done);
            }
        }
    }

    /// Does jobs in one transaction. An error is that of the transaction itself, and of every job in it.
    fn commit(&mut self, works: Vec<(Work, OwnedSemaphorePermit)>, writes: bool) -> Result<(), String> {
        let mut replies = Vec::with_capacity(works.len());
        let (mut newest, mut told) = (HashMap::new(), Vec::new());
        if let Err(error) = self.transact(works, writes, &mut replies, (&mut newest, &mut told)) {
            let text = error.to_string();
            replies.into_iter().for_each(|reply| reply(Err(StoreError::Failed(text.clone()))));
            return Err(text);
        }
        if writes {
            self.taken.clear();
            METRICS.registry_commits.inc();
        }
        // Here they have entered: once, however many sources take them.
        METRICS.events_received.inc_by(told.len() as u64);
        if trace::is_on() {
            told.iter().for_each(|added| trace::received(&added.event, "", &added.repository));
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        for Added { registry, event, .. } in told {
            let events = recent.entry(registry).or_default();
            events.truncate(RECENT - 1);
            events.push_front(event.json);
        }
        drop(recent);
        let known = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        for (registry, number) in newest {
            if let Some(sender) = known.get(&registry) {
                sender.send_replace(number);
            }
        }
        drop(known);
        replies.into_iter().for_each(|reply| reply(Ok(())));
        Ok(())
    }

    fn transact(
        &mut self,
        works: Vec<(Work, OwnedSemaphorePermit)>,
        writes: bool,
        replies: &mut Vec<Reply>,
        (newest, told): (&mut HashMap<i64, i64>, &mut Vec<Added>),
    ) -> rusqlite::Result<()> {
        let mut tx = self.db.transaction()?;
        for (work, _) in works {
            let part = tx.savepoint()?;
            let (mut added, mut events) = (HashMap::new(), Vec::new());
            match work(&mut Job { db: &part, newest: &mut added, told: &mut events }) {
                Ok(reply) => {
                    replies.push(reply);
                    newest.extend(added);
                    told.extend(events);
                    part.commit()?;
                }
                Err(refuse) => {
                    // Dropped, it is rolled back; the others are none the worse.
                    drop(part);
                    refuse();
                }
            }
            // Some errors make SQLite roll all of it back by itself.
            if tx.is_autocommit() {
                let aborted = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT);
                return Err(rusqlite::Error::SqliteFailure(aborted, None));
            }
        }
        if writes {
            index::take(&tx, &self.taken)?;
        }
        tx.commit()
    }

    /// Logs once that the store has failed, or is well again.
    fn note(&self, done: Result<(), String>) {
        match done {
            Ok(()) => {
                let was = self
                    .condition
                    .send_if_modified(|now| std::mem::replace(now, Condition::Running) != Condition::Running);
                if was {
                    tracing::info!("the index of container registries is written again");
                }
            }
            Err(error) => {
                let since = match &*self.condition.borrow() {
                    Condition::Failing { since, .. } => *since,
                    _ => {
                        tracing::error!(
                            error,
                            "the index of container registries cannot be written; notifications are refused until it can"
                        );
                        SystemTime::now()
                    }
                };
                self.condition.send_replace(Condition::Failing { error, since });
            }
        }
    }
}

#[cfg(test)]
mod tests;
