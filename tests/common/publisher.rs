//! An MQTT 3.1.1 publisher that never gives up: what is not acknowledged is sent again after a reconnect.
//!
//! Small and exact on purpose: tests of loss and order must not depend on a client library's own recovery.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest that a connection or an acknowledgement may take.
const LIMIT: Duration = Duration::from_secs(30);

/// One session with a broker.
pub(crate) struct Publisher {
    address: SocketAddr,
    connect: Vec<u8>,
    stream: Option<TcpStream>,
    last_id: u16,
    open: VecDeque<Open>,
    /// Acknowledged publishes are kept, too.
    cautious: bool,
}

/// A publish that is not acknowledged yet.
struct Open {
    id: u16,
    packet: Vec<u8>,
    /// QoS 2, and PUBREC has come.
    released: bool,
    acknowledged: bool,
}

impl Publisher {
    /// Connects with a persistent session; `login` is the user name, and `{login}-password` the password.
    pub(crate) async fn connect(address: SocketAddr, login: &str) -> Self {
        let client_id = format!("publisher-{login}-{}", uuid::Uuid::now_v7().simple());
        let mut body = text("MQTT");
        body.extend([4, 0b1100_0000, 0, 60]);
        for field in [&client_id, login, &format!("{login}-password")] {
            body.extend(text(field));
        }
        let mut publisher = Self {
            address,
            connect: packet(0x10, &body),
            stream: None,
            last_id: 0,
            open: VecDeque::new(),
            cautious: false,
        };
        publisher.stream = Some(publisher.stream().await);
        publisher
    }

    /// Sends again, on every new connection, also what was acknowledged since now or the last call: a broker
    /// may acknowledge what is not in its file yet.
    pub(crate) fn keep_from_here(&mut self) {
        self.cautious = true;
        self.open.retain(|open| !open.acknowledged);
    }

    /// Publishes a retained message with QoS 1.
    pub(crate) async fn retain(&mut self, topic: &str, payload: &[u8]) {
        self.put(0x31, topic, payload, 1).await;
        self.acknowledged(0).await;
    }

    /// Publishes, and waits for the last acknowledgement of this and everything before.
    pub(crate) async fn publish(&mut self, topic: &str, payload: &[u8], qos: u8) {
        self.send(topic, payload, qos).await;
        self.acknowledged(0).await;
    }

    /// Publishes without waiting.
    pub(crate) async fn send(&mut self, topic: &str, payload: &[u8], qos: u8) {
        self.put(0x30, topic, payload, qos).await;
    }

    async fn put(&mut self, first: u8, topic: &str, payload: &[u8], qos: u8) {
        let mut body = text(topic);
        let id = self.last_id % u16::MAX + 1;
        if qos > 0 {
            self.last_id = id;
            body.extend(id.to_be_bytes());
        }
        body.extend(payload);
        let packet = packet(first | (qos << 1), &body);
        // Before the write: when it fails, the new connection sends what is open.
        let mut stream = self.stream().await;
        if qos > 0 {
            self.open.push_back(Open { id, packet: packet.clone(), released: false, acknowledged: false });
        }
        if stream.write_all(&packet).await.is_ok() {
            self.stream = Some(stream);
        }
    }

    /// Waits until at most `open` publishes are unacknowledged.
    pub(crate) async fn acknowledged(&mut self, open: usize) {
        while self.open.iter().filter(|open| !open.acknowledged).count() > open {
            self.read().await;
        }
    }

    /// Takes one acknowledgement, on a new connection if this one is gone.
    async fn read(&mut self) {
        let mut stream = self.stream().await;
        let mut answer = [0; 4];
        let read = timeout(LIMIT, stream.read_exact(&mut answer)).await.expect("an acknowledgement in time");
        let id = u16::from_be_bytes([answer[2], answer[3]]);
        let written = match (read, answer[0]) {
            (Ok(_), 0x40 | 0x70) => {
                self.open.iter_mut().filter(|open| open.id == id).for_each(|open| open.acknowledged = true);
                self.open.retain(|open| self.cautious || !open.acknowledged);
                Ok(())
            }
            (Ok(_), 0x50) => {
                self.open.iter_mut().filter(|open| open.id == id).for_each(|open| open.released = true);
                stream.write_all(&packet(0x62, &id.to_be_bytes())).await
            }
            (Ok(_), other) => panic!("an acknowledgement, not packet {other:#x}"),
            (Err(error), _) => Err(error),
        };
        if written.is_ok() {
            self.stream = Some(stream);
        }
    }

    /// The connection; if there is none a new one, on which everything open has been sent again.
    async fn stream(&mut self) -> TcpStream {
        if let Some(stream) = self.stream.take() {
            return stream;
        }
        let began = Instant::now();
        loop {
            match timeout(Duration::from_secs(5), self.try_connect()).await {
                Ok(Ok(stream)) => return stream,
                failed => assert!(began.elapsed() < LIMIT, "no connection: {failed:?}"),
            }
            // Between two attempts, not for luck.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn try_connect(&mut self) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&self.connect).await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        assert_eq!((answer[0], answer[3]), (0x20, 0), "the broker refuses the publisher: {answer:?}");
        for open in &mut self.open {
            open.acknowledged = false;
            if open.released {
                stream.write_all(&packet(0x62, &open.id.to_be_bytes())).await?;
            } else {
                open.packet[0] |= 0x08;
                stream.write_all(&open.packet).await?;
            }
        }
        Ok(stream)
    }
}

fn text(text: &str) -> Vec<u8> {
    let mut out = (text.len() as u16).to_be_bytes().to_vec();
    out.extend(text.as_bytes());
    out
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
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
