//! A legacy client before a server that speaks the modern era alone.
#![expect(clippy::indexing_slicing, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::EraSettings;
use inside::{Inside, Plan, outcome};
use serde_json::{Value, json};
use testkit::{Agent, Answer, Upstream, soon};

const META: &str = "io.modelcontextprotocol/";

fn modern(upstream: &Upstream) -> Plan {
    Plan { era: EraSettings::Modern, ..Plan::of(upstream) }
}

/// What the server heard last of a method, with its metadata.
fn heard(upstream: &Upstream, method: &str) -> (Value, Value) {
    let request = upstream.seen(method).pop().map_or(Value::Null, |seen| seen.json());
    let meta = request["params"]["_meta"].clone();
    (request, meta)
}

/// A server that asks who you are before it answers, and greets with what it was told.
async fn curious(question: Value) -> Upstream {
    let upstream = Upstream::start().await;
    upstream.always("tools/call", move |request| {
        let params = &request.json()["params"];
        let answer = &params["inputResponses"]["who"];
        let result = if answer.is_null() {
            json!({"resultType": "input_required", "inputRequests": {"who": question}, "requestState": "s\u{e9}aled"})
        } else {
            assert_eq!(params["requestState"], "s\u{e9}aled");
            let text = format!("hello {}", answer["content"]["name"].as_str().unwrap_or("nobody"));
            json!({"resultType": "complete", "content": [{"type": "text", "text": text}]})
        };
        Answer::result(&request.id(), &result)
    });
    upstream
}

fn elicitation() -> Value {
    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
    json!({"method": "elicitation/create", "params": {"mode": "form", "message": "Who?", "requestedSchema": schema}})
}

/// Answers a question that came on a stream.
async fn reply(agent: &Agent, question: &Value, result: Value) -> u16 {
    let text = json!({"jsonrpc": "2.0", "id": question["id"], "result": result});
    agent.ask("response", &text).send().await.status.as_u16()
}

#[tokio::test]
async fn a_client_of_2025_uses_a_server_of_2026_and_hears_nothing_of_it() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(modern(&upstream)).await;
    for path in ["/mcp/files", "/mcp"] {
        let alice = inside.legacy(path, &inside.alice).await;
        assert!(alice.session().is_some(), "the session is the gateway's");
        assert!(upstream.seen("initialize").is_empty() && upstream.seen("notifications/initialized").is_empty());
        let tool = if path == "/mcp" { "files__echo" } else { "echo" };
        assert_eq!(alice.tools().await, [tool]);
        let answer = alice.request("tools/call", json!({"name": tool, "arguments": {"n": 1.0}})).await.json().await;
        assert!(answer["result"]["content"].is_array(), "{answer}");
        for modern in ["resultType", "ttlMs", "cacheScope"] {
            assert!(answer["result"].get(modern).is_none(), "{answer}");
        }
        let (request, meta) = heard(&upstream, "tools/call");
        assert_eq!(request["params"]["name"], "echo");
        assert_eq!(meta[format!("{META}protocolVersion")], "2026-07-28");
        assert_eq!(meta[format!("{META}clientInfo")]["name"], "testkit");
        assert!(meta[format!("{META}clientCapabilities")]["elicitation"].is_object(), "{meta}");
        let sent = upstream.seen("tools/call").pop().unwrap();
        assert_eq!(sent.header("mcp-protocol-version"), Some("2026-07-28"));
        assert_eq!((sent.header("mcp-method"), sent.header("mcp-name")), (Some("tools/call"), Some("echo")));
        assert_eq!(sent.header("mcp-session-id"), None);
        // What a modern server has no ear for is answered here.
        let before = upstream.received();
        assert_eq!(alice.request("ping", json!({})).await.json().await["result"], json!({}));
        assert_eq!(alice.notify("notifications/roots/list_changed", json!({})).await.status, 202);
        assert_eq!(upstream.received(), before);
        assert_eq!(alice.leave().await.status, 200);
        assert_eq!(alice.request("ping", json!({})).await.status, 404, "the session is over");
    }
}

