//! The command line: every command, its arguments and its help.
//!
//! Structure and words only. Reads no file, does nothing. No argument ever takes a secret: values come from stdin or
//! a prompt.

mod admin;
mod agent;
mod audit;
mod connect;
mod policy;
mod secret;
#[cfg(test)]
mod tests;
mod tls;

pub(crate) use admin::{AdminCommand, AdminKeyCommand};
pub(crate) use agent::{AgentCommand, AgentKeyCommand};
pub(crate) use audit::{AuditCommand, Filter, Outcome};
pub(crate) use connect::ConnectCommand;
pub(crate) use policy::{PolicyCommand, Question};
pub(crate) use secret::SecretCommand;
pub(crate) use tls::{TlsCommand, TlsFiles};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use std::{path::PathBuf, process::ExitCode};

/// What a command ends with. Printed in the help; scripts rely on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// A check failed, a call would be refused, or something went wrong.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The gateway cannot be reached, or another process holds the data directory.
    Unreachable = 3,
    /// The log does not verify.
    Broken = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        // The discriminants are the documented codes.
        Self::from(exit as u8)
    }
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: a check found errors, a call would be refused, or something went wrong
  2  the command line is wrong
  3  the gateway cannot be reached, or another process holds the data directory
  4  the log does not verify";

const EXAMPLES: &str = "\
Examples:
  durward demo                                 see it work, with everything built in
  durward init && durward up                   write a configuration to start from, and start
  durward agent key create ci --expires 90d    issue a key; it is shown once
  durward policy explain --agent ci --tool files/delete_file
  durward audit verify

Exit codes:
  0  done
  1  failed: a check found errors, a call would be refused, or something went wrong
  2  the command line is wrong
  3  the gateway cannot be reached, or another process holds the data directory
  4  the log does not verify";

const CONNECT: &str = "\
The client starts it, as it starts any server; it carries every message to a gateway that runs elsewhere.
The agent's key, or a bearer token, comes from the keyring, from --key-file, or from the variable DURWARD_KEY, and
from no argument.

Put the key into the keyring once, then start it as clients write it:
  durward connect https://gate.example/mcp --keyring --save
  { \"command\": \"durward\", \"args\": [\"connect\", \"https://gate.example/mcp\", \"--keyring\"] }

Exit codes:
  0  the client ended its input, or a signal came; with --save or --forget: done
  1  the key cannot be read, or the gateway refused it and took nothing, or what answers is no gateway
  2  the command line is wrong
  3  the gateway was never reached, or what is there speaks no HTTP";

/// The one door between AI agents and the tools they use.
///
/// Every call is identified, limited, screened, authorized, given its credentials, forwarded, screened again, and
/// written into a log that nobody can quietly change.
#[derive(Debug, Parser)]
#[command(name = "durward", version, after_help = EXAMPLES, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) shared: Shared,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Reads arguments and environment. A variable that holds nothing is none, as for whatever else reads variables: scripts
    /// and clients write `NAME=` where there is no value.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        let matches = without_empty_variables(Self::command()).try_get_matches()?;
        Self::from_arg_matches(&matches)
    }
}

fn without_empty_variables(command: clap::Command) -> clap::Command {
    #[expect(clippy::disallowed_methods, reason = "the binary reads the environment")]
    let is_empty =
        |argument: &clap::Arg| argument.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    let unset = |argument: clap::Arg| {
        if is_empty(&argument) { argument.env(clap::builder::Resettable::Reset) } else { argument }
    };
    command.mut_args(unset).mut_subcommands(without_empty_variables)
}

