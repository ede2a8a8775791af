//! Calls that come just after a process fell: they wait for the next one, and nothing is sent twice.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::EraSettings;
use inside::{Inside, Plan};
use serde_json::json;
use std::{fs, path::Path};
use testkit::{Agent, Upstream, soon};

/// A process of the era `$2` that writes down the tools that are called, and falls when it is told to.
const SCRIPT: &str = r#"
modern='"resultType":"complete","ttlMs":0,"cacheScope":"private"'
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  answer() { echo '{"jsonrpc":"2.0","id":'"$id"',"result":'"$1"'}'; }
  case "$line" in
    *'"initialize"'*) answer '{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}' ;;
    *'"server/discover"'*) answer '{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},'"$modern"'}' ;;
    *'"tools/list"'*) answer '{"tools":[{"name":"echo","inputSchema":{"type":"object"}},{"name":"die","inputSchema":{"type":"object"}}],'"$modern"'}' ;;
    *'"name":"die"'*) echo die >> "$1"; kill -9 $$ ;;
    *'"name":"echo"'*) echo echo >> "$1"; answer '{"content":[],"resultType":"complete"}' ;;
    *'"id"'*) answer '{}' ;;
  esac
done"#;

async fn inside(mark: &Path, era: EraSettings, shared: bool) -> Inside {
    let upstream = Upstream::start().await;
    let command = ["/bin/sh", "-c", SCRIPT, "server", &mark.to_string_lossy()].map(str::to_owned).to_vec();
    Inside::start(Plan { command: Some(command), era, shared, ..Plan::of(&upstream) }).await
}

/// Lets the process fall, and calls it at once, again and again.
async fn falls(agent: &Agent, prefix: &str, mark: &Path, from: &str) {
    let _ = fs::remove_file(mark);
    let mut called = String::new();
    for _ in 0..3 {
        let answer = soon(agent.call(&format!("{prefix}die"), json!({}))).await;
        assert_eq!(answer["error"]["code"], -31006, "{from}: {answer}");
        let answer = soon(agent.call(&format!("{prefix}echo"), json!({}))).await;
        assert!(answer["result"].is_object(), "{from}: {answer}");
        called.push_str("die\necho\n");
    }
    assert_eq!(fs::read_to_string(mark).unwrap(), called, "{from}");
}

#[tokio::test]
async fn a_call_just_after_a_process_fell_waits_for_the_next_one_and_is_sent_once() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    for era in [EraSettings::Legacy, EraSettings::Modern] {
        for shared in [false, true] {
            let inside = inside(&mark, era, shared).await;
            for (door, prefix) in [("/mcp/files", ""), ("/mcp", "files__")] {
                let from = format!("{era:?}, shared: {shared}, {door}");
                falls(&inside.legacy(door, &inside.alice).await, prefix, &mark, &from).await;
                falls(&inside.modern(door, &inside.alice), prefix, &mark, &from).await;
            }
        }
    }
}

#[tokio::test]
async fn a_process_that_starts_only_later_is_not_waited_for() {
    let upstream = Upstream::start().await;
    let command = Some(["/bin/sh", "-c", "exit 1"].map(str::to_owned).to_vec());
    let inside = Inside::start(Plan { command, era: EraSettings::Modern, ..Plan::of(&upstream) }).await;
    let agent = inside.modern("/mcp/files", &inside.alice);
    // Of no tool: nothing has to be known of it.
    let mut answers = Vec::new();
    for _ in 0..10 {
        let answer = soon(agent.request("x/work", json!({}))).await.json().await;
        answers.push(answer["error"]["message"].as_str().unwrap_or_default().to_owned());
    }
    let refused = answers.iter().filter(|answer| answer.contains("cannot be reached")).count();
    assert!(refused > 0, "{answers:?}");
}
