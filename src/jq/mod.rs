//! Runs jq programs that users give, in child processes, so that no program can harm the server.
//!
//! A program may loop for ever, ask for all memory or exhaust a stack. So it is compiled and run in a worker
//! only: the same binary as a child with a limit on its memory, an empty environment and nothing but two
//! pipes. [`Pool`] is the server's side, [`worker::run`] the child's; `wire` is what they say.

mod child;
mod delete;
mod json;
mod pool;
mod program;
mod wire;
pub mod worker;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use pool::Pool;
pub use program::CompileError;

/// What programs may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time for one event, by the clock.
    pub time: Duration,
    /// Bytes of one transformed event.
    pub output_bytes: usize,
    /// Most workers.
    pub workers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Self { time: Duration::from_millis(200), output_bytes: 1024 * 1024, workers }
    }
}

/// The programs that an event passes: first the filter, then the transformer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steps {
    /// Only what it answers with `true` is sent.
    pub filter: Option<Arc<str>>,
    /// Its one output is sent instead of the event.
    pub transformer: Option<Arc<str>>,
}

/// What becomes of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is sent as it is.
    Unchanged,
    /// This JSON is sent in its place.
    Changed(Bytes),
    /// It is not sent.
    Dropped(Reason),
}

/// Why an event is not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The filter did not answer `true`.
    False,
    /// A step failed. The text may quote the event.
    Error(String),
    /// A step took too much time, memory or stack; its worker had to end.
    OverBudget,
    /// The transformer made more than [`Limits::output_bytes`].
    OutputTooLarge,
}

/// Why a program was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// It is wrong.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// It took too much time, memory or stack to compile.
    #[error("the program is too large or too deeply nested")]
    TooLarge,
    /// No worker could be asked.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// No worker could be started. Worth another try later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no jq worker: {0}")]
pub struct Unavailable(pub String);
