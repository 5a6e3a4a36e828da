//! What integrations are told of a client: who it is, and the values of its request that they name. Pure.

use std::time::SystemTime;

use actix_http::RequestHead;
use actix_http::header::{HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL, USER_AGENT};
use uuid::Uuid;

use crate::gateway::request;
use crate::model::hook::{Hooks, Integration, Place, is_own_header};

/// Longest reason of an end that is told, in bytes (that of a close frame).
const REASON_BYTES: usize = 123;
/// Headers that belong to one hop, or to the handshake, and are not passed on (RFC 9110 section 7.6.1).
const NOT_PASSED: [&str; 16] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-version",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Event<'a> {
    /// A client asks to be connected.
    Connect,
    /// It sent a message.
    Message(Uuid),
    /// It has gone, with the code and the reason of a close frame.
    Disconnect(u16, &'a str),
}

impl Event<'_> {
    /// The word for headers.
    pub(in crate::gateway) fn name(&self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Message(_) => "MESSAGE",
            Self::Disconnect(..) => "DISCONNECT",
        }
    }
}

/// One client, as its first request told.
#[derive(Debug)]
pub(in crate::gateway) struct Caller {
    id: Uuid,
    connected_at: String,
    values: Vec<(String, String)>,
    /// Passed on, if an integration asks for all headers.
    headers: Vec<Header>,
    /// Those that are always passed on.
    always: Vec<Header>,
}

/// A header of a request.
pub(super) type Header = (String, Vec<u8>);

impl Caller {
    /// The client with this id. `path` are the values of the path's parameters.
    pub(in crate::gateway) fn new(
        id: Uuid,
        now: SystemTime,
        head: &RequestHead,
        path: &[(String, String)],
        hooks: &Hooks,
    ) -> Self {
        let of_path =
            |name: &str| path.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let value = |name: &str, place| match place {
            Place::Path | Place::Rest => of_path(name),
            Place::Query => {
                request::query(head).find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
            }
            Place::Header => head.headers.get(name).and_then(request::text).map(ToOwned::to_owned),
            Place::Cookie => {
                request::cookies(head).find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
            }
        };
        let values = hooks.parameters.iter().map(|parameter| {
            let value = value(&parameter.name, parameter.place).or_else(|| parameter.default.clone());
            (parameter.name.clone(), value.unwrap_or_default())
        });
        let wants_all = |integration: &Option<Integration>| matches!(integration, Some(Integration::Http(call)) if call.headers.iter().any(|(name, _)| name == "*"));
        let is_passed = |name: &str| !NOT_PASSED.contains(&name) && !is_own_header(name);
        let header = |name: &str, value: &HeaderValue| (name.to_owned(), value.as_bytes().to_vec());
        let headers = |name: &HeaderName| {
            head.headers.get_all(name).map(|value| header(name.as_str(), value)).collect::<Vec<_>>()
        };
        let always = [USER_AGENT, SEC_WEBSOCKET_PROTOCOL].iter().flat_map(headers).collect();
        let mut names: Vec<_> = head.headers.keys().filter(|name| is_passed(name.as_str())).collect();
        names.sort_by_key(|name| name.as_str());
        let has_all = [&hooks.connect, &hooks.message, &hooks.disconnect].into_iter().any(wants_all);
        Self {
            id,
            connected_at: format!("{:.3}", jiff::Timestamp::try_from(now).unwrap_or_default()),
            values: values.collect(),
            headers: names.into_iter().filter(|_| has_all).flat_map(headers).collect(),
            always,
        }
    }

    /// The headers of the request that are passed on to an integration that asks for all of them.
    pub(super) fn headers(&self) -> &[Header] {
        &self.headers
    }

    /// Those that every integration gets.
    pub(super) fn always(&self) -> &[Header] {
        &self.always
    }

    /// The headers that tell of the connection and of what happened.
    pub(super) fn own_headers(&self, event: &Event<'_>) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("x-yc-apigateway-websocket-connection-id", self.id.to_string()),
            ("x-yc-apigateway-websocket-event-type", event.name().to_owned()),
            ("x-yc-apigateway-websocket-connected-at", self.connected_at.clone()),
        ];
        match event {
            Event::Connect => {}
            Event::Message(id) => headers.push(("x-yc-apigateway-websocket-message-id", id.to_string())),
            Event::Disconnect(code, reason) => {
                headers.push(("x-yc-apigateway-websocket-disconnect-status-code", code.to_string()));
                headers.push(("x-yc-apigateway-websocket-disconnect-reason", visible(reason)));
            }
        }
        headers
    }

    /// What `{name}` stands for.
    pub(super) fn value<'a>(&'a self, name: &str, own: &'a [(&'static str, String)]) -> Option<&'a str> {
        let of_request = self.values.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        of_request.or_else(|| {
            own.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
        })
    }
}

/// A text that a header may hold: other characters are question marks.
fn visible(text: &str) -> String {
    let shown = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    text.chars().take(REASON_BYTES).map(shown).collect()
}
