//! A modern client before a server that speaks the legacy era alone.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::EraSettings;
use inside::{Inside, Plan, outcome};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::{Agent, Answer, Feed, Reply, Upstream, meta, soon};

const META: &str = "io.modelcontextprotocol/";

fn legacy(upstream: &Upstream) -> Plan {
    Plan { era: EraSettings::Legacy, ..Plan::of(upstream) }
}

fn tool(path: &str) -> &'static str {
    if path == "/mcp" { "files__echo" } else { "echo" }
}

/// Waits for what comes soon.
async fn until(what: impl Fn() -> bool) {
    let mut turns = tokio::time::interval(Duration::from_millis(5));
    soon(async {
        while !what() {
            turns.tick().await;
        }
    })
    .await;
}

/// A call whose answer is up to the test.
async fn begun(upstream: &Upstream, agent: &Agent, path: &str) -> (Feed, Reply) {
    let (events, feed) = Answer::events();
    upstream.next("tools/call", events);
    (feed, agent.request("tools/call", json!({"name": tool(path), "arguments": {"n": 1}})).await)
}

/// The server asks who it is that calls.
async fn ask(feed: &Feed, id: Value) {
    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
    let params = json!({"message": "Who?", "requestedSchema": schema});
    feed.message(&json!({"jsonrpc": "2.0", "id": id, "method": "elicitation/create", "params": params})).await;
}

async fn finish(feed: &Feed, upstream: &Upstream, text: &str) {
    let id = upstream.seen("tools/call").pop().unwrap().id();
    let result = json!({"content": [{"type": "text", "text": text}]});
    feed.message(&json!({"jsonrpc": "2.0", "id": id, "result": result})).await;
}

/// What the client is asked, and the state it is to bring back.
async fn asked(reply: &mut Reply) -> Value {
    state_of(&soon(reply.event()).await.unwrap().json())
}

fn state_of(answer: &Value) -> Value {
    let result = &answer["result"];
    assert_eq!(result["resultType"], "input_required", "{answer}");
    assert_eq!(result["inputRequests"]["question"]["method"], "elicitation/create", "{answer}");
    result["requestState"].clone()
}

fn retry(path: &str, state: &Value, arguments: &Value) -> Value {
    let answer = json!({"action": "accept", "content": {"name": "Ada"}});
    json!({"name": tool(path), "arguments": arguments, "requestState": state, "inputResponses": {"question": answer}})
}

#[tokio::test]
async fn a_client_of_2026_uses_a_server_of_2025_and_needs_no_session() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    for path in ["/mcp/files", "/mcp"] {
        let alice = inside.modern(path, &inside.alice);
        let found = alice.request("server/discover", json!({})).await.json().await;
        assert_eq!(found["result"]["supportedVersions"], json!(["2026-07-28"]), "{found}");
        assert!(found["result"]["capabilities"]["tools"].is_object(), "{found}");
        assert_eq!(alice.tools().await, [tool(path)]);
        let answer = alice.call(tool(path), json!({"n": 1.0})).await;
        assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
        assert_eq!(answer["result"]["_meta"][format!("{META}serverInfo")]["name"], "fake", "{answer}");
        let sent = upstream.seen("tools/call").pop().unwrap();
        assert_eq!(sent.json()["params"], json!({"name": "echo", "arguments": {"n": 1.0}}));
        assert!(sent.header("mcp-session-id").is_some());
        assert_eq!(sent.header("mcp-protocol-version"), Some("2025-11-25"));
        assert_eq!((sent.header("mcp-method"), sent.header("mcp-name")), (None, None));
    }
    let introduced = upstream
        .seen("initialize")
        .into_iter()
        .filter(|hello| hello.json()["params"]["clientInfo"]["name"] == "testkit");
    assert_eq!(introduced.count(), 1, "one session serves every call");
    let alice = inside.modern("/mcp/files", &inside.alice);
    for method in ["vendor/unknown", "ping", "resources/subscribe"] {
        let answer = alice.request(method, json!({})).await;
        assert_eq!(answer.status, 404, "{method}");
        assert_eq!(answer.json().await["error"]["code"], -32601);
        let last = inside.records().await.pop().unwrap();
        // What the modern era does not have is not asked for.
        let expected = if method == "vendor/unknown" { "failed" } else { "refused unknown-method forward" };
        assert_eq!(outcome(&last), expected, "{method}");
    }
    // The status says so also where the server streams every answer.
    upstream.always("vendor/streamed", |request| {
        let error = json!({"jsonrpc": "2.0", "id": request.id(), "error": {"code": -32601, "message": "no"}});
        Answer::event_text(format!("data: {error}\n\n"))
    });
    assert_eq!(alice.request("vendor/streamed", json!({})).await.status, 404);
    // A client that reads no streams gets the answer alone.
    upstream.always("vendor/talks", |request| {
        let (note, id) = (json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}}), request.id());
        let answer = json!({"jsonrpc": "2.0", "id": id, "result": {"last": true}});
        Answer::event_text(format!("data: {note}\n\ndata: {answer}\n\n"))
    });
    let call = json!({"jsonrpc": "2.0", "id": 9, "method": "vendor/talks", "params": {"_meta": meta()}});
    let answer = alice.ask("vendor/talks", &call).replace("accept", "application/json").send().await.json().await;
    assert_eq!((&answer["id"], &answer["result"]["last"]), (&json!(9), &json!(true)), "{answer}");
    upstream.always("resources/read", |request| Answer::error(&request.id(), -32002, "no such resource"));
    let read = alice.request("resources/read", json!({"uri": "file:///none"})).await.json().await;
    assert_eq!(
        (&read["error"]["code"], &read["error"]["data"]["uri"]),
        (&json!(-32602), &json!("file:///none")),
        "{read}"
    );
    // On the aggregate it is named as the client names it, also where it looks like a page of the web.
    let alice = inside.modern("/mcp", &inside.alice);
    for own in ["file:///none", "https://example.com/none"] {
        let shown = format!("durward://files/{own}");
        let read = alice.request("resources/read", json!({"uri": shown})).await.json().await;
        assert_eq!(read["error"]["data"]["uri"], shown, "{read}");
        assert_eq!(upstream.seen("resources/read").pop().unwrap().json()["params"]["uri"], own);
    }
}

