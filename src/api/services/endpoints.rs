//! Where each service is reached: all of them at one address.

use crate::api::Table;
use crate::api::call::Call;
use crate::api::fault::Fault;
use crate::proto::types::yandex::cloud::endpoint::{
    ApiEndpoint, GetApiEndpointRequest, ListApiEndpointsRequest, ListApiEndpointsResponse,
};

/// The names that the model system's clients ask for.
const IDS: [&str; 16] = [
    "apigateway-connections",
    "broker-data",
    "container-registry",
    "endpoint",
    "iam",
    "iot-broker",
    "iot-data",
    "iot-devices",
    "iotbroker",
    "operation",
    "resource-manager",
    "resourcemanager",
    "serverless-apigateway",
    "serverless-gateway-connections",
    "serverless-triggers",
    "triggercast",
];

pub(super) fn add(table: &mut Table) {
    table.add_open("yandex.cloud.endpoint.ApiEndpointService/Get", get);
    table.add_open("yandex.cloud.endpoint.ApiEndpointService/List", list);
}

fn endpoint(call: &Call<'_>, id: &str) -> ApiEndpoint {
    ApiEndpoint { id: id.to_owned(), address: call.api.settings.address.clone() }
}

fn get(call: &Call<'_>, request: GetApiEndpointRequest) -> Result<ApiEndpoint, Fault> {
    let id = IDS.iter().find(|id| **id == request.api_endpoint_id);
    Ok(endpoint(call, id.ok_or_else(|| Fault::not_found("endpoint", &request.api_endpoint_id))?))
}

fn list(call: &Call<'_>, _: ListApiEndpointsRequest) -> Result<ListApiEndpointsResponse, Fault> {
    let endpoints = IDS.iter().map(|id| endpoint(call, id)).collect();
    Ok(ListApiEndpointsResponse { endpoints, next_page_token: String::new() })
}
