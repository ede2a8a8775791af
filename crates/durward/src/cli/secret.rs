//! `durward secret`

use super::EXIT_CODES;
use clap::Subcommand;
use std::path::PathBuf;
use vocab::SecretName;

/// `durward secret`
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub(crate) enum SecretCommand {
    /// Store a secret. Its value comes from stdin or a prompt, never from an argument.
    #[command(
        after_help = "Examples:\n  durward secret set github-token\n  pass show github | durward secret set github-token\n\n\
        A line break at the end of stdin is not part of the value."
    )]
    Set {
        /// Its name, as `credential:` refers to it.
        name: SecretName,
    },
    /// List secrets: name, version, when made, when changed. Never their values.
    List,
    /// Give a secret a new value, from stdin or a prompt. It must exist.
    Rotate {
        /// Its name.
        name: SecretName,
    },
    /// Remove a secret.
    Rm {
        /// Its name.
        name: SecretName,
    },
    /// Import secrets that Fernet encrypted.
    #[command(after_help = "Reads one secret a line, `NAME TOKEN`; the Fernet key comes from stdin or a prompt.\n\n\
        Example:\n  durward secret import-fernet tokens.txt < fernet.key")]
    ImportFernet {
        /// The file with names and tokens.
        file: PathBuf,
    },
    /// Replace the master key: every secret's key is wrapped anew, no secret changes.
    #[command(
        after_help = "The new key is made in the place that `vault: { key: … }` names; with a variable or a command\n\
        the new key comes from stdin or a prompt, and the place must hold it before the next start."
    )]
    RotateMaster,
}
