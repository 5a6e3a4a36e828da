//! Tells the engine what is wanted whenever that changes.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use tokio::sync::watch;

use super::plant::Running;
use crate::api::wanted;
use crate::engine::{Apply, SupervisorActor};
use crate::model::Resources;
use crate::store::Store;

/// How often it is looked whether something has ended by itself, as an account with a last day.
const LOOK: Duration = Duration::from_secs(30);

/// How soon it is tried again when something could not be made run.
const RETRY: Duration = Duration::from_secs(1);

/// What it works with.
pub(super) struct Follower {
    pub(super) of_file: Arc<Resources>,
    pub(super) has_mqtt: bool,
    pub(super) store: Arc<Store>,
    /// Taken before the first look at what is wanted.
    pub(super) version: watch::Receiver<u64>,
    pub(super) running: Arc<Running>,
    pub(super) supervisor: Addr<SupervisorActor>,
}

/// Until the store or the engine has ended.
pub(super) async fn follow(mut follower: Follower) {
    let mut applied = Arc::clone(&follower.running.wanted().resources);
    let mut again = false;
    loop {
        let pause = if again { RETRY } else { LOOK };
        again = false;
        // Changes that come while one is made run are made run together.
        if let Ok(Err(_)) = tokio::time::timeout(pause, follower.version.changed()).await {
            return;
        }
        let version = *follower.version.borrow_and_update();
        let (store, of_file, has_mqtt) =
            (Arc::clone(&follower.store), Arc::clone(&follower.of_file), follower.has_mqtt);
        let look = move || wanted::wanted(&of_file, &store.state(), has_mqtt);
        let Ok(wanted) = actix_rt::task::spawn_blocking(look).await else { continue };
        let wanted = Arc::new(wanted);
        follower.running.want(Arc::clone(&wanted));
        if wanted.resources == applied {
            follower.running.applied.send_replace(version);
            continue;
        }
        if let Some(registries) = &follower.running.registries
            && let Err(error) = registries.apply(&wanted.resources).await
        {
            tracing::error!(%error, "failed to follow the container registries for new triggers; it is tried again");
            again = true;
        }
        match follower.supervisor.send(Apply(Arc::clone(&wanted.resources))).await {
            Ok(true) if !again => {
                applied = Arc::clone(&wanted.resources);
                follower.running.applied.send_replace(version);
            }
            Ok(_) => again = true,
            Err(_) => return,
        }
    }
}
