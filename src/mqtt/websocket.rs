//! MQTT over a WebSocket (MQTT 5 section 6; RFC 6455): binary messages that carry the bytes of packets, which may span
//! them. The gateway has shaken hands and handed the socket over.
//!
//! What a frame brings is given on as it comes, so a frame may be as long as it likes: nothing of it is kept. Pongs and
//! frames that wait for the socket are kept, at most [`MAX_WAITING`] bytes and one frame.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::tls::Io;

/// Bytes of answers that may wait while the client does not read; one that asks for more is cut off.
const MAX_WAITING: usize = 16 * 1024;
/// Most bytes of one frame that we send.
const MAX_FRAME: usize = 16 * 1024;
/// Bytes of one read of the socket.
const READ: usize = 8 * 1024;
/// Reads in one call that bring nothing to give, before others have their turn.
const MAX_READS: usize = 16;
/// Longest payload of a control frame.
const MAX_CONTROL: usize = 125;

const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// Close codes of RFC 6455 section 7.4.1.
const NORMAL: u16 = 1000;
const PROTOCOL: u16 = 1002;
const UNSUPPORTED: u16 = 1003;

/// A WebSocket after its handshake.
#[derive(Debug)]
pub(crate) struct WebSocket {
    io: Io,
    decoder: Decoder,
    /// Bytes that came and are not decoded: what does not fit, and what came behind the request.
    input: BytesMut,
    /// There may be something in `input` that can be decoded. Part of a header cannot: it waits for the socket.
    pending: bool,
    /// Whole frames that wait for the socket.
    output: BytesMut,
    /// No frame is read or sent any more, but what waits.
    closed: bool,
    /// The client has said goodbye, and the reader has not been told.
    goodbye: bool,
}

impl WebSocket {
    /// `answer` goes out first; `early` is what came behind the request.
    pub(crate) fn new(io: Io, answer: Bytes, early: BytesMut) -> Self {
        let (pending, output) = (!early.is_empty(), BytesMut::from(answer));
        let decoder = Decoder::default();
        Self { io, decoder, input: early, pending, output, closed: false, goodbye: false }
    }

    /// The socket.
    pub(crate) fn io(&self) -> &Io {
        &self.io
    }

    /// Whether there may be something to decode without a read.
    pub(crate) fn has_input(&self) -> bool {
        self.pending
    }

    /// Reads what is there, as long as `bytes` has room. `Ok(0)` is the end: of what the client says, and after that,
    /// or after [`Self::close`], of the socket.
    pub(crate) fn try_read_buf(&mut self, bytes: &mut BytesMut) -> io::Result<usize> {
        let read = self.read(bytes);
        self.pending = matches!(read, Ok(1..)) && (self.goodbye || !self.input.is_empty());
        read
    }

