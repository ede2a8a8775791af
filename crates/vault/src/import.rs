//! Takes over secrets that another program kept as Fernet tokens.

use crate::{Vault, VaultFault};
use fernet::Fernet;
use vocab::{Secret, SecretName, Timestamp};
use zeroize::Zeroizing;

impl Vault {
    /// Stores what the Fernet tokens hold: all of them or none. Returns how many.
    pub fn import_fernet(
        &self,
        key: &Secret<String>,
        tokens: &[(SecretName, String)],
        now: Timestamp,
    ) -> Result<usize, VaultFault> {
        let fernet = Fernet::new(key.expose().trim()).ok_or(VaultFault::FernetKey)?;
        let mut values = Vec::with_capacity(tokens.len());
        for (name, token) in tokens {
            let fault = || VaultFault::FernetToken(name.clone());
            let plain = Zeroizing::new(fernet.decrypt(token.trim()).map_err(|_| fault())?);
            let text = std::str::from_utf8(&plain).map_err(|_| fault())?;
            values.push((name, Secret::new(text.to_owned())));
        }
        self.change(|document, master| {
            for (name, value) in &values {
                document.put(master, name, value.expose(), now)?;
            }
            Ok(values.len())
        })
    }
}
