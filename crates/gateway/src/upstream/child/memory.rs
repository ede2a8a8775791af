//! How much memory the processes of a server may have.
//!
//! The kernel holds each of them to the bound: what it asks for beyond fails. What all of a process group take together is
//! looked at every second, once for all servers, and the end of them all where it is more. Whose parent has ended is of
//! the group all the same; what leaves the group, as with `setsid`, is bounded by the kernel alone. What merely reserves
//! addresses, as Node and Java do, counts for nothing.

use rustix::process::Pid;
use std::io;

#[cfg(target_os = "linux")]
pub(super) use linux::Looks;

/// Nothing is looked at.
#[cfg(not(target_os = "linux"))]
#[derive(Default)]
pub(super) struct Looks;

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

/// Waits until the processes of a group take more than `most` together, and says how much that is.
pub(super) async fn exceeded(looks: &Looks, group: Pid, most: Option<u64>) -> u64 {
    #[cfg(target_os = "linux")]
    if let Some(most) = most {
        let group = group.as_raw_nonzero().get();
        let _watched = looks.watch(group);
        let mut turns = tokio::time::interval(linux::EVERY);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            let used = looks.used(group).await;
            if used > most {
                return used;
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (looks, group, most);
    std::future::pending().await
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        collections::{HashMap, HashSet},
        fs,
        path::Path,
        sync::{Mutex, MutexGuard, PoisonError},
        time::Duration,
    };
    use tokio::time::Instant;

    /// How often it is looked.
    pub(super) const EVERY: Duration = Duration::from_secs(1);
    /// How old a look may be and serve another server: those that run take turns within a second.
    const FRESH: Duration = Duration::from_millis(900);
    /// Processes of the system that one look sees.
    const SEEN: usize = 65_536;
    /// Processes of all servers that one look counts. Those beyond are bounded each by itself.
    const COUNTED: usize = 16_384;

    /// The looks at what the processes of all servers take.
    #[derive(Default)]
    pub(in super::super) struct Looks {
        groups: Mutex<HashSet<i32>>,
        /// When the last one was, and what it saw.
        last: tokio::sync::Mutex<Option<(Instant, HashMap<i32, u64>)>>,
    }

    impl Looks {
        /// Has a group counted, until what is handed back is dropped.
        pub(super) fn watch(&self, group: i32) -> Watched<'_> {
            self.groups().insert(group);
            Watched { looks: self, group }
        }

        /// What a group took a moment ago, in bytes. One look serves all who ask.
        pub(super) async fn used(&self, group: i32) -> u64 {
            let mut last = self.last.lock().await;
            if last.as_ref().is_none_or(|(at, _)| at.elapsed() > FRESH) {
                let groups = self.groups().clone();
                let seen = tokio::task::spawn_blocking(move || used(&groups)).await.unwrap_or_default();
                *last = Some((Instant::now(), seen));
            }
            last.as_ref().and_then(|(_, seen)| seen.get(&group).copied()).unwrap_or_default()
        }

        fn groups(&self) -> MutexGuard<'_, HashSet<i32>> {
            self.groups.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// A group that is counted.
    pub(super) struct Watched<'a> {
        looks: &'a Looks,
        group: i32,
    }

    impl Drop for Watched<'_> {
        fn drop(&mut self) {
            self.looks.groups().remove(&self.group);
        }
    }

    /// The memory of the processes of each group that is theirs alone, in bytes.
    fn used(groups: &HashSet<i32>) -> HashMap<i32, u64> {
        let mut used: HashMap<i32, u64> = HashMap::new();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten().filter(|entry| {
            entry.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        });
        let members = processes.take(SEEN).filter_map(|entry| {
            let folder = entry.path();
            let group = group_of(&fs::read(folder.join("stat")).ok()?)?;
            groups.contains(&group).then_some((folder, group))
        });
        for (folder, group) in members.take(COUNTED) {
            let sum = used.entry(group).or_default();
            *sum = sum.saturating_add(own_of(&folder));
        }
        used
    }

    /// The process group in `/proc/PID/stat`: the third field after the name, which may hold anything, parentheses too.
    fn group_of(stat: &[u8]) -> Option<i32> {
        let name = stat.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(stat.get(name + 1..)?).ok()?;
        rest.split_ascii_whitespace().nth(2)?.parse().ok()
    }

    fn own_of(folder: &Path) -> u64 {
        // One that has ended meanwhile takes nothing.
        fs::read(folder.join("status")).map_or(0, |status| own(&String::from_utf8_lossy(&status)))
    }

    /// What stands in `/proc/PID/status` of memory that is backed by no file.
    fn own(status: &str) -> u64 {
        let kilobytes = |line: &str| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok();
        let lines = status.lines().filter(|line| line.starts_with("RssAnon:") || line.starts_with("RssShmem:"));
        lines.filter_map(kilobytes).sum::<u64>().saturating_mul(1024)
    }

    #[cfg(test)]
    #[test]
    fn the_memory_of_a_group_is_read() {
        let status = "Name:\tsh\nVmData:\t 999 kB\nRssAnon:\t     100 kB\nRssFile:\t 50 kB\nRssShmem:\t  4 kB\n";
        assert_eq!(own(status), 104 * 1024);
        assert_eq!(group_of(b"7 (a) R 1 2 (\xff) S 1 42 42 0 -1"), Some(42));
        assert_eq!(group_of(b"7 (sh"), None);
        let own = rustix::process::getpgrp().as_raw_nonzero().get();
        let used = used(&HashSet::from([own, i32::MAX]));
        assert!(used.get(&own).is_some_and(|used| *used > 1024), "{used:?}");
        assert_eq!(used.get(&i32::MAX), None);
    }
}
