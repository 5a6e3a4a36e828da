//! TLS on every port, with clients that we did not write: openssl, curl, Mosquitto's, Python's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{
    FACTORY, LIMIT, Listener, TestServer, config, counted, events, run, script, trigger, until,
};

/// A configuration where every port is under TLS; `gateway` is the certificate of that port.
fn secured(gateway: &str, iot: &str) -> String {
    let source = "iot_message: { registry_id: factory, mqtt_topic: \"$devices/+/events\", batch_settings: { max_count: 1 } }";
    config(&format!("{iot}triggers:\n{}", trigger("telemetry", source, "/ws")))
        .replace("gateway: { ", &format!("gateway: {{ tls: {gateway}, "))
        .replace("management: { ", "management: { rest_tls: own, ")
        .replace("mqtt: { ", "mqtt: { tls_listen: \"127.0.0.1:0\", ")
}

fn ca(server: &TestServer) -> PathBuf {
    server.folder.join("data/tls/ca.pem")
}

/// Makes a certificate for itself, as devices do; gives its text.
fn self_signed(folder: &Path, name: &str, key: &[&str]) -> String {
    let file = |ending: &str| folder.join(format!("{name}.{ending}"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-nodes", "-days", "1", "-subj", "/CN=localhost"]);
    openssl.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-newkey"]).args(key);
    run(openssl.arg("-keyout").arg(file("key")).arg("-out").arg(file("pem")));
    std::fs::read_to_string(file("pem")).unwrap()
}

const RSA: &[&str] = &["rsa:2048"];
const EC: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];

/// mosquitto_pub on the TLS port.
fn publish(server: &TestServer, topic: &str, payload: &str) -> Command {
    let mut command = Command::new("mosquitto_pub");
    let port = server.mqtts.unwrap().port().to_string();
    command.args(["-h", "localhost", "-p", &port, "-q", "1", "-t", topic, "-m", payload]);
    command.arg("--cafile").arg(ca(server)).stderr(Stdio::null());
    command
}

/// mosquitto_sub on the TLS port.
fn subscribe(server: &TestServer, topic: &str) -> Command {
    let mut command = Command::new("mosquitto_sub");
    let port = server.mqtts.unwrap().port().to_string();
    command.args(["-h", "localhost", "-p", &port, "-t", topic]).arg("--cafile").arg(ca(server));
    command.stderr(Stdio::null());
    command
}

/// With a certificate of [`self_signed`].
fn by(mut command: Command, folder: &Path, name: &str) -> Command {
    command.arg("--cert").arg(folder.join(format!("{name}.pem")));
    command.arg("--key").arg(folder.join(format!("{name}.key")));
    command
}

fn https(server: &TestServer, address: SocketAddr, path: &str) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "15", "--cacert"]).arg(ca(server));
    curl.arg(format!("https://localhost:{}{path}", address.port()));
    curl
}

