//! What passes through the server.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use prost_types::Timestamp;

use super::triggers::source_right;
use crate::api::access::{self, Place};
use crate::api::call::Call;
use crate::api::fault::Fault;
use crate::api::resource::find;
use crate::api::watch::{SeenAction, SeenJournal, SeenSource};
use crate::api::{Table, Trouble};
use crate::model::activity::{self, DeviceActivity as Heard, PathActivity as SeenPath, Totals as Sums};
use crate::model::id::Id;
use crate::model::role::{Area, Right};
use crate::model::trigger::BatchClose;
use crate::proto::types::triggercast::v1::{
    ActionActivity, Condition, ContainerRegistryActivity, DeviceActivity, DeviceMessage, GatewayActivity,
    GetContainerRegistryActivityRequest, GetGatewayActivityRequest, GetOverviewRequest,
    GetTriggerActivityRequest, JournalActivity, ListDeviceActivityRequest, ListDeviceActivityResponse,
    Overview, PathActivity, Problem, Sample, SourceActivity, Totals, TriggerActivity,
};
use crate::proto::types::yandex::cloud::iot::devices::v1::{Device, Registry};
use crate::proto::types::yandex::cloud::serverless::apigateway::v1::ApiGateway;
use crate::proto::types::yandex::cloud::serverless::triggers::v2::Trigger;
use crate::store::Kind;

/// Sources, paths and problems that one answer tells.
const MOST_SOURCES: usize = 200;
const MOST_PATHS: usize = 200;
const MOST_PROBLEMS: usize = 100;
/// Events of a trigger if the request does not say how many.
const EVENTS: usize = 10;

pub(super) fn add(table: &mut Table) {
    table.add("triggercast.v1.MonitoringService/GetOverview", overview);
    table.add("triggercast.v1.MonitoringService/GetGatewayActivity", gateway);
    table.add("triggercast.v1.MonitoringService/GetTriggerActivity", trigger);
    table.add("triggercast.v1.MonitoringService/ListDeviceActivity", devices);
    table.add("triggercast.v1.MonitoringService/GetContainerRegistryActivity", container_registry);
}

