//! What passes through the server, as it runs: [`Watch`] is asked by the calls of the service of the same name.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{Fault, Trouble};
use crate::model::activity::{ActionActivity, DeviceActivity, PathActivity, Sample, Totals};
use crate::model::gateway::PathKey;
use crate::model::id::Id;
use crate::model::trigger::BatchSettings;

/// Tells what passes through. Every function may block for a moment.
pub trait Watch: Send + Sync {
    /// The server as a whole, with the samples after this number.
    fn overview(&self, after: u64) -> Overview;

    /// What passes through the paths of a gateway, by path.
    fn paths(&self, gateway: &str) -> Vec<PathActivity>;

    /// What each action of a trigger does, in their order; none if it cannot run.
    fn actions(&self, trigger: &str) -> Vec<SeenAction>;

    /// The last events of a trigger, the newest first, so many at most.
    fn last_events(&self, trigger: &str, most: usize) -> Result<Vec<Bytes>, Fault>;

    /// What came from these devices of a registry; nothing of those that have not been there.
    fn heard(&self, registry: &str, devices: &[Id]) -> Vec<DeviceActivity>;

    /// Why events of a container registry do not come just now, and those that came last, the newest first.
    fn container_registry(&self, registry: &str) -> (Vec<Trouble>, Vec<Bytes>);
}

/// The server as a whole.
#[derive(Debug, Clone)]
pub struct Overview {
    /// When it started.
    pub started_at: SystemTime,
    /// Since then.
    pub totals: Totals,
    /// The oldest first.
    pub samples: Vec<Sample>,
    /// Those that do not work first, then by name.
    pub sources: Vec<SeenSource>,
    /// By gateway and path.
    pub paths: Vec<PathActivity>,
    /// What is kept.
    pub journal: SeenJournal,
    /// What does not work just now, by what it is.
    pub problems: Vec<(String, Trouble)>,
    /// Triggers that fire, or would if nothing kept them from it.
    pub active_triggers: usize,
    /// Triggers that are paused.
    pub paused_triggers: usize,
    /// Where WebSocket clients connect.
    pub gateway_address: String,
    /// Whether they need TLS.
    pub gateway_tls: bool,
}

/// A source of events.
#[derive(Debug, Clone)]
pub struct SeenSource {
    /// What people know it by.
    pub name: String,
    /// Triggers that it feeds, some of them if there are many.
    pub triggers: Vec<Id>,
    /// Why it does not work.
    pub troubles: Vec<Trouble>,
}

/// The journal.
#[derive(Debug, Clone, Default)]
pub struct SeenJournal {
    /// Events that were written since the start.
    pub events: u64,
    /// Commits since the start.
    pub commits: u64,
    /// Their mean time.
    pub commit_mean: Duration,
    /// Bytes on disk.
    pub size: u64,
    /// Why it does not work.
    pub troubles: Vec<Trouble>,
}

/// An action of a trigger.
#[derive(Debug, Clone)]
pub struct SeenAction {
    /// Where its batches go.
    pub target: PathKey,
    /// When they close.
    pub settings: BatchSettings,
    /// What has become of them.
    pub activity: ActionActivity,
}
