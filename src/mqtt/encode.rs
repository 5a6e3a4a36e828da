//! Packets as bytes, appended to a connection's output: many leave in one write.

use std::num::NonZeroU16;

use bytes::{BufMut, BytesMut};
use rmqtt_codec::v5;
use tokio::time::Instant;
use tokio_util::codec::Encoder as _;

use super::message::Delivery;
use super::packet::{AckKind, Version, length_of_length, put_length};
use super::properties;

/// PUBACK, PUBREC, PUBREL or PUBCOMP. `code` is for 5.0 alone; zero is success.
pub(crate) fn ack(out: &mut BytesMut, version: Version, kind: AckKind, id: u16, code: u8) {
    let first = match kind {
        AckKind::Puback => 0x40,
        AckKind::Pubrec => 0x50,
        AckKind::Pubrel => 0x62,
        AckKind::Pubcomp => 0x70,
    };
    let [high, low] = id.to_be_bytes();
    match version {
        Version::V5 if code != 0 => out.put_slice(&[first, 3, high, low, code]),
        _ => out.put_slice(&[first, 2, high, low]),
    }
}

/// SUBACK or UNSUBACK.
pub(crate) fn granted(out: &mut BytesMut, version: Version, first: u8, id: u16, codes: &[u8]) {
    out.put_u8(first);
    match version {
        Version::V3 => {
            put_length(out, 2 + codes.len());
            out.put_u16(id);
        }
        Version::V5 => {
            put_length(out, 3 + codes.len());
            out.put_u16(id);
            out.put_u8(0);
        }
    }
    out.put_slice(codes);
}

/// PINGRESP.
pub(crate) fn pong(out: &mut BytesMut) {
    out.put_slice(&[0xd0, 0]);
}

/// DISCONNECT, which only 5.0 servers send.
pub(crate) fn disconnect(out: &mut BytesMut, version: Version, code: u8) {
    if version == Version::V5 {
        out.put_slice(&[0xe0, 1, code]);
    }
}

/// A CONNACK that refuses.
pub(crate) fn refuse(out: &mut BytesMut, version: Version, v3_code: u8, v5_code: u8) {
    match version {
        Version::V3 => out.put_slice(&[0x20, 2, 0, v3_code]),
        Version::V5 => out.put_slice(&[0x20, 3, 0, v5_code, 0]),
    }
}

/// What an accepting CONNACK tells.
#[derive(Debug)]
pub(crate) struct Welcome {
    /// The session goes on.
    pub(crate) session_present: bool,
    /// The session's life in seconds, if not the one asked for.
    pub(crate) session_expiry: Option<u32>,
    /// Publishes that may be unacknowledged.
    pub(crate) receive_max: u16,
    /// The largest packet taken.
    pub(crate) max_packet: u32,
    /// Topic aliases that may be set.
    pub(crate) topic_aliases: u16,
    /// The client id the server made.
    pub(crate) assigned_id: Option<String>,
}

/// A CONNACK that accepts.
pub(crate) fn welcome(out: &mut BytesMut, version: Version, welcome: Welcome) {
    if version == Version::V3 {
        out.put_slice(&[0x20, 2, u8::from(welcome.session_present), 0]);
        return;
    }
    let ack = v5::ConnectAck {
        session_present: welcome.session_present,
        session_expiry_interval_secs: welcome.session_expiry,
        receive_max: NonZeroU16::new(welcome.receive_max).unwrap_or(NonZeroU16::MIN),
        max_packet_size: Some(welcome.max_packet),
        assigned_client_id: welcome.assigned_id.map(Into::into),
        topic_alias_max: welcome.topic_aliases,
        // The RETAIN flag of a publisher has no effect here; state and config topics are always kept.
        retain_available: false,
        shared_subscription_available: false,
        ..v5::ConnectAck::default()
    };
    // A few dozen bytes in a buffer that grows: nothing that can fail.
    let _ = v5::Codec::new(0, 0).encode(v5::Packet::ConnectAck(Box::new(ack)), out);
}

