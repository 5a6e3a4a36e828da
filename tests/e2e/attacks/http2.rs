//! Floods of HTTP/2 frames on the gRPC port, from clients that nobody knows.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::{grown, telemetry};
use crate::common::{LIMIT, TestServer};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const CONTINUATION: u8 = 9;

/// `POST`, `http`, `/`, and an authority, from the table that all know.
const REQUEST: &[u8] = &[0x83, 0x86, 0x84, 0x41, 1, b'h'];

/// The bytes of each step of a flood.
type Flood = Box<dyn Fn(u32) -> Vec<u8>>;

fn server() -> TestServer {
    TestServer::start(
        &telemetry().replace("grpc_listen: \"127.0.0.1:0\"", "grpc_listen: \"127.0.0.1:0\", tls: off"),
    )
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A connection that has said hello.
fn open(server: &TestServer) -> TcpStream {
    let mut io = TcpStream::connect(server.grpc).unwrap();
    io.set_read_timeout(Some(LIMIT)).unwrap();
    io.set_write_timeout(Some(LIMIT)).unwrap();
    io.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).unwrap();
    io
}

/// The next frame: kind, stream, payload; none at the end.
fn next(io: &mut TcpStream) -> Option<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    io.read_exact(&mut head).ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    io.read_exact(&mut payload).ok()?;
    Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
}

/// Whether the server has ended the connection, by GOAWAY or at once.
fn is_ended(io: &mut TcpStream) -> bool {
    loop {
        match next(io) {
            Some((GO_AWAY, ..)) | None => return true,
            Some(_) => {}
        }
    }
}

#[test]
fn limits_are_told_and_held() {
    let server = server();
    let mut io = open(&server);
    let settings = loop {
        match next(&mut io).unwrap() {
            (SETTINGS, _, settings) if !settings.is_empty() => break settings,
            _ => {}
        }
    };
    let of = |id: u16| {
        settings
            .chunks(6)
            .find(|one| one[..2] == id.to_be_bytes())
            .map(|one| u32::from_be_bytes([one[2], one[3], one[4], one[5]]))
    };
    assert_eq!((of(3), of(6)), (Some(64), Some(16_384)), "streams, and bytes of headers");
    // Streams over the limit are refused, and the others stay. They come at once: one that is answered makes room.
    let streams: Vec<u8> = (0..80).flat_map(|stream| frame(HEADERS, 4, 2 * stream + 1, REQUEST)).collect();
    io.write_all(&streams).unwrap();
    let refused = loop {
        match next(&mut io).unwrap() {
            (RESET, stream, code) if code == [0, 0, 0, 7] => break stream,
            (GO_AWAY, _, why) => panic!("{why:?}"),
            _ => {}
        }
    };
    assert!(refused > 128, "{refused}");
}

#[test]
fn floods_of_frames_are_ended_and_not_kept() {
    let server = server();
    let before = server.resident_kib();
    let floods: [(&str, Flood); 5] = [
        (
            "streams that are given up at once",
            Box::new(|n| {
                [frame(HEADERS, 4, 2 * n + 1, REQUEST), frame(RESET, 0, 2 * n + 1, &[0, 0, 0, 8])].concat()
            }),
        ),
        (
            "headers that go on and on",
            Box::new(|n| match n {
                0 => frame(HEADERS, 0, 1, REQUEST),
                _ => frame(
                    CONTINUATION,
                    0,
                    1,
                    &[&[0x40, 1, b'x', 0x7f, 0xa1, 0x7e][..], &[b'y'; 16_288]].concat(),
                ),
            }),
        ),
        (
            "continuations of nothing",
            Box::new(|n| if n == 0 { frame(HEADERS, 0, 1, REQUEST) } else { frame(CONTINUATION, 0, 1, &[]) }),
        ),
        ("streams that go back", Box::new(|n| frame(HEADERS, 5, if n == 0 { 9 } else { 1 }, REQUEST))),
        (
            "frames of a gibibyte",
            Box::new(|_| [&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1][..], &[0; 1000]].concat()),
        ),
    ];
    for (what, flood) in floods {
        let mut io = open(&server);
        let mut reader = io.try_clone().unwrap();
        let ended = std::thread::spawn(move || is_ended(&mut reader));
        let sent =
            (0..20_000).take_while(|n| !ended.is_finished() && io.write_all(&flood(*n)).is_ok()).count();
        assert!(ended.join().unwrap() && sent < 20_000, "{what}: {sent}");
    }
    // Pings and settings are answered, but answers that nobody reads are not kept.
    for (what, one) in [("pings", frame(PING, 0, 0, &[7; 8])), ("settings", frame(SETTINGS, 0, 0, &[]))] {
        let mut io = open(&server);
        io.set_write_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        let many = one.repeat(1000);
        let sent = (0..20_000).take_while(|_| io.write_all(&many).is_ok()).count();
        assert!(sent < 20_000, "{what}");
        assert!(grown(&server, before) < 48 * 1024, "{what}: {} KiB", grown(&server, before));
    }
    assert!(grown(&server, before) < 48 * 1024, "{} KiB", grown(&server, before));
    let mut io = open(&server);
    io.write_all(&frame(PING, 0, 0, &[7; 8])).unwrap();
    while next(&mut io).unwrap().0 != PING {}
}
