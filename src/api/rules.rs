//! Holds messages against the rules that `proto/` gives for their fields.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::LazyLock;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};
use regex::Regex;

use crate::model::duration;
use crate::proto::POOL;

/// The rules of one field, read once.
#[derive(Debug, Default)]
struct Rules {
    required: bool,
    length: Option<Range>,
    pattern: Option<Pattern>,
    value: Option<Range>,
    size: Option<Range>,
    key_length: Option<Range>,
    key_pattern: Option<Pattern>,
}

/// A regular expression for a whole text.
#[derive(Debug)]
struct Pattern {
    written: String,
    regex: Regex,
}

/// From `least` to `most`, both within; durations in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    written: String,
    least: i64,
    most: i64,
}

/// Field names of extension and its options.
static RULES: LazyLock<HashMap<String, Rules>> = LazyLock::new(|| {
    let Some(extension) = POOL.get_extension_by_name("triggercast.rules") else { return HashMap::new() };
    let mut rules = HashMap::new();
    for message in POOL.all_messages() {
        for field in message.fields() {
            let options = field.options();
            if !options.has_extension(&extension) {
                continue;
            }
            if let Value::Message(given) = &*options.get_extension(&extension) {
                rules.insert(field.full_name().to_owned(), Rules::read(given));
            }
        }
    }
    rules
});

impl Rules {
    fn read(given: &DynamicMessage) -> Self {
        let text = |name: &str| {
            let value = given.get_field_by_name(name)?;
            value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let range = |name: &str| text(name).and_then(|text| Range::parse(&text));
        let pattern = |name: &str| text(name).and_then(|text| Pattern::new(&text));
        Self {
            required: given.get_field_by_name("required").is_some_and(|value| value.as_bool() == Some(true)),
            length: range("length"),
            pattern: pattern("pattern"),
            value: range("value"),
            size: range("size"),
            key_length: range("map_key_length"),
            key_pattern: pattern("map_key_pattern"),
        }
    }
}

impl Pattern {
    fn new(written: &str) -> Option<Self> {
        let regex = Regex::new(&format!("^(?:{written})$")).ok()?;
        Some(Self { written: written.to_owned(), regex })
    }
}

impl Range {
    fn parse(written: &str) -> Option<Self> {
        let number = |text: &str| match text.parse() {
            Ok(number) => Some(number),
            Err(_) => duration::parse(text).and_then(|time| i64::try_from(time.as_millis()).ok()),
        };
        let (least, most) = if let Some(most) = written.strip_prefix("<=") {
            (i64::MIN, number(most)?)
        } else if let Some(least) = written.strip_prefix(">=") {
            (number(least)?, i64::MAX)
        } else if let Some(least) = written.strip_prefix('>') {
            (number(least)? + 1, i64::MAX)
        } else {
            let (least, most) = written.split_once('-')?;
            (number(least)?, number(most)?)
        };
        Some(Self { written: written.to_owned(), least, most })
    }

    fn holds(&self, number: i64) -> bool {
        (self.least..=self.most).contains(&number)
    }
}

/// What is wrong with the fields of a message, and of those in it. `at` leads to the message, as `rule`; empty for the
/// request itself. Without `required` fields may be missing, as in a change of some fields.
pub(super) fn faults(message: &DynamicMessage, at: &str, required: bool) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    check(message, at, required, &mut faults);
    faults
}

/// What a field may hold, for descriptions of the API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Whether it must not be empty.
    pub required: bool,
    /// Characters of a text, from and to.
    pub length: Option<(i64, i64)>,
    /// A regular expression for the whole text.
    pub pattern: Option<String>,
    /// A number, from and to.
    pub value: Option<(i64, i64)>,
    /// Items of a list, from and to.
    pub size: Option<(i64, i64)>,
}

/// What a field may hold.
pub fn limits(field: &FieldDescriptor) -> Limits {
    let Some(rules) = RULES.get(field.full_name()) else { return Limits::default() };
    let range = |range: &Option<Range>| range.as_ref().map(|range| (range.least, range.most));
    Limits {
        required: rules.required,
        length: range(&rules.length),
        pattern: rules.pattern.as_ref().map(|pattern| pattern.written.clone()),
        value: range(&rules.value),
        size: range(&rules.size),
    }
}

/// Whether a field must not be empty.
pub(super) fn is_required(field: &FieldDescriptor) -> bool {
    RULES.get(field.full_name()).is_some_and(|rules| rules.required)
}

fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

