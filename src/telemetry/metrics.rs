//! Every metric of the program, under its name. `docs/metrics.md` lists them; a test holds the two against each other.

use std::sync::LazyLock;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::book::{Book, Listed};
use super::shown::{AsModel, ByAction, ByPath};
use super::spread::Spread;
use super::{ACTIONS, PATHS};
use crate::model::activity::Totals;
use crate::model::trigger::BatchClose;

/// The process-wide counters.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// Bounds of the histogram of batch sizes: what triggers may say is 1 to 1000.
const BATCH_SIZES: [u64; 10] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];

/// One label; its values are fixed words of the program, never input.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// Why it happened.
    pub reason: &'static str,
}

/// What an integration was told of, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CallLabels {
    /// `CONNECT`, `MESSAGE` or `DISCONNECT`.
    pub event: &'static str,
    /// `answered`, `refused` (a status other than 2xx), `unfit` (the client's values could not be sent), `timed_out`
    /// or `failed`.
    pub result: &'static str,
}

/// One label that names an actor type.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ActorLabel {
    /// The actor's type name, such as `BatchActor`.
    pub actor: &'static str,
}

/// Every metric of the program that is not read from a roster.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    listed: Vec<Listed>,
    /// Events that entered, over all sources.
    pub events_received: Counter,
    /// MQTT connections open on the embedded server.
    pub mqtt_connections: Gauge<i64, AtomicI64>,
    /// MQTT connections that the embedded server ended or refused, by reason.
    pub mqtt_closed: Family<Reason, Counter>,
    /// Messages that were not queued for an MQTT subscriber that does not keep up.
    pub mqtt_dropped: Counter,
    /// Times a publisher was not read on because a source had no room.
    pub publishers_held_back: Counter,
    /// Messages sent to MQTT subscribers.
    pub mqtt_sent: Counter,
    /// Events that SourceActors took; one for each source that has it.
    pub source_events: Counter,
    /// Messages of an external broker that were dropped (QoS 0 while the queue was full).
    pub source_dropped: Counter,
    /// Times the connection to an external broker was lost or could not be made.
    pub source_disconnects: Counter,
    /// Batches, by the reason they closed for, in the order of [`BatchClose::ALL`].
    batches: [Counter; BatchClose::ALL.len()],
    /// Events of a batch.
    batch_events: Spread,
    /// Time from a batch's first event to its close, in seconds.
    batch_wait_seconds: Spread,
    /// Messages that WebSocket clients and responses of server-sent events were written.
    pub messages_written: Counter,
    /// Time from an event's entry to its being written to the clients of a worker, in seconds.
    pub delivery_seconds: Spread,
    /// Events that alone are larger than a message may be; sent as messages of their own.
    pub oversize_events: Counter,
    /// WebSocket connections open.
    pub websocket_connections: Gauge<i64, AtomicI64>,
    /// Responses of server-sent events open.
    pub event_streams: Gauge<i64, AtomicI64>,
    /// WebSocket connections ended, by reason.
    pub websocket_closed: Family<Reason, Counter>,
    /// WebSocket handshakes refused, by reason.
    pub websocket_refused: Family<Reason, Counter>,
    /// What authorizers were asked, by what came of it.
    pub authorizers: Family<Reason, Counter>,
    /// Commits of the journal.
    pub journal_commits: Counter,
    /// How long they took, in seconds.
    journal_commit_seconds: Spread,
    /// Time from an event's entry until it is on disk, in seconds.
    pub journal_lag_seconds: Spread,
    /// Bytes that wait for the journal.
    pub journal_queue_bytes: Gauge<i64, AtomicI64>,
    /// Times a worker had no room for a broadcast, and the gateway waited.
    pub worker_waits: Counter,
    /// Events written to the journal; one for each source that has it.
    pub journal_events: Counter,
    /// Commits that failed and were, or will be, tried again.
    pub journal_failures: Counter,
    /// Clients that fell behind further than they may, by what was done with them.
    pub slow_clients: Family<Reason, Counter>,
    /// Events that clients with `drop_oldest` missed.
    pub slow_client_dropped: Counter,
    /// Times that clients with filters were sent to the journal, since their filters took too long.
    pub filters_behind: Counter,
    /// Clients that asked for what they missed, by what they could be given.
    pub resumes: Family<Reason, Counter>,
    /// Notifications of container registries, by what became of them.
    pub registry_notifications: Family<Reason, Counter>,
    /// Events in them that mean nothing here: pulls, blobs, and what is not understood.
    pub registry_ignored: Counter,
    /// Events about images and tags, by what told of them: `notified`, `checked` (a doubt that was asked about) or
    /// `reconciled` (made up).
    pub registry_events: Family<Reason, Counter>,
    /// Commits of the index of container registries.
    pub registry_commits: Counter,
    /// Reconciliations with container registries, by how they ended.
    pub registry_reconciliations: Family<Reason, Counter>,
    /// How long they took, in seconds.
    pub registry_reconciliation_seconds: Spread,
    /// Events that the programs of a trigger do not let through, by reason.
    pub jq_dropped: Family<Reason, Counter>,
    /// Calls of integrations, by what they told of and what came of it.
    pub integration_calls: Family<CallLabels, Counter>,
    /// TLS handshakes, by how they ended: `done`, `failed`, `timeout`, or `full` (too many at a time).
    pub tls_handshakes: Family<Reason, Counter>,
    /// Certificates that came while the server ran: `loaded` or `failed`.
    pub tls_reloads: Family<Reason, Counter>,
    /// Spans of followed events, by what became of them.
    pub trace_spans: Family<Reason, Counter>,
    /// Panics that were contained, by actor.
    pub actor_panics: Family<ActorLabel, Counter>,
    /// Actors that were started again after their end, by actor.
    pub actor_restarts: Family<ActorLabel, Counter>,
}

