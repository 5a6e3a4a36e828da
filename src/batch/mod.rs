//! Where events become batches: [`BatchActor`], one for each action of a trigger.
//!
//! Owns the open batch. The SourceActor sends it groups of events; it sends closed batches to the
//! GatewayActor and takes nothing more until the gateway has them. Its mailbox holds [`MAILBOX`] groups;
//! when it is full the SourceActor waits, and with it, in the end, the publisher. On [`Drain`] it closes
//! the open batch. For a path on disk every batch names the stretch of its source that it holds, so that the
//! journal knows after a restart what was broadcast and what was not.

pub mod buffer;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use actix::prelude::*;

use self::buffer::{Batch, Buffer, Close};
use crate::gateway::Broadcast;
use crate::journal::Origin;
use crate::journal::disk::ActionId;
use crate::model::event::Event;
use crate::model::gateway::PathKey;
use crate::model::id::Id;
use crate::model::trigger::BatchSettings;
use crate::telemetry::{self, ActionMeter, METRICS, trace};

/// Groups of events that may wait in the mailbox.
pub const MAILBOX: usize = 16;

/// Least time between two log lines about oversize events of one trigger.
const OVERSIZE_LOG_PAUSE: Duration = Duration::from_secs(60);

/// Groups the events of one trigger action.
#[derive(Debug)]
pub struct BatchActor {
    /// The trigger's name, for log lines.
    trigger: Id,
    settings: BatchSettings,
    /// The deciding part.
    buffer: Buffer,
    target: PathKey,
    gateway: Recipient<Broadcast>,
    /// The action in the journal, for a path on disk.
    action: Option<ActionId>,
    /// The offset in the source of the next event to take; earlier ones are known.
    next: u64,
    /// The offset of the first event that the gateway does not have.
    unsent: u64,
    /// Batches that closed and are not on their way yet.
    closed: Vec<Batch>,
    /// The gateway has not taken the last batches yet. A timer can run in between; its batch comes after.
    sending: bool,
    /// Whether a timer is set. It looks at the buffer when it runs, so that one is enough for all batches.
    timer: Option<SpawnHandle>,
    /// When an oversize event was last logged; they are counted always, logged once a minute.
    oversize_logged: Option<Instant>,
    /// Told what closes, and how the open batch stands.
    meter: Arc<ActionMeter>,
}

/// Takes a group of events, in order. The reply says whether they are in the batch.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), Lost>")]
pub struct Push {
    /// The offset of the first event in its source.
    pub first: u64,
    /// The events, shared with the other actions of the source.
    pub events: Arc<[Event]>,
}

/// Says which event of the source is the first to take. Sent before the first [`Push`] to one that joins a source that
/// runs.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Begin(pub u64);

/// Closes the open batch. The reply comes when the gateway has all batches that came before.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Drain;

/// The events of a group could not be taken, or not all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the batch did not take the events")]
pub struct Lost;

/// tokio's clock, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl BatchActor {
    /// Batches for the path `target` of `gateway`, from the event at `next` on. `action` is the journal's name for it,
    /// if the path is on disk.
    pub fn new(
        trigger: Id,
        settings: BatchSettings,
        target: PathKey,
        gateway: Recipient<Broadcast>,
        action: Option<ActionId>,
        next: u64,
        meter: Arc<ActionMeter>,
    ) -> Self {
        let buffer = Buffer::new(settings);
        Self {
            action,
            next,
            unsent: next,
            trigger,
            settings,
            buffer,
            target,
            gateway,
            closed: Vec::new(),
            sending: false,
            timer: None,
            oversize_logged: None,
            meter,
        }
    }
}

impl Actor for BatchActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Handler<Push> for BatchActor {
    type Result = Result<(), Lost>;

    fn handle(&mut self, push: Push, ctx: &mut Self::Context) -> Self::Result {
        let known = self.next.saturating_sub(push.first) as usize;
        self.next = self.next.max(push.first + push.events.len() as u64);
        self.decide(ctx, |buffer, closed| {
            let now = now();
            for event in push.events.iter().skip(known) {
                buffer.push(event.clone(), now, closed);
            }
        })
    }
}

impl Handler<Begin> for BatchActor {
    type Result = ();

    fn handle(&mut self, Begin(first): Begin, _: &mut Self::Context) {
        (self.next, self.unsent) = (first, first);
    }
}

