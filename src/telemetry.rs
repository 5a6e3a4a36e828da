//! What the program tells about itself: log lines to stderr and counters in Prometheus' text form.
//!
//! Everyone counts here; `management` shows the counters on `/metrics`. No line is logged per event.

use std::sync::LazyLock;
use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The process-wide counters.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

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

/// Every counter of the program. Names are documented on `/metrics` itself.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Events that entered, over all sources.
    pub events_received: Counter,
    /// MQTT connections open on the embedded server.
    pub mqtt_connections: Gauge<i64, AtomicI64>,
    /// MQTT connections that the embedded server ended or refused, by reason.
    pub mqtt_closed: Family<Reason, Counter>,
    /// Messages that were not queued for an MQTT subscriber that does not keep up.
    pub mqtt_dropped: Counter,
    /// Messages of an external broker that were dropped (QoS 0 while the queue was full).
    pub source_dropped: Counter,
    /// Times the connection to an external broker was lost or could not be made.
    pub source_disconnects: Counter,
    /// Batches, by the reason they closed for.
    pub batches: Family<Reason, Counter>,
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
    pub journal_commit_seconds: Histogram,
    /// Events written to the journal; one for each source that has it.
    pub journal_events: Counter,
    /// Commits that failed and were, or will be, tried again.
    pub journal_failures: Counter,
    /// Clients that fell behind further than they may, by what was done with them.
    pub slow_clients: Family<Reason, Counter>,
    /// Events that clients with `drop_oldest` missed.
    pub slow_client_dropped: Counter,
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
    pub registry_reconciliation_seconds: Histogram,
    /// Events that the programs of a trigger do not let through, by reason.
    pub jq_dropped: Family<Reason, Counter>,
    /// Calls of integrations, by what they told of and what came of it.
    pub integration_calls: Family<CallLabels, Counter>,
    /// TLS handshakes, by how they ended: `done`, `failed`, `timeout`, or `full` (too many at a time).
    pub tls_handshakes: Family<Reason, Counter>,
    /// Certificates that came while the server ran: `loaded` or `failed`.
    pub tls_reloads: Family<Reason, Counter>,
    /// Panics that were contained, by actor.
    pub actor_panics: Family<ActorLabel, Counter>,
    /// Actors that were started again after their end, by actor.
    pub actor_restarts: Family<ActorLabel, Counter>,
}

