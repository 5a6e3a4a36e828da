//! What clients may send: frame headers are judged before their payload is read, fragments are joined, compressed
//! messages are unpacked.
//!
//! Pure; used by the session. The codec of actix-http waits for a whole frame before it looks at its length and its
//! text, so [`Scanner`] stands in front of it and lets only whole, lawful frames through. It knows nothing of
//! compression either: it is given a compressed message as a binary one, and [`Packed`] says what that is in truth.

use actix_http::ws::Item;
use bytes::{Bytes, BytesMut};

use super::close::Close;
use super::deflate::{InflateError, inflate};
use super::frame::{BINARY, CONTINUATION, FIN, RSV1, TEXT};
use super::utf8::Utf8;
use crate::model::limits::Limits;

/// Most frames of one message, and one more for each of its bytes; it stops endless empty fragments.
const MAX_FRAGMENTS: usize = 1024;

/// What the input begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Not a whole frame yet.
    Incomplete,
    /// A lawful frame, as the codec is to see it. It is the first of a compressed message, if that is said.
    Frame(Bytes, Option<Packed>),
    /// A frame that is refused.
    Refuse(Close),
}

/// What stands at the start of the input.
#[derive(Debug, PartialEq, Eq)]
enum Scan {
    /// Not a whole frame yet.
    Incomplete,
    /// A lawful frame of this many bytes, header included.
    Frame(usize),
    /// The same, the first of a compressed message.
    Packed(usize, Packed),
    /// A frame that is refused by its header, or by the text of it that has come.
    Refuse(Close),
}

/// What is in a compressed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packed {
    /// Text.
    Text,
    /// Anything else.
    Binary,
}

impl Packed {
    /// The first byte of the frame for the codec: without the bit, and with nothing to be checked as text.
    fn hide(first: u8) -> u8 {
        first & FIN | BINARY
    }

    /// The message, from its whole payload; at most this long.
    fn unpack(self, payload: &[u8], most: usize) -> Result<Message, Close> {
        let data = inflate(payload, most).map_err(|error| match error {
            InflateError::TooBig => Close::TooBig,
            InflateError::Corrupt => Close::Corrupt,
        })?;
        match self {
            Self::Text if std::str::from_utf8(&data).is_err() => Err(Close::NotUtf8),
            Self::Text => Ok(Message::Text(data.into())),
            Self::Binary => Ok(Message::Binary(data.into())),
        }
    }
}

/// Judges frame headers, and text that comes in pieces; remembers how long the message in progress is.
#[derive(Debug)]
pub(super) struct Scanner {
    message_bytes: usize,
    frame_bytes: usize,
    /// Messages may be compressed.
    deflate: bool,
    message_len: usize,
    fragments: usize,
    /// The message in progress is text.
    text: bool,
    utf8: Utf8,
    /// Bytes of the frame in progress that are known to be text.
    checked: usize,
}

impl Scanner {
    /// Judges by these limits, for a client that has agreed on compression, or has not.
    pub(super) fn new(limits: &Limits, deflate: bool) -> Self {
        let Limits { message_bytes, frame_bytes, .. } = *limits;
        Self {
            message_bytes,
            frame_bytes,
            deflate,
            message_len: 0,
            fragments: 0,
            text: false,
            utf8: Utf8::default(),
            checked: 0,
        }
    }

    /// Whether no message is begun.
    pub(super) fn is_between_messages(&self) -> bool {
        self.fragments == 0
    }

    /// Takes the frame that `input` begins with, if it is whole and lawful.
    pub(super) fn next(&mut self, input: &mut BytesMut) -> Next {
        let (len, packed) = match self.scan(input) {
            Scan::Incomplete => return Next::Incomplete,
            Scan::Refuse(close) => return Next::Refuse(close),
            Scan::Frame(len) => (len, None),
            Scan::Packed(len, packed) => {
                input[0] = Packed::hide(input[0]);
                (len, Some(packed))
            }
        };
        let frame = input.split_to(len).freeze();
        if input.is_empty() {
            *input = BytesMut::new();
        }
        Next::Frame(frame, packed)
    }