#[tokio::test]
async fn a_log_level_is_told_with_every_request_from_then_on() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(modern(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    alice.call("echo", json!({})).await;
    assert!(heard(&upstream, "tools/call").1.get(format!("{META}logLevel")).is_none());
    let wrong = alice.request("logging/setLevel", json!({"level": "loud"})).await.json().await;
    assert_eq!(wrong["error"]["code"], -32602, "{wrong}");
    assert_eq!(alice.request("logging/setLevel", json!({"level": "warning"})).await.json().await["result"], json!({}));
    alice.call("echo", json!({})).await;
    assert_eq!(heard(&upstream, "tools/call").1[format!("{META}logLevel")], "warning");
}

#[tokio::test]
async fn a_server_that_asks_is_answered_on_the_stream_of_the_call() {
    for path in ["/mcp/files", "/mcp"] {
        let upstream = curious(elicitation()).await;
        let inside = Inside::start(modern(&upstream)).await;
        let alice = inside.legacy(path, &inside.alice).await;
        let tool = if path == "/mcp" { "files__echo" } else { "echo" };
        let mut stream = alice.request("tools/call", json!({"name": tool, "arguments": {}})).await;
        let question = soon(stream.event()).await.unwrap().json();
        assert_eq!(
            (&question["method"], &question["params"]["message"]),
            (&json!("elicitation/create"), &json!("Who?"))
        );
        // Nobody else can answer it, and it is answered once.
        let bob = inside.legacy(path, &inside.bob).await;
        assert_eq!(reply(&bob, &question, json!({"action": "decline"})).await, 400);
        assert_eq!(reply(&alice, &question, json!({"action": "accept", "content": {"name": "Ada"}})).await, 202);
        let answer = soon(stream.event()).await.unwrap().json();
        assert_eq!(answer["result"]["content"][0]["text"], "hello Ada", "{answer}");
        assert_eq!(reply(&alice, &question, json!({"action": "decline"})).await, 400);
        let rounds = upstream.seen("tools/call");
        assert_eq!(rounds.len(), 2);
        assert_ne!(rounds[0].id(), rounds[1].id(), "a retry is a request of its own");
        assert_eq!(rounds[0].id(), answer["id"]);
        drop(stream);
        let records = inside.records().await;
        let asked = records.iter().find(|record| record["action"] == "server.elicit").unwrap();
        // The second round is a call of its own, caused by the first.
        let is_first = |record: &&Value| record["action"] == "tool.execute" && record.get("parent").is_none();
        let call = records.iter().find(is_first).unwrap();
        assert_eq!(asked["parent"], call["call"]);
    }
}

#[tokio::test]
async fn an_answer_that_is_none_ends_the_call_and_no_server_is_told() {
    let sampling = json!({"method": "sampling/createMessage", "params": {"maxTokens": 1, "messages": [
        {"role": "user", "content": {"type": "text", "text": "Who?"}}]}});
    for (path, question, given, wrong) in [
        ("/mcp/files", elicitation(), json!({"foo": 1}), "`action` must be"),
        ("/mcp", elicitation(), json!({"action": "accept", "content": "Ada"}), "`content` must be"),
        ("/mcp", sampling, json!({"role": "assistant", "content": {"type": "text", "text": "Ada"}}), "`model` must be"),
        ("/mcp/files", json!({"method": "roots/list"}), json!({"roots": [{}]}), "`roots[0].uri` must be"),
    ] {
        let upstream = curious(question).await;
        let inside = Inside::start(modern(&upstream)).await;
        let alice = inside.legacy(path, &inside.alice).await;
        let tool = if path == "/mcp" { "files__echo" } else { "echo" };
        let mut stream = alice.request("tools/call", json!({"name": tool, "arguments": {}})).await;
        let question = soon(stream.event()).await.unwrap().json();
        assert_eq!(reply(&alice, &question, given).await, 202);
        let end = soon(stream.event()).await.unwrap().json();
        assert_eq!(end["error"]["code"], -32602, "{end}");
        let why = end["error"]["message"].as_str().unwrap();
        assert!(why.contains(wrong) && why.contains("was not told"), "{why}");
        assert_eq!(upstream.seen("tools/call").len(), 1, "no round was made of it");
        drop(stream);
        let records = inside.records().await;
        let call = records.iter().rfind(|record| record["method"] == "tools/call").unwrap();
        assert_eq!(outcome(call), "faulted round forward");
    }
}

#[tokio::test]
async fn a_question_that_policy_forbids_ends_the_call() {
    let upstream = curious(elicitation()).await;
    let rules = json!([
        {"id": "all", "action": "*", "target": "*/*", "effect": "allow"},
        {"id": "quiet", "action": "server.elicit", "target": "files/*", "effect": "deny"},
    ]);
    let inside = Inside::start(Plan { policy: json!({"policy": "test", "rules": rules}), ..modern(&upstream) }).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let mut stream = alice.request("tools/call", json!({"name": "echo", "arguments": {}})).await;
    let end = soon(stream.event()).await.unwrap().json();
    // An elicitation that is refused is a cancelled one: the server goes on without an answer.
    assert_eq!(end["result"]["content"][0]["text"], "hello nobody", "{end}");
    assert_eq!(
        upstream.seen("tools/call").pop().unwrap().json()["params"]["inputResponses"]["who"]["action"],
        "cancel"
    );
}

#[tokio::test]
async fn a_question_that_policy_forbids_and_nothing_answers_withholds_the_call() {
    let sampling = json!({"method": "sampling/createMessage", "params": {"maxTokens": 1, "messages": [
        {"role": "user", "content": {"type": "text", "text": "Who?"}}]}});
    for path in ["/mcp/files", "/mcp"] {
        let upstream = curious(sampling.clone()).await;
        let rules = json!([
            {"id": "all", "action": "*", "target": "*/*", "effect": "allow"},
            {"id": "quiet", "action": "server.sample", "target": "files/*", "effect": "deny"},
        ]);
        let inside =
            Inside::start(Plan { policy: json!({"policy": "test", "rules": rules}), ..modern(&upstream) }).await;
        let alice = inside.legacy(path, &inside.alice).await;
        let tool = if path == "/mcp" { "files__echo" } else { "echo" };
        let mut stream = alice.request("tools/call", json!({"name": tool, "arguments": {}})).await;
        let end = soon(stream.event()).await.unwrap().json();
        assert_eq!(end["error"]["code"], -31004, "{end}");
        assert_eq!(upstream.seen("tools/call").len(), 1);
        drop(stream);
        let records = inside.records().await;
        let call = records.iter().rfind(|record| record["method"] == "tools/call").unwrap();
        assert_eq!((outcome(call).as_str(), &call["rules"]), ("withheld question release", &json!(["all", "quiet"])));
        let asked = records.iter().find(|record| record["parent"] == call["call"]).unwrap();
        assert_eq!(outcome(asked), "refused denied authorize");
    }
}

#[tokio::test]
async fn a_question_that_the_client_cannot_be_asked_is_recorded_as_refused() {
    let vendor = json!({"method": "vendor/ask"});
    for (question, accept) in [(elicitation(), "application/json"), (vendor, "application/json, text/event-stream")] {
        let upstream = Upstream::start().await;
        upstream.always("tools/call", move |request| {
            let asked = json!({"roots": {"method": "roots/list"}, "who": question});
            Answer::result(&request.id(), &json!({"resultType": "input_required", "inputRequests": asked}))
        });
        let inside = Inside::start(modern(&upstream)).await;
        let alice = inside.legacy("/mcp/files", &inside.alice).await;
        let call =
            json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "echo", "arguments": {}}});
        let answer = alice.ask("tools/call", &call).replace("accept", accept).send().await.json().await;
        assert_eq!(answer["error"]["code"], -31006, "{answer}");
        let records = inside.records().await;
        let call = records.iter().rfind(|record| record["method"] == "tools/call").unwrap();
        let asked = records.iter().filter(|record| record["parent"] == call["call"]).map(outcome);
        assert_eq!(
            asked.collect::<Vec<_>>(),
            ["refused cannot-ask resolve", "withheld question release"],
            "{records:#?}"
        );
    }
    // One of them alone is none that this client can be asked.
    let upstream = Upstream::start().await;
    upstream.always("tools/call", |request| {
        let page = json!({"mode": "url", "url": "https://a.example/", "message": "go"});
        let asked = json!({"roots": {"method": "roots/list"}, "who": {"method": "elicitation/create", "params": page}});
        Answer::result(&request.id(), &json!({"resultType": "input_required", "inputRequests": asked}))
    });
    let inside = Inside::start(modern(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let answer = alice.call("echo", json!({})).await;
    assert_eq!(answer["error"]["code"], -31006, "{answer}");
    let records = inside.records().await;
    let call = records.iter().rfind(|record| record["method"] == "tools/call").unwrap();
    let mut asked: Vec<_> = records.iter().filter(|record| record["parent"] == call["call"]).map(outcome).collect();
    asked.sort();
    assert_eq!(asked, ["refused cannot-ask resolve", "withheld question release"], "{records:#?}");
}

#[tokio::test]
async fn a_server_that_never_stops_asking_is_stopped() {
    let upstream = Upstream::start().await;
    upstream.always("tools/call", |request| {
        Answer::result(&request.id(), &json!({"resultType": "input_required", "requestState": "again"}))
    });
    let inside = Inside::start(modern(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let mut stream = alice.request("tools/call", json!({"name": "echo", "arguments": {}})).await;
    let end = soon(stream.event()).await.unwrap().json();
    assert_eq!(end["error"]["code"], -31006, "{end}");
    assert!(end["error"]["message"].as_str().unwrap().contains("more than 10 times"), "{end}");
    assert_eq!(upstream.seen("tools/call").len(), 11);
}

#[tokio::test]
async fn a_client_that_reads_no_streams_is_told_why_it_cannot_be_asked() {
    let upstream = curious(elicitation()).await;
    let inside = Inside::start(modern(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let call = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "echo", "arguments": {}}});
    let answer = alice.ask("tools/call", &call).replace("accept", "application/json").send().await.json().await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("text/event-stream"), "{answer}");
}

#[tokio::test]
async fn a_cancelled_call_lets_go_of_the_server() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(modern(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    alice.tools().await;
    let (events, feed) = Answer::events();
    upstream.next("tools/call", events);
    let call =
        json!({"jsonrpc": "2.0", "id": "mine", "method": "tools/call", "params": {"name": "echo", "arguments": {}}});
    let mut stream = alice.ask("tools/call", &call).send().await;
    let progress =
        json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}});
    feed.message(&progress).await;
    assert_eq!(soon(stream.event()).await.unwrap().json(), progress);
    alice.notify("notifications/cancelled", json!({"requestId": "mine"})).await;
    soon(upstream.abandoned(1)).await;
    let end = soon(stream.event()).await.unwrap().json();
    assert_eq!(end["id"], "mine");
    assert!(end["error"]["message"].as_str().unwrap().contains("cancelled"), "{end}");
    let records = inside.records().await;
    let called = records.iter().find(|record| record["method"] == "tools/call").unwrap();
    assert_eq!(outcome(called), "abandoned", "{called:#}");
}

