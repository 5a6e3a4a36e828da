//! A listener that comes back after every loss and asks for what follows the last event it saw.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use base64::Engine as _;
use serde::Deserialize;
use uuid::Uuid;

use crate::common::LIMIT;
use crate::ground::{NAP, Place};

/// An event as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub id: Uuid,
    pub device: u16,
    pub seq: u32,
}

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// WebSocket with `?last_event_id=`.
    Query,
    /// WebSocket with the header `Last-Event-ID`.
    Header,
    /// Server-sent events.
    Stream,
}

/// A client in a thread of its own.
pub struct Client {
    pub path: String,
    pub manner: Manner,
    /// The query with which it began.
    pub query: String,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    seen: Mutex<Vec<Seen>>,
    /// Codes of the close frames that came.
    closes: Mutex<Vec<u16>>,
    connected: AtomicBool,
    stop: AtomicBool,
    failed: AtomicBool,
}

impl Client {
    /// Starts one with a query such as `since=1h`; with none it begins with what comes.
    pub fn start(place: &Arc<Place>, path: &str, manner: Manner, query: &str) -> Self {
        let state = Arc::new(State::default());
        let worker = Worker {
            path: path.to_owned(),
            manner,
            query: query.to_owned(),
            state: Arc::clone(&state),
            place: Arc::clone(place),
        };
        let thread = thread::spawn(move || worker.run());
        Self { path: path.to_owned(), manner, query: query.to_owned(), state, thread: Some(thread) }
    }

    /// Waits until it has been let in once.
    pub fn connected(self) -> Self {
        crate::ground::until("the client", LIMIT, std::slice::from_ref(&self), || {
            self.state.connected.load(Ordering::SeqCst)
        });
        self
    }

    /// What it has seen by now, in the order in which it came.
    pub fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.state.seen.lock().unwrap()
    }

    /// Codes of the close frames that came.
    pub fn closes(&self) -> Vec<u16> {
        self.state.closes.lock().unwrap().clone()
    }

    /// Fails if it has.
    pub fn check(&self) {
        assert!(!self.state.failed.load(Ordering::SeqCst), "{self:?} has failed; its own words are above");
    }

    /// Ends it and gives what it saw.
    pub fn stop(mut self) -> Vec<Seen> {
        self.state.stop.store(true, Ordering::SeqCst);
        if let Err(panic) = self.thread.take().unwrap().join() {
            std::panic::resume_unwind(panic);
        }
        std::mem::take(&mut self.seen())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {:?} client of {} from {:?}", self.manner, self.path, self.query)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
    }
}

struct Worker {
    path: String,
    manner: Manner,
    query: String,
    state: Arc<State>,
    place: Arc<Place>,
}

/// Tells that the thread has panicked.
struct Fuse<'a>(&'a State);

impl Drop for Fuse<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.failed.store(true, Ordering::SeqCst);
        }
    }
}

impl Worker {
    fn run(&self) {
        let _fuse = Fuse(&self.state);
        while !self.is_stopped() {
            if let Some(address) = self.place.gateway() {
                // Connections break all the time here; what counts is what was seen.
                let _ = self.connection(address);
            }
            thread::sleep(NAP);
        }
    }

    fn is_stopped(&self) -> bool {
        self.state.stop.load(Ordering::SeqCst)
    }

    /// The query and the header that ask for what follows the last event.
    fn start(&self) -> (String, String) {
        let last = self.state.seen.lock().unwrap().last().map(|event| event.id);
        match last {
            Some(id) if self.manner == Manner::Query => (format!("last_event_id={id}"), String::new()),
            Some(id) => (String::new(), format!("Last-Event-ID: {id}\r\n")),
            // It was let in before there was anything, and has missed what came since.
            None if self.query.is_empty() && self.state.connected.load(Ordering::SeqCst) => {
                ("since=1h".to_owned(), String::new())
            }
            None => (self.query.clone(), String::new()),
        }
    }