/// PUBLISH to a subscriber. `id` is zero for QoS 0. Gives back false, writing nothing, if the packet would
/// be larger than `max`.
pub(crate) fn publish(
    out: &mut BytesMut,
    version: Version,
    delivery: &Delivery,
    id: u16,
    dup: bool,
    now: Instant,
    max: usize,
) -> bool {
    let message = &delivery.message;
    let expiry = message.expires.map(|at| {
        let left = at.saturating_duration_since(now).as_secs();
        u32::try_from(left).unwrap_or(u32::MAX).max(1)
    });
    let added = properties::added_len(expiry, &delivery.ids);
    let properties = added + message.properties.len();
    let mut length = 2 + delivery.topic.len() + message.payload.len();
    if delivery.qos > 0 {
        length += 2;
    }
    if version == Version::V5 {
        length += length_of_length(properties) + properties;
    }
    if 1 + length_of_length(length) + length > max {
        return false;
    }
    out.reserve(5 + length);
    out.put_u8(0x30 | u8::from(dup) << 3 | delivery.qos << 1 | u8::from(delivery.retain));
    put_length(out, length);
    // Topics come from packets and configuration, both with 16-bit lengths.
    out.put_u16(delivery.topic.len() as u16);
    out.put_slice(delivery.topic.as_bytes());
    if delivery.qos > 0 {
        out.put_u16(id);
    }
    if version == Version::V5 {
        put_length(out, properties);
        properties::put_added(out, expiry, &delivery.ids);
        out.put_slice(&message.properties);
    }
    out.put_slice(&message.payload);
    true
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;

    use super::super::message::Message;
    use super::*;

    fn delivery(qos: u8, expires: Option<Instant>) -> Delivery {
        Delivery {
            message: Arc::new(Message {
                payload: Bytes::from_static(b"abc"),
                properties: Bytes::from_static(b"\x01\x01"),
                expires,
            }),
            topic: "t".into(),
            qos,
            retain: false,
            ids: Arc::new([300]),
        }
    }

    #[test]
    fn a_publish_has_exactly_these_bytes() {
        let now = Instant::now();
        let mut out = BytesMut::new();
        assert!(publish(&mut out, Version::V3, &delivery(0, None), 0, false, now, 100));
        assert_eq!(&out[..], b"\x30\x06\x00\x01tabc");
        out.clear();
        let expires = Some(now + Duration::from_secs(9));
        assert!(publish(&mut out, Version::V5, &delivery(1, expires), 7, true, now, 100));
        assert_eq!(&out[..], b"\x3a\x13\x00\x01t\x00\x07\x0a\x02\x00\x00\x00\x09\x0b\xac\x02\x01\x01abc");
    }

    #[test]
    fn a_packet_too_large_for_the_client_is_not_written() {
        let mut out = BytesMut::new();
        assert!(!publish(&mut out, Version::V3, &delivery(0, None), 0, false, Instant::now(), 7));
        assert!(out.is_empty());
        assert!(publish(&mut out, Version::V3, &delivery(0, None), 0, false, Instant::now(), 8));
    }

    #[test]
    fn a_connack_has_exactly_these_bytes() {
        let hello = || Welcome {
            session_present: true,
            session_expiry: None,
            receive_max: 1024,
            max_packet: 344_064,
            topic_aliases: 32,
            assigned_id: None,
        };
        let mut out = BytesMut::new();
        welcome(&mut out, Version::V3, hello());
        assert_eq!(&out[..], [0x20, 2, 1, 0]);
        out.clear();
        welcome(&mut out, Version::V5, hello());
        assert_eq!(
            &out[..],
            b"\x20\x12\x01\x00\x0f\x21\x04\x00\x25\x00\x27\x00\x05\x40\x00\x22\x00\x20\x2a\x00"
        );
    }

    #[test]
    fn acknowledgements_carry_a_code_only_in_5() {
        let mut out = BytesMut::new();
        ack(&mut out, Version::V3, AckKind::Puback, 1, 0x87);
        ack(&mut out, Version::V5, AckKind::Pubrec, 2, 0x87);
        ack(&mut out, Version::V5, AckKind::Pubcomp, 3, 0);
        granted(&mut out, Version::V3, 0x90, 4, &[1, 0x80]);
        granted(&mut out, Version::V5, 0xb0, 5, &[0]);
        disconnect(&mut out, Version::V3, 0x8b);
        disconnect(&mut out, Version::V5, 0x8b);
        assert_eq!(
            &out[..],
            b"\x40\x02\x00\x01\x50\x03\x00\x02\x87\x70\x02\x00\x03\x90\x04\x00\x04\x01\x80\xb0\x04\x00\x05\x00\x00\xe0\x01\x8b"
        );
    }
}