fn check(message: &DynamicMessage, at: &str, required: bool, faults: &mut Vec<(String, String)>) {
    // Times and the like have no rules, and are whole values.
    if message.descriptor().package_name() == "google.protobuf" {
        return;
    }
    for field in message.descriptor().fields() {
        let place = join(at, field.name());
        let value = message.get_field(&field);
        let rules = RULES.get(field.full_name());
        if !message.has_field(&field) {
            let is_missing = rules.is_some_and(|rules| rules.required) && field.containing_oneof().is_none();
            if required && is_missing {
                faults.push((place, "Field is required".to_owned()));
            } else if required
                && let Some(size) = rules.and_then(|rules| rules.size.as_ref())
                && !size.holds(0)
            {
                faults.push((place, format!("Number of elements must be {}", words(size))));
            }
            continue;
        }
        check_enum(&field, &value, &place, faults);
        if let Some(rules) = rules {
            check_field(&field, &value, rules, &place, faults);
        }
        match &*value {
            Value::Message(inner) => check(inner, &place, required, faults),
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let Value::Message(inner) = item {
                        check(inner, &format!("{place}[{index}]"), required, faults);
                    }
                }
            }
            _ => {}
        }
    }
}

/// A number that no value of an enumeration has.
fn check_enum(field: &FieldDescriptor, value: &Value, place: &str, faults: &mut Vec<(String, String)>) {
    let Kind::Enum(kind) = field.kind() else { return };
    let numbers = match value {
        Value::List(items) => items.iter().filter_map(Value::as_enum_number).collect(),
        single => single.as_enum_number().into_iter().collect::<Vec<_>>(),
    };
    if let Some(number) = numbers.into_iter().find(|number| kind.get_value(*number).is_none()) {
        faults.push((place.to_owned(), format!("{number} is not a value of {}", kind.name())));
    }
}

fn check_field(
    field: &FieldDescriptor,
    value: &Value,
    rules: &Rules,
    place: &str,
    faults: &mut Vec<(String, String)>,
) {
    match value {
        Value::List(items) => {
            check_size(items.len(), rules, place, faults);
            for (index, item) in items.iter().enumerate() {
                check_scalar(item, rules, &format!("{place}[{index}]"), faults);
            }
        }
        Value::Map(entries) => {
            check_size(entries.len(), rules, place, faults);
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by(|a, b| a.0.partial_cmp(b.0).unwrap_or(Ordering::Equal));
            for (key, item) in entries {
                let MapKey::String(key) = key else { continue };
                let place = format!("{place}[{key:?}]");
                check_text(key, rules.key_length.as_ref(), rules.key_pattern.as_ref(), &place, faults);
                check_scalar(item, rules, &place, faults);
            }
        }
        single => {
            debug_assert!(!field.is_list(), "{place}");
            check_scalar(single, rules, place, faults);
        }
    }
}

fn check_size(size: usize, rules: &Rules, place: &str, faults: &mut Vec<(String, String)>) {
    if let Some(range) = rules.size.as_ref().filter(|range| !range.holds(size as i64)) {
        faults.push((place.to_owned(), format!("Number of elements must be {}, not {size}", words(range))));
    }
}

fn check_scalar(value: &Value, rules: &Rules, place: &str, faults: &mut Vec<(String, String)>) {
    let number = match value {
        Value::String(text) => {
            check_text(text, rules.length.as_ref(), rules.pattern.as_ref(), place, faults);
            None
        }
        Value::Bytes(bytes) => {
            if let Some(range) = rules.length.as_ref().filter(|range| !range.holds(bytes.len() as i64)) {
                let shown = words(range);
                faults.push((place.to_owned(), format!("Length must be {shown} bytes, not {}", bytes.len())));
            }
            None
        }
        Value::I64(number) => Some((*number, number.to_string())),
        Value::Message(message) if message.descriptor().full_name() == "google.protobuf.Duration" => {
            let time: prost_types::Duration = message.transcode_to().unwrap_or_default();
            let millis = time.seconds.saturating_mul(1000).saturating_add(i64::from(time.nanos / 1_000_000));
            Some((millis, time.to_string()))
        }
        _ => None,
    };
    if let (Some((number, shown)), Some(range)) = (number, &rules.value)
        && !range.holds(number)
    {
        faults.push((place.to_owned(), format!("Value must be {}, not {shown}", words(range))));
    }
}

fn check_text(
    text: &str,
    length: Option<&Range>,
    pattern: Option<&Pattern>,
    place: &str,
    faults: &mut Vec<(String, String)>,
) {
    let characters = text.chars().count();
    if let Some(range) = length.filter(|range| !range.holds(characters as i64)) {
        let shown = words(range);
        faults.push((place.to_owned(), format!("Length must be {shown} characters, not {characters}")));
    } else if let Some(pattern) = pattern.filter(|pattern| !pattern.regex.is_match(text)) {
        // A long text is not repeated to who has sent it.
        let shown: String = text.chars().take(80).collect();
        faults.push((
            place.to_owned(),
            format!("Value {shown:?} must match the pattern {:?}", pattern.written),
        ));
    }
}

