//! Legacy sessions: ours, unguessable, bound to a principal.
//!
//! A session remembers how the client introduced itself, which upstream sessions ("legs") were opened for it, and what
//! servers have asked. It holds no rights: each message is judged anew.

use crate::{
    bridge::upward::Side,
    call::Route,
    upstream::{Source, pipe::Pipe},
};
use bytes::Bytes;
use http::HeaderValue;
use identity::{CredentialId, Principal};
use mcp::Message;
use policy::Permit;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, mpsc, watch};
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
    /// The credential of the last message. A session does not outlive its key.
    holder: Mutex<Principal>,
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
    asked: Mutex<Questions>,
    under_way: Mutex<HashMap<String, ServerName>>,
    listener: Mutex<Option<mpsc::Sender<Told>>>,
    followed: Mutex<HashSet<ServerName>>,
    streams_ahead: Mutex<HashMap<ServerName, Ahead>>,
    log_level: Mutex<Option<Bytes>>,
    next_question: AtomicU64,
    touched: AtomicU64,
    streams: AtomicUsize,
    /// Listening streams on their way to a server.
    opening_streams: AtomicUsize,
    stream_opened: Notify,
    ended: watch::Sender<bool>,
    /// What it takes to speak to modern servers.
    pub(crate) upward: Arc<Side>,
}

/// A session of ours on one upstream.
pub(crate) struct Leg {
    /// The target it was opened to. A reload that changes the target makes it stale.
    pub(crate) fingerprint: u64,
    /// The revision of the hop.
    pub(crate) revision: mcp::Revision,
    /// How to reach it.
    pub(crate) way: Way,
    /// Whether the gateway opened it, and must therefore forward what the client sent before.
    pub(crate) own: bool,
}

impl Way {
    /// The way to a web server that calls the session `handle`.
    pub(crate) fn http(handle: Option<&HeaderValue>) -> Self {
        Self::Http(handle.map(crate::call::alone))
    }
}

/// A listening stream that was opened before anybody followed it.
pub(crate) enum Ahead {
    /// Here it is.
    Open(Box<Source>),
    /// The server has none.
    Absent,
}

/// What a server said unasked, and which one; none for what the gateway says of it.
pub type Told = (Option<ServerName>, Bytes);

/// How a leg is reached.
pub(crate) enum Way {
    /// Streamable HTTP with the upstream's session handle, where it has sessions.
    Http(Option<HeaderValue>),
    /// A process.
    Pipe(Arc<Pipe>),
}

/// Questions without an answer, and the order in which they came.
#[derive(Default)]
struct Questions {
    waiting: HashMap<String, Asked>,
    order: VecDeque<String>,
}

/// A question of a server that the client has not answered yet.
pub struct Asked {
    /// Who asked.
    pub server: ServerName,
    /// The id that the client knows.
    pub shown: Box<str>,
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
    pub(crate) fn leg(&self, server: &crate::server::Server) -> Option<Arc<Leg>> {
        let legs = lock(&self.legs);
        let leg = legs.get(&server.name)?;
        let alive = match &leg.way {
            Way::Http(_) => true,
            Way::Pipe(pipe) => pipe.is_alive(),
        };
        (alive && leg.fingerprint == server.fingerprint).then(|| Arc::clone(leg))
    }

    /// Keeps a leg. The one it replaces is handed back.
    pub(crate) fn keep_leg(&self, server: ServerName, leg: Arc<Leg>) -> Option<Arc<Leg>> {
        lock(&self.legs).insert(server, leg)
    }

    /// Forgets a leg.
    pub(crate) fn drop_leg(&self, server: &ServerName) -> Option<Arc<Leg>> {
        lock(&self.legs).remove(server)
    }

    /// Every leg.
    pub(crate) fn legs(&self) -> Vec<(ServerName, Arc<Leg>)> {
        lock(&self.legs).iter().map(|(name, leg)| (name.clone(), Arc::clone(leg))).collect()
    }

