//! The text of a batch: `{"messages":[event,event,…]}`, joined from events that are encoded already.

use bytes::{BufMut, Bytes, BytesMut};

use super::event::Event;

const HEAD: &[u8] = br#"{"messages":["#;
const TAIL: &[u8] = b"]}";

/// Bytes of a message besides its events and the commas between them.
pub const WRAPPER_LEN: usize = HEAD.len() + TAIL.len();

/// Length in bytes of the message that holds `count` events of `events_len` bytes together.
pub const fn len(count: usize, events_len: usize) -> usize {
    WRAPPER_LEN + events_len + count.saturating_sub(1)
}

/// Joins encoded events to one message text. The result is valid UTF-8, since every part is.
pub fn join(events: &[Event]) -> Bytes {
    let total = len(events.len(), events.iter().map(|event| event.json.len()).sum());
    let mut out = BytesMut::with_capacity(total);
    put(&mut out, events);
    debug_assert_eq!(out.len(), total);
    out.freeze()
}

/// Writes what [`join`] makes.
pub fn put(out: &mut BytesMut, events: &[Event]) {
    out.put_slice(HEAD);
    for (n, event) in events.iter().enumerate() {
        if n > 0 {
            out.put_u8(b',');
        }
        out.put_slice(&event.json);
    }
    out.put_slice(TAIL);
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn event(json: &'static str) -> Event {
        Event { id: Uuid::nil(), json: Bytes::from_static(json.as_bytes()) }
    }

    #[test]
    fn joins_events_in_order() {
        assert_eq!(join(&[event(r#"{"a":1}"#)]), r#"{"messages":[{"a":1}]}"#);
        assert_eq!(join(&[event("1"), event("2"), event("3")]), r#"{"messages":[1,2,3]}"#);
    }

    #[test]
    fn len_is_the_length_of_the_joined_text() {
        for count in [1, 2, 7] {
            let events = vec![event("12345"); count];
            assert_eq!(join(&events).len(), len(count, 5 * count));
        }
    }
}
