//! Hosts with ports that a gateway may ask though they are local, such as `127.0.0.1:9000`.

use url::Host;

/// A host and a port, both written out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A name in lower case, or an address.
    pub host: Host,
    /// Not 0.
    pub port: u16,
}

impl Target {
    /// Reads `HOST:PORT`; a version 6 address stands in brackets.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| *port != 0 && is_number)?;
        Some(Self { host: Host::parse(host).ok()?, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_host_with_its_port() {
        for (text, shown) in [
            ("127.0.0.1:9000", "127.0.0.1"),
            ("LocalHost:80", "localhost"),
            ("[::1]:65535", "[::1]"),
            ("auth.internal:443", "auth.internal"),
        ] {
            assert_eq!(Target::parse(text).unwrap().host.to_string(), shown, "{text}");
        }
        for bad in
            ["", "localhost", ":80", "a:0", "a:65536", "a:+1", "::1:80", "http://a:80", "a/b:80", "a b:1"]
        {
            assert_eq!(Target::parse(bad), None, "{bad}");
        }
    }
}
