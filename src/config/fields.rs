//! Walks the tree: takes values out by key, and notes every fault on the way.
//!
//! After a fault the walk goes on with a stand-in value; whoever finds one fault gets an error in the end, so
//! stand-ins never reach anyone.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Place};
use super::suggest;
use super::tree::{Kind, Node, Text};

/// One reading of one file: what was found wrong so far.
pub(super) struct Reading {
    pub(super) file: PathBuf,
    /// Paths in the file are relative to this folder, the file's own.
    pub(super) folder: PathBuf,
    pub(super) faults: Vec<ConfigError>,
    /// Keys of passwords of the embedded MQTT server that stand in the file in plain text.
    pub(super) demo_passwords: Vec<String>,
    /// Keys of tokens of the management port that stand in the file in plain text.
    pub(super) demo_tokens: Vec<String>,
    /// Every key that was asked for, with its file: what the reference is held against.
    #[cfg(test)]
    pub(super) asked: std::collections::BTreeSet<(PathBuf, String)>,
}

/// A key's path and its place.
#[derive(Debug, Clone, Default)]
pub(super) struct Spot {
    pub(super) key: String,
    pub(super) place: Option<Place>,
}

impl Reading {
    /// A reading of this file, which has found nothing yet.
    pub(super) fn of(file: &Path) -> Self {
        Self {
            file: file.to_owned(),
            folder: file.parent().map(PathBuf::from).unwrap_or_default(),
            faults: Vec::new(),
            demo_passwords: Vec::new(),
            demo_tokens: Vec::new(),
            #[cfg(test)]
            asked: Default::default(),
        }
    }

    pub(super) fn fault(&mut self, spot: &Spot, message: impl Display) {
        self.faults.push(ConfigError {
            file: self.file.clone(),
            place: spot.place,
            key: spot.key.clone(),
            message: message.to_string(),
        });
    }
}

/// The path of a map's entry: `a.b`, or `a["/b"]` where the name is not a plain word.
pub(super) fn child_key(parent: &str, name: &str) -> String {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    match (plain, parent.is_empty()) {
        (true, true) => name.to_owned(),
        (true, false) => format!("{parent}.{name}"),
        (false, _) => format!("{parent}[{}]", quote(name)),
    }
}

/// The path of a list's item: `a[0]`.
pub(super) fn item_key(parent: &str, index: usize) -> String {
    format!("{parent}[{index}]")
}

/// Text for a message: quoted, on one line, cut when long.
pub(super) fn quote(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}

/// A value of the file.
#[derive(Debug, Clone)]
pub(super) struct Value<'a> {
    pub(super) spot: Spot,
    pub(super) node: &'a Node,
}

impl<'a> Value<'a> {
    pub(super) fn root(node: &'a Node) -> Self {
        Self { spot: Spot { key: String::new(), place: node.place }, node }
    }

    pub(super) fn fault(&self, reading: &mut Reading, message: impl Display) {
        reading.fault(&self.spot, message);
    }

    /// The value for a message: as it stands in the file, so that variables keep their secret.
    pub(super) fn shown(&self) -> String {
        match &self.node.kind {
            Kind::Null | Kind::Unset => "nothing".into(),
            Kind::Bool(value) => value.to_string(),
            Kind::Int(value) => value.to_string(),
            Kind::Float(value) => value.to_string(),
            Kind::Text(text) => quote(text.written.as_ref().unwrap_or(&text.value)),
            Kind::List(_) => "a list".into(),
            Kind::Map(_) => "a map".into(),
        }
    }

    fn wrong_kind(&self, reading: &mut Reading, wanted: &str) {
        let found = match self.node.kind {
            Kind::Null => "nothing",
            Kind::Unset => return,
            Kind::Bool(_) => "true or false",
            Kind::Int(_) | Kind::Float(_) => "a number",
            Kind::Text(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        };
        let scalar = matches!(self.node.kind, Kind::Bool(_) | Kind::Int(_) | Kind::Float(_));
        let hint = if wanted == "text" && scalar { "; put it in quotes" } else { "" };
        self.fault(reading, format_args!("{wanted} is expected here, not {found}{hint}"));
    }

    pub(super) fn text(&self, reading: &mut Reading) -> Option<&'a Text> {
        match &self.node.kind {
            Kind::Text(text) => Some(text),
            _ => {
                self.wrong_kind(reading, "text");
                None
            }
        }
    }

