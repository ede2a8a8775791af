//! Whose turn it is where what a legacy server asks bears no sign of the call that it belongs to: over the bridge each call may
//! be another client's. A question that may be of several calls is held until all but one have ended, or wait for their
//! client. Calls of what asked before, or may have, are sent alone.
//!
//! SECURITY: no client is asked what may be another's. A call that broke off may have been the one that was asked: then nobody
//! is.

use super::{UpstreamFault, exchange};
use bytes::Bytes;
use mcp::{Kind, Limits, Message};
use std::{
    collections::VecDeque,
    convert::Infallible,
    future::pending,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock},
    time::timeout,
};
use vocab::Digest;

/// How long a question is held.
const HOLD: Duration = Duration::from_secs(5);
/// Questions of one session that are held; and how long one of them may be, in bytes.
const HELD: (usize, usize) = (16, 64 << 10);
/// Tools, prompts and resources of one server that are known to ask. Beyond that the oldest is forgotten.
const KNOWN: usize = 1024;

/// What of a server asks, or was under way when nobody knew who did. Digests: names are as long as the server likes.
#[derive(Default)]
pub(crate) struct Asking(Mutex<VecDeque<Known>>);

struct Known {
    what: Digest,
    /// It did ask. What may have is forgotten when it is called alone and does not.
    has_asked: bool,
}

impl Asking {
    fn has(&self, what: Digest) -> bool {
        lock(&self.0).iter().any(|known| known.what == what)
    }

    fn note(&self, what: Digest, has_asked: bool) {
        let mut all = lock(&self.0);
        if let Some(known) = all.iter_mut().find(|known| known.what == what) {
            known.has_asked |= has_asked;
            return;
        }
        if all.len() >= KNOWN {
            all.pop_front();
        }
        all.push_back(Known { what, has_asked });
    }
}

/// The turns of the calls of one session.
pub(crate) struct Turns {
    asking: Arc<Asking>,
    /// Fair: whoever waits to be alone lets nobody past.
    lock: Arc<RwLock<()>>,
    under_way: Mutex<Vec<Digest>>,
    held: Mutex<Held>,
    /// A call has ended, or waits for its client.
    changed: Notify,
}

#[derive(Default)]
struct Held {
    questions: Vec<Message>,
    /// A call that they may be of broke off.
    is_broken: bool,
}

/// Whether a message was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is to be handed on now.
    No,
    /// Whoever kept it waits for what becomes of it.
    First,
    /// Somebody waits already, or nobody need any more.
    Behind,
}

