//! What waits for one subscriber. Publishers' connections put in, the subscriber's own takes out.
//!
//! Bounded by count and bytes, so a slow subscriber never holds a publisher back: while its client is
//! connected a full queue drops QoS 0 and gives the connection up for QoS 1; while it is away the oldest goes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::limits::Limits;
use super::message::Delivery;
use crate::telemetry::METRICS;

/// The queue of one session, shared with everyone who publishes to it.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    wake: Arc<Notify>,
}

/// Its content and its rules, free of locks.
#[derive(Debug)]
pub(crate) struct Queue {
    items: VecDeque<Delivery>,
    bytes: usize,
    online: bool,
    overflowed: bool,
    when_online: Bound,
    when_offline: Bound,
}

#[derive(Debug, Clone, Copy)]
struct Bound {
    count: usize,
    bytes: usize,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits; the first of a queue wakes the subscriber.
    Queued {
        /// The queue was empty.
        first: bool,
    },
    /// It was not taken.
    Dropped,
    /// It was taken, and this many old ones were dropped for it.
    Displaced(usize),
    /// It was taken as for a client that is away, and this many were dropped; the connection must end.
    Overflowed(usize),
}

impl Bound {
    fn holds(self, count: usize, bytes: usize) -> bool {
        count <= self.count && bytes <= self.bytes
    }
}

impl Queue {
    fn new(limits: &Limits) -> Self {
        Self {
            items: VecDeque::new(),
            bytes: 0,
            online: true,
            overflowed: false,
            when_online: Bound { count: limits.max_queued, bytes: limits.max_queued_bytes },
            when_offline: Bound { count: limits.max_offline_queued, bytes: limits.max_offline_queued_bytes },
        }
    }

    fn push(&mut self, delivery: Delivery) -> Pushed {
        let cost = delivery.cost();
        let fits = |queue: &Self, bound: Bound| bound.holds(queue.items.len() + 1, queue.bytes + cost);
        // An empty queue takes any message: each alone is bounded by the packet limit. Kept messages that one
        // SUBSCRIBE asks for come all at once; they share their bytes with the store, so only their number counts.
        let spared = delivery.retain && self.items.len() < self.when_online.count;
        let overflows = self.online && !self.items.is_empty() && !spared && !fits(self, self.when_online);
        if delivery.qos == 0 && (overflows || !self.online) {
            return Pushed::Dropped;
        }
        let mut displaced = 0;
        if overflows {
            // The connection ends as soon as it wakes; from here on the client counts as away.
            self.overflowed = true;
            displaced = self.go_offline();
        }
        while !self.online && !fits(self, self.when_offline) && self.pop().is_some() {
            displaced += 1;
        }
        let first = self.items.is_empty();
        self.bytes += cost;
        self.items.push_back(delivery);
        match displaced {
            _ if overflows => Pushed::Overflowed(displaced),
            0 => Pushed::Queued { first },
            _ => Pushed::Displaced(displaced),
        }
    }

    /// The oldest delivery.
    pub(crate) fn front(&self) -> Option<&Delivery> {
        self.items.front()
    }

    /// Takes the oldest delivery.
    pub(crate) fn pop(&mut self) -> Option<Delivery> {
        let delivery = self.items.pop_front()?;
        self.bytes -= delivery.cost();
        Some(delivery)
    }

    /// Whether the connection must end because its client does not keep up.
    pub(crate) fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Says whether the client is there. Gives the number of messages dropped.
    fn set_online(&mut self, online: bool) -> usize {
        self.overflowed = false;
        if !online {
            return self.go_offline();
        }
        self.online = true;
        0
    }

    /// Drops what only a present client gets, and what is too much for one that is away.
    fn go_offline(&mut self) -> usize {
        self.online = false;
        let before = self.items.len();
        self.items.retain(|delivery| delivery.qos > 0);
        self.bytes = self.items.iter().map(Delivery::cost).sum();
        while !self.when_offline.holds(self.items.len(), self.bytes) && self.pop().is_some() {}
        before - self.items.len()
    }
}

impl Outbox {
    /// An empty queue whose first message wakes `wake`.
    pub(crate) fn new(limits: &Limits, wake: Arc<Notify>) -> Self {
        Self { queue: Mutex::new(Queue::new(limits)), wake }
    }

