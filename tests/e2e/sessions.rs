//! WebSocket sessions against lawful, careless and hostile clients.

use std::io::{Read as _, Write as _};

use crate::common::{FACTORY, Socket, TestServer, config, header, trigger, until};

fn server() -> TestServer {
    let source = "iot_message: { registry_id: factory, batch_settings: { max_count: 1, cutoff: 1s } }";
    TestServer::start(&config(&format!("{FACTORY}triggers:\n{}", trigger("telemetry", source, "/ws"))))
}

#[test]
fn the_answer_carries_the_connection_id() {
    let server = server();
    let (_, head) = Socket::handshake(server.gateway, "/main/ws?x=1", "");
    let id =
        head.lines().find_map(|line| line.strip_prefix("X-Yc-Apigateway-Websocket-Connection-Id: ")).unwrap();
    assert!(!id.is_empty() && id.len() <= 50);
    assert!(head.contains("sec-websocket-accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI="), "{head}");
}

#[test]
fn what_does_not_exist_is_404_with_json() {
    let server = server();
    for path in ["/none/ws", "/main/none", "/", "/main", "/main/ws/", "/main/..%2fws"] {
        let (_, answer) = Socket::handshake(server.gateway, path, "");
        assert!(
            answer.starts_with("HTTP/1.1 404 ") && answer.contains("\r\n\r\n{\"code\":404,\"message\":\""),
            "{answer}"
        );
    }
    let (status, body) = crate::common::http_get(server.gateway, "/main/none");
    assert!(status == 404 && body.starts_with("{\"code\":404"), "{status} {body}");
}

#[test]
fn a_plain_request_is_told_to_speak_websocket() {
    let server = server();
    assert_eq!(crate::common::http_get(server.gateway, "/main/ws").0, 426);
}

#[test]
fn nothing_of_management_answers_on_the_public_port() {
    let server = server();
    for path in ["/healthz", "/readyz", "/metrics", "/triggers/v1/triggers"] {
        assert_eq!(crate::common::http_get(server.gateway, path).0, 404, "{path}");
    }
}

#[test]
fn malformed_handshakes_are_refused() {
    let server = server();
    let cases = [
        ("POST", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", 405),
        ("GET", "Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", 426),
        ("GET", "Sec-WebSocket-Version: 13\r\n", 400),
        ("GET", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n", 400),
        ("GET", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", 400),
    ];
    for (method, headers, expected) in cases {
        let mut io = std::net::TcpStream::connect(server.gateway).unwrap();
        io.set_read_timeout(Some(crate::common::LIMIT)).unwrap();
        write!(io, "{method} /main/ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{headers}\r\n").unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{method} {headers}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1);
    }
}

#[test]
fn origins_are_checked_before_the_upgrade() {
    let server = server();
    let own = format!("Origin: http://{}\r\n", server.gateway);
    for (path, origin, status) in [
        ("/main/ws", own.as_str(), 101),
        ("/main/ws", "Origin: http://localhost:3000\r\n", 101),
        ("/main/ws", "", 101),
        ("/main/ws", "Origin: https://evil.example\r\n", 403),
        ("/main/ws", "Origin: null\r\n", 403),
        ("/listed/ws", "Origin: https://app.example.org\r\n", 101),
        ("/listed/ws", "Origin: https://app.example.org.evil.example\r\n", 403),
        ("/listed/ws", "Origin: http://localhost\r\n", 403),
        ("/listed/ws", "Origin: https://app.example.org\r\nOrigin: https://evil.example\r\n", 403),
    ] {
        let (_, answer) = Socket::handshake(server.gateway, path, origin);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path} {origin}: {answer}");
    }
}

#[test]
fn violations_are_closed_with_their_code() {
    let server = server();
    let long = vec![b'x'; 32_768];
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("an unmasked frame", vec![0x81, 1, b'x'], 1002),
        ("a reserved bit", header(0xc1, 0), 1002),
        ("an unknown opcode", header(0x83, 0), 1002),
        ("a fragmented ping", header(0x09, 0), 1002),
        ("a continuation of nothing", [&header(0x80, 0)[..], &[0; 4]].concat(), 1002),
        ("a bad close code", [&header(0x88, 2)[..], &[0, 0, 0, 0, 0x03, 0xed]].concat(), 1002),
        ("text that is not UTF-8", [&header(0x81, 1)[..], &[0, 0, 0, 0, 0xff]].concat(), 1007),
        (
            "text that is not UTF-8 over two fragments",
            [&header(0x01, 1)[..], &[0, 0, 0, 0, 0xe2], &header(0x80, 1), &[0, 0, 0, 0, b'a']].concat(),
            1007,
        ),
        ("a frame over 32 KiB, by its header", header(0x82, 32_769), 1009),
        ("a frame of a gibibyte, by its header", header(0x82, 1 << 30), 1009),
        (
            "a message over 128 KiB, by the header of its fifth fragment",
            [0x01u8, 0, 0, 0]
                .iter()
                .flat_map(|first| [&header(*first, 32_768)[..], &[0; 4], &long].concat())
                .chain(header(0x80, 1))
                .collect(),
            1009,
        ),
    ];
    for (what, bytes, code) in cases {
        let mut socket = server.websocket("/ws");
        socket.io.write_all(&bytes).unwrap();
        assert_eq!(socket.close_code(), code, "{what}");
        assert!(socket.at_end(), "{what}");
    }
}

#[test]
fn a_refused_gibibyte_is_never_kept() {
    let server = server();
    let mut socket = server.websocket("/ws");
    let before = server.resident_kib();
    socket.io.write_all(&header(0x82, 1 << 30)).unwrap();
    let part = vec![0; 1 << 20];
    for _ in 0..200 {
        if socket.io.write_all(&part).is_err() {
            break;
        }
    }
    assert!(server.resident_kib() < before + 2048, "{} KiB grew to {}", before, server.resident_kib());
}

#[test]
fn lawful_messages_keep_the_connection() {
    let server = server();
    let mut socket = server.websocket("/ws");
    socket.send(0x81, "grüße".as_bytes());
    socket.send(0x82, &[0xff; 32_768]);
    socket.send(0x01, b"one");
    socket.send(0x89, b"between fragments");
    assert_eq!(socket.frame(), (0x8a, b"between fragments".to_vec()));
    socket.send(0x80, b"two");
    server.publish("$devices/press-1/events", "still here");
    assert_eq!(socket.events(1)[0].payload, "still here");
    socket.send(0x88, &4001u16.to_be_bytes());
    assert_eq!(socket.frame(), (0x88, 4001u16.to_be_bytes().to_vec()));
    assert!(socket.at_end());
}

#[test]
fn a_frame_behind_the_handshake_is_not_lost() {
    let server = server();
    let mut io = std::net::TcpStream::connect(server.gateway).unwrap();
    io.set_read_timeout(Some(crate::common::LIMIT)).unwrap();
    let mut request = b"GET /main/ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        .to_vec();
    request.extend([&header(0x89, 2)[..], &[0, 0, 0, 0], b"hi"].concat());
    io.write_all(&request).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(&[0x8a, 2, b'h', b'i']) {
        let mut byte = [0];
        io.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
}

#[test]
fn connections_are_counted_and_their_end_too() {
    let server = server();
    let open = |count: usize| {
        let wanted = format!("triggercast_websocket_connections {count}\n");
        until("the count of connections", || server.get("/metrics").1.contains(&wanted).then_some(()));
    };
    let sockets: Vec<_> = (0..5).map(|_| server.websocket("/ws")).collect();
    open(5);
    drop(sockets);
    open(0);
}
