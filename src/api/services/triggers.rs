//! Triggers, in both forms over one kind of record. What is kept is the second form.

mod first;
mod second;
mod test;

use super::monitoring::condition;
use crate::api::Table;
use crate::api::access::{self, Place};
use crate::api::call::{Call, Edit};
use crate::api::fault::{Code, Fault};
use crate::api::resource::{check_name, find};
use crate::api::wanted;
use crate::model::role::{Area, Right};
use crate::proto::types::yandex::cloud::operation::Operation;
use crate::proto::types::yandex::cloud::serverless::triggers::v2::source::Source;
use crate::proto::types::yandex::cloud::serverless::triggers::v2::trigger::Status;
use crate::proto::types::yandex::cloud::serverless::triggers::v2::{Trigger, action::Action};
use crate::store::{Kind, State};

pub(super) fn add(table: &mut Table) {
    first::add(table);
    second::add(table);
    test::add(table);
}

/// Where the events of a trigger come from, and the right that it takes to see them.
pub(super) fn source_right(trigger: &Trigger) -> Option<(Kind, &str, Right)> {
    match trigger.source.as_ref()?.source.as_ref()? {
        Source::IotMessage(source) => {
            Some((Kind::DeviceRegistry, &source.registry_id, Right::See(Area::Devices)))
        }
        Source::IotBrokerMessage(source) => {
            Some((Kind::Broker, &source.broker_id, Right::See(Area::Devices)))
        }
        Source::ContainerRegistry(source) => {
            Some((Kind::ContainerRegistry, &source.registry_id, Right::PullImages))
        }
        _ => None,
    }
}

