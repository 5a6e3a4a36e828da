//! The servers that are compared: how each is started, published to and listened to.

mod ours;
mod peers;
mod process;

use anyhow::Result;

pub(crate) use ours::{Durability, Ours};
pub(crate) use process::{Server, Starter, free_port};

use crate::load::{Form, Group, Protocol, Publish};

/// A server that can take part.
pub(crate) trait Contender {
    /// Its name in the tables.
    fn name(&self) -> String;
    /// Starts it on these CPUs; returns when it accepts connections.
    fn start(&self, cpus: &str) -> Result<Server>;
    /// How it is published to.
    fn publish(&self) -> Publish;
    /// How its clients listen.
    fn protocol(&self) -> Protocol;
    /// How payloads look to its clients.
    fn form(&self) -> Form {
        Form::Plain
    }
}

/// A started contender with its clients.
pub(crate) struct Running {
    /// Its name in the tables.
    pub(crate) name: String,
    /// Its processes.
    pub(crate) server: Server,
    /// Its clients.
    pub(crate) group: Group,
}

/// Starts a contender and opens its clients.
pub(crate) fn open(contender: &dyn Contender, cpus: &str, clients: usize) -> Result<Running> {
    let server = contender.start(cpus)?;
    let publish = (contender.publish(), server.publish_port);
    let group = Group::open(publish, (&contender.protocol(), server.listen_port), contender.form(), clients)?;
    Ok(Running { name: contender.name(), server, group })
}

/// A peer by its name.
pub(crate) fn peer(name: &str) -> Option<Box<dyn Contender>> {
    peers::all().into_iter().find(|peer| peer.name() == name)
}

/// The names of all peers.
pub(crate) fn peer_names() -> Vec<String> {
    peers::all().iter().map(|peer| peer.name()).collect()
}

/// The bare loop, writing these frames.
#[derive(Debug)]
pub(crate) struct Floor {
    /// All that one read brought goes out as one.
    pub(crate) coalesces: bool,
    /// What the publisher gives it.
    pub(crate) frame: crate::load::Frame,
}

impl Contender for Floor {
    fn name(&self) -> String {
        let mode = if self.coalesces { "floor, coalescing" } else { "floor" };
        format!("{mode}, {} B", self.frame.len())
    }

    fn start(&self, cpus: &str) -> Result<Server> {
        process::Starter::new(cpus)?.floor(if self.coalesces { "coalesce" } else { "write" })
    }

    fn publish(&self) -> Publish {
        Publish::Frames(self.frame.clone())
    }

    fn protocol(&self) -> Protocol {
        Protocol::Tcp
    }

    fn form(&self) -> Form {
        self.frame.form()
    }
}
