//! Starts everything that one source needs, the last actor first.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use actix::prelude::*;
use tokio::runtime::Handle;

use super::plan::{BatchPlan, ChainPlan, Made, Place};
use crate::batch::{BatchActor, Drain};
use crate::container_registry::{LinkError, Registries};
use crate::gateway::{Broadcast, GatewayActor};
use crate::journal::disk::{ActionId, Disk, SourceId};
use crate::journal::{Journals, ReadError};
use crate::jq;
use crate::model::gateway::{Durability, Retention};
use crate::model::id::Id;
use crate::model::trigger::TriggerSource;
use crate::mqtt;
use crate::source::actor::{Log, Rewire, SourceActor, Stop};
use crate::source::embedded::EmbeddedSource;
use crate::source::made::{self, MadeSource};
use crate::source::mqtt::MqttSource;
use crate::source::readiness::Readiness;
use crate::source::registry::RegistrySource;
use crate::source::{Ending, Source, mqtt as source_mqtt};
use crate::telemetry::ACTIONS;

/// Groups of events that may wait between a source's task and its actor.
pub const SOURCE_QUEUE: usize = 64;

/// What chains are made of and lean on.
pub struct Ground {
    /// The embedded MQTT server, if there is one.
    pub mqtt: Option<Arc<mqtt::Server>>,
    /// The container registries, if there are any.
    pub registries: Option<Arc<Registries>>,
    /// Where the clients of external brokers run.
    pub runtime: Handle,
    /// Where events and batches are kept.
    pub journals: Arc<Journals>,
    /// The name that external brokers know this process by.
    pub node: String,
    /// Told about every source.
    pub readiness: Arc<Readiness>,
    /// Runs the programs of triggers.
    pub jq: Option<jq::Pool>,
    /// The threads that SourceActors and BatchActors live on.
    pub arbiters: Vec<ArbiterHandle>,
}