#[tokio::test]
async fn two_calls_with_one_id_are_two_calls_for_the_server() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    let first = inside.modern("/mcp/files", &inside.alice);
    let second = inside.modern("/mcp/files", &inside.alice);
    let (feed, mut answer) = begun(&upstream, &first, "/mcp/files").await;
    let other = second.call("echo", json!({"n": 2})).await;
    assert_eq!((&other["id"], &other["result"]["content"][0]["text"]), (&json!(1), &json!(r#"{"n":2}"#)));
    let calls = upstream.seen("tools/call");
    assert_ne!(calls[0].id(), calls[1].id());
    assert_eq!(calls[0].header("mcp-session-id"), calls[1].header("mcp-session-id"));
    let result = json!({"content": []});
    feed.message(&json!({"jsonrpc": "2.0", "id": calls[0].id(), "result": result})).await;
    assert_eq!(soon(answer.event()).await.unwrap().json()["id"], 1);
}

#[tokio::test]
async fn progress_and_log_messages_come_on_the_stream_of_their_call() {
    let upstream = Upstream::start().await;
    upstream.always("initialize", |request| {
        let result = json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}, "logging": {}},
            "serverInfo": {"name": "fake", "version": "1"}});
        Answer::result(&request.id(), &result).header("mcp-session-id", "one")
    });
    upstream.always("logging/setLevel", |request| Answer::result(&request.id(), &json!({})));
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    alice.tools().await;
    let (events, feed) = Answer::events();
    upstream.next("tools/call", events);
    let mut of_call = meta();
    of_call["progressToken"] = json!("mine");
    of_call[format!("{META}logLevel")] = json!("warning");
    let mut stream = alice.request("tools/call", json!({"name": "echo", "arguments": {}, "_meta": of_call})).await;
    assert_eq!(upstream.seen("logging/setLevel").pop().unwrap().json()["params"], json!({"level": "warning"}));
    let sent = upstream.seen("tools/call").pop().unwrap().json();
    let token = sent["params"]["_meta"]["progressToken"].clone();
    assert_eq!(sent["params"]["_meta"], json!({"progressToken": sent["id"]}));
    let says = |method: &str, params: Value| json!({"jsonrpc": "2.0", "method": method, "params": params});
    feed.message(&says("notifications/message", json!({"level": "info", "data": "quiet"}))).await;
    feed.message(&says("notifications/progress", json!({"progressToken": 4711, "progress": 1}))).await;
    feed.message(&says("notifications/progress", json!({"progressToken": token, "progress": 2}))).await;
    feed.message(&says("notifications/message", json!({"level": "error", "data": "loud"}))).await;
    let progress = soon(stream.event()).await.unwrap().json();
    assert_eq!(progress["params"], json!({"progressToken": "mine", "progress": 2}));
    assert_eq!(soon(stream.event()).await.unwrap().json()["params"]["data"], "loud");
}

