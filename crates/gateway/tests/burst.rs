//! A process that says much at once is heard whole by whoever reads, and holds up nobody for those who do not.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::EraSettings;
use inside::{Inside, Plan};
use serde_json::{Value, json};
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};
use testkit::{Agent, Reply, Upstream, meta, soon};

/// So often does it speak of its progress: as a whole more than has room while nobody reads.
const SAID: u64 = 2000;

/// A process of either era. `burst` says much and asks something, the answer to which ends the call; `news` says much to
/// whoever listens.
const BURSTING: &str = r#"
filler=$(printf '%0'"$1"'d' 0)
modern='"resultType":"complete","ttlMs":0,"cacheScope":"private"'
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  answer() { echo '{"jsonrpc":"2.0","id":'"$id"',"result":'"$1"'}'; }
  burst() {
    n=0
    while [ $n -lt "$2" ]; do
      echo '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":'"$id"',"progress":'$n',"message":"'"$filler"'"}}'
      n=$((n+1))
    done
  }
  news() {
    n=0
    while [ $n -lt 2000 ]; do
      echo '{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"file:///a","n":'$n',"filler":"'"$filler"'"}}'
      n=$((n+1))
    done
  }
  case "$line" in
    *'"initialize"'*) answer '{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"resources":{"subscribe":true}},"serverInfo":{"name":"sh","version":"1"}}' ;;
    *'"server/discover"'*) answer '{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},'"$modern"'}' ;;
    *'"tools/list"'*) answer '{"tools":[{"name":"burst","inputSchema":{"type":"object"}},{"name":"asks","inputSchema":{"type":"object"}},{"name":"calm","inputSchema":{"type":"object"}},{"name":"news","inputSchema":{"type":"object"}},{"name":"later","inputSchema":{"type":"object"}}],'"$modern"'}' ;;
    *'"name":"burst"'*) burst x 2000; answer '{"content":[],"resultType":"complete"}' ;;
    *'"name":"asks"'*) burst x 2000; called=$id; echo '{"jsonrpc":"2.0","id":"q","method":"roots/list"}' ;;
    *'"name":"calm"'*) answer '{"content":[],"resultType":"complete"}' ;;
    *'"name":"news"'*) news; answer '{"content":[]}' ;;
    *'"name":"later"'*) answer '{"content":[]}'; news ;;
    *'"roots":'*) id=$called; answer '{"content":[],"resultType":"complete"}' ;;
    *'"id"'*) answer '{"resources":[],"resourceTemplates":[]}' ;;
  esac
done"#;

/// Before such a process, of which each message has so many bytes beside what it is.
async fn bursting(filler: u32, era: EraSettings, shared: bool) -> Inside {
    let upstream = Upstream::start().await;
    let command = Some(["/bin/sh", "-c", BURSTING, "server", &filler.to_string()].map(str::to_owned).to_vec());
    Inside::start(Plan { era, command, shared, ..Plan::of(&upstream) }).await
}

async fn call(agent: &Agent, tool: &str) -> Reply {
    let mut of_call = if agent.session().is_some() { json!({}) } else { meta() };
    of_call["progressToken"] = json!("mine");
    agent.request("tools/call", json!({"name": tool, "arguments": {}, "_meta": of_call})).await
}

/// Reads all progress, which comes whole and in order, and gives what follows.
async fn heard(reply: &mut Reply, from: &str) -> Value {
    let mut next = 0;
    loop {
        let message = soon(reply.event()).await.unwrap().json();
        if message["method"] != "notifications/progress" {
            assert_eq!(next, SAID, "{from}: {message}");
            return message;
        }
        assert_eq!(message["params"]["progress"], next, "{from}");
        next += 1;
    }
}

fn lost(inside: &Inside) -> u64 {
    inside.state.line().servers().map(|server| server.state.lost.load(Ordering::Relaxed)).sum()
}

#[tokio::test]
async fn a_burst_of_a_process_reaches_a_client_that_reads_whole_in_either_era() {
    for era in [EraSettings::Legacy, EraSettings::Modern] {
        for filler in [1, 2000] {
            let inside = bursting(filler, era, false).await;
            for agent in [inside.legacy("/mcp/files", &inside.alice).await, inside.modern("/mcp/files", &inside.alice)]
            {
                let from = format!("{era:?}, {filler}");
                let answer = heard(&mut call(&agent, "burst").await, &from).await;
                assert!(answer["result"].is_object(), "{from}: {answer}");
            }
            assert_eq!(lost(&inside), 0);
        }
    }
}

