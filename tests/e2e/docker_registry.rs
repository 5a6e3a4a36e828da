//! A real CNCF Distribution, images that are made for it, and skopeo.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::run;

/// What its notifications show.
pub const TOKEN: &str = "Images-test-1";
/// The login of one that wants one, and how it keeps it: made by `htpasswd -Bbn`.
pub const LOGIN: (&str, &str) = ("me", "Registry-test-1");
const HTPASSWD: &str = "me:$2y$05$MmIwo0VadNJMwB7rYdePE.2lyq5BNnCTXYvTTwtWzqc5lYf0BXk5O\n";

/// A port that was free a moment ago, below those that systems give to outgoing connections: who waits for such a port by
/// connecting to it may meet itself.
pub fn low_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Far from that of another process.
    let start = (std::process::id().wrapping_mul(7919) % 12_000) as u16;
    loop {
        let port = 15_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A registry that notifies a webhook, and keeps what it holds over restarts.
pub struct DockerRegistry {
    folder: tempfile::TempDir,
    pub port: u16,
    process: Option<Child>,
}

impl DockerRegistry {
    /// Starts one that notifies this address.
    pub fn start(webhook: SocketAddr) -> Self {
        Self::start_with(webhook, |_| {})
    }

    /// Starts one that speaks TLS and wants a login.
    pub fn start_guarded(webhook: SocketAddr) -> Self {
        Self::start_with(webhook, |settings| {
            let folder = settings["folder"].as_str().unwrap().to_owned();
            let (key, certificate) = (format!("{folder}/key.pem"), format!("{folder}/certificate.pem"));
            let names = ["-subj", "/CN=registry", "-addext", "subjectAltName=IP:127.0.0.1", "-addext"];
            run(Command::new("openssl")
                .args([
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:prime256v1",
                    "-nodes",
                    "-days",
                    "2",
                ])
                .args(["-keyout", &key, "-out", &certificate])
                .args(names)
                .arg("basicConstraints=critical,CA:FALSE"));
            std::fs::write(format!("{folder}/htpasswd"), HTPASSWD).unwrap();
            settings["http"]["tls"] = json!({ "certificate": certificate, "key": key });
            settings["auth"] = json!({ "htpasswd": { "realm": "r", "path": format!("{folder}/htpasswd") } });
        })
    }

    fn start_with(webhook: SocketAddr, change: impl FnOnce(&mut Value)) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), low_port());
        let mut configuration = json!({
            "folder": folder.path(),
            "version": "0.1",
            "log": { "level": "info" },
            "storage": {
                "filesystem": { "rootdirectory": folder.path().join("storage") },
                "delete": { "enabled": true },
            },
            "http": { "addr": format!("127.0.0.1:{port}"), "secret": "s" },
            "notifications": { "endpoints": [{
                "name": "triggercast",
                "url": format!("http://{webhook}/container-registry/v1/registries/images/notifications"),
                "headers": { "Authorization": [format!("Bearer {TOKEN}")] },
                "timeout": "5s",
                "threshold": 3,
                "backoff": "200ms",
            }] },
        });
        change(&mut configuration);
        configuration.as_object_mut().unwrap().remove("folder");
        // JSON is YAML.
        std::fs::write(folder.path().join("config.yml"), configuration.to_string()).unwrap();
        let mut registry = Self { folder, port, process: None };
        registry.run();
        registry
    }

    /// Starts it again, and waits until it listens.
    pub fn run(&mut self) {
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(self.folder.path().join("config.yml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn();
        let mut child =
            child.unwrap_or_else(|error| panic!("docker-registry: {error}; scripts/test installs it"));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let listens = lines.by_ref().find(|line| line.contains("listening on"));
        assert!(listens.is_some(), "docker-registry ended: {:?}", child.wait());
        std::thread::spawn(move || lines.for_each(drop));
        self.process = Some(child);
    }

    /// Ends it at once; what it had not sent yet is lost.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The certificate of one that speaks TLS.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    /// An image in it, as skopeo names it.
    pub fn image(&self, name: &str) -> String {
        format!("docker://127.0.0.1:{}/{name}", self.port)
    }

    /// Copies an image of a layout to a name in the registry.
    pub fn push(&self, layout: &Layout, image: &str, name: &str) {
        let from = format!("oci:{}:{image}", layout.folder.path().display());
        let copy = ["--insecure-policy", "copy", "-q", "--all", "--dest-tls-verify=false"];
        skopeo(&copy, &[&from, &self.image(name)]);
    }

    /// Gives an image of the registry another name.
    pub fn tag(&self, name: &str, other: &str) {
        let copy = ["--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"];
        skopeo(&copy, &[&self.image(name), &self.image(other)]);
    }

    /// Uploads a blob by the HTTP API.
    pub fn put_blob(&self, repository: &str, digest: &str, bytes: &[u8]) {
        let (status, head) = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), "", &[]);
        assert_eq!(status, 202, "{head}");
        let place = head.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap();
        let (_, place) = place.split_once(&format!(":{}", self.port)).unwrap();
        let (status, head) =
            self.ask("PUT", &format!("{place}&digest={digest}"), "application/octet-stream", bytes);
        assert_eq!(status, 201, "{head}");
    }

    /// Pushes a manifest by the HTTP API.
    pub fn put_manifest(&self, repository: &str, tag: &str, bytes: &[u8]) {
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let (status, head) = self.ask("PUT", &format!("/v2/{repository}/manifests/{tag}"), media_type, bytes);
        assert_eq!(status, 201, "{head}");
    }

    /// What a tag names, as the registry says.
    pub fn digest(&self, repository: &str, tag: &str) -> String {
        let (status, head) = self.ask("HEAD", &format!("/v2/{repository}/manifests/{tag}"), "", &[]);
        assert_eq!(status, 200, "{head}");
        head.lines().find_map(|line| line.strip_prefix("Docker-Content-Digest: ")).unwrap().trim().to_owned()
    }

    fn ask(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> (u16, String) {
        let mut io = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(
            io,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nContent-Type: {media_type}\r\n\
             Accept: application/vnd.oci.image.manifest.v1+json\r\n\
             Content-Length: {}\r\n\r\n",
            self.port,
            body.len()
        )
        .unwrap();
        io.write_all(body).unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).unwrap();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    /// Copies an image of a layout to one that wants a login.
    pub fn push_guarded(&self, layout: &Layout, image: &str, name: &str) {
        let from = format!("oci:{}:{image}", layout.folder.path().display());
        let login = format!("{}:{}", LOGIN.0, LOGIN.1);
        let copy = ["--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "--dest-creds", &login];
        skopeo(&copy, &[&from, &self.image(name)]);
    }

    /// Deletes the image behind a name, with all its tags.
    pub fn delete(&self, name: &str) {
        skopeo(&["--insecure-policy", "delete", "--tls-verify=false"], &[&self.image(name)]);
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.kill();
    }
}

fn skopeo(words: &[&str], images: &[&str]) {
    run(Command::new("skopeo").args(words).args(images));
}

/// Images in a folder, in the OCI image layout.
pub struct Layout {
    folder: tempfile::TempDir,
    index: Vec<Value>,
}

impl Layout {
    /// An empty one.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        std::fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { folder, index: Vec::new() }
    }

    /// Adds an image of one platform; its digest. Another content makes another image.
    pub fn image(&mut self, name: &str, content: &str) -> String {
        let manifest = self.manifest(content, "amd64", "application/vnd.oci.image.config.v1+json");
        self.name(name, manifest)
    }

    /// Adds an image of two platforms; the digest of its index.
    pub fn multi(&mut self, name: &str, content: &str) -> String {
        let config = "application/vnd.oci.image.config.v1+json";
        let children: Vec<_> = ["amd64", "arm64"]
            .iter()
            .map(|platform| {
                let mut child = self.manifest(content, platform, config);
                child["platform"] = json!({ "os": "linux", "architecture": platform });
                child
            })
            .collect();
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = self
            .blob(media_type, &json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": children }));
        self.name(name, index)
    }

    /// Adds a manifest with a configuration of this media type; its bytes and its digest.
    pub fn artifact(&mut self, content: &str, config: &str) -> (Vec<u8>, String) {
        let manifest = self.manifest(content, "amd64", config);
        let digest = manifest["digest"].as_str().unwrap().to_owned();
        (self.read(&digest), digest)
    }

    /// A blob's bytes.
    pub fn read(&self, digest: &str) -> Vec<u8> {
        std::fs::read(self.path(digest)).unwrap()
    }

    fn manifest(&mut self, content: &str, platform: &str, config: &str) -> Value {
        let body = json!({ "os": "linux", "architecture": platform, "content": content,
            "rootfs": { "type": "layers", "diff_ids": [] } });
        let config = self.blob(config, &body);
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [] });
        self.blob(media_type, &manifest)
    }

    fn blob(&self, media_type: &str, body: &Value) -> Value {
        let bytes = body.to_string();
        let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let digest = format!("sha256:{digest}");
        std::fs::write(self.path(&digest), &bytes).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    fn path(&self, digest: &str) -> PathBuf {
        Path::new(self.folder.path()).join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
    }

    fn name(&mut self, name: &str, mut manifest: Value) -> String {
        manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        let digest = manifest["digest"].as_str().unwrap().to_owned();
        self.index.push(manifest);
        let index = json!({ "schemaVersion": 2, "manifests": self.index });
        std::fs::write(self.folder.path().join("index.json"), index.to_string()).unwrap();
        digest
    }
}
