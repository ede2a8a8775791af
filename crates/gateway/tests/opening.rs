//! Sessions with servers that nobody waits for any more when they are there: they are used by the next call, or ended.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::EraSettings;
use inside::{Inside, Plan, outcome};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::{Answer, Received, Upstream, soon};
use tokio::sync::oneshot;

fn legacy(upstream: &Upstream) -> Plan {
    Plan { era: EraSettings::Legacy, ..Plan::of(upstream) }
}

/// The answer to `initialize` that opens a session of this name.
fn welcome(request: &Received, session: &str) -> Answer {
    let version = request.json()["params"]["protocolVersion"].clone();
    let result = json!({
        "protocolVersion": version,
        "capabilities": {"tools": {"listChanged": true}},
        "serverInfo": {"name": "slow", "version": "1.0.0"},
    });
    Answer::result(&request.id(), &result).header("mcp-session-id", session)
}

/// Answers each further `initialize` with a session of this name, the first of them when the test says so.
fn slow(upstream: &Upstream, session: &'static str) -> oneshot::Sender<()> {
    let (release, released) = oneshot::channel();
    let released = std::sync::Mutex::new(Some(released));
    upstream.always("initialize", move |request| {
        let answer = welcome(request, session);
        let Some(released) = released.lock().unwrap().take() else { return answer };
        let (answer, go) = answer.held();
        tokio::spawn(async move {
            let _said = released.await;
            let _ = go.send(());
        });
        answer
    });
    release
}

fn session_of(request: &Received) -> Option<&str> {
    request.header("mcp-session-id")
}

fn sessions_of(requests: &[Received]) -> Vec<&str> {
    requests.iter().filter_map(session_of).collect()
}

/// Waits until the server was told that the session is over.
async fn is_ended(upstream: &Upstream, session: &str) {
    let mut count = 1;
    while session_of(&upstream.arrived("DELETE", count).await) != Some(session) {
        count += 1;
    }
}

#[tokio::test]
async fn a_session_that_was_opened_for_a_call_that_is_taken_back_is_used_by_the_next() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    // What the server has is known: nobody but the call introduces anybody.
    assert_eq!(inside.legacy("/mcp", &inside.bob).await.tools().await, ["files__echo"]);
    let alice = inside.legacy("/mcp", &inside.alice).await;
    let before = upstream.seen("initialize").len();
    let release = slow(&upstream, "late");
    let call = json!({"jsonrpc": "2.0", "id": "mine", "method": "tools/call",
        "params": {"name": "files__echo", "arguments": {}}});
    let (answer, ()) = tokio::join!(soon(async { alice.ask("tools/call", &call).send().await.json().await }), async {
        upstream.arrived("initialize", before + 1).await;
        let reply = alice.notify("notifications/cancelled", json!({"requestId": "mine"})).await;
        assert_eq!(reply.status, 202);
    });
    assert_eq!(answer["error"]["message"], "the client cancelled the request", "{answer}");
    release.send(()).unwrap();
    let called = soon(alice.call("files__echo", json!({}))).await;
    assert!(called["result"].is_object(), "{called}");
    assert_eq!(upstream.seen("initialize").len(), before + 1, "she was introduced once");
    assert_eq!(sessions_of(&upstream.seen("tools/call")), ["late"]);
    let records = inside.records().await;
    let calls = records.iter().filter(|record| record["method"] == "tools/call");
    assert_eq!(calls.map(outcome).collect::<Vec<_>>(), ["abandoned", "answered"]);
}

#[tokio::test]
async fn a_session_that_was_opened_for_a_modern_client_that_went_away_is_used_by_the_next_call() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    assert!(inside.modern("/mcp/files", &inside.bob).call("echo", json!({})).await["result"].is_object());
    let before = upstream.seen("initialize").len();
    let release = slow(&upstream, "late");
    let gone = tokio::spawn(inside.call(&inside.alice, "echo", &json!({})).send());
    upstream.arrived("initialize", before + 1).await;
    gone.abort();
    assert!(gone.await.is_err());
    // Its record is closed: the gateway has seen that it went.
    soon(async { while inside.records().await.iter().all(|record| outcome(record) != "abandoned") {} }).await;
    release.send(()).unwrap();
    let answer = soon(inside.call(&inside.alice, "echo", &json!({})).send()).await.json().await;
    assert!(answer["result"].is_object(), "{answer}");
    assert_eq!(upstream.seen("initialize").len(), before + 1, "she was introduced once");
    assert_eq!(session_of(&upstream.arrived("tools/call", 2).await), Some("late"));
    assert_eq!(inside.state.leg_count(), 2, "hers and his");
}

