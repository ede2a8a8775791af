//! The content of `secrets.json`: what stands in it, and that it is what was written.
//!
//! INVARIANT: a file that is taken in is byte for byte what we would write, and its seal covers all of it.

use crate::{
    VaultFault,
    envelope::{Broken, Envelope, Key, Label, Sealed},
    master::KeyBytes,
};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};
use vocab::{SecretName, TenantId, Timestamp};
use zeroize::Zeroizing;

/// The file's name in the data directory.
pub const FILE: &str = "secrets.json";
/// Its layout.
const FORMAT: u32 = 1;
/// The largest file that is read or written.
pub(crate) const LARGEST: u64 = 16 * 1024 * 1024;

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    format: u32,
    pub(crate) tenant: TenantId,
    /// Opens under the right master key only: tells a wrong key from a damaged file.
    check: Sealed,
    signer: Entry,
    pub(crate) secrets: BTreeMap<SecretName, Entry>,
    /// What the keys of kept texts are sealed under; made when the first is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    texts: Option<Envelope>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) version: u64,
    pub(crate) created: Timestamp,
    pub(crate) rotated: Timestamp,
    sealed: Envelope,
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    document: Document,
    seal: Sealed,
}

/// Only what is needed to know whether we can read the rest.
#[derive(Deserialize)]
struct Outline {
    document: OutlineDocument,
}

#[derive(Deserialize)]
struct OutlineDocument {
    format: u32,
}

/// Only the names of secrets.
#[derive(Deserialize)]
struct Listing {
    document: Named,
}

#[derive(Deserialize)]
struct Named {
    #[expect(clippy::zero_sized_map_values, reason = "a set could not pass over what stands behind each name")]
    secrets: BTreeMap<SecretName, IgnoredAny>,
}

/// The names of secrets in a file, which stand there in the clear. Nobody vouches for them: nothing is opened.
pub(crate) fn names(bytes: &[u8]) -> Result<BTreeSet<SecretName>, serde_json::Error> {
    let listing: Listing = serde_json::from_slice(bytes)?;
    Ok(listing.document.secrets.into_keys().collect())
}

const CHECK: &[u8] = b"durward/vault/1/check";
const SEAL: &[u8] = b"durward/vault/1/seal";

fn secret<'a>(tenant: &'a TenantId, name: &'a SecretName, version: u64) -> Label<'a> {
    Label { tenant: tenant.as_str(), kind: "secret", name: name.as_str(), version }
}

fn signer(tenant: &TenantId) -> Label<'_> {
    Label { tenant: tenant.as_str(), kind: "signer", name: "log", version: 1 }
}

fn texts(tenant: &TenantId) -> Label<'_> {
    Label { tenant: tenant.as_str(), kind: "texts", name: "log", version: 1 }
}

impl Document {
    /// An empty document with the seed of the log's signer.
    pub(crate) fn new(tenant: TenantId, master: &Key, seed: &[u8; 32], now: Timestamp) -> Result<Self, VaultFault> {
        let check = master.seal(CHECK, b"")?;
        let sealed = Envelope::seal(master, signer(&tenant), seed)?;
        let signer = Entry { version: 1, created: now, rotated: now, sealed };
        Ok(Self { format: FORMAT, tenant, check, signer, secrets: BTreeMap::new(), texts: None })
    }

    /// Reads a file. `path` is for faults only.
    pub(crate) fn read(bytes: &[u8], master: &Key, path: &Path) -> Result<Self, VaultFault> {
        let tampered = || VaultFault::Tampered { path: path.to_owned() };
        let outline: Outline = serde_json::from_slice(bytes).map_err(|_| tampered())?;
        if outline.document.format != FORMAT {
            return Err(VaultFault::Newer { path: path.to_owned(), found: outline.document.format, known: FORMAT });
        }
        let whole: Whole = serde_json::from_slice(bytes).map_err(|_| tampered())?;
        if serialize(&whole)? != bytes {
            return Err(tampered());
        }
        if master.open(CHECK, &whole.document.check).is_err() {
            return Err(VaultFault::WrongKey { path: path.to_owned() });
        }
        master.open(&whole.document.sealing()?, &whole.seal).map_err(|Broken| tampered())?;
        Ok(whole.document)
    }

