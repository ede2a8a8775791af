//! Who calls.
//!
//! A credential comes in, a [`Principal`] goes out, or an [`AuthFault`] with who that was if it was shown. [`Identity`] is
//! one immutable snapshot of the configuration; what changes while it lives (keys, switched-off agents, revoked tokens,
//! signing keys of issuers) is shared between snapshots. This crate never reads a clock, a database or the environment,
//! and never prints a credential.

mod algorithm;
mod authenticate;
mod cache;
mod claim;
mod credential;
mod fault;
mod jwks;
mod key;
mod keyset;
mod principal;
mod registry;
mod settings;
mod token;

#[cfg(test)]
mod tests;

pub use algorithm::{Algorithm, AlgorithmError};
pub use authenticate::Identity;
pub use claim::{ClaimPath, ClaimPathError};
pub use credential::Credential;
pub use fault::{AuthFault, Proven, Refused};
pub use jwks::{JwksCache, Reread, why_no_keys};
pub use key::{AdminRole, AdminRoleError, ApiKey, KeyId, KeyIdError, KeyKind, RandomFault};
pub use principal::{Administrator, CredentialId, Principal};
pub use registry::{KeyHolder, KeyRow, Registry};
pub use settings::{AgentSetting, IssuerSetting, JwksSource, Settings, SettingsFault};
