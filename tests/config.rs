//! The configuration: the default file, every form that is accepted, and every fault with its message.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use triggercast::config::{self, Settings};
use triggercast::model::container::{ContainerEventType, ContainerFilter, ManifestKind};
use triggercast::model::gateway::GatewayPath;
use triggercast::model::secret::Password;
use triggercast::model::trigger::{BatchSettings, MqttTopics, TriggerSource};
use triggercast::telemetry::LogFormat;

const DEFAULT: &str = include_str!("../config.yaml");

fn parse(text: &str) -> Result<Settings, config::ConfigErrors> {
    config::parse(text, Path::new("config.yaml"), &|_| None)
}

/// What a container registry's trigger wants.
fn filter(settings: &Settings, trigger: usize) -> &ContainerFilter {
    match &settings.resources.triggers[trigger].source {
        TriggerSource::ContainerRegistry { filter, .. } => filter,
        other => panic!("{other}"),
    }
}

#[test]
fn the_default_file_declares_what_the_documentation_says() {
    let settings = parse(DEFAULT).unwrap();
    let r = &settings.resources;
    assert_eq!(r.gateways.iter().map(|g| &*g.id).collect::<Vec<_>>(), ["main"]);
    assert_eq!(r.gateways[0].paths.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(), ["/ws", "/images"]);
    assert_eq!(r.device_registries.iter().map(|r| &*r.id).collect::<Vec<_>>(), ["factory"]);
    let devices = &r.device_registries[0].devices;
    assert_eq!(devices.iter().map(|d| &*d.id).collect::<Vec<_>>(), ["press-1", "press-2"]);
    assert_eq!(devices[0].aliases[0].name, "hall/press-1");
    assert_eq!(devices[0].aliases[0].target, "$devices/press-1");
    assert_eq!(r.brokers, []);
    assert_eq!(r.container_registries.iter().map(|c| &*c.id).collect::<Vec<_>>(), ["images"]);
    assert_eq!(settings.service_accounts.iter().map(|a| &*a.id).collect::<Vec<_>>(), ["broadcaster"]);
    assert_eq!(r.triggers.iter().map(|t| &*t.name).collect::<Vec<_>>(), ["telemetry", "pushes"]);
    assert_eq!(
        r.triggers[0].source,
        TriggerSource::Mqtt(MqttTopics::IotMessage {
            registry_id: "factory".into(),
            device_id: None,
            mqtt_topic: Some("$devices/+/events".into())
        })
    );
    assert_eq!(
        r.triggers[0].batch,
        BatchSettings { max_count: 10, max_bytes: 131_072, cutoff: Duration::from_secs(1) }
    );
    assert_eq!(filter(&settings, 1).image_name, None);
}

/// Commented keys stand behind a '#' without a space, or with more than one.
fn uncommented(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        match line[indent..].strip_prefix('#') {
            Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => {
                let _ = writeln!(out, "{}{rest}", &line[..indent]);
            }
            _ => {
                let _ = writeln!(out, "{line}");
            }
        }
    }
    out
}

#[test]
fn every_commented_key_of_the_default_file_can_be_used() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("plant-password.txt"), "secret\n").unwrap();
    std::fs::write(folder.path().join("registry-ca.pem"), "").unwrap();
    let made = rcgen::generate_simple_self_signed(["press-1".to_owned()]).unwrap();
    std::fs::write(folder.path().join("press-1.pem"), made.cert.pem()).unwrap();
    let text = uncommented(DEFAULT);
    assert!(text.lines().count() == DEFAULT.lines().count() && text != DEFAULT);
    let settings = config::parse(&text, &folder.path().join("config.yaml"), &|_| None).unwrap();
    // What the comments call defaults is what the silent file has.
    let silent = parse(DEFAULT).unwrap();
    let trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
    let gateway = config::GatewaySettings { workers: Some(4), trusted_proxies, ..silent.gateway };
    assert_eq!(settings.gateway, gateway);
    assert_eq!(settings.management.rest_tls, silent.management.rest_tls);
    let trace = settings.log.trace.as_ref().unwrap();
    assert_eq!((trace.one_in, trace.device.as_deref()), (1000, Some("press-1")));
    assert_eq!((settings.log.format, silent.log.trace.is_none()), (silent.log.format, true));
    let mut mqtt = settings.mqtt.clone().unwrap();
    assert_eq!(mqtt.tls.take(), Some(("127.0.0.1:8883".parse().unwrap(), config::Tls::Own)));
    assert_eq!(std::mem::take(&mut mqtt.websocket_origins), ["https://app.example.org"]);
    assert_eq!(mqtt, silent.mqtt.unwrap());
    assert_eq!(settings.resources.gateways[0].paths, silent.resources.gateways[0].paths);
    assert_eq!(settings.resources.triggers[0].batch, silent.resources.triggers[0].batch);
    assert_eq!(settings.resources.gateways[0].domain.as_deref(), Some("ws.example.org"));
    assert_eq!(settings.resources.triggers[2].batch.max_count, 100);
    let broker = settings.resources.brokers[0].external.as_ref().unwrap();
    assert_eq!((broker.host.as_str(), broker.port), ("127.0.0.1", 1884));
    assert_eq!(broker.credentials.as_ref().unwrap().password, "secret");
    assert!(settings.resources.device_registries[1].external.is_some());
    let pushes = settings.resources.triggers.iter().position(|trigger| &*trigger.name == "pushes").unwrap();
    assert_eq!(filter(&settings, pushes).tag.as_deref(), Some("latest"));
    let mut registry = settings.resources.container_registries[0].clone();
    assert!(registry.login.take().is_some() && registry.ca_file.take().is_some());
    assert!(registry.repositories.take().is_some());
    assert_eq!([registry], silent.resources.container_registries[..]);
}

