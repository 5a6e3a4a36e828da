//! Starts everything that one source needs, the last actor first.

use std::sync::Arc;

use actix::prelude::*;
use tokio::runtime::Handle;

use super::plan::{ChainPlan, Place};
use crate::batch::{BatchActor, Drain};
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

fn open(ground: &Ground, plan: &ChainPlan) -> Result<Box<dyn Source>, ChainError> {
    Ok(match &plan.place {
        Place::Embedded => {
            let server = ground.mqtt.as_ref().ok_or(ChainError::NoServer)?;
            Box::new(EmbeddedSource::new(server.link(&plan.source, SOURCE_QUEUE)?))
        }
        Place::External { broker, aliases, devices } => {
            let spec = source_mqtt::MqttSourceSpec::new(&plan.source, broker, aliases, &ground.node);
            Box::new(MqttSource::start(spec.of_devices(devices), &ground.runtime))
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
    use crate::model::trigger::{Action, BatchSettings, Trigger, TriggerSource};
    use crate::mqtt::Limits;

    fn resources() -> Resources {
        let path = GatewayPath { path: "/ws".into(), backlog_bytes: 1 << 20 };
        let source =
            TriggerSource::IotMessage { registry_id: "factory".into(), device_id: None, mqtt_topic: None };
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
            runtime: Handle::current(),
            node: "test".into(),
            readiness: Arc::default(),
            arbiters: vec![Arbiter::current()],
        };
        let directory = Arc::new(Directory::new(&resources.gateways, 1));
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
