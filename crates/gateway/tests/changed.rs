//! Lists that become others while somebody listens: told once, and only to whom they are others.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what a test expects and does not find fails it")]

mod inside;

use audit::Tree;
use gateway::settings::EraSettings;
use http::StatusCode;
use identity::AgentSetting;
use inside::{Inside, Plan};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use testkit::{Agent, Answer, Feed, Reply, Upstream, soon};

const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
const TOOLS: &str = "notifications/tools/list_changed";
const PROMPTS: &str = "notifications/prompts/list_changed";

fn tools(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"name": name, "inputSchema": {"type": "object"}})).collect()
}

/// A server whose prompts are there once the switch is on.
async fn prompting() -> (Upstream, Arc<AtomicBool>) {
    let upstream = Upstream::start().await;
    upstream.set_tools(tools(&["echo", "hidden"]));
    let switch = Arc::new(AtomicBool::new(false));
    let is_on = Arc::clone(&switch);
    upstream.always("prompts/list", move |request| {
        let prompts = if is_on.load(Ordering::SeqCst) { json!([{"name": "p"}]) } else { json!([]) };
        let result = json!({"prompts": prompts, "resultType": "complete", "ttlMs": 0, "cacheScope": "private"});
        Answer::result(&request.id(), &result)
    });
    (upstream, switch)
}

/// Listens, with the server's own stream to it. The stream of a modern client has begun.
async fn listen(upstream: &Upstream, agent: &Agent) -> (Reply, Feed) {
    listen_for(upstream, agent, &json!({"toolsListChanged": true, "promptsListChanged": true})).await
}

/// The same, of a modern client that wants to hear of these.
async fn listen_for(upstream: &Upstream, agent: &Agent, filter: &Value) -> (Reply, Feed) {
    let (stream, feed) = Answer::events();
    if agent.session().is_some() {
        let before = upstream.seen("GET").len();
        upstream.next("GET", stream);
        let listener = agent.listen().await;
        upstream.arrived("GET", before + 1).await;
        return (listener, feed);
    }
    let before = upstream.seen("subscriptions/listen").len();
    upstream.next("subscriptions/listen", stream);
    let wanted = json!({"notifications": filter});
    let (mut listener, ()) = tokio::join!(agent.request("subscriptions/listen", wanted.clone()), async {
        let asked = upstream.arrived("subscriptions/listen", before + 1).await;
        let mut params = wanted.clone();
        params["_meta"] = json!({SUBSCRIPTION: asked.id()});
        let begun = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params});
        feed.message(&begun).await;
    });
    let begun = soon(listener.event()).await.unwrap().json();
    assert_eq!(begun["method"], "notifications/subscriptions/acknowledged");
    (listener, feed)
}

async fn say(feed: &Feed, agent: &Agent, method: &str) {
    let mut note = json!({"jsonrpc": "2.0", "method": method});
    if agent.session().is_none() {
        note["params"] = json!({"_meta": {SUBSCRIPTION: 1}});
    }
    feed.message(&note).await;
}

async fn heard(listener: &mut Reply) -> String {
    let event = soon(listener.event()).await.unwrap().json();
    event["method"].as_str().unwrap_or_default().to_owned()
}

/// Waits until the gateway has seen this tool.
async fn known(inside: &Inside, tool: &str) {
    let mut turns = tokio::time::interval(Duration::from_millis(5));
    soon(async {
        loop {
            turns.tick().await;
            let line = inside.state.line();
            let catalog = line.servers().next().and_then(|server| server.state.catalog.load_full());
            if catalog.is_some_and(|catalog| catalog.tool(tool).is_some()) {
                return;
            }
        }
    })
    .await;
}

async fn looked(inside: &Inside) {
    let server = inside.state.line().servers().next().cloned().unwrap();
    inside.state.line().look(&server).await;
}

