//! The publisher: one connection that sends events, in the way a server takes them.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::connect;
use super::stamp::{Frame, payload};

/// How events are given to a server.
#[derive(Debug, Clone)]
pub(crate) enum Publish {
    /// Ready-made frames with their length in front; one holds a whole batch.
    Frames(Frame),
    /// MQTT 3.1.1 with QoS 0.
    Mqtt {
        /// The topic.
        topic: String,
        /// User name and password.
        login: Option<(String, String)>,
    },
    /// A POST for each event.
    Http {
        /// The path.
        path: String,
    },
    /// PUB of NATS to the subject `bench`.
    Nats,
}

/// An open connection for publishing.
#[derive(Debug)]
pub(crate) struct Publisher {
    how: Publish,
    socket: TcpStream,
    unsent: Vec<u8>,
    head: Vec<u8>,
}

impl Publisher {
    pub(crate) fn connect(how: Publish, port: u16) -> Result<Self> {
        let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        let (socket, head) = match &how {
            Publish::Frames(_) => (connect()?, Vec::new()),
            Publish::Mqtt { topic, login } => {
                let socket = connect::publisher(port, "bench-publisher", login.as_ref())?;
                (socket, publish_head(0, topic, false))
            }
            Publish::Http { path } => {
                let length = super::PAYLOAD;
                let text =
                    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
                (connect()?, text.into_bytes())
            }
            Publish::Nats => {
                let mut socket = connect()?;
                socket.write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n")?;
                (socket, format!("PUB bench {}\r\n", super::PAYLOAD).into_bytes())
            }
        };
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Self { how, socket, unsent: Vec::new(), head })
    }

    /// Appends `count` events, numbered from `first`, to what [`Self::flush`] sends.
    pub(crate) fn push(&mut self, first: u64, count: u64) {
        if let Publish::Frames(frame) = &mut self.how {
            self.unsent.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            self.unsent.extend_from_slice(frame.stamped(first));
            return;
        }
        for number in first..first + count {
            self.unsent.extend_from_slice(&self.head);
            self.unsent.extend_from_slice(&payload(number));
            if matches!(self.how, Publish::Nats) {
                self.unsent.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Sends what the socket takes, and throws away what the server answers.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        match send(self.socket.as_fd(), &self.unsent, SendFlags::NOSIGNAL) {
            Ok(sent) => drop(self.unsent.drain(..sent)),
            Err(Errno::AGAIN) => {}
            Err(error) => return Err(error).context("the publisher's connection broke"),
        }
        let mut answers = [0; 16384];
        match recv(self.socket.as_fd(), &mut answers[..], RecvFlags::empty()) {
            Ok((0, _)) => anyhow::bail!("the server closed the publisher's connection"),
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error).context("the publisher's connection broke"),
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.unsent.is_empty()
    }
}

/// Everything of a PUBLISH before its payload; with an identifier its two bytes are zero and stand last.
pub(super) fn publish_head(qos: u8, topic: &str, with_id: bool) -> Vec<u8> {
    let id: &[u8] = if with_id { &[0, 0] } else { &[] };
    let mut rest = 2 + topic.len() + id.len() + super::PAYLOAD;
    let mut head = vec![0x30 | qos << 1];
    while rest > 127 {
        head.push(rest as u8 & 127 | 128);
        rest >>= 7;
    }
    head.push(rest as u8);
    head.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    head.extend_from_slice(topic.as_bytes());
    head.extend_from_slice(id);
    head
}
