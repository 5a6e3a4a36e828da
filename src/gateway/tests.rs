//! The gateway over real sockets: actor, workers and sessions together.

mod filters;
mod sweeps;
mod views;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Instant, SystemTime};

use bytes::Bytes;

use super::outbound::Outbound;
use super::*;
use crate::journal::Journals;
use crate::model::event_id;
use crate::model::gateway::{Gateway, GatewayPath, SlowClients};
use crate::model::limits::Limits;
use crate::telemetry::METRICS;

const LIMIT: Duration = Duration::from_secs(10);

struct Bench {
    address: SocketAddr,
    directory: Arc<Directory>,
    listener: Listener,
    gateway: Addr<GatewayActor>,
}

impl Bench {
    fn new(workers: usize, backlog_bytes: usize, max_connections: usize) -> Self {
        Self::with(workers, GatewayPath { backlog_bytes, ..GatewayPath::new("/ws") }, max_connections)
    }

    /// A gateway with this path, and `/other` of the same kind.
    fn with(workers: usize, path: GatewayPath, max_connections: usize) -> Self {
        let other = GatewayPath { path: "/other".into(), ..path.clone() };
        let gateways = [Gateway { paths: vec![path, other], ..Gateway::new("main") }];
        Self::over(workers, &gateways, max_connections, &Journals::in_memory(&gateways))
    }

    fn over(workers: usize, gateways: &[Gateway], max_connections: usize, journals: &Journals) -> Self {
        let directory = Arc::new(Directory::new(
            gateways,
            PublicLimits::for_tests(max_connections),
            journals,
            Outbound::for_tests(&[]),
        ));
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let listener = Listener::start(socket, workers, Arc::clone(&directory)).unwrap();
        let gateway = GatewayActor::new("main".into(), Arc::clone(&directory), listener.workers()).start();
        Self { address, directory, listener, gateway }
    }

    async fn client(&self, path: &str) -> Client {
        let (address, path) = (self.address, path.to_owned());
        actix_rt::task::spawn_blocking(move || Client::connect(address, &path)).await.unwrap()
    }

    async fn broadcast(&self, path: &str, texts: &[&[u8]]) {
        let batches = texts.iter().map(|text| vec![event(text)]).collect();
        let broadcast = Broadcast { path: path.into(), origin: None, batches: Arc::new(batches) };
        self.gateway.send(broadcast).await.unwrap();
    }
}

/// An event whose JSON is this text.
fn event(json: &[u8]) -> Event {
    Event { id: event_id::next(SystemTime::now()), json: Bytes::copy_from_slice(json) }
}