fn narrow() -> Value {
    json!({"policy": "test", "rules": [
        {"id": "some", "action": "*", "target": ["files/echo", "files/p"], "effect": "allow", "agents": ["alice"]},
        {"id": "all", "action": "*", "target": "*/*", "effect": "allow", "agents": ["bob"]},
    ]})
}

#[tokio::test]
async fn a_listener_is_told_once_and_only_of_its_own_view() {
    for (door, is_legacy) in [("/mcp", true), ("/mcp", false), ("/mcp/files", true), ("/mcp/files", false)] {
        for sees_all in [false, true] {
            if sees_all && door != "/mcp" {
                continue;
            }
            let (upstream, switch) = prompting().await;
            let inside = Inside::start(Plan { policy: narrow(), ..Plan::of(&upstream) }).await;
            looked(&inside).await;
            let token = if sees_all { &inside.bob } else { &inside.alice };
            let agent = if is_legacy { inside.legacy(door, token).await } else { inside.modern(door, token) };
            let (mut listener, feed) = listen(&upstream, &agent).await;
            // What the caller may not see becomes another, and the server says so again and again.
            upstream.set_tools(tools(&["echo", "hidden", "more"]));
            for _ in 0..3 {
                say(&feed, &agent, TOOLS).await;
            }
            known(&inside, "more").await;
            if sees_all {
                assert_eq!(heard(&mut listener).await, TOOLS);
            }
            // And then what it may see.
            switch.store(true, Ordering::SeqCst);
            say(&feed, &agent, PROMPTS).await;
            assert_eq!(heard(&mut listener).await, PROMPTS, "{door} legacy: {is_legacy} all: {sees_all}");
        }
    }
}

#[tokio::test]
async fn changes_that_follow_one_another_closely_are_told_together() {
    // What `flow/watch.rs` waits from the first sign of a change to the word of it.
    const WINDOW: Duration = Duration::from_millis(200);
    for door in ["/mcp", "/mcp/files"] {
        let (upstream, switch) = prompting().await;
        let policy = json!({"policy": "test", "rules": [
            {"id": "some", "action": "*", "target": ["files/echo", "files/more-*", "files/p"], "effect": "allow"},
        ]});
        let inside = Inside::start(Plan { policy, ..Plan::of(&upstream) }).await;
        looked(&inside).await;
        let agent = inside.legacy(door, &inside.alice).await;
        // A window may be open from the first moment on: something could have changed while nobody listened.
        let begun = Instant::now();
        let (mut listener, _feed) = listen(&upstream, &agent).await;
        for number in 0..20 {
            upstream.set_tools(tools(&["echo", &format!("more-{number}")]));
            looked(&inside).await;
        }
        switch.store(true, Ordering::SeqCst);
        looked(&inside).await;
        let mut told = 0;
        while heard(&mut listener).await == TOOLS {
            told += 1;
        }
        // However slow the machine is: each word took its window.
        let most = begun.elapsed().as_millis() / WINDOW.as_millis();
        assert!((1..=most).contains(&told), "{door}: told {told} times, where {most} are the most");
    }
}

