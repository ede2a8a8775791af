//! Calls of one principal's modern clients at the same time, on a legacy server that asks: each client is asked what its own
//! call is asked, or nobody is.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use audit::Tree;
use gateway::settings::{Bounds, EraSettings};
use inside::{Inside, Plan};
use serde_json::{Value, json};
use std::{
    fs,
    ops::Deref,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tempfile::TempDir;
use testkit::{Agent, Upstream, soon};

/// A server that asks in the course of `ask` once and of `twice` twice, and says what it heard last, who it is, and how many
/// calls it had. What is asked in the course of `slow` comes a moment after the file `go` is there; the call `hold` ends once
/// the file `free` is; the file `die` ends it in the course of one of them. It writes down what happens, and `read` when all that it said before was.
const SCRIPT: &str = r#"
place=$1; calls=0
note() { echo "$1" >> "$place/log"; }
question() { note "asked $1"; echo '{"jsonrpc":"2.0","id":"'"$1"'","method":"elicitation/create","params":{"message":"'"$1"'","requestedSchema":{"type":"object","properties":{}}}}'; }
answer() { echo '{"jsonrpc":"2.0","id":'"$1"',"result":'"$2"'}'; }
waits() { echo '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}'; while [ -d "$place" ] && [ ! -e "$place/$1" ]; do if [ -e "$place/die" ]; then rm "$place/die"; kill -9 $$; exit; fi; sleep 0.01; done; }
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}; call=${id#\"?}; call=${call%\"}
  case "$line" in
    *'"tools/call"'*) note "begun $id"; calls=$((calls+1)) ;;
  esac
  case "$line" in
    *'"initialize"'*) answer "$id" '{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}' ;;
    *'"tools/list"'*) answer "$id" '{"tools":[{"name":"ask","inputSchema":{"type":"object"}},{"name":"twice","inputSchema":{"type":"object"}},{"name":"slow","inputSchema":{"type":"object"}},{"name":"hold","inputSchema":{"type":"object"}},{"name":"echo","inputSchema":{"type":"object"}}]}' ;;
    *'"method":"notifications/cancelled"'*) note cancelled ;;
    *'"method":"notifications/'*) ;;
    *'"name":"hold"'*) (waits free; note freed; answer "$id" '{"content":[]}') & ;;
    *'"name":"slow"'*) (waits go; sleep 0.2; question "z$id"; echo '{"jsonrpc":"2.0","id":"ping","method":"ping"}') & ;;
    *'"name":"echo"'*) answer "$id" '{"content":[],"pid":'$$'}' ;;
    *'"name":"twice"'*) question "a$id" ;;
    *'"name":"ask"'*) question "z$id" ;;
    *'"id":"ping"'*) note read ;;
    *'"id":"a'*) note "heard $call"; question "z$call" ;;
    *'"id":"z'*) note "heard $call"; answer "$call" '{"content":[],"pid":'$$',"calls":'$calls',"heard":'"$line"'}' ;;
  esac
done"#;

/// A gateway before that process, and what happens there.
struct Place {
    inside: Inside,
    upstream: Upstream,
    folder: TempDir,
}

impl Deref for Place {
    type Target = Inside;

    fn deref(&self) -> &Inside {
        &self.inside
    }
}

fn plan(upstream: &Upstream, folder: &TempDir, target: &str) -> Plan {
    let place = folder.path().to_string_lossy().into_owned();
    let command = ["/bin/sh", "-c", SCRIPT, "server", &place, target].map(str::to_owned).to_vec();
    // No room for a second process: all calls share the one.
    Plan { command: Some(command), era: EraSettings::Legacy, children: 2, ..Plan::of(upstream) }
}

impl Place {
    async fn start(deadline: Duration) -> Self {
        let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
        let plan = plan(&upstream, &folder, "one");
        let bounds = Bounds { deadline, ..plan.bounds };
        Self { inside: Inside::start(Plan { bounds, ..plan }).await, upstream, folder }
    }

    /// So many clients of one principal.
    fn clients<const N: usize>(&self) -> [Agent; N] {
        std::array::from_fn(|_| self.inside.modern("/mcp/files", &self.inside.alice))
    }

    /// There is a file of this name.
    fn has(&self, name: &str) {
        fs::write(self.folder.path().join(name), "").unwrap();
    }

    fn lacks(&self, name: &str) {
        fs::remove_file(self.folder.path().join(name)).unwrap();
    }

    /// What happened, without the numbers of calls.
    fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    }

    /// Waits until this has happened so often.
    async fn happens(&self, what: &str, times: usize) {
        until(|| self.log().iter().filter(|line| *line == what).count() >= times).await;
    }

    /// Waits until the gateway has so many requests under way.
    async fn under_way(&self, calls: usize) {
        let server = self.state.snapshot.load().servers.values().next().map(Arc::clone).unwrap();
        until(|| server.state.in_flight.load(Ordering::SeqCst) == calls).await;
    }

    /// Both clients call `slow` at once, which is not known to ask.
    async fn unknown(&self, one: &Agent, other: &Agent) -> [Value; 2] {
        let begun = self.log().iter().filter(|line| *line == "begun").count();
        let (one, other, ()) = tokio::join!(call(one, "slow"), call(other, "slow"), async {
            self.happens("begun", begun + 2).await;
            self.has("go");
        });
        [one, other]
    }
}

