//! A server with the registry and broker of these tests, and a client that speaks in exact bytes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use triggercast::model::Resources;
use triggercast::model::event::Event;
use triggercast::model::iot::{Alias, Broker, Device, DeviceRegistry};
use triggercast::model::receipt::Arrivals;
use triggercast::model::secret::Password;
use triggercast::model::trigger::MqttTopics;
use triggercast::mqtt::{Limits, Link, Server};

/// The longest that anything may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

pub(crate) const V3: u8 = 4;
pub(crate) const V5: u8 = 5;

/// `r` with `d1` (alias `hall/one`), `d2` (`hall/two`) and a device without a password, `r2` with `d3`, and the
/// broker `b`. A password is the id and `-password`.
pub(crate) fn resources() -> Resources {
    let password = |id: &str| vec![Password::new(format!("{id}-password"))];
    let device = |id: &str, alias: &str| Device {
        id: id.into(),
        passwords: password(id),
        certificates: vec![],
        aliases: vec![Alias { name: alias.into(), target: format!("$devices/{id}") }],
    };
    let registry = |id: &str, devices| DeviceRegistry {
        id: id.into(),
        passwords: password(id),
        certificates: vec![],
        devices,
        external: None,
    };
    let locked = Device { id: "locked".into(), passwords: vec![], certificates: vec![], aliases: vec![] };
    Resources {
        device_registries: vec![
            registry("r", vec![device("d1", "hall/one"), device("d2", "hall/two"), locked]),
            registry("r2", vec![device("d3", "hall/three")]),
        ],
        brokers: vec![Broker {
            id: "b".into(),
            passwords: password("b"),
            certificates: vec![],
            external: None,
        }],
        ..Resources::default()
    }
}

pub(crate) fn server() -> Server {
    server_with(Limits::default())
}

pub(crate) fn server_with(limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    Server::start(listener, &resources(), Limits { worker_threads: 2, ..limits }).unwrap()
}

pub(crate) fn source(topic: Option<&str>) -> MqttTopics {
    MqttTopics::IotMessage { registry_id: "r".into(), device_id: None, mqtt_topic: topic.map(Into::into) }
}

/// A link to everything of registry `r`.
pub(crate) fn link(server: &Server) -> Link {
    server.link(&source(None), 64).unwrap()
}

/// Waits for what a condition says.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "waited for: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// The next group of a link; `None` at its end.
pub(crate) fn group(link: &mut Link) -> Option<Arrivals> {
    block_on(async {
        tokio::time::timeout(LIMIT, std::future::poll_fn(|cx| link.poll_next(cx))).await.expect("a group")
    })
}

/// The next group if there is one already.
pub(crate) fn ready_group(link: &mut Link) -> Option<Arrivals> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match link.poll_next(&mut cx) {
        std::task::Poll::Ready(group) => group,
        std::task::Poll::Pending => None,
    }
}

/// The next `count` events, accepted.
pub(crate) fn events(link: &mut Link, count: usize) -> Vec<serde_json::Value> {
    let mut found = Vec::new();
    while found.len() < count {
        let Arrivals { events, receipt, .. } = group(link).expect("events");
        receipt.accept();
        found.extend(events.iter().map(details));
    }
    assert_eq!(found.len(), count);
    found
}

/// An event's details.
pub(crate) fn details(event: &Event) -> serde_json::Value {
    let json: serde_json::Value = serde_json::from_slice(&event.json).unwrap();
    json["details"].clone()
}

/// An event's payload.
pub(crate) fn payload(details: &serde_json::Value) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(details["payload"].as_str().unwrap()).unwrap()
}

/// A packet: its first byte, its length, its body.
pub(crate) fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut out = vec![first];
    let mut left = body.len();
    loop {
        let byte = (left & 0x7f) as u8;
        left >>= 7;
        out.push(if left > 0 { byte | 0x80 } else { byte });
        if left == 0 {
            break;
        }
    }
    out.extend(body);
    out
}

/// A text with its length.
pub(crate) fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = text.as_ref();
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

