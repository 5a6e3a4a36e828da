//! The MQTT server inside the binary: 3.1.1 and 5.0 on one port, for the registries and brokers that have no
//! external broker. `source` reads its events through [`Server::link`]; `server` starts and stops it.
//!
//! A publish travels: `listener` → `handshake` → `connection` → `intake` → `link` and `outbox`; its bytes come by a
//! `stream`: a socket, plain or under TLS, or a WebSocket that the gateway has handed over.
//! Who may do what is `access`; what goes where is `space`; what a client left behind is `sessions`.
//! The server runs on a runtime of its own, so it may be used from inside any other.
//!
//! Absent on purpose: QoS 2 to subscribers, shared subscriptions, RETAIN, enhanced authentication, sessions
//! that survive the process.

mod access;
mod accounts;
mod close;
mod connection;
mod control;
mod encode;
mod handshake;
mod heard;
mod inside;
mod intake;
mod limits;
mod link;
mod listener;
mod message;
mod outbox;
mod packet;
mod past;
mod properties;
mod publish;
mod session;
mod sessions;
mod space;
mod stream;
pub mod trie;
mod websocket;
mod will;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

pub use self::inside::PublishError;
pub use self::limits::Limits;
pub use self::link::Link;

use self::accounts::Accounts;
use self::sessions::Sessions;
use self::space::Space;
use crate::model::Resources;
use crate::model::activity::DeviceActivity;
use crate::model::id::Id;
use crate::model::repeat::Repeats;
use crate::model::topic::{self, TopicError};
use crate::model::trigger::MqttTopics;
use crate::tls::{Acceptor, Detached};

/// How long connections may take to go once they are told to.
const GOING: Duration = Duration::from_secs(2);

/// The running server. Dropping it cuts every connection; [`Server::stop`] is the polite way.
#[derive(Debug)]
pub struct Server {
    runtime: Option<Runtime>,
    /// Until [`Server::open`].
    listeners: Mutex<Vec<(tokio::net::TcpListener, Option<Acceptor>)>>,
    shared: Arc<Shared>,
    address: SocketAddr,
}

/// Why the server did not start. The texts fit after "failed to start the MQTT server: ".
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The listener or the runtime cannot be used.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A device, registry or broker has the id of another: who logs in would not be known.
    #[error("{0:?} is the id of more than one device, registry or broker")]
    AmbiguousUser(Id),
}

/// Why there is no link. The texts fit after "failed to subscribe: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// No such registry is served here.
    #[error("device registry {0:?} is not served by the embedded MQTT server")]
    UnknownRegistry(Id),
    /// No such broker is served here.
    #[error("broker {0:?} is not served by the embedded MQTT server")]
    UnknownBroker(Id),
    /// The topic filter is not valid.
    #[error("the topic filter {0:?} {1}")]
    Filter(Id, TopicError),
    /// The server has stopped.
    #[error("the MQTT server has stopped")]
    Stopped,
}

/// What every connection has in common.
#[derive(Debug)]
pub(crate) struct Shared {
    limits: Arc<Limits>,
    accounts: RwLock<Arc<Accounts>>,
    sessions: Arc<Sessions>,
    spaces: Mutex<Vec<Arc<Space>>>,
    phase: watch::Sender<Phase>,
    /// Clients are let in.
    is_open: AtomicBool,
    /// One permit for each connection that may still come.
    slots: Arc<Semaphore>,
    max_slots: u32,
}

/// How far the server's end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not at all.
    Running,
    /// Nothing new is accepted or read; connections end when all is acknowledged.
    Draining,
    /// Connections end now.
    Closing,
}

impl Server {
    /// Serves at once: [`Self::prepare`] and [`Self::open`].
    pub fn start(
        listener: std::net::TcpListener,
        resources: &Resources,
        limits: Limits,
    ) -> Result<Self, StartError> {
        let server = Self::prepare(listener, resources, limits)?;
        server.open();
        Ok(server)
    }

