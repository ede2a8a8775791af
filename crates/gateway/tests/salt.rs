//! Records commit to what was said, or nothing is said: without the day's salt key calls stop, as without the log.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::ToolSettings;
use inside::{Inside, Plan, outcome};
use serde_json::{Value, json};
use std::{fs, path::PathBuf, time::Duration};
use testkit::{Answer, Upstream, soon};
use vocab::Class;

const DAY: Duration = Duration::from_hours(24);

/// The directory of the keys, with which something may be wrong.
struct Salts(PathBuf);

impl Salts {
    fn of(inside: &Inside) -> Self {
        Self(inside.log().join("salt"))
    }

    /// A file stands where the directory was.
    fn lose(&self) {
        fs::rename(&self.0, self.0.with_extension("aside")).unwrap();
        fs::write(&self.0, "no directory").unwrap();
    }

    fn find(&self) {
        fs::remove_file(&self.0).unwrap();
        fs::rename(self.0.with_extension("aside"), &self.0).unwrap();
    }

    /// A directory stands where the key of the clock's day would.
    fn obstruct(&self, inside: &Inside) -> PathBuf {
        let path = self.0.join(inside.now().as_seconds().div_euclid(86_400).to_string());
        fs::create_dir(&path).unwrap();
        path
    }
}

fn reads() -> Vec<ToolSettings> {
    vec![ToolSettings { tools: "*".to_owned(), class: Class::Read, labels: Vec::new(), danger_skip_schema: false }]
}

fn is_refused(answer: &Value) -> bool {
    answer["error"]["code"] == -31005 && answer["error"]["message"].as_str().unwrap().contains("log")
}

#[tokio::test]
async fn without_a_salt_key_nothing_leaves_until_there_is_one() {
    // What only reads waits for no intent, and stops all the same.
    for (tools, strict) in [(Vec::new(), false), (reads(), false), (reads(), true)] {
        let upstream = Upstream::start().await;
        let inside = Inside::start(Plan { tools, strict, ..Plan::of(&upstream) }).await;
        let salts = Salts::of(&inside);
        let log = inside.state.journal.log();
        let say = async || inside.call(&inside.alice, "echo", &json!({"n": 1})).send().await.json().await;
        assert_eq!(say().await["error"], Value::Null);
        log.takes_calls(inside.now()).unwrap();

        inside.clock.advance(DAY);
        salts.lose();
        assert!(is_refused(&say().await));
        assert_eq!(upstream.seen("tools/call").len(), 1, "nothing leaves that the record does not commit to");
        assert_eq!(outcome(inside.records().await.last().unwrap()), "faulted log intend");
        assert!(log.takes_calls(inside.now()).is_err(), "and whoever asks is told");
        salts.find();
        log.takes_calls(inside.now()).unwrap();
        assert_eq!(say().await["error"], Value::Null);

        inside.clock.advance(DAY);
        let directory = salts.obstruct(&inside);
        assert!(is_refused(&say().await) && log.takes_calls(inside.now()).is_err());
        fs::remove_dir(directory).unwrap();
        assert_eq!(say().await["error"], Value::Null);
        assert_eq!(upstream.seen("tools/call").len(), 3);
        let last = inside.records().await.pop().unwrap();
        assert!(last["arguments"]["digest"].is_string() && last["result"]["digest"].is_string(), "{last:#}");
    }
}

#[tokio::test]
async fn a_day_whose_key_was_destroyed_takes_no_calls() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let say = async || inside.call(&inside.alice, "echo", &json!({})).send().await.json().await;
    let log = inside.state.journal.log();
    assert_eq!(say().await["error"], Value::Null);
    log.salts().forget(inside.now()).unwrap();
    // The destroyed key comes back for nobody, however often it is asked for.
    for _ in 0..2 {
        let no = say().await;
        assert!(is_refused(&no), "{no}");
        assert!(log.takes_calls(inside.now()).is_err());
    }
    assert_eq!(upstream.seen("tools/call").len(), 1, "nothing leaves that the record does not commit to");
    let destroyed = inside.now();

    // The next day has a key of its own, and yesterday's stays destroyed.
    inside.clock.advance(DAY);
    assert_eq!(say().await["error"], Value::Null);
    assert!(log.takes_calls(destroyed).is_err());
    log.takes_calls(inside.now()).unwrap();
    assert_eq!(upstream.seen("tools/call").len(), 2);
}

#[tokio::test]
async fn what_left_before_midnight_is_committed_to_whole_and_what_is_asked_after_it_is_not_asked() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let agent = inside.legacy("/mcp/files", &inside.alice).await;
    let (stream, feed) = Answer::events();
    upstream.next("tools/call", stream);
    let reply = agent.request("tools/call", json!({"name": "echo", "arguments": {"n": 1}})).await;

    // The day ends while the server works, and the next one has no key.
    inside.clock.advance(DAY);
    Salts::of(&inside).lose();
    let params = json!({"messages": [], "maxTokens": 1});
    feed.message(&json!({"jsonrpc": "2.0", "id": 7, "method": "sampling/createMessage", "params": params})).await;
    let no = upstream.arrived("response", 1).await.json();
    assert_eq!((&no["id"], &no["error"]["code"]), (&json!(7), &json!(-31005)), "{no}");
    let id = upstream.seen("tools/call").last().unwrap().id();
    feed.message(&json!({"jsonrpc": "2.0", "id": id, "result": {"content": []}})).await;
    drop(feed);
    assert!(soon(reply.text()).await.contains("\"content\""));

    let records = inside.records().await;
    let call = records.iter().find(|record| record["method"] == "tools/call").unwrap();
    assert_eq!(outcome(call), "answered");
    assert!(call["arguments"]["digest"].is_string() && call["result"]["digest"].is_string(), "{call:#}");
    let asked = records.iter().find(|record| record["parent"] == call["call"]).unwrap();
    assert_eq!(outcome(asked), "faulted log intend");
    // And the next call is of the day that has no key.
    assert!(is_refused(&agent.call("echo", json!({})).await));
    assert_eq!(upstream.seen("tools/call").len(), 1);
}
