//! Sessions under TLS, over real sockets: the same as plain ones.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::{Actor, Addr};
use actix_rt::task::spawn_blocking;
use bytes::Bytes;

use crate::gateway::{Broadcast, Directory, GatewayActor, Listener, Outbound, Port, PublicLimits};
use crate::journal::Journals;
use crate::model::event::Event;
use crate::model::event_id;
use crate::model::gateway::{Gateway, GatewayPath, SlowClients};
use crate::tls::tests::{Client, certificate, connect, pair};
use crate::tls::{Acceptor, Clients};

const LIMIT: Duration = Duration::from_secs(10);

struct Bench {
    address: std::net::SocketAddr,
    trusted: String,
    listener: Listener,
    gateway: Addr<GatewayActor>,
}

impl Bench {
    fn new(path: GatewayPath) -> Self {
        let gateways = [Gateway { paths: vec![path], ..Gateway::new("main") }];
        let (limits, outbound) = (PublicLimits::for_tests(100), Outbound::for_tests(&[]));
        let journals = Journals::in_memory(&gateways);
        let directory = Arc::new(Directory::new(&gateways, limits, &journals, outbound));
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let pair = pair("localhost");
        let tls = Acceptor::new(certificate(&pair), Clients::Unknown, &["http/1.1"]).unwrap();
        let port = Port { tls: Some(tls), ..Port::default() };
        let listener = Listener::start_as(port, socket, 1, Arc::clone(&directory)).unwrap();
        let gateway = GatewayActor::new("main".into(), directory, listener.workers()).start();
        Self { address, trusted: pair.0, listener, gateway }
    }

    async fn client(&self) -> Client {
        let (address, trusted) = (self.address, self.trusted.clone());
        let connect = move || {
            let mut client = connect(address, &trusted, None).unwrap();
            let request = format!(
                "GET /main/ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            );
            // In one record with the first frame, a ping: it must not be lost with the HTTP layer.
            let early = [request.as_bytes(), &[0x89, 0x82, 0, 0, 0, 0, b'h', b'i']].concat();
            client.write_all(&early).unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            assert!(head.starts_with(b"HTTP/1.1 101 "));
            assert_eq!(frame(&mut client), (0x8a, b"hi".to_vec()));
            client
        };
        spawn_blocking(connect).await.unwrap()
    }

    async fn broadcast(&self, batches: Vec<Vec<Event>>) {
        let broadcast = Broadcast { path: "/ws".into(), origin: None, batches: Arc::new(batches) };
        self.gateway.send(broadcast).await.unwrap();
    }
}

fn event(json: Vec<u8>) -> Event {
    Event { id: event_id::next(SystemTime::now()), json: Bytes::from(json) }
}

fn frame(client: &mut impl Read) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    client.read_exact(&mut head).unwrap();
    let len = match head[1] {
        126 => {
            let mut len = [0; 2];
            client.read_exact(&mut len).unwrap();
            usize::from(u16::from_be_bytes(len))
        }
        len => usize::from(len),
    };
    let mut payload = vec![0; len];
    client.read_exact(&mut payload).unwrap();
    (head[0], payload)
}

/// The number that an event of [`numbered`] begins with.
fn number(message: &[u8]) -> usize {
    let text = std::str::from_utf8(message).unwrap();
    let digits = text.trim_start_matches("{\"messages\":[").split('.').next().unwrap();
    digits.parse().unwrap()
}

fn numbered(number: usize, len: usize) -> Event {
    event([format!("{number}.").into_bytes(), vec![b'0'; len]].concat())
}

#[actix::test]
async fn messages_come_in_order_through_a_full_socket_and_the_close_is_heard() {
    let bench = Bench::new(GatewayPath::new("/ws"));
    let mut client = bench.client().await;
    // More than the buffers of the kernel and ours hold, before the first is read.
    for round in 0..40 {
        bench.broadcast((0..10).map(|i| vec![numbered(round * 10 + i, 30_000)]).collect()).await;
    }
    let reading = spawn_blocking(move || {
        for expected in 0..400 {
            let (opcode, message) = frame(&mut client);
            assert_eq!((opcode, number(&message)), (0x81, expected));
        }
        // Unmasked: a violation, which is answered with 1002 and the end under TLS.
        client.write_all(&[0x81, 0x01, b'x']).unwrap();
        let (opcode, close) = frame(&mut client);
        assert_eq!((opcode, &close[..2]), (0x88, &[0x03, 0xea][..]));
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    });
    tokio::time::timeout(LIMIT, reading).await.unwrap().unwrap();
    bench.listener.stop(Duration::ZERO).await;
}

#[actix::test]
async fn who_never_reads_is_closed_and_holds_up_nobody() {
    let path = GatewayPath {
        backlog_bytes: 100_000,
        slow_clients: SlowClients::Disconnect,
        ..GatewayPath::new("/ws")
    };
    let bench = Bench::new(path);
    let mut stuck = bench.client().await;
    let mut good = bench.client().await;
    for round in 0..400 {
        bench.broadcast(vec![vec![numbered(round, 30_000)]]).await;
        let read = spawn_blocking(move || {
            let (_, message) = frame(&mut good);
            assert_eq!(number(&message), round);
            good
        });
        good = tokio::time::timeout(LIMIT, read).await.unwrap().unwrap();
    }
    // It gets whole messages in order, and then the close frame: 1013.
    let reading = spawn_blocking(move || {
        for expected in 0.. {
            match frame(&mut stuck) {
                (0x81, message) => assert_eq!(number(&message), expected),
                close => return (expected, close),
            }
        }
        unreachable!("it ends");
    });
    let (messages, (opcode, close)) = tokio::time::timeout(LIMIT, reading).await.unwrap().unwrap();
    assert_eq!((opcode, &close[..2]), (0x88, &[0x03, 0xf5][..]));
    assert!(messages < 400, "it missed none of {messages}");
    bench.listener.stop(Duration::ZERO).await;
}
