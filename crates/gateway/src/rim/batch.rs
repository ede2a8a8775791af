//! Batches of revision 2025-03-26.

use super::{
    receive::recognise,
    refuse::{refuse, unread},
    under_way::{UnderWay, steadfast},
};
use crate::{
    call::{Call, Departure, Operation, Route, header, new_id, refuses_streams},
    flow::{KEEP_ALIVE, STALLED, say},
    pipeline::Line,
    reply::{Reply, ReplyBody},
    resolve::{contradiction, not_taken},
    respond::{self, Asked},
    stop::{Stage, Stop},
};
use bytes::Bytes;
use futures_util::FutureExt;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use mcp::{Era, Kind, Message, Revision, error};
use std::{
    collections::HashMap,
    net::IpAddr,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::timeout,
};
use vocab::CallId;

/// Events of a batch that wait for the client.
const BACKLOG: usize = 64;

/// A batch (2025-03-26): every message is a call of its own, the answers come on one stream in the order they are ready.
pub(super) async fn serve(
    line: &Line,
    headers: HeaderMap,
    messages: Vec<Message>,
    route: Route,
    peer: IpAddr,
    under_way: UnderWay,
) -> Reply {
    let revision = match spoken(line, &headers, &route, peer).await {
        Ok(revision) => revision,
        Err(stop) => return refuse(line, unread(route, &headers, peer), stop).await,
    };
    let stop = if messages.iter().any(|message| message.era() == Era::Modern)
        || !revision.is_some_and(Revision::has_batches)
    {
        Some("batches exist in revision 2025-03-26 only")
    } else if messages.iter().any(|message| message.method() == "initialize") {
        Some("`initialize` must not be part of a batch")
    } else {
        None
    };
    if let Some(why) = stop {
        let stop = Stop::refused(Stage::Receive, "batch", error::INVALID_REQUEST, why).status(StatusCode::BAD_REQUEST);
        return refuse(line, unread(route, &headers, peer), stop).await;
    }
    let wants_answer = messages.iter().any(|message| message.kind() == Kind::Request);
    // What comes of a batch comes on one stream, whatever its servers answer with.
    if wants_answer && refuses_streams(&headers) {
        return refuse(line, unread(route, &headers, peer), not_taken(Stage::Receive)).await;
    }
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let members: Vec<(CallId, Message)> = messages.into_iter().map(|message| (new_id(), message)).collect();
    let ids: Vec<CallId> = members.iter().map(|(id, _)| *id).collect();
    let common = Arc::new(Common { line: line.clone(), headers, route, peer, under_way, outlet: Outlet::new(sender) });
    let mut reply = if wants_answer {
        tokio::spawn(async move {
            tokio::select! {
                () = all(&common, members) => {}
                () = common.outlet.keep_alive(KEEP_ALIVE) => {}
            }
        });
        let mut reply = Response::new(ReplyBody::Stream(receiver));
        reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        reply.headers_mut().insert(header::ACCEL_BUFFERING.clone(), HeaderValue::from_static("no"));
        reply
    } else {
        let accepting = async move {
            all(&common, members).await;
            let mut reply = Response::new(ReplyBody::empty());
            *reply.status_mut() = StatusCode::ACCEPTED;
            reply
        };
        // The client may leave; the messages arrive all the same.
        steadfast(&line.state, Box::pin(accepting)).await
    };
    respond::mark_all(&mut reply, &ids);
    reply
}

/// The revision that the session agreed on, where there is one; else what the header says. A session that is not found is
/// told by every message.
async fn spoken(line: &Line, headers: &HeaderMap, route: &Route, peer: IpAddr) -> Result<Option<Revision>, Stop> {
    if let Some(handle) = headers.get(&header::SESSION) {
        let caller = recognise(line, headers, route, peer).await?;
        let now = line.state.clock.ticks();
        if let Some(session) = line.state.sessions.find(handle, &caller.principal, route, now) {
            return contradiction(&session, headers).map_or(Ok(Some(session.revision())), Err);
        }
    }
    Ok(mcp::header::version(headers).ok().flatten().map_or(Some(Revision::ASSUMED), Revision::parse))
}

