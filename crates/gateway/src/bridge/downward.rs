//! A modern client before a legacy server. The client has no session; those with the server are ours ([`legs`]). What a
//! server asks in the course of a call ends the client's request, and waits for the next one ([`parked`]).

mod audience;
mod course;
mod legs;
mod listen;
mod parked;
mod talk;

pub(crate) use legs::{Legs, Link};
pub(crate) use parked::Parked;
pub(crate) use talk::Talk;

use crate::{
    aggregate::{answer::whole, stream::is_known},
    authenticate::Caller,
    bridge::{Crossing, malformed, unaskable},
    call::{Operation, header},
    forward::{Passage, Sent},
    pipeline::Line,
    server::Server,
    session::{Leg, Way},
    state::State,
    stop::{Stage, Stop},
    upstream::{
        Arrival, Source, UpstreamFault,
        exchange::{self, Hop},
        http::{self as wire, Outbound},
        pipe,
    },
};
use bytes::Bytes;
use course::{Course, LONGEST};
use http::{HeaderMap, Method, StatusCode};
use legs::LOST;
use mcp::{
    Era, Kind, Limits, ListKind, Message,
    bridge::{BridgeFault, Client, LogLevel, check_answer, downward as translate, may_ask},
    error,
};
use parked::{Resting, Ticket, TicketFault};
use serde_json::Value;
use std::sync::Arc;
use talk::{Asker, QUESTION};
use tokio::time::Instant;
use vocab::{Digest, PrincipalId};

/// Carries one call over.
pub(crate) async fn send(way: &Passage<'_>) -> Result<Sent, UpstreamFault> {
    let Operation::Message(message) = &way.call.operation else {
        return Err(UpstreamFault::Protocol("the modern era has no such request".to_owned()));
    };
    let arrival = match message.kind() {
        // What a client says without asking belongs to a session, and it has none.
        Kind::Notification | Kind::Response => Arrival::bare(StatusCode::ACCEPTED),
        Kind::Request => request(way, message).await?,
    };
    Ok((arrival, None))
}

async fn request(way: &Passage<'_>, message: &Message) -> Result<Arrival, UpstreamFault> {
    match message.method() {
        "server/discover" => {
            let link = link(&way.hop(), way, message).await?;
            let found = translate::discover_result(&link.answer, message.id().unwrap_or("null"))?;
            let is_mute = link.audience.has_no_stream();
            Ok(whole(if is_mute { without_promises(found, &way.hop().limits)? } else { found }))
        }
        "subscriptions/listen" => {
            let source = listen(&way.hop(), way.caller, &way.edited(message)?).await?;
            Ok(Arrival::Stream { headers: Box::default(), source })
        }
        // What the modern era does not have, a legacy server is not asked for.
        method @ ("initialize" | "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe") => {
            Err(unknown(format!("Unknown method: {method}")))
        }
        method if method.starts_with("tasks/") => {
            Err(unknown("tasks are not carried to a server of the legacy protocol".to_owned()))
        }
        _ => match translate::request_state(message) {
            Some(state) => resume(way, message, state.text().as_deref().unwrap_or_default()).await,
            None => carry(way, message).await,
        },
    }
}

/// Every page of a list of a legacy server, for the aggregate.
pub(crate) async fn pages(
    hop: &Hop<'_>,
    caller: &Caller,
    request: &Message,
    kind: ListKind,
) -> Result<Vec<Message>, UpstreamFault> {
    let (legs, client) = (&hop.state.legs, shown(hop, caller, request)?);
    let link = legs.link(hop, caller, &client).await?;
    match hop.pages(Some(&link.leg), kind, Era::Legacy, None).await {
        Err(UpstreamFault::Lost) => {
            lose(hop.state, hop.server, &link);
            let link = legs.link(hop, caller, &client).await?;
            hop.pages(Some(&link.leg), kind, Era::Legacy, None).await
        }
        pages => pages,
    }
}

