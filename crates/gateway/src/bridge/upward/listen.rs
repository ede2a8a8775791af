//! The listening stream of a legacy session, carried by one `subscriptions/listen` on a modern server. It is opened
//! anew when the set of followed resources changes.

use crate::{
    aggregate::listen::may_subscribe,
    bridge::Crossing,
    inject,
    pipeline::Line,
    server::{Server, Transport},
    session::Session,
    state::State,
    upstream::{
        Arrival, Source, UpstreamFault,
        exchange::{self, Hop, Wait},
        http::{self as wire, Outbound},
    },
};
use http::{HeaderValue, Method, StatusCode};
use mcp::{
    Era, Kind, Revision,
    bridge::{Filter, upward as translate},
};
use std::{sync::Arc, time::Duration};
use vocab::ServerName;

/// How long to wait before a stream that broke off is opened again.
const AGAIN: Duration = Duration::from_secs(2);
/// How often it is looked whether somebody listens, may, and to this server: a stream may say nothing for long.
const LOOK: Duration = Duration::from_millis(500);

/// Follows a server for a session, unless somebody does already.
pub(crate) fn begin(state: &Arc<State>, server: &ServerName, session: &Arc<Session>) {
    tokio::spawn(follow(Arc::clone(state), server.clone(), Arc::clone(session)));
}

/// Follows a server until the session ends or nobody listens.
async fn follow(state: Arc<State>, name: ServerName, session: Arc<Session>) {
    let Some(_following) = session.follow(&name) else { return };
    let mut end = session.end();
    let mut followed = session.upward.followed();
    let following = async {
        while session.is_heard() {
            let now = state.line();
            let Some((caller, server)) = now.may_hear(&session.holder(), &name) else { return };
            if Crossing::between(Era::Legacy, server) != Crossing::Upward {
                return;
            }
            // What the caller may not follow is not asked for, and no server hears what is followed on another.
            let mine = |(of, uri): &(ServerName, Box<str>)| {
                (*of == name && may_subscribe(&now, &caller, server, uri)).then(|| uri.to_string())
            };
            let resources = followed.borrow_and_update().iter().filter_map(mine).collect();
            let listening = listen(&state, server, &session, resources);
            tokio::select! {
                heard = listening => match heard {
                    Ok(true) => {}
                    // It has no such stream.
                    Ok(false) => return,
                    Err(fault) => tracing::debug!(server = %name, %fault, "a stream broke off"),
                },
                changed = followed.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    continue;
                }
                () = until_over(&state, &session, server) => continue,
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::select! {
        () = following => {}
        _ = end.wait_for(|ended| *ended) => {}
    }
}

/// Waits until the stream has lost its reason.
async fn until_over(state: &Arc<State>, session: &Arc<Session>, server: &Server) {
    let mut look = tokio::time::interval(LOOK);
    while session.is_heard() && is_current(&state.line(), session, server) {
        look.tick().await;
    }
}

/// Whether the session may hear of this very server, over a bridge.
fn is_current(line: &Line, session: &Session, server: &Server) -> bool {
    let now = line.may_hear(&session.holder(), &server.name).map(|(_, now)| now);
    now.is_some_and(|now| {
        now.fingerprint == server.fingerprint && Crossing::between(Era::Legacy, now) == Crossing::Upward
    })
}

/// One stream, to its end. `false` if the server has none.
async fn listen(
    state: &Arc<State>,
    server: &Arc<Server>,
    session: &Arc<Session>,
    uris: Vec<String>,
) -> Result<bool, UpstreamFault> {
    let injected = inject::credentials(state, server).map_err(|fault| UpstreamFault::Down(fault.to_string()))?;
    let limits = state.line().snapshot.answer_limits();
    let id = format!("\"durward-listen-{}\"", session.question_id());
    let wanted = Filter { tools: true, prompts: true, resources: true, uris };
    let request = translate::listen(&id, &super::introduction(session)?, &wanted);
    let request = exchange::one(request, &limits)?;
    let arrival = match &server.transport {
        Transport::Http(_) => {
            let mut headers = wire::own();
            headers
                .insert(crate::call::header::VERSION.clone(), HeaderValue::from_static(Revision::V2026_07_28.as_str()));
            headers.insert(crate::call::header::METHOD.clone(), HeaderValue::from_static("subscriptions/listen"));
            let outbound = Outbound { method: Method::POST, headers, body: request.bytes().clone() };
            wire::send(state, server, &injected, outbound, limits.body).await?.0
        }
        Transport::Stdio(program) => {
            let hop = Hop { state, server, injected: &injected, limits };
            let pipe = state.modern_pipe(&hop, &session.owner, program.shared)?;
            exchange::over_pipe(&pipe, &request, None, Wait::Stream(Duration::ZERO)).await?
        }
    };
    match arrival {
        Arrival::Stream { mut source, .. } => told(state, server, session, &mut source).await,
        Arrival::Bare { status, .. } | Arrival::Whole { status, .. } => match status {
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(false),
            status => Err(UpstreamFault::Protocol(format!("HTTP {status} to `subscriptions/listen`"))),
        },
    }
}

/// Passes on what is said, to the end of the stream. `false` if the server has none.
async fn told(
    state: &Arc<State>,
    server: &Arc<Server>,
    session: &Arc<Session>,
    source: &mut Source,
) -> Result<bool, UpstreamFault> {
    while let Some((_, event)) = Box::pin(source.next()).await? {
        let Some(text) = event.message() else { continue };
        let message = exchange::one(text.clone(), &state.line().snapshot.answer_limits())?;
        if message.error_code() == Some(mcp::error::METHOD_NOT_FOUND) {
            return Ok(false);
        }
        if message.kind() != Kind::Notification {
            continue;
        }
        let Some(text) = translate::notification(&message) else { continue };
        if !is_current(&state.line(), session, server) || !session.tell(&server.name, &text) {
            return Ok(true);
        }
    }
    Ok(true)
}
