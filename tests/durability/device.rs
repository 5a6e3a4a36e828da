//! A device that publishes with QoS 1, keeps what is not acknowledged, and repeats it when it comes back.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::common::LIMIT;
use crate::ground::{NAP, Place};

/// What a device does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The number in its name.
    pub device: u16,
    /// User and password.
    pub login: Option<(String, String)>,
    pub topic: String,
    /// Publishes that may be without acknowledgement at a time.
    pub window: u32,
    /// Packet identifiers that it takes in turn: as many as the window at least.
    pub identifiers: u32,
    /// Publishes in a second; bursts after a stop.
    pub rate: u32,
    /// Most bytes of a payload that are there for their size only.
    pub padding: usize,
    /// The same of one payload in 300.
    pub large: usize,
}

impl Plan {
    /// A device of the registry `factory`.
    pub fn factory(device: u16, window: u32) -> Self {
        Self {
            device,
            login: Some((format!("d{device}"), format!("Device-password-{device}"))),
            topic: format!("$devices/d{device}/events"),
            window,
            identifiers: window,
            rate: 1000,
            padding: 100,
            large: 40_000,
        }
    }

    /// A client of the broker `plant`.
    pub fn plant(device: u16, window: u32) -> Self {
        Self {
            login: Some(("plant".to_owned(), "Plant-password".to_owned())),
            topic: format!("line/{device}"),
            ..Self::factory(device, window)
        }
    }

    /// The payload of a publish: the same whenever it is repeated.
    fn payload(&self, seq: u32) -> Vec<u8> {
        let some = (seq.wrapping_mul(2_654_435_761) >> 16) as usize % (self.padding + 1);
        let size = if seq % 300 == 299 { self.large } else { some };
        let mut payload = format!("d{} {seq} ", self.device).into_bytes();
        payload.resize(payload.len() + size, b'x');
        payload
    }

    fn identifier(&self, seq: u32) -> u16 {
        (1 + seq % self.identifiers) as u16
    }
}

#[derive(Debug, Default)]
struct Progress {
    sent: AtomicU32,
    acknowledged: AtomicU32,
    repeated: AtomicU32,
    finish: AtomicBool,
    abandon: AtomicBool,
}

/// A device at work in a thread of its own.
#[derive(Debug)]
pub struct Device {
    number: u16,
    progress: Arc<Progress>,
    thread: JoinHandle<()>,
}

impl Device {
    pub fn start(plan: Plan, find: impl Fn() -> Option<SocketAddr> + Send + 'static) -> Self {
        let progress = Arc::new(Progress::default());
        let worker = Worker { progress: Arc::clone(&progress), began: Instant::now(), plan };
        Self { number: worker.plan.device, progress, thread: thread::spawn(move || worker.run(find)) }
    }

    /// A device that publishes to the server wherever it is.
    pub fn at(plan: Plan, place: &Arc<Place>) -> Self {
        let place = Arc::clone(place);
        Self::start(plan, move || place.mqtt())
    }

    /// Publishes of which the acknowledgement has come; they are the first of its numbers.
    pub fn acknowledged(&self) -> u32 {
        self.progress.acknowledged.load(Ordering::SeqCst)
    }

    /// Publishes that were sent again.
    pub fn repeated(&self) -> u32 {
        self.progress.repeated.load(Ordering::SeqCst)
    }

    /// Publishes nothing new, and ends when everything is acknowledged.
    pub fn finish(&self) {
        self.progress.finish.store(true, Ordering::SeqCst);
    }

    /// Ends whatever is not acknowledged, and gives its number and how many of its publishes are.
    pub fn abandon(self) -> (u16, u32) {
        self.progress.abandon.store(true, Ordering::SeqCst);
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
        (self.number, self.progress.acknowledged.load(Ordering::SeqCst))
    }

    pub fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Its number, and how many it has published; all are acknowledged.
    pub fn join(self) -> (u16, u32) {
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
        let (sent, acknowledged) =
            (self.progress.sent.load(Ordering::SeqCst), self.progress.acknowledged.load(Ordering::SeqCst));
        assert_eq!(sent, acknowledged, "d{}", self.number);
        (self.number, sent)
    }
}

