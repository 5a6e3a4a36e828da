//! Load: publishes to one server and listens to it as many clients, in one thread, so that it costs the same for
//! every server.

mod connect;
mod group;
pub(crate) mod ingest;
mod publish;
pub(crate) mod registry;
mod stamp;

pub(crate) use connect::Protocol;
pub(crate) use group::{Group, Plan};
pub(crate) use publish::Publish;
pub(crate) use stamp::{Form, Frame};

use std::time::Duration;

use anyhow::Result;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::io::Errno;

/// Waits until something happens on a socket, at most for `time`. `events` are then what happened.
fn wait(watch: &OwnedFd, events: &mut Vec<epoll::Event>, time: Duration) -> Result<()> {
    events.clear();
    let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
    match epoll::wait(watch, spare_capacity(events), Some(&time)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Bytes of every payload.
pub(crate) const PAYLOAD: usize = 128;
