//! Many connections at once: listed, sent to and closed, in the order of their ids and in pieces.
//!
//! Ids are found in the directory, outside the workers. A worker is asked about those of a piece, at most [`PIECE`], and
//! does what else it has to do before it is asked again. At most [`AT_ONCE`] calls do so; the others wait. What is sent or
//! closed cannot be taken back, so a call whose time is over says how far it has come.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::Workers;
use super::clients;
use super::close::Close;
use super::connections::{self, Told, What};
use super::directory::{Directory, PathEntry};
use super::shard::ShardActor;
use crate::model::connection::{Connection, Ended, Page, Reach, Selection, after};
use crate::telemetry;

/// Connections that a worker is asked about in one message.
const PIECE: usize = 256;
/// Calls that ask the workers at the same time.
const AT_ONCE: usize = 4;
/// Connections that are looked at for one page, however few of them are on it.
const MOST_LOOKED_AT: usize = 100_000;

/// Asks about many connections, from any thread.
#[derive(Clone)]
pub(super) struct Sweeps {
    directory: Arc<Directory>,
    workers: Arc<Workers>,
    turns: Arc<Semaphore>,
}

/// Does something with those of these sessions that are selected.
#[derive(Debug, Message)]
#[rtype(result = "Swept")]
pub(super) struct Sweep {
    places: Vec<Place>,
    selection: Arc<Selection>,
    what: What,
}

/// Where a session is on its worker.
#[derive(Debug)]
struct Place {
    path: Arc<PathEntry>,
    view: u16,
    key: u32,
    id: Uuid,
}

/// What has come of it.
#[derive(Debug, Default, MessageResponse)]
pub(super) struct Swept {
    seen: Vec<Connection>,
    /// Sessions with which it is done.
    done: u64,
    /// Sessions that had no room.
    no_room: u64,
    /// Not all were asked in time.
    is_cut_short: bool,
}

impl Swept {
    fn add(&mut self, more: Self) {
        self.seen.extend(more.seen);
        self.done += more.done;
        self.no_room += more.no_room;
        self.is_cut_short |= more.is_cut_short;
    }
}

/// What is left to be swept.
struct Rest {
    selection: Arc<Selection>,
    paths: Vec<Arc<PathEntry>>,
    ids: Range<Uuid>,
}

impl Rest {
    /// The next ids, at most so many.
    fn next(&mut self, most: usize) -> Vec<Uuid> {
        let found = clients::first(self.paths.iter().map(|path| &path.members), self.ids.clone(), most);
        if let Some(last) = found.last() {
            self.ids.start = after(*last);
        }
        found
    }
}

