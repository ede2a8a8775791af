//! One upstream as configured, and what is known of it at run time.

use crate::{
    catalog::{Catalog, look::Looks},
    known::KnownLists,
    pattern::{Pattern, PatternError},
    settings::{CredentialSettings, EraSettings, ServerSettings, ToolSettings, TransportSettings},
    upstream::{UpstreamFault, turn::Asking},
    verdict::Verdict,
};
use arc_swap::{ArcSwap, ArcSwapOption};
use egress::{Endpoint, EndpointFault, Protocol, Roots};
use http::HeaderName;
use mcp::Era;
use std::{
    collections::hash_map::DefaultHasher,
    fmt,
    hash::{Hash, Hasher},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use url::Url;
use vocab::{Class, EnvironmentName, ServerName, TargetId, TenantId};

/// An upstream. Immutable; what changes at run time is in [`ServerState`], which a reload carries over.
pub struct Server {
    /// Its name.
    pub name: ServerName,
    /// Its tenant.
    pub tenant: TenantId,
    /// How it is reached.
    pub transport: Transport,
    /// Its environment.
    pub environment: Option<EnvironmentName>,
    /// What `inject` puts into its calls.
    pub credentials: Vec<CredentialSettings>,
    /// Client headers that travel on.
    pub headers: Vec<HeaderName>,
    /// Time until an answer begins.
    pub deadline: Duration,
    /// Calls in flight.
    pub calls_in_flight: usize,
    /// What the operator says it speaks.
    pub era: Option<EraSettings>,
    /// Whether clients of an era that it does not speak are carried over to it.
    pub bridged: bool,
    /// Changes when anything that decides whom we talk to changes: sessions opened before are opened anew.
    pub fingerprint: u64,
    /// What is known of it.
    pub state: Arc<ServerState>,
    /// Its lists that were read and found clean.
    pub(crate) lists: KnownLists,
    root: policy::Resource,
    tools: Vec<ToolClass>,
    settings: ServerSettings,
}

/// How an upstream is reached.
#[derive(Clone)]
pub enum Transport {
    /// HTTP.
    Http(Arc<Endpoint>),
    /// A process.
    Stdio(crate::upstream::pipe::Program),
}

/// How messages are carried to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carriage {
    /// Each by a request that is answered with what comes of it: Streamable HTTP.
    Requests,
    /// All over one connection that lasts: a process, or a stream of 2024-11-05.
    Pipe {
        /// One for everybody.
        shared: bool,
    },
}

/// What the operator says of some tools. A server's own annotations count for nothing.
struct ToolClass {
    tools: Pattern,
    class: Class,
    labels: Vec<String>,
    skip_schema: bool,
}

/// Why a server cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum ServerFault {
    /// The URL is not usable.
    #[error("server `{server}`")]
    Endpoint {
        /// Which server.
        server: ServerName,
        /// Why.
        #[source]
        cause: EndpointFault,
    },
    /// A tool glob is not a glob.
    #[error("server `{server}`: tool pattern `{pattern}`")]
    Glob {
        /// Which server.
        server: ServerName,
        /// The pattern.
        pattern: String,
        /// Why.
        #[source]
        cause: PatternError,
    },
}

impl Server {
    /// Makes a server of its settings. `before` is the same server before a reload.
    pub fn new(
        name: &ServerName,
        tenant: &TenantId,
        settings: &ServerSettings,
        deadline: Duration,
        before: Option<&Arc<Self>>,
    ) -> Result<Self, ServerFault> {
        let transport = match before.filter(|before| before.settings.transport == settings.transport) {
            // Its connections stay, too.
            Some(before) => before.transport.clone(),
            None => Transport::of(&settings.transport)
                .map_err(|cause| ServerFault::Endpoint { server: name.clone(), cause })?,
        };
        let tools = settings.tools.iter().map(|tool| ToolClass::new(name, tool)).collect::<Result<_, _>>()?;
        let fingerprint = fingerprint(settings);
        // What was learned of a server holds only while we talk to the same one.
        let state = match before {
            Some(before) if before.fingerprint == fingerprint => Arc::clone(&before.state),
            _ => Arc::new(ServerState::default()),
        };
        Ok(Self {
            name: name.clone(),
            tenant: tenant.clone(),
            transport,
            environment: settings.environment.clone(),
            credentials: settings.credentials.clone(),
            headers: settings.headers.clone(),
            deadline: settings.deadline.unwrap_or(deadline),
            calls_in_flight: settings.calls_in_flight,
            // Before this transport was given up there was one era.
            era: if is_lasting(&settings.transport) { Some(EraSettings::Legacy) } else { settings.era },
            bridged: settings.bridged,
            fingerprint,
            state,
            lists: KnownLists::default(),
            root: policy::Resource {
                id: TargetId { tenant: tenant.clone(), server: name.clone(), name: Arc::from("") },
                environment: settings.environment.clone(),
                class: Class::Unclassified,
                labels: Vec::new(),
            },
            tools,
            settings: settings.clone(),
        })
    }

