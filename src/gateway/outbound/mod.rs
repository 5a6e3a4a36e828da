//! [`Outbound`]: the one client for everything that a gateway asks of other servers.
//!
//! It follows no redirects and takes no proxy from the environment. A name is resolved once, local addresses are left
//! out (`guard`), and the connection goes to an address that was looked at. Every answer has a time and a size.
//! Requests run on a runtime of their own, whose connections are shared by all workers and outlive none of them.

mod guard;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
pub(super) use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
pub(super) use reqwest::{Method, StatusCode};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use url::{Host, Url};

use self::guard::Guard;
use crate::model::target::Target;

/// Requests of one target that may be under way at a time; more wait, as long as their time allows.
const MAX_IN_FLIGHT: usize = 256;
/// Connections of one target that are kept open between requests.
const MAX_IDLE: usize = 16;
/// How long they are.
const IDLE: Duration = Duration::from_secs(60);
/// Kinds of connections that are known at a time: each port with listed targets, and each time to connect, is one.
const MAX_CLIENTS: usize = 32;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The method.
    pub method: Method,
    /// Where: `http` or `https`.
    pub url: Url,
    /// Headers; `Host` and `Content-Length` come by themselves.
    pub headers: HeaderMap,
    /// The body; empty: none.
    pub body: Bytes,
    /// Time to connect, with the name's resolution and the TLS handshake.
    pub connect_timeout: Duration,
    /// Time to the end of the answer.
    pub timeout: Duration,
    /// Longest body of an answer.
    pub max_bytes: usize,
}

/// What is answered, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// Why there is no answer. The texts name no URL: what stands in one may be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// It is not asked.
    #[error("{0} is local; gateway.allowed_local_targets lists what is asked all the same")]
    Forbidden(String),
    /// There is no such server, or what it sends is no answer.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("no answer in time")]
    TimedOut,
    /// It is longer than it may be.
    #[error("the answer is longer than {0} bytes")]
    TooLarge(usize),
}

