//! Who may do what: the roles that are given on a resource, on its folder and on the cloud.

use prost::Message;

use super::fault::{Code, Fault};
use crate::model::id::Id;
use crate::model::role::{Area, ROLES, Right, Role};
use crate::proto::types::yandex::cloud::access::{AccessBinding, SetAccessBindingsRequest};
use crate::store::{Kind, Origin, Record, State};

/// The id of the one cloud.
pub(super) const CLOUD: &str = "triggercast";
/// The type of a subject that is a service account.
pub(super) const SERVICE_ACCOUNT: &str = "serviceAccount";
/// Everyone whose name is known, as a subject of the type `system`.
const ALL_AUTHENTICATED: &str = "allAuthenticatedUsers";

/// Where something is done, from the resource itself upwards.
#[derive(Debug, Clone)]
pub(super) struct Place {
    keys: Vec<Id>,
    name: String,
}

/// The id of the record with the bindings on a resource.
pub(super) fn bindings_id(kind: Kind, id: &str) -> Id {
    format!("{}:{id}", kind.name()).into()
}

/// The id of the record with the bindings on the cloud.
pub(super) fn cloud_bindings_id() -> Id {
    format!("cloud:{CLOUD}").into()
}

/// What is given on the resource with this record of bindings.
pub(super) fn bindings(state: &State, id: &str) -> Vec<AccessBinding> {
    let record = state.get(Kind::AccessBindings, id);
    let given = record.and_then(|record| SetAccessBindingsRequest::decode(&*record.body).ok());
    given.map(|given| given.access_bindings).unwrap_or_default()
}

impl Place {
    /// A resource, with what it is in.
    pub(super) fn of(record: &Record) -> Self {
        if record.kind == Kind::Folder {
            return Self::folder(&record.id);
        }
        let mut place = Self::folder(&record.folder);
        place.keys.insert(0, bindings_id(record.kind, &record.id));
        place.name = format!("the {} '{}'", record.kind.name(), record.id);
        if record.kind == Kind::Device {
            place.keys.insert(1, bindings_id(Kind::DeviceRegistry, &record.parent));
        }
        if matches!(record.kind, Kind::Key | Kind::ApiKey) {
            place.keys.insert(1, bindings_id(Kind::ServiceAccount, &record.parent));
        }
        place
    }

    /// A service account, to become it or to decide who may. Those of the configuration file have roles on the cloud,
    /// so that only roles on the cloud count there.
    pub(super) fn to_become(record: &Record) -> Self {
        match record.origin {
            Origin::File => Self::cloud(),
            Origin::Store => Self::of(record),
        }
    }

    /// A folder.
    pub(super) fn folder(id: &str) -> Self {
        let keys = vec![bindings_id(Kind::Folder, id), cloud_bindings_id()];
        Self { keys, name: format!("the folder '{id}'") }
    }

    /// The cloud.
    pub(super) fn cloud() -> Self {
        Self { keys: vec![cloud_bindings_id()], name: format!("the cloud '{CLOUD}'") }
    }
}

/// Whether a role of the account permits this there.
pub(super) fn permits(state: &State, account: &str, right: Right, place: &Place) -> bool {
    has_role(state, account, place, |role| role.permits(right))
}

/// Whether a role of the account permits to see anything there.
pub(super) fn sees_something(state: &State, account: &str, place: &Place) -> bool {
    has_role(state, account, place, |role| Area::ALL.iter().any(|area| role.permits(Right::See(*area))))
}

fn has_role(state: &State, account: &str, place: &Place, is_one: impl Fn(&Role) -> bool) -> bool {
    let is_of = |binding: &AccessBinding| {
        binding.subject.as_ref().is_some_and(|subject| match subject.r#type.as_str() {
            "system" => subject.id == ALL_AUTHENTICATED,
            kind => kind == SERVICE_ACCOUNT && subject.id == account,
        })
    };
    place.keys.iter().any(|key| {
        bindings(state, key)
            .iter()
            .any(|binding| is_of(binding) && Role::find(&binding.role_id).is_some_and(&is_one))
    })
}

/// Refuses what no role of the account permits there; the message says which roles would.
pub(super) fn check(state: &State, account: &str, right: Right, place: &Place) -> Result<(), Fault> {
    if permits(state, account, right, place) {
        return Ok(());
    }
    let roles: Vec<&str> = ROLES.iter().filter(|role| role.permits(right)).map(|role| role.id).collect();
    let message = format!(
        "Permission denied: the service account '{account}' has no role on {} that permits it; one of these would: {}",
        place.name,
        roles.join(", ")
    );
    Err(Fault::new(Code::PermissionDenied, message))
}

/// Whether a service account may broadcast through a gateway of this folder, or of none that there is.
pub(super) fn may_broadcast(state: &State, account: &str, gateway: &str) -> bool {
    let place = state.get(Kind::Gateway, gateway).map_or_else(Place::cloud, Place::of);
    permits(state, account, Right::Broadcast, &place)
}
