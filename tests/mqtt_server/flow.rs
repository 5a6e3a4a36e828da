//! From a publish to the engine and back: groups, acknowledgements, back-pressure, the end.

use std::time::Duration;

use triggercast::model::receipt::Receipt;
use triggercast::mqtt::{Limits, LinkError};
use triggercast::telemetry::METRICS;

use crate::raw::{
    Hello, Raw, V3, V5, block_on, details, events, group, link, payload, ready_group, server, server_with,
    source, until,
};

const EVENTS: &str = "$devices/d1/events";

#[test]
fn every_qos_reaches_the_link_in_order() {
    let server = server();
    let mut link = link(&server);
    for version in [V3, V5] {
        let mut raw = Hello::new(version, "d1").enter(&server);
        let all: Vec<u8> =
            (0..9).flat_map(|i| raw.publish_bytes(i % 3, u16::from(i) + 1, EVENTS, &[i])).collect();
        raw.send(&all);
        let found: Vec<_> = events(&mut link, 9).iter().map(payload).collect();
        assert_eq!(found, (0..9).map(|i| vec![i]).collect::<Vec<_>>());
        // Acknowledgements leave in the order of the publishes.
        for id in [2, 3, 5, 6, 8, 9] {
            raw.expect(&[if id % 3 == 2 { 0x40 } else { 0x50 }, 2, 0, id]);
        }
        raw.send(&[0x62, 2, 0, 3]);
        raw.expect(&[0x70, 2, 0, 3]);
    }
}

#[test]
fn one_read_is_one_group() {
    let server = server();
    let mut link = link(&server);
    let mut raw = Raw::v3(&server, "d1");
    let all: Vec<u8> = (0..5).flat_map(|i| raw.publish_bytes(0, 0, EVENTS, &[i])).collect();
    raw.send(&all);
    let arrivals = group(&mut link).unwrap();
    assert_eq!(arrivals.events.len(), 5);
    arrivals.receipt.accept();
}

#[test]
fn groups_are_bounded() {
    let server = server();
    let mut link = link(&server);
    let mut raw = Raw::v3(&server, "d1");
    let all: Vec<u8> = (0..300).flat_map(|_| raw.publish_bytes(0, 0, EVENTS, b"x")).collect();
    raw.send(&all);
    let big = raw.publish_bytes(0, 0, EVENTS, &[7; 40_000]);
    raw.send(&big.repeat(3));
    let mut count = 0;
    while count < 303 {
        let arrivals = group(&mut link).unwrap();
        let bytes: usize = arrivals.events.iter().map(|e| e.json.len()).sum();
        assert!(arrivals.events.len() <= 64 && (bytes <= 65_536 || arrivals.events.len() == 1));
        count += arrivals.events.len();
        arrivals.receipt.accept();
    }
    assert_eq!(count, 303);
}

#[test]
fn acknowledgements_wait_for_the_engine_and_leave_in_order() {
    let server = server();
    let mut link = link(&server);
    let mut raw = Raw::v3(&server, "d1");
    let mut held: Vec<Receipt> = Vec::new();
    for id in 1..=5 {
        // The connection goes on reading while earlier publishes wait.
        raw.publish(1, id, EVENTS, b"x");
        held.push(group(&mut link).unwrap().receipt);
        raw.expect_quiet();
    }
    // The last is accepted first; it still waits for its turn.
    held.pop().unwrap().accept();
    raw.expect_quiet();
    held.remove(0).accept();
    raw.expect(&[0x40, 2, 0, 1]);
    raw.expect_quiet();
    held.into_iter().for_each(Receipt::accept);
    for id in 2..=5 {
        raw.expect(&[0x40, 2, 0, id]);
    }
    raw.expect_quiet();
}

