//! What a client wants of a path, as its request says it: `?device=`, `?topic=`, `?event_type=`. Pure.
//!
//! Values of one kind stand for any of them, kinds for all of them. Equal filters share what is made for them.

use serde::Deserialize;
use serde_json::value::RawValue;
use url::form_urlencoded;

use super::refusal::Refusal;
use crate::model::container::ContainerEventType;
use crate::model::event::{Event, IOT_MESSAGE};
use crate::model::{id, topic};

/// Most values of a filter, of all kinds together: each is held against every event.
pub(super) const MAX_VALUES: usize = 32;
/// Longest value, in bytes.
const MAX_VALUE: usize = 1024;
/// How the types of our own events begin.
const OWN_TYPES: &str = "yandex.cloud.events.";

/// What is wanted. The values of a kind are sorted, and none of a kind stands for all events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Filter {
    devices: Vec<Box<str>>,
    topics: Vec<Box<str>>,
    event_types: Vec<Box<str>>,
}

impl Filter {
    /// Reads a request's query; `None`: everything is wanted.
    pub(super) fn read(query: &str) -> Result<Option<Self>, Refusal> {
        let mut filter = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let (values, value) = match &*name {
                "device" => (&mut filter.devices, device(&value)?),
                "topic" => (&mut filter.topics, topic_filter(&value)?),
                "event_type" => (&mut filter.event_types, event_type(&value)?),
                _ => continue,
            };
            if !values.contains(&value) {
                values.push(value);
            }
            if filter.len() > MAX_VALUES {
                let fault = format!("{name}: more than {MAX_VALUES} values of device, topic and event_type");
                return Err(Refusal::Filter(fault));
            }
        }
        filter.devices.sort_unstable();
        filter.topics.sort_unstable();
        filter.event_types.sort_unstable();
        Ok((filter.len() > 0).then_some(filter))
    }

    fn len(&self) -> usize {
        self.devices.len() + self.topics.len() + self.event_types.len()
    }

    /// Bytes that its values take, about.
    pub(super) fn bytes(&self) -> usize {
        let all = self.devices.iter().chain(&self.topics).chain(&self.event_types);
        all.map(|value| value.len() + size_of_val(value)).sum()
    }

    /// Whether an event is wanted.
    pub(super) fn wants(&self, facts: &Facts) -> bool {
        let is_one_of = |wanted: &[Box<str>], text: &Option<Box<str>>| {
            wanted.is_empty() || text.as_ref().is_some_and(|text| wanted.binary_search(text).is_ok())
        };
        let is_topic = |name: &str| self.topics.iter().any(|filter| topic::matches(filter, name));
        is_one_of(&self.devices, &facts.device)
            && is_one_of(&self.event_types, &facts.event_type)
            && (self.topics.is_empty() || facts.topic.as_deref().is_some_and(is_topic))
    }
}

fn device(text: &str) -> Result<Box<str>, Refusal> {
    if id::check(text) {
        Ok(text.into())
    } else {
        Err(refuse("device", text, &format!("the id of a device ({})", id::RULE)))
    }
}

fn topic_filter(text: &str) -> Result<Box<str>, Refusal> {
    let rule = || format!("an MQTT topic filter of at most {MAX_VALUE} bytes");
    if text.len() > MAX_VALUE {
        return Err(refuse("topic", text, &rule()));
    }
    match topic::check_filter(text) {
        Ok(()) => Ok(text.into()),
        Err(error) => Err(refuse("topic", text, &format!("{}: it {error}", rule()))),
    }
}

/// A type's full name. Programs of triggers may make types of their own; those have a dot, so that slips are seen.
fn event_type(text: &str) -> Result<Box<str>, Refusal> {
    let own = || ContainerEventType::ALL.map(ContainerEventType::event_type).into_iter().chain([IOT_MESSAGE]);
    let short = |name: &'static str| name.rsplit('.').next().unwrap_or(name);
    if let Some(known) = own().find(|name| *name == text || short(name) == text) {
        return Ok(known.into());
    }
    if text.contains('.') && !text.starts_with(OWN_TYPES) && text.len() <= MAX_VALUE {
        return Ok(text.into());
    }
    let names: Vec<_> = own().map(short).collect();
    let expected = format!(
        "one of {}, nor a full name of at most {MAX_VALUE} bytes, such as {IOT_MESSAGE}",
        names.join(", ")
    );
    Err(refuse("event_type", text, &expected))
}

fn refuse(name: &str, value: &str, expected: &str) -> Refusal {
    Refusal::Filter(Refusal::not(name, value, expected))
}

/// What filters look at in an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// `details.device_id`
    device: Option<Box<str>>,
    /// `details.mqtt_topic`
    topic: Option<Box<str>>,
    /// `event_metadata.event_type`
    event_type: Option<Box<str>>,
}

/// An event's JSON. A program of a trigger may have made anything of it.
#[derive(Deserialize)]
struct Outer<'a> {
    #[serde(borrow, default)]
    event_metadata: Option<&'a RawValue>,
    #[serde(borrow, default)]
    details: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Inner<'a> {
    #[serde(borrow, default)]
    event_type: Option<&'a RawValue>,
    #[serde(borrow, default)]
    device_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    mqtt_topic: Option<&'a RawValue>,
}

