//! Images and tags of a real registry, pushed and deleted by skopeo, come to WebSocket clients as events.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::common::{BEGINNING, LIMIT, Socket, TestServer, counted, until};
use crate::docker_registry::{DockerRegistry, LOGIN, Layout, TOKEN, low_port};

const ALL: &str = "[create_image, delete_image, create_image_tag, delete_image_tag]";

/// A server on a fixed management port, so that a registry finds it again after a restart.
fn config(management: SocketAddr, registry: &DockerRegistry, more: &str) -> String {
    let beginning = BEGINNING.replace(
        "management: { listen: \"127.0.0.1:0\"",
        &format!("management: {{ listen: \"{management}\""),
    );
    format!(
        r#"{beginning}gateways:
  - id: main
    paths: {{ /images: {{}}, /releases: {{}}, /memory: {{ durability: memory }} }}
container_registries:
  - {{ id: images, kind: distribution, url: "{}", webhook_token: "{TOKEN}", {more} }}
triggers:
{}{}{}"#,
        registry.url(),
        trigger("all", &format!("event_type: {ALL}"), "/images"),
        trigger(
            "releases",
            "event_type: [create_image_tag], image_name: images/team/app, tag: v2",
            "/releases"
        ),
        trigger("memory", &format!("event_type: {ALL}"), "/memory"),
    )
}

fn trigger(name: &str, fields: &str, path: &str) -> String {
    let source = format!("container_registry: {{ registry_id: images, {fields} }}");
    crate::common::trigger(name, &source, path)
}

/// An event in short: its type, repository, tag, and which image.
type Short = (String, String, String, String);

fn short(event_type: &str, repository: &str, tag: &str, digest: &str) -> Short {
    (event_type.to_owned(), format!("images/{repository}"), tag.to_owned(), digest.to_owned())
}

/// The next events of a client, each a message of its own.
fn next(socket: &mut Socket, count: usize) -> Vec<Value> {
    let mut events = Vec::new();
    while events.len() < count {
        let message: Value = serde_json::from_str(&socket.text()).unwrap();
        events.extend(message["messages"].as_array().unwrap().iter().cloned());
    }
    events
}

fn in_short(events: &[Value]) -> Vec<Short> {
    let event = |event: &Value| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let event_type = text(&event["event_metadata"]["event_type"]);
        let details = &event["details"];
        assert_eq!(details["registry_id"], "images");
        (
            event_type.strip_prefix("yandex.cloud.events.containerregistry.").unwrap().to_owned(),
            text(&details["repository_name"]),
            text(&details["tag"]),
            text(&details["image_digest"]),
        )
    };
    events.iter().map(event).collect()
}

/// Tells the server to read the registry now; its report.
fn reconcile(management: SocketAddr) -> Value {
    let (status, body) = post(management, "/container-registry/v1/registries/images:reconcile", TOKEN, "");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn post(address: SocketAddr, path: &str, token: &str, body: &str) -> (u16, String) {
    try_post(address, path, token, body).unwrap()
}

/// The status and the body of the answer; an error if the server goes away before it is whole.
fn try_post(address: SocketAddr, path: &str, token: &str, body: &str) -> io::Result<(u16, String)> {
    let mut io = TcpStream::connect(address)?;
    io.set_read_timeout(Some(LIMIT))?;
    let length = body.len();
    write!(
        io,
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    io.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned()))
}

fn management() -> SocketAddr {
    ([127, 0, 0, 1], low_port()).into()
}

