//! `durward agent`

use super::EXIT_CODES;
use crate::config::Lifetime;
use clap::Subcommand;
use identity::KeyId;
use vocab::AgentId;

/// `durward agent`
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub(crate) enum AgentCommand {
    /// List agents: roles, environments, keys, state.
    List,
    /// Refuse every call of an agent from its next message on, open streams included.
    #[command(after_help = "Beats the configuration, and holds until `durward agent enable`.\n\n\
        Example:\n  durward agent disable ci --reason 'key leaked'")]
    Disable {
        /// The agent.
        name: AgentId,
        /// Why; kept in the log.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Let a disabled agent call again.
    Enable {
        /// The agent.
        name: AgentId,
    },
    /// Keys of agents.
    #[command(subcommand)]
    Key(AgentKeyCommand),
}

/// `durward agent key`
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub(crate) enum AgentKeyCommand {
    /// Issue a key. It is shown once: only its hash is stored.
    #[command(after_help = "The key goes to stdout, everything else to stderr.\n\n\
        Example:\n  durward agent key create ci --expires 90d --label 'build server'")]
    Create {
        /// The agent the key is for.
        name: AgentId,
        /// How long it is valid: 12h, 90d. For ever unless given.
        #[arg(long, value_name = "TIME")]
        expires: Option<Lifetime>,
        /// A word to know it by.
        #[arg(long)]
        label: Option<String>,
    },
    /// List keys: id, agent, label, when made, when they end. Never the keys.
    List,
    /// End a key, from the next message on.
    Revoke {
        /// Its id, from `durward agent key list`.
        id: KeyId,
    },
}