/// What a legacy server says unasked, as `subscriptions/listen` has it, for the aggregate.
pub(crate) async fn listen(hop: &Hop<'_>, caller: &Caller, request: &Message) -> Result<Source, UpstreamFault> {
    let (legs, client) = (&hop.state.legs, shown(hop, caller, request)?);
    let link = legs.link(hop, caller, &client).await?;
    match listen::open(hop, caller, &link, request).await {
        Err(UpstreamFault::Lost) => {
            lose(hop.state, hop.server, &link);
            let link = legs.link(hop, caller, &client).await?;
            listen::open(hop, caller, &link, request).await
        }
        opened => opened,
    }
}

/// What a server is found to be, without what it could only say on a listening stream, which it has not.
fn without_promises(found: Bytes, limits: &Limits) -> Result<Bytes, UpstreamFault> {
    let found = exchange::one(found, limits)?;
    let promises = [
        ["tools", "listChanged"],
        ["prompts", "listChanged"],
        ["resources", "listChanged"],
        ["resources", "subscribe"],
    ];
    let promised = promises.iter().filter_map(|[list, what]| found.outcome_member(&["capabilities", list, what]));
    let mut edits: Vec<_> = promised.map(|member| (member.span, b"false".to_vec())).collect();
    Ok(mcp::splice(found.bytes(), &mut edits))
}

async fn link(hop: &Hop<'_>, way: &Passage<'_>, message: &Message) -> Result<Arc<Link>, UpstreamFault> {
    way.line.state.legs.link(hop, way.caller, &shown(hop, way.caller, message)?).await
}

/// The leg over which the client of a request speaks to a legacy server already, if there is one.
pub(crate) fn known_leg(hop: &Hop<'_>, caller: &Caller, request: &Message) -> Option<Arc<Leg>> {
    let client = shown(hop, caller, request).ok()?;
    hop.state.legs.known(hop, caller, &client).map(|link| Arc::clone(&link.leg))
}

/// What a request says of its client.
fn client(request: &Message) -> Result<Client, UpstreamFault> {
    Client::of_request(request).map_err(|fault| malformed(&fault))
}

/// The same, as the server is told.
fn shown(hop: &Hop<'_>, caller: &Caller, request: &Message) -> Result<Client, UpstreamFault> {
    let mut client = client(request)?;
    client.hide(&unaskable(&hop.state.line(), caller, hop.server));
    Ok(client)
}

/// Sends a request on, and gives its answer as a modern client reads it.
async fn carry(way: &Passage<'_>, message: &Message) -> Result<Arrival, UpstreamFault> {
    let edited = way.edited(message)?;
    let hop = way.hop();
    let mut again = 0;
    loop {
        let link = link(&hop, way, message).await?;
        if let Some(level) = LogLevel::wanted(message) {
            // A server that does not take it says less than it could, no more.
            let _ = link.hear_from(&hop, level).await;
        }
        match dispatch(way, &hop, &link, &edited).await {
            // Nothing was sent.
            Ok(None) if again < LOST => again += 1,
            // SPEC: the request was not taken. Whoever says so may err all the same, so what changes something is left to the
            // client to ask again.
            Err(UpstreamFault::Lost) if again == 0 && !way.one.changes_state() => again += 1,
            Ok(Some(course)) => return go_on(way, message, course).await,
            Ok(None) => return Err(UpstreamFault::Lost),
            Err(fault) => return Err(fault),
        }
    }
}

