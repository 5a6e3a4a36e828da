//! `triggercast check`: is a configuration right, and what would it start?

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use super::output::count;
use super::{Failure, output};
use crate::config::{self, Settings};
use crate::model::trigger::{Action, BatchSettings, Trigger};

pub(super) const EXAMPLES: &str = "\
Examples:
  triggercast check                 ./config.yaml
  triggercast check new.yaml        another file
  triggercast check new.yaml && mv new.yaml config.yaml

Faults go to stderr, one a line: FILE:LINE:COLUMN: KEY: what is wrong. Exit codes: 0 right, 2 not.";

/// Prints a summary of a good file; the faults of a bad one are the error.
pub(super) fn run(file: &Path) -> Result<(), Failure> {
    let settings = config::load(file)?;
    let text = format!("{}: good\n{}", file.display(), summary(&settings));
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Ok(output::closed_is_done(written)?)
}

fn summary(settings: &Settings) -> String {
    let mut out = String::new();
    for line in listens(settings).into_iter().chain(declared(settings)).chain(triggers(settings)) {
        // Writing to a String does not fail.
        let _ = writeln!(out, "{line}");
    }
    out
}

fn listens(settings: &Settings) -> Vec<String> {
    let gateway = &settings.gateway;
    let workers = match gateway.workers {
        Some(workers) => count(workers, "worker"),
        None => "one worker for each core".to_owned(),
    };
    let mut lines = vec![
        "listens on".to_owned(),
        format!("  {}  WebSocket clients, at most {}, {workers}", gateway.listen, gateway.max_connections),
        format!("  {}  management, HTTP", settings.management.listen),
        format!("  {}  management, gRPC", settings.management.grpc_listen),
    ];
    lines.push(match &settings.mqtt {
        Some(mqtt) => format!("  {}  MQTT devices, at most {}", mqtt.listen, mqtt.max_connections),
        None => "  no MQTT server".to_owned(),
    });
    lines
}

fn declared(settings: &Settings) -> Vec<String> {
    let resources = &settings.resources;
    let devices = resources.device_registries.iter().map(|registry| registry.devices.len()).sum();
    let mut lines = vec![
        "declares".to_owned(),
        format!(
            "  {} with {}, {}, {}, {}",
            count(resources.device_registries.len(), "device registry"),
            count(devices, "device"),
            count(resources.brokers.len(), "broker"),
            count(resources.container_registries.len(), "container registry"),
            count(settings.service_accounts.len(), "service account"),
        ),
    ];
    for gateway in &resources.gateways {
        for path in &gateway.paths {
            let host = gateway.domain.clone().map_or_else(
                || format!("{}/{}", settings.gateway.listen, gateway.id),
                |domain| format!("{domain}:{}", settings.gateway.listen.port()),
            );
            lines.push(format!("  ws://{host}{}", path.path));
        }
    }
    lines
}

fn triggers(settings: &Settings) -> Vec<String> {
    let triggers = &settings.resources.triggers;
    let mut lines = vec![count(triggers.len(), "trigger")];
    lines.extend(triggers.iter().map(|trigger: &Trigger| {
        let to = targets(&trigger.actions);
        format!("  {}: {} -> {to}, {}", trigger.name, trigger.source, batch(&trigger.batch))
    }));
    lines
}

fn targets(actions: &[Action]) -> String {
    let target = |action: &Action| match action {
        Action::GatewayWebsocketBroadcast { target, .. } => target.to_string(),
    };
    actions.iter().map(target).collect::<Vec<_>>().join(" and ")
}

fn batch(batch: &BatchSettings) -> String {
    let events = count(batch.max_count, "event");
    format!("at {events}, {} bytes or {}", batch.max_bytes, seconds(batch.cutoff))
}

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}
