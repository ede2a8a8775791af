//! Streamable HTTP towards a server: builds the request of one hop and reads what comes back.
//!
//! Nothing travels on unless it is on a list: headers of MCP, those the operator allows, the credential.

mod spoken;

pub(crate) use spoken::{Heard, Spoken};

use super::{Arrival, Source, UpstreamFault};
use crate::{
    call::{Call, header},
    deadline::within,
    inject::Injected,
    server::{Server, Transport},
    state::State,
    veil::Veil,
};
use bytes::{Bytes, BytesMut};
use guard::Carry;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri,
    header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use mcp::{
    Era, Revision,
    sse::{Decoder, Event},
};
use std::{collections::VecDeque, pin::pin, sync::Arc, time::Duration};

/// Headers of a server's answer that travel on to the client.
static ONWARD: [HeaderName; 4] = [CONTENT_TYPE, CACHE_CONTROL, ALLOW, RETRY_AFTER];
/// What a request of ours accepts.
static BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
static JSON: HeaderValue = HeaderValue::from_static("application/json");
static STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
static AGENT: HeaderValue = HeaderValue::from_static(concat!("durward/", env!("CARGO_PKG_VERSION")));

/// The longest text of an error that travels on, in bytes.
const WORDS: usize = 64 << 10;
/// How long that text may take once its status is here.
const PATIENCE: Duration = Duration::from_secs(5);

/// One HTTP request to a server, without its address and the credential.
pub(crate) struct Outbound(Box<Request<Full<Bytes>>>);

/// The headers of a hop that belong to MCP, taken from the client's request.
pub(crate) fn onward(call: &Call, allowed: &[HeaderName], traces: bool) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(12);
    // SECURITY: only in the modern era are the mirrors of the body checked against it; unchecked ones stay here.
    let modern = call.era == Era::Modern;
    for (name, value) in &call.headers {
        let mirror =
            *name == header::METHOD || *name == header::NAME || name.as_str().starts_with(header::PARAM_PREFIX);
        let mcp = (modern && mirror)
            || *name == header::VERSION
            || *name == header::LAST_EVENT
            || *name == ACCEPT
            || *name == CONTENT_TYPE;
        if mcp || (allowed.contains(name) && may_travel(name.as_str())) {
            headers.append(name.clone(), value.clone());
        }
    }
    if matches!(call.operation, crate::call::Operation::Listen | crate::call::Operation::End) {
        headers.remove(CONTENT_TYPE);
    }
    mark(call, traces, &mut headers);
    headers
}

/// Headers of the client's hop, and its credentials.
const STAY: [&str; 14] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-api-key",
];

/// SECURITY: these stay here whatever a configuration allows, which refuses them, too.
fn may_travel(name: &str) -> bool {
    !STAY.contains(&name) && !name.starts_with("mcp-") && !name.starts_with("x-forwarded-")
}

/// Call id and trace context.
pub(crate) fn mark(call: &Call, traces: bool, headers: &mut HeaderMap) {
    if let Ok(value) = HeaderValue::from_bytes(&call.id.hex()) {
        header::put(headers, header::CALL.clone(), value);
    }
    crate::trace::propagate(call, traces, headers);
    header::put(headers, USER_AGENT, AGENT.clone());
}

/// The headers of a request that the gateway makes itself.
pub(crate) fn own() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(ACCEPT, BOTH.clone());
    headers.insert(CONTENT_TYPE, JSON.clone());
    headers.insert(USER_AGENT, AGENT.clone());
    headers
}

/// The headers of a stream that the gateway opens itself.
pub(crate) fn own_stream() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(ACCEPT, STREAM.clone());
    headers.insert(USER_AGENT, AGENT.clone());
    headers
}

impl Outbound {
    /// What is asked of whatever server.
    pub(crate) fn new(method: Method, headers: HeaderMap, body: Bytes) -> Self {
        let mut request = Box::new(Request::new(Full::new(body)));
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        Self(request)
    }

