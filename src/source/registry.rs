//! A source inside the process: the events of a container registry.

use std::task::{Context, Poll};

use tokio::sync::watch;

use super::{Condition, Ending, Source};
use crate::container_registry::Link;
use crate::model::receipt::Arrivals;

/// Reads what is told of a container registry.
pub struct RegistrySource {
    link: Link,
    condition: watch::Receiver<Condition>,
}

impl RegistrySource {
    /// A source over a link; `condition` is that of the registries.
    pub fn new(link: Link, condition: watch::Receiver<Condition>) -> Self {
        Self { link, condition }
    }
}

impl Source for RegistrySource {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arrivals>> {
        self.link.poll_next(cx)
    }

    fn end(&mut self, _: Ending) {
        self.link.close();
    }

    fn condition(&self) -> watch::Receiver<Condition> {
        self.condition.clone()
    }
}
