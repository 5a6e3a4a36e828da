//! RFC 6455 against a path that gives everything back: frames byte by byte, as lawful and unlawful clients send them.
//!
//! What a client has said is answered before the connection is closed, whoever closes it; nothing is answered after that.

use std::io::Write as _;
use std::time::Instant;

use crate::backend::{Backend, http, start};
use crate::common::{LIMIT, Socket, TestServer};

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
/// The last frame of a message.
const FIN: u8 = 0x80;
/// Set by nobody who has not agreed on what it means.
const RSV1: u8 = 0x40;
const RSV2: u8 = 0x20;
const RSV3: u8 = 0x10;

/// A masked frame. Its length has the shortest form, unless `form` says 126 or 127.
fn frame_of(form: Option<u8>, first: u8, payload: &[u8]) -> Vec<u8> {
    let len = payload.len();
    let shortest = match len {
        0..=125 => len as u8,
        126..=65_535 => 126,
        _ => 127,
    };
    let form = form.unwrap_or(shortest);
    let mut out = vec![first, 0x80 | form];
    match form {
        126 => out.extend((len as u16).to_be_bytes()),
        127 => out.extend((len as u64).to_be_bytes()),
        _ => {}
    }
    let mask = [0x37, 0xfa, 0x00, 0x3d];
    out.extend(mask);
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    out
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    frame_of(None, first, payload)
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// The server, and its echo.
struct Echo {
    server: TestServer,
    _backend: Backend,
}

impl Echo {
    /// One whose path has these limits, in the words of the document.
    fn with_limits(limits: &str) -> Self {
        let backend = Backend::start(|asked| {
            let kind = asked.headers.get("content-type").cloned().unwrap_or_default();
            let more = format!("content-type: {kind}\r\nx-triggercast-send-empty: true\r\n");
            Some(("200 OK", more, asked.body.clone()))
        });
        let limits = format!("    x-triggercast-path: {{ limits: {{ {limits} }} }}\n");
        let server = start(backend.address, &format!("  /echo:\n{limits}{}", http("message", "")));
        Self { server, _backend: backend }
    }

    fn start() -> Self {
        Self::with_limits("frames_per_second: 1000000, bytes_per_second: 1000000000")
    }

    fn connect(&self) -> Socket {
        self.server.websocket("/echo")
    }

    /// Sends everything at once, and reads to the server's end.
    fn say(&self, bytes: &[u8]) -> Heard {
        let mut client = self.connect();
        client.io.write_all(bytes).unwrap();
        hear(&mut client)
    }
}

/// What came from the server up to its end, or to its close frame.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    /// Messages, joined, and pongs: first byte without FIN, payload.
    said: Vec<(u8, Vec<u8>)>,
    /// The payload of the close frame.
    close: Vec<u8>,
}

impl Heard {
    fn new(said: &[(u8, &[u8])], close: &[u8]) -> Self {
        Self {
            said: said.iter().map(|(first, payload)| (*first, payload.to_vec())).collect(),
            close: close.to_vec(),
        }
    }

    /// The code of the close frame.
    fn code(&self) -> u16 {
        u16::from_be_bytes([self.close[0], self.close[1]])
    }
}

/// Reads to the close frame, behind which nothing may come.
fn hear(client: &mut Socket) -> Heard {
    let mut said = Vec::new();
    loop {
        match unit(client) {
            (CLOSE, close) => {
                assert!(client.at_end(), "something follows the close frame");
                return Heard { said, close };
            }
            other => said.push(other),
        }
    }
}

/// The next control frame or whole message, without FIN.
fn unit(client: &mut Socket) -> (u8, Vec<u8>) {
    let (first, mut payload) = client.frame();
    let mut last = first;
    while last & FIN == 0 {
        let (next, part) = client.frame();
        assert_eq!(next & !FIN, CONTINUATION);
        payload.extend(part);
        last = next;
    }
    (first & !FIN, payload)
}

/// A close frame's payload: normal closure.
const NORMAL: &[u8] = &[0x03, 0xe8];

