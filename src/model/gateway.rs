//! Gateways and their paths: where WebSocket clients connect and batches are broadcast.

use super::id::Id;

/// Longest text message that is sent to a client, in bytes (the model system's 128 KB).
pub const MAX_MESSAGE_BYTES: usize = 131_072;
/// Longest WebSocket frame payload, in bytes (the model system's 32 KB).
pub const MAX_FRAME_BYTES: usize = 32_768;

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
}

/// One path of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayPath {
    /// With a leading slash, such as `/ws`.
    pub path: String,
    /// How far a client may fall behind before it is closed with 1013, in bytes for each worker thread.
    pub backlog_bytes: usize,
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
