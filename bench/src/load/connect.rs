//! How a client comes to listen: the handshake of WebSocket, and what the protocol inside it asks for.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Time for a handshake.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a listening client speaks.
#[derive(Debug, Clone)]
pub(crate) enum Protocol {
    /// Nothing: it connects.
    Tcp,
    /// WebSocket on this path; messages come by themselves.
    WebSocket(String),
    /// MQTT 3.1.1 in WebSocket, one subscription.
    MqttInWebSocket,
    /// NATS in WebSocket, one subscription.
    NatsInWebSocket,
}

impl Protocol {
    /// Connects a client and subscribes it. The socket does not block.
    pub(crate) fn connect(&self, port: u16) -> Result<TcpStream> {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        self.handshake(&mut socket).with_context(|| format!("the handshake of {self:?} failed"))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    fn handshake(&self, socket: &mut TcpStream) -> Result<()> {
        match self {
            Self::Tcp => {}
            Self::WebSocket(path) => upgrade(socket, path, "")?,
            Self::MqttInWebSocket => {
                upgrade(socket, "/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n")?;
                socket.write_all(&frame(&mqtt_connect()))?;
                socket.read_exact(&mut [0; 2 + 4]).context("no CONNACK")?;
                socket.write_all(&frame(&mqtt_subscribe()))?;
                socket.read_exact(&mut [0; 2 + 5]).context("no SUBACK")?;
            }
            Self::NatsInWebSocket => {
                upgrade(socket, "/", "")?;
                let commands = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB bench 1\r\nPING\r\n";
                socket.write_all(&frame(commands.as_bytes()))?;
                let mut seen = Vec::new();
                while !seen.ends_with(b"PONG\r\n") {
                    let mut byte = [0];
                    socket.read_exact(&mut byte).context("no PONG")?;
                    seen.push(byte[0]);
                }
            }
        }
        Ok(())
    }
}

/// RFC 6455 section 4.1. The answer is read byte by byte, since frames may stand behind it.
fn upgrade(socket: &mut TcpStream, path: &str, extra: &str) -> Result<()> {
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
    )?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte)?;
        answer.push(byte[0]);
        ensure!(answer.len() < 8192, "the answer does not end");
    }
    let answer = String::from_utf8_lossy(&answer);
    if !answer.starts_with("HTTP/1.1 101") {
        bail!("refused: {}", answer.lines().next().unwrap_or_default());
    }
    Ok(())
}

/// A masked binary frame of at most 125 bytes, or up to 64 KiB.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x82];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
    }
    // A mask of zeros leaves the payload as it is.
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// A CONNECT of MQTT 3.1.1 without a login and without keep-alive; the server names the client.
fn mqtt_connect() -> Vec<u8> {
    connect_packet("", None)
}

/// Connects a publisher of MQTT 3.1.1. The socket blocks.
pub(super) fn publisher(port: u16, client_id: &str, login: Option<&(String, String)>) -> Result<TcpStream> {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let login = login.map(|(name, password)| (name.as_str(), password.as_str()));
    socket.write_all(&connect_packet(client_id, login))?;
    let mut answer = [0; 4];
    socket.read_exact(&mut answer).context("no CONNACK")?;
    ensure!(answer[3] == 0, "CONNACK with return code {}", answer[3]);
    Ok(socket)
}

/// A CONNECT of MQTT 3.1.1.
fn connect_packet(client_id: &str, login: Option<(&str, &str)>) -> Vec<u8> {
    let flags = if login.is_some() { 0xc2 } else { 0x02 };
    let mut body = b"\0\x04MQTT\x04".to_vec();
    body.extend_from_slice(&[flags, 0, 0]);
    let (name, password) = login.unzip();
    for text in [Some(client_id), name, password].into_iter().flatten() {
        body.extend_from_slice(&(text.len() as u16).to_be_bytes());
        body.extend_from_slice(text.as_bytes());
    }
    let mut packet = vec![0x10, body.len() as u8];
    packet.extend_from_slice(&body);
    packet
}

/// A SUBSCRIBE to `bench` with QoS 0.
fn mqtt_subscribe() -> Vec<u8> {
    b"\x82\x0a\0\x01\0\x05bench\0".to_vec()
}