#[test]
fn every_length_comes_back_in_every_form_and_however_it_is_cut() {
    let echo = Echo::with_limits(
        "message_bytes: 1048576, frame_bytes: 1048576, frames_per_second: 1000000, bytes_per_second: 1000000000",
    );
    let mut client = echo.connect();
    for len in
        [0usize, 1, 124, 125, 126, 127, 128, 1000, 32_767, 32_768, 32_769, 65_535, 65_536, 65_537, 200_001]
    {
        let text: Vec<u8> = (0..len).map(|at| b'a' + (at % 26) as u8).collect();
        // Longer forms than need be are lawful for who reads: the RFC asks the sender only.
        let forms = [None, (len <= 65_535).then_some(126), Some(127)];
        for form in forms.into_iter().filter(|form| form.is_none() || len < 2000) {
            for opcode in [TEXT, BINARY] {
                client.io.write_all(&frame_of(form, FIN | opcode, &text)).unwrap();
                assert_eq!(unit(&mut client), (opcode, text.clone()), "{len} {form:?} {opcode}");
            }
        }
        for chop in [1, 997] {
            if len / chop > 2000 {
                continue;
            }
            for piece in frame(FIN | TEXT, &text).chunks(chop) {
                client.io.write_all(piece).unwrap();
            }
            assert_eq!(unit(&mut client), (TEXT, text.clone()), "{len} in pieces of {chop}");
        }
    }
    client.io.write_all(&close(1000, b"")).unwrap();
    assert_eq!(hear(&mut client), Heard::new(&[], NORMAL));
}

#[test]
fn lengths_that_cannot_be_are_refused_by_their_header() {
    let echo = Echo::start();
    for (what, header, code) in [
        ("the highest bit of 64", &[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1][..], 1009),
        ("all bits of 64", &[0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255], 1009),
        ("a ping with 126 bytes", &[0x89, 0xfe, 0, 126], 1002),
        ("a close frame with a length of 64 bits", &[0x88, 0xff, 0, 0, 0, 0, 0, 0, 0, 2], 1002),
        ("a message that is not masked", &[0x81, 1, b'a'], 1002),
        ("a ping that is not masked", &[0x89, 0], 1002),
    ] {
        assert_eq!(echo.say(header).code(), code, "{what}");
    }
}

#[test]
fn pings_are_answered_in_order_and_pongs_are_not() {
    let echo = Echo::start();
    let mut client = echo.connect();
    let longest = [0xfe; 125];
    for payload in [&b""[..], b"hello", b"\x00\xff\xfe\xfd", &longest] {
        client.io.write_all(&frame(FIN | PING, payload)).unwrap();
        assert_eq!(unit(&mut client), (PONG, payload.to_vec()));
        for byte in frame(FIN | PING, payload) {
            client.io.write_all(&[byte]).unwrap();
        }
        assert_eq!(unit(&mut client), (PONG, payload.to_vec()));
    }
    let ten: Vec<Vec<u8>> = (0..10).map(|n| format!("ping {n}").into_bytes()).collect();
    let pings: Vec<u8> = ten.iter().flat_map(|payload| frame(FIN | PING, payload)).collect();
    client.io.write_all(&pings).unwrap();
    for payload in &ten {
        assert_eq!(unit(&mut client), (PONG, payload.clone()));
    }
    let unsolicited =
        [frame(FIN | PONG, b""), frame(FIN | PONG, b"unasked"), frame(FIN | PING, b"asked")].concat();
    client.io.write_all(&unsolicited).unwrap();
    assert_eq!(unit(&mut client), (PONG, b"asked".to_vec()));
    client.io.write_all(&[pings, close(1000, b"")].concat()).unwrap();
    let heard = hear(&mut client);
    assert_eq!((heard.said.len(), heard.close.as_slice()), (10, NORMAL), "pongs come before the close frame");
}

#[test]
fn reserved_bits_and_opcodes_end_the_connection_after_what_came_before() {
    let echo = Echo::start();
    let mut firsts = Vec::new();
    for bits in [RSV1, RSV2, RSV3, RSV1 | RSV2, RSV1 | RSV3, RSV2 | RSV3, RSV1 | RSV2 | RSV3] {
        firsts.extend([TEXT, BINARY, PING, PONG, CLOSE].map(|opcode| FIN | bits | opcode));
    }
    firsts.extend([0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf].map(|opcode| FIN | opcode));
    for first in firsts {
        for payload in [&b""[..], b"payload"] {
            let said = [
                frame(FIN | TEXT, b"before"),
                frame(first, payload),
                frame(FIN | PING, b""),
                frame(FIN | TEXT, b"after"),
            ];
            let heard = echo.say(&said.concat());
            assert_eq!(heard.said, [(TEXT, b"before".to_vec())], "{first:02x}");
            assert_eq!(heard.code(), 1002, "{first:02x}");
        }
    }
    // A client that sends on is not answered either; it gets the close frame all the same.
    let heard = echo.say(&[frame(FIN | PING, b"1"), frame(0x83, b""), frame(FIN | PING, b"2")].concat());
    assert_eq!((heard.said.as_slice(), heard.code()), (&[(PONG, b"1".to_vec())][..], 1002));
}

