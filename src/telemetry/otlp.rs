//! Tells a collector of followed events, as spans, by OTLP over gRPC. Fed by [`super::trace`].
//!
//! The id of an event is that of its trace. What comes in makes the root, and every later stage a child of it that
//! begins where the event stood before. Spans wait in a bounded queue: when it is full, or the collector does not
//! answer, they are dropped and counted, and nothing waits for them.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::sync::{mpsc, oneshot};

use super::{METRICS, count_by};
use crate::model::event::EventId;

/// Spans that may wait.
const QUEUE: usize = 8192;
/// Most spans of one call.
const CALL: usize = 512;
/// How long a stop waits for the collector.
const PATIENCE: Duration = Duration::from_secs(2);

static QUEUED: OnceLock<mpsc::Sender<Told>> = OnceLock::new();

/// What the task is told.
enum Told {
    Span(Box<SpanData>),
    /// Everything before this is to be sent, then this.
    Flush(oneshot::Sender<()>),
}

/// A stage that an event has passed.
pub(super) struct Stage {
    /// `received`, `journaled`, `dropped`, `batched`, `broadcast` or `written`.
    pub(super) name: &'static str,
    pub(super) attributes: Vec<KeyValue>,
}

/// Why no collector can be told.
#[derive(Debug, thiserror::Error)]
#[error("log.trace.otlp: {0}")]
pub struct ExportError(#[from] opentelemetry_otlp::ExporterBuildError);

/// Tells this collector of followed events from now on, as the instance of this name. A second call does nothing.
pub fn start_export(
    collector: &str,
    node: &str,
    runtime: &tokio::runtime::Handle,
) -> Result<(), ExportError> {
    // The client of gRPC starts a task when it is made.
    let _inside = runtime.enter();
    let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(collector).build()?;
    let attributes = [
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", node.to_owned()),
    ];
    let resource = Resource::builder().with_attributes(attributes).with_service_name("triggercast").build();
    exporter.set_resource(&resource);
    let (sender, queue) = mpsc::channel(QUEUE);
    if QUEUED.set(sender).is_ok() {
        runtime.spawn(send(exporter, collector.to_owned(), queue));
    }
    Ok(())
}

/// Waits until the collector has what is queued, for some seconds at most.
pub async fn finish_export() {
    let Some(queue) = QUEUED.get() else { return };
    let flushed = async {
        let (done, is_done) = oneshot::channel();
        if queue.send(Told::Flush(done)).await.is_ok() {
            let _ = is_done.await;
        }
    };
    if tokio::time::timeout(PATIENCE, flushed).await.is_err() {
        tracing::warn!("the last traces were not taken in time");
    }
}

/// An event has passed a stage, which took from one time to another.
pub(super) fn tell(event: EventId, since: SystemTime, until: SystemTime, stage: impl FnOnce() -> Stage) {
    let Some(queue) = QUEUED.get() else { return };
    let Ok(place) = queue.try_reserve() else {
        return count_by(&METRICS.trace_spans, "dropped", 1);
    };
    place.send(Told::Span(Box::new(span(event, since, until, stage()))));
}

/// Sends what comes until everyone who tells is gone.
async fn send(exporter: SpanExporter, collector: String, mut queue: mpsc::Receiver<Told>) {
    let mut is_down = false;
    let mut told = Vec::new();
    while queue.recv_many(&mut told, CALL).await > 0 {
        let (mut spans, mut flushed) = (Vec::new(), Vec::new());
        for told in told.drain(..) {
            match told {
                Told::Span(span) => spans.push(*span),
                Told::Flush(done) => flushed.push(done),
            }
        }
        if !spans.is_empty() {
            let many = spans.len();
            match exporter.export(spans).await {
                Ok(()) => {
                    count_by(&METRICS.trace_spans, "exported", many);
                    if std::mem::take(&mut is_down) {
                        tracing::info!(collector, "traces are taken again");
                    }
                }
                Err(error) => {
                    count_by(&METRICS.trace_spans, "failed", many);
                    if !std::mem::replace(&mut is_down, true) {
                        tracing::warn!(collector, %error, "traces are not taken; they are dropped until they are");
                    }
                }
            }
        }
        for done in flushed {
            let _ = done.send(());
        }
    }
}

fn span(event: EventId, since: SystemTime, until: SystemTime, stage: Stage) -> SpanData {
    let trace = event.into_bytes();
    // The half of the id that is random.
    let [.., a, b, c, d, e, f, g, h] = trace;
    let root = SpanId::from_bytes([a, b, c, d, e, f, g, h]);
    let is_root = stage.name == "received";
    let (own, parent) = match is_root {
        true => (root, SpanId::INVALID),
        false => (SpanId::from_bytes(rand::random()), root),
    };
    let trace = TraceId::from_bytes(trace);
    SpanData {
        span_context: SpanContext::new(trace, own, TraceFlags::SAMPLED, false, TraceState::NONE),
        parent_span_id: parent,
        parent_span_is_remote: false,
        span_kind: match stage.name {
            "received" => SpanKind::Consumer,
            "written" => SpanKind::Producer,
            _ => SpanKind::Internal,
        },
        name: stage.name.into(),
        start_time: since,
        end_time: until,
        attributes: stage.attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("triggercast").build(),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_stages_of_an_event_are_one_trace_under_what_came_in() {
        let event = Uuid::now_v7();
        let of = |name| {
            span(event, SystemTime::UNIX_EPOCH, SystemTime::now(), Stage { name, attributes: Vec::new() })
        };
        let (root, first, second) = (of("received"), of("batched"), of("batched"));
        assert_eq!(root.parent_span_id, SpanId::INVALID);
        assert_eq!(root.span_context.trace_id().to_string(), event.simple().to_string());
        for child in [&first, &second] {
            assert_eq!(child.span_context.trace_id(), root.span_context.trace_id());
            assert_eq!(child.parent_span_id, root.span_context.span_id());
        }
        assert_ne!(first.span_context.span_id(), second.span_context.span_id());
    }
}
