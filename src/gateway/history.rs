//! What clients missed: reads the journal for those that resume or fell behind, a few at a time.
//!
//! At most [`READERS`] reads, and as many searches, run at once over all workers, on threads of their own, so that many clients that come
//! back together do not hold up live delivery; the others wait their turn. What was read and encoded is kept in
//! a cache of [`CACHE_BYTES`], since many clients want the same: the shared tail in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::segment::Segment;
use super::view::View;
use crate::journal::{Found, Journal, Position, ReadError, ReadLimit, Start};
use crate::model::gateway::PathKey;

/// Reads at once.
const READERS: usize = 2;
/// Encoded messages that are kept for the next who asks; the oldest go.
pub(super) const CACHE_BYTES: usize = 32 * 1024 * 1024;
/// How much one read takes: about what a socket takes in one turn.
const LIMIT: ReadLimit = ReadLimit { bytes: 128 * 1024, grid: 256 };

/// The way to the journals for all workers.
#[derive(Debug)]
pub(super) struct History {
    readers: Semaphore,
    /// Those who only ask where to begin do not stand in line behind those who read.
    finders: Semaphore,
    cache: Mutex<Cache>,
}

/// Time until a client asks again for what was not there: not before there can be something new.
pub(super) const READ_MORE: Duration = Duration::from_millis(5);
/// Time until a journal is asked again that could not be read.
const READ_AGAIN: Duration = Duration::from_secs(1);

type Key = (PathKey, View, Position);

#[derive(Debug, Default)]
struct Cache {
    segments: HashMap<Key, Segment>,
    /// In the order in which they came.
    order: VecDeque<Key>,
    bytes: usize,
}

impl History {
    /// With an empty cache.
    pub(super) fn new() -> Self {
        Self { readers: Semaphore::new(READERS), finders: Semaphore::new(READERS), cache: Mutex::default() }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the journal has, and the client's turn to be sent it.
pub(super) type Piece = (Result<Option<Segment>, ReadError>, Option<OwnedSemaphorePermit>);

/// The way to the journal of one path. A clone is the same.
#[derive(Debug, Clone)]
pub(super) struct PathHistory {
    key: PathKey,
    journal: Arc<dyn Journal>,
    shared: Arc<History>,
}

impl PathHistory {
    /// Of the path `key`, whose order is in `journal`.
    pub(super) fn new(key: PathKey, journal: Arc<dyn Journal>, shared: Arc<History>) -> Self {
        Self { key, journal, shared }
    }

    /// Where a start is.
    pub(super) async fn find(self, start: Start) -> Result<Found, ReadError> {
        let Self { key, journal, shared } = self;
        let _turn = shared.finders.acquire().await;
        blocking(move || journal.find(&key, start)).await
    }

    /// What follows `from`, encoded; `None` at the end of what is committed. For clients with a filter it may hold no
    /// message. With `skips`, what follows the oldest that is kept, if that is later.
    async fn read(self, view: View, from: Position, skips: bool) -> Result<Option<Segment>, ReadError> {
        let Self { key, journal, shared } = self;
        let place = (key.clone(), view.clone(), from);
        let known = shared.cache().segments.get(&place).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let _turn = shared.readers.acquire().await;
        // Someone else may have asked for the same meanwhile.
        let known = shared.cache().segments.get(&place).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let segment = blocking(move || {
            let mut stored = journal.read(&key, from, LIMIT);
            while let Err(ReadError::Gone { oldest }) = stored
                && skips
            {
                stored = journal.read(&key, oldest, LIMIT);
            }
            Ok(view.encode_one(&stored?))
        });
        let segment = segment.await?;
        if let Some(segment) = segment.as_ref().filter(|segment| segment.first == from) {
            shared.cache().keep(place, segment);
        }
        Ok(segment)
    }

    /// One client's next piece, as [`Self::read`] gives it: after `pause`, and when it is the client's turn on its
    /// worker. The turn is to be held until the piece is sent. A journal that cannot be read is left alone for a while.
    pub(super) async fn piece(
        self,
        turns: Arc<Semaphore>,
        pause: Duration,
        view: View,
        from: Position,
        skips: bool,
    ) -> Piece {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        // An error is never the case: the semaphore is not closed.
        let turn = turns.acquire_owned().await.ok();
        // Also when the piece is at hand: what is live comes in between.
        tokio::task::yield_now().await;
        let read = self.read(view, from, skips).await;
        if matches!(read, Err(ReadError::Failed(_))) {
            drop(turn);
            tokio::time::sleep(READ_AGAIN).await;
            return (read, None);
        }
        (read, turn)
    }
}

async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, ReadError> + Send + 'static,
) -> Result<R, ReadError> {
    let done = actix_rt::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(ReadError::Failed(error.to_string())))
}

