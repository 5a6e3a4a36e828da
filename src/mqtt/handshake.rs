//! From an accepted socket to a known client: reads CONNECT, checks the login and the will, claims the
//! session, answers. Called by [`super::listener`]; what it makes is served by [`super::connection`].

use std::sync::Arc;

use bytes::BytesMut;
use tokio::time::timeout;

use super::accounts::{Account, Login};
use super::close::Close;
use super::connection::{Connection, farewell};
use super::encode::{self, Welcome};
use super::packet::{self, Connect, Version, Will};
use super::stream::Stream;
use super::{Phase, Shared};
use crate::model::topic;

/// A refusal: why, and what to answer. `None`: nothing, as before a CONNECT.
struct Refused(Close, Option<Answer>);

/// A CONNACK that refuses: its version and the codes of 3.1.1 and 5.0.
#[derive(Clone, Copy)]
struct Answer(Version, u8, u8);

/// Makes a connection of a socket, or answers why not.
pub(crate) async fn shake(mut stream: Stream, shared: &Arc<Shared>) -> Result<Connection, Close> {
    let mut phase = shared.phase.subscribe();
    let greeted = tokio::select! {
        _ = phase.wait_for(|phase| *phase != Phase::Running) => return Err(Close::Stopping),
        greeted = greet(&mut stream, shared) => greeted,
    };
    match greeted {
        // Not interrupted: a claim must not be given up half-way.
        Ok(greeted) => greeted.seat(stream, shared).await,
        Err(Refused(close, answer)) => {
            if let Some(Answer(version, v3, v5)) = answer {
                let mut out = BytesMut::new();
                encode::refuse(&mut out, version, v3, v5);
                farewell(stream, &out).await;
            }
            Err(close)
        }
    }
}

/// A client that may come in.
struct Greeted {
    connect: Connect,
    account: Arc<Account>,
    /// What came after the CONNECT.
    input: BytesMut,
}

async fn greet(stream: &mut Stream, shared: &Shared) -> Result<Greeted, Refused> {
    let mut input = BytesMut::with_capacity(1024);
    let read = timeout(shared.limits.connect_timeout, read_connect(stream, &mut input, shared));
    let connect = read.await.unwrap_or(Err(Refused(Close::ConnectTimeout, None)))?;
    let answer = |v3, v5| Some(Answer(connect.version, v3, v5));
    if connect.wants_auth {
        return Err(Refused(Close::AuthMethod, answer(5, 0x8c)));
    }
    let certificate = stream.peer_certificate();
    let login = Login::of(connect.username.as_deref(), connect.password.as_deref(), certificate);
    let Some(login) = login else {
        return Err(Refused(Close::Login, answer(5, 0x87)));
    };
    // Those who wait for their turn longer than a client waits for its CONNACK have gone.
    let accounts = shared.accounts();
    let login = timeout(shared.limits.connect_timeout, accounts.log_in(login));
    let Some(account) = login.await.map_err(|_| Refused(Close::ConnectTimeout, answer(3, 0x88)))? else {
        return Err(Refused(Close::Login, answer(4, 0x86)));
    };
    if let Some(will) = &connect.will {
        check_will(will, &account, connect.version).map_err(|code| Refused(Close::Will, answer(5, code)))?;
    }
    Ok(Greeted { connect, account, input })
}

async fn read_connect(
    stream: &mut Stream,
    input: &mut BytesMut,
    shared: &Shared,
) -> Result<Connect, Refused> {
    let frame = loop {
        // Nothing but a CONNECT may begin; a stranger gets no memory for anything else.
        if input.first().is_some_and(|first| *first != 0x10) {
            return Err(Refused(Close::NotConnect, None));
        }
        let frame =
            packet::frame(input, shared.limits.max_connect_bytes).map_err(|close| Refused(close, None))?;
        if let Some(frame) = frame.filter(|frame| frame.total <= input.len()) {
            break frame;
        }
        input.reserve(512);
        match stream.read_buf(input).await {
            Ok(1..) => {}
            _ => return Err(Refused(Close::Gone, None)),
        }
    };
    let bytes = input.split_to(frame.total);
    packet::connect(&bytes, frame).map_err(|close| {
        let version = packet::version_of_connect(bytes.get(frame.header..).unwrap_or_default());
        let answer = match close {
            Close::Version => Some(Answer(Version::V3, 1, 0x84)),
            Close::ClientId => Some(Answer(version, 2, 0x85)),
            _ => None,
        };
        Refused(close, answer)
    })
}

/// The reason code (5.0) for a will that is not taken.
fn check_will(will: &Will, account: &Account, version: Version) -> Result<(), u8> {
    if topic::check_name(&will.topic).is_err() {
        return Err(0x90);
    }
    // RETAIN is announced as not available; 3.1.1 has no word for that, there it is ignored.
    if will.retain && version == Version::V5 {
        return Err(0x9a);
    }
    account.space.topics().publish(&account.identity, &will.topic).map(drop).ok_or(0x87)
}

impl Greeted {
    /// Claims the session and welcomes the client.
    async fn seat(self, stream: Stream, shared: &Arc<Shared>) -> Result<Connection, Close> {
        let Self { mut connect, account, input } = self;
        let limits = &shared.limits;
        let assigned_id =
            connect.client_id.is_empty().then(|| format!("auto-{:032x}", rand::random::<u128>()));
        let client_id = assigned_id.as_deref().unwrap_or(&connect.client_id);
        let claim = shared.sessions.claim(&account, client_id, connect.clean_start);
        let mut tenure = claim.await.ok_or(Close::TakenOver)?;
        let session_present = tenure.session.exists;
        tenure.session.resume();

        let longest = u32::try_from(limits.max_session_expiry.as_secs()).unwrap_or(u32::MAX);
        let asked = connect.session_expiry;
        connect.session_expiry = match connect.version {
            Version::V5 => asked.min(longest),
            Version::V3 if connect.clean_start => 0,
            Version::V3 => u32::try_from(limits.session_expiry.as_secs()).unwrap_or(u32::MAX),
        };
        let mut out = BytesMut::with_capacity(64);
        let welcome = Welcome {
            session_present,
            session_expiry: (asked > connect.session_expiry).then_some(connect.session_expiry),
            receive_max: limits.max_unacknowledged,
            max_packet: u32::try_from(limits.max_packet_bytes()).unwrap_or(u32::MAX),
            topic_aliases: limits.max_topic_aliases,
            assigned_id,
        };
        encode::welcome(&mut out, connect.version, welcome);
        Ok(Connection::new(stream, shared, account, tenure, connect, input, out))
    }
}
