//! What can change about callers at any moment: keys, switched-off agents, revoked tokens.
//!
//! Read on every call without a lock; written by the management side, which also stores the rows. INVARIANT: a
//! change is seen by the next `authenticate` on any thread.

use crate::{AdminRole, KeyId, cache::Tokens};
use arc_swap::ArcSwap;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use vocab::{AgentId, Digest, Timestamp};

/// Who holds a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyHolder {
    /// An agent, on the data plane.
    Agent(AgentId),
    /// An administrator, on the management API.
    Admin(AdminRole),
}

/// What must be known of a key to check it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// The public part.
    pub id: KeyId,
    /// Digest of the whole key.
    pub hash: Digest,
    /// Who holds it.
    pub holder: KeyHolder,
    /// From when on it is refused.
    pub expires: Option<Timestamp>,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// The state all snapshots share.
#[derive(Debug, Default)]
pub struct Registry {
    keys: ArcSwap<HashMap<KeyId, Arc<KeyRow>>>,
    disabled: ArcSwap<HashSet<AgentId>>,
    revoked_tokens: ArcSwap<HashMap<Digest, Timestamp>>,
    /// The tokens that were verified of late, by whatever snapshot. Proves nothing: it only says who is no guesser.
    seen: Tokens<()>,
}

impl Registry {
    /// Starts from what the store holds: keys, disabled agents, revoked tokens with the time until which to remember.
    pub fn load(
        keys: impl IntoIterator<Item = KeyRow>,
        disabled: impl IntoIterator<Item = AgentId>,
        revoked_tokens: impl IntoIterator<Item = (Digest, Timestamp)>,
    ) -> Self {
        let registry = Self::default();
        registry.replace(keys, disabled, revoked_tokens);
        registry
    }

    /// Takes over what the store holds now; for a change that another process made.
    pub fn replace(
        &self,
        keys: impl IntoIterator<Item = KeyRow>,
        disabled: impl IntoIterator<Item = AgentId>,
        revoked_tokens: impl IntoIterator<Item = (Digest, Timestamp)>,
    ) {
        self.keys.store(Arc::new(keys.into_iter().map(|row| (row.id.clone(), Arc::new(row))).collect()));
        self.disabled.store(Arc::new(disabled.into_iter().collect()));
        self.revoked_tokens.store(Arc::new(revoked_tokens.into_iter().collect()));
    }

    /// Adds a key, or replaces the one with its id.
    pub fn insert_key(&self, row: KeyRow) {
        let row = Arc::new(row);
        self.keys.rcu(|keys| {
            let mut keys = HashMap::clone(keys);
            keys.insert(row.id.clone(), Arc::clone(&row));
            keys
        });
    }

    /// Revokes a key. Returns whether there is one.
    pub fn revoke_key(&self, id: &KeyId) -> bool {
        self.change_key(id, |row| row.revoked = true)
    }

    /// Sets from when on a key is refused. Returns whether there is one.
    pub fn expire_key(&self, id: &KeyId, at: Timestamp) -> bool {
        self.change_key(id, |row| row.expires = Some(at))
    }

    fn change_key(&self, id: &KeyId, change: impl Fn(&mut KeyRow)) -> bool {
        let before = self.keys.rcu(|keys| {
            let mut keys = HashMap::clone(keys);
            if let Some(row) = keys.get_mut(id) {
                change(Arc::make_mut(row));
            }
            keys
        });
        before.contains_key(id)
    }

    /// Switches an agent off. It stays off whatever the configuration says.
    pub fn disable_agent(&self, agent: &AgentId) {
        self.disabled.rcu(|disabled| {
            let mut disabled = HashSet::clone(disabled);
            disabled.insert(agent.clone());
            disabled
        });
    }

    /// Takes back [`Registry::disable_agent`].
    pub fn enable_agent(&self, agent: &AgentId) {
        self.disabled.rcu(|disabled| {
            let mut disabled = HashSet::clone(disabled);
            disabled.remove(agent);
            disabled
        });
    }

    /// Revokes a token by the digest of its text, remembered until its expiry. Forgets those that expired before `now`.
    pub fn revoke_token(&self, digest: Digest, until: Timestamp, now: Timestamp) {
        self.revoked_tokens.rcu(|revoked| {
            let mut revoked: HashMap<Digest, Timestamp> =
                revoked.iter().filter(|(_, until)| **until > now).map(|(digest, until)| (*digest, *until)).collect();
            revoked.insert(digest, until);
            revoked
        });
    }

    pub(crate) fn key(&self, id: &str) -> Option<Arc<KeyRow>> {
        self.keys.load().get(id).cloned()
    }

    pub(crate) fn is_disabled(&self, agent: &AgentId) -> bool {
        self.disabled.load().contains(agent)
    }

    pub(crate) fn see_token(&self, whole: Digest, until: Timestamp, now: Timestamp) {
        self.seen.insert(whole, until, &(), now);
    }

    pub(crate) fn has_seen(&self, whole: &Digest) -> bool {
        self.seen.get(whole).is_some()
    }

    pub(crate) fn is_revoked(&self, token: &Digest) -> bool {
        self.revoked_tokens.load().contains_key(token)
    }
}
