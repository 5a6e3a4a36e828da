//! What has to run for the triggers that are wanted. Pure; used by the engine.

use std::collections::BTreeMap;

use crate::model::Resources;
use crate::model::gateway::PathKey;
use crate::model::id::Id;
use crate::model::iot::{Alias, ExternalBroker};
use crate::model::trigger::{Action, BatchSettings, MqttTopics, Pause, Steps, Trigger, TriggerSource};

/// A source and everything that hangs on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainPlan {
    /// What is read.
    pub source: TriggerSource,
    /// What is made of it first, for one action; it is read from the journal then.
    pub made: Option<Made>,
    /// Where it is read.
    pub place: Place,
    /// One entry for each action of each trigger with this source, in the order of the triggers.
    pub batches: Vec<BatchPlan>,
}

/// Events that are made of others, for one action of a trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The trigger's id.
    pub trigger: Id,
    /// Which of its actions this is, counted from 0.
    pub number: usize,
    /// What is done to every event.
    pub steps: Steps,
}

impl ChainPlan {
    /// What the journal and people know it by; the same for the same only.
    pub fn name(&self) -> String {
        match &self.made {
            Some(made) => made_name(&made.trigger, made.number, &self.source),
            None => self.source.to_string(),
        }
    }
}

/// The name of what one action makes of its source.
fn made_name(trigger: &Id, number: usize, source: &TriggerSource) -> String {
    format!("{trigger}#{number} of {source}")
}

/// The name of the chain that batches for this action of a trigger, as [`ChainPlan::name`] gives it.
pub fn source_name(trigger: &Trigger, number: usize) -> String {
    match trigger.actions.get(number) {
        Some(Action::GatewayWebsocketBroadcast { steps, .. }) if !steps.is_none() => {
            made_name(&trigger.id, number, &trigger.source)
        }
        _ => trigger.source.to_string(),
    }
}

/// Where a source's topics are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In this process: on the embedded MQTT server, or where the events of container registries wait.
    Embedded,
    /// On an external broker.
    External {
        /// The broker.
        broker: ExternalBroker,
        /// Other names of device topics, to be told back to standard topics.
        aliases: Vec<Alias>,
        /// The devices whose topics are read.
        devices: Vec<Id>,
    },
}

/// One batch actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPlan {
    /// The trigger's id.
    pub trigger: Id,
    /// Which of its actions this is, counted from 0.
    pub number: usize,
    /// When its batches close.
    pub settings: BatchSettings,
    /// Where they go.
    pub target: PathKey,
    /// Whether nothing is batched for a while, and events are kept for later.
    pub is_held: bool,
    /// Whether another chain makes events of these first, and batches those.
    pub is_made: bool,
}

/// The chains for all triggers: one for each distinct source, and one for each action that makes other events first.
pub fn plan(resources: &Resources) -> Vec<ChainPlan> {
    let mut chains: BTreeMap<&TriggerSource, ChainPlan> = BTreeMap::new();
    let mut made = Vec::new();
    for trigger in resources.triggers.iter().filter(|trigger| trigger.pause != Some(Pause::Drop)) {
        let chain = chains.entry(&trigger.source).or_insert_with(|| ChainPlan {
            source: trigger.source.clone(),
            made: None,
            place: place(resources, &trigger.source),
            batches: Vec::new(),
        });
        for (number, action) in trigger.actions.iter().enumerate() {
            let Action::GatewayWebsocketBroadcast { target, steps, .. } = action;
            let batch = BatchPlan {
                trigger: trigger.id.clone(),
                number,
                settings: trigger.batch,
                target: target.clone(),
                is_held: trigger.pause.is_some(),
                is_made: !steps.is_none(),
            };
            if batch.is_made {
                made.push(ChainPlan {
                    source: trigger.source.clone(),
                    made: Some(Made { trigger: trigger.id.clone(), number, steps: steps.clone() }),
                    place: Place::Embedded,
                    batches: vec![BatchPlan { is_made: false, ..batch.clone() }],
                });
            }
            chain.batches.push(batch);
        }
    }
    chains.into_values().chain(made).collect()
}

