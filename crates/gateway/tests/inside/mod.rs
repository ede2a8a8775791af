//! The data plane without the binary around it: a clock we hold, parts that can be made to panic, rights that change
//! at a word.
#![allow(dead_code, clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "each test file uses its share")]

use audit::{Filter, Log, LogFault, Options, Order, Query, Reader, Signer, Tree};
use egress::Egress;
use gateway::{
    Room,
    clock::Clock,
    limit::{LimitSettings, Limits},
    rim::Rim,
    settings::{
        Bounds, CredentialSettings, EraSettings, Listener, Listening, ServerSettings, Settings, ToolSettings,
        TransportSettings,
    },
    snapshot::Snapshot,
    state::{Parts, State},
};
use guard::Guards;
use identity::{AgentSetting, ApiKey, Identity, JwksCache, KeyHolder, KeyId, KeyKind, KeyRow, Registry};
use policy::{Policies, Source};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use testkit::{
    Agent, Ask, Reply, Upstream, meta,
    schema::{self, Judge},
    soon,
};
use tokio::task::JoinHandle;
use vault::{KeySource, Vault};
use vocab::{AgentId, ServerName, TenantId, Timestamp};

/// A clock that stands until it is moved, and that can be told to panic when it is read next, or later.
pub(crate) struct Held {
    micros: AtomicI64,
    fuse: AtomicU64,
}

impl Held {
    fn new() -> Self {
        Self { micros: AtomicI64::new(1_795_248_000_000_000), fuse: AtomicU64::new(0) }
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.micros.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }

    /// Panics at the reading with this number from now, once.
    pub(crate) fn fail_at(&self, reading: u64) {
        self.fuse.store(reading, Ordering::SeqCst);
    }

    /// Whether the panic is still to come. Disarms it.
    pub(crate) fn disarm(&self) -> bool {
        self.fuse.swap(0, Ordering::SeqCst) > 0
    }

    fn read(&self) -> i64 {
        let burnt = self.fuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |fuse| fuse.checked_sub(1));
        assert!(burnt != Ok(1), "the clock breaks, as the test wants");
        self.micros.load(Ordering::SeqCst)
    }
}

impl Clock for Held {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.read())
    }

    fn ticks(&self) -> u64 {
        u64::try_from(self.read()).unwrap()
    }
}

