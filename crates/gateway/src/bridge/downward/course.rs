//! A call as its legacy server knows it: what it is told there, and what it says of itself.
//!
//! Every wait is cancel-safe: what is under way lies here, not in a future that a `select!` may drop.

use super::{Link, audience::Stage, parked};
use crate::{
    rim::UnderWay,
    server::Server,
    session::Way,
    state::State,
    upstream::{
        Arrival, Source, UpstreamFault,
        exchange::{self, Hop},
        pipe::TOO_LATE,
        resume::Resumed,
        turn::Turn,
    },
};
use bytes::Bytes;
use futures_util::FutureExt;
use http::StatusCode;
use mcp::{Kind, Limits, Message, bridge, sse::Event};
use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinHandle};
use vocab::Digest;

/// How long the head of an answer may take, with all that the client is asked before it comes. Whoever waits for it has a
/// deadline of its own.
pub(super) const LONGEST: Duration = parked::LIFE.saturating_mul(12);
/// Messages beside the answer that wait for its head; more are lost.
const AHEAD: usize = 64;

/// A request on its way: a server that still works on it when this is dropped is told that nobody waits.
struct Errand {
    // Not the state itself: a call that waits lies in it.
    state: Weak<State>,
    server: Arc<Server>,
    link: Arc<Link>,
    number: u64,
    /// What the server says in its course beside the answer.
    said: Option<mpsc::Receiver<Bytes>>,
    over: bool,
}

impl Drop for Errand {
    fn drop(&mut self) {
        self.link.audience.leave(self.number, self.over);
        // A process is told by its pipe.
        if matches!(self.link.leg.way, Way::Pipe(_)) {
            return;
        }
        let (Some(state), Ok(runtime)) = (self.state.upgrade(), tokio::runtime::Handle::try_current()) else { return };
        let (server, link, number) = (Arc::clone(&self.server), Arc::clone(&self.link), self.number);
        let mut texts = self.unheard(&state);
        if !self.over {
            texts.push(Bytes::from(format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{number},"reason":"the client is gone"}}}}"#
            )));
        }
        if texts.is_empty() {
            return;
        }
        // Whoever stops the gateway waits until they are told.
        let under_way = UnderWay::begin(&state);
        runtime.spawn(async move {
            let _under_way = under_way;
            for text in texts {
                if let Err(fault) = super::tell(&state, &server, &link.leg, text).await {
                    tracing::debug!(server = %server.name, %fault, "the end of a call could not be told");
                }
            }
        });
    }
}

impl Errand {
    /// The answers to what the server asked beside its answer, and nobody heard any more.
    fn unheard(&mut self, state: &Arc<State>) -> Vec<Bytes> {
        let Some(said) = &mut self.said else { return Vec::new() };
        said.close();
        let limits = state.line().snapshot.answer_limits();
        let said = std::iter::from_fn(|| said.try_recv().ok());
        let questions = said.filter_map(|text| exchange::one(text, &limits).ok());
        let questions = questions.filter(|message| message.kind() == Kind::Request);
        questions.map(|question| state.journal.unheard(&self.server.name, &question, TOO_LATE)).collect()
    }
}

/// The head of an answer that is still to come.
struct Awaited(JoinHandle<Result<Arrival, UpstreamFault>>);

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A call as its server knows it.
pub(super) struct Course {
    pub(super) server: Arc<Server>,
    pub(super) link: Arc<Link>,
    // In this order: a process hears that a request is over before anybody forgets which.
    awaited: Option<Awaited>,
    source: Option<Source>,
    whole: Option<Bytes>,
    /// What was said beside the answer, and read already.
    ahead: VecDeque<Bytes>,
    /// How it ended, where that was read ahead, too.
    end: Option<Result<(), UpstreamFault>>,
    errand: Errand,
    /// The server is asked whether it still knows the session.
    doubt: Option<JoinHandle<()>>,
    pub(super) method: Box<str>,
    /// Principal, server and request.
    pub(super) bound: Digest,
    limits: Limits,
    // Last: the next call comes when this one is nowhere any more.
    pub(super) turn: Option<Turn>,
}

