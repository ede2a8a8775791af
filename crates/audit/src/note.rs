//! Signed notes and checkpoints (C2SP signed-note and tlog-checkpoint), Ed25519 only.
//!
//! Holds no key: signing is a function that somebody hands in.

use crate::tree::Hash;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use std::fmt;
use vocab::Digest;

/// SPEC: signed-note, the signature type of plain Ed25519.
const ED25519_TYPE: u8 = 1;

/// No note of ours is longer; witnesses may add their lines.
const LONGEST_NOTE: usize = 64 * 1024;

/// Signs a text with an Ed25519 key.
pub type Sign = Box<dyn Fn(&[u8]) -> [u8; 64] + Send + Sync>;

/// Signs checkpoints. The key stays with whoever hands this in.
pub struct Signer {
    /// The name of the key, as signature lines print it: the log's origin, by convention.
    pub name: String,
    /// The Ed25519 public key.
    pub public: [u8; 32],
    /// Signs a text.
    pub sign: Sign,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a text is not a checkpoint that can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteFault {
    /// Not a checkpoint at all.
    #[error("it is not a checkpoint: {0}")]
    Malformed(&'static str),
    /// The key did not sign it.
    #[error("it carries no signature of the given key")]
    Unsigned,
    /// The key's signature is wrong.
    #[error("its signature does not verify")]
    Forged,
}

/// A signed statement: the tree of this origin had this size and this root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    size: u64,
    root: Hash,
    note: String,
}

impl Checkpoint {
    /// Signs the state of a tree.
    pub(crate) fn sign(origin: &str, size: u64, root: &Hash, signer: &Signer) -> Self {
        let text = format!("{origin}\n{size}\n{}\n", BASE64.encode(root));
        let mut signature = key_id(&signer.name, &signer.public).to_vec();
        signature.extend_from_slice(&(signer.sign)(text.as_bytes()));
        let note = format!("{text}\n— {} {}\n", signer.name, BASE64.encode(signature));
        Self { origin: origin.to_owned(), size, root: *root, note }
    }

    /// Reads a checkpoint and verifies that `public` signed it.
    pub fn open(note: &str, public: &[u8; 32]) -> Result<Self, NoteFault> {
        if note.len() > LONGEST_NOTE {
            return Err(NoteFault::Malformed("it is too long"));
        }
        if note.bytes().any(|b| b < 0x20 && b != b'\n') {
            return Err(NoteFault::Malformed("it contains a control character"));
        }
        let (text, signatures) = note.rsplit_once("\n\n").ok_or(NoteFault::Malformed("it has no signatures"))?;
        let signatures =
            signatures.strip_suffix('\n').ok_or(NoteFault::Malformed("its last line is not terminated"))?;
        let signed = format!("{text}\n");
        let mut found = false;
        for line in signatures.split('\n') {
            let (name, signature) = line
                .strip_prefix("— ")
                .and_then(|rest| rest.split_once(' '))
                .ok_or(NoteFault::Malformed("a signature line is not one"))?;
            let signature = BASE64.decode(signature).map_err(|_| NoteFault::Malformed("a signature is not base64"))?;
            let Some((id, signature)) = signature.split_first_chunk::<4>() else {
                return Err(NoteFault::Malformed("a signature is too short"));
            };
            // Signatures of keys that nobody told us about say nothing (witnesses, rotated keys).
            if *id == key_id(name, public) {
                UnparsedPublicKey::new(&ED25519, public)
                    .verify(signed.as_bytes(), signature)
                    .map_err(|_| NoteFault::Forged)?;
                found = true;
            }
        }
        if !found {
            return Err(NoteFault::Unsigned);
        }
        let (origin, size, root) = read_text(text)?;
        Ok(Self { origin, size, root, note: note.to_owned() })
    }

    /// Which tree a note is about, and how many leaves that has. SECURITY: verifies nothing; for those who read the log of
    /// their own disk.
    pub(crate) fn said_in(note: &str) -> Option<(String, u64)> {
        read_text(note.rsplit_once("\n\n")?.0).ok().map(|(origin, size, _)| (origin, size))
    }

    /// Which tree.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// How many leaves it had.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Its root.
    pub const fn root(&self) -> &Hash {
        &self.root
    }

