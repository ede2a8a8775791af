//! Tasks belong to whoever began them; to everybody else there are none.
#![expect(clippy::indexing_slicing, reason = "what a test expects and does not find fails it")]

mod inside;

use inside::{Inside, Plan};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::{Agent, Answer, Ask, Upstream, meta, soon};

const SECRET: &str = "ghp_A7dK2mQ9xR4tV8wZ1cF6hJ3nP5sY0u2Kq9Lb";

/// A server that makes a task of every call, and gives whoever asks whatever is asked for.
async fn trusting() -> Upstream {
    let upstream = Upstream::start().await;
    upstream.always("tools/call", |request| {
        let params = &request.json()["params"];
        let task = json!({"taskId": params["arguments"]["id"], "status": "working"});
        let modern = params["_meta"]["io.modelcontextprotocol/clientCapabilities"]["extensions"].as_object();
        let result = match (params["task"].is_object(), modern) {
            (true, _) => json!({"task": task}),
            (false, Some(extensions)) if extensions.contains_key("io.modelcontextprotocol/tasks") => {
                json!({"resultType": "task", "taskId": task["taskId"], "status": "working"})
            }
            (false, _) => json!({"content": [], "resultType": "complete"}),
        };
        Answer::result(&request.id(), &result)
    });
    for method in ["tasks/get", "tasks/cancel", "tasks/update"] {
        upstream.always(method, |request| Answer::result(&request.id(), &json!({"status": "working"})));
    }
    upstream.always("tasks/result", |request| {
        let text = json!([{"type": "text", "text": format!("the key is {SECRET}")}]);
        Answer::result(&request.id(), &json!({"content": text}))
    });
    upstream.always("tasks/list", |request| {
        let id = request.id();
        let tasks = r#"{"taskId":"a","ttl":1.0},{"taskId":"b"},{"taskId":"nobody's"},{"ttl":1}"#;
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
    assert!(listed.contains(r#""tasks":[{"taskId":"a","ttl":1.0}],"nextCursor":"c""#), "{listed}");
    let listed = bob.request("tasks/list", json!({})).await.json().await;
    assert_eq!(listed["result"]["tasks"], json!([{"taskId": "b"}]));
    let result = manage(&alice, "tasks/result", "a").await.to_string();
    assert!(result.contains("[redacted:") && !result.contains(SECRET), "{result}");
    // The server tells everybody of every task.
    let (stream, feed) = Answer::events();
    upstream.next("GET", stream);
    let mut listener = alice.listen().await;
    let news = |task: &str| {
        let params = json!({"taskId": task, "status": "failed", "statusMessage": format!("with {SECRET}")});
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
    // A modern server decides for itself: what cannot be remembered is withheld.
    let withheld = begin(&inside.modern("/mcp/files", &inside.alice), "more").await;
    assert_eq!(withheld["error"]["code"], -31004, "{withheld}");
    // Others have their own, but not the same.
    let bob = inside.legacy("/mcp/files", &inside.bob).await;
    assert!(begin(&bob, "mine").await.get("result").is_some());
    let twice = begin(&bob, "t0").await;
    assert_eq!(twice["error"]["code"], -31004, "{twice}");
    assert_eq!(manage(&bob, "tasks/get", "t0").await["error"]["code"], -32602);
    assert!(manage(&alice, "tasks/get", "t0").await.get("result").is_some());
    // What nobody used for a day is anybody's, and counts for nobody once it is swept.
    inside.clock.advance(Duration::from_hours(25));
    assert!(begin(&bob, "t1").await.get("result").is_some());
    assert!(begin(&alice, "one more").await.get("result").is_some());
    assert_eq!(begin(&alice, "two more").await["error"]["code"], -31002);
    inside.state.sweep();
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    assert!(begin(&alice, "two more").await.get("result").is_some());
    assert!(manage(&alice, "tasks/get", "one more").await.get("result").is_some());
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
        let result = json!({"task": {"taskId": task, "status": "working"}});
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

#[tokio::test]
async fn the_aggregate_carries_no_tasks_and_says_so() {
    let upstream = trusting().await;
    let inside = screened(&upstream).await;
    let legacy = inside.legacy("/mcp", &inside.alice).await;
    let modern = inside.modern("/mcp", &inside.alice);
    let discovered = modern.request("server/discover", json!({})).await.json().await;
    assert!(!discovered.to_string().contains("tasks"), "{discovered}");
    for agent in [&legacy, &modern] {
        for method in ["tasks/get", "tasks/list"] {
            assert_eq!(manage(agent, method, "a").await["error"]["code"], -32601);
        }
    }
    let call = json!({"name": "files__echo", "arguments": {"id": "a"}, "task": {}});
    let refused = legacy.request("tools/call", call).await.json().await;
    assert!(refused["error"]["message"].as_str().unwrap().contains("/mcp/SERVER"), "{refused}");
    assert!(upstream.seen("tools/call").is_empty());
    // A server that does not hear of tasks begins none; everything else it hears.
    let mut meta = meta();
    meta["io.modelcontextprotocol/clientCapabilities"]["extensions"] =
        json!({"io.modelcontextprotocol/tasks": {}, "vendor/x": {"n": 1}});
    let call = json!({"name": "files__echo", "arguments": {"id": "a"}, "_meta": meta.clone()});
    let answer = modern.request("tools/call", call).await.json().await;
    assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
    let heard = upstream.arrived("tools/call", 1).await.json();
    let capabilities = &heard["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"];
    assert_eq!(capabilities["extensions"], json!({"vendor/x": {"n": 1}}));
    assert!(capabilities["elicitation"].is_object());
    // Nor in lists and in what is listened to.
    modern.request("tools/list", json!({"_meta": meta.clone()})).await.json().await;
    let (stream, _feed) = Answer::events();
    upstream.next("subscriptions/listen", stream);
    let filter = json!({"taskIds": ["a"], "toolsListChanged": true});
    let _listener = modern.request("subscriptions/listen", json!({"notifications": filter, "_meta": meta})).await;
    let asked = upstream.arrived("subscriptions/listen", 1).await.json();
    assert_eq!(asked["params"]["notifications"], json!({"toolsListChanged": true}));
    let extensions =
        |heard: &Value| heard["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"]["extensions"].clone();
    let listed = upstream.seen("tools/list").last().unwrap().json();
    for heard in [listed, asked] {
        assert_eq!(extensions(&heard), json!({"vendor/x": {"n": 1}}), "{heard}");
    }
}