#[tokio::test]
async fn a_question_ends_the_request_and_the_next_one_goes_on_with_the_call() {
    for path in ["/mcp/files", "/mcp"] {
        let upstream = Upstream::start().await;
        let inside = Inside::start(legacy(&upstream)).await;
        let alice = inside.modern(path, &inside.alice);
        let (feed, mut reply) = begun(&upstream, &alice, path).await;
        ask(&feed, json!("q1")).await;
        let state = asked(&mut reply).await;
        assert_eq!(inside.state.parked_count(), 1);
        let mut second = alice.request("tools/call", retry(path, &state, &json!({"n": 1}))).await;
        let heard = upstream.arrived("response", 1).await.json();
        assert_eq!((&heard["id"], &heard["result"]["content"]["name"]), (&json!("q1"), &json!("Ada")));
        // It may ask again, and again.
        ask(&feed, json!(7)).await;
        let state = asked(&mut second).await;
        let mut third = alice.request("tools/call", retry(path, &state, &json!({"n": 1}))).await;
        assert_eq!(upstream.arrived("response", 2).await.id(), 7);
        finish(&feed, &upstream, "hello Ada").await;
        let end = soon(third.event()).await.unwrap().json();
        assert_eq!((&end["id"], &end["result"]["content"][0]["text"]), (&json!(3), &json!("hello Ada")), "{end}");
        assert_eq!(end["result"]["resultType"], "complete");
        drop(third);
        assert_eq!((inside.state.parked_count(), upstream.seen("tools/call").len()), (0, 1));
        let records = inside.records().await;
        let asked = records.iter().find(|record| record["action"] == "server.elicit").unwrap();
        let call = records.iter().find(|record| record["action"] == "tool.execute").unwrap();
        assert_eq!(asked["parent"], call["call"]);
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_refused_and_the_call_waits_on() {
    let form = json!({"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}});
    let sampled = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "a"}});
    let unsaid = json!({"role": "assistant", "model": "m", "content": {"type": "text"}});
    for (path, method, asked, wrong, good) in [
        (
            "/mcp/files",
            "elicitation/create",
            form.clone(),
            [json!({"foo": 1}), json!({"action": "yes"})],
            json!({"action": "decline"}),
        ),
        ("/mcp", "elicitation/create", form, [json!({"foo": 1}), sampled.clone()], json!({"action": "decline"})),
        (
            "/mcp",
            "sampling/createMessage",
            json!({"messages": [], "maxTokens": 1}),
            [json!({"foo": 1}), unsaid],
            sampled,
        ),
        ("/mcp/files", "roots/list", json!({}), [json!({"foo": 1}), json!({"roots": [{}]})], json!({"roots": []})),
    ] {
        let upstream = Upstream::start().await;
        let inside = Inside::start(legacy(&upstream)).await;
        let alice = inside.modern(path, &inside.alice);
        let (feed, mut reply) = begun(&upstream, &alice, path).await;
        feed.message(&json!({"jsonrpc": "2.0", "id": "q", "method": method, "params": asked})).await;
        let state = soon(reply.event()).await.unwrap().json()["result"]["requestState"].clone();
        let answering = |given: &Value| {
            let mut params = retry(path, &state, &json!({"n": 1}));
            params["inputResponses"]["question"] = given.clone();
            params
        };
        for given in wrong {
            let no = soon(async { alice.request("tools/call", answering(&given)).await.json().await }).await;
            assert_eq!(no["error"]["code"], -32602, "{method} {given}: {no}");
            // Which it is, what is wrong with it, and what to do.
            let why = no["error"]["message"].as_str().unwrap();
            for part in ["`inputResponses.question`", method, "` must be ", "the same `requestState`"] {
                assert!(why.contains(part), "{given}: {why}");
            }
            let last = inside.records().await.pop().unwrap();
            assert_eq!(outcome(&last), "refused input-response forward", "{last:#}");
        }
        assert_eq!((inside.state.parked_count(), upstream.seen("response").len()), (1, 0), "the server waits");
        let mut second = alice.request("tools/call", answering(&good)).await;
        assert_eq!(upstream.arrived("response", 1).await.json()["result"], good);
        finish(&feed, &upstream, "done").await;
        let end = soon(second.event()).await.unwrap().json();
        assert_eq!(end["result"]["content"][0]["text"], "done", "{end}");
    }
}

#[tokio::test]
async fn a_state_is_good_for_one_call_of_one_caller_once() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    let (alice, bob) = (inside.modern("/mcp/files", &inside.alice), inside.modern("/mcp/files", &inside.bob));
    let (feed, mut reply) = begun(&upstream, &alice, "/mcp/files").await;
    ask(&feed, json!("q")).await;
    let state = asked(&mut reply).await;
    let refused = async |agent: &Agent, params: Value| {
        let answer = soon(async { agent.request("tools/call", params).await.json().await }).await;
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
        answer["error"]["message"].as_str().unwrap().to_owned()
    };
    let same = json!({"n": 1});
    assert!(refused(&bob, retry("", &state, &same)).await.contains("another call"));
    assert!(refused(&alice, retry("", &state, &json!({"n": 2}))).await.contains("another call"));
    assert!(refused(&alice, retry("", &json!("AAAA"), &same)).await.contains("not one of"));
    let elsewhere = Inside::start(legacy(&upstream)).await;
    let (there, mut reply) = begun(&upstream, &elsewhere.modern("/mcp/files", &elsewhere.alice), "/mcp/files").await;
    ask(&there, json!("q")).await;
    let foreign = asked(&mut reply).await;
    assert!(refused(&alice, retry("", &foreign, &same)).await.contains("another node"));
    let mut broken = state.as_str().unwrap().to_owned();
    let (last, changed) = (broken.pop().unwrap(), broken.pop().unwrap());
    broken.push(if changed == 'A' { 'B' } else { 'A' });
    broken.push(last);
    let why = refused(&alice, retry("", &json!(broken), &same)).await;
    assert!(why.contains("not one of"), "{why}");
    let mut unanswered = retry("", &state, &same);
    unanswered["inputResponses"] = json!({});
    assert!(refused(&alice, unanswered).await.contains("no answer"));
    let last = inside.records().await.pop().unwrap();
    assert_eq!(outcome(&last), "refused request-state forward", "the server was not asked: {last:#}");
    assert_eq!((inside.state.parked_count(), upstream.seen("response").len()), (1, 0));
    let mut resumed = alice.request("tools/call", retry("", &state, &same)).await;
    assert!(refused(&alice, retry("", &state, &same)).await.contains("used before"));
    let id = upstream.seen("tools/call").remove(0).id();
    feed.message(&json!({"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": "done"}]}})).await;
    assert_eq!(soon(resumed.event()).await.unwrap().json()["result"]["content"][0]["text"], "done");
    // What waits too long is given up, and the server is told.
    let (feed, mut reply) = begun(&upstream, &alice, "/mcp/files").await;
    ask(&feed, json!("q")).await;
    let state = asked(&mut reply).await;
    inside.clock.advance(Duration::from_secs(301));
    assert!(refused(&alice, retry("", &state, &same)).await.contains("expired"));
    inside.state.sweep();
    assert_eq!(inside.state.parked_count(), 0);
    let told = upstream.arrived("notifications/cancelled", 1).await.json();
    assert_eq!(told["params"]["requestId"], upstream.seen("tools/call").pop().unwrap().id());
    soon(feed.closed()).await;
}