/// Sends a request over a leg, under an id that no other has there. `None` where the session turns out to be over before.
async fn dispatch(
    way: &Passage<'_>,
    hop: &Hop<'_>,
    link: &Arc<Link>,
    edited: &Message,
) -> Result<Option<Course>, UpstreamFault> {
    let (began, deadline) = (Instant::now(), hop.server.deadline);
    let number = link.number();
    let request = exchange::one(translate::request(edited).map_err(|fault| malformed(&fault))?, &hop.limits)?;
    let mut edits: Vec<_> = request.id_member().into_iter().chain(request.progress_token_member()).collect();
    let mut edits: Vec<_> = edits.drain(..).map(|member| (member.span, number.to_string().into_bytes())).collect();
    let request = exchange::one(mcp::splice(request.bytes(), &mut edits), &hop.limits)?;
    if let Way::Pipe(pipe) = &link.leg.way
        && may_ask(edited.method())
    {
        // Before its turn: the answer that it waits for waits for that.
        pipe.has_roots(deadline).await;
    }
    let turn = link.turn(edited, deadline.saturating_sub(began.elapsed())).await?;
    let waited = began.elapsed();
    // The process may have ended meanwhile.
    if matches!(&link.leg.way, Way::Pipe(pipe) if !pipe.is_alive()) {
        return Ok(None);
    }
    let bound = bound(way.caller.principal.id(), hop.server, edited);
    let mut course = Course::new((hop, link), number, edited.method(), bound, turn);
    match &link.leg.way {
        Way::Pipe(pipe) => {
            let wait = way.wait().after(waited);
            course.begin(exchange::over_pipe(pipe, &request, pipe::Asker::Gateway, wait).await?)?;
        }
        Way::Http(_) => {
            listen::for_call(hop, link, edited).await;
            if link.is_ended() {
                course.is_over();
                return Ok(None);
            }
            let outbound = Outbound::new(Method::POST, headers(way, link), request.bytes().clone());
            let left = deadline.saturating_sub(waited);
            let sent = tokio::time::timeout(left, course.send(posted(hop, outbound))).await;
            // The next call finds a session that goes on, or opens one.
            course.settle().await;
            sent.map_err(|_| UpstreamFault::Timeout(deadline))??;
        }
    }
    Ok(Some(course))
}

/// Sends it, and waits for the head of the answer for as long as anybody wants it.
fn posted(hop: &Hop<'_>, outbound: Outbound) -> impl Future<Output = Result<Arrival, UpstreamFault>> + Send + use<> {
    let (state, server) = (Arc::clone(hop.state), Arc::clone(hop.server));
    let (injected, limit) = (hop.injected.clone(), hop.limits.body);
    async move { Ok(wire::send_to(&state, &server, &injected, None, outbound, limit, LONGEST).await?.0) }
}

/// Answers what a server asked in the course of an earlier request, and goes on with that.
async fn resume(way: &Passage<'_>, message: &Message, sealed: &str) -> Result<Arrival, UpstreamFault> {
    let (resting, given) = claim(way, message, sealed).await?;
    let Resting { mut course, question, method, permit, .. } = *resting;
    course.stage(audience::Stage::Running);
    // The client could not be told: it has no stream on which it would hear that.
    if course.has_taken_back(&question) {
        return go_on(way, message, course).await;
    }
    let hop = way.hop();
    let answer = translate::answer_to(&question, &method, given, course.link.leg.revision);
    let answer = exchange::one(answer, &hop.limits)?;
    let deadline = hop.server.deadline;
    let sending = hop.send(Some(&course.link.leg), &answer);
    let (arrival, _) =
        tokio::time::timeout(deadline, sending).await.map_err(|_| UpstreamFault::Timeout(deadline))??;
    // The answer has left: what allowed the question is used up.
    drop(permit);
    let status = arrival.status();
    if exchange::is_lost(Some(&course.link.leg), status) {
        lose(&way.line.state, &course.server, &course.link);
        return Err(UpstreamFault::Lost);
    }
    if !status.is_success() {
        return Err(UpstreamFault::Protocol(format!("HTTP {status} to the client's answer")));
    }
    go_on(way, message, course).await
}