/// What a gateway is made of, as far as tests differ.
pub(crate) struct Plan {
    pub(crate) servers: Vec<(&'static str, String)>,
    pub(crate) tools: Vec<ToolSettings>,
    pub(crate) policy: Value,
    pub(crate) limits: LimitSettings,
    pub(crate) guards: Guards,
    pub(crate) strict: bool,
    pub(crate) agents: Vec<(&'static str, AgentSetting)>,
    pub(crate) issuers: Vec<identity::IssuerSetting>,
    pub(crate) anonymous: Option<&'static str>,
    pub(crate) bounds: Bounds,
    pub(crate) credentials: Vec<CredentialSettings>,
    pub(crate) era: EraSettings,
    /// Spans are exported.
    pub(crate) traces: bool,
    /// Servers are asked what they speak, whatever `era` says.
    pub(crate) probed: bool,
    pub(crate) bridged: bool,
    pub(crate) http2: Option<bool>,
    /// Threads that serve.
    pub(crate) workers: usize,
    /// The most processes at one time.
    pub(crate) children: usize,
    /// The most of one principal.
    pub(crate) children_each: usize,
    /// The most calls in flight on one server.
    pub(crate) calls_in_flight: usize,
    /// The servers speak the transport of 2024-11-05, and the configuration says so.
    pub(crate) lasting: bool,
    /// What clients dial, where that is another address.
    pub(crate) public_url: Option<&'static str>,
    /// A process in place of the addresses.
    pub(crate) command: Option<Vec<String>>,
    /// One process for everybody.
    pub(crate) shared: bool,
    /// Looks on whenever the log is signed, on the log's own thread: may wait, may panic.
    pub(crate) signing: Arc<dyn Fn() + Send + Sync>,
}

impl Plan {
    /// One server, everything allowed, nothing limited, nothing looked for.
    pub(crate) fn of(upstream: &Upstream) -> Self {
        Self {
            servers: vec![("files", upstream.url())],
            tools: Vec::new(),
            policy: json!({"policy": "test", "rules": [{"id": "all", "action": "*", "target": "*/*", "effect": "allow"}]}),
            limits: LimitSettings::default(),
            guards: Guards::none(),
            strict: false,
            agents: vec![("alice", AgentSetting::default()), ("bob", AgentSetting::default())],
            issuers: Vec::new(),
            anonymous: None,
            bounds: Bounds { sessions_per_principal: 4096, ..Bounds::default() },
            credentials: Vec::new(),
            era: EraSettings::Both,
            traces: false,
            probed: false,
            bridged: true,
            http2: None,
            workers: 2,
            children: 4,
            children_each: 64,
            calls_in_flight: 256,
            lasting: false,
            public_url: None,
            command: None,
            shared: false,
            signing: Arc::new(|| {}),
        }
    }
}

/// A running data plane.
pub(crate) struct Inside {
    pub(crate) state: Arc<State>,
    pub(crate) clock: Arc<Held>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) jwks: Arc<JwksCache>,
    pub(crate) alice: String,
    pub(crate) alice_key: KeyId,
    pub(crate) bob: String,
    folder: TempDir,
    address: std::net::SocketAddr,
    _rim: Rim,
    /// INVARIANT: whatever either side is told is valid in the revision it speaks.
    _judge: Judge,
}

impl Inside {
    #[expect(clippy::unused_async, reason = "it is started where there is a runtime, and nowhere else")]
    pub(crate) async fn start(plan: Plan) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (workers, children) = (plan.workers, Room::new(plan.children, plan.children_each, Vec::new()));
        let clock = Arc::new(Held::new());
        let now = clock.now();
        let tenant = TenantId::default_tenant();
        let key = KeySource::File(folder.path().join("master.key")).load(folder.path()).expect("a master key");
        let vault = Arc::new(Vault::open(folder.path(), key, tenant.clone(), now).expect("a vault"));
        let signer = vault.audit_signer().expect("a signer");
        let name = "durward/default".to_owned();
        let options = Options::new(folder.path().join("log"), name.clone(), tenant.clone(), now);
        let (watched, sign) = (Arc::clone(&plan.signing), signer.sign);
        let sign = Box::new(move |text: &[u8]| {
            watched();
            sign(text)
        });
        let log = Log::open(options, Signer { name, public: signer.public, sign }).expect("a log");
        let egress = Arc::new(Egress::new(egress::Settings::default()).expect("a connector"));
        let jwks = Arc::new(JwksCache::new(Arc::clone(&egress)));
        let registry = Arc::new(Registry::default());
        let (alice, alice_key) = issue(&registry, "alice", None);
        let (bob, _) = issue(&registry, "bob", None);
        let snapshot = snapshot(plan, &registry, &jwks, None);
        let state = Arc::new(State::new(Parts {
            snapshot,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            log: Arc::new(log),
            vault,
            egress,
            children,
        }));
        let listening = Listening {
            listeners: vec![Listener::Network("127.0.0.1:0".parse().unwrap())],
            tls: None,
            proxied: false,
            workers,
            connections: 1024,
        };
        let rim = Rim::start(&state, &listening).expect("it listens");
        let address = rim.address().expect("an address");
        Self {
            state,
            clock,
            registry,
            jwks,
            alice,
            alice_key,
            bob,
            folder,
            address,
            _rim: rim,
            _judge: schema::judge(),
        }
    }

    /// Puts another plan in force, as a reload does.
    pub(crate) fn swap(&self, plan: Plan) {
        let before = self.state.snapshot.load_full();
        self.state.swap(snapshot(plan, &self.registry, &self.jwks, Some(&before)));
    }

