//! Where events come in: the [`Source`] port.
//!
//! A source hands over groups of encoded events, each with a receipt. Four exist: the embedded MQTT
//! server's link (`embedded`), the client of an external broker (`mqtt`), the events of a container registry (`registry`),
//! and those that jq makes of others (`made`). One suite of tests runs over the first two. The actor that reads a source is in `actor`.

use std::task::{Context, Poll};

use tokio::sync::watch;

pub use crate::model::condition::Condition;
use crate::model::receipt::Arrivals;

pub mod actor;
pub mod embedded;
pub mod made;
pub mod mqtt;
pub mod readiness;
pub mod registry;

/// Why a source ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The process stops. What comes meanwhile waits where it comes from, if it can.
    Stop,
    /// Another source takes its place: what comes meanwhile is not acknowledged.
    HandOver,
    /// Nobody wants its events any more: nothing needs to be kept for it.
    Forget,
}

/// Something that events come from. Implementations are fed by a task of their own over a bounded queue,
/// so that polling does no I/O.
pub trait Source: Send + 'static {
    /// The next group of events, in the order of arrival. `None` means that the source has ended for
    /// good: nothing comes after it.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arrivals>>;

    /// Begins to end: takes no new messages; what was taken is still handed over, then comes `None`.
    fn end(&mut self, ending: Ending);

    /// Whether the source works just now.
    fn condition(&self) -> watch::Receiver<Condition>;
}
