//! Servers on standard input and output: whose process it is, what travels on the pipe, and that nothing stays behind.
//!
//! The server is this very test binary, started by the gateway with another purpose.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test expects and does not find fails it"
)]

mod rig;
mod world;

use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    io::{BufRead, Read, Write},
    path::Path,
};
use testkit::{Agent, schema, soon};
use world::World;

/// Configuration of a server that is this binary. `more` are further keys.
fn scripted(name: &str, eras: &str, more: &str) -> String {
    let program = std::env::current_exe().unwrap();
    format!(
        "  {name}: {{ command: [\"{}\", --exact, the_server_itself, --nocapture], env: {{ SPEAKS: \"{eras}\" }}{more} }}\n",
        program.display()
    )
}

/// Not a test unless the gateway starts it: then it is a server until its input ends.
#[test]
#[expect(clippy::disallowed_methods, reason = "the gateway says through the environment what this process is")]
fn the_server_itself() {
    let Ok(eras) = std::env::var("SPEAKS") else { return };
    if let Ok(gate) = std::env::var("GATE") {
        // It says nothing before the gate opens.
        let mut through = std::net::TcpStream::connect(gate).unwrap();
        through.read_exact(&mut [0]).unwrap();
    }
    let say = |text: &str| {
        let mut out = std::io::stdout().lock();
        out.write_all(format!("{text}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    };
    let mut has_grown = false;
    let mut asking = Value::Null;
    let mut introduced = !eras.contains("only");
    let mut spoken = None;
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        let id = &message["id"];
        spoken = schema::named(&message).or(spoken);
        // Whoever is told what its revision does not know ends, and its call with it.
        let faults = spoken.map(|revision| schema::faults(revision, &message, None)).unwrap_or_default();
        assert!(faults.is_empty(), "{line}: {faults:?}");
        introduced |= message["method"] == "initialize";
        if !introduced {
            // Old servers know nothing before `initialize`: some end, some say nothing.
            if eras.contains("exits") {
                std::process::exit(1);
            }
            continue;
        }
        let answer = |result: Value| say(&json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string());
        let done = |mut result: Value| {
            result["content"] = json!([]);
            result["resultType"] = json!("complete");
            answer(result);
        };
        let tool = |name: &str| json!({"name": name, "inputSchema": {"type": "object"}});
        match message["method"].as_str() {
            Some("initialize") if eras.contains("legacy") => answer(json!({
                "protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {"listChanged": true}},
                "serverInfo": {"name": "self", "version": "1"}})),
            Some("server/discover") if eras.contains("modern") => answer(json!({
                "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private",
                "resultType": "complete"})),
            Some("tools/list") => {
                let names = ["raw", "progress", "wait", "crash", "ask", "pid", "change", "token", "grown"];
                let names = &names[..if has_grown { 9 } else { 8 }];
                let tools: Vec<Value> = names.iter().copied().map(tool).collect();
                answer(json!({"tools": tools, "ttlMs": 0, "cacheScope": "private", "resultType": "complete"}));
            }
            Some("tools/call") => match message["params"]["name"].as_str().unwrap_or_default() {
                "raw" => done(json!({"line": line})),
                "progress" => {
                    let token = &message["params"]["_meta"]["progressToken"];
                    say(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}}).to_string());
                    done(json!({}));
                }
                "wait" => eprintln!("waiting with {}", message["params"]["arguments"]["word"]),
                "crash" => {
                    if let Some(word) = message["params"]["arguments"].get("word") {
                        say(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "error", "data": word}}).to_string());
                    }
                    eprintln!("falling");
                    std::process::exit(3);
                }
                "ask" => {
                    asking = id.clone();
                    say(
                        r#"{"jsonrpc":"2.0","id":"q-1","method":"sampling/createMessage","params":{"messages":[],"maxTokens":1,"n":1.0}}"#,
                    );
                }
                "change" => {
                    has_grown = true;
                    say(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#);
                    done(json!({}));
                }
                "token" => {
                    let token = std::env::var("TOKEN").unwrap_or_default();
                    done(json!({"pid": std::process::id(), "token": token}));
                }
                _ => done(json!({"pid": std::process::id()})),
            },
            Some("notifications/cancelled") => eprintln!("cancelled because {}", message["params"]["reason"]),
            Some(_) if id.is_null() => {}
            Some(_) => {
                say(&json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}}).to_string());
            }
            None => {
                say(&json!({"jsonrpc": "2.0", "id": asking, "result": {"content": [], "heard": message}}).to_string());
            }
        }
    }
    std::process::exit(0);
}

