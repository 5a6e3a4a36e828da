//! The journal in memory: what was broadcast, until retention or the end of the process.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::reading::Reading;
use super::{Appended, Found, Journal, NotAppended, Position, ReadError, ReadLimit, Run, Start, Stored};
use crate::model::event::{Event, EventId};
use crate::model::event_id;
use crate::model::gateway::{PathKey, Retention};

/// Keeps the paths' events in memory, each path within its retention.
#[derive(Debug, Default)]
pub struct Memory {
    paths: RwLock<HashMap<PathKey, Arc<Mutex<Log>>>>,
}

#[derive(Debug)]
struct Log {
    retention: Retention,
    runs: VecDeque<Kept>,
    next: Position,
    bytes: u64,
    /// When it began: what was before is not here.
    began: SystemTime,
    committed: watch::Sender<Position>,
}

#[derive(Debug)]
struct Kept {
    position: Position,
    events: u64,
    bytes: u64,
    /// When it was appended; never before the run before it.
    at: SystemTime,
    /// The lowest and the highest id in it.
    ids: (EventId, EventId),
    batches: Arc<Vec<Vec<Event>>>,
}

impl Memory {
    /// Keeps a path from now on. One that it keeps already stays as it is.
    pub fn add(&self, path: &PathKey, retention: Retention) {
        let log = || Log {
            retention,
            runs: VecDeque::new(),
            next: 0,
            bytes: 0,
            began: SystemTime::now(),
            committed: watch::Sender::new(0),
        };
        let mut paths = self.paths.write().unwrap_or_else(PoisonError::into_inner);
        lock(paths.entry(path.clone()).or_insert_with(|| Arc::new(Mutex::new(log())))).retention = retention;
    }

    fn log(&self, path: &PathKey) -> Option<Arc<Mutex<Log>>> {
        self.paths.read().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    /// Drops what retention does not keep. The newest run stays, however large it is, until it is too old.
    fn retain(&mut self, now: SystemTime) {
        while let Some(oldest) = self.runs.front() {
            let is_old = now.duration_since(oldest.at).unwrap_or(Duration::ZERO) > self.retention.age;
            let is_over =
                self.bytes > self.retention.bytes || self.next - oldest.position > self.retention.events;
            if !(is_old || is_over && self.runs.len() > 1) {
                break;
            }
            self.bytes -= oldest.bytes;
            self.runs.pop_front();
        }
    }

    fn oldest(&self) -> Position {
        self.runs.front().map_or(self.next, |run| run.position)
    }

    /// Where the first run stands that was appended at `time` or later.
    fn since(&self, time: SystemTime) -> Position {
        let at = self.runs.partition_point(|run| run.at < time);
        self.runs.get(at).map_or(self.next, |run| run.position)
    }

    /// The place of an event. An id is made before its event is appended.
    fn position_of(&self, id: EventId) -> Option<Position> {
        let from = event_id::time(id).map_or(0, |time| self.runs.partition_point(|run| run.at < time));
        let run = self.runs.range(from..).find(|run| {
            run.ids.0 <= id && id <= run.ids.1 && run.batches.iter().flatten().any(|event| event.id == id)
        })?;
        let before = run.batches.iter().flatten().take_while(|event| event.id != id).count();
        Some(run.position + before as u64)
    }
}

impl Journal for Memory {
    fn append(&self, run: Run) -> Result<Appended, NotAppended> {
        let now = SystemTime::now();
        let log = self.log(&run.path).ok_or(NotAppended::Known)?;
        let mut log = lock(&log);
        let position = log.next;
        let ids = run.batches.iter().flatten().map(|event| event.id);
        let Some(first) = ids.clone().next() else { return Err(NotAppended::Known) };
        let (low, high) = ids.fold((first, first), |(low, high), id| (low.min(id), high.max(id)));
        let events = run.batches.iter().map(|batch| batch.len() as u64).sum();
        let bytes = run.batches.iter().flatten().map(|event| event.json.len() as u64).sum();
        // Never before the run before it, nor before one of its ids was made: both are searched by time.
        let at = log.runs.back().map_or(now, |last| last.at.max(now));
        let at = event_id::time(high).map_or(at, |made| made.max(at));
        log.next += events;
        log.bytes += bytes;
        let batches = Arc::clone(&run.batches);
        log.runs.push_back(Kept { position, events, bytes, at, ids: (low, high), batches });
        log.retain(now);
        log.committed.send_replace(log.next);
        Ok(Appended { position, batches: run.batches })
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }

    fn committed(&self, path: &PathKey) -> Option<watch::Receiver<Position>> {
        Some(lock(&*self.log(path)?).committed.subscribe())
    }

    fn find(&self, path: &PathKey, start: Start) -> Result<Found, ReadError> {
        let Some(log) = self.log(path) else { return Err(ReadError::Gone { oldest: 0 }) };
        let mut log = lock(&log);
        log.retain(SystemTime::now());
        let oldest = log.oldest();
        let (position, gap) = match start {
            Start::Last(count) => (log.next.saturating_sub(count).max(oldest), false),
            Start::Since(time) => (log.since(time), log.lacks(time)),
            Start::After(id) => match (log.position_of(id), event_id::time(id)) {
                (Some(position), _) => (position + 1, false),
                (None, Some(time)) => (log.since(time), log.lacks(time) || time < log.began),
                (None, None) => (oldest, true),
            },
        };
        let first = log.runs.front().and_then(|run| run.batches.iter().flatten().next());
        Ok(Found { position, gap, oldest: first.map(|event| event.id) })
    }

    fn read(&self, path: &PathKey, from: Position, limit: ReadLimit) -> Result<Vec<Stored>, ReadError> {
        let Some(log) = self.log(path) else { return Err(ReadError::Gone { oldest: 0 }) };
        let log = lock(&log);
        if from < log.oldest() {
            return Err(ReadError::Gone { oldest: log.oldest() });
        }
        let mut reading = Reading::new(from, limit);
        let first = log.runs.partition_point(|run| run.position + run.events <= from);
        for run in log.runs.range(first..) {
            let mut position = run.position;
            for batch in run.batches.iter() {
                if !reading.take(position, batch) {
                    return Ok(reading.stored);
                }
                position += batch.len() as u64;
            }
        }
        Ok(reading.stored)
    }
}

impl Log {
    /// Whether something that was broadcast at `time` or later may be gone.
    fn lacks(&self, time: SystemTime) -> bool {
        self.oldest() > 0 && self.runs.front().is_none_or(|oldest| time < oldest.at)
    }
}
