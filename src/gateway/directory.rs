//! What every worker looks up when a client connects: gateways by id or domain, their paths, the limits.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use dashmap::DashMap;
use ipnet::IpNet;

use super::address::Addresses;
use super::authorize::{Door, Rights};
use super::clients::{Clients, Members};
use super::crowd::{Crowd, Party};
use super::history::{History, PathHistory};
use super::hooks::Calls;
use super::outbound::Outbound;
use super::refusal::Refusal;
use super::segment::Format;
use super::view::View;
use crate::journal::{Journal, Journals};
use crate::model::activity::PathActivity;
use crate::model::gateway::{Gateway, GatewayPath, MAX_WORKERS, PathKey, SlowClients};
use crate::model::id::Id;
use crate::model::path_template::PathTemplate;
use crate::telemetry::{PATHS, PathMeter};

/// The gateways that clients can reach just now.
#[derive(Debug)]
pub struct Directory {
    gateways: DashMap<Id, Arc<GatewayEntry>>,
    domains: DashMap<String, Arc<GatewayEntry>>,
    /// Every path that there has been: one that comes back finds its clients and counters.
    paths: DashMap<PathKey, Arc<PathEntry>>,
    history: Arc<History>,
    rights: Arc<Rights>,
    clients: Arc<Clients>,
    connections: Arc<AtomicUsize>,
    max_connections: usize,
    handshake_timeout: Duration,
    pub(super) addresses: Addresses,
    outbound: Outbound,
}

/// What the public port allows over all gateways.
#[derive(Debug, Clone)]
pub struct PublicLimits {
    /// Connections open at the same time.
    pub connections: usize,
    /// Requests of one address in a second, on average; ten seconds' worth at once.
    pub handshakes_per_second: u32,
    /// Time from connecting to the end of a request's headers.
    pub handshake_timeout: Duration,
    /// Peers that are believed what they say of their clients.
    pub trusted_proxies: Vec<IpNet>,
}

/// A gateway as the handshake needs it.
#[derive(Debug)]
pub(super) struct GatewayEntry {
    pub(super) allowed_origins: Vec<String>,
    /// Paths without parameters.
    plain: HashMap<String, Route>,
    /// The others, best match first.
    templates: Vec<(PathTemplate, Route)>,
    is_stopped: bool,
    pub(super) calls: Arc<Calls>,
}

/// A path as it is declared now, and what lasts when that changes.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) entry: Arc<PathEntry>,
    pub(super) settings: Arc<GatewayPath>,
}

/// What a request leads to.
#[derive(Debug)]
pub(super) struct Found<'p> {
    pub(super) gateway: Arc<GatewayEntry>,
    pub(super) route: Route,
    /// The path within the gateway: as it was asked for, without the gateway's id.
    pub(super) path: &'p str,
    /// The values of the path's parameters.
    pub(super) values: Vec<(String, String)>,
}

impl GatewayEntry {
    fn find(&self, path: &str) -> Option<(&Route, Vec<(String, String)>)> {
        if let Some(route) = self.plain.get(path) {
            return Some((route, Vec::new()));
        }
        self.templates.iter().find_map(|(template, route)| Some((route, template.matches(path)?)))
    }

    fn has(&self, path: &str) -> bool {
        self.plain.contains_key(path)
            || self.templates.iter().any(|(_, route)| &*route.entry.key.path == path)
    }

    fn paths(&self) -> impl Iterator<Item = &Arc<PathEntry>> {
        let templates = self.templates.iter().map(|(_, route)| route);
        self.plain.values().chain(templates).map(|route| &route.entry)
    }
}

/// What becomes of clients that do not keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backlog {
    /// How far they may fall behind, in bytes for each worker.
    pub(super) bytes: usize,
    /// What is done with those that do.
    pub(super) slow_clients: SlowClients,
}

impl Backlog {
    fn of(path: &GatewayPath) -> Self {
        Self { bytes: path.backlog_bytes, slow_clients: path.slow_clients }
    }
}

/// A path, shared by all workers.
#[derive(Debug)]
pub(super) struct PathEntry {
    pub(super) key: PathKey,
    pub(super) crowd: Crowd,
    /// Its WebSocket connections.
    pub(super) members: Members,
    /// Told what goes out.
    pub(super) meter: Arc<PathMeter>,
    backlog: RwLock<Backlog>,
    /// Who may connect.
    pub(super) door: Door,
    /// Where the path's order is.
    pub(super) journal: Arc<dyn Journal>,
    pub(super) history: PathHistory,
    /// Clients without a filter, by format.
    plain: [Counts; Format::ALL.len()],
    /// Clients with a filter, of all formats.
    filtered: Counts,
}