    /// Judges the frame that `input` starts with.
    fn scan(&mut self, input: &[u8]) -> Scan {
        let [first, second, ..] = *input else { return Scan::Incomplete };
        let (fin, reserved, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0f);
        let (masked, short_len) = (second & 0x80 != 0, usize::from(second & 0x7f));
        let control = opcode >= 0x8;
        let known = matches!(opcode, 0x0..=0x2 | 0x8..=0xa);
        let packed = match (reserved, opcode) {
            (0, _) => None,
            (RSV1, TEXT) if self.deflate => Some(Packed::Text),
            (RSV1, BINARY) if self.deflate => Some(Packed::Binary),
            _ => return Scan::Refuse(Close::Protocol),
        };
        if !known || !masked || (control && (!fin || short_len > 125)) {
            return Scan::Refuse(Close::Protocol);
        }
        let (len_bytes, payload_len) = match (short_len, input) {
            (126, [_, _, a, b, ..]) => (2, u64::from(u16::from_be_bytes([*a, *b]))),
            (127, [_, _, a, b, c, d, e, f, g, h, ..]) => {
                (8, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
            }
            (126 | 127, _) => return Scan::Incomplete,
            (len, _) => (0, len as u64),
        };
        if payload_len > self.frame_bytes as u64 {
            return Scan::Refuse(Close::TooBig);
        }
        let payload_len = payload_len as usize;
        let goes_on = opcode == CONTINUATION;
        // The codec would say so as well, but only of a whole frame: what is wrong with its text would come before.
        if !control && goes_on == (self.fragments == 0) {
            return Scan::Refuse(Close::Protocol);
        }
        let before = if goes_on { self.message_len } else { 0 };
        let fragments = if goes_on { self.fragments + 1 } else { 1 };
        if !control && (before + payload_len > self.message_bytes || fragments > MAX_FRAGMENTS + before) {
            return Scan::Refuse(Close::TooBig);
        }
        let header_len = 2 + len_bytes + 4;
        let Some((mask, come)) = input.get(2 + len_bytes..).and_then(<[u8]>::split_first_chunk) else {
            return Scan::Incomplete;
        };
        let payload = &come[..payload_len.min(come.len())];
        let is_whole = payload.len() == payload_len;
        // What is in a compressed message is not known yet.
        let is_text = (opcode == TEXT && packed.is_none()) || (goes_on && self.text);
        // A message that comes at once in one frame is left to the codec.
        let comes_at_once = is_whole && fin && !goes_on && self.checked == 0;
        if is_text && !comes_at_once {
            if !goes_on && self.checked == 0 {
                self.utf8 = Utf8::default();
            }
            let is_utf8 = self.utf8.goes_on(payload, *mask, self.checked);
            if !is_utf8 || (is_whole && fin && !self.utf8.is_whole()) {
                return Scan::Refuse(Close::NotUtf8);
            }
            self.checked = payload.len();
        }
        if !is_whole {
            return Scan::Incomplete;
        }
        self.checked = 0;
        if !control {
            self.text = is_text && !fin;
            (self.message_len, self.fragments) = if fin { (0, 0) } else { (before + payload_len, fragments) };
        }
        let frame_len = header_len + payload_len;
        packed.map_or(Scan::Frame(frame_len), |packed| Scan::Packed(frame_len, packed))
    }
}

/// A whole message of a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// UTF-8 text.
    Text(Bytes),
    /// Anything else.
    Binary(Bytes),
}

impl Message {
    /// Its bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Text(data) | Self::Binary(data) => data.len(),
        }
    }
}

/// What the codec makes of a frame with a payload for the path.
#[derive(Debug)]
pub(super) enum Part {
    /// A message of text.
    Text(Bytes),
    /// Another one, or one that is compressed.
    Binary(Bytes),
    /// A part of one.
    Fragment(Item),
}

/// Makes messages of frames; the codec has checked the order of fragments already, the scanner their length and their text.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    packed: Option<Packed>,
    text: bool,
    parts: BytesMut,
}

