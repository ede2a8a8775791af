//! Killed at any moment: the log verifies, what was answered was intended, nothing is there twice, what nobody knows the
//! end of is closed as unknown, and no process of a server is left.
//!
//! The moments are drawn. A failure prints the seed; `DURWARD_TEST_SEED` draws the same ones again.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what the test stands on must be there, or the test has failed"
)]

mod rig;
mod world;

use audit::Tree;
use rig::{leaves, prepared, relayed};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    fs::OpenOptions,
    hash::{BuildHasher, Hasher, RandomState},
    io::{BufRead, Write},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use testkit::{Agent, Answer, Ask, Received, Upstream};
use vocab::TenantId;
use world::{ALL, World};

const ROUNDS: usize = 20;

/// What clients do, all at once. Each begins again as soon as it is answered.
const LOAD: [Load; 13] = [
    Load::Changes,
    Load::Changes,
    Load::Changes,
    Load::Reads,
    Load::Reads,
    Load::Streams,
    Load::Session,
    Load::Session,
    Load::Process,
    Load::SessionProcess,
    Load::All,
    Load::AllProcess,
    Load::SessionAll,
];

#[derive(Debug, Clone, Copy)]
enum Load {
    /// A call that may change something.
    Changes,
    /// A call of a tool that the operator says only reads.
    Reads,
    /// A call that is answered by a stream of events.
    Streams,
    /// A call in a session.
    Session,
    /// A call of a process.
    Process,
    /// The same in a session.
    SessionProcess,
    /// A call on the path of all servers.
    All,
    /// A call of a process there.
    AllProcess,
    /// The same in a session.
    SessionAll,
}

impl Load {
    /// Where it is called, and as what.
    const fn target(self) -> (&'static str, &'static str) {
        match self {
            Self::Changes | Self::Session => ("/mcp/files", "echo"),
            Self::Reads => ("/mcp/files", "get"),
            Self::Streams => ("/mcp/files", "stream"),
            Self::Process => ("/mcp/process", "echo"),
            Self::SessionProcess => ("/mcp/sessions", "echo"),
            Self::All => ("/mcp", "files__echo"),
            Self::AllProcess => ("/mcp", "process__echo"),
            Self::SessionAll => ("/mcp", "sessions__echo"),
        }
    }

    const fn has_session(self) -> bool {
        matches!(self, Self::Session | Self::SessionProcess | Self::SessionAll)
    }

    const fn is_of_a_process(self) -> bool {
        matches!(self, Self::Process | Self::SessionProcess | Self::AllProcess | Self::SessionAll)
    }
}

/// What was answered: calls that may have changed something, and all of them.
#[derive(Default)]
struct Answered {
    changes: HashSet<String>,
    all: HashSet<String>,
    /// What was called of processes, by the number that the client gave it.
    of_processes: HashSet<u64>,
}

