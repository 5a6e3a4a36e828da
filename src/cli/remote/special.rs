//! Commands that are more than a row: tests of triggers, messages to connections and devices, tokens, waiting.

use std::io::BufRead;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::ArgMatches;
use serde_json::{Map, Value, json};

use super::act::{self, Target, by_name, finish, group, show_all};
use super::fault::Fault;
use super::request::{given, plan, set, span, text_of};
use super::session::{Session, method};
use super::table::{Row, Special};
use super::{key_file, show, tree};

/// The group that finds every trigger.
const TRIGGERS: &str = "serverless trigger v2";
const EVENT_TYPE: &str = "CONTAINER_REGISTRY_EVENT_TYPE_";
/// What `create` prints of a trigger and does not take.
const PRINTED: [&str; 4] = ["id", "created_at", "status", "conditions"];
const TOKENS: &str = "yandex.cloud.iam.v1.IamTokenService";
/// Who may publish, and by which service.
const PUBLISHERS: [(&str, &str); 3] = [
    ("registry", "yandex.cloud.iot.devices.v1.RegistryDataService"),
    ("device", "yandex.cloud.iot.devices.v1.DeviceDataService"),
    ("broker", "yandex.cloud.iot.broker.v1.BrokerDataService"),
];
pub(super) const ACTION: &str = r#"{
  "gateway_websocket_broadcast": {
    "gateway_id": "the id of a gateway",
    "path": "/one of its paths",
    "service_account_id": "the id of a service account with the role api-gateway.websocketBroadcaster"
  },
  "filter": {
    "jq": "optional: an expression; events for which it is true are sent"
  },
  "transformer": {
    "jq": "optional: an expression that makes another event of an event"
  },
  "payload_encoding": "optional: BASE64, TEXT or JSON"
}
"#;

/// Does what a special row says.
pub(super) async fn act(
    session: &Session,
    special: Special,
    row: &'static Row,
    matches: &ArgMatches,
) -> Result<(), Fault> {
    match special {
        Special::HelpAction => Ok(show::print(ACTION)?),
        Special::Test => test(session, row, matches).await,
        Special::Send => send(session, row, matches).await,
        Special::Publish => publish(session, row, matches).await,
        Special::Token => token(session, row, matches).await,
        Special::Wait => {
            let id = act::id(session, group("operation")?, Target::of(matches).into_iter().next()).await?;
            let method = method("yandex.cloud.operation.OperationService", "Get")?;
            let operation = session.call(&method, &json!({ "operation_id": id })).await?;
            show_all(session, row, &finish(session, operation).await?)
        }
    }
}

async fn test(session: &Session, row: &'static Row, matches: &ArgMatches) -> Result<(), Fault> {
    let method = method("triggercast.v1.TriggerTestService", "Test")?;
    let mut plan = plan(row, &method.input(), matches)?;
    if plan.request.get("event").is_none() {
        return Err(Fault::input("missing: --event FILE, one event as JSON".to_owned()));
    }
    let text = given(matches, tree::TARGET).unwrap_or_default().concat();
    let is_file = text.contains(['/', '.']) || Path::new(&text).is_file();
    if is_file {
        let (form, trigger) = trigger_of(&text)?;
        plan.request[form] = trigger;
        if plan.request[form].get("folder_id").is_none() {
            plan.request[form]["folder_id"] = json!(act::request_folder(session).await?);
        }
    } else {
        let id = act::id(session, group(TRIGGERS)?, Some(Target::Either(text))).await?;
        plan.request["trigger_id"] = json!(id);
    }
    let answer = session.call(&method, &plan.request).await?;
    show_all(session, row, &[answer])
}

/// A trigger from a file, as the request that would make it, and its form.
fn trigger_of(file: &str) -> Result<(&'static str, Value), Fault> {
    let wrong = |message: String| Fault::input(format!("{file}: {message}"));
    let trigger: Value =
        serde_saphyr::from_str(&text_of(file)?).map_err(|error| wrong(format!("not YAML: {error}")))?;
    let Value::Object(mut trigger) = trigger else { return Err(wrong("not a trigger".to_owned())) };
    PRINTED.iter().for_each(|key| {
        trigger.remove(*key);
    });
    let form = match (trigger.contains_key("rule"), trigger.contains_key("source")) {
        (true, false) => "v1",
        (false, true) => "v2",
        _ => return Err(wrong("a trigger has either `rule`, or `source` and `action`".to_owned())),
    };
    let mut trigger = Value::Object(trigger);
    as_messages(&mut trigger);
    Ok((form, trigger))
}

