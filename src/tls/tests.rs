//! Handshakes and sockets, with rustls' own client on the other end.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream as StdStream};
use std::path::Path;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConnection, RootCertStore, StreamOwned};
use tokio::task::spawn_blocking;

use super::*;
use crate::model::certificate::Fingerprint;

const LIMIT: Duration = Duration::from_secs(10);

pub(crate) type Client = StreamOwned<ClientConnection, StdStream>;

/// A certificate and its key as PEM.
pub(crate) fn pair(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn write(folder: &Path, (certificate, key): &(String, String)) -> Source {
    let source = Source::Files { certificate: folder.join("c.pem"), key: folder.join("k.pem") };
    fs::write(folder.join("c.pem"), certificate).unwrap();
    fs::write(folder.join("k.pem"), key).unwrap();
    source
}

pub(crate) fn certificate(pair: &(String, String)) -> Arc<Certificate> {
    let folder = tempfile::tempdir().unwrap();
    Arc::new(Certificate::load(write(folder.path(), pair)).unwrap())
}

/// Connects and shakes hands; the server's certificate must be this.
pub(crate) fn connect(
    address: SocketAddr,
    trusted: &str,
    own: Option<&(String, String)>,
) -> io::Result<Client> {
    let tcp = StdStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(LIMIT)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            builder
                .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
                .unwrap()
        }
    };
    let tls = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
    let mut client = StreamOwned::new(tls, tcp);
    client.conn.complete_io(&mut client.sock)?;
    Ok(client)
}

/// Both ends of a connection.
async fn both(clients: Clients, own: Option<(String, String)>) -> (Io, Client) {
    let pair = pair("localhost");
    let acceptor = Acceptor::new(certificate(&pair), clients, &[]).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = spawn_blocking(move || connect(address, &pair.0, own.as_ref()).unwrap());
    let io = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
    (io, client.await.unwrap())
}

#[tokio::test]
async fn bytes_go_both_ways_and_the_end_is_seen() {
    let (io, mut client) = both(Clients::Unknown, None).await;
    let bytes: Vec<u8> = (0..500_000_u32).map(|number| number as u8).collect();
    let expected = bytes.clone();
    let client = spawn_blocking(move || {
        client.write_all(b"hello").unwrap();
        let mut read = vec![0; expected.len()];
        client.read_exact(&mut read).unwrap();
        assert!(read == expected);
        // The server says goodbye, so that nobody can cut the end off unseen.
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        client.conn.send_close_notify();
        client.flush().unwrap();
    });
    let mut hello = [0; 5];
    let mut read = 0;
    while read < hello.len() {
        io.readable().await.unwrap();
        match io.try_read(&mut hello[read..5.min(read + 2)]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Less room than there is: the rest makes it readable all the same.
            some => read += some.unwrap(),
        }
    }
    assert_eq!(&hello, b"hello");
    let mut sent = 0;
    while sent < bytes.len() {
        match io.try_write(&bytes[sent..]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => io.writable().await.unwrap(),
            some => sent += some.unwrap(),
        }
    }
    while io.flush().is_err() {
        io.writable().await.unwrap();
    }
    io.shut();
    loop {
        io.readable().await.unwrap();
        match io.try_read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            end => break assert_eq!(end.unwrap(), 0),
        }
    }
    client.await.unwrap();
}