    /// The server itself, as policy knows it: none of its parts.
    pub const fn root(&self) -> &policy::Resource {
        &self.root
    }

    /// The settings it was made of.
    pub fn settings(&self) -> &ServerSettings {
        &self.settings
    }

    /// How messages are carried to it, as far as that is known.
    pub(crate) fn carriage(&self) -> Carriage {
        match &self.transport {
            Transport::Stdio(program) => Carriage::Pipe { shared: program.shared },
            Transport::Http(_) if self.lasts() => Carriage::Pipe { shared: false },
            Transport::Http(_) => Carriage::Requests,
        }
    }

    /// Whether it speaks the transport of 2024-11-05: as the operator says, or as it was seen to.
    pub fn lasts(&self) -> bool {
        is_lasting(&self.settings.transport) || self.state.lasts.load(Ordering::Acquire)
    }

    /// Whether it may be found to speak the transport of 2024-11-05.
    pub(crate) fn may_last(&self) -> bool {
        matches!(self.settings.transport, TransportSettings::Http { lasting: false, .. })
    }

    /// Its URL, if it has one.
    pub(crate) fn url(&self) -> Option<Url> {
        match &self.settings.transport {
            TransportSettings::Http { url, .. } => url.parse().ok(),
            TransportSettings::Stdio { .. } => None,
        }
    }

    /// The server's part called `name`, as policy knows it.
    pub fn resource(&self, name: &str) -> policy::Resource {
        self.resource_and_waiver(name).0
    }

    /// The server's part called `name`, and whether the operator waived the schema of that tool.
    pub(crate) fn resource_and_waiver(&self, name: &str) -> (policy::Resource, bool) {
        let said = self.said_of(name);
        let resource = policy::Resource {
            id: self.target(name),
            environment: self.environment.clone(),
            class: said.map_or(Class::Unclassified, |said| said.class),
            labels: said.map(|said| said.labels.clone()).unwrap_or_default(),
        };
        (resource, said.is_some_and(|said| said.skip_schema))
    }

    /// The identity of the part called `name`.
    pub fn target(&self, name: &str) -> TargetId {
        TargetId { tenant: self.tenant.clone(), server: self.name.clone(), name: Arc::from(name) }
    }

    /// Whether the operator waived the schema of this tool.
    pub fn skips_schema(&self, tool: &str) -> bool {
        self.said_of(tool).is_some_and(|said| said.skip_schema)
    }

    /// What the operator says of a tool: the first that names it.
    fn said_of(&self, tool: &str) -> Option<&ToolClass> {
        self.tools.iter().find(|said| said.tools.matches(tool))
    }

    /// Whether it is known to speak `era`, known not to, or not known.
    pub fn speaks(&self, era: Era) -> Option<bool> {
        match self.era {
            Some(EraSettings::Legacy) => Some(era == Era::Legacy),
            Some(EraSettings::Modern) => Some(era == Era::Modern),
            Some(EraSettings::Both) => Some(true),
            None => {
                let seen = self.state.verdict.load().of(era).map(|seen| seen.speaks);
                // The transport of 2024-11-05 carries no other era.
                seen.or_else(|| self.lasts().then_some(era == Era::Legacy))
            }
        }
    }
}

impl Server {
    /// Whether it must be looked at before it can be used in `era`: a process is started in one era, while a web server
    /// says itself what it does not speak.
    pub fn is_unknown(&self, era: Era) -> bool {
        matches!(self.transport, Transport::Stdio(_)) && self.is_unseen(era)
    }

    /// Whether no look has found yet what it speaks, and this era may not be it.
    pub(crate) fn is_unseen(&self, era: Era) -> bool {
        self.speaks(era).is_none() && self.state.catalog.load().is_none()
    }
}

impl Server {
    /// Whether a look at it may still find that it speaks another transport, or another era, than it is taken for.
    pub(crate) fn is_unrecognised(&self) -> bool {
        (self.may_last() || self.speaks(Era::Legacy).is_none()) && self.state.catalog.load().is_none()
    }
}

impl ToolClass {
    fn new(server: &ServerName, settings: &ToolSettings) -> Result<Self, ServerFault> {
        let tools = Pattern::new(&settings.tools).map_err(|cause| ServerFault::Glob {
            server: server.clone(),
            pattern: settings.tools.clone(),
            cause,
        })?;
        Ok(Self {
            tools,
            class: settings.class,
            labels: settings.labels.clone(),
            skip_schema: settings.danger_skip_schema,
        })
    }
}

