//! The REST front: the same calls as HTTP requests with JSON, by the `google.api.http` of each.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::BytesMut;
use futures_util::StreamExt;
use prost::Message;
use prost_reflect::{DeserializeOptions, DynamicMessage, Kind, MessageDescriptor, MethodDescriptor, Value};
use serde_json::{Map, Value as Json};

use crate::api::{Api, Code, Fault, Incoming, is_open, json};
use crate::proto::POOL;

/// Largest body, in bytes; of those who need not say who they are, less.
const MAX_BODY: usize = 8 * 1024 * 1024;
const MAX_OPEN_BODY: usize = 64 * 1024;
/// How long a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A call as an HTTP request.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) verb: Method,
    pub(super) parts: Vec<Part>,
    /// What follows the last part after a colon, as `pause`.
    pub(super) suffix: Option<String>,
    pub(super) has_body: bool,
    /// `package.Service/Method`.
    pub(super) name: String,
    pub(super) method: MethodDescriptor,
}

/// A part of a path, between slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// This word.
    Word(String),
    /// The field with this name.
    Field(String),
}

/// All calls that can be made and have an HTTP form.
pub(super) static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| {
    let methods = POOL.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    methods.flat_map(|method| routes(&method)).filter(|route| is_open(&route.name).is_some()).collect()
});

fn routes(method: &MethodDescriptor) -> Vec<Route> {
    let Some(extension) = POOL.get_extension_by_name("google.api.http") else { return Vec::new() };
    let options = method.options();
    let rule = options.get_extension(&extension);
    let Some(rule) = rule.as_message() else { return Vec::new() };
    let more = rule.get_field_by_name("additional_bindings");
    let more = more.as_ref().and_then(|more| more.as_list()).unwrap_or_default();
    let rules = std::iter::once(rule).chain(more.iter().filter_map(Value::as_message));
    rules.filter_map(|rule| route(method, rule)).collect()
}

fn route(method: &MethodDescriptor, rule: &DynamicMessage) -> Option<Route> {
    let text =
        |name: &str| Some(rule.get_field_by_name(name)?.as_str()?.to_owned()).filter(|text| !text.is_empty());
    let verbs =
        [("get", Method::GET), ("post", Method::POST), ("patch", Method::PATCH), ("delete", Method::DELETE)];
    let (verb, path) = verbs.into_iter().find_map(|(name, verb)| Some((verb, text(name)?)))?;
    // A colon ends the last part; none stands in a field's braces.
    let (path, suffix) = match path.rsplit_once(':') {
        Some((path, suffix)) if !suffix.contains('}') => (path.to_owned(), Some(suffix.to_owned())),
        _ => (path, None),
    };
    let part = |part: &str| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
        Some(field) => Part::Field(field.to_owned()),
        None => Part::Word(part.to_owned()),
    };
    Some(Route {
        verb,
        parts: path.trim_start_matches('/').split('/').map(part).collect(),
        suffix,
        has_body: text("body").is_some(),
        name: format!("{}/{}", method.parent_service().full_name(), method.name()),
        method: method.clone(),
    })
}

