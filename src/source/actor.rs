//! [`SourceActor`]: reads one source for all triggers that listen to it.
//!
//! Owns the source. It writes every group of events to the journal, if a trigger's path is on disk, sends it to the
//! BatchActor of each action, and waits until all have taken it; so it queues nothing itself, and a full BatchActor
//! or journal holds the source back. The journal accepts the receipt when the events are committed, which nothing
//! here waits for. It begins with what the journal has and the BatchActors have not. Its mailbox gets [`Rewire`] when
//! other batches are to be fed, and [`Stop`].
//! When the source ends it drains the BatchActors and ends.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use actix::prelude::*;
use futures_core::Stream;
use futures_util::future::join_all;
use tokio::sync::watch;

use super::{Ending, Source};
use crate::batch::{BatchActor, Begin, Drain, Push};
use crate::journal::ReadError;
use crate::journal::disk::{ActionId, Arrived, Disk, SourceId};
use crate::model::event::Event;
use crate::model::receipt::{Arrivals, Receipt};
use crate::telemetry::{self, METRICS};

/// Reads a source and feeds the batches of its triggers.
pub struct SourceActor {
    source: Rc<RefCell<Box<dyn Source>>>,
    batches: Vec<Addr<BatchActor>>,
    /// Those that are to be fed, and get what they lack from the journal first.
    joining: Vec<(Addr<BatchActor>, Option<SpawnHandle>)>,
    log: Option<Log>,
    /// The offset of the next event.
    next: u64,
    /// Becomes true when everything that was read is with the gateways.
    drained: watch::Sender<bool>,
}

/// Where a source's events are written before anything else happens to them.
#[derive(Debug, Clone)]
pub struct Log {
    /// The journal.
    pub disk: Arc<Disk>,
    /// The source in it.
    pub source: SourceId,
    /// The offset of the first event that some BatchActor does not have.
    pub from: u64,
    /// Whether there are BatchActors for paths in memory too, which have to take the events before the sender may be
    /// acknowledged.
    pub is_mixed: bool,
}

/// Takes nothing new. The reply comes when everything that was taken is with the gateways.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Stop(pub Ending);

/// Feeds other batches from now on. Those that are left out are drained; those that are new begin where their action
/// stands in the journal, or with the next event.
#[derive(Debug, Default, Message)]
#[rtype(result = "()")]
pub struct Rewire {
    /// Batches that are fed no more.
    pub leave: Vec<Addr<BatchActor>>,
    /// Batches that are new, each with its action in the journal if its path is on disk.
    pub join: Vec<(Addr<BatchActor>, Option<ActionId>)>,
    /// What [`Log::is_mixed`] is from now on.
    pub is_mixed: bool,
    /// Actions that take nothing for a while, and those that are no more: from when their batches are with the gateways.
    pub hold: Vec<ActionId>,
    /// See `hold`.
    pub retire: Vec<ActionId>,
}

/// Events that a batch may lack when the source waits for it; before that it reads the journal beside the source.
const NEAR: u64 = 4096;

impl SourceActor {
    /// Reads `source` for `batches`.
    pub fn new(source: Box<dyn Source>, batches: Vec<Addr<BatchActor>>, log: Option<Log>) -> Self {
        Self {
            source: Rc::new(RefCell::new(source)),
            batches,
            joining: Vec::new(),
            next: log.as_ref().map_or(0, |log| log.from),
            log,
            drained: watch::Sender::new(false),
        }
    }

    /// Hands events to every batch, and then accepts what has not been accepted. Without all batches the actor ends:
    /// the supervisor starts the chain again, from the journal or from what the sender keeps.
    fn push(&mut self, first: u64, events: Arc<[Event]>, receipt: Option<Receipt>, ctx: &mut Context<Self>) {
        self.next = first + events.len() as u64;
        let push = Push { first, events };
        let pushes = join_all(self.batches.iter().map(|batch| batch.send(push.clone())));
        ctx.wait(pushes.into_actor(self).map(|replies, actor, ctx| {
            if replies.iter().all(|reply| matches!(reply, Ok(Ok(())))) {
                receipt.into_iter().for_each(Receipt::accept);
            } else if actor.log.is_some() || replies.iter().any(Result::is_err) {
                ctx.stop();
            }
        }));
    }

