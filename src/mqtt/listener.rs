//! Accepts sockets and starts a task for each. Started by [`super::Server`].

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;

use super::close::Close;
use super::handshake::shake;
use super::stream::Stream;
use super::websocket::WebSocket;
use super::{Phase, Shared};
use crate::telemetry::METRICS;
use crate::tls::{Acceptor, Detached};

/// First and longest pause after an accept that failed, as when file descriptors run out.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Silence after which the system asks a peer whether it is still there; finds half-open connections of
/// clients without keep-alive.
const PROBE: Duration = Duration::from_secs(60);

/// Accepts until the server stops.
pub(crate) async fn accept(listener: TcpListener, tls: Option<Acceptor>, shared: Arc<Shared>) {
    let mut phase = shared.phase.subscribe();
    let mut pause = None;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                pause = None;
                if let Some(slot) = Slot::take(&shared) {
                    drop(tokio::spawn(secure(stream, tls.clone(), Arc::clone(&shared), slot)));
                }
            }
            Err(error) => {
                if pause.is_none() {
                    tracing::warn!(%error, "failed to accept an MQTT connection; trying again");
                }
                let time = pause.map_or(PAUSE.0, |last: Duration| (2 * last).min(PAUSE.1));
                pause = Some(time);
                tokio::time::sleep(time).await;
            }
        }
    }
}

/// A place among the connections, counted while it is taken.
struct Slot {
    _permit: OwnedSemaphorePermit,
}

impl Slot {
    /// A place, if one is free.
    fn take(shared: &Shared) -> Option<Self> {
        let permit = Arc::clone(&shared.slots).try_acquire_owned();
        let permit = permit.inspect_err(|_| Close::TooManyConnections.count()).ok()?;
        METRICS.mqtt_connections.inc();
        Some(Self { _permit: permit })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        METRICS.mqtt_connections.dec();
    }
}

/// One connection of a port, from its TLS handshake on.
async fn secure(tcp: TcpStream, tls: Option<Acceptor>, shared: Arc<Shared>, slot: Slot) {
    prepare(&tcp);
    let mut phase = shared.phase.subscribe();
    let accepted = tokio::select! {
        _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
        accepted = Acceptor::accept_by(tls.as_ref(), tcp) => accepted,
    };
    match accepted {
        Ok(io) => serve(Stream::Socket(io), shared, slot).await,
        Err(_) => Close::Tls.count(),
    }
}

/// One connection that the gateway hands over.
pub(crate) async fn adopt(socket: Detached, answer: Bytes, early: BytesMut, shared: Arc<Shared>) {
    let Some(slot) = Slot::take(&shared) else { return };
    let Ok(io) = socket.attach() else { return };
    prepare(io.tcp());
    serve(Stream::WebSocket(Box::new(WebSocket::new(io, answer, early))), shared, slot).await;
}

/// One connection from beginning to end. A panic in it ends it alone.
async fn serve(stream: Stream, shared: Arc<Shared>, slot: Slot) {
    let mut connection = match shake(stream, &shared).await {
        Ok(connection) => connection,
        Err(close) => {
            tracing::debug!(?close, "MQTT connection refused");
            return close.count();
        }
    };
    tracing::debug!(user = connection.user(), "MQTT client connected");
    let close = match AssertUnwindSafe(connection.run()).catch_unwind().await {
        Ok(close) => close,
        Err(_) => {
            METRICS.count_panic("MqttConnection");
            Close::Panicked
        }
    };
    tracing::debug!(user = connection.user(), ?close, "MQTT connection ended");
    close.count();
    connection.end(close).await;
    drop(slot);
}

fn prepare(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let probe = TcpKeepalive::new().with_time(PROBE).with_interval(PROBE / 6).with_retries(3);
    // A socket that does not take an option works without it.
    let _ = (stream.set_nodelay(true), socket.set_tcp_keepalive(&probe));
}
