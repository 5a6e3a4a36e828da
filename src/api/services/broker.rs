//! IoT brokers of the embedded MQTT server.

use super::devices::{check_unused, login};
use crate::api::call::{Call, Done, now};
use crate::api::fault::Fault;
use crate::api::resource::{check_name, find, message, record};
use crate::api::{Publisher, Table, mask};
use crate::model::id;
use crate::model::role::{Area, Right};
use crate::proto::types::yandex::cloud::iot::broker::v1::{
    Broker, CreateBrokerMetadata, CreateBrokerRequest, DeleteBrokerMetadata, DeleteBrokerRequest,
    GetBrokerRequest, ListBrokerOperationsRequest, ListBrokerOperationsResponse, ListBrokersRequest,
    ListBrokersResponse, PublishBrokerDataRequest, PublishBrokerDataResponse, UpdateBrokerMetadata,
    UpdateBrokerRequest, broker,
};
use crate::proto::types::yandex::cloud::operation::Operation;
use crate::store::Kind;

pub(super) fn add(table: &mut Table) {
    table.add("yandex.cloud.iot.broker.v1.BrokerService/Get", get);
    table.add("yandex.cloud.iot.broker.v1.BrokerService/List", list);
    table.add("yandex.cloud.iot.broker.v1.BrokerService/Create", create);
    table.add("yandex.cloud.iot.broker.v1.BrokerService/Update", update);
    table.add("yandex.cloud.iot.broker.v1.BrokerService/Delete", delete);
    table.add("yandex.cloud.iot.broker.v1.BrokerService/ListOperations", operations);
    table.add("yandex.cloud.iot.broker.v1.BrokerDataService/Publish", publish);
}

fn get(call: &Call<'_>, request: GetBrokerRequest) -> Result<Broker, Fault> {
    call.see(&request.broker_id)
}

fn list(call: &Call<'_>, request: ListBrokersRequest) -> Result<ListBrokersResponse, Fault> {
    let (brokers, next_page_token) =
        call.page_of_folder(&request.folder_id, request.page_size, &request.page_token, "")?;
    Ok(ListBrokersResponse { brokers, next_page_token })
}

fn create(call: &Call<'_>, request: CreateBrokerRequest) -> Result<Operation, Fault> {
    let given = request.certificates.iter().map(|certificate| certificate.certificate_data.as_str());
    call.may_in_folder(&call.api.store.state(), Right::Change(Area::Devices), &request.folder_id)?;
    let (password, certificates) = login::given(call, &request.password, given)?;
    call.change("Create broker", |state, edit| {
        call.may_in_folder(state, Right::Change(Area::Devices), &request.folder_id)?;
        check_name(state, Kind::Broker, &request.folder_id, &request.name, "")?;
        let broker = Broker {
            id: id::generate("are").to_string(),
            folder_id: request.folder_id,
            created_at: Some(now()),
            name: request.name,
            description: request.description,
            labels: request.labels,
            status: broker::Status::Active.into(),
            log_options: request.log_options,
        };
        let owner = record(&broker, &broker.folder_id);
        login::put_broker(state, edit, &owner, password, certificates)?;
        edit.put_record(None, &broker, owner)?;
        let metadata = CreateBrokerMetadata { broker_id: broker.id.clone() };
        Ok(Done { resource: broker.id.as_str().into(), metadata, response: broker })
    })
}

fn update(call: &Call<'_>, request: UpdateBrokerRequest) -> Result<Operation, Fault> {
    call.change("Update broker", |state, edit| {
        let before: Broker = call.own(state, &request.broker_id)?;
        let broker: Broker = mask::apply(&request, request.update_mask.as_ref(), &["broker_id"], &before)?;
        check_name(state, Kind::Broker, &broker.folder_id, &broker.name, &broker.id)?;
        edit.put(Some(&before), &broker, &broker.folder_id)?;
        let metadata = UpdateBrokerMetadata { broker_id: broker.id.clone() };
        Ok(Done { resource: broker.id.as_str().into(), metadata, response: broker })
    })
}

fn delete(call: &Call<'_>, request: DeleteBrokerRequest) -> Result<Operation, Fault> {
    call.change("Delete broker", |state, edit| {
        let old = call.own_record::<Broker>(state, &request.broker_id)?;
        check_unused(state, &old.id, "broker")?;
        login::delete_all(state, edit, &old.id);
        edit.delete(&message::<Broker>(old)?)?;
        let metadata = DeleteBrokerMetadata { broker_id: old.id.to_string() };
        Ok(Done { resource: old.id.clone(), metadata, response: () })
    })
}

fn operations(
    call: &Call<'_>,
    request: ListBrokerOperationsRequest,
) -> Result<ListBrokerOperationsResponse, Fault> {
    let (operations, next_page_token) =
        call.operations_of::<Broker>(&request.broker_id, request.page_size, &request.page_token)?;
    Ok(ListBrokerOperationsResponse { operations, next_page_token })
}

fn publish(call: &Call<'_>, request: PublishBrokerDataRequest) -> Result<PublishBrokerDataResponse, Fault> {
    {
        let state = call.api.store.state();
        call.may(&state, Right::Publish, find(&state, Kind::Broker, &request.broker_id)?)?;
    }
    let publisher = Publisher::Broker(&request.broker_id);
    call.api.plant.publish(publisher, &request.topic, &request.data)?;
    Ok(PublishBrokerDataResponse {})
}
