//! Where a request holds its token. Pure.
//!
//! A place that holds two tokens holds none: whoever looks at the other one would see somebody else.

use std::borrow::Cow;

use actix_http::RequestHead;

use crate::gateway::request;
use crate::model::authorizer::{IdentitySource, TokenPlace};
use crate::model::hook::Place;

/// Longest token that is looked at, in bytes.
pub(super) const MAX_TOKEN: usize = 16 * 1024;

/// The token of a request, without its prefix.
pub(super) fn token(source: &IdentitySource, head: &RequestHead) -> Option<String> {
    let value = match source.place {
        TokenPlace::Request(Place::Header) => {
            only(head.headers.get_all(&*source.name).map(|value| request::text(value).map(Cow::from)))?
        }
        TokenPlace::Request(Place::Query) => {
            only(request::query(head).filter(|(name, _)| *name == source.name).map(|(_, value)| Some(value)))?
        }
        TokenPlace::Request(Place::Cookie) => {
            let cookies = request::cookies(head).filter(|(name, _)| *name == source.name);
            only(cookies.map(|(_, value)| Some(Cow::from(value))))?
        }
        // Parameters in a path are not secret.
        TokenPlace::Request(Place::Path | Place::Rest) => return None,
        TokenPlace::Subprotocol => {
            let mut offers = request::offers(head);
            offers.by_ref().find(|offer| *offer == source.name)?;
            Cow::from(offers.next()?)
        }
    };
    let value = value.trim();
    let (start, token) = value.split_at_checked(source.prefix.len())?;
    let token = token.trim_start();
    let is_token = start.eq_ignore_ascii_case(&source.prefix) && (1..=MAX_TOKEN).contains(&token.len());
    is_token.then(|| token.to_owned())
}

/// The subprotocol that the answer names: the one that stands before the token.
pub(super) fn protocol(source: &IdentitySource) -> Option<&str> {
    (source.place == TokenPlace::Subprotocol).then_some(&*source.name)
}

/// The one item, if there are no others.
fn only<T>(mut items: impl Iterator<Item = Option<T>>) -> Option<T> {
    let first = items.next()?;
    if items.next().is_some() { None } else { first }
}

#[cfg(test)]
mod tests {
    use actix_http::Request;
    use actix_http::header::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn head(uri: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::new();
        let head = request.head_mut();
        head.uri = uri.parse().unwrap();
        for (name, value) in headers {
            head.headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        request
    }

    fn source(place: TokenPlace, name: &str, prefix: &str) -> IdentitySource {
        IdentitySource { place, name: name.to_owned(), prefix: prefix.to_owned() }
    }

    fn found(source: &IdentitySource, uri: &str, headers: &[(&str, &str)]) -> Option<String> {
        token(source, head(uri, headers).head())
    }

    #[test]
    fn a_header_holds_one_token_behind_its_prefix() {
        let bearer = source(TokenPlace::Request(Place::Header), "Authorization", "Bearer ");
        let token = |value: &str| found(&bearer, "/", &[("authorization", value)]);
        assert_eq!(token("Bearer a.b.c").as_deref(), Some("a.b.c"));
        assert_eq!(token("bearer  a.b.c ").as_deref(), Some("a.b.c"));
        for bad in ["", "Bearer", "Bearer ", "Basic a.b.c", "a.b.c", "Bea"] {
            assert_eq!(token(bad), None, "{bad}");
        }
        assert_eq!(found(&bearer, "/", &[]), None);
        let twice = [("authorization", "Bearer a"), ("authorization", "Bearer b")];
        assert_eq!(found(&bearer, "/", &twice), None);
        let plain = source(TokenPlace::Request(Place::Header), "X-Key", "");
        assert_eq!(found(&plain, "/", &[("x-key", "k")]).as_deref(), Some("k"));
        assert_eq!(found(&plain, "/", &[("x-key", &"k".repeat(MAX_TOKEN + 1))]), None);
    }

    #[test]
    fn a_query_holds_it_percent_encoded() {
        let query = source(TokenPlace::Request(Place::Query), "access_token", "");
        assert_eq!(found(&query, "/ws?a=1&access_token=x%2By.z", &[]).as_deref(), Some("x+y.z"));
        for bad in ["/ws", "/ws?access_token=", "/ws?access_token=a&access_token=b", "/ws?Access_Token=a"] {
            assert_eq!(found(&query, bad, &[]), None, "{bad}");
        }
    }

    #[test]
    fn a_cookie_holds_it_among_others() {
        let cookie = source(TokenPlace::Request(Place::Cookie), "session", "");
        let token = |value: &str| found(&cookie, "/", &[("cookie", value)]);
        assert_eq!(token("a=b; session=x.y; c=d").as_deref(), Some("x.y"));
        assert_eq!(token("session=\"x.y\"").as_deref(), Some("x.y"));
        for bad in ["", "session", "session=", "xsession=a", "session=a; session=b"] {
            assert_eq!(token(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_subprotocol_is_followed_by_it() {
        let protocol = source(TokenPlace::Subprotocol, "bearer", "");
        let token = |values: &[&str]| {
            let headers: Vec<_> = values.iter().map(|value| ("sec-websocket-protocol", *value)).collect();
            found(&protocol, "/", &headers)
        };
        assert_eq!(token(&["bearer, x.y"]).as_deref(), Some("x.y"));
        assert_eq!(token(&["mqtt,bearer", "x.y,other"]).as_deref(), Some("x.y"));
        for bad in [&["bearer"][..], &["bearer,"], &["x.y, bearer"], &["Bearer, x.y"], &[]] {
            assert_eq!(token(bad), None, "{bad:?}");
        }
        assert_eq!(super::protocol(&protocol), Some("bearer"));
    }

    proptest! {
        #[test]
        fn nothing_in_a_request_is_a_fault(value in "[ -~]{0,60}", prefix in "\\PC{0,4}") {
            for place in [Place::Header, Place::Cookie] {
                let source = source(TokenPlace::Request(place), "cookie", &prefix);
                if let Some(token) = found(&source, "/", &[("cookie", &value)]) {
                    prop_assert!(value.contains(&token));
                }
            }
            found(&source(TokenPlace::Subprotocol, "a", &prefix), "/", &[("sec-websocket-protocol", &value)]);
        }
    }
}
