//! Clients that ask for the past again and again, and cursors that nobody gave out.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{grown, server, still_serves};
use crate::common::Socket;

#[test]
fn reading_the_past_again_and_again_delays_nobody_who_listens() {
    const EVENTS: usize = 300;
    let server = server();
    let mut client = server.websocket("/ws");
    let caller = server.caller();
    let text = "eHh4".repeat(500);
    for _ in 0..EVENTS {
        let body = serde_json::json!({ "topic": "$devices/press-1/events", "data": text });
        caller.done("POST", "/iot-devices/v1/devices/press-1/publish", &body);
    }
    client.events(EVENTS);
    let before = server.resident_kib();
    let (stop, read) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..32 {
            let (stop, read, gateway) = (&stop, &read, server.gateway);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let query =
                        ["last=1000000", "since=24h", "last_event_id=00000000-0000-7000-8000-000000000000"]
                            [number % 3];
                    let (mut socket, head) = Socket::handshake(gateway, &format!("/main/ws?{query}"), "");
                    assert!(head.starts_with("HTTP/1.1 101 ") || head.starts_with("HTTP/1.1 503 "), "{head}");
                    if head.starts_with("HTTP/1.1 101 ") {
                        read.fetch_add(socket.events(EVENTS).len(), Ordering::Relaxed);
                    }
                }
            });
        }
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let start = Instant::now();
            still_serves(&server, &mut client, Duration::from_secs(10));
            slowest = slowest.max(start.elapsed());
        }
        stop.store(true, Ordering::Relaxed);
        assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    });
    assert!(read.load(Ordering::Relaxed) >= EVENTS);
    assert!(grown(&server, before) < 64 * 1024, "{} KiB", grown(&server, before));
}

#[test]
fn a_forged_cursor_is_placed_or_refused_and_never_hangs() {
    let server = server();
    let mut client = server.websocket("/ws");
    still_serves(&server, &mut client, Duration::from_secs(20));
    for query in [
        "last_event_id=ffffffff-ffff-7fff-bfff-ffffffffffff",
        "last_event_id=00000000-0000-0000-0000-000000000000",
        "last_event_id=00000000-0000-4000-8000-000000000000",
        "last_event_id=",
        "last_event_id=%27%20OR%201=1",
        "last_event_id=a&last_event_id=b",
        "last=-1",
        "last=99999999999999999999",
        "last=1e9",
        "since=-5s",
        "since=9999-12-31T23:59:59Z",
        "since=0001-01-01T00:00:00Z",
        "since=99999999999h",
        "since=%00",
        "last=1&since=1h&last_event_id=x",
    ] {
        let (_, head) = Socket::handshake(server.gateway, &format!("/main/ws?{query}"), "");
        assert!(head.starts_with("HTTP/1.1 101 ") || head.starts_with("HTTP/1.1 400 "), "{query}: {head}");
    }
    let long = "x".repeat(10_000);
    let (_, head) = Socket::handshake(server.gateway, &format!("/main/ws?last_event_id={long}"), "");
    assert!(head.starts_with("HTTP/1.1 101 ") || head.starts_with("HTTP/1.1 400 "), "{head}");
    still_serves(&server, &mut client, Duration::from_secs(20));
}
