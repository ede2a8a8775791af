//! What a legacy server says on its listening stream in the course of a modern client's call.
#![expect(clippy::indexing_slicing, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::EraSettings;
use identity::{ClaimPath, IssuerSetting, JwksSource};
use inside::{Inside, Plan, outcome};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::{Agent, Answer, Feed, Issuer, Kind, Reply, Upstream, meta, soon};
use vocab::IssuerName;

fn legacy(upstream: &Upstream) -> Plan {
    Plan { era: EraSettings::Legacy, ..Plan::of(upstream) }
}

fn tool(path: &str) -> &'static str {
    if path == "/mcp" { "files__echo" } else { "echo" }
}

fn question(id: &str) -> Value {
    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
    let params = json!({"message": "Who?", "requestedSchema": schema});
    json!({"jsonrpc": "2.0", "id": id, "method": "elicitation/create", "params": params})
}

/// Its next listening stream, and the test's end of it.
fn listening(upstream: &Upstream) -> Feed {
    let (events, feed) = Answer::events();
    upstream.next("GET", events);
    feed
}

/// A call whose answer is up to the test.
async fn begun(upstream: &Upstream, agent: &Agent, path: &str) -> (Feed, Reply) {
    let (events, feed) = Answer::events();
    upstream.next("tools/call", events);
    (feed, agent.request("tools/call", json!({"name": tool(path), "arguments": {}})).await)
}

fn retry(path: &str, asked: &Value) -> Value {
    let result = &asked["result"];
    assert_eq!(result["resultType"], "input_required", "{asked}");
    let answer = json!({"action": "accept", "content": {"name": "Ada"}});
    let state = &result["requestState"];
    json!({"name": tool(path), "arguments": {}, "requestState": state, "inputResponses": {"question": answer}})
}

fn finished(call: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": call, "result": {"content": [{"type": "text", "text": "done"}]}})
}

fn said(answer: &Value) -> &Value {
    &answer["result"]["content"][0]["text"]
}

#[tokio::test]
async fn a_question_on_the_listening_stream_is_one_of_the_call_under_way() {
    for path in ["/mcp/files", "/mcp"] {
        let upstream = Upstream::start().await;
        let inside = Inside::start(legacy(&upstream)).await;
        let alice = inside.modern(path, &inside.alice);
        alice.tools().await;
        let before = upstream.seen("GET").len();
        let stream = listening(&upstream);
        let (feed, mut reply) = begun(&upstream, &alice, path).await;
        stream.message(&question("q1")).await;
        let asked = soon(reply.event()).await.unwrap().json();
        let mut second = alice.request("tools/call", retry(path, &asked)).await;
        let heard = upstream.arrived("response", 1).await;
        assert_eq!((&heard.id(), &heard.json()["result"]["content"]["name"]), (&json!("q1"), &json!("Ada")));
        let call = upstream.seen("tools/call").pop().unwrap();
        assert_eq!(heard.header("mcp-session-id"), call.header("mcp-session-id"));
        // Again, and in between it says something where it answers.
        stream.message(&question("q2")).await;
        let asked = soon(second.event()).await.unwrap().json();
        let mut third = alice.request("tools/call", retry(path, &asked)).await;
        assert_eq!(upstream.arrived("response", 2).await.id(), "q2");
        feed.message(&finished(&call.id())).await;
        assert_eq!(said(&soon(third.event()).await.unwrap().json()), "done");
        drop(third);
        assert_eq!((inside.state.parked_count(), upstream.seen("tools/call").len()), (0, 1));
        let requests = upstream.requests();
        let at = |name: &str| requests.iter().rposition(|seen| seen.name() == name).unwrap();
        assert!(at("GET") < at("tools/call"), "the stream is there before the call");
        // It stays for the next call.
        alice.call(tool(path), json!({})).await;
        assert_eq!(upstream.seen("GET").len(), before + 1);
        let records = inside.records().await;
        let question = records.iter().find(|record| record["action"] == "server.elicit").unwrap();
        let call = records.iter().find(|record| record["action"] == "tool.execute").unwrap();
        assert_eq!((outcome(question).as_str(), &question["parent"]), ("answered", &call["call"]));
    }
}

