//! Who publishes and reads what, and under which name: every rule once over the wire.

use crate::raw::{Raw, V5, events, link, packet, ready_group, server, text};

/// The rows that a user may publish to, or not.
const PUBLISH: &[(&str, &str, bool)] = &[
    ("d1", "$devices/d1/events", true),
    ("d1", "$devices/d1/events/a/b", true),
    ("d1", "$devices/d1/state", true),
    ("d1", "$registries/r/events", true),
    ("d1", "$registries/r/state/x", true),
    ("d1", "$me/device/events", true),
    ("d1", "$me/device/state", true),
    ("d1", "hall/one/events/x", true),
    ("d1", "$devices/d1/commands", false),
    ("d1", "$devices/d1/config", false),
    ("d1", "$registries/r/commands", false),
    ("d1", "$registries/r/config", false),
    ("d1", "$registries/r2/events", false),
    ("d1", "$devices/d2/events", false),
    ("d1", "$me/device/commands", false),
    ("d1", "$me/registry/events", false),
    ("d1", "hall/two/events", false),
    ("d1", "free", false),
    ("d1", "$monitoring/d1/json", false),
    ("r", "$devices/d2/commands", true),
    ("r", "$devices/d2/config/x", true),
    ("r", "$registries/r/commands", true),
    ("r", "$registries/r/config", true),
    ("r", "hall/two/commands", true),
    ("r", "$devices/d1/events", false),
    ("r", "$devices/d1/state", false),
    ("r", "$registries/r/events", false),
    ("r", "$devices/d3/commands", false),
    ("b", "any/topic", true),
    ("b", "$devices/d1/events", false),
    ("b", "$x", false),
];

/// The rows that a user may subscribe to, or the code of 5.0.
const SUBSCRIBE: &[(&str, &str, u8)] = &[
    ("d1", "$devices/d1/commands", 1),
    ("d1", "$devices/d1/config/#", 1),
    ("d1", "$registries/r/commands/#", 1),
    ("d1", "$registries/r/config", 1),
    ("d1", "$registries/#", 1),
    ("d1", "$me/device/commands", 1),
    ("d1", "$me/device/config", 1),
    ("d1", "$me/registry/commands/+", 1),
    ("d1", "hall/one/commands", 1),
    ("d1", "#", 1),
    ("d1", "$devices/d1/events", 0x87),
    ("d1", "$devices/d2/commands", 0x87),
    ("d1", "$registries/r/events", 0x87),
    ("d1", "$registries/r2/commands", 0x87),
    ("d1", "$me/device/events", 0x87),
    ("d1", "hall/two/commands", 0x87),
    ("r", "$devices/#", 1),
    ("r", "$devices/+/events/#", 1),
    ("r", "$devices/d1/state", 1),
    ("r", "$registries/r/events", 1),
    ("r", "hall/+/events", 1),
    ("r", "$devices/+", 0x8f),
    ("r", "$registries/+", 0x8f),
    ("r", "$devices/d1/commands", 0x87),
    ("r", "$devices/d3/events", 0x87),
    ("r", "$monitoring/d1/json", 0x87),
    ("r", "$SYS/#", 0x87),
    ("r", "a#", 0x8f),
    ("r", "$share/g/$devices/#", 0x9e),
    ("b", "#", 1),
    ("b", "a/+/b", 1),
    ("b", "$SYS/#", 0x87),
    ("b", "$share/g/a", 0x9e),
];

#[test]
fn publishing_follows_the_table() {
    let server = server();
    for (user, topic, allowed) in PUBLISH {
        let mut v5 = Raw::v5(&server, user);
        v5.publish(1, 7, topic, b"x");
        let expected: &[u8] = if *allowed { &[0x40, 2, 0, 7] } else { &[0x40, 3, 0, 7, 0x87] };
        assert_eq!(v5.next().as_deref(), Some(expected), "{user} {topic}");
        v5.publish(2, 8, topic, b"x");
        let expected: &[u8] = if *allowed { &[0x50, 2, 0, 8] } else { &[0x50, 3, 0, 8, 0x87] };
        assert_eq!(v5.next().as_deref(), Some(expected), "{user} {topic}");
        v5.publish(0, 0, topic, b"x");
        v5.expect_quiet();
        let mut v3 = Raw::v3(&server, user);
        v3.publish(1, 7, topic, b"x");
        let expected = allowed.then_some(&[0x40, 2, 0, 7][..]);
        assert_eq!(v3.next().as_deref(), expected, "{user} {topic}");
    }
}

