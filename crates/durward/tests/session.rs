//! Sessions are ours: bound to their key, gone with it, and alive through what happens behind them.

mod world;

use serde_json::{Value, json};
use std::time::Duration;
use testkit::{Agent, Answer, Ask, Upstream, soon};
use world::World;

fn relayed(upstream: &Upstream, name: &str) -> Vec<testkit::Received> {
    upstream.seen(name).into_iter().filter(|request| request.header("durward-call-id").is_some()).collect()
}

async fn one() -> (Upstream, World) {
    let upstream = Upstream::start().await;
    let world = World::start(&world::http("files", &upstream)).await;
    (upstream, world)
}

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

#[tokio::test]
async fn a_session_belongs_to_its_key() {
    let (upstream, world) = one().await;
    for path in ["/mcp/files", "/mcp"] {
        let agent = world.legacy(path).await;
        let session = agent.session().unwrap().to_owned();
        assert!(session.len() >= 43 && !session.contains("fake"), "{session}");
        let calls = || upstream.requests().into_iter().filter(|seen| seen.header("durward-call-id").is_some()).count();
        let before = calls();
        for key in [&world.bob, &world.alice] {
            let url = world.url(path);
            let foreign = key == &world.bob;
            let ping = Ask::post(&url, PING).bearer(key).header("mcp-session-id", &session).send().await;
            assert_eq!(ping.status, if foreign { 404 } else { 200 });
            if foreign {
                assert_eq!(Ask::get(&url).bearer(key).header("mcp-session-id", &session).send().await.status, 404);
                let end = Ask::new(http::Method::DELETE, &url).bearer(key).header("mcp-session-id", &session);
                assert_eq!(end.send().await.status, 404);
                assert_eq!(calls(), before, "nothing went out");
            }
        }
        // Each door has its own sessions.
        let other = if path == "/mcp" { "/mcp/files" } else { "/mcp" };
        assert_eq!(world.post(other, PING).header("mcp-session-id", &session).send().await.status, 404);
        assert_eq!(agent.leave().await.status, 200);
        assert_eq!(agent.request("ping", json!({})).await.status, 404, "an ended session is gone");
    }
    assert_eq!(world.post("/mcp", PING).send().await.status, 400, "the aggregate needs a session");
}

#[tokio::test]
async fn sessions_of_a_principal_are_bounded() {
    let upstream = Upstream::start().await;
    let body = format!("servers:\n{}bounds: {{ sessions_per_principal: 2 }}\n", world::http("files", &upstream));
    let world = World::with(&body, world::ALL).await;
    let first = world.legacy("/mcp/files").await;
    let _second = world.legacy("/mcp").await;
    let before = relayed(&upstream, "initialize").len();
    let hello = r#"{"jsonrpc":"2.0","id":9,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;
    for path in ["/mcp/files", "/mcp"] {
        let reply = world.post(path, hello).send().await;
        assert_eq!(reply.header("retry-after"), Some("1"));
        let answer = reply.json().await;
        assert_eq!(answer["error"]["code"], -31002, "{answer}");
        assert_eq!(answer["error"]["data"]["retryAfter"], 1, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("2 sessions are open"), "{answer}");
    }
    assert_eq!(relayed(&upstream, "initialize").len(), before, "the server never hears of it");
    assert!(
        Agent::legacy(&world.url("/mcp/files"), Some(&world.bob)).await.session().is_some(),
        "others have their own"
    );
    assert_eq!(first.leave().await.status, 200);
    assert!(world.legacy("/mcp/files").await.session().is_some());
}

#[tokio::test]
async fn a_session_keeps_no_more_of_a_client_than_it_may() {
    let (upstream, world) = one().await;
    let hello = |name: &str| {
        let client = json!({"name": name, "version": "1"});
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}).to_string()
    };
    for path in ["/mcp/files", "/mcp"] {
        let reply = world.post(path, &hello(&"x".repeat(70_000))).send().await;
        assert_eq!(reply.header("retry-after"), None, "waiting makes it no shorter");
        let answer = reply.json().await;
        assert!(answer["error"]["message"].as_str().unwrap().contains("65536 bytes"), "{answer}");
        assert_eq!(answer["error"]["data"].get("retryAfter"), None, "{answer}");
        assert!(world.post(path, &hello(&"x".repeat(60_000))).send().await.header("mcp-session-id").is_some());
    }
    assert_eq!(relayed(&upstream, "initialize").len(), 1, "the server hears of the one alone");
}

