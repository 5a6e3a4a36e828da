//! Clients with filters and clients with compression, our own and foreign ones.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::common::{
    FACTORY, LIMIT, Listener, Socket, TestServer, config, events, http_get_with, script, trigger, until,
};

/// Two presses, batches of twenty, and a path that compresses.
fn server() -> TestServer {
    let source = "iot_message: { registry_id: factory, batch_settings: { max_count: 20, cutoff: 100ms } }";
    let config = config(&format!("{FACTORY}triggers:\n{}", trigger("telemetry", source, "/ws")));
    TestServer::start(&config.replacen("/ws: {}", "/ws: { deflate: true }", 1))
}

/// A device's connection, just enough of MQTT 3.1.1 to publish one message after the other.
struct Press {
    io: TcpStream,
}

impl Press {
    fn connect(server: &TestServer, number: usize) -> Self {
        let mut io = TcpStream::connect(server.mqtt.unwrap()).unwrap();
        io.set_read_timeout(Some(LIMIT)).unwrap();
        let [user, password] = [format!("press-{number}"), format!("Press-{number}-demo-1")];
        let head = [&text("MQTT")[..], &[4, 0xc2, 0, 60]].concat();
        let body = [head, text("view"), text(&user), text(&password)].concat();
        io.write_all(&[&[0x10, body.len() as u8][..], &body].concat()).unwrap();
        let mut answer = [0; 4];
        io.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [0x20, 2, 0, 0]);
        Self { io }
    }

    /// Publishes with QoS 1 and waits for the acknowledgement: so the order over all devices is known.
    fn publish(&mut self, topic: &str, payload: &str) {
        let body = [&text(topic)[..], &[0, 1], payload.as_bytes()].concat();
        let len = [0x80 | (body.len() % 128) as u8, (body.len() / 128) as u8];
        self.io.write_all(&[&[0x32][..], &len, &body].concat()).unwrap();
        let mut answer = [0; 4];
        self.io.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [0x40, 2, 0, 1]);
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// Publishes numbered readings, of the two presses in turn, to two topics each.
fn publish(server: &TestServer, range: std::ops::Range<usize>) {
    let mut presses = [Press::connect(server, 1), Press::connect(server, 2)];
    for n in range {
        let topic = if n % 4 < 2 { "events" } else { "state" };
        let payload = format!("{n} {}", "reading ".repeat(20));
        presses[n % 2].publish(&format!("$devices/press-{}/{topic}", 1 + n % 2), &payload);
    }
}

/// The numbers in messages' payloads.
fn numbers(text: &str) -> Vec<usize> {
    events(text).iter().map(|event| event.payload.split(' ').next().unwrap().parse().unwrap()).collect()
}

fn read(socket: &mut Socket, count: usize) -> (Vec<usize>, String) {
    let (mut got, mut last) = (Vec::new(), String::new());
    while got.len() < count {
        let text = socket.text();
        got.extend(numbers(&text));
        last = events(&text).last().unwrap().id.clone();
    }
    (got, last)
}

#[test]
fn clients_with_and_without_compression_see_the_same_messages() {
    let server = server();
    let url = server.url("/ws");
    let mut plain = server.websocket("/ws");
    let taken = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    let mut python = Listener::start(script("view.py").args([&url, "1000", "deflate"]));
    let mut python_plain = Listener::start(script("view.py").args([&url, "1000", "plain"]));
    let mut node = Listener::start(script("view.js").args([&url, "deflate"]));
    assert_eq!(python.line(), taken);
    assert_eq!(python_plain.line(), "None");
    assert_eq!(node.line(), "permessage-deflate");
    // What they say compressed is read.
    assert_eq!((python.line(), node.line()), ("pong".to_owned(), "pong".to_owned()));
    publish(&server, 0..200);
    let mut count = 0;
    while count < 200 {
        let text = plain.text();
        count += numbers(&text).len();
        assert!(python.line() == text && python_plain.line() == text && node.line() == text);
    }
    // A path that does not compress, asked in the same way.
    let other = server.url("/other");
    let mut node = Listener::start(script("view.js").args([&other, "deflate"]));
    assert_eq!((node.line(), node.line()), (String::new(), "pong".to_owned()));
}

