//! What the server allows itself and its clients; every number says what it stops.

use std::time::Duration;

/// Bounds of the embedded MQTT server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at once; stops file descriptors and memory from running out.
    pub max_connections: usize,
    /// Time to a complete CONNECT; stops connections that never say who they are.
    pub connect_timeout: Duration,
    /// Bytes of one message's payload; stops one message from filling the engine's queues.
    pub max_message_bytes: usize,
    /// Bytes of a CONNECT; stops strangers from taking memory before they are known.
    pub max_connect_bytes: usize,
    /// Subscriptions of one session; stops a client from growing the tree without end.
    pub max_subscriptions: usize,
    /// Topics whose route a connection remembers; stops a client that invents topics. Above it the
    /// connection forgets all and begins anew.
    pub max_cached_topics: usize,
    /// Permanent topics (state, config) kept in one space; above it new ones are not kept.
    pub max_permanent_topics: usize,
    /// Bytes of all permanent messages of one space; above it they are not kept.
    pub max_permanent_bytes: usize,
    /// Publishes of one connection that wait for the engine; above it the connection is not read. It is also
    /// the Receive Maximum told to 5.0 clients.
    pub max_unacknowledged: u16,
    /// Bytes of those; above it the connection is not read.
    pub max_unacknowledged_bytes: usize,
    /// QoS 1 deliveries on their way to one client; further ones wait in its queue.
    pub max_inflight: u16,
    /// Messages that wait for one connected client; above it QoS 0 is dropped, QoS 1 closes the connection.
    pub max_queued: usize,
    /// Bytes of those.
    pub max_queued_bytes: usize,
    /// Messages kept for one client that is away; above it the oldest is dropped.
    pub max_offline_queued: usize,
    /// Bytes of those.
    pub max_offline_queued_bytes: usize,
    /// Sessions kept for clients that are away; above it the one away for longest is forgotten.
    pub max_offline_sessions: usize,
    /// How long a persistent 3.1.1 session is kept after its client has gone.
    pub session_expiry: Duration,
    /// The longest session expiry that a 5.0 client gets.
    pub max_session_expiry: Duration,
    /// How long a client may leave what was sent to it unread; stops dead readers from holding memory.
    pub write_timeout: Duration,
    /// Topic aliases that a 5.0 client may set on one connection.
    pub max_topic_aliases: u16,
    /// Threads that serve connections.
    pub worker_threads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            connect_timeout: Duration::from_secs(5),
            max_message_bytes: 262_144,
            max_connect_bytes: 16 * 1024,
            max_subscriptions: 256,
            max_cached_topics: 1024,
            max_permanent_topics: 10_000,
            max_permanent_bytes: 64 * 1024 * 1024,
            max_unacknowledged: 1024,
            max_unacknowledged_bytes: 1024 * 1024,
            max_inflight: 128,
            max_queued: 1024,
            max_queued_bytes: 1024 * 1024,
            max_offline_queued: 1000,
            max_offline_queued_bytes: 1024 * 1024,
            max_offline_sessions: 10_000,
            session_expiry: Duration::from_secs(3600),
            max_session_expiry: Duration::from_secs(24 * 3600),
            write_timeout: Duration::from_secs(30),
            max_topic_aliases: 32,
            worker_threads: std::thread::available_parallelism().map_or(2, usize::from),
        }
    }
}

impl Limits {
    /// The largest packet taken: a full payload with room for a topic and properties.
    pub(crate) fn max_packet_bytes(&self) -> usize {
        self.max_message_bytes.saturating_add(MAX_HEADROOM).min(MAX_PACKET)
    }
}

/// Room for topic, packet identifier and properties beside a full payload.
const MAX_HEADROOM: usize = 65_536 + 16_384;
/// What MQTT can express at all.
const MAX_PACKET: usize = 268_435_455;
