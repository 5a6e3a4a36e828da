//! Whose turn it is: every client has one seat, and one connection (or keeper) at a time sits on it.
//!
//! A new connection claims the seat: it takes a number under the directory's lock, wakes whoever sits there
//! and waits for the session's own lock. Who sits there sees a newer number and leaves. So a takeover cannot
//! race, however many come at once: the newest number gets the session, all others give up.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedMutexGuard, watch};
use tokio::time::{Instant, sleep_until};

use super::accounts::Account;
use super::limits::Limits;
use super::outbox::Outbox;
use super::past::{Past, Pasts};
use super::session::Session;
use super::will::{self, PendingWill};
use crate::model::id::Id;
use crate::model::repeat::Repeats;

/// A user and a client id.
type Key = (Id, Box<str>);
type Seats = HashMap<Key, Arc<Seat>>;

/// Every session of the server, by user and client id: one user cannot take another's.
#[derive(Debug)]
pub(crate) struct Sessions {
    seats: Mutex<Seats>,
    away: Mutex<BTreeMap<u64, Arc<Notify>>>,
    pasts: Mutex<Pasts>,
    last_number: AtomicU64,
    limits: Arc<Limits>,
}

/// A client's place, whether it is there or not.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Unique on the server.
    pub(crate) number: u64,
    /// A digest of user and client id, the same after a restart.
    pub(crate) sender: u64,
    /// Wakes who sits here: messages wait, gates opened, or the seat is claimed.
    pub(crate) wake: Arc<Notify>,
    /// Messages for the client.
    pub(crate) outbox: Arc<Outbox>,
    key: Key,
    session: Arc<tokio::sync::Mutex<Session>>,
    claimed: watch::Sender<Claim>,
}

/// The newest claim on a seat.
#[derive(Debug, Clone, Copy)]
struct Claim {
    ticket: u64,
    clean: bool,
}

/// The right to a session, held by the connection that serves the client.
#[derive(Debug)]
pub(crate) struct Tenure {
    /// The seat.
    pub(crate) seat: Arc<Seat>,
    /// The session, nobody else's as long as this lives.
    pub(crate) session: OwnedMutexGuard<Session>,
    account: Arc<Account>,
    ticket: u64,
}

