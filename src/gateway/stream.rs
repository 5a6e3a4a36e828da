//! Server-sent events: a path's messages as the body of an HTTP response (HTML standard, section 9.2).
//!
//! The body runs on its worker as the sessions do, but over the HTTP layer's own buffers, which ask for more only
//! when the client has taken what they hold. So a slow client costs those buffers, with the piece that it was given last,
//! and the path's policy for slow clients decides as it does for WebSockets.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::body::{BodySize, MessageBody};
use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

use super::close::Close;
use super::directory::{PathEntry, Place};
use super::history::{Piece, READ_MORE};
use super::hooks::{Conversation, Visit};
use super::listening::Listening;
use super::path::Path;
use super::replay::Begin;
use super::ring::Located;
use crate::journal::ReadError;
use crate::model::gateway::SlowClients;
use crate::telemetry::{self, METRICS};

/// Silence after which a comment is sent, so that proxies and browsers know that the connection lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// The first bytes: how long the browser waits before it comes back.
const GREETING: Bytes = Bytes::from_static(b"retry: 1000\n\n");
const COMMENT: Bytes = Bytes::from_static(b":\n\n");

type Fetch = Pin<Box<dyn Future<Output = Piece>>>;

/// The body of one response.
pub(super) struct Body {
    entry: Arc<PathEntry>,
    path: Rc<Path>,
    key: usize,
    worker: usize,
    listening: Rc<Listening>,
    fetch: Option<Fetch>,
    /// The journal had nothing more: the ring goes on from here.
    at_end: bool,
    /// It reads what it asked for when it came, whatever the policy.
    resuming: bool,
    /// It begins with the oldest that is kept, if what it asked for is kept no more.
    skips: bool,
    greeted: bool,
    heartbeat: Pin<Box<Sleep>>,
    until: Instant,
    /// How the path's hooks know it, if it has any.
    visit: Option<Visit>,
    _place: Place,
}

impl Body {
    /// A client of `path` on this worker, which has been counted already. With `start` it begins in the journal; it may
    /// listen for as long as `lasts`.
    pub(super) fn new(
        path: Rc<Path>,
        worker: usize,
        visit: Option<Visit>,
        start: Option<Begin>,
        lasts: Duration,
        place: Place,
    ) -> Self {
        path.expect();
        let skips = start.is_some_and(|start| start.skips);
        let start = start.map(|start| start.position);
        let next = start.or_else(|| path.feed.ring.borrow().next());
        let listening = Rc::new(Listening::default());
        listening.next.set(next);
        METRICS.event_streams.inc();
        let now = Instant::now();
        let mut body = Self {
            entry: Arc::clone(&path.entry),
            key: path.insert_stream(Rc::clone(&listening)),
            path,
            worker,
            listening,
            fetch: None,
            at_end: start.is_none(),
            resuming: start.is_some(),
            skips,
            greeted: false,
            heartbeat: Box::pin(sleep_until(now)),
            until: now + lasts,
            visit,
            _place: place,
        };
        body.rest();
        if start.is_some() {
            body.replay(true);
        }
        body
    }

    /// Sets the clock for the next comment, or for the end if that is sooner.
    fn rest(&mut self) {
        let next = (Instant::now() + HEARTBEAT).min(self.until);
        self.heartbeat.as_mut().reset(next);
    }

    fn replay(&mut self, replaying: bool) {
        if self.listening.replaying.replace(replaying) != replaying {
            let count = &self.path.feed.replaying;
            count.set(if replaying { count.get() + 1 } else { count.get() - 1 });
        }
    }

    /// The next messages, if there are any now. `None` in the result: the response ends.
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(fetch) = &mut self.fetch {
                // Its turn ends here: how fast the client takes it is the HTTP layer's.
                let (fetched, _turn) = std::task::ready!(fetch.as_mut().poll(cx));
                self.fetch = None;
                match fetched {
                    Ok(Some(segment)) => {
                        self.skips = false;
                        self.listening.next.set(Some(segment.end));
                        if !segment.bytes.is_empty() {
                            self.path.feed.tally.others(u64::from(segment.messages));
                            return Poll::Ready(Some(segment.bytes));
                        }
                    }
                    Ok(None) => self.at_end = true,
                    Err(ReadError::Gone { .. }) => {
                        telemetry::count(&METRICS.slow_clients, "gone");
                        return Poll::Ready(None);
                    }
                    Err(ReadError::Failed(error)) => {
                        tracing::debug!(path = %self.entry.key, error, "failed to read the journal");
                    }
                }
            }
            let Some(next) = self.listening.next.get() else { return Poll::Pending };
            self.resuming |= self.listening.lost.take();
            let located = self.path.feed.ring.borrow().locate(next);
            match located {
                Located::At(cursor) => {
                    self.replay(false);
                    (self.at_end, self.resuming) = (true, false);
                    let ring = self.path.feed.ring.borrow();
                    // At the head it stands behind everything, also what had no message for it.
                    let (bytes, end) = ring.rest(cursor).unzip();
                    self.listening.next.set(end.or_else(|| ring.next()));
                    if let Some(bytes) = &bytes {
                        self.path.feed.tally.others(ring.messages(cursor, cursor + bytes.len() as u64));
                    }
                    return bytes.map_or(Poll::Pending, |bytes| Poll::Ready(Some(bytes)));
                }
                Located::Ahead if self.at_end => return Poll::Pending,
                Located::Behind if !self.resuming => match self.entry.backlog().slow_clients {
                    SlowClients::Replay => {
                        if !self.listening.replaying.get() {
                            telemetry::count(&METRICS.slow_clients, "replay");
                        }
                    }
                    SlowClients::DropOldest => {
                        let oldest = self.path.feed.ring.borrow().oldest().unwrap_or(next);
                        if oldest > next {
                            telemetry::count(&METRICS.slow_clients, "drop_oldest");
                            METRICS.slow_client_dropped.inc_by(oldest - next);
                            self.listening.next.set(Some(oldest));
                            continue;
                        }
                    }
                    SlowClients::Disconnect => {
                        telemetry::count(&METRICS.slow_clients, "disconnect");
                        return Poll::Ready(None);
                    }
                },
                Located::Ahead | Located::Behind => {}
            }
            self.replay(true);
            let pause = if std::mem::take(&mut self.at_end) { READ_MORE } else { Duration::ZERO };
            let turns = Arc::clone(&self.path.feed.turns);
            let history = self.entry.history.clone();
            let view = self.path.feed.view.clone();
            self.fetch = Some(Box::pin(history.piece(turns, pause, view, next, self.skips)));
        }
    }
}

impl MessageBody for Body {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        if this.listening.ended.get() || Instant::now() >= this.until {
            return Poll::Ready(None);
        }
        if !std::mem::replace(&mut this.greeted, true) {
            return Poll::Ready(Some(Ok(GREETING)));
        }
        this.listening.waker.replace(Some(cx.waker().clone()));
        if let Poll::Ready(messages) = this.next(cx) {
            this.rest();
            return Poll::Ready(messages.map(Ok));
        }
        std::task::ready!(this.heartbeat.as_mut().poll(cx));
        if Instant::now() >= this.until {
            return Poll::Ready(None);
        }
        this.rest();
        Poll::Ready(Some(Ok(COMMENT)))
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.replay(false);
        self.path.remove_stream(self.key);
        self.entry.leave(&self.path.feed.view, self.worker);
        METRICS.event_streams.dec();
        if let Some(visit) = self.visit.take() {
            let (code, reason) = Close::told("connection_lost");
            Conversation::new(visit).finish(None, code, reason);
        }
    }
}
