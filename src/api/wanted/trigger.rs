//! One trigger of the store, as the engine knows it, or what is wrong with it.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::config::rules;
use crate::model::Resources;
use crate::model::container::{ContainerEventType, ContainerFilter};
use crate::model::gateway::{Gateway, MAX_MESSAGE_BYTES, PathKey};
use crate::model::id::Id;
use crate::model::iot::{Broker, DeviceRegistry};
use crate::model::trigger::{
    Action, BatchSettings, DEFAULT_COUNT, DEFAULT_CUTOFF, MAX_CUTOFF, MqttTopics, PayloadEncoding, Steps,
    Trigger, TriggerSource,
};
use crate::proto::types::triggercast::v1::PayloadEncoding as Encoding;
use crate::proto::types::yandex::cloud::serverless::triggers::v2::action::Action as Kind;
use crate::proto::types::yandex::cloud::serverless::triggers::v2::filter::Condition;
use crate::proto::types::yandex::cloud::serverless::triggers::v2::source::Source;
use crate::proto::types::yandex::cloud::serverless::triggers::v2::transformer::Transformer;
use crate::proto::types::yandex::cloud::serverless::triggers::v2::{
    self as v2, BatchSettings as Batch, ContainerRegistryEventType,
};

/// What is wrong with fields.
type Faults = Vec<(String, String)>;

/// What triggers refer to, by id.
pub(super) struct Index<'a> {
    gateways: HashMap<&'a str, &'a Gateway>,
    registries: HashMap<&'a str, &'a DeviceRegistry>,
    brokers: HashMap<&'a str, &'a Broker>,
    container_registries: BTreeSet<&'a str>,
}

impl<'a> Index<'a> {
    pub(super) fn new(resources: &'a Resources) -> Self {
        Self {
            gateways: resources.gateways.iter().map(|gateway| (&*gateway.id, gateway)).collect(),
            registries: resources
                .device_registries
                .iter()
                .map(|registry| (&*registry.id, registry))
                .collect(),
            brokers: resources.brokers.iter().map(|broker| (&*broker.id, broker)).collect(),
            container_registries: resources
                .container_registries
                .iter()
                .map(|registry| &*registry.id)
                .collect(),
        }
    }
}

/// What is wrong with a trigger, as things stand: `resources` are those of file and store.
pub(in crate::api) fn faults(resources: &Resources, trigger: &v2::Trigger, has_mqtt: bool) -> Faults {
    build(trigger, &Index::new(resources), has_mqtt).err().unwrap_or_default()
}

/// The programs of an action, with the names of their fields.
pub(in crate::api) fn programs(action: &v2::Action) -> Vec<(&'static str, &str)> {
    let filter = match action.filter.as_ref().and_then(|filter| filter.condition.as_ref()) {
        Some(Condition::Jq(program)) if !program.is_empty() => Some(("filter", program.as_str())),
        _ => None,
    };
    let transformer = match action.transformer.as_ref().and_then(|step| step.transformer.as_ref()) {
        Some(Transformer::Jq(program)) if !program.is_empty() => Some(("transformer", program.as_str())),
        _ => None,
    };
    filter.into_iter().chain(transformer).collect()
}

/// What an action does to events before they come into a batch.
pub(in crate::api) fn steps(action: &v2::Action) -> Steps {
    let mut steps = Steps {
        payload: match action.payload_encoding() {
            Encoding::Text => PayloadEncoding::Text,
            Encoding::Json => PayloadEncoding::Json,
            Encoding::Base64 | Encoding::Unspecified => PayloadEncoding::Base64,
        },
        ..Steps::default()
    };
    for (field, program) in programs(action) {
        let place = if field == "filter" { &mut steps.filter } else { &mut steps.transformer };
        *place = Some(program.into());
    }
    steps
}

