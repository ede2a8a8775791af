//! What a process says to clients that read too slowly is bounded, and what of it is lost is counted.
#![expect(clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::EraSettings;
use inside::{Inside, Plan};
use serde_json::json;
use std::{sync::atomic::Ordering, time::Duration};
use tempfile::TempDir;
use testkit::{Upstream, soon};

/// So often does it say something in the course of a call: more than all buffers on the way have room for.
const SAID: u64 = 2500;

/// A process that speaks of its progress, or of a resource, and leaves a mark when it has said all.
const CHATTY: &str = r#"
filler=$(printf '%016384d' 0)
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  answer() { echo '{"jsonrpc":"2.0","id":'"$id"',"result":'"$1"'}'; }
  say() {
    n=0
    while [ $n -lt 2500 ]; do
      echo '{"jsonrpc":"2.0","method":"notifications/'"$1"',"progress":'$n',"message":"'"$filler"'"}}'
      n=$((n+1))
    done
    answer '{"content":[]}'; printf x > "$mark"
  }
  case "$line" in
    *'"initialize"'*) answer '{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"resources":{"subscribe":true}},"serverInfo":{"name":"sh","version":"1"}}' ;;
    *'"tools/list"'*) answer '{"tools":[{"name":"work","inputSchema":{"type":"object"}},{"name":"news","inputSchema":{"type":"object"}}]}' ;;
    *'"name":"work"'*) say 'progress","params":{"progressToken":'"$id" ;;
    *'"name":"news"'*) say 'resources/updated","params":{"uri":"file:///a"' ;;
    *'"resources/subscribe"'*) answer '{}' ;;
    *'"id"'*) answer '{"resources":[],"resourceTemplates":[]}' ;;
  esac
done"#;

async fn chatty() -> (Inside, Upstream, TempDir) {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
    let script = format!("mark={}\n{CHATTY}", folder.path().join("mark").display());
    let command = Some(["/bin/sh", "-c", &script].map(str::to_owned).to_vec());
    let inside = Inside::start(Plan { command, era: EraSettings::Legacy, ..Plan::of(&upstream) }).await;
    (inside, upstream, folder)
}

/// Waits until the process has said all.
async fn said(folder: &TempDir) {
    let mut turns = tokio::time::interval(Duration::from_millis(5));
    while !folder.path().join("mark").exists() {
        turns.tick().await;
    }
}

fn lost(inside: &Inside) -> u64 {
    inside.state.line().servers().map(|server| server.state.lost.load(Ordering::Relaxed)).sum()
}

#[tokio::test]
async fn what_a_client_of_a_call_does_not_hear_for_reading_slowly_is_counted() {
    let (inside, _upstream, folder) = chatty().await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let params = json!({"name": "work", "arguments": {}, "_meta": {"progressToken": "mine"}});
    let mut answer = alice.request("tools/call", params).await;
    said(&folder).await;
    let mut heard = 0;
    loop {
        let message = soon(answer.event()).await.unwrap().json();
        if message.get("result").is_some() {
            break;
        }
        assert_eq!(message["params"]["progressToken"], "mine");
        heard += 1;
    }
    assert!(heard < SAID, "all buffers together had room for it");
    assert_eq!(heard + lost(&inside), SAID);
}

#[tokio::test]
async fn what_a_legacy_listener_does_not_hear_for_reading_slowly_is_counted() {
    let (inside, _upstream, folder) = chatty().await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let mut listener = alice.listen().await;
    alice.request("resources/subscribe", json!({"uri": "file:///a"})).await.json().await;
    let answer = alice.call("news", json!({})).await;
    assert!(answer["result"].is_object(), "{answer}");
    said(&folder).await;
    let counted = lost(&inside);
    assert!((1..SAID).contains(&counted), "{counted}");
    for _ in 0..SAID - counted {
        let message = soon(listener.event()).await.unwrap().json();
        assert_eq!(message["params"]["uri"], "file:///a");
    }
}
