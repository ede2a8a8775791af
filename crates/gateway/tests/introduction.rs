//! What either side is told of the other: what it can use, in the words of its revision.

mod inside;

use gateway::settings::EraSettings;
use inside::{Inside, Plan, outcome};
use serde_json::{Value, json};
use testkit::{Answer, Ask, LEGACY, Upstream, soon};

#[tokio::test]
async fn the_aggregate_says_no_capability_that_a_revision_does_not_have() {
    let upstream = Upstream::start().await;
    let capabilities = json!({
        "tools": {}, "completions": {}, "logging": {},
        "tasks": {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}},
    });
    upstream.always("initialize", move |request| {
        let result = json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": {"name": "u", "version": "1"}});
        Answer::result(&request.id(), &result)
    });
    let inside = Inside::start(Plan { era: EraSettings::Legacy, ..Plan::of(&upstream) }).await;
    for (revision, expected) in [
        ("2024-11-05", vec!["logging", "tools"]),
        ("2025-03-26", vec!["completions", "logging", "tools"]),
        ("2025-06-18", vec!["completions", "logging", "tools"]),
        ("2025-11-25", vec!["completions", "logging", "tasks", "tools"]),
    ] {
        let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}});
        let ask = Ask::post(&inside.url("/mcp"), hello.to_string()).bearer(&inside.alice);
        let answer = ask.send().await.json().await;
        assert_eq!(answer["result"]["protocolVersion"], revision, "{answer}");
        let said: Vec<&String> = answer["result"]["capabilities"].as_object().unwrap().keys().collect();
        assert_eq!(said, expected, "{revision}");
    }
}

#[tokio::test]
async fn updates_are_not_promised_of_a_server_that_was_found_to_have_no_stream_for_them() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan { era: EraSettings::Legacy, ..Plan::of(&upstream) }).await;
    let promised = async || {
        let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}});
        let ask = Ask::post(&inside.url("/mcp"), hello.to_string()).bearer(&inside.alice);
        let legacy = ask.send().await.json().await;
        let modern = inside.modern("/mcp", &inside.alice).request("server/discover", json!({})).await.json().await;
        let [legacy, modern] = [legacy, modern].map(|said| said["result"]["capabilities"]["resources"].clone());
        assert_eq!(legacy, modern);
        assert_eq!(legacy["listChanged"], true, "{legacy}");
        legacy["subscribe"] == true
    };
    assert!(promised().await, "nobody asked it yet");
    let listen = async || {
        let agent = inside.legacy("/mcp", &inside.bob).await;
        let listener = agent.listen().await;
        agent.tools().await;
        (agent, listener)
    };
    let _first = listen().await;
    assert!(!promised().await, "it answered 405 to GET");
    let (events, _feed) = Answer::events();
    upstream.next("GET", events);
    let _second = listen().await;
    assert!(promised().await, "it has one by now");
}

#[tokio::test]
async fn a_server_behind_a_bridge_is_not_told_of_what_no_rule_lets_it_ask() {
    let rule = |action: &str| json!({"id": action, "action": action, "target": "*/*", "effect": "allow"});
    let policy = json!({"policy": "test", "rules": [rule("tool.execute"), rule("server.roots")]});
    let key = "io.modelcontextprotocol/clientCapabilities";
    for (era, all) in [
        (EraSettings::Modern, false),
        (EraSettings::Modern, true),
        (EraSettings::Legacy, false),
        (EraSettings::Legacy, true),
    ] {
        let upstream = Upstream::start().await;
        let plan = Plan { era, ..Plan::of(&upstream) };
        let inside = Inside::start(if all { plan } else { Plan { policy: policy.clone(), ..plan } }).await;
        for path in ["/mcp/files", "/mcp"] {
            let tool = if path == "/mcp" { "files__echo" } else { "echo" };
            let told: Value = if era == EraSettings::Modern {
                let agent = inside.legacy(path, &inside.alice).await;
                assert!(agent.call(tool, json!({})).await["error"].is_null());
                upstream.seen("tools/call").pop().unwrap().json()["params"]["_meta"][key].clone()
            } else {
                let agent = inside.modern(path, &inside.alice);
                assert!(agent.call(tool, json!({})).await["error"].is_null());
                upstream.seen("initialize").pop().unwrap().json()["params"]["capabilities"].clone()
            };
            let said: Vec<&String> = told.as_object().unwrap().keys().collect();
            assert_eq!(said, if all { vec!["elicitation", "roots", "sampling"] } else { vec!["roots"] }, "{path}");
        }
    }
}

