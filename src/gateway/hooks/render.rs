//! Requests of integrations, and fixed answers, with the values of a client's request in them. Pure.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

use super::caller::{Caller, Event, Header};
use crate::model::hook::{Dummy, HttpCall, Parameter, Piece, Place, names, pieces};

/// What a value must not change in an address: all but the unreserved characters of RFC 3986.
const IN_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The same for a value that is several segments.
const IN_PATH: &AsciiSet = &IN_SEGMENT.remove(b'/');

/// A request to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rendered {
    pub(super) url: Url,
    pub(super) headers: Vec<Header>,
}

/// A value of the client's request that may not stand where it should.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unfit(pub(super) String);

/// Makes the request of a call. `content_type` is that of the body, if there is one.
pub(super) fn request(
    call: &HttpCall,
    parameters: &[Parameter],
    caller: &Caller,
    event: &Event<'_>,
    content_type: Option<&str>,
) -> Result<Rendered, Unfit> {
    let own = caller.own_headers(event);
    let value = |name: &str| caller.value(name, &own);
    let place = |name: &str| parameters.iter().find(|known| known.name == name).map(|known| known.place);
    let encode = |text: &str, name: &str| {
        let encoded = if place(name) == Some(Place::Rest) { IN_PATH } else { IN_SEGMENT };
        utf8_percent_encode(text, encoded).to_string()
    };
    let fill_in = |text: &str| fill(text, value, |text, name| Cow::Owned(encode(text, name)));
    let path = call.url.split(['?', '#']).next().unwrap_or_default();
    for segment in path.split('/').filter(|segment| names(segment).next().is_some()) {
        // As servers may read it: escapes undone, and both slashes alike.
        let filled = fill_in(segment);
        let filled = percent_decode_str(&filled).decode_utf8_lossy();
        if filled.split(['/', '\\']).any(|step| matches!(step, "." | "..")) {
            return Err(Unfit(format!("{segment} may not be a step of a path")));
        }
    }
    let url = fill_in(&call.url);
    let mut url = Url::parse(&url).map_err(|error| Unfit(format!("the address {url:?}: {error}")))?;
    for (name, template) in &call.query {
        let text = fill(template, value, |text, _| Cow::Borrowed(text));
        if !(text.is_empty() && call.omit_empty_query) {
            url.query_pairs_mut().append_pair(name, &text);
        }
    }
    let mut headers: Vec<Header> = caller.always().to_vec();
    let set = |headers: &mut Vec<Header>, name: &str, value: Vec<u8>| {
        let name = name.to_ascii_lowercase();
        headers.retain(|(known, _)| *known != name);
        headers.push((name, value));
    };
    if call.wants_all_headers() {
        headers = caller.headers().to_vec();
    }
    if let Some(content_type) = content_type {
        set(&mut headers, "content-type", content_type.as_bytes().to_vec());
    }
    for (name, template) in call.headers.iter().filter(|(name, _)| name != "*") {
        let text = fill(template, value, |text, _| Cow::Borrowed(text));
        if text.chars().any(|c| c.is_control() && c != '\t') {
            return Err(Unfit(format!("the header {name} may not hold control characters")));
        }
        if !(text.is_empty() && call.omit_empty_headers) {
            set(&mut headers, name, text.into_bytes());
        }
    }
    for (name, value) in own.iter() {
        set(&mut headers, name, value.clone().into_bytes());
    }
    Ok(Rendered { url, headers })
}

/// The fixed answer: its headers and its body.
pub(super) fn answer(dummy: &Dummy, caller: &Caller, event: &Event<'_>) -> (Vec<Header>, String) {
    let own = caller.own_headers(event);
    let text =
        |template: &str| fill(template, |name| caller.value(name, &own), |text, _| Cow::Borrowed(text));
    let header = |(name, template): &(String, String)| {
        let text: String = text(template).chars().filter(|c| !c.is_control() || *c == '\t').collect();
        (name.to_ascii_lowercase(), text.into_bytes())
    };
    let body = dummy.content.as_deref().map(text).unwrap_or_default();
    (dummy.headers.iter().map(header).collect(), body)
}

