//! What a legacy session remembers for a modern server: who waits for which answer, what can be cancelled, and which
//! resources are followed. Bounded.

use super::followed::{Asked, Followed, Subscription, Taken};
use crate::upstream::UpstreamFault;
use mcp::Message;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, oneshot, watch};
use vocab::ServerName;

/// What becomes of a question: the client's answer, or what ends its call where that cannot go on without one.
pub(crate) type Given = Result<Message, UpstreamFault>;

/// One session's side of the bridge.
#[derive(Default)]
pub(crate) struct Side {
    /// Questions put to the client, by the id they have on the server's side of the session.
    waiting: Mutex<HashMap<String, (ServerName, oneshot::Sender<Given>)>>,
    /// Calls under way, by the client's id.
    under_way: Mutex<HashMap<String, Arc<Notify>>>,
    followed: watch::Sender<Followed>,
    /// What each server said last to those that are followed on it.
    heard: watch::Sender<HashMap<ServerName, Heard>>,
}

/// What a server said to a version of [`Followed`].
struct Heard {
    version: u64,
    /// Those that it was asked to tell of, and whether it will; or why it tells of none.
    answers: Result<BTreeMap<Box<str>, bool>, Untold>,
}

/// Why a server tells of nothing.
#[derive(Clone)]
pub(crate) enum Untold {
    /// It says no.
    Refused(String),
    /// It says nothing.
    Fault(UpstreamFault),
}

impl Heard {
    /// Whether it says something to a resource that came with this version.
    fn decides(&self, uri: &str, version: u64) -> bool {
        // One that was not asked for, because its follower had no right to it then, may be yet.
        self.version >= version && self.answers.as_ref().map_or(true, |answers| answers.contains_key(uri))
    }
}

impl Side {
    /// Waits for the answer to a question of `server`.
    pub(crate) fn wait(&self, server: &ServerName, id: &str) -> oneshot::Receiver<Given> {
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
        self.give(server, answer, Ok(answer.clone()))
    }

    /// Tells whoever waits for it that a question stays without an answer. `false` if nobody does.
    pub(crate) fn deny(&self, server: &ServerName, answer: &Message, fault: UpstreamFault) -> bool {
        self.give(server, answer, Err(fault))
    }

    fn give(&self, server: &ServerName, answer: &Message, given: Given) -> bool {
        let Some(id) = answer.id().map(mcp::id_key) else { return false };
        let mut all = lock(&self.waiting);
        if all.get(&id).is_none_or(|(asker, _)| asker != server) {
            return false;
        }
        all.remove(&id).is_some_and(|(_, sender)| sender.send(given).is_ok())
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

    /// Follows a resource, unless there are too many, its address is too long, or too much came with it.
    pub(crate) fn follow(&self, server: &ServerName, uri: &str, asked: Asked) -> Option<Taken> {
        let mut found = None;
        self.followed.send_if_modified(|followed| {
            let before = followed.version();
            found = followed.follow(server, uri, asked);
            followed.version() != before
        });
        found
    }

    /// What was asked for is refused: all is as before.
    pub(super) fn take_back(&self, server: &ServerName, uri: &str, taken: &Taken) {
        self.followed.send_if_modified(|followed| followed.take_back(server, uri, taken));
    }

    /// Follows it no longer.
    pub(crate) fn unfollow(&self, server: &ServerName, uri: &str) {
        self.followed.send_if_modified(|followed| followed.unfollow(server, uri));
    }

    /// The resources that are followed, as they change.
    pub(super) fn followed(&self) -> watch::Receiver<Followed> {
        self.followed.subscribe()
    }

    /// How often they changed.
    pub(super) fn version(&self) -> u64 {
        self.followed.borrow().version()
    }

    /// Those on a server, and of which version they are.
    pub(crate) fn followed_on(&self, server: &ServerName) -> (u64, Vec<(Arc<str>, Subscription)>) {
        let followed = self.followed.borrow();
        (followed.version(), followed.on(server))
    }

    /// What was said when a resource was asked for that is followed.
    pub(crate) fn asked(&self, server: &ServerName, uri: &str) -> Option<Arc<Asked>> {
        self.followed.borrow().asked(server, uri)
    }

    /// What a server said to those of a version: whether it will tell of each that it was asked to, or why of none.
    pub(crate) fn hear(&self, server: &ServerName, version: u64, answers: Result<Vec<(String, bool)>, Untold>) {
        let boxed = |answers: Vec<(String, bool)>| {
            answers.into_iter().map(|(uri, is_told)| (uri.into_boxed_str(), is_told)).collect()
        };
        let answers = answers.map(boxed);
        self.heard.send_modify(|all| drop(all.insert(server.clone(), Heard { version, answers })));
    }

    /// Waits until a server has said whether it will tell of a resource that came with this version.
    pub(crate) async fn told(&self, server: &ServerName, uri: &str, version: u64) -> Result<(), Untold> {
        let mut heard = self.heard.subscribe();
        let said = heard.wait_for(|all| all.get(server).is_some_and(|heard| heard.decides(uri, version))).await;
        match said.ok().as_ref().and_then(|all| all.get(server)).map(|heard| &heard.answers) {
            Some(Ok(answers)) if answers.get(uri).is_some_and(|is_told| *is_told) => Ok(()),
            Some(Err(why)) => Err(why.clone()),
            Some(Ok(_)) | None => Err(Untold::Refused("it does not tell when this resource changes".to_owned())),
        }
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