#[tokio::test]
async fn a_question_that_is_taken_back_on_the_listening_stream_is_not_answered() {
    for path in ["/mcp/files", "/mcp"] {
        let upstream = Upstream::start().await;
        let inside = Inside::start(legacy(&upstream)).await;
        let alice = inside.modern(path, &inside.alice);
        alice.tools().await;
        let stream = listening(&upstream);
        let (feed, mut reply) = begun(&upstream, &alice, path).await;
        stream.message(&question("q1")).await;
        let asked = soon(reply.event()).await.unwrap().json();
        let cancelled = json!({"requestId": "q1", "reason": "enough"});
        stream.message(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled})).await;
        // What comes behind it is answered: it was read.
        stream.message(&json!({"jsonrpc": "2.0", "id": "p", "method": "ping"})).await;
        assert_eq!(upstream.arrived("response", 1).await.id(), "p");
        let mut second = alice.request("tools/call", retry(path, &asked)).await;
        feed.message(&finished(&upstream.seen("tools/call").pop().unwrap().id())).await;
        assert_eq!(said(&soon(second.event()).await.unwrap().json()), "done");
        assert_eq!(upstream.seen("response").len(), 1, "{path}");
        assert_eq!(inside.state.parked_count(), 0);
    }
}

#[tokio::test]
async fn a_server_that_begins_no_answer_before_it_was_answered_may_ask_too() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    let stream = listening(&upstream);
    // Numbers of a session count from 1.
    let (answer, release) = Answer::json(finished(&json!(1)).to_string()).held();
    upstream.next("tools/call", answer);
    let calling = alice.call("echo", json!({}));
    let (asked, ()) = tokio::join!(calling, async {
        upstream.arrived("tools/call", 1).await;
        stream.message(&question("q")).await;
    });
    assert_eq!(inside.state.parked_count(), 1);
    let (end, ()) = tokio::join!(async { alice.request("tools/call", retry("", &asked)).await.json().await }, async {
        upstream.arrived("response", 1).await;
        release.send(()).unwrap();
    });
    assert_eq!(said(&end), "done", "{end}");
    // One that nobody comes back for is given up, and the server is told.
    let (answer, _release) = Answer::status(http::StatusCode::OK).held();
    upstream.next("tools/call", answer);
    let calling = alice.call("echo", json!({}));
    let (_, ()) = tokio::join!(calling, async {
        upstream.arrived("tools/call", 2).await;
        stream.message(&question("q")).await;
    });
    inside.clock.advance(Duration::from_secs(301));
    inside.state.sweep();
    let told = upstream.arrived("notifications/cancelled", 1).await.json();
    assert_eq!(told["params"]["requestId"], upstream.seen("tools/call").pop().unwrap().id());
    upstream.abandoned(1).await;
}

#[tokio::test]
async fn an_answer_that_begins_late_is_a_stream_all_the_same() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    let stream = listening(&upstream);
    let (events, feed) = Answer::events();
    let (answer, release) = events.held();
    upstream.next("tools/call", answer);
    let (asked, ()) = tokio::join!(alice.call("echo", json!({})), async {
        upstream.arrived("tools/call", 1).await;
        stream.message(&question("q")).await;
    });
    let mut again = retry("", &asked);
    again["_meta"] = meta();
    again["_meta"]["progressToken"] = json!("mine");
    let number = upstream.seen("tools/call").pop().unwrap().id();
    let (reply, ()) = tokio::join!(soon(alice.request("tools/call", again)), async {
        upstream.arrived("response", 1).await;
        // Its head alone is enough, however long it says nothing then.
        release.send(()).unwrap();
    });
    let mut reply = reply;
    let params = json!({"progressToken": number, "progress": 1});
    feed.message(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})).await;
    assert_eq!(soon(reply.event()).await.unwrap().json()["params"]["progressToken"], "mine");
    feed.message(&finished(&number)).await;
    assert_eq!(said(&soon(reply.event()).await.unwrap().json()), "done");
}