/// Replaces the `{name}`s of a text by what `value` gives, each passed through `encode` with its name. A name that is
/// not known stays as it stands.
fn fill<'v>(
    text: &str,
    value: impl Fn(&str) -> Option<&'v str>,
    encode: impl Fn(&'v str, &str) -> Cow<'v, str>,
) -> String {
    let mut filled = String::with_capacity(text.len());
    for piece in pieces(text) {
        match piece {
            Piece::Text(text) => filled.push_str(text),
            Piece::Name(name) => match value(name) {
                Some(value) => filled.push_str(&encode(value, name)),
                None => filled.extend(["{", name, "}"]),
            },
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use actix_http::RequestHead;
    use actix_http::header::{HeaderName, HeaderValue};
    use uuid::Uuid;

    use super::*;
    use crate::config::openapi;
    use crate::model::hook::{Hooks, Integration};

    const ID: Uuid = Uuid::from_u128(7);

    fn hooks(integration: &str) -> Hooks {
        let text = format!(
            "openapi: 3.0.0\npaths:\n  '/r/{{room}}/{{rest+}}':\n    parameters:\n    - {{name: q, in: query, schema: {{default: none}}}}\n    - {{name: X-A, in: header}}\n    - {{name: c, in: cookie}}\n    x-yc-apigateway-websocket-message: {integration}\n"
        );
        let paths =
            openapi::parse(&text, std::path::Path::new("spec")).unwrap_or_else(|fault| panic!("{fault}"));
        paths[0].hooks.clone()
    }

    fn caller(
        hooks: &Hooks,
        uri: &str,
        headers: &[(&'static str, &'static str)],
        path: &[(&str, &str)],
    ) -> Caller {
        let mut head = RequestHead::default();
        head.uri = uri.parse().unwrap();
        for (name, value) in headers {
            head.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let path: Vec<_> =
            path.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_600_000_000_123);
        Caller::new(ID, now, &head, &path, hooks).unwrap()
    }

    fn render(hooks: &Hooks, caller: &Caller, event: &Event<'_>) -> Result<Rendered, Unfit> {
        let Some(Integration::Http(call)) = &hooks.message else { panic!("a call") };
        request(call, &hooks.parameters, caller, event, Some("application/json"))
    }

    fn shown(rendered: &Rendered) -> String {
        let headers = rendered
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)));
        std::iter::once(rendered.url.to_string()).chain(headers).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn values_of_the_request_go_where_they_are_named() {
        let hooks = hooks(
            "{type: http, url: 'https://e.org/{room}/x/{rest}?q={q}', query: {c: '{c}', none: ''}, omitEmptyQueryParameters: true, \
             omitEmptyHeaders: true, headers: {X-B: 'b {X-A}', X-Empty: '{c}x', Content-Type: text/plain, Id: '{X-Yc-Apigateway-Websocket-Message-Id}'}}",
        );
        let caller = caller(
            &hooks,
            "/main/r/1?q=a%26b",
            &[
                ("x-a", "hello"),
                ("cookie", "a=1; c=\"2\""),
                ("user-agent", "me"),
                ("sec-websocket-protocol", "p"),
            ],
            &[("room", "a/b?"), ("rest", "c d/e")],
        );
        insta::assert_snapshot!(shown(
            &render(&hooks, &caller, &Event::Message(Uuid::from_u128(8))).unwrap()
        ));
    }

    #[test]
    fn all_headers_are_passed_on_but_those_of_the_hop_and_our_own() {
        let hooks = hooks("{type: http, url: 'https://e.org', headers: {'*': '*'}}");
        let headers = [
            ("accept-encoding", "gzip, br"),
            ("authorization", "Bearer t"),
            ("connection", "Upgrade, X-Of-Hop"),
            ("connection", "keep-alive ,x-of-hop-too"),
            ("x-of-hop", "1"),
            ("x-of-hop-too", "2"),
            ("host", "here"),
            ("x-yc-apigateway-websocket-connection-id", "forged"),
            ("x_yc_apigateway_websocket_connection_id", "forged"),
            ("content-length", "5"),
        ];
        let caller = caller(&hooks, "/", &headers, &[]);
        insta::assert_snapshot!(shown(
            &render(&hooks, &caller, &Event::Disconnect(1000, "bye\r\nX: 1 ü")).unwrap()
        ));
    }

    #[test]
    fn a_value_cannot_leave_its_place() {
        let hooks = hooks("{type: http, url: 'https://e.org/open/{rest}?of={rest}', headers: {X: '{q}'}}");
        for (uri, rest, is_fit) in [
            ("/", "a/b", true),
            ("/", "../admin", false),
            ("/", "a/../../admin", false),
            ("/", "a\\..\\b", false),
            ("/", "%2e%2e/admin", true),
            ("/?q=a%0d%0aHost:%20evil", "a", false),
        ] {
            let caller = caller(&hooks, uri, &[], &[("rest", rest), ("room", "r")]);
            let rendered = render(&hooks, &caller, &Event::Connect);
            assert_eq!(rendered.is_ok(), is_fit, "{uri} {rest}: {rendered:?}");
            if let Ok(rendered) = rendered {
                assert!(rendered.url.as_str().starts_with("https://e.org/open/"), "{}", rendered.url);
            }
        }
    }

    #[test]
    fn no_value_of_any_place_makes_a_step_out_of_a_path() {
        let fits = |url: &str, q: &str, header: &'static str, cookie: &'static str| {
            let hooks = hooks(&format!("{{type: http, url: 'https://e.org/open/{url}'}}"));
            let uri = format!("/?q={q}");
            let caller = caller(&hooks, &uri, &[("x-a", header), ("cookie", cookie)], &[("room", ".")]);
            let rendered = render(&hooks, &caller, &Event::Connect);
            if let Ok(rendered) = &rendered {
                assert!(rendered.url.as_str().starts_with("https://e.org/open/"), "{}", rendered.url);
            }
            rendered.is_ok()
        };
        for step in ["..", ".", "../admin", "a/..", "a%5C..%5Cb", "%2E%2E"] {
            assert!(!fits("{q}", step, "", ""), "{step}");
            assert!(fits("list?q={q}#{q}", step, "", ""), "{step} may stand behind the path");
        }
        assert!(!fits("{X-A}/x", "", "..", "") && !fits("{c}", "", "", "c=.."));
        // Nor do two together, or one with what is around it.
        assert!(
            !fits("{room}{q}", ".", "", "") && !fits(".{q}", ".", "", "") && !fits("%2e{q}", ".", "", "")
        );
        assert!(fits("{room}{q}", "a", "", "") && fits("a{q}", "..", "", "") && fits("{q}", "...", "", ""));
        assert!(fits("../open/{q}", "a", "", ""), "what the document itself says is as it is meant");
    }

    #[test]
    fn a_fixed_answer_names_the_client() {
        let hooks = hooks(
            "{type: dummy, http_headers: {X-Room: '{room}'}, content: {'*': '{\"id\": \"{X-Yc-Apigateway-Websocket-Connection-Id}\", \"none\": {none}}'}}",
        );
        let Some(Integration::Dummy(dummy)) = &hooks.message else { panic!("a dummy") };
        let caller = caller(&hooks, "/", &[], &[("room", "a")]);
        let (headers, body) = answer(dummy, &caller, &Event::Connect);
        assert_eq!(headers, [("x-room".to_owned(), b"a".to_vec())]);
        assert_eq!(body, format!("{{\"id\": \"{ID}\", \"none\": {{none}}}}"));
    }
}
