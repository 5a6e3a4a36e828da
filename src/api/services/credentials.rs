//! Authorized keys and API keys of service accounts.

use crate::api::Table;
use crate::api::access::{self, Place};
use crate::api::call::{Call, Done, now};
use crate::api::fault::{Code, Fault};
use crate::api::mask;
use crate::api::resource::{Resource, find, message, record};
use crate::identity;
use crate::identity::secret;
use crate::model::id::{self, Id};
use crate::model::role::{Area, Right};
use crate::proto::types::yandex::cloud::iam::v1::{
    ApiKey, CreateApiKeyRequest, CreateApiKeyResponse, CreateKeyRequest, CreateKeyResponse,
    DeleteApiKeyMetadata, DeleteApiKeyRequest, DeleteKeyMetadata, DeleteKeyRequest, GetApiKeyRequest,
    GetKeyRequest, Key, ListApiKeyOperationsRequest, ListApiKeyOperationsResponse, ListApiKeyScopesRequest,
    ListApiKeyScopesResponse, ListApiKeysRequest, ListApiKeysResponse, ListKeyOperationsRequest,
    ListKeyOperationsResponse, ListKeysRequest, ListKeysResponse, UpdateApiKeyMetadata, UpdateApiKeyRequest,
    UpdateKeyMetadata, UpdateKeyRequest, key,
};
use crate::proto::types::yandex::cloud::operation::Operation;
use crate::store::{Kind, Record, State};

pub(super) fn add(table: &mut Table) {
    table.add("yandex.cloud.iam.v1.KeyService/Get", get_key);
    table.add("yandex.cloud.iam.v1.KeyService/List", list_keys);
    table.add("yandex.cloud.iam.v1.KeyService/Create", create_key);
    table.add("yandex.cloud.iam.v1.KeyService/Update", update_key);
    table.add("yandex.cloud.iam.v1.KeyService/Delete", delete_key);
    table.add("yandex.cloud.iam.v1.KeyService/ListOperations", key_operations);
    table.add("yandex.cloud.iam.v1.ApiKeyService/Get", get_api_key);
    table.add("yandex.cloud.iam.v1.ApiKeyService/List", list_api_keys);
    table.add("yandex.cloud.iam.v1.ApiKeyService/Create", create_api_key);
    table.add("yandex.cloud.iam.v1.ApiKeyService/Update", update_api_key);
    table.add("yandex.cloud.iam.v1.ApiKeyService/Delete", delete_api_key);
    table.add("yandex.cloud.iam.v1.ApiKeyService/ListOperations", api_key_operations);
    table.add("yandex.cloud.iam.v1.ApiKeyService/ListScopes", list_scopes);
}

/// The account that a request is about: the caller's own if it is silent.
fn account<'a>(call: &Call<'_>, state: &'a State, id: &str, right: Right) -> Result<&'a Record, Fault> {
    let id = if id.is_empty() { &*call.subject } else { id };
    let record = find(state, Kind::ServiceAccount, id)?;
    match right {
        // Everyone may make keys of his own: they let him do no more.
        Right::MakeKey if record.id == call.subject => {}
        Right::MakeKey => access::check(state, &call.subject, right, &Place::to_become(record))?,
        right => call.may(state, right, record)?,
    }
    Ok(record)
}

/// The record of something that belongs to an account.
fn of_account<T: Resource>(resource: &T, account: &Record) -> Record {
    Record { parent: account.id.clone(), ..record(resource, &account.folder) }
}

fn get_key(call: &Call<'_>, request: GetKeyRequest) -> Result<Key, Fault> {
    call.see(&request.key_id)
}

/// A page of the keys of an account.
fn page_of_account<T: Resource>(
    call: &Call<'_>,
    id: &str,
    size: i64,
    token: &str,
) -> Result<(Vec<T>, String), Fault> {
    let account = account(call, &call.api.store.state(), id, Right::See(Area::Accounts))?.id.clone();
    call.page(|record| record.parent == account, size, token, "")
}

fn list_keys(call: &Call<'_>, request: ListKeysRequest) -> Result<ListKeysResponse, Fault> {
    let (keys, next_page_token) =
        page_of_account(call, &request.service_account_id, request.page_size, &request.page_token)?;
    Ok(ListKeysResponse { keys, next_page_token })
}

fn create_key(call: &Call<'_>, request: CreateKeyRequest) -> Result<CreateKeyResponse, Fault> {
    account(call, &call.api.store.state(), &request.service_account_id, Right::MakeKey)?;
    // It takes long, so it is made before anything is locked.
    let (algorithm, bits) = match request.key_algorithm() {
        key::Algorithm::Rsa4096 => (key::Algorithm::Rsa4096, 4096),
        key::Algorithm::Unspecified | key::Algorithm::Rsa2048 => (key::Algorithm::Rsa2048, 2048),
    };
    let _turn = call.api.turn();
    let pair = identity::key::generate(bits).map_err(|error| Fault::new(Code::Internal, error))?;
    call.change_silently(|state, edit| {
        let account = account(call, state, &request.service_account_id, Right::MakeKey)?;
        let key = Key {
            id: id::generate("aje").to_string(),
            subject: Some(key::Subject::ServiceAccountId(account.id.to_string())),
            created_at: Some(now()),
            description: request.description,
            key_algorithm: algorithm.into(),
            public_key: pair.public,
            last_used_at: None,
        };
        edit.put_record(None, &key, of_account(&key, account))?;
        let resource = Id::from(key.id.as_str());
        Ok((resource, CreateKeyResponse { key: Some(key), private_key: pair.private }))
    })
}

