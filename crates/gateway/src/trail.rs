//! What is learned of a call on its way: the one source of its record, metrics, spans and log line.
//!
//! INVARIANT: a trail ends in exactly one closed record. One that is dropped unclosed, by panic or cancellation,
//! records itself abandoned without waiting.

use crate::{
    call::Call,
    clock::Moment,
    journal::{Closed, Journal},
    label::{self, Label},
    release::Said,
    state::State,
    stop::{Cause, Stage, Stop},
    text::Cleared,
};
use audit::{CallRecord, Commitment, Fingerprint, LogFault, Outcome, Salt};
use bytes::Bytes;
use identity::CredentialId;
use mcp::{Era, Message};
use std::{borrow::Cow, net::IpAddr, sync::Arc, time::Duration};
use vocab::{
    Action, CallId, Class, Digest, Finding, PrincipalId, RuleId, SecretName, ServerName, Side, TenantId, Timestamp,
};

/// What a stage leaves behind for the record.
pub trait Noted {
    /// The stage.
    const STAGE: Stage;
    /// Writes down what it proved.
    fn note(&self, facts: &mut Facts);
}

/// The facts of one call.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The call.
    pub call: CallId,
    /// The call that caused it.
    pub parent: Option<CallId>,
    /// When it arrived.
    pub at: Timestamp,
    /// Its tenant.
    pub tenant: TenantId,
    /// Where it came from.
    pub peer: IpAddr,
    /// Its era.
    pub era: Era,
    /// The era that its server was spoken to in, where that is another.
    pub bridged: Option<Era>,
    /// Its method, as it may be shown.
    pub method: Cow<'static, str>,
    /// Who called.
    pub principal: Option<PrincipalId>,
    /// With which credential: an id, never the credential.
    pub identity: Option<CredentialId>,
    /// What was called.
    pub server: Option<ServerName>,
    /// Its name there, as it may be shown.
    pub target: Option<Label>,
    /// What was asked for.
    pub action: Option<Action>,
    /// How dangerous it is.
    pub class: Option<Class>,
    /// Digest of the session handle.
    pub session: Option<Digest>,
    /// The rules that decided.
    pub rules: Arc<[RuleId]>,
    /// The policy version.
    pub policy: Option<Digest>,
    /// What was judged, and is sent if nothing forbids it.
    pub judged: Option<Fingerprint>,
    /// Its text, until the record commits to it.
    pub cleared: Cleared,
    /// The commitment to it.
    pub arguments: Option<Commitment>,
    /// What came back.
    pub result: Option<Commitment>,
    /// What detectors found.
    pub findings: Vec<Finding>,
    /// The secret that was injected, by name.
    pub credential: Option<SecretName>,
    /// The span of the caller in which it was made.
    pub trace: Option<crate::trace::Parent>,
    /// The protocol revision it names.
    pub revision: Option<mcp::Revision>,
    /// Stages passed, with their share of the time in microseconds.
    pub stages: Vec<Mark>,
    /// Whether the upstream said that the call failed (`isError`, or an error answer).
    pub failed: bool,
    /// JSON-RPC error code of the answer.
    pub code: Option<i64>,
    /// The answer is a stream.
    pub streamed: bool,
    /// HTTP status of the answer.
    pub status: u16,
    /// All of the time, in microseconds.
    pub duration_us: u64,
}

impl Facts {
    /// Nothing is known but which call it is.
    pub(crate) fn new(call: CallId, tenant: TenantId, peer: IpAddr) -> Self {
        Self {
            call,
            parent: None,
            at: Timestamp::from_micros(0),
            tenant,
            peer,
            era: Era::Legacy,
            bridged: None,
            method: Cow::Borrowed(""),
            principal: None,
            identity: None,
            server: None,
            target: None,
            action: None,
            class: None,
            session: None,
            rules: Arc::default(),
            policy: None,
            judged: None,
            cleared: Cleared::default(),
            arguments: None,
            result: None,
            findings: Vec::new(),
            credential: None,
            trace: None,
            revision: None,
            stages: Vec::new(),
            failed: false,
            code: None,
            streamed: false,
            status: 0,
            duration_us: 0,
        }
    }

    /// Writes down rules that decided. The first ones are shared with the permit, and so with the records.
    pub(crate) fn decided_by(&mut self, rules: &Arc<[RuleId]>) {
        if self.rules.is_empty() {
            self.rules = Arc::clone(rules);
        } else {
            self.add_rules(rules);
        }
    }

    fn add_rules(&mut self, rules: &[RuleId]) {
        if !rules.is_empty() {
            self.rules = self.rules.iter().chain(rules).cloned().collect();
        }
    }
}

/// One stage passed.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// Which.
    pub stage: Stage,
    /// How it went.
    pub verdict: &'static str,
    /// How long it took.
    pub us: u32,
}

