//! The transport of 2024-11-05, HTTP with SSE on two addresses, before the same line as every other client.
//!
//! GET opens a stream that lasts and names the address for POSTs; each POST is an ordinary call in an ordinary legacy
//! session, and what it would have been answered goes onto the stream. Decides nothing about calls.

mod carry;
mod letter;

use super::{
    body::read,
    receive::{door, not_allowed, nowhere, readable, recognise},
    refuse::{misfit, refuse, refuse_known, unread},
    under_way::{UnderWay, run, steadfast},
};
use crate::{
    call::{Call, Operation, Route, header},
    mailbox::{CALLS, Mailbox, Opened},
    metadata,
    pipeline::Line,
    reply::{Reply, ReplyBody},
    resolve,
    respond::{self, Asked},
    stop::{Stage, Stop},
    trail::Trail,
    upstream::UpstreamFault,
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use hyper::body::Incoming;
use mcp::{Body as Text, Era, Kind, Message, error};
use std::{net::IpAddr, sync::Arc};

/// Where streams are opened: this, or this, a slash and a server's name.
pub(super) const STREAM: &str = "/sse";
/// Where messages are posted.
pub(super) const MESSAGES: &str = "/messages";
/// What a client that hears events takes for an answer.
static BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");

/// Serves a request to one of the two addresses.
pub(super) async fn serve(line: &Line, request: Request<Incoming>, peer: IpAddr, under_way: UnderWay) -> Reply {
    let path = request.uri().path();
    let is_post = path == MESSAGES;
    let Some(route) = (if is_post { Some(Route::All) } else { door(path, STREAM) }) else {
        return refuse(line, unread(Route::All, request.headers(), peer), nowhere()).await;
    };
    if let Err(fault) = mcp::header::check_shape(request.headers()) {
        let stop =
            Stop::refused(Stage::Receive, "header", fault.code(), fault.to_string()).status(StatusCode::BAD_REQUEST);
        return refuse(line, unread(route, request.headers(), peer), stop).await;
    }
    let mut reply = match (is_post, request.method()) {
        (false, &Method::GET) => open(line, request.headers().clone(), route, peer).await,
        (true, &Method::POST) => match post(line, request, peer, under_way).await {
            Ok(reply) | Err(reply) => reply,
        },
        (_, _) => {
            let allowed = if is_post { "POST" } else { "GET" };
            refuse(line, unread(route, request.headers(), peer), not_allowed(allowed)).await
        }
    };
    point_here(&mut reply);
    reply
}

/// A challenge names the metadata of what was dialled.
fn point_here(reply: &mut Reply) {
    let challenge = reply.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
    let here = challenge.map(|text| {
        let (mcp, here) = (format!("{}/mcp", metadata::WELL_KNOWN), format!("{}{STREAM}", metadata::WELL_KNOWN));
        text.replace(&mcp, &here)
    });
    if let Some(value) = here.and_then(|text| HeaderValue::from_str(&text).ok()) {
        reply.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
}

/// Opens a stream. It is a call as others are, open until the client leaves.
async fn open(line: &Line, headers: HeaderMap, route: Route, peer: IpAddr) -> Reply {
    let call = Call::new(route, Operation::Listen, Era::Legacy, headers, peer);
    let mut trail = Trail::open(&call, &line.state);
    let opened = match welcome(line, &call, &mut trail).await {
        Ok(opened) => opened,
        Err(stop) => return respond::refuse(&stop, trail, &Asked::of(&call)),
    };
    let Opened { mailbox, handle, letters } = opened;
    let prefix = metadata::prefix(&line.snapshot.settings);
    let first = letter::endpoint(&format!("{prefix}{MESSAGES}?sessionId={handle}"));
    let body = carry::begin(&line.state, mailbox, letters, first, trail);
    let mut reply = Response::new(ReplyBody::Stream(body));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    reply.headers_mut().insert(header::ACCEL_BUFFERING.clone(), HeaderValue::from_static("no"));
    respond::mark(&mut reply, call.id);
    reply
}

/// Who may have a stream: whoever may see what is behind the door, within the bound of sessions.
async fn welcome(line: &Line, call: &Call, trail: &mut Trail) -> Result<Opened, Stop> {
    let caller = trail.note(line.authenticate(call, trail.arrived()).await)?;
    line.attempt(&caller, trail.passed_at())?;
    if let Route::One(name) = &call.route {
        let server = line.door(&caller, name)?;
        trail.facts_mut().server = Some(server.name.clone());
    }
    resolve::takes_ours(call)?;
    let most = line.snapshot.settings.bounds.sessions_per_principal;
    let opened = line.state.mailboxes.open(&caller.principal, call.route.clone(), most);
    opened.map_err(|fault| UpstreamFault::Sessions(fault.to_string()).stop_here().status(StatusCode::TOO_MANY_REQUESTS))
}

/// Takes one message. What is refused before it is a call of its session is answered here, as HTTP.
async fn post(line: &Line, request: Request<Incoming>, peer: IpAddr, under_way: UnderWay) -> Result<Reply, Reply> {
    let (head, body) = request.into_parts();
    let headers = head.headers;
    // SECURITY: nothing is said about a mailbox to whoever has not proven who it is.
    let caller = match recognise(line, &headers, &Route::All, peer).await {
        Ok(caller) => caller,
        Err(stop) => return Err(refuse(line, unread(Route::All, &headers, peer), stop).await),
    };
    let refused = |stop| refuse_known(line, unread(Route::All, &headers, peer), caller.clone(), stop);
    readable(&headers).map_err(refused)?;
    let held = line.state.bodies.of(caller.principal.id(), &headers);
    let body = read(body, line.snapshot.settings.bounds.body, held).await.map_err(refused)?;
    let message = single(line, body).map_err(refused)?;
    let handle = head.uri.query().and_then(|query| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| *name == "sessionId").map(|(_, value)| value)
    });
    let found = handle.and_then(|handle| line.state.mailboxes.find(handle, &caller.principal));
    let said = |route, headers, message| Call::new(route, Operation::Message(message), Era::Legacy, headers, peer);
    let Some(mailbox) = found else {
        let call = said(Route::All, headers, message);
        return Err(refuse_known(line, call, caller, resolve::no_such_session()));
    };
    let route = mailbox.route.clone();
    if let Err(fault) = mcp::check(&headers, &message) {
        return Err(misfit(line, said(route, headers, message), Some(caller), fault).await);
    }
    let introduces = message.method() == "initialize" && message.kind() == Kind::Request;
    let busy = match message.kind() {
        Kind::Request => match mailbox.enter() {
            Some(busy) => Some(busy),
            None => return Err(refuse_known(line, said(route, headers, message), caller, too_many())),
        },
        Kind::Notification | Kind::Response => None,
    };
    if introduces && !mailbox.begin() {
        let why = "this stream has its session; open another stream for another session";
        let stop = Stop::refused(Stage::Receive, "again", error::INVALID_REQUEST, why).status(StatusCode::BAD_REQUEST);
        return Err(refuse_known(line, said(route, headers, message), caller, stop));
    }
    let ready = message.method() == "notifications/initialized";
    let headers = in_session(headers, &mailbox);
    let call = |operation, headers| Call::new(route.clone(), operation, Era::Legacy, headers, peer);
    if let Some(busy) = busy {
        letter::answer(line, call(Operation::Message(message), headers), mailbox, (busy, under_way), introduces);
        return Ok(accepted());
    }
    let listens = ready.then(|| call(Operation::Listen, headers.clone()));
    let (line, said) = (line.clone(), Box::new(call(Operation::Message(message), headers)));
    let state = Arc::clone(&line.state);
    // A client that does not wait to hear that it was taken is listened for all the same.
    let listening = Box::pin(async move {
        let mut reply = run(&line, said, under_way).await;
        if let Some(listens) = listens.filter(|_| reply.status().is_success() && mailbox.may_listen()) {
            // What the client says next must find somebody who listens.
            letter::listen(&line, listens, &mailbox).await;
        }
        if reply.status().is_success() {
            *reply.status_mut() = StatusCode::ACCEPTED;
        }
        reply
    });
    Ok(steadfast(&state, listening).await)
}

