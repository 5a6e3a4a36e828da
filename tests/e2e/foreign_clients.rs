//! Clients that we did not write publish and listen; triggers of every kind pick out what they should.

use crate::common::{FACTORY, Listener, Mosquitto, TestServer, config, events, run, script, trigger};

const SIZE_1: &str = "batch_settings: { max_count: 1, cutoff: 1s }";

fn factory_server() -> TestServer {
    let source =
        format!("iot_message: {{ registry_id: factory, mqtt_topic: \"$devices/+/events\", {SIZE_1} }}");
    TestServer::start(&config(&format!("{FACTORY}triggers:\n{}", trigger("telemetry", &source, "/ws"))))
}

fn payloads(messages: &[String]) -> Vec<String> {
    messages.iter().flat_map(|text| events(text)).map(|event| event.payload).collect()
}

#[test]
fn mosquitto_pub_reaches_python_node_and_plain_listeners_alike() {
    let server = factory_server();
    let mut python = Listener::start(script("listen.py").arg(server.url("/ws")));
    let mut node = Listener::start(script("listen.js").arg(server.url("/ws")));
    let mut plain = server.websocket("/ws");
    for qos in ["0", "1", "2"] {
        for version in ["mqttv311", "mqttv5"] {
            let text = format!("{version} {qos}");
            let rest = ["-V", version, "-q", qos, "-t", "$devices/press-1/events", "-m", &text];
            run(&mut server.mosquitto_pub("press-1", "Press-1-demo-1", &rest));
            let message = plain.text();
            assert_eq!(payloads(std::slice::from_ref(&message)), [text]);
            assert_eq!(python.line(), message);
            assert_eq!(node.line(), message);
        }
    }
    assert!(server.stop().success());
    assert_eq!(python.line(), "closed 1012");
    assert_eq!(node.line(), "closed 1012");
}

#[test]
fn paho_and_mqtt_js_publish_in_both_versions_with_every_qos() {
    let server = factory_server();
    let mut plain = server.websocket("/ws");
    for name in ["publish.py", "publish.js"] {
        for version in ["3.1.1", "5"] {
            for qos in ["0", "1", "2"] {
                let port = server.mqtt_port();
                let login = [&port, "press-2", "Press-2-demo-1"];
                let words = [version, qos, "$devices/press-2/events", "one", "two", "three"];
                assert_eq!(run(script(name).args(login).args(words)), "published\n");
                let got: Vec<_> = plain.events(3).into_iter().map(|event| event.payload).collect();
                assert_eq!(got, ["one", "two", "three"], "{name} {version} {qos}");
            }
        }
    }
}

#[test]
fn a_message_has_exactly_the_model_systems_form() {
    let server = factory_server();
    let mut socket = server.websocket("/ws");
    server.publish("$devices/press-1/events", r#"{"t":21}"#);
    let text = socket.text();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let id = json["messages"][0]["event_metadata"]["event_id"].as_str().unwrap();
    let at = json["messages"][0]["event_metadata"]["created_at"].as_str().unwrap();
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7);
    assert_eq!((at.len(), &at[10..11], &at[19..20], &at[29..]), (30, "T", ".", "Z"), "{at}");
    assert_eq!(
        text,
        format!(
            concat!(
                r#"{{"messages":[{{"event_metadata":{{"event_id":"{id}","event_type":"yandex.cloud.events.iot.IoTMessage","#,
                r#""created_at":"{at}"}},"details":{{"registry_id":"factory","device_id":"press-1","#,
                r#""mqtt_topic":"$devices/press-1/events","payload":"eyJ0IjoyMX0="}}}}]}}"#
            ),
            id = id,
            at = at
        )
    );
}