impl Joiner {
    /// Takes a frame; gives the message that ends with it. `packed` is of the first frame; what is unpacked has at most
    /// `most` bytes.
    pub(super) fn take(
        &mut self,
        part: Part,
        packed: Option<Packed>,
        most: usize,
    ) -> Result<Option<Message>, Close> {
        match (part, packed) {
            (Part::Text(text), _) => Ok(Some(Message::Text(text))),
            (Part::Binary(data), None) => Ok(Some(Message::Binary(data))),
            (Part::Binary(data), Some(packed)) => packed.unpack(&data, most).map(Some),
            (Part::Fragment(item), packed) => self.push(item, packed, most),
        }
    }

    fn push(&mut self, item: Item, packed: Option<Packed>, most: usize) -> Result<Option<Message>, Close> {
        let (part, last) = match item {
            Item::FirstText(part) => (self.begin(true, packed, part), false),
            Item::FirstBinary(part) => (self.begin(false, packed, part), false),
            Item::Continue(part) => (part, false),
            Item::Last(part) => (part, true),
        };
        self.parts.extend_from_slice(&part);
        if !last {
            return Ok(None);
        }
        let whole = std::mem::take(&mut self.parts).freeze();
        if let Some(packed) = self.packed {
            return packed.unpack(&whole, most).map(Some);
        }
        Ok(Some(if self.text { Message::Text(whole) } else { Message::Binary(whole) }))
    }

    fn begin(&mut self, text: bool, packed: Option<Packed>, part: Bytes) -> Bytes {
        *self = Self { text, packed, parts: BytesMut::new() };
        part
    }
}

#[cfg(test)]
mod tests {
    use actix_codec::Decoder as _;
    use actix_http::ws::{Codec, Frame};
    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 131_072;

    fn scanner() -> Scanner {
        Scanner::new(&Limits::default(), false)
    }

    fn frame(first: u8, len: usize) -> Vec<u8> {
        let mut out = vec![first];
        match len {
            0..=125 => out.push(0x80 | len as u8),
            126..=65_535 => {
                out.push(0x80 | 126);
                out.extend((len as u16).to_be_bytes());
            }
            _ => {
                out.push(0x80 | 127);
                out.extend((len as u64).to_be_bytes());
            }
        }
        out.extend([0; 4]);
        out.extend(vec![0; len]);
        out
    }

    #[test]
    fn an_oversize_frame_is_refused_by_its_header_alone() {
        for header in [&frame(0x82, 32_769)[..4], &frame(0x82, 1 << 20)[..10], &frame(0x01, 40_000)[..4]] {
            assert_eq!(scanner().scan(header), Scan::Refuse(Close::TooBig));
        }
        let whole = frame(0x82, 32_768);
        assert_eq!(scanner().scan(&whole[..4]), Scan::Incomplete);
        assert_eq!(scanner().scan(&whole), Scan::Frame(whole.len()));
    }

    #[test]
    fn a_message_over_the_limit_is_refused_at_the_header_that_passes_it() {
        let mut scanner = scanner();
        for first in [0x01, 0x00, 0x00, 0x00] {
            let fragment = frame(first, 32_768);
            assert_eq!(scanner.scan(&fragment), Scan::Frame(fragment.len()));
        }
        let ping = frame(0x89, 5);
        assert_eq!(scanner.scan(&ping), Scan::Frame(ping.len()));
        assert_eq!(scanner.scan(&frame(0x80, 1)[..6]), Scan::Refuse(Close::TooBig));
    }

    #[test]
    fn fragments_out_of_order_are_refused() {
        let mut scanner = scanner();
        for first in [0x02, 0x00, 0x00, 0x80] {
            scanner.scan(&frame(first, 32_768));
        }
        assert_eq!(
            scanner.scan(&frame(0x80, 1)),
            Scan::Refuse(Close::Protocol),
            "after the end of a message"
        );
        assert_eq!(scanner.scan(&frame(0x01, 1)), Scan::Frame(7));
        assert_eq!(scanner.scan(&frame(0x81, 1)), Scan::Refuse(Close::Protocol), "within a message");
    }

