//! What the configuration says, as typed values. Past this point nothing is "maybe valid".
//!
//! Pure data: no secret is in here, only names of secrets. Relative paths are already joined with the folder of the
//! configuration file.

mod file;
mod listener;
mod written;

pub(crate) use file::PolicyFiles;
pub(crate) use listener::{Listen, SocketAccess, Tls};

use gateway::settings as plane;
use identity::{Algorithm, ClaimPath};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    time::Duration,
};
use url::Url;
use vocab::{AgentId, Class, EnvironmentName, RoleName, SecretName, ServerName};

/// The whole configuration. It is written by the keys of the file and in the forms of the file: what `config show` prints
/// can be read again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Settings {
    /// Where agents connect.
    #[serde(serialize_with = "written::one_or_more")]
    pub(crate) listen: Vec<Listen>,
    /// Who may connect to its sockets.
    #[serde(skip_serializing_if = "SocketAccess::is_owner")]
    pub(crate) socket_access: SocketAccess,
    /// TLS on its addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<Tls>,
    /// What clients dial, where it differs from `listen`.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "written::optional_text")]
    pub(crate) public_url: Option<Url>,
    /// The management listener.
    pub(crate) admin: Admin,
    /// The data directory.
    #[serde(serialize_with = "written::path")]
    pub(crate) data: PathBuf,
    /// Worker threads of the data plane; none: one per core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) workers: Option<NonZeroUsize>,
    /// Upstream servers.
    pub(crate) servers: BTreeMap<ServerName, Server>,
    /// The registry of agents.
    pub(crate) agents: BTreeMap<AgentId, Agent>,
    /// Issuers whose tokens are accepted.
    pub(crate) issuers: Vec<Issuer>,
    /// Where the policies are.
    pub(crate) policies: PolicyFiles,
    /// Files whose contents count from the next reload on, policies left out.
    #[serde(skip)]
    pub(crate) files: Vec<PathBuf>,
    /// Rate and concurrency limits, in the order of the file.
    pub(crate) limits: Vec<Limit>,
    /// What detectors do.
    pub(crate) detect: Detect,
    /// The log.
    pub(crate) log: Log,
    /// Telemetry that leaves the machine.
    pub(crate) telemetry: Telemetry,
    /// Bounds of everything that could grow.
    pub(crate) bounds: Bounds,
    /// The vault.
    pub(crate) vault: VaultSettings,
    /// Proxies whose `Forwarded` and `X-Forwarded-*` headers are believed.
    pub(crate) trusted_proxies: Vec<Network>,
    /// They say first who connected to them, by the PROXY protocol.
    pub(crate) proxy_protocol: bool,
    /// `Origin` values that browsers may send, beside the gateway's own.
    pub(crate) origins: Vec<String>,
    /// `Host` values that are served, beside the listener's own and that of `public_url`.
    pub(crate) hosts: Vec<String>,
    /// The agent that calls without a credential are taken for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) danger_allow_anonymous: Option<AgentId>,
    /// Serve plain HTTP off loopback although no proxy with TLS is declared.
    pub(crate) danger_plain_http: bool,
}

/// The management listener.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Admin {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
}

/// One upstream MCP server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Server {
    /// How it is reached.
    #[serde(flatten)]
    pub(crate) reach: Reach,
    /// The environment it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) environment: Option<EnvironmentName>,
    /// Secrets that its calls are given.
    #[serde(rename = "credential")]
    pub(crate) credentials: Vec<Credential>,
    /// Client headers that travel on, in lower case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) headers: Vec<String>,
    /// The operator's classification, in the order of the file; the first glob that matches a name counts.
    #[serde(serialize_with = "written::tools")]
    pub(crate) tools: Vec<ToolRule>,
    /// The longest a call may take until its answer begins.
    #[serde(serialize_with = "written::duration")]
    pub(crate) deadline: Duration,
    /// The most calls in flight at one time.
    pub(crate) calls_in_flight: usize,
    /// Which revisions of the protocol it is spoken to in.
    pub(crate) era: EraChoice,
    /// Clients of another era are carried over to it.
    pub(crate) bridge: bool,
}

/// How a server is reached.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reach {
    /// Over HTTP.
    Http {
        /// Its endpoint.
        url: Url,
        /// Private and loopback addresses are allowed.
        internal: bool,
        /// A file of trusted roots (PEM) instead of the system's.
        ca: Option<PathBuf>,
        /// HTTP/2 and nothing else, or HTTP/1.1 and nothing else.
        http2: Option<bool>,
        /// A Unix socket in place of the host.
        socket: Option<PathBuf>,
        /// The transport is that of 2024-11-05.
        sse: bool,
    },
    /// As a child process over stdin and stdout.
    Command {
        /// The program.
        program: String,
        /// Its arguments.
        arguments: Vec<String>,
        /// Its working directory; the folder of the configuration file unless given.
        directory: PathBuf,
        /// Plain variables of its environment. Secrets come from the vault, by `credential: { env: …, secret: … }`.
        env: BTreeMap<String, Hidden>,
        /// One process serves every caller.
        shared: bool,
        /// The most memory it may have, in bytes.
        memory: Option<u64>,
    },
}

