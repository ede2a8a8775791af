//! Whose an answer is: the process that asked hears it, and no other, least of all the one that is started in its place. What
//! a process takes back, its client hears.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::EraSettings;
use inside::{Inside, Plan, outcome};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};
use tempfile::TempDir;
use testkit::{Agent, Reply, Upstream, soon};

/// A process that asks under the same id as the one before it, and writes down which of them hears what.
const SCRIPT: &str = r#"
echo x >> "$1/starts"; me=$(wc -l < "$1/starts"); me=$((me))
question='{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{"messages":[],"maxTokens":1,"_meta":{"progressToken":1}}}'
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  answer() { echo '{"jsonrpc":"2.0","id":'"$id"',"result":'"$1"'}'; }
  case "$line" in
    *'"initialize"'*) answer '{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}' ;;
    *'"tools/list"'*) answer '{"tools":[{"name":"ask","inputSchema":{"type":"object"}},{"name":"later","inputSchema":{"type":"object"}},{"name":"last","inputSchema":{"type":"object"}},{"name":"retract","inputSchema":{"type":"object"}},{"name":"die","inputSchema":{"type":"object"}},{"name":"echo","inputSchema":{"type":"object"}}]}' ;;
    *'"name":"ask"'*) echo "$question" ;;
    *'"name":"later"'*) answer '{"content":[]}'; echo "$question" ;;
    *'"name":"last"'*) echo "$question"; kill -9 $$ ;;
    *'"name":"retract"'*) echo '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1,"reason":"enough"}}'; answer '{"content":[]}' ;;
    *'"name":"die"'*) kill -9 $$ ;;
    *'"name":"echo"'*) answer '{"content":[]}' ;;
    *'"role"'*|*'"error"'*|*'"notifications/progress"'*) echo "$me: $line" >> "$1/heard" ;;
    *'"id"'*) answer '{}' ;;
  esac
done"#;

/// A door, and what a tool is called there.
const DOORS: [(&str, &str); 2] = [("/mcp/files", ""), ("/mcp", "files__")];

/// A gateway before that process, and what is heard there.
struct Asked {
    inside: Inside,
    folder: TempDir,
    prefix: &'static str,
}

impl Asked {
    async fn start(prefix: &'static str, shared: bool) -> Self {
        let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
        let place = folder.path().to_string_lossy().into_owned();
        let command = ["/bin/sh", "-c", SCRIPT, "server", &place].map(str::to_owned).to_vec();
        let plan = Plan { command: Some(command), era: EraSettings::Legacy, shared, ..Plan::of(&upstream) };
        Self { inside: Inside::start(plan).await, folder, prefix }
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
