//! Where events come in: the [`Source`] port.
//!
//! A source hands over groups of encoded events, each with a receipt. Three exist: the embedded MQTT
//! server's link (`embedded`), the client of an external broker (`mqtt`), and the events of a container registry
//! (`registry`). One suite of tests runs over the first two. The actor that reads a source is in `actor`.

use std::task::{Context, Poll};

use tokio::sync::watch;

pub use crate::model::condition::Condition;
use crate::model::receipt::Arrivals;

pub mod actor;
pub mod embedded;
pub mod mqtt;
pub mod readiness;
pub mod registry;

/// Something that events come from. Implementations are fed by a task of their own over a bounded queue,
/// so that polling does no I/O.
pub trait Source: Send + 'static {
    /// The next group of events, in the order of arrival. `None` means that the source has ended for
    /// good: nothing comes after it.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arrivals>>;

    /// Begins to end: takes no new messages; what was taken is still handed over, then comes `None`.
    fn stop(&mut self);

    /// Whether the source works just now.
    fn condition(&self) -> watch::Receiver<Condition>;
}
