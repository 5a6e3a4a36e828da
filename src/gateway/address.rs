//! Where clients come from, and how often: behind a proxy by what it says, and no address faster than it may.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use actix_http::{Request, RequestHead};
use dashmap::DashMap;
use ipnet::IpNet;

use super::rate::Used;
use super::refusal::Refusal;
use crate::model::network;

/// Addresses whose pace is known; when there are more, those that have been quiet are forgotten.
const MOST_KNOWN: usize = 100_000;

/// What is known of addresses.
#[derive(Debug)]
pub(super) struct Addresses {
    proxies: Vec<IpNet>,
    per_second: u32,
    used: DashMap<IpAddr, Used>,
    started: Instant,
}

impl Addresses {
    /// `proxies` are believed what they say of their clients; an address may make `per_second` requests.
    pub(super) fn new(proxies: Vec<IpNet>, per_second: u32) -> Self {
        Self { proxies, per_second, used: DashMap::new(), started: Instant::now() }
    }

    /// Where a request comes from: the peer, or behind proxies that are believed the last address that none of them
    /// has (`X-Forwarded-For`).
    fn source(&self, peer: Option<SocketAddr>, head: &RequestHead) -> Option<IpAddr> {
        let peer = peer?.ip().to_canonical();
        if !self.is_proxy(peer) {
            return Some(peer);
        }
        let lines: Vec<_> =
            head.headers.get_all("x-forwarded-for").filter_map(|line| line.to_str().ok()).collect();
        let hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
        let mut source = peer;
        for hop in hops {
            // What is behind something that is no address is not known.
            let Some(hop) = address(hop.trim()) else { break };
            source = hop;
            if !self.is_proxy(hop) {
                break;
            }
        }
        Some(source)
    }

    /// Lets a request in, unless its source makes too many. Gives the source.
    pub(super) fn admit(&self, request: &Request) -> Result<Option<IpAddr>, Refusal> {
        let source = self.source(request.peer_addr(), request.head());
        if source.is_some_and(|source| !self.admits(source)) {
            return Err(Refusal::TooFast);
        }
        Ok(source)
    }

    /// Whether one more request of this address is let in now.
    fn admits(&self, source: IpAddr) -> bool {
        let now = self.started.elapsed().as_secs() as u32;
        if self.used.len() >= MOST_KNOWN {
            self.used.retain(|_, used| !used.is_over(now, self.per_second));
        }
        let mut used = self.used.entry(network::of(source)).or_default();
        let taken = used.take(1, now, self.per_second);
        *used = taken.unwrap_or(*used);
        taken.is_some()
    }

    fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|proxy| proxy.contains(&address))
    }
}

/// An address as proxies write it: with a port, or in brackets, too.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    ip.ok().map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_http::header::{HeaderName, HeaderValue};

    use super::*;

    fn source(peer: &str, lines: &[&'static str]) -> String {
        let proxies = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::1/128".parse().unwrap()];
        let mut head = RequestHead::default();
        for line in lines {
            head.headers.append(HeaderName::from_static("x-forwarded-for"), HeaderValue::from_static(line));
        }
        Addresses::new(proxies, 1).source(Some(peer.parse().unwrap()), &head).unwrap().to_string()
    }

    #[test]
    fn only_proxies_that_are_believed_say_where_a_client_comes_from() {
        for (peer, lines, expected) in [
            ("192.0.2.1:5", &["198.51.100.7"][..], "192.0.2.1"),
            ("10.0.0.1:5", &[], "10.0.0.1"),
            ("10.0.0.1:5", &["198.51.100.7"], "198.51.100.7"),
            ("[::ffff:10.0.0.1]:5", &["198.51.100.7:4711"], "198.51.100.7"),
            // What the client has put in itself stands before what the proxies saw.
            ("10.0.0.1:5", &["203.0.113.9, 198.51.100.7, 10.1.1.1"], "198.51.100.7"),
            ("10.0.0.1:5", &["203.0.113.9", "[2001:db8::2], 2001:db8::1"], "2001:db8::2"),
            ("10.0.0.1:5", &["unknown, 10.2.2.2"], "10.2.2.2"),
            ("10.0.0.1:5", &["10.3.3.3"], "10.3.3.3"),
        ] {
            assert_eq!(source(peer, lines), expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn an_address_has_its_pace_and_a_network_of_ipv6_is_one() {
        let addresses = Addresses::new(Vec::new(), 1);
        let admits = |text: &str| (0..20).filter(|_| addresses.admits(text.parse().unwrap())).count();
        let first = admits("192.0.2.1");
        assert!((10..20).contains(&first), "{first}");
        assert!(admits("2001:db8::1") >= 10 && admits("2001:db8::ffff") < 10);
    }
}
