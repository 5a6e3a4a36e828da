//! Handshakes that are malformed, doubled, smuggled, slow or large.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::{ask, grown, server, statuses, still_serves};
use crate::common::{LIMIT, Socket};

const KEY: &str = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
/// A close frame, so that a connection that was let in ends too.
const CLOSE: &[u8] = &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];

/// A request with these lines, and a close frame behind it.
fn request(first: &str, lines: &[&str]) -> Vec<u8> {
    let head = format!("{first}\r\n{}\r\n", lines.concat());
    [head.as_bytes(), CLOSE].concat()
}

/// What it is, the bytes, and the statuses that may come back.
type Case = (&'static str, Vec<u8>, &'static [&'static [u16]]);

#[test]
fn no_request_gets_two_answers() {
    let server = server();
    let mut client = server.websocket("/ws");
    const GET: &str = "GET /main/ws HTTP/1.1";
    const HOST: &str = "Host: h\r\n";
    let lawful = [HOST, UPGRADE, VERSION, KEY];
    let with = |more: &str| request(GET, &[HOST, UPGRADE, VERSION, KEY, more]);
    let behind = |more: &[u8]| [&request(GET, &lawful)[..], more].concat();
    let second = b"GET /main/none HTTP/1.1\r\nHost: h\r\n\r\n";
    // What is sent, and the statuses of the answers that may come; none: it is closed without one. What asks for no
    // WebSocket is a plain request, and the close frame behind it another, which is bad.
    let cases: Vec<Case> = vec![
        ("a lawful one", request(GET, &lawful), &[&[101]]),
        ("in absolute form", request("GET http://h/main/ws HTTP/1.1", &lawful), &[&[101]]),
        (
            "words in other cases",
            request(
                GET,
                &["hOST: h\r\n", "UPGRADE: WebSocket\r\nconnection: keep-alive, upgrade\r\n", VERSION, KEY],
            ),
            &[&[101]],
        ),
        ("a frame behind it", behind(b"\x89\x80\0\0\0\0"), &[&[101]]),
        (
            "a request behind it",
            [&request(GET, &lawful)[..request(GET, &lawful).len() - CLOSE.len()], second].concat(),
            &[&[101]],
        ),
        ("a request in its body", with("Content-Length: 37\r\n"), &[&[400], &[101]]),
        ("no key", request(GET, &[HOST, UPGRADE, VERSION]), &[&[400]]),
        ("an empty key", request(GET, &[HOST, UPGRADE, VERSION, "Sec-WebSocket-Key:\r\n"]), &[&[400]]),
        ("a short key", request(GET, &[HOST, UPGRADE, VERSION, "Sec-WebSocket-Key: AAAA\r\n"]), &[&[400]]),
        (
            "a long key",
            request(GET, &[HOST, UPGRADE, VERSION, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n"]),
            &[&[400]],
        ),
        (
            "a key that is not base64",
            request(GET, &[HOST, UPGRADE, VERSION, "Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!==\r\n"]),
            &[&[400]],
        ),
        (
            "a key of 300 KiB",
            request(
                GET,
                &[HOST, UPGRADE, VERSION, &format!("Sec-WebSocket-Key: {}\r\n", "A".repeat(300_000))],
            ),
            &[&[400], &[431], &[]],
        ),
        ("no version", request(GET, &[HOST, UPGRADE, KEY]), &[&[400], &[426]]),
        ("version 8", request(GET, &[HOST, UPGRADE, KEY, "Sec-WebSocket-Version: 8\r\n"]), &[&[426]]),
        ("two versions", request(GET, &[HOST, UPGRADE, KEY, "Sec-WebSocket-Version: 13, 8\r\n"]), &[&[426]]),
        ("no Host", request(GET, &[UPGRADE, VERSION, KEY]), &[&[400]]),
        ("two hosts", with("Host: other\r\n"), &[&[400]]),
        ("no Upgrade", request(GET, &[HOST, "Connection: Upgrade\r\n", VERSION, KEY]), &[&[426, 400]]),
        (
            "an upgrade to h2c",
            request(
                GET,
                &[
                    HOST,
                    "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n",
                ],
            ),
            &[&[426, 400]],
        ),
        (
            "no Connection",
            request(GET, &[HOST, "Upgrade: websocket\r\n", VERSION, KEY]),
            &[&[400], &[426, 400]],
        ),
        (
            "Connection: close",
            request(GET, &[HOST, "Upgrade: websocket\r\nConnection: close\r\n", VERSION, KEY]),
            &[&[400], &[426]],
        ),
        ("HTTP/1.0", request("GET /main/ws HTTP/1.0", &lawful), &[&[400]]),
        (
            "HTTP/1.0, and one more behind",
            [request("GET /main/ws HTTP/1.0", &lawful), second.to_vec()].concat(),
            &[&[400]],
        ),
        ("HTTP/0.9", b"GET /main/ws\r\n\r\n".to_vec(), &[&[400], &[]]),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &[&[400], &[505], &[]]),
        ("HTTP/9.9", request("GET /main/ws HTTP/9.9", &lawful), &[&[400], &[505], &[]]),
        ("POST", request("POST /main/ws HTTP/1.1", &lawful), &[&[405]]),
        (
            "a method of 10 KiB",
            request(&format!("{} /main/ws HTTP/1.1", "G".repeat(10_000)), &lawful),
            &[&[400], &[405], &[]],
        ),
        ("CONNECT", request("CONNECT /main/ws HTTP/1.1", &lawful), &[&[400], &[404], &[405]]),
        ("CONNECT to a host", request("CONNECT 127.0.0.1:22 HTTP/1.1", &[HOST]), &[&[400], &[404], &[405]]),
        ("a star", request("OPTIONS * HTTP/1.1", &lawful), &[&[400], &[404], &[405]]),
        ("CL and TE", with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), &[&[400]]),
        ("two lengths", with("Content-Length: 5\r\nContent-Length: 6\r\n"), &[&[400]]),
        ("two lengths in one", with("Content-Length: 5, 6\r\n"), &[&[400]]),
        ("a negative length", with("Content-Length: -1\r\n"), &[&[400]]),
        ("a length with a sign", with("Content-Length: +5\r\n"), &[&[400]]),
        ("an endless length", with("Content-Length: 99999999999999999999999\r\n"), &[&[400]]),
        ("another coding", with("Transfer-Encoding: xchunked\r\n"), &[&[400]]),
        ("two codings", with("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"), &[&[400]]),
        ("a space before the colon", with("Content-Length : 5\r\n"), &[&[400]]),
        ("a folded line", with("X: a\r\n b\r\n"), &[&[400]]),
        ("a null in a header", with("X: a\0b\r\n"), &[&[400]]),
        ("an escape in a header", with("X: \u{1b}[31m\r\n"), &[&[400]]),
        ("a header without a name", with(": x\r\n"), &[&[400]]),
        ("only carriage returns", b"GET /main/ws HTTP/1.1\rHost: h\r\r".to_vec(), &[&[400]]),
        ("spaces", vec![b' '; 100], &[&[400], &[]]),
        ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), &[&[400], &[]]),
        ("nulls", vec![0; 4096], &[&[400], &[]]),
        ("MQTT", b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0".to_vec(), &[&[400], &[]]),
        (
            "a refused one, and one more behind",
            [request("GET /main/none HTTP/1.1", &lawful), second.to_vec()].concat(),
            &[&[404]],
        ),
    ];
    assert!(cases.len() >= 45);
    let gateway = server.gateway;
    let asked: Vec<_> = cases
        .into_iter()
        .map(|(what, bytes, expected)| (what, expected, thread::spawn(move || ask(gateway, &bytes))))
        .collect();
    for (what, expected, answer) in asked {
        let answer = answer.join().unwrap();
        let found = statuses(&answer);
        assert!(expected.contains(&&found[..]), "{what}: {found:?} {}", String::from_utf8_lossy(&answer));
    }
    still_serves(&server, &mut client, LIMIT);
    let metrics = server.get("/metrics").1;
    let panics: Vec<_> = metrics.lines().filter(|line| line.contains("actor_panics_total{")).collect();
    assert!(!panics.is_empty() && panics.iter().all(|line| line.ends_with(" 0")), "{panics:?}");
}

#[test]
fn a_handshake_that_drips_is_ended() {
    let server = server();
    let start = Instant::now();
    let drips: Vec<_> = (0..20)
        .map(|_| {
            let mut io = TcpStream::connect(server.gateway).unwrap();
            io.set_read_timeout(Some(LIMIT)).unwrap();
            thread::spawn(move || {
                let mut out = io.try_clone().unwrap();
                let dripping = thread::spawn(move || {
                    for byte in
                        b"GET /main/ws HTTP/1.1\r\nHost: h\r\nX-Long: ".iter().chain([b'x'; 4000].iter())
                    {
                        if out.write_all(&[*byte]).is_err() {
                            return;
                        }
                        thread::sleep(Duration::from_millis(20));
                    }
                });
                let mut answer = Vec::new();
                let _ = io.read_to_end(&mut answer);
                drop(io);
                dripping.join().unwrap();
                answer
            })
        })
        .collect();
    // Those who are quicker do not wait for them.
    let mut client = server.websocket("/ws");
    still_serves(&server, &mut client, LIMIT);
    for drip in drips {
        let found = statuses(&drip.join().unwrap());
        assert!(found == [408] || found.is_empty(), "{found:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn heads_without_end_are_refused_and_not_kept() {
    let server = server();
    let mut client = server.websocket("/ws");
    let before = server.resident_kib();
    let gateway = server.gateway;
    let many = |lines: usize| format!("GET /main/ws HTTP/1.1\r\nHost: h\r\n{}", "X: y\r\n".repeat(lines));
    let long = format!("GET /main/ws HTTP/1.1\r\nHost: h\r\nX: {}", "y".repeat(1 << 20));
    let target = format!("GET /main/{} HTTP/1.1\r\nHost: h\r\n\r\n", "y".repeat(1 << 20));
    for text in [many(5000) + "\r\n", many(100_000), long, target] {
        let asked: Vec<_> = (0..20)
            .map(|_| {
                let text = text.clone();
                thread::spawn(move || ask(gateway, text.as_bytes()))
            })
            .collect();
        for answer in asked {
            // The answer may be lost with what the server did not read.
            let found = statuses(&answer.join().unwrap());
            assert!(
                found.iter().all(|status| [400, 408, 431].contains(status)) && found.len() < 2,
                "{found:?}"
            );
        }
    }
    assert!(grown(&server, before) < 24 * 1024, "{} KiB", grown(&server, before));
    still_serves(&server, &mut client, LIMIT);
}

#[test]
fn an_origin_that_only_looks_right_is_refused() {
    let server = server();
    for origin in [
        "https://app.example.org.evil.example",
        "https://evil.example/https://app.example.org",
        "https://app.example.orgevil",
        "https://xapp.example.org",
        "http://app.example.org",
        "https://app.example.org:444",
        "https://app.example.org@evil.example",
        "https://app.example.org, https://evil.example",
        "null",
        "file://",
        "https://app.exаmple.org", // a Cyrillic letter
        "",
    ] {
        let (_, answer) = Socket::handshake(server.gateway, "/listed/ws", &format!("Origin: {origin}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 403 "), "{origin}: {answer}");
    }
}
