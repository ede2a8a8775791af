//! A right to follow a resource that is withdrawn while a client listens: at every door, in both eras, over the bridge.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::EraSettings;
use inside::{Inside, Plan};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::{Agent, Answer, Feed, Reply, Upstream, soon};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
const UPDATED: &str = "notifications/resources/updated";

/// Everything is allowed but to follow what lies behind `denied`.
fn denying(upstream: &Upstream, era: EraSettings, denied: &str) -> Plan {
    let rules = json!([
        {"id": "all", "action": "*", "target": "*/*", "effect": "allow"},
        {"id": "no", "action": "resource.subscribe", "target": format!("files/{denied}"), "effect": "deny"},
    ]);
    Plan { policy: json!({"policy": "test", "rules": rules}), era, ..Plan::of(upstream) }
}

/// A server that takes every subscription. The test speaks on the streams that are opened to it.
async fn server() -> (Upstream, UnboundedReceiver<(Value, Feed)>) {
    let upstream = Upstream::start().await;
    let (feeds, opened) = unbounded_channel();
    for method in ["GET", "subscriptions/listen"] {
        let feeds = feeds.clone();
        upstream.always(method, move |request| {
            let (answer, feed) = Answer::events();
            feeds.send((request.json(), feed)).unwrap();
            answer
        });
    }
    for method in ["resources/subscribe", "resources/unsubscribe"] {
        upstream.always(method, |request| Answer::result(&request.id(), &json!({})));
    }
    (upstream, opened)
}

/// The next stream that is opened to the server, which says what it will tell of, and what that is.
async fn opens(opened: &mut UnboundedReceiver<(Value, Feed)>) -> (Stream, Value) {
    let (asked, feed) = soon(opened.recv()).await.unwrap();
    let stream = Stream { feed, of: asked["id"].clone() };
    stream.acknowledge(&asked).await;
    (stream, asked["params"]["notifications"]["resourceSubscriptions"].clone())
}

/// A stream of the server.
struct Stream {
    feed: Feed,
    /// The request that opened it; null for GET.
    of: Value,
}

