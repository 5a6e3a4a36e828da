//! Many clients with filters on one worker, most of which do not read: what they cost, and whom they hold up.

use std::io::ErrorKind;

use actix_rt::task::spawn_blocking;
use bytes::BytesMut;

use super::*;
use crate::gateway::clients::Guest;
use crate::gateway::crowd::Party;
use crate::gateway::filter::Filter;
use crate::gateway::socket::Arrival;
use crate::gateway::view::View;

/// A worker on this thread. What it is told is in the journal first.
struct Worker {
    shard: Rc<Shard>,
    actor: Addr<ShardActor>,
    directory: Directory,
    entry: Arc<PathEntry>,
    /// Everything that was broadcast, as each client gets it.
    all: Vec<u8>,
}

impl Worker {
    fn new(backlog_bytes: usize) -> Self {
        let path = GatewayPath { backlog_bytes, ..GatewayPath::new("/ws") };
        let gateways = [Gateway { paths: vec![path], ..Gateway::new("main") }];
        let (limits, outbound) = (PublicLimits::for_tests(1000), Outbound::for_tests(&[]));
        let directory = Directory::new(&gateways, limits, &Journals::in_memory(&gateways), outbound);
        let entry = directory.find("h", "/main/ws").unwrap().route.entry;
        let shard = Shard::new(0, Arc::default());
        let actor = ShardActor::new(Rc::clone(&shard)).start();
        Self { shard, actor, directory, entry, all: Vec::new() }
    }

    /// A client whose socket holds little.
    fn client(&self, query: &str) -> TcpStream {
        let route = self.directory.find("h", "/main/ws").unwrap().route;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        client.set_recv_buffer_size(4096).unwrap();
        client.connect(&listener.local_addr().unwrap().into()).unwrap();
        let (server, _) = listener.accept().unwrap();
        socket2::SockRef::from(&server).set_send_buffer_size(4096).unwrap();
        server.set_nonblocking(true).unwrap();
        let server = Io::Plain(tokio::net::TcpStream::from_std(server).unwrap());
        let view =
            View { format: Format::WebSocket, filter: Filter::read(query).ok().unwrap().map(Arc::new) };
        let place = self.directory.take_place(&route, Party::default()).unwrap();
        let entered = self.shard.enter(&route.entry, &view, place).unwrap();
        let arrival =
            Arrival { route, guest: Guest::new(None), visit: None, answer: Bytes::new(), start: None };
        self.shard.adopt(server, entered, BytesMut::new(), arrival);
        client.into()
    }

    /// As many clients, each with another filter, that want everything.
    fn stalled(&self, range: std::ops::Range<usize>) -> Vec<TcpStream> {
        range.map(|n| self.client(&format!("device=d&device=x{n}"))).collect()
    }

