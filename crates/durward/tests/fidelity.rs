//! `/mcp/{server}` changes nothing: bodies, events, statuses and headers arrive as they were sent.

mod world;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use testkit::{Agent, Answer, Ask, Upstream, soon};
use world::{ALL, World, http};

/// What decoders like to lose: annotations, icons, `_meta`, vendor keys, big and odd numbers, order, escapes, blanks.
const ODD: &str = r#"{ "zebra":1,"content":[{"type":"text","text":"caf\u00e9 \u2028 \/ \ud83d\ude00","annotations":{"audience":["user"],"priority":1.0}}],
 "structuredContent":{"big":12345678901234567890123,"one":1,"one_point":1.0,"exp":1e2,"neg":-0,"deep":[[[{}]]],"null":null},
 "_meta":{"vendor.example/x":{"b":1,"a":2}},"execution":{"taskSupport":"optional"},"icons":[{"src":"data:,","sizes":["any"]}],"title":"T","apple" : false }"#;

/// The requests of one call as the upstream saw them: those that carry our call id, not the gateway's own.
fn relayed(upstream: &Upstream, name: &str) -> Vec<testkit::Received> {
    upstream.seen(name).into_iter().filter(|request| request.header("durward-call-id").is_some()).collect()
}

async fn one() -> (Upstream, World) {
    let upstream = Upstream::start().await;
    let world = World::start(&http("files", &upstream)).await;
    (upstream, world)
}

#[tokio::test]
async fn bodies_arrive_byte_for_byte_in_both_directions() {
    let (upstream, world) = one().await;
    for id in ["7", "\"7\"", "\"\\u0061 b\"", "9007199254740993", "0", "-3"] {
        let answer = format!("{{\"jsonrpc\":\"2.0\",\"result\":{ODD},\"id\":{id}}}");
        upstream.next("tools/call", Answer::json(answer.clone()));
        let body = format!(
            "{{\"params\": {{\"arguments\":{ODD}, \"name\":\"echo\",\"x-vendor\":[1.0,1,1e0]}},\n\t\"id\":{id}, \"method\":\"tools/call\",\"jsonrpc\":\"2.0\",\"extra\":null}}"
        );
        let agent = world.legacy("/mcp/files").await;
        let ask = world.post("/mcp/files", &body).header("mcp-session-id", agent.session().unwrap());
        let reply = ask.send().await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.text().await, answer);
        assert_eq!(relayed(&upstream, "tools/call").last().unwrap().body, body.as_bytes());
    }
}

#[tokio::test]
async fn unknown_methods_and_notifications_pass_where_policy_lets_them() {
    let (upstream, world) = one().await;
    let agent = world.legacy("/mcp/files").await;
    let session = agent.session().unwrap().to_owned();
    let raw = r#"{"jsonrpc":"2.0","id":1,"result":{"v" : 1.0}}"#;
    upstream.next("vendor/thing", Answer::json(raw));
    let ask = r#"{"jsonrpc":"2.0","id":1,"method":"vendor/thing","params":{"deep":{"a":[1.0]}}}"#;
    let reply = world.post("/mcp/files", ask).header("mcp-session-id", &session).send().await;
    assert_eq!(reply.text().await, raw);
    let note = r#"{"jsonrpc":"2.0","method":"notifications/vendor","params":{"b":1,"a":2}}"#;
    let reply = world.post("/mcp/files", note).header("mcp-session-id", &session).send().await;
    assert_eq!(reply.status, 202);
    assert!(reply.header("content-type").is_none());
    assert!(reply.bytes().await.is_empty());
    assert_eq!(relayed(&upstream, "notifications/vendor")[0].body, note.as_bytes());
}