#[test]
fn subscribing_follows_the_table() {
    let server = server();
    for (user, filter, code) in SUBSCRIBE {
        // QoS 2 is asked for and QoS 1 granted.
        assert_eq!(Raw::v5(&server, user).subscribe(filter, 2), *code, "{user} {filter}");
        let v3 = if *code < 0x80 { *code } else { 0x80 };
        assert_eq!(Raw::v3(&server, user).subscribe(filter, 1), v3, "{user} {filter}");
    }
}

#[test]
fn events_say_canonical_topics_and_devices() {
    let server = server();
    let mut link = link(&server);
    for (user, topic, canonical, device) in [
        ("d1", "$devices/d1/events", "$devices/d1/events", "d1"),
        ("d1", "$me/device/state/x", "$devices/d1/state/x", "d1"),
        ("d1", "hall/one/events/x", "$devices/d1/events/x", "d1"),
        ("d1", "$registries/r/events", "$registries/r/events", "d1"),
        ("r", "$registries/r/commands", "$registries/r/commands", ""),
        ("r", "hall/two/commands", "$devices/d2/commands", "d2"),
    ] {
        let mut raw = Raw::v3(&server, user);
        raw.publish(1, 1, topic, b"hi");
        let details = events(&mut link, 1).remove(0);
        let expected = serde_json::json!({
            "registry_id": "r", "device_id": device, "mqtt_topic": canonical, "payload": "aGk=",
        });
        assert_eq!(details, expected);
        raw.expect(&[0x40, 2, 0, 1]);
    }
}

#[test]
fn deliveries_carry_the_name_that_was_subscribed_to() {
    let server = server();
    let mut device = Raw::v3(&server, "d1");
    for filter in ["$me/device/commands/#", "hall/+/commands/#", "$devices/d1/commands/#"] {
        assert_eq!(device.subscribe(filter, 0), 0);
    }
    Raw::v3(&server, "r").publish(0, 0, "hall/one/commands/go", b"now");
    let mut names: Vec<_> = (0..3).map(|_| device.topic_and_text().0).collect();
    names.sort();
    assert_eq!(names, ["$devices/d1/commands/go", "$me/device/commands/go", "hall/one/commands/go"]);
    device.expect_quiet();
}

#[test]
fn a_registry_sees_its_own_devices_only() {
    let server = server();
    let mut registry = Raw::v3(&server, "r");
    assert_eq!(registry.subscribe("$devices/#", 1), 1);
    assert_eq!(registry.subscribe("#", 1), 1);
    let mut other = Raw::v3(&server, "d3");
    other.publish(1, 1, "$devices/d3/events", b"not yours");
    other.expect(&[0x40, 2, 0, 1]);
    let mut writer = Raw::v3(&server, "r");
    writer.publish(1, 1, "$devices/d1/commands", b"not readable");
    writer.expect(&[0x40, 2, 0, 1]);
    Raw::v3(&server, "d1").publish(0, 0, "$devices/d1/events", b"yours");
    // Once under its own name, once under its alias, which `#` matches.
    let mut found = [registry.topic_and_text(), registry.topic_and_text()];
    found.sort();
    assert_eq!(
        found,
        [
            ("$devices/d1/events".to_owned(), "yours".to_owned()),
            ("hall/one/events".to_owned(), "yours".to_owned())
        ]
    );
    registry.expect_quiet();
}

