//! What is given out: built once to watch itself at work, and once by what was seen.
//!
//! A call runs through little of the program, but through all of its length. The compiler that knows which parts those are
//! lays them side by side and leaves the rest out of the caches and, for the most part, out of memory.

use crate::{
    process::{self, program},
    step::Plan,
    world,
};
use anyhow::{Context, Result, bail, ensure};
use std::{
    cmp::Reverse,
    fs,
    path::{Path, PathBuf},
};

/// Where it is.
pub(crate) const BINARY: &str = "guided/durward";

/// Where rustc links with LLD, which can be told in which order functions are to lie.
const LLD: &str = "x86_64-unknown-linux-gnu";

pub(crate) fn run(root: &Path) -> Result<()> {
    let mut plan = Plan::new(root);
    let target = world::target(root);
    let (seen, guide) = (target.join("guided/seen"), target.join("guided/guide.profdata"));
    let host = host(root)?;
    let merger = merger(root, &host)?;
    if seen.exists() {
        fs::remove_dir_all(&seen)?;
    }
    fs::create_dir_all(&seen)?;
    let mut watching = PathBuf::new();
    plan.run("build what watches itself", |root| {
        watching = build(root, &host, &format!("-Cprofile-generate={}", seen.display()))?;
        Ok(())
    })?;
    plan.cargo("build the measuring program", &["build", "--profile", "dist", "--package", "bench"])?;
    plan.run("watch it at work", |root| work(root, &watching))?;
    plan.run("put together what was seen", |_| {
        process::succeed(program(&merger).arg("merge").arg("--output").arg(&guide).arg(&seen))
    })?;
    plan.run("build what is given out", |root| {
        let side_by_side = if host == LLD { side_by_side(&merger, &guide)? } else { String::new() };
        let built = build(root, &host, &format!("-Cprofile-use={}{side_by_side}", guide.display()))?;
        let given = target.join(BINARY);
        fs::copy(&built, &given).with_context(|| format!("cannot write {}", given.display()))?;
        println!("{}", given.display());
        Ok(())
    })
}

/// What tells the linker to lay the functions that ran side by side. They are a third of the program; scattered over it they
/// bring most of it into memory.
fn side_by_side(merger: &Path, guide: &Path) -> Result<String> {
    let shown = process::output(program(merger).args(["show", "--all-functions", "--counts"]).arg(guide))?;
    let (order, ran) = (guide.with_extension("order"), ran(&shown));
    ensure!(
        ran.len() > 1_000,
        "`llvm-profdata show` tells of {} functions that ran: is this how it tells them?",
        ran.len()
    );
    fs::write(&order, ran.join("\n"))?;
    // Many of them became part of others, and are no symbols any more.
    let [order, silence] =
        [format!("--symbol-ordering-file={}", order.display()), "--no-warn-symbol-ordering".to_owned()];
    Ok(format!(" -Clink-arg=-Wl,{order} -Clink-arg=-Wl,{silence}"))
}

/// The functions of a profile, as `llvm-profdata show` has it, of which any part ran; what ran most often comes first.
fn ran(shown: &str) -> Vec<&str> {
    let (mut name, mut counted) = ("", Vec::new());
    for line in shown.lines().map(str::trim) {
        if let Some(counts) = line.strip_prefix("Block counts: [") {
            let most = counts.trim_end_matches(']').split(", ").filter_map(|count| count.parse::<u64>().ok()).max();
            counted.extend(most.filter(|most| *most > 0).map(|most| (Reverse(most), name)));
        } else if let Some(head) = line.strip_suffix(':') {
            // What is private to a unit has its name before.
            name = head.rsplit_once(';').map_or(head, |(_, name)| name);
        }
    }
    counted.sort();
    counted.into_iter().map(|(_, name)| name).collect()
}

/// The triple of this machine. With it on the command line, flags concern no build script.
fn host(root: &Path) -> Result<String> {
    let version = rustc(root, &["-vV"])?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say which machine this is")?.to_owned())
}

fn rustc(root: &Path, arguments: &[&str]) -> Result<String> {
    process::output(program("rustc").current_dir(root).args(arguments))
}

fn build(root: &Path, host: &str, flags: &str) -> Result<PathBuf> {
    let arguments = ["build", "--profile", "dist", "--package", "durward", "--bins", "--target", host];
    // A folder of its own: other builds keep what they have.
    let folder = world::target(root).join("guided");
    process::succeed(process::cargo(root).args(arguments).arg("--target-dir").arg(&folder).env("RUSTFLAGS", flags))?;
    Ok(folder.join(host).join("dist/durward"))
}

/// What the measurements do, and an even mixture with churn: calls, lists and streams of both eras, across the bridges,
/// refusals, processes, sessions that end.
fn work(root: &Path, gateway: &Path) -> Result<()> {
    let bench = world::target(root).join("dist/bench");
    let folder = world::target(root).join("guided/work");
    for part in [&["compare", "--rounds", "1", "--seconds", "1"][..], &["soak", "--minutes", "0.3"]] {
        let mut working = program(&bench);
        working.args(part).arg("--gateway").arg(gateway).arg("--folder").arg(&folder).current_dir(root);
        process::succeed(&mut working)?;
    }
    Ok(())
}

/// The program that merges profiles: it must know the format of the compiler's LLVM.
fn merger(root: &Path, host: &str) -> Result<PathBuf> {
    let version = rustc(root, &["-vV"])?;
    let own = version.lines().find_map(|line| line.strip_prefix("LLVM version: ")).and_then(major);
    let own = own.context("rustc does not say which LLVM it has")?;
    let sysroot = PathBuf::from(rustc(root, &["--print", "sysroot"])?.trim());
    let beside = sysroot.join("lib/rustlib").join(host).join("bin/llvm-profdata");
    let candidates = [beside, format!("llvm-profdata-{own}").into(), "llvm-profdata".into()];
    for candidate in candidates {
        let said = process::output(program(&candidate).args(["show", "--version"])).unwrap_or_default();
        let known = said.split_once("LLVM version ").and_then(|(_, version)| major(version));
        if known.is_some_and(|known| known >= own) {
            return Ok(candidate);
        }
    }
    bail!(
        "there is no `llvm-profdata` of LLVM {own}, which rustc has, or later\n  fix: `rustup component add llvm-tools`, \
         or on Debian `apt-get install llvm-{own}`"
    )
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{major, ran};

    #[test]
    fn versions_are_compared_by_their_first_number() {
        assert_eq!(major("22.1.2"), Some(22));
        assert_eq!(major("14.0.6\n  Optimized build."), Some(14));
        assert_eq!(major("unknown"), None);
    }

    #[test]
    fn what_ran_is_told_and_what_ran_most_is_first() {
        let shown = "Counters:\n  seldom:\n    Hash: 0x1\n    Counters: 2\n    Block counts: [0, 3]\n  \
                     never:\n    Hash: 0x2\n    Counters: 1\n    Block counts: [0]\n  \
                     unit-cgu.0;often:\n    Hash: 0x3\n    Counters: 1\n    Block counts: [70]\n";
        assert_eq!(ran(shown), ["often", "seldom"]);
    }
}
