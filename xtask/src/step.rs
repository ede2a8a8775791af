//! Steps with a heading, a duration and a loud end. Decides nothing about what a step does.

use crate::process;
use anyhow::{Context, Result};
use std::{path::Path, time::Instant};

/// Runs steps one after the other; the first that fails ends it.
pub(crate) struct Plan<'a> {
    root: &'a Path,
    begun: Instant,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(root: &'a Path) -> Self {
        Self { root, begun: Instant::now() }
    }

    pub(crate) fn run(&mut self, name: &str, step: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        eprintln!("\n=== {name}");
        let begun = Instant::now();
        step(self.root).with_context(|| format!("FAILED: {name}"))?;
        eprintln!("--- {name}: {:.1} s", begun.elapsed().as_secs_f64());
        Ok(())
    }

    pub(crate) fn cargo(&mut self, name: &str, arguments: &[&str]) -> Result<()> {
        self.run(name, |root| process::succeed(process::cargo(root).args(arguments)))
    }

    /// All tests, by the better runner where it is installed. Prints nothing after them.
    pub(crate) fn tests(&mut self) -> Result<()> {
        let has_nextest = process::quietly(process::cargo(self.root).args(["nextest", "--version"]));
        let arguments: &[&str] = if has_nextest {
            &["nextest", "run", "--workspace", "--no-fail-fast"]
        } else {
            &["test", "--workspace", "--no-fail-fast", "--lib", "--bins", "--tests"]
        };
        eprintln!("\n=== tests (after {:.1} s of other steps)", self.begun.elapsed().as_secs_f64());
        process::succeed(process::cargo(self.root).args(arguments)).context("FAILED: tests")
    }
}
