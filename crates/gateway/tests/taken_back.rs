//! Calls that a client of the legacy era takes back, on servers that do as the specification asks: they do not answer.
#![expect(clippy::indexing_slicing, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::EraSettings;
use inside::{Inside, Plan, outcome};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use testkit::{Agent, Answer, Feed, Reply, Streamer, Upstream, soon};
use tokio::{sync::oneshot, task::JoinSet, time::sleep};

/// Calls of one principal that may run on without a client on one server.
const MOST_OF_ONE: usize = 32;

/// A server that answers no call, and whose streams are not silent.
async fn silent() -> Upstream {
    let upstream = Upstream::start().await;
    upstream.always("tools/call", |_| {
        let (answer, feed) = Answer::events();
        tokio::spawn(async move {
            while feed.raw(": ping\n\n").await {
                sleep(Duration::from_millis(50)).await;
            }
        });
        answer
    });
    upstream
}

async fn call(agent: &Agent, id: &Value, tool: &str) -> Reply {
    let params = json!({"name": tool, "arguments": {}});
    agent.ask("tools/call", &json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})).send().await
}

async fn take_back(agent: &Agent, id: &Value) {
    let reply = agent.notify("notifications/cancelled", json!({"requestId": id, "reason": "enough"})).await;
    assert_eq!(reply.status, 202);
}

/// The error of a call that was taken back.
fn is_taken_back(answer: &Value, id: &Value) -> bool {
    answer["id"] == *id && answer["error"]["message"] == "the client cancelled the request"
}

/// What became of calls of tools, once there are `count` records of them.
async fn outcomes(inside: &Inside, count: usize) -> Vec<String> {
    soon(async {
        loop {
            let records = inside.records().await;
            let called = records.iter().filter(|record| record["method"] == "tools/call");
            let outcomes: Vec<String> = called.map(outcome).collect();
            if outcomes.len() == count {
                return outcomes;
            }
        }
    })
    .await
}

#[tokio::test]
async fn calls_that_were_taken_back_end_though_their_server_says_nothing() {
    for (path, tool) in [("/mcp/files", "echo"), ("/mcp", "files__echo")] {
        let upstream = silent().await;
        let inside = Inside::start(Plan::of(&upstream)).await;
        let alice = inside.legacy(path, &inside.alice).await;
        let calls = MOST_OF_ONE + 1;
        let mut streams = Vec::new();
        for id in 100..100 + calls {
            streams.push(call(&alice, &json!(id), tool).await);
        }
        for id in 100..100 + calls {
            take_back(&alice, &json!(id)).await;
        }
        upstream.arrived("notifications/cancelled", calls).await;
        // Whoever still reads hears that it is over, and does not come back for the rest.
        let mut first = streams.swap_remove(0);
        drop(streams);
        soon(upstream.abandoned(calls)).await;
        let mut end = Value::Null;
        while let Some(event) = soon(first.event()).await {
            end = event.json();
        }
        assert!(is_taken_back(&end, &json!(100)), "{end}");
        assert_eq!(outcomes(&inside, calls).await, vec!["abandoned"; calls]);
        let again = inside.legacy(path, &inside.alice).await;
        assert_eq!(again.tools().await, [tool], "nothing keeps her out");
    }
}

#[tokio::test]
async fn a_call_whose_answer_has_not_begun_is_let_go_when_it_is_taken_back() {
    for hears in [true, false] {
        let upstream = Upstream::start().await;
        let inside = Inside::start(Plan::of(&upstream)).await;
        let alice = inside.legacy("/mcp/files", &inside.alice).await;
        upstream.next("tools/call", Answer::hang());
        if !hears {
            upstream.next("notifications/cancelled", Answer::hang());
        }
        let id = json!("mine");
        let taking_back = async {
            upstream.arrived("tools/call", 1).await;
            take_back(&alice, &id).await;
            std::future::pending::<Value>().await
        };
        let answer = tokio::select! {
            answer = soon(async { call(&alice, &id, "echo").await.json().await }) => answer,
            nothing = taking_back => nothing,
        };
        assert!(is_taken_back(&answer, &id), "{answer}");
        soon(upstream.abandoned(1)).await;
        assert_eq!(outcomes(&inside, 1).await, ["abandoned"]);
    }
}

