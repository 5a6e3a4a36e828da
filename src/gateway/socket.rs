//! A session's side of its socket: the cursor over the path's ring, the way back from the journal, the control
//! frames, the closing.
//!
//! `Session` lives on one worker and is written by two: the shard offers it new frames, its own task goes
//! on when the socket was full. Nothing here waits; who is blocked says so and is woken by its task.
//! Its only queue is that of control frames, [`MAX_CONTROL_BYTES`]; a client that fills it is cut off.

mod arrival;
mod catch_up;
mod closing;
mod heard;
mod own;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use socket2::SockRef;

pub(super) use self::arrival::Arrival;
use self::closing::{Last, SLOW_CLOSE_SECONDS};
use super::clients::Guest;
use super::close::Close;
use super::directory::{PathEntry, Place};
use super::feed::Feed;
use super::frame;
use super::hooks::Conversation;
use super::rate::Used;
use super::replay::Replay;
use super::ring::Ring;
use super::vitals::{Finding, Vitals};
use crate::model::gateway::GatewayPath;
use crate::tls::Io;

/// Control frames that may wait while a client does not read, in bytes. It holds pongs and the close.
pub(super) const MAX_CONTROL_BYTES: usize = 16 * 1024;
/// The same, in frames: each costs more than its bytes.
pub(super) const MAX_CONTROL_FRAMES: usize = 128;
/// Unsent bytes that the kernel takes per connection before the socket counts as full.
const NOTSENT_LOWAT: u32 = 128 * 1024;
/// Bytes that one read takes from a socket.
const READ_BYTES: usize = 16 * 1024;
/// Slices in one vectored write.
const MAX_SLICES: usize = 16;

/// Where a session stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Frames flow.
    Open,
    /// Open, to be closed when everything in the ring is sent.
    Draining(Close),
    /// Closing, when what the client said before is answered; what it still sends is thrown away.
    Answering(Last),
    /// Our close frame is queued or sent; waiting for the client's.
    CloseSent,
    /// As `CloseSent`, after a violation: what the client sends is thrown away.
    Discarding,
    /// The client's close frame came; done when our answer is sent.
    PeerClosed,
    /// Over.
    Ended,
}

/// The client says something, and an actor hears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Something is begun.
    Begun,
    /// Everything that was begun is done: the actor may go.
    Done,
    /// There is no actor, or none that may read any more.
    Over,
}

/// What a flush left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// Everything is sent.
    Idle,
    /// The socket is full.
    Blocked,
    /// The connection is broken.
    Broken,
}

/// One WebSocket connection.
pub(super) struct Session {
    pub(super) guest: Guest,
    pub(super) entry: Arc<PathEntry>,
    pub(super) settings: Arc<GatewayPath>,
    /// What it says, if its path has hooks.
    pub(super) conversation: RefCell<Option<Box<Conversation>>>,
    frames: Cell<Used>,
    bytes: Cell<Used>,
    pub(super) feed: Rc<Feed>,
    io: Io,
    /// Where it stands in the path's ring, if it reads there.
    cursor: Cell<u64>,
    /// What it sends instead while it does not read the ring.
    replay: RefCell<Option<Box<Replay>>>,
    control: RefCell<VecDeque<Bytes>>,
    control_len: Cell<usize>,
    /// The first control frame is sent in part, so it must be finished before anything else.
    mid_control: Cell<bool>,
    phase: Cell<Phase>,
    /// The write side is shut down.
    shut: Cell<bool>,
    /// When a closing connection is reset, on the worker's clock of seconds.
    deadline: Cell<u32>,
    opened: u32,
    last_input: Cell<u32>,
    last_activity: Cell<u32>,
    pinged: Cell<bool>,
    blocked: Cell<bool>,
    /// Where the client's turn stands, between the input, the actor and the task.
    pub(super) turn: Cell<Turn>,
    /// Why the input is refused, from the header scan to the actor.
    fault: Cell<Option<Close>>,
    /// What is in the compressed message that begins, in the same way.
    pub(super) packed: Cell<Option<super::inbound::Packed>>,
    waker: RefCell<Option<Waker>>,
    ended_as: Cell<&'static str>,
    place: Place,
}

