//! OpenAPI documents of gateways: which of their paths are WebSocket paths.

use serde_json::Value;

use super::fault::{Code, Fault};
use crate::config::rules;
use crate::store::{Kind, State};

/// Longest document, in bytes, as in the model system.
const MAX_SPEC: usize = 3_500_000;
/// What makes a path a WebSocket path.
const MESSAGE: &str = "x-yc-apigateway-websocket-message";
/// Who answers an operation.
const INTEGRATION: &str = "x-yc-apigateway-integration";
/// What may stand beside it.
const HOOKS: [&str; 3] =
    ["x-yc-apigateway-websocket-connect", MESSAGE, "x-yc-apigateway-websocket-disconnect"];

fn wrong(what: impl std::fmt::Display) -> Fault {
    Fault::field("openapi_spec", what.to_string())
}

fn read(spec: &str) -> Result<Value, Fault> {
    if spec.len() > MAX_SPEC {
        return Err(wrong(format_args!("{} bytes; at most {MAX_SPEC} are allowed", spec.len())));
    }
    // JSON is YAML.
    serde_saphyr::from_str(spec).map_err(|error| wrong(format_args!("It is neither YAML nor JSON: {error}")))
}

/// The WebSocket paths of a document; at least one. Faults name the path and the key.
pub(super) fn paths(spec: &str) -> Result<Vec<String>, Fault> {
    let document = read(spec)?;
    let version = document.get("openapi").and_then(Value::as_str).unwrap_or_default();
    if !version.starts_with("3.0") {
        return Err(wrong(format_args!("openapi: {version:?} is not a version of 3.0, such as \"3.0.0\"")));
    }
    let Some(all) = document.get("paths").and_then(Value::as_object) else {
        return Err(wrong("paths: a map of paths is expected"));
    };
    let mut found = Vec::new();
    for (path, item) in all {
        if item.get(MESSAGE).is_none() {
            if let Some(hook) = HOOKS.iter().find(|hook| item.get(**hook).is_some()) {
                return Err(wrong(format_args!("paths[{path:?}].{hook}: {MESSAGE} is needed beside it")));
            }
            continue;
        }
        for hook in HOOKS {
            let Some(operation) = item.get(hook) else { continue };
            // An operation holds its integration, or in short is it.
            let integration = operation.get(INTEGRATION).unwrap_or(operation);
            let kind = integration.get("type").and_then(Value::as_str).unwrap_or_default();
            if kind != "dummy" {
                let what = format!(
                    "openapi_spec: paths[{path:?}].{hook}.type: {kind:?} is not built into this server; it has \
                     \"dummy\", which takes messages of clients and does nothing with them"
                );
                return Err(Fault::new(Code::Unimplemented, what));
            }
        }
        if path.contains('{') {
            let what = format!("openapi_spec: paths[{path:?}]: templates are not built into this server");
            return Err(Fault::new(Code::Unimplemented, what));
        }
        rules::check_path(path).map_err(|fault| wrong(format_args!("paths[{path:?}]: the path {fault}")))?;
        found.push(path.clone());
    }
    if found.is_empty() {
        return Err(wrong(format_args!("paths: none has {MESSAGE}, so nothing could connect")));
    }
    Ok(found)
}

/// Paths as the name of the record with their document, so that nobody has to read that again.
pub(super) fn join(paths: &[String]) -> String {
    paths.join("\n")
}

/// The paths of the document that is kept for a gateway.
pub(super) fn kept<'a>(state: &'a State, gateway: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    state.get(Kind::Specification, gateway).into_iter().flat_map(|record| record.name.lines())
}

/// The document as JSON.
pub(super) fn as_json(spec: &str) -> Result<String, Fault> {
    Ok(read(spec)?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(paths: &str) -> String {
        format!("openapi: 3.0.0\ninfo: {{title: t, version: '1'}}\npaths:\n{paths}")
    }

    #[test]
    fn only_paths_with_a_message_hook_are_websocket_paths() {
        let dummy = "{type: dummy}";
        let document = spec(&format!(
            "  /ws:\n    {MESSAGE}: {dummy}\n  /plain:\n    get: {{}}\n  /b:\n    {MESSAGE}: {dummy}\n    x-yc-apigateway-websocket-connect: {dummy}\n"
        ));
        let mut found = paths(&document).unwrap();
        found.sort();
        assert_eq!(found, ["/b", "/ws"]);
        let nested =
            format!("  /n:\n    {MESSAGE}:\n      operationId: hear\n      {INTEGRATION}: {dummy}\n");
        assert_eq!(paths(&spec(&nested)).unwrap(), ["/n"]);
        assert_eq!(paths(&as_json(&document).unwrap()).unwrap().len(), 2);
    }

    #[test]
    fn faults_name_the_path_and_the_key() {
        let message = |type_: &str| format!("{MESSAGE}: {{type: {type_}}}");
        for (document, words) in [
            (spec("  /ws: {get: {}}\n"), "none has"),
            (spec("  /ws: {x-yc-apigateway-websocket-connect: {type: dummy}}\n"), "\"/ws\""),
            (spec(&format!("  /ws: {{{}}}\n", message("http"))), "\"http\""),
            (spec(&format!("  '/ws/{{room}}': {{{}}}\n", message("dummy"))), "templates"),
            (spec(&format!("  ws: {{{}}}\n", message("dummy"))), "must begin with '/'"),
            ("openapi: 2.0\npaths: {}".into(), "3.0"),
            ("openapi: 3.0.1".into(), "paths"),
            ("a: [".into(), "neither YAML nor JSON"),
        ] {
            let fault = paths(&document).unwrap_err();
            assert!(fault.message.contains(words), "{document}: {}", fault.message);
        }
    }
}