    /// The file's content, sealed.
    pub(crate) fn write(&self, master: &Key) -> Result<Vec<u8>, VaultFault> {
        let seal = master.seal(&self.sealing()?, b"")?;
        serialize(&Whole { document: self.clone(), seal })
    }

    /// What the seal is over.
    fn sealing(&self) -> Result<Vec<u8>, VaultFault> {
        Ok([SEAL, b"\0", &serialize(self)?].concat())
    }

    pub(crate) fn open(&self, master: &Key, name: &SecretName) -> Result<Zeroizing<Vec<u8>>, VaultFault> {
        let entry = self.secrets.get(name).ok_or_else(|| VaultFault::Unknown(name.clone()))?;
        let label = secret(&self.tenant, name, entry.version);
        entry.sealed.open(master, label).map_err(|Broken| VaultFault::Sealed(name.clone()))
    }

    /// Stores a value as the next version of `name`. Returns the version.
    pub(crate) fn put(
        &mut self,
        master: &Key,
        name: &SecretName,
        value: &str,
        now: Timestamp,
    ) -> Result<u64, VaultFault> {
        if value.is_empty() || value.len() > 64 * 1024 {
            return Err(VaultFault::Size(name.clone()));
        }
        let before = self.secrets.get(name);
        let version = before.map_or(1, |entry| entry.version.saturating_add(1));
        let created = before.map_or(now, |entry| entry.created);
        let sealed = Envelope::seal(master, secret(&self.tenant, name, version), value.as_bytes())?;
        self.secrets.insert(name.clone(), Entry { version, created, rotated: now, sealed });
        Ok(version)
    }

    /// The seed of the log's signer.
    pub(crate) fn seed(&self, master: &Key) -> Result<Zeroizing<Vec<u8>>, Broken> {
        self.signer.sealed.open(master, signer(&self.tenant))
    }

    /// What the keys of kept texts are sealed under, if there were any.
    pub(crate) fn texts(&self, master: &Key) -> Result<Option<Key>, VaultFault> {
        let Some(sealed) = &self.texts else { return Ok(None) };
        let plain = sealed.open(master, texts(&self.tenant)).map_err(|Broken| VaultFault::TextKey)?;
        let mut bytes = KeyBytes::default();
        if plain.len() != bytes.len() {
            return Err(VaultFault::TextKey);
        }
        bytes.copy_from_slice(&plain);
        Key::new(&bytes).map(Some)
    }

    /// Makes it unless it is there.
    pub(crate) fn make_texts(&mut self, master: &Key) -> Result<Key, VaultFault> {
        if let Some(key) = self.texts(master)? {
            return Ok(key);
        }
        let mut bytes = KeyBytes::default();
        aws_lc_rs::rand::fill(bytes.as_mut()).map_err(|_| VaultFault::Crypto)?;
        self.texts = Some(Envelope::seal(master, texts(&self.tenant), bytes.as_ref())?);
        Key::new(&bytes)
    }

    /// The same secrets under another master key.
    pub(crate) fn rewrap(&self, old: &Key, new: &Key) -> Result<Self, VaultFault> {
        let mut next = self.clone();
        next.check = new.seal(CHECK, b"")?;
        next.signer.sealed =
            self.signer.sealed.rewrap(old, new, signer(&self.tenant)).map_err(|Broken| VaultFault::Crypto)?;
        if let Some(sealed) = &mut next.texts {
            *sealed = sealed.rewrap(old, new, texts(&self.tenant)).map_err(|Broken| VaultFault::Crypto)?;
        }
        for (name, entry) in &mut next.secrets {
            let label = secret(&self.tenant, name, entry.version);
            entry.sealed = entry.sealed.rewrap(old, new, label).map_err(|Broken| VaultFault::Sealed(name.clone()))?;
        }
        Ok(next)
    }
}

/// Indented and in a fixed order: operators compare versions of this file.
fn serialize<T: Serialize>(value: &T) -> Result<Vec<u8>, VaultFault> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|_| VaultFault::Crypto)?;
    bytes.push(b'\n');
    Ok(bytes)
}
