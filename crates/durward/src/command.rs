//! What the commands do, one file per group.
//!
//! Data goes to stdout, talk to stderr. Commands that manage an installation ask it through the same routes whether
//! it runs or not: see [`office`].

mod admin;
mod agent;
mod audit;
mod config;
pub(crate) mod connect;
mod init;
pub(crate) mod office;
mod policy;
pub(crate) mod print;
mod prompt;
mod secret;
pub(crate) mod server;
mod tls;

use crate::{
    cli::{Cli, Command, Exit},
    directory::Held,
};
use anyhow::Result;
use std::io;

/// Runs every command but those that start a gateway or are one end of it.
pub(crate) async fn run(cli: &Cli) -> Result<Exit> {
    let shared = &cli.shared;
    match &cli.command {
        Command::Init { folder } => init::run(folder),
        Command::Config(command) => config::run(shared, command),
        Command::Agent(command) => agent::run(shared, command).await,
        Command::Server(command) => server::run(shared, command).await,
        Command::Secret(command) => secret::run(shared, command).await,
        Command::Policy(command) => policy::run(shared, command).await,
        Command::Audit(command) => audit::run(shared, command).await,
        Command::Admin(command) => admin::run(shared, command).await,
        Command::Tls(command) => tls::run(shared, command),
        Command::Completions { shell } => config::completions(*shell),
        Command::Up | Command::Connect(_) | Command::Check { .. } | Command::Demo { .. } | Command::DemoServer => {
            anyhow::bail!("this command is run elsewhere")
        }
    }
}

/// Says what went wrong, and which exit code that is.
pub(crate) fn failed(fault: &anyhow::Error) -> Exit {
    if is_broken_pipe(fault) {
        // Whoever reads has read enough.
        return Exit::Done;
    }
    if !fault.is::<office::Reported>() {
        print::say(&format!("durward: {fault:#}"));
    }
    if fault.is::<office::Unreachable>() || fault.is::<Held>() { Exit::Unreachable } else { Exit::Failed }
}

fn is_broken_pipe(fault: &anyhow::Error) -> bool {
    fault
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
