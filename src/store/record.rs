//! A resource as the store keeps it: names and ids to find it by, and its message.

use std::sync::Arc;

use crate::model::id::Id;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A folder, which everything else is in.
    Folder,
    /// Who acts.
    ServiceAccount,
    /// A public key of a service account.
    Key,
    /// A secret of a service account; what is kept is its digest.
    ApiKey,
    /// The roles that are given on a resource.
    AccessBindings,
    /// An API gateway.
    Gateway,
    /// The OpenAPI document of a gateway.
    Specification,
    /// A registry of devices.
    DeviceRegistry,
    /// A device of a registry.
    Device,
    /// An IoT broker.
    Broker,
    /// A registry of container images.
    ContainerRegistry,
    /// A password of a registry, a device or a broker; what is kept is its argon2 hash.
    Password,
    /// A certificate of one of them.
    Certificate,
    /// A trigger.
    Trigger,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 14] = [
        Self::Folder,
        Self::ServiceAccount,
        Self::Key,
        Self::ApiKey,
        Self::AccessBindings,
        Self::Gateway,
        Self::Specification,
        Self::DeviceRegistry,
        Self::Device,
        Self::Broker,
        Self::ContainerRegistry,
        Self::Password,
        Self::Certificate,
        Self::Trigger,
    ];

    /// The word for messages and for the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::ServiceAccount => "service account",
            Self::Key => "key",
            Self::ApiKey => "API key",
            Self::AccessBindings => "access bindings",
            Self::Gateway => "API gateway",
            Self::Specification => "OpenAPI document",
            Self::DeviceRegistry => "device registry",
            Self::Device => "device",
            Self::Broker => "IoT broker",
            Self::ContainerRegistry => "container registry",
            Self::Password => "password",
            Self::Certificate => "certificate",
            Self::Trigger => "trigger",
        }
    }

    /// The kind with this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Who may change a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It stands in the configuration file.
    File,
    /// It was made by a call.
    Store,
}

/// A resource.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub kind: Kind,
    /// Unique among its kind.
    pub id: Id,
    /// The folder it is in.
    pub folder: Id,
    /// What it belongs to, such as the registry of a device; empty if it is the folder's own.
    pub parent: Id,
    /// Unique among its kind under its [`Self::owner`], unless it is empty.
    pub name: String,
    /// Its message, encoded.
    pub body: Arc<[u8]>,
    /// What no call ever shows: a hash.
    pub secret: String,
    /// Where it comes from.
    pub origin: Origin,
}

impl Record {
    /// A record of a call, in a folder.
    pub fn new(kind: Kind, id: Id, folder: Id, name: String, body: Vec<u8>) -> Self {
        let body = body.into();
        let (parent, secret) = (Id::from(""), String::new());
        Self { kind, id, folder, parent, name, body, secret, origin: Origin::Store }
    }

    /// Its parent, or its folder if it has none.
    pub fn owner(&self) -> &str {
        if self.parent.is_empty() { &self.folder } else { &self.parent }
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").field("kind", &self.kind).field("id", &self.id).finish_non_exhaustive()
    }
}
