//! Whatever panics, wherever: one closed record, and nothing half done that nobody knows of.
#![expect(clippy::unwrap_used, reason = "what the test stands on must be there, or the test has failed")]

mod inside;

use audit::Tree;
use guard::{Detector, Guards, Match, Mode, Setting};
use inside::{Inside, Plan};
use serde_json::{Value, json};
use std::sync::Arc;
use testkit::Upstream;

/// Panics when it sees the word.
struct Brittle;

impl Detector for Brittle {
    fn family(&self) -> &'static str {
        "brittle"
    }

    fn find(&self, text: &str, _: &mut Vec<Match>) {
        assert!(!text.contains("boom"), "the detector breaks, as the test wants");
    }
}

fn calls(upstream: &Upstream) -> usize {
    upstream.seen("tools/call").len()
}

async fn brittle(results: Mode, arguments: Mode) -> (Upstream, Inside) {
    let upstream = Upstream::start().await;
    let guards = Guards::none().with(Arc::new(Brittle), Setting { results, arguments }).unwrap();
    let inside = Inside::start(Plan { guards, ..Plan::of(&upstream) }).await;
    (upstream, inside)
}

#[tokio::test]
async fn a_detector_that_panics_on_arguments_lets_nothing_out() {
    let (upstream, inside) = brittle(Mode::Off, Mode::Mask).await;
    // Modern: the connection ends. Legacy: the session goes on.
    assert!(inside.call(&inside.alice, "echo", &json!({"a": "boom"})).try_send().await.is_err_or_500());
    let agent = inside.legacy("/mcp/files", &inside.alice).await;
    let before = inside.records().await.len();
    let reply = agent.request("tools/call", json!({"name": "echo", "arguments": {"a": "boom"}})).await;
    assert_eq!(reply.status, 500);
    assert_eq!(calls(&upstream), 0);
    let records = inside.records().await;
    assert_eq!(records.len(), before + 1);
    assert_eq!(records.last().unwrap()["outcome"]["is"], "abandoned");
    assert_eq!(records.last().unwrap()["agent"], "alice");
    // The next call is served as if nothing had been.
    assert_eq!(agent.call("echo", json!({"a": "fine"})).await["error"], Value::Null);
}

#[tokio::test]
async fn one_of_a_batch_that_panics_leaves_the_others_alone() {
    let (upstream, inside) = brittle(Mode::Off, Mode::Mask).await;
    let agent = inside.legacy("/mcp/files", &inside.alice).await;
    let call = |id: u32, word: &str| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "echo", "arguments": {"a": word}}});
    let batch = json!([call(1, "boom"), call(2, "fine")]);
    let mut reply = agent.ask("", &batch).replace("mcp-protocol-version", "2025-03-26").send().await;
    let first = testkit::soon(reply.event()).await.unwrap().json();
    assert_eq!((&first["id"], &first["error"]["code"]), (&json!(1), &json!(-32603)), "{first}");
    let second = testkit::soon(reply.event()).await.unwrap().json();
    assert!(second["id"] == 2 && second["result"].is_object(), "{second}");
    assert_eq!(calls(&upstream), 1);
}

#[tokio::test]
async fn a_detector_that_panics_on_a_result_keeps_it_back() {
    let (upstream, inside) = brittle(Mode::Mask, Mode::Off).await;
    let agent = inside.legacy("/mcp/files", &inside.alice).await;
    let reply = agent.request("tools/call", json!({"name": "echo", "arguments": {"a": "boom"}})).await;
    assert_eq!(reply.status, 500);
    assert!(!reply.text().await.contains("boom"));
    assert_eq!(calls(&upstream), 1);
    let records = inside.records().await;
    let last = records.last().unwrap();
    assert_eq!(last["outcome"]["is"], "abandoned", "{last:#}");
    assert!(last["intent"].is_u64(), "the log knew before the server did: {last:#}");
}

#[tokio::test]
async fn a_streamed_result_that_panics_ends_the_stream_and_the_record() {
    let (upstream, inside) = brittle(Mode::Mask, Mode::Off).await;
    let event = |text: &str| {
        let result = json!({"content": [{"type": "text", "text": text}]});
        format!("data: {}\n\n", json!({"jsonrpc": "2.0", "id": 1, "result": result}))
    };
    upstream.next("tools/call", testkit::Answer::event_text(event("boom")));
    let reply = inside.call(&inside.alice, "echo", &json!({})).send().await;
    let call = reply.header("durward-call-id").unwrap().to_owned();
    assert!(!reply.text().await.contains("boom"));
    let records = inside.records().await;
    let of_call: Vec<_> = records.iter().filter(|record| record["call"] == call).collect();
    assert_eq!(of_call.len(), 1);
    assert_eq!(of_call[0]["outcome"]["is"], "abandoned");
}

#[tokio::test]
async fn wherever_the_line_panics_there_is_one_record_and_no_call_without_intent() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let system = |leaves: &[(String, Value)]| leaves.iter().filter(|(_, record)| record["call"].is_string()).count();
    let agent = inside.legacy("/mcp/files", &inside.alice).await;
    assert_eq!(agent.call("echo", json!({"n": 0})).await["error"], Value::Null);

    // The first two readings open the trail: before them there is no call yet.
    let mut panicked = 0;
    for reading in 3.. {
        let before = (
            inside.records().await.len(),
            system(&inside.leaves(&Tree::System).await),
            calls(&upstream),
            inside.intents().await.len(),
        );
        inside.clock.fail_at(reading);
        let reply = agent.request("tools/call", json!({"name": "echo", "arguments": {"n": reading}})).await;
        let status = reply.status;
        drop(reply);
        let unspent = inside.clock.disarm();
        let records = inside.records().await;
        let strangers = system(&inside.leaves(&Tree::System).await) - before.1;
        assert_eq!(records.len() - before.0 + strangers, 1, "one call, one record, at reading {reading}");
        let (sent, intended) = (calls(&upstream) - before.2, inside.intents().await.len() - before.3);
        assert!(sent <= intended, "nothing leaves without a word in the log, at reading {reading}");
        if unspent {
            assert_eq!(status, 200);
            break;
        }
        panicked += 1;
        assert_eq!(status, 500, "at reading {reading}");
        if strangers == 0 {
            assert_eq!(records.last().unwrap()["outcome"]["is"], "abandoned", "at reading {reading}");
        }
    }
    assert!(panicked >= 10, "the line reads the clock at each stage; it panicked {panicked} times");
    assert_eq!(agent.call("echo", json!({"n": "still here"})).await["error"], Value::Null);
}

trait Broken {
    fn is_err_or_500(&self) -> bool;
}

impl Broken for hyper::Result<testkit::Reply> {
    fn is_err_or_500(&self) -> bool {
        self.as_ref().map_or(true, |reply| reply.status == 500)
    }
}
