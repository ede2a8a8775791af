//! `subscriptions/listen` on the aggregate: what every server says under it, as one stream.

use super::{
    answer::Hand,
    listen::{AGAIN, News, is_current, until_not},
    narrow::narrowed,
    stream::none_of,
    wishes::Wishes,
};
use crate::{
    authenticate::Caller,
    bridge::{self, Crossing},
    call::Route,
    pipeline::Line,
    server::Server,
    stop::{Stage, Stop},
    upstream::{
        Arrival, Source, UpstreamFault,
        exchange::{self, Hop},
    },
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use http::HeaderMap;
use mcp::{Era, Kind, Message, error};
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

/// `subscriptions/listen`: our own acknowledgement, then what every server says under it.
pub(super) fn modern(hand: &Hand<'_>, request: &Message) -> Result<Arrival, Stop> {
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
