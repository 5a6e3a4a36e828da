//! Device registries and devices.

use crate::api::access::bindings_id;
use crate::api::call::{Call, Done, now};
use crate::api::fault::{Code, Fault};
use crate::api::resource::{check_name, find, message, record};
use crate::api::{Publisher, Table, list, mask, wanted};
use crate::model::id::{self, Id};
use crate::model::role::{Area, Right};
use crate::proto::types::yandex::cloud::iot::devices::v1::{
    CreateDeviceMetadata, CreateDeviceRequest, CreateRegistryMetadata, CreateRegistryRequest,
    DeleteDeviceMetadata, DeleteDeviceRequest, DeleteRegistryMetadata, DeleteRegistryRequest, Device,
    DeviceAlias, DisableRegistryMetadata, DisableRegistryRequest, EnableRegistryMetadata,
    EnableRegistryRequest, GetByNameDeviceRequest, GetByNameRegistryRequest, GetDeviceRequest,
    GetRegistryRequest, ListDeviceOperationsRequest, ListDeviceOperationsResponse,
    ListDeviceTopicAliasesRequest, ListDeviceTopicAliasesResponse, ListDevicesRequest, ListDevicesResponse,
    ListRegistriesRequest, ListRegistriesResponse, ListRegistryOperationsRequest,
    ListRegistryOperationsResponse, PublishDeviceDataRequest, PublishDeviceDataResponse,
    PublishRegistryDataRequest, PublishRegistryDataResponse, Registry, UpdateDeviceMetadata,
    UpdateDeviceRequest, UpdateRegistryMetadata, UpdateRegistryRequest, device, list_devices_request,
    registry,
};
use crate::proto::types::yandex::cloud::operation::Operation;
use crate::store::{Kind, Record, State};

pub(in crate::api) mod login;

pub(super) fn add(table: &mut Table) {
    table.add("yandex.cloud.iot.devices.v1.RegistryService/Get", get_registry);
    table.add("yandex.cloud.iot.devices.v1.RegistryService/GetByName", get_registry_by_name);
    table.add("yandex.cloud.iot.devices.v1.RegistryService/List", list_registries);
    table.add("yandex.cloud.iot.devices.v1.RegistryService/Create", create_registry);
    table.add("yandex.cloud.iot.devices.v1.RegistryService/Update", update_registry);
    table.add("yandex.cloud.iot.devices.v1.RegistryService/Delete", delete_registry);
    table.add("yandex.cloud.iot.devices.v1.RegistryService/Enable", enable);
    table.add("yandex.cloud.iot.devices.v1.RegistryService/Disable", disable);
    table.add("yandex.cloud.iot.devices.v1.RegistryService/ListDeviceTopicAliases", list_aliases);
    table.add("yandex.cloud.iot.devices.v1.RegistryService/ListOperations", registry_operations);
    table.add("yandex.cloud.iot.devices.v1.RegistryDataService/Publish", publish_registry);
    table.add("yandex.cloud.iot.devices.v1.DeviceService/Get", get_device);
    table.add("yandex.cloud.iot.devices.v1.DeviceService/GetByName", get_device_by_name);
    table.add("yandex.cloud.iot.devices.v1.DeviceService/List", list_devices);
    table.add("yandex.cloud.iot.devices.v1.DeviceService/Create", create_device);
    table.add("yandex.cloud.iot.devices.v1.DeviceService/Update", update_device);
    table.add("yandex.cloud.iot.devices.v1.DeviceService/Delete", delete_device);
    table.add("yandex.cloud.iot.devices.v1.DeviceService/ListOperations", device_operations);
    table.add("yandex.cloud.iot.devices.v1.DeviceDataService/Publish", publish_device);
    login::add(table);
}

const CHANGE: Right = Right::Change(Area::Devices);

fn get_registry(call: &Call<'_>, request: GetRegistryRequest) -> Result<Registry, Fault> {
    call.see(&request.registry_id)
}

fn get_registry_by_name(call: &Call<'_>, request: GetByNameRegistryRequest) -> Result<Registry, Fault> {
    let found = {
        let state = call.api.store.state();
        let named = state.named(Kind::DeviceRegistry, &request.folder_id, &request.registry_name);
        named.map(|record| record.id.clone())
    };
    call.see(&found.ok_or_else(|| Fault::not_found("device registry", &request.registry_name))?)
}