impl Stream {
    async fn say(&self, method: &str, mut params: Value) {
        if !self.of.is_null() {
            params["_meta"] = json!({SUBSCRIPTION: self.of});
        }
        self.feed.message(&json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
    }

    /// Says that it will tell of all that it was asked to.
    async fn acknowledge(&self, asked: &Value) {
        let wanted = &asked["params"]["notifications"];
        if wanted.is_object() {
            self.say("notifications/subscriptions/acknowledged", json!({"notifications": wanted})).await;
        }
    }

    async fn update(&self, uri: &str) {
        self.say(UPDATED, json!({"uri": uri})).await;
    }
}

/// An address as the client knows it.
fn shown(door: &str, uri: &str) -> String {
    if door == "/mcp" { format!("durward://files/{uri}") } else { uri.to_owned() }
}

/// Listens for these resources, and follows them.
async fn follow(agent: &Agent, door: &str, uris: &[&str]) -> Reply {
    let uris: Vec<String> = uris.iter().map(|uri| shown(door, uri)).collect();
    if agent.session().is_none() {
        let wanted = json!({"notifications": {"resourceSubscriptions": uris}});
        return agent.request("subscriptions/listen", wanted).await;
    }
    let listener = agent.listen().await;
    for uri in uris {
        let answer = agent.request("resources/subscribe", json!({"uri": uri})).await.json().await;
        assert_eq!(answer["result"], json!({}), "{answer}");
    }
    listener
}

/// The next thing that is said of a resource. `None`: the gateway says that the stream is over.
async fn told_or_over(listener: &mut Reply) -> Option<Value> {
    loop {
        let event = soon(listener.event()).await.unwrap().json();
        if event["method"] == UPDATED {
            return Some(event["params"]["uri"].clone());
        }
        if event["result"].is_object() {
            return None;
        }
    }
}

/// The same where it goes on.
async fn told(listener: &mut Reply) -> Value {
    told_or_over(listener).await.unwrap()
}

/// The doors, whether the client is a legacy one, and the era of the server.
const WAYS: [(&str, bool, EraSettings); 6] = [
    ("/mcp/files", true, EraSettings::Both),
    ("/mcp", true, EraSettings::Both),
    ("/mcp/files", false, EraSettings::Both),
    ("/mcp", false, EraSettings::Both),
    ("/mcp/files", false, EraSettings::Legacy),
    ("/mcp", false, EraSettings::Legacy),
];

#[tokio::test]
async fn what_may_not_be_followed_any_more_is_not_told_on_a_stream_that_is_open() {
    for (door, is_legacy, era) in WAYS {
        let way = format!("{door}, legacy: {is_legacy}, {era:?}");
        let (upstream, mut opened) = server().await;
        let inside = Inside::start(denying(&upstream, era, "none:*")).await;
        let agent =
            if is_legacy { inside.legacy(door, &inside.alice).await } else { inside.modern(door, &inside.alice) };
        let (mut listener, (stream, _)) =
            tokio::join!(follow(&agent, door, &["file:///a", "late:b"]), opens(&mut opened));
        stream.update("late:b").await;
        assert_eq!(told(&mut listener).await, shown(door, "late:b"), "{way}");

        inside.swap(denying(&upstream, era, "late:*"));
        stream.update("late:b").await;
        stream.update("file:///a").await;
        let said = told_or_over(&mut listener).await;
        // A stream that is the server's own, and was asked for with both, ends within half a second; its client asks anew.
        let ends = said.is_none() && door == "/mcp/files" && !is_legacy && era == EraSettings::Both;
        assert!(ends || said == Some(json!(shown(door, "file:///a"))), "{way}: {said:?}");
    }
}

#[tokio::test]
async fn a_merged_stream_asks_a_server_for_what_may_be_followed_now_and_misses_nothing_meanwhile() {
    for era in [EraSettings::Both, EraSettings::Legacy] {
        let (upstream, mut opened) = server().await;
        let inside = Inside::start(denying(&upstream, era, "late:*")).await;
        let agent = inside.modern("/mcp", &inside.alice);
        let (mut listener, (mut stream, asked)) =
            tokio::join!(follow(&agent, "/mcp", &["file:///a", "late:b"]), opens(&mut opened));
        let is_bridged = asked == Value::Null;
        for (denied, wanted) in [("none:*", &["file:///a", "late:b"][..]), ("late:*", &["file:///a"])] {
            inside.swap(denying(&upstream, era, denied));
            if is_bridged {
                // The legacy server goes on speaking on one stream; each resource is asked for, or given up.
                let (method, count) =
                    if wanted.len() > 1 { ("resources/subscribe", 2) } else { ("resources/unsubscribe", 1) };
                let asked = upstream.arrived(method, count).await;
                assert_eq!(asked.json()["params"]["uri"], "late:b");
            } else {
                let (asked, feed) = soon(opened.recv()).await.unwrap();
                assert_eq!(asked["params"]["notifications"]["resourceSubscriptions"], json!(wanted));
                // The one before speaks until the next is acknowledged, and no longer.
                stream.update("file:///a").await;
                assert_eq!(told(&mut listener).await, shown("/mcp", "file:///a"));
                let next = Stream { feed, of: asked["id"].clone() };
                next.acknowledge(&asked).await;
                soon(stream.feed.closed()).await;
                stream = next;
            }
            for uri in wanted {
                stream.update(uri).await;
                assert_eq!(told(&mut listener).await, shown("/mcp", uri));
            }
        }
    }
}

#[tokio::test]
async fn whoever_listens_to_one_server_is_told_to_listen_again_when_it_may_follow_others() {
    for era in [EraSettings::Both, EraSettings::Legacy] {
        for (before, after) in [("none:*", "late:*"), ("late:*", "none:*")] {
            let (upstream, mut opened) = server().await;
            let inside = Inside::start(denying(&upstream, era, before)).await;
            let agent = inside.modern("/mcp/files", &inside.alice);
            let (mut listener, _stream) =
                tokio::join!(follow(&agent, "/mcp/files", &["file:///a", "late:b"]), opens(&mut opened));
            let begun = soon(listener.event()).await.unwrap().json();
            assert_eq!(begun["method"], "notifications/subscriptions/acknowledged", "{begun}");
            inside.swap(denying(&upstream, era, after));
            let end = soon(listener.event()).await.unwrap().json();
            let expected = json!({"resultType": "complete", "_meta": {SUBSCRIPTION: 1, "durward/listenAgain": true}});
            assert_eq!((&end["id"], &end["result"]), (&json!(1), &expected), "{before}, {after}, {era:?}");
            assert!(soon(listener.event()).await.is_none());
        }
    }
}

#[tokio::test]
async fn a_change_that_hides_a_tool_and_ends_the_stream_is_told_before_the_end() {
    for era in [EraSettings::Both, EraSettings::Legacy] {
        let (upstream, mut opened) = server().await;
        let inside = Inside::start(denying(&upstream, era, "none:*")).await;
        // What the server has is known: its tools are among what the client sees.
        let known = inside.state.line().servers().next().cloned().unwrap();
        inside.state.line().look(&known).await;
        let agent = inside.modern("/mcp/files", &inside.alice);
        let wanted = json!({"toolsListChanged": true, "resourceSubscriptions": ["file:///a", "late:b"]});
        let (mut listener, (stream, asked)) =
            tokio::join!(agent.request("subscriptions/listen", json!({"notifications": wanted})), opens(&mut opened));
        stream.acknowledge(&asked).await;
        let begun = soon(listener.event()).await.unwrap().json();
        assert_eq!(begun["method"], "notifications/subscriptions/acknowledged", "{begun}");
        // Rights are looked at each half second of the stream, lists 200 ms after a change: this one comes just before a
        // look at rights, so that nothing but the end can tell of it.
        tokio::time::sleep(Duration::from_millis(1350)).await;
        let mut plan = denying(&upstream, era, "late:*");
        let hides = json!({"id": "hides", "action": "tool.execute", "target": "files/echo", "effect": "deny"});
        plan.policy["rules"].as_array_mut().unwrap().push(hides);
        inside.swap(plan);
        let told = soon(listener.event()).await.unwrap().json();
        assert_eq!(told["method"], "notifications/tools/list_changed", "{era:?}: {told}");
        assert_eq!(told["params"]["_meta"][SUBSCRIPTION], 1, "{told}");
        let end = soon(listener.event()).await.unwrap().json();
        assert_eq!(end["result"]["_meta"]["durward/listenAgain"], true, "{end}");
        assert!(soon(listener.event()).await.is_none());
    }
}

#[tokio::test]
async fn a_slow_client_whose_rights_change_is_told_that_it_missed_something() {
    let (upstream, mut opened) = server().await;
    let inside = Inside::start(denying(&upstream, EraSettings::Both, "late:*")).await;
    let agent = inside.modern("/mcp", &inside.alice);
    let (mut listener, (stream, _)) =
        tokio::join!(follow(&agent, "/mcp", &["file:///a", "late:b"]), opens(&mut opened));
    // The client reads nothing, until all that is between it and the server is full.
    let filler = "x".repeat(64 << 10);
    let full = || stream.say(UPDATED, json!({"uri": "file:///a", "filler": filler}));
    while tokio::time::timeout(Duration::from_secs(3), full()).await.is_ok() {}
    inside.swap(denying(&upstream, EraSettings::Both, "none:*"));
    let (asked, feed) = soon(opened.recv()).await.unwrap();
    let next = Stream { feed, of: asked["id"].clone() };
    next.acknowledge(&asked).await;
    soon(stream.feed.closed()).await;
    let mut last = Value::Null;
    while let Some(event) = soon(listener.event()).await {
        last = event.json();
    }
    let expected = json!({"resultType": "complete", "_meta": {SUBSCRIPTION: 1}});
    assert_eq!((&last["id"], &last["result"]), (&json!(1), &expected));
}

#[tokio::test]
async fn rights_that_change_before_a_server_answers_a_listener_are_told_of() {
    let (upstream, _opened) = server().await;
    let (answer, _feed) = Answer::events();
    let (held, release) = answer.held();
    upstream.next("subscriptions/listen", held);
    let inside = Inside::start(denying(&upstream, EraSettings::Both, "late:*")).await;
    let agent = inside.modern("/mcp/files", &inside.alice);
    let (mut listener, ()) = tokio::join!(follow(&agent, "/mcp/files", &["file:///a", "late:b"]), async {
        upstream.arrived("subscriptions/listen", 1).await;
        inside.swap(denying(&upstream, EraSettings::Both, "none:*"));
        release.send(()).unwrap();
    });
    let end = soon(listener.event()).await.unwrap().json();
    assert_eq!((&end["id"], &end["result"]["resultType"]), (&json!(1), &json!("complete")), "{end}");
}

#[tokio::test]
async fn what_nobody_follows_is_not_told_by_the_gateway() {
    // A merged stream, and streams that a bridge carries over.
    for (door, is_legacy, era) in [
        ("/mcp", false, EraSettings::Both),
        ("/mcp", true, EraSettings::Modern),
        ("/mcp/files", true, EraSettings::Modern),
    ] {
        let way = format!("{door}, legacy: {is_legacy}, {era:?}");
        let (upstream, mut opened) = server().await;
        let inside = Inside::start(denying(&upstream, era, "none:*")).await;
        let agent =
            if is_legacy { inside.legacy(door, &inside.alice).await } else { inside.modern(door, &inside.alice) };
        let listening = async {
            if is_legacy {
                agent.listen().await
            } else {
                agent.request("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}})).await
            }
        };
        let (mut listener, (stream, _)) = tokio::join!(listening, opens(&mut opened));
        stream.update("file:///a").await;
        stream.update("late:a").await;
        stream.say("notifications/message", json!({"level": "info", "data": "mark"})).await;
        let next = soon(async {
            loop {
                let event = listener.event().await.unwrap().json();
                let method = event["method"].as_str().unwrap_or_default();
                if method == UPDATED || method == "notifications/message" {
                    return event;
                }
            }
        })
        .await;
        assert_eq!(next["params"]["data"], "mark", "{way}: {next}");
    }
}
