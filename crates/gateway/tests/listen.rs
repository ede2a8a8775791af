//! Servers that come, and come back, while a client listens to all of them.

mod inside;

use gateway::settings::EraSettings;
use inside::{Inside, Plan};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::{Answer, Feed, Reply, Upstream, soon};
use vocab::ServerName;

const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

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
    let params = json!({"_meta": {SUBSCRIPTION: asked.id()}, "level": "info", "data": 1, "mark": 1});
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

/// A process that says more to whoever listens than all buffers have room for, and leaves a mark when it is told to stop.
const FLOOD: &str = r#"
filler=$(printf '%016384d' 0)
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  of='"_meta":{"io.modelcontextprotocol/subscriptionId":'"$id"
  case "$line" in
    *'"subscriptions/listen"'*)
      echo '{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{'"$of"'},"notifications":{"resourceSubscriptions":["file:///a"]}}}'
      n=0
      while [ $n -lt 2500 ]; do
        echo '{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"file:///a",'"$of"',"filler":"'"$filler"'"}}}'
        n=$((n+1))
      done ;;
    *'"notifications/cancelled"'*) printf x > "$1" ;;
    *'"id"'*) echo '{"jsonrpc":"2.0","id":'"$id"',"result":{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"resources":{"subscribe":true}},"ttlMs":0,"cacheScope":"private"}}' ;;
  esac
done"#;

#[tokio::test]
async fn a_listener_of_a_process_that_reads_too_slowly_is_told_that_it_must_listen_again() {
    for (door, uri) in [("/mcp/files", "file:///a"), ("/mcp", "durward://files/file:///a")] {
        let upstream = Upstream::start().await;
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let command = ["/bin/sh", "-c", FLOOD, "server", &mark.to_string_lossy()].map(str::to_owned).to_vec();
        let plan = Plan { command: Some(command), era: EraSettings::Modern, ..Plan::of(&upstream) };
        let inside = Inside::start(plan).await;
        let wanted = json!({"notifications": {"resourceSubscriptions": [uri]}});
        let mut listener = inside.modern(door, &inside.alice).request("subscriptions/listen", wanted).await;
        let mut turns = tokio::time::interval(Duration::from_millis(5));
        while !mark.exists() {
            turns.tick().await;
        }
        let last = last(&mut listener).await;
        let expected = json!({"resultType": "complete", "_meta": {SUBSCRIPTION: 1}});
        assert_eq!((&last["id"], &last["result"]), (&json!(1), &expected), "{door}");
    }
}

/// What is said last on a stream.
async fn last(listener: &mut Reply) -> Value {
    let mut last = Value::Null;
    while let Some(event) = soon(listener.event()).await {
        last = event.json();
    }
    last
}

/// Listens on a door, and has begun to.
async fn listening(upstream: &Upstream, inside: &Inside, door: &str) -> (Reply, Feed) {
    let (stream, feed) = Answer::events();
    let before = upstream.seen("subscriptions/listen").len();
    upstream.next("subscriptions/listen", stream);
    let agent = inside.modern(door, &inside.alice);
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let (mut listener, ()) = tokio::join!(agent.request("subscriptions/listen", wanted.clone()), async {
        let asked = upstream.arrived("subscriptions/listen", before + 1).await;
        let params = json!({"_meta": {SUBSCRIPTION: asked.id()}, "notifications": wanted.get("notifications")});
        let begun = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params});
        feed.message(&begun).await;
    });
    let begun = |event: &Value| event["method"] == "notifications/subscriptions/acknowledged";
    assert!(event(&mut listener, begun).await.is_some());
    (listener, feed)
}

#[tokio::test]
async fn a_modern_listener_is_told_that_its_stream_is_ended() {
    for (door, moves) in [("/mcp/files", true), ("/mcp/files", false), ("/mcp", false)] {
        let (upstream, other) = (Upstream::start().await, Upstream::start().await);
        let inside = Inside::start(Plan::of(&upstream)).await;
        let (mut listener, feed) = listening(&upstream, &inside, door).await;
        if moves {
            inside.swap(Plan::of(&other));
        } else {
            inside.state.stopping.send_replace(true);
        }
        let last = last(&mut listener).await;
        let mut expected = json!({"resultType": "complete", "_meta": {SUBSCRIPTION: 1}});
        if !moves {
            expected["_meta"]["durward/listenAgain"] = true.into();
        }
        assert_eq!((&last["id"], &last["result"]), (&json!(1), &expected), "{door}, moves: {moves}");
        soon(feed.closed()).await;
    }
}

