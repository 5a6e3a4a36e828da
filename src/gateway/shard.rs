//! The shard: everything of the gateways that lives on one worker thread.
//!
//! [`Shard`] holds the ring and the sessions of every path; the upgrade service adds sessions, their
//! tasks remove them. [`ShardActor`] is its mailbox: GatewayActors send it encoded frames, and events that are
//! encoded here for clients with filters; the server tells it to close. It holds [`MAILBOX`] messages; when it
//! is full the GatewayActor waits. All frames that wait in the mailbox are joined and written together; while it
//! writes it takes nothing new. Events for filters wait elsewhere ([`Waiting`]) and are written by a task of their
//! own, so that clients without a filter, and publishers, do not wait for those who have one.

use std::cell::{Cell, RefCell};
use std::panic::AssertUnwindSafe;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::BytesMut;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

use super::clients::{Client, Clients};
use super::close::Close;
use super::directory::{PathEntry, Place};
use super::hooks::Visit;
use super::path::Path;
use super::paths::Paths;
use super::refusal::Refusal;
use super::replay::Begin;
use super::segment::{Format, Segment};
use super::session;
use super::socket::{Arrival, Session};
use super::stream::Body;
use super::view::{Unencoded, View};
use super::waiting::Waiting;
use crate::model::gateway::PathKey;
use crate::telemetry::{self, METRICS};
use crate::tls::Io;

/// Messages that may wait in the mailbox. One holds at most the batches of one group of events.
pub(super) const MAILBOX: usize = 32;
/// Clients of a worker that are given pieces of the journal at a time. The others wait: however many come back
/// together, live delivery comes in between after so many pieces.
const TURNS: usize = 8;
/// How often the worker's clock moves.
const TICK: Duration = Duration::from_secs(1);
/// Closings of a drain come in steps of this length.
const DRAIN_STEP: Duration = Duration::from_millis(20);
/// Filters that are held against what is pending before other tasks of the worker have their turn.
const FILTERS: usize = 8;

/// The paths and sessions of one worker.
pub(super) struct Shard {
    worker: usize,
    paths: RefCell<Paths>,
    started: Instant,
    clock: Rc<Cell<u32>>,
    turns: Arc<Semaphore>,
    /// Events for clients with filters.
    waiting: RefCell<Waiting>,
    /// The task that writes them, while there are any.
    filtering: RefCell<Option<JoinHandle<()>>>,
    stopping: Cell<bool>,
    clients: Arc<Clients>,
}

impl Shard {
    /// The shard of the worker with this number, without sessions. They are entered among `clients`.
    pub(super) fn new(worker: usize, clients: Arc<Clients>) -> Rc<Self> {
        Rc::new(Self {
            worker,
            paths: RefCell::default(),
            started: Instant::now(),
            clock: Rc::default(),
            turns: Arc::new(Semaphore::new(TURNS)),
            waiting: RefCell::default(),
            filtering: RefCell::default(),
            stopping: Cell::new(false),
            clients,
        })
    }

    /// Whether new sessions are refused.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Counts a client in before its request is answered: from here on what is broadcast on the path comes to this
    /// worker. It counts until the ticket is dropped, or what it has become has ended.
    pub(super) fn enter(
        &self,
        entry: &Arc<PathEntry>,
        view: &View,
        place: Place,
    ) -> Result<Entered, Refusal> {
        let new = |room| Path::new(entry, view.clone(), room, &self.clock, &self.turns, self.worker);
        let mut paths = self.paths.borrow_mut();
        let path = paths.open(&entry.key, entry.backlog().bytes, view, new).ok_or(Refusal::Filters)?;
        entry.enter(view, self.worker);
        Ok(Entered { path, worker: self.worker, place: Some(place) })
    }

