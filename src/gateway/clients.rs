//! Which WebSocket connections are open, and where. There are many, so an entry is small: the rest is with the session.

use std::sync::Arc;

use dashmap::DashMap;
use uuid::Uuid;

use super::authorize::Pass;
use super::directory::PathEntry;

/// Bytes of a client's name for itself that are kept.
const USER_AGENT_BYTES: usize = 256;

/// Every open WebSocket connection, by its id.
pub(super) type Clients = DashMap<Uuid, Client>;

/// Where a connection is.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) path: Arc<PathEntry>,
    pub(super) worker: u16,
    /// Its place among the path's sessions on that worker.
    pub(super) key: u32,
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
}