    /// Remembers a question. Where too many wait, the oldest is forgotten: many are never answered.
    pub fn ask(&self, client_id: &str, asked: Asked) {
        let mut questions = lock(&self.asked);
        let Questions { waiting, order } = &mut *questions;
        let key = mcp::id_key(client_id);
        waiting.insert(key.clone(), asked);
        order.push_back(key);
        while order.len() > ASKED {
            let Some(oldest) = order.pop_front() else { break };
            waiting.remove(&oldest);
        }
    }

    /// The question that the client answers with this id. It can be answered once.
    pub fn answered(&self, client_id: &str) -> Option<Asked> {
        let mut questions = lock(&self.asked);
        let key = mcp::id_key(client_id);
        let found = questions.waiting.remove(&key)?;
        questions.order.retain(|known| *known != key);
        Some(found)
    }

    /// The id under which `server` is asked, given the id that the client knows; for notifications about questions.
    pub fn shown_question(&self, server: &ServerName, id: &str) -> Option<String> {
        let key = mcp::id_key(id);
        let questions = lock(&self.asked);
        let found =
            questions.waiting.values().find(|asked| asked.server == *server && mcp::id_key(&asked.id) == key)?;
        Some(found.shown.to_string())
    }

    /// An id for a question, unique in this session whatever the servers choose.
    pub fn question_id(&self) -> u64 {
        self.next_question.fetch_add(1, Ordering::Relaxed)
    }

    /// Remembers which server a request went to, so that its cancellation finds the way, until the errand is dropped.
    pub fn errand(self: &Arc<Self>, client_id: &str, server: &ServerName) -> Errand {
        let id = mcp::id_key(client_id);
        lock(&self.under_way).insert(id.clone(), server.clone());
        Errand { session: Arc::clone(self), id }
    }

    /// Where the request with this id went.
    pub fn server_of(&self, client_id: &str) -> Option<ServerName> {
        lock(&self.under_way).get(&mcp::id_key(client_id)).cloned()
    }

    /// Makes `sender` the stream for what servers say unasked. A newer stream replaces an older one.
    pub fn listen(&self, sender: mpsc::Sender<Told>) {
        *lock(&self.listener) = Some(sender);
    }

    /// Says something on the listening stream. `false` if nobody listens or the listener is too slow.
    pub fn tell(&self, server: &ServerName, message: Bytes) -> bool {
        self.say(Some(server.clone()), message)
    }

    /// Says something of the gateway's own on the listening stream.
    pub(crate) fn say(&self, server: Option<ServerName>, message: Bytes) -> bool {
        let mut listener = lock(&self.listener);
        match listener.as_ref().map(|sender| sender.try_send((server, message))) {
            Some(Ok(())) => true,
            Some(Err(mpsc::error::TrySendError::Closed(_))) => {
                *listener = None;
                false
            }
            Some(Err(mpsc::error::TrySendError::Full(_))) | None => false,
        }
    }

    /// Follows what a server says unasked, unless somebody does already: nothing is to be told twice.
    pub fn follow(self: &Arc<Self>, server: &ServerName) -> Option<Following> {
        let first = lock(&self.followed).insert(server.clone());
        first.then(|| Following { session: Arc::clone(self), server: server.clone() })
    }

    /// Whether somebody follows it.
    pub(crate) fn is_followed(&self, server: &ServerName) -> bool {
        lock(&self.followed).contains(server)
    }

    /// Keeps the listening stream of a leg for whoever will follow it.
    pub(crate) fn keep_stream(&self, server: &ServerName, stream: Option<Source>) {
        lock(&self.streams_ahead)
            .insert(server.clone(), stream.map_or(Ahead::Absent, |stream| Ahead::Open(Box::new(stream))));
    }

    /// The stream kept by [`Session::keep_stream`], once.
    pub(crate) fn take_stream(&self, server: &ServerName) -> Option<Ahead> {
        lock(&self.streams_ahead).remove(server)
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
        lock(&self.asked).waiting.get(&mcp::id_key(client_id)).map(|asked| asked.server.clone())
    }

