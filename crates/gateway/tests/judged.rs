//! What a server asks where nobody looks for a question: bodies of HTTP errors, what is said of tasks, batches.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::EraSettings;
use http::StatusCode;
use inside::{Inside, Plan, outcome};
use serde_json::{Value, json};
use testkit::{Agent, Answer, Ask, Upstream, meta, soon};

/// Everything is allowed but the bad page, and `more`.
fn rules(more: &[(&str, &str)]) -> Value {
    let mut rules = vec![
        json!({"id": "all", "action": "*", "target": "*/*", "effect": "allow"}),
        json!({"id": "no", "action": "server.elicit", "target": "files/*", "effect": "deny", "when": "args.url == 'https://bad.example/'"}),
    ];
    rules.extend(
        more.iter().map(|(id, action)| json!({"id": id, "action": action, "target": "files/*", "effect": "deny"})),
    );
    json!({"policy": "test", "rules": rules})
}

fn page(name: &str) -> Value {
    json!({"mode": "url", "elicitationId": name, "url": format!("https://{name}.example/"), "message": "go"})
}

/// An error that wants this page visited first.
fn visit(name: &str) -> Value {
    json!({"code": -32042, "message": "visit", "data": {"elicitations": [page(name)]}})
}

async fn clients(inside: &Inside) -> [Agent; 2] {
    [inside.legacy("/mcp/files", &inside.alice).await, inside.modern("/mcp/files", &inside.alice)]
}

/// The record of the last call of a method, and those of what was asked in its course.
async fn recorded(inside: &Inside, method: &str) -> (Value, Vec<Value>) {
    let records = inside.records().await;
    let call = records.iter().rfind(|record| record["method"] == method && record["parent"].is_null()).unwrap().clone();
    let asked = records.into_iter().filter(|record| record["parent"] == call["call"]).collect();
    (call, asked)
}

#[tokio::test]
async fn pages_in_the_body_of_an_http_error_are_judged_whatever_its_shape() {
    let shapes: [fn(&str) -> Value; 10] = [
        |name| json!({"id": 1, "error": visit(name)}),
        |name| json!([{"jsonrpc": "2.0", "id": 1, "error": visit(name)}]),
        |name| json!([{"jsonrpc": "2.0", "id": 1, "result": {}}, {"error": visit(name), "id": 2}]),
        |name| json!({"detail": {"error": visit(name)}}),
        |name| json!({"error": {"Data": {"Elicitations": [page(name)]}}}),
        |name| json!({"jsonrpc": "2.0", "id": null, "error": visit(name)}),
        |name| json!({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": page(name)}),
        // Names that some readers take for others, and names that are there twice.
        |name| json!({"error": {"data": {"elicitation\u{17f}": [page(name)]}}}),
        |name| json!({"id": "q", "Method": "x", "method": "elicitation/create", "params": page(name)}),
        |name| json!([[{"deep": {"error": visit(name)}}]]),
    ];
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan { policy: rules(&[]), ..Plan::of(&upstream) }).await;
    for agent in clients(&inside).await {
        for shape in shapes {
            // As it was written, to the byte.
            let text = format!(" {} ", shape("good"));
            upstream.next("tools/call", Answer::json(text.clone()).with_status(StatusCode::UNPROCESSABLE_ENTITY));
            let passed = agent.request("tools/call", json!({"name": "echo", "arguments": {}})).await;
            assert_eq!(passed.status, StatusCode::UNPROCESSABLE_ENTITY, "{text}");
            assert_eq!(passed.text().await, text);
            let (call, asked) = recorded(&inside, "tools/call").await;
            assert_eq!(outcome(&call), "failed", "{text} {call:#}");
            assert_eq!(asked.iter().map(outcome).collect::<Vec<_>>(), ["answered"], "{text}");

            let text = shape("bad").to_string();
            upstream.next("tools/call", Answer::json(text.clone()).with_status(StatusCode::UNPROCESSABLE_ENTITY));
            let stopped = agent.call("echo", json!({})).await;
            assert_eq!(stopped["error"]["code"], -31004, "{text} {stopped}");
            assert!(!stopped.to_string().contains("example"), "{text} {stopped}");
            let (call, asked) = recorded(&inside, "tools/call").await;
            assert_eq!(
                (outcome(&call).as_str(), &call["rules"]),
                ("withheld question release", &json!(["all", "no"])),
                "{text}"
            );
            assert_eq!(asked.iter().map(outcome).collect::<Vec<_>>(), ["refused denied authorize"], "{text}");
        }
        // What asks nothing passes, whatever it looks like.
        for text in [r#"{"error":"no","method":"POST"}"#, r#"{"elicitations":null}"#, r#"["https://bad.example/"]"#] {
            upstream.next("tools/call", Answer::json(text).with_status(StatusCode::BAD_GATEWAY));
            let passed = agent.request("tools/call", json!({"name": "echo", "arguments": {}})).await;
            assert_eq!((passed.status, passed.text().await.as_str()), (StatusCode::BAD_GATEWAY, text));
        }
    }
}

#[tokio::test]
async fn what_a_modern_server_asks_in_the_body_of_an_http_error_is_judged_too() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan { policy: rules(&[("mine", "server.sample")]), ..Plan::of(&upstream) }).await;
    let text =
        json!({"result": {"inputRequests": {"a": {"method": "sampling/createMessage", "params": {}}}}}).to_string();
    for (agent, passes) in clients(&inside).await.iter().zip([true, false]) {
        upstream.next("tools/call", Answer::json(text.clone()).with_status(StatusCode::BAD_GATEWAY));
        let answer = agent.request("tools/call", json!({"name": "echo", "arguments": {}})).await;
        // The legacy era reads no such thing.
        assert_eq!(answer.status == StatusCode::BAD_GATEWAY, passes);
        assert_eq!(answer.text().await == text, passes);
    }
}

