//! What senders may repeat after a start, since their acknowledgement was lost with the process before: read from the
//! journal's rows.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::{Reader, SourceId};
use crate::journal::ReadError;
use crate::model::repeat::{Repeat, Repeats};

/// Publishes of a session that may come again, as often as sources have them: more than a device has on its way.
const REMEMBERED: usize = 2048;
/// The same of an external broker, which may have far more on its way; less than it has identifiers.
const REMEMBERED_AT_MOST: usize = 1 << 15;
/// How many of all sessions are remembered beyond [`REMEMBERED`] of each.
const REMEMBERED_BEYOND: usize = 1 << 19;

/// Gathers what senders may repeat: the newest publish under each identifier, if every consumer has its events.
pub(super) fn recall(reader: &Reader) -> Result<HashMap<u64, Repeats>, ReadError> {
    let mut sessions: HashMap<u64, Newest> = HashMap::new();
    let mut beyond = REMEMBERED_BEYOND;
    // From the newest row back: an identifier is used again only when what came under it before is committed.
    reader.repeats(|source, Repeats { session, publishes }| {
        let newest = sessions.entry(session).or_default();
        for publish in publishes.into_iter().rev() {
            if newest.looked >= REMEMBERED {
                if newest.looked == REMEMBERED_AT_MOST || beyond == 0 {
                    return;
                }
                beyond -= 1;
            }
            newest.add(source, publish);
        }
    })?;
    let recalled = |(session, newest): (u64, Newest)| {
        let Newest { order, known, .. } = newest;
        let is_whole = |publish: &Repeat| {
            let known = known.get(&(publish.packet_id, publish.qos));
            known
                .is_some_and(|known| !known.is_doubtful && known.sources.len() >= usize::from(publish.copies))
        };
        let publishes = order.into_iter().rev().filter(is_whole).collect();
        (session, Repeats { session, publishes })
    };
    Ok(sessions.into_iter().map(recalled).collect())
}

/// The newest publishes of a session, one under each identifier, newest first.
#[derive(Debug, Default)]
struct Newest {
    order: Vec<Repeat>,
    known: HashMap<(u16, u8), KnownPublish>,
    looked: usize,
}

#[derive(Debug)]
struct KnownPublish {
    content: u64,
    /// How many were looked at before.
    at: usize,
    /// The sources that have its events.
    sources: Vec<SourceId>,
    /// Its sender says the same under the same identifier more than once, and shortly after each other.
    is_doubtful: bool,
}

impl Newest {
    /// Takes the publish before those that were taken, as a source has it.
    fn add(&mut self, source: SourceId, publish: Repeat) {
        self.looked += 1;
        let at = self.looked;
        match self.known.entry((publish.packet_id, publish.qos)) {
            Entry::Vacant(free) => {
                let sources = vec![source];
                free.insert(KnownPublish { content: publish.content, at, sources, is_doubtful: false });
                self.order.push(publish);
            }
            Entry::Occupied(mut known) if known.get().content == publish.content => {
                let known = known.get_mut();
                known.is_doubtful |= at - known.at < REMEMBERED && known.sources.contains(&source);
                known.sources.push(source);
            }
            // An older one, long acknowledged.
            Entry::Occupied(_) => {}
        }
    }
}
