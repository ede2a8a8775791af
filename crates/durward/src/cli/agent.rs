//! `durward agent`

use super::EXIT_CODES;
use crate::config::Lifetime;
use clap::Subcommand;
use identity::KeyId;
use std::str::FromStr;
use vocab::{AgentId, Digest};

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
    /// Refuse one token of an issuer from its next message on.
    #[command(
        after_help = "A token is named by the SHA-256 of what stands before its last dot, in records under `identity`. The \
        digest of the\nwhole token names none.\n\n\
        Examples:\n  durward agent revoke-token < token.jwt\n  \
        durward agent revoke-token token:sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    )]
    RevokeToken {
        /// Its digest, as records have it, with or without `token:`. Without one the token itself is read from stdin.
        #[arg(value_parser = token_digest)]
        token: Option<Digest>,
        /// How long it would still be valid: 12h. 30 days unless given.
        #[arg(long, value_name = "TIME")]
        expires: Option<Lifetime>,
    },
}

/// `token:sha256:…`, as records say it, or the digest alone.
fn token_digest(text: &str) -> Result<Digest, <Digest as FromStr>::Err> {
    text.strip_prefix("token:").unwrap_or(text).parse()
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