impl Turns {
    pub(crate) fn new(asking: &Arc<Asking>) -> Self {
        Self {
            asking: Arc::clone(asking),
            lock: Arc::default(),
            under_way: Mutex::default(),
            held: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Waits until a call of `what` may be sent, or go on.
    pub(crate) async fn enter(self: &Arc<Self>, what: Digest, deadline: Duration) -> Result<Turn, UpstreamFault> {
        let entering = async {
            if !self.asking.has(what) {
                let guard = Arc::clone(&self.lock).read_owned().await;
                // It may have become known while it waited.
                if !self.asking.has(what) {
                    return Guard::Beside(guard);
                }
            }
            Guard::Alone(Arc::clone(&self.lock).write_owned().await)
        };
        let guard = timeout(deadline, entering).await.map_err(|_| UpstreamFault::Turn(deadline))?;
        lock(&self.under_way).push(what);
        Ok(Turn { turns: Arc::clone(self), what, guard })
    }

    /// The same for a call whose client has answered. It goes on in any case after a while: its server may do one thing after
    /// the other, and then what it waits for waits for this.
    pub(crate) async fn enter_again(self: &Arc<Self>, what: Digest, deadline: Duration) -> Result<Turn, UpstreamFault> {
        let entering = async {
            loop {
                if let Ok(turn) = self.enter(what, HOLD).await {
                    return turn;
                }
                // SECURITY: who comes in while a question is held may be asked what is another's.
                if lock(&self.held).questions.is_empty() {
                    lock(&self.under_way).push(what);
                    return Turn { turns: Arc::clone(self), what, guard: Guard::Regardless };
                }
            }
        };
        timeout(deadline, entering).await.map_err(|_| UpstreamFault::Unheard(deadline))
    }

    /// Keeps a question that is unclear, and lets go of one that is taken back. INVARIANT: whoever calls this has locked the
    /// calls that it may be of, so that none of them ends meanwhile.
    pub(crate) fn keep(&self, message: &Message, is_unclear: bool, limits: &Limits) -> Kept {
        let mut held = lock(&self.held);
        let is_first = held.questions.is_empty();
        if message.kind() == Kind::Request && message.method() != "ping" {
            let has_room = held.questions.len() < HELD.0 && message.bytes().len() <= HELD.1;
            if !has_room || (is_first && !is_unclear) {
                return Kept::No;
            }
            // A copy: what was read at once is one buffer, of which a few words would keep all.
            let Ok(copy) = exchange::one(Bytes::copy_from_slice(message.bytes()), limits) else { return Kept::No };
            held.is_broken &= !is_first;
            held.questions.push(copy);
            return if is_first { Kept::First } else { Kept::Behind };
        }
        if is_first || message.method() != "notifications/cancelled" {
            return Kept::No;
        }
        let Some(named) = message.param(&["requestId"]) else { return Kept::No };
        let (key, before) = (mcp::id_key(&String::from_utf8_lossy(named.raw)), held.questions.len());
        held.questions.retain(|question| question.id().map(mcp::id_key).as_deref() != Some(&*key));
        if held.questions.len() == before {
            return Kept::No;
        }
        self.changed.notify_waiters();
        Kept::Behind
    }

    /// A call that may have been asked broke off. INVARIANT: as for [`Turns::keep`].
    pub(crate) fn broke_off(&self) {
        lock(&self.held).is_broken = true;
    }

    /// A call is sent, or goes on. One that was let in just before a question came may be the one that is left, and not the one
    /// that was asked. INVARIANT: as for [`Turns::keep`].
    pub(crate) fn comes_in(&self) {
        let mut held = lock(&self.held);
        if !held.questions.is_empty() {
            held.is_broken = true;
            self.changed.notify_waiters();
        }
    }

    /// Puts what is held to the one call that is left, and gives back what nobody hears. `None`: several are left. INVARIANT: as
    /// for [`Turns::keep`].
    pub(crate) fn put<T>(
        &self,
        mut left: impl Iterator<Item = T>,
        mut say: impl FnMut(&mut T, &Message) -> bool,
    ) -> Option<Vec<Message>> {
        let (only, other) = (left.next(), left.next());
        let mut held = lock(&self.held);
        if other.is_some() && !held.is_broken && !held.questions.is_empty() {
            return None;
        }
        let Held { mut questions, is_broken } = std::mem::take(&mut *held);
        if let Some(mut only) = only.filter(|_| other.is_none() && !is_broken) {
            questions.retain(|question| !say(&mut only, question));
        }
        Some(questions)
    }

    /// Waits until what is held was put, and gives back what nobody hears. Meanwhile no call comes in.
    pub(crate) async fn settle(&self, mut put: impl FnMut() -> Option<Vec<Message>>) -> Vec<Message> {
        let putting = async {
            loop {
                let mut changed = pin!(self.changed.notified());
                // In line before the look: a call that ends in between is heard of.
                changed.as_mut().enable();
                if let Some(unheard) = put() {
                    return unheard;
                }
                changed.await;
            }
        };
        let settling = async { timeout(HOLD, putting).await.unwrap_or_else(|_| self.give_up()) };
        // Others wait behind whoever waits to be alone.
        let line = async {
            let _alone = self.lock.write().await;
            pending::<Infallible>().await
        };
        tokio::select! {
            unheard = settling => unheard,
            never = line => match never {},
        }
    }

    /// Nobody is asked what is held. Each call under way may be one that asks.
    fn give_up(&self) -> Vec<Message> {
        let Held { questions, .. } = std::mem::take(&mut *lock(&self.held));
        if !questions.is_empty() {
            lock(&self.under_way).iter().for_each(|what| self.asking.note(*what, false));
        }
        questions
    }
}

/// A call that is under way, until this is dropped.
pub(crate) struct Turn {
    turns: Arc<Turns>,
    what: Digest,
    guard: Guard,
}

enum Guard {
    Beside(#[expect(dead_code, reason = "held")] OwnedRwLockReadGuard<()>),
    Alone(#[expect(dead_code, reason = "held")] OwnedRwLockWriteGuard<()>),
    Regardless,
}

impl Turn {
    /// It was asked something that bore no sign of it.
    pub(crate) fn is_asked(&self) {
        self.turns.asking.note(self.what, true);
    }

    /// It was answered: where it was alone and never asked, it was taken for another.
    pub(crate) fn is_answered(&self) {
        if matches!(self.guard, Guard::Alone(_)) {
            lock(&self.turns.asking.0).retain(|known| known.has_asked || known.what != self.what);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut under_way = lock(&self.turns.under_way);
        if let Some(at) = under_way.iter().position(|what| *what == self.what) {
            under_way.swap_remove(at);
        }
        drop(under_way);
        self.turns.changed.notify_waiters();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Asking, HELD, KNOWN, Kept, Turns};
    use crate::upstream::exchange;
    use mcp::{Limits, Message};
    use std::{sync::Arc, time::Duration};
    use vocab::{Digest, ServerName};

    fn question(id: usize, length: usize) -> Message {
        let said = "x".repeat(length);
        let text =
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"elicitation/create","params":{{"message":"{said}"}}}}"#);
        exchange::one(text.into(), &Limits::default()).unwrap()
    }

    #[test]
    fn what_is_held_is_bounded_and_goes_to_the_one_call_that_is_left_in_its_order() {
        let (turns, limits) = (Turns::new(&Arc::default()), Limits::default());
        let keep = |id, is_unclear| turns.keep(&question(id, 1), is_unclear, &limits);
        assert_eq!(keep(0, false), Kept::No);
        assert_eq!(turns.keep(&question(0, HELD.1), true, &limits), Kept::No);
        assert_eq!(keep(0, true), Kept::First);
        // What comes behind one that is held overtakes nothing.
        for id in 1..HELD.0 {
            assert_eq!(keep(id, id > 3), Kept::Behind);
        }
        assert_eq!(keep(HELD.0, true), Kept::No);
        assert!(turns.put([1, 2].into_iter(), |_, _| true).is_none());
        let mut put = Vec::new();
        let unheard = turns.put([1].into_iter(), |_, question| {
            put.push(question.id().unwrap().to_owned());
            put.len() < HELD.0
        });
        let ids: Vec<_> = (0..HELD.0).map(|id| id.to_string()).collect();
        assert_eq!(put, ids);
        assert_eq!(unheard.unwrap().len(), 1, "its client has no room for more");
        assert!(turns.put([1].into_iter(), |_, _| true).unwrap().is_empty());
    }

    #[test]
    fn a_call_that_comes_in_behind_a_question_is_not_asked_it() {
        let (turns, limits) = (Turns::new(&Arc::default()), Limits::default());
        turns.comes_in();
        for comes_in in [false, true] {
            assert_eq!(turns.keep(&question(0, 1), true, &limits), Kept::First);
            if comes_in {
                turns.comes_in();
            }
            let unheard = turns.put([1].into_iter(), |_, _| true).unwrap();
            assert_eq!(unheard.len(), usize::from(comes_in));
        }
    }

    #[tokio::test]
    async fn whoever_waits_in_vain_is_told_that_it_was_not_sent() {
        let (turns, what) = (Arc::new(Turns::new(&Arc::default())), Digest::of(b"asks"));
        turns.asking.note(what, true);
        let alone = turns.enter(what, Duration::from_mins(1)).await.ok();
        assert!(alone.is_some());
        let server = ServerName::new("files").unwrap();
        let late = [turns.enter(what, Duration::ZERO).await, turns.enter_again(what, Duration::ZERO).await];
        for (late, says) in late.into_iter().zip(["it was not sent", "give it again"]) {
            let stop = late.err().unwrap().stop(&server);
            assert!(stop.message.ends_with(says), "{}", stop.message);
            assert_eq!((stop.code, stop.reason), (mcp::error::UPSTREAM_TIMEOUT, "upstream-timeout"));
        }
        drop(alone);
        assert!(turns.enter(what, Duration::from_mins(1)).await.is_ok());
    }

    #[test]
    fn what_is_known_to_ask_is_bounded() {
        let asking = Asking::default();
        let name = |number: usize| Digest::of(number.to_string().as_bytes());
        (0..=KNOWN).for_each(|number| asking.note(name(number), true));
        assert_eq!((asking.has(name(0)), asking.has(name(1)), asking.has(name(KNOWN))), (false, true, true));
    }
}
