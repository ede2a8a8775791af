//! What servers say unasked, as one stream.

use super::{
    answer::Hand,
    stream::{none_of, stream_of},
    wishes::Wishes,
};
use crate::{
    authenticate::Caller,
    bridge::{self, Crossing},
    call::Route,
    catalog::{Changes, view::Sums},
    forward,
    pipeline::Line,
    release::list_action,
    server::{Carriage, Server},
    session::{Ahead, Leg, Session},
    state::State,
    stop::{Stage, Stop},
    task,
    upstream::{
        Arrival, Source, UpstreamFault,
        exchange::{self, Hop},
        resume::Resumed,
    },
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use http::HeaderMap;
use identity::Principal;
use mcp::{Era, Kind, ListKind, Message, error};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use vocab::ServerName;

/// Events of servers that wait to be merged.
const BACKLOG: usize = 256;
/// How long the servers of a merged stream are waited for before it begins.
const READY: Duration = Duration::from_secs(1);
/// How long to wait before a stream that broke off is opened again.
const AGAIN: Duration = Duration::from_secs(2);
/// How often it is looked whether a stream still has its reason: it may say nothing for long.
const LOOK: Duration = Duration::from_millis(500);

/// The GET stream of an aggregate session: one stream from every leg.
pub(crate) fn legacy(hand: &Hand<'_>) -> Result<Arrival, Stop> {
    let Some(session) = &hand.many.session else {
        return Err(Stop::failed(Stage::Forward, "session", error::INTERNAL, "no session to listen in"));
    };
    let arrival = forward::listen(session, hand.call);
    for server in &hand.many.members {
        // A process tells the session by itself; a web server has to be asked for its stream.
        if Crossing::between(Era::Legacy, server) == Crossing::Upward {
            bridge::upward::listen::begin(&hand.line.state, &server.name, session);
        } else if server.carriage() == Carriage::Requests {
            begin(&hand.line.state, &server.name, session);
        }
    }
    Ok(arrival)
}

/// Follows the stream of one leg, unless somebody does already.
pub(crate) fn begin(state: &Arc<State>, server: &ServerName, session: &Arc<Session>) {
    tokio::spawn(follow(Arc::clone(state), server.clone(), Arc::clone(session)));
}

/// Follows the stream of one leg until the session ends or nobody listens.
async fn follow(state: Arc<State>, server: ServerName, session: Arc<Session>) {
    let mut end = session.end();
    let following = async {
        // A server that forgets each session at once has no listening stream.
        let mut was_lost = false;
        while session.is_heard() {
            let Some(_following) = session.follow(&server) else { return };
            let now = state.line();
            let Some((_, server)) = now.may_hear(&session.holder(), &server) else {
                // Should it be heard again, it is reached over a new leg, whose stream is followed anew.
                drop(session.drop_leg(&server));
                return;
            };
            let heard = || session.is_heard() && is_current(&state.line(), &session.holder(), server);
            tokio::select! {
                followed = follow_once(&now, server, &session) => match followed {
                    // After a lost session another is opened: nobody else may ask for one for long.
                    Err(UpstreamFault::Lost) if was_lost => return,
                    Err(UpstreamFault::Lost) => was_lost = true,
                    Ok(Followed::Over) => was_lost = false,
                    Ok(Followed::Elsewhere) => continue,
                    Ok(Followed::Absent) => return,
                    Err(fault) => {
                        tracing::debug!(server = %server.name, %fault, "a stream of the aggregate broke off");
                    }
                },
                () = until_not(heard) => continue,
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::select! {
        () = following => {}
        _ = end.wait_for(|ended| *ended) => {}
    }
}

/// Whether whoever listens may hear of this very server.
fn is_current(line: &Line, holder: &Principal, server: &Server) -> bool {
    line.may_hear(holder, &server.name).is_some_and(|(_, now)| now.fingerprint == server.fingerprint)
}

/// Waits until something is no longer so.
pub(crate) async fn until_not(so: impl Fn() -> bool) {
    let mut look = tokio::time::interval(LOOK);
    while so() {
        look.tick().await;
    }
}

/// How it went with one stream.
enum Followed {
    /// It came to its end.
    Over,
    /// The session has another with this server by now.
    Elsewhere,
    /// The server has no such stream.
    Absent,
}

async fn follow_once(line: &Line, server: &Arc<Server>, session: &Arc<Session>) -> Result<Followed, UpstreamFault> {
    let injected =
        crate::inject::credentials(&line.state, server).map_err(|fault| UpstreamFault::Down(fault.to_string()))?;
    let hop = Hop { state: &line.state, server, injected: &injected, limits: line.snapshot.answer_limits() };
    let leg: Arc<Leg> = match hop.leg_of(session) {
        Some(leg) => leg,
        None => forward::open_leg(&hop, session).await?,
    };
    let stream = match session.take_stream(&server.name) {
        Some(Ahead::Open(stream)) => Some(*stream),
        Some(Ahead::Absent) => None,
        None => match stream_of(&hop, &leg).await {
            Err(UpstreamFault::Lost) => {
                session.lose_leg(&server.name, &leg);
                return Err(UpstreamFault::Lost);
            }
            stream => stream?,
        },
    };
    let Some(source) = stream else { return Ok(Followed::Absent) };
    let source = Resumed::around(&Arc::downgrade(&line.state), server, &leg, source);
    tokio::select! {
        told = tell_all(&hop, &leg, session, source) => told.map(|()| Followed::Over),
        // The rest of a stream may be waited for while the server already speaks on that of another session.
        () = until_not(|| session.has_leg(&server.name, &leg)) => Ok(Followed::Elsewhere),
    }
}

/// Passes on what a server says, to the end of its stream.
async fn tell_all(hop: &Hop<'_>, leg: &Leg, session: &Arc<Session>, mut source: Source) -> Result<(), UpstreamFault> {
    let name = &hop.server.name;
    while let Some((_, event)) = source.next().await? {
        let Some(data) = event.message() else { continue };
        let line = hop.state.line();
        let may_hear = line.may_hear(&session.holder(), name).is_some();
        if may_hear && session.tell(name, data) {
            continue;
        }
        let message = exchange::one(data.clone(), &hop.limits)?;
        // SECURITY: one that was taken out or moved is told nothing more.
        let is_there = line.snapshot.servers.get(name).is_some_and(|now| now.fingerprint == hop.server.fingerprint);
        if is_there && message.kind() == Kind::Request {
            hop.decline(Some(leg), &message, "nobody is listening who could answer").await?;
        }
        return Ok(());
    }
    Ok(())
}

/// A server's lists are others than they were.
#[derive(Clone)]
pub(crate) struct News {
    pub(crate) server: ServerName,
    /// Lists were without it until now.
    pub(crate) back: bool,
}

/// Tells whoever listens that the lists of a server changed. Whom it concerns, and whether, each stream finds out.
pub(crate) fn announce(state: &State, server: &Server, back: bool, changes: Changes) {
    if changes.any() {
        let _ = state.news.send(News { server: server.name.clone(), back });
    }
}

/// How long a server is asked what it shows a session.
const SHOWN: Duration = Duration::from_secs(15);

/// What a server shows in a session of the caller's, of the lists that it says changed.
pub(crate) async fn shown(
    line: &Line,
    subject: &policy::Subject,
    server: &Arc<Server>,
    session: &Arc<Session>,
    changes: Changes,
) -> Result<Sums, UpstreamFault> {
    let injected =
        crate::inject::credentials(&line.state, server).map_err(|fault| UpstreamFault::Down(fault.to_string()))?;
    let hop = Hop { state: &line.state, server, injected: &injected, limits: line.snapshot.answer_limits() };
    let leg = hop.leg_of(session).ok_or(UpstreamFault::Lost)?;
    let _in_flight = server.state.enter(server.calls_in_flight).ok_or(UpstreamFault::Busy)?;
    let reading = async {
        let mut sums = Sums::default();
        for kind in ListKind::ALL {
            if !changes.has(kind) {
                continue;
            }
            for page in hop.pages(Some(&leg), kind, Era::Legacy, None).await? {
                let entries =
                    mcp::list::entries(&page, kind).map_err(|fault| UpstreamFault::Protocol(fault.to_string()))?;
                for entry in entries {
                    let resource = server.resource(&entry.name);
                    if line.snapshot.policies.visible(subject, list_action(kind), &resource) {
                        sums.of(kind).add(&vocab::Digest::of(entry.raw));
                    }
                }
            }
        }
        Ok(sums)
    };
    tokio::time::timeout(SHOWN, reading).await.map_err(|_| UpstreamFault::Timeout(SHOWN))?
}

/// `subscriptions/listen`: our own acknowledgement, then what every server says under it.
pub(crate) fn modern(hand: &Hand<'_>, request: &Message) -> Result<Arrival, Stop> {
    let Some(id) = request.id() else {
        return Err(Stop::refused(
            Stage::Forward,
            "no-id",
            error::INVALID_REQUEST,
            "`subscriptions/listen` needs an id",
        ));
    };
    let filter = request.param(&["notifications"]).and_then(|member| member.value().ok()).unwrap_or_else(|| json!({}));
    let (sender, events) = mpsc::channel(BACKLOG);
    let mut wishes = Wishes::of(hand, &filter);
    let id = id.to_owned();
    let (begin, begun) = watch::channel(false);
    let merged = Merged::default();
    let mut waiting = FuturesUnordered::new();
    for server in &hand.many.members {
        let line = hand.line.clone();
        let caller = hand.caller.clone();
        let (server, request, sender) = (Arc::clone(server), request.clone(), sender.clone());
        let (ready, is_ready) = oneshot::channel();
        let name = server.name.clone();
        waiting.push(async move { (name, is_ready.await) });
        let mut start = Start { _merged: merged.add(&server.name), ready: Some(ready), begun: begun.clone() };
        tokio::spawn(async move {
            tokio::select! {
                () = keep_merging(&line, &caller, &server.name, &request, &sender, &mut start) => {}
                () = sender.closed() => {}
            }
        });
    }
    let latecomers =
        Latecomers { line: hand.line.clone(), caller: hand.caller.clone(), request: request.clone(), merged, begun };
    let (news, hearing) = (hand.line.state.news.subscribe(), sender.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = latecomers.welcome(news, &hearing) => {}
            () = hearing.closed() => {}
        }
    });
    let acknowledging = sender.clone();
    tokio::spawn(async move {
        // Who hears the acknowledgement counts on hearing everything after it. One slow server does not hold it up.
        let hearing = async {
            while let Some((server, said)) = waiting.next().await {
                if let Ok(acknowledged) = said {
                    wishes.narrow(&server, &acknowledged);
                }
            }
        };
        let _ = tokio::time::timeout(READY, hearing).await;
        let acknowledged = crate::upstream::event(wishes.acknowledgement(&id).into());
        let _ = acknowledging.send((None, acknowledged)).await;
        begin.send_replace(true);
    });
    // The stream lasts as long as the client wants, also when no server has anything to say.
    Ok(Arrival::Stream { headers: HeaderMap::new(), source: Source::Made { events, _open: sender } })
}

/// A merged stream, as servers that come concern it.
struct Latecomers {
    line: Line,
    caller: Caller,
    request: Message,
    merged: Merged,
    begun: watch::Receiver<bool>,
}

impl Latecomers {
    /// Lets servers join that were not known when the stream began.
    async fn welcome(mut self, mut news: broadcast::Receiver<News>, sender: &Sender) {
        let _ = self.begun.wait_for(|begun| *begun).await;
        loop {
            let News { server, back: _ } = match news.recv().await {
                Ok(news) => news,
                Err(broadcast::error::RecvError::Lagged(_)) => continue,
                Err(broadcast::error::RecvError::Closed) => return,
            };
            let line = self.line.state.line();
            let Some((caller, known)) = line.may_hear(&self.caller.principal, &server) else { continue };
            if bridge::is_out_of_reach(Era::Modern, known) {
                continue;
            }
            if let Some(joined) = self.merged.add(&server) {
                let (line, sender, request) = (self.line.clone(), sender.clone(), self.request.clone());
                let mut start = Start { _merged: Some(joined), ready: None, begun: self.begun.clone() };
                tokio::spawn(async move {
                    tokio::select! {
                        () = keep_merging(&line, &caller, &server, &request, &sender, &mut start) => {}
                        () = sender.closed() => {}
                    }
                });
            }
        }
    }
}

/// Whether policy lets the caller follow a resource, of which `subscriptions/listen` says no more than its address.
pub(super) fn may_subscribe(line: &Line, caller: &Caller, server: &Server, uri: &str) -> bool {
    line.may_subscribe(caller, server, uri, &json!({ "uri": uri }), &[]).is_ok()
}

type Sender = mpsc::Sender<(Option<ServerName>, mcp::sse::Event)>;

/// The servers that a merged stream is made of.
#[derive(Clone, Default)]
struct Merged(Arc<Mutex<HashSet<ServerName>>>);

impl Merged {
    /// One more, unless it is among them, until what is handed back is dropped: it may join again.
    fn add(&self, server: &ServerName) -> Option<Joined> {
        let first = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(server.clone());
        first.then(|| Joined { merged: self.clone(), server: server.clone() })
    }
}

/// One of them.
struct Joined {
    merged: Merged,
    server: ServerName,
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.merged.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.server);
    }
}

