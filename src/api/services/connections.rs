//! Single WebSocket connections.

use crate::api::Table;
use crate::api::access::{self, Place};
use crate::api::call::Call;
use crate::api::fault::Fault;
use crate::model::connection;
use crate::model::role::{Area, Right};
use crate::proto::types::yandex::cloud::serverless::apigateway::websocket::v1::send_to_connection_request::DataType;
use crate::proto::types::yandex::cloud::serverless::apigateway::websocket::v1::{
    Connection, DisconnectRequest, DisconnectResponse, GetConnectionRequest, Identity,
    SendToConnectionRequest, SendToConnectionResponse,
};
use crate::store::Kind;

pub(super) fn add(table: &mut Table) {
    const SERVICE: [&str; 3] = [
        "yandex.cloud.serverless.apigateway.websocket.v1.ConnectionService/Get",
        "yandex.cloud.serverless.apigateway.websocket.v1.ConnectionService/Send",
        "yandex.cloud.serverless.apigateway.websocket.v1.ConnectionService/Disconnect",
    ];
    table.add(SERVICE[0], get);
    table.add(SERVICE[1], send);
    table.add(SERVICE[2], disconnect);
}

/// A connection as calls tell it.
pub(super) fn message(found: connection::Connection) -> Connection {
    let source_ip = found.source_ip.map(|ip| ip.to_string()).unwrap_or_default();
    Connection {
        id: found.id.to_string(),
        gateway_id: found.path.gateway_id.to_string(),
        identity: Some(Identity { source_ip, user_agent: found.user_agent }),
        connected_at: Some(found.connected_at.into()),
        last_active_at: Some(found.last_active_at.into()),
        path: found.path.path.to_string(),
        subject: found.subject.unwrap_or_default(),
        waiting_bytes: i64::try_from(found.waiting_bytes).unwrap_or(i64::MAX),
        behind: found.is_behind,
    }
}

/// Whether a message of this type is text, which must be UTF-8.
pub(super) fn is_text(kind: DataType, data: &[u8]) -> Result<bool, Fault> {
    let is_text = kind == DataType::Text;
    if is_text && std::str::from_utf8(data).is_err() {
        return Err(Fault::field("data", "A message of the type TEXT must be UTF-8"));
    }
    Ok(is_text)
}

/// The connection, if the caller may do this with those of its gateway.
fn find(call: &Call<'_>, id: &str, right: Right) -> Result<connection::Connection, Fault> {
    let missing = || Fault::not_found("connection", id);
    let connection = call.api.plant.connection(id).ok_or_else(missing)?;
    let state = call.api.store.state();
    let place = state.get(Kind::Gateway, &connection.path.gateway_id).map_or_else(Place::cloud, Place::of);
    access::check(&state, &call.subject, right, &place)?;
    Ok(connection)
}

fn get(call: &Call<'_>, request: GetConnectionRequest) -> Result<Connection, Fault> {
    Ok(message(find(call, &request.connection_id, Right::See(Area::Gateways))?))
}

fn send(call: &Call<'_>, request: SendToConnectionRequest) -> Result<SendToConnectionResponse, Fault> {
    find(call, &request.connection_id, Right::WriteConnections)?;
    let is_text = is_text(request.r#type(), &request.data)?;
    if !call.api.plant.send(&request.connection_id, &request.data, is_text)? {
        return Err(Fault::not_found("connection", &request.connection_id));
    }
    Ok(SendToConnectionResponse {})
}

fn disconnect(call: &Call<'_>, request: DisconnectRequest) -> Result<DisconnectResponse, Fault> {
    find(call, &request.connection_id, Right::WriteConnections)?;
    if !call.api.plant.disconnect(&request.connection_id) {
        return Err(Fault::not_found("connection", &request.connection_id));
    }
    Ok(DisconnectResponse {})
}
