//! The model system's own SDKs manage triggers and what they need, by scripts of tests/clients; and requests that
//! nobody would write are made up from the description of the API.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::{FACTORY, Socket, TestServer, config, events, run, script, trigger};

/// A server with the trigger `telemetry`, and the id of an account that may do everything in the folder.
fn server() -> (TestServer, String) {
    let source = "iot_message: { registry_id: factory, mqtt_topic: \"$devices/+/events\" }";
    let server = TestServer::start(&config(&format!(
        "{FACTORY}triggers:\n{}",
        trigger("telemetry", source, "/other")
    )));
    let account = json!({ "folderId": "default", "name": "sdk" });
    let account = server.done("POST", "/iam/v1/serviceAccounts", &account)["id"].as_str().unwrap().to_owned();
    let subject = json!({ "id": account, "type": "serviceAccount" });
    let delta = json!({ "action": "ADD", "accessBinding": { "roleId": "admin", "subject": subject } });
    let path = "/resource-manager/v1/folders/default:updateAccessBindings";
    server.done("POST", path, &json!({ "accessBindingDeltas": [delta] }));
    (server, account)
}

fn endpoint(server: &TestServer) -> String {
    format!("localhost:{}", server.grpc.port())
}

#[test]
fn the_models_python_sdk_manages_triggers() {
    let (server, account) = server();
    let key = server.folder.join("key.json");
    let rest = ["iam", "key", "create", "--service-account-id", &account, "--output", key.to_str().unwrap()];
    run(&mut server.command(&rest));
    let (mut socket, head) = Socket::handshake(server.gateway, "/main/ws", "");
    let name = "x-yc-apigateway-websocket-connection-id: ";
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
    let connection = &line.unwrap_or_else(|| panic!("{head}"))[name.len()..];
    let ca = server.folder.join("data/tls/ca.pem");
    let mut python = script("management.py");
    python.arg(endpoint(&server)).arg(ca).arg(key).args(["broadcaster", connection]);
    let said = run(&mut python);
    assert!(said.starts_with("ok "), "{said}");

    // What the script has sent to the connection, before it has closed it.
    assert_eq!(socket.text(), "grüße");
    assert_eq!(socket.frame(), (0x82, vec![0, 0xff]));
    loop {
        match socket.frame() {
            (0x81, text) => {
                let events = events(std::str::from_utf8(&text).unwrap());
                assert!(events.iter().all(|event| event.payload == "from the SDK"), "{events:?}");
            }
            (0x88, code) => {
                assert_eq!(code[..2], 1001_u16.to_be_bytes());
                break;
            }
            other => panic!("unexpected frame {other:?}"),
        }
    }
    assert!(server.stop().success());
}

#[test]
fn the_models_node_sdk_manages_triggers() {
    let (server, account) = server();
    let path = "/iam/v1/tokens:createForServiceAccount";
    let token: Value = server.done("POST", path, &json!({ "serviceAccountId": account }));
    let ca = server.folder.join("data/tls/ca.pem");
    let mut node = script("management.mjs");
    node.arg(endpoint(&server)).arg(ca).args([token["iamToken"].as_str().unwrap(), "broadcaster"]);
    let said = run(&mut node);
    assert!(said.starts_with("ok "), "{said}");
    assert!(server.stop().success());
}

#[test]
fn thousands_of_made_up_requests_get_answers_as_they_are_described() {
    let (server, _) = server();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = root.join("target/test-tools/venv/bin/schemathesis");
    assert!(program.exists(), "{} is missing; scripts/test makes it", program.display());
    let mut made_up = Command::new(program);
    made_up.arg("--config-file").arg(root.join("tests/clients/schemathesis.toml")).arg("--no-color");
    let key = std::fs::read_to_string(server.folder.join("data/admin.key")).unwrap();
    made_up.args(["run", &format!("http://{}/openapi.json", server.management)]);
    made_up.args(["-H", &format!("Authorization: Api-Key {}", key.trim())]);
    // A key of 4096 bits takes long to make in a build without optimisation.
    made_up.args(["--request-timeout", "60"]);
    made_up.args(["--phases", "coverage,fuzzing", "--max-examples", "5", "--seed", "1", "--warnings", "off"]);
    let said = run(made_up.current_dir(&server.folder));
    assert!(said.contains("No issues found"), "{said}");
    assert!(server.stop().success());
}