/// Takes the call that a ticket is for, if it is for this one, when it is its turn again; with the client's answer to it.
async fn claim<'a>(
    way: &Passage<'_>,
    message: &'a Message,
    sealed: &str,
) -> Result<(Box<Resting>, &'a [u8]), UpstreamFault> {
    let edited = way.edited(message)?;
    let ticket = ticket_for(way, &edited, sealed).map_err(refusal)?;
    // Whoever forgot the answer, or gave none that the server could read, may send it yet.
    let given = translate::input_response(message, QUESTION).ok_or_else(|| refusal(TicketFault::Unanswered))?;
    let parked = &way.line.state.parked;
    let (link, asked) = parked.waiting(&ticket.number).ok_or_else(|| refusal(TicketFault::Used))?;
    check_answer(&asked, given).map_err(|fault| unfit(&fault))?;
    // Until then the call waits as before.
    let turn = link.turn_again(&edited, way.one.server.deadline).await?;
    let mut resting = parked.take(&ticket.number).ok_or_else(|| refusal(TicketFault::Used))?;
    let holds = way.line.state.line().may_hear(resting.holder(), resting.server()).is_some();
    let same = resting.fingerprint() == way.one.server.fingerprint;
    if !holds || !same {
        return Err(refusal(TicketFault::Used));
    }
    resting.course.turn = turn;
    Ok((resting, given))
}

/// What a client brings back, if it is for this call.
fn ticket_for(way: &Passage<'_>, edited: &Message, sealed: &str) -> Result<Ticket, TicketFault> {
    let state = &way.line.state;
    let ticket = state.parked.open(sealed)?;
    if ticket.bound != bound(way.caller.principal.id(), &way.one.server, edited) {
        return Err(TicketFault::Misplaced);
    }
    if ticket.until <= state.clock.ticks() {
        return Err(TicketFault::Expired);
    }
    Ok(ticket)
}

/// Reads on. An answer that is there, or that the client wants in one piece, is a JSON body; whatever lasts is a stream.
async fn go_on(way: &Passage<'_>, message: &Message, course: Course) -> Result<Arrival, UpstreamFault> {
    let streams = way.call.reads_streams();
    let mut talk = Talk::new(&way.line.state, Asker::of(way, message)?, course);
    let deadline = way.one.server.deadline;
    let first = tokio::time::timeout(deadline, talk.first(streams)).await;
    if let Some(text) = first.map_err(|_| UpstreamFault::Timeout(deadline))?? {
        let code = exchange::one(text.clone(), &way.hop().limits)?.error_code();
        // SPEC: 2026-07-28 answers an unknown method with 404.
        let unknown = code == Some(error::METHOD_NOT_FOUND);
        return Ok(if unknown { with_status(text, StatusCode::NOT_FOUND) } else { whole(text) });
    }
    Ok(Arrival::Stream { headers: Box::default(), source: Source::Talked(Box::new(talk)) })
}

/// The headers of the server's hop: those that mirror the body are the modern era's.
fn headers(way: &Passage<'_>, link: &Link) -> HeaderMap {
    let mut headers = wire::onward(way.call, &way.one.server.headers, way.line.snapshot.settings.traces);
    let stay: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with(header::PARAM_PREFIX)).cloned().collect();
    for name in stay.iter().chain([&header::METHOD, &header::NAME, &header::VERSION, &header::LAST_EVENT]) {
        headers.remove(name);
    }
    headers.extend(wire::own());
    exchange::address(&link.leg, &mut headers);
    headers
}

/// What a ticket is bound to: who asks whom for what. The answers of a retry are no part of it, nor is its metadata.
fn bound(principal: &PrincipalId, server: &Server, request: &Message) -> Digest {
    let mut params = request.params_member().and_then(|params| params.value().ok()).unwrap_or(Value::Null);
    if let Some(members) = params.as_object_mut() {
        for member in ["_meta", "inputResponses", "requestState", "task"] {
            members.remove(member);
        }
    }
    let principal = serde_json::to_value(principal).unwrap_or(Value::Null);
    let whole = Value::from(vec![principal, server.name.as_str().into(), request.method().into(), params]);
    Digest::of(whole.to_string().as_bytes())
}

