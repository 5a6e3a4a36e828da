//! What the program tells about itself: log lines to stderr, counters in Prometheus' text form, and what each action and
//! path does just now.
//!
//! Everyone counts here; `management` shows the counters on `/metrics`, and calls tell what is in the [`Roster`]s. No line is
//! logged per event.

mod action;
mod book;
mod log;
mod metrics;
mod otlp;
mod path;
mod process;
mod reasons;
mod roster;
pub mod samples;
mod shown;
mod spread;
pub mod trace;
mod words;

use std::sync::LazyLock;

pub use self::action::{ActionKey, ActionMeter};
pub use self::book::Listed;
pub use self::log::{LogFormat, start_logging};
pub use self::metrics::{METRICS, Metrics, count, count_by};
pub use self::otlp::{ExportError, finish_export, start_export};
pub use self::path::PathMeter;
#[cfg(test)]
pub(crate) use self::reasons::words_in;
pub use self::reasons::{Counts, Label, Reasons, Word};
pub use self::roster::Roster;
pub use self::spread::Spread;
use crate::model::gateway::PathKey;

/// The actions of all triggers.
pub static ACTIONS: LazyLock<Roster<ActionKey, ActionMeter>> = LazyLock::new(Roster::default);

/// The paths of all gateways.
pub static PATHS: LazyLock<Roster<PathKey, PathMeter>> = LazyLock::new(Roster::default);

/// Runs `work` and keeps a panic in it from going further: it is logged and counted, and `None` returned.
/// The caller mends its own state then; the actor and everything queued for it live on.
pub fn contain<R>(actor: &'static str, work: impl FnOnce() -> R) -> Option<R> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .inspect_err(|panic| {
            METRICS.count_panic(actor);
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            tracing::error!(actor, panic = text, "a panic was contained; please report it");
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_show_in_the_text() {
        let before = METRICS.actor_panics.get(["Api"]);
        assert_eq!(contain("Api", || -> () { panic!("on purpose") }), None);
        assert_eq!(contain("Api", || 7), Some(7));
        assert!(METRICS.actor_panics.get(["Api"]) > before);
        let text = METRICS.text();
        assert!(text.contains("triggercast_actor_panics_total{actor=\"Api\"} "), "{text}");
        assert!(text.contains("triggercast_resumes_total{reason=\"gap\"} "), "{text}");
    }
}
