//! Durward: the one door between AI agents and the tools they use.
//!
//! The only `main`, the only reader of configuration, environment and arguments. What is built when the gateway
//! starts stands in [`running`], what happens to a call in `gateway::pipeline`.

mod assemble;
mod certificate;
mod check;
mod cli;
mod command;
mod config;
mod control;
mod demo;
mod directory;
mod panic;
mod retention;
mod running;
mod talk;
mod telemetry;
mod up;
mod watch;

use cli::{Cli, Command, Exit};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(asked) => {
            // Help and version come this way too. Whoever does not read them needs no word about it.
            let asked = cli::without_credentials(asked);
            let _ = asked.print();
            return if asked.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    // Whatever uses TLS after this uses the same provider.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    talk::begin(usual(&cli.command));
    spare_memory();
    leave_no_core();
    panic::install();
    match run(&cli) {
        Ok(exit) => exit.into(),
        Err(fault) => command::failed(&fault).into(),
    }
}

/// A heap of many small things is three times as large in pages of 2 MiB as in pages of 4 KiB (14 and 5 MB when idle).
fn spare_memory() {
    if let Err(fault) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%fault, "the system decides on the size of pages");
    }
}

/// SECURITY: what is in memory ends in no file, here and in server processes: keys and secrets are in there.
fn leave_no_core() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    if let Err(fault) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::warn!(%fault, "the system may write the memory of a program that crashes into a file");
    }
}

/// How much is said where `DURWARD_LOG` does not tell. The tour speaks for itself.
const fn usual(command: &Command) -> &'static str {
    match command {
        Command::Up => "info",
        Command::Demo { .. } => "warn,durward::call=off",
        _ => "warn",
    }
}

fn run(cli: &Cli) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match &cli.command {
        Command::Up => runtime.block_on(up::run(&cli.shared)),
        Command::Demo { once } => demo::run(runtime, &cli.shared, *once),
        Command::DemoServer => demo::serve().map(|()| Exit::Done),
        Command::Connect(command) => {
            let ended = runtime.block_on(command::connect::run(command));
            // A name that is still looked up must not hold up the end.
            runtime.shutdown_background();
            ended
        }
        Command::Check { servers } => runtime.block_on(check::run(&cli.shared, *servers)),
        _ => runtime.block_on(command::run(cli)),
    }
}
