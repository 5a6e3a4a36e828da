//! [`Link`]: the events of a registry that one source of triggers wants, read from the outbox.
//!
//! A task reads the outbox in order and hands groups over; when a group has been accepted it goes on behind it. What was
//! handed over and may not have arrived is offered again to the next link of the same source, which leaves out what its
//! journal has. The queue between task and source has one place: the outbox is the queue.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};

use super::followed::Followed;
use super::store::index;
use crate::model::container::ContainerFilter;
use crate::model::event_id;
use crate::model::receipt::{Arrivals, Gate, Verdict};
use crate::model::trigger::TriggerSource;

/// Events of one group.
const GROUP: usize = 256;
/// How long to wait after the outbox could not be read.
const RETRY: Duration = Duration::from_secs(1);

/// A source's end of it.
#[derive(Debug)]
pub struct Link {
    groups: mpsc::Receiver<Arrivals>,
    stop: watch::Sender<bool>,
}

impl Link {
    /// The next group of events. `None`: the link has ended.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arrivals>> {
        self.groups.poll_recv(cx)
    }

    /// Takes nothing new from the outbox; what was taken is still handed over.
    pub fn close(&mut self) {
        self.stop.send_replace(true);
    }
}

/// What the task of a link works with.
pub(super) struct Feed {
    pub(super) followed: Arc<Followed>,
    pub(super) source: TriggerSource,
    pub(super) filter: ContainerFilter,
    /// What the ids of events sort by that the source's journal has.
    pub(super) known: u64,
}

/// A link, what ends it, and the task that feeds it.
pub(super) fn link(feed: Feed) -> (Link, watch::Sender<bool>, impl Future<Output = ()> + use<>) {
    let (sender, groups) = mpsc::channel(1);
    let (stop, stopped) = watch::channel(false);
    (Link { groups, stop: stop.clone() }, stop, run(feed, sender, stopped))
}

async fn run(feed: Feed, groups: mpsc::Sender<Arrivals>, mut stopped: watch::Receiver<bool>) {
    let Feed { followed, source, filter, known } = feed;
    let (store, registry) = (&followed.store, &followed.registry);
    let mut newest = store.newest(registry.number);
    let mut cursor = followed.cursor(&source);
    while !*stopped.borrow() {
        newest.mark_unchanged();
        let asked = {
            let registry = registry.clone();
            store.read(move |job| index::untold(job, &registry, cursor, GROUP))
        };
        let (rows, last) = match asked.await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "failed to read the outbox");
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => continue,
                    _ = stopped.changed() => return,
                }
            }
        };
        if last == cursor {
            tokio::select! {
                changed = newest.changed() => if changed.is_err() { return },
                _ = stopped.changed() => return,
                () = groups.closed() => return,
            }
            continue;
        }
        let wanted = rows.into_iter().filter(|row| {
            let tags = row.tags.lines();
            event_id::order(row.event.id) > known
                && filter.wants(&registry.declared, row.event_type, &row.repository, tags)
        });
        let events: Vec<_> = wanted.map(|row| row.event).collect();
        if !events.is_empty() {
            let wake = Arc::new(Notify::new());
            let (gate, mut receipts) = Gate::new(1, Arc::clone(&wake));
            let Some(receipt) = receipts.pop() else { return };
            // Refused if the reader has gone, or goes: the next link begins here.
            tokio::select! {
                sent = groups.send(Arrivals { events, repeats: None, made_of: None, receipt }) => if sent.is_err() { return },
                _ = stopped.changed() => return,
            }
            while gate.verdict() == Verdict::Pending {
                wake.notified().await;
            }
            if gate.verdict() == Verdict::Refused {
                // The source's chain ends; the next link begins here.
                return;
            }
        }
        cursor = last;
        followed.taken(&source, cursor);
    }
}
