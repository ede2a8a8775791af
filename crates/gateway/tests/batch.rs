//! Batches of revision 2025-03-26: several calls at once, and one stream for what comes of them.
#![expect(clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use inside::{Inside, Plan, outcome};
use serde_json::{Value, json};
use testkit::{Answer, Ask, Upstream, soon};

fn call(id: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "echo", "arguments": {"id": id}}})
}

/// A server that holds back the answer to the call `slow`, until it is let go.
async fn holding() -> (Upstream, Inside, testkit::Feed) {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let (slow, feed) = Answer::events();
    let slow = std::sync::Mutex::new(Some(slow));
    upstream.always("tools/call", move |request| match slow.lock().unwrap().take_if(|_| request.id() == "slow") {
        Some(held) => held,
        None => Answer::result(&request.id(), &json!({"content": []})),
    });
    (upstream, inside, feed)
}

#[tokio::test]
async fn one_that_is_slow_holds_up_no_other() {
    for (path, tool) in [("/mcp/files", "echo"), ("/mcp", "files__echo")] {
        let (_upstream, inside, feed) = holding().await;
        let alice = inside.batching(path, &inside.alice).await;
        let mut calls = [call("slow"), call("fast")];
        for call in &mut calls {
            call["params"]["name"] = json!(tool);
        }
        let mut answers = alice.ask("", &json!(calls)).send().await;
        assert_eq!(answers.header("cache-control"), Some("no-cache"));
        let first = soon(answers.event()).await.unwrap().json();
        assert_eq!(first["id"], "fast", "{first}");
        feed.message(&json!({"jsonrpc": "2.0", "id": "slow", "result": {"content": []}})).await;
        drop(feed);
        let second = soon(answers.event()).await.unwrap().json();
        assert!(second["id"] == "slow" && second["result"].is_object(), "{second}");
        assert!(soon(answers.event()).await.is_none());
    }
}

#[tokio::test]
async fn one_whose_client_takes_no_stream_is_refused_and_reaches_nobody() {
    for path in ["/mcp/files", "/mcp"] {
        let upstream = Upstream::start().await;
        let inside = Inside::start(Plan::of(&upstream)).await;
        let alice = inside.batching(path, &inside.alice).await;
        let ping = |id: u64| json!({"jsonrpc": "2.0", "id": id, "method": "ping"});
        let batch = |accept: &str, batch: Value| alice.ask("", &batch).replace("accept", accept).send();
        // No schema has an error without an id, which is what a batch that is refused whole gets.
        let alone = Ask::post(&inside.url(path), json!([call("one"), ping(1)]).to_string()).bearer(&inside.alice);
        let alone = alone.header("mcp-session-id", alice.session().unwrap()).replace("accept", "application/json");
        let reply = alone.send().await;
        assert_eq!((reply.status.as_u16(), reply.header("content-type")), (406, Some("application/json")), "{path}");
        assert_eq!(reply.json().await["error"]["code"], -32600, "{path}");
        assert_eq!(outcome(inside.records().await.last().unwrap()), "refused accept receive", "{path}");
        assert!(upstream.seen("tools/call").is_empty(), "{path}");
        // What has no answer needs no stream, and who takes anything takes one.
        let note = json!([{"jsonrpc": "2.0", "method": "notifications/initialized"}]);
        assert_eq!(batch("application/json", note).await.status, 202, "{path}");
        for accept in ["application/json, text/event-stream", "*/*"] {
            let reply = batch(accept, json!([ping(1), ping(2)])).await;
            assert_eq!(
                (reply.status.as_u16(), reply.header("content-type")),
                (200, Some("text/event-stream")),
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn one_that_is_taken_back_in_its_own_batch_ends() {
    let (upstream, inside, feed) = holding().await;
    let alice = inside.batching("/mcp/files", &inside.alice).await;
    let back = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "slow"}});
    let mut answers = alice.ask("", &json!([call("slow"), back, call("fast")])).send().await;
    let first = soon(answers.event()).await.unwrap().json();
    assert!(first["id"] == "fast" && first["result"].is_object(), "{first}");
    let heard = upstream.arrived("notifications/cancelled", 1).await.json();
    assert_eq!(heard["params"]["requestId"], "slow");
    let second = soon(answers.event()).await.unwrap().json();
    assert!(second["id"] == "slow" && second["error"].is_object(), "{second}");
    assert!(soon(answers.event()).await.is_none());
    soon(feed.closed()).await;
    let records = inside.records().await;
    let taken_back = records.iter().find(|record| outcome(record).starts_with("abandoned"));
    assert_eq!(taken_back.unwrap()["method"], "tools/call", "{records:#?}");
}

#[tokio::test]
async fn its_answer_names_every_call_in_it() {
    let (_upstream, inside, feed) = holding().await;
    drop(feed);
    let alice = inside.batching("/mcp/files", &inside.alice).await;
    let note = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    for (batch, methods) in [
        (
            json!([call("one"), note, call("two")]),
            &["tools/call", "notifications/roots/list_changed", "tools/call"][..],
        ),
        (json!([note]), &["notifications/roots/list_changed"]),
    ] {
        let answers = alice.ask("", &batch).send().await;
        let ids = answers.header("durward-call-id").unwrap().to_owned();
        soon(answers.bytes()).await;
        let records = inside.records().await;
        let said =
            ids.split(", ").map(|id| records.iter().find(|record| record["call"] == id).unwrap()["method"].clone());
        assert_eq!(said.collect::<Vec<_>>(), methods);
    }
}

#[tokio::test]
async fn a_batch_that_a_server_answers_with_is_told_to_be_one() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let alice = inside.batching("/mcp/files", &inside.alice).await;
    upstream.always("tools/call", |request| {
        Answer::json(json!([{"jsonrpc": "2.0", "id": request.id(), "result": {"content": []}}]).to_string())
    });
    let answer = alice.call("echo", json!({})).await;
    assert_eq!(answer["error"]["code"], -31006, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("batch"), "{answer}");
}