impl Session {
    /// Takes over a socket.
    pub(super) fn new(io: Io, feed: Rc<Feed>, place: Place, arrival: Arrival) -> Self {
        let Arrival { route, guest, visit, answer, start } = arrival;
        // It only tunes; a platform without it works as well.
        #[cfg(target_os = "linux")]
        let _ = SockRef::from(io.tcp()).set_tcp_notsent_lowat(NOTSENT_LOWAT);
        let now = feed.clock.get();
        let head = feed.ring.borrow().head();
        let resume = |start| {
            feed.replaying.set(feed.replaying.get() + 1);
            Box::new(Replay::resume(start))
        };
        Self {
            guest,
            entry: route.entry,
            settings: route.settings,
            conversation: RefCell::new(visit.map(|visit| Box::new(Conversation::new(visit)))),
            frames: Cell::default(),
            bytes: Cell::default(),
            cursor: Cell::new(head),
            replay: RefCell::new(start.map(resume)),
            io,
            control_len: Cell::new(answer.len()),
            control: RefCell::new(VecDeque::from([answer])),
            mid_control: Cell::new(false),
            phase: Cell::new(Phase::Open),
            shut: Cell::new(false),
            deadline: Cell::new(u32::MAX),
            opened: now,
            last_input: Cell::new(now),
            last_activity: Cell::new(now),
            pinged: Cell::new(false),
            blocked: Cell::new(false),
            turn: Cell::new(Turn::Over),
            fault: Cell::new(None),
            packed: Cell::new(None),
            waker: RefCell::new(None),
            ended_as: Cell::new("connection_lost"),
            place,
            feed,
        }
    }

    /// Where it stands in the ring, or `None` when it does not read there.
    pub(super) fn cursor(&self) -> Option<u64> {
        self.replay.borrow().is_none().then(|| self.cursor.get())
    }

