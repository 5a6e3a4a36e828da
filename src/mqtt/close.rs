//! Why a connection ends: the one table from causes to counter words and reason codes.

use crate::telemetry::{METRICS, count};

/// The end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    /// The client said goodbye.
    Goodbye,
    /// The client said goodbye and wants its will published (5.0, reason 0x04).
    GoodbyeWithWill,
    /// The client is gone without a word.
    Gone,
    /// Bytes that are no packet.
    Malformed,
    /// A packet that is not allowed here.
    Protocol,
    /// A packet larger than the server takes.
    TooLarge,
    /// More unacknowledged publishes than the server announced.
    ReceiveMaximum,
    /// A topic alias that was never set or is out of range.
    TopicAlias,
    /// A topic name that is not valid.
    TopicName,
    /// A publish to a topic that the user may not write (3.1.1 has no other answer).
    Denied,
    /// Enhanced authentication, which is not offered.
    AuthMethod,
    /// Nothing came for one and a half keep-alive times.
    KeepAlive,
    /// The same client connected again.
    TakenOver,
    /// The account is no more, or its passwords have changed.
    LoggedOut,
    /// The server stops.
    Stopping,
    /// The engine could not take what was published.
    Refused,
    /// The client reads slower than messages come for it.
    SlowSubscriber,
    /// The client did not read for the longest time allowed.
    WriteTimeout,
    /// The TLS handshake failed.
    Tls,
    /// No complete CONNECT in time.
    ConnectTimeout,
    /// No CONNECT at all, or one that is malformed.
    NotConnect,
    /// A protocol version that is not spoken here.
    Version,
    /// A client id that is not accepted.
    ClientId,
    /// Unknown user, wrong password, or none.
    Login,
    /// A will that the user may not publish.
    Will,
    /// As many connections as allowed are open.
    TooManyConnections,
    /// A fault of the server's own; contained.
    Panicked,
}

impl Close {
    /// Its word in the counter; `None` where the client ended the connection.
    pub(crate) fn word(self) -> Option<&'static str> {
        Some(match self {
            Self::Goodbye | Self::GoodbyeWithWill | Self::Gone => return None,
            Self::Malformed => "malformed",
            Self::Protocol => "protocol_error",
            Self::TooLarge => "packet_too_large",
            Self::ReceiveMaximum => "receive_maximum",
            Self::TopicAlias => "topic_alias",
            Self::TopicName => "topic_name",
            Self::Denied => "not_authorized",
            Self::AuthMethod => "auth_method",
            Self::KeepAlive => "keep_alive",
            Self::TakenOver => "taken_over",
            Self::LoggedOut => "logged_out",
            Self::Stopping => "stopping",
            Self::Refused => "refused",
            Self::SlowSubscriber => "slow_subscriber",
            Self::WriteTimeout => "write_timeout",
            Self::Tls => "tls",
            Self::ConnectTimeout => "connect_timeout",
            Self::NotConnect => "not_connect",
            Self::Version => "protocol_version",
            Self::ClientId => "client_id",
            Self::Login => "login",
            Self::Will => "will",
            Self::TooManyConnections => "too_many_connections",
            Self::Panicked => "panic",
        })
    }

    /// The reason code of a DISCONNECT (5.0) that the server sends; `None` where it sends none.
    pub(crate) fn code(self) -> Option<u8> {
        Some(match self {
            Self::Malformed => 0x81,
            Self::Protocol => 0x82,
            Self::Refused | Self::Panicked => 0x83,
            Self::Denied => 0x87,
            Self::Stopping => 0x8b,
            Self::AuthMethod => 0x8c,
            Self::KeepAlive => 0x8d,
            Self::TakenOver => 0x8e,
            Self::TopicName => 0x90,
            Self::ReceiveMaximum => 0x93,
            Self::TopicAlias => 0x94,
            Self::TooLarge => 0x95,
            Self::SlowSubscriber => 0x97,
            Self::LoggedOut => 0x98,
            _ => return None,
        })
    }

    /// Whether the will is published after it.
    pub(crate) fn publishes_will(self) -> bool {
        !matches!(self, Self::Goodbye | Self::Stopping)
    }

    /// Counts it.
    pub(crate) fn count(self) {
        if let Some(word) = self.word() {
            count(&METRICS.mqtt_closed, word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_ends_is_not_counted_and_not_answered() {
        for close in [Close::Goodbye, Close::GoodbyeWithWill, Close::Gone] {
            assert_eq!((close.word(), close.code()), (None, None));
        }
    }

    #[test]
    fn every_word_is_one_of_the_counter() {
        let known = METRICS.mqtt_closed.words().map(|[word]| word).collect();
        assert_eq!(crate::telemetry::words_in(include_str!("close.rs"), "word"), known);
    }

    #[test]
    fn only_an_orderly_end_keeps_the_will_back() {
        assert!(!Close::Goodbye.publishes_will() && !Close::Stopping.publishes_will());
        assert!(Close::Gone.publishes_will() && Close::KeepAlive.publishes_will());
        assert!(Close::GoodbyeWithWill.publishes_will() && Close::TakenOver.publishes_will());
    }
}