impl Metrics {
    fn new() -> Self {
        let mut m = Self {
            registry: Registry::with_prefix("triggercast"),
            events_received: Counter::default(),
            mqtt_connections: Gauge::default(),
            mqtt_closed: Family::default(),
            mqtt_dropped: Counter::default(),
            source_dropped: Counter::default(),
            source_disconnects: Counter::default(),
            batches: Family::default(),
            oversize_events: Counter::default(),
            websocket_connections: Gauge::default(),
            event_streams: Gauge::default(),
            websocket_closed: Family::default(),
            websocket_refused: Family::default(),
            authorizers: Family::default(),
            journal_commits: Counter::default(),
            journal_commit_seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 14)),
            journal_events: Counter::default(),
            journal_failures: Counter::default(),
            slow_clients: Family::default(),
            slow_client_dropped: Counter::default(),
            resumes: Family::default(),
            registry_notifications: Family::default(),
            registry_ignored: Counter::default(),
            registry_events: Family::default(),
            registry_commits: Counter::default(),
            registry_reconciliations: Family::default(),
            registry_reconciliation_seconds: Histogram::new(exponential_buckets(0.01, 4.0, 10)),
            jq_dropped: Family::default(),
            integration_calls: Family::default(),
            tls_handshakes: Family::default(),
            tls_reloads: Family::default(),
            actor_panics: Family::default(),
            actor_restarts: Family::default(),
        };
        let r = &mut m.registry;
        r.register("events_received", "Events that entered, over all sources", m.events_received.clone());
        r.register("mqtt_connections", "MQTT connections open", m.mqtt_connections.clone());
        r.register("mqtt_closed", "MQTT connections ended or refused by the server", m.mqtt_closed.clone());
        r.register("mqtt_dropped", "Messages dropped for slow MQTT subscribers", m.mqtt_dropped.clone());
        r.register("source_dropped", "QoS 0 messages of external brokers dropped", m.source_dropped.clone());
        r.register(
            "source_disconnects",
            "Connections to external brokers lost or not made",
            m.source_disconnects.clone(),
        );
        r.register("batches", "Batches closed", m.batches.clone());
        r.register("jq_dropped", "Events that programs of triggers do not let through", m.jq_dropped.clone());
        r.register("oversize_events", "Events larger than a message may be", m.oversize_events.clone());
        r.register("websocket_connections", "WebSocket connections open", m.websocket_connections.clone());
        r.register("event_streams", "Responses of server-sent events open", m.event_streams.clone());
        r.register("websocket_closed", "WebSocket connections ended", m.websocket_closed.clone());
        r.register("websocket_refused", "WebSocket handshakes refused", m.websocket_refused.clone());
        r.register("authorizers", "What authorizers were asked", m.authorizers.clone());
        r.register("journal_commits", "Commits of the journal", m.journal_commits.clone());
        let seconds = m.journal_commit_seconds.clone();
        r.register_with_unit("journal_commit", "Time of a commit", Unit::Seconds, seconds);
        r.register("journal_events", "Events written to the journal", m.journal_events.clone());
        r.register("journal_failures", "Commits of the journal that failed", m.journal_failures.clone());
        r.register("slow_clients", "Clients that fell too far behind", m.slow_clients.clone());
        r.register(
            "slow_client_dropped",
            "Events that slow clients missed by their path's policy",
            m.slow_client_dropped.clone(),
        );
        r.register("resumes", "Clients that asked for what they missed", m.resumes.clone());
        r.register(
            "registry_notifications",
            "Notifications of container registries",
            m.registry_notifications.clone(),
        );
        r.register(
            "registry_ignored",
            "Events in notifications that mean nothing here",
            m.registry_ignored.clone(),
        );
        r.register("registry_events", "Events about images and tags", m.registry_events.clone());
        r.register("registry_commits", "Commits of the container registries", m.registry_commits.clone());
        r.register(
            "registry_reconciliations",
            "Reconciliations with container registries",
            m.registry_reconciliations.clone(),
        );
        let seconds = m.registry_reconciliation_seconds.clone();
        r.register_with_unit("registry_reconciliation", "Time of one", Unit::Seconds, seconds);
        let calls = m.integration_calls.clone();
        r.register("integration_calls", "Calls of integrations, by event and result", calls);
        r.register("tls_handshakes", "TLS handshakes, by how they ended", m.tls_handshakes.clone());
        r.register("tls_reloads", "New certificates, by what became of them", m.tls_reloads.clone());
        r.register("actor_panics", "Panics contained", m.actor_panics.clone());
        r.register("actor_restarts", "Actors started again", m.actor_restarts.clone());
        m
    }

    /// All counters in the OpenMetrics text form.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut out, &self.registry);
        out
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

/// Runs `work` and keeps a panic in it from going further: it is logged and counted, and `None` returned.
/// The caller mends its own state then; the actor and everything queued for it live on.
pub fn contain<R>(actor: &'static str, work: impl FnOnce() -> R) -> Option<R> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .inspect_err(|panic| {
            METRICS.count_panic(actor);
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            tracing::error!(actor, panic = text, "a panic was contained; please report it");
        })
        .ok()
}

/// Counts one under a reason.
pub fn count(family: &Family<Reason, Counter>, reason: &'static str) {
    count_by(family, reason, 1);
}

/// Counts so many under a reason.
pub fn count_by(family: &Family<Reason, Counter>, reason: &'static str, number: usize) {
    family.get_or_create(&Reason { reason }).inc_by(number as u64);
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to stderr. `RUST_LOG` (directives of tracing-subscriber) adds to the default, `info`. A
/// second call does nothing.
pub fn start_logging(format: LogFormat) {
    const DEFAULT: &str = "info,actix_server=warn,rumqttc=error";
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = tracing_subscriber::EnvFilter::try_new(format!("{DEFAULT},{wanted}"));
    let fault = filter.as_ref().err().map(ToString::to_string);
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(DEFAULT));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let _ = match format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    if let Some(fault) = fault {
        tracing::warn!(RUST_LOG = wanted, fault, "RUST_LOG is not understood and left out");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_show_in_the_text() {
        assert_eq!(contain("TestActor", || -> () { panic!("on purpose") }), None);
        assert_eq!(contain("TestActor", || 7), Some(7));
        count(&METRICS.batches, "test");
        let text = METRICS.text();
        assert!(text.contains("triggercast_actor_panics_total{actor=\"TestActor\"} 1"), "{text}");
        assert!(text.contains("triggercast_batches_total{reason=\"test\"}"), "{text}");
    }
}