#[test]
fn operations_on_a_real_registry_become_exactly_their_events() {
    let management = management();
    let registry = DockerRegistry::start(management);
    let server = TestServer::start(&config(management, &registry, "reconcile: { every: 0s }"));
    let mut layout = Layout::new();
    let (one, two) = (layout.image("one", "1"), layout.image("two", "2"));
    let multi = layout.multi("multi", "3");
    let mut all = server.websocket("/images");
    let mut releases = server.websocket("/releases");
    let mut memory = server.websocket("/memory");

    registry.push(&layout, "one", "team/app:v1");
    let pushed = next(&mut all, 2);
    assert_eq!(
        in_short(&pushed),
        [short("CreateImage", "team/app", "v1", &one), short("CreateImageTag", "team/app", "v1", &one)]
    );
    let context = |event: &Value| event["event_metadata"]["tracing_context"]["trace_id"].to_string();
    assert_eq!(context(&pushed[0]), context(&pushed[1]));
    assert_ne!(pushed[0]["event_metadata"]["event_id"], pushed[1]["event_metadata"]["event_id"]);

    registry.tag("team/app:v1", "team/app:v2");
    let tagged = next(&mut all, 1);
    assert_eq!(in_short(&tagged), [short("CreateImageTag", "team/app", "v2", &one)]);
    assert_ne!(context(&pushed[0]), context(&tagged[0]));
    // The same again, and pulls, are no events.
    registry.tag("team/app:v1", "team/app:v2");

    registry.push(&layout, "two", "team/app:v1");
    let moved = [
        short("DeleteImageTag", "team/app", "v1", &one),
        short("CreateImage", "team/app", "v1", &two),
        short("CreateImageTag", "team/app", "v1", &two),
    ];
    assert_eq!(in_short(&next(&mut all, 3)), moved);

    registry.push(&layout, "multi", "team/multi:v1");
    let made = [
        short("CreateImage", "team/multi", "v1", &multi),
        short("CreateImageTag", "team/multi", "v1", &multi),
    ];
    assert_eq!(in_short(&next(&mut all, 2)), made, "an image of two platforms is one image");

    for tag in ["a", "b"] {
        registry.tag("team/app:v1", &format!("team/app:{tag}"));
        assert_eq!(in_short(&next(&mut all, 1)), [short("CreateImageTag", "team/app", tag, &two)]);
    }
    registry.delete("team/app:v1");
    let deleted = next(&mut all, 4);
    let gone = ["a", "b", "v1"].map(|tag| short("DeleteImageTag", "team/app", tag, &two));
    assert_eq!(in_short(&deleted)[0], short("DeleteImage", "team/app", "", &two));
    assert_eq!(in_short(&deleted)[1..], gone);
    assert_eq!(deleted.iter().map(context).collect::<BTreeSet<_>>().len(), 1, "one operation, one trace");

    registry.delete("team/multi:v1");
    let gone =
        [short("DeleteImage", "team/multi", "", &multi), short("DeleteImageTag", "team/multi", "v1", &multi)];
    assert_eq!(in_short(&next(&mut all, 2)), gone);

    registry.push(&layout, "two", "team/app:v1");
    let again =
        [short("CreateImage", "team/app", "v1", &two), short("CreateImageTag", "team/app", "v1", &two)];
    assert_eq!(in_short(&next(&mut all, 2)), again);

    // Everything was told: a reading of the registry finds nothing.
    assert_eq!(reconcile(management)["events"], 0);
    assert_eq!(in_short(&next(&mut releases, 1)), [short("CreateImageTag", "team/app", "v2", &one)]);
    assert_eq!(next(&mut memory, 18).len(), 18);
    let metrics = server.get("/metrics").1;
    assert!(metrics.contains("triggercast_registry_events_total{reason=\"notified\"} 18"), "{metrics}");
    // Once each, though three triggers take them.
    assert!(metrics.contains("triggercast_events_received_total 18\n"), "{metrics}");
}

