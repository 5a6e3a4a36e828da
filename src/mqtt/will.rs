//! Wills: published for clients that are lost, by their connection's end or their session's keeper.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::accounts::Account;
use super::message::Message;
use super::packet::Will;
use crate::model::event::{Encoder, Origin};
use crate::model::receipt::{Arrivals, Gate};
use crate::telemetry::METRICS;

/// How long a will waits for room in the engine's queues; after that it is lost, and counted.
const PATIENCE: Duration = Duration::from_secs(5);

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
    let space = &account.space;
    let now = Instant::now();
    let message = Arc::new(Message {
        payload: will.payload,
        properties: will.properties,
        expires: will.expiry.map(|seconds| now + Duration::from_secs(seconds.into())),
    });
    let Some(mut route) = space.route(&account.identity, session, &will.topic) else { return };
    if route.canonical.permanent {
        space.keep(&route.canonical.topic, &message, will.qos);
        // Who subscribed meanwhile has not seen it.
        let Some(again) = space.route(&account.identity, session, &will.topic) else { return };
        route = again;
    }
    route.deliver(&message, will.qos);
    if route.links.is_empty() {
        return;
    }
    let origin = account.origin(route.canonical.device_id.as_deref());
    let event = Encoder::new().iot_message(origin, &route.canonical.topic, &message.payload);
    METRICS.events_received.inc();
    // Nobody waits for its acknowledgement.
    let (_, receipts) = Gate::new(route.links.len(), Arc::new(Notify::new()));
    for (link, receipt) in route.links.into_iter().zip(receipts) {
        match timeout_at(now + PATIENCE, link.room()).await {
            Ok(Some(room)) => {
                drop(room.send(Arrivals { events: vec![event.clone()], repeats: None, receipt }))
            }
            _ => drop(METRICS.mqtt_dropped.inc()),
        }
    }
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
