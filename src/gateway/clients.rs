//! Which WebSocket connections are open, and where. There are many, so an entry is small: the rest is with the session.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;
use dashmap::mapref::one::Ref;
use uuid::Uuid;

use super::authorize::Pass;
use super::directory::PathEntry;

/// Bytes of a client's name for itself that are kept.
const USER_AGENT_BYTES: usize = 256;

/// Every open WebSocket connection, by its id.
#[derive(Debug, Default)]
pub(super) struct Clients(DashMap<Uuid, Client>);

/// The open WebSocket connections of one path, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Members(Mutex<BTreeSet<Uuid>>);

/// Where a connection is.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) path: Arc<PathEntry>,
    pub(super) worker: u16,
    /// The number of its view of the path on that worker.
    pub(super) view: u16,
    /// Its place among the sessions with that view.
    pub(super) key: u32,
}

impl Clients {
    /// A client is there.
    pub(super) fn enter(&self, id: Uuid, client: Client) {
        let path = Arc::clone(&client.path);
        self.0.insert(id, client);
        path.members.lock().insert(id);
    }

    /// A client has gone.
    pub(super) fn leave(&self, id: &Uuid) {
        if let Some((_, client)) = self.0.remove(id) {
            client.path.members.lock().remove(id);
        }
    }

    /// Where a client is.
    pub(super) fn get(&self, id: &Uuid) -> Option<Ref<'_, Uuid, Client>> {
        self.0.get(id)
    }
}

impl Members {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<Uuid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first `most` ids of a range.
    fn first(&self, ids: &Range<Uuid>, most: usize) -> Vec<Uuid> {
        if ids.is_empty() {
            return Vec::new();
        }
        self.lock().range(ids.clone()).take(most).copied().collect()
    }
}

/// The first `most` ids of a range on these paths together, in order. What comes after them is hardly looked at.
pub(super) fn first<'a>(
    paths: impl IntoIterator<Item = &'a Members>,
    mut ids: Range<Uuid>,
    most: usize,
) -> Vec<Uuid> {
    let mut found: Vec<Uuid> = Vec::new();
    for members in paths {
        found.extend(members.first(&ids, most));
        if found.len() >= most {
            found.sort_unstable();
            found.truncate(most);
            // Others count only if they come before the last of these.
            ids.end = found.last().copied().unwrap_or(ids.end);
        }
    }
    found.sort_unstable();
    found
}

/// Who came, as the handshake tells.
#[derive(Debug, Clone)]
pub(super) struct Guest {
    /// Shown to the client as `X-Yc-Apigateway-Websocket-Connection-Id`. Version 7: it tells when the client came.
    pub(super) id: Uuid,
    pub(super) user_agent: Option<Box<str>>,
    /// What it has shown to be let in, if the path asks for something.
    pub(super) pass: Option<Box<Pass>>,
}

impl Guest {
    pub(super) fn new(user_agent: Option<&str>) -> Self {
        let cut = |text: &str| {
            let end = (0..=USER_AGENT_BYTES.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
            Box::from(&text[..end.unwrap_or(0)])
        };
        Self { id: Uuid::now_v7(), user_agent: user_agent.map(cut), pass: None }
    }

    /// Who it is, as the path's authorizer says.
    pub(super) fn subject(&self) -> Option<&str> {
        self.pass.as_ref()?.subject()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_of_several_paths_come_in_order_and_each_once(
            paths in prop::collection::vec(prop::collection::btree_set(0u128..200, 0..40), 0..5),
            start in 0u128..200, end in 0u128..200, most in 1usize..50,
        ) {
            // An id is on one path only.
            let paths: Vec<BTreeSet<u128>> = paths.iter().enumerate()
                .map(|(n, ids)| ids.iter().map(|id| id * 8 + n as u128).collect()).collect();
            let (start, end) = (start * 8, end * 8);
            let mut expected: Vec<u128> = paths.iter().flatten().copied().collect();
            expected.retain(|id| (start..end).contains(id));
            expected.sort_unstable();
            expected.truncate(most);
            let members: Vec<Members> = paths.iter()
                .map(|ids| Members(Mutex::new(ids.iter().copied().map(Uuid::from_u128).collect()))).collect();
            let found = first(&members, Uuid::from_u128(start)..Uuid::from_u128(end), most);
            prop_assert_eq!(found.iter().map(Uuid::as_u128).collect::<Vec<_>>(), expected);
        }
    }
}
