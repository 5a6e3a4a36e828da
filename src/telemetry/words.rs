//! The words that counters have from the start, and what each means: the second table of `docs/metrics.md`.
//!
//! Where an enum gives the words, a test beside it holds the two against each other.

use super::reasons::{Label, Word};

const fn reason(words: &'static [Word]) -> [Label; 1] {
    [("reason", words)]
}

/// Why batches close.
pub(super) const BATCHES: [Label; 1] = reason(&[
    ("count", "It held as many events as it may"),
    ("bytes", "The next event would have made its message too long"),
    ("cutoff", "Its time was over"),
    ("oversize", "Its one event is longer than a message may be, and travels alone"),
    ("drain", "The trigger ended, was changed or starts again"),
]);

/// Why jq does not let events through.
pub(super) const JQ: [Label; 1] = reason(&[
    ("filtered", "The filter said no, as it is meant to"),
    ("error", "The program failed for it; the log says of which trigger"),
    ("over_budget", "The program took more time or memory than it may"),
    ("too_large", "What the program made of it is too large"),
]);

/// Why the MQTT server ends or refuses connections.
pub(super) const MQTT_CLOSED: [Label; 1] = reason(&[
    ("malformed", "Bytes that are no packet"),
    ("protocol_error", "A packet that is not allowed at this point"),
    ("packet_too_large", "A packet larger than the server takes"),
    ("receive_maximum", "More unacknowledged publishes than the server announced"),
    ("topic_alias", "A topic alias that was never set or is out of range"),
    ("topic_name", "A topic name that is not valid"),
    ("not_authorized", "A publish by MQTT 3.1.1 to a topic that the user may not write"),
    ("auth_method", "Enhanced authentication, which is not offered"),
    ("keep_alive", "Nothing came for one and a half keep-alive times: the device or its network is gone"),
    ("taken_over", "The same client connected again; often: two devices with one client id"),
    ("logged_out", "The account is no more, or its passwords or certificates have changed"),
    ("stopping", "The server stopped"),
    ("refused", "The engine could not keep what was published; see the journal"),
    ("slow_subscriber", "A subscriber reads slower than messages come for it"),
    ("write_timeout", "It did not read for the longest time allowed"),
    ("tls", "The TLS handshake failed"),
    ("connect_timeout", "No complete CONNECT in time"),
    ("not_connect", "No CONNECT at all, or one that is malformed"),
    ("protocol_version", "A version of MQTT that is not spoken here"),
    ("client_id", "A client id that is not accepted"),
    ("login", "Unknown user, wrong password or certificate, or none; many: somebody guesses"),
    ("will", "A will that the user may not publish"),
    ("too_many_connections", "As many connections are open as `mqtt.max_connections` allows"),
    ("panic", "A fault of the server's own, contained; please report it"),
]);

/// Why WebSocket connections end: the close code first, but for those that end without one.
pub(super) const WEBSOCKET_CLOSED: [Label; 1] = reason(&[
    ("idle", "1001: no message and no ping for as long as the path allows"),
    ("lifetime", "1001: open for as long as the path allows; clients come back"),
    ("withdrawn", "1001: the gateway was stopped, or has this path no more"),
    ("disconnected", "1001: by a call of the management API"),
    ("protocol", "1002: the client broke the protocol"),
    ("not_utf8", "1007: text that is not UTF-8"),
    ("corrupt", "1007: a compressed message that cannot be read"),
    ("too_fast", "1008: more frames or bytes a second than the path allows"),
    ("too_big", "1009: a frame or a message longer than the path allows"),
    ("restart", "1012: the server stopped; clients come back"),
    ("too_slow", "1013: it fell too far behind; see `backlog_bytes` and `slow_clients` of the path"),
    ("gone", "1013: it fell behind what the journal keeps; see `retention` of the path"),
    ("expired", "4401: its token has expired; clients send a new one or come back with one"),
    ("client", "By the client, with a close frame"),
    ("connection_lost", "By the client or its network, without a word (1006)"),
    ("dead", "It did not answer a ping (1006): its network is gone"),
    ("control_flood", "It made more pongs or answers wait than it took (1006)"),
]);

/// Why handshakes are refused: the HTTP status first.
pub(super) const WEBSOCKET_REFUSED: [Label; 1] = reason(&[
    ("unknown_gateway", "404: no such gateway; the URL is `ws://HOST/{gateway_id}{path}`"),
    ("unknown_path", "404: the gateway has no such path"),
    ("gateway_stopped", "503: the gateway is stopped"),
    ("origin", "403: the `Origin` may not connect; see `allowed_origins` and `mqtt.websocket_origins`"),
    ("subprotocol", "400: MQTT is asked for by another name, or by none"),
    ("no_token", "401: the path asks for a token, and there is none, or more than one"),
    ("token_expired", "401: the token has expired"),
    ("token_scope", "403: the token lacks a scope of the path"),
    ("token", "401: the token is not good for this path; the answer says why"),
    ("denied", "403: the authorizer said no"),
    ("authorizer", "500, 502 or 504: who may connect cannot be told; see `triggercast_authorizers_total`"),
    ("not_websocket", "426: neither a WebSocket nor server-sent events were asked for"),
    ("handshake", "400, 405 or 426: a handshake that RFC 6455 does not allow"),
    ("start", "400: `last_event_id`, `since` or `last` is not understood"),
    ("filter", "400: the filter is not understood"),
    ("filters", "503: a worker has as many different filters of the path as may be"),
    ("extensions", "400: `Sec-WebSocket-Extensions` cannot be read"),
    ("history", "503: what was missed cannot be read just now; see the journal"),
    ("full", "503: as many connections are open as the server allows; see `max_connections` and `ulimit -n`"),
    ("path_full", "503: as many connections are open as the path allows"),
    ("address_full", "429: as many connections are open from one address as the path allows"),
    ("subject_full", "429: as many connections of one subject are open as the path allows"),
    ("too_fast", "429: one address begins too many connections; behind a proxy see `trusted_proxies`"),
    ("hook_refused", "400 to 599: the integration for CONNECT said no, with this status"),
    ("hook_failed", "502: the integration for CONNECT gave no answer"),
    ("hook_timed_out", "504: the integration for CONNECT gave no answer in time"),
    ("hooks_busy", "503: as many integrations are asked as may be"),
    ("unfit", "400: the request holds what cannot be passed on to the integration"),
    ("too_much_to_keep", "431: integrations use more of the request than is kept of one"),
    ("stopping", "503: the server stops"),
]);

