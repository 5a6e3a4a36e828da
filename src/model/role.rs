//! Roles and what they permit: a fixed table, after the model system's.

/// The id of the service account that may do everything, and of its key.
pub const ADMIN: &str = "admin";

/// What a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// Triggers.
    Triggers,
    /// API gateways.
    Gateways,
    /// Device registries, devices and IoT brokers.
    Devices,
    /// Container registries and what is in them.
    Registries,
    /// Service accounts and their keys.
    Accounts,
    /// Folders.
    Folders,
    /// The log of what was changed.
    Audit,
}

impl Area {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::Triggers,
        Self::Gateways,
        Self::Devices,
        Self::Registries,
        Self::Accounts,
        Self::Folders,
        Self::Audit,
    ];
}

/// What a role can permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Get and list.
    See(Area),
    /// Create, change, delete, pause, resume.
    Change(Area),
    /// Give and take roles.
    Bind(Area),
    /// Let something act in the name of a service account.
    ActAs,
    /// Get a token of a service account.
    MakeToken,
    /// Make keys of a service account, with which anyone is that account.
    MakeKey,
    /// Read images, as a trigger on their registry does.
    PullImages,
    /// Send messages into topics.
    Publish,
    /// Send to single WebSocket connections, and close some or all.
    WriteConnections,
    /// Send to all connections of a path at once.
    Broadcast,
}

/// A role.
#[derive(Debug, Clone, Copy)]
pub struct Role {
    /// Its id.
    pub id: &'static str,
    /// What it permits, for people.
    pub description: &'static str,
    permits: fn(Right) -> bool,
}

impl Role {
    /// The role with this id.
    pub fn find(id: &str) -> Option<&'static Self> {
        ROLES.iter().find(|role| role.id == id)
    }

    /// Whether it permits this.
    pub fn permits(&self, right: Right) -> bool {
        (self.permits)(right)
    }
}

use Area::{Accounts, Devices, Folders, Gateways, Registries, Triggers};
use Right::{ActAs, Bind, Broadcast, Change, MakeKey, MakeToken, Publish, PullImages, See, WriteConnections};

/// Every role.
pub const ROLES: [Role; 20] = [
    Role { id: "viewer", description: "see everything", permits: |right| matches!(right, See(_)) },
    Role {
        id: "editor",
        description: "see, create, change and delete everything, but not who has which role",
        permits: |right| !matches!(right, Bind(_) | MakeToken | MakeKey),
    },
    Role { id: "admin", description: "everything", permits: |_| true },
    Role {
        id: "auditor",
        description: "see what was changed by whom",
        permits: |right| matches!(right, See(Area::Audit)),
    },
    Role {
        id: "functions.viewer",
        description: "see triggers and API gateways",
        permits: |right| matches!(right, See(Triggers | Gateways)),
    },
    Role {
        id: "functions.editor",
        description: "create, change, pause and delete triggers and API gateways",
        permits: |right| matches!(right, See(Triggers | Gateways) | Change(Triggers | Gateways)),
    },
    Role {
        id: "functions.admin",
        description: "as functions.editor, and who has which role on them",
        permits: |right| {
            matches!(
                right,
                See(Triggers | Gateways) | Change(Triggers | Gateways) | Bind(Triggers | Gateways)
            )
        },
    },
    Role {
        id: "api-gateway.viewer",
        description: "see API gateways",
        permits: |right| matches!(right, See(Gateways)),
    },
    Role {
        id: "api-gateway.websocketWriter",
        description: "see and close WebSocket connections, and send to single ones",
        permits: |right| matches!(right, See(Gateways) | WriteConnections),
    },
    Role {
        id: "api-gateway.websocketBroadcaster",
        description: "as api-gateway.websocketWriter, and send to all connections of a path",
        permits: |right| matches!(right, See(Gateways) | WriteConnections | Broadcast),
    },
    Role {
        id: "api-gateway.editor",
        description: "as api-gateway.websocketBroadcaster, and create, change and delete API gateways",
        permits: |right| matches!(right, See(Gateways) | Change(Gateways) | WriteConnections | Broadcast),
    },
    Role {
        id: "api-gateway.admin",
        description: "as api-gateway.editor, and who has which role on them",
        permits: |right| {
            matches!(right, See(Gateways) | Change(Gateways) | Bind(Gateways) | WriteConnections | Broadcast)
        },
    },
    Role {
        id: "iot.devices.writer",
        description: "send messages into topics",
        permits: |right| matches!(right, Publish),
    },
    Role {
        id: "iot.viewer",
        description: "see device registries, devices and brokers",
        permits: |right| matches!(right, See(Devices)),
    },
    Role {
        id: "iot.editor",
        description: "create, change and delete device registries, devices and brokers, and send messages",
        permits: |right| matches!(right, See(Devices) | Change(Devices) | Publish),
    },
    Role {
        id: "iam.serviceAccounts.user",
        description: "see service accounts, and let triggers act as one",
        permits: |right| matches!(right, See(Accounts) | ActAs),
    },
    Role {
        id: "iam.serviceAccounts.admin",
        description: "create, change and delete service accounts and their keys, and who has which role on them",
        permits: |right| matches!(right, See(Accounts) | Change(Accounts) | Bind(Accounts) | ActAs | MakeKey),
    },
    Role {
        id: "iam.serviceAccounts.tokenCreator",
        description: "get tokens of a service account",
        permits: |right| matches!(right, MakeToken),
    },
    Role {
        id: "container-registry.images.puller",
        description: "see container registries, repositories and images, and pull images",
        permits: |right| matches!(right, See(Registries) | PullImages),
    },
    Role {
        id: "resource-manager.viewer",
        description: "see folders",
        permits: |right| matches!(right, See(Folders)),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(role: &str, right: Right) -> bool {
        Role::find(role).unwrap().permits(right)
    }

    #[test]
    fn roles_permit_what_the_model_system_says() {
        for (role, right, expected) in [
            ("viewer", See(Triggers), true),
            ("viewer", Change(Triggers), false),
            ("viewer", Broadcast, false),
            ("editor", Change(Accounts), true),
            ("editor", ActAs, true),
            ("editor", PullImages, true),
            ("editor", Bind(Folders), false),
            ("editor", MakeToken, false),
            ("editor", MakeKey, false),
            ("iam.serviceAccounts.admin", MakeKey, true),
            ("admin", Bind(Folders), true),
            ("functions.editor", Change(Triggers), true),
            ("functions.editor", ActAs, false),
            ("functions.editor", Change(Devices), false),
            ("api-gateway.websocketWriter", WriteConnections, true),
            ("api-gateway.websocketWriter", Broadcast, false),
            ("api-gateway.websocketBroadcaster", WriteConnections, true),
            ("api-gateway.websocketBroadcaster", Broadcast, true),
            ("api-gateway.websocketBroadcaster", Change(Gateways), false),
            ("iam.serviceAccounts.user", ActAs, true),
            ("container-registry.images.puller", PullImages, true),
        ] {
            assert_eq!(permits(role, right), expected, "{role} {right:?}");
        }
        assert!(Role::find("api-gateway.unknown").is_none());
    }

    #[test]
    fn no_role_stands_twice() {
        for (index, role) in ROLES.iter().enumerate() {
            assert!(ROLES[..index].iter().all(|other| other.id != role.id), "{}", role.id);
        }
    }
}
