//! What a process says before anybody can hear it: behind its `initialize` a client takes a moment until it listens, and one of
//! the modern era until it calls something. Servers ask for roots as soon as they may, and ask once: it is kept for a while.

use super::{Pipe, deliver::Delivered, lock};
use mcp::{Kind, Message};
use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

/// How long after its start what a process says is kept, and so how long at most.
const YOUNG: Duration = Duration::from_secs(30);
/// How long where somebody waits for an answer of the server: that may wait for one to this.
const BLOCKING: Duration = Duration::from_secs(3);
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
}

impl Early {
    /// A call is made. What is kept is for its client; nothing more is.
    pub(super) fn is_called(&mut self) {
        self.was_called = true;
        if !self.words.is_empty() {
            self.called.notify_one();
        }
    }

    /// What takes back a question that is kept, and the question: nobody hears of either.
    fn has_dropped(&mut self, message: &Message) -> bool {
        let Some(named) = message.param(&["requestId"]) else { return false };
        let id = mcp::id_key(&String::from_utf8_lossy(named.raw));
        let is_meant = |kept: &Message| kept.id().is_some_and(|own| mcp::id_key(own) == id);
        let before = self.words.len();
        self.words.retain(|(kept, _)| kept.kind() != Kind::Request || !is_meant(kept));
        self.words.len() < before
    }

    fn keep(&mut self, message: &Message) -> bool {
        let has_room = self.words.len() < KEPT.0 && message.bytes().len() <= KEPT.1;
        if has_room {
            self.words.push_back((message.clone(), Instant::now()));
        }
        has_room
    }

    /// The first. Where there is none nobody looks any more.
    fn first(&mut self) -> Option<(Message, Instant)> {
        let first = self.words.front().cloned();
        self.is_looked_after = first.is_some();
        first
    }

    /// It was handed over, unless it was taken back meanwhile.
    fn is_over(&mut self, message: &Message) {
        self.words.pop_front_if(|(first, _)| first.bytes().as_ptr() == message.bytes().as_ptr());
    }
}

impl Pipe {
    /// Whether a message waits behind others that are kept, or took one of them back.
    pub(super) fn keeps_behind(&self, message: &Message) -> bool {
        let mut early = lock(&self.early);
        if early.words.is_empty() || message.kind() == Kind::Response {
            return false;
        }
        match message.method() {
            "ping" | "notifications/progress" => false,
            "notifications/cancelled" => early.has_dropped(message),
            _ => early.keep(message),
        }
    }

    /// Keeps a message that nobody hears, if somebody may soon. Where several share the process nobody could tell who.
    pub(super) fn keeps_early(self: &Arc<Self>, message: &Message) -> bool {
        let may_be_heard = !self.shared && self.began.elapsed() < YOUNG && self.listeners.count() > 0;
        if !may_be_heard || matches!(message.method(), "ping" | "notifications/progress" | "notifications/cancelled") {
            return false;
        }
        let mut early = lock(&self.early);
        let is_kept = !early.was_called && early.keep(message);
        if is_kept && !std::mem::replace(&mut early.is_looked_after, true) {
            tokio::spawn(hand_over(Arc::downgrade(self), Arc::clone(&early.called)));
        }
        is_kept
    }

    /// Whether somebody may still come who hears what was said then.
    fn may_wait(&self, since: Instant) -> bool {
        let is_blocking = !lock(&self.waiting).is_empty();
        self.is_alive() && self.began.elapsed() < YOUNG && !(is_blocking && since.elapsed() > BLOCKING)
    }

    /// Hands over what was said first. `false` if it waits on.
    async fn hand_over(self: &Arc<Self>, (message, since): &(Message, Instant)) -> bool {
        let answer = if self.keeps(message) {
            None
        } else {
            match self.deliver_in_time(message).await {
                Delivered::Done => None,
                Delivered::Answered(answer) => Some(answer),
                Delivered::ToNobody if self.may_wait(*since) => return false,
                Delivered::ToNobody => self.refusal(message),
            }
        };
        lock(&self.early).is_over(message);
        if let Some(answer) = answer
            && let Err(fault) = self.write(answer).await
        {
            tracing::debug!(server = %self.server, %fault, "what was kept for a client could not be answered");
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
