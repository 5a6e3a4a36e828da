//! What integrations are told of a client: who it is, and the values of its request that they name. Pure.

use std::collections::HashSet;
use std::time::SystemTime;

use actix_http::RequestHead;
use actix_http::header::{CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL, USER_AGENT};
use uuid::Uuid;

use crate::gateway::request;
use crate::model::hook::{Hooks, HttpCall, Integration, Place, is_own_header, is_same_header};

/// Longest reason of an end that is told, in bytes (that of a close frame).
const REASON_BYTES: usize = 123;
/// Most of a request that is kept for the integrations of messages and of the end, in bytes: as much as a connection
/// may cost as long as it is open.
pub(in crate::gateway) const MAX_KEPT: usize = 8 * 1024;
/// Headers that belong to one hop, or to the handshake, and are not passed on (RFC 9110 section 7.6.1): answers are not
/// unpacked, so none is to be packed.
const NOT_PASSED: [&str; 17] = [
    "accept-encoding",
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

/// A request of which more would have to be kept than [`MAX_KEPT`].
#[derive(Debug, PartialEq, Eq)]
pub(in crate::gateway) struct TooLong;

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
    ) -> Result<Self, TooLong> {
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
        let later = Use::of([&hooks.message, &hooks.disconnect]);
        let mut kept = 0;
        let values = hooks.parameters.iter().map(|parameter| {
            let value = value(&parameter.name, parameter.place);
            if later.names.contains(&parameter.name.as_str()) {
                kept += value.as_ref().map_or(0, String::len);
            }
            (parameter.name.clone(), value.or_else(|| parameter.default.clone()).unwrap_or_default())
        });
        let values = values.collect();
        let has_all = later.all || Use::of([&hooks.connect, &None]).all;
        let of_hop = head.headers.get_all(CONNECTION).filter(|_| has_all).filter_map(request::text);
        let of_hop: HashSet<_> =
            of_hop.flat_map(|line| line.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect();
        let is_passed =
            |name: &str| !NOT_PASSED.contains(&name) && !is_own_header(name) && !of_hop.contains(name);
        let header = |name: &str, value: &HeaderValue| (name.to_owned(), value.as_bytes().to_vec());
        let headers = |name: &HeaderName| {
            head.headers.get_all(name).map(|value| header(name.as_str(), value)).collect::<Vec<_>>()
        };
        let always: Vec<_> = [USER_AGENT, SEC_WEBSOCKET_PROTOCOL].iter().flat_map(headers).collect();
        let mut names: Vec<_> = head.headers.keys().filter(|name| is_passed(name.as_str())).collect();
        names.sort_by_key(|name| name.as_str());
        let headers: Vec<_> = names.into_iter().filter(|_| has_all).flat_map(headers).collect();
        let bytes =
            |headers: &[Header]| headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        kept += if later.all { bytes(&headers) } else { 0 } + if later.calls { bytes(&always) } else { 0 };
        if kept > MAX_KEPT {
            return Err(TooLong);
        }
        Ok(Self {
            id,
            connected_at: format!("{:.3}", jiff::Timestamp::try_from(now).unwrap_or_default()),
            values,
            headers,
            always,
        })
    }

    /// Forgets what was for the connect integration alone.
    pub(super) fn forget(&mut self, hooks: &Hooks) {
        let later = Use::of([&hooks.message, &hooks.disconnect]);
        self.values.retain(|(name, _)| later.names.contains(&name.as_str()));
        self.values.shrink_to_fit();
        if !later.all {
            self.headers = Vec::new();
        }
        if !later.calls {
            self.always = Vec::new();
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
            own.iter().find(|(known, _)| is_same_header(known, name)).map(|(_, value)| value.as_str())
        })
    }
}

/// What integrations use of a request.
struct Use<'h> {
    /// Parameters.
    names: Vec<&'h str>,
    /// All of its headers.
    all: bool,
    /// The headers that every server gets.
    calls: bool,
}

impl<'h> Use<'h> {
    fn of(integrations: [&'h Option<Integration>; 2]) -> Self {
        let integrations = || integrations.into_iter().flatten();
        let calls = || {
            integrations().filter_map(|integration| match integration {
                Integration::Http(call) => Some(call),
                Integration::Dummy(_) => None,
            })
        };
        Self {
            names: integrations().flat_map(Integration::names).collect(),
            all: calls().any(HttpCall::wants_all_headers),
            calls: calls().next().is_some(),
        }
    }
}

/// A text that a header may hold: other characters are question marks.
fn visible(text: &str) -> String {
    let shown = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    text.chars().take(REASON_BYTES).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::hook::{Dummy, Parameter};

    fn call(url: &str, headers: &[(&str, &str)]) -> Option<Integration> {
        Some(Integration::Http(HttpCall {
            url: url.to_owned(),
            method: "POST".to_owned(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            omit_empty_headers: false,
            query: Vec::new(),
            omit_empty_query: false,
            connect_timeout: Duration::ZERO,
            read_timeout: Duration::ZERO,
        }))
    }

    /// A client that sends `len` bytes as the header `x-a`.
    fn caller(hooks: &Hooks, len: usize) -> Result<Caller, TooLong> {
        let mut head = RequestHead::default();
        head.headers.append(HeaderName::from_static("x-a"), "a".repeat(len).parse().unwrap());
        Caller::new(Uuid::nil(), SystemTime::UNIX_EPOCH, &head, &[], hooks)
    }

    #[test]
    fn no_more_of_a_request_is_kept_than_is_used_later_and_that_is_bounded() {
        let named = || call("https://e.org?a={X-A}", &[]);
        let all = || call("https://e.org", &[("*", "*")]);
        let said = || {
            Some(Integration::Dummy(Dummy { status: 200, headers: vec![], content: Some("{X-A}".into()) }))
        };
        let default = Some("d".repeat(2 * MAX_KEPT));
        let parameters = vec![Parameter { name: "X-A".into(), place: Place::Header, default }];
        let hooks = |connect, message, disconnect| Hooks {
            connect,
            message,
            disconnect,
            parameters: parameters.clone(),
        };
        for (hooks, is_kept) in [
            (hooks(named(), None, None), false),
            (hooks(all(), call("https://e.org", &[]), None), false),
            (hooks(None, named(), None), true),
            (hooks(None, None, said()), true),
            (hooks(None, all(), None), true),
            (hooks(all(), None, all()), true),
        ] {
            let small = MAX_KEPT - "x-a".len();
            assert_eq!(caller(&hooks, MAX_KEPT + 1).is_ok(), !is_kept, "{hooks:?}");
            let mut caller = caller(&hooks, small).unwrap();
            let held = |caller: &Caller| {
                caller.values.iter().any(|(_, value)| value.len() == small) || !caller.headers.is_empty()
            };
            assert!(held(&caller), "{hooks:?}");
            caller.forget(&hooks);
            assert_eq!(held(&caller), is_kept, "{hooks:?}");
        }
    }
}