/// Of all calls there are: each has its own number among its arguments, by which whoever it comes to knows it.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// Not a test unless the gateway starts it: then it is a server until its input ends.
#[test]
#[expect(clippy::disallowed_methods, reason = "the gateway says through the environment what this process is")]
fn the_server_itself() {
    let Ok(arrivals) = std::env::var("ARRIVALS") else { return };
    let mut arrivals = OpenOptions::new().append(true).create(true).open(arrivals).unwrap();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        let result = match message["method"].as_str() {
            Some("initialize") => json!({"protocolVersion": message["params"]["protocolVersion"],
                "capabilities": {"tools": {}}, "serverInfo": {"name": "self", "version": "1"}}),
            Some("server/discover") => json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
                "ttlMs": 0, "cacheScope": "private", "resultType": "complete"}),
            Some("tools/list") => json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}], "ttlMs": 0,
                "cacheScope": "private", "resultType": "complete"}),
            Some("tools/call") => {
                // In one piece, before the answer.
                arrivals.write_all(format!("{}\n", message["params"]["arguments"]["number"]).as_bytes()).unwrap();
                json!({"content": [], "resultType": "complete"})
            }
            _ => json!({"content": [], "resultType": "complete"}),
        };
        if !message["id"].is_null() {
            let mut out = std::io::stdout().lock();
            let text = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
            // The gateway may be gone by now.
            let _unheard = out.write_all(format!("{text}\n").as_bytes()).and_then(|()| out.flush());
        }
    }
    std::process::exit(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_under_load_lose_and_repeat_nothing() {
    let mut moments = Moments::drawn();
    let upstream = upstream().await;
    // Every process of a server carries it, whoever its parent is by then.
    let mark = format!("crash-{}", std::process::id());
    let marks = tempfile::tempdir().unwrap();
    let arrivals = marks.path().join("arrivals");
    let body = configuration(&upstream, &mark, &arrivals);
    let (mut folder, alice, bob) = prepared(&body, ALL, &[]).await;
    let answered: Arc<Mutex<Answered>> = Arc::default();
    for _ in 0..ROUNDS {
        let world = World::launch(folder, alice.clone(), bob.clone()).await;
        let done = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = LOAD
            .into_iter()
            .map(|load| {
                tokio::spawn(client(load, world.url(""), alice.clone(), Arc::clone(&answered), Arc::clone(&done)))
            })
            .collect();
        // After so many answers, and a little later: in the middle of whatever is under way.
        let (enough, later) = (moments.below(120), moments.below(3000));
        world.until(|| done.load(Ordering::SeqCst) >= enough).await;
        let _ = tokio::time::timeout(Duration::from_micros(later as u64), std::future::pending::<()>()).await;
        folder = world.kill(Signal::KILL).await;
        for client in clients {
            client.abort();
            let _ended = client.await;
        }
        check(&folder.path().join("data"), &answered.lock().unwrap().changes);
        none_left(&mark).await;
    }
    // One more start closes what the last kill left open; a stop in order leaves nothing open.
    let world = World::launch(folder, alice, bob).await;
    let (status, folder) = world.stop().await;
    assert!(status.success());
    let data = folder.path().join("data");
    let answered = answered.lock().unwrap();
    check(&data, &answered.changes);
    let tree = leaves(&data.join("log"), &Tree::Tenant(TenantId::default_tenant()));
    let mut intended: HashSet<String> = HashSet::new();
    let mut ends: HashMap<String, Vec<Value>> = HashMap::new();
    let mut intended_of_processes = 0;
    for (kind, record) in &tree {
        let call = record["call"].as_str().unwrap_or_default().to_owned();
        match kind.as_str() {
            "intent" => {
                assert!(intended.insert(call), "an intent twice");
                intended_of_processes += usize::from(record["action"] == "tool.execute" && record["server"] != "files");
            }
            "call" => ends.entry(call).or_default().push(record["outcome"]["is"].clone()),
            _ => {}
        }
    }
    for (call, ends) in &ends {
        assert_eq!(ends.len(), 1, "one call, one end: {call} {ends:?}");
    }
    for call in &intended {
        assert!(ends.contains_key(call), "call {call} was never closed");
    }
    assert!(ends.values().flatten().any(|end| end == "unknown"), "twenty kills under load interrupt something");
    // Whatever reached the server reached it once; what may have changed something was intended.
    let (mut arrived, mut numbers) = (HashSet::new(), HashSet::new());
    for request in relayed(&upstream, "tools/call") {
        let call = request.header("durward-call-id").unwrap().to_owned();
        if tool(&request) != "get" {
            assert!(intended.contains(&call), "call {call} arrived without a word in the log");
        }
        assert!(arrived.insert(call), "a call arrived twice");
        let number = request.json()["params"]["arguments"]["number"].as_u64().unwrap();
        assert!(numbers.insert(number), "call {number} arrived twice, under two ids");
    }
    // The same of processes, which are told no ids.
    let at_processes = std::fs::read_to_string(&arrivals).unwrap();
    let before = numbers.len();
    for number in at_processes.lines() {
        assert!(numbers.insert(number.parse().unwrap()), "call {number} arrived twice");
    }
    assert!(numbers.len() - before <= intended_of_processes, "a process was called without a word in the log");
    assert!(answered.of_processes.is_subset(&numbers), "what was answered arrived");
    assert!(!answered.of_processes.is_empty());
    assert!(answered.changes.is_subset(&intended));
    assert!(answered.all.len() > answered.changes.len(), "reads were answered, too");
}

/// One client, until the gateway is gone.
async fn client(load: Load, door: String, key: String, answered: Arc<Mutex<Answered>>, done: Arc<AtomicUsize>) {
    let (path, name) = load.target();
    let (url, session) = (format!("{door}{path}"), load.has_session());
    // What cannot be begun any more has been killed.
    let Ok(agent) = tokio::spawn(async move {
        if session { Agent::legacy(&url, Some(&key)).await } else { Agent::modern(&url, Some(&key)) }
    })
    .await
    else {
        return;
    };
    loop {
        let number = NUMBERS.fetch_add(1, Ordering::SeqCst);
        let mut params = json!({"name": name, "arguments": {"load": format!("{load:?}"), "number": number}});
        if !session {
            params["_meta"] = testkit::meta();
        }
        let ask =
            agent.ask("tools/call", &json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}));
        let Some((call, whole)) = attempt(ask).await else { return };
        if whole.get("result").is_some() {
            let mut answered = answered.lock().unwrap();
            if !matches!(load, Load::Reads) {
                answered.changes.insert(call.clone());
            }
            answered.all.insert(call);
            if load.is_of_a_process() {
                answered.of_processes.insert(number);
            }
            done.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn attempt(ask: Ask) -> Option<(String, Value)> {
    let reply = tokio::spawn(ask.try_send()).await.ok()?.ok()?;
    let call = reply.header("durward-call-id")?.to_owned();
    Some((call, reply.json().await))
}

async fn upstream() -> Upstream {
    let upstream = Upstream::with_tools(["echo", "get", "stream"]).await;
    upstream.always("tools/call", |request| {
        let result = json!({"content": [], "resultType": "complete"});
        if tool(request) != "stream" {
            return Answer::result(&request.id(), &result);
        }
        let news = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}});
        let answer = json!({"jsonrpc": "2.0", "id": request.id(), "result": result});
        Answer::event_text(format!("data: {news}\n\ndata: {news}\n\ndata: {answer}\n\n"))
    });
    upstream
}

