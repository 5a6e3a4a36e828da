//! A source of events that are made of others: what a trigger's action filters and transforms before it batches.
//!
//! It follows the source that it makes them of in the journal, at its own pace, so that a slow program holds nobody
//! else up. What it has made is written together with how far it has come, so that a restart neither loses nor repeats.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};

use super::{Condition, Ending, Source};
use crate::journal::ReadError;
use crate::journal::disk::{ActionId, Disk, SourceId};
use crate::jq::{self, Outcome, Reason};
use crate::model::event::{Event, EventId};
use crate::model::id::Id;
use crate::model::payload;
use crate::model::receipt::{Arrivals, Gate};
use crate::model::trigger::Steps;
use crate::telemetry::{self, ActionMeter, METRICS, trace};

/// Groups that may wait for the actor. When it is full nothing more is made.
pub const QUEUE: usize = 4;
/// Events that are made at a time.
const GROUP: usize = 256;
/// How long it waits after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// Least time between two log lines about events that a program fails for.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// What is made of what.
pub struct Work {
    /// Where the events are.
    pub disk: Arc<Disk>,
    /// For log lines.
    pub trigger: Id,
    /// Told what jq does not let through.
    pub meter: Arc<ActionMeter>,
    /// The source that they are made of.
    pub source: SourceId,
    /// The action that stands for how far it has come in that source.
    pub action: ActionId,
    /// The offset of the first event to take.
    pub from: u64,
    /// What is done to every event.
    pub steps: Steps,
    /// Runs programs.
    pub jq: Option<jq::Pool>,
}

/// Makes events of others.
pub struct MadeSource {
    groups: mpsc::Receiver<Arrivals>,
    condition: watch::Receiver<Condition>,
    stop: watch::Sender<bool>,
}

impl MadeSource {
    /// A source that makes nothing, and never ends by itself: the trigger is held.
    pub fn idle(runtime: &Handle) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let (sender, groups) = mpsc::channel(1);
        let (told, condition) = watch::channel(Condition::Running);
        // The queue ends with its sender, when the source is stopped or dropped.
        runtime.spawn(async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
            drop((sender, told));
        });
        Self { groups, condition, stop }
    }

    /// Begins to make events, on `runtime`.
    pub fn start(work: Work, runtime: &Handle) -> Result<Self, ReadError> {
        let durable = work.disk.durable(work.source)?;
        let (stop, stopped) = watch::channel(false);
        let (sender, groups) = mpsc::channel(QUEUE);
        let (told, condition) = watch::channel(Condition::Running);
        let maker = Maker { next: work.from, work, logged: None, told };
        runtime.spawn(maker.run(durable, sender, stopped));
        Ok(Self { groups, condition, stop })
    }
}

impl Source for MadeSource {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arrivals>> {
        self.groups.poll_recv(cx)
    }

    fn end(&mut self, _: Ending) {
        self.stop.send_replace(true);
    }

    fn condition(&self) -> watch::Receiver<Condition> {
        self.condition.clone()
    }
}

struct Maker {
    work: Work,
    /// The offset of the next event to take.
    next: u64,
    /// When a failing program was last logged.
    logged: Option<Instant>,
    told: watch::Sender<Condition>,
}

