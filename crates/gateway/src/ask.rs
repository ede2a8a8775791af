//! A request that a server sends back: a call of its own, asked by the server and answered by the client.
//!
//! Its principal is the owner of the session, its parent the call in whose course it came. A question that is refused
//! is answered to the server; the client never hears of it.

use crate::{
    authenticate::Caller,
    bridge::Crossing,
    call::{Call, Operation, Route},
    forward::Exchange,
    intend::unavailable,
    label::Label,
    origin::Origin,
    pipeline::Line,
    question,
    server::Server,
    session::{Asked, Session},
    stop::{Stage, Stop},
    text::Cleared,
    trace::Parent,
    trail::{Facts, Trail},
    upstream::{UpstreamFault, exchange},
};
use bytes::Bytes;
use http::HeaderMap;
use mcp::{Era, Kind, Message, bridge::upward::InputRequest, error};
use policy::{Permit, Question};
use serde_json::Value;
use std::sync::Arc;
use vocab::{Action, CallId, Digest, Finding};

/// One question.
pub(crate) struct Ask<'a> {
    pub(crate) exchange: &'a Exchange,
    pub(crate) server: &'a Arc<Server>,
    /// Which of its processes or sessions asks.
    pub(crate) origin: Option<Origin>,
    pub(crate) parent: CallId,
    pub(crate) message: &'a Message,
}

/// What becomes of it.
pub(crate) enum Verdict {
    /// The client is asked this.
    Passed(Bytes),
    /// The server was told no.
    Declined,
}

impl Line {
    /// Judges a question of a server.
    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Verdict {
        let Exchange { caller, call, .. } = ask.exchange;
        let call = Inquiry { caller, call, server: ask.server, parent: ask.parent, message: ask.message }.as_call();
        let mut trail = Trail::open(&call, &self.state);
        match self.judge(&ask, &mut trail) {
            Ok((text, forgotten)) => {
                trail.close_answered(http::StatusCode::OK);
                if let (Some(forgotten), Ok(session)) = (forgotten, session(ask.exchange)) {
                    let is_own = forgotten.server == ask.server.name;
                    let (line, session) = (self.clone(), Arc::clone(session));
                    let telling = tokio::spawn(async move { question::forget(&line, &session, &forgotten).await });
                    // Who asks without end is answered no faster than it listens. Others do not wait for it.
                    if is_own {
                        let _ = telling.await;
                    }
                }
                Verdict::Passed(text)
            }
            Err(stop) => {
                self.decline(&ask, &stop).await;
                trail.close_stopped(&stop);
                Verdict::Declined
            }
        }
    }

    /// What the client is asked, and the question that is forgotten for it.
    fn judge(&self, ask: &Ask<'_>, trail: &mut Trail) -> Result<(Bytes, Option<Asked>), Stop> {
        let Exchange { caller, call, .. } = ask.exchange;
        let inquiry = Inquiry { caller, call, server: ask.server, parent: ask.parent, message: ask.message };
        inquiry.note(trail.facts_mut());
        let session = session(ask.exchange)?;
        trail.facts_mut().session = Some(session.digest);
        // Its answer would go nowhere.
        if ask.origin.and_then(|origin| session.living(origin)).is_some_and(|(_, of)| of != ask.server.fingerprint) {
            return Err(cannot_ask("the server was configured anew in the course of the call".to_owned()));
        }
        self.judge_promise(caller, (ask.server, ask.origin), session, ask.message)?;
        // Of a task whose id is too long to be sealed its client knows nothing.
        if call.route == Route::All {
            self.shown_tasks(ask.message, ask.exchange, ask.server)?;
        }
        let Judged { text, permit, digest } = self.judge_inquiry(&inquiry, trail)?;
        let method = ask.message.method();
        let id = ask.message.id_member().ok_or_else(|| {
            Stop::refused(Stage::Resolve, "no-id", error::INVALID_REQUEST, "a question without an id")
        })?;
        let asked_id: Box<str> = Box::from(String::from_utf8_lossy(id.raw));
        // Two servers may choose the same id, and the same progress token; on the aggregate the client sees one of ours. So it
        // does where one server asks anew under the id of a question that was asked before it was started again.
        let (shown, text) = match session.route {
            Route::One(_) if !session.is_taken(&asked_id, ask.origin) => (asked_id.clone(), text),
            Route::One(_) | Route::All => {
                let shown = format!("\"durward-{}\"", session.question_id());
                let again = exchange::one(text, &self.snapshot.answer_limits())
                    .map_err(|fault| Stop::refused(Stage::Release, "mask", error::INTERNAL, fault.to_string()))?;
                (shown.as_str().into(), shown_as(&again, &shown, &session.route))
            }
        };
        let server = ask.server.name.clone();
        let token = ask.message.progress_token().map(Box::from);
        let shown_id = shown.clone();
        let (origin, method) = (ask.origin, Box::from(method));
        let is_withdrawn = false;
        let asked = Asked { server, origin, is_withdrawn, shown, id: asked_id, token, method, permit, digest };
        Ok((text, session.ask(&shown_id, asked)))
    }

