//! API keys, which are long random texts, and passwords, which are not.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use argon2::password_hash::{PasswordHasher, SaltString};
use argon2::{Argon2, PasswordVerifier};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What every API key begins with.
const MARK: &str = "AQVN";
/// Random bytes of an API key.
const SECRET_BYTES: usize = 32;

/// No random numbers are to be had from the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system has no random numbers")]
pub struct NoRandom;

/// A new API key for the key with this id: `AQVN{id}.{secret}`. It leads to its own record, and is shown once.
pub fn new_api_key(id: &str) -> Result<String, NoRandom> {
    let mut bytes = [0; SECRET_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(format!("{MARK}{id}.{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}

/// The id of an API key, if it has the form of one.
pub fn api_key_id(key: &str) -> Option<&str> {
    key.strip_prefix(MARK)?.split_once('.').map(|(id, _)| id)
}

/// What is kept of an API key. It is random and long, so a plain digest is enough.
pub fn digest(key: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(key.as_bytes()))
}

/// Whether this is the digest of the key; in a time that tells nothing.
pub fn is_digest_of(kept: &str, key: &str) -> bool {
    kept.as_bytes().ct_eq(digest(key).as_bytes()).into()
}

/// What is kept of a password: an argon2id hash in PHC form. Takes tens of milliseconds and 19 MiB.
pub fn hash_password(password: &str) -> Result<String, NoRandom> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandom)?;
    let salt = SaltString::encode_b64(&bytes).map_err(|_| NoRandom)?;
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt).map_err(|_| NoRandom)?;
    Ok(hash.to_string())
}

/// Whether a hash is one of this password.
pub fn is_hash_of(hash: &str, password: &str) -> bool {
    argon2::PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// Writes a file that nobody else may read, and that is there as a whole or not at all.
pub fn write_private(file: &Path, text: &str) -> io::Result<()> {
    let draft = file.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut writer = options.open(&draft)?;
    writer.write_all(text.as_bytes())?;
    writer.sync_all()?;
    fs::rename(draft, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_key_is_known_by_its_digest_alone() {
        let key = new_api_key("aje1").unwrap();
        assert_eq!(api_key_id(&key), Some("aje1"));
        let kept = digest(&key);
        assert!(is_digest_of(&kept, &key));
        assert!(!is_digest_of(&kept, &new_api_key("aje1").unwrap()));
        assert!(!kept.contains(key.split_once('.').unwrap().1));
        assert_eq!(api_key_id("Bearer"), None);
    }

    #[test]
    fn a_private_file_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.key");
        write_private(&file, "one").unwrap();
        write_private(&file, "two").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        #[cfg(unix)]
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions()) & 0o777,
            0o600
        );
    }
}
