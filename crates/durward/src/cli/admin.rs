//! `durward admin`

use super::EXIT_CODES;
use crate::config::Lifetime;
use clap::{Subcommand, ValueEnum};

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
        /// What it may do.
        #[arg(long, value_enum)]
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
        id: String,
    },
}

/// What a key of the management API may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AdminRole {
    /// Read.
    Viewer,
    /// Read, and disable, enable and revoke.
    Operator,
    /// Everything, keys and secrets included.
    Owner,
}