impl PathEntry {
    /// What becomes of clients that do not keep up, as it is now.
    pub(super) fn backlog(&self) -> Backlog {
        *self.backlog.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a client that comes to a worker. Call it before the client hears that it is connected, and before
    /// the journal is read for it.
    pub(super) fn enter(&self, view: &View, worker: usize) {
        self.counts(view).of(worker).fetch_add(1, Ordering::AcqRel);
    }

    /// Counts a client that has gone.
    pub(super) fn leave(&self, view: &View, worker: usize) {
        self.counts(view).of(worker).fetch_sub(1, Ordering::AcqRel);
    }

    fn counts(&self, view: &View) -> &Counts {
        if view.filter.is_some() { &self.filtered } else { self.plain(view.format) }
    }

    /// Clients of this format without a filter.
    pub(super) fn plain(&self, format: Format) -> &Counts {
        &self.plain[format as usize]
    }

    /// Clients with a filter.
    pub(super) fn filtered(&self) -> &Counts {
        &self.filtered
    }
}

/// How many clients of a kind a path has, by worker: one without any is not sent a batch. It takes room when the first
/// comes.
#[derive(Debug, Default)]
pub(super) struct Counts(OnceLock<Box<[AtomicUsize]>>);

impl Counts {
    fn of(&self, worker: usize) -> &AtomicUsize {
        let none = || (0..MAX_WORKERS).map(|_| AtomicUsize::new(0)).collect();
        &self.0.get_or_init(none)[worker % MAX_WORKERS]
    }

    /// Whether there has ever been one.
    pub(super) fn is_used(&self) -> bool {
        self.0.get().is_some()
    }

    /// Whether a worker may have any.
    pub(super) fn is_open_on(&self, worker: usize) -> bool {
        self.0.get().is_some_and(|counts| counts[worker % MAX_WORKERS].load(Ordering::Acquire) > 0)
    }
}

/// One of the connections that may be open at the same time; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    all: Arc<AtomicUsize>,
    path: Option<(Arc<PathEntry>, Party)>,
}

impl Place {
    /// Where its client comes from.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.path.as_ref()?.1.address
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::AcqRel);
        if let Some((entry, party)) = &self.path {
            entry.crowd.leave(party);
        }
    }
}

impl Directory {
    /// The directory of `gateways`. What they ask of other servers is asked by `outbound`.
    pub fn new(gateways: &[Gateway], limits: PublicLimits, journals: &Journals, outbound: Outbound) -> Self {
        let directory = Self {
            gateways: DashMap::new(),
            domains: DashMap::new(),
            paths: DashMap::new(),
            history: Arc::new(History::new()),
            rights: Arc::new(Rights::new(outbound.clone())),
            clients: Arc::default(),
            connections: Arc::default(),
            max_connections: limits.connections,
            handshake_timeout: limits.handshake_timeout,
            addresses: Addresses::new(limits.trusted_proxies, limits.handshakes_per_second),
            outbound,
        };
        directory.apply(gateways, journals);
        directory
    }