#[test]
fn nothing_at_all_is_a_configuration_with_the_defaults() {
    for empty in ["", "# only a comment\n", "{}", "gateway:\nlog:\niot:\ntriggers:\n"] {
        let settings = parse(empty).unwrap();
        assert_eq!(settings.gateway.listen.to_string(), "127.0.0.1:8080");
        assert_eq!((settings.gateway.workers, settings.gateway.max_connections), (None, 50_000));
        assert_eq!(settings.gateway.drain, Duration::from_secs(1));
        assert_eq!(settings.management.listen.to_string(), "127.0.0.1:8081");
        assert_eq!(settings.management.grpc_listen.to_string(), "127.0.0.1:8443");
        assert_eq!(settings.data_dir, Path::new("./data"));
        assert_eq!(settings.mqtt, None);
        assert_eq!(settings.resources, triggercast::model::Resources::default());
    }
    // The key alone is enough for the MQTT server.
    let mqtt = parse("mqtt:\n").unwrap().mqtt.unwrap();
    assert_eq!((mqtt.listen.to_string().as_str(), mqtt.max_connections), ("127.0.0.1:1883", 10_000));
}

#[test]
fn a_certificate_is_a_text_or_a_file_and_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let pem = || rcgen::generate_simple_self_signed(["press".to_owned()]).unwrap().cert.pem();
    let (of_file, inline) = (pem(), pem());
    std::fs::write(folder.path().join("press.pem"), &of_file).unwrap();
    let inline = inline.trim().replace('\n', "\n                ");
    let text = |second: &str| {
        let with = |id: &str, list: &str| format!("id: {id}, certificates: [{list}], ");
        GOOD.replacen("id: press-1, ", &with("press-1", "press.pem"), 1).replacen(
            "- { id: press-2, password: \"Press-2-demo-1\" }",
            &format!("- id: press-2\n          certificates:\n            - {second}"),
            1,
        )
    };
    let parse = |text: &str| config::parse(text, &folder.path().join("config.yaml"), &|_| None);
    let settings = parse(&text(&format!("|\n                {inline}"))).unwrap();
    let devices = &settings.resources.device_registries[0].devices;
    let names: Vec<_> = devices.iter().map(|device| device.certificates[0].fingerprint).collect();
    assert_eq!(&*devices[0].certificates[0].pem, of_file);
    assert_ne!(names[0], names[1]);
    let twice = parse(&text("press.pem")).unwrap_err().to_string();
    assert!(
        twice.contains("is already taken by iot.registries[0].devices[0].certificates[0]")
            && twice.contains("devices[1].certificates[0]: "),
        "{twice}"
    );
    std::fs::write(folder.path().join("press.pem"), vec![b'x'; 1 << 20]).unwrap();
    assert!(parse(&text("press.pem")).unwrap_err().to_string().contains("exactly one certificate"));
}

#[test]
fn ports_have_the_certificates_that_are_asked_for() {
    use triggercast::config::Tls;
    let silent = parse("mqtt:\n").unwrap();
    assert_eq!((silent.gateway.tls, silent.management.rest_tls), (Tls::Off, Tls::Off));
    let mqtt = silent.mqtt.unwrap();
    assert_eq!((mqtt.tls, mqtt.websocket, mqtt.websocket_origins.len()), (None, true, 0));
    let full = "gateway: { tls: own }\nmanagement: { rest_tls: { certificate_file: c.pem, key_file: k.pem } }\n\
                mqtt: { tls_listen: \"127.0.0.1:8883\", websocket: off }";
    let full = parse(full).unwrap();
    let files = Tls::Given { certificate_file: "c.pem".into(), key_file: "k.pem".into() };
    assert_eq!((full.gateway.tls, full.management.rest_tls), (Tls::Own, files));
    let mqtt = full.mqtt.unwrap();
    assert_eq!(mqtt.tls, Some(("127.0.0.1:8883".parse().unwrap(), Tls::Own)));
    assert!(!mqtt.websocket);
    // Nothing is in the place of MQTT where it is not asked for by WebSocket.
    for text in ["", "mqtt: { websocket: off }\n"] {
        let gateways = "gateways:\n  - { id: mqtt, domain: ws.example.org, paths: { /mqtt: {} } }\n";
        assert!(parse(&format!("{text}{gateways}")).is_ok());
    }
}

/// A small good file; the table of faults changes one thing of it at a time.
const GOOD: &str = r#"
data_dir: ./data
gateway: { listen: "127.0.0.1:8080" }
management: { listen: "127.0.0.1:8081", grpc_listen: "127.0.0.1:8443" }
mqtt: { listen: "127.0.0.1:1883" }
service_accounts:
  - { id: broadcaster, roles: [api-gateway.websocketBroadcaster] }
  - { id: viewer, roles: [api-gateway.viewer] }
gateways:
  - id: main
    paths: { /ws: {}, /images: {} }
iot:
  registries:
    - id: factory
      password: "Factory-demo-1"
      devices:
        - { id: press-1, password: "Press-1-demo-1", aliases: { "hall/press-1": "$devices/press-1" } }
        - { id: press-2, password: "Press-2-demo-1" }
    - id: silent
  brokers:
    - { id: plant, url: "mqtt://127.0.0.1:1884", username: u, password: p }
container_registries:
  - { id: images, kind: distribution, url: "http://127.0.0.1:5000", webhook_token: "t" }