impl Route {
    /// The fields that its path names.
    pub(super) fn fields_of_path(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Field(name) => Some(name.as_str()),
            Part::Word(_) => None,
        })
    }

    /// The fields that a path names, if it is one of this route.
    fn fields(&self, path: &str) -> Option<Vec<(&str, String)>> {
        let path = path.strip_prefix('/')?;
        let path = match &self.suffix {
            Some(suffix) => path.strip_suffix(suffix.as_str())?.strip_suffix(':')?,
            None => path,
        };
        let mut given = path.split('/');
        let mut fields = Vec::new();
        for part in &self.parts {
            let text = given.next()?;
            match part {
                Part::Word(word) if word == text => {}
                Part::Word(_) => return None,
                Part::Field(_) if text.is_empty() || (self.suffix.is_none() && text.contains(':')) => {
                    return None;
                }
                Part::Field(field) => fields.push((field.as_str(), percent_decode(text)?)),
            }
        }
        given.next().is_none().then_some(fields)
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// Answers a request that is for no other part of the port: a call of the API, or 404.
pub(super) async fn call(request: HttpRequest, body: web::Payload, api: web::Data<Api>) -> HttpResponse {
    let request_id = super::request_id();
    let mut of_path = ROUTES.iter().filter_map(|route| Some((route, route.fields(request.path())?)));
    let mut response = match of_path.find(|(route, _)| route.verb == *request.method()) {
        Some((route, fields)) => {
            match answer(&request, body, api.into_inner(), route, fields, &request_id).await {
                Ok(text) => HttpResponse::Ok().content_type(header::ContentType::json()).body(text),
                Err(fault) => refuse(&fault, &request_id),
            }
        }
        None => nothing_there(&request, &request_id),
    };
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        for name in ["x-request-id", "x-server-trace-id"] {
            response.headers_mut().insert(HeaderName::from_static(name), value.clone());
        }
    }
    response
}