    fn read(&mut self, bytes: &mut BytesMut) -> io::Result<usize> {
        let before = bytes.len();
        for _ in 0..MAX_READS {
            self.decode(bytes)?;
            if bytes.len() > before {
                return Ok(bytes.len() - before);
            }
            if std::mem::take(&mut self.goodbye) {
                return Ok(0);
            }
            let mut scratch = [0; READ];
            match self.io.try_read(&mut scratch)? {
                0 => return Ok(0),
                // Nobody listens, but a socket that is closed with unread input is reset.
                _ if self.closed => self.input = BytesMut::new(),
                read => self.input.extend_from_slice(&scratch[..read]),
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<()> {
        while !self.closed && !self.input.is_empty() && bytes.len() < bytes.capacity() {
            let (used, step) = self.decoder.step(&self.input, bytes);
            self.input.advance(used);
            match step {
                Step::Data => {}
                Step::Incomplete => break,
                Step::Control(PING, payload) => {
                    put_frame(&mut self.output, PONG, &payload);
                    if self.output.len() > MAX_WAITING + MAX_FRAME {
                        self.closed = true;
                        return Err(broken("pings faster than it reads"));
                    }
                    // What does not fit now goes with the next write.
                    let _ = self.send();
                }
                Step::Control(CLOSE, payload) => {
                    // The code is sent back as it came, the text is not (RFC 6455 section 5.5.1).
                    put_frame(&mut self.output, CLOSE, payload.get(..2).unwrap_or_default());
                    (self.closed, self.goodbye) = (true, true);
                }
                Step::Control(..) => {}
                Step::Broken(code, what) => {
                    put_frame(&mut self.output, CLOSE, &code.to_be_bytes());
                    self.closed = true;
                    return Err(broken(what));
                }
            }
        }
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        Ok(())
    }

    /// Makes a frame of what it can take, when everything before has left.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send()?;
        if self.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let taken = bytes.len().min(MAX_FRAME);
        put_frame(&mut self.output, BINARY, &bytes[..taken]);
        match self.send() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    /// Sends what was taken.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.send()?;
        self.io.flush()
    }

    /// Says goodbye behind what waits, unless that is said already.
    pub(crate) fn close(&mut self) {
        self.goodbye = false;
        if !std::mem::replace(&mut self.closed, true) {
            put_frame(&mut self.output, CLOSE, &NORMAL.to_be_bytes());
        }
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            let sent = self.io.try_write(&self.output)?;
            self.output.advance(sent);
        }
        self.output = BytesMut::new();
        Ok(())
    }
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Writes one whole frame; a server's are not masked.
fn put_frame(out: &mut BytesMut, opcode: u8, payload: &[u8]) {
    out.reserve(payload.len() + 10);
    out.put_u8(FIN | opcode);
    match payload.len() {
        len @ 0..=125 => out.put_u8(len as u8),
        len @ 126..=0xffff => {
            out.put_u8(126);
            out.put_u16(len as u16);
        }
        len => {
            out.put_u8(127);
            out.put_u64(len as u64);
        }
    }
    out.put_slice(payload);
}

/// What a piece of input was.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Bytes of packets, or nothing to tell of.
    Data,
    /// More has to come, or there is no room for more.
    Incomplete,
    /// A control frame: its opcode and payload.
    Control(u8, Bytes),
    /// The client broke the rules: the close code for it, and what it did.
    Broken(u16, &'static str),
}

/// Takes frames apart. It keeps where it is in a frame, and nothing else. Pure.
#[derive(Debug, Default)]
struct Decoder {
    /// Bytes of the frame's payload that are still to come.
    rest: u64,
    mask: [u8; 4],
    /// Where in the mask the next byte is.
    phase: usize,
    /// A message goes on in the next frame.
    fragmented: bool,
}

impl Decoder {
    /// Goes one step: a header, a control frame, or a piece of payload, of which no more is written than `out` has room
    /// for. Gives how many bytes of the input it has used.
    fn step(&mut self, input: &[u8], out: &mut BytesMut) -> (usize, Step) {
        if self.rest > 0 {
            let room = out.capacity() - out.len();
            let len = input.len().min(room).min(usize::try_from(self.rest).unwrap_or(usize::MAX));
            let start = out.len();
            out.put_slice(&input[..len]);
            self.phase = unmask(&mut out[start..], self.mask, self.phase);
            self.rest -= len as u64;
            return (len, if len == 0 { Step::Incomplete } else { Step::Data });
        }
        let [first, second, ..] = *input else { return (0, Step::Incomplete) };
        let (fin, opcode) = (first & FIN != 0, first & 0x0f);
        let is_control = opcode >= CLOSE;
        if first & 0x70 != 0 {
            return (0, Step::Broken(PROTOCOL, "reserved bits are set"));
        }
        if second & 0x80 == 0 {
            return (0, Step::Broken(PROTOCOL, "a frame is not masked"));
        }
        match opcode {
            BINARY if !self.fragmented => {}
            CONTINUATION if self.fragmented => {}
            TEXT if !self.fragmented => {
                return (0, Step::Broken(UNSUPPORTED, "a text message; MQTT is sent in binary ones"));
            }
            CLOSE | PING | PONG if fin && usize::from(second & 0x7f) <= MAX_CONTROL => {}
            _ => return (0, Step::Broken(PROTOCOL, "a frame that may not stand here")),
        }
        let (header, len) = match (second & 0x7f, input) {
            (126, [_, _, a, b, ..]) => (4, u64::from(u16::from_be_bytes([*a, *b]))),
            (127, [_, _, a, b, c, d, e, f, g, h, ..]) => {
                (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
            }
            (126 | 127, _) => return (0, Step::Incomplete),
            (len, _) => (2, u64::from(len)),
        };
        let Some(&[a, b, c, d]) = input.get(header..header + 4) else { return (0, Step::Incomplete) };
        let (mask, header) = ([a, b, c, d], header + 4);
        if is_control {
            let Some(payload) = input.get(header..header + len as usize) else {
                return (0, Step::Incomplete);
            };
            let mut payload = payload.to_vec();
            unmask(&mut payload, mask, 0);
            return (header + payload.len(), Step::Control(opcode, payload.into()));
        }
        (self.rest, self.mask, self.phase, self.fragmented) = (len, mask, 0, !fin);
        (header, Step::Data)
    }
}

/// Takes the mask off; gives where in the mask the next byte is.
fn unmask(bytes: &mut [u8], mask: [u8; 4], phase: usize) -> usize {
    for (byte, key) in bytes.iter_mut().zip(mask.iter().cycle().skip(phase)) {
        *byte ^= key;
    }
    (phase + bytes.len()) % 4
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::mqtt::connection::farewell;
    use crate::mqtt::stream::Stream;

    /// A client's frame.
    fn frame(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        put_frame(&mut out, 0, payload);
        let header = out.len() - payload.len();
        (out[0], out[1]) = (first, out[1] | 0x80);
        let mut payload = payload.to_vec();
        unmask(&mut payload, mask, 0);
        [&out[..header], &mask[..], &payload].concat()
    }

    /// Everything that comes of an input that arrives in pieces of these lengths.
    fn decoded(input: &[u8], piece: usize, room: usize) -> (Vec<u8>, Vec<Step>) {
        let (mut decoder, mut data, mut steps) = (Decoder::default(), Vec::new(), Vec::new());
        let mut waiting = Vec::new();
        for piece in input.chunks(piece) {
            waiting.extend_from_slice(piece);
            loop {
                let mut out = BytesMut::with_capacity(room);
                let (used, step) = decoder.step(&waiting, &mut out);
                assert!(out.len() <= out.capacity());
                data.extend_from_slice(&out);
                waiting.drain(..used);
                match step {
                    Step::Data => {}
                    Step::Incomplete => break,
                    broken @ Step::Broken(..) => return (data, vec![broken]),
                    control => steps.push(control),
                }
            }
        }
        (data, steps)
    }

    proptest! {
        #[test]
        fn packets_are_the_same_however_frames_and_reads_are_cut(
            parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), any::<[u8; 4]>()), 1..8),
            piece in 1_usize..500,
            room in 1_usize..400,
        ) {
            let mut input = Vec::new();
            let mut expected = Vec::new();
            for (index, (payload, mask)) in parts.iter().enumerate() {
                let opcode = if index == 0 { BINARY } else { CONTINUATION };
                let fin = if index + 1 == parts.len() { FIN } else { 0 };
                input.extend(frame(fin | opcode, *mask, payload));
                input.extend(frame(FIN | PING, *mask, b"ping"));
                expected.extend_from_slice(payload);
            }
            let (data, steps) = decoded(&input, piece, room);
            prop_assert_eq!(data, expected);
            prop_assert_eq!(steps, vec![Step::Control(PING, Bytes::from_static(b"ping")); parts.len()]);
        }

        #[test]
        fn no_input_makes_it_panic_or_stand_still(input in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decoded(&input, 7, 64);
        }
    }

