//! Tools that a legacy server shows in one session alone: called there, and nowhere else.
#![expect(clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use futures_util::future::join_all;
use gateway::settings::EraSettings;
use inside::{Inside, Plan};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use testkit::{Agent, Answer, Received, Upstream};

const TOOLS: &str = "notifications/tools/list_changed";
/// Each door, and what it puts before names.
const DOORS: [(&str, &str); 2] = [("/mcp/files", ""), ("/mcp", "files__")];

/// A tool that takes one argument.
fn tool(name: &str, argument: &str) -> Value {
    let schema = json!({"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]});
    json!({"name": name, "inputSchema": schema})
}

/// A server that numbers its sessions, and shows more in those that called `enable`: what that call said.
struct Dynamic {
    upstream: Upstream,
    /// What it shows in which session.
    shows: Arc<Mutex<HashMap<String, Vec<Value>>>>,
}

fn session(request: &Received) -> String {
    request.header("mcp-session-id").unwrap_or_default().to_owned()
}

impl Dynamic {
    async fn start() -> Self {
        let upstream = Upstream::start().await;
        let shows = Arc::<Mutex<HashMap<String, Vec<Value>>>>::default();
        let sessions = AtomicUsize::new(0);
        upstream.always("initialize", move |request| {
            let capabilities = json!({"tools": {"listChanged": true}});
            let server = json!({"name": "fake", "version": "1"});
            let result = json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": server});
            let session = sessions.fetch_add(1, Ordering::SeqCst).to_string();
            Answer::result(&request.id(), &result).header("mcp-session-id", &session)
        });
        let shown = Arc::clone(&shows);
        upstream.always("tools/list", move |request| {
            let mut tools = vec![json!({"name": "enable", "inputSchema": {"type": "object"}})];
            tools.extend(shown.lock().unwrap().get(&session(request)).cloned().unwrap_or_default());
            Answer::result(&request.id(), &json!({"tools": tools}))
        });
        let shown = Arc::clone(&shows);
        upstream.always("tools/call", move |request| {
            let asked = request.json();
            if asked.pointer("/params/name") == Some(&json!("enable")) {
                let more = asked.pointer("/params/arguments/more").and_then(Value::as_array).cloned();
                shown.lock().unwrap().insert(session(request), more.unwrap_or_default());
            }
            Answer::result(&request.id(), &json!({"content": []}))
        });
        Self { upstream, shows }
    }

    /// Has it show more in the session of this client.
    async fn enable(&self, agent: &Agent, before: &str, more: &[Value]) {
        let answer = agent.call(&format!("{before}enable"), json!({"more": more})).await;
        assert!(answer.get("result").is_some(), "{answer}");
    }

    /// How often it was asked for its tools in sessions that show more.
    fn lists(&self) -> usize {
        let shows = self.shows.lock().unwrap();
        self.upstream.seen("tools/list").iter().filter(|asked| shows.contains_key(&session(asked))).count()
    }

    /// How often a tool was called.
    fn calls(&self, name: &str) -> usize {
        let calls = self.upstream.seen("tools/call");
        calls.iter().filter(|call| call.json().pointer("/params/name") == Some(&json!(name))).count()
    }
}

async fn agent(inside: &Inside, is_legacy: bool, door: &str, token: &str) -> Agent {
    if is_legacy { inside.legacy(door, token).await } else { inside.modern(door, token) }
}

fn plan(upstream: &Upstream) -> Plan {
    Plan { era: EraSettings::Legacy, ..Plan::of(upstream) }
}

fn is_unknown(answer: &Value) -> bool {
    let message = answer.pointer("/error/message").and_then(Value::as_str).unwrap_or_default();
    answer.pointer("/error/code") == Some(&json!(-32602)) && message.starts_with("Unknown tool")
}

#[tokio::test]
async fn a_tool_that_one_session_shows_is_called_there_and_nowhere_else() {
    for (door, before) in DOORS {
        for is_legacy in [true, false] {
            let what = format!("{door} legacy: {is_legacy}");
            let server = Dynamic::start().await;
            let inside = Inside::start(plan(&server.upstream)).await;
            let alice = agent(&inside, is_legacy, door, &inside.alice).await;
            let create = format!("{before}create");
            server.enable(&alice, before, &[tool("create", "title")]).await;
            // Arguments are held against what that session shows, which is asked once for all who need it.
            let bad = || alice.call(&create, json!({"title": 1}));
            for answer in join_all([bad(), bad(), bad(), bad()]).await {
                assert_eq!(answer.pointer("/error/code"), Some(&json!(-32602)), "{what}: {answer}");
                assert!(answer.to_string().contains("/title"), "{what}: {answer}");
            }
            assert_eq!((server.lists(), server.calls("create")), (1, 0), "{what}");
            let good = alice.call(&create, json!({"title": "one"})).await;
            assert!(good.get("result").is_some(), "{what}: {good}");
            assert_eq!((server.lists(), server.calls("create")), (1, 1), "{what}");
            // It is nobody's who has another session, though the server would show it after a look.
            inside.clock.advance(Duration::from_secs(3));
            let bob = agent(&inside, is_legacy, door, &inside.bob).await;
            server.enable(&bob, before, &[]).await;
            let answer = bob.call(&create, json!({"title": "two"})).await;
            assert!(is_unknown(&answer), "{what}: {answer}");
            let other = agent(&inside, true, door, &inside.alice).await;
            server.enable(&other, before, &[]).await;
            let answer = other.call(&create, json!({"title": "three"})).await;
            assert!(is_unknown(&answer), "{what}: {answer}");
            assert_eq!(server.calls("create"), 1, "{what}");
            let known = inside.state.line().servers().next().unwrap().state.catalog.load_full().unwrap();
            assert!(known.tool("create").is_none(), "{what}");
            // And still alice's.
            let good = alice.call(&create, json!({"title": "four"})).await;
            assert!(good.get("result").is_some(), "{what}: {good}");
        }
    }
}

#[tokio::test]
async fn a_tool_of_one_session_follows_what_that_shows() {
    for (door, before) in DOORS {
        let server = Dynamic::start().await;
        let inside = Inside::start(plan(&server.upstream)).await;
        let alice = inside.legacy(door, &inside.alice).await;
        let create = format!("{before}create");
        server.enable(&alice, before, &[tool("create", "title")]).await;
        assert!(alice.call(&create, json!({"title": "one"})).await.get("result").is_some(), "{door}");
        // The server says that its tools changed: the next call has the session asked again.
        let (stream, feed) = Answer::events();
        server.upstream.next("GET", stream);
        let mut listener = alice.listen().await;
        server.enable(&alice, before, &[tool("create", "name")]).await;
        feed.message(&json!({"jsonrpc": "2.0", "method": TOOLS})).await;
        loop {
            let event = testkit::soon(listener.event()).await.unwrap();
            if event.data.contains(TOOLS) {
                break;
            }
        }
        let answer = alice.call(&create, json!({"title": "two"})).await;
        assert!(answer.to_string().contains("name"), "{door}: {answer}");
        assert!(alice.call(&create, json!({"name": "two"})).await.get("result").is_some(), "{door}");
        // Another toolset, of which the server says nothing: a name that is not known has it asked, every two seconds.
        server.enable(&alice, before, &[tool("create", "name"), tool("close", "number")]).await;
        let close = format!("{before}close");
        let lists = server.lists();
        for _ in 0..3 {
            assert!(is_unknown(&alice.call(&close, json!({"number": "1"})).await), "{door}");
        }
        assert_eq!(server.lists(), lists, "{door}");
        inside.clock.advance(Duration::from_secs(3));
        assert!(alice.call(&close, json!({"number": "1"})).await.get("result").is_some(), "{door}");
        assert_eq!(server.lists(), lists + 1, "{door}");
    }
}

#[tokio::test]
async fn a_tool_of_one_session_goes_with_that_session() {
    for is_legacy in [true, false] {
        let server = Dynamic::start().await;
        let inside = Inside::start(plan(&server.upstream)).await;
        let alice = agent(&inside, is_legacy, "/mcp", &inside.alice).await;
        server.enable(&alice, "files__", &[tool("create", "title")]).await;
        assert!(alice.call("files__create", json!({"title": "one"})).await.get("result").is_some());
        // The server forgets it, which the next call finds, and the one after that opens another.
        server.upstream.next("tools/call", Answer::status(http::StatusCode::NOT_FOUND));
        assert!(alice.call("files__create", json!({"title": "two"})).await.get("error").is_some());
        let answer = alice.call("files__create", json!({"title": "three"})).await;
        assert!(is_unknown(&answer), "legacy: {is_legacy} {answer}");
        server.enable(&alice, "files__", &[tool("create", "title")]).await;
        assert!(alice.call("files__create", json!({"title": "four"})).await.get("result").is_some());
    }
}

/// A process that shows one more tool once `enable` was called.
const ENABLES: &str = r#"
more=
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  case "$line" in
    *'"initialize"'*) echo '{"jsonrpc":"2.0","id":'$id',"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":true}},"serverInfo":{"name":"sh","version":"1"}}}';;
    *'"tools/list"'*) echo '{"jsonrpc":"2.0","id":'$id',"result":{"tools":[{"name":"enable","inputSchema":{"type":"object"}}'$more']}}';;
    *'"tools/call"'*'"enable"'*) more=',{"name":"create","inputSchema":{"type":"object"}}'; echo '{"jsonrpc":"2.0","id":'$id',"result":{"content":[]}}';;
    *'"tools/call"'*) echo '{"jsonrpc":"2.0","id":'$id',"result":{"content":[{"type":"text","text":"created"}]}}';;
    *'"id"'*) echo '{"jsonrpc":"2.0","id":'$id',"result":{}}';;
  esac
