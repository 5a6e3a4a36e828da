//! What a client leaves behind and finds again: subscriptions, deliveries, wills; and who may sit where.

use std::time::{Duration, Instant};

use triggercast::mqtt::{Limits, Server};

use crate::raw::{Hello, Raw, V3, V5, block_on, events, link, payload, server, server_with, until};

/// Publishes to the broker's space and waits until it is acknowledged.
fn publish(server: &Server, topic: &str, texts: impl IntoIterator<Item = impl AsRef<[u8]>>) {
    let mut raw = Raw::v3(server, "b");
    for text in texts {
        raw.publish(1, 1, topic, text.as_ref());
        raw.expect(&[0x40, 2, 0, 1]);
    }
    raw.leave();
}

#[test]
fn a_persistent_session_gets_what_it_missed_in_order() {
    let server = server();
    for version in [V3, V5] {
        let hello = Hello::persistent(version, "b", "c");
        let mut raw = hello.enter(&server);
        assert!(!raw.session_present);
        assert_eq!(raw.subscribe("a", 1), 1);
        publish(&server, "a", ["1", "2"]);
        // The first is acknowledged, the second is not.
        let first = raw.message();
        raw.puback(first.id);
        let second = raw.message();
        raw.vanish();
        publish(&server, "a", ["3", "4"]);

        let mut raw = hello.enter(&server);
        assert!(raw.session_present);
        let again = raw.message();
        assert_eq!((again.flags, again.id, &again.payload[..]), (0x0a, second.id, &b"2"[..]));
        for expected in ["3", "4"] {
            let message = raw.message();
            assert_eq!((message.flags, message.payload), (0x02, expected.as_bytes().to_vec()));
            raw.puback(message.id);
        }
        raw.puback(again.id);
        raw.expect_quiet();
        raw.leave();

        let mut raw = Hello { clean: true, ..hello.clone() }.enter(&server);
        assert!(!raw.session_present);
        publish(&server, "a", ["5"]);
        raw.expect_quiet();
        raw.leave();
        // A clean session of 3.1.1 leaves nothing.
        let raw = hello.enter(&server);
        assert_eq!(raw.session_present, version == V5);
        Hello { clean: true, properties: vec![], ..hello.clone() }.enter(&server).leave();
    }
}

#[test]
fn a_clean_session_leaves_nothing() {
    let server = server();
    let hello = Hello { client: "c".into(), ..Hello::new(V5, "b") };
    let mut raw = hello.enter(&server);
    raw.subscribe("a", 1);
    raw.leave();
    let mut raw = Hello { clean: false, ..hello }.enter(&server);
    assert!(!raw.session_present);
    publish(&server, "a", ["x"]);
    raw.expect_quiet();
}

#[test]
fn a_goodbye_may_change_the_session_expiry() {
    let server = server();
    let hello = Hello::persistent(V5, "b", "c");
    let mut raw = hello.enter(&server);
    raw.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]);
    raw.expect_closed();
    assert!(!hello.enter(&server).session_present);
    // What was to end with the connection cannot be kept after all.
    let mut raw = Raw::v5(&server, "b");
    raw.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 9]);
    raw.expect_disconnect(0x82);
}

#[test]
fn sessions_expire() {
    let server = server_with(Limits { session_expiry: Duration::from_millis(50), ..Limits::default() });
    let hello = Hello::persistent(V3, "b", "c");
    // 3.1.1 sessions are counted in whole seconds of the limit: this one ends with its connection.
    hello.enter(&server).leave();
    assert!(!hello.enter(&server).session_present);
    let hello = Hello { properties: vec![0x11, 0, 0, 0, 1], ..Hello::persistent(V5, "b", "v5") };
    hello.enter(&server).leave();
    let raw = hello.enter(&server);
    assert!(raw.session_present);
    raw.leave();
    let start = Instant::now();
    until("the session's end", || start.elapsed() > Duration::from_millis(1100));
    assert!(!hello.enter(&server).session_present);
}

#[test]
fn the_session_away_for_longest_makes_room() {
    let server = server_with(Limits { max_offline_sessions: 2, ..Limits::default() });
    for client in ["one", "two", "three"] {
        let raw = Hello::persistent(V3, "b", client).enter(&server);
        raw.leave();
    }
    let present = |client: &str| Hello::persistent(V3, "b", client).enter(&server).session_present;
    until("one forgotten", || {
        // Asking with a new client id leaves the others alone.
        !present("one")
    });
    assert!(present("three"));
}

