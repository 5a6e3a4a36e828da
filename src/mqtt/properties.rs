//! The properties of a 5.0 PUBLISH: checked where they lie, and passed on to subscribers as they came.

use bytes::{BufMut, Bytes, BytesMut};
use rmqtt_codec::v5::LastWill;

use super::close::Close;
use super::packet::put_length;

const PAYLOAD_FORMAT: u8 = 0x01;
const MESSAGE_EXPIRY: u8 = 0x02;
const CONTENT_TYPE: u8 = 0x03;
const RESPONSE_TOPIC: u8 = 0x08;
const CORRELATION_DATA: u8 = 0x09;
const SUBSCRIPTION_ID: u8 = 0x0b;
const REASON_STRING: u8 = 0x1f;
const TOPIC_ALIAS: u8 = 0x23;
const USER_PROPERTY: u8 = 0x26;

/// What the server itself must know of a publish's properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Properties {
    /// The topic alias, or zero.
    pub(crate) alias: u16,
    /// Seconds that the message may wait.
    pub(crate) expiry: Option<u32>,
    /// There is something to pass on.
    pub(crate) forwards: bool,
}

/// Takes a length and that many bytes of properties off the front; gives both parts.
pub(crate) fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0;
    for (i, byte) in bytes.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return bytes.get(i + 1..)?.split_at_checked(length);
        }
    }
    None
}

/// One property: its identifier, its whole encoding and its value.
struct Property<'a> {
    id: u8,
    whole: &'a [u8],
    value: &'a [u8],
}

/// Takes one property of a PUBLISH (or the reason string of an acknowledgement) off the front of `bytes`.
fn next<'a>(bytes: &mut &'a [u8]) -> Option<Property<'a>> {
    let all = *bytes;
    let (&id, rest) = all.split_first()?;
    let string = |rest: &'a [u8]| {
        let (length, rest) = rest.split_first_chunk::<2>()?;
        rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
    };
    let (value, rest) = match id {
        PAYLOAD_FORMAT => rest.split_at_checked(1)?,
        MESSAGE_EXPIRY => rest.split_at_checked(4)?,
        TOPIC_ALIAS => rest.split_at_checked(2)?,
        CONTENT_TYPE | RESPONSE_TOPIC | CORRELATION_DATA | REASON_STRING => string(rest)?,
        USER_PROPERTY => {
            let (key, rest) = string(rest)?;
            std::str::from_utf8(key).ok()?;
            string(rest)?
        }
        _ => return None,
    };
    let text = matches!(id, CONTENT_TYPE | RESPONSE_TOPIC | REASON_STRING | USER_PROPERTY);
    if text && std::str::from_utf8(value).is_err() {
        return None;
    }
    *bytes = rest;
    Some(Property { id, whole: all.get(..all.len() - rest.len())?, value })
}

/// Checks the properties of a PUBLISH.
pub(crate) fn parse(mut bytes: &[u8]) -> Result<Properties, Close> {
    let mut found = Properties::default();
    let mut seen = 0_u64;
    while !bytes.is_empty() {
        if bytes.first() == Some(&SUBSCRIPTION_ID) {
            // Only a server may send one (MQTT-3.3.4-6).
            return Err(Close::Protocol);
        }
        let property = next(&mut bytes).ok_or(Close::Malformed)?;
        let bit = 1 << property.id;
        if property.id != USER_PROPERTY && seen & bit != 0 {
            return Err(Close::Protocol);
        }
        seen |= bit;
        match (property.id, property.value) {
            (TOPIC_ALIAS, [high, low]) => {
                found.alias = u16::from_be_bytes([*high, *low]);
                if found.alias == 0 {
                    return Err(Close::TopicAlias);
                }
            }
            (MESSAGE_EXPIRY, [a, b, c, d]) => found.expiry = Some(u32::from_be_bytes([*a, *b, *c, *d])),
            (PAYLOAD_FORMAT, [0 | 1]) => found.forwards = true,
            (RESPONSE_TOPIC, topic) if topic.is_empty() || topic.iter().any(|b| b"+#\0".contains(b)) => {
                return Err(Close::Protocol);
            }
            (PAYLOAD_FORMAT | REASON_STRING, _) => return Err(Close::Malformed),
            _ => found.forwards = true,
        }
    }
    Ok(found)
}

