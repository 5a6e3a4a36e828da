//! The task that polls `rumqttc`. The traps of that client are marked where they are stepped around.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, Stream, StreamExt};
use rumqttc::{
    AsyncClient, ConnectionError, Event as MqttEvent, MqttOptions, NetworkOptions, Packet, Publish, QoS,
    SubscribeFilter, SubscribeReasonCode,
};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::backoff::Backoff;
use super::ledger::{Ledger, Settled};
use super::spec::MqttSourceSpec;
use crate::model::event::{Encoder, Event};
use crate::model::receipt::{Arrivals, Gate};
use crate::source::Condition;
use crate::telemetry::METRICS;

const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Longest time without a poll: after more of it the broker ends the connection.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Seconds to connect.
const CONNECT_SECONDS: u64 = 10;
/// Requests that may wait in the client: acknowledgements of everything that can be in flight.
const REQUESTS: usize = 8192;
/// The largest packet that MQTT can carry. With the client's own limit of 10 KiB a larger message ends the
/// connection, and comes again, for ever.
const MAX_INCOMING: usize = 268_435_455;
const MAX_OUTGOING: usize = 1 << 20;
/// A group of events is not made larger than this, in events and bytes of JSON.
const GROUP_EVENTS: usize = 64;
const GROUP_BYTES: usize = 64 * 1024;
/// The end waits this long for receipts and for the goodbye.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// The same failure this many times in a row after the broker had let us in is reported as an error.
const POISON_AFTER: u32 = 5;

type Events = Pin<Box<dyn Stream<Item = Result<MqttEvent, ConnectionError>> + Send>>;

/// Runs until `stop` says so or the receiver of groups is gone.
pub(super) async fn run(
    spec: MqttSourceSpec,
    groups: mpsc::Sender<Arrivals>,
    mut stop: watch::Receiver<bool>,
    condition: watch::Sender<Condition>,
) {
    let (client, events) = connect(&spec);
    let reader = groups.clone();
    let mut task = Task {
        spec,
        client,
        groups: Some(groups),
        condition,
        ledger: Ledger::default(),
        wake: Arc::new(Notify::new()),
        encoder: Encoder::new(),
        group: Vec::new(),
        group_ids: Vec::new(),
        backoff: Backoff::default(),
        connected: None,
        skipping: false,
        announced: false,
        same_error: (String::new(), 0),
    };
    let mut events = pin!(events);
    tokio::select! {
        biased;
        // An error means that the source was dropped.
        _ = stop.wait_for(|stop| *stop) => {}
        () = reader.closed() => {}
        () = async { loop { task.turn(&mut events).await } } => {}
    }
    drop(reader);
    task.finish(&mut events).await;
}

fn connect(spec: &MqttSourceSpec) -> (AsyncClient, Events) {
    let mut options = MqttOptions::new(&spec.client_id, &spec.broker.host, spec.broker.port);
    options
        .set_clean_session(false)
        .set_manual_acks(true)
        .set_keep_alive(KEEP_ALIVE)
        .set_inflight(100)
        .set_max_packet_size(MAX_INCOMING, MAX_OUTGOING);
    if let Some(login) = &spec.broker.credentials {
        options.set_credentials(&login.username, &login.password);
    }
    let (client, mut events) = AsyncClient::new(options, REQUESTS);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_SECONDS);
    events.set_network_options(network);
    // A stream may be left between two polls at any time; the client's own poll must not be.
    let events = stream::unfold(events, |mut events| async move {
        let event = events.poll().await;
        Some((event, events))
    });
    (client, Box::pin(events))
}

