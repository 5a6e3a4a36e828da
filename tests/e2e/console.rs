//! The console in a real browser: tests/clients/console.mjs uses it as people do.

use serde_json::json;

use crate::common::{FACTORY, TestServer, config, run, script, trigger};

/// Text that would be more than text if anything took it for HTML.
const EVIL: &str = r#"<img src=x onerror="window.wasRun=1"><script>window.wasRun=1</script>"#;

/// Runs these checks against a server with the trigger `telemetry` of the file, one that was made by a call, and a registry
/// with a nasty description.
fn people(checks: &[&str]) {
    let source = |topic: &str| {
        format!(
            "iot_message: {{ registry_id: factory, mqtt_topic: \"{topic}\", batch_settings: {{ max_count: 10, cutoff: 1s }} }}"
        )
    };
    let images =
        "container_registries:\n  - { id: images, kind: generic, webhook_token: \"Images-demo-1\" }\n";
    let telemetry = trigger("telemetry", &source("$devices/press-1/events"), "/ws");
    let server = TestServer::start(&config(&format!("{FACTORY}{images}triggers:\n{telemetry}")));
    let registry = json!({ "folderId": "default", "name": "nasty", "description": EVIL });
    server.done("POST", "/iot-devices/v1/registries", &registry);
    let target = json!({ "gatewayId": "main", "path": "/small", "serviceAccountId": "broadcaster" });
    let batch = json!({ "maxCount": "1", "cutoff": "1s" });
    let by_call = json!({
        "folderId": "default", "name": "by-call", "description": EVIL,
        "source": { "iotMessage": { "registryId": "factory", "batchSettings": batch } },
        "action": [{ "gatewayWebsocketBroadcast": target }],
    });
    server.done("POST", "/triggers/v2/triggers", &by_call);
    let key = std::fs::read_to_string(server.folder.join("data/admin.key")).unwrap();
    let mut node = script("console.mjs");
    node.arg(format!("http://{}/console/", server.management)).args([key.trim(), &server.mqtt_port()]);
    let said = run(node.args(checks));
    for check in checks {
        assert!(said.contains(&format!("ok {check}\n")), "{said}");
    }
    assert!(server.stop().success());
}

#[test]
fn a_trigger_is_made_by_the_form_and_its_events_are_seen() {
    people(&["create", "odd", "refused"]);
}

#[test]
fn the_console_is_used_by_keyboard_and_its_charts_move() {
    people(&["keyboard", "chart", "weight"]);
}

#[test]
fn connections_are_sent_to_and_closed_and_the_demo_needs_no_key() {
    people(&["connections", "demo"]);
}

#[test]
fn no_page_keeps_anybody_out_in_light_dark_wide_or_narrow() {
    people(&["pages"]);
}
