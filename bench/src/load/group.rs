//! The clients of one server: opens them, publishes by a plan, counts what each gets and when.

use std::io::Read;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::connect::Protocol;
use super::publish::{Publish, Publisher};
use super::stamp::{Cut, Form, Frame, Stamps};
use super::wait;

/// Events that may be on their way at once, in any plan.
const RING: usize = 1 << 16;
/// What one read takes, in bytes.
const READ: usize = 256 * 1024;
/// Time until a server does what it is there for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Handshakes at once.
const OPENERS: usize = 50;
/// A phase that makes no progress for so long is over; what has not come is lost.
const STALL: Duration = Duration::from_secs(3);

/// How events are published in a phase.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Plan {
    /// So many times a second, `count` events at a time. At most `window` are on their way; a server that cannot keep
    /// up gets fewer.
    Paced {
        /// Times a second.
        rate: f64,
        /// Events at a time.
        count: u64,
        /// Most events on their way.
        window: u64,
        /// How long.
        time: Duration,
    },
    /// The next as soon as fewer than `window` events are on their way to any client.
    Flat {
        /// Most events on their way.
        window: u64,
        /// How long.
        time: Duration,
    },
    /// So many, the next when the one before has come to all clients.
    Count(u64),
}

/// What a phase saw.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Events published.
    pub(crate) published: u64,
    /// Events received, over all clients.
    pub(crate) delivered: u64,
    /// Events that did not come, over all clients.
    pub(crate) lost: u64,
    /// Events that came again or too late, over all clients.
    pub(crate) disordered: u64,
    /// Bytes received.
    pub(crate) bytes: u64,
    /// From the first publish to the last delivery.
    pub(crate) time: Duration,
    /// Publish to receipt, in microseconds, of every delivery.
    pub(crate) latency: Histogram<u64>,
}

struct Client {
    socket: TcpStream,
    cut: Cut,
    /// The number of the event that must come next.
    next: u64,
}

/// Many clients of one server, and a publisher.
pub(crate) struct Group {
    epoll: OwnedFd,
    clients: Vec<Client>,
    publisher: Publisher,
    protocol: Protocol,
    stamps: Stamps,
    buffer: Vec<u8>,
    next: u64,
}