triggers:
  - name: telemetry
    source:
      iot_message: { registry_id: factory, mqtt_topic: "$devices/+/events", batch_settings: { max_count: 10, cutoff: 1s } }
    action:
      - gateway_websocket_broadcast: { gateway_id: main, path: /ws, service_account_id: broadcaster }
  - name: alarms
    rule:
      iot_broker_message:
        broker_id: plant
        mqtt_topic: "alarms/#"
        batch_settings: { size: "100", cutoff: 20s }
        gateway_websocket_broadcast: { gateway_id: main, path: /ws, service_account_id: broadcaster }
  - name: pushes
    source:
      container_registry: { registry_id: images, event_type: [create_image] }
    action:
      - gateway_websocket_broadcast: { gateway_id: main, path: /images, service_account_id: broadcaster }
"#;

/// The good file with one text replaced, wherever it stands.
fn changed(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replacen(from, to, 1)
}

#[test]
fn the_good_file_is_good() {
    let settings = parse(GOOD).unwrap();
    assert_eq!(settings.resources.triggers[1].batch.cutoff, Duration::from_secs(20));
    assert_eq!(settings.resources.triggers[1].batch.max_count, 100);
    assert_eq!(filter(&settings, 2).event_types, [ContainerEventType::CreateImage].into());
}

/// What is accepted: a change of the good file, and what must hold then.
#[test]
fn forms_that_are_accepted() {
    let batch = |change: &str| {
        parse(&changed("{ max_count: 10, cutoff: 1s }", change)).unwrap().resources.triggers[0].batch
    };
    assert_eq!(batch("{}"), BatchSettings::default());
    assert_eq!(batch("{ max_count: 0, max_bytes: 0, cutoff: 0s }"), BatchSettings::default());
    assert_eq!(batch("{ max_count: 1000, cutoff: 60s }").cutoff, Duration::from_secs(60));
    assert_eq!(batch("{ max_count: \"5\", cutoff: 1m }").max_count, 5);
    assert_eq!(batch("{ cutoff: 500ms }").cutoff, Duration::from_millis(500));
    assert_eq!(batch("{ cutoff: 1.5s }").cutoff, Duration::from_millis(1500));
    assert_eq!(batch("{ cutoff: 0s }").cutoff, Duration::from_secs(1));
    assert_eq!(batch("{ max_bytes: 131072 }").max_bytes, 131_072);

    for topic in [
        "$devices/#",
        "$devices/+/events/#",
        "$devices/press-1/#",
        "$devices/+/+",
        "$devices/press-2/state/a/b",
        "$registries/#",
        "$registries/factory/commands",
        "$registries/+/config",
        "hall/#",
        "hall/+/events",
        "#",
        "+/press-1/events/+",
    ] {
        let settings = parse(&changed("$devices/+/events\"", &format!("{topic}\""))).unwrap();
        let source = &settings.resources.triggers[0].source;
        let TriggerSource::Mqtt(MqttTopics::IotMessage { mqtt_topic, .. }) = source else { panic!() };
        assert_eq!(mqtt_topic.as_deref(), Some(topic));
    }
    for alias in ["a", "/a", "a/b/", "ü"] {
        parse(&changed("hall/press-1", alias)).unwrap();
    }
    for target in ["$devices/press-1/", "$devices/press-1/events", "$devices/press-1/state/deep/er"] {
        let settings = parse(&changed("\"$devices/press-1\"", &format!("\"{target}\""))).unwrap();
        let aliases = &settings.resources.device_registries[0].devices[0].aliases;
        assert_eq!(aliases[0].target, target.trim_end_matches('/'));
    }
    for role in ["api-gateway.editor", "api-gateway.admin"] {
        parse(&changed("api-gateway.websocketBroadcaster", role)).unwrap();
    }
    let events = "[CONTAINER_REGISTRY_EVENT_TYPE_DELETE_IMAGE_TAG, create_image_tag]";
    let settings = parse(&changed("[create_image]", events)).unwrap();
    let wanted = [ContainerEventType::DeleteImageTag, ContainerEventType::CreateImageTag];
    assert_eq!(filter(&settings, 2).event_types, wanted.into());
    let registry = |fields: &str| {
        let settings =
            parse(&changed("webhook_token: \"t\" }", &format!("webhook_token: \"t\", {fields} }}")));
        settings.unwrap().resources.container_registries.remove(0)
    };
    let silent = registry("");
    assert_eq!(
        (&*silent.cloud_id, &*silent.folder_id, &*silent.repository_prefix),
        ("default", "default", "images/")
    );
    assert_eq!(silent.reconcile.every, Some(Duration::from_secs(300)));
    assert_eq!((silent.manifests, silent.tells_untagged), ([ManifestKind::Image].into(), false));
    let all =
        registry("manifests: [image, helm, artifact, signature], untagged: emit, repository_prefix: \"\"");
    assert_eq!((all.manifests.len(), all.tells_untagged, &*all.repository_prefix), (4, true, ""));
    let asked = registry("reconcile: { every: 0s, requests_per_second: 7 }, repositories: [a, b/c]");
    assert_eq!((asked.reconcile.every, asked.reconcile.requests_per_second), (None, 7));
    assert_eq!(asked.repositories, Some(vec!["a".to_owned(), "b/c".to_owned()]));
    let login = registry("username: me, password: secret").login.unwrap();
    assert_eq!((login.username.as_str(), login.password.expose()), ("me", "secret"));
    let generic = "kind: generic, webhook_token: \"t\"";
    let generic =
        changed("kind: distribution, url: \"http://127.0.0.1:5000\", webhook_token: \"t\"", generic);
    assert_eq!(parse(&generic).unwrap().resources.container_registries[0].url, None);
    // No MQTT server: what only lies there unread is no fault.
    let no_mqtt = changed("mqtt: { listen: \"127.0.0.1:1883\" }", "");
    let first = no_mqtt.find("  - name: telemetry").unwrap()..no_mqtt.find("  - name: alarms").unwrap();
    parse(&no_mqtt.replace(&no_mqtt[first], "")).unwrap();
    // Ports that the system chooses do not collide; neither do different addresses.
    parse(&GOOD.replace(":8080", ":0").replace(":8081", ":0")).unwrap();
    parse(&changed("127.0.0.1:8081", "127.0.0.2:8080")).unwrap();
    let settings = parse(&changed(
        "{ listen: \"127.0.0.1:8080\" }",
        "{ drain: 0s, workers: 256 }\nlog: { format: json }",
    ))
    .unwrap();
    assert_eq!((settings.gateway.drain, settings.gateway.workers), (Duration::ZERO, Some(256)));
    assert_eq!(settings.log.format, LogFormat::Json);
    assert_eq!(settings.resources.gateways[0].paths[0], GatewayPath::new("/ws"));
    let origins = r#"["https://a.example", "http://localhost:3000", "http://[::1]:80", "app://x"]"#;
    let origins = origins.replace(":80\"", ":81\"");
    let settings = parse(&changed(
        "    paths:",
        &format!("    allowed_origins: {origins}\n    domain: WS.Example.org\n    paths:"),
    ))
    .unwrap();
    assert_eq!(settings.resources.gateways[0].allowed_origins.len(), 4);
    assert_eq!(settings.resources.gateways[0].domain.as_deref(), Some("ws.example.org"));
    // A printed trigger, as it is.
    let printed = "  - name: telemetry\n    id: a1s0000000\n    folder_id: default\n    created_at: \"2019-09-25T12:54:35Z\"\n    status: ACTIVE\n    description: d\n    labels: { a: b }";
    parse(&changed("  - name: telemetry", printed)).unwrap();
}

