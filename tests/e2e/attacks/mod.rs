//! What attackers try from outside, and what comes of it: `docs/attacks.md` is the table.

mod endurance;
mod floods;
mod handshakes;
mod http2;
mod management;
mod paths;
mod secrets;
mod webhooks;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::common::{FACTORY, LIMIT, Socket, TestServer, config, trigger};

/// The configuration of [`server`].
fn telemetry() -> String {
    let source = "iot_message: { registry_id: factory, batch_settings: { max_count: 1, cutoff: 1s } }";
    let config = config(&format!("{FACTORY}triggers:\n{}", trigger("telemetry", source, "/ws")));
    config.replace("drain: 100ms }", "drain: 100ms, handshake_timeout: 1s, handshakes_per_second: 100000 }")
}

/// A server that broadcasts what the factory's devices say on `/ws`.
fn server() -> TestServer {
    TestServer::start(&telemetry())
}

/// Sends bytes and reads what comes until the server ends the connection.
fn ask(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut io = TcpStream::connect(address).unwrap();
    io.set_read_timeout(Some(LIMIT)).unwrap();
    io.set_write_timeout(Some(LIMIT)).unwrap();
    let mut answer = Vec::new();
    // A server that has ended the connection already has still answered, or not.
    let _ = io.write_all(bytes);
    let _ = io.read_to_end(&mut answer);
    answer
}

/// The statuses of all HTTP answers in what came.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    let lines =
        text.split("\r\n").flat_map(|line| line.split('}')).filter(|line| line.starts_with("HTTP/1."));
    lines.map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect()
}

/// The server still serves: an event reaches a client that was there before, within this time.
#[track_caller]
fn still_serves(server: &TestServer, client: &mut Socket, within: Duration) {
    let start = Instant::now();
    server.publish("$devices/press-1/events", "alive");
    assert_eq!(client.events(1)[0].payload, "alive");
    assert!(start.elapsed() < within, "{:?}", start.elapsed());
}

/// Waits a moment and says by how many KiB the server's memory is above this; less than nothing is nothing.
fn grown(server: &TestServer, before: u64) -> u64 {
    server.resident_kib().saturating_sub(before)
}

/// 256 MiB of zeros in 260 KiB.
fn gzip_bomb() -> Vec<u8> {
    let command = "head -c 268435456 /dev/zero | gzip -c";
    let output = std::process::Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.stdout.len() > 100_000, "{output:?}");
    output.stdout
}
