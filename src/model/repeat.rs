//! How a message is known again that its sender repeats because it did not get our acknowledgement. Pure.
//!
//! A repetition carries DUP, the same packet identifier and the same content (MQTT-3.3.1-1). A sender may also use an
//! identifier again, for another message with the same content, and lose its connection before we see that one. Which
//! of the two a DUP message is cannot be told; but who did so before is known to do so, and is believed: an event that
//! comes twice is better than one that is lost.

use std::collections::VecDeque;

use twox_hash::XxHash3_64;

/// Acknowledged messages that are remembered of a sender: more than it has on its way at a time.
const MAX_REMEMBERED: usize = 1024;

/// The publishes of one MQTT session behind a group of events, as the sender would repeat them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeats {
    /// A digest of who the sender is: its user and client id, or our own client id on its broker.
    pub session: u64,
    /// In the order of arrival; QoS 0 has none.
    pub publishes: Vec<Repeat>,
}

/// How one publish is known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Repeat {
    /// Its packet identifier.
    pub packet_id: u16,
    /// 1 or 2.
    pub qos: u8,
    /// Consumers that got events of it. It is known again only if all of them have theirs.
    pub copies: u8,
    /// A digest of topic and payload.
    pub content: u64,
}

impl Repeat {
    /// The digest of a message.
    pub fn content(topic: &str, payload: &[u8]) -> u64 {
        digest(topic, payload)
    }
}

/// XXH3: it is kept in the journal, so that it must be the same in every build.
fn digest(first: &str, second: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(first.as_bytes()), second)
}

impl Repeats {
    /// The digest of a sender's names.
    pub fn session(user: &str, client_id: &str) -> u64 {
        digest(user, client_id.as_bytes())
    }
}

/// What a sender was acknowledged, newest last; the acknowledgement may have been lost.
#[derive(Debug, Default)]
pub struct Acknowledged {
    messages: VecDeque<(u8, u16, u64)>,
}

impl Acknowledged {
    /// What a sender may repeat from before this process.
    pub fn recall(repeats: &Repeats) -> Self {
        let mut recalled = Self::default();
        for Repeat { packet_id, qos, content, .. } in &repeats.publishes {
            recalled.remember(*qos, *packet_id, *content);
        }
        recalled
    }

    /// A message has been acknowledged.
    pub fn remember(&mut self, qos: u8, packet_id: u16, content: u64) {
        if self.messages.len() >= MAX_REMEMBERED {
            self.messages.pop_front();
        }
        self.messages.push_back((qos, packet_id, content));
    }

    /// What comes next under this identifier is another message.
    pub fn forget(&mut self, qos: u8, packet_id: u16) {
        self.messages.retain(|known| (known.0, known.1) != (qos, packet_id));
    }

    /// Whether a message that is marked as a repetition is one that was acknowledged.
    pub fn knows(&self, qos: u8, packet_id: u16, content: u64) -> bool {
        let same = self.messages.iter().rev().filter(|known| (known.0, known.1) == (qos, packet_id));
        let mut contents = same.map(|known| known.2);
        contents.next() == Some(content) && contents.all(|older| older != content)
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_every_build_and_tell_their_parts_apart() {
        assert_eq!(Repeat::content("hall/press-1", b"21.5"), 7_162_551_302_589_400_381);
        assert_ne!(Repeat::content("ab", b"c"), Repeat::content("a", b"bc"));
        assert_ne!(Repeats::session("ab", ""), Repeats::session("", "ab"));
    }

    #[test]
    fn what_was_acknowledged_is_known_by_identifier_and_content() {
        let mut past = Acknowledged::default();
        past.remember(1, 7, 70);
        assert!(past.knows(1, 7, 70));
        assert!(!past.knows(1, 7, 71) && !past.knows(1, 8, 70) && !past.knows(2, 7, 70));
        past.remember(1, 7, 71);
        assert!(past.knows(1, 7, 71) && !past.knows(1, 7, 70), "the newest under an identifier counts");
    }

    #[test]
    fn who_uses_an_identifier_again_for_the_same_content_is_believed() {
        let mut past = Acknowledged::default();
        past.remember(1, 1, 70);
        past.remember(1, 1, 70);
        assert!(!past.knows(1, 1, 70));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_newest_stays() {
        let mut past = Acknowledged::default();
        for n in 0..3000u16 {
            past.remember(1, n, 1);
        }
        assert_eq!(past.messages.len(), MAX_REMEMBERED);
        assert!(past.knows(1, 2999, 1) && !past.knows(1, 0, 1));
    }
}
