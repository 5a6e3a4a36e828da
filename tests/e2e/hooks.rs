//! OpenAPI gateways: hooks that are asked over real HTTP, templates, and limits of what clients may do.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::backend::{Backend, http, start};
use crate::common::{BEGINNING, LIMIT, Socket, TestServer, until};

fn connect(server: &TestServer, path: &str, headers: &str) -> (Socket, String) {
    Socket::handshake(server.gateway, path, headers)
}

#[test]
fn a_client_is_told_of_from_its_coming_to_its_end() {
    let backend = Backend::start(|asked| {
        let kind = asked.headers.get("content-type").cloned().unwrap_or_default();
        Some(match asked.own("event-type") {
            "MESSAGE" if asked.body == b"quiet" => ("204 No Content", String::new(), Vec::new()),
            "MESSAGE" => ("200 OK", format!("content-type: {kind}\r\n"), asked.body.clone()),
            _ => ("200 OK", "sec-websocket-protocol: chat\r\n".to_owned(), b"ignored".to_vec()),
        })
    });
    let paths = format!(
        "  '/rooms/{{room}}':\n{}{}{}",
        http("connect", ", method: GET, headers: { X-Room: '{room}' }"),
        http("message", ""),
        http("disconnect", ""),
    );
    let server = start(backend.address, &paths);
    let headers = "Sec-WebSocket-Protocol: other, chat\r\nUser-Agent: test/1\r\nCookie: secret\r\n";
    let (mut client, head) = connect(&server, "/main/rooms/a%20b", headers);
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("Sec-WebSocket-Protocol: chat\r\n"), "{head}");
    let id =
        head.lines().find_map(|line| line.strip_prefix("X-Yc-Apigateway-Websocket-Connection-Id: ")).unwrap();

    let came = backend.next();
    assert_eq!(came.line, "GET /connect HTTP/1.1");
    assert_eq!((came.own("event-type"), came.own("connection-id")), ("CONNECT", id));
    assert_eq!((came.headers["x-room"].as_str(), came.headers["user-agent"].as_str()), ("a b", "test/1"));
    assert_eq!(came.headers["sec-websocket-protocol"], "other, chat");
    assert!(!came.headers.contains_key("cookie"), "only what the document names is passed on");
    assert!(came.own("connected-at").ends_with('Z'));

    client.send(0x81, b"hello");
    client.send(0x81, b"quiet");
    client.send(0x82, &[0xff, 0x00]);
    assert_eq!(client.frame(), (0x81, b"hello".to_vec()));
    assert_eq!(client.frame(), (0x82, vec![0xff, 0x00]), "binary comes back as binary");
    let said: Vec<_> = (0..3).map(|_| backend.next()).collect();
    let kinds: Vec<_> = said.iter().map(|asked| asked.headers["content-type"].as_str()).collect();
    assert_eq!(kinds, ["application/json", "application/json", "application/octet-stream"]);
    let ids: Vec<_> = said.iter().map(|asked| asked.own("message-id").to_owned()).collect();
    assert!(ids.is_sorted() && ids[0] < ids[1] && ids[1] < ids[2], "{ids:?}");

    // The last words come before the end, though the client does not wait for the answer.
    client.send(0x81, b"last");
    client.send(0x88, &[&4000u16.to_be_bytes()[..], b"enough"].concat());
    assert_eq!(backend.next().body, b"last");
    let gone = backend.next();
    assert_eq!((gone.line.as_str(), gone.own("event-type")), ("POST /disconnect HTTP/1.1", "DISCONNECT"));
    assert_eq!((gone.own("disconnect-status-code"), gone.own("disconnect-reason")), ("4000", "enough"));
    assert_eq!((gone.own("connection-id"), gone.own("connected-at")), (id, came.own("connected-at")));

    // One that is lost is told too, and so is one that the server's own end closes.
    drop(connect(&server, "/main/rooms/b", ""));
    assert_eq!(backend.next().own("event-type"), "CONNECT");
    assert_eq!(backend.next().own("disconnect-status-code"), "1006");
    let (_staying, _) = connect(&server, "/main/rooms/c", "");
    assert_eq!(backend.next().own("event-type"), "CONNECT");
    assert!(server.stop().success());
    assert_eq!(backend.next().own("disconnect-status-code"), "1012");
}

