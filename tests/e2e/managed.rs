//! Resources are made, changed and deleted by calls while events flow: nothing is lost, nothing comes twice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::common::{Caller, FACTORY, Socket, TestServer, config, program, run, until};

const TRIGGERS: &str = "/triggers/v2/triggers";

fn server() -> TestServer {
    TestServer::start(&config(FACTORY))
}

/// A trigger in the second form on the factory's events; `action` is merged into its one action.
fn wanted(name: &str, path: &str, action: Value) -> Value {
    let mut full = json!({ "gatewayWebsocketBroadcast":
        { "gatewayId": "main", "path": path, "serviceAccountId": "broadcaster" } });
    if let Value::Object(more) = action {
        full.as_object_mut().unwrap().extend(more);
    }
    let batch = json!({ "maxCount": "1", "cutoff": "1s" });
    json!({
        "folderId": "default",
        "name": name,
        "source": { "iotMessage": { "registryId": "factory", "mqttTopic": "$devices/+/events", "batchSettings": batch } },
        "action": [full],
    })
}

fn create(server: &TestServer, trigger: &Value) -> String {
    server.done("POST", TRIGGERS, trigger)["id"].as_str().unwrap().to_owned()
}

/// Publishes as a device, acknowledged when it is kept.
fn publish(server: &TestServer, text: &str) {
    publish_by(&server.caller(), text);
}

fn publish_by(caller: &Caller, text: &str) {
    let body = json!({ "topic": "$devices/press-1/events", "data": BASE64_STANDARD.encode(text) });
    caller.done("POST", "/iot-devices/v1/devices/press-1/publish", &body);
}

fn publish_all(server: &TestServer, texts: impl IntoIterator<Item = usize>) {
    texts.into_iter().for_each(|text| publish(server, &text.to_string()));
}

fn payloads(socket: &mut Socket, count: usize) -> Vec<String> {
    socket.events(count).into_iter().map(|event| event.payload).collect()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[test]
fn a_trigger_changes_while_events_flow_and_each_comes_once_and_in_order() {
    let server = server();
    let id = create(&server, &wanted("flow", "/other", Value::Null));
    let mut socket = server.websocket("/other");
    let stop = AtomicBool::new(false);
    let caller = server.caller();
    let sent = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let mut sent = 0;
            while !stop.load(Ordering::Acquire) {
                publish_by(&caller, &format!("flow {sent}"));
                sent += 1;
            }
            sent
        });
        for round in 1..=20 {
            let path = format!("{TRIGGERS}/{id}");
            let size = json!({ "updateMask": "source.iotMessage.batchSettings.maxCount",
                "source": { "iotMessage": { "batchSettings": { "maxCount": (round % 4 + 1).to_string() } } } });
            server.done("PATCH", &path, &size);
            server.done("POST", &format!("{path}:pause"), &json!({}));
            let other = create(&server, &wanted(&format!("other-{round}"), "/ws", Value::Null));
            server.done("POST", &format!("{path}:resume"), &json!({}));
            server.done("DELETE", &format!("{TRIGGERS}/{other}"), &Value::Null);
        }
        stop.store(true, Ordering::Release);
        publisher.join().unwrap()
    });
    assert!(sent > 20, "{sent}");
    let mut got = Vec::new();
    while got.len() < sent {
        got.extend(payloads(&mut socket, 1).into_iter().filter(|payload| payload.starts_with("flow ")));
    }
    let expected: Vec<_> = (0..sent).map(|n| format!("flow {n}")).collect();
    assert_eq!(got, expected);
    assert!(!socket.comes_within(Duration::from_millis(1500)), "more came than was sent");
}

