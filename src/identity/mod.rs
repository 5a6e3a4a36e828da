//! Proofs of who calls: keys that accounts sign with, secrets, and the tokens that stand for them.
//!
//! `key` makes the pairs of keys and checks what was signed with them, `secret` makes API keys and hashes passwords,
//! `token` signs and checks IAM tokens. Nothing here knows what accounts there are.

pub mod key;
pub mod secret;
pub mod token;
