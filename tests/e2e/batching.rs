//! When batches close, from a publish to the text of the message.

use std::time::{Duration, Instant};

use crate::common::{FACTORY, TestServer, config, events, run, trigger};

fn server(batch_settings: &str) -> TestServer {
    let source = format!("iot_message: {{ registry_id: factory, batch_settings: {{ {batch_settings} }} }}");
    TestServer::start(&config(&format!("{FACTORY}triggers:\n{}", trigger("telemetry", &source, "/ws"))))
}

/// Publishes each line as a message of its own, over one connection.
fn publish_lines(server: &TestServer, lines: &[String]) {
    use std::io::Write as _;
    use std::process::Stdio;
    let rest = ["-q", "1", "-t", "$devices/press-1/events", "-l"];
    let mut command = server.mosquitto_pub("press-1", "Press-1-demo-1", &rest);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    for line in lines {
        writeln!(input, "{line}").unwrap();
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_batch_closes_at_its_count_and_the_rest_at_its_cutoff() {
    let server = server("max_count: 3, cutoff: 1s");
    let mut socket = server.websocket("/ws");
    let start = Instant::now();
    publish_lines(&server, &["a", "b", "c", "d"].map(String::from));
    let first: Vec<_> = socket.batch().into_iter().map(|event| event.payload).collect();
    assert_eq!(first, ["a", "b", "c"]);
    let second: Vec<_> = socket.batch().into_iter().map(|event| event.payload).collect();
    assert_eq!(second, ["d"]);
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn a_batch_closes_before_it_is_too_long() {
    let server = server("max_count: 1000, max_bytes: 1000, cutoff: 1s");
    let mut socket = server.websocket("/ws");
    let lines: Vec<_> = (0..20).map(|n| format!("{n:0100}")).collect();
    publish_lines(&server, &lines);
    let mut got = Vec::new();
    while got.len() < lines.len() {
        let text = socket.text();
        assert!(text.len() <= 1000, "{}", text.len());
        got.extend(events(&text).into_iter().map(|event| event.payload));
    }
    assert_eq!(got, lines);
}

#[test]
fn an_event_over_the_limit_travels_alone_in_frames_of_32_kib() {
    let server = server("max_count: 10, cutoff: 1s");
    let mut socket = server.websocket("/ws");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large");
    std::fs::write(&file, "x".repeat(262_144)).unwrap();
    let file = file.to_string_lossy().into_owned();
    server.publish("$devices/press-1/events", "before");
    run(&mut server.mosquitto_pub(
        "press-1",
        "Press-1-demo-1",
        &["-q", "1", "-t", "$devices/press-1/events", "-f", &file],
    ));
    server.publish("$devices/press-1/events", "after");
    // `Socket` refuses frames over 32 KiB and joins fragments.
    assert_eq!(socket.batch()[0].payload, "before");
    let large = socket.batch();
    assert_eq!((large.len(), large[0].payload.len()), (1, 262_144));
    assert_eq!(socket.batch()[0].payload, "after");
    let (_, metrics) = server.get("/metrics");
    assert!(metrics.contains("triggercast_oversize_events_total 1"), "{metrics}");
    assert_eq!(server.log("larger than a message may be").len(), 1);
}

#[test]
fn a_stop_sends_the_open_batch() {
    let server = server("max_count: 1000, cutoff: 60s");
    let mut socket = server.websocket("/ws");
    server.publish("$devices/press-1/events", "a");
    server.publish("$devices/press-1/events", "b");
    let reader = std::thread::spawn(move || {
        let batch: Vec<_> = socket.batch().into_iter().map(|event| event.payload).collect();
        let code = socket.close_code();
        socket.send(0x88, &code.to_be_bytes());
        (batch, code, socket.at_end())
    });
    assert!(server.stop().success());
    assert_eq!(reader.join().unwrap(), (vec!["a".to_owned(), "b".to_owned()], 1012, true));
}
