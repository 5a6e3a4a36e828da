//! What a client may send, and what becomes of it.

use super::Session;
use crate::gateway::close::Close;

impl Session {
    /// A frame of this many bytes came. Notes the fault if the client may not send it so soon.
    pub(in crate::gateway) fn admits(&self, len: usize) -> Result<(), Close> {
        let (now, limits) = (self.feed.clock.get(), &self.settings.limits);
        let frames = self.frames.get().take(1, now, limits.frames_per_second).ok_or(Close::TooFast)?;
        let bytes = self.bytes.get().take(len as u32, now, limits.bytes_per_second).ok_or(Close::TooFast)?;
        self.frames.set(frames);
        self.bytes.set(bytes);
        Ok(())
    }

    /// Whether so much of what it said waits that nothing more is read for now.
    pub(in crate::gateway) fn is_full_of_heard(&self) -> bool {
        self.conversation.borrow().as_ref().is_some_and(|conversation| conversation.is_full())
    }

    /// A message or a ping came: the connection is in use.
    pub(in crate::gateway) fn touch(&self) {
        self.last_activity.set(self.feed.clock.get());
    }

    /// Why the input was refused, once.
    pub(in crate::gateway) fn take_fault(&self) -> Option<Close> {
        self.fault.take()
    }

    /// Remembers why the input is refused.
    pub(in crate::gateway) fn set_fault(&self, close: Close) {
        self.fault.set(Some(close));
    }
}