    /// Tells the server no.
    async fn decline(&self, ask: &Ask<'_>, stop: &Stop) {
        let text = mcp::error_text(ask.message.id(), stop.code, &stop.message, None);
        let fault = UpstreamFault::Stopped(withheld(ask.message.method(), stop));
        question::decline(self, (ask.server, ask.origin), session(ask.exchange).ok(), text, fault).await;
    }
}

impl Line {
    /// Judges what a server asks its client in an answer, or in what it says of a task: in the modern era in a result, and in
    /// either in an error that wants pages visited first.
    pub(crate) fn judge_asked(&self, server: &Arc<Server>, exchange: &Exchange, message: &Message) -> Result<(), Stop> {
        let Exchange { caller, call, .. } = exchange;
        // On a bridge the gateway puts the question itself, and judges it there: all but such pages before a legacy client,
        // to whom they pass as they came. SECURITY: what counts is the way that the call went. What the server is taken for
        // by now, it may have changed to be asked less.
        if is_judged_there(exchange) {
            return Ok(());
        }
        let asked = InputRequest::of_message(message, call.era, is_of_task(exchange, message));
        self.judge_all(&asked.map_err(|fault| not_asked(fault.to_string()))?, caller, call, server, |_| None)
    }

    /// The same, in a body that comes with an HTTP error. SECURITY: whether it is a message, several or none does not matter:
    /// a client may read it as one. It was scanned.
    pub(crate) fn judge_body(&self, server: &Arc<Server>, exchange: &Exchange, body: &[u8]) -> Result<(), Stop> {
        let Exchange { caller, call, .. } = exchange;
        if is_judged_there(exchange) {
            return Ok(());
        }
        let asked = InputRequest::of_text(body, call.era).map_err(|fault| not_asked(fault.to_string()))?;
        self.judge_all(&asked, caller, call, server, |_| None)
    }

