//! `limits` of a gateway or a path: what clients may do.

use std::time::Duration;

use super::fields::{Reading, Value};
use super::scalar::{duration, whole};
use crate::model::limits::Limits;

/// Larger messages of clients than the model system's can be allowed, as far as memory is safe.
const MOST_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
const MOST_CONNECTIONS: usize = 10_000_000;
const MOST_RATE: usize = 1_000_000_000;
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
const SHORTEST: Duration = Duration::from_secs(1);

/// Changes what is named in `value`.
pub(super) fn read(value: &Value<'_>, limits: &mut Limits, reading: &mut Reading) {
    let mut fields = value.fields(reading);
    let mut number = |name, range, limit: &mut usize| {
        if let Some(value) = fields.get(name) {
            *limit = whole(&value, range, reading).unwrap_or(*limit);
        }
    };
    number("message_bytes", 1..=MOST_MESSAGE_BYTES, &mut limits.message_bytes);
    number("frame_bytes", 125..=MOST_MESSAGE_BYTES, &mut limits.frame_bytes);
    number("connections", 1..=MOST_CONNECTIONS, &mut limits.connections);
    number("connections_per_address", 1..=MOST_CONNECTIONS, &mut limits.connections_per_address);
    number("connections_per_subject", 1..=MOST_CONNECTIONS, &mut limits.connections_per_subject);
    let mut rate = |name, limit: &mut u32| {
        if let Some(value) = fields.get(name) {
            *limit = whole(&value, 1..=MOST_RATE, reading).map_or(*limit, |rate| rate as u32);
        }
    };
    rate("frames_per_second", &mut limits.frames_per_second);
    rate("bytes_per_second", &mut limits.bytes_per_second);
    let mut time = |name, limit: &mut Duration| {
        if let Some(value) = fields.get(name) {
            *limit = duration(&value, SHORTEST..=LONGEST, reading).unwrap_or(*limit);
        }
    };
    time("lifetime", &mut limits.lifetime);
    time("idle", &mut limits.idle);
    fields.finish(reading);
}