    #[test]
    fn empty_fragments_end_some_time() {
        let mut scanner = scanner();
        scanner.scan(&frame(0x01, 0));
        let scans: Vec<_> = (0..MAX_FRAGMENTS).map(|_| scanner.scan(&frame(0x00, 0))).collect();
        assert_eq!(scans.last(), Some(&Scan::Refuse(Close::TooBig)));
        assert_eq!(scans[MAX_FRAGMENTS - 2], Scan::Frame(6));
    }

    #[test]
    fn broken_headers_are_protocol_errors() {
        for bad in [
            [0x81, 0x05], // unmasked
            [0xc1, 0x80], // RSV1, not agreed on
            [0x83, 0x80], // unknown opcode
            [0x8b, 0x80], // unknown control opcode
            [0x09, 0x80], // fragmented ping
            [0x89, 0xfe], // ping of more than 125 bytes
        ] {
            assert_eq!(scanner().scan(&bad), Scan::Refuse(Close::Protocol), "{bad:?}");
        }
    }

    #[test]
    fn the_bit_of_compression_stands_on_the_first_frame_of_a_message_only() {
        for (first, expected) in [
            (0xc1, Scan::Packed(6, Packed::Text)),
            (0x42, Scan::Packed(6, Packed::Binary)),
            (0x81, Scan::Frame(6)),
            (0x40, Scan::Refuse(Close::Protocol)),
            (0xc0, Scan::Refuse(Close::Protocol)),
            (0xc9, Scan::Refuse(Close::Protocol)),
            (0xc8, Scan::Refuse(Close::Protocol)),
            (0xe1, Scan::Refuse(Close::Protocol)),
            (0xa1, Scan::Refuse(Close::Protocol)),
            (0x91, Scan::Refuse(Close::Protocol)),
        ] {
            assert_eq!(
                Scanner::new(&Limits::default(), true).scan(&frame(first, 0)),
                expected,
                "{first:02x}"
            );
        }
        assert_eq!((Packed::hide(0xc1), Packed::hide(0x41), Packed::hide(0x42)), (0x82, 0x02, 0x02));
    }

    #[test]
    fn compressed_text_is_not_judged_as_text() {
        let with = |first: u8, payload: u8| {
            let mut bytes = frame(first, 1);
            // The mask is zero.
            *bytes.last_mut().unwrap() = payload;
            bytes
        };
        let mut scanner = Scanner::new(&Limits::default(), true);
        assert_eq!(scanner.scan(&with(0x41, 0xff)), Scan::Packed(7, Packed::Text));
        assert_eq!(scanner.scan(&with(0x00, 0xff)), Scan::Frame(7));
        assert_eq!(scanner.scan(&with(0x80, 0xff)), Scan::Frame(7));
        assert_eq!(
            scanner.scan(&with(0x01, 0xff)),
            Scan::Refuse(Close::NotUtf8),
            "what follows is text again"
        );
    }

    #[test]
    fn fragments_are_joined_before_they_are_unpacked() {
        let text = "aü€ ".repeat(400);
        let payload = crate::gateway::deflate::deflate(text.as_bytes()).unwrap();
        for at in 0..payload.len() {
            let mut joiner = Joiner::default();
            let first = Item::FirstBinary(bytes(&payload[..at]));
            assert_eq!(joiner.push(first, Some(Packed::Text), MOST), Ok(None));
            let whole = joiner.push(Item::Last(bytes(&payload[at..])), None, MOST);
            assert_eq!(whole, Ok(Some(Message::Text(bytes(text.as_bytes())))));
            // The next message is none.
            joiner.push(Item::FirstText(bytes(b"a")), None, MOST).unwrap();
            assert_eq!(
                joiner.push(Item::Last(bytes(b"b")), None, MOST),
                Ok(Some(Message::Text(bytes(b"ab"))))
            );
        }
    }

    #[test]
    fn what_is_packed_badly_is_told_apart() {
        let pack = |data: &[u8]| crate::gateway::deflate::deflate(data).unwrap();
        let not_text = pack(&[0xff; 2000]);
        assert_eq!(Packed::Text.unpack(&not_text, MOST), Err(Close::NotUtf8));
        assert_eq!(Packed::Binary.unpack(&not_text, MOST), Ok(Message::Binary(bytes(&[0xff; 2000]))));
        assert_eq!(Packed::Text.unpack(&pack(&vec![b'x'; MOST + 1]), MOST), Err(Close::TooBig));
        assert_eq!(Packed::Text.unpack(b"\xff\xff\xff", MOST), Err(Close::Corrupt));
    }

