//! Which web pages may connect: the `Origin` header against a gateway's list (RFC 6455 section 10.2).

use super::directory::host_name;

/// Tells whether a request with these `Origin` headers may connect. Without the header the client is no
/// browser, and the rule, which protects browsers' users, does not apply. With an empty list the origin's
/// host and port must be those of the `Host` header, or its host a loopback name.
pub(super) fn is_allowed<'a>(
    mut origins: impl Iterator<Item = &'a [u8]>,
    allowed: &[String],
    host: &str,
) -> bool {
    let Some(origin) = origins.next() else { return true };
    if origins.next().is_some() {
        return false;
    }
    let Ok(origin) = std::str::from_utf8(origin) else { return false };
    if !allowed.is_empty() {
        return allowed.iter().any(|entry| entry == origin);
    }
    let Some((scheme, origin_host)) = origin.split_once("://") else { return false };
    matches!(scheme, "http" | "https")
        && !origin_host.contains(['/', '@', '?', '#'])
        && (is_loopback(host_name(origin_host)) || with_port(scheme, origin_host) == with_port(scheme, host))
}

fn is_loopback(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "::1")
}

/// Host in lower case with its port; browsers leave out the scheme's own port.
fn with_port(scheme: &str, host: &str) -> String {
    let host = host.to_ascii_lowercase();
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    match scheme {
        _ if has_port => host,
        "https" => host + ":443",
        _ => host + ":80",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(origins: &[&str], list: &[&str], host: &str) -> bool {
        let list: Vec<String> = list.iter().map(ToString::to_string).collect();
        is_allowed(origins.iter().map(|origin| origin.as_bytes()), &list, host)
    }

    #[test]
    fn the_list_is_compared_exactly() {
        let list = ["https://app.example.org"];
        assert!(allowed(&["https://app.example.org"], &list, "gw"));
        for bad in [
            "http://app.example.org",
            "https://app.example.org:8443",
            "https://app.example.org.evil.net",
            "https://evil-app.example.org",
            "https://APP.example.org",
            "http://localhost",
            "null",
            "",
        ] {
            assert!(!allowed(&[bad], &list, "gw"), "{bad}");
        }
    }

    #[test]
    fn without_a_list_the_own_host_and_loopback_may_connect() {
        for good in ["http://gw:8080", "http://localhost:3000", "https://127.0.0.1", "http://[::1]:80"] {
            assert!(allowed(&[good], &[], "gw:8080"), "{good}");
        }
        assert!(allowed(&["http://gw"], &[], "gw:80") && allowed(&["https://gw"], &[], "GW:443"));
        for bad in [
            "http://gw",
            "http://gw:8081",
            "http://evil.net",
            "null",
            "http://localhost.evil.net",
            "http://localhost@evil.net",
            "file://gw:8080",
            "http://evil.net/gw:8080",
        ] {
            assert!(!allowed(&[bad], &[], "gw:8080"), "{bad}");
        }
    }

    #[test]
    fn no_header_is_no_browser_and_two_are_a_trick() {
        assert!(allowed(&[], &["https://a"], "gw"));
        assert!(!allowed(&["https://a", "https://a"], &["https://a"], "gw"));
    }
}