/// The events' JSON in a message.
fn unwrapped(payload: Vec<u8>) -> Vec<u8> {
    let inner = payload.strip_prefix(br#"{"messages":["#).and_then(|rest| rest.strip_suffix(b"]}"));
    inner.map(<[u8]>::to_vec).unwrap_or(payload)
}

/// A client that knows just enough of RFC 6455 to read server frames.
struct Client {
    io: TcpStream,
    head: String,
}

impl Client {
    fn connect(address: SocketAddr, path: &str) -> Self {
        Self::connect_with(address, path, "")
    }

    fn connect_with(address: SocketAddr, path: &str, headers: &str) -> Self {
        Self::over(TcpStream::connect(address).unwrap(), path, headers)
    }

    fn over(mut io: TcpStream, path: &str, headers: &str) -> Self {
        let address = io.peer_addr().unwrap();
        io.set_read_timeout(Some(LIMIT)).unwrap();
        write!(
            io,
            "GET /main{path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{headers}\r\n"
        )
        .unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            io.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        Self { io, head: String::from_utf8(head).unwrap() }
    }

    /// The next frame: its first byte, and its payload as it came.
    fn raw_frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.io.read_exact(&mut head).unwrap();
        let len = match head[1] {
            126 => {
                let mut len = [0; 2];
                self.io.read_exact(&mut len).unwrap();
                usize::from(u16::from_be_bytes(len))
            }
            len => usize::from(len),
        };
        let mut payload = vec![0; len];
        self.io.read_exact(&mut payload).unwrap();
        (head[0], payload)
    }

    fn frame(&mut self) -> (u8, Vec<u8>) {
        let (first, payload) = self.raw_frame();
        (first, unwrapped(payload))
    }

    /// Frames up to the close frame or the end; pings are left out.
    fn rest(&mut self) -> (Vec<Vec<u8>>, Option<u16>) {
        let mut frames = Vec::new();
        loop {
            match self.frame() {
                (0x88, payload) => {
                    return (frames, payload.get(..2).map(|c| u16::from_be_bytes([c[0], c[1]])));
                }
                (0x89, _) => {}
                (_, payload) => frames.push(payload),
            }
        }
    }

    async fn with<R: Send + 'static>(self, work: impl FnOnce(Self) -> R + Send + 'static) -> R {
        actix_rt::task::spawn_blocking(move || work(self)).await.unwrap()
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[actix::test]
async fn a_broadcast_reaches_every_session_of_its_path_on_every_worker_and_no_other() {
    let bench = Bench::new(2, 1 << 20, 100);
    let mut on_path = Vec::new();
    for _ in 0..6 {
        on_path.push(bench.client("/ws").await);
    }
    assert!(on_path[0].head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
    assert!(on_path[0].head.contains("\r\nX-Yc-Apigateway-Websocket-Connection-Id: "));
    let other = bench.client("/other").await;
    bench.broadcast("/ws", &[b"one", b"two"]).await;
    bench.broadcast("/other", &[b"three"]).await;
    for client in on_path {
        let frames = client.with(|mut client| [client.frame(), client.frame()]).await;
        assert_eq!(frames, [(0x81, b"one".to_vec()), (0x81, b"two".to_vec())]);
    }
    assert_eq!(other.with(|mut client| client.frame()).await, (0x81, b"three".to_vec()));
}

#[actix::test]
async fn a_session_that_is_answered_misses_no_later_broadcast() {
    let bench = Bench::new(2, 1 << 20, 1000);
    for n in 0..50 {
        let client = bench.client("/ws").await;
        let text = format!("{n}");
        bench.broadcast("/ws", &[text.as_bytes()]).await;
        assert_eq!(client.with(|mut client| client.frame()).await.1, text.as_bytes());
    }
}

#[actix::test]
async fn a_slow_client_gets_whole_frames_then_1013_and_the_others_everything() {
    let path = GatewayPath {
        backlog_bytes: 256 * 1024,
        slow_clients: SlowClients::Disconnect,
        ..GatewayPath::new("/ws")
    };
    let bench = Bench::with(1, path, 100);
    let slow = bench.client("/ws").await;
    let good = bench.client("/ws").await;
    let text = vec![b'x'; 30_000];
    let rounds = 1200; // 36 MB, more than any socket buffer
    let read = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&read);
    let reader = actix_rt::task::spawn_blocking(move || {
        let mut good = good;
        let frames = (0..rounds).map(|_| (good.frame().1.len(), counter.fetch_add(1, Ordering::Relaxed)));
        frames.map(|(len, _)| len).sum::<usize>()
    });
    for round in 0..rounds {
        // The good client keeps up to within four frames, which the backlog holds.
        until("the good client's next frame", || read.load(Ordering::Relaxed) + 4 > round).await;
        bench.broadcast("/ws", &[&text]).await;
    }
    assert_eq!(reader.await.unwrap(), rounds * text.len());
    let (frames, code) = slow.with(|mut client| client.rest()).await;
    assert!(frames.len() < rounds && frames.iter().all(|frame| *frame == text));
    assert_eq!(code, Some(1013));
}

#[actix::test]
async fn what_a_client_sends_is_judged_while_it_does_not_read() {
    let bench = Bench::new(1, 64 << 20, 100);
    let mut client = bench.client("/ws").await;
    let text = vec![b'x'; 30_000];
    for _ in 0..400 {
        bench.broadcast("/ws", &[&text]).await;
    }
    client.io.write_all(&[0x81, 0x05, 1, 2, 3, 4, 5]).unwrap(); // unmasked
    let (_, code) = client.with(|mut client| client.rest()).await;
    assert_eq!(code, Some(1002));
}

#[actix::test]
async fn a_closing_client_behind_the_ring_does_not_hold_its_worker() {
    let bench = Bench::new(1, 256 * 1024, 100);
    let mut bad = bench.client("/ws").await;
    let good = bench.client("/ws").await;
    bad.io.write_all(&[0x81, 0x05, 1, 2, 3, 4, 5]).unwrap(); // unmasked: closed, and not closed by the client
    let text = vec![b'x'; 30_000];
    let reader = actix_rt::task::spawn_blocking(move || {
        let mut good = good;
        (0..100).map(|_| good.frame().1.len()).sum::<usize>()
    });
    for _ in 0..100 {
        bench.broadcast("/ws", &[&text]).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(reader.await.unwrap(), 100 * text.len());
    assert_eq!(bad.with(|mut bad| bad.rest().1).await, Some(1002));
}

#[actix::test]
async fn a_client_that_does_not_read_slows_neither_its_path_nor_another() {
    let bench = Bench::new(1, 32 << 20, 100);
    let stalled = bench.client("/other").await;
    let good = bench.client("/ws").await;
    let text = vec![b'x'; 30_000];
    for _ in 0..600 {
        bench.broadcast("/other", &[&text]).await; // 18 MB: more than sockets hold, less than the backlog
    }
    let before = Instant::now();
    let reader = actix_rt::task::spawn_blocking(move || {
        let mut good = good;
        (0..200).map(|_| good.frame().1.len()).sum::<usize>()
    });
    for _ in 0..200 {
        bench.broadcast("/ws", &[b"small"]).await;
        bench.broadcast("/other", &[b"small"]).await;
    }
    assert_eq!(reader.await.unwrap(), 200 * 5);
    // Waiting 20 ms for it on every broadcast would take four seconds and more.
    assert!(before.elapsed() < Duration::from_secs(3), "{:?}", before.elapsed());
    drop(stalled);
}

#[actix::test]
async fn a_burst_of_pings_is_answered_ping_by_ping() {
    let bench = Bench::new(1, 1 << 20, 100);
    let mut client = bench.client("/ws").await;
    let mut ping = vec![0x89, 0x80 | 125, 0, 0, 0, 0];
    ping.extend([b'p'; 125]);
    client.io.write_all(&ping.repeat(300)).unwrap();
    let pongs = client.with(|mut client| (0..300).filter(|_| client.frame().0 == 0x8a).count()).await;
    assert_eq!(pongs, 300);
}

#[actix::test]
async fn pings_are_answered_and_the_close_code_comes_back() {
    let bench = Bench::new(1, 1 << 20, 100);
    let mut client = bench.client("/ws").await;
    client.io.write_all(&[0x89, 0x82, 0, 0, 0, 0, b'h', b'i']).unwrap();
    client.io.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x0f, 0xa0]).unwrap(); // 4000
    let (pong, close, end) =
        client.with(|mut client| (client.frame(), client.frame(), client.io.read(&mut [0]).unwrap())).await;
    assert_eq!(pong, (0x8a, b"hi".to_vec()));
    assert_eq!(close, (0x88, vec![0x0f, 0xa0]));
    assert_eq!(end, 0);
}

