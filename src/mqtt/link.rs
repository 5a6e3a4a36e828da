//! The engine's subscription inside the process: groups of events of one trigger source.
//!
//! Connections put groups into the bounded queue of a [`LinkQueue`]; `source` takes them from the [`Link`].
//! When it is full, connections stop reading until there is room.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use super::space::Space;
use crate::model::receipt::Arrivals;
use crate::model::trigger::MqttTopics;

/// The engine's end. Dropping it without [`Link::close`] refuses what it still holds, and what comes for its
/// source until there is another link for it.
#[derive(Debug)]
pub struct Link {
    queue: mpsc::Receiver<Arrivals>,
    number: u64,
    logged: Arc<AtomicBool>,
    space: Weak<Space>,
}

/// The connections' end.
#[derive(Debug)]
pub(crate) struct LinkQueue {
    /// Which link it is, unique in its space.
    pub(crate) number: u64,
    /// What it wants.
    pub(crate) source: MqttTopics,
    /// Where groups go.
    pub(crate) sender: mpsc::Sender<Arrivals>,
    logged: Arc<AtomicBool>,
}

impl Link {
    /// Both ends of a link.
    pub(crate) fn new(
        number: u64,
        source: MqttTopics,
        capacity: usize,
        space: Weak<Space>,
    ) -> (Self, LinkQueue) {
        let (sender, queue) = mpsc::channel(capacity.max(1));
        let logged = Arc::new(AtomicBool::new(true));
        let connections = LinkQueue { number, source, sender, logged: Arc::clone(&logged) };
        (Self { queue, number, logged, space }, connections)
    }

    /// Says that the engine does not write the events of this link to a journal, so that what is found there after
    /// a restart does not wait for them.
    pub fn set_unlogged(&self) {
        self.logged.store(false, Ordering::Relaxed);
    }

    /// The next group of events. `None`: the link was closed or the server stopped, and nothing is left.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arrivals>> {
        self.queue.poll_recv(cx)
    }

    /// Takes nothing new. Groups in the queue are still given, then comes `None`. A publish that waited for
    /// room in this link is not acknowledged.
    pub fn close(&mut self) {
        if let Some(space) = self.space.upgrade() {
            space.unlink(self.number);
        }
        self.queue.close();
    }

    /// Takes nothing new, and refuses what comes until there is another link for its source. Groups in the queue are
    /// still given, then comes `None`.
    pub fn refuse(&mut self) {
        self.queue.close();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Not `close`: while nobody reads, publishes for this source are to be refused, not acknowledged.
        self.queue.close();
    }
}

impl LinkQueue {
    /// Whether the engine writes its events to a journal.
    pub(crate) fn is_logged(&self) -> bool {
        self.logged.load(Ordering::Relaxed)
    }

    /// Room for one group, for a connection that has to wait for it. `None`: the link is closed.
    pub(crate) async fn room(self: Arc<Self>) -> Option<mpsc::OwnedPermit<Arrivals>> {
        self.sender.clone().reserve_owned().await.ok()
    }
}
