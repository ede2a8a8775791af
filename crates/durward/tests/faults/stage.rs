//! A gateway for some cells of a flow, with a server, an agent and a key for each of them, and what it counts.

use crate::{
    cell::Cell,
    flow,
    process::Processes,
    rig::leaves,
    server::Server,
    table::{Case, Fault, Flow, Speaks},
    world::{self, World},
};
use audit::Tree;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};
use testkit::{Agent, Ask, Upstream};
use tokio::{
    net::UnixStream,
    time::{Instant, interval, timeout},
};
use vocab::TenantId;

/// How long a server may be silent, here.
pub(crate) const SILENCE: Duration = Duration::from_secs(4);
/// Within this everybody has an end, silent servers included.
pub(crate) const DEADLINE: Duration = Duration::from_secs(8);
/// How long an honest caller may wait.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(2);
/// How long everything may take to come back.
const SETTLE: Duration = Duration::from_secs(8);
/// Tasks that come and go by themselves: each runtime looks after its idle connections.
const CARETAKERS: f64 = 3.0;

/// What must be zero once a cell is over.
const ZERO: [&str; 6] = [
    "durward_calls_active",
    "durward_sessions",
    "durward_streams",
    "durward_bridge_sessions",
    "durward_bridge_parked",
    "durward_children",
];

/// What the gateway counts at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// What must be zero and is not.
    pub(crate) left: Vec<(String, f64)>,
    /// Tasks, without those of connections to servers, which may be kept.
    tasks: f64,
}

pub(crate) struct Stage {
    world: World,
    metrics: String,
    /// A server that no fault concerns.
    _calm: Upstream,
    /// Where servers are moved to.
    elsewhere: Upstream,
    /// The lines of the servers in the configuration.
    lines: Mutex<Vec<String>>,
    agents: usize,
    tasks: f64,
}

impl Stage {
    /// Starts the gateway, for some cells of a flow.
    pub(crate) async fn set(flow: &Flow, cases: &[Case]) -> (Self, Vec<Cell>) {
        let count = cases.len();
        let (calm, elsewhere) = (Upstream::start().await, Upstream::start().await);
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        fs::create_dir(&data).expect("a data directory");
        let (mut lines, mut cells, mut rules) = (Vec::new(), Vec::new(), Vec::new());
        for (number, case) in cases.iter().enumerate() {
            let (name, agent) = (format!("c{number}"), format!("a{number}"));
            let key = world::key(&data, &agent, None).await;
            let (server, mut line) = serve(&name, flow.server).await;
            if case.fault == Fault::Flipped {
                // It speaks one era alone, and which one is found out.
                server.becomes(flow.server);
                line = world::http(&name, &server.upstream());
            }
            lines.push(line);
            // What others have is hidden: on the address for all there is one server.
            rules.push(
                json!({"id": name, "agents": [agent], "action": "*", "target": format!("{name}/*"), "effect": "allow"}),
            );
            cells.push(Cell::new(number, agent, key, server));
        }
        rules.push(json!({"id": "bob", "agents": ["bob"], "action": "*", "target": "*/*", "effect": "allow"}));
        let bob = world::key(&data, "bob", None).await;
        lines.push(world::http("calm", &calm).replace("internal: true", "internal: true, era: both"));
        fs::write(folder.path().join("policy.json"), json!({"policy": "faults", "rules": rules}).to_string())
            .expect("a policy");
        fs::write(folder.path().join("durward.yaml"), world::complete(&body(&lines, count))).expect("a configuration");
        let world = World::launch(folder, String::new(), bob).await;
        let management = world.says("management").await;
        let (_, rest) = management.split_once("http://").expect("an address");
        let metrics = format!("http://{}/metrics", rest.split_whitespace().next().expect("an address"));
        let mut stage =
            Self { world, metrics, _calm: calm, elsewhere, lines: Mutex::new(lines), agents: count, tasks: f64::MAX };
        stage.begin(count).await;
        for cell in &mut cells {
            cell.at = stage.world.url("");
        }
        (stage, cells)
    }