#[tokio::test]
async fn a_session_lost_upstream_is_lost_here() {
    let (upstream, world) = one().await;
    let agent = world.legacy("/mcp/files").await;
    let body = r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"},"id":null}"#;
    upstream.next("tools/call", Answer::json(body).with_status(http::StatusCode::NOT_FOUND));
    let reply = agent.request("tools/call", json!({"name": "echo"})).await;
    assert_eq!(reply.status, 404);
    assert_eq!(reply.text().await, body);
    let before = upstream.received();
    assert_eq!(agent.request("ping", json!({})).await.status, 404);
    assert_eq!(upstream.received(), before);
    // 404 to GET may as well say that there is no such stream.
    let agent = world.legacy("/mcp/files").await;
    upstream.next("GET", Answer::status(http::StatusCode::NOT_FOUND));
    assert_eq!(agent.listen().await.status, 404);
    assert_eq!(agent.request("ping", json!({})).await.status, 200);
}

#[tokio::test]
async fn a_live_session_follows_a_reload_to_the_new_target() {
    let (old, world) = one().await;
    let new = Upstream::start().await;
    let agent = world.legacy("/mcp/files").await;
    assert!(agent.call("echo", json!({"n": 1})).await.get("result").is_some());
    world.reload(&format!("servers:\n{}", world::http("files", &new))).await;
    let before = old.received();
    assert!(agent.call("echo", json!({"n": 2})).await.get("result").is_some());
    assert_eq!(old.received(), before, "the old target hears nothing more");
    let hello =
        new.seen("initialize").into_iter().find(|hello| hello.json()["params"]["clientInfo"]["name"] == "testkit");
    assert!(hello.is_some(), "the client is introduced as it introduced itself");
    let call = relayed(&new, "tools/call").remove(0);
    assert!(call.header("mcp-session-id").unwrap().starts_with("fake-session-"));
    assert_eq!(call.header("mcp-protocol-version"), Some("2025-11-25"));
    assert_eq!(new.seen("notifications/initialized").len(), new.seen("initialize").len());
}

#[tokio::test]
async fn a_live_session_has_the_rights_of_the_moment() {
    let (upstream, world) = one().await;
    let agent = world.legacy("/mcp/files").await;
    assert!(agent.call("echo", json!({})).await.get("result").is_some());
    world
        .judge(
            r#"{"policy": "t", "rules": [{"id": "gone", "action": "tool.execute", "target": "*/*", "effect": "deny"},
        {"id": "all", "action": "*", "target": "*/*", "effect": "allow"}]}"#,
        )
        .await;
    let before = relayed(&upstream, "tools/call").len();
    assert!(agent.call("echo", json!({})).await.get("error").is_some());
    assert_eq!(relayed(&upstream, "tools/call").len(), before);
    assert!(agent.tools().await.is_empty());
}

#[tokio::test]
async fn a_session_ends_with_its_agent() {
    let upstream = Upstream::start().await;
    let (answer, feed) = Answer::events();
    upstream.next("GET", answer);
    let servers = format!("servers:\n{}", world::http("files", &upstream));
    let world = World::with(&servers, world::ALL).await;
    let agent = world.legacy("/mcp/files").await;
    let mut stream = agent.listen().await;
    let sessions = upstream.seen("DELETE").len();
    world.reload(&format!("{servers}agents: {{ alice: {{ disabled: true }}, bob: {{}} }}\n")).await;
    soon(feed.closed()).await;
    assert!(soon(stream.event()).await.is_none());
    upstream.arrived("DELETE", sessions + 1).await;
    assert_eq!(agent.request("ping", json!({})).await.status, 403);
    world.reload(&servers).await;
    assert_eq!(agent.request("ping", json!({})).await.status, 404, "the session does not come back with the agent");
}

#[tokio::test]
async fn an_idle_session_ends_here_and_on_the_server() {
    let upstream = Upstream::start().await;
    let servers = world::http("files", &upstream);
    let world = World::with(&format!("servers:\n{servers}bounds: {{ session_idle: 1s }}\n"), world::ALL).await;
    let idle = world.legacy("/mcp/files").await;
    let listening = world.legacy("/mcp/files").await;
    let (answer, feed) = Answer::events();
    upstream.next("GET", answer);
    let _stream = listening.listen().await;
    // A reload looks for what is over, as the clock does every half minute.
    let mut turn = tokio::time::interval(Duration::from_millis(500));
    let mut ended = false;
    for most in 8..24 {
        turn.tick().await;
        let bounds = format!("bounds: {{ session_idle: 1s, sessions_per_principal: {most} }}");
        world.reload(&format!("servers:\n{servers}{bounds}\n")).await;
        ended = upstream.seen("DELETE").iter().any(|end| is_clients(&upstream, end));
        if ended {
            break;
        }
    }
    assert!(ended, "{:#?}", world.said());
    assert_eq!(idle.request("ping", json!({})).await.status, 404);
    assert_eq!(listening.request("ping", json!({})).await.status, 200, "who listens is not idle");
    drop(feed);
}

/// Whether a DELETE ends a session that the test's client began (and not one of the gateway's own looks).
fn is_clients(upstream: &Upstream, end: &testkit::Received) -> bool {
    let session = end.header("mcp-session-id").unwrap_or_default();
    relayed(upstream, "notifications/initialized").iter().any(|ready| ready.header("mcp-session-id") == Some(session))
}

