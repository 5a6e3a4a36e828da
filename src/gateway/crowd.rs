//! How many clients a path has: in all, from one address, of one subject. Limits are asked here before a client comes.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::counted::Counted;
use crate::model::limits::Limits;
use crate::model::network;

/// Who comes, as limits see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Party {
    /// Where from.
    pub(super) address: Option<IpAddr>,
    /// Who, as the path's authorizer says.
    pub(super) subject: Option<Arc<Subject>>,
}

/// Who a client is. A name is worth what says so: subjects of two issuers are two.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    issuer: Option<Box<str>>,
    name: Box<str>,
}

impl Subject {
    pub(super) fn new(issuer: Option<&str>, name: &str) -> Arc<Self> {
        Arc::new(Self { issuer: issuer.map(Into::into), name: name.into() })
    }
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crowded {
    /// That of the path.
    Path,
    /// That of an address.
    Address,
    /// That of a subject.
    Subject,
}

/// The clients of a path, counted.
#[derive(Debug, Default)]
pub(super) struct Crowd(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_address: Counted<IpAddr>,
    by_subject: Counted<Arc<Subject>>,
}

impl Crowd {
    /// Counts a client in, unless that passes a limit.
    pub(super) fn enter(&self, party: &Party, limits: &Limits) -> Result<(), Crowded> {
        let mut counts = self.lock();
        if counts.all >= limits.connections {
            return Err(Crowded::Path);
        }
        let (address, subject) = (party.network(), party.subject.as_ref());
        if address.is_some_and(|address| counts.by_address.of(&address) >= limits.connections_per_address) {
            return Err(Crowded::Address);
        }
        if subject.is_some_and(|subject| counts.by_subject.of(subject) >= limits.connections_per_subject) {
            return Err(Crowded::Subject);
        }
        counts.all += 1;
        if let Some(address) = address {
            counts.by_address.enter(address);
        }
        if let Some(subject) = subject {
            counts.by_subject.enter(Arc::clone(subject));
        }
        Ok(())
    }

    /// Counts a client out that has been counted in.
    pub(super) fn leave(&self, party: &Party) {
        let mut counts = self.lock();
        counts.all -= 1;
        if let Some(address) = party.network() {
            counts.by_address.leave(&address);
        }
        if let Some(subject) = &party.subject {
            counts.by_subject.leave(subject);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Party {
    /// The address as limits count it.
    fn network(&self) -> Option<IpAddr> {
        self.address.map(network::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(address: &str, subject: &str) -> Party {
        let subject = Some(subject).filter(|subject| !subject.is_empty());
        let subject = subject.map(|subject| Subject::new(None, subject));
        Party { address: Some(address.parse().unwrap()), subject }
    }

    #[test]
    fn a_subject_is_one_of_its_issuer() {
        let limits = Limits { connections_per_subject: 1, ..Limits::default() };
        let crowd = Crowd::default();
        let of = |issuer: Option<&str>| Party { subject: Some(Subject::new(issuer, "ann")), address: None };
        for issuer in [Some("https://a"), Some("https://b"), None] {
            assert_eq!(crowd.enter(&of(issuer), &limits), Ok(()), "{issuer:?}");
            assert_eq!(crowd.enter(&of(issuer), &limits), Err(Crowded::Subject), "{issuer:?}");
        }
        crowd.leave(&of(Some("https://a")));
        assert_eq!(crowd.enter(&of(Some("https://b")), &limits), Err(Crowded::Subject));
        assert_eq!(crowd.enter(&of(Some("https://a")), &limits), Ok(()));
    }

    #[test]
    fn each_limit_counts_for_itself_and_is_free_again() {
        let limits = Limits {
            connections: 4,
            connections_per_address: 2,
            connections_per_subject: 1,
            ..Limits::default()
        };
        let crowd = Crowd::default();
        let (first, second) = (party("10.0.0.1", "ann"), party("::ffff:10.0.0.1", ""));
        assert_eq!(crowd.enter(&first, &limits), Ok(()));
        assert_eq!(crowd.enter(&second, &limits), Ok(()));
        assert_eq!(crowd.enter(&party("10.0.0.1", ""), &limits), Err(Crowded::Address));
        assert_eq!(crowd.enter(&party("10.0.0.2", "ann"), &limits), Err(Crowded::Subject));
        assert_eq!(crowd.enter(&party("2001:db8::1", ""), &limits), Ok(()));
        assert_eq!(crowd.enter(&party("2001:db8::2", ""), &limits), Ok(()));
        assert_eq!(crowd.enter(&party("10.0.0.9", ""), &limits), Err(Crowded::Path));
        crowd.leave(&first);
        assert_eq!(crowd.enter(&party("2001:db8::ffff:0:0:1", "ann"), &limits), Err(Crowded::Address));
        assert_eq!(crowd.enter(&party("10.0.0.1", "ann"), &limits), Ok(()));
        for party in [&first, &second, &party("2001:db8::1", ""), &party("2001:db8::1", "")] {
            crowd.leave(party);
        }
        let counts = crowd.lock();
        assert!(counts.all == 0 && counts.by_address.is_empty() && counts.by_subject.is_empty());
    }
}
