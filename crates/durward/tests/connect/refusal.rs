//! A stream of what is said unasked that the gateway refuses, for now or for good.

use super::{Client, command};
use http::StatusCode;
use serde_json::json;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use testkit::{Answer, Upstream};
use tokio::time::timeout;

#[tokio::test]
async fn a_stream_that_is_refused_comes_back_once_it_may() {
    let upstream = Upstream::start().await;
    let changed = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    fs::write(&file, "token-one\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let heard = changed.clone();
    upstream.always("GET", move |seen| match seen.header("authorization") {
        Some("Bearer token-two") => Answer::event_text(format!("data: {heard}\n\n")),
        _ => Answer::status(StatusCode::UNAUTHORIZED),
    });
    // What is wrong with a request may be a configuration that is mended.
    for status in [StatusCode::BAD_REQUEST, StatusCode::FORBIDDEN] {
        upstream.next("GET", Answer::status(status));
    }
    let mut command = command(&upstream.url());
    command.arg("--key-file").arg(&file);
    let mut client = Client::run(command);
    client.initialize().await;
    upstream.arrived("GET", 3).await;
    fs::write(&file, "token-two\n").unwrap();
    assert_eq!(client.hear().await, changed);
    let (code, _, talk) = client.end().await;
    assert_eq!(code, Some(0));
    assert_eq!(talk.matches("refuses this agent").count(), 1, "it is told once: {talk}");
}

#[tokio::test]
async fn a_stream_whose_key_is_refused_is_asked_for_again_when_something_speaks_for_it() {
    let upstream = Upstream::start().await;
    let changed = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
    let is_good = Arc::new(AtomicBool::new(false));
    let (heard, good) = (changed.clone(), Arc::clone(&is_good));
    upstream.always("GET", move |_| {
        if good.load(Ordering::SeqCst) {
            Answer::event_text(format!("data: {heard}\n\n"))
        } else {
            Answer::status(StatusCode::UNAUTHORIZED)
        }
    });
    let mut client = Client::legacy(&upstream.url(), Some("dwk_revoked")).await;
    // What the gateway took before says nothing.
    upstream.arrived("GET", 1).await;
    let again = timeout(Duration::from_secs(2), upstream.arrived("GET", 2)).await;
    assert!(again.is_err(), "each of these is a guess to the gateway");
    upstream.next("tools/call", Answer::status(StatusCode::UNAUTHORIZED));
    assert!(client.call(1, json!({})).await.get("error").is_some());
    let again = timeout(Duration::from_secs(1), upstream.arrived("GET", 2)).await;
    assert!(again.is_err(), "a refusal speaks for nothing");
    // The same key counts again, and the client learns it first.
    is_good.store(true, Ordering::SeqCst);
    assert!(client.call(2, json!({})).await.get("result").is_some());
    assert_eq!(client.hear().await, changed);
    assert_eq!(client.end().await.0, Some(0));
}

#[tokio::test]
async fn a_gateway_that_has_no_stream_is_not_asked_again() {
    for status in [StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_FOUND] {
        let upstream = Upstream::start().await;
        upstream.always("GET", move |_| Answer::status(status));
        let mut client = Client::legacy(&upstream.url(), None).await;
        upstream.arrived("GET", 1).await;
        let again = timeout(Duration::from_secs(1), upstream.arrived("GET", 2)).await;
        assert!(again.is_err(), "{status}");
        assert!(client.call(1, json!({})).await.get("result").is_some());
        assert_eq!(upstream.seen("initialize").len(), 1);
        client.end().await;
    }
}
