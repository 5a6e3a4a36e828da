//! [`SourceActor`]: reads one source for all triggers that listen to it.
//!
//! Owns the source. It sends every group of events to the BatchActor of each action, waits until all have
//! taken it, accepts the receipt, and only then takes the next; so it queues nothing itself, and a full
//! BatchActor holds the source back. Its mailbox gets only [`Stop`]. When the source ends it drains the
//! BatchActors and ends.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll};

use actix::prelude::*;
use futures_core::Stream;
use futures_util::future::join_all;
use tokio::sync::watch;

use super::Source;
use crate::batch::{BatchActor, Drain, Push};
use crate::model::receipt::Arrivals;
use crate::telemetry;

/// Reads a source and feeds the batches of its triggers.
pub struct SourceActor {
    source: Rc<RefCell<Box<dyn Source>>>,
    batches: Vec<Addr<BatchActor>>,
    /// Becomes true when everything that was read is with the gateways.
    drained: watch::Sender<bool>,
}

/// Takes nothing new. The reply comes when everything that was taken is with the gateways.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Stop;

impl SourceActor {
    /// Reads `source` for `batches`.
    pub fn new(source: Box<dyn Source>, batches: Vec<Addr<BatchActor>>) -> Self {
        Self { source: Rc::new(RefCell::new(source)), batches, drained: watch::Sender::new(false) }
    }
}

impl Actor for SourceActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.add_stream(Reader(Rc::clone(&self.source)));
    }
}

impl StreamHandler<Arrivals> for SourceActor {
    fn handle(&mut self, arrivals: Arrivals, ctx: &mut Self::Context) {
        let push = Push { events: arrivals.events.into() };
        let pushes = join_all(self.batches.iter().map(|batch| batch.send(push.clone())));
        ctx.wait(pushes.into_actor(self).map(|replies, _, ctx| {
            if replies.iter().all(|reply| matches!(reply, Ok(Ok(())))) {
                arrivals.receipt.accept();
            } else if replies.iter().any(Result::is_err) {
                // A batch has ended; the supervisor starts the chain again, the sender keeps its events.
                ctx.stop();
            }
        }));
    }

    fn finished(&mut self, ctx: &mut Self::Context) {
        let drains = join_all(self.batches.iter().map(|batch| batch.send(Drain)));
        ctx.wait(drains.into_actor(self).map(|_, actor, _| {
            actor.drained.send_replace(true);
        }));
    }
}

impl Handler<Stop> for SourceActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Stop, _: &mut Self::Context) -> Self::Result {
        self.source.borrow_mut().stop();
        let mut drained = self.drained.subscribe();
        // An error means that the actor has ended, and with it all that could be drained.
        Box::pin(async move { drop(drained.wait_for(|drained| *drained).await) })
    }
}

/// The source as a stream, for the actor's context.
struct Reader(Rc<RefCell<Box<dyn Source>>>);

impl Stream for Reader {
    type Item = Arrivals;

    fn poll_next(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Arrivals>> {
        // A source that panics is read no more; its queue and its receipts go with it.
        telemetry::contain("SourceActor", || self.0.borrow_mut().poll_next(cx)).unwrap_or(Poll::Ready(None))
    }
}
