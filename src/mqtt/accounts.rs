//! Who may log in, and the check of passwords and certificates. Called by [`super::handshake`].

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use argon2::password_hash::PasswordHash;
use argon2::{Argon2, PasswordVerifier};
use tokio::sync::{Semaphore, watch};

use super::access::{Identity, Topics};
use super::heard::Heard;
use super::limits::Limits;
use super::space::Space;
use crate::model::Resources;
use crate::model::certificate::{Certificate, Fingerprint};
use crate::model::id::Id;
use crate::model::secret::{Password, is_same};

/// Argon2 verifications at once: each takes tens of milliseconds of a core and 19 MiB.
const VERIFICATIONS: usize = 2;

/// A login.
#[derive(Debug)]
pub(crate) struct Account {
    /// The user name.
    pub(crate) name: Id,
    /// What it is.
    pub(crate) identity: Identity,
    /// Where its topics are.
    pub(crate) space: Arc<Space>,
    passwords: Vec<Password>,
    certificates: Vec<Fingerprint>,
    /// Becomes false when nobody may go on as this account.
    valid: watch::Sender<bool>,
    /// For a device that has been there.
    heard: OnceLock<Arc<Heard>>,
}

impl Account {
    /// Whether those who have logged in may go on.
    pub(crate) fn is_valid(&self) -> watch::Receiver<bool> {
        self.valid.subscribe()
    }

    /// Where it is told what comes from it, if it is a device.
    pub(crate) fn heard(&self) -> Option<&Arc<Heard>> {
        let Identity::Device(id) = &self.identity else { return None };
        Some(self.heard.get_or_init(|| self.space.heard_by(id)))
    }
}

/// What a client shows to be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Login<'a> {
    /// A user name and its password.
    Password(&'a str, &'a [u8]),
    /// A certificate whose key it has. A user name beside it must be that of the same account.
    Certificate(Fingerprint, Option<&'a str>),
}

impl<'a> Login<'a> {
    /// What counts of what a client shows: the password alone, if there is one, and the certificate else, as in the
    /// model system. `None`: it shows nothing.
    pub(crate) fn of(
        name: Option<&'a str>,
        password: Option<&'a [u8]>,
        certificate: Option<Fingerprint>,
    ) -> Option<Self> {
        match (name, password, certificate) {
            (Some(name), Some(password), _) => Some(Self::Password(name, password)),
            (name, None, Some(certificate)) => Some(Self::Certificate(certificate, name)),
            _ => None,
        }
    }
}

/// Every login of the server.
#[derive(Debug)]
pub(crate) struct Accounts {
    by_name: HashMap<Id, Arc<Account>>,
    by_certificate: HashMap<Fingerprint, Arc<Account>>,
    /// Verified in place of a password where the user is unknown, so that the answer takes as long.
    decoy: Option<Password>,
    verifications: Arc<Semaphore>,
}

/// Two resources with one user name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ambiguous(pub(crate) Id);

impl Accounts {
    /// No logins.
    pub(crate) fn none() -> Self {
        let verifications = Arc::new(Semaphore::new(VERIFICATIONS));
        Self { by_name: HashMap::new(), by_certificate: HashMap::new(), decoy: None, verifications }
    }

