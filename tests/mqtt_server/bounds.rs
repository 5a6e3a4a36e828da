//! Clients at and past the edges: bursts, floods, full windows, long topics, reused identifiers.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use triggercast::mqtt::{Limits, Server};

use crate::raw::{
    Hello, LIMIT, Raw, V3, V5, group, link, packet, ready_group, resources, server, server_with, text,
};

const EVENTS: &str = "$devices/d1/events";

fn one_worker() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    Server::start(listener, &resources(), Limits { worker_threads: 1, ..Limits::default() }).unwrap()
}

#[test]
fn a_burst_at_qos_0_is_delivered_to_its_end() {
    let server = one_worker();
    let mut subscriber = Raw::v3(&server, "b");
    assert_eq!(subscriber.subscribe("#", 0), 0);
    let mut publisher = Raw::v3(&server, "b");
    for _ in 0..10 {
        // More than one write takes, less than the queue holds.
        let all: Vec<u8> = (0..400).flat_map(|_| publisher.publish_bytes(0, 0, "t", &[7; 1000])).collect();
        publisher.send(&all);
        for _ in 0..400 {
            assert_eq!(subscriber.message().payload.len(), 1000);
        }
    }
}

#[test]
fn a_flood_leaves_time_for_others() {
    let server = one_worker();
    let mut flood = Raw::v3(&server, "b");
    let chunk = flood.publish_bytes(0, 0, "t", b"").repeat(20_000);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let (begun, begins) = std::sync::mpsc::channel();
    let flooder = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            flood.try_send(&chunk);
            let _ = begun.send(());
        }
    });
    for _ in 0..3 {
        begins.recv_timeout(LIMIT).unwrap();
    }
    let mut other = std::net::TcpStream::connect(server.local_addr()).unwrap();
    other.set_read_timeout(Some(LIMIT)).unwrap();
    other.write_all(&Hello::new(V3, "r").bytes()).unwrap();
    let mut answer = [0; 4];
    let answered = other.read_exact(&mut answer);
    stop.store(true, Ordering::Relaxed);
    flooder.join().unwrap();
    answered.unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
}

#[test]
fn a_full_qos_2_window_can_be_resumed() {
    let server = server_with(Limits { max_unacknowledged: 2, ..Limits::default() });
    let hello = Hello { clean: false, ..Hello::persistent(V5, "d1", "c") };
    let mut raw = hello.enter(&server);
    for id in [1, 2] {
        raw.publish(2, id, EVENTS, b"x");
        raw.expect(&[0x50, 2, 0, id as u8]);
    }
    raw.vanish();
    let mut raw = hello.enter(&server);
    assert!(raw.session_present);
    let again = raw.publish_with(0x0c, 1, EVENTS, &[], b"x");
    raw.send(&again);
    raw.expect(&[0x50, 2, 0, 1]);
}

#[test]
fn a_topic_that_is_too_long_ends_its_connection_and_a_filter_is_refused() {
    let server = server();
    let mut subscriber = Raw::v3(&server, "r");
    assert_eq!(subscriber.subscribe(&format!("$devices/d1/events/{}", "x".repeat(1024)), 0), 0x80);
    assert_eq!(subscriber.subscribe("$devices/#", 0), 0);
    let mut publisher = Raw::v3(&server, "d1");
    publisher.publish(0, 0, &format!("$me/device/events/{}", "x".repeat(60_000)), b"payload");
    assert!(publisher.next().is_none());
    let mut publisher = Raw::v3(&server, "d1");
    publisher.publish(0, 0, &format!("{EVENTS}/{}", "x".repeat(900)), b"next");
    let message = subscriber.message();
    assert_eq!((message.topic.len(), &*message.payload), (EVENTS.len() + 901, &b"next"[..]));
}

