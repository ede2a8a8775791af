//! Whose an answer is: the process that asked hears it, and no other, least of all the one that is started in its place. What
//! a process takes back, its client hears.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::{CredentialSettings, EraSettings, Place};
use inside::{Inside, Plan, outcome};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};
use tempfile::TempDir;
use testkit::{Agent, Reply, Upstream, soon};
use vocab::{Secret, SecretName};

/// A process that asks under the same id as the one before it, and writes down which of them hears what.
const SCRIPT: &str = r#"
echo x >> "$1/starts"; me=$(wc -l < "$1/starts"); me=$((me))
question='{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{"messages":[],"maxTokens":1,"_meta":{"progressToken":1}}}'
long='{"jsonrpc":"2.0","id":2,"method":"sampling/createMessage","params":{"messages":[],"maxTokens":1,"task":{"ttl":60000}}}'
fetch='{"jsonrpc":"2.0","id":3,"method":"tasks/get","params":{"taskId":"t1"}}'
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  answer() { echo '{"jsonrpc":"2.0","id":'"$id"',"result":'"$1"'}'; }
  case "$line" in
    *'"initialize"'*) answer '{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}' ;;
    *'"tools/list"'*) answer '{"tools":[{"name":"ask","inputSchema":{"type":"object"}},{"name":"wait","inputSchema":{"type":"object"}},{"name":"held","inputSchema":{"type":"object"}},{"name":"long","inputSchema":{"type":"object"}},{"name":"fetch","inputSchema":{"type":"object"}},{"name":"later","inputSchema":{"type":"object"}},{"name":"last","inputSchema":{"type":"object"}},{"name":"retract","inputSchema":{"type":"object"}},{"name":"die","inputSchema":{"type":"object"}},{"name":"echo","inputSchema":{"type":"object"}}]}' ;;
    *'"name":"ask"'*) echo "$question" ;;
    *'"name":"wait"'*) call=$id; echo "$question" ;;
    *'"name":"held"'*)
      call=$id; echo '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"held"}}'
      while [ ! -e "$1/go" ]; do sleep 0.01; done; echo "$question" ;;
    *'"name":"long"'*) call=$id; echo "$long" ;;
    *'"name":"fetch"'*) call=$id; echo "$fetch" ;;
    *'"name":"later"'*) answer '{"content":[]}'; echo "$question" ;;
    *'"name":"last"'*) echo "$question"; kill -9 $$ ;;
    *'"name":"retract"'*) echo '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1,"reason":"enough"}}'
      if [ -n "$call" ]; then echo '{"jsonrpc":"2.0","id":'"$call"',"result":{"content":[{"type":"text","text":"without it"}]}}'; call=; fi
      answer '{"content":[]}' ;;
    *'"name":"die"'*) kill -9 $$ ;;
    *'"name":"echo"'*) answer '{"content":[]}' ;;
    *'"role"'*|*'"error"'*|*'"taskId"'*|*'"notifications/progress"'*)
      echo "$me: $line" >> "$1/heard"
      if [ -n "$call" ]; then id=$call; call=; answer '{"content":[]}'; fi ;;
    *'"id"'*) answer '{}' ;;
  esac
done"#;

/// A door, and what a tool is called there.
const DOORS: [(&str, &str); 2] = [("/mcp/files", ""), ("/mcp", "files__")];

/// A gateway before that process, and what is heard there.
struct Asked {
    inside: Inside,
    upstream: Upstream,
    folder: TempDir,
    prefix: &'static str,
    shared: bool,
}

fn plan(upstream: &Upstream, folder: &TempDir, shared: bool, target: &str) -> Plan {
    let place = folder.path().to_string_lossy().into_owned();
    let command = ["/bin/sh", "-c", SCRIPT, "server", &place, target].map(str::to_owned).to_vec();
    let credentials = vec![CredentialSettings {
        secret: SecretName::new("token").unwrap(),
        place: Place::Environment("TOKEN".to_owned()),
    }];
    Plan { command: Some(command), era: EraSettings::Legacy, shared, credentials, ..Plan::of(upstream) }
}

