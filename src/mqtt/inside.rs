//! Messages that come from inside the process: wills, and what the management API publishes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::accounts::Account;
use super::message::Message;
use super::{Shared, access};
use crate::model::event::Encoder;
use crate::model::receipt::{Arrivals, Gate, Verdict};
use crate::model::topic;
use crate::telemetry::{METRICS, trace};

/// How long a message waits for room in the engine's queues, and to be kept.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a message was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// No such registry, device or broker is served here.
    #[error("is not served by the embedded MQTT server")]
    Unknown,
    /// The topic is not a topic name.
    #[error("is not a topic name")]
    Topic,
    /// The account may not publish there.
    #[error("may not be published to by this registry, device or broker")]
    Denied,
    /// The engine did not take it in time; perhaps it did not take it at all.
    #[error("the message could not be kept in time")]
    Refused,
}

/// Publishes a message at QoS 1 as the account with this name. Blocks until its events are kept.
pub(super) fn publish(
    shared: &Shared,
    runtime: &Handle,
    name: &str,
    topic: &str,
    payload: &[u8],
) -> Result<(), PublishError> {
    if topic::check_name(topic).is_err() || topic.len() > access::MAX_TOPIC {
        return Err(PublishError::Topic);
    }
    let account = shared.accounts().get(name).cloned().ok_or(PublishError::Unknown)?;
    let message =
        Message { payload: Bytes::copy_from_slice(payload), properties: Bytes::new(), expires: None };
    let wake = Arc::new(Notify::new());
    runtime.block_on(async {
        let gate = send(&account, 0, topic, Arc::new(message), 1, Arc::clone(&wake)).await?;
        let end = Instant::now() + PATIENCE;
        loop {
            match gate.verdict() {
                Verdict::Accepted => return Ok(()),
                Verdict::Refused => return Err(PublishError::Refused),
                Verdict::Pending => {
                    timeout_at(end, wake.notified()).await.map_err(|_| PublishError::Refused)?;
                }
            }
        }
    })
}

/// Hands a message to subscribers and to the engine's links. The gate opens when the engine has kept it.
pub(super) async fn send(
    account: &Account,
    session: u64,
    topic: &str,
    message: Arc<Message>,
    qos: u8,
    wake: Arc<Notify>,
) -> Result<Arc<Gate>, PublishError> {
    let space = &account.space;
    let hear = |topic: &str| {
        if let Some(heard) = account.heard() {
            heard.hear(topic, &message.payload);
        }
    };
    let route = || space.route(&account.identity, session, topic).ok_or(PublishError::Denied);
    let route_now = {
        let found = route()?;
        let _order = found.canonical.permanent.then(|| space.permanent_order());
        let found = if found.canonical.permanent {
            space.keep(&found.canonical.topic, &message, qos);
            // Who subscribed meanwhile has not seen it.
            route()?
        } else {
            found
        };
        found.deliver(&message, qos);
        found
    };
    hear(&route_now.canonical.topic);
    METRICS.mqtt_received.inc();
    let (gate, receipts) = Gate::new(route_now.links.len(), wake);
    if route_now.links.is_empty() {
        METRICS.mqtt_unrouted.inc();
        return Ok(gate);
    }
    let origin = account.origin(route_now.canonical.device_id.as_deref());
    let event = Encoder::new().iot_message(origin, &route_now.canonical.topic, &message.payload);
    METRICS.events_received.inc();
    if trace::is_on() {
        trace::received(&event, origin.device_id(), &route_now.canonical.topic);
    }
    let end = Instant::now() + PATIENCE;
    for (link, receipt) in route_now.links.into_iter().zip(receipts) {
        match timeout_at(end, link.room()).await {
            Ok(Some(room)) => {
                drop(room.send(Arrivals {
                    events: vec![event.clone()],
                    repeats: None,
                    made_of: None,
                    receipt,
                }));
            }
            // The receipt refuses when it is dropped.
            _ => drop(METRICS.mqtt_dropped.inc()),
        }
    }
    Ok(gate)
}
