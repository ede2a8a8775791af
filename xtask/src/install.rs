//! What the proofs need beyond Rust: Debian packages, npm and Python peers, cargo-deny. Twice does what once does.

use crate::{
    process::{self, program},
    world,
};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    slice,
};

/// A program, and the Debian package it comes from.
const PROGRAMS: [(&str, &str); 8] = [
    ("node", "nodejs"),
    ("npm", "npm"),
    ("taskset", "util-linux"),
    ("unshare", "util-linux"),
    ("ip", "iproute2"),
    ("secret-tool", "libsecret-tools"),
    ("gnome-keyring-daemon", "gnome-keyring"),
    ("dbus-run-session", "dbus-daemon"),
];

pub(crate) fn run(root: &Path) -> Result<()> {
    peers(root)?;
    cargo_deny(root)
}

/// The peers alone: what the conformance suite and the strangers need.
pub(crate) fn peers(root: &Path) -> Result<()> {
    packages()?;
    npm(root)?;
    python(root)
}

/// Checks licences and bans. Advisories are left out: their database lives on a host that a build need not reach.
pub(crate) fn deny(root: &Path) -> Result<()> {
    let mut command = program(deny_binary(root));
    command.current_dir(root).args([
        "--all-features",
        "check",
        "--hide-inclusion-graph",
        "licenses",
        "bans",
        "sources",
    ]);
    process::succeed(&mut command)
}

/// The Node that the conformance suite needs, from npm.
pub(crate) fn node(root: &Path) -> PathBuf {
    root.join("tests/js/node_modules/.bin/node")
}

/// The Python that has the peers.
pub(crate) fn python_binary(root: &Path) -> PathBuf {
    tools(root).join("venv/bin/python")
}

fn tools(root: &Path) -> PathBuf {
    world::target(root).join("tools")
}

fn deny_binary(root: &Path) -> PathBuf {
    tools(root).join("bin/cargo-deny")
}

fn packages() -> Result<()> {
    let mut missing: Vec<&str> = PROGRAMS
        .into_iter()
        // Not every program has a version to say.
        .filter(|(name, _)| !process::quietly(program("sh").args(["-c", "command -v \"$0\"", name])))
        .map(|(_, package)| package)
        .collect();
    if !process::quietly(program("python3").args(["-c", "import venv, ensurepip"])) {
        missing.extend(["python3", "python3-venv"]);
    }
    if missing.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!("these Debian packages are missing; install them as root: {}", missing.join(" "));
    }
    process::succeed(program("apt-get").args(["update", "-qq"]))?;
    process::succeed(program("apt-get").args(["install", "-y", "-qq", "--no-install-recommends"]).args(&missing))
}

fn npm(root: &Path) -> Result<()> {
    let folder = root.join("tests/js");
    once(&folder.join("node_modules/.installed"), &[folder.join("package-lock.json")], || {
        process::succeed(
            program("npm").args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&folder),
        )
    })?;
    let version = process::output(program(node(root)).arg("--version")).context("the Node of tests/js does not run")?;
    eprintln!("node of the suite: {}", version.trim());
    Ok(())
}

fn python(root: &Path) -> Result<()> {
    let (venv, pins) = (tools(root).join("venv"), root.join("tests/py/requirements.txt"));
    once(&venv.join(".installed"), slice::from_ref(&pins), || {
        process::succeed(program("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        let mut pip = program(python_binary(root));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"]).arg(&pins);
        process::succeed(&mut pip)
    })
}

fn cargo_deny(root: &Path) -> Result<()> {
    const VERSION: &str = "0.20.2";
    let tools = tools(root);
    once(&tools.join(format!("bin/.cargo-deny-{VERSION}")), &[], || {
        let mut command = process::cargo(root);
        command.args(["install", "--quiet", "--locked", "cargo-deny", "--version", VERSION, "--root"]).arg(&tools);
        // Its own folder of objects: the workspace's would be rebuilt, and would rebuild it.
        command.env("CARGO_TARGET_DIR", tools.join("build"));
        process::succeed(&mut command)
    })
}

/// Does `work` unless it was done already for these very inputs. The mark is written last.
fn once(mark: &Path, inputs: &[PathBuf], work: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut wanted = String::from("done\n");
    for input in inputs {
        wanted += &fs::read_to_string(input).with_context(|| format!("cannot read {}", input.display()))?;
    }
    if fs::read_to_string(mark).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    work()?;
    fs::write(mark, wanted).with_context(|| format!("cannot write {}", mark.display()))
}

#[cfg(test)]
mod tests {
    use super::once;
    use std::{cell::Cell, fs, slice};

    #[test]
    fn work_is_done_again_only_for_other_inputs() {
        let folder = tempfile::tempdir().unwrap();
        let (mark, input) = (folder.path().join("mark"), folder.path().join("pins"));
        let count = Cell::new(0);
        let run = || {
            once(&mark, slice::from_ref(&input), || {
                count.set(count.get() + 1);
                Ok(())
            })
            .unwrap();
        };

        fs::write(&input, "a").unwrap();
        run();
        run();
        assert_eq!(count.get(), 1);
        fs::write(&input, "b").unwrap();
        run();
        assert_eq!(count.get(), 2);
    }
}