fn update_key(call: &Call<'_>, request: UpdateKeyRequest) -> Result<Operation, Fault> {
    call.change("Update key", |state, edit| {
        let old = call.own_record::<Key>(state, &request.key_id)?;
        let before: Key = message(old)?;
        let key: Key = mask::apply(&request, request.update_mask.as_ref(), &["key_id"], &before)?;
        let changed = Record { parent: old.parent.clone(), ..record(&key, &old.folder) };
        edit.put_record(Some(&before), &key, changed)?;
        let metadata = UpdateKeyMetadata { key_id: key.id.clone() };
        Ok(Done { resource: old.id.clone(), metadata, response: key })
    })
}

fn delete_key(call: &Call<'_>, request: DeleteKeyRequest) -> Result<Operation, Fault> {
    call.change("Delete key", |state, edit| {
        let old = call.own_record::<Key>(state, &request.key_id)?;
        edit.delete(&message::<Key>(old)?)?;
        let metadata = DeleteKeyMetadata { key_id: request.key_id };
        Ok(Done { resource: old.id.clone(), metadata, response: () })
    })
}

fn key_operations(
    call: &Call<'_>,
    request: ListKeyOperationsRequest,
) -> Result<ListKeyOperationsResponse, Fault> {
    let (operations, next_page_token) =
        call.operations_of::<Key>(&request.key_id, request.page_size, &request.page_token)?;
    Ok(ListKeyOperationsResponse { operations, next_page_token })
}

fn get_api_key(call: &Call<'_>, request: GetApiKeyRequest) -> Result<ApiKey, Fault> {
    call.see(&request.api_key_id)
}

fn list_api_keys(call: &Call<'_>, request: ListApiKeysRequest) -> Result<ListApiKeysResponse, Fault> {
    let (api_keys, next_page_token) =
        page_of_account(call, &request.service_account_id, request.page_size, &request.page_token)?;
    Ok(ListApiKeysResponse { api_keys, next_page_token })
}

fn create_api_key(call: &Call<'_>, request: CreateApiKeyRequest) -> Result<CreateApiKeyResponse, Fault> {
    check_scopes(&request.scopes)?;
    call.change_silently(|state, edit| {
        let account = account(call, state, &request.service_account_id, Right::MakeKey)?;
        let id = id::generate("aje");
        let secret =
            secret::new_api_key(&id).map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
        let (head, tail) = (secret.get(..8).unwrap_or_default(), secret.get(secret.len() - 4..));
        let key = ApiKey {
            id: id.to_string(),
            service_account_id: account.id.to_string(),
            created_at: Some(now()),
            description: request.description,
            scopes: request.scopes,
            expires_at: request.expires_at,
            masked_secret: format!("{head}****{}", tail.unwrap_or_default()),
            ..ApiKey::default()
        };
        let kept = Record { secret: secret::digest(&secret), ..of_account(&key, account) };
        edit.put_record(None, &key, kept)?;
        Ok((id, CreateApiKeyResponse { api_key: Some(key), secret }))
    })
}

fn update_api_key(call: &Call<'_>, request: UpdateApiKeyRequest) -> Result<Operation, Fault> {
    check_scopes(&request.scopes)?;
    call.change("Update API key", |state, edit| {
        let old = call.own_record::<ApiKey>(state, &request.api_key_id)?;
        let before: ApiKey = message(old)?;
        let key: ApiKey = mask::apply(&request, request.update_mask.as_ref(), &["api_key_id"], &before)?;
        let (parent, secret) = (old.parent.clone(), old.secret.clone());
        edit.put_record(Some(&before), &key, Record { parent, secret, ..record(&key, &old.folder) })?;
        let metadata = UpdateApiKeyMetadata { api_key_id: key.id.clone() };
        Ok(Done { resource: old.id.clone(), metadata, response: key })
    })
}

fn delete_api_key(call: &Call<'_>, request: DeleteApiKeyRequest) -> Result<Operation, Fault> {
    call.change("Delete API key", |state, edit| {
        let old = call.own_record::<ApiKey>(state, &request.api_key_id)?;
        edit.delete(&message::<ApiKey>(old)?)?;
        let metadata = DeleteApiKeyMetadata { api_key_id: request.api_key_id };
        Ok(Done { resource: old.id.clone(), metadata, response: () })
    })
}

fn api_key_operations(
    call: &Call<'_>,
    request: ListApiKeyOperationsRequest,
) -> Result<ListApiKeyOperationsResponse, Fault> {
    let (operations, next_page_token) =
        call.operations_of::<ApiKey>(&request.api_key_id, request.page_size, &request.page_token)?;
    Ok(ListApiKeyOperationsResponse { operations, next_page_token })
}

/// A key that seems to be limited, and is not, would be worse than none.
fn check_scopes(scopes: &[String]) -> Result<(), Fault> {
    if scopes.is_empty() {
        return Ok(());
    }
    let what = "This server has no scopes: an API key may do what its service account may. Give the account fewer roles";
    Err(Fault::field("scopes", what))
}

/// Keys are not bound to scopes here; they may do what their account may.
fn list_scopes(_: &Call<'_>, _: ListApiKeyScopesRequest) -> Result<ListApiKeyScopesResponse, Fault> {
    Ok(ListApiKeyScopesResponse::default())
}