#[test]
fn what_a_registry_loses_is_made_up_and_told_once() {
    let management = management();
    let mut registry = DockerRegistry::start(management);
    let folder = tempfile::tempdir().unwrap();
    let settings = config(management, &registry, "reconcile: { every: 0s }");
    let mut layout = Layout::new();
    let (one, two) = (layout.image("one", "1"), layout.image("two", "2"));
    registry.push(&layout, "one", "team/old:v1");
    // What the registry held before is no news.
    registry.kill();
    registry.run();
    let server = TestServer::start_in(folder.path(), &settings);
    let report = reconcile(management);
    assert_eq!(
        (&report["repositories"], &report["tags"], &report["events"]),
        (&1.into(), &1.into(), &0.into())
    );

    let mut socket = server.websocket("/images");
    registry.push(&layout, "two", "team/app:v1");
    assert_eq!(next(&mut socket, 2).len(), 2);
    let last = {
        registry.tag("team/app:v1", "team/app:v2");
        next(&mut socket, 1)[0]["event_metadata"]["event_id"].as_str().unwrap().to_owned()
    };
    drop(socket);
    assert!(server.stop().success());

    // While this side is down the registry keeps what it could not send, and loses it in a restart.
    registry.push(&layout, "one", "team/app:v1");
    registry.tag("team/app:v2", "team/app:v3");
    registry.delete("team/old:v1");
    registry.kill();
    registry.run();

    let server = TestServer::start_in(folder.path(), &settings);
    let report = reconcile(management);
    assert_eq!(report["events"], 6, "{report}");
    assert_eq!(reconcile(management)["events"], 0);
    // A client that comes back gets everything after what it saw.
    let path = format!("/images?last_event_id={last}");
    let mut socket = server.websocket(&path);
    let mut missed = in_short(&next(&mut socket, 6));
    missed.sort();
    let mut expected = vec![
        short("DeleteImageTag", "team/app", "v1", &two),
        short("CreateImage", "team/app", "v1", &one),
        short("CreateImageTag", "team/app", "v1", &one),
        short("CreateImageTag", "team/app", "v3", &two),
        short("DeleteImage", "team/old", "", &one),
        short("DeleteImageTag", "team/old", "v1", &one),
    ];
    expected.sort();
    assert_eq!(missed, expected);
    let metrics = server.get("/metrics").1;
    assert!(metrics.contains("triggercast_registry_events_total{reason=\"reconciled\"} 6"), "{metrics}");
    assert!(!server.log("\"reconciled\"").is_empty());
}

#[test]
fn a_server_that_comes_back_gets_what_a_registry_has_kept() {
    let management = management();
    let registry = DockerRegistry::start(management);
    let folder = tempfile::tempdir().unwrap();
    // Every so often the registry is read too, but not before it has told what it has kept.
    let settings = config(management, &registry, "reconcile: { every: 10s }");
    let mut layout = Layout::new();
    let one = layout.image("one", "1");
    let server = TestServer::start_in(folder.path(), &settings);
    assert_eq!(reconcile(management)["repositories"], 0);
    assert!(server.stop().success());
    registry.push(&layout, "one", "team/app:v1");
    registry.tag("team/app:v1", "team/app:v2");
    let server = TestServer::start_in(folder.path(), &settings);
    let mut socket = server.websocket("/images?since=1h");
    let told = [
        short("CreateImage", "team/app", "v1", &one),
        short("CreateImageTag", "team/app", "v1", &one),
        short("CreateImageTag", "team/app", "v2", &one),
    ];
    assert_eq!(in_short(&next(&mut socket, 3)), told);
    let metrics = until("the reading of the registry", || {
        let text = server.get("/metrics").1;
        (counted(&text, "registry_reconciliations_total{reason=\"done\"}") > 0).then_some(text)
    });
    assert!(metrics.contains("triggercast_registry_events_total{reason=\"notified\"} 3"), "{metrics}");
    assert!(metrics.contains("triggercast_registry_events_total{reason=\"reconciled\"} 0"), "{metrics}");
}

#[test]
fn charts_and_signatures_are_not_images_unless_they_are_wanted() {
    for (more, expected) in [("reconcile: { every: 0s }", 2), ("manifests: [image, helm, signature]", 6)] {
        let management = management();
        let registry = DockerRegistry::start(management);
        let server = TestServer::start(&config(management, &registry, more));
        let mut layout = Layout::new();
        layout.image("one", "1");
        let mut socket = server.websocket("/images");
        for (name, content, config) in [
            ("chart:1.0.0", "chart", "application/vnd.cncf.helm.config.v1+json"),
            (
                &format!("app:sha256-{}.sig", "a".repeat(64)),
                "sig",
                "application/vnd.oci.image.config.v1+json",
            ),
        ] {
            put_manifest(&registry, &mut layout, name, content, config);
        }
        registry.push(&layout, "one", "app:v1");
        let events = in_short(&next(&mut socket, expected));
        assert_eq!(events.last().unwrap().2, "v1", "{events:?}");
        assert_eq!(events.iter().filter(|event| event.2 == "1.0.0").count(), expected / 2 - 1, "{events:?}");
    }
}

