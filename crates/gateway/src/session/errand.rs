//! Requests of a session on their way: where each went, whether its client took it back, and whose progress is told by which
//! token.

use super::{Session, lock};
use crate::call::Route;
use std::{
    collections::{HashMap, VecDeque},
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use vocab::{Digest, ServerName};

/// How long the answer to a request that was taken back is still heard: it may have been on its way already.
///
/// SPEC: whoever is told `notifications/cancelled` should not answer. Without an end of our own such a call would have
/// none.
const GRACE: Duration = Duration::from_secs(2);

/// Tasks whose progress tokens are known, per session. Beyond that the oldest is forgotten.
const GOING_ON: usize = 256;

/// What is under way in a session.
#[derive(Default)]
pub(super) struct UnderWay {
    /// Requests, by the client's id.
    sent: HashMap<String, Arc<Sent>>,
    /// Progress tokens of calls that became tasks, and who holds those, on the aggregate. Digests: a token is as long as its
    /// client likes.
    going_on: VecDeque<(Digest, ServerName)>,
}

/// A request as its session remembers it.
pub(super) struct Sent {
    server: ServerName,
    /// The key of its progress token, on the aggregate.
    token: Option<Box<str>>,
    /// Its client has begun to take it back.
    is_named: AtomicBool,
    /// When its server was told that the client took it back.
    taken_back: watch::Sender<Option<Instant>>,
}

impl Session {
    /// Remembers which server a request went to, so that its cancellation finds the way, until the errand is dropped.
    pub fn errand(self: &Arc<Self>, client_id: &str, token: Option<&str>, server: &ServerName) -> Errand {
        let id = mcp::id_key(client_id);
        // A session of one server has nobody else to tell of it.
        let token = token.filter(|_| self.route == Route::All).map(|token| mcp::id_key(token).into_boxed_str());
        let sent = Arc::new(Sent {
            server: server.clone(),
            token,
            is_named: AtomicBool::new(false),
            taken_back: watch::Sender::new(None),
        });
        lock(&self.under_way).sent.insert(id.clone(), Arc::clone(&sent));
        Errand { session: Arc::clone(self), id, sent }
    }

    /// Where the request with this id went.
    pub fn server_of(&self, client_id: &str) -> Option<ServerName> {
        lock(&self.under_way).sent.get(&mcp::id_key(client_id)).map(|sent| sent.server.clone())
    }

    /// Whether a request with this id is under way to this server, and its client takes it back for the first time.
    pub(crate) fn takes_back(&self, server: &ServerName, client_id: &str) -> bool {
        self.sent_to(server, client_id).is_some_and(|sent| !sent.is_named.swap(true, Ordering::AcqRel))
    }

    /// The client took back the request with this id, and the server that it went to was told so.
    pub(crate) fn take_back(&self, server: &ServerName, client_id: &str) {
        if let Some(sent) = self.sent_to(server, client_id) {
            sent.taken_back.send_if_modified(|since| {
                let is_first = since.is_none();
                since.get_or_insert_with(Instant::now);
                is_first
            });
        }
    }

    /// Whether the progress token that a server names is that of a request to another, and of none to it.
    pub fn is_token_of_another(&self, server: &ServerName, token: &str) -> bool {
        let token = mcp::id_key(token);
        let under_way = lock(&self.under_way);
        let mut sent = under_way.sent.values().filter(|sent| sent.token.as_deref() == Some(&*token)).peekable();
        // A client that uses a token again means the newer call.
        if sent.peek().is_some() {
            return sent.all(|sent| sent.server != *server);
        }
        if under_way.going_on.is_empty() {
            return false;
        }
        let token = Digest::of(token.as_bytes());
        let mut going_on = under_way.going_on.iter().filter(|(known, _)| *known == token).peekable();
        going_on.peek().is_some() && going_on.all(|(_, holder)| holder != server)
    }

    /// The call with this progress token became a task of `server`, which goes on with the token when the call is over.
    pub fn goes_on(&self, server: &ServerName, token: &str) {
        let token = Digest::of(mcp::id_key(token).as_bytes());
        let going_on = &mut lock(&self.under_way).going_on;
        if going_on.len() >= GOING_ON {
            going_on.pop_front();
        }
        going_on.push_back((token, server.clone()));
    }

    fn sent_to(&self, server: &ServerName, client_id: &str) -> Option<Arc<Sent>> {
        lock(&self.under_way).sent.get(&mcp::id_key(client_id)).filter(|sent| sent.server == *server).map(Arc::clone)
    }
}

/// A request on its way; forgotten when dropped.
pub struct Errand {
    session: Arc<Session>,
    id: String,
    sent: Arc<Sent>,
}

impl Errand {
    /// Whether the client took the request back.
    pub(crate) fn is_taken_back(&self) -> bool {
        self.sent.taken_back.borrow().is_some()
    }

    /// Waits until nobody needs to wait for the answer any more: [`GRACE`] after the client took the request back.
    pub(crate) fn taken_back(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut taken_back = self.sent.taken_back.subscribe();
        async move {
            let since = taken_back.wait_for(Option::is_some).await.ok().and_then(|since| *since);
            match since {
                Some(since) => sleep_until(since + GRACE).await,
                // The request is over.
                None => pending().await,
            }
        }
    }
}

/// The same for a request that may have no errand: then it is never taken back.
pub(crate) fn taken_back(errand: Option<&Errand>) -> impl Future<Output = ()> + Send + use<> {
    let taken_back = errand.map(Errand::taken_back);
    async move {
        match taken_back {
            Some(taken_back) => taken_back.await,
            None => pending().await,
        }
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        let mut under_way = lock(&self.session.under_way);
        // Another request may have taken the id meanwhile.
        if under_way.sent.get(&self.id).is_some_and(|known| Arc::ptr_eq(known, &self.sent)) {
            under_way.sent.remove(&self.id);
        }
    }
}
