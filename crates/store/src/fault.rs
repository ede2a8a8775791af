//! What can go wrong with rows.

use std::{io, path::PathBuf};

/// A row that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreFault {
    /// A file of the store cannot be created, read or protected.
    #[error("cannot use {}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Others may read the file.
    #[error("{} can be read by others (mode {mode:03o}): run chmod 600 on it", path.display())]
    Mode {
        /// Which one.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A newer Durward wrote the directory.
    #[error("{} has format {found}, this version knows formats up to {known}: use the newer version, or restore the backup made before its first start", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest one known here.
        known: i64,
    },
    /// The copy before a migration already exists and is not overwritten.
    #[error("the backup {} exists already: move it away", path.display())]
    BackupExists {
        /// Which one.
        path: PathBuf,
    },
    /// The format could not be brought up to date.
    #[error("cannot bring {} to the format of this version", path.display())]
    Migrate {
        /// The file.
        path: PathBuf,
        /// Which step failed.
        #[source]
        cause: sqlx::migrate::MigrateError,
    },
    /// The same id or digest is there already.
    #[error("a row with this id exists already")]
    Duplicate,
    /// A row does not hold what its column promises.
    #[error("a row of {table} is damaged: {column}")]
    Damaged {
        /// Where.
        table: &'static str,
        /// Which part of it.
        column: &'static str,
    },
    /// The database refused.
    #[error("the database failed")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreFault {
    fn from(cause: sqlx::Error) -> Self {
        match &cause {
            sqlx::Error::Database(database) if database.is_unique_violation() => Self::Duplicate,
            _ => Self::Database(cause),
        }
    }
}
