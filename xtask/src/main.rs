//! The repository's chores: what CI runs, and what a contributor runs by hand.
//!
//! Owns order and reporting. What a step proves is in the module of its name.

mod conformance;
mod dist;
mod install;
mod keyring;
mod matrix;
mod picture;
mod ports;
mod process;
mod step;
mod strangers;
mod tidy;
mod world;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use process::program;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};
use step::Plan;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of the repository")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Everything that CI runs, in order
    Test,
    /// Formatting, lints and unit tests: the loop while editing
    Quick,
    /// The rules of the source that no compiler checks
    Tidy,
    /// Writes the reference of the configuration into docs/configuration.md
    Docs,
    /// Installs what the proofs need: Debian packages, npm and Python peers, cargo-deny
    Install,
    /// The official conformance suite, direct and through the gateway, row by row
    Conformance(conformance::Options),
    /// Unmodified clients and servers of others, through the gateway
    Strangers(strangers::Options),
    /// `durward connect` with a key from the keyring of a desktop
    Keyring,
    /// Every revision of a client at every revision of a server, held against docs/compatibility.md
    Matrix(matrix::Options),
    /// Draws the tour as it prints, for the README
    Picture(picture::Options),
    /// Builds what is given out, guided by a profile of itself: target/guided/durward. Takes most of an hour
    Dist,
    /// Measures the gateway against direct and against a bare proxy: what `dist` built last with `--guided`, else an
    /// ordinary optimised build
    Bench {
        /// Measures what `cargo xtask dist` built
        #[arg(long)]
        guided: bool,
        /// What to hand to the measuring program; `--help` lists it
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Loads the gateway for an hour, with churn, and looks whether it grows or forgets to let go
    Soak {
        /// What to hand to the measuring program; `--help` lists it
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
}

fn main() -> ExitCode {
    let root = root();
    let done = match Arguments::parse().chore {
        Chore::Test => test(&root),
        Chore::Quick => quick(&root),
        Chore::Tidy => tidy::run(&root),
        Chore::Docs => docs(&root),
        Chore::Install => install::run(&root),
        Chore::Conformance(options) => conformance::run(&root, &options),
        Chore::Strangers(options) => strangers::run(&root, &options),
        Chore::Keyring => keyring::run(&root),
        Chore::Matrix(options) => matrix::run(&root, &options),
        Chore::Picture(options) => picture::run(&root, &options),
        Chore::Dist => dist::run(&root),
        Chore::Bench { guided, rest } => bench(&root, "compare", guided, &rest),
        Chore::Soak { rest } => bench(&root, "soak", false, &rest),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The tests come last: the summary of their runner is the end of the output.
fn test(root: &Path) -> Result<()> {
    let mut plan = Plan::new(root);
    plan.run("install what the proofs need", install::run)?;
    plan.cargo("formatting", &["fmt", "--all", "--check"])?;
    plan.run("tidy", tidy::run)?;
    plan.cargo("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    plan.run("pages of the crates", rustdoc)?;
    plan.run("licences and bans", install::deny)?;
    plan.cargo("build the gateway", &["build", "--package", "durward", "--bins"])?;
    plan.run("conformance", |root| conformance::run(root, &conformance::Options::default()))?;
    plan.run("strangers", |root| strangers::run(root, &strangers::Options::default()))?;
    plan.run("keyring", keyring::run)?;
    plan.run("matrix", |root| matrix::run(root, &matrix::Options::default()))?;
    // As the README says it: optimised, and without a package.
    plan.cargo("demo", &["run", "--release", "--quiet", "--", "demo", "--once"])?;
    plan.cargo("build what measures", &["build", "--release", "--package", "bench"])?;
    plan.run("bench, briefly", bench_briefly)?;
    plan.cargo("fuzz smoke", &["run", "--quiet", "--package", "fuzz", "--bin", "smoke", "--", "--seconds", "10"])?;
    plan.cargo(
        "soak, briefly",
        &[
            "run",
            "--quiet",
            "--package",
            "bench",
            "--",
            "soak",
            "--gateway",
            "target/debug/durward",
            "--minutes",
            "0.3",
        ],
    )?;
    plan.cargo("documentation examples", &["test", "--workspace", "--doc", "--quiet"])?;
    plan.tests()
}

/// They are read with private items: the page of a crate leads into its rooms.
fn rustdoc(root: &Path) -> Result<()> {
    let mut cargo = process::cargo(root);
    cargo.args(["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"]);
    process::succeed(cargo.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links"))
}

fn quick(root: &Path) -> Result<()> {
    let mut plan = Plan::new(root);
    plan.cargo("formatting", &["fmt", "--all", "--check"])?;
    plan.cargo("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    plan.tests()
}

/// The test that checks the reference writes it when it is told to.
fn docs(root: &Path) -> Result<()> {
    let test = ["test", "--quiet", "--package", "durward", "--bins", "the_reference_names_every_key"];
    process::succeed(process::cargo(root).args(test).env("DURWARD_WRITE_DOCS", "1"))
}

/// Every measurement and every bar, on the build that the demo ran. The bars are for a build that is guided by a profile of
/// itself and takes most of an hour. This one takes 1.7 x as much, and the machine is one that others use, too: it must keep two and a
/// half times of each.
fn bench_briefly(root: &Path) -> Result<()> {
    let built = world::target(root).join("release");
    let mut measuring = program(built.join("bench"));
    measuring.args(["compare", "--rounds", "5", "--seconds", "0.2", "--gate", "--slack", "2.5", "--gateway"]);
    process::succeed(measuring.arg(built.join("durward")).current_dir(root))
}

/// Both programs are optimised first: a debug gateway says nothing about speed.
fn bench(root: &Path, part: &str, guided: bool, rest: &[String]) -> Result<()> {
    let mut plan = Plan::new(root);
    let mut build = vec!["build", "--profile", "dist", "--package", "bench"];
    let gateway = world::target(root).join(if guided { dist::BINARY } else { "dist/durward" });
    if guided {
        ensure!(gateway.exists(), "there is no {}\n  fix: `cargo xtask dist` builds it", gateway.display());
    } else {
        build.extend(["--package", "durward"]);
    }
    plan.cargo("build what is measured", &build)?;
    plan.run("measure", |root| {
        let mut measuring = program(world::target(root).join("dist/bench"));
        measuring.current_dir(root).arg(part).args(rest);
        if !rest.iter().any(|word| word.starts_with("--gateway")) {
            measuring.arg("--gateway").arg(&gateway);
        }
        process::succeed(&mut measuring)
    })?;
    if part != "compare" {
        return Ok(());
    }
    plan.cargo(
        "contention",
        &["run", "--profile", "dist", "--quiet", "--package", "gateway", "--example", "contention"],
    )
}
