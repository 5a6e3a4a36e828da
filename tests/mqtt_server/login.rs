//! Who gets in, and what the others hear.

use triggercast::mqtt::Limits;

use crate::raw::{Hello, Raw, V3, V5, server, server_with, text};

#[test]
fn logins_follow_the_table() {
    let server = server();
    for (user, password, v3, v5) in [
        ("d1", Some("d1-password"), 0, 0),
        ("r", Some("r-password"), 0, 0),
        ("b", Some("b-password"), 0, 0),
        ("d1", Some("wrong"), 4, 0x86),
        ("d1", Some(""), 4, 0x86),
        ("d1", Some("d2-password"), 4, 0x86),
        ("locked", Some(""), 4, 0x86),
        ("locked", Some("locked-password"), 4, 0x86),
        ("nobody", Some("d1-password"), 4, 0x86),
        ("", None, 5, 0x87),
        ("d1", None, 5, 0x87),
    ] {
        for (version, code) in [(V3, v3), (V5, v5)] {
            let hello = Hello { password: password.map(Into::into), ..Hello::new(version, user) };
            let (mut raw, answer) = hello.knock(server.local_addr());
            assert_eq!(answer[0], 0x20);
            assert_eq!(answer[3], code, "{user} {password:?} {version}");
            if code != 0 {
                raw.expect_closed();
            }
        }
    }
}

#[test]
fn a_connack_tells_what_the_server_does() {
    let server = server();
    let hello = Hello { client: "me".into(), ..Hello::new(V5, "d1") };
    let (_raw, answer) = hello.knock(server.local_addr());
    // Receive maximum 1024, no RETAIN, 344,064 bytes, 32 aliases, no shared subscriptions; QoS 2 is not
    // ruled out, so there is no Maximum QoS.
    assert_eq!(answer, b"\x20\x12\x00\x00\x0f\x21\x04\x00\x25\x00\x27\x00\x05\x40\x00\x22\x00\x20\x2a\x00");
    let (_raw, answer) = Hello::new(V3, "d1").knock(server.local_addr());
    assert_eq!(answer, [0x20, 2, 0, 0]);
}

#[test]
fn an_empty_client_id_is_assigned() {
    let server = server();
    let (_raw, answer) = Hello::new(V5, "d1").knock(server.local_addr());
    assert!(answer.windows(7).any(|part| part[0] == 0x12 && &part[3..] == b"auto"), "{answer:x?}");
    let hello = Hello { clean: false, ..Hello::new(V3, "d1") };
    let (mut raw, answer) = hello.knock(server.local_addr());
    assert_eq!(answer, [0x20, 2, 0, 2]);
    raw.expect_closed();
}

#[test]
fn a_session_expiry_that_is_too_long_is_cut() {
    let server = server();
    let hello = Hello { properties: vec![0x11, 0xff, 0xff, 0xff, 0xff], ..Hello::persistent(V5, "d1", "c") };
    let (_raw, answer) = hello.knock(server.local_addr());
    assert!(answer.windows(5).any(|part| part == [0x11, 0, 1, 0x51, 0x80]), "{answer:x?}");
}

#[test]
fn what_is_not_offered_is_refused() {
    let server = server();
    let auth = [&[0x15][..], &text("SCRAM-SHA-1")].concat();
    let (mut raw, answer) = Hello { properties: auth, ..Hello::new(V5, "d1") }.knock(server.local_addr());
    assert_eq!(answer, [0x20, 3, 0, 0x8c, 0]);
    raw.expect_closed();

    let (mut raw, answer) = Hello::new(6, "d1").knock(server.local_addr());
    assert_eq!(answer, [0x20, 2, 0, 1]);
    raw.expect_closed();
}

#[test]
fn protocol_3_1_gets_in() {
    let server = server();
    let mut raw = Raw::open(server.local_addr());
    let tail = [&text("old")[..], &text("d1"), &text("d1-password")].concat();
    raw.send(&crate::raw::packet(0x10, &[&text("MQIsdp"), &[3, 0xc2, 0, 0], &tail]));
    raw.expect(&[0x20, 2, 0, 0]);
}

#[test]
fn a_will_is_checked_at_the_door() {
    let server = server();
    for (flags, topic, v3, v5) in [
        (0, "$devices/d1/events", 0, 0),
        (0, "$me/device/state", 0, 0),
        (0, "$devices/d2/events", 5, 0x87),
        (0, "$devices/d1/commands", 5, 0x87),
        (0, "$devices/+/events", 5, 0x90),
        (0x20, "$devices/d1/events", 0, 0x9a),
    ] {
        for (version, code) in [(V3, v3), (V5, v5)] {
            let will = Some((flags, vec![], topic.into(), "gone".into()));
            let (_raw, answer) = Hello { will, ..Hello::new(version, "d1") }.knock(server.local_addr());
            assert_eq!(answer[3], code, "{topic} {version}");
        }
    }
}

#[test]
fn one_user_cannot_throw_another_out() {
    let server = server();
    let hello = |user| Hello { client: "same".into(), ..Hello::new(V3, user) };
    let mut one = hello("d1").enter(&server);
    let mut two = hello("d2").enter(&server);
    one.expect_quiet();
    two.expect_quiet();
    let mut again = hello("d1").enter(&server);
    one.expect_closed();
    two.expect_quiet();
    again.expect_quiet();
}

#[test]
fn there_are_no_more_connections_than_allowed() {
    let server = server_with(Limits { max_connections: 2, ..Limits::default() });
    let mut one = Raw::v3(&server, "d1");
    let two = Raw::v3(&server, "d2");
    let mut three = Raw::open(server.local_addr());
    three.try_send(&Hello::new(V3, "d1").bytes());
    three.expect_closed();
    one.expect_quiet();
    two.leave();
    // The place is free as soon as the connection's task has ended.
    crate::raw::until("a free place", || {
        let mut raw = Raw::open(server.local_addr());
        raw.try_send(&Hello::new(V3, "d2").bytes());
        raw.next().is_some()
    });
}
