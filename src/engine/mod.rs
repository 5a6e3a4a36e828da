//! Makes what is wanted run: [`SupervisorActor`] and the chains it keeps alive.
//!
//! The supervisor starts the GatewayActors and one chain for each source, looks every [`WATCH`] whether
//! all of them live, and starts again what has ended. The server sends it [`StopAll`]; its mailbox is
//! actix's default, 16 messages, and the server waits.

pub mod chain;
pub mod plan;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::join_all;

use self::chain::{Chain, ChainError, Ground};
use self::plan::ChainPlan;
use crate::gateway::{Directory, Flush, GatewayActor, Workers};
use crate::journal::disk::{Disk, Health};
use crate::model::Resources;
use crate::model::id::Id;
use crate::telemetry::{self, METRICS};

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
    /// Chains that ended and could not be started again yet.
    waiting: Vec<ChainPlan>,
}

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
        };
        for (number, gateway) in resources.gateways.iter().enumerate() {
            supervisor.start_gateway(number, gateway.id.clone());
        }
        for (number, plan) in plan::plan(resources).into_iter().enumerate() {
            let chain = supervisor.start_chain(number, plan)?;
            supervisor.chains.push(chain);
        }
        Ok(supervisor)
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
            tracing::error!(source = %chain.plan().source, "an actor of this source has ended; the source starts again");
            METRICS.count_restart("SourceActor");
            self.waiting.push(chain.plan().clone());
        }
        // Starting a chain asks the journal, which does not answer while it cannot write.
        let writes = |disk: &Arc<Disk>| *disk.health().borrow() == Health::Writing;
        let can_start = self.ground.journals.disk().is_none_or(writes);
        let waiting = if can_start { std::mem::take(&mut self.waiting) } else { Vec::new() };
        for (number, plan) in waiting.into_iter().enumerate() {
            match self.start_chain(number, plan.clone()) {
                Ok(chain) => self.chains.push(chain),
                Err(error) => {
                    tracing::debug!(source = %plan.source, %error, "failed to start the source again");
                    self.waiting.push(plan);
                }
            }
        }
        // After the new ones are there, so that there is no moment in which nobody wants the events.
        ended.iter().for_each(Chain::abandon);
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

impl Handler<StopAll> for SupervisorActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: StopAll, ctx: &mut Self::Context) -> Self::Result {
        ctx.stop();
        let mqtt = self.ground.mqtt.clone();
        let chains = std::mem::take(&mut self.chains);
        let gateways: Vec<_> = self.gateways.values().cloned().collect();
        Box::pin(async move {
            // First the publishers: while they wait for acknowledgements the chains must still run.
            if let Some(mqtt) = mqtt {
                mqtt.stop(MQTT_PATIENCE).await;
            }
            let sources = join_all(chains.iter().map(Chain::stop));
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
