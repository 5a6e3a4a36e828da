//! What a trigger listens to: `iot_message`, `iot_broker_message` or `container_registry`.

use std::collections::BTreeSet;

use super::Known;
use super::fields::{Fields, Reading, Value};
use super::scalar::{reference, word};
use super::topics::{check_broker_filter, check_registry_filter};
use crate::model::container::{ContainerEventType, ContainerFilter};
use crate::model::id::Id;
use crate::model::trigger::{MqttTopics, TriggerSource};

const KINDS: [&str; 3] = ["iot_message", "iot_broker_message", "container_registry"];
/// Sources of the model system that are not built here.
const OTHER_KINDS: [&str; 10] = [
    "timer",
    "message_queue",
    "ymq",
    "object_storage",
    "cloud_logs",
    "logging",
    "billing_budget",
    "data_stream",
    "yds",
    "mail",
];

/// Longest names of repositories and tags, and the marks in them.
const MAX_IMAGE_NAME: usize = 255;
const IMAGE_MARKS: &str = "/-._:";
const MAX_TAG: usize = 128;
const TAG_MARKS: &str = "-._";

/// The one source that a `source:` or `rule:` names.
pub(super) fn kind<'a>(fields: &mut Fields<'a>, reading: &mut Reading) -> Option<(&'static str, Value<'a>)> {
    let faults = reading.faults.len();
    fields.refuse(&OTHER_KINDS, reading);
    if reading.faults.len() > faults {
        fields.present(&KINDS);
        return None;
    }
    fields.one_of(&KINDS, reading)
}

/// Reads the source of a kind. The other keys beside it are the caller's.
pub(super) fn read(
    kind: &'static str,
    fields: &mut Fields<'_>,
    known: &Known<'_>,
    reading: &mut Reading,
) -> Option<TriggerSource> {
    match kind {
        "iot_message" => iot_message(fields, known, reading),
        "iot_broker_message" => iot_broker_message(fields, known, reading),
        _ => container_registry(fields, known, reading),
    }
}

fn iot_message(fields: &mut Fields<'_>, known: &Known<'_>, reading: &mut Reading) -> Option<TriggerSource> {
    let registry = fields.need("registry_id", reading);
    let device = fields.get("device_id");
    let topic = fields.get("mqtt_topic");
    let registry = registry?;
    let ids = known.device_registries.iter().map(|registry| &*registry.id);
    let registry_id = reference(&registry, "a device registry", ids, reading)?;
    let declared = known.device_registries.iter().find(|declared| declared.id == registry_id)?;
    if declared.external.is_none() && !known.embedded_mqtt {
        registry.fault(reading, not_served("registry", &registry_id));
    }
    let device_id = device.as_ref().and_then(|value| {
        let ids = declared.devices.iter().map(|device| &*device.id);
        reference(value, &format!("a device of the registry \"{registry_id}\""), ids, reading)
    });
    let mqtt_topic = topic.and_then(|value| {
        let filter = value.str(reading)?;
        // A wrong device is a fault already, and would only spoil the topic's check.
        if device.is_some() == device_id.is_some()
            && let Err(fault) = check_registry_filter(filter, declared, device_id.as_deref())
        {
            value.fault(reading, format_args!("{} {fault}", value.shown()));
        }
        Some(Id::from(filter))
    });
    Some(TriggerSource::Mqtt(MqttTopics::IotMessage { registry_id, device_id, mqtt_topic }))
}

fn iot_broker_message(
    fields: &mut Fields<'_>,
    known: &Known<'_>,
    reading: &mut Reading,
) -> Option<TriggerSource> {
    let broker = fields.need("broker_id", reading);
    let mqtt_topic = fields.get("mqtt_topic").and_then(|value| {
        let filter = value.str(reading)?;
        if let Err(fault) = check_broker_filter(filter) {
            value.fault(reading, format_args!("{} {fault}", value.shown()));
        }
        Some(Id::from(filter))
    });
    let broker = broker?;
    let ids = known.brokers.iter().map(|broker| &*broker.id);
    let broker_id = reference(&broker, "a broker", ids, reading)?;
    let external =
        known.brokers.iter().any(|declared| declared.id == broker_id && declared.external.is_some());
    if !external && !known.embedded_mqtt {
        broker.fault(reading, not_served("broker", &broker_id));
    }
    Some(TriggerSource::Mqtt(MqttTopics::IotBrokerMessage { broker_id, mqtt_topic }))
}

