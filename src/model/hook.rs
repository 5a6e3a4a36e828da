//! What a gateway asks when clients connect, speak and go: the integrations of a path's hooks.

use std::time::Duration;

/// The integrations of a WebSocket path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Asked before a client is connected; it may refuse.
    pub connect: Option<Integration>,
    /// Asked for each message of a client; its answer goes back. Without one, messages are taken and forgotten.
    pub message: Option<Integration>,
    /// Told that a client has gone.
    pub disconnect: Option<Integration>,
    /// The values of a client's first request that they use.
    pub parameters: Vec<Parameter>,
}

/// What answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Integration {
    /// The gateway itself, always the same.
    Dummy(Dummy),
    /// Another server.
    Http(HttpCall),
}

impl Integration {
    /// Every parameter that its texts name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let (text, pairs) = match self {
            Self::Dummy(dummy) => (dummy.content.as_deref(), [&dummy.headers[..], &[]]),
            Self::Http(call) => (Some(call.url.as_str()), [&call.headers[..], &call.query]),
        };
        let values = pairs.into_iter().flatten().map(|(_, value)| value.as_str());
        text.into_iter().chain(values).flat_map(names)
    }
}

impl HttpCall {
    /// Whether every header of the client's request goes with it.
    pub fn wants_all_headers(&self) -> bool {
        self.headers.iter().any(|(name, _)| name == "*")
    }
}

/// A fixed answer. In its texts `{name}` stands for a parameter of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dummy {
    /// The HTTP status.
    pub status: u16,
    /// Headers, one entry for each value.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub content: Option<String>,
}

/// A request to another server. In its texts `{name}` stands for a parameter of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCall {
    /// Where it goes: `http` or `https`.
    pub url: String,
    /// The method.
    pub method: String,
    /// Headers, besides those that tell of the connection. The name `*` with the value `*` stands for every header of
    /// the client's request.
    pub headers: Vec<(String, String)>,
    /// Whether a header whose value is empty is left out.
    pub omit_empty_headers: bool,
    /// Parameters of the query, besides those of the address.
    pub query: Vec<(String, String)>,
    /// Whether a parameter of the query whose value is empty is left out.
    pub omit_empty_query: bool,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Time from the request to the end of the answer.
    pub read_timeout: Duration,
}

/// A value of a client's request that integrations use as `{name}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// What it is when the request has none.
    pub default: Option<String>,
}

/// Where a value stands in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the path, at `{name}`.
    Path,
    /// In the path, at `{name+}`: its value may hold '/'.
    Rest,
    /// In the query.
    Query,
    /// In a header.
    Header,
    /// In a cookie.
    Cookie,
}

/// What names of parameters are.
pub const NAME_RULE: &str = "letters, digits, '_', '-' and '.', 1 to 64";
/// Headers that tell an integration of the connection.
const OWN_HEADERS: &str = "x-yc-apigateway-websocket-";

/// Whether a parameter may be named so.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

/// Whether a name is that of a header that tells of the connection, which can be used like a parameter.
pub fn is_own_header(name: &str) -> bool {
    name.get(..OWN_HEADERS.len()).is_some_and(|start| is_same_header(start, OWN_HEADERS))
}

/// Whether two headers are one to a server that is asked: many, such as those of CGI, know no case, and take `_` for
/// `-`.
pub fn is_same_header(one: &str, other: &str) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    one.bytes().map(plain).eq(other.bytes().map(plain))
}

/// Every `{name}` of a text, without the braces.
pub fn names(text: &str) -> impl Iterator<Item = &str> {
    pieces(text).filter_map(|piece| match piece {
        Piece::Name(name) => Some(name),
        Piece::Text(_) => None,
    })
}

/// A piece of a text with parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// As it stands.
    Text(&'a str),
    /// What stood in braces.
    Name(&'a str),
}

/// Takes a text apart. Braces around anything but a name are text.
pub fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let name = |at: usize| {
            let inner = &rest[at + 1..];
            // A name has at most 64 bytes, so that texts of braces are read in no time.
            let end = inner.bytes().take(65).position(|byte| byte == b'}')?;
            let name = &inner[..end];
            is_name(name).then_some(name)
        };
        let found = rest.match_indices('{').find_map(|(at, _)| Some((at, name(at)?)));
        let (piece, len) = match found {
            Some((0, name)) => (Piece::Name(name), name.len() + 2),
            Some((at, _)) => (Piece::Text(&rest[..at]), at),
            None => (Piece::Text(rest), rest.len()),
        };
        rest = &rest[len..];
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_braces() {
        let text = r#"a{b}{c-d}{"e":{f}}{g h}{{i}"#;
        assert_eq!(names(text).collect::<Vec<_>>(), ["b", "c-d", "f", "i"]);
        let whole: String = pieces(text)
            .map(|piece| match piece {
                Piece::Text(text) => text.to_owned(),
                Piece::Name(name) => format!("<{name}>"),
            })
            .collect();
        assert_eq!(whole, r#"a<b><c-d>{"e":<f>}{g h}{<i>"#);
    }

    #[test]
    fn our_own_headers_are_known_however_they_are_written() {
        for own in ["X-Yc-Apigateway-Websocket-Connection-Id", "x_yc-apigateway_websocket_event_type"] {
            assert!(is_own_header(own), "{own}");
        }
        for other in [
            "X-Yc",
            "",
            "X-Yc-Apigateway-Websocket",
            "X.Yc.Apigateway.Websocket.Id",
            "\u{e4}".repeat(30).as_str(),
        ] {
            assert!(!is_own_header(other), "{other}");
        }
    }
}
