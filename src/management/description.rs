//! The REST side of the API as an OpenAPI document, made from the same messages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::http::header::ContentType;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor};
use serde_json::{Map, Value, json};

use super::rest::{self, Route};
use crate::api::{is_open, limits};

static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// `GET /openapi.json`.
pub(super) async fn get() -> HttpResponse {
    HttpResponse::Ok().insert_header(ContentType::json()).body(DOCUMENT.as_str())
}

fn document() -> Value {
    let mut used = BTreeSet::new();
    let mut paths = Map::new();
    for (path, routes) in rest::by_path() {
        let item: Map<String, Value> = routes
            .into_iter()
            .map(|route| (route.verb.as_str().to_lowercase(), operation(route, &mut used)))
            .collect();
        paths.insert(path, Value::Object(item));
    }
    let mut schemas = BTreeMap::new();
    while let Some(name) = used.iter().find(|name| !schemas.contains_key(*name)).cloned() {
        let message = crate::proto::POOL.get_message_by_name(&name);
        let schema = message.map_or(Value::Null, |message| schema(&message, &[], &mut used));
        schemas.insert(name, schema);
    }
    json!({
        "openapi": "3.0.3",
        "info": { "title": "Triggercast", "version": env!("CARGO_PKG_VERSION") },
        "security": [{ "iamToken": [] }, { "apiKey": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "iamToken": { "type": "http", "scheme": "bearer" },
                "apiKey": { "type": "apiKey", "in": "header", "name": "Authorization", "description": "Api-Key KEY" },
            },
        },
    })
}

fn operation(route: &Route, used: &mut BTreeSet<String>) -> Value {
    let input = route.method.input();
    let in_path: Vec<&str> = route.fields_of_path().collect();
    let mut parameters: Vec<Value> = in_path
        .iter()
        .filter_map(|name| input.get_field_by_name(name))
        .map(|field| json!({ "name": field.name(), "in": "path", "required": true, "schema": value(&field, used) }))
        .collect();
    let rest = || input.fields().filter(|field| !in_path.contains(&field.name()));
    let mut operation = Map::new();
    operation.insert("operationId".into(), route.name.replace('/', ".").into());
    if is_open(&route.name) == Some(true) {
        operation.insert("security".into(), json!([]));
    }
    if route.has_body {
        let body = schema(&input, &in_path, used);
        let required = body.get("required").is_some();
        let content = json!({ "application/json": { "schema": body } });
        operation.insert("requestBody".into(), json!({ "required": required, "content": content }));
    } else {
        for field in rest().filter(is_single) {
            let required = limits(&field).required;
            parameters.push(
                json!({ "name": field.json_name(), "in": "query", "required": required, "schema": value(&field, used) }),
            );
        }
    }
    operation.insert("parameters".into(), parameters.into());
    used.insert(route.method.output().full_name().to_owned());
    used.insert("google.rpc.Status".to_owned());
    let content = |name: &str| json!({ "application/json": { "schema": reference(name) } });
    let output = route.method.output();
    operation.insert(
        "responses".into(),
        json!({
            "200": { "description": "done", "content": content(output.full_name()) },
            "default": { "description": "not done", "content": content("google.rpc.Status") },
        }),
    );
    Value::Object(operation)
}

