//! The task of one connected client: it alone touches the socket and the session.
//!
//! One loop: send what may be sent, then wait for the first of: bytes to read (unless the engine is behind),
//! room to write, a word from elsewhere (messages, gates, a takeover), the server's stop, a deadline. It is
//! made by [`super::handshake`], started by [`super::listener`]; packets are answered in [`super::control`].

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::accounts::Account;
use super::close::Close;
use super::encode;
use super::heard::Presence;
use super::intake::Intake;
use super::limits::Limits;
use super::packet::{self, Connect, Version, Will};
use super::publish;
use super::sessions::Tenure;
use super::stream::Stream;
use super::will::{self, PendingWill};
use super::{Phase, Shared};
use crate::telemetry::METRICS;

/// Bytes asked of the socket at first; a client that sends more gets more, up to [`MAX_READ`].
const MIN_READ: usize = 2 * 1024;
/// Most bytes of one read.
const MAX_READ: usize = 64 * 1024;
/// Above this much unsent output no more messages are taken from the queue.
const OUT_FULL: usize = 64 * 1024;
/// Above this much unsent output (answers to a client that does not read) the connection is not read.
const OUT_STUFFED: usize = 256 * 1024;
/// How long a farewell may take to arrive.
const LINGER: Duration = Duration::from_millis(500);

/// A connected client.
pub(crate) struct Connection {
    pub(super) version: Version,
    pub(super) limits: Arc<Limits>,
    pub(super) account: Arc<Account>,
    pub(super) tenure: Tenure,
    pub(super) out: BytesMut,
    /// Seconds that the session outlives the connection.
    pub(super) session_expiry: u32,
    shared: Arc<Shared>,
    stream: Stream,
    input: BytesMut,
    read_size: usize,
    intake: Intake,
    will: Option<Will>,
    /// QoS 1 deliveries that the client takes at once.
    window: usize,
    /// The largest packet that the client takes.
    max_packet: usize,
    keep_alive: Option<Duration>,
    last_read: Instant,
    /// Since when output waits for the client to read.
    stuck_since: Option<Instant>,
    /// Whole packets may be left in `input`.
    has_more: bool,
    /// It ends with this as soon as what was read is with the links.
    ending: Option<Close>,
    /// Since when it ends and waits only for room in the links.
    ending_since: Option<Instant>,
    /// Of a device.
    _presence: Option<Presence>,
}

impl Connection {
    /// A client that has been let in; `out` holds its CONNACK.
    pub(crate) fn new(
        stream: Stream,
        shared: &Arc<Shared>,
        account: Arc<Account>,
        tenure: Tenure,
        connect: Connect,
        input: BytesMut,
        out: BytesMut,
    ) -> Self {
        let limits = Arc::clone(&shared.limits);
        let (who, wake) = ((tenure.seat.number, tenure.seat.sender), Arc::clone(&tenure.seat.wake));
        let intake = Intake::new(connect.version, Arc::clone(&account), who, Arc::clone(&limits), wake);
        let keep_alive = Duration::from_millis(u64::from(connect.keep_alive) * 1500);
        Self {
            version: connect.version,
            tenure,
            out,
            session_expiry: connect.session_expiry,
            shared: Arc::clone(shared),
            stream,
            has_more: !input.is_empty(),
            input,
            read_size: MIN_READ,
            intake,
            will: connect.will,
            window: usize::from(connect.receive_max.min(limits.max_inflight)),
            max_packet: usize::try_from(connect.max_packet).unwrap_or(usize::MAX),
            keep_alive: (!keep_alive.is_zero()).then_some(keep_alive),
            last_read: Instant::now(),
            stuck_since: None,
            ending: None,
            ending_since: None,
            _presence: account.heard().map(|heard| heard.connect()),
            account,
            limits,
        }
    }

    /// Who it is, for log lines.
    pub(crate) fn user(&self) -> &str {
        &self.account.name
    }