#[actix::test]
async fn pongs_that_nobody_reads_end_the_connection_at_their_bound() {
    let limits = Limits { frames_per_second: 1_000_000, bytes_per_second: 1 << 30, ..Limits::default() };
    let path = GatewayPath { backlog_bytes: 64 << 20, limits, ..GatewayPath::new("/ws") };
    let bench = Bench::with(1, path, 100);
    let client = bench.client("/ws").await;
    let text = vec![b'x'; 30_000];
    for _ in 0..400 {
        bench.broadcast("/ws", &[&text]).await;
    }
    let before = METRICS.websocket_closed.get(["control_flood"]);
    let mut ping = vec![0x89, 0x80 | 125, 0, 0, 0, 0];
    ping.extend([b'p'; 125]);
    let sent = client
        .with(move |mut client| {
            client.io.set_write_timeout(Some(LIMIT)).unwrap();
            let sent = (0..100_000).take_while(|_| client.io.write_all(&ping).is_ok()).count();
            (sent, client)
        })
        .await;
    assert!(sent.0 < 100_000);
    let after = || METRICS.websocket_closed.get(["control_flood"]);
    until("the end of the connection", || after() > before).await;
}

#[actix::test]
async fn the_place_of_a_connection_is_free_after_it() {
    let bench = Bench::new(1, 1 << 20, 1);
    let first = bench.client("/ws").await;
    assert!(bench.client("/ws").await.head.starts_with("HTTP/1.1 503 "));
    drop(first);
    let start = Instant::now();
    while !bench.client("/ws").await.head.starts_with("HTTP/1.1 101 ") {
        assert!(start.elapsed() < LIMIT);
    }
}

