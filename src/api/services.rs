//! The calls, one file for each group of resources.

mod audit;
mod bindings;
mod broker;
mod connections;
mod container_registry;
mod credentials;
mod crowds;
pub(super) mod devices;
mod endpoints;
mod folders;
mod gateways;
mod iam;
mod monitoring;
mod operations;
mod tokens;
pub(super) mod triggers;

use super::Table;

/// Puts every call in the table.
pub(super) fn add(table: &mut Table) {
    audit::add(table);
    bindings::add(table);
    broker::add(table);
    connections::add(table);
    container_registry::add(table);
    credentials::add(table);
    crowds::add(table);
    devices::add(table);
    endpoints::add(table);
    folders::add(table);
    gateways::add(table);
    iam::add(table);
    monitoring::add(table);
    operations::add(table);
    tokens::add(table);
    triggers::add(table);
}
