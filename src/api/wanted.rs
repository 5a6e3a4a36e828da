//! What should run: the resources of the configuration file and those of the store, as the engine knows them. Pure.

mod trigger;

use std::collections::HashMap;
use std::sync::Arc;

use self::trigger::Index;
pub(super) use self::trigger::{faults, programs, steps};
use super::authenticate::can_act;
use super::fault::Fault;
use super::resource::message;
use super::services::devices::login;
use super::{access, openapi};
use crate::config::rules;
use crate::model::Resources;
use crate::model::certificate::Certificate;
use crate::model::gateway::Gateway;
use crate::model::id::Id;
use crate::model::iot::{Alias, Broker, Device, DeviceRegistry};
use crate::model::secret::Password;
use crate::model::trigger::{Action, Pause, Trigger};
use crate::proto::types::triggercast::v1::OnPause;
use crate::proto::types::yandex::cloud::iot::devices::v1::{self as devices, registry};
use crate::proto::types::yandex::cloud::serverless::triggers::v2;
use crate::proto::types::yandex::cloud::serverless::triggers::v2::action::Action as Kind;
use crate::proto::types::yandex::cloud::serverless::triggers::v2::source::Source;
use crate::proto::types::yandex::cloud::serverless::triggers::v2::trigger::Status;
use crate::store::{Kind as Record, Origin, State};

/// What should run, and what cannot.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Everything.
    pub resources: Arc<Resources>,
    /// Why triggers cannot fire: one word for programs, and words for people.
    pub troubles: HashMap<Id, (&'static str, String)>,
    /// Where each trigger stands in `resources`.
    places: HashMap<Id, usize>,
}

impl Wanted {
    /// A trigger that should run.
    pub fn trigger(&self, id: &str) -> Option<&Trigger> {
        self.places.get(id).map(|place| &self.resources.triggers[*place])
    }
}

/// What should run, by the file and by the store.
pub fn wanted(of_file: &Resources, state: &State, has_mqtt: bool) -> Wanted {
    let mut resources = referents(of_file, state);
    let mut troubles = HashMap::new();
    let mut rights = Rights { state, known: HashMap::new() };
    let mut triggers = of_file.triggers.clone();
    for trigger in &mut triggers {
        let Some(why) = rights.silenced(trigger) else { continue };
        trigger.pause = Some(Pause::Hold);
        troubles.insert(trigger.id.clone(), why);
    }
    let index = Index::new(&resources);
    for record in stored(state, Record::Trigger) {
        let Ok(kept) = message::<v2::Trigger>(record) else { continue };
        match trigger::build(&kept, &index, has_mqtt) {
            Ok(mut trigger) => {
                let pause = match kept.on_pause() {
                    OnPause::Drop => Pause::Drop,
                    OnPause::Hold | OnPause::Unspecified => Pause::Hold,
                };
                if kept.status() == Status::Paused {
                    trigger.pause = Some(pause);
                } else if let Some(why) = rights.silenced(&trigger) {
                    trigger.pause = Some(pause);
                    troubles.insert(trigger.id.clone(), why);
                }
                triggers.push(trigger);
            }
            Err(faults) => {
                let words = faults.iter().map(|(field, what)| format!("{field}: {what}"));
                let words = words.collect::<Vec<_>>().join("; ");
                troubles.insert(record.id.clone(), ("INVALID", words));
            }
        }
    }
    let places = triggers.iter().map(|trigger| trigger.id.clone()).zip(0..).collect();
    resources.triggers = triggers;
    Wanted { resources: Arc::new(resources), troubles, places }
}

