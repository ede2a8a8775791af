//! Resources that a legacy client follows on a modern server: what it is told of them, and by which rights.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::EraSettings;
use inside::{Inside, Plan};
use serde_json::{Value, json};
use testkit::{Answer, Feed, Upstream, schema, soon};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// INVARIANT: whatever either side is told is valid in the revision it speaks.
fn modern(upstream: &Upstream) -> Plan {
    schema::judge();
    Plan { era: EraSettings::Modern, ..Plan::of(upstream) }
}

/// Everything is allowed but to follow what lies behind `denied`.
fn following(upstream: &Upstream, denied: &str) -> Plan {
    let rules = json!([
        {"id": "all", "action": "*", "target": "*/*", "effect": "allow"},
        {"id": "no", "action": "resource.subscribe", "target": format!("files/{denied}"), "effect": "deny"},
    ]);
    Plan { policy: json!({"policy": "test", "rules": rules}), ..modern(upstream) }
}

/// A server whose listening streams the test speaks on.
fn listening(upstream: &Upstream) -> UnboundedReceiver<(Value, Feed)> {
    let (feeds, opened) = unbounded_channel();
    upstream.always("subscriptions/listen", move |request| {
        let (answer, feed) = Answer::events();
        feeds.send((request.json(), feed)).unwrap();
        answer
    });
    opened
}

/// The next listening stream, what it is to tell of, and the word that it will.
async fn opens(opened: &mut UnboundedReceiver<(Value, Feed)>) -> (Feed, Value, Value) {
    let (asked, feed) = soon(opened.recv()).await.unwrap();
    let wanted = &asked["params"]["notifications"];
    let params = json!({"notifications": wanted, "_meta": {"io.modelcontextprotocol/subscriptionId": asked["id"]}});
    let word = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params});
    (feed, wanted["resourceSubscriptions"].clone(), word)
}

#[tokio::test]
async fn what_may_be_followed_changes_while_the_stream_is_open() {
    let upstream = Upstream::start().await;
    let mut opened = listening(&upstream);
    let inside = Inside::start(following(&upstream, "late:*")).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let subscribe = |uri: &'static str| {
        let alice = &alice;
        async move { alice.request("resources/subscribe", json!({"uri": uri})).await.json().await }
    };
    let updated =
        |uri: &str| json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}});
    assert_eq!(subscribe("file:///a").await["result"], json!({}));
    assert!(subscribe("late:b").await["error"].is_object());
    let mut listener = alice.listen().await;
    let (first, asked, word) = opens(&mut opened).await;
    assert_eq!(asked, json!(["file:///a"]));
    first.message(&word).await;

    // A right that is granted counts for the next subscription.
    inside.swap(following(&upstream, "other:*"));
    let (answer, second) = tokio::join!(soon(subscribe("late:b")), async {
        let (second, asked, word) = opens(&mut opened).await;
        assert_eq!(asked, json!(["file:///a", "late:b"]));
        second.message(&word).await;
        second
    });
    assert_eq!(answer["result"], json!({}), "{answer}");
    soon(first.closed()).await;

    // One that is withdrawn is seen on the next message, and then the server is asked for less.
    inside.swap(following(&upstream, "late:*"));
    second.message(&updated("late:b")).await;
    second.message(&updated("file:///a")).await;
    assert_eq!(soon(listener.event()).await.unwrap().json(), updated("file:///a"));
    let (third, asked, word) = opens(&mut opened).await;
    assert_eq!(asked, json!(["file:///a"]));
    third.message(&word).await;
    soon(second.closed()).await;

    // What comes back is followed again, without a word of anybody, and a client that asks for it again is answered then.
    inside.swap(following(&upstream, "other:*"));
    let (answer, fourth) = tokio::join!(soon(subscribe("late:b")), async {
        let (fourth, asked, word) = opens(&mut opened).await;
        assert_eq!(asked, json!(["file:///a", "late:b"]));
        fourth.message(&word).await;
        fourth
    });
    assert_eq!(answer["result"], json!({}), "{answer}");
    fourth.message(&updated("late:b")).await;
    assert_eq!(soon(listener.event()).await.unwrap().json(), updated("late:b"));

    // A right that goes while the server thinks about it is not waited for.
    let (answer, _open) = tokio::join!(soon(subscribe("later:c")), async {
        let fifth = opens(&mut opened).await;
        inside.swap(following(&upstream, "later:*"));
        fifth
    });
    assert_eq!(answer["error"]["code"], -31001, "{answer}");
}