#[tokio::test]
async fn a_question_behind_a_burst_reaches_the_client() {
    let inside = bursting(2000, EraSettings::Legacy, false).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    for _ in 0..3 {
        let mut reply = call(&alice, "asks").await;
        let question = heard(&mut reply, "a question").await;
        assert_eq!((&question["id"], &question["method"]), (&json!("q"), &json!("roots/list")), "{question}");
        alice.ask("", &json!({"jsonrpc": "2.0", "id": "q", "result": {"roots": []}})).send().await;
        let answer = soon(reply.event()).await.unwrap().json();
        assert!(answer["result"].is_object(), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_others_on_its_process_for_a_moment_only() {
    // More than all buffers on the way have room for.
    let inside = bursting(16_384, EraSettings::Legacy, true).await;
    let (alice, bob) =
        (inside.legacy("/mcp/files", &inside.alice).await, inside.legacy("/mcp/files", &inside.bob).await);
    let unread = call(&alice, "burst").await;
    let began = Instant::now();
    let answer = soon(bob.call("calm", json!({}))).await;
    assert!(answer["result"].is_object(), "{answer}");
    let held = began.elapsed();
    assert!(held < Duration::from_secs(5), "{held:?}");
    assert!(lost(&inside) > 0, "all buffers together had room for it");
    drop(unread);
}

/// Listens, and follows the resource that the process speaks of.
async fn listen(agent: &Agent) -> Reply {
    let listener = agent.listen().await;
    let answer = agent.request("resources/subscribe", json!({"uri": "file:///a"})).await.json().await;
    assert!(answer["result"].is_object(), "{answer}");
    listener
}

/// Reads all news, which come whole and in order.
async fn told(listener: &mut Reply, from: &str) {
    for next in 0..SAID {
        let message = soon(listener.event()).await.unwrap().json();
        assert_eq!(
            (&message["method"], &message["params"]["n"]),
            (&json!("notifications/resources/updated"), &json!(next)),
            "{from}"
        );
    }
}

#[tokio::test]
async fn a_burst_of_news_reaches_a_legacy_listener_that_reads_whole_and_in_order() {
    for filler in [1, 2000] {
        let inside = bursting(filler, EraSettings::Legacy, false).await;
        for door in ["/mcp/files", "/mcp"] {
            let alice = inside.legacy(door, &inside.alice).await;
            let (tool, uri) =
                if door == "/mcp" { ("files__news", "durward://files/file:///a") } else { ("news", "file:///a") };
            let mut listener = alice.listen().await;
            alice.request("resources/subscribe", json!({"uri": uri})).await.json().await;
            let (answer, ()) = tokio::join!(alice.call(tool, json!({})), told(&mut listener, door));
            assert!(answer["result"].is_object(), "{answer}");
        }
        assert_eq!(lost(&inside), 0);
    }
}

#[tokio::test]
async fn a_listener_that_does_not_read_holds_up_nobody_for_long_and_costs_no_other_its_news() {
    let inside = bursting(16_384, EraSettings::Legacy, true).await;
    let (alice, bob) =
        (inside.legacy("/mcp/files", &inside.alice).await, inside.legacy("/mcp/files", &inside.bob).await);
    let unread = listen(&bob).await;
    let began = Instant::now();
    // It is answered behind all that is said to one who does not read.
    let answer = soon(alice.call("news", json!({}))).await;
    assert!(answer["result"].is_object(), "{answer}");
    let held = began.elapsed();
    assert!(held < Duration::from_secs(5), "{held:?}");
    let before = lost(&inside);
    assert!(before > 0, "all buffers together had room for it");
    let mut listener = listen(&alice).await;
    let (answer, ()) =
        tokio::join!(alice.call("later", json!({})), told(&mut listener, "beside one who does not read"));
    assert!(answer["result"].is_object(), "{answer}");
    assert!(lost(&inside) > before, "the other reads");
    drop(unread);
}
