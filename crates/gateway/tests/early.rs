//! What a process asks and says before its client listens, or calls anything: it is kept until somebody hears it.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::EraSettings;
use inside::{Inside, Plan};
use serde_json::{Value, json};
use std::fs;
use tempfile::TempDir;
use testkit::{Agent, Upstream, soon};

/// A server that asks for roots and says that its tools are others as soon as it is told that its client is ready, and asks
/// something that it takes back. Its tools say what became of the first, one of them once that is known.
const SCRIPT: &str = r#"
said=nothing
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  case "$line" in
    *'"initialize"'*) hello=$line; rm -f "$1/asked"; echo '{"jsonrpc":"2.0","id":'"$id"',"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true}},"serverInfo":{"name":"sh","version":"1"}}}' ;;
    *'"tools/list"'*) echo '{"jsonrpc":"2.0","id":'"$id"',"result":{"tools":[{"name":"echo","inputSchema":{"type":"object"}},{"name":"wait","inputSchema":{"type":"object"}}]}}' ;;
    *'"notifications/initialized"'*)
      case "$hello" in *'"roots"'*)
        echo '{"jsonrpc":"2.0","id":"back","method":"elicitation/create","params":{"message":"?","requestedSchema":{"type":"object","properties":{}}}}'
        echo '{"jsonrpc":"2.0","id":"first","method":"roots/list"}'
        echo '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"back"}}'
        echo '{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}' ;;
      esac
      : > "$1/asked" ;;
    *'"name":"wait"'*) call=$id; : > "$1/waits" ;;
    *'"tools/call"'*) echo '{"jsonrpc":"2.0","id":'"$id"',"result":{"content":[],"heard":"'"$said"'"}}' ;;
    *'"id":"first"'*) case "$line" in *'file:///root'*) said=roots ;; *) said=no ;; esac
      [ -z "$call" ] || echo '{"jsonrpc":"2.0","id":'"$call"',"result":{"content":[],"heard":"'"$said"'"}}' ;;
    *'"method":'*'"id"'*) echo '{"jsonrpc":"2.0","id":'"$id"',"result":{}}' ;;
  esac
done"#;

struct Place {
    inside: Inside,
    folder: TempDir,
    _upstream: Upstream,
}

impl Place {
    async fn start() -> Self {
        let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
        let command = ["/bin/sh", "-c", SCRIPT, "server", &folder.path().to_string_lossy()].map(str::to_owned).to_vec();
        let plan = Plan { command: Some(command), era: EraSettings::Legacy, ..Plan::of(&upstream) };
        Self { inside: Inside::start(plan).await, folder, _upstream: upstream }
    }

    /// Waits until the process has said what it says at first.
    async fn has_asked(&self) {
        self.has_left("asked").await;
    }