    /// A client's socket, and its server's end with these bytes behind the request.
    async fn both(early: &[u8]) -> (tokio::net::TcpStream, Stream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let io = Io::Plain(listener.accept().await.unwrap().0);
        (client, Stream::WebSocket(Box::new(WebSocket::new(io, Bytes::new(), early.into()))))
    }

    /// Reads until there is something, or the end. Fails when it is woken again and again without anything.
    async fn read(stream: &mut Stream) -> io::Result<Vec<u8>> {
        let mut bytes = BytesMut::with_capacity(1024);
        for _ in 0..100 {
            stream.readable().await?;
            match stream.try_read_buf(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.map(|_| bytes.to_vec()),
            }
        }
        panic!("it is readable, and there is nothing to read");
    }

    #[tokio::test]
    async fn part_of_a_header_waits_for_the_rest() {
        let whole = frame(FIN | BINARY, [1, 2, 3, 4], b"packet");
        for cut in 1..6 {
            // Behind the request, alone, and behind a whole frame.
            for before in [whole[..cut].to_vec(), Vec::new(), [&whole[..], &whole[..cut]].concat()] {
                let (mut client, mut stream) = both(&before).await;
                if before.is_empty() {
                    client.write_all(&whole[..cut]).await.unwrap();
                    stream.readable().await.unwrap();
                }
                if before.len() > cut {
                    assert_eq!(read(&mut stream).await.unwrap(), b"packet");
                }
                let idle = futures_util::FutureExt::now_or_never(read(&mut stream));
                assert!(idle.is_none(), "{cut}: {idle:?}");
                client.write_all(&whole[cut..]).await.unwrap();
                assert_eq!(read(&mut stream).await.unwrap(), b"packet", "{cut}");
            }
        }
    }

