//! Makes what is wanted run: [`SupervisorActor`] and the chains it keeps alive.
//!
//! The supervisor starts the GatewayActors and one chain for each source, looks every [`WATCH`] whether
//! all of them live, and starts again what has ended. The server sends it [`Apply`] when something else is wanted, and
//! [`StopAll`]; its mailbox is actix's default, 16 messages, and the server waits.

pub mod chain;
pub mod plan;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use dashmap::DashMap;
use futures_util::future::join_all;

use self::chain::{Chain, ChainError, Ground};
use self::plan::ChainPlan;
use crate::gateway::{Directory, Flush, GatewayActor, Workers};
use crate::journal;
use crate::journal::disk::{Disk, Health};
use crate::model::Resources;
use crate::model::id::Id;
use crate::model::trigger::TriggerSource;
use crate::source::Ending;
use crate::telemetry::{self, ACTIONS, METRICS};

/// How often the supervisor looks whether everything lives.
pub const WATCH: Duration = Duration::from_millis(250);
/// How long a stop waits for sources to hand over what they have taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a stop waits until MQTT publishers have their acknowledgements.
const MQTT_PATIENCE: Duration = Duration::from_secs(2);

/// Keeps gateways and chains running.
pub struct SupervisorActor {
    ground: Ground,
    directory: Arc<Directory>,
    workers: Arc<Workers>,
    gateways: HashMap<Id, Addr<GatewayActor>>,
    chains: Vec<Chain>,
    /// Chains that could not be started yet, or not again.
    waiting: Vec<ChainPlan>,
    /// Chains that end, by their names. What is to take their place waits.
    leaving: Vec<(String, Arc<Chain>)>,
    /// The sources of all plans.
    wanted: HashSet<TriggerSource>,
    troubles: Arc<Troubles>,
}

/// Why sources could not be started, by their names.
pub type Troubles = DashMap<String, String>;

/// Makes run what is wanted now. What is the same goes on untouched. The reply comes when everything that could be
/// started has been; false says that it is to be tried again.
#[derive(Debug, Message)]
#[rtype(result = "bool")]
pub struct Apply(pub Arc<Resources>);

/// Watches no more, ends the embedded MQTT server and every source, and waits until all events that came
/// are with the workers.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct StopAll;

impl SupervisorActor {
    /// Starts everything that `resources` ask for. The error names the first trigger source that cannot run.
    pub fn new(
        ground: Ground,
        resources: &Resources,
        directory: Arc<Directory>,
        workers: Arc<Workers>,
    ) -> Result<Self, ChainError> {
        let mut supervisor = Self {
            ground,
            directory,
            workers,
            gateways: HashMap::new(),
            chains: Vec::new(),
            waiting: Vec::new(),
            leaving: Vec::new(),
            wanted: HashSet::new(),
            troubles: Arc::default(),
        };
        for (number, gateway) in resources.gateways.iter().enumerate() {
            supervisor.start_gateway(number, gateway.id.clone());
        }
        for (number, plan) in plan::plan(resources).into_iter().enumerate() {
            supervisor.wanted.insert(plan.source.clone());
            let chain = supervisor.start_chain(number, plan)?;
            supervisor.chains.push(chain);
        }
        Ok(supervisor)
    }

    /// Why sources could not be started, told while it runs.
    pub fn troubles(&self) -> Arc<Troubles> {
        Arc::clone(&self.troubles)
    }

    fn apply(&mut self, resources: &Resources, ctx: &mut Context<Self>) -> bool {
        let mut is_done = true;
        if let Err(error) = self.ground.journals.add(&journal::paths(&resources.gateways)) {
            tracing::error!(%error, "new paths cannot be kept yet; it is tried again");
            is_done = false;
        }
        let closed = self.directory.apply(&resources.gateways, &self.ground.journals);
        if let Some(mqtt) = &self.ground.mqtt
            && let Err(error) = mqtt.apply(resources)
        {
            tracing::error!(%error, "the MQTT server goes on as it was");
            is_done = false;
        }
        for gateway in &resources.gateways {
            if !self.gateways.contains_key(&gateway.id) {
                self.start_gateway(self.gateways.len(), gateway.id.clone());
            }
        }
        self.apply_chains(plan::plan(resources), ctx);
        self.gateways.retain(|id, _| resources.gateways.iter().any(|gateway| gateway.id == *id));
        self.workers.close(closed);
        let triggers: HashMap<&Id, usize> =
            resources.triggers.iter().map(|trigger| (&trigger.id, trigger.actions.len())).collect();
        ACTIONS.keep(|(trigger, number)| triggers.get(trigger).is_some_and(|actions| number < actions));
        is_done
    }

