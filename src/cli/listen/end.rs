//! Why listening ended, what that means, and whether to come back.

use std::fmt;

use anyhow::anyhow;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// Longest part of an answer that is shown when it is not JSON.
const MAX_SHOWN: usize = 200;

/// Why a connection ended.
pub(super) enum End {
    /// Ctrl-C.
    Asked,
    /// As many messages came as were wanted.
    Counted,
    /// Nobody reads stdout any more.
    OutputClosed,
    /// The server closed it, perhaps without saying why.
    Closed(Option<CloseFrame>),
    /// It broke, or was never made.
    Lost(String),
    /// The server answered the handshake with something else.
    Refused { status: String, message: String, may_come_back: bool },
}

impl End {
    pub(super) fn refused(response: &Response) -> Self {
        let body = response.body().as_deref().unwrap_or_default();
        let status = response.status();
        Self::Refused {
            status: status.to_string(),
            message: message_of(body),
            may_come_back: status.is_server_error() || status.as_u16() == 429,
        }
    }

    /// We wanted it to end, so nothing follows.
    pub(super) fn is_last(&self) -> bool {
        matches!(self, Self::Asked | Self::Counted | Self::OutputClosed)
    }

    /// Whether the server would want us back.
    pub(super) fn may_come_back(&self) -> bool {
        match self {
            Self::Asked | Self::Counted | Self::OutputClosed => false,
            Self::Closed(Some(frame)) => meaning(frame.code.into()).1,
            Self::Closed(None) | Self::Lost(_) => true,
            Self::Refused { may_come_back, .. } => *may_come_back,
        }
    }

    /// Success, or the error with the address. A closing in good order is told on stderr.
    pub(super) fn into_result(self, url: Option<&str>) -> anyhow::Result<()> {
        let good = match &self {
            Self::Closed(Some(frame)) => matches!(u16::from(frame.code), 1000 | 1001 | 1012),
            other => other.is_last(),
        };
        if !good {
            return Err(match url {
                Some(url) => anyhow!("{url}: {self}"),
                None => anyhow!("{self}"),
            });
        }
        if matches!(self, Self::Closed(_)) {
            super::output::to_stderr(format_args!("{self}"));
        }
        Ok(())
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("stopped"),
            Self::Counted => f.write_str("all messages are there"),
            Self::OutputClosed => f.write_str("stdout is closed"),
            Self::Closed(None) => f.write_str("closed by the server without a code; come back"),
            Self::Closed(Some(frame)) => {
                let code = u16::from(frame.code);
                write!(f, "closed by the server: {code} ")?;
                if !frame.reason.is_empty() {
                    write!(f, "{:?} ", frame.reason.as_str())?;
                }
                write!(f, "({})", meaning(code).0)
            }
            Self::Lost(error) => write!(f, "the connection failed: {error}"),
            Self::Refused { status, message, .. } if message.is_empty() => {
                write!(f, "refused by the server: {status}")
            }
            Self::Refused { status, message, .. } => write!(f, "refused by the server: {status}: {message}"),
        }
    }
}

/// What a close code means for a client, and whether it may come back.
fn meaning(code: u16) -> (&'static str, bool) {
    match code {
        1000 => ("done; no need to come back", false),
        1001 => ("the server goes away; come back", true),
        1002 => ("protocol error; do not come back", false),
        1003 | 1007 => ("it does not take such messages; do not come back", false),
        1008 => ("not allowed; do not come back", false),
        1009 => ("a message was too large; do not come back", false),
        1011 => ("an error of the server; come back later", true),
        1012 => ("the server restarts; come back", true),
        1013 => ("too slow, or the server is busy; come back later", true),
        1014 => ("a gateway between failed; come back later", true),
        3000 => ("a login is needed; do not come back", false),
        3003 => ("not allowed; do not come back", false),
        4401 => ("the token has expired; come back with another", false),
        _ => ("unknown code; come back later", true),
    }
}

/// The message of a JSON answer, or the beginning of any other.
fn message_of(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let text = json
        .as_ref()
        .and_then(|json| {
            ["/message", "/error/message", "/error", "/errorMessage"]
                .iter()
                .find_map(|at| json.pointer(at)?.as_str())
        })
        .map_or_else(|| String::from_utf8_lossy(body).trim().to_owned(), str::to_owned);
    text.chars().take(MAX_SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_taken_out_of_json() {
        for (body, expected) in [
            (r#"{"message":"no such path","code":5}"#, "no such path"),
            (r#"{"error":{"message":"full"}}"#, "full"),
            (r#"{"code":5}"#, r#"{"code":5}"#),
            ("Not\nFound\n", "Not Found"),
            ("", ""),
        ] {
            assert_eq!(message_of(body.as_bytes()), expected);
        }
    }
}