    /// The signed note, to be kept or sent elsewhere.
    pub fn note(&self) -> &str {
        &self.note
    }
}

fn read_text(text: &str) -> Result<(String, u64, Hash), NoteFault> {
    let mut lines = text.split('\n');
    let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
        return Err(NoteFault::Malformed("it has fewer than three lines"));
    };
    if origin.is_empty() || lines.any(str::is_empty) {
        return Err(NoteFault::Malformed("a line is empty"));
    }
    let size = decimal(size).ok_or(NoteFault::Malformed("its size is not a number"))?;
    let root = read_hash(root).ok_or(NoteFault::Malformed("its root is not a hash"))?;
    Ok((origin.to_owned(), size, root))
}

/// A decimal number without sign or leading zeroes.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
    plain.then(|| text.parse().ok()).flatten()
}

/// A base64 hash.
pub(crate) fn read_hash(text: &str) -> Option<Hash> {
    BASE64.decode(text).ok()?.try_into().ok()
}

/// The key as verifiers of signed notes expect it: `name+id+base64`.
pub fn verifier_key(name: &str, public: &[u8; 32]) -> String {
    let mut key = vec![ED25519_TYPE];
    key.extend_from_slice(public);
    format!("{name}+{:08x}+{}", u32::from_be_bytes(key_id(name, public)), BASE64.encode(key))
}

/// SPEC: signed-note, `SHA-256(name ‖ 0x0A ‖ type ‖ key)[:4]`.
fn key_id(name: &str, public: &[u8; 32]) -> [u8; 4] {
    let digest = Digest::of_parts(&[name.as_bytes(), b"\n", &[ED25519_TYPE], public]);
    let [a, b, c, d, ..] = *digest.as_bytes();
    [a, b, c, d]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

    /// A signer with a key made of one byte.
    pub(crate) fn signer(seed: u8) -> Signer {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public = pair.public_key().as_ref().try_into().unwrap();
        Signer {
            name: "example.com/log".into(),
            public,
            sign: Box::new(move |text| pair.sign(text).as_ref().try_into().unwrap()),
        }
    }

    #[test]
    fn a_checkpoint_opens_with_its_key_and_no_other() {
        let ours = signer(1);
        let made = Checkpoint::sign("example.com/log", 7, &[3; 32], &ours);
        assert_eq!(Checkpoint::open(made.note(), &ours.public), Ok(made.clone()));
        assert_eq!(Checkpoint::open(made.note(), &signer(2).public), Err(NoteFault::Unsigned));
        let grown = made.note().replacen("\n7\n", "\n8\n", 1);
        assert_eq!(Checkpoint::open(&grown, &ours.public), Err(NoteFault::Forged));
        let cosigned = format!("{}— witness.example/w1 AAAAAAAA\n", made.note());
        assert_eq!(Checkpoint::open(&cosigned, &ours.public).map(|c| c.size()), Ok(7));
    }

    #[test]
    fn malformed_checkpoints_are_refused() {
        let ours = signer(1);
        for text in [
            "o\n07\n",
            "o\n7\n",
            "\n7\nAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\n",
            "o\n+7\nAwMD\n",
            "o\n7\nAwMD\n",
        ] {
            let signature = [&key_id(&ours.name, &ours.public)[..], &(ours.sign)(text.as_bytes())].concat();
            let note = format!("{text}\n— {} {}\n", ours.name, BASE64.encode(signature));
            assert!(matches!(Checkpoint::open(&note, &ours.public), Err(NoteFault::Malformed(_))), "{text:?}");
        }
        for note in ["", "\n\n", "o\n7\nx", "o\n7\nx\n\nno signature\n", "o\n7\nx\n\n— a b\u{1}\n"] {
            assert!(matches!(Checkpoint::open(note, &ours.public), Err(NoteFault::Malformed(_))), "{note:?}");
        }
    }

    #[test]
    fn the_key_of_the_go_checksum_database_prints_as_published() {
        let key = BASE64.decode("Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8").unwrap();
        let public = key[1..].try_into().unwrap();
        assert_eq!(
            verifier_key("sum.golang.org", &public),
            "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
        );
    }
}
