//! TLS for every port: certificates, handshakes, and sockets that are plain or encrypted. It is given sockets by
//! `gateway`, `mqtt` and `management`, and told by `server` which certificate is for which port.
//!
//! `own` makes certificates by a CA of our own, `served` keeps the one that a port shows up to date while it runs, and
//! [`Io`] is a socket after its handshake. TLS 1.2 and 1.3 are spoken, by rustls with ring.

mod client;
mod io;
mod own;
mod served;
#[cfg(test)]
pub(crate) mod tests;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, ServerConnection};
use tokio::net::TcpStream;
use tokio::time::timeout;

use self::client::AnyClient;
pub use self::client::{ClientError, client_config};
pub use self::io::{Detached, Io, MAX_UNSENT, Secured};
pub use self::own::{Names, ca_file};
pub use self::served::{Certificate, Source, Watcher};
use self::turns::{Full, Turns};
use crate::telemetry::{METRICS, count};

/// Time that a client has for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes of one port at a time; stops strangers from taking memory before they are known.
const MAX_HANDSHAKES: usize = 4096;
/// Those of one address, or of one /64 of IPv6, so that it cannot keep all others out.
const MAX_HANDSHAKES_OF_ONE: usize = 64;

/// What a port does with the certificates of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// They are not asked for one.
    Unknown,
    /// They are asked. Whatever they show is taken, if they prove that its key is theirs; whose it is the port's
    /// login decides.
    Asked,
}

/// Makes TLS connections of a port's sockets.
#[derive(Debug, Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    turns: Arc<Turns>,
    timeout: Duration,
}

impl Acceptor {
    /// Shows this certificate. `protocols` are told to clients that ask which are spoken (ALPN); with none they are not
    /// answered.
    pub fn new(
        certificate: Arc<Certificate>,
        clients: Clients,
        protocols: &[&str],
    ) -> Result<Self, rustls::Error> {
        let builder =
            ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let builder = match clients {
            Clients::Unknown => builder.with_client_cert_verifier(WebPkiClientVerifier::no_client_auth()),
            Clients::Asked => builder.with_client_cert_verifier(Arc::new(AnyClient::new(provider()))),
        };
        let mut config = builder.with_cert_resolver(certificate);
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        // Clients that come back together after a restart of a proxy or a network do so at a fraction of the cost.
        config.ticketer = rustls::crypto::ring::Ticketer::new()?;
        Ok(Self {
            config: Arc::new(config),
            turns: Arc::new(Turns::new(MAX_HANDSHAKES, MAX_HANDSHAKES_OF_ONE)),
            timeout: HANDSHAKE_TIMEOUT,
        })
    }

    /// Does the handshake.
    pub async fn accept(&self, tcp: TcpStream) -> std::io::Result<Io> {
        let peer = tcp.peer_addr().inspect_err(|_| count(&METRICS.tls_handshakes, "failed"))?;
        let _turn = match self.turns.take(peer.ip()) {
            Ok(turn) => turn,
            Err(full) => {
                let word = if full == Full::Port { "full" } else { "address_full" };
                count(&METRICS.tls_handshakes, word);
                return Err(std::io::ErrorKind::ConnectionRefused.into());
            }
        };
        let tls = ServerConnection::new(Arc::clone(&self.config)).map_err(std::io::Error::other)?;
        let done = timeout(self.timeout, Io::handshake(tcp, tls)).await;
        let done = done.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let word = match &done {
            Ok(_) => "done",
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => "timeout",
            Err(_) => "failed",
        };
        count(&METRICS.tls_handshakes, word);
        done.inspect_err(|error| tracing::debug!(%error, "a TLS handshake failed"))
    }

    /// The same socket, plain when there is no acceptor.
    pub async fn accept_by(acceptor: Option<&Self>, tcp: TcpStream) -> std::io::Result<Io> {
        match acceptor {
            Some(acceptor) => acceptor.accept(tcp).await,
            None => Ok(Io::Plain(tcp)),
        }
    }
}

/// Where ciphers and signatures come from.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
