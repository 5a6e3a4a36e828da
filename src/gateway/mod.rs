//! Where batches go out: [`GatewayActor`], the workers behind it, and the sessions of its paths.
//!
//! A GatewayActor stands for one gateway. BatchActors send it runs of batches; it appends each to the journal, which
//! gives it its place in the path's order, and when it is committed encodes it once for each format and sends it to the
//! shard of every worker that has clients on the path. Where clients have filters the shard gets the events, too, and
//! encodes what each filter lets through, in a task of its own that nobody waits for. Its mailbox holds [`MAILBOX`] messages, and [`PENDING`] runs of a path
//! may wait for the journal; when either is full the BatchActor waits. When a shard is full the gateway waits for it.
//! A slow client makes nobody wait: see `socket`.

mod address;
mod authorize;
mod clients;
mod close;
mod connections;
mod crowd;
mod deflate;
mod directory;
mod extension;
mod feed;
mod filter;
mod frame;
mod history;
mod hooks;
mod inbound;
mod listening;
mod mqtt;
mod origin;
mod outbound;
mod path;
mod paths;
mod rate;
mod refusal;
mod replay;
mod request;
mod resume;
mod ring;
mod segment;
mod session;
mod shard;
mod socket;
mod stream;
mod sweep;
#[cfg(test)]
mod tests;
mod upgrade;
mod utf8;
mod view;
mod vitals;
mod waiting;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use actix::prelude::*;
use actix_http::error::DispatchError;
use actix_http::{HttpService, KeepAlive, Request};
use actix_server::ServerHandle;
use actix_service::{ServiceFactoryExt as _, fn_service};
use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::sync::watch;

use self::connections::Withdraw;
pub use self::connections::{Connections, Sent};
use self::directory::PathEntry;
pub use self::directory::{Directory, PublicLimits};
pub use self::mqtt::Door;
pub use self::outbound::Outbound;
use self::segment::{Format, Segment};
use self::shard::{CloseAll, Content, Deliver, Shard, ShardActor};
use self::view::Unencoded;
use crate::journal::{self, Appended, NotAppended, Origin, Position, Run};
use crate::model::event::Event;
use crate::model::event_id;
use crate::model::gateway::PathKey;
use crate::model::id::Id;
use crate::telemetry::{self, METRICS, trace};
use crate::tls::{Acceptor, Io};

/// Messages that may wait in a GatewayActor's mailbox.
pub const MAILBOX: usize = 64;
/// Time in which a client must take something of what is sent to it.
const SILENCE: Duration = Duration::from_secs(60);
/// Time that sessions have at the end to take what is queued for them.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is looked at the end whether integrations have been told of all ends.
const FAREWELL_STEP: Duration = Duration::from_millis(20);

/// Runs of one path that may wait for the journal.
pub const PENDING: usize = 64;

/// Broadcasts to the paths of one gateway.
pub struct GatewayActor {
    id: Id,
    directory: Arc<Directory>,
    workers: Arc<Workers>,
    paths: HashMap<Id, Outgoing>,
}

/// Takes batches for a path, in order. The reply comes when they have their place in the path's order, or will
/// before anything that is sent later.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Broadcast {
    /// The path, with its leading slash.
    pub path: Id,
    /// Where the batches come from, for paths on disk.
    pub origin: Option<Origin>,
    /// At least one batch of at least one event each.
    pub batches: Arc<Vec<Vec<Event>>>,
}

/// Replies when the workers have everything that was broadcast before.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Flush;

/// The journal has committed more of a path.
#[derive(Debug)]
pub struct Committed {
    path: Id,
}

/// What is on its way to one path.
struct Outgoing {
    entry: Arc<PathEntry>,
    /// Where the first event stands that is not committed.
    committed: watch::Receiver<Position>,
    /// Runs that are not, in order.
    pending: VecDeque<Appended>,
}

impl Outgoing {
    /// The position after a run.
    fn end(run: &Appended) -> Position {
        run.position + run.batches.iter().map(|batch| batch.len() as u64).sum::<u64>()
    }

    /// The runs that may be delivered now.
    fn take_committed(&mut self) -> Vec<Appended> {
        let committed = *self.committed.borrow_and_update();
        let ready = self.pending.iter().take_while(|run| Self::end(run) <= committed).count();
        self.pending.drain(..ready).collect()
    }
}

impl GatewayActor {
    /// The actor for the gateway `id` of `directory`, in front of `workers`.
    pub fn new(id: Id, directory: Arc<Directory>, workers: Arc<Workers>) -> Self {
        Self { id, directory, workers, paths: HashMap::new() }
    }