    fn connection(&self, address: SocketAddr) -> io::Result<()> {
        let (query, header) = self.start();
        let upgrade = if self.manner == Manner::Stream {
            "Accept: text/event-stream\r\n"
        } else {
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        };
        let io = TcpStream::connect(address)?;
        io.set_read_timeout(Some(Duration::from_millis(20)))?;
        io.set_write_timeout(Some(LIMIT))?;
        let mut wire = Wire { io, bytes: Vec::new() };
        let request =
            format!("GET /main{}?{query} HTTP/1.1\r\nHost: {address}\r\n{upgrade}{header}\r\n", self.path);
        wire.io.write_all(request.as_bytes())?;
        let head = loop {
            if let Some(end) = find(&wire.bytes, b"\r\n\r\n") {
                break String::from_utf8(wire.bytes.drain(..end + 4).collect()).unwrap();
            }
            self.more(&mut wire)?;
        };
        let code = head.split(' ').nth(1).unwrap();
        if code == "503" {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let expected = if self.manner == Manner::Stream { "200" } else { "101" };
        assert_eq!(code, expected, "{query} {header}: {head}");
        let status = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("x-resume-status").then(|| value.to_owned())
        });
        let asked = !query.is_empty() || !header.is_empty();
        assert_eq!(status.as_deref(), asked.then_some("complete"), "{query} {header}: {head}");
        self.state.connected.store(true, Ordering::SeqCst);
        if self.manner == Manner::Stream { self.stream(&mut wire) } else { self.frames(&mut wire) }
    }

    /// Reads more, waiting until there is some or the test ends.
    fn more(&self, wire: &mut Wire) -> io::Result<()> {
        let mut part = [0; 65_536];
        loop {
            match wire.io.read(&mut part) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    wire.bytes.extend(&part[..read]);
                    return Ok(());
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if self.is_stopped() {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn frames(&self, wire: &mut Wire) -> io::Result<()> {
        let mut message = Vec::new();
        loop {
            let Some((first, payload)) = wire.frame() else {
                self.more(wire)?;
                continue;
            };
            match first {
                0x01 | 0x81 | 0x00 | 0x80 => {
                    assert_eq!(first & 0x0f == 1, message.is_empty(), "fragments out of order");
                    message.extend(payload);
                    if first & 0x80 != 0 {
                        self.take(&message);
                        message.clear();
                    }
                }
                0x89 => {
                    assert!(payload.len() < 126);
                    wire.io.write_all(&[0x8a, 0x80 | payload.len() as u8, 0, 0, 0, 0])?;
                    wire.io.write_all(&payload)?;
                }
                0x88 => {
                    self.state.closes.lock().unwrap().push(u16::from_be_bytes([payload[0], payload[1]]));
                    wire.io.write_all(&[0x88, 0x82, 0, 0, 0, 0, payload[0], payload[1]])?;
                    return Ok(());
                }
                other => panic!("an unexpected frame, {other:#x}"),
            }
        }
    }

    fn stream(&self, wire: &mut Wire) -> io::Result<()> {
        let mut text = Vec::new();
        loop {
            while let Some(end) = find(&text, b"\n\n") {
                let block: Vec<u8> = text.drain(..end + 2).collect();
                let block = String::from_utf8(block).unwrap();
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
                let Some(data) = field("data: ") else { continue };
                let last = self.take(data.as_bytes());
                assert_eq!(field("id: "), Some(&*last.to_string()));
            }
            // Chunked transfer coding (RFC 9112, section 7.1).
            let Some(line) = find(&wire.bytes, b"\r\n") else {
                self.more(wire)?;
                continue;
            };
            let size = usize::from_str_radix(std::str::from_utf8(&wire.bytes[..line]).unwrap(), 16).unwrap();
            let (begin, end) = (line + 2, line + 2 + size);
            if wire.bytes.len() < end + 2 {
                self.more(wire)?;
                continue;
            }
            if size == 0 {
                return Ok(());
            }
            text.extend(&wire.bytes[begin..end]);
            wire.bytes.drain(..end + 2);
        }
    }

    /// Notes the events of a whole message, and gives the id of the last.
    fn take(&self, message: &[u8]) -> Uuid {
        let events = parse(message);
        let last = events.last().expect("a message has events").id;
        self.state.seen.lock().unwrap().extend(events);
        last
    }
}

struct Wire {
    io: TcpStream,
    bytes: Vec<u8>,
}

impl Wire {
    /// The next frame, if it is there as a whole.
    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, second] = *self.bytes.first_chunk()?;
        let (head, size) = match second {
            0..=125 => (2, usize::from(second)),
            126 => {
                let [_, _, high, low] = *self.bytes.first_chunk()?;
                (4, usize::from(u16::from_be_bytes([high, low])))
            }
            other => panic!("a frame over 32 KiB, or a masked one: {other:#x}"),
        };
        assert!(size <= 32_768, "a frame of {size} bytes");
        if self.bytes.len() < head + size {
            return None;
        }
        let frame: Vec<u8> = self.bytes.drain(..head + size).collect();
        Some((first, frame[head..].to_vec()))
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, what)
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    messages: Vec<Event<'a>>,
}

#[derive(Deserialize)]
struct Event<'a> {
    event_metadata: Metadata,
    #[serde(borrow)]
    details: Details<'a>,
}

#[derive(Deserialize)]
struct Metadata {
    event_id: String,
}

#[derive(Deserialize)]
struct Details<'a> {
    payload: &'a str,
}

/// The events of a message's text.
pub fn parse(message: &[u8]) -> Vec<Seen> {
    let parsed: Message<'_> = serde_json::from_slice(message)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(message)));
    let event = |event: &Event<'_>| {
        // The words stand in the first bytes; what follows is there for its size.
        let head = event.details.payload.get(..32).unwrap_or(event.details.payload);
        let payload = base64::engine::general_purpose::STANDARD.decode(head).unwrap();
        let payload = String::from_utf8(payload).unwrap();
        let mut words = payload.split(' ');
        let mut word = || words.next().unwrap();
        let device = word().strip_prefix('d').unwrap().parse().unwrap();
        Seen { id: event.event_metadata.event_id.parse().unwrap(), device, seq: word().parse().unwrap() }
    };
    parsed.messages.iter().map(event).collect()
}
