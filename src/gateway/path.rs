//! One view of a path on one worker: its ring and its sessions, and how frames get from the one to the others.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use slab::Slab;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::directory::PathEntry;
use super::feed::{Feed, Tally};
use super::frame;
use super::listening::Listening;
use super::paths::Room;
use super::ring::Ring;
use super::segment::Segment;
use super::socket::Session;
use super::view::View;
use crate::model::event_id;
use crate::telemetry::{METRICS, trace};

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
/// Bytes that a ring keeps behind its head while clients read from the journal, as far as it may: when one of them is
/// through, what came meanwhile must still be there.
const TAIL_BYTES: u64 = 1024 * 1024;

/// How far the sessions of a path are behind.
#[derive(Debug, Default)]
struct Lag {
    sessions: usize,
    /// Sessions that are behind by more than a quarter of what they may be.
    lagging: usize,
    /// Bytes that all together have not been sent.
    unsent: u64,
}

/// The sessions of a path with the same view, and the feed that they read.
pub(super) struct Path {
    pub(super) entry: Arc<PathEntry>,
    /// By which number the worker finds the view.
    pub(super) number: u16,
    pub(super) feed: Rc<Feed>,
    worker: usize,
    sessions: RefCell<Slab<Rc<Session>>>,
    /// Clients of server-sent events.
    streams: RefCell<Slab<Rc<Listening>>>,
    /// The sessions were slow themselves when it was last looked at.
    no_pace_before: Cell<Instant>,
}

impl Path {
    /// A path without sessions. `clock` and `turns` are the worker's.
    pub(super) fn new(
        entry: &Arc<PathEntry>,
        view: View,
        room: Room,
        clock: &Rc<Cell<u32>>,
        turns: &Arc<Semaphore>,
        worker: usize,
    ) -> Self {
        Self {
            worker,
            entry: Arc::clone(entry),
            number: room.number,
            feed: Rc::new(Feed {
                view,
                ring: RefCell::default(),
                limit: room.limit,
                clock: Rc::clone(clock),
                last_append: Cell::new(clock.get()),
                tally: Tally::default(),
                replaying: Cell::new(0),
                joined: Cell::new(u64::MAX),
                turns: Arc::clone(turns),
            }),
            sessions: RefCell::default(),
            streams: RefCell::default(),
            no_pace_before: Cell::new(Instant::now()),
        }
    }

    /// Notes where the path stands when a client comes to an empty ring, so that it is seen if what comes next is
    /// not what follows.
    pub(super) fn expect(&self) {
        if let Some(committed) = self.entry.journal.committed(&self.entry.key) {
            self.feed.ring.borrow_mut().expect(*committed.borrow());
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
        }
        drop(sessions);
        self.forget_if_empty();
    }

    /// The session with this key.
    pub(super) fn session(&self, key: usize) -> Option<Rc<Session>> {
        self.sessions.borrow().get(key).cloned()
    }

    /// Adds a client of server-sent events; the key removes it.
    pub(super) fn insert_stream(&self, stream: Rc<Listening>) -> usize {
        self.streams.borrow_mut().insert(stream)
    }

    /// Removes a client of server-sent events.
    pub(super) fn remove_stream(&self, key: usize) {
        self.streams.borrow_mut().try_remove(key);
        self.forget_if_empty();
    }

    /// Without clients nothing is delivered here any more, so what the ring knows of the order becomes old.
    fn forget_if_empty(&self) {
        if self.len() == 0 {
            self.report();
            *self.feed.ring.borrow_mut() = Ring::default();
        }
    }

    /// Clients now.
    pub(super) fn len(&self) -> usize {
        self.sessions.borrow().len() + self.streams.borrow().len()
    }

    /// The server stops: clients of server-sent events are ended, and come back with the id of their last event.
    pub(super) fn end_streams(&self) {
        for (_, stream) in self.streams.borrow().iter() {
            stream.end();
        }
    }

    /// The sessions, to be kept over an await.
    pub(super) fn sessions(&self) -> Vec<Rc<Session>> {
        self.sessions.borrow().iter().map(|(_, session)| Rc::clone(session)).collect()
    }

    /// The worker's clock moved: every session looks at itself, and what all have read is dropped, or what may be kept
    /// no more: there may be less room than there was.
    pub(super) fn tick(&self, now: u32) {
        let floor = self.feed.floor();
        self.each(|session| {
            session.tick(now);
            session.keep_up(floor);
        });
        let lowest = self.lowest_cursor();
        self.trim(lowest.max(floor));
        self.report();
    }

    /// Tells what was written since it was told last: for many sessions and messages at once.
    fn report(&self) {
        self.report_all(self.feed.tally.take());
    }

