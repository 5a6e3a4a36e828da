//! Triggercast itself.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;

use super::process::{Starter, free_port};
use super::{Contender, Server};
use crate::load::{Form, Protocol, Publish};

/// The password of every device.
pub(crate) const PASSWORD: &str = "Device-bench-1";

/// Where accepted events are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// In the journal, with fsync.
    Disk,
    /// Nowhere.
    Memory,
}

/// Triggercast with one trigger for each path.
#[derive(Debug, Clone)]
pub(crate) struct Ours {
    /// Durability of its paths.
    pub(crate) durability: Durability,
    /// Events of a batch.
    pub(crate) size: usize,
    /// Worker threads.
    pub(crate) workers: usize,
    /// Paths, each with a trigger for a device of its own.
    pub(crate) paths: usize,
    /// Devices of the first path.
    pub(crate) devices: usize,
    /// The program, if not the release build of this checkout.
    pub(crate) program: Option<PathBuf>,
}

impl Default for Ours {
    fn default() -> Self {
        Self { durability: Durability::Disk, size: 1, workers: 1, paths: 1, devices: 1, program: None }
    }
}

impl Ours {
    /// The path with this number, as clients ask for it.
    pub(crate) fn path(number: usize) -> String {
        format!("/main/ws{number}")
    }

    /// How the device of a path publishes.
    pub(crate) fn publish_to(path: usize) -> Publish {
        let login = Some((format!("device-{path}"), PASSWORD.to_owned()));
        Publish::Mqtt { topic: format!("$devices/device-{path}/events"), login }
    }

    /// The release build of this checkout, or what `TRIGGERCAST` names.
    pub(crate) fn program(&self) -> PathBuf {
        let built = || crate::home().join("../target/release/triggercast");
        let named = || std::env::var_os("TRIGGERCAST").map(PathBuf::from);
        self.program.clone().or_else(named).unwrap_or_else(built)
    }

    fn config(&self, mqtt: u16, gateway: u16, management: u16) -> Result<String> {
        let mut text = format!(
            "data_dir: data\n\
             gateway: {{ listen: '127.0.0.1:{gateway}', workers: {}, max_connections: 1000000, handshakes_per_second: 1000000 }}\n\
             management: {{ listen: '127.0.0.1:{management}', grpc_listen: '127.0.0.1:0' }}\n\
             mqtt: {{ listen: '127.0.0.1:{mqtt}' }}\n\
             service_accounts: [ {{ id: sender, roles: [api-gateway.websocketBroadcaster] }} ]\n\
             gateways:\n  - id: main\n    limits: {{ connections_per_address: 1000000 }}\n    paths:\n",
            self.workers
        );
        let durability = if self.durability == Durability::Disk { "disk" } else { "memory" };
        for path in 0..self.paths {
            writeln!(text, "      /ws{path}: {{ durability: {durability} }}")?;
        }
        text.push_str("iot:\n  registries:\n    - id: bench\n      devices:\n");
        for device in 0..self.paths.max(self.devices) {
            writeln!(text, "        - {{ id: device-{device}, password: '{PASSWORD}' }}")?;
        }
        text.push_str("triggers:\n");
        for path in 0..self.paths {
            let device = if self.devices > 1 { "+".to_owned() } else { format!("device-{path}") };
            writeln!(
                text,
                "  - name: trigger-{path}\n    source: {{ iot_message: {{ registry_id: bench, \
                 mqtt_topic: '$devices/{device}/events', batch_settings: {{ max_count: {}, cutoff: 1s }} }} }}\n    \
                 action: [ {{ gateway_websocket_broadcast: {{ gateway_id: main, path: /ws{path}, \
                 service_account_id: sender }} }} ]",
                self.size
            )?;
        }
        Ok(text)
    }

    /// Starts it by a program that stands before its name, as `valgrind`, with its arguments.
    pub(crate) fn start_by(&self, cpus: &str, before: &[String]) -> Result<Server> {
        let mut starter = Starter::new(cpus)?;
        let (mqtt, gateway, management) = (free_port()?, free_port()?, free_port()?);
        starter.write("config.yaml", &self.config(mqtt, gateway, management)?)?;
        let program = self.program().display().to_string();
        let mut words: Vec<&str> = before.iter().map(String::as_str).collect();
        words.push(&program);
        // The MQTT server is the last that it starts.
        starter.spawn(words[0], &words[1..], mqtt)?;
        Ok(starter.done(mqtt, gateway))
    }
}

impl Contender for Ours {
    fn name(&self) -> String {
        match self.durability {
            Durability::Disk => "Triggercast".to_owned(),
            Durability::Memory => "Triggercast, in memory".to_owned(),
        }
    }

    fn start(&self, cpus: &str) -> Result<Server> {
        self.start_by(cpus, &[])
    }

    fn publish(&self) -> Publish {
        Self::publish_to(0)
    }

    fn protocol(&self) -> Protocol {
        Protocol::WebSocket(Self::path(0))
    }

    fn form(&self) -> Form {
        Form::Trigger
    }
}
