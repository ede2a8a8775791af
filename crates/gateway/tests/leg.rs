//! The sessions that modern clients have with legacy servers: how many there are, what is heard in them, and how they end.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::EraSettings;
use inside::{Inside, Plan};
use serde_json::{Value, json};
use std::{sync::Mutex, time::Duration};
use testkit::{Agent, Answer, Feed, Received, Reply, Upstream, meta, soon};

const META: &str = "io.modelcontextprotocol/";

fn legacy(upstream: &Upstream) -> Plan {
    Plan { era: EraSettings::Legacy, ..Plan::of(upstream) }
}

/// Waits for what comes soon.
async fn until(what: impl Fn() -> bool) {
    let mut turns = tokio::time::interval(Duration::from_millis(5));
    soon(async {
        while !what() {
            turns.tick().await;
        }
    })
    .await;
}

/// Listens for changes of one resource, and has heard that it does.
async fn listening(agent: &Agent, uri: &str) -> Reply {
    let wanted = json!({"resourceSubscriptions": [uri]});
    let mut listener = agent.request("subscriptions/listen", json!({"notifications": wanted})).await;
    let begun = soon(listener.event()).await.unwrap().json();
    assert_eq!(begun["params"]["notifications"]["resourceSubscriptions"], json!([uri]), "{begun}");
    listener
}

fn updated(uri: &str) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}})
}

fn lets_follow(upstream: &Upstream) {
    for method in ["resources/subscribe", "resources/unsubscribe"] {
        upstream.always(method, |request| Answer::result(&request.id(), &json!({})));
    }
}

fn session_of(request: &Received) -> String {
    request.header("mcp-session-id").unwrap().to_owned()
}

#[tokio::test]
async fn a_client_lists_hears_and_calls_more_legacy_servers_than_sixteen_at_once() {
    const NAMES: [&str; 20] =
        ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t"];
    let mut upstreams = Vec::new();
    for _ in NAMES {
        let upstream = Upstream::start().await;
        lets_follow(&upstream);
        upstreams.push(upstream);
    }
    let servers = NAMES.iter().zip(&upstreams).map(|(name, upstream)| (*name, upstream.url())).collect();
    let inside = Inside::start(Plan { servers, ..legacy(&upstreams[0]) }).await;
    let alice = inside.modern("/mcp", &inside.alice);
    // One that is slow to say what it has is listed the next time.
    soon(async { while alice.tools().await.len() < NAMES.len() {} }).await;
    let mut feeds = Vec::new();
    for upstream in &upstreams {
        let (events, feed) = Answer::events();
        upstream.next("GET", events);
        feeds.push(feed);
    }
    let shown = NAMES.map(|name| format!("durward://{name}/file:///a"));
    let wanted = json!({"resourceSubscriptions": shown});
    let mut listener = alice.request("subscriptions/listen", json!({"notifications": wanted})).await;
    assert!(soon(listener.event()).await.is_some());
    for (upstream, feed) in upstreams.iter().zip(&feeds) {
        upstream.arrived("GET", 1).await;
        feed.message(&updated("file:///a")).await;
    }
    let mut heard = Vec::new();
    for _ in NAMES {
        heard.push(soon(listener.event()).await.unwrap().json()["params"]["uri"].as_str().unwrap().to_owned());
    }
    heard.sort();
    assert_eq!(heard, shown);
    for name in NAMES {
        let answer = alice.call(&format!("{name}__echo"), json!({})).await;
        assert!(answer["result"].is_object(), "{name} {answer}");
    }
    assert_eq!(inside.state.leg_count(), NAMES.len());
}

