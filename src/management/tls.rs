//! The certificate of the gRPC port: made by a CA of our own in `data_dir/tls/`, unless one is given.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::database;
use crate::identity::secret::write_private;

/// How long a certificate that we make is valid. Public clients take no longer ones.
const LIFE: Duration = Duration::from_secs(397 * 24 * 3600);
/// The same of the CA.
const CA_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// How much of its life a certificate has left when it is made anew at the start.
const RENEW: Duration = Duration::from_secs(30 * 24 * 3600);
/// How far clocks of clients may be behind.
const SKEW: Duration = Duration::from_secs(24 * 3600);

/// A certificate and its key, both as PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, with those that lead to its CA.
    pub certificate: String,
    /// The key.
    pub key: String,
}

fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

/// The certificate in these files.
pub fn read(certificate: &Path, key: &Path) -> io::Result<Identity> {
    let text = |file: &Path| {
        fs::read_to_string(file).map_err(|error| other(format_args!("{}: {error}", file.display())))
    };
    Ok(Identity { certificate: text(certificate)?, key: text(key)? })
}

/// A certificate for these names and addresses, by the CA in `folder`. Both are made when there are none, and the
/// certificate anew when it is old or for others. The CA's own certificate is `ca.pem`, for clients.
pub fn own(folder: &Path, names: &[String], addresses: &[IpAddr]) -> io::Result<Identity> {
    database::create_private(folder)?;
    let file = |name: &str| folder.join(name);
    let names: Vec<String> =
        names.iter().cloned().chain(addresses.iter().map(|address| address.to_string())).collect();
    let wanted = names.join("\n");
    let made = fs::metadata(file("server.pem")).and_then(|meta| meta.modified());
    let age = made.ok().and_then(|made| SystemTime::now().duration_since(made).ok());
    let is_fresh = age.is_some_and(|age| age + RENEW < LIFE);
    if is_fresh && fs::read_to_string(file("server.names")).is_ok_and(|names| names == wanted) {
        return read(&file("server.pem"), &file("server.key"));
    }
    let ca = ca(&file("ca.pem"), &file("ca.key"))?;
    let key = KeyPair::generate().map_err(other)?;
    let mut params = CertificateParams::new(names).map_err(other)?;
    params.distinguished_name.push(DnType::CommonName, "Triggercast");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = SystemTime::now();
    (params.not_before, params.not_after) = ((now - SKEW).into(), (now + LIFE).into());
    let certificate = params.signed_by(&key, &ca).map_err(other)?;
    let identity = Identity { certificate: certificate.pem(), key: key.serialize_pem() };
    // Until all are there again there is none.
    let _ = fs::remove_file(file("server.pem"));
    write_private(&file("server.key"), &identity.key)?;
    fs::write(file("server.names"), wanted)?;
    fs::write(file("server.pem"), &identity.certificate)?;
    Ok(identity)
}

fn ca(certificate: &Path, key: &Path) -> io::Result<Issuer<'static, KeyPair>> {
    // A key that is there and cannot be read is not replaced: clients trust its certificate.
    let text = |file: &Path| match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).map_err(|error| other(format_args!("{}: {error}", file.display()))),
    };
    if let (Some(certificate), Some(key)) = (text(certificate)?, text(key)?) {
        let key = KeyPair::from_pem(&key).map_err(other)?;
        return Issuer::from_ca_cert_pem(&certificate, key).map_err(other);
    }
    let pair = KeyPair::generate().map_err(other)?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "Triggercast CA");
    let now = SystemTime::now();
    (params.not_before, params.not_after) = ((now - SKEW).into(), (now + CA_LIFE).into());
    let signed = params.self_signed(&pair).map_err(other)?;
    write_private(key, &pair.serialize_pem())?;
    fs::write(certificate, signed.pem())?;
    Ok(Issuer::new(params, pair))
}

/// Where the certificate of the CA is, for clients on this machine.
pub fn ca_file(data_dir: &Path) -> PathBuf {
    data_dir.join("tls/ca.pem")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_kept_until_it_is_for_others() {
        let folder = tempfile::tempdir().unwrap();
        let names = |name: &str| vec![name.to_owned()];
        let first = own(folder.path(), &names("localhost"), &["127.0.0.1".parse().unwrap()]).unwrap();
        let again = own(folder.path(), &names("localhost"), &["127.0.0.1".parse().unwrap()]).unwrap();
        assert_eq!(first.certificate, again.certificate);
        let ca = fs::read_to_string(folder.path().join("ca.pem")).unwrap();
        let other = own(folder.path(), &names("example.org"), &[]).unwrap();
        assert_ne!(first.certificate, other.certificate);
        assert_eq!(ca, fs::read_to_string(folder.path().join("ca.pem")).unwrap());
    }
}