/// What triggers can refer to, without the triggers.
pub(super) fn referents(of_file: &Resources, state: &State) -> Resources {
    let gateways = stored(state, Record::Gateway).filter_map(|record| gateway(state, record));
    let belongings = Belongings {
        passwords: by_parent(state, Record::Password),
        certificates: by_parent(state, Record::Certificate),
        devices: by_parent(state, Record::Device),
    };
    let registries =
        stored(state, Record::DeviceRegistry).filter_map(|record| device_registry(&belongings, record));
    let brokers = stored(state, Record::Broker).map(|record| Broker {
        id: record.id.clone(),
        passwords: belongings.hashes(&record.id),
        certificates: belongings.certificates(&record.id),
        external: None,
    });
    Resources {
        gateways: of_file.gateways.iter().cloned().chain(gateways).collect(),
        device_registries: of_file.device_registries.iter().cloned().chain(registries).collect(),
        brokers: of_file.brokers.iter().cloned().chain(brokers).collect(),
        container_registries: of_file.container_registries.clone(),
        triggers: Vec::new(),
    }
}

fn stored(state: &State, kind: Record) -> impl Iterator<Item = &crate::store::Record> + '_ {
    state.all(kind).filter(|record| record.origin == Origin::Store)
}

/// Who may broadcast where, each asked once.
struct Rights<'a> {
    state: &'a State,
    known: HashMap<(Id, Id), Option<(&'static str, String)>>,
}

impl Rights<'_> {
    /// Why a trigger's account may not broadcast, if it may not.
    fn silenced(&mut self, trigger: &Trigger) -> Option<(&'static str, String)> {
        trigger.actions.iter().find_map(|action| {
            let Action::GatewayWebsocketBroadcast { target, service_account_id: account, .. } = action;
            let key = (account.clone(), target.gateway_id.clone());
            let known =
                self.known.entry(key).or_insert_with(|| forbids(self.state, account, &target.gateway_id));
            known.clone()
        })
    }
}

/// Why an account may not broadcast through a gateway, if it may not.
fn forbids(state: &State, account: &str, gateway: &str) -> Option<(&'static str, String)> {
    if !can_act(state, account) {
        let words = format!("the service account '{account}' does not exist, or is suspended");
        return Some(("NO_SERVICE_ACCOUNT", words));
    }
    if access::may_broadcast(state, account, gateway) {
        return None;
    }
    let words = format!(
        "the service account '{account}' may not broadcast through the gateway '{gateway}': it needs the role \
         api-gateway.websocketBroadcaster there, on its folder or on the cloud"
    );
    Some(("NO_PERMISSION", words))
}

fn gateway(state: &State, record: &crate::store::Record) -> Option<Gateway> {
    let gateway: crate::proto::types::yandex::cloud::serverless::apigateway::v1::ApiGateway =
        message(record).ok()?;
    let is_stopped = gateway.status()
        == crate::proto::types::yandex::cloud::serverless::apigateway::v1::api_gateway::Status::Stopped;
    Some(Gateway {
        id: record.id.clone(),
        domain: None,
        allowed_origins: Vec::new(),
        paths: openapi::kept(state, &record.id).to_vec(),
        is_stopped,
    })
}

/// Records by what they belong to.
fn by_parent(state: &State, kind: Record) -> HashMap<&str, Vec<&crate::store::Record>> {
    let mut by_parent: HashMap<&str, Vec<_>> = HashMap::new();
    for record in state.all(kind) {
        by_parent.entry(&record.parent).or_default().push(record);
    }
    by_parent
}

/// What belongs to registries and devices.
struct Belongings<'a> {
    passwords: HashMap<&'a str, Vec<&'a crate::store::Record>>,
    certificates: HashMap<&'a str, Vec<&'a crate::store::Record>>,
    devices: HashMap<&'a str, Vec<&'a crate::store::Record>>,
}

impl Belongings<'_> {
    fn hashes(&self, owner: &str) -> Vec<Password> {
        let records = self.passwords.get(owner).into_iter().flatten();
        records.map(|record| Password::new(record.secret.clone())).collect()
    }

    fn certificates(&self, owner: &str) -> Vec<Certificate> {
        let records = self.certificates.get(owner).into_iter().flatten();
        // They were checked when they came.
        records.filter_map(|record| Certificate::of_pem(&login::pem(record)?).ok()).collect()
    }
}

