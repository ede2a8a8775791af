//! Batches of revision 2025-03-26.

use super::{
    receive::refuse,
    under_way::{UnderWay, steadfast},
};
use crate::{
    call::{Call, Operation, Route, header, new_id},
    flow::{STALLED, say},
    pipeline::Line,
    reply::{Reply, ReplyBody},
    respond::{self, Asked},
    stop::{Stage, Stop},
};
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use mcp::{Era, Kind, Message, Revision, error};
use std::{net::IpAddr, panic::AssertUnwindSafe, sync::Arc};
use tokio::sync::mpsc;

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
    let revision = mcp::header::version(&headers).ok().flatten().map_or(Some(Revision::ASSUMED), Revision::parse);
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
        return refuse(line, peer, &headers, route, &stop);
    }
    let wants_answer = messages.iter().any(|message| message.kind() == Kind::Request);
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let (line, state) = (line.clone(), Arc::clone(&line.state));
    let work = async move {
        let under_way = under_way;
        let mut heard = true;
        for message in messages {
            let is_request = message.kind() == Kind::Request;
            let operation = Operation::Message(message);
            let call = Call {
                id: new_id(),
                parent: None,
                in_batch: true,
                presence: under_way.presence.clone(),
                route: route.clone(),
                operation,
                era: Era::Legacy,
                headers: headers.clone(),
                peer,
            };
            let asked = Asked::of(&call);
            let id = call.id;
            let reply = AssertUnwindSafe(line.serve(Box::new(call))).catch_unwind().await;
            // The others are served whatever becomes of one.
            let reply = reply.unwrap_or_else(|_| respond::refusal(&Stop::panicked(Stage::Receive), &asked, id));
            if is_request {
                relay(reply, &sender, &mut heard).await;
            }
        }
    };
    if wants_answer {
        tokio::spawn(work);
        let mut reply = Response::new(ReplyBody::Stream(receiver));
        reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        reply.headers_mut().insert(header::ACCEL_BUFFERING.clone(), HeaderValue::from_static("no"));
        reply
    } else {
        let accepting = async move {
            work.await;
            let mut reply = Response::new(ReplyBody::empty());
            *reply.status_mut() = StatusCode::ACCEPTED;
            reply
        };
        // The client may leave; the messages arrive all the same.
        steadfast(&state, Box::pin(accepting)).await
    }
}

/// One answer of a batch onto the common stream. A client that is gone, or does not read, does not end the calls.
async fn relay(reply: Reply, sender: &mpsc::Sender<Bytes>, heard: &mut bool) {
    let is_stream = reply.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
    match reply.into_body() {
        ReplyBody::Whole(Some(events)) if is_stream => *heard = *heard && say(sender, events, STALLED).await,
        ReplyBody::Whole(Some(body)) => *heard = *heard && say(sender, mcp::sse::encode(&body, None), STALLED).await,
        ReplyBody::Whole(None) => {}
        ReplyBody::Stream(mut events) => {
            while let Some(event) = events.recv().await {
                *heard = *heard && say(sender, event, STALLED).await;
            }
        }
    }
}