/// As the model system's command line prints it, with ids of this file.
#[test]
fn a_printed_v1_trigger_can_be_pasted() {
    let printed = r#"
  - id: a1sfe084v4h2morsvfq2
    folder_id: b1g88tflruh2morsvfq2
    created_at: "2019-09-25T12:54:35.654935Z"
    name: printed
    rule:
      iot_message:
        registry_id: factory
        device_id: press-1
        mqtt_topic: $devices/press-1/events
        batch_settings:
          size: "1"
          cutoff: 0s
        gateway_websocket_broadcast:
          gateway_id: main
          path: /ws
          service_account_id: broadcaster
    status: ACTIVE
"#;
    let settings = parse(&format!("{GOOD}{}", printed.trim_start_matches('\n'))).unwrap();
    let trigger = settings.resources.triggers.last().unwrap();
    assert_eq!((&*trigger.name, trigger.batch), ("printed", BatchSettings::default()));
    assert_eq!(trigger.source.to_string(), "factory/press-1 $devices/press-1/events");
}

#[test]
fn secrets_come_from_files_and_variables() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pw"), "from file \r\n").unwrap();
    let text = changed("password: \"Press-1-demo-1\"", "password_file: pw")
        .replace("\"Press-2-demo-1\"", "\"a${PW}b$${PW}\"")
        .replace("\"Factory-demo-1\"", "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$MUbqjFu8zZsXK1cT0w1p9g")
        .replace("127.0.0.1:1883", "0.0.0.0:1883");
    let env = |name: &str| (name == "PW").then(|| "x: {y}".to_owned());
    let settings = config::parse(&text, &folder.path().join("config.yaml"), &env).unwrap();
    let registry = &settings.resources.device_registries[0];
    let plain = |text: &str| vec![Password::Plain(text.into())];
    assert_eq!(registry.devices[0].passwords, plain("from file "));
    assert_eq!(registry.devices[1].passwords, plain("ax: {y}b${PW}"));
    assert!(matches!(registry.passwords[..], [Password::Argon2(_)]));
    assert_eq!(settings.data_dir, folder.path().join("./data"));
    // Nothing of it shows.
    let shown = format!("{settings:?}");
    for secret in ["from file", "x: {y}", "argon2id", "\"t\""] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
}