/// One secret and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credential {
    /// Its name in the vault.
    pub(crate) secret: SecretName,
    /// Where it goes.
    pub(crate) place: Place,
}

/// Where a secret goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// `Authorization: Bearer …`.
    Bearer,
    /// A header, in lower case.
    Header(String),
    /// A parameter of the query.
    Query(String),
    /// A variable of the child's environment.
    Env(String),
}

/// What the operator says about tools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ToolRule {
    /// Names it speaks of; `*` matches any run of characters.
    #[serde(skip)]
    pub(crate) glob: String,
    /// The class. The server's annotations count for nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) class: Option<Class>,
    /// Labels that policies may ask for.
    pub(crate) labels: Vec<String>,
    /// Calls are not checked against the tool's schema.
    pub(crate) danger_skip_schema: bool,
}

/// Which revisions of the protocol a server is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EraChoice {
    /// Found out by asking.
    Auto,
    /// Revisions up to 2025-11-25.
    Legacy,
    /// Revision 2026-07-28 and later.
    Modern,
    /// Either, as the client.
    Both,
}

/// One registered agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Agent {
    /// Roles it has by itself; those of its token are added.
    pub(crate) roles: Vec<RoleName>,
    /// Environments it may reach; none: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) environments: Vec<EnvironmentName>,
    /// Groups it is in.
    pub(crate) groups: Vec<String>,
    /// Its calls are refused.
    pub(crate) disabled: bool,
}

/// A token issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Issuer {
    /// The `iss` of its tokens, as written: it is compared as text.
    pub(crate) url: String,
    /// Accepted `aud` values; never empty.
    #[serde(rename = "audience")]
    pub(crate) audiences: Vec<String>,
    /// Where its keys are.
    #[serde(skip_serializing_if = "Jwks::is_discovery")]
    pub(crate) jwks: Jwks,
    /// Accepted signature algorithms; never empty.
    #[serde(serialize_with = "written::texts")]
    pub(crate) algorithms: Vec<Algorithm>,
    /// The claim that names the agent.
    #[serde(serialize_with = "written::claim")]
    pub(crate) agent: ClaimPath,
    /// The claim that names the user.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "written::optional_claim")]
    pub(crate) user: Option<ClaimPath>,
    /// The claim that lists roles.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "written::optional_claim")]
    pub(crate) roles: Option<ClaimPath>,
    /// The claim that lists groups.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "written::optional_claim")]
    pub(crate) groups: Option<ClaimPath>,
    /// The claim that lists scopes.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "written::optional_claim")]
    pub(crate) scopes: Option<ClaimPath>,
    /// Accepted `typ` headers; a token without one counts as `JWT`. Never empty.
    #[serde(rename = "type")]
    pub(crate) token_types: Vec<String>,
    /// Tolerated difference of clocks.
    #[serde(serialize_with = "written::duration")]
    pub(crate) leeway: Duration,
    /// Its keys may come from a private address and over plain HTTP.
    pub(crate) internal: bool,
}

impl Issuer {
    /// Whether the keys of the one are those of the other, whatever else is said of them.
    pub(crate) fn shares_keys(&self, other: &Self) -> bool {
        self.url == other.url && self.jwks == other.jwks && self.internal == other.internal
    }
}

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Jwks {
    /// Discovery at the issuer's URL.
    Discovery,
    /// This URL.
    Url(#[serde(serialize_with = "written::text")] Url),
    /// This file.
    File(#[serde(serialize_with = "written::path")] PathBuf),
}

impl Jwks {
    /// Nothing else is said.
    const fn is_discovery(&self) -> bool {
        matches!(self, Self::Discovery)
    }
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Glob over agents; each agent has a bucket of its own.
    pub(crate) agent: Option<String>,
    /// Glob over `server/name`; each tool has a bucket of its own.
    pub(crate) tool: Option<String>,
    /// Glob over servers; each server has a bucket of its own.
    pub(crate) server: Option<String>,
    /// Glob over tenants; each tenant has a bucket of its own.
    pub(crate) tenant: Option<String>,
    /// The lasting rate.
    pub(crate) rate: Rate,
    /// Calls that may come at once; the count of `rate` unless given.
    pub(crate) burst: u32,
    /// Calls that may be under way at one time.
    pub(crate) concurrency: Option<u32>,
}

/// So many per so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// How many; at least one.
    pub(crate) count: u32,
    /// In how long.
    pub(crate) per: Duration,
}

/// What detectors do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Detect {
    /// The detector of secrets.
    pub(crate) secrets: DetectSecrets,
}

/// What the detector of secrets does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct DetectSecrets {
    /// In what servers send; never [`DetectMode::Refuse`].
    pub(crate) results: DetectMode,
    /// In what agents send.
    pub(crate) arguments: DetectMode,
}

