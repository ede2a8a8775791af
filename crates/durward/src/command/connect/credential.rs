//! The credential with which the client's messages travel: an agent's key, or a bearer token.
//!
//! From a file or from the environment, never from an argument. Never printed.

use anyhow::{Context, Result, bail, ensure};
use http::HeaderValue;
use rustix::fs::{Mode, OFlags};
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};
use vocab::Secret;

/// The variable.
pub(super) const VARIABLE: &str = "DURWARD_KEY";
/// A key or a token is not longer, in bytes.
const LONGEST: u64 = 64 << 10;

/// What proves who calls, if anything does.
pub(super) struct Credential {
    /// Where it can be read again: tokens are renewed.
    file: Option<PathBuf>,
    header: Mutex<Option<HeaderValue>>,
}

impl Credential {
    /// Finds it: in the file that is named, else in the environment. Without any the caller is nobody in particular.
    pub(super) fn find(file: Option<&Path>) -> Result<Self> {
        let header = match file {
            Some(path) => Some(header(&from_file(path)?).with_context(|| path.display().to_string())?),
            None => match from_environment()? {
                Some(text) => Some(header(&text).with_context(|| format!("the variable {VARIABLE}"))?),
                None => None,
            },
        };
        Ok(Self { file: file.map(Path::to_owned), header: Mutex::new(header) })
    }

    /// The value of `Authorization`.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        self.header.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// After a refusal: reads the file again. Whether it holds something else than what was refused.
    pub(super) fn renew(&self, refused: Option<&HeaderValue>) -> bool {
        let Some(path) = &self.file else { return false };
        let found = from_file(path).and_then(|text| header(&text));
        let found = match found {
            Ok(found) => found,
            Err(fault) => {
                tracing::warn!("the key cannot be read again: {fault:#}");
                return false;
            }
        };
        let is_new = refused != Some(&found);
        *self.header.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        is_new
    }
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
    let text = text.expose().trim();
    ensure!(!text.is_empty(), "it is empty; `durward agent key create NAME` makes a key");
    // SECURITY: what is wrong is not shown.
    ensure!(text.bytes().all(|byte| byte.is_ascii_graphic()), "it is no key or token: those are one word");
    let mut value = HeaderValue::try_from(format!("Bearer {text}"))?;
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

    #[test]
    fn a_key_file_is_for_its_owner_alone() {
        for mode in [0o600, 0o400] {
            let (_folder, path) = kept(mode, "dwk_hunter2\n");
            let header = Credential::find(Some(&path)).unwrap().header().unwrap();
            assert!(header == "Bearer dwk_hunter2" && header.is_sensitive());
        }
        for mode in [0o640, 0o604, 0o620, 0o644] {
            let (_folder, path) = kept(mode, "dwk_hunter2\n");
            let fault = format!("{:#}", Credential::find(Some(&path)).err().unwrap());
            assert!(fault.contains("chmod 600") && !fault.contains("hunter2"), "{fault}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_shown() {
        for text in ["", " \n", "dwk_hunter2 more", "dwk_hunter2\nmore", "dwk_hünter2"] {
            let (_folder, path) = kept(0o600, text);
            let fault = format!("{:#}", Credential::find(Some(&path)).err().unwrap());
            assert!(fault.contains("key") && !fault.contains("nter2"), "{fault}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(Credential::find(Some(folder.path())).is_err(), "a folder is no key");
        assert!(Credential::find(Some(&folder.path().join("none"))).is_err());
    }

    #[test]
    fn a_renewed_token_is_found_and_a_refused_one_is_not_tried_again() {
        let (_folder, path) = kept(0o600, "first");
        let credential = Credential::find(Some(&path)).unwrap();
        let refused = credential.header();
        assert!(!credential.renew(refused.as_ref()));
        fs::write(&path, "second").unwrap();
        assert!(credential.renew(refused.as_ref()));
        assert_eq!(credential.header().unwrap(), "Bearer second");
    }
}