/// What `openssl s_client` says of a port.
fn s_client(address: SocketAddr, arguments: &[&str]) -> (bool, String) {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", &address.to_string(), "-servername", "localhost"]).args(arguments);
    let done = openssl.stdin(Stdio::null()).output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn every_port_speaks_tls_to_foreign_clients() {
    let server = TestServer::start(&secured("own", FACTORY));
    let url = format!("wss://localhost:{}/main/ws", server.gateway.port());
    let mut python = Listener::start(script("listen.py").arg(&url).env("SSL_CERT_FILE", ca(&server)));
    let config = server.folder.join("config.yaml");
    let mut ours = Command::new(env!("CARGO_BIN_EXE_triggercast"));
    let listen = ours.args(["listen", &url, "--count", "1", "--decode", "--config"]).arg(config);
    let listening = listen.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    // The number of clients is seen on the port for operators, which is under TLS as well.
    let metrics = || run(&mut https(&server, server.management, "/metrics"));
    until("both clients", || metrics().contains("triggercast_websocket_connections 2").then_some(()));
    let login = ["-u", "press-1", "-P", "Press-1-demo-1"];
    for version in ["tlsv1.2", "tlsv1.3"] {
        run(publish(&server, "$devices/press-1/events", version)
            .args(login)
            .args(["--tls-version", version]));
        assert_eq!(events(&python.line())[0].payload, version);
    }
    let done = listening.wait_with_output().unwrap();
    assert!(done.status.success() && String::from_utf8_lossy(&done.stdout).contains("tlsv1.2"));
    // What was missed, over TLS: by WebSocket, and by server-sent events.
    let again = format!("{url}?last=2");
    let mut resumed = script("resume.py");
    let said = run(resumed.arg(&again).arg("2").env("SSL_CERT_FILE", ca(&server)));
    let lines: Vec<_> = said.lines().skip(2).flat_map(events).map(|event| event.payload).collect();
    assert_eq!(
        (said.lines().nth(1), lines),
        (Some("complete"), vec!["tlsv1.2".to_owned(), "tlsv1.3".into()])
    );
    let mut stream = https(&server, server.gateway, "/main/ws?last=1");
    stream.args(["--header", "Accept: text/event-stream", "--no-buffer", "--max-time", "2"]);
    let said = stream.output().unwrap().stdout;
    assert!(String::from_utf8_lossy(&said).contains("\ndata: {\"messages\":["));
    // gRPC is what it was: the command line trusts the CA of the configuration's server.
    run(&mut server.command(&["trigger", "list"]));
    let mut call = https(&server, server.management, "/readyz");
    assert!(run(call.arg("--fail")).contains("\"status\":\"ready\""));
    drop(python);
    assert!(server.stop().success());
}

#[test]
fn what_is_no_tls_or_an_old_one_is_refused_and_hurts_nobody() {
    let server = TestServer::start(&secured("own", FACTORY));
    let mut ports = vec![server.gateway, server.management, server.grpc, server.mqtts.unwrap()];
    let begun = Instant::now();
    // Who says nothing is ended after a while; meanwhile others come in.
    let silent: Vec<_> = ports.iter().map(|port| TcpStream::connect(port).unwrap()).collect();
    for port in &ports {
        let (done, said) = s_client(*port, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
        assert!(!done && said.contains(" alert ") && said.contains("no peer certificate"), "{said}");
        let mut plain = TcpStream::connect(port).unwrap();
        plain.set_read_timeout(Some(LIMIT)).unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        // An alert, or the end by force, as the rest of the request is not read.
        let _ = plain.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP"));
        for version in ["-tls1_2", "-tls1_3"] {
            let ca = ca(&server);
            let verified =
                ["-CAfile", ca.to_str().unwrap(), "-verify_return_error", "-verify_hostname", "localhost"];
            let arguments = [&[version][..], &verified].concat();
            let (done, said) = s_client(*port, &arguments);
            assert!(done && said.contains("Verify return code: 0 (ok)"), "{port} {version}: {said}");
        }
    }
    for mut silent in silent {
        silent.set_read_timeout(Some(LIMIT)).unwrap();
        assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    }
    let took = begun.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(15)).contains(&took), "{took:?}");
    let metrics = run(&mut https(&server, server.management, "/metrics"));
    for word in ["done", "failed", "timeout"] {
        let name = format!("tls_handshakes_total{{reason=\"{word}\"}}");
        assert!(counted(&metrics, &name) > 0, "{name}");
    }
    // Nobody is asked for a certificate but MQTT's clients.
    ports.truncate(3);
    for port in ports {
        assert!(s_client(port, &["-tls1_2"]).1.contains("No client certificate CA names sent"));
        assert!(!s_client(port, &["-tls1_2"]).1.contains("Client Certificate Types"));
    }
    assert!(s_client(server.mqtts.unwrap(), &["-tls1_2"]).1.contains("Client Certificate Types"));
    assert!(server.stop().success());
}

#[test]
fn devices_log_in_by_certificates_and_passwords_count_more() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (name, key) in [("press-1", RSA), ("press-2", EC), ("factory", EC), ("stranger", EC)] {
        self_signed(folder, name, key);
    }
    let file = |name: &str| folder.join(format!("{name}.pem")).display().to_string();
    let iot = FACTORY
        .replace("- id: factory\n", &format!("- id: factory\n      certificates: [{}]\n", file("factory")))
        .replace("{ id: press-1,", &format!("{{ id: press-1, certificates: [{}],", file("press-1")))
        .replace("{ id: press-2,", &format!("{{ id: press-2, certificates: [{}],", file("press-2")));
    let server = TestServer::start(&secured("off", &iot));
    let mut socket = server.websocket("/ws");
    let (one, two) = ("$devices/press-1/events", "$devices/press-2/events");
    let (name, good, wrong) = (["-u", "press-1"], ["-P", "Press-1-demo-1"], ["-P", "Press-2-demo-1"]);
    let password = |word: [&'static str; 2]| [name, word].concat();
    // Which certificate, which words, where to, and whether it comes through.
    for (index, (certificate, words, topic, comes)) in [
        (Some("press-1"), vec![], one, true),
        (Some("press-2"), vec![], two, true),
        (Some("press-1"), name.to_vec(), one, true),
        (Some("press-2"), name.to_vec(), one, false),
        (Some("stranger"), vec![], one, false),
        (None, vec![], one, false),
        (None, password(good), one, true),
        (Some("stranger"), password(good), one, true),
        (Some("press-2"), password(good), one, true),
        (Some("press-1"), password(wrong), one, false),
        (Some("press-1"), vec!["-V", "mqttv5"], one, true),
    ]
    .into_iter()
    .enumerate()
    {
        let payload = format!("number {index}");
        let mut command = publish(&server, topic, &payload);
        command.args(words);
        if let Some(certificate) = certificate {
            command = by(command, folder, certificate);
        }
        assert_eq!(command.status().unwrap().success(), comes, "{payload}");
        if comes {
            let event = &socket.events(1)[0];
            assert_eq!((event.payload.as_str(), event.topic.as_str()), (payload.as_str(), topic));
        }
    }
    // The registry reads what its devices have said last.
    run(&mut by(publish(&server, "$devices/press-1/state", "idle"), folder, "press-1"));
    let mut subscriber = by(subscribe(&server, "$devices/press-1/state"), folder, "factory");
    assert_eq!(run(subscriber.args(["-C", "1", "-W", "15"])), "idle\n");
    // The API shows them, and does not change what the file declares.
    let listed = "/iot-devices/v1/devices/press-1/certificates";
    let data = std::fs::read_to_string(file("press-1")).unwrap();
    let mut call = https(&server, server.management, listed);
    let key = std::fs::read_to_string(server.folder.join("data/admin.key")).unwrap();
    let said = run(call.args(["--header", &format!("Authorization: Api-Key {}", key.trim())]));
    let shown: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(shown["certificates"][0]["certificateData"], data, "{said}");
    assert!(server.stop().success());
}