fn device_registry(belongings: &Belongings<'_>, record: &crate::store::Record) -> Option<DeviceRegistry> {
    let kept: devices::Registry = message(record).ok()?;
    let is_on = kept.status() != registry::Status::Disabled;
    // A registry that is disabled keeps its topics, but nobody can log in.
    let hashes = |owner: &str| if is_on { belongings.hashes(owner) } else { Vec::new() };
    let certificates = |owner: &str| if is_on { belongings.certificates(owner) } else { Vec::new() };
    let of_registry = belongings.devices.get(&*record.id).into_iter().flatten();
    let device = |record: &&crate::store::Record| {
        let device: devices::Device = message(record).ok()?;
        Some(Device {
            id: record.id.clone(),
            passwords: hashes(&record.id),
            certificates: certificates(&record.id),
            aliases: aliases(&device),
        })
    };
    Some(DeviceRegistry {
        id: record.id.clone(),
        passwords: hashes(&record.id),
        certificates: certificates(&record.id),
        devices: of_registry.filter_map(device).collect(),
        external: None,
    })
}

fn aliases(device: &devices::Device) -> Vec<Alias> {
    let cut = |text: &str| text.strip_suffix('/').unwrap_or(text).to_owned();
    let alias = |(name, target): (&String, &String)| Alias { name: cut(name), target: cut(target) };
    device.topic_aliases.iter().map(alias).collect()
}

/// Holds the aliases of a device against the rules, and against those that the registry has already.
pub(super) fn check_aliases(device: &devices::Device, taken: &[String]) -> Result<(), Fault> {
    let mut faults = Vec::new();
    if device.topic_aliases.len() > rules::MAX_ALIASES {
        let what =
            format!("{} aliases; at most {} are allowed", device.topic_aliases.len(), rules::MAX_ALIASES);
        faults.push(("topic_aliases".to_owned(), what));
    }
    let mut names: Vec<String> = taken.iter().map(|name| name.trim_end_matches('/').to_owned()).collect();
    for alias in aliases(device) {
        let place = format!("topic_aliases[{:?}]", alias.name);
        if let Err(fault) = rules::check_alias(&alias.name) {
            faults.push((place.clone(), format!("The alias {fault}")));
        }
        if !rules::is_own_topic(&alias.target, &device.id) {
            let what = format!(
                "{:?} is not a topic of the device, such as \"$devices/{}\"",
                alias.target, device.id
            );
            faults.push((place.clone(), what));
        }
        let lies_below =
            |a: &str, b: &str| a == b || a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
        if let Some(other) =
            names.iter().find(|other| lies_below(&alias.name, other) || lies_below(other, &alias.name))
        {
            let what = format!("The alias {other:?} of this registry is the same, or one begins the other");
            faults.push((place, what));
        }
        names.push(alias.name);
    }
    if faults.is_empty() { Ok(()) } else { Err(Fault::fields(faults)) }
}

/// Triggers of the store that read this registry, broker or device, or go to this gateway.
pub(super) fn triggers_of(state: &State, id: &str) -> Vec<Id> {
    let uses = |trigger: &v2::Trigger| {
        let reads = match trigger.source.as_ref().and_then(|source| source.source.as_ref()) {
            Some(Source::IotMessage(source)) => source.registry_id == id || source.device_id == id,
            Some(Source::IotBrokerMessage(source)) => source.broker_id == id,
            Some(Source::ContainerRegistry(source)) => source.registry_id == id,
            _ => false,
        };
        let goes = trigger.action.iter().any(|action| {
            matches!(&action.action, Some(Kind::GatewayWebsocketBroadcast(action)) if action.gateway_id == id)
        });
        reads || goes
    };
    state
        .all(Record::Trigger)
        .filter(|record| message::<v2::Trigger>(record).is_ok_and(|trigger| uses(&trigger)))
        .map(|record| record.id.clone())
        .collect()
}
