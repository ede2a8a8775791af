//! Legacy sessions: ours, unguessable, bound to a principal.
//!
//! A session remembers how the client introduced itself, which upstream sessions ("legs") were opened for it, and what
//! servers have asked. It holds no rights: each message is judged anew.

mod asker;
mod errand;
mod listen;
mod opening;
mod promise;
mod question;
pub(crate) mod replay;
mod table;

pub use errand::Errand;
pub(crate) use errand::taken_back;
pub(crate) use listen::Ahead;
pub use listen::Following;
pub(crate) use opening::to_its_end;
pub use question::Asked;
pub use table::{SessionFault, Sessions};

use crate::{
    bridge::upward::Side,
    call::Route,
    catalog::{apart::Apart, view::View},
    origin::Origin,
    upstream::pipe::Pipe,
};
use http::HeaderValue;
use identity::{CredentialId, Principal};
use mcp::{Message, bridge::LogLevel};
use opening::Openings;
use question::Questions;
use replay::Replay;
use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};
use vocab::{CallId, Digest, PrincipalId, ServerName};

/// How long the client of an answer that broke off may take to come back for the rest, where that answer was to open a
/// session: nobody knows yet whether it does.
const COMING_BACK: Duration = Duration::from_mins(1);

/// One legacy session.
pub struct Session {
    /// What the client presents. SECURITY: never logged; records carry its digest.
    handle: HeaderValue,
    /// The digest of the handle.
    pub digest: Digest,
    /// Whose it is.
    pub owner: PrincipalId,
    /// The credential of the last message. A session does not outlive its key.
    holder: Holder,
    /// The door it was opened through.
    pub route: Route,
    /// Where it was opened: what is begun for it unasked runs there. A reload holds up the runtime that it runs on.
    pub(crate) home: Handle,
    /// The client's `initialize`, to introduce it to servers later.
    pub introduction: Message,
    /// The revision agreed with the client.
    revision: Mutex<mcp::Revision>,
    /// Upstream sessions.
    legs: Mutex<HashMap<ServerName, Arc<Leg>>>,
    /// Opening a leg takes time; one at a time to each server.
    pub(crate) opening: Openings,
    asked: Mutex<Questions>,
    askers: Mutex<Vec<asker::Asker>>,
    under_way: Mutex<errand::UnderWay>,
    replay: Replay,
    followed: Mutex<HashSet<ServerName>>,
    streams_ahead: Mutex<HashMap<ServerName, Ahead>>,
    /// Servers that are not asked for their listening stream any more, by target.
    streamless: Mutex<HashMap<ServerName, u64>>,
    log_level: Mutex<Option<LogLevel>>,
    /// The call that listens, or did last, and where it came from.
    listener: Mutex<Option<(CallId, IpAddr)>>,
    /// What the lists were when the client was last told, or could have asked.
    pub(crate) view: Mutex<Option<View>>,
    next_question: AtomicU64,
    touched: AtomicU64,
    streams: AtomicUsize,
    /// The answer that opens it broke off, and its client has not come back for the rest.
    is_awaited: AtomicBool,
    /// Listening streams on their way to a server.
    opening_streams: AtomicUsize,
    stream_opened: Notify,
    ended: watch::Sender<bool>,
    /// What it takes to speak to modern servers, and which resources are followed on any.
    pub(crate) upward: Arc<Side>,
}

/// A session of ours on one upstream.
#[derive(Clone)]
pub(crate) struct Leg {
    /// The target it was opened to. A reload that changes the target makes it stale.
    pub(crate) fingerprint: u64,
    /// The revision of the hop.
    pub(crate) revision: mcp::Revision,
    /// How to reach it.
    pub(crate) way: Way,
    /// Whether the gateway opened it, and must therefore forward what the client sent before.
    pub(crate) own: bool,
    /// Who asks over it.
    pub(crate) origin: Origin,
    /// Tools that are shown over it beyond the catalog.
    pub(crate) apart: Arc<Apart>,
}

impl Leg {
    pub(crate) fn new(fingerprint: u64, revision: mcp::Revision, way: Way, own: bool) -> Self {
        let origin = match &way {
            Way::Http(_) => Origin::new(),
            // Others may share it.
            Way::Pipe(pipe) => pipe.origin(),
        };
        Self { fingerprint, revision, way, own, origin, apart: Arc::default() }
    }
}

/// How a leg is reached.
#[derive(Clone)]
pub(crate) enum Way {
    /// Streamable HTTP with the upstream's session handle, where it has sessions.
    Http(Option<HeaderValue>),
    /// A process.
    Pipe(Arc<Pipe>),
}

