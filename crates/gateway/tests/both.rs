//! A server that speaks both eras, and offers something else in each: whoever speaks to it in one is held to what it offers there.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::{
    server::Server,
    settings::{CredentialSettings, EraSettings, Place},
};
use inside::{Inside, Plan};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use testkit::{Agent, Answer, Received, Reply, Upstream, soon};
use vocab::{Secret, SecretName};

fn is_modern(received: &Received) -> bool {
    received.header("mcp-protocol-version") == Some("2026-07-28")
}

/// Answers with one result in the legacy era and with the other in the modern one.
fn answers(upstream: &Upstream, method: &str, legacy: Value, modern: Value) {
    upstream.always(method, move |received| {
        let mut result = if is_modern(received) { modern.clone() } else { legacy.clone() };
        if is_modern(received) {
            for (name, value) in [("resultType", "complete"), ("cacheScope", "private")] {
                result[name] = json!(value);
            }
            result["ttlMs"] = json!(0);
        }
        Answer::result(&received.id(), &result)
    });
}

fn tool(name: &str) -> Value {
    json!({"name": name, "inputSchema": {"type": "object"}})
}

/// The tools of the modern era.
fn new_tools() -> Value {
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
    json!({"tools": [{"name": "shared", "inputSchema": schema}, tool("new")]})
}

/// In the legacy era it has tasks, prompts, a tool more, and another one that needs less.
async fn two_faced() -> Upstream {
    let upstream = Upstream::start().await;
    answers(&upstream, "tools/list", json!({"tools": [tool("shared"), tool("old")]}), new_tools());
    answers(&upstream, "prompts/list", json!({"prompts": [{"name": "greet"}]}), json!({"prompts": []}));
    answers(
        &upstream,
        "server/discover",
        json!({}),
        json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}, "prompts": {}}, "instructions": "new words"}),
    );
    upstream.always("initialize", |received| {
        let capabilities = json!({
            "tools": {}, "prompts": {}, "logging": {}, "completions": {}, "resources": {"subscribe": true},
            "tasks": {"list": {}, "requests": {"tools": {"call": {}}}},
        });
        let result = json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "instructions": "old words",
            "serverInfo": {"name": "s", "version": "1"}});
        Answer::result(&received.id(), &result).header("mcp-session-id", "theirs")
    });
    upstream
}

fn server(inside: &Inside) -> Arc<Server> {
    inside.state.line().servers().next().cloned().unwrap()
}

async fn look(inside: &Inside) {
    inside.state.line().look(&server(inside)).await;
}

async fn before(upstream: &Upstream, probed: bool) -> Inside {
    let inside = Inside::start(Plan { probed, ..Plan::of(upstream) }).await;
    look(&inside).await;
    inside
}

async fn next(heard: &mut Reply) -> String {
    soon(heard.event()).await.unwrap().json()["method"].as_str().unwrap_or_default().to_owned()
}

/// What comes of a call: the arguments that arrived, or the code of the error.
async fn called(agent: &Agent, tool: &str, arguments: Value) -> Result<String, i64> {
    let answer = agent.call(tool, arguments).await;
    match answer["result"]["content"][0]["text"].as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(answer["error"]["code"].as_i64().unwrap()),
    }
}

