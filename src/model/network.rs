//! Networks of addresses: as people write them, and the one that one party has, by which limits count.

use std::net::IpAddr;

use ipnet::IpNet;

/// What one party can choose its addresses from: an IPv4 address itself, or the first 64 bits of one of IPv6.
pub fn of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

/// An address, or a network as ADDRESS/BITS. An address of IPv4 in the form of IPv6 is that of IPv4, as callers have it.
pub fn parse(text: &str) -> Option<IpNet> {
    let address = text.parse().ok().map(|ip: IpAddr| IpNet::from(ip.to_canonical()));
    address.or_else(|| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_with_and_without_their_bits() {
        let shown = |text: &str| parse(text).map(|network| network.to_string());
        for (text, network) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::/32", "2001:db8::/32"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(network), "{text}");
        }
        assert!(["", "10.0.0.0/33", "10.0.0", "example.org"].iter().all(|text| shown(text).is_none()));
    }

    #[test]
    fn an_address_of_ipv4_is_one_and_64_bits_of_ipv6_are_one() {
        for (address, network) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:3::6", "2001:db8:1:3::"),
        ] {
            assert_eq!(of(address.parse().unwrap()).to_string(), network);
        }
    }
}
