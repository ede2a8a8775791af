//! `subscriptions/listen` on the aggregate: what every server says under it, as one stream.

use super::{
    answer::Hand,
    listen::{self, AGAIN, News, QUIET, is_current, until_not},
    narrow::{followed, narrowed},
    stream::none_of,
    wishes::Wishes,
};
use crate::{
    authenticate::Caller,
    bridge::{
        self, Crossing,
        upward::rights::{Open, Rights},
    },
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
use identity::Principal;
use mcp::{Era, Kind, Message, error};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use vocab::ServerName;

/// Events of servers that wait to be merged.
const BACKLOG: usize = 256;
/// How long the servers of a merged stream are waited for before it begins.
const READY: Duration = Duration::from_secs(1);
/// Where nothing comes for so long, all that waited was handed on. A server from which something was missed would have ended
/// its stream at once.
const DRAINED: Duration = Duration::from_secs(1);

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
        let (ready, is_ready) = oneshot::channel();
        let name = server.name.clone();
        let share = Share {
            _merged: merged.add(&name),
            line: hand.line.clone(),
            caller: hand.caller.clone(),
            server: name.clone(),
            request: request.clone(),
            sender: sender.clone(),
            begun: begun.clone(),
        };
        share.begin(Some(ready));
        waiting.push(async move { (name, is_ready.await) });
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
    Ok(Arrival::Stream { headers: Box::default(), source: Source::Made { events, _open: sender } })
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
            let news = news.recv().await;
            let line = self.line.state.line();
            match news {
                Ok(News { server, .. }) => self.admit(&line, &server, sender),
                // Which they are was missed: it may be any.
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    line.servers().for_each(|server| self.admit(&line, &server.name, sender));
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// Lets a server join, unless it has, or may not.
    fn admit(&self, line: &Line, server: &ServerName, sender: &Sender) {
        let Some((caller, known)) = line.may_hear(&self.caller.principal, server) else { return };
        if bridge::is_out_of_reach(Era::Modern, known) {
            return;
        }
        if let Some(joined) = self.merged.add(server) {
            let share = Share {
                _merged: Some(joined),
                line: self.line.clone(),
                caller,
                server: server.clone(),
                request: self.request.clone(),
                sender: sender.clone(),
                begun: self.begun.clone(),
            };
            share.begin(None);
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

/// Who waits for what a server acknowledges; null is nothing. Dropped where that is not known.
type Ready = oneshot::Sender<Value>;

/// One server of a merged stream, and for whom it is listened to.
struct Share {
    _merged: Option<Joined>,
    line: Line,
    caller: Caller,
    server: ServerName,
    request: Message,
    sender: Sender,
    /// The client was told that the stream begins.
    begun: watch::Receiver<bool>,
}

/// A stream that is read to its end.
type Merging = Pin<Box<dyn Future<Output = Result<Ended, UpstreamFault>> + Send>>;

/// How a stream ended.
enum Ended {
    /// The server said all that it had to say.
    Over,
    /// It has none.
    Absent(Option<Ready>),
    /// The client reads so slowly that some of it may have been missed.
    Missed,
}

/// Why a server is listened to no longer as it was.
enum Turn {
    Ended(Result<Ended, UpstreamFault>),
    /// It is another server by now, or the caller may hear nothing of it.
    Moved,
    /// The caller may follow more by now, or less.
    Rights,
}

impl Share {
    /// Listens until the client is gone, or may hear nothing of this server, or that has nothing to tell.
    fn begin(self, ready: Option<Ready>) {
        tokio::spawn(async move {
            let waits = tokio::select! {
                waits = self.keep_merging(ready) => waits,
                () = self.sender.closed() => None,
            };
            // In this order: who hears that the stream begins finds nobody among its servers who has left.
            drop(self);
            if let Some(waits) = waits {
                let _ = waits.send(Value::Null);
            }
        });
    }

    /// Listens to the server, again and again where it breaks off. Gives back who waits for a server that tells of nothing.
    async fn keep_merging(&self, mut ready: Option<Ready>) -> Option<Ready> {
        // What was acknowledged speaks on until what replaces it is.
        let mut before: Option<Merging> = None;
        // When a stream was lost, until the next is acknowledged.
        let mut lost_at: Option<u64> = None;
        loop {
            let now = self.line.state.line();
            // The rights of the moment, not those of the beginning.
            let Some((caller, server)) = now.may_hear(&self.caller.principal, &self.server) else { return ready };
            if bridge::is_out_of_reach(Era::Modern, server) {
                return ready;
            }
            let follow = Follow::of(&now, &caller, server, &self.request);
            let (acknowledge, mut acknowledged) = watch::channel(false);
            let (let_go, leaves) = watch::channel(false);
            let words = Words { ready: ready.take(), acknowledge, begun: self.begun.clone(), leaves };
            let mut merging: Merging = Box::pin(merge(
                now.clone(),
                caller.clone(),
                Arc::clone(server),
                self.request.clone(),
                self.sender.clone(),
                words,
            ));
            let turn = loop {
                tokio::select! {
                    ended = &mut merging => break Turn::Ended(ended),
                    turn = self.until_other(server, &follow) => break turn,
                    true = until(&mut acknowledged), if before.is_some() || lost_at.is_some() => {
                        if let Some(since) = lost_at.take() {
                            now.look_for_missed(server, since);
                        }
                        if self.loses_with(&mut before, server).await {
                            break Turn::Ended(Ok(Ended::Missed));
                        }
                    }
                    () = missed(&mut before) => break Turn::Ended(Ok(Ended::Missed)),
                }
            };
            match turn {
                Turn::Ended(Ok(Ended::Absent(waits))) => return waits,
                Turn::Ended(Ok(Ended::Over)) => {}
                Turn::Ended(Ok(Ended::Missed)) => {
                    self.conclude().await;
                    return None;
                }
                Turn::Ended(Err(fault)) => {
                    tracing::debug!(server = %server.name, %fault, "a listening stream broke off");
                }
                // The server as it is now is listened to, once what the one before said is handed on.
                Turn::Moved => {
                    let_go.send_replace(true);
                    if self.loses_with(&mut before, server).await || self.loses_of(merging).await {
                        self.conclude().await;
                        return None;
                    }
                    continue;
                }
                Turn::Rights => {
                    if *acknowledged.borrow() {
                        if self.loses_with(&mut before, server).await {
                            self.conclude().await;
                            return None;
                        }
                        before = Some(merging);
                    }
                    continue;
                }
            }
            lost_at.get_or_insert_with(|| now.state.clock.ticks());
            if tokio::time::timeout(AGAIN, missed(&mut before)).await.is_ok() {
                self.conclude().await;
                return None;
            }
        }
    }

    /// Lets go of a stream that was replaced, once what it said before that is handed on. Whether some of that is lost: its
    /// client reads so slowly that there is no room for it.
    async fn loses_with(&self, before: &mut Option<Merging>, server: &Server) -> bool {
        // Over a bridge whatever is said is told to both.
        let is_alone = Crossing::between(Era::Modern, server) != Crossing::Downward;
        let is_missed =
            is_alone && tokio::time::timeout(Duration::ZERO, tokio::task::unconstrained(missed(before))).await.is_ok();
        is_missed || (before.take().is_some() && self.sender.capacity() == 0)
    }

    /// Reads a stream that is let go to the end of what was said. Whether some of that is lost: its client reads so slowly
    /// that there is no room for it.
    async fn loses_of(&self, merging: Merging) -> bool {
        if self.line.state.line().may_hear(&self.caller.principal, &self.server).is_none() {
            return false;
        }
        match tokio::time::timeout(listen::LEAVING, merging).await {
            Ok(Ok(Ended::Over | Ended::Absent(_)) | Err(_)) => false,
            Ok(Ok(Ended::Missed)) => true,
            // It speaks on without a pause. Where there is room, all that it said before was read: nothing else keeps that.
            Err(_) => self.sender.capacity() < BACKLOG / 2,
        }
    }

    /// Ends the merged stream with its result: whoever listens again looks anew.
    async fn conclude(&self) {
        if let Ok(result) = mcp::bridge::downward::listen_result(&self.request) {
            let _ = self.sender.send((None, crate::upstream::event(result))).await;
        }
    }

    /// Waits until the server is not to be listened to as it is.
    async fn until_other(&self, server: &Server, follow: &Follow) -> Turn {
        let (state, holder) = (&self.line.state, &self.caller.principal);
        let stays = |line: &Line| {
            let now = line.snapshot.servers.get(&server.name);
            let leads = now.is_some_and(|now| Crossing::to(Era::Modern, now) == Some(follow.crossing));
            leads && is_current(line, holder, server)
        };
        until_not(|| {
            let line = state.line();
            stays(&line) && follow.is_current(&line, holder)
        })
        .await;
        if stays(&state.line()) { Turn::Rights } else { Turn::Moved }
    }
}

/// Waits until it is so; `false` if it never will be.
async fn until(so: &mut watch::Receiver<bool>) -> bool {
    so.wait_for(|so| *so).await.is_ok()
}

/// Reads a stream until some of it may have been missed. Where it ends otherwise, the one after it tells why.
async fn missed(merging: &mut Option<Merging>) {
    if let Some(speaking) = merging {
        let ended = speaking.await;
        *merging = None;
        if matches!(ended, Ok(Ended::Missed)) {
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// What a caller may follow on one server, and how it is reached.
struct Follow {
    crossing: Crossing,
    uris: Vec<Arc<str>>,
    rights: Rights,
    open: Arc<Open>,
}

impl Follow {
    fn of(line: &Line, caller: &Caller, server: &Server, request: &Message) -> Self {
        let (uris, rights) = (followed(request, server, &Route::All), Rights::on(&server.name));
        let open = rights.of_listener(line, &caller.principal, &uris);
        Self { crossing: Crossing::between(Era::Modern, server), uris, rights, open }
    }

    fn is_current(&self, line: &Line, holder: &Principal) -> bool {
        self.rights.of_listener(line, holder, &self.uris).uris == self.open.uris
    }
}

/// Who waits for the first words of a server, and for whose it waits.
struct Words {
    ready: Option<Ready>,
    /// The server has acknowledged.
    acknowledge: watch::Sender<bool>,
    /// The client was told that the stream begins.
    begun: watch::Receiver<bool>,
    /// The stream is let go: what comes later is not waited for.
    leaves: watch::Receiver<bool>,
}

impl Words {
    /// What the server will tell of.
    fn say(&mut self, acknowledged: Value) {
        if let Some(ready) = self.ready.take() {
            // The client was told without it, which took too long.
            let _ = ready.send(acknowledged);
        }
    }
}

/// Listens to one server until it ends its stream.
async fn merge(
    line: Line,
    caller: Caller,
    server: Arc<Server>,
    request: Message,
    sender: Sender,
    mut words: Words,
) -> Result<Ended, UpstreamFault> {
    let injected =
        crate::inject::credentials(&line.state, &server).map_err(|fault| UpstreamFault::Down(fault.to_string()))?;
    let limits = line.snapshot.answer_limits();
    let hop = Hop { state: &line.state, server: &server, injected: &injected, limits };
    let request = exchange::one(narrowed(&line, &caller, &server, &request, &Route::All), &limits)?;
    let opening = async {
        if Crossing::between(Era::Modern, &server) == Crossing::Downward {
            let source = bridge::downward::listen(&hop, &caller, &request).await?;
            return Ok(Arrival::Stream { headers: Box::default(), source });
        }
        let leg = line.state.modern_leg(&hop, caller.principal.id()).await?;
        hop.send(leg.as_deref(), &request).await.map(|(arrival, _)| arrival)
    };
    let arrival = tokio::select! {
        arrival = opening => arrival?,
        true = until(&mut words.leaves) => return Ok(Ended::Over),
    };
    let mut source = match arrival {
        Arrival::Stream { source, .. } => source,
        // It answers, but tells of nothing.
        other => {
            none_of(&hop, None, other.status()).await?;
            return Ok(Ended::Absent(words.ready));
        }
    };
    // While the client is waited for, what the server says on waits where there is little room.
    let mut is_late = false;
    loop {
        let patience = match (*words.leaves.borrow(), is_late) {
            (true, _) => QUIET,
            (false, true) => DRAINED,
            (false, false) => Duration::MAX,
        };
        let heard = tokio::select! {
            biased;
            heard = tokio::time::timeout(patience, source.next()) => heard,
            Ok(()) = words.leaves.changed() => continue,
        };
        let Ok(heard) = heard else {
            if *words.leaves.borrow() {
                break;
            }
            is_late = false;
            continue;
        };
        let Some((_, event)) = heard? else { break };
        let Some(data) = event.message() else { continue };
        // What cannot be read is left out, and put on record, where all else is judged.
        let message = exchange::one(data.clone(), &limits).ok();
        // The acknowledgement and the end of one server are not those of the aggregate.
        let acknowledged = |message: &&Message| message.method() == "notifications/subscriptions/acknowledged";
        if let Some(message) = message.as_ref().filter(acknowledged) {
            words.say(message.param(&["notifications"]).and_then(|member| member.value().ok()).unwrap_or_default());
            words.acknowledge.send_replace(true);
            continue;
        }
        words.ready = None;
        if message.is_some_and(|message| message.kind() == Kind::Response) {
            if is_late {
                return Ok(Ended::Missed);
            }
            continue;
        }
        is_late |= sender.capacity() == 0 || !*words.begun.borrow();
        let _ = words.begun.wait_for(|begun| *begun).await;
        if line.state.line().may_hear(&caller.principal, &server.name).is_none() {
            return Ok(Ended::Over);
        }
        if sender.send((Some(server.name.clone()), event)).await.is_err() {
            return Ok(Ended::Over);
        }
    }
    Ok(Ended::Over)
}
