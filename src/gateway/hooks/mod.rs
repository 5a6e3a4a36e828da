//! The hooks of a path: integrations that are asked when a client connects, hear what it says, and are told when it
//! has gone.
//!
//! [`Visit`] is one client as its hooks know it. The calls of a gateway share [`Calls`]: [`PLACES`] may be under way at
//! a time. A client that connects is refused when all are taken; a message waits, and the client's next ones with it;
//! the end of a client waits too, [`TURNS`] are told at a time, and each is told unless the server stops before. While
//! more than [`MOST_FAREWELLS`] ends wait, or more than [`MOST_FAREWELL_BYTES`] of what those clients said, nobody new
//! comes in.

mod caller;
mod conversation;
mod render;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use actix_http::RequestHead;
use bytes::Bytes;
use tokio::sync::Semaphore;
use uuid::Uuid;

use self::caller::Event;
pub(super) use self::caller::MAX_KEPT;
use self::caller::TooLong;
use self::caller::{Caller, Header};
pub(super) use self::conversation::{Answer, Conversation};
use self::render::Unfit;
use super::close::Close;
use super::inbound::Message;
use super::outbound::{Ask, HeaderMap, HeaderName, HeaderValue, Method, Outbound, OutboundError};
use super::refusal::Refusal;
use crate::model::gateway::{GatewayPath, MAX_MESSAGE_BYTES, PathKey};
use crate::model::hook::{HttpCall, Integration};
use crate::telemetry::METRICS;

/// Calls of one gateway's integrations that may be under way at a time.
pub(super) const PLACES: usize = 256;
/// Ends of clients that are told at a time; the rest of the places is for clients that are there.
const TURNS: usize = PLACES / 2;
/// Ends of one gateway's clients that may wait to be told.
const MOST_FAREWELLS: usize = 16_384;
/// The same in bytes of what these clients have said and is not passed on.
const MOST_FAREWELL_BYTES: usize = 64 * 1024 * 1024;
/// Time between two lines about the failures of one gateway's integrations.
const SILENCE: Duration = Duration::from_secs(10);
/// What a fixed answer is when it does not say so.
const PLAIN: &str = "text/plain; charset=utf-8";
/// An answer without a body sends nothing to the client, unless it has this header with the value `true`: then it is an
/// empty message.
const SEND_EMPTY: &str = "x-triggercast-send-empty";

/// What the calls of one gateway share.
#[derive(Debug)]
pub(super) struct Calls {
    outbound: Outbound,
    places: Semaphore,
    /// For the ends of clients.
    turns: Semaphore,
    /// Ends of clients that are not told yet.
    farewells: AtomicUsize,
    /// Bytes that these clients have said and that are not passed on.
    farewell_bytes: AtomicUsize,
    silence: Mutex<Silence>,
}

/// Failures that are not logged one by one.
#[derive(Debug, Default)]
struct Silence {
    until: Option<Instant>,
    failures: u64,
}

impl Calls {
    pub(super) fn new(outbound: Outbound) -> Self {
        Self {
            outbound,
            places: Semaphore::new(PLACES),
            turns: Semaphore::new(TURNS),
            farewells: AtomicUsize::new(0),
            farewell_bytes: AtomicUsize::new(0),
            silence: Mutex::default(),
        }
    }

    /// Logs a failure, unless one has just been logged: then it is counted into the next line.
    fn log(&self, path: &PathKey, event: &str, fault: &Fault) {
        let mut silence = self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if silence.until.is_some_and(|until| now < until) {
            silence.failures += 1;
            return;
        }
        let more = std::mem::take(&mut silence.failures);
        silence.until = Some(now + SILENCE);
        tracing::warn!(%path, event, %fault, not_logged_before = more, "an integration gives no answer");
    }

    /// Ends of clients that are not told yet.
    pub(super) fn farewells(&self) -> usize {
        self.farewells.load(Ordering::Acquire)
    }

    /// Whether so much waits of those who have gone that nobody else may come.
    fn is_behind(&self) -> bool {
        self.farewells() >= MOST_FAREWELLS
            || self.farewell_bytes.load(Ordering::Acquire) >= MOST_FAREWELL_BYTES
    }
}

