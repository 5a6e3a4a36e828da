//! What a connection's bytes come and go by: a socket, plain or under TLS, or a WebSocket. Nothing here waits but where
//! it says so; `connection` waits with `readable` and `writable`.

use std::io;

use bytes::{BufMut, BytesMut};

use super::websocket::WebSocket;
use crate::model::certificate::Fingerprint;
use crate::tls::Io;

/// The way of one connection's bytes.
#[derive(Debug)]
pub(crate) enum Stream {
    /// A socket.
    Socket(Io),
    /// Binary messages of a WebSocket.
    WebSocket(Box<WebSocket>),
}

impl Stream {
    /// The socket under all.
    fn io(&self) -> &Io {
        match self {
            Self::Socket(io) => io,
            Self::WebSocket(socket) => socket.io(),
        }
    }

    /// The certificate that the client has shown, and proved to be its own.
    pub(crate) fn peer_certificate(&self) -> Option<Fingerprint> {
        self.io().peer_certificate()
    }

    /// Waits until there is something to read, or the end, or an error.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::WebSocket(socket) if socket.has_input() => Ok(()),
            _ => self.io().readable().await,
        }
    }

    /// Waits until there is room to write.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.io().writable().await
    }

    /// Reads what is there into the room that `bytes` has. `Ok(0)` is the end; `InvalidData`: the client broke the rules
    /// of TLS or of WebSockets.
    pub(crate) fn try_read_buf(&mut self, bytes: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Socket(Io::Plain(tcp)) => tcp.try_read_buf(bytes),
            Self::Socket(io) => {
                // The library decrypts into memory that has been written before.
                let (len, room) = (bytes.len(), bytes.capacity() - bytes.len());
                bytes.put_bytes(0, room);
                let read = io.try_read(&mut bytes[len..]);
                bytes.truncate(len + *read.as_ref().unwrap_or(&0));
                read
            }
            Self::WebSocket(socket) => socket.try_read_buf(bytes),
        }
    }

    /// Takes what it can of `bytes`; some of that may wait for [`Self::flush`].
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Socket(io) => io.try_write(bytes),
            Self::WebSocket(socket) => socket.try_write(bytes),
        }
    }

    /// Sends what was taken. `WouldBlock`: not all has left.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Socket(io) => io.flush(),
            Self::WebSocket(socket) => socket.flush(),
        }
    }

    /// Reads some, and waits for it. `Ok(0)` is the end.
    pub(crate) async fn read_buf(&mut self, bytes: &mut BytesMut) -> io::Result<usize> {
        loop {
            // The answer to a handshake, and pongs: nothing else sends them now.
            self.send(&[]).await?;
            self.readable().await?;
            match self.try_read_buf(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    /// Sends all of `bytes`, and waits for it.
    pub(crate) async fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        loop {
            let sent = if bytes.is_empty() { self.flush().map(|()| 0) } else { self.try_write(bytes) };
            match sent {
                Ok(_) if bytes.is_empty() => return Ok(()),
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Says that nothing more comes, and ends this side.
    pub(crate) async fn shut(&mut self) -> io::Result<()> {
        if let Self::WebSocket(socket) = self {
            socket.close();
            self.send(&[]).await?;
        }
        self.io().shut();
        Ok(())
    }
}
