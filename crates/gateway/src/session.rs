//! Legacy sessions: ours, unguessable, bound to a principal.
//!
//! A session remembers how the client introduced itself, which upstream sessions ("legs") were opened for it, and what
//! servers have asked. It holds no rights: each message is judged anew.

use crate::{call::Route, upstream::pipe::Pipe};
use bytes::Bytes;
use http::HeaderValue;
use identity::Principal;
use mcp::Message;
use policy::Permit;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use vocab::{Digest, PrincipalId, ServerName};

/// Questions of servers that may wait for their answer, per session.
const ASKED: usize = 256;
/// Shards of the table.
const SHARDS: usize = 64;

/// One legacy session.
pub struct Session {
    /// What the client presents. SECURITY: never logged; records carry its digest.
    handle: HeaderValue,
    /// The digest of the handle.
    pub digest: Digest,
    /// Whose it is.
    pub owner: PrincipalId,
    /// The door it was opened through.
    pub route: Route,
    /// The client's `initialize`, to introduce it to servers later.
    pub introduction: Message,
    /// The revision agreed with the client.
    pub revision: mcp::Revision,
    /// Upstream sessions.
    legs: Mutex<HashMap<ServerName, Arc<Leg>>>,
    /// Opening a leg takes time; one at a time.
    pub opening: tokio::sync::Mutex<()>,
    asked: Mutex<HashMap<String, Asked>>,
    under_way: Mutex<HashMap<String, ServerName>>,
    listener: Mutex<Option<mpsc::Sender<Told>>>,
    log_level: Mutex<Option<Bytes>>,
    next_question: AtomicU64,
    touched: AtomicU64,
    streams: AtomicUsize,
    ended: watch::Sender<bool>,
}

/// A session of ours on one upstream.
pub struct Leg {
    /// The target it was opened to. A reload that changes the target makes it stale.
    pub fingerprint: u64,
    /// The revision of the hop.
    pub revision: mcp::Revision,
    /// How to reach it.
    pub way: Way,
    /// Whether the gateway opened it, and must therefore forward what the client sent before.
    pub own: bool,
}

/// What a server said unasked, and which one.
pub type Told = (ServerName, Bytes);

/// How a leg is reached.
pub enum Way {
    /// Streamable HTTP with the upstream's session handle, where it has sessions.
    Http(Option<HeaderValue>),
    /// A process.
    Pipe(Arc<Pipe>),
}

/// A question of a server that the client has not answered yet.
pub struct Asked {
    /// Who asked.
    pub server: ServerName,
    /// The id under which it asked, as it wrote it.
    pub id: Box<str>,
    /// What it asked.
    pub method: Box<str>,
    /// The permit for asking: the answer travels back under it.
    pub permit: Permit,
    /// The digest of what was asked.
    pub digest: Digest,
}

impl Session {
    /// The handle as a header value.
    pub const fn handle(&self) -> &HeaderValue {
        &self.handle
    }

    /// The leg to `server`, unless it leads to another target than the one configured now.
    pub fn leg(&self, server: &crate::server::Server) -> Option<Arc<Leg>> {
        let legs = lock(&self.legs);
        let leg = legs.get(&server.name)?;
        let alive = match &leg.way {
            Way::Http(_) => true,
            Way::Pipe(pipe) => pipe.is_alive(),
        };
        (alive && leg.fingerprint == server.fingerprint).then(|| Arc::clone(leg))
    }

    /// Keeps a leg. The one it replaces is handed back.
    pub fn keep_leg(&self, server: ServerName, leg: Arc<Leg>) -> Option<Arc<Leg>> {
        lock(&self.legs).insert(server, leg)
    }

    /// Forgets a leg.
    pub fn drop_leg(&self, server: &ServerName) -> Option<Arc<Leg>> {
        lock(&self.legs).remove(server)
    }

    /// Every leg.
    pub fn legs(&self) -> Vec<(ServerName, Arc<Leg>)> {
        lock(&self.legs).iter().map(|(name, leg)| (name.clone(), Arc::clone(leg))).collect()
    }

    /// Remembers a question. `false` if too many wait already.
    pub fn ask(&self, client_id: &str, asked: Asked) -> bool {
        let mut table = lock(&self.asked);
        if table.len() >= ASKED {
            return false;
        }
        table.insert(mcp::id_key(client_id), asked);
        true
    }

    /// The question that the client answers with this id. It can be answered once.
    pub fn answered(&self, client_id: &str) -> Option<Asked> {
        lock(&self.asked).remove(&mcp::id_key(client_id))
    }

    /// An id for a question, unique in this session whatever the servers choose.
    pub fn question_id(&self) -> u64 {
        self.next_question.fetch_add(1, Ordering::Relaxed)
    }

    /// Remembers which server a request went to, so that its cancellation finds the way.
    pub fn under_way(&self, client_id: &str, server: &ServerName) {
        lock(&self.under_way).insert(mcp::id_key(client_id), server.clone());
    }

