//! PUBLISH, read without a copy: the packet that decides the server's speed. Called by [`super::intake`].

use super::close::Close;
use super::packet::{Frame, Version};
use super::properties::{self, Properties};

/// A PUBLISH that still lies in the read buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Publish<'a> {
    /// Sent before, perhaps.
    pub(crate) dup: bool,
    /// 0, 1 or 2.
    pub(crate) qos: u8,
    /// The topic's bytes, not yet checked; empty where an alias stands for it.
    pub(crate) topic: &'a [u8],
    /// The packet identifier, or zero for QoS 0.
    pub(crate) id: u16,
    /// What the server needs of the properties.
    pub(crate) properties: Properties,
    /// The properties as they came.
    pub(crate) raw_properties: &'a [u8],
    /// The message.
    pub(crate) payload: &'a [u8],
}

/// Whether a packet of this first byte is a PUBLISH.
pub(crate) fn is_publish(first: u8) -> bool {
    first & 0xf0 == 0x30
}

/// Reads a PUBLISH. `bytes` is one whole packet.
pub(crate) fn publish(version: Version, bytes: &[u8], frame: Frame) -> Result<Publish<'_>, Close> {
    let body = bytes.get(frame.header..frame.total).ok_or(Close::Malformed)?;
    let dup = frame.first & 0x08 != 0;
    let qos = (frame.first >> 1) & 0x03;
    // QoS 3 does not exist, and QoS 0 is never sent again (MQTT-3.3.1-2).
    if qos == 3 || (qos == 0 && dup) {
        return Err(Close::Malformed);
    }
    let (length, rest) = body.split_first_chunk::<2>().ok_or(Close::Malformed)?;
    let (topic, rest) =
        rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(Close::Malformed)?;
    let (id, rest) = match rest {
        rest if qos == 0 => (0, rest),
        [0, 0, ..] => return Err(Close::Malformed),
        [high, low, rest @ ..] => (u16::from_be_bytes([*high, *low]), rest),
        _ => return Err(Close::Malformed),
    };
    let (raw_properties, payload) = match version {
        Version::V3 => (&[][..], rest),
        Version::V5 => properties::take(rest).ok_or(Close::Malformed)?,
    };
    let properties =
        if raw_properties.is_empty() { Properties::default() } else { properties::parse(raw_properties)? };
    Ok(Publish { dup, qos, topic, id, properties, raw_properties, payload })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::packet::frame;
    use super::*;

    fn read(version: Version, bytes: &[u8]) -> Result<Publish<'_>, Close> {
        publish(version, bytes, frame(bytes, usize::MAX).unwrap().unwrap())
    }

    #[test]
    fn reads_both_versions() {
        let v3 = read(Version::V3, b"\x3a\x08\x00\x01t\x01\x02abc").unwrap();
        assert_eq!((v3.topic, v3.id, v3.payload, v3.qos, v3.dup), (&b"t"[..], 258, &b"abc"[..], 1, true));
        let v5 = read(Version::V5, b"\x30\x09\x00\x01t\x03\x23\x00\x05ab").unwrap();
        assert_eq!((v5.topic, v5.id, v5.payload, v5.properties.alias), (&b"t"[..], 0, &b"ab"[..], 5));
    }

    #[test]
    fn refuses_what_is_no_publish() {
        for bytes in [
            &b"\x36\x05\x00\x01t\x00\x01"[..],
            b"\x38\x03\x00\x01t",
            b"\x32\x05\x00\x01t\x00\x00",
            b"\x32\x04\x00\x01t\x00",
            b"\x30\x02\x00\x01",
            b"\x30\x01\x00",
            b"\x30\x00",
        ] {
            assert_eq!(read(Version::V3, bytes), Err(Close::Malformed), "{bytes:x?}");
        }
        assert_eq!(read(Version::V5, b"\x30\x03\x00\x01t"), Err(Close::Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), v5: bool) {
            if let Ok(Some(f)) = frame(&bytes, 1000) && f.total <= bytes.len() {
                let version = if v5 { Version::V5 } else { Version::V3 };
                let _ = publish(version, &bytes[..f.total], f);
            }
        }
    }
}