#[test]
fn every_link_must_have_taken_it() {
    let server = server();
    let mut all = link(&server);
    let mut some = server.link(&source(Some("$devices/+/events")), 8).unwrap();
    let mut raw = Raw::v3(&server, "d1");
    raw.publish(1, 1, EVENTS, b"both");
    let (one, two) = (group(&mut all).unwrap(), group(&mut some).unwrap());
    // Encoded once, shared.
    assert_eq!(one.events[0].json.as_ptr(), two.events[0].json.as_ptr());
    one.receipt.accept();
    raw.expect_quiet();
    two.receipt.accept();
    raw.expect(&[0x40, 2, 0, 1]);
    raw.publish(1, 2, "$devices/d1/state", b"one");
    group(&mut all).unwrap().receipt.accept();
    raw.expect(&[0x40, 2, 0, 2]);
    assert!(ready_group(&mut some).is_none());
}

#[test]
fn links_get_what_their_source_says() {
    let server = server();
    let device = triggercast::model::trigger::MqttTopics::IotMessage {
        registry_id: "r".into(),
        device_id: Some("d2".into()),
        mqtt_topic: None,
    };
    let mut of_device = server.link(&device, 8).unwrap();
    let mut of_alias = server.link(&source(Some("hall/+/events/#")), 8).unwrap();
    let mut of_state = server.link(&source(Some("$devices/+/state")), 8).unwrap();
    for (user, topic) in [
        ("d1", "$devices/d1/events/x"),
        ("d2", "hall/two/state"),
        ("r", "$devices/d2/commands"),
        ("d1", "$registries/r/events"),
    ] {
        let mut raw = Raw::v3(&server, user);
        raw.publish(0, 0, topic, b"x");
        raw.expect_quiet();
    }
    let topics = |link: &mut triggercast::mqtt::Link| {
        let mut found = Vec::new();
        while let Some(arrivals) = ready_group(link) {
            found.extend(
                arrivals.events.iter().map(|e| details(e)["mqtt_topic"].as_str().unwrap().to_owned()),
            );
            arrivals.receipt.accept();
        }
        found
    };
    assert_eq!(topics(&mut of_device), ["$devices/d2/state", "$devices/d2/commands"]);
    assert_eq!(topics(&mut of_alias), ["$devices/d1/events/x"]);
    assert_eq!(topics(&mut of_state), ["$devices/d2/state"]);
}

#[test]
fn without_a_link_a_publish_is_acknowledged_at_once() {
    let server = server();
    let mut other = server.link(&source(Some("$devices/d2/#")), 8).unwrap();
    let mut raw = Raw::v3(&server, "d1");
    raw.publish(1, 1, EVENTS, b"x");
    raw.expect(&[0x40, 2, 0, 1]);
    raw.publish(2, 2, EVENTS, b"x");
    raw.expect(&[0x50, 2, 0, 2]);
    assert!(ready_group(&mut other).is_none());
}

#[test]
fn a_refusal_is_never_acknowledged_and_closes() {
    for version in [V3, V5] {
        let server = server();
        let mut link = link(&server);
        let mut raw = Hello::new(version, "d1").enter(&server);
        raw.publish(1, 1, EVENTS, b"x");
        drop(group(&mut link).unwrap());
        raw.expect_disconnect(0x83);
    }
}

#[test]
fn links_come_and_go_while_clients_stay() {
    let server = server();
    let mut raw = Raw::v3(&server, "d1");
    for _ in 0..3 {
        raw.publish(1, 1, EVENTS, b"nobody");
        raw.expect(&[0x40, 2, 0, 1]);
        let mut link = link(&server);
        raw.publish(1, 2, EVENTS, b"somebody");
        assert_eq!(payload(&events(&mut link, 1)[0]), b"somebody");
        raw.expect(&[0x40, 2, 0, 2]);
        raw.publish(1, 3, EVENTS, b"late");
        raw.expect_quiet();
        link.close();
        let left = group(&mut link).unwrap();
        left.receipt.accept();
        raw.expect(&[0x40, 2, 0, 3]);
        assert!(group(&mut link).is_none());
    }
}