/// What a CONNECT says.
#[derive(Clone)]
pub(crate) struct Hello {
    pub(crate) version: u8,
    pub(crate) user: String,
    pub(crate) password: Option<String>,
    pub(crate) client: String,
    pub(crate) clean: bool,
    pub(crate) keep_alive: u16,
    /// Properties of 5.0.
    pub(crate) properties: Vec<u8>,
    /// Flags (QoS and RETAIN bits), properties, topic, payload.
    pub(crate) will: Option<(u8, Vec<u8>, String, String)>,
}

impl Hello {
    pub(crate) fn new(version: u8, user: &str) -> Self {
        Self {
            version,
            user: user.into(),
            password: Some(format!("{user}-password")),
            client: String::new(),
            clean: true,
            keep_alive: 0,
            properties: vec![],
            will: None,
        }
    }

    /// A persistent session of this client id.
    pub(crate) fn persistent(version: u8, user: &str, client: &str) -> Self {
        let properties = if version == V5 { vec![0x11, 0, 0, 1, 0] } else { vec![] };
        Self { client: client.into(), clean: false, properties, ..Self::new(version, user) }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean) << 1;
        let mut tail = Vec::new();
        if let Some((will_flags, properties, topic, payload)) = &self.will {
            flags |= 0x04 | will_flags;
            if self.version == V5 {
                tail.push(properties.len() as u8);
                tail.extend(properties);
            }
            tail.extend([text(topic), text(payload)].concat());
        }
        if !self.user.is_empty() {
            flags |= 0x80;
            tail.extend(text(&self.user));
        }
        if let Some(password) = &self.password {
            flags |= 0x40;
            tail.extend(text(password));
        }
        let properties = match self.version {
            V5 => [&[self.properties.len() as u8], &self.properties[..]].concat(),
            _ => vec![],
        };
        let fixed = [self.version, flags];
        let keep_alive = self.keep_alive.to_be_bytes();
        packet(0x10, &[&text("MQTT"), &fixed, &keep_alive, &properties, &text(&self.client), &tail])
    }

    /// Connects and is let in.
    pub(crate) fn enter(&self, server: &Server) -> Raw {
        let (mut raw, answer) = self.knock(server.local_addr());
        let code = answer.get(3).copied();
        assert_eq!((answer.first(), code), (Some(&0x20), Some(0)), "{} {answer:x?}", self.user);
        raw.version = self.version;
        raw.session_present = answer[2] == 1;
        raw
    }

    /// Connects; gives the CONNACK, or nothing if the server closes.
    pub(crate) fn knock(&self, address: SocketAddr) -> (Raw, Vec<u8>) {
        let mut raw = Raw::open(address);
        raw.version = self.version;
        raw.send(&self.bytes());
        let answer = raw.next().unwrap_or_default();
        (raw, answer)
    }
}

/// A socket that speaks MQTT by hand.
pub(crate) struct Raw {
    pub(crate) version: u8,
    pub(crate) session_present: bool,
    stream: TcpStream,
}