/// How a server ends a call that was taken back, where it says no word more.
const ENDS: [&str; 4] = ["to the end", "cut", "with ids", "unbegun"];

/// Answers the next call so.
fn ends(upstream: &Upstream, how: &str) -> (Feed, Option<oneshot::Sender<()>>) {
    let (answer, feed) = Answer::events();
    let (answer, begin) = answer.held();
    upstream.next("tools/call", answer);
    if how == "unbegun" {
        return (feed, Some(begin));
    }
    drop(begin);
    (feed, None)
}

#[tokio::test]
async fn a_server_that_ends_the_stream_of_a_call_that_was_taken_back_is_not_blamed() {
    for (path, tool) in [("/mcp/files", "echo"), ("/mcp", "files__echo")] {
        for how in ENDS {
            let upstream = Upstream::start().await;
            let inside = Inside::start(Plan::of(&upstream)).await;
            let alice = inside.legacy(path, &inside.alice).await;
            let id = json!("mine");
            let (feed, begin) = ends(&upstream, how);
            let working = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "working"}});
            let ending = async {
                upstream.arrived("tools/call", 1).await;
                match how {
                    "unbegun" => {}
                    "with ids" => drop(feed.raw(format!("id: 1\ndata: {working}\n\n")).await),
                    _ => drop(feed.message(&working).await),
                }
                take_back(&alice, &id).await;
                upstream.arrived("notifications/cancelled", 1).await;
                if matches!(how, "cut" | "unbegun") {
                    feed.cut().await;
                }
                drop((feed, begin));
            };
            let hearing = async {
                let mut reply = call(&alice, &id, tool).await;
                if how == "unbegun" {
                    return reply.json().await;
                }
                let mut end = Value::Null;
                while let Some(event) = reply.event().await {
                    end = event.json();
                }
                end
            };
            let (end, ()) = soon(async { tokio::join!(hearing, ending) }).await;
            assert!(is_taken_back(&end, &id), "{path} {how}: {end}");
            assert_eq!(outcomes(&inside, 1).await, ["abandoned"], "{path} {how}");
        }
    }
}

/// Answers nothing but `count`: how many calls were taken back, after an answer to one of them that comes too late.
const PROCESS: &str = r#"
cancelled=0
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  case "$line" in
    *'"initialize"'*) echo '{"jsonrpc":"2.0","id":'$id',"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}}';;
    *'"tools/list"'*) echo '{"jsonrpc":"2.0","id":'$id',"result":{"tools":[{"name":"echo","inputSchema":{"type":"object"}},{"name":"talk","inputSchema":{"type":"object"}},{"name":"count","inputSchema":{"type":"object"}}]}}';;
    *'"notifications/cancelled"'*) cancelled=$((cancelled + 1));;
    *'"name":"count"'*) echo '{"jsonrpc":"2.0","id":'$late',"result":{"content":[]}}'; echo '{"jsonrpc":"2.0","id":'$id',"result":{"content":[{"type":"text","text":"'$cancelled'"}]}}';;
    *'"name":"talk"'*) late=$id; echo '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"working"}}';;
  esac
done
"#;

#[tokio::test]
async fn a_process_is_told_once_that_a_call_was_taken_back_and_may_be_late() {
    let upstream = Upstream::start().await;
    let command = Some(["/bin/sh", "-c", PROCESS].map(str::to_owned).to_vec());
    let inside = Inside::start(Plan { command, era: EraSettings::Legacy, ..Plan::of(&upstream) }).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let (silent, talks) = (json!("silent"), json!("talks"));
    let mut stream = call(&alice, &talks, "talk").await;
    assert_eq!(soon(stream.event()).await.unwrap().json()["params"]["data"], "working");
    take_back(&alice, &talks).await;
    let (answer, ()) = tokio::join!(soon(async { call(&alice, &silent, "echo").await.json().await }), async {
        // It must be under way before it can be taken back.
        soon(async { while inside.intents().await.len() < 2 {} }).await;
        sleep(Duration::from_millis(100)).await;
        take_back(&alice, &silent).await;
    });
    assert!(is_taken_back(&answer, &silent), "{answer}");
    let end = soon(stream.event()).await.unwrap().json();
    assert!(is_taken_back(&end, &talks), "{end}");
    let counted = alice.call("count", json!({})).await;
    assert_eq!(counted["result"]["content"][0]["text"], "2", "{counted}");
    assert_eq!(outcomes(&inside, 3).await, ["abandoned", "abandoned", "answered"]);
}