#[test]
fn parallel_writers_of_one_tag_leave_everyone_with_what_the_registry_has() {
    const WRITERS: usize = 4;
    let management = management();
    let registry = DockerRegistry::start(management);
    let server = TestServer::start(&config(management, &registry, "reconcile: { every: 0s }"));
    let mut layout = Layout::new();
    let config = "application/vnd.oci.image.config.v1+json";
    let images: Vec<_> = (0..WRITERS).map(|writer| layout.artifact(&format!("{writer}"), config)).collect();
    for (writer, (manifest, _)) in images.iter().enumerate() {
        push_manifest(&registry, &layout, &format!("app:own{writer}"), manifest);
    }
    const ROUNDS: usize = 8;
    for _ in 0..ROUNDS {
        std::thread::scope(|scope| {
            for (manifest, _) in &images {
                scope.spawn(|| registry.put_manifest("app", "race", manifest));
            }
        });
    }
    // Of the manifest of each, and of what the writers did. Those of blobs, and of our own looks, mean nothing.
    until("all notifications", || {
        let ignored = server.counted("registry_ignored_total");
        let taken = server.counted("registry_notifications_total{reason=\"taken\"}");
        (taken.saturating_sub(ignored) >= ((1 + ROUNDS) * WRITERS) as u64).then_some(())
    });
    // Whatever was told in which order, in the end it is right, without a reading of the registry.
    let last = registry.digest("app", "race");
    until("the tag as it is", || {
        let told = server.counted("registry_events_total") as usize;
        let events = in_short(&next(&mut server.websocket("/images?since=1h"), told));
        let set = events.iter().rfind(|event| event.2 == "race" && event.0 == "CreateImageTag")?;
        (set.3 == last).then_some(())
    });
    assert_eq!(reconcile(management)["events"], 0);
}

/// Pushes a manifest as a client other than skopeo would: by the HTTP API.
fn put_manifest(registry: &DockerRegistry, layout: &mut Layout, name: &str, content: &str, config: &str) {
    let (manifest, _) = layout.artifact(content, config);
    push_manifest(registry, layout, name, &manifest);
}

/// Pushes a manifest of a layout, and the configuration that it names.
fn push_manifest(registry: &DockerRegistry, layout: &Layout, name: &str, manifest: &[u8]) {
    let json: Value = serde_json::from_slice(manifest).unwrap();
    let (repository, tag) = name.split_once(':').unwrap();
    let config = json["config"]["digest"].as_str().unwrap();
    registry.put_blob(repository, config, &layout.read(config));
    registry.put_manifest(repository, tag, manifest);
}