#[tokio::test]
async fn a_question_that_may_be_of_several_calls_or_of_none_is_refused() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    let stream = listening(&upstream);
    let (first, mut one) = begun(&upstream, &alice, "").await;
    let (second, mut two) = begun(&upstream, &alice, "").await;
    let calls: Vec<_> = upstream.seen("tools/call").iter().map(testkit::Received::id).collect();
    stream.message(&question("which")).await;
    let no = upstream.arrived("response", 1).await.json();
    assert_eq!((&no["id"], &no["error"]["code"]), (&json!("which"), &json!(-32601)), "{no}");
    assert!(no["error"]["message"].as_str().unwrap().contains("make the call again"), "{no}");
    first.message(&finished(&calls[0])).await;
    assert_eq!(said(&soon(one.event()).await.unwrap().json()), "done");
    drop(one);
    // Once only one is left it is that one's; what it is asked beyond that is refused when it ends.
    stream.message(&question("mine")).await;
    let asked = soon(two.event()).await.unwrap().json();
    stream.message(&question("late")).await;
    stream.taken().await;
    let late = alice.request("tools/call", retry("", &asked)).await.json().await;
    upstream.arrived("response", 2).await;
    assert_eq!(late["result"]["resultType"], "input_required", "{late}");
    stream.message(&question("never")).await;
    stream.message(&json!({"jsonrpc": "2.0", "id": "p", "method": "ping"})).await;
    assert_eq!(upstream.arrived("response", 3).await.json(), json!({"jsonrpc": "2.0", "id": "p", "result": {}}));
    inside.clock.advance(Duration::from_secs(301));
    inside.state.sweep();
    let no = upstream.arrived("response", 4).await.json();
    assert_eq!((&no["id"], &no["error"]["code"]), (&json!("never"), &json!(-32601)), "{no}");
    upstream.arrived("notifications/cancelled", 1).await;
    stream.message(&question("nobody")).await;
    let no = upstream.arrived("response", 5).await.json();
    assert_eq!((&no["id"], &no["error"]["code"]), (&json!("nobody"), &json!(-32601)), "{no}");
    drop(second);
}

#[tokio::test]
async fn a_call_that_waits_for_its_client_keeps_no_question_from_the_one_that_runs() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    let stream = listening(&upstream);
    let (_first, mut one) = begun(&upstream, &alice, "").await;
    stream.message(&question("q1")).await;
    let asked = soon(one.event()).await.unwrap().json();
    let (second, mut two) = begun(&upstream, &alice, "").await;
    stream.message(&question("q2")).await;
    let other = soon(two.event()).await.unwrap().json();
    let mut two = alice.request("tools/call", retry("", &other)).await;
    assert_eq!(upstream.arrived("response", 1).await.id(), "q2");
    // Whoever comes back is under way again, and waits until the other is not.
    let (mut one, other) = tokio::join!(soon(alice.request("tools/call", retry("", &asked))), async {
        stream.message(&question("q3")).await;
        soon(two.event()).await.unwrap().json()
    });
    assert_eq!(upstream.arrived("response", 2).await.id(), "q1");
    stream.message(&question("q4")).await;
    let asked = soon(one.event()).await.unwrap().json();
    let mut two = soon(alice.request("tools/call", retry("", &other))).await;
    assert_eq!(upstream.arrived("response", 3).await.id(), "q3");
    second.message(&finished(&upstream.seen("tools/call")[1].id())).await;
    assert_eq!(said(&soon(two.event()).await.unwrap().json()), "done");
    drop(two);
    let _one = soon(alice.request("tools/call", retry("", &asked))).await;
    assert_eq!(upstream.arrived("response", 4).await.id(), "q4");
}