struct Worker {
    plan: Plan,
    progress: Arc<Progress>,
    began: Instant,
}

impl Worker {
    fn run(&self, find: impl Fn() -> Option<SocketAddr>) {
        while !self.is_done() {
            // Connections break all the time here; what counts is what becomes of the events.
            if let Some(address) = find() {
                let _ = self.connection(address);
            }
            thread::sleep(NAP);
        }
    }

    fn is_done(&self) -> bool {
        self.progress.abandon.load(Ordering::SeqCst)
            || self.progress.finish.load(Ordering::SeqCst)
                && self.progress.acknowledged.load(Ordering::SeqCst)
                    == self.progress.sent.load(Ordering::SeqCst)
    }

    fn connection(&self, address: SocketAddr) -> std::io::Result<()> {
        let mut io = TcpStream::connect(address)?;
        io.set_nodelay(true)?;
        io.set_write_timeout(Some(LIMIT))?;
        io.set_read_timeout(Some(LIMIT))?;
        io.write_all(&connect(&self.plan))?;
        let mut answer = [0; 4];
        io.read_exact(&mut answer)?;
        assert_eq!(
            (answer[0], answer[1], answer[3]),
            (0x20, 2, 0),
            "the server refuses d{}",
            self.plan.device
        );

        io.set_read_timeout(Some(Duration::from_millis(10)))?;
        let progress = &self.progress;
        let mut acknowledged = progress.acknowledged.load(Ordering::SeqCst);
        let mut next = acknowledged;
        let mut received = Vec::new();
        let mut part = [0; 4096];
        loop {
            let mut out = Vec::new();
            while next - acknowledged < self.plan.window {
                let is_repetition = next < progress.sent.load(Ordering::SeqCst);
                if is_repetition {
                    progress.repeated.fetch_add(1, Ordering::SeqCst);
                } else if progress.finish.load(Ordering::SeqCst) || next >= self.allowed() {
                    break;
                }
                out.extend(self.publish(next, is_repetition));
                next += 1;
                progress.sent.fetch_max(next, Ordering::SeqCst);
            }
            io.write_all(&out)?;
            if self.is_done() {
                return io.write_all(&[0xe0, 0]);
            }
            match io.read(&mut part) {
                Ok(0) => return Ok(()),
                Ok(read) => received.extend(&part[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
            while received.len() >= 4 {
                let packet: Vec<u8> = received.drain(..4).collect();
                let [high, low] = self.plan.identifier(acknowledged).to_be_bytes();
                assert!(
                    acknowledged < next,
                    "d{}: an acknowledgement of nothing: {packet:?}",
                    self.plan.device
                );
                assert_eq!(
                    packet,
                    [0x40, 2, high, low],
                    "d{}: acknowledgements come in the order of the publishes",
                    self.plan.device
                );
                acknowledged += 1;
                progress.acknowledged.store(acknowledged, Ordering::SeqCst);
            }
        }
    }

    /// How many may have been published by now.
    fn allowed(&self) -> u32 {
        (self.began.elapsed().as_secs_f64() * f64::from(self.plan.rate)) as u32 + 1
    }

    fn publish(&self, seq: u32, is_repetition: bool) -> Vec<u8> {
        let mut body = text(&self.plan.topic);
        body.extend(self.plan.identifier(seq).to_be_bytes());
        body.extend(self.plan.payload(seq));
        packet(if is_repetition { 0x3a } else { 0x32 }, &body)
    }
}

/// CONNECT of MQTT 3.1.1 with a session that stays.
fn connect(plan: &Plan) -> Vec<u8> {
    let flags = if plan.login.is_some() { 0xc0 } else { 0 };
    let mut body = b"\0\x04MQTT\x04".to_vec();
    body.extend([flags, 0, 60]);
    body.extend(text(&format!("device-{}", plan.device)));
    if let Some((user, password)) = &plan.login {
        body.extend(text(user));
        body.extend(text(password));
    }
    packet(0x10, &body)
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut rest = body.len();
    loop {
        let more = if rest > 127 { 0x80 } else { 0 };
        packet.push((rest % 128) as u8 | more);
        rest /= 128;
        if rest == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}
