//! The task that speaks with an external broker: connect, read, hand over, acknowledge, connect again.
//!
//! Started by [`super::MqttSource`]. It never waits for anything but the socket and, for a bounded time, room
//! in the queue. Each connection has a client and a [`Ledger`] of its own, so nothing of an old one can
//! reach a new one.
//!
//! When the queue is full the socket is not read (TCP holds the broker back) for at most [`PAUSE`], since
//! the keep-alive must go on. After that QoS 0 messages are dropped and counted. A QoS 1 message is left
//! unacknowledged, and with it all that follow; when there is room again the connection is made anew, and
//! the broker sends them once more, in order.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, Outgoing, Packet, Publish,
    QoS, SubAck, SubscribeFilter, SubscribeReasonCode,
};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::health::Health;
use super::intake::{Group, Intake, answer, message_of, stub};
use super::ledger::{Ledger, Message};
use super::queue::{Room, Sender};
use super::retry::{Backoff, Ended, HEALTHY, RepeatGuard};
use super::spec::MqttSourceSpec;
use crate::model::receipt::{Arrivals, Gate};
use crate::model::repeat::Repeats;
use crate::source::{Condition, Ending};
use crate::telemetry::METRICS;

/// How often the broker hears from us when nothing happens.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Longest time, between two answers to our pings, in which the socket is not read.
const PAUSE: Duration = Duration::from_secs(KEEP_ALIVE.as_secs() / 2);
/// Seconds that a connection may take to be made, and a packet to be written.
const CONNECT_SECONDS: u64 = 10;
/// Packets that the client can be given to write: SUBSCRIBE, DISCONNECT and one acknowledgement at a time.
const REQUESTS: usize = 8;
/// Largest packet that is read: all that MQTT can express. A smaller limit would not save memory but end
/// the connection at the same message for ever.
const MAX_PACKET: usize = 268_435_455;
/// Largest packet that is written; ours are small.
const MAX_OUTGOING: usize = 1 << 20;
/// Publishes of ours under way; there are none, but the client wants a number.
const INFLIGHT: u16 = 100;
/// How long a stop waits for acknowledgements.
const LEAVE: Duration = Duration::from_secs(2);
/// How long a stop waits, after that, for the broker to close the connection.
const GOODBYE: Duration = Duration::from_millis(500);
/// How long a refused subscription stays refused before it is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// How often conditions that nobody announces are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// The task's state over all connections.
#[derive(Debug)]
pub(super) struct Task {
    spec: MqttSourceSpec,
    queue: Sender,
    health: Health,
    /// Set: end. An error: the source was dropped.
    stop: watch::Receiver<Option<Ending>>,
    /// Woken by every gate whose verdict is known.
    decided: Arc<Notify>,
    intake: Intake,
    backoff: Backoff,
    guard: RepeatGuard,
    /// The broker has accepted us before.
    known: bool,
}

/// One connection, from the attempt to its end.
struct Connection {
    client: AsyncClient,
    ledger: Ledger,
    /// When the broker accepted us, and whether it had kept our session.
    accepted: Option<(Instant, bool)>,
    subscription: Subscription,
    /// What is left of the time in which the socket need not be read.
    pause_left: Duration,
    /// A QoS 1 message found no room: nothing more is taken on this connection.
    spilled: bool,
    /// Set while the source stops.
    leaving: Option<Leaving>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subscription {
    Asked,
    Granted,
    Refused { ask_again: Instant },
}

#[derive(Debug, Clone, Copy)]
struct Leaving {
    until: Instant,
    disconnecting: bool,
}

/// Why a connection ends.
enum End {
    /// The source was stopped or dropped.
    Stopped,
    /// It failed, in words.
    Failed(String),
}

impl Task {
    /// A task that has not begun.
    pub(super) fn new(
        spec: MqttSourceSpec,
        queue: Sender,
        condition: watch::Sender<Condition>,
        stop: watch::Receiver<Option<Ending>>,
    ) -> Self {
        let broker = format!("{}:{}", spec.broker.host, spec.broker.port);
        Self {
            health: Health::new(condition, spec.name.clone(), broker),
            spec,
            queue,
            stop,
            decided: Arc::new(Notify::new()),
            intake: Intake::default(),
            backoff: Backoff::new(),
            guard: RepeatGuard::default(),
            known: false,
        }
    }