    fn apply_chains(&mut self, plans: Vec<ChainPlan>, ctx: &mut Context<Self>) {
        self.wanted = plans.iter().map(|plan| plan.source.clone()).collect();
        let mut plans: HashMap<String, ChainPlan> =
            plans.into_iter().map(|plan| (plan.name(), plan)).collect();
        self.waiting.retain(|waiting| {
            self.troubles.remove(&waiting.name());
            false
        });
        for mut chain in std::mem::take(&mut self.chains) {
            let plan = plans.remove(&chain.plan().name());
            match plan {
                Some(plan) if chain.is_alive() && chain.can_become(&self.ground, &plan) => {
                    let gateways = &self.gateways;
                    match chain.rewire(&self.ground, plan.clone(), |id| gateways.get(id).cloned()) {
                        Ok(()) => self.chains.push(chain),
                        Err(error) => {
                            self.report(&plan, &error);
                            self.leave(chain, Some(plan), ctx);
                        }
                    }
                }
                plan => self.leave(chain, plan, ctx),
            }
        }
        for plan in plans.into_values() {
            if self.is_leaving(&plan) {
                self.waiting.push(plan);
            } else {
                self.start_or_wait(plan);
            }
        }
        self.unlink();
    }

    fn is_leaving(&self, plan: &ChainPlan) -> bool {
        let name = plan.name();
        self.leaving.iter().any(|(leaving, _)| *leaving == name)
    }

    /// What nobody will read any more is not refused for want of a reader.
    fn unlink(&self) {
        if let Some(mqtt) = &self.ground.mqtt {
            mqtt.forget_closed(|topics| self.wanted.contains(&TriggerSource::Mqtt(topics.clone())));
        }
    }

