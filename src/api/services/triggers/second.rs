//! The second form: one source, several actions with jq.

use crate::api::Table;
use crate::api::call::{Call, Done, now};
use crate::api::fault::Fault;
use crate::api::mask;
use crate::api::{json, rules};
use crate::model::id;
use crate::model::role::{Area, Right};
use crate::proto::types::yandex::cloud::operation::Operation;
use crate::proto::types::yandex::cloud::serverless::triggers::v2::trigger::Status;
use crate::proto::types::yandex::cloud::serverless::triggers::v2::{
    CreateTriggerMetadata, CreateTriggerRequest, DeleteTriggerMetadata, DeleteTriggerRequest,
    GetTriggerRequest, ListTriggerOperationsRequest, ListTriggerOperationsResponse, ListTriggersRequest,
    ListTriggersResponse, PauseTriggerMetadata, PauseTriggerRequest, ResumeTriggerMetadata,
    ResumeTriggerRequest, Trigger, UpdateTriggerMetadata, UpdateTriggerRequest,
};

pub(super) fn add(table: &mut Table) {
    table.add("yandex.cloud.serverless.triggers.v2.TriggerService/Get", get);
    table.add("yandex.cloud.serverless.triggers.v2.TriggerService/List", list);
    table.add("yandex.cloud.serverless.triggers.v2.TriggerService/Create", create);
    table.add("yandex.cloud.serverless.triggers.v2.TriggerService/Update", update);
    table.add("yandex.cloud.serverless.triggers.v2.TriggerService/Delete", delete);
    table.add("yandex.cloud.serverless.triggers.v2.TriggerService/Pause", pause);
    table.add("yandex.cloud.serverless.triggers.v2.TriggerService/Resume", resume);
    table.add("yandex.cloud.serverless.triggers.v2.TriggerService/ListOperations", operations);
}

fn get(call: &Call<'_>, request: GetTriggerRequest) -> Result<Trigger, Fault> {
    call.see_trigger(&request.trigger_id)
}

fn list(call: &Call<'_>, request: ListTriggersRequest) -> Result<ListTriggersResponse, Fault> {
    let (mut triggers, next_page_token) =
        call.page_of_folder(&request.folder_id, request.page_size, &request.page_token, &request.filter)?;
    triggers.iter_mut().for_each(|trigger| call.with_conditions(trigger));
    Ok(ListTriggersResponse { triggers, next_page_token })
}

/// The trigger that a request wants, new.
pub(super) fn of_request(request: CreateTriggerRequest) -> Trigger {
    Trigger {
        id: id::generate("a1s").to_string(),
        folder_id: request.folder_id,
        created_at: Some(now()),
        name: request.name,
        description: request.description,
        labels: request.labels,
        source: request.source,
        action: request.action,
        status: Status::Active.into(),
        on_pause: request.on_pause,
        conditions: Vec::new(),
    }
}

fn create(call: &Call<'_>, request: CreateTriggerRequest) -> Result<Operation, Fault> {
    call.may_in_folder(&call.api.store.state(), Right::Change(Area::Triggers), &request.folder_id)?;
    let trigger = of_request(request);
    call.check_programs(&trigger)?;
    call.change("Create trigger", |state, edit| {
        call.create_trigger(state, edit, &trigger)?;
        let metadata = CreateTriggerMetadata { trigger_id: trigger.id.clone() };
        Ok(Done { resource: trigger.id.as_str().into(), metadata, response: trigger.clone() })
    })
}

/// What a trigger becomes by an update.
fn updated(request: &UpdateTriggerRequest, before: &Trigger) -> Result<Trigger, Fault> {
    let trigger: Trigger = mask::apply(request, request.update_mask.as_ref(), &["trigger_id"], before)?;
    let mut faults = rules::faults(&json::dynamic(&trigger)?, "", true);
    // Names may be empty, as in the request.
    faults.retain(|(field, _)| field != "name");
    if faults.is_empty() { Ok(trigger) } else { Err(Fault::fields(faults)) }
}

fn update(call: &Call<'_>, request: UpdateTriggerRequest) -> Result<Operation, Fault> {
    {
        let before = call.own(&call.api.store.state(), &request.trigger_id)?;
        call.check_programs(&updated(&request, &before)?)?;
    }
    call.change("Update trigger", |state, edit| {
        let before = call.own(state, &request.trigger_id)?;
        let trigger = updated(&request, &before)?;
        call.update_trigger(state, edit, &before, &trigger)?;
        let metadata = UpdateTriggerMetadata { trigger_id: trigger.id.clone() };
        Ok(Done { resource: trigger.id.as_str().into(), metadata, response: trigger })
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

fn pause(call: &Call<'_>, request: PauseTriggerRequest) -> Result<Operation, Fault> {
    call.change("Pause trigger", |state, edit| {
        let trigger = call.set_status(state, edit, &request.trigger_id, Status::Paused)?;
        let metadata = PauseTriggerMetadata { trigger_id: trigger.id.clone() };
        Ok(Done { resource: trigger.id.as_str().into(), metadata, response: trigger })
    })
}

fn resume(call: &Call<'_>, request: ResumeTriggerRequest) -> Result<Operation, Fault> {
    call.change("Resume trigger", |state, edit| {
        let trigger = call.set_status(state, edit, &request.trigger_id, Status::Active)?;
        let metadata = ResumeTriggerMetadata { trigger_id: trigger.id.clone() };
        Ok(Done { resource: trigger.id.as_str().into(), metadata, response: trigger })
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
