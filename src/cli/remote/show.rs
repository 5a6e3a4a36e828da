//! Answers on stdout, in the format that was asked for.

use std::borrow::Cow;
use std::io::Write;

use anyhow::Context;
use prost_reflect::{DynamicMessage, MessageDescriptor, ReflectMessage, SerializeOptions};
use prost_types::Any;
use serde::ser::Error;
use serde::{Serialize, Serializer};

use super::session::OPERATION;
use super::yaml::Tree;
use crate::cli::output::closed_is_done;
use crate::proto::POOL;

/// The columns of a list, by the full name of what is listed.
const COLUMNS: &[(&str, &str)] = &[
    ("yandex.cloud.serverless.triggers.v1.Trigger", "id name folder_id"),
    ("yandex.cloud.serverless.triggers.v2.Trigger", "id name folder_id"),
    ("yandex.cloud.serverless.apigateway.v1.ApiGateway", "id name status domain"),
    (
        "yandex.cloud.serverless.apigateway.websocket.v1.Connection",
        "id path identity.source_ip subject connected_at last_active_at",
    ),
    ("yandex.cloud.iot.devices.v1.Registry", "id name status"),
    ("yandex.cloud.iot.devices.v1.Device", "id name registry_id status"),
    ("yandex.cloud.iot.devices.v1.DeviceAlias", "device_id topic_prefix alias"),
    ("yandex.cloud.iot.devices.v1.RegistryPassword", "id created_at"),
    ("yandex.cloud.iot.devices.v1.DevicePassword", "id created_at"),
    ("yandex.cloud.iot.devices.v1.RegistryCertificate", "fingerprint created_at"),
    ("yandex.cloud.iot.devices.v1.DeviceCertificate", "fingerprint created_at"),
    ("yandex.cloud.iot.broker.v1.Broker", "id name status"),
    ("yandex.cloud.iot.broker.v1.BrokerPassword", "id created_at"),
    ("yandex.cloud.iot.broker.v1.BrokerCertificate", "fingerprint created_at"),
    ("yandex.cloud.containerregistry.v1.Registry", "id name folder_id"),
    ("yandex.cloud.containerregistry.v1.Image", "id created_at name tags compressed_size"),
    ("yandex.cloud.containerregistry.v1.Repository", "name id"),
    ("yandex.cloud.iam.v1.ServiceAccount", "id name status last_authenticated_at"),
    ("yandex.cloud.iam.v1.Key", "id created_at last_used_at"),
    ("yandex.cloud.iam.v1.ApiKey", "id created_at last_used_at expires_at masked_secret"),
    ("yandex.cloud.iam.v1.Role", "id description"),
    ("yandex.cloud.resourcemanager.v1.Folder", "id name labels status"),
    ("yandex.cloud.access.AccessBinding", "role_id subject.type subject.id"),
    (OPERATION, "id created_at created_by modified_at done description"),
    ("triggercast.v1.DeviceActivity", "device_id connected last_seen_at messages"),
    ("triggercast.v1.AuditEvent", "created_at subject_id method resource_id"),
];
const OTHER_COLUMNS: &str = "id name";

struct Shown<'a>(&'a DynamicMessage, SerializeOptions);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize_with_options(serializer, &self.1).map_err(S::Error::custom)
    }
}

fn json(messages: &[DynamicMessage], snake_case: bool, as_list: bool) -> anyhow::Result<String> {
    let options = || SerializeOptions::new().use_proto_field_name(snake_case);
    let messages: Vec<_> = messages.iter().map(without_unknown).collect();
    let shown: Vec<_> = messages.iter().map(|message| Shown(message, options())).collect();
    let text = match &shown[..] {
        [one] if !as_list => serde_json::to_string_pretty(one),
        all => serde_json::to_string_pretty(all),
    };
    text.context("failed to write the answer as JSON")
}

/// An operation may hold messages that this program does not know, and cannot show.
fn without_unknown(message: &DynamicMessage) -> Cow<'_, DynamicMessage> {
    let mut message = Cow::Borrowed(message);
    if message.descriptor().full_name() != OPERATION {
        return message;
    }
    for name in ["metadata", "response"] {
        let held =
            message.get_field_by_name(name).and_then(|held| held.as_message()?.transcode_to::<Any>().ok());
        let kind = held.as_ref().and_then(|held| held.type_url.rsplit('/').next());
        if kind.is_some_and(|kind| POOL.get_message_by_name(kind).is_none()) {
            message.to_mut().clear_field_by_name(name);
        }
    }
    message
}

/// A message in the order of its fields, named as in its definition.
pub(super) fn tree(message: &DynamicMessage) -> anyhow::Result<Tree> {
    let text = json(std::slice::from_ref(message), true, false)?;
    serde_json::from_str(&text).context("failed to read the answer")
}

fn trees(messages: &[DynamicMessage]) -> anyhow::Result<Vec<Tree>> {
    messages.iter().map(tree).collect()
}

/// Resources that were asked for one by one.
pub(super) fn resources(format: &str, messages: &[DynamicMessage]) -> anyhow::Result<String> {
    let Some(first) = messages.first() else { return Ok(String::new()) };
    Ok(match format {
        "json" => json(messages, true, false)? + "\n",
        "json-rest" => json(messages, false, false)? + "\n",
        "table" => table(&first.descriptor(), messages)?,
        _ => {
            let documents: Vec<String> = trees(messages)?.iter().map(Tree::to_yaml).collect();
            documents.join("---\n")
        }
    })
}

