//! A real Mosquitto on a port and in a folder of its own.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The longest that a start may take.
const LIMIT: Duration = Duration::from_secs(20);
/// Where it is when it is not on the path: service programs often are not.
const PLACES: &[&str] =
    &["mosquitto", "/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/opt/homebrew/sbin/mosquitto"];

/// Killed on drop.
pub(crate) struct Mosquitto {
    folder: TempDir,
    address: SocketAddr,
    process: Option<Child>,
}

impl Mosquitto {
    /// Starts one that takes anybody; `settings` are further lines of its configuration.
    pub(crate) fn start(settings: &str) -> Self {
        let mut broker = Self::prepare(settings);
        broker.run();
        broker
    }

    /// Makes one that does not run yet.
    pub(crate) fn prepare(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        // Started by root it would give up its rights, and could not write into the folder.
        let configuration = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\nuser root\npersistence_location {}/\n{settings}\n",
            address.port(),
            folder.path().display()
        );
        std::fs::write(folder.path().join("mosquitto.conf"), configuration).unwrap();
        Self { folder, address, process: None }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts it (again), and waits until it listens: it says so, since another program may have taken the port.
    pub(crate) fn run(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let began = Instant::now();
        let mut process = self.spawn();
        while !self.log().contains(" running") || TcpStream::connect(self.address).is_err() {
            if let Some(status) = process.try_wait().unwrap() {
                panic!("mosquitto ended with {status}: {}", self.log());
            }
            assert!(began.elapsed() < LIMIT, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.process = Some(process);
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn spawn(&self) -> Child {
        for place in PLACES {
            let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
            let spawned = Command::new(place)
                .arg("-c")
                .arg(self.folder.path().join("mosquitto.conf"))
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn();
            match spawned {
                Ok(process) => return process,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => panic!("{place}: {error}"),
            }
        }
        panic!(
            "mosquitto is not installed; it is needed as a real external broker: \
             'apt-get install mosquitto' (Debian, Ubuntu), 'brew install mosquitto' (macOS), or run scripts/test"
        );
    }

    /// Makes it write its file, and waits until that is done.
    pub(crate) async fn save(&self) {
        let file = self.folder.path().join("mosquitto.db");
        let inode = || std::fs::metadata(&file).ok().map(|file| file.ino());
        let before = inode();
        let process = self.process.as_ref().expect("it runs").id();
        let sent = Command::new("kill").args(["-USR1", &process.to_string()]).status().unwrap();
        assert!(sent.success());
        let began = Instant::now();
        // It writes a new file and renames it.
        while inode() == before {
            assert!(began.elapsed() < LIMIT, "mosquitto does not save");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.end("KILL");
    }

    /// Ends it with a signal, and waits for the end.
    pub(crate) fn end(&mut self, signal: &str) {
        if let Some(mut process) = self.process.take() {
            let sent = Command::new("kill").args(["-s", signal, &process.id().to_string()]).status();
            assert!(sent.unwrap().success() || process.try_wait().unwrap().is_some());
            process.wait().unwrap();
        }
    }

    /// Starts it again if it has crashed by itself, as a service manager would. True if so.
    pub(crate) fn revive(&mut self) -> bool {
        let Some(status) = self.process.as_mut().and_then(|process| process.try_wait().unwrap()) else {
            return false;
        };
        println!("mosquitto ended by itself with {status}; it is started again");
        self.process = None;
        self.run();
        true
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("mosquitto's log: {}", self.log());
        }
        self.kill();
    }
}
