//! The first form: one rule, which holds its source and its action. A view of the second.

use crate::api::Table;
use crate::api::call::{Call, Done};
use crate::api::fault::{Code, Fault};
use crate::api::{json, mask, rules};
use crate::proto::types::yandex::cloud::operation::Operation;
use crate::proto::types::yandex::cloud::serverless::triggers::v1::trigger::container_registry::Action as RegistryAction;
use crate::proto::types::yandex::cloud::serverless::triggers::v1::trigger::io_t_broker_message::Action as BrokerAction;
use crate::proto::types::yandex::cloud::serverless::triggers::v1::trigger::io_t_message::Action as DeviceAction;
use crate::proto::types::yandex::cloud::serverless::triggers::v1::trigger::rule::Rule as Kind;
use crate::proto::types::yandex::cloud::serverless::triggers::v1::trigger::{
    ContainerRegistry, IoTBrokerMessage, IoTMessage, Rule,
};
use crate::proto::types::yandex::cloud::serverless::triggers::v1::{
    BatchSettings, CreateTriggerMetadata, CreateTriggerRequest, DeleteTriggerMetadata, DeleteTriggerRequest,
    GatewayWebsocketBroadcast, GetTriggerRequest, ListTriggerOperationsRequest,
    ListTriggerOperationsResponse, ListTriggersRequest, ListTriggersResponse, PauseTriggerMetadata,
    PauseTriggerRequest, ResumeTriggerMetadata, ResumeTriggerRequest, Trigger, UpdateTriggerMetadata,
    UpdateTriggerRequest,
};
use crate::proto::types::yandex::cloud::serverless::triggers::v2;
use crate::proto::types::yandex::cloud::serverless::triggers::v2::action::Action;
use crate::proto::types::yandex::cloud::serverless::triggers::v2::source::Source;
use crate::store::State;

pub(super) fn add(table: &mut Table) {
    table.add("yandex.cloud.serverless.triggers.v1.TriggerService/Get", get);
    table.add("yandex.cloud.serverless.triggers.v1.TriggerService/List", list);
    table.add("yandex.cloud.serverless.triggers.v1.TriggerService/Create", create);
    table.add("yandex.cloud.serverless.triggers.v1.TriggerService/Update", update);
    table.add("yandex.cloud.serverless.triggers.v1.TriggerService/Delete", delete);
    table.add("yandex.cloud.serverless.triggers.v1.TriggerService/Pause", pause);
    table.add("yandex.cloud.serverless.triggers.v1.TriggerService/Resume", resume);
    table.add("yandex.cloud.serverless.triggers.v1.TriggerService/ListOperations", operations);
}

fn get(call: &Call<'_>, request: GetTriggerRequest) -> Result<Trigger, Fault> {
    let trigger = call.see_trigger(&request.trigger_id)?;
    view(trigger).ok_or_else(|| only_second(&request.trigger_id))
}

fn only_second(id: &str) -> Fault {
    let what = format!(
        "The trigger '{id}' has several actions, jq, or other settings of the second form; use triggers.v2"
    );
    Fault::new(Code::FailedPrecondition, what)
}

/// Those that have a first form; the others are in the list of the second.
fn list(call: &Call<'_>, request: ListTriggersRequest) -> Result<ListTriggersResponse, Fault> {
    let (mut triggers, next_page_token) = call.page_of_folder::<v2::Trigger>(
        &request.folder_id,
        request.page_size,
        &request.page_token,
        &request.filter,
    )?;
    triggers.iter_mut().for_each(|trigger| call.with_conditions(trigger));
    Ok(ListTriggersResponse { triggers: triggers.into_iter().filter_map(view).collect(), next_page_token })
}