#[test]
fn fragments_are_joined_around_control_frames() {
    let echo = Echo::start();
    let pings = |opcode: u8, parts: &[&[u8]]| {
        let last = parts.len() - 1;
        let part = |(at, part): (usize, &&[u8])| {
            let first = if at == 0 { opcode } else { CONTINUATION } | if at == last { FIN } else { 0 };
            [frame(first, part), if at == last { Vec::new() } else { frame(FIN | PING, &[at as u8]) }]
                .concat()
        };
        parts.iter().enumerate().flat_map(part).collect::<Vec<u8>>()
    };
    for (parts, pongs) in [
        (&[&b"one"[..], b"two"][..], 1),
        (&[b"", b"", b""], 2),
        (&[b"a", b"", b"b", b"", b"c"], 4),
        (&["é€😀".as_bytes()[..1].as_ref(), &"é€😀".as_bytes()[1..6], &"é€😀".as_bytes()[6..]], 2),
    ] {
        for opcode in [TEXT, BINARY] {
            let said = [pings(opcode, parts), close(1000, b"")].concat();
            let mut expected: Vec<_> = (0..pongs).map(|at| (PONG, vec![at])).collect();
            expected.push((opcode, parts.concat()));
            assert_eq!(echo.say(&said), Heard { said: expected, close: NORMAL.to_vec() });
            // The same byte by byte.
            let mut client = echo.connect();
            said.iter().for_each(|byte| client.io.write_all(&[*byte]).unwrap());
            let heard = hear(&mut client);
            assert_eq!(
                (heard.said.last(), heard.close.as_slice()),
                (Some(&(opcode, parts.concat())), NORMAL)
            );
        }
    }
    // Many small ones: as many as the message has bytes.
    let mut client = echo.connect();
    let small = [frame(TEXT, b"x"), frame(CONTINUATION, b"x").repeat(9_998), frame(FIN, b"x")].concat();
    client.io.write_all(&small).unwrap();
    assert_eq!(unit(&mut client), (TEXT, vec![b'x'; 10_000]));
}

#[test]
fn fragments_in_a_wrong_order_end_the_connection() {
    let echo = Echo::start();
    let whole = frame(FIN | TEXT, b"whole");
    for (what, bytes, said) in [
        ("a last fragment of nothing", frame(FIN, b"x"), 0),
        ("a fragment of nothing", frame(CONTINUATION, b"x"), 0),
        ("a last fragment after a whole message", [whole.clone(), frame(FIN, b"x")].concat(), 1),
        ("a message within a message", [frame(TEXT, b"x"), whole.clone()].concat(), 0),
        ("a begin within a message", [frame(TEXT, b"x"), frame(TEXT, b"y")].concat(), 0),
        ("binary within text", [frame(TEXT, b"x"), frame(FIN | BINARY, b"y")].concat(), 0),
        ("text within binary", [frame(BINARY, b"x"), frame(BINARY, b"y")].concat(), 0),
        (
            "a fragment after the last one",
            [frame(TEXT, b"x"), frame(FIN, b"y"), frame(CONTINUATION, b"z")].concat(),
            1,
        ),
        ("a ping in fragments", [frame(PING, b"x"), frame(FIN, b"y")].concat(), 0),
        ("a pong in fragments", [frame(PONG, b"x"), frame(FIN, b"y")].concat(), 0),
        ("a close frame in fragments", [frame(CLOSE, NORMAL), frame(FIN, b"y")].concat(), 0),
    ] {
        let heard = echo.say(&bytes);
        assert_eq!((heard.said.len(), heard.code()), (said, 1002), "{what}");
    }
}

/// What is UTF-8: the first and the last of each length, and around the surrogates.
const VALID: [&[u8]; 15] = [
    b"",
    b"\0",
    b"\x7f",
    b"\xc2\x80",
    b"\xdf\xbf",
    b"\xe0\xa0\x80",
    b"\xed\x9f\xbf",
    b"\xee\x80\x80",
    b"\xef\xbf\xbd",
    b"\xef\xbf\xbf",
    b"\xf0\x90\x80\x80",
    b"\xf0\x9f\x98\x80",
    b"\xf3\xa0\x80\x81",
    b"\xf4\x8f\xbf\xbe",
    b"\xf4\x8f\xbf\xbf",
];