impl Metrics {
    fn new() -> Self {
        let mut book = Book::default();
        book.collector(ByAction(&ACTIONS), ByAction::SHOWS);
        book.collector(ByPath(&PATHS), ByPath::SHOWS);
        book.models(AsModel(&PATHS), AsModel::SHOWS);
        let b = &mut book;
        let reason = &["reason"];
        let batches: Family<Reason, Counter> = b.family(
            "batches",
            reason,
            "Batches closed, by why: `count`, `bytes`, `cutoff`, `drain`, `oversize`",
        );
        let fast = |bounds| (Duration::from_micros(250), 2.0, bounds);
        Self {
            events_received: b.counter("events_received", "Events that entered, over all sources"),
            publishers_held_back: b.counter("publishers_held_back", "Times a publisher was not read on because a source had no room"),
            mqtt_connections: b.gauge("mqtt_connections", "MQTT connections open"),
            mqtt_closed: b.family("mqtt_closed", reason, "MQTT connections that the server ended or refused"),
            mqtt_sent: b.counter("mqtt_sent", "Messages sent to MQTT subscribers"),
            mqtt_dropped: b.counter("mqtt_dropped", "Messages dropped for slow MQTT subscribers, or refused without an answer"),
            source_events: b.counter("source_events", "Events that sources took; one for each source that has it"),
            source_dropped: b.counter("source_dropped", "QoS 0 messages of external brokers dropped while the queue was full"),
            source_disconnects: b.counter("source_disconnects", "Connections to external brokers lost or not made"),
            batches: BatchClose::ALL.map(|why| batches.get_or_create(&Reason { reason: why.name() }).clone()),
            batch_events: b.numbers("batch_events", &BATCH_SIZES, "Events of a batch"),
            batch_wait_seconds: b.times("batch_wait", (Duration::from_millis(1), 2.5, 13), "Time from a batch's first event to its close"),
            oversize_events: b.counter("oversize_events", "Events larger than a message may be, sent as messages of their own"),
            jq_dropped: b.family("jq_dropped", reason, "Events that jq does not let through: `filtered`, `error`, `over_budget`, `too_large`"),
            worker_waits: b.counter("worker_waits", "Times a worker had no room for a broadcast, and the gateway waited"),
            messages_written: b.counter("messages_written", "Messages written to WebSocket clients and as server-sent events"),
            delivery_seconds: b.times("delivery", fast(20), "Time from the entry of an event until a worker has written it to those of its clients that keep up; one for each write to all of them, of its oldest event"),
            websocket_connections: b.gauge("websocket_connections", "WebSocket connections open"),
            event_streams: b.gauge("event_streams", "Responses of server-sent events open"),
            websocket_closed: b.family("websocket_closed", reason, "WebSocket connections ended"),
            websocket_refused: b.family("websocket_refused", reason, "WebSocket handshakes refused"),
            authorizers: b.family("authorizers", reason, "What authorizers were asked, by what came of it"),
            integration_calls: b.family("integration_calls", &["event", "result"], "Calls of integrations: `answered`, `refused`, `unfit`, `timed_out`, `failed`"),
            slow_clients: b.family("slow_clients", reason, "Clients that fell too far behind, by what was done: `replay`, `drop_oldest`, `disconnect`, `gone`"),
            slow_client_dropped: b.counter("slow_client_dropped", "Events that slow clients missed by their path's policy"),
            filters_behind: b.counter("filters_behind", "Times that clients with filters were sent to the journal, since filters took too long"),
            resumes: b.family("resumes", reason, "Clients that asked for what they missed, by what they could be given"),
            journal_commits: b.counter("journal_commits", "Commits of the journal"),
            journal_commit_seconds: b.times("journal_commit", fast(14), "Time of a commit of the journal"),
            journal_lag_seconds: b.times("journal_lag", fast(18), "Time from the entry of a group's first event until it is on disk"),
            journal_queue_bytes: b.gauge("journal_queue_bytes", "Bytes that wait for the journal, in steps of 1,024; at most 16 MiB"),
            journal_events: b.counter("journal_events", "Events written to the journal; one for each source that has it"),
            journal_failures: b.counter("journal_failures", "Commits of the journal that failed and were tried again"),
            registry_notifications: b.family("registry_notifications", reason, "Notifications of container registries, by what became of them"),
            registry_ignored: b.counter("registry_ignored", "Events in notifications that mean nothing here"),
            registry_events: b.family("registry_events", reason, "Events about images and tags, by what told of them: `notified`, `checked`, `reconciled`"),
            registry_commits: b.counter("registry_commits", "Commits of the index of container registries"),
            registry_reconciliations: b.family("registry_reconciliations", reason, "Readings of whole container registries, by how they ended"),
            registry_reconciliation_seconds: b.times("registry_reconciliation", (Duration::from_millis(10), 4.0, 10), "Time of such a reading"),
            tls_handshakes: b.family("tls_handshakes", reason, "TLS handshakes, by how they ended: `done`, `failed`, `timeout`, `full`"),
            tls_reloads: b.family("tls_reloads", reason, "New certificates while the server ran: `loaded`, `failed`"),
            trace_spans: b.family("trace_spans", reason, "Spans of followed events for a collector: `exported`, `failed` (it did not take them), `dropped` (too many waited)"),
            actor_panics: b.family("actor_panics", &["actor"], "Panics contained"),
            actor_restarts: b.family("actor_restarts", &["actor"], "Actors started again"),
            listed: std::mem::take(&mut book.listed),
            registry: book.registry,
        }
    }

