//! Load: publishes to one server and listens to it as many clients, in one thread, so that it costs the same for
//! every server.

mod connect;
mod group;
pub(crate) mod ingest;
mod publish;
mod stamp;

pub(crate) use connect::Protocol;
pub(crate) use group::{Group, Plan};
pub(crate) use publish::Publish;
pub(crate) use stamp::{Form, Frame};

/// Bytes of every payload.
pub(crate) const PAYLOAD: usize = 128;