    /// Until the source stops.
    pub(super) async fn run(mut self) {
        let mut ledger = self.spec.repeats.as_ref().map(Ledger::recall).unwrap_or_default();
        loop {
            let (client, eventloop) = connect(&self.spec);
            let mut connection = Connection::new(client, ledger);
            let end = self.serve(&mut connection, eventloop).await;
            // What came with QoS 0 is nowhere else; do not wait for room now.
            connection.pause_left = Duration::ZERO;
            self.hand_over(&mut connection).await;
            let End::Failed(error) = end else { return };
            METRICS.source_disconnects.inc();
            let lived = connection.lived();
            let ended = Ended {
                error: &error,
                session_present: connection.accepted.is_some_and(|(_, session_present)| session_present),
                progress: connection.ledger.has_progress(),
                lived,
            };
            if self.guard.note(ended) {
                self.health.hopeless(&error);
            }
            self.health.failed(&error);
            ledger = connection.ledger.successor();
            let wait = self.backoff.wait(lived, rand::random());
            if self.stopped_within(wait).await {
                return;
            }
        }
    }

    async fn stopped_within(&mut self, time: Duration) -> bool {
        tokio::select! {
            _ = self.stop.wait_for(Option::is_some) => true,
            () = sleep(time) => false,
        }
    }

    /// One connection. The client's future is never dropped while it may be in the middle of a write.
    async fn serve(&mut self, connection: &mut Connection, mut eventloop: EventLoop) -> End {
        loop {
            let event = match self.next_event(connection, &mut eventloop).await {
                Ok(event) => event,
                Err(end) => return end,
            };
            let handled = match event {
                Ok(event) => self.handle(connection, event).await,
                Err(error) => {
                    // The client keeps what it read before the error, and would tell it later.
                    while let Some(event) = eventloop.state.events.pop_front() {
                        if let Event::Incoming(Packet::Publish(publish)) = event {
                            self.take(connection, &publish).await;
                        }
                    }
                    // Also the answer to our DISCONNECT: the broker has read all that came before it. A source
                    // that connected sooner would find a session whose acknowledgements are still unread.
                    let leaving = connection.leaving.is_some();
                    Err(if leaving { End::Stopped } else { End::Failed(error.to_string()) })
                }
            };
            if let Err(end) = handled.and_then(|()| self.attend(connection)) {
                return end;
            }
            if let Err(end) = connection.acknowledge(&mut eventloop).await {
                return end;
            }
        }
    }

    async fn next_event(
        &mut self,
        connection: &mut Connection,
        eventloop: &mut EventLoop,
    ) -> Result<Result<Event, ConnectionError>, End> {
        let mut next = pin!(eventloop.poll());
        if let Poll::Ready(event) = poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await {
            return Ok(event);
        }
        // Nothing more is ready: what was gathered is a group.
        self.hand_over(connection).await;
        self.wait(connection, next).await
    }

    async fn wait(
        &mut self,
        connection: &mut Connection,
        mut next: Pin<&mut impl Future<Output = Result<Event, ConnectionError>>>,
    ) -> Result<Result<Event, ConnectionError>, End> {
        loop {
            self.attend(connection)?;
            connection.rouse();
            let until = connection.leaving.map_or_else(|| Instant::now() + LOOK, |leaving| leaving.until);
            tokio::select! {
                biased;
                event = &mut next => return Ok(event),
                () = self.decided.notified() => {}
                _ = self.stop.changed() => {}
                () = self.queue.half_empty(), if connection.spilled && connection.leaving.is_none() => {}
                () = sleep_until(until) => {}
            }
        }
    }

    /// Everything that may have become due meanwhile; cheap, done after every event.
    fn attend(&mut self, connection: &mut Connection) -> Result<(), End> {
        if self.stop.has_changed().is_err() {
            return Err(End::Stopped);
        }
        let refused = connection.ledger.settle().is_err();
        let ending = *self.stop.borrow_and_update();
        if let Some(ending) = ending {
            return connection.leave(ending, &self.spec, refused);
        }
        if refused {
            return Err(End::Failed("hand over a message: it was not taken".to_owned()));
        }
        if connection.spilled && self.queue.is_half_empty() {
            return Err(End::Failed("hand over messages in time: the queue was full".to_owned()));
        }
        match connection.subscription {
            Subscription::Asked => {}
            Subscription::Granted => self.report_running(connection),
            Subscription::Refused { ask_again } => {
                if Instant::now() >= ask_again {
                    connection.subscribe(&self.spec)?;
                }
            }
        }
        Ok(())
    }