impl Raw {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { version: V3, session_present: false, stream }
    }

    /// Logs in as this user with 3.1.1 and a clean session.
    pub(crate) fn v3(server: &Server, user: &str) -> Self {
        Hello::new(V3, user).enter(server)
    }

    /// Logs in as this user with 5.0 and a clean session.
    pub(crate) fn v5(server: &Server, user: &str) -> Self {
        Hello::new(V5, user).enter(server)
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends what the server may not read any more.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next packet, whole; `None` if the connection is closed.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        let mut header = vec![0];
        match self.stream.read(&mut header) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return None,
            Err(e) => panic!("waited for a packet: {e}"),
        }
        let mut length = 0;
        for shift in 0..4 {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap();
            header.push(byte[0]);
            length |= usize::from(byte[0] & 0x7f) << (7 * shift);
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let start = header.len();
        header.resize(start + length, 0);
        self.stream.read_exact(&mut header[start..]).unwrap();
        Some(header)
    }

    /// The next packet must be this.
    #[track_caller]
    pub(crate) fn expect(&mut self, bytes: &[u8]) {
        assert_eq!(self.next().as_deref(), Some(bytes));
    }

    /// Nothing has come, and the server still answers.
    #[track_caller]
    pub(crate) fn expect_quiet(&mut self) {
        self.send(&[0xc0, 0]);
        self.expect(&[0xd0, 0]);
    }

    /// The server closes, with nothing more to say.
    #[track_caller]
    pub(crate) fn expect_closed(&mut self) {
        assert_eq!(self.next(), None);
    }

    /// The server says goodbye with this code, if it may, and closes.
    #[track_caller]
    pub(crate) fn expect_disconnect(&mut self, code: u8) {
        if self.version == V5 {
            self.expect(&[0xe0, 1, code]);
        }
        self.expect_closed();
    }

    pub(crate) fn publish_bytes(&self, qos: u8, id: u16, topic: &str, payload: &[u8]) -> Vec<u8> {
        self.publish_with(qos << 1, id, topic, &[], payload)
    }

    /// `flags` are the low bits of the first byte.
    pub(crate) fn publish_with(
        &self,
        flags: u8,
        id: u16,
        topic: &str,
        properties: &[u8],
        payload: &[u8],
    ) -> Vec<u8> {
        let id = if flags & 6 == 0 { vec![] } else { id.to_be_bytes().to_vec() };
        let properties = match self.version {
            V5 => [&[properties.len() as u8], properties].concat(),
            _ => vec![],
        };
        packet(0x30 | flags, &[&text(topic), &id, &properties, payload])
    }

    pub(crate) fn publish(&mut self, qos: u8, id: u16, topic: &str, payload: &[u8]) {
        let bytes = self.publish_bytes(qos, id, topic, payload);
        self.send(&bytes);
    }

    /// Subscribes; gives the reason code.
    pub(crate) fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        self.subscribe_with(filter, options, &[])
    }

    pub(crate) fn subscribe_with(&mut self, filter: &str, options: u8, properties: &[u8]) -> u8 {
        let properties = match self.version {
            V5 => [&[properties.len() as u8], properties].concat(),
            _ => vec![],
        };
        self.send(&packet(0x82, &[&[0, 9], &properties, &text(filter), &[options]]));
        let answer = self.next().unwrap();
        assert_eq!(&answer[..1], [0x90]);
        assert_eq!(&answer[2..4], [0, 9]);
        *answer.last().unwrap()
    }

    pub(crate) fn unsubscribe(&mut self, filter: &str) -> Vec<u8> {
        let properties: &[u8] = if self.version == V5 { &[0] } else { &[] };
        self.send(&packet(0xa2, &[&[0, 8], properties, &text(filter)]));
        self.next().unwrap()
    }

    /// A 3.1.1 or 5.0 PUBLISH: first byte, topic, packet id, properties, payload.
    #[track_caller]
    pub(crate) fn message(&mut self) -> Message {
        let bytes = self.next().expect("a message");
        assert_eq!(bytes[0] & 0xf0, 0x30, "{bytes:x?}");
        let body = &bytes[1 + bytes[1..].iter().position(|b| b & 0x80 == 0).unwrap() + 1..];
        let (topic, mut rest) = body[2..].split_at(usize::from(u16::from_be_bytes([body[0], body[1]])));
        let mut id = 0;
        if bytes[0] & 6 != 0 {
            id = u16::from_be_bytes([rest[0], rest[1]]);
            rest = &rest[2..];
        }
        let mut properties: &[u8] = &[];
        if self.version == V5 {
            (properties, rest) = rest[1..].split_at(usize::from(rest[0]));
        }
        Message {
            flags: bytes[0] & 0x0f,
            topic: String::from_utf8(topic.to_vec()).unwrap(),
            id,
            properties: properties.to_vec(),
            payload: rest.to_vec(),
        }
    }

    /// The next message's topic and payload.
    #[track_caller]
    pub(crate) fn topic_and_text(&mut self) -> (String, String) {
        let message = self.message();
        (message.topic, String::from_utf8(message.payload).unwrap())
    }

    pub(crate) fn puback(&mut self, id: u16) {
        let [high, low] = id.to_be_bytes();
        self.send(&[0x40, 2, high, low]);
    }

    /// Says goodbye and waits until the server has closed.
    pub(crate) fn leave(mut self) {
        self.send(&[0xe0, 0]);
        while self.next().is_some() {}
    }

    /// Is lost without a word; gives when the server has noticed.
    pub(crate) fn vanish(self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        let mut this = self;
        while this.next().is_some() {}
    }
}

/// A received PUBLISH.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) flags: u8,
    pub(crate) topic: String,
    pub(crate) id: u16,
    pub(crate) properties: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}
