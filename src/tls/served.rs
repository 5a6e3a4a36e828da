//! The certificate that a port shows: loaded at the start, and again whenever its files change. [`Watcher`] looks for
//! that; connections that are open do not notice.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::own::{self, Names};
use super::provider;
use crate::telemetry::{METRICS, count};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Where a certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A CA of our own makes it.
    Own {
        /// Where the CA and the certificate are kept.
        folder: PathBuf,
        /// What it is for.
        names: Names,
    },
    /// Somebody else does.
    Files {
        /// PEM: the certificate, and those that lead to its CA.
        certificate: PathBuf,
        /// PEM: its key.
        key: PathBuf,
    },
}

/// What files looked like: when each was changed, and how long it is.
type Stamp = [Option<(SystemTime, u64)>; 2];

/// A certificate and its key, the newest that could be used.
#[derive(Debug)]
pub struct Certificate {
    source: Source,
    key: RwLock<Arc<CertifiedKey>>,
    seen: Mutex<Seen>,
}

/// What is known of the files.
#[derive(Debug)]
struct Seen {
    loaded: Stamp,
    /// Files that cannot be used: how they looked, and whether that has been told.
    bad: Option<(Stamp, bool)>,
}

impl Source {
    fn files(&self) -> [PathBuf; 2] {
        match self {
            Self::Own { folder, .. } => own::files(folder),
            Self::Files { certificate, key } => [certificate.clone(), key.clone()],
        }
    }

    fn stamp(&self) -> Stamp {
        let stamp = |file: PathBuf| {
            let meta = fs::metadata(file).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        };
        self.files().map(stamp)
    }

    /// Whether it has to be made anew.
    fn is_due(&self, stamp: &Stamp) -> bool {
        matches!(self, Self::Own { .. }) && stamp[0].is_none_or(|(made, _)| own::is_old(made))
    }

    fn load(&self) -> io::Result<CertifiedKey> {
        if let Self::Own { folder, names } = self {
            own::make(folder, names)?;
        }
        let [certificate, key] = self.files();
        let wrong = |file: &Path, error: &dyn std::fmt::Display| {
            io::Error::other(format!("{}: {error}", file.display()))
        };
        let chain =
            CertificateDer::pem_file_iter(&certificate).map_err(|error| wrong(&certificate, &error))?;
        let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(|error| wrong(&certificate, &error))?;
        if chain.is_empty() {
            return Err(wrong(&certificate, &"it holds no certificate in PEM form"));
        }
        let private = PrivateKeyDer::from_pem_file(&key).map_err(|error| wrong(&key, &error))?;
        CertifiedKey::from_der(chain, private, &provider()).map_err(|error| {
            io::Error::other(format!("{} with {}: {error}", certificate.display(), key.display()))
        })
    }
}

impl Certificate {
    /// Loads it, or makes it.
    pub fn load(source: Source) -> io::Result<Self> {
        let before = source.stamp();
        let key = source.load()?;
        // Files that change meanwhile are read once more.
        let loaded = if source.is_due(&before) { source.stamp() } else { before };
        let seen = Mutex::new(Seen { loaded, bad: None });
        Ok(Self { key: RwLock::new(Arc::new(key)), seen, source })
    }

    /// Loads it again if its files have changed, or makes it anew when it is old. Files that cannot be used leave
    /// everything as it is.
    pub fn look(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.source.stamp();
        let is_due = self.source.is_due(&stamp);
        if stamp == seen.loaded && !is_due {
            seen.bad = None;
            return;
        }
        match self.source.load() {
            Ok(key) => {
                *self.key.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                *seen = Seen { loaded: if is_due { self.source.stamp() } else { stamp }, bad: None };
                count(&METRICS.tls_reloads, "loaded");
                let [certificate, _] = self.source.files();
                tracing::info!(certificate = %certificate.display(), "a new certificate is shown from now on");
            }
            Err(error) => match &mut seen.bad {
                // Two files cannot be replaced at once: the second look tells.
                Some((known, told)) if *known == stamp => {
                    if !std::mem::replace(told, true) {
                        count(&METRICS.tls_reloads, "failed");
                        tracing::warn!(%error, "a new certificate cannot be used; the old one stays");
                    }
                }
                bad => *bad = Some((stamp, false)),
            },
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.key.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Keeps certificates up to date.
#[derive(Debug, Default)]
pub struct Watcher {
    certificates: Vec<Arc<Certificate>>,
}

impl Watcher {
    /// The certificate of this source, which is watched from now on. The same source gives the same one.
    pub fn certificate(&mut self, source: Source) -> io::Result<Arc<Certificate>> {
        if let Some(known) = self.certificates.iter().find(|known| known.source == source) {
            return Ok(Arc::clone(known));
        }
        let certificate = Arc::new(Certificate::load(source)?);
        self.certificates.push(Arc::clone(&certificate));
        Ok(certificate)
    }

    /// Looks now and then, without end.
    pub async fn watch(self) {
        let certificates: Arc<[_]> = self.certificates.into();
        if certificates.is_empty() {
            return;
        }
        loop {
            tokio::time::sleep(LOOK).await;
            let certificates = Arc::clone(&certificates);
            let look = move || certificates.iter().for_each(|certificate| certificate.look());
            // A panic in it is contained there; the next look comes all the same.
            let _ = tokio::task::spawn_blocking(look).await;
        }
    }
}