#[tokio::test]
async fn a_group_that_changes_changes_the_next_list_and_is_told() {
    let (upstream, switch) = prompting().await;
    switch.store(true, Ordering::SeqCst);
    let in_group = |group: &str| AgentSetting { groups: vec![Arc::from(group)], ..AgentSetting::default() };
    let plan = |alice: &str, prompts: bool| {
        let mut rules = json!([
            {"id": "echo", "action": "tool.execute", "target": "files/echo", "effect": "allow"},
            {"id": "ops", "action": "tool.execute", "target": "files/hidden", "effect": "allow", "when": "'ops' in principal.groups"},
        ]);
        if prompts {
            let rule =
                json!({"id": "p", "action": "prompt.get", "target": "files/p", "effect": "allow", "agents": ["bob"]});
            rules.as_array_mut().unwrap().push(rule);
        }
        let agents = vec![("alice", in_group(alice)), ("bob", in_group("staff"))];
        Plan { policy: json!({"policy": "test", "rules": rules}), agents, ..Plan::of(&upstream) }
    };
    let inside = Inside::start(plan("staff", false)).await;
    looked(&inside).await;
    let mut streams = Vec::new();
    for door in ["/mcp", "/mcp/files"] {
        for agent in [inside.legacy(door, &inside.alice).await, inside.modern(door, &inside.alice)] {
            let (listener, feed) = listen(&upstream, &agent).await;
            assert_eq!(agent.tools().await.len(), 1);
            streams.push((agent, listener, feed));
        }
    }
    let bob = inside.legacy("/mcp", &inside.bob).await;
    let (mut bobs, _feed) = listen(&upstream, &bob).await;
    inside.swap(plan("ops", false));
    for (agent, listener, _) in &mut streams {
        assert_eq!(heard(listener).await, TOOLS);
        let names = agent.tools().await;
        assert!(names.len() == 2 && names.iter().any(|name| name.ends_with("hidden")), "{names:?}");
    }
    // And back, by the same way; the other caller at the same address hears only of what concerns it.
    inside.swap(plan("staff", true));
    for (agent, listener, _) in &mut streams {
        assert_eq!(heard(listener).await, TOOLS);
        assert_eq!(agent.tools().await.len(), 1);
    }
    assert_eq!(heard(&mut bobs).await, PROMPTS);
}

#[tokio::test]
async fn a_server_that_speaks_for_itself_is_not_repeated() {
    for is_legacy in [true, false] {
        let (upstream, _switch) = prompting().await;
        let policy = json!({"policy": "test", "rules": [
            {"id": "some", "action": "*", "target": ["files/echo", "files/more"], "effect": "allow", "agents": ["alice"]},
            {"id": "all", "action": "*", "target": "*/*", "effect": "allow", "agents": ["bob"]},
        ]});
        let inside = Inside::start(Plan { policy, ..Plan::of(&upstream) }).await;
        looked(&inside).await;
        let door = "/mcp/files";
        let bob = if is_legacy { inside.legacy(door, &inside.bob).await } else { inside.modern(door, &inside.bob) };
        let (mut bobs, feed) = listen(&upstream, &bob).await;
        let (mut alices, _feed) = listen(&upstream, &inside.legacy(door, &inside.alice).await).await;
        upstream.set_tools(tools(&["echo", "hidden", "more"]));
        say(&feed, &bob, TOOLS).await;
        assert_eq!(heard(&mut bobs).await, TOOLS);
        // When she is told by the gateway, the moment to tell him so has come, too.
        assert_eq!(heard(&mut alices).await, TOOLS);
        say(&feed, &bob, PROMPTS).await;
        assert_eq!(heard(&mut bobs).await, PROMPTS, "legacy: {is_legacy}");
    }
}

#[tokio::test]
async fn a_modern_listener_is_told_of_what_it_asked_for_alone() {
    let (upstream, switch) = prompting().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    looked(&inside).await;
    let agent = inside.modern("/mcp", &inside.alice);
    let (mut both, _feed) = listen(&upstream, &agent).await;
    let (mut one, _other) = listen_for(&upstream, &agent, &json!({"toolsListChanged": true})).await;
    switch.store(true, Ordering::SeqCst);
    looked(&inside).await;
    assert_eq!(heard(&mut both).await, PROMPTS);
    upstream.set_tools(tools(&["echo", "more"]));
    looked(&inside).await;
    assert_eq!(heard(&mut both).await, TOOLS);
    assert_eq!(heard(&mut one).await, TOOLS);
}