/// The one message of a body: this transport knows neither batches nor the modern era.
fn single(line: &Line, body: Bytes) -> Result<Message, Stop> {
    let refused = |reason, code, why: String| {
        Err(Stop::refused(Stage::Receive, reason, code, why).status(StatusCode::BAD_REQUEST))
    };
    match mcp::scan(body, &line.snapshot.request_limits()) {
        Err(fault) => refused("body", fault.code(), fault.to_string()),
        Ok(Text::Batch(_)) => refused("batch", error::INVALID_REQUEST, "this transport has no batches".to_owned()),
        Ok(Text::Single(message)) if message.era() == Era::Modern => refused(
            "era",
            error::UNSUPPORTED_VERSION,
            "revision 2026-07-28 has no transport with a lasting stream; post to /mcp".to_owned(),
        ),
        Ok(Text::Single(message)) => Ok(message),
    }
}

/// The headers of a call as a client of the later transport would send them.
fn in_session(mut headers: HeaderMap, mailbox: &Arc<Mailbox>) -> HeaderMap {
    headers.remove(&header::SESSION);
    headers.remove(&header::LAST_EVENT);
    headers.insert(ACCEPT, BOTH.clone());
    if let Some(session) = &*mailbox.session().borrow() {
        headers.insert(header::SESSION.clone(), session.handle().clone());
    }
    let revision = mailbox.revision().filter(|revision| revision.has_version_header());
    if let Some(revision) = revision.filter(|_| !headers.contains_key(&header::VERSION)) {
        headers.insert(header::VERSION.clone(), HeaderValue::from_static(revision.as_str()));
    }
    headers
}

fn accepted() -> Reply {
    let mut reply = Response::new(ReplyBody::from(Bytes::from_static(b"Accepted")));
    *reply.status_mut() = StatusCode::ACCEPTED;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    reply
}

fn too_many() -> Stop {
    let why = format!("{CALLS} requests of this stream wait for their answers already");
    Stop::full("busy", why).status(StatusCode::TOO_MANY_REQUESTS)
}
