//! `batch_settings`, in both forms. Zero stands for the default everywhere, as in the model system.

use std::time::Duration;

use super::fields::{Fields, Reading, Value};
use super::scalar::{duration, whole};
use crate::model::gateway::MAX_MESSAGE_BYTES;
use crate::model::trigger::{BatchSettings, DEFAULT_COUNT, DEFAULT_CUTOFF, MAX_COUNT, MAX_CUTOFF};

/// `{max_count, max_bytes, cutoff}`.
pub(super) fn v2(value: &Value<'_>, reading: &mut Reading) -> BatchSettings {
    let mut fields = value.fields(reading);
    let settings = BatchSettings {
        max_count: number(&mut fields, "max_count", MAX_COUNT, DEFAULT_COUNT, reading),
        max_bytes: number(&mut fields, "max_bytes", MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES, reading),
        cutoff: cutoff(&mut fields, reading),
    };
    fields.finish(reading);
    settings
}

/// `{size, cutoff}`.
pub(super) fn v1(value: &Value<'_>, reading: &mut Reading) -> BatchSettings {
    let mut fields = value.fields(reading);
    let settings = BatchSettings {
        max_count: number(&mut fields, "size", MAX_COUNT, DEFAULT_COUNT, reading),
        max_bytes: MAX_MESSAGE_BYTES,
        cutoff: cutoff(&mut fields, reading),
    };
    fields.finish(reading);
    settings
}

fn number(
    fields: &mut Fields<'_>,
    name: &'static str,
    most: usize,
    default: usize,
    reading: &mut Reading,
) -> usize {
    let number = fields.get(name).and_then(|value| whole(&value, 0..=most, reading));
    number.filter(|number| *number > 0).unwrap_or(default)
}

fn cutoff(fields: &mut Fields<'_>, reading: &mut Reading) -> Duration {
    let cutoff =
        fields.get("cutoff").and_then(|value| duration(&value, Duration::ZERO..=MAX_CUTOFF, reading));
    cutoff.filter(|cutoff| !cutoff.is_zero()).unwrap_or(DEFAULT_CUTOFF)
}
