//! What a client says on a path whose messages are heard: one after the other, each with its answer.
//!
//! [`MOST_HEARD`] messages, or [`MOST_HEARD_BYTES`], wait for their turn; then nothing more is read from the client, so
//! that it waits as well. What has been heard when the client goes is passed on before its end is told.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use uuid::Uuid;

use super::{Calls, Visit};
use crate::gateway::frame;
use crate::gateway::inbound::Message;

/// Messages of one client that wait for their turn.
pub(in crate::gateway) const MOST_HEARD: usize = 16;
/// The same in bytes; one message may always wait.
const MOST_HEARD_BYTES: usize = 256 * 1024;

/// A message on its way, which ends with the frames that go back.
pub(in crate::gateway) type Answer = Pin<Box<dyn Future<Output = Option<Bytes>> + Send>>;

/// The messages of one client.
pub(in crate::gateway) struct Conversation {
    visit: Arc<Visit>,
    heard: RefCell<VecDeque<(Uuid, Message)>>,
    bytes: Cell<usize>,
    /// How the client ended, when it said so itself.
    goodbye: RefCell<Option<(u16, String)>>,
}

impl Conversation {
    pub(in crate::gateway) fn new(visit: Visit) -> Self {
        Self {
            visit: Arc::new(visit),
            heard: RefCell::default(),
            bytes: Cell::new(0),
            goodbye: RefCell::default(),
        }
    }

    /// Whether nothing more may be read from the client for now.
    pub(in crate::gateway) fn is_full(&self) -> bool {
        self.heard.borrow().len() >= MOST_HEARD || self.bytes.get() >= MOST_HEARD_BYTES
    }

    /// Takes a message, which gets its id here: ids are in the order of messages.
    pub(in crate::gateway) fn hear(&self, message: Message) {
        if self.visit.hears() {
            self.bytes.set(self.bytes.get() + message.len());
            self.heard.borrow_mut().push_back((Uuid::now_v7(), message));
        }
    }

    /// Passes the oldest message on.
    pub(in crate::gateway) fn next(&self) -> Option<Answer> {
        let (id, message) = self.heard.borrow_mut().pop_front()?;
        self.bytes.set(self.bytes.get() - message.len());
        let visit = Arc::clone(&self.visit);
        Some(Box::pin(async move {
            let (data, is_text) = visit.message(id, message).await?;
            Some(frame::message(&data, is_text))
        }))
    }

    /// The client has closed the connection with this code and reason.
    pub(in crate::gateway) fn goodbye(&self, code: u16, reason: &str) {
        *self.goodbye.borrow_mut() = Some((code, reason.to_owned()));
    }

    /// Passes on what is left, `answer` first, and tells the end: with the client's own words, else with these. It goes
    /// on by itself.
    pub(in crate::gateway) fn finish(self, answer: Option<Answer>, code: u16, reason: &str) {
        let (code, reason) = self.goodbye.take().unwrap_or_else(|| (code, reason.to_owned()));
        let (visit, heard) = (self.visit, self.heard.take());
        let farewell = Farewell::new(Arc::clone(&visit.calls), self.bytes.get());
        let runtime = visit.calls.outbound.runtime();
        runtime.spawn(async move {
            // It is never closed.
            let _turn = farewell.calls.turns.acquire().await;
            if let Some(answer) = answer {
                answer.await;
            }
            for (id, message) in heard {
                visit.message(id, message).await;
            }
            visit.disconnect(code, &reason).await;
        });
    }
}

/// Counts an end that is not told yet, and what is heard and not passed on.
struct Farewell {
    calls: Arc<Calls>,
    bytes: usize,
}

impl Farewell {
    fn new(calls: Arc<Calls>, bytes: usize) -> Self {
        calls.farewells.fetch_add(1, Ordering::AcqRel);
        calls.farewell_bytes.fetch_add(bytes, Ordering::AcqRel);
        Self { calls, bytes }
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        self.calls.farewells.fetch_sub(1, Ordering::AcqRel);
        self.calls.farewell_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::hooks::{MOST_FAREWELL_BYTES, MOST_FAREWELLS};
    use crate::gateway::outbound::Outbound;

    #[tokio::test]
    async fn ends_that_wait_for_their_integrations_are_bounded_in_number_and_bytes() {
        let calls = Arc::new(Calls::new(Outbound::new(&[], tokio::runtime::Handle::current())));
        assert!(!calls.is_behind());
        let large = Farewell::new(Arc::clone(&calls), MOST_FAREWELL_BYTES);
        assert!(calls.is_behind(), "of their bytes");
        drop(large);
        assert!(!calls.is_behind());
        let mut many: Vec<_> = (0..MOST_FAREWELLS).map(|_| Farewell::new(Arc::clone(&calls), 0)).collect();
        assert!(calls.is_behind(), "of their number");
        many.pop();
        assert!(!calls.is_behind());
        drop(many);
        assert_eq!((calls.farewells(), calls.farewell_bytes.load(Ordering::Acquire)), (0, 0));
    }
}
