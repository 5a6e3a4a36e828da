//! Which port shows which certificate.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Names, ServeError};
use crate::config::{Settings, Tls};
use crate::tls::{self, Acceptor, Certificate, Clients, Source, Watcher};

/// How each port is secured; `None` is not at all.
pub(super) struct Secured {
    pub(super) gateway: Option<Acceptor>,
    pub(super) rest: Option<Acceptor>,
    pub(super) grpc: Option<Acceptor>,
    pub(super) mqtt: Option<Acceptor>,
    /// Watches the certificates.
    pub(super) watcher: Watcher,
}

/// What the handshakes of a port are about.
struct Port<'a> {
    key: &'static str,
    tls: &'a Tls,
    clients: Clients,
    protocols: &'a [&'a str],
}

/// Loads or makes the certificates. `names` are those of the gRPC port.
pub(super) fn secure(settings: &Settings, names: &Names) -> Result<Secured, ServeError> {
    let mut watcher = Watcher::default();
    let own = own(settings, names);
    let mut secure = |port: Port<'_>| {
        let wrong = |error: String| ServeError::Tls { key: port.key, error };
        let source = match port.tls {
            Tls::Off => return Ok(None),
            Tls::Own => own.clone(),
            Tls::Given { certificate_file, key_file } => {
                Source::Files { certificate: certificate_file.clone(), key: key_file.clone() }
            }
        };
        let certificate: Arc<Certificate> =
            watcher.certificate(source).map_err(|error| wrong(error.to_string()))?;
        let acceptor = Acceptor::new(certificate, port.clients, port.protocols);
        acceptor.map(Some).map_err(|error| wrong(error.to_string()))
    };
    let http = |key, tls| Port { key, tls, clients: Clients::Unknown, protocols: &["http/1.1"] };
    let gateway = secure(http("gateway.tls", &settings.gateway.tls))?;
    let rest = secure(http("management.rest_tls", &settings.management.rest_tls))?;
    let tls = &settings.management.tls;
    let grpc = secure(Port { key: "management.tls", tls, clients: Clients::Unknown, protocols: &["h2"] })?;
    let mqtt = match settings.mqtt.as_ref().and_then(|mqtt| mqtt.tls.as_ref()) {
        Some((_, tls)) => secure(Port { key: "mqtt.tls", tls, clients: Clients::Asked, protocols: &[] })?,
        None => None,
    };
    Ok(Secured { gateway, rest, grpc, mqtt, watcher })
}

/// The certificate of our own CA: one for all ports, by every name that they are reached by.
fn own(settings: &Settings, names: &Names) -> Source {
    let mut names = tls::Names { hosts: names.hosts.clone(), addresses: names.addresses.clone() };
    let domains = settings.resources.gateways.iter().filter_map(|gateway| gateway.domain.as_ref());
    for domain in domains {
        if !names.hosts.contains(domain) {
            names.hosts.push(domain.clone());
        }
    }
    let mqtt = settings.mqtt.as_ref().and_then(|mqtt| mqtt.tls.as_ref()).map(|(listen, _)| *listen);
    let listens = [Some(settings.gateway.listen), Some(settings.management.listen), mqtt];
    for ip in listens.into_iter().flatten().map(|listen: SocketAddr| listen.ip()) {
        if !ip.is_unspecified() && !names.addresses.contains(&ip) {
            names.addresses.push(ip);
        }
    }
    Source::Own { folder: settings.data_dir.join("tls"), names }
}