fn not_served(what: &str, id: &str) -> String {
    format!(
        "the {what} \"{id}\" lives on the embedded MQTT server, which is off: add a section `mqtt:`, \
         or give the {what} a `url`"
    )
}

fn container_registry(
    fields: &mut Fields<'_>,
    known: &Known<'_>,
    reading: &mut Reading,
) -> Option<TriggerSource> {
    use ContainerEventType::{CreateImage, CreateImageTag, DeleteImage, DeleteImageTag};
    const WORDS: [(&str, ContainerEventType); 8] = [
        ("create_image", CreateImage),
        ("delete_image", DeleteImage),
        ("create_image_tag", CreateImageTag),
        ("delete_image_tag", DeleteImageTag),
        ("CONTAINER_REGISTRY_EVENT_TYPE_CREATE_IMAGE", CreateImage),
        ("CONTAINER_REGISTRY_EVENT_TYPE_DELETE_IMAGE", DeleteImage),
        ("CONTAINER_REGISTRY_EVENT_TYPE_CREATE_IMAGE_TAG", CreateImageTag),
        ("CONTAINER_REGISTRY_EVENT_TYPE_DELETE_IMAGE_TAG", DeleteImageTag),
    ];
    let registry = fields.need("registry_id", reading);
    let mut event_types = BTreeSet::new();
    let written = fields.need("event_type", reading);
    let faults = reading.faults.len();
    if let Some(list) = &written {
        for value in list.items(reading) {
            let Some(event_type) = word(&value, &WORDS, reading) else { continue };
            if !event_types.insert(event_type) {
                value.fault(reading, format_args!("{} stands twice in the list", value.shown()));
            }
        }
        if event_types.is_empty() && reading.faults.len() == faults {
            list.fault(reading, "at least one event type is needed, such as \"create_image\"");
        }
    }
    let image_name =
        fields.get("image_name").and_then(|value| filter_text(&value, MAX_IMAGE_NAME, IMAGE_MARKS, reading));
    let tag = fields.get("tag").and_then(|value| filter_text(&value, MAX_TAG, TAG_MARKS, reading));
    let ids = known.container_registries.iter().map(|registry| &*registry.id);
    let registry_id = reference(&registry?, "a container registry", ids, reading)?;
    let filter = ContainerFilter { event_types, image_name, tag };
    Some(TriggerSource::ContainerRegistry { registry_id, filter })
}

/// A name of an image or a tag: letters, digits and some marks.
fn filter_text(value: &Value<'_>, most: usize, marks: &str, reading: &mut Reading) -> Option<Id> {
    let text = value.str(reading)?;
    if let Err(fault) = check_filter_text(text, most, marks) {
        let shown = value.shown();
        value.fault(reading, format_args!("{shown} {fault}"));
    }
    Some(Id::from(text))
}

/// Holds what images or tags are filtered by against what their names can be.
fn check_filter_text(text: &str, most: usize, marks: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || marks.contains(c);
    if !text.is_empty() && text.len() <= most && text.chars().all(allowed) {
        return Ok(());
    }
    let marks = marks.chars().map(|mark| format!("'{mark}'")).collect::<Vec<_>>().join(", ");
    Err(format!("is not a name (1 to {most} letters, digits or {marks}; no wildcards)"))
}

/// What a repository may be filtered by.
pub fn check_image_name(text: &str) -> Result<(), String> {
    check_filter_text(text, MAX_IMAGE_NAME, IMAGE_MARKS)
}

/// What a tag may be filtered by.
pub fn check_tag(text: &str) -> Result<(), String> {
    check_filter_text(text, MAX_TAG, TAG_MARKS)
}