    fn report_all(&self, written: u64) {
        if written > 0 {
            METRICS.messages_written.inc_by(written);
            self.entry.meter.write(written);
        }
    }

    /// Appends messages and writes them to every session that keeps up, a round at a time.
    pub(super) async fn write(&self, segments: Vec<Segment>) {
        if self.len() == 0 {
            return;
        }
        let mut segments = Segment::join(segments).into_iter().peekable();
        while segments.peek().is_some() {
            let (mut round, mut follows, mut oldest, mut places) = (0, true, (0, 0), 0..0);
            let (fresh, mut messages) = (self.feed.ring.borrow().head(), 0);
            while let Some(segment) =
                segments.next_if(|next| round == 0 || round + next.bytes.len() <= ROUND_BYTES)
            {
                round += segment.bytes.len();
                messages += u64::from(segment.messages);
                places = if places.is_empty() { segment.first } else { places.start }..segment.end;
                oldest = if oldest.0 == 0 { (segment.entered, segment.sent) } else { oldest };
                follows &= self.append(segment);
            }
            if round == 0 && follows {
                // Nothing of it is for these clients.
                continue;
            }
            self.report_all(self.feed.tally.begin(fresh, messages));
            self.feed.last_append.set(self.feed.clock.get());
            self.offer().await;
            self.report();
            count_write(oldest);
            // What a filter lets through is not known any more.
            if trace::is_on() && self.feed.view.filter.is_none() {
                trace::written(&self.entry.key, places, self.worker, self.len());
            }
            // Those with filters are many: together they would be waited for without end.
            if self.feed.view.filter.is_none() {
                self.pace().await;
            }
            if segments.peek().is_some() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// False: it does not follow what was appended before, and clients have to see for themselves.
    fn append(&self, segment: Segment) -> bool {
        let follows = self.feed.ring.borrow().is_followed_by(&segment);
        if !follows {
            // Something between was not sent here, as when a GatewayActor has started again: it is in the journal.
            self.each(Session::replay);
            for (_, stream) in self.streams.borrow().iter() {
                stream.replay();
            }
            let head = self.feed.ring.borrow().head();
            self.feed.ring.borrow_mut().trim(head);
        }
        for (_, stream) in self.streams.borrow().iter() {
            stream.begin(segment.first);
        }
        self.feed.ring.borrow_mut().append(segment);
        follows
    }

    /// Drops what is below `cursor`, but for a tail while clients read from the journal.
    fn trim(&self, cursor: u64) {
        let floor = self.feed.floor();
        let mut ring = self.feed.ring.borrow_mut();
        let tail = ring.head().saturating_sub(TAIL_BYTES).max(floor);
        let tail = if self.feed.replaying.get() > 0 { tail } else { u64::MAX };
        ring.trim(cursor.min(tail));
    }

    /// Calls `visit` for every session. It must not add or remove sessions.
    fn each(&self, mut visit: impl FnMut(&Session)) {
        for (_, session) in self.sessions.borrow().iter() {
            visit(session);
        }
    }

    /// The lowest position that a session still reads, or the head.
    fn lowest_cursor(&self) -> u64 {
        let ring = self.feed.ring.borrow();
        let mut lowest = ring.head();
        self.each(|session| lowest = lowest.min(session.cursor().unwrap_or(lowest)));
        for (_, stream) in self.streams.borrow().iter() {
            lowest = lowest.min(stream.cursor(&ring).unwrap_or(lowest));
        }
        lowest
    }

    /// Holds the publishers back for a short while when most sessions are behind and yet take a lot: then
    /// it is not the clients that are slow, but the machine that has more to do than it can. For slow
    /// clients nobody waits: they take less than [`PACE_RATE`], and that is looked at once a second.
    async fn pace(&self) {
        let quarter = self.entry.backlog().bytes / 4;
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
        let floor = self.feed.floor();
        self.feed.joined.set(u64::MAX);
        // Cursors only grow, so what is seen here is never above what a session still reads, but for those that
        // come to the ring meanwhile.
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
        {
            let ring = self.feed.ring.borrow();
            for (_, stream) in self.streams.borrow().iter() {
                stream.wake();
                lowest = lowest.min(stream.cursor(&ring).unwrap_or(lowest));
            }
        }
        self.trim(lowest.max(floor).min(self.feed.joined.get()));
    }
}

/// Counts a write to all who keep up: how long ago its oldest event entered, and its oldest batch was broadcast. What is 0
/// is not known.
fn count_write((entered, sent): (u64, u64)) {
    let now = SystemTime::now();
    if entered > 0 {
        METRICS.delivery_seconds.observe_time(event_id::age(entered, now));
    }
    if sent > 0 {
        METRICS.write_seconds.observe_time(event_id::age(sent, now));
    }
}
