//! What must not be found where it does not belong: secrets in logs and answers, input that would write log lines.

use std::io::Write as _;
use std::net::TcpStream;

use serde_json::{Value, json};

use super::{ask, telemetry};
use crate::common::{Socket, TestServer, header, program, until};

/// A server that says everything that it can say, and its folder.
fn talkative(config: &str) -> (TestServer, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = program(folder.path(), &(config.to_owned() + REGISTRY));
    (TestServer::start_by(command.env("RUST_LOG", "triggercast=trace")), folder)
}

const REGISTRY: &str =
    "container_registries:\n  - { id: images, kind: generic, webhook_token: \"Canary-hook-5\" }\n";

#[test]
fn no_input_makes_a_line_of_the_log() {
    let (server, _folder) = talkative(&telemetry());
    let evil = "\n{\"level\":\"INFO\",\"fields\":{\"message\":\"forged\"}}\n\u{1b}[2J\u{1b}]0;x\u{7}\r\u{9b}31m\u{2028}";
    let encoded: String = evil.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let mut client = server.websocket("/ws");
    // As a name, a client id, a topic.
    let text = |text: &str| [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat();
    let login = |user: &str, password: &str, id: &str| {
        let body = [&b"\0\x04MQTT\x04\xc2\0\x3c"[..], &text(id), &text(user), &text(password)].concat();
        [&[0x10, (body.len() % 128) as u8 | 0x80, (body.len() / 128) as u8][..], &body].concat()
    };
    let topic = text(&format!("$devices/press-1/events/{evil}"));
    let publish = [&[0x30, (topic.len() + 1) as u8][..], &topic, b"x"].concat();
    let mqtt = server.mqtt.unwrap();
    ask(mqtt, &login(evil, evil, evil));
    let mut device = TcpStream::connect(mqtt).unwrap();
    device.write_all(&[login("press-1", "Press-1-demo-1", evil), publish].concat()).unwrap();
    // As a path, a query, headers, a name of a registry, of a call, of a gateway.
    let line = format!("User-Agent: a\tb {}\r\n", "é".repeat(100));
    for path in [format!("/main/{encoded}"), format!("/{encoded}/ws"), format!("/main/ws?last={encoded}")] {
        Socket::handshake(server.gateway, &path, &line);
    }
    for path in [
        format!("GET /{encoded}"),
        format!("POST /container-registry/v1/registries/{encoded}/notifications"),
        format!("GET /triggers/v1/triggers/{encoded}"),
    ] {
        ask(
            server.management,
            format!("{path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{line}\r\n").as_bytes(),
        );
    }
    server.call("GET", &format!("/triggers/v1/triggers/{encoded}"), &Value::Null);
    server.call("POST", "/triggers/v1/triggers", &json!({ "folderId": evil, "name": evil, evil: 1 }));
    let body = json!({ "events": [{ "action": evil, "target": { "repository": evil, "digest": evil } }] })
        .to_string();
    let length = body.len();
    let head = format!(
        "POST /container-registry/v1/registries/images/notifications HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\
         Authorization: Bearer Canary-hook-5\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    ask(server.management, head.as_bytes());
    client.send(0x81, evil.as_bytes());
    client.send(0x88, &[&1000_u16.to_be_bytes()[..], "\n\u{1b}[31m".as_bytes()].concat());
    until("the end of the client", || {
        server.get("/metrics").1.contains("websocket_connections 0\n").then_some(())
    });
    let lines = server.log("");
    assert!(!lines.is_empty());
    for line in lines {
        let json: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_ne!(json["fields"]["message"], "forged", "{line}");
        assert!(!line.contains(|c: char| c.is_ascii_control()), "{line:?}");
    }
}

#[test]
fn no_secret_is_written_or_told() {
    let config =
        telemetry().replace("Factory-demo-1", "Canary-factory-1").replace("Press-2-demo-1", "Canary-press-2");
    let (server, _folder) = talkative(&config);
    let mut answers = String::new();
    let mut client = server.websocket("/ws?token=Canary-token-3");
    for (who, path) in
        [("Api-Key AQVNadmin.Canary-key-4", "/triggers/v1/triggers"), ("Bearer Canary-iam-6", "/endpoints/x")]
    {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: {who}\r\n\r\n");
        answers += &String::from_utf8_lossy(&ask(server.management, request.as_bytes()));
    }
    for path in [
        "/iot-devices/v1/registries?folderId=default",
        "/iot-devices/v1/registries/factory",
        "/iot-devices/v1/registries/factory/passwords",
        "/iot-devices/v1/devices/press-2",
        "/iot-devices/v1/devices/press-2/passwords",
        "/apigateways/v1/apigateways?folderId=default",
        "/triggers/v2/triggers?folderId=default",
        "/operations?folderId=default",
    ] {
        answers += &server.call("GET", path, &Value::Null).1.to_string();
    }
    let made =
        server.done("POST", "/iam/v1/serviceAccounts", &json!({ "folderId": "default", "name": "caller" }));
    let key = json!({ "serviceAccountId": made["id"] });
    let secret = server.done("POST", "/iam/v1/apiKeys", &key)["secret"].as_str().unwrap().to_owned();
    let password = json!({ "registryId": "none", "password": "Canary-Password-7" });
    answers += &server.call("POST", "/iot-devices/v1/registries/none/passwords", &password).1.to_string();
    for path in ["/metrics", "/readyz", "/healthz", "/openapi.json"] {
        answers += &server.get(path).1;
    }
    client.send(0x81, b"Canary-message");
    client.io.write_all(&header(0x83, 0)).unwrap();
    client.close_code();
    let admin = std::fs::read_to_string(server.folder.join("data/admin.key")).unwrap();
    let log = server.log("").join("\n");
    let secrets = [
        "Canary-factory-1",
        "Canary-press-2",
        "Press-1-demo-1",
        "Canary-token-3",
        "Canary-key-4",
        "Canary-hook-5",
        "Canary-iam-6",
        "Canary-Password-7",
        admin.trim(),
        &secret,
    ];
    for secret in secrets {
        assert!(!log.contains(secret), "{secret} is in the log");
        assert!(!answers.contains(secret), "{secret} is in an answer");
    }
    // Nor is it where others of the machine could read it.
    #[cfg(unix)]
    for file in ["data", "data/admin.key", "data/iam.key", "data/journal.db"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(server.folder.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file}: {mode:o}");
    }
}
