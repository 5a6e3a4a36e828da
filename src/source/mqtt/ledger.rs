//! What one connection owes its broker: acknowledgements in the order of arrival, each only when every
//! consumer has taken the events. Pure; kept by [`super::task`].
//!
//! A packet identifier means something on its own connection only, so a ledger lives exactly as long as one
//! connection: an acknowledgement that comes too late cannot acknowledge another message. Its successor
//! knows what was left open and what was acknowledged, and recognises it when the broker sends it again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::model::receipt::{Gate, Verdict};
use crate::model::repeat::{Repeat, Repeats};

/// Acknowledged messages that are known again: more than a broker has on its way. Mosquitto 2.0 does not keep to its
/// window of 20 towards who is slower than its publishers, and reads one acknowledgement while it takes a message of
/// each of them. Half of all identifiers: what came under one before the broker used it again must be forgotten.
const REMEMBERED: u64 = 1 << 15;
/// So many messages back an identifier with the same content makes a repetition doubtful, see [`crate::model::repeat`].
const DOUBTED: u64 = 1024;

/// A message that the broker wants acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    /// Its packet identifier.
    pub(super) id: u16,
    /// Whether it came with QoS 2 (left by an earlier subscription; ours ask for QoS 1).
    pub(super) exactly_once: bool,
    /// A fingerprint of topic and payload.
    pub(super) content: u64,
}

/// A consumer did not take its events: the broker must send them again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused;

/// The book of one connection.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    undecided: VecDeque<Entry>,
    due: VecDeque<Due>,
    /// Handed to the client, not written to the socket yet.
    unwritten: usize,
    progress: bool,
    /// What connections before this one left open.
    open: HashMap<u16, Open>,
    /// What was acknowledged, here and before; the broker may not have heard it.
    acknowledged: Acknowledged,
}

/// What was acknowledged under each identifier, newest last.
#[derive(Debug, Default)]
struct Acknowledged {
    count: u64,
    /// By QoS and identifier: which of all it was, and its content.
    known: HashMap<(u8, u16), Vec<(u64, u64)>>,
}

#[derive(Debug)]
struct Entry {
    messages: Vec<Message>,
    /// None: these messages are of no interest, and are acknowledged in their turn.
    gate: Option<Arc<Gate>>,
}

#[derive(Debug)]
struct Due {
    message: Message,
    gate: Option<Arc<Gate>>,
}

#[derive(Debug)]
struct Open {
    content: u64,
    gate: Arc<Gate>,
}

impl Message {
    /// Describes a message.
    pub(super) fn new(id: u16, exactly_once: bool, topic: &str, payload: &[u8]) -> Self {
        Self { id, exactly_once, content: Repeat::content(topic, payload) }
    }

    fn qos(self) -> u8 {
        if self.exactly_once { 2 } else { 1 }
    }

    /// How the broker would repeat it.
    pub(super) fn repeat(self) -> Repeat {
        Repeat { packet_id: self.id, qos: self.qos(), copies: 1, content: self.content }
    }
}

impl Acknowledged {
    fn remember(&mut self, qos: u8, id: u16, content: u64) {
        self.count += 1;
        let known = self.known.entry((qos, id)).or_default();
        known.retain(|(number, _)| self.count - number < DOUBTED);
        known.push((self.count, content));
    }

    fn knows(&self, qos: u8, id: u16, content: u64) -> bool {
        let Some(((number, newest), older)) = self.known.get(&(qos, id)).and_then(|known| known.split_last())
        else {
            return false;
        };
        *newest == content
            && self.count - number < REMEMBERED
            && older.iter().all(|(_, older)| *older != content)
    }
}

impl Ledger {
    /// The first book of a process that knows what the one before it was given.
    pub(super) fn recall(repeats: &Repeats) -> Self {
        let mut acknowledged = Acknowledged::default();
        for Repeat { packet_id, qos, content, .. } in &repeats.publishes {
            acknowledged.remember(*qos, *packet_id, *content);
        }
        Self { acknowledged, ..Self::default() }
    }

