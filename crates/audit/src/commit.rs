//! Commitments to texts: a leaf proves what an argument or result was without holding it.
//!
//! The digest is SHA-256 over (salt, length, text). The salt is HMAC-SHA-256 of (call, side) under a key of the
//! call's day, which lies beside the tree in `salt/<day>`. Whoever holds the text and the day's key can show that it
//! is the one; once the key is destroyed, the digest says nothing about the text, even to someone who guesses it, and
//! the tree still verifies. Never stores a text.

use crate::record::Commitment;
use aws_lc_rs::{hmac, rand};
use std::{
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};
use vocab::{CallId, Digest, Side, Timestamp};

/// Why a text cannot be committed to.
#[derive(Debug, thiserror::Error)]
pub enum SaltsFault {
    /// The day's key cannot be read or made.
    #[error("cannot use the salt key `{}`", path.display())]
    Disk {
        /// The key's file.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// The day's key was destroyed.
    #[error("the salt key of that day does not exist")]
    Gone,
}

/// The keys that commitments are salted under, one per day.
pub struct Salts {
    dir: PathBuf,
    /// The keys of the day in use. A read of it is all that a call costs.
    today: RwLock<Option<(i64, Arc<hmac::Key>)>>,
}

impl Salts {
    /// Opens the keys of the log in `dir`.
    pub fn open(dir: &Path) -> Result<Self, SaltsFault> {
        let dir = dir.join("salt");
        fs::create_dir_all(&dir).map_err(|cause| SaltsFault::Disk { path: dir.clone(), cause })?;
        Ok(Self { dir, today: RwLock::new(None) })
    }

    /// Commits to `text`. Reads or makes a key file with the first call of a day.
    pub fn commit(&self, call: &CallId, at: Timestamp, side: Side, text: &[u8]) -> Result<Commitment, SaltsFault> {
        let day = day(at);
        let kept = self.today.read().unwrap_or_else(PoisonError::into_inner).clone();
        let key = match kept {
            Some((of, key)) if of == day => key,
            _ => {
                let key = Arc::new(self.load(day)?.map_or_else(|| self.make(day), Ok)?);
                *self.today.write().unwrap_or_else(PoisonError::into_inner) = Some((day, Arc::clone(&key)));
                key
            }
        };
        Ok(commitment(&key, call, side, text))
    }

    /// Whether `text` is what `commitment` was made from. Needs the key of the call's day.
    pub fn matches(
        &self,
        commitment: &Commitment,
        call: &CallId,
        at: Timestamp,
        side: Side,
        text: &[u8],
    ) -> Result<bool, SaltsFault> {
        let key = self.load(day(at))?.ok_or(SaltsFault::Gone)?;
        Ok(self::commitment(&key, call, side, text) == *commitment)
    }

    /// Destroys the key of the day that `at` lies in: its commitments say nothing any more.
    pub fn forget(&self, at: Timestamp) -> Result<(), SaltsFault> {
        let path = self.path(day(at));
        *self.today.write().unwrap_or_else(PoisonError::into_inner) = None;
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(SaltsFault::Disk { path, cause }),
            _ => Ok(()),
        }
    }

    fn path(&self, day: i64) -> PathBuf {
        self.dir.join(day.to_string())
    }

    fn load(&self, day: i64) -> Result<Option<hmac::Key>, SaltsFault> {
        let path = self.path(day);
        match fs::read(&path) {
            Ok(bytes) if bytes.len() == 32 => Ok(Some(hmac::Key::new(hmac::HMAC_SHA256, &bytes))),
            Ok(_) => Err(SaltsFault::Disk { path, cause: io::Error::other("it is not 32 bytes long") }),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(SaltsFault::Disk { path, cause }),
        }
    }

    /// Makes the key of a day. Of two threads that try, one wins and both use its key.
    fn make(&self, day: i64) -> Result<hmac::Key, SaltsFault> {
        let path = self.path(day);
        let fault = |cause| SaltsFault::Disk { path: path.clone(), cause };
        let mut bytes = [0_u8; 32];
        rand::fill(&mut bytes).map_err(|_| fault(io::Error::other("no randomness")))?;
        let mut draft_name = [0_u8; 8];
        rand::fill(&mut draft_name).map_err(|_| fault(io::Error::other("no randomness")))?;
        let draft = self.dir.join(format!(".{:016x}", u64::from_be_bytes(draft_name)));
        let written =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).and_then(|mut file| {
                file.write_all(&bytes)?;
                file.sync_all()
            });
        let linked = written.and_then(|()| fs::hard_link(&draft, &path));
        let removed = fs::remove_file(&draft);
        match linked {
            Ok(()) => removed.map_err(fault)?,
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
            Err(cause) => return Err(fault(cause)),
        }
        self.load(day)?.ok_or(SaltsFault::Gone)
    }
}

impl std::fmt::Debug for Salts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Salts").field("dir", &self.dir).finish_non_exhaustive()
    }
}

const fn day(at: Timestamp) -> i64 {
    at.as_seconds().div_euclid(86_400)
}

fn commitment(key: &hmac::Key, call: &CallId, side: Side, text: &[u8]) -> Commitment {
    let mut context = hmac::Context::with_key(key);
    context.update(call.as_bytes());
    context.update(match side {
        Side::Arguments => b"arguments",
        Side::Result => b"result",
    });
    let salt = context.sign();
    let bytes = text.len() as u64;
    Commitment { bytes, digest: Digest::of_parts(&[salt.as_ref(), &bytes.to_be_bytes(), text]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commitment_is_worthless_once_its_key_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let salts = Salts::open(dir.path()).unwrap();
        let (call, at) = (CallId::from_bytes([7; 16]), Timestamp::from_seconds(1_795_000_000));
        let made = salts.commit(&call, at, Side::Arguments, b"42").unwrap();

        assert_eq!(made.bytes, 2);
        assert_ne!(made, salts.commit(&call, at, Side::Result, b"42").unwrap());
        assert_ne!(made, salts.commit(&CallId::from_bytes([8; 16]), at, Side::Arguments, b"42").unwrap());
        let reopened = Salts::open(dir.path()).unwrap();
        assert!(reopened.matches(&made, &call, at, Side::Arguments, b"42").unwrap());
        assert!(!reopened.matches(&made, &call, at, Side::Arguments, b"43").unwrap());

        salts.forget(at).unwrap();
        assert!(matches!(salts.matches(&made, &call, at, Side::Arguments, b"42"), Err(SaltsFault::Gone)));
        assert_ne!(made, salts.commit(&call, at, Side::Arguments, b"42").unwrap(), "the new key is another");
    }
}
