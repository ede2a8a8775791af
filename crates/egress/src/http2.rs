//! HTTP/2 over one connection that many requests share.
//!
//! A request that the server certainly did not take is handed back; whatever else goes wrong may have arrived. Never
//! opens a connection and never pools one.

use crate::{Broken, EgressFault, Endpoint, Phase, body::Body, connect::Open};
use bytes::Bytes;
use h2::{Reason, client::SendRequest};
use http::{
    HeaderName, Request, Response, Uri,
    header::{CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    uri::Scheme,
};
use http_body::Body as _;
use http_body_util::Full;
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};

/// The longest head of an answer, in bytes.
const HEAD: u32 = 64 * 1024;
/// Requests under way on one connection, however many more the server would take.
const STREAMS: u32 = 100;
/// What a server may send on one stream before it is read.
const WINDOW: u32 = 64 * 1024;
/// What it may send on all of them: one that nobody reads takes nothing from the others.
const WINDOWS: u32 = WINDOW * (STREAMS + 1);
/// Headers of a connection, which HTTP/2 does not have (RFC 9113 §8.2.2).
static OF_CONNECTION: [HeaderName; 7] = [
    HOST,
    CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// A connection with its streams. Cheap to clone; ends when the last clone and the last stream are gone.
#[derive(Clone)]
pub(crate) struct Shared {
    sender: SendRequest<Bytes>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    active: AtomicUsize,
    /// Nothing is sent over it any more.
    retired: AtomicBool,
}

/// Room for one stream, given back when dropped.
pub(crate) struct Room(Shared);

impl Drop for Room {
    fn drop(&mut self) {
        self.0.state.active.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Shared {
    /// Begins to speak.
    pub(crate) async fn start<S>(stream: S, open: Open) -> Result<Self, h2::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, driver) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOWS)
            .max_header_list_size(HEAD)
            .handshake::<_, Bytes>(stream)
            .await?;
        let state = Arc::new(State::default());
        let ended = Arc::clone(&state);
        tokio::spawn(async move {
            let _open = open;
            if let Err(fault) = driver.await {
                tracing::trace!(%fault, "outbound connection ended");
            }
            ended.retired.store(true, Ordering::Release);
        });
        Ok(Self { sender, state })
    }

    /// Room for one more stream, unless the connection has none: a stream that stays open must hold up no other call.
    pub(crate) fn enter(&mut self) -> Option<Room> {
        let most = self.sender.current_max_send_streams().min(usize::try_from(STREAMS).unwrap_or(usize::MAX));
        if self.is_over() || self.state.active.fetch_add(1, Ordering::AcqRel) >= most {
            self.state.active.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Room(self.clone()))
    }

    /// Whether it takes no more requests.
    pub(crate) fn is_over(&mut self) -> bool {
        let ready = self.sender.poll_ready(&mut Context::from_waker(Waker::noop()));
        self.state.retired.load(Ordering::Acquire) || matches!(ready, Poll::Ready(Err(_)))
    }

    /// Whether nothing is under way on it.
    pub(crate) fn is_idle(&self) -> bool {
        self.state.active.load(Ordering::Acquire) == 0
    }

    /// Takes no more requests. Those under way go on.
    fn retire(&self) {
        self.state.retired.store(true, Ordering::Release);
    }
}

/// A request without an answer, and whether the server certainly did not take it.
pub(crate) struct Refused {
    pub(crate) fault: EgressFault,
    pub(crate) untaken: bool,
}

/// Sends over one connection and waits for the head.
pub(crate) async fn exchange(
    endpoint: &Endpoint,
    mut room: Room,
    request: &Request<Full<Bytes>>,
    until: Instant,
    deadline: Duration,
) -> Result<Response<Body>, Refused> {
    let host = || endpoint.host().to_owned();
    let head = head(endpoint, request).map_err(|fault| Refused { fault, untaken: true })?;
    let body = whole(request.body());
    let is_empty = body.is_empty();
    let unsent = |cause: h2::Error| Refused {
        fault: EgressFault::Unsent { host: host(), cause: Broken::Two(cause) },
        untaken: true,
    };
    let (answer, mut upload) = room.0.sender.send_request(head, is_empty).map_err(unsent)?;
    if !is_empty {
        // It lies in memory as a whole: what the window does not let out yet waits there.
        upload.send_data(body, true).map_err(|cause| broken(endpoint, cause))?;
    }
    match timeout_at(until, answer).await {
        Ok(Ok(response)) => Ok(response.map(|stream| Body::shared(stream, room))),
        Ok(Err(cause)) => {
            if cause.is_go_away() || cause.is_io() {
                room.0.retire();
            }
            Err(broken(endpoint, cause))
        }
        Err(_) => {
            // Nobody knows whether it still lives: it gets no more to do.
            room.0.retire();
            let fault = EgressFault::Timeout { host: host(), phase: Phase::Head, after: deadline };
            Err(Refused { fault, untaken: false })
        }
    }
}

/// What an error after sending means.
fn broken(endpoint: &Endpoint, cause: h2::Error) -> Refused {
    let host = endpoint.host().to_owned();
    // SPEC: RFC 9113 §8.7. A stream that the server refused it did not process, nor one beyond the last that its GOAWAY
    // names; those up to that one the library leaves alone.
    let refused = cause.is_reset() && cause.reason() == Some(Reason::REFUSED_STREAM);
    let untaken = cause.is_remote() && (refused || cause.is_go_away());
    let is_protocol = cause.is_library();
    let cause = Broken::Two(cause);
    let fault = if untaken {
        EgressFault::Unsent { host, cause }
    } else if is_protocol {
        EgressFault::Http { host, cause: Some(cause) }
    } else {
        EgressFault::Closed { host, cause }
    };
    Refused { fault, untaken }
}

/// The bytes of a body that is there already.
fn whole(body: &Full<Bytes>) -> Bytes {
    let mut body = body.clone();
    let frame = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
    match frame {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        Poll::Ready(Some(Err(never))) => match never {},
        Poll::Ready(None) | Poll::Pending => Bytes::new(),
    }
}

/// The head as HTTP/2 has it: whole URI, nothing of a connection.
fn head(endpoint: &Endpoint, request: &Request<Full<Bytes>>) -> Result<Request<()>, EgressFault> {
    let scheme = if endpoint.secure.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
    let mut uri = Uri::builder().scheme(scheme).authority(endpoint.authority().as_bytes());
    if let Some(target) = request.uri().path_and_query() {
        uri = uri.path_and_query(target.clone());
    }
    let uri = uri.build().map_err(|cause| EgressFault::Endpoint(crate::EndpointFault::Path(cause)))?;
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = uri;
    *head.headers_mut() = request.headers().clone();
    for name in &OF_CONNECTION {
        head.headers_mut().remove(name);
    }
    Ok(head)
}
