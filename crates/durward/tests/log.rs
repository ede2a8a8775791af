//! The log knows of everything: as many records as requests, and the word before the deed.
#![expect(clippy::unwrap_used, reason = "what the test stands on must be there, or the test has failed")]

mod rig;
mod world;

use audit::Tree;
use rig::{call_of, closed, leaves, relayed};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use testkit::{Agent, Answer, Ask, Upstream, meta};
use vocab::TenantId;
use world::{ALL, World, http};

fn tenant(world: &World) -> Vec<(String, Value)> {
    leaves(&world.data().join("log"), &Tree::Tenant(TenantId::default_tenant()))
}

fn intent_of(world: &World, call: &str) -> bool {
    tenant(world).iter().any(|(kind, record)| kind == "intent" && record["call"] == call)
}

#[tokio::test]
async fn there_are_as_many_records_as_requests_of_every_kind() {
    let upstream = Upstream::start().await;
    let world = World::start(&http("files", &upstream)).await;
    let mut calls = Vec::new();
    let url = world.url("/mcp/files");
    for path in ["/mcp/files", "/mcp"] {
        let agent = world.legacy(path).await;
        for (method, params) in [
            ("ping", json!({})),
            ("tools/list", json!({})),
            ("prompts/list", json!({})),
            ("resources/list", json!({})),
            ("resources/templates/list", json!({})),
            ("tools/call", json!({"name": "echo", "arguments": {}})),
            ("tools/call", json!({"name": "files__echo", "arguments": {}})),
            ("tools/call", json!({"name": "none", "arguments": {}})),
            ("prompts/get", json!({"name": "none"})),
            ("resources/read", json!({"uri": "a://b"})),
            ("vendor/unknown", json!({})),
            ("logging/setLevel", json!({"level": "info"})),
        ] {
            calls.push(call_of(&agent.request(method, params).await));
        }
        calls.push(call_of(&agent.notify("notifications/roots/list_changed", json!({})).await));
        calls.push(call_of(&agent.notify("notifications/unheard-of", json!({})).await));
        upstream.next("GET", Answer::status(http::StatusCode::METHOD_NOT_ALLOWED));
        let listening = agent.listen().await;
        calls.push(call_of(&listening));
        drop(listening);
        calls.push(call_of(&agent.leave().await));
        // The session is gone.
        calls.push(call_of(&agent.request("ping", json!({})).await));
    }
    let modern = world.modern("/mcp/files");
    for method in ["server/discover", "tools/list", "ping", "vendor/unknown"] {
        calls.push(call_of(&modern.request(method, json!({})).await));
    }
    // What never becomes a call is recorded too, by the name of whoever shows one.
    for ask in [
        Ask::post(&url, "{".to_owned()),
        Ask::post(&url, "[]".to_owned()),
        Ask::post(&url, r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"ping"}"#.to_owned()),
        Ask::post(&url, "x".repeat(5 << 20)),
        Ask::post(&url, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#.to_owned()).header("origin", "https://a.example"),
        modern.ask("ping", &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta()}})),
        Ask::new(http::Method::PUT, &url),
    ] {
        let call = call_of(&ask.bearer(&world.alice).send().await);
        let record = world.record(&call).await;
        assert_eq!([&record["agent"], &record["outcome"]["stage"]], ["alice", "receive"], "{record:#}");
        calls.push(call);
    }
    for ask in [
        Ask::post(&url, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#.to_owned()),
        Ask::post(&url, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#.to_owned()).bearer("dwk_no"),
        Ask::get(&url).header("accept", "text/event-stream"),
        Ask::new(http::Method::DELETE, &url),
        Ask::new(http::Method::PUT, &url),
        Ask::get(&url).header("mcp-protocol-version", testkit::MODERN),
        Ask::get(&world.url("/mcp/none")).bearer(&world.alice),
    ] {
        calls.push(call_of(&ask.send().await));
    }
    assert_eq!(calls.iter().collect::<BTreeSet<_>>().len(), calls.len(), "each request has an id of its own");
    for call in &calls {
        world.record(call).await;
    }
    // Members of a batch are calls of their own, each with its record.
    let member = |id: u64| json!({"jsonrpc": "2.0", "id": id, "method": "ping"});
    let before = world.records(0).await.len();
    let batch = json!([member(1), member(2), {"jsonrpc": "2.0", "method": "notifications/initialized"}]);
    let ask = world.post("/mcp/files", &batch.to_string()).header("mcp-protocol-version", "2025-03-26");
    let text = ask.send().await.text().await;
    assert_eq!(text.matches("data:").count(), 2, "{text}");
    assert_eq!(world.records(before + 3).await.len(), before + 3);

    let data = world.data();
    let (status, folder) = world.stop().await;
    assert!(status.success());
    for call in &calls {
        assert_eq!(closed(&data.join("log"), call).len(), 1, "{call}");
    }
    drop(folder);
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test starts the product")]
async fn a_call_is_found_by_its_id_in_whichever_tree_it_is() {
    let upstream = Upstream::with_tools(["echo"]).await;
    let world = World::start(&http("files", &upstream)).await;
    let own = call_of(&world.calling("/mcp/files", Some(&world.alice), "echo", &json!({})).send().await);
    let unknown = call_of(&world.calling("/mcp/files", Some("dwk_no"), "echo", &json!({})).send().await);
    for call in [&own, &unknown] {
        world.record(call).await;
    }
    let (_, folder) = world.stop().await;
    let found = async |more: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_durward"));
        command.args(["audit", "search", "--output", "json", "--data"]).arg(folder.path().join("data"));
        let said = command.args(more).output().await.unwrap();
        assert!(said.status.success(), "{said:?}");
        String::from_utf8(said.stdout).unwrap()
    };
    for call in [&own, &unknown] {
        assert!(found(&["--call", call]).await.contains(call.as_str()), "{call}");
    }
    assert!(found(&["--call", &unknown, "--system"]).await.contains(&unknown));
    // Who says which tree means it.
    assert!(found(&["--call", &own, "--system"]).await.is_empty());
    assert!(found(&["--outcome", "refused"]).await.is_empty());
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test starts the product")]
async fn what_turns_a_line_is_printed_as_an_escape() {
    const NAME: &str = "e\u{202e}ohc\u{2066}\u{61c}";
    let upstream = Upstream::with_tools(["echo"]).await;
    let world = World::start(&http("files", &upstream)).await;
    let agent = world.legacy("/mcp/files").await;
    let call = call_of(&agent.request("tools/call", json!({"name": NAME, "arguments": {}})).await);
    let record = world.record(&call).await;
    assert_eq!(record["target"], NAME, "{record}");
    let (_, folder) = world.stop().await;
    let run = async |line: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_durward"));
        command.arg("audit").args(line).arg("--data").arg(folder.path().join("data")).current_dir(folder.path());
        let said = command.output().await.unwrap();
        assert!(said.status.success(), "{said:?}");
        [said.stdout, said.stderr].map(|text| String::from_utf8(text).unwrap())
    };
    let [proof, _] = run(&["prove", &call]).await;
    std::fs::write(folder.path().join("proof"), proof).unwrap();
    for line in [
        &["show", &call][..],
        &["show", &call, "--output", "json"],
        &["search", "--call", &call, "--output", "json"],
        &["verify", "--proof", "proof", "--output", "json"],
        &["verify", "--proof", "proof"],
    ] {
        let [printed, _] = run(line).await;
        assert!(printed.contains(r"e\u202eohc\u2066\u061c"), "{line:?}: {printed}");
        // A sentence follows the record that is proven.
        let mut values = serde_json::Deserializer::from_str(&printed).into_iter::<Value>();
        let value = values.next().unwrap().unwrap();
        let target = ["/record/target", "/record/record/target"].map(|place| value.pointer(place));
        assert!(target.contains(&Some(&json!(NAME))), "{line:?}: {value}");
        assert!(!printed.contains(|c| "\u{202e}\u{2066}\u{61c}".contains(c)), "{line:?}: {printed}");
    }
    let [_, said] = run(&["search", "--target", &format!("files/{NAME}*")]).await;
    assert!(said.contains("files/e\u{fffd}ohc\u{fffd}\u{fffd}*"), "{said}");
}

#[tokio::test]
async fn the_intent_of_what_may_change_state_is_on_disk_before_the_call_arrives() {
    let upstream = Upstream::with_tools(["look", "change"]).await;
    let body = format!(
        "servers:\n  files: {{ url: \"{}\", internal: true, tools: {{ look: {{ class: read }} }} }}\n",
        upstream.url()
    );
    for (log, strict) in [("", false), ("log: { durability: strict }\n", true)] {
        let world = World::with(&format!("{body}{log}"), ALL).await;
        for (tool, intended) in [("change", true), ("look", strict)] {
            let before = relayed(&upstream, "tools/call").len();
            let (answer, feed) = Answer::events();
            upstream.next("tools/call", answer);
            let ask = world.calling("/mcp/files", Some(&world.alice), tool, &json!({}));
            let reply = tokio::spawn(ask.send());
            world.until(|| relayed(&upstream, "tools/call").len() > before).await;
            // The call has arrived and is not answered: what the disk holds now is all that a crash would leave.
            let arrived = relayed(&upstream, "tools/call").pop().unwrap();
            let call = arrived.header("durward-call-id").unwrap().to_owned();
            let journal = journal(&world);
            assert_eq!(journal.contains(&format!("\"call\":\"{call}\"")), intended, "{tool} strict={strict}");
            feed.message(&json!({"jsonrpc": "2.0", "id": 1, "result": {"content": []}})).await;
            drop(feed);
            reply.await.unwrap().text().await;
            assert_eq!(world.record(&call).await["intent"].is_u64(), intended);
            assert_eq!(intent_of(&world, &call), intended);
        }
    }
}

/// The text of the journal as it is on disk.
fn journal(world: &World) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(world.data().join("log/journal")).unwrap().flatten() {
        text.push_str(&String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()));
    }
    text
}