    async fn has_left(&self, file: &str) {
        soon(async {
            while !fs::exists(self.folder.path().join(file)).unwrap() {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        })
        .await;
    }
}

async fn heard(agent: &Agent) -> Value {
    soon(agent.call("echo", json!({}))).await["result"]["heard"].clone()
}

fn roots() -> Value {
    json!({"roots": [{"uri": "file:///root", "name": "root"}]})
}

#[tokio::test]
async fn what_a_process_says_before_its_client_listens_is_heard_when_it_does() {
    let place = Place::start().await;
    let alice = place.inside.legacy("/mcp/files", &place.inside.alice).await;
    place.has_asked().await;
    let mut listener = alice.listen().await;
    // In its order, and without what was taken back.
    let asked = soon(listener.event()).await.unwrap().json();
    assert_eq!(asked["method"], "roots/list", "{asked}");
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": roots()});
    assert_eq!(alice.ask("", &answer).send().await.status, 202);
    let news = soon(listener.event()).await.unwrap().json();
    assert_eq!(news["method"], "notifications/tools/list_changed", "{news}");
    assert_eq!(heard(&alice).await, "roots");
}

#[tokio::test]
async fn what_a_process_asks_before_its_client_listens_is_asked_in_the_course_of_a_call_that_comes_first() {
    let place = Place::start().await;
    let alice = place.inside.legacy("/mcp/files", &place.inside.alice).await;
    place.has_asked().await;
    let mut reply = alice.request("tools/call", json!({"name": "wait", "arguments": {}})).await;
    let asked = soon(reply.event()).await.unwrap().json();
    assert_eq!(asked["method"], "roots/list", "{asked}");
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": roots()});
    assert_eq!(alice.ask("", &answer).send().await.status, 202);
    let answer = soon(reply.event()).await.unwrap().json();
    assert_eq!(answer["result"]["heard"], "roots", "{answer}");
}

#[tokio::test]
async fn what_a_process_asks_before_a_modern_client_calls_something_is_asked_in_the_course_of_that() {
    let place = Place::start().await;
    let alice = place.inside.modern("/mcp/files", &place.inside.alice);
    assert_eq!(alice.tools().await, ["echo", "wait"]);
    place.has_asked().await;
    assert_eq!(alice.tools().await, ["echo", "wait"], "nobody can be asked in the course of a list");
    let call = json!({"name": "echo", "arguments": {}});
    assert_eq!(called(&alice, &call).await, ("roots".into(), true));
    assert_eq!(heard(&alice).await, "roots");
}

/// What became of a call, and whether the roots were asked for in its course.
async fn called(agent: &Agent, call: &Value) -> (Value, bool) {
    to_its_end(agent, call, round(agent, call).await).await
}

async fn round(agent: &Agent, call: &Value) -> Value {
    soon(async { agent.request("tools/call", call.clone()).await.json().await }).await
}

async fn to_its_end(agent: &Agent, call: &Value, mut answer: Value) -> (Value, bool) {
    let (mut call, mut is_asked) = (call.clone(), false);
    loop {
        let Some((name, question)) = answer["result"]["inputRequests"].as_object().and_then(|all| all.iter().next())
        else {
            return (answer["result"]["heard"].clone(), is_asked);
        };
        // What is taken back may be read before that.
        let is_roots = question["method"] == "roots/list";
        is_asked |= is_roots;
        call["requestState"] = answer["result"]["requestState"].clone();
        call["inputResponses"] = json!({name.as_str(): if is_roots { roots() } else { json!({"action": "cancel"}) }});
        answer = round(agent, &call).await;
    }
}

/// The call opens the session: a server that had it at once would serve it without the roots.
#[tokio::test]
async fn the_first_call_of_a_modern_client_is_sent_when_its_server_knows_the_roots() {
    let place = Place::start().await;
    let alice = place.inside.modern("/mcp/files", &place.inside.alice);
    let call = json!({"name": "echo", "arguments": {}});
    // One beside it is asked nothing, and waits as well.
    let mut both = <[_; 2]>::from(tokio::join!(called(&alice, &call), called(&alice, &call)));
    both.sort_by_key(|(_, is_asked)| *is_asked);
    assert_eq!(both, [("roots".into(), false), ("roots".into(), true)]);
    // It is not taken for one that asks, and then sent alone.
    let other = place.inside.modern("/mcp/files", &place.inside.alice);
    let waits =
        tokio::spawn(async move { other.request("tools/call", json!({"name": "wait", "arguments": {}})).await });
    place.has_left("waits").await;
    assert_eq!(heard(&alice).await, "roots");
    waits.abort();
}

#[tokio::test]
async fn a_call_whose_client_takes_its_time_to_name_roots_holds_up_no_other_and_is_sent_when_it_has() {
    let place = Place::start().await;
    let alice = place.inside.modern("/mcp/files", &place.inside.alice);
    let call = json!({"name": "echo", "arguments": {}});
    let first = round(&alice, &call).await;
    assert!(first["result"]["inputRequests"].is_object(), "{first}");
    assert_eq!(heard(&alice).await, "nothing");
    assert_eq!(to_its_end(&alice, &call, first).await, ("roots".into(), true));
}