#[test]
fn a_broker_is_a_space_of_its_own() {
    let server = server();
    let source = triggercast::model::trigger::MqttTopics::IotBrokerMessage {
        broker_id: "b".into(),
        mqtt_topic: Some("hall/#".into()),
    };
    let mut link = server.link(&source, 8).unwrap();
    let mut reader = Raw::v3(&server, "b");
    assert_eq!(reader.subscribe("#", 1), 1);
    let mut writer = Raw::v3(&server, "b");
    writer.publish(0, 0, "other", b"1");
    writer.publish(0, 0, "hall/two", b"2");
    Raw::v3(&server, "d2").publish(0, 0, "hall/two/events", b"3");
    let details = events(&mut link, 1).remove(0);
    let expected = serde_json::json!({"broker_id": "b", "mqtt_topic": "hall/two", "payload": "Mg=="});
    assert_eq!(details, expected);
    assert_eq!(reader.topic_and_text().1, "1");
    assert_eq!(reader.topic_and_text().1, "2");
    reader.expect_quiet();
    assert!(ready_group(&mut link).is_none());
}

#[test]
fn overlapping_subscriptions_deliver_once_with_the_highest_qos() {
    let server = server();
    let mut registry = Raw::v5(&server, "r");
    registry.subscribe_with("$devices/#", 0, &[0x0b, 1]);
    registry.subscribe_with("$devices/+/events", 1, &[0x0b, 2]);
    Raw::v3(&server, "d1").publish(1, 1, "$devices/d1/events", b"x");
    let message = registry.message();
    assert_eq!(message.flags, 0x02);
    let mut ids: Vec<_> = message.properties.chunks(2).map(|p| (p[0], p[1])).collect();
    ids.sort_unstable();
    assert_eq!(ids, [(0x0b, 1), (0x0b, 2)]);
    registry.puback(message.id);
    registry.expect_quiet();
}

#[test]
fn permanent_topics_are_given_to_exact_subscriptions() {
    let server = server();
    let mut device = Raw::v3(&server, "d1");
    // The RETAIN flag changes nothing, on a permanent topic or another.
    let retained = device.publish_with(0x03, 1, "$devices/d1/state", &[], b"on");
    device.send(&retained);
    device.expect(&[0x40, 2, 0, 1]);
    let retained = device.publish_with(0x03, 2, "$devices/d1/events", &[], b"no");
    device.send(&retained);
    device.expect(&[0x40, 2, 0, 2]);

    let mut registry = Raw::v3(&server, "r");
    for filter in ["$devices/d1/#", "$devices/+/state", "$devices/d1/events"] {
        registry.subscribe(filter, 1);
        registry.expect_quiet();
    }
    registry.subscribe("$devices/d1/state", 1);
    let message = registry.message();
    assert_eq!((message.flags, &message.payload[..]), (0x03, &b"on"[..]));
    registry.subscribe("hall/one/state", 0);
    let message = registry.message();
    assert_eq!((message.flags, &message.topic[..]), (0x01, "hall/one/state"));
    // A live message is not marked as kept.
    device.publish(0, 0, "$devices/d1/state", b"off");
    assert_eq!(registry.message().flags & 1, 0);
}

#[test]
fn retain_handling_is_honoured() {
    let server = server();
    let mut writer = Raw::v3(&server, "r");
    writer.publish(1, 1, "$devices/d1/config", b"c");
    writer.expect(&[0x40, 2, 0, 1]);
    let mut device = Raw::v5(&server, "d1");
    device.subscribe("$me/device/config", 0x20);
    device.expect_quiet();
    device.subscribe("$me/device/config", 0x10);
    device.expect_quiet();
    device.subscribe("$me/device/config", 0x00);
    assert_eq!(device.topic_and_text(), ("$me/device/config".into(), "c".into()));
    device.unsubscribe("$me/device/config");
    device.subscribe("$me/device/config", 0x10);
    assert_eq!(device.topic_and_text().1, "c");
}

