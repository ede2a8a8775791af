//! A process that ends while a legacy client listens, or a server that becomes another: the next one is heard without a
//! request.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::{CredentialSettings, EraSettings, Place};
use inside::{Inside, Plan, outcome, told};
use rustix::fs::{FileType, Mode};
use serde_json::{Value, json};
use std::{
    fs,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};
use testkit::{Agent, Answer, Feed, Reply, Streamer, Upstream, soon};

/// A process that tells of a resource as soon as somebody follows it, and falls when it is told to.
const SCRIPT: &str = r#"
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  answer() { echo '{"jsonrpc":"2.0","id":'"$id"',"result":'"$1"'}'; }
  case "$line" in
    *'"initialize"'*) answer '{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"resources":{"subscribe":true}},"serverInfo":{"name":"sh","version":"1"}}' ;;
    *'"tools/list"'*) answer '{"tools":[{"name":"echo","inputSchema":{"type":"object"}},{"name":"die","inputSchema":{"type":"object"}}]}' ;;
    *'"name":"die"'*) kill -9 $$ ;;
    *'"tools/call"'*) answer '{"content":[]}' ;;
    *'"resources/subscribe"'*) answer '{}'; [ -z "$2" ] || echo followed > "$2"
      echo '{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"file:///a","_meta":{"by":"'"$1"'"}}}' ;;
    *'"id"'*) answer '{"resources":[],"resourceTemplates":[]}' ;;
  esac
done"#;

fn plan(upstream: &Upstream, shared: bool, by: &str) -> Plan {
    let command = ["/bin/sh", "-c", SCRIPT, "server", by].map(str::to_owned).to_vec();
    Plan { command: Some(command), shared, era: EraSettings::Legacy, ..Plan::of(upstream) }
}

/// A door, what a tool is called there, and a resource.
const DOORS: [(&str, &str, &str); 2] =
    [("/mcp/files", "", "file:///a"), ("/mcp", "files__", "durward://files/file:///a")];

async fn subscribe(agent: &Agent, uri: &str) {
    let answer = agent.request("resources/subscribe", json!({"uri": uri})).await.json().await;
    assert!(answer["result"].is_object(), "{answer}");
}

async fn falls(agent: &Agent, prefix: &str) {
    let answer = agent.call(&format!("{prefix}die"), json!({})).await;
    assert_eq!(answer["error"]["code"], -31006, "{answer}");
}

#[tokio::test]
async fn who_listens_hears_the_next_process_without_a_request() {
    for (door, prefix, uri) in DOORS {
        for shared in [false, true] {
            let upstream = Upstream::start().await;
            let inside = Inside::start(plan(&upstream, shared, "one")).await;
            let alice = inside.legacy(door, &inside.alice).await;
            let mut listener = alice.listen().await;
            subscribe(&alice, uri).await;
            assert_eq!(told(&mut listener, uri).await, "one");
            for _ in 0..2 {
                falls(&alice, prefix).await;
                assert_eq!(told(&mut listener, uri).await, "one", "{door}, shared: {shared}");
            }
        }
    }
}

#[tokio::test]
async fn who_begins_to_listen_when_the_process_has_ended_hears_the_next_one() {
    for (door, prefix, uri) in DOORS {
        let upstream = Upstream::start().await;
        let inside = Inside::start(plan(&upstream, false, "one")).await;
        let alice = inside.legacy(door, &inside.alice).await;
        subscribe(&alice, uri).await;
        falls(&alice, prefix).await;
        let mut turns = tokio::time::interval(Duration::from_millis(5));
        soon(async {
            while inside.state.children.running() > 0 {
                turns.tick().await;
            }
        })
        .await;
        let mut listener = alice.listen().await;
        assert_eq!(told(&mut listener, uri).await, "one", "{door}");
    }
}

#[tokio::test]
async fn who_listens_hears_the_process_that_a_reload_puts_in_place() {
    for (door, _, uri) in DOORS {
        let upstream = Upstream::start().await;
        let inside = Inside::start(plan(&upstream, false, "one")).await;
        let alice = inside.legacy(door, &inside.alice).await;
        let mut listener = alice.listen().await;
        subscribe(&alice, uri).await;
        assert_eq!(told(&mut listener, uri).await, "one");
        // The second comes while the first is still looked at whether it stays.
        for next in ["two", "three"] {
            inside.swap(plan(&upstream, false, next));
            inside.state.sweep();
            assert_eq!(told(&mut listener, uri).await, next, "{door}");
        }
    }
}

