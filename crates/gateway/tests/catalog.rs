//! What the gateway knows of a server, how old that may be, and what it costs the server.

mod inside;

use gateway::settings::{CredentialSettings, EraSettings, Place};
use inside::{Inside, Plan};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::{Answer, Received, Upstream, meta, soon};
use vocab::{Secret, SecretName};

/// A server that is looked at in one era: each list is asked for once.
fn modern(upstream: &Upstream) -> Plan {
    Plan { era: EraSettings::Modern, ..Plan::of(upstream) }
}

const LISTS: [&str; 4] = ["tools/list", "prompts/list", "resources/list", "resources/templates/list"];

fn names(upstream: &Upstream) -> Vec<String> {
    upstream.requests().iter().map(Received::name).collect()
}

async fn call(inside: &Inside, tool: &str) -> Value {
    inside.call(&inside.alice, tool, &json!({})).send().await.json().await
}

fn tools(names: &[&str]) -> Value {
    let tools: Vec<Value> = names.iter().map(|name| json!({"name": name, "inputSchema": {"type": "object"}})).collect();
    json!({"tools": tools, "ttlMs": 0, "cacheScope": "private", "resultType": "complete"})
}

#[tokio::test]
async fn one_call_is_one_request_and_the_first_ones_share_a_look() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(modern(&upstream)).await;
    // Nobody has looked yet: eight at once cause one look, of an introduction and the lists that the server says it has.
    let first: Vec<_> = (0..8).map(|_| inside.call(&inside.alice, "echo", &json!({})).send()).collect();
    for answer in futures_util::future::join_all(first).await {
        assert!(answer.json().await.get("result").is_some());
    }
    let seen = names(&upstream);
    let look: Vec<&String> = seen.iter().filter(|name| *name != "tools/call").collect();
    assert_eq!(look, ["server/discover", LISTS[0], LISTS[1], LISTS[2], LISTS[3]]);
    assert_eq!(seen.len(), 5 + 8);
    // And every later call is one request, in either era.
    assert!(call(&inside, "echo").await.get("result").is_some());
    assert_eq!(names(&upstream).len(), 5 + 9);
    let legacy = inside.legacy("/mcp/files", &inside.alice).await;
    let before = names(&upstream).len();
    assert!(legacy.call("echo", json!({})).await.get("result").is_some());
    assert_eq!(names(&upstream).len(), before + 1);
}

#[tokio::test]
async fn what_is_stale_serves_while_it_is_looked_at_again_but_not_for_ever() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(modern(&upstream)).await;
    assert!(call(&inside, "echo").await.get("result").is_some());
    assert_eq!(upstream.seen("tools/list").len(), 1);
    inside.clock.advance(Duration::from_mins(6));
    // The list is stale, and the server is slow to give it again: calls go on, and ask for it once.
    let (slow, feed) = Answer::events();
    upstream.next("tools/list", slow);
    for _ in 0..4 {
        assert!(soon(call(&inside, "echo")).await.get("result").is_some());
    }
    let asked = upstream.arrived("tools/list", 2).await;
    assert!(soon(call(&inside, "echo")).await.get("result").is_some());
    assert_eq!(upstream.seen("tools/list").len(), 2);
    feed.message(&json!({"jsonrpc": "2.0", "id": asked.id(), "result": tools(&["new"])})).await;
    drop(feed);
    upstream.arrived("resources/templates/list", 2).await;
    upstream.set_tools(tools(&["new"])["tools"].as_array().unwrap().clone());
    // In the end the new list counts.
    let mut turns = tokio::time::interval(Duration::from_millis(5));
    soon(async {
        while call(&inside, "echo").await.get("error").is_none() {
            turns.tick().await;
        }
    })
    .await;
    // What is older than an hour serves no more: the call waits for what is so now.
    inside.clock.advance(Duration::from_mins(61));
    upstream.set_tools(tools(&["newer"])["tools"].as_array().unwrap().clone());
    let answer = call(&inside, "new").await;
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
    // And it is refused where nobody can tell.
    inside.clock.advance(Duration::from_mins(61));
    for name in ["server/discover", "initialize"] {
        upstream.always(name, |_| Answer::status(http::StatusCode::INTERNAL_SERVER_ERROR));
    }
    let before = upstream.seen("tools/call").len();
    let answer = call(&inside, "newer").await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("files"), "{answer}");
    assert_eq!(upstream.seen("tools/call").len(), before);
}

