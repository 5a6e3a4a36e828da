//! The connections of the gRPC port: accepted one after the other, and never more than so many at a time.
//!
//! A connection is a file descriptor and buffers before anybody has said who he is. When all places are taken, the next
//! client waits in the system's own queue until one is free.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::tls::{Acceptor, Io};

/// Silence after which the system asks a peer whether it is still there.
const PROBE: Duration = Duration::from_secs(60);

/// Pause after a failure to accept, such as having no more file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections that are through with their handshakes and not taken yet; more wait.
const WAITING: usize = 16;

/// A connection that holds its place.
#[derive(Debug)]
pub(super) struct Incoming {
    io: Io,
    _place: OwnedSemaphorePermit,
}

/// Accepts at most `most` connections at a time, and does their handshakes beside each other. A failed accept is told
/// and followed by the next. It ends with the stream.
pub(super) fn accept(
    listener: TcpListener,
    tls: Option<Acceptor>,
    most: usize,
) -> impl Stream<Item = io::Result<Incoming>> {
    let places = Arc::new(Semaphore::new(most));
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        loop {
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await.ok()?;
                Some((place, listener.accept().await))
            };
            let next = tokio::select! {
                () = sender.closed() => return,
                next = next => next,
            };
            let Some((place, accepted)) = next else { return };
            let Ok((tcp, _)) = accepted.inspect_err(|error| tracing::debug!(%error, "failed to accept"))
            else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let (sender, tls) = (sender.clone(), tls.clone());
            tokio::spawn(async move {
                let probe = TcpKeepalive::new().with_time(PROBE).with_interval(PROBE / 6);
                // A socket that does not take an option works without it.
                let _ = (tcp.set_nodelay(true), SockRef::from(&tcp).set_tcp_keepalive(&probe));
                if let Ok(io) = Acceptor::accept_by(tls.as_ref(), tcp).await {
                    // An error: the server has ended meanwhile.
                    let _ = sender.send(Ok(Incoming { io, _place: place })).await;
                }
            });
        }
    });
    stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
}

impl Connected for Incoming {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.io.tcp().connect_info()
    }
}

impl AsyncRead for Incoming {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Incoming {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_client_waits_until_a_place_is_free() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = std::pin::pin!(accept(listener, None, 1));
        let _clients =
            [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        let first = incoming.next().await.unwrap().unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), incoming.next()).await.is_err());
        drop(first);
        incoming.next().await.unwrap().unwrap();
    }
}
