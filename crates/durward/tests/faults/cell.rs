//! One cell: a client and a server of its own, how far they have come, and what is broken then.

use crate::{
    flow,
    hear::Hearing,
    neighbour::Neighbour,
    script::Script,
    server::Server,
    stage::{DEADLINE, Stage},
    table::{Case, Fault, Flow, Speaks, What},
};
use http::Method;
use serde_json::{Value, json};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use testkit::{Agent, Ask, meta, soon};
use tokio::time::{interval, timeout};

/// How long a client that left is given to be noticed, before its server goes on.
const NOTICED: Duration = Duration::from_millis(300);
/// Within this whoever listens hears a server again that is back. The gateway makes pauses of two seconds.
const AGAIN: Duration = Duration::from_secs(20);
/// How long the server is quiet after a change of rights: longer than these are looked at.
const QUIET: Duration = Duration::from_millis(900);

pub(crate) struct Cell {
    pub(crate) number: usize,
    pub(crate) name: String,
    pub(crate) agent: String,
    pub(crate) key: String,
    pub(crate) speaks: Speaks,
    /// Where the gateway is.
    pub(crate) at: String,
    pub(crate) server: Server,
    /// The client of a session, who may end it.
    session: Option<Arc<Agent>>,
    /// The gateway listens to its server of itself, as often as it needs to: each time is a call of its own.
    pub(crate) is_listened_for: bool,
    /// Records that there must be.
    requests: AtomicUsize,
    calls: Mutex<Vec<String>>,
}

/// What the server does next.
pub(crate) type Rest = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What it would do, with the answer that it is giving, if it is.
pub(crate) type Goes = Box<dyn FnOnce(Option<Script>) -> Rest + Send>;

/// How things stand when the fault comes.
pub(crate) struct Open {
    /// What the client hears, or heard last.
    pub(crate) hearing: Hearing,
    /// What the server is saying, if it is.
    pub(crate) script: Option<Script>,
    /// What it would say yet.
    pub(crate) rest: Goes,
    /// What the client does next, if it is there.
    pub(crate) next: Next,
    /// How a server that was lost is heard again, if it can be.
    pub(crate) again: Option<Again>,
}

impl Open {
    /// Nothing can be heard again, and the client does nothing more.
    pub(crate) fn new(hearing: Hearing, script: Option<Script>, rest: Goes) -> Self {
        Self { hearing, script, rest, next: Next::Nothing, again: None }
    }
}

/// A server that can be listened to again.
pub(crate) struct Again {
    /// From then on whoever listens to it hears a word at once.
    pub(crate) prepare: fn(&Server),
    /// The method of that word.
    pub(crate) word: &'static str,
}

pub(crate) enum Next {
    Nothing,
    /// Answers a question.
    Answers(Value),
    /// Makes another request.
    Asks(&'static str, Value),
}

impl Cell {
    pub(crate) fn new(number: usize, agent: String, key: String, server: Server) -> Self {
        let speaks = server.speaks();
        Self {
            number,
            name: format!("c{number}"),
            agent,
            key,
            speaks,
            at: String::new(),
            server,
            session: None,
            is_listened_for: false,
            requests: AtomicUsize::new(0),
            calls: Mutex::default(),
        }
    }

    /// A record more that there must be.
    pub(crate) fn counts(&self, records: usize) {
        self.requests.fetch_add(records, Ordering::SeqCst);
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().expect("nobody failed").clone()
    }

    fn note(&self, call: &str) {
        if !call.is_empty() {
            self.calls.lock().expect("nobody failed").push(call.to_owned());
        }
    }

    /// The calls of this client have records: this is one of them.
    pub(crate) fn knows(&self, hearing: &Hearing) {
        self.note(&hearing.so_far().call);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.at)
    }

    /// A client with a session at this door.
    pub(crate) async fn legacy(&mut self, path: &str) -> Arc<Agent> {
        let agent = Arc::new(Agent::legacy(&self.url(path), Some(&self.key)).await);
        self.counts(2);
        self.session = Some(Arc::clone(&agent));
        agent
    }

    /// A client without.
    pub(crate) fn modern(&self, path: &str) -> Arc<Agent> {
        Arc::new(Agent::modern(&self.url(path), Some(&self.key)))
    }

    /// The door of this cell's server.
    pub(crate) fn door(&self) -> String {
        format!("/mcp/{}", self.name)
    }