#[tokio::test]
async fn a_call_that_waits_ends_with_the_key_and_with_the_server() {
    for revoked in [true, false] {
        let upstream = Upstream::start().await;
        let inside = Inside::start(legacy(&upstream)).await;
        let alice = inside.modern("/mcp/files", &inside.alice);
        let (feed, mut reply) = begun(&upstream, &alice, "/mcp/files").await;
        ask(&feed, json!("q")).await;
        asked(&mut reply).await;
        inside.state.sweep();
        assert_eq!((inside.state.parked_count(), inside.state.leg_count()), (1, 1));
        if revoked {
            inside.registry.revoke_key(&inside.alice_key);
        } else {
            let elsewhere = Upstream::start().await;
            inside.swap(legacy(&elsewhere));
        }
        inside.state.sweep();
        soon(feed.closed()).await;
        assert_eq!(inside.state.parked_count(), 0);
        // The farewell of the call may still be on its way.
        until(|| {
            inside.state.sweep();
            inside.state.leg_count() == 0
        })
        .await;
    }
}

#[tokio::test]
async fn a_question_that_policy_forbids_is_answered_and_the_call_goes_on() {
    let upstream = Upstream::start().await;
    let rules = json!([
        {"id": "all", "action": "*", "target": "*/*", "effect": "allow"},
        {"id": "quiet", "action": "server.elicit", "target": "files/*", "effect": "deny"},
    ]);
    let inside = Inside::start(Plan { policy: json!({"policy": "test", "rules": rules}), ..legacy(&upstream) }).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    let (feed, mut reply) = begun(&upstream, &alice, "/mcp/files").await;
    ask(&feed, json!("q")).await;
    let no = upstream.arrived("response", 1).await.json();
    assert_eq!((&no["id"], &no["error"]["code"]), (&json!("q"), &json!(-31001)), "{no}");
    // What nobody can be asked, and whether anybody is there.
    feed.message(&json!({"jsonrpc": "2.0", "id": 8, "method": "vendor/ask"})).await;
    assert_eq!(upstream.arrived("response", 2).await.json()["error"]["code"], -32601);
    feed.message(&json!({"jsonrpc": "2.0", "id": 9, "method": "ping"})).await;
    assert_eq!(upstream.arrived("response", 3).await.json()["result"], json!({}));
    finish(&feed, &upstream, "nobody").await;
    assert_eq!(soon(reply.event()).await.unwrap().json()["result"]["content"][0]["text"], "nobody");
    drop(reply);
    let records = inside.records().await;
    let asked = records.iter().find(|record| record["action"] == "server.elicit").unwrap();
    assert_eq!((outcome(asked).as_str(), inside.state.parked_count()), ("refused denied authorize", 0));
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_under_the_id_that_the_server_knows() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    let (feed, reply) = begun(&upstream, &alice, "/mcp/files").await;
    drop(reply);
    let told = upstream.arrived("notifications/cancelled", 1).await;
    let call = upstream.seen("tools/call").pop().unwrap();
    assert_eq!(told.json()["params"]["requestId"], call.id());
    assert_eq!(told.header("mcp-session-id"), call.header("mcp-session-id"));
    soon(feed.closed()).await;
    alice.call("echo", json!({})).await;
    assert_eq!(upstream.seen("notifications/cancelled").len(), 1, "what is answered is not cancelled");
}

