//! The fakes do what they say.

use crate::{Agent, Answer, Ask, Issuer, Kind, Streamer, Upstream, schema, soon};
use http::StatusCode;
use serde_json::json;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[tokio::test]
async fn honest_upstream_serves_both_eras() {
    let upstream = Upstream::with_tools(["read", "erase"]).await;
    let legacy = Agent::legacy(&upstream.url(), None).await;
    let modern = Agent::modern(&upstream.url(), None);

    assert_eq!(legacy.tools().await, ["read", "erase"]);
    assert_eq!(modern.tools().await, ["read", "erase"]);
    assert_eq!(modern.call("read", json!({"a": 1})).await["result"]["content"][0]["text"], r#"{"a":1}"#);
    let call = upstream.seen("tools/call").remove(0);
    assert_eq!(call.header("mcp-name"), Some("read"));
    assert_eq!(upstream.received(), 5);
}

#[tokio::test]
async fn stream_arrives_as_the_test_feeds_it() {
    let upstream = Upstream::start().await;
    let (answer, feed) = Answer::events();
    upstream.next("tools/call", answer);
    let agent = Agent::modern(&upstream.url(), None);

    let mut reply = agent.request("tools/call", json!({"name": "echo"})).await;
    feed.raw("id: 7\ndata: {\"a\":1}\n\n: idle\n\ndata: {\"b\":").await;
    let event = soon(reply.event()).await.expect("an event");
    assert_eq!((event.id.as_deref(), event.json()), (Some("7"), json!({"a": 1})));
    feed.raw("2}\n\n").await;
    // What follows the first event must not be lost with it.
    let rest = soon(reply.event()).await.expect("an event");
    assert_eq!(rest.json(), json!({"b": 2}));
    drop(feed);
    assert_eq!(soon(reply.event()).await, None);
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed() {
    let upstream = Upstream::start().await;
    let (answer, feed) = Answer::events();
    upstream.next("tools/call", answer).next("ping", Answer::hang());
    let agent = Agent::modern(&upstream.url(), None);

    let reply = agent.request("tools/call", json!({"name": "echo"})).await;
    drop(reply);
    soon(feed.closed()).await;
    upstream.abandoned(1).await;

    let waiting = tokio::spawn(async move { agent.request("ping", json!({})).await });
    upstream.arrived("ping", 1).await;
    waiting.abort();
    upstream.abandoned(2).await;
}

#[tokio::test]
async fn a_cut_body_is_not_a_whole_one() {
    let upstream = Upstream::start().await;
    upstream.next("ping", Answer::cut_off("{\"jsonrpc\"").with_status(StatusCode::OK));

    let mut reply = Ask::post(&upstream.url(), r#"{"id":1,"method":"ping"}"#).send().await;
    assert_eq!(reply.chunk().await.as_deref(), Some(&b"{\"jsonrpc\""[..]));
    assert_eq!(reply.chunk().await, None);
}

#[tokio::test]
async fn issuer_publishes_the_key_it_signs_with() {
    for kind in [Kind::Ed25519, Kind::P256, Kind::Rsa] {
        let mut issuer = Issuer::start(kind).await;
        issuer.rotate(kind, "key-2", false);

        let keys = Ask::get(&issuer.jwks_url()).send().await.json().await;
        assert_eq!(keys["keys"], json!([issuer.key().jwk()]));
        assert_eq!(keys["keys"][0]["kid"], "key-2");
        assert_eq!(issuer.token(json!({"sub": "a"})).split('.').count(), 3);
    }
}

/// What the end of a judge says.
fn sentence(judge: schema::Judge) -> String {
    let ended = catch_unwind(AssertUnwindSafe(move || drop(judge)));
    ended.err().and_then(|said| said.downcast::<String>().ok()).map(|said| *said).unwrap_or_default()
}

#[tokio::test]
async fn what_anybody_is_told_is_held_against_its_revision() {
    let upstream = Upstream::start().await;
    let modern = Agent::modern(&upstream.url(), None);
    let judge = schema::judge();
    assert!(modern.call("echo", json!({})).await.get("result").is_some());
    assert_eq!(sentence(judge), "", "honest messages are valid");

    let judge = schema::judge();
    upstream.next("tools/call", Answer::result(&json!(2), &json!({"content": []})));
    drop(modern.call("echo", json!({})).await);
    assert!(sentence(judge).contains("a client of 2026-07-28 was told"));

    let judge = schema::judge();
    drop(modern.request("tools/call", json!({"arguments": {}})).await.json().await);
    assert!(sentence(judge).contains("a server of 2026-07-28 was told"));
}

#[test]
fn tasks_and_what_belongs_to_them_are_held_against_the_revisions_that_have_them() {
    let request = |method: &str, params: serde_json::Value| json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let word = |method: &str, params: serde_json::Value| json!({"jsonrpc": "2.0", "method": method, "params": params});
    let answer = |result: serde_json::Value| json!({"jsonrpc": "2.0", "id": 1, "result": result});
    let at = "2026-01-01T00:00:00Z";
    let task = json!({"taskId": "t", "status": "working", "createdAt": at, "lastUpdatedAt": at, "ttl": null});
    let is_valid = |revision: &str, message: &serde_json::Value, answers: Option<&str>| {
        schema::faults(revision, message, answers).is_empty()
    };
    for (right, wrong, answers) in [
        (request("tasks/get", json!({"taskId": "t"})), request("tasks/get", json!({})), None),
        (request("tasks/result", json!({"taskId": "t"})), request("tasks/result", json!({"taskId": 1})), None),
        (request("tasks/cancel", json!({"taskId": "t"})), request("tasks/cancel", json!({"id": "t"})), None),
        (answer(task.clone()), answer(json!({"taskId": "t"})), Some("tasks/get")),
        (answer(json!({"tasks": [task]})), answer(json!({"tasks": task})), Some("tasks/list")),
        (word("notifications/tasks/status", task.clone()), word("notifications/tasks/status", json!({})), None),
        (
            word("notifications/elicitation/complete", json!({"elicitationId": "e"})),
            word("notifications/elicitation/complete", json!({})),
            None,
        ),
    ] {
        assert!(is_valid("2025-11-25", &right, answers), "{right}");
        assert!(!is_valid("2025-11-25", &wrong, answers), "{wrong}");
        assert!(!is_valid("2025-06-18", &right, answers), "not a word of it: {right}");
    }
    // An extension of 2026-07-28, which no schema describes; what was taken out is not said any more.
    assert!(is_valid("2026-07-28", &request("tasks/get", json!({"taskId": "t"})), None));
    assert!(!is_valid("2026-07-28", &request("tasks/list", json!({})), None));
    assert!(!is_valid("2026-07-28", &word("notifications/elicitation/complete", json!({"elicitationId": "e"})), None));
}

#[tokio::test]
async fn in_the_era_of_2024_it_is_held_against_what_was_agreed() {
    let upstream = Upstream::start().await;
    let (stream, feed) = Answer::events();
    upstream.speaks("2024-11-05").next("GET", stream);
    upstream.always("tools/list", |_| Answer::status(StatusCode::ACCEPTED));
    feed.raw("event: endpoint\ndata: /mcp\n\n").await;
    let mut client = soon(Streamer::open(&upstream.url(), None)).await;

    let judge = schema::judge();
    let id = client.send("tools/list", json!({})).await;
    feed.message(&json!({"jsonrpc": "2.0", "id": id, "result": {"prompts": []}})).await;
    drop(client.message().await);
    let said = sentence(judge);
    assert!(said.contains("a client of 2024-11-05 was told") && said.contains("ListToolsResult"), "{said}");

    let judge = schema::judge();
    client.send("tools/list", json!({"cursor": 1})).await;
    let said = sentence(judge);
    assert!(said.contains("a server of 2024-11-05 was told"), "{said}");
}

#[test]
fn what_a_server_is_told_in_lines_is_held_against_what_was_named_last() {
    let call = |params: serde_json::Value| json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let right = call(json!({"name": "echo", "_meta": crate::meta()})).to_string();
    let answer = json!({"jsonrpc": "2.0", "id": "q", "error": {"code": 1, "message": "no"}}).to_string();
    let told = |lines: &[&str]| {
        let (judge, mut told) = (schema::judge(), schema::Told::default());
        for line in lines {
            told.line(line);
        }
        sentence(judge)
    };
    assert_eq!(told(&[&right, &answer]), "");
    let wrong = told(&[&right, &call(json!({"arguments": {}})).to_string()]);
    assert!(wrong.contains("a server of 2026-07-28 was told"), "{wrong}");
    for none in ["no message", "[]", &answer] {
        assert!(told(&[none]).contains("what is no message, or of no revision"), "{none}");
    }
}

#[tokio::test]
async fn a_test_may_say_that_its_messages_are_wrong_on_purpose() {
    schema::overlook("this one wants to see that nothing is said of it");
    let judge = schema::judge();
    let upstream = Upstream::start().await;
    upstream.next("tools/call", Answer::result(&json!(1), &json!({"content": "none"})));
    drop(Agent::modern(&upstream.url(), None).call("echo", json!({})).await);
    assert_eq!(sentence(judge), "");
}
