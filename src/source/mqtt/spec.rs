//! What an MQTT source reads: the broker, the subscriptions, and what each topic means. Pure; made by the
//! engine, read by [`super::task`].

use crate::model::event::Origin;
use crate::model::id::Id;
use crate::model::iot::{self, Alias, ExternalBroker};
use crate::model::repeat::Repeats;
use crate::model::trigger::MqttTopics;

/// Everything that a source on an external broker has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttSourceSpec {
    /// The broker.
    pub broker: ExternalBroker,
    /// The same after every restart, so that the broker keeps the session; never empty.
    pub client_id: String,
    /// The topic filters to subscribe to; at least one.
    pub filters: Vec<String>,
    /// Whose topics they are.
    pub topics: Topics,
    /// How people know the source, for log lines.
    pub name: String,
    /// What the broker may send again, since its acknowledgement was lost with the process before this one.
    pub repeats: Option<Repeats>,
}

/// How a topic on the broker becomes the origin of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topics {
    /// Those of a device registry.
    Registry {
        /// The registry.
        registry_id: Id,
        /// Only this device's.
        device_id: Option<Id>,
        /// Other names of device topics.
        aliases: Vec<Alias>,
        /// The registry's devices; `None` takes every device.
        devices: Option<Vec<Id>>,
    },
    /// Those of a broker.
    Broker {
        /// The broker resource.
        broker_id: Id,
    },
}

impl MqttSourceSpec {
    /// Recognises what the broker sends again.
    pub fn recalling(mut self, repeats: Option<Repeats>) -> Self {
        self.repeats = repeats;
        self
    }

    /// How the journal knows our session on the broker.
    pub fn session(&self) -> u64 {
        Repeats::session(&self.broker.host, &self.client_id)
    }

    /// Takes only these devices of the registry: another registry's may be on the same broker.
    pub fn of_devices(mut self, declared: &[Id]) -> Self {
        if let Topics::Registry { devices, .. } = &mut self.topics {
            *devices = Some(declared.to_vec());
        }
        self
    }

    /// What has to be read for a trigger's source. `aliases` are those of the source's registry; `node`
    /// tells this process from others on the same broker.
    pub fn new(source: &MqttTopics, broker: &ExternalBroker, aliases: &[Alias], node: &str) -> Self {
        let (topics, filters) = match source {
            MqttTopics::IotMessage { registry_id, device_id, mqtt_topic } => {
                let filters = match (mqtt_topic, device_id) {
                    (Some(topic), _) => vec![topic.to_string()],
                    (None, Some(device)) => vec![format!("$devices/{device}/#")],
                    (None, None) => vec!["$devices/#".to_owned(), format!("$registries/{registry_id}/#")],
                };
                let (registry_id, device_id) = (registry_id.clone(), device_id.clone());
                let aliases = aliases.to_vec();
                (Topics::Registry { registry_id, device_id, aliases, devices: None }, filters)
            }
            MqttTopics::IotBrokerMessage { broker_id, mqtt_topic } => {
                let filter = mqtt_topic.as_deref().unwrap_or("#").to_owned();
                (Topics::Broker { broker_id: broker_id.clone() }, vec![filter])
            }
        };
        let name = source.to_string();
        // Another set of filters is another session: the broker would go on sending what an old one wanted.
        let client_id = format!("{node}-{}-{:016x}", topics.owner(), fingerprint(&name));
        Self { broker: broker.clone(), client_id, filters, topics, name, repeats: None }
    }
}

impl Topics {
    /// The registry or broker.
    fn owner(&self) -> &str {
        match self {
            Self::Registry { registry_id, .. } => registry_id,
            Self::Broker { broker_id } => broker_id,
        }
    }