#[tokio::test]
async fn a_question_that_may_be_of_several_calls_is_held_until_one_is_left() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    let stream = listening(&upstream);
    let (first, mut one) = begun(&upstream, &alice, "").await;
    let (second, mut two) = begun(&upstream, &alice, "").await;
    let calls: Vec<_> = upstream.seen("tools/call").iter().map(testkit::Received::id).collect();
    stream.message(&question("regretted")).await;
    let cancelled = json!({"requestId": "regretted"});
    stream.message(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled})).await;
    stream.message(&question("mine")).await;
    // What comes behind it is answered: it was read.
    stream.message(&json!({"jsonrpc": "2.0", "id": "p", "method": "ping"})).await;
    assert_eq!(upstream.arrived("response", 1).await.id(), "p");
    first.message(&finished(&calls[0])).await;
    assert_eq!(said(&soon(one.event()).await.unwrap().json()), "done");
    drop(one);
    let asked = soon(two.event()).await.unwrap().json();
    let mut two = soon(alice.request("tools/call", retry("", &asked))).await;
    assert_eq!(upstream.arrived("response", 2).await.id(), "mine");
    second.message(&finished(&calls[1])).await;
    assert_eq!(said(&soon(two.event()).await.unwrap().json()), "done");
    assert_eq!(upstream.seen("response").len(), 2);
}

#[tokio::test]
async fn what_a_call_asked_whose_client_left_is_asked_of_no_other_call() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    let stream = listening(&upstream);
    let (_first, one) = begun(&upstream, &alice, "").await;
    let (second, mut two) = begun(&upstream, &alice, "").await;
    stream.message(&question("hers")).await;
    stream.message(&json!({"jsonrpc": "2.0", "id": "p", "method": "ping"})).await;
    assert_eq!(upstream.arrived("response", 1).await.id(), "p");
    drop(one);
    let no = upstream.arrived("response", 2).await.json();
    assert_eq!((&no["id"], &no["error"]["code"]), (&json!("hers"), &json!(-32601)), "{no}");
    second.message(&finished(&upstream.seen("tools/call")[1].id())).await;
    assert_eq!(said(&soon(two.event()).await.unwrap().json()), "done");
}

#[tokio::test]
async fn what_is_asked_where_its_answer_comes_keeps_no_other_call_waiting() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    for number in 0..2 {
        let (first, mut one) = soon(begun(&upstream, &alice, "")).await;
        let (_second, _two) = soon(begun(&upstream, &alice, "")).await;
        first.message(&question(&format!("q{number}"))).await;
        let asked = soon(one.event()).await.unwrap().json();
        assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    }
}

#[tokio::test]
async fn a_stream_that_nobody_needs_keeps_no_session_in_use() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    let mut streams = Vec::new();
    // One more than a principal may have in use with one server.
    for number in 0..9 {
        streams.push(listening(&upstream));
        inside.clock.advance(Duration::from_secs(1));
        let mut of_call = meta();
        of_call["io.modelcontextprotocol/clientInfo"] = json!({"name": format!("client-{number}"), "version": "1"});
        let params = json!({"name": "echo", "arguments": {}, "_meta": of_call});
        let answer = alice.request("tools/call", params).await.json().await;
        assert_eq!(said(&answer), "{}", "{number}: {answer}");
    }
    assert_eq!((inside.state.leg_count(), upstream.seen("GET").len()), (8, 9));
    // The stream of the one that made room ends with it.
    soon(streams[0].closed()).await;
    upstream.arrived("DELETE", 1).await;
}

#[tokio::test]
async fn no_call_waits_long_for_a_stream_and_only_one_in_vain() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    upstream.next("GET", Answer::hang());
    let begun = std::time::Instant::now();
    for _ in 0..4 {
        assert_eq!(said(&alice.call("echo", json!({})).await), "{}");
    }
    assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
    assert_eq!(upstream.seen("GET").len(), 1);
    // A server without one is not asked for it by every call.
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    for _ in 0..4 {
        assert_eq!(said(&alice.call("echo", json!({})).await), "{}");
    }
    assert_eq!(upstream.seen("GET").len(), 1);
}

#[tokio::test]
async fn a_session_that_is_gone_before_a_call_is_sent_costs_the_call_nothing() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    alice.tools().await;
    let gone = || Answer::status(http::StatusCode::NOT_FOUND);
    upstream.next("GET", gone()).next("ping", gone());
    assert_eq!(said(&alice.call("echo", json!({})).await), "{}");
    let calls = upstream.seen("tools/call");
    let before = upstream.seen("tools/list").pop().unwrap();
    assert_eq!(calls.len(), 1);
    assert_ne!(calls[0].header("mcp-session-id"), before.header("mcp-session-id"));
}

