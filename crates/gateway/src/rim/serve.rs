//! HTTP on a connection, from its first byte to its last: the bounds of either version, and how it stops.

use super::{
    lasting::{self, Leaving, Rest, may_leave},
    open::{self, Open, Streams},
    patience::Patient,
    receive,
    tally::{Ended, Tally},
    turn::{Requests, Turn},
};
use crate::{
    clock::Clock,
    flow::STALLED,
    reply::{Reply, Sending},
    state::State,
};
use http::Request;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    net::IpAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    task::coop::unconstrained,
};

/// How long a client may take to send the head of a request, from when it is its turn: a connection of HTTP/1 that is idle
/// is kept as long.
pub(super) const HEAD: Duration = Duration::from_secs(15);
/// The head of a request, in bytes.
pub(super) const HEAD_BYTES: u32 = 64 << 10;
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
/// How long it may then be without a request that crossed the farewell, until it ends.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long the other end is waited for.
#[derive(Clone, Copy)]
struct Patience {
    /// Until it takes something of what waits for it.
    stalled: Duration,
    /// Until the head of the next request of a connection that carries one at a time.
    head: Duration,
    /// Until the first request of a connection that carries many.
    first: Duration,
    /// Until the next one, when none is under way.
    idle: Duration,
    /// The same, once it was said that the connection ends.
    farewell: Duration,
}

impl Patience {
    const USUAL: Self = Self { stalled: STALLED, head: HEAD, first: HEAD, idle: IDLE, farewell: FAREWELL };
}

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

/// What a connection needs besides its stream.
struct Around {
    stopping: watch::Receiver<bool>,
    tally: Arc<Tally>,
    clock: Arc<dyn Clock>,
    patience: Patience,
}

impl Around {
    fn of(state: &State) -> Self {
        let (tally, clock) = (Arc::clone(&state.tally), Arc::clone(&state.clock));
        Self { stopping: state.stopping.subscribe(), tally, clock, patience: Patience::USUAL }
    }
}

/// Serves HTTP/1. What is left may be a stream that lasts.
pub(super) async fn http1<S>(state: Arc<State>, stream: S, ends: Ends) -> Option<Rest>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let around = Around::of(&state);
    // Boxed: a connection that waits for its next request keeps no room for the whole line.
    let answer = move |request| Box::pin(receive::answer(Arc::clone(&state), Box::new(request), ends));
    one(stream, answer, around, ends).await
}

/// Serves HTTP/2.
pub(super) async fn http2<S>(state: Arc<State>, stream: S, ends: Ends)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let around = Around::of(&state);
    let answer = move |request| Box::pin(receive::answer(Arc::clone(&state), Box::new(request), ends));
    many(stream, answer, around, ends).await;
}

/// One request after the other, answered by `answer`, until the connection ends or an answer lasts.
async fn one<S, F>(
    stream: S,
    answer: impl Fn(Request<Incoming>) -> F,
    Around { mut stopping, tally, clock, patience }: Around,
    ends: Ends,
) -> Option<Rest>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Result<Reply<Sending>, Infallible>>,
{
    let (leaving, requests) = (Arc::new(Leaving::default()), Arc::new(Requests::default()));
    let stream = Patient::new(stream, patience.stalled, tally, Arc::clone(&leaving));
    let service = service_fn(|request| {
        let (served, may_leave, answering) = (requests.begin(), may_leave(&request), answer(request));
        let leaving = &leaving;
        async move {
            let answer = answering.await?;
            if may_leave && answer.body().whole().is_none() {
                leaving.put(answer);
                match pending::<Infallible>().await {}
            }
            Ok::<_, Infallible>(answer.map(|body| served.by(body)))
        }
    });
    let mut turn = Turn::first(&requests, patience.head);
    let mut serving = http1::Builder::new()
        // The turn says it for less.
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES as usize)
        .serve_connection(TokioIo::new(stream), service);
    let mut stopped = pin!(stopped(&mut stopping));
    let mut is_stopping = false;
    let answer = loop {
        let step = poll_fn(|context| match Pin::new(&mut serving).poll(context) {
            Poll::Ready(served) => Poll::Ready(Err(served)),
            Poll::Pending => leaving.take().map_or(Poll::Pending, |answer| Poll::Ready(Ok(answer))),
        });
        tokio::select! {
            // The connection first: what it did decides whose turn it is.
            biased;
            step = step => match step {
                Ok(answer) => break answer,
                Err(served) => {
                    told(ends, served);
                    return None;
                }
            },
            () = poll_fn(|context| turn.poll_over(leaving.has_flushed(), context)) => {
                tracing::trace!(peer = %ends.peer, "a connection ended: no request came in time");
                return None;
            }
            () = stopped.as_mut(), if !is_stopping => {
                // Answers under way are finished, new requests on this connection are not taken.
                is_stopping = true;
                Pin::new(&mut serving).graceful_shutdown();
            }
        }
    };
    let stream = serving.into_parts().io.into_inner();
    Some(Box::pin(lasting::carry(stream, answer, clock.now())))
}

/// Many requests at one time, answered by `answer`.
async fn many<S, F>(
    stream: S,
    answer: impl Fn(Request<Incoming>) -> F,
    Around { mut stopping, tally, patience, .. }: Around,
    ends: Ends,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Result<Reply<Sending>, Infallible>> + Send + 'static,
{
    let open = Open::begin();
    let service = service_fn(move |request| {
        let answer = answer(request);
        // A request that the client takes back is dropped here, and what it led to with it.
        async move { answer.await.map(open::answering) }
    });
    let serving = http2::Builder::new(Streams(Arc::clone(&open)))
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
    let stalled = |answers: usize| {
        (0..answers).for_each(|_| tally.count(Ended::StalledAnswer));
        tracing::debug!(peer = %ends.peer, answers, "answers were ended: the client takes nothing of them");
    };
    let mut stuck = pin!(open.stuck(patience.stalled, stalled));
    tokio::select! {
        served = serving.as_mut() => return told(ends, served),
        () = stuck.as_mut() => return tally.count(Ended::StalledConnection),
        // A client that holds its words back holds no connection.
        () = open.quiet(patience.first, patience.idle) => {}
        () = stopped(&mut stopping) => {}
    }
    serving.as_mut().graceful_shutdown();
    let is_stopping = *stopping.borrow();
    tokio::select! {
        served = serving => told(ends, served),
        () = stuck => tally.count(Ended::StalledConnection),
        // What crossed the farewell is served to its end, as is what was under way.
        () = open.quiet(patience.farewell, patience.farewell), if !is_stopping => {}
    }
}

fn told(ends: Ends, served: hyper::Result<()>) {
    if let Err(fault) = served {
        tracing::trace!(peer = %ends.peer, %fault, "a connection ended early");
    }
}

/// Waits until the gateway stops.
///
/// Whoever waits for something else beside it is woken often, and to ask again each time would take a lock that all
/// connections share. What has not changed is not asked.
pub(super) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let seen = stopping.clone();
    // A sender that is gone has stopped too. Unconstrained: once it was asked, it must know whom to wake.
    let mut waiting = pin!(unconstrained(stopping.wait_for(|stopping| *stopping)));
    let mut known: Option<Waker> = None;
    poll_fn(|context| {
        let is_known = known.as_ref().is_some_and(|known| known.will_wake(context.waker()));
        if is_known && matches!(seen.has_changed(), Ok(false)) {
            return Poll::Pending;
        }
        known = Some(context.waker().clone());
        waiting.as_mut().poll(context).map(drop)
    })
    .await;
}

#[cfg(test)]
mod tests;