#[test]
fn what_comes_in_a_pause_is_held_also_over_a_restart_or_dropped_as_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(FACTORY);
    let server = TestServer::start_in(folder.path(), &config);
    let held = create(&server, &wanted("held", "/other", Value::Null));
    let mut dropped = wanted("dropped", "/ws", Value::Null);
    dropped["onPause"] = json!("DROP");
    let dropped = create(&server, &dropped);
    let mut other = server.websocket("/other");
    for id in [&held, &dropped] {
        let paused = server.done("POST", &format!("{TRIGGERS}/{id}:pause"), &json!({}));
        assert_eq!(paused["status"], "PAUSED");
    }
    publish_all(&server, 0..50);
    assert!(!other.comes_within(Duration::from_millis(300)));
    drop(other);
    assert!(server.stop().success());
    let server = TestServer::start_by(&mut program(folder.path(), &config));
    assert_eq!(server.call("GET", &format!("{TRIGGERS}/{held}"), &Value::Null).1["status"], "PAUSED");
    let (mut other, mut ws) = (server.websocket("/other"), server.websocket("/ws"));
    publish_all(&server, 50..60);
    for id in [&held, &dropped] {
        server.done("POST", &format!("{TRIGGERS}/{id}:resume"), &json!({}));
    }
    assert_eq!(payloads(&mut other, 60), numbers(0..60));
    publish(&server, "after");
    assert_eq!(payloads(&mut ws, 1), ["after"]);
    assert_eq!(payloads(&mut other, 1), ["after"]);
}

#[test]
fn a_trigger_is_silent_while_its_account_may_not_broadcast() {
    let server = server();
    let account = json!({ "folderId": "default", "name": "speaker" });
    let account = server.done("POST", "/iam/v1/serviceAccounts", &account)["id"].as_str().unwrap().to_owned();
    let binding = |action: &str| {
        json!({ "accessBindingDeltas": [{ "action": action, "accessBinding": {
            "roleId": "api-gateway.websocketBroadcaster",
            "subject": { "id": account, "type": "serviceAccount" } } }] })
    };
    let bindings = "/apigateways/v1/apigateways/main:updateAccessBindings";
    let mut trigger = wanted("spoken", "/other", Value::Null);
    trigger["action"][0]["gatewayWebsocketBroadcast"]["serviceAccountId"] = json!(account);
    let id = create(&server, &trigger);
    let get = || server.call("GET", &format!("{TRIGGERS}/{id}"), &Value::Null).1;
    let reason =
        until("the condition", || Some(get()["conditions"][0]["reason"].clone()).filter(|r| !r.is_null()));
    assert_eq!(reason, "NO_PERMISSION");
    assert_eq!(get()["status"], "ACTIVE");
    let mut socket = server.websocket("/other");
    publish_all(&server, 0..5);
    assert!(!socket.comes_within(Duration::from_millis(300)));
    server.done("PATCH", bindings, &binding("ADD"));
    assert_eq!(payloads(&mut socket, 5), numbers(0..5));
    assert!(get()["conditions"].is_null());
    server.done("PATCH", bindings, &binding("REMOVE"));
    until("the silence", || (get()["conditions"][0]["reason"] == "NO_PERMISSION").then_some(()));
    publish_all(&server, 5..10);
    assert!(!socket.comes_within(Duration::from_millis(300)));
    server.done("PATCH", bindings, &binding("ADD"));
    assert_eq!(payloads(&mut socket, 5), numbers(5..10));
}

