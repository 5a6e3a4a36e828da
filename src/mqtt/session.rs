//! The protocol state of one client: what survives its connection. Pure; owned by the connection that
//! serves the client, or by its keeper while the client is away ([`super::sessions`]).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::message::Delivery;
use super::past::Past;
use crate::model::receipt::Gate;

/// One client's state.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// Something of it may be resumed.
    pub(crate) exists: bool,
    /// Its subscriptions: the client's filter to how they are kept in the space.
    pub(crate) subscriptions: HashMap<Box<str>, Kept>,
    received: Received,
    /// What the client may publish again.
    pub(crate) past: Past,
    inflight: VecDeque<(u16, Delivery)>,
    /// How many of `inflight`, from the front, went out on this connection.
    sent: usize,
    /// Bytes of `inflight`.
    inflight_bytes: usize,
    last_id: u16,
}

/// A subscription as the space keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The filter it is kept under.
    pub(crate) filter: String,
    /// It is matched against aliases.
    pub(crate) is_alias: bool,
}

/// Packet identifiers of QoS 2 publishes between PUBLISH and PUBREL: 8 KiB at most, none until the first.
#[derive(Debug, Default)]
struct Received {
    bits: Option<Box<[u64; 1024]>>,
    count: usize,
}

/// What a publish is.
#[derive(Debug, Clone)]
pub(crate) enum Arrival {
    /// Not seen before; now it is.
    New,
    /// Delivered already: only acknowledge it.
    Duplicate,
    /// It came on an earlier connection and the engine has not decided yet: acknowledge it with this.
    Undecided(Arc<Gate>),
}

impl Received {
    fn word(&mut self, id: u16) -> (&mut u64, u64) {
        let words = self.bits.get_or_insert_with(|| Box::new([0; 1024]));
        // 65,536 identifiers are 1,024 words of 64 bits.
        (&mut words[usize::from(id >> 6)], 1 << (id & 63))
    }

    fn insert(&mut self, id: u16) -> bool {
        let (word, bit) = self.word(id);
        let new = *word & bit == 0;
        *word |= bit;
        self.count += usize::from(new);
        new
    }

    fn remove(&mut self, id: u16) -> bool {
        if self.count == 0 {
            return false;
        }
        let (word, bit) = self.word(id);
        let had = *word & bit != 0;
        *word &= !bit;
        self.count -= usize::from(had);
        had
    }
}

impl Session {
    /// Takes note of a publish.
    pub(crate) fn receive(&mut self, qos: u8, id: u16, dup: bool, content: u64) -> Arrival {
        if let Some(gate) = self.past.take(qos, id, dup, content) {
            if qos == 2 {
                self.received.insert(id);
            }
            return Arrival::Undecided(gate);
        }
        if dup && self.past.acknowledged.knows(qos, id, content) {
            if qos == 2 {
                self.received.insert(id);
            }
            return Arrival::Duplicate;
        }
        if qos < 2 || self.received.insert(id) { Arrival::New } else { Arrival::Duplicate }
    }

    /// PUBREL: the identifier is free again. False if it was not in use.
    pub(crate) fn release(&mut self, id: u16) -> bool {
        let undecided = self.past.forget_undecided(2, id);
        self.past.acknowledged.forget(2, id);
        self.received.remove(id) || undecided
    }

    /// The QoS 2 publish was not delivered: forget it.
    pub(crate) fn unreceive(&mut self, id: u16) {
        self.received.remove(id);
    }

    /// The connection ends before this publish was acknowledged.
    pub(crate) fn leave_undecided(&mut self, qos: u8, id: u16, content: u64, gate: Arc<Gate>) {
        if qos == 2 {
            self.received.remove(id);
        }
        self.past.leave(qos, id, content, gate);
    }

    /// Whether this QoS 2 publish is known.
    pub(crate) fn has_received(&self, id: u16) -> bool {
        self.received.bits.as_ref().is_some_and(|bits| bits[usize::from(id >> 6)] >> (id & 63) & 1 != 0)
    }

    /// QoS 2 publishes between PUBLISH and PUBREL.
    pub(crate) fn receiving(&self) -> usize {
        self.received.count
    }

    /// QoS 1 deliveries that went out on this connection and have no PUBACK.
    pub(crate) fn outstanding(&self) -> usize {
        self.sent
    }

    /// A connection begins: what is in flight goes out again.
    pub(crate) fn resume(&mut self) {
        self.exists = true;
        self.sent = 0;
    }

    /// The next delivery in flight to send again.
    pub(crate) fn resend(&self) -> Option<(u16, &Delivery)> {
        self.inflight.get(self.sent).map(|(id, delivery)| (*id, delivery))
    }

    /// The one that [`Self::resend`] gave has gone out.
    pub(crate) fn resent(&mut self) {
        self.sent = (self.sent + 1).min(self.inflight.len());
    }

    /// A QoS 1 delivery goes out; gives its packet identifier. Nothing may be left to resend.
    pub(crate) fn send(&mut self, delivery: Delivery) -> u16 {
        let id = self.free_id();
        self.inflight_bytes += delivery.cost();
        self.inflight.push_back((id, delivery));
        self.sent = self.inflight.len();
        id
    }

    /// Whether one more QoS 1 delivery may go out: fewer than `window` and, but for the first, fewer than
    /// `bytes` are on their way. They stay in memory while the client is away.
    pub(crate) fn may_send(&self, window: usize, bytes: usize) -> bool {
        self.sent < window && (self.sent == 0 || self.inflight_bytes < bytes)
    }

    fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            // Far fewer are in flight than there are identifiers.
            if self.inflight.iter().all(|(id, _)| *id != self.last_id) {
                return self.last_id;
            }
        }
    }

    /// PUBACK. False if nothing with this identifier is in flight.
    pub(crate) fn acknowledged(&mut self, id: u16) -> bool {
        let Some(at) = self.inflight.iter().position(|(inflight, _)| *inflight == id) else { return false };
        if let Some((_, delivery)) = self.inflight.remove(at) {
            self.inflight_bytes -= delivery.cost();
        }
        if at < self.sent {
            self.sent -= 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use tokio::sync::Notify;

    use super::super::message::Message;
    use super::*;
    use crate::model::receipt::Verdict;

    fn delivery(tag: u8) -> Delivery {
        let payload = Bytes::from(vec![tag]);
        let message = Arc::new(Message { payload, properties: Bytes::new(), expires: None });
        Delivery { message, topic: "t".into(), qos: 1, retain: false, ids: Arc::new([]) }
    }

    #[test]
    fn a_qos_2_publish_is_new_once_until_it_is_released() {
        let mut session = Session::default();
        assert!(matches!(session.receive(2, 65_535, true, 0), Arrival::New));
        assert!(matches!(session.receive(2, 65_535, true, 0), Arrival::Duplicate));
        assert_eq!(session.receiving(), 1);
        assert!(session.release(65_535));
        assert!(!session.release(65_535));
        assert!(matches!(session.receive(2, 65_535, true, 0), Arrival::New));
    }

    #[test]
    fn an_undecided_publish_waits_for_the_first_verdict() {
        let mut session = Session::default();
        let (gate, receipts) = Gate::new(1, Arc::new(Notify::new()));
        session.receive(2, 7, true, 0);
        session.leave_undecided(2, 7, 0, gate);
        let Arrival::Undecided(gate) = session.receive(2, 7, true, 0) else { panic!("delivered twice") };
        receipts.into_iter().for_each(crate::model::receipt::Receipt::accept);
        assert_eq!(gate.verdict(), Verdict::Accepted);
        assert!(matches!(session.receive(2, 7, true, 0), Arrival::Duplicate));
    }

    #[test]
    fn a_refused_publish_is_new_again() {
        let mut session = Session::default();
        let (gate, receipts) = Gate::new(1, Arc::new(Notify::new()));
        session.receive(2, 7, true, 0);
        session.leave_undecided(2, 7, 0, gate);
        drop(receipts);
        assert!(matches!(session.receive(2, 7, true, 0), Arrival::New));
    }

    #[test]
    fn a_repetition_of_an_undecided_qos_1_publish_is_known_by_dup_alone() {
        let mut session = Session::default();
        let (gate, _receipts) = Gate::new(1, Arc::new(Notify::new()));
        session.leave_undecided(1, 7, 0, Arc::clone(&gate));
        assert!(matches!(session.receive(1, 8, true, 0), Arrival::New));
        assert!(matches!(session.receive(2, 7, true, 0), Arrival::New));
        assert!(matches!(session.receive(1, 7, true, 0), Arrival::Undecided(_)));
        assert!(matches!(session.receive(1, 7, true, 0), Arrival::New));
        session.leave_undecided(1, 7, 0, gate);
        assert!(matches!(session.receive(1, 7, false, 0), Arrival::New));
        assert!(matches!(session.receive(1, 7, true, 0), Arrival::New));
    }

    #[test]
    fn what_is_in_flight_goes_out_again_in_order() {
        let mut session = Session::default();
        let ids: Vec<u16> = (0..4).map(|tag| session.send(delivery(tag))).collect();
        assert!(session.resend().is_none());
        session.acknowledged(ids[1]);
        session.resume();
        let mut again = Vec::new();
        while let Some((id, _)) = session.resend() {
            again.push(id);
            session.resent();
        }
        assert_eq!(again, [ids[0], ids[2], ids[3]]);
    }

    #[test]
    fn an_acknowledgement_in_the_middle_of_resending_skips_nothing() {
        let mut session = Session::default();
        let ids: Vec<u16> = (0..3).map(|tag| session.send(delivery(tag))).collect();
        session.resume();
        session.resent();
        assert!(session.acknowledged(ids[0]));
        assert_eq!(session.resend().map(|(id, _)| id), Some(ids[1]));
        assert!(!session.acknowledged(ids[0]));
    }

    #[test]
    fn a_released_qos_2_identifier_of_before_stands_for_another_message() {
        let mut session = Session::default();
        session.past.acknowledged.remember(2, 7, 70);
        assert!(matches!(session.receive(2, 7, true, 70), Arrival::Duplicate));
        session.release(7);
        assert!(matches!(session.receive(2, 7, true, 70), Arrival::New));
    }

    #[test]
    fn an_acknowledged_qos_1_publish_that_is_repeated_is_a_duplicate() {
        let mut session = Session::default();
        session.past.acknowledged.remember(1, 7, 70);
        assert!(matches!(session.receive(1, 7, false, 70), Arrival::New), "not marked as a repetition");
        assert!(matches!(session.receive(1, 7, true, 71), Arrival::New));
        assert!(matches!(session.receive(1, 7, true, 70), Arrival::Duplicate));
    }

    proptest! {
        #[test]
        fn identifiers_in_flight_are_never_zero_and_never_double(acks in prop::collection::vec(any::<bool>(), 1..300), start: u16) {
            let mut session = Session { last_id: start, ..Session::default() };
            for (i, ack) in acks.into_iter().enumerate() {
                let id = session.send(delivery(i as u8));
                prop_assert_ne!(id, 0);
                prop_assert_eq!(session.inflight.iter().filter(|(other, _)| *other == id).count(), 1);
                if ack { session.acknowledged(id); }
            }
        }
    }
}
