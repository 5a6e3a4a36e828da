//! MQTT over WebSocket on the public port, with paho-mqtt and by hand.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::common::{FACTORY, LIMIT, Socket, TestServer, config, run, script, trigger, until};

fn factory() -> String {
    let source = "iot_message: { registry_id: factory, mqtt_topic: \"$devices/+/events\", batch_settings: { max_count: 1 } }";
    config(&format!("{FACTORY}triggers:\n{}", trigger("telemetry", source, "/ws")))
}

fn publish(server: &TestServer, ca_file: &str, words: &[&str]) -> String {
    let port = server.gateway.port().to_string();
    run(script("publish_websocket.py").args([&port, ca_file, "press-2", "Press-2-demo-1"]).args(words))
}

/// Shakes hands at /mqtt; gives the socket and the answer.
fn handshake(server: &TestServer, headers: &str) -> (TcpStream, String) {
    let (socket, head) = Socket::handshake(server.gateway, "/mqtt", headers);
    socket.io.set_read_timeout(Some(LIMIT)).unwrap();
    (socket.io, head)
}

const MQTT: &str = "Sec-WebSocket-Protocol: mqtt\r\n";

/// A frame as clients send it, with a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

fn connect_packet() -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat();
    let rest = [&[4, 0xc2, 0, 30][..], &text("me"), &text("press-1"), &text("Press-1-demo-1")].concat();
    let body = [text("MQTT"), rest].concat();
    [&[0x10, body.len() as u8], &body[..]].concat()
}

/// The next frame of the server.
fn read_frame(io: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    io.read_exact(&mut head).unwrap();
    let mut payload = vec![0; usize::from(head[1])];
    io.read_exact(&mut payload).unwrap();
    (head[0], payload)
}

#[test]
fn paho_publishes_in_both_versions_plain_and_under_tls() {
    for tls in [false, true] {
        let text = if tls { factory().replace("gateway: { ", "gateway: { tls: own, ") } else { factory() };
        let server = TestServer::start(&text);
        let ca = server.folder.join("data/tls/ca.pem").display().to_string();
        let ca = if tls { ca.as_str() } else { "-" };
        // Larger than a frame of either side.
        let large = "x".repeat(90_000);
        for version in ["3.1.1", "5"] {
            let words = [version, "$devices/press-2/events", "one", "two", &large];
            assert_eq!(publish(&server, ca, &words), "published\n");
        }
        let metrics = server.get("/metrics").1;
        assert!(metrics.contains("triggercast_events_received_total 6"), "{metrics}");
        assert!(server.stop().success());
    }
}

#[test]
fn packets_may_span_frames_and_frames_may_hold_packets() {
    let server = TestServer::start(&factory());
    let mut events = server.websocket("/ws");
    let (mut io, head) = handshake(&server, MQTT);
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("Sec-WebSocket-Protocol: mqtt\r\n"), "{head}");
    let connect = connect_packet();
    let (first, second) = connect.split_at(7);
    // A message of three frames with a ping between, cut inside the packet.
    io.write_all(&frame(0x02, first)).unwrap();
    io.write_all(&frame(0x89, b"hi")).unwrap();
    io.write_all(&frame(0x00, second)).unwrap();
    assert_eq!(read_frame(&mut io), (0x8a, b"hi".to_vec()));
    io.write_all(&frame(0x80, b"")).unwrap();
    assert_eq!(read_frame(&mut io), (0x82, vec![0x20, 2, 0, 0]));
    let topic = "$devices/press-1/events";
    let publish = |id: u8| {
        let body = [&[0, topic.len() as u8], topic.as_bytes(), &[0, id, b'0' + id]].concat();
        [&[0x32, body.len() as u8], &body[..]].concat()
    };
    // Two packets in one frame.
    io.write_all(&frame(0x82, &[publish(1), publish(2)].concat())).unwrap();
    let mut acknowledged = Vec::new();
    while acknowledged.len() < 8 {
        let (opcode, payload) = read_frame(&mut io);
        assert_eq!(opcode, 0x82);
        acknowledged.extend(payload);
    }
    assert_eq!(acknowledged, [0x40, 2, 0, 1, 0x40, 2, 0, 2]);
    assert_eq!(events.events(2).into_iter().map(|event| event.payload).collect::<Vec<_>>(), ["1", "2"]);
    // The close is answered, with its code.
    io.write_all(&frame(0x88, &[0x03, 0xe8])).unwrap();
    assert_eq!(read_frame(&mut io), (0x88, vec![0x03, 0xe8]));
    assert_eq!(io.read(&mut [0]).unwrap(), 0);
    assert!(server.stop().success());
}

