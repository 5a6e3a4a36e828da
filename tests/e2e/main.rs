//! The program from outside: the built binary, real sockets, clients that others wrote.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "one crate, nothing is published")]

mod attacks;
mod backend;
mod batching;
mod common;
mod conformance;
mod connections;
mod console;
mod container_registry;
mod docker_registry;
mod examples;
mod faults;
mod foreign_clients;
mod hooks;
mod managed;
mod management;
mod monitoring;
mod mqtt_websocket;
mod rights;
mod sessions;
mod tls;
mod views;
