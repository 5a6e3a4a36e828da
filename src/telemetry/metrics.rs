//! Every metric of the program, under its name. `docs/metrics.md` lists them; a test holds the two against each other.

use std::sync::LazyLock;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::book::{Book, Listed};
use super::process::{Build, Process};
use super::reasons::{Counts, Reasons};
use super::shown::{AsModel, ByAction, ByPath};
use super::spread::Spread;
use super::{ACTIONS, PATHS, words};
use crate::model::activity::Totals;
use crate::model::trigger::BatchClose;

/// The process-wide counters.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// Bounds of the histogram of batch sizes: what triggers may say is 1 to 1000.
const BATCH_SIZES: [u64; 10] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];

/// Every metric of the program that is not read from a roster.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    listed: Vec<Listed>,
    /// 1 while `/readyz` says 200, else 0. Set when it is asked for.
    pub ready: Gauge<i64, AtomicI64>,
    /// Sources that `/readyz` lists. Set when it is asked for.
    pub sources: Gauge<i64, AtomicI64>,
    /// Those that work. Set when it is asked for.
    pub sources_ready: Gauge<i64, AtomicI64>,
    /// Bytes of the journal's files, looked at every two seconds.
    pub journal_bytes: Gauge<i64, AtomicI64>,
    /// Bytes that are free where they are, looked at every two seconds.
    pub disk_free_bytes: Gauge<i64, AtomicI64>,
    /// Events that entered, each once, however many sources take it.
    pub events_received: Counter,
    /// MQTT connections open on the embedded server.
    pub mqtt_connections: Gauge<i64, AtomicI64>,
    /// MQTT connections that the embedded server ended or refused, by reason.
    pub mqtt_closed: Reasons,
    /// Messages that were not queued for an MQTT subscriber that does not keep up.
    pub mqtt_dropped: Counter,
    /// Times a publisher was not read on because a source had no room.
    pub publishers_held_back: Counter,
    /// Publishes that the embedded server took.
    pub mqtt_received: Counter,
    /// Those of them that no source takes.
    pub mqtt_unrouted: Counter,
    /// Messages sent to MQTT subscribers.
    pub mqtt_sent: Counter,
    /// Events that SourceActors took; one for each source that has it.
    pub source_events: Counter,
    /// Messages of an external broker that were dropped (QoS 0 while the queue was full).
    pub source_dropped: Counter,
    /// Times the connection to an external broker was lost or could not be made.
    pub source_disconnects: Counter,
    /// Batches, by the reason they closed for.
    batches: Reasons,
    /// Events of a batch.
    batch_events: Spread,
    /// Time from a batch's first event to its close, in seconds.
    batch_wait_seconds: Spread,
    /// Messages that WebSocket clients and responses of server-sent events were written.
    pub messages_written: Counter,
    /// Time from an event's entry to its being written to the clients of a worker, in seconds.
    pub delivery_seconds: Spread,
    /// Time from a batch's broadcast to its being written to the clients of a worker, in seconds.
    pub write_seconds: Spread,
    /// Events that alone are larger than a message may be; sent as messages of their own.
    pub oversize_events: Counter,
    /// WebSocket connections open.
    pub websocket_connections: Gauge<i64, AtomicI64>,
    /// Responses of server-sent events open.
    pub event_streams: Gauge<i64, AtomicI64>,
    /// WebSocket connections ended, by reason.
    pub websocket_closed: Reasons,
    /// WebSocket handshakes refused, by reason.
    pub websocket_refused: Reasons,
    /// What authorizers were asked, by what came of it.
    pub authorizers: Reasons,
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
    pub slow_clients: Reasons,
    /// Events that clients with `drop_oldest` missed.
    pub slow_client_dropped: Counter,
    /// Times that clients with filters were sent to the journal, since their filters took too long.
    pub filters_behind: Counter,
    /// Clients that asked for what they missed, by what they could be given.
    pub resumes: Reasons,
    /// Notifications of container registries, by what became of them.
    pub registry_notifications: Reasons,
    /// Events in them that mean nothing here: pulls, blobs, and what is not understood.
    pub registry_ignored: Counter,
    /// Events about images and tags, by what told of them: `notified`, `checked` (a doubt that was asked about) or
    /// `reconciled` (made up).
    pub registry_events: Reasons,
    /// Commits of the index of container registries.
    pub registry_commits: Counter,
    /// Reconciliations with container registries, by how they ended.
    pub registry_reconciliations: Reasons,
    /// How long they took, in seconds.
    pub registry_reconciliation_seconds: Spread,
    /// Events that the programs of a trigger do not let through, by reason.
    pub jq_dropped: Reasons,
    /// Calls of integrations, by what they told of and what came of it.
    pub integration_calls: Counts<2>,
    /// TLS handshakes, by how they ended: `done`, `failed`, `timeout`, or `full` (too many at a time).
    pub tls_handshakes: Reasons,
    /// Certificates that came while the server ran: `loaded` or `failed`.
    pub tls_reloads: Reasons,
    /// Spans of followed events, by what became of them.
    pub trace_spans: Reasons,
    /// Panics that were contained, by actor.
    pub actor_panics: Reasons,
    /// Actors that were started again after their end, by actor.
    pub actor_restarts: Reasons,
}