/// What the calls of a batch share.
struct Common {
    line: Line,
    headers: HeaderMap,
    route: Route,
    peer: IpAddr,
    under_way: UnderWay,
    outlet: Outlet,
}

/// What waits until a call is on its way.
type Departed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves all messages: requests beside each other, what has no answer in its place among them. A word that takes a request
/// back waits until that is on its way: before, it would find nothing.
async fn all(common: &Arc<Common>, members: Vec<(CallId, Message)>) {
    let mut requests = JoinSet::new();
    let mut departures: HashMap<String, Departed> = HashMap::new();
    for (id, message) in members {
        let (departure, departed) = Departure::new();
        if let Some(asked) = message.id().filter(|_| message.kind() == Kind::Request) {
            departures.insert(mcp::id_key(asked), Box::pin(departed));
            let common = Arc::clone(common);
            requests.spawn(async move {
                let reply = common.one(id, message, departure).await;
                common.outlet.relay(reply).await;
            });
        } else {
            let taken_back = message.param(&["requestId"]).filter(|_| message.method() == "notifications/cancelled");
            let taken_back = taken_back.map(|id| mcp::id_key(&String::from_utf8_lossy(id.raw)));
            if let Some(departed) = taken_back.and_then(|id| departures.remove(&id)) {
                departed.await;
            }
            common.one(id, message, departure).await;
        }
    }
    while requests.join_next().await.is_some() {}
}

impl Common {
    async fn one(&self, id: CallId, message: Message, departure: Departure) -> Reply {
        let call = Call {
            id,
            parent: None,
            batch: Some(departure),
            presence: self.under_way.presence.clone(),
            route: self.route.clone(),
            operation: Operation::Message(message),
            era: Era::Legacy,
            headers: self.headers.clone(),
            peer: self.peer,
        };
        let asked = Asked::of(&call);
        let reply = AssertUnwindSafe(self.line.serve(Box::new(call))).catch_unwind().await;
        // The others are served whatever becomes of one.
        reply.unwrap_or_else(|_| respond::refusal(&Stop::panicked(Stage::Receive), &asked, id))
    }
}

/// The common stream of the answers.
struct Outlet {
    client: mpsc::Sender<Bytes>,
    /// A client that is gone, or does not read, does not end the calls.
    heard: AtomicBool,
    /// Something was said.
    spoken: Notify,
}

impl Outlet {
    fn new(client: mpsc::Sender<Bytes>) -> Self {
        Self { client, heard: AtomicBool::new(true), spoken: Notify::new() }
    }

    /// One answer.
    async fn relay(&self, reply: Reply) {
        let is_stream = reply.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
        match reply.into_body() {
            ReplyBody::Whole(Some(events)) if is_stream => self.say(events).await,
            ReplyBody::Whole(Some(body)) => self.say(mcp::sse::encode(&body, None)).await,
            ReplyBody::Whole(None) => {}
            ReplyBody::Stream(mut events) => {
                while let Some(event) = events.recv().await {
                    self.say(event).await;
                }
            }
        }
    }

    async fn say(&self, events: Bytes) {
        if self.heard.load(Ordering::Acquire) && !say(&self.client, events, STALLED).await {
            self.heard.store(false, Ordering::Release);
        }
        self.spoken.notify_one();
    }

    /// Says that the stream lives, whenever nothing else was said for `silence`. Never ends by itself.
    async fn keep_alive(&self, silence: Duration) {
        loop {
            if timeout(silence, self.spoken.notified()).await.is_err() {
                let _ = self.client.try_send(Bytes::from_static(b": keep-alive\n\n"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Outlet;
    use bytes::Bytes;
    use std::time::Duration;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn the_stream_of_a_batch_is_kept_alive_while_nothing_is_said() {
        let (sender, mut receiver) = mpsc::channel(4);
        let outlet = Outlet::new(sender);
        let comment = Some(Bytes::from_static(b": keep-alive\n\n"));
        let said = async {
            assert_eq!(receiver.recv().await, comment);
            outlet.say("data: 1\n\n".into()).await;
            while receiver.recv().await == comment {}
            assert_eq!(receiver.recv().await, comment);
        };
        tokio::select! {
            () = said => {}
            () = outlet.keep_alive(Duration::from_millis(20)) => {}
        }
    }
}