    /// Becomes `true` when the session ends.
    pub fn end(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        *self.ended.borrow()
    }

    /// A stream of this session is open, until the guard is dropped.
    pub fn streaming(self: &Arc<Self>) -> Streaming {
        self.streams.fetch_add(1, Ordering::AcqRel);
        Streaming(Arc::clone(self))
    }

    /// A listening stream is on its way to a server, until the guard is dropped.
    pub fn opening_stream(self: &Arc<Self>) -> OpeningStream {
        self.opening_streams.fetch_add(1, Ordering::AcqRel);
        OpeningStream(Arc::clone(self))
    }

    /// Whether one is on its way.
    pub fn is_opening_stream(&self) -> bool {
        self.opening_streams.load(Ordering::Acquire) > 0
    }

    /// Waits until none is on its way.
    pub async fn stream_opened(&self) {
        loop {
            let mut opened = pin!(self.stream_opened.notified());
            // In line before the look: an opening that ends in between is heard of.
            opened.as_mut().enable();
            if !self.is_opening_stream() {
                return;
            }
            opened.await;
        }
    }

    /// Whether the caller may use it. A key's session is that key's alone; tokens are renewed, so theirs follow the
    /// principal.
    fn belongs_to(&self, caller: &Principal) -> bool {
        if self.owner != *caller.id() {
            return false;
        }
        let mut holder = lock(&self.holder);
        let same = holder.credential_id() == caller.credential_id();
        let renewed = matches!(
            (holder.credential_id(), caller.credential_id()),
            (CredentialId::Token(_), CredentialId::Token(_)) | (CredentialId::Anonymous, CredentialId::Anonymous)
        );
        if renewed && !same {
            *holder = caller.clone();
        }
        same || renewed
    }

    /// The credential of its last message.
    pub fn holder(&self) -> Principal {
        lock(&self.holder).clone()
    }

    /// Forgets the legs that `stale` holds for, and hands them back.
    pub(crate) fn drop_legs(&self, stale: impl Fn(&ServerName, &Leg) -> bool) -> Vec<(ServerName, Arc<Leg>)> {
        let mut dropped = Vec::new();
        lock(&self.legs).retain(|name, leg| {
            let gone = stale(name, leg);
            if gone {
                dropped.push((name.clone(), Arc::clone(leg)));
            }
            !gone
        });
        dropped
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

/// A listening stream of a session that is being opened.
pub struct OpeningStream(Arc<Session>);

impl Drop for OpeningStream {
    fn drop(&mut self) {
        self.0.opening_streams.fetch_sub(1, Ordering::AcqRel);
        self.0.stream_opened.notify_waiters();
    }
}

/// A request of the aggregate on its way; forgotten when dropped.
pub struct Errand {
    session: Arc<Session>,
    id: String,
}

impl Drop for Errand {
    fn drop(&mut self) {
        lock(&self.session.under_way).remove(&self.id);
    }
}

/// Somebody follows a server for a session, until this is dropped.
pub struct Following {
    session: Arc<Session>,
    server: ServerName,
}

impl Drop for Following {
    fn drop(&mut self) {
        lock(&self.session.followed).remove(&self.server);
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

    /// Whether the principal may open another one.
    pub fn room(&self, owner: &PrincipalId, most: usize) -> Result<(), SessionFault> {
        match lock(&self.per_owner).get(owner) {
            Some(count) if *count >= most => Err(SessionFault::TooMany { most }),
            Some(_) | None => Ok(()),
        }
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
            holder: Mutex::new(principal.clone()),
            route,
            introduction,
            revision,
            legs: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            asked: Mutex::default(),
            under_way: Mutex::default(),
            listener: Mutex::default(),
            followed: Mutex::default(),
            streams_ahead: Mutex::default(),
            log_level: Mutex::default(),
            next_question: AtomicU64::new(1),
            touched: AtomicU64::new(now),
            streams: AtomicUsize::new(0),
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
            lock(&session.streams_ahead).clear();
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