    /// Calls `event` with the origin and the standard name of `topic`, unless the source does not want it.
    pub(super) fn interpret<R>(&self, topic: &str, event: impl FnOnce(Origin<'_>, &str) -> R) -> Option<R> {
        match self {
            Self::Broker { broker_id } if !topic.starts_with('$') => {
                Some(event(Origin::Broker { broker_id }, topic))
            }
            Self::Broker { .. } => None,
            Self::Registry { registry_id, device_id: wanted, aliases, devices } => {
                let unaliased = if topic.starts_with('$') { None } else { Some(unalias(aliases, topic)?) };
                let topic = unaliased.as_deref().unwrap_or(topic);
                let (device_id, rest) = match (iot::device_of_topic(topic), iot::registry_of_topic(topic)) {
                    (Some(device), _) => device,
                    (_, Some((registry, rest))) if registry == &**registry_id => ("", rest),
                    _ => return None,
                };
                let declared =
                    |devices: &Vec<Id>| device_id.is_empty() || devices.iter().any(|id| **id == *device_id);
                if !iot::is_standard(rest) || !devices.as_ref().is_none_or(declared) {
                    return None;
                }
                if wanted.as_ref().is_some_and(|wanted| &**wanted != device_id) {
                    return None;
                }
                Some(event(Origin::Device { registry_id, device_id }, topic))
            }
        }
    }
}

/// The standard name behind an alias. Where aliases overlap the longest counts.
fn unalias(aliases: &[Alias], topic: &str) -> Option<String> {
    let under = aliases.iter().filter(|alias| alias.resolve(topic).is_some());
    under.max_by_key(|alias| alias.name.len())?.resolve(topic)
}

/// FNV-1a, which, unlike the standard library's hash, stays the same in every version.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker() -> ExternalBroker {
        ExternalBroker { host: "h".into(), port: 1883, credentials: None }
    }

    fn registry(device_id: Option<&str>, mqtt_topic: Option<&str>) -> MqttSourceSpec {
        let source = MqttTopics::IotMessage {
            registry_id: "factory".into(),
            device_id: device_id.map(Into::into),
            mqtt_topic: mqtt_topic.map(Into::into),
        };
        let alias = |name: &str, target: &str| Alias { name: name.into(), target: target.into() };
        let aliases =
            [alias("hall/press", "$devices/press-1"), alias("hall/press/in", "$devices/press-1/events")];
        MqttSourceSpec::new(&source, &broker(), &aliases, "node")
    }

    fn of_broker(mqtt_topic: Option<&str>) -> MqttSourceSpec {
        let mqtt_topic = mqtt_topic.map(Into::into);
        let source = MqttTopics::IotBrokerMessage { broker_id: "plant".into(), mqtt_topic };
        MqttSourceSpec::new(&source, &broker(), &[], "node")
    }

    /// Device (or broker), a space, and the standard topic.
    fn seen(spec: &MqttSourceSpec, topic: &str) -> Option<String> {
        spec.topics.interpret(topic, |origin, topic| match origin {
            Origin::Device { registry_id, device_id } => format!("{registry_id}/{device_id} {topic}"),
            Origin::Broker { broker_id } => format!("{broker_id} {topic}"),
        })
    }

    #[test]
    fn filters_are_as_wide_as_the_trigger() {
        assert_eq!(registry(None, None).filters, ["$devices/#", "$registries/factory/#"]);
        assert_eq!(registry(Some("press-1"), None).filters, ["$devices/press-1/#"]);
        assert_eq!(registry(None, Some("$devices/+/events")).filters, ["$devices/+/events"]);
        assert_eq!(registry(None, Some("hall/#")).filters, ["hall/#"]);
        assert_eq!(of_broker(None).filters, ["#"]);
        assert_eq!(of_broker(Some("a/+")).filters, ["a/+"]);
    }

    #[test]
    fn client_ids_are_stable_and_differ_between_sources() {
        assert_eq!(of_broker(None).client_id, "node-plant-86395d4696ac53ea");
        assert_eq!(registry(None, None).client_id, registry(None, None).client_id);
        let ids = [
            registry(None, None),
            registry(Some("press-1"), None),
            registry(None, Some("$devices/#")),
            of_broker(None),
            of_broker(Some("#")),
        ]
        .map(|spec| spec.client_id);
        assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 5, "{ids:?}");
    }

    #[test]
    fn a_registry_reads_devices_its_own_topics_and_aliases() {
        let spec = registry(None, None);
        for (topic, expected) in [
            ("$devices/press-1/events/a", Some("factory/press-1 $devices/press-1/events/a")),
            ("$registries/factory/commands", Some("factory/ $registries/factory/commands")),
            ("$registries/other/commands", None),
            ("$devices/press-1", None),
            ("$monitoring/press-1/json", None),
            ("$SYS/x", None),
            ("hall/press/state", Some("factory/press-1 $devices/press-1/state")),
            ("hall/press/in/a", Some("factory/press-1 $devices/press-1/events/a")),
            ("hall/press-2/state", None),
            ("", None),
        ] {
            assert_eq!(seen(&spec, topic).as_deref(), expected, "{topic}");
        }
    }

    #[test]
    fn a_device_reads_its_own_topics_only() {
        let spec = registry(Some("press-1"), Some("$devices/#"));
        assert!(seen(&spec, "$devices/press-1/events").is_some());
        assert!(seen(&spec, "hall/press/events").is_some());
        assert!(seen(&spec, "$devices/press-2/events").is_none());
        assert!(seen(&spec, "$registries/factory/events").is_none());
    }

    #[test]
    fn a_broker_reads_everything_but_dollar_topics() {
        assert_eq!(seen(&of_broker(None), "a/b").as_deref(), Some("plant a/b"));
        assert_eq!(seen(&of_broker(None), "$SYS/broker/uptime"), None);
    }

    #[test]
    fn a_registry_takes_its_own_devices_and_the_standard_topics_only() {
        let source =
            MqttTopics::IotMessage { registry_id: "factory".into(), device_id: None, mqtt_topic: None };
        let broker = ExternalBroker { host: "h".into(), port: 1883, credentials: None };
        let spec = MqttSourceSpec::new(&source, &broker, &[], "node").of_devices(&["press-1".into()]);
        let taken = |topic: &str| spec.topics.interpret(topic, |_, _| ()).is_some();
        for topic in ["$devices/press-1/events", "$devices/press-1/state/x", "$registries/factory/commands"] {
            assert!(taken(topic), "{topic}");
        }
        for topic in
            ["$devices/ghost/events", "$devices/press-1/json", "$devices//events", "$registries/other/events"]
        {
            assert!(!taken(topic), "{topic}");
        }
    }
}
