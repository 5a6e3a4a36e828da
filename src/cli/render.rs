//! A batch as lines for people: one for each event.

use std::borrow::Cow;
use std::io::{self, Write};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::Value;

use crate::model::event::EventId;

#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow)]
    messages: Vec<Event<'a>>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    event_metadata: Metadata<'a>,
    details: Value,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    created_at: Cow<'a, str>,
}

/// How many events a message holds, without reading it as JSON: inside strings the quotes would be escaped.
pub(super) fn count_events(message: &[u8]) -> u64 {
    const MARK: &[u8] = br#"{"event_metadata":"#;
    let mut rest = message;
    let mut events = 0;
    while let Some(at) = rest.windows(MARK.len()).position(|window| window == MARK) {
        events += 1;
        rest = &rest[at + MARK.len()..];
    }
    events
}

/// The id of the last event in a message, found in the same way.
pub(super) fn last_id(message: &[u8]) -> Option<EventId> {
    const MARK: &[u8] = br#"{"event_metadata":{"event_id":""#;
    let at = memchr::memmem::rfind(message, MARK)? + MARK.len();
    EventId::try_parse_ascii(message.get(at..at + uuid::fmt::Hyphenated::LENGTH)?).ok()
}

/// Prints `created_at topic payload` for each event. A message of another form is printed as it is.
pub(super) fn events(message: &[u8], out: &mut impl Write) -> io::Result<()> {
    let Ok(batch) = serde_json::from_slice::<Batch<'_>>(message) else {
        return writeln!(out, "{}", printable(&String::from_utf8_lossy(message)));
    };
    for event in batch.messages {
        let created_at = printable(&event.event_metadata.created_at);
        let detail = |name: &str| event.details.get(name).and_then(Value::as_str);
        match (detail("mqtt_topic"), detail("payload")) {
            (Some(topic), Some(base64)) => {
                writeln!(out, "{created_at} {} {}", printable(topic), payload(base64))?;
            }
            _ => {
                let event_type = &event.event_metadata.event_type;
                let name = printable(event_type.rsplit('.').next().unwrap_or_default());
                writeln!(out, "{created_at} {name} {}", printable(&event.details.to_string()))?;
            }
        }
    }
    Ok(())
}

/// Text when it is UTF-8, else the base64 as it came.
fn payload(base64: &str) -> String {
    let text = BASE64_STANDARD.decode(base64).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match text {
        Some(text) => printable(&text),
        None => format!("base64:{}", printable(base64)),
    }
}

/// On one line, and without anything that a terminal would obey.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_id_is_that_of_the_last_event_whatever_payloads_say() {
        let id = |n| format!("01a1fcaf-0c7b-77d1-bf79-51ee3169400{n}");
        let event = |n| {
            format!(
                r#"{{"event_metadata":{{"event_id":"{}"}},"details":{{"payload":"\"event_id\":"}}}}"#,
                id(n)
            )
        };
        let message = format!(r#"{{"messages":[{},{}]}}"#, event(1), event(2));
        assert_eq!(last_id(message.as_bytes()).unwrap().to_string(), id(2));
        assert_eq!(last_id(b"{}"), None);
    }

    fn rendered(message: &str) -> String {
        let mut out = Vec::new();
        events(message.as_bytes(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn event(payload: &str) -> String {
        format!(
            r#"{{"event_metadata":{{"event_id":"i","event_type":"yandex.cloud.events.iot.IoTMessage","created_at":"T"}},"details":{{"registry_id":"r","device_id":"d","mqtt_topic":"$devices/d/events","payload":"{payload}"}}}}"#
        )
    }

    #[test]
    fn events_are_printed_one_a_line() {
        let message = format!(r#"{{"messages":[{},{},{}]}}"#, event("aGk="), event("/w=="), event("YQob"));
        assert_eq!(
            rendered(&message),
            "T $devices/d/events hi\nT $devices/d/events base64:/w==\nT $devices/d/events a\\n\\u{1b}\n"
        );
        assert_eq!(count_events(message.as_bytes()), 3);
    }

    #[test]
    fn other_events_and_other_messages_are_shown_as_they_are() {
        let image = r#"{"messages":[{"event_metadata":{"event_type":"yandex.cloud.events.containerregistry.CreateImage","created_at":"T"},"details":{"tag":"1"}}]}"#;
        assert_eq!(rendered(image), "T CreateImage {\"tag\":\"1\"}\n");
        assert_eq!(rendered("hello"), "hello\n");
        assert_eq!(count_events(b"hello"), 0);
    }
}
