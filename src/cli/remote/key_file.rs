//! The file of a new key, in the form of the model system's command line, and tokens that are signed with it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::ArgMatches;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use prost_reflect::{DynamicMessage, ReflectMessage};
use rsa::RsaPrivateKey;
use rsa::pkcs1::EncodeRsaPrivateKey;
use rsa::pkcs8::DecodePrivateKey;
use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::request::{given, text_of};
use super::table::{Row, Show};
use crate::proto::types::yandex::cloud::iam::v1::CreateKeyResponse;

/// Whom a token is for: servers take this one, whatever their address is.
const AUDIENCE: &str = "https://iam.api.cloud.yandex.net/iam/v1/tokens";
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// What the file holds.
#[derive(Serialize, Deserialize)]
struct KeyFile {
    id: String,
    service_account_id: String,
    created_at: String,
    key_algorithm: String,
    public_key: String,
    private_key: String,
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    iss: &'a str,
    iat: u64,
    exp: u64,
}

/// The file that a new key will stand in. Only its owner can read it. It goes away again if nothing is written.
pub(super) struct Target {
    path: PathBuf,
    file: Option<File>,
}

impl Target {
    /// Makes the file before there is a key, which could be saved nowhere else. `None`: this call makes no key.
    pub(super) fn make(row: &Row, matches: &ArgMatches) -> Result<Option<Self>, Fault> {
        if row.show != Show::KeyFile {
            return Ok(None);
        }
        let Some(name) = given(matches, "output") else {
            return Err(Fault::input("missing: --output FILE, for the private key".to_owned()));
        };
        let path = PathBuf::from(name.concat());
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let wrong = |error: std::io::Error| match error.kind() {
            ErrorKind::AlreadyExists => {
                Fault::input(format!("--output: {} is there already", path.display()))
            }
            _ => Fault::input(format!("--output: {}: {error}", path.display())),
        };
        let file = Some(file.map_err(wrong)?);
        Ok(Some(Self { path, file }))
    }

    /// Writes the key.
    pub(super) fn write(mut self, answers: &[DynamicMessage]) -> Result<(), Fault> {
        let wrong = |error: &dyn std::fmt::Display| anyhow::anyhow!("the key cannot be written: {error}");
        let none = || wrong(&"the answer has none");
        let answer = answers.first().ok_or_else(none)?;
        let created: CreateKeyResponse = answer.transcode_to().map_err(|error| wrong(&error))?;
        let field = answer.get_field_by_name("key").ok_or_else(none)?;
        let shown = super::show::tree(field.as_message().ok_or_else(none)?)?;
        let text = |field: &str| shown.get(field).map(super::yaml::Tree::in_line).unwrap_or_default();
        let key = KeyFile {
            id: text("id"),
            service_account_id: text("service_account_id"),
            created_at: text("created_at"),
            key_algorithm: text("key_algorithm"),
            public_key: text("public_key"),
            private_key: created.private_key,
        };
        let json = serde_json::to_string_pretty(&key).map_err(|error| wrong(&error))?;
        if let Some(mut file) = self.file.take() {
            writeln!(file, "{json}")?;
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.file.is_some() {
            // Empty; there is nothing to lose.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The part of an answer that may be shown: the key without its private half.
pub(super) fn public(row: &Row, answers: Vec<DynamicMessage>) -> Vec<DynamicMessage> {
    if row.show != Show::KeyFile {
        return answers;
    }
    let key = |answer: DynamicMessage| {
        let field = answer.descriptor().get_field_by_name("key")?;
        answer.get_field(&field).as_message().cloned()
    };
    answers.into_iter().filter_map(key).collect()
}

/// A token signed with the key in a file.
pub(super) fn sign(file: &str) -> Result<String, Fault> {
    let wrong = |error: &dyn std::fmt::Display| Fault::input(format!("--key: {file}: {error}"));
    let key: KeyFile = serde_json::from_str(&text_of(file)?).map_err(|error| wrong(&error))?;
    // Some files have a line of warning before the key.
    let begin = key.private_key.find("-----BEGIN").unwrap_or_default();
    let private = RsaPrivateKey::from_pkcs8_pem(&key.private_key[begin..]).map_err(|error| wrong(&error))?;
    let private = private.to_pkcs1_der().map_err(|error| wrong(&error))?;
    let signing = EncodingKey::from_rsa_der(private.as_bytes());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let claims = Claims {
        aud: AUDIENCE,
        iss: &key.service_account_id,
        iat: now.as_secs(),
        exp: (now + TOKEN_LIFE).as_secs(),
    };
    let header = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::PS256) };
    jsonwebtoken::encode(&header, &claims, &signing).map_err(|error| wrong(&error))
}
