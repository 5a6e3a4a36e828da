//! The resources of the configuration file as the API shows them: read only.

use std::path::Path;

use prost::{Message, Name};
use prost_types::Timestamp;

use super::access::CLOUD;
use super::authenticate::{admin_key, roles_of_file};
use super::resource::{Resource, record};
use super::services::devices::login;
use crate::config::Settings;
use crate::model::certificate::Certificate;
use crate::model::container::ContainerEventType;
use crate::model::gateway::MAX_MESSAGE_BYTES;
use crate::model::role::ADMIN;
use crate::model::trigger::{Action, MqttTopics, PayloadEncoding, Trigger, TriggerSource};
use crate::proto::types::triggercast::v1::PayloadEncoding as Encoding;
use crate::proto::types::yandex::cloud::containerregistry::v1 as containers;
use crate::proto::types::yandex::cloud::iam::v1::{ServiceAccount, service_account};
use crate::proto::types::yandex::cloud::iot::broker::v1 as brokers;
use crate::proto::types::yandex::cloud::iot::devices::v1 as devices;
use crate::proto::types::yandex::cloud::resourcemanager::v1::{Folder, folder};
use crate::proto::types::yandex::cloud::serverless::apigateway::v1::{ApiGateway, api_gateway};
use crate::proto::types::yandex::cloud::serverless::triggers::v2::action::Action as ActionKind;
use crate::proto::types::yandex::cloud::serverless::triggers::v2::filter::Condition;
use crate::proto::types::yandex::cloud::serverless::triggers::v2::source::Source;
use crate::proto::types::yandex::cloud::serverless::triggers::v2::transformer::Transformer;
use crate::proto::types::yandex::cloud::serverless::triggers::v2::trigger::Status;
use crate::proto::types::yandex::cloud::serverless::triggers::v2::{
    self as v2, BatchSettings, ContainerRegistryEventType,
};
use crate::store::{Origin, Record};

/// The id of the folder that everything of the file is in.
pub const FOLDER: &str = "default";

/// The records of everything that the file declares, of the administrator and of the folder. The administrator's key
/// is in `data_dir`, and is made there at the first start.
pub fn records(settings: &Settings) -> std::io::Result<Vec<Record>> {
    let resources = &settings.resources;
    let since = started(&settings.data_dir)?;
    let created_at = Some(since);
    let mut records = vec![
        admin_key(&settings.data_dir.join("admin.key"), FOLDER)?,
        roles_of_file(
            settings
                .service_accounts
                .iter()
                .flat_map(|account| account.roles.iter().map(|role| (&*account.id, role.as_str()))),
        ),
    ];
    let folder = Folder {
        id: FOLDER.to_owned(),
        cloud_id: CLOUD.to_owned(),
        created_at,
        name: FOLDER.to_owned(),
        status: folder::Status::Active.into(),
        ..Folder::default()
    };
    records.push(Record { folder: "".into(), ..record(&folder, "") });
    let accounts = settings.service_accounts.iter().map(|account| &*account.id).chain([ADMIN]);
    for id in accounts {
        let account = ServiceAccount {
            id: id.to_owned(),
            folder_id: FOLDER.to_owned(),
            created_at,
            name: id.to_owned(),
            status: service_account::Status::Active.into(),
            ..ServiceAccount::default()
        };
        put(&mut records, &account);
    }
    for gateway in &resources.gateways {
        let gateway = ApiGateway {
            id: gateway.id.to_string(),
            folder_id: FOLDER.to_owned(),
            created_at,
            name: gateway.id.to_string(),
            status: api_gateway::Status::Active.into(),
            domain: gateway.domain.clone().unwrap_or_default(),
            ..ApiGateway::default()
        };
        put(&mut records, &gateway);
    }
    for registry in &resources.device_registries {
        let kept = devices::Registry {
            id: registry.id.to_string(),
            folder_id: FOLDER.to_owned(),
            created_at,
            name: registry.id.to_string(),
            status: devices::registry::Status::Active.into(),
            ..devices::Registry::default()
        };
        put_login(&mut records, record(&kept, FOLDER), &registry.certificates);
        for device in &registry.devices {
            let alias = |alias: &crate::model::iot::Alias| (alias.name.clone(), alias.target.clone());
            let kept = devices::Device {
                id: device.id.to_string(),
                registry_id: registry.id.to_string(),
                created_at,
                name: device.id.to_string(),
                topic_aliases: device.aliases.iter().map(alias).collect(),
                status: devices::device::Status::Active.into(),
                ..devices::Device::default()
            };
            let kept = Record { parent: registry.id.clone(), ..record(&kept, FOLDER) };
            put_login(&mut records, kept, &device.certificates);
        }
    }
    for broker in &resources.brokers {
        let kept = brokers::Broker {
            id: broker.id.to_string(),
            folder_id: FOLDER.to_owned(),
            created_at,
            name: broker.id.to_string(),
            status: brokers::broker::Status::Active.into(),
            ..brokers::Broker::default()
        };
        put_login(&mut records, record(&kept, FOLDER), &broker.certificates);
    }
    for registry in &resources.container_registries {
        let kept = containers::Registry {
            id: registry.id.to_string(),
            folder_id: FOLDER.to_owned(),
            name: registry.id.to_string(),
            status: containers::registry::Status::Active.into(),
            created_at,
            ..containers::Registry::default()
        };
        put(&mut records, &kept);
    }
    for trigger in &resources.triggers {
        put(&mut records, &self::trigger(trigger, created_at));
    }
    for record in &mut records {
        record.origin = Origin::File;
    }
    Ok(records)
}

