//! A client that has been let in, before it is a session.

use bytes::Bytes;

use crate::gateway::clients::Guest;
use crate::gateway::directory::Route;
use crate::gateway::hooks::Visit;
use crate::gateway::replay::Begin;

/// A client that has been let in.
pub(in crate::gateway) struct Arrival {
    pub(in crate::gateway) route: Route,
    pub(in crate::gateway) guest: Guest,
    /// How the path's hooks know it, if it has any.
    pub(in crate::gateway) visit: Option<Visit>,
    /// The 101 response: it goes out first.
    pub(in crate::gateway) answer: Bytes,
    /// Where it begins in the journal, unless it begins now.
    pub(in crate::gateway) start: Option<Begin>,
}