#[test]
fn notifications_without_proof_or_sense_are_refused_and_said_why() {
    let management = management();
    let registry = DockerRegistry::start(management);
    let server = TestServer::start(&config(management, &registry, "reconcile: { every: 0s }"));
    let path = "/container-registry/v1/registries/images/notifications";
    let good = r#"{"events":[{"action":"push","target":{"mediaType":"application/octet-stream","digest":"d","repository":"a"}}]}"#;
    for (path, token, body, status, words) in [
        (path, TOKEN, good, 200, "\"ignored\":1"),
        (path, "wrong", good, 401, "token"),
        (path, TOKEN, "{", 400, "not an envelope"),
        (path, TOKEN, "{\"type\":\"PUSH_ARTIFACT\"}", 400, "not an envelope"),
        (path, TOKEN, &"[".repeat(100_000), 400, "not an envelope"),
        ("/container-registry/v1/registries/other/notifications", TOKEN, good, 404, "other"),
        (path, TOKEN, &format!("{{\"a\":\"{}\"}}", "a".repeat(4 * 1024 * 1024)), 413, "4194304"),
    ] {
        let (answered, answer) = post(management, path, token, body);
        assert_eq!(answered, status, "{answer}");
        assert!(answer.contains(words), "{answer}");
    }
    // Once for all of them, until one is taken again.
    let lines =
        until("a line in the log", || Some(server.log("is refused")).filter(|lines| !lines.is_empty()));
    assert!(lines.len() == 1 && lines[0].contains("401"), "{lines:?}");
    assert_eq!(server.log("is refused").len(), 0);
    assert_eq!(post(management, path, TOKEN, good).0, 200);
    until("the word that it is well again", || (!server.log("taken again").is_empty()).then_some(()));
    let metrics = server.get("/metrics").1;
    for (reason, count) in
        [("taken", 2), ("unauthorized", 1), ("malformed", 3), ("unknown", 1), ("too_large", 1)]
    {
        let line = format!("triggercast_registry_notifications_total{{reason=\"{reason}\"}} {count}");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
}

#[test]
fn a_registry_behind_tls_and_a_login_is_asked_and_one_that_refuses_is_told_once() {
    let management = management();
    let registry = DockerRegistry::start_guarded(management);
    let certificate = registry.certificate();
    let settings = |password: &str| {
        let (user, file) = (LOGIN.0, certificate.display());
        let more = format!(
            "username: {user}, password: {password}, ca_file: \"{file}\", reconcile: {{ every: 0s }}"
        );
        config(management, &registry, &more).replace("url: \"http:", "url: \"https:")
    };
    let mut layout = Layout::new();
    layout.image("one", "1");
    registry.push_guarded(&layout, "one", "team/app:v1");
    let server = TestServer::start(&settings(LOGIN.1));
    let report = reconcile(management);
    assert_eq!(
        (&report["repositories"], &report["tags"], &report["failed"]),
        (&1.into(), &1.into(), &0.into())
    );
    let mut socket = server.websocket("/images");
    registry.push_guarded(&layout, "one", "team/app:v2");
    assert_eq!(in_short(&next(&mut socket, 1))[0].2, "v2");
    assert!(server.stop().success());
    let server = TestServer::start(&settings("wrong"));
    let path = "/container-registry/v1/registries/images:reconcile";
    for _ in 0..2 {
        let (status, body) = post(management, path, TOKEN, "");
        assert!(status == 502 && body.contains("login"), "{status} {body}");
    }
    assert_eq!(server.log("asked again").len(), 1);
    assert_eq!(server.get("/readyz").0, 200, "notifications are taken all the same");
}

/// Posts a notification until it is answered, wherever the server is meanwhile.
fn insist(management: SocketAddr, body: &str) {
    let path = "/container-registry/v1/registries/images/notifications";
    until("an answer", || try_post(management, path, TOKEN, body).ok().filter(|(status, _)| *status == 200));
}

#[test]
fn kill_9_while_registries_notify_loses_nothing_and_doubles_nothing() {
    const SENDERS: usize = 4;
    const KILLS: usize = 10;
    let management = management();
    let folder = tempfile::tempdir().unwrap();
    let beginning = BEGINNING.replace(
        "management: { listen: \"127.0.0.1:0\"",
        &format!("management: {{ listen: \"{management}\""),
    );
    let settings = format!(
        "{beginning}gateways: [ {{ id: main, paths: {{ /images: {{}}, /tags: {{}} }} }} ]\n\
         container_registries: [ {{ id: images, kind: generic, webhook_token: \"{TOKEN}\" }} ]\ntriggers:\n{}{}",
        trigger(
            "all",
            &format!("event_type: {ALL}, batch_settings: {{ max_count: 7, cutoff: 200ms }}"),
            "/images"
        ),
        trigger("tags", "event_type: [create_image_tag]", "/tags"),
    );
    let message = |sender: usize, number: usize| {
        format!(
            r#"{{"messages":[{{"event_metadata":{{"event_type":"CreateImageTag","event_id":"{sender}-{number}"}},
            "details":{{"repository_name":"r{sender}","tag":"t{number}","image_digest":"sha256:{:064x}"}}}}]}}"#,
            sender << 32 | number
        )
    };
    let mut server = TestServer::start_in(folder.path(), &settings);
    let done = AtomicBool::new(false);
    let sent: Vec<usize> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let (done, message) = (&done, &message);
                scope.spawn(move || {
                    let mut number = 0;
                    while !done.load(Ordering::Relaxed) {
                        insist(management, &message(sender, number));
                        number += 1;
                    }
                    number
                })
            })
            .collect();
        for kill in 0..KILLS {
            // At another place each time, after some have been answered.
            std::thread::sleep(Duration::from_millis(20 + 37 * kill as u64 % 150));
            server.signal("KILL");
            server.wait();
            server = TestServer::start_in(folder.path(), &settings);
        }
        done.store(true, Ordering::Relaxed);
        senders.into_iter().map(|sender| sender.join().unwrap()).collect()
    });
    let total: usize = sent.iter().sum();
    assert!(sent.iter().all(|sent| *sent > KILLS), "{sent:?}");
    insist(management, &message(SENDERS, 0));
    for (path, each) in [("/images?since=1h", 2), ("/tags?since=1h", 1)] {
        let events = in_short(&next(&mut server.websocket(path), each * (total + 1)));
        assert_eq!(events.len(), each * (total + 1), "{path}");
        let mut seen = [0; SENDERS + 1];
        for group in events.chunks(each) {
            let sender: usize = group[0].1.strip_prefix("images/r").unwrap().parse().unwrap();
            let tag = format!("t{}", seen[sender]);
            let types: Vec<_> = group.iter().map(|event| event.0.as_str()).collect();
            assert_eq!(types, ["CreateImage", "CreateImageTag"][2 - each..], "{path}");
            assert!(
                group.iter().all(|event| event.2 == tag && event.1 == group[0].1),
                "{path}: {group:?}, {tag}"
            );
            seen[sender] += 1;
        }
        assert_eq!(seen[..SENDERS], sent[..], "{path}");
    }
    println!("{total} notifications over {KILLS} kills");
}