/// The same request in the second form.
pub(super) fn second(request: CreateTriggerRequest) -> Result<v2::CreateTriggerRequest, Fault> {
    let (source, action) = of_rule(request.rule.unwrap_or_default())?;
    Ok(v2::CreateTriggerRequest {
        folder_id: request.folder_id,
        name: request.name,
        description: request.description,
        labels: request.labels,
        source: Some(source),
        action: vec![action],
        on_pause: request.on_pause,
    })
}

fn create(call: &Call<'_>, request: CreateTriggerRequest) -> Result<Operation, Fault> {
    let kind = kind(request.rule.as_ref());
    let trigger = super::second::of_request(second(request)?);
    call.change("Create trigger", |state, edit| {
        call.create_trigger(state, edit, &trigger).map_err(|fault| in_first(fault, kind))?;
        let metadata = CreateTriggerMetadata { trigger_id: trigger.id.clone() };
        let response = view(trigger.clone()).unwrap_or_default();
        Ok(Done { resource: trigger.id.as_str().into(), metadata, response })
    })
}

fn update(call: &Call<'_>, request: UpdateTriggerRequest) -> Result<Operation, Fault> {
    call.change("Update trigger", |state, edit| {
        let before: v2::Trigger = call.own(state, &request.trigger_id)?;
        let old = view(before.clone()).ok_or_else(|| only_second(&before.id))?;
        let new: Trigger = mask::apply(&request, request.update_mask.as_ref(), &["trigger_id"], &old)?;
        let mut faults = rules::faults(&json::dynamic(&new)?, "", true);
        // Names may be empty, as in the request.
        faults.retain(|(field, _)| field != "name");
        if !faults.is_empty() {
            return Err(Fault::fields(faults));
        }
        let kind = kind(new.rule.as_ref());
        let (source, action) = of_rule(new.rule.unwrap_or_default())?;
        let trigger = v2::Trigger {
            name: new.name,
            description: new.description,
            labels: new.labels,
            source: Some(source),
            action: vec![action],
            on_pause: new.on_pause,
            ..before.clone()
        };
        call.update_trigger(state, edit, &before, &trigger).map_err(|fault| in_first(fault, kind))?;
        let metadata = UpdateTriggerMetadata { trigger_id: trigger.id.clone() };
        let resource = trigger.id.as_str().into();
        Ok(Done { resource, metadata, response: view(trigger).unwrap_or_default() })
    })
}

fn delete(call: &Call<'_>, request: DeleteTriggerRequest) -> Result<Operation, Fault> {
    call.change("Delete trigger", |state, edit| {
        call.delete_trigger(state, edit, &request.trigger_id)?;
        let resource = request.trigger_id.as_str().into();
        let metadata = DeleteTriggerMetadata { trigger_id: request.trigger_id };
        Ok(Done { resource, metadata, response: () })
    })
}

/// Refuses to change what could not be shown then.
fn check_first(call: &Call<'_>, state: &State, id: &str) -> Result<(), Fault> {
    view(call.own(state, id)?).map(drop).ok_or_else(|| only_second(id))
}

fn pause(call: &Call<'_>, request: PauseTriggerRequest) -> Result<Operation, Fault> {
    call.change("Pause trigger", |state, edit| {
        check_first(call, state, &request.trigger_id)?;
        let trigger = call.set_status(state, edit, &request.trigger_id, v2::trigger::Status::Paused)?;
        let metadata = PauseTriggerMetadata { trigger_id: trigger.id.clone() };
        let resource = trigger.id.as_str().into();
        Ok(Done { resource, metadata, response: view(trigger).unwrap_or_default() })
    })
}

fn resume(call: &Call<'_>, request: ResumeTriggerRequest) -> Result<Operation, Fault> {
    call.change("Resume trigger", |state, edit| {
        check_first(call, state, &request.trigger_id)?;
        let trigger = call.set_status(state, edit, &request.trigger_id, v2::trigger::Status::Active)?;
        let metadata = ResumeTriggerMetadata { trigger_id: trigger.id.clone() };
        let resource = trigger.id.as_str().into();
        Ok(Done { resource, metadata, response: view(trigger).unwrap_or_default() })
    })
}