/// Says on a stream that the resource has changed.
async fn tell(feed: &Feed, by: &str) {
    let params = json!({"uri": "file:///a", "_meta": {"by": by}});
    feed.message(&json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params})).await;
}

/// A web server that tells of the resource on its newest listening stream as soon as somebody follows it.
async fn web() -> (Upstream, Arc<Mutex<Option<Feed>>>) {
    let upstream = Upstream::start().await;
    let newest = Arc::<Mutex<Option<Feed>>>::default();
    let opened = Arc::clone(&newest);
    upstream.always("GET", move |_| {
        let (answer, feed) = Answer::events();
        *opened.lock().unwrap() = Some(feed);
        answer
    });
    let listening = Arc::clone(&newest);
    upstream.always("resources/subscribe", move |received| {
        let feed = listening.lock().unwrap().clone().unwrap();
        tokio::spawn(async move { tell(&feed, "web").await });
        Answer::result(&received.id(), &json!({}))
    });
    (upstream, newest)
}

#[tokio::test]
async fn who_listens_hears_what_a_reload_makes_of_a_process() {
    for (door, _, uri) in DOORS {
        let (upstream, _) = web().await;
        let inside = Inside::start(plan(&upstream, false, "one")).await;
        let alice = inside.legacy(door, &inside.alice).await;
        let mut listener = alice.listen().await;
        subscribe(&alice, uri).await;
        assert_eq!(told(&mut listener, uri).await, "one");
        for (next, by) in [(Plan::of(&upstream), "web"), (plan(&upstream, false, "two"), "two")] {
            inside.swap(next);
            inside.state.sweep();
            assert_eq!(told(&mut listener, uri).await, by, "{door}");
        }
        let own = own(&inside, &listener).await;
        assert_eq!(own.iter().map(outcome).collect::<Vec<_>>(), ["answered"; 2], "{door}, one of each: {own:#?}");
    }
}

#[tokio::test]
async fn who_listens_to_all_hears_the_process_that_a_web_server_became() {
    let (upstream, _) = web().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let alice = inside.legacy("/mcp", &inside.alice).await;
    let mut listener = alice.listen().await;
    upstream.arrived("GET", 1).await;
    subscribe(&alice, "durward://files/file:///a").await;
    assert_eq!(told(&mut listener, "durward://files/file:///a").await, "web");
    inside.swap(plan(&upstream, false, "one"));
    inside.state.sweep();
    assert_eq!(told(&mut listener, "durward://files/file:///a").await, "one");
    // Nobody asks a process for a stream: it is free to be started again.
    falls(&alice, "files__").await;
    assert_eq!(told(&mut listener, "durward://files/file:///a").await, "one");
}

#[tokio::test]
async fn a_process_that_a_reload_puts_in_place_waits_for_no_reload() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
    let inside = Inside::start(plan(&upstream, false, "one")).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let mut listener = alice.listen().await;
    subscribe(&alice, "file:///a").await;
    assert_eq!(told(&mut listener, "file:///a").await, "one");
    // Whoever reads it waits until the next process writes there that it was told what to follow.
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let mut next = plan(&upstream, false, "two");
    next.command.as_mut().unwrap().push(pipe.to_str().unwrap().to_owned());
    inside.swap(next);
    inside.state.sweep();
    let (followed, hears) = mpsc::channel();
    thread::spawn(move || followed.send(fs::read_to_string(pipe)));
    // The runtime that a reload runs on, which is this one, does nothing meanwhile.
    let heard = hears.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(heard.unwrap(), "followed\n");
    assert_eq!(told(&mut listener, "file:///a").await, "two");
}

#[tokio::test]
async fn a_server_without_a_stream_is_heard_when_a_reload_makes_it_one_that_speaks() {
    for next in [None, Some("one")] {
        let (mute, (upstream, _)) = (Upstream::start().await, web().await);
        mute.always("resources/subscribe", |received| Answer::result(&received.id(), &json!({})));
        let inside = Inside::start(Plan::of(&mute)).await;
        let alice = inside.legacy("/mcp", &inside.alice).await;
        let mut listener = alice.listen().await;
        mute.arrived("GET", 1).await;
        subscribe(&alice, "durward://files/file:///a").await;
        inside.swap(next.map_or_else(|| Plan::of(&upstream), |by| plan(&upstream, false, by)));
        inside.state.sweep();
        assert_eq!(told(&mut listener, "durward://files/file:///a").await, next.unwrap_or("web"));
    }
}