#[tokio::test]
async fn a_listener_hears_what_it_asked_for_and_nothing_else() {
    for path in ["/mcp/files", "/mcp"] {
        let upstream = Upstream::start().await;
        for method in ["resources/subscribe", "resources/unsubscribe"] {
            upstream.always(method, |request| Answer::result(&request.id(), &json!({})));
        }
        let inside = Inside::start(legacy(&upstream)).await;
        let alice = inside.modern(path, &inside.alice);
        alice.tools().await;
        let (events, feed) = Answer::events();
        upstream.next("GET", events);
        let shown = if path == "/mcp" { "durward://files/file:///a" } else { "file:///a" };
        let wanted = json!({"toolsListChanged": true, "promptsListChanged": true, "resourceSubscriptions": [shown]});
        let mut listener = alice.request("subscriptions/listen", json!({"notifications": wanted})).await;
        let begun = soon(listener.event()).await.unwrap().json();
        assert_eq!(begun["method"], "notifications/subscriptions/acknowledged");
        assert_eq!(begun["params"]["notifications"]["resourceSubscriptions"], json!([shown]));
        if path == "/mcp/files" {
            let honoured = json!({"toolsListChanged": true, "resourceSubscriptions": ["file:///a"]});
            assert_eq!(begun["params"]["notifications"], honoured, "the server never says that prompts changed");
        }
        assert_eq!(upstream.arrived("resources/subscribe", 1).await.json()["params"], json!({"uri": "file:///a"}));
        upstream.arrived("GET", 1).await;
        let says = |method: &str, params: Value| json!({"jsonrpc": "2.0", "method": method, "params": params});
        feed.message(&says("notifications/resources/updated", json!({"uri": "file:///b"}))).await;
        feed.message(&says("notifications/prompts/list_changed", json!({}))).await;
        feed.message(&json!({"jsonrpc": "2.0", "id": 5, "method": "roots/list"})).await;
        feed.message(&says("notifications/resources/updated", json!({"uri": "file:///a"}))).await;
        let told = soon(listener.event()).await.unwrap().json();
        assert_eq!(told["params"]["uri"], shown, "{told}");
        assert_eq!(told["params"]["_meta"][format!("{META}subscriptionId")], 2, "{told}");
        let no = upstream.arrived("response", 1).await.json();
        assert_eq!((&no["id"], &no["error"]["code"]), (&json!(5), &json!(-32601)));
        drop(listener);
        assert_eq!(upstream.arrived("resources/unsubscribe", 1).await.json()["params"]["uri"], "file:///a");
        soon(feed.closed()).await;
    }
}