async fn both() -> World {
    World::start(&format!("{}{}", scripted("old", "legacy", ""), scripted("new", "modern", ""))).await
}

async fn pid(agent: &Agent) -> u64 {
    let answer = agent.call("pid", json!({})).await;
    answer["result"]["pid"].as_u64().unwrap_or_else(|| panic!("{answer}"))
}

fn runs(pid: u64) -> bool {
    Path::new(&format!("/proc/{pid}/stdin")).exists() || Path::new(&format!("/proc/{pid}/fd/0")).exists()
}

#[tokio::test]
async fn ids_and_tokens_come_back_as_they_were_written() {
    let world = both().await;
    let legacy = world.legacy("/mcp/old").await;
    let modern = world.modern("/mcp/new");
    for id in ["1", "\"1\"", "\"\\u0061\"", "9007199254740993", "-7", "\"x y\""] {
        let own = testkit::meta().to_string().replacen('{', ",", 1);
        for (agent, path, meta) in [(&legacy, "/mcp/old", "}"), (&modern, "/mcp/new", own.as_str())] {
            for token in ["5", "\"5\"", "\"\\u0062\""] {
                let body = format!(
                    "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\n\"params\":{{\"name\":\"progress\",\"_meta\":{{\"progressToken\":{token}{meta}}}}}"
                );
                let mut ask = world.post(path, &body);
                if let Some(session) = agent.session() {
                    ask = ask.header("mcp-session-id", session);
                } else {
                    ask = ask.header("mcp-protocol-version", testkit::MODERN);
                    ask = ask.header("mcp-method", "tools/call").header("mcp-name", "progress");
                }
                let mut reply = ask.send().await;
                assert_eq!(reply.header("content-type"), Some("text/event-stream"), "{body}");
                let progress = soon(reply.event()).await.unwrap().data;
                assert!(progress.contains(&format!("\"progressToken\":{token}")), "{progress}");
                let answer = soon(reply.event()).await.unwrap().data;
                assert!(answer.contains(&format!("\"id\":{id}")), "{answer}");
                assert!(soon(reply.event()).await.is_none());
            }
        }
    }
    // What is not an id or a token travels as it was sent; a line break is a blank on the pipe.
    let body = "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"tools/call\",\"params\":{\"name\":\"raw\",\n\"arguments\":{\"z\":1.0,\"a\":12345678901234567890,\"e\":\"\\u00e9\"}}}";
    let answer =
        world.post("/mcp/old", body).header("mcp-session-id", legacy.session().unwrap()).send().await.json().await;
    let line = answer["result"]["line"].as_str().unwrap();
    assert!(line.contains(r#" "arguments":{"z":1.0,"a":12345678901234567890,"e":"\u00e9"}"#), "{line}");
}

#[tokio::test]
async fn old_servers_are_asked_beside_the_process_that_serves() {
    let servers = [
        scripted("ends", "legacy only, exits", ""),
        scripted("mute", "legacy only, mute", ", deadline: 2s"),
        scripted("new", "modern", ""),
    ];
    let world = World::start(&servers.concat()).await;
    for name in ["ends", "mute"] {
        // The end of the one that was asked, and its silence, say what it speaks: both kinds of clients are served.
        let agent = world.legacy(&format!("/mcp/{name}")).await;
        let mine = pid(&agent).await;
        let modern = world.modern(&format!("/mcp/{name}"));
        let bridged = pid(&modern).await;
        assert_ne!(mine, bridged);
        assert_eq!((pid(&agent).await, pid(&modern).await), (mine, bridged), "nobody asks them in mid-work");
    }
    let agent = world.legacy("/mcp/new").await;
    assert_eq!(pid(&agent).await, pid(&world.modern("/mcp/new")).await, "one principal, one process of the new era");
    // Who was asked beside those that serve is gone.
    world.until(|| world.children() == 5).await;
    assert!(world.said().iter().all(|line| !line.contains("ended by itself")), "{:?}", world.said());
}

#[tokio::test]
async fn each_session_has_its_process_and_ends_with_it() {
    let world = both().await;
    world.until(|| world.children() == 0).await;
    let (first, second) = (world.legacy("/mcp/old").await, world.legacy("/mcp/old").await);
    let (one, two) = (pid(&first).await, pid(&second).await);
    assert_ne!(one, two);
    assert_eq!(pid(&first).await, one);
    world.until(|| world.children() == 2).await;
    assert_eq!(first.leave().await.status, 200);
    world.until(|| !runs(one)).await;
    assert_eq!(first.request("ping", json!({})).await.status, 404);
    assert_eq!(pid(&second).await, two);
    // In the modern era the process is the principal's.
    let modern = world.modern("/mcp/new");
    let alices = pid(&modern).await;
    assert_eq!(pid(&world.modern("/mcp/new")).await, alices);
    assert_ne!(pid(&Agent::modern(&world.url("/mcp/new"), Some(&world.bob))).await, alices);
    // And nothing survives the gateway.
    let (status, _folder) = world.stop().await;
    assert!(status.success());
    assert!(!runs(two) && !runs(alices));
}

#[tokio::test]
async fn nothing_survives_a_gateway_that_is_killed() {
    let world = both().await;
    let agent = world.legacy("/mcp/old").await;
    let child = pid(&agent).await;
    world.signal(Signal::KILL);
    // The end of its input is what tells it.
    world.until(|| !runs(child)).await;
}

#[tokio::test]
async fn a_process_that_falls_fails_its_calls_and_no_others() {
    let world = both().await;
    let (agent, other) = (world.legacy("/mcp/old").await, world.legacy("/mcp/old").await);
    let unharmed = pid(&other).await;
    let answer = soon(agent.call("crash", json!({}))).await;
    assert_eq!(answer["error"]["code"], -31006, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("old"), "{answer}");
    world.says("falling").await;
    let log = world.data().join("log");
    let mut outcome = Value::Null;
    world
        .until(|| {
            let crash = world::records(&log).into_iter().find(|record| record["target"] == "crash");
            outcome = crash.map_or(Value::Null, |record| record["outcome"]["is"].clone());
            !outcome.is_null()
        })
        .await;
    assert_eq!(outcome, "faulted");
    assert_eq!(pid(&other).await, unharmed);
    // The session goes on with a new process, after a moment.
    let mut again = agent.call("pid", json!({})).await;
    let mut turn = tokio::time::interval(std::time::Duration::from_millis(50));
    soon(async {
        while again.get("result").is_none() {
            turn.tick().await;
            again = agent.call("pid", json!({})).await;
        }
    })
    .await;
}

#[tokio::test]
async fn cancellations_arrive() {
    let world = both().await;
    let agent = world.legacy("/mcp/old").await;
    let call = json!({"jsonrpc": "2.0", "id": "w", "method": "tools/call", "params": {"name": "wait", "arguments": {"word": "legacy"}}});
    let waiting = tokio::spawn(agent.ask("tools/call", &call).send());
    world.says("waiting with").await;
    let params = json!({"requestId": "w", "reason": "enough"});
    assert_eq!(agent.notify("notifications/cancelled", params).await.status, 202);
    world.says("cancelled because").await;
    assert!(world.said().iter().any(|line| line.contains("enough")));
    waiting.abort();
    // A modern client just leaves.
    let modern = world.modern("/mcp/new");
    let waiting = tokio::spawn(async move { modern.call("wait", json!({"word": "modern"})).await });
    world.until(|| world.said().iter().any(|line| line.contains("waiting with") && line.contains("modern"))).await;
    let before = world.said().iter().filter(|line| line.contains("cancelled because")).count();
    waiting.abort();
    world.until(|| world.said().iter().filter(|line| line.contains("cancelled because")).count() > before).await;
}

#[tokio::test]
async fn a_long_silence_becomes_a_stream() {
    let world = both().await;
    let agent = world.legacy("/mcp/old").await;
    let reply = soon(agent.request("tools/call", json!({"name": "wait", "arguments": {"word": "long"}}))).await;
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
}

#[tokio::test]
async fn questions_and_news_reach_the_client() {
    let world = both().await;
    let agent = world.legacy("/mcp/old").await;
    let mut reply = agent.request("tools/call", json!({"name": "ask"})).await;
    let question = soon(reply.event()).await.unwrap();
    assert_eq!(
        question.data,
        r#"{"jsonrpc":"2.0","id":"q-1","method":"sampling/createMessage","params":{"messages":[],"maxTokens":1,"n":1.0}}"#
    );
    let said = r#"{"content":{"text":"hello","type":"text"},"model":"m","role":"assistant","v":1.0}"#;
    let answer = format!(r#"{{"jsonrpc":"2.0","id":"q-1","result":{said}}}"#);
    let post = || world.post("/mcp/old", &answer).header("mcp-session-id", agent.session().unwrap());
    assert_eq!(post().send().await.status, 202);
    let heard = soon(reply.json()).await;
    assert_eq!(heard["result"]["heard"]["result"].to_string(), said);
    assert_eq!(post().send().await.status, 400);

    let mut stream = agent.listen().await;
    assert_eq!(stream.status, 200);
    assert!(agent.call("change", json!({})).await.get("result").is_some());
    assert_eq!(soon(stream.event()).await.unwrap().json()["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn a_shared_process_keeps_its_users_apart() {
    let world = World::start(&scripted("old", "legacy", ", shared: true")).await;
    let alice = world.legacy("/mcp/old").await;
    let bob = Agent::legacy(&world.url("/mcp/old"), Some(&world.bob)).await;
    let process = pid(&alice).await;
    assert_eq!(pid(&bob).await, process);
    let all = world.legacy("/mcp").await.call("old__pid", json!({})).await;
    assert_eq!(all["result"]["pid"], process, "through the aggregate, too");
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "wait", "arguments": {"word": "shared"}}});
    let waiting = tokio::spawn(alice.ask("tools/call", &call).send());
    world.says("waiting with").await;
    // Bob has no request 1, so there is nothing that he could cancel.
    let cancel = |reason: &str| json!({"requestId": 1, "reason": reason});
    assert_eq!(bob.notify("notifications/cancelled", cancel("bob")).await.status, 202);
    // Nor does he hear what the server asks while two are served.
    let heard = soon(bob.call("ask", json!({}))).await;
    assert_eq!(heard["result"]["heard"]["error"]["code"], -32601, "{heard}");
    assert_eq!(alice.notify("notifications/cancelled", cancel("alice")).await.status, 202);
    world.says("cancelled because").await;
    let told: Vec<String> = world.said().into_iter().filter(|line| line.contains("cancelled because")).collect();
    assert!(told.len() == 1 && told[0].contains("alice"), "{told:?}");
    waiting.abort();
    // News for everybody reach everybody.
    let (mut one, mut two) = (alice.listen().await, bob.listen().await);
    assert!(alice.call("change", json!({})).await.get("result").is_some());
    for stream in [&mut one, &mut two] {
        assert_eq!(soon(stream.event()).await.unwrap().json()["method"], "notifications/tools/list_changed");
    }
    assert_eq!(alice.leave().await.status, 200);
    assert_eq!(pid(&bob).await, process, "it stays for the others");
}

#[tokio::test]
async fn nobody_cancels_a_request_of_another_on_a_shared_process_without_sessions() {
    let world = World::start(&scripted("new", "modern", ", shared: true")).await;
    let alice = world.modern("/mcp/new");
    let bob = Agent::modern(&world.url("/mcp/new"), Some(&world.bob));
    assert_eq!(pid(&alice).await, pid(&bob).await);
    // The request 7 of both.
    let params = json!({"name": "wait", "arguments": {"word": "shared"}, "_meta": testkit::meta()});
    let call = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params});
    let waiting = tokio::spawn(alice.ask("tools/call", &call).send());
    world.says("waiting with").await;
    let cancel = |reason: &str| json!({"requestId": 7, "reason": reason});
    for (agent, reason) in [(&bob, "bob"), (&alice, "alice")] {
        assert_eq!(agent.notify("notifications/cancelled", cancel(reason)).await.status, 202);
    }
    world.says("cancelled because").await;
    let told: Vec<String> = world.said().into_iter().filter(|line| line.contains("cancelled because")).collect();
    assert!(told.len() == 1 && told[0].contains("alice"), "{told:?}");
    waiting.abort();
}