#[tokio::test]
async fn what_a_server_says_unasked_is_heard_on_the_listening_stream() {
    for path in ["/mcp/files", "/mcp"] {
        let upstream = Upstream::start().await;
        let inside = Inside::start(modern(&upstream)).await;
        let alice = inside.legacy(path, &inside.alice).await;
        let (first, feed) = Answer::events();
        upstream.next("subscriptions/listen", first);
        let mut listener = alice.listen().await;
        let asked = soon(upstream.arrived("subscriptions/listen", 1)).await.json();
        let wanted = &asked["params"]["notifications"];
        assert_eq!((&wanted["toolsListChanged"], wanted.get("resourceSubscriptions")), (&json!(true), None));
        let tagged = json!({format!("{META}subscriptionId"): asked["id"]});
        let changed = |method: &str| json!({"jsonrpc": "2.0", "method": method, "params": {"_meta": tagged}});
        feed.message(&changed("notifications/subscriptions/acknowledged")).await;
        upstream.set_tools(vec![json!({"name": "new", "inputSchema": {"type": "object"}})]);
        feed.message(&changed("notifications/tools/list_changed")).await;
        let told = soon(listener.event()).await.unwrap().json();
        assert_eq!(told["method"], "notifications/tools/list_changed");
        assert!(!told.to_string().contains("subscriptionId"), "{told}");
        // Following a resource opens the stream anew. The server knows it by its own address.
        let shown = if path == "/mcp" { "durward://files/file:///a" } else { "file:///a" };
        let (second, feed) = Answer::events();
        upstream.next("subscriptions/listen", second);
        let following = alice.request("resources/subscribe", json!({"uri": shown}));
        let (followed, ()) = tokio::join!(following, async {
            let asked = soon(upstream.arrived("subscriptions/listen", 2)).await.json();
            let wanted = &asked["params"]["notifications"];
            assert_eq!(wanted["resourceSubscriptions"], json!(["file:///a"]));
            let params = json!({"notifications": wanted, "_meta": {format!("{META}subscriptionId"): asked["id"]}});
            let method = "notifications/subscriptions/acknowledged";
            feed.message(&json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
        });
        assert_eq!(followed.json().await["result"], json!({}));
        let updated =
            |uri: &str| json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}});
        feed.message(&updated("file:///a")).await;
        assert_eq!(soon(listener.event()).await.unwrap().json(), updated(shown));
    }
}

