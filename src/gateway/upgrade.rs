//! The handshake: an HTTP request becomes a client of a path, or is refused.
//!
//! Runs on every worker as actix-http's services, before any other layer of it, so that all checks are here. Of a
//! WebSocket the HTTP layer's buffers are dropped with the request, and the socket goes to the shard; a response with
//! server-sent events stays in that layer.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix_codec::Framed;
use actix_http::body::BoxBody;
use actix_http::{Method, Request, RequestHead, Response, StatusCode, Version, h1, header, ws};
use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;

use super::authorize::{Asked, Entrance};
use super::clients::Guest;
use super::close::Close;
use super::crowd::{Party, Subject};
use super::directory::{Directory, Found, Route};
use super::extension::Deflate;
use super::filter::Filter;
use super::hooks::{Conversation, Visit};
use super::refusal::Refusal;
use super::replay::Begin;
use super::segment::Format;
use super::shard::{Entered, Shard};
use super::socket::Arrival;
use super::view::View;
use super::{extension, origin, request, resume};
use crate::journal::Start;
use crate::telemetry::{self, METRICS};
use crate::tls::Io;

/// Time that a client has to take the answer to a refused handshake.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// The answer's header that tells a client its id, as the model system names it.
const CONNECTION_ID: &str = "X-Yc-Apigateway-Websocket-Connection-Id";

/// What a lawful request gets.
struct Admission {
    entered: Entered,
    route: Route,
    guest: Guest,
    visit: Option<Visit>,
    /// How its messages are compressed, if they are.
    deflate: Option<Deflate>,
    /// Where it begins in the path's order, unless it begins now, and the header that says what it gets.
    start: Option<(Begin, String)>,
    /// The subprotocol that the answer names.
    protocol: Option<String>,
}

/// Handles a request that asks for an upgrade.
pub(super) async fn upgrade(
    directory: Arc<Directory>,
    shard: Rc<Shard>,
    request: Request,
    framed: Framed<Io, h1::Codec>,
) {
    let parts = framed.into_parts();
    let io = parts.io;
    let lawful = verify(request.head()).map_err(Refusal::Handshake);
    match admit(&directory, &shard, &request, Format::WebSocket, lawful).await {
        Ok(Admission { entered, route, guest, visit, protocol, deflate, start }) => {
            let (start, status) = start.unzip();
            let extra = [
                (CONNECTION_ID, Some(guest.id.to_string())),
                (resume::STATUS_HEADER, status),
                ("Sec-WebSocket-Protocol", protocol),
                ("Sec-WebSocket-Extensions", deflate.map(|deflate| deflate.answer().to_owned())),
            ];
            let answer = switching_protocols(&parts.write_buf, request.head(), &extra);
            let subject = guest.pass.as_ref().and_then(|pass| pass.subject());
            tracing::debug!(
                connection = %guest.id, path = request.path(), peer = ?request.peer_addr(), subject, "connected"
            );
            drop(request);
            // A copy: the HTTP layer's buffer of 8 KiB must not live as long as the session.
            let early = BytesMut::from(&parts.read_buf[..]);
            shard.adopt(io, entered, early, Arrival { route, guest, visit, answer, start });
        }
        Err(refusal) => {
            drop(request);
            refuse(io, &parts.write_buf, &refusal).await;
        }
    }
}

/// Answers that there will be no WebSocket. `before` are answers to earlier requests that are not sent yet.
pub(super) async fn refuse(mut io: Io, before: &[u8], refusal: &Refusal) {
    telemetry::count(&METRICS.websocket_refused, refusal.name());
    let answer = [before, &refusal.response()].concat();
    // A client that does not take its answer is not waited for.
    let _ = tokio::time::timeout(REFUSAL_TIMEOUT, async {
        io.write_all(&answer).await?;
        io.shutdown().await
    })
    .await;
}