impl Course {
    /// A call that is about to be sent under this number.
    pub(super) fn new(
        (hop, link): (&Hop<'_>, &Arc<Link>),
        number: u64,
        method: &str,
        bound: Digest,
        turn: Option<Turn>,
    ) -> Self {
        let (server, method) = (Arc::clone(hop.server), Box::from(method));
        let errand = Errand {
            state: Arc::downgrade(hop.state),
            server: Arc::clone(&server),
            link: Arc::clone(link),
            number,
            said: (link.is_told_apart() && bridge::may_ask(&method)).then(|| link.audience.join(number)),
            over: false,
        };
        Self {
            server,
            link: Arc::clone(link),
            awaited: None,
            source: None,
            whole: None,
            ahead: VecDeque::new(),
            end: None,
            errand,
            doubt: None,
            method,
            bound,
            limits: hop.limits,
            turn,
        }
    }

    /// Under which number the server knows it.
    pub(super) const fn number(&self) -> u64 {
        self.errand.number
    }

    /// The server works on it no more.
    pub(super) fn is_over(&mut self) {
        self.errand.over = true;
        if let Some(turn) = &self.turn {
            turn.is_answered();
        }
    }

    /// It is so far now.
    pub(super) fn stage(&self, stage: Stage) {
        self.link.audience.turn(self.errand.number, stage);
        if let Some(Source::Pipe(replies)) = &self.source {
            replies.rest(stage == Stage::Resting);
        }
    }

    /// It was asked something that bore no sign of it.
    pub(super) fn is_asked(&self) {
        // What a server asks before it knows of the call is not of that.
        if matches!(&self.source, Some(Source::Pipe(replies)) if !replies.is_sent()) {
            return;
        }
        if let Some(turn) = &self.turn {
            turn.is_asked();
        }
    }

    /// Whether it speaks in a stream.
    pub(super) const fn is_stream(&self) -> bool {
        self.source.is_some()
    }

    /// Whether the server has a deadline for its first word.
    pub(super) fn is_due(&self) -> bool {
        self.source.as_ref().is_some_and(Source::is_due)
    }

    /// Waits for the head of the answer, or until the server asks something: some give no head before they were answered.
    pub(super) async fn send<F>(&mut self, sending: F) -> Result<(), UpstreamFault>
    where
        F: Future<Output = Result<Arrival, UpstreamFault>> + Send + 'static,
    {
        self.stage(Stage::Running);
        let mut sending = Box::pin(sending);
        loop {
            tokio::select! {
                arrival = &mut sending => return self.begin(arrival?),
                Some(text) = heard(&mut self.errand.said) => {
                    let asks = exchange::one(text.clone(), &self.limits)?.kind() == Kind::Request;
                    if asks || self.ahead.len() < AHEAD {
                        self.ahead.push_back(text);
                    }
                    if asks {
                        self.is_asked();
                        self.awaited = Some(Awaited(tokio::spawn(sending)));
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The server begins to answer. A status in place of an answer is the end of it.
    pub(super) fn begin(&mut self, arrival: Arrival) -> Result<(), UpstreamFault> {
        let status = arrival.status();
        if exchange::is_lost(Some(&self.link.leg), status) {
            if let Some(state) = self.errand.state.upgrade() {
                super::lose(&state, &self.server, &self.link);
            }
            self.is_over();
            return Err(UpstreamFault::Lost);
        }
        if !status.is_success() && !self.is_answer(&arrival) {
            // Some servers answer unknown sessions with 400, naming no request; others what they could not read.
            if status == StatusCode::BAD_REQUEST
                && let Some(state) = self.errand.state.upgrade()
            {
                let (server, link) = (Arc::clone(&self.server), Arc::clone(&self.link));
                self.doubt = Some(tokio::spawn(async move { super::doubt(&state, &server, &link).await }));
            }
            self.is_over();
            return Err(UpstreamFault::Status(status));
        }
        match arrival {
            Arrival::Bare { .. } => return Err(UpstreamFault::Protocol(format!("HTTP {status} without a message"))),
            Arrival::Whole { body, .. } => self.whole = Some(body),
            Arrival::Stream { source, .. } => {
                self.source = Some(Resumed::around(&self.errand.state, &self.server, &self.link.leg, source));
            }
        }
        Ok(())
    }

    /// Waits until it is known whether the session goes on, where that is in doubt.
    pub(super) async fn settle(&mut self) {
        if let Some(doubt) = self.doubt.take() {
            // One that breaks leaves the session as it is.
            let _ = doubt.await;
        }
    }

    /// Whether an arrival is an answer to this very request.
    fn is_answer(&self, arrival: &Arrival) -> bool {
        let Arrival::Whole { body, .. } = arrival else { return false };
        exchange::one(body.clone(), &self.limits).is_ok_and(|message| self.is_answered_by(&message))
    }

    pub(super) fn is_answered_by(&self, message: &Message) -> bool {
        let number = self.errand.number.to_string();
        message.kind() == Kind::Response && message.id().is_some_and(|id| mcp::id_key(id) == mcp::id_key(&number))
    }

    /// The next message of the server. `None`: it has ended.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, UpstreamFault> {
        if let Some(text) = self.ahead.pop_front() {
            return Ok(Some(Event::of(text)));
        }
        match self.end.take() {
            Some(end) => end.map(|()| None),
            None => self.read().await,
        }
    }

    /// Whether the server has taken back a question that it asked: nobody waits for its answer, then. What it said beside that
    /// is read in its turn.
    pub(super) fn has_taken_back(&mut self, question: &str) -> bool {
        while self.end.is_none() && self.ahead.len() < AHEAD {
            match self.read().now_or_never() {
                None => break,
                Some(Ok(Some(event))) => self.ahead.extend(event.message().cloned()),
                Some(end) => self.end = Some(end.map(drop)),
            }
        }
        let key = mcp::id_key(question);
        let takes_back = |text: &Bytes| {
            let message = exchange::one(text.clone(), &self.limits).ok()?;
            let named = message.param(&["requestId"]).filter(|_| message.method() == "notifications/cancelled")?;
            Some(mcp::id_key(&String::from_utf8_lossy(named.raw)) == key)
        };
        self.ahead.iter().any(|text| takes_back(text) == Some(true))
    }

    async fn read(&mut self) -> Result<Option<Event>, UpstreamFault> {
        loop {
            let Self { awaited, source, whole, errand, .. } = self;
            let arrival = tokio::select! {
                biased;
                // It came before the answer.
                Some(text) = heard(&mut errand.said) => {
                    if exchange::one(text.clone(), &self.limits)?.kind() == Kind::Request {
                        self.is_asked();
                    }
                    return Ok(Some(Event::of(text)));
                }
                arrival = head(awaited) => arrival,
                event = speech(whole, source), if awaited.is_none() => return event,
            };
            self.awaited = None;
            self.begin(arrival?)?;
        }
    }
}

/// What the server says beside its answer, if it may.
async fn heard(said: &mut Option<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    said.as_mut()?.recv().await
}

/// The head of the answer, if it is still to come.
async fn head(awaited: &mut Option<Awaited>) -> Result<Arrival, UpstreamFault> {
    match awaited {
        Some(Awaited(sending)) => sending.await.unwrap_or_else(|fault| Err(UpstreamFault::Cut(fault.to_string()))),
        None => std::future::pending().await,
    }
}

/// What the answer says next.
async fn speech(whole: &mut Option<Bytes>, source: &mut Option<Source>) -> Result<Option<Event>, UpstreamFault> {
    if let Some(text) = whole.take() {
        return Ok(Some(Event::of(text)));
    }
    match source {
        Some(source) => Ok(Box::pin(source.next()).await?.map(|(_, event)| event)),
        None => Ok(None),
    }
}
