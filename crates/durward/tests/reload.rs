//! A reload under load: no call is lost, and each is judged by one policy from beginning to end.
#![expect(clippy::unwrap_used, reason = "what the test stands on must be there, or the test has failed")]

mod rig;
mod world;

use rig::policy;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use testkit::{Agent, Upstream};
use world::{World, http};

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
