//! A server that tells what it was given: nobody reads the gateway's credential, and no setting of detectors is asked.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::{CredentialSettings, EraSettings, Place};
use http::{HeaderName, StatusCode};
use inside::{Inside, Plan};
use serde_json::{Value, json};
use testkit::{Answer, Received, Upstream, meta, soon};
use vocab::{Secret, SecretName};

const HEADER: &str = "canary 5d1f77";
const QUERY: &str = "canary/9e1b04";
const SHORT: &str = "k3y";

/// Three credentials, one of them too short to be hidden. Nothing else is looked for.
async fn started(upstream: &Upstream, era: EraSettings) -> Inside {
    let name = |name: &str| SecretName::new(name).unwrap();
    let credentials = vec![
        CredentialSettings { secret: name("one"), place: Place::Header(HeaderName::from_static("x-key")) },
        CredentialSettings { secret: name("two"), place: Place::Query("key".to_owned()) },
        CredentialSettings { secret: name("three"), place: Place::Query("short".to_owned()) },
    ];
    let inside = Inside::start(Plan { credentials, era, ..Plan::of(upstream) }).await;
    for (secret, value) in [("one", HEADER), ("two", QUERY), ("three", SHORT)] {
        inside.state.vault.set(&name(secret), &Secret::new(value.to_owned()), inside.now()).unwrap();
    }
    inside
}

/// What a server was told.
fn told(received: &Received) -> String {
    format!("{} {:?} {QUERY}", received.path, received.headers)
}

#[track_caller]
fn hidden(text: &str, times: usize) {
    assert!(!text.contains("canary") && !text.contains("9e1b04"), "{text}");
    assert_eq!(text.matches("[redacted:credential]").count(), times, "{text}");
}

/// Where the newest record of a method says that a credential was hidden. It says no more than that.
async fn recorded(inside: &Inside, method: &str) -> Vec<Value> {
    let record = inside.records().await.into_iter().rev().find(|record| record["method"] == method).unwrap();
    let found = record["findings"].as_array().cloned().unwrap_or_default();
    for finding in &found {
        let kind = [&finding["detector"], &finding["kind"], &finding["side"]];
        assert_eq!(kind, [&json!("credential"), &json!("credential"), &json!("result")], "{record}");
    }
    assert!(!record.to_string().contains("canary"), "{record}");
    found.into_iter().map(|finding| finding["pointer"].clone()).collect()
}

#[tokio::test]
async fn a_server_that_tells_its_credential_tells_it_nobody() {
    for era in [EraSettings::Legacy, EraSettings::Modern] {
        let upstream = Upstream::start().await;
        let description = format!("send {HEADER}");
        upstream
            .set_tools(vec![json!({"name": "echo", "description": description, "inputSchema": {"type": "object"}})]);
        upstream.always("tools/call", |request| {
            let content = json!([{"type": "text", "text": told(request)}]);
            Answer::result(&request.id(), &json!({"content": content, "resultType": "complete"}))
        });
        let inside = started(&upstream, era).await;
        for (path, tool) in [("/mcp/files", "echo"), ("/mcp", "files__echo")] {
            for agent in [inside.modern(path, &inside.alice), inside.legacy(path, &inside.alice).await] {
                let text = agent.call(tool, json!({})).await.to_string();
                // In its header, in its address, and as it is.
                hidden(&text, 3);
                assert!(text.contains(SHORT), "{text}");
                let found = recorded(&inside, "tools/call").await;
                assert_eq!(found, vec![json!("/content/0/text"); 3], "{path}");
                hidden(&agent.request("tools/list", json!({})).await.text().await, 1);
                if path == "/mcp/files" {
                    // Nor is a list that comes again known as one that holds nothing.
                    hidden(&agent.request("tools/list", json!({})).await.text().await, 1);
                    assert_eq!(recorded(&inside, "tools/list").await, [json!("/tools/0/description")], "{path}");
                }
            }
        }
        let asked = upstream.seen("tools/call");
        assert!(asked.iter().all(|asked| asked.header("x-key") == Some(HEADER)), "the server had it");
    }
}

#[tokio::test]
async fn a_credential_in_an_error_of_http_is_hidden() {
    let upstream = Upstream::start().await;
    let inside = started(&upstream, EraSettings::Modern).await;
    let call = || inside.call(&inside.alice, "echo", &json!({})).send();
    upstream.next("tools/call", Answer::text(format!("no {HEADER} here")).with_status(StatusCode::BAD_GATEWAY));
    hidden(&call().await.text().await, 1);
    assert_eq!(recorded(&inside, "tools/call").await, [json!("")]);
    let error = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": QUERY, "data": HEADER}});
    upstream.next("tools/call", Answer::json(error.to_string()).with_status(StatusCode::BAD_REQUEST));
    hidden(&call().await.text().await, 2);
    assert_eq!(recorded(&inside, "tools/call").await, [json!("/message"), json!("/data")]);
    // Who was given none tells none.
    upstream.next("tools/call", Answer::text("no").with_status(StatusCode::BAD_GATEWAY));
    call().await.text().await;
    assert_eq!(recorded(&inside, "tools/call").await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_credential_that_a_stream_tells_in_pieces_is_hidden_from_the_second_on() {
    let upstream = Upstream::start().await;
    let inside = started(&upstream, EraSettings::Modern).await;
    let (stream, feed) = Answer::events();
    upstream.next("tools/call", stream);
    let agent = inside.modern("/mcp/files", &inside.alice);
    let mut params = json!({"name": "echo", "arguments": {}, "_meta": meta()});
    params["_meta"]["progressToken"] = json!("t");
    let mut reply = agent.request("tools/call", params).await;
    let asked = upstream.arrived("tools/call", 1).await.json();
    let (head, rest) = HEADER.split_at(9);
    let progress = json!({"progressToken": asked["params"]["_meta"]["progressToken"], "progress": 1, "message": head});
    feed.message(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress})).await;
    feed.raw(format!(": {HEADER}\n\n")).await;
    let result = json!({"content": [{"type": "text", "text": format!("{rest} end")}], "resultType": "complete"});
    feed.message(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": result})).await;
    drop(feed);
    let mut said: Vec<Value> = Vec::new();
    while let Some(event) = soon(reply.event()).await {
        said.push(event.json());
    }
    assert_eq!(said[0]["params"]["message"], head, "{said:?}");
    assert_eq!(said[1]["result"]["content"][0]["text"], "[redacted:credential] end", "{said:?}");
}
