//! The program from outside: the built binary, real sockets, clients that others wrote.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batching;
mod common;
mod faults;
mod foreign_clients;
mod sessions;
