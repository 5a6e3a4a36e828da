//! Why connections end: the one table of close codes (RFC 6455 section 7.4), and whether to come back.

/// Why the server closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Close {
    /// 1001: no message and no ping for ten minutes.
    Idle,
    /// 1001: the connection has lived for an hour.
    Lifetime,
    /// 1001: the gateway is stopped, or has this path no more.
    Withdrawn,
    /// 1001: asked for by a call of the management API.
    Disconnected,
    /// 1002: the client broke the protocol.
    Protocol,
    /// 1007: text that is not UTF-8.
    NotUtf8,
    /// 1009: a frame over 32 KiB or a message over 128 KiB.
    TooBig,
    /// 1012: the server stops or starts again.
    Restart,
    /// 1013: the client fell too far behind.
    TooSlow,
    /// 1013: the client fell behind so far that the journal does not keep what it missed.
    Gone,
}

impl Close {
    /// The code of the close frame.
    pub(super) const fn code(self) -> u16 {
        match self {
            Self::Idle | Self::Lifetime | Self::Withdrawn | Self::Disconnected => 1001,
            Self::Protocol => 1002,
            Self::NotUtf8 => 1007,
            Self::TooBig => 1009,
            Self::Restart => 1012,
            Self::TooSlow | Self::Gone => 1013,
        }
    }

    /// The reason of the close frame: ASCII, at most 123 bytes.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Idle => "idle for 10 minutes",
            Self::Lifetime => "open for 60 minutes, connect again",
            Self::Withdrawn => "the gateway is stopped, or has this path no more",
            Self::Disconnected => "disconnected by the operator",
            Self::Protocol => "protocol error",
            Self::NotUtf8 => "text is not UTF-8",
            Self::TooBig => "frame over 32768 or message over 131072 bytes",
            Self::Restart => "the server restarts, connect again",
            Self::TooSlow => "too slow, connect again",
            Self::Gone => "what comes next is kept no more, connect again",
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
            Self::TooBig => "too_big",
            Self::Restart => "restart",
            Self::TooSlow => "too_slow",
            Self::Gone => "gone",
        }
    }

    /// Whether the client has broken a rule: nothing it sends after that is read.
    pub(super) const fn is_violation(self) -> bool {
        matches!(self, Self::Protocol | Self::NotUtf8 | Self::TooBig)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_fit_a_control_frame() {
        use Close::*;
        for close in [Idle, Lifetime, Protocol, NotUtf8, TooBig, Restart, TooSlow, Gone] {
            assert!(close.reason().is_ascii() && close.reason().len() <= 123);
            assert!((1001..=1013).contains(&close.code()));
        }
    }
}
