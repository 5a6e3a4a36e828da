//! A session on its way from the journal to the ring and, when it falls behind, back.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::super::close::Close;
use super::super::history::Piece;
use super::super::replay::{Join, Replay};
use super::super::ring::Ring;
use super::super::segment::Segment;
use super::{Phase, Session};
use crate::journal::{Position, ReadError};
use crate::model::gateway::SlowClients;
use crate::telemetry::{self, METRICS};

impl Session {
    /// Reads on from the journal: the ring will not have all that follows.
    pub(in crate::gateway) fn replay(&self) {
        if self.leave_ring().is_some() {
            if let Some(replay) = &mut *self.replay.borrow_mut() {
                replay.resume_on();
            }
            self.wake();
        }
    }

    /// The position from which it wants to be given messages from the journal, and whether it may be a later one. It
    /// is asked once.
    pub(in crate::gateway) fn wants(&self) -> Option<(Position, bool)> {
        if self.phase.get() != Phase::Open || self.blocked.get() {
            return None;
        }
        self.replay.borrow_mut().as_mut()?.wants()
    }

    /// What the journal has from there on, after a pause.
    pub(in crate::gateway) fn piece(
        &self,
        pause: Duration,
        from: Position,
        skips: bool,
    ) -> impl Future<Output = Piece> + use<> {
        let turns = Arc::clone(&self.feed.turns);
        self.entry.history.clone().piece(turns, pause, self.feed.view.clone(), from, skips)
    }

    /// The answer of the journal.
    pub(in crate::gateway) fn give(
        &self,
        from: Position,
        read: Result<Option<Segment>, ReadError>,
        turn: Option<OwnedSemaphorePermit>,
    ) {
        let mut replay = self.replay.borrow_mut();
        let Some(state) = replay.as_mut() else { return };
        if !state.is_answered(from) {
            return;
        }
        match read {
            Ok(Some(segment)) if self.phase.get() == Phase::Open => {
                state.give(segment, turn);
                self.touch();
            }
            Ok(Some(_)) => {}
            Ok(None) => state.at_end = true,
            Err(ReadError::Gone { .. }) => {
                drop(replay);
                telemetry::count(&METRICS.slow_clients, "gone");
                self.close(Close::Gone);
            }
            // It is asked for again.
            Err(ReadError::Failed(error)) => {
                tracing::debug!(path = %self.entry.key, error, "failed to read the journal");
            }
        }
    }

    /// The ring drops what this session has not read: the path's policy decides.
    pub(super) fn fall_behind(&self) {
        let Some(next) = self.leave_ring() else { return };
        tracing::debug!(connection = %self.guest.id, path = %self.entry.key, policy = ?self.entry.backlog().slow_clients,
            position = next, "a client has fallen behind");
        match self.entry.backlog().slow_clients {
            SlowClients::Replay => {
                telemetry::count(&METRICS.slow_clients, "replay");
                self.wake();
            }
            SlowClients::DropOldest => {
                telemetry::count(&METRICS.slow_clients, "drop_oldest");
                let ring = self.feed.ring.borrow();
                let floor = ring.leave(self.feed.floor()).map_or(next, |oldest| oldest.next);
                METRICS.slow_client_dropped.inc_by(floor.saturating_sub(next));
                if let Some(replay) = &mut *self.replay.borrow_mut() {
                    replay.skip_to(floor.max(next));
                    replay.at_end = true;
                }
            }
            SlowClients::Disconnect => {
                telemetry::count(&METRICS.slow_clients, "disconnect");
                self.close(Close::TooSlow);
            }
        }
    }

    /// Stops reading the ring. Gives the position of the next event that it has not begun to send; `None`: it did
    /// not read there, or has missed nothing.
    fn leave_ring(&self) -> Option<Position> {
        let mut replay = self.replay.borrow_mut();
        if replay.is_some() {
            return None;
        }
        let left = Replay::leave(&self.feed.ring.borrow(), self.cursor.get())?;
        let next = left.next();
        *replay = Some(Box::new(left));
        self.feed.replaying.set(self.feed.replaying.get() + 1);
        Some(next)
    }

    /// Goes on in the ring if it has what comes next. True: there may be something to send.
    fn join_ring(&self, ring: &Ring, replay: &mut Option<Box<Replay>>) -> bool {
        let Some(state) = replay.as_mut() else { return false };
        match state.join(ring, self.entry.backlog().slow_clients == SlowClients::DropOldest) {
            Join::At(cursor) => {
                self.cursor.set(cursor);
                self.feed.joined.set(self.feed.joined.get().min(cursor));
                *replay = None;
                self.feed.replaying.set(self.feed.replaying.get() - 1);
                true
            }
            Join::Later => false,
            Join::NotYet => {
                self.wake();
                false
            }
            Join::Skipped(events) => {
                METRICS.slow_client_dropped.inc_by(events);
                true
            }
        }
    }

    /// Gives up all of a replay but the message that is begun.
    pub(super) fn shrink(&self) {
        if let Some(replay) = &mut *self.replay.borrow_mut() {
            replay.shrink();
        }
    }

    /// Writes what does not come from the ring. `None`: there is nothing of it.
    pub(super) fn write_replay(&self, ring: &Ring) -> Option<io::Result<()>> {
        let mut replay = self.replay.borrow_mut();
        let state = replay.as_mut()?;
        if !state.bytes().is_empty() {
            return Some(
                self.io.try_write(state.bytes()).map(|sent| self.feed.tally.others(state.sent(sent))),
            );
        }
        if self.phase.get() == Phase::Open && self.join_ring(ring, &mut replay) {
            return Some(Ok(()));
        }
        None
    }
}
