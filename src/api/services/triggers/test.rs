//! Tries a trigger: what would become of an event. Nothing is sent.

use crate::api::Table;
use crate::api::call::Call;
use crate::api::fault::Fault;
use crate::api::wanted;
use crate::model::event::{Event, EventId};
use crate::model::message;
use crate::model::payload;
use crate::model::role::{Area, Right};
use crate::proto::types::triggercast::v1::test_trigger_request::Trigger as Which;
use crate::proto::types::triggercast::v1::{ActionResult, TestTriggerRequest, TestTriggerResponse};

pub(super) fn add(table: &mut Table) {
    table.add("triggercast.v1.TriggerTestService/Test", test);
}

fn test(call: &Call<'_>, request: TestTriggerRequest) -> Result<TestTriggerResponse, Fault> {
    let trigger = match request.trigger {
        Some(Which::TriggerId(id)) => call.see_trigger(&id)?,
        Some(Which::V1(request)) => super::second::of_request(super::first::second(request)?),
        Some(Which::V2(request)) => super::second::of_request(request),
        None => return Err(Fault::field("trigger", "Exactly one of trigger_id, v1 and v2 is needed")),
    };
    call.may_in_folder(&call.api.store.state(), Right::Change(Area::Triggers), &trigger.folder_id)?;
    call.check_programs(&trigger)?;
    let event = payload::compact(&request.event)
        .map_err(|error| Fault::field("event", format!("It is not JSON: {error}")))?;
    let mut actions = Vec::new();
    for action in &trigger.action {
        let steps = wanted::steps(action);
        let outcome = call.api.plant.try_event(&steps, &event)?;
        actions.push(match outcome {
            Ok(event) => {
                let alone = Event { id: EventId::nil(), json: event.clone() };
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let (event, message) = (text(&event), text(&message::join(&[alone])));
                ActionResult { sent: true, reason: String::new(), event, message }
            }
            Err(reason) => ActionResult { reason, ..ActionResult::default() },
        });
    }
    Ok(TestTriggerResponse { actions })
}
