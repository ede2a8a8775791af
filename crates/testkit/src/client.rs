//! A small HTTP client for tests: one connection per request unless the test keeps one, nothing added, nothing followed,
//! nothing retried.

use crate::schema::Hearing;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header, response::Parts};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use std::fmt;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
};

/// A request in the making.
#[derive(Debug, Clone)]
pub struct Ask {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Ask {
    /// A request with this method to an `http://` URL.
    pub fn new(method: Method, url: &str) -> Self {
        Self { method, uri: url.parse().expect("a URL"), headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// GET.
    pub fn get(url: &str) -> Self {
        Self::new(Method::GET, url)
    }

    /// POST of a JSON text as it stands, with the headers that Streamable HTTP asks for.
    pub fn post(url: &str, json: impl Into<Bytes>) -> Self {
        let ask = Self::new(Method::POST, url).body(json);
        ask.header("content-type", "application/json").header("accept", "application/json, text/event-stream")
    }

    /// Adds a header; twice adds it twice.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a header name");
        self.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
        self
    }

    /// Sets the header, instead of any that is there.
    #[must_use]
    pub fn replace(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a header name");
        self.headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
        self
    }

    /// Leaves the header out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    /// Adds `Authorization: Bearer …`.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.replace("authorization", &format!("Bearer {token}"))
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends it and waits for the head of the answer.
    pub async fn send(self) -> Reply {
        self.try_send().await.expect("an answer")
    }

    /// Sends it; fails where the other side does not answer in HTTP.
    ///
    /// # Errors
    /// Whatever the connection says.
    pub async fn try_send(self) -> hyper::Result<Reply> {
        let hearing = Hearing::of(&self.headers, &self.body);
        let (mut sender, driver) = dial(&self.authority()).await?;
        let (head, body) = sender.send_request(self.request()).await?.into_parts();
        Ok(Reply::of(head, body, Some(driver), hearing))
    }

    /// Sends it in HTTP/1.1 over a connection that is there already, whatever it is made of.
    ///
    /// # Errors
    /// Whatever the connection says.
    pub async fn over<S>(self, stream: S) -> hyper::Result<Reply>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let hearing = Hearing::of(&self.headers, &self.body);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move { drop(connection.await) });
        let (head, body) = sender.send_request(self.request()).await?.into_parts();
        Ok(Reply::of(head, body, Some(driver), hearing))
    }

    fn authority(&self) -> String {
        self.uri.authority().expect("a host").to_string()
    }

    /// The request as HTTP/2 has it: the address in its own place, and `Host` only where the test set it.
    fn whole(self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body));
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }

    fn request(self) -> Request<Full<Bytes>> {
        let authority = self.authority();
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::new(Full::new(self.body));
        *request.method_mut() = self.method;
        *request.uri_mut() = path.parse().expect("a path");
        *request.headers_mut() = self.headers;
        if !request.headers().contains_key(header::HOST) {
            let host = HeaderValue::from_str(&authority).expect("a host");
            request.headers_mut().insert(header::HOST, host);
        }
        request
    }
}

/// One connection in HTTP/2, for many requests at one time. Dropping it closes it.
pub struct Multiplexed {
    sender: http2::SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl fmt::Debug for Multiplexed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Multiplexed").finish_non_exhaustive()
    }
}

impl Drop for Multiplexed {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Multiplexed {
    /// Shakes hands over a connection that is there already.
    ///
    /// # Errors
    /// Whatever the connection says.
    pub async fn over<S>(stream: S) -> hyper::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        Ok(Self { sender, driver: tokio::spawn(async move { drop(connection.await) }) })
    }

    /// Sends a request and waits for the head of the answer. Dropping the answer resets its stream.
    ///
    /// # Errors
    /// Whatever the connection says: it is gone, or breaks.
    pub async fn send(&self, ask: Ask) -> hyper::Result<Reply> {
        let hearing = Hearing::of(&ask.headers, &ask.body);
        let mut sender = self.sender.clone();
        sender.ready().await?;
        let (head, body) = sender.send_request(ask.whole()).await?.into_parts();
        Ok(Reply::of(head, body, None, hearing))
    }
}

#[expect(clippy::disallowed_methods, reason = "a test dials what it is told to")]
async fn dial(authority: &str) -> hyper::Result<(http1::SendRequest<Full<Bytes>>, JoinHandle<()>)> {
    let stream = TcpStream::connect(authority).await.expect("somebody listens");
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    Ok((sender, tokio::spawn(async move { drop(connection.await) })))
}

