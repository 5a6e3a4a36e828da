//! What stands in a row, and how rows are numbered. Pure.
//!
//! A key holds two numbers: in its upper 16 bits which source or path the row belongs to, in its lower 47 the
//! offset or position of the row's first event. So each source's and path's rows are one stretch of a table.

use std::ops::RangeInclusive;

use bytes::{BufMut, Bytes};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::journal::ReadError;
use crate::model::event::Event;
use crate::model::repeat::{Repeat, Repeats};

/// Bits of a place: at 100,000 events a second they last 44 years.
pub(super) const PLACE_BITS: u32 = 47;
/// The highest offset or position.
pub(super) const MAX_PLACE: u64 = (1 << PLACE_BITS) - 1;

/// The key of the row that begins at `place` of the source or path `owner`.
pub(super) fn key(owner: i64, place: u64) -> i64 {
    owner << PLACE_BITS | (place.min(MAX_PLACE) as i64)
}

/// The source or path in a key.
pub(super) fn owner(key: i64) -> i64 {
    key >> PLACE_BITS
}

/// The place in a key.
pub(super) fn place(key: i64) -> u64 {
    key as u64 & MAX_PLACE
}

/// A number of a row. Only a damaged row holds one that no place can have; sums of two never overflow.
pub(super) fn number(value: i64) -> u64 {
    value.clamp(0, MAX_PLACE as i64) as u64
}

/// Every key of a source or path.
pub(super) fn keys(owner: i64) -> RangeInclusive<i64> {
    key(owner, 0)..=key(owner, MAX_PLACE)
}

/// Refuses a source or path whose number has no room in keys.
pub(super) fn check_owner(owner: i64) -> Result<(), ReadError> {
    const MOST: i64 = (1 << (63 - PLACE_BITS)) - 1;
    if (0..=MOST).contains(&owner) {
        return Ok(());
    }
    Err(ReadError::Failed(format!("the journal has known {MOST} sources or paths, which is all that it can")))
}

/// Events as lines of JSON. Compact JSON holds no line feed.
pub(super) fn put_events<'a>(out: &mut Vec<u8>, events: impl IntoIterator<Item = &'a Event>) {
    for event in events {
        out.put_slice(&event.json);
        out.put_u8(b'\n');
    }
}

/// Events that were made of others, whose JSON may be anything: each with its id before it.
pub(super) fn put_made_events<'a>(out: &mut Vec<u8>, events: impl IntoIterator<Item = &'a Event>) {
    for event in events {
        out.put_u8(b'"');
        out.put_slice(event.id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
        out.put_u8(b'"');
        out.put_slice(&event.json);
        out.put_u8(b'\n');
    }
}

/// The id and the JSON of an event that was made of another; `None` if it is none.
pub(super) fn made_event(line: &Bytes) -> Option<Event> {
    let rest = line.strip_prefix(b"\"")?;
    let id = Uuid::try_parse_ascii(rest.get(..Hyphenated::LENGTH)?).ok()?;
    let json = rest.get(Hyphenated::LENGTH..)?.strip_prefix(b"\"")?;
    Some(Event { id, json: line.slice_ref(json) })
}

/// The event in a line.
pub(super) fn event(line: Bytes) -> Option<Event> {
    if line.first() == Some(&b'"') { made_event(&line) } else { Event::from_json(line) }
}

/// The events of a row, from the one with this number on. What is not an event ends it.
pub(super) fn events(data: &Bytes, skip: usize) -> impl Iterator<Item = Event> + '_ {
    let mut start = 0;
    memchr::memchr_iter(b'\n', data)
        .map(move |end| std::mem::replace(&mut start, end + 1)..end)
        .skip(skip)
        .map_while(|line| event(data.slice(line)))
}

