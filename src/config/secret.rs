//! Secrets: under a key, in the file that `{key}_file` names, or in an environment variable.

use argon2::password_hash::PasswordHash;

use super::fields::{Fields, Reading, Spot, Value};
use crate::model::secret::{Password, Token};

/// Longest secret, in bytes; it stops a wrong file name from becoming a password.
const MAX_BYTES: usize = 1024;

/// A secret as it was given.
pub(super) struct Secret {
    pub(super) text: String,
    pub(super) origin: Origin,
    pub(super) spot: Spot,
}

/// Where a secret's text comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It stands in the configuration itself: in plain text it is a demo password.
    Inline,
    /// From a file of its own, or from an environment variable: whoever may read the configuration does not see it.
    Elsewhere,
}

/// Reads the secret under `name` or `name_file`; both at once are a fault, none is `None`.
pub(super) fn secret(
    fields: &mut Fields<'_>,
    name: &'static str,
    name_file: &'static str,
    reading: &mut Reading,
) -> Option<Secret> {
    let (inline, file) = (fields.get(name), fields.get(name_file));
    let secret = match (inline, file) {
        (Some(inline), None) => inline_secret(&inline, reading),
        (None, Some(file)) => secret_of_file(&file, reading),
        (Some(_), Some(file)) => {
            file.fault(reading, format_args!("use either `{name}` or `{name_file}`, not both"));
            None
        }
        (None, None) => None,
    }?;
    check(secret, reading)
}

fn inline_secret(value: &Value<'_>, reading: &mut Reading) -> Option<Secret> {
    let text = value.text(reading)?;
    let origin = if text.written.is_some() { Origin::Elsewhere } else { Origin::Inline };
    Some(Secret { text: text.value.clone(), origin, spot: value.spot.clone() })
}

fn secret_of_file(value: &Value<'_>, reading: &mut Reading) -> Option<Secret> {
    let name = value.str(reading)?;
    let path = reading.folder.join(name);
    // As it is written: what a variable holds is not shown, it may be the secret itself.
    let shown = value.shown();
    let text = match read_small(&path, MAX_BYTES + 3) {
        Ok(text) => text,
        Err(error) => {
            value.fault(reading, format_args!("{shown} cannot be read: {error}"));
            return None;
        }
    };
    let Ok(mut text) = String::from_utf8(text) else {
        value.fault(reading, format_args!("{shown} is not UTF-8 text"));
        return None;
    };
    // Editors end files with a line break, which is no part of a secret.
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    Some(Secret { text, origin: Origin::Elsewhere, spot: value.spot.clone() })
}

/// Reads at most this many bytes, whatever the file is.
pub(super) fn read_small(path: &std::path::Path, most: usize) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn check(secret: Secret, reading: &mut Reading) -> Option<Secret> {
    let fault = match &secret.text {
        text if text.is_empty() => "the secret is empty".to_owned(),
        text if text.len() > MAX_BYTES => format!("the secret is longer than {MAX_BYTES} bytes"),
        text if text.contains('\0') => "the secret holds the null character".to_owned(),
        text if text.starts_with("$argon2") => match PasswordHash::new(text) {
            Ok(hash) if hash.hash.is_some() && hash.salt.is_some() => return Some(secret),
            Ok(_) => "the argon2 hash is not whole".to_owned(),
            Err(error) => format!("the argon2 hash is not in PHC form ({error})"),
        },
        _ => return Some(secret),
    };
    reading.fault(&secret.spot, fault);
    None
}

/// A login of the embedded MQTT server. Plain text in the file itself is noted as a demo password.
pub(super) fn login(secret: Option<Secret>, reading: &mut Reading) -> Option<Password> {
    let secret = secret?;
    let password = Password::new(secret.text);
    if matches!(password, Password::Plain(_)) && secret.origin == Origin::Inline {
        reading.demo_passwords.push(secret.spot.key);
    }
    Some(password)
}

/// A token that is shown to us, or a login elsewhere: always plain text. One that stands in the file itself and guards
/// the management port is noted as a demo token.
pub(super) fn token(secret: Option<Secret>, guards_us: bool, reading: &mut Reading) -> Option<Token> {
    let secret = secret?;
    if secret.text.starts_with("$argon2") {
        reading.fault(&secret.spot, "the secret itself is needed here, not a hash of it");
    }
    if !secret.text.bytes().all(|b| (0x21..0x7f).contains(&b)) {
        reading.fault(&secret.spot, "the secret may hold visible ASCII characters only, no blanks");
    }
    if guards_us && secret.origin == Origin::Inline {
        reading.demo_tokens.push(secret.spot.key);
    }
    Some(Token::new(secret.text))
}
