//! What the binary hands in: plain data, already checked. The gateway reads no file and no environment.

use crate::rim::Certificates;
use http::HeaderName;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use vocab::{Class, EnvironmentName, SecretName, ServerName, TenantId};

/// Everything one snapshot is built from, besides policies, agents and limits, which have crates of their own.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The tenant of everything here.
    pub tenant: TenantId,
    /// What clients dial, for metadata; none means the listener's own address.
    pub public_url: Option<String>,
    /// Clients come over TLS: what they dial begins with `https`.
    pub tls: bool,
    /// Hosts that may stand in `Host`, besides the listener's own address and the public URL's.
    pub hosts: Vec<String>,
    /// Origins that may stand in `Origin`, besides the public URL's.
    pub origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` names the peer.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// The upstreams.
    pub servers: BTreeMap<ServerName, ServerSettings>,
    /// Every intent waits for the disk, reads too.
    pub strict: bool,
    /// Bounds of the rim.
    pub bounds: Bounds,
    /// URLs of configured token issuers: advertised as authorization servers (RFC 9728).
    pub issuers: Vec<String>,
    /// Spans are exported: requests to servers name ours.
    pub traces: bool,
}

/// Where the data plane listens and how wide it is. Changing these needs a restart.
#[derive(Debug, Clone)]
pub struct Listening {
    /// Where, at least one place.
    pub listeners: Vec<Listener>,
    /// What clients from the network are shown before they may speak; none means without TLS.
    pub tls: Option<Arc<Certificates>>,
    /// Connections from the network come from a trusted proxy, which says first who connected to it (PROXY protocol).
    pub proxied: bool,
    /// Worker threads, each with its own accept socket.
    pub workers: usize,
    /// Open client connections.
    pub connections: usize,
}

/// One place that is listened on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listener {
    /// An address; port 0 takes a free one.
    Network(SocketAddr),
    /// A socket in the file system, and who may connect.
    Unix {
        /// Where.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

impl Listener {
    /// The address, if this is one of the network.
    pub const fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Network(address) => Some(*address),
            Self::Unix { .. } => None,
        }
    }
}

/// Stated bounds of everything that a peer can make grow.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Request body, in bytes.
    pub body: usize,
    /// Answer or streamed event of an upstream, in bytes.
    pub answer: usize,
    /// Nesting of JSON.
    pub depth: usize,
    /// Time until an upstream's answer begins.
    pub deadline: Duration,
    /// Time between two events of a stream.
    pub stream_idle: Duration,
    /// Legacy sessions of one principal.
    pub sessions_per_principal: usize,
    /// Time a legacy session is kept without a message.
    pub session_idle: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            body: 4 << 20,
            answer: 16 << 20,
            depth: 64,
            deadline: Duration::from_mins(1),
            stream_idle: Duration::from_mins(5),
            sessions_per_principal: 64,
            session_idle: Duration::from_mins(30),
        }
    }
}

/// One upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// How it is reached.
    pub transport: TransportSettings,
    /// The environment it belongs to.
    pub environment: Option<EnvironmentName>,
    /// Credentials put into each of its calls.
    pub credentials: Vec<CredentialSettings>,
    /// Client headers that travel on. `Authorization` and cookies never do.
    pub headers: Vec<HeaderName>,
    /// Classification by tool glob; the first match in this order holds.
    pub tools: Vec<ToolSettings>,
    /// Time until its answer begins; none means the gateway's.
    pub deadline: Option<Duration>,
    /// Calls in flight.
    pub calls_in_flight: usize,
    /// What it speaks; none means: find out.
    pub era: Option<EraSettings>,
    /// Whether clients of an era that it does not speak are carried over to it.
    pub bridged: bool,
}

/// Which eras an upstream speaks, as the operator knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EraSettings {
    /// Revisions up to 2025-11-25.
    Legacy,
    /// 2026-07-28 and later.
    Modern,
    /// Both.
    Both,
}

/// How an upstream is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportSettings {
    /// Streamable HTTP.
    Http {
        /// Its address.
        url: String,
        /// Whether private addresses are allowed.
        internal: bool,
        /// Roots other than the system's, as PEM.
        ca: Option<Vec<u8>>,
        /// HTTP/2 alone, or HTTP/1.1 alone; none leaves it to the server.
        http2: Option<bool>,
        /// A Unix socket that is dialled in place of the address.
        socket: Option<PathBuf>,
        /// It speaks the transport of 2024-11-05, HTTP with SSE: a stream that lasts, and POSTs beside it.
        lasting: bool,
    },
    /// A process on standard input and output.
    Stdio {
        /// Program and arguments.
        command: Vec<String>,
        /// Plain environment.
        env: BTreeMap<String, String>,
        /// Working directory.
        dir: Option<PathBuf>,
        /// One process for everybody.
        shared: bool,
        /// Address space of the process, in bytes.
        memory: Option<u64>,
    },
}

/// One credential and where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CredentialSettings {
    /// The secret in the vault.
    pub secret: SecretName,
    /// Where it goes.
    pub place: Place,
}

/// Where a credential goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// `Authorization: Bearer …`
    Bearer,
    /// A header of its own.
    Header(HeaderName),
    /// A query parameter.
    Query(String),
    /// An environment variable of the process.
    Environment(String),
}

/// How the operator classifies tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolSettings {
    /// Glob over the tool's name.
    pub tools: String,
    /// Its class.
    pub class: Class,
    /// Labels policies may ask for.
    pub labels: Vec<String>,
    /// Calls go through without a look at the schema.
    pub danger_skip_schema: bool,
}

impl Settings {
    /// Whether this address is a proxy whose word counts.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(&address.to_canonical()))
    }

    /// Whether `Host` may say this: the loopback names, the address that was dialled, the public URL's host, and what
    /// is listed. An address is no danger: no name of somebody else's can be bound to it.
    pub fn allows_host(&self, host: &str, dialled: Option<IpAddr>) -> bool {
        let name = without_port(host);
        let loopback = || matches!(name, "localhost" | "127.0.0.1" | "[::1]");
        let address =
            || name.trim_start_matches('[').trim_end_matches(']').parse().ok().map(|ip: IpAddr| ip.to_canonical());
        let own = || dialled.is_some_and(|dialled| address() == Some(dialled.to_canonical()));
        let public =
            || self.public_url.as_deref().and_then(authority).is_some_and(|public| public.eq_ignore_ascii_case(host));
        loopback()
            || own()
            || public()
            || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host) || known.eq_ignore_ascii_case(name))
    }

    /// Whether `Origin` may say this: a page on a loopback name, the public URL's origin, and what is listed.
    pub fn allows_origin(&self, origin: &str) -> bool {
        let Some(place) = authority(origin) else { return false };
        let loopback = matches!(without_port(place), "localhost" | "127.0.0.1" | "[::1]");
        let public =
            self.public_url.as_deref().and_then(authority).is_some_and(|public| public.eq_ignore_ascii_case(place));
        loopback || public || self.origins.iter().any(|known| known.eq_ignore_ascii_case(origin))
    }
}

/// What stands between scheme and path.
fn authority(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    rest.split('/').next()
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}