    /// Knows these gateways from now on. Gives the paths that clients can no longer reach.
    pub fn apply(&self, gateways: &[Gateway], journals: &Journals) -> Vec<PathKey> {
        for gateway in gateways {
            let calls = self.gateways.get(&gateway.id).map(|known| Arc::clone(&known.calls));
            let mut entry = GatewayEntry {
                allowed_origins: gateway.allowed_origins.clone(),
                plain: HashMap::new(),
                templates: Vec::new(),
                is_stopped: gateway.is_stopped,
                calls: calls.unwrap_or_else(|| Arc::new(Calls::new(self.outbound.clone()))),
            };
            for path in &gateway.paths {
                let Some(known) = self.enter_path(gateway, path, journals) else { continue };
                let route = Route { entry: known, settings: Arc::new(path.clone()) };
                // Paths are checked when they are declared.
                let Ok(template) = PathTemplate::parse(&path.path) else { continue };
                if template.is_plain() {
                    entry.plain.insert(path.path.clone(), route);
                } else {
                    entry.templates.push((template, route));
                }
            }
            entry.templates.sort_by_key(|(template, _)| template.rank());
            let entry = Arc::new(entry);
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
            gateway.is_some_and(|gateway| !gateway.is_stopped && gateway.has(&key.path))
        };
        PATHS.keep(|key| self.gateways.get(&key.gateway_id).is_some_and(|gateway| gateway.has(&key.path)));
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
            known.door.change(path.authorizer.as_ref());
            *known.backlog.write().unwrap_or_else(PoisonError::into_inner) = Backlog::of(path);
            PATHS.enter_as(&key, Arc::clone(&known.meter));
            return Some(Arc::clone(&known));
        }
        // Journals are made for the paths of the same gateways.
        let journal = journals.of(&key)?;
        let history = PathHistory::new(key.clone(), Arc::clone(&journal), Arc::clone(&self.history));
        let entry = Arc::new(PathEntry {
            journal,
            history,
            key: key.clone(),
            crowd: Crowd::default(),
            members: Members::default(),
            meter: PATHS.enter(&key),
            backlog: RwLock::new(Backlog::of(path)),
            door: Door::new(Arc::clone(&self.rights), path.authorizer.clone()),
            plain: Default::default(),
            filtered: Counts::default(),
        });
        self.paths.insert(key, Arc::clone(&entry));
        Some(entry)
    }

    /// Finds the path that a request names: `{path}` under a gateway's domain, else `/{gateway_id}{path}`.
    /// `host` is the Host header; `path` the request path without its query, compared byte for byte but for parameters.
    pub(super) fn find<'p>(&self, host: &str, path: &'p str) -> Result<Found<'p>, Refusal> {
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
        let (route, values) = gateway.find(path).ok_or(Refusal::UnknownPath)?;
        if gateway.is_stopped {
            return Err(Refusal::GatewayStopped);
        }
        Ok(Found { route: route.clone(), path, values, gateway })
    }

    /// The path `key`, if it exists.
    pub(super) fn path(&self, key: &PathKey) -> Option<Arc<PathEntry>> {
        self.paths.get(key).map(|entry| Arc::clone(&entry))
    }

    /// The paths of a gateway, or the one that is declared as `path`; `None` if there is no such path just now.
    pub(super) fn paths(&self, gateway_id: &str, path: Option<&Id>) -> Option<Vec<Arc<PathEntry>>> {
        let gateway = Arc::clone(&*self.gateways.get(gateway_id)?);
        match path {
            None => Some(gateway.paths().cloned().collect()),
            Some(path) => {
                gateway.paths().find(|entry| entry.key.path == *path).map(|entry| vec![Arc::clone(entry)])
            }
        }
    }

    /// What goes out on each path that can be reached, by gateway and path.
    pub(super) fn activity(&self) -> Vec<PathActivity> {
        let gateways: Vec<_> = self.gateways.iter().map(|gateway| Arc::clone(&gateway)).collect();
        let of = |entry: &Arc<PathEntry>| PathActivity {
            key: entry.key.clone(),
            connections: entry.meter.connections(),
            events: entry.meter.events(),
            batches: entry.meter.batches(),
        };
        let mut paths: Vec<_> = gateways.iter().flat_map(|gateway| gateway.paths().map(of)).collect();
        paths.sort_by(|a, b| a.key.cmp(&b.key));
        paths
    }

    /// Takes a place for one more connection on a path, if one is free.
    pub(super) fn take_place(&self, route: &Route, party: Party) -> Result<Place, Refusal> {
        let mut place = Place { all: Arc::clone(&self.connections), path: None };
        // `place` counts down again when it is dropped on refusal.
        if self.connections.fetch_add(1, Ordering::AcqRel) >= self.max_connections {
            return Err(Refusal::Full);
        }
        route.entry.crowd.enter(&party, &route.settings.limits).map_err(Refusal::Crowded)?;
        place.path = Some((Arc::clone(&route.entry), party));
        Ok(place)
    }

    /// Ends of clients that integrations have not been told yet.
    pub(super) fn farewells(&self) -> usize {
        self.gateways.iter().map(|gateway| gateway.calls.farewells()).sum()
    }

    /// Time from connecting to the end of a request's headers.
    pub(super) fn handshake_timeout(&self) -> Duration {
        self.handshake_timeout
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

#[cfg(test)]
impl PublicLimits {
    /// So many connections, and all the rest that tests need.
    pub(crate) fn for_tests(connections: usize) -> Self {
        Self {
            connections,
            handshakes_per_second: 1_000_000,
            handshake_timeout: Duration::from_secs(5),
            trusted_proxies: Vec::new(),
        }
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
        let journals = Journals::in_memory(&gateways);
        Directory::new(&gateways, PublicLimits::for_tests(max), &journals, Outbound::for_tests(&[]))
    }

    fn find(host: &str, path: &str) -> Result<String, Refusal> {
        directory(1).find(host, path).map(|found| found.route.entry.key.to_string())
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
    fn a_plain_path_comes_before_a_template() {
        let paths = ["/{a}", "/ws", "/{all+}"].map(GatewayPath::new).to_vec();
        let gateway = Gateway { paths, ..Gateway::new("main") };
        let journals = Journals::in_memory(std::slice::from_ref(&gateway));
        let limits = PublicLimits::for_tests(1);
        let directory = Directory::new(&[gateway], limits, &journals, Outbound::for_tests(&[]));
        let find = |path: &str| {
            let found = directory.find("h", path).unwrap();
            (
                found.route.settings.path.clone(),
                found.values.into_iter().map(|(_, value)| value).collect::<String>(),
            )
        };
        assert_eq!(find("/main/ws"), ("/ws".into(), String::new()));
        assert_eq!(find("/main/other"), ("/{a}".into(), "other".into()));
        assert_eq!(find("/main/a/b"), ("/{all+}".into(), "a/b".into()));
        assert_eq!(directory.find("h", "/main/").unwrap_err(), Refusal::UnknownPath);
    }

    #[test]
    fn what_becomes_of_slow_clients_changes_with_the_path() {
        let gateways = |backlog_bytes, slow_clients| {
            let path = GatewayPath { backlog_bytes, slow_clients, ..GatewayPath::new("/ws") };
            [Gateway { paths: vec![path], ..Gateway::new("main") }]
        };
        let before = gateways(1 << 20, SlowClients::Replay);
        let journals = Journals::in_memory(&before);
        let directory =
            Directory::new(&before, PublicLimits::for_tests(1), &journals, Outbound::for_tests(&[]));
        let backlog = || directory.find("h", "/main/ws").unwrap().route.entry.backlog();
        assert_eq!(backlog(), Backlog { bytes: 1 << 20, slow_clients: SlowClients::Replay });
        directory.apply(&gateways(1 << 16, SlowClients::Disconnect), &journals);
        assert_eq!(backlog(), Backlog { bytes: 1 << 16, slow_clients: SlowClients::Disconnect });
    }

    #[test]
    fn a_path_within_its_gateway_loses_the_id_and_nothing_else() {
        let paths = ["/{all+}", "/main/{a}"].map(GatewayPath::new).to_vec();
        let gateway = Gateway { paths, domain: Some("ws.example.org".into()), ..Gateway::new("main") };
        let journals = Journals::in_memory(std::slice::from_ref(&gateway));
        let limits = PublicLimits::for_tests(1);
        let directory = Directory::new(&[gateway], limits, &journals, Outbound::for_tests(&[]));
        for (host, asked, path, declared, value) in [
            ("h", "/main/x", "/x", "/{all+}", "x"),
            ("h", "/main/main/x", "/main/x", "/main/{a}", "x"),
            // Under the domain what looks like the id is part of the path.
            ("ws.example.org", "/main/x", "/main/x", "/main/{a}", "x"),
            ("ws.example.org", "/main/x/y", "/main/x/y", "/{all+}", "main/x/y"),
        ] {
            let found = directory.find(host, asked).unwrap();
            assert_eq!((found.path, &*found.route.settings.path), (path, declared), "{host}{asked}");
            assert_eq!(found.values[0].1, value);
        }
    }

    #[test]
    fn a_path_asks_the_authorizer_that_it_has_now() {
        use crate::model::authorizer::{Authorizer, HttpAuthorizer};
        let ask = |url: &str| {
            Authorizer::Http(HttpAuthorizer {
                url: url.into(),
                timeout: Duration::ZERO,
                cache_ttl: Duration::ZERO,
                cache_by_uri: false,
                source: None,
            })
        };
        let gateways = |authorizer: Option<Authorizer>| {
            let path = GatewayPath { authorizer, ..GatewayPath::new("/ws") };
            [Gateway { paths: vec![path], ..Gateway::new("main") }]
        };
        let journals = Journals::in_memory(&gateways(None));
        let limits = PublicLimits::for_tests(1);
        let directory = Directory::new(&gateways(None), limits, &journals, Outbound::for_tests(&[]));
        let path = directory.find("h", "/main/ws").unwrap().route.entry;
        assert_eq!(path.door.authorizer(), None);
        for wanted in [Some(ask("http://a")), Some(ask("http://b")), None] {
            directory.apply(&gateways(wanted.clone()), &journals);
            assert_eq!(path.door.authorizer().as_deref(), wanted.as_ref());
        }
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
        let route = directory.find("h", "/main/ws").unwrap().route;
        let take = || directory.take_place(&route, Party::default());
        let place = take().unwrap();
        assert_eq!(take().unwrap_err(), Refusal::Full);
        drop(place);
        assert_eq!(directory.connections(), 0);
        assert!(take().is_ok());
    }
}