    /// Every metric that there is, by name, whether it has been counted yet or not.
    pub fn listed(&self) -> Vec<&Listed> {
        let mut listed: Vec<_> = self.listed.iter().collect();
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        listed
    }

    /// All counters in the OpenMetrics text form.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut out, &self.registry);
        out
    }

    /// Counts a batch: why it closed, its events, and the time that its first one waited.
    pub fn count_batch(&self, why: BatchClose, events: usize, waited: Duration) {
        self.batches[why as usize].inc();
        self.batch_events.observe(events as u64);
        self.batch_wait_seconds.observe_time(waited);
    }

    /// Counts a commit of the journal.
    pub fn count_commit(&self, took: Duration) {
        self.journal_commits.inc();
        self.journal_commit_seconds.observe_time(took);
    }

    /// Mean time of a commit since the start.
    pub fn mean_commit(&self) -> Duration {
        let (commits, time) = self.journal_commit_seconds.times();
        time.checked_div(commits.try_into().unwrap_or(u32::MAX)).unwrap_or_default()
    }

    /// The sum of it all.
    pub fn totals(&self) -> Totals {
        let sum = |family: &Family<Reason, Counter>, reasons: &[&'static str]| -> u64 {
            reasons.iter().map(|reason| family.get_or_create(&Reason { reason }).get()).sum()
        };
        let now = |gauge: &Gauge<i64, AtomicI64>| u64::try_from(gauge.get()).unwrap_or(0);
        let failed = sum(&self.jq_dropped, &["error", "over_budget", "too_large"]);
        Totals {
            events: self.events_received.get(),
            batches: self.batches.iter().map(Counter::get).sum(),
            deliveries: self.messages_written.get(),
            websocket_connections: now(&self.websocket_connections),
            event_streams: now(&self.event_streams),
            mqtt_connections: now(&self.mqtt_connections),
            slow_clients: sum(&self.slow_clients, &["replay", "drop_oldest", "disconnect", "gone"]),
            dropped: failed + self.source_dropped.get() + self.slow_client_dropped.get(),
        }
    }

    /// Counts a call of an integration.
    pub fn count_call(&self, event: &'static str, result: &'static str) {
        self.integration_calls.get_or_create(&CallLabels { event, result }).inc();
    }

    /// Counts one panic that was contained, in an actor or a task.
    pub fn count_panic(&self, actor: &'static str) {
        self.actor_panics.get_or_create(&ActorLabel { actor }).inc();
    }

    /// Counts an actor that started again after its end or a panic.
    pub fn count_restart(&self, actor: &'static str) {
        self.actor_restarts.get_or_create(&ActorLabel { actor }).inc();
    }
}

/// Counts one under a reason.
pub fn count(family: &Family<Reason, Counter>, reason: &'static str) {
    count_by(family, reason, 1);
}

/// Counts so many under a reason.
pub fn count_by(family: &Family<Reason, Counter>, reason: &'static str, number: usize) {
    family.get_or_create(&Reason { reason }).inc_by(number as u64);
}
