//! What the system knows of this process, under the names that all programs use, and which version it is: read when it is
//! asked for. Linux only; elsewhere the process is not told.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::shown::Kind;

/// Ticks a second in `/proc`, on every architecture that we build for (`USER_HZ`).
const TICKS: f64 = 100.0;

/// The version.
#[derive(Debug)]
pub(super) struct Build;

impl Build {
    const INFO: Kind = Kind::gauge("build_info", &["version"], "1; the version is a label");
    pub(super) const SHOWS: &[Kind] = &[Self::INFO];
}

impl Collector for Build {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        Self::INFO.show(&mut out)?.gauge(&[("version", env!("CARGO_PKG_VERSION"))], 1.0)
    }
}

/// The process.
#[derive(Debug)]
pub(super) struct Process;

impl Process {
    const START: Kind =
        Kind::gauge("process_start_time_seconds", &[], "When the process began, as seconds since 1970");
    const MEMORY: Kind = Kind::gauge("process_resident_memory_bytes", &[], "Memory that the process takes");
    const OPEN: Kind = Kind::gauge("process_open_fds", &[], "Files and sockets that it has open");
    const MOST: Kind = Kind::gauge("process_max_fds", &[], "Files and sockets that it may open");
    const CPU: Kind = Kind::counter("process_cpu_seconds", &[], "Time of processors that it has taken");
    pub(super) const SHOWS: &[Kind] = &[Self::START, Self::MEMORY, Self::OPEN, Self::MOST, Self::CPU];
}

impl Collector for Process {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut out;
        let mut gauge = |kind: &Kind, value: Option<f64>| match value {
            Some(value) => kind.show(out)?.gauge(&[], value),
            None => Ok(()),
        };
        let read = |file| fs::read_to_string(file).unwrap_or_default();
        let ticks = Ticks::of(&read("/proc/self/stat"));
        let booted = number_after(&read("/proc/stat"), "btime ");
        let start = ticks.as_ref().zip(booted).map(|(ticks, booted)| booted + ticks.start / TICKS);
        gauge(&Self::START, start)?;
        let memory = number_after(&read("/proc/self/status"), "VmRSS:");
        gauge(&Self::MEMORY, memory.map(|kilobytes| kilobytes * 1024.0))?;
        gauge(&Self::OPEN, open_files())?;
        let most = rlimit::Resource::NOFILE.get_soft().ok();
        gauge(&Self::MOST, most.map(|most| most as f64))?;
        let Some(ticks) = ticks else { return Ok(()) };
        Self::CPU.show(out)?.seconds(ticks.cpu / TICKS)
    }
}

/// How many files are open. Newer kernels tell at once; on older ones they are listed.
fn open_files() -> Option<f64> {
    const FILES: &str = "/proc/self/fd";
    match fs::metadata(FILES).ok()?.len() {
        0 => Some(fs::read_dir(FILES).ok()?.count() as f64),
        known => Some(known as f64),
    }
}

/// The number behind a word that begins a line.
fn number_after(text: &str, word: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(word))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// What `/proc/self/stat` says in ticks.
#[derive(Debug, PartialEq)]
struct Ticks {
    /// In programs and in the kernel together.
    cpu: f64,
    /// When it began, after the boot.
    start: f64,
}

impl Ticks {
    fn of(stat: &str) -> Option<Self> {
        // The second field is the name of the program, which may hold anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self { cpu: field(14)? + field(15)?, start: field(22)? })
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn what_the_kernel_says_is_understood() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 9 0 0 0 250 50 0 0 20 0 9 0 12345 1 2";
        assert_eq!(Ticks::of(stat), Some(Ticks { cpu: 300.0, start: 12345.0 }));
        assert_eq!(Ticks::of("7 (a) S 1"), None);
        assert_eq!(number_after("VmPeak:\t 9 kB\nVmRSS:\t   12 kB\n", "VmRSS:"), Some(12.0));
        assert_eq!(number_after("", "VmRSS:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_told() {
        let (mut registry, mut text) = (Registry::default(), String::new());
        registry.register_collector(Box::new(Process));
        encode(&mut text, &registry).unwrap();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
            line.rsplit_once(' ').unwrap().1.parse().unwrap()
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - value("process_start_time_seconds");
        assert!((-2.0..86_400.0).contains(&age), "{age}");
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") <= value("process_max_fds"));
        assert!(value("process_cpu_seconds_total") >= 0.0);
    }
}
