//! The sections about the process itself: `data_dir`, `gateway`, `management`, `mqtt`, `log`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::accounts::items;
use super::fields::{Fields, Reading, Spot, Value};
use super::gateways::origin;
use super::scalar::{address, duration, http_url, whole, word};
use super::settings::{GatewaySettings, LogSettings, ManagementSettings, MqttSettings, Tls, defaults};
use super::tree::Kind;
use crate::model::gateway::MAX_WORKERS;
use crate::model::id::{self, Id};
use crate::model::network;
use crate::model::target::Target;
use crate::model::topic;
use crate::telemetry::{LogFormat, trace};

/// Most connections that may be asked for; more than one machine has file descriptors for.
const MAX_CONNECTIONS: usize = 10_000_000;
const MAX_HANDSHAKES: usize = 1_000_000;
const MIN_HANDSHAKE: Duration = Duration::from_secs(1);
const MAX_HANDSHAKE: Duration = Duration::from_secs(60);
/// Of so many events one may be followed.
const MAX_ONE_IN: usize = 1_000_000_000;
const MAX_DRAIN: Duration = Duration::from_secs(60);

/// The sections of this file, and the places of the addresses.
pub(super) struct Server {
    pub(super) data_dir: PathBuf,
    pub(super) node: Id,
    pub(super) gateway: GatewaySettings,
    pub(super) management: ManagementSettings,
    pub(super) mqtt: Option<MqttSettings>,
    pub(super) log: LogSettings,
    mqtt_spot: Spot,
    mqtt_tls_spot: Spot,
    gateway_spot: Spot,
    management_spot: Spot,
}

/// Reads the sections and checks that no two of them listen on one address.
pub(super) fn read(root: &mut Fields<'_>, reading: &mut Reading) -> Server {
    let mut listens = Listens::new();
    let data_dir = root.get("data_dir").and_then(|value| {
        let text = value.str(reading)?;
        if text.is_empty() {
            value.fault(reading, "\"\" is not a folder");
        }
        Some(text)
    });
    let node = root.get("node").and_then(|value| {
        let text = value.str(reading)?;
        if !id::check(text) {
            value.fault(reading, format_args!("{} is not a name for a node ({})", value.shown(), id::RULE));
        }
        Some(text)
    });
    let node = node.unwrap_or(defaults::NODE).into();
    let gateway = gateway(root, &mut listens, reading);
    let management = management(root, &mut listens, reading);
    let mqtt = mqtt(root, &mut listens, reading);
    let spot_of = |key: &str| {
        let spot = listens.iter().find(|(_, spot)| spot.key == key).map(|(_, spot)| spot.clone());
        spot.unwrap_or_default()
    };
    let mqtt_spot = spot_of("mqtt.listen");
    let mqtt_tls_spot = spot_of("mqtt.tls_listen");
    let gateway_spot = spot_of("gateway.listen");
    let management_spot = spot_of("management.listen");
    let log = log(root, reading);
    check_listens(&listens, reading);
    let data_dir = reading.folder.join(data_dir.unwrap_or(defaults::DATA_DIR));
    Server {
        data_dir,
        node,
        gateway,
        management,
        mqtt,
        log,
        mqtt_spot,
        mqtt_tls_spot,
        gateway_spot,
        management_spot,
    }
}

/// An address, or a network as ADDRESS/BITS.
fn network(value: &Value<'_>, reading: &mut Reading) -> Option<IpNet> {
    let text = value.str(reading)?;
    let network = network::parse(text);
    if network.is_none() {
        let shown = value.shown();
        value.fault(
            reading,
            format_args!("{shown} is neither an address nor a network, such as \"10.0.0.0/8\""),
        );
    }
    network
}

type Listens = Vec<(SocketAddr, Spot)>;

fn gateway(root: &mut Fields<'_>, listens: &mut Listens, reading: &mut Reading) -> GatewaySettings {
    let mut fields = section(root, "gateway", reading);
    let settings = GatewaySettings {
        listen: listen(&mut fields, "listen", defaults::GATEWAY, listens, reading),
        workers: fields.get("workers").and_then(|value| whole(&value, 1..=MAX_WORKERS, reading)),
        max_connections: max_connections(&mut fields, defaults::GATEWAY_CONNECTIONS, reading),
        handshakes_per_second: fields
            .get("handshakes_per_second")
            .and_then(|value| whole(&value, 1..=MAX_HANDSHAKES, reading))
            .map_or(defaults::HANDSHAKES, |number| number as u32),
        handshake_timeout: fields
            .get("handshake_timeout")
            .and_then(|value| duration(&value, MIN_HANDSHAKE..=MAX_HANDSHAKE, reading))
            .unwrap_or(defaults::HANDSHAKE_TIMEOUT),
        trusted_proxies: items(&mut fields, "trusted_proxies", reading)
            .iter()
            .filter_map(|value| network(value, reading))
            .collect(),
        drain: fields
            .get("drain")
            .and_then(|value| duration(&value, Duration::ZERO..=MAX_DRAIN, reading))
            .unwrap_or(defaults::DRAIN),
        allowed_local_targets: items(&mut fields, "allowed_local_targets", reading)
            .iter()
            .filter_map(|value| local_target(value, reading))
            .collect(),
        tls: fields.get("tls").map_or(Tls::Off, |value| tls(&value, &MAY_BE_OFF, reading)),
    };
    fields.finish(reading);
    settings
}

