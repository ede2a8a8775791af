//! A legacy client before a modern server. The session is ours: the server knows of none, every request carries what
//! the client said of itself.

pub(crate) mod followed;
pub(crate) mod listen;
pub(crate) mod rights;
mod round;
mod rounds;
mod side;

pub(crate) use rounds::Rounds;
pub(crate) use side::Side;

use crate::{
    aggregate::answer::{result_of, whole},
    authenticate::Caller,
    bridge::{malformed, unaskable},
    call::{Operation, header},
    forward::{Judged, Passage, Sent},
    manner,
    pipeline::Line,
    server::Server,
    session::Session,
    stop::{Stage, Stop},
    upstream::{
        Arrival, Source, UpstreamFault,
        exchange::{self, Hop},
        http as wire,
    },
};
use followed::Asked;
use http::{HeaderMap, HeaderValue, StatusCode};
use mcp::{
    Era, Kind, ListKind, Message, Revision,
    bridge::{
        LogLevel,
        upward::{self as translate, Introduction},
    },
};
use side::Untold;
use std::sync::Arc;

/// Carries one call over.
pub(crate) async fn send(way: &Passage<'_>) -> Result<Sent, UpstreamFault> {
    match (&way.call.operation, &way.one.session) {
        (Operation::Message(message), None) => introduce(way, message).await,
        (Operation::Message(message), Some(session)) => {
            let arrival = match message.kind() {
                Kind::Response => answered(way, session, &way.edited(message)?)?,
                Kind::Notification => heed(session, message),
                Kind::Request => request(way, session, message).await?,
            };
            Ok((arrival, None))
        }
        (Operation::Listen, Some(session)) => {
            let arrival = manner::listen(session, way.call);
            listen::begin(&way.line.state, &way.one.server.name, session);
            Ok((arrival, None))
        }
        (Operation::End, Some(session)) => {
            way.line.state.sessions.close(session);
            Ok((Arrival::bare(StatusCode::OK), None))
        }
        (Operation::Listen | Operation::End | Operation::Unread, _) => {
            Err(UpstreamFault::Protocol("there is no session".to_owned()))
        }
    }
}

/// How the client of a session introduced itself, as a server is told now, and the log level it asked for since.
pub(crate) fn introduction(
    line: &Line,
    caller: &Caller,
    server: &Server,
    session: &Session,
) -> Result<Introduction, UpstreamFault> {
    let mut introduction = Introduction::of(&session.introduction).map_err(|fault| malformed(&fault))?;
    introduction.hide(&unaskable(line, caller, server));
    if let Some(level) = session.log_level() {
        introduction.set_level(level);
    }
    Ok(introduction)
}

/// Every page of a list of a modern server as the session's revision has it, for the aggregate.
pub(crate) async fn pages(
    hop: &Hop<'_>,
    line: &Line,
    caller: &Caller,
    session: &Session,
    kind: ListKind,
) -> Result<Vec<Message>, UpstreamFault> {
    let meta = introduction(line, caller, hop.server, session)?.metadata();
    let leg = line.state.modern_leg(hop, caller.principal.id()).await?;
    let pages = hop.pages(leg.as_deref(), kind, Era::Modern, Some(&String::from_utf8_lossy(&meta))).await?;
    let told = |page: Message| exchange::one(translate::answer(&page, kind.method(), session.revision())?, &hop.limits);
    pages.into_iter().map(told).collect()
}

/// `initialize`: answered from what the server says of itself.
async fn introduce(way: &Passage<'_>, message: &Message) -> Result<Sent, UpstreamFault> {
    way.line.room_for_session(way.caller, message)?;
    let hop = way.hop();
    let mut introduction = Introduction::of(message).map_err(|fault| malformed(&fault))?;
    introduction.hide(&unaskable(way.line, way.caller, &way.one.server));
    let question = exchange::one(translate::discover("0", &introduction), &hop.limits)?;
    let leg = way.line.state.modern_leg(&hop, way.caller.principal.id()).await?;
    let answer = hop.ask(leg.as_deref(), &question).await?;
    let id = message.id().unwrap_or("null");
    let text = translate::initialize_result(&answer, &introduction, id)?;
    let session = way.line.open_session(way.caller, way.call, message, introduction.revision())?;
    Ok((whole(text), Some(session)))
}

/// The client's answer to a question that a round waits for.
fn answered(way: &Passage<'_>, session: &Session, message: &Message) -> Result<Arrival, UpstreamFault> {
    if session.upward.deliver(&way.one.server.name, message) {
        Ok(accepted())
    } else {
        Err(UpstreamFault::Stopped(Stop::answered_late()))
    }
}

/// What the client says without asking. A modern server has no ear for most of it.
fn heed(session: &Session, message: &Message) -> Arrival {
    if message.method() == "notifications/cancelled"
        && let Some(id) = message.param(&["requestId"])
    {
        session.upward.cancel(&String::from_utf8_lossy(id.raw));
    }
    accepted()
}

fn accepted() -> Arrival {
    Arrival::bare(StatusCode::ACCEPTED)
}

async fn request(way: &Passage<'_>, session: &Arc<Session>, message: &Message) -> Result<Arrival, UpstreamFault> {
    match message.method() {
        "ping" => Ok(result_of(message, "{}")),
        "logging/setLevel" => {
            let Some(level) = LogLevel::named(message) else {
                let why = "`level` is no log level";
                let stop = Stop::refused(Stage::Forward, "arguments", mcp::error::INVALID_PARAMS, why);
                return Err(UpstreamFault::Stopped(stop));
            };
            session.set_log_level(level);
            Ok(result_of(message, "{}"))
        }
        "resources/subscribe" => subscribe(way, session, message).await,
        "resources/unsubscribe" => {
            session.upward.unfollow(&way.one.server.name, &way.one.resource.id.name);
            Ok(result_of(message, "{}"))
        }
        _ => carry(way, session, message).await,
    }
}

