//! Messages as they leave, encoded once for all connections of a path: WebSocket frames (RFC 6455 section 5.2), the same
//! with compressed payloads (RFC 7692), and server-sent events (HTML standard, section 9.2).

use bytes::{BufMut, Bytes, BytesMut};

use super::close::Close;
use super::deflate;
use crate::model::event::Event;
use crate::model::gateway::MAX_FRAME_BYTES;
use crate::model::message;

pub(super) const FIN: u8 = 0x80;
/// The message is compressed; on its first frame alone (RFC 7692 section 6).
pub(super) const RSV1: u8 = 0x40;
pub(super) const CONTINUATION: u8 = 0x0;
pub(super) const TEXT: u8 = 0x1;
pub(super) const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;

/// What clients of a path speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Format {
    /// WebSocket frames.
    WebSocket,
    /// WebSocket frames, compressed where it is worth it.
    Deflated,
    /// Server-sent events.
    EventStream,
}

impl Format {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::WebSocket, Self::Deflated, Self::EventStream];
}

/// A ping without a payload.
pub(super) const PING: Bytes = Bytes::from_static(&[FIN | 0x9, 0]);

/// Where one piece of encoded frames ends and the next begins: control frames can go out between pieces,
/// so a piece is kept from growing far past this many bytes.
pub(super) const SEGMENT_BYTES: usize = 128 * 1024;

/// Bytes that [`put`] writes for a batch, at most; exactly so many unless it compresses.
pub(super) fn encoded_len(format: Format, batch: &[Event]) -> usize {
    let text = text_len(batch);
    match format {
        Format::WebSocket | Format::Deflated => frames_len(text),
        Format::EventStream => ID.len() + uuid::fmt::Hyphenated::LENGTH + DATA.len() + text + 2,
    }
}

fn text_len(batch: &[Event]) -> usize {
    message::len(batch.len(), batch.iter().map(|event| event.json.len()).sum())
}

/// Writes a batch as one message.
pub(super) fn put(out: &mut BytesMut, format: Format, batch: &[Event]) {
    match format {
        Format::WebSocket => put_text(out, batch),
        Format::Deflated if text_len(batch) < deflate::LEAST => put_text(out, batch),
        Format::Deflated => {
            let text = message::join(batch);
            match deflate::deflate(&text) {
                Some(payload) => put_frames(out, RSV1 | TEXT, &payload),
                None => put_frames(out, TEXT, &text),
            }
        }
        Format::EventStream => {
            // JSON holds no line feed, so one data line is all.
            let id = batch.last().map(|event| event.id).unwrap_or_default();
            out.put_slice(ID);
            out.put_slice(id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).as_bytes());
            out.put_slice(DATA);
            message::put(out, batch);
            out.put_slice(b"\n\n");
        }
    }
}

fn put_text(out: &mut BytesMut, batch: &[Event]) {
    let len = text_len(batch);
    if len <= MAX_FRAME_BYTES {
        put_header(out, FIN | TEXT, len);
        message::put(out, batch);
    } else {
        put_frames(out, TEXT, &message::join(batch));
    }
}

const ID: &[u8] = b"id: ";
const DATA: &[u8] = b"\ndata: ";

/// A close frame with the code and the reason of `close`.
pub(super) fn close(close: Close) -> Bytes {
    closing(close.code(), close.reason())
}

/// The answer to a client's close frame: the code is sent back as it came, the text is not (RFC 6455 section 5.5.1).
pub(super) fn close_answer(code: Option<u16>) -> Bytes {
    code.map_or(Bytes::from_static(&[FIN | CLOSE, 0]), |code| closing(code, ""))
}

fn closing(code: u16, reason: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(4 + reason.len());
    out.put_u8(FIN | CLOSE);
    out.put_u8(2 + reason.len() as u8);
    out.put_u16(code);
    out.put_slice(reason.as_bytes());
    out.freeze()
}

fn frames_len(text: usize) -> usize {
    let (full, rest) = (text / MAX_FRAME_BYTES, text % MAX_FRAME_BYTES);
    let full_len = full * (header_len(MAX_FRAME_BYTES) + MAX_FRAME_BYTES);
    if rest > 0 || full == 0 { full_len + header_len(rest) + rest } else { full_len }
}

const fn header_len(payload: usize) -> usize {
    if payload < 126 { 2 } else { 4 }
}

fn put_header(out: &mut BytesMut, first: u8, payload: usize) {
    out.put_u8(first);
    // MAX_FRAME_BYTES fits 16 bits, so the 64-bit length form is never needed.
    if payload < 126 {
        out.put_u8(payload as u8);
    } else {
        out.put_u8(126);
        out.put_u16(payload as u16);
    }
}

/// One message for one connection.
pub(super) fn message(data: &[u8], is_text: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(frames_len(data.len()));
    put_frames(&mut out, if is_text { TEXT } else { BINARY }, data);
    out.freeze()
}

/// Writes a payload as one frame or several. The first begins with `opcode`.
fn put_frames(out: &mut BytesMut, mut opcode: u8, data: &[u8]) {
    out.reserve(frames_len(data.len()));
    let mut rest = data;
    loop {
        let (payload, later) = rest.split_at(rest.len().min(MAX_FRAME_BYTES));
        put_header(out, if later.is_empty() { FIN | opcode } else { opcode }, payload.len());
        out.put_slice(payload);
        if later.is_empty() {
            return;
        }
        rest = later;
        opcode = CONTINUATION;
    }
}