    /// Lets clients in. What they publish before a link wants it is acknowledged and goes no further, so
    /// links are made before.
    pub fn open(&self) {
        let Some(runtime) = &self.runtime else { return };
        for (listener, tls) in self.listeners().drain(..) {
            runtime.spawn(listener::accept(listener, tls, Arc::clone(&self.shared)));
        }
        self.shared.is_open.store(true, Ordering::Release);
    }

    /// Listens on one more bound socket, under TLS. Call it before [`Self::open`].
    pub fn also_listen(&self, listener: std::net::TcpListener, tls: Acceptor) -> std::io::Result<()> {
        let Some(runtime) = &self.runtime else { return Ok(()) };
        let listener = listen(runtime, listener)?;
        self.listeners().push((listener, Some(tls)));
        Ok(())
    }

    /// Takes over a WebSocket that speaks MQTT. `answer` is the 101 response, which goes out first; `early` are bytes
    /// that the client sent behind its request. One that may not come in is closed.
    pub fn adopt(&self, socket: Detached, answer: Bytes, early: BytesMut) {
        let Some(runtime) = &self.runtime else { return };
        let shared = Arc::clone(&self.shared);
        runtime.spawn(listener::adopt(socket, answer, early, shared));
    }

    /// Whether clients are let in just now.
    pub fn is_open(&self) -> bool {
        self.shared.is_open.load(Ordering::Acquire) && *self.shared.phase.borrow() == Phase::Running
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<(tokio::net::TcpListener, Option<Acceptor>)>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A server for the registries and brokers that have no `external` broker, on an already bound listener
    /// and its own tokio multi-thread runtime. Clients wait until [`Self::open`].
    pub fn prepare(
        listener: std::net::TcpListener,
        resources: &Resources,
        limits: Limits,
    ) -> Result<Self, StartError> {
        let (accounts, spaces) = Accounts::none()
            .renewed(resources, &limits)
            .map_err(|ambiguous| StartError::AmbiguousUser(ambiguous.0))?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(limits.worker_threads.max(1))
            .thread_name("mqtt")
            .enable_all()
            .build()?;
        let most = Semaphore::MAX_PERMITS.min(u32::MAX as usize);
        let slots = limits.max_connections.min(most);
        let limits = Arc::new(limits);
        let shared = Arc::new(Shared {
            accounts: RwLock::new(Arc::new(accounts)),
            sessions: Arc::new(Sessions::new(Arc::clone(&limits))),
            spaces: Mutex::new(spaces),
            phase: watch::Sender::new(Phase::Running),
            is_open: AtomicBool::new(false),
            slots: Arc::new(Semaphore::new(slots)),
            max_slots: u32::try_from(slots).unwrap_or(u32::MAX),
            limits,
        });
        let address = listener.local_addr()?;
        let listeners = Mutex::new(vec![(listen(&runtime, listener)?, None)]);
        Ok(Self { runtime: Some(runtime), listeners, shared, address })
    }

    /// Tells what clients may publish again because their acknowledgement was lost with the process before this
    /// one. Call it before [`Self::open`].
    pub fn recall(&self, repeats: impl IntoIterator<Item = Repeats>) {
        self.shared.sessions.recall(repeats);
    }

    /// Serves what `resources` say from now on. What is the same goes on untouched; connections of accounts that are
    /// no more, or whose passwords have changed, are ended.
    pub fn apply(&self, resources: &Resources) -> Result<(), StartError> {
        let old = self.shared.accounts();
        let (accounts, spaces) = old
            .renewed(resources, &self.shared.limits)
            .map_err(|ambiguous| StartError::AmbiguousUser(ambiguous.0))?;
        let accounts = Arc::new(accounts);
        *self.shared.accounts.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&accounts);
        let before = std::mem::replace(&mut *self.shared.spaces(), spaces.clone());
        old.end_all_but(&accounts);
        let is_gone = |space: &&Arc<Space>| !spaces.iter().any(|kept| Arc::ptr_eq(kept, space));
        before.iter().filter(is_gone).for_each(|space| space.stop());
        Ok(())
    }