    /// The queue itself, for the connection that empties it.
    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a delivery in, or drops and counts it.
    pub(crate) fn push(&self, delivery: Delivery) {
        let pushed = self.queue().push(delivery);
        match pushed {
            Pushed::Queued { first: true } => self.wake.notify_one(),
            Pushed::Queued { first: false } => {}
            Pushed::Dropped => drop(METRICS.mqtt_dropped.inc()),
            Pushed::Displaced(count) => drop(METRICS.mqtt_dropped.inc_by(count as u64)),
            Pushed::Overflowed(count) => {
                METRICS.mqtt_dropped.inc_by(count as u64);
                self.wake.notify_one();
            }
        }
    }

    /// The client has come, or has gone.
    pub(crate) fn set_online(&self, online: bool) {
        let dropped = self.queue().set_online(online);
        METRICS.mqtt_dropped.inc_by(dropped as u64);
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        let mut queue = self.queue();
        queue.items = VecDeque::new();
        queue.bytes = 0;
        queue.overflowed = false;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::message::Message;
    use super::*;

    fn delivery(qos: u8, tag: u8, size: usize) -> Delivery {
        let payload = Bytes::from(vec![tag; size]);
        let message = Arc::new(Message { payload, properties: Bytes::new(), expires: None });
        Delivery { message, topic: "t".into(), qos, retain: false, ids: Arc::new([]) }
    }

    fn queue() -> Queue {
        Queue::new(&Limits {
            max_queued: 3,
            max_queued_bytes: 1000,
            max_offline_queued: 2,
            max_offline_queued_bytes: 1000,
            ..Limits::default()
        })
    }

    fn tags(queue: &Queue) -> Vec<u8> {
        queue.items.iter().map(|d| d.message.payload.first().copied().unwrap_or(0)).collect()
    }

    #[test]
    fn a_full_queue_drops_qos_0_and_gives_up_on_qos_1() {
        let mut queue = queue();
        assert_eq!(queue.push(delivery(0, 1, 1)), Pushed::Queued { first: true });
        assert_eq!(queue.push(delivery(1, 2, 1)), Pushed::Queued { first: false });
        assert_eq!(queue.push(delivery(0, 3, 1)), Pushed::Queued { first: false });
        assert_eq!(queue.push(delivery(0, 4, 1)), Pushed::Dropped);
        assert!(!queue.overflowed());
        assert_eq!(queue.push(delivery(1, 5, 1)), Pushed::Overflowed(2));
        assert!(queue.overflowed());
        // What comes until the connection has ended is kept as for a client that is away.
        assert_eq!(queue.push(delivery(1, 6, 1)), Pushed::Displaced(1));
        assert_eq!(tags(&queue), [5, 6]);
        queue.set_online(false);
        assert!(!queue.overflowed());
    }

    #[test]
    fn bytes_bound_it_too_but_one_message_always_fits() {
        let mut queue = queue();
        assert_eq!(queue.push(delivery(0, 1, 5000)), Pushed::Queued { first: true });
        assert_eq!(queue.push(delivery(0, 2, 1)), Pushed::Dropped);
    }

    #[test]
    fn while_away_the_oldest_goes_and_qos_0_is_not_kept() {
        let mut queue = queue();
        for (qos, tag) in [(1, 1), (0, 2), (1, 3)] {
            queue.push(delivery(qos, tag, 1));
        }
        assert_eq!(queue.set_online(false), 1);
        assert_eq!(queue.push(delivery(0, 4, 1)), Pushed::Dropped);
        assert_eq!(queue.push(delivery(1, 5, 1)), Pushed::Displaced(1));
        assert_eq!(tags(&queue), [3, 5]);
        queue.set_online(true);
        assert_eq!(tags(&queue), [3, 5]);
    }

    proptest! {
        #[test]
        fn never_exceeds_its_bounds_and_keeps_order(
            steps in prop::collection::vec((0_u8..2, 0_usize..400, any::<bool>()), 0..60),
        ) {
            let mut queue = queue();
            for (i, (qos, size, flip)) in steps.into_iter().enumerate() {
                if flip { let online = !queue.online; queue.set_online(online); }
                queue.push(delivery(qos, i as u8, size));
                let bytes: usize = queue.items.iter().map(Delivery::cost).sum();
                prop_assert_eq!(bytes, queue.bytes);
                prop_assert!(queue.items.len() <= 3 && queue.bytes <= 1000);
                let tags = tags(&queue);
                prop_assert!(tags.windows(2).all(|w| w[0] <= w[1] || w[1] == 0));
            }
        }
    }
}