/// What an integration answers.
#[derive(Debug)]
struct Reply {
    status: u16,
    content_type: Option<String>,
    protocol: Option<String>,
    /// A body without a byte goes back as well.
    sends_empty: bool,
    body: Bytes,
}

impl Reply {
    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether it goes to a client as text.
    fn is_text(&self) -> bool {
        let kind = self.content_type.as_deref().unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        (kind == "application/json" || kind.starts_with("text/")) && std::str::from_utf8(&self.body).is_ok()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Unfit(String),
    #[error(transparent)]
    Outbound(#[from] OutboundError),
}

/// One client, as the hooks of its path know it.
#[derive(Debug)]
pub(super) struct Visit {
    key: PathKey,
    path: Arc<GatewayPath>,
    caller: Caller,
    calls: Arc<Calls>,
}

impl Visit {
    /// The client with this id, if its path has hooks. `values` are those of the path's parameters.
    pub(super) fn new(
        key: &PathKey,
        path: &Arc<GatewayPath>,
        calls: &Arc<Calls>,
        id: Uuid,
        head: &RequestHead,
        values: &[(String, String)],
    ) -> Result<Option<Self>, Refusal> {
        let hooks = &path.hooks;
        if [&hooks.connect, &hooks.message, &hooks.disconnect].into_iter().all(Option::is_none) {
            return Ok(None);
        }
        let caller = Caller::new(id, SystemTime::now(), head, values, hooks);
        let caller = caller.map_err(|TooLong| Refusal::TooMuchToKeep)?;
        Ok(Some(Self { key: key.clone(), caller, path: Arc::clone(path), calls: Arc::clone(calls) }))
    }

    /// Whether messages of the client are heard.
    pub(super) fn hears(&self) -> bool {
        self.path.hooks.message.is_some()
    }

    /// Asks whether the client may connect, and forgets what was for that alone. Gives itself back, and the subprotocol
    /// that the integration has chosen.
    pub(super) async fn connect(self) -> Result<(Self, Option<String>), Refusal> {
        if self.calls.is_behind() {
            return Err(Refusal::HooksBusy);
        }
        let mut asking = Asking(Some(self));
        let Some(visit) = &asking.0 else { return Err(Refusal::HookFailed) };
        let answer = visit.ask_to_connect().await;
        let Some(mut visit) = asking.0.take() else { return Err(Refusal::HookFailed) };
        let chosen = answer?;
        visit.caller.forget(&visit.path.hooks);
        Ok((visit, chosen))
    }

    async fn ask_to_connect(&self) -> Result<Option<String>, Refusal> {
        let Some(integration) = &self.path.hooks.connect else { return Ok(None) };
        let _place = match integration {
            Integration::Dummy(_) => None,
            Integration::Http(_) => Some(self.calls.places.try_acquire().map_err(|_| Refusal::HooksBusy)?),
        };
        let reply =
            self.ask(integration, &Event::Connect, None, Bytes::new()).await.map_err(
                |fault| match fault {
                    Fault::Unfit(what) => Refusal::Unfit(what),
                    Fault::Outbound(OutboundError::TimedOut) => Refusal::HookTimedOut,
                    Fault::Outbound(_) => Refusal::HookFailed,
                },
            )?;
        if reply.is_success() {
            return Ok(reply.protocol);
        }
        // Only what refuses is passed on: a redirection would be followed by nobody.
        let is_refusal = (400..600).contains(&reply.status);
        Err(if is_refusal {
            Refusal::Hook { status: reply.status, content_type: reply.content_type, body: reply.body }
        } else {
            Refusal::HookFailed
        })
    }

    /// Passes a message on. Gives what goes back to the client: the data, and whether it is text.
    async fn message(&self, id: Uuid, message: Message) -> Option<(Bytes, bool)> {
        let integration = self.path.hooks.message.as_ref()?;
        let (content_type, data) = match message {
            Message::Text(data) => ("application/json", data),
            Message::Binary(data) => ("application/octet-stream", data),
        };
        let _place = self.place(integration).await;
        let reply = self.ask(integration, &Event::Message(id), Some(content_type), data).await.ok()?;
        let goes_back = reply.is_success() && (reply.sends_empty || !reply.body.is_empty());
        goes_back.then(|| {
            let is_text = reply.is_text();
            (reply.body, is_text)
        })
    }

    /// Tells that the client has gone.
    async fn disconnect(&self, code: u16, reason: &str) {
        let Some(integration) = &self.path.hooks.disconnect else { return };
        let _place = self.place(integration).await;
        // A failure is logged where it happens; nobody waits for an answer.
        let _ = self.ask(integration, &Event::Disconnect(code, reason), None, Bytes::new()).await;
    }

    /// Waits for its turn among the gateway's calls, if it calls anybody.
    async fn place(&self, integration: &Integration) -> Option<tokio::sync::SemaphorePermit<'_>> {
        match integration {
            Integration::Dummy(_) => None,
            Integration::Http(_) => self.calls.places.acquire().await.ok(),
        }
    }

    async fn ask(
        &self,
        integration: &Integration,
        event: &Event<'_>,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Reply, Fault> {
        let asked = match integration {
            Integration::Dummy(dummy) => {
                let (headers, body) = render::answer(dummy, &self.caller, event);
                let header = |name: &str| {
                    let value = headers.iter().find(|(known, _)| known == name).map(|(_, value)| value)?;
                    Some(String::from_utf8_lossy(value).into_owned())
                };
                Ok(Reply {
                    status: dummy.status,
                    content_type: Some(header("content-type").unwrap_or_else(|| PLAIN.to_owned())),
                    protocol: header("sec-websocket-protocol"),
                    sends_empty: header(SEND_EMPTY).is_some_and(|value| value == "true"),
                    body: body.into(),
                })
            }
            Integration::Http(call) => self.call(call, event, content_type, body).await,
        };
        let result = match &asked {
            Ok(reply) if reply.is_success() => "answered",
            Ok(_) => "refused",
            Err(Fault::Unfit(_)) => "unfit",
            Err(Fault::Outbound(OutboundError::TimedOut)) => "timed_out",
            Err(Fault::Outbound(_)) => "failed",
        };
        METRICS.count_call(event.name(), result);
        if let Err(fault) = &asked {
            self.calls.log(&self.key, event.name(), fault);
        }
        asked
    }

    async fn call(
        &self,
        call: &HttpCall,
        event: &Event<'_>,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Reply, Fault> {
        let parameters = &self.path.hooks.parameters;
        let rendered = render::request(call, parameters, &self.caller, event, content_type)
            .map_err(|Unfit(what)| Fault::Unfit(what))?;
        // Methods are checked when documents are read.
        let method = Method::from_bytes(call.method.as_bytes()).unwrap_or(Method::POST);
        let ask = Ask {
            method,
            url: rendered.url,
            headers: header_map(rendered.headers)?,
            body,
            connect_timeout: call.connect_timeout,
            timeout: call.connect_timeout + call.read_timeout,
            max_bytes: MAX_MESSAGE_BYTES.max(self.path.limits.message_bytes),
        };
        let answer = self.calls.outbound.send(ask).await?;
        let header = |name: &str| answer.headers.get(name)?.to_str().ok().map(ToOwned::to_owned);
        Ok(Reply {
            status: answer.status.as_u16(),
            content_type: header("content-type"),
            protocol: header("sec-websocket-protocol"),
            sends_empty: header(SEND_EMPTY).is_some_and(|value| value == "true"),
            body: answer.body,
        })
    }
}

/// A client whose integration is being asked. If it goes meanwhile, its end is told: it may have been let in.
struct Asking(Option<Visit>);

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(visit) = self.0.take().filter(|visit| visit.path.hooks.connect.is_some()) {
            let (code, reason) = Close::lost();
            Conversation::new(visit).finish(None, code, reason);
        }
    }
}

fn header_map(headers: Vec<Header>) -> Result<HeaderMap, Fault> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let unfit = || Fault::Unfit(format!("the header {name} has a value that no header may have"));
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unfit())?;
        map.append(header, HeaderValue::from_bytes(&value).map_err(|_| unfit())?);
    }
    Ok(map)
}
