//! A request that waits for its answer: whose it is, what it may hear, and what was asked in its course.

use super::backlog::Speaker;
use mcp::Message;
use std::collections::VecDeque;
use tokio::time::Instant;
use vocab::{Digest, PrincipalId};

/// Questions of one request that are known. Beyond that the oldest is forgotten.
const ASKED: usize = 256;

/// A request that waits for its answer.
pub(super) struct Waiting {
    pub(super) hears: Hears,
    /// Whose it is.
    pub(super) asker: Asker,
    /// The id as the client wrote it.
    pub(super) id: Box<str>,
    /// The progress token as the client wrote it.
    pub(super) token: Option<Box<str>>,
    /// The server knows of it: a call may wait for the roots.
    pub(super) is_sent: bool,
    /// The server was told that nobody waits any more.
    pub(super) taken_back: bool,
    /// It waits for its client, who was asked.
    pub(super) rests: bool,
    /// What the server asked in its course.
    pub(super) asked: Asked,
    pub(super) speaker: Speaker,
}

impl Waiting {
    /// Of several those that come first may be meant. One whose client was asked comes behind: the server asks in its course
    /// no more until it is answered.
    pub(super) const fn rank(&self) -> (Hears, bool) {
        (self.hears, !self.rests)
    }

    /// Whether its client may be asked in its course.
    pub(super) fn hears_questions(&self) -> bool {
        self.hears > Hears::News
    }

    /// Whether the server may ask in its course now, over the bridge.
    pub(super) fn may_be_asked(&self) -> bool {
        self.asker == Asker::Gateway && self.hears == Hears::Questions && !self.rests
    }
}

/// Whether nobody can tell in the course of which request a question is.
///
/// SECURITY: over the bridge each may be another client's, though all are one principal's.
pub(super) fn is_unclear<'w>(requests: impl Iterator<Item = &'w Waiting> + Clone) -> bool {
    let hearing = requests.filter(|waiting| waiting.hears_questions());
    let Some(first) = hearing.clone().map(Waiting::rank).max() else { return false };
    hearing.filter(|waiting| waiting.asker == Asker::Gateway && waiting.rank() == first).count() > 1
}

/// Whose message it is. Clients write the same ids, and may cancel their own requests only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asker {
    /// The gateway, for itself or, over the bridge, for a client that has no session. It cancels by its own number.
    Gateway,
    /// A session, by the digest of its handle.
    Session(Digest),
    /// A caller that has no session: the modern era has none.
    Principal(PrincipalId),
}

/// What a request may hear beside its progress and its answer. Whom else a server means it does not say: of several of one
/// client the newest of those that may hear most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hears {
    /// Nothing: the gateway asks for itself, or the request lasts and says what it wants to hear.
    Nothing,
    /// What is logged: over the bridge clients are asked in the course of calls alone, and not of lists.
    News,
    /// What its client takes, though the eras have no questions in its course.
    Something,
    /// What is asked and logged in the course of a call.
    Questions,
}

impl Hears {
    /// What a client's request may hear.
    pub(crate) fn by(message: &Message, asker: &Asker) -> Self {
        match message.method() {
            "subscriptions/listen" => Self::Nothing,
            method if mcp::bridge::may_ask(method) => Self::Questions,
            // A legacy client that introduces itself has no session yet, and is no client over the bridge.
            method if *asker == Asker::Gateway && method != "initialize" => Self::News,
            _ => Self::Something,
        }
    }
}

/// Questions that were put in the course of a request: what takes one back goes where it went. Digests of their ids, which are
/// as long as the server likes.
#[derive(Default)]
pub(super) struct Asked {
    ids: VecDeque<Digest>,
    /// When the last one was put.
    pub(super) last: Option<Instant>,
}

impl Asked {
    /// The server asks.
    pub(super) fn put(&mut self, question: &Message) {
        let Some(id) = question.id() else { return };
        self.last = Some(Instant::now());
        if self.ids.len() >= ASKED {
            self.ids.pop_front();
        }
        self.ids.push_back(known_by(id));
    }

    /// Whether it was asked here.
    pub(super) fn has(&self, id: &str) -> bool {
        !self.ids.is_empty() && self.ids.contains(&known_by(id))
    }
}

fn known_by(id: &str) -> Digest {
    Digest::of(mcp::id_key(id).as_bytes())
}