#[tokio::test]
async fn a_process_that_closes_its_output_and_stays_fails_its_calls_at_once() {
    // The shell outlives the server, ends with nothing but force, and holds everything but the output.
    let shell = r#"command: [sh, -c, 'trap "" TERM; "$0" "$@"; exec >&-; sleep 60', "#;
    let world = World::start(&scripted("old", "legacy", "").replace("command: [", shell)).await;
    let agent = world.legacy("/mcp/old").await;
    let mut looks = tokio::time::interval(std::time::Duration::from_millis(20));
    for arguments in [json!({}), json!({"word": "woe"})] {
        let params = json!({"name": "crash", "arguments": arguments});
        let mut reply = soon(agent.request("tools/call", params)).await;
        let is_stream = reply.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
        if is_stream {
            // A call of which something was said already learns it, too.
            assert_eq!(soon(reply.event()).await.unwrap().json()["params"]["data"], "woe");
        }
        let answer = if is_stream { soon(reply.event()).await.unwrap().json() } else { soon(reply.json()).await };
        assert_eq!(answer["error"]["code"], -31006, "{answer}");
        assert_eq!(is_stream, arguments.get("word").is_some());
        // Another one is started once the pause after the fall is over.
        while agent.call("pid", json!({})).await.get("error").is_some() {
            looks.tick().await;
        }
    }
    drop(agent.leave().await);
    world.until(|| world.children() == 0).await;
}

