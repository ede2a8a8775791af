//! The key that signs the log's checkpoints: made with the vault, kept like a secret, never handed out.

use crate::VaultFault;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use std::fmt;

/// The public key's file in the data directory, written by who opens the log. Its presence means: this directory was
/// in use.
pub(crate) const PUBLIC_FILE: &str = "log.pub";

/// Signs a message.
pub type Sign = Box<dyn Fn(&[u8]) -> [u8; 64] + Send + Sync>;

/// Signs for the log (Ed25519).
pub struct AuditSigner {
    /// The public key.
    pub public: [u8; 32],
    /// The signature of a message.
    pub sign: Sign,
}

impl AuditSigner {
    pub(crate) fn from_seed(seed: &[u8]) -> Result<Self, VaultFault> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| VaultFault::Crypto)?;
        let public = array(pair.public_key().as_ref()).ok_or(VaultFault::Crypto)?;
        // An Ed25519 signature has 64 bytes; any other length yields one that no verifier accepts.
        let sign = move |message: &[u8]| array(pair.sign(message).as_ref()).unwrap_or([0; 64]);
        Ok(Self { public, sign: Box::new(sign) })
    }
}

fn array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

impl fmt::Debug for AuditSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditSigner([redacted])")
    }
}