#[tokio::test]
async fn in_a_batch_an_http_error_answers_its_own_request_and_no_other() {
    let upstream = Upstream::with_tools(["echo", "hidden"]).await;
    let policy = json!({"policy": "test", "rules": [
        {"id": "all", "action": "*", "target": "*/*", "effect": "allow"},
        {"id": "no", "action": "*", "target": "files/hidden", "effect": "deny"},
    ]});
    let inside = Inside::start(Plan { policy, ..Plan::of(&upstream) }).await;
    let alice = inside.batching("/mcp/files", &inside.alice).await;
    let foreign = json!({"jsonrpc": "2.0", "id": 8, "result": {"tools": [{"name": "hidden", "inputSchema": {"type": "object"}}]}});
    for body in [foreign.clone(), json!([foreign]), json!({"error": "no"})] {
        upstream.next("tools/call", Answer::json(body.to_string()).with_status(StatusCode::BAD_REQUEST));
        let batch = json!([
            {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "echo", "arguments": {}}},
            {"jsonrpc": "2.0", "id": 8, "method": "tools/list"},
        ]);
        let ask = Ask::post(&inside.url("/mcp/files"), batch.to_string()).bearer(&inside.alice);
        let ask = ask.header("mcp-session-id", alice.session().unwrap()).header("mcp-protocol-version", "2025-03-26");
        let mut reply = ask.send().await;
        let (one, other) = (soon(reply.event()).await.unwrap().json(), soon(reply.event()).await.unwrap().json());
        let (first, second) = if one["id"] == 7 { (one, other) } else { (other, one) };
        assert_eq!((&first["id"], first["error"]["code"].is_i64()), (&json!(7), true), "{first}");
        assert_eq!(second["id"], 8, "{second}");
        assert!(!second.to_string().contains("hidden") && !first.to_string().contains("hidden"), "{first} {second}");
        let (call, _) = recorded(&inside, "tools/call").await;
        assert_eq!(call["outcome"]["is"], "withheld", "{call:#}");
    }
}

#[tokio::test]
async fn in_a_batch_a_status_alone_is_told_as_an_error() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let alice = inside.batching("/mcp/files", &inside.alice).await;
    let nameless = json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32000, "message": "no"}});
    let nameless = Answer::json(nameless.to_string()).with_status(StatusCode::BAD_REQUEST);
    let text = Answer::text("no").header("content-type", "text/plain").with_status(StatusCode::SERVICE_UNAVAILABLE);
    for answer in [Answer::status(StatusCode::SERVICE_UNAVAILABLE), text, nameless] {
        upstream.next("tools/call", answer);
        let batch =
            json!([{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "echo", "arguments": {}}}]);
        let ask = Ask::post(&inside.url("/mcp/files"), batch.to_string()).bearer(&inside.alice);
        let ask = ask.header("mcp-session-id", alice.session().unwrap()).header("mcp-protocol-version", "2025-03-26");
        let answer = soon(ask.send().await.event()).await.unwrap().json();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(7), &json!(-31006)), "{answer}");
        let (call, _) = recorded(&inside, "tools/call").await;
        assert_eq!(outcome(&call), "faulted upstream-protocol forward", "{call:#}");
    }
}

