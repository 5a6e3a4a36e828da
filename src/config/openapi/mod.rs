//! OpenAPI 3.0 documents: the WebSocket paths of a gateway, with the extensions of the model system.
//!
//! A document may say much that means nothing here, so only the keys that are known are looked at: unknown ones are
//! no faults, but inside our own extensions and the integrations.

mod integration;
mod parameters;
mod security;

use std::path::Path;

use super::fields::{Fields, Reading, Value};
use super::gateways::{check_alike, options};
use super::tree;
use crate::config::ConfigErrors;
use crate::model::gateway::GatewayPath;
use crate::model::hook::{Hooks, Integration, Parameter};
use crate::model::limits::Limits;
use crate::model::path_template::PathTemplate;
use security::Schemes;

/// Longest document, in bytes (the model system's).
pub const MAX_BYTES: usize = 3_500_000;

const CONNECT: &str = "x-yc-apigateway-websocket-connect";
const MESSAGE: &str = "x-yc-apigateway-websocket-message";
const DISCONNECT: &str = "x-yc-apigateway-websocket-disconnect";
const INTEGRATION: &str = "x-yc-apigateway-integration";
/// What the model system has no word for: the settings that `paths` of a gateway has.
const OPTIONS: &str = "x-triggercast-path";

/// Reads a document. `name` is for messages. Gives at least one path.
pub fn parse(text: &str, name: &Path) -> Result<Vec<GatewayPath>, ConfigErrors> {
    let mut reading = Reading::of(name);
    let paths = document(text, &Limits::default(), &mut reading);
    if reading.faults.is_empty() { Ok(paths) } else { Err(ConfigErrors::new(reading.faults)) }
}

/// Reads the document in a file that the configuration names; faults are about that file.
pub(super) fn file(value: &Value<'_>, limits: &Limits, reading: &mut Reading) -> Vec<GatewayPath> {
    let Some(name) = value.str(reading) else { return Vec::new() };
    let path = reading.folder.join(name);
    let text = match super::read_file(&path) {
        Ok(text) => text,
        Err(fault) => {
            value.fault(reading, format_args!("{}: {fault}", value.shown()));
            return Vec::new();
        }
    };
    let config = std::mem::replace(&mut reading.file, path);
    let paths = document(&text, limits, reading);
    reading.file = config;
    paths
}

fn document(text: &str, limits: &Limits, reading: &mut Reading) -> Vec<GatewayPath> {
    if text.len() > MAX_BYTES {
        reading.fault(
            &Default::default(),
            format_args!("{} bytes; at most {MAX_BYTES} are allowed", text.len()),
        );
        return Vec::new();
    }
    // JSON is YAML.
    let root = match tree::read(text) {
        Ok(root) => root,
        Err((place, message)) => {
            let spot = super::fields::Spot { key: String::new(), place };
            reading.fault(&spot, format_args!("it is neither YAML nor JSON: {message}"));
            return Vec::new();
        }
    };
    let faults = reading.faults.len();
    let mut fields = Value::root(&root).fields(reading);
    if let Some(version) = fields.need("openapi", reading)
        && !version.str(reading).is_none_or(|text| text == "3.0" || text.starts_with("3.0."))
    {
        let shown = version.shown();
        version.fault(reading, format_args!("{shown} is not a version of 3.0, such as \"3.0.0\""));
    }
    let schemes = Schemes::read(&mut fields, reading);
    let mut paths: Vec<(PathTemplate, GatewayPath)> = Vec::new();
    if let Some(all) = fields.need("paths", reading) {
        for (name, item) in all.entries(reading) {
            let Some(path) = path(name, &item, &schemes, limits, reading) else { continue };
            check_alike(
                &path.0,
                &item,
                paths.iter().map(|(known, path)| (known, path.path.as_str())),
                reading,
            );
            paths.push(path);
        }
        if paths.is_empty() && reading.faults.len() == faults {
            all.fault(reading, format_args!("none of the paths has {MESSAGE}, so nothing could connect"));
        }
    }
    paths.into_iter().map(|(_, path)| path).collect()
}

/// A WebSocket path; `None`: it is none, or faulty.
fn path(
    name: &str,
    item: &Value<'_>,
    schemes: &Schemes,
    limits: &Limits,
    reading: &mut Reading,
) -> Option<(PathTemplate, GatewayPath)> {
    let mut fields = item.fields(reading);
    // A hook may be there without saying anything.
    let is_there = |fields: &mut Fields<'_>, hook| fields.get_or_null(hook).is_some();
    if !is_there(&mut fields, MESSAGE) {
        for hook in [CONNECT, DISCONNECT, OPTIONS] {
            if let Some(value) = fields.get_or_null(hook) {
                value.fault(reading, format_args!("{MESSAGE} is needed beside it"));
            }
        }
        return None;
    }
    let template = match PathTemplate::parse(name) {
        Ok(template) => template,
        Err(rule) => {
            item.fault(reading, format_args!("the path {} {rule}", super::fields::quote(name)));
            return None;
        }
    };
    let mut path = GatewayPath::new(name);
    path.limits = limits.clone();
    if let Some(value) = fields.get(OPTIONS) {
        let mut fields = value.fields(reading);
        options(&mut fields, &mut path, reading);
        fields.finish(reading);
    }
    let mut known = parameters::of_path(&template);
    parameters::read(&mut fields, &mut known, reading);
    let mut required = None;
    let mut hook = |name, known: &mut Vec<Parameter>, reading: &mut Reading| {
        let operation = fields.get_or_null(name)?;
        let mut operation = operation.fields(reading);
        parameters::read(&mut operation, known, reading);
        let security = operation.get("security");
        if required.is_none() {
            required = security;
        }
        integration(operation, known, reading)
    };
    path.hooks = Hooks {
        connect: hook(CONNECT, &mut known, reading),
        message: hook(MESSAGE, &mut known, reading),
        disconnect: hook(DISCONNECT, &mut known, reading),
        parameters: known,
    };
    if let Some(authorizer) = schemes.required(required.as_ref(), reading) {
        path.authorizer = Some(authorizer);
    }
    Some((template, path))
}

/// The integration of a hook: under its own key, or in short the operation itself.
fn integration(mut operation: Fields<'_>, known: &[Parameter], reading: &mut Reading) -> Option<Integration> {
    if let Some(value) = operation.get(INTEGRATION) {
        let mut fields = value.fields(reading);
        let integration = integration::read(&mut fields, known, reading);
        fields.finish(reading);
        return integration;
    }
    if operation.has("type") {
        return integration::read(&mut operation, known, reading);
    }
    operation.missing(INTEGRATION, reading);
    None
}

#[cfg(test)]
mod tests;