    /// The logins of all registries, devices and brokers that the embedded server serves, each with its
    /// space, and the spaces by kind and id. Accounts and spaces that are the same in `self` are kept; a space whose
    /// devices have changed gets its new rules.
    pub(crate) fn renewed(
        &self,
        resources: &Resources,
        limits: &Limits,
    ) -> Result<(Self, Vec<Arc<Space>>), Ambiguous> {
        let mut by_name = HashMap::new();
        let mut by_certificate: HashMap<_, Arc<Account>> = HashMap::new();
        let mut spaces = Vec::new();
        let mut add =
            |name: &Id, identity: Identity, shows: (&[Password], &[Certificate]), space: &Arc<Space>| {
                let (passwords, certificates) = shows;
                let certificates: Vec<_> = certificates.iter().map(|one| one.fingerprint).collect();
                let is_same = |old: &&Arc<Account>| {
                    old.identity == identity
                        && old.passwords == passwords
                        && old.certificates == certificates
                        && Arc::ptr_eq(&old.space, space)
                };
                let account = self.by_name.get(name).filter(is_same).cloned().unwrap_or_else(|| {
                    let (name, passwords, space) = (name.clone(), passwords.to_vec(), Arc::clone(space));
                    let valid = watch::Sender::new(true);
                    let heard = OnceLock::new();
                    Arc::new(Account { name, identity, passwords, certificates, space, valid, heard })
                });
                for fingerprint in &account.certificates {
                    let owner = by_certificate.entry(*fingerprint).or_insert_with(|| Arc::clone(&account));
                    if !Arc::ptr_eq(owner, &account) {
                        tracing::warn!(%fingerprint, owner = %owner.name, other = %account.name,
                        "a certificate is that of two accounts; it lets the first of them in");
                    }
                }
                match by_name.insert(name.clone(), account) {
                    Some(_) => Err(Ambiguous(name.clone())),
                    None => Ok(()),
                }
            };
        for registry in resources.device_registries.iter().filter(|r| r.external.is_none()) {
            let space = self.space(&registry.id, Identity::Registry, Topics::of_registry(registry), limits);
            add(&registry.id, Identity::Registry, (&registry.passwords, &registry.certificates), &space)?;
            for device in &registry.devices {
                let shows = (&device.passwords[..], &device.certificates[..]);
                add(&device.id, Identity::Device(device.id.clone()), shows, &space)?;
            }
            spaces.push(space);
        }
        for broker in resources.brokers.iter().filter(|b| b.external.is_none()) {
            let space = self.space(&broker.id, Identity::Broker, Topics::Broker, limits);
            add(&broker.id, Identity::Broker, (&broker.passwords, &broker.certificates), &space)?;
            spaces.push(space);
        }
        let hashed = |password: &&Password| matches!(password, Password::Argon2(_));
        let mut passwords = by_name.values().flat_map(|account| &account.passwords);
        let decoy = passwords.find(hashed).cloned();
        let verifications = Arc::clone(&self.verifications);
        Ok((Self { by_name, by_certificate, decoy, verifications }, spaces))
    }

    /// The space of a registry or broker: that which there is, with these rules, or a new one.
    fn space(&self, id: &Id, owner: Identity, topics: Topics, limits: &Limits) -> Arc<Space> {
        match self.by_name.get(id).filter(|account| account.identity == owner) {
            Some(account) => {
                account.space.set_topics(topics);
                Arc::clone(&account.space)
            }
            None => Arc::new(Space::new(id.clone(), topics, limits)),
        }
    }

    /// Ends the connections of those accounts that are not in `newer`.
    pub(crate) fn end_all_but(&self, newer: &Self) {
        for (name, account) in &self.by_name {
            if !newer.by_name.get(name).is_some_and(|other| Arc::ptr_eq(account, other)) {
                account.valid.send_replace(false);
            }
        }
    }

