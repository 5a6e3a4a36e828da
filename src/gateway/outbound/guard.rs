//! Which addresses a gateway asks on behalf of its clients. Pure.
//!
//! A gateway's URLs are written by those who may edit gateways, and what stands on this machine's loopback, or answers
//! on its link with the keys of a cloud, is not theirs. So local addresses are asked only where the configuration
//! file lists them, by address or by name, and with their port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use url::Host;

use crate::model::target::Target;

/// The hosts of one port that may be local.
#[derive(Debug, Clone, Default)]
pub(super) struct Guard {
    listed: Arc<[Host]>,
}

impl Guard {
    /// The guard of a port.
    pub(super) fn new(targets: &[Target], port: u16) -> Self {
        let listed = targets.iter().filter(|target| target.port == port);
        Self { listed: listed.map(|target| target.host.clone()).collect() }
    }

    /// Whether nothing local may be asked.
    pub(super) fn is_strict(&self) -> bool {
        self.listed.is_empty()
    }

    /// Whether an address that `host` stands for may be asked.
    pub(super) fn allows(&self, host: &Host<&str>, ip: IpAddr) -> bool {
        let is_listed = |listed: &Host| match (listed, host) {
            (Host::Domain(listed), Host::Domain(name)) => listed == name,
            (Host::Ipv4(listed), _) => ip.to_canonical() == *listed,
            (Host::Ipv6(listed), _) => ip.to_canonical() == IpAddr::V6(*listed).to_canonical(),
            (Host::Domain(_), _) => false,
        };
        !is_local(ip) || self.listed.iter().any(is_listed)
    }
}

/// Whether an address is one of this machine, of its link, or of nobody. Private networks are not: that is where
/// one's own servers are.
fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_local_v4(ip),
        IpAddr::V6(ip) => {
            // fe80::/10 is the link.
            let is_link = ip.segments()[0] & 0xffc0 == 0xfe80;
            is_link
                || ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_multicast()
                || embedded_v4(ip).is_some_and(is_local_v4)
        }
    }
}

fn is_local_v4(ip: Ipv4Addr) -> bool {
    // 0.0.0.0/8 is this network, 240.0.0.0/4 is reserved and holds the broadcast address.
    let first = ip.octets()[0];
    first == 0 || first >= 240 || ip.is_loopback() || ip.is_link_local() || ip.is_multicast()
}

/// The address of version 4 that a translator on the way sends to: of `::a.b.c.d`, NAT64 (RFC 6052), 6to4 (RFC 3056).
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, high, low] = ip.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match (a, b) {
        (0x0064, 0xff9b) => Some(v4(high, low)),
        (0x2002, _) => Some(v4(b, c)),
        (0, 0) if [c, d, e, f] == [0; 4] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(listed: &[&str], host: &str, ip: &str) -> bool {
        let targets: Vec<Target> = listed.iter().map(|text| Target::parse(text).unwrap()).collect();
        let host = Host::parse(host).unwrap();
        let host = match &host {
            Host::Domain(name) => Host::Domain(name.as_str()),
            Host::Ipv4(ip) => Host::Ipv4(*ip),
            Host::Ipv6(ip) => Host::Ipv6(*ip),
        };
        Guard::new(&targets, 80).allows(&host, ip.parse().unwrap())
    }

    #[test]
    fn what_is_local_is_not_asked() {
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
        ] {
            assert!(!allows(&[], "name", ip), "{ip}");
        }
        for ip in
            ["10.0.0.1", "192.168.1.1", "172.16.0.1", "8.8.8.8", "fd00::1", "2001:db8::1", "64:ff9b::808:808"]
        {
            assert!(allows(&[], "name", ip), "{ip}");
        }
    }

    #[test]
    fn what_is_listed_is_asked_by_its_name_its_address_and_its_port_alone() {
        assert!(allows(&["127.0.0.1:80"], "127.0.0.1", "127.0.0.1"));
        assert!(allows(&["127.0.0.1:80"], "localhost", "127.0.0.1"), "a name of a listed address");
        assert!(allows(&["127.0.0.1:80"], "localhost", "::ffff:127.0.0.1"));
        assert!(
            allows(&["localhost:80"], "localhost", "127.0.0.1")
                && allows(&["localhost:80"], "localhost", "::1")
        );
        assert!(!allows(&["localhost:80"], "evil.example", "127.0.0.1"), "another name of the same address");
        assert!(!allows(&["localhost:80"], "127.0.0.1", "127.0.0.1"));
        assert!(!allows(&["127.0.0.1:81"], "127.0.0.1", "127.0.0.1"), "another port");
        assert!(!allows(&["127.0.0.1:80"], "127.0.0.2", "127.0.0.2"));
        assert!(allows(&["[::1]:80"], "::1".parse::<Ipv6Addr>().map(|_| "[::1]").unwrap(), "::1"));
    }
}
