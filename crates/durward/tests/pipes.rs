//! Hostile peers at connections that last: servers on pipes, and clients that do not read what those say. What they send
//! stays inside the stated bounds, and honest ones are served meanwhile.
//!
//! The server is this very test binary, started by the gateway with another purpose.
#![expect(
    clippy::expect_used,
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
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use testkit::{Agent, Answer, Ask, Feed, Received, Streamer, Upstream, meta, soon};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use world::World;

/// The stated bound of memory, for a build with debug assertions.
const MEGABYTES_UNDER_ATTACK: u64 = 256;
/// How long a flood may take.
const FLOODED: Duration = Duration::from_secs(90);
/// What one call floods with: messages of so many bytes.
const FLOOD: (usize, usize) = (40, 3 << 20);

/// A tool, what it results in, and what the log says of that.
type Kind = (&'static str, fn() -> Vec<u8>, &'static str);

/// What a server of 2024-11-05 says on its stream to a request.
type Saying = Box<dyn Fn(&Received) -> Vec<Vec<u8>> + Send + Sync>;

/// Results that nobody can read, by the name of the tool that gives them, and what the log says of each.
const KINDS: [Kind; 8] = [
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
                        write(&b"x".repeat(1 << 16));
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
    let head = if let Some(session) = agent.session() {
        format!("mcp-session-id: {session}")
    } else {
        params["_meta"].as_object_mut().unwrap().extend(meta().as_object().unwrap().clone());
        format!("mcp-protocol-version: {}\r\nmcp-method: tools/call\r\nmcp-name: {tool}", testkit::MODERN)
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

/// A server of 2024-11-05, the streams of which are scripted: `said` is what it says to a call.
async fn old_server(said: impl Fn(&Received) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Upstream {
    let upstream = Upstream::start().await;
    upstream.speaks("2024-11-05");
    let streams = Arc::new(Mutex::new(Vec::<Feed>::new()));
    let opened = Arc::clone(&streams);
    upstream.always("GET", move |_| {
        let (answer, feed) = Answer::events();
        let mut opened = opened.lock().unwrap();
        let first = format!("event: endpoint\ndata: /messages?sessionId={}\n\n", opened.len());
        opened.push(feed.clone());
        tokio::spawn(async move { feed.raw(first).await });
        answer
    });
    let say = |name: &str, what: Saying| {
        let streams = Arc::clone(&streams);
        upstream.always(name, move |received| {
            let Some((_, session)) = received.path.split_once("sessionId=") else {
                return Answer::status(http::StatusCode::METHOD_NOT_ALLOWED);
            };
            let feed = streams.lock().unwrap()[session.parse::<usize>().unwrap()].clone();
            let said = what(received);
            tokio::spawn(async move {
                for piece in said {
                    feed.raw(piece).await;
                }
            });
            Answer::status(http::StatusCode::ACCEPTED)
        });
    };
    let hello = json!({"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}, "serverInfo": {"name": "old", "version": "1"}});
    let tools = json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]});
    for (method, result) in [("initialize", hello), ("tools/list", tools), ("ping", json!({}))] {
        say(method, Box::new(move |received| vec![event(&received.id(), &result.to_string())]));
    }
    for method in ["notifications/initialized", "notifications/cancelled"] {
        say(method, Box::new(|_| Vec::new()));
    }
    say("tools/call", Box::new(said));
    upstream
}

/// A response, as an event.
fn event(id: &Value, result: &str) -> Vec<u8> {
    format!("event: message\ndata: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}\n\n").into_bytes()
}

fn lasting(name: &str, upstream: &Upstream) -> String {
    format!("  {name}: {{ url: \"{}\", internal: true, transport: sse }}\n", upstream.url())
}

#[tokio::test]
async fn what_servers_of_2024_say_to_clients_that_do_not_read_is_bounded() {
    let upstream = old_server(|received| {
        let token = received.json()["params"]["_meta"]["progressToken"].clone();
        let filler = "z".repeat(FLOOD.1);
        let progress = |turn: usize| {
            format!(
                "data: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{{\"progressToken\":{token},\"progress\":{turn},\"message\":\"{filler}\"}}}}\n\n"
            )
            .into_bytes()
        };
        let flood = if token.is_null() { 0 } else { FLOOD.0 };
        (0..flood).map(progress).chain([event(&received.id(), r#"{"content":[]}"#)]).collect()
    })
    .await;
    let world = World::start(&lasting("old", &upstream)).await;
    let (legacy, modern) = (world.legacy("/mcp/old").await, world.modern("/mcp/old"));
    let silent = [unread(&world, "/mcp/old", &legacy, "echo").await, unread(&world, "/mcp/old", &modern, "echo").await];
    // The next answer of the same stream comes behind the flood.
    for agent in [&legacy, &modern] {
        let answer = tokio::time::timeout(FLOODED, agent.call("echo", json!({}))).await.expect("the stream is read");
        assert_eq!(answer["error"], Value::Null, "{answer}");
    }
    let most = peak(&world);
    println!("{most} MB at most");
    assert!(most < MEGABYTES_UNDER_ATTACK, "{most} MB");
    world.says("a client reads too slowly").await;
    drop(silent);
}

#[tokio::test]
async fn hostile_answers_of_servers_of_2024_end_their_calls() {
    let turn = AtomicUsize::new(0);
    let upstream = old_server(move |received| {
        let id = received.id();
        let text = |text: String| event(&id, &format!(r#"{{"text":"{text}"}}"#));
        match turn.fetch_add(1, Ordering::SeqCst) {
            0 => vec![text("x".repeat(2 << 20))],
            // An event without end, in lines that have one.
            1 => vec![b"data: xxxxxxxxxxxxxxxx\n".repeat(1 << 12); 64],
            // A line without end.
            2 => std::iter::once(b"data: ".to_vec()).chain(vec![vec![b'x'; 1 << 16]; 64]).collect(),
            3 => vec![event(&id, &format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)))],
            4 => vec![event(&id, r#"{"content":[],"a":1,"a":2}"#)],
            // Byte by byte is slow, and no harm.
            5 => event(&id, r#"{"content":[]}"#).into_iter().map(|byte| vec![byte]).collect(),
            _ => vec![event(&id, r#"{"content":[]}"#)],
        }
    })
    .await;
    let world =
        World::with(&format!("bounds: {{ answer: 1MiB }}\nservers:\n{}", lasting("old", &upstream)), world::ALL).await;
    let agent = world.legacy("/mcp/old").await;
    for expected in ["too-big", "too-big", "too-big", "protocol", "protocol", "", ""] {
        let reply = soon(agent.request("tools/call", json!({"name": "echo", "arguments": {}}))).await;
        let (call, answer) = (call_of(&reply), soon(reply.json()).await);
        assert_eq!(answer["error"].is_null(), expected.is_empty(), "{answer}");
        let outcome = outcome(&world.record(&call).await);
        assert!(outcome.contains(expected), "{outcome}");
    }
    assert!(peak(&world) < MEGABYTES_UNDER_ATTACK);
}

#[tokio::test]
async fn clients_of_2024_send_no_more_than_others_and_hold_up_nobody() {
    let world = World::with(
        &format!("bounds: {{ body: 64KiB, depth: 16 }}\nservers:\n{}", scripted("old", "legacy", "")),
        world::ALL,
    )
    .await;
    let (mut client, _) = Streamer::begin(&world.url("/sse/old"), Some(&world.alice)).await;
    let call = |arguments: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"honest","arguments":{arguments}}}}}"#
        )
    };
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(40), "]".repeat(40));
    for (what, body, status) in [
        ("too large", call(&format!("{{\"a\":\"{}\"}}", "x".repeat(70_000))), 413),
        ("too deep", call(&deep), 400),
        ("twice the same key", call(r#"{"a":1,"\u0061":2}"#), 400),
        ("a lone surrogate", call(r#"{"a":"\ud800"}"#), 400),
    ] {
        let reply = Ask::post(client.address(), body).bearer(&world.alice).send().await;
        assert_eq!(reply.status.as_u16(), status, "{what}");
    }
    let answer = client.request("tools/call", json!({"name": "honest", "arguments": {}})).await;
    assert_eq!(answer["error"], Value::Null, "{answer}");
    // It reads nothing of what floods it.
    let flood = json!({"name": "flood", "arguments": {}, "_meta": {"progressToken": "mine"}});
    client.send("tools/call", flood).await;
    flooded(&world, 1).await;
    let most = peak(&world);
    println!("{most} MB at most");
    assert!(most < MEGABYTES_UNDER_ATTACK, "{most} MB");
    let other = world.legacy("/mcp/old").await;
    let answer = soon(other.call("honest", json!({}))).await;
    assert_eq!(answer["error"], Value::Null, "{answer}");
}
