//! How much memory the processes of a server may have.
//!
//! The kernel holds each of them to the bound: what it asks for beyond fails. What they take together is looked at every
//! second, and the end of them all where it is more. What merely reserves addresses, as Node and Java do, counts for
//! nothing.

use rustix::process::Pid;
use std::io;

/// Bounds the data of a process and of each that it starts from now on.
#[cfg(target_os = "linux")]
pub(super) fn bound(pid: Pid, most: Option<u64>) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, prlimit};
    if most.is_some() {
        prlimit(Some(pid), Resource::Data, Rlimit { current: most, maximum: most })?;
    }
    Ok(())
}

/// `ChildSpec::new` has refused a bound.
#[cfg(not(target_os = "linux"))]
pub(super) fn bound(_: Pid, _: Option<u64>) -> io::Result<()> {
    Ok(())
}

/// Waits until a process and what it started take more than `most` together, and says how much that is.
pub(super) async fn exceeded(leader: Pid, most: Option<u64>) -> u64 {
    #[cfg(target_os = "linux")]
    if let Some(most) = most {
        let mut looks = tokio::time::interval(linux::EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let used = linux::used(leader.as_raw_nonzero().get());
            if used > most {
                return used;
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (leader, most);
    std::future::pending().await
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{fs, path::PathBuf, time::Duration};

    /// How often it is looked.
    pub(super) const EVERY: Duration = Duration::from_secs(1);
    /// Processes of one server that are counted. Those beyond are bounded each by itself.
    const COUNTED: usize = 4096;

    /// The memory of a process and of its descendants that is theirs alone, in bytes.
    pub(super) fn used(leader: i32) -> u64 {
        let mut used: u64 = 0;
        let mut found = vec![leader];
        let mut next = 0;
        while let Some(&pid) = found.get(next) {
            next += 1;
            let folder = PathBuf::from(format!("/proc/{pid}"));
            // One that has ended meanwhile takes nothing.
            used = used.saturating_add(fs::read_to_string(folder.join("status")).map_or(0, |status| own(&status)));
            let threads = fs::read_dir(folder.join("task")).into_iter().flatten().flatten();
            for thread in threads {
                let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
                found.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
            }
            found.truncate(COUNTED);
        }
        used
    }

    /// What stands in `/proc/PID/status` of memory that is backed by no file.
    fn own(status: &str) -> u64 {
        let kilobytes = |line: &str| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok();
        let lines = status.lines().filter(|line| line.starts_with("RssAnon:") || line.starts_with("RssShmem:"));
        lines.filter_map(kilobytes).sum::<u64>().saturating_mul(1024)
    }

    #[cfg(test)]
    #[test]
    fn the_memory_of_a_process_is_read() {
        let status = "Name:\tsh\nVmData:\t 999 kB\nRssAnon:\t     100 kB\nRssFile:\t 50 kB\nRssShmem:\t  4 kB\n";
        assert_eq!(own(status), 104 * 1024);
        assert!(used(i32::try_from(std::process::id()).unwrap()) > 1024);
        assert_eq!(used(i32::MAX), 0);
    }
}