pub(super) fn build(trigger: &v2::Trigger, index: &Index<'_>, has_mqtt: bool) -> Result<Trigger, Faults> {
    let mut faults = Vec::new();
    let source = source(trigger.source.as_ref(), index, has_mqtt, &mut faults);
    let actions: Vec<Action> = trigger
        .action
        .iter()
        .enumerate()
        .filter_map(|(number, action)| self::action(action, number, index, &mut faults))
        .collect();
    if actions.is_empty() && faults.is_empty() {
        faults.push(("action".to_owned(), "At least one action is needed".to_owned()));
    }
    match source {
        Some((source, batch)) if faults.is_empty() => Ok(Trigger {
            id: trigger.id.as_str().into(),
            name: trigger.name.as_str().into(),
            pause: None,
            source,
            batch,
            actions,
        }),
        _ => Err(faults),
    }
}

fn some(text: &str) -> Option<Id> {
    (!text.is_empty()).then(|| Id::from(text))
}

fn source(
    source: Option<&v2::Source>,
    index: &Index<'_>,
    has_mqtt: bool,
    faults: &mut Faults,
) -> Option<(TriggerSource, BatchSettings)> {
    const OURS: &str = "This server has the sources iot_message, iot_broker_message and container_registry";
    let mut fault = |field: &str, what: String| faults.push((format!("source.{field}"), what));
    let no_mqtt = || "It lives on the embedded MQTT server, which is off".to_owned();
    match source.and_then(|source| source.source.as_ref()) {
        Some(Source::IotMessage(source)) => {
            let batch = batch(source.batch_settings.as_ref(), "iot_message", &mut fault);
            let Some(registry) = index.registries.get(&*source.registry_id) else {
                let what = format!("There is no device registry '{}'", source.registry_id);
                fault("iot_message.registry_id", what);
                return None;
            };
            if registry.external.is_none() && !has_mqtt {
                fault("iot_message.registry_id", no_mqtt());
            }
            let device_id = some(&source.device_id);
            if let Some(device) = &device_id
                && !registry.devices.iter().any(|known| known.id == *device)
            {
                let what = format!("There is no device '{device}' in the registry '{}'", registry.id);
                fault("iot_message.device_id", what);
                return None;
            }
            let mqtt_topic = some(&source.mqtt_topic);
            if let Some(topic) = &mqtt_topic
                && let Err(what) = rules::check_registry_filter(topic, registry, device_id.as_deref())
            {
                fault("iot_message.mqtt_topic", format!("{topic:?} {what}"));
            }
            let registry_id = registry.id.clone();
            let topics = MqttTopics::IotMessage { registry_id, device_id, mqtt_topic };
            Some((TriggerSource::Mqtt(topics), batch))
        }
        Some(Source::IotBrokerMessage(source)) => {
            let batch = batch(source.batch_settings.as_ref(), "iot_broker_message", &mut fault);
            let Some(broker) = index.brokers.get(&*source.broker_id) else {
                fault("iot_broker_message.broker_id", format!("There is no broker '{}'", source.broker_id));
                return None;
            };
            if broker.external.is_none() && !has_mqtt {
                fault("iot_broker_message.broker_id", no_mqtt());
            }
            let mqtt_topic = some(&source.mqtt_topic);
            if let Some(topic) = &mqtt_topic
                && let Err(what) = rules::check_broker_filter(topic)
            {
                fault("iot_broker_message.mqtt_topic", format!("{topic:?} {what}"));
            }
            let topics = MqttTopics::IotBrokerMessage { broker_id: broker.id.clone(), mqtt_topic };
            Some((TriggerSource::Mqtt(topics), batch))
        }
        Some(Source::ContainerRegistry(source)) => {
            let batch = batch(source.batch_settings.as_ref(), "container_registry", &mut fault);
            let Some(registry) = index.container_registries.get(&*source.registry_id) else {
                let what = format!(
                    "There is no container registry '{}'; they are declared in the configuration file",
                    source.registry_id
                );
                fault("container_registry.registry_id", what);
                return None;
            };
            let mut event_types = BTreeSet::new();
            for kind in source.event_type() {
                event_types.insert(match kind {
                    ContainerRegistryEventType::CreateImage => ContainerEventType::CreateImage,
                    ContainerRegistryEventType::DeleteImage => ContainerEventType::DeleteImage,
                    ContainerRegistryEventType::CreateImageTag => ContainerEventType::CreateImageTag,
                    ContainerRegistryEventType::DeleteImageTag => ContainerEventType::DeleteImageTag,
                    ContainerRegistryEventType::Unspecified => {
                        fault("container_registry.event_type", "Not a type of events".to_owned());
                        continue;
                    }
                });
            }
            let (image_name, tag) = (some(&source.image_name), some(&source.tag));
            if let Some(Err(what)) = image_name.as_deref().map(rules::check_image_name) {
                fault("container_registry.image_name", format!("{:?} {what}", source.image_name));
            }
            if let Some(Err(what)) = tag.as_deref().map(rules::check_tag) {
                fault("container_registry.tag", format!("{:?} {what}", source.tag));
            }
            let filter = ContainerFilter { event_types, image_name, tag };
            let source = TriggerSource::ContainerRegistry { registry_id: Id::from(*registry), filter };
            Some((source, batch))
        }
        Some(_) => {
            faults.push(("source".to_owned(), OURS.to_owned()));
            None
        }
        None => {
            faults.push(("source".to_owned(), format!("Exactly one source is needed. {OURS}")));
            None
        }
    }
}