    pub(super) fn str(&self, reading: &mut Reading) -> Option<&'a str> {
        self.text(reading).map(|text| text.value.as_str())
    }

    /// The items of a list; none when it is not a list.
    pub(super) fn items(&self, reading: &mut Reading) -> Vec<Value<'a>> {
        let Kind::List(items) = &self.node.kind else {
            self.wrong_kind(reading, "a list");
            return Vec::new();
        };
        let value = |(index, node): (usize, &'a Node)| Value {
            spot: Spot { key: item_key(&self.spot.key, index), place: node.place },
            node,
        };
        items.iter().enumerate().map(value).collect()
    }

    /// The entries of a map whose keys the user chooses.
    pub(super) fn entries(&self, reading: &mut Reading) -> Vec<(&'a str, Value<'a>)> {
        let Kind::Map(entries) = &self.node.kind else {
            self.wrong_kind(reading, "a map");
            return Vec::new();
        };
        entries
            .iter()
            .map(|(key, node)| {
                let spot = Spot { key: child_key(&self.spot.key, &key.name), place: key.place };
                (key.name.as_str(), Value { spot, node })
            })
            .collect()
    }

    /// The entries of a map whose keys we choose; an empty map when it is none (which is a fault), or null.
    pub(super) fn fields(&self, reading: &mut Reading) -> Fields<'a> {
        let entries = match &self.node.kind {
            Kind::Null => Vec::new(),
            _ => self.entries(reading),
        };
        Fields { spot: self.spot.clone(), entries, asked: Vec::new() }
    }
}

/// A map whose keys we choose. Every key that is asked for is known; [`Fields::finish`] reports the others.
pub(super) struct Fields<'a> {
    pub(super) spot: Spot,
    entries: Vec<(&'a str, Value<'a>)>,
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// A map without keys.
    pub(super) fn none(spot: Spot) -> Self {
        Self { spot, entries: Vec::new(), asked: Vec::new() }
    }

    /// The value of a key; `None` without the key, or when it says null.
    pub(super) fn get(&mut self, name: &'static str) -> Option<Value<'a>> {
        self.get_or_null(name).filter(|value| value.node.kind != Kind::Null)
    }

    /// The value of a key, null too. The place is the value's own.
    pub(super) fn get_or_null(&mut self, name: &'static str) -> Option<Value<'a>> {
        self.asked.push(name);
        let value = self.entries.iter().find(|(key, _)| *key == name)?.1.clone();
        let place = value.node.place.or(value.spot.place);
        Some(Value { spot: Spot { place, ..value.spot }, node: value.node })
    }

    /// The value of a key that must be there.
    pub(super) fn need(&mut self, name: &'static str, reading: &mut Reading) -> Option<Value<'a>> {
        let value = self.get(name);
        if value.is_none() {
            self.missing(name, reading);
        }
        value
    }

    /// Whether a key is there and not null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, value)| *key == name && value.node.kind != Kind::Null)
    }

    /// Notes that a key is not there.
    pub(super) fn missing(&self, name: &str, reading: &mut Reading) {
        reading.fault(&self.spot, format_args!("the key `{name}` is missing"));
    }

    /// Accepts a key that another tool prints and that means nothing here.
    pub(super) fn ignore(&mut self, name: &'static str) {
        self.asked.push(name);
    }

    /// Refuses keys that are known in the model system and not built here.
    pub(super) fn refuse(&mut self, names: &[&'static str], reading: &mut Reading) {
        for name in names {
            let value = self.get_or_null(name);
            // Known, but never offered as a correction.
            self.asked.pop();
            if let Some(value) = value {
                value.fault(reading, "is not supported yet; remove the key");
                self.entries.retain(|(key, _)| key != name);
            }
        }
    }

    /// Which of some keys are there, in the order given; all become known.
    pub(super) fn present(&mut self, names: &[&'static str]) -> Vec<(&'static str, Value<'a>)> {
        names.iter().filter_map(|name| Some((*name, self.get_or_null(name)?))).collect()
    }

    /// Exactly one of some keys.
    pub(super) fn one_of(
        &mut self,
        names: &[&'static str],
        reading: &mut Reading,
    ) -> Option<(&'static str, Value<'a>)> {
        let mut present = self.present(names);
        let list = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        match present.len() {
            1 => present.pop(),
            0 => {
                reading.fault(&self.spot, format_args!("one of these keys is missing: {list}"));
                None
            }
            _ => {
                reading.fault(&self.spot, format_args!("only one of these keys may be used: {list}"));
                None
            }
        }
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self, reading: &mut Reading) {
        #[cfg(test)]
        for name in &self.asked {
            reading.asked.insert((reading.file.clone(), child_key(&self.spot.key, name)));
        }
        for (name, value) in &self.entries {
            if !self.asked.contains(name) {
                let known = suggest::among(name, self.asked.iter().copied(), "known keys");
                reading.fault(&value.spot, format_args!("unknown key{known}"));
            }
        }
    }
}
