//! A source on an external MQTT broker, by the client `rumqttc`.
//!
//! One task polls the client and does nothing slow: messages become events and go to the SourceActor over a
//! bounded queue; acknowledgements go back when the receipts are accepted. The session is persistent, so
//! that the broker keeps what comes while we are away.

mod backoff;
mod client;
mod ledger;
mod spec;

use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

pub use self::spec::MqttSourceSpec;
use super::{Condition, Source};
use crate::model::receipt::Arrivals;

/// Groups of events that may wait for the SourceActor. When they do, nothing more is acknowledged, and the
/// broker stops at its window.
pub const QUEUE: usize = 64;

/// Reads an external broker.
pub struct MqttSource {
    groups: mpsc::Receiver<Arrivals>,
    stop: watch::Sender<bool>,
    condition: watch::Receiver<Condition>,
}

impl MqttSource {
    /// Starts to connect, and goes on trying for as long as the source lives.
    pub fn start(spec: MqttSourceSpec, runtime: &Handle) -> Self {
        let (sender, groups) = mpsc::channel(QUEUE);
        let stop = watch::Sender::new(false);
        let (told, condition) = watch::channel(Condition::Starting);
        let stopped = stop.subscribe();
        runtime.spawn(client::run(spec, sender, stopped, told));
        Self { groups, stop, condition }
    }
}

impl Source for MqttSource {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arrivals>> {
        self.groups.poll_recv(cx)
    }

    fn stop(&mut self) {
        self.stop.send_replace(true);
    }

    fn condition(&self) -> watch::Receiver<Condition> {
        self.condition.clone()
    }
}