#[tokio::test]
async fn a_bridge_that_the_operator_forbids_is_none() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan { bridged: false, ..modern(&upstream) }).await;
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}});
    for path in ["/mcp/files", "/mcp"] {
        let ask = testkit::Ask::post(&inside.url(path), hello.to_string()).bearer(&inside.alice);
        let answer = ask.header("accept", "application/json, text/event-stream").send().await.json().await;
        let message = answer["error"]["message"].as_str().unwrap();
        let told = ["server `files` speaks the modern protocol (2", "the legacy one (2025-11-25)", "`bridge: false`"];
        assert!(told.iter().all(|told| message.contains(told)), "{path} {message}");
    }
}

#[tokio::test]
async fn a_right_that_is_withdrawn_while_the_client_thinks_ends_the_call() {
    let upstream = curious(elicitation()).await;
    let inside = Inside::start(modern(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let mut stream = alice.request("tools/call", json!({"name": "echo", "arguments": {}})).await;
    let question = soon(stream.event()).await.unwrap().json();
    let rules = json!([
        {"id": "all", "action": "*", "target": "*/*", "effect": "allow"},
        {"id": "late", "action": "tool.execute", "target": "files/echo", "effect": "deny"},
    ]);
    inside.swap(Plan { policy: json!({"policy": "test", "rules": rules}), ..modern(&upstream) });
    reply(&alice, &question, json!({"action": "accept", "content": {"name": "Ada"}})).await;
    let end = soon(stream.event()).await.unwrap().json();
    assert!(end["error"]["message"].as_str().unwrap().contains("withdrawn"), "{end}");
    assert_eq!(upstream.seen("tools/call").len(), 1, "the second round never left");
}

#[tokio::test]
async fn what_is_no_answer_to_the_request_is_none() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(modern(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    alice.tools().await;
    let told = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {}});
    let foreign = json!({"jsonrpc": "2.0", "id": "another", "result": {"resultType": "complete", "content": []}});
    for wrong in [told, foreign] {
        upstream.next("tools/call", Answer::json(wrong.to_string()));
        let answer = alice.call("echo", json!({})).await;
        assert_eq!(answer["error"]["code"], -31006, "{answer}");
    }
    assert!(alice.call("echo", json!({})).await["result"].is_object(), "the session lives on");
}

#[tokio::test]
async fn an_error_that_names_no_request_answers_the_one_that_was_made() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(modern(&upstream)).await;
    for (path, tool) in [("/mcp/files", "echo"), ("/mcp", "files__echo")] {
        let alice = inside.legacy(path, &inside.alice).await;
        for nameless in [r#"{"jsonrpc":"2.0","id":null,"error":ERROR}"#, r#"{"jsonrpc":"2.0","error":ERROR}"#] {
            let text = nameless.replace("ERROR", r#"{"code":-32600,"message":"not read"}"#);
            for answer in [
                Answer::json(text.clone()).with_status(http::StatusCode::BAD_REQUEST),
                Answer::event_text(format!("data: {text}\n\n")),
            ] {
                upstream.next("tools/call", answer);
                let params = json!({"name": tool, "arguments": {}});
                let message = json!({"jsonrpc": "2.0", "id": "asked", "method": "tools/call", "params": params});
                let answer = alice.ask("tools/call", &message).send().await.json().await;
                assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("asked"), &json!(-32600)), "{answer}");
            }
        }
        // With an HTTP error it may name anything; a status alone is none of its words.
        let own = r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"not read"}}"#;
        for (text, code) in [(own, -32600), (r#"{"detail":"down"}"#, -31006)] {
            upstream.next("tools/call", Answer::json(text).with_status(http::StatusCode::BAD_REQUEST));
            let answer = alice.call(tool, json!({})).await;
            assert_eq!(answer["error"]["code"], code, "{answer}");
        }
        upstream.next("tools/call", Answer::json(own));
        let answer = alice.call(tool, json!({})).await;
        assert_eq!(answer["error"]["code"], -31006, "{answer}");
    }
}