#[tokio::test]
async fn whoever_is_given_all_of_a_server_is_told_of_it() {
    let (upstream, _switch) = prompting().await;
    let inside = Inside::start(Plan { policy: narrow(), ..Plan::of(&upstream) }).await;
    looked(&inside).await;
    for agent in [inside.legacy("/mcp/files", &inside.alice).await, inside.modern("/mcp/files", &inside.alice)] {
        inside.swap(Plan { policy: narrow(), ..Plan::of(&upstream) });
        let (mut listener, feed) = listen(&upstream, &agent).await;
        // The server, which will speak for itself from now on, knows nothing of rights.
        inside.swap(Plan::of(&upstream));
        assert_eq!(heard(&mut listener).await, TOOLS);
        say(&feed, &agent, PROMPTS).await;
        assert_eq!(heard(&mut listener).await, PROMPTS);
    }
}

#[tokio::test]
async fn a_list_of_one_session_is_told_to_that_session() {
    let (upstream, switch) = prompting().await;
    let dynamic = Arc::new(OnceLock::<String>::new());
    let of = Arc::clone(&dynamic);
    upstream.always("tools/list", move |request| {
        let own = of.get().is_some_and(|of| request.header("mcp-session-id") == Some(of.as_str()));
        let tools = tools(if own { &["echo", "dynamic"] } else { &["echo"] });
        let result = json!({"tools": tools, "resultType": "complete", "ttlMs": 0, "cacheScope": "private"});
        Answer::result(&request.id(), &result)
    });
    let inside = Inside::start(Plan::of(&upstream)).await;
    looked(&inside).await;
    let agent = inside.legacy("/mcp", &inside.alice).await;
    let (mut listener, feed) = listen(&upstream, &agent).await;
    let session = upstream.seen("GET").pop().and_then(|seen| seen.header("mcp-session-id").map(str::to_owned));
    dynamic.set(session.unwrap()).unwrap();
    say(&feed, &agent, TOOLS).await;
    assert_eq!(heard(&mut listener).await, TOOLS);
    assert_eq!(agent.tools().await, ["files__echo", "files__dynamic"]);
    // The same again is nothing new.
    let lists = upstream.seen("tools/list").len();
    say(&feed, &agent, TOOLS).await;
    upstream.arrived("tools/list", lists + 1).await;
    switch.store(true, Ordering::SeqCst);
    say(&feed, &agent, PROMPTS).await;
    assert_eq!(heard(&mut listener).await, PROMPTS);
}

#[tokio::test]
async fn what_changed_while_nobody_listened_is_told_when_somebody_does() {
    let (upstream, _) = prompting().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    looked(&inside).await;
    let agent = inside.legacy("/mcp", &inside.alice).await;
    let (listener, _feed) = listen(&upstream, &agent).await;
    drop(listener);
    upstream.set_tools(tools(&["echo", "more"]));
    looked(&inside).await;
    let mut listener = agent.listen().await;
    assert_eq!(heard(&mut listener).await, TOOLS);
}

/// A legacy server that tells of changed lists, and numbers its sessions.
async fn telling() -> (Upstream, Arc<AtomicBool>) {
    let (upstream, switch) = prompting().await;
    let sessions = AtomicUsize::new(0);
    upstream.always("initialize", move |request| {
        let capabilities = json!({"tools": {"listChanged": true}, "prompts": {"listChanged": true}});
        let server = json!({"name": "fake", "version": "1"});
        let result = json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": server});
        let session = sessions.fetch_add(1, Ordering::SeqCst).to_string();
        Answer::result(&request.id(), &result).header("mcp-session-id", &session)
    });
    (upstream, switch)
}

/// What a modern client hears of a legacy server, and what that says in the session that it is heard in.
async fn listen_over_a_bridge(upstream: &Upstream, inside: &Inside, door: &str) -> (Agent, Reply, Feed, String) {
    let (stream, feed) = Answer::events();
    upstream.next("GET", stream);
    let wanted = json!({"notifications": {"toolsListChanged": true, "promptsListChanged": true}});
    let agent = inside.modern(door, &inside.alice);
    let mut listener = agent.request("subscriptions/listen", wanted).await;
    assert_eq!(heard(&mut listener).await, "notifications/subscriptions/acknowledged");
    let session = upstream.seen("GET").pop().unwrap().header("mcp-session-id").unwrap().to_owned();
    (agent, listener, feed, session)
}

