//! What cannot be read, or whose head does not fit, is on record by the name of whoever shows one, and answered like
//! anybody's.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::limit::{Allowance, LimitSettings, Rate};
use http::Method;
use inside::{Inside, Plan, outcome};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use testkit::{Ask, Reply, Upstream};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

/// A call with these arguments, as they stand.
fn calling(arguments: &str) -> String {
    let head = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":"#;
    format!("{head}{arguments}}}}}")
}

/// Requests of every kind that never comes to the line, none of them with a credential; how each is answered, and why.
fn kinds(inside: &Inside) -> Vec<(Ask, u16, &'static str)> {
    let url = inside.url("/mcp/files");
    let post = |body: &str| Ask::post(&url, body.to_owned());
    let deep = calling(&["{\"a\":".repeat(100), "1".to_owned(), "}".repeat(100)].concat());
    vec![
        (post(&calling(r#"{"a":1,"a":2}"#)), 400, "body"),
        (post(&calling(r#"{"a":"\ud800"}"#)), 400, "body"),
        (post(&deep), 400, "body"),
        (post("{"), 400, "body"),
        (post("[]"), 400, "body"),
        (post(&format!("[{PING}]")).header("mcp-protocol-version", "2025-11-25"), 400, "batch"),
        (post(PING).header("origin", "https://evil.example"), 403, "origin"),
        (post(PING).header("host", "evil.example"), 403, "origin"),
        (post(PING).header("origin", "https://a.example").header("origin", "https://b.example"), 400, "header"),
        (post(PING).header("x-long", &"x".repeat(65 << 10)), 431, "head"),
        (post(PING).header("mcp-protocol-version", "2099-01-01"), 400, "header"),
        (inside.call("", "echo", &json!({})).replace("mcp-name", "other"), 400, "header"),
        (inside.call("", "echo", &json!({})).replace("mcp-method", "other"), 400, "header"),
        (post(PING).replace("content-type", "text/plain"), 415, "content-type"),
        (Ask::new(Method::PUT, &url), 405, "method"),
        (Ask::get(&url).header("mcp-protocol-version", testkit::MODERN), 405, "method"),
        (Ask::new(Method::PUT, &inside.url("/sse/files")), 405, "method"),
        (Ask::post(&inside.url("/mcp/files/"), PING), 404, "path"),
        (Ask::get(&inside.url("/sse/")), 404, "path"),
        (Ask::get(&inside.url("/")), 404, "path"),
    ]
}

/// What a client is told, but for the call it is told of, and that call.
async fn told(reply: Reply) -> (u16, Value, String) {
    let (status, call) = (reply.status.as_u16(), reply.header("durward-call-id").unwrap().to_owned());
    let text = reply.text().await.replace(&call, "CALL");
    (status, serde_json::from_str(&text).unwrap(), call)
}

fn by_call(records: Vec<Value>) -> BTreeMap<String, Value> {
    records.into_iter().map(|record| (record["call"].as_str().unwrap().to_owned(), record)).collect()
}

fn unlimited(limits: LimitSettings) -> LimitSettings {
    let rate = Rate { count: 1000, per: Duration::from_secs(1) };
    LimitSettings { failures: Allowance { rate, burst: 1000 }, ..limits }
}

#[tokio::test]
async fn whoever_shows_who_it_is_is_on_record_by_name_though_nobody_can_read_what_it_sends() {
    let upstream = Upstream::start().await;
    let limits = unlimited(LimitSettings::default());
    let inside = Inside::start(Plan { limits, ..Plan::of(&upstream) }).await;
    // Good, but its agent is not registered.
    let (carol, carol_key) = inside.key("carol", None);
    let mut expected = BTreeMap::new();
    for (ask, status, reason) in kinds(&inside) {
        let stranger = told(ask.clone().without("authorization").send().await).await;
        assert_eq!(stranger.0, status, "{reason}: {}", stranger.1);
        expected.insert(stranger.2, (None, status, reason));
        for (key, agent) in [
            ("dwk_no", None),
            (&*inside.alice, Some(("alice", inside.alice_key.to_string()))),
            (&carol, Some(("carol", carol_key.to_string()))),
        ] {
            let answer = told(ask.clone().bearer(key).send().await).await;
            assert_eq!((answer.0, &answer.1), (status, &stranger.1), "who asks changes nothing of the answer");
            expected.insert(answer.2, (agent, status, reason));
        }
    }
    // What is read of callers alone.
    for (ask, status, reason) in [
        (Ask::post(&inside.url("/mcp/files"), "x".repeat(5 << 20)), 413, "too-big"),
        (Ask::post(&inside.url("/messages?sessionId=none"), "{"), 400, "body"),
        (
            Ask::post(&inside.url("/messages?sessionId=none"), PING).replace("content-type", "text/plain"),
            415,
            "content-type",
        ),
    ] {
        let answer = told(ask.bearer(&inside.alice).send().await).await;
        assert_eq!(answer.0, status, "{}", answer.1);
        expected.insert(answer.2, (Some(("alice", inside.alice_key.to_string())), status, reason));
    }

    let (tenant, system) = (by_call(inside.records().await), by_call(inside.strangers().await));
    for (call, (agent, status, reason)) in expected {
        let (record, other) = match agent {
            Some(_) => (tenant.get(&call), system.get(&call)),
            None => (system.get(&call), tenant.get(&call)),
        };
        assert_eq!(other, None, "{agent:?} {reason}");
        let record = record.unwrap_or_else(|| unreachable!("{agent:?} {reason} is not where it belongs"));
        assert_eq!((outcome(record), &record["http_status"]), (format!("refused {reason} receive"), &json!(status)));
        match agent {
            Some((agent, key)) => {
                assert_eq!([&record["agent"], &record["identity"]], [agent, &format!("key:{key}")], "{record:#}");
                let lets_in = !record["error"].as_str().unwrap().contains("not registered");
                assert_eq!(lets_in, agent == "alice", "{record:#}");
            }
            None => assert_eq!((&record["event"], &record["agent"]), (&json!("unread"), &Value::Null)),
        }
    }
}

#[tokio::test]
async fn what_cannot_be_read_counts_as_any_request_of_its_sender() {
    let upstream = Upstream::start().await;
    let rate = Rate { count: 1, per: Duration::from_mins(1) };
    let limits = LimitSettings { attempts: Allowance { rate, burst: 300 }, ..LimitSettings::default() };
    let inside = Inside::start(Plan { limits, ..Plan::of(&upstream) }).await;
    let url = inside.url("/mcp/files");
    let mut calls = Vec::new();
    for number in 0..400 {
        let (status, answer, call) = told(Ask::post(&url, "{").bearer(&inside.alice).send().await).await;
        let code = if number < 300 { -32700 } else { -31002 };
        assert_eq!((status, &answer["error"]["code"]), (400, &json!(code)), "{answer}");
        calls.push(call);
    }
    // What can be read is counted with it, and nobody else is.
    assert_eq!(told(inside.call(&inside.alice, "echo", &json!({})).send().await).await.1["error"]["code"], -31002);
    assert!(told(inside.call(&inside.bob, "echo", &json!({})).send().await).await.1["result"].is_object());
    let records = by_call(inside.records().await);
    for (number, call) in calls.iter().enumerate() {
        let record = &records[call];
        let expected = if number < 300 { "refused body receive" } else { "refused rate limit" };
        assert_eq!((outcome(record).as_str(), &record["agent"]), (expected, &json!("alice")));
    }
}

#[tokio::test]
async fn a_wrong_credential_is_one_failure_whatever_it_comes_with() {
    let upstream = Upstream::start().await;
    let rate = Rate { count: 1, per: Duration::from_mins(1) };
    let limits = LimitSettings { failures: Allowance { rate, burst: 3 }, ..LimitSettings::default() };
    let inside = Inside::start(Plan { limits, ..Plan::of(&upstream) }).await;
    let post = |body: &'static str| Ask::post(&inside.url("/mcp/files"), body).bearer("dwk_no");
    assert_eq!(post("{").send().await.status, 400);
    // The list of what the door speaks is another reason to look who asks.
    assert_eq!(post(PING).header("mcp-protocol-version", "2099-01-01").send().await.status, 400);
    assert_eq!(post(PING).send().await.status, 401);
    assert_eq!(post(PING).send().await.status, 429);
    // Nothing is said of that where it was not asked.
    assert_eq!(post("{").send().await.status, 400);
    assert_eq!(post("{").bearer(&inside.alice).send().await.status, 400);
    assert_eq!(outcome(inside.records().await.last().unwrap()), "refused body receive");
}

#[tokio::test]
async fn who_is_let_in_without_a_credential_shows_no_name_by_what_cannot_be_read() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan { anonymous: Some("bob"), ..Plan::of(&upstream) }).await;
    assert_eq!(Ask::post(&inside.url("/mcp/files"), "{").send().await.status, 400);
    assert_eq!(inside.records().await.len(), 0);
    assert_eq!(inside.strangers().await.pop().unwrap()["event"], "unread");
    // What can be read is its agent's, as ever.
    let call = inside.call("", "echo", &json!({})).without("authorization");
    assert_eq!(call.replace("mcp-name", "other").send().await.status, 400);
    let record = inside.records().await.pop().unwrap();
    assert_eq!([&record["agent"], &record["identity"], &record["method"]], ["bob", "anonymous", "tools/call"]);
}