#[test]
fn part_of_a_frame_holds_up_nobody_and_is_not_waited_for() {
    let server = TestServer::start(&factory());
    let mut events = server.websocket("/ws");
    // One for each thread that there may be, and one more.
    let strangers = 0..=std::thread::available_parallelism().unwrap().get();
    let strangers = strangers.map(|_| {
        let (mut io, head) = handshake(&server, MQTT);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        io.write_all(&[0x82]).unwrap();
        io
    });
    let strangers: Vec<_> = strangers.collect();
    let mut device = TcpStream::connect(server.mqtt.unwrap()).unwrap();
    device.set_read_timeout(Some(LIMIT)).unwrap();
    device.write_all(&connect_packet()).unwrap();
    device.read_exact(&mut [0; 4]).unwrap();
    let topic = "$devices/press-1/events";
    device.write_all(&[0x30, 3 + topic.len() as u8, 0, topic.len() as u8]).unwrap();
    device.write_all(&[topic.as_bytes(), b"!"].concat()).unwrap();
    assert_eq!(events.events(1)[0].payload, "!");
    for mut io in strangers {
        assert_eq!(io.read(&mut [0]).unwrap(), 0, "its time for a CONNECT is over");
    }
    assert!(server.counted("mqtt_closed_total{reason=\"connect_timeout\"}") > 0);
    assert!(server.stop().success());
}

#[test]
fn who_breaks_the_rules_is_closed_with_the_code_for_it() {
    let server = TestServer::start(&factory());
    for (bytes, code) in
        [(frame(0x81, b"text"), 1003_u16), (vec![0x82, 1, 0x10], 1002), (frame(0xc2, b"x"), 1002)]
    {
        let (mut io, _) = handshake(&server, MQTT);
        io.write_all(&frame(0x82, &connect_packet())).unwrap();
        assert_eq!(read_frame(&mut io), (0x82, vec![0x20, 2, 0, 0]));
        io.write_all(&bytes).unwrap();
        assert_eq!(read_frame(&mut io), (0x88, code.to_be_bytes().to_vec()));
        assert_eq!(io.read(&mut [0]).unwrap(), 0);
    }
    let metrics = server.get("/metrics").1;
    assert!(metrics.contains("triggercast_mqtt_closed_total{reason=\"malformed\"} 3"), "{metrics}");
    // A stop is said goodbye to.
    let (mut io, _) = handshake(&server, MQTT);
    io.write_all(&frame(0x82, &connect_packet())).unwrap();
    assert_eq!(read_frame(&mut io), (0x82, vec![0x20, 2, 0, 0]));
    let stopped = std::thread::spawn(move || server.stop());
    assert_eq!(read_frame(&mut io), (0x88, vec![0x03, 0xe8]));
    drop(io);
    assert!(stopped.join().unwrap().success());
}

#[test]
fn the_handshake_is_refused_without_the_subprotocol_a_good_origin_or_a_server() {
    let server = TestServer::start(&factory().replace("mqtt: { ", "mqtt: { max_connections: 1, "));
    for (headers, status) in [
        ("", "400"),
        ("Sec-WebSocket-Protocol: mqttv3.1\r\n", "400"),
        ("Sec-WebSocket-Protocol: mqtt\r\nOrigin: https://evil.example\r\n", "403"),
        ("Sec-WebSocket-Protocol: mqtt\r\nOrigin: http://localhost:3000\r\n", "101"),
    ] {
        let (_io, head) = handshake(&server, headers);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{headers}: {head}");
    }
    // The limit of MQTT's connections is that of both ports.
    until("room", || server.get("/metrics").1.contains("triggercast_mqtt_connections 0").then_some(()));
    let mut plain = TcpStream::connect(server.mqtt.unwrap()).unwrap();
    plain.write_all(&connect_packet()).unwrap();
    plain.read_exact(&mut [0; 4]).unwrap();
    let mut io = TcpStream::connect(server.gateway).unwrap();
    io.set_read_timeout(Some(LIMIT)).unwrap();
    write!(
        io,
        "GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{MQTT}\r\n"
    )
    .unwrap();
    assert_eq!(io.read(&mut [0]).unwrap(), 0);
    assert!(server.stop().success());
    for change in ["mqtt: { websocket: off, ", "# "] {
        let server = TestServer::start(&config("").replace("mqtt: { ", change));
        let (_io, head) = handshake(&server, MQTT);
        assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    }
}