    /// Forgets links that nobody reads and that are not wanted any more. Until then what they want is refused.
    pub fn forget_closed(&self, is_wanted: impl Fn(&MqttTopics) -> bool) {
        self.shared.spaces().iter().for_each(|space| space.forget_closed(&is_wanted));
    }

    /// Publishes a message as the account with this name would, at QoS 1: returns when its events are kept. Blocks.
    pub fn publish(&self, name: &str, topic: &str, payload: &[u8]) -> Result<(), PublishError> {
        let runtime = self.runtime.as_ref().ok_or(PublishError::Refused)?;
        inside::publish(&self.shared, runtime.handle(), name, topic, payload)
    }

    /// What came from these devices of a registry since the start; nothing of those that have not been there.
    pub fn heard(&self, registry: &str, devices: &[Id]) -> Vec<DeviceActivity> {
        let spaces = self.shared.spaces();
        let space = spaces.iter().find(|space| *space.id == *registry && space.is_registry());
        space.map(|space| space.heard_of(devices)).unwrap_or_default()
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The engine's in-process subscription: groups of events of one trigger source. `capacity` is the number
    /// of groups that may wait; when it is full, publishers (and only then) are held back.
    pub fn link(&self, source: &MqttTopics, capacity: usize) -> Result<Link, LinkError> {
        let space = |id: &Id, is_registry: bool| {
            let spaces = self.shared.spaces();
            spaces.iter().find(|space| space.id == *id && space.is_registry() == is_registry).cloned()
        };
        let (space, filter) = match source {
            MqttTopics::IotMessage { registry_id, mqtt_topic, .. } => {
                let unknown = || LinkError::UnknownRegistry(registry_id.clone());
                (space(registry_id, true).ok_or_else(unknown)?, mqtt_topic)
            }
            MqttTopics::IotBrokerMessage { broker_id, mqtt_topic } => {
                let unknown = || LinkError::UnknownBroker(broker_id.clone());
                (space(broker_id, false).ok_or_else(unknown)?, mqtt_topic)
            }
        };
        if let Some(filter) = filter {
            topic::check_filter(filter).map_err(|error| LinkError::Filter(filter.clone(), error))?;
        }
        space.link(source, capacity).ok_or(LinkError::Stopped)
    }

    /// Stops accepting and reading, waits at most `patience` until what was read is acknowledged, says
    /// goodbye to 5.0 clients (0x8B), and closes. Links then end.
    pub async fn stop(&self, patience: Duration) {
        let Some(runtime) = &self.runtime else { return };
        // On the server's own runtime: the caller's may have no timer, and may be of another kind.
        let _ = runtime.spawn(Arc::clone(&self.shared).stop(patience)).await;
    }
}

/// Brings a bound socket into a runtime.
fn listen(runtime: &Runtime, listener: std::net::TcpListener) -> std::io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    let _inside = runtime.enter();
    tokio::net::TcpListener::from_std(listener)
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.spaces().iter().for_each(|space| space.stop());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    /// The logins that there are now.
    pub(crate) fn accounts(&self) -> Arc<Accounts> {
        Arc::clone(&self.accounts.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn spaces(&self) -> MutexGuard<'_, Vec<Arc<Space>>> {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn stop(self: Arc<Self>, patience: Duration) {
        for (phase, time) in [(Phase::Draining, patience), (Phase::Closing, GOING)] {
            self.phase.send_if_modified(|now| std::mem::replace(now, phase) != phase);
            if timeout(time, self.slots.acquire_many(self.max_slots)).await.is_ok() {
                break;
            }
        }
        self.spaces().iter().for_each(|space| space.stop());
    }
}
