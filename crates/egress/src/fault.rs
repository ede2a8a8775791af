//! Why nothing came back from outside.

use std::{io, net::IpAddr, time::Duration};

/// What a deadline ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Resolving, connecting, or the TLS handshake.
    Connect,
    /// Waiting for the head of the answer.
    Head,
    /// Waiting for the rest of the answer.
    Body,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connect => "connection",
            Self::Head => "answer",
            Self::Body => "complete answer",
        })
    }
}

/// What broke, as the library of the HTTP version says it.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// HTTP/1.1.
    #[error(transparent)]
    One(#[from] hyper::Error),
    /// HTTP/2.
    #[error(transparent)]
    Two(#[from] h2::Error),
}

/// Why a request got no answer. [`EgressFault::may_have_arrived`] tells whether it had an effect.
#[derive(Debug, thiserror::Error)]
pub enum EgressFault {
    /// The name has no address.
    #[error("cannot resolve `{host}`; check the name and this machine's DNS")]
    Resolve {
        /// The host of the URL.
        host: String,
        /// What the resolver said.
        #[source]
        cause: io::Error,
    },
    /// Every address of the name is off limits.
    #[error("`{host}` is at {address}, {what} address{}", blocked_fix(*.never))]
    Blocked {
        /// The host of the URL.
        host: String,
        /// The first address that was refused.
        address: IpAddr,
        /// What kind of address it is, with its article.
        what: &'static str,
        /// Whether nothing opens it; otherwise `internal` would.
        never: bool,
    },
    /// No connection came about.
    #[error("cannot connect to `{host}` at {address}; check that the server runs and listens there")]
    Connect {
        /// The host of the URL.
        host: String,
        /// The last address that was tried.
        address: std::net::SocketAddr,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Nobody listens on the Unix socket.
    #[error("cannot connect to the socket {}; check that the other side runs, listens there, and lets this user in", .path.display())]
    Socket {
        /// The socket.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The server could not prove who it is, or spoke no TLS.
    #[error(
        "no trusted TLS connection to `{host}`; check its certificate, or name its certificate authority (`ca` in the configuration, `--ca-file` of `durward connect`)"
    )]
    Tls {
        /// The host of the URL.
        host: String,
        /// What rustls said.
        #[source]
        cause: io::Error,
    },
    /// A deadline passed.
    #[error("`{host}` gave no {phase} within {}", human(*.after))]
    Timeout {
        /// The host of the URL.
        host: String,
        /// What was waited for.
        phase: Phase,
        /// How long.
        after: Duration,
    },
    /// The connection broke after the request was sent, before its answer was complete.
    #[error("`{host}` closed the connection without a complete answer")]
    Closed {
        /// The host of the URL.
        host: String,
        /// What the library said.
        #[source]
        cause: Broken,
    },
    /// The connection broke before the request was sent.
    #[error("`{host}` closed the connection before the request was sent")]
    Unsent {
        /// The host of the URL.
        host: String,
        /// What the library said.
        #[source]
        cause: Broken,
    },
    /// The answer is not HTTP as we take it.
    #[error(
        "`{host}` does not answer in the HTTP it was asked in; check the port and the scheme of its URL, and `http2`"
    )]
    Http {
        /// The host of the URL.
        host: String,
        /// What the library said, where it noticed.
        #[source]
        cause: Option<Broken>,
    },
    /// The port wants TLS, and the URL has none.
    #[error("`{host}` answers in TLS on this port; write https in its URL")]
    InTls {
        /// The host of the URL.
        host: String,
    },
    /// The answer is longer than allowed.
    #[error("the answer of `{host}` is longer than {limit} bytes")]
    TooLarge {
        /// The host of the URL.
        host: String,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The URL is not one that may be dialled.
    #[error("the URL cannot be used")]
    Endpoint(#[from] crate::EndpointFault),
}

impl EgressFault {
    /// Whether the other side may have taken the request. `false` is a promise: nothing was sent, or – [`EgressFault::InTls`] –
    /// to somebody who could not read it as a request. It did travel in the clear then.
    pub const fn may_have_arrived(&self) -> bool {
        match self {
            Self::Resolve { .. }
            | Self::Blocked { .. }
            | Self::Connect { .. }
            | Self::Socket { .. }
            | Self::Tls { .. }
            // Who waits for TLS reads no request.
            | Self::InTls { .. }
            | Self::Unsent { .. }
            | Self::Endpoint(_)
            | Self::Timeout { phase: Phase::Connect, .. } => false,
            Self::Timeout { phase: Phase::Head | Phase::Body, .. }
            | Self::Closed { .. }
            | Self::Http { .. }
            | Self::TooLarge { .. } => true,
        }
    }

    /// Whether it was a deadline.
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }

    /// A word for metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Resolve { .. } => "resolve",
            Self::Blocked { .. } => "blocked",
            Self::Connect { .. } | Self::Socket { .. } => "connect",
            Self::Tls { .. } | Self::InTls { .. } => "tls",
            Self::Timeout { .. } => "timeout",
            Self::Closed { .. } => "closed",
            Self::Unsent { .. } => "unsent",
            Self::Http { .. } => "http",
            Self::TooLarge { .. } => "too_large",
            Self::Endpoint(_) => "endpoint",
        }
    }
}

/// What to do about a blocked address.
pub(crate) const fn blocked_fix(never: bool) -> &'static str {
    if never { ", which is never dialled" } else { "; mark the server `internal: true` if it is meant to be there" }
}

fn human(time: Duration) -> String {
    format!("{time:?}")
}