#[tokio::test]
async fn a_word_of_a_bridged_server_is_told_where_the_view_became_another() {
    // On its own door a server speaks for itself to who sees all of it.
    for (door, policy) in [("/mcp", None), ("/mcp/files", Some(narrow()))] {
        let (upstream, switch) = telling().await;
        let plan = Plan { era: EraSettings::Legacy, ..Plan::of(&upstream) };
        let plan = match policy {
            Some(policy) => Plan { policy, ..plan },
            None => plan,
        };
        let inside = Inside::start(plan).await;
        looked(&inside).await;
        let (_agent, mut listener, feed, _) = listen_over_a_bridge(&upstream, &inside, door).await;
        let lists = upstream.seen("tools/list").len();
        let word = async |method: &str| feed.message(&json!({"jsonrpc": "2.0", "method": method})).await;
        for _ in 0..3 {
            word(TOOLS).await;
        }
        upstream.arrived("tools/list", lists + 1).await;
        switch.store(true, Ordering::SeqCst);
        word(PROMPTS).await;
        word(TOOLS).await;
        assert_eq!(heard(&mut listener).await, PROMPTS, "{door}");
    }
}

#[tokio::test]
async fn what_a_bridged_server_shows_in_one_session_alone_is_told_there() {
    let (upstream, _) = telling().await;
    let dynamic = Arc::new(OnceLock::<String>::new());
    let of = Arc::clone(&dynamic);
    upstream.always("tools/list", move |request| {
        let own = of.get().is_some_and(|of| request.header("mcp-session-id") == Some(of.as_str()));
        Answer::result(&request.id(), &json!({"tools": tools(if own { &["echo", "dynamic"] } else { &["echo"] })}))
    });
    let inside = Inside::start(Plan { era: EraSettings::Legacy, ..Plan::of(&upstream) }).await;
    looked(&inside).await;
    let (agent, mut listener, feed, session) = listen_over_a_bridge(&upstream, &inside, "/mcp").await;
    dynamic.set(session).unwrap();
    feed.message(&json!({"jsonrpc": "2.0", "method": TOOLS})).await;
    assert_eq!(heard(&mut listener).await, TOOLS);
    assert_eq!(agent.tools().await, ["files__echo", "files__dynamic"]);
}

#[tokio::test]
async fn what_lists_leave_out_is_no_news() {
    for era in [EraSettings::Legacy, EraSettings::Modern] {
        let (upstream, switch) = prompting().await;
        let set = |text: &str| {
            let region = json!({"type": "object", "properties": {"a": {"type": "string", "x-mcp-header": "A B"}}});
            let mut all = tools(&["echo"]);
            all.push(json!({"name": "bare", "description": text}));
            // Told of twice, kept once.
            all.push(json!({"name": "bare", "description": text}));
            if era == EraSettings::Modern {
                all.push(json!({"name": "region", "description": text, "inputSchema": region}));
                let mut both = region.clone();
                both["properties"]["b"] = json!(true);
                all.push(json!({"name": "both", "description": text, "inputSchema": both}));
            }
            upstream.set_tools(all);
        };
        set("one");
        let inside = Inside::start(Plan { era, ..Plan::of(&upstream) }).await;
        let agent = match era {
            EraSettings::Legacy => inside.legacy("/mcp", &inside.alice).await,
            EraSettings::Modern | EraSettings::Both => inside.modern("/mcp", &inside.alice),
        };
        looked(&inside).await;
        assert_eq!(agent.tools().await, ["files__echo"]);
        let (mut listener, feed) = listen(&upstream, &agent).await;
        set("two");
        let before = upstream.seen("tools/list").len();
        say(&feed, &agent, TOOLS).await;
        // It is looked at, and a legacy server asked in the session what it shows there.
        upstream.arrived("tools/list", before + if era == EraSettings::Legacy { 2 } else { 1 }).await;
        looked(&inside).await;
        switch.store(true, Ordering::SeqCst);
        say(&feed, &agent, PROMPTS).await;
        looked(&inside).await;
        assert_eq!(heard(&mut listener).await, PROMPTS, "{era:?}");
    }
}

