//! Writes a value as compact JSON, and only what JSON can hold.
//!
//! Values of jaq are more than JSON: NaN, infinities, byte strings, keys that are no strings, text that is
//! not UTF-8. Its own writer writes them as something that no JSON parser reads.

use std::io::Write as _;

use jaq_json::{Num, Val};

/// Why a value was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unwritten {
    /// It is longer than the limit.
    TooLarge,
    /// It is not JSON.
    NotJson(&'static str),
}

/// The JSON of a value, at most `limit` bytes.
pub(super) fn to_json(value: &Val, limit: usize) -> Result<Vec<u8>, Unwritten> {
    let mut writer = Writer { json: Vec::with_capacity(limit.min(256)), limit };
    writer.value(value)?;
    if writer.json.len() > limit { Err(Unwritten::TooLarge) } else { Ok(writer.json) }
}

struct Writer {
    json: Vec<u8>,
    limit: usize,
}

impl Writer {
    fn value(&mut self, value: &Val) -> Result<(), Unwritten> {
        if self.json.len() > self.limit {
            return Err(Unwritten::TooLarge);
        }
        match value {
            Val::Null => self.json.extend(b"null"),
            Val::Bool(true) => self.json.extend(b"true"),
            Val::Bool(false) => self.json.extend(b"false"),
            Val::Num(number) => self.number(number),
            Val::TStr(text) => self.text(text),
            Val::BStr(_) => return Err(Unwritten::NotJson("a string of bytes")),
            Val::Arr(values) => {
                self.json.push(b'[');
                for (n, value) in values.iter().enumerate() {
                    if n > 0 {
                        self.json.push(b',');
                    }
                    self.value(value)?;
                }
                self.json.push(b']');
            }
            Val::Obj(fields) => {
                self.json.push(b'{');
                for (n, (key, value)) in fields.iter().enumerate() {
                    if n > 0 {
                        self.json.push(b',');
                    }
                    let Val::TStr(key) = key else {
                        return Err(Unwritten::NotJson("an object with a key that is no string"));
                    };
                    self.text(key);
                    self.json.push(b':');
                    self.value(value)?;
                }
                self.json.push(b'}');
            }
        }
        Ok(())
    }

    fn number(&mut self, number: &Num) {
        let written = match number {
            // As in jq.
            Num::Float(float) if float.is_nan() => write!(self.json, "null"),
            Num::Float(float) if float.is_infinite() => write!(self.json, "{:e}", float.signum() * f64::MAX),
            Num::Dec(text) => {
                // What jaq reads may have a plus sign and zeros in front.
                let (sign, digits) = match text.strip_prefix('-') {
                    Some(digits) => ("-", digits),
                    None => ("", text.strip_prefix('+').unwrap_or(text)),
                };
                let digits = digits.trim_start_matches('0');
                let zero = if digits.starts_with(|c: char| c.is_ascii_digit()) { "" } else { "0" };
                write!(self.json, "{sign}{zero}{digits}")
            }
            number => write!(self.json, "{number}"),
        };
        // A vector takes all there is memory for.
        drop(written);
    }

    fn text(&mut self, text: &[u8]) {
        self.json.push(b'"');
        let text = String::from_utf8_lossy(text);
        let mut rest = text.as_bytes();
        while let Some(at) = rest.iter().position(|byte| matches!(byte, 0..0x20 | b'"' | b'\\')) {
            self.json.extend(&rest[..at]);
            let escaped = match rest[at] {
                b'\n' => write!(self.json, "\\n"),
                b'\r' => write!(self.json, "\\r"),
                b'\t' => write!(self.json, "\\t"),
                byte @ (b'"' | b'\\') => write!(self.json, "\\{}", char::from(byte)),
                byte => write!(self.json, "\\u{byte:04x}"),
            };
            drop(escaped);
            rest = &rest[at + 1..];
        }
        self.json.extend(rest);
        self.json.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use jaq_json::read::parse_single;
    use proptest::prelude::*;

    use super::*;

    fn rewritten(json: &str) -> String {
        String::from_utf8(to_json(&parse_single(json.as_bytes()).unwrap(), 1000).unwrap()).unwrap()
    }

    #[test]
    fn json_comes_out_as_it_went_in() {
        for json in [
            r#"{"z":1,"a":{"y":[],"b":{}},"m":null}"#,
            "[true,false,0,-1,1.0,1.10,-0.5e-7,1E+400]",
            "123456789012345678901234567890",
            "0.1234567890123456789012345678901234567890",
            r#""a\n\r\t\u0000\u001f\"\\/ü😀""#,
        ] {
            assert_eq!(rewritten(json), json);
        }
    }

    #[test]
    fn what_is_not_json_does_not_come_out() {
        assert_eq!(rewritten("[NaN,Infinity,-Infinity]"), format!("[null,{0:e},-{0:e}]", f64::MAX));
        assert_eq!(rewritten("[+1.5,00.5,-0.0,+7,00]"), "[1.5,0.5,-0.0,7,0]");
        let bad = |json: &[u8]| to_json(&parse_single(json).unwrap(), 1000);
        assert!(matches!(bad(b"{1:2}"), Err(Unwritten::NotJson(_))));
        assert!(matches!(bad(br#"[b"a"]"#), Err(Unwritten::NotJson(_))));
        assert_eq!(bad(b"\"\xff\"").unwrap(), "\"\u{fffd}\"".as_bytes());
    }

    #[test]
    fn the_limit_is_exact() {
        for json in ["[1,2,3]", r#"{"a":"bc"}"#, r#""abc""#] {
            let value = parse_single(json.as_bytes()).unwrap();
            assert!(to_json(&value, json.len()).is_ok());
            assert_eq!(to_json(&value, json.len() - 1), Err(Unwritten::TooLarge));
        }
    }

    proptest! {
        #[test]
        fn every_number_that_is_read_is_written_as_json(text in "[+-]?[0-9]{1,4}(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,3})?") {
            if let Ok(value) = parse_single(text.as_bytes()) {
                let json = to_json(&value, 1000).unwrap();
                prop_assert!(serde_json::from_slice::<Box<serde_json::value::RawValue>>(&json).is_ok());
            }
        }

        #[test]
        fn every_text_survives(text in any::<String>()) {
            let json = to_json(&Val::from(text.clone()), usize::MAX).unwrap();
            prop_assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
        }
    }
}