#[test]
fn a_client_that_goes_while_its_integration_is_asked_is_told_of() {
    let backend = Backend::start(|asked| match asked.own("event-type") {
        "CONNECT" => None,
        _ => Some(("200 OK", String::new(), Vec::new())),
    });
    let message = "    x-yc-apigateway-websocket-message: { type: dummy }\n";
    let paths = format!("  /ws:\n{}{message}{}", http("connect", ""), http("disconnect", ""));
    let server = start(backend.address, &paths);
    let mut io = TcpStream::connect(server.gateway).unwrap();
    write!(io, "GET /main/ws HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n\r\n").unwrap();
    let came = backend.next();
    assert_eq!(came.own("event-type"), "CONNECT");
    // It is reset: one that has only stopped to speak still waits for its answer.
    socket2::SockRef::from(&io).set_linger(Some(Duration::ZERO)).unwrap();
    drop(io);
    let gone = backend.next();
    assert_eq!((gone.own("event-type"), gone.own("disconnect-status-code")), ("DISCONNECT", "1006"));
    assert_eq!(gone.own("connection-id"), came.own("connection-id"));
}

#[test]
fn whoever_is_refused_is_told_why_and_hears_nothing() {
    let backend = Backend::start(|asked| match asked.headers["x-who"].as_str() {
        "nobody" => Some(("401 Unauthorized", "content-type: text/plain\r\n".to_owned(), b"who?".to_vec())),
        "banned" => Some(("403 Forbidden", String::new(), Vec::new())),
        "moved" => Some(("302 Found", "location: http://127.0.0.1:1/\r\n".to_owned(), Vec::new())),
        "long" => Some(("403 Forbidden", String::new(), vec![b'x'; 200_000])),
        "silent" => None,
        _ => Some(("200 OK", String::new(), Vec::new())),
    });
    let paths = format!(
        "  /ws:\n    parameters: [{{ name: who, in: query, schema: {{ default: friend }} }}]\n{}    x-yc-apigateway-websocket-message: {{ type: dummy }}\n",
        http("connect", ", headers: { X-Who: '{who}' }, timeouts: { connect: 1, read: 0.2 }"),
    );
    let server = start(backend.address, &paths);
    for (who, status, body) in [
        ("nobody", "401 Unauthorized", "\r\n\r\nwho?"),
        ("banned", "403 Forbidden", "refuses the connection"),
        ("moved", "502 Bad Gateway", "gives no answer"),
        ("long", "502 Bad Gateway", "gives no answer"),
        ("silent", "504 Gateway Timeout", "in time"),
        ("a%0d%0ab", "400 Bad Request", "control characters"),
    ] {
        let (_, head) = connect(&server, &format!("/main/ws?who={who}"), "");
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")) && head.contains(body), "{who}: {head}");
        // Server-sent events are no way around it.
        let mut io = TcpStream::connect(server.gateway).unwrap();
        io.set_read_timeout(Some(LIMIT)).unwrap();
        let request = "HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n";
        write!(io, "GET /main/ws?who={who} {request}").unwrap();
        let mut head = String::new();
        io.read_to_string(&mut head).unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{who}: {head}");
    }
    let (_, head) = connect(&server, "/main/ws", "");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let metrics = server.get("/metrics").1;
    for line in [
        "triggercast_integration_calls_total{event=\"CONNECT\",result=\"answered\"} 1",
        "triggercast_integration_calls_total{event=\"CONNECT\",result=\"timed_out\"} 2",
        "triggercast_websocket_refused_total{reason=\"hook_timed_out\"} 2",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[test]
fn a_request_of_which_too_much_would_be_kept_is_refused_before_anybody_is_asked() {
    let backend = Backend::start(|_| Some(("200 OK", String::new(), Vec::new())));
    let all = ", headers: { '*': '*' }";
    let paths = format!(
        "  /kept:\n{}{}  /once:\n{}    x-yc-apigateway-websocket-message: {{ type: dummy }}\n",
        http("connect", all),
        http("message", all),
        http("connect", all),
    );
    let server = start(backend.address, &paths);
    let long = format!("X-Long: {}\r\n", "x".repeat(9000));
    let (_, head) = connect(&server, "/main/kept", &long);
    assert!(head.starts_with("HTTP/1.1 431 ") && head.contains("8192 bytes"), "{head}");
    let metrics = server.get("/metrics").1;
    assert!(metrics.contains("websocket_refused_total{reason=\"too_much_to_keep\"} 1"), "{metrics}");
    let (_client, head) = connect(&server, "/main/once", &long);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(backend.next().headers["x-long"].len(), 9000);
    assert!(connect(&server, "/main/kept", "X-Short: x\r\n").1.starts_with("HTTP/1.1 101 "));
}

#[test]
fn local_servers_that_are_not_listed_are_not_asked() {
    let backend = Backend::start(|_| Some(("200 OK", String::new(), Vec::new())));
    let port = backend.address.port();
    let hosts = ["127.0.0.1", "localhost", "127.1", "2130706433", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]"];
    let mut paths = String::new();
    for (number, host) in hosts.iter().enumerate() {
        paths.push_str(&format!(
            "  /p{number}:\n    x-yc-apigateway-websocket-connect: {{ type: http, url: 'http://{host}:{port}/' }}\n    x-yc-apigateway-websocket-message: {{ type: dummy }}\n"
        ));
    }
    let server = start("127.0.0.1:1".parse().unwrap(), &paths);
    for (number, host) in hosts.iter().enumerate() {
        let (_, head) = connect(&server, &format!("/main/p{number}"), "");
        assert!(head.starts_with("HTTP/1.1 502 "), "{host}: {head}");
    }
    assert!(backend.asked.lock().unwrap().try_recv().is_err());
    assert!(!server.log("gives no answer").is_empty());
}

#[test]
fn fixed_answers_and_templates_need_no_other_server() {
    let paths = "  '/ws/{room}':
    x-yc-apigateway-websocket-message:
      x-yc-apigateway-integration:
        type: dummy
        content: { '*': '{\"room\": \"{room}\", \"id\": \"{X-Yc-Apigateway-Websocket-Connection-Id}\"}' }
  /ws/plain:
    x-yc-apigateway-websocket-connect: { type: dummy, http_code: 418, content: teapot }
    x-yc-apigateway-websocket-message: { type: dummy }
";
    let server = start("127.0.0.1:1".parse().unwrap(), paths);
    let (mut client, head) = connect(&server, "/main/ws/blue", "");
    let id =
        head.lines().find_map(|line| line.strip_prefix("X-Yc-Apigateway-Websocket-Connection-Id: ")).unwrap();
    client.send(0x81, b"?");
    let answer: serde_json::Value = serde_json::from_str(&client.text()).unwrap();
    assert_eq!(answer, json!({ "room": "blue", "id": id }));
    let (_, head) = connect(&server, "/main/ws/plain", "");
    assert!(head.starts_with("HTTP/1.1 418 ") && head.ends_with("teapot"), "{head}");
    let (_, head) = connect(&server, "/main/ws/a/b", "");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
}

#[test]
fn a_slow_integration_makes_only_its_client_wait() {
    let backend = Backend::start(|_| None);
    let paths = format!("  /ws:\n{}", http("message", ", timeouts: { read: 60 }"));
    let server = start(backend.address, &paths);
    let (mut slow, _) = connect(&server, "/main/ws", "");
    // More than may wait: the server stops reading, and its memory stays.
    slow.io.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let before = server.resident_kib();
    let message = [&[0x82, 0xfe, 0x40, 0x00, 0, 0, 0, 0][..], &[b'x'; 0x4000]].concat();
    let sent = (0..10_000).take_while(|_| slow.io.write_all(&message).is_ok()).count();
    assert!((16..9_999).contains(&sent), "{sent}");
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB");
    assert_eq!(backend.next().body.len(), 0x4000, "one after the other");
    let (mut other, _) = connect(&server, "/main/ws", "");
    other.send(0x89, b"there?");
    assert_eq!(other.frame(), (0x8a, b"there?".to_vec()));
    assert!(backend.asked.lock().unwrap().try_recv().is_err());
}

#[test]
fn each_limit_has_its_code() {
    let limits = |limits: &str| {
        format!(
            "    x-triggercast-path: {{ limits: {{ {limits} }} }}\n    x-yc-apigateway-websocket-message: {{ type: dummy }}\n"
        )
    };
    let paths = [
        format!("  /short:\n{}", limits("message_bytes: 300, frame_bytes: 200")),
        format!("  /calm:\n{}", limits("frames_per_second: 2")),
        format!("  /thin:\n{}", limits("bytes_per_second: 100")),
        format!("  /small:\n{}", limits("connections: 1")),
        format!("  /own:\n{}", limits("connections_per_address: 1")),
        format!("  /idle:\n{}", limits("idle: 1s")),
        format!("  /old:\n{}", limits("lifetime: 1s")),
    ];
    let server = start("127.0.0.1:1".parse().unwrap(), &paths.concat());
    let join = |path: &str| connect(&server, path, "");
    let (mut client, _) = join("/main/short");
    client.send(0x82, &[0; 201]);
    assert_eq!(client.close_code(), 1009);
    let (mut client, _) = join("/main/short");
    client.send(0x02, &[0; 200]);
    client.send(0x80, &[0; 101]);
    assert_eq!(client.close_code(), 1009);
    let (mut client, _) = join("/main/calm");
    (0..40).for_each(|_| client.send(0x8a, b""));
    assert_eq!(client.close_code(), 1008);
    let (mut client, _) = join("/main/thin");
    client.send(0x82, &[0; 2000]);
    assert_eq!(client.close_code(), 1008);
    assert_eq!(join("/main/idle").0.close_code(), 1001);
    assert_eq!(join("/main/old").0.close_code(), 1001);
    for (path, status) in [("/main/small", "503"), ("/main/own", "429")] {
        let (first, head) = join(path);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let (_, head) = join(path);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")) && head.contains("retry-after"), "{head}");
        drop(first);
        until("a place that is free again", || join(path).1.starts_with("HTTP/1.1 101 ").then_some(()));
    }
    for name in [
        "closed_total{reason=\"too_big\"}",
        "closed_total{reason=\"too_fast\"}",
        "closed_total{reason=\"idle\"}",
        "closed_total{reason=\"lifetime\"}",
        "refused_total{reason=\"path_full\"}",
        "refused_total{reason=\"address_full\"}",
    ] {
        until(name, || (server.counted(&format!("websocket_{name}")) > 0).then_some(()));
    }
}

#[test]
fn an_address_that_asks_too_often_is_told_so() {
    let beginning = BEGINNING.replace(
        "drain: 100ms }",
        "drain: 100ms, handshakes_per_second: 2, trusted_proxies: [\"127.0.0.1\"] }",
    );
    let server =
        TestServer::start(&format!("{beginning}gateways:\n  - {{ id: main, paths: {{ /ws: {{}} }} }}\n"));
    let join = |address: &str| connect(&server, "/main/ws", &format!("X-Forwarded-For: {address}\r\n")).1;
    let refused =
        (0..100).map(|_| join("192.0.2.1")).find(|head| !head.starts_with("HTTP/1.1 101 ")).unwrap();
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("retry-after: 1"), "{refused}");
    assert!(join("192.0.2.2").starts_with("HTTP/1.1 101 "));
    until("the address to be let in again", || join("192.0.2.1").starts_with("HTTP/1.1 101 ").then_some(()));
}
