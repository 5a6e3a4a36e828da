//! Packets as the connection sees them, one form for 3.1.1 and 5.0, and their framing.
//!
//! PUBLISH and the acknowledgements come often and are read by hand, without a copy ([`super::publish`]
//! and here); all others go through `rmqtt-codec`, and what it does not check is checked here.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use rmqtt_codec::error::DecodeError;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::RetainHandling;
use rmqtt_codec::{v3, v5};
use tokio_util::codec::Decoder;

use super::close::Close;
use super::properties;

/// Which protocol a client speaks. 3.1 is treated as 3.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// 3.1 and 3.1.1.
    V3,
    /// 5.0.
    V5,
}

/// Where the first packet of a buffer lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Type and flags.
    pub(crate) first: u8,
    /// Length of the fixed header.
    pub(crate) header: usize,
    /// Length of the whole packet, which may not have arrived yet.
    pub(crate) total: usize,
}

/// Finds the first packet of `bytes`; `None` while its header is not complete. A packet of more than `max`
/// bytes is refused as soon as it announces itself.
pub(crate) fn frame(bytes: &[u8], max: usize) -> Result<Option<Frame>, Close> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let mut length = 0;
    for (i, byte) in rest.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            let header = 2 + i;
            let total = header + length;
            return if total > max { Err(Close::TooLarge) } else { Ok(Some(Frame { first, header, total })) };
        }
    }
    if rest.len() < 4 { Ok(None) } else { Err(Close::Malformed) }
}

/// What a client asks for when it connects.
#[derive(Debug)]
pub(crate) struct Connect {
    /// The protocol it speaks.
    pub(crate) version: Version,
    /// Forget what is left of an earlier session.
    pub(crate) clean_start: bool,
    /// Seconds; zero is none.
    pub(crate) keep_alive: u16,
    /// Its name for itself; may be empty.
    pub(crate) client_id: ByteString,
    /// The user.
    pub(crate) username: Option<ByteString>,
    /// The password.
    pub(crate) password: Option<Bytes>,
    /// What to publish when it is lost.
    pub(crate) will: Option<Will>,
    /// Seconds that the session outlives the connection (5.0).
    pub(crate) session_expiry: u32,
    /// QoS 1 deliveries it takes at once.
    pub(crate) receive_max: u16,
    /// The largest packet it takes.
    pub(crate) max_packet: u32,
    /// It asks for enhanced authentication.
    pub(crate) wants_auth: bool,
}

/// A will message.
#[derive(Debug, Clone)]
pub(crate) struct Will {
    /// Where to.
    pub(crate) topic: ByteString,
    /// What.
    pub(crate) payload: Bytes,
    /// Encoded properties that are passed on.
    pub(crate) properties: Bytes,
    /// Its quality of service.
    pub(crate) qos: u8,
    /// The RETAIN flag.
    pub(crate) retain: bool,
    /// Seconds to wait for the client's return.
    pub(crate) delay: u32,
    /// Seconds it may wait for a subscriber.
    pub(crate) expiry: Option<u32>,
}

/// One subscription of a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// The filter as the client wrote it.
    pub(crate) filter: ByteString,
    /// The quality of service it asks for.
    pub(crate) qos: u8,
    /// Not what it published itself.
    pub(crate) no_local: bool,
    /// When the kept message is sent.
    pub(crate) retain: RetainHandling,
}

/// The four acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AckKind {
    /// PUBACK.
    Puback,
    /// PUBREC.
    Pubrec,
    /// PUBREL.
    Pubrel,
    /// PUBCOMP.
    Pubcomp,
}

/// A packet of a connected client, other than PUBLISH.
#[derive(Debug)]
pub(crate) enum Packet {
    /// An acknowledgement.
    Ack(AckKind, u16),
    /// SUBSCRIBE: packet identifier, subscription identifier, what.
    Subscribe(u16, Option<NonZeroU32>, Vec<Subscription>),
    /// UNSUBSCRIBE.
    Unsubscribe(u16, Vec<ByteString>),
    /// PINGREQ.
    Ping,
    /// DISCONNECT: with the will published or not, and a new session expiry.
    Disconnect(bool, Option<u32>),
}

