//! Streams that last, on connections of HTTP/1. Thousands of them wait for hours, so none may cost what a request costs
//! while it is served: such a stream leaves the machinery of HTTP behind, with its buffers and with the task of the
//! connection, and from its head on is written here.

use super::patience::Patient;
use crate::reply::{Reply, Sending};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING},
};
use http_body_util::BodyExt;
use std::{
    io,
    pin::Pin,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use vocab::Timestamp;

/// What is left of a connection once its stream lasts: it has a task of its own.
pub(super) type Rest = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Bytes that a client may send after its request. They are thrown away, and it was told that the connection closes.
const SUPERFLUOUS: usize = 64 << 10;

/// Whether the answer to a request may leave, if it is a stream. A client of HTTP/1.0 understands no chunks.
pub(super) fn may_leave<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET && request.version() == Version::HTTP_11
}

/// Where an answer that leaves is put down, and whether the connection is ready for it.
#[derive(Default)]
pub(super) struct Leaving {
    answer: Mutex<Option<Box<Reply<Sending>>>>,
    /// It is there: most connections never have one, and are asked whenever they move.
    is_there: AtomicBool,
    /// Everything that was written before has gone.
    flushed: AtomicBool,
}

impl Leaving {
    pub(super) fn put(&self, answer: Reply<Sending>) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(answer));
        self.is_there.store(true, Ordering::Release);
    }

    /// The answer, once nothing of another one is still on its way.
    pub(super) fn take(&self) -> Option<Box<Reply<Sending>>> {
        let is_ready = self.has_flushed() && self.is_there.load(Ordering::Acquire);
        is_ready.then(|| self.answer.lock().unwrap_or_else(PoisonError::into_inner).take()).flatten()
    }

    /// Whether all that was written has gone.
    pub(super) fn has_flushed(&self) -> bool {
        self.flushed.load(Ordering::Relaxed)
    }

    pub(super) fn flushed(&self, all: bool) {
        self.flushed.store(all, Ordering::Relaxed);
    }
}

/// Sends the answer to its end, unless the client leaves before.
pub(super) async fn carry<S>(stream: Patient<S>, answer: Box<Reply<Sending>>, now: Timestamp)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut opening = head(answer.status(), answer.headers(), now);
    let mut body = answer.into_body();
    // What is there already goes with the head.
    if let Some(Some(Ok(frame))) = body.frame().now_or_never() {
        opening.put(chunk(frame.into_data().unwrap_or_default()));
    }
    let (mut reads, mut writes) = tokio::io::split(stream);
    let sending = async {
        write(&mut writes, opening.freeze()).await?;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map(|frame| frame.into_data().unwrap_or_default());
            write(&mut writes, chunk(data)).await?;
        }
        write(&mut writes, &b"0\r\n\r\n"[..]).await?;
        writes.shutdown().await
    };
    tokio::select! {
        sent = sending => if let Err(fault) = sent {
            tracing::trace!(%fault, "a stream ended early");
        },
        () = gone(&mut reads) => {}
    }
}

/// Waits until the client is gone.
async fn gone(stream: &mut (impl AsyncRead + Unpin)) {
    let mut more = 0;
    let mut thrown_away = [0; 64];
    while more < SUPERFLUOUS {
        match stream.read(&mut thrown_away).await {
            Ok(0) | Err(_) => return,
            Ok(count) => more += count,
        }
    }
    tracing::debug!(bytes = more, "a stream was ended: its client sends more after the request");
}

/// One piece of a body. One without bytes would be the last: it is left out.
fn chunk(data: Bytes) -> impl Buf {
    let (size, end) = if data.is_empty() {
        (Bytes::new(), Bytes::new())
    } else {
        (Bytes::from(format!("{:x}\r\n", data.len())), Bytes::from_static(b"\r\n"))
    };
    size.chain(data).chain(end)
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), mut bytes: impl Buf) -> io::Result<()> {
    stream.write_all_buf(&mut bytes).await?;
    stream.flush().await
}

/// The head of an answer whose body comes in chunks and ends with the connection (RFC 9112, 7.1 and 9.6).
fn head(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> BytesMut {
    let date = u64::try_from(now.as_seconds()).ok().and_then(|seconds| {
        let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?);
        HeaderValue::try_from(date).ok()
    });
    let ours = [
        (CONNECTION, Some(HeaderValue::from_static("close"))),
        (TRANSFER_ENCODING, Some(HeaderValue::from_static("chunked"))),
        (DATE, date.filter(|_| !headers.contains_key(DATE))),
    ];
    let ours = ours.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    let theirs = headers.iter().filter(|(name, _)| ![CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name));
    let mut head = BytesMut::with_capacity(512);
    head.extend_from_slice(b"HTTP/1.1 ");
    head.extend_from_slice(status.as_str().as_bytes());
    head.extend_from_slice(b" ");
    head.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    for (name, value) in theirs.chain(ours) {
        for part in [b"\r\n", name.as_str().as_bytes(), b": ", value.as_bytes()] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n\r\n");
    head
}
