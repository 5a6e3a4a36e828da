//! `iot`: device registries with their devices, and brokers.

use super::accounts::items;
use super::aliases::{self, Placed};
use super::fields::{Fields, Reading, Value};
use super::scalar::declared_id;
use super::secret::{Secret, login, read_small, secret};
use super::unique::Unique;
use crate::model::certificate::Certificate;
use crate::model::iot::{Broker, Credentials, Device, DeviceRegistry, ExternalBroker};

const DIFFER: &str = "ids of registries, devices and brokers must differ, as they are MQTT user names";
const DEFAULT_PORT: u16 = 1883;
/// As many as the management API allows.
const MAX_CERTIFICATES: usize = 10;
/// Longest file of a certificate, in bytes; it stops a wrong file name from being read whole.
const MAX_PEM: usize = 64 * 1024;

/// Reads `iot`.
pub(super) fn read(root: &mut Fields<'_>, reading: &mut Reading) -> (Vec<DeviceRegistry>, Vec<Broker>) {
    let Some(value) = root.get("iot") else { return Default::default() };
    let mut fields = value.fields(reading);
    let mut logins = Logins::default();
    let registries = items(&mut fields, "registries", reading);
    let registries = registries.iter().map(|item| registry(item, &mut logins, reading)).collect();
    let brokers = items(&mut fields, "brokers", reading);
    let brokers = brokers.iter().map(|item| broker(item, &mut logins, reading)).collect();
    fields.finish(reading);
    (registries, brokers)
}

/// What clients log in with, each for one of them only.
#[derive(Default)]
struct Logins {
    names: Unique,
    certificates: Unique,
}

/// `certificates`: each is a text in PEM form, or the name of a file that holds it.
fn certificates(
    fields: &mut Fields<'_>,
    embedded: bool,
    logins: &mut Logins,
    reading: &mut Reading,
) -> Vec<Certificate> {
    const RULE: &str = "a certificate is that of one registry, device or broker only";
    let items = items(fields, "certificates", reading);
    if let Some(first) = items.first().filter(|_| !embedded) {
        first.fault(reading, "is for the MQTT server of this program only; here `url` names another broker");
        return Vec::new();
    }
    if let Some(first) = items.get(MAX_CERTIFICATES) {
        first.fault(
            reading,
            format_args!("{} certificates; at most {MAX_CERTIFICATES} are allowed", items.len()),
        );
    }
    let mut certificates = Vec::new();
    for item in &items {
        let Some(certificate) = certificate(item, reading) else { continue };
        logins.certificates.declare(&certificate.name, RULE, &item.spot, reading);
        certificates.push(certificate);
    }
    certificates
}

fn certificate(item: &Value<'_>, reading: &mut Reading) -> Option<Certificate> {
    let text = item.str(reading)?;
    let is_inline = text.contains("-----BEGIN");
    let read = if is_inline {
        Ok(text.to_owned())
    } else {
        read_small(&reading.folder.join(text), MAX_PEM)
            .and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other))
            .map_err(|error| format!("{} cannot be read: {error}", item.shown()))
    };
    let certificate = read.and_then(|pem| {
        let shown = if is_inline { "the text".to_owned() } else { item.shown() };
        Certificate::of_pem(&pem).map_err(|error| format!("{shown} {error}"))
    });
    certificate.map_err(|fault| item.fault(reading, fault)).ok()
}

fn registry(item: &Value<'_>, logins: &mut Logins, reading: &mut Reading) -> DeviceRegistry {
    let mut fields = item.fields(reading);
    let (id, spot) = declared_id(&mut fields, reading);
    logins.names.declare(&id, DIFFER, &spot, reading);
    let (external, own) = home(&mut fields, reading);
    let password = if external.is_some() { None } else { login(own, reading) };
    let certificates = certificates(&mut fields, external.is_none(), logins, reading);
    let mut placed = Vec::new();
    let devices = items(&mut fields, "devices", reading)
        .iter()
        .map(|item| device(item, external.is_none(), logins, &mut placed, reading))
        .collect();
    aliases::check_prefixes(&placed, reading);
    fields.finish(reading);
    DeviceRegistry { id, passwords: password.into_iter().collect(), certificates, devices, external }
}

