//! Which extensions a client offers, and the one that is taken: permessage-deflate (RFC 6455 section 9.1, RFC 7692
//! section 7.1). Pure.

/// The extension's name.
const NAME: &str = "permessage-deflate";

/// An offer of permessage-deflate that is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deflate {
    /// The client has named the server's window: it is answered, as large as it can be.
    names_window: bool,
}

impl Deflate {
    /// The answer's value of `Sec-WebSocket-Extensions`. Nothing is kept from message to message on either side; so
    /// one compressed batch is right for all clients.
    pub(super) fn answer(self) -> &'static str {
        if self.names_window {
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15"
        } else {
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        }
    }
}

/// A header that does not have the form of section 9.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads the values of `Sec-WebSocket-Extensions`, which stand in the client's order of preference. Gives the first
/// offer that can be accepted.
pub(super) fn choose<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<Deflate>, Malformed> {
    let mut chosen = None;
    for value in values {
        let mut rest = Rest(std::str::from_utf8(value).map_err(|_| Malformed)?);
        loop {
            // Empty elements of a list are allowed (RFC 9110 section 5.6.1).
            while rest.take(',') {}
            if rest.is_empty() {
                break;
            }
            let offer = rest.offer()?;
            chosen = chosen.or(offer);
            if !rest.is_empty() && !rest.take(',') {
                return Err(Malformed);
            }
        }
    }
    Ok(chosen)
}

/// What is not read yet of a header's value.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn skip_space(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    fn is_empty(&mut self) -> bool {
        self.skip_space();
        self.0.is_empty()
    }

    /// Takes this character, with the space before it, if it comes next.
    fn take(&mut self, wanted: char) -> bool {
        self.skip_space();
        let rest = self.0.strip_prefix(wanted);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// A token (RFC 9110 section 5.6.2).
    fn token(&mut self) -> Result<&'a str, Malformed> {
        self.skip_space();
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let end = self.0.find(|c| !is_token(c)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        if token.is_empty() { Err(Malformed) } else { Ok(token) }
    }

    /// What stands behind the equals sign: a token, or one in quotes.
    fn value(&mut self) -> Result<String, Malformed> {
        if !self.take('"') {
            return self.token().map(str::to_owned);
        }
        let mut value = String::new();
        let mut chars = self.0.chars();
        loop {
            match chars.next().ok_or(Malformed)? {
                '"' => break,
                '\\' => value.push(chars.next().ok_or(Malformed)?),
                other => value.push(other),
            }
        }
        self.0 = chars.as_str();
        // What is in quotes must be a token, too (RFC 6455 section 9.1).
        let mut inside = Rest(&value);
        if inside.token().is_ok_and(|token| token == value) { Ok(value) } else { Err(Malformed) }
    }

    /// An extension with its parameters; `None` if it is not one that can be accepted.
    fn offer(&mut self) -> Result<Option<Deflate>, Malformed> {
        let is_deflate = self.token()?.eq_ignore_ascii_case(NAME);
        let mut is_acceptable = is_deflate;
        let mut seen: Vec<String> = Vec::new();
        let mut names_window = false;
        while self.take(';') {
            let name = self.token()?.to_ascii_lowercase();
            let value = if self.take('=') { Some(self.value()?) } else { None };
            is_acceptable &= !seen.contains(&name);
            is_acceptable &= match (name.as_str(), value.as_deref()) {
                ("server_no_context_takeover" | "client_no_context_takeover", None) => true,
                ("client_max_window_bits", value) => value.is_none_or(|bits| window(bits).is_some()),
                ("server_max_window_bits", Some(bits)) => {
                    names_window = true;
                    // A smaller window for one client would be a compressed batch of its own.
                    window(bits) == Some(15)
                }
                _ => false,
            };
            seen.push(name);
        }
        Ok(is_acceptable.then_some(Deflate { names_window }))
    }
}

/// Bits of a window, as RFC 7692 section 7.1.2 writes them.
fn window(text: &str) -> Option<u8> {
    let bits = text.parse().ok().filter(|bits| (8..=15).contains(bits))?;
    (!text.starts_with(['0', '+'])).then_some(bits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chosen(values: &[&str]) -> Result<Option<bool>, Malformed> {
        choose(values.iter().map(|value| value.as_bytes())).map(|offer| offer.map(|offer| offer.names_window))
    }

    #[test]
    fn takes_the_first_offer_that_can_be_accepted() {
        let (plain, with_window) = (Ok(Some(false)), Ok(Some(true)));
        for (values, expected) in [
            (&[][..], Ok(None)),
            (&["permessage-deflate"], plain),
            (&["Permessage-Deflate ; Client_Max_Window_Bits"], plain),
            (&["permessage-deflate; client_max_window_bits=10"], plain),
            (&["permessage-deflate; client_max_window_bits=\"15\""], plain),
            (&["permessage-deflate; server_no_context_takeover; client_no_context_takeover"], plain),
            (&["permessage-deflate; server_max_window_bits=15"], with_window),
            (&["permessage-deflate; server_max_window_bits=\"1\\5\""], with_window),
            (&["permessage-deflate; server_max_window_bits=10, permessage-deflate"], plain),
            (&["permessage-deflate; server_max_window_bits=10", ", ,permessage-deflate;"], Err(Malformed)),
            (&["permessage-deflate; server_max_window_bits=10", ", ,permessage-deflate"], plain),
            (&["x-webkit-deflate-frame, permessage-bzip2; a=b; c=\"d\", permessage-deflate"], plain),
        ] {
            assert_eq!(chosen(values), expected, "{values:?}");
        }
    }

    #[test]
    fn offers_with_what_is_not_known_are_declined() {
        for offer in [
            "permessage-deflate; server_max_window_bits=14",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=015",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=+9",
            "permessage-deflate; client_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; level=9",
            "permessage-deflate2",
        ] {
            assert_eq!(chosen(&[offer]), Ok(None), "{offer}");
        }
    }

    #[test]
    fn what_is_no_list_of_extensions_is_malformed() {
        for value in [
            "permessage-deflate;",
            "permessage-deflate client_max_window_bits",
            "permessage-deflate; a=",
            "permessage-deflate; a=\"",
            "permessage-deflate; a=\"\"",
            "permessage-deflate; a=\"b c\"",
            "; a",
            "=",
            "ü",
        ] {
            assert_eq!(chosen(&[value]), Err(Malformed), "{value}");
        }
    }

    #[test]
    fn the_answer_never_asks_for_more_than_was_offered() {
        let answer = |value: &str| choose([value.as_bytes()]).unwrap().unwrap().answer();
        assert!(!answer("permessage-deflate; client_max_window_bits").contains("window"));
        assert!(
            answer("permessage-deflate; server_max_window_bits=15").ends_with("; server_max_window_bits=15")
        );
    }

    proptest! {
        #[test]
        fn never_panics(value in "[a-z;,=\"\\\\ 0-9_-]{0,60}|.{0,20}") {
            let _ = choose([value.as_bytes()]);
        }
    }
}
