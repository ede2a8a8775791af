//! What browsers ask before a page may call, and what they must be told so that it may read the answer (CORS).
//!
//! Whether an origin may call at all is decided before anything here. It is named, never `*`; credentials that browsers
//! keep by themselves, as cookies are, are never asked for.

use crate::{
    call::header::{CALL, LAST_EVENT, METHOD, NAME, PARAM_PREFIX, SESSION, TRACEPARENT, TRACESTATE, VERSION},
    reply::{Reply, ReplyBody},
    snapshot::Snapshot,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{
        ACCEPT, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
        ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONTENT_TYPE, ORIGIN, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
    },
};

/// How long a browser may remember the answer, in seconds.
const REMEMBERED: u32 = 600;
/// Headers without a name of ours that are allowed in one answer.
const OTHERS: usize = 64;
/// Where a page may present a key instead.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// What is told of limits.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The limits themselves.
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Whether a browser asks if it may call.
pub(super) fn asks(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// What it may.
pub(super) fn may(asked: &HeaderMap, snapshot: &Snapshot) -> Reply {
    let mut reply = Response::new(ReplyBody::empty());
    *reply.status_mut() = StatusCode::NO_CONTENT;
    let headers = reply.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(REMEMBERED));
    let known = [
        &AUTHORIZATION,
        &API_KEY,
        &CONTENT_TYPE,
        &ACCEPT,
        &VERSION,
        &SESSION,
        &LAST_EVENT,
        &METHOD,
        &NAME,
        &TRACEPARENT,
        &TRACESTATE,
    ];
    let mut allowed: Vec<String> = known.into_iter().map(ToString::to_string).collect();
    allowed.extend(others(asked, snapshot));
    if let Ok(allowed) = HeaderValue::from_str(&allowed.join(", ")) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    reply
}

/// Headers that mirror arguments have any name, and so have those that travel on to a server: of these, the ones that are
/// asked for are allowed. SECURITY: none that is not asked for is named, for nobody has proven yet who asks.
fn others(asked: &HeaderMap, snapshot: &Snapshot) -> impl Iterator<Item = String> {
    let travels = move |name: &HeaderName| snapshot.servers.values().any(|server| server.headers.contains(name));
    let asked = asked.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter().filter_map(|value| value.to_str().ok());
    let names = asked.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse::<HeaderName>().ok());
    let allowed = names.filter(move |name| name.as_str().starts_with(PARAM_PREFIX) || travels(name));
    allowed.map(|name| name.to_string()).take(OTHERS)
}

/// Lets the page that asked read the answer.
pub(super) fn tell(reply: &mut Reply, origin: HeaderValue) {
    let headers = reply.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(VARY, HeaderValue::from_static("Origin"));
    let readable = [&SESSION, &VERSION, &CALL, &WWW_AUTHENTICATE, &RETRY_AFTER, &RATE_LIMIT, &RATE_LIMIT_POLICY];
    let readable: Vec<&str> = readable.into_iter().map(HeaderName::as_str).collect();
    if let Ok(readable) = HeaderValue::from_str(&readable.join(", ")) {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, readable);
    }
}
