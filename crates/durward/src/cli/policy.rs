//! `durward policy`

use super::EXIT_CODES;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use vocab::{Action, AgentId, Class, EnvironmentName, RoleName, UserId};

/// `durward policy`
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub(crate) enum PolicyCommand {
    /// Say everything that is wrong with policies, and what looks wrong.
    #[command(after_help = "Example:\n  durward policy check policies/*.json")]
    Check {
        /// The policies; those of the configuration unless given.
        files: Vec<PathBuf>,
    },
    /// Run the test cases beside the policies. Exit code 1 if one fails.
    #[command(after_help = "Test cases are `*.test.json` and `*.test.yaml`.\n\n\
        Example:\n  durward policy test")]
    Test {
        /// Files of test cases; those beside the policies of the configuration unless given.
        files: Vec<PathBuf>,
    },
    /// Say what is decided for a call, and which rules decide it. Calls nothing.
    #[command(
        after_help = "Exit code 1 if the call would be refused. The policies are those of the files, without a gateway, and\n\
        only they are asked: not whether the agent was switched off (`agent disable`), nor whether there is such a\n\
        tool. With --running they are those that the running gateway has, which knows both, and the tool's schema.\n\
        Limits and detectors are not asked.\n\n\
        Example:\n  durward policy explain --agent ci --tool files/write_file --arguments '{\"path\":\"/etc/passwd\"}'"
    )]
    Explain(Question),
}

/// The call that is asked about.
#[derive(Debug, Clone, Args)]
pub(crate) struct Question {
    /// The agent; its roles and environments are those of the configuration.
    #[arg(long)]
    pub(crate) agent: AgentId,
    /// What is called: server/name.
    #[arg(long, value_name = "SERVER/NAME", value_parser = target)]
    pub(crate) tool: String,
    /// What is done.
    #[arg(long, default_value = "tool.execute")]
    pub(crate) action: Action,
    /// The user the agent acts for.
    #[arg(long)]
    pub(crate) user: Option<UserId>,
    /// A further role. May be repeated.
    #[arg(long = "role", value_name = "ROLE")]
    pub(crate) roles: Vec<RoleName>,
    /// A group. May be repeated.
    #[arg(long = "group", value_name = "GROUP")]
    pub(crate) groups: Vec<String>,
    /// A scope. May be repeated.
    #[arg(long = "scope", value_name = "SCOPE")]
    pub(crate) scopes: Vec<String>,
    /// The server's environment, instead of the configured one.
    #[arg(long)]
    pub(crate) environment: Option<EnvironmentName>,
    /// The tool's class, instead of the configured one: read, write, destructive, unclassified.
    #[arg(long, value_parser = class)]
    pub(crate) class: Option<Class>,
    /// A label of the tool, beside the configured ones. May be repeated.
    #[arg(long = "label", value_name = "LABEL")]
    pub(crate) labels: Vec<String>,
    /// The arguments, as JSON; `-` reads them from stdin.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub(crate) arguments: String,
    /// The time of the call, as 2026-11-21T09:00:00Z; now unless given.
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<vocab::Timestamp>,
    /// Ask the running gateway instead of reading the files.
    #[arg(long)]
    pub(crate) running: bool,
}

fn target(text: &str) -> Result<String, &'static str> {
    match text.split_once('/') {
        Some((server, name)) if !server.is_empty() && !name.is_empty() => Ok(text.to_owned()),
        Some(_) | None => Err("write server/name, as files/read_file"),
    }
}

fn class(text: &str) -> Result<Class, &'static str> {
    [Class::Read, Class::Write, Class::Destructive, Class::Unclassified]
        .into_iter()
        .find(|class| class.as_str() == text)
        .ok_or("write read, write, destructive or unclassified")
}
