//! Resolve, judge, connect to the very address that was judged, send, wait for the head.
//!
//! The only place in Durward that opens an outbound connection.

use crate::{
    Body, Broken, EgressFault, Endpoint, Phase, Protocol, Resolver, Roots, TlsError,
    address::{self, Blocked},
    endpoint::Address,
    first::{First, InTls},
    http2::{self, Refused, Room, Shared},
    pool::{self, Key, Lease, Sender, Taken},
    tls::{Clients, H2},
};
use bytes::{Bytes, BytesMut};
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ACCEPT, CONTENT_LENGTH, HOST, HeaderMap, TRANSFER_ENCODING},
};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use std::{
    fmt, io,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;
use url::Url;

/// The longest head of an answer, in bytes.
const HEAD: usize = 64 * 1024;
/// Where a server says how long it keeps an idle connection.
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// What a connector needs to know.
#[derive(Debug)]
pub struct Settings {
    /// Whom TLS trusts where an endpoint says nothing else.
    pub roots: Roots,
    /// Where addresses come from.
    pub resolver: Resolver,
    /// How long resolving, connecting and the TLS handshake may take together.
    pub connect_deadline: Duration,
}

impl Default for Settings {
    /// The system's roots and names, 10 seconds.
    fn default() -> Self {
        Self { roots: Roots::system(), resolver: Resolver::System, connect_deadline: Duration::from_secs(10) }
    }
}

/// The outbound connector. One for the whole process; idle connections belong to the thread that opened them.
pub struct Egress {
    id: u64,
    resolver: Resolver,
    clients: Clients,
    trusts_nobody: bool,
    connect_deadline: Duration,
    /// Open connections.
    open: Arc<AtomicUsize>,
}

/// Counts an open connection until it is dropped, by whatever ends it.
pub(crate) struct Open(Arc<AtomicUsize>);

impl Open {
    fn count(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Egress {
    /// Sets up TLS. Opens no connection.
    pub fn new(settings: Settings) -> Result<Self, TlsError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            clients: settings.roots.clients()?,
            trusts_nobody: settings.roots.is_empty(),
            resolver: settings.resolver,
            connect_deadline: settings.connect_deadline,
            open: Arc::default(),
        })
    }

    /// How many connections are open, in use or kept for the next request.
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Sends a request and returns its answer once the head is there.
    ///
    /// `credential` says who may share a connection: same value, same connections. The request's URI gives path
    /// and query ([`Endpoint::uri`]); `Host` and the framing headers are set here. `deadline` ends
    /// when the head has arrived; the body is the caller's to time. A redirect is an answer
    /// like any other. Must run inside a tokio runtime. Request and answer are boxed: each step would keep a copy of its own
    /// for as long as it waits, or make one.
    pub async fn send(
        &self,
        endpoint: &Endpoint,
        credential: u64,
        request: Box<Request<Full<Bytes>>>,
        deadline: Duration,
    ) -> Result<Box<Response<Body>>, EgressFault> {
        let key = Key { egress: self.id, endpoint: endpoint.id, credential };
        let now = Instant::now();
        let until = now + deadline;
        let mut request = prepare(endpoint, request);
        match Lease::take(key, now) {
            Some(Taken::Own(lease)) => match exchange(endpoint, lease, request, until, deadline).await {
                Ok(response) => return Ok(response),
                // The server dropped the idle connection; hyper hands back what it never wrote.
                Err(Failed { unsent: Some(unsent), .. }) => request = unsent,
                Err(Failed { fault, .. }) => return Err(fault),
            },
            Some(Taken::Shared(room)) => {
                match Box::pin(http2::exchange(endpoint, room, &request, until, deadline)).await {
                    Ok(response) => return Ok(Box::new(response)),
                    // The server says that it did not take it, or it never left.
                    Err(Refused { untaken: true, .. }) => {}
                    Err(Refused { fault, .. }) => return Err(fault),
                }
            }
            None => {}
        }
        match Box::pin(self.open(endpoint, until, deadline)).await? {
            Opened::Own(sender, in_tls) => {
                let lease = Lease::new(sender, key);
                let sent = exchange(endpoint, lease, request, until, deadline).await;
                sent.map_err(|failed| in_tls.or(failed.fault, endpoint.host()))
            }
            Opened::Shared(connection) => {
                pool::share(connection.clone(), key);
                let room = enter(endpoint, connection)?;
                let sent = Box::pin(http2::exchange(endpoint, room, &request, until, deadline)).await;
                sent.map(Box::new).map_err(|refused| refused.fault)
            }
        }
    }

    /// Gets one small document, over a connection of its own. `limit` bounds the answer in bytes, `deadline` the whole of it.
    pub async fn fetch(
        &self,
        url: &Url,
        internal: bool,
        limit: usize,
        deadline: Duration,
    ) -> Result<(StatusCode, Bytes), EgressFault> {
        let endpoint = Endpoint::new(url, internal, None)?;
        let until = Instant::now() + deadline;
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = endpoint.uri().clone();
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));

        let request = prepare(&endpoint, Box::new(request));
        let late = |phase| EgressFault::Timeout { host: endpoint.host().to_owned(), phase, after: deadline };
        let (head, mut body) = match self.open(&endpoint, until, deadline).await? {
            Opened::Own(mut sender, in_tls) => {
                let response = timeout_at(until, sender.send_request(*request)).await.map_err(|_| late(Phase::Head))?;
                let unheard = |cause| in_tls.or(broken(&endpoint, Broken::One(cause)), endpoint.host());
                let response = response.map_err(unheard)?;
                response.map(|incoming| Body::new(incoming, None))
            }
            Opened::Shared(connection) => {
                let room = enter(&endpoint, connection)?;
                let sent = http2::exchange(&endpoint, room, &request, until, deadline).await;
                sent.map_err(|refused| refused.fault)?
            }
        }
        .into_parts();
        let mut text = BytesMut::new();
        while let Some(frame) = timeout_at(until, body.frame()).await.map_err(|_| late(Phase::Body))? {
            let Ok(data) = frame.map_err(|cause| broken(&endpoint, cause))?.into_data() else { continue };
            if text.len() + data.len() > limit {
                return Err(EgressFault::TooLarge { host: endpoint.host().to_owned(), limit });
            }
            text.extend_from_slice(&data);
        }
        Ok((head.status, text.freeze()))
    }

    /// Opens a connection, within the connect deadline and the caller's.
    async fn open(&self, endpoint: &Endpoint, until: Instant, deadline: Duration) -> Result<Opened, EgressFault> {
        let after = self.connect_deadline.min(deadline);
        let until = until.min(Instant::now() + self.connect_deadline);
        timeout_at(until, async {
            match &endpoint.socket {
                None => self.speak(endpoint, self.dial(endpoint, until).await?).await,
                Some(path) => self.speak(endpoint, reach(path).await?).await,
            }
        })
        .await
        .unwrap_or_else(|_| {
            Err(EgressFault::Timeout { host: endpoint.host().to_owned(), phase: Phase::Connect, after })
        })
    }

    /// Begins TLS where it is due, and HTTP.
    async fn speak<S>(&self, endpoint: &Endpoint, stream: S) -> Result<Opened, EgressFault>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let open = Open::count(&self.open);
        let in_tls = InTls::default();
        match &endpoint.secure {
            None => {
                let stream = First::of(stream, &in_tls);
                start(endpoint, stream, in_tls, open, endpoint.protocol == Protocol::Http2).await
            }
            Some(secure) => {
                let fault = |cause| EgressFault::Tls { host: endpoint.host().to_owned(), cause };
                if secure.clients.is_none() && self.trusts_nobody {
                    return Err(fault(io::Error::other("this system has no trusted certificates")));
                }
                let client = secure.clients.as_ref().unwrap_or(&self.clients).of(endpoint.protocol);
                let connector = TlsConnector::from(Arc::clone(client));
                let stream = connector.connect(secure.name.clone(), stream).await.map_err(fault)?;
                let chosen = stream.get_ref().1.alpn_protocol() == Some(H2);
                if endpoint.protocol == Protocol::Http2 && !chosen {
                    return Err(EgressFault::Http { host: endpoint.host().to_owned(), cause: None });
                }
                start(endpoint, stream, in_tls, open, chosen).await
            }
        }
    }

    /// Connects to the first address that may be dialled and answers.
    async fn dial(&self, endpoint: &Endpoint, until: Instant) -> Result<TcpStream, EgressFault> {
        let host = || endpoint.host().to_owned();
        let addresses = match endpoint.address {
            Address::Literal(address) => vec![SocketAddr::new(address, endpoint.port)],
            Address::Name => {
                let found = self.resolver.lookup(endpoint.host(), endpoint.port).await;
                found.map_err(|cause| EgressFault::Resolve { host: host(), cause })?
            }
        };
        // SECURITY: what is judged here is what is dialled below; the name is not asked again in between.
        let mut allowed = Vec::with_capacity(addresses.len());
        let mut fault = None;
        for address in addresses {
            match address::judge(address.ip()).blocked(endpoint.internal) {
                None => allowed.push(address),
                Some(Blocked { what, never }) => {
                    fault.get_or_insert(EgressFault::Blocked { host: host(), address: address.ip(), what, never });
                }
            }
        }
        for (tried, address) in allowed.iter().enumerate() {
            // One address that swallows packets must not use up the time of the others.
            let left = u32::try_from(allowed.len() - tried).unwrap_or(u32::MAX);
            let patience = Instant::now() + until.saturating_duration_since(Instant::now()) / left;
            let cause = match timeout_at(patience, connect(*address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(cause)) => cause,
                Err(_) => io::Error::from(io::ErrorKind::TimedOut),
            };
            fault = Some(EgressFault::Connect { host: host(), address: *address, cause });
        }
        Err(fault.unwrap_or_else(|| {
            let cause = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            EgressFault::Resolve { host: host(), cause }
        }))
    }
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress")
            .field("id", &self.id)
            .field("connect_deadline", &self.connect_deadline)
            .finish_non_exhaustive()
    }
}

