//! The credential with which the client's messages travel: an agent's key, or a bearer token.
//!
//! From the keyring, a file or the environment, never from an argument. Never printed.

use super::keyring::Keyring;
use crate::{cli::ConnectCommand, command::print::say};
use anyhow::{Context, Result, bail, ensure};
use http::HeaderValue;
use rustix::fs::{Mode, OFlags};
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use vocab::Secret;

/// The variable.
pub(super) const VARIABLE: &str = "DURWARD_KEY";
/// The variable that names a file with the key.
const FILE_VARIABLE: &str = "DURWARD_KEY_FILE";
/// A key or a token is not longer, in bytes.
pub(super) const LONGEST: u64 = 64 << 10;

/// What proves who calls, if anything does.
pub(super) struct Credential {
    source: Source,
    header: Mutex<Option<HeaderValue>>,
    /// One looks for another at a time.
    renewing: tokio::sync::Mutex<()>,
    /// How often somebody has looked since the start.
    looks: AtomicUsize,
    /// Why it cannot be read, as it was told last.
    trouble: Mutex<Option<String>>,
}

/// On whose behalf the gateway is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behalf {
    /// The client said something, and waits.
    Client,
    /// Nobody waits: a stream is kept open, a session ended.
    Ours,
}

/// Where it comes from.
pub(super) enum Source {
    Keyring(Keyring),
    File(PathBuf),
    Environment,
    /// The same as ever, as often as is allowed.
    #[cfg(test)]
    Same(tokio::sync::Semaphore),
}

impl Source {
    /// Where the command line says, else where the environment does.
    pub(super) fn of(command: &ConnectCommand) -> Self {
        match (&command.keyring, &command.key_file) {
            (Some(name), _) => Self::Keyring(Keyring::new(command.gateway(), name)),
            (None, Some(path)) => Self::File(path.clone()),
            (None, None) => file_variable().map_or(Self::Environment, Self::File),
        }
    }

    /// What is there now, if anything is.
    async fn read(&self) -> Result<Option<HeaderValue>> {
        match self {
            Self::Keyring(keyring) => header(&keyring.read().await?).with_context(|| keyring.place()).map(Some),
            Self::File(path) => header(&from_file(path)?).with_context(|| path.display().to_string()).map(Some),
            Self::Environment => {
                let text = from_environment()?;
                text.map(|text| header(&text).with_context(|| format!("the variable {VARIABLE}"))).transpose()
            }
            #[cfg(test)]
            Self::Same(allowed) => {
                allowed.acquire().await?.forget();
                Ok(Some(HeaderValue::from_static("Bearer same")))
            }
        }
    }
}

impl Credential {
    /// Reads it. Without any the caller is nobody in particular.
    pub(super) async fn find(source: Source) -> Result<Self> {
        Ok(Self {
            header: Mutex::new(source.read().await?),
            source,
            renewing: tokio::sync::Mutex::default(),
            looks: AtomicUsize::new(0),
            trouble: Mutex::default(),
        })
    }

    /// The value of `Authorization`.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        lock(&self.header).clone()
    }

    /// After a refusal: reads it again, where tokens are renewed. Whether there is something else than what was refused.
    pub(super) async fn renew(&self, refused: Option<&HeaderValue>, behalf: Behalf) -> bool {
        match &self.source {
            Source::Environment => return false,
            // A person might have to open it, each time. What a message of the client found is used.
            Source::Keyring(_) if behalf == Behalf::Ours => return self.header().as_ref() != refused,
            Source::Keyring(_) | Source::File(_) => {}
            #[cfg(test)]
            Source::Same(_) => {}
        }
        let looks = self.looks.load(Ordering::Acquire);
        let _one = self.renewing.lock().await;
        if self.header().as_ref() != refused {
            // Somebody found another meanwhile.
            return true;
        }
        if self.looks.load(Ordering::Acquire) != looks {
            // Somebody looked meanwhile, and found what was refused. A person is not asked to open the keyring again.
            return false;
        }
        let found = self.source.read().await;
        self.looks.fetch_add(1, Ordering::AcqRel);
        self.tell(found.as_ref().err().map(|fault| format!("{fault:#}")));
        let Ok(found) = found else { return false };
        let is_new = refused != found.as_ref();
        *lock(&self.header) = found;
        is_new
    }

    /// Says why it cannot be read, once for each cause, and when it can be again.
    fn tell(&self, trouble: Option<String>) {
        let mut told = lock(&self.trouble);
        match (&trouble, &*told) {
            (Some(now), before) if before.as_ref() != Some(now) => {
                say(&format!("durward: the key cannot be read again: {now}"));
            }
            (None, Some(_)) => say("durward: the key is readable again"),
            (Some(_), _) | (None, None) => {}
        }
        *told = trouble;
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A key or token without what stands around it, if it is one.
pub(super) fn word(text: &Secret<String>) -> Result<&str> {
    let text = text.expose().trim();
    ensure!(!text.is_empty(), "it is empty; `durward agent key create NAME` makes a key");
    ensure!(text.len() as u64 <= LONGEST, "it is longer than a key or token");
    // SECURITY: what is wrong is not shown.
    ensure!(text.bytes().all(|byte| byte.is_ascii_graphic()), "it is no key or token: those are one word");
    Ok(text)
}

/// The file that the environment names. An empty name is none.
fn file_variable() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "the binary reads the environment")]
    std::env::var_os(FILE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn from_environment() -> Result<Option<Secret<String>>> {
    #[expect(clippy::disallowed_methods, reason = "the binary reads the environment")]
    match std::env::var(VARIABLE) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Ok(Some(Secret::new(text))),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => bail!("the variable {VARIABLE} is no text"),
    }
}

