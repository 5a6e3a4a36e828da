//! Changes of some fields of a resource: what an update request says, put into what there is.

use prost::{Message, Name};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, Value};
use prost_types::FieldMask;

use super::fault::Fault;
use super::json;

/// What `resource` becomes by an update. Fields are taken from the request by their names; without a mask all are
/// that both have, and what the request leaves out is reset. `fixed` are fields of the request that are no part of
/// the resource.
pub(super) fn apply<R, T>(
    request: &R,
    mask: Option<&FieldMask>,
    fixed: &[&str],
    resource: &T,
) -> Result<T, Fault>
where
    R: Message + Name,
    T: Message + Name + Default,
{
    let (request, mut changed) = (json::dynamic(request)?, json::dynamic(resource)?);
    let descriptor = request.descriptor();
    let is_fixed = |name: &str| name == "update_mask" || fixed.contains(&name);
    match mask.filter(|mask| !mask.paths.is_empty()) {
        None => {
            for field in descriptor.fields().filter(|field| !is_fixed(field.name())) {
                copy(&request, &mut changed, &[field.name()]);
            }
        }
        Some(mask) => {
            for path in &mask.paths {
                let names: Vec<&str> = path.split('.').collect();
                let is_known = names.first().is_some_and(|first| !is_fixed(first))
                    && leads_somewhere(descriptor.get_field_by_name(names[0]), &names[1..]);
                if !is_known {
                    let all = descriptor.fields().filter(|field| !is_fixed(field.name()));
                    let all = all.map(|field| field.name().to_owned()).collect::<Vec<_>>().join(", ");
                    let what = format!("{path:?} is not a field that can be changed; those are: {all}");
                    return Err(Fault::field("update_mask", what));
                }
                copy(&request, &mut changed, &names);
            }
        }
    }
    let bad = |error| Fault::field("update_mask", format!("The fields do not fit together: {error}"));
    changed.transcode_to().map_err(bad)
}

use prost_reflect::ReflectMessage;

fn leads_somewhere(field: Option<FieldDescriptor>, rest: &[&str]) -> bool {
    match (field, rest) {
        (None, _) => false,
        (Some(_), []) => true,
        (Some(field), [next, rest @ ..]) => match field.kind() {
            // Items of lists and maps have no paths.
            Kind::Message(message) if !field.is_list() && !field.is_map() => {
                leads_somewhere(message.get_field_by_name(next), rest)
            }
            _ => false,
        },
    }
}

/// Puts the field at a path of one message into another.
fn copy(from: &DynamicMessage, to: &mut DynamicMessage, path: &[&str]) {
    let Some((name, rest)) = path.split_first() else { return };
    let (Some(source), Some(target)) =
        (from.descriptor().get_field_by_name(name), to.descriptor().get_field_by_name(name))
    else {
        return;
    };
    if rest.is_empty() {
        if from.has_field(&source) {
            // The messages are of one package: fields of one name have one type.
            let _ = to.try_set_field(&target, from.get_field(&source).into_owned());
        } else {
            to.clear_field(&target);
        }
        return;
    }
    let empty = source.kind();
    let Kind::Message(inner) = empty else { return };
    let given = from.get_field(&source);
    let given = given.as_message().cloned().unwrap_or_else(|| DynamicMessage::new(inner));
    if let Value::Message(inside) = to.get_field_mut(&target) {
        copy(&given, inside, rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::types::yandex::cloud::serverless::triggers::v1::trigger::rule::Rule as Kind;
    use crate::proto::types::yandex::cloud::serverless::triggers::v1::trigger::{IoTMessage, Rule};
    use crate::proto::types::yandex::cloud::serverless::triggers::v1::{
        BatchSettings, Trigger, UpdateTriggerRequest,
    };

    fn rule(registry: &str, size: i64) -> Option<Rule> {
        let batch_settings = Some(BatchSettings { size, cutoff: None });
        let message = IoTMessage { registry_id: registry.into(), batch_settings, ..IoTMessage::default() };
        Some(Rule { rule: Some(Kind::IotMessage(message)) })
    }

    fn update(paths: Option<&[&str]>) -> Result<Trigger, Fault> {
        let mask =
            paths.map(|paths| FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() });
        let request = UpdateTriggerRequest {
            trigger_id: "other".into(),
            name: "new".into(),
            rule: rule("r2", 7),
            ..UpdateTriggerRequest::default()
        };
        let old = Trigger {
            id: "t".into(),
            name: "old".into(),
            description: "words".into(),
            rule: rule("r1", 1),
            ..Trigger::default()
        };
        apply(&request, mask.as_ref(), &["trigger_id"], &old)
    }

    #[test]
    fn with_a_mask_only_its_fields_change() {
        let name = update(Some(&["name"])).unwrap();
        assert_eq!((&*name.id, &*name.name, &*name.description), ("t", "new", "words"));
        assert_eq!(name.rule, rule("r1", 1));
        let size = update(Some(&["rule.iot_message.batch_settings.size"])).unwrap();
        assert_eq!((&*size.name, size.rule), ("old", rule("r1", 7)));
        assert_eq!(update(Some(&["description"])).unwrap().description, "");
    }

    #[test]
    fn without_a_mask_every_field_takes_what_the_request_says() {
        let all = update(None).unwrap();
        assert_eq!((&*all.id, &*all.name, &*all.description, all.rule), ("t", "new", "", rule("r2", 7)));
    }

    #[test]
    fn unknown_paths_are_refused() {
        for path in ["nothing", "trigger_id", "id", "name.x", "rule.iot_message.nothing", "labels.a", ""] {
            let fault = update(Some(&[path])).unwrap_err();
            assert_eq!(fault.fields[0].0, "update_mask", "{path}");
        }
    }
}
