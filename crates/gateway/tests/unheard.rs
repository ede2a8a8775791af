//! Questions of servers that nobody is there to answer, or that too many came after: the server is told, and the log has it.
#![expect(clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use audit::Tree;
use gateway::settings::EraSettings;
use inside::{Inside, Plan};
use serde_json::{Value, json};
use testkit::{Agent, Answer, Feed, Received, Reply, Upstream, soon};

/// The records of questions that nobody heard.
async fn unheard(inside: &Inside) -> Vec<Value> {
    inside.state.sweep();
    let leaves = inside.leaves(&Tree::System).await;
    leaves.into_iter().map(|(_, record)| record).filter(|record| record["event"] == "unheard").collect()
}

async fn ask(feed: &Feed, id: u64) {
    feed.message(&json!({"jsonrpc": "2.0", "id": id, "method": "roots/list"})).await;
}

/// A listening stream of a modern client before a legacy server, and where that server speaks.
async fn listening(upstream: &Upstream, alice: &Agent) -> (Reply, Feed) {
    alice.tools().await;
    let (events, feed) = Answer::events();
    upstream.next("GET", events);
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let mut listener = alice.request("subscriptions/listen", wanted).await;
    soon(listener.event()).await.unwrap();
    upstream.arrived("GET", 1).await;
    (listener, feed)
}

#[tokio::test]
async fn what_is_asked_of_nobody_is_answered_and_recorded_together() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan { era: EraSettings::Legacy, ..Plan::of(&upstream) }).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    let (_listener, feed) = listening(&upstream, &alice).await;
    for id in 1..=3 {
        ask(&feed, id).await;
        let no = upstream.arrived("response", usize::try_from(id).unwrap()).await.json();
        assert_eq!((&no["id"], &no["error"]["code"]), (&json!(id), &json!(-32601)), "{no}");
    }
    feed.message(&json!({"jsonrpc": "2.0", "id": 4, "method": "ping"})).await;
    assert_eq!(upstream.arrived("response", 4).await.json()["result"], json!({}), "a ping is no question");
    let records = unheard(&inside).await;
    assert_eq!(records.len(), 1, "a server cannot fill the log: {records:#?}");
    assert_eq!((&records[0]["count"], &records[0]["method"]), (&json!(3), &json!("roots/list")), "{records:#?}");
    assert!(records[0]["detail"].as_str().unwrap().contains("server `files` asked"), "{records:#?}");
    assert_eq!(unheard(&inside).await.len(), 1, "what is recorded is not counted again");
    let long = "__key=".repeat(100);
    feed.message(&json!({"jsonrpc": "2.0", "id": 5, "method": long})).await;
    upstream.arrived("response", 5).await;
    assert_eq!(
        unheard(&inside).await.last().unwrap()["method"],
        "[too long]",
        "nor is a method of any length looked through"
    );
}

/// When the stream on which a server asks begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begins {
    /// Before its client loses the right to hear it.
    Before,
    /// After that: it is let go at once.
    After,
}

#[tokio::test]
async fn a_question_for_whoever_just_lost_the_right_is_answered() {
    for begins in [Begins::Before, Begins::After] {
        // The stream ends by itself within half a second: on a slow machine the question may come too late for it.
        let mut tries = 0;
        while !is_told(begins).await {
            tries += 1;
            assert!(tries < 5, "the server was never told");
        }
    }
}

/// Whether a server that asks whoever just lost the right is told no, and the log has it.
async fn is_told(begins: Begins) -> bool {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan { era: EraSettings::Legacy, ..Plan::of(&upstream) }).await;
    let (events, feed) = Answer::events();
    let (events, begin) = events.held();
    upstream.next("GET", events);
    let alice = inside.legacy("/mcp", &inside.alice).await;
    let mut listener = alice.listen().await;
    upstream.arrived("GET", 1).await;
    let mut begin = Some(begin);
    if begins == Begins::Before {
        begin.take().unwrap().send(()).unwrap();
        feed.message(
            &json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}),
        )
        .await;
        soon(listener.event()).await.unwrap();
    }
    let nothing = json!({"policy": "test", "rules": []});
    inside.swap(Plan { policy: nothing, era: EraSettings::Legacy, ..Plan::of(&upstream) });
    if let Some(begin) = begin {
        begin.send(()).unwrap();
    }
    ask(&feed, 7).await;
    soon(feed.closed()).await;
    let Some(no) = upstream.seen("response").first().map(Received::json) else { return false };
    assert_eq!((no.get("id"), no.pointer("/error/code")), (Some(&json!(7)), Some(&json!(-32601))), "{no}");
    assert_eq!(unheard(&inside).await.len(), 1);
    true
}

#[tokio::test]
async fn the_oldest_of_too_many_questions_is_given_up_and_its_server_told() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let (stream, feed) = Answer::events();
    upstream.next("tools/call", stream);
    let mut reply = alice.request("tools/call", json!({"name": "echo"})).await;
    for id in 0..=256 {
        ask(&feed, id).await;
        assert_eq!(soon(reply.event()).await.unwrap().json()["id"], id);
    }
    let no = upstream.arrived("response", 1).await.json();
    assert_eq!((&no["id"], &no["error"]["code"]), (&json!(0), &json!(-31002)), "{no}");
    let records = unheard(&inside).await;
    assert_eq!((records.len(), &records[0]["method"]), (1, &json!("roots/list")), "{records:#?}");
    let late = alice.ask("", &json!({"jsonrpc": "2.0", "id": 0, "result": {"roots": []}})).send().await;
    assert_eq!(late.status, 400, "it was given up");
    let fine = alice.ask("", &json!({"jsonrpc": "2.0", "id": 1, "result": {"roots": []}})).send().await;
    assert_eq!(fine.status, 202);
}

#[tokio::test]
async fn of_too_many_questions_one_that_was_taken_back_goes_first() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let (stream, feed) = Answer::events();
    upstream.next("tools/call", stream);
    let mut reply = alice.request("tools/call", json!({"name": "echo"})).await;
    for id in 0..256 {
        ask(&feed, id).await;
        assert_eq!(soon(reply.event()).await.unwrap().json()["id"], id);
    }
    feed.message(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}})).await;
    assert_eq!(soon(reply.event()).await.unwrap().json()["params"]["requestId"], 5);
    ask(&feed, 256).await;
    assert_eq!(soon(reply.event()).await.unwrap().json()["id"], 256);
    let oldest = alice.ask("", &json!({"jsonrpc": "2.0", "id": 0, "result": {"roots": []}})).send().await;
    assert_eq!(oldest.status, 202, "it waits still");
    assert_eq!(upstream.arrived("response", 1).await.json()["result"]["roots"], json!([]));
    assert_eq!(unheard(&inside).await.len(), 0, "nobody is told that the other was forgotten");
}
