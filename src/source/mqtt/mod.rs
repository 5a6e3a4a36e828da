//! A source on an external MQTT broker, by the client `rumqttc`. The engine starts it; its reader is a
//! SourceActor.
//!
//! One task (`task`) speaks with the broker and does nothing slow; events go over a bounded queue
//! (`queue`) to the reader, and acknowledgements come back by receipts (`ledger`). The session is
//! persistent and QoS 1, so what the broker has is not lost while this process is away or does not take it;
//! it may come twice. When nobody wants the events any more, the broker is told to keep none.

mod health;
mod intake;
mod ledger;
mod queue;
mod retry;
mod spec;
mod task;

use std::panic::AssertUnwindSafe;
use std::task::{Context, Poll};
use std::time::SystemTime;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::watch;

pub use self::spec::{MqttSourceSpec, Topics};

use self::task::Task;
use super::{Condition, Ending, Source};
use crate::model::receipt::Arrivals;
use crate::telemetry;

/// Groups of events that may wait for the reader, or fewer when they are large: 4 MiB of JSON, but for one
/// event that is larger alone. When it is full nothing more is acknowledged, and the broker stops at its
/// window; see `task`.
pub const QUEUE: usize = 64;

/// Reads what an external broker has for one trigger source. Dropping it ends the connection and refuses
/// what was not taken.
#[derive(Debug)]
pub struct MqttSource {
    queue: queue::Receiver,
    stop: watch::Sender<Option<Ending>>,
    condition: watch::Receiver<Condition>,
}

impl MqttSource {
    /// Starts to connect, and goes on trying for as long as it takes. The client runs on `runtime`.
    pub fn start(spec: MqttSourceSpec, runtime: &Handle) -> Self {
        Self::with_queue(spec, QUEUE, runtime)
    }

    /// As [`Self::start`], with another bound of the queue.
    pub fn with_queue(spec: MqttSourceSpec, capacity: usize, runtime: &Handle) -> Self {
        let (sender, queue) = queue::queue(capacity);
        let (stop, stopped) = watch::channel(None);
        let (condition, seen) = watch::channel(Condition::Starting);
        let task = Task::new(spec, sender.clone(), condition.clone(), stopped);
        runtime.spawn(async move {
            watched(task.run(), &condition).await;
            // Only now may the reader see the end: the condition is told before.
            drop(sender);
        });
        Self { queue, stop, condition: seen }
    }
}

/// Runs the task; a panic in it is logged, counted and told, never lost.
async fn watched(task: impl Future<Output = ()>, condition: &watch::Sender<Condition>) {
    if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
        telemetry::contain("MqttSource", || -> () { std::panic::resume_unwind(panic) });
        let error = "the source's task has panicked".to_owned();
        condition.send_replace(Condition::Failing { error, since: SystemTime::now() });
    }
}

impl Source for MqttSource {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arrivals>> {
        self.queue.poll_next(cx)
    }

    fn end(&mut self, ending: Ending) {
        // What was said first counts.
        self.stop.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert(ending);
            is_first
        });
    }

    fn condition(&self) -> watch::Receiver<Condition> {
        self.condition.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_the_task_is_told() {
        let condition = watch::Sender::new(Condition::Running);
        watched(async { panic!("on purpose") }, &condition).await;
        assert!(
            matches!(&*condition.borrow(), Condition::Failing { error, .. } if error.contains("panicked"))
        );
    }

    #[tokio::test]
    async fn the_end_of_the_task_is_no_failure() {
        let condition = watch::Sender::new(Condition::Running);
        watched(async {}, &condition).await;
        assert_eq!(*condition.borrow(), Condition::Running);
    }
}