    /// Hands over what the journal has of this source from `self.next` to `end`, or to its end; then calls `then`.
    fn catch_up(
        &mut self,
        log: Log,
        end: Option<u64>,
        ctx: &mut Context<Self>,
        then: impl FnOnce(&mut Self, &mut Context<Self>) + 'static,
    ) {
        let read = feed(log, self.batches.clone(), self.next, end);
        ctx.wait(read.into_actor(self).map(|next, actor, ctx| match next {
            Ok(next) => {
                actor.next = next;
                then(actor, ctx);
            }
            Err(error) => {
                tracing::error!(%error, "failed to read on from the journal; the source starts again");
                ctx.stop();
            }
        }));
    }
}

/// Hands what the journal has of a source from `next` on to batches, up to `end` or to its end. Gives where it ends.
async fn feed(
    log: Log,
    batches: Vec<Addr<BatchActor>>,
    mut next: u64,
    end: Option<u64>,
) -> Result<u64, ReadError> {
    // What is read must be committed, whoever has written it.
    let flushed = read(&log, |log| log.disk.flushed(log.source)).await?;
    let end = end.unwrap_or(flushed);
    while next < end {
        let mut events = read(&log, move |log| log.disk.backlog(log.source, next)).await?;
        events.truncate((end - next) as usize);
        let push = Push { first: next, events: events.into() };
        next += push.events.len() as u64;
        let pushes = join_all(batches.iter().map(|batch| batch.send(push.clone())));
        if pushes.await.iter().any(|reply| !matches!(reply, Ok(Ok(())))) {
            return Err(ReadError::Failed("a batch did not take the events".to_owned()));
        }
    }
    Ok(next)
}

/// Reads the journal on a thread that may wait.
async fn read<R: Send + 'static>(
    log: &Log,
    work: impl FnOnce(&Log) -> Result<R, ReadError> + Send + 'static,
) -> Result<R, ReadError> {
    let log = log.clone();
    let done = actix_rt::task::spawn_blocking(move || work(&log)).await;
    done.unwrap_or_else(|error| Err(ReadError::Failed(error.to_string())))
}

impl Actor for SourceActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let reader = Reader(Rc::clone(&self.source));
        match self.log.clone() {
            Some(log) => self.catch_up(log, None, ctx, |_, ctx| {
                ctx.add_stream(reader);
            }),
            None => {
                ctx.add_stream(reader);
            }
        }
    }
}

impl StreamHandler<Arrivals> for SourceActor {
    fn handle(&mut self, arrivals: Arrivals, ctx: &mut Self::Context) {
        let Arrivals { events, repeats, made_of, receipt } = arrivals;
        let events: Arc<[Event]> = events.into();
        METRICS.source_events.inc_by(events.len() as u64);
        let Some(log) = &self.log else {
            return self.push(self.next, events, Some(receipt), ctx);
        };
        let own = log.is_mixed.then(|| receipt.share());
        let arrived = Arrived { events: Arc::clone(&events), repeats, made_of, receipt };
        match log.disk.log(log.source, arrived) {
            Ok(first) => self.logged(first, events, own, ctx),
            // The journal is behind: so is this source, until there is room.
            Err(arrived) => {
                let log = log.clone();
                let wait = async move {
                    let mut arrived = arrived;
                    let bytes = arrived.events.iter().map(|event| event.json.len()).sum();
                    loop {
                        log.disk.has_room(bytes).await;
                        match log.disk.log(log.source, arrived) {
                            Ok(first) => return first,
                            Err(back) => arrived = back,
                        }
                    }
                };
                ctx.wait(
                    wait.into_actor(self).map(|first, actor, ctx| actor.logged(first, events, own, ctx)),
                );
            }
        }
    }

    fn finished(&mut self, ctx: &mut Self::Context) {
        let all = self.batches.iter().chain(self.joining.iter().map(|(batch, _)| batch));
        let drains = join_all(all.map(|batch| batch.send(Drain)));
        ctx.wait(drains.into_actor(self).map(|_, actor, ctx| {
            actor.drained.send_replace(true);
            ctx.stop();
        }));
    }
}

impl SourceActor {
    /// The events have their place in the journal.
    fn logged(&mut self, first: u64, events: Arc<[Event]>, own: Option<Receipt>, ctx: &mut Context<Self>) {
        match self.log.clone() {
            // The actor before this one, which ends, has written something meanwhile.
            Some(log) if first > self.next => {
                self.catch_up(log, Some(first), ctx, move |actor, ctx| actor.push(first, events, own, ctx));
            }
            _ => self.push(first, events, own, ctx),
        }
    }
}