#[tokio::test]
async fn what_a_client_says_that_cannot_be_read_is_refused_and_no_server_has_failed() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(modern(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": []});
    let hello = json!({"protocolVersion": "2025-11-25", "capabilities": 7, "clientInfo": {}});
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello});
    for (message, what) in [(list, "params"), (hello, "capabilities")] {
        let heard = upstream.received();
        let answer = alice.ask("", &message).send().await.json().await;
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap_or_default().contains(what), "{answer}");
        assert_eq!(upstream.received(), heard, "no server is asked");
        let records = inside.records().await;
        assert_eq!(outcome(&records[records.len() - 1]), "refused arguments forward");
    }
}

#[tokio::test]
async fn a_server_hears_of_the_resources_that_are_followed_on_it_and_of_no_others() {
    let (one, other) = (Upstream::start().await, Upstream::start().await);
    for (upstream, uri) in [(&one, "one:///a"), (&other, "other:///b")] {
        let resources = json!({"resultType": "complete", "resources": [{"uri": uri, "name": "r"}], "ttlMs": 0, "cacheScope": "private"});
        upstream.always("resources/list", move |request| Answer::result(&request.id(), &resources));
    }
    let servers = vec![("files", one.url()), ("more", other.url())];
    let inside = Inside::start(Plan { servers, ..modern(&one) }).await;
    let alice = inside.legacy("/mcp", &inside.alice).await;
    alice.tools().await;
    for uri in ["durward://files/one:///a", "durward://more/other:///b"] {
        let followed = alice.request("resources/subscribe", json!({"uri": uri})).await.json().await;
        assert_eq!(followed["result"], json!({}), "{followed}");
    }
    let (events, _feed) = Answer::events();
    one.next("subscriptions/listen", events);
    let (events, _other_feed) = Answer::events();
    other.next("subscriptions/listen", events);
    let _listener = alice.listen().await;
    for (upstream, uri) in [(&one, "one:///a"), (&other, "other:///b")] {
        let asked = soon(upstream.arrived("subscriptions/listen", 1)).await.json();
        assert_eq!(asked["params"]["notifications"]["resourceSubscriptions"], json!([uri]));
    }
}

#[tokio::test]
async fn a_silent_stream_ends_with_the_bridge_that_carried_it() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(modern(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let (events, feed) = Answer::events();
    upstream.next("subscriptions/listen", events);
    let _listener = alice.listen().await;
    soon(upstream.arrived("subscriptions/listen", 1)).await;
    inside.swap(Plan { bridged: false, ..modern(&upstream) });
    soon(feed.closed()).await;
    assert_eq!(upstream.seen("subscriptions/listen").len(), 1, "it is not opened again");
}