#[tokio::test]
async fn a_server_that_knows_neither_its_stream_nor_pings_is_called_all_the_same() {
    for status in [http::StatusCode::NOT_FOUND, http::StatusCode::BAD_REQUEST] {
        let upstream = Upstream::start().await;
        for name in ["GET", "ping"] {
            upstream.always(name, move |_| Answer::status(status));
        }
        let inside = Inside::start(legacy(&upstream)).await;
        let alice = inside.modern("/mcp/files", &inside.alice);
        for _ in 0..3 {
            let answer = alice.call("echo", json!({})).await;
            assert_eq!(said(&answer), "{}", "{status}: {answer}");
        }
        // Who listens in the same session asks no more either.
        let wanted = json!({"notifications": {"toolsListChanged": true}});
        let mut listener = alice.request("subscriptions/listen", wanted).await;
        assert!(soon(listener.event()).await.is_some());
        let answer = alice.call("echo", json!({})).await;
        assert_eq!(said(&answer), "{}", "{status}: {answer}");
        let calls = upstream.seen("tools/call");
        assert!(calls.iter().all(|call| call.header("mcp-session-id") == calls[0].header("mcp-session-id")));
        // It is found out once.
        assert_eq!((upstream.seen("GET").len(), calls.len()), (2, 4), "{status}");
    }
}

#[tokio::test]
async fn who_only_listens_to_a_server_that_knows_neither_its_stream_nor_pings_costs_few_sessions() {
    let upstream = Upstream::start().await;
    for name in ["GET", "ping"] {
        upstream.always(name, |_| Answer::status(http::StatusCode::BAD_REQUEST));
    }
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    for lasts in [false, false, true] {
        let wanted = json!({"notifications": {"toolsListChanged": true}});
        let mut listener = alice.request("subscriptions/listen", wanted).await;
        assert!(soon(listener.event()).await.is_some());
        let end = tokio::time::timeout(Duration::from_secs(if lasts { 1 } else { 10 }), listener.event()).await;
        assert_eq!(end.is_err(), lasts);
    }
}

#[tokio::test]
async fn a_stream_is_read_by_the_right_of_whoever_used_the_session_last() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    let feed = listening(&upstream);
    let (key, id) = inside.key("alice", None);
    let mut listeners = Vec::new();
    for token in [&inside.alice, &key] {
        let agent = inside.modern("/mcp/files", token);
        let wanted = json!({"notifications": {"toolsListChanged": true}});
        let mut listener = agent.request("subscriptions/listen", wanted).await;
        assert!(soon(listener.event()).await.is_some());
        listeners.push(listener);
    }
    inside.registry.revoke_key(&inside.alice_key);
    soon(async { while listeners[0].event().await.is_some() {} }).await;
    // The stream of the server breaks off, and is opened anew.
    let next = listening(&upstream);
    drop(feed);
    upstream.arrived("GET", 2).await;
    next.message(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})).await;
    let told = soon(listeners[1].event()).await.unwrap().json();
    assert_eq!(told["method"], "notifications/tools/list_changed", "{told}");
    inside.registry.revoke_key(&id);
    soon(next.closed()).await;
}