/// Numbers of events in batches, seven bits a byte.
pub(super) fn put_counts(out: &mut Vec<u8>, counts: impl IntoIterator<Item = usize>) {
    for count in counts {
        let mut rest = count;
        while rest >= 0x80 {
            out.put_u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.put_u8(rest as u8);
    }
}

/// Reads what [`put_counts`] wrote. Batches are never empty; a count that does not end is left out.
pub(super) fn counts(mut bytes: &[u8]) -> Vec<u64> {
    let mut counts = Vec::new();
    while !bytes.is_empty() {
        let mut count = 0;
        let end = bytes.iter().position(|byte| byte & 0x80 == 0).map_or(bytes.len(), |at| at + 1);
        let (number, rest) = bytes.split_at(end);
        for (n, byte) in number.iter().take(9).enumerate() {
            count |= u64::from(byte & 0x7f) << (7 * n);
        }
        bytes = rest;
        if count > 0 {
            counts.push(count);
        }
    }
    counts
}

/// Bytes of one publish in a row.
const REPEAT_LEN: usize = 12;

/// The publishes behind a row's events: for each session its digest, their number and then they.
pub(super) fn put_repeats(out: &mut Vec<u8>, repeats: &Repeats) {
    out.put_u64(repeats.session);
    out.put_u32(repeats.publishes.len() as u32);
    for repeat in &repeats.publishes {
        out.put_u16(repeat.packet_id);
        out.put_u8(repeat.qos);
        out.put_u8(repeat.copies);
        out.put_u64(repeat.content);
    }
}

/// Reads what [`put_repeats`] wrote, any number of times.
pub(super) fn repeats(mut bytes: &[u8]) -> Vec<Repeats> {
    let mut all = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(12) {
        let (session, count) = head.split_at(8);
        let session = u64::from_be_bytes(session.try_into().unwrap_or_default());
        let count = u32::from_be_bytes(count.try_into().unwrap_or_default()) as usize;
        let Some((entries, rest)) = rest.split_at_checked(count.saturating_mul(REPEAT_LEN)) else { break };
        let publishes = entries.chunks_exact(REPEAT_LEN).map(|entry| Repeat {
            packet_id: u16::from_be_bytes([entry[0], entry[1]]),
            qos: entry[2],
            copies: entry[3],
            content: u64::from_be_bytes(entry[4..].try_into().unwrap_or_default()),
        });
        all.push(Repeats { session, publishes: publishes.collect() });
        bytes = rest;
    }
    all
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;
    use crate::model::event::{Encoder, Origin};

    #[test]
    fn keys_of_an_owner_are_one_stretch() {
        assert_eq!((owner(key(3, 7)), place(key(3, 7))), (3, 7));
        assert!(
            keys(3).contains(&key(3, 7)) && !keys(3).contains(&key(4, 0)) && !keys(3).contains(&key(2, 9))
        );
        assert!(key((1 << 16) - 1, MAX_PLACE) > 0);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
            skip in 0usize..22,
            numbers in prop::collection::vec(1usize..100_000, 0..20),
            sessions in prop::collection::vec(prop::collection::vec(any::<(u16, u8, u8, u64)>(), 0..5), 0..4),
        ) {
            let mut encoder = Encoder::new();
            let made: Vec<_> = payloads
                .iter()
                .map(|payload| encoder.iot_message(Origin::Broker { broker_id: "b" }, "a\nb", payload))
                .collect();
            let mut out = Vec::new();
            put_events(&mut out, &made);
            let got: Vec<_> = events(&Bytes::from(out), skip).collect();
            prop_assert_eq!(&got[..], made.get(skip..).unwrap_or_default());

            let mut out = Vec::new();
            put_counts(&mut out, numbers.iter().copied());
            prop_assert_eq!(counts(&out), numbers.iter().map(|n| *n as u64).collect::<Vec<_>>());

            let sessions: Vec<_> = sessions
                .into_iter()
                .map(|publishes| Repeats {
                    session: publishes.len() as u64 * 77,
                    publishes: publishes
                        .into_iter()
                        .map(|(packet_id, qos, copies, content)| Repeat { packet_id, qos, copies, content })
                        .collect(),
                })
                .collect();
            let mut out = Vec::new();
            sessions.iter().for_each(|session| put_repeats(&mut out, session));
            prop_assert_eq!(repeats(&out), sessions);
        }

        #[test]
        fn damaged_rows_are_read_without_a_panic(bytes: Vec<u8>) {
            counts(&bytes);
            repeats(&bytes);
            events(&Bytes::from(bytes), 0).for_each(drop);
        }
    }

    #[test]
    fn a_row_of_events_is_lines_of_json() {
        let id = uuid::Uuid::nil();
        let origin = Origin::Broker { broker_id: "b" };
        let event = Encoder::new().iot_message_with(id, SystemTime::UNIX_EPOCH, origin, "t", b"x");
        let mut out = Vec::new();
        put_events(&mut out, [&event, &event]);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }
}
