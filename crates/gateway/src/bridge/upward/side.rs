//! What a legacy session remembers for a modern server: who waits for which answer, what can be cancelled, and which
//! resources are followed. Bounded.

use mcp::Message;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, oneshot, watch};

/// Resources that one session may follow.
const FOLLOWED: usize = 1024;

/// One session's side of the bridge.
#[derive(Default)]
pub(crate) struct Side {
    /// Questions put to the client, by the id they have on the server's side of the session.
    waiting: Mutex<HashMap<String, oneshot::Sender<Message>>>,
    /// Calls under way, by the client's id.
    under_way: Mutex<HashMap<String, Arc<Notify>>>,
    followed: watch::Sender<BTreeSet<Box<str>>>,
}

impl Side {
    /// Waits for the answer to a question.
    pub(crate) fn wait(&self, id: &str) -> oneshot::Receiver<Message> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = lock(&self.waiting);
        // Whoever waited is gone where the call was given up.
        waiting.retain(|_, sender| !sender.is_closed());
        waiting.insert(mcp::id_key(id), sender);
        receiver
    }

    /// Hands an answer to whoever waits for it. `false` if nobody does.
    pub(crate) fn deliver(&self, answer: &Message) -> bool {
        let Some(id) = answer.id() else { return false };
        let waiting = lock(&self.waiting).remove(&mcp::id_key(id));
        waiting.is_some_and(|sender| sender.send(answer.clone()).is_ok())
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

    /// Follows a resource, or no longer. `false` if there are too many.
    pub(crate) fn subscribe(&self, uri: &str, follow: bool) -> bool {
        let mut fits = true;
        self.followed.send_if_modified(|followed| match follow {
            true if followed.len() >= FOLLOWED && !followed.contains(uri) => {
                fits = false;
                false
            }
            true => followed.insert(Box::from(uri)),
            false => followed.remove(uri),
        });
        fits
    }

    /// The resources that are followed, as they change.
    pub(crate) fn followed(&self) -> watch::Receiver<BTreeSet<Box<str>>> {
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