#[tokio::test]
async fn a_token_that_runs_out_ends_what_is_read_by_it_and_not_the_session() {
    let upstream = Upstream::start().await;
    let issuer = Issuer::start(Kind::Ed25519).await;
    let name = IssuerName::new(&issuer.url()).unwrap();
    let mut setting = IssuerSetting::new(name, vec!["here".to_owned()], "claim:azp".parse::<ClaimPath>().unwrap());
    setting.internal = true;
    setting.jwks = JwksSource::Url(issuer.jwks_url().parse().unwrap());
    let inside = Inside::start(Plan { issuers: vec![setting], ..legacy(&upstream) }).await;
    let token = |number: u32, life: i64| {
        let exp = inside.now().as_micros() / 1_000_000 + life;
        issuer
            .token(json!({"iss": issuer.url(), "aud": "here", "azp": "alice", "sub": "ann", "exp": exp, "jti": number}))
    };
    let (short, long) = (token(1, 600), token(2, 7200));
    let stream = listening(&upstream);
    // One token of the principal listens, another calls last.
    let listening_one = inside.modern("/mcp/files", &long);
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let mut listener = listening_one.request("subscriptions/listen", wanted).await;
    assert!(soon(listener.event()).await.is_some());
    inside.modern("/mcp/files", &short).call("echo", json!({})).await;
    inside.clock.advance(Duration::from_mins(20));
    drop(stream);
    // Nothing is missed without a word.
    let end = soon(listener.event()).await.unwrap().json();
    assert_eq!(end["result"]["resultType"], "complete", "{end}");
    inside.state.sweep();
    assert_eq!(inside.state.leg_count(), 1);
    // The session is used on, and ended on its server when nobody does.
    listening_one.call("echo", json!({})).await;
    let calls = upstream.seen("tools/call");
    assert_eq!(calls[0].header("mcp-session-id"), calls[1].header("mcp-session-id"));
    drop(listener);
    inside.clock.advance(Duration::from_hours(24));
    inside.state.sweep();
    let mut ended = 1;
    while upstream.arrived("DELETE", ended).await.header("mcp-session-id") != calls[0].header("mcp-session-id") {
        ended += 1;
    }
}

#[tokio::test]
async fn what_a_server_says_on_one_stream_reaches_those_it_concerns_on_another() {
    let upstream = Upstream::start().await;
    upstream.always("initialize", |request| {
        let result = json!({"protocolVersion": "2025-11-25", "serverInfo": {"name": "fake", "version": "1"},
            "capabilities": {"tools": {}, "logging": {}, "resources": {"subscribe": true}}});
        Answer::result(&request.id(), &result).header("mcp-session-id", "one")
    });
    for method in ["logging/setLevel", "resources/subscribe", "resources/unsubscribe"] {
        upstream.always(method, |request| Answer::result(&request.id(), &json!({})));
    }
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    let stream = listening(&upstream);
    let wanted = json!({"notifications": {"resourceSubscriptions": ["file:///a"]}});
    let mut listener = alice.request("subscriptions/listen", wanted).await;
    assert!(soon(listener.event()).await.is_some());
    let (events, feed) = Answer::events();
    upstream.next("tools/call", events);
    let mut of_call = meta();
    of_call["progressToken"] = json!("mine");
    of_call["io.modelcontextprotocol/logLevel"] = json!("warning");
    let mut reply = alice.request("tools/call", json!({"name": "echo", "arguments": {}, "_meta": of_call})).await;
    let call = upstream.seen("tools/call").pop().unwrap();
    let says = |method: &str, params: Value| json!({"jsonrpc": "2.0", "method": method, "params": params});
    // Of a part of what is followed, on the stream of the call.
    feed.message(&says("notifications/resources/updated", json!({"uri": "file:///a/part"}))).await;
    assert_eq!(soon(listener.event()).await.unwrap().json()["params"]["uri"], "file:///a/part");
    // What belongs to the call, on the listening stream.
    stream.message(&says("notifications/message", json!({"level": "info", "data": "quiet"}))).await;
    stream.message(&says("notifications/progress", json!({"progressToken": 4711, "progress": 1}))).await;
    stream.message(&says("notifications/progress", json!({"progressToken": call.id(), "progress": 2}))).await;
    stream.message(&says("notifications/message", json!({"level": "error", "data": "loud"}))).await;
    let progress = soon(reply.event()).await.unwrap().json();
    assert_eq!(progress["params"], json!({"progressToken": "mine", "progress": 2}));
    assert_eq!(soon(reply.event()).await.unwrap().json()["params"]["data"], "loud");
    feed.message(&finished(&call.id())).await;
    assert_eq!(said(&soon(reply.event()).await.unwrap().json()), "done");
}

