//! A request that a server sends back: a call of its own, asked by the server and answered by the client.
//!
//! Its principal is the owner of the session, its parent the call in whose course it came. A question that is refused
//! is answered to the server; the client never hears of it.

use crate::{
    call::{Call, Operation, Route},
    forward::Exchange,
    pipeline::Line,
    question,
    server::Server,
    session::{Asked, Session},
    stop::{Stage, Stop},
    text::Cleared,
    trace::Parent,
    trail::Trail,
    upstream::exchange,
};
use bytes::Bytes;
use guard::Carry;
use http::HeaderMap;
use mcp::{Message, error};
use policy::Question;
use serde_json::Value;
use std::sync::Arc;
use vocab::{Action, CallId};

/// One question.
pub(crate) struct Ask<'a> {
    pub(crate) exchange: &'a Exchange,
    pub(crate) server: &'a Arc<Server>,
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
        let call = Call {
            id: crate::call::new_id(),
            parent: Some(ask.parent),
            route: ask.exchange.call.route.clone(),
            operation: Operation::Message(ask.message.clone()),
            era: ask.exchange.call.era,
            headers: HeaderMap::new(),
            peer: ask.exchange.call.peer,
        };
        let mut trail = Trail::open(&call, &self.state);
        match self.judge(&ask, &mut trail) {
            Ok(text) => {
                trail.close_answered(http::StatusCode::OK);
                Verdict::Passed(text)
            }
            Err(stop) => {
                self.decline(&ask, &stop).await;
                trail.close_stopped(&stop);
                Verdict::Declined
            }
        }
    }

    fn judge(&self, ask: &Ask<'_>, trail: &mut Trail) -> Result<Bytes, Stop> {
        let caller = &ask.exchange.caller;
        let method = ask.message.method();
        let resource = ask.server.resource(method);
        let action = mcp::method::action(method).unwrap_or(Action::MethodCall);
        let digest = crate::resolve::digest_of(Some(ask.message));
        let facts = trail.facts_mut();
        facts.principal = Some(caller.principal.id().clone());
        facts.identity = Some(caller.principal.credential_id().clone());
        facts.server = Some(ask.server.name.clone());
        facts.target = Some(Arc::clone(&resource.id.name));
        facts.action = Some(action);
        facts.trace.get_or_insert_with(|| Parent::caused(ask.parent, &ask.exchange.call));
        let session = session(ask.exchange)?;
        facts.session = Some(session.digest);
        let (text, said) = self.release_message(ask.message, ask.exchange, &mut Carry::default())?;
        let findings = said.findings.clone();
        if !said.text.is_empty() {
            let facts = trail.facts_mut();
            facts.judged = Some(said.fingerprint());
            facts.cleared = Cleared::of(said.text.clone(), said.clear);
        }
        said.note(trail.facts_mut());
        let permit = if mcp::method::is_open(method) {
            self.snapshot.policies.authorize_open(&caller.subject, method, std::slice::from_ref(&resource))
        } else {
            // What cannot be read is not judged as if it were nothing.
            let arguments = ask.message.params_member().map(|params| params.value()).transpose().map_err(|fault| {
                Stop::refused(Stage::Validate, "arguments", error::INVALID_PARAMS, fault.to_string())
            })?;
            let arguments = arguments.unwrap_or(Value::Null);
            self.snapshot.policies.authorize(&Question {
                subject: &caller.subject,
                action,
                resource: &resource,
                arguments: &arguments,
                digest,
                findings: &findings,
                now: self.state.clock.now(),
            })
        };
        let permit = permit.map_err(|refusal| {
            Stop::refused(Stage::Authorize, "denied", error::REFUSED_POLICY, format!("policy: {refusal}"))
                .rules(refusal.rules)
        })?;
        let permit = trail.note(Ok(permit))?;
        let id = ask.message.id_member().ok_or_else(|| {
            Stop::refused(Stage::Resolve, "no-id", error::INVALID_REQUEST, "a question without an id")
        })?;
        let asked_id: Box<str> = Box::from(String::from_utf8_lossy(id.raw));
        // Two servers may choose the same id; on the aggregate the client sees one of ours.
        let (shown, text) = match session.route {
            Route::One(_) => (asked_id.clone(), text),
            Route::All => {
                let shown = format!("\"durward-{}\"", session.question_id());
                let again = exchange::one(text, &self.snapshot.answer_limits())
                    .map_err(|fault| Stop::refused(Stage::Release, "mask", error::INTERNAL, fault.to_string()))?;
                let span = again.id_member().map(|member| member.span.clone()).unwrap_or_default();
                let text = mcp::splice(again.bytes(), &mut [(span, shown.clone().into_bytes())]);
                (shown.into_boxed_str(), text)
            }
        };
        let server = ask.server.name.clone();
        let asked = Asked { server, shown: shown.clone(), id: asked_id, method: Box::from(method), permit, digest };
        session.ask(&shown, asked);
        Ok(text)
    }

    /// Tells the server no.
    async fn decline(&self, ask: &Ask<'_>, stop: &Stop) {
        let text = mcp::error_text(ask.message.id(), stop.code, &stop.message, None);
        question::decline(self, ask.server, session(ask.exchange).ok(), text).await;
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