impl Way {
    /// The way to a web server that calls the session `handle`.
    pub(crate) fn http(handle: Option<&HeaderValue>) -> Self {
        Self::Http(handle.map(crate::call::alone))
    }
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

    /// Keeps a leg. `false` if the session is over: it is the caller's to end, then.
    #[must_use]
    pub(crate) fn keep_leg(&self, server: &ServerName, leg: &Arc<Leg>) -> bool {
        let mut legs = lock(&self.legs);
        // INVARIANT: looked at under the lock. Who ends the session says so first, and takes its legs afterwards.
        if self.is_over() {
            return false;
        }
        self.may_be_asked_over(leg);
        legs.insert(server.clone(), Arc::clone(leg));
        true
    }

    /// Whether the process of the leg to `server` has ended, or its stream.
    pub(crate) fn is_bereft_of(&self, server: &ServerName) -> bool {
        lock(&self.legs).get(server).is_some_and(|leg| match &leg.way {
            Way::Http(_) => false,
            Way::Pipe(pipe) => !pipe.is_alive(),
        })
    }

    /// Whether there is a leg to `server` whose process, if it is one, lives.
    pub(crate) fn is_served_by(&self, server: &ServerName) -> bool {
        lock(&self.legs).contains_key(server) && !self.is_bereft_of(server)
    }

    /// Who asks over the leg to `server`.
    pub(crate) fn origin_of(&self, server: &ServerName) -> Option<Origin> {
        lock(&self.legs).get(server).map(|leg| leg.origin)
    }

    /// Forgets a leg.
    pub(crate) fn drop_leg(&self, server: &ServerName) -> Option<Arc<Leg>> {
        lock(&self.legs).remove(server)
    }

    /// Whether this is the leg to `server` still.
    pub(crate) fn has_leg(&self, server: &ServerName, leg: &Arc<Leg>) -> bool {
        lock(&self.legs).get(server).is_some_and(|kept| Arc::ptr_eq(kept, leg))
    }

    /// Lets go of a leg that leads to a session the server does not know, unless another was opened meanwhile.
    pub(crate) fn lose_leg(&self, server: &ServerName, leg: &Arc<Leg>) {
        let mut legs = lock(&self.legs);
        if legs.get(server).is_some_and(|kept| Arc::ptr_eq(kept, leg)) {
            legs.remove(server);
        }
    }

    /// The revision agreed with the client.
    pub fn revision(&self) -> mcp::Revision {
        *lock(&self.revision)
    }

    /// What a server's answer to `initialize` says is agreed: on the client's hop, and on the one that it opened.
    pub(crate) fn agree(&self, revision: mcp::Revision) {
        *lock(&self.revision) = revision;
        for leg in lock(&self.legs).values_mut().filter(|leg| !leg.own) {
            *leg = Arc::new(Leg { revision, ..Leg::clone(leg) });
        }
    }

    /// The level set by `logging/setLevel`.
    pub(crate) fn log_level(&self) -> Option<LogLevel> {
        *lock(&self.log_level)
    }

    /// Sets that level.
    pub(crate) fn set_log_level(&self, level: LogLevel) {
        *lock(&self.log_level) = Some(level);
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

    /// Whether the caller may use it.
    fn belongs_to(&self, caller: &Principal) -> bool {
        self.holder.admits(caller)
    }

    /// The credential of its last message.
    pub fn holder(&self) -> Principal {
        self.holder.principal()
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

    /// The answer that opens it broke off. Its client may come back for the rest, and does so soon or never.
    pub(crate) fn await_client(&self) {
        self.is_awaited.store(true, Ordering::Release);
    }

    fn is_idle(&self, now: u64, after: Duration) -> bool {
        let after = if self.is_awaited.load(Ordering::Acquire) { after.min(COMING_BACK) } else { after };
        self.streams.load(Ordering::Acquire) == 0
            && now.saturating_sub(self.touched.load(Ordering::Relaxed))
                > u64::try_from(after.as_micros()).unwrap_or(u64::MAX)
    }
}

/// Who holds something that lasts: a principal, with the credential it used last.
pub(crate) struct Holder(Mutex<Principal>);

impl Holder {
    pub(crate) fn new(principal: &Principal) -> Self {
        Self(Mutex::new(principal.clone()))
    }

    /// Whether the caller is the holder. What a key holds is that key's alone; tokens are renewed, so what they hold
    /// follows the principal.
    pub(crate) fn admits(&self, caller: &Principal) -> bool {
        let mut holder = lock(&self.0);
        if holder.id() != caller.id() {
            return false;
        }
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

    /// The holder as it came last.
    pub(crate) fn principal(&self) -> Principal {
        lock(&self.0).clone()
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