#[tokio::test]
async fn a_server_that_was_late_once_ends_no_merged_stream_later() {
    let upstream = Upstream::start().await;
    let ((first, feed), (second, other)) = (Answer::events(), Answer::events());
    upstream.next("subscriptions/listen", first).next("subscriptions/listen", second);
    let inside = Inside::start(Plan::of(&upstream)).await;
    let agent = inside.modern("/mcp", &inside.alice);
    let uri = "durward://files/file:///a";
    let updated = |id: Value| json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "file:///a", "_meta": {SUBSCRIPTION: id}}});
    let wanted = json!({"notifications": {"resourceSubscriptions": [uri]}});
    let (mut listener, id) = tokio::join!(agent.request("subscriptions/listen", wanted), async {
        let id = upstream.arrived("subscriptions/listen", 1).await.id();
        // Before it says what it will tell of, and before the client is told that its stream begins.
        feed.message(&updated(id.clone())).await;
        id
    });
    let told = |event: &Value| event["params"]["uri"] == uri;
    assert!(event(&mut listener, told).await.is_some());
    // All is handed on, and a while passes.
    assert!(tokio::time::timeout(Duration::from_secs(2), listener.event()).await.is_err());
    feed.message(
        &json!({"jsonrpc": "2.0", "id": id, "result": {"resultType": "complete", "_meta": {SUBSCRIPTION: id}}}),
    )
    .await;
    drop(feed);
    other.message(&updated(upstream.arrived("subscriptions/listen", 2).await.id())).await;
    assert!(event(&mut listener, told).await.is_some(), "it is listened to again");
}

#[tokio::test]
async fn a_stream_that_breaks_off_at_its_server_breaks_off_at_its_client() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let (mut listener, feed) = listening(&upstream, &inside, "/mcp/files").await;
    drop(feed);
    assert_eq!(last(&mut listener).await, Value::Null, "nobody says that this was the end");
}

#[tokio::test]
async fn more_servers_than_news_are_kept_of_join_an_open_stream() {
    // More than `state.rs` keeps news of, many times over.
    const MANY: usize = 256;
    let upstream = Upstream::start().await;
    upstream.always("subscriptions/listen", |_| Answer::hang());
    let inside = Inside::start(Plan::of(&upstream)).await;
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let _listener = inside.modern("/mcp", &inside.alice).request("subscriptions/listen", wanted).await;
    let names = (0..MANY).map(|number| &*Box::leak(format!("s{number}").into_boxed_str()));
    let servers = names.map(|name| (name, upstream.url())).collect();
    inside.swap(Plan { servers, ..Plan::of(&upstream) });
    upstream.arrived("subscriptions/listen", 1 + MANY).await;
}

#[tokio::test]
async fn whoever_names_more_than_can_be_judged_is_told_how_much_that_is() {
    let upstream = Upstream::start().await;
    for (door, era) in
        [("/mcp/files", EraSettings::Both), ("/mcp", EraSettings::Both), ("/mcp/files", EraSettings::Legacy)]
    {
        let inside = Inside::start(Plan { era, ..Plan::of(&upstream) }).await;
        let agent = inside.modern(door, &inside.alice);
        for list in ["resourceSubscriptions", "taskIds"] {
            let named: Vec<String> = (0..1025).map(|number| format!("file:///{number}")).collect();
            let before = upstream.seen("subscriptions/listen").len();
            let wanted = json!({"notifications": {list: named}});
            let refused = soon(agent.request("subscriptions/listen", wanted)).await.json().await;
            assert_eq!(refused["error"]["code"], -32602, "{door} {list}");
            let why = refused["error"]["message"].as_str().unwrap();
            assert!(why.contains(list) && why.contains("1024"), "{why}");
            assert_eq!(upstream.seen("subscriptions/listen").len(), before, "no server is asked");
        }
    }
}

