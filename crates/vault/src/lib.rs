//! Secrets at rest.
//!
//! One file, `secrets.json`: each value under a random key of its own, that key under the master key, the whole under
//! a seal, so that any changed byte is noticed. Besides the log's signer and the keys of kept texts
//! nothing else holds key material. Never
//! prints a value, never reads the environment or a clock, never derives a key from a password.

mod document;
mod envelope;
mod fault;
mod file;
mod import;
mod master;
mod signer;
mod source;
mod text;
mod vault;

#[cfg(test)]
mod tests;

pub use document::FILE;
pub use fault::VaultFault;
pub use master::{KeyFault, MasterKey};
pub use signer::{AuditSigner, Sign};
pub use source::KeySource;
pub use text::TextKey;
pub use vault::{SecretInfo, Vault, names};