#[test]
fn jq_picks_and_changes_events_and_an_endless_program_costs_its_own_trigger_only() {
    let server = server();
    let action = json!({
        "payloadEncoding": "JSON",
        "filter": { "jq": ".details.payload.n % 2 == 0" },
        "transformer": { "jq": "{event_metadata, n: .details.payload.n, device: .details.device_id}" },
    });
    create(&server, &wanted("even", "/other", action));
    create(&server, &wanted("endless", "/small", json!({ "filter": { "jq": "def f: f; f" } })));
    create(&server, &wanted("plain", "/ws", Value::Null));
    let (mut other, mut ws, mut small) =
        (server.websocket("/other"), server.websocket("/ws"), server.websocket("/small"));
    (1..=20).for_each(|n| publish(&server, &format!(r#"{{"n": {n}}}"#)));
    let mut even = Vec::new();
    while even.last() != Some(&20) {
        let message: Value = serde_json::from_str(&other.text()).unwrap();
        let event = &message["messages"][0];
        assert_eq!(event["device"], "press-1");
        assert!(event["event_metadata"]["event_id"].is_string() && event["details"].is_null());
        even.push(event["n"].as_u64().unwrap());
    }
    even.retain(|n| *n > 0);
    assert_eq!(even, (1..=10).map(|n| n * 2).collect::<Vec<_>>());
    let mut all = Vec::new();
    while all.last().is_none_or(|text| text != r#"{"n": 20}"#) {
        all.extend(payloads(&mut ws, 1));
    }
    assert!(!small.comes_within(Duration::from_millis(10)));
    until("the count of what took too long", || {
        (server.counted("jq_dropped_total{reason=\"over_budget\"}") > 0).then_some(())
    });
}

#[test]
fn programs_that_do_not_compile_are_refused_with_their_place() {
    let server = server();
    let bad = wanted("bad", "/other", json!({ "filter": { "jq": ".a ==\n  )" } }));
    let (status, answer) = server.call("POST", TRIGGERS, &bad);
    assert_eq!((status, &answer["code"]), (400, &json!(3)), "{answer}");
    let violation = &answer["details"][0]["fieldViolations"][0];
    assert_eq!(violation["field"], "action[0].filter.jq");
    assert!(violation["description"].as_str().unwrap().contains("line 2, column 3"), "{violation}");
    let long = wanted("long", "/other", json!({ "filter": { "jq": "1".repeat(1025) } }));
    assert_eq!(
        server.call("POST", TRIGGERS, &long).1["details"][0]["fieldViolations"][0]["field"],
        "action[0].filter.jq"
    );
}

#[test]
fn a_kill_loses_and_doubles_nothing_of_what_jq_makes() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(FACTORY);
    let mut server = TestServer::start_in(folder.path(), &config);
    let action = json!({ "filter": { "jq": "true" }, "transformer": { "jq": "{event_metadata, details: (.details | .seen = true)}" } });
    create(&server, &wanted("made", "/other", action));
    let mut sent = 0;
    for _ in 0..4 {
        publish_all(&server, sent..sent + 40);
        sent += 40;
        server.signal("KILL");
        server.wait();
        server = TestServer::start_by(&mut program(folder.path(), &config));
    }
    let head = "/main/other?last=100000";
    let (mut socket, answer) = Socket::handshake(server.gateway, head, "");
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert_eq!(payloads(&mut socket, sent), numbers(0..sent));
    assert!(!socket.comes_within(Duration::from_millis(1500)));
}

#[test]
fn gateways_registries_and_devices_are_made_and_taken_away_while_the_server_runs() {
    let server = server();
    let spec = "openapi: 3.0.0\npaths:\n  /live:\n    x-yc-apigateway-websocket-message: { type: dummy }\n";
    let gateway = json!({ "folderId": "default", "name": "late", "openapiSpec": spec });
    let gateway =
        server.done("POST", "/apigateways/v1/apigateways", &gateway)["id"].as_str().unwrap().to_owned();
    let registry = json!({ "folderId": "default", "name": "works" });
    let registry =
        server.done("POST", "/iot-devices/v1/registries", &registry)["id"].as_str().unwrap().to_owned();
    let device = json!({ "registryId": registry, "name": "d1", "password": "Device-password-1" });
    let device = server.done("POST", "/iot-devices/v1/devices", &device)["id"].as_str().unwrap().to_owned();
    let mut trigger = wanted("late", "/live", Value::Null);
    trigger["action"][0]["gatewayWebsocketBroadcast"]["gatewayId"] = json!(gateway);
    trigger["source"]["iotMessage"]["registryId"] = json!(registry);
    let trigger = create(&server, &trigger);
    let path = format!("/{gateway}/live");
    let mut socket = until("the new path", || {
        let (socket, answer) = Socket::handshake(server.gateway, &path, "");
        answer.starts_with("HTTP/1.1 101 ").then_some(socket)
    });
    let topic = format!("$devices/{device}/events");
    let send = |text: &str| {
        server.mosquitto_pub(&device, "Device-password-1", &["-q", "1", "-t", &topic, "-m", text])
    };
    until("the device's first message", || {
        run(&mut send("first"));
        socket.comes_within(Duration::from_millis(50)).then_some(())
    });
    assert_eq!(payloads(&mut socket, 1), ["first"]);
    // Nobody publishes in a registry that is disabled, not even by a call.
    let publish = json!({ "topic": topic, "data": "bGF0ZQ==" });
    let publish = || server.call("POST", &format!("/iot-devices/v1/devices/{device}/publish"), &publish);
    server.done("POST", &format!("/iot-devices/v1/registries/{registry}:disable"), &json!({}));
    let (status, answer) = publish();
    assert_eq!((status, &answer["code"]), (400, &json!(9)), "{answer}");
    server.done("POST", &format!("/iot-devices/v1/registries/{registry}:enable"), &json!({}));
    assert_eq!(publish().0, 200);
    assert_eq!(payloads(&mut socket, 1), ["late"]);
    // A gateway that is used, or a device that is read, stays.
    for path in
        [format!("/apigateways/v1/apigateways/{gateway}"), format!("/iot-devices/v1/registries/{registry}")]
    {
        let (status, answer) = server.call("DELETE", &path, &Value::Null);
        assert_eq!((status, &answer["code"]), (400, &json!(9)), "{answer}");
    }
    server.done("POST", &format!("/apigateways/v1/apigateways/{gateway}:stop"), &json!({}));
    assert_eq!(socket.close_code(), 1001);
    until("the refusal", || {
        let (_, answer) = Socket::handshake(server.gateway, &path, "");
        answer.starts_with("HTTP/1.1 503 ").then_some(())
    });
    server.done("POST", &format!("/apigateways/v1/apigateways/{gateway}:resume"), &json!({}));
    let mut socket = until("the path again", || {
        let (socket, answer) = Socket::handshake(server.gateway, &path, "");
        answer.starts_with("HTTP/1.1 101 ").then_some(socket)
    });
    until("a message again", || {
        run(&mut send("again"));
        socket.comes_within(Duration::from_millis(50)).then_some(())
    });
    server.done("DELETE", &format!("{TRIGGERS}/{trigger}"), &Value::Null);
    server.done("DELETE", &format!("/iot-devices/v1/devices/{device}"), &Value::Null);
    until("the end of the login", || (!send("late").status().unwrap().success()).then_some(()));
    server.done("DELETE", &format!("/iot-devices/v1/registries/{registry}"), &Value::Null);
    server.done("DELETE", &format!("/apigateways/v1/apigateways/{gateway}"), &Value::Null);
    until("the end of the path", || {
        let (_, answer) = Socket::handshake(server.gateway, &path, "");
        answer.starts_with("HTTP/1.1 404 ").then_some(())
    });
}

#[test]
fn single_connections_are_seen_sent_to_and_closed() {
    let server = server();
    let (mut socket, answer) = Socket::handshake(server.gateway, "/main/ws", "User-Agent: tester\r\n");
    let id = answer
        .lines()
        .find_map(|line| line.strip_prefix("X-Yc-Apigateway-Websocket-Connection-Id: "))
        .unwrap();
    let path = format!("/apigateways/websocket/v1/connections/{id}");
    let found = server.done("GET", &path, &Value::Null);
    assert_eq!(
        (&found["gatewayId"], &found["identity"]),
        (&json!("main"), &json!({ "sourceIp": "127.0.0.1", "userAgent": "tester" }))
    );
    let text = "x".repeat(100_000);
    server.done(
        "POST",
        &format!("{path}:send"),
        &json!({ "data": BASE64_STANDARD.encode(&text), "type": "TEXT" }),
    );
    assert_eq!(socket.text(), text);
    server.done("POST", &format!("{path}:send"), &json!({ "data": "/w==", "type": "BINARY" }));
    assert_eq!(socket.frame(), (0x82, vec![0xff]));
    server.done("DELETE", &path, &Value::Null);
    assert_eq!(socket.close_code(), 1001);
    until("its end", || (server.call("GET", &path, &Value::Null).0 == 404).then_some(()));
}

#[test]
fn a_trigger_that_is_deleted_with_an_open_batch_does_not_stop_the_others_of_its_source() {
    let server = server();
    create(&server, &wanted("stays", "/ws", Value::Null));
    let mut socket = server.websocket("/ws");
    for round in 0..20 {
        let mut open = wanted("goes", "/other", Value::Null);
        open["source"]["iotMessage"]["batchSettings"] = json!({ "maxCount": "100", "cutoff": "60s" });
        let id = create(&server, &open);
        publish(&server, &round.to_string());
        server.done("DELETE", &format!("{TRIGGERS}/{id}"), &Value::Null);
    }
    assert_eq!(payloads(&mut socket, 20), numbers(0..20));
    publish(&server, "after");
    assert_eq!(payloads(&mut socket, 1), ["after"]);
    assert!(server.get("/readyz").1.contains("\"state\":\"writing\""));
}

#[test]
fn a_new_trigger_does_not_begin_where_a_deleted_one_has_stood() {
    let server = server();
    let first = create(&server, &wanted("first", "/other", Value::Null));
    publish_all(&server, 0..30);
    server.done("DELETE", &format!("{TRIGGERS}/{first}"), &Value::Null);
    // On another source, whose events are counted from the beginning.
    let mut second = wanted("second", "/other", Value::Null);
    second["source"]["iotMessage"]["mqttTopic"] = json!("$devices/press-1/#");
    create(&server, &second);
    let mut socket = server.websocket("/other");
    publish_all(&server, 0..5);
    assert_eq!(payloads(&mut socket, 5), numbers(0..5));
}

#[test]
fn a_trigger_is_tried_and_what_was_done_is_in_the_audit_log() {
    let server = server();
    let action = json!({ "payloadEncoding": "JSON", "filter": { "jq": ".details.payload.t > 1" } });
    create(&server, &wanted("tried", "/other", action));
    let event = |t: u8| {
        let payload = BASE64_STANDARD.encode(format!(r#"{{"t":{t}}}"#));
        format!(r#"{{"event_metadata":{{}},"details":{{"mqtt_topic":"a","payload":"{payload}"}}}}"#)
    };
    let tried = |t: u8| {
        std::fs::write(server.folder.join("event.json"), event(t)).unwrap();
        run(&mut server.command(&["trigger", "test", "tried", "--event", "event.json"]))
    };
    assert!(tried(2).contains(r#""payload":{"t":2}"#), "{}", tried(2));
    assert!(tried(1).contains("the filter does not let it through"), "{}", tried(1));
    let log = server.done("GET", "/triggercast/v1/audit?pageSize=1", &Value::Null);
    let line = &log["events"][0];
    assert_eq!(line["subjectId"], "admin");
    assert_eq!(line["method"], "yandex.cloud.serverless.triggers.v2.TriggerService/Create");
    assert!(line["before"].is_null() && line["after"].as_str().unwrap().contains("tried"), "{line}");
}

#[test]
fn nobody_becomes_more_than_he_is() {
    let server = server();
    let account = |name: &str, role: &str| {
        let account = json!({ "folderId": "default", "name": name });
        let id = server.done("POST", "/iam/v1/serviceAccounts", &account)["id"].as_str().unwrap().to_owned();
        let subject = json!({ "id": id, "type": "serviceAccount" });
        let delta = json!({ "action": "ADD", "accessBinding": { "roleId": role, "subject": subject } });
        let path = "/resource-manager/v1/folders/default:updateAccessBindings";
        server.done("POST", path, &json!({ "accessBindingDeltas": [delta] }));
        let key = server.done("POST", "/iam/v1/apiKeys", &json!({ "serviceAccountId": id }));
        let who = format!("Api-Key {}", key["secret"].as_str().unwrap());
        (id, Caller { address: server.management, who })
    };
    let (viewer_id, viewer) = account("viewer", "viewer");
    let (_, editor) = account("editor", "editor");
    let (_, admin) = account("chief", "admin");
    let key_of = |id: &str| json!({ "serviceAccountId": id });
    let refused = |caller: &Caller, path: &str, body: &Value| {
        let (status, answer) = caller.call("POST", path, body);
        assert_eq!((status, &answer["code"]), (403, &json!(7)), "{path} {body}: {answer}");
    };
    for caller in [&viewer, &editor, &admin] {
        refused(caller, "/iam/v1/apiKeys", &key_of("admin"));
        refused(caller, "/iam/v1/keys", &key_of("broadcaster"));
        refused(caller, "/iam/v1/tokens:createForServiceAccount", &key_of("admin"));
    }
    refused(&editor, "/iam/v1/apiKeys", &key_of(&viewer_id));
    refused(&viewer, TRIGGERS, &wanted("viewed", "/ws", Value::Null));
    let created = server.call("POST", TRIGGERS, &wanted("made", "/ws", Value::Null)).1;
    let operation = format!("/operations/{}", created["id"].as_str().unwrap());
    assert_eq!(viewer.call("GET", &operation, &Value::Null).0, 403);
    assert_eq!(admin.call("POST", "/iam/v1/apiKeys", &key_of(&viewer_id)).0, 200);
    let nobody = Caller { address: server.management, who: "Bearer t1.none.none".to_owned() };
    assert_eq!(nobody.call("GET", "/triggers/v1/triggers?folderId=default", &Value::Null).0, 401);
}

#[test]
fn messages_for_one_client_have_their_bound() {
    let server = server();
    let (mut socket, answer) = Socket::handshake(server.gateway, "/main/ws", "");
    let id = answer
        .lines()
        .find_map(|line| line.strip_prefix("X-Yc-Apigateway-Websocket-Connection-Id: "))
        .unwrap();
    let path = format!("/apigateways/websocket/v1/connections/{id}:send");
    let text = "x".repeat(100_000);
    let message = json!({ "data": BASE64_STANDARD.encode(&text), "type": "TEXT" });
    let mut sent = 0;
    // The client reads nothing: what the kernel does not take waits up to the bound.
    let refused = loop {
        let (status, answer) = server.call("POST", &path, &message);
        if status != 200 {
            break (status, answer["code"].clone());
        }
        sent += 1;
        assert!(sent < 1000, "there is no bound");
    };
    assert_eq!(refused, (429, json!(8)));
    for _ in 0..sent {
        assert_eq!(socket.text(), text);
    }
    server.done("POST", &path, &message);
    assert_eq!(socket.text(), text);
}

#[test]
fn what_the_file_declares_is_listed_and_not_changed() {
    let source = "iot_message: { registry_id: factory, batch_settings: { max_count: 2, cutoff: 1s } }";
    let text = config(&format!("{FACTORY}triggers:\n{}", crate::common::trigger("telemetry", source, "/ws")));
    let server = TestServer::start(&text);
    let list = server.done("GET", "/triggers/v1/triggers?folderId=default", &Value::Null);
    assert_eq!(
        list["triggers"][0]["rule"]["iotMessage"]["batchSettings"],
        json!({ "size": "2", "cutoff": "1s" })
    );
    for (verb, path) in [
        ("DELETE", "/triggers/v1/triggers/telemetry"),
        ("POST", "/triggers/v2/triggers/telemetry:pause"),
        ("DELETE", "/iot-devices/v1/devices/press-1"),
        ("DELETE", "/apigateways/v1/apigateways/main"),
        ("DELETE", "/iam/v1/serviceAccounts/broadcaster"),
    ] {
        let (status, answer) = server.call(verb, path, &Value::Null);
        assert_eq!((status, &answer["code"]), (400, &json!(9)), "{verb} {path}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains("config.yaml"), "{answer}");
    }
}
