//! Why a log does not open, and why a leaf is not in it.

use crate::{commit::SaltsFault, note::NoteFault};
use std::{io, path::PathBuf, sync::Arc};

/// Why a log does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenFault {
    /// Another process writes it.
    #[error("another process writes the log in `{}`", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// A name that cannot be a directory or an origin.
    #[error("`{0}` cannot name a log")]
    Name(String),
    /// The disk refused.
    #[error("cannot open the log at `{}`", path.display())]
    Disk {
        /// What was touched.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// What is there is not what was written: going on would sign over a loss.
    #[error("the log is damaged: {0}; `audit verify` says more")]
    Damaged(String),
    /// It is not as long as it was.
    #[error(
        "`{origin}` has {size} records, and {signed} were signed, says the file with the newest checkpoints beside the log: \
         the log was set back. If it was restored from a backup, remove that file; the log then records that it was"
    )]
    SetBack {
        /// The origin of the tree.
        origin: String,
        /// How many records it has.
        size: u64,
        /// How many it had.
        signed: u64,
    },
    /// What is kept beside the log cannot be used.
    #[error(
        "the newest checkpoints in `{}` cannot be used: put the right file back, or remove it, which is recorded",
        path.display()
    )]
    Anchor {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The checkpoint is not ours.
    #[error("the checkpoint of the log cannot be trusted")]
    Checkpoint(#[source] NoteFault),
    /// The salts cannot be read.
    #[error("the salts of the log cannot be read")]
    Salts(#[source] SaltsFault),
}

/// Why a leaf is not, or not yet, in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogFault {
    /// More waits than may.
    #[error("the log is full: {0} records wait for the disk")]
    Full(usize),
    /// Writing fails; it is tried again until it works.
    #[error("the log cannot be written: {0}")]
    Disk(Arc<str>),
    /// There is no salt for what a call says: its record could not commit to it.
    #[error("the salt key of the day cannot be had: {0}")]
    Salt(Arc<str>),
    /// The record is not one that can be written.
    #[error("the record cannot be encoded: {0}")]
    Encode(Arc<str>),
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
}
