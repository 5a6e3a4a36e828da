//! The session actor: what a WebSocket client says, and the task that drives it.
//!
//! `SessionActor` runs in actix's WebSocket context, fed from our own socket, so that it lives on when the
//! client does not read. The shard starts it; it talks to its `Session` only. Broadcasts never pass its
//! mailbox.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix::prelude::*;
use actix_http::error::PayloadError;
use actix_http::ws::{Codec, ProtocolError};
use actix_web_actors::ws;
use bytes::{Bytes, BytesMut};
use futures_core::Stream;

use super::close::Close;
use super::history::{Piece, READ_MORE};
use super::inbound::{Joiner, Message, Scan, Scanner};
use super::socket::Session;
use crate::journal::Position;
use crate::model::gateway::MAX_FRAME_BYTES;
use crate::telemetry;

/// Turns of one session's input, of at most 16 frames each, before others have theirs.
const MAX_TURNS: usize = 8;
/// Reads of one turn that throws away what a closed client still sends; then others have theirs.
const DISCARD_READS: usize = 16;

/// Handles what one client sends.
pub(super) struct SessionActor {
    session: Rc<Session>,
    joiner: Joiner,
}

impl Actor for SessionActor {
    type Context = ws::WebsocketContext<Self>;
}

impl StreamHandler<Result<ws::Message, ProtocolError>> for SessionActor {
    fn handle(&mut self, item: Result<ws::Message, ProtocolError>, ctx: &mut Self::Context) {
        let handled = telemetry::contain("SessionActor", || self.take(item, ctx));
        if handled.is_none() {
            self.session.close(Close::Restart);
        }
    }

    fn finished(&mut self, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl SessionActor {
    fn take(&mut self, item: Result<ws::Message, ProtocolError>, ctx: &mut ws::WebsocketContext<Self>) {
        match item {
            Ok(ws::Message::Text(text)) => self.received(Message::Text(text.into_bytes())),
            Ok(ws::Message::Binary(data)) => self.received(Message::Binary(data)),
            Ok(ws::Message::Continuation(item)) => match self.joiner.push(item) {
                Ok(Some(message)) => self.received(message),
                Ok(None) => self.session.touch(),
                Err(close) => self.session.close(close),
            },
            Ok(ws::Message::Ping(payload)) => {
                self.session.touch();
                ctx.pong(&payload);
            }
            Ok(ws::Message::Pong(_) | ws::Message::Nop) => {}
            Ok(ws::Message::Close(reason)) => {
                if self.session.peer_closed() {
                    // The code is sent back as it came (RFC 6455 section 5.5.1), the text is not.
                    ctx.close(reason.map(|reason| reason.code.into()));
                }
            }
            Err(error) => self.session.close(self.session.take_fault().unwrap_or_else(|| close_for(&error))),
        }
    }

    /// Clients only listen: what they send keeps the connection in use, and goes no further.
    fn received(&mut self, _message: Message) {
        self.session.touch();
    }
}

/// What the codec refuses after the scanner has let it pass.
fn close_for(error: &ProtocolError) -> Close {
    match error {
        // Reserved bits are refused by the scanner, so this is text that is not UTF-8.
        ProtocolError::Io(_) => Close::NotUtf8,
        _ => Close::Protocol,
    }
}

/// Drives one session to its end: input to the actor, the actor's frames and the path's to the socket.
/// Calls `leave` at the end.
pub(super) async fn run(session: Rc<Session>, early: BytesMut, leave: impl FnOnce(&Session)) {
    let input =
        Input { session: Rc::clone(&session), scanner: Scanner::default(), bytes: early, gave: false };
    let actor = SessionActor { session: Rc::clone(&session), joiner: Joiner::default() };
    let codec = Codec::new().max_size(MAX_FRAME_BYTES);
    // Also when this task panics, the session is forgotten.
    let _leave = Leave { session: Rc::clone(&session), leave: Some(leave) };
    let mut context = pin!(ws::WebsocketContext::with_codec(actor, input, codec));
    let mut actor_ended = false;
    let mut fetch: Option<(Position, Fetch)> = None;
    let mut asked = None;
    poll_fn(|cx| {
        for turn in 0.. {
            if actor_ended || session.is_ended() {
                break;
            }
            if turn == MAX_TURNS {
                cx.waker().wake_by_ref();
                break;
            }
            match context.as_mut().poll_next(cx) {
                // Sent before more is read, or a burst of pings would fill the queue of a client that reads.
                Poll::Ready(Some(Ok(frames))) => {
                    session.push_control(frames);
                    if session.poll_output(cx).is_ready() {
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(Some(Err(_)) | None) => actor_ended = true,
                Poll::Pending => break,
            }
        }
        let mut over = session.poll_output(cx);
        while over.is_pending() {
            if fetch.is_none() {
                let wanted = session.wants();
                fetch = wanted.map(|(from, skips)| {
                    let is_again = asked.replace(from) == Some(from);
                    let pause = if is_again { READ_MORE } else { Duration::ZERO };
                    (from, Box::pin(session.piece(pause, from, skips)) as Fetch)
                });
            }
            let Some((from, piece)) = &mut fetch else { break };
            let (from, Poll::Ready((read, turn))) = (*from, piece.as_mut().poll(cx)) else { break };
            fetch = None;
            session.give(from, read, turn);
            over = session.poll_output(cx);
        }
        if actor_ended && over.is_pending() {
            session.input_ended();
            return Poll::Ready(());
        }
        over
    })
    .await;
}

type Fetch = Pin<Box<dyn Future<Output = Piece>>>;

/// Calls `leave` when the session's task ends, however it ends.
struct Leave<F: FnOnce(&Session)> {
    session: Rc<Session>,
    leave: Option<F>,
}

impl<F: FnOnce(&Session)> Drop for Leave<F> {
    fn drop(&mut self) {
        if let Some(leave) = self.leave.take() {
            leave(&self.session);
        }
    }
}

/// The bytes of the socket as actix's codec gets them: one whole frame at a time, each judged before.
struct Input {
    session: Rc<Session>,
    scanner: Scanner,
    bytes: BytesMut,
    /// The codec has a frame to decode before it may have the next.
    gave: bool,
}

impl Stream for Input {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.gave) {
            return Poll::Pending;
        }
        loop {
            if self.session.is_discarding() {
                return self.discard(cx);
            }
            let this = &mut *self;
            match this.scanner.scan(&this.bytes) {
                Scan::Frame(len) => {
                    let frame = this.bytes.split_to(len).freeze();
                    if this.bytes.is_empty() {
                        this.bytes = BytesMut::new();
                    }
                    this.gave = true;
                    return Poll::Ready(Some(Ok(frame)));
                }
                Scan::Refuse(close) => {
                    this.bytes = BytesMut::new();
                    this.session.set_fault(close);
                    return Poll::Ready(Some(Err(PayloadError::Overflow)));
                }
                Scan::Incomplete => {}
            }
            match std::task::ready!(this.session.poll_input(cx, Some(&mut this.bytes))) {
                Ok(0) | Err(_) => return Poll::Ready(None),
                Ok(_) => {}
            }
        }
    }
}

impl Input {
    fn discard(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, PayloadError>>> {
        for _ in 0..DISCARD_READS {
            match std::task::ready!(self.session.poll_input(cx, None)) {
                Ok(0) | Err(_) => return Poll::Ready(None),
                Ok(_) => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
