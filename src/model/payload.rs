//! How `details.payload` of an event is written: base64, or rewritten as text or JSON.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use serde::de::IgnoredAny;

use super::trigger::PayloadEncoding;

/// What stands before the payload, which is the last field of an event that came by MQTT.
const KEY: &[u8] = br#","payload":""#;
const END: &[u8] = br#""}}"#;

/// The same event with its payload written in another way. `None`: it stays as it is, since it has none, or base64 is
/// what is wanted.
pub fn rewrite(event: &[u8], encoding: PayloadEncoding) -> Option<Bytes> {
    if encoding == PayloadEncoding::Base64 {
        return None;
    }
    let at = memchr::memmem::rfind(event, KEY)?;
    let encoded = event[at + KEY.len()..].strip_suffix(END)?;
    let payload = BASE64_STANDARD.decode(encoded).ok()?;
    let mut out = BytesMut::with_capacity(event.len() + 64);
    out.put_slice(&event[..at]);
    let text = std::str::from_utf8(&payload).ok();
    match text {
        Some(text) if encoding == PayloadEncoding::Json && is_json(text) => {
            out.put_slice(br#","payload":"#);
            put_compact(&mut out, text);
        }
        Some(text) => {
            out.put_slice(br#","payload":"#);
            out.put_slice(serde_json::to_string(text).ok()?.as_bytes());
        }
        None => {
            out.put_slice(KEY);
            out.put_slice(encoded);
            out.put_slice(br#"","payload_encoding":"base64""#);
        }
    }
    out.put_slice(b"}}");
    Some(out.freeze())
}

/// JSON on one line, its fields in the order that they have. The error says what is wrong.
pub fn compact(json: &str) -> Result<Bytes, serde_json::Error> {
    serde_json::from_str::<IgnoredAny>(json)?;
    let mut out = BytesMut::with_capacity(json.len());
    put_compact(&mut out, json);
    Ok(out.freeze())
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Writes JSON without the white space between its parts: an event is one line.
fn put_compact(out: &mut BytesMut, json: &str) {
    let (mut in_text, mut escaped) = (false, false);
    for byte in json.bytes() {
        if in_text {
            in_text = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            in_text = byte == b'"';
        }
        out.put_u8(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(payload: &[u8], encoding: PayloadEncoding) -> String {
        let payload = BASE64_STANDARD.encode(payload);
        let event =
            format!(r#"{{"event_metadata":{{}},"details":{{"mqtt_topic":"t","payload":"{payload}"}}}}"#);
        let new = rewrite(event.as_bytes(), encoding).unwrap();
        let text = String::from_utf8(new.to_vec()).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
        assert!(!text.contains('\n'), "{text}");
        text.strip_prefix(r#"{"event_metadata":{},"details":{"mqtt_topic":"t","#).unwrap().to_owned()
    }

    #[test]
    fn payloads_are_written_as_they_are_wanted() {
        use PayloadEncoding::{Json, Text};
        assert_eq!(rewritten(b"a \"b\"\n", Text), r#""payload":"a \"b\"\n"}}"#);
        assert_eq!(
            rewritten(b"{\"t\": 1.50,\n \"s\": \"a \\\" b\"}", Json),
            r#""payload":{"t":1.50,"s":"a \" b"}}}"#
        );
        assert_eq!(rewritten(b"{", Json), r#""payload":"{"}}"#);
        assert_eq!(rewritten(b"\xff", Json), r#""payload":"/w==","payload_encoding":"base64"}}"#);
        assert_eq!(rewritten(b"\xff", Text), r#""payload":"/w==","payload_encoding":"base64"}}"#);
    }

    #[test]
    fn what_has_no_payload_stays_as_it_is() {
        assert_eq!(rewrite(br#"{"event_metadata":{},"details":{"tag":"v1"}}"#, PayloadEncoding::Json), None);
        assert_eq!(rewrite(br#"{"details":{"a":1,"payload":"e30="}}"#, PayloadEncoding::Base64), None);
    }
}
