//! Sends a sealed call to its server, once. Never repeats what may have arrived.

mod leg;
mod opened;
mod recall;

pub(crate) use leg::open_leg;
pub(crate) use opened::session_header;
pub(crate) use recall::takes_back;

use crate::{
    admit::Admitted,
    aggregate,
    authenticate::Caller,
    bridge::{self, Crossing, upward::rights::Open},
    call::{Call, Operation, Route, header},
    flow::follow,
    inject::{Injected, Sealed},
    intend::Intent,
    manner,
    pipeline::Line,
    resolve::{self, One, Target},
    revive,
    screen::Screened,
    server::Carriage,
    session::{Errand, Leg, Session, Streaming, Way},
    standing,
    stop::{Stage, Stop},
    trail::{Facts, Noted},
    upstream::{
        Arrival, Source, UpstreamFault,
        exchange::{self, Hop, Wait},
        http::{self as wire, Heading, Outbound},
        pipe::{Asker, Pipe, Taken},
    },
};
use ::http::{Method, StatusCode};
use bytes::Bytes;
use mcp::{Era, Message};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use vocab::{Action, Digest, Finding};

/// How long a process is waited for before its answer becomes a stream that can be kept alive.
const SILENCE: Duration = Duration::from_secs(5);

/// How long what a client says may wait for a listening stream that it began to open before.
const OVERTAKEN: Duration = Duration::from_secs(1);

/// What a server said, before anybody may see it.
#[must_use]
pub(crate) struct Answer {
    pub(crate) arrival: Arrival,
    pub(crate) exchange: Box<Exchange>,
    _made: (),
}

/// What is left of a call once it was sent: what is needed to judge what comes back.
pub(crate) struct Exchange {
    pub(crate) caller: Caller,
    pub(crate) target: Target,
    pub(crate) call: Box<Call>,
    /// A session that this answer opens.
    pub(crate) opened: Option<Arc<Session>>,
    /// Room in limits and on the server, held until the answer is complete.
    pub(crate) _held: Admitted,
    /// The response has come.
    pub(crate) answered: bool,
    /// Where the request went, for whoever wants to cancel it.
    pub(crate) errand: Option<Errand>,
    /// A session is not idle while a call of it is under way.
    pub(crate) _in_use: Option<Streaming>,
    /// What a modern client that listens to one server might follow there when the server was asked.
    pub(crate) may_follow: Option<Arc<Open>>,
}

impl Noted for Answer {
    const STAGE: Stage = Stage::Forward;

    fn note(&self, facts: &mut Facts) {
        if let Some(opened) = &self.exchange.opened {
            facts.session = Some(opened.digest);
        }
    }
}

impl Line {
    /// Sends the call. What it takes proves that policy allowed it and that the log knows of it.
    pub(crate) async fn forward(&self, sealed: Sealed, intent: Intent) -> Result<Answer, Stop> {
        // The intent is used up: one word in the log, one call on the wire.
        drop(intent);
        let Sealed { decided, injected, .. } = sealed;
        let crate::pipeline::Decided { caller, target, call, slot: mut held, .. } = *decided;
        held.spend();
        let judged = target.one().filter(|one| is_judged_again(one, &call)).map(|one| Arc::new(Judged::of(one, &call)));
        let call = call.valid.call;
        let errand = target.one().and_then(|one| recall::errand(one, &call));
        if let Some(departure) = &call.batch {
            departure.begins();
        }
        let in_use = target.session().map(Session::streaming);
        let may_follow = target.one().and_then(|one| follow::asked(self, &caller, &call, &one.server));
        let mut exchange = Box::new(Exchange {
            caller,
            target,
            call,
            opened: None,
            _held: held,
            answered: false,
            errand,
            _in_use: in_use,
            may_follow,
        });
        let Exchange { caller, target, call, .. } = &*exchange;
        if let Some(question) = target.one().and_then(|one| one.answers.as_deref()) {
            question.answer(call.message());
        }
        for (server, injected) in target.servers().iter().zip(&injected) {
            self.fits_credential(server, injected.pool);
        }
        // Rare ways are boxed, here and elsewhere on the line: their state would be copied along with every call.
        let (arrival, opened) = match target {
            Target::Many(many) => Box::pin(aggregate::forward(self, caller, many, call, &injected)).await?,
            Target::One(one) => {
                let [injected] = injected.as_slice() else {
                    return Err(Stop::failed(
                        Stage::Forward,
                        "credential",
                        mcp::error::INTERNAL,
                        "no credential was prepared",
                    ));
                };
                let way = Passage { line: self, caller, one, call, injected, judged };
                let sent = way.send_until(exchange.errand.as_ref()).await;
                sent.map_err(|fault| fault.stop(&one.server.name))?
            }
        };
        if opened.is_some() && call.message().is_none() {
            return Err(Stop::failed(Stage::Forward, "session", mcp::error::INTERNAL, "a session without a message"));
        }
        exchange.opened = opened;
        Ok(Answer { arrival, exchange, _made: () })
    }
}

