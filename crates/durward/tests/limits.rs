//! How often and how many at once, through the binary. What needs a clock we hold is in `gateway/tests/rights.rs`.

mod rig;
mod world;

use rig::{call_of, outcome, relayed};
use serde_json::{Value, json};
use testkit::{Answer, Upstream};
use world::{ALL, World, http};

async fn limited(limit: &str) -> (Upstream, World) {
    let upstream = Upstream::with_tools(["echo", "other"]).await;
    let body = format!("servers:\n{}limits:\n  - {limit}\n", http("files", &upstream));
    let world = World::with(&body, ALL).await;
    (upstream, world)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_clients_get_exactly_the_burst() {
    let (upstream, world) = limited("{ for: { agent: \"*\", tool: \"files/echo\" }, rate: 10/h, burst: 10 }").await;
    let calls: Vec<_> = (0..64)
        .map(|_| tokio::spawn(world.calling("/mcp/files", Some(&world.alice), "echo", &json!({})).send()))
        .collect();
    let mut admitted = 0;
    for call in calls {
        let reply = call.await.unwrap();
        let headers = (reply.header("retry-after").is_some(), reply.header("ratelimit").is_some());
        let (id, answer) = (call_of(&reply), reply.json().await);
        if answer["error"].is_null() {
            admitted += 1;
        } else {
            assert_eq!(answer["error"]["code"], -31002);
            assert!(answer["error"]["data"]["retryAfter"].as_u64().is_some_and(|seconds| seconds > 0), "{answer}");
            assert_eq!(headers, (true, true));
            assert_eq!(outcome(&world.record(&id).await), "refused rate limit");
        }
    }
    assert_eq!(admitted, 10);
    assert_eq!(relayed(&upstream, "tools/call").len(), 10);
    // Other tools and other agents are not concerned.
    for (token, tool) in [(&world.alice, "other"), (&world.bob, "echo")] {
        let answer = world.calling("/mcp/files", Some(token), tool, &json!({})).send().await.json().await;
        assert_eq!(answer["error"], Value::Null);
    }
}

#[tokio::test]
async fn so_many_at_once_and_room_again_when_one_ends() {
    let (upstream, world) = limited("{ for: { agent: \"*\", tool: \"files/*\" }, rate: 1000/s, concurrency: 2 }").await;
    let ask = || world.calling("/mcp/files", Some(&world.alice), "echo", &json!({}));
    let mut open = Vec::new();
    for _ in 0..2 {
        let (answer, feed) = Answer::events();
        upstream.next("tools/call", answer);
        open.push((ask().send().await, feed));
    }
    let refused = ask().send().await;
    let headers = ["retry-after", "ratelimit", "ratelimit-policy"].map(|name| refused.header(name).is_some());
    assert_eq!(headers, [true, false, false], "what is left of the rate is not what refused");
    let refused = refused.json().await;
    assert_eq!(refused["error"]["code"], -31002, "{refused}");
    let (first, feed) = open.remove(0);
    feed.message(&json!({"jsonrpc": "2.0", "id": 1, "result": {"content": [], "resultType": "complete"}})).await;
    drop(feed);
    assert!(first.json().await["error"].is_null());
    // The record of the first is closed when its room is free.
    let mut answer = refused;
    while answer["error"]["code"] == -31002 {
        answer = ask().send().await.json().await;
    }
    assert_eq!(answer["error"], Value::Null);
}