    /// What is known of a path; its commits are told from the first broadcast on.
    fn outgoing(&mut self, path: &Id, ctx: &mut Context<Self>) -> Option<&mut Outgoing> {
        if !self.paths.contains_key(path) {
            let key = PathKey { gateway_id: self.id.clone(), path: path.clone() };
            let entry = self.directory.path(&key)?;
            let committed = entry.journal.committed(&key)?;
            let told = committed.clone();
            ctx.add_stream(futures_util::stream::unfold(
                (told, path.clone()),
                |(mut told, path)| async move {
                    told.changed().await.ok()?;
                    Some((Committed { path: path.clone() }, (told, path)))
                },
            ));
            self.paths.insert(path.clone(), Outgoing { entry, committed, pending: VecDeque::new() });
        }
        self.paths.get_mut(path)
    }

    /// Gives a run its place. The future is ready when its sender may go on; until then only it waits, since the
    /// journal of another path may have room.
    fn broadcast(&mut self, broadcast: Broadcast, ctx: &mut Context<Self>) -> Going {
        let Broadcast { path, origin, batches } = broadcast;
        let gone = || -> Going { Box::pin(actix::fut::ready(())) };
        let Some(outgoing) = self.outgoing(&path, ctx) else { return gone() };
        let (key, journal) = (outgoing.entry.key.clone(), Arc::clone(&outgoing.entry.journal));
        match journal.append(Run { path: key, origin, batches }) {
            Ok(run) => self.appended(&path, run, ctx),
            Err(NotAppended::Known) => gone(),
            Err(NotAppended::Full(run)) => {
                let append = journal::append(journal, run).into_actor(self);
                Box::pin(append.then(move |run, actor, ctx| match run {
                    Some(run) => actor.appended(&path, run, ctx),
                    None => gone(),
                }))
            }
        }
    }

    /// A run has its place: it goes out when it is committed.
    fn appended(&mut self, path: &Id, run: Appended, ctx: &mut Context<Self>) -> Going {
        let gone = || -> Going { Box::pin(actix::fut::ready(())) };
        let Some(outgoing) = self.paths.get_mut(path) else { return gone() };
        outgoing.pending.push_back(run);
        outgoing.entry.meter.wait(outgoing.pending.len());
        let oldest = outgoing.pending.front().map(Outgoing::end);
        let is_full = outgoing.pending.len() >= PENDING;
        let mut committed = outgoing.committed.clone();
        self.deliver(path, ctx);
        let Some(oldest) = oldest.filter(|_| is_full) else { return gone() };
        let path = path.clone();
        // An error: the journal has ended, and nothing is committed any more.
        let wait = async move { drop(committed.wait_for(|committed| *committed >= oldest).await) };
        Box::pin(wait.into_actor(self).map(move |(), actor, ctx| actor.deliver(&path, ctx)))
    }

    /// Sends what is committed to the workers.
    fn deliver(&mut self, path: &Id, ctx: &mut Context<Self>) {
        let Some(outgoing) = self.paths.get_mut(path) else { return };
        let runs = outgoing.take_committed();
        outgoing.entry.meter.wait(outgoing.pending.len());
        let entry = Arc::clone(&outgoing.entry);
        let Some(first) = runs.first().map(|run| run.position) else { return };
        let batches = || runs.iter().flat_map(|run| run.batches.iter());
        entry.meter.broadcast(batches().count(), batches().map(Vec::len).sum());
        if trace::is_on() {
            trace::broadcast(&entry.key, first, batches().flatten());
        }
        let sent = event_id::moment(SystemTime::now());
        let mut waiting = Vec::new();
        let shards = self.workers.shards();
        let mut send = |shard: &Addr<ShardActor>, content| {
            let deliver = Deliver { path: entry.key.clone(), content };
            if let Err(SendError::Full(deliver)) = shard.try_send(deliver) {
                waiting.push(shard.send(deliver));
            }
        };
        for format in Format::ALL {
            let counts = entry.plain(format);
            let mut segments: Option<Vec<Segment>> = None;
            for (_, shard) in shards.iter().filter(|(worker, _)| counts.is_open_on(*worker)) {
                let batches = || runs.iter().flat_map(|run| run.batches.iter().map(|batch| &batch[..]));
                let segments = segments.get_or_insert_with(|| {
                    Segment::broadcast(Segment::encode(format, first, batches()), sent)
                });
                send(shard, Content::Messages(format, segments.clone()));
            }
        }
        let filtered = entry.filtered();
        if filtered.is_used() && shards.iter().any(|(worker, _)| filtered.is_open_on(*worker)) {
            let events = Arc::new(Unencoded::new(runs, sent));
            for (_, shard) in shards.iter().filter(|(worker, _)| filtered.is_open_on(*worker)) {
                send(shard, Content::Events(Arc::clone(&events)));
            }
        }
        if !waiting.is_empty() {
            METRICS.worker_waits.inc();
            // Some worker is behind. Nothing more is taken until all have room, which keeps the order.
            // A worker that has ended has no sessions to miss anything.
            ctx.wait(join_all(waiting).into_actor(self).map(|_, _, _| ()));
        }
    }
}

