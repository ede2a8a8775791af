//! Tasks belong to whoever began them; to everybody else there are none.
#![expect(clippy::indexing_slicing, reason = "what a test expects and does not find fails it")]

mod inside;

use inside::{Inside, Plan};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::{Agent, Answer, Ask, Upstream, meta, soon};

const SECRET: &str = "ghp_A7dK2mQ9xR4tV8wZ1cF6hJ3nP5sY0u2Kq9Lb";

/// A task as a list has it, to the byte.
fn listed_as(id: &str) -> String {
    let at = "2026-11-25T00:00:00Z";
    format!(r#"{{"createdAt":"{at}","lastUpdatedAt":"{at}","status":"working","taskId":"{id}","ttl":1.0}}"#)
}

/// A task that has just begun.
fn working(id: &Value) -> Value {
    let now = "2026-11-25T00:00:00Z";
    json!({"taskId": id, "status": "working", "createdAt": now, "lastUpdatedAt": now, "ttl": 60000})
}

/// A server that makes a task of every call, and gives whoever asks whatever is asked for.
async fn trusting() -> Upstream {
    let upstream = Upstream::with_tools(["echo", "other"]).await;
    upstream.always("tools/call", |request| {
        let params = &request.json()["params"];
        let task = working(&params["arguments"]["id"]);
        let modern = params["_meta"]["io.modelcontextprotocol/clientCapabilities"]["extensions"].as_object();
        let result = match (params["task"].is_object(), modern) {
            (true, _) => json!({"task": task}),
            (false, Some(extensions)) if extensions.contains_key("io.modelcontextprotocol/tasks") => {
                json!({"resultType": "task", "taskId": task["taskId"], "status": "working"})
            }
            (false, _) if task["taskId"] == "long" => {
                let data = json!({"requiredCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}});
                let error = json!({"code": -32021, "message": "it takes long", "data": data});
                let text = json!({"jsonrpc": "2.0", "id": request.id(), "error": error}).to_string();
                return Answer::json(text).with_status(http::StatusCode::BAD_REQUEST);
            }
            (false, _) => json!({"content": [], "resultType": "complete"}),
        };
        Answer::result(&request.id(), &result)
    });
    for method in ["tasks/get", "tasks/cancel", "tasks/update"] {
        upstream.always(method, |request| {
            let mut task = working(&request.json()["params"]["taskId"]);
            task["resultType"] = json!("complete");
            Answer::result(&request.id(), &task)
        });
    }
    upstream.always("tasks/result", |request| {
        let text = json!([{"type": "text", "text": format!("the key is {SECRET}")}]);
        Answer::result(&request.id(), &json!({"content": text}))
    });
    upstream.always("tasks/list", |request| {
        let id = request.id();
        let tasks = format!(r#"{},{},{{"taskId":"nobody's"}},{{"ttl":1}}"#, listed_as("a"), listed_as("b"));
        Answer::json(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"tasks":[{tasks}],"nextCursor":"c"}}}}"#))
    });
    upstream
}

async fn screened(upstream: &Upstream) -> Inside {
    let guards = guard::Guards::new(guard::Setting { results: guard::Mode::Mask, arguments: guard::Mode::Off });
    Inside::start(Plan { guards, ..Plan::of(upstream) }).await
}

async fn begin(agent: &Agent, id: &str) -> Value {
    let params = if agent.session().is_some() {
        json!({"name": "echo", "arguments": {"id": id}, "task": {"ttl": 60000}})
    } else {
        let mut meta = meta();
        meta["io.modelcontextprotocol/clientCapabilities"]["extensions"] =
            json!({"io.modelcontextprotocol/tasks": {}, "vendor/x": {"n": 1}});
        json!({"name": "echo", "arguments": {"id": id}, "_meta": meta})
    };
    agent.request("tools/call", params).await.json().await
}

async fn manage(agent: &Agent, method: &str, id: &str) -> Value {
    agent.request(method, json!({"taskId": id})).await.json().await
}

#[tokio::test]
async fn nobody_manages_the_task_of_another() {
    let upstream = trusting().await;
    let inside = screened(&upstream).await;
    let alices = [inside.legacy("/mcp/files", &inside.alice).await, inside.modern("/mcp/files", &inside.alice)];
    let bobs = [inside.legacy("/mcp/files", &inside.bob).await, inside.modern("/mcp/files", &inside.bob)];
    let methods = [["tasks/get", "tasks/result", "tasks/cancel"], ["tasks/get", "tasks/update", "tasks/cancel"]];
    for ((alice, bob), methods) in alices.iter().zip(&bobs).zip(methods) {
        let begun = begin(alice, "a").await;
        assert!(begun.to_string().contains("\"a\""), "{begun}");
        for method in methods {
            let before = upstream.seen(method).len();
            let foreign = manage(bob, method, "a").await;
            let missing = manage(bob, method, "z").await;
            assert_eq!(foreign["error"]["code"], -32602, "{foreign}");
            assert_eq!(foreign["error"]["message"], "Unknown task: a");
            assert_eq!(missing["error"]["message"], "Unknown task: z");
            assert_eq!(foreign["error"].as_object().unwrap().keys().len(), missing["error"].as_object().unwrap().len());
            assert_eq!(upstream.seen(method).len(), before, "the server was not asked");
            let own = manage(alice, method, "a").await;
            assert!(own.get("result").is_some(), "{method} {own}");
        }
        // Nor by a method that nobody knows.
        assert_eq!(manage(bob, "tasks/peek", "a").await["error"]["code"], -32601);
        assert!(upstream.seen("tasks/peek").is_empty());
        // A day without use, and it is nobody's.
        inside.clock.advance(Duration::from_hours(25));
        assert_eq!(manage(alice, "tasks/get", "a").await["error"]["code"], -32602);
    }
}

#[tokio::test]
async fn lists_results_and_news_hold_what_is_ones_own_and_no_secret() {
    let upstream = trusting().await;
    let inside = screened(&upstream).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let bob = inside.legacy("/mcp/files", &inside.bob).await;
    begin(&alice, "a").await;
    begin(&bob, "b").await;
    let listed = alice.request("tasks/list", json!({})).await.text().await;
    assert!(listed.contains(&format!(r#""tasks":[{}],"nextCursor":"c""#, listed_as("a"))), "{listed}");
    let listed = bob.request("tasks/list", json!({})).await.json().await;
    let tasks = listed["result"]["tasks"].as_array().unwrap();
    assert!(tasks.len() == 1 && tasks[0]["taskId"] == "b", "{listed}");
    let result = manage(&alice, "tasks/result", "a").await.to_string();
    assert!(result.contains("[redacted:") && !result.contains(SECRET), "{result}");
    // The server tells everybody of every task.
    let (stream, feed) = Answer::events();
    upstream.next("GET", stream);
    let mut listener = alice.listen().await;
    let news = |task: &str| {
        let mut params = working(&json!(task));
        (params["status"], params["statusMessage"]) = (json!("failed"), json!(format!("with {SECRET}")));
        json!({"jsonrpc": "2.0", "method": "notifications/tasks/status", "params": params})
    };
    feed.message(&news("b")).await;
    feed.message(&news("a")).await;
    let heard = soon(listener.event()).await.unwrap();
    assert_eq!(heard.json()["params"]["taskId"], "a");
    assert!(heard.data.contains("[redacted:") && !heard.data.contains(SECRET), "{}", heard.data);
    // A modern listener asks for its own alone.
    let modern = inside.modern("/mcp/files", &inside.bob);
    let (stream, feed) = Answer::events();
    upstream.next("subscriptions/listen", stream);
    let mut listener = modern.request("subscriptions/listen", json!({"notifications": {"taskIds": ["a", "b"]}})).await;
    let asked = upstream.arrived("subscriptions/listen", 1).await;
    assert_eq!(asked.json()["params"]["notifications"]["taskIds"], json!(["b"]));
    for task in ["a", "b"] {
        feed.message(&json!({"jsonrpc": "2.0", "method": "notifications/tasks", "params": {"taskId": task}})).await;
    }
    assert_eq!(soon(listener.event()).await.unwrap().json()["params"]["taskId"], "b");
}

#[tokio::test]
async fn tasks_are_bounded_and_an_id_has_one_owner() {
    let upstream = trusting().await;
    let inside = screened(&upstream).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    for number in 0..256 {
        assert!(begin(&alice, &format!("t{number}")).await.get("result").is_some());
    }
    let calls = upstream.seen("tools/call").len();
    let full = begin(&alice, "more").await;
    assert_eq!(full["error"]["code"], -31002, "{full}");
    assert!(full["error"]["message"].as_str().unwrap().contains("256 tasks"), "{full}");
    assert_eq!(upstream.seen("tools/call").len(), calls);
    // A modern client that merely knows tasks is served, and its server not told that it does.
    let modern = inside.modern("/mcp/files", &inside.alice);
    assert_eq!(begin(&modern, "more").await["result"]["resultType"], "complete");
    let told = upstream.seen("tools/call").pop().unwrap().json();
    let extensions = &told["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"]["extensions"];
    assert_eq!(extensions, &json!({"vendor/x": {"n": 1}}), "{told}");
    // Where the tool wants to make a task of the call, the client hears why there is none.
    let wanted = begin(&modern, "long").await;
    assert_eq!(wanted["error"]["code"], -31002, "{wanted}");
    assert!(wanted["error"]["message"].as_str().unwrap().contains("256 tasks"), "{wanted}");
    // Others have their own, but not the same.
    let bob = inside.legacy("/mcp/files", &inside.bob).await;
    assert!(begin(&bob, "mine").await.get("result").is_some());
    let twice = begin(&bob, "t0").await;
    assert_eq!(twice["error"]["code"], -31004, "{twice}");
    assert_eq!(manage(&bob, "tasks/get", "t0").await["error"]["code"], -32602);
    assert!(manage(&alice, "tasks/get", "t0").await.get("result").is_some());
    // What nobody used for a day is anybody's, and counts for nobody.
    inside.clock.advance(Duration::from_hours(25));
    assert!(begin(&bob, "t1").await.get("result").is_some());
    assert!(begin(&alice, "one more").await.get("result").is_some());
    inside.state.sweep();
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    assert!(manage(&alice, "tasks/get", "one more").await.get("result").is_some());
}

#[tokio::test]
async fn a_task_that_has_ended_makes_room_for_another() {
    let upstream = trusting().await;
    for method in ["tasks/get", "tasks/cancel"] {
        upstream.always(method, |request| {
            let id = &request.json()["params"]["taskId"];
            let mut task = working(id);
            task["status"] = if id == "t9" { "working".into() } else { "completed".into() };
            task["resultType"] = "complete".into();
            match id.as_str() {
                Some("t8") => Answer::error(&request.id(), -32602, "unknown task"),
                Some("t5") => Answer::result(&request.id(), &json!({"resultType": "complete"})),
                _ => Answer::result(&request.id(), &task),
            }
        });
    }
    upstream.always("tasks/list", |request| {
        let tasks = json!([{"taskId": "t6", "status": "failed"}, {"taskId": "t7", "status": "working"}]);
        Answer::result(&request.id(), &json!({"tasks": tasks}))
    });
    let inside = screened(&upstream).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let modern = inside.modern("/mcp/files", &inside.alice);
    for number in 0..256 {
        assert!(begin(&alice, &format!("t{number}")).await.get("result").is_some());
    }
    let refused = || async { begin(&alice, "no").await["error"]["code"] == -31002 };
    assert!(refused().await);
    // How its end is heard of is the same: asked for, listed, told, in its result, or that it is not there any more.
    manage(&alice, "tasks/get", "t9").await;
    assert!(refused().await, "it is under way");
    for (how, ended) in [("tasks/get", "t1"), ("tasks/cancel", "t2"), ("tasks/result", "t3"), ("tasks/get", "t8")] {
        manage(&alice, how, ended).await;
        let began = begin(&modern, &format!("after {ended}")).await;
        assert!(began.get("result").is_some(), "{how} {began}");
        assert_eq!(manage(&alice, "tasks/get", ended).await["error"]["message"], format!("Unknown task: {ended}"));
        assert!(refused().await);
    }
    // In the modern era whoever takes one back is told no more than that it was heard.
    assert!(manage(&modern, "tasks/cancel", "t5").await.get("result").is_some());
    assert!(begin(&alice, "after t5").await.get("result").is_some());
    assert!(refused().await);
    alice.request("tasks/list", json!({})).await.text().await;
    assert!(begin(&alice, "after t6").await.get("result").is_some());
    assert!(refused().await);
    let (stream, feed) = Answer::events();
    upstream.next("GET", stream);
    let mut listener = alice.listen().await;
    let mut ended = working(&json!("t4"));
    ended["status"] = "cancelled".into();
    feed.message(&json!({"jsonrpc": "2.0", "method": "notifications/tasks/status", "params": ended})).await;
    soon(listener.event()).await.unwrap();
    assert!(begin(&alice, "after t4").await.get("result").is_some());
    assert!(refused().await);
    // What its server might not keep any longer makes room only where nobody asked for it for a while: it may still work,
    // and who asks for it can cancel it.
    inside.clock.advance(Duration::from_secs(61));
    assert!(refused().await);
    inside.clock.advance(Duration::from_mins(10));
    assert!(manage(&alice, "tasks/get", "t9").await.get("result").is_some());
    let later = begin(&alice, "later").await;
    assert!(later.get("result").is_some(), "{later}");
    assert!(manage(&alice, "tasks/cancel", "t9").await.get("result").is_some());
}

#[tokio::test]
async fn a_task_of_an_answer_that_is_given_again_is_its_callers() {
    let upstream = trusting().await;
    let inside = screened(&upstream).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let bob = inside.legacy("/mcp/files", &inside.bob).await;
    assert!(begin(&bob, "bobs").await.get("result").is_some());
    // The stream breaks off before the answer; the client asks for the rest of it.
    upstream.next("tools/call", Answer::event_text("id: a-1\nretry: 10\ndata: \n\n"));
    let call = json!({"name": "echo", "arguments": {"id": "late"}, "task": {}});
    drop(alice.request("tools/call", call).await.text().await);
    let begun = |task: &str| {
        let result = json!({"task": working(&json!(task))});
        let answer = json!({"jsonrpc": "2.0", "id": 1, "result": result});
        format!("id: a-{task}\ndata: {answer}\n\n")
    };
    upstream.next("GET", Answer::event_text(begun("late") + &begun("bobs")));
    let resume = Ask::get(&inside.url("/mcp/files")).bearer(&inside.alice).header("accept", "text/event-stream");
    let resume = resume.header("mcp-session-id", alice.session().unwrap()).header("last-event-id", "a-1");
    let text = soon(resume.send().await.text()).await;
    assert!(text.contains("late"), "{text}");
    assert!(manage(&alice, "tasks/get", "late").await.get("result").is_some());
    assert_eq!(manage(&bob, "tasks/get", "late").await["error"]["code"], -32602);
    // Whoever has one keeps it.
    assert!(manage(&bob, "tasks/get", "bobs").await.get("result").is_some());
    assert_eq!(manage(&alice, "tasks/get", "bobs").await["error"]["code"], -32602);
}

const EXTENSION: &str = "io.modelcontextprotocol/tasks";
const RELATED: &str = "io.modelcontextprotocol/related-task";

/// The server says that it has tasks, in either era.
fn declaring(upstream: &Upstream) {
    let base = json!({"tools": {"listChanged": true}});
    let mut modern = base.clone();
    modern["extensions"] = json!({EXTENSION: {}});
    upstream.always("server/discover", move |request| {
        let versions = json!(["2026-07-28"]);
        let result = json!({"supportedVersions": versions, "capabilities": modern, "resultType": "complete", "ttlMs": 0, "cacheScope": "private"});
        Answer::result(&request.id(), &result)
    });
}

/// The call on the aggregate that becomes a task, and its id there.
async fn begin_there(agent: &Agent, tool: &str, id: &str) -> String {
    let mut params = json!({"name": tool, "arguments": {"id": id}});
    if agent.session().is_some() {
        params["task"] = json!({"ttl": 60000});
    } else {
        params["_meta"] = meta();
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"]["extensions"] = json!({EXTENSION: {}});
    }
    let answer = agent.request("tools/call", params).await.json().await;
    let id = answer.pointer("/result/task/taskId").or_else(|| answer.pointer("/result/taskId"));
    assert!(id.is_some_and(Value::is_string), "{answer}");
    id.and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_modern_server_reads_the_same_task_in_header_and_body_whatever_the_client_wrote() {
    let upstream = trusting().await;
    declaring(&upstream);
    let inside = Inside::start(Plan::of(&upstream)).await;
    for id in ["a", "tâche"] {
        for (door, tool) in [("/mcp", "files__echo"), ("/mcp/files", "echo")] {
            let alice = inside.modern(door, &inside.alice);
            let task = begin_there(&alice, tool, id).await;
            assert_eq!(task == id, door == "/mcp/files", "{task}");
            for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
                for is_named in [true, false] {
                    let params = json!({"taskId": task, "_meta": meta()});
                    let text = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
                    let ask = Ask::post(&inside.url(door), text).bearer(&inside.alice);
                    let ask = ask.header("mcp-protocol-version", testkit::MODERN).header("mcp-method", method);
                    let name = mcp::name_value(&task).to_str().unwrap_or_default().to_owned();
                    let ask = if is_named { ask.header("mcp-name", &name) } else { ask };
                    let answer = ask.send().await.json().await;
                    assert!(answer["result"].is_object(), "{door} {method}: {answer}");
                    let sent =
                        upstream.seen(method).pop().unwrap_or_else(|| panic!("{door} {method}: nothing was sent"));
                    assert_eq!(sent.json()["params"]["taskId"], id);
                    let named = mcp::name_value(id);
                    assert_eq!(sent.header("mcp-name"), named.to_str().ok(), "{door} {method}, named: {is_named}");
                }
            }
        }
    }
}

#[tokio::test]
async fn tasks_of_all_servers_are_found_by_sealed_ids() {
    let (one, two) = (trusting().await, trusting().await);
    declaring(&one);
    declaring(&two);
    for upstream in [&one, &two] {
        upstream.always("tasks/get", |request| {
            let id = &request.json()["params"]["taskId"];
            let mut result = working(id);
            (result["resultType"], result["_meta"]) = (json!("complete"), json!({RELATED: {"taskId": id}}));
            Answer::result(&request.id(), &result)
        });
    }
    let servers = vec![("one", one.url()), ("two", two.url())];
    let inside = Inside::start(Plan { servers, ..Plan::of(&one) }).await;
    let discovered = inside.modern("/mcp", &inside.alice).request("server/discover", json!({})).await.json().await;
    assert_eq!(discovered["result"]["capabilities"]["extensions"], json!({EXTENSION: {}}), "{discovered}");
    let clients = [
        (inside.legacy("/mcp", &inside.alice).await, inside.legacy("/mcp", &inside.bob).await),
        (inside.modern("/mcp", &inside.alice), inside.modern("/mcp", &inside.bob)),
    ];
    for (round, (alice, bob)) in clients.iter().enumerate() {
        // Two servers choose the same id.
        let (first, second) = (begin_there(alice, "one__echo", "a").await, begin_there(alice, "two__echo", "a").await);
        assert_ne!(first, second);
        assert!(!first.contains("one"), "{first}");
        for (shown, upstream, other) in [(&first, &one, &two), (&second, &two, &one)] {
            let others = other.seen("tasks/get").len();
            let got = manage(alice, "tasks/get", shown).await;
            assert_eq!(got["result"]["taskId"], json!(shown), "{got}");
            assert_eq!(got["result"]["_meta"][RELATED]["taskId"], json!(shown), "{got}");
            let asked = upstream.seen("tasks/get").pop().unwrap();
            assert_eq!(asked.json()["params"]["taskId"], "a");
            assert_eq!(asked.header("mcp-name"), (round == 1).then_some("a"));
            assert_eq!(other.seen("tasks/get").len(), others, "the other server is not asked");
            // Nobody else can use the id, nor make one, nor take the server's own.
            let before = upstream.seen("tasks/get").len();
            let mut forged = shown.clone().into_bytes();
            *forged.last_mut().unwrap() = if forged.ends_with(b"A") { b"B" } else { b"A" }[0];
            let forged = String::from_utf8(forged).unwrap();
            for (agent, id) in [(bob, shown.as_str()), (alice, &forged), (alice, "a"), (alice, "durward-task-AAAA")] {
                let refused = manage(agent, "tasks/get", id).await;
                assert_eq!(refused["error"]["code"], -32602, "{refused}");
                assert_eq!(
                    refused["error"]["message"],
                    format!("Unknown task: {}", id.chars().take(128).collect::<String>())
                );
            }
            assert_eq!(upstream.seen("tasks/get").len(), before);
        }
        assert_eq!(manage(alice, "tasks/peek", &first).await["error"]["code"], -32601);
        // A day without use, and it is nobody's, though the id still opens.
        inside.clock.advance(Duration::from_hours(25));
        assert_eq!(manage(alice, "tasks/get", &first).await["error"]["code"], -32602);
    }
}

#[tokio::test]
async fn news_of_tasks_name_them_as_the_client_knows_them() {
    let upstream = trusting().await;
    declaring(&upstream);
    let inside = screened(&upstream).await;
    let legacy = inside.legacy("/mcp", &inside.alice).await;
    let shown = begin_there(&legacy, "files__echo", "a").await;
    begin_there(&inside.legacy("/mcp", &inside.bob).await, "files__echo", "b").await;
    let (stream, feed) = Answer::events();
    upstream.next("GET", stream);
    let mut listener = legacy.listen().await;
    for task in ["b", "a"] {
        let params = json!({"taskId": task, "status": "failed", "statusMessage": format!("with {SECRET}"), "_meta": {RELATED: {"taskId": task}},
            "createdAt": "2026-11-28T00:00:00Z", "lastUpdatedAt": "2026-11-28T00:00:00Z", "ttl": null});
        feed.message(&json!({"jsonrpc": "2.0", "method": "notifications/tasks/status", "params": params})).await;
    }
    let heard = soon(listener.event()).await.unwrap();
    assert_eq!(heard.json()["params"]["taskId"], json!(shown));
    assert_eq!(heard.json()["params"]["_meta"][RELATED]["taskId"], json!(shown));
    assert!(heard.data.contains("[redacted:") && !heard.data.contains(SECRET), "{}", heard.data);
    // A question in the course of a task, and its answer.
    let question =
        json!({"jsonrpc": "2.0", "id": 5, "method": "roots/list", "params": {"_meta": {RELATED: {"taskId": "a"}}}});
    feed.message(&question).await;
    let asked = soon(listener.event()).await.unwrap().json();
    assert_eq!(asked["params"]["_meta"][RELATED]["taskId"], json!(shown), "{asked}");
    let result = json!({"roots": [], "_meta": {RELATED: {"taskId": shown}}});
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": result});
    assert_eq!(legacy.ask("response", &answer).send().await.status, 202);
    let answered = upstream.arrived("response", 1).await.json();
    assert_eq!(answered["result"]["_meta"][RELATED]["taskId"], "a", "{answered}");
    // A modern listener names them so, too.
    let modern = inside.modern("/mcp", &inside.alice);
    let (stream, feed) = Answer::events();
    upstream.next("subscriptions/listen", stream);
    let wanted = json!({"notifications": {"taskIds": [shown, "a", "durward-task-AAAA"]}});
    let (mut listener, ()) = tokio::join!(modern.request("subscriptions/listen", wanted), async {
        let asked = upstream.arrived("subscriptions/listen", 1).await.json();
        assert_eq!(asked["params"]["notifications"]["taskIds"], json!(["a"]), "{asked}");
        let params = json!({"taskId": "a", "status": "working"});
        feed.message(&json!({"jsonrpc": "2.0", "method": "notifications/tasks", "params": params})).await;
    });
    let begun = soon(listener.event()).await.unwrap().json();
    assert_eq!(begun["params"]["notifications"]["taskIds"], json!([shown]), "{begun}");
    assert_eq!(soon(listener.event()).await.unwrap().json()["params"]["taskId"], json!(shown));
}

#[tokio::test]
async fn news_of_a_task_that_has_no_name_on_the_aggregate_are_left_out() {
    let upstream = trusting().await;
    declaring(&upstream);
    let inside = Inside::start(Plan::of(&upstream)).await;
    let long = "L".repeat(1_100);
    let says = |method: &str, task: &str| {
        let mut params = working(&json!(task));
        params["_meta"] = json!({RELATED: {"taskId": task}});
        json!({"jsonrpc": "2.0", "method": method, "params": params})
    };
    // On the server's own door the id is the server's.
    let legacy = inside.legacy("/mcp", &inside.alice).await;
    let shown = begin_there(&legacy, "files__echo", "a").await;
    begin_there(&inside.legacy("/mcp/files", &inside.alice).await, "echo", &long).await;
    let (stream, feed) = Answer::events();
    upstream.next("GET", stream);
    let mut listener = legacy.listen().await;
    upstream.arrived("GET", 1).await;
    feed.message(&says("notifications/tasks/status", &long)).await;
    // It cannot be asked in the course of such a task, either, and its server is told so.
    let mut question = says("roots/list", &long);
    question["id"] = json!("q");
    feed.message(&question).await;
    feed.message(&says("notifications/tasks/status", "a")).await;
    let heard = soon(listener.event()).await.unwrap().json();
    assert_eq!(heard["params"]["taskId"], json!(shown), "{heard}");
    let no = upstream.arrived("response", 1).await.json();
    assert_eq!((&no["id"], &no["error"]["code"]), (&json!("q"), &json!(-31004)), "{no}");
    let modern = inside.modern("/mcp", &inside.alice);
    let (stream, feed) = Answer::events();
    upstream.next("subscriptions/listen", stream);
    let wanted = json!({"notifications": {"taskIds": [shown]}});
    let (mut listener, ()) = tokio::join!(modern.request("subscriptions/listen", wanted), async {
        upstream.arrived("subscriptions/listen", 1).await;
        for task in [&long, "a"] {
            feed.message(&says("notifications/tasks", task)).await;
        }
    });
    assert_eq!(soon(listener.event()).await.unwrap().json()["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(soon(listener.event()).await.unwrap().json()["params"]["taskId"], json!(shown));
    // A call whose stream tells of it goes on, too.
    upstream.always("tools/call", move |request| {
        let said = says("notifications/tasks/status", &long);
        let answer = json!({"jsonrpc": "2.0", "id": request.id(), "result": {"content": []}});
        Answer::event_text(format!("data: {said}\n\ndata: {answer}\n\n"))
    });
    let answer = legacy.call("files__echo", json!({})).await;
    assert_eq!(answer["result"]["content"], json!([]), "{answer}");
}

#[tokio::test]
async fn no_task_is_handed_to_a_client_of_the_aggregate_that_does_not_know_tasks() {
    for is_streamed in [false, true] {
        let upstream = Upstream::start().await;
        upstream.always("tools/call", move |request| {
            let mut result = working(&json!("t"));
            result["resultType"] = json!("task");
            if !is_streamed {
                return Answer::result(&request.id(), &result);
            }
            Answer::event_text(format!("data: {}\n\n", json!({"jsonrpc": "2.0", "id": request.id(), "result": result})))
        });
        let inside = Inside::start(Plan::of(&upstream)).await;
        let alice = inside.modern("/mcp", &inside.alice);
        let withheld = alice.call("files__echo", json!({})).await;
        assert_eq!(withheld["error"]["code"], -31004, "{withheld}");
        let why = withheld["error"]["message"].as_str().unwrap();
        assert!(why.contains("the call was made") && why.contains(EXTENSION), "{why}");
        assert!(!withheld.to_string().contains("taskId"), "{withheld}");
        let record = inside.records().await.pop().unwrap();
        assert_eq!(record["outcome"]["is"], "withheld", "{record}");
        // Who knows them gets it.
        begin_there(&alice, "files__echo", "t").await;
        // On the server's own door what it says passes as it is.
        let own = inside.modern("/mcp/files", &inside.alice).call("echo", json!({})).await;
        assert_eq!((&own["result"]["resultType"], &own["result"]["taskId"]), (&json!("task"), &json!("t")), "{own}");
    }
}

#[tokio::test]
async fn what_is_given_again_of_a_call_names_tasks_as_it_did() {
    let upstream = trusting().await;
    declaring(&upstream);
    let inside = screened(&upstream).await;
    let alice = inside.legacy("/mcp", &inside.alice).await;
    begin_there(&alice, "files__other", "a").await;
    let (answer, feed) = Answer::events();
    upstream.next("tools/call", answer);
    let params = json!({"name": "files__echo", "arguments": {"id": "late"}, "task": {"ttl": 60000}});
    let mut stream = alice.request("tools/call", params).await;
    let id = upstream.arrived("tools/call", 2).await.id();
    let place = soon(stream.any_event()).await.unwrap().id.unwrap();
    drop(stream);
    let mut news = working(&json!("a"));
    news["_meta"] = json!({RELATED: {"taskId": "a"}});
    feed.message(&json!({"jsonrpc": "2.0", "method": "notifications/tasks/status", "params": news})).await;
    let begun = json!({"task": working(&json!("late")), "_meta": {RELATED: {"taskId": "late"}}});
    feed.message(&json!({"jsonrpc": "2.0", "id": id, "result": begun})).await;
    drop(feed);
    for round in 0..3 {
        // News are given again to whom may still call the tool whose task it is.
        if round == 2 {
            inside.swap(Plan { policy: tools(&["echo"]), ..Plan::of(&upstream) });
        }
        let resume = Ask::get(&inside.url("/mcp")).bearer(&inside.alice).header("accept", "text/event-stream");
        let resume = resume.header("mcp-session-id", alice.session().unwrap()).header("last-event-id", &place);
        let mut again = resume.send().await;
        if round == 2 {
            assert_eq!(soon(again.event()).await.unwrap().json()["result"]["task"]["status"], "working");
            continue;
        }
        let news = soon(again.event()).await.unwrap().json();
        let answer = soon(again.event()).await.unwrap().json();
        for (shown, related, own) in [
            (&news["params"]["taskId"], &news["params"]["_meta"][RELATED]["taskId"], "a"),
            (&answer["result"]["task"]["taskId"], &answer["result"]["_meta"][RELATED]["taskId"], "late"),
        ] {
            for shown in [shown, related] {
                let got = manage(&alice, "tasks/get", shown.as_str().unwrap()).await;
                assert!(got.get("result").is_some(), "{own}: {got} of {news} {answer}");
                assert_eq!(upstream.seen("tasks/get").pop().unwrap().json()["params"]["taskId"], own);
            }
        }
    }
}

#[tokio::test]
async fn a_list_of_tasks_has_those_of_every_server_and_of_nobody_else() {
    let upstream = trusting().await;
    upstream.always("initialize", |request| {
        let tasks = json!({"list": {}, "requests": {"tools": {"call": {}}}});
        let result = json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}, "tasks": tasks}, "serverInfo": {"name": "f", "version": "1"}});
        Answer::result(&request.id(), &result).header("mcp-session-id", "s")
    });
    upstream.always("tasks/list", |request| {
        let next = request.json()["params"]["cursor"].is_string();
        let result = if next {
            json!({"tasks": [working(&json!("b"))]})
        } else {
            json!({"tasks": [working(&json!("a")), working(&json!("nobody's"))], "nextCursor": "c"})
        };
        Answer::result(&request.id(), &result)
    });
    let plan = |policy: Value| Plan { era: gateway::settings::EraSettings::Legacy, policy, ..Plan::of(&upstream) };
    let all = json!({"policy": "test", "rules": [{"id": "all", "action": "*", "target": "*/*", "effect": "allow"}]});
    let inside = Inside::start(plan(all)).await;
    let alice = inside.legacy("/mcp", &inside.alice).await;
    let bob = inside.legacy("/mcp", &inside.bob).await;
    let (a, b) = (begin_there(&alice, "files__echo", "a").await, begin_there(&bob, "files__echo", "b").await);
    for (agent, own) in [(&alice, &a), (&bob, &b)] {
        let listed = agent.request("tasks/list", json!({})).await.json().await;
        assert_eq!(listed["result"], json!({"tasks": [working(&json!(own))]}), "{listed}");
    }
    let paged = alice.request("tasks/list", json!({"cursor": "c"})).await.json().await;
    assert_eq!(paged["error"]["code"], -32602, "{paged}");
    // Where policy keeps tasks from the caller there are none, and no such method.
    inside.swap(plan(json!({"policy": "test", "rules": [{"id": "tools", "action": "tool.execute", "target": "*/*", "effect": "allow"}]})));
    let asked = upstream.seen("tasks/list").len();
    assert_eq!(alice.request("tasks/list", json!({})).await.json().await["error"]["code"], -32601);
    assert!(manage(&alice, "tasks/get", &a).await.get("error").is_some());
    assert_eq!(upstream.seen("tasks/list").len(), asked);
    assert!(upstream.seen("tasks/get").is_empty());
}

#[tokio::test]
async fn no_task_crosses_a_bridge_and_it_is_said() {
    let upstream = trusting().await;
    declaring(&upstream);
    let inside = Inside::start(Plan { era: gateway::settings::EraSettings::Modern, ..Plan::of(&upstream) }).await;
    let legacy = inside.legacy("/mcp", &inside.alice).await;
    let hello = legacy
        .request(
            "initialize",
            json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}),
        )
        .await
        .json()
        .await;
    assert!(hello["result"]["capabilities"].get("tasks").is_none(), "{hello}");
    let call = json!({"name": "files__echo", "arguments": {"id": "a"}, "task": {}});
    let refused = legacy.request("tools/call", call).await.json().await;
    assert_eq!(refused["error"]["code"], -32602, "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("tasks are not carried over"), "{refused}");
    assert_eq!(legacy.request("tasks/list", json!({})).await.json().await["error"]["code"], -32601);
    assert!(upstream.seen("tools/call").is_empty());
    // The other way round the server does not hear that the client could have one.
    let upstream = trusting().await;
    let inside = Inside::start(Plan { era: gateway::settings::EraSettings::Legacy, ..Plan::of(&upstream) }).await;
    let modern = inside.modern("/mcp", &inside.alice);
    let discovered = modern.request("server/discover", json!({})).await.json().await;
    assert!(!discovered.to_string().contains("tasks"), "{discovered}");
    let mut meta = meta();
    meta["io.modelcontextprotocol/clientCapabilities"]["extensions"] = json!({EXTENSION: {}});
    let call = json!({"name": "files__echo", "arguments": {"id": "a"}, "_meta": meta});
    let answer = modern.request("tools/call", call).await.json().await;
    assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
    assert!(!upstream.seen("initialize").last().unwrap().json().to_string().contains(EXTENSION));
}

/// Rules by which these tools may be called, and all tasks managed.
fn tools(names: &[&str]) -> Value {
    let targets: Vec<String> = names.iter().map(|name| format!("files/{name}")).collect();
    json!({"policy": "test", "rules": [
        {"id": "tools", "action": "tool.execute", "target": targets, "effect": "allow"},
        {"id": "tasks", "action": "task.manage", "target": "*/*", "effect": "allow"},
    ]})
}

#[tokio::test]
async fn a_task_is_no_longer_its_callers_than_the_right_to_its_tool() {
    let upstream = trusting().await;
    declaring(&upstream);
    let plan = |names: &[&str]| Plan { policy: tools(names), ..Plan::of(&upstream) };
    let inside = Inside::start(plan(&["echo", "other"])).await;
    for (door, tool) in [("/mcp/files", "echo"), ("/mcp", "files__echo")] {
        inside.swap(plan(&["echo", "other"]));
        let (legacy, modern) = (inside.legacy(door, &inside.alice).await, inside.modern(door, &inside.alice));
        let a = begin_there(&legacy, tool, "a").await;
        let b = begin_there(&modern, tool, "b").await;
        let (stream, feed) = Answer::events();
        upstream.next("GET", stream);
        let mut listener = legacy.listen().await;
        let (stream, modern_feed) = Answer::events();
        upstream.next("subscriptions/listen", stream);
        let before = upstream.seen("subscriptions/listen").len();
        let wanted = json!({"notifications": {"taskIds": [b]}});
        let (mut modern_listener, ()) = tokio::join!(modern.request("subscriptions/listen", wanted.clone()), async {
            let asked = upstream.arrived("subscriptions/listen", before + 1).await.json();
            assert_eq!(asked["params"]["notifications"]["taskIds"], json!(["b"]), "{asked}");
            let words = json!({"taskId": "b", "status": "working"});
            modern_feed.message(&json!({"jsonrpc": "2.0", "method": "notifications/tasks", "params": words})).await;
        });
        // The tool is another's business now, and so are its tasks; that there are others does not help.
        for (names, holds) in [(&["echo"][..], true), (&["other"], false), (&["echo", "other"], true)] {
            inside.swap(plan(names));
            let listed = legacy.request("tasks/list", json!({})).await.json().await;
            let listed = listed.pointer("/result/tasks").and_then(Value::as_array).map_or(0, Vec::len);
            assert!(door == "/mcp" || (listed > 0) == holds, "{names:?} {listed}");
            for (agent, id, methods) in [
                (&legacy, &a, ["tasks/get", "tasks/result", "tasks/cancel"]),
                (&modern, &b, ["tasks/get", "tasks/update", "tasks/cancel"]),
            ] {
                for method in methods {
                    let asked = upstream.seen(method).len();
                    let answer = manage(agent, method, id).await;
                    assert_eq!(answer.get("result").is_some(), holds, "{names:?} {method} {answer}");
                    assert_eq!(upstream.seen(method).len() > asked, holds, "{method}");
                    if !holds {
                        let missing = manage(agent, method, "z").await;
                        assert_eq!(answer["error"]["code"], missing["error"]["code"]);
                        assert_eq!(answer["error"]["message"], json!(format!("Unknown task: {id}")));
                    }
                }
            }
            let mark = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "mark"}});
            for (listener, feed, method, id) in [
                (&mut listener, &feed, "notifications/tasks/status", "a"),
                (&mut modern_listener, &modern_feed, "notifications/tasks", "b"),
            ] {
                let mut params = working(&json!(id));
                params["statusMessage"] = json!("news");
                feed.message(&json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
                feed.message(&mark).await;
                let mut heard = 0;
                loop {
                    let word = soon(listener.event()).await.unwrap().json();
                    match word["method"].as_str() {
                        Some("notifications/message") => break,
                        _ => heard += usize::from(word["params"]["statusMessage"] == "news"),
                    }
                }
                assert_eq!(heard, usize::from(holds), "{names:?} {method}");
            }
        }
        // Whoever listens anew hears nothing of it, either.
        inside.swap(plan(&["other"]));
        let asked = upstream.seen("subscriptions/listen").len();
        let (stream, _feed) = Answer::events();
        upstream.next("subscriptions/listen", stream);
        let (_, asked) = tokio::join!(
            async {
                tokio::time::timeout(Duration::from_secs(1), modern.request("subscriptions/listen", wanted)).await.ok()
            },
            async {
                tokio::time::timeout(Duration::from_secs(1), upstream.arrived("subscriptions/listen", asked + 1))
                    .await
                    .ok()
            }
        );
        let asked = asked.map(|asked| asked.json()["params"]["notifications"]["taskIds"].clone());
        assert!(asked.as_ref().is_none_or(|tasks| tasks == &json!([])), "{asked:?}");
    }
}
