//! Why a handshake is refused, and the HTTP answer that says so: one table.

use std::borrow::Cow;

use actix_http::StatusCode;
use actix_http::ws::HandshakeError;
use bytes::Bytes;

use super::authorize::{Flaw, Trouble};
use super::crowd::Crowded;
use super::hooks::MAX_KEPT;

/// A handshake that does not become a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No such gateway.
    UnknownGateway,
    /// The gateway has no such path.
    UnknownPath,
    /// The gateway is stopped.
    GatewayStopped,
    /// The `Origin` may not connect.
    Origin,
    /// The same for MQTT.
    MqttOrigin,
    /// MQTT is asked for by another name, or by none.
    Subprotocol,
    /// The request lacks the token that its path asks for.
    NoToken,
    /// The token is not good for this path.
    Token(Flaw),
    /// The path's authorizer says no.
    Denied,
    /// The path's authorizer says nothing.
    Authorizer(Trouble),
    /// A request on a WebSocket path that asks for no WebSocket.
    NotWebSocket,
    /// A handshake that RFC 6455 section 4.2.1 does not allow.
    Handshake(HandshakeError),
    /// A start in the past that is not understood, in words.
    Start(String),
    /// A filter that is not understood, in words.
    Filter(String),
    /// Clients of the path on this worker have as many different filters as may be.
    Filters,
    /// The header `Sec-WebSocket-Extensions` cannot be read.
    Extensions,
    /// What was missed cannot be read just now.
    History,
    /// As many connections are open as may be.
    Full,
    /// As many connections are open as a path lets in.
    Crowded(Crowded),
    /// One address begins too many connections.
    TooFast,
    /// The path's integration says no.
    Hook {
        /// The status that it answers with, 400 to 599.
        status: u16,
        /// What its body is.
        content_type: Option<String>,
        /// Its body.
        body: Bytes,
    },
    /// The path's integration gives no answer, or one that is none.
    HookFailed,
    /// The path's integration gives no answer in time.
    HookTimedOut,
    /// As many integrations are asked as may be.
    HooksBusy,
    /// The request holds what cannot be passed on to the path's integration, in words.
    Unfit(String),
    /// The path's integrations use more of the request than is kept of one.
    TooMuchToKeep,
    /// The server stops.
    Stopping,
}

impl Refusal {
    /// The words for a parameter of the request whose value is not what it may be.
    pub(super) fn not(name: &str, value: &str, expected: &str) -> String {
        let value: String = value.chars().take(64).collect();
        format!("{name}: {value:?} is not {expected}")
    }