#[tokio::test]
async fn a_session_that_is_there_when_its_client_has_left_is_ended_on_its_server() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    assert_eq!(inside.legacy("/mcp", &inside.bob).await.tools().await, ["files__echo"]);
    let alice = inside.legacy("/mcp", &inside.alice).await;
    let before = upstream.seen("initialize").len();
    let release = slow(&upstream, "late");
    let calling = async { alice.call("files__echo", json!({})).await };
    let (answer, ()) = tokio::join!(soon(calling), async {
        upstream.arrived("initialize", before + 1).await;
        assert_eq!(soon(alice.leave()).await.status, 200);
        release.send(()).unwrap();
    });
    assert!(answer["error"].is_object(), "{answer}");
    is_ended(&upstream, "late").await;
    assert_eq!(upstream.seen("tools/call").len(), 0, "nothing is called in a session that is over");
}

#[tokio::test]
async fn a_session_that_came_with_an_introduction_that_failed_is_ended_on_its_server() {
    for modern in [false, true] {
        let upstream = Upstream::start().await;
        let inside = Inside::start(legacy(&upstream)).await;
        let bob = inside.legacy("/mcp", &inside.bob).await;
        assert_eq!(bob.tools().await, ["files__echo"]);
        upstream.always("initialize", |request| {
            let result = json!({"protocolVersion": "2099-01-01", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}});
            Answer::result(&request.id(), &result).header("mcp-session-id", "odd")
        });
        let answer: Value = if modern {
            soon(inside.call(&inside.alice, "echo", &json!({})).send()).await.json().await
        } else {
            soon(inside.legacy("/mcp", &inside.alice).await.call("files__echo", json!({}))).await
        };
        assert!(answer["error"].is_object(), "{answer}");
        is_ended(&upstream, "odd").await;
    }
}

#[tokio::test]
async fn who_waits_for_a_session_that_another_call_began_gets_that_one() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    assert_eq!(inside.legacy("/mcp", &inside.bob).await.tools().await, ["files__echo"]);
    let alice = inside.legacy("/mcp", &inside.alice).await;
    let before = upstream.seen("initialize").len();
    let release = slow(&upstream, "late");
    let both =
        async { tokio::join!(alice.call("files__echo", json!({"n": 1})), alice.call("files__echo", json!({"n": 2}))) };
    let ((one, two), ()) = tokio::join!(soon(both), async {
        upstream.arrived("initialize", before + 1).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        release.send(()).unwrap();
    });
    assert!(one["result"].is_object() && two["result"].is_object(), "{one} {two}");
    assert_eq!(upstream.seen("initialize").len(), before + 1);
    assert_eq!(sessions_of(&upstream.seen("tools/call")), ["late", "late"]);
}

#[tokio::test]
async fn what_takes_back_a_call_that_its_server_cannot_know_is_answered_here_and_told_to_nobody() {
    let (upstream, other) = (Upstream::start().await, Upstream::start().await);
    let inside = Inside::start(legacy(&upstream)).await;
    assert_eq!(inside.legacy("/mcp", &inside.bob).await.tools().await, ["files__echo"]);
    let alice = inside.legacy("/mcp", &inside.alice).await;
    let (events, feed) = Answer::events();
    upstream.next("tools/call", events);
    let call = json!({"jsonrpc": "2.0", "id": "mine", "method": "tools/call",
        "params": {"name": "files__echo", "arguments": {}}});
    let stream = alice.ask("tools/call", &call).send().await;
    // The call goes on where it began; her session with the server as it is now is still to be opened.
    inside.swap(legacy(&other));
    let reply = alice.notify("notifications/cancelled", json!({"requestId": "mine"})).await;
    assert_eq!((reply.status.as_u16(), reply.text().await.as_str()), (202, ""));
    soon(feed.closed()).await;
    let end = soon(stream.json()).await;
    assert_eq!(end["error"]["message"], "the client cancelled the request", "{end}");
    for server in [&upstream, &other] {
        assert_eq!(server.seen("notifications/cancelled").len(), 0);
    }
    let hers = other.seen("notifications/initialized").len();
    // What says it is recorded as what is said to all servers and to none: it was answered.
    alice.notify("notifications/roots/list_changed", json!({})).await;
    let records = inside.records().await;
    let of = |method: &str| records.iter().filter(|record| record["method"] == method).map(outcome).collect::<Vec<_>>();
    assert_eq!(of("notifications/cancelled"), ["answered"]);
    assert_eq!(of("notifications/cancelled"), of("notifications/roots/list_changed"));
    assert_eq!(of("tools/call"), ["abandoned"]);
    assert_eq!(other.seen("notifications/initialized").len(), hers, "nobody is introduced for it");
}