/// `HOST:PORT`.
fn local_target(value: &Value<'_>, reading: &mut Reading) -> Option<String> {
    let text = value.str(reading)?;
    if Target::parse(text).is_none() {
        let shown = value.shown();
        value.fault(
            reading,
            format_args!("{shown} is not HOST:PORT, such as \"127.0.0.1:9000\" (no scheme, no path)"),
        );
    }
    Some(text.to_owned())
}

fn management(root: &mut Fields<'_>, listens: &mut Listens, reading: &mut Reading) -> ManagementSettings {
    let mut fields = section(root, "management", reading);
    let settings = ManagementSettings {
        listen: listen(&mut fields, "listen", defaults::MANAGEMENT, listens, reading),
        grpc_listen: listen(&mut fields, "grpc_listen", defaults::GRPC, listens, reading),
        host: fields.get("host").and_then(|value| host(&value, reading)),
        rest_tls: fields.get("rest_tls").map_or(Tls::Off, |value| tls(&value, &MAY_BE_OFF, reading)),
        tls: fields.get("tls").map_or(Tls::Own, |value| tls(&value, &MAY_BE_OFF, reading)),
        token_audiences: items(&mut fields, "token_audiences", reading)
            .iter()
            .filter_map(|value| value.str(reading).map(str::to_owned))
            .collect(),
    };
    fields.finish(reading);
    settings
}

/// A host name or an address, without a port.
fn host(value: &Value<'_>, reading: &mut Reading) -> Option<String> {
    let text = value.str(reading)?;
    if url::Host::parse(text).is_err() && text.parse::<std::net::IpAddr>().is_err() {
        let shown = value.shown();
        value.fault(reading, format_args!("{shown} is not a host name or an address (no scheme, no port)"));
    }
    Some(text.to_owned())
}

/// What may stand in the place of files.
const MAY_BE_OFF: [(&str, bool); 2] = [("own", true), ("off", false)];

/// `own`, `off`, or `{certificate_file, key_file}`.
fn tls(value: &Value<'_>, words: &[(&str, bool)], reading: &mut Reading) -> Tls {
    if matches!(value.node.kind, Kind::Text(_)) {
        let is_on = word(value, words, reading);
        return if is_on == Some(false) { Tls::Off } else { Tls::Own };
    }
    let mut fields = value.fields(reading);
    let certificate = fields.need("certificate_file", reading);
    let key = fields.need("key_file", reading);
    fields.finish(reading);
    let mut file = |value: Option<Value<'_>>| {
        let name = value?.str(reading)?;
        Some(reading.folder.join(name))
    };
    match (file(certificate), file(key)) {
        (Some(certificate_file), Some(key_file)) => Tls::Given { certificate_file, key_file },
        _ => Tls::Own,
    }
}

/// `mqtt:` alone, with nothing under it, is a server with the defaults; only without the key there is none.
fn mqtt(root: &mut Fields<'_>, listens: &mut Listens, reading: &mut Reading) -> Option<MqttSettings> {
    let mut fields = root.get_or_null("mqtt")?.fields(reading);
    let tls_listen = fields.get("tls_listen").and_then(|value| {
        let address = address(&value, reading)?;
        listens.push((address, value.spot));
        Some(address)
    });
    let tls = fields.get("tls");
    if let (None, Some(tls)) = (tls_listen, &tls) {
        tls.fault(reading, "is the certificate of `tls_listen`, which is missing");
    }
    let tls = tls.map_or(Tls::Own, |value| self::tls(&value, &[("own", true)], reading));
    const WORDS: &[(&str, bool)] = &[("on", true), ("off", false)];
    let websocket = fields.get("websocket").and_then(|value| word(&value, WORDS, reading)).unwrap_or(true);
    let origins = items(&mut fields, "websocket_origins", reading);
    let settings = MqttSettings {
        listen: listen(&mut fields, "listen", defaults::MQTT, listens, reading),
        tls: tls_listen.map(|address| (address, tls)),
        websocket,
        websocket_origins: origins.iter().filter_map(|value| origin(value, reading)).collect(),
        max_connections: max_connections(&mut fields, defaults::MQTT_CONNECTIONS, reading),
    };
    fields.finish(reading);
    Some(settings)
}

fn log(root: &mut Fields<'_>, reading: &mut Reading) -> LogSettings {
    let mut fields = section(root, "log", reading);
    let words = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = fields.get("format").and_then(|value| word(&value, &words, reading)).unwrap_or_default();
    let trace = fields.get("trace").and_then(|value| trace(&value, reading));
    fields.finish(reading);
    LogSettings { format, trace }
}

