//! A message on its way to MQTT subscribers: made once, shared by all of them.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

/// What was published.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The payload.
    pub(crate) payload: Bytes,
    /// Encoded properties of 5.0 that are passed on.
    pub(crate) properties: Bytes,
    /// When it is of no use any more.
    pub(crate) expires: Option<Instant>,
}

/// A message for one subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// What.
    pub(crate) message: Arc<Message>,
    /// Under which name.
    pub(crate) topic: Arc<str>,
    /// 0 or 1.
    pub(crate) qos: u8,
    /// It was kept and is sent because of a new subscription.
    pub(crate) retain: bool,
    /// The identifiers of the subscriptions it is for.
    pub(crate) ids: Arc<[u32]>,
}

/// What a queued delivery costs besides its bytes; stops queues of empty messages.
const OVERHEAD: usize = 128;

impl Message {
    /// Bytes that keeping it costs.
    pub(crate) fn cost(&self) -> usize {
        OVERHEAD + self.payload.len() + self.properties.len()
    }

    /// Whether its time is over.
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }
}

impl Delivery {
    /// Bytes that keeping it costs.
    pub(crate) fn cost(&self) -> usize {
        self.message.cost() + self.topic.len()
    }

    /// The quality of service of a delivery: what was published, but not above what was granted.
    pub(crate) fn qos(published: u8, granted: u8) -> u8 {
        published.min(granted)
    }
}