    /// Makes a session of an upgraded socket. `early` are bytes that the client sent behind its request. From here on
    /// every message of the path reaches it; those of the journal from where it begins come before.
    pub(super) fn adopt(self: &Rc<Self>, io: Io, entered: Entered, early: BytesMut, arrival: Arrival) {
        let path = Rc::clone(&entered.path);
        METRICS.websocket_connections.inc();
        path.entry.meter.connect();
        path.expect();
        let Some(place) = entered.keep() else { return };
        let session = Rc::new(Session::new(io, Rc::clone(&path.feed), place, arrival));
        let key = path.insert(Rc::clone(&session));
        let (worker, view) = (self.worker as u16, path.number);
        let known = Client { path: Arc::clone(&path.entry), worker, view, key: key as u32 };
        self.clients.enter(session.guest.id, known);
        let shard = Rc::clone(self);
        let leave = move |session: &Session| shard.leave(&path, key, session);
        actix_rt::spawn(session::Run::new(session, early, leave));
    }

    /// Makes the body of a response with server-sent events, in the same way. It ends after `lasts`.
    pub(super) fn stream(
        &self,
        entered: Entered,
        visit: Option<Visit>,
        start: Option<Begin>,
        lasts: Duration,
    ) -> Option<Body> {
        let path = Rc::clone(&entered.path);
        Some(Body::new(path, self.worker, visit, start, lasts, entered.keep()?))
    }

    /// Forgets a session that has ended.
    fn leave(&self, path: &Path, key: usize, session: &Session) {
        path.remove(key);
        self.clients.leave(&session.guest.id);
        path.entry.leave(&path.feed.view, self.worker);
        METRICS.websocket_connections.dec();
        path.entry.meter.disconnect();
        telemetry::count(&METRICS.websocket_closed, session.ended_as());
        tracing::debug!(connection = %session.guest.id, path = %path.entry.key, reason = session.ended_as(), "closed");
    }

    /// A path that has, or had, clients here, in every view.
    pub(super) fn views(&self, key: &PathKey) -> Vec<Rc<Path>> {
        self.paths.borrow().views(key)
    }

    /// The session with this id, by the number of its view and its key there.
    pub(super) fn session(&self, path: &PathKey, view: u16, key: u32, id: Uuid) -> Option<Rc<Session>> {
        self.paths.borrow().session(path, view, key, id)
    }

    /// Has events written to clients with filters, soon. When too many wait, clients find the older ones in the journal.
    fn filter(self: &Rc<Self>, key: &PathKey, events: Arc<Unencoded>) {
        // Without it no client of this path has a filter here any more.
        if !self.paths.borrow().has_filters(key) {
            return;
        }
        if !self.waiting.borrow_mut().push(key, events) {
            tracing::debug!(path = %key, "filters take too long; their clients read on from the journal");
            METRICS.filters_behind.inc();
        }
        let mut filtering = self.filtering.borrow_mut();
        // Also after a panic there is a task again.
        if filtering.as_ref().is_none_or(JoinHandle::is_finished) {
            *filtering = Some(actix_rt::spawn(write_filtered(Rc::clone(self))));
        }
    }

    /// Whether events wait for filters, or are being written.
    fn is_filtering(&self) -> bool {
        self.filtering.borrow().as_ref().is_some_and(|task| !task.is_finished())
    }

    fn all_paths(&self) -> Vec<Rc<Path>> {
        self.paths.borrow().all().cloned().collect()
    }

    fn sessions(&self) -> usize {
        self.paths.borrow().all().map(|path| path.len()).sum()
    }

    fn tick(&self) {
        self.clock.set(self.started.elapsed().as_secs() as u32);
        self.paths.borrow_mut().sweep();
        for path in self.all_paths() {
            path.tick(self.clock.get());
        }
    }
}

/// A client that is counted on a worker and does not listen yet.
pub(super) struct Entered {
    path: Rc<Path>,
    worker: usize,
    /// Taken by what the client becomes, which then counts itself out.
    place: Option<Place>,
}

impl Entered {
    fn keep(mut self) -> Option<Place> {
        self.place.take()
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.place.is_some() {
            self.path.entry.leave(&self.path.feed.view, self.worker);
        }
    }
}

/// The mailbox of a worker's shard.
pub(super) struct ShardActor {
    shard: Rc<Shard>,
    /// Frames that came since the last write, by path, in order.
    pending: Vec<(Rc<Path>, Vec<Segment>)>,
    /// Messages that came since then: at most twice the mailbox.
    delivers: usize,
    /// Some of them were for clients with filters.
    has_events: bool,
}