impl Actor for GatewayActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

/// Ready when the sender of a run may go on.
type Going = ResponseActFuture<GatewayActor, ()>;

impl Handler<Broadcast> for GatewayActor {
    type Result = Going;

    fn handle(&mut self, broadcast: Broadcast, ctx: &mut Self::Context) -> Self::Result {
        telemetry::contain("GatewayActor", || self.broadcast(broadcast, ctx)).unwrap_or_else(|| {
            // The run may have no place: what follows must not get one. The chains start again from the journal.
            ctx.stop();
            Box::pin(actix::fut::ready(()))
        })
    }
}

impl StreamHandler<Committed> for GatewayActor {
    fn handle(&mut self, Committed { path }: Committed, ctx: &mut Self::Context) {
        // After a panic clients find in the journal what was not delivered.
        telemetry::contain("GatewayActor", || self.deliver(&path, ctx));
    }

    /// The journal has ended; the actor goes on, though nothing will be committed.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl Handler<Flush> for GatewayActor {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Flush, _: &mut Self::Context) -> Self::Result {
        let last = |outgoing: &Outgoing| {
            let end = outgoing.pending.back().map(Outgoing::end)?;
            Some((outgoing.committed.clone(), end))
        };
        let waits: Vec<_> = self.paths.values().filter_map(last).collect();
        let wait = async move {
            for (mut committed, end) in waits {
                drop(committed.wait_for(|committed| *committed >= end).await);
            }
        };
        Box::pin(wait.into_actor(self).then(|(), actor, ctx| {
            let paths: Vec<Id> = actor.paths.keys().cloned().collect();
            paths.iter().for_each(|path| actor.deliver(path, ctx));
            // Goes on when the workers have what they had no room for: until then the actor polls nothing else.
            tokio::task::yield_now().into_actor(actor)
        }))
    }
}

/// Every message leaves at once, and a client that takes nothing for long is gone: nothing else ends the response of
/// one that stopped reading.
fn tune(io: &TcpStream) {
    // The builder's own setting does not reach an HTTP/1 service.
    let _ = io.set_nodelay(true);
    // It only tunes; a platform without it works as well.
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(io).set_tcp_user_timeout(Some(SILENCE));
}

type Shards = Arc<[(usize, Addr<ShardActor>)]>;

/// The shards of all workers. Workers enter when they start.
#[derive(Default)]
pub struct Workers {
    shards: RwLock<Shards>,
}