    fn bytes(data: &[u8]) -> Bytes {
        Bytes::copy_from_slice(data)
    }

    #[test]
    fn joins_fragments_cut_inside_a_code_point() {
        let mut joiner = Joiner::default();
        let text = "aü€".as_bytes();
        assert_eq!(joiner.push(Item::FirstText(bytes(&text[..2])), None, MOST), Ok(None));
        assert_eq!(joiner.push(Item::Continue(bytes(&text[2..4])), None, MOST), Ok(None));
        assert_eq!(
            joiner.push(Item::Last(bytes(&text[4..])), None, MOST),
            Ok(Some(Message::Text(bytes(text))))
        );
        joiner.push(Item::FirstBinary(bytes(b"\xff")), None, MOST).unwrap();
        assert_eq!(
            joiner.push(Item::Last(bytes(b"\xfe")), None, MOST),
            Ok(Some(Message::Binary(bytes(b"\xff\xfe"))))
        );
    }

    /// A masked frame with this payload.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let (mask, mut frame) = ([9, 80, 0, 201], frame(first, payload.len()));
        let start = frame.len() - payload.len();
        frame[start - 4..start].copy_from_slice(&mask);
        for (at, byte) in payload.iter().enumerate() {
            frame[start + at] = byte ^ mask[at % 4];
        }
        frame
    }

    #[test]
    fn text_that_cannot_be_is_refused_before_its_frame_is_whole() {
        let mut scanner = scanner();
        let text = masked(0x81, b"aaaa\xf4\x90aaaa");
        assert_eq!(scanner.scan(&text[..6]), Scan::Incomplete);
        assert_eq!(scanner.scan(&text[..11]), Scan::Incomplete);
        assert_eq!(scanner.scan(&text[..12]), Scan::Refuse(Close::NotUtf8));
    }

    #[test]
    fn text_is_looked_at_over_fragments_with_control_frames_between() {
        let scan = |frames: &[(u8, &[u8])]| {
            let mut scanner = scanner();
            frames.iter().fold(Scan::Incomplete, |_, (first, payload)| scanner.scan(&masked(*first, payload)))
        };
        let refused = Scan::Refuse(Close::NotUtf8);
        assert_eq!(scan(&[(0x01, b"\xff")]), refused);
        assert_eq!(scan(&[(0x01, b"a\xe2"), (0x80, b"")]), refused, "a code point that is never ended");
        assert_eq!(scan(&[(0x01, b"\xe2"), (0x89, b"\xff"), (0x00, b"\x82"), (0x80, b"a")]), refused);
        assert_eq!(
            scan(&[(0x01, b"\xe2"), (0x89, b"\xff"), (0x00, b"\x82"), (0x80, b"\xac")]),
            Scan::Frame(7)
        );
        assert_eq!(scan(&[(0x02, b"\xff"), (0x80, b"\xff")]), Scan::Frame(7), "binary may hold anything");
        assert_eq!(scan(&[(0x01, b"a"), (0x80, b"b"), (0x02, b"\xff"), (0x80, b"\xff")]), Scan::Frame(7));
        assert_eq!(scan(&[(0x81, b"\xff")]), Scan::Frame(7), "left to the codec");
    }

    #[test]
    fn small_fragments_are_as_many_as_the_message_has_bytes() {
        let mut scanner = scanner();
        assert_eq!(scanner.scan(&frame(0x02, 1)), Scan::Frame(7));
        assert!((0..10 * MAX_FRAGMENTS).all(|_| scanner.scan(&frame(0x00, 1)) == Scan::Frame(7)));
    }

    proptest! {
        #[test]
        fn scanning_never_panics_and_never_passes_the_limits(input in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Scan::Frame(len) = scanner().scan(&input) {
                prop_assert!(len <= input.len());
            }
        }

        #[test]
        fn text_cut_anywhere_is_accepted_like_the_whole(text: String, cut: prop::sample::Index, come: prop::sample::Index) {
            let (first, last) = text.as_bytes().split_at(cut.index(text.len() + 1));
            let mut scanner = scanner();
            for frame in [masked(0x01, first), masked(0x80, last)] {
                prop_assert_eq!(scanner.scan(&frame[..come.index(frame.len())]), Scan::Incomplete);
                prop_assert_eq!(scanner.scan(&frame), Scan::Frame(frame.len()));
            }
        }
    }

    /// What a session makes of input that comes in these pieces: messages, control frames, and how it ends.
    fn converse(limits: &Limits, pieces: &[&[u8]]) -> (Vec<String>, Option<Close>) {
        let mut scanner = Scanner::new(limits, true);
        let mut hidden = None;
        let (mut joiner, mut input, mut said) = (Joiner::default(), BytesMut::new(), Vec::new());
        let mut codec = Codec::new().max_size(limits.frame_bytes);
        for piece in pieces {
            input.extend_from_slice(piece);
            loop {
                let (mut frame, packed) = match scanner.next(&mut input) {
                    Next::Frame(frame, packed) => (BytesMut::from(frame), packed),
                    Next::Incomplete => break,
                    Next::Refuse(close) => return (said, Some(close)),
                };
                hidden = packed.or(hidden);
                let part = match codec.decode(&mut frame) {
                    Ok(Some(Frame::Text(text))) if std::str::from_utf8(&text).is_err() => {
                        return (said, Some(Close::NotUtf8));
                    }
                    Ok(Some(Frame::Text(data))) => Part::Text(data),
                    Ok(Some(Frame::Binary(data))) => Part::Binary(data),
                    Ok(Some(Frame::Continuation(item))) => Part::Fragment(item),
                    Ok(Some(control)) => {
                        said.push(format!("{control:?}"));
                        continue;
                    }
                    Ok(None) => panic!("a whole frame is not one for the codec"),
                    Err(_) => return (said, Some(Close::Protocol)),
                };
                assert!(frame.is_empty(), "the codec ends where the scanner does");
                match joiner.take(part, hidden.take(), limits.message_bytes) {
                    Ok(Some(message)) => {
                        assert!(message.len() <= limits.message_bytes);
                        said.push(format!("{message:?}"));
                    }
                    Ok(None) => {}
                    Err(close) => return (said, Some(close)),
                }
            }
        }
        (said, None)
    }

    fn frames(frames: &[(u8, &[u8])]) -> Vec<u8> {
        let one = |(first, data): &(u8, &[u8])| {
            let mut out = frame(*first, data.len());
            let at = out.len() - data.len();
            out[at..].copy_from_slice(data);
            out
        };
        frames.iter().flat_map(one).collect()
    }

    proptest! {
        #![proptest_config(crate::fuzzing::cases(4000))]

        /// Whatever a client sends, and however it is cut: the same comes of it, and never more than the limits allow.
        #[test]
        fn fuzz_what_a_client_sends(
            data in crate::fuzzing::mutated(vec![
                frames(&[(0x81, "grüße".as_bytes()), (0x89, b"ping"), (0x82, b"\xff\0"), (0x88, b"\x03\xe8bye")]),
                frames(&[(0x01, b"\xe2"), (0x8a, b""), (0x00, b"\x82"), (0x80, b"\xac")]),
                frames(&[(0x02, &[7; 130]), (0x00, &[]), (0x80, &[8; 130]), (0x82, &[9; 200])]),
                frames(&[(0xc2, &[3, 0, 0]), (0xc1, &[3, 0, 3, 0, 0]), (0x42, &[3, 0].repeat(100)), (0x80, &[0])]),
            ]),
            cut: prop::sample::Index,
        ) {
            let limits = Limits { message_bytes: 256, frame_bytes: 200, ..Limits::default() };
            let whole = converse(&limits, &[&data]);
            let (first, second) = data.split_at(cut.index(data.len() + 1));
            prop_assert_eq!(whole, converse(&limits, &[first, second]));
        }
    }
}