#[test]
fn another_message_with_dup_under_a_used_identifier_is_an_event() {
    let server = server();
    let mut link = link(&server);
    let hello = Hello::persistent(V3, "d1", "c");
    let mut raw = hello.enter(&server);
    raw.publish(1, 1, EVENTS, b"A");
    let held = group(&mut link).unwrap();
    raw.vanish();
    held.receipt.accept();
    let mut raw = hello.enter(&server);
    let other = raw.publish_with(0x0a, 1, EVENTS, &[], b"B");
    raw.send(&other);
    group(&mut link).unwrap().receipt.accept();
    raw.expect(&[0x40, 2, 0, 1]);
    assert!(ready_group(&mut link).is_none());
}

#[test]
fn one_subscribe_may_ask_for_more_kept_messages_than_the_queue_holds_bytes() {
    let server = server();
    let mut device = Raw::v3(&server, "d1");
    for number in 1..=12u16 {
        device.publish(1, number, &format!("$devices/d1/state/{number}"), &[1; 100_000]);
        device.expect(&[0x40, 2, 0, number as u8]);
    }
    let mut subscriber = Raw::v5(&server, "r");
    let filter = |number| [text(format!("$devices/d1/state/{number}")), vec![1]].concat();
    let filters: Vec<u8> = (1..=12).flat_map(filter).collect();
    subscriber.send(&packet(0x82, &[&[0, 9], &[0], &filters]));
    assert_eq!(subscriber.next().unwrap()[0], 0x90);
    for number in 1..=12 {
        assert_eq!(subscriber.next().unwrap()[0] & 0xf0, 0x30, "message {number}");
        subscriber.puback(number);
    }
}

#[test]
fn repeating_one_qos_2_publish_without_end_is_not_read_without_end() {
    let server = server();
    let _link = link(&server); // takes nothing
    let mut raw = Raw::v5(&server, "d1");
    raw.publish(2, 1, EVENTS, b"");
    let alias = raw.publish_with(0x0c, 1, "$me/device/events", &[0x23, 0, 1], b"");
    raw.send(&alias);
    let chunk = raw.publish_with(0x0c, 1, "", &[0x23, 0, 1], b"").repeat(100_000);
    raw.stream().set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut sent = 0;
    while let Ok(count) = raw.stream().write(&chunk) {
        sent += count;
        assert!(sent < 256 << 20, "the connection is read without end");
    }
}

#[test]
fn without_its_reader_a_link_refuses_until_there_is_another() {
    let server = server();
    drop(link(&server));
    let mut raw = Raw::v3(&server, "d1");
    raw.publish(1, 1, EVENTS, b"x");
    assert!(raw.next().is_none(), "acknowledged, but nobody has it");
    let mut link = link(&server);
    let mut raw = Raw::v3(&server, "d1");
    raw.publish(1, 1, EVENTS, b"x");
    group(&mut link).unwrap().receipt.accept();
    raw.expect(&[0x40, 2, 0, 1]);
}

#[test]
fn a_new_subscriber_never_sees_a_permanent_topic_go_back() {
    let server = server();
    let stop = Arc::new(AtomicBool::new(false));
    let mut device = Raw::v3(&server, "d1");
    let stopped = Arc::clone(&stop);
    let publisher = std::thread::spawn(move || {
        let mut number = 0u32;
        while !stopped.load(Ordering::Relaxed) {
            number += 1;
            device.publish(1, 1, "$devices/d1/state", &number.to_be_bytes());
            device.expect(&[0x40, 2, 0, 1]);
        }
    });
    for _ in 0..200 {
        let mut subscriber = Raw::v3(&server, "r");
        subscriber.subscribe("$devices/d1/state", 0);
        let number = |raw: &mut Raw| u32::from_be_bytes(raw.message().payload[..].try_into().unwrap());
        let first = number(&mut subscriber);
        let second = number(&mut subscriber);
        assert!(first < second, "{first} came before {second}");
    }
    stop.store(true, Ordering::Relaxed);
    publisher.join().unwrap();
}