    /// The HTTP status.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::UnknownGateway | Self::UnknownPath => StatusCode::NOT_FOUND,
            Self::Origin | Self::MqttOrigin | Self::Denied | Self::Token(Flaw::Scope) => {
                StatusCode::FORBIDDEN
            }
            Self::NoToken | Self::Token(_) => StatusCode::UNAUTHORIZED,
            Self::Authorizer(Trouble::Broken) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Authorizer(Trouble::Unreachable) => StatusCode::BAD_GATEWAY,
            Self::Authorizer(Trouble::TimedOut) => StatusCode::GATEWAY_TIMEOUT,
            Self::NotWebSocket | Self::Handshake(HandshakeError::UnsupportedVersion) => {
                StatusCode::UPGRADE_REQUIRED
            }
            Self::Handshake(HandshakeError::GetMethodRequired) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Handshake(_)
            | Self::Start(_)
            | Self::Filter(_)
            | Self::Extensions
            | Self::Subprotocol
            | Self::Unfit(_) => StatusCode::BAD_REQUEST,
            Self::TooMuchToKeep => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Crowded(Crowded::Address | Crowded::Subject) | Self::TooFast => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::Full
            | Self::Crowded(Crowded::Path)
            | Self::Stopping
            | Self::History
            | Self::HooksBusy
            | Self::Filters
            | Self::GatewayStopped => StatusCode::SERVICE_UNAVAILABLE,
            Self::Hook { status, .. } => StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY),
            Self::HookFailed => StatusCode::BAD_GATEWAY,
            Self::HookTimedOut => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The `message` of the JSON body.
    pub(super) fn message(&self) -> Cow<'static, str> {
        let text = match self {
            Self::UnknownGateway => "no such gateway; the URL is ws://HOST/{gateway_id}{path}",
            Self::UnknownPath => "the gateway has no such path",
            Self::GatewayStopped => "the gateway is stopped",
            Self::Origin => "this Origin may not connect; see allowed_origins of the gateway",
            Self::NoToken => "this path asks for a token, and there is none, or more than one",
            Self::Token(flaw) => return Cow::Owned(flaw.to_string()),
            Self::Denied => "you may not connect to this path",
            Self::Authorizer(Trouble::Broken) => "who may connect cannot be told just now",
            Self::Authorizer(Trouble::Unreachable) => "who may connect is not told: no answer",
            Self::Authorizer(Trouble::TimedOut) => "who may connect is not told in time",
            Self::MqttOrigin => "this Origin may not connect; see mqtt.websocket_origins",
            Self::Subprotocol => "MQTT is spoken here; ask for it by 'Sec-WebSocket-Protocol: mqtt'",
            Self::NotWebSocket => {
                "this path speaks WebSocket, or server-sent events with 'Accept: text/event-stream'"
            }
            Self::Handshake(HandshakeError::GetMethodRequired) => "a WebSocket handshake is a GET request",
            Self::Handshake(HandshakeError::NoWebsocketUpgrade) => {
                "the header 'Upgrade: websocket' is missing"
            }
            Self::Handshake(HandshakeError::NoConnectionUpgrade) => {
                "the header 'Connection: Upgrade' is missing"
            }
            Self::Handshake(HandshakeError::NoVersionHeader) => "the header Sec-WebSocket-Version is missing",
            Self::Handshake(HandshakeError::UnsupportedVersion) => {
                "only Sec-WebSocket-Version 13 is spoken here"
            }
            Self::Handshake(HandshakeError::BadWebsocketKey) => {
                "the header Sec-WebSocket-Key is missing or not 16 bytes in base64"
            }
            Self::Full => "as many connections are open as the server allows",
            Self::Crowded(Crowded::Path) => "as many connections are open as the path allows",
            Self::Crowded(Crowded::Address) => {
                "as many connections are open from your address as the path allows"
            }
            Self::Crowded(Crowded::Subject) => "as many connections of yours are open as the path allows",
            Self::TooFast => "too many connections begin from your address",
            Self::Hook { .. } => "the path's integration refuses the connection",
            Self::HookFailed => "the path's integration gives no answer",
            Self::HookTimedOut => "the path's integration gives no answer in time",
            Self::HooksBusy => "the gateway's integrations are busy; try again",
            Self::Start(fault) | Self::Filter(fault) | Self::Unfit(fault) => {
                return Cow::Owned(fault.clone());
            }
            Self::Filters => "clients of this path have as many different filters as the server allows",
            Self::Extensions => "the header Sec-WebSocket-Extensions is not a list of extensions",
            Self::History => "what you missed cannot be read just now; try again",
            Self::TooMuchToKeep => {
                return Cow::Owned(format!(
                    "the path's integrations use more of your request than is kept of one, {MAX_KEPT} bytes"
                ));
            }
            Self::Stopping => "the server is stopping",
        };
        Cow::Borrowed(text)
    }

    /// The word for counters.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::UnknownGateway => "unknown_gateway",
            Self::GatewayStopped => "gateway_stopped",
            Self::UnknownPath => "unknown_path",
            Self::Origin | Self::MqttOrigin => "origin",
            Self::Subprotocol => "subprotocol",
            Self::NoToken => "no_token",
            Self::Token(Flaw::Expired) => "token_expired",
            Self::Token(Flaw::Scope) => "token_scope",
            Self::Token(_) => "token",
            Self::Denied => "denied",
            Self::Authorizer(_) => "authorizer",
            Self::NotWebSocket => "not_websocket",
            Self::Handshake(_) => "handshake",
            Self::Start(_) => "start",
            Self::Filter(_) => "filter",
            Self::Filters => "filters",
            Self::Extensions => "extensions",
            Self::History => "history",
            Self::Full => "full",
            Self::Crowded(Crowded::Path) => "path_full",
            Self::Crowded(Crowded::Address) => "address_full",
            Self::Crowded(Crowded::Subject) => "subject_full",
            Self::TooFast => "too_fast",
            Self::Hook { .. } => "hook_refused",
            Self::HookFailed => "hook_failed",
            Self::HookTimedOut => "hook_timed_out",
            Self::HooksBusy => "hooks_busy",
            Self::Unfit(_) => "unfit",
            Self::TooMuchToKeep => "too_much_to_keep",
            Self::Stopping => "stopping",
        }
    }

    /// The body: JSON, but for what an integration says.
    pub(super) fn body(&self) -> Bytes {
        match self {
            Self::Hook { body, .. } if !body.is_empty() => body.clone(),
            _ => serde_json::json!({ "code": self.status().as_u16(), "message": self.message() })
                .to_string()
                .into(),
        }
    }

    /// What the body is.
    pub(super) fn content_type(&self) -> &str {
        match self {
            Self::Hook { body, content_type, .. } if !body.is_empty() => {
                content_type.as_deref().unwrap_or("application/octet-stream")
            }
            _ => "application/json",
        }
    }

    /// The headers that belong to the status, besides those of every answer.
    pub(super) fn extra_headers(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Handshake(HandshakeError::GetMethodRequired) => &[("allow", "GET")],
            Self::NotWebSocket | Self::Handshake(HandshakeError::UnsupportedVersion) => {
                &[("upgrade", "websocket"), ("sec-websocket-version", "13")]
            }
            Self::Full
            | Self::Crowded(_)
            | Self::TooFast
            | Self::Filters
            | Self::HooksBusy
            | Self::Stopping
            | Self::History
            | Self::Authorizer(_)
            | Self::GatewayStopped => &[("retry-after", "1")],
            // RFC 6750 section 3.
            Self::NoToken => &[("www-authenticate", "Bearer")],
            Self::Token(Flaw::Scope) => &[("www-authenticate", "Bearer error=\"insufficient_scope\"")],
            Self::Token(_) => &[("www-authenticate", "Bearer error=\"invalid_token\"")],
            _ => &[],
        }
    }

    /// The whole HTTP/1.1 answer, for a socket that has left the HTTP layer already.
    pub(super) fn response(&self) -> Bytes {
        let body = self.body();
        let mut head = format!("HTTP/1.1 {}\r\n", self.status());
        for (name, value) in self.extra_headers() {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!(
            "content-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            self.content_type(),
            body.len()
        ));
        Bytes::from([head.as_bytes(), &body].concat())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::telemetry::{METRICS, words_in};

    /// One of each kind.
    fn all() -> Vec<Refusal> {
        let text = || "?".to_owned();
        let hook = Refusal::Hook { status: 402, content_type: None, body: Bytes::new() };
        vec![
            Refusal::UnknownGateway,
            Refusal::UnknownPath,
            Refusal::GatewayStopped,
            Refusal::Origin,
            Refusal::MqttOrigin,
            Refusal::Subprotocol,
            Refusal::NoToken,
            Refusal::Token(Flaw::Expired),
            Refusal::Token(Flaw::Scope),
            Refusal::Token(Flaw::Subject),
            Refusal::Denied,
            Refusal::Authorizer(Trouble::Broken),
            Refusal::Authorizer(Trouble::Unreachable),
            Refusal::Authorizer(Trouble::TimedOut),
            Refusal::NotWebSocket,
            Refusal::Handshake(HandshakeError::GetMethodRequired),
            Refusal::Handshake(HandshakeError::UnsupportedVersion),
            Refusal::Handshake(HandshakeError::BadWebsocketKey),
            Refusal::Start(text()),
            Refusal::Filter(text()),
            Refusal::Filters,
            Refusal::Extensions,
            Refusal::History,
            Refusal::Full,
            Refusal::Crowded(Crowded::Path),
            Refusal::Crowded(Crowded::Address),
            Refusal::Crowded(Crowded::Subject),
            Refusal::TooFast,
            hook,
            Refusal::HookFailed,
            Refusal::HookTimedOut,
            Refusal::HooksBusy,
            Refusal::Unfit(text()),
            Refusal::TooMuchToKeep,
            Refusal::Stopping,
        ]
    }

    #[test]
    fn every_word_is_one_of_the_counter_which_says_its_status() {
        let known: BTreeSet<_> = METRICS.websocket_refused.words().map(|[word]| word).collect();
        assert_eq!(words_in(include_str!("refusal.rs"), "name"), known);
        assert_eq!(all().iter().map(Refusal::name).collect::<BTreeSet<_>>(), known);
        let listed = METRICS.listed();
        let listed =
            listed.iter().find(|metric| metric.name == "triggercast_websocket_refused_total").unwrap();
        for refusal in all() {
            let (_, (_, means)) = listed.words.iter().find(|(_, (word, _))| *word == refusal.name()).unwrap();
            let (codes, _) = means.split_once(": ").unwrap();
            let status = refusal.status().as_u16();
            let is_told = match codes.split_once(" to ") {
                Some((from, to)) => (from.parse().unwrap()..=to.parse().unwrap()).contains(&status),
                None => codes.contains(&status.to_string()),
            };
            assert!(is_told, "{refusal:?} {status} {means}");
        }
    }

    #[test]
    fn the_answer_is_http_with_a_json_body() {
        assert_eq!(
            Refusal::UnknownPath.response(),
            "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 53\r\nconnection: close\r\n\r\n\
             {\"code\":404,\"message\":\"the gateway has no such path\"}"
        );
        let response = |refusal: Refusal| String::from_utf8(refusal.response().to_vec()).unwrap();
        assert!(response(Refusal::NotWebSocket).contains("426 Upgrade Required\r\nupgrade: websocket\r\n"));
        assert!(response(Refusal::NoToken).contains("401 Unauthorized\r\nwww-authenticate: Bearer\r\n"));
        assert_eq!(Refusal::Token(Flaw::Scope).status(), 403);
        assert_eq!(Refusal::Token(Flaw::Expired).status(), 401);
    }

    #[test]
    fn what_an_integration_says_is_passed_on() {
        let hook = |body: &'static [u8]| Refusal::Hook {
            status: 402,
            content_type: Some("text/plain".to_owned()),
            body: Bytes::from_static(body),
        };
        let end = b"content-type: text/plain\r\ncontent-length: 3\r\nconnection: close\r\n\r\npay";
        assert!(hook(b"pay").response().ends_with(end));
        assert_eq!(hook(b"").content_type(), "application/json");
    }
}