/// The beginning of a merged stream.
struct Start {
    // In this order: who hears that the stream begins finds nobody among its servers who has left.
    _merged: Option<Joined>,
    /// Told what the server acknowledges, and dropped where that is not known.
    ready: Option<oneshot::Sender<Value>>,
    /// The client was told that the stream begins.
    begun: watch::Receiver<bool>,
}

impl Start {
    /// What the server will tell of; null is nothing.
    fn say(&mut self, acknowledged: Value) {
        if let Some(ready) = self.ready.take() {
            // The client was told without it, which took too long.
            let _ = ready.send(acknowledged);
        }
    }
}

/// Listens to one server, again and again where it breaks off.
async fn keep_merging(
    line: &Line,
    caller: &Caller,
    server: &ServerName,
    request: &Message,
    sender: &Sender,
    start: &mut Start,
) {
    loop {
        let now = line.state.line();
        // The rights of the moment, not those of the beginning.
        let Some((caller, server)) = now.may_hear(&caller.principal, server) else { return };
        let current = || is_current(&line.state.line(), &caller.principal, server);
        let merged = tokio::select! {
            merged = merge(&now, &caller, server, request, sender, start) => Some(merged),
            () = until_not(current) => None,
        };
        if let Some(Ok(false)) = merged {
            start.say(Value::Null);
            return;
        }
        start.ready = None;
        match merged {
            Some(Ok(_)) => {}
            Some(Err(fault)) => tracing::debug!(server = %server.name, %fault, "a listening stream broke off"),
            // The server as it is now is listened to at once.
            None => continue,
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Listens to one server until it ends its stream; `false` if it has none.
async fn merge(
    line: &Line,
    caller: &Caller,
    server: &Arc<Server>,
    request: &Message,
    sender: &Sender,
    start: &mut Start,
) -> Result<bool, UpstreamFault> {
    let injected =
        crate::inject::credentials(&line.state, server).map_err(|fault| UpstreamFault::Down(fault.to_string()))?;
    let limits = line.snapshot.answer_limits();
    let hop = Hop { state: &line.state, server, injected: &injected, limits };
    let request = exchange::one(narrowed(line, caller, server, request, &Route::All), &limits)?;
    let arrival = if Crossing::between(Era::Modern, server) == Crossing::Downward {
        let source = bridge::downward::listen(&hop, caller, &request).await?;
        Arrival::Stream { headers: HeaderMap::new(), source }
    } else {
        let leg = line.state.modern_leg(&hop, caller.principal.id())?;
        hop.send(leg.as_deref(), &request).await?.0
    };
    let mut source = match arrival {
        Arrival::Stream { source, .. } => source,
        // It answers, but tells of nothing.
        other => return none_of(&hop, None, other.status()).await.map(|()| false),
    };
    while let Some((_, event)) = source.next().await? {
        let Some(data) = event.message() else { continue };
        let message = exchange::one(data.clone(), &limits)?;
        // The acknowledgement and the end of one server are not those of the aggregate.
        if message.method() == "notifications/subscriptions/acknowledged" {
            start.say(message.param(&["notifications"]).and_then(|member| member.value().ok()).unwrap_or_default());
            continue;
        }
        start.ready = None;
        if message.kind() == Kind::Response {
            continue;
        }
        let _ = start.begun.wait_for(|begun| *begun).await;
        if line.state.line().may_hear(&caller.principal, &server.name).is_none() {
            return Ok(true);
        }
        if sender.send((Some(server.name.clone()), event)).await.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The client's request with the resources that policy lets it follow on this server, and the tasks that it began there.
pub(crate) fn narrowed(
    line: &Line,
    caller: &Caller,
    server: &Server,
    request: &Message,
    route: &Route,
) -> bytes::Bytes {
    let mut edits = Vec::new();
    let followed = |shown: &str| {
        let uri = match route {
            Route::One(_) => shown.into(),
            Route::All => mcp::address::split(shown).filter(|(of, _)| *of == server.name.as_str())?.1,
        };
        may_subscribe(line, caller, server, &uri).then(|| uri.into_owned())
    };
    edits.extend(kept(request, "resourceSubscriptions", followed));
    edits.extend(kept(request, "taskIds", |shown| {
        let task = match route {
            Route::One(_) => shown.to_owned(),
            Route::All => line.task_of(caller, shown).filter(|(of, _)| *of == server.name)?.1,
        };
        line.has_task(caller.principal.id(), server, &task).then_some(task)
    }));
    if *route == Route::All && Crossing::between(Era::Modern, server) != Crossing::None {
        edits.extend(task::without_tasks(request));
    }
    if edits.is_empty() { request.bytes().clone() } else { mcp::splice(request.bytes(), &mut edits) }
}

/// A list of the filter as `keep` gives it, without what it refuses. `None` if nothing is another.
fn kept(request: &Message, list: &str, keep: impl Fn(&str) -> Option<String>) -> Option<(mcp::Span, Vec<u8>)> {
    let member = request.param(&["notifications", list])?;
    let Ok(Value::Array(all)) = member.value() else {
        // SECURITY: what is no list cannot be judged, and a server might read it as one.
        return Some((member.span.clone(), b"[]".to_vec()));
    };
    let kept: Vec<String> = all.iter().filter_map(|one| one.as_str().and_then(&keep)).collect();
    let same = kept.len() == all.len() && kept.iter().zip(&all).all(|(kept, one)| one == kept);
    (!same).then(|| (member.span.clone(), json!(kept).to_string().into_bytes()))
}