    fn report_running(&mut self, connection: &Connection) {
        if self.guard.is_raised() {
            if !connection.ledger.has_progress() && connection.lived() < HEALTHY {
                return;
            }
            self.guard.clear();
        }
        self.health.running();
    }

    async fn handle(&mut self, connection: &mut Connection, event: Event) -> Result<(), End> {
        match event {
            Event::Incoming(Packet::Publish(publish)) => self.take(connection, &publish).await,
            Event::Incoming(Packet::ConnAck(answer)) => {
                connection.accepted = Some((Instant::now(), answer.session_present));
                if !answer.session_present {
                    connection.ledger.forget();
                    if self.known {
                        self.health.forgotten();
                    }
                }
                self.known = true;
                // Also with a session: what the broker kept may be of another version of the trigger.
                connection.subscribe(&self.spec)?;
            }
            Event::Incoming(Packet::SubAck(answer)) => self.subscribed(connection, &answer),
            Event::Incoming(Packet::PingResp) => connection.pause_left = PAUSE,
            Event::Outgoing(Outgoing::PubAck(_) | Outgoing::PubRec(_)) => connection.ledger.written(),
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
        Ok(())
    }

    fn subscribed(&self, connection: &mut Connection, answer: &SubAck) {
        connection.subscription = Subscription::Granted;
        for (filter, code) in self.spec.filters.iter().zip(&answer.return_codes) {
            match code {
                SubscribeReasonCode::Success(QoS::AtMostOnce) => self.health.downgraded(filter),
                SubscribeReasonCode::Success(_) => {}
                SubscribeReasonCode::Failure => {
                    connection.subscription = Subscription::Refused { ask_again: Instant::now() + ASK_AGAIN };
                    self.health.failed(&format!("subscribe: the broker refuses the topic filter '{filter}'"));
                }
            }
        }
    }

    async fn take(&mut self, connection: &mut Connection, publish: &Publish) {
        let message = message_of(publish);
        if let Some(message) =
            message.filter(|message| !connection.spilled && connection.ledger.may_know(*message, publish.dup))
        {
            // In the order of arrival: what was gathered comes before.
            self.hand_over(connection).await;
            // No room for what comes before: this one waits with it for the next connection.
            if !connection.spilled && connection.ledger.knows(message, publish.dup) {
                return;
            }
        }
        let taken = self.intake.encode(&self.spec.topics, publish, message);
        if !self.intake.has_room(&taken) {
            self.hand_over(connection).await;
        }
        self.intake.add(taken);
    }

    /// Puts what was gathered into the queue, or drops it if there is no room for too long.
    async fn hand_over(&mut self, connection: &mut Connection) {
        let Some(Group { events, bytes, messages, unrepeatable }) = self.intake.take() else { return };
        if events.is_empty() && !connection.spilled {
            return connection.ledger.took(messages, None);
        }
        let room = if connection.spilled || connection.leaving.is_some() {
            None
        } else {
            match self.queue.try_room(bytes) {
                None => self.pause(connection, bytes).await,
                room => room,
            }
        };
        let Some(room) = room else {
            METRICS.source_dropped.inc_by(unrepeatable as u64);
            connection.spilled |= !messages.is_empty();
            return;
        };
        METRICS.events_received.inc_by(events.len() as u64);
        let (gate, receipts) = Gate::new(1, Arc::clone(&self.decided));
        if let Some(receipt) = receipts.into_iter().next() {
            let publishes: Vec<_> = messages.iter().copied().map(Message::repeat).collect();
            let session = self.spec.session();
            let repeats = (!publishes.is_empty()).then_some(Repeats { session, publishes });
            self.queue.send(room, Arrivals { events, repeats, made_of: None, receipt });
        }
        connection.ledger.took(messages, Some(gate));
    }

    /// Waits for room without reading the socket.
    async fn pause(&mut self, connection: &mut Connection, bytes: usize) -> Option<Room> {
        let began = Instant::now();
        let room = tokio::select! {
            room = self.queue.room(bytes) => room,
            () = sleep(connection.pause_left) => None,
            _ = self.stop.wait_for(Option::is_some) => None,
        };
        connection.pause_left = connection.pause_left.saturating_sub(began.elapsed());
        room
    }
}

impl Connection {
    fn new(client: AsyncClient, ledger: Ledger) -> Self {
        Self {
            client,
            ledger,
            accepted: None,
            subscription: Subscription::Asked,
            pause_left: PAUSE,
            spilled: false,
            leaving: None,
        }
    }