done
"#;

#[tokio::test]
async fn a_tool_that_one_process_shows_is_called_there_and_nowhere_else() {
    for (door, before) in DOORS {
        for is_legacy in [true, false] {
            let what = format!("{door} legacy: {is_legacy}");
            let upstream = Upstream::start().await;
            let command = ["/bin/sh", "-c", ENABLES].map(str::to_owned).to_vec();
            let inside = Inside::start(Plan { command: Some(command), ..plan(&upstream) }).await;
            let alice = agent(&inside, is_legacy, door, &inside.alice).await;
            let bob = agent(&inside, is_legacy, door, &inside.bob).await;
            let (enable, create) = (format!("{before}enable"), format!("{before}create"));
            assert!(alice.call(&enable, json!({})).await.get("result").is_some(), "{what}");
            let answer = alice.call(&create, json!({})).await;
            assert!(answer.to_string().contains("created"), "{what}: {answer}");
            let answer = bob.call(&create, json!({})).await;
            assert!(is_unknown(&answer), "{what}: {answer}");
            inside.clock.advance(Duration::from_secs(3));
            assert!(bob.call(&enable, json!({})).await.get("result").is_some(), "{what}");
            assert!(bob.call(&create, json!({})).await.to_string().contains("created"), "{what}");
        }
    }
}

