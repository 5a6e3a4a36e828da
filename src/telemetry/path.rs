//! [`PathMeter`]: what has gone out on one path of a gateway. The GatewayActor and the workers write it, once for a run of
//! batches; calls and `/metrics` read it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::roster::Meter;

/// What has gone out on a path since the start, and who is connected.
#[derive(Debug, Default)]
pub struct PathMeter {
    events: AtomicU64,
    batches: AtomicU64,
    messages: AtomicU64,
    connections: AtomicI64,
    pending: AtomicU64,
}

impl PathMeter {
    /// Batches are broadcast.
    pub fn broadcast(&self, batches: usize, events: usize) {
        self.batches.fetch_add(batches as u64, Ordering::Relaxed);
        self.events.fetch_add(events as u64, Ordering::Relaxed);
    }

    /// Clients have been written so many messages, all together.
    pub fn write(&self, messages: u64) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
    }

    /// A WebSocket client has come.
    pub fn connect(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// One has gone.
    pub fn disconnect(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// So many runs of batches wait for the journal just now.
    pub fn wait(&self, runs: usize) {
        self.pending.store(runs as u64, Ordering::Relaxed);
    }

    /// As it stands now.
    pub fn now(&self) -> Self {
        let now = Self::default();
        now.absorb(self);
        now
    }

    /// Runs of batches that wait for the journal.
    pub fn pending(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    /// Events that were broadcast.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Batches that were.
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// Messages that clients were written.
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// WebSocket clients now.
    pub fn connections(&self) -> u64 {
        u64::try_from(self.connections.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

impl Meter for PathMeter {
    fn absorb(&self, other: &Self) {
        self.broadcast(other.batches() as usize, other.events() as usize);
        self.write(other.messages());
        // Those of what has gone are few, and go themselves.
        self.connections.fetch_add(other.connections.load(Ordering::Relaxed), Ordering::Relaxed);
        self.pending.fetch_add(other.pending(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_what_was_written_also_of_several_together() {
        let (one, sum) = (PathMeter::default(), PathMeter::default());
        one.broadcast(2, 20);
        one.write(6);
        one.connect();
        one.connect();
        one.disconnect();
        sum.absorb(&one);
        sum.absorb(&one);
        assert_eq!((sum.batches(), sum.events(), sum.messages(), sum.connections()), (4, 40, 12, 2));
    }
}
