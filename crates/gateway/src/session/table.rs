//! Every session, found by the digest of its handle; how many a principal has.

use super::{Holder, Leg, Replay, Session, lock, opening::Openings, replay::Pot};
use crate::call::Route;
use http::HeaderValue;
use identity::Principal;
use mcp::Message;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};
use vocab::{Digest, PrincipalId, ServerName};

/// Shards of the table.
const SHARDS: usize = 64;

/// All sessions.
pub struct Sessions {
    shards: Vec<RwLock<HashMap<Digest, Arc<Session>>>>,
    per_owner: Mutex<HashMap<PrincipalId, Share>>,
    /// Bytes that all of them keep for clients that come back.
    replayed: Arc<AtomicUsize>,
}

/// What the sessions of one principal take.
#[derive(Default)]
struct Share {
    sessions: usize,
    /// Bytes that they keep for clients that come back.
    replayed: Arc<AtomicUsize>,
}

/// Why there is no new session.
#[derive(Debug, thiserror::Error)]
pub enum SessionFault {
    /// The principal has as many as it may have.
    #[error("{most} sessions are open already; end one (HTTP DELETE) or wait until one expires")]
    TooMany {
        /// The bound.
        most: usize,
    },
    /// No randomness.
    #[error("no random bytes")]
    Random,
}

impl Sessions {
    /// No sessions.
    pub fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            per_owner: Mutex::default(),
            replayed: Arc::default(),
        }
    }

    /// Whether the principal may open another one.
    pub fn room(&self, owner: &PrincipalId, most: usize) -> Result<(), SessionFault> {
        match lock(&self.per_owner).get(owner) {
            Some(share) if share.sessions >= most => Err(SessionFault::TooMany { most }),
            Some(_) | None => Ok(()),
        }
    }

    /// Opens a session, which lives on the runtime that this is called on.
    pub fn open(
        &self,
        principal: &Principal,
        route: Route,
        introduction: Message,
        revision: mcp::Revision,
        most: usize,
        now: u64,
    ) -> Result<Arc<Session>, SessionFault> {
        let mut random = [0_u8; 32];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| SessionFault::Random)?;
        let text = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, random);
        let handle = HeaderValue::from_str(&text).map_err(|_| SessionFault::Random)?;
        let pot = {
            let mut owners = lock(&self.per_owner);
            let share = owners.entry(principal.id().clone()).or_default();
            if share.sessions >= most {
                return Err(SessionFault::TooMany { most });
            }
            share.sessions += 1;
            Pot { all: Arc::clone(&self.replayed), owners: Arc::clone(&share.replayed) }
        };
        let digest = Digest::of(handle.as_bytes());
        let session = Arc::new(Session {
            handle,
            digest,
            owner: principal.id().clone(),
            holder: Holder::new(principal),
            route,
            home: Handle::current(),
            introduction,
            revision: Mutex::new(revision),
            legs: Mutex::default(),
            opening: Openings::default(),
            asked: Mutex::default(),
            askers: Mutex::default(),
            under_way: Mutex::default(),
            replay: Replay::new(pot),
            followed: Mutex::default(),
            streams_ahead: Mutex::default(),
            streamless: Mutex::default(),
            log_level: Mutex::default(),
            listener: Mutex::default(),
            view: Mutex::default(),
            next_question: AtomicU64::new(1),
            touched: AtomicU64::new(now),
            streams: AtomicUsize::new(0),
            is_awaited: AtomicBool::new(false),
            opening_streams: AtomicUsize::new(0),
            stream_opened: Notify::new(),
            ended: watch::channel(false).0,
            upward: Arc::default(),
        });
        if let Some(shard) = self.shard(&digest) {
            shard.write().unwrap_or_else(PoisonError::into_inner).insert(digest, Arc::clone(&session));
        }
        Ok(session)
    }

    /// The session with this handle, if it is the caller's and belongs to this door. A foreign one does not exist.
    pub fn find(&self, handle: &HeaderValue, caller: &Principal, route: &Route, now: u64) -> Option<Arc<Session>> {
        let digest = Digest::of(handle.as_bytes());
        let session = self.shard(&digest)?.read().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned()?;
        // SECURITY: the handle is no proof of identity.
        if session.route != *route || !session.belongs_to(caller) {
            return None;
        }
        session.touched.store(now, Ordering::Relaxed);
        session.is_awaited.store(false, Ordering::Release);
        Some(session)
    }

    /// Ends a session, once, and hands back its legs. Its streams end, its processes stop when the last user lets go.
    pub(crate) fn close(&self, session: &Session) -> Option<Vec<(ServerName, Arc<Leg>)>> {
        let shard = self.shard(&session.digest)?;
        shard.write().unwrap_or_else(PoisonError::into_inner).remove(&session.digest)?;
        self.release(&session.owner);
        session.ended.send_replace(true);
        let legs = std::mem::take(&mut *lock(&session.legs));
        lock(&session.streams_ahead).clear();
        session.replay.clear();
        Some(legs.into_iter().collect())
    }

    fn release(&self, owner: &PrincipalId) {
        let mut owners = lock(&self.per_owner);
        if let Some(share) = owners.get_mut(owner) {
            share.sessions = share.sessions.saturating_sub(1);
            if share.sessions == 0 {
                owners.remove(owner);
            }
        }
    }

    /// Sessions that have been idle for longer than `after`.
    pub fn idle(&self, now: u64, after: Duration) -> Vec<Arc<Session>> {
        self.every(|session| session.is_idle(now, after))
    }

    /// Every session that `wanted` holds for.
    pub fn every(&self, wanted: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            found.extend(shard.values().filter(|session| wanted(session)).cloned());
        }
        found
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    fn shard(&self, digest: &Digest) -> Option<&RwLock<HashMap<Digest, Arc<Session>>>> {
        let [first, ..] = digest.as_bytes();
        self.shards.get(usize::from(*first) % SHARDS)
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self::new()
    }
}
