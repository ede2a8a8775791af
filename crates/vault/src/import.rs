//! Takes over secrets that another program kept as Fernet tokens.

use crate::{Vault, VaultFault};
use fernet::Fernet;
use std::collections::BTreeSet;
use vocab::{Secret, SecretName, Timestamp};
use zeroize::Zeroizing;

impl Vault {
    /// Stores what the Fernet tokens hold: all of them or none. Returns those that were there before, and are replaced.
    pub fn import_fernet(
        &self,
        key: &Secret<String>,
        tokens: &[(SecretName, String)],
        now: Timestamp,
    ) -> Result<Vec<SecretName>, VaultFault> {
        let fernet = Fernet::new(key.expose().trim()).ok_or(VaultFault::FernetKey)?;
        let mut values = Vec::with_capacity(tokens.len());
        let mut names = BTreeSet::new();
        for (name, token) in tokens {
            // Of two values under one name, one would be lost.
            if !names.insert(name) {
                return Err(VaultFault::Twice(name.clone()));
            }
            let fault = || VaultFault::FernetToken(name.clone());
            let plain = Zeroizing::new(fernet.decrypt(token.trim()).map_err(|_| fault())?);
            let text = std::str::from_utf8(&plain).map_err(|_| fault())?;
            values.push((name, Secret::new(text.to_owned())));
        }
        self.change(|document, master| {
            let mut replaced = Vec::new();
            for (name, value) in &values {
                if document.put(master, name, value.expose(), now)? > 1 {
                    replaced.push((*name).clone());
                }
            }
            Ok(replaced)
        })
    }
}
