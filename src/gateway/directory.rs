//! What every worker looks up when a client connects: gateways by id or domain, their paths, the limits.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

use super::clients::Clients;
use super::history::{History, PathHistory};
use super::refusal::Refusal;
use super::segment::Format;
use crate::journal::{Journal, Journals};
use crate::model::gateway::{Gateway, GatewayPath, MAX_WORKERS, PathKey, SlowClients};
use crate::model::id::Id;

/// The gateways that clients can reach just now.
#[derive(Debug)]
pub struct Directory {
    gateways: DashMap<Id, Arc<GatewayEntry>>,
    domains: DashMap<String, Arc<GatewayEntry>>,
    /// Every path that there has been: one that comes back finds its clients and counters.
    paths: DashMap<PathKey, Arc<PathEntry>>,
    history: Arc<History>,
    clients: Arc<Clients>,
    connections: Arc<AtomicUsize>,
    max_connections: usize,
}

/// A gateway as the handshake needs it.
#[derive(Debug)]
pub(super) struct GatewayEntry {
    pub(super) allowed_origins: Vec<String>,
    paths: HashMap<String, Arc<PathEntry>>,
    is_stopped: bool,
}

/// A path, shared by all workers.
#[derive(Debug)]
pub(super) struct PathEntry {
    pub(super) key: PathKey,
    pub(super) backlog_bytes: usize,
    pub(super) slow_clients: SlowClients,
    /// Where the path's order is.
    pub(super) journal: Arc<dyn Journal>,
    pub(super) history: PathHistory,
    /// Open sessions by worker; a worker without sessions is not sent a batch.
    sessions: Box<[AtomicUsize]>,
    /// The same for clients of server-sent events.
    streams: Box<[AtomicUsize]>,
}

impl PathEntry {
    /// Counts a client that comes to a worker. Call it before the client hears that it is connected, and before
    /// the journal is read for it.
    pub(super) fn enter(&self, format: Format, worker: usize) {
        self.clients(format)[worker % MAX_WORKERS].fetch_add(1, Ordering::AcqRel);
    }

    /// Counts a client that has gone.
    pub(super) fn leave(&self, format: Format, worker: usize) {
        self.clients(format)[worker % MAX_WORKERS].fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether a worker may have clients of this format on this path.
    pub(super) fn is_open_on(&self, format: Format, worker: usize) -> bool {
        self.clients(format)[worker % MAX_WORKERS].load(Ordering::Acquire) > 0
    }

    fn clients(&self, format: Format) -> &[AtomicUsize] {
        match format {
            Format::WebSocket => &self.sessions,
            Format::EventStream => &self.streams,
        }
    }
}

/// One of the connections that may be open at the same time; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Directory {
    /// The directory of `gateways`, with at most `max_connections` sessions over all of them.
    pub fn new(gateways: &[Gateway], max_connections: usize, journals: &Journals) -> Self {
        let directory = Self {
            gateways: DashMap::new(),
            domains: DashMap::new(),
            paths: DashMap::new(),
            history: Arc::new(History::new()),
            clients: Arc::default(),
            connections: Arc::default(),
            max_connections,
        };
        directory.apply(gateways, journals);
        directory
    }

    /// Knows these gateways from now on. Gives the paths that clients can no longer reach.
    pub fn apply(&self, gateways: &[Gateway], journals: &Journals) -> Vec<PathKey> {
        for gateway in gateways {
            let paths = gateway
                .paths
                .iter()
                .filter_map(|path| Some((path.path.clone(), self.enter_path(gateway, path, journals)?)));
            let entry = Arc::new(GatewayEntry {
                allowed_origins: gateway.allowed_origins.clone(),
                paths: paths.collect(),
                is_stopped: gateway.is_stopped,
            });
            if let Some(domain) = &gateway.domain {
                self.domains.insert(domain.clone(), Arc::clone(&entry));
            }
            self.gateways.insert(gateway.id.clone(), entry);
        }
        self.gateways.retain(|id, _| gateways.iter().any(|gateway| gateway.id == *id));
        self.domains
            .retain(|domain, _| gateways.iter().any(|gateway| gateway.domain.as_ref() == Some(domain)));
        let is_open = |key: &PathKey| {
            let gateway = self.gateways.get(&key.gateway_id);
            gateway.is_some_and(|gateway| !gateway.is_stopped && gateway.paths.contains_key(&*key.path))
        };
        let known = self.paths.iter().map(|entry| entry.key().clone());
        known.collect::<Vec<_>>().into_iter().filter(|key| !is_open(key)).collect()
    }

