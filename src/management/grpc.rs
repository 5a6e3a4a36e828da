//! The gRPC front: every call of the API, by its path, as bytes.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Ready, ready};
use futures_util::stream::{self, Once};
use tokio::net::TcpListener;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::server::ServerStreamingService;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::incoming;
use crate::api::{Api, Fault, Incoming, is_open};
use crate::proto::raw::RawCodec;
use crate::tls::Acceptor;

/// Largest request, in bytes: an OpenAPI document and a little more; of those who need not say who they are, less.
const MAX_REQUEST: usize = 4 * 1024 * 1024;
const MAX_OPEN_REQUEST: usize = 64 * 1024;
/// Connections at the same time; stops strangers from taking all file descriptors.
const MAX_CONNECTIONS: usize = 1024;
/// Calls of one connection that may run at the same time, and streams that it may have open for them.
const CONCURRENCY: usize = 64;
/// Bytes of a request's headers.
const MAX_HEADERS: u32 = 16 * 1024;
/// Streams that a client may give up again before they were looked at; above it the connection is ended.
const MAX_RESETS: usize = 20;
/// Streams that we had to reset, for faults of the client; above it the connection is ended.
const MAX_FAULTS: usize = 128;
/// Time from the headers of a call to its answer, its body included.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// How often a silent connection is asked whether it lives, and how long it has to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));

/// Serves until `stop` is ready, and then until the calls that run have ended.
pub async fn serve(
    api: Arc<Api>,
    listener: TcpListener,
    tls: Option<Acceptor>,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let mut server = Server::builder()
        .concurrency_limit_per_connection(CONCURRENCY)
        .max_concurrent_streams(CONCURRENCY as u32)
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_max_pending_accept_reset_streams(Some(MAX_RESETS))
        .http2_max_local_error_reset_streams(Some(MAX_FAULTS))
        .timeout(CALL_TIMEOUT)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1));
    let routes = tonic::service::Routes::from(axum::Router::new().fallback_service(Front { api }));
    let connections = incoming::accept(listener, tls, MAX_CONNECTIONS);
    server.add_routes(routes).serve_with_incoming_shutdown(connections, stop).await
}

/// An empty message, as it is framed: not compressed, no bytes.
const NOTHING: [u8; 5] = [0; 5];

/// Takes every request.
#[derive(Clone)]
struct Front {
    api: Arc<Api>,
}

impl tower_service::Service<http::Request<axum::body::Body>> for Front {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<axum::body::Body>) -> Self::Future {
        let name = request.uri().path().trim_start_matches('/').to_owned();
        let authorization = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        // Nothing is read of those who are not known: the call finds the same fault, with nothing in place of the body.
        let is_known = self.api.knows(&name, authorization).is_ok();
        let request = if is_known { request } else { request.map(|_| axum::body::Body::from(&NOTHING[..])) };
        let most = if is_open(&name) == Some(true) { MAX_OPEN_REQUEST } else { MAX_REQUEST };
        let unary = Unary { api: Arc::clone(&self.api), name };
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(RawCodec).max_decoding_message_size(most);
            Ok(grpc.server_streaming(unary, request).await)
        })
    }
}

/// One call.
struct Unary {
    api: Arc<Api>,
    name: String,
}

/// Streams of one item: so the id of the request comes in the initial metadata of errors too, where clients look for it.
impl ServerStreamingService<Bytes> for Unary {
    type Response = Bytes;
    type ResponseStream = Once<Ready<Result<Bytes, Status>>>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (api, name) = (Arc::clone(&self.api), self.name.clone());
        Box::pin(async move {
            let (metadata, _, body) = request.into_parts();
            let request_id = super::request_id();
            let text =
                |name: &str| metadata.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            let (authorization, key) = (text("authorization"), text("idempotency-key"));
            let id = request_id.clone();
            let answer = tokio::task::spawn_blocking(move || {
                let incoming = Incoming {
                    authorization: authorization.as_deref(),
                    idempotency_key: key.as_deref(),
                    request_id: &id,
                };
                api.call(&name, incoming, &body)
            });
            let answer =
                answer.await.map_err(|_| Status::internal("The call failed by a fault of the server"))?;
            let item = answer.map(Bytes::from).map_err(|fault| status(&fault, &request_id));
            let mut response = Response::new(stream::once(ready(item)));
            sign(response.metadata_mut(), &request_id);
            Ok(response)
        })
    }
}

/// Puts the id of the request into the answer's metadata, under both names that clients look for.
fn sign(metadata: &mut MetadataMap, request_id: &str) {
    if let Ok(value) = MetadataValue::try_from(request_id) {
        metadata.insert("x-request-id", value.clone());
        metadata.insert("x-server-trace-id", value);
    }
}

fn status(fault: &Fault, request_id: &str) -> Status {
    let details = Bytes::from(fault.details(request_id));
    Status::with_details(tonic::Code::from(fault.code as i32), fault.message.clone(), details)
}
