//! How a session comes to its close frame: at once, after all that the ring has, or after the answers to what its client
//! said before.

use super::super::close::Close;
use super::super::frame;
use super::{Phase, Session};

/// Seconds from our close frame to the reset of a connection whose client does not answer.
const CLOSE_SECONDS: u32 = 2;
/// The same for a client that is closed because it is slow: it has much to read before the close frame.
pub(super) const SLOW_CLOSE_SECONDS: u32 = 10;

/// Why a session closes that still has to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// Its client has broken a rule.
    Refuse(Close),
    /// Its client has closed the connection, with this code.
    Answer(Option<u16>),
}

impl Session {
    /// Whether broadcasts go to the client.
    pub(in crate::gateway) fn is_open(&self) -> bool {
        matches!(self.phase.get(), Phase::Open | Phase::Draining(_))
    }

    /// Whether it closes when what its client said before is answered.
    pub(in crate::gateway) fn is_answering(&self) -> bool {
        matches!(self.phase.get(), Phase::Answering(_))
    }

    /// Whether messages for this client alone go to it.
    pub(in crate::gateway) fn takes_messages(&self) -> bool {
        self.is_open() || self.is_answering()
    }

    /// Whether input is thrown away.
    pub(in crate::gateway) fn is_discarding(&self) -> bool {
        matches!(self.phase.get(), Phase::Answering(_) | Phase::Discarding | Phase::PeerClosed)
    }

    /// Closes when everything that is in the ring by now has been sent, at the latest after `seconds`. One that
    /// reads from the journal is closed after the message that it is in: what follows is kept there.
    pub(in crate::gateway) fn drain(&self, close: Close, seconds: u32) {
        if self.phase.get() == Phase::Open {
            self.ended_as.set(close.name());
            self.phase.set(Phase::Draining(close));
            self.deadline.set(self.feed.clock.get() + seconds);
            self.shrink();
            self.wake();
        }
    }

    /// What was to be sent before the close frame has been sent.
    pub(super) fn drained(&self, close: Close) {
        self.phase.set(Phase::CloseSent);
        let answer_by = self.feed.clock.get() + CLOSE_SECONDS + 1;
        self.deadline.set(self.deadline.get().min(answer_by));
        self.push_control(frame::close(close));
    }

    /// Queues a close frame; after a violation, when what came before it is answered. Frames of the ring that are not
    /// begun are not sent any more.
    pub(in crate::gateway) fn close(&self, close: Close) {
        if !self.is_open() {
            return;
        }
        self.ended_as.set(close.name());
        let seconds =
            if matches!(close, Close::TooSlow | Close::Gone) { SLOW_CLOSE_SECONDS } else { CLOSE_SECONDS };
        self.close_within(seconds);
        if close.is_violation() {
            self.phase.set(Phase::Answering(Last::Refuse(close)));
        } else {
            self.phase.set(Phase::CloseSent);
            self.push_control(frame::close(close));
        }
        self.wake();
    }

    /// The client's close frame came, with this code and reason. It is answered, after all that the client said before.
    pub(in crate::gateway) fn peer_closed(&self, code: Option<u16>, reason: &str) {
        if !self.is_open() {
            // It is the answer to ours.
            self.phase.set(Phase::PeerClosed);
            return;
        }
        self.ended_as.set("client");
        if let Some(conversation) = &*self.conversation.borrow() {
            // No code is 1005 (RFC 6455 section 7.1.5).
            conversation.goodbye(code.unwrap_or(1005), reason);
        }
        self.close_within(CLOSE_SECONDS);
        self.phase.set(Phase::Answering(Last::Answer(code)));
    }

    /// Nothing is to be said any more but the close frame, if it was that which had to wait. True: it is queued.
    pub(in crate::gateway) fn last_words(&self) -> bool {
        let Phase::Answering(last) = self.phase.get() else { return false };
        let (phase, frame) = match last {
            Last::Refuse(close) => (Phase::Discarding, frame::close(close)),
            Last::Answer(code) => (Phase::PeerClosed, frame::close_answer(code)),
        };
        self.phase.set(phase);
        self.close_within(CLOSE_SECONDS);
        self.push_control(frame);
        true
    }

    /// The input has ended.
    pub(in crate::gateway) fn input_ended(&self) {
        self.end(self.ended_as.get(), false);
    }

    /// Sets the deadline of the phase that begins. It is not moved by what the client sends.
    fn close_within(&self, seconds: u32) {
        self.deadline.set(self.feed.clock.get() + seconds + 1);
        self.shrink();
    }
}
