//! Many WebSocket connections at once.

use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use prost_types::Timestamp;
use uuid::Uuid;

use super::connections::{is_text, message};
use crate::api::call::Call;
use crate::api::fault::{Code, Fault};
use crate::api::resource::find;
use crate::api::{Table, list};
use crate::model::connection::{Selection, after};
use crate::model::network;
use crate::model::role::{Area, Right};
use crate::proto::types::triggercast::v1::{
    BroadcastToConnectionsRequest, BroadcastToConnectionsResponse, DisconnectConnectionsRequest,
    DisconnectConnectionsResponse, ListConnectionsRequest, ListConnectionsResponse,
};
use crate::store::Kind;

pub(super) fn add(table: &mut Table) {
    table.add("triggercast.v1.ConnectionsService/List", page);
    table.add("triggercast.v1.ConnectionsService/Broadcast", broadcast);
    table.add("triggercast.v1.ConnectionsService/Disconnect", disconnect);
}

/// Refuses what the caller may not do with the connections of a gateway, which must exist.
fn may(call: &Call<'_>, gateway: &str, right: Right) -> Result<(), Fault> {
    let state = call.api.store.state();
    call.may(&state, right, find(&state, Kind::Gateway, gateway)?)
}

/// What is said by `text`, unless it is empty.
fn given<'a, T: From<&'a str>>(text: &'a str) -> Option<T> {
    Some(text).filter(|text| !text.is_empty()).map(T::from)
}

fn network(text: &str) -> Result<Option<IpNet>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    network::parse(text).map(Some).ok_or_else(|| {
        let what = format!("{text:?} is neither an address nor a network such as 10.0.0.0/8");
        Fault::field("source_ip", what)
    })
}

fn time(field: &str, time: Option<Timestamp>) -> Result<Option<SystemTime>, Fault> {
    let late = |_| Fault::field(field, "A time from 0001-01-01 to 9999-12-31 is expected");
    time.map(|time| SystemTime::try_from(time).map_err(late)).transpose()
}

fn span(field: &str, span: Option<prost_types::Duration>) -> Result<Option<Duration>, Fault> {
    let negative = |_| Fault::field(field, "It must not be negative");
    span.map(|span| Duration::try_from(span).map_err(negative)).transpose()
}

/// What a list is about.
fn selection(request: &ListConnectionsRequest) -> Result<Selection, Fault> {
    Ok(Selection {
        path: given(&request.path),
        source: network(&request.source_ip)?,
        subject: given(&request.subject),
        connected_after: time("connected_after", request.connected_after)?,
        connected_before: time("connected_before", request.connected_before)?,
        idle: span("idle", request.idle)?,
        ..Selection::of(request.gateway_id.as_str().into())
    })
}

fn no_path(gateway: &str, path: &str) -> Fault {
    let what = match path {
        "" => format!("The gateway '{gateway}' is not there just now"),
        path => format!("The path '{path}' of the gateway '{gateway}' is not found"),
    };
    Fault::new(Code::NotFound, what)
}

fn page(call: &Call<'_>, request: ListConnectionsRequest) -> Result<ListConnectionsResponse, Fault> {
    may(call, &request.gateway_id, Right::See(Area::Gateways))?;
    let selection = selection(&request)?;
    let start = match list::after(&request.page_token)?.as_str() {
        "" => Uuid::nil(),
        id => {
            let bad = |_| Fault::field("page_token", "The token is not one of this list");
            after(Uuid::try_parse(id).map_err(bad)?)
        }
    };
    let page = call.api.plant.connections(selection, start, list::size(request.page_size))?;
    let page = page.ok_or_else(|| no_path(&request.gateway_id, &request.path))?;
    Ok(ListConnectionsResponse {
        connections: page.connections.into_iter().map(message).collect(),
        next_page_token: page.next.map(|id| list::token(&id.to_string())).unwrap_or_default(),
    })
}

fn broadcast(
    call: &Call<'_>,
    request: BroadcastToConnectionsRequest,
) -> Result<BroadcastToConnectionsResponse, Fault> {
    may(call, &request.gateway_id, Right::Broadcast)?;
    let is_text = is_text(request.r#type(), &request.data)?;
    let selection = Selection {
        path: given(&request.path),
        subject: given(&request.subject),
        ..Selection::of(request.gateway_id.as_str().into())
    };
    let reach = call.api.plant.broadcast(selection, &request.data, is_text)?;
    let reach = reach.ok_or_else(|| no_path(&request.gateway_id, &request.path))?;
    let (queued, no_room) = (reach.queued as i64, reach.no_room as i64);
    Ok(BroadcastToConnectionsResponse { queued, no_room, cut_short: reach.is_cut_short })
}

fn disconnect(
    call: &Call<'_>,
    request: DisconnectConnectionsRequest,
) -> Result<DisconnectConnectionsResponse, Fault> {
    may(call, &request.gateway_id, Right::WriteConnections)?;
    // The same connections as a list of them has.
    let list = ListConnectionsRequest {
        gateway_id: request.gateway_id,
        path: request.path,
        source_ip: request.source_ip,
        subject: request.subject,
        connected_after: request.connected_after,
        connected_before: request.connected_before,
        idle: request.idle,
        ..ListConnectionsRequest::default()
    };
    let ended = call.api.plant.disconnect_all(selection(&list)?)?;
    let ended = ended.ok_or_else(|| no_path(&list.gateway_id, &list.path))?;
    Ok(DisconnectConnectionsResponse { disconnected: ended.closed as i64, cut_short: ended.is_cut_short })
}