#[test]
fn a_compression_bomb_is_refused_and_costs_nothing() {
    let server = server();
    let url = server.url("/ws");
    let before = server.resident_kib();
    for _ in 0..5 {
        let mut node = Listener::start(script("view.js").args([&url, "bomb"]));
        assert_eq!(node.line(), "permessage-deflate");
        assert_eq!(node.line(), "closed 1009");
    }
    let after = server.resident_kib();
    assert!(after < before + 8 * 1024, "{before} {after}");
}

#[test]
fn filters_by_device_topic_and_type_and_what_was_missed() {
    let server = server();
    let url = server.url("/ws?device=press-1");
    let mut python = Listener::start(script("view.py").args([&url, "1000", "deflate"]));
    assert!(python.line().starts_with("permessage-deflate"));
    assert_eq!(python.line(), "pong");
    let mut device = server.websocket("/ws?device=press-2");
    let mut topic = server.websocket("/ws?topic=$devices/%2B/state&device=press-1");
    let mut all = server.websocket("/ws?event_type=IoTMessage&device=press-1&device=press-2");
    let mut none = server.websocket("/ws?event_type=CreateImage");
    publish(&server, 0..100);
    let wanted = |range: std::ops::Range<usize>, wants: fn(usize) -> bool| -> Vec<usize> {
        range.filter(|n| wants(*n)).collect()
    };
    let press_2 = |n: usize| n % 2 == 1;
    let (got, last) = read(&mut device, 50);
    assert_eq!(got, wanted(0..100, press_2));
    assert_eq!(read(&mut topic, 25).0, wanted(0..100, |n| n % 4 == 2));
    assert_eq!(read(&mut all, 100).0, wanted(0..100, |_| true));
    let mut got = Vec::new();
    while got.len() < 50 {
        got.extend(numbers(&python.line()));
    }
    assert_eq!(got, wanted(0..100, |n| n % 2 == 0));
    // What a client with a filter missed, with another beside it that begins in the middle.
    drop(device);
    publish(&server, 100..200);
    until("the second hundred", || {
        let mut last = server.websocket("/ws?last=1");
        (read(&mut last, 1).0 == [199]).then_some(())
    });
    let (mut device, head) =
        Socket::handshake(server.gateway, &format!("/main/ws?device=press-2&last_event_id={last}"), "");
    assert!(head.contains("\r\nX-Resume-Status: complete\r\n"), "{head}");
    let mut topic = server.websocket("/ws?last=150&topic=%24devices/press-2/%23&topic=nothing/here");
    publish(&server, 200..260);
    assert_eq!(read(&mut device, 80).0, wanted(100..260, press_2));
    assert_eq!(read(&mut topic, 105).0, wanted(50..260, press_2));
    // Nobody who wants nothing of it is sent anything.
    assert!(!none.comes_within(std::time::Duration::from_millis(200)));
    for (query, words) in [
        ("device=Press-1", "device: \\\"Press-1\\\" is not the id of a device"),
        ("topic=a%23", "topic: \\\"a#\\\" is not an MQTT topic filter"),
        ("event_type=Reading", "event_type: \\\"Reading\\\" is not one of CreateImage,"),
    ] {
        let (_, answer) = Socket::handshake(server.gateway, &format!("/main/ws?{query}"), "");
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(words), "{answer}");
        // Who asks for server-sent events is told so in the same words.
        let (status, answer) =
            http_get_with(server.gateway, &format!("/main/ws?{query}"), "Accept: text/event-stream\r\n");
        assert!(status == 400 && answer.contains(words), "{status} {answer}");
    }
}
