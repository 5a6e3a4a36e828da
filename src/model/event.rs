//! An event: its id and its JSON, made once when it enters and never changed again.
//!
//! The JSON is the model system's form of an IoT event, compact, keys in this order:
//! `{"event_metadata":{"event_id":…,"event_type":…,"created_at":…},"details":{…}}`.

use std::io::Write as _;
use std::time::SystemTime;

use base64_simd::AsOut as _;
use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::event_id;
pub use super::event_id::EventId;

/// `event_type` of every message that came over MQTT.
pub const IOT_MESSAGE: &str = "yandex.cloud.events.iot.IoTMessage";

/// One event. A clone shares the JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Made once at entry; the same in every batch, replay and restart.
    pub id: EventId,
    /// The encoded event, as it stands in a batch's `messages` array.
    pub json: Bytes,
}

/// How an event's JSON begins.
const METADATA_HEAD: &[u8] = br#"{"event_metadata":{"#;
/// What stands before the id in it.
const ID_KEY: &[u8] = br#""event_id":""#;
/// The beginning of an IoT event's JSON.
const ID_HEAD: &[u8] = br#"{"event_metadata":{"event_id":""#;
/// Bytes of metadata that may stand before the id, in the forms that do not begin with it.
const BEFORE_ID: usize = 256;
/// Bytes of an id in its text form.
const ID_LEN: usize = uuid::fmt::Hyphenated::LENGTH;

impl Event {
    /// The event that this JSON encodes; `None` if it does not begin as the JSON of an event does.
    pub fn from_json(json: Bytes) -> Option<Self> {
        let metadata = json.strip_prefix(METADATA_HEAD)?;
        // An id of a cloud or a folder, which may stand before it, has no quotation mark.
        let at = memchr::memmem::find(&metadata[..metadata.len().min(BEFORE_ID)], ID_KEY)?;
        let id = metadata.get(at + ID_KEY.len()..)?.get(..ID_LEN)?;
        Some(Self { id: Uuid::try_parse_ascii(id).ok()?, json })
    }
}

/// Where an MQTT message came from: the fields of `details` before `mqtt_topic`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// A topic of a device registry. `device_id` is empty for a message of the registry itself.
    Device {
        /// The registry the topic belongs to.
        registry_id: &'a str,
        /// The device, or empty.
        device_id: &'a str,
    },
    /// A topic of an IoT broker.
    Broker {
        /// The broker resource.
        broker_id: &'a str,
    },
}

impl<'a> Origin<'a> {
    /// The device, or empty.
    pub fn device_id(&self) -> &'a str {
        match self {
            Self::Device { device_id, .. } => device_id,
            Self::Broker { .. } => "",
        }
    }
}

/// Bytes of an IoT event besides ids, topic and payload; only sizes buffers.
const FIXED: usize = 224;

/// Largest buffer that events share, but for one event that is larger alone.
const MAX_CHUNK: usize = 64 * 1024;

/// Makes events, many in one allocation: the events of a group share buffers that double in size, and the time at
/// which they entered.
#[derive(Debug, Default)]
pub struct Encoder {
    buffer: BytesMut,
    /// Size of the last buffer of this group.
    chunk: usize,
    /// When the first event of this group entered.
    entered: Option<(SystemTime, TimeText)>,
}

impl Encoder {
    /// An encoder with an empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends a group: what is left of its buffer is given back, so that an idle connection holds none.
    pub fn end_group(&mut self) {
        *self = Self::default();
    }

    /// Encodes one MQTT message as an event that enters now, with the group's first.
    pub fn iot_message(&mut self, origin: Origin<'_>, topic: &str, payload: &[u8]) -> Event {
        let (at, text) = *self.entered.get_or_insert_with(|| {
            let now = SystemTime::now();
            (now, TimeText::new(now))
        });
        self.encode(event_id::next(at), text, origin, topic, payload)
    }

    /// As [`Self::iot_message`], with the id and the time of entry given.
    pub fn iot_message_with(
        &mut self,
        id: EventId,
        created_at: SystemTime,
        origin: Origin<'_>,
        topic: &str,
        payload: &[u8],
    ) -> Event {
        self.encode(id, TimeText::new(created_at), origin, topic, payload)
    }

