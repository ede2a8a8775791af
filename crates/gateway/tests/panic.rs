//! Whatever panics, wherever: one closed record, and nothing half done that nobody knows of.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what the test stands on must be there, or the test has failed"
)]

mod inside;

use audit::Tree;
use guard::{Detector, Guards, Match, Mode, Setting};
use inside::{Inside, Plan, outcome};
use serde_json::{Value, json};
use std::sync::Arc;
use testkit::{Answer, Connection, Upstream};

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

/// What a client reads of a call that a panic ended: an error that answers it and names the call, and nothing else.
fn told(answer: &Value, id: u64, record: &Value) {
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(id), &json!(-32603)), "{answer}");
    assert_eq!(answer["error"]["data"]["call"], record["call"], "{answer}");
    assert!(!answer.to_string().contains("boom") && !answer.to_string().contains("breaks"), "{answer}");
}

#[tokio::test]
async fn a_modern_call_that_panics_is_answered_and_its_connection_stays() {
    let (upstream, inside) = brittle(Mode::Off, Mode::Mask).await;
    let ask = |word: &str| inside.call(&inside.alice, "echo", &json!({"a": word}));
    let mut connection = Connection::open(&ask("")).await;
    for _ in 0..3 {
        let (status, body) = connection.send(ask("boom")).await.expect("the connection stays");
        assert_eq!(status, 200);
        let last = inside.records().await.pop().unwrap();
        told(&serde_json::from_slice(&body).unwrap(), 1, &last);
        assert_eq!(outcome(&last), "faulted panic screen");
        assert_eq!((&last["agent"], &last["target"]), (&json!("alice"), &json!("echo")));
    }
    assert_eq!(calls(&upstream), 0);
    let (status, body) = connection.send(ask("fine")).await.expect("the connection stays");
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert!(status == 200 && answer["result"].is_object(), "{answer}");
    assert_eq!(inside.records().await.len(), 4);
}

#[tokio::test]
async fn a_legacy_call_that_panics_is_answered_and_its_session_stays() {
    let (upstream, inside) = brittle(Mode::Off, Mode::Mask).await;
    let agent = inside.legacy("/mcp/files", &inside.alice).await;
    let before = inside.records().await.len();
    let reply = agent.request("tools/call", json!({"name": "echo", "arguments": {"a": "boom"}})).await;
    assert_eq!(reply.status, 200);
    let records = inside.records().await;
    told(&reply.json().await, 2, records.last().unwrap());
    assert_eq!((records.len(), calls(&upstream)), (before + 1, 0));
    assert_eq!(outcome(records.last().unwrap()), "faulted panic screen");
    // The next call is served as if nothing had been.
    assert_eq!(agent.call("echo", json!({"a": "fine"})).await["error"], Value::Null);
}

#[tokio::test]
async fn one_of_a_batch_that_panics_leaves_the_others_alone() {
    let (upstream, inside) = brittle(Mode::Off, Mode::Mask).await;
    let agent = inside.batching("/mcp/files", &inside.alice).await;
    let call = |id: u32, word: &str| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "echo", "arguments": {"a": word}}});
    let batch = json!([call(1, "boom"), call(2, "fine")]);
    let mut reply = agent.ask("", &batch).send().await;
    let (one, other) =
        (testkit::soon(reply.event()).await.unwrap().json(), testkit::soon(reply.event()).await.unwrap().json());
    let (first, second) = if one["id"] == 1 { (one, other) } else { (other, one) };
    assert_eq!((&first["id"], &first["error"]["code"]), (&json!(1), &json!(-32603)), "{first}");
    assert!(second["id"] == 2 && second["result"].is_object(), "{second}");
    assert_eq!(calls(&upstream), 1);
}

