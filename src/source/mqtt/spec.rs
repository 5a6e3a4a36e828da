//! What a source reads on an external broker, and how its topics become events. Pure.

use crate::model::event::{Encoder, Event, Origin};
use crate::model::id::Id;
use crate::model::iot::{Alias, ExternalBroker, device_of_topic, registry_of_topic};
use crate::model::trigger::TriggerSource;

/// Everything that a source on an external broker needs to know.
#[derive(Debug, Clone)]
pub struct MqttSourceSpec {
    /// Where the broker is.
    pub broker: ExternalBroker,
    /// Stable over restarts: the broker keeps the session, and the messages, under it.
    pub client_id: String,
    /// What is subscribed to.
    pub filters: Vec<String>,
    /// The name for log lines.
    pub name: String,
    owner: Owner,
}

#[derive(Debug, Clone)]
enum Owner {
    Registry { id: Id, device: Option<Id>, aliases: Vec<Alias> },
    Broker { id: Id },
}

impl MqttSourceSpec {
    /// The spec for a trigger's source. `node` names this process among all that use the broker.
    pub fn new(source: &TriggerSource, broker: &ExternalBroker, aliases: &[Alias], node: &str) -> Self {
        let (owner, topic, all) = match source {
            TriggerSource::IotMessage { registry_id, device_id, mqtt_topic } => {
                let all = match device_id {
                    Some(device) => vec![format!("$devices/{device}/#")],
                    None => vec!["$devices/#".to_owned(), format!("$registries/{registry_id}/#")],
                };
                let (id, device, aliases) = (registry_id.clone(), device_id.clone(), aliases.to_vec());
                (Owner::Registry { id, device, aliases }, mqtt_topic, all)
            }
            TriggerSource::IotBrokerMessage { broker_id, mqtt_topic } => {
                (Owner::Broker { id: broker_id.clone() }, mqtt_topic, vec!["#".to_owned()])
            }
        };
        Self {
            broker: broker.clone(),
            client_id: format!("{node}-{:016x}", fnv1a(&source.to_string())),
            filters: topic.as_ref().map_or(all, |topic| vec![topic.to_string()]),
            name: source.to_string(),
            owner,
        }
    }

    /// Makes a message an event; `None` for a topic that the source does not read.
    pub(super) fn event(&self, encoder: &mut Encoder, topic: &str, payload: &[u8]) -> Option<Event> {
        match &self.owner {
            Owner::Broker { id } => {
                Some(encoder.iot_message(Origin::Broker { broker_id: id }, topic, payload))
            }
            Owner::Registry { id, device, aliases } => {
                let resolved = aliases.iter().find_map(|alias| alias.resolve(topic));
                let topic = resolved.as_deref().unwrap_or(topic);
                let device_id = match (device_of_topic(topic), registry_of_topic(topic)) {
                    (Some((device_id, _)), _) => device_id,
                    (None, Some((registry_id, _))) if registry_id == &**id => "",
                    _ => return None,
                };
                if device.as_deref().is_some_and(|wanted| wanted != device_id) {
                    return None;
                }
                Some(encoder.iot_message(Origin::Device { registry_id: id, device_id }, topic, payload))
            }
        }
    }
}

/// The 64-bit FNV-1a hash: short, and the same in every version of this program.
fn fnv1a(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(device_id: Option<&str>, mqtt_topic: Option<&str>) -> MqttSourceSpec {
        let source = TriggerSource::IotMessage {
            registry_id: "factory".into(),
            device_id: device_id.map(Into::into),
            mqtt_topic: mqtt_topic.map(Into::into),
        };
        let alias = Alias { name: "hall/press".into(), target: "$devices/press-1".into() };
        MqttSourceSpec::new(&source, &broker(), &[alias], "node")
    }

    fn broker() -> ExternalBroker {
        ExternalBroker { host: "h".into(), port: 1883, credentials: None }
    }

    fn details(spec: &MqttSourceSpec, topic: &str) -> Option<(String, String)> {
        let event = spec.event(&mut Encoder::new(), topic, b"x")?;
        let json: serde_json::Value = serde_json::from_slice(&event.json).unwrap();
        let text = |key: &str| json["details"][key].as_str().unwrap_or("-").to_owned();
        Some((text("device_id"), text("mqtt_topic")))
    }

    #[test]
    fn subscribes_to_what_the_trigger_names() {
        assert_eq!(registry(None, None).filters, ["$devices/#", "$registries/factory/#"]);
        assert_eq!(registry(Some("press-1"), None).filters, ["$devices/press-1/#"]);
        assert_eq!(registry(None, Some("$devices/+/events")).filters, ["$devices/+/events"]);
        let all = TriggerSource::IotBrokerMessage { broker_id: "plant".into(), mqtt_topic: None };
        assert_eq!(MqttSourceSpec::new(&all, &broker(), &[], "node").filters, ["#"]);
    }

    #[test]
    fn the_client_id_is_stable_and_differs_by_source() {
        let id = |device| registry(device, None).client_id;
        assert_eq!(id(None), id(None));
        assert_ne!(id(None), id(Some("press-1")));
        assert_eq!(fnv1a(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a("a"), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn device_and_topic_are_read_from_the_topic() {
        let spec = registry(None, None);
        let pair = |device: &str, topic: &str| Some((device.to_owned(), topic.to_owned()));
        assert_eq!(details(&spec, "$devices/a/events/x"), pair("a", "$devices/a/events/x"));
        assert_eq!(details(&spec, "$registries/factory/events"), pair("", "$registries/factory/events"));
        assert_eq!(details(&spec, "hall/press/events"), pair("press-1", "$devices/press-1/events"));
        assert_eq!(details(&spec, "$registries/other/events"), None);
        assert_eq!(details(&spec, "$monitoring/a/json"), None);
        assert_eq!(details(&spec, "other"), None);
    }

    #[test]
    fn a_source_of_one_device_takes_no_other() {
        let spec = registry(Some("press-1"), Some("$devices/+/events"));
        assert!(details(&spec, "$devices/press-1/events").is_some());
        assert_eq!(details(&spec, "$devices/press-2/events"), None);
        assert_eq!(details(&spec, "$registries/factory/events"), None);
    }
}