    fn encode(
        &mut self,
        id: EventId,
        created_at: TimeText,
        origin: Origin<'_>,
        topic: &str,
        payload: &[u8],
    ) -> Event {
        let encoded_payload = base64_simd::STANDARD.encoded_length(payload.len());
        let needed = FIXED + 2 * topic.len() + encoded_payload;
        let out = &mut self.buffer;
        if out.capacity() < needed {
            self.chunk = (2 * self.chunk).min(MAX_CHUNK).max(needed);
            out.reserve(self.chunk);
        }
        out.put_slice(ID_HEAD);
        out.put_slice(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
        out.put_slice(br#"","event_type":""#);
        out.put_slice(IOT_MESSAGE.as_bytes());
        out.put_slice(br#"","created_at":""#);
        out.put_slice(created_at.as_bytes());
        out.put_slice(br#""},"details":{"#);
        match origin {
            Origin::Device { registry_id, device_id } => {
                out.put_slice(br#""registry_id":"#);
                put_string(out, registry_id);
                out.put_slice(br#","device_id":"#);
                put_string(out, device_id);
            }
            Origin::Broker { broker_id } => {
                out.put_slice(br#""broker_id":"#);
                put_string(out, broker_id);
            }
        }
        out.put_slice(br#","mqtt_topic":"#);
        put_string(out, topic);
        out.put_slice(br#","payload":""#);
        let start = out.len();
        out.resize(start + encoded_payload, 0);
        let written = base64_simd::STANDARD.encode(payload, out[start..].as_out());
        debug_assert_eq!(written.len(), encoded_payload);
        out.put_slice(br#""}}"#);
        Event { id, json: out.split().freeze() }
    }
}

/// A time in RFC 3339, UTC, with nine digits of fraction.
#[derive(Debug, Clone, Copy)]
struct TimeText {
    text: [u8; Self::MAX_LEN],
    len: usize,
}

impl TimeText {
    /// A time before the year 0 has a sign and six digits of year.
    const MAX_LEN: usize = 40;

    fn new(time: SystemTime) -> Self {
        // A clock outside jiff's years -9999 to 9999 shows as the epoch rather than stopping the event.
        let time = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let mut text = [0; Self::MAX_LEN];
        let mut left = &mut text[..];
        // There is room for every time.
        let _ = write!(left, "{time:.9}");
        let len = Self::MAX_LEN - left.len();
        Self { text, len }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

/// A JSON string. Ids and most topics need no escape and are copied as they are.
fn put_string(out: &mut BytesMut, text: &str) {
    let is_escaped = |b: u8| u8::from(b < 0x20) | u8::from(b == b'"') | u8::from(b == b'\\');
    // Without an early end, so that many bytes are looked at together.
    if text.bytes().fold(0, |found, b| found | is_escaped(b)) == 0 {
        out.put_u8(b'"');
        out.put_slice(text.as_bytes());
        out.put_u8(b'"');
    } else {
        // A string has no key or number that serde_json could refuse, and the writer takes all.
        let _ = serde_json::to_writer(out.writer(), text);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_time_has_room() {
        for time in [jiff::Timestamp::MIN, jiff::Timestamp::MAX, jiff::Timestamp::UNIX_EPOCH] {
            let text = TimeText::new(SystemTime::from(time));
            assert_eq!(text.as_bytes(), format!("{time:.9}").as_bytes());
        }
    }

    #[test]
    fn events_of_a_group_entered_together_and_the_next_group_later() {
        let mut encoder = Encoder::new();
        let mut created_at = |ends: bool| {
            let event = encoder.iot_message(Origin::Broker { broker_id: "b" }, "t", b"");
            if ends {
                encoder.end_group();
            }
            let json: serde_json::Value = serde_json::from_slice(&event.json).unwrap();
            json["event_metadata"]["created_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap()
        };
        let first = created_at(false);
        assert_eq!(created_at(true), first);
        let begun = jiff::Timestamp::now();
        assert!(created_at(true) >= begun && begun >= first);
    }

    fn encode(origin: Origin<'_>, topic: &str, payload: &[u8]) -> String {
        let id = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0001);
        let at = UNIX_EPOCH + Duration::new(1_763_700_000, 1_234);
        let event = Encoder::new().iot_message_with(id, at, origin, topic, payload);
        String::from_utf8(event.json.to_vec()).unwrap()
    }

    #[test]
    fn a_device_message_has_exactly_these_bytes() {
        let origin = Origin::Device { registry_id: "factory", device_id: "press-1" };
        assert_eq!(
            encode(origin, "$devices/press-1/events", b"{\"t\":21}"),
            concat!(
                r#"{"event_metadata":{"event_id":"01990000-0000-7000-8000-000000000001","#,
                r#""event_type":"yandex.cloud.events.iot.IoTMessage","created_at":"2025-11-21T04:40:00.000001234Z"},"#,
                r#""details":{"registry_id":"factory","device_id":"press-1","#,
                r#""mqtt_topic":"$devices/press-1/events","payload":"eyJ0IjoyMX0="}}"#
            )
        );
    }

    #[test]
    fn a_broker_message_has_exactly_these_bytes() {
        assert_eq!(
            encode(Origin::Broker { broker_id: "plant" }, "hall/\"a\"\\\u{1}/ü", b""),
            concat!(
                r#"{"event_metadata":{"event_id":"01990000-0000-7000-8000-000000000001","#,
                r#""event_type":"yandex.cloud.events.iot.IoTMessage","created_at":"2025-11-21T04:40:00.000001234Z"},"#,
                r#""details":{"broker_id":"plant","mqtt_topic":"hall/\"a\"\\\u0001/ü","payload":""}}"#
            )
        );
    }

    #[test]
    fn a_group_needs_few_allocations_and_an_idle_encoder_none() {
        let mut encoder = Encoder::new();
        let mut event = || encoder.iot_message(Origin::Broker { broker_id: "b" }, "t", &[0; 128]).json;
        let events: Vec<_> = (0..64).map(|_| event()).collect();
        let ends_where_next_begins = |pair: &[Bytes]| pair[0].as_ptr_range().end == pair[1].as_ptr();
        let shared = events.windows(2).filter(|pair| ends_where_next_begins(pair)).count();
        assert!(shared >= 55, "{shared}");
        encoder.end_group();
        assert_eq!(encoder.buffer.capacity(), 0);
    }

    #[test]
    fn ids_of_one_thread_are_unique_and_sorted() {
        let mut encoder = Encoder::new();
        let ids: Vec<_> = (0..10_000)
            .map(|_| encoder.iot_message(Origin::Broker { broker_id: "b" }, "t", b"").id)
            .collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    }

    proptest! {
        #[test]
        fn any_topic_and_payload_survive_the_trip(topic in ".*", payload: Vec<u8>) {
            let text = encode(Origin::Broker { broker_id: "b" }, &topic, &payload);
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(json["details"]["mqtt_topic"].as_str(), Some(topic.as_str()));
            let back = STANDARD.decode(json["details"]["payload"].as_str().unwrap()).unwrap();
            prop_assert_eq!(back, payload);
            let event = Event::from_json(Bytes::from(text)).unwrap();
            prop_assert_eq!(event.id.to_string(), json["event_metadata"]["event_id"].as_str().unwrap());
        }
    }
}
