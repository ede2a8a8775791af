//! What lies between the rounds of a bridged call: questions that nobody waits for any more, limits and the log's word for
//! each round, subscriptions that the server has taken.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::{
    limit::{Allowance, LimitSetting, LimitSettings, Rate},
    settings::EraSettings,
};
use inside::{Inside, Plan, outcome};
use serde_json::{Value, json};
use std::{
    pin::pin,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use testkit::{Agent, Answer, Reply, Streamer, Upstream, soon};
use tokio::time::timeout;

fn modern(upstream: &Upstream) -> Plan {
    Plan { era: EraSettings::Modern, ..Plan::of(upstream) }
}

fn tool(path: &str) -> &'static str {
    if path == "/mcp" { "files__echo" } else { "echo" }
}

/// A server that asks for two things at once before it answers.
async fn curious() -> Upstream {
    let upstream = Upstream::start().await;
    upstream.always("tools/call", |request| {
        let params = &request.json()["params"];
        let result = if params["inputResponses"].is_null() {
            let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
            let who = json!({"method": "elicitation/create", "params": {"mode": "form", "message": "Who?", "requestedSchema": schema}});
            json!({"resultType": "input_required", "inputRequests": {"roots": {"method": "roots/list"}, "who": who}})
        } else {
            json!({"resultType": "complete", "content": []})
        };
        Answer::result(&request.id(), &result)
    });
    upstream
}

async fn event(stream: &mut Reply) -> Value {
    soon(stream.event()).await.expect("the stream goes on").json()
}

/// A call and the two questions that came of it.
async fn asked(agent: &Agent, path: &str) -> (Reply, [Value; 2]) {
    let call = json!({"jsonrpc": "2.0", "id": "mine", "method": "tools/call", "params": {"name": tool(path), "arguments": {}}});
    let mut stream = agent.ask("tools/call", &call).send().await;
    let mut questions = [event(&mut stream).await, event(&mut stream).await];
    questions.sort_by_key(|question| question["method"].to_string());
    (stream, questions)
}

async fn reply(agent: &Agent, question: &Value, member: &str, value: Value) -> u16 {
    let mut text = json!({"jsonrpc": "2.0", "id": question["id"]});
    text[member] = value;
    agent.ask("response", &text).send().await.status.as_u16()
}

/// What takes questions back, and then the end of the call.
async fn ends(stream: &mut Reply, open: &[&Value]) -> Value {
    for question in open {
        let told = event(stream).await;
        assert_eq!(told["method"], "notifications/cancelled", "{told}");
        assert_eq!(told["params"]["requestId"], question["id"], "{told}");
    }
    event(stream).await
}

#[tokio::test]
async fn a_call_that_ends_early_takes_its_open_questions_back() {
    for path in ["/mcp/files", "/mcp"] {
        let upstream = curious().await;
        let inside = Inside::start(modern(&upstream)).await;
        let alice = inside.legacy(path, &inside.alice).await;

        // The client takes the call back.
        let (mut stream, [who, roots]) = asked(&alice, path).await;
        alice.notify("notifications/cancelled", json!({"requestId": "mine"})).await;
        let end = ends(&mut stream, &[&roots, &who]).await;
        assert!(end["error"]["message"].as_str().unwrap().contains("cancelled"), "{end}");

        // It answers one of them with what no retry has a place for.
        let (mut stream, [who, roots]) = asked(&alice, path).await;
        let no = json!({"code": -32000, "message": "no"});
        assert_eq!(reply(&alice, &roots, "error", no).await, 202);
        let end = ends(&mut stream, &[&who]).await;
        assert_eq!(end["error"]["code"], -31006, "{end}");

        // What is answered is not taken back.
        let (mut stream, [who, roots]) = asked(&alice, path).await;
        reply(&alice, &roots, "result", json!({"roots": []})).await;
        reply(&alice, &who, "result", json!({"action": "decline"})).await;
        assert!(ends(&mut stream, &[]).await["result"].is_object());
    }
}

/// What is said of the answers to questions, the latest last.
async fn answers(inside: &Inside) -> Vec<Value> {
    inside.records().await.into_iter().filter(|record| record["method"] == "response").collect()
}