impl SourceActor {
    /// Brings a batch from the event at `next` to where the source stands, and feeds it from then on.
    fn join(&mut self, batch: Addr<BatchActor>, next: u64, ctx: &mut Context<Self>) {
        self.joining.retain(|(other, _)| *other != batch);
        let log = self.log.clone().filter(|_| next < self.next);
        let Some(log) = log else {
            self.batches.push(batch);
            return;
        };
        let is_near = self.next - next <= NEAR;
        let read = feed(log, vec![batch.clone()], next, Some(self.next));
        let joining = batch.clone();
        let read = read.into_actor(self).map(move |next, actor: &mut Self, ctx| match next {
            Ok(next) => actor.join(joining, next, ctx),
            Err(error) => {
                tracing::error!(%error, "failed to give a trigger what it has missed; its source starts again");
                ctx.stop();
            }
        });
        // While it has much to read, the source goes on for the others.
        let handle = if is_near {
            ctx.wait(read);
            None
        } else {
            Some(ctx.spawn(read))
        };
        self.joining.push((batch, handle));
    }
}

impl Handler<Rewire> for SourceActor {
    type Result = ();

    fn handle(&mut self, rewire: Rewire, ctx: &mut Self::Context) {
        let Rewire { leave, join, is_mixed, hold, retire } = rewire;
        let mut left: Vec<_> = self.batches.extract_if(.., |batch| leave.contains(batch)).collect();
        for (batch, handle) in self.joining.extract_if(.., |(batch, _)| leave.contains(batch)) {
            // It must get nothing more.
            handle.map(|handle| ctx.cancel_future(handle));
            left.push(batch);
        }
        if let Some(log) = &mut self.log {
            log.is_mixed = is_mixed;
        }
        // An action begins where the batch before it ends: only then is that known.
        let drains = join_all(left.into_iter().map(|batch| async move { batch.send(Drain).await }));
        ctx.wait(drains.into_actor(self).map(move |_, actor, ctx| {
            if let Some(log) = &actor.log {
                hold.into_iter().for_each(|action| log.disk.hold(action, true));
                if !retire.is_empty() {
                    log.disk.retire(retire);
                }
            }
            for (batch, action) in join {
                let stands = actor.log.as_ref().zip(action).map(|(log, action)| log.disk.cursor(action));
                let next = stands.unwrap_or(actor.next);
                batch.do_send(Begin(next));
                actor.join(batch, next, ctx);
            }
        }));
    }
}

impl Handler<Stop> for SourceActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Stop(ending): Stop, _: &mut Self::Context) -> Self::Result {
        self.source.borrow_mut().end(ending);
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
    use std::sync::Mutex;

    use bytes::Bytes;
    use tokio::sync::{Notify, Semaphore, mpsc};
    use uuid::Uuid;

    use super::*;
    use crate::gateway::Broadcast;
    use crate::model::gateway::PathKey;
    use crate::model::message;
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

        fn end(&mut self, _: Ending) {
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
                texts.lock().unwrap().extend(broadcast.batches.iter().map(|batch| message::join(batch)));
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
            let batch = |_| {
                BatchActor::new(
                    "t".into(),
                    settings,
                    target.clone(),
                    sink.clone().recipient(),
                    None,
                    0,
                    Arc::default(),
                )
                .start()
            };
            let batches: Vec<_> = (0..batches).map(batch).collect();
            let (feed, groups) = mpsc::channel(4);
            let source = SourceActor::new(Box::new(Fed { groups, panics }), batches.clone(), None).start();
            Self { source, feed, batches, texts, permits }
        }

        async fn feed(&self, count: usize) -> Arc<Gate> {
            let (gate, mut receipts) = Gate::new(1, Arc::new(Notify::new()));
            let events = vec![Event { id: Uuid::nil(), json: Bytes::from_static(b"1") }; count];
            self.feed
                .send(Arrivals { events, repeats: None, made_of: None, receipt: receipts.pop().unwrap() })
                .await
                .unwrap();
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
        bench.source.send(Stop(Ending::Stop)).await.unwrap();
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
