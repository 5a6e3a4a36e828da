//! The bounded queue from an MQTT source's task to its reader.
//!
//! Its unit is a slot: a group takes one for each started [`SLOT_BYTES`] of JSON, at most all of them, so
//! that the bound holds for memory, too. When it is full the task stops acknowledging; see [`super::task`].

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::model::receipt::Arrivals;

/// JSON that one slot holds. Groups are no larger, but for one event that is larger alone.
pub(super) const SLOT_BYTES: usize = 64 * 1024;

/// The task's end.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    groups: mpsc::Sender<Queued>,
    slots: Arc<Semaphore>,
    capacity: usize,
}

/// The reader's end.
#[derive(Debug)]
pub(super) struct Receiver {
    groups: mpsc::Receiver<Queued>,
}

/// Room for one group.
#[derive(Debug)]
pub(super) struct Room(OwnedSemaphorePermit);

#[derive(Debug)]
struct Queued {
    arrivals: Arrivals,
    room: Room,
}

/// A queue of `capacity` slots.
pub(super) fn queue(capacity: usize) -> (Sender, Receiver) {
    let capacity = capacity.max(1);
    // A group holds at least one slot, so the channel is never full when the slots are not.
    let (sender, groups) = mpsc::channel(capacity);
    (Sender { groups: sender, slots: Arc::new(Semaphore::new(capacity)), capacity }, Receiver { groups })
}

impl Sender {
    fn slots(&self, bytes: usize) -> u32 {
        // Not above the capacity, which is a small number.
        bytes.div_ceil(SLOT_BYTES).clamp(1, self.capacity) as u32
    }

    /// Room for a group of this size, if there is any now.
    pub(super) fn try_room(&self, bytes: usize) -> Option<Room> {
        Arc::clone(&self.slots).try_acquire_many_owned(self.slots(bytes)).ok().map(Room)
    }

    /// Waits for room for a group of this size.
    pub(super) async fn room(&self, bytes: usize) -> Option<Room> {
        Arc::clone(&self.slots).acquire_many_owned(self.slots(bytes)).await.ok().map(Room)
    }

    /// Waits until at least half of the queue is empty.
    pub(super) async fn half_empty(&self) {
        let half = self.capacity.div_ceil(2) as u32;
        // The permit is given back at once; the semaphore is never closed.
        drop(self.slots.acquire_many(half).await);
    }

    /// Whether at least half of the queue is empty now.
    pub(super) fn is_half_empty(&self) -> bool {
        self.slots.available_permits() >= self.capacity.div_ceil(2)
    }

    /// Puts a group into its room. Without a reader it is dropped, and thereby refused.
    pub(super) fn send(&self, room: Room, arrivals: Arrivals) {
        drop(self.groups.try_send(Queued { arrivals, room }));
    }
}

impl Receiver {
    /// The next group. `None`: the task has ended and nothing is left.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arrivals>> {
        self.groups.poll_recv(cx).map(|queued| {
            queued.map(|Queued { arrivals, room: Room(slots) }| {
                drop(slots);
                arrivals
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::sync::Notify;

    use super::*;
    use crate::model::receipt::Gate;

    fn group() -> Arrivals {
        let (_, mut receipts) = Gate::new(1, Arc::new(Notify::new()));
        Arrivals { events: Vec::new(), repeats: None, made_of: None, receipt: receipts.pop().unwrap() }
    }

    #[tokio::test]
    async fn the_queue_is_bounded_by_bytes_as_well() {
        let (sender, mut receiver) = queue(4);
        for (bytes, fits) in
            [(1, true), (SLOT_BYTES + 1, true), (SLOT_BYTES + 1, false), (0, true), (1, false)]
        {
            let room = sender.try_room(bytes);
            assert_eq!(room.is_some(), fits, "{bytes}");
            room.into_iter().for_each(|room| sender.send(room, group()));
        }
        assert!(!sender.is_half_empty());
        assert!(poll_fn(|cx| receiver.poll_next(cx)).await.is_some());
        assert!(poll_fn(|cx| receiver.poll_next(cx)).await.is_some());
        assert!(sender.is_half_empty());
        sender.half_empty().await;
    }

    #[tokio::test]
    async fn a_giant_fits_into_an_empty_queue() {
        let (sender, mut receiver) = queue(4);
        let giant = sender.room(usize::MAX / 2).await.unwrap();
        assert!(sender.try_room(1).is_none());
        sender.send(giant, group());
        poll_fn(|cx| receiver.poll_next(cx)).await.unwrap().receipt.accept();
        assert!(sender.try_room(usize::MAX / 2).is_some());
    }
}
