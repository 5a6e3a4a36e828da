//! Events of a worker's paths that are not yet held against filters. Pure.
//!
//! They come as fast as a path goes on, and many filters take long. So what waits has a bound for each path; when it is
//! passed, all but the newest is given up, which shows clients that something is missing: they read it from the journal.

use std::collections::VecDeque;
use std::sync::Arc;

use super::view::Unencoded;
use crate::model::gateway::PathKey;

/// Bytes of events of one path that may wait.
pub(super) const WAITING_BYTES: usize = 8 * 1024 * 1024;
/// Bytes that are taken at a time: more would hold up what else a worker has to do.
const PIECE_BYTES: usize = 512 * 1024;

/// What waits, by path. Paths take turns.
#[derive(Debug, Default)]
pub(super) struct Waiting(VecDeque<OfPath>);

#[derive(Debug)]
struct OfPath {
    key: PathKey,
    /// In order.
    events: VecDeque<Arc<Unencoded>>,
    bytes: usize,
}

impl Waiting {
    /// Adds events of a path. False: those that waited were given up for them.
    pub(super) fn push(&mut self, key: &PathKey, events: Arc<Unencoded>) -> bool {
        let bytes = events.bytes();
        let Some(of_path) = self.0.iter_mut().find(|of_path| of_path.key == *key) else {
            self.0.push_back(OfPath { key: key.clone(), events: [events].into(), bytes });
            return true;
        };
        let has_room = of_path.bytes + bytes <= WAITING_BYTES;
        if !has_room {
            of_path.events.clear();
            of_path.bytes = 0;
        }
        of_path.events.push_back(events);
        of_path.bytes += bytes;
        has_room
    }

    /// What is next.
    pub(super) fn next(&mut self) -> Option<(PathKey, Vec<Arc<Unencoded>>)> {
        let mut of_path = self.0.pop_front()?;
        let (mut piece, mut bytes) = (Vec::new(), 0);
        while let Some(events) =
            of_path.events.pop_front_if(|events| piece.is_empty() || bytes + events.bytes() <= PIECE_BYTES)
        {
            bytes += events.bytes();
            piece.push(events);
        }
        let key = of_path.key.clone();
        if !of_path.events.is_empty() {
            of_path.bytes -= bytes;
            self.0.push_back(of_path);
        }
        Some((key, piece))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::journal::{Appended, Position};
    use crate::model::event::Event;

    fn key(path: &str) -> PathKey {
        PathKey { gateway_id: "main".into(), path: path.into() }
    }

    /// One event of a little less than so many bytes.
    fn events(position: Position, bytes: usize) -> Arc<Unencoded> {
        let json = Bytes::from(vec![b'x'; bytes - 200]);
        let batches = Arc::new(vec![vec![Event { id: Uuid::nil(), json }]]);
        Arc::new(Unencoded::new(vec![Appended { position, batches }], 0))
    }

    fn firsts(piece: &[Arc<Unencoded>]) -> Vec<Position> {
        piece.iter().filter_map(|events| events.first()).collect()
    }

    #[test]
    fn paths_take_turns_in_pieces() {
        let mut waiting = Waiting::default();
        for n in 0..3 {
            assert!(waiting.push(&key("/a"), events(n, PIECE_BYTES / 2)));
        }
        assert!(waiting.push(&key("/b"), events(7, 2 * PIECE_BYTES)));
        let order: Vec<_> = std::iter::from_fn(|| waiting.next())
            .map(|(key, piece)| (key.path.to_string(), firsts(&piece)))
            .collect();
        let expected = [("/a", vec![0, 1]), ("/b", vec![7]), ("/a", vec![2])];
        assert_eq!(order, expected.map(|(path, firsts)| (path.to_owned(), firsts)));
    }

    #[test]
    fn events_that_wait_for_filters_have_their_bound_and_the_newest_stay() {
        let mut waiting = Waiting::default();
        assert!(waiting.push(&key("/b"), events(0, WAITING_BYTES)));
        let has_room: Vec<_> =
            (0..5).map(|n| waiting.push(&key("/a"), events(n, WAITING_BYTES / 3))).collect();
        assert_eq!(has_room, [true, true, true, false, true]);
        assert_eq!(waiting.next().map(|(_, piece)| firsts(&piece)), Some(vec![0]), "another path's stay");
        let rest: Vec<_> =
            std::iter::from_fn(|| waiting.next()).flat_map(|(_, piece)| firsts(&piece)).collect();
        assert_eq!(rest, [3, 4]);
        // What is larger alone waits alone.
        assert!(waiting.push(&key("/a"), events(5, 2 * WAITING_BYTES)));
        assert!(!waiting.push(&key("/a"), events(6, 2 * WAITING_BYTES)));
        assert_eq!(waiting.next().map(|(_, piece)| firsts(&piece)), Some(vec![6]));
        assert!(waiting.next().is_none());
    }
}
