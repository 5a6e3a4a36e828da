//! Many connections at once, by REST and by the command line, which speaks gRPC.

use std::collections::HashSet;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::common::{Caller, FACTORY, Socket, TestServer, config, run, until};

const CONNECTIONS: &str = "/triggercast/v1/connections";

fn server() -> TestServer {
    TestServer::start(&config(FACTORY))
}

/// The WebSocket commands, with JSON as their answer.
fn websocket(server: &TestServer, arguments: &[&str]) -> Value {
    let command = ["serverless", "api-gateway", "websocket"];
    let answer = run(&mut server.command(&[&command[..], arguments, &["--format", "json-rest"]].concat()));
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// Every page of a list, as its ids.
fn ids(server: &TestServer, query: &str) -> Vec<String> {
    let (mut ids, mut token) = (Vec::new(), String::new());
    loop {
        let page = server.done("GET", &format!("{CONNECTIONS}?{query}&pageToken={token}"), &Value::Null);
        let connections = page["connections"].as_array().cloned().unwrap_or_default();
        ids.extend(connections.iter().map(|connection| connection["id"].as_str().unwrap().to_owned()));
        match page["nextPageToken"].as_str() {
            Some(next) if !next.is_empty() => token = next.to_owned(),
            _ => return ids,
        }
    }
}

fn refused(server: &TestServer, verb: &str, path: &str, body: &Value, field: &str) {
    let (status, answer) = server.call(verb, path, body);
    assert_eq!((status, &answer["code"]), (400, &json!(3)), "{path} {body}: {answer}");
    let named = answer["details"][0]["fieldViolations"][0]["field"].as_str().unwrap_or_default();
    assert_eq!(named, field, "{answer}");
}

#[test]
fn many_are_listed_sent_to_and_closed_over_both_fronts() {
    let server = server();
    let mut on_path: Vec<Socket> = (0..120).map(|_| server.websocket("/ws")).collect();
    let mut others: Vec<Socket> = (0..3).map(|_| server.websocket("/other")).collect();
    let all = ids(&server, "gatewayId=main&pageSize=50");
    assert_eq!(all.len(), 123);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 123, "one stands there twice");
    assert!(all.is_sorted(), "they came in this order");
    assert_eq!(ids(&server, "gatewayId=main&path=/other"), all[120..]);
    let listed = websocket(&server, &["list", "--gateway-name", "main", "--path", "/ws"]);
    let listed: Vec<_> = listed.as_array().unwrap().iter().map(|found| found["id"].clone()).collect();
    assert_eq!(listed, all[..120].iter().map(|id| json!(id)).collect::<Vec<_>>());
    // A list says of each what a call about it alone says.
    let single = format!("/apigateways/websocket/v1/connections/{}", all[0]);
    let single = server.done("GET", &single, &Value::Null);
    let first = &server.done("GET", &format!("{CONNECTIONS}?gatewayId=main&pageSize=1"), &Value::Null);
    let first = &first["connections"][0];
    for name in ["id", "gatewayId", "path", "identity", "connectedAt"] {
        assert_eq!(first[name], single[name], "{name}");
    }
    assert_eq!(
        (&first["path"], &first["identity"]["sourceIp"], &first["waitingBytes"]),
        (&json!("/ws"), &json!("127.0.0.1"), &Value::Null)
    );
    let at = first["connectedAt"].as_str().unwrap();
    assert_eq!(ids(&server, &format!("gatewayId=main&connectedBefore={at}")), Vec::<String>::new());
    assert_eq!(ids(&server, &format!("gatewayId=main&connectedAfter={at}&sourceIp=127.0.0.0/8")), all);
    assert_eq!(ids(&server, "gatewayId=main&sourceIp=192.0.2.1"), Vec::<String>::new());
    assert_eq!(ids(&server, "gatewayId=main&idle=3600s"), Vec::<String>::new());

    let text = "y".repeat(100_000);
    let message =
        json!({ "gatewayId": "main", "path": "/ws", "data": BASE64_STANDARD.encode(&text), "type": "TEXT" });
    let sent = server.done("POST", &format!("{CONNECTIONS}:broadcast"), &message);
    assert_eq!(sent, json!({ "queued": "120" }));
    let told = ["broadcast", "--gateway-id", "main", "--path", "/ws", "-d", "hello"];
    assert_eq!(websocket(&server, &told), json!({ "queued": "120" }));
    for socket in &mut on_path {
        assert_eq!(socket.text(), text);
        assert_eq!(socket.text(), "hello");
    }

    let closed = ["disconnect-all", "--gateway-id", "main", "--path", "/ws"];
    assert_eq!(websocket(&server, &closed), json!({ "disconnected": "120" }));
    assert!(on_path.iter_mut().all(|socket| socket.close_code() == 1001));
    let there = || Some(ids(&server, "gatewayId=main")).filter(|ids| ids.len() == 3);
    assert_eq!(until("the end of the others", there), all[120..]);
    let rest = server.done("POST", &format!("{CONNECTIONS}:disconnect"), &json!({ "gatewayId": "main" }));
    assert_eq!(rest, json!({ "disconnected": "3" }));
    assert!(others.iter_mut().all(|socket| socket.close_code() == 1001));
}

