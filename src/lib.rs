//! Triggercast: events from devices and registries to people's screens, at once, in batches.
//!
//! The modules stand in the order an event travels:
//! [`model`] (the nouns) → [`config`] and [`telemetry`] → [`mqtt`] (the server inside the binary) and
//! [`container_registry`] (webhooks) → [`source`] → [`batch`] → [`gateway`] → [`engine`] (starts them) → [`management`] (with the pages of [`console`]), [`cli`] → [`server`].
//! A module imports only what stands below it or downstream of it; `tests/tidy.rs` holds that.

pub mod api;
pub mod batch;
pub mod cli;
pub mod config;
pub mod console;
pub mod container_registry;
pub mod database;
pub mod engine;
#[cfg(test)]
mod fuzzing;
pub mod gateway;
pub mod identity;
pub mod journal;
pub mod jq;
pub mod management;
pub mod model;
pub mod mqtt;
pub mod proto;
pub mod server;
pub mod source;
pub mod store;
pub mod telemetry;
pub mod tls;
