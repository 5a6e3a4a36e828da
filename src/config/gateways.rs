//! `gateways`: ids, domains, origins and paths.

use std::time::Duration;

use super::accounts::items;
use super::authorizer;
use super::fields::{Fields, Reading, Spot, Value, quote};
use super::scalar::{boolean, declared_id, duration, whole, word};
use super::unique::Unique;
use super::{limits, openapi};
use crate::model::gateway::{Durability, Gateway, GatewayPath, MQTT_PATH, Retention, SlowClients};
use crate::model::limits::Limits;
use crate::model::path_template::PathTemplate;

const MIN_BACKLOG: usize = 65_536;
const MAX_BACKLOG: usize = 1_073_741_824;
const MIN_KEPT_BYTES: usize = 1024;
const MAX_KEPT_BYTES: usize = 1_099_511_627_776;
const MAX_KEPT_EVENTS: usize = 1_000_000_000;
const MIN_AGE: Duration = Duration::from_secs(1);
const MAX_AGE: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads `gateways`. With `mqtt_websocket` the public side has a path of its own for MQTT.
pub(super) fn read(root: &mut Fields<'_>, mqtt_websocket: bool, reading: &mut Reading) -> Vec<Gateway> {
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
        let mut limits = Limits::default();
        if let Some(value) = fields.get("limits") {
            limits::read(&value, &mut limits, reading);
        }
        let paths = match fields.one_of(&["paths", "openapi"], reading) {
            Some(("openapi", value)) => openapi::file(&value, &limits, reading),
            Some((_, value)) => paths(&value, &limits, reading),
            None => Vec::new(),
        };
        fields.finish(reading);
        if mqtt_websocket {
            check_mqtt(&id, &spot, domain.is_some(), &paths, reading);
        }
        gateways.push(Gateway { id, domain, allowed_origins, paths, is_stopped: false });
    }
    gateways
}

/// Nothing may look as if it were in the place of MQTT over WebSocket, and not be reached.
fn check_mqtt(id: &str, spot: &Spot, has_domain: bool, paths: &[GatewayPath], reading: &mut Reading) {
    const OTHER: &str = "choose another, or set `mqtt.websocket: off`";
    if id == &MQTT_PATH[1..] {
        reading.fault(spot, format_args!("{MQTT_PATH} is where MQTT clients connect by WebSocket; {OTHER}"));
    }
    let takes = |path: &&GatewayPath| {
        PathTemplate::parse(&path.path).is_ok_and(|template| template.matches(MQTT_PATH).is_some())
    };
    if let Some(path) = paths.iter().find(takes).filter(|_| has_domain) {
        let path = quote(&path.path);
        reading.fault(
            spot,
            format_args!(
                "under its `domain` the path {path} is where MQTT clients connect by WebSocket; {OTHER}"
            ),
        );
    }
}

fn paths(value: &Value<'_>, limits: &Limits, reading: &mut Reading) -> Vec<GatewayPath> {
    let faults = reading.faults.len();
    let entries = value.entries(reading);
    if entries.is_empty() && reading.faults.len() == faults {
        value.fault(reading, "a gateway needs at least one path, such as \"/ws\"");
    }
    let mut templates: Vec<(PathTemplate, &str)> = Vec::new();
    let mut paths = Vec::new();
    for (path, value) in entries {
        match PathTemplate::parse(path) {
            Err(rule) => value.fault(reading, format_args!("the path {} {rule}", quote(path))),
            Ok(template) => {
                check_alike(&template, &value, templates.iter().map(|(known, path)| (known, *path)), reading);
                templates.push((template, path));
            }
        }
        let mut settings = GatewayPath { limits: limits.clone(), ..GatewayPath::new(path) };
        let mut fields = value.fields(reading);
        options(&mut fields, &mut settings, reading);
        fields.finish(reading);
        paths.push(settings);
    }
    paths
}

/// Notes a path that matches the same requests as another.
pub(super) fn check_alike<'k>(
    template: &PathTemplate,
    value: &Value<'_>,
    mut known: impl Iterator<Item = (&'k PathTemplate, &'k str)>,
    reading: &mut Reading,
) {
    if let Some((_, other)) = known.find(|(known, _)| known.is_like(template)) {
        value.fault(reading, format_args!("matches the same requests as {}", quote(other)));
    }
}

/// Reads the settings of a path.
pub(super) fn options(fields: &mut Fields<'_>, settings: &mut GatewayPath, reading: &mut Reading) {
    if let Some(value) = fields.get("durability") {
        const WORDS: &[(&str, Durability)] = &[("disk", Durability::Disk), ("memory", Durability::Memory)];
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
    if let Some(value) = fields.get("limits") {
        limits::read(&value, &mut settings.limits, reading);
    }
    if let Some(value) = fields.get("deflate") {
        settings.deflate = boolean(&value, reading).unwrap_or_default();
    }
    settings.authorizer = fields.get("authorizer").and_then(|value| authorizer::read(&value, reading));
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
pub(super) fn origin(value: &Value<'_>, reading: &mut Reading) -> Option<String> {
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