/// A number as the messages have it.
fn int(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

pub(super) fn condition(trouble: Trouble) -> Condition {
    Condition {
        reason: trouble.reason.to_owned(),
        message: trouble.message,
        since: trouble.since.map(Timestamp::from),
    }
}

fn conditions(troubles: Vec<Trouble>) -> Vec<Condition> {
    troubles.into_iter().map(condition).collect()
}

fn texts(events: Vec<Bytes>) -> Vec<String> {
    events.into_iter().map(|event| String::from_utf8_lossy(&event).into_owned()).collect()
}

fn overview(call: &Call<'_>, request: GetOverviewRequest) -> Result<Overview, Fault> {
    {
        let state = call.api.store.state();
        // All that it shows something of; the role `viewer` permits to see them.
        for area in [Area::Triggers, Area::Gateways, Area::Devices, Area::Registries] {
            access::check(&state, &call.subject, Right::See(area), &Place::cloud())?;
        }
    }
    let seen = call.api.plant.overview(u64::try_from(request.after_sample).unwrap_or(0));
    let failing = seen.sources.iter().filter(|source| !source.troubles.is_empty()).count();
    let gateway_ids: BTreeSet<&Id> = seen.paths.iter().map(|path| &path.key.gateway_id).collect();
    let (source_count, path_count, gateway_count) = (seen.sources.len(), seen.paths.len(), gateway_ids.len());
    let problem = |(what, trouble)| Problem { what, condition: Some(condition(trouble)) };
    Ok(Overview {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: Some(seen.started_at.into()),
        totals: Some(totals(&seen.totals)),
        samples: seen.samples.iter().map(sample).collect(),
        sources: seen.sources.into_iter().take(MOST_SOURCES).map(source).collect(),
        gateways: gateways(seen.paths.into_iter().take(MOST_PATHS)),
        journal: Some(journal(seen.journal)),
        problems: seen.problems.into_iter().take(MOST_PROBLEMS).map(problem).collect(),
        active_triggers: int(seen.active_triggers),
        paused_triggers: int(seen.paused_triggers),
        gateway_address: seen.gateway_address,
        gateway_tls: seen.gateway_tls,
        source_count: int(source_count),
        failing_source_count: int(failing),
        gateway_count: int(gateway_count),
        path_count: int(path_count),
    })
}

fn totals(sums: &Sums) -> Totals {
    Totals {
        events: int(sums.events),
        batches: int(sums.batches),
        deliveries: int(sums.deliveries),
        websocket_connections: int(sums.websocket_connections),
        event_streams: int(sums.event_streams),
        mqtt_connections: int(sums.mqtt_connections),
        slow_clients: int(sums.slow_clients),
        dropped: int(sums.dropped),
    }
}

fn sample(sample: &activity::Sample) -> Sample {
    Sample {
        number: int(sample.number),
        at: Some(sample.at.into()),
        events: int(sample.events),
        batches: int(sample.batches),
        deliveries: int(sample.deliveries),
        websocket_connections: int(sample.websocket_connections),
        mqtt_connections: int(sample.mqtt_connections),
        writes: int(sample.writes),
        lag_sum: prost_types::Duration::try_from(sample.lag_sum).ok(),
    }
}

fn source(source: SeenSource) -> SourceActivity {
    SourceActivity {
        name: source.name,
        trigger_ids: source.triggers.iter().map(ToString::to_string).collect(),
        conditions: conditions(source.troubles),
    }
}

fn path(path: SeenPath) -> PathActivity {
    PathActivity {
        path: path.key.path.to_string(),
        connections: int(path.connections),
        events: int(path.events),
        batches: int(path.batches),
    }
}

/// Paths, which are in order, under their gateways.
fn gateways(paths: impl Iterator<Item = SeenPath>) -> Vec<GatewayActivity> {
    let mut gateways: Vec<GatewayActivity> = Vec::new();
    for seen in paths {
        let gateway_id = seen.key.gateway_id.to_string();
        let activity = path(seen);
        match gateways.last_mut().filter(|last| last.gateway_id == gateway_id) {
            Some(gateway) => gateway.paths.push(activity),
            None => gateways.push(GatewayActivity { gateway_id, paths: vec![activity] }),
        }
    }
    gateways
}

fn journal(journal: SeenJournal) -> JournalActivity {
    JournalActivity {
        events: int(journal.events),
        commits: int(journal.commits),
        commit_mean: prost_types::Duration::try_from(journal.commit_mean).ok(),
        size: int(journal.size),
        conditions: conditions(journal.troubles),
    }
}

fn gateway(call: &Call<'_>, request: GetGatewayActivityRequest) -> Result<GatewayActivity, Fault> {
    call.see_record::<ApiGateway>(&call.api.store.state(), &request.gateway_id)?;
    let paths = call.api.plant.paths(&request.gateway_id).into_iter().map(path).collect();
    Ok(GatewayActivity { gateway_id: request.gateway_id, paths })
}

/// Whether the caller may see what comes from the source of a trigger.
fn sees_source(call: &Call<'_>, trigger: &Trigger) -> bool {
    let state = call.api.store.state();
    source_right(trigger).is_some_and(|(kind, id, right)| {
        find(&state, kind, id).and_then(|record| call.may(&state, right, record)).is_ok()
    })
}

fn trigger(call: &Call<'_>, request: GetTriggerActivityRequest) -> Result<TriggerActivity, Fault> {
    let events_withheld = !sees_source(call, &call.see::<Trigger>(&request.trigger_id)?);
    let plant = &call.api.plant;
    let most = usize::try_from(request.event_count).ok().filter(|count| *count > 0).unwrap_or(EVENTS);
    Ok(TriggerActivity {
        conditions: conditions(plant.troubles(&request.trigger_id)),
        actions: plant.actions(&request.trigger_id).into_iter().map(action).collect(),
        events: match events_withheld {
            true => Vec::new(),
            false => texts(plant.last_events(&request.trigger_id, most)?),
        },
        trigger_id: request.trigger_id,
        events_withheld,
    })
}

fn action(action: SeenAction) -> ActionActivity {
    let SeenAction { target, settings, activity } = action;
    let closed = BatchClose::ALL.map(|why| (why.name().to_owned(), int(activity.closed_for(why))));
    ActionActivity {
        gateway_id: target.gateway_id.to_string(),
        path: target.path.to_string(),
        events: int(activity.events),
        batches: int(activity.batches),
        closed: closed.into(),
        open_events: int(activity.open_events),
        open_bytes: int(activity.open_bytes),
        closes_at: activity.closes_at.map(Timestamp::from),
        max_events: int(settings.max_count),
        max_bytes: int(settings.max_bytes),
        cutoff: prost_types::Duration::try_from(settings.cutoff).ok(),
        last_batch_at: activity.last_batch_at.map(Timestamp::from),
    }
}

fn devices(call: &Call<'_>, request: ListDeviceActivityRequest) -> Result<ListDeviceActivityResponse, Fault> {
    let registry = &request.registry_id;
    call.see_record::<Registry>(&call.api.store.state(), registry)?;
    let of_registry = |record: &crate::store::Record| *record.parent == **registry;
    let (page, next_page_token) =
        call.page::<Device>(of_registry, request.page_size, &request.page_token, "")?;
    let ids: Vec<Id> = page.iter().map(|device| device.id.as_str().into()).collect();
    let heard = call.api.plant.heard(registry, &ids).into_iter();
    let mut heard: HashMap<Id, Heard> = heard.map(|heard| (heard.id.clone(), heard)).collect();
    let silent = |id: &Id| Heard { id: id.clone(), ..Heard::default() };
    let devices = ids.iter().map(|id| device(heard.remove(id).unwrap_or_else(|| silent(id)))).collect();
    Ok(ListDeviceActivityResponse { devices, next_page_token })
}

fn device(heard: Heard) -> DeviceActivity {
    let message = |message: activity::DeviceMessage| DeviceMessage {
        topic: message.topic.to_string(),
        at: Some(message.at.into()),
        payload: message.payload.into(),
        payload_size: int(message.size),
    };
    DeviceActivity {
        device_id: heard.id.to_string(),
        connected: heard.is_connected,
        last_seen_at: heard.last_seen_at.map(Timestamp::from),
        messages: int(heard.messages),
        last_messages: heard.last_messages.into_iter().map(message).collect(),
    }
}

fn container_registry(
    call: &Call<'_>,
    request: GetContainerRegistryActivityRequest,
) -> Result<ContainerRegistryActivity, Fault> {
    {
        let state = call.api.store.state();
        call.may(&state, Right::PullImages, find(&state, Kind::ContainerRegistry, &request.registry_id)?)?;
    }
    let (troubles, events) = call.api.plant.container_registry(&request.registry_id);
    Ok(ContainerRegistryActivity { conditions: conditions(troubles), events: texts(events) })
}