/// Whether more may come of a call than what is sent now.
fn is_judged_again(one: &One, call: &Screened) -> bool {
    let lasts = || call.valid.call.message().is_some_and(|message| message.method() == "resources/subscribe");
    one.crossing == Crossing::Upward || (one.session.is_some() && lasts())
}

/// One call on its way to one server.
pub(crate) struct Passage<'a> {
    pub(crate) line: &'a Line,
    pub(crate) caller: &'a Caller,
    pub(crate) one: &'a One,
    pub(crate) call: &'a Call,
    injected: &'a Injected,
    /// What was judged, where more than one request may come of it.
    pub(crate) judged: Option<Arc<Judged>>,
}

/// What policy was asked about a call: what is sent in a later round is judged by it again.
pub(crate) struct Judged {
    /// None for what needs no rule.
    pub(crate) action: Option<Action>,
    pub(crate) name: Arc<str>,
    pub(crate) arguments: Value,
    pub(crate) digest: Digest,
    pub(crate) findings: Vec<Finding>,
}

impl Judged {
    fn of(one: &One, call: &Screened) -> Self {
        Self {
            action: one.action,
            name: Arc::clone(&one.resource.id.name),
            arguments: call.valid.arguments.clone(),
            digest: call.valid.digest,
            findings: call.findings.clone(),
        }
    }
}

/// What came back, and the session that it opens.
pub(crate) type Sent = (Arrival, Option<Arc<Session>>);