#[tokio::test]
async fn what_is_decrypted_already_is_readable() {
    let (io, mut client) = both(Clients::Unknown, None).await;
    client.write_all(b"0123456789").unwrap();
    for expected in b"0123456789" {
        let mut byte = [0];
        loop {
            tokio::time::timeout(LIMIT, io.readable()).await.unwrap().unwrap();
            match io.try_read(&mut byte) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => break assert_eq!(read.unwrap(), 1),
            }
        }
        assert_eq!(byte[0], *expected);
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_seen_as_with_a_plain_socket() {
    let (io, _client) = both(Clients::Unknown, None).await;
    let bytes = vec![7; 1 << 20];
    let mut taken = 0;
    let full = loop {
        match io.try_write(&bytes) {
            Ok(sent) => {
                assert!(sent <= MAX_UNSENT);
                taken += sent;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    assert_eq!(io.flush().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    // Nothing more is taken while anything waits, so the buffers of the kernel and one of ours are all.
    assert_eq!(io.try_write(b"x").unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert!(taken > MAX_UNSENT);
}

#[tokio::test]
async fn a_socket_goes_on_in_another_runtime() {
    let (io, mut client) = both(Clients::Unknown, None).await;
    client.write_all(b"early").unwrap();
    io.readable().await.unwrap();
    let detached = io.detach().unwrap();
    let read = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let mut io = detached.attach().unwrap();
            let mut bytes = [0; 5];
            tokio::io::AsyncReadExt::read_exact(&mut io, &mut bytes).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut io, b"late").await.unwrap();
            tokio::io::AsyncWriteExt::shutdown(&mut io).await.unwrap();
            bytes
        })
    });
    let mut late = Vec::new();
    let late = spawn_blocking(move || client.read_to_end(&mut late).map(|_| late)).await.unwrap().unwrap();
    assert_eq!((&late[..], &read.join().unwrap()), (&b"late"[..], b"early"));
}

#[tokio::test]
async fn a_certificate_of_a_client_is_known_by_its_fingerprint() {
    let own = pair("press-1");
    let expected = Fingerprint::of_der(&CertificateDer::from_pem_slice(own.0.as_bytes()).unwrap());
    let (io, _client) = both(Clients::Asked, Some(own.clone())).await;
    assert_eq!(io.peer_certificate(), Some(expected));
    let (io, _client) = both(Clients::Asked, None).await;
    assert_eq!(io.peer_certificate(), None);
    let (io, _client) = both(Clients::Unknown, Some(own)).await;
    assert_eq!(io.peer_certificate(), None);
}

/// A signature of another key, as one has that has stolen a certificate only.
#[test]
fn a_certificate_without_its_key_is_refused() {
    use rustls::SignatureScheme;
    use rustls::client::danger::HandshakeSignatureValid;
    use rustls::server::danger::ClientCertVerifier as _;
    let (stolen, _) = pair("press-1");
    let (_, other) = pair("press-2");
    let signer =
        provider().key_provider.load_private_key(PrivateKeyDer::from_pem_slice(other.as_bytes()).unwrap());
    let signer = signer.unwrap().choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
    let signed = signer.sign(b"message").unwrap();
    let mut wire = u16::from(SignatureScheme::ECDSA_NISTP256_SHA256).to_be_bytes().to_vec();
    wire.extend((signed.len() as u16).to_be_bytes());
    wire.extend(signed);
    let der = CertificateDer::from_pem_slice(stolen.as_bytes()).unwrap();
    let signed = rustls::internal::msgs::codec::Codec::read_bytes(&wire).unwrap();
    let verdict: Result<HandshakeSignatureValid, _> =
        AnyClient::new(provider()).verify_tls13_signature(b"message", &der, &signed);
    assert!(verdict.is_err());
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_ended_and_too_many_are_refused() {
    let mut acceptor = Acceptor::new(certificate(&pair("localhost")), Clients::Unknown, &[]).unwrap();
    acceptor.timeout = Duration::from_millis(50);
    for turns in [Turns::new(1, 2), Turns::new(2, 1)] {
        acceptor.turns = Arc::new(turns);
        too_many(&acceptor).await;
    }
}

/// Takes the one turn that there is.
async fn too_many(acceptor: &Acceptor) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = || {
        let client = StdStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        (client, TcpStream::from_std(server).unwrap())
    };
    let ((_silent, first), (_other, second)) = (accepted(), accepted());
    let (first, second) = tokio::join!(acceptor.accept(first), acceptor.accept(second));
    assert_eq!(first.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!(second.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    // A client that speaks no TLS learns so at once, and its turn is free again.
    let (mut plain, third) = accepted();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(acceptor.accept(third).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_new_certificate_is_shown_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (pair("localhost"), pair("localhost"));
    let certificate = Arc::new(Certificate::load(write(folder.path(), &first)).unwrap());
    let acceptor = Acceptor::new(Arc::clone(&certificate), Clients::Unknown, &[]).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shows = async |pem: &str| {
        let pem = pem.to_owned();
        let client = spawn_blocking(move || connect(address, &pem, None).ok());
        let io = acceptor.accept(listener.accept().await.unwrap().0).await;
        (client.await.unwrap(), io)
    };
    let (client, open) = shows(&first.0).await;
    assert!(client.is_some());
    // Only one of two files is new: they do not fit each other.
    let stamp = |file: &str, time: SystemTime| {
        fs::File::options().append(true).open(folder.path().join(file)).unwrap().set_modified(time).unwrap();
    };
    let later = SystemTime::now() + Duration::from_secs(10);
    fs::write(folder.path().join("c.pem"), &second.0).unwrap();
    stamp("c.pem", later);
    certificate.look();
    certificate.look();
    assert!(shows(&first.0).await.0.is_some());
    fs::write(folder.path().join("k.pem"), &second.1).unwrap();
    stamp("k.pem", later);
    certificate.look();
    assert!(shows(&second.0).await.0.is_some() && shows(&first.0).await.0.is_none());
    for bad in ["", "words", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"] {
        fs::write(folder.path().join("c.pem"), bad).unwrap();
        certificate.look();
        certificate.look();
    }
    fs::remove_file(folder.path().join("k.pem")).unwrap();
    certificate.look();
    assert!(shows(&second.0).await.0.is_some());
    // Those who were connected before still are.
    assert!(open.unwrap().try_write(b"x").is_ok());
}

#[test]
fn ports_with_one_source_share_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let names = |host: &str| Names { hosts: vec![host.to_owned()], addresses: vec![] };
    let own = |host: &str| Source::Own { folder: folder.path().join("tls"), names: names(host) };
    let mut watcher = Watcher::default();
    let first = watcher.certificate(own("localhost")).unwrap();
    assert!(Arc::ptr_eq(&first, &watcher.certificate(own("localhost")).unwrap()));
    // Made anew while it runs, when it is old.
    let file = folder.path().join("tls/server.pem");
    let before = fs::read_to_string(&file).unwrap();
    first.look();
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    let made = SystemTime::now() - Duration::from_secs(390 * 24 * 3600);
    fs::File::options().append(true).open(&file).unwrap().set_modified(made).unwrap();
    first.look();
    assert_ne!(fs::read_to_string(&file).unwrap(), before);
}
