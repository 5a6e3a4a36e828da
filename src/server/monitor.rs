//! What passes through the server, as the management API sees it: [`Running`] tells it, and takes the samples.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use tokio::time::MissedTickBehavior;

use super::plant::Running;
use crate::api::wanted::Wanted;
use crate::api::watch::{Overview, SeenAction, SeenJournal, SeenSource, Watch};
use crate::api::{Code, Fault, Trouble};
use crate::engine::plan;
use crate::journal::disk::Health;
use crate::journal::{ReadError, ReadLimit, Start};
use crate::model::activity::{DeviceActivity, PathActivity, Sample};
use crate::model::condition::Condition;
use crate::model::id::Id;
use crate::model::trigger::{Action, Trigger, TriggerSource};
use crate::telemetry::samples::{PAUSE, Samples};
use crate::telemetry::{ACTIONS, METRICS};

/// Triggers that are told of one source.
const MOST_TRIGGERS: usize = 20;

/// What is remembered and told by [`Watch`].
pub(super) struct Told {
    pub(super) started_at: SystemTime,
    pub(super) samples: Mutex<Samples>,
    /// Where WebSocket clients connect.
    pub(super) gateway_address: String,
    pub(super) gateway_tls: bool,
}

impl Told {
    /// From now on.
    pub(super) fn new(gateway_address: String, gateway_tls: bool) -> Self {
        let started_at = SystemTime::now();
        Self { started_at, samples: Mutex::default(), gateway_address, gateway_tls }
    }
}

/// Takes samples as long as the server lives.
pub(super) async fn sample(running: Weak<Running>) {
    let mut interval = tokio::time::interval(PAUSE);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        interval.tick().await;
        let Some(running) = running.upgrade() else { return };
        if let Some(disk) = running.journals.disk() {
            disk.measure();
        }
        let totals = METRICS.totals();
        let (writes, lag_sum) = METRICS.delivery_seconds.times();
        let sample = Sample {
            number: 0,
            at: SystemTime::now(),
            events: totals.events,
            batches: totals.batches,
            deliveries: totals.deliveries,
            websocket_connections: totals.websocket_connections,
            mqtt_connections: totals.mqtt_connections,
            writes,
            lag_sum,
        };
        running.told.samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
    }
}

/// Why a source or the like does not work, if it does not.
pub(super) fn trouble(condition: Condition) -> Option<Trouble> {
    match condition {
        Condition::Running => None,
        Condition::Starting => {
            let message = "the source has not been reached yet".to_owned();
            Some(Trouble { reason: "SOURCE_STARTING", message, since: None })
        }
        Condition::Failing { error, since } => {
            Some(Trouble { reason: "SOURCE_FAILING", message: error, since: Some(since) })
        }
    }
}

impl Running {
    /// Why a source does not work.
    pub(super) fn troubles_of_source(&self, name: &str) -> Vec<Trouble> {
        let not_started = self.troubles.get().and_then(|troubles| troubles.get(name).map(|why| why.clone()));
        let not_started = not_started.map(|message| Trouble { reason: "NOT_STARTED", message, since: None });
        let failing = self.readiness.source(name).and_then(trouble);
        not_started.into_iter().chain(failing).collect()
    }

    /// Why the journal does not work.
    pub(super) fn trouble_of_journal(&self) -> Option<Trouble> {
        match self.readiness.journal() {
            Some(Health::Failing { error, since }) => {
                Some(Trouble { reason: "JOURNAL_FAILING", message: error, since: Some(since) })
            }
            _ => None,
        }
    }

    /// Why notifications of container registries are not taken.
    fn trouble_of_registries(&self) -> Option<Trouble> {
        let condition = self.registries.as_ref()?.condition().borrow().clone();
        trouble(condition).map(|trouble| Trouble { reason: "INDEX_FAILING", ..trouble })
    }

    fn sources(&self, wanted: &Wanted) -> Vec<SeenSource> {
        let mut fed: BTreeMap<String, Vec<Id>> = BTreeMap::new();
        for trigger in &wanted.resources.triggers {
            for number in 0..trigger.actions.len() {
                let triggers = fed.entry(plan::source_name(trigger, number)).or_default();
                if triggers.len() < MOST_TRIGGERS && triggers.last() != Some(&trigger.id) {
                    triggers.push(trigger.id.clone());
                }
            }
        }
        let seen = fed.into_iter().map(|(name, triggers)| {
            let troubles = self.troubles_of_source(&name);
            SeenSource { name, triggers, troubles }
        });
        let mut sources: Vec<SeenSource> = seen.collect();
        sources.sort_by_key(|source| source.troubles.is_empty());
        sources
    }

    fn journal(&self) -> SeenJournal {
        SeenJournal {
            events: METRICS.journal_events.get(),
            commits: METRICS.journal_commits.get(),
            commit_mean: METRICS.mean_commit(),
            size: self.journals.disk().map_or(0, |disk| disk.size()),
            troubles: self.trouble_of_journal().into_iter().collect(),
        }
    }