/// Whether a request is a handshake. In HTTP/1.0 there is no upgrade: one that a proxy has passed on is not for us
/// (RFC 9110 section 7.8).
pub(super) fn verify(head: &RequestHead) -> Result<(), ws::HandshakeError> {
    if head.version < Version::HTTP_11 {
        return Err(ws::HandshakeError::NoWebsocketUpgrade);
    }
    ws::verify_handshake(head)
}

/// Answers a request that asks for no upgrade: server-sent events for those who accept them, else words.
pub(super) async fn plain(
    directory: Arc<Directory>,
    shard: Rc<Shard>,
    request: Request,
) -> Response<BoxBody> {
    let head = request.head();
    let lawful = if accepts_events(head) { Ok(()) } else { Err(Refusal::NotWebSocket) };
    let admission = admit(&directory, &shard, &request, Format::EventStream, lawful).await;
    let stream = admission.and_then(|Admission { entered, route, guest, visit, start, .. }| {
        let (start, status) = start.unzip();
        let lifetime = route.settings.limits.lifetime;
        let right = guest.pass.and_then(|pass| pass.left(SystemTime::now()));
        let lasts = lifetime.min(right.unwrap_or(lifetime));
        shard.stream(entered, visit, start, lasts).map(|body| (body, status)).ok_or(Refusal::Stopping)
    });
    match stream {
        Ok((body, status)) => {
            let mut response = Response::build(StatusCode::OK);
            response.insert_header((header::CONTENT_TYPE, "text/event-stream"));
            response.insert_header((header::CACHE_CONTROL, "no-store"));
            // nginx would hold events back otherwise.
            response.insert_header(("x-accel-buffering", "no"));
            if let Some(origin) = head.headers.get(header::ORIGIN) {
                // It has been checked, and only where it says so may a page read what comes.
                response.insert_header((header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
                response.insert_header((header::ACCESS_CONTROL_EXPOSE_HEADERS, resume::STATUS_HEADER));
                response.insert_header((header::VARY, "Origin"));
            }
            if let Some(status) = status {
                response.insert_header((resume::STATUS_HEADER, status));
            }
            response
                .message_body(BoxBody::new(body))
                .unwrap_or_else(|_| Response::internal_server_error().map_into_boxed_body())
        }
        Err(refusal) => {
            telemetry::count(&METRICS.websocket_refused, refusal.name());
            let mut response = Response::build(refusal.status());
            response.insert_header((header::CONTENT_TYPE, refusal.content_type()));
            for header in refusal.extra_headers() {
                response.insert_header(*header);
            }
            // The connection stays open for more requests; a plain request is no fault of the HTTP layer.
            response.body(refusal.body()).map_into_boxed_body()
        }
    }
}

/// Whether a request asks for server-sent events. Only who names the type gets them: a page that is opened in a
/// browser accepts everything.
fn accepts_events(head: &RequestHead) -> bool {
    let is_type = |part: &str| {
        part.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
    };
    head.method == Method::GET
        && head
            .headers
            .get_all(header::ACCEPT)
            .any(|value| value.to_str().is_ok_and(|v| v.split(',').any(is_type)))
}

async fn admit(
    directory: &Directory,
    shard: &Shard,
    request: &Request,
    format: Format,
    lawful: Result<(), Refusal>,
) -> Result<Admission, Refusal> {
    let head = request.head();
    let address = directory.addresses.admit(request)?;
    let Found { gateway, route, path, values } = directory.find(request::host(head), head.uri.path())?;
    lawful?;
    let origins = head.headers.get_all(header::ORIGIN).map(|value| value.as_bytes());
    if !origin::is_allowed(origins, &gateway.allowed_origins, request::host(head)) {
        return Err(Refusal::Origin);
    }
    let asked = Asked { head, address, key: &route.entry.key, path, values: &values };
    let entrance = route.entry.door.ask(&asked).await?;
    if entrance.is_some() {
        // The gateway may have been stopped meanwhile.
        directory.find(request::host(head), head.uri.path())?;
    }
    let (pass, protocol) =
        entrance.map_or((None, None), |Entrance { pass, protocol }| (Some(pass), protocol));
    let start = resume::start(head, SystemTime::now())?;
    let (view, deflate) = view(head, &route, format)?;
    if shard.is_stopping() {
        return Err(Refusal::Stopping);
    }
    // Before the journal is asked, so that what is broadcast meanwhile comes to this worker.
    let subject = pass.as_ref().and_then(|pass| Some(Subject::new(pass.issuer(), pass.subject()?)));
    let place = directory.take_place(&route, Party { address, subject })?;
    let entered = shard.enter(&route.entry, &view, place)?;
    let start = match start {
        Some(start) => Some(begin(&route, start).await?),
        None => None,
    };
    let user_agent = head.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let guest = Guest { pass, ..Guest::new(user_agent) };
    let visit = Visit::new(&route.entry.key, &route.settings, &gateway.calls, guest.id, head, &values)?;
    // Last, so that whoever is let in is let in, and its end is told.
    let (visit, chosen) = match visit {
        Some(visit) => visit.connect().await.map(|(visit, chosen)| (Some(visit), chosen))?,
        None => (None, None),
    };
    // Only what the client has offered, and never its token.
    let protocol =
        protocol.or_else(|| chosen.filter(|chosen| request::offers(head).any(|offer| offer == chosen)));
    let admission = Admission { entered, route, guest, visit, protocol, deflate, start };
    // The gateway may have been stopped meanwhile, and the server.
    let still = directory.find(request::host(head), head.uri.path()).map(drop);
    match still.and(if shard.is_stopping() { Err(Refusal::Stopping) } else { Ok(()) }) {
        Ok(()) => Ok(admission),
        Err(refusal) => {
            if let Some(visit) = admission.visit {
                let close = Close::Withdrawn;
                Conversation::new(visit).finish(None, close.code(), close.reason());
            }
            Err(refusal)
        }
    }
}

/// Where a client begins that asks for the past, and the header that says what it gets.
async fn begin(route: &Route, start: Start) -> Result<(Begin, String), Refusal> {
    let path = &route.entry;
    let found = path.history.clone().find(start).await.map_err(|error| {
        tracing::warn!(path = %path.key, %error, "failed to look for what a client missed");
        Refusal::History
    })?;
    telemetry::count(&METRICS.resumes, if found.gap { "gap" } else { "complete" });
    let skips = found.gap || !matches!(start, Start::After(_));
    Ok((Begin { position: found.position, skips }, resume::status(&found)))
}

/// How a client will see its path, and how its messages are compressed, if they are.
fn view(head: &RequestHead, route: &Route, format: Format) -> Result<(View, Option<Deflate>), Refusal> {
    let filter = Filter::read(head.uri.query().unwrap_or_default())?.map(Arc::new);
    let offers = head.headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS).map(|value| value.as_bytes());
    let deflate = match format {
        Format::WebSocket if route.settings.deflate => {
            extension::choose(offers).map_err(|extension::Malformed| Refusal::Extensions)?
        }
        _ => None,
    };
    let format = if deflate.is_some() { Format::Deflated } else { format };
    Ok((View { format, filter }, deflate))
}

/// The 101 answer, with headers of `extra` that have a value. `before` are answers to earlier requests of this
/// connection that are not sent yet.
pub(super) fn switching_protocols(
    before: &[u8],
    head: &RequestHead,
    extra: &[(&str, Option<String>)],
) -> Bytes {
    let key = head
        .headers
        .get(header::SEC_WEBSOCKET_KEY)
        .map(|key| ws::hash_key(key.as_bytes()))
        .unwrap_or_default();
    let accept = String::from_utf8_lossy(&key);
    let extra: String =
        extra.iter().filter_map(|(name, value)| Some(format!("{name}: {}\r\n", value.as_ref()?))).collect();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-accept: {accept}\r\n{extra}\r\n"
    );
    Bytes::from([before, answer.as_bytes()].concat())
}