/// Follows a resource. A client that listens is answered when the server has said that it will tell, so that no change
/// between goes by unheard; to one that does not nothing could be told.
async fn subscribe(way: &Passage<'_>, session: &Arc<Session>, message: &Message) -> Result<Arrival, UpstreamFault> {
    let (side, server) = (&session.upward, &way.one.server);
    // By the server's own address, which is not that of the aggregate.
    let uri = &way.one.resource.id.name;
    let asked = Asked::of(message, judged(way)?);
    let Some(taken) = side.follow(&server.name, uri, asked) else {
        let why = "too many or too long addresses are subscribed to in this session, or too much was said with them";
        let stop = Stop::refused(Stage::Forward, "subscriptions", mcp::error::INVALID_PARAMS, why);
        return Err(UpstreamFault::Stopped(stop));
    };
    if !session.is_heard() {
        return Ok(result_of(message, "{}"));
    }
    let told = tokio::select! {
        biased;
        // First: what was said to an earlier follower may be known already.
        never = listen::keep(&way.line.state, session, &server.name) => match never {},
        told = tokio::time::timeout(server.deadline, side.told(&server.name, uri, taken.since)) => Some(told),
        () = listen::until_given_up(&way.line.state, session, &server.name, uri) => None,
    };
    if let Some(Ok(Ok(()))) = told {
        return Ok(result_of(message, "{}"));
    }
    // Asked while it is known still what was said with it.
    let given_up = told.is_none().then(|| given_up(way, session, uri));
    side.take_back(&server.name, uri, &taken);
    if let Some(stop) = given_up {
        return Err(UpstreamFault::Stopped(stop));
    }
    match told {
        // A server that does not answer has refused nothing.
        Some(Ok(Err(Untold::Fault(fault)))) => Err(fault),
        Some(Ok(Err(Untold::Refused(why)))) => {
            Ok(refusal(message, &format!("server `{}` does not take the subscription: {why}", server.name)))
        }
        Some(Ok(Ok(())) | Err(_)) | None => Err(UpstreamFault::Timeout(server.deadline)),
    }
}

/// Why nobody waits for a subscription any more.
fn given_up(way: &Passage<'_>, session: &Session, uri: &str) -> Stop {
    let line = way.line.state.line();
    let name = &way.one.server.name;
    let asked = session.upward.asked(name, uri);
    let judged = match line.may_hear(&session.holder(), name) {
        None => Some(Err(Vec::new())),
        Some((caller, server)) => asked.map(|asked| asked.judge(&line, &caller, server, uri)),
    };
    let Some(Err(rules)) = judged else {
        let why = "the subscription was taken back";
        return Stop::refused(Stage::Forward, "taken-back", mcp::error::INVALID_PARAMS, why);
    };
    let why = "the right to follow this resource was withdrawn";
    Stop::refused(Stage::Authorize, "denied", mcp::error::REFUSED_POLICY, why).decided(&line.snapshot.policies, rules)
}

/// Sends a request on, and gives its answer as the client's revision has it.
async fn carry(way: &Passage<'_>, session: &Arc<Session>, message: &Message) -> Result<Arrival, UpstreamFault> {
    let limits = way.hop().limits;
    let introduction = introduction(way.line, way.caller, &way.one.server, session)?;
    let request = translate::request(&way.edited(message)?, &introduction).map_err(|fault| malformed(&fault))?;
    let request = exchange::one(request, &limits)?;
    let headers = headers(way, &request);
    if session.is_heard() && !session.is_followed(&way.one.server.name) {
        // It was not there when the client began to listen.
        listen::begin(&way.line.state, &way.one.server.name, session);
    }
    let mut rounds = Rounds::new(way, session, introduction, request, headers, Arc::clone(judged(way)?));
    let first = rounds.first().await?;
    Ok(match first {
        Some(body) => whole(body),
        None => Arrival::Stream { headers: Box::default(), source: Source::Bridged(Box::new(rounds)) },
    })
}

/// What policy was asked.
fn judged<'a>(way: &'a Passage<'_>) -> Result<&'a Arc<Judged>, UpstreamFault> {
    way.judged.as_ref().ok_or_else(|| UpstreamFault::Protocol("nothing was judged".to_owned()))
}

/// The headers of the server's hop: those that mirror the body are made anew.
fn headers(way: &Passage<'_>, request: &Message) -> HeaderMap {
    let traces = way.line.snapshot.settings.traces;
    let mut headers = wire::onward(way.call, &way.one.server.headers, traces);
    headers.remove(&header::LAST_EVENT);
    headers.extend(wire::own());
    headers.insert(header::VERSION.clone(), HeaderValue::from_static(Revision::V2026_07_28.as_str()));
    if let Ok(method) = HeaderValue::from_str(request.method()) {
        headers.insert(header::METHOD.clone(), method);
    }
    if let Some(name) = request.subject() {
        headers.insert(header::NAME.clone(), mcp::name_value(&name));
    }
    let bindings = way.one.tool.as_ref().map(|tool| tool.bindings()).unwrap_or_default();
    if !bindings.is_empty()
        && let Some(Ok(arguments)) = request.arguments().map(|arguments| arguments.value())
    {
        headers.extend(mcp::param::headers(bindings, &arguments));
    }
    headers
}

fn refusal(message: &Message, why: &str) -> Arrival {
    whole(mcp::error_text(message.id(), mcp::error::INVALID_PARAMS, why, None))
}
