//! Log lines, to stderr.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use super::trace::{self, Wanted};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to stderr. `RUST_LOG` (directives of tracing-subscriber) adds to the default, `info`. Events are
/// followed if some are wanted, or `RUST_LOG` asks for the lines of traces; [`start_export`](super::start_export) tells a
/// collector of them. A second call does nothing.
pub fn start_logging(format: LogFormat, traced: Option<Wanted>) {
    let default = match traced {
        Some(Wanted { otlp: None, .. }) => {
            format!("info,actix_server=warn,rumqttc=error,{}=trace", trace::TARGET)
        }
        _ => "info,actix_server=warn,rumqttc=error".to_owned(),
    };
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = EnvFilter::try_new(format!("{default},{wanted}"));
    let fault = filter.as_ref().err().map(ToString::to_string);
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(default));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let _ = match format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    if let Some(fault) = fault {
        tracing::warn!(RUST_LOG = wanted, fault, "RUST_LOG is not understood and left out");
    }
    let is_seen = LevelFilter::current() >= LevelFilter::TRACE
        && tracing::enabled!(target: trace::TARGET, tracing::Level::TRACE);
    if is_seen || traced.is_some() {
        trace::start(traced.unwrap_or_default());
    }
}