impl Handler<Drain> for BatchActor {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Drain, ctx: &mut Self::Context) -> Self::Result {
        self.buffer.drain(&mut self.closed);
        self.forward(ctx);
        self.tell();
        // A future of the actor is polled only after the gateway has taken the batches.
        Box::pin(actix::fut::ready(()))
    }
}

impl BatchActor {
    /// Lets the buffer decide, contains a panic in it, and acts on what it decided.
    fn decide(
        &mut self,
        ctx: &mut Context<Self>,
        work: impl FnOnce(&mut Buffer, &mut Vec<Batch>),
    ) -> Result<(), Lost> {
        let done = telemetry::contain("BatchActor", || work(&mut self.buffer, &mut self.closed));
        if done.is_none() {
            self.restart();
        }
        self.forward(ctx);
        self.tell();
        self.set_timer(ctx);
        done.ok_or(Lost)
    }

    /// After a contained panic: what is in the open batch goes out, and a fresh buffer takes over.
    fn restart(&mut self) {
        self.buffer.drain(&mut self.closed);
        self.buffer = Buffer::new(self.settings);
        METRICS.count_restart("BatchActor");
    }

    /// Sends the closed batches on their way; the mailbox waits until the gateway has them.
    fn forward(&mut self, ctx: &mut Context<Self>) {
        if self.closed.is_empty() || self.sending {
            return;
        }
        self.sending = true;
        let mut batches = Vec::with_capacity(self.closed.len());
        let mut events = 0;
        let now = now();
        for batch in std::mem::take(&mut self.closed) {
            self.meter.close(batch.close, batch.events.len());
            METRICS.count_batch(batch.close, batch.events.len(), now.saturating_duration_since(batch.opened));
            if batch.close == Close::Oversize {
                self.report_oversize(&batch);
            }
            if trace::is_on() {
                trace::batched(&self.trigger, batch.events.iter());
            }
            events += batch.events.len() as u64;
            batches.push(batch.events);
        }
        let origin = self.action.map(|action| Origin { action, first: self.unsent });
        self.unsent += events;
        let broadcast = Broadcast { path: self.target.path.clone(), origin, batches: Arc::new(batches) };
        ctx.wait(self.gateway.send(broadcast).into_actor(self).map(|sent, actor, ctx| {
            actor.sending = false;
            if sent.is_err() {
                tracing::error!(trigger = %actor.trigger, "the gateway has ended; the trigger starts again");
                ctx.stop();
            } else {
                actor.meter.leave(SystemTime::now());
                actor.forward(ctx);
            }
        }));
    }

    /// Tells how the open batch stands.
    fn tell(&self) {
        let (events, bytes) = self.buffer.held();
        self.meter.open(events, bytes, self.buffer.deadline());
    }

    fn report_oversize(&mut self, batch: &Batch) {
        METRICS.oversize_events.inc();
        if self.oversize_logged.is_some_and(|last| last.elapsed() < OVERSIZE_LOG_PAUSE) {
            return;
        }
        self.oversize_logged = Some(Instant::now());
        let bytes: usize = batch.events.iter().map(|event| event.json.len()).sum();
        tracing::warn!(trigger = %self.trigger, bytes, limit = self.settings.max_bytes,
            "an event is larger than a message may be; it is sent as a message of its own");
    }

    /// Keeps one timer running while a batch is open.
    fn set_timer(&mut self, ctx: &mut Context<Self>) {
        let Some(deadline) = self.buffer.deadline() else { return };
        if self.timer.is_none() {
            let wait = deadline.saturating_duration_since(now());
            self.timer = Some(ctx.run_later(wait, |actor, ctx| {
                actor.timer = None;
                actor.buffer.close_if_due(now(), &mut actor.closed);
                actor.forward(ctx);
                actor.tell();
                actor.set_timer(ctx);
            }));
        }
    }
}

/// Ends the actor at once, as a fault would.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct End;

#[cfg(test)]
impl Handler<End> for BatchActor {
    type Result = ();