    fn enter_path(
        &self,
        gateway: &Gateway,
        path: &GatewayPath,
        journals: &Journals,
    ) -> Option<Arc<PathEntry>> {
        let key = PathKey { gateway_id: gateway.id.clone(), path: path.path.as_str().into() };
        if let Some(known) = self.paths.get(&key) {
            return Some(Arc::clone(&known));
        }
        let none = || (0..MAX_WORKERS).map(|_| AtomicUsize::new(0)).collect();
        // Journals are made for the paths of the same gateways.
        let journal = journals.of(&key)?;
        let history = PathHistory::new(key.clone(), Arc::clone(&journal), Arc::clone(&self.history));
        let entry = Arc::new(PathEntry {
            journal,
            history,
            key: key.clone(),
            backlog_bytes: path.backlog_bytes,
            slow_clients: path.slow_clients,
            sessions: none(),
            streams: none(),
        });
        self.paths.insert(key, Arc::clone(&entry));
        Some(entry)
    }

    /// Finds the path that a request names: `{path}` under a gateway's domain, else `/{gateway_id}{path}`.
    /// `host` is the Host header; `path` the request path without its query, compared byte for byte.
    pub(super) fn find(
        &self,
        host: &str,
        path: &str,
    ) -> Result<(Arc<GatewayEntry>, Arc<PathEntry>), Refusal> {
        let domain = self.domains.get(&host_name(host).to_ascii_lowercase()).map(|entry| Arc::clone(&entry));
        let (gateway, path) = match domain {
            Some(gateway) => (gateway, path),
            None => {
                let rest = path.strip_prefix('/').unwrap_or(path);
                let (id, _) = rest.split_once('/').ok_or(Refusal::UnknownGateway)?;
                let gateway = self.gateways.get(id).ok_or(Refusal::UnknownGateway)?;
                (Arc::clone(&gateway), &rest[id.len()..])
            }
        };
        let entry = gateway.paths.get(path).cloned().ok_or(Refusal::UnknownPath)?;
        if gateway.is_stopped {
            return Err(Refusal::GatewayStopped);
        }
        Ok((gateway, entry))
    }

    /// The path `key`, if it exists.
    pub(super) fn path(&self, key: &PathKey) -> Option<Arc<PathEntry>> {
        self.paths.get(key).map(|entry| Arc::clone(&entry))
    }

    /// Takes a place for one more connection, if one is free.
    pub(super) fn take_place(&self) -> Result<Place, Refusal> {
        let place = Place(Arc::clone(&self.connections));
        // `place` counts down again when it is dropped on refusal.
        if self.connections.fetch_add(1, Ordering::AcqRel) >= self.max_connections {
            return Err(Refusal::Full);
        }
        Ok(place)
    }

    /// Every open WebSocket connection.
    pub(super) fn clients(&self) -> Arc<Clients> {
        Arc::clone(&self.clients)
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }
}

/// A Host header without its port.
pub(super) fn host_name(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.split(':').next().unwrap_or(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(max: usize) -> Directory {
        let gateway = |id: &str, domain: Option<&str>| Gateway {
            id: id.into(),
            domain: domain.map(Into::into),
            allowed_origins: Vec::new(),
            paths: vec![GatewayPath::new("/ws"), GatewayPath::new("/a/b")],
            is_stopped: false,
        };
        let gateways = [gateway("main", None), gateway("shop", Some("ws.example.org"))];
        Directory::new(&gateways, max, &Journals::in_memory(&gateways))
    }

    fn find(host: &str, path: &str) -> Result<String, Refusal> {
        directory(1).find(host, path).map(|(_, entry)| entry.key.to_string())
    }

    #[test]
    fn finds_paths_by_gateway_id_and_by_domain() {
        assert_eq!(find("localhost:8080", "/main/ws"), Ok("/main/ws".into()));
        assert_eq!(find("localhost:8080", "/main/a/b"), Ok("/main/a/b".into()));
        assert_eq!(find("WS.Example.org:80", "/ws"), Ok("/shop/ws".into()));
        assert_eq!(find("localhost", "/shop/ws"), Ok("/shop/ws".into()));
    }

    #[test]
    fn refuses_what_is_not_exactly_a_path() {
        assert_eq!(find("h", "/other/ws"), Err(Refusal::UnknownGateway));
        assert_eq!(find("h", "/"), Err(Refusal::UnknownGateway));
        assert_eq!(find("h", ""), Err(Refusal::UnknownGateway));
        for path in ["/main/", "/main/WS", "/main/ws/", "/main//ws", "/main/../main/ws", "/main/%77s"] {
            assert_eq!(find("h", path), Err(Refusal::UnknownPath), "{path}");
        }
        assert_eq!(find("ws.example.org", "/shop/ws"), Err(Refusal::UnknownPath));
    }

    #[test]
    fn hosts_lose_their_port() {
        assert_eq!(host_name("a.b:80"), "a.b");
        assert_eq!(host_name("[::1]:80"), "::1");
        assert_eq!(host_name("a"), "a");
    }

    #[test]
    fn a_place_is_free_again_after_its_connection() {
        let directory = directory(1);
        let place = directory.take_place().unwrap();
        assert_eq!(directory.take_place().unwrap_err(), Refusal::Full);
        drop(place);
        assert_eq!(directory.connections(), 0);
        assert!(directory.take_place().is_ok());
    }
}