#[tokio::test]
async fn a_session_that_makes_room_for_another_is_ended_on_its_server() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    for client in 0..9 {
        inside.clock.advance(Duration::from_secs(1));
        let mut of_call = meta();
        of_call[format!("{META}clientInfo")]["name"] = json!(format!("client {client}"));
        let params = json!({"name": "echo", "arguments": {}, "_meta": of_call});
        let answer = alice.request("tools/call", params).await.json().await;
        assert!(answer["result"].is_object(), "{answer}");
    }
    assert_eq!(inside.state.leg_count(), 8);
    let first = session_of(&upstream.seen("tools/call")[0]);
    until(|| upstream.seen("DELETE").iter().any(|end| session_of(end) == first)).await;
}

/// The server begins anew: it does not know this session any more, and speaks on the stream of the next one.
fn restarted(upstream: &Upstream, forgotten: &str) -> Feed {
    restarted_saying(upstream, forgotten, http::StatusCode::NOT_FOUND)
}

/// The same, with what it says of the session that it forgot.
fn restarted_saying(upstream: &Upstream, forgotten: &str, said: http::StatusCode) -> Feed {
    let knows = {
        let forgotten = forgotten.to_owned();
        move |request: &Received| request.header("mcp-session-id") != Some(&forgotten)
    };
    let gone = move || Answer::status(said);
    let (events, feed) = Answer::events();
    let (next, known) = (Mutex::new(Some(events)), knows.clone());
    upstream.always("GET", move |request| if known(request) { next.lock().unwrap().take().unwrap() } else { gone() });
    for method in ["ping", "tools/call", "resources/subscribe", "resources/unsubscribe"] {
        let known = knows.clone();
        upstream.always(method, move |request| {
            if known(request) { Answer::result(&request.id(), &json!({"content": []})) } else { gone() }
        });
    }
    feed
}

#[tokio::test]
async fn a_listener_whose_session_the_server_forgot_is_told_and_may_listen_again() {
    for called in [false, true] {
        let upstream = Upstream::start().await;
        lets_follow(&upstream);
        let inside = Inside::start(legacy(&upstream)).await;
        let alice = inside.modern("/mcp/files", &inside.alice);
        let (events, feed) = Answer::events();
        upstream.next("GET", events);
        let mut listener = listening(&alice, "file:///a").await;
        let old = session_of(&upstream.arrived("GET", 1).await);
        // Some say so with 400.
        let said = if called { http::StatusCode::NOT_FOUND } else { http::StatusCode::BAD_REQUEST };
        let anew = restarted_saying(&upstream, &old, said);
        let kept = if called {
            let lost = alice.call("echo", json!({})).await;
            assert_eq!(lost["error"]["code"], -31006, "{lost}");
            Some(feed)
        } else {
            drop(feed);
            None
        };
        let end = soon(listener.event()).await.unwrap().json();
        assert_eq!(end["result"]["resultType"], "complete", "{end}");
        assert!(soon(listener.event()).await.is_none());
        let mut listener = listening(&alice, "file:///a").await;
        until(|| upstream.seen("GET").iter().any(|get| session_of(get) != old)).await;
        anew.message(&updated("file:///a")).await;
        assert_eq!(soon(listener.event()).await.unwrap().json()["params"]["uri"], "file:///a");
        drop(kept);
    }
}

#[tokio::test]
async fn a_refusal_that_names_no_request_ends_no_session_that_its_server_knows() {
    let upstream = Upstream::start().await;
    lets_follow(&upstream);
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    let (events, feed) = Answer::events();
    upstream.next("GET", events);
    let mut listener = listening(&alice, "file:///a").await;
    let session = session_of(&upstream.arrived("GET", 1).await);
    let refusal = || Answer::error(&Value::Null, -32600, "not read").with_status(http::StatusCode::BAD_REQUEST);
    upstream.next("tools/call", refusal());
    let refused = alice.call("echo", json!({})).await;
    assert_eq!(refused["error"]["code"], -31006, "{refused}");
    assert_eq!(session_of(&upstream.seen("ping")[0]), session, "it is asked before the client may call again");
    assert!(alice.call("echo", json!({})).await["result"].is_object());
    feed.message(&updated("file:///a")).await;
    assert_eq!(soon(listener.event()).await.unwrap().json()["params"]["uri"], "file:///a");
    // This time it is the session that it does not know, and it says so in the same words.
    upstream.next("tools/call", refusal()).next("ping", refusal());
    alice.call("echo", json!({})).await;
    let end = soon(listener.event()).await.unwrap().json();
    assert_eq!(end["result"]["resultType"], "complete", "{end}");
    alice.call("echo", json!({})).await;
    let sessions: Vec<_> = upstream.seen("tools/call").iter().map(session_of).collect();
    assert_eq!(sessions[..3], [session.clone(), session.clone(), session.clone()]);
    assert_ne!(sessions[3], session);
}