#[tokio::test]
async fn a_live_session_follows_a_reload_to_a_new_process() {
    let world = both().await;
    let agent = world.legacy("/mcp/old").await;
    let before = pid(&agent).await;
    let servers = format!("servers:\n{}{}", scripted("old", "legacy again", ""), scripted("new", "modern", ""));
    world.reload(&servers).await;
    assert_ne!(pid(&agent).await, before);
    world.until(|| !runs(before)).await;
    // A server that is gone takes its processes with it.
    world.reload(&format!("servers:\n{}", scripted("new", "modern", ""))).await;
    world.until(|| world.children() == 0).await;
    assert_eq!(agent.request("ping", json!({})).await.status, 404);
}

#[tokio::test]
async fn a_shared_process_of_yesterday_ends_though_somebody_listens_since_then() {
    let world = World::start(&scripted("old", "legacy", ", shared: true")).await;
    let agent = world.legacy("/mcp/old").await;
    let before = pid(&agent).await;
    let stream = agent.listen().await;
    world.reload(&format!("servers:\n{}", scripted("old", "legacy again", ", shared: true"))).await;
    assert_ne!(pid(&agent).await, before);
    world.until(|| !runs(before)).await;
    drop(stream);
}

/// A door that server processes wait at until it is opened.
struct Gate {
    address: std::net::SocketAddr,
    open: std::sync::Arc<(std::sync::Mutex<bool>, std::sync::Condvar)>,
}