/// Writes messages to every client of a path on this worker.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub(super) struct Deliver {
    /// The path.
    pub(super) path: PathKey,
    /// What is written.
    pub(super) content: Content,
}

/// What clients are to get.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// Whole messages, for clients of this format without a filter.
    Messages(Format, Vec<Segment>),
    /// Events, for clients with filters.
    Events(Arc<Unencoded>),
}

/// Refuses new sessions and closes all with [`Close::Restart`] after what is queued has been sent, spread
/// over a time. The reply comes when none is left; those that do not take their frames are reset.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub(super) struct CloseAll {
    /// The closings are spread over this time.
    pub(super) spread: Duration,
    /// Sessions that are left this long after their closing are reset.
    pub(super) patience: Duration,
}

impl ShardActor {
    /// The actor for `shard`; start it on the shard's own thread.
    pub(super) fn new(shard: Rc<Shard>) -> Self {
        Self { shard, pending: Vec::new(), delivers: 0, has_events: false }
    }

    /// What it is the mailbox of.
    pub(super) fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Writes what is pending. The mailbox waits meanwhile, so that it fills, and says so to the gateways.
    fn write_pending(&mut self, ctx: &mut Context<Self>) {
        let pending = std::mem::take(&mut self.pending);
        let has_events = std::mem::take(&mut self.has_events);
        if std::mem::take(&mut self.delivers) == 0 {
            return;
        }
        let write = async move {
            for (path, segments) in pending {
                write(&path, path.write(segments)).await;
            }
            if has_events {
                // Those who have filters have a turn before more is taken.
                tokio::task::yield_now().await;
            }
        };
        ctx.wait(write.into_actor(self));
    }
}

/// Writes events to clients with filters until none wait.
async fn write_filtered(shard: Rc<Shard>) {
    loop {
        let Some((key, events)) = shard.waiting.borrow_mut().next() else { return };
        let views = shard.paths.borrow().filtered(&key);
        for (n, path) in views.iter().filter(|path| path.len() > 0).enumerate() {
            let encoded = || events.iter().flat_map(|events| events.encode(&path.feed.view));
            write(path, async { path.write(encoded().collect()).await }).await;
            if n % FILTERS == FILTERS - 1 {
                tokio::task::yield_now().await;
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Writes to the clients of a path, and contains a panic in it.
async fn write(path: &Path, work: impl Future<Output = ()>) {
    if futures_util::FutureExt::catch_unwind(AssertUnwindSafe(work)).await.is_err() {
        tracing::error!(path = %path.entry.key, "a panic while writing was contained; please report it");
        METRICS.count_panic("ShardActor");
    }
}

impl Actor for ShardActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        // A task of its own: the actor's timers stand still while it writes.
        actix_rt::spawn(run_clock(Rc::downgrade(&self.shard)));
    }
}

impl Handler<Deliver> for ShardActor {
    type Result = ();

    fn handle(&mut self, deliver: Deliver, ctx: &mut Self::Context) {
        let Deliver { path: key, content } = deliver;
        if self.delivers == 0 {
            // Futures run after the mailbox is empty: all that waits there is written together.
            ctx.spawn(actix::fut::ready(()).map(|(), actor: &mut Self, ctx| actor.write_pending(ctx)));
        }
        self.delivers += 1;
        match content {
            Content::Messages(format, segments) => {
                let paths = self.shard.paths.borrow();
                // Without it no client of this path listens here yet.
                if let Some(path) = paths.plain(&key, format) {
                    match self.pending.iter_mut().find(|(known, _)| Rc::ptr_eq(known, path)) {
                        Some((_, pending)) => pending.extend(segments),
                        None => self.pending.push((Rc::clone(path), segments)),
                    }
                }
            }
            Content::Events(events) => {
                self.has_events = true;
                self.shard.filter(&key, events);
            }
        }
        if self.delivers >= 2 * MAILBOX {
            // Gateways refill the mailbox as fast as it is emptied: what is here goes first.
            self.write_pending(ctx);
        }
    }
}

impl Handler<CloseAll> for ShardActor {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, close: CloseAll, _: &mut Self::Context) -> Self::Result {
        self.shard.stopping.set(true);
        let shard = Rc::clone(&self.shard);
        Box::pin(async move { close_all(&shard, close).await }.into_actor(self))
    }
}

async fn run_clock(shard: Weak<Shard>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        interval.tick().await;
        let Some(shard) = shard.upgrade() else { return };
        telemetry::contain("ShardActor", || shard.tick());
    }
}

