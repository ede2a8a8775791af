//! Something of the client's that is on its way, and who waits for it. Sends nothing.

use super::{bridge::LIMITS, errand::Errand, gap, mirror::single};
use bytes::Bytes;
use mcp::{Message, key::LISTEN_AGAIN};
use std::sync::{Arc, Mutex, PoisonError};

/// Something of the client's that is on its way.
pub(super) struct Post {
    /// As the client wrote it.
    pub(super) text: Bytes,
    /// The message, unless it is a batch.
    pub(super) message: Option<Message>,
    /// Those who wait.
    errands: Vec<Arc<Errand>>,
    /// For a stream of subscriptions: what the gateway acknowledged.
    acknowledged: Mutex<Option<Bytes>>,
    /// And the result by which the gateway wants it to be asked for again, which the client hears where that is refused.
    ended: Mutex<Option<Bytes>>,
}

/// What an event is to a stream of subscriptions.
pub(super) enum Acknowledged {
    /// Something else.
    No,
    /// What it began with.
    First,
    /// What it began again with.
    Again {
        /// Whether the client heard the same before.
        is_known: bool,
        /// What the client hears in place of what was said in between.
        changed: Vec<Bytes>,
    },
}

impl Post {
    /// One message.
    pub(super) fn of(message: Message, errand: Option<Arc<Errand>>) -> Self {
        let text = message.bytes().clone();
        Self::new(text, Some(message), errand.into_iter().collect())
    }

    /// A batch.
    pub(super) fn batch(text: Bytes, errands: Vec<Arc<Errand>>) -> Self {
        Self::new(text, None, errands)
    }

    fn new(text: Bytes, message: Option<Message>, errands: Vec<Arc<Errand>>) -> Self {
        Self { text, message, errands, acknowledged: Mutex::default(), ended: Mutex::default() }
    }

    /// Those who wait.
    pub(super) fn errands(&self) -> &[Arc<Errand>] {
        &self.errands
    }

    pub(super) fn is(&self, method: &str) -> bool {
        self.message.as_ref().is_some_and(|message| message.method() == method)
    }

    pub(super) fn is_answered(&self) -> bool {
        self.errands.iter().all(|errand| errand.is_answered())
    }

    pub(super) fn listens(&self) -> bool {
        self.errands.iter().any(|errand| errand.listens())
    }

    /// Whether a stream of subscriptions was open before.
    pub(super) fn was_open(&self) -> bool {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Whether it is a stream of subscriptions that is asked for again when it ends: it was open, or the gateway wants that.
    pub(super) fn goes_on(&self) -> bool {
        self.was_open() || self.ended().is_some()
    }

    /// Whether this ends the stream, and says that it is to be asked for again. It is kept. A gateway that stops may say so
    /// before it acknowledged anything.
    pub(super) fn is_to_listen_again(&self, event: &Bytes) -> bool {
        if !self.listens() {
            return false;
        }
        let again =
            |it: Message| it.outcome_member(&["_meta", LISTEN_AGAIN]).is_some_and(|member| member.raw == b"true");
        let is_so = single(event, &LIMITS).is_some_and(again);
        if is_so {
            *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(event.clone());
        }
        is_so
    }

    /// The result by which its stream ended.
    pub(super) fn ended(&self) -> Option<Bytes> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What an event is to a stream of subscriptions.
    pub(super) fn acknowledged(&self, event: &Bytes) -> Acknowledged {
        if !self.listens() {
            return Acknowledged::No;
        }
        let said = single(event, &LIMITS).filter(|it| it.method() == "notifications/subscriptions/acknowledged");
        let Some(said) = said else { return Acknowledged::No };
        // It is heard again.
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let mut known = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        match known.replace(event.clone()) {
            None => Acknowledged::First,
            Some(last) => Acknowledged::Again { is_known: last == event, changed: gap::of_subscription(&said) },
        }
    }
}
