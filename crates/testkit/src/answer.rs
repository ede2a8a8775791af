//! What a scripted upstream does with one request: the whole repertoire, honest and hostile.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use serde_json::{Value, json};
use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::{mpsc, oneshot};

/// One scripted answer.
#[derive(Debug)]
pub struct Answer {
    pub(crate) head: Option<(StatusCode, HeaderMap)>,
    pub(crate) body: AnswerBody,
    /// Nothing is said before this is.
    pub(crate) held: Option<oneshot::Receiver<()>>,
}

impl Answer {
    /// A JSON body with status 200, sent exactly as given.
    pub fn json(text: impl Into<Bytes>) -> Self {
        Self::text(text).header("content-type", "application/json")
    }

    /// A body of no type with status 200, sent exactly as given.
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self::new(StatusCode::OK, AnswerBody::Whole(Some(text.into())))
    }

    /// A JSON-RPC result for the request with this id.
    pub fn result(id: &Value, result: &Value) -> Self {
        Self::json(json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string())
    }

    /// A JSON-RPC error for the request with this id.
    pub fn error(id: &Value, code: i64, message: &str) -> Self {
        Self::json(json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}).to_string())
    }

    /// A status and nothing else.
    pub fn status(status: StatusCode) -> Self {
        Self::new(status, AnswerBody::Whole(None))
    }

    /// An event stream that the test feeds, and ends by dropping the feed, or breaks.
    pub fn events() -> (Self, Feed) {
        Self::fed("text/event-stream")
    }

    /// The same as any other kind of body.
    pub fn fed(kind: &str) -> (Self, Feed) {
        let (sender, receiver) = mpsc::channel(64);
        let answer = Self::new(StatusCode::OK, AnswerBody::Fed(receiver, None)).header("content-type", kind);
        (answer, Feed(sender))
    }

    /// An event stream whose text is known from the start, then its end.
    pub fn event_text(text: impl Into<Bytes>) -> Self {
        Self::text(text).header("content-type", "text/event-stream")
    }

    /// Nothing, ever: not even a status line.
    pub fn hang() -> Self {
        Self { head: None, body: AnswerBody::Whole(None), held: None }
    }

    /// Some of a JSON body, then a broken connection.
    pub fn cut_off(start: impl Into<Bytes>) -> Self {
        Self::new(StatusCode::OK, AnswerBody::Cut { start: Some(start.into()), flushed: false })
            .header("content-type", "application/json")
    }

    /// The same bytes again and again, as fast as they are taken, as an event stream.
    pub fn endless(chunk: impl Into<Bytes>) -> Self {
        Self::new(StatusCode::OK, AnswerBody::Endless(chunk.into())).header("content-type", "text/event-stream")
    }

    /// A JSON-RPC result whose text is `size` bytes long.
    pub fn oversized(id: &Value, size: usize) -> Self {
        Self::result(id, &json!({"content": [{"type": "text", "text": "x".repeat(size)}]}))
    }

    /// The same answer, begun only when the test says so (or lets go of what it says so with).
    #[must_use]
    pub fn held(mut self) -> (Self, oneshot::Sender<()>) {
        let (release, held) = oneshot::channel();
        self.held = Some(held);
        (self, release)
    }

    /// The same answer with another status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        if let Some((own, _)) = &mut self.head {
            *own = status;
        }
        self
    }

    /// The same answer with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Some((_, headers)) = &mut self.head {
            let name: HeaderName = name.parse().expect("a header name");
            headers.append(name, HeaderValue::from_str(value).expect("a header value"));
        }
        self
    }

    fn new(status: StatusCode, body: AnswerBody) -> Self {
        Self { head: Some((status, HeaderMap::new())), body, held: None }
    }

    /// Waits for the word of the test.
    pub(crate) async fn released(&mut self) -> io::Result<()> {
        let Some(held) = self.held.take() else { return Ok(()) };
        let _released = held.await;
        if let AnswerBody::Fed(receiver, ahead) = &mut self.body {
            // It may have been cut before it began.
            *ahead = receiver.try_recv().ok().transpose()?;
        }
        Ok(())
    }

    pub(crate) fn is_event_stream(&self) -> bool {
        self.head.as_ref().is_some_and(|(_, headers)| {
            headers.get(header::CONTENT_TYPE).is_some_and(|value| value == "text/event-stream")
        })
    }
}

/// The test's end of an event stream.
#[derive(Debug, Clone)]
pub struct Feed(mpsc::Sender<io::Result<Bytes>>);

impl Feed {
    /// Sends one `message` event with this JSON.
    pub async fn message(&self, json: &Value) -> bool {
        self.raw(format!("event: message\ndata: {json}\n\n")).await
    }

    /// Sends these bytes as they are. Says whether anyone still listens.
    pub async fn raw(&self, bytes: impl Into<Bytes>) -> bool {
        self.0.send(Ok(bytes.into())).await.is_ok()
    }

    /// Breaks the connection: before the head, where the answer is held, and in the middle of the body otherwise.
    pub async fn cut(&self) {
        let _gone = self.0.send(Err(io::Error::other("cut by the test"))).await;
    }

    /// Waits until what was fed so far has been taken.
    pub async fn taken(&self) {
        let mut looks = tokio::time::interval(std::time::Duration::from_millis(1));
        while self.0.capacity() < self.0.max_capacity() && !self.0.is_closed() {
            looks.tick().await;
        }
    }

    /// Waits until the other side has gone.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

/// The body of an answer.
pub(crate) enum AnswerBody {
    Whole(Option<Bytes>),
    /// What comes from the test, after what came already.
    Fed(mpsc::Receiver<io::Result<Bytes>>, Option<Bytes>),
    Cut {
        start: Option<Bytes>,
        flushed: bool,
    },
    Endless(Bytes),
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Whole(_) => "Whole",
            Self::Fed(..) => "Fed",
            Self::Cut { .. } => "Cut",
            Self::Endless(_) => "Endless",
        })
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = match self.get_mut() {
            Self::Whole(bytes) => bytes.take(),
            Self::Fed(_, ahead) if ahead.is_some() => ahead.take(),
            Self::Fed(receiver, _) => match receiver.poll_recv(cx) {
                Poll::Ready(Some(Err(fault))) => return Poll::Ready(Some(Err(fault))),
                Poll::Ready(Some(Ok(bytes))) => Some(bytes),
                Poll::Ready(None) => None,
                Poll::Pending => return Poll::Pending,
            },
            Self::Cut { start, flushed } => match start.take() {
                Some(start) => Some(start),
                // One turn in between, so that the start leaves before the connection breaks.
                None if !*flushed => {
                    *flushed = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                None => return Poll::Ready(Some(Err(io::Error::other("cut off by the script")))),
            },
            Self::Endless(chunk) => Some(chunk.clone()),
        };
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Fed(..) | Self::Cut { .. } | Self::Endless(_) => SizeHint::default(),
        }
    }
}
