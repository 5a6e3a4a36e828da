//! What passes through the server just now, as calls tell it. What is counted begins anew with the process.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::gateway::PathKey;
use super::id::Id;
use super::trigger::BatchClose;

/// The server as a whole, since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events that entered.
    pub events: u64,
    /// Batches that closed.
    pub batches: u64,
    /// Messages that clients were written.
    pub deliveries: u64,
    /// WebSocket connections now.
    pub websocket_connections: u64,
    /// Responses of server-sent events now.
    pub event_streams: u64,
    /// MQTT connections now.
    pub mqtt_connections: u64,
    /// Times that a client fell further behind than it may.
    pub slow_clients: u64,
    /// Events that somebody missed.
    pub dropped: u64,
}

/// How things stood at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Goes up by one.
    pub number: u64,
    /// When.
    pub at: SystemTime,
    /// See [`Totals`].
    pub events: u64,
    /// See [`Totals`].
    pub batches: u64,
    /// See [`Totals`].
    pub deliveries: u64,
    /// See [`Totals`].
    pub websocket_connections: u64,
    /// See [`Totals`].
    pub mqtt_connections: u64,
    /// Writes of workers to those clients of a path that keep up, since the start.
    pub writes: u64,
    /// From the entry of the oldest event of each of them until then, added up.
    pub lag_sum: Duration,
}

/// A path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathActivity {
    /// Which, as it is declared.
    pub key: PathKey,
    /// WebSocket connections now.
    pub connections: u64,
    /// Events that were broadcast since the start.
    pub events: u64,
    /// Batches that were.
    pub batches: u64,
}

/// An action of a trigger: its batches since the start, and the one that is open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActionActivity {
    /// Events in batches that closed.
    pub events: u64,
    /// Batches that closed.
    pub batches: u64,
    /// The same by why, in the order of [`BatchClose::ALL`].
    pub closed: [u64; BatchClose::ALL.len()],
    /// Events in the open batch.
    pub open_events: u64,
    /// Bytes of their JSON.
    pub open_bytes: u64,
    /// When it closes, if nothing more comes.
    pub closes_at: Option<SystemTime>,
    /// When batches left last.
    pub last_batch_at: Option<SystemTime>,
}

impl ActionActivity {
    /// Batches that closed for this.
    pub fn closed_for(&self, why: BatchClose) -> u64 {
        self.closed[why as usize]
    }
}

/// A device of the embedded MQTT server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceActivity {
    /// Which.
    pub id: Id,
    /// Whether it is connected.
    pub is_connected: bool,
    /// When something came from it last.
    pub last_seen_at: Option<SystemTime>,
    /// Messages that came from it.
    pub messages: u64,
    /// The last of them, the newest first.
    pub last_messages: Vec<DeviceMessage>,
}

/// A message of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceMessage {
    /// The standard topic.
    pub topic: Id,
    /// When it came.
    pub at: SystemTime,
    /// How it begins.
    pub payload: Bytes,
    /// How long it is.
    pub size: usize,
}
