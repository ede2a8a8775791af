//! What a legacy client asked of a server and that lasts: the resources it follows, and its log level. The server's session
//! may end before the client's, by a restart, a reload, a rotated secret; the one that is opened then is told all of it.

use crate::{
    bridge::upward::followed::Asked,
    forward::Passage,
    inject,
    session::{Leg, Session},
    state::State,
    upstream::{
        Arrival, UpstreamFault,
        exchange::{self, Hop},
    },
};
use mcp::{Kind, Message, bridge::LogLevel};
use std::sync::Arc;
use vocab::ServerName;

/// Remembers what lasts of a request that its server took.
pub(crate) fn note(way: &Passage<'_>, arrival: &Arrival) {
    let Some(message) = way.call.message().filter(|message| message.kind() == Kind::Request) else { return };
    let Some(session) = &way.one.session else { return };
    let (server, uri) = (&way.one.server.name, &way.one.resource.id.name);
    match message.method() {
        "resources/subscribe" if is_taken(way, arrival) => {
            if let Some(judged) = &way.judged
                && session.upward.follow(server, uri, Asked::of(message, judged)).is_none()
            {
                tracing::debug!(%server, "a session follows more than is remembered");
            }
        }
        "resources/unsubscribe" => session.upward.unfollow(server, uri),
        "logging/setLevel" if is_taken(way, arrival) => {
            if let Some(level) = LogLevel::named(message) {
                session.set_log_level(level);
            }
        }
        _ => {}
    }
}

/// Whether a server takes a request. What it says on a stream is not known yet, and rarely a no.
fn is_taken(way: &Passage<'_>, arrival: &Arrival) -> bool {
    match arrival {
        Arrival::Whole { status, body, .. } => {
            let answer = exchange::one(body.clone(), &way.hop().limits);
            status.is_success() && answer.is_ok_and(|answer| answer.error().is_none())
        }
        Arrival::Stream { .. } => true,
        Arrival::Bare { .. } => false,
    }
}

/// Tells a session with a server, just opened, at which level its client wants to hear from it.
pub(crate) async fn level(hop: &Hop<'_>, session: &Session, leg: &Leg) -> Result<(), UpstreamFault> {
    let Some(level) = session.log_level() else { return Ok(()) };
    let text = format!(
        r#"{{"jsonrpc":"2.0","id":"durward-level","method":"logging/setLevel","params":{{"level":"{}"}}}}"#,
        level.as_str()
    );
    // A server without logging refuses; the client was told so when it set the level.
    let _ = hop.ask(Some(leg), &exchange::one(text.into(), &hop.limits)?).await;
    Ok(())
}

/// Has a session with a server, just opened, tell of what its client follows. Nobody waits for that.
pub(crate) fn follow(state: &Arc<State>, server: &ServerName, session: &Arc<Session>, leg: &Arc<Leg>) {
    if session.upward.followed_on(server).1.is_empty() {
        return;
    }
    let (state, server) = (Arc::clone(state), server.clone());
    let (session, leg) = (Arc::clone(session), Arc::clone(leg));
    tokio::spawn(async move {
        if let Err(fault) = follow_all(&state, &server, &session, &leg).await {
            tracing::debug!(%server, %fault, "what a session follows could not be asked for again");
        }
    });
}

async fn follow_all(
    state: &Arc<State>,
    name: &ServerName,
    session: &Arc<Session>,
    leg: &Arc<Leg>,
) -> Result<(), UpstreamFault> {
    for (number, (uri, subscription)) in session.upward.followed_on(name).1.into_iter().enumerate() {
        // The rights of the moment, and the server of it.
        let line = state.line();
        let Some((caller, server)) = line.may_hear(&session.holder(), name) else { return Ok(()) };
        if server.fingerprint != leg.fingerprint || session.is_over() {
            return Ok(());
        }
        if subscription.asked.judge(&line, &caller, server, &uri).is_err() {
            continue;
        }
        let injected = inject::credentials(state, server).map_err(|fault| UpstreamFault::Down(fault.to_string()))?;
        let hop = Hop { state, server, injected: &injected, limits: line.snapshot.answer_limits() };
        let request = subscription.asked.request(&format!("durward-follow-{number}"), &uri);
        let request: Message = exchange::one(request.into(), &hop.limits)?;
        // What it says no to now, it says no to alone.
        hop.ask(Some(leg), &request).await?;
    }
    Ok(())
}