#[test]
fn a_full_link_holds_the_publisher_back_and_recovers() {
    let server = server();
    let mut link = server.link(&source(None), 2).unwrap();
    let mut raw = Raw::v3(&server, "d1");
    let mut other = Raw::v3(&server, "r");
    for id in 1..=20 {
        raw.publish(1, id, EVENTS, &[id as u8]);
    }
    // The queue is full, so a PINGREQ is not even read; other users' unwanted topics are not affected.
    raw.send(&[0xc0, 0]);
    other.expect_quiet();
    let before = std::time::Instant::now();
    let found: Vec<_> = events(&mut link, 20).iter().map(payload).collect();
    assert_eq!(found, (1..=20).map(|id| vec![id]).collect::<Vec<_>>());
    let mut acks = 0;
    let mut pong = false;
    while acks < 20 || !pong {
        match raw.next().unwrap()[..] {
            [0x40, 2, 0, id] => {
                acks += 1;
                assert_eq!(usize::from(id), acks);
            }
            [0xd0, 0] => pong = true,
            ref other => panic!("{other:x?}"),
        }
    }
    assert!(before.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_held_publisher_can_still_be_taken_over() {
    let server = server();
    let mut link = server.link(&source(None), 1).unwrap();
    let hello = Hello { client: "c".into(), ..Hello::new(V5, "d1") };
    let mut old = hello.enter(&server);
    old.publish(1, 1, EVENTS, b"in the queue");
    old.expect_quiet();
    old.publish(1, 2, EVENTS, b"held");
    let mut new = hello.enter(&server);
    new.expect_quiet();
    loop {
        match old.next() {
            Some(bytes) if bytes[0] == 0x40 => {}
            Some(bytes) => assert_eq!(bytes, [0xe0, 1, 0x8e]),
            None => break,
        }
    }
    drop(group(&mut link));
    new.expect_quiet();
}

#[test]
fn a_goodbye_does_not_outrun_the_messages_before_it() {
    let server = server();
    let mut link = server.link(&source(None), 1).unwrap();
    let mut raw = Raw::v3(&server, "d1");
    let mut all: Vec<u8> = (0..200).flat_map(|i| raw.publish_bytes(0, 0, EVENTS, &[i])).collect();
    all.extend([0xe0, 0]);
    raw.send(&all);
    let found: Vec<_> = events(&mut link, 200).iter().map(payload).collect();
    assert_eq!(found, (0..200).map(|i| vec![i]).collect::<Vec<_>>());
}

#[test]
fn unacknowledged_publishes_are_bounded() {
    let server = server_with(Limits { max_unacknowledged: 4, ..Limits::default() });
    let mut link = link(&server);
    // 3.1.1 has no word for it: the connection is simply not read on.
    let mut raw = Raw::v3(&server, "d1");
    let all: Vec<u8> = (1..=10).flat_map(|id| raw.publish_bytes(1, id, EVENTS, b"x")).collect();
    raw.send(&all);
    let first = group(&mut link).unwrap();
    assert_eq!(first.events.len(), 4);
    first.receipt.accept();
    let mut taken = 4;
    while taken < 10 {
        let arrivals = group(&mut link).unwrap();
        taken += arrivals.events.len();
        arrivals.receipt.accept();
    }
    for id in 1..=10 {
        raw.expect(&[0x40, 2, 0, id]);
    }
    // A 5.0 client was told the number.
    for qos in [1, 2] {
        let mut raw = Raw::v5(&server, "d1");
        let all: Vec<u8> = (1..=5).flat_map(|id| raw.publish_bytes(qos, id, EVENTS, b"x")).collect();
        raw.send(&all);
        let held = group(&mut link);
        raw.expect_disconnect(0x93);
        drop(held);
    }
}

#[test]
fn qos_2_is_delivered_once_within_a_session() {
    let server = server();
    let mut link = link(&server);
    let hello = Hello::persistent(V3, "d1", "c");
    let mut raw = hello.enter(&server);
    raw.publish(2, 7, EVENTS, b"once");
    assert_eq!(events(&mut link, 1).len(), 1);
    raw.expect(&[0x50, 2, 0, 7]);
    let again = raw.publish_with(0x0c, 7, EVENTS, &[], b"once");
    raw.send(&again);
    raw.expect(&[0x50, 2, 0, 7]);
    raw.vanish();

    // The PUBREC was lost, and the client comes back.
    let mut raw = hello.enter(&server);
    assert!(raw.session_present);
    raw.send(&again);
    raw.expect(&[0x50, 2, 0, 7]);
    raw.send(&[0x62, 2, 0, 7]);
    raw.expect(&[0x70, 2, 0, 7]);
    assert!(ready_group(&mut link).is_none());
    raw.publish(2, 7, EVENTS, b"new");
    assert_eq!(payload(&events(&mut link, 1)[0]), b"new");
}

#[test]
fn qos_2_that_was_undecided_when_the_client_vanished_is_not_delivered_again() {
    let server = server();
    let mut link = link(&server);
    let hello = Hello::persistent(V5, "d1", "c");
    let mut raw = hello.enter(&server);
    raw.publish(2, 7, EVENTS, b"once");
    let held = group(&mut link).unwrap();
    raw.vanish();
    let mut raw = hello.enter(&server);
    let again = raw.publish_with(0x0c, 7, EVENTS, &[], b"once");
    raw.send(&again);
    raw.expect_quiet();
    held.receipt.accept();
    raw.expect(&[0x50, 2, 0, 7]);
    assert!(ready_group(&mut link).is_none());
    // And what the engine refused is delivered again.
    raw.publish(2, 8, EVENTS, b"refused");
    drop(group(&mut link));
    raw.expect_disconnect(0x83);
    let mut raw = hello.enter(&server);
    let again = raw.publish_with(0x0c, 8, EVENTS, &[], b"refused");
    raw.send(&again);
    assert_eq!(payload(&events(&mut link, 1)[0]), b"refused");
    raw.expect(&[0x50, 2, 0, 8]);
}

#[test]
fn qos_1_that_was_never_acknowledged_is_known_when_it_is_repeated() {
    let server = server();
    let mut link = link(&server);
    let hello = Hello::persistent(V3, "d1", "c");
    let mut raw = hello.enter(&server);
    raw.publish(1, 7, EVENTS, b"once");
    let held = group(&mut link).unwrap();
    raw.vanish();
    let mut raw = hello.enter(&server);
    let again = raw.publish_with(0x0a, 7, EVENTS, &[], b"once");
    raw.send(&again);
    raw.publish(1, 8, EVENTS, b"next");
    assert_eq!(payload(&events(&mut link, 1)[0]), b"next");
    raw.expect_quiet();
    held.receipt.accept();
    raw.expect(&[0x40, 2, 0, 7]);
    raw.expect(&[0x40, 2, 0, 8]);
    // Clients that begin anew repeat all the same.
    raw.publish(1, 9, EVENTS, b"twice");
    let held = group(&mut link).unwrap();
    raw.vanish();
    let mut raw = Hello { clean: true, ..hello }.enter(&server);
    let again = raw.publish_with(0x0a, 9, EVENTS, &[], b"twice");
    raw.send(&again);
    raw.expect_quiet();
    held.receipt.accept();
    raw.expect(&[0x40, 2, 0, 9]);
    assert!(ready_group(&mut link).is_none());
}

#[test]
fn qos_1_whose_acknowledgement_was_lost_is_known_when_it_is_repeated() {
    for clean in [false, true] {
        let server = server();
        let mut link = link(&server);
        let hello = Hello { clean, ..Hello::persistent(V3, "d1", "c") };
        let mut raw = hello.enter(&server);
        raw.publish(1, 7, EVENTS, b"once");
        events(&mut link, 1);
        raw.expect(&[0x40, 2, 0, 7]);
        raw.vanish();
        let mut raw = hello.enter(&server);
        let again = raw.publish_with(0x0a, 7, EVENTS, &[], b"once");
        raw.send(&again);
        raw.expect(&[0x40, 2, 0, 7]);
        // Another message under the same identifier is another one, marked as a repetition or not.
        let other = raw.publish_with(0x0a, 7, EVENTS, &[], b"other");
        raw.send(&other);
        assert_eq!(payload(&events(&mut link, 1)[0]), b"other");
        raw.expect(&[0x40, 2, 0, 7]);
    }
}

#[test]
fn a_release_of_nothing_is_told() {
    let server = server();
    let mut raw = Raw::v5(&server, "d1");
    raw.send(&[0x62, 2, 0, 9]);
    raw.expect(&[0x70, 3, 0, 9, 0x92]);
    let mut raw = Raw::v3(&server, "d1");
    raw.send(&[0x62, 2, 0, 9]);
    raw.expect(&[0x70, 2, 0, 9]);
}

#[test]
fn events_are_counted_once() {
    let server = server();
    let mut one = link(&server);
    let mut two = link(&server);
    let before = METRICS.events_received.get();
    let mut raw = Raw::v3(&server, "d1");
    raw.publish(0, 0, EVENTS, b"x");
    for link in [&mut one, &mut two] {
        group(link).unwrap().receipt.accept();
    }
    // Other tests count in the same process, so it can only be said that it counts at all.
    assert!(METRICS.events_received.get() > before);
}

#[test]
fn a_link_needs_a_space_and_a_filter() {
    let server = server();
    let unknown = triggercast::model::trigger::MqttTopics::IotMessage {
        registry_id: "nowhere".into(),
        device_id: None,
        mqtt_topic: None,
    };
    assert_eq!(server.link(&unknown, 1).unwrap_err(), LinkError::UnknownRegistry("nowhere".into()));
    let error = server.link(&source(Some("a#")), 1).unwrap_err();
    assert!(error.to_string().starts_with("the topic filter \"a#\" has a misplaced"), "{error}");
}

#[test]
fn stop_waits_for_acknowledgements_then_says_goodbye() {
    let server = server();
    let mut link = link(&server);
    let mut v3 = Raw::v3(&server, "d1");
    let mut v5 = Raw::v5(&server, "d2");
    v3.publish(1, 1, EVENTS, b"x");
    let held = group(&mut link).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| block_on(server.stop(Duration::from_secs(9))));
        // Who waits for nothing goes at once; nobody comes in any more.
        v5.expect_disconnect(0x8b);
        until("a closed port", || std::net::TcpStream::connect(server.local_addr()).is_err());
        held.receipt.accept();
        v3.expect(&[0x40, 2, 0, 1]);
        v3.expect_closed();
    });
    assert!(group(&mut link).is_none());
    assert_eq!(server.link(&source(None), 1).unwrap_err(), LinkError::Stopped);
}

#[test]
fn stop_does_not_wait_longer_than_its_patience() {
    let server = server();
    let mut link = link(&server);
    let mut raw = Raw::v5(&server, "d1");
    raw.publish(1, 1, EVENTS, b"x");
    let held = group(&mut link).unwrap();
    let start = std::time::Instant::now();
    block_on(server.stop(Duration::from_millis(50)));
    assert!(start.elapsed() < Duration::from_secs(3));
    raw.expect_disconnect(0x8b);
    drop(held);
    assert!(group(&mut link).is_none());
}

#[test]
fn links_end_when_the_server_is_dropped_inside_another_runtime() {
    block_on(async {
        let server = server();
        let mut link = link(&server);
        drop(server);
        let end = std::future::poll_fn(|cx| link.poll_next(cx));
        assert!(tokio::time::timeout(crate::raw::LIMIT, end).await.unwrap().is_none());
    });
}
