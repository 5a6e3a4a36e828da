//! What an MQTT client may publish again, because it did not get our acknowledgement. Pure.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::model::receipt::{Gate, Verdict};
use crate::model::repeat::{Acknowledged, Repeats};

/// Most undecided publishes of a session; stops a client that publishes, leaves and never repeats. What is
/// forgotten would be delivered twice.
const MAX_UNDECIDED: usize = 4096;

/// The publishes of a session that may come again.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// Never acknowledged, because their connection ended before the engine had decided; oldest first. Their
    /// identifiers are still in use with the client.
    undecided: VecDeque<Undecided>,
    /// Acknowledged; the acknowledgement may have been lost.
    pub(crate) acknowledged: Acknowledged,
}

#[derive(Debug)]
struct Undecided {
    id: u16,
    qos: u8,
    content: u64,
    gate: Arc<Gate>,
    /// The session that it came in has ended.
    ended: bool,
}

impl Past {
    /// Of a client that was acknowledged these publishes by the process before this one.
    pub(crate) fn recall(repeats: &Repeats) -> Self {
        Self { acknowledged: Acknowledged::recall(repeats), ..Self::default() }
    }

    /// Whether nothing is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.undecided.is_empty() && self.acknowledged.is_empty()
    }

    /// A connection ends before a publish was acknowledged.
    pub(crate) fn leave(&mut self, qos: u8, id: u16, content: u64, gate: Arc<Gate>) {
        // At QoS 2 a repetition on the same connection may wait for a later gate; the first one is what counts.
        if qos == 2 && self.undecided.iter().any(|known| (known.qos, known.id) == (qos, id)) {
            return;
        }
        self.take_undecided(qos, id);
        if self.undecided.len() >= MAX_UNDECIDED {
            self.undecided.pop_front();
        }
        self.undecided.push_back(Undecided { id, qos, content, gate, ended: false });
    }

    /// The gate of an undecided publish, if this is a repetition of it. A QoS 1 publish that is not marked as one, or
    /// says something else, is another one with the same identifier. At QoS 2 the identifier is in use until PUBREL,
    /// or the end of the session.
    pub(crate) fn take(&mut self, qos: u8, id: u16, dup: bool, content: u64) -> Option<Arc<Gate>> {
        let known = self.take_undecided(qos, id)?;
        let is_again = qos == 2 && !known.ended || dup && known.content == content;
        (is_again && known.gate.verdict() != Verdict::Refused).then_some(known.gate)
    }

    /// Forgets an undecided publish. True if there was one.
    pub(crate) fn forget_undecided(&mut self, qos: u8, id: u16) -> bool {
        self.take_undecided(qos, id).is_some()
    }

    fn take_undecided(&mut self, qos: u8, id: u16) -> Option<Undecided> {
        let at = self.undecided.iter().position(|known| (known.qos, known.id) == (qos, id))?;
        self.undecided.remove(at)
    }

    /// The session has ended, but the client may repeat what it published in it.
    pub(crate) fn of_an_ended_session(mut self) -> Self {
        self.undecided.iter_mut().for_each(|known| known.ended = true);
        self
    }
}

/// The pasts of clients whose sessions have ended, by [`crate::model::repeat::Repeats::session`]; above the bound
/// the oldest is forgotten.
#[derive(Debug)]
pub(crate) struct Pasts {
    most: usize,
    pasts: HashMap<u64, Past>,
    order: VecDeque<u64>,
}

impl Pasts {
    /// With room for `most` clients.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, pasts: HashMap::new(), order: VecDeque::new() }
    }

    /// Keeps a client's past in place of what was kept before.
    pub(crate) fn keep(&mut self, sender: u64, past: Past) {
        if self.pasts.insert(sender, past).is_none() {
            self.order.push_back(sender);
        }
        // Also what was taken stands in the order, until its turn comes.
        while self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.pasts.remove(&oldest);
        }
    }

    /// Takes a client's past.
    pub(crate) fn take(&mut self, sender: u64) -> Option<Past> {
        self.pasts.remove(&sender)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;

    fn gate(consumers: usize) -> (Arc<Gate>, Vec<crate::model::receipt::Receipt>) {
        Gate::new(consumers, Arc::new(Notify::new()))
    }

    #[test]
    fn undecided_publishes_are_bounded() {
        let mut past = Past::default();
        let (gate, _receipts) = gate(1);
        for id in 1..=5000 {
            past.leave(1, id, 0, Arc::clone(&gate));
        }
        assert_eq!(past.undecided.len(), MAX_UNDECIDED);
        assert!(past.take(1, 1, true, 0).is_none());
        assert!(past.take(1, 5000, true, 0).is_some());
    }

    #[test]
    fn in_an_ended_session_a_qos_2_identifier_alone_means_nothing() {
        let mut past = Past::default();
        let (gate, _receipts) = gate(1);
        past.leave(2, 7, 70, Arc::clone(&gate));
        let mut ended = past.of_an_ended_session();
        assert!(ended.take(2, 7, false, 70).is_none());
        ended.leave(2, 7, 70, gate);
        assert!(ended.of_an_ended_session().take(2, 7, true, 70).is_some());
    }

    #[test]
    fn pasts_are_bounded_and_the_oldest_goes() {
        let mut pasts = Pasts::new(2);
        for sender in [1, 2, 3] {
            let mut past = Past::default();
            past.acknowledged.remember(1, 1, sender);
            pasts.keep(sender, past);
        }
        assert!(pasts.take(1).is_none() && pasts.take(2).is_some() && pasts.take(3).is_some());
        assert!(pasts.take(3).is_none());
        for sender in 0..1000 {
            pasts.keep(sender, Past::default());
            pasts.take(sender);
            assert!(pasts.order.len() <= 2);
        }
    }
}
