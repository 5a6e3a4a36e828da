//! What must not hurt anyone else: floods, garbage, slow peers, large packets.

use std::io::Write as _;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use triggercast::mqtt::{Limits, Server};
use triggercast::telemetry::METRICS;

use crate::raw::{Hello, LIMIT, Raw, V3, V5, events, link, packet, server, server_with, text, until};

const EVENTS: &str = "$devices/d1/events";

fn closed(reason: &'static str) -> u64 {
    METRICS.mqtt_closed.get([reason])
}

/// The server still does its work.
#[track_caller]
fn still_serves(server: &Server) {
    let mut raw = Raw::v3(server, "d2");
    raw.publish(1, 1, "$devices/d2/events", b"x");
    raw.expect(&[0x40, 2, 0, 1]);
}

#[test]
fn the_largest_message_is_taken_and_one_byte_more_is_not() {
    let server = server();
    let mut link = link(&server);
    for version in [V3, V5] {
        let mut raw = Hello::new(version, "d1").enter(&server);
        raw.publish(1, 1, EVENTS, &vec![7; 262_144]);
        assert_eq!(crate::raw::payload(&events(&mut link, 1)[0]).len(), 262_144);
        raw.expect(&[0x40, 2, 0, 1]);
        let before = closed("packet_too_large");
        raw.publish(1, 2, EVENTS, &vec![7; 262_145]);
        raw.expect_disconnect(0x95);
        assert!(closed("packet_too_large") > before);
    }
}

#[test]
fn a_packet_is_refused_when_it_announces_itself() {
    let server = server();
    for version in [V3, V5] {
        let mut raw = Hello::new(version, "d1").enter(&server);
        raw.send(&[0x30, 0xff, 0xff, 0xff, 0x7f]);
        raw.expect_disconnect(0x95);
        // Before the login the bound is 16 KiB.
        let mut raw = Raw::open(server.local_addr());
        raw.send(&[0x10, 0xff, 0xff, 0xff, 0x7f]);
        raw.expect_closed();
    }
}

#[test]
fn only_a_connect_may_begin() {
    let server = server();
    for bytes in [
        &[0xc0, 0][..],
        &[0x30, 0xff, 0xff, 0x7f],
        &[0x20, 2, 0, 0],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x10, 0],
        &[0x11, 20],
        &[0x10, 0xff, 0xff, 0xff, 0xff, 0xff],
        &packet(0x10, &[&text("MQTX"), &[4, 2, 0, 0, 0, 0]]),
        &packet(0x10, &[&text("MQTT"), &[4, 3, 0, 0, 0, 0]]),
        &packet(0x10, &[&text("MQTT"), &[4]]),
    ] {
        let mut raw = Raw::open(server.local_addr());
        raw.send(bytes);
        raw.expect_closed();
    }
    still_serves(&server);
}

