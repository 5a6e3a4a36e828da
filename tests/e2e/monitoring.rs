//! What passes through the server is told by calls: in all, by trigger, by device, by container registry.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::{Caller, FACTORY, LIMIT, Listener, TestServer, config, script, trigger, until};

/// The factory with a trigger to `/ws` in threes, one to a path in memory, one with jq, and a container registry.
fn server() -> TestServer {
    let events = r#"iot_message: { registry_id: factory, mqtt_topic: "$devices/+/events", batch_settings: { max_count: 3, cutoff: 60s } }"#;
    let states = r#"iot_message: { registry_id: factory, mqtt_topic: "$devices/+/state" }"#;
    let images = "container_registry: { registry_id: images, event_type: [create_image] }";
    let config = config(&format!(
        "{FACTORY}container_registries:\n  - {{ id: images, kind: distribution, url: \"http://127.0.0.1:1\", webhook_token: \"Images-token-1\" }}\n\
         triggers:\n{}{}{}{}",
        trigger("threes", events, "/ws"),
        trigger("states", states, "/memory"),
        trigger("odd", states, "/other").replace(
            "    action:\n      - gateway",
            "    action:\n      - filter: { jq: \".details.mqtt_topic != null\" }\n        gateway"
        ),
        trigger("pushes", images, "/other"),
    ));
    let config = config.replace("/other: {}", "/other: {}, /memory: { durability: memory }");
    let accounts = "service_accounts:\n  - { id: guest }\n  - { id: nobody, roles: [auditor] }\n  - { id: looker, roles: [functions.viewer] }\n\
        \x20 - { id: puller, roles: [container-registry.images.puller] }\n  - { id: viewer, roles: [viewer] }\n";
    TestServer::start(&config.replace("service_accounts:\n", accounts))
}

fn get(server: &TestServer, path: &str) -> Value {
    server.done("GET", &format!("/triggercast/v1/{path}"), &Value::Null)
}

/// A number, which JSON of messages has as text, and leaves out at 0.
fn number(value: &Value) -> u64 {
    value.as_str().map_or(0, |text| text.parse().unwrap())
}

#[test]
fn what_passes_through_is_told() {
    let server = server();
    let mut socket = server.websocket("/ws");
    for payload in ["1", "2", "3", "4"] {
        server.publish("$devices/press-1/events", payload);
    }
    assert_eq!(socket.events(3).len(), 3);
    let overview = until("the message in the sum", || {
        let overview = get(&server, "overview");
        (number(&overview["totals"]["deliveries"]) == 1).then_some(overview)
    });
    let totals = &overview["totals"];
    assert_eq!((number(&totals["events"]), number(&totals["batches"])), (4, 1), "{overview}");
    assert_eq!((number(&totals["websocketConnections"]), number(&totals["dropped"])), (1, 0));
    assert_eq!(number(&overview["activeTriggers"]), 4);
    assert_eq!(overview["gatewayAddress"], server.gateway.to_string());
    assert!(overview["problems"].is_null() && overview["startedAt"].is_string(), "{overview}");
    assert!(number(&overview["journal"]["events"]) >= 4 && number(&overview["journal"]["size"]) > 0);
    let names: Vec<_> =
        overview["sources"].as_array().unwrap().iter().map(|source| &source["name"]).collect();
    assert!(names.contains(&&json!("factory $devices/+/events")), "{names:?}");
    let main = &overview["gateways"].as_array().unwrap()[1];
    assert_eq!(main["gatewayId"], "main");
    let ws = main["paths"].as_array().unwrap().iter().find(|path| path["path"] == "/ws").unwrap();
    let counts = ["connections", "events", "batches"].map(|name| number(&ws[name]));
    assert_eq!(counts, [1, 3, 1]);

    let activity = get(&server, "triggers/threes/activity?eventCount=2");
    let action = &activity["actions"][0];
    assert_eq!((&action["gatewayId"], &action["path"]), (&json!("main"), &json!("/ws")));
    assert_eq!((number(&action["events"]), number(&action["closed"]["count"])), (3, 1), "{action}");
    assert_eq!((number(&action["openEvents"]), number(&action["maxEvents"])), (1, 3));
    assert!(number(&action["openBytes"]) > 100 && action["closesAt"].is_string());
    assert_eq!(action["cutoff"], "60s");
    let last: Vec<Value> = activity["events"].as_array().unwrap().iter().map(parsed).collect();
    let payloads: Vec<_> = last.iter().map(|event| event["details"]["payload"].as_str().unwrap()).collect();
    assert_eq!(payloads, ["NA==", "Mw=="], "the newest first");

    let devices = get(&server, "registries/factory/devices/activity");
    let devices = devices["devices"].as_array().unwrap();
    assert_eq!(devices.iter().map(|device| &device["deviceId"]).collect::<Vec<_>>(), ["press-1", "press-2"]);
    assert_eq!(number(&devices[0]["messages"]), 4);
    let last = devices[0]["lastMessages"].as_array().unwrap();
    assert_eq!((last.len(), &last[0]["payload"]), (3, &json!("NA==")));
    assert_eq!(last[0]["topic"], "$devices/press-1/events");
    assert!(devices[0]["lastSeenAt"].is_string() && devices[1]["lastSeenAt"].is_null());
}

