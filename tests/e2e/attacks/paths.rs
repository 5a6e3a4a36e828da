//! Paths that are written in strange ways, and what belongs to whom.

use std::thread;

use super::{ask, server, statuses};
use crate::common::{BEGINNING, FACTORY, Socket, TestServer, trigger};

#[test]
fn only_the_path_as_it_is_declared_is_let_in() {
    let server = server();
    let strange = [
        "/main/ws/",
        "/main/ws//",
        "//main/ws",
        "/main//ws",
        "/main/./ws",
        "/./main/ws",
        "/main/x/../ws",
        "/main/../main/ws",
        "/../main/ws",
        "/main/ws/..",
        "/main/ws/.",
        "/main/ws/../ws",
        "/main/%77s",
        "/%6dain/ws",
        "/main%2fws",
        "/main%2Fws",
        "/main/%2e/ws",
        "/main/%2e%2e/main/ws",
        "/main/..%2fws",
        "/main/..%5cws",
        "/main\\ws",
        "/main/ws%00",
        "/main/ws%00.txt",
        "/main/%00ws",
        "/main/ws%20",
        "/main/ws%09",
        "/main/ws%0a",
        "/main/ws%0d%0aX:y",
        "/main/ws;a=b",
        "/main/ws;",
        "/main/ws.",
        "/main/ws.json",
        "/main/ws%2e",
        "/main/ws%3f",
        "/main/ws%23",
        "/main/ws%252f",
        "/main/%2577s",
        "/MAIN/ws",
        "/Main/ws",
        "/main/WS",
        "/main/Ws",
        "/main/wſ",
        "/main/ｗｓ",
        "/main/ws%c0%ae",
        "/main/%c0%afws",
        "/main/w%e2%80%8bs",
        "/main/ws%ef%bb%bf",
        "/main/ws%u0000",
        "/main/ws%",
        "/main/ws%2",
        "/main/ws%zz",
        "/main/{ws}",
        "/main/*",
        "/main/",
        "/main",
        "/",
        "/ws",
        "/other/ws",
        "/main/wss",
        "/main/w",
        "/main/ws/ws",
        "/main/ws/main/ws",
        "/main:80/ws",
        "/h/main/ws",
        "main/ws",
        "/main/metrics",
        "/metrics",
        "/main/%2e%2e%2f%2e%2e%2fetc/passwd",
        "/main/..;/ws",
    ];
    assert!(strange.len() >= 60);
    let gateway = server.gateway;
    let asked: Vec<_> = strange
        .into_iter()
        .map(|path| {
            let head = format!(
                "GET {path} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            );
            (path, thread::spawn(move || ask(gateway, head.as_bytes())))
        })
        .collect();
    for (path, answer) in asked {
        let answer = answer.join().unwrap();
        let found = statuses(&answer);
        assert!(found == [404] || found == [400], "{path}: {}", String::from_utf8_lossy(&answer));
        assert!(!answer.windows(4).any(|part| part == b"X:y\r"), "{path}: a header was made of a path");
    }
    for path in ["/main/ws", "/main/ws?", "/main/ws?a=/../x"] {
        let (_, head) = Socket::handshake(gateway, path, "");
        assert!(head.starts_with("HTTP/1.1 101 "), "{path}: {head}");
    }
}

/// Two gateways with two paths each: what is broadcast on one is heard there, live and again, and nowhere else.
#[test]
fn what_is_for_one_path_is_heard_on_no_other() {
    let places = [("one", "/a"), ("one", "/b"), ("two", "/a"), ("two", "/b")];
    let triggers: String = places
        .iter()
        .enumerate()
        .map(|(number, (gateway, path))| {
            let source = format!(
                "iot_message: {{ registry_id: factory, mqtt_topic: \"$devices/press-1/events/{number}\", \
                 batch_settings: {{ max_count: 1, cutoff: 1s }} }}"
            );
            trigger(&format!("trigger-{number}"), &source, path)
                .replace("gateway_id: main", &format!("gateway_id: {gateway}"))
        })
        .collect();
    let server = TestServer::start(&format!(
        "{BEGINNING}gateways:\n  - {{ id: one, paths: {{ /a: {{}}, /b: {{}} }} }}\n  - {{ id: two, paths: {{ /a: {{}}, /b: {{}} }} }}\n\
         {FACTORY}triggers:\n{triggers}"
    ));
    let join = |(gateway, path): (&str, &str), query: &str| {
        let (socket, head) = Socket::handshake(server.gateway, &format!("/{gateway}{path}{query}"), "");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        socket
    };
    let mut live: Vec<_> = places.iter().map(|place| join(*place, "")).collect();
    let mut ids = Vec::new();
    for round in 0..3 {
        for (number, socket) in live.iter_mut().enumerate() {
            server.publish(&format!("$devices/press-1/events/{number}"), &format!("{number} {round}"));
            let event = socket.batch().remove(0);
            // Whatever else came would have come before.
            assert_eq!(event.payload, format!("{number} {round}"));
            ids.push(event.id);
        }
    }
    for (number, place) in places.iter().enumerate() {
        let expected: Vec<_> = (0..3).map(|round| format!("{number} {round}")).collect();
        // From the beginning, and after an event that another path has had.
        let other = &ids[(number + 1) % places.len()];
        for query in ["?last=1000".to_owned(), "?since=1h".to_owned(), format!("?last_event_id={other}")] {
            let mut again = join(*place, &query);
            let wanted =
                if query.contains("event_id") && number == 0 { &expected[1..] } else { &expected[..] };
            let wanted =
                if query.contains("event_id") && number > 0 && number < 3 { &expected[1..] } else { wanted };
            let heard: Vec<_> = again.events(wanted.len()).into_iter().map(|event| event.payload).collect();
            assert_eq!(heard, wanted, "{place:?} {query}");
            assert!(!again.comes_within(std::time::Duration::from_millis(50)));
        }
    }
}