#[test]
fn the_offline_queue_keeps_the_newest() {
    let server = server_with(Limits { max_offline_queued: 3, ..Limits::default() });
    let hello = Hello::persistent(V3, "b", "c");
    let mut raw = hello.enter(&server);
    raw.subscribe("a", 1);
    raw.leave();
    publish(&server, "a", (0..10).map(|i| i.to_string()));
    let mut raw = hello.enter(&server);
    for expected in ["7", "8", "9"] {
        assert_eq!(raw.topic_and_text().1, expected);
    }
    raw.expect_quiet();
}

#[test]
fn an_expired_message_is_not_delivered_late() {
    let server = server();
    let hello = Hello::persistent(V5, "b", "c");
    let mut raw = hello.enter(&server);
    raw.subscribe("a", 1);
    raw.leave();
    let mut writer = Raw::v5(&server, "b");
    for (id, seconds, text) in [(1, 1, "short"), (2, 100, "long")] {
        let bytes = writer.publish_with(2, id, "a", &[2, 0, 0, 0, seconds], text.as_bytes());
        writer.send(&bytes);
        writer.expect(&[0x40, 2, 0, id as u8]);
    }
    let start = Instant::now();
    until("the first one's end", || start.elapsed() > Duration::from_millis(1100));
    assert_eq!(hello.enter(&server).topic_and_text().1, "long");
}

#[test]
fn the_receive_maximum_of_a_client_is_honoured() {
    let server = server();
    let mut raw = Hello { properties: vec![0x21, 0, 2], ..Hello::new(V5, "b") }.enter(&server);
    raw.subscribe("a", 1);
    publish(&server, "a", ["1", "2", "3"]);
    let (one, two) = (raw.message(), raw.message());
    raw.expect_quiet();
    raw.puback(one.id);
    assert_eq!(raw.message().payload, b"3");
    raw.puback(two.id);
}

#[test]
fn the_maximum_packet_size_of_a_client_is_honoured() {
    let server = server();
    let mut raw = Hello { properties: vec![0x27, 0, 0, 0, 20], ..Hello::new(V5, "b") }.enter(&server);
    raw.subscribe("a", 1);
    publish(&server, "a", ["a text that does not fit", "fits"]);
    assert_eq!(raw.topic_and_text().1, "fits");
    raw.expect_quiet();
}

#[test]
fn a_will_is_published_for_the_lost() {
    let server = server();
    let mut link = link(&server);
    let mut watcher = Raw::v5(&server, "r");
    watcher.subscribe("$devices/#", 1);
    let user = [&[0x26][..], &crate::raw::text("k"), &crate::raw::text("v")].concat();
    let hello = |version| Hello {
        will: Some((0x08, user.clone(), "$me/device/events".into(), "lost".into())),
        ..Hello::new(version, "d1")
    };
    for version in [V3, V5] {
        let raw = hello(version).enter(&server);
        raw.vanish();
        assert_eq!(payload(&events(&mut link, 1)[0]), b"lost");
        let message = watcher.message();
        assert_eq!((&message.topic[..], message.flags & 6), ("$devices/d1/events", 2));
        assert_eq!(message.properties, if version == V5 { &user[..] } else { &[] });
        watcher.puback(message.id);
    }
    // Not after a goodbye, unless the goodbye asks for it.
    hello(V5).enter(&server).leave();
    watcher.expect_quiet();
    let mut raw = hello(V5).enter(&server);
    raw.send(&[0xe0, 1, 4]);
    assert_eq!(watcher.topic_and_text().1, "lost");
    // And after a protocol error.
    let mut raw = hello(V3).enter(&server);
    raw.send(&[0, 0]);
    raw.expect_closed();
    assert_eq!(watcher.topic_and_text().1, "lost");
}