fn tool(request: &Received) -> String {
    request.json()["params"]["name"].as_str().unwrap_or_default().to_owned()
}

fn configuration(upstream: &Upstream, mark: &str, arrivals: &Path) -> String {
    let program = std::env::current_exe().unwrap();
    let process = |name: &str, era: &str| {
        format!(
            "  {name}: {{ command: [\"{}\", --exact, the_server_itself, --nocapture], env: {{ MARK: {mark}, ARRIVALS: \"{}\" }}, era: {era} }}\n",
            program.display(),
            arrivals.display()
        )
    };
    format!(
        "servers:\n  files: {{ url: \"{}\", internal: true, tools: {{ get: {{ class: read }} }} }}\n{}{}",
        upstream.url(),
        process("process", "modern"),
        process("sessions", "legacy")
    )
}

/// Waits until no process carries the mark.
async fn none_left(mark: &str) {
    let marked = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| std::fs::read(entry.path().join("environ")).ok())
            .any(|environ| environ.split(|byte| *byte == 0).any(|one| one == format!("MARK={mark}").as_bytes()))
    };
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    testkit::soon(async {
        while marked() {
            looks.tick().await;
        }
    })
    .await;
}

/// Where the kills fall.
struct Moments {
    seed: u64,
    state: u64,
}

impl Moments {
    #[expect(clippy::disallowed_methods, reason = "whoever replays a failure says how")]
    fn drawn() -> Self {
        let given = std::env::var("DURWARD_TEST_SEED").ok();
        let seed = given.map_or_else(|| RandomState::new().build_hasher().finish(), |text| text.parse().unwrap());
        Self { seed, state: seed }
    }

    /// The next number (`SplitMix64`).
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.draw() % bound as u64).unwrap()
    }
}

impl Drop for Moments {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the same kills again: DURWARD_TEST_SEED={}", self.seed);
        }
    }
}

/// The log as the kill left it.
fn check(data: &Path, answered: &HashSet<String>) {
    rig::verify(data);
    // The journal, not the tiles alone: the last second may not be in a tile yet.
    let mut text = String::new();
    for entry in std::fs::read_dir(data.join("log/journal")).unwrap().flatten() {
        text.push_str(&String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()));
    }
    for call in answered {
        assert!(text.contains(&format!("\"call\":\"{call}\"")), "answered call {call} has no intent on disk");
    }
}
