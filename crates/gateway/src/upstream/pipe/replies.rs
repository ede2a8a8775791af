//! What a process, or a server of 2024-11-05, says in the course of one request, to whoever made it.
//!
//! Every wait is cancel-safe. Decides nothing about what is said.

use super::{Pipe, TOO_LATE, backlog::Said, lock, waiting::Waiting};
use crate::{
    origin::Origin,
    upstream::{UpstreamFault, exchange},
};
use bytes::Bytes;
use mcp::{Kind, Message};
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};

/// What comes back for one request: notifications, then the response. Dropping it early cancels the request, if that was sent.
pub(crate) struct Replies {
    pipe: Arc<Pipe>,
    number: u64,
    messages: mpsc::UnboundedReceiver<Said>,
    /// What was waited for, and not looked at.
    ahead: Option<Said>,
    first: Option<Bytes>,
    over: bool,
    /// Until when the server must have said something, and how long that is. None where that is kept elsewhere, or it has.
    due: Option<(Instant, Duration)>,
}

impl Replies {
    pub(super) const fn new(pipe: Arc<Pipe>, number: u64, messages: mpsc::UnboundedReceiver<Said>) -> Self {
        Self { pipe, number, messages, ahead: None, first: None, over: false, due: None }
    }

    /// Waits until the server says something in its course.
    pub(super) async fn begins(&mut self) {
        if self.ahead.is_none() {
            self.ahead = self.messages.recv().await;
        }
    }

    async fn recv(&mut self) -> Option<Said> {
        match self.ahead.take() {
            Some(said) => Some(said),
            None => self.messages.recv().await,
        }
    }

    /// Waits for the first message and says whether it is the response. It is not taken unless it is.
    pub(crate) async fn first(&mut self) -> Result<Option<(Bytes, bool)>, UpstreamFault> {
        let Some(said) = self.recv().await else { return Ok(None) };
        self.over = said.last;
        let text = said.text?;
        if !said.last {
            self.first = Some(text.clone());
        }
        Ok(Some((text, said.last)))
    }

    /// Who says it.
    pub(crate) fn origin(&self) -> Origin {
        self.pipe.origin()
    }

    /// Nothing was said yet, and must be before so much time is over since the beginning.
    pub(crate) fn due(&mut self, began: Instant, deadline: Duration) {
        self.due = Some((began + deadline, deadline));
    }

    /// Whether a first word is waited for.
    pub(crate) const fn is_due(&self) -> bool {
        self.due.is_some()
    }

    /// Its client was asked, or has answered.
    pub(crate) fn rest(&self, rests: bool) {
        let mut table = lock(&self.pipe.waiting);
        let Some(waiting) = table.get_mut(&self.number) else { return };
        if std::mem::replace(&mut waiting.rests, rests) && waiting.may_be_asked() {
            self.pipe.turns.comes_in();
        }
        drop(table);
        self.pipe.moved.notify_waiters();
    }

    /// Whether the server knows of it: a call may wait for the roots.
    pub(crate) fn is_sent(&self) -> bool {
        lock(&self.pipe.waiting).get(&self.number).is_none_or(|waiting| waiting.is_sent)
    }

    /// What was asked, and nobody will answer any more: what was not read, and of a request that was not sent the question of
    /// the server that was. It asks once.
    fn unanswered(&mut self, waiting: Option<&Waiting>) -> Vec<Message> {
        self.messages.close();
        let ahead = self.ahead.take();
        let said = ahead.into_iter().chain(std::iter::from_fn(|| self.messages.try_recv().ok()));
        let said = self.first.take().into_iter().chain(said.filter_map(|said| said.text.ok()));
        let read = |text| exchange::one(text, &self.pipe.limits).ok();
        let mut questions: Vec<_> = said.filter_map(read).filter(|message| message.kind() == Kind::Request).collect();
        let unsent = waiting.filter(|waiting| !waiting.is_sent);
        let owed = unsent.and_then(|unsent| self.pipe.roots.owed(|id| unsent.asked.has(id)));
        if let Some(id) = owed.filter(|owed| questions.iter().all(|question| question.id() != Some(owed))) {
            let question = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"roots/list"}}"#);
            questions.extend(exchange::one(question.into(), &self.pipe.limits));
        }
        questions
    }

    async fn said(&mut self) -> Result<Option<Said>, UpstreamFault> {
        if let Some((due, deadline)) = self.due {
            match tokio::time::timeout_at(due, self.recv()).await {
                Ok(said) => {
                    self.due = None;
                    return Ok(said);
                }
                // It does not say in the course of which call it asks, and whoever is asked may take their time.
                Err(_) if self.pipe.asked_of(self.number).is_some_and(|asked| asked + deadline >= due) => {
                    self.due = None;
                }
                Err(_) => return Err(UpstreamFault::Timeout(deadline)),
            }
        }
        Ok(self.recv().await)
    }

    /// The next message; `None` once the response was given. Whoever ends before that has broken off.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, UpstreamFault> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        if self.over {
            return Ok(None);
        }
        let Some(said) = self.said().await? else {
            return Err(Box::pin(self.pipe.broken()).await);
        };
        self.over = said.last;
        said.text.map(Some)
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        // Whatever the server says to it from now on is nobody's, and dropped.
        let mut table = lock(&self.pipe.waiting);
        let waiting = table.remove(&self.number);
        if waiting.as_ref().is_some_and(Waiting::may_be_asked) {
            self.pipe.turns.broke_off();
        }
        drop(table);
        self.pipe.moved.notify_waiters();
        if waiting.as_ref().is_some_and(|waiting| !waiting.is_sent) {
            // Another call may be the one that is asked.
            self.pipe.roots.are_let_go();
        }
        let questions = self.unanswered(waiting.as_ref());
        let refuse =
            |question| (self.pipe.journal.unheard(&self.pipe.server, question, TOO_LATE), Some(question.clone()));
        // Recorded by now, whatever becomes of what is told.
        let mut texts: Vec<_> = questions.iter().map(refuse).collect();
        texts.extend(
            waiting.filter(|waiting| waiting.is_sent && !waiting.taken_back).map(|_| (cancelled(self.number), None)),
        );
        if texts.is_empty() {
            return;
        }
        let pipe = Arc::clone(&self.pipe);
        tokio::spawn(async move {
            for (text, question) in texts {
                if let Err(fault) = pipe.write(text).await {
                    tracing::debug!(%fault, "the end of a call could not be told");
                }
                if let Some(question) = question {
                    pipe.is_answered(question.id().unwrap_or_default());
                }
            }
        });
    }
}

/// What tells the server that nobody waits any more.
pub(super) fn cancelled(number: u64) -> Bytes {
    let text = format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{number}}}}}"#);
    Bytes::from(text)
}
