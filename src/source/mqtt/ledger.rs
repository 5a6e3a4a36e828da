//! Which messages of an external broker still wait for their acknowledgement. Pure.
//!
//! Acknowledgements leave in the order the messages came (MQTT-4.6.0-2), and only on the connection that
//! brought them: a packet identifier means another message after a reconnect. A message that comes again
//! because its acknowledgement was lost is recognised and not made an event twice.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::model::receipt::{Gate, Verdict};

/// A message's packet identifier; 0 for QoS 0, which is not acknowledged.
pub(super) type PacketId = u16;

/// The bookkeeping of one session with a broker.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Messages of the present connection that wait, oldest first.
    waiting: VecDeque<(PacketId, Arc<Gate>)>,
    /// What was last made an event under each identifier: bounded by the number of identifiers.
    seen: HashMap<PacketId, Seen>,
}

#[derive(Debug, Clone)]
struct Seen {
    content: u64,
    gate: Arc<Gate>,
}

/// What [`Ledger::settle`] finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// Acknowledge this message, then ask again.
    Acknowledge(PacketId),
    /// Nothing to do until a gate opens.
    Wait,
    /// The engine could not take a group: the connection has to be made anew, so that it comes again.
    Refused,
}

impl Ledger {
    /// A new connection: what waited on the old one is not acknowledged any more. Without a session on the
    /// broker's side the identifiers mean nothing either.
    pub(super) fn connected(&mut self, session_present: bool) {
        self.waiting.clear();
        if !session_present {
            self.seen.clear();
        }
        // A group that was refused has to become events when it comes again.
        self.seen.retain(|_, seen| seen.gate.verdict() != Verdict::Refused);
    }

    /// Tells whether a message is one that was made an event before. If so it waits for the old verdict.
    pub(super) fn is_known(&mut self, id: PacketId, dup: bool, topic: &str, payload: &[u8]) -> bool {
        if id == 0 || !dup {
            return false;
        }
        match self.seen.get(&id) {
            Some(seen) if seen.content == content(topic, payload) => {
                self.waiting.push_back((id, Arc::clone(&seen.gate)));
                true
            }
            _ => false,
        }
    }

    /// Enters a message that was made an event of the group behind `gate`.
    pub(super) fn enter(&mut self, id: PacketId, topic: &str, payload: &[u8], gate: &Arc<Gate>) {
        if id != 0 {
            self.waiting.push_back((id, Arc::clone(gate)));
            self.seen.insert(id, Seen { content: content(topic, payload), gate: Arc::clone(gate) });
        }
    }

    /// The next thing to do for the oldest message.
    pub(super) fn settle(&mut self) -> Settled {
        match self.waiting.front().map(|(id, gate)| (*id, gate.verdict())) {
            Some((id, Verdict::Accepted)) => Settled::Acknowledge(id),
            Some((_, Verdict::Refused)) => Settled::Refused,
            Some((_, Verdict::Pending)) | None => Settled::Wait,
        }
    }

    /// The acknowledgement that [`Self::settle`] asked for has been sent.
    pub(super) fn acknowledged(&mut self) {
        self.waiting.pop_front();
    }

    /// Whether every message of this connection has been acknowledged.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }
}

fn content(topic: &str, payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    topic.hash(&mut hasher);
    payload.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;
    use crate::model::receipt::Receipt;

    fn gate() -> (Arc<Gate>, Receipt) {
        let (gate, mut receipts) = Gate::new(1, Arc::new(Notify::new()));
        (gate, receipts.pop().unwrap())
    }

    fn acknowledge_all(ledger: &mut Ledger) -> Vec<PacketId> {
        let mut ids = Vec::new();
        while let Settled::Acknowledge(id) = ledger.settle() {
            ledger.acknowledged();
            ids.push(id);
        }
        ids
    }

    #[test]
    fn acknowledgements_leave_in_the_order_of_arrival() {
        let mut ledger = Ledger::default();
        let (first, first_receipt) = gate();
        let (second, second_receipt) = gate();
        ledger.enter(7, "t", b"1", &first);
        ledger.enter(8, "t", b"2", &first);
        ledger.enter(9, "t", b"3", &second);
        second_receipt.accept();
        assert_eq!(ledger.settle(), Settled::Wait);
        first_receipt.accept();
        assert_eq!(acknowledge_all(&mut ledger), [7, 8, 9]);
        assert!(ledger.is_settled());
    }

    #[test]
    fn qos_0_is_not_acknowledged() {
        let mut ledger = Ledger::default();
        ledger.enter(0, "t", b"1", &gate().0);
        assert!(ledger.is_settled());
    }

    #[test]
    fn a_new_connection_forgets_what_waited_on_the_old_one() {
        let mut ledger = Ledger::default();
        let (gate, receipt) = gate();
        ledger.enter(1, "t", b"1", &gate);
        receipt.accept();
        ledger.connected(true);
        assert_eq!(ledger.settle(), Settled::Wait);
    }

    #[test]
    fn a_message_that_comes_again_is_known_by_identifier_dup_and_content() {
        let mut ledger = Ledger::default();
        let (gate, receipt) = gate();
        ledger.enter(1, "t", b"1", &gate);
        ledger.connected(true);
        assert!(!ledger.is_known(1, false, "t", b"1"));
        assert!(!ledger.is_known(1, true, "t", b"2"));
        assert!(!ledger.is_known(2, true, "t", b"1"));
        assert!(ledger.is_known(1, true, "t", b"1"));
        assert_eq!(ledger.settle(), Settled::Wait);
        receipt.accept();
        assert_eq!(acknowledge_all(&mut ledger), [1]);
    }

    #[test]
    fn nothing_is_known_without_a_session() {
        let mut ledger = Ledger::default();
        ledger.enter(1, "t", b"1", &gate().0);
        ledger.connected(false);
        assert!(!ledger.is_known(1, true, "t", b"1"));
    }

    #[test]
    fn a_refused_group_is_made_events_when_it_comes_again() {
        let mut ledger = Ledger::default();
        let (gate, receipt) = gate();
        ledger.enter(1, "t", b"1", &gate);
        drop(receipt);
        assert_eq!(ledger.settle(), Settled::Refused);
        ledger.connected(true);
        assert!(!ledger.is_known(1, true, "t", b"1"));
    }
}
