//! Starts everything that one source needs, the last actor first.

use std::sync::Arc;

use actix::prelude::*;
use tokio::runtime::Handle;

use super::plan::{BatchPlan, ChainPlan, Place};
use crate::batch::{BatchActor, Drain};
use crate::container_registry::{LinkError, Registries};
use crate::gateway::GatewayActor;
use crate::journal::disk::ActionId;
use crate::journal::{Journals, ReadError};
use crate::model::id::Id;
use crate::model::trigger::TriggerSource;
use crate::mqtt;
use crate::source::actor::{Log, SourceActor, Stop};
use crate::source::embedded::EmbeddedSource;
use crate::source::mqtt::MqttSource;
use crate::source::readiness::Readiness;
use crate::source::registry::RegistrySource;
use crate::source::{Source, mqtt as source_mqtt};

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
    /// An action's gateway does not run.
    #[error("find the gateway '{0}'")]
    NoGateway(Id),
}

/// A running source with its batches.
#[derive(Debug)]
pub struct Chain {
    plan: ChainPlan,
    source: Addr<SourceActor>,
    pub(super) batches: Vec<Addr<BatchActor>>,
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
        // What it still hands over must have reached the journal before the journal is asked what it has.
        if let (TriggerSource::ContainerRegistry { .. }, Some(registries)) =
            (&plan.source, &ground.registries)
        {
            registries.end_link(&plan.source)?;
        }
        let (log, standings) = journal(ground, &plan)?;
        let source = open(ground, &plan, log.as_ref())?;
        let name = plan.source.to_string();
        ground.readiness.watch(name, source.condition());
        let arbiter = &ground.arbiters[number % ground.arbiters.len()];
        let batches: Vec<_> = plan
            .batches
            .iter()
            .cloned()
            .zip(gateways)
            .zip(standings)
            .map(|((batch, gateway), (action, next))| {
                BatchActor::start_in_arbiter(arbiter, move |_| {
                    let BatchPlan { trigger, settings, target, .. } = batch;
                    BatchActor::new(trigger, settings, target, gateway.recipient(), action, next)
                })
            })
            .collect();
        let fed = batches.clone();
        let source = SourceActor::start_in_arbiter(arbiter, move |_| SourceActor::new(source, fed, log));
        Ok(Self { plan, source, batches })
    }

    /// Whether all actors live.
    pub fn is_alive(&self) -> bool {
        self.source.connected() && self.batches.iter().all(Addr::connected)
    }

    /// What the chain was started from.
    pub fn plan(&self) -> &ChainPlan {
        &self.plan
    }

    /// Ends what still lives of it: the source takes nothing new, open batches go out.
    pub fn abandon(&self) {
        // Not a request: dropping one would cancel it. The mailboxes of these actors are empty or nearly so.
        self.source.do_send(Stop);
        self.batches.iter().for_each(|batch| batch.do_send(Drain));
    }

    /// Whether one of its batches goes to this gateway.
    pub fn targets(&self, gateway: &Id) -> bool {
        self.plan.batches.iter().any(|batch| batch.target.gateway_id == *gateway)
    }

    /// Asks the source to end. Awaiting the request waits until everything taken is with the gateways.
    pub fn stop(&self) -> Request<SourceActor, Stop> {
        self.source.send(Stop)
    }
}

/// An action in the journal, if its path is on disk, and the offset it begins with.
type Standing = (Option<ActionId>, u64);

/// What the journal knows of a chain: where its source's events are written, and what each action has not had.
fn journal(ground: &Ground, plan: &ChainPlan) -> Result<(Option<Log>, Vec<Standing>), ChainError> {
    let on_disk = |batch: &BatchPlan| ground.journals.is_on_disk(&batch.target);
    let disk = ground.journals.disk().filter(|_| plan.batches.iter().any(on_disk));
    let Some(disk) = disk else { return Ok((None, vec![(None, 0); plan.batches.len()])) };
    let source = disk.source(&plan.source.to_string())?;
    // For paths in memory: what came before this start is gone.
    let now = disk.flushed(source)?;
    let place = |batch: &BatchPlan| -> Result<Standing, ChainError> {
        if !on_disk(batch) {
            return Ok((None, now));
        }
        let action = disk.action(&batch.trigger, batch.number, source, &batch.target)?;
        Ok((Some(action), disk.cursor(action)))
    };
    let places = plan.batches.iter().map(place).collect::<Result<Vec<_>, _>>()?;
    let from = places.iter().map(|(_, next)| *next).min().unwrap_or(now);
    let is_mixed = places.iter().any(|(action, _)| action.is_none());
    Ok((Some(Log { disk: Arc::clone(disk), source, from, is_mixed }), places))
}

fn open(ground: &Ground, plan: &ChainPlan, log: Option<&Log>) -> Result<Box<dyn Source>, ChainError> {
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
    use crate::gateway::{Directory, Workers};
    use crate::model::Resources;
    use crate::model::gateway::{Gateway, GatewayPath, PathKey};
    use crate::model::iot::DeviceRegistry;
    use crate::model::trigger::{Action, BatchSettings, MqttTopics, Trigger};
    use crate::mqtt::Limits;

    fn resources() -> Resources {
        let path = GatewayPath::new("/ws");
        let source =
            MqttTopics::IotMessage { registry_id: "factory".into(), device_id: None, mqtt_topic: None };
        let source = TriggerSource::Mqtt(source);
        let target = PathKey { gateway_id: "main".into(), path: "/ws".into() };
        let action = Action::GatewayWebsocketBroadcast { target, service_account_id: "sa".into() };
        Resources {
            gateways: vec![Gateway {
                id: "main".into(),
                domain: None,
                allowed_origins: vec![],
                paths: vec![path],
            }],
            device_registries: vec![DeviceRegistry {
                id: "factory".into(),
                password: None,
                devices: vec![],
                external: None,
            }],
            triggers: vec![Trigger {
                name: "all".into(),
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
            readiness: Arc::default(),
            arbiters: vec![Arbiter::current()],
        };
        let directory = Arc::new(Directory::new(&resources.gateways, 1, &ground.journals));
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
        let batch = supervisor.chains[0].batches[0].clone();
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