#[test]
fn unsubscribing_ends_it() {
    let server = server();
    let mut registry = Raw::v5(&server, "r");
    registry.subscribe("$devices/#", 0);
    assert_eq!(registry.unsubscribe("$devices/#"), [0xb0, 4, 0, 8, 0, 0]);
    assert_eq!(registry.unsubscribe("$devices/#"), [0xb0, 4, 0, 8, 0, 0x11]);
    let mut device = Raw::v3(&server, "d1");
    device.publish(1, 1, "$devices/d1/events", b"x");
    device.expect(&[0x40, 2, 0, 1]);
    registry.expect_quiet();
    assert_eq!(Raw::v3(&server, "r").unsubscribe("$devices/#"), [0xb0, 2, 0, 8]);
}

#[test]
fn no_local_keeps_own_messages_away() {
    let server = server();
    let mut one = Raw::v5(&server, "b");
    let mut two = Raw::v5(&server, "b");
    one.subscribe("a", 0x04);
    two.subscribe("a", 0x00);
    one.publish(0, 0, "a", b"from one");
    assert_eq!(two.topic_and_text().1, "from one");
    two.publish(0, 0, "a", b"from two");
    assert_eq!(two.topic_and_text().1, "from two");
    assert_eq!(one.topic_and_text().1, "from two");
    one.expect_quiet();
}

#[test]
fn properties_reach_subscribers() {
    let server = server();
    let mut reader = Raw::v5(&server, "b");
    let mut old = Raw::v3(&server, "b");
    reader.subscribe_with("a", 0, &[0x0b, 5]);
    old.subscribe("a", 0);
    let mut writer = Raw::v5(&server, "b");
    let user = [&[0x26][..], &text("k"), &text("v")].concat();
    let sent = [&[0x23, 0, 1, 0x02, 0, 0, 0, 100][..], &user, &[0x01, 1]].concat();
    let bytes = writer.publish_with(0, 0, "a", &sent, b"x");
    writer.send(&bytes);
    let message = reader.message();
    // The alias is the writer's own; the expiry counts down, the identifier is the reader's.
    assert_eq!(message.properties[0], 0x02);
    assert!((99..=100).contains(&message.properties[4]));
    assert_eq!(message.properties[5..], [&[0x0b, 5][..], &user, &[0x01, 1]].concat());
    assert_eq!(old.topic_and_text(), ("a".into(), "x".into()));
}

#[test]
fn topic_aliases_stand_for_topics() {
    let server = server();
    let mut link = link(&server);
    let mut device = Raw::v5(&server, "d1");
    let set = device.publish_with(0, 0, "$me/device/events", &[0x23, 0, 32], b"1");
    let used = device.publish_with(0, 0, "", &[0x23, 0, 32], b"2");
    device.send(&[set, used].concat());
    let found = events(&mut link, 2);
    assert!(found.iter().all(|d| d["mqtt_topic"] == "$devices/d1/events"));
    for wrong in [&[0x23, 0, 33][..], &[0x23, 0, 0], &[0x23, 0, 5]] {
        let mut device = Raw::v5(&server, "d1");
        let bytes = device.publish_with(0, 0, "", wrong, b"x");
        device.send(&bytes);
        device.expect_disconnect(0x94);
    }
}

#[test]
fn subscriptions_are_bounded() {
    let limits = triggercast::mqtt::Limits { max_subscriptions: 2, ..Default::default() };
    let server = crate::raw::server_with(limits);
    let mut raw = Raw::v5(&server, "b");
    assert_eq!([raw.subscribe("a", 0), raw.subscribe("b", 0), raw.subscribe("c", 0)], [0, 0, 0x97]);
    assert_eq!(raw.subscribe("a", 1), 1);
    raw.unsubscribe("b");
    assert_eq!(raw.subscribe("c", 0), 0);
}

#[test]
fn one_subscribe_may_hold_good_and_bad_filters() {
    let server = server();
    let mut raw = Raw::v5(&server, "r");
    let filters = [text("$devices/#"), vec![1], text("$devices/+"), vec![1], text("#"), vec![0]].concat();
    raw.send(&packet(0x82, &[&[0, 3, 0], &filters]));
    raw.expect(&[0x90, 6, 0, 3, 0, 1, 0x8f, 0]);
    assert_eq!(raw.version, V5);
}
