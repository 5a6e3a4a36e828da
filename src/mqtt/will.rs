//! Wills: published for clients that are lost, by their connection's end or their session's keeper.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::accounts::Account;
use super::inside;
use super::message::Message;
use super::packet::Will;
use crate::model::event::Origin;

/// A will whose client is lost.
#[derive(Debug)]
pub(crate) struct PendingWill {
    /// How long the client may still come back.
    pub(crate) delay: Duration,
    pub(crate) will: Will,
    pub(crate) account: Arc<Account>,
    /// The session, for subscribers that do not want their own messages.
    pub(crate) session: u64,
}

/// Publishes a will: to the engine's links and to subscribers, as any message. What the user may publish was
/// checked when it connected.
pub(crate) async fn publish(pending: PendingWill) {
    let PendingWill { will, account, session, .. } = pending;
    let expires = will.expiry.map(|seconds| Instant::now() + Duration::from_secs(seconds.into()));
    let message = Arc::new(Message { payload: will.payload, properties: will.properties, expires });
    // Nobody waits for its acknowledgement.
    let wake = Arc::new(Notify::new());
    drop(inside::send(&account, session, &will.topic, message, will.qos, wake).await);
}

impl Account {
    /// What an event of this account says about its origin.
    pub(crate) fn origin<'a>(&'a self, device_id: Option<&'a str>) -> Origin<'a> {
        match self.identity {
            super::access::Identity::Broker => Origin::Broker { broker_id: &self.space.id },
            _ => Origin::Device { registry_id: &self.space.id, device_id: device_id.unwrap_or_default() },
        }
    }
}