impl Sessions {
    /// No sessions.
    pub(crate) fn new(limits: Arc<Limits>) -> Self {
        let pasts = Mutex::new(Pasts::new(limits.max_offline_sessions));
        Self {
            seats: Mutex::default(),
            away: Mutex::default(),
            pasts,
            last_number: AtomicU64::new(0),
            limits,
        }
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn away(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Notify>>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pasts(&self) -> MutexGuard<'_, Pasts> {
        self.pasts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What clients may publish again from before this process.
    pub(crate) fn recall(&self, repeats: impl IntoIterator<Item = Repeats>) {
        let mut pasts = self.pasts();
        for repeats in repeats {
            pasts.keep(repeats.session, Past::recall(&repeats));
        }
    }

    fn next_number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Claims the session of this client, with `clean` an empty one. `None`: someone newer has claimed it.
    /// Must be awaited to its end: a claim that is given up half-way leaves the seat without a keeper.
    pub(crate) async fn claim(&self, account: &Arc<Account>, client: &str, clean: bool) -> Option<Tenure> {
        let (seat, ticket) = {
            let mut seats = self.seats();
            let key = (account.name.clone(), client.into());
            let seat = seats.entry(key).or_insert_with_key(|key| self.new_seat(key.clone()));
            let ticket = seat.claimed.borrow().ticket + 1;
            seat.claimed.send_replace(Claim { ticket, clean });
            (Arc::clone(seat), ticket)
        };
        seat.wake.notify_one();
        let mut newer = seat.claimed.subscribe();
        let session = tokio::select! {
            biased;
            _ = newer.wait_for(|claim| claim.ticket != ticket) => return None,
            session = Arc::clone(&seat.session).lock_owned() => session,
        };
        let mut tenure = Tenure { seat, session, account: Arc::clone(account), ticket };
        if tenure.is_superseded() {
            return None;
        }
        if clean {
            tenure.forget();
        }
        if let Some(past) = self.pasts().take(tenure.seat.sender) {
            tenure.session.past = past;
        }
        tenure.seat.outbox.set_online(true);
        Some(tenure)
    }

    fn new_seat(&self, key: Key) -> Arc<Seat> {
        let wake = Arc::new(Notify::new());
        Arc::new(Seat {
            number: self.next_number(),
            sender: Repeats::session(&key.0, &key.1),
            outbox: Arc::new(Outbox::new(&self.limits, Arc::clone(&wake))),
            wake,
            key,
            session: Arc::default(),
            claimed: watch::Sender::new(Claim { ticket: 0, clean: false }),
        })
    }

    /// The connection has ended. Its session is kept for `expiry`, its will published when the standard says
    /// so: what must be published at once is given back.
    pub(crate) fn release(
        self: &Arc<Self>,
        mut tenure: Tenure,
        expiry: Duration,
        will: Option<PendingWill>,
    ) -> Option<PendingWill> {
        tenure.seat.outbox.set_online(false);
        if expiry.is_zero() {
            // The session ends here; a newer claim finds it empty.
            tenure.forget();
            self.vacate(&mut tenure);
            return will;
        }
        if let Some(clean) = tenure.superseded_by_clean() {
            // The newer connection has the session now; a will that may wait for the client's return has
            // got what it waited for, unless the client begins anew.
            return will.filter(|will| clean || will.delay.is_zero());
        }
        let (now, later) = match will {
            Some(will) if will.delay.is_zero() => (Some(will), None),
            other => (None, other),
        };
        tokio::spawn(Arc::clone(self).keep(tenure, expiry, later));
        now
    }

    /// Sits on the seat of a client that is away.
    async fn keep(self: Arc<Self>, mut tenure: Tenure, expiry: Duration, mut will: Option<PendingWill>) {
        let (place, evicted) = self.go_away();
        let end = Instant::now() + expiry;
        let will_at = Instant::now() + will.as_ref().map_or(expiry, |will| will.delay.min(expiry));
        let mut claimed = tenure.seat.claimed.subscribe();
        let ticket = tenure.ticket;
        loop {
            tokio::select! {
                biased;
                _ = claimed.wait_for(|claim| claim.ticket != ticket) => break,
                () = evicted.notified() => break,
                () = sleep_until(end) => break,
                () = sleep_until(will_at), if will.is_some() => {
                    if let Some(will) = will.take() {
                        // A task of its own, so that the seat can be claimed meanwhile.
                        tokio::spawn(will::publish(will));
                    }
                }
            }
        }
        self.away().remove(&place);
        let goes_on = tenure.superseded_by_clean() == Some(false);
        if !goes_on {
            tenure.forget();
            self.vacate(&mut tenure);
        }
        drop(tenure);
        if let Some(will) = will.filter(|_| !goes_on) {
            will::publish(will).await;
        }
    }

    /// Notes that one more client is away; the one away for longest makes room if there are too many.
    fn go_away(&self) -> (u64, Arc<Notify>) {
        let (place, evicted) = (self.next_number(), Arc::new(Notify::new()));
        let mut away = self.away();
        away.insert(place, Arc::clone(&evicted));
        if away.len() > self.limits.max_offline_sessions
            && let Some((_, longest)) = away.pop_first()
        {
            longest.notify_one();
        }
        (place, evicted)
    }

    /// Takes the seat away, unless someone has claimed it. What the client may publish again is kept.
    fn vacate(&self, tenure: &mut Tenure) {
        let mut seats = self.seats();
        if !tenure.is_superseded() {
            seats.remove(&tenure.seat.key);
            let past = std::mem::take(&mut tenure.session.past);
            if !past.is_empty() {
                self.pasts().keep(tenure.seat.sender, past);
            }
        }
    }
}

impl Tenure {
    /// A newer connection wants the session.
    pub(crate) fn is_superseded(&self) -> bool {
        self.seat.claimed.borrow().ticket != self.ticket
    }

    /// If so: whether it wants to begin anew.
    fn superseded_by_clean(&self) -> Option<bool> {
        let claim = *self.seat.claimed.borrow();
        (claim.ticket != self.ticket).then_some(claim.clean)
    }

    /// Ends the session: nothing of it is left but the seat.
    pub(crate) fn forget(&mut self) {
        let kept = self.session.subscriptions.iter().map(|(filter, kept)| (&**filter, kept));
        if kept.len() > 0 {
            self.account.space.unsubscribe(self.seat.number, kept);
        }
        // A client that begins anew may still repeat what it got no acknowledgement for; many do.
        let past = std::mem::take(&mut self.session.past).of_an_ended_session();
        *self.session = Session::default();
        self.session.past = past;
        self.seat.outbox.clear();
    }
}