/// What is not, and how many bytes of it could still begin a text.
const INVALID: [(&[u8], usize); 22] = [
    (b"\x80", 0),
    (b"\xbf", 0),
    (b"\xc0\x80", 0),
    (b"\xc1\xbf", 0),
    (b"\xc2 ", 1),
    (b"\xc2\xc2", 1),
    (b"\xe0\x80\x80", 1),
    (b"\xe0\x9f\xbf", 1),
    (b"\xe2\x82 ", 2),
    (b"\xe2(\xa1", 1),
    (b"\xed\xa0\x80", 1),
    (b"\xed\xbf\xbf", 1),
    (b"\xed\xa0\xb4\xed\xb4\x9e", 1),
    (b"\xf0\x80\x80\x80", 1),
    (b"\xf0\x8f\xbf\xbf", 1),
    (b"\xf0\x9f\x98a", 3),
    (b"\xf4\x90\x80\x80", 1),
    (b"\xf5\x80\x80\x80", 0),
    (b"\xf8\x88\x80\x80\x80", 0),
    (b"\xfc\x84\x80\x80\x80\x80", 0),
    (b"\xfe", 0),
    (b"\xff", 0),
];

#[test]
fn text_that_is_utf8_comes_back_however_it_is_split() {
    let echo = Echo::start();
    let mut client = echo.connect();
    for text in VALID {
        let text = [b"<", text, ">κόσμε".as_bytes()].concat();
        let whole = frame(FIN | TEXT, &text);
        client.io.write_all(&whole).unwrap();
        assert_eq!(unit(&mut client), (TEXT, text.clone()));
        for cut in 0..=text.len() {
            let parts = [frame(TEXT, &text[..cut]), frame(FIN, &text[cut..])].concat();
            client.io.write_all(&parts).unwrap();
            assert_eq!(unit(&mut client), (TEXT, text.clone()), "cut at {cut}");
        }
        for byte in &whole {
            client.io.write_all(&[*byte]).unwrap();
        }
        assert_eq!(unit(&mut client), (TEXT, text.clone()));
        let single: Vec<u8> = text.iter().flat_map(|byte| frame(CONTINUATION, &[*byte])).collect();
        client.io.write_all(&[frame(TEXT, b""), single, frame(FIN, b"")].concat()).unwrap();
        assert_eq!(unit(&mut client), (TEXT, text));
    }
}

#[test]
fn text_that_is_not_utf8_is_refused_at_the_byte_that_shows_it() {
    let echo = Echo::start();
    for (text, good) in INVALID {
        // As binary it is as good as anything.
        let mut client = echo.connect();
        client.io.write_all(&frame(FIN | BINARY, text)).unwrap();
        assert_eq!(unit(&mut client), (BINARY, text.to_vec()));
        client.io.write_all(&frame(FIN | TEXT, &[b"before", text, b"after"].concat())).unwrap();
        assert_eq!(hear(&mut client).code(), 1007, "{text:x?}");

        for cut in 0..=text.len() {
            let parts =
                [frame(TEXT, &text[..cut]), frame(FIN | PING, b""), frame(FIN, &text[cut..])].concat();
            let heard = echo.say(&parts);
            assert_eq!(
                (heard.said.len(), heard.code()),
                (usize::from(cut <= good), 1007),
                "{text:x?} cut at {cut}"
            );
        }

        // The rest of the frame, and of the message, never comes: the byte alone is enough.
        let mut client = echo.connect();
        let long = frame(FIN | TEXT, &[b"<", text, &[b'x'; 1000]].concat());
        let shown = 8 + 1 + good;
        client.io.write_all(&long[..shown]).unwrap();
        client.io.write_all(&long[shown..=shown]).unwrap();
        assert_eq!(hear(&mut client).code(), 1007, "{text:x?}");
        let mut client = echo.connect();
        client.io.write_all(&frame(TEXT, &text[..=good])).unwrap();
        assert_eq!(hear(&mut client).code(), 1007, "{text:x?}");
    }
    // What breaks off is not text, though nothing of it is wrong.
    for text in [&b"\xc2"[..], b"\xe2\x82", b"a\xf0\x9f\x98"] {
        assert_eq!(echo.say(&frame(FIN | TEXT, text)).code(), 1007);
        assert_eq!(echo.say(&[frame(TEXT, text), frame(FIN, b"")].concat()).code(), 1007);
    }
}