    /// As it goes out.
    fn request(self, uri: Uri, injected: &Injected) -> Box<Request<Full<Bytes>>> {
        let Self(mut request) = self;
        *request.uri_mut() = uri;
        for (name, value) in &injected.headers {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        request
    }
}

/// What came back, and the session that it names.
pub(crate) type Heading = (Arrival, Option<HeaderValue>);

/// Sends one request and reads the head of the answer; a JSON body is read whole, a stream is not. Not `async` itself: that
/// would be a future around a future.
pub(crate) fn send(
    state: &Arc<State>,
    server: &Server,
    injected: &Injected,
    outbound: Outbound,
    answer_limit: usize,
) -> impl Future<Output = Result<Heading, UpstreamFault>> + Send {
    send_to(state, server, injected, None, outbound, answer_limit, server.deadline)
}

/// The same, to `target` on the same server where one is given, and with another deadline than the server's.
pub(crate) async fn send_to(
    state: &Arc<State>,
    server: &Server,
    injected: &Injected,
    target: Option<&Uri>,
    outbound: Outbound,
    answer_limit: usize,
    deadline: Duration,
) -> Result<Heading, UpstreamFault> {
    let Transport::Http(endpoint) = &server.transport else {
        return Err(UpstreamFault::Protocol("the server is a process".to_owned()));
    };
    // Where a refusal may say that the server does not speak what it was seen to speak.
    let asked = (*outbound.0.method() == Method::POST).then(|| asked(outbound.0.headers()));
    let request = outbound.request(injected.uri(target.unwrap_or_else(|| endpoint.uri()))?, injected);
    let response = state.egress.send(endpoint, injected.pool, request, deadline).await.map_err(|fault| {
        if fault.is_timeout() { UpstreamFault::Timeout(deadline) } else { UpstreamFault::Down(fault.to_string()) }
    })?;
    let (mut head, body) = response.into_parts();
    if matches!(head.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        // SECURITY: the challenge of the upstream concerns the gateway, never the client.
        return Err(UpstreamFault::Credential(head.status.as_u16()));
    }
    // Room for more than it takes: hyper reads the connection's next request into the map that answered this one.
    let mut headers = Box::new(HeaderMap::with_capacity(12));
    let veil = injected.veil.as_ref();
    let veiled = |body: Bytes| match veil {
        Some(veil) => veil.body(body),
        None => body,
    };
    for name in &ONWARD {
        let value = header::get(&head.headers, name);
        if let Some(value) = value.filter(|value| veil.is_none_or(|veil| !veil.is_in(value.as_bytes()))) {
            header::put(&mut headers, name.clone(), value.clone());
        }
    }
    let kind = header::get(&head.headers, &CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let arrival = if head.status.is_success() && starts_with(kind, b"text/event-stream") {
        Arrival::Stream { headers, source: Source::Http(Box::new(Events::new(body, answer_limit, veil.cloned()))) }
    } else if starts_with(kind, b"application/json") {
        let body = veiled(collect(body, answer_limit, deadline).await?);
        if body.is_empty() {
            Arrival::Bare { status: head.status, headers, text: body }
        } else {
            Arrival::Whole { status: head.status, headers, body }
        }
    } else {
        let is_error = head.status.is_client_error() || head.status.is_server_error();
        let text = if is_error { veiled(Box::pin(words(kind, body, deadline)).await) } else { Bytes::new() };
        if kind.is_empty() && mcp::value(&text).is_ok() {
            Arrival::Whole { status: head.status, headers, body: text }
        } else {
            Arrival::Bare { status: head.status, headers, text }
        }
    };
    if let Some((era, in_session)) = asked {
        state.doubt(server, era, in_session, &arrival);
    }
    Ok((arrival, head.headers.remove(&header::SESSION)))
}

/// In which era a server is asked, and whether in a session.
fn asked(headers: &HeaderMap) -> (Era, bool) {
    let version = header::get(headers, &header::VERSION).and_then(|value| value.to_str().ok());
    let era = version.and_then(Revision::parse).map_or(Era::Legacy, Revision::era);
    (era, headers.contains_key(&header::SESSION))
}

/// Whether a type of content is this one, whatever its parameters.
pub(crate) fn starts_with(value: &[u8], kind: &[u8]) -> bool {
    value.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind))
}

