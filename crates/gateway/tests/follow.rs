//! Resources that a legacy client follows on a modern server: what it is told of them, and by which rights.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::EraSettings;
use inside::{Inside, Plan, outcome};
use serde_json::{Value, json};
use testkit::{Agent, Answer, Feed, Upstream, soon};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

fn modern(upstream: &Upstream) -> Plan {
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

fn updated(uri: &str) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}})
}

/// Asks for a resource, in these words, and gives the answer.
async fn subscribe(agent: &Agent, params: Value) -> Value {
    soon(async { agent.request("resources/subscribe", params).await.json().await }).await
}

/// Asks for a resource, and the server says that it will tell.
async fn followed(agent: &Agent, params: Value, opened: &mut UnboundedReceiver<(Value, Feed)>) -> (Feed, Value) {
    let (answer, (feed, asked)) = tokio::join!(subscribe(agent, params), async {
        let (feed, asked, word) = opens(opened).await;
        feed.message(&word).await;
        (feed, asked)
    });
    assert_eq!(answer["result"], json!({}), "{answer}");
    (feed, asked)
}

#[tokio::test]
async fn what_may_be_followed_changes_while_the_stream_is_open() {
    let upstream = Upstream::start().await;
    let mut opened = listening(&upstream);
    let inside = Inside::start(following(&upstream, "late:*")).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let subscribe = |uri: &'static str| subscribe(&alice, json!({"uri": uri}));
    assert_eq!(subscribe("file:///a").await["result"], json!({}));
    assert!(subscribe("late:b").await["error"].is_object());
    let mut listener = alice.listen().await;
    let (first, asked, word) = opens(&mut opened).await;
    assert_eq!(asked, json!(["file:///a"]));
    first.message(&word).await;

    // A right that is granted counts for the next subscription.
    inside.swap(following(&upstream, "other:*"));
    let (answer, second) = tokio::join!(subscribe("late:b"), async {
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
    let (answer, fourth) = tokio::join!(subscribe("late:b"), async {
        let (fourth, asked, word) = opens(&mut opened).await;
        assert_eq!(asked, json!(["file:///a", "late:b"]));
        fourth.message(&word).await;
        fourth
    });
    assert_eq!(answer["result"], json!({}), "{answer}");
    fourth.message(&updated("late:b")).await;
    assert_eq!(soon(listener.event()).await.unwrap().json(), updated("late:b"));

    // A right that goes while the server thinks about it is not waited for.
    let (answer, _open) = tokio::join!(subscribe("later:c"), async {
        let fifth = opens(&mut opened).await;
        inside.swap(following(&upstream, "later:*"));
        fifth
    });
    assert_eq!(answer["error"]["code"], -31001, "{answer}");
    let records = inside.records().await;
    let record = records.iter().rfind(|record| record["method"] == "resources/subscribe").unwrap();
    assert_eq!((outcome(record).as_str(), &record["rules"]), ("refused denied authorize", &json!(["all", "no"])));

    // Nor is one that the client takes back.
    let (answer, _open) = tokio::join!(subscribe("other:d"), async {
        let mut streams = vec![opens(&mut opened).await];
        // What was opened without the one before may come first.
        while !streams.last().unwrap().1.to_string().contains("other:d") {
            streams.push(opens(&mut opened).await);
        }
        let back = alice.request("resources/unsubscribe", json!({"uri": "other:d"})).await.json().await;
        assert_eq!(back["result"], json!({}), "{back}");
        streams
    });
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
    let records = inside.records().await;
    let record = records.iter().rfind(|record| record["method"] == "resources/subscribe").unwrap();
    assert_eq!(outcome(record), "refused taken-back forward");
}

#[tokio::test]
async fn what_is_asked_for_again_is_followed_again_though_its_answer_is_known() {
    let upstream = Upstream::start().await;
    let mut opened = listening(&upstream);
    let inside = Inside::start(modern(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let _listener = alice.listen().await;
    let (first, _, word) = opens(&mut opened).await;
    first.message(&word).await;
    let wanted = json!({"uri": "file:///a"});
    let (mut feed, _) = followed(&alice, wanted.clone(), &mut opened).await;
    soon(first.closed()).await;
    for _ in 0..8 {
        // Nobody follows a server that the caller has no right to, and who listens is told nothing of it.
        inside.swap(Plan { policy: json!({"policy": "none", "rules": []}), ..modern(&upstream) });
        soon(feed.closed()).await;
        inside.swap(modern(&upstream));
        assert_eq!(subscribe(&alice, wanted.clone()).await["result"], json!({}));
        let (next, asked, word) = opens(&mut opened).await;
        assert_eq!(asked, json!(["file:///a"]));
        next.message(&word).await;
        feed = next;
    }
}

#[tokio::test]
async fn what_is_given_up_and_asked_for_again_at_once_is_asked_of_the_server_again() {
    let upstream = Upstream::start().await;
    let mut opened = listening(&upstream);
    // On one thread both are heeded before whoever follows the server looks.
    let inside = Inside::start(Plan { workers: 1, ..modern(&upstream) }).await;
    let alice = inside.batching("/mcp/files", &inside.alice).await;
    let mut listener = alice.listen().await;
    let (none, _, word) = opens(&mut opened).await;
    none.message(&word).await;
    let _before = followed(&alice, json!({"uri": "file:///a"}), &mut opened).await;

    let ask =
        |id: u32, method: &str| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {"uri": "file:///a"}});
    let both = json!([ask(8, "resources/unsubscribe"), ask(9, "resources/subscribe")]);
    let batch = alice.ask("", &both).send();
    let (mut answers, feed) = tokio::join!(batch, async {
        loop {
            let (feed, asked, word) = opens(&mut opened).await;
            feed.message(&word).await;
            if asked == json!(["file:///a"]) {
                return feed;
            }
        }
    });
    for _ in [8, 9] {
        let answer = soon(answers.event()).await.unwrap().json();
        assert_eq!(answer["result"], json!({}), "{answer}");
    }
    feed.message(&updated("file:///a")).await;
    assert_eq!(soon(listener.event()).await.unwrap().json(), updated("file:///a"));
}

#[tokio::test]
async fn what_lies_below_a_resource_is_told_no_longer_than_that() {
    let upstream = Upstream::start().await;
    let mut opened = listening(&upstream);
    let inside = Inside::start(following(&upstream, "other:*")).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    for uri in ["file:///a", "file:///a/b", "late:b"] {
        assert_eq!(subscribe(&alice, json!({"uri": uri})).await["result"], json!({}));
    }
    let mut listener = alice.listen().await;
    let (feed, asked, word) = opens(&mut opened).await;
    assert_eq!(asked, json!(["file:///a", "file:///a/b", "late:b"]));
    feed.message(&word).await;
    for below in ["late:b/x", "file:///a/x", "view:of-either"] {
        feed.message(&updated(below)).await;
        assert_eq!(soon(listener.event()).await.unwrap().json(), updated(below));
    }
    inside.swap(following(&upstream, "late:*"));
    // Asked for less the server says nothing yet, and goes on where it was.
    let (less, asked, word) = opens(&mut opened).await;
    assert_eq!(asked, json!(["file:///a", "file:///a/b"]));
    for told in ["late:b/x", "view:of-either", "file:///a/x"] {
        feed.message(&updated(told)).await;
    }
    assert_eq!(soon(listener.event()).await.unwrap().json(), updated("file:///a/x"));

    // What it was not asked for any more may lie below what it was.
    less.message(&word).await;
    soon(feed.closed()).await;
    inside.swap(following(&upstream, "file:///a/b*"));
    let (third, asked, word) = opens(&mut opened).await;
    assert_eq!(asked, json!(["file:///a", "late:b"]));
    third.message(&word).await;
    soon(less.closed()).await;
    for told in ["file:///a/b", "file:///a/b/x", "file:///a/x"] {
        third.message(&updated(told)).await;
    }
    assert_eq!(soon(listener.event()).await.unwrap().json(), updated("file:///a/x"));
}

/// Everything is allowed; `when` says what may be followed, and whether that is what is meant or what is not.
fn following_when(upstream: &Upstream, effect: &str, when: &str) -> Plan {
    let rules = json!([
        {"id": "see", "action": ["resource.read", "tool.execute"], "target": "*/*", "effect": "allow"},
        {"id": "follow", "action": "resource.subscribe", "target": "*/*", "effect": "allow"},
        {"id": "other", "action": "resource.subscribe", "target": "files/other:*", "effect": "allow"},
        {"id": "when", "action": "resource.subscribe", "target": "files/file:*", "effect": effect, "when": when},
    ]);
    let mut rules = rules.as_array().unwrap().clone();
    if effect == "allow" {
        rules.remove(1);
    }
    Plan { policy: json!({"policy": "test", "rules": rules}), ..modern(upstream) }
}

#[tokio::test]
async fn a_resource_is_followed_by_the_words_that_it_was_asked_for_with() {
    const RED: &str = "has(args._meta) && has(args._meta.team) && args._meta.team == 'red'";
    let upstream = Upstream::start().await;
    let mut opened = listening(&upstream);
    let inside = Inside::start(following_when(&upstream, "allow", RED)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let mut listener = alice.listen().await;
    let (none, _, word) = opens(&mut opened).await;
    none.message(&word).await;
    let of = |team: &str| json!({"uri": "file:///a", "_meta": {"team": team}});
    assert!(subscribe(&alice, of("blue")).await["error"].is_object());
    let (feed, asked) = followed(&alice, of("red"), &mut opened).await;
    assert_eq!(asked, json!(["file:///a"]));
    feed.message(&updated("file:///a")).await;
    assert_eq!(soon(listener.event()).await.unwrap().json(), updated("file:///a"));

    // What was said counts against it, too.
    inside.swap(following_when(&upstream, "deny", RED));
    let (less, asked, word) = opens(&mut opened).await;
    assert_eq!(asked, Value::Null);
    less.message(&word).await;
    // Asked for in other words it is another wish.
    let (_feed, asked) = followed(&alice, of("blue"), &mut opened).await;
    assert_eq!(asked, json!(["file:///a"]));

    // There is an end to what is kept of it.
    let answer = subscribe(&alice, of(&"x".repeat(300 << 10))).await;
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("too much was said"), "{answer}");
}

#[tokio::test]
async fn a_right_that_ends_by_the_clock_ends_what_is_told() {
    // The clock of the tests stands at eight.
    const BEFORE_NINE: &str = "now < time('2026-11-21T09:00:00Z')";
    let upstream = Upstream::start().await;
    let mut opened = listening(&upstream);
    let inside = Inside::start(following_when(&upstream, "allow", BEFORE_NINE)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    assert_eq!(subscribe(&alice, json!({"uri": "file:///a"})).await["result"], json!({}));
    let mut listener = alice.listen().await;
    let (feed, asked, word) = opens(&mut opened).await;
    assert_eq!(asked, json!(["file:///a"]));
    feed.message(&word).await;
    feed.message(&updated("file:///a")).await;
    assert_eq!(soon(listener.event()).await.unwrap().json(), updated("file:///a"));
    inside.clock.advance(std::time::Duration::from_hours(1));
    feed.message(&updated("file:///a")).await;
    let (less, asked, word) = opens(&mut opened).await;
    assert_eq!(asked, Value::Null);
    less.message(&word).await;
    less.message(&updated("other:x")).await;
    assert_eq!(soon(listener.event()).await.unwrap().json(), updated("other:x"));
}