impl Metrics {
    fn new() -> Self {
        let mut book = Book::default();
        book.collector(ByAction(&ACTIONS), ByAction::SHOWS);
        book.collector(ByPath(&PATHS), ByPath::SHOWS);
        book.models(AsModel(&PATHS), AsModel::SHOWS);
        book.collector(Build, Build::SHOWS);
        book.everybodys(Process, Process::SHOWS);
        let b = &mut book;
        let fast = |bounds| (Duration::from_micros(250), 2.0, bounds);
        Self {
            ready: b.gauge("ready", "1 while `/readyz` says 200, else 0"),
            sources: b.gauge("sources", "Sources of events, as `/readyz` lists them"),
            sources_ready: b.gauge("sources_ready", "Those of them that events can come from"),
            journal_bytes: b.gauge("journal_bytes", "Bytes of the journal's files, with its reserve; looked at every two seconds"),
            disk_free_bytes: b.gauge("disk_free_bytes", "Bytes that may still be written on the disk of `data_dir`; looked at every two seconds"),
            events_received: b.counter("events_received", "Events that entered, once each: MQTT publishes that a source takes, and changes in container registries that have triggers"),
            publishers_held_back: b.counter("publishers_held_back", "Times a publisher was not read on because a source had no room"),
            mqtt_connections: b.gauge("mqtt_connections", "MQTT connections open"),
            mqtt_closed: b.counts("mqtt_closed", words::MQTT_CLOSED, "MQTT connections that the server ended or refused"),
            mqtt_received: b.counter("mqtt_received", "Publishes that the embedded MQTT server took, with wills and those of calls; a repeated one counts once"),
            mqtt_unrouted: b.counter("mqtt_unrouted", "Those of them that no trigger's source takes: acknowledged, given to MQTT subscribers if there are any, and not kept"),
            mqtt_sent: b.counter("mqtt_sent", "Messages sent to MQTT subscribers"),
            mqtt_dropped: b.counter("mqtt_dropped", "Messages dropped for slow MQTT subscribers, or refused without an answer"),
            source_events: b.counter("source_events", "Events that sources took; one for each source that has it"),
            source_dropped: b.counter("source_dropped", "QoS 0 messages of external brokers dropped while the queue was full"),
            source_disconnects: b.counter("source_disconnects", "Connections to external brokers lost or not made"),
            batches: b.counts("batches", words::BATCHES, "Batches closed, by why: `count`, `bytes`, `cutoff`, `drain`, `oversize`"),
            batch_events: b.numbers("batch_events", &BATCH_SIZES, "Events of a batch"),
            batch_wait_seconds: b.times("batch_wait", (Duration::from_millis(1), 2.5, 14), "Time from a batch's first event to its close"),
            oversize_events: b.counter("oversize_events", "Events larger than a message may be, sent as messages of their own"),
            jq_dropped: b.counts("jq_dropped", words::JQ, "Events that jq does not let through: `filtered`, `error`, `over_budget`, `too_large`"),
            worker_waits: b.counter("worker_waits", "Times a worker had no room for a broadcast, and the gateway waited"),
            messages_written: b.counter("messages_written", "Messages written to WebSocket clients and as server-sent events"),
            delivery_seconds: b.times("delivery", fast(20), "Time from the entry of an event until a worker has written it to those of its clients that keep up; one for each write to all of them, of its oldest event"),
            write_seconds: b.times("write", fast(20), "Time from the broadcast of a batch, when its place on the path is committed, until a worker has written it to those of its clients that keep up; one for each write to all of them, of its oldest batch"),
            websocket_connections: b.gauge("websocket_connections", "WebSocket connections open"),
            event_streams: b.gauge("event_streams", "Responses of server-sent events open"),
            websocket_closed: b.counts("websocket_closed", words::WEBSOCKET_CLOSED, "WebSocket connections ended"),
            websocket_refused: b.counts("websocket_refused", words::WEBSOCKET_REFUSED, "WebSocket handshakes refused"),
            authorizers: b.counts("authorizers", words::AUTHORIZERS, "What authorizers were asked, by what came of it"),
            integration_calls: b.counts("integration_calls", words::CALLS, "Calls of integrations: `answered`, `refused`, `unfit`, `timed_out`, `failed`"),
            slow_clients: b.counts("slow_clients", words::SLOW_CLIENTS, "Clients that fell too far behind, by what was done: `replay`, `drop_oldest`, `disconnect`, `gone`"),
            slow_client_dropped: b.counter("slow_client_dropped", "Events that slow clients missed by their path's policy"),
            filters_behind: b.counter("filters_behind", "Times that clients with filters were sent to the journal, since filters took too long"),
            resumes: b.counts("resumes", words::RESUMES, "Clients that asked for what they missed, by what they could be given"),
            journal_commits: b.counter("journal_commits", "Commits of the journal"),
            journal_commit_seconds: b.times("journal_commit", fast(18), "Time of a commit of the journal"),
            journal_lag_seconds: b.times("journal_lag", fast(18), "Time from the entry of a group's first event until it is on disk"),
            journal_queue_bytes: b.gauge("journal_queue_bytes", "Bytes that wait for the journal, in steps of 1,024; at most 16 MiB"),
            journal_events: b.counter("journal_events", "Events written to the journal; one for each source that has it"),
            journal_failures: b.counter("journal_failures", "Commits of the journal that failed and were tried again"),
            registry_notifications: b.counts("registry_notifications", words::NOTIFICATIONS, "Notifications of container registries, by what became of them"),
            registry_ignored: b.counter("registry_ignored", "Events in notifications that mean nothing here"),
            registry_events: b.counts("registry_events", words::REGISTRY_EVENTS, "Events about images and tags, by what told of them: `notified`, `checked`, `reconciled`"),
            registry_commits: b.counter("registry_commits", "Commits of the index of container registries"),
            registry_reconciliations: b.counts("registry_reconciliations", words::RECONCILIATIONS, "Readings of whole container registries, by how they ended"),
            registry_reconciliation_seconds: b.times("registry_reconciliation", (Duration::from_millis(10), 4.0, 10), "Time of such a reading"),
            tls_handshakes: b.counts("tls_handshakes", words::HANDSHAKES, "TLS handshakes, by how they ended: `done`, `failed`, `timeout`, `full`"),
            tls_reloads: b.counts("tls_reloads", words::RELOADS, "New certificates while the server ran: `loaded`, `failed`"),
            trace_spans: b.counts("trace_spans", words::SPANS, "Spans of followed events for a collector: `exported`, `failed` (it did not take them), `dropped` (too many waited)"),
            actor_panics: b.counts("actor_panics", words::PANICS, "Panics contained"),
            actor_restarts: b.counts("actor_restarts", words::RESTARTS, "Actors started again"),
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
        self.batches.add([why.name()], 1);
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
        let now = |gauge: &Gauge<i64, AtomicI64>| u64::try_from(gauge.get()).unwrap_or(0);
        let failed: u64 =
            ["error", "over_budget", "too_large"].map(|word| self.jq_dropped.get([word])).iter().sum();
        Totals {
            events: self.events_received.get(),
            batches: self.batches.all(),
            deliveries: self.messages_written.get(),
            websocket_connections: now(&self.websocket_connections),
            event_streams: now(&self.event_streams),
            mqtt_connections: now(&self.mqtt_connections),
            slow_clients: self.slow_clients.all(),
            dropped: failed + self.source_dropped.get() + self.slow_client_dropped.get(),
        }
    }

    /// Counts a call of an integration.
    pub fn count_call(&self, event: &'static str, result: &'static str) {
        self.integration_calls.add([event, result], 1);
    }

    /// Counts one panic that was contained, in an actor or a task.
    pub fn count_panic(&self, actor: &'static str) {
        self.actor_panics.add([actor], 1);
    }

    /// Counts an actor that started again after its end or a panic.
    pub fn count_restart(&self, actor: &'static str) {
        self.actor_restarts.add([actor], 1);
    }
}

/// Counts one under a reason.
pub fn count(reasons: &Reasons, reason: &'static str) {
    reasons.add([reason], 1);
}

/// Counts so many under a reason.
pub fn count_by(reasons: &Reasons, reason: &'static str, number: usize) {
    reasons.add([reason], number as u64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::ActionMeter;

    #[test]
    fn the_words_of_batches_and_of_jq_are_those_of_triggers() {
        let words =
            |reasons: &Reasons| reasons.words().map(|[word]| word).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(words(&METRICS.batches), BatchClose::ALL.map(BatchClose::name).into());
        assert_eq!(words(&METRICS.jq_dropped), ActionMeter::DROPS.into());
    }
}