    /// Ends a chain; what is to take its place is started when it has ended.
    fn leave(&mut self, chain: Chain, heir: Option<ChainPlan>, ctx: &mut Context<Self>) {
        let source = chain.plan().name();
        self.ground.readiness.forget(&source);
        let chain = Arc::new(chain);
        self.leaving.push((source.clone(), Arc::clone(&chain)));
        // However long it takes: a source that is not heard out would go on beside its heir.
        let stop = chain.stop(if heir.is_some() { Ending::HandOver } else { Ending::Forget });
        self.waiting.extend(heir);
        let late = source.clone();
        let warn = ctx.run_later(PATIENCE, move |_, _| {
            tracing::warn!(source = %late, "a source does not end in time; what is to take its place waits");
        });
        ctx.spawn(stop.into_actor(self).map(move |_, supervisor, ctx| {
            ctx.cancel_future(warn);
            supervisor.leaving.retain(|(_, leaving)| !Arc::ptr_eq(leaving, &chain));
            let waiting = std::mem::take(&mut supervisor.waiting);
            let (heirs, others): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|plan| plan.name() == source);
            supervisor.waiting = others;
            let is_wanted = !heirs.is_empty();
            heirs.into_iter().for_each(|plan| supervisor.start_or_wait(plan));
            let heir = supervisor.chains.iter().find(|chain| chain.plan().name() == source);
            if heir.is_some() || !is_wanted {
                let kept = heir.map(Chain::actions).unwrap_or_default();
                let gone = chain.actions().into_iter().filter(|action| !kept.contains(action));
                chain::retire(&supervisor.ground, gone.collect());
            }
            supervisor.unlink();
        }));
    }

    fn start_or_wait(&mut self, plan: ChainPlan) {
        match self.start_chain(self.chains.len(), plan.clone()) {
            Ok(chain) => {
                self.troubles.remove(&plan.name());
                self.chains.push(chain);
            }
            Err(error) => {
                self.report(&plan, &error);
                self.waiting.push(plan);
            }
        }
    }

    fn report(&self, plan: &ChainPlan, error: &ChainError) {
        let words = format!("failed to {error}");
        if self.troubles.insert(plan.name(), words.clone()).is_none_or(|known| known != words) {
            tracing::warn!(source = %plan.name(), %error, "a source cannot run; it is tried again");
        }
    }

    /// Sources that run.
    pub fn sources(&self) -> usize {
        self.chains.len()
    }

    fn start_gateway(&mut self, number: usize, id: Id) {
        let arbiter = &self.ground.arbiters[number % self.ground.arbiters.len()];
        let (directory, workers) = (Arc::clone(&self.directory), Arc::clone(&self.workers));
        let gateway_id = id.clone();
        let gateway = GatewayActor::start_in_arbiter(arbiter, move |_| {
            GatewayActor::new(gateway_id, directory, workers)
        });
        self.gateways.insert(id, gateway);
    }

    fn start_chain(&self, number: usize, plan: ChainPlan) -> Result<Chain, ChainError> {
        Chain::start(&self.ground, number, plan, |id| self.gateways.get(id).cloned())
    }

    /// Starts again what has ended: gateways, and chains that have lost an actor or their gateway.
    fn watch(&mut self) {
        let dead: Vec<Id> = self
            .gateways
            .iter()
            .filter(|(_, gateway)| !gateway.connected())
            .map(|(id, _)| id.clone())
            .collect();
        for id in &dead {
            tracing::error!(gateway = %id, "the gateway's actor has ended; it starts again");
            METRICS.count_restart("GatewayActor");
            self.start_gateway(0, id.clone());
        }
        let keeps = |chain: &Chain| chain.is_alive() && !dead.iter().any(|gateway| chain.targets(gateway));
        let (alive, ended): (Vec<_>, Vec<_>) = std::mem::take(&mut self.chains).into_iter().partition(keeps);
        self.chains = alive;
        for chain in &ended {
            tracing::error!(source = %chain.plan().name(), "an actor of this source has ended; the source starts again");
            METRICS.count_restart("SourceActor");
            self.waiting.push(chain.plan().clone());
        }
        // Starting a chain asks the journal, which does not answer while it cannot write.
        let writes = |disk: &Arc<Disk>| *disk.health().borrow() == Health::Writing;
        let can_start = self.ground.journals.disk().is_none_or(writes);
        if can_start {
            let waiting = std::mem::take(&mut self.waiting);
            let (others, free): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|plan| self.is_leaving(plan));
            self.waiting = others;
            free.into_iter().for_each(|plan| self.start_or_wait(plan));
        }
        // After the new ones are there, so that there is no moment in which nobody wants the events.
        for chain in &ended {
            let name = chain.plan().name();
            chain.abandon(self.chains.iter().any(|successor| successor.plan().name() == name));
        }
    }
}

impl Actor for SupervisorActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(WATCH, |supervisor, _| {
            telemetry::contain("SupervisorActor", || supervisor.watch());
        });
    }
}

impl Handler<Apply> for SupervisorActor {
    type Result = bool;

    fn handle(&mut self, Apply(resources): Apply, ctx: &mut Self::Context) -> bool {
        telemetry::contain("SupervisorActor", || self.apply(&resources, ctx)).unwrap_or(false)
    }
}

impl Handler<StopAll> for SupervisorActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: StopAll, ctx: &mut Self::Context) -> Self::Result {
        ctx.stop();
        let mqtt = self.ground.mqtt.clone();
        let mut chains: Vec<_> = std::mem::take(&mut self.chains).into_iter().map(Arc::new).collect();
        chains.extend(std::mem::take(&mut self.leaving).into_iter().map(|(_, chain)| chain));
        let gateways: Vec<_> = self.gateways.values().cloned().collect();
        Box::pin(async move {
            // First the publishers: while they wait for acknowledgements the chains must still run.
            if let Some(mqtt) = mqtt {
                mqtt.stop(MQTT_PATIENCE).await;
            }
            let sources = join_all(chains.iter().map(|chain| chain.stop(Ending::Stop)));
            if tokio::time::timeout(PATIENCE, sources).await.is_err() {
                tracing::warn!("a source did not end in time");
            }
            let flushes = join_all(gateways.iter().map(|gateway| gateway.send(Flush)));
            if tokio::time::timeout(PATIENCE, flushes).await.is_err() {
                tracing::warn!("a gateway did not hand over its batches in time");
            }
        })
    }
}