    /// Broadcasts one event of about so many bytes.
    fn broadcast(&mut self, len: usize) {
        let json =
            format!(r#"{{"details":{{"device_id":"d"}},"n":{},"x":"{}"}}"#, self.all.len(), "x".repeat(len));
        let batches = Arc::new(vec![vec![event(json.as_bytes())]]);
        let run = Run { path: self.entry.key.clone(), origin: None, batches };
        let run = self.entry.journal.append(run).unwrap();
        let segments = Segment::encode(Format::WebSocket, run.position, [&run.batches[0][..]]);
        segments.iter().for_each(|segment| self.all.extend_from_slice(&segment.bytes));
        let events = Content::Events(Arc::new(Unencoded::new(vec![run], 0)));
        for content in [Content::Messages(Format::WebSocket, segments), events] {
            let deliver = Deliver { path: self.entry.key.clone(), content };
            self.actor.try_send(deliver).unwrap();
        }
    }

    /// Lets the worker work, without a timer, until `client` has all that was broadcast.
    async fn until_all_is_at(&self, client: &mut TcpStream, got: &mut Vec<u8>) {
        client.set_nonblocking(true).unwrap();
        let (start, mut part) = (Instant::now(), [0; 65_536]);
        while got.len() < self.all.len() {
            assert!(start.elapsed() < LIMIT, "{} of {} bytes came", got.len(), self.all.len());
            tokio::task::yield_now().await;
            match client.read(&mut part) {
                Ok(read) => got.extend_from_slice(&part[..read]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        assert!(*got == self.all);
    }

    /// All that was broadcast comes to `client`, once and in order.
    async fn read_all(&self, mut client: TcpStream) {
        let len = self.all.len();
        let read = spawn_blocking(move || {
            client.set_nonblocking(false).unwrap();
            client.set_read_timeout(Some(LIMIT)).unwrap();
            let mut got = vec![0; len];
            client.read_exact(&mut got).map(|()| got)
        });
        assert!(read.await.unwrap().unwrap() == self.all);
    }

    /// Lets the worker work until it has nothing to do.
    async fn until_it_rests(&self) {
        for _ in 0..2000 {
            tokio::task::yield_now().await;
        }
    }

    /// What the rings of filters hold together, and the largest of them.
    fn kept(&self) -> (usize, usize) {
        let views = self.shard.views(&self.entry.key);
        let rings = views.iter().filter(|path| path.feed.view.filter.is_some());
        let sizes: Vec<_> = rings.map(|path| path.feed.ring.borrow().len()).collect();
        (sizes.iter().sum(), sizes.into_iter().max().unwrap_or(0))
    }
}

#[actix::test]
async fn clients_with_filters_that_do_not_read_share_one_backlog() {
    const BACKLOG: usize = 1 << 20;
    let mut worker = Worker::new(BACKLOG);
    let mut open = worker.stalled(0..4);
    for _ in 0..40 {
        worker.broadcast(60_000);
        worker.until_it_rests().await;
    }
    let (all, largest) = worker.kept();
    assert!((BACKLOG / 2..=BACKLOG).contains(&all) && largest <= BACKLOG / 4, "{all} {largest}");
    // More filters leave less to each, at the next tick at the latest.
    open.extend(worker.stalled(4..8));
    for path in worker.shard.views(&worker.entry.key) {
        path.tick(1);
    }
    assert!(worker.kept().1 <= BACKLOG / 8, "{:?}", worker.kept());
    for _ in 0..40 {
        worker.broadcast(60_000);
        worker.until_it_rests().await;
        assert!(worker.kept().0 <= BACKLOG, "{:?}", worker.kept());
    }
}

#[actix::test]
async fn clients_with_filters_that_do_not_read_hold_up_nobody_without_one_and_miss_nothing() {
    let mut worker = Worker::new(256 * 1024);
    let stalled = worker.stalled(0..60);
    let (mut plain, mut got) = (worker.client(""), Vec::new());
    // The clock stands still, so that nobody waits for any time to pass.
    tokio::time::pause();
    for _ in 0..40 {
        worker.broadcast(30_000);
        worker.until_all_is_at(&mut plain, &mut got).await;
    }
    tokio::time::resume();
    for client in stalled {
        worker.read_all(client).await;
    }
}

#[actix::test]
async fn when_filters_take_too_long_their_clients_read_from_the_journal_and_nobody_waits() {
    let mut worker = Worker::new(64 << 20);
    let (plain, filtered, late) = (worker.client(""), worker.client("device=d"), worker.client("topic=x"));
    worker.broadcast(10);
    worker.until_it_rests().await;
    // Their task has no turn between these.
    let before = METRICS.filters_behind.get();
    while worker.all.len() < waiting::WAITING_BYTES + 1_000_000 {
        worker.broadcast(1_000_000);
    }
    until("filters that take too long", || METRICS.filters_behind.get() > before).await;
    worker.broadcast(10);
    for client in [plain, filtered] {
        worker.read_all(client).await;
    }
    late.set_nonblocking(true).unwrap();
    let read = (&late).read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(read, Err(ErrorKind::WouldBlock), "nothing is for it");
}