async fn close_all(shard: &Shard, close: CloseAll) {
    let deadline = Instant::now() + close.patience;
    while shard.is_filtering() && Instant::now() < deadline {
        tokio::time::sleep(DRAIN_STEP).await;
    }
    shard.all_paths().iter().for_each(|path| path.end_streams());
    let sessions: Vec<Rc<Session>> = shard.all_paths().iter().flat_map(|path| path.sessions()).collect();
    let steps = (close.spread.as_millis() / DRAIN_STEP.as_millis()).max(1) as usize;
    let seconds = close.patience.as_secs() as u32 + 1;
    for group in sessions.chunks(sessions.len().div_ceil(steps).max(1)) {
        for session in group {
            session.drain(Close::Restart, seconds);
        }
        tokio::time::sleep(DRAIN_STEP).await;
    }
    drop(sessions);
    let deadline = Instant::now() + close.patience;
    while shard.sessions() > 0 && Instant::now() < deadline {
        tokio::time::sleep(DRAIN_STEP).await;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream as StdStream};
    use std::pin::Pin;
    use std::sync::atomic::{AtomicBool, Ordering};

    use socket2::SockRef;
    use tokio::sync::watch;

    use super::*;
    use bytes::Bytes;

    use crate::gateway::clients::Guest;
    use crate::gateway::crowd::Party;
    use crate::gateway::directory::{Directory, PublicLimits};
    use crate::gateway::frame;
    use crate::gateway::outbound::Outbound;
    use crate::gateway::segment::tests::batch;
    use crate::journal::{
        Appended, Found, Journal, Journals, NotAppended, Position, ReadError, ReadLimit, Run, Start, Stored,
    };
    use crate::model::gateway::{Gateway, GatewayPath};
    use crate::model::limits::Limits;

    /// A shard on this thread, where the test stops the clock, and one session with its client's socket.
    struct Bench {
        shard: Rc<Shard>,
        actor: Addr<ShardActor>,
        client: StdStream,
        started: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let paths = vec![GatewayPath::new("/ws")];
            let gateway = [Gateway { paths, ..Gateway::new("main") }];
            let directory = Directory::new(
                &gateway,
                PublicLimits::for_tests(10),
                &Journals::in_memory(&gateway),
                Outbound::for_tests(&[]),
            );
            let route = directory.find("h", "/main/ws").unwrap().route;
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let client = StdStream::connect(listener.local_addr().unwrap()).unwrap();
            client.set_nonblocking(true).unwrap();
            let (server, _) = listener.accept().unwrap();
            server.set_nonblocking(true).unwrap();
            let server = Io::Plain(tokio::net::TcpStream::from_std(server).unwrap());
            tokio::time::pause();
            let shard = Shard::new(0, Arc::default());
            let actor = ShardActor::new(Rc::clone(&shard)).start();
            let place = directory.take_place(&route, Party::default()).unwrap();
            let entered = shard.enter(&route.entry, &Format::WebSocket.into(), place).unwrap();
            let answer = Bytes::from_static(b"101");
            let arrival = Arrival { route, guest: Guest::new(None), visit: None, answer, start: None };
            shard.adopt(server, entered, BytesMut::new(), arrival);
            Self { shard, actor, client, started: Instant::now() }
        }

        /// What the client's socket holds.
        fn received(&mut self) -> Vec<u8> {
            let mut all = Vec::new();
            let mut part = [0; 1024];
            while let Ok(read) = self.client.read(&mut part) {
                if read == 0 {
                    break;
                }
                all.extend_from_slice(&part[..read]);
            }
            all
        }

        /// Lets a second pass, again and again, and calls `each` with the seconds that have passed, until
        /// the session has ended. Returns the seconds.
        async fn seconds_to_live(&mut self, mut each: impl FnMut(&mut Self, u64)) -> u64 {
            while self.shard.sessions() > 0 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let seconds = self.started.elapsed().as_secs();
                assert!(seconds < 5000, "the session lives for ever");
                each(self, seconds);
            }
            self.started.elapsed().as_secs()
        }
    }

    fn deliver(position: u64) -> Deliver {
        let path = PathKey { gateway_id: "main".into(), path: "/ws".into() };
        let segments = Segment::encode(Format::WebSocket, position, [&batch(position, 1, 1)[..]]);
        Deliver { path, content: Content::Messages(Format::WebSocket, segments) }
    }

    const PING: [u8; 6] = [0x89, 0x80, 0, 0, 0, 0];
    const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];

    /// The actor goes when nothing is begun, and only then; the next one hears what comes next.
    #[actix::test]
    async fn a_message_that_comes_in_pieces_with_pauses_is_one_message() {
        let mut bench = Bench::new();
        // "aü" in two fragments, cut within the letter, with a ping between them; the second in two reads.
        let pieces: [(&[u8], usize); 6] = [
            (b"\x01\x82\0\0\0\0a\xc3", 0),
            (&PING, 1),
            (b"\x80", 1),
            (b"\x81\0\0\0\0\xbc", 1),
            (&PING, 2),
            (&PING, 3),
        ];
        let mut received = Vec::new();
        for (piece, pongs) in pieces {
            bench.client.write_all(piece).unwrap();
            let (mut turns, expected) = (0, 3 + 2 * pongs);
            // The clock of the test stands still, so that the socket is looked at only when nothing else is to do.
            while turns < 20 || received.len() < expected && turns < 2000 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                std::thread::sleep(Duration::from_millis(1));
                received.extend(bench.received());
                turns += 1;
            }
        }
        assert_eq!(received, b"101\x8a\0\x8a\0\x8a\0");
        assert_eq!(bench.shard.sessions(), 1);
    }

    #[actix::test]
    async fn a_peer_that_says_nothing_is_pinged_and_ended_within_40_seconds() {
        let mut bench = Bench::new();
        let mut received = Vec::new();
        let seconds = bench.seconds_to_live(|bench, _| received.extend(bench.received())).await;
        assert!((35..=40).contains(&seconds), "{seconds}");
        assert_eq!(received, b"101\x89\x00");
    }

    #[actix::test]
    async fn an_unused_connection_is_closed_after_ten_minutes_though_it_answers_pings() {
        let mut bench = Bench::new();
        let mut received = Vec::new();
        let seconds = bench
            .seconds_to_live(|bench, _| {
                received.extend(bench.received());
                let _ = bench.client.write(&PONG);
            })
            .await;
        assert!((600..610).contains(&seconds), "{seconds}");
        assert_eq!(received[3..], frame::close(Close::Idle));
    }

    #[actix::test]
    async fn a_connection_in_use_is_closed_after_an_hour() {
        let mut bench = Bench::new();
        let mut received = Vec::new();
        let (mut next, mut sent) = (500, 0);
        let seconds = bench
            .seconds_to_live(|bench, second| {
                received.extend(bench.received());
                let _ = bench.client.write(&PONG);
                if second >= next {
                    next += 500;
                    bench.actor.try_send(deliver(sent)).unwrap();
                    sent += 1;
                }
            })
            .await;
        assert!((3600..3610).contains(&seconds), "{seconds}");
        assert!(received.ends_with(&frame::close(Close::Lifetime)));
    }

    #[actix::test]
    async fn the_mailbox_fills_while_frames_are_written() {
        let bench = Bench::new();
        // Let the actor start, then do not let it run.
        bench.actor.send(deliver(0)).await.unwrap();
        let taken = (0..1000).take_while(|_| bench.actor.try_send(deliver(0)).is_ok()).count();
        assert!((MAILBOX..MAILBOX + 3).contains(&taken), "{taken}");
    }

    /// A journal whose reads do not end until the test says so, and find nothing then.
    #[derive(Debug, Default)]
    struct Stuck(AtomicBool);

    impl Journal for Stuck {
        fn append(&self, _: Run) -> Result<Appended, NotAppended> {
            Err(NotAppended::Known)
        }

        fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(std::future::ready(()))
        }

        fn committed(&self, _: &PathKey) -> Option<watch::Receiver<Position>> {
            None
        }

        fn find(&self, _: &PathKey, _: Start) -> Result<Found, ReadError> {
            Err(ReadError::Failed("on purpose".to_owned()))
        }

        fn read(&self, _: &PathKey, _: Position, _: ReadLimit) -> Result<Vec<Stored>, ReadError> {
            while !self.0.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(Vec::new())
        }
    }

    /// A client of a shard whose socket holds little. It resumes at `start`.
    fn adopt(shard: &Rc<Shard>, directory: &Directory, start: Option<Position>) -> StdStream {
        let route = directory.find("h", "/main/ws").unwrap().route;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        client.set_recv_buffer_size(4096).unwrap();
        client.connect(&listener.local_addr().unwrap().into()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        let server = Io::Plain(tokio::net::TcpStream::from_std(server).unwrap());
        SockRef::from(server.tcp()).set_send_buffer_size(4096).unwrap();
        let place = directory.take_place(&route, Party::default()).unwrap();
        let entered = shard.enter(&route.entry, &Format::WebSocket.into(), place).unwrap();
        let start = start.map(|position| Begin { position, skips: false });
        let arrival = Arrival { route, guest: Guest::new(None), visit: None, answer: Bytes::new(), start };
        shard.adopt(server, entered, BytesMut::new(), arrival);
        client.into()
    }

    #[actix::test]
    async fn what_a_session_has_not_sent_is_kept_though_it_comes_to_the_ring_while_others_are_offered() {
        // One of them is noisy.
        let limits = Limits { frames_per_second: 1_000_000, ..Limits::default() };
        let paths = vec![GatewayPath { limits, ..GatewayPath::new("/ws") }];
        let gateway = [Gateway { paths, ..Gateway::new("main") }];
        let stuck = Arc::new(Stuck::default());
        let journal = Arc::clone(&stuck) as Arc<dyn Journal>;
        let directory = Directory::new(
            &gateway,
            PublicLimits::for_tests(1000),
            &Journals::one(&gateway, &journal),
            Outbound::for_tests(&[]),
        );
        let shard = Shard::new(0, Arc::default());
        let actor = ShardActor::new(Rc::clone(&shard)).start();
        // The first resumes, and its read takes long. There are so many that others have their turn in between.
        let mut resuming = adopt(&shard, &directory, Some(0));
        let others: Vec<_> = (0..300).map(|_| adopt(&shard, &directory, None)).collect();
        for io in &others {
            let mut io = io.try_clone().unwrap();
            std::thread::spawn(move || while io.read(&mut [0; 65_536]).is_ok_and(|read| read > 0) {});
        }
        let large =
            |position: u64| Segment::encode(Format::WebSocket, position, [&batch(position, 2, 60_000)[..]]);
        let send = |position: u64| {
            let path = PathKey { gateway_id: "main".into(), path: "/ws".into() };
            let content = Content::Messages(Format::WebSocket, large(position));
            actor.try_send(Deliver { path, content }).unwrap();
        };
        // Its task is woken again and again, by what its client sends.
        let mut noisy = resuming.try_clone().unwrap();
        let quiet = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&quiet);
        let noise = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let _ = noisy.write_all(&PONG);
                std::thread::sleep(Duration::from_micros(20));
            }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        send(0);
        tokio::time::sleep(Duration::from_millis(300)).await;
        quiet.store(true, Ordering::Relaxed);
        noise.join().unwrap();
        send(2);
        tokio::time::sleep(Duration::from_millis(100)).await;
        stuck.0.store(true, Ordering::Relaxed);
        let expected = [large(0), large(2)]
            .concat()
            .iter()
            .flat_map(|segment| segment.bytes.to_vec())
            .collect::<Vec<_>>();
        let len = expected.len();
        let got = actix_rt::task::spawn_blocking(move || {
            resuming.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut got = vec![0; len];
            resuming.read_exact(&mut got).map(|()| got)
        });
        assert!(got.await.unwrap().unwrap() == expected);
    }
}
