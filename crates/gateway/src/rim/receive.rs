//! From an HTTP request to calls on the line: paths, Host and Origin, bounded bodies.

use super::{
    batch,
    body::read,
    browser,
    refuse::{misfit, refuse, unread},
    serve::{Ends, HEAD_BYTES},
    stream,
    under_way::{UnderWay, run},
};
use crate::{
    absent::{Here, Presence},
    authenticate::Caller,
    call::{Call, Operation, Route},
    clock::Moment,
    metadata,
    pipeline::Line,
    reply::{Reply, ReplyBody, Sending},
    settings::Settings,
    state::State,
    stop::{Stage, Stop},
};
use bytes::Bytes;
use futures_util::FutureExt;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HOST, ORIGIN, TRANSFER_ENCODING},
};
use hyper::body::Incoming;
use mcp::{Body as Text, Era, Revision, error};
use std::{
    convert::Infallible,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
};
use vocab::ServerName;

/// Answers one HTTP request.
pub(super) async fn answer(
    state: Arc<State>,
    request: Box<Request<Incoming>>,
    ends: Ends,
) -> Result<Reply<Sending>, Infallible> {
    let presence = Arc::new(Presence::default());
    // Dropped with the wait for the answer, or with the answer: by then the call is over, or its client is gone.
    let here = Here::beside(&presence);
    let mut under_way = UnderWay::begin(&state);
    under_way.presence = Some(presence);
    let line = state.line();
    let origin = request.headers().get(ORIGIN).cloned();
    let reply = AssertUnwindSafe(pin!(route(&line, request, ends, under_way))).catch_unwind().await;
    let mut reply = if let Ok(reply) = reply {
        reply
    } else {
        // From its trail on, a call answers for its own panics. What comes out here broke before there was one.
        let stop = Stop::panicked(Stage::Receive).status(StatusCode::INTERNAL_SERVER_ERROR);
        refuse(&line, unread(Route::All, &HeaderMap::new(), ends.peer), stop).await
    };
    let may_read =
        |origin: &HeaderValue| origin.to_str().is_ok_and(|origin| line.snapshot.settings.allows_origin(origin));
    if let Some(origin) = origin.filter(may_read) {
        browser::tell(&mut reply, origin);
    }
    Ok(reply.map(|body| Sending::new(body, here)))
}

async fn route(
    line: &Line,
    mut request: Box<Request<Incoming>>,
    Ends { peer, dialled, may_name }: Ends,
    under_way: UnderWay,
) -> Reply {
    let settings = &line.snapshot.settings;
    let peer = if may_name { real_peer(settings, peer, request.headers()) } else { peer };
    // HTTP/2 says for itself how much it takes, and hyper reads up to twice as much of HTTP/1 as it is told.
    if let Some(stop) = repeated(request.headers()).or_else(|| too_long(request.uri(), request.headers())) {
        return refuse(line, unread(Route::All, request.headers(), peer), stop).await;
    }
    let host = match local(settings, request.uri(), request.headers(), dialled) {
        Ok(host) => host,
        Err(why) => {
            // A browser's request from elsewhere, refused before anything is read.
            let stop =
                Stop::refused(Stage::Receive, "origin", error::INVALID_REQUEST, why).status(StatusCode::FORBIDDEN);
            return refuse(line, unread(Route::All, request.headers(), peer), stop).await;
        }
    };
    // From here on a request of HTTP/2 is like any other.
    request.headers_mut().entry(HOST).or_insert(host);
    if browser::asks(request.method(), request.headers()) {
        return browser::may(request.headers(), &line.snapshot);
    }
    let path = request.uri().path();
    if let Some(rest) = path.strip_prefix(metadata::WELL_KNOWN) {
        return well_known(line, rest, request.headers());
    }
    if path == stream::MESSAGES || path.starts_with(stream::STREAM) {
        return Box::pin(stream::serve(line, *request, peer, under_way)).await;
    }
    let Some(route) = door(path, "/mcp") else {
        return refuse(line, unread(Route::All, request.headers(), peer), nowhere()).await;
    };
    let is_post = *request.method() == Method::POST;
    let checked = mcp::header::check_shape(request.headers());
    let checked = checked.and_then(|()| if is_post { Ok(()) } else { mcp::header::check_version(request.headers()) });
    if let Err(fault) = checked {
        return misfit(line, unread(route, request.headers(), peer), None, fault).await;
    }
    let (head, body) = request.into_parts();
    let operation = match head.method {
        Method::POST => {
            // SECURITY: what is large, or one of many at one time, is kept only for those who have proven who they are.
            let bodies = &line.state.bodies;
            let may_be_a_stranger = head.version != Version::HTTP_2;
            let held = match may_be_a_stranger.then(|| bodies.of_stranger(&head.headers, &body)).flatten() {
                Some(held) => held,
                None => match recognise(line, &head.headers, &route, peer).await {
                    Ok(caller) => bodies.of(caller.principal.id(), &head.headers),
                    Err(stop) => return refuse(line, unread(route, &head.headers, peer), stop).await,
                },
            };
            let body = match read(body, settings.bounds.body, held).await {
                Ok(body) => body,
                Err(stop) => return refuse(line, unread(route, &head.headers, peer), stop).await,
            };
            return post(line, head.headers, body, route, peer, under_way).await;
        }
        Method::GET => Operation::Listen,
        Method::DELETE => Operation::End,
        _ => return refuse(line, unread(route, &head.headers, peer), not_allowed("GET, POST, DELETE")).await,
    };
    if modern_version(&head.headers) {
        return refuse(line, unread(route, &head.headers, peer), not_allowed("POST")).await;
    }
    let call = Box::new(Call::new(route, operation, Era::Legacy, head.headers, peer));
    run(line, call, under_way).await
}

