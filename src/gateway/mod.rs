//! Where batches go out: [`GatewayActor`], the workers behind it, and the sessions of its paths.
//!
//! A GatewayActor stands for one gateway. BatchActors send it the texts of batches; it encodes each once
//! to WebSocket frames and sends those to the shard of every worker that has sessions on the path. Its
//! mailbox holds [`MAILBOX`] messages; when it is full the BatchActor waits. When a shard is full the
//! gateway waits for it. A slow client makes nobody wait: see `socket`.

mod close;
mod directory;
mod feed;
mod frame;
mod inbound;
mod origin;
mod path;
mod refusal;
mod ring;
mod session;
mod shard;
mod socket;
#[cfg(test)]
mod tests;
mod upgrade;
mod vitals;

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use actix::prelude::*;
use actix_http::{HttpService, KeepAlive, Request};
use actix_server::ServerHandle;
use actix_service::fn_service;
use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::watch;

pub use self::directory::Directory;
use self::shard::{CloseAll, Deliver, Shard, ShardActor};
use crate::model::gateway::PathKey;
use crate::model::id::Id;
use crate::telemetry::{self, METRICS};

/// Messages that may wait in a GatewayActor's mailbox.
pub const MAILBOX: usize = 64;
/// Time a client has from connecting to the end of its request's headers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that sessions have at the end to take what is queued for them.
const PATIENCE: Duration = Duration::from_secs(5);

/// Broadcasts to the paths of one gateway.
pub struct GatewayActor {
    id: Id,
    directory: Arc<Directory>,
    workers: Arc<Workers>,
}

/// Sends each text as one message to every session of a path, in order. The reply comes when the workers
/// have it, or will before anything that is sent later.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Broadcast {
    /// The path, with its leading slash.
    pub path: Id,
    /// Texts of batches.
    pub texts: Vec<Bytes>,
}

/// Replies when the workers have everything that was broadcast before.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Flush;

impl GatewayActor {
    /// The actor for the gateway `id` of `directory`, in front of `workers`.
    pub fn new(id: Id, directory: Arc<Directory>, workers: Arc<Workers>) -> Self {
        Self { id, directory, workers }
    }

    fn broadcast(&self, broadcast: &Broadcast, ctx: &mut Context<Self>) {
        let key = PathKey { gateway_id: self.id.clone(), path: broadcast.path.clone() };
        let Some(entry) = self.directory.path(&key) else { return };
        let mut segments: Option<Vec<Bytes>> = None;
        let mut waiting = Vec::new();
        for (worker, shard) in self.workers.shards().iter() {
            if !entry.is_open_on(*worker) {
                continue;
            }
            let segments = segments.get_or_insert_with(|| frame::encode_texts(&broadcast.texts));
            let deliver = Deliver { path: key.clone(), segments: segments.clone() };
            if let Err(SendError::Full(deliver)) = shard.try_send(deliver) {
                waiting.push(shard.send(deliver));
            }
        }
        if !waiting.is_empty() {
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

impl Handler<Broadcast> for GatewayActor {
    type Result = ();

    fn handle(&mut self, broadcast: Broadcast, ctx: &mut Self::Context) {
        if telemetry::contain("GatewayActor", || self.broadcast(&broadcast, ctx)).is_none() {
            METRICS.count_restart("GatewayActor");
        }
    }
}

impl Handler<Flush> for GatewayActor {
    type Result = ();

    fn handle(&mut self, _: Flush, _: &mut Self::Context) {}
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

    fn enter(&self, worker: usize, shard: Addr<ShardActor>) {
        let mut shards = self.shards.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A worker that took the place of a dead one leaves its shard behind.
        *shards =
            shards.iter().filter(|(_, shard)| shard.connected()).cloned().chain([(worker, shard)]).collect();
    }
}

/// The public port: every worker's handshakes and sessions.
pub struct Listener {
    workers: Arc<Workers>,
    server: ServerHandle,
    ended: watch::Receiver<()>,
}

impl Listener {
    /// Serves WebSocket clients on an already bound socket with this many worker threads. Call it inside
    /// an actix system.
    pub fn start(socket: TcpListener, workers: usize, directory: Arc<Directory>) -> io::Result<Self> {
        let shards = Arc::new(Workers::default());
        let next_worker = Arc::new(AtomicUsize::new(0));
        let registered = Arc::clone(&shards);
        let server = actix_server::Server::build()
            .workers(workers)
            .disable_signals()
            .listen("gateway", socket, move || {
                // This closure runs on each worker's own thread.
                let worker = next_worker.fetch_add(1, Ordering::Relaxed);
                let shard = Shard::new(worker);
                registered.enter(worker, ShardActor::new(Rc::clone(&shard)).start());
                let (for_upgrade, for_plain) = (Arc::clone(&directory), Arc::clone(&directory));
                HttpService::build()
                    .keep_alive(KeepAlive::Timeout(REQUEST_TIMEOUT))
                    .client_request_timeout(REQUEST_TIMEOUT)
                    .tcp_nodelay(true)
                    .upgrade(fn_service(move |(request, framed)| {
                        upgrade::upgrade(Arc::clone(&for_upgrade), Rc::clone(&shard), request, framed)
                    }))
                    .h1(fn_service(move |request: Request| {
                        let response = upgrade::refuse_plain(&for_plain, request.head());
                        async move { Ok::<_, actix_http::Error>(response) }
                    }))
                    .tcp()
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
        Ok(Self { workers: shards, server: handle, ended })
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

    /// Stops accepting, sends what is queued, closes every session with 1012 spread over `spread`, and
    /// ends the workers.
    pub async fn stop(&self, spread: Duration) {
        self.server.pause().await;
        let close = CloseAll { spread, patience: PATIENCE };
        join_all(self.workers.shards().iter().map(|(_, shard)| shard.send(close))).await;
        self.server.stop(false).await;
    }
}
