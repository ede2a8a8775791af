//! Reloads: no call is lost and each is judged by one policy from beginning to end; all of what was read is put in force
//! or none; what weakens safety is said.
#![expect(clippy::unwrap_used, reason = "what the test stands on must be there, or the test has failed")]

mod rig;
mod world;

use rig::policy;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use testkit::{Agent, Upstream};
use world::{ALL, World, http, put};

const RELOADS: usize = 50;
const CLIENTS_PER_ERA: usize = 3;

/// Both allow the call, each under a name of its own.
fn version(name: &str) -> String {
    policy(&json!([
        {"id": name, "action": "*", "target": "*/*", "effect": "allow"},
        {"id": "never", "action": "tool.execute", "target": "files/erase", "effect": "deny"},
    ]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_reloads_under_load_lose_no_call_and_each_is_judged_by_one_policy() {
    let upstream = Upstream::with_tools(["echo", "erase"]).await;
    let world = World::with(&format!("servers:\n{}", http("files", &upstream)), &version("even")).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for _ in 0..CLIENTS_PER_ERA {
        for agent in [world.modern("/mcp/files"), world.legacy("/mcp/files").await] {
            clients.push(tokio::spawn(client(agent, Arc::clone(&over))));
        }
    }
    for reload in 1..=RELOADS {
        world.judge(&version(if reload % 2 == 0 { "even" } else { "odd" })).await;
    }
    over.store(true, Ordering::SeqCst);
    let mut calls = Vec::new();
    for client in clients {
        calls.extend(client.await.unwrap());
    }
    let failed: Vec<_> =
        calls.iter().filter(|(_, status, answer)| *status != 200 || answer.get("error").is_some()).collect();
    assert!(failed.is_empty(), "{} of {} calls failed: {failed:#?}", failed.len(), calls.len());
    assert!(calls.len() > RELOADS, "there was no load: {} calls", calls.len());

    let (status, folder) = world.stop().await;
    assert!(status.success());
    let records = world::records(&folder.path().join("data/log"));
    let by_call: HashMap<&str, &Value> =
        records.iter().map(|record| (record["call"].as_str().unwrap(), record)).collect();
    // Which policy each rule was of: a call whose rule is of one version and whose version is another's saw both.
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (call, _, _) in &calls {
        let record = by_call.get(call.as_str()).unwrap();
        assert_eq!(record["outcome"]["is"], "answered", "{record:#}");
        let version = record["policy"].as_str().expect("the version that decided").to_owned();
        let known = versions.entry(version).or_default();
        let rule = record["rules"][0].as_str().unwrap().to_owned();
        if !known.contains(&rule) {
            known.push(rule);
        }
    }
    assert_eq!(versions.len(), 2, "both versions decided: {versions:?}");
    assert!(versions.values().all(|rules| rules.len() == 1), "a version decides by its own rules: {versions:?}");
}

#[tokio::test]
async fn a_reload_that_fails_puts_nothing_in_force() {
    let (upstream, collector) = (Upstream::with_tools(["echo"]).await, Upstream::start().await);
    let servers = format!("servers:\n{}", http("files", &upstream));
    let world = World::with(&format!("log: {{ keep_text: 1d }}\n{servers}"), ALL).await;
    // Where kept texts would be: they cannot be listed, so it cannot be said what is left of them.
    put(&world.data(), "log/text", "no folder");
    let otlp = format!("telemetry: {{ otlp: {{ endpoint: \"http://{}\" }} }}\n", collector.address());
    let before = world.said().len();
    let agents = "agents: { alice: { disabled: true }, bob: {} }\n";
    put(world.folder(), "durward.yaml", &world::complete(&format!("{agents}{otlp}{servers}")));
    world.signal(Signal::HUP);
    world.says_after(before, "durward: not reloaded (the kept texts cannot be listed").await;

    let answer = world.modern("/mcp/files").call("echo", json!({})).await;

    assert!(answer["result"].is_object(), "alice is not switched off: {answer}");
    let (status, _folder) = world.stop().await;
    assert!(status.success());
    // What is exported is sent at the end, at the latest.
    assert_eq!(collector.connections(), 0, "and nothing is exported");
}

#[tokio::test]
async fn a_reload_that_is_refused_is_on_record() {
    let upstream = Upstream::with_tools(["echo"]).await;
    let world = World::start(&http("files", &upstream)).await;
    let refused = "durward: not reloaded";
    let bad = |id: &str| json!({"id": id, "action": "no.such.action", "target": "*/*", "effect": "allow"});
    let before = world.said().len();
    put(world.folder(), "policy.json", &policy(&json!([bad("one"), bad("two")])));
    world.says_after(before, refused).await;
    // Each time that somebody asks is another one.
    let before = world.said().len();
    world.signal(Signal::HUP);
    world.says_after(before, refused).await;
    let before = world.said().len();
    put(
        world.folder(),
        "durward.yaml",
        &world::complete(&format!("servers:\n{}unheard_of: 1\n", http("files", &upstream))),
    );
    world.says_after(before, refused).await;

    let (status, folder) = world.stop().await;
    assert!(status.success());
    let system = rig::leaves(&folder.path().join("data/log"), &audit::Tree::System);
    let told: Vec<String> = system
        .into_iter()
        .filter(|(_, record)| record["event"] == "reload_refused")
        .map(|(_, record)| record["detail"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(told.len(), 3, "{told:#?}");
    for told in told.iter().take(2) {
        assert!(told.contains("policy.json:") && told.contains(", and 1 more") && told.len() < 520, "{told}");
    }
    assert!(told.last().unwrap().contains("unheard_of"), "{told:#?}");
}

#[tokio::test]
async fn what_weakens_safety_is_said_when_a_reload_brings_it() {
    let upstream = Upstream::with_tools(["echo"]).await;
    let world = World::start(&http("files", &upstream)).await;
    let server = format!("url: \"{}\", internal: true", upstream.url());
    let weak = format!(
        "danger_allow_anonymous: bob\n\
         detect: {{ secrets: {{ results: off }} }}\n\
         servers: {{ files: {{ {server}, tools: {{ \"echo\": {{ danger_skip_schema: true }} }} }} }}\n"
    );
    let before = world.said().len();
    world.reload(&weak).await;
    for text in [
        "danger_allow_anonymous: whoever reaches this address calls as this agent",
        "warning: calls without a credential are allowed: they are taken for the agent `bob`",
        "warning: arguments of these tools are not checked: `danger_skip_schema` is set",
        "warning: nobody looks for secrets in what servers send: the detector is off",
    ] {
        world.says_after(before, text).await;
    }

    // What was said is not said again, wherever it stands now. The same of another tool is something else.
    let before = world.said().len();
    let weaker = weak.replace("\"echo\":", "\"read\": { danger_skip_schema: true }, \"echo\":");
    world.reload(&format!("\n\n{weaker}")).await;
    let rules = json!([{"id": "small", "action": "*", "target": "*/*", "effect": "allow", "when": "args.size < 9"}]);
    world.judge(&policy(&rules)).await;
    let said = world.says_after(before, "warning: rule `small`").await;
    assert!(said.contains("is read without `has(args.size)`"), "{said}");
    let warnings = world.said().into_iter().skip(before).filter(|line| line.contains("warning: "));
    let warnings: Vec<_> = warnings.collect();
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    assert!(warnings[0].contains("arguments of these tools are not checked"), "{warnings:#?}");
}

/// Calls until it is over: id, status and answer of each call.
async fn client(agent: Agent, over: Arc<AtomicBool>) -> Vec<(String, u16, Value)> {
    let mut calls = Vec::new();
    while !over.load(Ordering::SeqCst) {
        let reply = agent.request("tools/call", json!({"name": "echo", "arguments": {"n": calls.len()}})).await;
        let call = reply.header("durward-call-id").unwrap().to_owned();
        let status = reply.status.as_u16();
        calls.push((call, status, reply.json().await));
    }
    calls
}