/// Whether a session leads where a new one would: to the same server, by this bridge, which may have been taken away, or be
/// needed no more.
pub(crate) fn leads(now: &Server, fingerprint: u64) -> bool {
    now.fingerprint == fingerprint && Crossing::between(Era::Modern, now) == Crossing::Downward
}

/// The server as it is configured now, if it is still where it was.
///
/// SECURITY: one that was taken out or moved is told nothing more, least of all the credential of its successor.
fn current(line: &Line, server: &Server) -> Result<Arc<Server>, UpstreamFault> {
    let current = line.snapshot.servers.get(&server.name);
    let same = current.filter(|current| current.fingerprint == server.fingerprint);
    same.map(Arc::clone)
        .ok_or_else(|| UpstreamFault::Bridge("it was configured anew in the course of the call".to_owned()))
}

/// Asks a server whether it still knows a session, and forgets one that it does not.
async fn doubt(state: &Arc<State>, server: &Server, link: &Arc<Link>) {
    let line = state.line();
    let Ok(server) = current(&line, server) else { return };
    let Ok(injected) = crate::inject::credentials(state, &server) else { return };
    let hop = Hop { state, server: &server, injected: &injected, limits: line.snapshot.answer_limits() };
    if matches!(is_known(&hop, &link.leg).await, Err(UpstreamFault::Lost)) {
        lose(state, &server, link);
    }
}

/// Lets go of a session that its server does not know any more. One that was started anew may offer something else, and say
/// nothing of it.
fn lose(state: &Arc<State>, server: &Arc<Server>, link: &Arc<Link>) {
    state.legs.forget(link);
    state.line().look_for_missed(server, state.clock.ticks());
}

/// Says something to a server over a leg, in bounded time.
async fn tell(state: &Arc<State>, server: &Server, leg: &Leg, text: Bytes) -> Result<(), UpstreamFault> {
    let line = state.line();
    let server = &current(&line, server)?;
    let injected = crate::inject::credentials(state, server).map_err(|fault| UpstreamFault::Down(fault.to_string()))?;
    let limits = line.snapshot.answer_limits();
    let hop = Hop { state, server, injected: &injected, limits };
    let message = exchange::one(text, &limits)?;
    let sending = hop.send(Some(leg), &message);
    tokio::time::timeout(server.deadline, sending).await.map_err(|_| UpstreamFault::Timeout(server.deadline))?.map(drop)
}

fn with_status(body: Bytes, status: StatusCode) -> Arrival {
    match whole(body) {
        Arrival::Whole { headers, body, .. } => Arrival::Whole { status, headers, body },
        other => other,
    }
}

// The server is not asked: what is answered here is our own word.

fn unknown(why: String) -> UpstreamFault {
    let stop = Stop::refused(Stage::Forward, "unknown-method", error::METHOD_NOT_FOUND, why);
    UpstreamFault::Stopped(stop.status(StatusCode::NOT_FOUND))
}

fn refusal(fault: TicketFault) -> UpstreamFault {
    let why = fault.to_string();
    UpstreamFault::Stopped(Stop::refused(Stage::Forward, "request-state", error::INVALID_PARAMS, why))
}

/// An answer that the server could not read: its call waits on.
fn unfit(fault: &BridgeFault) -> UpstreamFault {
    let again = "the call still waits: send it again with the same `requestState` and a valid answer";
    let why = format!("`inputResponses.{QUESTION}`: {fault}; {again}");
    UpstreamFault::Stopped(Stop::refused(Stage::Forward, "input-response", error::INVALID_PARAMS, why))
}

/// Makes the ticket under which a call waits.
fn ticket(state: &State, bound: Digest) -> Option<(parked::Number, u64, String)> {
    let number = Parked::number()?;
    let life = u64::try_from(parked::LIFE.as_micros()).unwrap_or(u64::MAX);
    let until = state.clock.ticks().saturating_add(life);
    let sealed = state.parked.seal(&Ticket { number, until, bound })?;
    Some((number, until, sealed))
}
