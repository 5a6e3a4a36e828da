//! Turns for handshakes: so many of a port at a time, and so few of one address that it cannot take them all. Asked by
//! [`super::Acceptor`].

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::counted::Counted;
use crate::model::network;

/// The turns of one port.
#[derive(Debug)]
pub(super) struct Turns {
    most: usize,
    most_of_one: usize,
    taken: Mutex<Taken>,
}

/// At most as many networks as turns.
#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_network: Counted<IpAddr>,
}

/// A handshake that is under way.
#[derive(Debug)]
pub(super) struct Turn<'t> {
    turns: &'t Turns,
    network: IpAddr,
}

/// Who has no turn left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The port.
    Port,
    /// The address.
    Address,
}

impl Turns {
    pub(super) fn new(most: usize, most_of_one: usize) -> Self {
        Self { most, most_of_one, taken: Mutex::default() }
    }

    /// A turn for this address, until it is dropped.
    pub(super) fn take(&self, address: IpAddr) -> Result<Turn<'_>, Full> {
        let network = network::of(address);
        let mut taken = self.lock();
        if taken.all >= self.most {
            return Err(Full::Port);
        }
        if taken.by_network.of(&network) >= self.most_of_one {
            return Err(Full::Address);
        }
        taken.by_network.enter(network);
        taken.all += 1;
        Ok(Turn { turns: self, network })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut taken = self.turns.lock();
        taken.all -= 1;
        taken.by_network.leave(&self.network);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_its_share_of_turns_and_others_theirs() {
        let turns = Turns::new(4, 2);
        let take = |address: &str| turns.take(address.parse().unwrap());
        let first = take("192.0.2.1").unwrap();
        let second = take("::ffff:192.0.2.1").unwrap();
        assert_eq!(take("192.0.2.1").unwrap_err(), Full::Address);
        let (other, another) = (take("2001:db8::1").unwrap(), take("2001:db8::2").unwrap());
        assert_eq!(take("192.0.2.9").unwrap_err(), Full::Port);
        drop(first);
        assert_eq!(take("2001:db8::3").unwrap_err(), Full::Address);
        let again = take("192.0.2.1").unwrap();
        drop((again, other, another, second));
        let taken = turns.lock();
        assert!(taken.all == 0 && taken.by_network.is_empty());
    }
}
