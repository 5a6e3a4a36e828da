//! One path on one worker: its ring and its sessions, and how frames get from the one to the others.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use slab::Slab;
use tokio::time::Instant;

use super::directory::PathEntry;
use super::feed::Feed;
use super::frame;
use super::ring::Ring;
use super::socket::Session;

/// Sessions that are written to before other tasks of the worker have their turn.
const CHUNK: usize = 256;
/// Bytes that are appended to a ring before its sessions are written to: a client that keeps up is
/// offered everything before the ring may drop it, and one whose socket was full takes about as much in
/// one turn as a round brings.
const ROUND_BYTES: usize = frame::SEGMENT_BYTES;
/// Pacing: how often it looks, and how long it lasts at most for one round.
const PACE_STEP: Duration = Duration::from_millis(2);
const LONGEST_PACE: Duration = Duration::from_millis(250);
/// Bytes a second that the sessions of a path must take together to be waited for, measured over this
/// time; if they do not, they are not waited for again for so long.
const PACE_RATE: f64 = 32.0 * 1024.0 * 1024.0;
const PACE_WINDOW: Duration = Duration::from_millis(20);
const PACE_PAUSE: Duration = Duration::from_secs(1);
/// How far the sessions of a path are behind.
#[derive(Debug, Default)]
struct Lag {
    sessions: usize,
    /// Sessions that are behind by more than a quarter of what they may be.
    lagging: usize,
    /// Bytes that all together have not been sent.
    unsent: u64,
}

/// The sessions of a path, and the feed that they read.
pub(super) struct Path {
    pub(super) entry: Arc<PathEntry>,
    pub(super) feed: Rc<Feed>,
    sessions: RefCell<Slab<Rc<Session>>>,
    /// The sessions were slow themselves when it was last looked at.
    no_pace_before: Cell<Instant>,
}

impl Path {
    /// A path without sessions. `clock` is the worker's.
    pub(super) fn new(entry: &Arc<PathEntry>, clock: &Rc<Cell<u32>>) -> Self {
        Self {
            entry: Arc::clone(entry),
            feed: Rc::new(Feed {
                ring: RefCell::new(Ring::new(entry.backlog_bytes)),
                clock: Rc::clone(clock),
                last_append: Cell::new(clock.get()),
            }),
            sessions: RefCell::default(),
            no_pace_before: Cell::new(Instant::now()),
        }
    }

    /// Adds a session; the key removes it.
    pub(super) fn insert(&self, session: Rc<Session>) -> usize {
        self.sessions.borrow_mut().insert(session)
    }

    /// Removes a session. The ring, and the room for sessions, go with the last one.
    pub(super) fn remove(&self, key: usize) {
        let mut sessions = self.sessions.borrow_mut();
        sessions.try_remove(key);
        if sessions.is_empty() {
            *sessions = Slab::new();
            let mut ring = self.feed.ring.borrow_mut();
            let head = ring.head();
            ring.trim(head);
        }
    }

    /// Sessions now.
    pub(super) fn len(&self) -> usize {
        self.sessions.borrow().len()
    }

    /// The sessions, to be kept over an await.
    pub(super) fn sessions(&self) -> Vec<Rc<Session>> {
        self.sessions.borrow().iter().map(|(_, session)| Rc::clone(session)).collect()
    }

    /// The worker's clock moved: every session looks at itself, and what all have read is dropped.
    pub(super) fn tick(&self, now: u32) {
        self.each(|session| session.tick(now));
        let lowest = self.lowest_cursor();
        self.feed.ring.borrow_mut().trim(lowest);
    }

    /// Appends frames and writes them to every session that keeps up, a round at a time.
    pub(super) async fn write(&self, segments: Vec<Bytes>) {
        self.feed.last_append.set(self.feed.clock.get());
        let mut segments = frame::join(segments).into_iter().peekable();
        while segments.peek().is_some() {
            let mut round = 0;
            while let Some(segment) = segments.next_if(|next| round == 0 || round + next.len() <= ROUND_BYTES)
            {
                round += segment.len();
                self.feed.ring.borrow_mut().append(segment);
            }
            self.offer().await;
            self.pace().await;
            if segments.peek().is_some() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Calls `visit` for every session. It must not add or remove sessions.
    fn each(&self, mut visit: impl FnMut(&Session)) {
        for (_, session) in self.sessions.borrow().iter() {
            visit(session);
        }
    }

    /// The lowest position that a session still reads, or the head.
    fn lowest_cursor(&self) -> u64 {
        let head = self.feed.ring.borrow().head();
        let mut lowest = head;
        self.each(|session| lowest = lowest.min(session.cursor().unwrap_or(head)));
        lowest
    }

    /// Holds the publishers back for a short while when most sessions are behind and yet take a lot: then
    /// it is not the clients that are slow, but the machine that has more to do than it can. For slow
    /// clients nobody waits: they take less than [`PACE_RATE`], and that is looked at once a second.
    async fn pace(&self) {
        let quarter = self.entry.backlog_bytes / 4;
        let start = Instant::now();
        if self.feed.ring.borrow().len() <= quarter || start < self.no_pace_before.get() {
            return;
        }
        let mut window = (start, self.lag(quarter).unsent);
        loop {
            let lag = self.lag(quarter);
            let now = Instant::now();
            if lag.lagging * 2 <= lag.sessions || now - start >= LONGEST_PACE {
                return;
            }
            let time = now - window.0;
            if time >= PACE_WINDOW {
                let rate = window.1.saturating_sub(lag.unsent) as f64 / time.as_secs_f64();
                if rate < PACE_RATE {
                    self.no_pace_before.set(now + PACE_PAUSE);
                    return;
                }
                window = (now, lag.unsent);
            }
            tokio::time::sleep(PACE_STEP).await;
        }
    }

    fn lag(&self, limit: usize) -> Lag {
        let head = self.feed.ring.borrow().head();
        let mut lag = Lag::default();
        self.each(|session| {
            let unsent = head - session.cursor().unwrap_or(head);
            lag.sessions += 1;
            lag.lagging += usize::from(unsent > limit as u64);
            lag.unsent += unsent;
        });
        lag
    }

    async fn offer(&self) {
        let floor = self.feed.ring.borrow().floor();
        // Cursors only grow, so what is seen here is never above what a session still reads.
        let mut lowest = self.feed.ring.borrow().head();
        let mut slot = 0;
        loop {
            {
                let sessions = self.sessions.borrow();
                let mut offered = 0;
                // Keys of a slab stay what they are while other tasks add and remove sessions.
                while slot < sessions.capacity() && offered < CHUNK {
                    if let Some(session) = sessions.get(slot) {
                        session.offer(floor);
                        lowest = lowest.min(session.cursor().unwrap_or(lowest));
                        offered += 1;
                    }
                    slot += 1;
                }
                if slot >= sessions.capacity() {
                    break;
                }
            }
            // The worker looks at its sockets and timers in between.
            tokio::task::yield_now().await;
        }
        self.feed.ring.borrow_mut().trim(lowest.max(floor));
    }
}