#[test]
fn a_silent_client_is_lost_after_one_and_a_half_keep_alives() {
    let server = server();
    let mut watcher = Raw::v3(&server, "r");
    watcher.subscribe("$devices/#", 0);
    let will = Some((0, vec![], "$devices/d1/state".into(), "silent".into()));
    let start = Instant::now();
    let mut raw = Hello { keep_alive: 1, will, ..Hello::new(V5, "d1") }.enter(&server);
    let mut forever = Hello { keep_alive: 0, ..Hello::new(V3, "d2") }.enter(&server);
    raw.expect(&[0xe0, 1, 0x8d]);
    assert!((1400..4000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert_eq!(watcher.topic_and_text(), ("$devices/d1/state".into(), "silent".into()));
    forever.expect_quiet();
}

#[test]
fn a_will_may_wait_for_the_client_to_return() {
    let server = server();
    let mut watcher = Raw::v3(&server, "r");
    watcher.subscribe("$devices/#", 0);
    let hello = |delay: u8| Hello {
        will: Some((0, vec![0x18, 0, 0, 0, delay], "$devices/d1/events".into(), "lost".into())),
        ..Hello::persistent(V5, "d1", "c")
    };
    // It comes back in time: no will. Taken over with a delay: none either.
    hello(100).enter(&server).vanish();
    let old = hello(100).enter(&server);
    assert!(old.session_present);
    let new = hello(1).enter(&server);
    watcher.expect_quiet();
    // It does not come back.
    let start = Instant::now();
    new.vanish();
    assert_eq!(watcher.topic_and_text().1, "lost");
    assert!(start.elapsed() >= Duration::from_millis(950), "{:?}", start.elapsed());
    // It begins anew: the old session ends, and its will is published.
    hello(100).enter(&server).vanish();
    let raw = Hello { clean: true, will: None, ..hello(0) }.enter(&server);
    assert!(!raw.session_present);
    assert_eq!(watcher.topic_and_text().1, "lost");
    drop(old);
}

#[test]
fn a_takeover_closes_the_old_connection() {
    let server = server();
    let hello = Hello::persistent(V5, "b", "c");
    let mut old = hello.enter(&server);
    old.subscribe("a", 1);
    let mut new = hello.enter(&server);
    assert!(new.session_present);
    old.expect_disconnect(0x8e);
    publish(&server, "a", ["for the new one"]);
    assert_eq!(new.topic_and_text().1, "for the new one");
}

#[test]
fn a_thousand_takeovers_lose_nothing() {
    let server = server();
    let hello = Hello::persistent(V3, "b", "c");
    let mut raw = hello.enter(&server);
    raw.subscribe("a", 1);
    let mut writer = Raw::v3(&server, "b");
    let mut seen = vec![false; 1000];
    for i in 0..1000 {
        writer.publish(1, 1, "a", i.to_string().as_bytes());
        writer.expect(&[0x40, 2, 0, 1]);
        raw = hello.enter(&server);
        assert!(raw.session_present, "{i}");
        note(&mut raw, &mut seen);
    }
    // The next takeover may come before an acknowledgement; that message then comes once more.
    while !seen.iter().all(|seen| *seen) {
        note(&mut raw, &mut seen);
    }
}

/// Takes one message, which is a number, and acknowledges it.
fn note(raw: &mut Raw, seen: &mut [bool]) {
    let message = raw.message();
    seen[String::from_utf8(message.payload).unwrap().parse::<usize>().unwrap()] = true;
    raw.puback(message.id);
}

#[test]
fn of_many_claims_at_once_one_is_left() {
    let server = server();
    let hello = Hello::persistent(V3, "b", "c");
    for _ in 0..5 {
        let hellos: Vec<_> = (0..8)
            .map(|_| {
                let mut raw = Raw::open(server.local_addr());
                raw.send(&hello.bytes());
                raw
            })
            .collect();
        // All but one are closed, welcomed or not; whoever is left is served.
        let mut left = 0;
        for mut raw in hellos {
            raw.try_send(&[0xc0, 0]);
            raw.stream().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            let stays =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| while raw.next().is_some() {}));
            left += usize::from(stays.is_err());
        }
        assert!(left <= 1, "{left} connections share a session");
    }
    hello.enter(&server).expect_quiet();
}

#[test]
fn stopping_publishes_no_wills() {
    let server = server();
    let mut watched = link(&server);
    let will = Some((0, vec![], "$devices/d1/events".into(), "lost".into()));
    let mut raw = Hello { will, ..Hello::new(V5, "d1") }.enter(&server);
    block_on(server.stop(Duration::from_secs(1)));
    raw.expect_disconnect(0x8b);
    assert!(crate::raw::group(&mut watched).is_none());
}