    /// Where its log lies.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn modern(&self, path: &str, token: &str) -> Agent {
        Agent::modern(&self.url(path), Some(token))
    }

    pub(crate) async fn legacy(&self, path: &str, token: &str) -> Agent {
        Agent::legacy(&self.url(path), Some(token)).await
    }

    /// A client of the one revision that has batches.
    pub(crate) async fn batching(&self, path: &str, token: &str) -> Agent {
        Agent::of("2025-03-26", &self.url(path), Some(token)).await
    }

    /// A modern call of a tool of `files`, ready to be sent.
    pub(crate) fn call(&self, token: &str, tool: &str, arguments: &Value) -> Ask {
        let agent = self.modern("/mcp/files", token);
        let params = json!({"name": tool, "arguments": arguments, "_meta": meta()});
        agent.ask("tools/call", &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}))
    }

    /// A new key for an agent.
    pub(crate) fn key(&self, agent: &str, expires: Option<Timestamp>) -> (String, KeyId) {
        issue(&self.registry, agent, expires)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Every record of a tree, with its kind, once everything said so far is on disk.
    pub(crate) async fn leaves(&self, tree: &Tree) -> Vec<(String, Value)> {
        soon(self.state.journal.log().flush()).await.expect("the log is written");
        let reader = Reader::open(&self.folder.path().join("log"), tree).expect("the log can be read");
        let query =
            Query { filter: Filter::default(), order: Order::Oldest, from: None, limit: usize::MAX, scan: u64::MAX };
        let of = |entry: audit::Entry| {
            Some((entry.value.get("kind")?.as_str()?.to_owned(), entry.value.get("record")?.clone()))
        };
        reader.page(&query).unwrap_or_default().entries.into_iter().filter_map(of).collect()
    }

    /// The closed records of calls of authenticated callers, oldest first.
    pub(crate) async fn records(&self) -> Vec<Value> {
        let leaves = self.leaves(&Tree::Tenant(TenantId::default_tenant())).await;
        leaves.into_iter().filter(|(kind, _)| kind == "call").map(|(_, record)| record).collect()
    }

    /// The intents.
    pub(crate) async fn intents(&self) -> Vec<Value> {
        let leaves = self.leaves(&Tree::Tenant(TenantId::default_tenant())).await;
        leaves.into_iter().filter(|(kind, _)| kind == "intent").map(|(_, record)| record).collect()
    }

    /// What the system tree says of requests.
    pub(crate) async fn strangers(&self) -> Vec<Value> {
        let leaves = self.leaves(&Tree::System).await;
        leaves.into_iter().map(|(_, record)| record).filter(|record| record["call"].is_string()).collect()
    }
}

/// A log that cannot be written.
#[must_use]
pub(crate) struct Broken {
    tree: PathBuf,
    aside: PathBuf,
    flushing: JoinHandle<Result<(), LogFault>>,
}

impl Broken {
    /// Gives it back its directory, and waits until all that waited is on disk.
    pub(crate) async fn mend(self) {
        std::fs::remove_file(&self.tree).unwrap();
        std::fs::rename(&self.aside, &self.tree).unwrap();
        soon(self.flushing).await.unwrap().unwrap();
    }
}

