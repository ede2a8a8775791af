//! Where to dial, parsed once at load. Never resolves a name.

use crate::{
    address::{self, Blocked},
    fault::blocked_fix,
    tls::{Clients, Roots, TlsError},
};
use http::{HeaderValue, Uri};
use rustls::pki_types::ServerName;
use std::{
    fmt, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};
use url::{Host, Url};

/// Why a URL cannot be dialled.
#[derive(Debug, thiserror::Error)]
pub enum EndpointFault {
    /// Not a URL.
    #[error("`{text}` is not a URL such as https://example.com/mcp")]
    Url {
        /// The text, without what may be a credential.
        text: String,
        /// What is wrong with it.
        #[source]
        cause: url::ParseError,
    },
    /// The file of trusted certificates cannot be read.
    #[error("cannot read the trusted certificates in {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Neither `http` nor `https`.
    #[error("`{0}` is not a scheme that can be dialled; use https")]
    Scheme(String),
    /// No host, or one that no certificate can name.
    #[error("the URL names no usable host")]
    Host,
    /// The port is 0.
    #[error("port 0 cannot be dialled")]
    Port,
    /// A name or password before `@`.
    #[error(
        "a URL must not carry a name or password; put the credential into the vault and name it under `credential`"
    )]
    UserInfo,
    /// Something after `#`.
    #[error("a URL must not carry a fragment: what follows `#` is never sent")]
    Fragment,
    /// Plain HTTP to the outside.
    #[error(
        "`{0}` would be dialled without TLS; use https, or mark the server `internal: true` if it is inside your network"
    )]
    PlainHttp(String),
    /// An address that may not be dialled.
    #[error("{address} is {what} address{}", blocked_fix(*.never))]
    Blocked {
        /// The address.
        address: IpAddr,
        /// What kind of address it is, with its article.
        what: &'static str,
        /// Whether nothing opens it; otherwise `internal` would.
        never: bool,
    },
    /// A Unix socket of a target that is not marked.
    #[error("{} is a socket of this machine; mark the server `internal: true` if it is meant to be there", .0.display())]
    Socket(PathBuf),
    /// The path or query cannot be sent.
    #[error("the path of the URL cannot be sent")]
    Path(#[source] http::Error),
    /// The roots cannot be used.
    #[error("the trusted certificates cannot be used")]
    Roots(#[source] TlsError),
}

/// Which HTTP a server is spoken to in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// What it chooses in the TLS handshake, HTTP/2 first; without TLS HTTP/1.1.
    #[default]
    Offered,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, without TLS too: whoever configures it knows that the server speaks it.
    Http2,
}

/// One place to send requests to. Connections are shared per endpoint value: parsing the same URL again makes an endpoint
/// that shares none with the first. A reload keeps the value of a server that stays, and never reuses an old target.
pub struct Endpoint {
    pub(crate) id: u64,
    pub(crate) address: Address,
    pub(crate) port: u16,
    pub(crate) secure: Option<Secure>,
    pub(crate) internal: bool,
    pub(crate) protocol: Protocol,
    /// A Unix socket that is dialled in place of the host.
    pub(crate) socket: Option<PathBuf>,
    host: Box<str>,
    authority: HeaderValue,
    uri: Uri,
}

/// How the host is written.
pub(crate) enum Address {
    Name,
    Literal(IpAddr),
}

/// What TLS needs to know.
pub(crate) struct Secure {
    pub(crate) name: ServerName<'static>,
    /// The endpoint's own trust; `None` is the connector's.
    pub(crate) clients: Option<Clients>,
}

impl Endpoint {
    /// Parses a URL as it is configured, and reads the file of trusted certificates that replaces the system's.
    pub fn parse(text: &str, internal: bool, ca: Option<&Path>) -> Result<Self, EndpointFault> {
        let url = Url::parse(text).map_err(|cause| EndpointFault::Url { text: veil(text), cause })?;
        let roots = match ca {
            None => None,
            Some(path) => {
                let pem = std::fs::read(path).map_err(|cause| EndpointFault::File { path: path.to_owned(), cause })?;
                Some(Roots::from_pem(&pem).map_err(EndpointFault::Roots)?)
            }
        };
        Self::new(&url, internal, roots.as_ref())
    }

    /// Takes a URL. `internal` opens private addresses and plain HTTP; `roots` replaces whom TLS trusts.
    pub fn new(url: &Url, internal: bool, roots: Option<&Roots>) -> Result<Self, EndpointFault> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let host = url.host().ok_or(EndpointFault::Host)?;
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            other => return Err(EndpointFault::Scheme(other.to_owned())),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EndpointFault::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(EndpointFault::Fragment);
        }
        let port = url.port_or_known_default().filter(|port| *port != 0).ok_or(EndpointFault::Port)?;
        let address = match host {
            Host::Domain("") => return Err(EndpointFault::Host),
            Host::Domain(_) => Address::Name,
            Host::Ipv4(address) => Address::Literal(address.into()),
            Host::Ipv6(address) => Address::Literal(address.into()),
        };
        if let Address::Literal(address) = address
            && let Some(Blocked { what, never }) = address::judge(address).blocked(internal)
        {
            return Err(EndpointFault::Blocked { address, what, never });
        }
        let host = host.to_string();
        if !https && !internal {
            return Err(EndpointFault::PlainHttp(host));
        }
        let secure = if https {
            let clients = roots.map(Roots::clients).transpose().map_err(EndpointFault::Roots)?;
            Some(Secure { name: server_name(&address, &host)?, clients })
        } else {
            None
        };
        // The default port is not written: servers compare this with their own name.
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        };
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            address,
            port,
            secure,
            internal,
            protocol: Protocol::Offered,
            socket: None,
            host: host.into_boxed_str(),
            authority: HeaderValue::try_from(authority).map_err(|_| EndpointFault::Host)?,
            uri: Uri::builder().path_and_query(target(url)).build().map_err(EndpointFault::Path)?,
        })
    }

    /// The same place, spoken to in this way.
    #[must_use]
    pub const fn speaking(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// The same place behind a Unix socket of this machine: the host of the URL is what the server hears, and is not
    /// resolved.
    pub fn through(mut self, socket: &Path) -> Result<Self, EndpointFault> {
        // SECURITY: whoever listens there is inside, like a private address.
        if !self.internal {
            return Err(EndpointFault::Socket(socket.to_owned()));
        }
        self.socket = Some(socket.to_owned());
        Ok(self)
    }

    /// Path and query as configured: the URI of a request to exactly this endpoint. Cheap to clone.
    pub const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The `Host` header: the port only where it is not the scheme's own.
    pub const fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// The host, IPv6 addresses in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port that is dialled.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether the operator marked the target as inside.
    pub const fn is_internal(&self) -> bool {
        self.internal
    }
}

impl fmt::Debug for Endpoint {
    /// Leaves path and query out: they can carry a credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure.is_some() { "https" } else { "http" };
        write!(f, "Endpoint({scheme}://{}:{})", self.host, self.port)
    }
}

/// What of an unreadable URL may be shown: nothing before `@`, nothing after `?`.
fn veil(text: &str) -> String {
    let shown = text.split(['?', '#']).next().unwrap_or_default();
    match shown.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => shown.to_owned(),
    }
}

fn target(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

fn server_name(address: &Address, host: &str) -> Result<ServerName<'static>, EndpointFault> {
    match address {
        Address::Literal(address) => Ok(ServerName::IpAddress((*address).into())),
        // Certificates name no trailing dot.
        Address::Name => ServerName::try_from(host.trim_end_matches('.').to_owned()).map_err(|_| EndpointFault::Host),
    }
}
