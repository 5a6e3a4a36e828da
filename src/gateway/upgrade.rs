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
use actix_http::{Method, Request, RequestHead, Response, StatusCode, h1, header, ws};
use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use uuid::Uuid;

use super::clients::Guest;
use super::directory::Directory;
use super::refusal::Refusal;
use super::replay::Begin;
use super::segment::Format;
use super::shard::{Entered, Shard};
use super::{origin, resume};
use crate::journal::Start;
use crate::telemetry::{self, METRICS};

/// Time that a client has to take the answer to a refused handshake.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// What a lawful request gets.
struct Admission {
    entered: Entered,
    /// Where it begins in the path's order, unless it begins now, and the header that says what it gets.
    start: Option<(Begin, String)>,
}

/// Handles a request that asks for an upgrade.
pub(super) async fn upgrade(
    directory: Arc<Directory>,
    shard: Rc<Shard>,
    request: Request,
    framed: Framed<TcpStream, h1::Codec>,
) -> Result<(), std::convert::Infallible> {
    let parts = framed.into_parts();
    let mut io = parts.io;
    let lawful = ws::verify_handshake(request.head()).map_err(Refusal::Handshake);
    match admit(&directory, &shard, request.head(), Format::WebSocket, lawful).await {
        Ok(Admission { entered, start }) => {
            let (start, status) = start.unzip();
            let user_agent =
                request.head().headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
            let guest = Guest::new(user_agent);
            let answer = switching_protocols(&parts.write_buf, request.head(), guest.id, status.as_deref());
            tracing::debug!(connection = %guest.id, path = request.path(), peer = ?request.peer_addr(), "connected");
            drop(request);
            // A copy: the HTTP layer's buffer of 8 KiB must not live as long as the session.
            let early = BytesMut::from(&parts.read_buf[..]);
            shard.adopt(io, entered, guest, answer, early, start);
        }
        Err(refusal) => {
            drop(request);
            telemetry::count(&METRICS.websocket_refused, refusal.name());
            let answer = [&parts.write_buf[..], refusal.response().as_bytes()].concat();
            // A client that does not take its answer is not waited for.
            let _ = tokio::time::timeout(REFUSAL_TIMEOUT, async {
                io.write_all(&answer).await?;
                io.shutdown().await
            })
            .await;
        }
    }
    Ok(())
}

/// Answers a request that asks for no upgrade: server-sent events for those who accept them, else words.
pub(super) async fn plain(
    directory: Arc<Directory>,
    shard: Rc<Shard>,
    request: Request,
) -> Response<BoxBody> {
    let head = request.head();
    let lawful = if accepts_events(head) { Ok(()) } else { Err(Refusal::NotWebSocket) };
    let admission = admit(&directory, &shard, head, Format::EventStream, lawful).await;
    let stream = admission.and_then(|Admission { entered, start }| {
        let (start, status) = start.unzip();
        shard.stream(entered, start).map(|body| (body, status)).ok_or(Refusal::Stopping)
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
            response.insert_header((header::CONTENT_TYPE, "application/json"));
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
    head: &RequestHead,
    format: Format,
    lawful: Result<(), Refusal>,
) -> Result<Admission, Refusal> {
    let (gateway, path) = directory.find(host(head), head.uri.path())?;
    lawful?;
    let origins = head.headers.get_all(header::ORIGIN).map(|value| value.as_bytes());
    if !origin::is_allowed(origins, &gateway.allowed_origins, host(head)) {
        return Err(Refusal::Origin);
    }
    let start = resume::start(head, SystemTime::now())?;
    if shard.is_stopping() {
        return Err(Refusal::Stopping);
    }
    // Before the journal is asked, so that what is broadcast meanwhile comes to this worker.
    let entered = shard.enter(&path, format, directory.take_place()?);
    let Some(start) = start else { return Ok(Admission { entered, start: None }) };
    let found = path.history.clone().find(start).await.map_err(|error| {
        tracing::warn!(path = %path.key, %error, "failed to look for what a client missed");
        Refusal::History
    })?;
    if shard.is_stopping() {
        return Err(Refusal::Stopping);
    }
    // The gateway may have been stopped meanwhile.
    directory.find(host(head), head.uri.path())?;
    telemetry::count(&METRICS.resumes, if found.gap { "gap" } else { "complete" });
    let skips = found.gap || !matches!(start, Start::After(_));
    let begin = Begin { position: found.position, skips };
    Ok(Admission { entered, start: Some((begin, resume::status(&found))) })
}

fn host(head: &RequestHead) -> &str {
    head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
}

/// The 101 answer. `before` are answers to earlier requests of this connection that are not sent yet.
fn switching_protocols(before: &[u8], head: &RequestHead, id: Uuid, resumed: Option<&str>) -> Bytes {
    let key = head
        .headers
        .get(header::SEC_WEBSOCKET_KEY)
        .map(|key| ws::hash_key(key.as_bytes()))
        .unwrap_or_default();
    let accept = String::from_utf8_lossy(&key);
    let resumed =
        resumed.map(|status| format!("{}: {status}\r\n", resume::STATUS_HEADER)).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-accept: {accept}\r\nX-Yc-Apigateway-Websocket-Connection-Id: {id}\r\n{resumed}\r\n"
    );
    Bytes::from([before, answer.as_bytes()].concat())
}
