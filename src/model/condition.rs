//! Whether something that events come from works just now. Pure.

use std::time::SystemTime;

/// The state of a source, as `/readyz` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Not connected yet, and nothing failed yet.
    Starting,
    /// Events can arrive.
    Running,
    /// No event can arrive until something is mended; the source keeps trying.
    Failing {
        /// What went wrong last.
        error: String,
        /// Since when it does not work.
        since: SystemTime,
    },
}
