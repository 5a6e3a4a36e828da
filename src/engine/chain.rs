//! Starts everything that one source needs, the last actor first.

use std::sync::Arc;

use actix::prelude::*;
use tokio::runtime::Handle;

use super::plan::{ChainPlan, Place};
use crate::batch::BatchActor;
use crate::gateway::GatewayActor;
use crate::model::id::Id;
use crate::mqtt;
use crate::source::actor::{SourceActor, Stop};
use crate::source::embedded::EmbeddedSource;
use crate::source::mqtt::MqttSource;
use crate::source::readiness::Readiness;
use crate::source::{Source, mqtt as source_mqtt};

/// Groups of events that may wait between a source's task and its actor.
pub const SOURCE_QUEUE: usize = 64;

/// What chains are made of and lean on.
pub struct Ground {
    /// The embedded MQTT server, if there is one.
    pub mqtt: Option<Arc<mqtt::Server>>,
    /// Where the clients of external brokers run.
    pub runtime: Handle,
    /// The name that external brokers know this process by.
    pub node: String,
    /// Told about every source.
    pub readiness: Arc<Readiness>,
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
    /// An action's gateway does not run.
    #[error("find the gateway '{0}'")]
    NoGateway(Id),
}

/// A running source with its batches.
#[derive(Debug)]
pub struct Chain {
    plan: ChainPlan,
    source: Addr<SourceActor>,
    batches: Vec<Addr<BatchActor>>,
}

impl Chain {
    /// Starts the batches and then the source that feeds them, all on the arbiter with this number.
    pub fn start(
        ground: &Ground,
        number: usize,
        plan: ChainPlan,
        gateway: impl Fn(&Id) -> Option<Addr<GatewayActor>>,
    ) -> Result<Self, ChainError> {
        let gateways = plan
            .batches
            .iter()
            .map(|batch| {
                gateway(&batch.target.gateway_id)
                    .ok_or(ChainError::NoGateway(batch.target.gateway_id.clone()))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let source = open(ground, &plan)?;
        let name = plan.source.to_string();
        ground.readiness.watch(name, source.condition());
        let arbiter = &ground.arbiters[number % ground.arbiters.len()];
        let batches: Vec<_> = plan
            .batches
            .iter()
            .cloned()
            .zip(gateways)
            .map(|(batch, gateway)| {
                BatchActor::start_in_arbiter(arbiter, move |_| {
                    BatchActor::new(batch.trigger, batch.settings, batch.target, gateway.recipient())
                })
            })
            .collect();
        let fed = batches.clone();
        let source = SourceActor::start_in_arbiter(arbiter, move |_| SourceActor::new(source, fed));
        Ok(Self { plan, source, batches })
    }

    /// Whether all actors live.
    pub fn is_alive(&self) -> bool {
        self.source.connected() && self.batches.iter().all(Addr::connected)
    }

    /// What the chain was started from.
    pub fn into_plan(self) -> ChainPlan {
        self.plan
    }

    /// Asks the source to end. Awaiting the request waits until everything taken is with the gateways.
    pub fn stop(&self) -> Request<SourceActor, Stop> {
        self.source.send(Stop)
    }
}

fn open(ground: &Ground, plan: &ChainPlan) -> Result<Box<dyn Source>, ChainError> {
    Ok(match &plan.place {
        Place::Embedded => {
            let server = ground.mqtt.as_ref().ok_or(ChainError::NoServer)?;
            Box::new(EmbeddedSource::new(server.link(&plan.source, SOURCE_QUEUE)?))
        }
        Place::External { broker, aliases } => {
            let spec = source_mqtt::MqttSourceSpec::new(&plan.source, broker, aliases, &ground.node);
            Box::new(MqttSource::start(spec, &ground.runtime))
        }
    })
}
