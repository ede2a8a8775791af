//! What a process says before anybody can hear it: behind its `initialize` a client takes a moment until it listens, and one of
//! the modern era until it calls something. Servers ask for roots as soon as they may, and ask once: it is kept for a while.

use super::{Pipe, deliver::Delivered, lock};
use crate::upstream::exchange;
use bytes::Bytes;
use mcp::{Kind, Limits, Message};
use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

/// How long after somebody could first come to hear it what a process says is kept, and so how long at most.
const YOUNG: Duration = Duration::from_secs(30);
/// How long where somebody waits for an answer of the server: that may wait for one to this.
pub(super) const BLOCKING: Duration = Duration::from_secs(3);
/// Messages that are kept, and how long one of them may be, in bytes.
const KEPT: (usize, usize) = (16, 64 << 10);
/// How often it is looked whether somebody hears by now.
const AGAIN: Duration = Duration::from_millis(20);

/// What is kept, in its order.
#[derive(Default)]
pub(super) struct Early {
    words: VecDeque<(Message, Instant)>,
    /// Somebody looks after it.
    is_looked_after: bool,
    /// A call was made: from then on whoever does not listen does not mean to.
    was_called: bool,
    /// Wakes whoever looks after it: a call may be answered before the next look.
    called: Arc<Notify>,
    /// Somebody means to hear it.
    is_awaited: bool,
    /// Since when somebody could come to hear: a process may take long until it says its first word.
    since: Option<Instant>,
    /// The first may be put to somebody at this moment.
    is_in_hand: bool,
}

impl Early {
    /// A call is made. What is kept is for its client; nothing more is.
    pub(super) fn is_called(&mut self) {
        self.was_called = true;
        if !self.words.is_empty() {
            self.called.notify_one();
        }
    }

    /// Somebody will come to hear when the session is open.
    pub(super) fn is_awaited(&mut self) {
        self.is_awaited = true;
    }

    /// The session is open. Where nobody will hear, nothing is kept.
    pub(super) fn opens(&mut self) {
        if self.is_awaited {
            self.begins();
        }
    }

    /// Somebody may come to hear from now on.
    pub(super) fn begins(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    fn is_young(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() < YOUNG)
    }

    /// What takes back a question that is kept, and the question: nobody hears of either, unless that is being put.
    fn has_dropped(&mut self, message: &Message, limits: &Limits) -> bool {
        let Some(named) = message.param(&["requestId"]) else { return false };
        let id = mcp::id_key(&String::from_utf8_lossy(named.raw));
        let is_meant =
            |kept: &Message| kept.kind() == Kind::Request && kept.id().is_some_and(|own| mcp::id_key(own) == id);
        if self.is_in_hand && self.words.front().is_some_and(|(first, _)| is_meant(first)) {
            return self.keep(message, limits);
        }
        let before = self.words.len();
        self.words.retain(|(kept, _)| !is_meant(kept));
        self.words.len() < before
    }

    fn keep(&mut self, message: &Message, limits: &Limits) -> bool {
        if self.words.len() >= KEPT.0 || message.bytes().len() > KEPT.1 {
            return false;
        }
        // A copy: what the pipe read at once is one buffer, of which a few words would keep all.
        let own = exchange::one(Bytes::copy_from_slice(message.bytes()), limits);
        own.is_ok_and(|own| {
            self.words.push_back((own, Instant::now()));
            true
        })
    }

    /// The first. Where there is none nobody looks any more.
    fn first(&mut self) -> Option<(Message, Instant)> {
        let first = self.words.front().cloned();
        self.is_looked_after = first.is_some();
        self.is_in_hand = first.is_some();
        first
    }

    /// It was handed over, unless it was taken back meanwhile.
    fn is_over(&mut self, message: &Message) {
        self.is_in_hand = false;
        self.words.pop_front_if(|(first, _)| first.bytes().as_ptr() == message.bytes().as_ptr());
    }
}

impl Pipe {
    /// Whether a question waits behind others that are kept, or one of them was taken back. What somebody hears now waits for
    /// none of them.
    pub(super) fn keeps_behind(&self, message: &Message) -> bool {
        let mut early = lock(&self.early);
        if early.words.is_empty() || message.kind() == Kind::Response {
            return false;
        }
        match (message.kind(), message.method()) {
            (_, "notifications/cancelled") => early.has_dropped(message, &self.limits),
            (Kind::Request, method) => method != "ping" && early.keep(message, &self.limits),
            (Kind::Notification | Kind::Response, _) => false,
        }
    }

    /// Keeps a message that nobody hears, if somebody may soon. Where several share the process nobody could tell who.
    pub(super) fn keeps_early(self: &Arc<Self>, message: &Message) -> bool {
        if self.shared || matches!(message.method(), "ping" | "notifications/progress" | "notifications/cancelled") {
            return false;
        }
        let mut early = lock(&self.early);
        let is_kept = !early.was_called && early.is_young() && early.keep(message, &self.limits);
        if is_kept && !std::mem::replace(&mut early.is_looked_after, true) {
            tokio::spawn(hand_over(Arc::downgrade(self), Arc::clone(&early.called)));
        }
        is_kept
    }

    /// Whether somebody may still come who hears what was said then. What takes back a question waits for nobody.
    fn may_wait(&self, (message, since): &(Message, Instant)) -> bool {
        let is_blocking = !lock(&self.waiting).is_empty();
        let is_worth_it = message.method() != "notifications/cancelled" && !(is_blocking && since.elapsed() > BLOCKING);
        is_worth_it && self.is_alive() && lock(&self.early).is_young()
    }

    /// Hands over what was said first. `false` if it waits on.
    async fn hand_over(self: &Arc<Self>, first: &(Message, Instant)) -> bool {
        let message = &first.0;
        let answer = if self.keeps(message) {
            None
        } else {
            match self.deliver_in_time(message).await {
                Delivered::Done => None,
                Delivered::Answered(answer) => Some(answer),
                Delivered::ToNobody if self.may_wait(first) => {
                    lock(&self.early).is_in_hand = false;
                    return false;
                }
                Delivered::ToNobody => self.refusal(message),
            }
        };
        lock(&self.early).is_over(message);
        if let Some(answer) = answer {
            if let Err(fault) = self.write(answer).await {
                tracing::debug!(server = %self.server, %fault, "what was kept for a client could not be answered");
            }
            self.is_answered(message.id().unwrap_or_default());
        }
        true
    }
}

/// Hands over what is kept, as soon as somebody hears it. A process that nobody has any more is not kept for that.
async fn hand_over(pipe: Weak<Pipe>, called: Arc<Notify>) {
    loop {
        let _ = timeout(AGAIN, called.notified()).await;
        loop {
            let Some(pipe) = pipe.upgrade() else { return };
            let Some(first) = lock(&pipe.early).first() else { return };
            if !pipe.hand_over(&first).await {
                break;
            }
        }
    }
}
