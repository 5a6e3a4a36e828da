//! A connected socket, plain or under TLS, with the calls of a non-blocking socket. The gateway's sessions, the MQTT
//! server's connections and the HTTP layer all work with it.
//!
//! A plain socket costs nothing more than itself. Under TLS bytes count as written when they are encrypted: at most
//! [`MAX_UNSENT`] of them wait for the socket, and while any does nothing more is taken, so a client that does not read
//! is seen as with a plain socket. [`Io::flush`] tells whether all have left.

use std::io::{self, BufRead as _, IoSlice, Read, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use rustls::ServerConnection;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::model::certificate::Fingerprint;

/// Bytes that are encrypted and not sent yet, for each connection.
pub const MAX_UNSENT: usize = 32 * 1024;
/// Reads of the socket in one call that bring nothing to give, before others have their turn.
const MAX_READS: usize = 16;

/// A socket.
#[derive(Debug)]
pub enum Io {
    /// As it is.
    Plain(TcpStream),
    /// Under TLS, after the handshake.
    Tls(Box<Secured>),
}

/// A socket under TLS.
#[derive(Debug)]
pub struct Secured {
    tcp: TcpStream,
    /// One task has the socket, so nobody ever waits for this lock: it makes calls possible that only look.
    tls: Mutex<ServerConnection>,
}

/// A socket between two runtimes.
#[derive(Debug)]
pub struct Detached {
    tcp: std::net::TcpStream,
    tls: Option<Mutex<ServerConnection>>,
}

impl From<TcpStream> for Io {
    fn from(tcp: TcpStream) -> Self {
        Self::Plain(tcp)
    }
}

impl Io {
    /// A socket as the server of a TLS connection, when its handshake is done. It takes as long as the client likes.
    pub(super) async fn handshake(tcp: TcpStream, mut tls: ServerConnection) -> io::Result<Self> {
        tls.set_buffer_limit(Some(MAX_UNSENT));
        let secured = Box::new(Secured { tcp, tls: Mutex::new(tls) });
        std::future::poll_fn(|cx| secured.poll_handshake(cx)).await?;
        Ok(Self::Tls(secured))
    }

    /// The socket itself, for its options and addresses.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(secured) => &secured.tcp,
        }
    }

    /// The certificate that the client has shown, and proved to be its own.
    pub fn peer_certificate(&self) -> Option<Fingerprint> {
        let Self::Tls(secured) = self else { return None };
        let tls = secured.lock();
        tls.peer_certificates()?.first().map(|der| Fingerprint::of_der(der))
    }

    /// Ready when there is something to read, or the end, or an error.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => tcp.poll_read_ready(cx),
            Self::Tls(secured) => {
                // What is decrypted already wakes nobody.
                match secured.lock().reader().fill_buf() {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    _ => return Poll::Ready(Ok(())),
                }
                secured.tcp.poll_read_ready(cx)
            }
        }
    }

    /// Ready when the socket takes bytes again, after a call that would have blocked.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp().poll_write_ready(cx)
    }

    /// Waits until there is something to read, or the end, or an error.
    pub async fn readable(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_read_ready(cx)).await
    }

    /// Waits until the socket takes bytes again.
    pub async fn writable(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_write_ready(cx)).await
    }

    /// Reads what is there. `Ok(0)` is the end of the input.
    pub fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_read(bytes),
            Self::Tls(secured) => secured.read(bytes),
        }
    }

    /// Writes what can be written.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            // Past tokio's bookkeeping of the socket, which is only needed once it is full.
            Self::Plain(tcp) => match SockRef::from(tcp).send(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => tcp.try_write(bytes),
                sent => sent,
            },
            Self::Tls(secured) => secured.write(|tls| tls.writer().write(bytes)),
        }
    }

    /// Writes what can be written of several slices.
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_write_vectored(slices),
            Self::Tls(secured) => secured.write(|tls| tls.writer().write_vectored(slices)),
        }
    }

    /// Sends what counts as written and waits here. `WouldBlock`: the socket is full, and some still waits.
    pub fn flush(&self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(secured) => secured.write_out(&mut secured.lock()),
        }
    }

    /// Says under TLS that nothing more comes, as far as the socket takes it now. The end of a plain socket says so by
    /// itself.
    pub fn say_goodbye(&self) {
        if let Self::Tls(secured) = self {
            secured.say_goodbye();
        }
    }

    /// Says that nothing more comes, and ends this side.
    pub fn shut(&self) {
        self.say_goodbye();
        let _ = SockRef::from(self.tcp()).shutdown(Shutdown::Write);
    }

    /// Takes it out of this thread's runtime.
    pub fn detach(self) -> io::Result<Detached> {
        let (tcp, tls) = match self {
            Self::Plain(tcp) => (tcp, None),
            Self::Tls(secured) => (secured.tcp, Some(secured.tls)),
        };
        Ok(Detached { tcp: tcp.into_std()?, tls })
    }
}