#[tokio::test]
async fn a_stop_ends_sessions_on_servers_too() {
    let (upstream, world) = one().await;
    let _agent = world.legacy("/mcp/files").await;
    let ready = relayed(&upstream, "notifications/initialized").remove(0);
    let (status, _folder) = world.stop().await;
    assert!(status.success());
    let ended: Vec<Value> = upstream.seen("DELETE").iter().map(|end| json!(end.header("mcp-session-id"))).collect();
    assert!(ended.contains(&json!(ready.header("mcp-session-id"))), "{ended:?}");
}

#[tokio::test]
async fn a_stop_ends_what_modern_clients_left_on_legacy_servers() {
    let upstream = Upstream::start().await;
    let servers = format!("servers:\n  files: {{ url: \"{}\", internal: true, era: legacy }}\n", upstream.url());
    let world = World::with(&servers, world::ALL).await;
    // Two introduce themselves differently: one session waits for an answer, the other for whoever comes next.
    let mut introduced = testkit::meta();
    introduced["io.modelcontextprotocol/clientCapabilities"] = json!({});
    let params = json!({"name": "echo", "_meta": introduced});
    let idle = world.modern("/mcp/files").request("tools/call", params).await;
    assert_eq!(idle.status, 200);
    let (events, feed) = Answer::events();
    upstream.next("tools/call", events);
    let agent = world.modern("/mcp/files");
    let mut reply = agent.request("tools/call", json!({"name": "echo"})).await;
    let form = json!({"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}});
    feed.message(&json!({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": form})).await;
    let asked = soon(reply.event()).await.unwrap().json();
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    let calls = relayed(&upstream, "tools/call");
    let (status, _folder) = world.stop().await;
    assert!(status.success());
    let waiting = calls.last().unwrap();
    let told = upstream.seen("notifications/cancelled");
    assert!(told.iter().any(|told| told.json()["params"]["requestId"] == waiting.id()), "{told:?}");
    let ended: Vec<Value> = upstream.seen("DELETE").iter().map(|end| json!(end.header("mcp-session-id"))).collect();
    let sessions: Vec<Value> = calls.iter().map(|call| json!(call.header("mcp-session-id"))).collect();
    assert!(sessions.len() == 2 && sessions[0] != sessions[1], "{sessions:?}");
    assert!(sessions.iter().all(|session| ended.contains(session)), "{sessions:?}, {ended:?}");
}

#[tokio::test]
async fn whoever_listens_hears_that_the_gateway_stops() {
    let (_upstream, world) = one().await;
    let mut listeners = Vec::new();
    for _ in 0..32 {
        let wanted = json!({"notifications": {"toolsListChanged": true}});
        let mut listener = world.modern("/mcp").request("subscriptions/listen", wanted).await;
        assert!(soon(listener.event()).await.is_some());
        listeners.push(listener);
    }
    let (status, _folder) = world.stop().await;
    assert!(status.success());
    for mut listener in listeners {
        let mut last = Value::Null;
        while let Some(event) = soon(listener.event()).await {
            last = event.json();
        }
        assert_eq!(last["result"]["resultType"], "complete", "{last}");
    }
}

#[tokio::test]
async fn what_a_client_says_does_not_overtake_the_stream_it_opened_before() {
    let (upstream, world) = one().await;
    let agent = std::sync::Arc::new(world.legacy("/mcp/files").await);
    let (answer, feed) = Answer::events();
    let (answer, release) = answer.held();
    upstream.next("GET", answer);
    let listening = tokio::spawn({
        let agent = std::sync::Arc::clone(&agent);
        async move { agent.listen().await }
    });
    upstream.arrived("GET", 1).await;
    let calling = tokio::spawn({
        let agent = std::sync::Arc::clone(&agent);
        async move { agent.call("echo", json!({})).await }
    });
    // The server has not taken the stream yet: a question that it asks in the course of the call would be lost.
    let early = tokio::time::timeout(Duration::from_millis(200), upstream.arrived("tools/call", 1)).await;
    assert!(early.is_err(), "the call overtook the stream");
    release.send(()).unwrap();
    assert!(soon(calling).await.unwrap()["result"].is_object());
    let mut stream = soon(listening).await.unwrap();
    feed.message(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}))
        .await;
    assert!(soon(stream.event()).await.is_some());

    // A server that lets the stream wait without a word holds nobody up for long.
    let other = std::sync::Arc::new(world.legacy("/mcp/files").await);
    upstream.next("GET", Answer::hang());
    let silent = tokio::spawn({
        let other = std::sync::Arc::clone(&other);
        async move { other.listen().await }
    });
    upstream.arrived("GET", 2).await;
    assert!(soon(other.call("echo", json!({}))).await["result"].is_object());
    silent.abort();
}