fn parsed(event: &Value) -> Value {
    serde_json::from_str(event.as_str().unwrap()).unwrap()
}

#[test]
fn samples_go_on_from_where_the_caller_stands() {
    let server = server();
    let samples = until("two samples", || {
        let overview = get(&server, "overview");
        let samples = overview["samples"].as_array().cloned().unwrap_or_default();
        (samples.len() >= 2).then_some(samples)
    });
    assert_eq!((number(&samples[0]["number"]), number(&samples[1]["number"])), (1, 2));
    let later = get(&server, "overview?afterSample=1");
    assert_eq!(number(&later["samples"][0]["number"]), 2);
    // What is written is timed from its entry on, the wait in its batch included.
    let mut socket = server.websocket("/ws");
    for payload in ["1", "2", "3"] {
        server.publish("$devices/press-1/events", payload);
    }
    socket.events(3);
    let sample = until("a sample with the write", || {
        let overview = get(&server, "overview");
        overview["samples"].as_array()?.last().filter(|sample| number(&sample["writes"]) > 0).cloned()
    });
    let lag = sample["lagSum"].as_str().and_then(|lag| lag.strip_suffix('s')?.parse::<f64>().ok()).unwrap();
    assert!(number(&sample["writes"]) == 1 && lag > 0.0 && lag < LIMIT.as_secs_f64(), "{sample}");
}

#[test]
fn the_last_events_come_from_memory_and_as_jq_makes_them_where_that_is_so() {
    let server = server();
    let mut memory = server.websocket("/memory");
    for payload in ["a", "b"] {
        server.publish("$devices/press-1/state", payload);
        memory.events(1);
    }
    for trigger in ["states", "odd"] {
        let events = until("two events", || {
            let activity = get(&server, &format!("triggers/{trigger}/activity"));
            activity["events"].as_array().filter(|events| events.len() == 2).cloned()
        });
        let payloads: Vec<_> =
            events.iter().map(|event| parsed(event)["details"]["payload"].clone()).collect();
        assert_eq!(payloads, ["Yg==", "YQ=="], "{trigger}");
    }
}

