//! The end of the line: what the client reads, and the closing of the record.

use crate::{
    call::{Call, header},
    forward::{self, Exchange},
    pipeline::Line,
    release::Released,
    reply::{Reply, ReplyBody},
    stop::{Cause, Stage, Stop},
    trail::Trail,
};
use bytes::Bytes;
use futures_util::FutureExt;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use serde_json::Value;
use std::{panic::AssertUnwindSafe, pin::pin};
use vocab::CallId;

static JSON: HeaderValue = HeaderValue::from_static("application/json");
static STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
static NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
static UNBUFFERED: HeaderValue = HeaderValue::from_static("no");

/// What a refusal needs to know of the call that is gone by then.
pub(crate) struct Asked {
    id: Option<Box<str>>,
    is_request: bool,
}

impl Asked {
    pub(crate) fn of(call: &Call) -> Self {
        // SPEC: the refusal of what asks for nothing has no id (2025-11-25, basic/transports). That of an answer names a
        // request of the server's: with it the client could take the refusal for the answer to its own with that id.
        let id = call.message().filter(|_| call.is_request()).and_then(|message| message.id()).map(Box::from);
        Self { id, is_request: call.is_request() }
    }
}

/// Answers a call and closes its record; a stream closes it when it ends. A trail that a panic in here drops has
/// recorded itself.
pub(crate) async fn close(outcome: Result<Released, Stop>, trail: Trail, asked: &Asked, line: &Line) -> Reply {
    let call = trail.facts().call;
    let ending = AssertUnwindSafe(pin!(end(outcome, trail, asked, line))).catch_unwind().await;
    ending.unwrap_or_else(|_| refusal(&Stop::panicked(Stage::Release), asked, call))
}

/// Refuses what never became a call, and closes its record.
pub(crate) fn refuse(stop: &Stop, trail: Trail, asked: &Asked) -> Reply {
    let reply = refusal(stop, asked, trail.facts().call);
    trail.close_refused(stop, reply.status());
    reply
}

async fn end(outcome: Result<Released, Stop>, mut trail: Trail, asked: &Asked, line: &Line) -> Reply {
    let call = trail.facts().call;
    match outcome {
        Err(stop) => refuse(&stop, trail, asked),
        Ok(Released::Bare { status, headers, exchange }) => {
            trail.close_answered(status);
            reply(status, *headers, ReplyBody::empty(), call, Some(&exchange))
        }
        Ok(Released::Whole { status, mut headers, body, said, exchange }) => {
            trail.committed(&said);
            trail.close_answered(status);
            headers.entry(CONTENT_TYPE).or_insert_with(|| JSON.clone());
            reply(status, *headers, body.into(), call, Some(&exchange))
        }
        Ok(Released::Stream { mut headers, flow }) => {
            header::put(&mut headers, CONTENT_TYPE, STREAM.clone());
            headers.entry(CACHE_CONTROL).or_insert_with(|| NO_CACHE.clone());
            header::put(&mut headers, header::ACCEL_BUFFERING.clone(), UNBUFFERED.clone());
            let mut reply = reply(StatusCode::OK, *headers, ReplyBody::empty(), call, Some(flow.exchange()));
            *reply.body_mut() = flow.begin(&line.state, trail).await;
            reply
        }
    }
}

fn reply(status: StatusCode, headers: HeaderMap, body: ReplyBody, call: CallId, exchange: Option<&Exchange>) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    *reply.headers_mut() = headers;
    mark(&mut reply, call);
    if let Some(session) = exchange.and_then(|exchange| exchange.opened.as_ref()) {
        let (name, value) = forward::session_header(session);
        header::put(reply.headers_mut(), name, value);
    }
    reply
}

/// Each answer carries its call id.
pub(crate) fn mark(reply: &mut Reply, call: CallId) {
    if let Ok(value) = HeaderValue::from_bytes(&call.hex()) {
        header::put(reply.headers_mut(), header::CALL.clone(), value);
    }
}

/// That of a batch carries the ids of all its messages, in their order.
pub(crate) fn mark_all(reply: &mut Reply, calls: &[CallId]) {
    let ids: Vec<String> = calls.iter().map(CallId::to_string).collect();
    if let Ok(value) = HeaderValue::try_from(ids.join(", ")) {
        reply.headers_mut().insert(header::CALL.clone(), value);
    }
}

/// A stop as the client reads it.
pub(crate) fn refusal(stop: &Stop, asked: &Asked, call: CallId) -> Reply {
    if stop.cause == Cause::TakenBack && !asked.is_request {
        // Nobody waits for it, which its sender could not know.
        return reply(StatusCode::ACCEPTED, HeaderMap::new(), ReplyBody::empty(), call, None);
    }
    let mut data = stop.data.clone();
    data.insert("call".to_owned(), Value::String(call.to_string()));
    let text: Bytes = mcp::error_text(asked.id.as_deref(), stop.code, &stop.message, Some(&Value::Object(data)));
    // A request's refusal is an answer to it. Where there is nothing to answer, only HTTP can say no.
    let status = match (stop.status, stop.cause) {
        (StatusCode::OK, Cause::Refused) if !asked.is_request => StatusCode::BAD_REQUEST,
        (StatusCode::OK, Cause::Failed | Cause::Withheld) if !asked.is_request => StatusCode::BAD_GATEWAY,
        (status, _) => status,
    };
    let mut reply = Response::new(ReplyBody::from(text));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, JSON.clone());
    for (name, value) in &stop.headers {
        reply.headers_mut().insert(name.clone(), value.clone());
    }
    mark(&mut reply, call);
    reply
}