#[actix::test]
async fn a_stop_sends_what_is_queued_then_1012() {
    let bench = Bench::new(2, 64 << 20, 100);
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(bench.client("/ws").await);
    }
    let text = vec![b'x'; 30_000];
    for _ in 0..100 {
        bench.broadcast("/ws", &[&text]).await;
    }
    bench.gateway.send(Flush).await.unwrap();
    let readers: Vec<_> = clients
        .into_iter()
        .map(|client| {
            actix_rt::task::spawn_blocking(move || {
                let mut client = client;
                let rest = client.rest();
                client.io.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xf4]).unwrap(); // 1012 echoed
                rest
            })
        })
        .collect();
    bench.listener.stop(Duration::from_millis(100)).await;
    for reader in readers {
        let (frames, code) = reader.await.unwrap();
        assert_eq!((frames.len(), code), (100, Some(1012)));
    }
    assert!(TcpStream::connect(bench.address).is_err());
}

#[actix::test]
async fn the_gateways_mailbox_has_its_bound() {
    let bench = Bench::new(1, 1 << 20, 1);
    // The arbiter does not run the gateway between these sends.
    let broadcast = || Broadcast { path: "/none".into(), origin: None, batches: Arc::default() };
    bench.gateway.send(broadcast()).await.unwrap();
    let taken = (0..10_000).take_while(|_| bench.gateway.try_send(broadcast()).is_ok()).count();
    assert!((MAILBOX..MAILBOX + 3).contains(&taken), "{taken}");
}

#[actix::test]
async fn a_full_worker_makes_the_gateway_wait_and_nothing_is_lost() {
    let bench = Bench::new(1, 64 << 20, 10);
    let client = bench.client("/ws").await;
    let count = 20_000;
    let reader = actix_rt::task::spawn_blocking(move || {
        let mut client = client;
        (0..count)
            .map(|_| String::from_utf8(client.frame().1).unwrap().parse::<usize>().unwrap())
            .collect::<Vec<_>>()
    });
    for n in 0..count {
        // Far faster than a worker writes: the shard's mailbox is full most of the time.
        bench.broadcast("/ws", &[n.to_string().as_bytes()]).await;
    }
    assert_eq!(reader.await.unwrap(), (0..count).collect::<Vec<_>>());
}

/// The numbers that a client receives as event JSON, until `last`.
fn numbers(mut client: Client, last: usize) -> Vec<usize> {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&last) {
        let (first, payload) = client.frame();
        assert_eq!(first, 0x81, "{}", String::from_utf8_lossy(&payload));
        let text = String::from_utf8(payload).unwrap();
        numbers.extend(
            text.split(',').map(|number| number.trim_start_matches('0').parse::<usize>().unwrap_or(0)),
        );
    }
    numbers
}

impl Bench {
    /// Broadcasts numbers, each padded to `len`, in batches of three, a batch at a time.
    async fn count(&self, range: std::ops::Range<usize>, len: usize) {
        let numbers: Vec<usize> = range.collect();
        for three in numbers.chunks(3) {
            let batch = three.iter().map(|n| event(format!("{n:0>len$}").as_bytes())).collect();
            let broadcast = Broadcast { path: "/ws".into(), origin: None, batches: Arc::new(vec![batch]) };
            self.gateway.send(broadcast).await.unwrap();
        }
    }
}

