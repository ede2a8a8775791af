//! The master key: 32 bytes, taken exactly as given. Never padded, never stretched, never replaced silently.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use std::{fmt, io, path::PathBuf};
use zeroize::Zeroizing;

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFault {
    /// Not 32 bytes.
    #[error("a master key is exactly 32 bytes, raw or as 64 hexadecimal digits or in base64")]
    Shape,
    /// The bytes are not random.
    #[error("the master key is not random: draw it with `openssl rand -base64 32`")]
    Weak,
    /// The key file is gone while the directory holds what it encrypts.
    #[error("the key file {} is missing although the directory was in use: restore it", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The key file that was named is not there.
    #[error(
        "there is no key file {path}: make one with `(umask 077; head -c 32 /dev/urandom | base64 > {path})`",
        path = path.display()
    )]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// Others may read the key file.
    #[error("the key file {} can be read by others (mode {mode:03o}): run chmod 600 on it", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The key file cannot be read or written.
    #[error("cannot use the key file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The key command cannot be run.
    #[error("cannot run the key command `{program}`")]
    Command {
        /// Its program.
        program: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The key command failed.
    #[error("the key command `{program}` failed: {why}")]
    CommandFailed {
        /// Its program.
        program: String,
        /// How.
        why: String,
    },
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
}

pub(crate) type KeyBytes = Zeroizing<[u8; 32]>;

/// Where a master key lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Home {
    /// In a file that we may replace.
    File(PathBuf),
    /// With whoever gave it.
    Elsewhere,
    /// Nowhere yet.
    Generated,
}

/// A master key.
pub struct MasterKey {
    pub(crate) bytes: KeyBytes,
    pub(crate) home: Home,
    /// What an interrupted rotation left beside the key file: the key it was about to become.
    pub(crate) next: Option<KeyBytes>,
}

impl MasterKey {
    /// Draws a new key, for [`crate::Vault::rotate_master`].
    pub fn generate() -> Result<Self, KeyFault> {
        let mut bytes = KeyBytes::default();
        aws_lc_rs::rand::fill(bytes.as_mut()).map_err(|_| KeyFault::Random)?;
        Ok(Self { bytes, home: Home::Generated, next: None })
    }

    /// How a key file is written: base64 and a line end.
    pub(crate) fn encode(bytes: &KeyBytes) -> Zeroizing<String> {
        let mut text = Zeroizing::new(STANDARD.encode(bytes.as_ref()));
        text.push('\n');
        text
    }
}

/// Reads a key: 32 raw bytes, or text with white space around it.
pub(crate) fn parse(given: &[u8]) -> Result<KeyBytes, KeyFault> {
    let decoded = match given.len() {
        // 32 printable characters are a password or half a key in hexadecimal, not 32 random bytes.
        32 if given.iter().all(|byte| (b' '..=b'~').contains(byte)) => return Err(KeyFault::Shape),
        32 => Zeroizing::new(given.to_vec()),
        _ => decode(given.trim_ascii()).ok_or(KeyFault::Shape)?,
    };
    let mut bytes = KeyBytes::default();
    if decoded.len() != bytes.len() {
        return Err(KeyFault::Shape);
    }
    bytes.copy_from_slice(&decoded);
    let first = bytes.first().copied();
    if bytes.iter().all(|byte| Some(*byte) == first) {
        return Err(KeyFault::Weak);
    }
    Ok(bytes)
}

fn decode(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if text.len() == 64 {
        return hexadecimal(text);
    }
    [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD]
        .iter()
        .find_map(|engine| engine.decode(text).ok())
        .map(Zeroizing::new)
}

fn hexadecimal(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 2));
    for pair in text.chunks_exact(2) {
        let [high, low] = pair else { return None };
        bytes.push(digit(*high)? << 4 | digit(*low)?);
    }
    Some(bytes)
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey([redacted], {:?})", self.home)
    }
}
