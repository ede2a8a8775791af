//! The stream of a call: written by the flow that judges it, whether a client reads or not.

use super::{Event, Place, Session, lock};
use bytes::Bytes;
use std::{pin::pin, sync::Arc};
use vocab::{Action, ServerName};

/// The call that a stream answers: what has to be asked of policy before anything of it is given again.
pub(crate) struct About {
    pub(crate) server: ServerName,
    /// Each is needed. None for what needs no rule.
    pub(crate) actions: Vec<Action>,
    pub(crate) name: Arc<str>,
    /// The id of the request, as its client wrote it.
    pub(crate) id: Box<str>,
}

/// Keeps what is said on the stream of a call. Dropped, the stream is over.
pub(crate) struct Keeper {
    session: Arc<Session>,
    stream: u64,
}

impl Session {
    /// Begins to keep the stream of a call.
    pub(crate) fn keep_call(self: &Arc<Self>, about: About) -> Keeper {
        let stream = lock(&self.replay.kept).begin(Some(about));
        Keeper { session: Arc::clone(self), stream }
    }
}

impl Keeper {
    /// The event that comes before all others.
    pub(crate) fn primer(&self) -> Bytes {
        Place { stream: self.stream, after: 0 }.primer()
    }

    /// Keeps an event, and gives it as it is to be sent: under an id of ours, unless the server gave ids of its own.
    pub(crate) fn keep(&self, event: Bytes, is_answer: bool, has_ids: bool) -> Bytes {
        let mut kept = lock(&self.session.replay.kept);
        // Forgotten, for many began since.
        let Some(stream) = kept.stream(self.stream) else { return event };
        stream.last += 1;
        let number = stream.last;
        if is_answer {
            stream.answer = Some(number);
        }
        let text = if has_ids {
            // A copy: the event is part of a larger buffer, which would stay as long.
            Bytes::copy_from_slice(&event)
        } else {
            // A byte order mark that began the server's stream does not begin ours.
            let event = event.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&event);
            let id = Place { stream: self.stream, after: number }.id();
            [b"id: ", id.as_bytes(), b"\n", event].concat().into()
        };
        kept.push(Event { stream: self.stream, number, server: None, origin: None, text: text.clone() });
        drop(kept);
        self.session.replay.changed.notify_waiters();
        text
    }

    /// Where to wait for somebody who reads on in place of the first client.
    pub(crate) fn watch(&self) -> Watch {
        Watch { session: Arc::clone(&self.session), stream: self.stream }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(stream) = lock(&self.session.replay.kept).stream(self.stream) {
            stream.over = true;
        }
        self.session.replay.changed.notify_waiters();
    }
}

/// Waits until somebody reads on in place of the first client.
pub(crate) struct Watch {
    session: Arc<Session>,
    stream: u64,
}

impl Watch {
    pub(crate) async fn taken(&self) {
        loop {
            let mut changed = pin!(self.session.replay.changed.notified());
            changed.as_mut().enable();
            if lock(&self.session.replay.kept).stream(self.stream).is_some_and(|stream| stream.turn > 0) {
                return;
            }
            changed.await;
        }
    }
}