#[tokio::test]
async fn an_answer_that_comes_soon_after_all_is_heard_and_nobody_elses_call_is_touched() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let (other, bob) =
        (inside.legacy("/mcp/files", &inside.alice).await, inside.legacy("/mcp/files", &inside.bob).await);
    let id = json!("mine");
    let answer = json!({"jsonrpc": "2.0", "id": id, "result": {"content": []}});
    let (events, feed) = Answer::events();
    upstream.next("tools/call", events);
    let mut stream = call(&alice, &id, "echo").await;
    for (agent, named) in [(&other, &id), (&bob, &id), (&alice, &json!("another"))] {
        take_back(agent, named).await;
    }
    sleep(Duration::from_millis(2500)).await;
    feed.message(&answer).await;
    assert_eq!(soon(stream.event()).await.unwrap().json(), answer);
    drop((stream, feed));
    let (events, feed) = Answer::events();
    upstream.next("tools/call", events);
    let mut stream = call(&alice, &id, "echo").await;
    take_back(&alice, &id).await;
    feed.message(&answer).await;
    assert_eq!(soon(stream.event()).await.unwrap().json(), answer, "it was on its way");
    soon(feed.closed()).await;
    assert_eq!(outcomes(&inside, 2).await, ["answered", "answered"]);
}

#[tokio::test]
async fn a_call_on_a_stream_of_2024_is_let_go_too() {
    let upstream = silent().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let (mut alice, _) = Streamer::begin(&inside.url("/sse/files"), Some(&inside.alice)).await;
    let id = json!(alice.send("tools/call", json!({"name": "echo", "arguments": {}})).await);
    upstream.arrived("tools/call", 1).await;
    let cancelled = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
    assert_eq!(alice.post(&cancelled).await.status, 202);
    let end = soon(alice.message()).await;
    assert!(is_taken_back(&end, &id), "{end}");
    soon(upstream.abandoned(1)).await;
    assert_eq!(outcomes(&inside, 1).await, ["abandoned"]);
}

#[tokio::test]
async fn a_call_on_a_stream_of_2024_that_its_server_ends_is_taken_back() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let (mut alice, _) = Streamer::begin(&inside.url("/sse/files"), Some(&inside.alice)).await;
    let (answer, feed) = Answer::events();
    upstream.next("tools/call", answer);
    let id = json!(alice.send("tools/call", json!({"name": "echo", "arguments": {}})).await);
    upstream.arrived("tools/call", 1).await;
    let cancelled = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
    assert_eq!(alice.post(&cancelled).await.status, 202);
    drop(feed);
    let end = soon(alice.message()).await;
    assert!(is_taken_back(&end, &id), "{end}");
    assert_eq!(outcomes(&inside, 1).await, ["abandoned"]);
}

#[tokio::test]
async fn what_takes_a_call_back_finds_room_where_calls_find_none() {
    let upstream = silent().await;
    let inside = Inside::start(Plan { calls_in_flight: 1, ..Plan::of(&upstream) }).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let id = json!("mine");
    let _stream = call(&alice, &id, "echo").await;
    let refused = alice.call("echo", json!({})).await;
    assert_eq!(refused["error"]["code"], -31002, "{refused}");
    let told = alice.notify("tools/call", json!({"name": "echo", "arguments": {}})).await;
    assert_ne!(told.status, 202, "a call without an id is one all the same");
    take_back(&alice, &id).await;
    upstream.arrived("notifications/cancelled", 1).await;
    upstream.honestly("tools/call");
    soon(async { while alice.call("echo", json!({})).await.get("result").is_none() {} }).await;
}

/// Notifications that have room where calls have none.
const TOLD: usize = 256;

