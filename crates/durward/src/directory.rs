//! The data directory: what is kept there, and who may write it.
//!
//! One process at a time holds it. Commands that find it held speak to the holder instead.

use crate::config::settings::{KeySource, Settings};
use anyhow::{Context, Result, bail};
use audit::{DayKey, Log, Options, Sealer, Signer};
use identity::{KeyHolder, KeyId, Registry};
use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};
use store::{KeyUse, Store};
use vault::Vault;
use vocab::{Secret, TenantId, Timestamp};

/// Somebody else holds the directory.
#[derive(Debug, thiserror::Error)]
#[error("another process holds {}", .0.display())]
pub(crate) struct Held(PathBuf);

/// The directory, locked by this process.
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    pub(crate) tenant: TenantId,
    pub(crate) vault: Arc<Vault>,
    pub(crate) store: Store,
    pub(crate) registry: Arc<Registry>,
    _lock: File,
}

impl Directory {
    /// Opens the directory, making it and its keys if it is new.
    pub(crate) async fn open(settings: &Settings, now: Timestamp) -> Result<Self> {
        Self::opened(settings, now).await.map_err(|fault| for_want_of_room(&settings.data, fault))
    }

    async fn opened(settings: &Settings, now: Timestamp) -> Result<Self> {
        let path = settings.data.clone();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make the data directory {}", path.display()))?;
        let lock = lock(&path)?;
        // The store knows the format of the whole directory: it comes first, so that a newer one is left alone.
        let store = Store::open(&path).await.with_context(|| format!("cannot open the store in {}", path.display()))?;
        let tenant = TenantId::default_tenant();
        let key = key_source(settings)?.load(&path).context("the master key cannot be had")?;
        let vault = Vault::open(&path, key, tenant.clone(), now).context("the vault cannot be opened")?;
        let registry = Arc::new(Registry::default());
        let directory = Self { path, tenant, vault: Arc::new(vault), store, registry, _lock: lock };
        directory.load_registry(now).await?;
        Ok(directory)
    }

    /// Fills the registry from the store.
    pub(crate) async fn load_registry(&self, now: Timestamp) -> Result<()> {
        let keys = self.store.keys().await?.into_iter().map(key_row).collect::<Result<Vec<_>>>()?;
        let disabled = self.store.agents().await?.into_iter().filter(|row| row.disabled.is_some()).map(|row| row.agent);
        let revoked = self.store.revoked_tokens(now).await?.into_iter().map(|token| (token.hash, token.until));
        self.registry.replace(keys, disabled, revoked);
        Ok(())
    }

    /// Opens the log for writing.
    pub(crate) fn log(&self, now: Timestamp) -> Result<Log> {
        self.written_log(now).map_err(|fault| for_want_of_room(&self.path, fault))
    }

    fn written_log(&self, now: Timestamp) -> Result<Log> {
        let signer = self.vault.audit_signer()?;
        let public = signer.public;
        let name = origin(&self.tenant);
        write_public(&self.path, &audit::verifier_key(&name, &public))?;
        let options = Options {
            anchor: Some(newest_path(&self.path)),
            ..Options::new(log_path(&self.path), name.clone(), self.tenant.clone(), now)
        };
        let log = Log::open(options, Signer { name, public, sign: signer.sign })
            .with_context(|| format!("the log in {} cannot be opened", log_path(&self.path).display()))?;
        Ok(log.with_texts(self.sealer()))
    }
}

impl Directory {
    /// How texts beside the log are sealed: by the vault, whose keys the log never sees.
    fn sealer(&self) -> Sealer {
        let (making, opening) = (Arc::clone(&self.vault), Arc::clone(&self.vault));
        Sealer {
            make: Box::new(move |label| Ok(making.make_text_key(label)?)),
            open: Box::new(move |label, sealed| {
                let key = Arc::new(opening.open_text_key(label, sealed)?);
                let own = Arc::clone(&key);
                Ok(DayKey {
                    seal: Box::new(move |label, text| Ok(own.seal(label, text)?)),
                    open: Box::new(move |label, sealed| Ok(key.open(label, sealed).ok_or("it does not open")?)),
                })
            }),
        }
    }
}