/// What comes of asking authorizers.
pub(super) const AUTHORIZERS: [Label; 1] = reason(&[
    ("asked", "A server was asked, and answered"),
    ("answer_kept", "Not asked: its last answer for the same token holds"),
    ("failed", "It gave no answer, or none that is understood; clients get 500, 502 or 504"),
    ("keys_fetched", "The keys of tokens were fetched"),
    ("keys_failed", "They could not be fetched; the log says why"),
    ("refreshed", "A client sent a new token, which holds from now on"),
    ("not_refreshed", "A client sent a new token that is not good"),
]);

/// What integrations are told of, and what comes of it.
pub(super) const CALLS: [Label; 2] = [
    (
        "event",
        &[
            ("CONNECT", "A client wants to connect"),
            ("MESSAGE", "It sent a message"),
            ("DISCONNECT", "It has gone"),
        ],
    ),
    (
        "result",
        &[
            ("answered", "By a status of 2xx"),
            ("refused", "By another status"),
            ("unfit", "Not asked: the client's values could not be sent"),
            ("timed_out", "No answer in time"),
            ("failed", "No answer; the log says why"),
        ],
    ),
];

/// What is done with clients that fall too far behind.
pub(super) const SLOW_CLIENTS: [Label; 1] = reason(&[
    ("replay", "It reads on from the journal, and misses nothing"),
    ("drop_oldest", "It missed the oldest events"),
    ("disconnect", "It was closed with 1013"),
    ("gone", "It was closed with 1013 while it read from the journal, which did not keep what came next"),
]);

/// What clients can be given that ask for what they missed.
pub(super) const RESUMES: [Label; 1] = reason(&[
    ("complete", "All that they missed"),
    ("gap", "Not all: the journal keeps some of it no more; see `retention` of the path"),
]);

/// What becomes of notifications of container registries.
pub(super) const NOTIFICATIONS: [Label; 1] = reason(&[
    ("taken", "It is on disk"),
    ("unknown", "404: there is no such container registry"),
    ("unauthorized", "401: without the token of the registry, or with another"),
    ("malformed", "400 or 408: it is not understood, or did not come in time"),
    ("too_large", "413: its body is too long"),
    ("unavailable", "503: it could not be written, or too much waits; senders repeat it"),
]);

/// What tells of images and tags.
pub(super) const REGISTRY_EVENTS: [Label; 1] = reason(&[
    ("notified", "A notification"),
    ("checked", "The registry was asked, since a notification was in doubt"),
    ("reconciled", "A reading of the whole registry: the notification was lost"),
]);

/// How readings of container registries end.
pub(super) const RECONCILIATIONS: [Label; 1] =
    reason(&[("done", "It was read"), ("failed", "It was not; the log says why, and it is tried again")]);

/// How TLS handshakes end.
pub(super) const HANDSHAKES: [Label; 1] = reason(&[
    ("done", "The connection is encrypted"),
    ("failed", "The client speaks no TLS, or does not trust the certificate"),
    ("timeout", "It did not end within 5 s"),
    ("full", "Refused: too many at a time on the port"),
    ("address_full", "Refused: too many at a time from one address"),
]);

/// What becomes of new certificates.
pub(super) const RELOADS: [Label; 1] = reason(&[
    ("loaded", "It is shown from now on"),
    ("failed", "It cannot be used, and the old one stays; the log says why"),
]);

/// What becomes of spans.
pub(super) const SPANS: [Label; 1] = reason(&[
    ("exported", "The collector took it"),
    ("failed", "The collector did not take it"),
    ("dropped", "Too many waited"),
]);

/// Who can panic: actors, and tasks that are contained in the same way.
pub(super) const PANICS: [Label; 1] = [(
    "actor",
    &[
        ("Api", "A call of the management API"),
        ("BatchActor", "The batches of an action; the open one is sent, and it goes on"),
        ("GatewayActor", "A gateway; it may start again, and its sources with it"),
        ("MqttConnection", "A connection of the MQTT server, which ended"),
        ("MqttSource", "The client of an external broker; `/readyz` tells it"),
        ("SessionActor", "What a WebSocket client sent"),
        ("ShardActor", "A worker's clients of a path"),
        ("SourceActor", "A source; it starts again"),
        ("SupervisorActor", "What keeps sources and gateways running"),
        ("journal", "The journal: nothing is acknowledged any more; start the server again"),
        ("registries", "The index of container registries; what it did is refused"),
    ],
)];

/// Who can start again.
pub(super) const RESTARTS: [Label; 1] = [(
    "actor",
    &[
        ("BatchActor", "After a panic"),
        ("GatewayActor", "It had ended; its sources start again, too"),
        ("SourceActor", "It, or an actor behind it, had ended"),
    ],
)];