    /// The book of the next connection.
    pub(super) fn successor(self) -> Self {
        let mut open = self.open;
        let undecided = self.undecided.into_iter().flat_map(|Entry { messages, gate }| {
            messages.into_iter().map(move |message| Due { message, gate: gate.clone() })
        });
        for Due { message, gate } in self.due.into_iter().chain(undecided) {
            if let Some(gate) = gate {
                open.insert(message.id, Open { content: message.content, gate });
            }
        }
        Self { open, acknowledged: self.acknowledged, ..Self::default() }
    }

    /// The broker has forgotten the session, and with it what its identifiers meant.
    pub(super) fn forget(&mut self) {
        self.open.clear();
        self.acknowledged = Acknowledged::default();
    }

    /// Whether a message may be one that came before.
    pub(super) fn may_know(&self, message: Message, again: bool) -> bool {
        self.open.contains_key(&message.id) || again && self.was_acknowledged(message)
    }

    fn was_acknowledged(&self, message: Message) -> bool {
        self.acknowledged.knows(message.qos(), message.id, message.content)
    }

    /// Whether the message is one that was handed over before. If so it is entered here, and waits for that
    /// verdict.
    pub(super) fn knows(&mut self, message: Message, again: bool) -> bool {
        let open = self.open.remove(&message.id);
        if let Some(Open { content, gate }) = open
            && again
            && content == message.content
            && gate.verdict() != Verdict::Refused
        {
            self.took(vec![message], Some(gate));
            return true;
        }
        let known = again && self.was_acknowledged(message);
        if known {
            self.took(vec![message], None);
        }
        known
    }

    /// Notes messages that were handed over together, in their order of arrival.
    pub(super) fn took(&mut self, messages: Vec<Message>, gate: Option<Arc<Gate>>) {
        if !messages.is_empty() {
            self.undecided.push_back(Entry { messages, gate });
        }
    }

    /// Moves what is decided by now to what is due. An error stands until the connection ends: nothing from
    /// the refused group on is ever acknowledged.
    pub(super) fn settle(&mut self) -> Result<(), Refused> {
        while let Some(first) = self.undecided.front_mut() {
            match first.gate.as_ref().map_or(Verdict::Accepted, |gate| gate.verdict()) {
                Verdict::Pending => break,
                Verdict::Refused => return Err(Refused),
                Verdict::Accepted => {
                    let (messages, gate) = (std::mem::take(&mut first.messages), first.gate.take());
                    let due = |message| Due { message, gate: gate.clone() };
                    self.due.extend(messages.into_iter().map(due));
                    self.undecided.pop_front();
                }
            }
        }
        Ok(())
    }

    /// Gives what is due to `send`, in order, until it is full (false).
    pub(super) fn send_due(&mut self, mut send: impl FnMut(Message) -> bool) {
        while let Some(due) = self.due.front() {
            if !send(due.message) {
                break;
            }
            self.acknowledged.remember(due.message.qos(), due.message.id, due.message.content);
            self.due.pop_front();
            self.unwritten += 1;
        }
    }

    /// An acknowledgement is on the wire.
    pub(super) fn written(&mut self) {
        self.unwritten = self.unwritten.saturating_sub(1);
        self.progress = true;
    }

    /// Whether no acknowledgement is with the client.
    pub(super) fn is_written(&self) -> bool {
        self.unwritten == 0
    }

    /// Whether anything was acknowledged on this connection.
    pub(super) fn has_progress(&self) -> bool {
        self.progress
    }