/// What of checked properties a subscriber gets: all but alias and expiry, which are made anew.
pub(crate) fn forwarded(mut bytes: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(bytes.len());
    while let Some(property) = next(&mut bytes) {
        if !matches!(property.id, TOPIC_ALIAS | MESSAGE_EXPIRY) {
            out.put_slice(property.whole);
        }
    }
    out.freeze()
}

/// Whether these are properties that an acknowledgement may carry.
pub(crate) fn is_reason(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match next(&mut bytes) {
            Some(property) if matches!(property.id, REASON_STRING | USER_PROPERTY) => {}
            _ => return false,
        }
    }
    true
}

/// A will's properties in the form in which a PUBLISH carries them.
pub(crate) fn of_will(will: &LastWill) -> Bytes {
    let mut out = BytesMut::new();
    let mut put = |id: u8, values: &[&[u8]]| {
        out.put_u8(id);
        for value in values {
            // The codec read them with a 16-bit length.
            out.put_u16(value.len() as u16);
            out.put_slice(value);
        }
    };
    if let Some(text) = &will.content_type {
        put(CONTENT_TYPE, &[text.as_bytes()]);
    }
    if let Some(text) = &will.response_topic {
        put(RESPONSE_TOPIC, &[text.as_bytes()]);
    }
    if let Some(data) = &will.correlation_data {
        put(CORRELATION_DATA, &[data]);
    }
    for (key, value) in &will.user_properties {
        put(USER_PROPERTY, &[key.as_bytes(), value.as_bytes()]);
    }
    if let Some(text) = will.is_utf8_payload {
        out.put_slice(&[PAYLOAD_FORMAT, u8::from(text)]);
    }
    out.freeze()
}

/// Bytes of the properties that the server adds to a delivery.
pub(crate) fn added_len(expiry: Option<u32>, ids: &[u32]) -> usize {
    let ids: usize = ids.iter().map(|id| 1 + super::packet::length_of_length(*id as usize)).sum();
    ids + if expiry.is_some() { 5 } else { 0 }
}

/// Writes the properties that the server adds to a delivery.
pub(crate) fn put_added(out: &mut BytesMut, expiry: Option<u32>, ids: &[u32]) {
    if let Some(seconds) = expiry {
        out.put_u8(MESSAGE_EXPIRY);
        out.put_u32(seconds);
    }
    for id in ids {
        out.put_u8(SUBSCRIPTION_ID);
        put_length(out, *id as usize);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_the_server_needs_and_passes_on_the_rest() {
        let bytes = b"\x23\x00\x07\x02\x00\x00\x00\x0a\x26\x00\x01k\x00\x01v\x01\x01";
        assert_eq!(parse(bytes), Ok(Properties { alias: 7, expiry: Some(10), forwards: true }));
        assert_eq!(&forwarded(bytes)[..], b"\x26\x00\x01k\x00\x01v\x01\x01");
    }

    #[test]
    fn refuses_what_the_standard_forbids() {
        for (bytes, expected) in [
            (&b"\x23\x00\x00"[..], Close::TopicAlias),
            (b"\x0b\x01", Close::Protocol),
            (b"\x01\x02", Close::Malformed),
            (b"\x01\x00\x01\x00", Close::Protocol),
            (b"\x08\x00\x02a#", Close::Protocol),
            (b"\x03\x00\x01\xff", Close::Malformed),
            (b"\x26\x00\x01\xff\x00\x00", Close::Malformed),
            (b"\x1f\x00\x00", Close::Malformed),
            (b"\x11\x00\x00\x00\x00", Close::Malformed),
            (b"\x02\x00", Close::Malformed),
        ] {
            assert_eq!(parse(bytes), Err(expected), "{bytes:x?}");
        }
    }

    #[test]
    fn a_will_is_turned_into_publish_properties() {
        let will = LastWill {
            qos: rmqtt_codec::types::QoS::AtMostOnce,
            retain: false,
            topic: "t".into(),
            message: Bytes::new(),
            will_delay_interval_sec: Some(1),
            correlation_data: Some(Bytes::from_static(b"c")),
            message_expiry_interval: None,
            content_type: Some("x".into()),
            user_properties: vec![("k".into(), "v".into())],
            is_utf8_payload: Some(true),
            response_topic: Some("r".into()),
        };
        let bytes = of_will(&will);
        assert_eq!(parse(&bytes), Ok(Properties { alias: 0, expiry: None, forwards: true }));
        assert_eq!(forwarded(&bytes), bytes);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (parse(&bytes), forwarded(&bytes), is_reason(&bytes), take(&bytes));
        }
    }
}
