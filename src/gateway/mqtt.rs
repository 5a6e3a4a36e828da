//! MQTT over WebSocket on the public port: the handshake, and then the socket goes to the MQTT server.
//!
//! `server` says who takes it. The gateway knows nothing of MQTT but where it is asked for and the name of its
//! subprotocol (MQTT 5 section 6).

use std::fmt;
use std::sync::Arc;

use actix_codec::Framed;
use actix_http::{Request, RequestHead, h1, header};
use bytes::{Bytes, BytesMut};

use super::address::Addresses;
use super::origin;
use super::refusal::Refusal;
use super::request;
use super::upgrade::{refuse, switching_protocols, verify};
use crate::model::gateway::MQTT_PATH;
use crate::tls::{Detached, Io};

/// The name that clients ask for, and are answered with.
const SUBPROTOCOL: &str = "mqtt";

/// Takes sockets over: the 101 answer, which is still to be sent, and what came behind the request go with them.
type Adopt = dyn Fn(Detached, Bytes, BytesMut) + Send + Sync;

/// Where MQTT clients come in.
#[derive(Clone)]
pub struct Door {
    /// Values of the `Origin` header that may; none are the request's own host and loopback hosts.
    pub allowed_origins: Arc<[String]>,
    /// Whether there is somebody to take them just now.
    pub is_open: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Who takes them.
    pub adopt: Arc<Adopt>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("allowed_origins", &self.allowed_origins).finish_non_exhaustive()
    }
}

/// Whether a request is about MQTT at all. No gateway has a path of this name.
pub(super) fn is_asked_for(request: &Request) -> bool {
    request.path() == MQTT_PATH
}

impl Door {
    /// Handles a request that asks for an upgrade.
    pub(super) async fn enter(
        &self,
        addresses: &Addresses,
        request: &Request,
        framed: Framed<Io, h1::Codec>,
    ) {
        let parts = framed.into_parts();
        let admitted = addresses.admit(request).and_then(|_| self.check(request.head()));
        if let Err(refusal) = admitted {
            return refuse(parts.io, &parts.write_buf, &refusal).await;
        }
        let extra = [("Sec-WebSocket-Protocol", Some(SUBPROTOCOL.to_owned()))];
        let answer = switching_protocols(&parts.write_buf, request.head(), &extra);
        // A copy: the HTTP layer's buffer must not live as long as the connection.
        let early = BytesMut::from(&parts.read_buf[..]);
        match parts.io.detach() {
            Ok(socket) => (self.adopt)(socket, answer, early),
            Err(error) => tracing::debug!(%error, "failed to hand an MQTT client over"),
        }
    }

    fn check(&self, head: &RequestHead) -> Result<(), Refusal> {
        verify(head).map_err(Refusal::Handshake)?;
        let origins = head.headers.get_all(header::ORIGIN).map(|value| value.as_bytes());
        if !origin::is_allowed(origins, &self.allowed_origins, request::host(head)) {
            return Err(Refusal::MqttOrigin);
        }
        if !request::offers(head).any(|offer| offer == SUBPROTOCOL) {
            return Err(Refusal::Subprotocol);
        }
        if (self.is_open)() { Ok(()) } else { Err(Refusal::Stopping) }
    }
}

#[cfg(test)]
mod tests {
    use actix_http::test::TestRequest;
    use actix_http::ws::HandshakeError;
    use actix_http::{StatusCode, Version};

    use super::*;

    fn checked(
        origins: &[&str],
        is_open: bool,
        headers: &[(&'static str, &'static str)],
    ) -> Result<(), Refusal> {
        checked_in(Version::HTTP_11, origins, is_open, headers)
    }

    fn checked_in(
        version: Version,
        origins: &[&str],
        is_open: bool,
        headers: &[(&'static str, &'static str)],
    ) -> Result<(), Refusal> {
        let door = Door {
            allowed_origins: origins.iter().map(ToString::to_string).collect(),
            is_open: Arc::new(move || is_open),
            adopt: Arc::new(|_, _, _| {}),
        };
        let mut request = TestRequest::with_uri(MQTT_PATH);
        request.version(version);
        let lawful = [
            ("host", "gw"),
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ];
        for header in lawful.iter().chain(headers) {
            request.append_header(*header);
        }
        door.check(request.finish().head())
    }

    #[test]
    fn only_the_subprotocol_of_mqtt_comes_in() {
        let name = "sec-websocket-protocol";
        for good in ["mqtt", "mqttv3.1, mqtt", " mqtt "] {
            assert_eq!(checked(&[], true, &[(name, good)]), Ok(()), "{good}");
        }
        assert_eq!(checked(&[], true, &[(name, "chat"), (name, "mqtt")]), Ok(()));
        for bad in ["", "MQTT", "mqttv3.1", "chat, xmqtt"] {
            assert_eq!(checked(&[], true, &[(name, bad)]), Err(Refusal::Subprotocol), "{bad}");
        }
        assert_eq!(checked(&[], true, &[]), Err(Refusal::Subprotocol));
        assert_eq!(checked(&[], false, &[(name, "mqtt")]), Err(Refusal::Stopping));
    }

    #[test]
    fn a_version_of_http_without_upgrades_does_not_come_in() {
        let protocol = [("sec-websocket-protocol", "mqtt")];
        let refused = Refusal::Handshake(HandshakeError::NoWebsocketUpgrade);
        assert_eq!(checked_in(Version::HTTP_10, &[], true, &protocol), Err(refused));
        assert_eq!(checked_in(Version::HTTP_11, &[], true, &protocol), Ok(()));
    }

    #[test]
    fn pages_of_others_may_come_in_when_they_are_listed() {
        let protocol = ("sec-websocket-protocol", "mqtt");
        for (origin, list, expected) in [
            ("http://gw", &[][..], Ok(())),
            ("http://evil.example", &[], Err(Refusal::MqttOrigin)),
            ("http://evil.example", &["https://app.example"], Err(Refusal::MqttOrigin)),
            ("https://app.example", &["https://app.example"], Ok(())),
        ] {
            assert_eq!(checked(list, true, &[protocol, ("origin", origin)]), expected, "{origin}");
        }
        assert_eq!(Refusal::MqttOrigin.status(), StatusCode::FORBIDDEN);
    }
}