/// Reads a CONNECT. `bytes` is one whole packet.
pub(crate) fn connect(bytes: &[u8], frame: Frame) -> Result<Connect, Close> {
    if frame.first != 0x10 {
        return Err(Close::NotConnect);
    }
    let body = bytes.get(frame.header..frame.total).ok_or(Close::NotConnect)?;
    let (level, flags) = match body {
        [0, 4, b'M', b'Q', b'T', b'T', level, flags, ..] => (*level, *flags),
        [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', 3, flags, ..] => (3, *flags),
        _ => return Err(Close::NotConnect),
    };
    // A will's parts without a will, QoS 3, a password without a user (3.1.1), a reserved flag.
    let odd_will = flags & 0x04 == 0 && flags & 0x38 != 0 || flags & 0x18 == 0x18;
    if flags & 0x01 != 0 || odd_will || (level < 5 && flags & 0xc0 == 0x40) {
        return Err(Close::NotConnect);
    }
    let mut source = BytesMut::from(bytes);
    let connect = match level {
        3 | 4 => match v3::Codec::new(0).decode(&mut source).map_err(refused_connect)? {
            Some((v3::Packet::Connect(c), _)) => connect_v3(*c),
            _ => return Err(Close::NotConnect),
        },
        5 => match v5::Codec::new(0, 0).decode(&mut source).map_err(refused_connect)? {
            Some((v5::Packet::Connect(c), _)) => connect_v5(*c)?,
            _ => return Err(Close::NotConnect),
        },
        _ => return Err(Close::Version),
    };
    if connect.client_id.contains('\0') { Err(Close::ClientId) } else { Ok(connect) }
}

/// Which protocol a CONNECT wants, even if the rest of it is not right.
pub(crate) fn version_of_connect(body: &[u8]) -> Version {
    if matches!(body, [0, 4, b'M', b'Q', b'T', b'T', 5, ..]) { Version::V5 } else { Version::V3 }
}

fn refused_connect(error: DecodeError) -> Close {
    match error {
        DecodeError::InvalidClientId => Close::ClientId,
        _ => Close::NotConnect,
    }
}

fn connect_v3(c: v3::Connect) -> Connect {
    Connect {
        version: Version::V3,
        clean_start: c.clean_session,
        keep_alive: c.keep_alive,
        client_id: c.client_id,
        username: c.username,
        password: c.password,
        will: c.last_will.map(|will| Will {
            topic: will.topic,
            payload: will.message,
            properties: Bytes::new(),
            qos: will.qos.value(),
            retain: will.retain,
            delay: 0,
            expiry: None,
        }),
        session_expiry: 0,
        receive_max: u16::MAX,
        max_packet: u32::MAX,
        wants_auth: false,
    }
}

fn connect_v5(c: v5::Connect) -> Result<Connect, Close> {
    let will = c.last_will.map(|will| {
        let properties = properties::of_will(&will);
        if properties::parse(&properties).is_err() {
            return Err(Close::NotConnect);
        }
        Ok(Will {
            topic: will.topic,
            payload: will.message,
            properties,
            qos: will.qos.value(),
            retain: will.retain,
            delay: will.will_delay_interval_sec.unwrap_or(0),
            expiry: will.message_expiry_interval.map(NonZeroU32::get),
        })
    });
    Ok(Connect {
        version: Version::V5,
        clean_start: c.clean_start,
        keep_alive: c.keep_alive,
        client_id: c.client_id,
        username: c.username,
        password: c.password,
        will: will.transpose()?,
        session_expiry: c.session_expiry_interval_secs,
        receive_max: c.receive_max.map_or(u16::MAX, NonZeroU16::get),
        max_packet: c.max_packet_size.map_or(u32::MAX, NonZeroU32::get),
        wants_auth: c.auth_method.is_some() || c.auth_data.is_some(),
    })
}

/// Reads a packet of a connected client that is not a PUBLISH. `bytes` is one whole packet.
pub(crate) fn packet(version: Version, bytes: &[u8], frame: Frame) -> Result<Packet, Close> {
    let body = bytes.get(frame.header..frame.total).ok_or(Close::Malformed)?;
    match (frame.first, version) {
        (0x40, _) => ack(AckKind::Puback, version, body),
        (0x50, _) => ack(AckKind::Pubrec, version, body),
        (0x62, _) => ack(AckKind::Pubrel, version, body),
        (0x70, _) => ack(AckKind::Pubcomp, version, body),
        (0xc0, _) if body.is_empty() => Ok(Packet::Ping),
        (0xe0, Version::V3) if body.is_empty() => Ok(Packet::Disconnect(false, None)),
        (0x82 | 0xa2, Version::V3) => control_v3(bytes, body),
        (0x82 | 0xa2 | 0xe0, Version::V5) => control_v5(bytes),
        (0xf0, Version::V5) => Err(Close::AuthMethod),
        // A second CONNECT, and what only servers send.
        (0x10 | 0x20 | 0x90 | 0xb0 | 0xd0, _) => Err(Close::Protocol),
        _ => Err(Close::Malformed),
    }
}

fn ack(kind: AckKind, version: Version, body: &[u8]) -> Result<Packet, Close> {
    let id = match (version, body) {
        (_, [high, low]) | (Version::V5, [high, low, _]) => u16::from_be_bytes([*high, *low]),
        (Version::V5, [high, low, _, rest @ ..]) => {
            let (properties, after) = properties::take(rest).ok_or(Close::Malformed)?;
            if !after.is_empty() || !properties::is_reason(properties) {
                return Err(Close::Malformed);
            }
            u16::from_be_bytes([*high, *low])
        }
        _ => return Err(Close::Malformed),
    };
    if id == 0 { Err(Close::Malformed) } else { Ok(Packet::Ack(kind, id)) }
}

fn control_v3(bytes: &[u8], body: &[u8]) -> Result<Packet, Close> {
    match v3::Codec::new(0).decode(&mut BytesMut::from(bytes)) {
        Ok(Some((v3::Packet::Subscribe { packet_id, topic_filters }, _))) => {
            // The codec drops the reserved bits of the QoS bytes.
            let mut rest = body.get(2..).unwrap_or_default();
            while let [high, low, tail @ ..] = rest {
                let after = tail.get(usize::from(u16::from_be_bytes([*high, *low]))..).unwrap_or_default();
                match after {
                    [0..=2, next @ ..] => rest = next,
                    _ => return Err(Close::Malformed),
                }
            }
            let whole = |(filter, qos): (ByteString, QoS)| Subscription {
                filter,
                qos: qos.value(),
                no_local: false,
                retain: RetainHandling::AtSubscribe,
            };
            Ok(Packet::Subscribe(packet_id.get(), None, topic_filters.into_iter().map(whole).collect()))
        }
        Ok(Some((v3::Packet::Unsubscribe { packet_id, topic_filters }, _))) => {
            Ok(Packet::Unsubscribe(packet_id.get(), topic_filters))
        }
        _ => Err(Close::Malformed),
    }
}

fn control_v5(bytes: &[u8]) -> Result<Packet, Close> {
    match v5::Codec::new(0, 0).decode(&mut BytesMut::from(bytes)) {
        Ok(Some((v5::Packet::Subscribe(s), _))) => {
            let whole = |(filter, options): (ByteString, v5::SubscriptionOptions)| Subscription {
                filter,
                qos: options.qos.value(),
                no_local: options.no_local,
                retain: options.retain_handling,
            };
            let subscriptions = s.topic_filters.into_iter().map(whole).collect();
            Ok(Packet::Subscribe(s.packet_id.get(), s.id, subscriptions))
        }
        Ok(Some((v5::Packet::Unsubscribe(u), _))) => {
            Ok(Packet::Unsubscribe(u.packet_id.get(), u.topic_filters))
        }
        Ok(Some((v5::Packet::Disconnect(d), _))) => {
            // Whatever is not "normal" leaves the will in force.
            let with_will = u8::from(d.reason_code) != 0;
            Ok(Packet::Disconnect(with_will, d.session_expiry_interval_secs))
        }
        Err(DecodeError::InvalidTopicFilter) => Err(Close::Protocol),
        _ => Err(Close::Malformed),
    }
}

/// Writes a packet's length as MQTT does.
pub(crate) fn put_length(out: &mut BytesMut, mut length: usize) {
    loop {
        let byte = (length & 0x7f) as u8;
        length >>= 7;
        if length == 0 {
            out.put_u8(byte);
            return;
        }
        out.put_u8(byte | 0x80);
    }
}

/// Bytes that [`put_length`] writes.
pub(crate) fn length_of_length(length: usize) -> usize {
    match length {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(bytes: &[u8]) -> Frame {
        frame(bytes, usize::MAX).unwrap().unwrap()
    }

    fn control(version: Version, bytes: &[u8]) -> Result<Packet, Close> {
        packet(version, bytes, whole(bytes))
    }

    #[test]
    fn a_frame_is_judged_by_its_header() {
        assert_eq!(frame(b"", 10), Ok(None));
        assert_eq!(frame(&[0x30], 10), Ok(None));
        assert_eq!(frame(&[0x30, 0x80], 10), Ok(None));
        assert_eq!(frame(&[0x30, 8], 10), Ok(Some(Frame { first: 0x30, header: 2, total: 10 })));
        assert_eq!(frame(&[0x30, 9], 10), Err(Close::TooLarge));
        assert_eq!(frame(&[0x30, 0xff, 0xff, 0xff, 0x7f], 1000), Err(Close::TooLarge));
        assert_eq!(frame(&[0x30, 0xff, 0xff, 0xff, 0xff], usize::MAX), Err(Close::Malformed));
        assert_eq!(frame(&[0x30, 0xff, 0xff, 0xff], usize::MAX), Ok(None));
    }

    #[test]
    fn connects_that_the_codec_would_take_are_refused() {
        let start = |tail: &[u8]| {
            let body = [&[0, 4], &b"MQTT"[..], tail].concat();
            let bytes = [&[0x10, body.len() as u8], &body[..]].concat();
            connect(&bytes, whole(&bytes)).map(|c| c.client_id.to_string())
        };
        assert_eq!(start(&[4, 0x02, 0, 0, 0, 1, b'a']), Ok("a".into()));
        for flags in [0x03, 0x0a, 0x22, 0x1e, 0x42] {
            assert_eq!(start(&[4, flags, 0, 0, 0, 1, b'a', 0, 1, b'x']), Err(Close::NotConnect), "{flags:x}");
        }
        assert_eq!(start(&[4, 0x02, 0, 0, 0, 1, 0]), Err(Close::ClientId));
        assert_eq!(start(&[4, 0x00, 0, 0, 0, 0]), Err(Close::ClientId));
        assert_eq!(start(&[6, 0x02, 0, 0, 0, 0]), Err(Close::Version));
        let bytes = [0xc0, 0];
        assert!(matches!(connect(&bytes, whole(&bytes)), Err(Close::NotConnect)));
    }

    #[test]
    fn reserved_flags_and_wrong_bodies_are_malformed() {
        for bytes in [
            &[0xc1, 0][..],
            &[0xc0, 1, 0],
            &[0x41, 2, 0, 1],
            &[0x40, 2, 0, 0],
            &[0x40, 3, 0, 1, 0],
            &[0x60, 2, 0, 1],
            &[0x80, 5, 0, 1, 0, 0, 0],
            &[0x82, 6, 0, 1, 0, 1, b'a', 3],
            &[0x82, 6, 0, 1, 0, 1, b'a', 0x81],
            &[0x82, 6, 0, 0, 0, 1, b'a', 0],
            &[0x82, 2, 0, 1],
            &[0xe0, 1, 0],
            &[0xf0, 0],
            &[0x00, 0],
        ] {
            assert!(matches!(control(Version::V3, bytes), Err(Close::Malformed)), "{bytes:x?}");
        }
        for bytes in [&[0x10, 0][..], &[0x20, 0], &[0xd0, 0]] {
            assert!(matches!(control(Version::V3, bytes), Err(Close::Protocol)), "{bytes:x?}");
        }
        assert!(matches!(control(Version::V5, &[0xf0, 0]), Err(Close::AuthMethod)));
    }

    #[test]
    fn acknowledgements_are_read_in_every_form() {
        for bytes in [
            &[0x40, 2, 0, 7][..],
            &[0x40, 3, 0, 7, 0x10],
            &[0x40, 4, 0, 7, 0, 0],
            &[0x40, 8, 0, 7, 0, 4, 0x1f, 0, 1, b'a'],
        ] {
            assert!(matches!(control(Version::V5, bytes), Ok(Packet::Ack(AckKind::Puback, 7))), "{bytes:x?}");
        }
        assert!(matches!(control(Version::V5, &[0x40, 5, 0, 7, 0, 1, 9]), Err(Close::Malformed)));
    }

    #[test]
    fn lengths_are_written_as_they_are_read() {
        for length in [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455] {
            let mut out = BytesMut::from(&[0x30][..]);
            put_length(&mut out, length);
            assert_eq!(out.len(), 1 + length_of_length(length));
            assert_eq!(whole(&out), Frame { first: 0x30, header: out.len(), total: out.len() + length });
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), v5: bool) {
            if let Ok(Some(f)) = frame(&bytes, 1000) && f.total <= bytes.len() {
                let version = if v5 { Version::V5 } else { Version::V3 };
                let _ = packet(version, &bytes[..f.total], f);
                let _ = connect(&bytes[..f.total], f);
            }
        }
    }

    proptest! {
        #![proptest_config(crate::fuzzing::cases(4000))]

        #[test]
        fn fuzz_the_first_packet(bytes in crate::fuzzing::mutated(vec![
            b"\x10\x1b\0\x04MQTT\x04\xc2\0\x3c\0\x01c\0\x05press\0\x05right".to_vec(),
            b"\x10\x1e\0\x06MQIsdp\x03\xce\0\x3c\0\x01c\0\x01t\0\x01w\0\x01u\0\x01p".to_vec(),
            b"\x10\x2b\0\x04MQTT\x05\xc6\0\x3c\x05\x11\0\0\0\x05\0\x01c\x05\x18\0\0\0\x01\0\x01t\0\x01w\0\x01u\0\x05right".to_vec(),
        ])) {
            if let Ok(Some(f)) = frame(&bytes, 16 * 1024) && f.total <= bytes.len() {
                prop_assert!(f.header <= 5 && f.total <= 16 * 1024);
                if let Ok(connect) = connect(&bytes[..f.total], f) {
                    prop_assert!(connect.client_id.len() <= f.total);
                }
                version_of_connect(&bytes[f.header..f.total]);
            }
        }
    }
}
