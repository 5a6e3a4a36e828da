//! What concerns one client alone: messages, which stand in the queue of its control frames, between whole messages of
//! the path; who it is, and how long it may stay.

use std::net::IpAddr;
use std::time::SystemTime;

use bytes::Bytes;

use super::{MAX_CONTROL_FRAMES, Session};
use crate::gateway::close::Close;

/// Bytes of messages for this client alone that may wait; for more there is no room.
pub(in crate::gateway) const MAX_OWN_BYTES: usize = 256 * 1024;

impl Session {
    /// Queues a message for this client alone, as whole frames. False: there is no room for it.
    pub(in crate::gateway) fn push_message(&self, frames: Bytes) -> bool {
        let len = self.control_len.get() + frames.len();
        let waiting = self.control.borrow().len();
        // One message may always wait, however long the path allows it to be.
        let is_full = waiting > 0 && (len > MAX_OWN_BYTES || waiting >= MAX_CONTROL_FRAMES / 2);
        if is_full || !self.takes_messages() {
            return false;
        }
        self.control_len.set(len);
        self.control.borrow_mut().push_back(frames);
        self.touch();
        self.wake();
        true
    }

    /// Where the client comes from.
    pub(in crate::gateway) fn source_ip(&self) -> Option<IpAddr> {
        self.place.address()
    }

    /// Closes it when what it has shown to be let in holds no more.
    pub(super) fn close_if_expired(&self) {
        if self.guest.pass.as_ref().is_some_and(|pass| pass.is_over(SystemTime::now())) {
            self.close(Close::Expired);
        }
    }

    /// Bytes in memory that the socket has not taken yet.
    pub(in crate::gateway) fn waiting_bytes(&self) -> u64 {
        let of_path = match &*self.replay.borrow() {
            Some(replay) => replay.bytes().len() as u64,
            None => self.feed.ring.borrow().head().saturating_sub(self.cursor.get()),
        };
        self.control_len.get() as u64 + of_path
    }

    /// Seconds since it was in use.
    pub(in crate::gateway) fn idle_seconds(&self) -> u32 {
        let last = self.last_activity.get().max(self.feed.last_append.get()).max(self.opened);
        self.feed.clock.get().saturating_sub(last)
    }
}