#[test]
fn each_kind_of_trigger_takes_its_topics_and_no_others() {
    let all = format!("iot_message: {{ registry_id: factory, {SIZE_1} }}");
    let device = format!("iot_message: {{ registry_id: factory, device_id: press-2, {SIZE_1} }}");
    let v1 = "  - name: first-form\n    rule:\n      iot_message:\n        registry_id: factory\n        \
              mqtt_topic: $devices/press-1/state/#\n        batch_settings: { size: \"1\", cutoff: 0s }\n        \
              gateway_websocket_broadcast: { gateway_id: main, path: /small, service_account_id: broadcaster }\n";
    let alias = format!("iot_message: {{ registry_id: factory, mqtt_topic: hall/press-1/events, {SIZE_1} }}");
    let triggers =
        [trigger("all", &all, "/ws"), trigger("device", &device, "/other"), v1.to_owned()].concat();
    let listed =
        "  - name: by-alias\n    source: { SOURCE }\n    action:\n      - gateway_websocket_broadcast: \
                  { gateway_id: listed, path: /ws, service_account_id: broadcaster }\n"
            .replace("SOURCE", &alias);
    let server = TestServer::start(&config(&format!("{FACTORY}triggers:\n{triggers}{listed}")));
    let mut all = server.websocket("/ws");
    let mut device = server.websocket("/other");
    let mut state = server.websocket("/small");
    let (mut alias, _) = crate::common::Socket::handshake(server.gateway, "/listed/ws", "");

    let press = |number: &str, topic: &str, payload: &str| {
        let user = format!("press-{number}");
        let password = format!("Press-{number}-demo-1");
        run(&mut server.mosquitto_pub(&user, &password, &["-q", "1", "-t", topic, "-m", payload]));
    };
    press("1", "$devices/press-1/events", "a");
    press("2", "$devices/press-2/state/deep/er", "b");
    press("1", "$devices/press-1/state/x", "c");
    press("1", "hall/press-1/events", "d");
    press("2", "$registries/factory/events", "e");
    let rest = ["-q", "1", "-t", "$devices/press-2/commands", "-m", "f"];
    run(&mut server.mosquitto_pub("factory", "Factory-demo-1", &rest));

    let texts = |events: std::collections::VecDeque<crate::common::TestEvent>| {
        events.into_iter().map(|event| format!("{} {}", event.payload, event.topic)).collect::<Vec<_>>()
    };
    assert_eq!(
        texts(all.events(6)),
        [
            "a $devices/press-1/events",
            "b $devices/press-2/state/deep/er",
            "c $devices/press-1/state/x",
            "d $devices/press-1/events",
            "e $registries/factory/events",
            "f $devices/press-2/commands",
        ]
    );
    assert_eq!(texts(device.events(2)), ["b $devices/press-2/state/deep/er", "f $devices/press-2/commands"]);
    assert_eq!(texts(state.events(1)), ["c $devices/press-1/state/x"]);
    assert_eq!(texts(alias.events(2)), ["a $devices/press-1/events", "d $devices/press-1/events"]);
}

#[test]
fn triggers_with_the_same_source_give_the_same_events() {
    let source = format!("iot_message: {{ registry_id: factory, {SIZE_1} }}");
    let two = [trigger("one", &source, "/ws"), trigger("two", &source, "/other")].concat();
    let server = TestServer::start(&config(&format!("{FACTORY}triggers:\n{two}")));
    let (mut one, mut other) = (server.websocket("/ws"), server.websocket("/other"));
    server.publish("$devices/press-1/events", "x");
    assert_eq!(one.text(), other.text());
}

#[test]
fn a_broker_on_the_embedded_server_takes_any_topic() {
    let iot = "iot:\n  brokers:\n    - { id: plant, password: \"Plant-demo-1\" }\n";
    let source = format!("iot_broker_message: {{ broker_id: plant, {SIZE_1} }}");
    let server = TestServer::start(&config(&format!("{iot}triggers:\n{}", trigger("plant", &source, "/ws"))));
    let mut socket = server.websocket("/ws");
    run(&mut server.mosquitto_pub("plant", "Plant-demo-1", &["-q", "1", "-t", "hall/7/ü", "-m", "x"]));
    let text = socket.text();
    assert!(
        text.contains(r#""details":{"broker_id":"plant","mqtt_topic":"hall/7/ü","payload":"eA=="}"#),
        "{text}"
    );
}

#[test]
fn an_external_mosquitto_is_a_source() {
    let mosquitto = Mosquitto::start();
    let iot =
        format!("iot:\n  brokers:\n    - {{ id: plant, url: \"mqtt://127.0.0.1:{}\" }}\n", mosquitto.port);
    let source = format!("iot_broker_message: {{ broker_id: plant, mqtt_topic: \"hall/+/t\", {SIZE_1} }}");
    let server = TestServer::start(&config(&format!("{iot}triggers:\n{}", trigger("plant", &source, "/ws"))));
    crate::common::until("readiness", || (server.get("/readyz").0 == 200).then_some(()));
    let mut socket = server.websocket("/ws");
    mosquitto.publish("hall/1/other", "no");
    mosquitto.publish("hall/1/t", "yes");
    assert_eq!(socket.events(1)[0].payload, "yes");
}

#[test]
fn a_registry_on_an_external_mosquitto_is_a_source() {
    let mosquitto = Mosquitto::start();
    let iot = format!(
        "iot:\n  registries:\n    - id: factory\n      url: \"mqtt://127.0.0.1:{}\"\n      devices:\n        \
         - {{ id: press-1, aliases: {{ \"hall/press-1\": \"$devices/press-1\" }} }}\n",
        mosquitto.port
    );
    let source = format!("iot_message: {{ registry_id: factory, {SIZE_1} }}");
    let server =
        TestServer::start(&config(&format!("{iot}triggers:\n{}", trigger("telemetry", &source, "/ws"))));
    crate::common::until("readiness", || (server.get("/readyz").0 == 200).then_some(()));
    let mut socket = server.websocket("/ws");
    mosquitto.publish("$devices/press-1/events/x", "yes");
    let text = socket.text();
    assert!(
        text.contains(
            r#""registry_id":"factory","device_id":"press-1","mqtt_topic":"$devices/press-1/events/x""#
        ),
        "{text}"
    );
}
