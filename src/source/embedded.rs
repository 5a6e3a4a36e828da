//! A source inside the process: the embedded MQTT server's link.

use std::task::{Context, Poll};

use tokio::sync::watch;

use super::{Condition, Ending, Source};
use crate::model::receipt::Arrivals;
use crate::mqtt::Link;

/// Reads what the embedded server's clients publish.
pub struct EmbeddedSource {
    link: Link,
    condition: watch::Sender<Condition>,
}

impl EmbeddedSource {
    /// A source over a link of the server.
    pub fn new(link: Link) -> Self {
        Self { link, condition: watch::Sender::new(Condition::Running) }
    }
}

impl Source for EmbeddedSource {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arrivals>> {
        self.link.poll_next(cx)
    }

    fn end(&mut self, ending: Ending) {
        match ending {
            Ending::HandOver => self.link.refuse(),
            Ending::Stop | Ending::Forget => self.link.close(),
        }
    }

    fn condition(&self) -> watch::Receiver<Condition> {
        self.condition.subscribe()
    }
}
