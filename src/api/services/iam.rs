//! Service accounts, and the roles that there are.

use crate::api::Table;
use crate::api::access::bindings_id;
use crate::api::call::{Call, Done, now};
use crate::api::fault::Fault;
use crate::api::list::{self, Filter};
use crate::api::mask;
use crate::api::resource::{check_name, message};
use crate::model::id::{self};
use crate::model::role::{self, Area, Right};
use crate::proto::types::yandex::cloud::iam::v1::{
    CreateServiceAccountMetadata, CreateServiceAccountRequest, DeleteServiceAccountMetadata,
    DeleteServiceAccountRequest, GetRoleRequest, GetServiceAccountRequest, ListRolesRequest,
    ListRolesResponse, ListServiceAccountOperationsRequest, ListServiceAccountOperationsResponse,
    ListServiceAccountsRequest, ListServiceAccountsResponse, ReactivateServiceAccountMetadata,
    ReactivateServiceAccountRequest, ReactivateServiceAccountResponse, Role, ServiceAccount,
    SuspendServiceAccountMetadata, SuspendServiceAccountRequest, SuspendServiceAccountResponse,
    UpdateServiceAccountMetadata, UpdateServiceAccountRequest, service_account,
};
use crate::proto::types::yandex::cloud::operation::Operation;
use crate::store::Kind;

pub(super) fn add(table: &mut Table) {
    table.add("yandex.cloud.iam.v1.ServiceAccountService/Get", get);
    table.add("yandex.cloud.iam.v1.ServiceAccountService/List", list);
    table.add("yandex.cloud.iam.v1.ServiceAccountService/Create", create);
    table.add("yandex.cloud.iam.v1.ServiceAccountService/Update", update);
    table.add("yandex.cloud.iam.v1.ServiceAccountService/Delete", delete);
    table.add("yandex.cloud.iam.v1.ServiceAccountService/Suspend", suspend);
    table.add("yandex.cloud.iam.v1.ServiceAccountService/Reactivate", reactivate);
    table.add("yandex.cloud.iam.v1.ServiceAccountService/ListOperations", operations);
    table.add("yandex.cloud.iam.v1.RoleService/Get", get_role);
    table.add("yandex.cloud.iam.v1.RoleService/List", list_roles);
}

fn get(call: &Call<'_>, request: GetServiceAccountRequest) -> Result<ServiceAccount, Fault> {
    call.see(&request.service_account_id)
}

fn list(call: &Call<'_>, request: ListServiceAccountsRequest) -> Result<ListServiceAccountsResponse, Fault> {
    let (service_accounts, next_page_token) =
        call.page_of_folder(&request.folder_id, request.page_size, &request.page_token, &request.filter)?;
    Ok(ListServiceAccountsResponse { service_accounts, next_page_token })
}

fn create(call: &Call<'_>, request: CreateServiceAccountRequest) -> Result<Operation, Fault> {
    call.change("Create service account", |state, edit| {
        call.may_in_folder(state, Right::Change(Area::Accounts), &request.folder_id)?;
        check_name(state, Kind::ServiceAccount, &request.folder_id, &request.name, "")?;
        let account = ServiceAccount {
            id: id::generate("aje").to_string(),
            folder_id: request.folder_id,
            created_at: Some(now()),
            name: request.name,
            description: request.description,
            labels: request.labels,
            status: service_account::Status::Active.into(),
            expires_at: request.expires_at,
            ..ServiceAccount::default()
        };
        edit.put(None, &account, &account.folder_id)?;
        let metadata = CreateServiceAccountMetadata { service_account_id: account.id.clone() };
        Ok(Done { resource: account.id.as_str().into(), metadata, response: account })
    })
}