#[tokio::test]
async fn an_answer_to_a_question_that_was_taken_back_meanwhile_is_nobodys_fault() {
    let upstream = curious().await;
    let inside = Inside::start(modern(&upstream)).await;
    let is_late = |record: &Value| {
        assert_eq!((outcome(record).as_str(), &record["http_status"]), ("abandoned", &json!(202)), "{record:#}");
        assert_eq!(record["error"], "the question was taken back before its answer came", "{record:#}");
    };
    for path in ["/mcp/files", "/mcp"] {
        let alice = inside.legacy(path, &inside.alice).await;
        let (mut stream, [who, roots]) = asked(&alice, path).await;
        alice.notify("notifications/cancelled", json!({"requestId": "mine"})).await;
        ends(&mut stream, &[&roots, &who]).await;
        let late = json!({"jsonrpc": "2.0", "id": who["id"], "result": {"action": "decline"}});
        let taken = alice.ask("response", &late).send().await;
        assert_eq!((taken.status.as_u16(), taken.text().await.as_str()), (202, ""));
        is_late(answers(&inside).await.last().unwrap());
        // As any other it is given once.
        let again = alice.ask("response", &late).send().await;
        assert_eq!(again.status, 400);
        assert_eq!(answers(&inside).await.last().unwrap()["http_status"], 400);
    }
    // So it is for a client of 2024, which has no word for `elicitation/create`.
    upstream.always("tools/call", |request| {
        let wanted = json!({"roots": {"method": "roots/list"}});
        Answer::result(&request.id(), &json!({"resultType": "input_required", "inputRequests": wanted}))
    });
    for (path, tool) in [("/sse/files", "echo"), ("/sse", "files__echo")] {
        let mut alice = Streamer::begin(&inside.url(path), Some(&inside.alice)).await.0;
        let call = alice.send("tools/call", json!({"name": tool, "arguments": {}})).await;
        let question = alice.message().await["id"].clone();
        let cancelled = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": call}});
        alice.post(&cancelled).await;
        assert_eq!(alice.message().await["params"]["requestId"], question);
        assert_eq!(alice.message().await["id"], call);
        let taken = alice.post(&json!({"jsonrpc": "2.0", "id": question, "result": {"roots": []}})).await;
        assert_eq!((taken.status.as_u16(), taken.text().await.as_str()), (202, ""));
        is_late(answers(&inside).await.last().unwrap());
        assert_eq!(alice.request("ping", json!({})).await["result"], json!({}), "nothing of it is on the stream");
    }
    assert_eq!(upstream.seen("tools/call").len(), 4, "and nothing of it leaves");
}

#[tokio::test]
async fn the_first_no_ends_a_call_whatever_was_asked_before() {
    let upstream = Upstream::start().await;
    upstream.always("tools/call", |request| {
        let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
        let who = json!({"method": "elicitation/create", "params": {"mode": "form", "message": "Who?", "requestedSchema": schema}});
        let asked = json!({"a": who, "b": who, "c": {"method": "roots/list"}});
        Answer::result(&request.id(), &json!({"resultType": "input_required", "inputRequests": asked}))
    });
    for path in ["/mcp/files", "/mcp"] {
        let inside = Inside::start(modern(&upstream)).await;
        let alice = inside.legacy(path, &inside.alice).await;
        let mut stream = alice.request("tools/call", json!({"name": tool(path), "arguments": {}})).await;
        let [first, second, roots] = [event(&mut stream).await, event(&mut stream).await, event(&mut stream).await];
        assert_eq!(reply(&alice, &second, "result", json!({"action": "decline"})).await, 202);
        assert_eq!(reply(&alice, &roots, "error", json!({"code": -32000, "message": "no"})).await, 202);
        let end = ends(&mut stream, &[&first]).await;
        assert_eq!(end["error"]["code"], -31006, "{path}: {end}");
    }
    assert_eq!(upstream.seen("tools/call").len(), 2, "nobody is asked again");
}

#[tokio::test]
async fn questions_of_a_call_that_the_gateway_ends_are_taken_back_too() {
    let upstream = curious().await;
    let inside = Inside::start(modern(&upstream)).await;
    let alice = inside.legacy("/mcp", &inside.alice).await;
    let (mut stream, [who, roots]) = asked(&alice, "/mcp").await;
    let rules = json!([{"id": "none", "action": "*", "target": "*/*", "effect": "deny"}]);
    inside.swap(Plan { policy: json!({"policy": "test", "rules": rules}), ..modern(&upstream) });
    let end = ends(&mut stream, &[&roots, &who]).await;
    assert!(end["error"].is_object(), "{end}");
    assert_eq!(upstream.seen("tools/call").len(), 1);
}

