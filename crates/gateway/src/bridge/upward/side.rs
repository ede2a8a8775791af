//! What a legacy session remembers for a modern server: who waits for which answer, what can be cancelled, and which
//! resources are followed. Bounded.

use mcp::Message;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, oneshot, watch};
use vocab::ServerName;

/// Resources that one session may follow.
const FOLLOWED: usize = 1024;
/// The longest address that is followed, in bytes.
const LONGEST: usize = 2048;

/// One session's side of the bridge.
#[derive(Default)]
pub(crate) struct Side {
    /// Questions put to the client, by the id they have on the server's side of the session.
    waiting: Mutex<HashMap<String, (ServerName, oneshot::Sender<Message>)>>,
    /// Calls under way, by the client's id.
    under_way: Mutex<HashMap<String, Arc<Notify>>>,
    /// Each with the server that it was asked of: others do not hear of it.
    followed: watch::Sender<Followed>,
}

/// Resources, each with its server.
pub(crate) type Followed = BTreeSet<(ServerName, Box<str>)>;

impl Side {
    /// Waits for the answer to a question of `server`.
    pub(crate) fn wait(&self, server: &ServerName, id: &str) -> oneshot::Receiver<Message> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = lock(&self.waiting);
        // Whoever waited is gone where the call was given up.
        waiting.retain(|_, (_, sender)| !sender.is_closed());
        waiting.insert(mcp::id_key(id), (server.clone(), sender));
        receiver
    }

    /// Hands an answer to whoever waits for it. `false` if nobody does. SECURITY: ids can be guessed; what one server
    /// is told never answers the question of another.
    pub(crate) fn deliver(&self, server: &ServerName, answer: &Message) -> bool {
        let Some(id) = answer.id().map(mcp::id_key) else { return false };
        let mut all = lock(&self.waiting);
        if all.get(&id).is_none_or(|(asker, _)| asker != server) {
            return false;
        }
        all.remove(&id).is_some_and(|(_, sender)| sender.send(answer.clone()).is_ok())
    }

    /// Notes a call that the client may cancel, until it is dropped.
    pub(crate) fn begin(self: &Arc<Self>, id: &str) -> UnderWay {
        let (id, cancelled) = (mcp::id_key(id), Arc::new(Notify::new()));
        lock(&self.under_way).insert(id.clone(), Arc::clone(&cancelled));
        UnderWay { side: Arc::clone(self), id, cancelled }
    }

    /// The client takes back the request with this id.
    pub(crate) fn cancel(&self, id: &str) {
        if let Some(cancelled) = lock(&self.under_way).get(&mcp::id_key(id)) {
            // A permit stays where nobody waits at this moment.
            cancelled.notify_one();
        }
    }

    /// Follows a resource, or no longer. `false` if there are too many, or its address is too long.
    pub(crate) fn subscribe(&self, server: &ServerName, uri: &str, follow: bool) -> bool {
        if uri.len() > LONGEST {
            return false;
        }
        let one = (server.clone(), Box::from(uri));
        let mut fits = true;
        self.followed.send_if_modified(|followed| match follow {
            true if followed.len() >= FOLLOWED && !followed.contains(&one) => {
                fits = false;
                false
            }
            true => followed.insert(one),
            false => followed.remove(&one),
        });
        fits
    }

    /// The resources that are followed, as they change.
    pub(crate) fn followed(&self) -> watch::Receiver<Followed> {
        self.followed.subscribe()
    }
}

/// A call under way.
pub(crate) struct UnderWay {
    side: Arc<Side>,
    id: String,
    cancelled: Arc<Notify>,
}

impl UnderWay {
    /// Waits until the client takes it back.
    pub(crate) async fn cancelled(&self) {
        self.cancelled.notified().await;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut under_way = lock(&self.side.under_way);
        // Another call may have taken the id meanwhile.
        if under_way.get(&self.id).is_some_and(|known| Arc::ptr_eq(known, &self.cancelled)) {
            under_way.remove(&self.id);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