/// The row of a key, as identity knows it.
pub(crate) fn key_row(row: store::KeyRow) -> Result<identity::KeyRow> {
    let holder = match row.opens {
        KeyUse::Agent(agent) => KeyHolder::Agent(agent),
        KeyUse::Admin(role) => KeyHolder::Admin(role.parse()?),
    };
    let id: KeyId = row.id.parse()?;
    Ok(identity::KeyRow { id, hash: row.hash, holder, expires: row.expires, revoked: row.revoked.is_some() })
}

/// The origin line of the log's checkpoints.
pub(crate) fn origin(tenant: &TenantId) -> String {
    format!("durward/{tenant}")
}

/// Where the log is.
pub(crate) fn log_path(data: &Path) -> PathBuf {
    data.join("log")
}

/// Where the log's newest checkpoints are kept, out of reach of whoever can change the log alone.
pub(crate) fn newest_path(data: &Path) -> PathBuf {
    data.join("log.newest")
}

/// Where the log's public key is.
pub(crate) fn public_key_path(data: &Path) -> PathBuf {
    data.join("log.pub")
}

/// Where the running gateway takes commands.
pub(crate) fn socket_path(data: &Path) -> PathBuf {
    data.join("control.sock")
}

fn write_public(data: &Path, key: &str) -> Result<()> {
    let path = public_key_path(data);
    let text = format!("{key}\n");
    match fs::read_to_string(&path) {
        Ok(known) if known == text => Ok(()),
        Ok(_) => bail!("{} is not the key of this log: restore the data directory from a backup", path.display()),
        Err(_) => fs::write(&path, text).with_context(|| format!("cannot write {}", path.display())),
    }
}

fn lock(data: &Path) -> Result<File> {
    let path = data.join("lock");
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(Held(data.to_owned()).into());
    }
    // For people who wonder who holds it; the lock itself is the kernel's.
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file)
}

/// With so little room left it is the first thing to look at when something cannot be written: a new directory takes less.
const ROOM: u64 = 1 << 20;

/// What failed in the data directory, with what to do where its disk is full. The database has words of its own for that, so the
/// disk is asked.
fn for_want_of_room(data: &Path, fault: anyhow::Error) -> anyhow::Error {
    let there = data.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let room = rustix::fs::statvfs(there).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    if fault.is::<Held>() || !is_full(room, &fault) { fault } else { fault.context(no_room(data)) }
}

fn is_full(room: Option<u64>, fault: &anyhow::Error) -> bool {
    let told = |cause: &io::Error| matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    room.is_some_and(|room| room < ROOM) || fault.chain().any(|cause| cause.downcast_ref().is_some_and(told))
}

fn no_room(data: &Path) -> String {
    format!("the disk that {} is on is full: make room there, or name another directory with `--data`", data.display())
}

fn key_source(settings: &Settings) -> Result<vault::KeySource> {
    Ok(match &settings.vault.key {
        KeySource::Data => vault::KeySource::File(settings.data.join("master.key")),
        KeySource::File(path) => vault::KeySource::File(path.clone()),
        KeySource::Env(name) => vault::KeySource::Value(Secret::new(from_environment(name)?)),
        KeySource::Command(words) => vault::KeySource::Command(words.clone()),
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the binary reads the environment; the name comes from the configuration"
)]
fn from_environment(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("`vault: {{ key: {{ env: {name} }} }}`: the variable is not set"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named_with_what_to_do() {
        let data = Path::new("/var/lib/durward");
        let full = || anyhow::Error::new(io::Error::from(io::ErrorKind::StorageFull)).context("cannot write lock");
        let other = || anyhow::anyhow!("the master key cannot be had");
        assert!(is_full(Some(1 << 40), &full()) && is_full(Some(4096), &other()) && is_full(None, &full()));
        assert!(!is_full(Some(1 << 40), &other()) && !is_full(None, &other()));
        let folder = tempfile::tempdir().expect("a folder");
        let told = format!("{:#}", for_want_of_room(folder.path(), full()));
        let place = folder.path().display();
        assert!(told.starts_with(&format!("the disk that {place} is on is full: make room there")), "{told}");
        assert!(told.contains("cannot write lock: "), "{told}");
        assert!(for_want_of_room(data, Held(data.to_owned()).into()).is::<Held>());
    }
}