impl Gate {
    fn closed() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let open = std::sync::Arc::new((std::sync::Mutex::new(false), std::sync::Condvar::new()));
        let shared = std::sync::Arc::clone(&open);
        std::thread::spawn(move || {
            for mut comer in listener.incoming().map_while(Result::ok) {
                let shared = std::sync::Arc::clone(&shared);
                std::thread::spawn(move || {
                    let guard = shared.1.wait_while(shared.0.lock().unwrap(), |open| !*open).unwrap();
                    drop(guard);
                    // One that was stopped meanwhile does not hear it.
                    let _ = comer.write_all(b".");
                });
            }
        });
        Self { address, open }
    }

    fn open(&self) {
        *self.open.0.lock().unwrap() = true;
        self.open.1.notify_all();
    }
}

#[tokio::test]
async fn a_process_that_hangs_costs_its_own_entries_and_joins_when_it_speaks() {
    let gates = [Gate::closed(), Gate::closed()];
    let slow = |name: &str, gate: &Gate| {
        scripted(name, "legacy", "").replace("env: {", &format!("env: {{ GATE: \"{}\",", gate.address))
    };
    let others = testkit::Upstream::with_tools(["read"]).await;
    let servers = format!("{}{}{}", world::http("files", &others), slow("one", &gates[0]), slow("two", &gates[1]));
    let world = World::start(&servers).await;
    // Two that hang cost no more time than one.
    let begun = std::time::Instant::now();
    let agent = world.legacy("/mcp").await;
    let answer = agent.request("tools/list", json!({})).await.json().await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(names(&answer), ["files__read"]);
    let missing = answer["result"]["_meta"]["durward/unavailable"].as_array().unwrap();
    let servers: Vec<&Value> = missing.iter().map(|entry| &entry["server"]).collect();
    assert_eq!(servers, ["one", "two"], "{answer}");
    assert!(missing[0]["reason"].as_str().unwrap().contains("not said yet"), "{answer}");
    // While they are looked at nobody waits for them again.
    let begun = std::time::Instant::now();
    assert!(agent.call("files__read", json!({})).await.get("result").is_some());
    assert!(begun.elapsed() < std::time::Duration::from_secs(1), "{:?}", begun.elapsed());
    // What was advertised does not depend on who was quick; and whoever listens hears when they are there.
    let mut stream = agent.listen().await;
    gates[1].open();
    assert_eq!(patient(stream.event()).await.unwrap().json()["method"], "notifications/tools/list_changed");
    let answer = agent.request("tools/list", json!({})).await.json().await;
    assert!(names(&answer).contains(&"two__raw".to_owned()), "{answer}");
    assert!(agent.call("two__pid", json!({})).await["result"]["pid"].is_number());
}

