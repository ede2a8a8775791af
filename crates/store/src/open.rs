//! Opens the database of a data directory and brings its format up to date.
//!
//! The newest applied migration is the format version of the whole data directory: a change of another file's layout
//! is a migration too, if an empty one. A newer format is refused, an older one is copied before it is touched.

use crate::StoreFault;
use sqlx::{
    ConnectOptions, Connection, SqliteConnection, SqlitePool,
    migrate::{Migrate, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// The database's name in the data directory.
pub const FILE: &str = "durward.db";

pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!();

/// The rows of one data directory. Cloning shares the connections.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) pool: SqlitePool,
    path: PathBuf,
}

impl Store {
    /// Opens or creates the database in `directory`. An older format is migrated after a backup beside it.
    pub async fn open(directory: &Path) -> Result<Self, StoreFault> {
        let path = directory.join(FILE);
        protect(&path)?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            // A revocation that was confirmed must survive a power cut.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        migrate(&path, &options).await?;
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(5))
            .connect_with(options)
            .await?;
        Ok(Self { pool, path })
    }

    /// The format version this program writes.
    pub fn format() -> i64 {
        MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
    }

    /// Where the rows are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a consistent copy to `to`, which must not exist, while calls go on.
    pub async fn backup(&self, to: &Path) -> Result<(), StoreFault> {
        let mut connection = self.pool.acquire().await?;
        copy(&mut connection, to).await
    }

    /// Waits for what is under way and closes the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

async fn migrate(path: &Path, options: &SqliteConnectOptions) -> Result<(), StoreFault> {
    let fault = |cause| StoreFault::Migrate { path: path.to_owned(), cause };
    let mut connection = options.connect().await?;
    connection.ensure_migrations_table(&MIGRATIONS.table_name).await.map_err(fault)?;
    let applied = connection.list_applied_migrations(&MIGRATIONS.table_name).await.map_err(fault)?;
    let found = applied.iter().map(|migration| migration.version).max().unwrap_or(0);
    let known = Store::format();
    if found > known {
        return Err(StoreFault::Newer { path: path.to_owned(), found, known });
    }
    if found > 0 && found < known {
        let backup = path.with_file_name(format!("{FILE}.format-{found}"));
        copy(&mut connection, &backup).await?;
        tracing::info!(backup = %backup.display(), from = found, to = known, "migrating the data directory");
    }
    MIGRATIONS.run(&mut connection).await.map_err(fault)?;
    connection.close().await?;
    Ok(())
}

async fn copy(connection: &mut SqliteConnection, to: &Path) -> Result<(), StoreFault> {
    let fault = |cause: io::Error| match cause.kind() {
        io::ErrorKind::AlreadyExists => StoreFault::BackupExists { path: to.to_owned() },
        _ => StoreFault::File { path: to.to_owned(), cause },
    };
    let name = to.to_str().ok_or_else(|| fault(io::ErrorKind::InvalidFilename.into()))?;
    // SQLite writes into an empty file, so the mode is right from the first byte.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(fault)?;
    sqlx::query("VACUUM INTO $1").bind(name).execute(connection).await?;
    fs::File::open(to).and_then(|file| file.sync_all()).map_err(fault)
}

/// Creates the file for its owner alone, or checks that it is. `SQLite` gives its other files the same mode.
fn protect(path: &Path) -> Result<(), StoreFault> {
    let fault = |cause| StoreFault::File { path: path.to_owned(), cause };
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(fault)?;
    let mode = file.metadata().map_err(fault)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreFault::Mode { path: path.to_owned(), mode });
    }
    Ok(())
}