impl Maker {
    /// Until it is stopped, or nobody takes what it makes.
    async fn run(
        mut self,
        mut durable: watch::Receiver<u64>,
        groups: mpsc::Sender<Arrivals>,
        mut stopped: watch::Receiver<bool>,
    ) {
        loop {
            let next = self.next;
            let made = async {
                let end = match durable.wait_for(|end| *end > next).await {
                    Ok(end) => *end,
                    // The journal has ended.
                    Err(_) => return None,
                };
                let room = groups.reserve().await.ok()?;
                Some((self.make(end).await, room))
            };
            let (made, room) = tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => return,
                made = made => match made {
                    Some(made) => made,
                    None => return,
                },
            };
            match made {
                Ok((events, end)) => {
                    self.told.send_if_modified(|known| {
                        std::mem::replace(known, Condition::Running) != Condition::Running
                    });
                    self.next = end;
                    if events.is_empty() {
                        self.work.disk.took(self.work.action, end);
                        continue;
                    }
                    // Nobody waits for its acknowledgement: what is not kept is made again after a restart.
                    let (_, receipts) = Gate::new(1, Arc::new(Notify::new()));
                    let Some(receipt) = receipts.into_iter().next() else { return };
                    let made_of = Some((self.work.action, end));
                    room.send(Arrivals { events, repeats: None, made_of, receipt });
                }
                Err(error) => {
                    drop(room);
                    self.fail(error);
                    tokio::select! {
                        _ = stopped.wait_for(|stopped| *stopped) => return,
                        () = tokio::time::sleep(RETRY) => {}
                    }
                }
            }
        }
    }

    fn fail(&self, error: String) {
        self.told.send_if_modified(|known| match known {
            Condition::Failing { error: known, .. } => {
                *known = error;
                false
            }
            _ => {
                tracing::warn!(trigger = %self.work.trigger, error, "events cannot be filtered or transformed; it is tried again");
                *known = Condition::Failing { error, since: SystemTime::now() };
                true
            }
        });
    }

    /// Makes what can be made of the next events before `end`. Gives them, and the offset after those that were taken.
    async fn make(&mut self, end: u64) -> Result<(Vec<Event>, u64), String> {
        let (disk, source, next) = (Arc::clone(&self.work.disk), self.work.source, self.next);
        let most = usize::try_from(end - next).unwrap_or(usize::MAX).min(GROUP);
        let read = tokio::task::spawn_blocking(move || disk.backlog(source, next)).await;
        let mut events = read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        events.truncate(most);
        let end = next + events.len() as u64;
        for event in &mut events {
            if let Some(json) = payload::rewrite(&event.json, self.work.steps.payload) {
                event.json = json;
            }
        }
        let steps = jq::Steps {
            filter: self.work.steps.filter.clone(),
            transformer: self.work.steps.transformer.clone(),
        };
        if steps == jq::Steps::default() {
            return Ok((events, end));
        }
        let jq = self.work.jq.as_ref().ok_or("jq is not there")?;
        let jsons: Vec<Bytes> = events.iter().map(|event| event.json.clone()).collect();
        let outcomes = jq.run(&steps, &jsons).await.map_err(|error| error.to_string())?;
        let mut made = Vec::with_capacity(events.len());
        for (event, outcome) in events.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Unchanged => made.push(event),
                Outcome::Changed(json) => made.push(Event { id: event.id, json }),
                Outcome::Dropped(reason) => self.dropped(event.id, &reason),
            }
        }
        Ok((made, end))
    }

    fn dropped(&mut self, event: EventId, reason: &Reason) {
        let word = match reason {
            Reason::False => "filtered",
            Reason::Error(_) => "error",
            Reason::OverBudget => "over_budget",
            Reason::OutputTooLarge => "too_large",
        };
        telemetry::count(&METRICS.jq_dropped, word);
        self.work.meter.drop_event(word);
        if trace::is_on() {
            trace::dropped(&self.work.trigger, event, word);
        }
        if *reason == Reason::False || self.logged.is_some_and(|last| last.elapsed() < LOG_PAUSE) {
            return;
        }
        self.logged = Some(Instant::now());
        // Not the error itself: it may quote the event.
        tracing::warn!(trigger = %self.work.trigger, reason = word, "a jq program fails for an event, which is not sent");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use crate::journal::disk::Arrived;
    use crate::model::event_id;
    use crate::model::gateway::{Durability, PathKey, Retention};
    use crate::model::trigger::PayloadEncoding;

    use super::*;

    fn event(payload: &str) -> Event {
        let id = event_id::next(SystemTime::now());
        let json = format!(
            r#"{{"event_metadata":{{"event_id":"{id}","event_type":"t","created_at":""}},"details":{{"payload":"{payload}"}}}}"#
        );
        // The payload is not the only field, as in every event that came by MQTT.
        let json = json.replace(r#""details":{"#, r#""details":{"mqtt_topic":"t","#);
        Event { id, json: Bytes::from(json) }
    }

    async fn next(source: &mut MadeSource) -> Arrivals {
        let next = std::future::poll_fn(|cx| source.poll_next(cx));
        tokio::time::timeout(Duration::from_secs(10), next).await.unwrap().unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_slow_reader_of_made_events_holds_their_maker_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = PathKey { gateway_id: "main".into(), path: "/ws".into() };
        let paths = HashMap::from([(path.clone(), (Durability::Disk, Retention::default()))]);
        let disk = Arc::new(Disk::open(folder.path(), &paths).unwrap());
        let source = disk.source("s").unwrap();
        let action = disk.action(&"t".into(), 0, source, &path).unwrap();
        let log = |disk: &Disk| {
            let (_, mut receipts) = Gate::new(1, Arc::new(Notify::new()));
            let events: Vec<Event> = (0..GROUP).map(|_| event("aGk=")).collect();
            let receipt = receipts.pop().unwrap();
            disk.log(source, Arrived { events: events.into(), repeats: None, made_of: None, receipt })
                .unwrap();
            disk.flushed(source).unwrap();
        };
        let groups = QUEUE + 3;
        (0..groups).for_each(|_| log(&disk));
        let steps = Steps { payload: PayloadEncoding::Text, ..Steps::default() };
        let work = Work {
            disk: Arc::clone(&disk),
            trigger: "t".into(),
            meter: Arc::default(),
            source,
            action,
            from: 0,
            steps,
            jq: None,
        };
        let mut made = MadeSource::start(work, &Handle::current()).unwrap();
        // Nobody reads: what does not fit waits in the journal. Then all of it comes, in order.
        while made.groups.len() < QUEUE {
            tokio::task::yield_now().await;
        }
        assert_eq!(made.groups.max_capacity(), QUEUE);
        let mut taken = 0;
        while taken < (groups * GROUP) as u64 {
            let Arrivals { events, made_of, .. } = next(&mut made).await;
            taken += events.len() as u64;
            assert_eq!(made_of, Some((action, taken)));
            assert!(events.iter().all(|event| event.json.ends_with(br#""payload":"hi"}}"#)));
        }
        made.end(Ending::Stop);
        let end = std::future::poll_fn(|cx| made.poll_next(cx));
        assert!(tokio::time::timeout(Duration::from_secs(10), end).await.unwrap().is_none());
    }
}