fn place(resources: &Resources, source: &TriggerSource) -> Place {
    let (external, devices) = match source {
        TriggerSource::Mqtt(MqttTopics::IotMessage { registry_id, .. }) => {
            let registry = resources.device_registries.iter().find(|registry| registry.id == *registry_id);
            let devices = registry.map(|registry| registry.devices.as_slice()).unwrap_or_default();
            (registry.and_then(|registry| registry.external.clone()), devices)
        }
        TriggerSource::Mqtt(MqttTopics::IotBrokerMessage { broker_id, .. }) => {
            let broker = resources.brokers.iter().find(|broker| broker.id == *broker_id);
            (broker.and_then(|broker| broker.external.clone()), Default::default())
        }
        TriggerSource::ContainerRegistry { .. } => return Place::Embedded,
    };
    external.map_or(Place::Embedded, |broker| Place::External {
        broker,
        aliases: devices.iter().flat_map(|device| device.aliases.clone()).collect(),
        devices: devices.iter().map(|device| device.id.clone()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::iot::{Broker, DeviceRegistry};

    fn trigger(name: &str, source: &TriggerSource, paths: &[&str]) -> Trigger {
        let action = |path: &&str| Action::GatewayWebsocketBroadcast {
            target: PathKey { gateway_id: "main".into(), path: (*path).into() },
            service_account_id: "sa".into(),
            steps: Steps::default(),
        };
        Trigger {
            id: name.into(),
            name: name.into(),
            pause: None,
            source: source.clone(),
            batch: BatchSettings::default(),
            actions: paths.iter().map(action).collect(),
        }
    }

    #[test]
    fn triggers_with_the_same_source_share_it() {
        let topic = |topic: Option<&str>| {
            TriggerSource::Mqtt(MqttTopics::IotMessage {
                registry_id: "factory".into(),
                device_id: None,
                mqtt_topic: topic.map(Into::into),
            })
        };
        let plant = MqttTopics::IotBrokerMessage { broker_id: "plant".into(), mqtt_topic: None };
        let plant = TriggerSource::Mqtt(plant);
        let external = ExternalBroker { host: "h".into(), port: 1, credentials: None };
        let resources = Resources {
            device_registries: vec![DeviceRegistry {
                id: "factory".into(),
                passwords: vec![],
                certificates: vec![],
                devices: vec![],
                external: None,
            }],
            brokers: vec![Broker {
                id: "plant".into(),
                passwords: vec![],
                certificates: vec![],
                external: Some(external.clone()),
            }],
            triggers: vec![
                trigger("one", &topic(None), &["/a"]),
                trigger("two", &topic(Some("$devices/+/events")), &["/a"]),
                trigger("three", &topic(None), &["/b", "/c"]),
                trigger("four", &plant, &["/a"]),
            ],
            ..Resources::default()
        };
        let chains = plan(&resources);
        let shape: Vec<_> = chains
            .iter()
            .map(|chain| {
                (
                    chain.source.to_string(),
                    chain
                        .batches
                        .iter()
                        .map(|b| format!("{}{}", b.trigger, b.target.path))
                        .collect::<Vec<_>>(),
                )
            })
            .collect();
        assert_eq!(
            shape,
            [
                (
                    "factory (all topics)".to_owned(),
                    vec!["one/a".to_owned(), "three/b".into(), "three/c".into()]
                ),
                ("factory $devices/+/events".into(), vec!["two/a".into()]),
                ("plant (all topics)".into(), vec!["four/a".into()]),
            ]
        );
        let named: Vec<_> = resources.triggers.iter().map(|trigger| source_name(trigger, 0)).collect();
        for (name, of) in named.iter().zip([0, 1, 0, 2]) {
            assert_eq!(*name, chains[of].name());
        }
        assert_eq!(chains[0].place, Place::Embedded);
        assert_eq!(chains[2].place, Place::External { broker: external, aliases: vec![], devices: vec![] });
    }
}
