//! The deadline of a server that says nothing holds on a stream that the gateway began for it, and leaves people their time.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::{Bounds, EraSettings};
use inside::{Inside, Plan};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use testkit::{Agent, Reply, Upstream, meta};

/// Longer than a process is waited for before its answer becomes a stream, and shorter than any silence of a stream.
const DEADLINE: Duration = Duration::from_secs(8);
const SOON: Duration = Duration::from_secs(40);

/// A process of either era: says nothing, or a word, or asks. What it holds back it answers with the next `end`.
const SLOW: &str = r#"
asking=0; held=0
done='{"content":[],"resultType":"complete"}'
form='{"message":"Who?","requestedSchema":{"type":"object","properties":{"name":{"type":"string"}}}}'
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  answer() { echo '{"jsonrpc":"2.0","id":'"$1"',"result":'"$2"'}'; }
  case "$line" in
    *'"id":"q"'*) answer "$asking" "$done"; [ "$held" = 0 ] || answer "$held" "$done" ;;
    *'"inputResponses"'*) answer "$id" "$done" ;;
    *'"initialize"'*) [ "$era" = old ] && answer "$id" '{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}' ;;
    *'"server/discover"'*) answer "$id" '{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"ttlMs":0,"cacheScope":"private","resultType":"complete"}' ;;
    *'"tools/list"'*) answer "$id" '{"tools":[{"name":"silent","inputSchema":{"type":"object"}},{"name":"word","inputSchema":{"type":"object"}},{"name":"asks","inputSchema":{"type":"object"}},{"name":"end","inputSchema":{"type":"object"}}],"ttlMs":0,"cacheScope":"private","resultType":"complete"}' ;;
    *'"name":"silent"'*) held=$id ;;
    *'"name":"word"'*) held=$id; echo '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":'"$id"',"progress":1}}' ;;
    *'"name":"asks"'*) asking=$id
      if [ "$era" = old ]; then echo '{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":'"$form"'}'
      else answer "$id" '{"resultType":"input_required","inputRequests":{"q":{"method":"elicitation/create","params":'"$form"'}}}'; fi ;;
    *'"name":"end"'*) answer "$held" "$done"; answer "$id" "$done" ;;
    *'"id"'*) echo '{"jsonrpc":"2.0","id":'"$id"',"error":{"code":-32601,"message":"no"}}' ;;
  esac
done"#;

async fn inside(era: EraSettings) -> (Inside, Upstream) {
    let upstream = Upstream::start().await;
    let script = format!("era={}\n{SLOW}", if era == EraSettings::Legacy { "old" } else { "new" });
    let command = Some(["/bin/sh", "-c", &script].map(str::to_owned).to_vec());
    let bounds = Bounds { deadline: DEADLINE, ..Plan::of(&upstream).bounds };
    let inside = Inside::start(Plan { bounds, era, command, ..Plan::of(&upstream) }).await;
    (inside, upstream)
}

/// Alice and bob, of either era.
async fn clients(inside: &Inside, modern: bool) -> [Agent; 2] {
    if modern {
        return [inside.modern("/mcp/files", &inside.alice), inside.modern("/mcp/files", &inside.bob)];
    }
    [inside.legacy("/mcp/files", &inside.alice).await, inside.legacy("/mcp/files", &inside.bob).await]
}

async fn begun(agent: &Agent, tool: &str) -> Reply {
    let mut own = if agent.session().is_some() { json!({}) } else { meta() };
    own["progressToken"] = "mine".into();
    agent.request("tools/call", json!({"name": tool, "arguments": {}, "_meta": own})).await
}

/// A call of a server that says nothing, to its end.
async fn silent(agent: &Agent) -> Duration {
    let began = Instant::now();
    let answer = tokio::time::timeout(SOON, async { begun(agent, "silent").await.json().await });
    let answer = answer.await.unwrap();
    assert_eq!(answer["error"]["code"], -31007, "{answer}");
    began.elapsed()
}

async fn event(reply: &mut Reply) -> Value {
    tokio::time::timeout(SOON, reply.event()).await.unwrap().unwrap().json()
}