#[tokio::test]
async fn calls_are_held_to_the_definitions_of_the_era_that_the_server_is_spoken_to_in() {
    let upstream = two_faced().await;
    for probed in [true, false] {
        let inside = before(&upstream, probed).await;
        for (door, at) in [("/mcp/files", ""), ("/mcp", "files__")] {
            let (legacy, modern) = (inside.legacy(door, &inside.alice).await, inside.modern(door, &inside.alice));
            let named = |name: &str| format!("{at}{name}");
            assert_eq!(legacy.tools().await, [named("shared"), named("old")]);
            assert_eq!(modern.tools().await, [named("shared"), named("new")]);
            for (agent, tool, arguments, expected) in [
                (&legacy, "shared", json!({}), Ok("{}")),
                (&legacy, "old", json!({}), Ok("{}")),
                (&legacy, "new", json!({}), Err(-32602)),
                (&modern, "shared", json!({"a": 1}), Ok(r#"{"a":1}"#)),
                (&modern, "shared", json!({}), Err(-32602)),
                (&modern, "new", json!({}), Ok("{}")),
                (&modern, "old", json!({}), Err(-32602)),
            ] {
                let what = called(agent, &named(tool), arguments).await;
                assert_eq!(what.as_deref().map_err(|code| *code), expected, "{door} {probed} {tool}");
            }
        }
    }
}

#[tokio::test]
async fn the_aggregate_says_in_each_era_what_its_servers_can_there() {
    let upstream = two_faced().await;
    let inside = before(&upstream, true).await;
    let hello =
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}});
    let legacy = inside.legacy("/mcp", &inside.alice).await;
    let said = legacy.request("initialize", hello).await.json().await["result"].take();
    let can = &said["capabilities"];
    for name in ["tools", "prompts", "logging", "completions", "tasks"] {
        assert!(can[name].is_object(), "{name} {said}");
    }
    assert_eq!(can["resources"]["subscribe"], true, "{said}");
    assert!(said["instructions"].as_str().unwrap().contains("old words"), "{said}");
    let modern = inside.modern("/mcp", &inside.alice);
    let said = modern.request("server/discover", json!({})).await.json().await["result"].take();
    for name in ["resources", "logging", "completions", "tasks"] {
        assert!(said["capabilities"].get(name).is_none(), "{name} {said}");
    }
    assert!(said["instructions"].as_str().unwrap().contains("new words"), "{said}");
}

#[tokio::test]
async fn what_changes_in_one_era_is_told_there() {
    let upstream = two_faced().await;
    let inside = before(&upstream, true).await;
    let (legacy, modern) = (inside.legacy("/mcp", &inside.alice).await, inside.modern("/mcp", &inside.alice));
    let mut heard = legacy.listen().await;
    let wanted = json!({"notifications": {"toolsListChanged": true, "promptsListChanged": true}});
    let mut heard_in_modern = modern.request("subscriptions/listen", wanted).await;
    assert_eq!(next(&mut heard_in_modern).await, "notifications/subscriptions/acknowledged");
    answers(&upstream, "tools/list", json!({"tools": [tool("older")]}), new_tools());
    look(&inside).await;
    assert_eq!(next(&mut heard).await, "notifications/tools/list_changed");
    assert_eq!(legacy.tools().await, ["files__older"]);
    // Nor is anybody told there what changed in the other.
    answers(&upstream, "prompts/list", json!({"prompts": [{"name": "greet"}]}), json!({"prompts": [{"name": "hail"}]}));
    look(&inside).await;
    assert_eq!(next(&mut heard_in_modern).await, "notifications/prompts/list_changed");
}

#[tokio::test]
async fn a_server_that_cannot_list_in_the_legacy_era_is_held_to_what_it_lists_in_the_modern_one() {
    let upstream = two_faced().await;
    let broken = |received: &Received| {
        let result = if is_modern(received) {
            json!({"tools": [{"name": "new", "inputSchema": {"type": "object"}}], "resultType": "complete", "ttlMs": 0, "cacheScope": "private"})
        } else {
            json!({"tools": 7})
        };
        Answer::result(&received.id(), &result)
    };
    upstream.always("tools/list", broken);
    let inside = before(&upstream, true).await;
    let (legacy, modern) =
        (inside.legacy("/mcp/files", &inside.alice).await, inside.modern("/mcp/files", &inside.alice));
    assert_eq!(called(&modern, "new", json!({})).await.as_deref(), Ok("{}"));
    assert_eq!(called(&legacy, "new", json!({})).await.as_deref(), Ok("{}"));
    assert!(server(&inside).state.fault.load().is_none());
}