/// The words of the configuration as those of messages: kinds of events, encodings, durations with other units.
fn as_messages(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(as_messages),
        Value::Object(fields) => fields.iter_mut().for_each(|(key, value)| match (key.as_str(), value) {
            ("event_type", Value::Array(kinds)) => {
                for kind in kinds {
                    let name = kind.as_str().unwrap_or_default().to_uppercase();
                    *kind = json!(format!("{EVENT_TYPE}{}", name.trim_start_matches(EVENT_TYPE)));
                }
            }
            ("payload_encoding" | "on_pause", Value::String(word)) => *word = word.to_uppercase(),
            ("cutoff", Value::String(text)) => *text = span(text).unwrap_or_else(|| text.clone()),
            ("labels", Value::Object(labels)) => as_text(labels),
            (_, value) => as_messages(value),
        }),
        _ => {}
    }
}

/// Values of labels are text, whatever YAML takes them for.
fn as_text(labels: &mut Map<String, Value>) {
    for value in labels.values_mut().filter(|value| !value.is_string()) {
        *value = json!(value.to_string());
    }
}

async fn send(session: &Session, row: &'static Row, matches: &ArgMatches) -> Result<(), Fault> {
    let connections = group("serverless api-gateway websocket")?;
    let method = method(connections.service, row.call)?;
    let mut plan = plan(row, &method.input(), matches)?;
    let id = act::id(session, connections, Target::of(matches).into_iter().next()).await?;
    plan.request["connection_id"] = json!(id);
    if plan.request.get("type").is_none() {
        plan.request["type"] = json!("TEXT");
    }
    let is_text = plan.request["type"] == "TEXT";
    match (plan.request.get("data").is_some(), matches.get_flag("stdin")) {
        (true, false) => {
            session.call(&method, &plan.request).await?;
        }
        (false, true) => {
            for line in std::io::stdin().lock().lines() {
                let line = line?;
                let data = if is_text { BASE64_STANDARD.encode(line) } else { line };
                plan.request["data"] = json!(data);
                session.call(&method, &plan.request).await?;
            }
        }
        _ => return Err(Fault::input("missing: one of --data, --file and --stdin".to_owned())),
    }
    Ok(())
}

async fn publish(session: &Session, row: &'static Row, matches: &ArgMatches) -> Result<(), Fault> {
    let mut publishers = Vec::new();
    for (kind, service) in PUBLISHERS {
        for (flag, by_name) in [(format!("{kind}-id"), false), (format!("{kind}-name"), true)] {
            publishers.extend(given(matches, &flag).map(|text| (kind, service, text.concat(), by_name)));
        }
    }
    let [(kind, service, text, is_name)] = &publishers[..] else {
        let message =
            "say as whom to publish: one of --registry-id, --device-id and --broker-id, or their names";
        return Err(Fault::input(message.to_owned()));
    };
    let method = method(service, row.call)?;
    let mut request = plan(row, &method.input(), matches)?.request;
    for (field, flags) in [("topic", "--topic"), ("data", "--data or --file")] {
        if request.get(field).is_none() {
            return Err(Fault::input(format!("missing: {flags}")));
        }
    }
    let id = match is_name {
        true => by_name(session, group(&format!("iot {kind}"))?, text).await?,
        false => text.clone(),
    };
    set(&mut request, &format!("{kind}_id"), json!(id));
    session.call(&method, &request).await?;
    Ok(())
}

async fn token(session: &Session, row: &'static Row, matches: &ArgMatches) -> Result<(), Fault> {
    let text = |name| given(matches, name).map(|values| values.concat());
    let account = match (text("service-account-id"), text("service-account-name")) {
        (Some(id), _) => Some(id),
        (None, Some(name)) => Some(by_name(session, group("iam service-account")?, &name).await?),
        (None, None) => None,
    };
    let (call, request) = match (text("key"), text("jwt"), account) {
        (Some(file), None, None) => ("Create", json!({ "jwt": key_file::sign(&file)? })),
        (None, Some(jwt), None) => ("Create", json!({ "jwt": jwt })),
        (None, None, Some(id)) => ("CreateForServiceAccount", json!({ "service_account_id": id })),
        _ => {
            let message =
                "say for whom: one of --key FILE, --jwt JWT, --service-account-id and --service-account-name";
            return Err(Fault::input(message.to_owned()));
        }
    };
    let answer = session.call(&method(TOKENS, call)?, &request).await?;
    show_all(session, row, &[answer])
}
