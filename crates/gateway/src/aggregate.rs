//! `/mcp`: every server that the caller may see and that can be reached in its era, as one.
//!
//! Names carry their server (`server__tool`), and so do addresses of resources (`ui://server/…`, `durward://server/…`).
//! One server down costs its own entries, and the list says so.

pub(crate) mod answer;
pub(crate) mod listen;
mod merge;
pub(crate) mod narrow;
pub(crate) mod stream;
mod wishes;

use crate::{
    authenticate::Caller,
    bridge::{self, Crossing},
    call::{Call, Operation},
    catalog::Offer,
    inject::Injected,
    pipeline::Line,
    resolve::{self, Many, One, Target},
    server::Server,
    session::Session,
    stop::{Stage, Stop},
    upstream::Arrival,
};
use futures_util::future::join_all;
use http::HeaderValue;
use mcp::{Era, Kind, Message};
use std::sync::Arc;
use vocab::{Action, ServerName};

/// What a call on `/mcp` is about.
pub(crate) async fn resolve(
    line: &Line,
    caller: &Caller,
    call: &Call,
    session: Option<Arc<Session>>,
) -> Result<Target, Stop> {
    let Reached { members, unknown, apart } = members(line, caller, call, session.as_deref()).await?;
    let unavailable = unknown.iter().map(|server| not_known(server)).collect();
    let told = apart.iter().map(|(name, stop)| (name.clone(), stop.message.clone())).collect();
    let method = Box::from(call.method());
    let many = |members, session| Target::Many(Many { members, session, method, unavailable, apart: told });
    if let Some((server, after)) = resumed(call, &members) {
        let mut one = line.on_server(&server, session, caller, call).await?;
        one.after = Some(after);
        return Ok(Target::One(one));
    }
    if let Some(session) = &session
        && let Some(one) = line.resumed(caller, call, session, &members)?
    {
        return Ok(Target::One(Box::new(one)));
    }
    let Operation::Message(message) = &call.operation else { return Ok(many(members, session)) };
    match message.kind() {
        Kind::Response => {
            let server = session.as_ref().zip(message.id()).and_then(|(session, id)| session.asker(id));
            let server = server.and_then(|name| members.iter().find(|server| server.name == name).cloned());
            let Some(server) = server else { return Err(resolve::no_such_question()) };
            line.one_answering(&server, session, message).map(Target::One)
        }
        Kind::Notification if mcp::method::is_open(message.method()) => {
            match session.as_deref().and_then(|session| concerned(line, caller, session, &members, message)).cloned() {
                Some(server) => line.on_server(&server, session, caller, call).await.map(Target::One),
                None => Ok(many(members, session)),
            }
        }
        Kind::Request if mcp::method::is_open(message.method()) => Ok(many(members, session)),
        // SPEC: the modern era has no list of tasks.
        Kind::Request if message.method() == "tasks/list" && call.era == Era::Legacy => Ok(many(members, session)),
        Kind::Request | Kind::Notification => {
            let one = on_one(line, caller, call, message, session, (&members, &unknown, &apart)).await?;
            Ok(Target::One(one))
        }
    }
}

/// The one server that a client tells something of, where it is no news for all of them: of a request that it takes back, or of
/// what the server asked.
fn concerned<'s>(
    line: &Line,
    caller: &Caller,
    session: &Session,
    members: &'s [Arc<Server>],
    message: &Message,
) -> Option<&'s Arc<Server>> {
    let raw = |name| message.param(&[name]).map(|member| String::from_utf8_lossy(member.raw));
    match message.method() {
        "notifications/cancelled" => {
            let server = session.server_of(&raw("requestId")?)?;
            members.iter().find(|member| member.name == server)
        }
        "notifications/progress" => {
            let (server, _, asked) = session.progressing(&raw("progressToken")?)?;
            members.iter().find(|member| member.name == server && line.may_still_ask(caller, member, &asked))
        }
        "notifications/tasks/status" => {
            let task = message.param(&["taskId"])?;
            let task = task.text()?;
            members.iter().find(|member| line.is_told_of(caller, member, session, &task))
        }
        _ => None,
    }
}

/// What servers a caller may see.
struct Reached {
    /// Those that it reaches in its era.
    members: Vec<Arc<Server>>,
    /// Those of which nobody knows their era yet.
    unknown: Vec<Arc<Server>>,
    /// Those to which nothing leads from its era, with what whoever names one is told.
    apart: Apart,
}

type Apart = Vec<(ServerName, Stop)>;

