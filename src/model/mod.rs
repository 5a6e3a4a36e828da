//! The nouns of the program: plain types without clock, I/O or actors, used by every other module.

pub mod activity;
pub mod authorizer;
pub mod certificate;
pub mod condition;
pub mod connection;
pub mod container;
pub mod counted;
pub mod duration;
pub mod event;
pub mod event_id;
pub mod gateway;
pub mod hook;
pub mod id;
pub mod iot;
pub mod limits;
pub mod message;
pub mod network;
pub mod path_template;
pub mod payload;
pub mod receipt;
pub mod reference;
pub mod repeat;
pub mod role;
pub mod secret;
pub mod target;
pub mod topic;
pub mod trigger;

/// Everything a user declares: who may publish, where batches go, and what connects the two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Gateways, each with its paths.
    pub gateways: Vec<gateway::Gateway>,
    /// Registries of devices.
    pub device_registries: Vec<iot::DeviceRegistry>,
    /// Brokers with topics of any form.
    pub brokers: Vec<iot::Broker>,
    /// Container registries.
    pub container_registries: Vec<container::ContainerRegistry>,
    /// Triggers, in the v2 form: one source, several actions.
    pub triggers: Vec<trigger::Trigger>,
}