#[actix::test]
async fn history_joins_live_without_gap_or_duplicate_while_events_pour_in() {
    let bench = Bench::new(2, 1 << 20, 1000);
    bench.count(0..3000, 20).await;
    let mut readers = Vec::new();
    for n in 0..40 {
        let from = 3000 + n * 300;
        let wanted = 1 + (n * 37) % 2500;
        let client = bench.client(&format!("/ws?last={wanted}")).await;
        assert!(client.head.contains("\r\nX-Resume-Status: complete\r\n"), "{}", client.head);
        readers.push((from, wanted, actix_rt::task::spawn_blocking(move || numbers(client, 14_999))));
        bench.count(from..from + 300, 20).await;
    }
    for (from, wanted, reader) in readers {
        let got = reader.await.unwrap();
        // What was broadcast before the client connected, and perhaps a little of what came meanwhile.
        assert!((from - wanted..from).contains(&got[0]), "{} {from} {wanted}", got[0]);
        assert_eq!(got, (got[0]..15_000).collect::<Vec<_>>());
    }
}

#[actix::test]
async fn a_stalled_client_reads_on_from_the_journal_and_comes_back_to_the_others() {
    let bench = Bench::new(1, 128 * 1024, 100);
    let stalled = bench.client("/ws").await;
    let good = bench.client("/ws").await;
    let last = 8_999;
    let reader = actix_rt::task::spawn_blocking(move || numbers(good, last));
    let before = METRICS.slow_clients.get(["replay"]);
    bench.count(0..6000, 3000).await; // 18 MB: more than sockets hold
    let after = || METRICS.slow_clients.get(["replay"]);
    until("the stalled client's change to the journal", || after() > before).await;
    let late = actix_rt::task::spawn_blocking(move || numbers(stalled, last));
    bench.count(6000..last + 1, 3000).await;
    assert_eq!(reader.await.unwrap(), (0..=last).collect::<Vec<_>>());
    assert_eq!(late.await.unwrap(), (0..=last).collect::<Vec<_>>());
}