fn words(range: &Range) -> String {
    let written = &range.written;
    if let Some(most) = written.strip_prefix("<=") {
        return format!("at most {most}");
    }
    if let Some(least) = written.strip_prefix(">=") {
        return format!("at least {least}");
    }
    if let Some(least) = written.strip_prefix('>') {
        return format!("more than {least}");
    }
    written.replacen('-', " to ", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(name: &str, json: &str, required: bool) -> Vec<String> {
        let descriptor = POOL.get_message_by_name(name).unwrap();
        let mut json = serde_json::Deserializer::from_str(json);
        let message = DynamicMessage::deserialize(descriptor, &mut json).unwrap();
        faults(&message, "", required).into_iter().map(|(field, what)| format!("{field}: {what}")).collect()
    }

    const CREATE: &str = "yandex.cloud.serverless.triggers.v1.CreateTriggerRequest";

    #[test]
    fn every_rule_of_the_files_is_understood() {
        let extension = POOL.get_extension_by_name("triggercast.rules").unwrap();
        let mut seen = 0;
        for field in POOL.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>()) {
            let options = field.options();
            let Value::Message(given) = &*options.get_extension(&extension) else { panic!() };
            for (name, value) in given.fields() {
                let Some(text) = value.as_str() else { continue };
                seen += 1;
                let is_read = match name.name() {
                    "pattern" | "map_key_pattern" => Pattern::new(text).is_some(),
                    _ => Range::parse(text).is_some(),
                };
                assert!(is_read, "{} {}: {text}", field.full_name(), name.name());
            }
        }
        assert!(seen > 200, "{seen}");
    }

    #[test]
    fn faults_name_the_field_the_value_and_what_is_allowed() {
        let json = r#"{"folderId": "f", "name": "Bad", "labels": {"Key": "ok", "k": "BAD"}, "rule": {"iotMessage":
            {"batchSettings": {"size": "1001"}, "gatewayWebsocketBroadcast": {"gatewayId": "g", "serviceAccountId": "s"}}}}"#;
        assert_eq!(
            faults_of(CREATE, json, true),
            [
                r#"name: Value "Bad" must match the pattern "|[a-z][-a-z0-9]{1,61}[a-z0-9]""#,
                r#"labels["Key"]: Value "Key" must match the pattern "[a-z][-_./\\@0-9a-z]*""#,
                r#"labels["k"]: Value "BAD" must match the pattern "[-_./\\@0-9a-z]*""#,
                "rule.iot_message.registry_id: Field is required",
                "rule.iot_message.batch_settings.size: Value must be 0 to 1000, not 1001",
                "rule.iot_message.batch_settings.cutoff: Field is required",
                "rule.iot_message.gateway_websocket_broadcast.path: Field is required",
            ]
        );
        assert_eq!(
            faults_of(CREATE, "{}", true),
            ["folder_id: Field is required", "rule: Field is required"]
        );
        assert_eq!(faults_of(CREATE, "{}", false), Vec::<String>::new());
    }

    #[test]
    fn lists_and_durations_have_bounds() {
        let of = "yandex.cloud.serverless.triggers.v2.CreateTriggerRequest";
        let json = r#"{"folderId": "f", "source": {"containerRegistry": {"registryId": "r"}}, "action": [{"retryPolicy": {"interval": "5s"}}]}"#;
        assert_eq!(
            faults_of(of, json, true),
            [
                "source.container_registry.event_type: Number of elements must be more than 0",
                "action[0].retry_policy.interval: Value must be 10s to 1m, not 5s",
            ]
        );
    }

    proptest::proptest! {
        #![proptest_config(crate::fuzzing::cases(2000))]

        /// Any bytes as any request: they are no message, or one whose faults can be told, and that can be shown.
        #[test]
        fn fuzz_requests(
            bytes in crate::fuzzing::mutated(vec![
                b"\x0a\x01f\x12\x01n\x1a\x01d\x22\x06\x0a\x01k\x12\x01v\x2a\x0c\x1a\x0a\x0a\x01r\x12\x01d\x1a\x02ev".to_vec(),
                b"\x08\x01\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x1d\0\0\x80\x3f\x21\0\0\0\0\0\0\xf0\x3f\x2b\x08\x01\x2c".to_vec(),
                [0x0b; 40].to_vec(),
                (0..60).flat_map(|depth| [0x0a, 118 - 2 * depth]).collect(),
            ]),
            method: proptest::sample::Index,
        ) {
            let methods: Vec<_> = POOL.services().flat_map(|s| s.methods().collect::<Vec<_>>()).collect();
            let input = methods[method.index(methods.len())].input();
            if let Ok(request) = super::super::json::decode(input, &bytes) {
                faults(&request, "", true);
                let _ = super::super::json::json(&request);
            }
        }
    }
}
