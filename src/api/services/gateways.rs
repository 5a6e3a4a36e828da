//! API gateways, made from OpenAPI documents.

use prost::Message;

use crate::api::access::bindings_id;
use crate::api::call::{Call, Done, Edit, now};
use crate::api::fault::{Code, Fault};
use crate::api::openapi;
use crate::api::resource::check_name;
use crate::api::{Table, mask, wanted};
use crate::model::id::{self, Id};
use crate::model::role::{Area, Right};
use crate::proto::types::yandex::cloud::operation::Operation;
use crate::proto::types::yandex::cloud::serverless::apigateway::v1::get_openapi_spec_request::Format;
use crate::proto::types::yandex::cloud::serverless::apigateway::v1::{
    ApiGateway, CreateApiGatewayMetadata, CreateApiGatewayRequest, DeleteApiGatewayMetadata,
    DeleteApiGatewayRequest, GetApiGatewayRequest, GetOpenapiSpecRequest, GetOpenapiSpecResponse,
    ListApiGatewayRequest, ListApiGatewayResponse, ListOperationsRequest, ListOperationsResponse,
    ResumeApiGatewayMetadata, ResumeApiGatewayRequest, StopApiGatewayMetadata, StopApiGatewayRequest,
    UpdateApiGatewayMetadata, UpdateApiGatewayRequest, api_gateway, create_api_gateway_request,
    update_api_gateway_request,
};
use crate::store::{Kind, Record};

pub(super) fn add(table: &mut Table) {
    table.add("yandex.cloud.serverless.apigateway.v1.ApiGatewayService/Get", get);
    table.add("yandex.cloud.serverless.apigateway.v1.ApiGatewayService/List", list);
    table.add("yandex.cloud.serverless.apigateway.v1.ApiGatewayService/Create", create);
    table.add("yandex.cloud.serverless.apigateway.v1.ApiGatewayService/Update", update);
    table.add("yandex.cloud.serverless.apigateway.v1.ApiGatewayService/Delete", delete);
    table.add("yandex.cloud.serverless.apigateway.v1.ApiGatewayService/Stop", stop);
    table.add("yandex.cloud.serverless.apigateway.v1.ApiGatewayService/Resume", resume);
    table.add("yandex.cloud.serverless.apigateway.v1.ApiGatewayService/GetOpenapiSpec", get_spec);
    table.add("yandex.cloud.serverless.apigateway.v1.ApiGatewayService/ListOperations", operations);
}

fn get(call: &Call<'_>, request: GetApiGatewayRequest) -> Result<ApiGateway, Fault> {
    call.see(&request.api_gateway_id)
}

fn list(call: &Call<'_>, request: ListApiGatewayRequest) -> Result<ListApiGatewayResponse, Fault> {
    let (api_gateways, next_page_token) =
        call.page_of_folder(&request.folder_id, request.page_size, &request.page_token, &request.filter)?;
    Ok(ListApiGatewayResponse { api_gateways, next_page_token })
}

/// Puts the document of a gateway beside it.
fn put_spec(edit: &mut Edit, gateway: &ApiGateway, spec: String) {
    let kept = GetOpenapiSpecResponse { api_gateway_id: gateway.id.clone(), openapi_spec: spec };
    edit.put_silent(Record {
        parent: gateway.id.as_str().into(),
        ..Record::new(
            Kind::Specification,
            gateway.id.as_str().into(),
            gateway.folder_id.as_str().into(),
            String::new(),
            kept.encode_to_vec(),
        )
    });
}

fn create(call: &Call<'_>, request: CreateApiGatewayRequest) -> Result<Operation, Fault> {
    let Some(create_api_gateway_request::Spec::OpenapiSpec(spec)) = request.spec else {
        return Err(Fault::field("openapi_spec", "Field is required"));
    };
    call.may_in_folder(&call.api.store.state(), Right::Change(Area::Gateways), &request.folder_id)?;
    openapi::paths(&spec)?;
    call.change("Create API gateway", |state, edit| {
        call.may_in_folder(state, Right::Change(Area::Gateways), &request.folder_id)?;
        check_name(state, Kind::Gateway, &request.folder_id, &request.name, "")?;
        let gateway = ApiGateway {
            id: id::generate("d5d").to_string(),
            folder_id: request.folder_id,
            created_at: Some(now()),
            name: request.name,
            description: request.description,
            labels: request.labels,
            status: api_gateway::Status::Active.into(),
            ..ApiGateway::default()
        };
        put_spec(edit, &gateway, spec);
        edit.put(None, &gateway, &gateway.folder_id)?;
        let metadata = CreateApiGatewayMetadata { api_gateway_id: gateway.id.clone() };
        Ok(Done { resource: gateway.id.as_str().into(), metadata, response: gateway })
    })
}