#[tokio::test]
async fn a_list_that_passes_makes_a_new_tool_known_before_it_is_called() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    assert!(call(&inside, "echo").await.get("result").is_some());
    upstream.set_tools(tools(&["echo", "new"])["tools"].as_array().unwrap().clone());
    let agent = inside.modern("/mcp/files", &inside.alice);
    assert_eq!(agent.tools().await, ["echo", "new"]);
    // Behind the client's list the gateway looks for itself, all of it.
    upstream.arrived(LISTS[3], 2).await;
    let server = inside.state.line().servers().next().cloned().unwrap();
    let mut turns = tokio::time::interval(Duration::from_millis(5));
    soon(async {
        while server.state.catalog.load().as_ref().is_none_or(|catalog| catalog.tool("new").is_none()) {
            turns.tick().await;
        }
    })
    .await;
    let before = upstream.received();
    assert!(call(&inside, "new").await.get("result").is_some());
    assert_eq!(upstream.received(), before + 1);
    // Lists that hold nothing new cause nothing.
    inside.clock.advance(Duration::from_secs(6));
    assert_eq!(agent.tools().await, ["echo", "new"]);
    assert!(call(&inside, "new").await.get("result").is_some());
    assert_eq!(upstream.received(), before + 3);
}

#[tokio::test]
async fn news_of_a_server_are_not_lost_in_a_look_that_is_under_way() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let agent = inside.legacy("/mcp/files", &inside.alice).await;
    let (stream, news) = Answer::events();
    upstream.next("GET", stream);
    let mut listener = agent.listen().await;
    assert!(agent.call("echo", json!({})).await.get("result").is_some());
    inside.clock.advance(Duration::from_mins(6));
    let (slow, feed) = Answer::events();
    upstream.next("tools/list", slow);
    assert!(agent.call("echo", json!({})).await.get("result").is_some());
    // A look is reading the old list. The server changes it now, and says so.
    let asked = upstream.arrived("tools/list", 2).await;
    upstream.set_tools(tools(&["changed"])["tools"].as_array().unwrap().clone());
    news.message(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})).await;
    assert!(soon(listener.event()).await.is_some());
    feed.message(&json!({"jsonrpc": "2.0", "id": asked.id(), "result": tools(&["echo"])})).await;
    drop(feed);
    upstream.arrived("tools/list", 3).await;
}

#[tokio::test]
async fn a_server_that_is_given_another_credential_is_looked_at_again() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(modern(&upstream)).await;
    assert!(call(&inside, "echo").await.get("result").is_some());
    assert_eq!(upstream.seen("tools/list").len(), 1);
    // A reload that changes nothing of it causes nothing.
    inside.swap(modern(&upstream));
    let secret = SecretName::new("token").unwrap();
    inside.state.vault.set(&secret, &Secret::new("value".to_owned()), inside.now()).unwrap();
    let credentials = vec![CredentialSettings { secret, place: Place::Bearer }];
    inside.swap(Plan { credentials, ..modern(&upstream) });
    let asked = upstream.arrived("tools/list", 2).await;
    assert_eq!(asked.header("authorization"), Some("Bearer value"));
}

#[tokio::test]
async fn asking_for_what_is_hidden_costs_what_asking_for_nothing_costs() {
    let upstream = Upstream::start().await;
    upstream.set_tools(tools(&["echo", "hidden"])["tools"].as_array().unwrap().clone());
    let policy = json!({"policy": "test", "rules": [
        {"id": "all", "action": "*", "target": "*/*", "effect": "allow"},
        {"id": "no", "action": "*", "target": "files/hidden*", "effect": "deny"},
    ]});
    let inside = Inside::start(Plan { policy, ..modern(&upstream) }).await;
    assert!(call(&inside, "echo").await.get("result").is_some());
    let named = |answer: Value, name: &str| {
        let call = answer["error"]["data"]["call"].as_str().unwrap().to_owned();
        answer.to_string().replace(&call, "CALL").replace(name, "NAME")
    };
    let names = ["hidden", "hidden_and_missing", "missing"];
    for (round, name) in names.into_iter().enumerate() {
        inside.clock.advance(Duration::from_secs(3));
        for _ in 0..2 {
            let answer = call(&inside, name).await;
            assert_eq!(answer["error"]["code"], -32602, "{answer}");
            assert_eq!(upstream.seen("tools/list").len(), 2 + round, "{name}: one look in two seconds");
        }
    }
    // Nor does it show where nobody can tell what there is.
    upstream.always("tools/list", |_| Answer::status(http::StatusCode::INTERNAL_SERVER_ERROR));
    let mut answers = Vec::new();
    for name in names {
        inside.clock.advance(Duration::from_mins(61));
        answers.push(named(call(&inside, name).await, name));
    }
    assert!(answers[0].contains("-31006"), "{answers:#?}");
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
}

