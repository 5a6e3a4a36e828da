//! Workers for jq programs: started when needed, lent to one run at a time, replaced when a program breaks them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::child::{self, Broken, Child};
use super::{CheckError, Limits, Outcome, Reason, Steps, Unavailable};

/// Events of a run's first chunk. A worker is lent for one chunk, so that a slow run does not hold it long.
const FIRST_CHUNK: usize = 8;

/// Most events of a chunk.
const MAX_CHUNK: usize = 32;

/// JSON of a chunk, but for one event that is larger alone.
const CHUNK_BYTES: usize = 1024 * 1024;

/// After a chunk that took less the next one is twice as large, else half.
const QUICK: Duration = Duration::from_millis(20);

/// At most so many workers as [`Limits::workers`]. Clones share them.
///
/// Whoever finds all of them lent waits, first come, first served: as many as there are callers.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    program: PathBuf,
    arguments: Vec<OsString>,
    limits: Limits,
    runtime: Handle,
    /// One for each worker that may be lent.
    permits: Arc<Semaphore>,
    /// Workers that are not lent, at most as many as permits.
    idle: Mutex<Vec<Child>>,
}

/// A lent worker. Not given back, it is killed.
struct Lent {
    child: Child,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    /// Starts nothing yet. A worker is this program with these arguments; its pipes are served on `runtime`.
    pub fn new(program: PathBuf, arguments: Vec<OsString>, limits: Limits, runtime: Handle) -> Self {
        let permits = Arc::new(Semaphore::new(limits.workers.clamp(1, Semaphore::MAX_PERMITS)));
        Self(Arc::new(Shared { program, arguments, limits, runtime, permits, idle: Mutex::default() }))
    }

    /// Compiles a program, to tell its author what is wrong.
    pub async fn check(&self, code: &str) -> Result<(), CheckError> {
        let (shared, code) = (Arc::clone(&self.0), Arc::from(code));
        self.spawn(async move { shared.check(&code).await }).await?
    }

    /// Passes events through the steps in order: one outcome for each.
    pub async fn run(&self, steps: &Steps, events: &[Bytes]) -> Result<Vec<Outcome>, Unavailable> {
        if *steps == Steps::default() || events.is_empty() {
            return Ok(vec![Outcome::Unchanged; events.len()]);
        }
        let (shared, steps, events) = (Arc::clone(&self.0), steps.clone(), events.to_vec());
        self.spawn(async move { shared.run(&steps, &events).await }).await?
    }

    /// Runs where the pipes are served: elsewhere a busy thread would make workers look late.
    async fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Unavailable> {
        // Dropped, a set ends its tasks.
        let mut tasks = JoinSet::new();
        tasks.spawn_on(work, &self.0.runtime);
        match tasks.join_next().await {
            Some(Ok(done)) => Ok(done),
            _ => Err(Unavailable("the runtime of the workers has ended".to_owned())),
        }
    }
}

impl Shared {
    async fn check(&self, code: &Arc<str>) -> Result<(), CheckError> {
        let steps = Steps { filter: Some(Arc::clone(code)), transformer: None };
        for _ in 0..2 {
            let mut lent = self.lend().await?;
            match lent.child.compile(&steps).await {
                Ok(compiled) => {
                    self.give_back(lent);
                    return Ok(compiled.map(drop)?);
                }
                Err(Broken::Late) => break,
                Err(Broken::Ended) => {}
            }
        }
        Err(CheckError::TooLarge)
    }

    async fn run(&self, steps: &Steps, events: &[Bytes]) -> Result<Vec<Outcome>, Unavailable> {
        let mut outcomes = Vec::with_capacity(events.len());
        let mut chunk = FIRST_CHUNK;
        // The event at which a worker has ended. It is tried twice, since somebody else may have killed it.
        let mut ended_at = None;
        while let Some(rest) = events.get(outcomes.len()..).filter(|rest| !rest.is_empty()) {
            if !child::fits(rest[0].len()) {
                outcomes.push(Outcome::Dropped(Reason::OverBudget));
                continue;
            }
            let mut lent = self.lend().await?;
            let started = Instant::now();
            let broken = match lent.child.compile(steps).await {
                Ok(Ok(compiled)) => {
                    let next = &rest[..chunk_len(rest, chunk)];
                    lent.child.run(compiled, next, &self.limits, &mut outcomes).await.err()
                }
                Ok(Err(error)) => {
                    self.give_back(lent);
                    let dropped = Outcome::Dropped(Reason::Error(error.to_string()));
                    outcomes.resize(events.len(), dropped);
                    break;
                }
                Err(broken) => {
                    if broken == Broken::Late || ended_at == Some(outcomes.len()) {
                        outcomes.resize(events.len(), Outcome::Dropped(Reason::OverBudget));
                        break;
                    }
                    Some(broken)
                }
            };
            match broken {
                None => {
                    self.give_back(lent);
                    chunk = if started.elapsed() < QUICK {
                        (chunk * 2).min(MAX_CHUNK)
                    } else {
                        (chunk / 2).max(1)
                    };
                }
                Some(Broken::Ended) if ended_at != Some(outcomes.len()) => ended_at = Some(outcomes.len()),
                Some(Broken::Ended | Broken::Late) => outcomes.push(Outcome::Dropped(Reason::OverBudget)),
            }
        }
        Ok(outcomes)
    }

    async fn lend(&self) -> Result<Lent, Unavailable> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| Unavailable("the pool is closed".to_owned()))?;
        let idle = self.idle().pop();
        let child = match idle {
            Some(child) => child,
            None => Child::start(&self.program, &self.arguments).await?,
        };
        Ok(Lent { child, _permit: permit })
    }

    /// Only for a worker that has answered everything. The permit is free after the worker is.
    fn give_back(&self, Lent { child, _permit }: Lent) {
        self.idle().push(child);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Child>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events of the next chunk: at most `most`, and not many bytes.
fn chunk_len(events: &[Bytes], most: usize) -> usize {
    let mut bytes = 0_usize;
    let fitting = events.iter().take(most).take_while(|event| {
        bytes = bytes.saturating_add(event.len());
        bytes <= CHUNK_BYTES
    });
    fitting.count().max(1)
}