#[tokio::test]
async fn two_principals_never_share_a_session_and_one_that_is_idle_ends() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    for token in [&inside.alice, &inside.bob, &inside.alice] {
        inside.modern("/mcp/files", token).call("echo", json!({})).await;
    }
    let sessions: Vec<_> =
        upstream.seen("tools/call").iter().map(|call| call.header("mcp-session-id").unwrap().to_owned()).collect();
    assert_eq!(sessions[0], sessions[2]);
    assert_ne!(sessions[0], sessions[1]);
    assert_eq!(inside.state.leg_count(), 2);
    let before = upstream.seen("DELETE").len();
    inside.clock.advance(Duration::from_hours(48));
    inside.state.sweep();
    assert_eq!(inside.state.leg_count(), 0);
    upstream.arrived("DELETE", before + 2).await;
}

/// A server that asks who calls, and answers with its process, what it was told, and how many calls were taken back.
const PROCESS: &str = r#"
cancelled=0
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  case "$line" in
    *'"initialize"'*) echo '{"jsonrpc":"2.0","id":'$id',"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}}';;
    *'"tools/list"'*) echo '{"jsonrpc":"2.0","id":'$id',"result":{"tools":[{"name":"echo","inputSchema":{"type":"object"}}]}}';;
    *'"notifications/cancelled"'*) cancelled=$((cancelled + 1));;
    *'"tools/call"'*) call=$id; echo '{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{"message":"Who?","requestedSchema":{"type":"object","properties":{}}}}';;
    *'"id":"q"'*) echo '{"jsonrpc":"2.0","id":'$call',"result":{"content":[],"pid":'$$',"cancelled":'$cancelled',"heard":'$line'}}';;
  esac
done
"#;

