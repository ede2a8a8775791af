//! Keys for texts that are kept beside the log: one for each label, made to be destroyed.
//!
//! Each is sealed under one key of the vault's own, which is kept like a secret: a new master key re-wraps that one and
//! touches none of theirs. Who destroys a sealed key has erased what is under it.

use crate::{
    Vault, VaultFault,
    document::Document,
    envelope::{Broken, Key, Sealed},
    master::KeyBytes,
};
use std::{fmt, mem};

/// Seals and opens texts under one key.
pub struct TextKey(Key);

impl TextKey {
    /// Seals a text so that it opens with the same label only.
    pub fn seal(&self, label: &[u8], text: &[u8]) -> Result<Vec<u8>, VaultFault> {
        self.0.seal(label, text).map(Sealed::into_bytes)
    }

    /// Opens what was sealed. `None` if it is not what was sealed with this label.
    pub fn open(&self, label: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut text = self.0.open(label, &Sealed::from_bytes(sealed)).ok()?;
        Some(mem::take(&mut *text))
    }
}

impl fmt::Debug for TextKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TextKey([redacted])")
    }
}

impl Vault {
    /// Draws a key for texts. What is given back is sealed, and opens with the same label only.
    pub fn make_text_key(&self, label: &[u8]) -> Result<Vec<u8>, VaultFault> {
        let mut bytes = KeyBytes::default();
        aws_lc_rs::rand::fill(bytes.as_mut()).map_err(|_| VaultFault::Crypto)?;
        let kept = self.read(Document::texts)?;
        let own = match kept {
            Some(own) => own,
            None => self.change(Document::make_texts)?,
        };
        own.seal(label, bytes.as_ref()).map(Sealed::into_bytes)
    }

    /// Opens a key that [`Self::make_text_key`] gave.
    pub fn open_text_key(&self, label: &[u8], sealed: &[u8]) -> Result<TextKey, VaultFault> {
        let own = self.read(Document::texts)?.ok_or(VaultFault::TextKey)?;
        let plain = own.open(label, &Sealed::from_bytes(sealed)).map_err(|Broken| VaultFault::TextKey)?;
        let mut bytes = KeyBytes::default();
        if plain.len() != bytes.len() {
            return Err(VaultFault::TextKey);
        }
        bytes.copy_from_slice(&plain);
        Key::new(&bytes).map(TextKey)
    }
}