#[tokio::test]
async fn a_client_of_2024_hears_what_its_server_becomes_that_had_no_stream() {
    for (door, uri) in [("/sse/files", "file:///a"), ("/sse", "durward://files/file:///a")] {
        for next in [None, Some("one")] {
            let (mute, upstream) = (Upstream::start().await, Upstream::start().await);
            for server in [&mute, &upstream] {
                server.always("resources/subscribe", |received| Answer::result(&received.id(), &json!({})));
            }
            let (stream, feed) = Answer::events();
            upstream.next("GET", stream);
            let inside = Inside::start(Plan::of(&mute)).await;
            let mut alice = Streamer::begin(&inside.url(door), Some(&inside.alice)).await.0;
            alice.request("tools/list", json!({})).await;
            mute.arrived("GET", 1).await;
            let answer = alice.request("resources/subscribe", json!({"uri": uri})).await;
            assert!(answer["result"].is_object(), "{answer}");
            inside.swap(next.map_or_else(|| Plan::of(&upstream), |by| plan(&upstream, false, by)));
            inside.state.sweep();
            tell(&feed, "web").await;
            let told = soon(async {
                loop {
                    let said = alice.message().await;
                    if said["method"] == "notifications/resources/updated" {
                        return said;
                    }
                }
            });
            let told = told.await;
            assert_eq!(
                (&told["params"]["_meta"]["by"], &told["params"]["uri"]),
                (&json!(next.unwrap_or("web")), &json!(uri)),
                "{door}"
            );
        }
    }
}

#[tokio::test]
async fn a_stream_that_passed_through_ends_with_its_web_server_and_the_next_one_hears_what_it_became() {
    let (upstream, newest) = web().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let mut listener = alice.listen().await;
    subscribe(&alice, "file:///a").await;
    assert_eq!(told(&mut listener, "file:///a").await, "web");
    inside.swap(plan(&upstream, false, "one"));
    inside.state.sweep();
    while soon(listener.event()).await.is_some() {}
    let mut listener = alice.listen().await;
    assert_eq!(told(&mut listener, "file:///a").await, "one");

    // Where a web server comes back in its place, the gateway listens for the stream that is open, and for the next.
    inside.swap(Plan::of(&upstream));
    inside.state.sweep();
    assert_eq!(told(&mut listener, "file:///a").await, "web");
    drop(listener);
    let mut listener = alice.listen().await;
    let feed = newest.lock().unwrap().clone().unwrap();
    tell(&feed, "again").await;
    assert_eq!(told(&mut listener, "file:///a").await, "again");
    assert_eq!(upstream.seen("GET").len(), 2, "one passed through, one is the gateway's");
}