#[tokio::test]
async fn a_listener_of_all_servers_goes_on_in_the_next_session_of_one_that_forgot() {
    let upstream = Upstream::start().await;
    lets_follow(&upstream);
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp", &inside.alice);
    let (events, feed) = Answer::events();
    upstream.next("GET", events);
    let mut listener = listening(&alice, "durward://files/file:///a").await;
    let old = session_of(&upstream.arrived("GET", 1).await);
    let anew = restarted(&upstream, &old);
    drop(feed);
    until(|| upstream.seen("GET").iter().any(|get| session_of(get) != old)).await;
    anew.message(&updated("file:///a")).await;
    assert_eq!(soon(listener.event()).await.unwrap().json()["params"]["uri"], "durward://files/file:///a");
}

#[tokio::test]
async fn a_server_that_forgot_a_session_may_be_listened_to_at_once() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    alice.call("echo", json!({})).await;
    let old = session_of(&upstream.seen("tools/call")[0]);
    let anew = restarted(&upstream, &old);
    let mut listener = listening(&alice, "file:///a").await;
    anew.message(&updated("file:///a")).await;
    assert_eq!(soon(listener.event()).await.unwrap().json()["params"]["uri"], "file:///a");
}

#[tokio::test]
async fn a_stream_that_a_server_cannot_open_now_is_asked_for_again() {
    let upstream = Upstream::start().await;
    lets_follow(&upstream);
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    let (events, feed) = Answer::events();
    upstream.next("GET", Answer::status(http::StatusCode::SERVICE_UNAVAILABLE)).next("GET", events);
    let mut listener = listening(&alice, "file:///a").await;
    upstream.arrived("GET", 2).await;
    feed.message(&updated("file:///a")).await;
    assert_eq!(soon(listener.event()).await.unwrap().json()["params"]["uri"], "file:///a");
}

#[tokio::test]
async fn a_server_that_has_no_stream_may_say_so_with_404_and_keeps_its_session() {
    let upstream = Upstream::start().await;
    lets_follow(&upstream);
    upstream.always("GET", |_| Answer::status(http::StatusCode::NOT_FOUND));
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    let wanted = json!({"resourceSubscriptions": ["file:///a"]});
    let mut listener = alice.request("subscriptions/listen", json!({"notifications": wanted})).await;
    assert!(soon(listener.event()).await.is_some());
    let session = session_of(&upstream.arrived("ping", 1).await);
    alice.call("echo", json!({})).await;
    assert_eq!(session_of(&upstream.seen("tools/call")[0]), session);
    assert!(upstream.seen("resources/subscribe").is_empty(), "nothing could be told of it");
}