#[tokio::test]
async fn what_a_server_without_session_ids_says_beside_its_answers_reaches_no_call() {
    let upstream = Upstream::start().await;
    upstream.always("initialize", |request| {
        let capabilities = json!({"tools": {"listChanged": true}, "logging": {}});
        let result = json!({"protocolVersion": "2025-11-25", "serverInfo": {"name": "fake", "version": "1"},
            "capabilities": capabilities});
        Answer::result(&request.id(), &result)
    });
    upstream.always("logging/setLevel", |request| Answer::result(&request.id(), &json!({})));
    let inside = Inside::start(legacy(&upstream)).await;
    let (alice, bob) = (inside.modern("/mcp/files", &inside.alice), inside.modern("/mcp/files", &inside.bob));
    // Somebody listens, so that the stream is read.
    let stream = listening(&upstream);
    let mut listener =
        alice.request("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}})).await;
    assert!(soon(listener.event()).await.is_some());
    upstream.arrived("GET", 1).await;
    let mut calls = Vec::new();
    for agent in [&alice, &bob] {
        let (events, feed) = Answer::events();
        upstream.next("tools/call", events);
        let mut of_call = meta();
        of_call["progressToken"] = json!("mine");
        of_call["io.modelcontextprotocol/logLevel"] = json!("debug");
        let params = json!({"name": "echo", "arguments": {}, "_meta": of_call});
        calls.push((feed, agent.request("tools/call", params).await));
    }
    let number = upstream.seen("tools/call").pop().unwrap().id();
    let says = |method: &str, params: Value| json!({"jsonrpc": "2.0", "method": method, "params": params});
    stream.message(&says("notifications/message", json!({"level": "error", "data": "of Bob's"}))).await;
    stream.message(&says("notifications/progress", json!({"progressToken": number, "progress": 1}))).await;
    stream.message(&question("of Bob's")).await;
    let no = upstream.arrived("response", 1).await.json();
    assert_eq!((&no["id"], &no["error"]["code"]), (&json!("of Bob's"), &json!(-32601)), "{no}");
    for ((feed, reply), seen) in calls.iter_mut().zip(upstream.seen("tools/call")) {
        feed.message(&finished(&seen.id())).await;
        let first = soon(reply.event()).await.unwrap().json();
        assert_eq!(said(&first), "done", "{first}");
    }
    assert_eq!(upstream.seen("GET").len(), 1);
    // Where nobody listens, no call asks for it.
    drop(listener);
    soon(stream.closed()).await;
    alice.call("echo", json!({})).await;
    assert_eq!(upstream.seen("GET").len(), 1);
}

/// A process that asks, and says something, while a call is under way and newer requests are, too.
const PROCESS: &str = r#"
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  case "$line" in
    *'"initialize"'*) echo '{"jsonrpc":"2.0","id":'$id',"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}}';;
    *'"tools/list"'*)
      [ -z "$call" ] || echo '{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{"message":"Who?","requestedSchema":{"type":"object","properties":{}}}}'
      echo '{"jsonrpc":"2.0","id":'$id',"result":{"tools":[{"name":"echo","inputSchema":{"type":"object"}}]}}';;
    *'"tools/call"'*) call=$id; echo '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":'$call',"progress":1}}';;
    *'"id":"q"'*) echo '{"jsonrpc":"2.0","id":'$call',"result":{"content":[{"type":"text","text":"done"}],"heard":'$line'}}'; call=;;
  esac
done
"#;

#[tokio::test]
async fn a_process_asks_in_the_course_of_a_call_whatever_was_asked_of_it_since() {
    let upstream = Upstream::start().await;
    let command = Some(["/bin/sh", "-c", PROCESS].map(str::to_owned).to_vec());
    let inside = Inside::start(Plan { command, ..legacy(&upstream) }).await;
    for path in ["/mcp/files", "/mcp"] {
        let alice = inside.modern(path, &inside.alice);
        alice.tools().await;
        let mut of_call = meta();
        of_call["progressToken"] = json!("mine");
        let params = json!({"name": tool(path), "arguments": {}, "_meta": of_call});
        let mut reply = alice.request("tools/call", params).await;
        assert_eq!(soon(reply.event()).await.unwrap().json()["params"]["progress"], 1);
        // On the door of one server the client's own list, on the other one that the gateway asks for.
        assert_eq!(alice.tools().await, [tool(path)]);
        let asked = soon(reply.event()).await.unwrap().json();
        let end = alice.request("tools/call", retry(path, &asked)).await.json().await;
        assert_eq!(said(&end), "done", "{end}");
        assert_eq!(end["result"]["heard"]["result"]["content"]["name"], "Ada", "{end}");
    }
}
