//! The gateway over real sockets: actor, workers and sessions together.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use super::*;
use crate::model::gateway::{Gateway, GatewayPath};

const LIMIT: Duration = Duration::from_secs(10);

struct Bench {
    address: SocketAddr,
    listener: Listener,
    gateway: Addr<GatewayActor>,
}

impl Bench {
    fn new(workers: usize, backlog_bytes: usize, max_connections: usize) -> Self {
        let path = |path: &str| GatewayPath { path: path.into(), backlog_bytes };
        let gateway = Gateway {
            id: "main".into(),
            domain: None,
            allowed_origins: vec![],
            paths: vec![path("/ws"), path("/other")],
        };
        let directory = Arc::new(Directory::new(&[gateway], max_connections));
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let listener = Listener::start(socket, workers, Arc::clone(&directory)).unwrap();
        let gateway = GatewayActor::new("main".into(), directory, listener.workers()).start();
        Self { address, listener, gateway }
    }

    async fn client(&self, path: &str) -> Client {
        let (address, path) = (self.address, path.to_owned());
        actix_rt::task::spawn_blocking(move || Client::connect(address, &path)).await.unwrap()
    }

    async fn broadcast(&self, path: &str, texts: &[&[u8]]) {
        let texts = texts.iter().map(|text| Bytes::copy_from_slice(text)).collect();
        self.gateway.send(Broadcast { path: path.into(), texts }).await.unwrap();
    }
}

/// A client that knows just enough of RFC 6455 to read server frames.
struct Client {
    io: TcpStream,
    head: String,
}

impl Client {
    fn connect(address: SocketAddr, path: &str) -> Self {
        let mut io = TcpStream::connect(address).unwrap();
        io.set_read_timeout(Some(LIMIT)).unwrap();
        write!(
            io,
            "GET /main{path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
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

    fn frame(&mut self) -> (u8, Vec<u8>) {
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
    let bench = Bench::new(1, 256 * 1024, 100);
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
    let bench = Bench::new(1, 64 << 20, 100);
    let client = bench.client("/ws").await;
    let text = vec![b'x'; 30_000];
    for _ in 0..400 {
        bench.broadcast("/ws", &[&text]).await;
    }
    let before = METRICS.websocket_closed.get_or_create(&telemetry::Reason { reason: "control_flood" }).get();
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
    let after =
        || METRICS.websocket_closed.get_or_create(&telemetry::Reason { reason: "control_flood" }).get();
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
    let broadcast = || Broadcast { path: "/ws".into(), texts: vec![] };
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
        let broadcast = Broadcast { path: "/ws".into(), texts: vec![Bytes::from(n.to_string())] };
        // Far faster than a worker writes: the shard's mailbox is full most of the time.
        bench.gateway.send(broadcast).await.unwrap();
    }
    assert_eq!(reader.await.unwrap(), (0..count).collect::<Vec<_>>());
}