impl Asked {
    async fn start(prefix: &'static str, shared: bool) -> Self {
        let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
        let plan = plan(&upstream, &folder, shared, "one");
        let asked = Self { inside: Inside::start(plan).await, upstream, folder, prefix, shared };
        asked.has_secret("first");
        asked
    }

    fn has_secret(&self, value: &str) {
        let Inside { state, .. } = &self.inside;
        state.vault.set(&SecretName::new("token").unwrap(), &Secret::new(value.to_owned()), self.inside.now()).unwrap();
    }

    /// The next message goes to another process. `is_moved`: to one of another target.
    fn is_replaced(&self, is_moved: bool) {
        if is_moved {
            self.inside.swap(plan(&self.upstream, &self.folder, self.shared, "two"));
            self.inside.state.sweep();
        } else {
            self.has_secret("second");
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// How many processes there were.
    fn starts(&self) -> usize {
        fs::read_to_string(self.file("starts")).unwrap().lines().count()
    }

    /// Which process heard what, once the one that is there has read everything.
    async fn heard(&self, agent: &Agent) -> Vec<String> {
        self.is_read(agent).await;
        let heard = fs::read_to_string(self.file("heard")).unwrap_or_default();
        heard.lines().map(str::to_owned).collect()
    }

    async fn is_read(&self, agent: &Agent) {
        let answer = soon(agent.call(&format!("{}echo", self.prefix), json!({}))).await;
        assert!(answer["result"].is_object(), "{answer}");
    }

    async fn call(&self, agent: &Agent, tool: &str) -> Reply {
        agent.request("tools/call", json!({"name": format!("{}{tool}", self.prefix)})).await
    }

    /// The process ends.
    async fn falls(&self, agent: &Agent) {
        let answer = soon(agent.call(&format!("{}die", self.prefix), json!({}))).await;
        assert_eq!(answer["error"]["code"], -31006, "{answer}");
    }
}

/// What the client is asked next on a stream.
async fn question(reply: &mut Reply) -> Value {
    let asked = soon(reply.event()).await.unwrap().json();
    assert_eq!(asked["method"], "sampling/createMessage", "{asked}");
    asked["id"].clone()
}

async fn answer(agent: &Agent, id: &Value, text: &str) -> u16 {
    let result = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": text}});
    agent.ask("", &json!({"jsonrpc": "2.0", "id": id, "result": result})).send().await.status.as_u16()
}

/// How the answers of clients ended.
async fn outcomes(inside: &Inside) -> Vec<String> {
    let records = inside.records().await;
    records.iter().filter(|record| record["method"] == "response").map(outcome).collect()
}

#[tokio::test]
async fn an_answer_to_a_process_that_fell_does_not_reach_the_next_one() {
    for (door, prefix) in DOORS {
        for shared in [false, true] {
            let asked = Asked::start(prefix, shared).await;
            let alice = asked.inside.legacy(door, &asked.inside.alice).await;
            let from = format!("{door}, shared: {shared}");
            let mut first = asked.call(&alice, "ask").await;
            let id = question(&mut first).await;
            asked.falls(&alice).await;
            // Nothing is started for an answer that is nobody's.
            let starts = asked.starts();
            assert_eq!(answer(&alice, &id, "early").await, 202, "{from}");
            assert_eq!(asked.starts(), starts, "{from}");
            let mut second = asked.call(&alice, "ask").await;
            let id = question(&mut second).await;
            asked.falls(&alice).await;
            // The next one asks something else under the same id.
            let mut third = asked.call(&alice, "ask").await;
            let other = question(&mut third).await;
            assert_ne!(id, other, "{from}: the client can tell them apart");
            assert_eq!(answer(&alice, &id, "second").await, 202, "{from}");
            assert_eq!(answer(&alice, &other, "third").await, 202, "{from}");
            let heard = asked.heard(&alice).await;
            assert!(
                heard.len() == 1 && heard[0].contains("third") && heard[0].contains("\"id\":1"),
                "{from}: {heard:?}"
            );
            let outcomes = outcomes(&asked.inside).await;
            assert_eq!(outcomes, ["abandoned", "abandoned", "answered"], "{from}");
            let records = asked.inside.records().await;
            let late = records.iter().find(|record| record["method"] == "response").unwrap();
            assert_eq!(
                (&late["error"], &late["http_status"]),
                (&json!("whoever asked is gone"), &json!(202)),
                "{from}"
            );
        }
    }
}

#[tokio::test]
async fn an_answer_to_what_was_asked_on_the_listening_stream_is_for_that_process_alone() {
    for (door, prefix) in DOORS {
        let asked = Asked::start(prefix, false).await;
        let alice = asked.inside.legacy(door, &asked.inside.alice).await;
        let mut listener = alice.listen().await;
        let mut asks = async || {
            let later = soon(asked.call(&alice, "later").await.json()).await;
            assert!(later["result"].is_object(), "{later}");
            question(&mut listener).await
        };
        let id = asks().await;
        asked.falls(&alice).await;
        let other = asks().await;
        assert_ne!(id, other, "{door}");
        assert_eq!(answer(&alice, &id, "first").await, 202, "{door}");
        assert_eq!(answer(&alice, &other, "second").await, 202, "{door}");
        let heard = asked.heard(&alice).await;
        assert!(heard.len() == 1 && heard[0].contains("second"), "{door}: {heard:?}");
    }
}

#[tokio::test]
async fn the_last_word_of_a_process_is_no_question_of_the_next_one() {
    for (door, prefix) in DOORS {
        let asked = Asked::start(prefix, false).await;
        let alice = asked.inside.legacy(door, &asked.inside.alice).await;
        let mut last = asked.call(&alice, "last").await;
        let id = question(&mut last).await;
        let end = soon(last.event()).await.unwrap().json();
        assert_eq!(end["error"]["code"], -31006, "{end}");
        // Another is there by now.
        asked.is_read(&alice).await;
        assert_eq!(answer(&alice, &id, "late").await, 202, "{door}");
        let heard = asked.heard(&alice).await;
        assert!(heard.is_empty(), "{door}: {heard:?}");
    }
}

#[tokio::test]
async fn progress_of_what_a_process_asked_that_fell_is_no_news_to_the_next_one() {
    let (door, prefix) = DOORS[1];
    let asked = Asked::start(prefix, false).await;
    let alice = asked.inside.legacy(door, &asked.inside.alice).await;
    let mut first = asked.call(&alice, "ask").await;
    let id = question(&mut first).await;
    asked.falls(&alice).await;
    let starts = asked.starts();
    let tell = || alice.notify("notifications/progress", json!({"progressToken": id, "progress": 1}));
    assert_eq!(tell().await.status, 202);
    assert_eq!(asked.starts(), starts, "no process is started to be told");
    asked.is_read(&alice).await;
    assert_eq!(tell().await.status, 202);
    let heard = asked.heard(&alice).await;
    assert!(heard.is_empty(), "{heard:?}");
}

#[tokio::test]
async fn a_process_takes_back_its_question_on_the_stream_on_which_it_asked() {
    for (door, prefix) in DOORS {
        for shared in [false, true] {
            let asked = Asked::start(prefix, shared).await;
            let alice = asked.inside.legacy(door, &asked.inside.alice).await;
            let from = format!("{door}, shared: {shared}");
            let mut call = asked.call(&alice, "ask").await;
            let id = question(&mut call).await;
            let taken_back = soon(asked.call(&alice, "retract").await.json()).await;
            assert!(taken_back["result"].is_object(), "{from}: {taken_back}");
            let word = soon(call.event()).await.unwrap().json();
            assert_eq!(
                (&word["method"], &word["params"]["requestId"]),
                (&json!("notifications/cancelled"), &id),
                "{from}"
            );
            assert_eq!(word["params"]["reason"], "enough", "{from}");
            // Its answer may have been on its way: nobody's fault, and nobody's answer.
            assert_eq!(answer(&alice, &id, "late").await, 202, "{from}");
            assert_eq!(answer(&alice, &id, "again").await, 400, "{from}");
            let heard = asked.heard(&alice).await;
            assert!(heard.is_empty(), "{from}: {heard:?}");
            let outcomes = outcomes(&asked.inside).await;
            assert_eq!(outcomes.first().unwrap(), "abandoned", "{from}");
        }
    }
}

/// The call ends: its process has heard what it waits for.
async fn is_answered(call: &mut Reply) {
    let end = soon(call.event()).await.unwrap().json();
    assert!(end["result"].is_object(), "{end}");
}

#[tokio::test]
async fn a_process_with_the_old_secret_hears_the_answer_to_what_it_asked() {
    for (door, prefix) in DOORS {
        for shared in [false, true] {
            let asked = Asked::start(prefix, shared).await;
            let alice = asked.inside.legacy(door, &asked.inside.alice).await;
            let from = format!("{door}, shared: {shared}");
            let mut first = asked.call(&alice, "wait").await;
            let id = question(&mut first).await;
            asked.is_replaced(false);
            // The next one asks something else under the same id.
            let mut second = asked.call(&alice, "wait").await;
            let other = question(&mut second).await;
            assert_ne!(id, other, "{from}: the client can tell them apart");
            for (call, id, text) in [(&mut first, &id, "first"), (&mut second, &other, "second")] {
                assert_eq!(answer(&alice, id, text).await, 202, "{from}");
                is_answered(call).await;
            }
            let heard = asked.heard(&alice).await;
            assert!(heard.len() == 2 && heard[0].contains("first") && heard[1].contains("second"), "{from}: {heard:?}");
            assert_ne!(heard[0].split(':').next(), heard[1].split(':').next(), "{from}: another process: {heard:?}");
            assert_eq!(outcomes(&asked.inside).await, ["answered", "answered"], "{from}");
        }
    }
}

#[tokio::test]
async fn a_process_that_a_reload_has_moved_asks_nothing_more() {
    for (door, prefix) in DOORS {
        let asked = Asked::start(prefix, false).await;
        let alice = asked.inside.legacy(door, &asked.inside.alice).await;
        let mut call = asked.call(&alice, "held").await;
        let said = soon(call.event()).await.unwrap().json();
        assert_eq!(said["params"]["data"], "held", "{said}");
        asked.is_replaced(true);
        asked.is_read(&alice).await;
        fs::write(asked.file("go"), "").unwrap();
        is_answered(&mut call).await;
        let heard = asked.heard(&alice).await;
        assert!(heard.len() == 1 && heard[0].contains("configured anew"), "{door}: {heard:?}");
    }
}

#[tokio::test]
async fn a_process_that_a_reload_has_moved_is_answered_no() {
    for (door, prefix) in DOORS {
        for shared in [false, true] {
            let asked = Asked::start(prefix, shared).await;
            let alice = asked.inside.legacy(door, &asked.inside.alice).await;
            let from = format!("{door}, shared: {shared}");
            let mut call = asked.call(&alice, "wait").await;
            let id = question(&mut call).await;
            asked.is_replaced(true);
            asked.is_read(&alice).await;
            assert_eq!(answer(&alice, &id, "late").await, 202, "{from}");
            is_answered(&mut call).await;
            let heard = asked.heard(&alice).await;
            assert!(heard.len() == 1 && heard[0].contains("configured anew"), "{from}: {heard:?}");
            assert_eq!(outcomes(&asked.inside).await, ["abandoned"], "{from}");
        }
    }
}

/// An answer that is a task.
fn task() -> Value {
    let now = "2026-11-25T00:00:00Z";
    json!({"task": {"taskId": "t1", "status": "working", "createdAt": now, "lastUpdatedAt": now, "ttl": 60000}})
}

#[tokio::test]
async fn a_task_that_answers_a_process_is_not_for_the_next_one() {
    let (door, prefix) = DOORS[1];
    for is_heard in [false, true] {
        let asked = Asked::start(prefix, false).await;
        let alice = asked.inside.legacy(door, &asked.inside.alice).await;
        let mut call = asked.call(&alice, "long").await;
        let id = question(&mut call).await;
        let give = || alice.ask("", &json!({"jsonrpc": "2.0", "id": id, "result": task()})).send();
        if is_heard {
            assert_eq!(give().await.status, 202);
            is_answered(&mut call).await;
            // It is its own to ask for.
            let mut call = asked.call(&alice, "fetch").await;
            let fetched = soon(call.event()).await.unwrap().json();
            assert_eq!(fetched["method"], "tasks/get", "{fetched}");
            asked.falls(&alice).await;
        } else {
            asked.falls(&alice).await;
            asked.is_read(&alice).await;
            assert_eq!(give().await.status, 202);
        }
        let mut call = asked.call(&alice, "fetch").await;
        is_answered(&mut call).await;
        assert_eq!(alice.notify("notifications/tasks/status", task()["task"].clone()).await.status, 202);
        let heard = asked.heard(&alice).await;
        let no = heard.last().unwrap();
        assert!(no.contains("Unknown task") && no.contains("\"id\":3"), "{is_heard}: {heard:?}");
        assert_eq!(heard.len(), 1 + usize::from(is_heard), "{heard:?}");
    }
}

#[tokio::test]
async fn a_late_answer_takes_no_task_from_the_process_that_is_there() {
    let (door, prefix) = DOORS[1];
    let asked = Asked::start(prefix, false).await;
    let alice = asked.inside.legacy(door, &asked.inside.alice).await;
    let mut first = asked.call(&alice, "long").await;
    let late = question(&mut first).await;
    asked.falls(&alice).await;
    let mut second = asked.call(&alice, "long").await;
    let id = question(&mut second).await;
    for id in [id, late] {
        let answer = json!({"jsonrpc": "2.0", "id": id, "result": task()});
        assert_eq!(alice.ask("", &answer).send().await.status, 202);
    }
    is_answered(&mut second).await;
    let mut call = asked.call(&alice, "fetch").await;
    let fetched = soon(call.event()).await.unwrap().json();
    assert_eq!(fetched["method"], "tasks/get", "{fetched}");
}

#[tokio::test]
async fn a_call_whose_question_was_taken_back_goes_on_without_the_answer() {
    for (door, prefix) in DOORS {
        // Where they share it, another call reaches the process that a call waits in.
        let asked = Asked::start(prefix, true).await;
        let alice = asked.inside.modern(door, &asked.inside.alice);
        let from = door;
        let name = format!("{prefix}wait");
        let waits = soon(alice.call(&name, json!({}))).await;
        assert_eq!(waits["result"]["resultType"], "input_required", "{from}: {waits}");
        let taken_back = soon(alice.call(&format!("{prefix}retract"), json!({}))).await;
        assert!(taken_back["result"].is_object(), "{from}: {taken_back}");
        let given = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "late"}});
        let params = json!({
            "name": name, "arguments": {}, "requestState": waits["result"]["requestState"],
            "inputResponses": {"question": given},
        });
        let end = soon(alice.request("tools/call", params).await.json()).await;
        assert_eq!(end["result"]["content"][0]["text"], "without it", "{from}: {end}");
        let heard = asked.heard(&alice).await;
        assert!(heard.is_empty(), "{from}: {heard:?}");
        assert_eq!(asked.inside.state.parked_count(), 0, "{from}");
    }
}