/// How long a connection is silent before it is asked whether it lives, how often it is asked, and how often in vain.
const ALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);
/// How long what was sent may go unacknowledged.
#[cfg(target_os = "linux")]
const UNHEARD: Duration = Duration::from_mins(1);

/// Connects to a Unix socket of this machine.
#[expect(clippy::disallowed_methods, reason = "this is the room of outbound connections")]
async fn reach(path: &Path) -> Result<UnixStream, EgressFault> {
    UnixStream::connect(path).await.map_err(|cause| EgressFault::Socket { path: path.to_owned(), cause })
}

pub(crate) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the room of outbound connections; the address has been judged"
    )]
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    // A stream may be silent for as long as it likes; one whose other end is gone must not last for ever.
    let (time, interval, retries) = ALIVE;
    let alive = TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(retries);
    SockRef::from(&stream).set_tcp_keepalive(&alive)?;
    // While something is on its way there are no probes, and the system would try for a quarter of an hour.
    #[cfg(target_os = "linux")]
    SockRef::from(&stream).set_tcp_user_timeout(Some(UNHEARD))?;
    Ok(stream)
}

/// Starts HTTP on a fresh connection and leaves its driver to the runtime.
async fn start<S>(endpoint: &Endpoint, stream: S, in_tls: InTls, open: Open, http2: bool) -> Result<Opened, EgressFault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let unsent = |cause| EgressFault::Unsent { host: endpoint.host().to_owned(), cause };
    if http2 {
        let shared = Shared::start(stream, open).await.map_err(|cause| unsent(Broken::Two(cause)))?;
        return Ok(Opened::Shared(shared));
    }
    let (mut sender, driver) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|cause| unsent(Broken::One(cause)))?;
    tokio::spawn(async move {
        let _open = open;
        if let Err(fault) = driver.await {
            tracing::trace!(%fault, "outbound connection ended");
        }
    });
    sender.ready().await.map_err(|cause| unsent(Broken::One(cause)))?;
    Ok(Opened::Own(sender, in_tls))
}