fn operations(
    call: &Call<'_>,
    request: ListTriggerOperationsRequest,
) -> Result<ListTriggerOperationsResponse, Fault> {
    let (operations, next_page_token) =
        super::operations_of(call, &request.trigger_id, request.page_size, &request.page_token)?;
    Ok(ListTriggerOperationsResponse { operations, next_page_token })
}

/// The name of the rule's kind.
fn kind(rule: Option<&Rule>) -> &'static str {
    match rule.and_then(|rule| rule.rule.as_ref()) {
        Some(Kind::IotMessage(_)) => "iot_message",
        Some(Kind::IotBrokerMessage(_)) => "iot_broker_message",
        _ => "container_registry",
    }
}

/// A fault of the second form with the names of the first.
fn in_first(mut fault: Fault, kind: &str) -> Fault {
    if fault.fields.is_empty() {
        return fault;
    }
    for (field, _) in &mut fault.fields {
        if let Some(rest) = field.strip_prefix("source") {
            *field = format!("rule{rest}").replace("batch_settings.max_count", "batch_settings.size");
        } else if let Some(rest) = field.strip_prefix("action[0]") {
            *field = format!("rule.{kind}{rest}");
        } else if field == "action" {
            *field = format!("rule.{kind}");
        }
    }
    Fault::fields(fault.fields)
}

fn batch(settings: Option<BatchSettings>) -> Option<v2::BatchSettings> {
    settings.map(|BatchSettings { size, cutoff }| v2::BatchSettings { max_count: size, max_bytes: 0, cutoff })
}

/// The source and the action of a rule. Other kinds than ours are told so.
fn of_rule(rule: Rule) -> Result<(v2::Source, v2::Action), Fault> {
    let broadcast = |action: Option<GatewayWebsocketBroadcast>, kind: &str| {
        let what = "There must be exactly one action, and gateway_websocket_broadcast is the one that this \
                    server has";
        let action = action.ok_or_else(|| Fault::field(format!("rule.{kind}"), what))?;
        let GatewayWebsocketBroadcast { gateway_id, path, service_account_id } = action;
        let action = v2::GatewayWebsocketBroadcast { gateway_id, path, service_account_id };
        Ok::<_, Fault>(v2::Action {
            action: Some(Action::GatewayWebsocketBroadcast(action)),
            ..v2::Action::default()
        })
    };
    let other = |kind: &str| {
        let what =
            format!("This server has no {kind} for triggers; its action is gateway_websocket_broadcast");
        Err(Fault::new(Code::Unimplemented, what))
    };
    let (source, action) = match rule.rule {
        Some(Kind::IotMessage(rule)) => {
            let IoTMessage { registry_id, device_id, mqtt_topic, batch_settings, action } = rule;
            let batch_settings = batch(batch_settings);
            let action = match action {
                Some(DeviceAction::GatewayWebsocketBroadcast(action)) => Some(action),
                Some(DeviceAction::InvokeFunction(_)) => return other("invoke_function"),
                Some(DeviceAction::InvokeContainer(_)) => return other("invoke_container"),
                None => None,
            };
            let source = v2::IoTMessage { registry_id, device_id, mqtt_topic, batch_settings };
            (Source::IotMessage(source), broadcast(action, "iot_message")?)
        }
        Some(Kind::IotBrokerMessage(rule)) => {
            let IoTBrokerMessage { broker_id, mqtt_topic, batch_settings, action } = rule;
            let action = match action {
                Some(BrokerAction::GatewayWebsocketBroadcast(action)) => Some(action),
                Some(BrokerAction::InvokeFunction(_)) => return other("invoke_function"),
                Some(BrokerAction::InvokeContainer(_)) => return other("invoke_container"),
                None => None,
            };
            let batch_settings = batch(batch_settings);
            let source = v2::IoTBrokerMessage { broker_id, mqtt_topic, batch_settings };
            (Source::IotBrokerMessage(source), broadcast(action, "iot_broker_message")?)
        }
        Some(Kind::ContainerRegistry(rule)) => {
            let ContainerRegistry { event_type, registry_id, image_name, tag, batch_settings, action } = rule;
            let action = match action {
                Some(RegistryAction::GatewayWebsocketBroadcast(action)) => Some(action),
                Some(RegistryAction::InvokeFunction(_)) => return other("invoke_function"),
                Some(RegistryAction::InvokeContainer(_)) => return other("invoke_container"),
                Some(RegistryAction::StartWorkflow(_)) => return other("start_workflow"),
                None => None,
            };
            let batch_settings = batch(batch_settings);
            let source = v2::ContainerRegistry { event_type, registry_id, image_name, tag, batch_settings };
            (Source::ContainerRegistry(source), broadcast(action, "container_registry")?)
        }
        Some(_) => {
            let what = "This server has the rules iot_message, iot_broker_message and container_registry";
            return Err(Fault::new(Code::Unimplemented, what));
        }
        None => {
            return Err(Fault::field(
                "rule",
                "Exactly one rule is needed: iot_message, iot_broker_message or container_registry",
            ));
        }
    };
    Ok((v2::Source { source: Some(source) }, action))
}