impl Workers {
    fn shards(&self) -> Shards {
        Arc::clone(&self.shards.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// The shard of a worker.
    fn shard(&self, worker: usize) -> Option<Addr<ShardActor>> {
        self.shards().iter().find(|(number, _)| *number == worker).map(|(_, shard)| shard.clone())
    }

    /// Closes the clients of these paths, which are no more, or not just now.
    pub fn close(&self, paths: Vec<PathKey>) {
        if paths.is_empty() {
            return;
        }
        let withdraw = Withdraw(paths.into());
        // One message for each change, which a full mailbox takes too.
        self.shards().iter().for_each(|(_, shard)| shard.do_send(withdraw.clone()));
    }

    fn enter(&self, worker: usize, shard: Addr<ShardActor>) {
        let mut shards = self.shards.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A worker that took the place of a dead one leaves its shard behind.
        *shards =
            shards.iter().filter(|(_, shard)| shard.connected()).cloned().chain([(worker, shard)]).collect();
    }
}

/// What the public port is besides a place for WebSocket clients.
#[derive(Debug, Clone, Default)]
pub struct Port {
    /// For TLS; without it the port is plain.
    pub tls: Option<Acceptor>,
    /// Who takes WebSockets that speak MQTT; without it nobody does.
    pub mqtt: Option<Door>,
    /// Most connections that one worker has; the next ones wait until it has one less. Without it there is no bound.
    pub most_of_worker: Option<usize>,
}

/// The public port: every worker's handshakes and sessions.
pub struct Listener {
    workers: Arc<Workers>,
    directory: Arc<Directory>,
    server: ServerHandle,
    ended: watch::Receiver<()>,
}

impl Listener {
    /// Serves WebSocket clients on an already bound socket with this many worker threads. Call it inside
    /// an actix system.
    pub fn start(socket: TcpListener, workers: usize, directory: Arc<Directory>) -> io::Result<Self> {
        Self::start_as(Port::default(), socket, workers, directory)
    }

    /// The same, as this kind of port.
    pub fn start_as(
        port: Port,
        socket: TcpListener,
        workers: usize,
        directory: Arc<Directory>,
    ) -> io::Result<Self> {
        let patience = directory.handshake_timeout();
        let known = Arc::clone(&directory);
        let shards = Arc::new(Workers::default());
        let next_worker = Arc::new(AtomicUsize::new(0));
        let registered = Arc::clone(&shards);
        let server = actix_server::Server::build()
            .workers(workers)
            .max_concurrent_connections(port.most_of_worker.unwrap_or(usize::MAX))
            .disable_signals()
            .listen("gateway", socket, move || {
                // This closure runs on each worker's own thread.
                let worker = next_worker.fetch_add(1, Ordering::Relaxed);
                let shard = Shard::new(worker, directory.clients());
                registered.enter(worker, ShardActor::new(Rc::clone(&shard)).start());
                let (for_upgrade, for_plain) = (Arc::clone(&directory), Arc::clone(&directory));
                let plain_shard = Rc::clone(&shard);
                let (tls, mqtt) = (port.tls.clone(), port.mqtt.clone());
                let http = HttpService::build()
                    .keep_alive(KeepAlive::Timeout(patience))
                    .client_request_timeout(patience)
                    .on_connect_ext(|io: &Io, _| tune(io.tcp()))
                    .upgrade(fn_service(move |(request, framed)| {
                        let (directory, shard, mqtt) =
                            (Arc::clone(&for_upgrade), Rc::clone(&shard), mqtt.clone());
                        async move {
                            match mqtt.filter(|_| mqtt::is_asked_for(&request)) {
                                Some(door) => door.enter(&directory.addresses, &request, framed).await,
                                None => upgrade::upgrade(directory, shard, request, framed).await,
                            }
                            Ok::<_, std::convert::Infallible>(())
                        }
                    }))
                    .h1(fn_service(move |request: Request| {
                        let answer = upgrade::plain(Arc::clone(&for_plain), Rc::clone(&plain_shard), request);
                        async move { Ok::<_, actix_http::Error>(answer.await) }
                    }));
                fn_service(move |tcp: TcpStream| {
                    let tls = tls.clone();
                    async move {
                        let peer = tcp.peer_addr().ok();
                        Ok::<_, DispatchError>((Acceptor::accept_by(tls.as_ref(), tcp).await?, peer))
                    }
                })
                .and_then(http)
            })?
            .run();
        let handle = server.handle();
        let (alive, ended) = watch::channel(());
        actix_rt::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the gateway's server ended");
            }
            drop(alive);
        });
        Ok(Self { workers: shards, directory: known, server: handle, ended })
    }

    /// Waits until the server has ended, by [`Self::stop`] or a fault.
    pub fn ended(&self) -> impl Future<Output = ()> + use<> {
        let mut ended = self.ended.clone();
        async move { while ended.changed().await.is_ok() {} }
    }

    /// The workers, for GatewayActors to send to.
    pub fn workers(&self) -> Arc<Workers> {
        Arc::clone(&self.workers)
    }

    /// Stops accepting, sends what is queued, closes every session with 1012 spread over `spread`, tells the
    /// integrations, and ends the workers.
    pub async fn stop(&self, spread: Duration) {
        self.server.pause().await;
        let close = CloseAll { spread, patience: PATIENCE };
        join_all(self.workers.shards().iter().map(|(_, shard)| shard.send(close))).await;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.directory.farewells() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(FAREWELL_STEP).await;
        }
        let untold = self.directory.farewells();
        if untold > 0 {
            tracing::warn!(
                clients = untold,
                "the ends of clients were not told: their integrations did not answer in time"
            );
        }
        self.server.stop(false).await;
    }
}