#[tokio::test]
async fn an_era_that_cannot_be_asked_in_now_keeps_what_it_offered() {
    for (method, probed) in [("server/discover", true), ("initialize", true), ("server/discover", false)] {
        let upstream = two_faced().await;
        let inside = before(&upstream, probed).await;
        let (legacy, modern) = (inside.legacy("/mcp", &inside.alice).await, inside.modern("/mcp", &inside.alice));
        // Its session at the server is there.
        assert_eq!(called(&legacy, "files__old", json!({})).await.as_deref(), Ok("{}"), "{method}");
        upstream.always(method, |_| Answer::status(http::StatusCode::SERVICE_UNAVAILABLE));
        inside.clock.advance(Duration::from_secs(10));
        look(&inside).await;
        assert!(server(&inside).state.fault.load().is_none(), "{method}");
        let what = called(&modern, "files__shared", json!({})).await;
        assert_eq!(what, Err(-32602), "{method}: held to the modern schema");
        assert_eq!(called(&modern, "files__new", json!({})).await.as_deref(), Ok("{}"), "{method}");
        assert_eq!(called(&legacy, "files__old", json!({})).await.as_deref(), Ok("{}"), "{method}");
    }
}

#[tokio::test]
async fn who_is_said_to_speak_both_and_was_never_seen_to_is_not_held_to_the_other_era() {
    let upstream = two_faced().await;
    upstream.always("server/discover", |_| Answer::status(http::StatusCode::SERVICE_UNAVAILABLE));
    let inside = before(&upstream, false).await;
    let modern = inside.modern("/mcp/files", &inside.alice);
    assert!(called(&modern, "shared", json!({})).await.is_err());
    assert!(upstream.seen("tools/call").is_empty());
}

#[tokio::test]
async fn a_look_ends_the_session_that_it_opened() {
    let upstream = two_faced().await;
    before(&upstream, true).await;
    let ended = upstream.arrived("DELETE", 1).await;
    assert_eq!(ended.header("mcp-session-id"), Some("theirs"));
}

#[tokio::test]
async fn a_reload_that_says_another_era_has_the_server_looked_at() {
    let upstream = two_faced().await;
    let plan = |era| Plan { era, ..Plan::of(&upstream) };
    let inside = Inside::start(plan(EraSettings::Legacy)).await;
    look(&inside).await;
    assert!(server(&inside).state.catalog.load().as_ref().unwrap().tool("new").is_none());
    inside.swap(plan(EraSettings::Both));
    let mut turns = tokio::time::interval(Duration::from_millis(5));
    soon(async {
        while server(&inside).state.catalog.load().as_ref().unwrap().tool("new").is_none() {
            turns.tick().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_offered_to_another_credential_does_not_count_on() {
    let upstream = two_faced().await;
    let inside = before(&upstream, false).await;
    let legacy = inside.legacy("/mcp/files", &inside.alice).await;
    assert_eq!(called(&legacy, "old", json!({})).await.as_deref(), Ok("{}"));
    // With the new one it cannot list in the legacy era.
    upstream.always("tools/list", |received| {
        let mut result = if is_modern(received) { new_tools() } else { json!({"tools": 7}) };
        result["resultType"] = json!("complete");
        result["ttlMs"] = json!(0);
        result["cacheScope"] = json!("private");
        Answer::result(&received.id(), &result)
    });
    let secret = SecretName::new("token").unwrap();
    inside.state.vault.set(&secret, &Secret::new("value".to_owned()), inside.now()).unwrap();
    let credentials = vec![CredentialSettings { secret, place: Place::Bearer }];
    inside.swap(Plan { credentials, probed: false, ..Plan::of(&upstream) });
    let mut turns = tokio::time::interval(Duration::from_millis(5));
    soon(async {
        while server(&inside).state.catalog.load().as_ref().unwrap().tool("old").is_some() {
            turns.tick().await;
        }
    })
    .await;
}