#[tokio::test]
async fn what_a_server_said_before_it_was_moved_is_told() {
    let (upstream, other, hangs) = (Upstream::start().await, Upstream::start().await, Upstream::start().await);
    // It holds up the beginning of the stream, and with that all that is said on it.
    hangs.always("subscriptions/listen", |_| Answer::hang());
    let plan =
        |files: &Upstream| Plan { servers: vec![("files", files.url()), ("hangs", hangs.url())], ..Plan::of(files) };
    let inside = Inside::start(plan(&upstream)).await;
    let (stream, feed) = Answer::events();
    upstream.next("subscriptions/listen", stream);
    let uri = "durward://files/file:///a";
    let wanted = json!({"notifications": {"resourceSubscriptions": [uri]}});
    let agent = inside.modern("/mcp", &inside.alice);
    let (mut listener, ()) = tokio::join!(agent.request("subscriptions/listen", wanted), async {
        let id = upstream.arrived("subscriptions/listen", 1).await.id();
        for mark in 0..3 {
            let params = json!({"uri": "file:///a", "mark": mark, "_meta": {SUBSCRIPTION: id}});
            feed.message(&json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params}))
                .await;
        }
        feed.taken().await;
        inside.swap(plan(&other));
    });
    for mark in 0..3 {
        let told = |event: &Value| event["params"]["mark"] == mark && event["params"]["uri"] == uri;
        assert!(event(&mut listener, told).await.is_some(), "{mark}");
    }
    other.arrived("subscriptions/listen", 1).await;
}

#[tokio::test]
async fn a_listener_too_slow_for_what_a_server_said_before_it_was_moved_is_told_to_listen_again() {
    let (upstream, other) = (Upstream::start().await, Upstream::start().await);
    let inside = Inside::start(Plan::of(&upstream)).await;
    let (stream, feed) = Answer::events();
    upstream.next("subscriptions/listen", stream);
    let wanted = json!({"notifications": {"resourceSubscriptions": ["durward://files/file:///a"]}});
    let mut listener = inside.modern("/mcp", &inside.alice).request("subscriptions/listen", wanted).await;
    let id = upstream.arrived("subscriptions/listen", 1).await.id();
    let params = json!({"uri": "file:///a", "filler": "x".repeat(16 << 10), "_meta": {SUBSCRIPTION: id}});
    let long = json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params});
    // Until all buffers between the two are full.
    while tokio::time::timeout(Duration::from_secs(1), feed.message(&long)).await.is_ok() {}
    inside.swap(Plan::of(&other));
    soon(feed.closed()).await;
    let last = last(&mut listener).await;
    let expected = json!({"resultType": "complete", "_meta": {SUBSCRIPTION: 1}});
    assert_eq!((&last["id"], &last["result"]), (&json!(1), &expected));
}

#[tokio::test]
async fn a_listener_that_reads_hears_the_next_server_though_the_one_before_never_pauses() {
    let (upstream, other) = (Upstream::start().await, Upstream::start().await);
    let inside = Inside::start(Plan::of(&upstream)).await;
    let (stream, feed) = Answer::events();
    upstream.next("subscriptions/listen", stream);
    let uri = "durward://files/file:///a";
    let wanted = json!({"notifications": {"resourceSubscriptions": [uri]}});
    let mut listener = inside.modern("/mcp", &inside.alice).request("subscriptions/listen", wanted).await;
    let id = upstream.arrived("subscriptions/listen", 1).await.id();
    let update = |mark: &str, id: &Value| {
        let params = json!({"uri": "file:///a", "mark": mark, "_meta": {SUBSCRIPTION: id}});
        json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params})
    };
    let chat = update("chat", &id);
    let chatting = tokio::spawn(async move {
        let mut turns = tokio::time::interval(Duration::from_millis(10));
        while feed.message(&chat).await {
            turns.tick().await;
        }
    });
    let is = |mark: &'static str| move |event: &Value| event["params"]["mark"] == mark;
    assert!(event(&mut listener, is("chat")).await.is_some());
    let (stream, anew) = Answer::events();
    other.next("subscriptions/listen", stream);
    inside.swap(Plan::of(&other));
    let (heard, ()) = tokio::join!(event(&mut listener, is("anew")), async {
        let id = other.arrived("subscriptions/listen", 1).await.id();
        anew.message(&update("anew", &id)).await;
    });
    assert!(heard.is_some(), "the stream goes on");
    soon(chatting).await.unwrap();
}

