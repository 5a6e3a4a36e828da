//! The commands, as the built program: output, exit codes, and what goes over the wire.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a fault of a test's own tools should end the test"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

const DEFAULT: &str = include_str!("../config.yaml");

/// The program, in a folder that holds the default configuration.
struct Program {
    folder: tempfile::TempDir,
}

impl Program {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.yaml"), DEFAULT).unwrap();
        Self { folder }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_triggercast"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Done {
        Done::of(self.command(args).output().unwrap())
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }
}

/// A program that has ended.
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Done {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn check(&self, code: i32, out: &str, err: &str) {
        assert_eq!((self.code, self.out.as_str()), (Some(code), out), "{}", self.err);
        assert!(self.err.contains(err), "{err:?} is not in {:?}", self.err);
    }
}

fn interrupt(child: &Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn help_shows_every_option_with_examples() {
    let program = Program::new();
    let mut shown = String::new();
    for command in [
        &[][..],
        &["check"],
        &["simulate"],
        &["listen"],
        &["journal"],
        &["journal", "ls"],
        &["journal", "cat"],
        &["journal", "verify"],
        &["journal", "export"],
    ] {
        let args = [command, &["--help"]].concat();
        let done = program.run(&args);
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
        shown.push_str(&format!("$ triggercast {}\n{}\n", args.join(" "), done.out));
    }
    insta::assert_snapshot!("help", shown);
}

#[test]
fn check_tells_what_would_start() {
    let program = Program::new();
    let done = program.run(&["check"]);
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
    insta::assert_snapshot!("check", done.out);
    // The same file by other ways.
    program.write("other.yaml", DEFAULT);
    let same = done.out.replacen("config.yaml", "other.yaml", 1);
    program.run(&["check", "other.yaml"]).check(0, &same, "");
    program.run(&["--config", "other.yaml", "check"]).check(0, &same, "");
    program.run(&["check", "--config", "missing.yaml", "other.yaml"]).check(0, &same, "");
}

#[test]
fn check_tells_every_fault_and_where_it_is() {
    let program = Program::new();
    program
        .write("bad.yaml", &DEFAULT.replace("id: main\n", "id: Main\n").replace("cutoff: 1s", "cutoff: 2m"));
    let done = program.run(&["check", "bad.yaml"]);
    done.check(2, "", "gateways[0].id: \"Main\" is not an id");
    assert_eq!(done.err.lines().count(), 2);
    assert!(done.err.lines().all(|line| line.starts_with("bad.yaml:")), "{}", done.err);
    program.run(&["check", "missing.yaml"]).check(
        2,
        "",
        "missing.yaml: the file cannot be read: No such file",
    );
    // Serving refuses the same.
    program.run(&["--config", "bad.yaml"]).check(2, "", "bad.yaml:");
    program.run(&["serve", "--config", "bad.yaml"]).check(2, "", "bad.yaml:");
}

#[test]
fn wrong_arguments_are_code_2() {
    let program = Program::new();
    program.write("no-mqtt.yaml", "gateway: {}\n");
    program.write("hashes.yaml", "mqtt:\niot: { registries: [ { id: r, devices: [ { id: d } ] } ] }\n");
    for (args, err) in [
        (&["fly"][..], "unrecognized subcommand"),
        (&["--log-format", "xml"], "[possible values: text, json]"),
        (&["listen"], "<URL>"),
        (
            &["listen", "wss://127.0.0.1/x", "--ca-file", "none.pem"],
            "the certificates to trust cannot be used: none.pem: ",
        ),
        (&["listen", "http://127.0.0.1/x"], "\"http://127.0.0.1/x\" is not a WebSocket address: ws://HOST"),
        (&["listen", "ws://"], "is not a WebSocket address"),
        (&["listen", "ws://h/", "--count", "0"], "0 is not in 1.."),
        (&["listen", "ws://h/", "--origin", "a\nb"], "--origin"),
        (&["simulate", "--qos", "2"], "2 is not in 0..=1"),
        (
            &["simulate", "--devices", "press-1,press-9"],
            "\"press-9\" is not a device of the configuration; known: \"press-1\"",
        ),
        (&["simulate", "--url", "http://h"], "--url: the URL must be mqtt://HOST[:PORT]"),
        (
            &["simulate", "--config", "no-mqtt.yaml", "--url", "mqtt://h"],
            "has no device whose password is known",
        ),
        (&["simulate", "--config", "hashes.yaml", "--devices", "d"], "does not know the password of \"d\""),
        (&["simulate", "--config", "missing.yaml"], "missing.yaml: the file cannot be read"),
    ] {
        program.run(args).check(2, "", err);
    }
}

// `listen`, against a little WebSocket server.

/// Answers one connection at a time, in the order of `scripts`.
struct Sockets {
    listener: tokio::net::TcpListener,
}

type Socket = WebSocketStream<tokio::net::TcpStream>;

impl Sockets {
    async fn new() -> Self {
        Self { listener: tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    fn url(&self) -> String {
        format!("ws://{}/main/ws", self.listener.local_addr().unwrap())
    }

    /// Accepts a client, and tells the Origin that it sent.
    async fn accept(&self) -> (Socket, Option<String>) {
        self.accept_with("origin").await
    }

    /// Accepts a client, and tells a header that it sent.
    #[expect(clippy::result_large_err, reason = "the library's callback has this form")]
    async fn accept_with(&self, header: &str) -> (Socket, Option<String>) {
        let (stream, _) = self.listener.accept().await.unwrap();
        let mut sent = None;
        let answer = |request: &Request, mut response: Response| {
            assert_eq!(request.uri().path(), "/main/ws");
            sent = request.headers().get(header).map(|value| value.to_str().unwrap().to_owned());
            let name = "X-Yc-Apigateway-Websocket-Connection-Id";
            response.headers_mut().insert(name, "c0nnect10n".parse().unwrap());
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(stream, answer).await.unwrap();
        (socket, sent)
    }
}

/// Starts `listen` with a limit of time, so that no fault hangs the tests.
async fn listen(program: &Program, args: &[&str]) -> Done {
    let mut command = tokio::process::Command::from(program.command(&[&["listen"], args].concat()));
    let output = tokio::time::timeout(Duration::from_secs(20), command.kill_on_drop(true).output());
    Done::of(output.await.expect("the program ends").unwrap())
}

/// `listen` beside what the server does.
async fn listen_to(program: &Program, args: &[&str], server: impl Future<Output = ()>) -> Done {
    let both = async { tokio::join!(listen(program, args), server) };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("both end").0
}

fn batch(payloads: &[&str]) -> String {
    let event = |payload: &&str| {
        format!(
            r#"{{"event_metadata":{{"event_id":"0","event_type":"yandex.cloud.events.iot.IoTMessage","created_at":"2025-01-02T03:04:05Z"}},"details":{{"registry_id":"factory","device_id":"press-1","mqtt_topic":"$devices/press-1/events","payload":"{payload}"}}}}"#
        )
    };
    format!(r#"{{"messages":[{}]}}"#, payloads.iter().map(event).collect::<Vec<_>>().join(","))
}

#[tokio::test]
async fn listen_prints_batches_byte_for_byte_up_to_the_count() {
    let (program, sockets) = (Program::new(), Sockets::new().await);
    let (first, second) = (batch(&["aGk=", "ISE="]), batch(&["ü"]));
    let server = async {
        let (mut socket, origin) = sockets.accept().await;
        assert_eq!(origin.as_deref(), Some("http://app.example"));
        socket.send(Message::text(&first)).await.unwrap();
        socket.send(Message::text(&second)).await.unwrap();
        socket.send(Message::text("one too many")).await.unwrap();
        // The client says goodbye when it has enough.
        let last = socket.next().await.unwrap().unwrap();
        assert!(matches!(last, Message::Close(_)), "{last:?}");
    };
    let url = sockets.url();
    let args = [&url, "--count", "2", "--origin", "http://app.example"];
    let done = listen_to(&program, &args, server).await;
    done.check(0, &format!("{first}\n{second}\n"), "");
    assert_eq!(done.err, "");
}

#[tokio::test]
async fn listen_decodes_events_one_a_line() {
    let (program, sockets) = (Program::new(), Sockets::new().await);
    let server = async {
        let (mut socket, _) = sockets.accept().await;
        socket.send(Message::text(batch(&["aGk=", "/w=="]))).await.unwrap();
        assert!(socket.next().await.unwrap().unwrap().is_close());
    };
    let url = sockets.url();
    let done = listen_to(&program, &[&url, "--decode", "--count", "1", "--progress"], server).await;
    let at = "2025-01-02T03:04:05Z $devices/press-1/events";
    done.check(0, &format!("{at} hi\n{at} base64:/w==\n"), "connected as c0nnect10n");
    assert!(done.err.ends_with("in all 1 messages, 2 events\n"), "{}", done.err);
}

#[tokio::test]
async fn listen_answers_pings() {
    let (program, sockets) = (Program::new(), Sockets::new().await);
    let server = async {
        let (mut socket, _) = sockets.accept().await;
        socket.send(Message::Ping("are you there".into())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("are you there".into()));
        socket.send(Message::text("yes")).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    };
    let url = sockets.url();
    let done = listen_to(&program, &[&url, "--count", "1"], server).await;
    done.check(0, "yes\n", "");
}

#[tokio::test]
async fn listen_tells_why_it_was_closed() {
    let (program, sockets) = (Program::new(), Sockets::new().await);
    for (code, exit, said) in [
        (1000, 0, "closed by the server: 1000 \"why\" (done; no need to come back)"),
        (1001, 0, "closed by the server: 1001 \"why\" (the server goes away; come back)"),
        (1012, 0, "closed by the server: 1012 \"why\" (the server restarts; come back)"),
        (1008, 1, "closed by the server: 1008 \"why\" (not allowed; do not come back)"),
        (1011, 1, "closed by the server: 1011 \"why\" (an error of the server; come back later)"),
        (1013, 1, "closed by the server: 1013 \"why\" (too slow, or the server is busy; come back later)"),
    ] {
        let server = async {
            let (mut socket, _) = sockets.accept().await;
            socket.send(Message::text("last words")).await.unwrap();
            socket.close(Some(CloseFrame { code: code.into(), reason: "why".into() })).await.unwrap();
            while let Some(Ok(_)) = socket.next().await {}
        };
        let url = sockets.url();
        let done = listen_to(&program, &[&url], server).await;
        done.check(exit, "last words\n", said);
    }
    // No goodbye at all.
    let server = async { drop(sockets.accept().await) };
    let url = sockets.url();
    let done = listen_to(&program, &[&url], server).await;
    done.check(1, "", "the connection failed: ");
}

#[tokio::test]
async fn listen_comes_back_when_it_may() {
    let (program, sockets) = (Program::new(), Sockets::new().await);
    let server = async {
        let (mut socket, _) = sockets.accept().await;
        socket.send(Message::text("one")).await.unwrap();
        socket.close(Some(CloseFrame { code: 1012.into(), reason: "".into() })).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
        drop(sockets.accept().await);
        let (mut socket, _) = sockets.accept().await;
        socket.send(Message::text("two")).await.unwrap();
        socket.close(Some(CloseFrame { code: 1008.into(), reason: "".into() })).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    };
    let url = sockets.url();
    let done = listen_to(&program, &[&url, "--reconnect"], server).await;
    done.check(1, "one\ntwo\n", "coming back in");
    assert!(done.err.contains("1008 (not allowed; do not come back)"), "{}", done.err);
}

#[tokio::test]
async fn listen_that_comes_back_goes_on_after_the_last_event_it_printed() {
    let id = |n: u8| format!("01a1fcaf-0c7b-77d1-bf79-51ee3169400{n}");
    let event = |n| format!(r#"{{"event_metadata":{{"event_id":"{}"}},"details":{{}}}}"#, id(n));
    let text = format!(r#"{{"messages":[{},{}]}}"#, event(1), event(2));
    let (program, sockets) = (Program::new(), Sockets::new().await);
    let server = async {
        let (mut socket, after) = sockets.accept_with("last-event-id").await;
        assert_eq!(after, None);
        socket.send(Message::text(text.clone())).await.unwrap();
        drop(socket);
        // Once more without anything, and it is still the same.
        for _ in 0..2 {
            let (socket, after) = sockets.accept_with("last-event-id").await;
            assert_eq!(after, Some(id(2)));
            drop(socket);
        }
        let (mut socket, _) = sockets.accept_with("last-event-id").await;
        socket.close(Some(CloseFrame { code: 1008.into(), reason: "".into() })).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    };
    let url = sockets.url();
    let done = listen_to(&program, &[&url, "--reconnect"], server).await;
    done.check(1, &format!("{text}\n"), "coming back in");
}

#[tokio::test]
async fn listen_shows_why_a_handshake_is_refused() {
    let program = Program::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/main/none", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        read_request(&mut stream);
        let body = r#"{"code":5,"message":"the gateway main has no path /none"}"#;
        let head = format!(
            "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    });
    let done = listen(&program, &[&url, "--reconnect"]).await;
    server.join().unwrap();
    done.check(1, "", "refused by the server: 404 Not Found: the gateway main has no path /none");
    // Nobody there at all.
    let done = listen(&program, &[&url]).await;
    done.check(1, "", "Connection refused");
    assert!(done.err.contains(&url), "{}", done.err);
}

fn read_request(stream: &mut TcpStream) {
    let mut lines = BufReader::new(stream).lines();
    while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
}

#[tokio::test]
async fn listen_ends_when_nobody_reads_its_output() {
    let (program, sockets) = (Program::new(), Sockets::new().await);
    let mut child = program.command(&["listen", &sockets.url()]).spawn().unwrap();
    let (mut socket, _) = sockets.accept().await;
    socket.send(Message::text("first")).await.unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "first\n");
    // The reader is gone; the program sees that with one of the next messages.
    while socket.send(Message::text("more")).await.is_ok() {
        tokio::task::yield_now().await;
        if child.try_wait().unwrap().is_some() {
            break;
        }
    }
    drop(socket);
    Done::of(child.wait_with_output().unwrap()).check(0, "", "");
}

#[tokio::test]
async fn listen_ends_at_ctrl_c() {
    let (program, sockets) = (Program::new(), Sockets::new().await);
    let mut child = program.command(&["listen", &sockets.url()]).spawn().unwrap();
    let (mut socket, _) = sockets.accept().await;
    socket.send(Message::text("first")).await.unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    interrupt(&child);
    assert!(socket.next().await.unwrap().unwrap().is_close());
    drop(socket);
    Done::of(child.wait_with_output().unwrap()).check(0, "", "");
}

// `simulate`, against a little MQTT server.

/// One connection of an MQTT client, seen from the server.
struct Mqtt {
    stream: TcpStream,
    client_id: String,
}

/// A reading that arrived.
#[derive(Debug)]
struct Reading {
    packet_id: u16,
    topic: String,
    sequence: u64,
}

impl Mqtt {
    /// Takes the next client and answers its CONNECT.
    fn accept(listener: &TcpListener, session_present: u8, code: u8) -> Self {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (kind, body) = packet(&mut stream).unwrap();
        assert_eq!(kind, 0x10);
        assert_eq!(&body[..7], b"\0\x04MQTT\x04");
        // User name and password, no clean session.
        assert_eq!(body[7], 0b1100_0000);
        let length = usize::from(body[11]);
        let client_id = String::from_utf8(body[12..12 + length].to_vec()).unwrap();
        stream.write_all(&[0x20, 2, session_present, code]).unwrap();
        Self { stream, client_id }
    }

    /// The next reading; `None` after DISCONNECT or the end.
    fn reading(&mut self) -> Option<Reading> {
        let (kind, body) = packet(&mut self.stream)?;
        match kind {
            0x32 | 0x3a => {}
            0xe0 => return None,
            other => panic!("packet {other:#x}"),
        }
        let topic_end = 2 + usize::from(body[1]);
        let json: serde_json::Value = serde_json::from_slice(&body[topic_end + 2..]).unwrap();
        Some(Reading {
            topic: String::from_utf8(body[2..topic_end].to_vec()).unwrap(),
            packet_id: u16::from_be_bytes([body[topic_end], body[topic_end + 1]]),
            sequence: json["seq"].as_u64().unwrap(),
        })
    }

    fn acknowledge(&mut self, reading: &Reading) {
        let [high, low] = reading.packet_id.to_be_bytes();
        self.stream.write_all(&[0x40, 2, high, low]).unwrap();
    }
}

fn packet(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut byte = [0];
    stream.read_exact(&mut byte).ok()?;
    let kind = byte[0];
    let (mut length, mut shift) = (0, 0);
    loop {
        stream.read_exact(&mut byte).ok()?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((kind, body))
}

fn simulate(listener: &TcpListener, program: &Program, args: &[&str]) -> Child {
    let url = format!("mqtt://{}", listener.local_addr().unwrap());
    program.command(&[&["simulate", "--url", &url], args].concat()).spawn().unwrap()
}

#[test]
fn simulate_publishes_numbered_readings_and_waits_for_acknowledgements() {
    let (program, listener) = (Program::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let child = simulate(&listener, &program, &["--count", "60", "--rate", "0", "--devices", "press-2"]);
    let mut mqtt = Mqtt::accept(&listener, 0, 0);
    assert!(mqtt.client_id.starts_with("simulate-press-2-"), "{}", mqtt.client_id);
    // Twenty may be on their way, and no more before one is acknowledged.
    let first: Vec<Reading> = (0..20).map(|_| mqtt.reading().unwrap()).collect();
    mqtt.stream.set_nonblocking(true).unwrap();
    assert_eq!(mqtt.stream.peek(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    mqtt.stream.set_nonblocking(false).unwrap();
    let mut seen = Vec::new();
    for reading in &first {
        mqtt.acknowledge(reading);
        seen.push(reading.sequence);
    }
    while let Some(reading) = mqtt.reading() {
        assert_eq!(reading.topic, "$devices/press-2/events");
        mqtt.acknowledge(&reading);
        seen.push(reading.sequence);
    }
    assert_eq!(seen, (1..=60).collect::<Vec<_>>());
    Done::of(child.wait_with_output().unwrap()).check(0, "", "published 60, acknowledged 60, ");
}

/// Whatever the server forgets, nothing that it has not acknowledged is lost.
#[test]
fn simulate_loses_nothing_with_a_lost_connection() {
    for session_present in [0, 1] {
        let (program, listener) = (Program::new(), TcpListener::bind("127.0.0.1:0").unwrap());
        let child = simulate(&listener, &program, &["--count", "100", "--rate", "0", "--devices", "press-1"]);
        let mut acknowledged = Vec::new();
        let mut mqtt = Mqtt::accept(&listener, 0, 0);
        for _ in 0..7 {
            let reading = mqtt.reading().unwrap();
            mqtt.acknowledge(&reading);
            acknowledged.push(reading.sequence);
        }
        // Thirteen more are read, but the answer never comes.
        for _ in 0..13 {
            mqtt.reading().unwrap();
        }
        drop(mqtt);
        let mut mqtt = Mqtt::accept(&listener, session_present, 0);
        while let Some(reading) = mqtt.reading() {
            mqtt.acknowledge(&reading);
            acknowledged.push(reading.sequence);
        }
        acknowledged.sort_unstable();
        acknowledged.dedup();
        assert_eq!(acknowledged, (1..=100).collect::<Vec<_>>(), "{session_present}");
        let done = Done::of(child.wait_with_output().unwrap());
        done.check(0, "", "published 100, acknowledged 100, ");
        assert!(done.err.contains("press-1: no connection to the MQTT server"), "{}", done.err);
    }
}

#[test]
fn simulate_shares_the_count_between_devices() {
    let (program, listener) = (Program::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let child = simulate(&listener, &program, &["--count", "30", "--rate", "500"]);
    let serve = |mut mqtt: Mqtt| {
        std::thread::spawn(move || {
            let mut count = 0;
            while let Some(reading) = mqtt.reading() {
                mqtt.acknowledge(&reading);
                count += 1;
                assert_eq!(reading.sequence, count);
            }
            count
        })
    };
    let devices = [serve(Mqtt::accept(&listener, 0, 0)), serve(Mqtt::accept(&listener, 0, 0))];
    let counts = devices.map(|device| device.join().unwrap());
    assert_eq!(counts.iter().sum::<u64>(), 30);
    Done::of(child.wait_with_output().unwrap()).check(0, "", "published 30, acknowledged 30, ");
}

#[test]
fn simulate_stops_at_ctrl_c() {
    let (program, listener) = (Program::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let child = simulate(&listener, &program, &["--rate", "100", "--devices", "press-1"]);
    let mut mqtt = Mqtt::accept(&listener, 0, 0);
    let first = mqtt.reading().unwrap();
    mqtt.acknowledge(&first);
    interrupt(&child);
    while let Some(reading) = mqtt.reading() {
        mqtt.acknowledge(&reading);
    }
    let done = Done::of(child.wait_with_output().unwrap());
    done.check(0, "", "published ");
    let last = done.err.lines().last().unwrap();
    let numbers: Vec<&str> = last.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty()).collect();
    assert_eq!(numbers[0], numbers[1], "{last}");
}

#[test]
fn simulate_says_when_nobody_is_there() {
    let program = Program::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let done = program.run(&["simulate", "--url", &format!("mqtt://{free}"), "--timeout", "0"]);
    done.check(1, "", &format!("no connection to the MQTT server at {free} for 0 s"));
    assert!(done.err.contains("Connection refused"), "{}", done.err);
    assert!(done.err.contains("is it running?"), "{}", done.err);
}

#[test]
fn simulate_says_when_a_password_is_wrong() {
    for code in [4, 5] {
        let (program, listener) = (Program::new(), TcpListener::bind("127.0.0.1:0").unwrap());
        let child = simulate(&listener, &program, &["--devices", "press-1"]);
        let _mqtt = Mqtt::accept(&listener, 0, code);
        let done = Done::of(child.wait_with_output().unwrap());
        done.check(1, "", "refused the device press-1: wrong password, or not known there");
    }
}