    fn lived(&self) -> Duration {
        self.accepted.map_or(Duration::ZERO, |(since, _)| since.elapsed())
    }

    fn subscribe(&mut self, spec: &MqttSourceSpec) -> Result<(), End> {
        let filters =
            spec.filters.iter().map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce));
        self.subscription = Subscription::Asked;
        self.client
            .try_subscribe_many(filters)
            .map_err(|_| End::Failed(format!("subscribe to {}: not a topic filter", spec.filters.join(", "))))
    }

    /// Writes all that is due, at once: the client itself reads ten packets for each one that it writes, and what the
    /// broker has not heard it sends again.
    async fn acknowledge(&mut self, eventloop: &mut EventLoop) -> Result<(), End> {
        let Some(network) = &mut eventloop.network else { return Ok(()) };
        // In order: after the one that the client was given.
        if !self.ledger.is_written() {
            return Ok(());
        }
        let mut answers = Vec::new();
        self.ledger.send_due(|message| {
            answers.push(answer(message));
            true
        });
        if answers.is_empty() {
            return Ok(());
        }
        let count = answers.len();
        let write = async {
            for answer in answers {
                network.write(answer).await?;
            }
            network.flush().await
        };
        match timeout(Duration::from_secs(CONNECT_SECONDS), write).await {
            Ok(Ok(())) => (0..count).for_each(|_| self.ledger.written()),
            Ok(Err(error)) => return Err(End::Failed(error.to_string())),
            Err(_) => return Err(End::Failed("acknowledge messages in time".to_owned())),
        }
        Ok(())
    }

    /// Gives the client, which waits, the first acknowledgement that is due; the rest is written when it returns.
    fn rouse(&mut self) {
        if self.ledger.is_written() {
            let (client, mut is_first) = (&self.client, true);
            self.ledger
                .send_due(|message| std::mem::take(&mut is_first) && client.try_ack(&stub(message)).is_ok());
        }
    }

    /// Ends when all is acknowledged, or nothing more can be, or the time is up; with DISCONNECT before, and
    /// UNSUBSCRIBE before that if nobody wants the events any more.
    fn leave(&mut self, ending: Ending, spec: &MqttSourceSpec, refused: bool) -> Result<(), End> {
        if self.accepted.is_none() {
            return Err(End::Stopped);
        }
        let now = Instant::now();
        let leaving = self.leaving.get_or_insert(Leaving { until: now + LEAVE, disconnecting: false });
        if leaving.disconnecting {
            return if now < leaving.until { Ok(()) } else { Err(End::Stopped) };
        }
        if refused || self.ledger.is_clear() || now >= leaving.until {
            *leaving = Leaving { until: now + GOODBYE, disconnecting: true };
            if ending == Ending::Forget {
                // The broker would keep what comes for a session that nobody takes up again.
                spec.filters
                    .iter()
                    .try_for_each(|filter| self.client.try_unsubscribe(filter))
                    .map_err(|_| End::Stopped)?;
            }
            return self.client.try_disconnect().map_err(|_| End::Stopped);
        }
        Ok(())
    }
}

fn connect(spec: &MqttSourceSpec) -> (AsyncClient, EventLoop) {
    let broker = &spec.broker;
    // The client puts host and port together with a colon.
    let is_ipv6 = broker.host.contains(':') && !broker.host.starts_with('[');
    let host = if is_ipv6 { format!("[{}]", broker.host) } else { broker.host.clone() };
    let mut options = MqttOptions::new(spec.client_id.clone(), host, broker.port);
    options
        .set_clean_session(false)
        .set_manual_acks(true)
        .set_keep_alive(KEEP_ALIVE)
        .set_max_packet_size(MAX_PACKET, MAX_OUTGOING)
        .set_inflight(INFLIGHT);
    if let Some(credentials) = &broker.credentials {
        options.set_credentials(credentials.username.clone(), credentials.password.clone());
    }
    let (client, mut eventloop) = AsyncClient::new(options, REQUESTS);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_SECONDS);
    eventloop.set_network_options(network);
    (client, eventloop)
}