    /// Judges everything that is asked in one message: each question is a call of its own, as it would be on a stream.
    /// `barred` says what keeps one from being asked at all. SECURITY: what one of them must not ask, none of them does,
    /// for the client answers all or nothing, and the server knows nothing of a no.
    pub(crate) fn judge_all(
        &self,
        asked: &[InputRequest<'_>],
        caller: &Caller,
        call: &Call,
        server: &Arc<Server>,
        barred: impl Fn(&InputRequest<'_>) -> Option<Stop>,
    ) -> Result<(), Stop> {
        // Whether any is put to the client is known when the last one is judged.
        let mut open = Vec::with_capacity(asked.len());
        let mut judged = Ok(());
        for asked in asked {
            let question = match exchange::one(asked.as_request(), &self.snapshot.answer_limits()) {
                Ok(question) => question,
                Err(fault) => {
                    judged = judged.and_then(|()| Err(not_asked(fault.to_string())));
                    continue;
                }
            };
            let inquiry = Inquiry { caller, call, server, parent: call.id, message: &question };
            let mut trail = Trail::open(&inquiry.as_call(), &self.state);
            inquiry.note(trail.facts_mut());
            // What comes after a no is asked no more than what came before it.
            if judged.is_err() {
                open.push(trail);
                continue;
            }
            match barred(asked).map_or_else(|| self.judge_inquiry(&inquiry, &mut trail).map(drop), Err) {
                Ok(()) => open.push(trail),
                Err(stop) => {
                    trail.close_stopped(&stop);
                    judged = Err(withheld(question.method(), &stop));
                }
            }
        }
        for trail in open {
            match &judged {
                Ok(()) => trail.close_answered(http::StatusCode::OK),
                Err(stop) => trail.close_stopped(stop),
            }
        }
        judged
    }
}

/// A question under the id by which its client knows it. On the aggregate that is its progress token, too.
pub(crate) fn shown_as(question: &Message, shown: &str, route: &Route) -> Bytes {
    let token = question.progress_token_member().filter(|_| *route == Route::All);
    let members = [question.id_member(), token];
    let mut edits: Vec<_> =
        members.into_iter().flatten().map(|member| (member.span, shown.as_bytes().to_vec())).collect();
    mcp::splice(question.bytes(), &mut edits)
}

/// A question to somebody who lost the right to the server.
pub(crate) fn no_right() -> Stop {
    let why = "whoever would be asked has no right to the server any more";
    Stop::refused(Stage::Authorize, "denied", error::REFUSED_POLICY, why)
}

/// A question that the client cannot be asked.
pub(crate) fn cannot_ask(why: String) -> Stop {
    Stop::refused(Stage::Resolve, "cannot-ask", error::METHOD_NOT_FOUND, why)
}

/// The stop of a call in the course of which its client would be asked what it must not be asked.
pub(crate) fn withheld(method: &str, refused: &Stop) -> Stop {
    let why = format!("the server asks the client for `{method}`, which must not pass");
    Stop::withheld("question", error::WITHHELD, why).decided_as(refused)
}

/// Whether the bridge judges what is asked.
fn is_judged_there(exchange: &Exchange) -> bool {
    exchange.target.one().is_some_and(|one| one.crossing == Crossing::Downward)
}

/// Whether a message may say how a task ended. Of what a resumed stream gives again nobody knows what it answers.
fn is_of_task(exchange: &Exchange, message: &Message) -> bool {
    match message.kind() {
        Kind::Request => false,
        Kind::Notification => matches!(message.method(), "notifications/tasks" | "notifications/tasks/status"),
        Kind::Response => {
            let asked = exchange.call.message();
            asked.is_none_or(|asked| asked.method().starts_with("tasks/"))
                || (exchange.call.era == Era::Modern && message.is_task())
        }
    }
}

/// An answer that asks in a way that nobody can read.
pub(crate) fn not_asked(why: String) -> Stop {
    Stop::withheld("upstream-protocol", error::UPSTREAM_DOWN, "the server's answer is not MCP").detail(why)
}

/// A question, and in whose course it came.
pub(crate) struct Inquiry<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) call: &'a Call,
    pub(crate) server: &'a Arc<Server>,
    pub(crate) parent: CallId,
    pub(crate) message: &'a Message,
}

/// A question that may be asked.
pub(crate) struct Judged {
    /// As the client may read it.
    pub(crate) text: Bytes,
    pub(crate) permit: Permit,
    /// Of what was asked.
    pub(crate) digest: Digest,
}