/// A new connection.
enum Opened {
    /// For one request at a time; and whether the server answers in TLS.
    Own(Sender, InTls),
    /// For many.
    Shared(Shared),
}

/// Room for the first request of a new connection.
fn enter(endpoint: &Endpoint, mut connection: Shared) -> Result<Room, EgressFault> {
    connection.enter().ok_or_else(|| EgressFault::Http { host: endpoint.host().to_owned(), cause: None })
}

/// A request that got no answer, and itself if it was never written.
struct Failed {
    fault: EgressFault,
    unsent: Option<Box<Request<Full<Bytes>>>>,
}

/// Sends over one connection and waits for the head.
async fn exchange(
    endpoint: &Endpoint,
    mut lease: Lease,
    request: Box<Request<Full<Bytes>>>,
    until: Instant,
    deadline: Duration,
) -> Result<Box<Response<Body>>, Failed> {
    let lost = |fault| Failed { fault, unsent: None };
    let response = match timeout_at(until, lease.sender.try_send_request(*request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(mut failed)) => {
            let unsent = failed.take_message().map(Box::new);
            let cause = failed.into_error();
            let fault = match unsent {
                Some(_) => EgressFault::Unsent { host: endpoint.host().to_owned(), cause: Broken::One(cause) },
                None => broken(endpoint, Broken::One(cause)),
            };
            return Err(Failed { fault, unsent });
        }
        Err(_) => {
            let host = endpoint.host().to_owned();
            return Err(lost(EgressFault::Timeout { host, phase: Phase::Head, after: deadline }));
        }
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(lost(EgressFault::Http { host: endpoint.host().to_owned(), cause: None }));
    }
    if let Some(promised) = keep_alive(response.headers()) {
        lease.expect_close_after(promised);
    }
    Ok(Box::new(response.map(|incoming| Body::new(incoming, Some(lease)))))
}

/// Sets what belongs to the connection: target in origin form, `Host`, framing.
fn prepare(endpoint: &Endpoint, mut request: Box<Request<Full<Bytes>>>) -> Box<Request<Full<Bytes>>> {
    if request.uri().authority().is_some() {
        let target = request.uri().path_and_query().cloned();
        *request.uri_mut() = target.map_or_else(|| endpoint.uri().clone(), Uri::from);
    }
    let headers = request.headers_mut();
    // SECURITY: hyper believes these two; only the body itself says how long it is.
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRANSFER_ENCODING);
    headers.insert(HOST, endpoint.authority().clone());
    request
}

/// What an error after sending means.
fn broken(endpoint: &Endpoint, cause: Broken) -> EgressFault {
    let host = endpoint.host().to_owned();
    if matches!(&cause, Broken::One(cause) if cause.is_parse()) {
        EgressFault::Http { host, cause: Some(cause) }
    } else {
        EgressFault::Closed { host, cause }
    }
}

/// How long the server keeps an idle connection, where it says so (`Keep-Alive: timeout=5`).
fn keep_alive(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(&KEEP_ALIVE)?.to_str().ok()?;
    let seconds = value.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?;
    seconds.parse().ok().map(Duration::from_secs)
}
