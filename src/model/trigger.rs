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
    /// What the journal knows it by: its name, if it is declared in the configuration file.
    pub id: Id,
    /// Unique in its folder.
    pub name: Id,
    /// Why it does not fire just now, if it does not.
    pub pause: Option<Pause>,
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

/// Why a batch closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BatchClose {
    /// It holds as many events as it may.
    Count,
    /// The next event would have made its message too long.
    Bytes,
    /// Its time was over.
    Cutoff,
    /// Its one event is longer than a message may be, and travels alone.
    Oversize,
    /// The trigger ends or starts again.
    Drain,
}

impl BatchClose {
    /// Every reason.
    pub const ALL: [Self; 5] = [Self::Count, Self::Bytes, Self::Cutoff, Self::Oversize, Self::Drain];

    /// The word for logs and counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Bytes => "bytes",
            Self::Cutoff => "cutoff",
            Self::Oversize => "oversize",
            Self::Drain => "drain",
        }
    }
}

/// What becomes of events while a trigger does not fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// They are kept, as long as their path keeps events.
    Hold,
    /// They are not sent.
    Drop,
}

/// How `details.payload` of an event is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum PayloadEncoding {
    /// Standard base64.
    #[default]
    Base64,
    /// As text, if it is UTF-8.
    Text,
    /// As the JSON value that it is, or else as text.
    Json,
}

/// What is done to an event before it comes into a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Steps {
    /// How its payload is written.
    pub payload: PayloadEncoding,
    /// A jq program; events for which it gives `true` go on.
    pub filter: Option<Id>,
    /// A jq program that makes another event of it.
    pub transformer: Option<Id>,
}

impl Steps {
    /// Whether events stay as they are.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
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
        /// What is done to every event before.
        steps: Steps,
    },
}