#[tokio::test]
async fn what_takes_a_call_back_finds_room_where_notifications_find_none() {
    for (path, tool) in [("/mcp/files", "echo"), ("/mcp", "files__echo")] {
        let upstream = silent().await;
        upstream.always("notifications/progress", |_| Answer::hang());
        let inside = Inside::start(Plan { calls_in_flight: 1, ..Plan::of(&upstream) }).await;
        let alice = Arc::new(inside.legacy("/mcp/files", &inside.alice).await);
        // On whichever door: the server's places are the same.
        let caller = inside.legacy(path, &inside.alice).await;
        let id = json!("mine");
        let _stream = call(&caller, &id, tool).await;
        let filler = json!({"progressToken": 1, "progress": 1});
        let mut told = JoinSet::new();
        for _ in 0..TOLD {
            let (alice, filler) = (Arc::clone(&alice), filler.clone());
            told.spawn(async move { alice.notify("notifications/progress", filler).await });
        }
        upstream.arrived("notifications/progress", TOLD).await;
        let refused = alice.notify("notifications/progress", filler).await;
        assert_ne!(refused.status, 202, "all places are taken");
        let nothing = alice.notify("notifications/cancelled", json!({"requestId": "nothing"})).await;
        assert_ne!(nothing.status, 202, "what takes nothing back is a notification like others");
        take_back(&caller, &id).await;
        let heard = upstream.arrived("notifications/cancelled", 1).await;
        assert_eq!(heard.json()["params"]["requestId"], id);
        assert_eq!(outcomes(&inside, 1).await, ["abandoned"]);
    }
}

#[tokio::test]
async fn a_call_is_taken_back_beyond_all_places_once() {
    let upstream = silent().await;
    upstream.always("notifications/progress", |_| Answer::hang());
    upstream.always("notifications/cancelled", |_| Answer::hang());
    let inside = Inside::start(Plan { calls_in_flight: 1, ..Plan::of(&upstream) }).await;
    let alice = Arc::new(inside.legacy("/mcp/files", &inside.alice).await);
    let id = json!("mine");
    let _stream = call(&alice, &id, "echo").await;
    let mut told = JoinSet::new();
    let notify = |told: &mut JoinSet<Reply>, method: &'static str, params: Value| {
        let alice = Arc::clone(&alice);
        told.spawn(async move { alice.notify(method, params).await });
    };
    for _ in 0..TOLD {
        notify(&mut told, "notifications/progress", json!({"progressToken": 1, "progress": 1}));
    }
    upstream.arrived("notifications/progress", TOLD).await;
    for _ in 0..3 {
        notify(&mut told, "notifications/cancelled", json!({"requestId": id}));
    }
    for _ in 0..2 {
        let refused = soon(told.join_next()).await.unwrap().unwrap();
        assert_ne!(refused.status, 202);
    }
    assert_eq!(upstream.arrived("notifications/cancelled", 1).await.json()["params"]["requestId"], id);
    assert_eq!(upstream.seen("notifications/cancelled").len(), 1);
}

#[tokio::test]
async fn a_call_whose_client_reads_nothing_is_let_go_in_the_same_time() {
    for (path, tool) in [("/mcp/files", "echo"), ("/mcp", "files__echo")] {
        let upstream = Upstream::start().await;
        let inside = Inside::start(Plan { calls_in_flight: 1, ..Plan::of(&upstream) }).await;
        let alice = inside.legacy(path, &inside.alice).await;
        let (events, feed) = Answer::events();
        upstream.next("tools/call", events);
        let id = json!("mine");
        let stream = call(&alice, &id, tool).await;
        let params = json!({"level": "info", "data": "x".repeat(16 << 10)});
        let long = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": params});
        // Until all buffers between the two are full.
        while tokio::time::timeout(Duration::from_millis(500), feed.message(&long)).await.is_ok() {}
        take_back(&alice, &id).await;
        soon(feed.closed()).await;
        assert_eq!(outcomes(&inside, 1).await, ["abandoned"]);
        // Its place is another's, while its last word still waits to be read.
        let answer = soon(alice.call(tool, json!({}))).await;
        assert!(answer["result"].is_object(), "{answer}");
        drop(stream);
    }
}
