//! Why a handshake is refused, and the HTTP answer that says so: one table.

use std::borrow::Cow;

use actix_http::StatusCode;
use actix_http::ws::HandshakeError;

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
    /// A request on a WebSocket path that asks for no WebSocket.
    NotWebSocket,
    /// A handshake that RFC 6455 section 4.2.1 does not allow.
    Handshake(HandshakeError),
    /// A start in the past that is not understood, in words.
    Start(String),
    /// What was missed cannot be read just now.
    History,
    /// As many connections are open as may be.
    Full,
    /// The server stops.
    Stopping,
}

impl Refusal {
    /// The HTTP status.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::UnknownGateway | Self::UnknownPath => StatusCode::NOT_FOUND,
            Self::Origin => StatusCode::FORBIDDEN,
            Self::NotWebSocket | Self::Handshake(HandshakeError::UnsupportedVersion) => {
                StatusCode::UPGRADE_REQUIRED
            }
            Self::Handshake(HandshakeError::GetMethodRequired) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Handshake(_) | Self::Start(_) => StatusCode::BAD_REQUEST,
            Self::Full | Self::Stopping | Self::History | Self::GatewayStopped => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// The `message` of the JSON body.
    pub(super) fn message(&self) -> Cow<'static, str> {
        let text = match self {
            Self::UnknownGateway => "no such gateway; the URL is ws://HOST/{gateway_id}{path}",
            Self::UnknownPath => "the gateway has no such path",
            Self::GatewayStopped => "the gateway is stopped",
            Self::Origin => "this Origin may not connect; see allowed_origins of the gateway",
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
            Self::Start(fault) => return Cow::Owned(fault.clone()),
            Self::History => "what you missed cannot be read just now; try again",
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
            Self::Origin => "origin",
            Self::NotWebSocket => "not_websocket",
            Self::Handshake(_) => "handshake",
            Self::Start(_) => "start",
            Self::History => "history",
            Self::Full => "full",
            Self::Stopping => "stopping",
        }
    }

    /// The JSON body.
    pub(super) fn body(&self) -> String {
        serde_json::json!({ "code": self.status().as_u16(), "message": self.message() }).to_string()
    }

    /// The headers that belong to the status, besides those of every answer.
    pub(super) fn extra_headers(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Handshake(HandshakeError::GetMethodRequired) => &[("allow", "GET")],
            Self::NotWebSocket | Self::Handshake(HandshakeError::UnsupportedVersion) => {
                &[("upgrade", "websocket"), ("sec-websocket-version", "13")]
            }
            Self::Full | Self::Stopping | Self::History | Self::GatewayStopped => &[("retry-after", "1")],
            _ => &[],
        }
    }

    /// The whole HTTP/1.1 answer, for a socket that has left the HTTP layer already.
    pub(super) fn response(&self) -> String {
        let body = self.body();
        let mut head = format!("HTTP/1.1 {}\r\n", self.status());
        for (name, value) in self.extra_headers() {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        format!(
            "{head}content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_http_with_a_json_body() {
        assert_eq!(
            Refusal::UnknownPath.response(),
            "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 53\r\nconnection: close\r\n\r\n\
             {\"code\":404,\"message\":\"the gateway has no such path\"}"
        );
        assert!(Refusal::NotWebSocket.response().contains("426 Upgrade Required\r\nupgrade: websocket\r\n"));
    }
}