struct Task {
    spec: MqttSourceSpec,
    client: AsyncClient,
    /// `None` once the source ends.
    groups: Option<mpsc::Sender<Arrivals>>,
    condition: watch::Sender<Condition>,
    ledger: Ledger,
    wake: Arc<Notify>,
    encoder: Encoder,
    /// The group in the making, and the messages it is made of.
    group: Vec<Event>,
    group_ids: Vec<Publish>,
    backoff: Backoff,
    /// Since when the broker has let us in.
    connected: Option<Instant>,
    /// Messages are not taken until the next connection, when the broker sends them again.
    skipping: bool,
    /// The log has been told that the broker is away.
    announced: bool,
    same_error: (String, u32),
}

impl Task {
    /// Waits for the next thing, and does it together with all that is ready with it.
    async fn turn(&mut self, events: &mut Pin<&mut Events>) {
        let wake = Arc::clone(&self.wake);
        let event = tokio::select! {
            biased;
            () = wake.notified() => return self.settle(),
            event = events.next() => event,
        };
        let mut next = event;
        while let Some(event) = next {
            match event {
                Ok(MqttEvent::Incoming(packet)) => self.take(packet),
                Ok(MqttEvent::Outgoing(_)) => {}
                Err(error) => {
                    self.send_group().await;
                    return self.failed(&error).await;
                }
            }
            if self.group_is_full() {
                break;
            }
            next = futures_util::FutureExt::now_or_never(events.next()).flatten();
        }
        self.send_group().await;
        self.settle();
    }

    fn group_is_full(&self) -> bool {
        self.group_ids.len() >= GROUP_EVENTS
            || self.group.iter().map(|event| event.json.len()).sum::<usize>() >= GROUP_BYTES
    }