/// One connection that is kept for several requests, as real clients keep theirs. Dropping it closes it.
pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Connects to where this request would go.
    pub async fn open(ask: &Ask) -> Self {
        let (sender, driver) = dial(&ask.authority()).await.expect("a connection");
        Self { sender, driver }
    }

    /// Sends a request over it and reads the whole answer.
    ///
    /// # Errors
    /// Whatever the connection says: it is gone, or breaks.
    pub async fn send(&mut self, ask: Ask) -> hyper::Result<(StatusCode, Bytes)> {
        self.sender.ready().await?;
        let (head, body) = self.sender.send_request(ask.request()).await?.into_parts();
        Ok((head.status, body.collect().await?.to_bytes()))
    }
}

/// An answer whose body is read as the test asks for it. Dropping it closes the connection.
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: Incoming,
    pending: BytesMut,
    driver: Option<JoinHandle<()>>,
    pub(crate) hearing: Hearing,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("status", &self.status).field("headers", &self.headers).finish_non_exhaustive()
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(driver) = &self.driver {
            driver.abort();
        }
    }
}

/// One server-sent event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// The `id` field.
    pub id: Option<String>,
    /// The `event` field.
    pub name: Option<String>,
    /// The `data` lines, joined.
    pub data: String,
    /// The event as it was on the wire, blank line included.
    pub raw: String,
}

impl Event {
    /// The data as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or(Value::Null)
    }

    fn parse(raw: &str) -> Self {
        let mut event = Self { raw: raw.to_owned(), ..Self::default() };
        let mut data = Vec::new();
        for line in raw.lines() {
            match line.split_once(':') {
                Some(("id", value)) => event.id = Some(value.trim_start().to_owned()),
                Some(("event", value)) => event.name = Some(value.trim_start().to_owned()),
                Some(("data", value)) => data.push(value.strip_prefix(' ').unwrap_or(value)),
                _ => {}
            }
        }
        event.data = data.join("\n");
        event
    }
}

impl Reply {
    fn of(head: Parts, body: Incoming, driver: Option<JoinHandle<()>>, hearing: Hearing) -> Self {
        Self { status: head.status, headers: head.headers, body, pending: BytesMut::new(), driver, hearing }
    }

    /// A header as text, if it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The next piece of the body as it arrives; none at its end or when the connection breaks.
    pub async fn chunk(&mut self) -> Option<Bytes> {
        if !self.pending.is_empty() {
            return Some(self.pending.split().freeze());
        }
        loop {
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                return Some(data);
            }
        }
    }

    /// The rest of the body, up to where it ends or breaks.
    pub async fn bytes(mut self) -> Bytes {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.chunk().await {
            all.extend_from_slice(&chunk);
        }
        all.freeze()
    }

    /// The rest of the body as text.
    pub async fn text(self) -> String {
        String::from_utf8_lossy(&self.bytes().await).into_owned()
    }

    /// The JSON-RPC message that answers: the body, or the last event of a stream.
    pub async fn json(mut self) -> Value {
        if self.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
            let mut last = Value::Null;
            while let Some(event) = self.event().await {
                let json = event.json();
                let is_answer = json.get("result").is_some() || json.get("error").is_some();
                last = json;
                if is_answer {
                    break;
                }
            }
            return last;
        }
        let hearing = std::mem::take(&mut self.hearing);
        let message = serde_json::from_slice(&self.bytes().await).unwrap_or(Value::Null);
        hearing.note(&message);
        message
    }

    /// The next event of a stream that carries data; none at its end. Comments are passed over, and so is what only
    /// tells where the stream is.
    pub async fn event(&mut self) -> Option<Event> {
        loop {
            let event = self.any_event().await?;
            if !event.data.is_empty() {
                return Some(event);
            }
        }
    }

    /// The next event with data or an id; none at the end of the stream.
    pub async fn any_event(&mut self) -> Option<Event> {
        let mut seen = BytesMut::new();
        loop {
            if let Some(end) = seen.windows(2).position(|pair| pair == b"\n\n") {
                let raw = seen.split_to(end + 2);
                let event = Event::parse(&String::from_utf8_lossy(&raw));
                self.hearing.note_event(&event);
                if !event.data.is_empty() || event.id.is_some() {
                    self.pending = seen;
                    return Some(event);
                }
                continue;
            }
            seen.extend_from_slice(&self.chunk().await?);
        }
    }
}