/// Reads a file that is the caller's own and nobody else's to read.
fn from_file(path: &Path) -> Result<Secret<String>> {
    let place = path.display();
    // Not blocking: a pipe that nobody writes into must not hold anything up.
    let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty());
    let file = File::from(opened.with_context(|| format!("cannot read the key in {place}"))?);
    // SECURITY: what is judged is the file that was opened, not what has its name a moment later.
    let found = rustix::fs::fstat(&file).with_context(|| format!("cannot read the key in {place}"))?;
    let kind = rustix::fs::FileType::from_raw_mode(found.st_mode);
    ensure!(kind.is_file(), "{place} is no file; --key-file names a file that holds nothing but the key");
    ensure!(
        !Mode::from_raw_mode(found.st_mode).intersects(Mode::RWXG | Mode::RWXO),
        "others may read or change {place} (mode {:04o}); say `chmod 600 {place}`, and consider the key as known",
        found.st_mode & 0o7777
    );
    let me = rustix::process::geteuid().as_raw();
    ensure!(found.st_uid == me, "{place} belongs to somebody else; whoever owns it could choose who you are");
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text).with_context(|| format!("cannot read the key in {place}"))?;
    ensure!(text.len() as u64 <= LONGEST, "{place} is longer than a key or token; it must hold nothing else");
    Ok(Secret::new(text))
}

fn header(text: &Secret<String>) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", word(text)?))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    fn kept(mode: u32, text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    async fn found(path: &Path) -> Result<Credential> {
        Credential::find(Source::File(path.to_owned())).await
    }

    #[tokio::test]
    async fn a_key_file_is_for_its_owner_alone() {
        for mode in [0o600, 0o400] {
            let (_folder, path) = kept(mode, "dwk_hunter2\n");
            let header = found(&path).await.unwrap().header().unwrap();
            assert!(header == "Bearer dwk_hunter2" && header.is_sensitive());
        }
        for mode in [0o640, 0o604, 0o620, 0o644] {
            let (_folder, path) = kept(mode, "dwk_hunter2\n");
            let fault = format!("{:#}", found(&path).await.err().unwrap());
            assert!(fault.contains("chmod 600") && !fault.contains("hunter2"), "{fault}");
        }
    }

    #[tokio::test]
    async fn what_is_no_key_is_refused_and_not_shown() {
        for text in ["", " \n", "dwk_hunter2 more", "dwk_hunter2\nmore", "dwk_hünter2"] {
            let (_folder, path) = kept(0o600, text);
            let fault = format!("{:#}", found(&path).await.err().unwrap());
            assert!(fault.contains("key") && !fault.contains("nter2"), "{fault}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(found(folder.path()).await.is_err(), "a folder is no key");
        assert!(found(&folder.path().join("none")).await.is_err());
    }

    #[tokio::test]
    async fn a_renewed_token_is_found_and_a_refused_one_is_not_tried_again() {
        let (_folder, path) = kept(0o600, "first");
        let credential = found(&path).await.unwrap();
        let refused = credential.header();
        assert!(!credential.renew(refused.as_ref(), Behalf::Client).await);
        fs::write(&path, "second").unwrap();
        assert!(credential.renew(refused.as_ref(), Behalf::Client).await);
        assert_eq!(credential.header().unwrap(), "Bearer second");
    }

    #[tokio::test]
    async fn of_many_that_are_refused_at_once_one_asks_again() {
        let credential = Credential::find(Source::Same(tokio::sync::Semaphore::new(1))).await.unwrap();
        let Source::Same(allowed) = &credential.source else { panic!("another source") };
        let refused = credential.header();
        let renew = || credential.renew(refused.as_ref(), Behalf::Client);
        // All of them wait before the first is told.
        let (first, second, third, ()) = tokio::join!(renew(), renew(), renew(), async { allowed.add_permits(8) });
        assert!(!first && !second && !third, "it is the same that was refused");
        assert_eq!(allowed.available_permits(), 7, "one was told, and all the others heard it");
        assert!(!renew().await);
        assert_eq!(allowed.available_permits(), 6, "whoever is refused later asks again");
    }
}