async fn post(line: &Line, headers: HeaderMap, body: Bytes, route: Route, peer: IpAddr, under_way: UnderWay) -> Reply {
    if let Err(stop) = readable(&headers) {
        return refuse(line, unread(route, &headers, peer), stop).await;
    }
    match mcp::scan(body, &line.snapshot.request_limits()) {
        Err(fault) => {
            let stop =
                Stop::refused(Stage::Receive, "body", fault.code(), fault.to_string()).status(StatusCode::BAD_REQUEST);
            refuse(line, unread(route, &headers, peer), stop).await
        }
        Ok(Text::Single(message)) => {
            let (fits, era) = (mcp::check(&headers, &message), message.era());
            let call = Box::new(Call::new(route, Operation::Message(message), era, headers, peer));
            match fits {
                Ok(()) => run(line, call, under_way).await,
                Err(fault) => misfit(line, *call, None, fault).await,
            }
        }
        Ok(Text::Batch(messages)) => Box::pin(batch::serve(line, headers, messages, route, peer, under_way)).await,
    }
}

/// SECURITY: of two headers one reader heeds the first, and another the last.
fn repeated(headers: &HeaderMap) -> Option<Stop> {
    let twice = |name: &HeaderName| headers.get_all(name).iter().nth(1).is_some();
    let name = [ORIGIN, CONTENT_TYPE].into_iter().find(twice)?;
    let why = format!("there is more than one header `{name}`");
    Some(Stop::refused(Stage::Receive, "header", error::INVALID_REQUEST, why).status(StatusCode::BAD_REQUEST))
}

/// The head of a request, as it is written in HTTP/1: names, values and what stands between them.
fn too_long(uri: &Uri, headers: &HeaderMap) -> Option<Stop> {
    let lines: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum();
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let why = "the head of the request is longer than 64 KiB";
    let stop = || {
        Stop::refused(Stage::Receive, "head", error::INVALID_REQUEST, why)
            .status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
    };
    (lines + path > HEAD_BYTES as usize).then(stop)
}

/// `/mcp` and `/mcp/{server}`, or the same behind another word; nothing else, in no other spelling.
pub(super) fn door(path: &str, word: &str) -> Option<Route> {
    let rest = path.strip_prefix(word)?;
    match rest.strip_prefix('/') {
        None if rest.is_empty() => Some(Route::All),
        Some(name) => ServerName::new(name).ok().map(Route::One),
        None => None,
    }
}

pub(super) fn modern_version(headers: &HeaderMap) -> bool {
    mcp::header::version(headers)
        .ok()
        .flatten()
        .and_then(Revision::parse)
        .is_some_and(|revision| revision.era() == Era::Modern)
}

/// A body is JSON, as it is.
pub(super) fn readable(headers: &HeaderMap) -> Result<(), Stop> {
    let refused = |reason, why| {
        Stop::refused(Stage::Receive, reason, error::INVALID_REQUEST, why).status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
    };
    let is_coded = |coding: &HeaderValue| !coding.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().any(is_coded) {
        let stop = refused("content-encoding", "the body must not be compressed: no `Content-Encoding` is read here");
        return Err(stop.header(ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    }
    // It would be read as what it is not. HTTP has its own status for that.
    let is_other = |coding: &HeaderValue| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    if headers.get_all(TRANSFER_ENCODING).iter().any(is_other) {
        let stop =
            refused("transfer-encoding", "the body must be sent plain or `chunked`: no other `Transfer-Encoding`");
        return Err(stop.status(StatusCode::NOT_IMPLEMENTED));
    }
    if is_json(headers) { Ok(()) } else { Err(refused("content-type", "the body must be application/json")) }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    kind.eq_ignore_ascii_case(b"application/json")
}

/// The peer, or whom a trusted proxy names. The last address that the proxy itself wrote is the one that counts.
fn real_peer(settings: &Settings, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    if !settings.trusts(peer) {
        return peer;
    }
    let lines: Vec<&[u8]> = headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes).collect();
    for entry in lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b',')) {
        match address(entry) {
            Some(address) if settings.trusts(address) => {}
            Some(address) => return address,
            // SECURITY: what stands before something that is no address may be anybody's word.
            None => return peer,
        }
    }
    peer
}

/// An address as proxies write it: alone, with a port, or in brackets.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let alone = || text.parse().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    alone().or_else(with_port).or_else(in_brackets)
}