#[cfg(test)]
mod tests {
    use actix_http::ws::{Codec, Frame, Item};
    use proptest::prelude::*;
    use tokio_util::codec::Decoder;

    use super::*;

    /// Decodes frames with actix's codec and joins the messages.
    fn decode(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut codec = Codec::new().client_mode().max_size(MAX_FRAME_BYTES);
        let mut input = BytesMut::from(bytes);
        let mut messages: Vec<Vec<u8>> = Vec::new();
        while let Some(frame) = codec.decode(&mut input).unwrap() {
            match frame {
                Frame::Text(text) => messages.push(text.to_vec()),
                Frame::Continuation(Item::FirstText(part)) => messages.push(part.to_vec()),
                Frame::Continuation(Item::Continue(part) | Item::Last(part)) => {
                    messages.last_mut().unwrap().extend_from_slice(&part);
                }
                other => panic!("unexpected frame {other:?}"),
            }
        }
        assert!(input.is_empty());
        messages
    }

    fn event(json: Vec<u8>) -> Event {
        Event { id: uuid::Uuid::nil(), json: Bytes::from(json) }
    }

    #[test]
    fn a_server_sent_event_has_the_last_id_and_one_line_of_data() {
        let last = Event { id: uuid::Uuid::from_u128(7), json: Bytes::from_static(b"{}") };
        let mut out = BytesMut::new();
        let batch = [event(b"1".to_vec()), last];
        put(&mut out, Format::EventStream, &batch);
        assert_eq!(out, "id: 00000000-0000-0000-0000-000000000007\ndata: {\"messages\":[1,{}]}\n\n");
        assert_eq!(out.len(), encoded_len(Format::EventStream, &batch));
    }

    #[test]
    fn a_close_frame_carries_code_and_reason() {
        let bytes = close(Close::TooSlow);
        assert_eq!(bytes[0], 0x88);
        assert_eq!(bytes[1] as usize, bytes.len() - 2);
        assert_eq!(&bytes[2..4], &1013u16.to_be_bytes());
        assert_eq!(close_answer(Some(4000))[..], [0x88, 2, 0x0f, 0xa0]);
        assert_eq!(close_answer(None)[..], [0x88, 0]);
    }

    /// Takes a compressed path's frames apart, by hand: payloads, and whether they were compressed.
    fn inflated(mut bytes: &[u8]) -> Vec<(Vec<u8>, bool)> {
        let mut messages: Vec<(Vec<u8>, bool)> = Vec::new();
        while let [first, short, ..] = *bytes {
            let (len, head) = match short {
                126 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
                short => (usize::from(short), 2),
            };
            let payload = &bytes[head..head + len];
            bytes = &bytes[head + len..];
            assert!(len <= MAX_FRAME_BYTES && first & 0x30 == 0);
            match first & 0x0f {
                TEXT => messages.push((payload.to_vec(), first & RSV1 != 0)),
                opcode => {
                    assert_eq!(
                        (opcode, first & RSV1),
                        (CONTINUATION, 0),
                        "the bit is on the first frame only"
                    );
                    messages.last_mut().unwrap().0.extend_from_slice(payload);
                }
            }
            if let (true, Some((message, true))) = (first & FIN != 0, messages.last_mut()) {
                *message = deflate::inflate(message, 16 << 20).unwrap();
            }
        }
        assert!(bytes.is_empty());
        messages
    }

    #[test]
    fn compressed_messages_over_a_frame_are_cut_and_short_ones_are_left() {
        let random = |len: usize| (0..len).map(|_| rand::random_range(b'0'..=b'9')).collect::<Vec<u8>>();
        let batches =
            [vec![event(b"1".to_vec())], vec![event(random(120_000))], vec![event(vec![b'x'; 90_000])]];
        let mut out = BytesMut::new();
        batches.iter().for_each(|batch| put(&mut out, Format::Deflated, batch));
        assert!(out.len() > 40_000 && out.len() < 80_000, "{}", out.len());
        let expected: Vec<_> =
            batches.iter().map(|batch| message::join(batch).to_vec()).zip([false, true, true]).collect();
        assert!(inflated(&out) == expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_message_arrives_whole_and_in_order(
            batches in prop::collection::vec(prop::collection::vec(
                prop_oneof![0usize..300, 32_740usize..32_776, 65_500usize..65_545, 0usize..140_000], 1..4), 1..6)
        ) {
            let batches: Vec<Vec<Event>> = batches.iter().enumerate()
                .map(|(n, lens)| lens.iter().map(|len| event(vec![b'a' + n as u8; *len])).collect()).collect();
            let mut out = BytesMut::new();
            for batch in &batches {
                let before = out.len();
                put(&mut out, Format::WebSocket, batch);
                prop_assert_eq!(out.len() - before, encoded_len(Format::WebSocket, batch));
            }
            let texts: Vec<_> = batches.iter().map(|batch| message::join(batch).to_vec()).collect();
            prop_assert_eq!(decode(&out), texts);
        }
    }
}