#[test]
fn a_container_registry_tells_its_last_events() {
    let server = server();
    let activity = |server: &TestServer| get(server, "containerRegistries/images/activity");
    assert!(activity(&server)["events"].is_null());
    let sender = Caller { address: server.management, who: "Bearer Images-token-1".to_owned() };
    for number in 0..22 {
        let digest = format!("sha256:{number:0>64}");
        let body = json!({ "events": [{ "action": "push", "target": { "repository": "web/shop", "digest": digest, "tag": format!("v{number}"),
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json" } }] });
        let path = "/container-registry/v1/registries/images/notifications";
        let (status, answer) = sender.call("POST", path, &body);
        assert!(status < 300, "{status} {answer}");
    }
    let activity = activity(&server);
    let events = activity["events"].as_array().unwrap();
    assert_eq!(events.len(), 20);
    let digest = parsed(&events[0])["details"]["image_digest"].as_str().map(str::to_owned);
    assert_eq!(digest, Some(format!("sha256:{:0>64}", 21)), "{}", events[0]);
    assert!(activity["conditions"].is_null(), "{activity}");
}

#[test]
fn rights_are_asked_for() {
    let server = server();
    let paths = [
        "overview",
        "gateways/main/activity",
        "triggers/threes/activity",
        "registries/factory/devices/activity",
        "containerRegistries/images/activity",
    ];
    let caller = |account: &str| {
        let key = server.done("POST", "/iam/v1/apiKeys", &json!({ "serviceAccountId": account }));
        Caller { address: server.management, who: format!("Api-Key {}", key["secret"].as_str().unwrap()) }
    };
    let ask =
        |caller: &Caller, path: &str| caller.call("GET", &format!("/triggercast/v1/{path}"), &Value::Null).0;
    for (account, expected) in [
        ("nobody", [403, 403, 403, 403, 403]),
        ("looker", [403, 200, 200, 403, 403]),
        ("puller", [403, 403, 403, 403, 200]),
        ("viewer", [200, 200, 200, 200, 403]),
        ("broadcaster", [403, 200, 403, 403, 403]),
    ] {
        let caller = caller(account);
        assert_eq!(paths.map(|path| ask(&caller, path)), expected, "{account}");
    }
    // Who may see a trigger, but not its devices or its images, is not told what comes from them.
    server.publish("$devices/press-1/events", "1");
    until("the event", || {
        get(&server, "triggers/threes/activity")["events"]
            .as_array()
            .filter(|events| events.len() == 1)
            .map(drop)
    });
    for (account, trigger, withheld) in
        [("looker", "threes", true), ("viewer", "threes", false), ("viewer", "pushes", true)]
    {
        let path = format!("/triggercast/v1/triggers/{trigger}/activity");
        let (_, answer) = caller(account).call("GET", &path, &Value::Null);
        assert_eq!(answer["eventsWithheld"] == true, withheld, "{account} {trigger}: {answer}");
        assert_eq!(answer["events"].is_null(), withheld, "{account} {trigger}: {answer}");
    }
    // Folders are listed to those who may see something in them.
    let folder = server.done(
        "POST",
        "/resource-manager/v1/folders",
        &json!({ "cloudId": "triggercast", "name": "team-a" }),
    );
    let folder = folder["id"].as_str().unwrap();
    let folders = |account: &str| {
        let path = "/resource-manager/v1/folders?cloudId=triggercast";
        let (status, answer) = caller(account).call("GET", path, &Value::Null);
        let ids = answer["folders"]
            .as_array()
            .map(|all| all.iter().map(|one| one["id"].clone()).collect::<Vec<_>>());
        (status, ids.unwrap_or_default())
    };
    assert_eq!(folders("guest").0, 403);
    let binding = json!({ "accessBindings": [{ "roleId": "functions.viewer", "subject": { "id": "guest", "type": "serviceAccount" } }] });
    server.done("POST", &format!("/resource-manager/v1/folders/{folder}:setAccessBindings"), &binding);
    assert_eq!(folders("guest"), (200, vec![json!(folder)]));
    assert_eq!(folders("viewer").1.len(), 2);
    assert_eq!(folders("puller").0, 200, "a role on the cloud is one on every folder");
    let caller = server.caller();
    for path in [
        "gateways/none/activity",
        "triggers/none/activity",
        "registries/none/devices/activity",
        "containerRegistries/none/activity",
    ] {
        assert_eq!(ask(&caller, path), 404, "{path}");
    }
    for (path, field) in [
        ("overview?afterSample=-1", "after_sample"),
        ("triggers/threes/activity?eventCount=101", "event_count"),
        ("registries/factory/devices/activity?pageSize=1001", "page_size"),
        ("registries/factory/devices/activity?pageToken=x", "page_token"),
    ] {
        let (status, answer) = caller.call("GET", &format!("/triggercast/v1/{path}"), &Value::Null);
        assert!(status == 400 && answer.to_string().contains(field), "{path}: {status} {answer}");
    }
}

#[test]
fn a_connected_device_is_told_and_paused_triggers_are_counted() {
    let server = server();
    let mut device = std::process::Command::new("mosquitto_sub")
        .args(["-h", "127.0.0.1", "-p", &server.mqtt_port(), "-u", "press-2", "-P", "Press-2-demo-1"])
        .args(["-t", "$devices/press-2/commands"])
        .spawn()
        .unwrap();
    let connected = |is: bool| {
        until("the device", || {
            let devices = get(&server, "registries/factory/devices/activity");
            (devices["devices"][1]["connected"].as_bool().unwrap_or(false) == is).then_some(devices)
        })
    };
    connected(true);
    device.kill().unwrap();
    device.wait().unwrap();
    let devices = connected(false);
    assert!(devices["devices"][1]["lastSeenAt"].is_string());
    let batch = json!({ "maxCount": "1", "cutoff": "1s" });
    let made = server.done("POST", "/triggers/v2/triggers", &json!({
        "folderId": "default", "name": "paused",
        "source": { "iotMessage": { "registryId": "factory", "batchSettings": batch } },
        "action": [{ "gatewayWebsocketBroadcast": { "gatewayId": "main", "path": "/ws", "serviceAccountId": "broadcaster" } }],
    }));
    let id = made["id"].as_str().unwrap();
    server.done("POST", &format!("/triggers/v2/triggers/{id}:pause"), &json!({}));
    let overview = get(&server, "overview");
    assert_eq!((number(&overview["activeTriggers"]), number(&overview["pausedTriggers"])), (4, 1));
    let activity = get(&server, &format!("triggers/{id}/activity"));
    assert_eq!(activity["actions"].as_array().unwrap().len(), 1);
}

#[test]
fn metrics_tell_how_the_server_stands() {
    let server = server();
    let mut socket = server.websocket("/ws");
    for payload in ["1", "2", "3"] {
        server.publish("$devices/press-1/events", payload);
    }
    socket.events(3);
    server.publish("$devices/press-1/events/other", "nobody takes it");
    let metrics = until("the disk", || {
        let text = server.get("/metrics").1;
        (!text.contains("triggercast_disk_free_bytes 0\n")
            && text.contains("triggercast_mqtt_received_total 4\n"))
        .then_some(text)
    });
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{name}\n{metrics}")).rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    assert_eq!((value("triggercast_ready"), value("triggercast_mqtt_unrouted_total")), (1.0, 1.0));
    let (sources, ready) = (value("triggercast_sources"), value("triggercast_sources_ready"));
    assert!(sources >= 3.0 && ready == sources, "{ready} of {sources}");
    assert!(value("triggercast_journal_bytes") > 0.0 && value("process_open_fds") > 3.0);
    assert!(metrics.contains("triggercast_build_info{version=\""), "{metrics}");
    assert!(value("triggercast_write_seconds_count") >= 1.0);
    assert!(value("triggercast_write_seconds_sum") <= value("triggercast_delivery_seconds_sum"));
    assert!(metrics.contains("triggercast_websocket_refused_total{reason=\"full\"} 0\n"), "{metrics}");
}

/// The stages that an event has been traced through, in order, with its id.
fn stages(lines: &[String]) -> Vec<(String, String)> {
    let of = |line: &String| {
        let json: Value = serde_json::from_str(line).unwrap();
        let field = |name: &str| json["fields"][name].as_str().map(str::to_owned);
        Some((field("message")?, field("event_id")?))
    };
    lines.iter().filter_map(of).collect()
}

#[test]
fn one_event_is_followed_from_its_publish_to_the_sockets() {
    let source = r#"iot_message: { registry_id: factory, mqtt_topic: "$devices/+/events", batch_settings: { max_count: 10, cutoff: 300ms } }"#;
    let config = config(&format!("{FACTORY}triggers:\n{}", trigger("all", source, "/ws")));
    let wanted = "log: { format: json, trace: { device: press-2, topic: \"$devices/+/events\" } }";
    let server = TestServer::start(&config.replace("log: { format: json }", wanted));
    let mut socket = server.websocket("/ws");
    let publish = |device: &str, password: &str| {
        let topic = format!("$devices/{device}/events");
        crate::common::run(&mut server.mosquitto_pub(
            device,
            password,
            &["-q", "1", "-t", &topic, "-m", "1"],
        ));
    };
    publish("press-1", "Press-1-demo-1");
    publish("press-2", "Press-2-demo-1");
    let events = socket.events(2);
    let id = events.iter().find(|event| event.topic.contains("press-2")).unwrap().id.clone();
    let mut lines = Vec::new();
    let seen = until("the last stage", || {
        lines.extend(server.log("event_id"));
        let seen = stages(&lines);
        seen.iter().any(|(stage, _)| stage == "written").then_some(seen)
    });
    assert!(seen.iter().all(|(_, traced)| *traced == id), "{seen:?}");
    let names: Vec<_> = seen.iter().map(|(stage, _)| stage.as_str()).collect();
    assert_eq!(names, ["received", "journaled", "batched", "broadcast", "written"]);
    assert!(lines.last().unwrap().contains("\"clients\":1"), "{lines:?}");
}

#[test]
fn an_event_that_jq_drops_ends_with_a_line_that_says_why_and_is_journaled_once() {
    let source = r#"iot_message: { registry_id: factory, mqtt_topic: "$devices/+/events", batch_settings: { max_count: 1, cutoff: 1s } }"#;
    let with = |name: &str, program: &str| {
        let filter = format!("    action:\n      - filter: {{ jq: \"{program}\" }}\n        gateway");
        trigger(name, source, "/ws").replace("    action:\n      - gateway", &filter)
    };
    let config = config(&format!("{FACTORY}triggers:\n{}{}", with("none", "false"), with("all", "true")));
    let server =
        TestServer::start(&config.replace("log: { format: json }", "log: { format: json, trace: on }"));
    let mut socket = server.websocket("/ws");
    server.publish("$devices/press-1/events", "1");
    assert_eq!(socket.events(1).len(), 1);
    let mut lines = Vec::new();
    until("the last stages", || {
        lines.extend(server.log("event_id"));
        let seen = stages(&lines);
        ["dropped", "written"].iter().all(|last| seen.iter().any(|(stage, _)| stage == last)).then_some(())
    });
    let mut names: Vec<_> = stages(&lines).into_iter().map(|(stage, _)| stage).collect();
    names.sort_unstable();
    assert_eq!(names, ["batched", "broadcast", "dropped", "journaled", "received", "written"]);
    let dropped = lines.iter().find(|line| line.contains("\"dropped\"")).unwrap();
    assert!(dropped.contains("\"none\"") && dropped.contains("\"reason\":\"filtered\""), "{dropped}");
}

#[test]
fn without_being_asked_no_event_is_followed() {
    let server = server();
    let mut socket = server.websocket("/ws");
    for payload in ["1", "2", "3"] {
        server.publish("$devices/press-1/events", payload);
    }
    socket.events(3);
    assert_eq!(server.log("event_id"), Vec::<String>::new());
}

/// A collector that others wrote the protocol of.
struct Collector {
    server: Listener,
    address: String,
}

impl Collector {
    fn start(port: &str) -> Self {
        let mut server = Listener::spawn(script("collector.py").arg(port));
        let address = server.line();
        Self { server, address }
    }

    fn span(&mut self) -> Value {
        serde_json::from_str(&self.server.line()).unwrap()
    }
}

#[test]
fn a_collector_is_told_of_an_event_as_one_trace() {
    let mut collector = Collector::start("0");
    let source = r#"iot_message: { registry_id: factory, mqtt_topic: "$devices/+/events", batch_settings: { max_count: 1, cutoff: 1s } }"#;
    let config = config(&format!("{FACTORY}triggers:\n{}", trigger("all", source, "/ws")));
    let wanted = format!("log: {{ format: json, trace: {{ otlp: \"http://{}\" }} }}", collector.address);
    let server = TestServer::start(&config.replace("log: { format: json }", &wanted));
    let mut socket = server.websocket("/ws");
    server.publish("$devices/press-1/events", "1");
    let id = socket.events(1)[0].id.clone();
    let mut spans = Vec::new();
    while spans.last().is_none_or(|span: &Value| span["name"] != "written") {
        spans.push(collector.span());
    }
    // It may be batched before it is on disk.
    let names: BTreeSet<_> = spans.iter().map(|span| span["name"].as_str().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["received", "journaled", "batched", "broadcast", "written"]));
    assert_eq!((spans.len(), &spans[0]["name"]), (5, &json!("received")));
    let root = &spans[0]["span"];
    for span in &spans {
        assert_eq!(span["trace"], *id.replace('-', ""));
        assert_eq!(span["service"], "triggercast");
        let is_child = span["parent"] == *root && span["span"] != *root;
        assert!(is_child || (span["name"] == "received" && span["parent"] == ""), "{span}");
        assert!(span["start"].as_u64() <= span["end"].as_u64(), "{span}");
    }
    let said = |at: usize, key: &str| spans[at]["attributes"][key].as_str().unwrap_or_default().to_owned();
    assert_eq!(said(0, "messaging.destination.name"), "$devices/press-1/events");
    assert_eq!(
        (said(0, "triggercast.device_id"), said(4, "triggercast.path")),
        ("press-1".into(), "/main/ws".into())
    );
    // Neither are there lines of it in the log, nor is anything lost by a collector that goes; that is told once.
    let port = collector.address.rsplit(':').next().unwrap().to_owned();
    drop(collector);
    let lost = until("word of the collector", || {
        server.publish("$devices/press-1/events", "2");
        assert_eq!(socket.events(1)[0].payload, "2");
        Some(server.log("traces are not taken")).filter(|lines| !lines.is_empty())
    });
    assert_eq!(lost.len(), 1);
    let mut collector = Collector::start(&port);
    until("word of its return", || {
        server.publish("$devices/press-1/events", "3");
        Some(server.log("")).filter(|lines| lines.iter().any(|line| line.contains("traces are taken again")))
    });
    assert_eq!(collector.span()["service"], "triggercast");
    // A stop sends what is left.
    server.publish("$devices/press-1/events", "last");
    let last = until("the last event", || {
        let event = &socket.events(1)[0];
        (event.payload == "last").then(|| event.id.replace('-', ""))
    });
    assert!(server.stop().success());
    until("its last span", || {
        let span = collector.span();
        (span["trace"] == *last && span["name"] == "written").then_some(())
    });
}
