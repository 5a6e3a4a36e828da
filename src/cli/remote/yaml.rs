//! YAML as the model system's command line prints it: the order of the fields, and quotes only where they are needed.

use std::fmt;
use std::fmt::Write;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

const INDENT: usize = 2;
/// Words that older readers of YAML take for something else than text.
const WORDS: [&str; 15] = [
    "null", "~", "true", "false", "yes", "no", "on", "off", "y", "n", ".nan", ".inf", "-.inf", "+.inf", "<<",
];

/// JSON in its own order.
#[derive(Debug, PartialEq)]
pub(super) enum Tree {
    /// A number, true, false or null, as it is written.
    Plain(String),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

impl Tree {
    /// What lies deeper, by names with dots between them.
    pub(super) fn get(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, |at, name| match at {
            Self::Map(fields) => fields.iter().find(|(known, _)| known == name).map(|(_, value)| value),
            _ => None,
        })
    }

    /// In one line, for people.
    pub(super) fn in_line(&self) -> String {
        match self {
            Self::Plain(text) | Self::Text(text) => text.clone(),
            Self::List(items) => items.iter().map(Self::in_line).collect::<Vec<_>>().join(", "),
            Self::Map(fields) => {
                let pairs = fields.iter().map(|(key, value)| format!("{key}={}", value.in_line()));
                pairs.collect::<Vec<_>>().join(",")
            }
        }
    }

    /// As a document, with a line break at its end.
    pub(super) fn to_yaml(&self) -> String {
        let mut text = String::new();
        match self {
            Self::Map(fields) if !fields.is_empty() => map(fields, 0, &mut text),
            Self::List(items) if !items.is_empty() => list(items, 0, &mut text),
            other => {
                value(other, 0, &mut text);
                text.drain(..1);
            }
        }
        text
    }
}

fn map(fields: &[(String, Tree)], indent: usize, text: &mut String) {
    for (place, (key, inner)) in fields.iter().enumerate() {
        // The first field of an item stands behind its dash.
        if place > 0 || text.is_empty() || text.ends_with('\n') {
            let _ = write!(text, "{:indent$}", "");
        }
        let _ = write!(text, "{}:", scalar(key));
        value(inner, indent, text);
    }
}

fn list(items: &[Tree], indent: usize, text: &mut String) {
    for item in items {
        let _ = write!(text, "{:indent$}-", "");
        match item {
            Tree::Map(fields) if !fields.is_empty() => {
                text.push(' ');
                map(fields, indent + INDENT, text);
            }
            other => value(other, indent, text),
        }
    }
}

/// What stands behind a key or a dash, with the line break at its end.
fn value(tree: &Tree, indent: usize, text: &mut String) {
    let inner = indent + INDENT;
    match tree {
        Tree::Map(fields) if !fields.is_empty() => {
            text.push('\n');
            map(fields, inner, text);
        }
        Tree::List(items) if !items.is_empty() => {
            text.push('\n');
            list(items, inner, text);
        }
        Tree::Map(_) => text.push_str(" {}\n"),
        Tree::List(_) => text.push_str(" []\n"),
        Tree::Plain(plain) => {
            let _ = writeln!(text, " {plain}");
        }
        Tree::Text(lines) if is_block(lines) => block(lines, inner, text),
        Tree::Text(words) => {
            let _ = writeln!(text, " {}", scalar(words));
        }
    }
}

/// Whether a text is shown as lines.
fn is_block(text: &str) -> bool {
    let odd = |c: char| c != '\n' && (c.is_control() || c == '\u{feff}');
    text.contains('\n')
        && !text.contains(odd)
        && !text.starts_with([' ', '\n'])
        && !text.lines().any(|line| line.ends_with(' '))
}

fn block(lines: &str, indent: usize, text: &mut String) {
    let end = match lines {
        lines if lines.ends_with("\n\n") => "+",
        lines if lines.ends_with('\n') => "",
        _ => "-",
    };
    let _ = writeln!(text, " |{end}");
    for line in lines.split_terminator('\n') {
        match line {
            "" => text.push('\n'),
            line => {
                let _ = writeln!(text, "{:indent$}{line}", "");
            }
        }
    }
}

/// A text in one line: plain if a reader takes it for the same text, else in quotes.
fn scalar(text: &str) -> String {
    if text.chars().any(|c| c.is_control() || c == '\u{feff}') || is_other(text) {
        // JSON's strings are YAML's too.
        return serde_json::Value::from(text).to_string();
    }
    if is_plain(text) { text.to_owned() } else { format!("'{}'", text.replace('\'', "''")) }
}

