//! Reads a source as a SourceActor does, with a limit on every wait.

use std::collections::HashSet;
use std::future::poll_fn;
use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;
use tokio::time::timeout;
use triggercast::model::event::Event;
use triggercast::model::receipt::Arrivals;
use triggercast::source::{Condition, Ending, Source};

/// The longest that anything may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The reader.
pub(crate) struct Reader(Box<dyn Source>);

impl Reader {
    /// Reads a source that may need time to come up.
    pub(crate) fn new(source: Box<dyn Source>) -> Self {
        Self(source)
    }

    /// Reads a source that takes events by now.
    pub(crate) async fn running(source: Box<dyn Source>) -> Self {
        let reader = Self(source);
        reader.until("the source runs", |condition| *condition == Condition::Running).await;
        reader
    }

    /// Waits for a condition, and gives it.
    pub(crate) async fn until(&self, what: &str, wanted: impl FnMut(&Condition) -> bool) -> Condition {
        let mut condition = self.0.condition();
        let waited = timeout(LIMIT, condition.wait_for(wanted)).await;

        match waited {
            Ok(Ok(found)) => found.clone(),
            other => panic!("waited for: {what}; {other:?}"),
        }
    }

    /// The next group; `None` at the end.
    pub(crate) async fn group(&mut self) -> Option<Arrivals> {
        let waited = timeout(LIMIT, poll_fn(|cx| self.0.poll_next(cx))).await;
        let condition = || self.0.condition().borrow().clone();
        waited.unwrap_or_else(|_| panic!("no group of events in time; the source is {:?}", condition()))
    }

    /// The next group, its receipt accepted; `None` at the end.
    pub(crate) async fn accepted(&mut self) -> Option<Vec<Event>> {
        let Arrivals { events, receipt, .. } = self.group().await?;
        receipt.accept();
        Some(events)
    }

    /// The details of the next `count` events, accepted.
    pub(crate) async fn details(&mut self, count: usize) -> Vec<Value> {
        let mut found = Vec::new();
        while found.len() < count {
            found.extend(self.accepted().await.expect("more events").iter().map(details));
        }
        assert_eq!(found.len(), count, "{found:?}");
        found
    }

    /// Device and topic of the next `count` events, with a space between.
    pub(crate) async fn topics(&mut self, count: usize) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let line =
            |details: &Value| format!("{} {}", text(&details["device_id"]), text(&details["mqtt_topic"]));
        self.details(count).await.iter().map(line).collect()
    }

    /// Payloads that are numbers, each when it came first, until `last` has come.
    pub(crate) async fn numbers_to(&mut self, last: u32) -> Vec<u32> {
        let (mut seen, mut numbers) = (HashSet::new(), Vec::new());
        while !seen.contains(&last) {
            let events = self.accepted().await.expect("more events");
            numbers.extend(events.iter().map(number).filter(|number| seen.insert(*number)));
        }
        numbers
    }

    /// Stops the source; it may still have events.
    pub(crate) fn stop(&mut self) {
        self.0.end(Ending::Stop);
    }

    /// Ends the source for good; it may still have events.
    pub(crate) fn forget(&mut self) {
        self.0.end(Ending::Forget);
    }

    /// Takes what is left, accepted, until the source has ended.
    pub(crate) async fn rest(&mut self) -> Vec<Event> {
        let mut rest = Vec::new();
        while let Some(events) = self.accepted().await {
            rest.extend(events);
        }
        rest
    }
}

/// An event's details.
pub(crate) fn details(event: &Event) -> Value {
    let json: Value = serde_json::from_slice(&event.json).unwrap();
    json["details"].clone()
}

/// An event's payload.
pub(crate) fn payload(event: &Event) -> Vec<u8> {
    let text = details(event)["payload"].as_str().unwrap().to_owned();
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

/// An event's payload as a number.
pub(crate) fn number(event: &Event) -> u32 {
    String::from_utf8(payload(event)).unwrap().parse().unwrap()
}
