//! Single values: whole numbers, durations, ids, addresses, words of a list.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::fields::{Fields, Reading, Spot, Value, quote};
use super::suggest;
use super::tree::Kind;
use crate::model::duration as model_duration;
use crate::model::id::{self, Id};

/// A whole number in a range; quoted digits too, as proto-JSON writes 64-bit numbers.
pub(super) fn whole(value: &Value<'_>, range: RangeInclusive<usize>, reading: &mut Reading) -> Option<usize> {
    let number = match &value.node.kind {
        Kind::Int(number) => Some(*number),
        Kind::Text(text) => text.value.parse().ok(),
        Kind::Unset => return None,
        _ => None,
    };
    let (least, most) = (range.start(), range.end());
    match number {
        Some(number) => {
            let inside = usize::try_from(number).ok().filter(|number| range.contains(number));
            if inside.is_none() {
                value.fault(reading, format_args!("{} is out of range ({least} to {most})", value.shown()));
            }
            inside
        }
        None => {
            let shown = value.shown();
            value.fault(reading, format_args!("{shown} is not a whole number ({least} to {most})"));
            None
        }
    }
}

/// A duration in a range, such as `500ms`, `1.5s` or `2m`.
pub(super) fn duration(
    value: &Value<'_>,
    range: RangeInclusive<Duration>,
    reading: &mut Reading,
) -> Option<Duration> {
    let allowed = format!("{} to {}", in_seconds(*range.start()), in_seconds(*range.end()));
    let shown = value.shown();
    let Kind::Text(text) = &value.node.kind else {
        let hint = match value.node.kind {
            Kind::Unset => return None,
            Kind::Int(number) => format!("; write \"{number}s\" for seconds"),
            _ => String::new(),
        };
        value.fault(reading, format_args!("{shown} is not a duration with a unit ({allowed}){hint}"));
        return None;
    };
    match model_duration::parse(&text.value) {
        Some(duration) if range.contains(&duration) => Some(duration),
        Some(_) => {
            value.fault(reading, format_args!("{shown} is out of range ({allowed})"));
            None
        }
        None => {
            value.fault(
                reading,
                format_args!(
                    "{shown} is not a duration: a number and ms, s, m or h, such as \"1.5s\" ({allowed})"
                ),
            );
            None
        }
    }
}

fn in_seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

/// A declared id under the key `id`, and where it stands. After a fault it is empty, and then it is not known what
/// references may mean: they are not faults too.
pub(super) fn declared_id(fields: &mut Fields<'_>, reading: &mut Reading) -> (Id, Spot) {
    let Some(value) = fields.need("id", reading) else { return (Arc::from(""), fields.spot.clone()) };
    let text = value.str(reading).unwrap_or_default();
    if id::check(text) {
        return (Arc::from(text), value.spot);
    }
    if matches!(value.node.kind, Kind::Text(_)) {
        value.fault(reading, format_args!("{} is not an id ({})", value.shown(), id::RULE));
    }
    (Arc::from(""), value.spot)
}

/// `IP:PORT`.
pub(super) fn address(value: &Value<'_>, reading: &mut Reading) -> Option<SocketAddr> {
    let text = value.str(reading)?;
    let address = text.parse().ok();
    if address.is_none() {
        let shown = value.shown();
        value.fault(
            reading,
            format_args!(
                "{shown} is not IP:PORT, such as \"127.0.0.1:8080\", \"0.0.0.0:80\" or \"[::1]:80\""
            ),
        );
    }
    address
}

/// `true` or `false`.
pub(super) fn boolean(value: &Value<'_>, reading: &mut Reading) -> Option<bool> {
    match &value.node.kind {
        Kind::Bool(known) => Some(*known),
        Kind::Unset => None,
        _ => {
            value.fault(reading, format_args!("{} is not true or false", value.shown()));
            None
        }
    }
}

/// One of some words.
pub(super) fn word<T: Copy>(value: &Value<'_>, words: &[(&str, T)], reading: &mut Reading) -> Option<T> {
    let text = value.str(reading)?;
    let found = words.iter().find(|(word, _)| *word == text);
    if found.is_none() {
        let list = words.iter().map(|(word, _)| quote(word)).collect::<Vec<_>>().join(", ");
        value.fault(reading, format_args!("{} is not one of {list}", value.shown()));
    }
    found.map(|(_, meaning)| *meaning)
}

/// The id of something declared elsewhere in the file.
pub(super) fn reference<'k>(
    value: &Value<'_>,
    what: &str,
    known: impl IntoIterator<Item = &'k str>,
    reading: &mut Reading,
) -> Option<Id> {
    let text = value.str(reading)?;
    let known: Vec<&str> = known.into_iter().collect();
    if known.contains(&text) && !text.is_empty() {
        return Some(Arc::from(text));
    }
    if known.contains(&"") {
        return None;
    }
    let hint = suggest::among(text, known, "declared");
    value.fault(reading, format_args!("{} is not {what} of this file{hint}", value.shown()));
    None
}

/// A label of a resource: its key is checked, its value is text.
pub(super) fn label(key: &str, value: &Value<'_>, reading: &mut Reading) {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_./\\@".contains(c);
    if !(1..=63).contains(&key.len())
        || !key.starts_with(|c: char| c.is_ascii_lowercase())
        || !key.chars().all(allowed)
    {
        let shown = quote(key);
        value.fault(reading, format_args!("{shown} is not a label key ([a-z][-_./\\@0-9a-z]*, 1 to 63)"));
    }
    let Some(text) = value.str(reading) else { return };
    if text.len() > 63 || !text.chars().all(allowed) {
        let shown = value.shown();
        value.fault(reading, format_args!("{shown} is not a label value ([-_./\\@0-9a-z]*, 0 to 63)"));
    }
}

/// A server by `http://HOST[:PORT]` or https, which needs no login.
pub(super) fn http_url(value: &Value<'_>, reading: &mut Reading) -> Option<String> {
    let text = value.str(reading)?;
    let good = url::Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    if good.is_none() {
        // Not shown: it may hold a password.
        value.fault(reading, "the URL must be http://HOST[:PORT] or https://HOST[:PORT], without a login");
    }
    Some(text.trim_end_matches('/').to_owned())
}
