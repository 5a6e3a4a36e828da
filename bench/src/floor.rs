//! The floor: the least that a server can do for a delivery. One thread, epoll, `send`; no protocol, no state.
//!
//! What comes on the port of the publisher are blobs with their length (4 bytes, big endian) in front: ready-made
//! frames. `write` sends every blob to every connection by itself; `coalesce` sends all that one read brought as one.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};

/// What one read of the publisher takes, in bytes.
const READ: usize = 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How frames are written.
    #[arg(value_enum)]
    mode: Mode,
    /// Where the publisher connects.
    publish_port: u16,
    /// Where the clients connect.
    listen_port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Write,
    Coalesce,
}

/// Serves until it is killed.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    serve(args.mode, args.publish_port, args.listen_port)
}

/// A connection and what its socket did not take yet.
struct Client {
    socket: OwnedFd,
    unsent: Vec<u8>,
}

const PUBLISHERS: u64 = u64::MAX;
const CLIENTS: u64 = u64::MAX - 1;
const PUBLISHER: u64 = u64::MAX - 2;

fn serve(mode: Mode, publish_port: u16, listen_port: u16) -> Result<ExitCode> {
    let publishers = TcpListener::bind((Ipv4Addr::LOCALHOST, publish_port))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, listen_port))?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &publishers, EventData::new_u64(PUBLISHERS), EventFlags::IN)?;
    epoll::add(&epoll, &listener, EventData::new_u64(CLIENTS), EventFlags::IN)?;
    let mut publisher: Option<OwnedFd> = None;
    let mut clients: Vec<Client> = Vec::new();
    let mut pending: Vec<u8> = Vec::new();
    let mut buffer = vec![0; READ];
    let mut events = Vec::with_capacity(1024);
    loop {
        events.clear();
        match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Err(Errno::INTR) => continue,
            waited => waited?,
        };
        for event in &events {
            match event.data.u64() {
                PUBLISHERS => {
                    let (socket, _) = publishers.accept()?;
                    socket.set_nodelay(true)?;
                    let socket = OwnedFd::from(socket);
                    epoll::add(&epoll, &socket, EventData::new_u64(PUBLISHER), EventFlags::IN)?;
                    publisher = Some(socket);
                }
                CLIENTS => {
                    let (socket, _) = listener.accept()?;
                    socket.set_nodelay(true)?;
                    socket.set_nonblocking(true)?;
                    let socket = OwnedFd::from(socket);
                    // Edges: nobody who has nothing to send is told that there is room.
                    let interest = EventFlags::OUT | EventFlags::ET;
                    epoll::add(&epoll, &socket, EventData::new_u64(clients.len() as u64), interest)?;
                    clients.push(Client { socket, unsent: Vec::new() });
                }
                PUBLISHER => {
                    let Some(socket) = &publisher else { continue };
                    let (read, _) = net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
                    if read == 0 {
                        publisher = None;
                        continue;
                    }
                    pending.extend_from_slice(&buffer[..read]);
                    fan_out(mode, &mut pending, &mut clients)?;
                }
                client => {
                    let client = &mut clients[client as usize];
                    let unsent = std::mem::take(&mut client.unsent);
                    client.send(&unsent)?;
                }
            }
        }
    }
}

/// Sends the whole blobs of `pending` and takes them out of it.
fn fan_out(mode: Mode, pending: &mut Vec<u8>, clients: &mut [Client]) -> Result<()> {
    let mut joined = Vec::new();
    let mut at = 0;
    while let Some(head) = pending.get(at..at + 4) {
        let len = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(blob) = pending.get(at + 4..at + 4 + len) else { break };
        at += 4 + len;
        match mode {
            Mode::Coalesce => joined.extend_from_slice(blob),
            Mode::Write => {
                for client in &mut *clients {
                    client.send(blob)?;
                }
            }
        }
    }
    if !joined.is_empty() {
        for client in clients {
            client.send(&joined)?;
        }
    }
    pending.drain(..at);
    Ok(())
}

impl Client {
    fn send(&mut self, mut bytes: &[u8]) -> Result<()> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        while !bytes.is_empty() {
            match net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::AGAIN) => {
                    self.unsent.extend_from_slice(bytes);
                    break;
                }
                // It has left.
                Err(Errno::PIPE | Errno::CONNRESET) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