#[tokio::test]
async fn a_process_serves_one_principal_and_may_ask_it() {
    let upstream = Upstream::start().await;
    let command = Some(["/bin/sh", "-c", PROCESS].map(str::to_owned).to_vec());
    let inside = Inside::start(Plan { command, ..legacy(&upstream) }).await;
    let mut seen = Vec::new();
    for token in [&inside.alice, &inside.bob, &inside.alice] {
        let agent = inside.modern("/mcp/files", token);
        let state = state_of(&agent.call("echo", json!({"n": 1})).await);
        let end = agent.request("tools/call", retry("", &state, &json!({"n": 1}))).await.json().await;
        assert_eq!(
            (&end["id"], &end["result"]["heard"]["result"]["content"]["name"]),
            (&json!(2), &json!("Ada")),
            "{end}"
        );
        seen.push(end["result"]["pid"].as_u64().unwrap());
    }
    assert_eq!(seen[0], seen[2]);
    assert_ne!(seen[0], seen[1]);
    assert_eq!((inside.state.parked_count(), inside.state.leg_count()), (0, 2));
    // What waits too long is given up, and a process is told, too.
    let alice = inside.modern("/mcp/files", &inside.alice);
    state_of(&alice.call("echo", json!({"n": 1})).await);
    inside.clock.advance(Duration::from_secs(301));
    inside.state.sweep();
    assert_eq!(inside.state.parked_count(), 0);
    soon(async {
        loop {
            let state = state_of(&alice.call("echo", json!({"n": 1})).await);
            let end = alice.request("tools/call", retry("", &state, &json!({"n": 1}))).await.json().await;
            assert_eq!(end["result"]["pid"], seen[0], "{end}");
            if end["result"]["cancelled"] == 1 {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_session_that_the_server_forgot_is_opened_anew_and_only_what_reads_is_repeated() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    alice.tools().await;
    let gone = || Answer::status(http::StatusCode::NOT_FOUND);
    upstream.next("tools/list", gone());
    assert_eq!(alice.tools().await, ["echo"]);
    upstream.next("tools/call", gone());
    let answer = alice.call("echo", json!({})).await;
    assert_eq!(answer["error"]["code"], -31006, "{answer}");
    assert_eq!(upstream.seen("tools/call").len(), 1, "it may have happened");
    assert!(alice.call("echo", json!({})).await.get("result").is_some());
}

#[tokio::test]
async fn a_bridge_that_the_operator_forbids_is_none() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan { bridged: false, ..legacy(&upstream) }).await;
    for path in ["/mcp/files", "/mcp"] {
        let answer = inside.modern(path, &inside.alice).request("tools/list", json!({})).await.json().await;
        let message = answer["error"]["message"].as_str().unwrap();
        let told = ["server `files` speaks the legacy protocol (2", "the modern one (2026-07-28)", "`bridge: false`"];
        assert!(told.iter().all(|told| message.contains(told)), "{path} {message}");
    }
}

#[tokio::test]
async fn a_server_that_was_moved_is_told_nothing_more() {
    let (old, new) = (Upstream::start().await, Upstream::start().await);
    old.always("resources/subscribe", |request| Answer::result(&request.id(), &json!({})));
    let inside = Inside::start(legacy(&old)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    alice.tools().await;
    let wanted = json!({"resourceSubscriptions": ["file:///a"]});
    let mut listener = alice.request("subscriptions/listen", json!({"notifications": wanted})).await;
    assert!(soon(listener.event()).await.is_some());
    let (_feed, call) = begun(&old, &alice, "/mcp/files").await;
    soon(old.arrived("tools/call", 1)).await;
    inside.swap(legacy(&new));
    while soon(listener.event()).await.is_some() {}
    drop((listener, call));
    // Once nobody has a hand in it the session is swept, and whatever was to be said has been said.
    until(|| {
        inside.clock.advance(Duration::from_hours(1));
        inside.state.leg_count() == 0
    })
    .await;
    assert!(old.seen("resources/unsubscribe").is_empty() && old.seen("notifications/cancelled").is_empty());
}

#[tokio::test]
async fn a_question_that_finds_no_room_is_recorded_as_refused() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    let mut waiting = Vec::new();
    for _ in 0..16 {
        let (feed, mut reply) = begun(&upstream, &alice, "/mcp/files").await;
        ask(&feed, json!("q")).await;
        asked(&mut reply).await;
        waiting.push(feed);
    }
    let (feed, mut reply) = begun(&upstream, &alice, "/mcp/files").await;
    ask(&feed, json!("q")).await;
    let no = upstream.arrived("response", 1).await.json();
    assert_eq!((&no["id"], &no["error"]["code"]), (&json!("q"), &json!(-31002)), "{no}");
    finish(&feed, &upstream, "alone").await;
    assert_eq!(soon(reply.event()).await.unwrap().json()["result"]["content"][0]["text"], "alone");
    drop(reply);
    let records = inside.records().await;
    let asked: Vec<_> = records.iter().filter(|record| record["action"] == "server.elicit").map(outcome).collect();
    assert_eq!(asked.iter().filter(|outcome| *outcome == "answered").count(), 16, "{asked:?}");
    assert_eq!(asked.last().unwrap(), "refused parked limit");
}

#[tokio::test]
async fn a_listener_that_comes_to_nothing_leaves_nothing_followed() {
    let upstream = Upstream::start().await;
    upstream.always("resources/subscribe", |request| match request.json()["params"]["uri"].as_str() {
        Some("file:///a") => Answer::result(&request.id(), &json!({})),
        _ => Answer::status(http::StatusCode::INTERNAL_SERVER_ERROR),
    });
    upstream.always("resources/unsubscribe", |request| Answer::result(&request.id(), &json!({})));
    let (stream, _feed) = Answer::events();
    upstream.next("GET", stream);
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    alice.tools().await;
    let listen =
        |uris: Value| alice.request("subscriptions/listen", json!({"notifications": {"resourceSubscriptions": uris}}));
    let failed = listen(json!(["file:///a", "file:///b"])).await.json().await;
    assert!(failed["error"].is_object(), "{failed}");
    // Both: nobody knows whether the server took what it did not answer.
    upstream.arrived("resources/unsubscribe", 2).await;
    let mut listener = listen(json!(["file:///a"])).await;
    assert!(soon(listener.event()).await.is_some());
    assert_eq!(upstream.seen("resources/subscribe").len(), 3, "it was not followed any more");
    drop(listener);
    upstream.arrived("resources/unsubscribe", 3).await;
}

#[tokio::test]
async fn an_answer_that_a_server_gives_in_pieces_is_asked_for_to_its_end() {
    for path in ["/mcp/files", "/mcp"] {
        let upstream = Upstream::start().await;
        let inside = Inside::start(legacy(&upstream)).await;
        let alice = inside.modern(path, &inside.alice);
        // From the first call on it is known that the server has no listening stream.
        alice.call(tool(path), json!({})).await;
        let before = upstream.seen("GET").len();
        // SPEC: 2025-11-25: it may close the connection after an event with an id, and the client comes back for the rest.
        upstream.next("tools/call", Answer::event_text("id: c1\nretry: 10\ndata:\n\n"));
        let note = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}});
        upstream.next("GET", Answer::event_text(format!("id: c2\ndata: {note}\n\n")));
        let (last, feed) = Answer::events();
        upstream.next("GET", last);
        let calling = alice.call(tool(path), json!({"n": 1}));
        let (answer, ()) = tokio::join!(calling, async {
            upstream.arrived("GET", before + 2).await;
            finish(&feed, &upstream, "whole").await;
        });
        assert_eq!(answer["result"]["content"][0]["text"], "whole", "{answer}");
        let asked = upstream.seen("GET").split_off(before);
        let cursors: Vec<_> = asked.iter().map(|seen| seen.header("last-event-id").unwrap().to_owned()).collect();
        assert_eq!(cursors, ["c1", "c2"]);
        let call = upstream.seen("tools/call").pop().unwrap();
        assert!(asked.iter().all(|seen| seen.header("mcp-session-id") == call.header("mcp-session-id")));
        assert_eq!(upstream.seen("tools/call").len(), 2, "nothing is sent twice");

        // One that gives no ids, or does not know them any more, has broken off.
        upstream.next("tools/call", Answer::event_text(": nothing\n\n"));
        let cut = alice.call(tool(path), json!({"n": 1})).await;
        assert_eq!(cut["error"]["code"], -31006, "{cut}");
        upstream.next("tools/call", Answer::event_text("id: c3\nretry: 10\ndata:\n\n"));
        upstream.next("GET", Answer::status(http::StatusCode::BAD_REQUEST));
        let cut = alice.call(tool(path), json!({"n": 1})).await;
        assert_eq!(cut["error"]["code"], -31006, "{cut}");
    }
}

