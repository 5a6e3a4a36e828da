//! Documents and what is read of them.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::model::hook::Place;

fn read(paths: &str) -> Result<Vec<GatewayPath>, String> {
    let text = format!("openapi: 3.0.0\ninfo: {{title: t, version: '1'}}\npaths:\n{paths}");
    parse(&text, Path::new("spec")).map_err(|faults| faults.to_string())
}

#[test]
fn only_paths_with_a_message_hook_are_websocket_paths() {
    let dummy = "{x-yc-apigateway-integration: {type: dummy}}";
    let paths = read(&format!(
        "  /ws/{{room}}:\n    {MESSAGE}: {dummy}\n  /plain:\n    get: {{}}\n  /b:\n    {MESSAGE}: {{type: dummy}}\n    {CONNECT}: {dummy}\n"
    ))
    .unwrap();
    let names: Vec<_> = paths.iter().map(|path| path.path.as_str()).collect();
    assert_eq!(names, ["/ws/{room}", "/b"]);
    assert!(paths[1].hooks.connect.is_some() && paths[1].hooks.disconnect.is_none());
}

#[test]
fn json_is_read_too() {
    let text = format!(r#"{{"openapi": "3.0.1", "paths": {{"/ws": {{"{MESSAGE}": {{"type": "dummy"}}}}}}}}"#);
    assert_eq!(parse(&text, Path::new("spec")).unwrap().len(), 1);
}

#[test]
fn integrations_are_read_whole() {
    let paths = read(&format!(
        "  /rooms/{{room}}:
    parameters:
      - {{name: room, in: path, required: true, schema: {{type: string}}}}
    {CONNECT}:
      operationId: come
      parameters:
        - {{name: Authorization, in: header}}
        - {{name: page, in: query, schema: {{type: integer, default: 1}}}}
      x-yc-apigateway-integration:
        type: http
        url: https://example.org/rooms/{{room}}?page={{page}}
        method: GET
        headers: {{ Authorization: '{{Authorization}}', X-Who: '{{X-Yc-Apigateway-Websocket-Connection-Id}}' }}
        query: {{ empty: '' }}
        omitEmptyHeaders: true
        omitEmptyQueryParameters: true
        timeouts: {{ connect: 0.5, read: 5 }}
    {MESSAGE}:
      x-yc-apigateway-integration:
        type: dummy
        http_code: 201
        http_headers: {{ Set-Cookie: ['a={{page}}', b=2] }}
        content: {{ application/json: '{{\"room\": \"{{room}}\"}}' }}
    {DISCONNECT}:
      x-yc-apigateway-integration: {{ type: http, url: 'http://example.org' }}
    x-triggercast-path: {{ durability: memory, limits: {{ idle: 1m }} }}
"
    ))
    .unwrap();
    let [path] = &paths[..] else { panic!("one path") };
    assert_eq!(path.limits.idle, Duration::from_secs(60));
    let places: Vec<_> =
        path.hooks.parameters.iter().map(|known| (known.name.as_str(), known.place)).collect();
    assert_eq!(places, [("room", Place::Path), ("Authorization", Place::Header), ("page", Place::Query)]);
    insta::assert_debug_snapshot!(path.hooks);
}

#[test]
fn faults_name_the_path_and_the_key() {
    let hook =
        |integration: &str| format!("  /ws: {{ {MESSAGE}: {{ {INTEGRATION}: {{ {integration} }} }} }}\n");
    let dummy = hook("type: dummy");
    let documents = [
        "  /ws: {get: {}}\n".to_owned(),
        format!("  /ws: {{ {CONNECT}: {{ type: dummy }} }}\n"),
        format!("  /ws: {{ {MESSAGE}: {{}} }}\n"),
        format!("  /ws: {{ {MESSAGE}: }}\n"),
        hook("type: cloud_functions, function_id: f"),
        hook("type: dummy, http_code: 99, contents: a"),
        hook("type: dummy, content: 5"),
        hook("type: http"),
        hook("type: http, url: 'ftp://example.org'"),
        hook("type: http, url: 'https://a:b@example.org'"),
        hook("type: http, url: 'https://{host}.example.org/'"),
        hook("type: http, url: 'https:/{X-Yc-Apigateway-Websocket-Connection-Id}/x'"),
        hook("type: http, url: 'https:///{X-Yc-Apigateway-Websocket-Connection-Id}/x'"),
        hook("type: http, url: 'https://\\{X-Yc-Apigateway-Websocket-Connection-Id}/x'"),
        hook("type: http, url: \"https://\\t/{X-Yc-Apigateway-Websocket-Connection-Id}/x\""),
        hook("type: http, url: 'https:example.org'"),
        hook("type: http, url: 'https://example.org/{who}'"),
        hook("type: http, url: 'https://example.org', method: FETCH"),
        hook("type: http, url: 'https://example.org', headers: {'a b': c, d: \"e\\nf\"}"),
        hook("type: http, url: 'https://example.org', timeouts: {read: 0, write: 1}"),
        hook("type: http, url: 'https://example.org', serviceAccountId: a"),
        hook("type: http, url: 'https://example.org', omitEmptyHeaders: 1"),
        format!("  ws: {{ {MESSAGE}: {{ type: dummy }} }}\n"),
        format!(
            "  '/{{a}}': {{ {MESSAGE}: {{ type: dummy }} }}\n  '/{{b}}': {{ {MESSAGE}: {{ type: dummy }} }}\n"
        ),
        format!(
            "  /ws: {{ parameters: [{{name: a, in: path}}, {{name: b, in: body}}], {MESSAGE}: {{ type: dummy }} }}\n"
        ),
        format!("  /ws: {{ x-triggercast-path: {{ idle: 1 }}, {MESSAGE}: {{ type: dummy }} }}\n"),
        format!("{dummy}security: [{{ nobody: [] }}]\n"),
        format!(
            "{dummy}security: [{{ a: [] }}]\ncomponents: {{ securitySchemes: {{ a: {{ type: http }} }} }}\n"
        ),
        format!(
            "{dummy}security: [{{ a: [read] }}]\ncomponents: {{ securitySchemes: {{ a: {{ x-yc-apigateway-authorizer: {{ type: http, url: 'https://e.org' }} }} }} }}\n"
        ),
    ];
    let mut shown: Vec<_> =
        documents.iter().map(|paths| format!("# {}\n{}", paths.trim(), read(paths).unwrap_err())).collect();
    for whole in ["openapi: 2.0\npaths: {}", "openapi: 3.0.1", "a: [", "5", ""] {
        let fault = parse(whole, Path::new("spec")).unwrap_err();
        shown.push(format!("# {whole}\n{fault}"));
    }
    insta::assert_snapshot!(shown.join("\n"));
    assert!(parse(&" ".repeat(MAX_BYTES + 1), Path::new("spec")).is_err());
}
