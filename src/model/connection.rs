//! What is known of an open WebSocket connection, and which ones a call is about.

use std::net::IpAddr;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use uuid::{Builder, Uuid};

use super::gateway::PathKey;
use super::id::Id;

/// What is known of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Version 7: ids are in the order in which clients came.
    pub id: Uuid,
    /// Where it is open.
    pub path: PathKey,
    /// Where it comes from.
    pub source_ip: Option<IpAddr>,
    /// What the client calls itself.
    pub user_agent: String,
    /// Who it is, as the path's authorizer says.
    pub subject: Option<String>,
    /// When it came.
    pub connected_at: SystemTime,
    /// When a message or a ping came from it, or a message was sent to it, last.
    pub last_active_at: SystemTime,
    /// Bytes in memory that its socket has not taken yet.
    pub waiting_bytes: u64,
    /// Whether it reads from the journal what it was too slow for, or missed.
    pub is_behind: bool,
}

/// Which connections a call is about: those for which all that is given holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The gateway they came to.
    pub gateway_id: Id,
    /// One of its paths, as it is declared; all of them without.
    pub path: Option<Id>,
    /// The network they come from.
    pub source: Option<IpNet>,
    /// Who they are.
    pub subject: Option<String>,
    /// They came at this time or later.
    pub connected_after: Option<SystemTime>,
    /// They came before this time.
    pub connected_before: Option<SystemTime>,
    /// They were not in use for so long.
    pub idle: Option<Duration>,
}

/// A page of connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of their ids.
    pub connections: Vec<Connection>,
    /// There may be more after this id.
    pub next: Option<Uuid>,
}

/// What a message to many has come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// Connections that it is on its way to.
    pub queued: u64,
    /// Connections that had no room for it.
    pub no_room: u64,
    /// The time was over before all had been asked.
    pub is_cut_short: bool,
}

/// What the closing of many has come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    /// Connections that close.
    pub closed: u64,
    /// The time was over before all had been asked.
    pub is_cut_short: bool,
}

impl Selection {
    /// All connections of a gateway.
    pub fn of(gateway_id: Id) -> Self {
        Self {
            gateway_id,
            path: None,
            source: None,
            subject: None,
            connected_after: None,
            connected_before: None,
            idle: None,
        }
    }

    /// The ids that these connections can have: those of their times of coming, and none that is given from `until` on.
    pub fn ids(&self, until: Uuid) -> Range<Uuid> {
        let start = self.connected_after.map_or(Uuid::nil(), first_id);
        let end = self.connected_before.map_or(until, |time| first_id(time).min(until));
        start..end
    }

    /// Whether more has to be known of a connection than its id and its path.
    pub fn looks_inside(&self) -> bool {
        self.source.is_some() || self.subject.is_some() || self.idle.is_some()
    }

    /// Whether a connection of the right path and time is one of them.
    pub fn takes(&self, source_ip: Option<IpAddr>, subject: Option<&str>, idle: Duration) -> bool {
        self.source.is_none_or(|network| source_ip.is_some_and(|ip| network.contains(&ip)))
            && self.subject.as_deref().is_none_or(|wanted| subject == Some(wanted))
            && self.idle.is_none_or(|least| idle >= least)
    }
}

/// The lowest id of a client that comes at this time or later. Ids tell milliseconds.
fn first_id(time: SystemTime) -> Uuid {
    let nanos = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let millis = u64::try_from(nanos.div_ceil(1_000_000)).unwrap_or(u64::MAX);
    // An id has room for 48 bits of it: until the year 10889.
    Builder::from_unix_timestamp_millis(millis.min((1 << 48) - 1), &[0; 10]).into_uuid()
}

/// The id after this one.
pub fn after(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128().saturating_add(1))
}

/// When the client with this id came.
pub fn connected_at(id: Uuid) -> Option<SystemTime> {
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::{NoContext, Timestamp};

    use super::*;

    fn id(millis: u64) -> Uuid {
        Uuid::new_v7(Timestamp::from_unix(NoContext, millis / 1000, (millis % 1000) as u32 * 1_000_000))
    }

    fn time(nanos: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(nanos)
    }

    #[test]
    fn without_times_every_id_is_meant_that_has_been_given() {
        let until = id(5000);
        let ids = Selection::of("main".into()).ids(until);
        assert_eq!(ids, Uuid::nil()..until);
        assert!(ids.contains(&id(4999)) && !ids.contains(&until));
        assert!(!Selection::of("main".into()).looks_inside());
    }

    #[test]
    fn all_that_is_given_has_to_hold() {
        let all = Selection::of("main".into());
        let ip = Some(IpAddr::from([10, 1, 2, 3]));
        assert!(all.takes(None, None, Duration::ZERO));
        let network = Selection { source: "10.0.0.0/8".parse().ok(), ..all.clone() };
        assert!(network.takes(ip, None, Duration::ZERO));
        assert!(!network.takes(Some(IpAddr::from([11, 1, 2, 3])), None, Duration::ZERO));
        assert!(!network.takes(None, None, Duration::ZERO));
        let subject = Selection { subject: Some("ann".to_owned()), ..network };
        assert!(subject.takes(ip, Some("ann"), Duration::ZERO));
        assert!(!subject.takes(ip, Some("anna"), Duration::ZERO) && !subject.takes(ip, None, Duration::ZERO));
        let idle = Selection { idle: Some(Duration::from_secs(60)), ..subject };
        assert!(idle.takes(ip, Some("ann"), Duration::from_secs(60)));
        assert!(!idle.takes(ip, Some("ann"), Duration::from_secs(59)));
        assert!(idle.looks_inside());
    }

    proptest! {
        #[test]
        fn times_of_coming_are_ranges_of_ids(came in 0u64..1 << 40, from in 0u64..1 << 60, to in 0u64..1 << 60) {
            let selection = Selection {
                connected_after: Some(time(from)),
                connected_before: Some(time(to)),
                ..Selection::of("main".into())
            };
            let id = id(came);
            let at = connected_at(id).unwrap();
            prop_assert_eq!(at, UNIX_EPOCH + Duration::from_millis(came));
            let is_meant = time(from) <= at && at < time(to);
            prop_assert_eq!(selection.ids(Uuid::max()).contains(&id), is_meant);
        }

        #[test]
        fn no_time_is_a_fault(seconds: u32, nanos in 0u32..1_000_000_000, before: bool) {
            let span = Duration::new(u64::from(seconds) * 100, nanos);
            let time = if before { UNIX_EPOCH.checked_sub(span) } else { UNIX_EPOCH.checked_add(span) };
            let selection = Selection { connected_after: time, ..Selection::of("main".into()) };
            prop_assert!(selection.ids(Uuid::max()).start < Uuid::max());
        }
    }
}
