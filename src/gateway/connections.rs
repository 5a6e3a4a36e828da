//! Single connections: found by their id, sent to and closed, on whatever worker they are.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::prelude::*;
use uuid::Uuid;

use super::Workers;
use super::clients::Clients;
use super::close::Close;
use super::directory::Directory;
use super::frame;
use super::shard::ShardActor;
use super::socket::Session;
use crate::model::gateway::PathKey;

/// What is known of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Where it is open.
    pub path: PathKey,
    /// Where it comes from.
    pub source_ip: Option<IpAddr>,
    /// What the client calls itself.
    pub user_agent: String,
    /// When it came.
    pub connected_at: SystemTime,
    /// When a message or a ping came from it, or a message was sent on its path, last.
    pub last_active_at: SystemTime,
}

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
    pub(super) key: usize,
    pub(super) id: Uuid,
    pub(super) what: What,
}

/// What is to be done.
#[derive(Debug)]
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
    clients: Arc<Clients>,
    workers: Arc<Workers>,
}

impl Connections {
    /// The connections of a directory's gateways.
    pub fn new(directory: &Directory, workers: Arc<Workers>) -> Self {
        Self { clients: directory.clients(), workers }
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

    async fn tell(&self, id: &str, what: What) -> Option<Told> {
        let id = Uuid::try_parse(id).ok()?;
        let (tell, worker) = {
            let client = self.clients.get(&id)?;
            (Tell { path: client.path.key.clone(), key: client.key as usize, id, what }, client.worker)
        };
        let shard = self.workers.shard(worker.into())?;
        shard.send(tell).await.ok()?
    }
}

impl Handler<Tell> for ShardActor {
    type Result = Option<Told>;

    fn handle(&mut self, tell: Tell, _: &mut Self::Context) -> Self::Result {
        // The key alone does not say in which view it is; the id does.
        let views = self.shard().views(&tell.path);
        let mut sessions = views.iter().filter_map(|path| path.session(tell.key));
        let session = sessions.find(|session| session.guest.id == tell.id)?;
        Some(match tell.what {
            What::Look => Told::Seen(look(&session)),
            What::Send(message) => Told::Sent { has_room: session.push_message(message) },
            What::Close(close) => {
                session.close(close);
                Told::Closed
            }
        })
    }
}

fn look(session: &Session) -> Connection {
    let now = SystemTime::now();
    let at = session.guest.id.get_timestamp().map(|at| at.to_unix());
    let connected_at =
        at.map_or(now, |(seconds, nanos)| SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos));
    let idle = Duration::from_secs(session.idle_seconds().into());
    Connection {
        path: session.entry.key.clone(),
        source_ip: session.source_ip(),
        user_agent: session.guest.user_agent.as_deref().unwrap_or_default().to_owned(),
        connected_at,
        last_active_at: now.checked_sub(idle).unwrap_or(now).max(connected_at),
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