async fn until(holds: impl Fn() -> bool) {
    soon(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
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

/// What the process heard from this call's client.
fn said(answer: &Value) -> &Value {
    &answer["result"]["heard"]["result"]["content"]["said"]
}

/// The process was told that nobody can be asked, and to call again.
fn is_refused(answer: &Value) {
    let no = &answer["result"]["heard"]["error"];
    assert_eq!(no["code"], -32601, "{answer}");
    assert!(no["message"].as_str().unwrap().contains("make the call again"), "{answer}");
}

const LONG: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_question_beside_a_call_that_ends_is_put_then_and_nothing_is_sent_meanwhile() {
    let place = Place::start(LONG).await;
    let [alice, other, third] = place.clients();
    let mut held = alice.request("tools/call", json!({"name": "hold", "arguments": {}})).await;
    let (answer, echo, ()) = tokio::join!(call(&other, "ask"), call_after(&place, &third), async {
        place.under_way(3).await;
        place.has("free");
    });
    assert!(soon(held.event()).await.unwrap().json()["result"].is_object());
    let (_, state) = asked(&answer);
    assert_eq!(said(&retry(&other, "ask", &state, "mine").await), "mine");
    assert!(echo["result"].is_object(), "{echo}");
    assert_eq!(place.log(), ["begun", "begun", "asked", "freed", "begun", "heard"]);
    assert!(unheard(&place).await.is_empty());
}

/// An ordinary call that comes when the process has asked.
async fn call_after(place: &Place, agent: &Agent) -> Value {
    place.happens("asked", 1).await;
    call(agent, "echo").await
}

#[tokio::test]
async fn what_asks_at_one_time_is_refused_once_and_asks_one_after_the_other_from_then_on() {
    let place = Place::start(LONG).await;
    let [alice, other] = place.clients();
    let first = place.unknown(&alice, &other).await;
    first.iter().for_each(is_refused);
    let records = unheard(&place).await;
    assert_eq!(records.len(), 1, "{records:#?}");
    assert_eq!((&records[0]["method"], &records[0]["count"]), (&json!("elicitation/create"), &json!(2)));
    let before = place.log().len();
    let (one, two) = tokio::join!(call(&alice, "slow"), call(&other, "slow"));
    let log: Vec<_> = place.log().split_off(before).into_iter().filter(|line| line != "read").collect();
    assert_eq!(log, ["begun", "asked", "begun", "asked"], "each is alone until its client is asked");
    let (one, two) = (asked(&one).1, asked(&two).1);
    let (one, two) = tokio::join!(retry(&alice, "slow", &one, "hers"), retry(&other, "slow", &two, "the other's"));
    assert_eq!((said(&one), said(&two)), (&json!("hers"), &json!("the other's")));
    for end in [&one, &two] {
        assert_eq!((&end["result"]["calls"], &end["result"]["pid"]), (&json!(4), &first[0]["result"]["pid"]));
    }
    assert_eq!((place.state.parked_count(), unheard(&place).await.len()), (0, 1));
}

#[tokio::test]
async fn what_is_taken_for_one_that_asks_is_so_until_it_is_called_alone() {
    let place = Place::start(LONG).await;
    let [alice, other, third] = place.clients();
    let mut held = alice.request("tools/call", json!({"name": "hold", "arguments": {}})).await;
    let (one, two) = tokio::join!(call(&other, "ask"), async {
        place.happens("asked", 1).await;
        call(&third, "echo").await
    });
    is_refused(&one);
    assert!(two["result"].is_object(), "{two}");
    place.has("free");
    assert!(soon(held.event()).await.unwrap().json()["result"].is_object());
    // It is called alone now, and asks nobody.
    assert!(call(&alice, "hold").await["result"].is_object());
    place.lacks("free");
    let held = alice.request("tools/call", json!({"name": "hold", "arguments": {}})).await;
    assert!(call(&third, "echo").await["result"].is_object(), "it is like any other again");
    place.has("free");
    drop(held);
}

#[tokio::test]
async fn a_client_s_answer_waits_until_no_other_call_may_be_asked() {
    let place = Place::start(LONG).await;
    let [alice, other] = place.clients();
    place.has("go");
    let (_, known) = asked(&call(&other, "slow").await);
    assert_eq!(said(&retry(&other, "slow", &known, "known").await), "known");
    place.lacks("go");
    let (_, state) = asked(&call(&alice, "twice").await);
    let before = place.log().len();
    let (two, one, ()) = tokio::join!(
        call(&other, "slow"),
        async {
            place.happens("begun", 3).await;
            retry(&alice, "twice", &state, "once").await
        },
        async {
            place.happens("begun", 3).await;
            place.under_way(2).await;
            place.has("go");
        }
    );
    let log: Vec<_> = place.log().split_off(before).into_iter().filter(|line| line != "read").collect();
    assert_eq!(log, ["begun", "asked", "heard", "asked"]);
    let (one, two) = (asked(&one).1, asked(&two).1);
    assert_eq!(said(&retry(&other, "slow", &two, "the other's").await), "the other's");
    assert_eq!(said(&retry(&alice, "twice", &one, "hers").await), "hers");
}

#[tokio::test]
async fn a_client_that_leaves_while_its_call_waits_holds_up_nobody_and_nothing_was_sent() {
    let place = Place::start(LONG).await;
    let [alice, other, third] = place.clients();
    place.has("go");
    let (_, known) = asked(&call(&other, "slow").await);
    retry(&other, "slow", &known, "known").await;
    place.lacks("go");
    let slow = || json!({"name": "slow", "arguments": {}});
    let mut asking = alice.request("tools/call", slow()).await;
    tokio::select! {
        reply = other.request("tools/call", slow()) => panic!("it had its turn: {}", reply.status),
        () = place.under_way(2) => {}
    }
    place.under_way(1).await;
    place.has("go");
    let (_, state) = asked(&soon(asking.event()).await.unwrap().json());
    assert!(call(&third, "echo").await["result"].is_object());
    assert_eq!(said(&retry(&alice, "slow", &state, "hers").await), "hers");
    assert_eq!(place.log().iter().filter(|line| *line == "begun").count(), 3);
}

#[tokio::test]
async fn a_call_that_waits_for_its_turn_has_the_deadline_of_its_server() {
    let place = Place::start(Duration::from_secs(1)).await;
    let [alice, other] = place.clients();
    place.has("go");
    let (_, known) = asked(&call(&other, "slow").await);
    retry(&other, "slow", &known, "known").await;
    place.lacks("go");
    let mut asking = alice.request("tools/call", json!({"name": "slow", "arguments": {}})).await;
    let late = call(&other, "slow").await;
    assert_eq!(late["error"]["code"], -31007, "{late}");
    place.has("go");
    let (_, state) = asked(&soon(asking.event()).await.unwrap().json());
    assert_eq!(said(&retry(&alice, "slow", &state, "hers").await), "hers");
    assert_eq!(place.log().iter().filter(|line| *line == "begun").count(), 2, "nothing was sent");
}

#[tokio::test]
async fn a_call_that_waits_while_its_process_ends_is_sent_to_the_next_one() {
    let place = Place::start(LONG).await;
    let [alice, other] = place.clients();
    place.has("go");
    let (_, known) = asked(&call(&other, "slow").await);
    retry(&other, "slow", &known, "known").await;
    place.lacks("go");
    let (fallen, sent, ()) = tokio::join!(call(&alice, "slow"), call(&other, "slow"), async {
        place.under_way(2).await;
        place.has("die");
        place.happens("begun", 3).await;
        place.has("go");
    });
    let (fallen, sent) = if fallen["error"].is_object() { (fallen, sent) } else { (sent, fallen) };
    assert_eq!(fallen["error"]["code"], -31006, "{fallen}");
    asked(&sent);
}

#[tokio::test]
async fn what_asks_is_forgotten_when_a_reload_changes_the_server() {
    let place = Place::start(LONG).await;
    let [alice, other] = place.clients();
    place.has("go");
    let (_, known) = asked(&call(&other, "slow").await);
    retry(&other, "slow", &known, "known").await;
    place.lacks("go");
    place.swap(plan(&place.upstream, &place.folder, "two"));
    place.state.sweep();
    place.unknown(&alice, &other).await.iter().for_each(is_refused);
}

#[tokio::test]
async fn what_a_call_asked_whose_client_left_is_asked_of_nobody_else() {
    let place = Place::start(LONG).await;
    let [alice, other] = place.clients();
    let asking = alice.request("tools/call", json!({"name": "slow", "arguments": {}})).await;
    let mut held = other.request("tools/call", json!({"name": "hold", "arguments": {}})).await;
    place.happens("begun", 2).await;
    place.has("go");
    place.happens("read", 1).await;
    drop(asking);
    place.happens("heard", 1).await;
    place.has("free");
    let end = soon(held.event()).await.unwrap().json();
    assert!(end["result"]["content"].is_array(), "{end}");
    assert_eq!(unheard(&place).await.len(), 1);
}

#[tokio::test]
async fn a_call_that_waits_for_its_client_is_not_asked_what_another_is() {
    let place = Place::start(LONG).await;
    let [alice, other] = place.clients();
    let (first, state) = asked(&call(&alice, "twice").await);
    let (of_other, other_state) = asked(&call(&other, "ask").await);
    let (second, state) = asked(&retry(&alice, "twice", &state, "once").await);
    assert_eq!(second.strip_prefix('z'), first.get(1..), "it is the other's: {of_other}");
    assert_eq!(said(&retry(&alice, "twice", &state, "hers").await), "hers");
    assert_eq!(said(&retry(&other, "ask", &other_state, "the other's").await), "the other's");
    assert_eq!(place.state.parked_count(), 0);
}