/// Why a chain cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The source is on the embedded server, and there is none.
    #[error("open the source: there is no 'mqtt:' section, so no embedded MQTT server")]
    NoServer,
    /// The embedded server refuses the link.
    #[error("open the source: {0}")]
    Link(#[from] mqtt::LinkError),
    /// The source is in a container registry that is not followed, or its last link lives.
    #[error("open the source: {0}")]
    Registry(#[from] LinkError),
    /// The journal does not answer.
    #[error("open the journal: {0}")]
    Journal(#[from] ReadError),
    /// There is no journal on disk, which events are made from.
    #[error("make events of others: there is no journal on disk")]
    NoJournal,
    /// An action's gateway does not run.
    #[error("find the gateway '{0}'")]
    NoGateway(Id),
}

/// A running source with its batches.
#[derive(Debug)]
pub struct Chain {
    plan: ChainPlan,
    source: Addr<SourceActor>,
    pub(super) batches: Vec<Seat>,
    /// The number of the arbiter that everything lives on.
    number: usize,
    has_log: bool,
}

/// One batch of a chain.
#[derive(Debug)]
pub(super) struct Seat {
    plan: BatchPlan,
    /// None while the trigger is held, and where another chain makes events of these first.
    pub(super) actor: Option<Addr<BatchActor>>,
    /// The action in the journal, if its path is on disk.
    action: Option<ActionId>,
}

impl Seat {
    fn start(
        arbiter: &ArbiterHandle,
        plan: BatchPlan,
        (action, next): Standing,
        gateway: Recipient<Broadcast>,
    ) -> Self {
        let BatchPlan { trigger, number, settings, target, .. } = plan.clone();
        let is_idle = plan.is_held || plan.is_made;
        let actor = (!is_idle).then(|| {
            let meter = ACTIONS.enter(&(trigger.clone(), number));
            BatchActor::start_in_arbiter(arbiter, move |_| {
                BatchActor::new(trigger, settings, target, gateway, action, next, meter)
            })
        });
        Self { plan, actor, action }
    }
}

impl Chain {
    /// Starts the batches and then the source that feeds them, all on the arbiter with this number.
    pub fn start(
        ground: &Ground,
        number: usize,
        plan: ChainPlan,
        gateway: impl Fn(&Id) -> Option<Addr<GatewayActor>>,
    ) -> Result<Self, ChainError> {
        let gateways = gateways(&plan, gateway)?;
        // What it still hands over must have reached the journal before the journal is asked what it has.
        if let (TriggerSource::ContainerRegistry { .. }, None, Some(registries)) =
            (&plan.source, &plan.made, &ground.registries)
        {
            registries.end_link(&plan.source)?;
        }
        let (log, standings) = journal(ground, &plan)?;
        let has_log = log.is_some();
        let source = open(ground, &plan, log.as_ref())?;
        let name = plan.name();
        ground.readiness.watch(name, source.condition());
        let arbiter = &ground.arbiters[number % ground.arbiters.len()];
        let seats = plan.batches.iter().cloned().zip(standings).zip(gateways);
        let batches: Vec<_> = seats
            .map(|((batch, standing), gateway)| Seat::start(arbiter, batch, standing, gateway.recipient()))
            .collect();
        let fed = batches.iter().filter_map(|seat| seat.actor.clone()).collect();
        let source = SourceActor::start_in_arbiter(arbiter, move |_| SourceActor::new(source, fed, log));
        Ok(Self { plan, source, batches, number, has_log })
    }

    /// Whether it can become what `plan` says by [`Self::rewire`], without a new source.
    pub fn can_become(&self, ground: &Ground, plan: &ChainPlan) -> bool {
        // What makes events is told what and whether by its plan alone.
        let is_same = self.plan.source == plan.source && self.plan.place == plan.place;
        let takes_all = self.plan.made.is_none() && plan.made.is_none();
        (is_same && takes_all && self.has_log == wants_log(ground, plan)) || self.plan == *plan
    }

    /// Feeds the batches of `plan` from now on. Those that are the same go on untouched.
    pub fn rewire(
        &mut self,
        ground: &Ground,
        plan: ChainPlan,
        gateway: impl Fn(&Id) -> Option<Addr<GatewayActor>>,
    ) -> Result<(), ChainError> {
        if self.plan == plan {
            return Ok(());
        }
        let gateways = gateways(&plan, gateway)?;
        let log = source_log(ground, &plan)?;
        let arbiter = &ground.arbiters[self.number % ground.arbiters.len()];
        let old = std::mem::take(&mut self.batches).into_iter();
        let mut old: HashMap<_, _> =
            old.map(|seat| ((seat.plan.trigger.clone(), seat.plan.number), seat)).collect();
        let mut seats = Vec::with_capacity(plan.batches.len());
        let mut rewire = Rewire { is_mixed: is_mixed(ground, &plan), ..Rewire::default() };
        for (batch, gateway) in plan.batches.iter().cloned().zip(gateways) {
            let key = (batch.trigger.clone(), batch.number);
            if old.get(&key).is_some_and(|seat| seat.plan == batch) {
                seats.extend(old.remove(&key));
                continue;
            }
            let standing = match standing(ground, &batch, log.as_ref()) {
                Ok(standing) => standing,
                Err(error) => {
                    self.batches = seats.into_iter().chain(old.into_values()).collect();
                    return Err(error);
                }
            };
            if batch.is_held {
                rewire.hold.extend(standing.0);
            }
            let seat = Seat::start(arbiter, batch, standing, gateway.recipient());
            rewire.join.extend(seat.actor.clone().map(|actor| (actor, seat.action)));
            seats.push(seat);
        }
        // What stays in the journal under another plan is the same action.
        let kept: HashSet<ActionId> = seats.iter().filter_map(|seat| seat.action).collect();
        let gone = old.values().filter_map(|seat| seat.action);
        rewire.retire = gone.filter(|action| !kept.contains(action)).collect();
        rewire.leave = old.into_values().filter_map(|seat| seat.actor).collect();
        self.source.do_send(rewire);
        self.batches = seats;
        self.plan = plan;
        Ok(())
    }

    /// The actions of the chain in the journal.
    pub fn actions(&self) -> HashSet<ActionId> {
        self.batches.iter().filter_map(|seat| seat.action).collect()
    }

    /// Whether all actors live.
    pub fn is_alive(&self) -> bool {
        let mut actors = self.batches.iter().filter_map(|seat| seat.actor.as_ref());
        self.source.connected() && actors.all(Addr::connected)
    }

    /// What the chain was started from.
    pub fn plan(&self) -> &ChainPlan {
        &self.plan
    }

    /// Ends what still lives of it: the source takes nothing new, open batches go out. Without a successor that runs
    /// already, what comes meanwhile is refused.
    pub fn abandon(&self, has_successor: bool) {
        // Not a request: dropping one would cancel it. The mailboxes of these actors are empty or nearly so.
        let ending = if has_successor { Ending::Stop } else { Ending::HandOver };
        self.source.do_send(Stop(ending));
        self.batches.iter().filter_map(|seat| seat.actor.as_ref()).for_each(|batch| batch.do_send(Drain));
    }

    /// Whether one of its batches goes to this gateway.
    pub fn targets(&self, gateway: &Id) -> bool {
        self.plan.batches.iter().any(|batch| batch.target.gateway_id == *gateway)
    }

    /// Asks the source to end. Awaiting the request waits until everything
    /// taken is with the gateways.
    pub fn stop(&self, ending: Ending) -> Request<SourceActor, Stop> {
        self.source.send(Stop(ending))
    }
}

/// The gateways of a plan's batches.
fn gateways(
    plan: &ChainPlan,
    gateway: impl Fn(&Id) -> Option<Addr<GatewayActor>>,
) -> Result<Vec<Addr<GatewayActor>>, ChainError> {
    let find = |batch: &BatchPlan| {
        let id = &batch.target.gateway_id;
        gateway(id).ok_or_else(|| ChainError::NoGateway(id.clone()))
    };
    plan.batches.iter().map(find).collect()
}

/// Tells the journal that these actions are no more. Their batches have been appended.
pub(super) fn retire(ground: &Ground, actions: Vec<ActionId>) {
    if let Some(disk) = ground.journals.disk().filter(|_| !actions.is_empty()) {
        disk.retire(actions);
    }
}

/// Whether a plan's events are written to the journal: some path of it is on disk.
fn wants_log(ground: &Ground, plan: &ChainPlan) -> bool {
    let needs = |batch: &BatchPlan| batch.is_made || ground.journals.is_on_disk(&batch.target);
    ground.journals.disk().is_some() && (plan.made.is_some() || plan.batches.iter().any(needs))
}

/// Whether some path of a plan is on disk and some is not.
fn is_mixed(ground: &Ground, plan: &ChainPlan) -> bool {
    let in_memory =
        |batch: &BatchPlan| !batch.is_held && !batch.is_made && !ground.journals.is_on_disk(&batch.target);
    wants_log(ground, plan) && plan.batches.iter().any(in_memory)
}

/// An action in the journal, if its path is on disk, and the offset it begins with.
type Standing = (Option<ActionId>, u64);

/// Where a plan's events are written, and the offset of the next; `None` if they are not.
fn source_log(ground: &Ground, plan: &ChainPlan) -> Result<Option<(SourceId, u64)>, ChainError> {
    let Some(disk) = ground.journals.disk().filter(|_| wants_log(ground, plan)) else { return Ok(None) };
    let source = disk.source(&plan.name())?;
    Ok(Some((source, disk.flushed(source)?)))
}

/// What the journal knows of a batch: its action, and the offset that it begins with.
fn standing(
    ground: &Ground,
    batch: &BatchPlan,
    log: Option<&(SourceId, u64)>,
) -> Result<Standing, ChainError> {
    let (Some(disk), Some((source, now))) = (ground.journals.disk(), log) else { return Ok((None, 0)) };
    // For paths in memory: what came before this start is gone.
    if !batch.is_made && !ground.journals.is_on_disk(&batch.target) {
        return Ok((None, *now));
    }
    let action = action(disk, batch, *source)?;
    if batch.is_held {
        return Ok((Some(action), disk.cursor(action)));
    }
    Ok((Some(action), disk.resume(action)?))
}

/// What the journal knows of a chain: where its source's events are written, and what each action has not had.
fn journal(ground: &Ground, plan: &ChainPlan) -> Result<(Option<Log>, Vec<Standing>), ChainError> {
    let log = source_log(ground, plan)?;
    let places = plan
        .batches
        .iter()
        .map(|batch| standing(ground, batch, log.as_ref()))
        .collect::<Result<Vec<_>, _>>()?;
    let (Some(disk), Some((source, now))) = (ground.journals.disk(), log) else { return Ok((None, places)) };
    let held = places.iter().zip(&plan.batches).filter(|(_, batch)| batch.is_held);
    held.filter_map(|((action, _), _)| *action).for_each(|action| disk.hold(action, true));
    let fed = places.iter().zip(&plan.batches).filter(|(_, batch)| !batch.is_held && !batch.is_made);
    let from = fed.map(|((_, next), _)| *next).min().unwrap_or(now);
    Ok((Some(Log { disk: Arc::clone(disk), source, from, is_mixed: is_mixed(ground, plan) }), places))
}

/// The action of a batch in the journal. What makes events takes from the journal whatever path they go to.
fn action(disk: &Disk, batch: &BatchPlan, source: SourceId) -> Result<ActionId, ReadError> {
    if batch.is_made {
        let kept = (Durability::Disk, Retention::default());
        disk.add_paths(&HashMap::from([(batch.target.clone(), kept)]))?;
    }
    disk.action(&batch.trigger, batch.number, source, &batch.target)
}

/// The source of an action that makes events.
fn open_made(ground: &Ground, plan: &ChainPlan, made: &Made) -> Result<Box<dyn Source>, ChainError> {
    let disk = ground.journals.disk().ok_or(ChainError::NoJournal)?;
    let Some(batch) = plan.batches.first().filter(|batch| !batch.is_held) else {
        return Ok(Box::new(MadeSource::idle(&ground.runtime)));
    };
    let source = disk.source(&plan.source.to_string())?;
    let action = action(disk, &BatchPlan { is_made: true, ..batch.clone() }, source)?;
    let from = disk.resume(action)?;
    let work = made::Work {
        disk: Arc::clone(disk),
        trigger: made.trigger.clone(),
        meter: ACTIONS.enter(&(made.trigger.clone(), made.number)),
        source,
        action,
        from,
        steps: made.steps.clone(),
        jq: ground.jq.clone(),
    };
    Ok(Box::new(MadeSource::start(work, &ground.runtime)?))
}

fn open(ground: &Ground, plan: &ChainPlan, log: Option<&Log>) -> Result<Box<dyn Source>, ChainError> {
    if let Some(made) = &plan.made {
        return open_made(ground, plan, made);
    }
    Ok(match (&plan.source, &plan.place) {
        (TriggerSource::Mqtt(topics), Place::Embedded) => {
            let server = ground.mqtt.as_ref().ok_or(ChainError::NoServer)?;
            let link = server.link(topics, SOURCE_QUEUE)?;
            if log.is_none() {
                link.set_unlogged();
            }
            Box::new(EmbeddedSource::new(link))
        }
        (TriggerSource::Mqtt(topics), Place::External { broker, aliases, devices }) => {
            let spec = source_mqtt::MqttSourceSpec::new(topics, broker, aliases, &ground.node);
            let repeats = ground.journals.disk().and_then(|disk| disk.take_repeats(spec.session()));
            Box::new(MqttSource::start(spec.of_devices(devices).recalling(repeats), &ground.runtime))
        }
        (TriggerSource::ContainerRegistry { registry_id, .. }, _) => {
            let none = || LinkError::Unknown(registry_id.clone());
            let registries = ground.registries.as_ref().ok_or_else(none)?;
            // What the registry's outbox still has may be in the journal already.
            let known = log.map_or(Ok(0), |log| log.disk.highest(log.source))?;
            Box::new(RegistrySource::new(registries.link(&plan.source, known)?, registries.condition()))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::engine::SupervisorActor;
    use crate::gateway::{Directory, Outbound, PublicLimits, Workers};
    use crate::model::Resources;
    use crate::model::gateway::{Gateway, GatewayPath, PathKey};
    use crate::model::iot::DeviceRegistry;
    use crate::model::trigger::{Action, BatchSettings, MqttTopics, Steps, Trigger};
    use crate::mqtt::Limits;

    fn resources() -> Resources {
        let path = GatewayPath::new("/ws");
        let source =
            MqttTopics::IotMessage { registry_id: "factory".into(), device_id: None, mqtt_topic: None };
        let source = TriggerSource::Mqtt(source);
        let target = PathKey { gateway_id: "main".into(), path: "/ws".into() };
        let steps = Steps::default();
        let action = Action::GatewayWebsocketBroadcast { target, service_account_id: "sa".into(), steps };
        Resources {
            gateways: vec![Gateway {
                id: "main".into(),
                domain: None,
                allowed_origins: vec![],
                paths: vec![path],
                is_stopped: false,
            }],
            device_registries: vec![DeviceRegistry {
                id: "factory".into(),
                passwords: vec![],
                certificates: vec![],
                devices: vec![],
                external: None,
            }],
            triggers: vec![Trigger {
                id: "all".into(),
                name: "all".into(),
                pause: None,
                source,
                batch: BatchSettings::default(),
                actions: vec![action],
            }],
            ..Resources::default()
        }
    }

    fn supervisor(mqtt: bool) -> Result<SupervisorActor, ChainError> {
        let resources = resources();
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = mqtt::Server::start(socket, &resources, Limits::default()).unwrap();
        let ground = Ground {
            mqtt: mqtt.then(|| Arc::new(server)),
            registries: None,
            runtime: Handle::current(),
            journals: Arc::new(Journals::in_memory(&resources.gateways)),
            node: "test".into(),
            jq: None,
            readiness: Arc::default(),
            arbiters: vec![Arbiter::current()],
        };
        let directory = Arc::new(Directory::new(
            &resources.gateways,
            PublicLimits::for_tests(1),
            &ground.journals,
            Outbound::for_tests(&[]),
        ));
        SupervisorActor::new(ground, &resources, directory, Arc::new(Workers::default()))
    }

    async fn until(what: &str, condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed().as_secs() < 10, "{what} did not come");
            actix_rt::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    #[actix::test]
    async fn a_chain_that_lost_a_batch_starts_again_and_its_old_source_ends() {
        let mut supervisor = supervisor(true).unwrap();
        let old = supervisor.chains[0].source.clone();
        let batch = supervisor.chains[0].batches[0].actor.clone().unwrap();
        batch.send(crate::batch::End).await.unwrap();
        until("the end of the batch", || !supervisor.chains[0].is_alive()).await;
        supervisor.watch();
        assert_eq!(supervisor.chains.len(), 1);
        assert!(supervisor.chains[0].is_alive());
        until("the end of the old source", || !old.connected()).await;
        assert!(supervisor.chains[0].is_alive());
    }

    #[actix::test]
    async fn a_source_without_its_server_ends_the_start() {
        let error = supervisor(false).err().unwrap();
        assert!(error.to_string().contains("mqtt:"), "{error}");
    }
}
