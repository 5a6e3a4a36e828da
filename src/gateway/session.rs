//! The session actor: what a WebSocket client says, and the task that drives it.
//!
//! `SessionActor` runs in actix's WebSocket context, fed from our own socket, so that it goes on when the client does
//! not read. The session's task starts it when the client says something; it talks to its `Session` only. Broadcasts
//! never pass its mailbox.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix::prelude::*;
use actix_http::error::PayloadError;
use actix_http::ws::{Codec, ProtocolError};
use actix_web_actors::ws;
use bytes::{Bytes, BytesMut};
use futures_core::Stream;

use super::authorize::refresh;
use super::close::Close;
use super::history::{Piece, READ_MORE};
use super::hooks::Answer;
use super::inbound::{Joiner, Message, Next, Part, Scanner};
use super::segment::Format;
use super::socket::{Session, Turn};
use crate::journal::Position;
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
            Ok(ws::Message::Text(text)) => self.heard(Part::Text(text.into_bytes())),
            Ok(ws::Message::Binary(data)) => self.heard(Part::Binary(data)),
            Ok(ws::Message::Continuation(item)) => self.heard(Part::Fragment(item)),
            Ok(ws::Message::Ping(payload)) => {
                self.session.touch();
                ctx.pong(&payload);
            }
            Ok(ws::Message::Pong(_) | ws::Message::Nop) => {}
            Ok(ws::Message::Close(reason)) => {
                let text = reason.as_ref().and_then(|reason| reason.description.as_deref());
                let code = reason.as_ref().map(|reason| reason.code.into());
                self.session.peer_closed(code, text.unwrap_or_default());
            }
            Err(error) => self.session.close(self.session.take_fault().unwrap_or_else(|| close_for(&error))),
        }
    }

    /// A message, or a part of one.
    fn heard(&mut self, part: Part) {
        let most = self.session.settings.limits.message_bytes;
        match self.joiner.take(part, self.session.packed.take(), most) {
            Ok(Some(message)) => self.received(message),
            Ok(None) => self.session.touch(),
            Err(close) => self.session.close(close),
        }
    }

    /// What clients send keeps the connection in use. New tokens are for the gateway alone; the rest goes to the path's
    /// hooks, if it has any.
    fn received(&mut self, message: Message) {
        self.session.touch();
        if let Message::Text(text) = &message
            && refresh::take(&self.session, text)
        {
            return;
        }
        if let Some(conversation) = &*self.session.conversation.borrow() {
            conversation.hear(message);
        }
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
///
/// Most clients only listen, so the actor and its context live only while the client has something to say: from the
/// first byte of a message to the last. Without them an idle connection takes half the memory.
pub(super) struct Run<F: FnOnce(&Session)> {
    session: Rc<Session>,
    talk: Option<Talk>,
    fetch: Option<(Position, Fetch)>,
    /// What the journal was asked for last.
    asked: Option<Position>,
    /// The message that is being answered, and the answer that has no room yet.
    answer: Option<Answer>,
    unsent: Option<Bytes>,
    /// Called at the end, however it comes: also when the task panics, the session is forgotten.
    leave: Option<F>,
}

/// The actor in its context: what it wants to send.
type Talk = Pin<Box<dyn Stream<Item = Result<Bytes, actix_web::Error>>>>;
type Fetch = Pin<Box<dyn Future<Output = Piece>>>;

fn talk(session: &Rc<Session>, bytes: BytesMut) -> Talk {
    session.turn.set(Turn::Begun);
    let limits = &session.settings.limits;
    let scanner = Scanner::new(limits, session.feed.view.format == Format::Deflated);
    let input = Input { session: Rc::clone(session), scanner, bytes, gave: false };
    let actor = SessionActor { session: Rc::clone(session), joiner: Joiner::default() };
    Box::pin(ws::WebsocketContext::with_codec(actor, input, Codec::new().max_size(limits.frame_bytes)))
}

impl<F: FnOnce(&Session)> Run<F> {
    /// The task of a session. `early` are bytes that came behind the request; `leave` is called at the end.
    pub(super) fn new(session: Rc<Session>, early: BytesMut, leave: F) -> Self {
        let talk = (!early.is_empty()).then(|| talk(&session, early));
        Self { session, talk, fetch: None, asked: None, answer: None, unsent: None, leave: Some(leave) }
    }

    /// Ready when the input has ended, and the actor with it.
    fn poll_talk(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..MAX_TURNS {
            // What it said goes on first; this task is woken when there is room again.
            if self.session.is_ended() || self.session.is_full_of_heard() {
                return Poll::Pending;
            }
            let talk = match &mut self.talk {
                Some(talk) => talk,
                None => {
                    std::task::ready!(self.session.poll_readable(cx));
                    self.talk.insert(talk(&self.session, BytesMut::new()))
                }
            };
            match talk.as_mut().poll_next(cx) {
                // Sent before more is read, or a burst of pings would fill the queue of a client that reads.
                Poll::Ready(Some(Ok(frames))) => {
                    self.session.push_control(frames);
                    if self.session.poll_output(cx).is_ready() {
                        return Poll::Pending;
                    }
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending if self.session.turn.get() == Turn::Done => {
                    // An actor that is dropped is polled once more, and must not read what has come meanwhile.
                    self.session.turn.set(Turn::Over);
                    self.talk = None;
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Passes on what the client said, one message after the other. True: there may be more to send, or to read. When
    /// everything is answered, a session that waits for that may close.
    fn poll_answers(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_moved = false;
        loop {
            if let Some(frames) = self.unsent.take() {
                if !self.session.takes_messages() {
                    // Nobody hears it any more.
                } else if self.session.push_message(frames.clone()) {
                    has_moved = true;
                } else {
                    self.unsent = Some(frames);
                    return has_moved;
                }
            }
            if self.answer.is_none() {
                let conversation = self.session.conversation.borrow();
                let Some(next) = conversation.as_ref().and_then(|conversation| conversation.next()) else {
                    return self.session.last_words() || has_moved;
                };
                self.answer = Some(next);
                has_moved = true;
            }
            match self.answer.as_mut().map(|answer| answer.as_mut().poll(cx)) {
                Some(Poll::Ready(frames)) => (self.answer, self.unsent) = (None, frames),
                Some(Poll::Pending) | None => return has_moved,
            }
        }
    }

    /// Ready when the session is over.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.session.poll_output(cx).is_pending() {
            if self.fetch.is_none()
                && let Some((from, skips)) = self.session.wants()
            {
                let is_again = self.asked.replace(from) == Some(from);
                let pause = if is_again { READ_MORE } else { Duration::ZERO };
                self.fetch = Some((from, Box::pin(self.session.piece(pause, from, skips))));
            }
            let Some((from, piece)) = &mut self.fetch else { return Poll::Pending };
            let from = *from;
            let (read, turn) = std::task::ready!(piece.as_mut().poll(cx));
            self.fetch = None;
            self.session.give(from, read, turn);
        }
        Poll::Ready(())
    }
}

impl<F: FnOnce(&Session) + Unpin> Future for Run<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let input_ended = self.poll_talk(cx).is_ready();
        let was_full = self.session.is_full_of_heard();
        self.poll_answers(cx);
        let mut over = self.poll_output(cx);
        // What is sent makes room for answers, and what is answered for messages.
        while over.is_pending() && self.poll_answers(cx) {
            over = self.poll_output(cx);
        }
        if was_full && !self.session.is_full_of_heard() {
            cx.waker().wake_by_ref();
        }
        if input_ended && over.is_pending() && !self.session.is_answering() {
            self.session.input_ended();
            return Poll::Ready(());
        }
        over
    }
}

impl<F: FnOnce(&Session)> Drop for Run<F> {
    fn drop(&mut self) {
        if let Some(leave) = self.leave.take() {
            leave(&self.session);
        }
        if let Some(conversation) = self.session.conversation.take() {
            let (code, reason) = Close::told(self.session.ended_as());
            conversation.finish(self.answer.take(), code, reason);
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
        if self.session.turn.get() == Turn::Over {
            return Poll::Ready(None);
        }
        self.session.turn.set(Turn::Begun);
        // One that has said so much that it must wait is read from when there is room; the task sees to that.
        if std::mem::take(&mut self.gave) || self.session.is_full_of_heard() {
            return Poll::Pending;
        }
        loop {
            if self.session.is_discarding() {
                return self.discard(cx);
            }
            let this = &mut *self;
            match this.scanner.next(&mut this.bytes) {
                Next::Frame(frame, packed) => {
                    if let Err(close) = this.session.admits(frame.len()) {
                        return this.refuse(close);
                    }
                    if packed.is_some() {
                        this.session.packed.set(packed);
                    }
                    this.gave = true;
                    return Poll::Ready(Some(Ok(frame)));
                }
                Next::Refuse(close) => return this.refuse(close),
                Next::Incomplete => {}
            }
            match this.session.poll_input(cx, Some(&mut this.bytes)) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(None),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => {
                    if this.bytes.is_empty() && this.scanner.is_between_messages() {
                        this.session.turn.set(Turn::Done);
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

impl Input {
    fn refuse(&mut self, close: Close) -> Poll<Option<Result<Bytes, PayloadError>>> {
        self.bytes = BytesMut::new();
        self.session.set_fault(close);
        Poll::Ready(Some(Err(PayloadError::Overflow)))
    }

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
