//! What [`Roster`]s hold, as `/metrics` shows it: read when it is asked for, so that those who count touch no label.

use std::fmt;
use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::action::{ActionKey, ActionMeter};
use super::path::PathMeter;
use super::roster::Roster;
use crate::model::activity::ActionActivity;
use crate::model::gateway::PathKey;
use crate::model::trigger::BatchClose;

/// What those are called together that have no label of their own. No id begins so.
const OTHER: &str = "_other";

/// The actions of triggers.
#[derive(Debug)]
pub(super) struct ByAction(pub(super) &'static LazyLock<Roster<ActionKey, ActionMeter>>);

/// The paths of gateways.
#[derive(Debug)]
pub(super) struct ByPath(pub(super) &'static LazyLock<Roster<PathKey, PathMeter>>);

/// The same under the model system's names.
#[derive(Debug)]
pub(super) struct AsModel(pub(super) &'static LazyLock<Roster<PathKey, PathMeter>>);

struct Action {
    trigger: String,
    number: String,
    activity: ActionActivity,
    dropped: [u64; ActionMeter::DROPS.len()],
}

impl Action {
    fn labels(&self) -> [(&'static str, &str); 2] {
        [("trigger", &self.trigger), ("action", &self.number)]
    }

    fn labels_and<'a>(&'a self, reason: &'a str) -> [(&'static str, &'a str); 3] {
        let [trigger, action] = self.labels();
        [trigger, action, ("reason", reason)]
    }
}

fn actions(roster: &Roster<ActionKey, ActionMeter>) -> Vec<Action> {
    let (named, other) = roster.read();
    let (now, clock) = (Instant::now(), SystemTime::now());
    let action = |trigger: &str, number: String, meter: &ActionMeter| {
        let activity = meter.read(now, clock);
        Action { trigger: trigger.to_owned(), number, activity, dropped: meter.dropped() }
    };
    let named = named.iter().map(|((trigger, number), meter)| action(trigger, number.to_string(), meter));
    named.chain(other.iter().map(|other| action(OTHER, String::new(), other))).collect()
}

struct Path {
    gateway: String,
    path: String,
    numbers: PathMeter,
}

impl Path {
    fn labels(&self) -> [(&'static str, &str); 2] {
        [("gateway", &self.gateway), ("path", &self.path)]
    }
}

fn paths(roster: &Roster<PathKey, PathMeter>) -> Vec<Path> {
    let (named, other) = roster.read();
    let path = |gateway: &str, path: &str, numbers| Path {
        gateway: gateway.to_owned(),
        path: path.to_owned(),
        numbers,
    };
    let named = named.iter().map(|(key, meter)| path(&key.gateway_id, &key.path, meter.now()));
    named.chain(other.map(|other| path(OTHER, OTHER, other))).collect()
}

/// A metric that is about to be shown.
pub(super) struct Shown<'a>(MetricEncoder<'a>);

impl Shown<'_> {
    fn counter(&mut self, labels: &[(&'static str, &str)], value: u64) -> fmt::Result {
        self.0.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// A counter of time without labels.
    pub(super) fn seconds(&mut self, value: f64) -> fmt::Result {
        self.0.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    pub(super) fn gauge(&mut self, labels: &[(&'static str, &str)], value: f64) -> fmt::Result {
        if labels.is_empty() {
            return self.0.encode_gauge(&value);
        }
        self.0.encode_family(&labels)?.encode_gauge(&value)
    }
}

/// A metric that a collector shows, without what stands before all names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// As Prometheus has it, but for `_total`.
    pub(super) name: &'static str,
    /// `counter` or `gauge`.
    pub(super) kind: &'static str,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

impl Kind {
    pub(super) const fn counter(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, kind: "counter", labels, help }
    }

    pub(super) const fn gauge(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, kind: "gauge", labels, help }
    }

    pub(super) fn show<'a>(&self, out: &'a mut DescriptorEncoder<'_>) -> Result<Shown<'a>, fmt::Error> {
        let kind = if self.kind == "counter" { MetricType::Counter } else { MetricType::Gauge };
        Ok(Shown(out.encode_descriptor(self.name, self.help, None, kind)?))
    }
}

const ACTION: &[&str] = &["trigger", "action"];
const REASON: &[&str] = &["trigger", "action", "reason"];
const PATH: &[&str] = &["gateway", "path"];

impl ByAction {
    const EVENTS: Kind = Kind::counter("trigger_events", ACTION, "Events in closed batches");
    const BATCHES: Kind = Kind::counter("trigger_batches", REASON, "Batches closed, by why");
    const DROPPED: Kind = Kind::counter("trigger_jq_dropped", REASON, "Events that jq does not let through");
    const OPEN: Kind = Kind::gauge("trigger_open_events", ACTION, "Events in the open batch");
    const BYTES: Kind = Kind::gauge("trigger_open_bytes", ACTION, "Bytes of JSON in the open batch");
    const LAST: Kind = Kind::gauge(
        "trigger_last_batch_timestamp_seconds",
        ACTION,
        "When a gateway took batches last, as seconds since 1970; not there before the first",
    );
    pub(super) const SHOWS: &[Kind] =
        &[Self::EVENTS, Self::BATCHES, Self::DROPPED, Self::OPEN, Self::BYTES, Self::LAST];
}

impl Collector for ByAction {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        let (actions, out) = (actions(self.0), &mut out);
        let mut shown = Self::EVENTS.show(out)?;
        actions.iter().try_for_each(|action| shown.counter(&action.labels(), action.activity.events))?;
        let mut shown = Self::BATCHES.show(out)?;
        for action in &actions {
            for why in BatchClose::ALL {
                shown.counter(&action.labels_and(why.name()), action.activity.closed_for(why))?;
            }
        }
        let mut shown = Self::DROPPED.show(out)?;
        for action in &actions {
            for (reason, dropped) in ActionMeter::DROPS.iter().zip(action.dropped) {
                shown.counter(&action.labels_and(reason), dropped)?;
            }
        }
        let mut shown = Self::OPEN.show(out)?;
        let open = |action: &Action| action.activity.open_events as f64;
        actions.iter().try_for_each(|action| shown.gauge(&action.labels(), open(action)))?;
        let mut shown = Self::BYTES.show(out)?;
        let bytes = |action: &Action| action.activity.open_bytes as f64;
        actions.iter().try_for_each(|action| shown.gauge(&action.labels(), bytes(action)))?;
        let mut shown = Self::LAST.show(out)?;
        for action in &actions {
            if let Some(at) = action.activity.last_batch_at {
                let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
                shown.gauge(&action.labels(), seconds)?;
            }
        }
        Ok(())
    }
}

impl ByPath {
    const EVENTS: Kind = Kind::counter("path_events", PATH, "Events broadcast");
    const BATCHES: Kind = Kind::counter("path_batches", PATH, "Batches broadcast");
    const WRITTEN: Kind = Kind::counter("path_messages_written", PATH, "Messages written to clients");
    const CONNECTIONS: Kind = Kind::gauge("path_connections", PATH, "WebSocket connections open");
    const PENDING: Kind =
        Kind::gauge("path_pending_runs", PATH, "Runs of batches that wait for the journal; at most 64");
    pub(super) const SHOWS: &[Kind] =
        &[Self::EVENTS, Self::BATCHES, Self::WRITTEN, Self::CONNECTIONS, Self::PENDING];
}

impl Collector for ByPath {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        let (paths, out) = (paths(self.0), &mut out);
        let mut shown = Self::EVENTS.show(out)?;
        paths.iter().try_for_each(|path| shown.counter(&path.labels(), path.numbers.events()))?;
        let mut shown = Self::BATCHES.show(out)?;
        paths.iter().try_for_each(|path| shown.counter(&path.labels(), path.numbers.batches()))?;
        let mut shown = Self::WRITTEN.show(out)?;
        paths.iter().try_for_each(|path| shown.counter(&path.labels(), path.numbers.messages()))?;
        let mut shown = Self::CONNECTIONS.show(out)?;
        paths.iter().try_for_each(|path| shown.gauge(&path.labels(), path.numbers.connections() as f64))?;
        let mut shown = Self::PENDING.show(out)?;
        paths.iter().try_for_each(|path| shown.gauge(&path.labels(), path.numbers.pending() as f64))
    }
}

impl AsModel {
    const CONNECTIONS: Kind = Kind::gauge(
        "websocket_connections_count",
        &["gateway", "path", "service"],
        "WebSocket connections open, under the model system's name",
    );
    pub(super) const SHOWS: &[Kind] = &[Self::CONNECTIONS];
}

impl Collector for AsModel {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        let mut shown = Self::CONNECTIONS.show(&mut out)?;
        paths(self.0).iter().try_for_each(|path| {
            let [gateway, place] = path.labels();
            let labels = [gateway, place, ("service", "serverless-apigateway")];
            shown.gauge(&labels, path.numbers.connections() as f64)
        })
    }
}