impl Inquiry<'_> {
    /// The call that the question is.
    pub(crate) fn as_call(&self) -> Call {
        Call {
            id: crate::call::new_id(),
            parent: Some(self.parent),
            batch: None,
            presence: None,
            route: self.call.route.clone(),
            operation: Operation::Message(self.message.clone()),
            era: self.call.era,
            headers: HeaderMap::new(),
            peer: self.call.peer,
        }
    }

    /// Writes down who asks whom.
    pub(crate) fn note(&self, facts: &mut Facts) {
        let method = self.message.method();
        facts.principal = Some(self.caller.principal.id().clone());
        facts.identity = Some(self.caller.principal.credential_id().clone());
        facts.server = Some(self.server.name.clone());
        facts.target = Some(Label::of(&self.server.resource(method).id.name, None));
        facts.action = Some(mcp::method::action(method).unwrap_or(Action::MethodCall));
        facts.trace.get_or_insert_with(|| Parent::caused(self.parent, self.call));
    }
}

impl Line {
    /// What detectors and policy say to a question.
    pub(crate) fn judge_inquiry(&self, inquiry: &Inquiry<'_>, trail: &mut Trail) -> Result<Judged, Stop> {
        let Inquiry { caller, message, .. } = inquiry;
        // It is a call of its own, maybe of a later day: its record commits to it, or it is not asked.
        trail.salt().map_err(|fault| unavailable(&fault))?;
        let digest = crate::resolve::digest_of(Some(message));
        let (text, said) = self.release_question(message)?;
        let findings = said.findings.clone();
        if !said.text.is_empty() {
            let facts = trail.facts_mut();
            facts.judged = Some(said.fingerprint());
            facts.cleared = Cleared::of(said.text.clone(), said.clear);
        }
        said.note(trail.facts_mut());
        let permit = self.authorize_inquiry(caller, inquiry.server, message, &findings)?;
        let permit = trail.note(permit.map_err(|refusal| {
            Stop::refused(Stage::Authorize, "denied", error::REFUSED_POLICY, format!("policy: {refusal}"))
                .decided(&self.snapshot.policies, refusal.rules)
        }))?;
        Ok(Judged { text, permit, digest })
    }

    /// What policy says to a question now.
    fn authorize_inquiry(
        &self,
        caller: &Caller,
        server: &Server,
        message: &Message,
        findings: &[Finding],
    ) -> Result<Result<Permit, policy::Refusal>, Stop> {
        let method = message.method();
        let resource = server.resource(method);
        if mcp::method::is_open(method) {
            let resources = std::slice::from_ref(&resource);
            return Ok(self.snapshot.policies.authorize_open(&caller.subject, method, resources));
        }
        // What cannot be read is not judged as if it were nothing.
        let arguments =
            message.params_member().map(|params| params.value()).transpose().map_err(|fault| {
                Stop::refused(Stage::Validate, "arguments", error::INVALID_PARAMS, fault.to_string())
            })?;
        Ok(self.snapshot.policies.authorize(&Question {
            subject: &caller.subject,
            action: mcp::method::action(method).unwrap_or(Action::MethodCall),
            resource: &resource,
            arguments: &arguments.unwrap_or(Value::Null),
            digest: crate::resolve::digest_of(Some(message)),
            findings,
            now: self.state.clock.now(),
        }))
    }

    /// Whether a question that was judged before may still be put to the client.
    pub(crate) fn may_ask(
        &self,
        caller: &Caller,
        server: &Server,
        message: &Message,
        findings: &[Finding],
    ) -> Result<bool, Stop> {
        Ok(self.authorize_inquiry(caller, server, message, findings)?.is_ok())
    }
}

/// The session in which the client could answer.
fn session(exchange: &Exchange) -> Result<&Arc<Session>, Stop> {
    exchange.target.session().or(exchange.opened.as_ref()).ok_or_else(|| {
        Stop::refused(
            Stage::Resolve,
            "no-session",
            error::INVALID_REQUEST,
            "there is no session in which the client could answer",
        )
    })
}
