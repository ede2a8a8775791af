//! The real binary with a configuration, a policy and two agents' keys; scripted servers stand around it.
//!
//! Nothing here sleeps for luck: what must happen is waited for, and fails loudly when it does not.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "each test file uses its share; a world that cannot be made fails the test"
)]

use audit::{Filter, Order, Query, Reader, Tree};
use identity::{ApiKey, KeyKind};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};
use store::{KeyRow, KeyUse, Store};
use tempfile::TempDir;
use testkit::{
    Agent, Ask, Upstream,
    schema::{self, Judge},
    soon,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::watch,
};
use vocab::{AgentId, TenantId, Timestamp};

/// Everything is allowed to everybody.
pub const ALL: &str =
    r#"{"policy": "test", "rules": [{"id": "all", "action": "*", "target": "*/*", "effect": "allow"}]}"#;

/// A running gateway.
pub struct World {
    process: Child,
    pub address: SocketAddr,
    folder: TempDir,
    said: Arc<Mutex<Vec<String>>>,
    lines: watch::Receiver<usize>,
    pub alice: String,
    pub bob: String,
    /// INVARIANT: whatever its clients and servers are told is valid in the revision they speak.
    _judge: Judge,
}

/// Configuration in which `name` is an upstream on this machine.
pub fn http(name: &str, upstream: &Upstream) -> String {
    format!("  {name}: {{ url: \"{}\", internal: true }}\n", upstream.url())
}

impl World {
    /// A gateway before these `servers:`, with everything allowed.
    pub async fn start(servers: &str) -> Self {
        Self::with(&format!("servers:\n{servers}"), ALL).await
    }

    /// A gateway with this configuration, to which listener, agents and the policy are added.
    pub async fn with(body: &str, policy: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        fs::create_dir(&data).expect("a data directory");
        fs::write(folder.path().join("policy.json"), policy).expect("a policy");
        fs::write(folder.path().join("durward.yaml"), complete(body)).expect("a configuration");
        let alice = key(&data, "alice", None).await;
        let bob = key(&data, "bob", None).await;
        Self::launch(folder, alice, bob).await
    }

    /// A gateway over a folder that was made before.
    pub async fn launch(folder: TempDir, alice: String, bob: String) -> Self {
        let command = command(folder.path());
        Self::run(command, folder, alice, bob).await
    }

    /// The same, started in a way of its own.
    pub async fn run(mut command: Command, folder: TempDir, alice: String, bob: String) -> Self {
        let mut process = command.spawn().expect("the gateway starts");
        let mut stderr = BufReader::new(process.stderr.take().expect("its stderr")).lines();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (sender, mut lines) = watch::channel(0);
        let sink = Arc::clone(&said);
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                sink.lock().unwrap().push(line);
                sender.send_modify(|count| *count += 1);
            }
        });
        let address = wait(&said, &mut lines, 0, "agents connect to").await;
        let (_, rest) = address.split_once("://").expect("an address");
        let address = rest.split('/').next().and_then(|text| text.parse().ok()).expect("an address");
        Self { process, address, folder, said, lines, alice, bob, _judge: schema::judge() }
    }

    /// Where one server is reached.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Alice with a session.
    pub async fn legacy(&self, path: &str) -> Agent {
        Agent::legacy(&self.url(path), Some(&self.alice)).await
    }

    /// Alice without.
    pub fn modern(&self, path: &str) -> Agent {
        Agent::modern(&self.url(path), Some(&self.alice))
    }

    /// A POST of Alice's, byte for byte.
    pub fn post(&self, path: &str, body: &str) -> Ask {
        Ask::post(&self.url(path), body.to_owned()).bearer(&self.alice)
    }

    /// What it wrote to stderr so far.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// What it writes to stderr, to be read when it has ended.
    pub fn listening(&self) -> Listening {
        Listening { said: Arc::clone(&self.said), lines: self.lines.clone() }
    }

    /// Waits for a line on stderr that contains `text`.
    pub async fn says(&self, text: &str) -> String {
        wait(&self.said, &mut self.lines.clone(), 0, text).await
    }

    /// Replaces the configuration and waits until it is in force.
    pub async fn reload(&self, body: &str) {
        let before = self.said().len();
        put(self.folder.path(), "durward.yaml", &complete(body));
        self.reloaded(before).await;
    }

    /// Replaces the policy and waits until it is in force.
    pub async fn judge(&self, policy: &str) {
        let before = self.said().len();
        put(self.folder.path(), "policy.json", policy);
        self.reloaded(before).await;
    }

    /// Changes files of its folder, and waits until it has noticed by itself.
    pub async fn notices(&self, change: impl FnOnce(&Path)) {
        let before = self.said().len();
        change(self.folder.path());
        self.says_after(before, "durward: reloaded").await;
    }

    /// Waits for a line on stderr that contains `text`, after so many.
    pub async fn says_after(&self, before: usize, text: &str) -> String {
        wait(&self.said, &mut self.lines.clone(), before, text).await
    }

    async fn reloaded(&self, before: usize) {
        self.signal(Signal::HUP);
        wait(&self.said, &mut self.lines.clone(), before, "durward: reloaded").await;
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id().expect("it runs")
    }

    /// How many processes it has started that still run.
    pub fn children(&self) -> usize {
        let me = self.pid().to_string();
        let entries = fs::read_dir("/proc").expect("processes").flatten();
        entries
            .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
            .filter(|stat| {
                let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
                let state = fields.next();
                fields.next() == Some(&me) && state != Some("Z")
            })
            .count()
    }

    /// Waits until something is so.
    pub async fn until(&self, mut so: impl FnMut() -> bool) {
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        soon(async {
            while !so() {
                looks.tick().await;
            }
        })
        .await;
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).expect("it runs");
    }

    /// Stops it in order and waits for its end.
    pub async fn stop(mut self) -> (ExitStatus, TempDir) {
        self.signal(Signal::TERM);
        let status =
            tokio::time::timeout(Duration::from_secs(30), self.process.wait()).await.expect("it ends").unwrap();
        (status, self.folder)
    }

    /// Ends it at once, whatever it does, and gives back its folder.
    pub async fn kill(mut self, signal: Signal) -> TempDir {
        self.signal(signal);
        self.process.wait().await.expect("it ends");
        self.folder
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The closed records of its log, oldest first, once there are at least `count`.
    pub async fn records(&self, count: usize) -> Vec<serde_json::Value> {
        let log = self.data().join("log");
        let mut found = Vec::new();
        self.until(|| {
            found = records(&log);
            found.len() >= count
        })
        .await;
        found
    }
}