#[test]
fn senders_without_the_token_cannot_keep_others_out() {
    const SIGNED: usize = triggercast::container_registry::READING_UNPROVED;
    let management = management();
    let registry = DockerRegistry::start(management);
    let server = TestServer::start(&config(management, &registry, "reconcile: { every: 0s }"));
    let path = "/container-registry/v1/registries/images/notifications";
    let body = r#"{"events":[{"action":"pull"}]}"#;
    // echo -n "$body" | openssl dgst -sha256 -hmac Images-test-1
    let signature = "c718973d4a832d50b124d519f22dbf97928262df4ea87be32e18c1381e2d0c0e";
    let begin = |signature: &str| {
        let mut io = TcpStream::connect(management).unwrap();
        io.set_read_timeout(Some(LIMIT)).unwrap();
        let length = body.len();
        write!(
            io,
            "POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Hub-Signature-256: sha256={signature}\r\n\
             Content-Length: {length}\r\n\r\n"
        )
        .unwrap();
        io
    };
    let end = |mut io: TcpStream| {
        io.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(end(begin(signature)).starts_with("HTTP/1.1 200"), "the signature is a proof");
    let wrong = signature.replace('0', "1");
    let slow: Vec<_> = (0..SIGNED).map(|_| begin(&wrong)).collect();
    let refused = until("no room", || {
        let answer = end(begin(signature));
        answer.starts_with("HTTP/1.1 503").then_some(answer)
    });
    assert!(refused.to_ascii_lowercase().contains("retry-after: 1"), "{refused}");
    assert_eq!(post(management, path, TOKEN, body).0, 200, "who shows the token has a place");
    for io in slow {
        assert!(end(io).starts_with("HTTP/1.1 401"));
    }
    until("room", || end(begin(signature)).starts_with("HTTP/1.1 200").then_some(()));
    drop(server);
}