#[tokio::test]
async fn a_client_that_reads_nothing_does_not_keep_the_record_of_its_call_open() {
    // Together more than there is room for on the way to the client, sockets included.
    const QUESTIONS: usize = 17;
    let upstream = Upstream::start().await;
    upstream.always("tools/call", |request| {
        let params = json!({"mode": "form", "message": "?".repeat(900_000), "requestedSchema": {"type": "object", "properties": {}}});
        let question = json!({"method": "elicitation/create", "params": params});
        let asked: serde_json::Map<_, _> = (0..QUESTIONS).map(|number| (number.to_string(), question.clone())).collect();
        Answer::result(&request.id(), &json!({"resultType": "input_required", "inputRequests": asked}))
    });
    let plan = || Plan { era: EraSettings::Modern, ..Plan::of(&upstream) };
    let inside = Inside::start(plan()).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let stream = alice.request("tools/call", json!({"name": "echo", "arguments": {}})).await;
    let closed = async |what: &str| {
        let records = inside.records().await;
        records.iter().filter(|record| record["method"] == what).count()
    };
    // The first have left, and the next ones wait for the client.
    soon(async { while closed("elicitation/create").await == 0 {} }).await;
    let rules = json!([{"id": "none", "action": "*", "target": "*/*", "effect": "deny"}]);
    inside.swap(Plan { policy: json!({"policy": "test", "rules": rules}), ..plan() });
    // Each question is taken back, which the client would have to read.
    soon(async { while closed("tools/call").await == 0 {} }).await;
    drop(stream);
}

