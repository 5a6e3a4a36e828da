//! Triggers in the model system's v2 form: one source, and actions that each take every event of it.

use std::fmt;
use std::time::Duration;

use super::container::ContainerFilter;
use super::gateway::{MAX_MESSAGE_BYTES, PathKey};
use super::id::Id;

/// Most events of one batch.
pub const MAX_COUNT: usize = 1000;
/// Events of one batch when the trigger is silent.
pub const DEFAULT_COUNT: usize = 1;
/// Longest time a batch may stay open.
pub const MAX_CUTOFF: Duration = Duration::from_secs(60);
/// How long a batch stays open when the trigger is silent, or says zero.
pub const DEFAULT_CUTOFF: Duration = Duration::from_secs(1);

/// A trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    /// Unique in its folder.
    pub name: Id,
    /// Where its events come from.
    pub source: TriggerSource,
    /// How they are grouped.
    pub batch: BatchSettings,
    /// What is done with every batch; at least one.
    pub actions: Vec<Action>,
}

/// What a trigger listens to. Triggers with the same source share one SourceActor.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TriggerSource {
    /// Messages of MQTT topics.
    Mqtt(MqttTopics),
    /// `container_registry`: images and tags of a container registry.
    ContainerRegistry {
        /// The registry.
        registry_id: Id,
        /// What of it.
        filter: ContainerFilter,
    },
}

impl fmt::Display for TriggerSource {
    /// The same text for the same source only: in a name of MQTT topics an id is followed by ' ' or '/'.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mqtt(topics) => topics.fmt(f),
            Self::ContainerRegistry { registry_id, filter } => write!(f, "{registry_id}: {filter}"),
        }
    }
}

/// Topics of a device registry or a broker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MqttTopics {
    /// `iot_message`: topics of a device registry.
    IotMessage {
        /// The registry.
        registry_id: Id,
        /// Only this device's topics.
        device_id: Option<Id>,
        /// A topic filter: `$devices/…`, `$registries/…`, or an alias. Without it every topic of the
        /// registry and its devices, or of the device, except `$monitoring`.
        mqtt_topic: Option<Id>,
    },
    /// `iot_broker_message`: topics of a broker.
    IotBrokerMessage {
        /// The broker.
        broker_id: Id,
        /// A topic filter; without it every topic.
        mqtt_topic: Option<Id>,
    },
}

impl fmt::Display for MqttTopics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (owner, device, topic) = match self {
            Self::IotMessage { registry_id, device_id, mqtt_topic } => {
                (registry_id, device_id.as_ref(), mqtt_topic)
            }
            Self::IotBrokerMessage { broker_id, mqtt_topic } => (broker_id, None, mqtt_topic),
        };
        f.write_str(owner)?;
        if let Some(device) = device {
            write!(f, "/{device}")?;
        }
        match topic {
            Some(topic) => write!(f, " {topic}"),
            None => f.write_str(" (all topics)"),
        }
    }
}

/// When a batch closes, with every default filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSettings {
    /// Events in a batch, 1 to [`MAX_COUNT`].
    pub max_count: usize,
    /// Bytes of the encoded message, 1 to [`MAX_MESSAGE_BYTES`].
    pub max_bytes: usize,
    /// Time from a batch's first event to its end, above zero, at most [`MAX_CUTOFF`].
    pub cutoff: Duration,
}

impl Default for BatchSettings {
    fn default() -> Self {
        Self { max_count: DEFAULT_COUNT, max_bytes: MAX_MESSAGE_BYTES, cutoff: DEFAULT_CUTOFF }
    }
}

/// What is done with a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Broadcast it to every connection of a path.
    GatewayWebsocketBroadcast {
        /// The gateway and its path.
        target: PathKey,
        /// The account the broadcast is done as.
        service_account_id: Id,
    },
}