/// Whether a field can stand in a query as it is.
fn is_single(field: &FieldDescriptor) -> bool {
    match field.kind() {
        Kind::Message(message) => {
            matches!(message.full_name(), "google.protobuf.Timestamp" | "google.protobuf.Duration")
        }
        _ => !field.is_map(),
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// A message without some of its fields.
fn schema(message: &MessageDescriptor, without: &[&str], used: &mut BTreeSet<String>) -> Value {
    let fields = || message.fields().filter(|field| !without.contains(&field.name()));
    let properties: Map<String, Value> =
        fields().map(|field| (field.json_name().to_owned(), value(&field, used))).collect();
    let required: Vec<Value> = fields()
        .filter(|field| limits(field).required && field.containing_oneof().is_none())
        .map(|field| field.json_name().into())
        .collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    let choices: Vec<Value> = message.oneofs().map(|choice| at_most_one(&choice)).collect();
    if !choices.is_empty() {
        schema["allOf"] = choices.into();
    }
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

/// At most one of these fields is there.
fn at_most_one(choice: &OneofDescriptor) -> Value {
    let mut cases: Vec<Value> =
        choice.fields().map(|field| json!({ "required": [field.json_name()] })).collect();
    cases.push(json!({ "not": { "anyOf": cases.clone() } }));
    json!({ "oneOf": cases })
}

fn value(field: &FieldDescriptor, used: &mut BTreeSet<String>) -> Value {
    let limits = limits(field);
    if field.is_map() {
        return json!({ "type": "object", "additionalProperties": { "type": "string" } });
    }
    let mut single = match field.kind() {
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Timestamp" => json!({ "type": "string", "format": "date-time" }),
            "google.protobuf.Duration" => json!({ "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?s$" }),
            "google.protobuf.FieldMask" => json!({ "type": "string" }),
            "google.protobuf.Any" => json!({ "type": "object", "additionalProperties": true }),
            name => {
                used.insert(name.to_owned());
                reference(name)
            }
        },
        Kind::Enum(kind) => {
            // The value 0 is as none.
            let values = kind.values().filter(|value| !(limits.required && value.number() == 0));
            let names: Vec<String> = values.map(|value| value.name().to_owned()).collect();
            json!({ "type": "string", "enum": names })
        }
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Bytes => json!({ "type": "string", "format": "byte" }),
        Kind::Double | Kind::Float => json!({ "type": "number" }),
        Kind::Int32 => json!({ "type": "integer" }),
        // 64-bit numbers are text in the JSON of messages.
        Kind::Int64 => json!({ "type": "string", "pattern": "^-?[0-9]+$" }),
        _ => json!({ "type": "string" }),
    };
    if let (Kind::Int32, Some((least, most))) = (field.kind(), limits.value) {
        single["minimum"] = least.max(i32::MIN.into()).into();
        single["maximum"] = most.min(i32::MAX.into()).into();
    }
    if matches!(field.kind(), Kind::String) {
        if limits.required && !field.is_list() {
            single["minLength"] = 1.into();
        }
        if let Some((least, most)) = limits.length {
            if least > 0 {
                single["minLength"] = least.into();
            }
            if most < i64::MAX {
                single["maxLength"] = most.into();
            }
        }
        if let Some(pattern) = limits.pattern {
            single["pattern"] = format!("^({pattern})$").into();
        }
    }
    if !field.is_list() {
        return single;
    }
    let mut list = json!({ "type": "array", "items": single });
    if let Some((least, most)) = limits.size {
        list["minItems"] = least.max(0).into();
        if most < i64::MAX {
            list["maxItems"] = most.into();
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_every_route_and_no_loose_end() {
        let document = document();
        let text = document.to_string();
        let routes: usize =
            document["paths"].as_object().unwrap().values().map(|item| item.as_object().unwrap().len()).sum();
        assert_eq!(routes, rest::ROUTES.len());
        let schemas = document["components"]["schemas"].as_object().unwrap();
        assert!(schemas.values().all(|schema| schema["type"] == "object"), "{text}");
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
        let create = &document["paths"]["/triggers/v1/triggers"]["post"]["requestBody"];
        let schema = &create["content"]["application/json"]["schema"];
        assert_eq!(schema["required"], json!(["folderId", "rule"]));
        assert_eq!(schema["properties"]["description"]["maxLength"], 500);
        assert_eq!(document["paths"]["/endpoints"]["get"]["security"], json!([]));
        assert!(document["paths"]["/triggers/v1/triggers"]["get"].get("security").is_none());
        let list = &document["paths"]["/triggercast/v1/connections"]["get"]["parameters"];
        let format = |name: &str| {
            let parameter = list.as_array().unwrap().iter().find(|parameter| parameter["name"] == name);
            parameter.unwrap()["schema"]["format"].clone()
        };
        assert_eq!(format("connectedBefore"), "date-time");
        assert_eq!(format("gatewayId"), Value::Null);
    }
}
