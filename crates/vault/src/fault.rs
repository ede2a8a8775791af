//! What can go wrong with secrets.

use crate::KeyFault;
use std::{io, path::PathBuf};
use vocab::{SecretName, TenantId};

/// A vault that cannot be opened, or a secret that cannot be read or written. SECURITY: never holds a value.
#[derive(Debug, thiserror::Error)]
pub enum VaultFault {
    /// A file cannot be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Others may read the file.
    #[error("{} can be read by others (mode {mode:03o}): run chmod 600 on it", path.display())]
    Mode {
        /// Which one.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The master key cannot be had.
    #[error("the master key cannot be used")]
    Key(#[from] KeyFault),
    /// The secrets are under another master key.
    #[error("{} is encrypted under another master key: give the one it was written with", path.display())]
    WrongKey {
        /// The file.
        path: PathBuf,
    },
    /// Not what was written.
    #[error("{} was changed or damaged: restore it from a backup", path.display())]
    Tampered {
        /// The file.
        path: PathBuf,
    },
    /// A newer Durward wrote the file.
    #[error("{} has format {found}, this version knows {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest one known here.
        known: u32,
    },
    /// The file belongs to another tenant.
    #[error("{} belongs to tenant {found}", path.display())]
    OtherTenant {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: TenantId,
    },
    /// The directory was in use before, but its secrets are gone.
    #[error("{} is missing although the directory was in use: restore it from a backup", path.display())]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// No such secret.
    #[error("there is no secret `{0}`")]
    Unknown(SecretName),
    /// The ciphertext of one secret does not open.
    #[error("secret `{0}` does not decrypt")]
    Sealed(SecretName),
    /// The value is empty or larger than 64 KiB.
    #[error("a secret's value has 1 byte to 64 KiB")]
    Size(SecretName),
    /// The Fernet key is none.
    #[error("a Fernet key is 32 bytes in base64url")]
    FernetKey,
    /// An import names a secret twice.
    #[error("the import names secret `{0}` twice; nothing was imported")]
    Twice(SecretName),
    /// A Fernet token does not open, or not to text.
    #[error("the Fernet token of secret `{0}` does not decrypt to text with this key")]
    FernetToken(SecretName),
    /// The sealed key of kept texts does not open here.
    #[error("the key of the texts does not open under this vault")]
    TextKey,
    /// A generated master key can only replace one that is kept in a file.
    #[error("a generated master key needs a key file to be kept in: give the new key from where the old one came from")]
    NoHome,
    /// The cryptographic library refused; the system may lack random bytes.
    #[error("the cryptographic library failed")]
    Crypto,
}