/// Every fault there is, as its reader sees it. Each case changes one thing of the good file.
#[test]
fn faults_say_what_and_where() {
    let telemetry = "{ max_count: 10, cutoff: 1s }";
    let source = "{ registry_id: factory, mqtt_topic: \"$devices/+/events\", batch_settings: { max_count: 10, cutoff: 1s } }";
    let iot = |fields: &str| changed(source, fields);
    let topic = |topic: &str| changed("\"$devices/+/events\"", &format!("\"{topic}\""));
    let aliases = |aliases: &str| changed("{ \"hall/press-1\": \"$devices/press-1\" }", aliases);
    let gateway = |lines: &str| changed("    paths:", &format!("    {lines}\n    paths:"));
    let paths = |paths: &str| changed("{ /ws: {}, /images: {} }", paths);
    let broker = |fields: &str| {
        changed("{ id: plant, url: \"mqtt://127.0.0.1:1884\", username: u, password: p }", fields)
    };
    let container = |fields: &str| changed("{ registry_id: images, event_type: [create_image] }", fields);
    let registry = |fields: &str| changed("webhook_token: \"t\"", &format!("webhook_token: \"t\", {fields}"));
    let long = "x".repeat(300);
    let mut shown = String::new();
    let mqtt = |fields: &str| {
        changed(
            "mqtt: { listen: \"127.0.0.1:1883\"",
            &format!("mqtt: {{ listen: \"127.0.0.1:1883\", {fields}"),
        )
    };
    let device = |fields: &str| changed("id: press-2, ", &format!("id: press-2, {fields}, "));
    for (name, text) in [
        // The text itself.
        ("not YAML", "a: [1".into()),
        ("tab", "gateway:\n\tlisten: x".into()),
        ("a list", "[]".into()),
        ("a text", "hello".into()),
        ("key twice", "gateway: {}\ngateway: {}".into()),
        ("two documents", "gateway: {}\n---\ngateway: {}".into()),
        ("undefined alias", "gateway: *x".into()),
        ("too deep", format!("a: {}{}", "[".repeat(100), "]".repeat(100))),
        // Keys and kinds.
        ("unknown key", changed("data_dir:", "dta_dir:")),
        ("unknown key, nothing near", changed("data_dir:", "zzz:")),
        ("unknown key below", changed("max_count: 10", "max_cont: 10")),
        ("a section that is a list", changed("mqtt: { listen: \"127.0.0.1:1883\" }", "mqtt: []")),
        ("a list that is a map", "triggers: {}".into()),
        ("text that is a number", changed("\"Press-1-demo-1\"", "12345")),
        ("empty folder", changed("./data", "\"\"")),
        // Server.
        ("listen without port", changed("127.0.0.1:8080", "127.0.0.1")),
        ("listen by name", changed("127.0.0.1:8080", "localhost:8080")),
        ("listen port too large", changed("127.0.0.1:8080", "127.0.0.1:65536")),
        ("same address", changed("127.0.0.1:8081", "127.0.0.1:8080")),
        ("same port on all addresses", changed("127.0.0.1:8443", "0.0.0.0:1883")),
        ("same as a default", "gateway: { listen: \"127.0.0.1:8081\" }".into()),
        ("no workers", changed("{ listen: \"127.0.0.1:8080\" }", "{ workers: 0 }")),
        ("many workers", changed("{ listen: \"127.0.0.1:8080\" }", "{ workers: 257 }")),
        ("half a worker", changed("{ listen: \"127.0.0.1:8080\" }", "{ workers: 0.5 }")),
        ("no connections", changed("{ listen: \"127.0.0.1:8080\" }", "{ max_connections: 0 }")),
        ("long drain", changed("{ listen: \"127.0.0.1:8080\" }", "{ drain: 61s }")),
        ("drain without unit", changed("{ listen: \"127.0.0.1:8080\" }", "{ drain: 5 }")),
        ("drain in words", changed("{ listen: \"127.0.0.1:8080\" }", "{ drain: soon }")),
        ("log format", changed("data_dir: ./data", "log: { format: xml }")),
        ("trace word", changed("data_dir: ./data", "log: { trace: sometimes }")),
        ("trace of none", changed("data_dir: ./data", "log: { trace: { one_in: 0 } }")),
        ("trace topic", changed("data_dir: ./data", "log: { trace: { topic: \"a/#/b\" } }")),
        ("trace collector", changed("data_dir: ./data", "log: { trace: { otlp: \"127.0.0.1:4317\" } }")),
        ("trace key", changed("data_dir: ./data", "log: { trace: { every: 2 } }")),
        ("demo passwords in public", changed("127.0.0.1:1883", "0.0.0.0:1883")),
        // Ids.
        ("upper-case id", changed("id: main", "id: Main")),
        ("long id", changed("id: main", &format!("id: {long}"))),
        ("empty id", changed("id: main", "id: \"\"")),
        ("no id", changed("{ id: press-2, password", "{ password")),
        ("gateway twice", changed("gateways:", "gateways:\n  - { id: main, paths: { /x: {} } }")),
        ("device twice", changed("id: press-2", "id: press-1")),
        ("device named as a registry", changed("id: press-2", "id: factory")),
        ("broker named as a device", changed("id: plant,", "id: press-2,")),
        ("service account twice", changed("id: viewer", "id: broadcaster")),
        (
            "container registry twice",
            changed(
                "container_registries:",
                "container_registries:\n  - { id: images, kind: zot, url: \"http://h\", webhook_token: t }",
            ),
        ),
        ("trigger twice", changed("name: alarms", "name: telemetry")),
        ("role", changed("api-gateway.viewer", "no role")),
        // Gateways.
        ("no paths", paths("{}")),
        ("paths missing", changed("    paths: { /ws: {}, /images: {} }", "    domain: a.example")),
        ("path without slash", paths("{ ws: {}, /ws: {}, /images: {} }")),
        ("path with two slashes", paths("{ /a//b: {}, /ws: {}, /images: {} }")),
        ("path upwards", paths("{ /a/../b: {}, /ws: {}, /images: {} }")),
        ("path with query", paths("{ \"/a?b\": {}, /ws: {}, /images: {} }")),
        ("path with a space", paths("{ \"/a b\": {}, /ws: {}, /images: {} }")),
        ("long path", paths(&format!("{{ /{long}: {{}}, /ws: {{}}, /images: {{}} }}"))),
        ("small backlog", paths("{ /ws: { backlog_bytes: 65535 }, /images: {} }")),
        ("large backlog", paths("{ /ws: { backlog_bytes: 1073741825 }, /images: {} }")),
        ("durability", paths("{ /ws: { durability: ram }, /images: {} }")),
        ("slow clients", paths("{ /ws: { slow_clients: cut }, /images: {} }")),
        ("no events kept", paths("{ /ws: { retention: { events: 0 } }, /images: {} }")),
        ("few bytes kept", paths("{ /ws: { retention: { bytes: 1023 } }, /images: {} }")),
        ("no age", paths("{ /ws: { retention: { age: 0s } }, /images: {} }")),
        ("unknown key of retention", paths("{ /ws: { retention: { evnts: 3 } }, /images: {} }")),
        ("path option", paths("{ /ws: { retention: 1 }, /images: {} }")),
        ("domain with scheme", gateway("domain: \"ws://a.example\"")),
        (
            "domain twice",
            changed(
                "gateways:",
                "gateways:\n  - { id: b, domain: x.y, paths: { /x: {} } }\n  - { id: c, domain: X.y, paths: { /x: {} } }",
            ),
        ),
        ("origin star", gateway("allowed_origins: [\"*\"]")),
        ("origin with path", gateway("allowed_origins: [\"https://a.example/\"]")),
        ("origin with default port", gateway("allowed_origins: [\"https://a.example:443\"]")),
        ("origin is a text", gateway("allowed_origins: \"https://a.example\"")),
        ("openapi", gateway("openapi: gateway.yaml")),
        // Registries, devices, brokers.
        ("both secrets", changed("password: \"Factory-demo-1\"", "password: a\n      password_file: b")),
        ("secret file missing", changed("password: \"Factory-demo-1\"", "password_file: no/such/file")),
        ("secret file is a folder", changed("password: \"Factory-demo-1\"", "password_file: src")),
        ("empty secret", changed("\"Factory-demo-1\"", "\"\"")),
        ("bad hash", changed("\"Factory-demo-1\"", "\"$argon2id$v=19$nonsense\"")),
        ("variable not set", changed("\"Factory-demo-1\"", "\"${NOT_SET}\"")),
        ("variable not closed", changed("\"Factory-demo-1\"", "\"${NOT_SET\"")),
        ("variable without name", changed("127.0.0.1:8080", "${}")),
        ("user name without url", changed("- id: silent", "- id: silent\n      username: x")),
        ("broker url scheme", broker("{ id: plant, url: \"http://h:1\" }")),
        ("broker url with TLS", broker("{ id: plant, url: \"mqtts://h:1\" }")),
        ("broker url with login", broker("{ id: plant, url: \"mqtt://user:hunter2@h:1\" }")),
        ("broker url with path", broker("{ id: plant, url: \"mqtt://h:1/x\" }")),
        ("broker url without host", broker("{ id: plant, url: \"mqtt://:1883\" }")),
        ("broker login without password", broker("{ id: plant, url: \"mqtt://h\", username: u }")),
        ("broker login without user", broker("{ id: plant, url: \"mqtt://h\", password: hunter2 }")),
        ("alias of another device", aliases("{ a: \"$devices/press-2\" }")),
        ("alias of a plain topic", aliases("{ a: \"b\" }")),
        ("alias of an unknown kind", aliases("{ a: \"$devices/press-1/event\" }")),
        ("alias with a wildcard", aliases("{ \"a/+\": \"$devices/press-1\" }")),
        ("alias with a dollar", aliases("{ $a: \"$devices/press-1\" }")),
        (
            "alias below an alias",
            aliases("{ a: \"$devices/press-1\", a/b: \"$devices/press-1\", ab: \"$devices/press-1\" }"),
        ),
        (
            "alias twice",
            changed("password: \"Press-2-demo-1\"", "aliases: { hall/press-1/: \"$devices/press-2\" }"),
        ),
        (
            "six aliases",
            aliases(&format!(
                "{{ {} }}",
                ["a", "b", "c", "d", "e", "f"].map(|a| format!("{a}: \"$devices/press-1\"")).join(", ")
            )),
        ),
        // Container registries.
        ("container kind", changed("kind: distribution", "kind: docker")),
        ("container url", changed("http://127.0.0.1:5000", "127.0.0.1:5000")),
        ("container without token", changed(", webhook_token: \"t\"", "")),
        ("container without url", changed("url: \"http://127.0.0.1:5000\", ", "")),
        ("container token with blanks", changed("webhook_token: \"t\"", "webhook_token: \"t t\"")),
        (
            "container token hashed",
            changed(
                "webhook_token: \"t\"",
                "webhook_token: \"$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA\"",
            ),
        ),
        ("container user without password", registry("username: me")),
        ("container password without user", registry("password: secret")),
        ("container user", registry("username: \"a:b\", password: secret")),
        ("container ca", registry("ca_file: nowhere.pem")),
        ("container manifests", registry("manifests: [images]")),
        ("container no manifests", registry("manifests: []")),
        ("container untagged", registry("untagged: never")),
        ("container repositories", registry("repositories: [Team/App]")),
        ("container too often", registry("reconcile: { every: 5s }")),
        ("container too seldom", registry("reconcile: { every: 25h }")),
        ("container rate", registry("reconcile: { requests_per_second: 0 }")),
        ("container prefix", registry("repository_prefix: \"a b\"")),
        ("container cloud", registry("cloud_id: Cloud")),
        ("container key", registry("tokens: x")),
        (
            "container token on a public port",
            changed("grpc_listen: \"127.0.0.1:8443\"", "grpc_listen: \"127.0.0.1:8443\"")
                .replace("listen: \"127.0.0.1:8081\"", "listen: \"0.0.0.0:8081\""),
        ),
        // Triggers.
        ("short name", changed("name: telemetry", "name: ab")),
        ("name ends with a dash", changed("name: telemetry", "name: telemetry-")),
        ("no source", changed("    source:\n      iot_message:", "    sauce:\n      iot_message:")),
        (
            "source and rule",
            changed("    source:\n      iot_message:", "    rule: {}\n    source:\n      iot_message:"),
        ),
        ("two sources", changed("iot_message:", "iot_broker_message: {}\n      iot_message:")),
        ("timer", iot("{}").replace("iot_message: {}", "timer: {}")),
        (
            "no action",
            changed(
                "    action:\n      - gateway_websocket_broadcast: { gateway_id: main, path: /ws, service_account_id: broadcaster }\n",
                "",
            ),
        ),
        (
            "empty action",
            changed(
                "    action:\n      - gateway_websocket_broadcast: { gateway_id: main, path: /ws, service_account_id: broadcaster }\n",
                "    action: []\n",
            ),
        ),
        (
            "other action",
            changed(
                "- gateway_websocket_broadcast: { gateway_id: main, path: /ws, service_account_id: broadcaster }",
                "- invoke_function: {}",
            ),
        ),
        (
            "filter",
            changed(
                "- gateway_websocket_broadcast:",
                "- filter: { jq: \"\" }\n        transformer: { jk: . }\n        payload_encoding: hex\n        \
                 retry_policy: {}\n        gateway_websocket_broadcast:",
            ),
        ),
        ("reserved account", changed("id: broadcaster", "id: admin")),
        ("tls", changed("grpc_listen:", "tls: { certificate_file: a.pem }, host: \"a b\", grpc_listen:")),
        ("tls word", changed("grpc_listen:", "tls: on, grpc_listen:")),
        ("paused", changed("name: telemetry", "name: telemetry\n    status: PAUSED")),
        ("label", changed("name: telemetry", "name: telemetry\n    labels: { A: B }")),
        ("unknown registry", iot("{ registry_id: facotry, mqtt_topic: x }")),
        ("registry missing", iot("{ mqtt_topic: x }")),
        ("unknown device", iot("{ registry_id: factory, device_id: press-9 }")),
        ("device of another registry", iot("{ registry_id: silent, device_id: press-1 }")),
        ("embedded server is off", changed("mqtt: { listen: \"127.0.0.1:1883\" }", "")),
        ("unknown broker", changed("broker_id: plant", "broker_id: zzz")),
        ("unknown gateway", changed("gateway_id: main", "gateway_id: min")),
        ("unknown path", changed("path: /ws", "path: /w")),
        ("unknown account", changed("service_account_id: broadcaster", "service_account_id: zzz")),
        ("account without role", changed("service_account_id: broadcaster", "service_account_id: viewer")),
        (
            "broadcast without keys",
            changed("{ gateway_id: main, path: /ws, service_account_id: broadcaster }", "{}"),
        ),
        // Batches.
        ("max_count", changed(telemetry, "{ max_count: 1001 }")),
        ("max_count negative", changed(telemetry, "{ max_count: -1 }")),
        ("max_count text", changed(telemetry, "{ max_count: ten }")),
        ("max_bytes", changed(telemetry, "{ max_bytes: 131073 }")),
        ("cutoff", changed(telemetry, "{ cutoff: 60.001s }")),
        ("cutoff without unit", changed(telemetry, "{ cutoff: 1 }")),
        ("v1 key in v2", changed(telemetry, "{ size: 10 }")),
        ("v2 key in v1", changed("size: \"100\"", "max_count: 100")),
        ("v1 size", changed("size: \"100\"", "size: \"1001\"")),
        // Topics.
        ("topic too short", topic("$devices/+")),
        ("topic misplaced wildcard", topic("$devices/#/events")),
        ("topic half wildcard", topic("$devices/press-+/events")),
        ("topic of an unknown device", topic("$devices/press-3/events")),
        ("topic of no kind", topic("$devices/+/event")),
        ("topic of another registry", topic("$registries/silent/events")),
        ("topic monitoring", topic("$monitoring/press-1/json")),
        ("topic me", topic("$me/device/events")),
        ("topic of no alias", topic("yard/#")),
        ("topic above the alias", topic("hall/+")),
        ("topic empty", topic("")),
        (
            "topic of another device",
            iot("{ registry_id: factory, device_id: press-1, mqtt_topic: \"$devices/press-2/events\" }"),
        ),
        (
            "registry topic with device",
            iot("{ registry_id: factory, device_id: press-1, mqtt_topic: \"$registries/#\" }"),
        ),
        (
            "alias topic without aliases",
            iot("{ registry_id: factory, device_id: press-2, mqtt_topic: \"hall/#\" }"),
        ),
        ("broker topic with dollar", changed("alarms/#", "$devices/+/events")),
        ("broker topic", changed("alarms/#", "alarms/#/x")),
        // Container triggers.
        ("unknown container registry", container("{ registry_id: image, event_type: [create_image] }")),
        ("event type", container("{ registry_id: images, event_type: [create_images] }")),
        (
            "event type twice",
            container(
                "{ registry_id: images, event_type: [create_image, CONTAINER_REGISTRY_EVENT_TYPE_CREATE_IMAGE] }",
            ),
        ),
        ("no event types", container("{ registry_id: images, event_type: [] }")),
        ("event types missing", container("{ registry_id: images }")),
        ("tag", container("{ registry_id: images, event_type: [create_image], tag: \"*\" }")),
        // TLS, and MQTT over WebSocket.
        ("gateway TLS in another word", changed("gateway: {", "gateway: { tls: yes, ")),
        ("gateway TLS without a key", changed("gateway: {", "gateway: { tls: { certificate_file: c.pem }, ")),
        ("REST TLS in another word", changed("management: {", "management: { rest_tls: on, ")),
        ("MQTT TLS without an address", mqtt("tls: own")),
        ("MQTT TLS off", mqtt("tls_listen: \"127.0.0.1:8883\", tls: off")),
        ("MQTT TLS on the plain address", mqtt("tls_listen: \"127.0.0.1:1883\"")),
        ("MQTT TLS for all", mqtt("tls_listen: \"0.0.0.0:8883\"")),
        ("MQTT by WebSocket for all", changed("127.0.0.1:8080", "0.0.0.0:8080")),
        ("MQTT by WebSocket from a path", mqtt("websocket_origins: [\"https://app.example.org/\"]")),
        (
            "a gateway in the place of MQTT",
            changed("id: main", "id: mqtt").replace("gateway_id: main", "gateway_id: mqtt"),
        ),
        (
            "a path in the place of MQTT",
            gateway("domain: ws.example.org").replace("/ws: {}", "/ws: {}, /mqtt: {}"),
        ),
        ("certificate that is none", device("certificates: [\"-----BEGIN nonsense\"]")),
        ("certificate file that is not there", device("certificates: [no-such.pem]")),
        (
            "certificate on another broker",
            broker("{ id: plant, url: \"mqtt://h\", certificates: [no-such.pem] }"),
        ),
        // Several at once, in the order of the file.
        (
            "several",
            changed("id: main", "id: Main")
                .replace("127.0.0.1:8080", "x")
                .replace("path: /ws", "path: /wss")
                .replace("cutoff: 20s", "cutoff: 2h"),
        ),
    ] {
        let Err(errors) = parse(&text) else { panic!("{name}: no fault in {text}") };
        let errors = errors.to_string();
        for secret in ["demo-1\"", "hunter2"] {
            assert!(!errors.contains(secret), "{name}: {errors}");
        }
        let _ = writeln!(shown, "# {name}\n{errors}");
    }
    insta::assert_snapshot!("faults", shown);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.yaml");
    let error = config::load(&missing).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("{}: the file cannot be read: No such file or directory (os error 2)", missing.display())
    );
    let binary = folder.path().join("binary.yaml");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    assert_eq!(
        config::load(&binary).unwrap_err().to_string(),
        format!("{}: the file is not UTF-8 text", binary.display())
    );
}