impl Facts {
    /// Those of an event. What is not there, or is no text, is never wanted by name.
    pub(super) fn of(event: &Event) -> Self {
        let Ok(outer) = serde_json::from_slice::<Outer<'_>>(&event.json) else { return Self::default() };
        let inner = |part: Option<&'_ RawValue>| -> Option<[Option<Box<str>>; 3]> {
            let inner: Inner<'_> = serde_json::from_str(part?.get()).ok()?;
            let text = |value: Option<&RawValue>| serde_json::from_str(value?.get()).ok();
            Some([text(inner.event_type), text(inner.device_id), text(inner.mqtt_topic)])
        };
        let [event_type, _, _] = inner(outer.event_metadata).unwrap_or_default();
        let [_, device, topic] = inner(outer.details).unwrap_or_default();
        Self { device, topic, event_type }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::model::event::{Encoder, Origin};

    fn read(query: &str) -> Result<Option<Filter>, String> {
        Filter::read(query).map_err(|refusal| match refusal {
            Refusal::Filter(fault) => fault,
            other => panic!("{other:?}"),
        })
    }

    fn facts(json: &str) -> Facts {
        Facts::of(&Event { id: Uuid::nil(), json: Bytes::copy_from_slice(json.as_bytes()) })
    }

    #[test]
    fn equal_filters_are_equal_however_they_are_written() {
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("last=5&room=x&devices=x"), Ok(None));
        let one = read("device=b&topic=a/%2B&device=a&event_type=IoTMessage").unwrap();
        let other =
            read("event_type=yandex.cloud.events.iot.IoTMessage&device=a&device=b&device=a&topic=a%2F%2B");
        assert_eq!(Ok(one.clone()), other);
        assert!(one.is_some_and(|filter| filter.len() == 4));
    }

    #[test]
    fn bad_values_are_named_with_what_is_allowed() {
        let many: String = (0..=MAX_VALUES).map(|n| format!("device=d{n}&")).collect();
        let long = format!("topic={}", "a".repeat(MAX_VALUE + 1));
        for (query, words) in [
            ("device=", "device: \"\" is not the id of a device (1 to 49 characters"),
            ("device=Press-1", "device: \"Press-1\" is not the id"),
            ("topic=", "topic: \"\" is not an MQTT topic filter of at most 1024 bytes: it is empty"),
            (
                "topic=a%23",
                "topic: \"a#\" is not an MQTT topic filter of at most 1024 bytes: it has a misplaced wildcard",
            ),
            (&long[..], "topic: \"aaaa"),
            (
                "event_type=CreateImages",
                "event_type: \"CreateImages\" is not one of CreateImage, DeleteImage, CreateImageTag, DeleteImageTag, IoTMessage",
            ),
            (
                "event_type=yandex.cloud.events.iot.IotMessage",
                "event_type: \"yandex.cloud.events.iot.IotMessage\" is not",
            ),
            (&many, "device: more than 32 values"),
        ] {
            let fault = read(query).unwrap_err();
            assert!(fault.starts_with(words), "{fault}");
        }
        assert!(read("event_type=org.example.Alarm").is_ok());
    }

    #[test]
    fn an_event_tells_device_topic_and_type() {
        let origin = Origin::Device { registry_id: "factory", device_id: "press-1" };
        let event = Encoder::new().iot_message(origin, "$devices/press-1/events/\"ü\"", b"{}");
        let expected = Facts {
            device: Some("press-1".into()),
            topic: Some("$devices/press-1/events/\"ü\"".into()),
            event_type: Some(IOT_MESSAGE.into()),
        };
        assert_eq!(Facts::of(&event), expected);
        // What a program of a trigger may leave.
        for json in [
            "1",
            "{",
            "{}",
            r#"{"details":3}"#,
            r#"{"details":{"device_id":7}}"#,
            r#"{"event_metadata":null}"#,
        ] {
            assert_eq!(facts(json), Facts::default(), "{json}");
        }
        let half = r#"{"details":{"device_id":{},"mqtt_topic":"t"},"event_metadata":{"event_type":"a.b","event_type":"c"}}"#;
        assert_eq!(facts(half), Facts { topic: Some("t".into()), ..Facts::default() });
    }

    #[test]
    fn any_value_of_a_kind_and_all_kinds() {
        let event = |device: &str, topic: &str| {
            facts(&format!(
                r#"{{"event_metadata":{{"event_type":"a.b"}},"details":{{"device_id":"{device}","mqtt_topic":"{topic}"}}}}"#
            ))
        };
        for (query, device, topic, expected) in [
            ("device=a&device=b", "b", "t", true),
            ("device=a&device=b", "c", "t", false),
            ("device=a&topic=t/%23", "a", "t/x", true),
            ("device=a&topic=t/%23", "a", "s/x", false),
            ("device=a&topic=t/%23", "b", "t/x", false),
            ("topic=s&topic=t/%2B", "b", "t/x", true),
            ("topic=%23", "b", "$devices/b/events", false),
            ("event_type=a.b&topic=t", "b", "t", true),
            ("event_type=a.c&event_type=IoTMessage", "b", "t", false),
        ] {
            let filter = read(query).unwrap().unwrap();
            assert_eq!(filter.wants(&event(device, topic)), expected, "{query} {device} {topic}");
        }
        assert!(!read("device=a").unwrap().unwrap().wants(&facts(r#"{"details":{"tag":"v1"}}"#)));
    }
}