#[tokio::test]
async fn a_listener_that_reads_too_slowly_is_told_that_it_must_listen_again() {
    for (door, uri) in [("/mcp/files", "file:///a"), ("/mcp", "durward://files/file:///a")] {
        let upstream = Upstream::start().await;
        lets_follow(&upstream);
        let inside = Inside::start(legacy(&upstream)).await;
        let alice = inside.modern(door, &inside.alice);
        let (events, feed) = Answer::events();
        upstream.next("GET", events);
        let mut listener = listening(&alice, uri).await;
        upstream.arrived("GET", 1).await;
        // More than all buffers between the two have room for.
        let mut long = updated("file:///a");
        long["params"]["_meta"] = json!({"filler": "x".repeat(16 << 10)});
        // Nobody reads the server's stream for one who is told nothing more.
        let mut said = 0;
        while said < 2500 && feed.message(&long).await {
            said += 1;
        }
        assert!(said > 64, "{door}: a MiB of them has room");
        let mut last = Value::Null;
        while let Some(event) = soon(listener.event()).await {
            last = event.json();
        }
        assert_eq!(last["result"]["resultType"], "complete", "{door}: {last}");
    }
}

/// A server that says in each answer what it was told to tell, and that a resource has changed.
const TELLER: &str = r#"
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  answer() { echo '{"jsonrpc":"2.0","id":'$id',"result":'"$1"'}'; }
  case "$line" in
    *'"initialize"'*) answer '{"protocolVersion":"2025-06-18","capabilities":{"tools":{},"logging":{},"resources":{"subscribe":true}},"serverInfo":{"name":"sh","version":"1"}}';;
    *'"tools/list"'*) answer '{"tools":[{"name":"echo","inputSchema":{"type":"object"}}]}';;
    *'"tools/call"'*) echo '{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"file:///a"}}'
      answer '{"content":[],"told":['"$told"'""]}';;
    *'"logging/setLevel"'*debug*) told="$told"'"debug",'; answer '{}';;
    *'"logging/setLevel"'*) told="$told"'"quieter",'; answer '{}';;
    *'"resources/subscribe"'*:///a*) told="$told"'"+a",'; answer '{}';;
    *'"resources/subscribe"'*:///b*) told="$told"'"+b",'; answer '{}';;
    *'"resources/unsubscribe"'*:///a*) told="$told"'"-a",'; answer '{}';;
    *'"resources/unsubscribe"'*:///b*) told="$told"'"-b",'; answer '{}';;
    *'"id"'*) answer '{"resources":[],"resourceTemplates":[]}';;
  esac
done
"#;

#[tokio::test]
async fn who_shares_a_process_does_not_undo_what_others_want_of_it() {
    let upstream = Upstream::start().await;
    let command = Some(["/bin/sh", "-c", TELLER].map(str::to_owned).to_vec());
    let inside = Inside::start(Plan { command, shared: true, ..legacy(&upstream) }).await;
    let (alice, bob) = (inside.modern("/mcp/files", &inside.alice), inside.modern("/mcp/files", &inside.bob));
    let call = async |agent: &Agent, level: &str| {
        let mut of_call = meta();
        of_call[format!("{META}logLevel")] = json!(level);
        let params = json!({"name": "echo", "arguments": {}, "_meta": of_call});
        let answer = agent.request("tools/call", params).await.json().await;
        let told = answer["result"]["told"].as_array().unwrap_or_else(|| panic!("{answer}"));
        told.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ").trim().to_owned()
    };
    assert_eq!(call(&alice, "debug").await, "debug");
    assert_eq!(call(&bob, "error").await, "debug", "it says less to him, not to her");
    let mut hers = listening(&alice, "file:///a").await;
    let wanted = json!({"resourceSubscriptions": ["file:///a", "file:///b"]});
    let mut his = bob.request("subscriptions/listen", json!({"notifications": wanted})).await;
    assert!(soon(his.event()).await.is_some());
    drop(his);
    soon(async { while !call(&bob, "error").await.contains("-b") {} }).await;
    assert_eq!(call(&bob, "error").await, "debug +a +b -b", "hers is followed on");
    assert_eq!(soon(hers.event()).await.unwrap().json()["params"]["uri"], "file:///a");
    drop(hers);
    soon(async { while call(&bob, "error").await != "debug +a +b -b -a" {} }).await;
}