    /// The account with this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Account>> {
        self.by_name.get(name)
    }

    /// The account that a client may act as.
    pub(crate) async fn log_in(&self, login: Login<'_>) -> Option<Arc<Account>> {
        match login {
            Login::Password(name, password) => self.by_password(name, password).await,
            Login::Certificate(certificate, name) => {
                let account = self.by_certificate.get(&certificate)?;
                name.is_none_or(|name| *account.name == *name).then(|| Arc::clone(account))
            }
        }
    }

    async fn by_password(&self, name: &str, password: &[u8]) -> Option<Arc<Account>> {
        let account = self.by_name.get(name);
        let wanted = account.map(|account| account.passwords.as_slice()).filter(|wanted| !wanted.is_empty());
        let mut right = false;
        for wanted in wanted.unwrap_or(self.decoy.as_slice()) {
            right = right
                || match wanted {
                    Password::Plain(wanted) => is_same(wanted.as_bytes(), password),
                    Password::Argon2(wanted) => self.verify(wanted.clone(), password.to_vec()).await,
                };
        }
        account.filter(|_| right && wanted.is_some()).cloned()
    }

    async fn verify(&self, wanted: String, password: Vec<u8>) -> bool {
        let Ok(turn) = Arc::clone(&self.verifications).acquire_owned().await else { return false };
        let verify = move || {
            // The turn ends with the work, even if nobody waits for the answer any more.
            let _turn = turn;
            PasswordHash::new(&wanted)
                .is_ok_and(|hash| Argon2::default().verify_password(&password, &hash).is_ok())
        };
        tokio::task::spawn_blocking(verify).await.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::{PasswordHasher, SaltString};

    use super::*;
    use crate::model::iot::{Broker, Device, DeviceRegistry};

    fn hash(password: &str) -> String {
        let params = argon2::Params::new(64, 1, 1, None).unwrap();
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let salt = SaltString::encode_b64(b"0123456789abcdef").unwrap();
        argon2.hash_password(password.as_bytes(), &salt).unwrap().to_string()
    }

    fn accounts() -> Accounts {
        let password = |text: &str| vec![Password::new(text.into())];
        let device =
            |id: &str, passwords| Device { id: id.into(), passwords, certificates: vec![], aliases: vec![] };
        let resources = Resources {
            device_registries: vec![DeviceRegistry {
                id: "r".into(),
                passwords: password("registry-1"),
                certificates: vec![],
                devices: vec![device("d1", password(&hash("device-1"))), device("d2", vec![])],
                external: None,
            }],
            brokers: vec![Broker {
                id: "b".into(),
                passwords: password("broker-1"),
                certificates: vec![],
                external: None,
            }],
            ..Resources::default()
        };
        Accounts::none().renewed(&resources, &Limits::default()).unwrap().0
    }

    #[tokio::test]
    async fn logins_follow_the_table() {
        let accounts = accounts();
        for (name, password, expected) in [
            ("r", "registry-1", Some(Identity::Registry)),
            ("r", "registry-2", None),
            ("r", "registry-", None),
            ("r", "registry-1x", None),
            ("r", "", None),
            ("d1", "device-1", Some(Identity::Device("d1".into()))),
            ("d1", "device-2", None),
            ("d2", "", None),
            ("d2", "device-1", None),
            ("b", "broker-1", Some(Identity::Broker)),
            ("b", "registry-1", None),
            ("nobody", "device-1", None),
            ("", "", None),
        ] {
            let account = accounts.log_in(Login::Password(name, password.as_bytes())).await;
            assert_eq!(account.map(|a| a.identity.clone()), expected, "{name} {password}");
        }
    }

    fn certificate(name: u8) -> Certificate {
        Certificate { fingerprint: Fingerprint::of_der(&[name]), name: "".into(), pem: "".into() }
    }

    /// A registry with certificate 0, and its devices with these.
    fn certified(devices: &[(&str, &[u8])]) -> Resources {
        let device = |(id, certificates): &(&str, &[u8])| Device {
            id: (*id).into(),
            passwords: vec![Password::new(format!("{id}-password"))],
            certificates: certificates.iter().map(|name| certificate(*name)).collect(),
            aliases: vec![],
        };
        let registry = DeviceRegistry {
            id: "r".into(),
            passwords: vec![],
            certificates: vec![certificate(0)],
            devices: devices.iter().map(device).collect(),
            external: None,
        };
        Resources { device_registries: vec![registry], ..Resources::default() }
    }

    #[tokio::test]
    async fn a_password_counts_more_than_a_certificate() {
        let resources = certified(&[("d1", &[1]), ("d2", &[2])]);
        let accounts = Accounts::none().renewed(&resources, &Limits::default()).unwrap().0;
        let (good, wrong) = (Some("d1-password"), Some("d2-password"));
        for (name, password, shown, expected) in [
            (None, None, Some(0), Some("r")),
            (None, None, Some(1), Some("d1")),
            (Some("d1"), None, Some(1), Some("d1")),
            (Some("d2"), None, Some(1), None),
            (None, None, Some(9), None),
            (Some("d1"), None, Some(9), None),
            (None, None, None, None),
            (Some("d1"), None, None, None),
            (None, good, Some(1), None),
            (Some("d1"), good, Some(9), Some("d1")),
            (Some("d1"), wrong, Some(1), None),
            (Some("d1"), good, Some(2), Some("d1")),
        ] {
            let shown_as = shown.map(|name| certificate(name).fingerprint);
            let account = match Login::of(name, password.map(str::as_bytes), shown_as) {
                Some(login) => accounts.log_in(login).await,
                None => None,
            };
            let account = account.map(|account| account.name.to_string());
            assert_eq!(account.as_deref(), expected, "{name:?} {password:?} {shown:?}");
        }
    }

    #[tokio::test]
    async fn an_account_ends_with_a_certificate_of_it_and_the_others_stay() {
        let limits = Limits::default();
        let before = certified(&[("d1", &[1, 3]), ("d2", &[2])]);
        let old = Accounts::none().renewed(&before, &limits).unwrap().0;
        let new = old.renewed(&certified(&[("d1", &[1]), ("d2", &[2, 3])]), &limits).unwrap().0;
        old.end_all_but(&new);
        let is_valid = |name: &str| *old.get(name).unwrap().is_valid().borrow();
        assert_eq!([is_valid("r"), is_valid("d1"), is_valid("d2")], [true, false, false]);
        let moved = new.log_in(Login::Certificate(certificate(3).fingerprint, None)).await;
        assert_eq!(&*moved.unwrap().name, "d2");
    }

    #[test]
    fn a_name_for_two_is_an_error() {
        let broker =
            |id: &str| Broker { id: id.into(), passwords: vec![], certificates: vec![], external: None };
        let resources = Resources { brokers: vec![broker("b"), broker("b")], ..Resources::default() };
        assert_eq!(
            Accounts::none().renewed(&resources, &Limits::default()).unwrap_err(),
            Ambiguous("b".into())
        );
    }
}
