//! Who calls: the service account behind a token or an API key.

use std::path::Path;

use prost::Message;
use prost_types::Timestamp;

use super::Api;
use super::access::{self, SERVICE_ACCOUNT};
use super::fault::{Code, Fault};
use super::resource::message;
use crate::identity::secret;
use crate::model::id::Id;
use crate::model::role::ADMIN;
use crate::proto::types::yandex::cloud::access::{AccessBinding, Subject};
use crate::proto::types::yandex::cloud::iam::v1::service_account::Status;
use crate::proto::types::yandex::cloud::iam::v1::{ApiKey, ServiceAccount};
use crate::store::{Kind, Origin, Record, State};

/// The API key of [`ADMIN`] in `file`, which is made if there is none; as a record beside those of the file.
pub(super) fn admin_key(file: &Path, folder: &str) -> std::io::Result<Record> {
    let key = match std::fs::read_to_string(file) {
        Ok(key) => key.trim().to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = secret::new_api_key(ADMIN).map_err(std::io::Error::other)?;
            secret::write_private(file, &format!("{key}\n"))?;
            key
        }
        Err(error) => return Err(error),
    };
    if secret::api_key_id(&key) != Some(ADMIN) {
        let what = format!("{} holds no key; delete it to get a new one", file.display());
        return Err(std::io::Error::other(what));
    }
    let body = ApiKey {
        id: ADMIN.to_owned(),
        service_account_id: ADMIN.to_owned(),
        description: "the key of the administrator, in data_dir/admin.key".to_owned(),
        ..ApiKey::default()
    };
    let mut record =
        Record::new(Kind::ApiKey, ADMIN.into(), folder.into(), String::new(), body.encode_to_vec());
    (record.parent, record.secret, record.origin) = (ADMIN.into(), secret::digest(&key), Origin::File);
    Ok(record)
}

/// The binding of a role to a service account.
pub(super) fn binding(role: &str, account: &str) -> AccessBinding {
    let subject = Subject { id: account.to_owned(), r#type: SERVICE_ACCOUNT.to_owned() };
    AccessBinding { role_id: role.to_owned(), subject: Some(subject) }
}

/// Whether a moment has come.
pub(super) fn is_past(at: Option<&Timestamp>) -> bool {
    at.is_some_and(|at| at.seconds <= jiff::Timestamp::now().as_second())
}

fn unknown(what: &str) -> Fault {
    Fault::new(Code::Unauthenticated, what)
}

impl Api {
    /// The service account that calls.
    pub(super) fn authenticate(&self, authorization: Option<&str>) -> Result<Id, Fault> {
        const HOW: &str = "Say who you are: the header 'Authorization: Bearer TOKEN' with an IAM token, or \
                           'Authorization: Api-Key KEY', such as the one in data_dir/admin.key";
        let authorization = authorization.ok_or_else(|| unknown(HOW))?;
        let (scheme, credential) = authorization.trim().split_once(' ').ok_or_else(|| unknown(HOW))?;
        let credential = credential.trim();
        let state = self.store.state();
        let account = match scheme.to_ascii_lowercase().as_str() {
            "bearer" => {
                let now = jiff::Timestamp::now().as_second();
                let claims = self.tokens.check(credential, now);
                let claims = claims.filter(|claims| !state.is_revoked(&claims.jti));
                let bad =
                    "The IAM token is not valid: it is not one of this server, has ended, or was revoked";
                Id::from(claims.ok_or_else(|| unknown(bad))?.sub)
            }
            "api-key" => {
                let bad = || unknown("The API key is not valid: it is unknown, has ended, or was deleted");
                let id = secret::api_key_id(credential).ok_or_else(bad)?;
                let record = state.get(Kind::ApiKey, id).ok_or_else(bad)?;
                let key: ApiKey = message(record)?;
                if !secret::is_digest_of(&record.secret, credential) || is_past(key.expires_at.as_ref()) {
                    return Err(bad());
                }
                record.parent.clone()
            }
            _ => return Err(unknown(HOW)),
        };
        check_active(&state, &account)?;
        Ok(account)
    }
}

/// Refuses an account that does not exist, is suspended, or has ended.
pub(super) fn check_active(state: &State, account: &str) -> Result<(), Fault> {
    let gone =
        || unknown(&format!("The service account '{account}' does not exist any more, or is suspended"));
    let record = state.get(Kind::ServiceAccount, account).ok_or_else(gone)?;
    let account: ServiceAccount = message(record)?;
    if account.status() == Status::Suspended || is_past(account.expires_at.as_ref()) {
        return Err(gone());
    }
    Ok(())
}

/// Whether an account can act just now; a trigger's account must.
pub(super) fn can_act(state: &State, account: &str) -> bool {
    check_active(state, account).is_ok()
}

/// The roles that the configuration file gives to accounts, on the cloud.
pub(super) fn roles_of_file<'a>(roles: impl Iterator<Item = (&'a str, &'a str)>) -> Record {
    let mut bindings: Vec<AccessBinding> = vec![binding("admin", ADMIN)];
    bindings.extend(roles.map(|(account, role)| binding(role, account)));
    let id = access::cloud_bindings_id();
    let body = crate::proto::types::yandex::cloud::access::SetAccessBindingsRequest {
        resource_id: access::CLOUD.to_owned(),
        access_bindings: bindings,
    };
    let mut record = Record::new(Kind::AccessBindings, id, Id::from(""), String::new(), body.encode_to_vec());
    record.origin = Origin::File;
    record
}