async fn meets_the_deadline(era: EraSettings, modern: bool) {
    let (inside, _upstream) = inside(era).await;
    let [alice, _] = clients(&inside, modern).await;
    let took = silent(&alice).await;
    assert!(took >= DEADLINE && took < 3 * DEADLINE, "{took:?}");
    let record = inside.records().await.pop().unwrap();
    assert_eq!(inside::outcome(&record), "faulted upstream-timeout forward", "{record}");
}

#[tokio::test]
async fn a_process_that_says_nothing_meets_its_deadline_on_a_stream_too() {
    tokio::join!(
        meets_the_deadline(EraSettings::Legacy, false),
        meets_the_deadline(EraSettings::Legacy, true),
        meets_the_deadline(EraSettings::Modern, false),
        meets_the_deadline(EraSettings::Modern, true),
    );
}

async fn goes_on_after_a_word(era: EraSettings, modern: bool) {
    let (inside, _upstream) = inside(era).await;
    let [alice, bob] = clients(&inside, modern).await;
    let mut call = begun(&alice, "word").await;
    assert_eq!(event(&mut call).await["params"]["progressToken"], "mine");
    // As long as a whole deadline.
    silent(&bob).await;
    alice.call("end", json!({})).await;
    let answer = event(&mut call).await;
    assert!(answer["result"].is_object(), "{answer}");
}

#[tokio::test]
async fn progress_is_a_word_after_which_an_answer_takes_its_time() {
    tokio::join!(
        goes_on_after_a_word(EraSettings::Legacy, false),
        goes_on_after_a_word(EraSettings::Legacy, true),
        goes_on_after_a_word(EraSettings::Modern, false),
        goes_on_after_a_word(EraSettings::Modern, true),
    );
}

/// A legacy client is asked, on a process of either era, and thinks for longer than the deadline. So long waits what else it
/// called: nobody knows in the course of which call an old server asks.
async fn waits_for_the_client(era: EraSettings) {
    let (inside, _upstream) = inside(era).await;
    let [alice, bob] = clients(&inside, false).await;
    // Its head comes when it has waited for a while.
    let beside = if era == EraSettings::Legacy { Some(begun(&alice, "silent").await) } else { None };
    let mut call = begun(&alice, "asks").await;
    let question = event(&mut call).await;
    assert_eq!(question["method"], "elicitation/create", "{question}");
    silent(&bob).await;
    let answer = json!({"action": "accept", "content": {"name": "Ada"}});
    alice.ask("response", &json!({"jsonrpc": "2.0", "id": question["id"], "result": answer})).send().await;
    let answer = event(&mut call).await;
    assert!(answer["result"].is_object(), "{answer}");
    if let Some(beside) = beside {
        let answer = tokio::time::timeout(SOON, beside.json()).await.unwrap();
        assert!(answer["result"].is_object(), "{answer}");
    }
}

/// A modern client is asked by an old process, and comes back with its answer after the deadline.
async fn waits_for_the_next_request() {
    let (inside, _upstream) = inside(EraSettings::Legacy).await;
    let [alice, bob] = clients(&inside, true).await;
    let asked = tokio::time::timeout(SOON, async { begun(&alice, "asks").await.json().await }).await.unwrap();
    let state = &asked["result"]["requestState"];
    assert!(state.is_string(), "{asked}");
    silent(&bob).await;
    let answers = json!({"question": {"action": "accept", "content": {"name": "Ada"}}});
    let retry = json!({"name": "asks", "arguments": {}, "requestState": state, "inputResponses": answers});
    let answer = tokio::time::timeout(SOON, async { alice.request("tools/call", retry).await.json().await });
    let answer = answer.await.unwrap();
    assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
}

#[tokio::test]
async fn who_is_asked_may_think_for_longer_than_the_deadline() {
    tokio::join!(
        waits_for_the_client(EraSettings::Legacy),
        waits_for_the_client(EraSettings::Modern),
        waits_for_the_next_request(),
    );
}