/// A process that agrees to any revision, and leaves a file when it ends.
const AGREES: &str = r#"while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  case $line in
    *'"initialize"'*) v=${line#*\"protocolVersion\":\"}; v=${v%%\"*}
      echo '{"jsonrpc":"2.0","id":'"$id"',"result":{"protocolVersion":"'"$v"'","capabilities":{},"serverInfo":{"name":"s","version":"1"}}}' ;;
  esac
done; echo ended > "$1""#;

#[tokio::test]
async fn a_revision_that_nobody_here_knows_ends_with_the_introduction_whoever_agreed_to_it() {
    let hello = |inside: &Inside, revision: &str| {
        let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}});
        Ask::post(&inside.url("/mcp/files"), hello.to_string()).bearer(&inside.alice)
    };
    let told = |answer: &Value| {
        let error = &answer["error"];
        assert_eq!((&answer["id"], &error["code"]), (&json!(1), &json!(-32602)), "{answer}");
        let why = "server `files` agreed to revision `1999-01-01`, which is not spoken here";
        assert!(error["message"].as_str().unwrap().starts_with(why), "{answer}");
        let (requested, agreed) = (&error["data"]["requested"], &error["data"]["agreed"]);
        assert_eq!((requested, agreed), (&json!("1999-01-01"), &json!("1999-01-01")), "{answer}");
        assert_eq!(error["data"]["supported"], json!(["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]));
    };
    // In one piece, as a stream, and from a server without session ids.
    for (stream, session) in [(false, true), (true, true), (false, false)] {
        let upstream = Upstream::start().await;
        upstream.always("initialize", move |request| {
            let version = request.json()["params"]["protocolVersion"].clone();
            let result =
                json!({"protocolVersion": version, "capabilities": {}, "serverInfo": {"name": "u", "version": "1"}});
            let answer = if stream {
                let message = json!({"jsonrpc": "2.0", "id": request.id(), "result": result});
                Answer::event_text(format!("data: {message}\n\n"))
            } else {
                Answer::result(&request.id(), &result)
            };
            if session { answer.header("mcp-session-id", "odd") } else { answer }
        });
        let inside = Inside::start(Plan { era: EraSettings::Legacy, ..Plan::of(&upstream) }).await;
        let reply = soon(hello(&inside, "1999-01-01").send()).await;
        // The head of a stream is out before its answer has come: the session that it names is over by then.
        let named = reply.header("mcp-session-id").map(str::to_owned);
        assert!(stream || named.is_none(), "no session");
        told(&reply.json().await);
        assert_eq!(inside.state.sessions.count(), 0);
        if session {
            let ended = upstream.arrived("DELETE", 1).await;
            assert_eq!(ended.header("mcp-session-id"), Some("odd"));
        }
        let record = inside.records().await.pop().unwrap();
        assert_eq!(outcome(&record), "withheld revision release", "{record}");
        // Any that is known opens one as before.
        let reply = hello(&inside, "2024-11-05").send().await;
        assert_eq!(reply.header("mcp-session-id").is_some(), session);
        assert_eq!(reply.json().await["result"]["protocolVersion"], "2024-11-05");
    }
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start().await);
    let ended = folder.path().join("ended");
    let command = ["/bin/sh", "-c", AGREES, "server", &ended.to_string_lossy()].map(str::to_owned).to_vec();
    let plan = Plan { era: EraSettings::Legacy, command: Some(command), ..Plan::of(&upstream) };
    let inside = Inside::start(plan).await;
    told(&soon(hello(&inside, "1999-01-01").send()).await.json().await);
    soon(async {
        while !ended.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(inside.state.sessions.count(), 0);
}
