//! HTTP on a connection, from its first byte to its last: the bounds of either version, and how it stops.

use super::receive;
use crate::{
    reply::{Reply, ReplyBody},
    state::State,
};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    net::IpAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, watch},
    time::timeout,
};

/// How long a client may take to send the head of a request.
pub(super) const HEAD: Duration = Duration::from_secs(15);
/// The head of a request, in bytes.
const HEAD_BYTES: u32 = 64 << 10;
/// The same where a connection carries many requests at one time.
const HEAD_BYTES_OF_MANY: u32 = 16 << 10;

// Bounds of HTTP/2. One connection costs no more than a few of HTTP/1 do.

/// Requests at one time.
const STREAMS: u32 = 100;
/// Requests that were taken back before anybody looked at them: one more ends the connection (CVE-2023-44487).
const TAKEN_BACK: usize = 20;
/// Streams that broke the protocol and are still remembered.
const BROKEN: usize = 32;
/// Bytes of a body that may be under way before they are read.
const WINDOW: u32 = 256 << 10;
/// The same for all bodies of a connection.
const WINDOWS: u32 = 1 << 20;
/// Bytes of one frame.
const FRAME: u32 = 16 << 10;
/// Bytes of an answer that wait for the client.
const WAITING: usize = 64 << 10;
/// Bytes of the table that headers are compressed with.
const TABLE: u32 = 4 << 10;
/// How often it is asked whether the client is still there, and how long it may take to say so.
const ASK: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(20);
/// How long a connection without a request is kept.
const IDLE: Duration = Duration::from_mins(1);
/// How long it may then take to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// The two ends of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    /// Who connected.
    pub(super) peer: IpAddr,
    /// The address of ours that was reached.
    pub(super) dialled: Option<IpAddr>,
    /// Whether a trusted proxy may name somebody else in its headers.
    pub(super) may_name: bool,
}

/// Serves HTTP/1.
pub(super) async fn http1<S>(state: Arc<State>, stream: S, ends: Ends)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut stopping = state.stopping.subscribe();
    // Boxed: a connection that waits for its next request keeps no room for the whole line.
    let service = service_fn(move |request| Box::pin(receive::answer(Arc::clone(&state), request, ends)));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES as usize)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    tokio::select! {
        served = serving.as_mut() => told(ends, served),
        () = stopped(&mut stopping) => {
            // Answers under way are finished, new requests on this connection are not taken.
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}

/// Serves HTTP/2.
pub(super) async fn http2<S>(state: Arc<State>, stream: S, ends: Ends)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut stopping = state.stopping.subscribe();
    let open = Arc::new(Open::default());
    let held = Arc::clone(&open);
    let service = service_fn(move |request| {
        let held = Held::begin(&held);
        let answer = Box::pin(receive::answer(Arc::clone(&state), request, ends));
        // A request that the client takes back is dropped here, and what it led to with it.
        async move { answer.await.map(|reply: Reply| reply.map(|body| Answering { body, _held: held })) }
    });
    let serving = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(TAKEN_BACK)
        .max_local_error_reset_streams(BROKEN)
        .max_header_list_size(HEAD_BYTES_OF_MANY)
        .header_table_size(TABLE)
        .max_frame_size(FRAME)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOWS)
        .max_send_buf_size(WAITING)
        .keep_alive_interval(ASK)
        .keep_alive_timeout(ANSWER)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    tokio::select! {
        served = serving.as_mut() => told(ends, served),
        () = open.quiet() => {
            // A client that holds its words back holds no connection.
            serving.as_mut().graceful_shutdown();
            let _ = timeout(FAREWELL, serving).await;
        }
        () = stopped(&mut stopping) => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}

fn told(ends: Ends, served: hyper::Result<()>) {
    if let Err(fault) = served {
        tracing::trace!(peer = %ends.peer, %fault, "a connection ended early");
    }
}

/// Waits until the gateway stops.
pub(super) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // A sender that is gone has stopped too.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Requests of a connection that are not answered to the end.
#[derive(Default)]
struct Open {
    count: AtomicUsize,
    changed: Notify,
}

impl Open {
    /// Waits until there was no request for too long: none at all, or none since the last one.
    async fn quiet(&self) {
        let mut patience = HEAD;
        loop {
            if self.count.load(Ordering::Acquire) > 0 {
                self.changed.notified().await;
                patience = IDLE;
            } else if timeout(patience, self.changed.notified()).await.is_err() {
                return;
            }
        }
    }
}

/// One of them, until it is dropped by whatever ends it.
struct Held(Arc<Open>);

impl Held {
    fn begin(open: &Arc<Open>) -> Self {
        open.count.fetch_add(1, Ordering::AcqRel);
        open.changed.notify_one();
        Self(Arc::clone(open))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_one();
    }
}

/// The body of an answer, which is open until it was sent.
struct Answering {
    body: ReplyBody,
    _held: Held,
}

impl Body for Answering {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