/// Asks other servers; a clone is the same.
#[derive(Debug, Clone)]
pub struct Outbound(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    runtime: Handle,
    targets: Vec<Target>,
    clients: Mutex<HashMap<Kind, reqwest::Client>>,
    lanes: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// What connections have in common: the port, if targets of it are listed, and the time to connect.
type Kind = (Option<u16>, Duration);

impl Outbound {
    /// Asks on `runtime`, and also the local targets that are listed as `HOST:PORT`.
    pub fn new(allowed_local_targets: &[String], runtime: Handle) -> Self {
        // Settings are checked when they are read.
        let targets = allowed_local_targets.iter().filter_map(|text| Target::parse(text)).collect();
        Self(Arc::new(Shared { runtime, targets, clients: Mutex::default(), lanes: Mutex::default() }))
    }

    /// Where requests run.
    pub(super) fn runtime(&self) -> Handle {
        self.0.runtime.clone()
    }

    /// Asks, and waits for the whole answer. When it is dropped the request is given up.
    pub async fn send(&self, ask: Ask) -> Result<Answer, OutboundError> {
        let shared = Arc::clone(&self.0);
        let asked = self.0.runtime.spawn(async move {
            let timeout = ask.timeout;
            tokio::time::timeout(timeout, shared.send(ask)).await.unwrap_or(Err(OutboundError::TimedOut))
        });
        let _given_up = GivenUp(asked.abort_handle());
        asked.await.unwrap_or_else(|_| Err(OutboundError::Unreachable("the server stops".to_owned())))
    }
}

/// Ends a request that nobody waits for any more.
struct GivenUp(AbortHandle);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Shared {
    async fn send(&self, ask: Ask) -> Result<Answer, OutboundError> {
        let (host, port) = match (ask.url.scheme(), ask.url.host(), ask.url.port_or_known_default()) {
            ("http" | "https", Some(host), Some(port)) => (host, port),
            _ => return Err(OutboundError::Unreachable("the URL is not one of http or https".to_owned())),
        };
        let guard = Guard::new(&self.targets, port);
        let literal = match host {
            Host::Ipv4(ip) => Some(IpAddr::V4(ip)),
            Host::Ipv6(ip) => Some(IpAddr::V6(ip)),
            Host::Domain(_) => None,
        };
        // An address is not resolved, so it is looked at here; the addresses of a name are looked at below.
        if literal.is_some_and(|ip| !guard.allows(&host, ip)) {
            return Err(OutboundError::Forbidden(format!("{host}:{port}")));
        }
        let lane = self.lane(format!("{host}:{port}"));
        let _turn = lane.acquire().await;
        let client = self.client(guard, port, ask.connect_timeout)?;
        let request = client.request(ask.method, ask.url).headers(ask.headers);
        let request = if ask.body.is_empty() { request } else { request.body(ask.body) };
        let mut answer = request.send().await.map_err(|error| fault(&error))?;
        let is_long = |len: u64| len > ask.max_bytes as u64;
        if answer.content_length().is_some_and(is_long) {
            return Err(OutboundError::TooLarge(ask.max_bytes));
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| fault(&error))? {
            if is_long((body.len() + chunk.len()) as u64) {
                return Err(OutboundError::TooLarge(ask.max_bytes));
            }
            body.extend_from_slice(&chunk);
        }
        let headers = std::mem::take(answer.headers_mut());
        Ok(Answer { status: answer.status(), headers, body: body.freeze() })
    }

    /// Where the requests of one target take turns: a server that hangs holds up nobody else's.
    fn lane(&self, target: String) -> Arc<Semaphore> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get(&target).and_then(Weak::upgrade) {
            return lane;
        }
        // There are as many as are asked just now.
        lanes.retain(|_, lane| lane.strong_count() > 0);
        let lane = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        lanes.insert(target, Arc::downgrade(&lane));
        lane
    }

    fn client(&self, guard: Guard, port: u16, connect: Duration) -> Result<reqwest::Client, OutboundError> {
        let kind = ((!guard.is_strict()).then_some(port), connect);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&kind) {
            return Ok(client.clone());
        }
        // Every client of the process shares it; all but the first find it there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .http1_only()
            .user_agent(concat!("triggercast/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(connect)
            .pool_max_idle_per_host(MAX_IDLE)
            .pool_idle_timeout(IDLE)
            .dns_resolver(Guarded(guard))
            .build()
            .map_err(|error| fault(&error))?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(kind, client.clone());
        Ok(client)
    }
}

/// Resolves names to what a guard allows.
struct Guarded(Guard);

/// A name that stands for nothing else than local addresses.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct LocalName(String);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0.clone();
        Box::pin(async move {
            let name = name.as_str();
            // The port is put in afterwards.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name, 0)).await?.collect();
            let host = Host::Domain(name);
            let allowed: Vec<_> =
                found.iter().copied().filter(|found| guard.allows(&host, found.ip())).collect();
            if allowed.is_empty() && !found.is_empty() {
                return Err(LocalName(name.to_owned()).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

fn fault(error: &reqwest::Error) -> OutboundError {
    // The innermost says what it is; the others where, with the URL.
    let mut innermost: &dyn std::error::Error = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
        if let Some(LocalName(name)) = inner.downcast_ref() {
            return OutboundError::Forbidden(name.clone());
        }
    }
    if error.is_timeout() {
        OutboundError::TimedOut
    } else {
        OutboundError::Unreachable(innermost.to_string())
    }
}

#[cfg(test)]
impl Outbound {
    /// Asks these local servers too, on a runtime that all tests share.
    pub(crate) fn for_tests(local: &[SocketAddr]) -> Self {
        static RUNTIME: std::sync::LazyLock<tokio::runtime::Runtime> = std::sync::LazyLock::new(|| {
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
        });
        let local: Vec<_> = local.iter().map(ToString::to_string).collect();
        Self::new(&local, RUNTIME.handle().clone())
    }
}

#[cfg(test)]
mod tests;