/// What a segment takes in the cache, about. Its key keeps a filter, which may be larger than the segment.
fn cost((_, view, _): &Key, segment: &Segment) -> usize {
    let filter = view.filter.as_ref().map_or(0, |filter| filter.bytes());
    segment.bytes.len() + filter + 512
}

impl Cache {
    /// Keeps a segment for the next who asks, unless nothing is in it: rare filters would fill the cache with such.
    fn keep(&mut self, key: Key, segment: &Segment) {
        if segment.bytes.is_empty() {
            return;
        }
        self.bytes += cost(&key, segment);
        if let Some(before) = self.segments.insert(key.clone(), segment.clone()) {
            self.bytes -= cost(&key, &before);
        } else {
            self.order.push_back(key);
        }
        while self.bytes > CACHE_BYTES
            && let Some(oldest) = self.order.pop_front()
        {
            let gone = self.segments.remove(&oldest);
            self.bytes -= gone.map_or(0, |gone| cost(&oldest, &gone));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::filter::Filter;
    use crate::gateway::segment::tests::batch;
    use crate::gateway::segment::{Format, Part};

    #[test]
    fn the_cache_of_history_has_its_bound_and_keeps_the_newest() {
        let mut cache = Cache::default();
        let path = PathKey { gateway_id: "main".into(), path: "/ws".into() };
        let segment =
            Segment::encode_one(Format::WebSocket, 0, [&vec![batch(0, 1, 65_000).remove(0); 16][..]]);
        for position in [0, 0].into_iter().chain(0..100) {
            let key = (path.clone(), Format::WebSocket.into(), position);
            cache.keep(key.clone(), &segment);
            assert!(cache.bytes <= CACHE_BYTES);
            assert_eq!(cache.bytes, cache.segments.len() * cost(&key, &segment));
            assert_eq!(cache.order.len(), cache.segments.len());
        }
        assert!(cache.segments.contains_key(&(path.clone(), Format::WebSocket.into(), 99)));
        assert!(!cache.segments.contains_key(&(path, Format::WebSocket.into(), 0)));
    }

    #[test]
    fn a_filter_that_is_kept_counts_and_what_lets_nothing_through_is_not_kept() {
        let path = PathKey { gateway_id: "main".into(), path: "/ws".into() };
        let some = Segment::encode_one(Format::WebSocket, 0, [&batch(0, 1, 10)[..]]);
        let nothing =
            Segment::encode_one(Format::WebSocket, 0, [Part { count: 1, events: Vec::new().into() }]);
        let mut cache = Cache::default();
        for n in 0..2000 {
            let topics: String = (0..32).map(|m| format!("topic={n}/{m}/{}&", "x".repeat(900))).collect();
            let filter = Filter::read(&topics).ok().flatten().map(Arc::new);
            let view = View { format: Format::WebSocket, filter };
            cache.keep((path.clone(), view.clone(), 1), &nothing);
            assert!(!cache.segments.contains_key(&(path.clone(), view.clone(), 1)));
            cache.keep((path.clone(), view.clone(), 0), &some);
            assert!(cache.segments.contains_key(&(path.clone(), view, 0)));
            assert!(cache.segments.len() * 32 * 900 <= CACHE_BYTES, "{}", cache.segments.len());
        }
        assert!(cache.segments.len() > 500, "{}", cache.segments.len());
    }
}
