//! What a legacy client asked of a server and that lasts: the resources it follows, and its log level. The server's session
//! may end before the client's, by a restart, a reload, a rotated secret; the one that is opened then is told all of it.

use crate::{
    bridge::upward::followed::{Asked, Subscription},
    forward::Passage,
    inject,
    session::{Leg, Session},
    state::State,
    upstream::{
        Arrival, UpstreamFault,
        exchange::{self, Hop},
    },
};
use mcp::{Kind, bridge::LogLevel};
use std::{sync::Arc, time::Duration};
use vocab::ServerName;

/// How often a server is asked to tell of a resource again, and how long it is left alone after the first time; twice as
/// long after each of the others.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);

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
    let followed = session.upward.followed_on(server).1;
    if followed.is_empty() {
        return;
    }
    let again =
        Again { state: Arc::clone(state), name: server.clone(), session: Arc::clone(session), leg: Arc::clone(leg) };
    let wanted = followed.into_iter().map(|(uri, subscription)| Wanted { uri, subscription, is_taken: false });
    let wanted = wanted.collect();
    tokio::spawn(async move { again.ask_all(wanted).await });
}

/// Resources that are asked for again.
struct Again {
    state: Arc<State>,
    name: ServerName,
    session: Arc<Session>,
    leg: Arc<Leg>,
}

/// One of them.
struct Wanted {
    uri: Arc<str>,
    subscription: Subscription,
    /// The server tells of it: should its client have given it up, that is to be taken back.
    is_taken: bool,
}

impl Again {
    /// Asks for all of them, and in a while for those that the server had no time for.
    async fn ask_all(&self, mut wanted: Vec<Wanted>) {
        for turn in 0..TRIES {
            if turn > 0 {
                tokio::time::sleep(PAUSE * (1 << (turn - 1))).await;
            }
            let mut left = Vec::new();
            for mut one in wanted {
                match self.ask(&mut one).await {
                    Ok(()) => {}
                    // Whoever opens the next session asks for all of them there.
                    Err(UpstreamFault::Lost) => return,
                    Err(fault) => {
                        tracing::debug!(server = %self.name, %fault, "a resource could not be followed again, or given up");
                        left.push(one);
                    }
                }
            }
            if left.is_empty() {
                return;
            }
            wanted = left;
        }
        let (given_up, lost): (Vec<_>, Vec<_>) = wanted.iter().partition(|one| one.is_taken);
        if !lost.is_empty() {
            tracing::warn!(server = %self.name, resources = lost.len(), "resources are followed no longer: their server does not take it");
        }
        if !given_up.is_empty() {
            tracing::warn!(server = %self.name, resources = given_up.len(), "a server tells on of resources that nobody follows: it does not take it back");
        }
    }

    /// Asks for one, if it is still wanted and may be followed, and takes back what is not wanted any more.
    async fn ask(&self, one: &mut Wanted) -> Result<(), UpstreamFault> {
        let Self { state, name, session, leg } = self;
        let Wanted { uri, subscription, is_taken } = one;
        let is_wanted = || session.upward.asked(name, uri).is_some();
        // The rights of the moment, and the server of it.
        let line = state.line();
        let Some((caller, server)) = line.may_hear(&session.holder(), name) else { return Ok(()) };
        if session.is_over() || !session.has_leg(name, leg) || server.fingerprint != leg.fingerprint {
            return Err(UpstreamFault::Lost);
        }
        let injected = inject::credentials(state, server).map_err(|fault| UpstreamFault::Down(fault.to_string()))?;
        let hop = Hop { state, server, injected: &injected, limits: line.snapshot.answer_limits() };
        let number = session.question_id();
        if !*is_taken {
            if !is_wanted() || subscription.asked.judge(&line, &caller, server, uri).is_err() {
                return Ok(());
            }
            let request = subscription.asked.request(&format!("durward-follow-{number}"), uri);
            let answer = hop.ask_for_answer(leg, &exchange::one(request.into(), &hop.limits)?).await?;
            if let Some(code) = answer.error_code() {
                tracing::debug!(server = %name, code, "a resource is not followed any more: its server says no");
                return Ok(());
            }
            *is_taken = true;
        }
        if !is_wanted() {
            // The client gave it up meanwhile, and may have said so before we asked.
            let params = serde_json::json!({ "uri": &**uri });
            let id = format!("durward-unfollow-{number}");
            let request =
                serde_json::json!({ "jsonrpc": "2.0", "id": id, "method": "resources/unsubscribe", "params": params });
            hop.ask_for_answer(leg, &exchange::one(request.to_string().into(), &hop.limits)?).await?;
        }
        Ok(())
    }
}
