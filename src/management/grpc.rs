//! The gRPC front: every call of the API, by its path, as bytes.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Ready, ready};
use futures_util::stream::{self, Once, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::server::ServerStreamingService;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tonic::{Request, Response, Status};

use crate::api::{Api, Fault, Incoming};
use crate::proto::raw::RawCodec;
use crate::tls::{Acceptor, Io};

/// Largest request, in bytes: an OpenAPI document and a little more.
const MAX_REQUEST: usize = 4 * 1024 * 1024;
/// Calls of one connection that may run at the same time.
const CONCURRENCY: usize = 64;
/// How often a silent connection is asked whether it lives, and how long it has to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));

/// Connections after their handshake that may wait for the server; the others wait in their tasks.
const WAITING: usize = 16;
/// Pause after an accept that failed, as when file descriptors run out.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` is ready, and then until the calls that run have ended.
pub async fn serve(
    api: Arc<Api>,
    listener: TcpListener,
    tls: Option<Acceptor>,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let mut server = Server::builder()
        .concurrency_limit_per_connection(CONCURRENCY)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1));
    let routes = tonic::service::Routes::from(axum::Router::new().fallback_service(Front { api }));
    server.add_routes(routes).serve_with_incoming_shutdown(incoming(listener, tls), stop).await
}

/// The connections that come, after their handshakes, which are done beside each other. They end with the stream.
fn incoming(listener: TcpListener, tls: Option<Acceptor>) -> impl Stream<Item = io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = sender.closed() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((tcp, _)) = accepted.inspect_err(|error| tracing::debug!(%error, "failed to accept"))
            else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let (sender, tls) = (sender.clone(), tls.clone());
            tokio::spawn(async move {
                let _ = tcp.set_nodelay(true);
                if let Ok(io) = Acceptor::accept_by(tls.as_ref(), tcp).await {
                    // An error: the server has ended meanwhile.
                    let _ = sender.send(Ok(Connection(io))).await;
                }
            });
        }
    });
    stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
}

/// A socket as the library wants it.
struct Connection(Io);

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.0.tcp().connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

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
        let unary = Unary { api: Arc::clone(&self.api), name };
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(RawCodec).max_decoding_message_size(MAX_REQUEST);
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
