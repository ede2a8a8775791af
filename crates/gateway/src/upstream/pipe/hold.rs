//! Questions that are held until it is clear in the course of which call they are.

use super::{Pipe, UNCLEAR, backlog::Weight, lock};
use crate::upstream::turn::Kept;
use mcp::{Kind, Message};
use std::sync::Arc;
use tokio::time::Instant;

impl Pipe {
    /// Whether a message is held, or is about one that is. Where several share the process nothing is.
    pub(super) fn keeps(self: &Arc<Self>, message: &Message) -> bool {
        if self.shared || message.kind() == Kind::Response {
            return false;
        }
        let table = lock(&self.waiting);
        let is_unclear = table.values().filter(|waiting| waiting.may_be_asked()).nth(1).is_some();
        let kept = self.turns.keep(message, is_unclear, &self.limits);
        drop(table);
        if kept == Kept::First {
            tokio::spawn(settle(Arc::clone(self)));
        }
        kept != Kept::No
    }

    /// Puts what is held to the one request that is left.
    fn put(&self) -> Option<Vec<Message>> {
        let mut table = lock(&self.waiting);
        let left = table.values_mut().filter(|waiting| waiting.may_be_asked());
        self.turns.put(left, |waiting, question| {
            let is_put = waiting.speaker.say(question.bytes().clone(), Weight::Question, false).is_ok();
            if is_put {
                waiting.asked.put(question);
                *lock(&self.asked) = Some(Instant::now());
            }
            is_put
        })
    }
}

async fn settle(pipe: Arc<Pipe>) {
    for question in pipe.turns.settle(|| pipe.put()).await {
        let answer = pipe.journal.unheard(&pipe.server, &question, UNCLEAR);
        if let Err(fault) = pipe.write(answer).await {
            tracing::debug!(server = %pipe.server, %fault, "a question could not be refused");
        }
        pipe.is_answered(question.id().unwrap_or_default());
    }
}