#[tokio::test]
async fn what_policies_decide_is_on_record_with_their_version_whatever_they_say() {
    let upstream = Upstream::with_tools(["echo", "erase", "other"]).await;
    let rules = json!([
        {"id": "echo", "action": "tool.execute", "target": "files/echo", "effect": "allow", "agents": ["alice"]},
        {"id": "erase", "action": "tool.execute", "target": "files/erase", "effect": "allow", "agents": ["alice"],
         "when": "has(args.sure)"},
    ]);
    let world = World::with(&format!("servers:\n{}", http("files", &upstream)), &rig::policy(&rules)).await;
    let mut versions = BTreeSet::new();
    for (key, path, tool, reason) in [
        (&world.alice, "/mcp/files", "echo", Value::Null),
        (&world.alice, "/mcp/files", "erase", json!("denied")),
        (&world.alice, "/mcp/files", "other", json!("hidden")),
        (&world.alice, "/mcp", "files__other", json!("hidden")),
        (&world.bob, "/mcp/files", "echo", json!("unknown-server")),
    ] {
        let call = call_of(&world.calling(path, Some(key), tool, &json!({})).send().await);
        let record = world.record(&call).await;
        assert_eq!(record["outcome"]["reason"], reason, "{record:#}");
        versions.insert(record["policy"].as_str().unwrap_or_else(|| panic!("no version: {record:#}")).to_owned());
    }
    assert_eq!(versions.len(), 1, "{versions:?}");
    // What nobody asked the policies about names none.
    let call = call_of(&world.calling("/mcp/none", Some(&world.alice), "echo", &json!({})).send().await);
    assert_eq!(world.record(&call).await["policy"], Value::Null);
}

#[tokio::test]
async fn a_record_says_who_what_when_and_why() {
    let upstream = Upstream::start().await;
    let world = World::start(&http("files", &upstream)).await;
    let agent: Agent = world.legacy("/mcp/files").await;
    let reply = agent.request("tools/call", json!({"name": "echo", "arguments": {"a": 1}})).await;
    let call = call_of(&reply);
    let body = reply.bytes().await;
    let record = world.record(&call).await;
    assert_eq!(
        [&record["agent"], &record["server"], &record["target"], &record["action"], &record["method"]],
        ["alice", "files", "echo", "tool.execute", "tools/call"]
    );
    assert_eq!(
        [&record["rules"], &record["era"], &record["peer"]],
        [&json!(["all"]), &json!("legacy"), &json!("127.0.0.1")]
    );
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(record["result"]["bytes"], answer["result"].to_string().len(), "of the result alone");
    assert!(record["identity"].as_str().unwrap().starts_with("key:"));
    assert!(!record.to_string().contains(agent.session().unwrap()), "a session's handle is a credential");
    assert!(record["policy"].is_string() && record["duration_us"].is_u64() && record["at"].is_i64());
}