#[tokio::test]
async fn a_batch_whose_client_leaves_arrives_to_its_end() {
    let upstream = Upstream::start().await;
    // On one thread whoever asks after her is served when it was seen that she left.
    let inside = Inside::start(Plan { workers: 1, ..Plan::of(&upstream) }).await;
    let alice = inside.batching("/mcp/files", &inside.alice).await;
    let (answer, release) = Answer::status(http::StatusCode::ACCEPTED).held();
    upstream.next("notifications/roots/list_changed", answer);
    let note = |method: &str| json!({"jsonrpc": "2.0", "method": method});
    let batch = json!([note("notifications/roots/list_changed"), note("notifications/roots/list_changed")]);
    let told = tokio::spawn(alice.ask("", &batch).send());
    testkit::soon(upstream.arrived("notifications/roots/list_changed", 1)).await;
    told.abort();
    assert!(told.await.is_err());
    for _ in 0..20 {
        testkit::Ask::get(&inside.url("/none")).send().await;
    }
    // Where she takes the first with her, nobody waits for this.
    let _ = release.send(());
    testkit::soon(upstream.arrived("notifications/roots/list_changed", 2)).await;
}

#[tokio::test]
async fn a_detector_that_panics_on_a_result_keeps_it_back() {
    let (upstream, inside) = brittle(Mode::Mask, Mode::Off).await;
    let agent = inside.legacy("/mcp/files", &inside.alice).await;
    let reply = agent.request("tools/call", json!({"name": "echo", "arguments": {"a": "boom"}})).await;
    assert_eq!(reply.status, 200);
    assert_eq!(calls(&upstream), 1);
    let records = inside.records().await;
    let last = records.last().unwrap();
    told(&reply.json().await, 2, last);
    assert_eq!(outcome(last), "withheld panic release", "{last:#}");
    assert!(last["intent"].is_u64(), "the log knew before the server did: {last:#}");
}

#[tokio::test]
async fn a_streamed_result_that_panics_ends_the_stream_and_the_record() {
    let (upstream, inside) = brittle(Mode::Mask, Mode::Off).await;
    upstream.always("tools/call", |request| {
        let result = json!({"content": [{"type": "text", "text": "boom"}]});
        let answer = json!({"jsonrpc": "2.0", "id": request.id(), "result": result});
        Answer::event_text(format!("data: {answer}\n\n"))
    });
    let legacy = inside.legacy("/mcp/files", &inside.alice).await;
    let modern = inside.modern("/mcp/files", &inside.alice);
    for agent in [modern, legacy] {
        let mut reply = agent.request("tools/call", json!({"name": "echo"})).await;
        let call = reply.header("durward-call-id").unwrap().to_owned();
        let last = testkit::soon(reply.event()).await.expect("the stream says why it ends").json();
        assert_eq!(testkit::soon(reply.event()).await, None, "and ends");
        let records = inside.records().await;
        let of_call: Vec<_> = records.iter().filter(|record| record["call"] == call).collect();
        assert_eq!(of_call.len(), 1);
        told(&last, last["id"].as_u64().unwrap(), of_call[0]);
        assert_eq!(outcome(of_call[0]), "withheld panic release");
    }
}

#[tokio::test]
async fn wherever_the_line_panics_there_is_one_record_and_no_call_without_intent() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let system = |leaves: &[(String, Value)]| leaves.iter().filter(|(_, record)| record["call"].is_string()).count();
    let agent = inside.legacy("/mcp/files", &inside.alice).await;
    assert_eq!(agent.call("echo", json!({"n": 0})).await["error"], Value::Null);

    // The first two readings open the trail: what breaks there was never read, and is recorded as that.
    let mut panicked = 0;
    for reading in 1.. {
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
        assert_eq!(status, if reading < 3 { 500 } else { 200 }, "at reading {reading}");
        if strangers == 0 {
            // The last reading is that of the end, when nothing is left to be closed but by itself.
            let outcome = outcome(records.last().unwrap());
            assert!(outcome.contains("panic") || outcome == "abandoned", "at reading {reading}: {outcome}");
        }
    }
    assert!(panicked >= 10, "the line reads the clock at each stage; it panicked {panicked} times");
    assert_eq!(agent.call("echo", json!({"n": "still here"})).await["error"], Value::Null);
}