/// The error as JSON of a `google.rpc.Status`.
fn refuse(fault: &Fault, request_id: &str) -> HttpResponse {
    let status = StatusCode::from_u16(fault.code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let descriptor = POOL.get_message_by_name("google.rpc.Status");
    let encoded = fault.status(request_id).encode_to_vec();
    let message = descriptor.and_then(|descriptor| DynamicMessage::decode(descriptor, &*encoded).ok());
    let body = message.and_then(|message| json(&message).ok());
    let body =
        body.unwrap_or_else(|| serde_json::json!({ "code": fault.code as i32, "message": fault.message }));
    let mut builder = HttpResponse::build(status);
    if fault.code == Code::Unauthenticated {
        builder.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
    }
    builder.json(body)
}

/// Answers 404, or 405 with the methods that are possible.
fn nothing_there(request: &HttpRequest, request_id: &str) -> HttpResponse {
    let routes = ROUTES.iter().filter(|route| route.fields(request.path()).is_some());
    let verbs = routes.map(|route| route.verb.as_str()).collect::<Vec<_>>().join(", ");
    if verbs.is_empty() {
        let what = format!("There is nothing at {}", request.path().escape_debug());
        return refuse(&Fault::new(Code::NotFound, what), request_id);
    }
    let what = format!("{} is not possible at this path, only {verbs}", request.method());
    let mut response = refuse(&Fault::new(Code::Unimplemented, what), request_id);
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    if let Ok(verbs) = HeaderValue::from_str(&verbs) {
        response.headers_mut().insert(header::ALLOW, verbs);
    }
    response
}

async fn answer(
    request: &HttpRequest,
    body: web::Payload,
    api: Arc<Api>,
    route: &'static Route,
    fields: Vec<(&'static str, String)>,
    request_id: &str,
) -> Result<String, Fault> {
    let header =
        |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (authorization, key) = (header("authorization"), header("idempotency-key"));
    // Before anything is read of who says nothing.
    api.knows(&route.name, authorization.as_deref())?;
    let most = if authorization.is_some() { MAX_BODY } else { MAX_OPEN_BODY };
    let body = read(body, most).await?;
    let (query, id) = (request.query_string().to_owned(), request_id.to_owned());
    let answer = web::block(move || {
        let message = message(route, fields, &query, &body)?;
        let incoming = Incoming {
            authorization: authorization.as_deref(),
            idempotency_key: key.as_deref(),
            request_id: &id,
        };
        let bytes = api.call(&route.name, incoming, &message.encode_to_vec())?;
        let internal = |error: prost::DecodeError| Fault::new(Code::Internal, error.to_string());
        let answer = DynamicMessage::decode(route.method.output(), &*bytes).map_err(internal)?;
        Ok(json(&answer)?.to_string())
    });
    answer.await.unwrap_or_else(|_| Err(Fault::new(Code::Unavailable, "The server is busy")))
}

async fn read(mut body: web::Payload, most: usize) -> Result<BytesMut, Fault> {
    let read = async {
        let mut bytes = BytesMut::new();
        while let Some(piece) = body.next().await {
            let piece =
                piece.map_err(|error| Fault::field("", format!("The body cannot be read: {error}")))?;
            if bytes.len() + piece.len() > most {
                return Err(Fault::field("", format!("The body has more than {most} bytes")));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    };
    let late = |_| Fault::field("", "The body did not come in time");
    tokio::time::timeout(BODY_TIMEOUT, read).await.map_err(late)?
}

/// The request message: the body's fields, or those of the query, and on top those of the path.
fn message(
    route: &Route,
    path: Vec<(&str, String)>,
    query: &str,
    body: &[u8],
) -> Result<DynamicMessage, Fault> {
    let descriptor = route.method.input();
    let mut fields = Map::new();
    let is_empty = body.iter().all(u8::is_ascii_whitespace);
    if route.has_body && !is_empty {
        let bad = |error| Fault::field("", format!("The body is not JSON: {error}"));
        let Json::Object(map) = serde_json::from_slice(body).map_err(bad)? else {
            return Err(Fault::field("", "The body must be a JSON object"));
        };
        fields = map;
    } else if !is_empty && body != b"{}" {
        return Err(Fault::field("", "This call takes no body"));
    }
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        put(&mut fields, &descriptor, &name, &value)?;
    }
    for (name, value) in path {
        // The body may repeat it, but not say something else.
        let json_name = descriptor.get_field_by_name(name).map(|field| field.json_name().to_owned());
        for key in [Some(name.to_owned()), json_name].into_iter().flatten() {
            let is_other = |other: &Json| !other.is_null() && *other != Json::String(value.clone());
            if let Some(other) = fields.remove(&key).filter(is_other) {
                let what = format!("The body says {other}, and the path says {value:?}");
                return Err(Fault::field(name, what));
            }
        }
        fields.insert(name.to_owned(), Json::String(value));
    }
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(descriptor, Json::Object(fields), &options)
        .map_err(|error| Fault::field("", format!("The request does not fit: {error}")))
}

/// Puts a parameter of a query, as `pageSize=10` or `a.b=c`, in its place.
fn put(
    fields: &mut Map<String, Json>,
    descriptor: &MessageDescriptor,
    name: &str,
    value: &str,
) -> Result<(), Fault> {
    let unknown = || Fault::field("", format!("There is no parameter {name:?}"));
    let (first, rest) = name.split_once('.').map_or((name, None), |(first, rest)| (first, Some(rest)));
    let field = descriptor
        .get_field_by_json_name(first)
        .or_else(|| descriptor.get_field_by_name(first))
        .ok_or_else(unknown)?;
    let key = field.name().to_owned();
    if let Some(rest) = rest {
        let Kind::Message(inner) = field.kind() else { return Err(unknown()) };
        let place = fields.entry(key).or_insert_with(|| Json::Object(Map::new()));
        let Json::Object(place) = place else { return Err(unknown()) };
        return put(place, &inner, rest, value);
    }
    let json = match field.kind() {
        Kind::Bool => match value {
            "true" => Json::Bool(true),
            "false" => Json::Bool(false),
            _ => return Err(Fault::field(name, format!("{value:?} is neither true nor false"))),
        },
        _ => Json::String(value.to_owned()),
    };
    if field.is_list() {
        let list = fields.entry(key).or_insert_with(|| Json::Array(Vec::new()));
        if let Json::Array(list) = list {
            list.push(json);
        }
        return Ok(());
    }
    if fields.insert(key, json).is_some() {
        return Err(Fault::field(name, "It stands there twice"));
    }
    Ok(())
}

/// The routes by path and verb, for the description of the API.
pub(super) fn by_path() -> BTreeMap<String, Vec<&'static Route>> {
    let mut paths: BTreeMap<String, Vec<&'static Route>> = BTreeMap::new();
    for route in ROUTES.iter() {
        let mut path = String::new();
        for part in &route.parts {
            path.push('/');
            match part {
                Part::Word(word) => path.push_str(word),
                Part::Field(field) => path.push_str(&format!("{{{field}}}")),
            }
        }
        if let Some(suffix) = &route.suffix {
            path.push(':');
            path.push_str(suffix);
        }
        paths.entry(path).or_default().push(route);
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(verb: Method, path: &str) -> Option<(&'static str, Vec<(&'static str, String)>)> {
        ROUTES.iter().filter(|route| route.verb == verb).find_map(|route| {
            let fields = route.fields(path)?;
            Some((route.name.rsplit_once('/').unwrap().1, fields))
        })
    }

    #[test]
    fn paths_lead_to_calls_with_their_fields() {
        let id = |value: &str| vec![("trigger_id", value.to_owned())];
        assert_eq!(find(Method::GET, "/triggers/v1/triggers"), Some(("List", vec![])));
        assert_eq!(find(Method::GET, "/triggers/v1/triggers/a%20b"), Some(("Get", id("a b"))));
        assert_eq!(find(Method::POST, "/triggers/v2/triggers/a:pause"), Some(("Pause", id("a"))));
        assert_eq!(
            find(Method::GET, "/triggers/v1/triggers/a/operations"),
            Some(("ListOperations", id("a")))
        );
        assert_eq!(find(Method::POST, "/operations/o:cancel").unwrap().0, "Cancel");
        assert_eq!(find(Method::GET, "/operations/o:cancel").unwrap().0, "Cancel");
        assert_eq!(find(Method::GET, "/iot-devices/v1/registries:getByName").unwrap().0, "GetByName");
        for path in [
            "/triggers/v1",
            "/triggers/v1/triggers/",
            "/triggers/v1/triggers/a/b",
            "/triggers/v1/triggers/a:x",
        ] {
            assert_eq!(find(Method::GET, path), None, "{path}");
        }
    }

    #[test]
    fn no_path_and_verb_lead_to_two_calls() {
        for (path, routes) in by_path() {
            for (index, route) in routes.iter().enumerate() {
                assert!(routes[..index].iter().all(|other| other.verb != route.verb), "{path}");
            }
        }
        assert!(ROUTES.len() > 100, "{}", ROUTES.len());
    }

    #[test]
    fn a_message_is_made_of_body_query_and_path() {
        let route = |name: &str| ROUTES.iter().find(|route| route.name.ends_with(name)).unwrap();
        let list = route("triggers.v1.TriggerService/List");
        let made = message(list, vec![], "folderId=f&pageSize=7&filter=name%3D%22a%22", b"").unwrap();
        assert_eq!(
            json(&made).unwrap(),
            serde_json::json!({ "folderId": "f", "pageSize": "7", "filter": "name=\"a\"" })
        );
        let update = route("triggers.v1.TriggerService/Update");
        let body = br#"{"updateMask": "name,rule.iotMessage", "name": "n", "triggerId": "t"}"#;
        let path = vec![("trigger_id", "t".to_owned())];
        let made = message(update, path.clone(), "", body).unwrap();
        assert_eq!(json(&made).unwrap()["updateMask"], "name,rule.iotMessage");
        for (path, query, body) in [
            (path.clone(), "", &br#"{"triggerId": "u"}"#[..]),
            (path.clone(), "", b"[]"),
            (path.clone(), "", b"{"),
            (path.clone(), "", br#"{"unknown": 1}"#),
            (path.clone(), "nothing=1", b""),
            (path, "name=a&name=b", b""),
        ] {
            assert_eq!(message(update, path, query, body).unwrap_err().code, Code::InvalidArgument);
        }
    }
}
