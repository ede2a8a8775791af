//! W3C trace context, in and out.

use crate::call::header;
use http::{HeaderMap, HeaderValue};
use mcp::Message;
use vocab::CallId;

/// A `traceparent` that follows the W3C recommendation (version 00), split.
struct Parent<'a> {
    trace: &'a str,
    flags: &'a str,
}

fn parse(text: &str) -> Option<Parent<'_>> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length: usize| {
        text.len() == length
            && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            && (length == 2 || text.bytes().any(|b| b != b'0'))
    };
    (hex(version, 2) && version != "ff" && hex(trace, 32) && hex(span, 16) && hex(flags, 2))
        .then_some(Parent { trace, flags })
}

/// The `traceparent` of a call: the one in the body's `_meta` wins over the HTTP header.
fn incoming<'a>(headers: &'a HeaderMap, message: Option<&'a Message>) -> Option<std::borrow::Cow<'a, str>> {
    let body = message.and_then(|message| message.param(&["_meta", "traceparent"])).and_then(|member| member.text());
    body.or_else(|| headers.get(&header::TRACEPARENT).and_then(|value| value.to_str().ok()).map(Into::into))
}

/// The trace id the caller brought.
pub fn trace_id(headers: &HeaderMap, message: Option<&Message>) -> Option<Box<str>> {
    let text = incoming(headers, message)?;
    parse(&text).map(|parent| Box::from(parent.trace))
}

/// The `traceparent` of the upstream request: the caller's trace, or one of our own named by the call id; the span is
/// the call's.
pub fn outgoing(call: CallId, headers: &HeaderMap, message: Option<&Message>) -> Option<HeaderValue> {
    let id = call.to_string();
    let span = id.get(16..)?;
    let text = match incoming(headers, message).as_deref().and_then(parse) {
        Some(parent) => format!("00-{}-{span}-{}", parent.trace, parent.flags),
        None => format!("00-{id}-{span}-01"),
    };
    HeaderValue::from_str(&text).ok()
}