    fn problems(&self, wanted: &Wanted, sources: &[SeenSource]) -> Vec<(String, Trouble)> {
        let journal = self.trouble_of_journal().map(|trouble| ("journal".to_owned(), trouble));
        let registries =
            self.trouble_of_registries().map(|trouble| ("container registries".to_owned(), trouble));
        let of_source = |source: &SeenSource| {
            let name = format!("source {}", source.name);
            source.troubles.clone().into_iter().map(move |trouble| (name.clone(), trouble))
        };
        let mut of_triggers: Vec<_> = wanted.troubles.iter().collect();
        of_triggers.sort();
        let of_triggers = of_triggers.into_iter().map(|(id, (reason, message))| {
            let name = wanted.trigger(id).map_or(id, |trigger| &trigger.name);
            (format!("trigger {name}"), Trouble { reason, message: message.clone(), since: None })
        });
        let of_server = journal.into_iter().chain(registries);
        of_server.chain(sources.iter().flat_map(of_source)).chain(of_triggers).collect()
    }

    /// The last events of an action, from the journal, or from the memory of its path, which does not know whose they
    /// are.
    fn events_of(&self, wanted: &Wanted, trigger: &Trigger, most: usize) -> Result<Vec<Bytes>, ReadError> {
        let Some(Action::GatewayWebsocketBroadcast { target, .. }) = trigger.actions.first() else {
            return Ok(Vec::new());
        };
        if let Some(disk) = self.journals.disk() {
            let found = disk.newest(&trigger.id, 0, &plan::source_name(trigger, 0), most)?;
            if let Some(events) = found {
                return Ok(events.into_iter().map(|event| event.json).collect());
            }
        }
        let is_there = |action: &Action| {
            let Action::GatewayWebsocketBroadcast { target: other, .. } = action;
            other == target
        };
        let others = wanted.resources.triggers.iter().filter(|other| other.id != trigger.id);
        let is_shared = others.flat_map(|other| &other.actions).any(is_there);
        let journal = self.journals.of(target).filter(|_| !is_shared && !self.journals.is_on_disk(target));
        let Some(journal) = journal else {
            return Ok(Vec::new());
        };
        let from = journal.find(target, Start::Last(most as u64))?.position;
        let batches = journal.read(target, from, ReadLimit { bytes: usize::MAX, grid: u64::MAX })?;
        let events = batches.into_iter().flat_map(|batch| batch.events).map(|event| event.json);
        let mut events: Vec<Bytes> = events.collect();
        events.reverse();
        events.truncate(most);
        Ok(events)
    }
}

impl Watch for Running {
    fn overview(&self, after: u64) -> Overview {
        let wanted = self.wanted();
        let sources = self.sources(&wanted);
        let triggers = &wanted.resources.triggers;
        // Those that are held for want of a right are not paused.
        let is_paused =
            |trigger: &&Trigger| trigger.pause.is_some() && !wanted.troubles.contains_key(&trigger.id);
        let paused = triggers.iter().filter(is_paused).count();
        let invalid = wanted.troubles.keys().filter(|id| wanted.trigger(id).is_none()).count();
        Overview {
            started_at: self.told.started_at,
            totals: METRICS.totals(),
            samples: self.told.samples.lock().unwrap_or_else(PoisonError::into_inner).after(after),
            paths: self.connections.activity(),
            journal: self.journal(),
            problems: self.problems(&wanted, &sources),
            active_triggers: triggers.len() - paused + invalid,
            paused_triggers: paused,
            gateway_address: self.told.gateway_address.clone(),
            gateway_tls: self.told.gateway_tls,
            sources,
        }
    }

    fn paths(&self, gateway: &str) -> Vec<PathActivity> {
        let mut paths = self.connections.activity();
        paths.retain(|path| *path.key.gateway_id == *gateway);
        paths
    }

    fn actions(&self, trigger: &str) -> Vec<SeenAction> {
        let wanted = self.wanted();
        let Some(trigger) = wanted.trigger(trigger) else { return Vec::new() };
        let (now, clock) = (Instant::now(), SystemTime::now());
        let seen = |(number, action): (usize, &Action)| {
            let Action::GatewayWebsocketBroadcast { target, .. } = action;
            let meter = ACTIONS.get(&(trigger.id.clone(), number));
            let activity = meter.map(|meter| meter.read(now, clock)).unwrap_or_default();
            SeenAction { target: target.clone(), settings: trigger.batch, activity }
        };
        trigger.actions.iter().enumerate().map(seen).collect()
    }

    fn last_events(&self, trigger: &str, most: usize) -> Result<Vec<Bytes>, Fault> {
        let wanted = self.wanted();
        let Some(trigger) = wanted.trigger(trigger) else { return Ok(Vec::new()) };
        let failed = |error| Fault::new(Code::Unavailable, format!("The journal cannot be read: {error}"));
        self.events_of(&wanted, trigger, most).map_err(failed)
    }

    fn heard(&self, registry: &str, devices: &[Id]) -> Vec<DeviceActivity> {
        self.mqtt.as_ref().map(|mqtt| mqtt.heard(registry, devices)).unwrap_or_default()
    }

    fn container_registry(&self, registry: &str) -> (Vec<Trouble>, Vec<Bytes>) {
        let wanted: Arc<Wanted> = self.wanted();
        let is_of = |trigger: &&Trigger| matches!(&trigger.source, TriggerSource::ContainerRegistry { registry_id, .. } if **registry_id == *registry);
        let mut names: Vec<String> = wanted
            .resources
            .triggers
            .iter()
            .filter(is_of)
            .map(|trigger| trigger.source.to_string())
            .collect();
        names.sort();
        names.dedup();
        let of_sources = names.iter().flat_map(|name| self.troubles_of_source(name));
        let events = self.registries.as_ref().map(|registries| registries.recent(registry));
        (self.trouble_of_registries().into_iter().chain(of_sources).collect(), events.unwrap_or_default())
    }
}