/// What an error says of itself, where that is a text. The status says enough where it is too long, late or broken.
async fn words(kind: &[u8], body: egress::Body, deadline: Duration) -> Bytes {
    let is_text = kind.is_empty()
        || starts_with(kind, b"application/problem+json")
        || (starts_with(kind, b"text/") && !starts_with(kind, b"text/event-stream"));
    if !is_text {
        return Bytes::new();
    }
    collect(body, WORDS, deadline.min(PATIENCE)).await.unwrap_or_default()
}

async fn collect(mut body: egress::Body, limit: usize, deadline: Duration) -> Result<Bytes, UpstreamFault> {
    let reading = pin!(async {
        let mut first: Option<Bytes> = None;
        let mut rest = BytesMut::new();
        let promised = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX).min(limit);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|cause| UpstreamFault::Cut(cause.to_string()))?;
            let Ok(data) = frame.into_data() else { continue };
            if first.as_ref().map_or(0, Bytes::len) + rest.len() + data.len() > limit {
                return Err(UpstreamFault::TooBig(limit));
            }
            match &first {
                // Most answers are one frame: it travels on as it came.
                None => first = Some(data),
                Some(start) => {
                    if rest.is_empty() {
                        rest.reserve(promised);
                        rest.extend_from_slice(start);
                        first = Some(Bytes::new());
                    }
                    rest.extend_from_slice(&data);
                }
            }
        }
        Ok(if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() })
    });
    within(deadline, reading).await.map_err(|_| UpstreamFault::Timeout(deadline))?
}

/// The events of an HTTP body, as they arrive.
pub(crate) struct Events {
    body: egress::Body,
    /// None once the body has ended.
    decoder: Option<Decoder>,
    ready: VecDeque<Event>,
    limit: usize,
    /// Hides what the server was given, with what was said so far.
    veil: Option<(Arc<Veil>, Carry)>,
}

impl Events {
    fn new(body: egress::Body, limit: usize, veil: Option<Arc<Veil>>) -> Self {
        let veil = veil.map(|veil| (veil, Carry::default()));
        Self { body, decoder: Some(Decoder::new(limit)), ready: VecDeque::new(), limit, veil }
    }

    /// The next event. One that is too long ends the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, UpstreamFault> {
        loop {
            if let Some(event) = self.ready() {
                return Ok(Some(event));
            }
            match (self.chunk().await?, &mut self.decoder) {
                (Some(chunk), Some(decoder)) => {
                    decoder.push(chunk, &mut self.ready).map_err(|_| UpstreamFault::TooBig(self.limit))?;
                }
                _ if self.ready.is_empty() => return Ok(None),
                _ => {}
            }
        }
    }

    /// An event that has come already.
    fn ready(&mut self) -> Option<Event> {
        let event = self.ready.pop_front()?;
        Some(match &mut self.veil {
            Some((veil, carry)) => veil.event(event, carry),
            None => event,
        })
    }

    /// The next piece of the body; at its end the last event is ready.
    async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamFault> {
        if self.decoder.is_none() {
            return Ok(None);
        }
        match self.body.frame().await {
            Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
            Some(Err(cause)) => Err(UpstreamFault::Cut(cause.to_string())),
            // What was not ended by a blank line is no event (WHATWG HTML §9.2.6).
            None => {
                self.ready.extend(self.decoder.take().and_then(|decoder| decoder.finish().0));
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_headers_of_the_hop_stay_whatever_is_allowed() {
        let names = ["cookie", "x-api-key", "te", "mcp-session-id", "mcp-param-a", "x-forwarded-for", "x-trace"];
        let names = names.map(HeaderName::from_static);
        let headers = names.iter().map(|name| (name.clone(), HeaderValue::from_static("x"))).collect();
        let call = Call {
            id: crate::call::new_id(),
            parent: None,
            batch: None,
            presence: None,
            route: crate::call::Route::All,
            operation: crate::call::Operation::Listen,
            era: Era::Legacy,
            headers,
            peer: std::net::IpAddr::from([127, 0, 0, 1]),
        };
        let sent = onward(&call, &names, false);
        let kept: Vec<&HeaderName> = names.iter().filter(|name| sent.contains_key(*name)).collect();
        assert_eq!(kept, ["x-trace"]);
    }
}
