//! `durward admin`

use super::EXIT_CODES;
use crate::config::Lifetime;
use clap::Subcommand;
use identity::{AdminRole, KeyId};

/// `durward admin`
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub(crate) enum AdminCommand {
    /// Keys of the management API.
    #[command(subcommand)]
    Key(AdminKeyCommand),
}

/// `durward admin key`
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub(crate) enum AdminKeyCommand {
    /// Issue a key. It is shown once: only its hash is stored.
    #[command(after_help = "Example:\n  durward admin key create --role viewer --expires 30d --label dashboards")]
    Create {
        /// What it may do: viewer reads; operator disables, enables and revokes agents and their keys too, reloads and
        /// verifies; owner does everything.
        #[arg(long)]
        role: AdminRole,
        /// How long it is valid: 12h, 90d. For ever unless given.
        #[arg(long, value_name = "TIME")]
        expires: Option<Lifetime>,
        /// A word to know it by.
        #[arg(long)]
        label: Option<String>,
    },
    /// List keys: id, role, label, when made, when they end. Never the keys.
    List,
    /// End a key.
    Revoke {
        /// Its id, from `durward admin key list`.
        id: KeyId,
    },
}
