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
        ctx.wait(drains.into_actor(self).map(|_, actor, ctx| {
            actor.drained.send_replace(true);
            ctx.stop();
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use tokio::sync::{Notify, Semaphore, mpsc};
    use uuid::Uuid;

    use super::*;
    use crate::gateway::Broadcast;
    use crate::model::event::Event;
    use crate::model::gateway::PathKey;
    use crate::model::receipt::{Gate, Verdict};
    use crate::model::trigger::BatchSettings;
    use crate::source::Condition;

    /// A source fed by the test.
    struct Fed {
        groups: mpsc::Receiver<Arrivals>,
        panics: bool,
    }

    impl Source for Fed {
        fn poll_next(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Arrivals>> {
            assert!(!self.panics, "on purpose");
            self.groups.poll_recv(cx)
        }

        fn stop(&mut self) {
            self.groups.close();
        }

        fn condition(&self) -> watch::Receiver<Condition> {
            watch::Sender::new(Condition::Running).subscribe()
        }
    }

    /// Stands for a gateway: counts texts, and takes a message only when it has a permit.
    struct Sink {
        texts: Arc<Mutex<Vec<Bytes>>>,
        permits: Arc<Semaphore>,
    }

    impl Actor for Sink {
        type Context = Context<Self>;
    }

    impl Handler<Broadcast> for Sink {
        type Result = ResponseFuture<()>;

        fn handle(&mut self, broadcast: Broadcast, _: &mut Self::Context) -> Self::Result {
            let (texts, permits) = (Arc::clone(&self.texts), Arc::clone(&self.permits));
            Box::pin(async move {
                permits.acquire().await.unwrap().forget();
                texts.lock().unwrap().extend(broadcast.texts);
            })
        }
    }

    struct Bench {
        source: Addr<SourceActor>,
        feed: mpsc::Sender<Arrivals>,
        batches: Vec<Addr<BatchActor>>,
        texts: Arc<Mutex<Vec<Bytes>>>,
        permits: Arc<Semaphore>,
    }

    impl Bench {
        fn new(batches: usize, max_count: usize, permits: usize, panics: bool) -> Self {
            let (texts, permits) = (Arc::default(), Arc::new(Semaphore::new(permits)));
            let sink = Sink { texts: Arc::clone(&texts), permits: Arc::clone(&permits) }.start();
            let target = PathKey { gateway_id: "main".into(), path: "/ws".into() };
            let settings = BatchSettings { max_count, ..BatchSettings::default() };
            let batch =
                |_| BatchActor::new("t".into(), settings, target.clone(), sink.clone().recipient()).start();
            let batches: Vec<_> = (0..batches).map(batch).collect();
            let (feed, groups) = mpsc::channel(4);
            let source = SourceActor::new(Box::new(Fed { groups, panics }), batches.clone()).start();
            Self { source, feed, batches, texts, permits }
        }

        async fn feed(&self, count: usize) -> Arc<Gate> {
            let (gate, mut receipts) = Gate::new(1, Arc::new(Notify::new()));
            let events = vec![Event { id: Uuid::nil(), json: Bytes::from_static(b"1") }; count];
            self.feed.send(Arrivals { events, receipt: receipts.pop().unwrap() }).await.unwrap();
            gate
        }
    }

    async fn until(what: &str, condition: impl Fn() -> bool) {
        for _ in 0..100_000 {
            if condition() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("{what} did not come");
    }

    #[actix::test]
    async fn a_receipt_is_accepted_when_every_batch_has_the_events() {
        let bench = Bench::new(3, 2, 100, false);
        let gate = bench.feed(2).await;
        until("the verdict", || gate.verdict() != Verdict::Pending).await;
        assert_eq!(gate.verdict(), Verdict::Accepted);
        until("one batch of each action", || bench.texts.lock().unwrap().len() == 3).await;
    }

    #[actix::test]
    async fn full_batches_hold_the_source_back_and_nothing_is_lost() {
        let bench = Bench::new(1, 1, 0, false);
        let mut gates = Vec::new();
        while let Ok(gate) = tokio::time::timeout(std::time::Duration::from_millis(200), bench.feed(1)).await
        {
            gates.push(gate);
            assert!(gates.len() < 100, "nothing holds the source back");
        }
        assert_eq!(gates.last().map(|gate| gate.verdict()), Some(Verdict::Pending));
        bench.permits.add_permits(1000);
        until("every text", || bench.texts.lock().unwrap().len() == gates.len()).await;
        assert!(gates.iter().all(|gate| gate.verdict() == Verdict::Accepted));
    }

    #[actix::test]
    async fn stopping_hands_over_what_was_taken_and_takes_nothing_new() {
        let bench = Bench::new(1, 10, 100, false);
        for _ in 0..3 {
            bench.feed(1).await;
        }
        bench.source.send(Stop).await.unwrap();
        assert_eq!(*bench.texts.lock().unwrap(), [r#"{"messages":[1,1,1]}"#]);
        assert!(bench.feed.is_closed());
    }

    #[actix::test]
    async fn a_batch_that_has_ended_refuses_the_receipt_and_ends_the_source() {
        let bench = Bench::new(1, 10, 100, false);
        bench.batches[0].send(crate::batch::End).await.unwrap();
        until("the end of the batch", || !bench.batches[0].connected()).await;
        let gate = bench.feed(1).await;
        until("the verdict", || gate.verdict() == Verdict::Refused).await;
        until("the end of the source", || !bench.source.connected()).await;
    }

    #[actix::test]
    async fn a_source_that_panics_refuses_its_queue_and_ends_the_actor() {
        let bench = Bench::new(1, 10, 100, true);
        until("the end of the source", || !bench.source.connected()).await;
        assert!(bench.feed.is_closed());
    }
}