fn list_registries(call: &Call<'_>, request: ListRegistriesRequest) -> Result<ListRegistriesResponse, Fault> {
    let (registries, next_page_token) =
        call.page_of_folder(&request.folder_id, request.page_size, &request.page_token, "")?;
    Ok(ListRegistriesResponse { registries, next_page_token })
}

fn create_registry(call: &Call<'_>, request: CreateRegistryRequest) -> Result<Operation, Fault> {
    let given = request.certificates.iter().map(|certificate| certificate.certificate_data.as_str());
    call.may_in_folder(&call.api.store.state(), CHANGE, &request.folder_id)?;
    let (password, certificates) = login::given(call, &request.password, given)?;
    call.change("Create registry", |state, edit| {
        call.may_in_folder(state, CHANGE, &request.folder_id)?;
        check_name(state, Kind::DeviceRegistry, &request.folder_id, &request.name, "")?;
        let registry = Registry {
            id: id::generate("are").to_string(),
            folder_id: request.folder_id,
            created_at: Some(now()),
            name: request.name,
            description: request.description,
            labels: request.labels,
            status: registry::Status::Active.into(),
            log_group_id: String::new(),
            log_options: request.log_options,
        };
        let owner = record(&registry, &registry.folder_id);
        login::put_registry(state, edit, &owner, password, certificates)?;
        edit.put_record(None, &registry, owner)?;
        let metadata = CreateRegistryMetadata { registry_id: registry.id.clone() };
        Ok(Done { resource: registry.id.as_str().into(), metadata, response: registry })
    })
}

fn update_registry(call: &Call<'_>, request: UpdateRegistryRequest) -> Result<Operation, Fault> {
    call.change("Update registry", |state, edit| {
        let before: Registry = call.own(state, &request.registry_id)?;
        let registry: Registry =
            mask::apply(&request, request.update_mask.as_ref(), &["registry_id"], &before)?;
        check_name(state, Kind::DeviceRegistry, &registry.folder_id, &registry.name, &registry.id)?;
        edit.put(Some(&before), &registry, &registry.folder_id)?;
        let metadata = UpdateRegistryMetadata { registry_id: registry.id.clone() };
        Ok(Done { resource: registry.id.as_str().into(), metadata, response: registry })
    })
}

/// Refuses to delete what a trigger reads.
pub(super) fn check_unused(state: &State, source: &str, what: &str) -> Result<(), Fault> {
    let users = wanted::triggers_of(state, source);
    match users.first() {
        None => Ok(()),
        Some(first) => {
            let text = format!("The {what} '{source}' is read by the trigger '{first}'; delete that first");
            Err(Fault::new(Code::FailedPrecondition, text))
        }
    }
}

fn delete_registry(call: &Call<'_>, request: DeleteRegistryRequest) -> Result<Operation, Fault> {
    call.change("Delete registry", |state, edit| {
        let registry: Registry = call.own(state, &request.registry_id)?;
        if let Some(device) = state.all(Kind::Device).find(|device| *device.parent == *registry.id) {
            let what = format!("The registry has the device '{}'; delete its devices first", device.id);
            return Err(Fault::new(Code::FailedPrecondition, what));
        }
        check_unused(state, &registry.id, "device registry")?;
        login::delete_all(state, edit, &registry.id);
        edit.delete_silent(Kind::AccessBindings, bindings_id(Kind::DeviceRegistry, &registry.id));
        edit.delete(&registry)?;
        let metadata = DeleteRegistryMetadata { registry_id: registry.id.clone() };
        Ok(Done { resource: registry.id.into(), metadata, response: () })
    })
}

fn enable(call: &Call<'_>, request: EnableRegistryRequest) -> Result<Operation, Fault> {
    call.change("Enable registry", |state, edit| {
        let enable = |registry: &mut Registry| registry.set_status(registry::Status::Active);
        let registry = call.alter(state, edit, &request.registry_id, enable)?;
        let metadata = EnableRegistryMetadata { registry_id: registry.id.clone() };
        Ok(Done { resource: registry.id.as_str().into(), metadata, response: registry })
    })
}

