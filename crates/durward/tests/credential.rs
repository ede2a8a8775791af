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
}
