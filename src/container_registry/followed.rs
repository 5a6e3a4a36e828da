//! [`Followed`]: one registry, as its notifications, its readings and its links share it.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::client::{AskError, Client};
use super::repository::Doubt;
use super::store::Store;
use super::store::index::Registry;
use super::touched::Touched;
use super::{READING, READING_UNPROVED};
use crate::model::id::Id;
use crate::model::trigger::TriggerSource;

/// Senders whose restarts are noticed.
const MOST_INSTANCES: usize = 64;

/// Something to ask of the registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) repository: String,
    pub(super) doubt: Doubt,
}

/// What a reconciliation found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Reconciled {
    /// Repositories that were read.
    pub repositories: usize,
    /// Repositories that could not be read, or not whole; the next reconciliation reads them again.
    pub failed: usize,
    /// Tags in them.
    pub tags: usize,
    /// Events that were made up.
    pub events: usize,
    /// How long it took.
    pub seconds: f64,
}

/// Somebody who wants a reading, and perhaps waits for its end.
pub(super) type Request = Option<oneshot::Sender<Result<Reconciled, AskError>>>;

/// A registry that is followed.
pub(super) struct Followed {
    pub(super) registry: Registry,
    pub(super) store: Arc<Store>,
    pub(super) client: Option<Client>,
    /// What notifications are about while repositories are read.
    pub(super) touched: Arc<Touched>,
    /// When the last notification came; at first the start, since senders may have held some back.
    pub(super) notified: watch::Sender<Instant>,
    /// Places for bodies of senders who have shown the token, and for those who sign.
    pub(super) reading: Semaphore,
    pub(super) reading_unproved: Semaphore,
    /// Whether the last notification was refused; it is logged once.
    pub(super) refuses: AtomicBool,
    sources: Mutex<HashMap<TriggerSource, Taker>>,
    /// Senders, with the number that each start of them gives itself.
    instances: Mutex<HashMap<String, String>>,
    questions: mpsc::Sender<Question>,
    requests: mpsc::Sender<Request>,
}

/// A source of triggers.
#[derive(Debug, Default)]
struct Taker {
    /// Up to where it has taken the events.
    cursor: i64,
    /// Whether a trigger wants its events, now or later.
    is_wanted: bool,
    /// The task of its link, with what ends it.
    link: Option<(watch::Sender<bool>, JoinHandle<()>)>,
}

impl Followed {
    pub(super) fn new(
        registry: Registry,
        store: Arc<Store>,
        client: Option<Client>,
        cursors: HashMap<TriggerSource, i64>,
        questions: mpsc::Sender<Question>,
        requests: mpsc::Sender<Request>,
    ) -> Self {
        let taker = |(source, cursor)| (source, Taker { cursor, link: None, is_wanted: true });
        Self {
            registry,
            store,
            client,
            touched: Arc::default(),
            notified: watch::Sender::new(Instant::now()),
            reading: Semaphore::new(READING),
            reading_unproved: Semaphore::new(READING_UNPROVED),
            refuses: AtomicBool::new(false),
            sources: Mutex::new(cursors.into_iter().map(taker).collect()),
            instances: Mutex::default(),
            questions,
            requests,
        }
    }

    pub(super) fn id(&self) -> &Id {
        &self.registry.declared.id
    }

    fn with<R>(&self, source: &TriggerSource, work: impl FnOnce(&mut Taker) -> R) -> R {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        work(sources.entry(source.clone()).or_default())
    }

    /// Whether its sources are not these.
    pub(super) fn lacks(&self, wanted: &[TriggerSource]) -> bool {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let known = sources.iter().filter(|(_, taker)| taker.is_wanted);
        let is_missing = |source| !sources.get(source).is_some_and(|taker| taker.is_wanted);
        known.count() != wanted.len() || wanted.iter().any(is_missing)
    }

    /// Its sources are these from now on; where they go on is given for those that are new.
    pub(super) fn set_sources(&self, wanted: impl Iterator<Item = (TriggerSource, i64)>) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let mut old = std::mem::take(&mut *sources);
        for (source, cursor) in wanted {
            let taker = old.remove(&source).unwrap_or(Taker { cursor, link: None, is_wanted: true });
            sources.insert(source, Taker { is_wanted: true, ..taker });
        }
        // Those whose links have still to end are kept until they have.
        let is_live = |taker: &Taker| taker.link.as_ref().is_some_and(|(_, task)| !task.is_finished());
        let live = old.into_iter().filter(|(_, taker)| is_live(taker));
        sources.extend(live.map(|(source, taker)| (source, Taker { is_wanted: false, ..taker })));
    }

    /// Where a source goes on.
    pub(super) fn cursor(&self, source: &TriggerSource) -> i64 {
        self.with(source, |taker| taker.cursor)
    }

    /// A source has taken the events up to this number. What all have taken is kept no more.
    pub(super) fn taken(&self, source: &TriggerSource, number: i64) {
        let is_wanted = self.with(source, |taker| {
            taker.cursor = number.max(taker.cursor);
            taker.is_wanted
        });
        if is_wanted {
            self.store.taken(self.registry.number, source.to_string(), number);
        }
    }

    /// Ends the link that a source had. True: it has ended, and what it handed over is accepted or refused.
    pub(super) fn end_link(&self, source: &TriggerSource) -> bool {
        self.with(source, |taker| {
            let Some((stop, task)) = &taker.link else { return true };
            stop.send_replace(true);
            task.is_finished()
        })
    }

    /// A source has a new link.
    pub(super) fn begin_link(&self, source: &TriggerSource, stop: watch::Sender<bool>, task: JoinHandle<()>) {
        self.with(source, |taker| taker.link = Some((stop, task)));
    }

    /// Asks the registry about something, soon.
    pub(super) fn ask(&self, question: Question) {
        if self.client.is_some() && self.questions.try_send(question).is_err() {
            self.ask_for_all();
        }
    }

    /// Asks the registry for everything, unless that is about to be done.
    pub(super) fn ask_for_all(&self) {
        // Full: somebody has asked already.
        let _ = self.requests.try_send(None);
    }

    /// Asks a registry for all that it holds now, and tells what was missed.
    ///
    /// # Errors
    /// The registry has no address or does not answer.
    pub(super) async fn reconcile(&self) -> Result<Reconciled, AskError> {
        let (reply, done) = oneshot::channel();
        let ended = || AskError::Unreachable("the server stops".to_owned());
        self.requests.send(Some(reply)).await.map_err(|_| ended())?;
        done.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Notes which start of a sender this is from. True: it has started again, and lost what it had not sent.
    pub(super) fn has_restarted(&self, instance: Option<(String, String)>) -> bool {
        let Some((address, number)) = instance else { return false };
        let mut instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        if instances.len() >= MOST_INSTANCES && !instances.contains_key(&address) {
            return false;
        }
        instances.insert(address, number.clone()).is_some_and(|known| known != number)
    }
}
