//! Publishing devices: MQTT connections that send as fast as a server takes it.

use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::publish::publish_head;
use super::stamp::payload;
use super::{PAYLOAD, Publish, connect, wait};

/// Bytes that are made ready for one write.
const CHUNK: usize = 64 * 1024;
/// A server that takes nothing for so long is broken.
const STALL: Duration = Duration::from_secs(10);

struct Device {
    socket: TcpStream,
    /// What stands before a payload, for QoS 0 and 1.
    heads: [Vec<u8>; 2],
    unsent: Vec<u8>,
    sent: usize,
    /// Publishes that were made, and those acknowledged (QoS 1).
    made: u64,
    acknowledged: u64,
    /// Bytes of acknowledgements beyond whole packets.
    rest: usize,
}

/// When devices stop to publish.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// After this time.
    Time(Duration),
    /// When about so many publishes are made.
    Count(u64),
}

/// Devices of one server.
pub(crate) struct Devices {
    epoll: OwnedFd,
    devices: Vec<Device>,
    next: u64,
}

impl Devices {
    /// Connects devices; `publish` tells how.
    pub(crate) fn open(publish: impl Fn(usize) -> Publish, port: u16, count: usize) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut devices = Vec::new();
        for number in 0..count {
            let Publish::Mqtt { topic, login } = publish(number) else { anyhow::bail!("devices speak MQTT") };
            let socket = connect::publisher(port, &format!("bench-{number}-of-{count}"), login.as_ref())?;
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            let interest = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
            epoll::add(&epoll, &socket, EventData::new_u64(number as u64), interest)?;
            let (unsent, sent, made, acknowledged, rest) = (Vec::new(), 0, 0, 0, 0);
            let heads = [publish_head(0, &topic, false), publish_head(1, &topic, true)];
            devices.push(Device { socket, heads, unsent, sent, made, acknowledged, rest });
        }
        Ok(Self { epoll, devices, next: 1 })
    }

    fn made(&self) -> u64 {
        self.devices.iter().map(|device| device.made).sum()
    }

    /// Publishes with this QoS, with QoS 1 up to `window` unacknowledged ones each, and waits until the server has
    /// handled all. Returns how many and how long it took.
    pub(crate) fn publish(&mut self, qos: usize, window: u64, until: Until) -> Result<(u64, Duration)> {
        let begun = Instant::now();
        let before = self.made();
        let mut open = true;
        let mut events = Vec::with_capacity(256);
        let (mut work, mut progress): (Vec<usize>, Instant) = ((0..self.devices.len()).collect(), begun);
        loop {
            let now = Instant::now();
            let is_over = || match until {
                Until::Time(time) => now - begun >= time,
                Until::Count(count) => self.made() - before >= count,
            };
            if open && is_over() {
                open = false;
                // The answer to a last publish with QoS 1 says that everything before it was handled.
                for device in &mut self.devices {
                    device.push(1, self.next);
                    self.next += 1;
                }
                work = (0..self.devices.len()).collect();
                progress = now;
            }
            for number in std::mem::take(&mut work) {
                let device = &mut self.devices[number];
                if device.receive()? {
                    progress = now;
                }
                let wanted = match (open, qos) {
                    (false, _) => 0,
                    (true, 0) => CHUNK / (device.heads[0].len() + PAYLOAD),
                    (true, _) => (window - (device.made - device.acknowledged)) as usize,
                };
                if device.unsent.is_empty() {
                    for _ in 0..wanted {
                        device.push(qos, self.next);
                        self.next += 1;
                    }
                }
                // Who is never made to wait goes on after the others.
                if device.send()? && qos == 0 && open {
                    work.push(number);
                }
            }
            if !open && self.devices.iter().all(|device| device.made == device.acknowledged) {
                return Ok((self.made() - before, begun.elapsed()));
            }
            ensure!(now - progress < STALL || qos == 0 && open, "no acknowledgements for 10 s");
            let time = if work.is_empty() { Duration::from_millis(2) } else { Duration::ZERO };
            wait(&self.epoll, &mut events, time)?;
            work.extend(events.iter().map(|event| event.data.u64() as usize));
        }
    }
}

impl Device {
    fn push(&mut self, qos: usize, number: u64) {
        self.unsent.extend_from_slice(&self.heads[qos]);
        self.made += 1;
        if qos == 1 {
            // 1 to 65535, and no identifier comes again while it is in use.
            let id = (self.made % 65535 + 1) as u16;
            let at = self.unsent.len() - 2;
            self.unsent[at..].copy_from_slice(&id.to_be_bytes());
        } else {
            self.acknowledged += 1;
        }
        self.unsent.extend_from_slice(&payload(number));
    }

    /// Reads acknowledgements. Whether there were any.
    fn receive(&mut self) -> Result<bool> {
        let mut buffer = [0; 65536];
        let mut any = false;
        loop {
            match recv(self.socket.as_fd(), &mut buffer[..], RecvFlags::empty()) {
                Ok((0, _)) => anyhow::bail!("the server closed a device's connection"),
                Ok((read, _)) => {
                    // A PUBACK of 3.1.1 has four bytes, and nothing else comes here.
                    self.rest += read;
                    self.acknowledged += (self.rest / 4) as u64;
                    self.rest %= 4;
                    any = true;
                }
                Err(Errno::AGAIN) => return Ok(any),
                Err(error) => return Err(error).context("a device's connection broke"),
            }
        }
    }

    /// Whether everything was taken.
    fn send(&mut self) -> Result<bool> {
        while self.sent < self.unsent.len() {
            match send(self.socket.as_fd(), &self.unsent[self.sent..], SendFlags::NOSIGNAL) {
                Ok(sent) => self.sent += sent,
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error).context("a device's connection broke"),
            }
        }
        self.unsent.clear();
        self.sent = 0;
        Ok(true)
    }
}
