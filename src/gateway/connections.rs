//! Single connections: found by their id, sent to and closed, on whatever worker they are.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::prelude::*;
use tokio::time::Instant;
use uuid::Uuid;

use super::Workers;
use super::close::Close;
use super::directory::Directory;
use super::frame;
use super::shard::ShardActor;
use super::socket::Session;
use super::sweep::Sweeps;
use crate::model::activity::PathActivity;
use crate::model::connection::{self, Connection, Ended, Page, Reach, Selection};
use crate::model::gateway::PathKey;

/// What becomes of a message for one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Queued,
    /// The client takes so little that there is no room for it.
    Full,
    /// There is no such connection.
    Gone,
}

/// Does something with one session of a worker. The reply says what came of it, if the session is there.
#[derive(Debug, Message)]
#[rtype(result = "Option<Told>")]
pub(super) struct Tell {
    pub(super) path: PathKey,
    pub(super) view: u16,
    pub(super) key: u32,
    pub(super) id: Uuid,
    pub(super) what: What,
}

/// What is to be done.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// Say what is known of it.
    Look,
    /// Send these frames, one message.
    Send(bytes::Bytes),
    /// Close it.
    Close(Close),
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Told {
    /// What is known of it.
    Seen(Connection),
    /// Whether there was room for the message.
    Sent { has_room: bool },
    /// It closes.
    Closed,
}

/// Asks for connections, from any thread.
#[derive(Clone)]
pub struct Connections {
    directory: Arc<Directory>,
    workers: Arc<Workers>,
    sweeps: Sweeps,
}

impl Connections {
    /// The connections of a directory's gateways.
    pub fn new(directory: Arc<Directory>, workers: Arc<Workers>) -> Self {
        let sweeps = Sweeps::new(Arc::clone(&directory), Arc::clone(&workers));
        Self { directory, workers, sweeps }
    }

    /// What goes out on each path that clients can reach, by gateway and path.
    pub fn activity(&self) -> Vec<PathActivity> {
        self.directory.activity()
    }

    /// An open connection.
    pub async fn get(&self, id: &str) -> Option<Connection> {
        match self.tell(id, What::Look).await? {
            Told::Seen(connection) => Some(connection),
            Told::Sent { .. } | Told::Closed => None,
        }
    }

    /// Sends one message to a connection.
    pub async fn send(&self, id: &str, data: &[u8], is_text: bool) -> Sent {
        match self.tell(id, What::Send(frame::message(data, is_text))).await {
            Some(Told::Sent { has_room: true }) => Sent::Queued,
            Some(Told::Sent { has_room: false }) => Sent::Full,
            _ => Sent::Gone,
        }
    }

    /// Closes a connection with 1001. False: there is none.
    pub async fn disconnect(&self, id: &str) -> bool {
        self.tell(id, What::Close(Close::Disconnected)).await.is_some()
    }

    /// A page of at most `size` of the connections whose ids are not below `start`. `None`: no such path.
    pub async fn list(&self, selection: Selection, start: Uuid, size: usize) -> Option<Page> {
        self.sweeps.list(selection, start, size).await
    }

    /// Sends one message to all of these that are open now. It has no place in the order of their paths, and is not
    /// kept. It lasts not much longer than `patience`. `None`: no such path.
    pub async fn broadcast(
        &self,
        selection: Selection,
        data: &[u8],
        is_text: bool,
        patience: Duration,
    ) -> Option<Reach> {
        let message = frame::message(data, is_text);
        self.sweeps.send(selection, message, Instant::now() + patience).await
    }

    /// Closes all of these with 1001 and says how many. It lasts not much longer than `patience`. `None`: no such path.
    pub async fn disconnect_all(&self, selection: Selection, patience: Duration) -> Option<Ended> {
        self.sweeps.close(selection, Close::Disconnected, Instant::now() + patience).await
    }

    async fn tell(&self, id: &str, what: What) -> Option<Told> {
        let id = Uuid::try_parse(id).ok()?;
        let (tell, worker) = {
            let clients = self.directory.clients();
            let client = clients.get(&id)?;
            let (path, view, key) = (client.path.key.clone(), client.view, client.key);
            (Tell { path, view, key, id, what }, client.worker)
        };
        let shard = self.workers.shard(worker.into())?;
        shard.send(tell).await.ok()?
    }
}

impl Handler<Tell> for ShardActor {
    type Result = Option<Told>;

    fn handle(&mut self, tell: Tell, _: &mut Self::Context) -> Self::Result {
        let session = self.shard().session(&tell.path, tell.view, tell.key, tell.id)?;
        Some(act(&session, &tell.what))
    }
}

/// Does something with a session.
pub(super) fn act(session: &Session, what: &What) -> Told {
    match what {
        What::Look => Told::Seen(look(session)),
        What::Send(message) => Told::Sent { has_room: session.push_message(message.clone()) },
        What::Close(close) => {
            session.close(*close);
            Told::Closed
        }
    }
}

fn look(session: &Session) -> Connection {
    let now = SystemTime::now();
    let connected_at = connection::connected_at(session.guest.id).unwrap_or(now);
    let idle = Duration::from_secs(session.idle_seconds().into());
    Connection {
        id: session.guest.id,
        path: session.entry.key.clone(),
        source_ip: session.source_ip(),
        user_agent: session.guest.user_agent.as_deref().unwrap_or_default().to_owned(),
        subject: session.guest.subject().map(str::to_owned),
        connected_at,
        last_active_at: now.checked_sub(idle).unwrap_or(now).max(connected_at).min(now),
        waiting_bytes: session.waiting_bytes(),
        is_behind: session.cursor().is_none(),
    }
}

/// Closes every client of paths that are no more, or not just now.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub(super) struct Withdraw(pub(super) Arc<[PathKey]>);

impl Handler<Withdraw> for ShardActor {
    type Result = ();

    fn handle(&mut self, Withdraw(paths): Withdraw, _: &mut Self::Context) -> Self::Result {
        for key in paths.iter() {
            for path in self.shard().views(key) {
                path.end_streams();
                path.sessions().iter().for_each(|session| session.close(Close::Withdrawn));
            }
        }
    }
}