/// A complaint about the command line. SECURITY: where the digest or the id of a credential belongs, people give the
/// credential itself, and in an address they write it before the host: neither is repeated.
pub(crate) fn without_credentials(mut complaint: clap::Error) -> clap::Error {
    let of_credential =
        |value: &ContextValue| matches!(value.to_string().as_str(), "<TOKEN>" | "[TOKEN]" | "<ID>" | "[URL]");
    if complaint.kind() == ErrorKind::ValueValidation
        && complaint.get(ContextKind::InvalidArg).is_some_and(of_credential)
    {
        complaint.insert(ContextKind::InvalidValue, ContextValue::String("[hidden]".to_owned()));
    }
    complaint
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Shared {
    /// The configuration; durward.yaml in this folder unless given.
    #[arg(long, global = true, value_name = "FILE", env = "DURWARD_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// The data directory; what the configuration says unless given.
    #[arg(long, global = true, value_name = "DIR", env = "DURWARD_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// How results are printed. Talk goes to stderr.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs: one JSON value, or one a line where results stream.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Play a short tour through a real gateway with demo servers, then stay up.
    #[command(
        after_help = "It lives in ./durward-demo, made anew each time, or in the folder that --data names; with\n\
        --once in a folder that goes when it ends. Nothing is written anywhere else.\n\
        Ends with 0 only if every step of the tour did what it says."
    )]
    Demo {
        /// End after the tour.
        #[arg(long)]
        once: bool,
    },
    /// The demo's server on standard input and output; the demo's gateway starts it.
    #[command(hide = true)]
    DemoServer,
    /// Start the gateway.
    #[command(after_help = "Without a configuration it starts empty and says what to do next.\n\
        SIGHUP and changed files reload; SIGTERM lets calls in flight end first.")]
    Up,
    /// Be an MCP server on standard input and output, for clients that speak nothing else.
    #[command(after_help = CONNECT)]
    Connect(ConnectCommand),
    /// Write a configuration and a policy to start from.
    #[command(after_help = "Overwrites nothing. Exit code 1 if a file is already there.")]
    Init {
        /// The folder to write into.
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Say everything that is wrong with the configuration, its policies and their test cases.
    #[command(
        after_help = "Starts nothing and changes nothing; test cases are read, `policy test` runs them. Where a gateway runs\n\
        on the data directory, it is asked which servers are down and which of their tools cannot be called;\n\
        that leaves the exit code alone.\n\
        With --servers every server is looked at now: by that gateway, or by this command, which then opens\n\
        the data directory, makes it where there is none, and starts the servers that are processes.\n\n\
        Exit codes:\n\
        \x20 0  no errors; warnings alone do not count\n\
        \x20 1  errors, those in files of test cases too, which keep no gateway from starting;\n\
        \x20    with --servers also a server that cannot be looked at, or a tool whose schema cannot be used\n\
        \x20 3  with --servers: another process holds the data directory and does not answer"
    )]
    Check {
        /// Look at every server, too: is it there, what does it speak, which of its tools cannot be called.
        #[arg(long)]
        servers: bool,
    },
    /// Show the configuration as it is understood, or its schema.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Agents and their keys.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Upstream servers.
    #[command(subcommand)]
    Server(ServerCommand),
    /// Secrets in the vault.
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Policies: check, test, explain.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// The log: read it, verify it, prove what is in it.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Keys of the management API.
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Certificates for trials, and the authority that vouches for them.
    #[command(subcommand)]
    Tls(TlsCommand),
    /// Print a completion script.
    #[command(after_help = "Example:\n  durward completions bash > /etc/bash_completion.d/durward")]
    Completions {
        /// The shell it is for.
        shell: clap_complete::Shell,
    },
}

/// `durward config`
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub(crate) enum ConfigCommand {
    /// Print the JSON Schema of the configuration.
    #[command(after_help = "Example:\n  durward config schema > durward.schema.json\n\
        and as the first line of durward.yaml:\n  # yaml-language-server: $schema=durward.schema.json")]
    Schema,
    /// Print the configuration as it is understood, defaults filled in. Plain variables of commands are hidden.
    Show,
}

/// `durward server`
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub(crate) enum ServerCommand {
    /// List servers: how they are reached, their state, what keeps any of their tools from being called.
    List,
}