/// The stderr of a gateway that may be gone.
pub struct Listening {
    said: Arc<Mutex<Vec<String>>>,
    lines: watch::Receiver<usize>,
}

impl Listening {
    /// All of it, once it has ended.
    pub async fn everything(mut self) -> Vec<String> {
        soon(async { while self.lines.changed().await.is_ok() {} }).await;
        self.said.lock().unwrap().clone()
    }
}

/// The `call` records of a log, oldest first, as far as they are on disk.
pub fn records(log: &Path) -> Vec<serde_json::Value> {
    let Ok(reader) = Reader::open(log, &Tree::Tenant(TenantId::default_tenant())) else { return Vec::new() };
    let filter = Filter { kind: Some("call".to_owned()), ..Filter::default() };
    let query = Query { filter, order: Order::Oldest, from: None, limit: usize::MAX, scan: u64::MAX };
    let page = reader.page(&query).unwrap_or_default();
    page.entries.into_iter().filter_map(|entry| entry.value.get("record").cloned()).collect()
}

/// Draws a key for an agent and stores it.
pub async fn key(data: &Path, agent: &str, expires: Option<Timestamp>) -> String {
    let key = ApiKey::generate(KeyKind::Agent).expect("a key");
    let store = Store::open(data).await.expect("a store");
    let row = KeyRow {
        id: key.id().to_string(),
        hash: key.hash(),
        tenant: TenantId::default_tenant(),
        opens: KeyUse::Agent(AgentId::new(agent).expect("a name")),
        label: String::new(),
        created: Timestamp::from_seconds(0),
        expires,
        revoked: None,
    };
    store.add_key(&row).await.expect("a row");
    store.close().await;
    key.text().expose().clone()
}

/// Puts a file into its place, all of it at once: whoever looks meanwhile sees the one before.
pub fn put(folder: &Path, file: &str, text: &str) {
    let path = folder.join(file);
    let (draft, within) = (folder.join(".draft"), path.parent().expect("a folder"));
    fs::create_dir_all(within).expect("a folder");
    fs::write(&draft, text).expect("a file");
    fs::rename(&draft, &path).expect("a file");
}

/// How it is started.
#[expect(clippy::disallowed_methods, reason = "a test starts the product")]
pub fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_durward"));
    command
        .args(["up", "--config"])
        .arg(folder.join("durward.yaml"))
        .arg("--data")
        .arg(folder.join("data"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// A configuration with listener, agents and the policy added.
pub fn complete(body: &str) -> String {
    let agents = if body.contains("agents:") { "" } else { "agents: { alice: {}, bob: {} }\n" };
    let listen = if body.starts_with("listen:") { "" } else { "listen: 127.0.0.1:0\n" };
    format!("{listen}admin: {{ listen: 127.0.0.1:0 }}\nworkers: 2\npolicies: policy.json\n{agents}{body}")
}

async fn wait(said: &Mutex<Vec<String>>, lines: &mut watch::Receiver<usize>, from: usize, text: &str) -> String {
    let found = tokio::time::timeout(Duration::from_secs(15), async {
        loop {
            lines.borrow_and_update();
            let line = said.lock().unwrap().iter().skip(from).find(|line| line.contains(text)).cloned();
            if let Some(line) = line {
                return Some(line);
            }
            if lines.changed().await.is_err() {
                return None;
            }
        }
    });
    match found.await {
        Ok(Some(line)) => line,
        Ok(None) | Err(_) => panic!("it never said {text:?}; it said:\n{}", said.lock().unwrap().join("\n")),
    }
}