impl Call<'_> {
    /// A trigger with what keeps it from running.
    fn with_conditions(&self, trigger: &mut Trigger) {
        let troubles = self.api.plant.troubles(&trigger.id);
        trigger.conditions = troubles.into_iter().map(condition).collect();
    }

    fn see_trigger(&self, id: &str) -> Result<Trigger, Fault> {
        let mut trigger: Trigger = self.see(id)?;
        self.with_conditions(&mut trigger);
        Ok(trigger)
    }

    /// Holds a trigger against what there is and what the caller may, and compiles its programs.
    fn check_trigger(&self, state: &State, trigger: &Trigger) -> Result<(), Fault> {
        Self::check_kinds(trigger)?;
        self.check_rights(state, trigger)?;
        let settings = &self.api.settings;
        let referents = wanted::referents(&settings.of_file, state);
        let faults = wanted::faults(&referents, trigger, settings.has_mqtt);
        if !faults.is_empty() {
            return Err(Fault::fields(faults));
        }
        for action in &trigger.action {
            if let Some(Action::GatewayWebsocketBroadcast(broadcast)) = &action.action {
                let account = find(state, Kind::ServiceAccount, &broadcast.service_account_id)?;
                self.may(state, Right::ActAs, account)?;
            }
        }
        Ok(())
    }

    /// Says which kinds there are to who asks for another one of the model system.
    fn check_kinds(trigger: &Trigger) -> Result<(), Fault> {
        let ours = |source: &Source| {
            matches!(
                source,
                Source::IotMessage(_) | Source::IotBrokerMessage(_) | Source::ContainerRegistry(_)
            )
        };
        let source = trigger.source.as_ref().and_then(|source| source.source.as_ref());
        if source.is_some_and(|source| !ours(source)) {
            let what = "This server has the sources iot_message, iot_broker_message and container_registry";
            return Err(Fault::new(Code::Unimplemented, what));
        }
        let is_other = |action: &Action| !matches!(action, Action::GatewayWebsocketBroadcast(_));
        if trigger.action.iter().filter_map(|action| action.action.as_ref()).any(is_other) {
            let what = "This server has the action gateway_websocket_broadcast";
            return Err(Fault::new(Code::Unimplemented, what));
        }
        Ok(())
    }

    /// Refuses what the caller may not read or reach; what does not exist is said by [`wanted::faults`].
    fn check_rights(&self, state: &State, trigger: &Trigger) -> Result<(), Fault> {
        // Within one folder whoever makes triggers may use what is there, as in the model system.
        let in_folder = |kind: Kind, id: &str, right: Right| match state.get(kind, id) {
            Some(record) if *record.folder != *trigger.folder_id => self.may(state, right, record),
            _ => Ok(()),
        };
        match source_right(trigger) {
            Some((kind @ Kind::ContainerRegistry, id, right)) => {
                if let Some(registry) = state.get(kind, id) {
                    self.may(state, right, registry)?;
                }
            }
            Some((kind, id, right)) => in_folder(kind, id, right)?,
            None => {}
        }
        for action in &trigger.action {
            if let Some(Action::GatewayWebsocketBroadcast(broadcast)) = &action.action {
                in_folder(Kind::Gateway, &broadcast.gateway_id, Right::See(Area::Gateways))?;
            }
        }
        Ok(())
    }

    /// Compiles the programs of a trigger. It may take long, so it is done before anything is locked.
    fn check_programs(&self, trigger: &Trigger) -> Result<(), Fault> {
        for (index, action) in trigger.action.iter().enumerate() {
            for (field, program) in wanted::programs(action) {
                self.api.plant.check_jq(program).map_err(|mut fault| {
                    if fault.code == Code::InvalidArgument {
                        fault = Fault::field(format!("action[{index}].{field}.jq"), fault.message);
                    }
                    fault
                })?;
            }
        }
        Ok(())
    }

    /// Puts a new trigger in its folder.
    fn create_trigger(&self, state: &State, edit: &mut Edit, trigger: &Trigger) -> Result<(), Fault> {
        self.may_in_folder(state, Right::Change(Area::Triggers), &trigger.folder_id)?;
        check_name(state, Kind::Trigger, &trigger.folder_id, &trigger.name, "")?;
        self.check_trigger(state, trigger)?;
        edit.put(None, trigger, &trigger.folder_id)
    }

    /// Puts a changed trigger in the place of what it was.
    fn update_trigger(
        &self,
        state: &State,
        edit: &mut Edit,
        before: &Trigger,
        trigger: &Trigger,
    ) -> Result<(), Fault> {
        check_name(state, Kind::Trigger, &trigger.folder_id, &trigger.name, &trigger.id)?;
        self.check_trigger(state, trigger)?;
        edit.put(Some(before), trigger, &trigger.folder_id)
    }

    /// Pauses or resumes a trigger.
    fn set_status(&self, state: &State, edit: &mut Edit, id: &str, status: Status) -> Result<Trigger, Fault> {
        self.alter(state, edit, id, |trigger: &mut Trigger| trigger.set_status(status))
    }

    fn delete_trigger(&self, state: &State, edit: &mut Edit, id: &str) -> Result<(), Fault> {
        edit.delete(&self.own::<Trigger>(state, id)?)
    }
}

/// Operations about a trigger, the newest first. Those of one that is deleted are kept; who made them sees them, and
/// who may see what others do.
fn operations_of(
    call: &Call<'_>,
    id: &str,
    size: i64,
    token: &str,
) -> Result<(Vec<Operation>, String), Fault> {
    let is_there = {
        let state = call.api.store.state();
        let record = state.get(Kind::Trigger, id);
        record.map(|record| call.may(&state, Right::See(Area::Triggers), record)).transpose()?.is_some()
    };
    let (mut operations, next) = call.all_operations_of(id, size, token)?;
    let is_of_trigger = |operation: &Operation| {
        let metadata = operation.metadata.as_ref();
        metadata.is_some_and(|metadata| metadata.type_url.contains(".serverless.triggers."))
    };
    operations.retain(is_of_trigger);
    if is_there {
        return Ok((operations, next));
    }
    let may_see_all =
        access::permits(&call.api.store.state(), &call.subject, Right::See(Area::Audit), &Place::cloud());
    operations.retain(|operation| may_see_all || *operation.created_by == *call.subject);
    if operations.is_empty() { Err(Fault::not_found("trigger", id)) } else { Ok((operations, next)) }
}