    fn handle(&mut self, _: End, ctx: &mut Self::Context) {
        ctx.terminate();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use bytes::Bytes;
    use tokio::sync::Semaphore;
    use uuid::Uuid;

    use super::*;
    use crate::model::message;

    /// Stands for a gateway: keeps the texts, and takes a message only when it has a permit.
    struct Recorder {
        texts: Arc<Mutex<Vec<String>>>,
        origins: Arc<Mutex<Vec<u64>>>,
        permits: Arc<Semaphore>,
    }

    impl Actor for Recorder {
        type Context = Context<Self>;
    }

    impl Handler<Broadcast> for Recorder {
        type Result = ResponseFuture<()>;

        fn handle(&mut self, broadcast: Broadcast, _: &mut Self::Context) -> Self::Result {
            let (texts, permits) = (Arc::clone(&self.texts), Arc::clone(&self.permits));
            let origins = Arc::clone(&self.origins);
            Box::pin(async move {
                permits.acquire().await.unwrap().forget();
                let text = |batch: &Vec<Event>| String::from_utf8(message::join(batch).to_vec()).unwrap();
                let new = broadcast.batches.iter().map(text);
                origins.lock().unwrap().push(broadcast.origin.unwrap().first);
                texts.lock().unwrap().extend(new);
            })
        }
    }

    struct Bench {
        batch: Addr<BatchActor>,
        texts: Arc<Mutex<Vec<String>>>,
        /// The offset of each broadcast's first event.
        origins: Arc<Mutex<Vec<u64>>>,
        next: AtomicU64,
        permits: Arc<Semaphore>,
        meter: Arc<ActionMeter>,
    }

    impl Bench {
        fn new(max_count: usize, max_bytes: usize, cutoff: Duration, permits: usize) -> Self {
            let (texts, permits) = (Arc::default(), Arc::new(Semaphore::new(permits)));
            let origins = Arc::default();
            let recorder = Recorder {
                texts: Arc::clone(&texts),
                origins: Arc::clone(&origins),
                permits: Arc::clone(&permits),
            };
            let gateway = recorder.start();
            let target = PathKey { gateway_id: "main".into(), path: "/ws".into() };
            let settings = BatchSettings { max_count, max_bytes, cutoff };
            let meter = Arc::<ActionMeter>::default();
            let batch = BatchActor::new(
                "t".into(),
                settings,
                target,
                gateway.recipient(),
                Some(7),
                100,
                Arc::clone(&meter),
            )
            .start();
            Self { batch, texts, origins, next: AtomicU64::new(100), permits, meter }
        }

        async fn push(&self, jsons: &[&'static str]) -> Result<(), Lost> {
            let first = self.next.fetch_add(jsons.len() as u64, Ordering::Relaxed);
            self.batch.send(push(first, jsons)).await.unwrap()
        }

        async fn texts(&self, count: usize) -> Vec<String> {
            for _ in 0..10_000 {
                if self.texts.lock().unwrap().len() >= count {
                    break;
                }
                tokio::task::yield_now().await;
            }
            self.texts.lock().unwrap().clone()
        }
    }

    fn push(first: u64, jsons: &[&'static str]) -> Push {
        let event =
            |json: &&'static str| Event { id: Uuid::nil(), json: Bytes::from_static(json.as_bytes()) };
        Push { first, events: jsons.iter().map(event).collect() }
    }

    #[actix::test]
    async fn full_batches_leave_at_once_and_the_rest_at_the_cutoff() {
        tokio::time::pause();
        let bench = Bench::new(2, 1000, Duration::from_secs(5), 100);
        bench.push(&["1", "2", "3"]).await.unwrap();
        assert_eq!(bench.texts(1).await, [r#"{"messages":[1,2]}"#]);
        tokio::time::advance(Duration::from_millis(4990)).await;
        assert_eq!(bench.texts(2).await.len(), 1);
        tokio::time::advance(Duration::from_millis(20)).await;
        assert_eq!(bench.texts(2).await[1], r#"{"messages":[3]}"#);
    }

    #[actix::test]
    async fn the_timer_of_a_sent_batch_does_not_cut_the_next_one_short() {
        tokio::time::pause();
        let bench = Bench::new(2, 1000, Duration::from_secs(5), 100);
        bench.push(&["1"]).await.unwrap();
        tokio::time::advance(Duration::from_secs(3)).await;
        bench.push(&["2", "3"]).await.unwrap();
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(bench.texts(2).await, [r#"{"messages":[1,2]}"#]);
        tokio::time::advance(Duration::from_millis(2010)).await;
        assert_eq!(bench.texts(2).await[1], r#"{"messages":[3]}"#);
    }

    #[actix::test]
    async fn the_meter_shows_what_closed_and_what_is_open() {
        let bench = Bench::new(2, 1000, Duration::from_secs(60), 100);
        let (begun, clock) = (now(), SystemTime::now());
        bench.push(&["1", "2", "345"]).await.unwrap();
        let seen = bench.meter.read(begun, clock);
        assert_eq!((seen.events, seen.batches, seen.closed_for(Close::Count)), (2, 1, 1));
        assert_eq!((seen.open_events, seen.open_bytes), (1, 3));
        assert!(seen.closes_at.unwrap() >= clock + Duration::from_secs(60));
        bench.batch.send(Drain).await.unwrap();
        let seen = bench.meter.read(begun, clock);
        assert_eq!((seen.events, seen.closed_for(Close::Drain)), (3, 1));
        assert_eq!((seen.open_events, seen.open_bytes, seen.closes_at), (0, 0, None));
        assert!(seen.last_batch_at.is_some());
    }

    #[actix::test]
    async fn a_batch_has_left_when_the_gateway_has_taken_it() {
        let bench = Bench::new(1, 1000, Duration::from_secs(60), 0);
        bench.push(&["1"]).await.unwrap();
        tokio::task::yield_now().await;
        let seen = || bench.meter.read(now(), SystemTime::now());
        assert_eq!((seen().batches, seen().last_batch_at), (1, None));
        bench.permits.add_permits(1);
        bench.batch.send(Drain).await.unwrap();
        assert!(seen().last_batch_at.is_some());
    }

    #[actix::test]
    async fn draining_replies_when_the_gateway_has_everything() {
        let bench = Bench::new(10, 1000, Duration::from_secs(60), 100);
        bench.push(&["1", "2"]).await.unwrap();
        bench.batch.send(Drain).await.unwrap();
        assert_eq!(*bench.texts.lock().unwrap(), [r#"{"messages":[1,2]}"#]);
    }

    #[actix::test]
    async fn the_mailbox_fills_while_the_gateway_is_full_and_nothing_is_lost() {
        let bench = Bench::new(1, 1000, Duration::from_secs(60), 0);
        bench.push(&["1"]).await.unwrap();
        let mut queued = 1;
        while bench.batch.try_send(push(100 + queued as u64, &["1"])).is_ok() {
            queued += 1;
            assert!(queued <= MAILBOX + 3, "the mailbox has no bound");
        }
        assert!(queued >= MAILBOX, "{queued}");
        bench.permits.add_permits(1000);
        bench.batch.send(Drain).await.unwrap();
        assert_eq!(bench.texts.lock().unwrap().len(), queued);
    }

    #[actix::test]
    async fn a_run_names_the_offset_of_its_first_event_and_known_events_are_left_out() {
        let bench = Bench::new(2, 1000, Duration::from_secs(60), 100);
        bench.push(&["1", "2", "3"]).await.unwrap();
        // As after a start over: the first three come again.
        bench.batch.send(push(100, &["1", "2", "3", "4"])).await.unwrap().unwrap();
        bench.batch.send(Drain).await.unwrap();
        assert_eq!(*bench.texts.lock().unwrap(), [r#"{"messages":[1,2]}"#, r#"{"messages":[3,4]}"#]);
        assert_eq!(*bench.origins.lock().unwrap(), [100, 102]);
    }

    #[actix::test]
    async fn a_panic_is_contained_and_the_open_batch_is_kept() {
        let bench = Bench::new(10, 1000, Duration::from_secs(60), 100);
        bench.push(&["1"]).await.unwrap();
        assert_eq!(bench.batch.send(tests_only::Panic).await.unwrap(), Err(Lost));
        bench.push(&["2"]).await.unwrap();
        bench.batch.send(Drain).await.unwrap();
        assert_eq!(*bench.texts.lock().unwrap(), [r#"{"messages":[1]}"#, r#"{"messages":[2]}"#]);
    }

    mod tests_only {
        use super::*;

        /// Makes the deciding part panic, as a bug would.
        #[derive(Message)]
        #[rtype(result = "Result<(), Lost>")]
        pub(super) struct Panic;

        impl Handler<Panic> for BatchActor {
            type Result = Result<(), Lost>;

            fn handle(&mut self, _: Panic, ctx: &mut Self::Context) -> Self::Result {
                self.decide(ctx, |_, _| panic!("on purpose"))
            }
        }
    }
}