#[test]
fn what_is_wrong_with_a_call_about_many_is_told() {
    let server = server();
    let list = |query: &str| format!("{CONNECTIONS}?{query}");
    refused(&server, "GET", CONNECTIONS, &Value::Null, "gateway_id");
    for (query, field) in [
        ("sourceIp=10.0.0", "source_ip"),
        ("pageToken=YWZ0ZXI6MQ", "page_token"),
        ("pageToken=x", "page_token"),
        ("pageSize=1001", "page_size"),
        ("idle=25h", ""),
        ("idle=90000s", "idle"),
        ("connectedAfter=yesterday", ""),
    ] {
        refused(&server, "GET", &list(&format!("gatewayId=main&{query}")), &Value::Null, field);
    }
    let broadcast = format!("{CONNECTIONS}:broadcast");
    let message = |path: &str, data: &[u8]| json!({ "gatewayId": "main", "path": path, "data": BASE64_STANDARD.encode(data), "type": "TEXT" });
    refused(&server, "POST", &broadcast, &message("", b"x"), "path");
    refused(&server, "POST", &broadcast, &message("/ws", b""), "data");
    refused(&server, "POST", &broadcast, &message("/ws", b"\xff"), "data");
    refused(&server, "POST", &broadcast, &message("/ws", &[b'x'; 131_073]), "data");
    for (verb, path, body) in [
        ("GET", list("gatewayId=none"), Value::Null),
        ("GET", list("gatewayId=main&path=/none"), Value::Null),
        ("POST", broadcast.clone(), message("/none", b"x")),
        ("POST", format!("{CONNECTIONS}:disconnect"), json!({ "gatewayId": "main", "path": "/none" })),
    ] {
        let (status, answer) = server.call(verb, &path, &body);
        assert_eq!((status, &answer["code"]), (404, &json!(5)), "{path}: {answer}");
    }
}

#[test]
fn roles_say_who_may_do_what_with_many() {
    let server = server();
    let caller = |role: &str| {
        let account = json!({ "folderId": "default", "name": role.replace('.', "-").to_lowercase() });
        let id = server.done("POST", "/iam/v1/serviceAccounts", &account)["id"].as_str().unwrap().to_owned();
        let binding = json!({ "roleId": role, "subject": { "id": id, "type": "serviceAccount" } });
        let delta = json!({ "accessBindingDeltas": [{ "action": "ADD", "accessBinding": binding }] });
        server.done("POST", "/resource-manager/v1/folders/default:updateAccessBindings", &delta);
        let key = server.done("POST", "/iam/v1/apiKeys", &json!({ "serviceAccountId": id }));
        Caller { address: server.management, who: format!("Api-Key {}", key["secret"].as_str().unwrap()) }
    };
    let message = json!({ "gatewayId": "main", "path": "/ws", "data": "aA==", "type": "TEXT" });
    for (role, expected) in [
        ("iot.viewer", [403, 403, 403]),
        ("api-gateway.viewer", [200, 403, 403]),
        ("api-gateway.websocketWriter", [200, 403, 200]),
        ("api-gateway.websocketBroadcaster", [200, 200, 200]),
    ] {
        let caller = caller(role);
        let done = [
            caller.call("GET", &format!("{CONNECTIONS}?gatewayId=main"), &Value::Null).0,
            caller.call("POST", &format!("{CONNECTIONS}:broadcast"), &message).0,
            caller.call("POST", &format!("{CONNECTIONS}:disconnect"), &json!({ "gatewayId": "main" })).0,
        ];
        assert_eq!(done, expected, "{role}");
    }
}
