//! Credentials in one place: agents hold their own key and nothing else, servers are known by one secret each.

mod rig;
mod world;

use rig::prepared;
use serde_json::json;
use std::collections::BTreeSet;
use testkit::{Agent, Upstream};
use world::{ALL, World};

const AGENTS: usize = 6;
const SERVERS: usize = 5;

#[tokio::test]
async fn as_many_credentials_as_agents_and_servers_together() {
    let mut upstreams = Vec::new();
    for _ in 0..SERVERS {
        upstreams.push(Upstream::start().await);
    }
    let agents: Vec<String> = (0..AGENTS).map(|number| format!("agent-{number}")).collect();
    let mut body = format!(
        "agents: {{ {} }}\nservers:\n",
        agents.iter().map(|name| format!("{name}: {{}}")).collect::<Vec<_>>().join(", ")
    );
    let mut secrets = Vec::new();
    for (number, upstream) in upstreams.iter().enumerate() {
        let url = upstream.url();
        let line = format!(
            "  server-{number}: {{ url: \"{url}\", internal: true, credential: {{ bearer: token-{number} }} }}\n"
        );
        body.push_str(&line);
        secrets.push((format!("token-{number}"), format!("value-of-{number}")));
    }
    // One that is open to everybody is known by nothing, whoever its neighbours are.
    let open = Upstream::start().await;
    body.push_str(&world::http("open", &open));
    let kept: Vec<(&str, &str)> = secrets.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let (folder, alice, bob) = prepared(&body, ALL, &kept).await;
    let mut keys = Vec::new();
    for agent in &agents {
        keys.push(world::key(&folder.path().join("data"), agent, None).await);
    }
    let world = World::launch(folder, alice, bob).await;

    // Every agent reaches every server, with the one key it has.
    for key in &keys {
        for number in 0..SERVERS {
            let agent = Agent::modern(&world.url(&format!("/mcp/server-{number}")), Some(key));
            assert!(agent.call("echo", json!({"n": number})).await["result"].is_object());
        }
        let agent = Agent::modern(&world.url("/mcp/open"), Some(key));
        assert!(agent.call("echo", json!({})).await["result"].is_object());
    }

    // Whoever calls, a server sees its own credential and no other one.
    let mut credentials: BTreeSet<String> = keys.iter().cloned().collect();
    for (number, upstream) in upstreams.iter().enumerate() {
        assert_eq!(rig::relayed(upstream, "tools/call").len(), AGENTS);
        let seen: BTreeSet<String> = upstream
            .requests()
            .iter()
            .map(|request| request.header("authorization").unwrap_or("none").to_owned())
            .collect();
        assert_eq!(seen, BTreeSet::from([format!("Bearer value-of-{number}")]));
        let everything = format!("{:?}", upstream.requests());
        assert!(keys.iter().all(|key| !everything.contains(key.as_str())), "a server saw an agent's key");
        credentials.extend(seen);
    }
    assert_eq!(credentials.len(), AGENTS + SERVERS, "not one for each pair");
    assert_eq!(rig::relayed(&open, "tools/call").len(), AGENTS);
    assert!(open.requests().iter().all(|request| request.header("authorization").is_none()), "it is given nothing");
}

#[tokio::test]
async fn a_live_session_calls_with_the_credential_of_the_moment() {
    let upstream = Upstream::start().await;
    let servers = |secret: &str| {
        let url = upstream.url();
        format!("servers:\n  files: {{ url: \"{url}\", internal: true, credential: {{ bearer: {secret} }} }}\n")
    };
    let secrets = [("one", "first"), ("other", "third")];
    let world = rig::with_secrets(&servers("one"), ALL, &secrets).await;
    let agents = [
        (world.legacy("/mcp/files").await, "echo"),
        (world.legacy("/mcp").await, "files__echo"),
        (world.modern("/mcp/files"), "echo"),
    ];
    let carries = async |credential: &str| {
        for (agent, tool) in &agents {
            let answer = agent.call(tool, json!({})).await;
            assert!(answer["result"].is_object(), "{answer}");
            let call = rig::relayed(&upstream, "tools/call").pop().unwrap();
            assert_eq!(call.header("authorization"), Some(credential));
        }
    };
    carries("Bearer first").await;
    rig::rotate(&world, "one", "second").await;
    carries("Bearer second").await;
    world.reload(&servers("other")).await;
    carries("Bearer third").await;
}
