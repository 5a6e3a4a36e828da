//! Certificates made by a CA of our own, in `data_dir/tls/`, for ports that are given none.

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
/// How much of its life a certificate has left when it is made anew.
const RENEW: Duration = Duration::from_secs(30 * 24 * 3600);
/// How far clocks of clients may be behind.
const SKEW: Duration = Duration::from_secs(24 * 3600);

/// What a certificate is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Host names.
    pub hosts: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
}

impl Names {
    fn all(&self) -> Vec<String> {
        let addresses = self.addresses.iter().map(ToString::to_string);
        self.hosts.iter().cloned().chain(addresses).collect()
    }
}

fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

/// The certificate's file and that of its key.
pub(super) fn files(folder: &Path) -> [PathBuf; 2] {
    [folder.join("server.pem"), folder.join("server.key")]
}

/// Whether a certificate that was made then is made anew now.
pub(super) fn is_old(made: SystemTime) -> bool {
    // One from the future is as new as can be.
    SystemTime::now().duration_since(made).is_ok_and(|age| age + RENEW >= LIFE)
}

/// Makes a certificate for these names and addresses, by the CA in `folder`, unless there is one that is not old. The CA
/// is made when there is none. Its own certificate is `ca.pem`, for clients.
pub(super) fn make(folder: &Path, names: &Names) -> io::Result<()> {
    database::create_private(folder)?;
    let [certificate_file, key_file] = files(folder);
    let names_file = folder.join("server.names");
    let names = names.all();
    let wanted = names.join("\n");
    let made = fs::metadata(&certificate_file).and_then(|meta| meta.modified());
    if made.is_ok_and(|made| !is_old(made))
        && key_file.exists()
        && fs::read_to_string(&names_file).is_ok_and(|names| names == wanted)
    {
        return Ok(());
    }
    let ca = ca(&folder.join("ca.pem"), &folder.join("ca.key"))?;
    let key = KeyPair::generate().map_err(other)?;
    let mut params = CertificateParams::new(names).map_err(other)?;
    params.distinguished_name.push(DnType::CommonName, "Triggercast");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = SystemTime::now();
    (params.not_before, params.not_after) = ((now - SKEW).into(), (now + LIFE).into());
    let certificate = params.signed_by(&key, &ca).map_err(other)?;
    // Until all are there again there is none.
    let _ = fs::remove_file(&certificate_file);
    write_private(&key_file, &key.serialize_pem())?;
    fs::write(names_file, wanted)?;
    fs::write(certificate_file, certificate.pem())
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
    fn a_certificate_is_kept_until_it_is_for_others_or_old() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let names = |host: &str| Names {
            hosts: vec![host.to_owned()],
            addresses: vec!["127.0.0.1".parse().unwrap()],
        };
        let made = |host: &str| {
            make(folder, &names(host)).unwrap();
            fs::read_to_string(folder.join("server.pem")).unwrap()
        };
        let first = made("localhost");
        assert_eq!(made("localhost"), first);
        let ca = fs::read_to_string(folder.join("ca.pem")).unwrap();
        let other = made("example.org");
        assert_ne!(other, first);
        let file = fs::File::options().write(true).open(folder.join("server.pem")).unwrap();
        file.set_modified(SystemTime::now() - LIFE + RENEW).unwrap();
        assert_ne!(made("example.org"), other);
        assert_eq!(ca, fs::read_to_string(folder.join("ca.pem")).unwrap());
    }
}
