//! A later round of a call is a call of its own: it is judged and counted, the log knows of it before it leaves, and its
//! record names the call in the course of which it was made.

use crate::{
    admit,
    ask::{cannot_ask, no_right},
    authenticate::Caller,
    bridge::Crossing,
    call::{Call, Operation, new_id},
    forward::{Judged, Passage},
    intend::Intent,
    label::Label,
    limit::Slot,
    pipeline::Line,
    release::Said,
    server::Server,
    session::Session,
    state::State,
    stop::{Stage, Stop},
    trace::{self, Parent},
    trail::{Facts, Noted, Trail},
    upstream::{Arrival, UpstreamFault},
};
use http::{HeaderMap, StatusCode};
use mcp::{
    Era, Message,
    bridge::{BridgeFault, upward::InputRequest},
};
use std::sync::Arc;

/// Whose rounds they are.
pub(super) struct Cause {
    call: Call,
    judged: Arc<Judged>,
    changes_state: bool,
    /// The span under which its server was called, in whose course rounds are made.
    trace: Parent,
}

/// A round that may leave, once the log knows of it.
pub(super) struct Round {
    line: Line,
    changes_state: bool,
    trail: Trail,
    slot: Slot,
}

/// A round that leaves.
pub(super) struct Leaving {
    pub(super) trail: Trail,
    /// What it took from the limits: given back where it does not leave.
    pub(super) slot: Slot,
    intent: Intent,
}

impl Leaving {
    /// What it is known by, and what it took.
    pub(super) fn leave(self) -> (Trail, Slot) {
        // One word in the log, one request on the wire.
        drop(self.intent);
        (self.trail, self.slot)
    }
}

/// The server has begun to answer.
struct Arrived {
    streamed: bool,
}

impl Noted for Arrived {
    const STAGE: Stage = Stage::Forward;

    fn note(&self, facts: &mut Facts) {
        facts.streamed = self.streamed;
    }
}

impl Cause {
    pub(super) fn of(way: &Passage<'_>, message: &Message, judged: Arc<Judged>) -> Self {
        let trace = Parent::caused(way.call.id, way.call);
        Self { call: way.call.as_cause(message), judged, changes_state: way.one.changes_state(), trace }
    }