/// Whether a text without quotes would be a number, a time or the like.
fn is_other(text: &str) -> bool {
    let lower = text.to_lowercase();
    text.is_empty() || WORDS.contains(&&*lower) || is_number(&lower) || is_time(text)
}

fn is_number(text: &str) -> bool {
    let text = text.trim_start_matches(['-', '+']).replace('_', "");
    let of = |prefix: &str, radix| {
        text.strip_prefix(prefix).is_some_and(|digits| u128::from_str_radix(digits, radix).is_ok())
    };
    let starts = text.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    // 12:30:45 was once a number too.
    let is_base_60 = text.contains(':')
        && text
            .split(':')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
    starts && (text.parse::<f64>().is_ok() || of("0x", 16) || of("0o", 8) || of("0b", 2) || is_base_60)
}

/// 2026-01-31, and what may follow.
fn is_time(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let digits = |part: Option<&str>, least: usize, most: usize| {
        part.is_some_and(|part| {
            (least..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    digits(parts.next(), 4, 4)
        && digits(parts.next(), 1, 2)
        && parts.next().is_some_and(|rest| {
            let day = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            (1..=2).contains(&day) && rest[day..].chars().all(|c| "0123456789Tt:.+-Zz ".contains(c))
        })
}

fn is_plain(text: &str) -> bool {
    let blank_or_end = |rest: &str| rest.is_empty() || rest.starts_with([' ', '\t']);
    let bad_start = text.starts_with(|c: char| "#,[]{}&*!|>'\"%@`".contains(c))
        || text.starts_with("---")
        || text.starts_with("...")
        || (text.starts_with(['?', '-', ':']) && blank_or_end(&text[1..]));
    let bad_inside = text.match_indices(':').any(|(at, _)| blank_or_end(&text[at + 1..]))
        || text.contains(" #")
        || text.starts_with(' ')
        || text.ends_with(' ');
    !bad_start && !bad_inside
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Tree;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Plain("null".to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Plain(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Plain(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Plain(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Plain(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some(field) = fields.next_entry()? {
            map.push(field);
        }
        Ok(Tree::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_stand_where_they_are_needed() {
        for (text, shown) in [
            ("$devices/d/events", "$devices/d/events"),
            ("/", "/"),
            ("20s", "20s"),
            ("a b", "a b"),
            ("a:b", "a:b"),
            ("a#b", "a#b"),
            ("-a", "-a"),
            ("ж", "ж"),
            ("1.2.3", "1.2.3"),
            ("a, b", "a, b"),
            ("1", "\"1\""),
            ("1_000", "\"1_000\""),
            ("-1.5e3", "\"-1.5e3\""),
            ("0x1F", "\"0x1F\""),
            ("12:30", "\"12:30\""),
            ("", "\"\""),
            ("Yes", "\"Yes\""),
            ("null", "\"null\""),
            ("2022-10-24T15:19:15.353909857Z", "\"2022-10-24T15:19:15.353909857Z\""),
            ("2022-10-24", "\"2022-10-24\""),
            ("a\tb", "\"a\\tb\""),
            ("a: b", "'a: b'"),
            ("a:", "'a:'"),
            ("a #b", "'a #b'"),
            ("#", "'#'"),
            ("- a", "'- a'"),
            ("-", "'-'"),
            (" a", "' a'"),
            ("@a", "'@a'"),
            ("*", "'*'"),
            ("it's: so", "'it''s: so'"),
            ("{\"a\":1}", "'{\"a\":1}'"),
        ] {
            assert_eq!(scalar(text), shown, "{text:?}");
        }
    }

    #[test]
    fn readers_take_it_for_the_same() {
        let json = r#"{"a": [], "b": {}, "c": ["x", "1", {"d": "y", "e": [["z", "w"]]}], "f": {"1": "g\nh\n"},
            "i": "j\n\nk", "l": "m\n\n", "n": " o\np", "q": true, "r": null, "s": 1.5, "t": "null", "u: v": "w\r\n"}"#;
        let tree: Tree = serde_json::from_str(json).unwrap();
        let yaml = tree.to_yaml();
        let back: serde_json::Value =
            serde_saphyr::from_str(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
        assert_eq!(back, serde_json::from_str::<serde_json::Value>(json).unwrap(), "{yaml}");
        insta::assert_snapshot!(yaml);
    }
}