    #[tokio::test]
    async fn after_its_goodbye_what_a_client_sends_is_thrown_away_until_it_ends() {
        let close = frame(FIN | CLOSE, [0; 4], &NORMAL.to_be_bytes());
        for is_last_word in [true, false] {
            let (mut client, mut stream) = both(&[]).await;
            if is_last_word {
                let data = frame(FIN | BINARY, [0; 4], b"last");
                client.write_all(&[&data[..], &close, b"and more"].concat()).await.unwrap();
                assert_eq!(read(&mut stream).await.unwrap(), b"last");
                assert_eq!(read(&mut stream).await.unwrap(), b"", "the end is told");
            }
            stream.shut().await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, [0x88, 2, 0x03, 0xe8]);
            client.write_all(&frame(FIN | BINARY, [0; 4], &[7; 50_000])).await.unwrap();
            stream.readable().await.unwrap();
            let idle = futures_util::FutureExt::now_or_never(read(&mut stream));
            assert!(idle.is_none(), "it ends only with the socket: {idle:?}");
            client.shutdown().await.unwrap();
            assert_eq!(read(&mut stream).await.unwrap(), b"");
        }
    }

    #[tokio::test]
    async fn who_breaks_the_rules_hears_why_though_it_sends_on() {
        let (mut client, mut stream) = both(&frame(FIN | TEXT, [0; 4], b"x")).await;
        assert_eq!(read(&mut stream).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        client.write_all(&[7; 50_000]).await.unwrap();
        let farewell = tokio::spawn(farewell(stream, b"a packet that has no way any more"));
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, [0x88, 2, 0x03, 0xeb]);
        assert!(!farewell.is_finished(), "it waits for the client's end");
        drop(client);
        farewell.await.unwrap();
    }

    #[tokio::test]
    async fn pings_that_nobody_reads_the_answers_of_end_the_connection() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let io = Io::Plain(listener.accept().await.unwrap().0);
        let mut socket = WebSocket::new(io, Bytes::new(), BytesMut::new());
        let pings = frame(FIN | PING, [0; 4], &[7; MAX_CONTROL]).repeat(64);
        let mut bytes = BytesMut::with_capacity(1024);
        let error = loop {
            socket.input.extend_from_slice(&pings);
            match socket.try_read_buf(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => break read.unwrap_err(),
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(bytes.is_empty() && socket.output.len() < 2 * (MAX_WAITING + MAX_FRAME));
        drop(client);
    }

    #[test]
    fn what_breaks_the_rules_is_told_with_its_code() {
        let mask = [1, 2, 3, 4];
        let mut unmasked = frame(FIN | BINARY, mask, b"x");
        unmasked[1] &= 0x7f;
        let long_ping = frame(FIN | PING, mask, &[0; 126]);
        for (input, code) in [
            (frame(FIN | TEXT, mask, b"x"), UNSUPPORTED),
            (frame(FIN | CONTINUATION, mask, b"x"), PROTOCOL),
            ([frame(BINARY, mask, b"x"), frame(FIN | BINARY, mask, b"x")].concat(), PROTOCOL),
            (frame(FIN | 0x40 | BINARY, mask, b"x"), PROTOCOL),
            (frame(FIN | 0x3, mask, b"x"), PROTOCOL),
            (frame(PING, mask, b"x"), PROTOCOL),
            (long_ping, PROTOCOL),
            (unmasked, PROTOCOL),
        ] {
            let (_, steps) = decoded(&input, 1, 64);
            assert!(
                matches!(steps[..], [Step::Broken(found, _)] if found == code),
                "{input:02x?}: {steps:?}"
            );
        }
    }
}
