//! What management works on: plain handles of one installation.

use audit::Log;
use gateway::{clock::Clock, limit::Limits, state::State};
use identity::{AgentSetting, Principal, Registry};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};
use store::Store;
use vault::Vault;
use vocab::{AgentId, TenantId};

/// Reads the configuration again: what came of it, or why nothing did.
pub type Reload = Box<dyn Fn() -> Result<Reloaded, String> + Send + Sync>;

/// What came of reading the configuration again.
#[derive(Debug, Default)]
pub struct Reloaded {
    /// What is different now.
    pub changes: Vec<String>,
    /// What cannot be used for the reason that was told before.
    pub still: Vec<String>,
}

/// One installation, running or not.
pub struct Desk {
    /// Whose it is.
    pub tenant: TenantId,
    /// Rows.
    pub store: Store,
    /// Secrets.
    pub vault: Arc<Vault>,
    /// What every call is checked against.
    pub registry: Arc<Registry>,
    /// The log, open for writing.
    pub log: Arc<Log>,
    /// Where the log is, for reading.
    pub log_dir: PathBuf,
    /// The public key of the log, as verifiers take it.
    pub log_key: String,
    /// The same, as bytes.
    pub log_public: [u8; 32],
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The agents of the configuration as it is now.
    pub agents: Box<dyn Fn() -> BTreeMap<AgentId, AgentSetting> + Send + Sync>,
    /// The running gateway, if it runs.
    pub plane: Option<Plane>,
}

/// What there is only while the gateway runs.
pub struct Plane {
    /// The data plane.
    pub state: Arc<State>,
    /// Reads the configuration again.
    pub reload: Reload,
    /// The metrics, as text.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// How often an address may fail and a key may ask.
    pub limits: Limits,
}

impl Desk {
    /// Ends sessions by who holds them: open streams end now, and the next message finds no session.
    pub(crate) fn end_sessions(&self, of: impl Fn(&Principal) -> bool) {
        if let Some(plane) = &self.plane {
            plane.state.end_sessions(|session| of(&session.holder()));
        }
    }
}