async fn members(line: &Line, caller: &Caller, call: &Call, session: Option<&Session>) -> Result<Reached, Stop> {
    let reachable: Vec<_> = line.snapshot.reachable(&caller.subject).cloned().collect();
    let asked: Vec<_> = reachable.iter().filter(|server| server.is_unknown(call.era)).cloned().collect();
    if !asked.is_empty() {
        Box::pin(join_all(asked.iter().map(|server| line.glance(server)))).await;
    }
    let mut members = Vec::with_capacity(reachable.len());
    let (mut unknown, mut apart) = (Vec::new(), Vec::new());
    for server in reachable {
        if bridge::is_out_of_reach(call.era, &server) {
            apart.push((server.name.clone(), resolve::other_era(&server, call, session)));
        } else if server.is_unknown(call.era) {
            unknown.push(server);
        } else {
            members.push(server);
        }
    }
    // Where every server speaks the other era, saying so lets the client change over.
    match apart.pop() {
        Some((_, stop)) if members.is_empty() && unknown.is_empty() => Err(stop),
        last => {
            apart.extend(last);
            Ok(Reached { members, unknown, apart })
        }
    }
}

/// What is said of a name that belongs to a server to which nothing leads: only that, whatever the server has.
fn apart_of(action: Action, shown: &str, apart: &Apart) -> Option<Stop> {
    let server = match action {
        Action::ToolExecute | Action::PromptGet => shown.split_once(mcp::name::SEPARATOR)?.0,
        Action::CompletionComplete | Action::ResourceRead | Action::ResourceSubscribe => {
            match mcp::address::split(shown) {
                Some((server, _)) => server,
                None => shown.split_once(mcp::name::SEPARATOR)?.0,
            }
        }
        Action::TaskManage | Action::MethodCall | Action::ServerSample | Action::ServerElicit | Action::ServerRoots => {
            return None;
        }
    };
    apart.iter().find(|(name, _)| name.as_str() == server).map(|(_, stop)| stop.clone())
}

/// Why a server is left out that nothing is known of.
fn not_known(server: &Server) -> (ServerName, String) {
    let why = match *server.state.fault.load() {
        Some(_) => "cannot be looked at",
        None => "has not said yet what it offers; a notification tells when it has",
    };
    (server.name.clone(), format!("server `{}` {why}", server.name))
}

/// The stream of one server that broke off, and the last event of it that the client has: ids carry their server.
fn resumed(call: &Call, members: &[Arc<Server>]) -> Option<(Arc<Server>, HeaderValue)> {
    let last = call.last_event()?.as_bytes();
    let slash = last.iter().position(|byte| *byte == b'/')?;
    let (name, id) = (last.get(..slash)?, last.get(slash + 1..)?);
    let server = members.iter().find(|server| server.name.as_str().as_bytes() == name)?;
    Some((Arc::clone(server), HeaderValue::from_bytes(id).ok()?))
}

/// A named thing: finds its server, and what the name is there.
async fn on_one(
    line: &Line,
    caller: &Caller,
    call: &Call,
    message: &Message,
    session: Option<Arc<Session>>,
    (members, unknown, apart): (&[Arc<Server>], &[Arc<Server>], &Apart),
) -> Result<Box<One>, Stop> {
    let action = resolve::client_action(message);
    let shown = resolve::name_of(action, message)?;
    let found = match named_as(action, message) {
        Some(Named::Joined(kind)) => match plain(members, &shown).or_else(|| plain(unknown, &shown)) {
            None => shortened(line, call.era, members, kind, &shown).await,
            plain => plain,
        },
        Some(Named::Addressed) => by_address(members, &shown).or_else(|| by_address(unknown, &shown)),
        None if action == Action::TaskManage => {
            let server = line.server_of_task(caller, message)?;
            let carries =
                |member: &&Arc<Server>| member.name == server && Crossing::between(call.era, member) == Crossing::None;
            // One that has left is answered for like a task that never was.
            let name = members.iter().find(carries).map(|member| (Arc::clone(member), shown.clone()));
            Some(name.ok_or_else(|| line.gone_task(message))?)
        }
        None => None,
    };
    let Some((server, name)) = found else {
        let apart = apart_of(action, &shown, apart);
        return Err(apart.unwrap_or_else(|| resolve::missing(action, &shown, call.era, "unknown")));
    };
    if server.is_unknown(call.era) {
        // As at its own door: whoever names something of it waits for the look, and reads it where it is down. What is
        // hidden is waited for as well.
        let _ = line.catalog(&server).await;
    }
    // A hidden thing answers under the name the caller used, as a missing one does.
    let one = line.named(&server, session, caller, call, action, &name).await;
    let mut one = one.map_err(|stop| {
        // What is said of a task that is nobody's names it as the caller does already.
        let is_unknown = stop.reason == "unknown" && action != Action::TaskManage;
        let gone = is_unknown || stop.reason == "hidden";
        if gone {
            resolve::missing(action, &shown, call.era, stop.reason).decided_as(&stop).about(stop.about.clone())
        } else {
            stop
        }
    })?;
    if name != shown {
        one.name_header = Some(mcp::name_value(&name));
    }
    one.shown = Some(shown.into_boxed_str());
    Ok(one)
}