impl Sweeps {
    pub(super) fn new(directory: Arc<Directory>, workers: Arc<Workers>) -> Self {
        Self { directory, workers, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// A page of the selected connections from the id `start` on.
    pub(super) async fn list(&self, selection: Selection, start: Uuid, size: usize) -> Option<Page> {
        self.page(selection, start, size, MOST_LOOKED_AT).await
    }

    /// The same, made of at most about so many that are looked at.
    pub(super) async fn page(
        &self,
        selection: Selection,
        start: Uuid,
        size: usize,
        most_looked_at: usize,
    ) -> Option<Page> {
        let mut rest = self.begin(selection)?;
        rest.ids.start = rest.ids.start.max(start);
        let _turn = self.turns.acquire().await;
        let (mut page, mut looked_at) = (Page::default(), 0);
        loop {
            // One more than the page holds tells whether there is another.
            let lacking = size + 1 - page.connections.len();
            let most = if rest.selection.looks_inside() { PIECE } else { lacking.min(PIECE) };
            let ids = rest.next(most);
            let Some(last) = ids.last().copied() else { return Some(page) };
            looked_at += ids.len();
            let swept = self.ask(&rest.selection, ids, &What::Look, None).await;
            page.connections.extend(swept.seen);
            page.connections.sort_unstable_by_key(|connection| connection.id);
            if page.connections.len() > size {
                page.connections.truncate(size);
                page.next = page.connections.last().map(|connection| connection.id);
                return Some(page);
            }
            if looked_at >= most_looked_at {
                page.next = Some(last);
                return Some(page);
            }
        }
    }

    /// Sends one message to all selected connections, until the deadline.
    pub(super) async fn send(
        &self,
        selection: Selection,
        message: Bytes,
        deadline: Instant,
    ) -> Option<Reach> {
        let Swept { done, no_room, is_cut_short, .. } =
            self.all(selection, What::Send(message), deadline).await?;
        Some(Reach { queued: done, no_room, is_cut_short })
    }

    /// Closes all selected connections, until the deadline.
    pub(super) async fn close(&self, selection: Selection, close: Close, deadline: Instant) -> Option<Ended> {
        let Swept { done, is_cut_short, .. } = self.all(selection, What::Close(close), deadline).await?;
        Some(Ended { closed: done, is_cut_short })
    }

    async fn all(&self, selection: Selection, what: What, deadline: Instant) -> Option<Swept> {
        let mut rest = self.begin(selection)?;
        let turn = timeout_at(deadline, self.turns.acquire()).await;
        let mut all = Swept { is_cut_short: turn.is_err(), ..Swept::default() };
        while !all.is_cut_short {
            let ids = rest.next(PIECE);
            if ids.is_empty() {
                break;
            }
            all.add(self.ask(&rest.selection, ids, &what, Some(deadline)).await);
        }
        Some(all)
    }

    /// Everything that is selected now; who comes later is not meant.
    fn begin(&self, selection: Selection) -> Option<Rest> {
        let paths = self.directory.paths(&selection.gateway_id, selection.path.as_ref())?;
        let ids = selection.ids(Uuid::now_v7());
        Some(Rest { selection: Arc::new(selection), paths, ids })
    }

    /// Asks the workers of these connections, all at the same time. A worker that has not begun at the deadline does
    /// nothing any more.
    async fn ask(
        &self,
        selection: &Arc<Selection>,
        ids: Vec<Uuid>,
        what: &What,
        deadline: Option<Instant>,
    ) -> Swept {
        let clients = self.directory.clients();
        let mut by_worker: BTreeMap<u16, Vec<Place>> = BTreeMap::new();
        for id in ids {
            let Some(client) = clients.get(&id) else { continue };
            let place = Place { path: Arc::clone(&client.path), view: client.view, key: client.key, id };
            by_worker.entry(client.worker).or_default().push(place);
        }
        let late = || Swept { is_cut_short: true, ..Swept::default() };
        let asked = by_worker.into_iter().filter_map(|(worker, places)| {
            let sweep = Sweep { places, selection: Arc::clone(selection), what: what.clone() };
            let shard = self.workers.shard(worker.into())?;
            Some(async move {
                // A worker that has ended has no connections.
                let Some(deadline) = deadline else { return shard.send(sweep).await.unwrap_or_default() };
                if Instant::now() >= deadline {
                    return late();
                }
                let answer = timeout_at(deadline, shard.send(sweep)).await;
                answer.map_or_else(|_| late(), Result::unwrap_or_default)
            })
        });
        let mut all = Swept::default();
        join_all(asked).await.into_iter().for_each(|swept| all.add(swept));
        all
    }
}

impl Handler<Sweep> for ShardActor {
    type Result = Swept;

    fn handle(&mut self, sweep: Sweep, _: &mut Self::Context) -> Self::Result {
        telemetry::contain("ShardActor", || self.sweep(&sweep)).unwrap_or_default()
    }
}

impl ShardActor {
    fn sweep(&self, sweep: &Sweep) -> Swept {
        let mut swept = Swept::default();
        for place in &sweep.places {
            let session = self.shard().session(&place.path.key, place.view, place.key, place.id);
            let Some(session) = session.filter(|session| session.is_open()) else { continue };
            let idle = Duration::from_secs(session.idle_seconds().into());
            if !sweep.selection.takes(session.source_ip(), session.guest.subject(), idle) {
                continue;
            }
            match connections::act(&session, &sweep.what) {
                Told::Seen(connection) => swept.seen.push(connection),
                Told::Sent { has_room: false } => swept.no_room += 1,
                Told::Sent { has_room: true } | Told::Closed => swept.done += 1,
            }
        }
        swept
    }
}