    /// The counter's word for how the session ended.
    pub(super) fn ended_as(&self) -> &'static str {
        self.ended_as.get()
    }

    /// Whether nothing is left to do for it.
    pub(super) fn is_ended(&self) -> bool {
        self.phase.get() == Phase::Ended
    }

    // --- What the shard calls -----------------------------------------------------------------------

    /// New messages are in the ring: writes them if nothing stands before them. A cursor below `floor` is too slow
    /// after that.
    pub(super) fn offer(&self, floor: u64) {
        if self.is_ended() {
            return;
        }
        // One that reads from the journal has its own pace, and comes back when the journal has nothing more.
        if self.replay.borrow().as_ref().is_some_and(|replay| !replay.at_end) {
            return;
        }
        if !self.blocked.get() {
            match self.flush() {
                // A session that closes may stand below the floor all the same.
                Flow::Idle => {}
                Flow::Blocked => self.wake(),
                Flow::Broken => return self.end("connection_lost", false),
            }
        }
        self.keep_up(floor);
    }

    /// Falls behind if its cursor is below `floor`.
    pub(super) fn keep_up(&self, floor: u64) {
        if self.cursor().is_some_and(|cursor| cursor < floor) && !self.is_ended() {
            self.fall_behind();
        }
    }

    /// The worker's clock moved: pings, and ends what is idle, old, dead or does not close.
    pub(super) fn tick(&self, now: u32) {
        if self.is_ended() {
            return;
        }
        if self.is_full_of_heard() {
            // It is not listened to just now, so its silence says nothing.
            self.last_input.set(now);
        }
        let vitals = Vitals {
            opened: self.opened,
            last_input: self.last_input.get(),
            last_activity: self.last_activity.get().max(self.feed.last_append.get()),
            pinged: self.pinged.get(),
            idle: self.settings.limits.idle.as_secs() as u32,
            lifetime: self.settings.limits.lifetime.as_secs() as u32,
        };
        self.close_if_expired();
        match (vitals.check(now), self.phase.get()) {
            // One that waits for answers has waited long enough.
            _ if now >= self.deadline.get() => {
                if self.last_words() {
                    self.wake();
                } else {
                    self.end(self.ended_as.get(), true);
                }
            }
            (Finding::Dead, _) => self.end("dead", true),
            (Finding::Old, Phase::Open) => self.drain(Close::Lifetime, SLOW_CLOSE_SECONDS),
            (Finding::Idle, Phase::Open) => self.close(Close::Idle),
            (Finding::Ping, Phase::Open) => {
                self.pinged.set(true);
                self.push_control(frame::PING);
                self.wake();
            }
            _ => {}
        }
    }

    // --- What the session's task calls --------------------------------------------------------------

    /// Queues what goes out between messages: pongs, pings, the close frame.
    pub(super) fn push_control(&self, frame: Bytes) {
        let len = self.control_len.get() + frame.len();
        let mut control = self.control.borrow_mut();
        // A message for this client alone may be longer than all that may wait: then it stands first.
        let own = control.front().map_or(0, Bytes::len).max(own::MAX_OWN_BYTES);
        if len > MAX_CONTROL_BYTES + own || control.len() >= MAX_CONTROL_FRAMES {
            return self.end("control_flood", true);
        }
        self.control_len.set(len);
        control.push_back(frame);
    }

    /// Writes what can be written and arranges to be woken for the rest. Ready when the session is over.
    pub(super) fn poll_output(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.is_ended() {
                return Poll::Ready(());
            }
            match self.flush() {
                Flow::Broken => self.end(self.ended_as.get(), false),
                Flow::Blocked => match self.io.poll_write_ready(cx) {
                    // The kernel has room again, so the peer has taken bytes: it lives.
                    Poll::Ready(Ok(())) => {
                        self.blocked.set(false);
                        self.last_input.set(self.feed.clock.get());
                    }
                    Poll::Ready(Err(_)) => self.end(self.ended_as.get(), false),
                    Poll::Pending => return self.park(cx),
                },
                Flow::Idle => match self.phase.get() {
                    Phase::PeerClosed => self.end(self.ended_as.get(), false),
                    Phase::Discarding if !self.shut.replace(true) => {
                        // The client reads our close frame and then the end; its input is still emptied.
                        self.io.shut();
                    }
                    _ => return self.park(cx),
                },
            }
        }
    }

    /// Ready when something came, or the end, or an error.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.io.poll_read_ready(cx).map(drop)
    }

    /// Reads what is there and appends it to `bytes`, or throws it away. `Ok(0)` is the end of the input.
    pub(super) fn poll_input(
        &self,
        cx: &mut Context<'_>,
        bytes: Option<&mut BytesMut>,
    ) -> Poll<io::Result<usize>> {
        loop {
            std::task::ready!(self.io.poll_read_ready(cx))?;
            // One buffer on the stack for a short while, instead of one in every idle session.
            let mut scratch = [0; READ_BYTES];
            match self.io.try_read(&mut scratch) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(read) => {
                    self.last_input.set(self.feed.clock.get());
                    self.pinged.set(false);
                    if let Some(bytes) = bytes {
                        bytes.extend_from_slice(&scratch[..read]);
                    }
                    return Poll::Ready(Ok(read));
                }
            }
        }
    }

    // --- Inside -------------------------------------------------------------------------------------

    fn park(&self, cx: &Context<'_>) -> Poll<()> {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Ends the session. `reset` throws away what the kernel has not sent: a stalled client would hold it.
    fn end(&self, why: &'static str, reset: bool) {
        self.ended_as.set(why);
        self.phase.set(Phase::Ended);
        if reset {
            let _ = SockRef::from(self.io.tcp()).set_linger(Some(Duration::ZERO));
        } else {
            self.io.say_goodbye();
        }
        self.wake();
    }

    fn flush(&self) -> Flow {
        let ring = self.feed.ring.borrow();
        loop {
            let sent = if self.mid_control.get() || self.control_is_due(&ring) {
                self.write_control()
            } else if let Some(sent) = self.write_replay(&ring) {
                sent
            } else {
                let cursor = self.cursor.get();
                let all_sent = self.replay.borrow().is_some() || cursor == ring.head();
                match self.phase.get() {
                    Phase::Draining(close) if all_sent => {
                        self.drained(close);
                        continue;
                    }
                    Phase::Open | Phase::Draining(_) if !all_sent => {
                        self.write_frames(&ring, cursor, MAX_SLICES)
                    }
                    // Closing: the frame that is begun is finished, no new one begins.
                    Phase::Answering(_) | Phase::CloseSent | Phase::Discarding | Phase::PeerClosed
                        if !all_sent && !ring.is_boundary(cursor) =>
                    {
                        self.write_frames(&ring, cursor, 1)
                    }
                    _ => match self.io.flush() {
                        Ok(()) => {
                            self.blocked.set(false);
                            return Flow::Idle;
                        }
                        full => full,
                    },
                }
            };
            match sent {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked.set(true);
                    self.shrink();
                    return Flow::Blocked;
                }
                Err(_) => return Flow::Broken,
            }
        }
    }

    fn control_is_due(&self, ring: &Ring) -> bool {
        !self.control.borrow().is_empty()
            && match &*self.replay.borrow() {
                Some(replay) => replay.is_boundary(),
                None => ring.is_boundary(self.cursor.get()),
            }
    }

    fn write_control(&self) -> io::Result<()> {
        let mut control = self.control.borrow_mut();
        let Some(front) = control.front_mut() else {
            self.mid_control.set(false);
            return Ok(());
        };
        let sent = self.io.try_write(front)?;
        if sent < front.len() {
            front.advance(sent);
            self.mid_control.set(true);
        } else {
            control.pop_front();
            self.mid_control.set(false);
            if control.is_empty() {
                *control = VecDeque::new();
            }
        }
        self.control_len.set(self.control_len.get().saturating_sub(sent));
        Ok(())
    }

    fn write_frames(&self, ring: &Ring, cursor: u64, max_slices: usize) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let sent = match ring.slices(cursor, &mut slices[..max_slices]) {
            // Never the case: a cursor that the ring has passed is detached.
            0 => return Err(io::ErrorKind::BrokenPipe.into()),
            1 => self.io.try_write(&slices[0])?,
            filled => self.io.try_write_vectored(&slices[..filled])?,
        };
        let end = cursor + sent as u64;
        self.cursor.set(end);
        self.feed.tally.stretch(ring, cursor, end);
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.replay.borrow().is_some() {
            self.feed.replaying.set(self.feed.replaying.get() - 1);
        }
    }
}