/// Whatever it is asked for its listening stream, in whichever era, it opens one. Those that were opened, in their order.
fn streaming(upstream: &Upstream) -> Arc<Mutex<Vec<Feed>>> {
    let feeds = Arc::<Mutex<Vec<Feed>>>::default();
    for name in ["GET", "subscriptions/listen"] {
        let feeds = Arc::clone(&feeds);
        upstream.always(name, move |asked| {
            let (stream, feed) = Answer::events();
            feeds.lock().unwrap().push(feed.clone());
            if asked.name() == "subscriptions/listen" {
                let mut params = json!({"notifications": asked.json()["params"]["notifications"]});
                params["_meta"] = json!({SUBSCRIPTION: asked.id()});
                let begun =
                    json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params});
                tokio::spawn(async move { feed.message(&begun).await });
            }
            stream
        });
    }
    feeds
}

/// Listens. The stream of a modern client has begun.
async fn listening(agent: &Agent) -> Reply {
    if agent.session().is_some() {
        return agent.listen().await;
    }
    let mut listener =
        agent.request("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}})).await;
    assert_eq!(heard(&mut listener).await, "notifications/subscriptions/acknowledged");
    listener
}

#[tokio::test]
async fn a_server_that_was_lost_and_is_back_with_other_lists_is_told_of_to_whoever_listens() {
    for (door, is_legacy, era) in [
        ("/mcp", true, EraSettings::Legacy),
        ("/mcp", false, EraSettings::Modern),
        ("/mcp", true, EraSettings::Modern),
        ("/mcp", false, EraSettings::Legacy),
        ("/mcp/files", true, EraSettings::Modern),
        ("/mcp/files", false, EraSettings::Legacy),
    ] {
        let upstream = Upstream::start().await;
        let feeds = streaming(&upstream);
        let inside = Inside::start(Plan { era, ..Plan::of(&upstream) }).await;
        looked(&inside).await;
        let agent = if is_legacy { inside.legacy(door, &inside.bob).await } else { inside.modern(door, &inside.bob) };
        let mut listener = listening(&agent).await;
        let opened = || feeds.lock().unwrap().first().cloned();
        let mut turns = tokio::time::interval(Duration::from_millis(5));
        let feed = soon(async {
            loop {
                turns.tick().await;
                if let Some(feed) = opened() {
                    return feed;
                }
            }
        })
        .await;
        upstream.set_tools(tools(&["echo", "more"]));
        feed.cut().await;
        assert_eq!(heard(&mut listener).await, TOOLS, "{door} legacy: {is_legacy} server: {era:?}");
    }
}

#[tokio::test]
async fn a_server_without_a_stream_that_has_forgotten_a_session_is_looked_at() {
    for is_legacy in [true, false] {
        for method in ["tools/call", "tools/list"] {
            let upstream = Upstream::start().await;
            let inside = Inside::start(Plan { era: EraSettings::Legacy, ..Plan::of(&upstream) }).await;
            looked(&inside).await;
            let agent =
                if is_legacy { inside.legacy("/mcp", &inside.bob).await } else { inside.modern("/mcp", &inside.bob) };
            let mut listener = listening(&agent).await;
            // It has a session there.
            assert!(agent.call("files__echo", json!({})).await["result"].is_object());
            upstream.set_tools(tools(&["echo", "more"]));
            upstream.next(method, Answer::status(StatusCode::NOT_FOUND));
            match method {
                "tools/call" => drop(agent.call("files__echo", json!({})).await),
                _ => drop(agent.tools().await),
            }
            assert_eq!(heard(&mut listener).await, TOOLS, "legacy: {is_legacy} {method}");
        }
    }
}

#[tokio::test]
async fn what_a_look_finds_that_somebody_else_caused_is_told_on_a_bridge() {
    for (is_legacy, era) in [(true, EraSettings::Modern), (false, EraSettings::Legacy)] {
        let upstream = Upstream::start().await;
        let _feeds = streaming(&upstream);
        let inside = Inside::start(Plan { era, ..Plan::of(&upstream) }).await;
        looked(&inside).await;
        let agent = async |token: &str| {
            if is_legacy { inside.legacy("/mcp/files", token).await } else { inside.modern("/mcp/files", token) }
        };
        let mut listener = listening(&agent(&inside.bob).await).await;
        upstream.set_tools(tools(&["echo", "more"]));
        assert_eq!(agent(&inside.alice).await.tools().await, ["echo", "more"]);
        assert_eq!(heard(&mut listener).await, TOOLS, "legacy: {is_legacy}");
    }
}

/// A process that has one more tool once there is a file, says nothing of it, and can be told to end.
const ENDS: &str = r#"
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  [ -e "$1" ] && more=',{"name":"more","inputSchema":{"type":"object"}}' || more=
  case "$line" in
    *'"initialize"'*) echo '{"jsonrpc":"2.0","id":'$id',"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":true}},"serverInfo":{"name":"sh","version":"1"}}}';;
    *'"tools/list"'*) echo '{"jsonrpc":"2.0","id":'$id',"result":{"tools":[{"name":"end","inputSchema":{"type":"object"}}'$more']}}';;
    *'"tools/call"'*) exit 0;;
    *'"id"'*) echo '{"jsonrpc":"2.0","id":'$id',"result":{}}';;
  esac
