//! Clients of the transport of 2024-11-05: one stream for all that a client hears, POSTs beside it for what it says.
//!
//! A mailbox is unguessable, bound to a principal, and lasts as long as its stream. It holds no rights: each message is
//! a call of its own, in the session that `initialize` opened through it.

use crate::{
    call::Route,
    flow::say,
    session::{Holder, Session, SessionFault},
};
use bytes::Bytes;
use identity::Principal;
use mcp::Revision;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use vocab::Digest;

/// Events that wait for a client.
const BACKLOG: usize = 16;
/// Requests of one client that wait for their answers.
pub(crate) const CALLS: usize = 64;

/// One open stream.
pub(crate) struct Mailbox {
    digest: Digest,
    /// The door it was opened through.
    pub(crate) route: Route,
    holder: Holder,
    letters: mpsc::Sender<Bytes>,
    /// Requests without an answer.
    busy: watch::Sender<usize>,
    over: watch::Sender<bool>,
    /// `initialize` is on its way, or was answered.
    begun: AtomicBool,
    listening: AtomicBool,
    session: watch::Sender<Option<Arc<Session>>>,
    revision: Mutex<Option<Revision>>,
}

impl Mailbox {
    /// The credential of its last message.
    pub(crate) fn holder(&self) -> Principal {
        self.holder.principal()
    }

    /// Puts an event on the stream. `false` if the client is gone.
    pub(crate) async fn put(&self, event: Bytes) -> bool {
        // Whoever reads them has the patience.
        say(&self.letters, event, Duration::MAX).await
    }

    /// A request is under way until the guard is dropped. None if there are too many.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Busy> {
        let entered = self.busy.send_if_modified(|count| {
            let room = *count < CALLS;
            *count += usize::from(room);
            room
        });
        entered.then(|| Busy(Arc::clone(self)))
    }

    /// Waits until every request has its answer.
    pub(crate) async fn settled(&self) {
        // The sender is here: it cannot be gone.
        let _ = self.busy.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Takes the one session that a stream may have. `false` if it is taken.
    pub(crate) fn begin(&self) -> bool {
        !self.begun.swap(true, Ordering::AcqRel)
    }

    /// `initialize` failed: it may come again.
    pub(crate) fn begin_again(&self) {
        self.begun.store(false, Ordering::Release);
    }

    /// Whether `initialize` has come.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Keeps the session that was opened.
    pub(crate) fn keep(&self, session: Option<Arc<Session>>) {
        self.session.send_replace(session);
    }

    /// The session, where the server has sessions.
    pub(crate) fn session(&self) -> watch::Receiver<Option<Arc<Session>>> {
        self.session.subscribe()
    }

    /// Keeps the revision that was agreed on.
    pub(crate) fn agree(&self, revision: Option<Revision>) {
        *lock(&self.revision) = revision;
    }

    /// The revision that was agreed on.
    pub(crate) fn revision(&self) -> Option<Revision> {
        *lock(&self.revision)
    }

    /// Whether nobody brings what servers say unasked yet. To be asked once.
    pub(crate) fn may_listen(&self) -> bool {
        !self.listening.swap(true, Ordering::AcqRel)
    }

    /// Becomes `true` when the client is gone.
    pub(crate) fn end(&self) -> watch::Receiver<bool> {
        self.over.subscribe()
    }
}

/// A request under way.
pub(crate) struct Busy(Arc<Mailbox>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// All of them.
#[derive(Default)]
pub(crate) struct Mailboxes(Mutex<HashMap<Digest, Arc<Mailbox>>>);

/// A new mailbox.
pub(crate) struct Opened {
    pub(crate) mailbox: Arc<Mailbox>,
    /// The handle. SECURITY: never logged.
    pub(crate) handle: String,
    /// What is put on its stream.
    pub(crate) letters: mpsc::Receiver<Bytes>,
}

impl Mailboxes {
    /// Opens one, within the bound of sessions.
    pub(crate) fn open(&self, principal: &Principal, route: Route, most: usize) -> Result<Opened, SessionFault> {
        let mut random = [0_u8; 32];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| SessionFault::Random)?;
        let handle = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, random);
        let digest = Digest::of(handle.as_bytes());
        let (sender, letters) = mpsc::channel(BACKLOG);
        let mailbox = Arc::new(Mailbox {
            digest,
            route,
            holder: Holder::new(principal),
            letters: sender,
            busy: watch::Sender::new(0),
            over: watch::Sender::new(false),
            begun: AtomicBool::new(false),
            listening: AtomicBool::new(false),
            session: watch::Sender::new(None),
            revision: Mutex::default(),
        });
        let mut all = lock(&self.0);
        if all.values().filter(|other| other.holder().id() == principal.id()).count() >= most {
            return Err(SessionFault::TooMany { most });
        }
        all.insert(digest, Arc::clone(&mailbox));
        Ok(Opened { mailbox, handle, letters })
    }

    /// The mailbox with this handle, if it is the caller's. A foreign one does not exist.
    pub(crate) fn find(&self, handle: &str, caller: &Principal) -> Option<Arc<Mailbox>> {
        let found = lock(&self.0).get(&Digest::of(handle.as_bytes())).cloned()?;
        // SECURITY: the handle is no proof of identity.
        found.holder.admits(caller).then_some(found)
    }

    /// Its stream has ended.
    pub(crate) fn close(&self, mailbox: &Mailbox) {
        lock(&self.0).remove(&mailbox.digest);
        mailbox.over.send_replace(true);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        lock(&self.0).len()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
