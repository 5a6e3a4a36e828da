//! What a trigger does with its batches: `gateway_websocket_broadcast`.

use std::sync::Arc;

use super::Known;
use super::fields::{Fields, Reading, Value, quote};
use super::scalar::{reference, word};
use super::settings::ServiceAccount;
use super::suggest;
use crate::model::gateway::PathKey;
use crate::model::id::Id;
use crate::model::trigger::{Action, PayloadEncoding, Steps};

const BROADCAST: &str = "gateway_websocket_broadcast";
/// Actions of the model system that are not built here.
const OTHER_ACTIONS: [&str; 3] = ["invoke_function", "invoke_container", "start_workflow"];
/// What may stand beside an action in the model system and is not built here.
const BESIDE: [&str; 2] = ["retry_policy", "dead_letter"];
/// Longest programs, in characters, as in the model system.
const MAX_FILTER: usize = 1024;
const MAX_TRANSFORMER: usize = 65_536;

/// The v2 form: a list of actions, each a map with one kind.
pub(super) fn list(value: &Value<'_>, known: &Known<'_>, reading: &mut Reading) -> Vec<Action> {
    let faults = reading.faults.len();
    let items = value.items(reading);
    if items.is_empty() && reading.faults.len() == faults {
        value.fault(reading, "a trigger needs at least one action");
    }
    let mut actions = Vec::new();
    for item in items {
        let mut fields = item.fields(reading);
        fields.refuse(&BESIDE, reading);
        let steps = steps(&mut fields, reading);
        actions.extend(one(&mut fields, steps, known, reading));
        fields.finish(reading);
    }
    actions
}

/// What is done to every event before: `filter`, `transformer` and `payload_encoding`.
fn steps(fields: &mut Fields<'_>, reading: &mut Reading) -> Steps {
    const WORDS: &[(&str, PayloadEncoding)] = &[
        ("base64", PayloadEncoding::Base64),
        ("text", PayloadEncoding::Text),
        ("json", PayloadEncoding::Json),
    ];
    let payload = fields.get("payload_encoding").and_then(|value| word(&value, WORDS, reading));
    Steps {
        payload: payload.unwrap_or_default(),
        filter: program(fields, "filter", MAX_FILTER, reading),
        transformer: program(fields, "transformer", MAX_TRANSFORMER, reading),
    }
}

/// `{jq: PROGRAM}`. Whether it compiles is looked at when the server starts.
fn program(fields: &mut Fields<'_>, name: &'static str, most: usize, reading: &mut Reading) -> Option<Id> {
    let mut inner = fields.get(name)?.fields(reading);
    let value = inner.need("jq", reading);
    inner.finish(reading);
    let value = value?;
    let text = value.str(reading)?;
    let length = text.chars().count();
    if length == 0 || length > most {
        value.fault(reading, format_args!("{length} characters; a program has 1 to {most}"));
    }
    Some(text.into())
}

/// The one action that stands among other keys.
pub(super) fn one(
    fields: &mut Fields<'_>,
    steps: Steps,
    known: &Known<'_>,
    reading: &mut Reading,
) -> Option<Action> {
    let faults = reading.faults.len();
    fields.refuse(&OTHER_ACTIONS, reading);
    let value = fields.get_or_null(BROADCAST);
    let Some(value) = value else {
        if reading.faults.len() == faults {
            fields.missing(BROADCAST, reading);
        }
        return None;
    };
    broadcast(&value, steps, known, reading)
}

fn broadcast(value: &Value<'_>, steps: Steps, known: &Known<'_>, reading: &mut Reading) -> Option<Action> {
    let mut fields = value.fields(reading);
    let gateway = fields.need("gateway_id", reading);
    let path = fields.need("path", reading);
    let account = fields.need("service_account_id", reading);
    fields.finish(reading);

    let gateway_id = gateway.and_then(|value| {
        let ids = known.gateways.iter().map(|gateway| &*gateway.id);
        reference(&value, "a gateway", ids, reading)
    });
    let path = path.and_then(|value| self::path(&value, gateway_id.as_ref(), known, reading));
    let service_account_id = account.and_then(|value| self::account(&value, known, reading));
    let target = PathKey { gateway_id: gateway_id?, path: path? };
    Some(Action::GatewayWebsocketBroadcast { target, service_account_id: service_account_id?, steps })
}

/// A path of the gateway; it is not checked when the gateway is not known.
fn path(value: &Value<'_>, gateway_id: Option<&Id>, known: &Known<'_>, reading: &mut Reading) -> Option<Id> {
    let text = value.str(reading)?;
    let gateway_id = gateway_id?;
    let gateways = known.gateways.iter().filter(|gateway| gateway.id == *gateway_id);
    let paths: Vec<&str> =
        gateways.flat_map(|gateway| &gateway.paths).map(|path| path.path.as_str()).collect();
    if paths.contains(&text) {
        return Some(Arc::from(text));
    }
    // A gateway without paths is a fault already.
    if !paths.is_empty() {
        let hint = suggest::among(text, paths, "its paths");
        let shown = value.shown();
        value
            .fault(reading, format_args!("{shown} is not a path of the gateway {}{hint}", quote(gateway_id)));
    }
    None
}

fn account(value: &Value<'_>, known: &Known<'_>, reading: &mut Reading) -> Option<Id> {
    let ids = known.service_accounts.iter().map(|account| &*account.id);
    let id = reference(value, "a service account", ids, reading)?;
    let account = known.service_accounts.iter().find(|account| account.id == id)?;
    if !account.may_broadcast() {
        let [wanted, others @ ..] = ServiceAccount::BROADCASTERS;
        let has = if account.roles.is_empty() { "none".to_owned() } else { account.roles.join(", ") };
        value.fault(
            reading,
            format_args!(
                "{} may not broadcast: it needs the role {wanted} (or {}); its roles: {has}",
                quote(&id),
                others.join(", ")
            ),
        );
    }
    Some(id)
}
