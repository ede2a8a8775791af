//! Hostile peers at connections that last: servers on pipes, and clients that do not read what those say. What they send
//! stays inside the stated bounds, and honest ones are served meanwhile.
//!
//! The server is this very test binary, started by the gateway with another purpose.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what the test stands on must be there, or the test has failed"
)]

mod rig;
mod world;

use rig::{call_of, outcome};
use serde_json::{Value, json};
use std::{
    io::{BufRead, Write},
    time::Duration,
};
use testkit::{Agent, meta, soon};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use world::World;

/// The stated bound of memory, for a build with debug assertions.
const MEGABYTES_UNDER_ATTACK: u64 = 256;
/// How long a flood may take.
const FLOODED: Duration = Duration::from_secs(90);
/// What one call floods with: messages of so many bytes.
const FLOOD: (usize, usize) = (40, 3 << 20);

/// Results that nobody can read, by the name of the tool that gives them, and what the log says of each.
const KINDS: [(&str, fn() -> Vec<u8>, &str); 8] = [
    ("oversize", || format!(r#"{{"text":"{}"}}"#, "x".repeat(2 << 20)).into_bytes(), "upstream-too-big"),
    ("vast", || format!("[{}0]", "0,".repeat(1 << 20)).into_bytes(), "upstream-too-big"),
    ("deep", || [b"[".repeat(10_000), b"]".repeat(10_000)].concat(), "upstream-protocol"),
    ("twice", || br#"{"content":[],"a":1,"\u0061":2}"#.to_vec(), "upstream-protocol"),
    ("surrogate", || br#"{"content":[],"a":"\ud800"}"#.to_vec(), "upstream-protocol"),
    ("number", || br#"{"content":[],"a":NaN}"#.to_vec(), "upstream-protocol"),
    ("bytes", || b"{\"content\":[],\"a\":\"\xff\xfe\"}".to_vec(), "upstream-protocol"),
    ("unquoted", || b"{content:[]}".to_vec(), "upstream-protocol"),
];

/// Configuration of a server that is this binary.
fn scripted(name: &str, era: &str, more: &str) -> String {
    let program = std::env::current_exe().unwrap();
    format!(
        "  {name}: {{ command: [\"{}\", --exact, the_server_itself, --nocapture], env: {{ SPEAKS: {era} }}{more} }}\n",
        program.display()
    )
}

/// Not a test unless the gateway starts it: then it is a server until its input ends.
#[test]
#[expect(clippy::disallowed_methods, reason = "the gateway says through the environment what this process is")]
fn the_server_itself() {
    let Ok(era) = std::env::var("SPEAKS") else { return };
    let write = |bytes: &[u8]| {
        let mut out = std::io::stdout().lock();
        // Whoever is let go of finds nobody who reads.
        let written = out.write_all(bytes).and_then(|()| out.flush());
        if written.is_err() {
            std::process::exit(0);
        }
    };
    let say = |text: String| write(format!("{text}\n").as_bytes());
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let message: Value = serde_json::from_str(&line).unwrap();
        let (id, params) = (&message["id"], &message["params"]);
        let answer = |result: Value| say(json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string());
        match message["method"].as_str() {
            Some("initialize") if era == "legacy" => answer(json!({
                "protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}},
                "serverInfo": {"name": "self", "version": "1"}})),
            Some("server/discover") if era == "modern" => answer(json!({
                "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private",
                "resultType": "complete"})),
            Some("tools/list") => {
                let names = KINDS.iter().map(|(name, ..)| *name).chain(["honest", "flood", "endless"]);
                let tools: Vec<_> =
                    names.map(|name| json!({"name": name, "inputSchema": {"type": "object"}})).collect();
                answer(json!({"tools": tools, "ttlMs": 0, "cacheScope": "private", "resultType": "complete"}));
            }
            Some("tools/call") => {
                let name = params["name"].as_str().unwrap_or_default();
                if let Some((_, result, ..)) = KINDS.iter().find(|(kind, ..)| *kind == name) {
                    // Some write the id last.
                    write(br#"{"jsonrpc":"2.0","result":"#);
                    write(&result());
                    write(format!(",\"id\":{id}}}\n").as_bytes());
                    continue;
                }
                if name == "endless" {
                    write(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"text":""#).as_bytes());
                    loop {
                        write(&[b'x'; 1 << 16]);
                    }
                }
                if name == "flood" {
                    let (token, filler) = (&params["_meta"]["progressToken"], "z".repeat(FLOOD.1));
                    for turn in 0..FLOOD.0 {
                        say(format!(
                            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":{turn},"message":"{filler}"}}}}"#
                        ));
                    }
                    eprintln!("it has said all");
                }
                answer(json!({"content": [], "resultType": "complete"}));
            }
            Some(_) if !id.is_null() => {
                say(json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}}).to_string());
            }
            Some(_) | None => {}
        }
    }
    std::process::exit(0);
}

/// The most that was ever resident of it, in megabytes.
fn peak(world: &World) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Sends a call and reads nothing of what comes.
#[expect(clippy::disallowed_methods, reason = "a test dials what it is told to")]
async fn unread(world: &World, path: &str, agent: &Agent, tool: &str) -> TcpStream {
    let mut params = json!({"name": tool, "arguments": {}, "_meta": {"progressToken": "mine"}});
    let head = match agent.session() {
        Some(session) => format!("mcp-session-id: {session}"),
        None => {
            params["_meta"].as_object_mut().unwrap().extend(meta().as_object().unwrap().clone());
            format!("mcp-protocol-version: {}\r\nmcp-method: tools/call\r\nmcp-name: {tool}", testkit::MODERN)
        }
    };
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).to_string();
    let text = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}",
        world.address,
        world.alice,
        body.len()
    );
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// Waits until the servers have said so often that they have said all.
async fn flooded(world: &World, times: usize) {
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    let said = || world.said().iter().filter(|line| line.contains("it has said all")).count();
    let all = async {
        while said() < times {
            looks.tick().await;
        }
    };
    tokio::time::timeout(FLOODED, all).await.expect("the pipes are read whether a client reads or not");
}

#[tokio::test]
async fn what_servers_on_pipes_say_to_clients_that_do_not_read_is_bounded() {
    let world = World::start(&format!("{}{}", scripted("old", "legacy", ""), scripted("new", "modern", ""))).await;
    let (old, new) = (("/mcp/old", world.legacy("/mcp/old").await), ("/mcp/new", world.modern("/mcp/new")));
    let bridged = ("/mcp/new", world.legacy("/mcp/new").await);
    let mut silent = Vec::new();
    for (path, agent) in [&old, &new, &bridged] {
        silent.push(unread(&world, path, agent, "flood").await);
    }
    flooded(&world, silent.len()).await;
    let most = peak(&world);
    println!("{most} MB at most");
    assert!(most < MEGABYTES_UNDER_ATTACK, "{most} MB");
    world.says("a client reads too slowly").await;
    for (_, agent) in [&old, &new, &bridged] {
        let answer = agent.call("honest", json!({})).await;
        assert_eq!(answer["error"], Value::Null, "{answer}");
    }
    drop(silent);
}

#[tokio::test]
async fn an_answer_of_a_process_that_cannot_be_read_ends_its_call_at_once() {
    // Whoever waited for the deadline would wait for longer than a test does.
    let servers = [("old", "legacy"), ("new", "modern")].map(|(name, era)| scripted(name, era, ""));
    let world = World::with(&format!("bounds: {{ answer: 1MiB }}\nservers:\n{}", servers.concat()), world::ALL).await;
    let failed = async |agent: &Agent, tool: &str, expected: &str| {
        let reply = soon(agent.request("tools/call", json!({"name": tool, "arguments": {}}))).await;
        let call = call_of(&reply);
        let answer = soon(reply.json()).await;
        assert_eq!(answer["error"]["code"], -31006, "{tool}: {answer}");
        assert_eq!(outcome(&world.record(&call).await), format!("faulted {expected} forward"), "{tool}");
    };
    for path in ["/mcp/old", "/mcp/new"] {
        for agent in [world.legacy(path).await, world.modern(path)] {
            for (tool, _, expected) in KINDS {
                failed(&agent, tool, expected).await;
                // The process is as well as before.
                let answer = soon(agent.call("honest", json!({}))).await;
                assert_eq!(answer["error"], Value::Null, "{path} after {tool}: {answer}");
            }
        }
    }
    for path in ["/mcp/old", "/mcp/new"] {
        failed(&world.legacy(path).await, "endless", "upstream-too-big").await;
    }
    let most = peak(&world);
    assert!(most < MEGABYTES_UNDER_ATTACK, "{most} MB");
}