fn disable(call: &Call<'_>, request: DisableRegistryRequest) -> Result<Operation, Fault> {
    call.change("Disable registry", |state, edit| {
        let disable = |registry: &mut Registry| registry.set_status(registry::Status::Disabled);
        let registry = call.alter(state, edit, &request.registry_id, disable)?;
        let metadata = DisableRegistryMetadata { registry_id: registry.id.clone() };
        Ok(Done { resource: registry.id.as_str().into(), metadata, response: registry })
    })
}

fn list_aliases(
    call: &Call<'_>,
    request: ListDeviceTopicAliasesRequest,
) -> Result<ListDeviceTopicAliasesResponse, Fault> {
    call.see::<Registry>(&request.registry_id)?;
    let state = call.api.store.state();
    let mut aliases = Vec::new();
    for record in state.all(Kind::Device).filter(|device| *device.parent == *request.registry_id) {
        let device: Device = message(record)?;
        aliases.extend(device.topic_aliases.into_iter().map(|(alias, topic_prefix)| DeviceAlias {
            device_id: device.id.clone(),
            topic_prefix,
            alias,
        }));
    }
    aliases.sort_by(|a, b| a.alias.cmp(&b.alias));
    let (aliases, next_page_token) = list::slice(aliases, request.page_size, &request.page_token)?;
    Ok(ListDeviceTopicAliasesResponse { aliases, next_page_token })
}

fn registry_operations(
    call: &Call<'_>,
    request: ListRegistryOperationsRequest,
) -> Result<ListRegistryOperationsResponse, Fault> {
    let (operations, next_page_token) =
        call.operations_of::<Registry>(&request.registry_id, request.page_size, &request.page_token)?;
    Ok(ListRegistryOperationsResponse { operations, next_page_token })
}

/// In a registry that is disabled nobody publishes.
fn check_enabled(state: &State, registry_id: &str) -> Result<(), Fault> {
    let registry: Registry = message(find(state, Kind::DeviceRegistry, registry_id)?)?;
    if registry.status() != registry::Status::Disabled {
        return Ok(());
    }
    let what = format!("The device registry '{registry_id}' is disabled; enable it first");
    Err(Fault::new(Code::FailedPrecondition, what))
}

fn publish_registry(
    call: &Call<'_>,
    request: PublishRegistryDataRequest,
) -> Result<PublishRegistryDataResponse, Fault> {
    {
        let state = call.api.store.state();
        call.may(&state, Right::Publish, find(&state, Kind::DeviceRegistry, &request.registry_id)?)?;
        check_enabled(&state, &request.registry_id)?;
    }
    let publisher = Publisher::Registry(&request.registry_id);
    call.api.plant.publish(publisher, &request.topic, &request.data)?;
    Ok(PublishRegistryDataResponse {})
}

fn get_device(call: &Call<'_>, request: GetDeviceRequest) -> Result<Device, Fault> {
    call.see(&request.device_id)
}

fn get_device_by_name(call: &Call<'_>, request: GetByNameDeviceRequest) -> Result<Device, Fault> {
    let found = {
        let state = call.api.store.state();
        let named = state.named(Kind::Device, &request.registry_id, &request.device_name);
        named.map(|record| record.id.clone())
    };
    call.see(&found.ok_or_else(|| Fault::not_found("device", &request.device_name))?)
}

fn list_devices(call: &Call<'_>, request: ListDevicesRequest) -> Result<ListDevicesResponse, Fault> {
    let (size, token) = (request.page_size, &request.page_token);
    let (devices, next_page_token) = match request.id {
        Some(list_devices_request::Id::RegistryId(registry)) => {
            call.see::<Registry>(&registry)?;
            call.page(|record| *record.parent == *registry, size, token, "")?
        }
        Some(list_devices_request::Id::FolderId(folder)) => call.page_of_folder(&folder, size, token, "")?,
        None => return Err(Fault::field("registry_id", "One of registry_id and folder_id is needed")),
    };
    Ok(ListDevicesResponse { devices, next_page_token })
}

/// The record of a device.
fn device_record(device: &Device, folder: &str) -> Record {
    Record { parent: Id::from(device.registry_id.as_str()), ..record(device, folder) }
}