fn device(
    item: &Value<'_>,
    embedded: bool,
    logins: &mut Logins,
    placed: &mut Vec<Placed>,
    reading: &mut Reading,
) -> Device {
    let mut fields = item.fields(reading);
    let (id, spot) = declared_id(&mut fields, reading);
    logins.names.declare(&id, DIFFER, &spot, reading);
    let own = secret(&mut fields, "password", "password_file", reading);
    // On an external broker nobody logs in here: the password is nobody's demo password.
    let demo_passwords = reading.demo_passwords.len();
    let password = login(own, reading);
    if !embedded {
        reading.demo_passwords.truncate(demo_passwords);
    }
    let certificates = certificates(&mut fields, embedded, logins, reading);
    let aliases =
        fields.get("aliases").map(|value| aliases::read(&value, &id, placed, reading)).unwrap_or_default();
    fields.finish(reading);
    Device { id, passwords: password.into_iter().collect(), certificates, aliases }
}

fn broker(item: &Value<'_>, logins: &mut Logins, reading: &mut Reading) -> Broker {
    let mut fields = item.fields(reading);
    let (id, spot) = declared_id(&mut fields, reading);
    logins.names.declare(&id, DIFFER, &spot, reading);
    let (external, own) = home(&mut fields, reading);
    let password = if external.is_some() { None } else { login(own, reading) };
    let certificates = certificates(&mut fields, external.is_none(), logins, reading);
    fields.finish(reading);
    Broker { id, passwords: password.into_iter().collect(), certificates, external }
}

/// Where a registry or broker lives: with `url` on an external broker, where `username` and `password` are
/// what we log in with; without it on the embedded server, where `password` is its own login.
fn home(fields: &mut Fields<'_>, reading: &mut Reading) -> (Option<ExternalBroker>, Option<Secret>) {
    let url = fields.get("url");
    let username = fields.get("username");
    let own = secret(fields, "password", "password_file", reading);
    let Some(url) = url else {
        if let Some(username) = username {
            username.fault(
                reading,
                "is for external brokers only: add `url`, or remove it (here the id is the user name)",
            );
        }
        return (None, own);
    };
    let has_password = fields.has("password") || fields.has("password_file");
    match (username.is_some(), has_password) {
        (true, false) => fields.missing("password", reading),
        (false, true) => fields.missing("username", reading),
        _ => {}
    }
    let username = username.and_then(|value| user_name(&value, reading));
    let credentials = match (username, own) {
        (Some(username), Some(secret)) => Some(Credentials { username, password: secret.text }),
        _ => None,
    };
    let (host, port) = address(&url, reading).unwrap_or_default();
    (Some(ExternalBroker { host, port, credentials }), None)
}

fn user_name(value: &Value<'_>, reading: &mut Reading) -> Option<String> {
    let text = value.str(reading)?;
    if text.is_empty() || text.len() > 1024 || text.contains('\0') {
        value.fault(reading, "a user name has 1 to 1024 bytes and no null character");
    }
    Some(text.to_owned())
}

fn address(value: &Value<'_>, reading: &mut Reading) -> Option<(String, u16)> {
    mqtt_address(value.str(reading)?).map_err(|fault| value.fault(reading, fault)).ok()
}

/// Reads `mqtt://HOST[:PORT]`. The error never shows the text, as it may hold a password.
pub fn mqtt_address(text: &str) -> Result<(String, u16), &'static str> {
    let url = url::Url::parse(text).ok();
    let fault = match &url {
        Some(url) if url.scheme() == "mqtts" => "TLS to external brokers (mqtts) is not supported yet",
        Some(url) if url.scheme() != "mqtt" => "the URL must be mqtt://HOST[:PORT]",
        Some(url) if !url.username().is_empty() || url.password().is_some() => {
            "the URL must not hold a login; use the keys `username` and `password`"
        }
        Some(url) if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() => {
            "the URL must be mqtt://HOST[:PORT], with nothing behind"
        }
        Some(url) if url.port() == Some(0) => "the URL's port must be 1 to 65535",
        Some(url) => match url.host() {
            Some(url::Host::Ipv6(ip)) => return Ok((ip.to_string(), port(url))),
            Some(host) if !host.to_string().is_empty() => return Ok((host.to_string(), port(url))),
            _ => "the URL must name a host: mqtt://HOST[:PORT]",
        },
        None => "the URL must be mqtt://HOST[:PORT]",
    };
    Err(fault)
}

fn port(url: &url::Url) -> u16 {
    url.port().unwrap_or(DEFAULT_PORT)
}
