//! Servers that come, and come back, while a client listens to all of them.

mod inside;

use inside::{Inside, Plan};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::{Answer, Reply, Upstream, soon};
use vocab::ServerName;

/// The next event that `wanted` holds for: news of lists come when they come.
async fn event(listener: &mut Reply, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
    soon(async {
        loop {
            let event = listener.event().await?.json();
            if wanted(&event) {
                return Some(event);
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_server_that_joins_is_heard_on_a_stream_that_was_open_before() {
    let (first, later) = (Upstream::start().await, Upstream::start().await);
    let inside = Inside::start(Plan::of(&first)).await;
    let agent = inside.legacy("/mcp", &inside.alice).await;
    let mut listener = agent.listen().await;
    let servers = vec![("files", first.url()), ("later", later.url())];
    inside.swap(Plan { servers, ..Plan::of(&first) });
    let (stream, feed) = Answer::events();
    later.next("GET", stream);
    assert!(agent.call("later__echo", json!({})).await.get("result").is_some());
    feed.message(&json!({"jsonrpc": "2.0", "id": "q", "method": "roots/list"})).await;
    assert!(event(&mut listener, |event| event["method"] == "roots/list").await.is_some());
    assert_eq!(later.seen("GET").len(), 1, "it is followed once");
}

#[tokio::test]
async fn a_server_that_left_a_merged_stream_joins_again_when_it_is_back() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let look = async || {
        let server = inside.state.line().servers().next().cloned().unwrap();
        inside.state.line().look(&server).await;
    };
    look().await;
    upstream.always("subscriptions/listen", |request| Answer::error(&request.id(), -32601, "not today"));
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let mut listener = inside.modern("/mcp", &inside.alice).request("subscriptions/listen", wanted).await;
    assert!(
        event(&mut listener, |event| event["method"] == "notifications/subscriptions/acknowledged").await.is_some()
    );
    let (stream, feed) = Answer::events();
    upstream.next("subscriptions/listen", stream);
    inside.swap(Plan { servers: Vec::new(), ..Plan::of(&upstream) });
    inside.swap(Plan::of(&upstream));
    look().await;
    let asked = upstream.arrived("subscriptions/listen", 2).await;
    let params =
        json!({"_meta": {"io.modelcontextprotocol/subscriptionId": asked.id()}, "level": "info", "data": 1, "mark": 1});
    feed.message(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": params})).await;
    assert!(event(&mut listener, |event| event["params"]["mark"] == 1).await.is_some());
}

#[tokio::test]
async fn a_server_that_may_be_heard_again_is_heard() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let agent = inside.legacy("/mcp", &inside.alice).await;
    let (stream, feed) = Answer::events();
    upstream.next("GET", stream);
    let mut listener = agent.listen().await;
    upstream.arrived("GET", 1).await;
    // The right is withdrawn: what the server says is not passed on, and in the end nobody listens.
    inside.swap(Plan { policy: json!({"policy": "test", "rules": []}), ..Plan::of(&upstream) });
    feed.message(&json!({"jsonrpc": "2.0", "id": "q1", "method": "roots/list"})).await;
    soon(feed.closed()).await;
    let session = inside.state.sessions.every(|_| true).remove(0);
    let name = ServerName::new("files").unwrap();
    let mut turns = tokio::time::interval(Duration::from_millis(5));
    soon(async {
        while session.follow(&name).is_none() {
            turns.tick().await;
        }
    })
    .await;
    inside.swap(Plan::of(&upstream));
    let (stream, feed) = Answer::events();
    upstream.next("GET", stream);
    assert!(agent.call("files__echo", json!({})).await.get("result").is_some());
    upstream.arrived("GET", 2).await;
    feed.message(&json!({"jsonrpc": "2.0", "id": "q2", "method": "roots/list"})).await;
    assert!(event(&mut listener, |event| event["method"] == "roots/list").await.is_some());
}