/// Of a shape that is known.
const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "ghp_A7dK2mQ9xR4tV8wZ1cF6hJ3nP5sY0u2Kq9Lb";

#[tokio::test]
async fn a_secret_beside_what_a_message_says_is_found() {
    let upstream = Upstream::start().await;
    let guards = guard::Guards::new(guard::Setting { results: guard::Mode::Mask, arguments: guard::Mode::Mask });
    let inside = Inside::start(Plan { guards, ..Plan::of(&upstream) }).await;
    for agent in clients(&inside).await {
        // Names that the protocol spares where it hands them out: only what looks random may stand there.
        let named = json!({"nextCursor": KEY, "requestState": KEY, "cursor": {"cursor": KEY}});
        for beside in [json!({"vendor": {"key": SECRET}}), json!({"params": [SECRET]}), named] {
            let with = |mut message: Value| {
                message.as_object_mut().unwrap().extend(beside.as_object().unwrap().clone());
                message
            };
            // In an answer, in a list that is known, and in what is said before an answer.
            let text = json!([{"type": "text", "text": "fine"}]);
            let result = json!({"jsonrpc": "2.0", "result": {"content": text, "resultType": "complete"}});
            let (result, said) = (with(result), with(json!({"jsonrpc": "2.0", "method": "notifications/progress"})));
            upstream.always("tools/call", move |request| {
                let mut answer = result.clone();
                answer["id"] = request.id();
                Answer::event_text(format!("data: {said}\n\ndata: {answer}\n\n"))
            });
            let answer = agent.request("tools/call", json!({"name": "echo", "arguments": {}})).await.text().await;
            assert!(answer.contains("fine") && !answer.contains("ghp_") && !answer.contains(KEY), "{answer}");
            let tools = json!([{"name": "echo", "inputSchema": {"type": "object"}}]);
            let list = with(
                json!({"jsonrpc": "2.0", "result": {"tools": tools, "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}}),
            );
            upstream.always("tools/list", move |request| {
                let mut answer = list.clone();
                answer["id"] = request.id();
                Answer::json(answer.to_string())
            });
            for _ in 0..2 {
                let listed = agent.request("tools/list", json!({})).await.text().await;
                assert!(listed.contains("echo") && !listed.contains("ghp_") && !listed.contains(KEY), "{listed}");
            }
            upstream.honestly("tools/list").honestly("tools/call");
        }
        // And in what a client says.
        let mut params = json!({"name": "echo", "arguments": {"a": 1}});
        if agent.session().is_none() {
            params["_meta"] = meta();
        }
        let call = json!({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": params, "vendor": SECRET});
        let places = |record: &Value| -> Vec<Value> {
            record["findings"].as_array().unwrap().iter().map(|finding| finding["pointer"].clone()).collect()
        };
        let answer = agent.ask("tools/call", &call).replace("mcp-name", "echo").send().await.json().await;
        assert!(answer["result"].is_object(), "{answer}");
        let sent = upstream.seen("tools/call").pop().unwrap().json();
        assert_eq!((&sent["params"]["arguments"], &sent["id"]), (&json!({"a": 1}), &json!(9)), "{sent}");
        assert!(sent["vendor"].as_str().unwrap().starts_with("[redacted:"), "{sent}");
        assert_eq!(places(&recorded(&inside, "tools/call").await.0), ["/vendor"]);
        // Where the parameters hold it, it is found at the same place as without any company.
        let params = agent.session().map_or_else(|| json!({"_meta": meta()}), |_| json!({}));
        let mut call = json!({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": params, "vendor": 1});
        call["params"]["name"] = json!("echo");
        call["params"]["arguments"] = json!({"a": SECRET});
        upstream.next("tools/call", Answer::result(&json!(9), &json!({"content": [], "resultType": "complete"})));
        agent.ask("tools/call", &call).replace("mcp-name", "echo").send().await;
        assert_eq!(places(&recorded(&inside, "tools/call").await.0), ["/arguments/a"]);
    }
}

#[tokio::test]
async fn a_secret_in_a_method_does_not_leave() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let plan = |arguments| {
        let guards = guard::Guards::new(guard::Setting { results: guard::Mode::Off, arguments });
        Plan { guards, ..Plan::of(&upstream) }
    };
    // With a checksum that fits, and written so that only a reader of JSON sees it.
    let token = "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";
    let escaped = token.replace("ghp_", "\\u0067hp_");
    let place = json!([{"kind": "github-token", "pointer": "/method"}]);
    for agent in clients(&inside).await {
        for mode in [guard::Mode::Mask, guard::Mode::Refuse] {
            inside.swap(plan(mode));
            for method in [format!("x/{token}"), format!("notifications/{token}"), format!("x/{KEY}")] {
                let answer = agent.request(&method, json!({})).await.json().await;
                assert_eq!(answer["error"]["code"], -31003, "{answer}");
                assert_eq!(answer["error"]["data"]["findings"][0]["pointer"], "/method", "{answer}");
                assert_eq!(agent.notify(&method, json!({})).await.status, 400);
                assert!(upstream.seen(&method).is_empty());
            }
            let params = agent.session().map_or_else(|| json!({"_meta": meta()}), |_| json!({}));
            let hidden = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x/{escaped}","params":{params}}}"#);
            let ask = agent.ask(&format!("x/{token}"), &json!({})).body(hidden);
            let answer = ask.send().await.json().await;
            assert_eq!(answer["error"]["data"]["findings"], place, "{answer}");
            // What is none passes, though it is none of MCP's.
            agent.request("vendor/known", json!({})).await;
            assert!(!upstream.seen("vendor/known").is_empty());
        }
        inside.swap(plan(guard::Mode::Report));
        let method = format!("reported/{token}");
        let before = upstream.seen(&method).len();
        agent.request(&method, json!({})).await;
        assert!(upstream.seen(&method).len() > before);
        let record = inside.records().await.pop().unwrap();
        assert_eq!(record["findings"][0]["pointer"], "/method", "{record:#}");
        assert!(!record.to_string().contains(token), "{record:#}");
    }
}

/// A task of the caller's, on its way.
async fn task(agent: &Agent) {
    let params = if agent.session().is_some() {
        json!({"name": "echo", "arguments": {}, "task": {"ttl": 60000}})
    } else {
        let mut meta = meta();
        meta["io.modelcontextprotocol/clientCapabilities"]["extensions"] = json!({"io.modelcontextprotocol/tasks": {}});
        json!({"name": "echo", "arguments": {}, "_meta": meta})
    };
    assert!(agent.request("tools/call", params).await.json().await["result"].is_object());
}

/// The one task, and how it is.
fn task_that(is: &str) -> Value {
    let now = "2026-11-25T00:00:00Z";
    json!({"taskId": "t", "status": is, "createdAt": now, "lastUpdatedAt": now, "ttl": 60000})
}

async fn with_tasks() -> Upstream {
    let upstream = Upstream::start().await;
    upstream.always("tools/call", |request| {
        let task = task_that("working");
        let is_legacy = request.json()["params"]["task"].is_object();
        let modern = json!({"resultType": "task", "taskId": "t", "status": "working"});
        Answer::result(&request.id(), &if is_legacy { json!({"task": task}) } else { modern })
    });
    upstream
}

#[tokio::test]
async fn pages_that_a_failed_task_wants_visited_are_judged() {
    let upstream = with_tasks().await;
    let inside = Inside::start(Plan { policy: rules(&[]), ..Plan::of(&upstream) }).await;
    for agent in clients(&inside).await {
        task(&agent).await;
        let own = if agent.session().is_some() { "tasks/result" } else { "tasks/cancel" };
        for method in ["tasks/get", own] {
            for (name, passes) in [("good", true), ("bad", false)] {
                let mut result = task_that("failed");
                (result["resultType"], result["error"]) = (json!("complete"), visit(name));
                upstream.always(method, move |request| Answer::result(&request.id(), &result));
                let answer = agent.request(method, json!({"taskId": "t"})).await.json().await;
                let (call, asked) = recorded(&inside, method).await;
                let asked: Vec<_> = asked.iter().map(outcome).collect();
                if passes {
                    assert_eq!(answer["result"]["error"], visit("good"), "{answer}");
                    assert_eq!((outcome(&call).as_str(), asked), ("answered", vec!["answered".to_owned()]));
                } else {
                    assert_eq!(answer["error"]["code"], -31004, "{method} {answer}");
                    assert!(!answer.to_string().contains("example"), "{answer}");
                    let refused = vec!["refused denied authorize".to_owned()];
                    assert_eq!((outcome(&call).as_str(), asked), ("withheld question release", refused));
                }
            }
        }
    }
    // The result of a tool that just looks like that is one.
    upstream.always("tools/call", |request| {
        Answer::result(&request.id(), &json!({"content": [], "error": visit("bad"), "resultType": "complete"}))
    });
    for agent in clients(&inside).await {
        assert_eq!(agent.call("echo", json!({})).await["result"]["error"], visit("bad"));
    }
}

#[tokio::test]
async fn news_of_a_failed_task_are_judged_too() {
    let upstream = with_tasks().await;
    let inside = Inside::start(Plan { policy: rules(&[("mine", "server.sample")]), ..Plan::of(&upstream) }).await;
    for (agent, method) in clients(&inside).await.iter().zip(["notifications/tasks/status", "notifications/tasks"]) {
        task(agent).await;
        let (stream, feed) = Answer::events();
        let mut listener = if agent.session().is_some() {
            upstream.next("GET", stream);
            agent.listen().await
        } else {
            upstream.next("subscriptions/listen", stream);
            agent.request("subscriptions/listen", json!({"notifications": {"taskIds": ["t"]}})).await
        };
        let news = |more: Value| {
            let mut params = task_that("failed");
            params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"jsonrpc": "2.0", "method": method, "params": params})
        };
        feed.message(&news(json!({"error": visit("bad")}))).await;
        if agent.session().is_none() {
            let asks = json!({"inputRequests": {"a": {"method": "sampling/createMessage", "params": {}}}});
            feed.message(&news(json!({"result": asks}))).await;
            feed.message(&news(asks)).await;
        }
        // In two lines of one event, too.
        let text = serde_json::to_string_pretty(&news(json!({"error": visit("bad")}))).unwrap();
        feed.raw(format!("data: {}\n\n", text.replace('\n', "\ndata: "))).await;
        feed.message(&news(json!({"error": visit("good")}))).await;
        let heard = soon(listener.event()).await.unwrap().json();
        assert_eq!(heard["params"]["error"], visit("good"), "{heard}");
    }
}

#[tokio::test]
async fn whoever_lost_the_right_is_asked_nothing_and_the_record_says_so() {
    let upstream = Upstream::start().await;
    let plan = |policy: Value| Plan { policy, era: EraSettings::Legacy, ..Plan::of(&upstream) };
    let inside = Inside::start(plan(rules(&[]))).await;
    let alice = inside.modern("/mcp/files", &inside.alice);
    let error = json!({"jsonrpc": "2.0", "id": 1, "error": visit("good")});
    let (held, go) = Answer::json(error.to_string()).held();
    upstream.next("tools/call", held);
    let calling = alice.call("echo", json!({}));
    let (answer, ()) = tokio::join!(soon(calling), async {
        upstream.arrived("tools/call", 1).await;
        inside.swap(plan(json!({"policy": "test", "rules": []})));
        go.send(()).unwrap();
    });
    assert_eq!(answer["error"]["code"], -31004, "{answer}");
    assert!(!answer.to_string().contains("example"), "{answer}");
    let (call, asked) = recorded(&inside, "tools/call").await;
    assert_eq!(outcome(&call), "withheld question release", "{call:#}");
    assert_eq!(asked.iter().map(outcome).collect::<Vec<_>>(), ["refused denied authorize"]);
}

#[tokio::test]
async fn what_the_protocol_hands_out_stays_as_it_is_whatever_stands_beside_it() {
    let upstream = Upstream::start().await;
    let guards = guard::Guards::new(guard::Setting { results: guard::Mode::Mask, arguments: guard::Mode::Mask });
    let inside = Inside::start(Plan { guards, ..Plan::of(&upstream) }).await;
    for agent in clients(&inside).await {
        let tools = json!([{"name": "echo", "inputSchema": {"type": "object"}}]);
        let result =
            json!({"tools": tools, "nextCursor": KEY, "resultType": "complete", "ttlMs": 0, "cacheScope": "private"});
        upstream.always("tools/list", move |request| {
            Answer::json(json!({"jsonrpc": "2.0", "id": request.id(), "result": result, "vendor": SECRET}).to_string())
        });
        let listed = agent.request("tools/list", json!({"cursor": KEY})).await.json().await;
        assert_eq!(listed["result"]["nextCursor"], KEY, "{listed}");
        assert!(listed["vendor"].as_str().unwrap().starts_with("[redacted:"), "{listed}");
        assert_eq!(upstream.seen("tools/list").pop().unwrap().json()["params"]["cursor"], KEY);
        upstream.honestly("tools/list");
    }
}
