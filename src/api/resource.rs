//! What all resources have in common: they are found, seen, named, put and deleted in one way.

use prost::{Message, Name};

use super::fault::{Code, Fault};
use crate::model::id::Id;
use crate::model::role::Area;
use crate::proto::types::yandex::cloud;
use crate::store::{Kind, Origin, Record, State};

/// A message that is kept as a record.
pub(super) trait Resource: Message + Name + Default + Clone + PartialEq {
    /// What it is in the store.
    const KIND: Kind;
    /// Who may see and change it.
    const AREA: Area;

    /// Its own id.
    fn id(&self) -> &str;
    /// Its name, if it has one.
    fn name(&self) -> &str;
}

macro_rules! resource {
    ($message:path, $kind:ident, $area:ident) => {
        resource!($message, $kind, $area, |resource| &resource.name);
    };
    ($message:path, $kind:ident, $area:ident, $name:expr) => {
        impl Resource for $message {
            const KIND: Kind = Kind::$kind;
            const AREA: Area = Area::$area;

            fn id(&self) -> &str {
                &self.id
            }

            fn name(&self) -> &str {
                let name: fn(&Self) -> &str = $name;
                name(self)
            }
        }
    };
}

resource!(cloud::serverless::triggers::v2::Trigger, Trigger, Triggers);
resource!(cloud::serverless::apigateway::v1::ApiGateway, Gateway, Gateways);
resource!(cloud::iot::devices::v1::Registry, DeviceRegistry, Devices);
resource!(cloud::iot::devices::v1::Device, Device, Devices);
resource!(cloud::iot::broker::v1::Broker, Broker, Devices);
resource!(cloud::containerregistry::v1::Registry, ContainerRegistry, Registries);
resource!(cloud::iam::v1::ServiceAccount, ServiceAccount, Accounts);
resource!(cloud::iam::v1::Key, Key, Accounts, |_| "");
resource!(cloud::iam::v1::ApiKey, ApiKey, Accounts, |_| "");
resource!(cloud::resourcemanager::v1::Folder, Folder, Folders);

/// The message of a record.
pub(super) fn message<T: Resource>(record: &Record) -> Result<T, Fault> {
    let broken = |error| {
        Fault::new(
            Code::Internal,
            format!("The {} '{}' cannot be read: {error}", record.kind.name(), record.id),
        )
    };
    T::decode(&*record.body).map_err(broken)
}

/// The record of a resource, which must exist.
pub(super) fn find<'a>(state: &'a State, kind: Kind, id: &str) -> Result<&'a Record, Fault> {
    state.get(kind, id).ok_or_else(|| Fault::not_found(kind.name(), id))
}

/// Refuses to change what the configuration file declares.
pub(super) fn check_own(record: &Record) -> Result<(), Fault> {
    match record.origin {
        Origin::Store => Ok(()),
        Origin::File => Err(Fault::new(
            Code::FailedPrecondition,
            format!(
                "The {} '{}' is declared in the configuration file (config.yaml); change it there",
                record.kind.name(),
                record.id
            ),
        )),
    }
}

/// Refuses a name that another of this kind has under the same owner.
pub(super) fn check_name(state: &State, kind: Kind, owner: &str, name: &str, id: &str) -> Result<(), Fault> {
    match state.named(kind, owner, name).filter(|other| !name.is_empty() && &*other.id != id) {
        None => Ok(()),
        Some(other) => Err(Fault::new(
            Code::AlreadyExists,
            format!("The name '{name}' is taken by the {} '{}'", kind.name(), other.id),
        )),
    }
}

/// The record of a resource in a folder.
pub(super) fn record<T: Resource>(resource: &T, folder: &str) -> Record {
    Record::new(
        T::KIND,
        Id::from(resource.id()),
        Id::from(folder),
        resource.name().to_owned(),
        resource.encode_to_vec(),
    )
}
