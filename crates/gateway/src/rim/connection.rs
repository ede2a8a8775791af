//! From a connection that was accepted to one that speaks HTTP. Each step has a bound of time.

use super::{
    accept::Door,
    certificate::HTTP2,
    lasting::Rest,
    proxy::{self, HeaderFault, Said},
    replay::{Replay, Version, version},
    serve::{self, Ends, HEAD, stopped},
    tally::Ended,
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

/// How long a proxy may take to say who connected to it.
const HEADER: Duration = Duration::from_secs(5);
/// How long TLS may take to begin.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What HTTP goes over, whatever that is.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire for S {}

/// A connection of which it is known how it speaks.
enum Begun {
    /// The usual one has a type of its own: what it costs is counted.
    One(Replay<TcpStream>),
    /// HTTP/1 over anything else.
    Other(Box<dyn Wire>),
    /// HTTP/2.
    Two(Box<dyn Wire>),
}

/// Why a connection never came to HTTP.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// It comes from nobody whose word counts.
    #[error("`proxy_protocol` is on and this peer is not among `trusted_proxies`")]
    Stranger,
    /// The proxy's word is none.
    #[error(transparent)]
    Header(#[from] HeaderFault),
    /// It broke, or took too long.
    #[error(transparent)]
    Broken(#[from] io::Error),
}

impl Failure {
    /// Under which kind it counts. Whatever says nothing at all breaks within the header that it has not sent.
    const fn kind(&self) -> Ended {
        match self {
            Self::Stranger => Ended::Stranger,
            Self::Header(HeaderFault::Missing) => Ended::HeaderMissing,
            Self::Header(HeaderFault::Malformed(_)) => Ended::HeaderMalformed,
            Self::Header(HeaderFault::Broken(_)) | Self::Broken(_) => Ended::HeaderCut,
        }
    }
}

/// Carries a connection from the network to its end, or to a stream that lasts.
pub(super) async fn network(door: &Door, stream: TcpStream, peer: SocketAddr) -> Option<Rest> {
    // Small answers must not wait for the next one.
    let _ = stream.set_nodelay(true);
    let mut ends = Ends { peer: peer.ip(), dialled: stream.local_addr().ok().map(|own| own.ip()), may_name: true };
    let mut stopping = door.state.stopping.subscribe();
    let begun = tokio::select! {
        begun = begin(door, stream, &mut ends) => begun,
        () = stopped(&mut stopping) => return None,
    };
    let state = Arc::clone(&door.state);
    match begun {
        Ok(Begun::One(stream)) => return serve::http1(state, stream, ends).await,
        // Boxed: what is rare takes no room in what is not.
        Ok(Begun::Other(stream)) => return Box::pin(serve::http1(state, stream, ends)).await,
        Ok(Begun::Two(stream)) => Box::pin(serve::http2(state, stream, ends)).await,
        // What operators have configured wrongly is said to them; what strangers send is not worth a line.
        Err(fault @ (Failure::Stranger | Failure::Header(_))) => {
            if let Some(times) = state.tally.note(fault.kind(), state.clock.ticks()) {
                tracing::warn!(%peer, %fault, times, "a connection was closed");
            }
        }
        Err(Failure::Broken(fault)) => tracing::debug!(%peer, %fault, "a connection never came to HTTP"),
    }
    None
}

/// Carries a connection of a local socket as far. It is plain HTTP of somebody on this machine, who may have dialled
/// any name for it.
pub(super) async fn local(door: &Door, stream: UnixStream) -> Option<Rest> {
    // Who it is on this machine is for the mode of the socket to say: it counts as one address.
    let ends = Ends { peer: IpAddr::V4(Ipv4Addr::LOCALHOST), dialled: None, may_name: true };
    let mut stopping = door.state.stopping.subscribe();
    let begun = tokio::select! {
        begun = in_time(HEAD, version(stream)) => begun,
        () = stopped(&mut stopping) => return None,
    };
    let state = Arc::clone(&door.state);
    match begun {
        Ok((Version::One, stream)) => {
            return Box::pin(serve::http1(state, Box::new(stream) as Box<dyn Wire>, ends)).await;
        }
        Ok((Version::Two, stream)) => Box::pin(serve::http2(state, Box::new(stream) as Box<dyn Wire>, ends)).await,
        Err(fault) => tracing::debug!(%fault, "a local connection never came to HTTP"),
    }
    None
}

async fn begin(door: &Door, mut stream: TcpStream, ends: &mut Ends) -> Result<Begun, Failure> {
    if door.proxied {
        // SECURITY: judged by the address of the connection itself, before a byte of it is read.
        if !door.state.snapshot.load().settings.trusts(ends.peer) {
            return Err(Failure::Stranger);
        }
        let said = timeout(HEADER, Box::pin(proxy::read(&mut stream))).await;
        match said.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))? {
            Said::Client { from, to } => *ends = Ends { peer: from, dialled: Some(to), may_name: true },
            // SECURITY: a balancer that passes bytes on strips no header: what stands there is the client's own word.
            Said::Nobody => ends.may_name = false,
        }
    }
    let Some(tls) = &door.tls else {
        return Ok(match in_time(HEAD, version(stream)).await? {
            (Version::One, stream) => Begun::One(stream),
            (Version::Two, stream) => Begun::Two(Box::new(stream)),
        });
    };
    let stream = Box::pin(in_time(HANDSHAKE, tls.accept(stream))).await?;
    let version = stream.get_ref().1.alpn_protocol();
    Ok(if version == Some(HTTP2) { Begun::Two(Box::new(stream)) } else { Begun::Other(Box::new(stream)) })
}

async fn in_time<T>(time: Duration, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(time, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