    /// Writes down questions of the server that its client is not asked, each with why where that is known.
    pub(super) fn unasked(
        &self,
        state: &Arc<State>,
        session: &Session,
        server: &Arc<Server>,
        asked: &[InputRequest<'_>],
        why: impl Fn(&InputRequest<'_>) -> Option<String>,
    ) {
        let line = state.line();
        let holder = session.holder();
        let now = line.may_hear(&holder, &server.name).map(|(caller, _)| caller);
        let may_hear = now.is_some();
        let caller = now.unwrap_or_else(|| Caller::of(holder));
        let barred = |asked: &InputRequest<'_>| if may_hear { why(asked).map(cannot_ask) } else { Some(no_right()) };
        // What becomes of the call is said where it ends.
        let _ = line.judge_all(asked, &caller, &self.call, server, barred);
    }

    /// The headers of a round: those of the call, under a span of its own.
    pub(super) fn headers(&self, of_call: &HeaderMap, round: &Round) -> HeaderMap {
        let mut headers = of_call.clone();
        let exported = round.line.snapshot.settings.traces;
        trace::propagate_caused(round.trail.facts().call, &self.trace, exported, &mut headers);
        headers
    }

    /// What was answered took time: rights, rules and servers may be others now, and what is sent next has the effect.
    /// Gives the server as it is now.
    pub(super) fn decide(
        &self,
        state: &Arc<State>,
        session: &Session,
        server: &Server,
        retry: &Message,
    ) -> Result<(Arc<Server>, Round), UpstreamFault> {
        let line = state.line();
        let call = Call {
            id: new_id(),
            parent: Some(self.call.id),
            batch: None,
            presence: None,
            route: self.call.route.clone(),
            operation: Operation::Message(retry.clone()),
            era: Era::Legacy,
            headers: HeaderMap::new(),
            peer: self.call.peer,
        };
        let mut trail = Trail::open(&call, state);
        match self.decided(&line, session, server, &mut trail) {
            Ok((server, slot)) => Ok((server, Round { line, changes_state: self.changes_state, trail, slot })),
            Err(stop) => {
                let fault = unsent(&stop);
                trail.close_stopped(&stop);
                Err(fault)
            }
        }
    }

    fn decided(
        &self,
        line: &Line,
        session: &Session,
        server: &Server,
        trail: &mut Trail,
    ) -> Result<(Arc<Server>, Slot), Stop> {
        let facts = trail.facts_mut();
        facts.trace = Some(self.trace.clone());
        facts.server = Some(server.name.clone());
        facts.target = Some(Label::of(&self.judged.name, self.judged.action));
        facts.action = self.judged.action;
        facts.session = Some(session.digest);
        facts.bridged = Crossing::Upward.into_era();
        let found = line.may_hear(&session.holder(), &server.name);
        let (caller, now) = found.ok_or_else(|| withdrawn("its caller has no right to the server any more"))?;
        let facts = trail.facts_mut();
        facts.principal = Some(caller.principal.id().clone());
        facts.identity = Some(caller.principal.credential_id().clone());
        if now.fingerprint != server.fingerprint || Crossing::between(Era::Legacy, now) != Crossing::Upward {
            return Err(withdrawn("the server was configured anew"));
        }
        let slot = self.judge(line, &caller, now, trail)?;
        Ok((Arc::clone(now), slot))
    }

    fn judge(&self, line: &Line, caller: &Caller, server: &Server, trail: &mut Trail) -> Result<Slot, Stop> {
        let judged = &self.judged;
        let resource = server.resource(&judged.name);
        if judged.action == Some(vocab::Action::ToolExecute) {
            trail.facts_mut().class = Some(resource.class);
        }
        // What needs no rule is never asked about.
        let action = judged.action.ok_or_else(|| withdrawn("no rule was asked about it"))?;
        let now = line.state.clock.ticks();
        let again = line.snapshot.limits.again(caller.principal.id(), action, &resource.id, now);
        let slot = again.map_err(|limited| admit::limited(Stage::Limit, &limited))?;
        let question = policy::Question {
            subject: &caller.subject,
            action,
            resource: &resource,
            arguments: &judged.arguments,
            digest: judged.digest,
            findings: &judged.findings,
            now: line.state.clock.now(),
        };
        let permit = line.snapshot.policies.authorize(&question);
        let permit = permit.map_err(|refusal| {
            withdrawn(&format!("policy: {refusal}")).decided(&line.snapshot.policies, refusal.rules)
        });
        // It is used up at once: what it is for leaves next, or never.
        trail.note(permit).map(|_| slot)
    }
}

impl Round {
    /// Waits until the log knows of it.
    pub(super) async fn intend(mut self) -> Result<Leaving, UpstreamFault> {
        let intent = self.line.intend_to(self.changes_state, &mut self.trail).await;
        match self.trail.note(intent) {
            Ok(intent) => Ok(Leaving { trail: self.trail, slot: self.slot, intent }),
            Err(stop) => {
                let fault = unsent(&stop);
                self.trail.close_stopped(&stop);
                Err(fault)
            }
        }
    }
}

/// Writes down that the server answers a round, by a message or a stream of them.
pub(super) fn arrived(trail: &mut Trail, arrival: &Arrival) {
    let streamed = matches!(arrival, Arrival::Stream { .. });
    // What comes is no stop.
    let _ = trail.note(Ok(Arrived { streamed }));
}

/// Closes the record of a round that the server does not answer.
pub(super) fn broken(mut trail: Trail, stop: Stop) {
    let has_arrived = trail.facts().stages.iter().any(|mark| mark.stage == Stage::Forward);
    let noted = if has_arrived { Err(stop) } else { trail.note(Err::<Arrived, Stop>(stop)) };
    match noted {
        Err(stop) => trail.close_stopped(&stop),
        Ok(_) => drop(trail),
    }
}

/// Closes the record of a round with what the server said to it.
pub(super) fn answered(mut trail: Trail, answer: &Message) {
    let mut said = Said::of(answer);
    // The record of the call has what was found in it, and may keep it.
    said.clear = false;
    said.note(trail.facts_mut());
    trail.committed(&said);
    trail.close_answered(StatusCode::OK);
}

fn withdrawn(why: &str) -> Stop {
    Stop::refused(Stage::Authorize, "denied", mcp::error::REFUSED_POLICY, why)
}

/// What a call ends with whose server no bridge leads to any more.
pub(super) fn parted() -> UpstreamFault {
    let why = "the server speaks another era by now, or `bridge: false` was set for it in the course of the call";
    UpstreamFault::Round { code: mcp::error::UPSTREAM_DOWN, why: why.to_owned(), retry_after: None }
}

/// What a call ends with whose client has answered nothing that its server could be told.
pub(super) fn unanswered(fault: BridgeFault) -> UpstreamFault {
    match fault {
        // The server has done nothing wrong, and is not asked again.
        BridgeFault::Answer { .. } => {
            UpstreamFault::Round { code: mcp::error::INVALID_PARAMS, why: fault.to_string(), retry_after: None }
        }
        other => other.into(),
    }
}

/// What the call ends with, of which earlier rounds were sent.
fn unsent(stop: &Stop) -> UpstreamFault {
    let why = match stop.stage {
        Stage::Authorize => "the right to this call was withdrawn in the course of it".to_owned(),
        _ => stop.message.clone(),
    };
    let code = if stop.stage == Stage::Authorize { mcp::error::UPSTREAM_DOWN } else { stop.code };
    UpstreamFault::Round { code, why, retry_after: stop.data.get("retryAfter").and_then(serde_json::Value::as_u64) }
}
