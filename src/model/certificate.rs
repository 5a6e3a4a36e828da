//! Certificates that devices, registries and brokers log in with, and their fingerprints.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

/// The SHA-256 of a certificate's DER form: what a certificate is known by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate in DER form.
    pub fn of_der(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// A certificate that somebody may log in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// What it is known by.
    pub fingerprint: Fingerprint,
    /// The SHA-1 of its DER form in hexadecimal digits: its name in the management API, as in the model system.
    pub name: Arc<str>,
    /// Its text.
    pub pem: Arc<str>,
}

/// Why a text is no certificate to log in with. The texts fit after "the text ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// No certificate, or more than one.
    #[error("must hold exactly one certificate in PEM form")]
    Number,
    /// The PEM form is broken.
    #[error("is not a certificate in PEM form")]
    Pem,
    /// Its contents are no certificate, or one that a handshake would refuse.
    #[error("is not an X.509 certificate of version 3: {0}")]
    Der(String),
}

impl Certificate {
    /// Reads the one certificate of a text in PEM form. Who signed it, and until when it is valid, does not matter: it
    /// is known by its fingerprint.
    pub fn of_pem(pem: &str) -> Result<Self, CertificateError> {
        let mut found = CertificateDer::pem_slice_iter(pem.as_bytes());
        let der = match (found.next(), found.next()) {
            (Some(Ok(der)), None) => der,
            (Some(Err(_)), _) => return Err(CertificateError::Pem),
            _ => return Err(CertificateError::Number),
        };
        rustls::server::ParsedCertificate::try_from(&der)
            .map_err(|error| CertificateError::Der(error.to_string()))?;
        let sha1 = super::reference::hex(&sha1::Sha1::digest(&der));
        Ok(Self { fingerprint: Fingerprint::of_der(&der), name: sha1.into(), pem: pem.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem() -> String {
        rcgen::generate_simple_self_signed(["press-1".to_owned()]).unwrap().cert.pem()
    }

    #[test]
    fn a_certificate_is_known_by_its_contents() {
        let pem = pem();
        let certificate = Certificate::of_pem(&pem).unwrap();
        let again = Certificate::of_pem(&format!("A comment.\n{}", pem.replace('\n', "\r\n"))).unwrap();
        assert_eq!((certificate.fingerprint, &certificate.name), (again.fingerprint, &again.name));
        assert_eq!((certificate.fingerprint.to_string().len(), certificate.name.len()), (64, 40));
        let other = Certificate::of_pem(&self::pem()).unwrap();
        assert_ne!(certificate.fingerprint, other.fingerprint);
    }

    #[test]
    fn what_is_not_one_certificate_is_refused_in_words() {
        let pem = pem();
        for (text, word) in [
            (String::new(), "exactly one"),
            ("words".to_owned(), "exactly one"),
            (format!("{pem}{pem}"), "exactly one"),
            ("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".to_owned(), "version 3"),
            ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n".to_owned(), "PEM form"),
        ] {
            let error = Certificate::of_pem(&text).unwrap_err().to_string();
            assert!(error.contains(word), "{text:?}: {error}");
        }
    }
}