#[test]
fn certificates_that_calls_add_let_in_at_once_and_deleted_ones_end_their_sessions() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (pem, other) = (self_signed(folder, "dynamic", RSA), self_signed(folder, "other", EC));
    let server = TestServer::start(&secured("off", FACTORY).replace("rest_tls: own, ", ""));
    let registry = json!({ "folderId": "default", "name": "made" });
    let registry =
        server.done("POST", "/iot-devices/v1/registries", &registry)["id"].as_str().unwrap().to_owned();
    let certificates = json!([{ "certificateData": other }]);
    let device = json!({ "registryId": registry, "name": "made-1", "certificates": certificates });
    let device = server.done("POST", "/iot-devices/v1/devices", &device)["id"].as_str().unwrap().to_owned();
    let topic = format!("$devices/{device}/events");
    let publish = |name: &str| by(publish(&server, &topic, "x"), folder, name).status().unwrap().success();
    let path = format!("/iot-devices/v1/devices/{device}/certificates");
    assert!(publish("other") && !publish("dynamic"));
    let added = server.done("POST", &path, &json!({ "certificateData": pem }));
    assert!(publish("other") && publish("dynamic"));
    // One certificate may not be on two entities.
    let (status, answer) = server.call(
        "POST",
        &format!("/iot-devices/v1/registries/{registry}/certificates"),
        &json!({ "certificateData": pem }),
    );
    assert_eq!(status, 409, "{answer}");
    // A session of its own, which ends with its certificate.
    let port = server.mqtts.unwrap().port().to_string();
    let files = [folder.join("dynamic.pem"), folder.join("dynamic.key")];
    let mut held = Listener::start(script("hold.py").arg(port).arg(ca(&server)).args(files));
    server.done("DELETE", &format!("{path}/{}", added["fingerprint"].as_str().unwrap()), &json!(null));
    assert_eq!(held.line(), "closed");
    assert!(server.get("/metrics").1.contains("triggercast_mqtt_closed_total{reason=\"logged_out\"} 1"));
    assert!(publish("other") && !publish("dynamic"));
    assert!(server.stop().success());
}

#[test]
fn a_new_certificate_is_shown_while_clients_stay_connected() {
    let folder = tempfile::tempdir().unwrap();
    self_signed(folder.path(), "first", EC);
    let (certificate, key) = (folder.path().join("shown.pem"), folder.path().join("shown.key"));
    let replace = |name: &str| {
        std::fs::copy(folder.path().join(format!("{name}.key")), &key).unwrap();
        std::fs::copy(folder.path().join(format!("{name}.pem")), &certificate).unwrap();
    };
    replace("first");
    let files = format!("{{ certificate_file: {}, key_file: {} }}", certificate.display(), key.display());
    let server = TestServer::start(&secured(&files, FACTORY));
    let url = format!("wss://localhost:{}/main/ws", server.gateway.port());
    let mut python = Listener::start(script("listen.py").arg(&url).env("SSL_CERT_FILE", &certificate));
    let shown = || s_client(server.gateway, &[]).1;
    let first = shown();
    // One that cannot be used is told of once, and nothing changes.
    std::fs::write(&certificate, "words").unwrap();
    let metrics = || run(&mut https(&server, server.management, "/metrics"));
    until("the bad certificate", || {
        metrics().contains("triggercast_tls_reloads_total{reason=\"failed\"} 1").then_some(())
    });
    let pem = |said: &str| said.split("-----").nth(2).map(ToOwned::to_owned);
    assert_eq!(pem(&shown()), pem(&first));
    let second = self_signed(folder.path(), "second", RSA);
    replace("second");
    until("the new certificate", || shown().contains(second.trim()).then_some(()));
    assert_eq!(server.log("a new certificate cannot be used").len(), 1);
    let login = ["-u", "press-1", "-P", "Press-1-demo-1"];
    run(publish(&server, "$devices/press-1/events", "still here").args(login));
    assert_eq!(events(&python.line())[0].payload, "still here");
    // Its certificate says also that it is the server's, so whoever trusts it comes in.
    let _second = Listener::start(script("listen.py").arg(&url).env("SSL_CERT_FILE", &certificate));
    assert!(server.stop().success());
}