/// What is done with what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DetectMode {
    /// Nothing is looked for.
    Off,
    /// It is recorded.
    Report,
    /// It is recorded and replaced.
    Mask,
    /// The call is refused.
    Refuse,
}

/// The log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Log {
    /// When an intent must be on disk.
    pub(crate) durability: Durability,
    /// How long texts of arguments and results are kept; none are without it.
    pub(crate) keep_text: Option<Duration>,
    /// Bytes of kept texts of one day.
    pub(crate) text_per_day: u64,
}

impl Default for Log {
    fn default() -> Self {
        Self { durability: Durability::ByRisk, keep_text: None, text_per_day: 1 << 30 }
    }
}

/// When an intent must be on disk before its call leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Where the call changes state or its class is unknown.
    ByRisk,
    /// Always.
    Strict,
}

/// Telemetry that leaves the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Telemetry {
    /// OTLP over HTTP; off unless configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) otlp: Option<Otlp>,
}

/// OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Otlp {
    /// The collector's base address; `/v1/traces` and `/v1/metrics` are appended.
    #[serde(serialize_with = "written::text")]
    pub(crate) endpoint: Url,
}

/// Bounds of everything that could grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Bounds {
    /// Bytes of one request body.
    #[serde(serialize_with = "written::bytes")]
    pub(crate) body: usize,
    /// Bytes of one answer that is not streamed, and of one event or line of those that are.
    #[serde(serialize_with = "written::bytes")]
    pub(crate) answer: usize,
    /// Depth of JSON.
    pub(crate) depth: usize,
    /// The longest until an answer begins, where the server says nothing else.
    #[serde(serialize_with = "written::duration")]
    pub(crate) deadline: Duration,
    /// The longest silence of a stream.
    #[serde(serialize_with = "written::duration")]
    pub(crate) stream_idle: Duration,
    /// Sessions of one principal.
    pub(crate) sessions_per_principal: usize,
    /// The longest a session of the older revisions is kept without a message.
    #[serde(serialize_with = "written::duration")]
    pub(crate) session_idle: Duration,
    /// Open client connections.
    pub(crate) connections: usize,
    /// Child processes at one time.
    pub(crate) children: usize,
    /// Those of one principal.
    pub(crate) children_per_principal: usize,
}

/// The vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct VaultSettings {
    /// Where the master key is.
    #[serde(skip_serializing_if = "KeySource::is_data")]
    pub(crate) key: KeySource,
}

/// Where the master key is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KeySource {
    /// The data directory's own file, made on first start.
    Data,
    /// This file.
    File(#[serde(serialize_with = "written::path")] PathBuf),
    /// This variable of the environment.
    Env(String),
    /// The output of this command.
    Command(Vec<String>),
}

impl KeySource {
    /// Nothing else is said.
    const fn is_data(&self) -> bool {
        matches!(self, Self::Data)
    }
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    /// Its first address.
    pub(crate) address: IpAddr,
    /// How many leading bits count.
    pub(crate) prefix: u8,
}

/// A value that is compared but not shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Hidden(String);

impl Hidden {
    /// Takes a value out of sight.
    pub(crate) const fn new(value: String) -> Self {
        Self(value)
    }

    /// The value.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, super::quantity::print_duration(self.per))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Settings {
    /// What holds without a configuration file, with `data` as the data directory.
    pub(crate) fn empty(data: PathBuf) -> Self {
        Self {
            listen: vec![Listen::Network(super::key::LISTEN)],
            socket_access: SocketAccess::Owner,
            tls: None,
            public_url: None,
            admin: Admin { listen: super::key::ADMIN_LISTEN },
            data,
            workers: None,
            servers: BTreeMap::new(),
            agents: BTreeMap::new(),
            issuers: Vec::new(),
            policies: PolicyFiles::default(),
            files: Vec::new(),
            limits: Vec::new(),
            detect: Detect { secrets: DetectSecrets { results: DetectMode::Mask, arguments: DetectMode::Report } },
            log: Log::default(),
            telemetry: Telemetry { otlp: None },
            bounds: Bounds::default(),
            vault: VaultSettings { key: KeySource::Data },
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            origins: Vec::new(),
            hosts: Vec::new(),
            danger_allow_anonymous: None,
            danger_plain_http: false,
        }
    }
}

impl Bounds {
    /// Those of the data plane.
    pub(crate) const fn of_plane(&self) -> plane::Bounds {
        let Self { body, answer, depth, deadline, stream_idle, sessions_per_principal, session_idle, .. } = *self;
        plane::Bounds { body, answer, depth, deadline, stream_idle, sessions_per_principal, session_idle }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        // What bounds the data plane is said there, once.
        let plane::Bounds { body, answer, depth, deadline, stream_idle, sessions_per_principal, session_idle } =
            plane::Bounds::default();
        Self {
            body,
            answer,
            depth,
            deadline,
            stream_idle,
            sessions_per_principal,
            session_idle,
            connections: 16_384,
            children: 64,
            children_per_principal: 32,
        }
    }
}