/// How a thing is named in the aggregate.
enum Named {
    /// As `server__name`: something of this kind.
    Joined(Action),
    /// By an address that carries its server.
    Addressed,
}

fn named_as(action: Action, message: &Message) -> Option<Named> {
    match action {
        Action::ToolExecute | Action::PromptGet => Some(Named::Joined(action)),
        Action::CompletionComplete => match resolve::reference(message) {
            Some((Action::PromptGet, _)) => Some(Named::Joined(Action::PromptGet)),
            _ => Some(Named::Addressed),
        },
        Action::ResourceRead | Action::ResourceSubscribe => Some(Named::Addressed),
        Action::TaskManage | Action::MethodCall | Action::ServerSample | Action::ServerElicit | Action::ServerRoots => {
            None
        }
    }
}

/// `server__tool`, where it is plain.
fn plain(servers: &[Arc<Server>], shown: &str) -> Option<(Arc<Server>, String)> {
    let (server, name) = mcp::name::split(shown)?;
    let member = servers.iter().find(|member| member.name.as_str() == server)?;
    (mcp::name::join(server, name) == shown).then(|| (Arc::clone(member), name.to_owned()))
}

/// The same where it had to be shortened: looked up.
async fn shortened(
    line: &Line,
    era: Era,
    members: &[Arc<Server>],
    kind: Action,
    shown: &str,
) -> Option<(Arc<Server>, String)> {
    for (member, offer) in glances(line, era, members.iter()).await {
        let mut names: Box<dyn Iterator<Item = &str> + Send> = match kind {
            Action::ToolExecute => Box::new(offer.tools.keys().map(AsRef::as_ref)),
            _ => Box::new(offer.prompts.keys().map(AsRef::as_ref)),
        };
        if let Some(name) = names.find(|name| mcp::name::join(member.name.as_str(), name) == shown) {
            return Some((Arc::clone(member), name.to_owned()));
        }
    }
    None
}

/// The server that an address carries, and its own address.
///
/// SECURITY: an address that carries none is nobody's here. Were it to find its server by what servers list, one could
/// answer for what another lists, as soon as that one is down or lists it no more.
fn by_address(members: &[Arc<Server>], shown: &str) -> Option<(Arc<Server>, String)> {
    let (server, address) = mcp::address::split(shown)?;
    let member = members.iter().find(|member| member.name.as_str() == server)?;
    Some((Arc::clone(member), address.into_owned()))
}

/// What servers offer to clients of `era`, as far as that is known soon. They are waited for together.
pub(crate) async fn glances<'s>(
    line: &Line,
    era: Era,
    servers: impl Iterator<Item = &'s Arc<Server>>,
) -> Vec<(&'s Arc<Server>, Arc<Offer>)> {
    let looks = servers.map(|server| async move {
        let catalog = line.glance(server).await?;
        Some((server, Arc::clone(catalog.spoken(bridge::spoken(era, server)))))
    });
    join_all(looks).await.into_iter().flatten().collect()
}

/// Answers for a set of servers.
pub(crate) async fn forward(
    line: &Line,
    caller: &Caller,
    many: &Many,
    call: &Call,
    injected: &[Injected],
) -> Result<(Arrival, Option<Arc<Session>>), Stop> {
    let hand = answer::Hand { line, caller, many, call, injected };
    match &call.operation {
        Operation::Listen => Ok((listen::legacy(&hand)?, None)),
        Operation::End => Ok((hand.end().await, None)),
        Operation::Unread => Err(unknown("unread", call.era)),
        Operation::Message(message) => match (message.kind(), message.method()) {
            // SPEC: 2026-07-28 has neither sessions nor what belongs to them.
            (Kind::Request, method @ ("initialize" | "ping" | "logging/setLevel")) if call.era == Era::Modern => {
                Err(unknown(method, call.era))
            }
            (Kind::Request, "initialize") => hand.initialize(message).await,
            (Kind::Request, "server/discover") => Ok((hand.discover(message).await, None)),
            (Kind::Request, "ping") => Ok((answer::result_of(message, "{}"), None)),
            (Kind::Request, "logging/setLevel") => Ok((hand.set_level(message).await, None)),
            (Kind::Request, "tasks/list") => Ok((hand.tasks(message).await?, None)),
            (Kind::Request, "subscriptions/listen") => Ok((merge::modern(&hand, message)?, None)),
            (Kind::Request, method) => match mcp::method::list_kind(method) {
                Some(kind) => Ok((hand.list(message, kind).await?, None)),
                None => Err(unknown(method, call.era)),
            },
            (Kind::Notification, method) => Ok((hand.notify(message, method).await, None)),
            (Kind::Response, _) => Err(resolve::no_such_question()),
        },
    }
}

fn unknown(method: &str, era: Era) -> Stop {
    resolve::missing(Action::MethodCall, method, era, "unknown-method").at(Stage::Forward)
}