/// `on`, `off`, or `{one_in, device, topic, otlp}`.
fn trace(value: &Value<'_>, reading: &mut Reading) -> Option<trace::Wanted> {
    if matches!(value.node.kind, Kind::Text(_)) {
        let is_on = word(value, &[("on", true), ("off", false)], reading);
        return is_on.filter(|is_on| *is_on).map(|_| trace::Wanted::default());
    }
    let mut fields = value.fields(reading);
    let one_in = fields.get("one_in").and_then(|value| whole(&value, 1..=MAX_ONE_IN, reading));
    let device = fields.get("device").and_then(|value| value.str(reading).map(str::to_owned));
    let topic = fields.get("topic").and_then(|value| {
        let text = value.str(reading)?;
        if let Err(error) = topic::check_filter(text) {
            value.fault(reading, format_args!("{} {error}", value.shown()));
        }
        Some(text.to_owned())
    });
    let otlp = fields.get("otlp").and_then(|value| http_url(&value, reading));
    fields.finish(reading);
    Some(trace::Wanted { one_in: one_in.map_or(1, |number| number as u32), device, topic, otlp })
}

/// A section that acts with all its defaults when it is not there.
fn section<'a>(root: &mut Fields<'a>, name: &'static str, reading: &mut Reading) -> Fields<'a> {
    match root.get(name) {
        Some(value) => value.fields(reading),
        None => Fields::none(Spot { key: name.to_owned(), place: None }),
    }
}

fn max_connections(fields: &mut Fields<'_>, default: usize, reading: &mut Reading) -> usize {
    fields
        .get("max_connections")
        .and_then(|value| whole(&value, 1..=MAX_CONNECTIONS, reading))
        .unwrap_or(default)
}

fn listen(
    fields: &mut Fields<'_>,
    name: &'static str,
    default: SocketAddr,
    listens: &mut Listens,
    reading: &mut Reading,
) -> SocketAddr {
    // A default has no place: a collision with it is the fault of the address that is written.
    let silent = Spot { key: format!("{}.{name}", fields.spot.key), place: None };
    let (address, spot) = match fields.get(name) {
        Some(value) => (address(&value, reading), value.spot),
        None => (Some(default), silent),
    };
    // A wrong address is a fault already; it must not also be a duplicate.
    listens.extend(address.map(|address| (address, spot)));
    address.unwrap_or(default)
}

fn check_listens(listens: &Listens, reading: &mut Reading) {
    for (index, (address, spot)) in listens.iter().enumerate() {
        let same = |(other, _): &&(SocketAddr, Spot)| {
            let one_ip = address.ip() == other.ip();
            address.port() != 0
                && address.port() == other.port()
                && (one_ip || address.ip().is_unspecified() || other.ip().is_unspecified())
        };
        if let Some((first_address, first)) = listens[..index].iter().find(same) {
            let (address, at, other) = match spot.place {
                Some(_) => (address, spot, first),
                None => (first_address, first, spot),
            };
            let default = if other.place.is_none() { ", its default" } else { "" };
            let other = &other.key;
            reading.fault(
                at,
                format_args!("{address} is already the address of {other}{default}; give each its own port"),
            );
        }
    }
}

/// Refuses ports that others can reach while what guards them stands in the file.
pub(super) fn check_demo_passwords(server: &Server, reading: &mut Reading) {
    if let Some(mqtt) = &server.mqtt {
        let other = "put argon2 hashes (\"$argon2id$…\") in their place, or use `password_file`";
        let keys = std::mem::take(&mut reading.demo_passwords);
        let mut check = |listen: SocketAddr, spot: &Spot, other: &str| {
            check_exposed(listen, spot, "passwords", &keys, other, reading);
        };
        check(mqtt.listen, &server.mqtt_spot, other);
        if let Some((listen, _)) = mqtt.tls {
            check(listen, &server.mqtt_tls_spot, other);
        }
        if mqtt.websocket {
            let other = format!("set `mqtt.websocket: off`, or {other}");
            check(server.gateway.listen, &server.gateway_spot, &other);
        }
    }
    let keys = std::mem::take(&mut reading.demo_tokens);
    let (listen, spot) = (server.management.listen, &server.management_spot);
    check_exposed(listen, spot, "tokens", &keys, "use `webhook_token_file`", reading);
}

fn check_exposed(
    listen: SocketAddr,
    spot: &Spot,
    what: &str,
    keys: &[String],
    other: &str,
    reading: &mut Reading,
) {
    const MOST_NAMED: usize = 3;
    if listen.ip().is_loopback() || keys.is_empty() {
        return;
    }
    let mut named = keys.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
    if keys.len() > MOST_NAMED {
        named.push_str(&format!(" and {} more", keys.len() - MOST_NAMED));
    }
    let message = format!(
        "{listen} can be reached by others, and {what} stand in this file in plain text ({named}); \
         {other} or \"${{VARIABLE}}\", or listen on 127.0.0.1"
    );
    reading.fault(spot, message);
}
