//! What runs, as the management API sees it: [`Running`] answers its questions.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::watch;
use uuid::Uuid;

use super::monitor::Told;
use crate::api::wanted::Wanted;
use crate::api::{Code, Fault, KnownImage, Plant, Publisher, Trouble};
use crate::container_registry::Registries;
use crate::engine::{Troubles, plan};
use crate::gateway::{Connections, Sent};
use crate::journal::Journals;
use crate::jq::{self, CheckError, Outcome, Reason};
use crate::model::connection::{Connection, Ended, Page, Reach, Selection};
use crate::model::payload;
use crate::model::trigger::Steps;
use crate::mqtt::{self, PublishError};
use crate::source::readiness::Readiness;

/// How long an answer of a worker or a registry's index is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long calls that do something with many connections go on: they answer before they are given up.
const SWEEP: Duration = Duration::from_secs(8);

/// How long a call waits until what it has changed is made run.
const SETTLE: Duration = Duration::from_secs(1);

/// Everything that runs.
pub(super) struct Running {
    pub(super) runtime: Handle,
    pub(super) mqtt: Option<Arc<mqtt::Server>>,
    pub(super) registries: Option<Arc<Registries>>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) connections: Connections,
    pub(super) journals: Arc<Journals>,
    pub(super) told: Told,
    pub(super) jq: jq::Pool,
    /// Set when the engine runs.
    pub(super) troubles: OnceLock<Arc<Troubles>>,
    /// The version of the store that has been made run.
    pub(super) applied: watch::Sender<u64>,
    /// What is wanted just now.
    pub(super) wanted: Mutex<Arc<Wanted>>,
}

impl Running {
    /// Says what is wanted from now on.
    pub(super) fn want(&self, wanted: Arc<Wanted>) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
    }

    /// What is wanted just now.
    pub(super) fn wanted(&self) -> Arc<Wanted> {
        Arc::clone(&self.wanted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for something on the runtime of clients. Not called from it.
    fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T, Fault> {
        let late = |_| Fault::new(Code::Unavailable, "The server did not answer in time");
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await }).map_err(late)
    }
}

fn no_workers(error: &jq::Unavailable) -> Fault {
    Fault::new(Code::Unavailable, format!("jq cannot be run just now: {error}"))
}

impl Plant for Running {
    fn settle(&self, version: u64) {
        let mut applied = self.applied.subscribe();
        let wait = async { applied.wait_for(|applied| *applied >= version).await.map(drop) };
        // It goes on without being waited for.
        let _ = self.runtime.block_on(async { tokio::time::timeout(SETTLE, wait).await });
    }

    fn troubles(&self, trigger: &str) -> Vec<Trouble> {
        let wanted = self.wanted();
        let mut troubles = Vec::new();
        if let Some((reason, message)) = wanted.troubles.get(trigger) {
            troubles.push(Trouble { reason, message: message.clone(), since: None });
        }
        let Some(trigger) = wanted.trigger(trigger) else {
            return troubles;
        };
        let made = (0..trigger.actions.len()).map(|number| plan::source_name(trigger, number));
        let mut sources: Vec<String> = [trigger.source.to_string()].into_iter().chain(made).collect();
        sources.dedup();
        troubles.extend(sources.iter().flat_map(|source| self.troubles_of_source(source)));
        troubles.extend(self.trouble_of_journal());
        troubles
    }

    fn publish(&self, publisher: Publisher<'_>, topic: &str, data: &[u8]) -> Result<(), Fault> {
        let name = match publisher {
            Publisher::Device(id, _) | Publisher::Registry(id) | Publisher::Broker(id) => id,
        };
        // Before every source has its link, what is published would be acknowledged and go nowhere.
        if !self.readiness.is_serving() {
            return Err(Fault::new(Code::Unavailable, "The server is starting or stopping"));
        }
        let none = || Fault::new(Code::FailedPrecondition, "The embedded MQTT server is off");
        let mqtt = self.mqtt.as_ref().ok_or_else(none)?;
        mqtt.publish(name, topic, data).map_err(|error| match error {
            PublishError::Unknown => Fault::new(Code::FailedPrecondition, format!("'{name}' {error}")),
            PublishError::Topic | PublishError::Denied => Fault::field("topic", format!("{topic:?} {error}")),
            PublishError::Refused => Fault::new(Code::Unavailable, error.to_string()),
        })
    }

    fn connection(&self, id: &str) -> Option<Connection> {
        self.wait(self.connections.get(id)).ok()?
    }

    fn send(&self, connection: &str, data: &[u8], is_text: bool) -> Result<bool, Fault> {
        match self.wait(self.connections.send(connection, data, is_text))? {
            Sent::Queued => Ok(true),
            Sent::Gone => Ok(false),
            Sent::Full => {
                let what = "The client takes messages slower than they are sent to it; try again later";
                Err(Fault::new(Code::ResourceExhausted, what))
            }
        }
    }

    fn disconnect(&self, connection: &str) -> bool {
        self.wait(self.connections.disconnect(connection)).unwrap_or(false)
    }

    fn connections(&self, selection: Selection, start: Uuid, size: usize) -> Result<Option<Page>, Fault> {
        self.wait(self.connections.list(selection, start, size))
    }

    fn broadcast(&self, selection: Selection, data: &[u8], is_text: bool) -> Result<Option<Reach>, Fault> {
        self.wait(self.connections.broadcast(selection, data, is_text, SWEEP))
    }

    fn disconnect_all(&self, selection: Selection) -> Result<Option<Ended>, Fault> {
        self.wait(self.connections.disconnect_all(selection, SWEEP))
    }

    fn images(&self, registry: &str) -> Result<Vec<KnownImage>, Fault> {
        let Some(registries) = &self.registries else { return Ok(Vec::new()) };
        let found = self.wait(registries.images(registry))?;
        let failed = |error| Fault::new(Code::Unavailable, format!("The index cannot be read: {error}"));
        let image = |(repository, digest, tags)| KnownImage { repository, digest, tags };
        Ok(found.map_err(failed)?.into_iter().map(image).collect())
    }

    fn check_jq(&self, program: &str) -> Result<(), Fault> {
        self.wait(self.jq.check(program))?.map_err(|error| match error {
            CheckError::Compile(error) => Fault::new(Code::InvalidArgument, error.to_string()),
            CheckError::TooLarge => {
                Fault::new(Code::InvalidArgument, "the program is too large or too deep to be compiled")
            }
            CheckError::Unavailable(error) => no_workers(&error),
        })
    }

    fn try_event(&self, steps: &Steps, event: &[u8]) -> Result<Result<Bytes, String>, Fault> {
        let event = payload::rewrite(event, steps.payload).unwrap_or_else(|| Bytes::copy_from_slice(event));
        let programs = jq::Steps { filter: steps.filter.clone(), transformer: steps.transformer.clone() };
        let outcomes = self.wait(self.jq.run(&programs, std::slice::from_ref(&event)))?;
        let outcome = outcomes.map_err(|error| no_workers(&error))?.into_iter().next();
        Ok(match outcome {
            Some(Outcome::Unchanged) => Ok(event),
            Some(Outcome::Changed(changed)) => Ok(changed),
            Some(Outcome::Dropped(reason)) => Err(match reason {
                Reason::False => "the filter does not let it through".to_owned(),
                Reason::Error(error) => format!("a program fails: {error}"),
                Reason::OverBudget => "a program takes too much time or memory".to_owned(),
                Reason::OutputTooLarge => "the transformed event is too large".to_owned(),
            }),
            None => Err("jq gave no answer".to_owned()),
        })
    }
}
