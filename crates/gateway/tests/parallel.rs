//! Calls of one principal's modern clients at the same time, on a legacy server that asks: each client is asked what its own
//! call is asked, or nobody is.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use audit::Tree;
use gateway::settings::EraSettings;
use inside::{Inside, Plan};
use serde_json::{Value, json};
use testkit::{Agent, Upstream, soon};

/// A server that asks in the course of `ask` once and of `twice` twice, and says what it heard last. The call `hold` ends with
/// the next `free`.
const SCRIPT: &str = r#"
question() { echo '{"jsonrpc":"2.0","id":"'"$1"'","method":"elicitation/create","params":{"message":"'"$1"'","requestedSchema":{"type":"object","properties":{}}}}'; }
answer() { echo '{"jsonrpc":"2.0","id":'"$1"',"result":'"$2"'}'; }
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}; call=${id#\"?}; call=${call%\"}
  case "$line" in
    *'"initialize"'*) answer "$id" '{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}' ;;
    *'"tools/list"'*) answer "$id" '{"tools":[{"name":"ask","inputSchema":{"type":"object"}},{"name":"twice","inputSchema":{"type":"object"}},{"name":"hold","inputSchema":{"type":"object"}},{"name":"free","inputSchema":{"type":"object"}}]}' ;;
    *'"method":"notifications/'*) ;;
    *'"name":"hold"'*) held=$id; echo '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}' ;;
    *'"name":"free"'*) answer "$held" '{"content":[]}'; answer "$id" '{"content":[]}' ;;
    *'"name":"twice"'*) question "a$id" ;;
    *'"name":"ask"'*) question "z$id" ;;
    *'"id":"a'*) question "z$call" ;;
    *'"id":"z'*) answer "$call" '{"content":[],"pid":'$$',"heard":'"$line"'}' ;;
  esac
done"#;

/// A gateway before that process, with room for so many.
async fn process(children: usize) -> Inside {
    let (upstream, command) = (Upstream::start().await, ["/bin/sh", "-c", SCRIPT].map(str::to_owned).to_vec());
    let era = EraSettings::Legacy;
    Inside::start(Plan { command: Some(command), era, children, ..Plan::of(&upstream) }).await
}

async fn call(agent: &Agent, tool: &str) -> Value {
    soon(agent.call(tool, json!({}))).await
}

/// The records of questions that nobody heard.
async fn unheard(inside: &Inside) -> Vec<Value> {
    inside.state.sweep();
    let leaves = inside.leaves(&Tree::System).await;
    leaves.into_iter().map(|(_, record)| record).filter(|record| record["event"] == "unheard").collect()
}

/// What the client is asked, and the state that it is to bring back.
fn asked(answer: &Value) -> (String, Value) {
    let result = &answer["result"];
    assert_eq!(result["resultType"], "input_required", "{answer}");
    let question = result["inputRequests"]["question"]["params"]["message"].as_str().unwrap();
    (question.to_owned(), result["requestState"].clone())
}

/// The client answers, and reads on.
async fn retry(agent: &Agent, tool: &str, state: &Value, said: &str) -> Value {
    let answer = json!({"action": "accept", "content": {"said": said}});
    let params = json!({"name": tool, "arguments": {}, "requestState": state, "inputResponses": {"question": answer}});
    soon(async { agent.request("tools/call", params).await.json().await }).await
}

/// No room for a second process: all calls share the one.
const ONE: usize = 2;

#[tokio::test]
async fn a_question_of_a_process_that_may_be_of_several_calls_is_refused() {
    let inside = process(ONE).await;
    let (alice, other) = (inside.modern("/mcp/files", &inside.alice), inside.modern("/mcp/files", &inside.alice));
    let mut held = alice.request("tools/call", json!({"name": "hold", "arguments": {}})).await;
    let answer = call(&other, "ask").await;
    let no = &answer["result"]["heard"]["error"];
    assert!(no["message"].as_str().unwrap().contains("several calls"), "{answer}");
    let records = unheard(&inside).await;
    assert_eq!((records.len(), &records[0]["method"]), (1, &json!("elicitation/create")), "{records:#?}");
    assert!(call(&other, "free").await["result"].is_object());
    assert!(soon(held.event()).await.unwrap().json()["result"].is_object());
    drop(held);
    // Alone it is asked.
    let (_, state) = asked(&call(&other, "ask").await);
    assert_eq!(retry(&other, "ask", &state, "mine").await["result"]["heard"]["result"]["content"]["said"], "mine");
}

#[tokio::test]
async fn a_call_that_waits_for_its_client_is_not_asked_what_another_is() {
    let inside = process(ONE).await;
    let (alice, other) = (inside.modern("/mcp/files", &inside.alice), inside.modern("/mcp/files", &inside.alice));
    let (first, state) = asked(&call(&alice, "twice").await);
    let (of_other, other_state) = asked(&call(&other, "ask").await);
    let (second, state) = asked(&retry(&alice, "twice", &state, "once").await);
    assert_eq!(second.strip_prefix('z'), first.get(1..), "it is the other's: {of_other}");
    let end = retry(&alice, "twice", &state, "hers").await;
    assert_eq!(end["result"]["heard"]["result"]["content"]["said"], "hers", "{end}");
    let end = retry(&other, "ask", &other_state, "the other's").await;
    assert_eq!(end["result"]["heard"]["result"]["content"]["said"], "the other's", "{end}");
    assert_eq!(inside.state.parked_count(), 0);
}
