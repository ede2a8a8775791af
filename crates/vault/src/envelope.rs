//! One sealed value: AES-256-GCM under a key of its own, which is sealed under the master key.
//!
//! Nonces are random. Associated data names tenant, kind, name and version, each with its length, so that no
//! envelope opens in another's place.

use crate::{VaultFault, master::KeyBytes};
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use zeroize::Zeroizing;

/// Nonce, ciphertext and tag; base64 in the file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Sealed(Vec<u8>);

impl Sealed {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl Serialize for Sealed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Sealed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map(Self).map_err(|_| D::Error::custom("not base64"))
    }
}

/// A ciphertext that does not open.
#[derive(Debug)]
pub(crate) struct Broken;

/// An AES-256-GCM key ready for use.
pub(crate) struct Key(RandomizedNonceKey);

impl Key {
    pub(crate) fn new(bytes: &KeyBytes) -> Result<Self, VaultFault> {
        RandomizedNonceKey::new(&AES_256_GCM, bytes.as_ref()).map(Self).map_err(|_| VaultFault::Crypto)
    }

    pub(crate) fn seal(&self, label: &[u8], plain: &[u8]) -> Result<Sealed, VaultFault> {
        let mut text = Zeroizing::new(Vec::with_capacity(plain.len() + AES_256_GCM.tag_len()));
        text.extend_from_slice(plain);
        let nonce = self.0.seal_in_place_append_tag(Aad::from(label), &mut *text).map_err(|_| VaultFault::Crypto)?;
        Ok(Sealed([nonce.as_ref().as_slice(), text.as_slice()].concat()))
    }

    pub(crate) fn open(&self, label: &[u8], sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, Broken> {
        let (nonce, text) = sealed.0.split_at_checked(NONCE_LEN).ok_or(Broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Broken)?;
        let mut text = Zeroizing::new(text.to_vec());
        let length = self.0.open_in_place(nonce, Aad::from(label), &mut text).map_err(|_| Broken)?.len();
        text.truncate(length);
        Ok(text)
    }
}

/// A value and the key it is sealed under.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Envelope {
    /// The value's key, under the master key.
    key: Sealed,
    /// The value, under that key.
    value: Sealed,
}

/// What an envelope is for.
#[derive(Clone, Copy)]
pub(crate) struct Label<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) kind: &'static str,
    pub(crate) name: &'a str,
    pub(crate) version: u64,
}

impl Label<'_> {
    fn bytes(self, part: &str) -> Vec<u8> {
        let version = self.version.to_be_bytes();
        let fields: [&[u8]; 6] = [
            b"durward/vault/1",
            part.as_bytes(),
            self.tenant.as_bytes(),
            self.kind.as_bytes(),
            self.name.as_bytes(),
            &version,
        ];
        let mut bytes = Vec::with_capacity(128);
        for field in fields {
            bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
            bytes.extend_from_slice(field);
        }
        bytes
    }
}

impl Envelope {
    pub(crate) fn seal(master: &Key, label: Label<'_>, plain: &[u8]) -> Result<Self, VaultFault> {
        let mut bytes = KeyBytes::default();
        aws_lc_rs::rand::fill(bytes.as_mut()).map_err(|_| VaultFault::Crypto)?;
        let value = Key::new(&bytes)?.seal(&label.bytes("value"), plain)?;
        let key = master.seal(&label.bytes("key"), bytes.as_ref())?;
        Ok(Self { key, value })
    }

    pub(crate) fn open(&self, master: &Key, label: Label<'_>) -> Result<Zeroizing<Vec<u8>>, Broken> {
        let bytes = unwrap_key(master, label, &self.key)?;
        Key::new(&bytes).map_err(|_| Broken)?.open(&label.bytes("value"), &self.value)
    }

    /// The same value with its key under another master key.
    pub(crate) fn rewrap(&self, old: &Key, new: &Key, label: Label<'_>) -> Result<Self, Broken> {
        let bytes = unwrap_key(old, label, &self.key)?;
        let key = new.seal(&label.bytes("key"), bytes.as_ref()).map_err(|_| Broken)?;
        Ok(Self { key, value: self.value.clone() })
    }
}

fn unwrap_key(master: &Key, label: Label<'_>, sealed: &Sealed) -> Result<KeyBytes, Broken> {
    let plain = master.open(&label.bytes("key"), sealed)?;
    let mut bytes = KeyBytes::default();
    if plain.len() != bytes.len() {
        return Err(Broken);
    }
    bytes.copy_from_slice(&plain);
    Ok(bytes)
}