fn batch(settings: Option<&Batch>, kind: &str, fault: &mut impl FnMut(&str, String)) -> BatchSettings {
    let Some(settings) = settings else { return BatchSettings::default() };
    let given = |number: i64, default: usize| {
        usize::try_from(number).ok().filter(|number| *number > 0).unwrap_or(default)
    };
    let cutoff = settings.cutoff.unwrap_or_default();
    let cutoff = Duration::try_from(cutoff).unwrap_or(Duration::MAX);
    if cutoff > MAX_CUTOFF {
        let shown = settings.cutoff.unwrap_or_default();
        let what = format!("Value must be 0s to {}s, not {shown}", MAX_CUTOFF.as_secs());
        fault(&format!("{kind}.batch_settings.cutoff"), what);
    }
    BatchSettings {
        max_count: given(settings.max_count, DEFAULT_COUNT),
        max_bytes: given(settings.max_bytes, MAX_MESSAGE_BYTES),
        cutoff: if cutoff.is_zero() { DEFAULT_CUTOFF } else { cutoff },
    }
}

fn action(action: &v2::Action, number: usize, index: &Index<'_>, faults: &mut Faults) -> Option<Action> {
    let at = format!("action[{number}]");
    let mut fault = |field: &str, what: String| faults.push((format!("{at}{field}"), what));
    if action.retry_policy.is_some() {
        fault(
            ".retry_policy",
            "A broadcast is not tried again: what clients miss they get by last_event_id".into(),
        );
    }
    if action.dead_letter.is_some() {
        fault(".dead_letter", "A broadcast has no dead letters".into());
    }
    let Some(Kind::GatewayWebsocketBroadcast(broadcast)) = &action.action else {
        let what =
            "Exactly one action is needed, and gateway_websocket_broadcast is the one that this server has";
        fault("", what.into());
        return None;
    };
    let Some(gateway) = index.gateways.get(&*broadcast.gateway_id) else {
        let what = format!("There is no gateway '{}'", broadcast.gateway_id);
        fault(".gateway_websocket_broadcast.gateway_id", what);
        return None;
    };
    if !gateway.paths.iter().any(|path| path.path == broadcast.path) {
        let known =
            gateway.paths.iter().take(6).map(|path| path.path.as_str()).collect::<Vec<_>>().join(", ");
        let what =
            format!("{:?} is not a path of the gateway '{}'; its paths: {known}", broadcast.path, gateway.id);
        fault(".gateway_websocket_broadcast.path", what);
        return None;
    }
    Some(Action::GatewayWebsocketBroadcast {
        target: PathKey { gateway_id: gateway.id.clone(), path: broadcast.path.as_str().into() },
        service_account_id: broadcast.service_account_id.as_str().into(),
        steps: steps(action),
    })
}