#[tokio::test]
async fn a_process_that_is_down_is_said_to_be_to_whoever_names_something_of_it() {
    let upstream = Upstream::start().await;
    let policy = json!({"policy": "test", "rules": [
        {"id": "all", "action": "*", "target": "*/*", "effect": "allow", "agents": ["alice"]},
        {"id": "no", "action": "*", "target": "files/hidden", "effect": "deny"},
    ]});
    let command = Some(vec!["/no/such/program".to_owned()]);
    let inside = Inside::start(Plan { probed: true, command, policy, ..Plan::of(&upstream) }).await;
    let told = |answer: Value, name: &str| {
        let call = answer["error"]["data"]["call"].as_str().unwrap().to_owned();
        let id = format!(r#""id":{}"#, answer["id"]);
        answer.to_string().replace(&call, "CALL").replace(name, "NAME").replace(&id, r#""id":"ID""#)
    };
    for (all, one) in [
        (inside.modern("/mcp", &inside.alice), inside.modern("/mcp/files", &inside.alice)),
        (inside.legacy("/mcp", &inside.alice).await, inside.modern("/mcp/files", &inside.alice)),
    ] {
        for (method, member, name, own) in [
            ("tools/call", "name", "files__echo", "echo"),
            ("prompts/get", "name", "files__first", "first"),
            ("resources/read", "uri", "durward://files/a://b", "a://b"),
        ] {
            let answer = all.request(method, json!({member: name})).await.json().await;
            assert_eq!(answer["error"]["code"], -31006, "{method}: {answer}");
            let there = one.request(method, json!({member: own})).await.json().await;
            assert_eq!(told(answer, name), told(there, own), "{method}: as at its own door");
        }
        // Lists say so, too.
        let list = all.request("tools/list", json!({})).await.json().await;
        assert_eq!(list["result"]["tools"], json!([]), "{list}");
        assert_eq!(list["result"]["_meta"]["durward/unavailable"][0]["server"], "files", "{list}");
        // What is hidden answers like what may be there.
        let [hidden, missing] = ["files__hidden", "files__missing"].map(|name| all.call(name, json!({})));
        assert_eq!(told(hidden.await, "files__hidden"), told(missing.await, "files__missing"));
    }
    // Who may see nothing of it is told as if there were none.
    let bob = inside.modern("/mcp", &inside.bob);
    let [there, nowhere] = ["files__echo", "nosuch__echo"].map(|name| bob.call(name, json!({})));
    let (there, nowhere) = (there.await, nowhere.await);
    assert_eq!(there["error"]["code"], -32602, "{there}");
    assert_eq!(told(there, "files__echo"), told(nowhere, "nosuch__echo"));
}

/// A tool with one argument, `a`.
fn taking(name: &str, dialect: Value, argument: &Value) -> Value {
    let mut schema = json!({"type": "object", "properties": {"a": argument}, "required": ["a"]});
    if let Some(members) = schema.as_object_mut().filter(|_| !dialect.is_null()) {
        members.insert("$schema".to_owned(), dialect);
    }
    json!({"name": name, "inputSchema": schema})
}

#[tokio::test]
async fn a_schema_is_of_the_dialect_that_it_names() {
    let old = json!({"type": "array", "items": [{"type": "number"}, {"type": "string"}], "additionalItems": false});
    let new = json!({"type": "array", "prefixItems": [{"type": "number"}, {"type": "string"}], "items": false});
    let above = json!({"type": "number", "minimum": 0, "exclusiveMinimum": true});
    let (fourth, seventh) =
        (json!("http://json-schema.org/draft-04/schema#"), "http://json-schema.org/draft-07/schema#");
    let annotated = json!({"type": "string", "format": "email", "contentEncoding": "base64", "contentMediaType": "application/json"});
    let remote = json!({"$ref": "https://schemas.example/a.json"});
    let upstream = Upstream::start().await;
    upstream.set_tools(vec![
        taking("seventh", json!(seventh), &old),
        taking("sixth", json!("https://json-schema.org/draft-06/schema"), &old),
        taking("ninth", json!("https://json-schema.org/draft/2019-09/schema"), &old),
        taking("twentieth", json!("https://json-schema.org/draft/2020-12/schema"), &new),
        taking("absent", Value::Null, &new),
        taking("fourth", fourth, &above),
        taking("annotated", json!(seventh), &annotated),
        taking("misplaced", Value::Null, &old),
        taking("remote", json!(seventh), &remote),
        taking("vendor", json!("https://dialects.example/own"), &json!({})),
        taking("relative", json!("json-schema.org/draft-07/schema"), &json!({})),
        taking("odd", json!(7), &json!({})),
    ]);
    let inside = Inside::start(Plan::of(&upstream)).await;
    let told = |tool: &'static str, a: Value| {
        let sent = inside.call(&inside.alice, tool, &json!({"a": a})).send();
        async move { sent.await.json().await }
    };
    for tool in ["seventh", "sixth", "ninth", "twentieth", "absent"] {
        for good in [json!([1, "one"]), json!([])] {
            let answer = told(tool, good).await;
            assert!(answer.get("result").is_some(), "{tool} {answer}");
        }
        for (bad, place) in [(json!(["one", "one"]), "/a/0"), (json!([1, 2]), "/a/1"), (json!([1, "one", 2]), "/a")] {
            let answer = told(tool, bad).await;
            assert_eq!(answer["error"]["code"], -32602, "{tool} {answer}");
            let pointer = answer["error"]["data"]["faults"][0]["pointer"].as_str().unwrap();
            assert!(pointer.starts_with(place), "{tool} {answer}");
        }
    }
    assert!(told("fourth", json!(0.5)).await.get("result").is_some());
    let answer = told("fourth", json!(0)).await;
    assert_eq!(answer["error"]["data"]["faults"][0]["pointer"], "/a", "{answer}");
    assert!(told("annotated", json!("neither: [")).await.get("result").is_some());
    for (tool, why) in [
        ("misplaced", "schema"),
        ("remote", "schemas.example"),
        ("vendor", "\"https://dialects.example/own\"; known are 2020-12, 2019-09, draft-07, draft-06 and draft-04"),
        ("relative", "\"json-schema.org/draft-07/schema\"; known are"),
        ("odd", "7; known are"),
    ] {
        let answer = told(tool, json!([1, "one"])).await;
        assert_eq!(answer["error"]["code"], -31009, "{tool} {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(why), "{tool} {answer}");
    }
}

/// What a server writes must not hold the worker that all others share, nor end it.
#[tokio::test]
async fn a_schema_that_would_hold_a_worker_is_refused_and_its_neighbours_are_served() {
    let mut definitions = serde_json::Map::from_iter([("a0".to_owned(), json!({"type": "string"}))]);
    for level in 1..=40 {
        let before = json!({"$ref": format!("#/$defs/a{}", level - 1)});
        definitions.insert(format!("a{level}"), json!({"anyOf": [before, before]}));
    }
    let doubled = json!({"type": "object", "$defs": definitions, "properties": {"a": {"$ref": "#/$defs/a40"}}});
    let mut chain = serde_json::Map::from_iter([("a0".to_owned(), json!({"properties": {"a": {"$ref": "#"}}}))]);
    for level in 1..=2_000 {
        chain.insert(format!("a{level}"), json!({"$ref": format!("#/$defs/a{}", level - 1)}));
    }
    let chain = json!({"type": "object", "$defs": chain, "$ref": "#/$defs/a2000"});
    let tree = json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "additionalProperties": false});
    let upstream = Upstream::start().await;
    upstream.set_tools(vec![
        json!({"name": "doubled", "inputSchema": doubled}),
        json!({"name": "chain", "inputSchema": chain}),
        json!({"name": "tree", "inputSchema": tree}),
    ]);
    let inside = Inside::start(Plan::of(&upstream)).await;
    let deep = (0..50).fold(json!({}), |within, _| json!({"a": within}));
    for (tool, why) in [("doubled", "more than 20000 steps"), ("chain", "more than 128 schemas high")] {
        let answer = inside.call(&inside.alice, tool, &deep).send().await.json().await;
        assert_eq!(answer["error"]["code"], -31009, "{tool} {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(why), "{tool} {answer}");
    }
    let answer = inside.call(&inside.alice, "tree", &deep).send().await.json().await;
    assert!(answer.get("result").is_some(), "{answer}");
    let answer = inside.call(&inside.alice, "tree", &json!({"a": {"b": 1}})).send().await.json().await;
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
}

#[tokio::test]
async fn a_number_that_nothing_can_compare_is_pointed_at() {
    let upstream = Upstream::start().await;
    upstream.set_tools(vec![taking("numbers", Value::Null, &json!({}))]);
    let inside = Inside::start(Plan::of(&upstream)).await;
    let arguments = json!({"a": {"b/c": [1, "LARGE"]}});
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "numbers", "arguments": arguments, "_meta": meta()}});
    let text = call.to_string().replace("\"LARGE\"", "1e400");
    let answer =
        inside.modern("/mcp/files", &inside.alice).ask("tools/call", &call).body(text).send().await.json().await;
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
    assert_eq!(answer["error"]["data"]["faults"][0]["pointer"], "/a/b~1c/1", "{answer}");
}

