//! What the world is told about an MQTT source: its condition, and one log line for each change.

use std::time::SystemTime;

use tokio::sync::watch;

use crate::source::Condition;

/// Keeps the condition and says each change once: an outage of an hour is one line, its end another.
#[derive(Debug)]
pub(super) struct Health {
    condition: watch::Sender<Condition>,
    source: String,
    broker: String,
}

impl Health {
    /// Speaks for `source` on `broker`.
    pub(super) fn new(condition: watch::Sender<Condition>, source: String, broker: String) -> Self {
        Self { condition, source, broker }
    }

    /// Events can arrive.
    pub(super) fn running(&self) {
        let Self { source, broker, .. } = self;
        let before = match &*self.condition.borrow() {
            Condition::Running => return,
            before => before.clone(),
        };
        self.condition.send_replace(Condition::Running);
        match before {
            Condition::Failing { since, .. } => {
                let outage_seconds = since.elapsed().unwrap_or_default().as_secs();
                tracing::info!(source, broker, outage_seconds, "the MQTT broker is back");
            }
            _ => tracing::info!(source, broker, "reading from the MQTT broker"),
        }
    }

    /// No event can arrive; the source keeps trying.
    pub(super) fn failed(&self, error: &str) {
        let Self { source, broker, .. } = self;
        let since = match &*self.condition.borrow() {
            Condition::Failing { since, .. } => Some(*since),
            _ => None,
        };
        if since.is_none() {
            tracing::warn!(
                source,
                broker,
                error,
                "no events from the MQTT broker; trying again until it works"
            );
        }
        let since = since.unwrap_or_else(SystemTime::now);
        self.condition.send_replace(Condition::Failing { error: error.to_owned(), since });
    }

    /// It will not get better by itself.
    pub(super) fn hopeless(&self, error: &str) {
        let Self { source, broker, .. } = self;
        tracing::error!(
            source,
            broker,
            error,
            "the connection to the MQTT broker fails again and again in the same way; either another client has \
             the same id, or the broker holds a message that cannot be read"
        );
    }

    /// The broker has lost what it kept for us, with all messages that came in between.
    pub(super) fn forgotten(&self) {
        let Self { source, broker, .. } = self;
        tracing::warn!(source, broker, "the MQTT broker has forgotten the session; messages may be lost");
    }

    /// The broker gives less than was asked for.
    pub(super) fn downgraded(&self, filter: &str) {
        let Self { source, broker, .. } = self;
        tracing::warn!(source, broker, filter, "the MQTT broker grants QoS 0 only; messages may be lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_keeps_its_beginning() {
        let condition = watch::Sender::new(Condition::Starting);
        let health = Health::new(condition.clone(), "s".into(), "b".into());
        health.failed("first");
        let Condition::Failing { since: began, .. } = condition.borrow().clone() else { panic!() };
        health.failed("second");
        assert_eq!(*condition.borrow(), Condition::Failing { error: "second".into(), since: began });
        health.running();
        assert_eq!(*condition.borrow(), Condition::Running);
    }
}