#[tokio::test]
async fn a_tool_that_is_listed_in_the_legacy_era_alone_is_called_in_it() {
    for (door, before) in DOORS {
        let server = Dynamic::start().await;
        server.upstream.always("tools/list", |request| {
            let is_modern = request.json().pointer("/params/_meta").is_some();
            let tool = tool(if is_modern { "modern" } else { "legacy" }, "a");
            let mut result = json!({"tools": [tool]});
            if is_modern {
                result = json!({"tools": [tool], "ttlMs": 0, "cacheScope": "private", "resultType": "complete"});
            }
            Answer::result(&request.id(), &result)
        });
        let inside = Inside::start(Plan::of(&server.upstream)).await;
        let alice = inside.legacy(door, &inside.alice).await;
        let name = format!("{before}legacy");
        assert_eq!(alice.tools().await, std::slice::from_ref(&name));
        let answer = alice.call(&name, json!({"a": "one"})).await;
        assert!(answer.get("result").is_some(), "{door}: {answer}");
        // Who speaks the other era is not shown it, and has no session to be asked in.
        let answer = inside.modern(door, &inside.alice).call(&name, json!({"a": "one"})).await;
        assert!(is_unknown(&answer), "{door}: {answer}");
        assert_eq!(server.calls("legacy"), 1, "{door}");
    }
}