    /// Serves the client until the connection must end.
    pub(crate) async fn run(&mut self) -> Close {
        match self.serve().await {
            Ok(never) => match never {},
            Err(close) => close,
        }
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, Close> {
        let mut phase = self.shared.phase.subscribe();
        let mut login = self.account.is_valid();
        let mut timer = std::pin::pin!(sleep_until(Instant::now() + Duration::from_secs(3600)));
        let wake = Arc::clone(&self.tenure.seat.wake);
        loop {
            if self.tenure.is_superseded() {
                return Err(Close::TakenOver);
            }
            if !*login.borrow_and_update() {
                return Err(Close::LoggedOut);
            }
            self.intake.settle(&mut self.tenure.session, &mut self.out)?;
            self.take_messages()?;
            let full = self.out.len() >= OUT_FULL;
            self.write()?;
            // The queue may hold more, and only the first of a queue wakes.
            let more = full && self.out.is_empty();
            let stopping = self.check_end(&mut phase)?;
            let open = self.ending.is_none() && !stopping;
            let reading = open && !self.intake.is_full() && self.out.len() < OUT_STUFFED;
            if reading && self.has_more {
                self.decode();
                continue;
            }
            let deadline = self.deadline(reading);
            if let Some(deadline) = deadline
                && deadline < timer.deadline()
            {
                timer.as_mut().reset(deadline);
            }
            tokio::select! {
                readable = self.stream.readable(), if reading => match readable {
                    Ok(()) => {
                        // A socket that is never empty never gives the thread back by itself.
                        if self.read() {
                            tokio::task::yield_now().await;
                        }
                    }
                    Err(_) => self.ending = Some(Close::Gone),
                },
                writable = self.stream.writable(), if self.stuck_since.is_some() => {
                    writable.map_err(|_| Close::Gone)?;
                }
                () = tokio::task::yield_now(), if more => {}
                () = wake.notified() => {}
                () = self.intake.make_way() => {}
                _ = phase.changed() => {}
                _ = login.changed() => {}
                () = timer.as_mut(), if deadline.is_some() => {
                    self.check_deadlines(reading)?;
                    let next = self.deadline(reading);
                    timer.as_mut().reset(next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600)));
                }
            }
            tokio::task::coop::consume_budget().await;
            if !reading {
                // What the client says meanwhile is not heard, so its silence does not count.
                self.last_read = Instant::now();
            }
        }
    }

    /// Whether the server stops; an error when there is nothing left to do.
    fn check_end(&mut self, phase: &mut watch::Receiver<Phase>) -> Result<bool, Close> {
        let phase = *phase.borrow_and_update();
        if phase == Phase::Closing || (phase == Phase::Draining && self.intake.is_idle()) {
            return Err(Close::Stopping);
        }
        match self.ending {
            Some(close) if self.intake.is_handed_over() => return Err(close),
            Some(_) => self.ending_since = self.ending_since.or_else(|| Some(Instant::now())),
            None => {}
        }
        Ok(phase != Phase::Running)
    }

    fn read(&mut self) -> bool {
        self.input.reserve(self.read_size);
        let mut full = false;
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => self.ending = Some(Close::Gone),
            Ok(count) => {
                self.last_read = Instant::now();
                full = count >= self.read_size;
                if full {
                    self.read_size = (self.read_size * 2).min(MAX_READ);
                }
                self.decode();
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                self.ending = Some(Close::Malformed);
            }
            Err(_) => self.ending = Some(Close::Gone),
        }
        full
    }

    /// Takes in the whole packets that have arrived, as far as the engine keeps up.
    fn decode(&mut self) {
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        let outcome = loop {
            if self.intake.is_full() || self.out.len() >= OUT_STUFFED {
                self.has_more = true;
                break Ok(());
            }
            self.has_more = false;
            let rest = input.get(at..).unwrap_or_default();
            let frame = match packet::frame(rest, self.limits.max_packet_bytes()) {
                Ok(Some(frame)) => frame,
                Ok(None) => break Ok(()),
                Err(close) => break Err(close),
            };
            let Some(bytes) = rest.get(..frame.total) else { break Ok(()) };
            at += frame.total;
            let taken = if publish::is_publish(frame.first) {
                publish::publish(self.version, bytes, frame)
                    .and_then(|publish| self.intake.publish(&mut self.tenure.session, &publish))
            } else {
                packet::packet(self.version, bytes, frame).and_then(|packet| self.control(packet))
            };
            if let Err(close) = taken {
                break Err(close);
            }
        };
        self.input = input;
        self.input.advance(at);
        if self.input.is_empty() {
            if self.input.capacity() > 2 * MAX_READ {
                self.input = BytesMut::new();
            } else {
                self.input.clear();
            }
        }
        self.intake.hand_over();
        if let Err(close) = outcome {
            self.ending = Some(close);
        }
    }

    /// Moves messages for the client from its queue into the output, as far as both allow.
    fn take_messages(&mut self) -> Result<(), Close> {
        let session = &mut *self.tenure.session;
        let now = Instant::now();
        while self.out.len() < OUT_FULL
            && session.outstanding() < self.window
            && let Some((id, delivery)) = session.resend()
        {
            if encode::publish(&mut self.out, self.version, delivery, id, true, now, self.max_packet) {
                session.resent();
            } else {
                session.acknowledged(id);
            }
        }
        let mut queue = self.tenure.seat.outbox.queue();
        if queue.overflowed() {
            return Err(Close::SlowSubscriber);
        }
        if session.resend().is_some() {
            return Ok(());
        }
        let mut sent = 0;
        while self.out.len() < OUT_FULL
            && let Some(front) = queue.front()
            && (front.qos == 0 || session.may_send(self.window, self.limits.max_queued_bytes))
            && let Some(delivery) = queue.pop()
        {
            if delivery.message.is_expired(now) {
                continue;
            }
            let id = if delivery.qos == 0 { 0 } else { session.send(delivery.clone()) };
            // A packet larger than the client takes counts as delivered (MQTT-3.1.2-25).
            let fits =
                encode::publish(&mut self.out, self.version, &delivery, id, false, now, self.max_packet);
            if !fits && id != 0 {
                session.acknowledged(id);
            }
            sent += 1;
        }
        if sent > 0 {
            METRICS.mqtt_sent.inc_by(sent);
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), Close> {
        loop {
            let sent = match &*self.out {
                // What the stream has taken may still wait there.
                [] => match self.stream.flush() {
                    Ok(()) => break,
                    Err(error) => Err(error),
                },
                out => self.stream.try_write(out),
            };
            match sent {
                Ok(count) => {
                    self.out.advance(count);
                    self.stuck_since = None;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.stuck_since.get_or_insert_with(Instant::now);
                    return Ok(());
                }
                Err(_) => return Err(Close::Gone),
            }
        }
        self.stuck_since = None;
        self.out.clear();
        if self.out.capacity() > 2 * OUT_FULL {
            self.out = BytesMut::new();
        }
        Ok(())
    }

    /// When something must have happened.
    fn deadline(&self, reading: bool) -> Option<Instant> {
        let keep_alive = self.keep_alive.filter(|_| reading).map(|time| self.last_read + time);
        let writing = self.stuck_since.map(|since| since + self.limits.write_timeout);
        let ending = self.ending_since.map(|since| since + self.limits.write_timeout);
        [keep_alive, writing, ending].into_iter().flatten().min()
    }

    fn check_deadlines(&self, reading: bool) -> Result<(), Close> {
        let now = Instant::now();
        if self.stuck_since.is_some_and(|since| since + self.limits.write_timeout <= now) {
            return Err(Close::WriteTimeout);
        }
        // A client that has gone must not keep its place while the engine stands still: what waits is refused.
        if let (Some(since), Some(close)) = (self.ending_since, self.ending)
            && since + self.limits.write_timeout <= now
        {
            return Err(close);
        }
        if reading && self.keep_alive.is_some_and(|time| self.last_read + time <= now) {
            return Err(Close::KeepAlive);
        }
        Ok(())
    }

    /// Ends the connection: says why, leaves the session to whom it belongs now, publishes the will.
    pub(crate) async fn end(self, close: Close) {
        let Self { mut tenure, mut intake, mut out, stream, will, account, shared, .. } = self;
        if close == Close::Panicked {
            // Whatever state it is in, nobody shall go on with it.
            tenure.forget();
        }
        intake.leave(&mut tenure.session);
        // Waiting groups are refused here.
        drop(intake);
        let session = tenure.seat.number;
        let will = will.filter(|_| close.publishes_will()).map(|will| PendingWill {
            delay: Duration::from_secs(will.delay.into()),
            will,
            account,
            session,
        });
        let expiry = if close == Close::Panicked { 0 } else { self.session_expiry };
        let now = shared.sessions.release(tenure, Duration::from_secs(expiry.into()), will);
        if let Some(code) = close.code() {
            encode::disconnect(&mut out, self.version, code);
        }
        if close.word().is_some() {
            farewell(stream, &out).await;
        } else {
            drop(stream);
        }
        if let Some(will) = now {
            will::publish(will).await;
        }
    }
}

/// Sends the last bytes and waits a little until the client has read them: a socket closed with unread input
/// is reset, and the client would never see why.
pub(crate) async fn farewell(mut stream: Stream, out: &[u8]) {
    let leave = async {
        // A WebSocket that is closed takes nothing more; its own last frame goes all the same.
        let _ = stream.send(out).await;
        stream.shut().await?;
        let mut rest = BytesMut::with_capacity(1024);
        while stream.read_buf(&mut rest).await? > 0 {
            rest.clear();
        }
        std::io::Result::Ok(())
    };
    let _ = tokio::time::timeout(LINGER, leave).await;
}