/// A list, perhaps of nothing, of this kind.
pub(super) fn list(
    format: &str,
    kind: &MessageDescriptor,
    messages: &[DynamicMessage],
) -> anyhow::Result<String> {
    Ok(match format {
        "json" => json(messages, true, true)? + "\n",
        "json-rest" => json(messages, false, true)? + "\n",
        "yaml" => Tree::List(trees(messages)?).to_yaml(),
        _ => table(kind, messages)?,
    })
}

fn table(kind: &MessageDescriptor, messages: &[DynamicMessage]) -> anyhow::Result<String> {
    let columns = COLUMNS.iter().find(|(name, _)| *name == kind.full_name());
    let columns: Vec<&str> = columns.map_or(OTHER_COLUMNS, |(_, columns)| columns).split(' ').collect();
    let heads = columns.iter().map(|column| column.to_uppercase().replace(['_', '.'], " ")).collect();
    let cells = |tree: &Tree| {
        let cell = |column: &&str| tree.get(column).map(Tree::in_line).unwrap_or_default();
        columns.iter().map(cell).collect()
    };
    Ok(boxed(heads, trees(messages)?.iter().map(cells).collect()))
}

/// A box of ASCII lines.
fn boxed(heads: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let width = |text: &String| text.chars().count();
    let widest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.chain(heads.get(column)).map(width).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..heads.len()).map(widest).collect();
    let edge: String =
        widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect::<String>() + "+\n";
    let line =
        |cells: Vec<String>| cells.into_iter().map(|cell| format!("| {cell} ")).collect::<String>() + "|\n";
    let centred = heads.iter().zip(&widths).map(|(head, width)| format!("{head:^width$}")).collect();
    let mut text = edge.clone() + &line(centred) + &edge;
    for row in &rows {
        text += &line(row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect());
    }
    text + &edge
}

/// Writes to stdout; a reader that went away is no fault.
pub(super) fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    closed_is_done(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trigger(rule: &str) -> DynamicMessage {
        let descriptor = POOL.get_message_by_name("yandex.cloud.serverless.triggers.v1.Trigger").unwrap();
        let json = format!(
            r#"{{"id": "a1s5msktijh2exampl01", "folder_id": "b1gmit33hgh2exampl01", "status": "ACTIVE",
                "created_at": "2022-10-24T15:19:15.353909857Z", "name": "iot-trigger", "rule": {{{rule}}}}}"#
        );
        DynamicMessage::deserialize(descriptor, &mut serde_json::Deserializer::from_str(&json)).unwrap()
    }

    const ACTION: &str = r#""gateway_websocket_broadcast": {"gateway_id": "d4eofc7n0mh2exampl01", "path": "/",
        "service_account_id": "aje3932acdh2exampl01"}"#;

    #[test]
    fn a_trigger_of_devices_is_shown_as_the_model_does() {
        let trigger = trigger(&format!(
            r#""iot_message": {{"registry_id": "arenou2oj4h2exampl01", "device_id": "areqjd6un3h2exampl01",
                "mqtt_topic": "$devices/areqjd6un3h2exampl01/events",
                "batch_settings": {{"size": "1", "cutoff": "0s"}}, {ACTION}}}"#
        ));
        let shown = resources("text", std::slice::from_ref(&trigger)).unwrap();
        let expected = r#"id: a1s5msktijh2exampl01
folder_id: b1gmit33hgh2exampl01
created_at: "2022-10-24T15:19:15.353909857Z"
name: iot-trigger
rule:
  iot_message:
    registry_id: arenou2oj4h2exampl01
    device_id: areqjd6un3h2exampl01
    mqtt_topic: $devices/areqjd6un3h2exampl01/events
    batch_settings:
      size: "1"
      cutoff: 0s
    gateway_websocket_broadcast:
      gateway_id: d4eofc7n0mh2exampl01
      path: /
      service_account_id: aje3932acdh2exampl01
status: ACTIVE
"#;
        assert_eq!(shown, expected);
        let rest = resources("json-rest", &[trigger]).unwrap();
        assert!(
            rest.contains("\"batchSettings\": {\n        \"size\": \"1\",\n        \"cutoff\": \"0s\""),
            "{rest}"
        );
    }

    #[test]
    fn triggers_of_brokers_and_images_are_shown_as_the_model_does() {
        let broker = trigger(&format!(
            r#""iot_broker_message": {{"broker_id": "b", "mqtt_topic": "hall/#",
                "batch_settings": {{"size": "10", "cutoff": "1.5s"}}, {ACTION}}}"#
        ));
        let images = trigger(&format!(
            r#""container_registry": {{"event_type": ["CONTAINER_REGISTRY_EVENT_TYPE_CREATE_IMAGE",
                "CONTAINER_REGISTRY_EVENT_TYPE_DELETE_IMAGE_TAG"], "registry_id": "crt1", "image_name": "web/shop",
                "tag": "1.0", "batch_settings": {{"size": "3", "cutoff": "20s"}}, {ACTION}}}"#
        ));
        insta::assert_snapshot!(resources("text", &[broker, images]).unwrap());
    }

    #[test]
    fn lists_are_boxes_and_lists() {
        let triggers = [trigger("\"iot_message\": {}"), trigger("\"iot_message\": {}")];
        let mut shown = String::new();
        for format in ["text", "yaml", "json", "json-rest"] {
            shown += &format!("# {format}\n{}", list(format, &triggers[0].descriptor(), &triggers).unwrap());
            shown +=
                &format!("# none as {format}\n{}", list(format, &triggers[0].descriptor(), &[]).unwrap());
        }
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn every_column_is_a_field() {
        for (name, columns) in COLUMNS {
            let message = POOL.get_message_by_name(name).unwrap_or_else(|| panic!("{name} is no message"));
            for column in columns.split(' ') {
                let field = super::super::request::field_of(&message, column);
                assert!(field.is_some(), "{name} has no {column}");
            }
        }
    }
}