    fn take(&mut self, packet: Packet) {
        match packet {
            Packet::ConnAck(ack) => {
                self.connected = Some(Instant::now());
                self.skipping = false;
                self.ledger.connected(ack.session_present);
                // The client does not subscribe again by itself; a broker that forgot us must be asked.
                let filters = self.spec.filters.iter();
                let filters = filters.map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce));
                if self.client.try_subscribe_many(filters).is_err() {
                    self.start_over();
                }
            }
            Packet::SubAck(ack) => {
                let refused = ack.return_codes.iter().position(|code| *code == SubscribeReasonCode::Failure);
                match refused.and_then(|at| self.spec.filters.get(at)) {
                    Some(filter) => {
                        self.report(format!("the broker refuses the subscription to '{filter}'"));
                        self.start_over();
                    }
                    None => self.running(),
                }
            }
            Packet::Publish(publish) => self.published(publish),
            _ => {}
        }
    }

    fn published(&mut self, publish: Publish) {
        if self.skipping {
            if publish.qos == QoS::AtMostOnce {
                METRICS.source_dropped.inc();
            }
            return;
        }
        if self.ledger.is_known(publish.pkid, publish.dup, &publish.topic, &publish.payload) {
            return;
        }
        // A retained message is old: it was an event when it was published.
        let event = (!publish.retain)
            .then(|| self.spec.event(&mut self.encoder, &publish.topic, &publish.payload))
            .flatten();
        self.group.extend(event);
        self.group_ids.push(publish);
    }

    /// Sends the group in the making to the SourceActor.
    async fn send_group(&mut self) {
        let Some(groups) = self.groups.clone() else { return };
        let messages = std::mem::take(&mut self.group_ids);
        let events = std::mem::take(&mut self.group);
        let (gate, receipt) = Gate::new(usize::from(!events.is_empty()), Arc::clone(&self.wake));
        if let Some(receipt) = receipt.into_iter().next() {
            let count = events.len() as u64;
            // While the queue is full the client is not polled: TCP, and the broker's window, hold back.
            match timeout(LONGEST_PAUSE, groups.reserve()).await {
                Ok(Ok(place)) => {
                    METRICS.events_received.inc_by(count);
                    place.send(Arrivals { events, receipt });
                }
                Ok(Err(_)) => return,
                Err(_) => {
                    // The broker would end the connection now. What is not taken is not acknowledged, and
                    // comes again on the next connection.
                    let lost = messages.iter().filter(|message| message.qos == QoS::AtMostOnce).count();
                    METRICS.source_dropped.inc_by(lost as u64);
                    return self.start_over();
                }
            }
        }
        for message in &messages {
            self.ledger.enter(message.pkid, &message.topic, &message.payload, &gate);
        }
    }

    /// Sends the acknowledgements that are due.
    fn settle(&mut self) {
        loop {
            match self.ledger.settle() {
                Settled::Acknowledge(pkid) => {
                    let mut message = Publish::new("", QoS::AtLeastOnce, Vec::new());
                    message.pkid = pkid;
                    // Never `ack().await` here: in the polling task it waits for itself.
                    if self.client.try_ack(&message).is_err() {
                        // The client's queue is full: the turns that empty it come here again.
                        return;
                    }
                    self.ledger.acknowledged();
                }
                Settled::Refused => return self.start_over(),
                Settled::Wait => return,
            }
        }
    }

    /// Makes a new connection, so that the broker sends again what was not acknowledged.
    fn start_over(&mut self) {
        if !self.skipping {
            self.skipping = true;
            // If the request does not fit now, the broker's keep-alive ends the connection instead.
            let _ = self.client.try_disconnect();
        }
    }

    fn running(&mut self) {
        if std::mem::take(&mut self.announced) {
            tracing::info!(source = %self.spec.name, broker = %self.spec.broker.host, "the broker is back");
        }
        self.condition.send_replace(Condition::Running);
    }

    fn report(&mut self, error: String) {
        if !std::mem::replace(&mut self.announced, true) {
            let broker = format!("{}:{}", self.spec.broker.host, self.spec.broker.port);
            tracing::warn!(source = %self.spec.name, %broker, error, "no events from this broker; trying on");
        }
        self.condition.send_modify(|condition| {
            let since = match condition {
                Condition::Failing { since, .. } => *since,
                _ => SystemTime::now(),
            };
            *condition = Condition::Failing { error, since };
        });
    }

    /// The connection is lost, or was not made: waits before the next poll makes a new one.
    async fn failed(&mut self, error: &ConnectionError) {
        METRICS.source_disconnects.inc();
        let text = error.to_string();
        let held = self.connected.take().map(|since| since.elapsed());
        if held.is_some() && self.same_error.0 == text {
            self.same_error.1 += 1;
            if self.same_error.1 == POISON_AFTER {
                tracing::error!(source = %self.spec.name, error = text,
                    "the connection fails again and again in the same way; one of its messages may be the cause");
            }
        } else {
            self.same_error = (text.clone(), 1);
        }
        // A refused subscription or group has been reported with its own reason.
        if !self.skipping || held.is_none() {
            self.report(text);
        }
        sleep(self.backoff.next(held.unwrap_or_default(), rand::random())).await;
    }

    /// Takes nothing new, acknowledges what is still accepted, and says goodbye.
    async fn finish(mut self, events: &mut Pin<&mut Events>) {
        // The source's reader gets what is queued, and then the end.
        self.groups = None;
        self.skipping = true;
        self.group.clear();
        self.group_ids.clear();
        let settle = async {
            self.settle_while_polling(events).await;
            if self.client.try_disconnect().is_ok() {
                while let Some(Ok(_)) = events.next().await {}
            }
        };
        // A session that is not ended in time is ended by the broker.
        let _ = timeout(STOP_PATIENCE, settle).await;
    }

    async fn settle_while_polling(&mut self, events: &mut Pin<&mut Events>) {
        let wake = Arc::clone(&self.wake);
        while !self.ledger.is_settled() {
            tokio::select! {
                () = wake.notified() => {}
                event = events.next() => if !matches!(event, Some(Ok(_))) { return },
            }
            // As `settle`, but a refused group ends the wait: its messages stay with the broker.
            match self.ledger.settle() {
                Settled::Refused => return,
                _ => self.settle(),
            }
        }
    }
}