#[test]
fn close_frames_are_answered_with_their_code_or_refused() {
    let echo = Echo::start();
    for code in
        [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999u16]
    {
        for reason in [&b""[..], b"enough", "κόσμε".as_bytes(), &[b'x'; 123]] {
            assert_eq!(echo.say(&close(code, reason)), Heard::new(&[], &code.to_be_bytes()), "{code}");
        }
    }
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535u16] {
        for reason in [&b""[..], b"enough"] {
            assert_eq!(echo.say(&close(code, reason)).code(), 1002, "{code}");
        }
    }
    assert_eq!(echo.say(&frame(FIN | CLOSE, b"")), Heard::new(&[], b""), "no code is answered with none");
    assert_eq!(echo.say(&frame(FIN | CLOSE, b"\x03")).code(), 1002, "half a code");
    for (text, _) in INVALID {
        assert_eq!(echo.say(&close(1000, text)).code(), 1002, "a reason that is not UTF-8: {text:x?}");
    }
    assert_eq!(echo.say(&close(1000, &[b'x'; 124])).code(), 1002, "a control frame over 125 bytes");
}

#[test]
fn what_was_said_is_answered_before_the_end_and_nothing_after_it() {
    let echo = Echo::start();
    let end = close(1000, b"");
    let messages = [frame(FIN | TEXT, b"one"), frame(FIN | BINARY, b"two"), frame(FIN | TEXT, b"")].concat();
    let answers: &[(u8, &[u8])] = &[(TEXT, b"one"), (BINARY, b"two"), (TEXT, b"")];
    for (what, after) in [
        ("nothing", Vec::new()),
        ("a message", frame(FIN | TEXT, b"late")),
        ("a ping", frame(FIN | PING, b"late")),
        ("a second close frame", close(1001, b"")),
        ("what is not lawful", vec![0xff; 100]),
        ("much", frame(FIN | BINARY, &[7; 30_000]).repeat(10)),
    ] {
        // What came late may still be on its way when the socket is closed, so the end may be a reset.
        let mut client = echo.connect();
        client.io.write_all(&[&messages[..], &end, &after].concat()).unwrap();
        let mut said = Vec::new();
        let close = loop {
            match unit(&mut client) {
                (CLOSE, close) => break close,
                other => said.push(other),
            }
        };
        assert_eq!(Heard { said, close }, Heard::new(answers, NORMAL), "{what} after the close frame");
    }
    // A message that is begun is given up.
    assert_eq!(
        echo.say(&[frame(TEXT, b"begun"), end.clone(), frame(FIN, b"end")].concat()),
        Heard::new(&[], NORMAL)
    );
    // A client that sends nothing more hears the answers as well.
    let mut client = echo.connect();
    client.io.write_all(&[&messages[..], &end].concat()).unwrap();
    client.io.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(hear(&mut client), Heard::new(answers, NORMAL));
}

#[test]
fn answers_that_do_not_come_hold_up_the_end_for_some_seconds_only() {
    let silent = Backend::start(|_| None);
    let server = start(silent.address, &format!("  /echo:\n{}", http("message", ", timeouts: { read: 60 }")));
    for end in [close(4000, b""), frame(0x83, b"")] {
        let mut client = server.websocket("/echo");
        client.io.write_all(&[frame(FIN | TEXT, b"hello"), end].concat()).unwrap();
        let begun = Instant::now();
        let (first, payload) = unit(&mut client);
        assert_eq!(first, CLOSE);
        assert!([4000, 1002].contains(&u16::from_be_bytes([payload[0], payload[1]])));
        assert!(begun.elapsed() < LIMIT / 2);
    }
}

#[test]
fn a_long_answer_does_not_make_a_flood_of_the_pings_beside_it() {
    let echo = Echo::with_limits(
        "message_bytes: 8388608, frame_bytes: 8388608, frames_per_second: 1000000, bytes_per_second: 1000000000",
    );
    let mut client = echo.connect();
    let long = vec![7; 8 << 20];
    client.io.write_all(&frame(FIN | BINARY, &long)).unwrap();
    // The answer has begun when it shows; it is far longer than what sockets hold.
    assert!(client.comes_within(LIMIT));
    client.io.write_all(&frame(FIN | PING, b"there?")).unwrap();
    assert_eq!(unit(&mut client), (BINARY, long));
    assert_eq!(unit(&mut client), (PONG, b"there?".to_vec()));
}