impl Passage<'_> {
    async fn send(&self) -> Result<Sent, UpstreamFault> {
        if let (Some(place), Some(session)) = (self.one.resumes, &self.one.session) {
            let source = Source::Kept(session.resume(place));
            return Ok((Arrival::Stream { headers: Box::default(), source }, None));
        }
        if let Some(process) = self.asker()? {
            return Box::pin(self.back(&process)).await;
        }
        match (self.one.crossing, self.one.server.carriage()) {
            (Crossing::Upward, _) => Box::pin(bridge::upward::send(self)).await,
            (Crossing::Downward, _) => Box::pin(bridge::downward::send(self)).await,
            (Crossing::None, Carriage::Requests) => self.noted(self.over_http().await),
            (Crossing::None, Carriage::Pipe { shared }) => self.noted(Box::pin(self.over_pipe(shared)).await),
        }
    }

    fn noted(&self, sent: Result<Sent, UpstreamFault>) -> Result<Sent, UpstreamFault> {
        sent.inspect(|(arrival, _)| standing::note(self, arrival))
    }

    /// The server as this call reaches it.
    pub(crate) fn hop(&self) -> Hop<'_> {
        Hop {
            state: &self.line.state,
            server: &self.one.server,
            injected: self.injected,
            limits: self.line.snapshot.answer_limits(),
        }
    }

    /// The message as the server is to see it.
    fn body(&self) -> Bytes {
        match self.call.message() {
            None => Bytes::new(),
            // What the caller may not follow is not asked for.
            Some(message) if message.method() == "subscriptions/listen" => {
                aggregate::narrow::narrowed(self.line, self.caller, &self.one.server, message, &self.call.route)
            }
            Some(message) => {
                let mut edits = self.one.edits(message);
                if edits.is_empty() { message.bytes().clone() } else { mcp::splice(message.bytes(), &mut edits) }
            }
        }
    }

    /// The session's leg to this server. One that leads to yesterday's target, or to none yet, is opened anew.
    async fn leg(&self, session: &Arc<Session>) -> Result<Arc<Leg>, UpstreamFault> {
        let leg = self.hop().leg_of(session);
        if let Some(question) = &self.one.answers {
            return question.way_back(leg, self.call.message()).map_err(UpstreamFault::Stopped);
        }
        match leg {
            Some(leg) => Ok(leg),
            None => Box::pin(open_leg(&self.hop(), session)).await,
        }
    }

    /// The process that asked what this answers.
    fn asker(&self) -> Result<Option<Arc<Pipe>>, UpstreamFault> {
        let Some(question) = &self.one.answers else { return Ok(None) };
        question.asker(&self.one.server, self.call.message()).map_err(UpstreamFault::Stopped)
    }

    /// Tells it the answer.
    async fn back(&self, process: &Arc<Pipe>) -> Result<Sent, UpstreamFault> {
        let (Some(message), Some(session)) = (self.call.message(), &self.one.session) else { return Err(no_pipe()) };
        let told = process.tell(&self.edited(message)?, Asker::Session(session.digest)).await?;
        let arrival = match told {
            Taken::Yes(()) => Arrival::bare(StatusCode::ACCEPTED),
            Taken::No(refusal) if self.keeps_failures(session, &refusal) => {
                return Err(UpstreamFault::Status(refusal.status()));
            }
            Taken::No(refusal) => *refusal,
        };
        Ok((arrival, None))
    }

    async fn over_http(&self) -> Result<Sent, UpstreamFault> {
        let call = self.call;
        if let (Operation::Listen, Some(session)) = (&call.operation, &self.one.session)
            && !session.is_asked_of_its_server(call)
            && (session.is_heard() || session.is_followed(&self.one.server.name))
        {
            // It listened to a process, in whose place a reload put this server: the gateway is its stream's origin.
            let arrival = manner::listen(session, call);
            aggregate::listen::begin(&self.line.state, &self.one.server.name, session);
            return Ok((arrival, None));
        }
        if let (Operation::End, Some(session)) = (&call.operation, &self.one.session)
            && self.hop().leg_of(session).is_none()
        {
            // The server has nothing to end.
            self.line.state.sessions.close(session);
            return Ok((Arrival::bare(StatusCode::OK), None));
        }
        let introduction = call.message().filter(|message| call.era == Era::Legacy && message.method() == "initialize");
        let introduces = introduction.is_some();
        if let Some(message) = introduction {
            self.line.room_for_session(self.caller, message)?;
        }
        let leg = match &self.one.session {
            Some(session) => Some(self.leg(session).await?),
            None => None,
        };
        let (arrival, handle) = match (&call.operation, &self.one.session) {
            (Operation::Listen, Some(session)) => Box::pin(self.listen_over_http(session, leg.as_deref())).await?,
            (Operation::Message(_), Some(session)) if session.is_opening_stream() => {
                Box::pin(session.stream_opened()).await;
                self.dispatch(leg.as_deref()).await?
            }
            _ => self.dispatch(leg.as_deref()).await?,
        };
        if introduces && self.answers_as_before_streamable_http(&arrival).await {
            return Box::pin(self.over_pipe(false)).await;
        }
        let arrival = match &self.one.session {
            Some(session) if self.keeps_failures(session, &arrival) => {
                Box::pin(self.again(session, leg, arrival)).await?
            }
            _ => arrival,
        };
        self.after_http(&arrival);
        let opened = match (call.message(), &handle) {
            (Some(message), Some(handle)) if introduces && self.begins(&arrival) => {
                Some(self.open(message, Way::http(Some(handle)))?)
            }
            _ => None,
        };
        Ok((arrival, opened))
    }

    /// SPEC: whoever answers `initialize` so may speak the transport of 2024-11-05. A look finds out, once.
    async fn answers_as_before_streamable_http(&self, arrival: &Arrival) -> bool {
        let server = &self.one.server;
        let refused = matches!(
            arrival.status(),
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
        );
        if !refused || !server.may_last() {
            return false;
        }
        // The fault is kept with the server.
        let _ = Box::pin(self.line.catalog(server)).await;
        server.lasts()
    }

    /// Opens a listening stream. What the client says after it must not overtake it: a server may ask there, in the
    /// course of a call, and what it asks is lost where nobody listens yet. No message is held up for longer than
    /// [`OVERTAKEN`] by a server that leaves the stream open without a word.
    async fn listen_over_http(&self, session: &Arc<Session>, leg: Option<&Leg>) -> Result<Heading, UpstreamFault> {
        let opening = session.opening_stream();
        let mut dispatched = Box::pin(self.dispatch(leg));
        if let Ok(done) = tokio::time::timeout(OVERTAKEN, &mut dispatched).await {
            return done;
        }
        drop(opening);
        dispatched.await
    }

    /// Sends the call over a leg, or over none.
    async fn dispatch(&self, leg: Option<&Leg>) -> Result<Heading, UpstreamFault> {
        let call = self.call;
        let mut headers = wire::onward(call, &self.one.server.headers, self.line.snapshot.settings.traces);
        if let Some(leg) = leg {
            // SPEC: the version of this hop is what was agreed on it, whatever the client's hop speaks, and says.
            headers.remove(&header::VERSION);
            exchange::address(leg, &mut headers);
        }
        if let Some(name) = &self.one.name_header {
            headers.insert(header::NAME.clone(), name.clone());
        }
        if let Some(after) = &self.one.after {
            headers.insert(header::LAST_EVENT.clone(), after.clone());
        }
        let method = match &call.operation {
            Operation::Message(_) => Method::POST,
            Operation::Listen => Method::GET,
            Operation::End => Method::DELETE,
            Operation::Unread => return Err(UpstreamFault::Protocol("an unread request".to_owned())),
        };
        let outbound = Outbound::new(method, headers, self.body());
        let limit = self.line.snapshot.settings.bounds.answer;
        wire::send(&self.line.state, &self.one.server, self.injected, outbound, limit).await
    }

    /// Whether an arrival is a failure that must not reach the client as it is.
    fn keeps_failures(&self, session: &Session, arrival: &Arrival) -> bool {
        self.call.era == Era::Legacy && session.route == Route::All && !arrival.status().is_success()
    }

    /// What is made of a failure. In the aggregate a server's session is ours alone: the client never hears that it was
    /// lost. Statuses of that hop stay here too, for on the client's hop they would speak of the client's session.
    async fn again(
        &self,
        session: &Arc<Session>,
        leg: Option<Arc<Leg>>,
        arrival: Arrival,
    ) -> Result<Arrival, UpstreamFault> {
        let status = arrival.status();
        let arrival = if exchange::is_lost(leg.as_deref(), status) {
            self.let_go(session, leg.as_ref());
            // SPEC: the request was not taken. Whoever says so may err all the same, so what changes something is left to
            // the client to ask again.
            if self.one.changes_state() {
                return Err(UpstreamFault::Lost);
            }
            let leg = self.leg(session).await?;
            self.dispatch(Some(&leg)).await?.0
        } else {
            // Some servers answer unknown sessions with 400, naming no request; others what they could not read. The session
            // itself is asked: the next call finds one that goes on, or opens one.
            if status == StatusCode::BAD_REQUEST
                && !self.is_named(&arrival)
                && let Some(known) = &leg
                && matches!(aggregate::stream::is_known(&self.hop(), known).await, Err(UpstreamFault::Lost))
            {
                self.let_go(session, leg.as_ref());
            }
            arrival
        };
        match arrival {
            arrival if arrival.status().is_success() => Ok(arrival),
            Arrival::Whole { ref headers, ref body, .. } if self.is_named(&arrival) => {
                Ok(Arrival::Whole { status: StatusCode::OK, headers: headers.clone(), body: body.clone() })
            }
            // The server does not know the event any more, or gives no stream again.
            ref refusal if self.one.after.is_some() && refusal.status().is_client_error() => {
                Err(UpstreamFault::Stopped(resolve::no_such_event()))
            }
            arrival => Err(UpstreamFault::Status(arrival.status())),
        }
    }

    /// Whether it is an error that names the request: the server has read it.
    fn is_named(&self, arrival: &Arrival) -> bool {
        let Arrival::Whole { body, .. } = arrival else { return false };
        let asked = self.call.message().and_then(Message::id).map(mcp::id_key);
        exchange::one(body.clone(), &self.hop().limits)
            .is_ok_and(|message| message.error().is_some() && asked.is_some() && message.id().map(mcp::id_key) == asked)
    }

    fn let_go(&self, session: &Session, leg: Option<&Arc<Leg>>) {
        if let Some(leg) = leg {
            session.lose_leg(&self.one.server.name, leg);
            // One that was started anew may offer something else, and say nothing of it.
            self.line.look_for_missed(&self.one.server, self.line.state.clock.ticks());
        }
    }

    /// A session that is gone upstream is gone here; one that the client ended is ended here.
    fn after_http(&self, arrival: &Arrival) {
        let status = arrival.status();
        let Some(session) = &self.one.session else { return };
        let over = match self.call.operation {
            Operation::End => status.is_success() || status == StatusCode::NOT_FOUND,
            Operation::Message(_) => status == StatusCode::NOT_FOUND,
            // A server without this stream may say so with 404, too: the next message tells.
            Operation::Listen | Operation::Unread => false,
        };
        if over && matches!(session.route, Route::One(_)) {
            self.line.state.sessions.close(session);
        }
    }

    async fn over_pipe(&self, shared: bool) -> Result<Sent, UpstreamFault> {
        let state = &self.line.state;
        match (&self.call.operation, &self.one.session, self.call.era) {
            (Operation::Message(message), None, Era::Legacy) => {
                // Only `initialize` comes without a session.
                self.line.room_for_session(self.caller, message)?;
                let holder = self.caller.principal.id();
                let pipe =
                    if shared { state.shared_pipe(&self.hop()).await? } else { self.hop().start(Some(holder)).await? };
                let wait = Wait::Fail(self.one.server.deadline);
                let arrival = exchange::over_pipe(&pipe, message, Asker::Gateway, wait).await?;
                if !self.begins(&arrival) {
                    state.look_at_misfit(&self.one.server, Era::Legacy);
                    return Ok((arrival, None));
                }
                let session = self.open(message, Way::Pipe(Arc::clone(&pipe)))?;
                revive::hear(state, &pipe, &session);
                Ok((arrival, Some(session)))
            }
            (Operation::Message(message), None, Era::Modern) => {
                let principal = self.caller.principal.id();
                let pipe = state.modern_pipe(&self.hop(), principal, shared).await?;
                let asker = Asker::Principal(principal.clone());
                let arrival = exchange::over_pipe(&pipe, &self.edited(message)?, asker, self.wait()).await;
                state.doubt_process(&self.one.server, &arrival);
                Ok((arrival?, None))
            }
            (Operation::Message(message), Some(session), _) => {
                let leg = self.leg(session).await?;
                let Way::Pipe(pipe) = &leg.way else { return Err(no_pipe()) };
                let message = self.edited(message)?;
                let arrival = exchange::over_pipe(pipe, &message, Asker::Session(session.digest), self.wait()).await?;
                let arrival = if self.keeps_failures(session, &arrival) {
                    Box::pin(self.again(session, Some(leg), arrival)).await?
                } else {
                    arrival
                };
                Ok((arrival, None))
            }
            (Operation::Listen, Some(session), _) => {
                let arrival = manner::listen(session, self.call);
                let server = &self.one.server;
                // This server the session has had from its beginning: if not as it is now, a reload put it in place.
                if session.leg(server).is_none() {
                    revive::replace(state, &server.name, session);
                }
                Ok((arrival, None))
            }
            (Operation::End, Some(session), _) => {
                state.sessions.close(session);
                Ok((Arrival::bare(StatusCode::OK), None))
            }
            (Operation::Listen | Operation::End | Operation::Unread, _, _) => Err(no_pipe()),
        }
    }

    /// A process says nothing until it answers. Where that takes long and the client reads streams, it gets one.
    pub(crate) fn wait(&self) -> Wait {
        let deadline = self.one.server.deadline;
        if deadline <= SILENCE || !self.call.reads_streams() {
            return Wait::Fail(deadline);
        }
        let listens = self.call.message().is_some_and(|message| message.method() == "subscriptions/listen");
        Wait::Stream { patience: SILENCE, deadline: (!listens).then_some(deadline) }
    }

    /// The message as the server is to see it, read.
    pub(crate) fn edited(&self, message: &Message) -> Result<Message, UpstreamFault> {
        let same = self.one.edits(message).is_empty() && message.method() != "subscriptions/listen";
        if same { Ok(message.clone()) } else { exchange::one(self.body(), &self.hop().limits) }
    }
}

fn no_pipe() -> UpstreamFault {
    UpstreamFault::Protocol("the session has no process".to_owned())
}