#[tokio::test]
async fn asking_for_what_is_hidden_in_a_session_costs_what_asking_for_nothing_costs() {
    let policy = json!({"policy": "test", "rules": [
        {"id": "all", "action": "*", "target": "*/*", "effect": "allow"},
        {"id": "no", "action": "*", "target": "files/hidden*", "effect": "deny"},
    ]});
    for is_legacy in [true, false] {
        let server = Dynamic::start().await;
        let inside = Inside::start(Plan { policy: policy.clone(), ..plan(&server.upstream) }).await;
        let alice = agent(&inside, is_legacy, "/mcp/files", &inside.alice).await;
        server.enable(&alice, "", &[tool("hidden", "a"), tool("shown", "a")]).await;
        let names = ["hidden", "hidden_and_missing", "missing"];
        for (round, name) in names.into_iter().enumerate() {
            inside.clock.advance(Duration::from_secs(3));
            for _ in 0..2 {
                let answer = alice.call(name, json!({"a": "one"})).await;
                assert!(is_unknown(&answer), "{name}: {answer}");
                assert_eq!(server.lists(), 1 + round, "{name}: the session is asked once in two seconds");
            }
        }
        // Nor does it show where the session gives no answer.
        server.upstream.always("tools/list", |_| Answer::status(http::StatusCode::INTERNAL_SERVER_ERROR));
        let mut answers = Vec::new();
        for name in names {
            inside.clock.advance(Duration::from_secs(3));
            let answer = alice.call(name, json!({"a": "one"})).await;
            let call = answer.pointer("/error/data/call").and_then(Value::as_str).unwrap().to_owned();
            let id = format!("\"id\":{}", answer.get("id").unwrap());
            answers.push(answer.to_string().replace(&call, "CALL").replace(name, "NAME").replace(&id, "ID"));
        }
        assert!(answers.iter().all(|answer| Some(answer) == answers.first()), "{answers:#?}");
        assert_eq!(server.calls("hidden"), 0);
    }
}

#[tokio::test]
async fn a_session_is_not_asked_for_tools_where_its_caller_may_not_list_them() {
    let policy = json!({"policy": "test", "rules": [
        {"id": "all", "action": "*", "target": "*/*", "effect": "allow"},
        {"id": "no-lists", "action": "method.call", "target": "files/tools/list", "agents": ["alice"], "effect": "deny"},
    ]});
    for (door, before) in DOORS {
        for is_legacy in [true, false] {
            let what = format!("{door} legacy: {is_legacy}");
            let server = Dynamic::start().await;
            let inside = Inside::start(Plan { policy: policy.clone(), ..plan(&server.upstream) }).await;
            let create = format!("{before}create");
            for (token, lists) in [(&inside.alice, 0), (&inside.bob, 1)] {
                let agent = agent(&inside, is_legacy, door, token).await;
                server.enable(&agent, before, &[tool("create", "title")]).await;
                let answer = agent.call(&create, json!({"title": "one"})).await;
                assert_eq!(is_unknown(&answer), lists == 0, "{what}: {answer}");
                assert_eq!(server.lists(), lists, "{what}");
            }
        }
    }
}