impl Inside {
    /// The directory of a tree is gone, as when a disk is. Comes back when the log knows.
    pub(crate) async fn break_log(&self) -> Broken {
        let log = self.state.journal.log();
        let (tree, aside) = (Tree::System.path(&self.log()), self.log().join("aside"));
        // Everything before is in the tree, so that what fails now is what comes now.
        soon(log.flush()).await.unwrap();
        std::fs::rename(&tree, &aside).unwrap();
        std::fs::write(&tree, "no directory").unwrap();
        let flushing = tokio::spawn({
            let state = Arc::clone(&self.state);
            async move {
                state.journal.system("a word", None);
                state.journal.log().flush().await
            }
        });
        soon(async {
            while log.healthy().is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        Broken { tree, aside, flushing }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.state.stopping.send_replace(true);
        self.state.cut.store(true, Ordering::Release);
    }
}

fn issue(registry: &Registry, agent: &str, expires: Option<Timestamp>) -> (String, KeyId) {
    let key = ApiKey::generate(KeyKind::Agent).expect("a key");
    registry.insert_key(KeyRow {
        id: key.id().clone(),
        hash: key.hash(),
        holder: KeyHolder::Agent(AgentId::new(agent).unwrap()),
        expires,
        revoked: false,
    });
    (key.text().expose().clone(), key.id().clone())
}

fn snapshot(plan: Plan, registry: &Arc<Registry>, jwks: &Arc<JwksCache>, before: Option<&Snapshot>) -> Snapshot {
    let tenant = TenantId::default_tenant();
    let servers = plan.servers.into_iter().map(|(name, url)| {
        let transport = match plan.command.clone() {
            Some(command) => {
                let shared = plan.shared;
                TransportSettings::Stdio { command, env: BTreeMap::new(), dir: None, shared, memory: None }
            }
            None => TransportSettings::Http {
                url,
                internal: true,
                ca: None,
                http2: plan.http2,
                socket: None,
                lasting: plan.lasting,
            },
        };
        let settings = ServerSettings {
            transport,
            environment: None,
            credentials: plan.credentials.clone(),
            headers: Vec::new(),
            tools: plan.tools.clone(),
            deadline: None,
            calls_in_flight: plan.calls_in_flight,
            era: (!plan.probed).then_some(plan.era),
            bridged: plan.bridged,
        };
        (ServerName::new(name).unwrap(), settings)
    });
    let settings = Settings {
        tenant: tenant.clone(),
        public_url: plan.public_url.map(str::to_owned),
        tls: false,
        hosts: Vec::new(),
        origins: Vec::new(),
        trusted_proxies: Vec::new(),
        servers: servers.collect::<BTreeMap<_, _>>(),
        strict: plan.strict,
        bounds: plan.bounds,
        issuers: plan.issuers.iter().map(|issuer| issuer.url.to_string()).collect(),
        traces: plan.traces,
    };
    let agents = plan.agents.into_iter().map(|(name, setting)| (AgentId::new(name).unwrap(), setting)).collect();
    let anonymous = plan.anonymous.map(|name| AgentId::new(name).unwrap());
    let identity = identity::Settings { tenant, agents, issuers: plan.issuers, anonymous };
    let identity = Identity::new(identity, Arc::clone(registry), Arc::clone(jwks)).expect("identity");
    let source = Source { name: "test.json".to_owned(), text: plan.policy.to_string() };
    let policies = Policies::compile(&[source]).expect("a policy");
    let limits = Limits::new(&plan.limits, before.map(|before| &*before.limits)).expect("limits");
    match Snapshot::build(settings, identity, policies, Arc::new(limits), plan.guards, before) {
        Ok(snapshot) => snapshot,
        Err(faults) => panic!("no snapshot: {faults:?}"),
    }
}

/// `reason` and `stage` of an outcome, after what it is: `refused rate limit`.
pub(crate) fn outcome(record: &Value) -> String {
    let outcome = &record["outcome"];
    ["is", "reason", "stage"].iter().filter_map(|member| outcome[member].as_str()).collect::<Vec<_>>().join(" ")
}

/// Who told that a resource has changed: what its server put beside it.
pub(crate) async fn told(listener: &mut Reply, uri: &str) -> Value {
    soon(async {
        loop {
            // A reload changes lists, too.
            let told = listener.event().await.unwrap().json();
            if told.pointer("/params/uri").is_some_and(|told| told == uri) {
                return told.pointer("/params/_meta/by").cloned().unwrap_or_default();
            }
        }
    })
    .await
}
