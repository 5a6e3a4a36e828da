//! Webhooks that are forged, replayed, deep, large or compressed.

use serde_json::Value;

use super::{ask, grown, telemetry};
use crate::common::{TestServer, trigger};

const TOKEN: &str = "Images-test-1";
const NOTIFICATIONS: &str = "/container-registry/v1/registries/images/notifications";

fn server() -> TestServer {
    let source = "container_registry: { registry_id: images, event_type: [create_image_tag], batch_settings: { max_count: 1, cutoff: 1s } }";
    let triggers = trigger("pushes", source, "/other");
    TestServer::start(&format!(
        "{}{triggers}container_registries:\n  - {{ id: images, kind: generic, webhook_token: \"{TOKEN}\" }}\n",
        telemetry()
    ))
}

/// Posts a body with these headers: status and answer.
fn post(server: &TestServer, headers: &str, body: &[u8]) -> (u16, String) {
    let head = format!(
        "POST {NOTIFICATIONS} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    let answer = ask(server.management, &[head.as_bytes(), body].concat());
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = super::statuses(&answer).first().copied().unwrap_or_default();
    (status, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

fn signed(body: &[u8], key: &str) -> String {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(body);
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("X-Hub-Signature-256: sha256={hex}\r\n")
}

/// An event of a tag on an image, as the generic kind takes it.
fn tagged(id: &str, tag: &str, image: char) -> Vec<u8> {
    let digest = format!("sha256:{}", image.to_string().repeat(64));
    serde_json::json!({ "messages": [{
        "event_metadata": { "event_type": "CreateImageTag", "event_id": id },
        "details": { "repository_name": "app", "image_digest": digest, "tag": tag },
    }] })
    .to_string()
    .into_bytes()
}

#[test]
fn forged_and_replayed_notifications_tell_nothing() {
    let server = server();
    let mut client = server.websocket("/other");
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    let body = tagged("e1", "v1", 'a');
    for forged in [
        String::new(),
        "Authorization: Bearer \r\n".to_owned(),
        "Authorization: Bearer Images-test-\r\n".to_owned(),
        "Authorization: Bearer Images-test-12\r\n".to_owned(),
        "Authorization: Bearer images-test-1\r\n".to_owned(),
        "Authorization: Basic eDp5\r\n".to_owned(),
        signed(&body, "Images-test-2"),
        signed(b"{}", TOKEN),
        "X-Hub-Signature-256: sha256=\r\n".to_owned(),
        signed(&body, TOKEN).replace("sha256=", "sha1="),
        // A wrong token is not made good by a signature.
        format!("Authorization: Bearer wrong\r\n{}", signed(&body, TOKEN)),
    ] {
        assert_eq!(post(&server, &forged, &body).0, 401, "{forged}");
    }
    let (status, answer) = post(&server, &signed(&body, TOKEN), &body);
    let first = tagged_event(&mut client);
    assert_eq!((status, first.as_str()), (200, "v1"), "{answer}");
    // Who has recorded it sends it again, and with another id.
    for again in [body.clone(), body.clone(), tagged("e1-again", "v1", 'a')] {
        let (status, answer) = post(&server, &bearer, &again);
        let json: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((status, &json["events"]), (200, &Value::from(0)), "{answer}");
    }
    assert_eq!(post(&server, &bearer, &tagged("e2", "v2", 'b')).0, 200);
    assert_eq!(tagged_event(&mut client), "v2", "nothing came between");
}

fn tagged_event(client: &mut crate::common::Socket) -> String {
    let json: Value = serde_json::from_str(&client.text()).unwrap();
    json["messages"][0]["details"]["tag"].as_str().unwrap().to_owned()
}

#[test]
fn deep_large_and_compressed_bodies_are_refused_without_being_unpacked() {
    let server = server();
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    let before = server.resident_kib();
    let zipped = super::gzip_bomb();
    for (what, headers, body) in [
        ("deep", "", "[".repeat(1 << 20).into_bytes()),
        ("deep objects", "", "{\"a\":".repeat(1 << 19).into_bytes()),
        ("deep in a lawful place", "", [b"{\"messages\":".to_vec(), vec![b'['; 1 << 20]].concat()),
        ("compressed", "Content-Encoding: gzip\r\n", zipped.clone()),
        ("compressed in secret", "", zipped),
        ("nothing", "", Vec::new()),
        ("a number without end", "", vec![b'9'; 1 << 20]),
    ] {
        let (status, answer) = post(&server, &format!("{bearer}{headers}"), &body);
        assert_eq!(status, 400, "{what}: {answer}");
        assert!(answer.len() < 1000, "{what}: {answer}");
    }
    assert!(grown(&server, before) < 48 * 1024, "{} KiB", grown(&server, before));
}
