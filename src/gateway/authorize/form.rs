//! What is told to an authorizer that is another server, and what it answers. Pure.

use actix_http::header;
use serde_json::{Map, Value, json};

use super::Asked;
use super::answers::Decision;
use super::jwt::MAX_SUBJECT;
use crate::gateway::request;

/// A request as the model system's authorizers get it. `resource` is the path as it is declared, `path` as it is asked
/// for, both without the gateway's id.
pub(super) fn question(asked: &Asked<'_>) -> Value {
    let head = asked.head;
    let mut headers: Map<String, Value> = Map::new();
    for (name, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        match headers.entry(title_case(name.as_str())) {
            serde_json::map::Entry::Occupied(mut first) => {
                let joined = format!("{},{value}", first.get().as_str().unwrap_or_default());
                first.insert(joined.into());
            }
            serde_json::map::Entry::Vacant(place) => drop(place.insert(value.into())),
        }
    }
    let query: Map<String, Value> =
        request::query(head).map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect();
    let parameters: Map<String, Value> =
        asked.values.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    let cookies: Map<String, Value> =
        request::cookies(head).map(|(name, value)| (name.to_owned(), value.into())).collect();
    let agent = head.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let source = asked.address.map(|address| address.to_string());
    json!({
        "resource": &*asked.key.path,
        "path": asked.path,
        "httpMethod": head.method.as_str(),
        "headers": headers,
        "queryStringParameters": query,
        "pathParameters": parameters,
        "requestContext": {
            "identity": { "sourceIp": source.unwrap_or_default(), "userAgent": agent.unwrap_or_default() },
        },
        "cookies": cookies,
    })
}

/// A header's name as it is mostly written: the layer below has made it small.
fn title_case(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    };
    name.split('-').map(word).collect::<Vec<_>>().join("-")
}

/// Reads an answer. The error says what is wrong with it.
pub(super) fn answer(json: &[u8]) -> Result<Decision, &'static str> {
    const FORM: &str = "it is not {\"isAuthorized\": true or false, \"context\": {}}";
    let mut answer: Map<String, Value> = serde_json::from_slice(json).map_err(|_| FORM)?;
    let is_authorized = answer.get("isAuthorized").and_then(Value::as_bool).ok_or(FORM)?;
    let context = match answer.remove("context") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(context)) => context,
        Some(_) => return Err(FORM),
    };
    let subject = match context.get("subject").or_else(|| context.get("principalId")) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.len() <= MAX_SUBJECT => Some(text.as_str().into()),
        Some(_) => return Err("its `context.subject` is not a text of at most 255 bytes"),
    };
    let expires_at = match context.get("expires_at") {
        None | Some(Value::Null) => None,
        Some(Value::Number(time)) => Some(time.as_f64().unwrap_or_default() as i64),
        Some(_) => return Err("its `context.expires_at` is not a number of seconds since 1970"),
    };
    Ok(Decision { is_authorized, subject, expires_at })
}

#[cfg(test)]
mod tests {
    use actix_http::header::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;
    use crate::model::gateway::PathKey;

    #[test]
    fn a_question_has_the_model_systems_form() {
        let mut request = actix_http::Request::new();
        let head = request.head_mut();
        head.uri = "/main/ws/7?room=a%20b&x=1".parse().unwrap();
        // A proxy, and the client behind it.
        head.peer_addr = Some("192.0.2.1:1234".parse().unwrap());
        let address = Some("10.0.0.7".parse().unwrap());
        for (name, value) in [
            ("authorization", "Bearer t"),
            ("user-agent", "curl"),
            ("x-a", "1"),
            ("x-a", "2"),
            ("cookie", "a=b; c=\"d\""),
        ] {
            head.headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static(value));
        }
        let key = PathKey { gateway_id: "main".into(), path: "/ws/{room}".into() };
        let values = [("room".to_owned(), "7".to_owned())];
        assert_eq!(
            question(&Asked { head, address, key: &key, path: "/ws/7", values: &values }),
            json!({
                "resource": "/ws/{room}",
                "path": "/ws/7",
                "httpMethod": "GET",
                "headers": {
                    "Authorization": "Bearer t", "User-Agent": "curl", "X-A": "1,2", "Cookie": "a=b; c=\"d\"",
                },
                "queryStringParameters": { "room": "a b", "x": "1" },
                "pathParameters": { "room": "7" },
                "requestContext": { "identity": { "sourceIp": "10.0.0.7", "userAgent": "curl" } },
                "cookies": { "a": "b", "c": "d" },
            })
        );
    }

    #[test]
    fn an_answer_says_yes_or_no_and_who_until_when() {
        let decision = |is_authorized, subject: Option<&str>, expires_at| {
            Ok(Decision { is_authorized, subject: subject.map(Box::from), expires_at })
        };
        for (text, expected) in [
            (r#"{"isAuthorized":true}"#, decision(true, None, None)),
            (r#"{"isAuthorized":false,"context":null}"#, decision(false, None, None)),
            (r#"{"isAuthorized":true,"context":{"subject":"a","k":[1]}}"#, decision(true, Some("a"), None)),
            (
                r#"{"isAuthorized":true,"context":{"principalId":"b","expires_at":12.5}}"#,
                decision(true, Some("b"), Some(12)),
            ),
        ] {
            assert_eq!(answer(text.as_bytes()), expected, "{text}");
        }
        let long = format!(r#"{{"isAuthorized":true,"context":{{"subject":"{}"}}}}"#, "x".repeat(256));
        for bad in [
            "",
            "true",
            "[true]",
            "{}",
            r#"{"isAuthorized":"true"}"#,
            r#"{"isAuthorized":1}"#,
            r#"{"isauthorized":true}"#,
            r#"{"isAuthorized":true,"context":[]}"#,
            r#"{"isAuthorized":true,"context":{"subject":7}}"#,
            r#"{"isAuthorized":true,"context":{"expires_at":"soon"}}"#,
            &long,
        ] {
            assert!(answer(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_is_a_fault_of_ours(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = answer(&bytes);
        }
    }
}