/// SECURITY: a page in a browser must not reach a gateway on its user's machine (DNS rebinding). What was dialled, if it
/// is served here.
fn local(
    settings: &Settings,
    uri: &Uri,
    headers: &HeaderMap,
    dialled: Option<IpAddr>,
) -> Result<HeaderValue, &'static str> {
    let host = host(uri, headers)?;
    if !host.to_str().is_ok_and(|host| settings.allows_host(host, dialled)) {
        return Err("this `Host` is not served here; list it under `hosts` or set `public_url`");
    }
    match headers.get(ORIGIN).map(|origin| origin.to_str()) {
        None => Ok(host),
        Some(Ok(origin)) if settings.allows_origin(origin) => Ok(host),
        Some(_) => Err("this `Origin` is not allowed; list it under `origins`"),
    }
}

/// What the client dialled: `Host`, the address in the request itself, which HTTP/2 has instead, or both if they agree.
fn host(uri: &Uri, headers: &HeaderMap) -> Result<HeaderValue, &'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    let (host, more) = (hosts.next(), hosts.next().is_some());
    if more {
        return Err("there is more than one `Host`");
    }
    match (uri.authority(), host) {
        (None, None) => Err("the header `Host` is missing"),
        (None, Some(host)) => Ok(host.clone()),
        (Some(authority), None) => HeaderValue::from_str(authority.as_str()).map_err(|_| "this is no address"),
        (Some(authority), Some(host)) if host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => {
            Ok(host.clone())
        }
        (Some(_), Some(_)) => Err("`Host` and the address in the request differ"),
    }
}

/// Proves who calls, from the head alone. The line does so again, once the body is there.
pub(super) async fn recognise(line: &Line, headers: &HeaderMap, route: &Route, peer: IpAddr) -> Result<Caller, Stop> {
    let era = if modern_version(headers) { Era::Modern } else { Era::Legacy };
    let (operation, headers) = (Operation::Unread, headers.clone());
    let call = Call::new(route.clone(), operation, era, headers, peer);
    Box::pin(line.authenticate(&call, Moment::now(&*line.state.clock))).await
}

fn well_known(line: &Line, rest: &str, headers: &HeaderMap) -> Reply {
    let settings = &line.snapshot.settings;
    let word = if rest.starts_with(stream::STREAM) { stream::STREAM } else { "/mcp" };
    let route = if rest.is_empty() { Some(Route::All) } else { door(rest, word) };
    if settings.issuers.is_empty() {
        return plain(StatusCode::NOT_FOUND, "no token issuer is configured\n");
    }
    let Some(route) = route else { return plain(StatusCode::NOT_FOUND, "no MCP server is served at that address\n") };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let mut reply = Response::new(ReplyBody::from(Bytes::from(metadata::document(settings, word, &route, host))));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

pub(super) fn not_allowed(allowed: &'static str) -> Stop {
    Stop::refused(Stage::Receive, "method", error::INVALID_REQUEST, "this HTTP method is not allowed here")
        .status(StatusCode::METHOD_NOT_ALLOWED)
        .header(ALLOW, HeaderValue::from_static(allowed))
}

/// What is served at no other path.
pub(super) fn nowhere() -> Stop {
    let why = "nothing is served at this path; the doors are /mcp and /mcp/{server}, for clients of 2024-11-05 /sse and /sse/{server}";
    Stop::refused(Stage::Receive, "path", error::INVALID_REQUEST, why).status(StatusCode::NOT_FOUND)
}

fn plain(status: StatusCode, text: &'static str) -> Reply {
    let mut reply = Response::new(ReplyBody::from(Bytes::from_static(text.as_bytes())));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    reply
}

#[cfg(test)]
mod tests {
    use super::{address, host};
    use http::{HeaderMap, HeaderValue, header::HOST};

    #[test]
    fn what_was_dialled_is_said_once_or_twice_alike() {
        for (uri, hosts, expected) in [
            ("/mcp", &["a.test:1"][..], Some("a.test:1")),
            ("http://a.test:1/mcp", &[], Some("a.test:1")),
            ("http://a.test:1/mcp", &["A.test:1"], Some("A.test:1")),
            ("http://a.test:1/mcp", &["b.test:1"], None),
            ("http://evil@a.test/mcp", &["a.test"], None),
            ("/mcp", &[], None),
            ("/mcp", &["a.test", "a.test"], None),
        ] {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, HeaderValue::from_static(host));
            }
            let found = host(&uri.parse().unwrap(), &headers).ok();
            assert_eq!(found, expected.map(HeaderValue::from_static), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn addresses_are_read_as_proxies_write_them() {
        for (text, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            (" 192.0.2.1:5678 ", Some("192.0.2.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]:443", Some("2001:db8::1")),
            ("[::1]", Some("::1")),
            ("unknown", None),
            ("192.0.2.1:", None),
            ("192.0.2.1:99999", None),
            ("[192.0.2.1]", None),
            ("", None),
        ] {
            assert_eq!(address(text.as_bytes()), expected.map(|text| text.parse().unwrap()), "{text:?}");
        }
        assert_eq!(address(b"\xff"), None);
    }
}
