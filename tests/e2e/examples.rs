//! What stands in `examples/` works: publishers reach subscribers, and breaks cost neither of them an event.

use std::process::Command;

use serde_json::json;

use crate::common::{FACTORY, Listener, TestServer, config, example, free_port, run, trigger};

/// A configuration with a trigger on all events, and MQTT on this port.
fn factory(mqtt: &str) -> String {
    let source = "iot_message: { registry_id: factory, mqtt_topic: \"$devices/+/events\", batch_settings: \
                  { max_count: 3, cutoff: 100ms } }";
    config(&format!("{FACTORY}triggers:\n{}", trigger("telemetry", source, "/ws")))
        .replace("mqtt: { listen: \"127.0.0.1:0\" }", &format!("mqtt: {{ listen: \"127.0.0.1:{mqtt}\" }}"))
}

/// A publisher of the examples, with so many readings.
fn publisher(name: &str, device: &str, port: &str, count: usize) -> Command {
    let mut command = example(name);
    let number = device.trim_start_matches("press-");
    command.args(["127.0.0.1", port]).env("DEVICE", device).env("COUNT", count.to_string());
    command.env("PASSWORD", format!("Press-{number}-demo-1")).env("EVERY", "0.01");
    command
}

#[test]
fn subscribers_of_the_examples_print_every_event_once_over_a_break() {
    let server = TestServer::start(&factory("0"));
    let url = server.url("/ws?since=1h");
    let mut python = Listener::spawn(example("subscribe.py").arg(&url));
    let mut node = Listener::spawn(example("subscribe.js").arg(&url));
    let mut all = server.websocket("/ws?since=1h");
    for (name, device) in [("publish.py", "press-1"), ("publish.sh", "press-2"), ("publish.py", "press-2")] {
        run(&mut publisher(name, device, &server.mqtt_port(), 5));
        let topic = format!("$devices/{device}/events");
        let events = all.events(5);
        for event in &events {
            assert_eq!(event.topic, topic);
            let line = python.line();
            assert!(line.ends_with(&format!("Z {topic} {}", event.payload)), "{line}");
            assert_eq!(node.line(), line);
        }
        // They come back, and go on after what they have printed.
        server.done("POST", "/triggercast/v1/connections:disconnect", &json!({ "gatewayId": "main" }));
        all = server.websocket(&format!("/ws?last_event_id={}", events[4].id));
    }
}

#[test]
fn the_publisher_of_the_examples_keeps_what_the_server_is_not_there_for() {
    let port = free_port().to_string();
    let folder = tempfile::tempdir().unwrap();
    // Without a server it waits, and then sends everything in order.
    let mut publisher = publisher("publish.py", "press-1", &port, 20).spawn().unwrap();
    let server = TestServer::start_in(folder.path(), &factory(&port));
    let count = server.websocket("/ws?since=1h").events(20).len();
    assert_eq!((count, publisher.wait().unwrap().success()), (20, true));
}