#[actix::test]
async fn a_stalled_client_that_drops_the_oldest_misses_them_and_nothing_else() {
    let path = GatewayPath {
        backlog_bytes: 128 * 1024,
        slow_clients: SlowClients::DropOldest,
        ..GatewayPath::new("/ws")
    };
    let bench = Bench::with(1, path, 100);
    let stalled = bench.client("/ws").await;
    let good = bench.client("/ws").await;
    let read = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&read);
    let last = 5_999;
    let reader = actix_rt::task::spawn_blocking(move || {
        let mut good = good;
        for _ in 0..2000 {
            good.frame();
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    for n in 0..2000 {
        // The good client keeps up to within a few messages, which the backlog holds.
        until("the good client's next message", || read.load(Ordering::Relaxed) + 8 > n).await;
        bench.count(3 * n..3 * n + 3, 3000).await;
    }
    reader.await.unwrap();
    let late = actix_rt::task::spawn_blocking(move || numbers(stalled, last));
    let got = late.await.unwrap();
    assert!(got.len() < 5_000 && got[0] == 0, "{}", got.len());
    assert!(got.windows(2).all(|pair| pair[0] < pair[1]));
    // Whole messages, and one hole or a few, not crumbs.
    let holes = got.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count();
    assert!((1..20).contains(&holes), "{holes}");
}

#[actix::test]
async fn what_a_gateway_actor_took_with_it_is_read_from_the_journal() {
    let bench = Bench::new(1, 1 << 20, 100);
    let client = bench.client("/ws").await;
    bench.count(0..3, 1).await;
    bench.gateway.send(Flush).await.unwrap();
    // Appended, and lost before it was delivered.
    let entry = bench.directory.find("h", "/main/ws").unwrap().route.entry;
    let lost = Arc::new(vec![vec![event(b"3"), event(b"4")]]);
    entry.journal.append(Run { path: entry.key.clone(), origin: None, batches: lost }).unwrap();
    bench.count(5..9, 1).await;
    let got = client.with(|client| numbers(client, 8)).await;
    assert_eq!(got, (0..9).collect::<Vec<_>>());
}

/// Reads a response with server-sent events up to the one whose data ends the count.
fn streamed(mut io: TcpStream, last: usize) -> (String, Vec<(String, Vec<usize>)>) {
    io.set_read_timeout(Some(LIMIT)).unwrap();
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    let mark = format!("{last:0>8}]}}\n\n");
    // In the tail alone, behind which stands at most the end of a chunk and a comment.
    let is_end = |bytes: &[u8]| {
        let tail = &bytes[bytes.len().saturating_sub(mark.len() + 16)..];
        tail.windows(mark.len()).any(|window| window == mark.as_bytes())
    };
    while !is_end(&bytes) {
        let read = io.read(&mut part).unwrap();
        assert!(read > 0, "the response ended");
        bytes.extend_from_slice(&part[..read]);
    }
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    // The chunks of HTTP/1.1: a length, a line feed, so many bytes.
    let mut rest = body;
    let mut body = String::new();
    while let Some((len, after)) = rest.split_once("\r\n") {
        let len = usize::from_str_radix(len, 16).unwrap().min(after.len());
        body.push_str(&after[..len]);
        rest = after.get(len + 2..).unwrap_or_default();
    }
    let messages = body.split("\n\n").filter_map(|message| {
        let (id, data) = message.strip_prefix("id: ")?.split_once("\ndata: ")?;
        let inner = data.strip_prefix(r#"{"messages":["#)?.strip_suffix("]}")?;
        let numbers = inner.split(',').map(|n| n.trim_start_matches('0').parse().unwrap_or(0)).collect();
        Some((id.to_owned(), numbers))
    });
    let messages = messages.collect();
    (head.to_owned(), messages)
}

fn stream(address: SocketAddr, path: &str, headers: &str) -> TcpStream {
    let mut io = TcpStream::connect(address).unwrap();
    write!(io, "GET /main{path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n{headers}\r\n")
        .unwrap();
    io
}

#[actix::test]
async fn server_sent_events_resume_with_the_last_id_and_join_live() {
    let bench = Bench::new(2, 1 << 20, 100);
    let address = bench.address;
    bench.count(0..900, 8).await;
    let history = actix_rt::task::spawn_blocking(move || streamed(stream(address, "/ws?last=900", ""), 899));
    let (head, messages) = history.await.unwrap();
    assert!(
        head.contains("content-type: text/event-stream") && head.contains("x-resume-status: complete"),
        "{head}"
    );
    assert_eq!(
        messages.iter().flat_map(|(_, n)| n.clone()).collect::<Vec<_>>(),
        (0..900).collect::<Vec<_>>()
    );
    let (id, numbers) = messages[99].clone();
    let header = format!("Last-Event-ID: {id}\r\n");
    let live = actix_rt::task::spawn_blocking(move || streamed(stream(address, "/ws?last=5", &header), 2999));
    bench.count(900..3000, 8).await;
    let (_, messages) = live.await.unwrap();
    let got: Vec<_> = messages.iter().flat_map(|(_, n)| n.clone()).collect();
    assert_eq!(got, (numbers[2] + 1..3000).collect::<Vec<_>>());
}

#[actix::test]
async fn server_sent_events_begin_live_and_are_heard_by_those_who_ask_for_them_only() {
    let bench = Bench::new(1, 1 << 20, 100);
    let address = bench.address;
    bench.count(0..30, 8).await;
    let before = METRICS.event_streams.get();
    let io = stream(address, "/ws", "");
    until("the stream", || METRICS.event_streams.get() > before).await;
    bench.count(30..60, 8).await;
    let (_, messages) = actix_rt::task::spawn_blocking(move || streamed(io, 59)).await.unwrap();
    assert_eq!(
        messages.iter().flat_map(|(_, n)| n.clone()).collect::<Vec<_>>(),
        (30..60).collect::<Vec<_>>()
    );
    for (path, headers, status) in [
        ("/ws", "Accept: */*\r\n", "426"),
        ("/none", "Accept: text/event-stream\r\n", "404"),
        ("/ws?last=x", "Accept: text/event-stream\r\n", "400"),
        ("/ws", "Accept: text/event-stream\r\nOrigin: http://evil.example\r\n", "403"),
    ] {
        let answer = actix_rt::task::spawn_blocking(move || {
            let mut io = TcpStream::connect(address).unwrap();
            io.set_read_timeout(Some(LIMIT)).unwrap();
            write!(io, "GET /main{path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n").unwrap();
            let mut head = [0; 12];
            io.read_exact(&mut head).unwrap();
            String::from_utf8_lossy(&head).into_owned()
        });
        assert_eq!(answer.await.unwrap(), format!("HTTP/1.1 {status}"), "{path} {headers}");
    }
}

#[actix::test]
async fn a_stalled_event_stream_goes_on_where_it_was() {
    let bench = Bench::new(1, 128 * 1024, 100);
    let address = bench.address;
    let before = METRICS.event_streams.get();
    let io = stream(address, "/ws", "");
    until("the stream", || METRICS.event_streams.get() > before).await;
    bench.count(0..1500, 8000).await; // 12 MB
    bench.count(1500..1503, 8).await;
    let (_, messages) = actix_rt::task::spawn_blocking(move || streamed(io, 1502)).await.unwrap();
    assert_eq!(
        messages.iter().flat_map(|(_, n)| n.clone()).collect::<Vec<_>>(),
        (0..1503).collect::<Vec<_>>()
    );
}

#[actix::test]
async fn a_stop_ends_event_streams() {
    let bench = Bench::new(1, 1 << 20, 100);
    let before = METRICS.event_streams.get();
    let mut io = stream(bench.address, "/ws", "");
    until("the stream", || METRICS.event_streams.get() > before).await;
    bench.listener.stop(Duration::from_millis(50)).await;
    let end = actix_rt::task::spawn_blocking(move || {
        io.set_read_timeout(Some(LIMIT)).unwrap();
        let mut all = Vec::new();
        io.read_to_end(&mut all).map(|_| all)
    });
    assert!(String::from_utf8(end.await.unwrap().unwrap()).unwrap().contains("retry: 1000"));
}

/// A journal that commits when the test says so.
#[derive(Debug)]
struct Held {
    next: std::sync::Mutex<Position>,
    committed: watch::Sender<Position>,
}

impl journal::Journal for Held {
    fn append(&self, run: Run) -> Result<Appended, NotAppended> {
        let mut next = self.next.lock().unwrap();
        let position = *next;
        *next += run.batches.iter().map(|batch| batch.len() as u64).sum::<u64>();
        Ok(Appended { position, batches: run.batches })
    }

    fn room(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }

    fn committed(&self, _: &PathKey) -> Option<watch::Receiver<Position>> {
        Some(self.committed.subscribe())
    }

    fn find(&self, _: &PathKey, _: journal::Start) -> Result<journal::Found, journal::ReadError> {
        Err(journal::ReadError::Failed("on purpose".to_owned()))
    }

    fn read(
        &self,
        _: &PathKey,
        _: Position,
        _: journal::ReadLimit,
    ) -> Result<Vec<journal::Stored>, journal::ReadError> {
        Err(journal::ReadError::Failed("on purpose".to_owned()))
    }
}

fn held() -> (Bench, Arc<Held>) {
    let held = Arc::new(Held { next: Default::default(), committed: watch::Sender::new(0) });
    let paths = vec![GatewayPath::new("/ws")];
    let gateways =
        [Gateway { id: "main".into(), domain: None, allowed_origins: vec![], paths, is_stopped: false }];
    let journal = Arc::clone(&held) as Arc<dyn journal::Journal>;
    (Bench::over(1, &gateways, 100, &Journals::one(&gateways, &journal)), held)
}

#[actix::test]
async fn nothing_is_delivered_before_it_is_committed() {
    let (bench, held) = held();
    let client = bench.client("/ws").await;
    bench.broadcast("/ws", &[b"1", b"2"]).await;
    bench.broadcast("/ws", &[b"3"]).await;
    let mut quiet = client.io.try_clone().unwrap();
    let silence = actix_rt::task::spawn_blocking(move || {
        quiet.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let nothing = quiet.read(&mut [0]).is_err();
        quiet.set_read_timeout(Some(LIMIT)).unwrap();
        nothing
    });
    assert!(silence.await.unwrap(), "it came before it was committed");
    // Half of a run is not enough.
    held.committed.send_replace(1);
    held.committed.send_replace(2);
    let (client, first) = client
        .with(|mut client| {
            let frames = [client.frame().1, client.frame().1];
            (client, frames)
        })
        .await;
    assert_eq!(first, [b"1", b"2"]);
    held.committed.send_replace(3);
    assert_eq!(client.with(|mut client| client.frame().1).await, b"3");
}

#[actix::test]
async fn runs_that_wait_for_the_journal_are_bounded() {
    let (bench, held) = held();
    let client = bench.client("/ws").await;
    let mut sent = 0;
    while tokio::time::timeout(Duration::from_millis(200), bench.count(sent..sent + 1, 1)).await.is_ok() {
        sent += 1;
        assert!(sent < 10 * PENDING, "nothing holds the batches back");
    }
    assert!(sent >= PENDING - 1, "{sent}");
    held.committed.send_replace(1_000_000);
    let got = client.with(move |client| numbers(client, sent - 1)).await;
    assert_eq!(got, (0..sent).collect::<Vec<_>>());
}

#[actix::test]
async fn a_journal_that_cannot_be_read_refuses_who_asks_for_history_and_nobody_else() {
    let (bench, _held) = held();
    assert!(bench.client("/ws?last=3").await.head.starts_with("HTTP/1.1 503 "));
    assert!(bench.client("/ws").await.head.starts_with("HTTP/1.1 101 "));
}

#[actix::test]
async fn small_messages_do_not_wait_for_the_acknowledgement_of_earlier_ones() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let io = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    assert!(!io.nodelay().unwrap());
    tune(&io);
    assert!(io.nodelay().unwrap());
}

/// What a client gets when two events that were broadcast are not delivered to its worker: before or after it has got
/// something live.
async fn with_something_lost(policy: SlowClients, query: &'static str, live_first: bool) -> Vec<usize> {
    let path = GatewayPath { slow_clients: policy, ..GatewayPath::new("/ws") };
    let bench = Bench::with(1, path, 100);
    bench.count(0..3, 1).await;
    let client = bench.client(&format!("/ws{query}")).await;
    let mut next = 3;
    let mut io = client.io.try_clone().unwrap();
    if live_first {
        bench.count(3..6, 1).await;
        next = 6;
    }
    if live_first || !query.is_empty() {
        // It has what it can have, and waits for more.
        let arrived = actix_rt::task::spawn_blocking(move || io.peek(&mut [0]).unwrap());
        assert_eq!(arrived.await.unwrap(), 1);
        io = client.io.try_clone().unwrap();
    }
    let entry = bench.directory.find("h", "/main/ws").unwrap().route.entry;
    let lost =
        Arc::new(vec![vec![event(next.to_string().as_bytes()), event((next + 1).to_string().as_bytes())]]);
    entry.journal.append(Run { path: entry.key.clone(), origin: None, batches: lost }).unwrap();
    bench.count(next + 2..next + 5, 1).await;
    drop(io);
    client.with(move |client| numbers(client, next + 4)).await
}

#[actix::test]
async fn what_was_not_delivered_is_found_by_clients_in_every_state() {
    use SlowClients::{DropOldest, Replay};
    assert_eq!(with_something_lost(Replay, "?last=3", false).await, (0..8).collect::<Vec<_>>());
    assert_eq!(with_something_lost(Replay, "", false).await, (3..8).collect::<Vec<_>>());
    assert_eq!(with_something_lost(DropOldest, "", true).await, (3..11).collect::<Vec<_>>());
    assert_eq!(with_something_lost(DropOldest, "?last=1", true).await, (2..11).collect::<Vec<_>>());
}

#[actix::test]
async fn who_begins_with_the_oldest_is_served_though_retention_goes_on() {
    let retention = crate::model::gateway::Retention { events: 3000, ..Default::default() };
    let bench = Bench::with(2, GatewayPath { retention, ..GatewayPath::new("/ws") }, 1000);
    bench.count(0..6000, 20).await;
    let address = bench.address;
    let readers: Vec<_> = (0..40)
        .map(|_| {
            actix_rt::task::spawn_blocking(move || {
                let client = Client::connect(address, "/ws?last=1000000");
                numbers(client, 7_199)
            })
        })
        .collect();
    for n in 0..400 {
        bench.count(6000 + 3 * n..6003 + 3 * n, 20).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for reader in readers {
        let got = reader.await.unwrap();
        assert!(got.len() >= 1000 && got.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{}", got.len());
    }
}