impl Transport {
    fn of(settings: &TransportSettings) -> Result<Self, EndpointFault> {
        match settings {
            TransportSettings::Http { url, internal, ca, http2, socket, lasting: _ } => {
                let endpoint = endpoint(url, *internal, ca.as_deref())?.speaking(protocol(*http2));
                let endpoint = match socket {
                    Some(socket) => endpoint.through(socket)?,
                    None => endpoint,
                };
                Ok(Self::Http(Arc::new(endpoint)))
            }
            TransportSettings::Stdio { command, env, dir, shared, memory } => {
                Ok(Self::Stdio(crate::upstream::pipe::Program {
                    command: command.clone(),
                    env: env.clone(),
                    dir: dir.clone(),
                    shared: *shared,
                    memory: *memory,
                }))
            }
        }
    }
}

fn endpoint(url: &str, internal: bool, ca: Option<&[u8]>) -> Result<Endpoint, EndpointFault> {
    let url: Url = url.parse().map_err(|_| EndpointFault::Host)?;
    let roots = ca.map(Roots::from_pem).transpose().map_err(EndpointFault::Roots)?;
    Endpoint::new(&url, internal, roots.as_ref())
}

const fn protocol(http2: Option<bool>) -> Protocol {
    match http2 {
        None => Protocol::Offered,
        Some(true) => Protocol::Http2,
        Some(false) => Protocol::Http1,
    }
}

const fn is_lasting(transport: &TransportSettings) -> bool {
    matches!(transport, TransportSettings::Http { lasting: true, .. })
}

fn fingerprint(settings: &ServerSettings) -> u64 {
    let mut hasher = DefaultHasher::new();
    match &settings.transport {
        TransportSettings::Http { url, internal, ca, http2, socket, lasting } => {
            (url, internal, ca, http2, socket, lasting).hash(&mut hasher);
        }
        TransportSettings::Stdio { command, env, dir, shared, memory } => {
            (command, env, dir, shared, memory).hash(&mut hasher);
            // A process got its credentials when it started.
            settings.credentials.hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// Why a look at a server failed, as its operator reads it.
#[derive(Debug)]
pub struct Unseen(UpstreamFault);

impl Unseen {
    pub(crate) const fn new(fault: UpstreamFault) -> Self {
        Self(fault)
    }

    /// The fault of a call that came right after that look. What is wrong at the server itself callers read as before.
    pub(crate) fn again(&self) -> UpstreamFault {
        match &self.0 {
            fault @ UpstreamFault::Endpoint(_) => fault.clone(),
            fault => UpstreamFault::Down(fault.to_string()),
        }
    }
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is known of a server at run time.
#[derive(Default)]
pub struct ServerState {
    /// What it offers.
    pub catalog: ArcSwapOption<Catalog>,
    /// Which eras it speaks.
    pub verdict: ArcSwap<Verdict>,
    /// The credential it was looked at with last, 0 before the first time. Stays in memory.
    pub(crate) asked_with: AtomicU64,
    /// It was seen to speak the transport of 2024-11-05.
    pub(crate) lasts: AtomicBool,
    /// It answered the last one who asked for its listening stream that there is none.
    pub(crate) has_no_stream: AtomicBool,
    /// Why the last look at it failed.
    pub fault: ArcSwapOption<Unseen>,
    /// Ticks of that look: a server that is down is not looked at by every call.
    pub failed_at: AtomicU64,
    /// One look at a time.
    pub(crate) looks: Mutex<Looks>,
    /// Ticks of the last look caused by a miss: misses cannot be used to hammer a server.
    pub missed_at: AtomicU64,
    /// How often it said that its tools changed.
    pub(crate) tools_told: AtomicU64,
    /// Ticks of the last list that passed and was compared with the catalog.
    pub passed_at: AtomicU64,
    /// What of it asks its clients without saying in the course of which call.
    pub(crate) asking: Arc<Asking>,
    /// Calls in flight.
    pub in_flight: AtomicUsize,
    /// Messages that found no room before a client that reads slowly.
    pub lost: Arc<AtomicU64>,
}

/// One call in flight on a server; counted until dropped.
pub struct InFlight(Arc<ServerState>);

impl ServerState {
    /// Counts one more call, unless there are `most` already.
    pub fn enter(self: &Arc<Self>, most: usize) -> Option<InFlight> {
        let before = self.in_flight.fetch_add(1, Ordering::AcqRel);
        let entered = InFlight(Arc::clone(self));
        if before >= most { None } else { Some(entered) }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}