done
"#;

#[tokio::test]
async fn a_process_that_is_started_again_with_other_lists_is_told_of_to_whoever_listens() {
    for (door, tool) in [("/mcp", "files__end"), ("/mcp/files", "end")] {
        let upstream = Upstream::start().await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("more");
        let command = ["/bin/sh", "-c", ENDS, "server", &file.to_string_lossy()].map(str::to_owned).to_vec();
        let inside =
            Inside::start(Plan { command: Some(command), era: EraSettings::Legacy, ..Plan::of(&upstream) }).await;
        looked(&inside).await;
        let agent = inside.legacy(door, &inside.bob).await;
        let mut listener = agent.listen().await;
        std::fs::write(&file, "").unwrap();
        let ended = agent.call(tool, json!({})).await;
        assert!(ended["error"].is_object(), "{ended}");
        assert_eq!(heard(&mut listener).await, TOOLS, "{door}");
    }
}

#[tokio::test]
async fn what_is_left_out_of_a_stream_of_several_servers_is_on_record() {
    for is_legacy in [true, false] {
        let (upstream, _) = telling().await;
        let inside = Inside::start(Plan::of(&upstream)).await;
        looked(&inside).await;
        let alice =
            if is_legacy { inside.legacy("/mcp", &inside.alice).await } else { inside.modern("/mcp", &inside.alice) };
        let (mut stream, feed) = listen(&upstream, &alice).await;
        let call = stream.header("durward-call-id").unwrap().to_owned();
        for _ in 0..2 {
            feed.raw("data: {\"jsonrpc\":\"2.0\",\n\n".to_owned()).await;
        }
        upstream.set_tools(vec![json!({"name": "changed", "inputSchema": {"type": "object"}})]);
        say(&feed, &alice, TOOLS).await;
        assert_eq!(heard(&mut stream).await, TOOLS, "the stream goes on");
        let of_gateway = inside.leaves(&Tree::System).await;
        let left: Vec<&Value> =
            of_gateway.iter().map(|(_, record)| record).filter(|it| it["event"] == "left-out").collect();
        let [left] = left[..] else { panic!("one for the stream: {left:?}") };
        assert_eq!(left["call"], call);
        assert!(left["detail"].as_str().unwrap().starts_with("server `files`: "), "{left}");
    }
}
