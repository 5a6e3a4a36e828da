//! The implementations under test, behind one small trait.
//!
//! All know registry `r` with the devices `d1` (alias `hall/one`) and `d2`, and the broker `b`. Whoever logs
//! in has `{user}-password`.

use std::net::{SocketAddr, TcpListener};

use tokio::runtime::Handle;
use triggercast::model::Resources;
use triggercast::model::iot::{Alias, Broker, Credentials, Device, DeviceRegistry, ExternalBroker};
use triggercast::model::secret::Password;
use triggercast::model::trigger::MqttTopics;
use triggercast::mqtt::{Limits, Server};
use triggercast::source::Source;
use triggercast::source::embedded::EmbeddedSource;
use triggercast::source::mqtt::{MqttSource, MqttSourceSpec};

use super::mosquitto::Mosquitto;
use super::publisher::Publisher;

/// An implementation of `Source` with something to publish to.
pub(crate) trait Harness {
    /// The broker keeps what a source has not acknowledged, and sends it to the next source by itself. If
    /// not, the publisher is not acknowledged and sends again.
    const BROKER_KEEPS: bool;

    /// Starts the broker.
    fn start() -> Self;

    /// Where publishers connect.
    fn address(&self) -> SocketAddr;

    /// A source with room for `queue` groups.
    fn source(&self, source: &MqttTopics, queue: usize) -> Box<dyn Source>;

    /// A publisher that is logged in as `user`.
    async fn publisher(&self, user: &str) -> Publisher {
        Publisher::connect(self.address(), user).await
    }
}

/// What a trigger listens to on registry `r`.
pub(crate) fn registry(device_id: Option<&str>, topic: Option<&str>) -> MqttTopics {
    let (device_id, mqtt_topic) = (device_id.map(Into::into), topic.map(Into::into));
    MqttTopics::IotMessage { registry_id: "r".into(), device_id, mqtt_topic }
}

/// What a trigger listens to on broker `b`.
pub(crate) fn broker(topic: Option<&str>) -> MqttTopics {
    MqttTopics::IotBrokerMessage { broker_id: "b".into(), mqtt_topic: topic.map(Into::into) }
}

/// The spec of a source on an external broker.
pub(crate) fn spec(source: &MqttTopics, address: SocketAddr, login: Option<&str>) -> MqttSourceSpec {
    let credentials =
        login.map(|login| Credentials { username: login.to_owned(), password: format!("{login}-password") });
    let broker = ExternalBroker { host: address.ip().to_string(), port: address.port(), credentials };
    MqttSourceSpec::new(source, &broker, &[alias()], "conformance")
}

fn alias() -> Alias {
    Alias { name: "hall/one".into(), target: "$devices/d1".into() }
}

/// The embedded server's link.
pub(crate) struct Embedded(Server);

impl Harness for Embedded {
    const BROKER_KEEPS: bool = false;

    fn start() -> Self {
        let password = |id: &str| vec![Password::new(format!("{id}-password"))];
        let device = |id: &str, aliases| Device {
            id: id.into(),
            passwords: password(id),
            certificates: vec![],
            aliases,
        };
        let devices = vec![device("d1", vec![alias()]), device("d2", vec![])];
        let registry = DeviceRegistry {
            id: "r".into(),
            passwords: password("r"),
            certificates: vec![],
            devices,
            external: None,
        };
        let broker =
            Broker { id: "b".into(), passwords: password("b"), certificates: vec![], external: None };
        let resources =
            Resources { device_registries: vec![registry], brokers: vec![broker], ..Resources::default() };
        let limits = Limits { worker_threads: 2, ..Limits::default() };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self(Server::start(listener, &resources, limits).unwrap())
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr()
    }

    fn source(&self, source: &MqttTopics, queue: usize) -> Box<dyn Source> {
        Box::new(EmbeddedSource::new(self.0.link(source, queue).unwrap()))
    }
}

/// The client on a real Mosquitto. Its window of 20 is as it comes; its queue is not, since version 2.0.11
/// says that it drops messages (in its log only) when some hundred wait for a subscriber that keeps up.
pub(crate) struct ExternalMosquitto(Mosquitto);

impl Harness for ExternalMosquitto {
    const BROKER_KEEPS: bool = true;

    fn start() -> Self {
        Self(Mosquitto::start("max_queued_messages 100000"))
    }

    fn address(&self) -> SocketAddr {
        self.0.address()
    }

    fn source(&self, source: &MqttTopics, queue: usize) -> Box<dyn Source> {
        Box::new(MqttSource::with_queue(spec(source, self.address(), None), queue, &Handle::current()))
    }
}

/// The client on the embedded server: how `url: mqtt://…` works between two of these processes.
pub(crate) struct ExternalEmbedded(Embedded);

impl Harness for ExternalEmbedded {
    const BROKER_KEEPS: bool = true;

    fn start() -> Self {
        Self(Embedded::start())
    }

    fn address(&self) -> SocketAddr {
        self.0.address()
    }

    fn source(&self, source: &MqttTopics, queue: usize) -> Box<dyn Source> {
        let login = match source {
            MqttTopics::IotMessage { .. } => "r",
            MqttTopics::IotBrokerMessage { .. } => "b",
        };
        Box::new(MqttSource::with_queue(spec(source, self.address(), Some(login)), queue, &Handle::current()))
    }
}