#[tokio::test]
async fn every_round_has_an_intent_and_a_record_of_its_own() {
    let upstream = curious().await;
    let inside = Inside::start(modern(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let (mut stream, [who, roots]) = asked(&alice, "/mcp/files").await;
    assert_eq!(inside.intents().await.len(), 1);
    reply(&alice, &roots, "result", json!({"roots": []})).await;
    reply(&alice, &who, "result", json!({"action": "accept", "content": {"name": "Ada"}})).await;
    assert!(ends(&mut stream, &[]).await["result"].is_object());
    drop(stream);

    let (intents, records) = (inside.intents().await, inside.records().await);
    let calls: Vec<_> = records.iter().filter(|record| record["method"] == "tools/call").collect();
    let [round, call] = calls.as_slice() else { panic!("{calls:?}") };
    assert_eq!((&round["parent"], round["outcome"]["is"].as_str()), (&call["call"], Some("answered")), "{round}");
    for member in ["agent", "server", "target", "action", "class", "session", "bridge", "rules", "policy"] {
        assert_eq!(round[member], call[member], "{member}");
    }
    assert!(round["arguments"].is_object() && round["arguments"] != call["arguments"], "{round}");
    let known: Vec<_> = intents.iter().map(|intent| &intent["call"]).collect();
    assert_eq!(known, [&call["call"], &round["call"]]);
    assert!(round["intent"].is_number() && round["intent"] != call["intent"], "{round}");
}

#[tokio::test]
async fn every_round_counts_against_the_limits() {
    let rule = LimitSetting {
        agent: Some("*".to_owned()),
        tool: Some("files/echo".to_owned()),
        server: None,
        tenant: None,
        allowance: Allowance { rate: Rate { count: 3, per: Duration::from_hours(1) }, burst: 3 },
        // A round is made in the place that its call has.
        concurrency: Some(1),
    };
    let limits = LimitSettings { rules: vec![rule], ..LimitSettings::default() };
    let upstream = Upstream::start().await;
    upstream.always("tools/call", |request| {
        Answer::result(&request.id(), &json!({"resultType": "input_required", "requestState": "again"}))
    });
    let inside = Inside::start(Plan { limits, ..modern(&upstream) }).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let end = alice.call("echo", json!({})).await;
    assert_eq!(end["error"]["code"], -31002, "{end}");
    assert!(end["error"]["data"]["retryAfter"].is_u64(), "{end}");
    assert_eq!(upstream.seen("tools/call").len(), 3);
    let records = inside.records().await;
    let outcomes: Vec<_> = records.iter().filter(|record| record["method"] == "tools/call").map(outcome).collect();
    assert_eq!(outcomes, ["answered", "answered", "refused rate limit", "faulted round forward"]);
}

#[tokio::test]
async fn a_round_that_the_server_leaves_without_an_answer_is_recorded_so() {
    let upstream = curious().await;
    let inside = Inside::start(modern(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let (mut stream, [who, roots]) = asked(&alice, "/mcp/files").await;
    upstream.next("tools/call", Answer::event_text(": nothing\n\n".to_owned()));
    reply(&alice, &roots, "result", json!({"roots": []})).await;
    reply(&alice, &who, "result", json!({"action": "decline"})).await;
    assert_eq!(ends(&mut stream, &[]).await["error"]["code"], -31006);
    let records = inside.records().await;
    let outcomes: Vec<_> = records.iter().filter(|record| record["method"] == "tools/call").map(outcome).collect();
    assert_eq!(outcomes, ["faulted upstream-cut forward"; 2]);
}

#[tokio::test]
async fn a_round_that_is_refused_gives_back_what_it_took() {
    let limits = || {
        let allowance = Allowance { rate: Rate { count: 2, per: Duration::from_hours(1) }, burst: 2 };
        let tool = Some("files/echo".to_owned());
        let rule = LimitSetting { agent: None, tool, server: None, tenant: None, allowance, concurrency: None };
        LimitSettings { rules: vec![rule], ..LimitSettings::default() }
    };
    let rules = json!([
        {"id": "all", "action": "*", "target": "*/*", "effect": "allow"},
        {"id": "late", "action": "tool.execute", "target": "files/echo", "effect": "deny"},
    ]);
    let upstream = curious().await;
    let inside = Inside::start(Plan { limits: limits(), ..modern(&upstream) }).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let (mut stream, [who, roots]) = asked(&alice, "/mcp/files").await;
    let policy = json!({"policy": "test", "rules": rules});
    inside.swap(Plan { limits: limits(), policy, ..modern(&upstream) });
    reply(&alice, &roots, "result", json!({"roots": []})).await;
    reply(&alice, &who, "result", json!({"action": "decline"})).await;
    assert!(ends(&mut stream, &[]).await["error"]["message"].as_str().unwrap().contains("withdrawn"));

    // The round did not leave: of two there is one left.
    inside.swap(Plan { limits: limits(), ..modern(&upstream) });
    let (mut stream, [who, roots]) = asked(&alice, "/mcp/files").await;
    reply(&alice, &roots, "result", json!({"roots": []})).await;
    reply(&alice, &who, "result", json!({"action": "decline"})).await;
    assert_eq!(ends(&mut stream, &[]).await["error"]["code"], -31002);
    assert_eq!(upstream.seen("tools/call").len(), 2);
}

#[tokio::test]
async fn every_round_is_a_span_of_the_trace_of_its_call() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    for exported in [true, false] {
        let upstream = curious().await;
        let inside = Inside::start(Plan { traces: exported, ..modern(&upstream) }).await;
        let alice = inside.legacy("/mcp/files", &inside.alice).await;
        let text = json!({"jsonrpc": "2.0", "id": "mine", "method": "tools/call", "params": {"name": "echo", "arguments": {}}});
        let theirs = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let mut stream = alice.ask("tools/call", &text).header("traceparent", &theirs).send().await;
        for _ in 0..2 {
            let question = event(&mut stream).await;
            let result =
                if question["method"] == "roots/list" { json!({"roots": []}) } else { json!({"action": "decline"}) };
            reply(&alice, &question, "result", result).await;
        }
        assert!(event(&mut stream).await["result"].is_object());
        drop(stream);
        let records = inside.records().await;
        let rounds = records.iter().filter(|record| record["method"] == "tools/call");
        // The record of the call is closed last.
        let rounds: Vec<_> = rounds.map(|record| (record["call"].as_str().unwrap(), &record["trace"])).rev().collect();
        let sent = upstream.seen("tools/call");
        assert_eq!((rounds.len(), sent.len()), (2, 2));
        for ((call, trace), sent) in rounds.into_iter().zip(&sent) {
            assert_eq!(trace, TRACE);
            // The span that the server hears of is the one that is exported.
            let ours = format!("00-{TRACE}-{}-01", call.get(16..).unwrap());
            assert_eq!(sent.header("traceparent"), Some(if exported { &*ours } else { &*theirs }));
        }
    }
}

/// The first message of a stream, for what is asked.
fn acknowledged(request: &testkit::Received, honoured: &Value) -> Value {
    let meta = json!({"io.modelcontextprotocol/subscriptionId": request.id()});
    let params = json!({"_meta": meta, "notifications": honoured});
    json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params})
}

#[tokio::test]
async fn a_subscription_is_answered_when_the_server_has_taken_it() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(modern(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    // To a client that does not listen nothing could be told.
    let early = alice.request("resources/subscribe", json!({"uri": "file:///early"})).await.json().await;
    assert_eq!(early["result"], json!({}));

    let (first, before) = Answer::events();
    upstream.next("subscriptions/listen", first);
    let mut listener = alice.listen().await;
    let asked = soon(upstream.arrived("subscriptions/listen", 1)).await;
    before.message(&acknowledged(&asked, &asked.json()["params"]["notifications"])).await;
    let updated =
        |uri: &str| json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}});
    before.message(&updated("file:///early")).await;
    assert_eq!(event(&mut listener).await, updated("file:///early"));

    let (second, after) = Answer::events();
    upstream.next("subscriptions/listen", second);
    let mut asking =
        pin!(async { alice.request("resources/subscribe", json!({"uri": "file:///a"})).await.json().await });
    let asked = tokio::select! {
        biased;
        answer = &mut asking => panic!("answered too early: {answer}"),
        asked = upstream.arrived("subscriptions/listen", 2) => asked,
    };
    assert!(timeout(Duration::from_millis(100), &mut asking).await.is_err(), "the server has not taken it");
    // What is said meanwhile comes on the stream that was there before.
    before.message(&updated("file:///early")).await;
    assert_eq!(event(&mut listener).await, updated("file:///early"));
    after.message(&acknowledged(&asked, &asked.json()["params"]["notifications"])).await;
    assert_eq!(soon(asking).await["result"], json!({}));
    soon(before.closed()).await;
    after.message(&updated("file:///a")).await;
    assert_eq!(event(&mut listener).await, updated("file:///a"));
}

