//! What the machine is and what its processes use: CPU time, memory, pinning.

use std::fs;

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_setaffinity};

/// CPU time of a server.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    /// All of it, in nanoseconds.
    pub(crate) total: u64,
    /// The part that the kernel counts as user time, in clock ticks; only good for its share.
    pub(crate) user: u64,
    /// The same for system time.
    pub(crate) system: u64,
}

impl std::ops::Sub for Cpu {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            total: self.total.saturating_sub(before.total),
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
        }
    }
}

impl std::ops::Add for Cpu {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            total: self.total + other.total,
            user: self.user + other.user,
            system: self.system + other.system,
        }
    }
}

impl Cpu {
    /// What a process and its threads have used. Threads that have ended are not in it.
    pub(crate) fn of(process: u32) -> Result<Self> {
        let mut total = 0;
        for thread in fs::read_dir(format!("/proc/{process}/task"))? {
            // A thread may end between being listed and being looked at.
            let Ok(line) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            total += line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let field = |n: usize| fields.get(n).and_then(|f| f.parse().ok()).unwrap_or(0);
        Ok(Self { total, user: field(11), system: field(12) })
    }
}

/// Memory of a process that is its own, with its share of what it shares, in KiB.
pub(crate) fn pss(process: u32) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).context("no Pss in smaps_rollup")?;
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).context("Pss is no number")
}

/// Pins this process to a CPU.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).context("failed to pin to a CPU; the benchmarks need two")
}

/// One line that names the machine.
pub(crate) fn describe() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(':').nth(1)).map_or("unknown CPU", str::trim);
    let cpus = info.lines().filter(|line| line.starts_with("processor")).count();
    let memory = read("/proc/meminfo");
    let memory = memory.lines().next().and_then(|line| line.split_whitespace().nth(1));
    let memory = memory.and_then(|kib| kib.parse::<f64>().ok()).map_or(0.0, |kib| kib / 1048576.0);
    let shared = if info.contains("hypervisor") { ", a virtual machine" } else { "" };
    format!(
        "{model}, {cpus} cores{shared}, {memory:.0} GiB, Linux {}, {} congestion control",
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/sys/net/ipv4/tcp_congestion_control").trim(),
    )
}
