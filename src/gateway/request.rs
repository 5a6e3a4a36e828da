//! What stands in a request: its host, the pairs of its query, its cookies, the subprotocols that it offers. Pure.

use std::borrow::Cow;

use actix_http::RequestHead;
use actix_http::header::{self, HeaderValue};
use url::form_urlencoded;

/// The `Host` header; empty without one.
pub(super) fn host(head: &RequestHead) -> &str {
    head.headers.get(header::HOST).and_then(text).unwrap_or_default()
}

/// The parameters of the query, decoded, in order.
pub(super) fn query(head: &RequestHead) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes())
}

/// The cookies, as they stand there (RFC 6265 section 4.2).
pub(super) fn cookies(head: &RequestHead) -> impl Iterator<Item = (&str, &str)> {
    let lines = head.headers.get_all(header::COOKIE).filter_map(text);
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|cookie| cookie.split_once('='));
    pairs.map(|(name, value)| (name.trim(), value.trim().trim_matches('"')))
}

/// The subprotocols that the client offers, in order.
pub(super) fn offers(head: &RequestHead) -> impl Iterator<Item = &str> {
    let lines = head.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).filter_map(text);
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|offer| !offer.is_empty())
}

/// A header's value, if it is visible ASCII.
pub(super) fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}
