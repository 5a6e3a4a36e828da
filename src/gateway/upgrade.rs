//! The handshake: an HTTP request becomes a session of a path, or is refused.
//!
//! Runs on every worker as actix-http's upgrade service, before any other layer of it, so that all checks
//! are here. The HTTP layer's buffers are dropped with the request; the socket goes to the shard.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_codec::Framed;
use actix_http::{Request, RequestHead, Response, h1, header, ws};
use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use uuid::Uuid;

use super::directory::{Directory, PathEntry, Place};
use super::origin;
use super::refusal::Refusal;
use super::shard::Shard;
use crate::telemetry::{self, METRICS};

/// Time that a client has to take the answer to a refused handshake.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// What a lawful handshake gets.
struct Admission {
    path: Arc<PathEntry>,
    place: Place,
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
    match admit(&directory, &shard, request.head()) {
        Ok(admission) => {
            let id = Uuid::now_v7();
            let answer = switching_protocols(&parts.write_buf, request.head(), id);
            tracing::debug!(connection = %id, path = %admission.path.key, peer = ?request.peer_addr(), "connected");
            drop(request);
            // A copy: the HTTP layer's buffer of 8 KiB must not live as long as the session.
            let early = BytesMut::from(&parts.read_buf[..]);
            shard.adopt(io, &admission.path, admission.place, id, answer, early);
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

/// Answers a request that asks for no upgrade: nothing but WebSockets is served here.
pub(super) fn refuse_plain(directory: &Directory, head: &RequestHead) -> Response<String> {
    let refusal = match directory.find(host(head), head.uri.path()) {
        Ok(_) => Refusal::NotWebSocket,
        Err(refusal) => refusal,
    };
    telemetry::count(&METRICS.websocket_refused, refusal.name());
    let mut response = Response::build(refusal.status());
    response.insert_header((header::CONTENT_TYPE, "application/json"));
    for header in refusal.extra_headers() {
        response.insert_header(*header);
    }
    // The connection stays open for more requests; a plain request is no fault of the HTTP layer.
    response
        .message_body(refusal.body())
        .unwrap_or_else(|_| Response::new(refusal.status()).set_body(String::new()))
}

fn admit(directory: &Directory, shard: &Shard, head: &RequestHead) -> Result<Admission, Refusal> {
    let (gateway, path) = directory.find(host(head), head.uri.path())?;
    ws::verify_handshake(head).map_err(Refusal::Handshake)?;
    let origins = head.headers.get_all(header::ORIGIN).map(|value| value.as_bytes());
    if !origin::is_allowed(origins, &gateway.allowed_origins, host(head)) {
        return Err(Refusal::Origin);
    }
    if shard.is_stopping() {
        return Err(Refusal::Stopping);
    }
    Ok(Admission { path, place: directory.take_place()? })
}

fn host(head: &RequestHead) -> &str {
    head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
}

/// The 101 answer. `before` are answers to earlier requests of this connection that are not sent yet.
fn switching_protocols(before: &[u8], head: &RequestHead, id: Uuid) -> Bytes {
    let key = head
        .headers
        .get(header::SEC_WEBSOCKET_KEY)
        .map(|key| ws::hash_key(key.as_bytes()))
        .unwrap_or_default();
    let accept = String::from_utf8_lossy(&key);
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-accept: {accept}\r\nX-Yc-Apigateway-Websocket-Connection-Id: {id}\r\n\r\n"
    );
    Bytes::from([before, answer.as_bytes()].concat())
}
