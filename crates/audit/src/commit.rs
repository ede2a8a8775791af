//! Commitments to texts: a leaf proves what an argument or result was without holding it.
//!
//! The digest is SHA-256 over (salt, side, length, SHA-256 of the text). The salt is HMAC-SHA-256 of the call under a
//! key of the call's day, which lies beside the tree in `salt/<day>` (empty once it was destroyed: that day gets no other). Whoever holds the text and the day's key can show that it
//! is the one; once the key is destroyed, the digest says nothing about the text, even to someone who guesses it, and
//! the tree still verifies. Never stores a text.

use crate::{
    disk::{Disk, blank, is_blank},
    record::Commitment,
};
use arc_swap::ArcSwapOption;
use aws_lc_rs::{hmac, rand};
use std::{
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use vocab::{CallId, Day, Digest, Side, Timestamp};

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
    /// The day in use and its key. A look at it is all that a call costs.
    today: ArcSwapOption<(i64, hmac::Key)>,
}

/// What the commitments of one call are salted with. Whoever has it can check texts against them, and nothing else.
#[derive(Clone, Copy)]
pub struct Salt([u8; 32]);

/// All that a commitment needs to know of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// How long it is.
    pub bytes: u64,
    /// Its plain digest. It says what the text was to whoever can guess it: not for the log.
    pub digest: Digest,
}

impl Fingerprint {
    /// The fingerprint of `text`.
    pub fn of(text: &[u8]) -> Self {
        Self { bytes: text.len() as u64, digest: Digest::of(text) }
    }
}

impl Salt {
    /// Commits to a text.
    pub fn commit(&self, side: Side, text: &Fingerprint) -> Commitment {
        let side = match side {
            Side::Arguments => [0],
            Side::Result => [1],
        };
        let digest = Digest::of_parts(&[&self.0, &side, &text.bytes.to_be_bytes(), text.digest.as_bytes()]);
        Commitment { bytes: text.bytes, digest }
    }
}

impl std::fmt::Debug for Salt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salt([redacted])")
    }
}

impl Salts {
    /// Opens the keys of the log in `dir`.
    pub fn open(dir: &Path) -> Result<Self, SaltsFault> {
        let dir = dir.join("salt");
        let tidied = fs::create_dir_all(&dir).and_then(|()| remove_drafts(&dir));
        tidied.map_err(|cause| SaltsFault::Disk { path: dir.clone(), cause })?;
        Ok(Self { dir, today: ArcSwapOption::empty() })
    }

    /// The salt of a call. Reads or makes a key file with the first call of a day; a day whose key was destroyed gets no
    /// other.
    pub fn of(&self, call: &CallId, at: Timestamp) -> Result<Salt, SaltsFault> {
        self.with_key(day(at), |key| salt(key, call))
    }

    /// Whether calls of the day that `at` lies in can have salts. Makes the key if there is none.
    pub fn ready(&self, at: Timestamp) -> Result<(), SaltsFault> {
        self.with_key(day(at), |_| ())
    }

    fn with_key<T>(&self, day: i64, then: impl FnOnce(&hmac::Key) -> T) -> Result<T, SaltsFault> {
        if let Some(today) = &*self.today.load()
            && today.0 == day
        {
            return Ok(then(&today.1));
        }
        let key = self.load(day)?.map_or_else(|| self.make(day), Ok)?;
        let had = then(&key);
        self.today.store(Some(Arc::new((day, key))));
        Ok(had)
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
        Ok(salt(&key, call).commit(side, &Fingerprint::of(text)) == *commitment)
    }

    /// Destroys the key of the day that `at` lies in: its commitments say nothing any more. What is left is an empty
    /// file, for which no disk is too full, and in whose place no other key is made.
    pub fn forget(&self, at: Timestamp) -> Result<(), SaltsFault> {
        let path = self.path(day(at));
        let forgotten = blank(&path).and_then(|is_there| {
            if is_there {
                let file = fs::File::options().write(true).open(&path)?;
                file.set_len(0)?;
                file.sync_all()?;
            }
            Ok(())
        });
        self.today.store(None);
        forgotten.map_err(|cause| SaltsFault::Disk { path, cause })
    }

    /// Whether a day has a key.
    pub(crate) fn has(&self, day: Day) -> Result<bool, SaltsFault> {
        let path = self.path(day.number());
        match fs::metadata(&path) {
            Ok(data) => Ok(data.len() > 0),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(SaltsFault::Disk { path, cause }),
        }
    }