    /// Sends a request, and hears what comes of it.
    pub(crate) fn asks(&self, agent: &Agent, id: u64, method: &str, mut params: Value) -> Hearing {
        if agent.session().is_none() && params.get("_meta").is_none() {
            params["_meta"] = meta();
        }
        self.sends(
            agent.ask(method, &json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})),
            json!(id),
        )
    }

    pub(crate) fn sends(&self, ask: Ask, id: Value) -> Hearing {
        self.counts(1);
        Hearing::begin(ask, id)
    }

    /// Sends what is answered at once, whatever the answer.
    pub(crate) async fn posts(&self, ask: Ask) -> u16 {
        let hearing = self.sends(ask, Value::Null);
        assert!(hearing.ends(DEADLINE).await, "a POST hangs");
        self.note(&hearing.so_far().call);
        hearing.so_far().status
    }

    /// Waits for the request of this method with this number, from 1: its id, and how it is answered.
    pub(crate) async fn asked(&self, method: &str, count: usize, prepared: Option<Script>) -> (Value, Script) {
        self.server.asked(method, count, prepared).await.expect("its answer was prepared")
    }

    /// Whether nothing is open on the server soon.
    async fn lets_go(&self) -> bool {
        let mut looks = interval(Duration::from_millis(10));
        let gone = async {
            while self.server.open() > 0 {
                looks.tick().await;
            }
        };
        timeout(self.server.takes(), gone).await.is_ok()
    }

    /// A server that was killed is there again, where it was.
    async fn revive(&mut self, again: &Again) {
        self.server = self.server.revived().await;
        (again.prepare)(&self.server);
    }
}

/// Goes through one cell. Says what was not as it should be.
pub(crate) async fn run(stage: &Stage, cell: &mut Cell, flow: &Flow, case: Case) -> Vec<String> {
    let Case { fault, moment, sees, recorded: _ } = case;
    let mut faults = Vec::new();
    let Ok(open) = timeout(Duration::from_secs(15), flow::reach(cell, flow, moment)).await else {
        return vec!["this moment never came".to_owned()];
    };
    let Open { mut hearing, script, rest, next, again } = open;
    let mut quiet = None;
    let lost = again.filter(|_| sees == "stays open" && matches!(fault, Fault::Killed | Fault::Cut));
    let before = lost.as_ref().map_or(0, |again| hearing.so_far().count(again.word));
    if let (Some(again), Fault::Cut) = (&lost, fault) {
        // It may be listened to again at any moment from now on.
        (again.prepare)(&cell.server);
    }
    let beside = Neighbour::of(stage, cell).await;
    match fault {
        Fault::Killed => cell.server.kill(),
        Fault::Cut => {
            if let Some(script) = script {
                script.cut().await;
            }
            // All else goes on: what cannot break, and the successor of a process.
            tokio::spawn(rest(None));
        }
        Fault::Silent => quiet = script,
        Fault::Flipped => {
            // What is on its way to the server has come there.
            faults.extend(stage.serves_others(cell, false).await.err());
            cell.server.flips();
            faults.extend(stage.finds_out(cell).await.err());
            tokio::spawn(async move {
                tokio::time::sleep(QUIET).await;
                rest(script).await;
            });
        }
        Fault::Gone | Fault::Removed | Fault::Moved | Fault::Revoked | Fault::Disabled | Fault::Unbridged => {
            cell.knows(&hearing);
            match fault {
                Fault::Removed => stage.remove(cell).await,
                Fault::Moved => stage.relocate(cell).await,
                Fault::Revoked => stage.revoke(cell).await,
                Fault::Disabled => stage.disable(cell).await,
                Fault::Unbridged => stage.unbridge(cell).await,
                Fault::Gone | Fault::Killed | Fault::Cut | Fault::Silent | Fault::Flipped => {}
            }
            if fault == Fault::Gone {
                drop(hearing);
                faults.extend(stage.serves_others(cell, false).await.err());
                faults.extend(Neighbour::ends(beside, fault).await.err());
                let mut looks = interval(Duration::from_millis(10));
                let _noticed = timeout(NOTICED, async {
                    while cell.server.open() > 0 {
                        looks.tick().await;
                    }
                })
                .await;
                tokio::spawn(rest(script));
                return finish(stage, cell, flow, case, "gone", None, faults).await;
            }
            tokio::spawn(async move {
                tokio::time::sleep(QUIET).await;
                rest(script).await;
            });
        }
    }
    let others = stage.serves_others(cell, false).await;
    faults.extend(others.err());
    faults.extend(Neighbour::ends(beside, fault).await.err());
    match next {
        Next::Nothing => {}
        Next::Answers(question) => {
            if let Some(agent) = cell.session.clone() {
                cell.posts(agent.ask("response", &answer_to(&question))).await;
            }
        }
        Next::Asks(method, params) => {
            cell.knows(&hearing);
            let agent = cell.session.clone().unwrap_or_else(|| cell.modern(&flow::door_of(flow, cell)));
            hearing = cell.asks(&agent, 8, method, params);
        }
    }
    // What stays open is looked at for longer than rights are looked at.
    let within = if sees == "stays open" { QUIET + NOTICED } else { DEADLINE };
    let ended = hearing.ends(within).await;
    let words = hearing.words();
    if !ended && sees != "stays open" {
        faults.push(format!("the client hangs: after {within:?} it has {words}"));
    }
    if let Some(again) = lost.filter(|_| !ended) {
        if fault == Fault::Killed {
            cell.revive(&again).await;
        }
        // A stream that is open and deaf is worse than one that ended: its client waits for ever.
        if !hearing.hears(again.word, before + 1, AGAIN).await {
            faults.push(format!("the stream stays open, and after {AGAIN:?} has nothing of a server that is back"));
        }
    }
    cell.knows(&hearing);
    // The client stays until it has been seen what is left while it is there.
    finish(stage, cell, flow, case, &words, Some((hearing, quiet)), faults).await
}