/// Files that unfold to more than they are.
#[test]
fn bombs_are_refused_before_they_unfold() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..10 {
        let before = format!("*a{}, ", n - 1).repeat(10);
        let _ = writeln!(laughs, "a{n}: &a{n} [{}]", before.trim_end_matches(", "));
    }
    let merges: String = (0..5000).map(|n| format!("m{n}: {{ <<: *base }}\n")).collect();
    let bombs = [
        ("laughs", laughs),
        ("deep", format!("a: {}", "[".repeat(100_000))),
        ("deep maps", format!("a: {}", "{a: ".repeat(100_000))),
        ("deep blocks", (0..2000).map(|n| format!("{}a:\n", " ".repeat(n))).collect()),
        ("many", format!("a: [{}]", "1,".repeat(1_000_000))),
        ("long", "x".repeat(20_000_000)),
        ("many keys", (0..300_000).map(|n| format!("k{n}: 1\n")).collect()),
        ("merges", format!("base: &base {{ a: 1 }}\n{merges}")),
        ("anchors", (0..5000).map(|n| format!("k{n}: &a{n} 1\n")).collect()),
    ];
    for (name, bomb) in bombs {
        let start = Instant::now();
        let errors = parse(&bomb).unwrap_err();
        // Unfolded, they would take hours, or all memory; the limit leaves room for a slow machine.
        assert!(start.elapsed() < Duration::from_secs(60), "{name} took {:?}", start.elapsed());
        assert_eq!(errors.iter().count(), 1, "{name}");
        assert!(errors.to_string().len() < 1000, "{name}: {errors}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is done to the default file, it is read or refused, and every fault is one line.
    #[test]
    fn no_text_makes_the_parser_panic(
        edits in prop::collection::vec((0..DEFAULT.len(), 0..40_usize, "\\PC{0,6}|[-:#{}\\[\\]&*!|>'\"%@`$ \n\t,?0-9a-z/+]{0,12}"), 1..8),
    ) {
        let mut text = uncommented(DEFAULT);
        for (at, cut, insert) in edits {
            let mut from = at.min(text.len());
            while !text.is_char_boundary(from) { from -= 1; }
            let mut to = (from + cut).min(text.len());
            while !text.is_char_boundary(to) { to += 1; }
            text.replace_range(from..to, &insert);
        }
        if let Err(errors) = config::parse(&text, Path::new("c.yaml"), &|_| Some("v".into())) {
            for error in errors.iter() {
                prop_assert!(!error.to_string().contains('\n'), "{error}");
            }
        }
    }
}

#[test]
fn a_path_compresses_when_it_says_so() {
    let with = |value: &str| parse(&changed("/ws: {}", &format!("/ws: {{ deflate: {value} }}")));
    assert!(with("true").unwrap().resources.gateways[0].paths[0].deflate);
    for silent in ["false", "null"] {
        assert_eq!(with(silent).unwrap().resources.gateways[0].paths[0], GatewayPath::new("/ws"));
    }
    let fault = with("1").unwrap_err().to_string();
    assert!(fault.ends_with(": gateways[0].paths[\"/ws\"].deflate: 1 is not true or false"), "{fault}");
}
