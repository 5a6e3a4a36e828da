//! What a configuration says, checked and with every default filled in.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::model::Resources;
use crate::model::id::Id;
use crate::model::role::{Right, Role};
use crate::telemetry::{LogFormat, trace};

/// Everything that a configuration file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where everything durable is kept.
    pub data_dir: PathBuf,
    /// The name that external brokers know this process by, as the beginning of its client ids.
    pub node: Id,
    /// The public side.
    pub gateway: GatewaySettings,
    /// The side of operators and programs.
    pub management: ManagementSettings,
    /// The embedded MQTT server; without it there is none.
    pub mqtt: Option<MqttSettings>,
    /// Log lines.
    pub log: LogSettings,
    /// Registries of devices and of images, brokers, gateways and triggers.
    pub resources: Resources,
    /// Who acts, and in which roles. Broadcasts are already checked against them.
    pub service_accounts: Vec<ServiceAccount>,
}

/// `gateway:`, the public side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewaySettings {
    /// Where WebSocket clients connect.
    pub listen: SocketAddr,
    /// Worker threads, 1 to 256; `None` is one for each core.
    pub workers: Option<usize>,
    /// Most WebSocket connections at once.
    pub max_connections: usize,
    /// Requests of one address in a second, on average.
    pub handshakes_per_second: u32,
    /// Time that a client has for its request.
    pub handshake_timeout: Duration,
    /// Proxies that are believed what they say of their clients.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// At stop the closing of clients is spread over this time, so that they do not all come back at once.
    pub drain: Duration,
    /// Servers on this machine that gateways may ask, as `HOST:PORT`; others of this machine they may not.
    pub allowed_local_targets: Vec<String>,
    /// The port's certificate.
    pub tls: Tls,
}

/// `management:`, the side of operators and programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagementSettings {
    /// REST, health, metrics.
    pub listen: SocketAddr,
    /// The certificate of that port.
    pub rest_tls: Tls,
    /// gRPC.
    pub grpc_listen: SocketAddr,
    /// The name that clients reach the gRPC port by, for its certificate and for those who ask for its address.
    pub host: Option<String>,
    /// The certificate of the gRPC port.
    pub tls: Tls,
    /// What the `aud` of a JWT may be, besides the addresses of the gRPC port.
    pub token_audiences: Vec<String>,
}

/// How a port proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// By a certificate of our own CA in `data_dir/tls`.
    Own,
    /// By a certificate in files.
    Given {
        /// PEM: the certificate, and those that lead to its CA.
        certificate_file: PathBuf,
        /// PEM: its key.
        key_file: PathBuf,
    },
    /// Not at all: for a proxy before it that does.
    Off,
}

/// `mqtt:`, the embedded MQTT server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttSettings {
    /// Where devices connect.
    pub listen: SocketAddr,
    /// Where they connect by TLS, and its certificate; never [`Tls::Off`].
    pub tls: Option<(SocketAddr, Tls)>,
    /// Whether the public side takes MQTT over WebSocket, at [`MQTT_PATH`](crate::model::gateway::MQTT_PATH).
    pub websocket: bool,
    /// Values of the Origin header that may do so; none are the host of the request itself, and this machine.
    pub websocket_origins: Vec<String>,
    /// Most MQTT connections at once.
    pub max_connections: usize,
}

/// `log:`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// Which events are followed by log lines; none: none.
    pub trace: Option<trace::Wanted>,
    /// How log lines look.
    pub format: LogFormat,
}

/// An account in whose name something is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// The account's id.
    pub id: Id,
    /// Such as `api-gateway.websocketBroadcaster`.
    pub roles: Vec<String>,
}

impl ServiceAccount {
    /// The narrowest roles that allow to broadcast, for messages.
    pub const BROADCASTERS: [&str; 3] =
        ["api-gateway.websocketBroadcaster", "api-gateway.editor", "api-gateway.admin"];

    /// Whether this account may broadcast.
    pub fn may_broadcast(&self) -> bool {
        let permits = |role: &String| Role::find(role).is_some_and(|role| role.permits(Right::Broadcast));
        self.roles.iter().any(permits)
    }
}

/// Defaults of the configuration, in one place.
pub(super) mod defaults {
    use super::{Duration, Ipv4Addr, SocketAddr};

    pub(crate) const DATA_DIR: &str = "./data";
    pub(crate) const NODE: &str = "triggercast";
    pub(crate) const GATEWAY: SocketAddr = loopback(8080);
    pub(crate) const MANAGEMENT: SocketAddr = loopback(8081);
    pub(crate) const GRPC: SocketAddr = loopback(8443);
    pub(crate) const MQTT: SocketAddr = loopback(1883);
    pub(crate) const GATEWAY_CONNECTIONS: usize = 50_000;
    pub(crate) const HANDSHAKES: u32 = 100;
    pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
    pub(crate) const MQTT_CONNECTIONS: usize = 10_000;
    pub(crate) const DRAIN: Duration = Duration::from_secs(1);

    const fn loopback(port: u16) -> SocketAddr {
        SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
    }
}