fn update(call: &Call<'_>, request: UpdateServiceAccountRequest) -> Result<Operation, Fault> {
    call.change("Update service account", |state, edit| {
        let before: ServiceAccount = call.own(state, &request.service_account_id)?;
        let account = mask::apply(&request, request.update_mask.as_ref(), &["service_account_id"], &before)?;
        check_name(state, Kind::ServiceAccount, &account.folder_id, &account.name, &account.id)?;
        edit.put(Some(&before), &account, &account.folder_id)?;
        let metadata = UpdateServiceAccountMetadata { service_account_id: account.id.clone() };
        Ok(Done { resource: account.id.as_str().into(), metadata, response: account })
    })
}

/// Deletes an account with its keys. Triggers that act in its name are silent from then on.
fn delete(call: &Call<'_>, request: DeleteServiceAccountRequest) -> Result<Operation, Fault> {
    call.change("Delete service account", |state, edit| {
        let record = call.own_record::<ServiceAccount>(state, &request.service_account_id)?;
        let account: ServiceAccount = message(record)?;
        for kind in [Kind::Key, Kind::ApiKey] {
            for key in state.all(kind).filter(|key| key.parent == record.id) {
                edit.delete_silent(kind, key.id.clone());
            }
        }
        edit.delete_silent(Kind::AccessBindings, bindings_id(Kind::ServiceAccount, &record.id));
        edit.delete(&account)?;
        let metadata = DeleteServiceAccountMetadata { service_account_id: account.id.clone() };
        Ok(Done { resource: record.id.clone(), metadata, response: () })
    })
}

fn suspend(call: &Call<'_>, request: SuspendServiceAccountRequest) -> Result<Operation, Fault> {
    call.change("Suspend service account", |state, edit| {
        let suspend = |account: &mut ServiceAccount| account.set_status(service_account::Status::Suspended);
        let account = call.alter(state, edit, &request.service_account_id, suspend)?;
        let metadata = SuspendServiceAccountMetadata { service_account_id: account.id.clone() };
        Ok(Done { resource: account.id.into(), metadata, response: SuspendServiceAccountResponse {} })
    })
}

fn reactivate(call: &Call<'_>, request: ReactivateServiceAccountRequest) -> Result<Operation, Fault> {
    call.change("Reactivate service account", |state, edit| {
        let reactivate = |account: &mut ServiceAccount| account.set_status(service_account::Status::Active);
        let account = call.alter(state, edit, &request.service_account_id, reactivate)?;
        let metadata = ReactivateServiceAccountMetadata { service_account_id: account.id.clone() };
        Ok(Done { resource: account.id.into(), metadata, response: ReactivateServiceAccountResponse {} })
    })
}

fn operations(
    call: &Call<'_>,
    request: ListServiceAccountOperationsRequest,
) -> Result<ListServiceAccountOperationsResponse, Fault> {
    let (operations, next_page_token) = call.operations_of::<ServiceAccount>(
        &request.service_account_id,
        request.page_size,
        &request.page_token,
    )?;
    Ok(ListServiceAccountOperationsResponse { operations, next_page_token })
}

fn role(role: &role::Role) -> Role {
    Role { id: role.id.to_owned(), description: role.description.to_owned() }
}

fn get_role(_: &Call<'_>, request: GetRoleRequest) -> Result<Role, Fault> {
    let found = role::Role::find(&request.role_id);
    Ok(role(found.ok_or_else(|| Fault::not_found("role", &request.role_id))?))
}

fn list_roles(_: &Call<'_>, request: ListRolesRequest) -> Result<ListRolesResponse, Fault> {
    let (filter, after) = (Filter::parse(&request.filter)?, list::after(&request.page_token)?);
    let mut roles: Vec<&role::Role> = role::ROLES.iter().filter(|role| filter.takes(role.id)).collect();
    roles.sort_by_key(|role| role.id);
    let rest = roles.into_iter().filter(|role| *role.id > *after);
    let (page, next_page_token) = list::page(rest, list::size(request.page_size), |role| role.id.to_owned());
    Ok(ListRolesResponse { roles: page.into_iter().map(role).collect(), next_page_token })
}