#[test]
fn a_slow_connect_is_cut() {
    let server = server_with(Limits { connect_timeout: Duration::from_millis(100), ..Limits::default() });
    let mut silent = Raw::open(server.local_addr());
    silent.expect_closed();
    let mut slow = Raw::open(server.local_addr());
    let start = Instant::now();
    for byte in Hello::new(V3, "d1").bytes().chunks(1) {
        if slow.stream().write_all(byte).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    slow.expect_closed();
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[test]
fn malformed_input_closes_that_connection_only() {
    let server = server();
    let mut neighbour = Raw::v3(&server, "r");
    for (name, bytes, v5) in [
        ("a second CONNECT", Hello::new(V5, "d1").bytes(), 0x82),
        ("packet type 0", vec![0, 0], 0x81),
        ("reserved flags", vec![0xc5, 0], 0x81),
        ("QoS 3", vec![0x36, 5, 0, 1, b'a', 0, 1], 0x81),
        ("DUP with QoS 0", vec![0x38, 4, 0, 1, b'a', 0], 0x81),
        ("packet id 0", vec![0x32, 6, 0, 1, b'a', 0, 0, 0], 0x81),
        ("PUBACK of id 0", vec![0x40, 2, 0, 0], 0x81),
        ("an empty topic", vec![0x30, 3, 0, 0, 0], 0x94),
        ("a wildcard", vec![0x30, 4, 0, 1, b'#', 0], 0x90),
        ("a null character", vec![0x30, 4, 0, 1, 0, 0], 0x90),
        ("no UTF-8", vec![0x30, 4, 0, 1, 0xff, 0], 0x81),
        ("a topic past the end", vec![0x30, 3, 0, 9, b'a'], 0x81),
        ("a length of five bytes", vec![0x30, 0xff, 0xff, 0xff, 0xff, 1], 0x81),
        ("SUBSCRIBE without a filter", vec![0x82, 3, 0, 1, 0], 0x82),
        ("SUBSCRIBE with wrong flags", vec![0x80, 7, 0, 1, 0, 0, 1, b'a', 0], 0x81),
        ("SUBSCRIBE QoS 3", vec![0x82, 7, 0, 1, 0, 0, 1, b'a', 3], 0x81),
        ("AUTH", vec![0xf0, 0], 0x8c),
        ("a server's packet", vec![0xd0, 0], 0x82),
    ] {
        let mut raw = Raw::v5(&server, "d1");
        raw.send(&bytes);
        // An empty topic without an alias: there is no topic at all.
        let code = if name == "an empty topic" { 0x90 } else { v5 };
        assert_eq!(raw.next().as_deref(), Some(&[0xe0, 1, code][..]), "{name}");
        raw.expect_closed();
        neighbour.expect_quiet();
    }
    for bytes in [
        Hello::new(V3, "d1").bytes(),
        vec![0x82, 6, 0, 1, 0, 1, b'a', 3],
        vec![0x82, 2, 0, 1],
        vec![0xe0, 1, 0],
        vec![0xf0, 0],
        vec![0x30, 2, 0, 0],
    ] {
        let mut raw = Raw::v3(&server, "d1");
        raw.send(&bytes);
        raw.expect_closed();
        neighbour.expect_quiet();
    }
}

#[test]
fn topics_of_thousands_of_levels_do_no_harm() {
    let server = server();
    let mut raw = Raw::v5(&server, "b");
    assert_eq!(raw.subscribe(&"+/".repeat(127), 0), 0);
    assert_eq!(raw.subscribe(&"/".repeat(60_000), 0), 0x8f);
    raw.publish(0, 0, &"a/".repeat(127), b"x");
    assert_eq!(raw.topic_and_text().1, "x");
    raw.publish(0, 0, &"/".repeat(60_000), b"x");
    raw.expect_disconnect(0x90);
}

#[test]
fn mutated_connections_leave_the_server_serving() {
    let server = server();
    let mut rng = StdRng::seed_from_u64(0x5eed);
    let connect = |version| Hello {
        will: Some((0, vec![], "$me/device/events".into(), "w".into())),
        client: "mutant".into(),
        ..Hello::persistent(version, "d1", "mutant")
    };
    for round in 0..2000 {
        let version = if round % 2 == 0 { V3 } else { V5 };
        let mut raw = Raw::open(server.local_addr());
        raw.version = version;
        let hello = connect(version).bytes();
        let mut script = vec![
            raw.publish_bytes(0, 0, EVENTS, b"zero"),
            raw.publish_bytes(1, 1, "$me/device/state", b"one"),
            raw.publish_bytes(2, 2, EVENTS, b"two"),
            vec![0x62, 2, 0, 2],
            vec![0x40, 2, 0, 1],
            vec![0xc0, 0],
        ];
        let properties: &[u8] = if version == V5 { &[0] } else { &[] };
        script.push(packet(0x82, &[&[0, 3], properties, &text("$me/device/#"), &[1]]));
        script.push(packet(0xa2, &[&[0, 4], properties, &text("$me/device/#")]));
        let mut bytes = script.concat();
        // In three of four rounds the CONNECT stays whole, so that what follows is looked at.
        if round % 4 == 3 {
            bytes = [hello, bytes].concat();
        } else {
            raw.send(&hello);
        }
        for _ in 0..rng.random_range(1..6) {
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..4) {
                0 => bytes[at] ^= 1 << rng.random_range(0..8),
                1 => bytes[at] = rng.random(),
                2 => drop(bytes.drain(at..(at + rng.random_range(1..20)).min(bytes.len()))),
                _ => bytes.insert(at, rng.random()),
            }
            if bytes.is_empty() {
                break;
            }
        }
        raw.try_send(&bytes);
        let _ = raw.stream().shutdown(std::net::Shutdown::Write);
    }
    still_serves(&server);
    assert_eq!(METRICS.actor_panics.get(["MqttConnection"]), 0);
}

#[test]
fn a_slow_subscriber_does_not_delay_a_publisher() {
    let server = server();
    let mut link = link(&server);
    let mut slow = Raw::v3(&server, "r");
    slow.subscribe("$devices/d1/events", 0);
    let mut slow_qos_1 = Raw::v5(&server, "r");
    slow_qos_1.subscribe("$devices/d1/state", 1);
    let before = (METRICS.mqtt_dropped.get(), closed("slow_subscriber"));
    let mut raw = Raw::v3(&server, "d1");
    let block = vec![1; 64 * 1024];
    let start = Instant::now();
    // 64 MiB each: far beyond what sockets and queues hold.
    for _ in 0..1000 {
        raw.publish(0, 0, EVENTS, &block);
        raw.publish(1, 1, "$devices/d1/state", &block);
        let _ = events(&mut link, 1).len() + events(&mut link, 1).len();
        raw.expect(&[0x40, 2, 0, 1]);
        if METRICS.mqtt_dropped.get() > before.0 + 20 && closed("slow_subscriber") > before.1 {
            break;
        }
    }
    assert!(start.elapsed() < LIMIT);
    assert!(METRICS.mqtt_dropped.get() > before.0 + 20);
    assert!(closed("slow_subscriber") > before.1);
    // The one with QoS 0 is still there once it reads on: what it gets is whole.
    let first = slow.message();
    assert_eq!(first.payload.len(), block.len());
}

#[test]
fn a_slow_persistent_subscriber_keeps_the_newest_it_can() {
    let limits = Limits { max_queued: 4, max_inflight: 2, max_offline_queued: 3, ..Limits::default() };
    let server = server_with(limits);
    let hello = Hello::persistent(V5, "b", "slow");
    let mut slow = hello.enter(&server);
    slow.subscribe("a", 1);
    let mut raw = Raw::v3(&server, "b");
    for i in 0..12 {
        raw.publish(1, 1, "a", i.to_string().as_bytes());
        raw.expect(&[0x40, 2, 0, 1]);
        if i < 2 {
            assert_eq!(slow.message().payload, i.to_string().as_bytes());
        }
    }
    slow.expect_disconnect(0x97);
    let mut slow = hello.enter(&server);
    assert!(slow.session_present);
    // What was in flight comes again; of the queue the newest.
    let mut texts: Vec<_> = Vec::new();
    for _ in 0..5 {
        let message = slow.message();
        texts.push(String::from_utf8(message.payload).unwrap());
        slow.puback(message.id);
    }
    assert_eq!(texts, ["0", "1", "9", "10", "11"]);
    slow.expect_quiet();
}

#[test]
fn a_client_that_never_reads_is_closed() {
    let server = server_with(Limits { write_timeout: Duration::from_millis(100), ..Limits::default() });
    let before = closed("write_timeout");
    let mut raw = Raw::v3(&server, "d1");
    raw.stream().set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    // PINGREQs whose answers nobody reads, until the server stops reading too.
    let pings = [0xc0, 0].repeat(64 * 1024);
    until("the end of it", || {
        let _ = raw.stream().write(&pings);
        closed("write_timeout") > before
    });
    raw.try_send(&[0]);
    still_serves(&server);
}

#[test]
fn passwords_that_take_long_do_not_stop_others() {
    // A wrong login costs nobody else anything: clients that are in go on.
    let server = server();
    let mut raw = Raw::v3(&server, "d1");
    let knocks: Vec<_> = (0..50)
        .map(|_| {
            let mut knock = Raw::open(server.local_addr());
            knock.send(&Hello { password: Some("wrong".into()), ..Hello::new(V3, "d2") }.bytes());
            knock
        })
        .collect();
    raw.expect_quiet();
    for mut knock in knocks {
        knock.expect(&[0x20, 2, 0, 4]);
        knock.expect_closed();
    }
}