/// Holds the aliases of a device against those of its registry.
fn check_aliases(state: &State, device: &Device) -> Result<(), Fault> {
    let others = state
        .all(Kind::Device)
        .filter(|other| *other.parent == *device.registry_id && *other.id != *device.id);
    let mut taken = Vec::new();
    for other in others {
        taken.extend(message::<Device>(other)?.topic_aliases.into_keys());
    }
    wanted::check_aliases(device, &taken)
}

fn create_device(call: &Call<'_>, request: CreateDeviceRequest) -> Result<Operation, Fault> {
    let given = request.certificates.iter().map(|certificate| certificate.certificate_data.as_str());
    {
        let state = call.api.store.state();
        call.own_record::<Registry>(&state, &request.registry_id)?;
    }
    let (password, certificates) = login::given(call, &request.password, given)?;
    call.change("Create device", |state, edit| {
        let registry = call.own_record::<Registry>(state, &request.registry_id)?;
        check_name(state, Kind::Device, &request.registry_id, &request.name, "")?;
        let id = id::generate("are").to_string();
        let of_itself = |target: String| target.replace("{device_id}", &id);
        let device = Device {
            registry_id: request.registry_id,
            created_at: Some(now()),
            name: request.name,
            description: request.description,
            topic_aliases: request
                .topic_aliases
                .into_iter()
                .map(|(alias, target)| (alias, of_itself(target)))
                .collect(),
            status: device::Status::Active.into(),
            monitoring_data: None,
            labels: request.labels,
            id,
        };
        check_aliases(state, &device)?;
        let owner = device_record(&device, &registry.folder);
        login::put_device(state, edit, &owner, password, certificates)?;
        edit.put_record(None, &device, owner)?;
        let metadata = CreateDeviceMetadata { device_id: device.id.clone() };
        Ok(Done { resource: device.id.as_str().into(), metadata, response: device })
    })
}

fn update_device(call: &Call<'_>, request: UpdateDeviceRequest) -> Result<Operation, Fault> {
    call.change("Update device", |state, edit| {
        let before: Device = call.own(state, &request.device_id)?;
        let device: Device = mask::apply(&request, request.update_mask.as_ref(), &["device_id"], &before)?;
        check_name(state, Kind::Device, &device.registry_id, &device.name, &device.id)?;
        check_aliases(state, &device)?;
        let folder = find(state, Kind::Device, &device.id)?.folder.clone();
        edit.put_record(Some(&before), &device, device_record(&device, &folder))?;
        let metadata = UpdateDeviceMetadata { device_id: device.id.clone() };
        Ok(Done { resource: device.id.as_str().into(), metadata, response: device })
    })
}

fn delete_device(call: &Call<'_>, request: DeleteDeviceRequest) -> Result<Operation, Fault> {
    call.change("Delete device", |state, edit| {
        let device: Device = call.own(state, &request.device_id)?;
        check_unused(state, &device.id, "device")?;
        login::delete_all(state, edit, &device.id);
        edit.delete(&device)?;
        let metadata = DeleteDeviceMetadata { device_id: device.id.clone() };
        Ok(Done { resource: device.id.into(), metadata, response: () })
    })
}

fn device_operations(
    call: &Call<'_>,
    request: ListDeviceOperationsRequest,
) -> Result<ListDeviceOperationsResponse, Fault> {
    let (operations, next_page_token) =
        call.operations_of::<Device>(&request.device_id, request.page_size, &request.page_token)?;
    Ok(ListDeviceOperationsResponse { operations, next_page_token })
}

fn publish_device(
    call: &Call<'_>,
    request: PublishDeviceDataRequest,
) -> Result<PublishDeviceDataResponse, Fault> {
    let registry = {
        let state = call.api.store.state();
        let device = find(&state, Kind::Device, &request.device_id)?;
        call.may(&state, Right::Publish, device)?;
        check_enabled(&state, &device.parent)?;
        device.parent.clone()
    };
    let publisher = Publisher::Device(&request.device_id, &registry);
    call.api.plant.publish(publisher, &request.topic, &request.data)?;
    Ok(PublishDeviceDataResponse {})
}
