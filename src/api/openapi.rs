//! OpenAPI documents of gateways: read by the rules of the configuration, and known by what they say.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use prost::Message;
use serde_json::Value;

use super::fault::Fault;
use crate::config::{ConfigError, openapi};
use crate::model::gateway::GatewayPath;
use crate::proto::types::yandex::cloud::serverless::apigateway::v1::GetOpenapiSpecResponse;
use crate::store::{Kind, State};

/// The WebSocket paths of a document; at least one. Faults name the path and the key.
pub(super) fn paths(spec: &str) -> Result<Vec<GatewayPath>, Fault> {
    let fault = |fault: &ConfigError| ("openapi_spec".to_owned(), fault.to_string());
    openapi::parse(spec, Path::new("openapi_spec"))
        .map_err(|faults| Fault::fields(faults.iter().map(fault).collect()))
}

/// What is known of a document that is kept: its record's body, and what it says.
type Known = (Arc<[u8]>, Arc<[GatewayPath]>);

/// The paths of the document that is kept for a gateway. It was checked when it came; a document of an older version
/// that has become faulty has none.
pub(super) fn kept(state: &State, gateway: &str) -> Arc<[GatewayPath]> {
    static KNOWN: LazyLock<Mutex<HashMap<Box<str>, Known>>> = LazyLock::new(Mutex::default);
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(record) = state.get(Kind::Specification, gateway) else { return Arc::default() };
    // A body that is known is kept, so that no other stands where it does.
    if let Some((body, paths)) = known().get(gateway)
        && Arc::ptr_eq(body, &record.body)
    {
        return Arc::clone(paths);
    }
    let read = || paths(&GetOpenapiSpecResponse::decode(&*record.body).ok()?.openapi_spec).ok();
    let paths: Arc<[GatewayPath]> = read().unwrap_or_default().into();
    let mut known = known();
    // No more of them than there are documents.
    known.retain(|gateway, _| state.get(Kind::Specification, gateway).is_some());
    known.insert(gateway.into(), (Arc::clone(&record.body), Arc::clone(&paths)));
    paths
}

/// The document as JSON.
pub(super) fn as_json(spec: &str) -> Result<String, Fault> {
    let document: Value = serde_saphyr::from_str(spec)
        .map_err(|error| Fault::field("openapi_spec", format!("It is neither YAML nor JSON: {error}")))?;
    Ok(document.to_string())
}
