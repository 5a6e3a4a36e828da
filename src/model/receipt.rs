//! The acknowledgement handle: how a sender learns that the engine has taken what it sent.
//!
//! One [`Gate`] stands for one group of events that arrived together. Every consumer of the group holds
//! one [`Receipt`]; when all have been accepted the gate is open and the sender may be acknowledged. A
//! receipt that is dropped without being accepted refuses the group: its sender must not be
//! acknowledged, so that it keeps its messages and sends them again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::event::Event;
use super::repeat::Repeats;

/// Events that arrived together, in order, with the receipt of one consumer.
#[derive(Debug)]
pub struct Arrivals {
    /// At least one event.
    pub events: Vec<Event>,
    /// What their sender may send again, if its acknowledgement is lost.
    pub repeats: Option<Repeats>,
    /// What they were made of, if that is in the journal: the action that made them, and the offset after the events
    /// of its source that it has taken for them.
    pub made_of: Option<(i64, u64)>,
    /// To be accepted when all of them are taken.
    pub receipt: Receipt,
}

/// What became of a group of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Some consumer still has to decide.
    Pending,
    /// Every consumer has taken the events: acknowledge the sender.
    Accepted,
    /// Some consumer could not take them: never acknowledge the sender.
    Refused,
}

/// The sender's side. It wakes `wake` (one permit, never lost) when the verdict is known.
#[derive(Debug)]
pub struct Gate {
    open_receipts: AtomicUsize,
    refused: AtomicBool,
    wake: Arc<Notify>,
}

impl Gate {
    /// A gate with one receipt for each of `consumers`. With no consumer it is open at once.
    pub fn new(consumers: usize, wake: Arc<Notify>) -> (Arc<Self>, Vec<Receipt>) {
        let gate = Arc::new(Self {
            open_receipts: AtomicUsize::new(consumers),
            refused: AtomicBool::new(false),
            wake,
        });
        let receipts = (0..consumers).map(|_| Receipt { gate: Some(Arc::clone(&gate)) }).collect();
        (gate, receipts)
    }

    /// What is known by now.
    pub fn verdict(&self) -> Verdict {
        // In this order: the last receipt's count carries every refusal that came before it.
        let open = self.open_receipts.load(Ordering::Acquire);
        if self.refused.load(Ordering::Acquire) {
            Verdict::Refused
        } else if open == 0 {
            Verdict::Accepted
        } else {
            Verdict::Pending
        }
    }

    fn settle(&self, accepted: bool) {
        if !accepted {
            self.refused.store(true, Ordering::Release);
        }
        if self.open_receipts.fetch_sub(1, Ordering::AcqRel) == 1 || !accepted {
            self.wake.notify_one();
        }
    }
}

/// One consumer's side: accept it when the events are safe with you; dropping it refuses them.
#[derive(Debug)]
#[must_use = "a dropped receipt refuses the events"]
pub struct Receipt {
    gate: Option<Arc<Gate>>,
}

impl Receipt {
    /// A receipt for one more consumer of the same group, which has to accept it too.
    pub fn share(&self) -> Self {
        if let Some(gate) = &self.gate {
            gate.open_receipts.fetch_add(1, Ordering::AcqRel);
        }
        Self { gate: self.gate.clone() }
    }

    /// Says that this consumer has taken the events.
    pub fn accept(mut self) {
        if let Some(gate) = self.gate.take() {
            gate.settle(true);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            gate.settle(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(consumers: usize) -> (Arc<Gate>, Vec<Receipt>, Arc<Notify>) {
        let wake = Arc::new(Notify::new());
        let (gate, receipts) = Gate::new(consumers, Arc::clone(&wake));
        (gate, receipts, wake)
    }

    #[test]
    fn is_open_at_once_without_consumers() {
        assert_eq!(gate(0).0.verdict(), Verdict::Accepted);
    }

    #[tokio::test]
    async fn opens_when_the_last_consumer_accepts_and_wakes_the_sender() {
        let (gate, mut receipts, wake) = gate(2);
        receipts.pop().unwrap().accept();
        assert_eq!(gate.verdict(), Verdict::Pending);
        receipts.pop().unwrap().accept();
        assert_eq!(gate.verdict(), Verdict::Accepted);
        wake.notified().await;
    }

    #[test]
    fn a_shared_receipt_has_to_be_accepted_too() {
        let (gate, mut receipts, _) = gate(1);
        let receipt = receipts.pop().unwrap();
        let shared = receipt.share();
        receipt.accept();
        assert_eq!(gate.verdict(), Verdict::Pending);
        shared.accept();
        assert_eq!(gate.verdict(), Verdict::Accepted);
    }

    #[tokio::test]
    async fn a_dropped_receipt_refuses_for_good() {
        let (gate, mut receipts, wake) = gate(2);
        drop(receipts.pop());
        wake.notified().await;
        receipts.pop().unwrap().accept();
        assert_eq!(gate.verdict(), Verdict::Refused);
    }
}