    /// Where the request with this id went.
    pub fn server_of(&self, client_id: &str) -> Option<ServerName> {
        lock(&self.under_way).get(&mcp::id_key(client_id)).cloned()
    }

    /// The request is over.
    pub fn over(&self, client_id: &str) {
        lock(&self.under_way).remove(&mcp::id_key(client_id));
    }

    /// Makes `sender` the stream for what servers say unasked. A newer stream replaces an older one.
    pub fn listen(&self, sender: mpsc::Sender<Told>) {
        *lock(&self.listener) = Some(sender);
    }

    /// Says something on the listening stream. `false` if nobody listens or the listener is too slow.
    pub fn tell(&self, server: &ServerName, message: Bytes) -> bool {
        let mut listener = lock(&self.listener);
        match listener.as_ref().map(|sender| sender.try_send((server.clone(), message))) {
            Some(Ok(())) => true,
            Some(Err(mpsc::error::TrySendError::Closed(_))) => {
                *listener = None;
                false
            }
            Some(Err(mpsc::error::TrySendError::Full(_))) | None => false,
        }
    }

    /// Whether anybody listens.
    pub fn is_heard(&self) -> bool {
        lock(&self.listener).as_ref().is_some_and(|sender| !sender.is_closed())
    }

    /// The level set by `logging/setLevel` through the aggregate: the client's message.
    pub fn log_level(&self) -> Option<Bytes> {
        lock(&self.log_level).clone()
    }

    /// Sets that level.
    pub fn set_log_level(&self, message: Bytes) {
        *lock(&self.log_level) = Some(message);
    }

    /// Who asked the question that the client answers with this id.
    pub fn asker(&self, client_id: &str) -> Option<ServerName> {
        lock(&self.asked).get(&mcp::id_key(client_id)).map(|asked| asked.server.clone())
    }

    /// Becomes `true` when the session ends.
    pub fn end(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    /// A stream of this session is open, until the guard is dropped.
    pub fn streaming(self: &Arc<Self>) -> Streaming {
        self.streams.fetch_add(1, Ordering::AcqRel);
        Streaming(Arc::clone(self))
    }

    fn is_idle(&self, now: u64, after: Duration) -> bool {
        self.streams.load(Ordering::Acquire) == 0
            && now.saturating_sub(self.touched.load(Ordering::Relaxed))
                > u64::try_from(after.as_micros()).unwrap_or(u64::MAX)
    }
}

/// An open stream of a session.
pub struct Streaming(Arc<Session>);

impl Drop for Streaming {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All sessions.
pub struct Sessions {
    shards: Vec<RwLock<HashMap<Digest, Arc<Session>>>>,
    per_owner: Mutex<HashMap<PrincipalId, usize>>,
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
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect(), per_owner: Mutex::default() }
    }

    /// Opens a session.
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
        {
            let mut owners = lock(&self.per_owner);
            let count = owners.entry(principal.id().clone()).or_default();
            if *count >= most {
                return Err(SessionFault::TooMany { most });
            }
            *count += 1;
        }
        let digest = Digest::of(handle.as_bytes());
        let session = Arc::new(Session {
            handle,
            digest,
            owner: principal.id().clone(),
            route,
            introduction,
            revision,
            legs: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            asked: Mutex::default(),
            under_way: Mutex::default(),
            listener: Mutex::default(),
            log_level: Mutex::default(),
            next_question: AtomicU64::new(1),
            touched: AtomicU64::new(now),
            streams: AtomicUsize::new(0),
            ended: watch::channel(false).0,
        });
        if let Some(shard) = self.shard(&digest) {
            shard.write().unwrap_or_else(PoisonError::into_inner).insert(digest, Arc::clone(&session));
        }
        Ok(session)
    }

    /// The session with this handle, if it is the caller's and belongs to this door. A foreign one does not exist.
    pub fn find(&self, handle: &HeaderValue, owner: &PrincipalId, route: &Route, now: u64) -> Option<Arc<Session>> {
        let digest = Digest::of(handle.as_bytes());
        let session = self.shard(&digest)?.read().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned()?;
        // SECURITY: the handle is no proof of identity.
        if session.owner != *owner || session.route != *route {
            return None;
        }
        session.touched.store(now, Ordering::Relaxed);
        Some(session)
    }

    /// Ends a session. Its streams end, its processes stop when the last user lets go.
    pub fn close(&self, session: &Session) -> bool {
        let Some(shard) = self.shard(&session.digest) else { return false };
        let removed = shard.write().unwrap_or_else(PoisonError::into_inner).remove(&session.digest).is_some();
        if removed {
            self.release(&session.owner);
            session.ended.send_replace(true);
            lock(&session.legs).clear();
            *lock(&session.listener) = None;
        }
        removed
    }

    fn release(&self, owner: &PrincipalId) {
        let mut owners = lock(&self.per_owner);
        if let Some(count) = owners.get_mut(owner) {
            *count = count.saturating_sub(1);
            if *count == 0 {
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
