//! Processes of a contender: started on given CPUs, in a folder of their own, ended with it.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::machine::{self, Cpu};

/// Time until a server accepts connections.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running contender.
#[derive(Debug)]
pub(crate) struct Server {
    processes: Vec<Child>,
    /// Where events are published.
    pub(crate) publish_port: u16,
    /// Where clients listen.
    pub(crate) listen_port: u16,
    /// Its files; removed at the end.
    folder: TempDir,
}

impl Server {
    /// CPU time of all its processes.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        self.processes.iter().try_fold(Cpu::default(), |sum, process| Ok(sum + Cpu::of(process.id())?))
    }

    /// Memory of all its processes, in KiB.
    pub(crate) fn pss(&self) -> Result<u64> {
        self.processes.iter().try_fold(0, |sum, process| Ok(sum + machine::pss(process.id())?))
    }

    /// Asks it to end in order, and reads one of its files after that.
    pub(crate) fn stop(mut self, file: &str) -> Result<String> {
        for process in &mut self.processes {
            if let Some(id) = Pid::from_raw(process.id() as i32) {
                kill_process(id, Signal::TERM)?;
            }
            process.wait()?;
        }
        let path = self.folder.path().join(file);
        std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            // It may have ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Starts the processes of one contender.
#[derive(Debug)]
pub(crate) struct Starter {
    cpus: String,
    folder: TempDir,
    processes: Vec<Child>,
}

impl Starter {
    /// A folder for it, and the CPUs that it may use, as `taskset` takes them.
    pub(crate) fn new(cpus: &str) -> Result<Self> {
        // Beside the build and not in /tmp, which may be kept in memory: journals are written there.
        let target = crate::home().join("../target");
        let folder = tempfile::Builder::new().prefix("run-").tempdir_in(target)?;
        Ok(Self { cpus: cpus.to_owned(), folder, processes: Vec::new() })
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file into its folder.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(std::fs::write(self.folder().join(name), text)?)
    }

    /// Starts a program and waits until it accepts connections on a port.
    pub(crate) fn spawn(&mut self, program: &str, args: &[&str], wait_for: u16) -> Result<()> {
        let mut command = Command::new("setpriv");
        // Nothing is left behind when this program is killed.
        command.args(["--pdeathsig", "KILL", "taskset", "-c", &self.cpus, program]).args(args);
        let log = self.folder().join(format!("{}.log", self.processes.len()));
        let output = File::create(&log)?;
        command.current_dir(self.folder()).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        self.processes.push(command.spawn().with_context(|| format!("failed to start {program}"))?);
        let begun = Instant::now();
        while wait_for != 0 && TcpStream::connect((Ipv4Addr::LOCALHOST, wait_for)).is_err() {
            let ended = self.processes.last_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || begun.elapsed() > PATIENCE {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("{program} does not listen on port {wait_for}; it says:\n{said}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Starts Mosquitto with these lines of configuration.
    pub(crate) fn mosquitto(&mut self, lines: &str, wait_for: u16) -> Result<()> {
        let common = "allow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\n\
                      max_inflight_messages 0\nlog_type error\npersistence false\nuser root\n";
        self.write("mosquitto.conf", &format!("{common}{lines}"))?;
        self.spawn(&service("mosquitto"), &["-c", "mosquitto.conf"], wait_for)
    }

    /// Starts the bare loop.
    pub(crate) fn floor(mut self, mode: &str) -> Result<Server> {
        let (publish_port, listen_port) = (free_port()?, free_port()?);
        let program = std::env::current_exe()?;
        let program = program.to_string_lossy().into_owned();
        let ports = [publish_port.to_string(), listen_port.to_string()];
        // It must not be asked by a connection whether it is there: it has one publisher and counts its clients.
        self.spawn(&program, &["floor", mode, &ports[0], &ports[1]], 0)?;
        let begun = Instant::now();
        while TcpListener::bind((Ipv4Addr::LOCALHOST, listen_port)).is_ok() {
            anyhow::ensure!(begun.elapsed() < PATIENCE, "the floor does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(self.done(publish_port, listen_port))
    }

    /// Everything is started.
    pub(crate) fn done(self, publish_port: u16, listen_port: u16) -> Server {
        Server { processes: self.processes, publish_port, listen_port, folder: self.folder }
    }
}

/// A program that Debian keeps where only root looks.
pub(crate) fn service(name: &str) -> String {
    let path = format!("/usr/sbin/{name}");
    if Path::new(&path).exists() { path } else { name.to_owned() }
}

/// A port that nobody has at this moment.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
