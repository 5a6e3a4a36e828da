//! What a trigger does with its batches: `gateway_websocket_broadcast`.

use std::sync::Arc;

use super::Known;
use super::fields::{Fields, Reading, Value, quote};
use super::scalar::reference;
use super::settings::ServiceAccount;
use super::suggest;
use crate::model::gateway::PathKey;
use crate::model::id::Id;
use crate::model::trigger::Action;

const BROADCAST: &str = "gateway_websocket_broadcast";
/// Actions of the model system that are not built here.
const OTHER_ACTIONS: [&str; 3] = ["invoke_function", "invoke_container", "start_workflow"];
/// What may stand beside an action in the model system and is not built here.
const BESIDE: [&str; 4] = ["filter", "transformer", "retry_policy", "dead_letter"];

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
        actions.extend(one(&mut fields, known, reading));
        fields.finish(reading);
    }
    actions
}

/// The one action that stands among other keys.
pub(super) fn one(fields: &mut Fields<'_>, known: &Known<'_>, reading: &mut Reading) -> Option<Action> {
    let faults = reading.faults.len();
    fields.refuse(&OTHER_ACTIONS, reading);
    let value = fields.get_or_null(BROADCAST);
    let Some(value) = value else {
        if reading.faults.len() == faults {
            fields.missing(BROADCAST, reading);
        }
        return None;
    };
    broadcast(&value, known, reading)
}

fn broadcast(value: &Value<'_>, known: &Known<'_>, reading: &mut Reading) -> Option<Action> {
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
    Some(Action::GatewayWebsocketBroadcast { target, service_account_id: service_account_id? })
}

/// A path of the gateway; it is not checked when the gateway is not known.
fn path(value: &Value<'_>, gateway_id: Option<&Id>, known: &Known<'_>, reading: &mut Reading) -> Option<Id> {
    let text = value.str(reading)?;
    let gateway = known.gateways.iter().find(|gateway| Some(&gateway.id) == gateway_id)?;
    if gateway.paths.iter().any(|path| path.path == text) {
        return Some(Arc::from(text));
    }
    let paths = gateway.paths.iter().map(|path| path.path.as_str());
    let hint = suggest::among(text, paths, "its paths");
    let shown = value.shown();
    value.fault(reading, format_args!("{shown} is not a path of the gateway {}{hint}", quote(&gateway.id)));
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