#[tokio::test]
async fn who_listens_hears_the_modern_server_that_a_process_became_and_the_process_that_this_became() {
    for (door, _, uri) in DOORS {
        let upstream = Upstream::start().await;
        upstream.always("subscriptions/listen", |received| {
            let (answer, feed) = Answer::events();
            let meta = json!({"io.modelcontextprotocol/subscriptionId": received.id(), "by": "modern"});
            let wanted = received.json()["params"]["notifications"].clone();
            tokio::spawn(async move {
                for (method, params) in [
                    ("subscriptions/acknowledged", json!({"_meta": meta, "notifications": wanted})),
                    ("resources/updated", json!({"_meta": meta, "uri": "file:///a"})),
                ] {
                    let method = format!("notifications/{method}");
                    feed.message(&json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
                }
                feed.closed().await;
            });
            answer
        });
        let inside = Inside::start(plan(&upstream, false, "one")).await;
        let alice = inside.legacy(door, &inside.alice).await;
        let mut listener = alice.listen().await;
        subscribe(&alice, uri).await;
        assert_eq!(told(&mut listener, uri).await, "one");
        let modern = Plan { era: EraSettings::Modern, ..Plan::of(&upstream) };
        for (next, by) in [(modern, "modern"), (plan(&upstream, false, "two"), "two")] {
            inside.swap(next);
            inside.state.sweep();
            assert_eq!(told(&mut listener, uri).await, by, "{door}");
        }
    }
}

/// The records of what the gateway did by itself.
async fn own(inside: &Inside, listener: &Reply) -> Vec<Value> {
    let parent = listener.header("durward-call-id").unwrap();
    inside.records().await.into_iter().filter(|record| record["parent"] == parent).collect()
}

#[tokio::test]
async fn each_process_that_is_started_for_whoever_listens_leaves_a_record() {
    for (door, prefix, uri) in DOORS {
        let upstream = Upstream::start().await;
        let secret = vocab::SecretName::new("token").unwrap();
        let place = Place::Environment("TOKEN".to_owned());
        let credentials = vec![CredentialSettings { secret: secret.clone(), place }];
        let inside = Inside::start(Plan { credentials, ..plan(&upstream, false, "one") }).await;
        inside.state.vault.set(&secret, &vocab::Secret::new("s3cret".to_owned()), inside.now()).unwrap();
        let alice = inside.legacy(door, &inside.alice).await;
        let mut listener = alice.listen().await;
        subscribe(&alice, uri).await;
        assert_eq!(told(&mut listener, uri).await, "one");
        for count in 1..=2 {
            falls(&alice, prefix).await;
            assert_eq!(told(&mut listener, uri).await, "one");
            let started = own(&inside, &listener).await;
            assert_eq!(started.len(), count, "{door}: {started:#?}");
        }
        let last = own(&inside, &listener).await.pop().unwrap();
        let called = inside.records().await.into_iter().find(|record| record["method"] == "tools/call").unwrap();
        for same in ["agent", "identity", "session", "server", "peer", "policy", "credential"] {
            assert!(last[same].is_string() && last[same] == called[same], "{door}, {same}: {last:#}");
        }
        let of = ["method", "target"].map(|member| last[member].as_str().unwrap());
        assert_eq!((of, outcome(&last).as_str()), (["GET", "GET"], "answered"), "{door}: {last:#}");
    }
}

#[tokio::test]
async fn a_process_that_nobody_may_listen_to_any_more_is_not_started_and_that_is_on_record() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(plan(&upstream, false, "one")).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let mut listener = alice.listen().await;
    subscribe(&alice, "file:///a").await;
    assert_eq!(told(&mut listener, "file:///a").await, "one");
    let closed = json!({"policy": "test", "rules": [
        {"id": "all", "action": "*", "target": "*/*", "effect": "allow"},
        {"id": "mute", "action": "method.call", "target": "files/GET", "effect": "deny"},
    ]});
    inside.swap(Plan { policy: closed, ..plan(&upstream, false, "two") });
    inside.state.sweep();
    let mut turns = tokio::time::interval(Duration::from_millis(20));
    let refused = soon(async {
        loop {
            turns.tick().await;
            if let Some(record) = own(&inside, &listener).await.pop() {
                return record;
            }
        }
    })
    .await;
    assert_eq!((outcome(&refused).as_str(), &refused["rules"]), ("refused denied authorize", &json!(["mute"])));
    assert_eq!(inside.state.children.running(), 0, "{refused:#}");
}

#[tokio::test]
async fn a_stream_that_is_opened_again_and_again_is_one_record() {
    let (upstream, newest) = web().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let alice = inside.legacy("/mcp", &inside.alice).await;
    let listener = alice.listen().await;
    for count in 1..=3 {
        upstream.arrived("GET", count).await;
        // What was opened for the call is in its record.
        assert!(own(&inside, &listener).await.is_empty());
        drop(newest.lock().unwrap().take());
    }
    upstream.arrived("GET", 4).await;
    assert_eq!(alice.leave().await.status, 200);
    let mut turns = tokio::time::interval(Duration::from_millis(20));
    let opened = soon(async {
        loop {
            turns.tick().await;
            let opened = own(&inside, &listener).await;
            if !opened.is_empty() {
                return opened;
            }
        }
    })
    .await;
    assert_eq!(opened.len(), 1, "{opened:#?}");
    assert_eq!((outcome(&opened[0]).as_str(), &opened[0]["server"]), ("answered", &json!("files")));
}