/// The way of one call so far.
pub struct Trail {
    /// Boxed: a trail is handed on from step to step, and each would keep a copy of its own.
    facts: Box<Facts>,
    started: u64,
    marked: u64,
    intent: Option<u64>,
    /// What was asked, as received: parameters, or what a client answers.
    asked: Bytes,
    salt: Option<Salt>,
    journal: Arc<Journal>,
    closed: bool,
}

impl Trail {
    /// Opens the trail of a call.
    pub fn open(call: &Call, state: &State) -> Self {
        let arrived = Moment::now(&*state.clock);
        Self {
            facts: Box::new(Facts {
                parent: call.parent,
                at: arrived.at,
                era: call.era,
                method: shown_method(call),
                trace: crate::trace::Parent::of(&call.headers, call.message()),
                revision: call.revision(),
                stages: Vec::with_capacity(12),
                ..Facts::new(call.id, state.tenant.clone(), call.peer)
            }),
            started: arrived.ticks,
            marked: arrived.ticks,
            intent: None,
            asked: call.message().map(Message::said).unwrap_or_default(),
            salt: None,
            journal: Arc::clone(&state.journal),
            closed: false,
        }
    }

    /// Writes down what a stage said, and hands it on. All the observability inside the line.
    pub fn note<T: Noted>(&mut self, result: Result<T, Stop>) -> Result<T, Stop> {
        match &result {
            Ok(evidence) => {
                self.mark(T::STAGE, "ok");
                evidence.note(&mut self.facts);
            }
            Err(stop) => {
                self.mark(stop.stage, stop.reason);
                self.facts.add_rules(&stop.rules);
                self.facts.policy = stop.policy.or(self.facts.policy);
                if let Some(about) = &stop.about {
                    self.facts.server = Some(about.server.clone());
                    self.facts.target = Some(Label::of(&about.name, about.action));
                    self.facts.action = about.action;
                }
            }
        }
        result
    }

    /// Not inlined: each stage marks, and every call pays for each line of code that it touches.
    #[inline(never)]
    fn mark(&mut self, stage: Stage, verdict: &'static str) {
        let now = self.journal.clock().ticks();
        let us = u32::try_from(now.saturating_sub(self.marked)).unwrap_or(u32::MAX);
        self.marked = now;
        self.facts.stages.push(Mark { stage, verdict, us });
    }

    /// When the call arrived.
    pub(crate) const fn arrived(&self) -> Moment {
        Moment { at: self.facts.at, ticks: self.started }
    }

    /// When the last stage was passed: the next one need not read a clock.
    pub(crate) fn passed_at(&self) -> Moment {
        let since = Duration::from_micros(self.marked.saturating_sub(self.started));
        Moment { at: self.facts.at.plus(since), ticks: self.marked }
    }

    /// The facts so far.
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The stop of a call that a panic ended: at the stage after the last one that spoke.
    pub(crate) fn panicked(&self) -> Stop {
        Stop::panicked(self.facts.stages.last().map_or(Stage::Authenticate, |mark| mark.stage.next()))
    }

    /// Commits to what was asked, once.
    pub(crate) fn commit_arguments(&mut self) {
        if self.facts.arguments.is_some() {
            return;
        }
        let judged = self.facts.judged.or_else(|| (!self.asked.is_empty()).then(|| Fingerprint::of(&self.asked)));
        if let Some(judged) = judged {
            let text = self.facts.cleared.take();
            self.journal.keep(&self.facts, Side::Arguments, text);
            self.facts.arguments = self.salt().ok().map(|salt| salt.commit(Side::Arguments, &judged));
        }
    }

    /// Commits to what came back.
    pub(crate) fn committed(&mut self, said: &Said) {
        let print = said.fingerprint();
        if print.bytes > 0 {
            if said.clear {
                self.journal.keep(&self.facts, Side::Result, said.text.clone());
            }
            self.facts.result = self.salt().ok().map(|salt| salt.commit(Side::Result, &print));
        }
    }

    /// What its commitments are salted with, had once: what was asked and what comes back are salted alike, though the day
    /// ends between them. INVARIANT: `intend` lets no call go on without it, so only what was stopped before lacks digests.
    pub(crate) fn salt(&mut self) -> Result<Salt, LogFault> {
        if let Some(salt) = self.salt {
            return Ok(salt);
        }
        let salt = self.journal.salt(&self.facts)?;
        self.salt = Some(salt);
        Ok(salt)
    }

    /// The facts so far, to add to.
    pub const fn facts_mut(&mut self) -> &mut Facts {
        &mut self.facts
    }

    /// The intent is on disk, as this leaf.
    pub(crate) const fn intended(&mut self, leaf: u64) {
        self.intent = Some(leaf);
    }

    /// Closes the trail with an answer that went out.
    pub fn close_answered(self, status: http::StatusCode) {
        let outcome = if self.facts.failed { Outcome::Failed } else { Outcome::Answered };
        self.close(outcome, None, status);
    }