/// A trigger in the first form, if it has one: one action, and nothing that the first form cannot say.
pub(super) fn view(trigger: v2::Trigger) -> Option<Trigger> {
    let [action] = <[v2::Action; 1]>::try_from(trigger.action).ok()?;
    let plain = v2::Action { action: action.action.clone(), ..v2::Action::default() };
    let Some(Action::GatewayWebsocketBroadcast(broadcast)) = action.action.clone() else { return None };
    if action != plain {
        return None;
    }
    let v2::GatewayWebsocketBroadcast { gateway_id, path, service_account_id } = broadcast;
    let action = GatewayWebsocketBroadcast { gateway_id, path, service_account_id };
    let batch = |settings: Option<v2::BatchSettings>| match settings {
        Some(v2::BatchSettings { max_count: size, max_bytes: 0, cutoff }) => {
            Some(Some(BatchSettings { size, cutoff }))
        }
        Some(_) => None,
        None => Some(None),
    };
    let rule = match trigger.source?.source? {
        Source::IotMessage(source) => {
            let v2::IoTMessage { registry_id, device_id, mqtt_topic, batch_settings } = source;
            let batch_settings = batch(batch_settings)?;
            let action = Some(DeviceAction::GatewayWebsocketBroadcast(action));
            Kind::IotMessage(IoTMessage { registry_id, device_id, mqtt_topic, batch_settings, action })
        }
        Source::IotBrokerMessage(source) => {
            let v2::IoTBrokerMessage { broker_id, mqtt_topic, batch_settings } = source;
            let batch_settings = batch(batch_settings)?;
            let action = Some(BrokerAction::GatewayWebsocketBroadcast(action));
            Kind::IotBrokerMessage(IoTBrokerMessage { broker_id, mqtt_topic, batch_settings, action })
        }
        Source::ContainerRegistry(source) => {
            let v2::ContainerRegistry { event_type, registry_id, image_name, tag, batch_settings } = source;
            let batch_settings = batch(batch_settings)?;
            let action = Some(RegistryAction::GatewayWebsocketBroadcast(action));
            let rule = ContainerRegistry { event_type, registry_id, image_name, tag, batch_settings, action };
            Kind::ContainerRegistry(rule)
        }
        _ => return None,
    };
    Some(Trigger {
        id: trigger.id,
        folder_id: trigger.folder_id,
        created_at: trigger.created_at,
        name: trigger.name,
        description: trigger.description,
        labels: trigger.labels,
        rule: Some(Rule { rule: Some(rule) }),
        status: trigger.status,
        on_pause: trigger.on_pause,
        conditions: trigger.conditions,
    })
}