#[tokio::test]
async fn a_subscription_that_the_server_does_not_take_is_refused() {
    let upstream = Upstream::start().await;
    let mut plan = modern(&upstream);
    // Long enough for whatever is answered, on a slow machine, too; short enough to be waited for once.
    plan.bounds.deadline = Duration::from_secs(3);
    let inside = Inside::start(plan).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let _listener = alice.listen().await;
    // It honours something else, refuses, or says nothing at all.
    let silent = Mutex::new(Vec::new());
    upstream.always("subscriptions/listen", move |request| {
        let uris = request.json()["params"]["notifications"]["resourceSubscriptions"].clone();
        match uris[0].as_str() {
            Some("file:///other") => Answer::event_text(format!("data: {}\n\n", acknowledged(request, &json!({})))),
            Some("file:///refused") => Answer::error(&request.id(), -32602, "no"),
            _ => {
                let (answer, feed) = Answer::events();
                silent.lock().unwrap().push(feed);
                answer
            }
        }
    });
    for (uri, code, word) in [
        ("file:///other", -32602, "does not tell"),
        ("file:///refused", -32602, "does not take"),
        ("file:///silent", -31007, "in time"),
    ] {
        let answer = soon(async { alice.request("resources/subscribe", json!({"uri": uri})).await.json().await }).await;
        assert_eq!(answer["error"]["code"], code, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(word), "{answer}");
    }
    // What was not taken is not asked for again.
    let last = upstream.seen("subscriptions/listen").pop().unwrap().json();
    assert_ne!(last["params"]["notifications"]["resourceSubscriptions"], json!(["file:///other"]), "{last}");
}

