//! A later round of a call is a call of its own: it is judged and counted, the log knows of it before it leaves, and its
//! record names the call in the course of which it was made.

use crate::{
    admit,
    authenticate::Caller,
    bridge::Crossing,
    call::{Call, Operation, Route, new_id},
    forward::{Judged, Passage},
    intend::Intent,
    pipeline::Line,
    release::Said,
    server::Server,
    session::Session,
    state::State,
    stop::{Stage, Stop},
    trail::Trail,
    upstream::UpstreamFault,
};
use http::{HeaderMap, StatusCode};
use mcp::{Era, Message};
use std::{net::IpAddr, sync::Arc};
use vocab::CallId;

/// Whose rounds they are.
pub(super) struct Cause {
    call: CallId,
    route: Route,
    peer: IpAddr,
    judged: Arc<Judged>,
    changes_state: bool,
}

/// A round that may leave, once the log knows of it.
pub(super) struct Round {
    line: Line,
    changes_state: bool,
    trail: Trail,
}

impl Cause {
    pub(super) fn of(way: &Passage<'_>, judged: Arc<Judged>) -> Self {
        let (call, route, peer) = (way.call.id, way.call.route.clone(), way.call.peer);
        Self { call, route, peer, judged, changes_state: way.one.changes_state() }
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
            parent: Some(self.call),
            in_batch: false,
            presence: None,
            route: self.route.clone(),
            operation: Operation::Message(retry.clone()),
            era: Era::Legacy,
            headers: HeaderMap::new(),
            peer: self.peer,
        };
        let mut trail = Trail::open(&call, state);
        match self.decided(&line, session, server, &mut trail) {
            Ok(server) => Ok((server, Round { line, changes_state: self.changes_state, trail })),
            Err(stop) => {
                let fault = unsent(&stop);
                trail.close_stopped(&stop);
                Err(fault)
            }
        }
    }

    fn decided(&self, line: &Line, session: &Session, server: &Server, trail: &mut Trail) -> Result<Arc<Server>, Stop> {
        let facts = trail.facts_mut();
        facts.server = Some(server.name.clone());
        facts.target = Some(Arc::clone(&self.judged.name));
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
        self.judge(line, &caller, now, trail)?;
        Ok(Arc::clone(now))
    }

    fn judge(&self, line: &Line, caller: &Caller, server: &Server, trail: &mut Trail) -> Result<(), Stop> {
        let judged = &self.judged;
        let resource = server.resource(&judged.name);
        if judged.action == Some(vocab::Action::ToolExecute) {
            trail.facts_mut().class = Some(resource.class);
        }
        let now = line.state.clock.ticks();
        let again = line.snapshot.limits.again(caller.principal.id(), &resource.id, now);
        again.map_err(|limited| admit::limited(Stage::Limit, &limited))?;
        let question = policy::Question {
            subject: &caller.subject,
            // What needs no rule is never asked about.
            action: judged.action.ok_or_else(|| withdrawn("no rule was asked about it"))?,
            resource: &resource,
            arguments: &judged.arguments,
            digest: judged.digest,
            findings: &judged.findings,
            now: line.state.clock.now(),
        };
        let permit = line.snapshot.policies.authorize(&question);
        let permit = permit.map_err(|refusal| withdrawn(&format!("policy: {refusal}")).rules(refusal.rules));
        // It is used up at once: what it is for leaves next, or never.
        trail.note(permit).map(drop)
    }
}

impl Round {
    /// Waits until the log knows of it.
    pub(super) async fn intend(mut self) -> Result<(Trail, Intent), UpstreamFault> {
        let intent = self.line.intend_to(self.changes_state, &mut self.trail).await;
        match self.trail.note(intent) {
            Ok(intent) => Ok((self.trail, intent)),
            Err(stop) => {
                let fault = unsent(&stop);
                self.trail.close_stopped(&stop);
                Err(fault)
            }
        }
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

/// What the call ends with, of which earlier rounds were sent.
fn unsent(stop: &Stop) -> UpstreamFault {
    let why = match stop.stage {
        Stage::Authorize => "the right to this call was withdrawn in the course of it".to_owned(),
        _ => stop.message.clone(),
    };
    let code = if stop.stage == Stage::Authorize { mcp::error::UPSTREAM_DOWN } else { stop.code };
    UpstreamFault::Round { code, why, retry_after: stop.data.get("retryAfter").and_then(serde_json::Value::as_u64) }
}