    /// Whether nothing is undecided, due or unwritten.
    pub(super) fn is_clear(&self) -> bool {
        self.undecided.is_empty() && self.due.is_empty() && self.unwritten == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::sync::Notify;

    use super::*;
    use crate::model::receipt::Receipt;

    fn message(id: u16) -> Message {
        Message::new(id, false, "a", b"1")
    }

    fn group(ledger: &mut Ledger, numbers: &[u16]) -> Receipt {
        let (gate, mut receipts) = Gate::new(1, Arc::new(Notify::new()));
        ledger.took(numbers.iter().copied().map(message).collect(), Some(gate));
        receipts.pop().unwrap()
    }

    fn sent(ledger: &mut Ledger, room: usize) -> Vec<u16> {
        let mut sent = Vec::new();
        ledger.send_due(|message| {
            let fits = sent.len() < room;
            if fits {
                sent.push(message.id);
            }
            fits
        });
        sent
    }

    #[test]
    fn a_later_group_waits_for_an_earlier_one() {
        let mut ledger = Ledger::default();
        let (first, second) = (group(&mut ledger, &[1, 2]), group(&mut ledger, &[3]));
        second.accept();
        assert_eq!((ledger.settle(), sent(&mut ledger, 9)), (Ok(()), vec![]));
        first.accept();
        assert_eq!((ledger.settle(), sent(&mut ledger, 9)), (Ok(()), vec![1, 2, 3]));
    }

    #[test]
    fn uninteresting_messages_are_acknowledged_in_their_turn() {
        let mut ledger = Ledger::default();
        let first = group(&mut ledger, &[1]);
        ledger.took(vec![message(2)], None);
        assert_eq!((ledger.settle(), sent(&mut ledger, 9)), (Ok(()), vec![]));
        first.accept();
        assert_eq!((ledger.settle(), sent(&mut ledger, 9)), (Ok(()), vec![1, 2]));
    }

    #[test]
    fn nothing_from_a_refused_group_on_is_acknowledged() {
        let mut ledger = Ledger::default();
        let [first, second, third] = [1, 2, 3].map(|n| group(&mut ledger, &[n]));
        third.accept();
        drop(second);
        assert_eq!(ledger.settle(), Ok(()), "the first is undecided still");
        first.accept();
        assert_eq!((ledger.settle(), ledger.settle()), (Err(Refused), Err(Refused)));
        assert_eq!(sent(&mut ledger, 9), [1]);
    }

    #[test]
    fn what_did_not_fit_is_sent_later() {
        let mut ledger = Ledger::default();
        group(&mut ledger, &[1, 2, 3]).accept();
        ledger.settle().unwrap();
        assert_eq!(sent(&mut ledger, 2), [1, 2]);
        assert!(!ledger.has_progress());
        ledger.written();
        ledger.written();
        assert!(ledger.has_progress() && !ledger.is_clear());
        assert_eq!(sent(&mut ledger, 2), [3]);
        assert!(!ledger.is_clear());
        ledger.written();
        assert!(ledger.is_clear());
    }

    #[test]
    fn what_was_left_open_is_recognised_and_waits_for_its_verdict() {
        let mut ledger = Ledger::default();
        let receipt = group(&mut ledger, &[1, 2]);
        let mut ledger = ledger.successor().successor();
        assert!(ledger.knows(message(1), true) && ledger.knows(message(2), true));
        assert!(!ledger.knows(message(1), true), "once for each time it was left open");
        assert_eq!((ledger.settle(), sent(&mut ledger, 9)), (Ok(()), vec![]));
        receipt.accept();
        assert_eq!((ledger.settle(), sent(&mut ledger, 9)), (Ok(()), vec![1, 2]));
    }

    #[test]
    fn another_message_under_an_old_identifier_is_not_taken_for_the_old_one() {
        for (again, other) in [
            (false, message(1)),
            (true, Message::new(1, false, "a", b"2")),
            (true, Message::new(1, false, "a1", b"")),
            (true, message(2)),
        ] {
            let mut ledger = Ledger::default();
            let _receipt = group(&mut ledger, &[1]);
            assert!(!ledger.successor().knows(other, again), "{other:?}");
        }
    }

    #[test]
    fn what_was_acknowledged_is_recognised_and_acknowledged_again() {
        let mut ledger = Ledger::default();
        group(&mut ledger, &[1, 2]).accept();
        ledger.settle().unwrap();
        assert_eq!(sent(&mut ledger, 9), [1, 2]);
        let mut ledger = ledger.successor();
        assert!(!ledger.knows(message(1), false), "not marked as a repetition");
        assert!(ledger.may_know(message(2), true) && ledger.knows(message(2), true));
        assert_eq!((ledger.settle(), sent(&mut ledger, 9)), (Ok(()), vec![2]));
        let repeats = Repeats { session: 1, publishes: vec![message(3).repeat()] };
        assert!(Ledger::recall(&repeats).knows(message(3), true));
    }

    #[test]
    fn far_more_than_a_window_is_recognised_but_not_what_had_its_identifier_before() {
        let other = |id: u16| Message::new(id, false, "a", b"2");
        let publishes = (1..=30_000).map(|id| message(id).repeat()).collect();
        let mut ledger = Ledger::recall(&Repeats { session: 1, publishes });
        assert!((1..=30_000).all(|id| ledger.may_know(message(id), true)));
        for id in 30_001..=u16::MAX {
            ledger.acknowledged.remember(1, id, other(id).content);
        }
        assert!((1..=30_000).all(|id| !ledger.may_know(message(id), true)), "the broker may use them again");
        assert!(ledger.may_know(other(40_000), true));
        // Twice the same under one identifier, and shortly after each other: which of them comes again?
        ledger.acknowledged.remember(1, 7, 70);
        assert!(ledger.acknowledged.knows(1, 7, 70));
        ledger.acknowledged.remember(1, 7, 71);
        ledger.acknowledged.remember(1, 7, 70);
        assert!(!ledger.acknowledged.knows(1, 7, 70) && !ledger.acknowledged.knows(1, 7, 71));
    }

    #[test]
    fn what_was_refused_or_forgotten_is_new_when_it_comes_again() {
        let mut ledger = Ledger::default();
        group(&mut ledger, &[1]).accept();
        let (refused, _forgotten) = (group(&mut ledger, &[2]), group(&mut ledger, &[3]));
        ledger.settle().unwrap();
        assert_eq!(sent(&mut ledger, 9), [1]);
        drop(refused);
        let mut ledger = ledger.successor();
        assert!(!ledger.knows(message(2), true));
        ledger.forget();
        assert!(!ledger.knows(message(1), true) && !ledger.knows(message(3), true));
    }

    proptest! {
        #[test]
        fn acknowledgements_are_a_prefix_of_the_arrivals(
            sizes in prop::collection::vec(0usize..4, 1..20),
            order in Just((0..20usize).collect::<Vec<_>>()).prop_shuffle(),
            refused in prop::option::of(0usize..20),
            room in 1usize..5,
        ) {
            let mut ledger = Ledger::default();
            let mut next = 0;
            let mut ends = Vec::new();
            let mut receipts: Vec<_> = sizes.iter().map(|size| {
                let numbers: Vec<u16> = (next..next + *size as u16).collect();
                next += *size as u16;
                ends.push(next);
                Some(group(&mut ledger, &numbers))
            }).collect();
            let mut acknowledged = Vec::new();
            for n in order.into_iter().filter(|n| *n < sizes.len()) {
                let receipt = receipts[n].take().unwrap();
                if refused == Some(n) { drop(receipt) } else { receipt.accept() }
                let _ = ledger.settle();
                acknowledged.extend(sent(&mut ledger, room));
            }
            loop {
                let more = sent(&mut ledger, room);
                if more.is_empty() { break; }
                acknowledged.extend(more);
            }
            // A refused group without a packet identifier leaves no trace: nothing can be sent again.
            let end = match refused {
                Some(n) if n < sizes.len() && sizes[n] > 0 => ends[n] - sizes[n] as u16,
                _ => next,
            };
            prop_assert_eq!(acknowledged, (0..end).collect::<Vec<_>>());
        }
    }
}