fn update(call: &Call<'_>, request: UpdateApiGatewayRequest) -> Result<Operation, Fault> {
    const FIXED: [&str; 6] =
        ["api_gateway_id", "openapi_spec", "connectivity", "log_options", "variables", "canary"];
    let mut request = request;
    let is_named = |mask: &prost_types::FieldMask| {
        mask.paths.is_empty() || mask.paths.iter().any(|path| path == "openapi_spec")
    };
    let wants_spec = request.update_mask.as_ref().is_none_or(is_named);
    let spec = match request.spec.take() {
        Some(update_api_gateway_request::Spec::OpenapiSpec(spec)) if wants_spec => Some(spec),
        None if wants_spec => return Err(Fault::field("openapi_spec", "Field is required")),
        _ => None,
    };
    call.own_record::<ApiGateway>(&call.api.store.state(), &request.api_gateway_id)?;
    spec.as_deref().map(openapi::paths).transpose()?;
    // What is left of a mask that named the document, and what it named alone.
    let only_spec = request
        .update_mask
        .as_ref()
        .is_some_and(|mask| !mask.paths.is_empty() && mask.paths.iter().all(|path| path == "openapi_spec"));
    if let Some(mask) = &mut request.update_mask {
        mask.paths.retain(|path| path != "openapi_spec");
    }
    call.change("Update API gateway", |state, edit| {
        let before: ApiGateway = call.own(state, &request.api_gateway_id)?;
        let gateway = if only_spec {
            before.clone()
        } else {
            mask::apply(&request, request.update_mask.as_ref(), &FIXED, &before)?
        };
        check_name(state, Kind::Gateway, &gateway.folder_id, &gateway.name, &gateway.id)?;
        if let Some(spec) = spec {
            put_spec(edit, &gateway, spec);
        }
        edit.put(Some(&before), &gateway, &gateway.folder_id)?;
        let metadata = UpdateApiGatewayMetadata { api_gateway_id: gateway.id.clone() };
        Ok(Done { resource: gateway.id.as_str().into(), metadata, response: gateway })
    })
}

fn delete(call: &Call<'_>, request: DeleteApiGatewayRequest) -> Result<Operation, Fault> {
    call.change("Delete API gateway", |state, edit| {
        let gateway: ApiGateway = call.own(state, &request.api_gateway_id)?;
        if let Some(trigger) = wanted::triggers_of(state, &gateway.id).first() {
            let what = format!("The trigger '{trigger}' broadcasts through the gateway; delete that first");
            return Err(Fault::new(Code::FailedPrecondition, what));
        }
        let id = Id::from(gateway.id.as_str());
        edit.delete_silent(Kind::Specification, id.clone());
        edit.delete_silent(Kind::AccessBindings, bindings_id(Kind::Gateway, &id));
        edit.delete(&gateway)?;
        let metadata = DeleteApiGatewayMetadata { api_gateway_id: gateway.id };
        Ok(Done { resource: id, metadata, response: () })
    })
}

fn stop(call: &Call<'_>, request: StopApiGatewayRequest) -> Result<Operation, Fault> {
    call.change("Stop API gateway", |state, edit| {
        let stop = |gateway: &mut ApiGateway| gateway.set_status(api_gateway::Status::Stopped);
        let gateway = call.alter(state, edit, &request.api_gateway_id, stop)?;
        let metadata = StopApiGatewayMetadata { api_gateway_id: gateway.id.clone() };
        Ok(Done { resource: gateway.id.into(), metadata, response: () })
    })
}

fn resume(call: &Call<'_>, request: ResumeApiGatewayRequest) -> Result<Operation, Fault> {
    call.change("Resume API gateway", |state, edit| {
        let resume = |gateway: &mut ApiGateway| gateway.set_status(api_gateway::Status::Active);
        let gateway = call.alter(state, edit, &request.api_gateway_id, resume)?;
        let metadata = ResumeApiGatewayMetadata { api_gateway_id: gateway.id.clone() };
        Ok(Done { resource: gateway.id.as_str().into(), metadata, response: gateway })
    })
}

fn get_spec(call: &Call<'_>, request: GetOpenapiSpecRequest) -> Result<GetOpenapiSpecResponse, Fault> {
    let gateway: ApiGateway = call.see(&request.api_gateway_id)?;
    let kept = {
        let state = call.api.store.state();
        state.get(Kind::Specification, &gateway.id).map(|record| record.body.clone())
    };
    let none = || {
        let what = format!("The gateway '{}' is declared by its paths in the configuration file", gateway.id);
        Fault::new(Code::FailedPrecondition, what)
    };
    let broken = |error: prost::DecodeError| Fault::new(Code::Internal, error.to_string());
    let mut kept = GetOpenapiSpecResponse::decode(&*kept.ok_or_else(none)?).map_err(broken)?;
    if request.format() == Format::Json {
        kept.openapi_spec = openapi::as_json(&kept.openapi_spec)?;
    }
    Ok(kept)
}

fn operations(call: &Call<'_>, request: ListOperationsRequest) -> Result<ListOperationsResponse, Fault> {
    let (operations, next_page_token) =
        call.operations_of::<ApiGateway>(&request.api_gateway_id, request.page_size, &request.page_token)?;
    Ok(ListOperationsResponse { operations, next_page_token })
}
