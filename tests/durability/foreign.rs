//! Clients that we did not write come back by themselves after kill -9, and miss nothing.

use crate::common::{FACTORY, Listener, TestServer, config, events, free_port, run, script, trigger};

/// A server whose gateway keeps its port.
fn fixed(port: u16) -> String {
    let source =
        "iot_message: { registry_id: factory, batch_settings: { max_count: 2, cutoff: 100ms } }".to_owned();
    let config = config(&format!("{FACTORY}triggers:\n{}", trigger("telemetry", &source, "/ws")));
    let gateway = format!("gateway: {{ listen: \"127.0.0.1:{port}\"");
    config.replacen("gateway: { listen: \"127.0.0.1:0\"", &gateway, 1)
}

fn publish(server: &TestServer, range: std::ops::Range<usize>) {
    for n in range {
        server.publish("$devices/press-1/events", &n.to_string());
    }
}

/// Reads messages until so many events have come; gives their payloads and the id of the last.
fn payloads(mut message: impl FnMut() -> String, count: usize) -> (Vec<String>, String) {
    let (mut payloads, mut last) = (Vec::new(), String::new());
    while payloads.len() < count {
        let text = message();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let newest = json["messages"].as_array().unwrap().last().unwrap();
        last = newest["event_metadata"]["event_id"].as_str().unwrap().to_owned();
        payloads.extend(events(&text).into_iter().map(|event| event.payload));
    }
    (payloads, last)
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[test]
fn an_event_source_comes_back_by_itself_after_kill_9_and_gets_everything_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = fixed(free_port());
    let server = TestServer::start_in(folder.path(), &config);
    let url = server.url("/ws").replacen("ws://", "http://", 1);
    let mut source = Listener::start(script("events.js").arg(&url));
    let mut next = || {
        let line = source.line();
        let (id, data) = line.split_once(' ').unwrap();
        assert!(data.contains(id), "{line}");
        data.to_owned()
    };
    publish(&server, 0..5);
    let (got, _) = payloads(&mut next, 5);
    assert_eq!(got, numbers(0..5));
    // SIGKILL.
    drop(server);
    let server = TestServer::start_in(folder.path(), &config);
    publish(&server, 5..9);
    let (got, _) = payloads(&mut next, 4);
    assert_eq!(got, numbers(5..9));
}

#[test]
fn a_websocket_library_resumes_after_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let config = fixed(free_port());
    let server = TestServer::start_in(folder.path(), &config);
    publish(&server, 0..4);
    let first = run(script("resume.py").args([&format!("{}?since=1h", server.url("/ws")), "2"]));
    let mut lines = first.lines();
    assert_eq!((lines.next(), lines.next()), (Some("connected"), Some("complete")));
    let (got, _) = payloads(|| lines.next().unwrap().to_owned(), 3);
    assert_eq!(got[..3], numbers(0..3));
    let after = serde_json::from_str::<serde_json::Value>(first.lines().nth(2).unwrap()).unwrap();
    let after = after["messages"][0]["event_metadata"]["event_id"].as_str().unwrap().to_owned();
    // SIGKILL.
    drop(server);
    let server = TestServer::start_in(folder.path(), &config);
    let url = format!("{}?last_event_id={after}", server.url("/ws"));
    let again = run(script("resume.py").args([&url, "2"]));
    let mut lines = again.lines();
    assert_eq!((lines.next(), lines.next()), (Some("connected"), Some("complete")));
    let (got, _) = payloads(|| lines.next().unwrap().to_owned(), 2);
    assert_eq!(got[..2], numbers(1..3));
}