    /// Waits until every server was looked at, and what that took is gone.
    async fn begin(&mut self, count: usize) {
        let mut turns = interval(Duration::from_millis(20));
        let begun = Instant::now();
        loop {
            turns.tick().await;
            let text = self.scrape().await;
            let looked = text.lines().filter(|line| line.starts_with("durward_server_up{")).count();
            let counts = Counts::of(&text);
            if looked > count && counts.left.is_empty() {
                self.tasks = counts.tasks;
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{looked} of {count} servers, {counts:?}");
        }
    }

    async fn scrape(&self) -> String {
        timeout(DEADLINE, async { Ask::get(&self.metrics).send().await.text().await }).await.expect("metrics")
    }

    /// Takes the server of a cell out.
    pub(crate) async fn remove(&self, cell: &Cell) {
        self.change(cell, String::new()).await;
    }

    /// Puts another one in its place.
    pub(crate) async fn relocate(&self, cell: &Cell) {
        let era = match cell.speaks {
            Speaks::Legacy | Speaks::Lasting => "legacy",
            Speaks::Modern => "modern",
            Speaks::Process(era, _) => era,
            Speaks::Both => "both",
        };
        let line = world::http(&cell.name, &self.elsewhere);
        self.change(cell, line.replace("internal: true", &format!("internal: true, era: {era}"))).await;
    }

    /// Forbids the bridge to it.
    pub(crate) async fn unbridge(&self, cell: &Cell) {
        let line = self.lines.lock().expect("nobody failed").get(cell.number).cloned().expect("it is there");
        self.change(cell, line.replacen("{ ", "{ bridge: false, ", 1)).await;
    }

    /// Waits until the gateway has found out that the server of a cell speaks the other era: somebody else is served.
    pub(crate) async fn finds_out(&self, cell: &Cell) -> Result<(), String> {
        let url = self.world.url(&cell.door());
        let mut turns = interval(Duration::from_millis(100));
        let begun = Instant::now();
        loop {
            turns.tick().await;
            let bob = Agent::modern(&url, Some(&self.world.bob));
            let called = served(&bob, "a server of another era").await;
            if called.is_ok() || begun.elapsed() > AT_ONCE {
                return called;
            }
        }
    }

    async fn change(&self, cell: &Cell, line: String) {
        let body = {
            let mut lines = self.lines.lock().expect("nobody failed");
            let before = lines.get_mut(cell.number).expect("it is there");
            if *before == line {
                return;
            }
            *before = line;
            body(&lines, self.agents)
        };
        self.world.reload(&body).await;
    }

    /// Revokes the key of a cell.
    pub(crate) async fn revoke(&self, cell: &Cell) {
        let id = cell.key.split('_').nth(1).expect("a key names itself");
        self.manage(&Ask::new(http::Method::DELETE, &format!("http://localhost/api/agent-keys/{id}"))).await;
    }

    /// Disables the agent of a cell.
    pub(crate) async fn disable(&self, cell: &Cell) {
        self.manage(&Ask::new(http::Method::POST, &format!("http://localhost/api/agents/{}/disable", cell.agent)))
            .await;
    }

    #[expect(clippy::disallowed_methods, reason = "a test dials what it is told to")]
    async fn manage(&self, ask: &Ask) {
        let socket = UnixStream::connect(self.world.data().join("control.sock")).await.expect("a socket");
        let reply = timeout(DEADLINE, ask.clone().over(socket)).await.expect("in time").expect("an answer");
        let status = reply.status;
        assert_eq!(status, 200, "{}", reply.text().await);
    }

    /// An honest caller is served at once: on a server that has nothing to do with it, and on the same, where it can be.
    pub(crate) async fn serves_others(&self, cell: &Cell, same: bool) -> Result<(), String> {
        let bob = Agent::modern(&self.world.url("/mcp/calm"), Some(&self.world.bob));
        served(&bob, "the calm server").await?;
        if !same {
            return Ok(());
        }
        let agent = self.other(cell).await?;
        served(&agent, "the same server").await?;
        if agent.session().is_some() {
            agent.leave().await;
        }
        Ok(())
    }

    /// Somebody who has nothing to do with what happens, at the server of a cell.
    pub(crate) async fn other(&self, cell: &Cell) -> Result<Agent, String> {
        let url = self.world.url(&cell.door());
        if matches!(cell.speaks, Speaks::Both | Speaks::Modern | Speaks::Process("modern", _)) {
            return Ok(Agent::modern(&url, Some(&self.world.bob)));
        }
        let agent = timeout(AT_ONCE, Agent::legacy(&url, Some(&self.world.bob)));
        agent.await.map_err(|_| "somebody else has no session at once".to_owned())
    }

    /// Waits until everything that must be zero is, and no task is left.
    pub(crate) async fn settles(&self, cell: &Cell) -> Result<(), String> {
        let begun = Instant::now();
        let mut turns = interval(Duration::from_millis(100));
        let mut swept = Instant::now();
        loop {
            turns.tick().await;
            let counts = Counts::of(&self.scrape().await);
            if cell.server.is_shared() && counts.left.iter().all(|(name, _)| name == "durward_children") {
                // Its process stays for whoever comes next, until nobody may.
                self.remove(cell).await;
            }
            let more = counts.tasks - self.tasks;
            let open = cell.server.open();
            // Looked for once nothing else is left: there are many processes on a machine.
            let is_over = counts.left.is_empty() && more <= CARETAKERS && open == 0;
            let children = if is_over { self.world.children() } else { 0 };
            if is_over && children == 0 {
                return Ok(());
            }
            if begun.elapsed() > SETTLE {
                let left =
                    format!("{more} tasks, {open} requests on the server or processes of it, {children} children");
                return Err(format!("left: {:?}, {left}", counts.left));
            }
            // What is idle is looked for with each reload, and else every half minute.
            if swept.elapsed() > Duration::from_millis(300) {
                swept = Instant::now();
                self.world.signal(Signal::HUP);
            }
        }
    }

    /// How many calls wait for their client.
    pub(crate) async fn parked(&self) -> f64 {
        value(&self.scrape().await, "durward_bridge_parked")
    }

    /// The closed records of a cell, once there are as many as requests and questions: method and outcome of each.
    pub(crate) async fn records(&self, cell: &Cell) -> Result<Vec<(String, String)>, String> {
        let wanted = cell.requests();
        let begun = Instant::now();
        let mut turns = interval(Duration::from_millis(50));
        loop {
            turns.tick().await;
            let found = self.found(cell);
            if found.len() < wanted && begun.elapsed() < Duration::from_secs(3) {
                continue;
            }
            let described: Vec<_> = found.iter().map(described).collect();
            let mut calls: Vec<&Value> = found.iter().map(|record| &record["call"]).collect();
            calls.sort_by_key(ToString::to_string);
            calls.dedup();
            if found.len() != wanted || calls.len() != wanted {
                return Err(format!("{wanted} requests and {} records: {described:?}", found.len()));
            }
            for call in cell.calls() {
                if !calls.iter().any(|known| **known == call) {
                    return Err(format!("call {call} has no record: {described:?}"));
                }
            }
            return Ok(described);
        }
    }

    fn found(&self, cell: &Cell) -> Vec<Value> {
        let log = self.world.data().join("log");
        let calls = cell.calls();
        let tenant = leaves(&log, &Tree::Tenant(TenantId::default_tenant()));
        let all = tenant.into_iter().filter(|(kind, _)| kind == "call").chain(leaves(&log, &Tree::System));
        let mine = |record: &Value| {
            record["agent"] == cell.agent
                || record["call"].as_str().is_some_and(|id| calls.iter().any(|call| call == id))
        };
        // Rounds of a call over the bridge have records of their own, which `every_round_has_an_intent_and_a_record_of_its_own`
        // counts: no request of the client's leads to them, and where a fault comes early there are none.
        let round = |record: &Value| record["method"] == "tools/call" && record["parent"].is_string();
        let unasked = |record: &Value| {
            let is_own = record["call"].as_str().is_some_and(|id| calls.iter().any(|call| call == id));
            cell.is_listened_for && record["method"] == "GET" && !is_own
        };
        // What the gateway does by itself for a session that listens is on record under its stream, as often as it has to.
        let own = |record: &Value| record["method"] == "GET" && record["parent"].is_string();
        let counts = |record: &Value| mine(record) && !round(record) && !unasked(record) && !own(record);
        all.map(|(_, record)| record).filter(counts).collect()
    }

    /// What the gateway said, for whoever looks for the reason.
    pub(crate) fn said(&self) -> Vec<String> {
        self.world.said()
    }
}

async fn served(agent: &Agent, by: &str) -> Result<(), String> {
    let answer = timeout(AT_ONCE, agent.call("echo", json!({"n": 1})));
    let answer = answer.await.map_err(|_| format!("somebody else is not served at once by {by}"))?;
    if answer.get("result").is_some() { Ok(()) } else { Err(format!("somebody else is refused by {by}: {answer}")) }
}

/// A server and its line in the configuration.
async fn serve(name: &str, speaks: Speaks) -> (Server, String) {
    let upstream = Upstream::start().await;
    let url = upstream.url();
    let line = |more: &str| format!("  {name}: {{ url: \"{url}\", internal: true, {more} }}\n");
    let line = match speaks {
        Speaks::Both => line("era: both"),
        Speaks::Legacy => line("era: legacy"),
        Speaks::Modern => line("era: modern"),
        Speaks::Lasting => {
            let streams = flow::lasting::serve(&upstream);
            return (Server::Lasting(Arc::new(upstream), streams), line("transport: sse"));
        }
        Speaks::Process(era, manner) => {
            let processes = Processes::start(era, manner).await;
            let line = processes.line(name);
            return (Server::Process(Arc::new(processes)), line);
        }
    };
    (Server::Http(Arc::new(upstream), speaks), line)
}

fn body(lines: &[String], agents: usize) -> String {
    let mut body = String::from("servers:\n");
    body.extend(lines.iter().map(String::as_str));
    body.push_str("agents:\n  bob: {}\n");
    for number in 0..agents {
        let _ = writeln!(body, "  a{number}: {{}}");
    }
    let silence = SILENCE.as_millis();
    let _ = writeln!(body, "bounds: {{ session_idle: 1s, stream_idle: {silence}ms, deadline: {silence}ms }}");
    body
}

impl Counts {
    fn of(text: &str) -> Self {
        let mut left: Vec<_> = ZERO.iter().map(|name| ((*name).to_owned(), value(text, name))).collect();
        for line in text.lines().filter(|line| line.starts_with("durward_server_calls_active{")) {
            let (name, count) = line.rsplit_once(' ').unwrap_or((line, "NaN"));
            left.push((name.to_owned(), count.parse().unwrap_or(f64::NAN)));
        }
        left.retain(|(_, count)| *count != 0.0);
        Self { left, tasks: value(text, "durward_tasks") - value(text, "durward_connections") }
    }
}

fn value(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(f64::NAN)
}

/// Method and outcome of a record.
fn described(record: &Value) -> (String, String) {
    let method = record["method"].as_str().unwrap_or_default().to_owned();
    (method, crate::rig::outcome(record))
}
