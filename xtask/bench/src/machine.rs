//! What a process costs, from /proc, and on which core it runs.

use anyhow::{Context, Result};
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_setaffinity},
};
use std::{collections::HashMap, ffi::OsString, fs, path::Path};

/// CPU time of a process or a thread so far, in microseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spent {
    /// What it calls itself.
    pub(crate) name: String,
    /// In its own code.
    pub(crate) user: f64,
    /// In the kernel on its behalf.
    pub(crate) system: f64,
}

/// CPU time of a process so far, user and system, in microseconds.
pub(crate) fn cpu(pid: u32) -> Result<f64> {
    let Spent { user, system, .. } = spent(Path::new(&format!("/proc/{pid}/stat")))?;
    Ok(user + system)
}

/// What each thread of a process has spent so far.
pub(crate) fn threads(pid: u32) -> Result<HashMap<OsString, Spent>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))?.collect::<Result<Vec<_>, _>>()?;
    // A thread may end between the listing and this.
    Ok(tasks.iter().filter_map(|task| Some((task.file_name(), spent(&task.path().join("stat")).ok()?))).collect())
}

fn spent(stat: &Path) -> Result<Spent> {
    let text = fs::read_to_string(stat).with_context(|| format!("{} is gone", stat.display()))?;
    // The name may hold spaces and brackets; the fields after its last bracket do not.
    let (head, fields) = text.rsplit_once(')').context("a stat line")?;
    let (_, name) = head.split_once('(').context("a stat line")?;
    let per_second = f64::from(u32::try_from(rustix::param::clock_ticks_per_second())?);
    let field = |index: usize| fields.split_whitespace().nth(index).and_then(|field| field.parse::<f64>().ok());
    let time = |index: usize| field(index).map(|ticks| ticks / per_second * 1e6);
    Ok(Spent { name: name.to_owned(), user: time(11).context("utime")?, system: time(12).context("stime")? })
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