#[tokio::test]
async fn a_reload_that_leaves_a_server_as_it_is_keeps_its_connections() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    assert!(call(&inside, "echo").await.get("result").is_some());
    // The look that it caused has all that it asks for.
    upstream.arrived(LISTS[3], 1).await;
    for _ in 0..3 {
        assert!(call(&inside, "echo").await.get("result").is_some());
    }
    let before = upstream.connections();
    inside.swap(Plan { calls_in_flight: 7, ..Plan::of(&upstream) });
    assert!(call(&inside, "echo").await.get("result").is_some());
    assert_eq!(upstream.connections(), before);
    // One that is reached in another way is dialled anew.
    inside.swap(Plan { servers: vec![("files", format!("{}?other", upstream.url()))], ..Plan::of(&upstream) });
    assert!(call(&inside, "echo").await.get("result").is_some());
    assert!(upstream.connections() > before);
}

#[tokio::test]
async fn a_tool_that_is_defined_in_two_ways_is_not_called() {
    let strict = json!({"type": "object", "properties": {"path": {"type": "string", "pattern": "^/safe/"}}});
    let tool = |schema: &Value| json!({"name": "echo", "inputSchema": schema});
    let open = json!({"type": "object"});
    for (first, second, is_called) in [(&strict, &open, false), (&open, &strict, false), (&strict, &strict, true)] {
        let upstream = Upstream::start().await;
        upstream.set_tools(vec![tool(first), tool(second)]);
        let inside = Inside::start(Plan::of(&upstream)).await;
        for door in ["/mcp", "/mcp/files"] {
            let agent = inside.modern(door, &inside.alice);
            let name = if door == "/mcp" { "files__echo" } else { "echo" };
            let answer = agent.call(name, json!({"path": "/safe/a"})).await;
            assert_eq!(answer["result"].is_object(), is_called, "{answer}");
            assert_eq!(answer["error"]["code"] == -31009, !is_called, "{answer}");
        }
        assert_eq!(upstream.seen("tools/call").is_empty(), !is_called);
    }
}

#[tokio::test]
async fn a_list_that_begins_again_is_read_no_further() {
    let upstream = Upstream::start().await;
    upstream.always(LISTS[0], |request| {
        let asked = request.json()["params"]["cursor"].as_str().map(str::to_owned);
        let next = if asked.as_deref() == Some("a") { "b" } else { "a" };
        let result = json!({"tools": [], "nextCursor": next, "ttlMs": 0, "cacheScope": "private"});
        Answer::result(&request.id(), &result)
    });
    let inside = Inside::start(modern(&upstream)).await;
    let answer = call(&inside, "echo").await;
    assert_eq!(answer["error"]["code"], -31006, "{answer}");
    assert_eq!(upstream.seen(LISTS[0]).len(), 3, "the first page, and one by each cursor");
}
