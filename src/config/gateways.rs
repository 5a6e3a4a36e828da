//! `gateways`: ids, domains, origins and paths.

use std::time::Duration;

use super::accounts::items;
use super::fields::{Fields, Reading, Value, quote};
use super::scalar::{declared_id, duration, whole, word};
use super::unique::Unique;
use crate::model::gateway::{Durability, Gateway, GatewayPath, Retention, SlowClients};

const MIN_BACKLOG: usize = 65_536;
const MAX_BACKLOG: usize = 1_073_741_824;
const MAX_PATH: usize = 256;
const MIN_KEPT_BYTES: usize = 1024;
const MAX_KEPT_BYTES: usize = 1_099_511_627_776;
const MAX_KEPT_EVENTS: usize = 1_000_000_000;
const MIN_AGE: Duration = Duration::from_secs(1);
const MAX_AGE: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads `gateways`.
pub(super) fn read(root: &mut Fields<'_>, reading: &mut Reading) -> Vec<Gateway> {
    let (mut ids, mut domains) = (Unique::default(), Unique::default());
    let mut gateways = Vec::new();
    for item in items(root, "gateways", reading) {
        let mut fields = item.fields(reading);
        let (id, spot) = declared_id(&mut fields, reading);
        ids.declare(&id, "ids of gateways must differ", &spot, reading);
        let domain = fields.get("domain").and_then(|value| {
            let domain = domain(&value, reading)?;
            domains.declare(&domain, "domains of gateways must differ", &value.spot, reading);
            Some(domain)
        });
        let origins = items(&mut fields, "allowed_origins", reading);
        let allowed_origins = origins.iter().filter_map(|value| origin(value, reading)).collect();
        fields.refuse(&["openapi"], reading);
        let paths = fields.need("paths", reading).map(|value| paths(&value, reading)).unwrap_or_default();
        fields.finish(reading);
        gateways.push(Gateway { id, domain, allowed_origins, paths, is_stopped: false });
    }
    gateways
}

fn paths(value: &Value<'_>, reading: &mut Reading) -> Vec<GatewayPath> {
    let faults = reading.faults.len();
    let entries = value.entries(reading);
    if entries.is_empty() && reading.faults.len() == faults {
        value.fault(reading, "a gateway needs at least one path, such as \"/ws\"");
    }
    let mut paths = Vec::new();
    for (path, options) in entries {
        if let Err(rule) = check_path(path) {
            options.fault(reading, format_args!("the path {} {rule}", quote(path)));
        }
        let mut fields = options.fields(reading);
        let mut settings = GatewayPath::new(path);
        if let Some(value) = fields.get("durability") {
            const WORDS: &[(&str, Durability)] =
                &[("disk", Durability::Disk), ("memory", Durability::Memory)];
            settings.durability = word(&value, WORDS, reading).unwrap_or_default();
        }
        if let Some(value) = fields.get("slow_clients") {
            const WORDS: &[(&str, SlowClients)] = &[
                ("replay", SlowClients::Replay),
                ("drop_oldest", SlowClients::DropOldest),
                ("disconnect", SlowClients::Disconnect),
            ];
            settings.slow_clients = word(&value, WORDS, reading).unwrap_or_default();
        }
        if let Some(value) = fields.get("backlog_bytes") {
            let bytes = whole(&value, MIN_BACKLOG..=MAX_BACKLOG, reading);
            settings.backlog_bytes = bytes.unwrap_or(settings.backlog_bytes);
        }
        if let Some(value) = fields.get("retention") {
            settings.retention = retention(&value, reading);
        }
        fields.finish(reading);
        paths.push(settings);
    }
    paths
}

fn retention(value: &Value<'_>, reading: &mut Reading) -> Retention {
    let mut retention = Retention::default();
    let mut fields = value.fields(reading);
    if let Some(value) = fields.get("bytes") {
        let bytes = whole(&value, MIN_KEPT_BYTES..=MAX_KEPT_BYTES, reading);
        retention.bytes = bytes.map_or(retention.bytes, |bytes| bytes as u64);
    }
    if let Some(value) = fields.get("events") {
        let events = whole(&value, 1..=MAX_KEPT_EVENTS, reading);
        retention.events = events.map_or(retention.events, |events| events as u64);
    }
    if let Some(value) = fields.get("age") {
        retention.age = duration(&value, MIN_AGE..=MAX_AGE, reading).unwrap_or(retention.age);
    }
    fields.finish(reading);
    retention
}

/// A path is compared with the request's bytes, so it holds only what a URL path holds unescaped.
pub fn check_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err("must begin with '/'".into());
    }
    if path.len() > MAX_PATH {
        return Err(format!("is longer than {MAX_PATH} characters"));
    }
    if path.contains("//") || path.contains("..") {
        return Err("must not hold \"//\" or \"..\"".into());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:@".contains(c);
    match path.chars().find(|c| !allowed(*c)) {
        Some(other) => Err(format!("must not hold {other:?} (no query, no fragment, no escapes)")),
        None => Ok(()),
    }
}

/// A host name without scheme and port; lower-cased, as hosts are compared without case.
fn domain(value: &Value<'_>, reading: &mut Reading) -> Option<String> {
    let text = value.str(reading)?.to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if text.len() > 253 || !text.split('.').all(label) {
        let shown = value.shown();
        value.fault(
            reading,
            format_args!(
                "{shown} is not a host name, such as \"ws.example.org\" (no scheme, no port, no path)"
            ),
        );
    }
    Some(text)
}

/// The value of an `Origin` header, exactly as browsers send it.
fn origin(value: &Value<'_>, reading: &mut Reading) -> Option<String> {
    const RULE: &str = "is not an origin: scheme://host or scheme://host:port, as browsers send it";
    let text = value.str(reading)?;
    let parsed = url::Url::parse(text).ok().filter(|url| url.has_host());
    let Some(url) = parsed else {
        value.fault(reading, format_args!("{} {RULE}", value.shown()));
        return None;
    };
    // Browsers send http origins in one form only; other schemes (apps, extensions) in the form they have.
    let exact = match url.origin() {
        url::Origin::Tuple(..) => url.origin().ascii_serialization(),
        url::Origin::Opaque(_) => {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
        }
    };
    if exact != text {
        value.fault(reading, format_args!("{} {RULE}; write {}", value.shown(), quote(&exact)));
    }
    Some(text.to_owned())
}