impl Detached {
    /// Puts it into the runtime that this is called in.
    pub fn attach(self) -> io::Result<Io> {
        let tcp = TcpStream::from_std(self.tcp)?;
        Ok(match self.tls {
            None => Io::Plain(tcp),
            Some(tls) => Io::Tls(Box::new(Secured { tcp, tls })),
        })
    }
}

/// The socket under the encryption.
struct Raw<'a>(&'a TcpStream);

impl Read for Raw<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(bytes)
    }
}

impl Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Secured {
    fn lock(&self) -> MutexGuard<'_, ServerConnection> {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what is encrypted.
    fn write_out(&self, tls: &mut ServerConnection) -> io::Result<()> {
        while tls.wants_write() {
            if tls.write_tls(&mut Raw(&self.tcp))? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    /// Encrypts and sends, when everything before has left.
    fn write(&self, encrypt: impl FnOnce(&mut ServerConnection) -> io::Result<usize>) -> io::Result<usize> {
        let mut tls = self.lock();
        self.write_out(&mut tls)?;
        let taken = encrypt(&mut tls)?;
        match self.write_out(&mut tls) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    /// Reads from the socket and decrypts. `Ok(false)`: it has ended.
    fn fill(&self, tls: &mut ServerConnection) -> io::Result<bool> {
        let read = tls.read_tls(&mut Raw(&self.tcp))?;
        let processed = tls.process_new_packets();
        // Alerts and new keys; what does not fit goes with the next write.
        let _ = self.write_out(tls);
        processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(read > 0)
    }

    fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut tls = self.lock();
        for _ in 0..MAX_READS {
            match tls.reader().read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Many end without a word; WebSocket, MQTT and HTTP know themselves whether something is missing.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            self.fill(&mut tls)?;
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn poll_handshake(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut tls = self.lock();
        loop {
            match self.write_out(&mut tls) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.tcp.poll_write_ready(cx))?;
                    continue;
                }
                sent => sent?,
            }
            if !tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.tcp.poll_read_ready(cx))?;
            match self.fill(&mut tls) {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn say_goodbye(&self) {
        let mut tls = self.lock();
        tls.send_close_notify();
        let _ = self.write_out(&mut tls);
    }
}

/// For the HTTP layer, before a socket is upgraded.
impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Self::Plain(tcp) = &mut *self {
            return Pin::new(tcp).poll_read(cx, buf);
        }
        loop {
            ready!(self.poll_read_ready(cx))?;
            match self.try_read(buf.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(|read| buf.advance(read))),
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_write_ready(cx))?,
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_write_ready(cx))?,
                flushed => return Poll::Ready(flushed),
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Said once, however often this is polled.
        self.say_goodbye();
        ready!(self.as_mut().poll_flush(cx))?;
        let _ = SockRef::from(self.tcp()).shutdown(Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}