#[tokio::test]
async fn a_listener_without_a_filter_that_can_be_read_is_refused_on_both_doors() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let wanted = |filter: Value| json!({ "notifications": filter });
    for (params, pointer) in [
        (json!({}), "/notifications"),
        (wanted(json!([])), "/notifications"),
        (wanted(json!({"toolsListChanged": "yes"})), "/notifications/toolsListChanged"),
        (wanted(json!({"resourceSubscriptions": "x"})), "/notifications/resourceSubscriptions"),
        (wanted(json!({"resourceSubscriptions": [1]})), "/notifications/resourceSubscriptions"),
        (wanted(json!({"taskIds": "x"})), "/notifications/taskIds"),
    ] {
        for door in ["/mcp", "/mcp/files"] {
            let agent = inside.modern(door, &inside.alice);
            let answer = agent.request("subscriptions/listen", params.clone()).await.json().await;
            assert_eq!(answer["error"]["code"], -32602, "{door} {params}: {answer}");
            assert_eq!(answer["error"]["data"]["faults"][0]["pointer"], pointer, "{door} {params}: {answer}");
        }
    }
    assert!(upstream.seen("subscriptions/listen").is_empty());
}

/// What no client can be handed: what is no message, and a text that is longer than detectors take.
fn unusable() -> Vec<String> {
    let long = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "y ".repeat(3 << 20)}});
    ["[1,2]", "a line", "5", "{\"jsonrpc\":\"2.0\"}", &long.to_string()].map(str::to_owned).to_vec()
}

#[tokio::test]
async fn what_one_server_says_and_cannot_pass_costs_that_message_and_no_stream_of_several() {
    let guards = guard::Guards::new(guard::Setting { results: guard::Mode::Mask, arguments: guard::Mode::Off });
    for era in [EraSettings::Legacy, EraSettings::Modern] {
        for is_legacy in [true, false] {
            let (files, other) = (Upstream::start().await, Upstream::start().await);
            let servers = vec![("files", files.url()), ("other", other.url())];
            let inside = Inside::start(Plan { servers, guards: guards.clone(), era, ..Plan::of(&files) }).await;
            let ways = if era == EraSettings::Legacy { "GET" } else { "subscriptions/listen" };
            let mut feeds = Vec::new();
            for upstream in [&files, &other] {
                upstream.always("resources/subscribe", |request| Answer::result(&request.id(), &json!({})));
                let (stream, feed) = Answer::events();
                upstream.next(ways, stream);
                feeds.push(feed);
            }
            let agent = if is_legacy {
                inside.legacy("/mcp", &inside.alice).await
            } else {
                let agent = inside.modern("/mcp", &inside.alice);
                agent.tools().await;
                agent
            };
            let uris = ["durward://files/file:///a", "durward://other/file:///a"];
            let mut listener = if is_legacy {
                agent.listen().await
            } else {
                agent.request("subscriptions/listen", json!({"notifications": {"resourceSubscriptions": uris}})).await
            };
            let mut metas = Vec::new();
            for (upstream, feed) in [&files, &other].into_iter().zip(&feeds) {
                let asked = upstream.arrived(ways, 1).await;
                let meta = if ways == "GET" { json!({}) } else { json!({SUBSCRIPTION: asked.id()}) };
                if ways != "GET" {
                    let mut params = asked.json()["params"].clone();
                    params["_meta"] = meta.clone();
                    let method = "notifications/subscriptions/acknowledged";
                    feed.message(&json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
                }
                metas.push(meta);
            }
            for unusable in unusable() {
                feeds[0].raw(format!("data: {unusable}\n\n")).await;
            }
            for (feed, meta) in feeds.iter().zip(&metas).rev() {
                let (method, mut params) = if is_legacy {
                    ("notifications/message", json!({"level": "info", "data": 1}))
                } else {
                    ("notifications/resources/updated", json!({"uri": "file:///a"}))
                };
                params["_meta"] = meta.clone();
                feed.message(&json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
            }
            let mut heard = 0;
            while heard < 2 {
                let said =
                    soon(listener.event()).await.unwrap_or_else(|| panic!("{era:?} {is_legacy}: it ended")).json();
                let is_news = matches!(
                    said["method"].as_str(),
                    Some("notifications/message" | "notifications/resources/updated")
                );
                heard += usize::from(is_news);
            }
            assert_eq!(files.seen(ways).len(), 1, "{era:?} {is_legacy}: it is asked for once");
        }
    }
}
