//! Why connections end: the one table of close codes (RFC 6455 section 7.4), and whether to come back.

/// Why the server closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Close {
    /// 1001: no message and no ping for as long as the path allows.
    Idle,
    /// 1001: the connection has lived for as long as the path allows.
    Lifetime,
    /// 1001: the gateway is stopped, or has this path no more.
    Withdrawn,
    /// 1001: asked for by a call of the management API.
    Disconnected,
    /// 1002: the client broke the protocol.
    Protocol,
    /// 1007: text that is not UTF-8.
    NotUtf8,
    /// 1007: a compressed message that cannot be read.
    Corrupt,
    /// 1008: more frames or bytes in a second than the path allows.
    TooFast,
    /// 1009: a frame or a message longer than the path allows.
    TooBig,
    /// 1012: the server stops or starts again.
    Restart,
    /// 1013: the client fell too far behind.
    TooSlow,
    /// 1013: the client fell behind so far that the journal does not keep what it missed.
    Gone,
    /// 4401: what the client has shown to be let in holds no more.
    Expired,
}

impl Close {
    /// Every way.
    const ALL: [Self; 13] = [
        Self::Idle,
        Self::Lifetime,
        Self::Withdrawn,
        Self::Disconnected,
        Self::Protocol,
        Self::NotUtf8,
        Self::Corrupt,
        Self::TooFast,
        Self::TooBig,
        Self::Restart,
        Self::TooSlow,
        Self::Gone,
        Self::Expired,
    ];

    /// The code and the reason that integrations are told for a counter's word. A connection that was not closed has
    /// 1006 (RFC 6455 section 7.1.5).
    pub(super) fn told(name: &str) -> (u16, &'static str) {
        let close = Self::ALL.into_iter().find(|close| close.name() == name);
        close.map_or(Self::lost(), |close| (close.code(), close.reason()))
    }

    /// What integrations are told of a client that went without a word.
    pub(super) const fn lost() -> (u16, &'static str) {
        (1006, "connection lost")
    }

    /// The code of the close frame.
    pub(super) const fn code(self) -> u16 {
        match self {
            Self::Idle | Self::Lifetime | Self::Withdrawn | Self::Disconnected => 1001,
            Self::Protocol => 1002,
            Self::NotUtf8 | Self::Corrupt => 1007,
            Self::TooFast => 1008,
            Self::TooBig => 1009,
            Self::Restart => 1012,
            Self::TooSlow | Self::Gone => 1013,
            Self::Expired => 4401,
        }
    }

    /// The reason of the close frame: ASCII, at most 123 bytes.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Idle => "idle for too long",
            Self::Lifetime => "open for as long as the path allows, connect again",
            Self::Withdrawn => "the gateway is stopped, or has this path no more",
            Self::Disconnected => "disconnected by the operator",
            Self::Protocol => "protocol error",
            Self::NotUtf8 => "text is not UTF-8",
            Self::Corrupt => "compressed message cannot be read",
            Self::TooFast => "more frames or bytes a second than the path allows",
            Self::TooBig => "a frame or a message longer than the path allows",
            Self::Restart => "the server restarts, connect again",
            Self::TooSlow => "too slow, connect again",
            Self::Gone => "what comes next is kept no more, connect again",
            Self::Expired => "the token has expired",
        }
    }

    /// The word for counters.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::Withdrawn => "withdrawn",
            Self::Disconnected => "disconnected",
            Self::Protocol => "protocol",
            Self::NotUtf8 => "not_utf8",
            Self::Corrupt => "corrupt",
            Self::TooFast => "too_fast",
            Self::TooBig => "too_big",
            Self::Restart => "restart",
            Self::TooSlow => "too_slow",
            Self::Gone => "gone",
            Self::Expired => "expired",
        }
    }

    /// Whether the client has broken a rule: nothing it sends after that is read.
    pub(super) const fn is_violation(self) -> bool {
        matches!(self, Self::Protocol | Self::NotUtf8 | Self::Corrupt | Self::TooFast | Self::TooBig)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::telemetry::METRICS;

    /// Besides those of [`Close`]: ends without one of our close frames.
    const OTHERS: [&str; 4] = ["client", "connection_lost", "dead", "control_flood"];

    #[test]
    fn every_word_is_one_of_the_counter_which_says_its_code() {
        let known = &METRICS.websocket_closed;
        let ours = Close::ALL.map(Close::name);
        let words: BTreeSet<_> = ours.into_iter().chain(OTHERS).collect();
        assert_eq!(known.words().map(|[word]| word).collect::<BTreeSet<_>>(), words);
        let listed = METRICS.listed();
        let listed =
            listed.iter().find(|metric| metric.name == "triggercast_websocket_closed_total").unwrap();
        for close in Close::ALL {
            let (_, (_, means)) = listed.words.iter().find(|(_, (word, _))| *word == close.name()).unwrap();
            assert!(means.starts_with(&format!("{}: ", close.code())), "{close:?} {means}");
        }
    }

    #[test]
    fn reasons_fit_a_control_frame() {
        for close in Close::ALL {
            assert!(close.reason().is_ascii() && close.reason().len() <= 123);
            // Above 4000 are those of the program (RFC 6455 section 7.4.2).
            assert!((1001..=1013).contains(&close.code()) || (4000..=4999).contains(&close.code()));
            assert_eq!(Close::told(close.name()), (close.code(), close.reason()));
        }
        assert_eq!(Close::told("dead").0, 1006);
    }
}