impl Group {
    /// Opens `count` clients and waits until they get what is published.
    pub(crate) fn open(
        (publish, publish_port): (Publish, u16),
        (protocol, listen_port): (&Protocol, u16),
        form: Form,
        count: usize,
    ) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut clients = Vec::with_capacity(count);
        for socket in connect_all(protocol, listen_port, count)? {
            epoll::add(&epoll, &socket, EventData::new_u64(clients.len() as u64), EventFlags::IN)?;
            clients.push(Client { socket, cut: Cut::default(), next: 0 });
        }
        let publisher = Publisher::connect(publish, publish_port)?;
        let stamps = Stamps::new(form);
        let protocol = protocol.clone();
        Ok(Self { epoll, clients, publisher, protocol, stamps, buffer: vec![0; READ], next: 1 })
    }

    pub(crate) fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Publishes one event, or one batch of them, again and again until every client has got one, and waits until
    /// all is quiet: bridges need time to subscribe.
    pub(crate) fn warm_up(&mut self, events: u64) -> Result<()> {
        let begun = Instant::now();
        loop {
            let plan =
                Plan::Paced { rate: 20.0, count: events, window: events, time: Duration::from_millis(40) };
            let outcome = self.run(plan, Duration::from_millis(700))?;
            if outcome.lost == 0 && outcome.delivered > 0 {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "nothing arrives");
        }
    }

    /// What the server writes to one client for one batch of so many events, taken from the socket.
    pub(crate) fn capture(&mut self, events: u64, form: Form) -> Result<Frame> {
        self.publisher.push(self.next, events);
        self.next += events;
        let socket = &mut self.clients.first_mut().context("no clients")?.socket;
        let (mut bytes, begun, mut quiet) = (Vec::new(), Instant::now(), Instant::now());
        while bytes.is_empty() || quiet.elapsed() < Duration::from_millis(300) {
            self.publisher.flush()?;
            let read = socket.read(&mut self.buffer).unwrap_or(0);
            if read > 0 {
                bytes.extend_from_slice(&self.buffer[..read]);
                quiet = Instant::now();
            }
            ensure!(begun.elapsed() < Duration::from_secs(10), "no batch arrives");
            std::thread::sleep(Duration::from_millis(1));
        }
        // The others have it too; nobody counts it.
        for client in &mut self.clients[1..] {
            while matches!(client.socket.read(&mut self.buffer), Ok(1..)) {}
        }
        Frame::new(bytes, form, events as usize)
    }

    /// Publishes by the plan and reads until everything has come.
    pub(crate) fn phase(&mut self, plan: Plan) -> Result<Outcome> {
        self.run(plan, STALL)
    }

    fn run(&mut self, plan: Plan, stall: Duration) -> Result<Outcome> {
        let first = self.next;
        self.clients.iter_mut().for_each(|client| client.next = first);
        let begun = Instant::now();
        let mut seen = Seen::new(first, self.clients.len() as u64);
        let (time, window, count) = match plan {
            Plan::Paced { time, window, count, .. } => (time, window, count),
            Plan::Flat { time, window } => (time, window, 1),
            Plan::Count(_) => (Duration::MAX, 1, 1),
        };
        let mut turns = 0;
        let mut progress = begun;
        let mut events = Vec::with_capacity(1024);
        loop {
            let now = Instant::now();
            let publishing = match plan {
                Plan::Count(events) => self.next - first < events,
                _ => now - begun < time,
            };
            while publishing && self.next + count - seen.done <= window {
                let due = match plan {
                    Plan::Paced { rate, .. } => begun + Duration::from_secs_f64(turns as f64 / rate),
                    Plan::Flat { .. } | Plan::Count(_) => now,
                };
                if now < due {
                    break;
                }
                self.publisher.push(self.next, count);
                for number in self.next..self.next + count {
                    seen.sent[number as usize % RING] = (now - begun).as_nanos() as u64;
                }
                self.next += count;
                turns += 1;
            }
            // A server that cannot keep up is not given in one heap what it has missed.
            if let Plan::Paced { rate, .. } = plan {
                turns = turns.max(((now - begun).as_secs_f64() * rate) as u64);
            }
            self.publisher.flush()?;
            if !publishing && seen.done == self.next && self.publisher.is_idle() {
                break;
            }
            if now - progress > stall {
                break;
            }
            let time = if self.publisher.is_idle() { Duration::from_micros(500) } else { Duration::ZERO };
            wait(&self.epoll, &mut events, time)?;
            for event in &events {
                let client = &mut self.clients[event.data.u64() as usize];
                let read = match recv(client.socket.as_fd(), &mut self.buffer[..], RecvFlags::empty()) {
                    Ok((0, _)) => bail!("the server closed a client's connection"),
                    Ok((read, _)) => read,
                    Err(Errno::AGAIN) => continue,
                    Err(error) => return Err(error).context("a client's connection broke"),
                };
                seen.bytes += read as u64;
                let at = begun.elapsed().as_nanos() as u64;
                self.stamps.scan(&mut client.cut, &self.buffer[..read], |number| {
                    seen.event(&mut client.next, self.next, number, at);
                });
                progress = begun + Duration::from_nanos(at);
            }
        }
        let published = self.next - first;
        Ok(Outcome {
            published,
            delivered: seen.delivered,
            lost: (published * seen.clients).saturating_sub(seen.delivered),
            disordered: seen.disordered,
            bytes: seen.bytes,
            time: Duration::from_nanos(seen.last),
            latency: seen.latency,
        })
    }

    /// Sends an unasked pong (RFC 6455 section 5.5.3) on every connection: servers ask silent clients whether they
    /// are there, and this load generator reads no control frames.
    pub(crate) fn keep_alive(&self) -> Result<()> {
        if matches!(self.protocol, Protocol::Tcp) {
            return Ok(());
        }
        for client in &self.clients {
            send(client.socket.as_fd(), &[0x8a, 0x80, 0, 0, 0, 0], SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }

    /// Publishes one event to each of the groups, and returns the time until it has come to the last of some clients
    /// that stand evenly among the others. Nobody reads meanwhile, so that the servers have the machine for themselves.
    pub(crate) fn burst(groups: &mut [&mut Self], watched: usize) -> Result<Duration> {
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut missing = 0;
        for client in groups.iter().flat_map(|group| {
            let step = (group.clients.len() / watched).max(1);
            group.clients.iter().rev().step_by(step)
        }) {
            let interest = EventFlags::IN | EventFlags::ONESHOT;
            epoll::add(&watch, &client.socket, EventData::new_u64(0), interest)?;
            missing += 1;
        }
        let begun = Instant::now();
        for group in groups.iter_mut() {
            group.publisher.push(group.next, 1);
            group.next += 1;
            group.publisher.flush()?;
        }
        let mut events = Vec::with_capacity(missing);
        while missing > 0 {
            wait(&watch, &mut events, STALL)?;
            missing -= events.len();
            ensure!(begun.elapsed() < STALL, "a burst does not arrive");
        }
        let time = begun.elapsed();
        // The last of those watched may not be the very last.
        let until = Instant::now() + STALL;
        for group in groups {
            for client in &mut group.clients {
                while client.socket.read(&mut group.buffer).is_err() {
                    ensure!(Instant::now() < until, "a burst did not come to everyone");
                }
            }
        }
        Ok(time)
    }
}

/// Some handshakes wait for a timer of the server, so many are under way at once.
fn connect_all(protocol: &Protocol, port: u16, count: usize) -> Result<Vec<TcpStream>> {
    // Some servers accept connections before they know their paths.
    let begun = Instant::now();
    while let Err(error) = protocol.connect(port) {
        if begun.elapsed() > PATIENCE {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let some = |opener: usize| -> Result<Vec<TcpStream>> {
        (opener..count).step_by(OPENERS).map(|_| protocol.connect(port)).collect()
    };
    std::thread::scope(|scope| {
        let openers: Vec<_> = (0..OPENERS).map(|opener| scope.spawn(move || some(opener))).collect();
        let mut all = Vec::with_capacity(count);
        for opener in openers {
            all.extend(opener.join().map_err(|_| anyhow::anyhow!("a thread that connects panicked"))??);
        }
        Ok(all)
    })
}

/// What has been seen of the events of a phase.
struct Seen {
    clients: u64,
    /// Every event below this number has come to all clients.
    done: u64,
    /// When events were published, in nanoseconds since the phase began, and how many clients have them.
    sent: Vec<u64>,
    received: Vec<u64>,
    delivered: u64,
    disordered: u64,
    bytes: u64,
    last: u64,
    latency: Histogram<u64>,
}

impl Seen {
    fn new(first: u64, clients: u64) -> Self {
        // Three significant digits; up to a minute. The bounds are constants, so it cannot fail.
        let latency = Histogram::new_with_bounds(1, 60_000_000, 3).unwrap_or_else(|_| unreachable!());
        Self {
            clients,
            done: first,
            sent: vec![0; RING],
            received: vec![0; RING],
            delivered: 0,
            disordered: 0,
            bytes: 0,
            last: 0,
            latency,
        }
    }

    fn event(&mut self, next: &mut u64, end: u64, number: u64, at: u64) {
        if number < *next || number >= end {
            // Of an earlier phase that was given up, or twice.
            self.disordered += 1;
            return;
        }
        // What was passed over counts as done, or one loss would stop the plan.
        for passed in *next..=number {
            self.received[passed as usize % RING] += 1;
        }
        *next = number + 1;
        self.delivered += 1;
        self.last = at;
        let micros = (at.saturating_sub(self.sent[number as usize % RING])) / 1000;
        self.latency.saturating_record(micros.max(1));
        while self.done < end && self.received[self.done as usize % RING] == self.clients {
            self.received[self.done as usize % RING] = 0;
            self.done += 1;
        }
    }
}
