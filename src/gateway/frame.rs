//! WebSocket frames as they leave (RFC 6455 section 5.2), encoded once for all connections of a path.

use bytes::{BufMut, Bytes, BytesMut};

use super::close::Close;
use crate::model::gateway::MAX_FRAME_BYTES;

const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;

/// A ping without a payload.
pub(super) const PING: Bytes = Bytes::from_static(&[FIN | 0x9, 0]);

/// Where one piece of encoded frames ends and the next begins: control frames can go out between pieces,
/// so a piece is kept from growing far past this many bytes.
pub(super) const SEGMENT_BYTES: usize = 128 * 1024;

/// Encodes text messages, each in frames of at most [`MAX_FRAME_BYTES`], and joins small ones to segments
/// of about [`SEGMENT_BYTES`]. A message never spans two segments.
pub(super) fn encode_texts(texts: &[Bytes]) -> Vec<Bytes> {
    let mut segments = Vec::with_capacity(1);
    let mut remaining: usize = texts.iter().map(|text| encoded_len(text.len())).sum();
    let mut out = BytesMut::with_capacity(remaining.min(2 * SEGMENT_BYTES));
    for text in texts {
        let len = encoded_len(text.len());
        if !out.is_empty() && out.len() + len > SEGMENT_BYTES {
            segments.push(out.split().freeze());
            out.reserve(remaining.min(SEGMENT_BYTES).max(len));
        }
        put_text(&mut out, text);
        remaining -= len;
    }
    if !out.is_empty() {
        segments.push(out.freeze());
    }
    segments
}

/// Joins neighbouring segments up to [`SEGMENT_BYTES`]: fewer, larger writes for every connection.
pub(super) fn join(segments: Vec<Bytes>) -> Vec<Bytes> {
    let mut joined: Vec<Bytes> = Vec::with_capacity(segments.len());
    let mut open = BytesMut::new();
    let mut segments = segments.into_iter().peekable();
    while let Some(segment) = segments.next() {
        let fits_next = segments.peek().is_some_and(|next| segment.len() + next.len() <= SEGMENT_BYTES);
        if open.is_empty() && !fits_next {
            joined.push(segment);
            continue;
        }
        open.extend_from_slice(&segment);
        if segments.peek().is_none_or(|next| open.len() + next.len() > SEGMENT_BYTES) {
            joined.push(open.split().freeze());
        }
    }
    joined
}

/// A close frame with the code and the reason of `close`.
pub(super) fn close(close: Close) -> Bytes {
    let reason = close.reason();
    let mut out = BytesMut::with_capacity(4 + reason.len());
    out.put_u8(FIN | CLOSE);
    out.put_u8(2 + reason.len() as u8);
    out.put_u16(close.code());
    out.put_slice(reason.as_bytes());
    out.freeze()
}

fn encoded_len(text: usize) -> usize {
    let (full, rest) = (text / MAX_FRAME_BYTES, text % MAX_FRAME_BYTES);
    let full_len = full * (header_len(MAX_FRAME_BYTES) + MAX_FRAME_BYTES);
    if rest > 0 || full == 0 { full_len + header_len(rest) + rest } else { full_len }
}

const fn header_len(payload: usize) -> usize {
    if payload < 126 { 2 } else { 4 }
}

fn put_text(out: &mut BytesMut, text: &[u8]) {
    let mut opcode = TEXT;
    let mut rest = text;
    loop {
        let (payload, later) = rest.split_at(rest.len().min(MAX_FRAME_BYTES));
        out.put_u8(if later.is_empty() { FIN | opcode } else { opcode });
        // MAX_FRAME_BYTES fits 16 bits, so the 64-bit length form is never needed.
        if payload.len() < 126 {
            out.put_u8(payload.len() as u8);
        } else {
            out.put_u8(126);
            out.put_u16(payload.len() as u16);
        }
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

    #[test]
    fn messages_share_a_segment_until_it_is_full() {
        let small = Bytes::from(vec![b'a'; 100]);
        let large = Bytes::from(vec![b'b'; 120_000]);
        let segments = encode_texts(&[small.clone(), small.clone(), large.clone(), large, small]);
        let lens: Vec<_> = segments.iter().map(Bytes::len).collect();
        assert_eq!(lens, [2 * 102 + 120_016, 120_016 + 102]);
        assert_eq!(join(segments.clone()).concat(), segments.concat());
    }

    #[test]
    fn joins_neighbours_up_to_a_segment() {
        let small = Bytes::from(vec![b'a'; 60_000]);
        let joined = join(vec![small; 5]);
        assert_eq!(joined.iter().map(Bytes::len).collect::<Vec<_>>(), [120_000, 120_000, 60_000]);
    }

    #[test]
    fn a_close_frame_carries_code_and_reason() {
        let bytes = close(Close::TooSlow);
        assert_eq!(bytes[0], 0x88);
        assert_eq!(bytes[1] as usize, bytes.len() - 2);
        assert_eq!(&bytes[2..4], &1013u16.to_be_bytes());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_message_arrives_whole_and_in_order(
            lens in prop::collection::vec(
                prop_oneof![0usize..300, 32_760usize..32_776, 65_530usize..65_545, 0usize..140_000], 1..8)
        ) {
            let texts: Vec<Bytes> = lens.iter().enumerate().map(|(n, len)| Bytes::from(vec![b'a' + n as u8; *len])).collect();
            let segments = encode_texts(&texts);
            prop_assert_eq!(segments.iter().map(Bytes::len).sum::<usize>(), lens.iter().map(|len| encoded_len(*len)).sum::<usize>());
            let mut got = Vec::new();
            for segment in join(segments) {
                got.extend(decode(&segment));
            }
            prop_assert_eq!(got, texts.iter().map(|t| t.to_vec()).collect::<Vec<_>>());
        }
    }
}