#[tokio::test]
async fn a_subscription_that_nobody_answers_is_no_fault_of_the_client() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(modern(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let _listener = alice.listen().await;
    soon(upstream.arrived("subscriptions/listen", 1)).await;
    let subscribe = async |uri: &str| {
        soon(async { alice.request("resources/subscribe", json!({"uri": uri})).await.json().await }).await
    };
    upstream.always("subscriptions/listen", |_| Answer::event_text(": nothing\n\n".to_owned()));
    let silent = subscribe("file:///silent").await;
    assert_eq!(silent["error"]["code"], -31006, "{silent}");
    assert!(silent["error"]["message"].as_str().unwrap().contains("broke off"), "{silent}");
    upstream.always("subscriptions/listen", |_| Answer::status(http::StatusCode::SERVICE_UNAVAILABLE));
    let broken = subscribe("file:///broken").await;
    assert_eq!(broken["error"]["code"], -31006, "{broken}");
    upstream.kill();
    let gone = subscribe("file:///gone").await;
    assert_eq!(gone["error"]["code"], -31006, "{gone}");
    assert!(gone["error"]["message"].as_str().unwrap().contains("cannot be reached"), "{gone}");
    let records = inside.records().await;
    let last = records.iter().rfind(|record| record["method"] == "resources/subscribe").unwrap();
    assert_eq!(outcome(last), "faulted upstream-down forward");
}

fn sessions(inside: &Inside) -> usize {
    let count = AtomicUsize::new(0);
    inside.state.end_sessions(|_| {
        count.fetch_add(1, Ordering::Relaxed);
        false
    });
    count.into_inner()
}

#[tokio::test]
async fn a_client_that_leaves_while_it_introduces_itself_leaves_no_session() {
    let discovered = json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {}, "ttlMs": 0, "cacheScope": "private"});
    let initialized =
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}});
    let ways = [(EraSettings::Modern, "server/discover", discovered), (EraSettings::Legacy, "initialize", initialized)];
    for (era, method, result) in ways {
        let upstream = Upstream::start().await;
        let (releases, mut held) = tokio::sync::mpsc::unbounded_channel();
        upstream.always(method, move |request| {
            let (answer, release) = Answer::result(&request.id(), &result).held();
            releases.send(release).unwrap();
            answer
        });
        let inside = Inside::start(Plan { era, ..Plan::of(&upstream) }).await;
        let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}});
        // Nothing says when a gateway has noticed that a client is gone; where it does not, this never comes true.
        let mut is_gone = false;
        for tries in 1..50 {
            let ask = testkit::Ask::post(&inside.url("/mcp/files"), hello.to_string()).bearer(&inside.alice);
            let asking = tokio::spawn(ask.header("accept", "application/json, text/event-stream").send());
            let release = soon(held.recv()).await.unwrap();
            asking.abort();
            assert!(asking.await.is_err());
            for _ in 0..tries {
                testkit::Ask::get(&inside.url("/none")).send().await;
            }
            drop(release);
            soon(async { while inside.records().await.len() < tries {} }).await;
            is_gone = sessions(&inside) == 0;
            if is_gone {
                break;
            }
            inside.state.end_sessions(|_| true);
        }
        assert!(is_gone, "{method}");
    }
}

#[tokio::test]
async fn progress_does_not_go_back_where_a_round_begins_anew() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(modern(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let streams = [Answer::events(), Answer::events()];
    let [(first, one), (second, two)] = streams;
    upstream.next("tools/call", first).next("tools/call", second);
    let call = json!({"jsonrpc": "2.0", "id": "mine", "method": "tools/call",
        "params": {"name": "echo", "arguments": {}, "_meta": {"progressToken": "p"}}});
    let mut stream = alice.ask("tools/call", &call).send().await;
    let mut said = Vec::new();
    for (number, feed) in [one, two].into_iter().enumerate() {
        let asked = upstream.arrived("tools/call", number + 1).await.json();
        for progress in [1, 2, 2 + number] {
            let params = json!({"progressToken": asked["params"]["_meta"]["progressToken"], "progress": progress});
            feed.message(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})).await;
        }
        let result = if number == 0 {
            json!({"resultType": "input_required", "inputRequests": {"roots": {"method": "roots/list"}}})
        } else {
            json!({"resultType": "complete", "content": []})
        };
        feed.message(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": result})).await;
        drop(feed);
        loop {
            let event = event(&mut stream).await;
            match event["method"].as_str() {
                Some("notifications/progress") => said.push(event["params"]["progress"].clone()),
                Some("roots/list") => {
                    assert_eq!(reply(&alice, &event, "result", json!({"roots": []})).await, 202);
                    break;
                }
                _ => break,
            }
        }
    }
    // What a server repeats within a round is its own.
    assert_eq!(said, [1, 2, 2, 3]);
}
