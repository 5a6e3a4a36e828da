//! `triggers`, in the v2 form (`source`, `action`) and the v1 form (`rule`), as the model system's CLI prints them.

use std::sync::Arc;

use super::accounts::items;
use super::actions;
use super::batch;
use super::fields::{Fields, Reading, Value};
use super::sources;
use super::unique::Unique;
use super::{Known, scalar};
use crate::model::id::Id;
use crate::model::trigger::{Action, BatchSettings, Steps, Trigger, TriggerSource};

const MAX_DESCRIPTION: usize = 500;
const MAX_LABELS: usize = 64;

/// Reads `triggers`.
pub(super) fn read(root: &mut Fields<'_>, known: &Known<'_>, reading: &mut Reading) -> Vec<Trigger> {
    let mut names = Unique::default();
    let mut triggers = Vec::new();
    for item in items(root, "triggers", reading) {
        let mut fields = item.fields(reading);
        let name = name(&mut fields, &mut names, reading);
        printed_keys(&mut fields, reading);
        let found = match fields.one_of(&["source", "rule"], reading) {
            Some(("rule", rule)) => v1(&rule, known, reading),
            Some((_, source)) => v2(&source, &mut fields, known, reading),
            None => {
                fields.ignore("action");
                None
            }
        };
        fields.finish(reading);
        let Some((source, batch, actions)) = found else { continue };
        triggers.push(Trigger { id: name.clone(), name, pause: None, source, batch, actions });
    }
    triggers
}

type Parts = (TriggerSource, BatchSettings, Vec<Action>);

/// `source: {kind: {…, batch_settings}}` beside `action: [{kind: {…}}, …]`.
fn v2(
    source: &Value<'_>,
    trigger: &mut Fields<'_>,
    known: &Known<'_>,
    reading: &mut Reading,
) -> Option<Parts> {
    let actions = trigger.need("action", reading).map(|value| actions::list(&value, known, reading));
    let mut outer = source.fields(reading);
    let kind = sources::kind(&mut outer, reading);
    outer.finish(reading);
    let (kind, value) = kind?;
    let mut fields = value.fields(reading);
    let batch = fields.get("batch_settings").map(|value| batch::v2(&value, reading)).unwrap_or_default();
    let source = sources::read(kind, &mut fields, known, reading);
    fields.finish(reading);
    Some((source?, batch, actions?))
}

/// `rule: {kind: {…, batch_settings, gateway_websocket_broadcast: {…}}}`.
fn v1(rule: &Value<'_>, known: &Known<'_>, reading: &mut Reading) -> Option<Parts> {
    let mut outer = rule.fields(reading);
    let kind = sources::kind(&mut outer, reading);
    outer.finish(reading);
    let (kind, value) = kind?;
    let mut fields = value.fields(reading);
    let batch = fields.get("batch_settings").map(|value| batch::v1(&value, reading)).unwrap_or_default();
    let action = actions::one(&mut fields, Steps::default(), known, reading);
    let source = sources::read(kind, &mut fields, known, reading);
    fields.finish(reading);
    Some((source?, batch, vec![action?]))
}

/// 3 to 63 characters, `[a-z][-a-z0-9]{1,61}[a-z0-9]`.
fn name(fields: &mut Fields<'_>, names: &mut Unique, reading: &mut Reading) -> Id {
    let Some(value) = fields.need("name", reading) else { return Arc::from("") };
    let Some(text) = value.str(reading) else { return Arc::from("") };
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good = (3..=63).contains(&text.len())
        && text.bytes().all(allowed)
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-');
    if !good {
        let shown = value.shown();
        value.fault(
            reading,
            format_args!(
                "{shown} is not a trigger name (3 to 63 characters: a lower-case letter, then lower-case letters, \
                 digits or '-', no '-' at the end)"
            ),
        );
    }
    names.declare(text, "names of triggers must differ", &value.spot, reading);
    Arc::from(text)
}

/// What the model system's CLI prints besides: a printed trigger can be pasted as it is.
fn printed_keys(fields: &mut Fields<'_>, reading: &mut Reading) {
    for name in ["id", "folder_id", "created_at"] {
        fields.ignore(name);
    }
    if let Some(value) = fields.get("status")
        && let Some(text) = value.str(reading)
        && text != "ACTIVE"
    {
        let shown = value.shown();
        value.fault(reading, format_args!("{shown}: a trigger of this file is always \"ACTIVE\""));
    }
    if let Some(value) = fields.get("description")
        && let Some(text) = value.str(reading)
        && text.chars().count() > MAX_DESCRIPTION
    {
        value.fault(reading, format_args!("longer than {MAX_DESCRIPTION} characters"));
    }
    if let Some(value) = fields.get("labels") {
        let labels = value.entries(reading);
        if labels.len() > MAX_LABELS {
            value.fault(reading, format_args!("{} labels; at most {MAX_LABELS} are allowed", labels.len()));
        }
        for (key, label) in labels {
            scalar::label(key, &label, reading);
        }
    }
}
