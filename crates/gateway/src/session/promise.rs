//! Tasks that the client of the aggregate makes of its answers, and who asked what they answer.
//!
//! The client has one list of tasks, and whoever knows an id may read what it gives. Here a task belongs to the server
//! that asked, for as long as the session lasts.

use super::{Session, lock};
use crate::origin::Origin;
use vocab::{Digest, ServerName};

/// Tasks of the client that are known, per session. Beyond that the oldest is forgotten.
const PROMISES: usize = 256;
/// The longest method that is answered with a task, in bytes.
const METHOD: usize = 256;
/// The longest progress token that is kept for a task, in bytes.
const TOKEN: usize = 1024;

/// A task of the client's.
pub(super) struct Promise {
    /// Its id, of which nobody knows how long clients make them.
    task: Digest,
    /// Who asked.
    pub(super) server: ServerName,
    /// Which of its processes or sessions. `None`: whoever asked waits here.
    pub(super) origin: Option<Origin>,
    /// What was asked.
    method: Box<str>,
    /// The progress tokens that client and server know.
    tokens: Option<(Box<str>, Box<str>)>,
}

impl Promise {
    /// Whether the client tells its progress by the token with this key.
    pub(super) fn is_told_by(&self, key: &str) -> bool {
        self.tokens.as_ref().is_some_and(|(shown, _)| mcp::id_key(shown) == key)
    }

    /// Who asked, by which token, and what.
    pub(super) fn progressing(&self) -> Option<(ServerName, Box<str>, Box<str>)> {
        let (_, token) = self.tokens.as_ref()?;
        Some((self.server.clone(), token.clone(), self.method.clone()))
    }
}

impl Session {
    /// The client made a task of its answer. An id that it gives twice is that of the newer one.
    /// `tokens`: those of the question, as client and server know them.
    pub(crate) fn promise(
        &self,
        task: &str,
        (server, origin): (&ServerName, Option<Origin>),
        method: &str,
        tokens: Option<(&str, &str)>,
    ) {
        if method.len() > METHOD {
            return;
        }
        let task = Digest::of(task.as_bytes());
        let promises = &mut lock(&self.asked).promises;
        promises.retain(|known| known.task != task);
        if promises.len() >= PROMISES {
            promises.pop_front();
        }
        let tokens = tokens.filter(|(_, token)| token.len() <= TOKEN);
        let tokens = tokens.map(|(shown, token)| (Box::from(shown), Box::from(token)));
        promises.push_back(Promise { task, server: server.clone(), origin, method: Box::from(method), tokens });
    }

    /// Who asked what the client answers with this task, and what that was.
    pub(crate) fn promised(&self, task: &str) -> Option<(ServerName, Option<Origin>, Box<str>)> {
        let task = Digest::of(task.as_bytes());
        let asked = lock(&self.asked);
        let promise = asked.promises.iter().find(|promise| promise.task == task)?;
        Some((promise.server.clone(), promise.origin, promise.method.clone()))
    }
}