fn put<T: Resource + Message + Name>(records: &mut Vec<Record>, resource: &T) {
    records.push(record(resource, FOLDER));
}

/// An owner, and the certificates that it logs in with.
fn put_login(records: &mut Vec<Record>, owner: Record, certificates: &[Certificate]) {
    let certificates = certificates.iter().map(|certificate| login::of_file(&owner, certificate));
    let certificates: Vec<_> = certificates.collect();
    records.push(owner);
    records.extend(certificates);
}

/// When this server was first started: what the file declares has no other time.
fn started(folder: &Path) -> std::io::Result<Timestamp> {
    crate::database::create_private(folder)?;
    let made = std::fs::metadata(folder).and_then(|meta| meta.created().or_else(|_| meta.modified()));
    Ok(made.map(Timestamp::from).unwrap_or_default())
}

/// A trigger in the second form.
fn trigger(trigger: &Trigger, created_at: Option<Timestamp>) -> v2::Trigger {
    let batch_settings = Some(BatchSettings {
        max_count: trigger.batch.max_count as i64,
        max_bytes: match trigger.batch.max_bytes {
            MAX_MESSAGE_BYTES => 0,
            bytes => bytes as i64,
        },
        cutoff: prost_types::Duration::try_from(trigger.batch.cutoff).ok(),
    });
    let text = |id: &Option<crate::model::id::Id>| id.as_deref().unwrap_or_default().to_owned();
    let source = match &trigger.source {
        TriggerSource::Mqtt(MqttTopics::IotMessage { registry_id, device_id, mqtt_topic }) => {
            Source::IotMessage(v2::IoTMessage {
                registry_id: registry_id.to_string(),
                device_id: text(device_id),
                mqtt_topic: text(mqtt_topic),
                batch_settings,
            })
        }
        TriggerSource::Mqtt(MqttTopics::IotBrokerMessage { broker_id, mqtt_topic }) => {
            Source::IotBrokerMessage(v2::IoTBrokerMessage {
                broker_id: broker_id.to_string(),
                mqtt_topic: text(mqtt_topic),
                batch_settings,
            })
        }
        TriggerSource::ContainerRegistry { registry_id, filter } => {
            let kind = |kind: &ContainerEventType| match kind {
                ContainerEventType::CreateImage => ContainerRegistryEventType::CreateImage,
                ContainerEventType::DeleteImage => ContainerRegistryEventType::DeleteImage,
                ContainerEventType::CreateImageTag => ContainerRegistryEventType::CreateImageTag,
                ContainerEventType::DeleteImageTag => ContainerRegistryEventType::DeleteImageTag,
            };
            Source::ContainerRegistry(v2::ContainerRegistry {
                event_type: filter.event_types.iter().map(|one| kind(one).into()).collect(),
                registry_id: registry_id.to_string(),
                image_name: text(&filter.image_name),
                tag: text(&filter.tag),
                batch_settings,
            })
        }
    };
    v2::Trigger {
        id: trigger.id.to_string(),
        folder_id: FOLDER.to_owned(),
        created_at,
        name: trigger.name.to_string(),
        source: Some(v2::Source { source: Some(source) }),
        action: trigger.actions.iter().map(action).collect(),
        status: Status::Active.into(),
        ..v2::Trigger::default()
    }
}

fn action(action: &Action) -> v2::Action {
    let Action::GatewayWebsocketBroadcast { target, service_account_id, steps } = action;
    let jq = |program: &crate::model::id::Id| program.to_string();
    let encoding = match steps.payload {
        PayloadEncoding::Base64 => Encoding::Unspecified,
        PayloadEncoding::Text => Encoding::Text,
        PayloadEncoding::Json => Encoding::Json,
    };
    v2::Action {
        action: Some(ActionKind::GatewayWebsocketBroadcast(v2::GatewayWebsocketBroadcast {
            gateway_id: target.gateway_id.to_string(),
            path: target.path.to_string(),
            service_account_id: service_account_id.to_string(),
        })),
        filter: steps.filter.as_ref().map(|code| v2::Filter { condition: Some(Condition::Jq(jq(code))) }),
        transformer: steps
            .transformer
            .as_ref()
            .map(|code| v2::Transformer { transformer: Some(Transformer::Jq(jq(code))) }),
        payload_encoding: encoding.into(),
        ..v2::Action::default()
    }
}
