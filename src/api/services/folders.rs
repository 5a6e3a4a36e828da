//! Folders, which everything else is in.

use crate::api::Table;
use crate::api::access::{self, CLOUD, Place};
use crate::api::call::{Call, Done, now};
use crate::api::fault::{Code, Fault};
use crate::api::mask;
use crate::api::resource::{check_name, message};
use crate::model::id;
use crate::model::role::{Area, Right};
use crate::proto::types::yandex::cloud::operation::Operation;
use crate::proto::types::yandex::cloud::resourcemanager::v1::{
    CreateFolderMetadata, CreateFolderRequest, DeleteFolderMetadata, DeleteFolderRequest, Folder,
    GetFolderRequest, ListFolderOperationsRequest, ListFolderOperationsResponse, ListFoldersRequest,
    ListFoldersResponse, UpdateFolderMetadata, UpdateFolderRequest, folder,
};
use crate::store::{Kind, Record, State};

pub(super) fn add(table: &mut Table) {
    table.add("yandex.cloud.resourcemanager.v1.FolderService/Get", get);
    table.add("yandex.cloud.resourcemanager.v1.FolderService/List", list);
    table.add("yandex.cloud.resourcemanager.v1.FolderService/Create", create);
    table.add("yandex.cloud.resourcemanager.v1.FolderService/Update", update);
    table.add("yandex.cloud.resourcemanager.v1.FolderService/Delete", delete);
    table.add("yandex.cloud.resourcemanager.v1.FolderService/ListOperations", operations);
}

fn get(call: &Call<'_>, request: GetFolderRequest) -> Result<Folder, Fault> {
    call.see(&request.folder_id)
}

fn check_cloud(id: &str) -> Result<(), Fault> {
    if id == CLOUD { Ok(()) } else { Err(Fault::not_found("cloud", id)) }
}

fn list(call: &Call<'_>, request: ListFoldersRequest) -> Result<ListFoldersResponse, Fault> {
    check_cloud(&request.cloud_id)?;
    // Who may not see all sees those in which he may see something.
    let refused = {
        let state = call.api.store.state();
        access::check(&state, &call.subject, Right::See(Area::Folders), &Place::cloud()).err()
    };
    let is_seen = |state: &State, record: &Record| {
        refused.is_none() || access::sees_something(state, &call.subject, &Place::of(record))
    };
    let (folders, next_page_token): (Vec<Folder>, _) =
        call.page_seen(is_seen, request.page_size, &request.page_token, &request.filter)?;
    match refused {
        Some(refused) if folders.is_empty() && request.page_token.is_empty() && request.filter.is_empty() => {
            Err(refused)
        }
        _ => Ok(ListFoldersResponse { folders, next_page_token }),
    }
}

fn create(call: &Call<'_>, request: CreateFolderRequest) -> Result<Operation, Fault> {
    check_cloud(&request.cloud_id)?;
    call.change("Create folder", |state, edit| {
        access::check(state, &call.subject, Right::Change(Area::Folders), &Place::cloud())?;
        check_name(state, Kind::Folder, "", &request.name, "")?;
        let folder = Folder {
            id: id::generate("b1g").to_string(),
            cloud_id: CLOUD.to_owned(),
            created_at: Some(now()),
            name: request.name,
            description: request.description,
            labels: request.labels,
            status: folder::Status::Active.into(),
        };
        edit.put(None, &folder, "")?;
        let metadata = CreateFolderMetadata { folder_id: folder.id.clone() };
        Ok(Done { resource: folder.id.as_str().into(), metadata, response: folder })
    })
}

fn update(call: &Call<'_>, request: UpdateFolderRequest) -> Result<Operation, Fault> {
    call.change("Update folder", |state, edit| {
        let before: Folder = call.own(state, &request.folder_id)?;
        let folder = mask::apply(&request, request.update_mask.as_ref(), &["folder_id"], &before)?;
        check_name(state, Kind::Folder, "", &folder.name, &folder.id)?;
        edit.put(Some(&before), &folder, "")?;
        let metadata = UpdateFolderMetadata { folder_id: folder.id.clone() };
        Ok(Done { resource: folder.id.as_str().into(), metadata, response: folder })
    })
}

fn delete(call: &Call<'_>, request: DeleteFolderRequest) -> Result<Operation, Fault> {
    call.change("Delete folder", |state, edit| {
        let record = call.own_record::<Folder>(state, &request.folder_id)?;
        let held = Kind::ALL.into_iter().filter(|kind| *kind != Kind::AccessBindings);
        let first = held.flat_map(|kind| state.all(kind)).find(|inside| inside.folder == record.id);
        if let Some(inside) = first {
            let what = format!("The folder is not empty: it has the {} '{}'", inside.kind.name(), inside.id);
            return Err(Fault::new(Code::FailedPrecondition, what));
        }
        let folder: Folder = message(record)?;
        edit.delete(&folder)?;
        edit.delete_silent(Kind::AccessBindings, access::bindings_id(Kind::Folder, &folder.id));
        let metadata = DeleteFolderMetadata { folder_id: folder.id.clone(), ..Default::default() };
        Ok(Done { resource: folder.id.into(), metadata, response: () })
    })
}

fn operations(
    call: &Call<'_>,
    request: ListFolderOperationsRequest,
) -> Result<ListFolderOperationsResponse, Fault> {
    let (operations, next_page_token) =
        call.operations_of::<Folder>(&request.folder_id, request.page_size, &request.page_token)?;
    Ok(ListFolderOperationsResponse { operations, next_page_token })
}
