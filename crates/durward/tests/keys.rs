//! Keys of the configuration through the binary: what is written of agents, servers, tools and issuers is what decides.
//!
//! Each key is taken away from a configuration that has them all, and the same call has another end.

mod rig;
mod world;

use serde_json::{Value, json};
use testkit::{Agent, Kind, SigningKey, Upstream};
use world::{ALL, World, put};

/// A policy that allows what this condition holds for.
fn when(condition: &str) -> String {
    rig::policy(&json!([{"id": "only", "action": "*", "target": "*/*", "effect": "allow", "when": condition}]))
}

/// Whether the call is carried out for whoever has this key or token.
async fn may_call(world: &World, credential: &str) -> bool {
    let reply = Agent::modern(&world.url("/mcp/files"), Some(credential))
        .request("tools/call", json!({"name": "echo", "arguments": {}}))
        .await;
    reply.status == 200 && reply.json().await.get("result").is_some_and(Value::is_object)
}

#[tokio::test]
async fn what_is_written_of_agents_servers_and_tools_is_what_rules_ask() {
    let upstream = Upstream::with_tools(["echo"]).await;
    let all = format!(
        "agents: {{ alice: {{ roles: [dev], groups: [build], environments: [lab] }}, bob: {{}} }}\n\
         servers: {{ files: {{ url: \"{}\", internal: true, environment: lab, \
         tools: {{ \"ec*\": {{ class: read, labels: [open] }} }} }} }}\n",
        upstream.url()
    );
    let world = World::with(&all, ALL).await;
    for (key, condition) in [
        ("roles: [dev], ", "'dev' in principal.roles"),
        ("groups: [build], ", "'build' in principal.groups"),
        (", environments: [lab]", "'lab' in principal.environments"),
        ("environment: lab, ", "has(target.environment) && target.environment == 'lab'"),
        ("class: read, ", "target.class == 'read'"),
        (", labels: [open]", "'open' in target.labels"),
    ] {
        world.judge(&when(condition)).await;
        assert!(may_call(&world, &world.alice).await, "{key}");
        assert!(all.contains(key));
        world.reload(&all.replace(key, "")).await;
        assert!(!may_call(&world, &world.alice).await, "{key}");
        world.reload(&all).await;
    }

    // Above all rules: who is bound to an environment reaches no server of another.
    world.judge(ALL).await;
    assert!(may_call(&world, &world.alice).await);
    world.reload(&all.replace("environments: [lab]", "environments: [prod]")).await;
    assert!(!may_call(&world, &world.alice).await);
    world.reload(&all.replace(", environments: [lab]", "")).await;
    assert!(may_call(&world, &world.alice).await);
}

#[tokio::test]
async fn what_is_written_of_issuers_decides_over_tokens() {
    let upstream = Upstream::with_tools(["echo"]).await;
    let key = SigningKey::generate(Kind::Ed25519, "one");
    let issuers = "issuers: [{ url: \"https://idp.example\", audience: durward, agent: \"claim:azp\", \
                   user: \"claim:who\", roles: \"claim:jobs\", groups: \"claim:teams\", scopes: \"claim:may\", \
                   algorithms: [EdDSA], jwks: { file: keys.json } }]\n";
    let all = format!("{issuers}servers:\n{}", world::http("files", &upstream));
    let (folder, alice, bob) = rig::prepared(&all, ALL, &[]).await;
    put(folder.path(), "keys.json", &json!({"keys": [key.jwk()]}).to_string());
    let world = World::launch(folder, alice, bob).await;
    let token = key.token(&json!({
        "iss": "https://idp.example", "aud": "durward", "azp": "alice", "exp": 4_000_000_000_u64,
        "who": "ada", "jobs": ["dev"], "teams": ["build"], "may": "read write",
    }));
    for (key, condition) in [
        ("user: \"claim:who\", ", "has(principal.user) && principal.user == 'ada'"),
        ("roles: \"claim:jobs\", ", "'dev' in principal.roles"),
        ("groups: \"claim:teams\", ", "'build' in principal.groups"),
        ("scopes: \"claim:may\", ", "'write' in principal.scopes"),
    ] {
        world.judge(&when(condition)).await;
        assert!(may_call(&world, &token).await, "{key}");
        assert!(all.contains(key));
        world.reload(&all.replace(key, "")).await;
        assert!(!may_call(&world, &token).await, "{key}");
        world.reload(&all).await;
    }

    world.judge(ALL).await;
    for (of, other) in [
        ("https://idp.example", "https://other.example"),
        ("audience: durward", "audience: another"),
        ("claim:azp", "claim:who"),
        ("algorithms: [EdDSA]", "algorithms: [ES256]"),
        ("algorithms: [EdDSA]", "type: odd+jwt"),
    ] {
        assert!(may_call(&world, &token).await, "before {other}");
        world.reload(&all.replace(of, other)).await;
        assert!(!may_call(&world, &token).await, "{other}");
        world.reload(&all).await;
    }
}