#[tokio::test]
async fn an_error_that_names_no_request_answers_the_one_that_was_made() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    for path in ["/mcp/files", "/mcp"] {
        let alice = inside.modern(path, &inside.alice);
        for id in [r#""id":null,"#, ""] {
            let text = format!(r#"{{"jsonrpc":"2.0",{id}"error":{{"code":-32600,"message":"not read"}}}}"#);
            for answer in [Answer::json(text.clone()), Answer::event_text(format!("data: {text}\n\n"))] {
                upstream.next("tools/call", answer);
                let params = json!({"name": tool(path), "arguments": {}, "_meta": meta()});
                let message = json!({"jsonrpc": "2.0", "id": "asked", "method": "tools/call", "params": params});
                let answer = alice.ask("tools/call", &message).send().await.json().await;
                assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("asked"), &json!(-32600)), "{answer}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_client_says_that_cannot_be_read_is_refused_and_no_server_has_failed() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(legacy(&upstream)).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    for wanted in [json!({"toolsListChanged": "yes"}), json!({"promptsListChanged": 1})] {
        let answer = alice.request("subscriptions/listen", json!({"notifications": wanted})).await.json().await;
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
        let (what, _) = wanted.as_object().unwrap().iter().next().unwrap();
        assert!(answer["error"]["message"].as_str().unwrap().contains(what), "{answer}");
        let records = inside.records().await;
        assert_eq!(outcome(records.last().unwrap()), "refused arguments validate");
    }
}

#[tokio::test]
async fn a_server_without_a_listening_stream_is_promised_for_nothing() {
    for has_sessions in [true, false] {
        let upstream = Upstream::start().await;
        upstream.always("resources/subscribe", |request| Answer::result(&request.id(), &json!({})));
        if !has_sessions {
            upstream.always("initialize", |request| {
                let capabilities = json!({"tools": {"listChanged": true}, "resources": {"subscribe": true}});
                let server = json!({"name": "fake", "version": "1"});
                let result =
                    json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": server});
                Answer::result(&request.id(), &result)
            });
        }
        let inside = Inside::start(legacy(&upstream)).await;
        let alice = inside.modern("/mcp/files", &inside.alice);
        let capabilities = async || {
            let found = alice.request("server/discover", json!({})).await.json().await;
            found["result"]["capabilities"].clone()
        };
        assert_eq!(capabilities().await["tools"]["listChanged"], true, "nobody has asked for the stream yet");
        for _ in 0..2 {
            let wanted = json!({"toolsListChanged": true, "resourceSubscriptions": ["file:///a"]});
            let mut listener = alice.request("subscriptions/listen", json!({"notifications": wanted})).await;
            let begun = soon(listener.event()).await.unwrap().json();
            let honoured = &begun["params"]["notifications"];
            assert!(honoured["toolsListChanged"].is_null(), "{begun}");
            assert!(honoured["resourceSubscriptions"].as_array().is_none_or(Vec::is_empty), "{begun}");
        }
        assert_eq!((upstream.seen("GET").len(), upstream.seen("resources/subscribe").len()), (1, 0));
        let known = capabilities().await;
        assert_eq!((&known["tools"]["listChanged"], &known["resources"]["subscribe"]), (&json!(false), &json!(false)));
    }
}
