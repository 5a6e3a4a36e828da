//! Gateways and their paths: where WebSocket clients connect and batches are broadcast.

use std::time::Duration;

use super::authorizer::Authorizer;
use super::hook::Hooks;
use super::id::Id;
use super::limits::Limits;

/// Longest text message that is sent to a client, in bytes (the model system's 128 KB).
pub const MAX_MESSAGE_BYTES: usize = 131_072;
/// Longest WebSocket frame payload, in bytes (the model system's 32 KB).
pub const MAX_FRAME_BYTES: usize = 32_768;

/// Where the public side takes MQTT over WebSocket. No path of a gateway may be the same.
pub const MQTT_PATH: &str = "/mqtt";

/// Most worker threads of the public port; it sizes the counters of a path.
pub const MAX_WORKERS: usize = 256;

/// A gateway: a named set of WebSocket paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// First segment of the URL: `ws://HOST/{id}{path}`.
    pub id: Id,
    /// A host name that stands for this gateway: `ws://{domain}{path}`. Lower case, no port.
    pub domain: Option<String>,
    /// Values of the `Origin` header that may connect, compared exactly. Empty: the request's own host
    /// and loopback hosts.
    pub allowed_origins: Vec<String>,
    /// The paths, each with a leading slash.
    pub paths: Vec<GatewayPath>,
    /// Whether clients are refused just now.
    pub is_stopped: bool,
}

impl Gateway {
    /// A gateway without paths, with every default.
    pub fn new(id: impl Into<Id>) -> Self {
        Self {
            id: id.into(),
            domain: None,
            allowed_origins: Vec::new(),
            paths: Vec::new(),
            is_stopped: false,
        }
    }
}

/// One path of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayPath {
    /// With a leading slash, such as `/ws`, or a template such as `/ws/{room}`: one path for all that it matches.
    pub path: String,
    /// How far a client may fall behind before `slow_clients` decides, in bytes for each worker thread.
    pub backlog_bytes: usize,
    /// What becomes of a client that falls further behind.
    pub slow_clients: SlowClients,
    /// Where what was broadcast is kept.
    pub durability: Durability,
    /// How much of it is kept.
    pub retention: Retention,
    /// What is asked when clients connect, speak and go.
    pub hooks: Hooks,
    /// Who decides who may connect; none: everybody may.
    pub authorizer: Option<Authorizer>,
    /// What clients may do.
    pub limits: Limits,
    /// Whether clients that ask for permessage-deflate get it.
    pub deflate: bool,
}

impl GatewayPath {
    /// A path with every default.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            backlog_bytes: DEFAULT_BACKLOG_BYTES,
            slow_clients: SlowClients::default(),
            durability: Durability::default(),
            retention: Retention::default(),
            hooks: Hooks::default(),
            authorizer: None,
            limits: Limits::default(),
            deflate: false,
        }
    }
}

/// What becomes of a client that falls further behind than it may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SlowClients {
    /// It reads what it has missed from the journal at its own pace, and comes back to the others.
    #[default]
    Replay,
    /// It misses the oldest messages.
    DropOldest,
    /// It is closed with 1013.
    Disconnect,
}

/// Where what was broadcast is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// On disk: senders are acknowledged when it is there.
    #[default]
    Disk,
    /// In memory: senders are acknowledged when events are accepted, and a restart forgets.
    Memory,
}

/// How much of what was broadcast on a path is kept; the least of the three counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Bytes of the events' JSON.
    pub bytes: u64,
    /// Events.
    pub events: u64,
    /// Time since they were broadcast.
    pub age: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { bytes: 256 * 1024 * 1024, events: 1_000_000, age: Duration::from_secs(24 * 3600) }
    }
}

/// What `backlog_bytes` is when the configuration is silent.
pub const DEFAULT_BACKLOG_BYTES: usize = 16 * 1024 * 1024;

/// Names one broadcast path of one gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathKey {
    /// The gateway's id.
    pub gateway_id: Id,
    /// The path with its leading slash.
    pub path: Id,
}

impl std::fmt::Display for PathKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "/{}{}", self.gateway_id, self.path)
    }
}