fn names(answer: &Value) -> Vec<String> {
    let tools = answer["result"]["tools"].as_array().unwrap();
    tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

/// A process is given five seconds to speak the modern protocol before it is asked in the other one.
async fn patient<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(std::time::Duration::from_secs(30), what).await.unwrap()
}

#[tokio::test]
async fn a_rotated_secret_retires_the_process_that_has_the_old_one() {
    let secret = ", credential: { env: TOKEN, secret: token }";
    let servers = format!("servers:\n{}{}", scripted("old", "legacy", secret), scripted("new", "modern", secret));
    let world = rig::with_secrets(&servers, world::ALL, &[("token", "first")]).await;
    for agent in [world.legacy("/mcp/old").await, world.modern("/mcp/new")] {
        let before = agent.call("token", json!({})).await["result"].clone();
        let value = if before["token"] == "first" { "second" } else { "third" };
        rig::rotate(&world, "token", value).await;
        let after = agent.call("token", json!({})).await["result"].clone();
        assert_eq!(after["token"], value, "{after}");
        assert_ne!(after["pid"], before["pid"]);
        world.until(|| !runs(before["pid"].as_u64().unwrap())).await;
        assert_eq!(agent.call("token", json!({})).await["result"]["pid"], after["pid"], "and that one stays");
    }
}

#[tokio::test]
async fn the_aggregate_reaches_processes_too() {
    let world = both().await;
    let legacy = world.legacy("/mcp").await;
    let modern = world.modern("/mcp");
    let listed = legacy.tools().await;
    assert!(["old__raw", "new__raw"].iter().all(|tool| listed.iter().any(|name| name == tool)), "{listed:?}");
    assert!(modern.tools().await.iter().any(|name| name == "new__raw"));
    for tool in ["old__pid", "new__pid"] {
        assert!(legacy.call(tool, json!({})).await["result"]["pid"].is_number(), "{tool}");
    }
    assert!(modern.call("new__pid", json!({})).await["result"]["pid"].is_number());
    let mut stream = legacy.listen().await;
    assert!(legacy.call("old__change", json!({})).await.get("result").is_some());
    assert_eq!(soon(stream.event()).await.unwrap().json()["method"], "notifications/tools/list_changed");
}
