//! What a process costs, from /proc, and on which core it runs.

use anyhow::{Context, Result};
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_setaffinity},
};
use std::fs;

/// CPU time of a process so far, user and system, in microseconds.
pub(crate) fn cpu(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    // The name before may hold spaces and brackets; the fields after its last bracket do not.
    let (_, fields) = stat.rsplit_once(')').context("a stat line")?;
    let ticks = |index: usize| fields.split_whitespace().nth(index).and_then(|field| field.parse::<f64>().ok());
    let total = ticks(11).context("utime")? + ticks(12).context("stime")?;
    let per_second = u32::try_from(rustix::param::clock_ticks_per_second())?;
    Ok(total / f64::from(per_second) * 1e6)
}

/// Resident memory in MiB.
pub(crate) fn resident(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kilobytes: f64 = line.split_whitespace().next().context("VmRSS")?.parse()?;
    Ok(kilobytes / 1024.0)
}

/// Binds every thread of a process to one core.
pub(crate) fn pin(pid: u32, core: usize) -> Result<()> {
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let name = entry?.file_name();
        if let Some(thread) = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) {
            // A thread may end between the listing and this.
            let _ended = sched_setaffinity(Some(thread), &cores(core));
        }
    }
    Ok(())
}

/// Binds the calling thread to one core.
pub(crate) fn pin_self(core: usize) -> Result<()> {
    Ok(sched_setaffinity(None, &cores(core))?)
}

fn cores(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}