    /// Closes the trail with the stop that ended the call.
    pub fn close_stopped(self, stop: &Stop) {
        self.close_refused(stop, stop.status);
    }

    /// The same, where the client read another status than its own: see `respond::refusal`.
    pub(crate) fn close_refused(mut self, stop: &Stop, status: http::StatusCode) {
        self.facts.code = Some(stop.code);
        // What stopped on its way was noted with them; what stopped a stream was not.
        let unheard: Vec<RuleId> = stop.rules.iter().filter(|rule| !self.facts.rules.contains(rule)).cloned().collect();
        self.facts.add_rules(&unheard);
        self.facts.policy = stop.policy.or(self.facts.policy);
        if let Some(proven) = &stop.proven {
            self.facts.principal = Some(proven.id.clone());
            self.facts.identity = Some(proven.credential.clone());
        }
        let reason = Cow::Borrowed(stop.reason);
        let stage = Cow::Borrowed(stop.stage.as_str());
        // INVARIANT: of what was forwarded no record says that it was refused: a right may end while the server is at it.
        let was_forwarded =
            stop.stage != Stage::Forward && self.facts.stages.iter().any(|mark| mark.stage == Stage::Forward);
        let outcome = match stop.cause {
            Cause::Refused if !was_forwarded => Outcome::Refused { reason, stage },
            Cause::Refused | Cause::Withheld => Outcome::Withheld { reason, stage },
            Cause::Failed => Outcome::Faulted { reason, stage },
            Cause::TakenBack => Outcome::Abandoned,
        };
        let error = match &stop.detail {
            Some(detail) => format!("{}: {detail}", stop.message),
            None => stop.message.clone(),
        };
        self.close(outcome, Some(label::shown(&error).into_owned()), status);
    }

    fn close(mut self, outcome: Outcome, error: Option<String>, status: http::StatusCode) {
        self.facts.status = status.as_u16();
        let ended = self.journal.clock().ticks();
        self.record(outcome, error, ended);
    }

    fn record(&mut self, outcome: Outcome, error: Option<String>, ended: u64) {
        self.closed = true;
        if self.facts.principal.is_some() {
            self.commit_arguments();
        }
        self.facts.duration_us = ended.saturating_sub(self.started);
        let facts = &self.facts;
        let record = CallRecord {
            action: facts.action,
            agent: facts.principal.as_ref().map(|principal| principal.agent.clone()),
            arguments: facts.arguments,
            bridge: facts.bridged.map(|era| Cow::Borrowed(era.as_str())),
            class: facts.class,
            credential: facts.credential.clone(),
            duration_us: facts.duration_us,
            era: Some(Cow::Borrowed(facts.era.as_str())),
            error,
            findings: facts.findings.clone(),
            http_status: (facts.status != 0).then_some(facts.status),
            identity: facts.identity.as_ref().map(CredentialId::text),
            intent: self.intent,
            issuer: facts.principal.as_ref().and_then(|principal| principal.issuer.clone()),
            method: Some(facts.method.clone()),
            parent: facts.parent,
            peer: Some(facts.peer),
            policy: facts.policy,
            result: facts.result,
            rules: facts.rules.clone(),
            server: facts.server.clone(),
            session: facts.session,
            stages: by_name(&facts.stages),
            target: facts.target.as_deref().map(str::to_owned),
            trace: facts.trace.as_ref().map(ToString::to_string),
            user: facts.principal.as_ref().and_then(|principal| principal.user.clone()),
            ..CallRecord::new(facts.call, facts.tenant.clone(), facts.at, outcome.clone())
        };
        // The observers get what is left of the trail itself: nothing is copied for them.
        let spent = Box::new(Facts::new(facts.call, facts.tenant.clone(), facts.peer));
        let facts = std::mem::replace(&mut self.facts, spent);
        self.journal.close(record, Closed { facts, outcome });
    }
}

/// A method of the protocol, or what a client wrote in its place.
fn shown_method(call: &Call) -> Cow<'static, str> {
    match call.known_method() {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Owned(label::method(call.method()).into_owned()),
    }
}

/// The stages passed, in the order of their names, as a record writes them. Of one that spoke twice, what it said first.
fn by_name(marks: &[Mark]) -> Vec<audit::Stage> {
    let mut stages = Vec::with_capacity(marks.len());
    for stage in Stage::BY_NAME {
        if let Some(mark) = marks.iter().find(|mark| mark.stage == stage) {
            stages.push(audit::Stage { name: stage.as_str(), us: mark.us });
        }
    }
    stages
}

impl Drop for Trail {
    fn drop(&mut self) {
        if !self.closed {
            // Whatever panics may be the clock: a second panic in here would end the process.
            let panicking = std::thread::panicking();
            let ended = if panicking { self.marked } else { self.journal.clock().ticks() };
            let error = panicking.then(|| "a panic ended the call".to_owned());
            self.record(Outcome::Abandoned, error, ended);
        }
    }
}
