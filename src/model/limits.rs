//! What clients of a path may do: sizes, times, numbers, rates.

use std::time::Duration;

/// The limits of one WebSocket path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest message of a client, in bytes.
    pub message_bytes: usize,
    /// Longest frame of a client, in bytes of payload.
    pub frame_bytes: usize,
    /// Time that a connection lives.
    pub lifetime: Duration,
    /// Time without a message or a client's ping after which it is closed.
    pub idle: Duration,
    /// Connections on the path.
    pub connections: usize,
    /// Connections on the path from one address.
    pub connections_per_address: usize,
    /// Connections on the path of one subject, as its authorizer names it.
    pub connections_per_subject: usize,
    /// Frames of a client in a second, on average; ten seconds' worth at once.
    pub frames_per_second: u32,
    /// Bytes of a client in a second, on average; ten seconds' worth at once.
    pub bytes_per_second: u32,
}

impl Default for Limits {
    /// Sizes and times are the model system's; the others bound what it leaves open.
    fn default() -> Self {
        Self {
            message_bytes: 131_072,
            frame_bytes: 32_768,
            lifetime: Duration::from_secs(3600),
            idle: Duration::from_secs(600),
            connections: 1_000_000,
            connections_per_address: 10_000,
            connections_per_subject: 100,
            frames_per_second: 100,
            bytes_per_second: 1_048_576,
        }
    }
}