    /// The days that have a key.
    pub(crate) fn days(&self) -> Result<Vec<Day>, SaltsFault> {
        let fault = |cause| SaltsFault::Disk { path: self.dir.clone(), cause };
        let mut days = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(fault)? {
            let name = entry.map_err(fault)?.file_name();
            let Some(day) = name.to_str().and_then(|name| name.parse().ok()).map(Day::from_number) else { continue };
            if self.has(day)? {
                days.push(day);
            }
        }
        Ok(days)
    }

    fn path(&self, day: i64) -> PathBuf {
        self.dir.join(day.to_string())
    }

    fn load(&self, day: i64) -> Result<Option<hmac::Key>, SaltsFault> {
        let path = self.path(day);
        match fs::read(&path) {
            // Also where a crash cut its end short.
            Ok(bytes) if is_blank(&bytes) => Err(SaltsFault::Gone),
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
        Disk::default().sync_dir(&self.dir).map_err(fault)?;
        self.load(day)?.ok_or(SaltsFault::Gone)
    }
}

impl std::fmt::Debug for Salts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Salts").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// Removes what a crash left of making a key: a second name of one, or one that nobody ever used. Only the name: what
/// stands there may be a key in use.
fn remove_drafts(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

const fn day(at: Timestamp) -> i64 {
    at.as_seconds().div_euclid(86_400)
}

fn salt(key: &hmac::Key, call: &CallId) -> Salt {
    let mut salt = Salt([0; 32]);
    for (to, from) in salt.0.iter_mut().zip(hmac::sign(key, call.as_bytes()).as_ref()) {
        *to = *from;
    }
    salt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_name_of_a_key_outlives_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = Timestamp::from_seconds(1_795_000_000);
        let salts = Salts::open(dir.path()).unwrap();
        salts.of(&CallId::from_bytes([7; 16]), at).unwrap();
        let (key, draft) = (salts.path(day(at)), dir.path().join("salt/.00000000000000aa"));
        // A crash between the second name and the end of the first.
        fs::hard_link(&key, &draft).unwrap();
        let before = fs::read(&key).unwrap();
        let salts = Salts::open(dir.path()).unwrap();
        assert!(!draft.exists());
        assert_eq!(fs::read(&key).unwrap(), before, "the key itself is in use");
        // What a copy of the file system still points at says nothing either.
        let pointed = dir.path().join("pointed");
        fs::hard_link(&key, &pointed).unwrap();
        salts.forget(at).unwrap();
        assert!(is_blank(&fs::read(&pointed).unwrap()));
        assert!(salts.days().unwrap().is_empty());
        // A crash in the middle of that leaves zeros: no key.
        fs::write(&key, [0; 32]).unwrap();
        assert!(matches!(salts.of(&CallId::from_bytes([7; 16]), at), Err(SaltsFault::Gone)));
        assert_eq!(salts.days().unwrap().len(), 1, "and is ended");
    }

    #[test]
    fn a_commitment_is_worthless_once_its_key_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let salts = Salts::open(dir.path()).unwrap();
        let (call, at) = (CallId::from_bytes([7; 16]), Timestamp::from_seconds(1_795_000_000));
        let commit = |call: &CallId, side| salts.of(call, at).unwrap().commit(side, &Fingerprint::of(b"42"));
        let made = commit(&call, Side::Arguments);

        assert_eq!(made.bytes, 2);
        assert_ne!(made, commit(&call, Side::Result));
        assert_ne!(made, commit(&CallId::from_bytes([8; 16]), Side::Arguments));
        let reopened = Salts::open(dir.path()).unwrap();
        assert!(reopened.matches(&made, &call, at, Side::Arguments, b"42").unwrap());
        assert!(!reopened.matches(&made, &call, at, Side::Arguments, b"43").unwrap());

        salts.forget(at).unwrap();
        assert!(matches!(salts.matches(&made, &call, at, Side::Arguments, b"42"), Err(SaltsFault::Gone)));
        assert!(matches!(salts.of(&call, at), Err(SaltsFault::Gone)), "the day gets no other");
        assert!(matches!(Salts::open(dir.path()).unwrap().of(&call, at), Err(SaltsFault::Gone)));
    }
}