/// Looks at what is left.
async fn finish(
    stage: &Stage,
    cell: &mut Cell,
    flow: &Flow,
    case: Case,
    words: &str,
    there: Option<(Hearing, Option<Script>)>,
    mut faults: Vec<String>,
) -> Vec<String> {
    let Case { fault, moment, .. } = case;
    // A stream of a server that is not configured any more has no reason, also where its client stays.
    // One that a client was introduced to only after that is found at the next look.
    // Whoever needs no bridge may still come to it: sessions with processes, and streams of 2024, end when they are idle.
    let is_parted = fault == Fault::Unbridged && matches!(cell.server, Server::Http(..));
    let is_left = is_parted || matches!(fault, Fault::Removed | Fault::Moved);
    let is_looked_for = is_left && flow.what != What::Opening;
    if is_looked_for && !cell.lets_go().await {
        faults.push("the server of yesterday still has a stream, or a process".to_owned());
    }
    drop(there);
    // A process that ended is started again a little later.
    let ended = fault == Fault::Cut && matches!(cell.server, Server::Process(_));
    let lives = matches!(fault, Fault::Gone | Fault::Cut | Fault::Revoked | Fault::Disabled | Fault::Flipped) && !ended;
    cell.server.unqueue();
    faults.extend(stage.serves_others(cell, lives).await.err());
    let processes = cell.server.open();
    if lives && cell.server.is_shared() && processes != 1 {
        faults.push(format!("everybody shares {processes} processes"));
    }
    // A client that is there ends its session. One that is gone, or has lost its right, leaves that to the gateway.
    if !matches!(fault, Fault::Gone | Fault::Revoked | Fault::Disabled)
        && let Some(agent) = cell.session.take()
    {
        let leave = Ask::new(Method::DELETE, &cell.url(flow::door_of(flow, cell).as_str())).bearer(&cell.key);
        let session = agent.session().unwrap_or_default();
        cell.posts(leave.header("mcp-session-id", session).header("mcp-protocol-version", testkit::LEGACY)).await;
    }
    if fault == Fault::Gone && flow::waits_for_client(flow, moment) {
        // Its client may come back for five minutes: until then it waits, unless the right to it ends.
        let parked = stage.parked().await;
        if (parked - 1.0).abs() > f64::EPSILON {
            faults.push(format!("{parked} calls wait for their client, not 1"));
        }
        stage.revoke(cell).await;
    }
    faults.extend(stage.settles(cell).await.err());
    match stage.records(cell).await {
        Err(why) => faults.push(format!("the client has {words}; {why}")),
        Ok(records) => {
            let mine = records.iter().filter(|(method, _)| method == flow.method).map(|(_, outcome)| outcome.as_str());
            let said = mine.collect::<Vec<_>>().join(", ");
            let outcomes = case.outcomes();
            if !outcomes.contains(&(words, said.as_str())) {
                let method = flow.method;
                faults
                    .push(format!("the client has {words}, the records of {method} say {said:?}: not of {outcomes:?}"));
            }
        }
    }
    faults
}

/// An honest answer to a question of a server.
pub(crate) fn answer_to(question: &Value) -> Value {
    let result = match question["method"].as_str() {
        Some("sampling/createMessage") => {
            json!({"role": "assistant", "content": {"type": "text", "text": "Ada"}, "model": "m"})
        }
        _ => json!({"action": "accept", "content": {"name": "Ada"}}),
    };
    json!({"jsonrpc": "2.0", "id": question["id"], "result": result})
}

/// Answers a question, as the client does in the course of a flow.
pub(crate) async fn answers(cell: &Cell, agent: &Agent, question: &Value) {
    let status = soon(cell.posts(agent.ask("response", &answer_to(question)))).await;
    assert_eq!(status, 202, "the answer is taken");
}
