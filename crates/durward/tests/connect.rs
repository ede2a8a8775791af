//! `durward connect` between a client that has only pipes and a gateway: the real binary at both ends, both eras.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what a test expects and does not find fails it"
)]

#[path = "connect/hostile.rs"]
mod hostile;
#[path = "connect/keyring.rs"]
mod keyring;
#[path = "connect/refusal.rs"]
mod refusal;
#[path = "connect/relay.rs"]
mod relay;
#[path = "connect/restart.rs"]
mod restart;
#[path = "connect/socket.rs"]
mod socket;
#[path = "connect/stranger.rs"]
mod stranger;
#[path = "connect/unread.rs"]
mod unread;
mod world;

use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use testkit::{Answer, MODERN, Upstream, free_port, meta, schema, soon};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::watch,
};
use world::World;

const LEGACY: &str = "2025-11-25";

/// A client that has started `durward connect`.
struct Client {
    process: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    talk: Arc<Mutex<Vec<String>>>,
    talked: watch::Receiver<usize>,
    lines: schema::Lines,
    _judge: schema::Judge,
}

#[expect(clippy::disallowed_methods, reason = "a test starts the product")]
fn command(url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_durward"));
    command.args(["connect", url]);
    for variable in ["DURWARD_KEY", "DURWARD_KEY_FILE", "DURWARD_SOCKET", "DURWARD_CA_FILE"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

impl Client {
    fn start(url: &str, key: Option<&str>) -> Self {
        let mut command = command(url);
        if let Some(key) = key {
            command.env("DURWARD_KEY", key);
        }
        Self::run(command)
    }

    fn run(mut command: Command) -> Self {
        let mut process = command.spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut stderr = BufReader::new(process.stderr.take().unwrap()).lines();
        let (sender, talked) = watch::channel(0);
        let talk = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&talk);
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                sink.lock().unwrap().push(line);
                sender.send_modify(|count| *count += 1);
            }
        });
        let (lines, judge) = (schema::Lines::default(), schema::judge());
        Self { input: process.stdin.take(), process, output, talk, talked, lines, _judge: judge }
    }

    /// A client with a session.
    async fn legacy(url: &str, key: Option<&str>) -> Self {
        let mut client = Self::start(url, key);
        let answer = client.initialize().await;
        assert_eq!(answer["result"]["protocolVersion"], LEGACY, "{answer}");
        client
    }

    async fn initialize(&mut self) -> Value {
        let answer = self.ask("hello", "initialize", hello()).await;
        if answer.get("result").is_some() {
            self.write(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
        }
        answer
    }

    async fn write(&mut self, line: &str) {
        self.lines.said(line);
        let input = self.input.as_mut().unwrap();
        soon(async {
            input.write_all(line.as_bytes()).await.unwrap();
            input.write_all(b"\n").await.unwrap();
            input.flush().await.unwrap();
        })
        .await;
    }

    async fn send(&mut self, message: &Value) {
        self.write(&message.to_string()).await;
    }

    /// The next line; it is JSON, as everything on stdout.
    async fn line(&mut self) -> String {
        let line = soon(self.output.next_line()).await.unwrap().expect("it still talks");
        assert!(serde_json::from_str::<Value>(&line).is_ok(), "{line}");
        self.lines.heard(&line);
        line
    }

    async fn hear(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }

    /// A request, and its answer: the next message that is one.
    async fn ask(&mut self, id: impl Into<Value>, method: &str, params: Value) -> Value {
        self.send(&request(id, method, params)).await;
        loop {
            let heard = self.hear().await;
            if heard.get("method").is_none() {
                return heard;
            }
        }
    }

    async fn call(&mut self, id: u64, arguments: Value) -> Value {
        self.ask(id, "tools/call", json!({ "name": "echo", "arguments": arguments })).await
    }

    /// Waits for a line on stderr, and gives all that came until then.
    async fn says(&mut self, text: &str) -> Vec<String> {
        soon(async {
            loop {
                self.talked.borrow_and_update();
                let talk = self.talk.lock().unwrap().clone();
                if talk.iter().any(|line| line.contains(text)) {
                    return talk;
                }
                assert!(self.talked.changed().await.is_ok(), "it never said {text:?}: {talk:?}");
            }
        })
        .await
    }

    /// Ends the input; gives the exit code, what else was said on stdout, and stderr.
    async fn end(mut self) -> (Option<i32>, Vec<Value>, String) {
        drop(self.input.take());
        let status = self.ended().await;
        let mut rest = Vec::new();
        while let Some(line) = soon(self.output.next_line()).await.unwrap() {
            rest.push(serde_json::from_str(&line).unwrap());
        }
        soon(async { while self.talked.changed().await.is_ok() {} }).await;
        let talk = self.talk.lock().unwrap().join("\n");
        (status.code(), rest, talk)
    }

    async fn ended(&mut self) -> ExitStatus {
        soon(self.process.wait()).await.unwrap()
    }
}

fn hello() -> Value {
    let capabilities = json!({ "elicitation": {}, "sampling": {}, "roots": {} });
    json!({ "protocolVersion": LEGACY, "capabilities": capabilities, "clientInfo": { "name": "pipes", "version": "1" } })
}

fn request(id: impl Into<Value>, method: &str, params: Value) -> Value {
    let mut request = json!({ "jsonrpc": "2.0", "id": id.into(), "method": method });
    request["params"] = params;
    request
}

fn modern(id: impl Into<Value>, method: &str, mut params: Value) -> Value {
    params["_meta"] = meta();
    request(id, method, params)
}

fn cancelled(id: impl Into<Value>) -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id.into() } })
}

/// A call with empty arguments, as it is written.
fn call_of_echo(id: u64) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"echo","arguments":{{}}}}}}"#)
}

/// The most that was ever resident of a process, in megabytes.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// The requests that came from the client, not from the gateway on its own account.
fn relayed(upstream: &Upstream, name: &str) -> Vec<testkit::Received> {
    upstream.seen(name).into_iter().filter(|seen| seen.header("durward-call-id").is_some()).collect()
}

/// Waits until the log knows of a call of this agent.
async fn called(world: &World, agent: &str) {
    let log = world.data().join("log");
    world.until(|| world::records(&log).iter().any(|record| record["agent"] == agent)).await;
}

#[tokio::test]
async fn a_session_through_pipes_is_the_session_of_the_gateway() {
    let upstream = Upstream::start().await;
    let world = World::start(&world::http("files", &upstream)).await;
    let mut client = Client::legacy(&world.url("/mcp/files"), Some(&world.alice)).await;
    assert_eq!(client.ask(1, "tools/list", json!({})).await["result"]["tools"][0]["name"], "echo");

    // What is said passes as it was written, both ways.
    let question = r#"{ "jsonrpc": "2.0","id":"\u0061\/", "method":"tools/call","params":{"arguments":{"n":1.0,"big":9007199254740993},"name":"echo"},"x":[ 1e2 ] }"#;
    let answer =
        r#"{"result": {"content":[],"n":1.0,"e":1e2,"big":9007199254740993},  "id":"\u0061\/","jsonrpc":"2.0"}"#;
    upstream.next("tools/call", Answer::json(answer));
    client.write(question).await;
    assert_eq!(client.line().await, answer);
    let seen = upstream.arrived("tools/call", 1).await;
    assert_eq!(seen.body, question);
    assert_eq!(seen.header("mcp-protocol-version"), Some(LEGACY));

    let (code, rest, talk) = client.end().await;
    assert_eq!((code, rest.as_slice(), talk.as_str()), (Some(0), &[][..], ""));
    upstream.arrived("DELETE", 1).await;
    assert_eq!(relayed(&upstream, "initialize").len(), 1);
    assert_eq!(relayed(&upstream, "notifications/initialized").len(), 1);
}

#[tokio::test]
async fn everything_on_a_line_at_once_is_answered_in_a_session() {
    let upstream = Upstream::start().await;
    let world = World::start(&world::http("files", &upstream)).await;
    // A script does not wait for answers: what follows a handshake waits for it here.
    let mut client = Client::start(&world.url("/mcp"), Some(&world.alice));
    let text = [
        request(1, "initialize", hello()).to_string(),
        json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string(),
        request(2, "tools/list", json!({})).to_string(),
    ];
    client.write(&text.join("\n")).await;
    let (code, rest, talk) = client.end().await;
    assert_eq!(code, Some(0), "{talk}");
    assert_eq!(rest.len(), 2, "{rest:?}");
    assert_eq!(rest[1]["result"]["tools"][0]["name"], "files__echo");
}

#[tokio::test]
async fn progress_and_questions_come_and_answers_go_back() {
    let upstream = Upstream::start().await;
    let world = World::start(&world::http("files", &upstream)).await;
    let mut client = Client::legacy(&world.url("/mcp/files"), Some(&world.alice)).await;
    let (answer, feed) = Answer::events();
    upstream.next("tools/call", answer);
    let call = json!({ "name": "echo", "arguments": {}, "_meta": { "progressToken": "p" } });
    client.send(&request(1, "tools/call", call)).await;
    upstream.arrived("tools/call", 1).await;

    let progress = json!({ "progressToken": "p", "progress": 1 });
    feed.message(&json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": progress })).await;
    assert_eq!(client.hear().await["params"], progress);
    let params = json!({ "message": "Who?", "requestedSchema": { "type": "object", "properties": {} } });
    feed.message(&request("q", "elicitation/create", params.clone())).await;
    let question = client.hear().await;
    assert_eq!((&question["method"], &question["params"]), (&"elicitation/create".into(), &params));
    client
        .send(&json!({ "jsonrpc": "2.0", "id": question["id"], "result": { "action": "accept", "content": {} } }))
        .await;
    let told = upstream.arrived("response", 1).await.json();
    assert_eq!((&told["id"], &told["result"]["action"]), (&"q".into(), &"accept".into()));
    feed.message(&json!({ "jsonrpc": "2.0", "id": 1, "result": { "content": [] } })).await;
    assert_eq!(client.hear().await["id"], 1);
    assert_eq!(client.end().await.0, Some(0));
}

#[tokio::test]
async fn the_gateway_may_speak_unasked() {
    let upstream = Upstream::start().await;
    let (answer, feed) = Answer::events();
    upstream.next("GET", answer);
    let world = World::start(&world::http("files", &upstream)).await;
    let mut client = Client::legacy(&world.url("/mcp/files"), Some(&world.alice)).await;
    upstream.arrived("GET", 1).await;
    feed.message(&json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" })).await;
    assert_eq!(client.hear().await["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn a_broken_stream_is_taken_up_where_it_broke() {
    let upstream = Upstream::start().await;
    let note = |n: u64| {
        format!("id: e{n}\nretry: 10\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"n\",\"params\":{{\"n\":{n}}}}}\n\n")
    };
    let (first, second) = (Answer::event_text(note(1)), Answer::event_text(note(2)));
    upstream.next("GET", first).next("GET", second);
    let mut client = Client::legacy(&upstream.url(), None).await;
    assert_eq!(client.hear().await["params"]["n"], 1);
    assert_eq!(client.hear().await["params"]["n"], 2);
    let seen = upstream.arrived("GET", 3).await;
    assert_eq!(seen.header("last-event-id"), Some("e2"));
    assert!(seen.header("mcp-session-id").unwrap().starts_with("fake-session"));
    assert_eq!(upstream.seen("GET")[0].header("last-event-id"), None);

    // So is the stream of a call, and the answer comes once.
    upstream.next("tools/call", Answer::event_text("id: c1\nretry: 10\ndata:\n\n"));
    let answer = r#"{"jsonrpc":"2.0","id":5,"result":{"content":[]}}"#;
    upstream.always("GET", move |seen| match seen.header("last-event-id") {
        Some("c1") => Answer::event_text(format!("id: c2\ndata: {answer}\n\ndata: {answer}\n\n")),
        _ => Answer::status(StatusCode::METHOD_NOT_ALLOWED),
    });
    assert_eq!(client.call(5, json!({})).await, serde_json::from_str::<Value>(answer).unwrap());
    let (code, rest, _) = client.end().await;
    assert_eq!((code, rest), (Some(0), vec![]));
}

#[tokio::test]
async fn a_stream_of_the_gateway_that_is_cut_is_taken_up_where_it_broke() {
    let upstream = Upstream::start().await;
    let world = World::start(&world::http("files", &upstream)).await;
    let relay = relay::Relay::before(world.address.to_string()).await;
    let url = format!("http://{}/mcp", relay.address);
    let mut client = Client::legacy(&url, Some(&world.alice)).await;
    let (answer, feed) = Answer::events();
    upstream.next("tools/call", answer);
    let params = json!({ "name": "files__echo", "arguments": {}, "_meta": { "progressToken": "t" } });
    client.send(&request(5, "tools/call", params)).await;
    let id = upstream.arrived("tools/call", 1).await.id();
    let progress = |n: u64| json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": "t", "progress": n } });
    feed.message(&progress(1)).await;
    assert_eq!(client.hear().await["params"]["progress"], 1);
    // What is said while the network is away comes when it is back, in order and once.
    for n in [2, 4] {
        relay.cut();
        feed.message(&progress(n)).await;
        feed.message(&progress(n + 1)).await;
        assert_eq!(client.hear().await["params"]["progress"], n);
        assert_eq!(client.hear().await["params"]["progress"], n + 1);
    }
    relay.cut();
    feed.message(&json!({ "jsonrpc": "2.0", "id": id, "result": { "content": [] } })).await;
    drop(feed);
    let last = client.hear().await;
    assert_eq!((&last["id"], &last["result"]["content"]), (&json!(5), &json!([])), "{last}");
    assert_eq!(upstream.seen("tools/call").len(), 1, "the server was called once");
    let (code, rest, _) = client.end().await;
    assert_eq!((code, rest), (Some(0), vec![]));
}

#[tokio::test]
async fn a_question_stays_open_where_the_stream_of_its_call_is_taken_up_again() {
    let upstream = Upstream::start().await;
    let world = World::start(&world::http("files", &upstream)).await;
    let relay = relay::Relay::before(world.address.to_string()).await;
    let mut client = Client::legacy(&format!("http://{}/mcp", relay.address), Some(&world.alice)).await;
    let (answer, feed) = Answer::events();
    upstream.next("tools/call", answer);
    let params = json!({ "name": "files__echo", "arguments": {}, "_meta": { "progressToken": "t" } });
    client.send(&request(5, "tools/call", params)).await;
    let id = upstream.arrived("tools/call", 1).await.id();
    let params = json!({ "message": "Who?", "requestedSchema": { "type": "object", "properties": {} } });
    feed.message(&request("q", "elicitation/create", params)).await;
    let question = client.hear().await;
    assert_eq!(question["method"], "elicitation/create");
    relay.cut();
    let progress = json!({ "progressToken": "t", "progress": 1 });
    feed.message(&json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": progress })).await;
    loop {
        let heard = client.hear().await;
        assert_ne!(heard["method"], "notifications/cancelled", "{heard}");
        if heard["method"] == "notifications/progress" {
            break;
        }
    }
    client.send(&json!({ "jsonrpc": "2.0", "id": question["id"], "result": { "action": "decline" } })).await;
    assert_eq!(upstream.arrived("response", 1).await.json()["id"], "q");
    feed.message(&json!({ "jsonrpc": "2.0", "id": id, "result": { "content": [] } })).await;
    while client.hear().await["id"] != 5 {}
    let (code, rest, _) = client.end().await;
    assert_eq!((code, rest), (Some(0), vec![]));
}

#[tokio::test]
async fn a_cancelled_call_ends_at_the_server_in_either_era() {
    let upstream = Upstream::start().await;
    let world = World::start(&world::http("files", &upstream)).await;
    let url = world.url("/mcp/files");
    let mut legacy = Client::legacy(&url, Some(&world.alice)).await;
    let (answer, feed) = Answer::events();
    upstream.next("tools/call", answer);
    legacy.send(&request(7, "tools/call", json!({ "name": "echo", "arguments": {} }))).await;
    upstream.arrived("tools/call", 1).await;
    legacy.send(&cancelled(7)).await;
    let told = upstream.arrived("notifications/cancelled", 1).await.json();
    assert_eq!(told["params"]["requestId"], 7);
    soon(feed.closed()).await;

    let mut modern_one = Client::start(&url, Some(&world.alice));
    let (answer, feed) = Answer::events();
    upstream.next("tools/call", answer);
    modern_one.send(&modern(7, "tools/call", json!({ "name": "echo", "arguments": {} }))).await;
    upstream.arrived("tools/call", 2).await;
    modern_one.send(&cancelled(7)).await;
    soon(feed.closed()).await;
    for client in [legacy, modern_one] {
        let (code, rest, talk) = client.end().await;
        assert_eq!((code, rest), (Some(0), vec![]), "what is cancelled is not answered: {talk}");
    }
    assert_eq!(upstream.seen("notifications/cancelled").len(), 1, "a modern stream is closed instead");
}

#[tokio::test]
async fn modern_requests_carry_what_the_revision_wants() {
    let upstream = Upstream::start().await;
    let region = json!({ "type": "string", "x-mcp-header": "Region" });
    let schema = json!({ "type": "object", "properties": { "region": region } });
    upstream.set_tools(vec![json!({ "name": "echo", "description": "d", "inputSchema": schema })]);
    let world = World::start(&world::http("files", &upstream)).await;
    let mut client = Client::start(&world.url("/mcp/files"), Some(&world.alice));
    client.send(&modern("d", "server/discover", json!({}))).await;
    assert_eq!(client.hear().await["id"], "d");
    client.send(&modern(1, "tools/list", json!({}))).await;
    assert_eq!(client.hear().await["result"]["tools"][0]["name"], "echo");

    let (answer, feed) = Answer::events();
    upstream.next("tools/call", answer);
    let params = json!({ "name": "echo", "arguments": { "region": "eü" } });
    client.send(&modern(2, "tools/call", params)).await;
    let seen = upstream.arrived("tools/call", 1).await;
    for (name, value) in [("mcp-protocol-version", MODERN), ("mcp-method", "tools/call"), ("mcp-name", "echo")] {
        assert_eq!(seen.header(name), Some(value));
    }
    assert_eq!(seen.header("mcp-param-region"), Some("=?base64?ZcO8?="));
    assert_eq!(seen.header("mcp-session-id"), None);
    let progress = json!({ "progressToken": "p", "progress": 1 });
    feed.message(&json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": progress })).await;
    assert_eq!(client.hear().await["method"], "notifications/progress");
    feed.message(&json!({ "jsonrpc": "2.0", "id": 2, "result": { "resultType": "complete", "content": [] } })).await;
    assert_eq!(client.hear().await["result"]["resultType"], "complete");
    let (code, rest, talk) = client.end().await;
    assert_eq!((code, rest, talk.as_str()), (Some(0), vec![], ""));
}

#[tokio::test]
async fn a_call_of_a_tool_that_was_never_listed_carries_its_headers() {
    let upstream = Upstream::start().await;
    let region = json!({ "type": "string", "x-mcp-header": "Region" });
    let schema = json!({ "type": "object", "properties": { "region": region } });
    let tool = move |name: &str| json!({ "name": name, "description": "d", "inputSchema": schema });
    upstream.set_tools(vec![tool("echo")]);
    let world = World::start(&world::http("files", &upstream)).await;
    let mut client = Client::start(&world.url("/mcp"), Some(&world.alice));
    let mut call = async |id: u64| {
        let params = json!({ "name": "files__echo", "arguments": { "region": "eu" }, "_meta": {} });
        client.send(&modern(id, "tools/call", params)).await;
        client.hear().await
    };
    for id in [1, 2] {
        let answer = call(id).await;
        assert!(answer["result"]["content"].is_array() && answer["id"] == id, "{answer}");
    }
    for seen in upstream.seen("tools/call") {
        assert_eq!(seen.header("mcp-param-region"), Some("eu"));
    }
    let log = world.data().join("log");
    let asked = |method: &str| world::records(&log).iter().filter(|record| record["method"] == method).count();
    world.until(|| asked("tools/call") == 3).await;
    assert_eq!(asked("tools/list"), 1, "it is learned once");
    let (code, rest, talk) = client.end().await;
    assert_eq!((code, rest, talk.as_str()), (Some(0), vec![], ""));

    // It may stand on another page; a refusal that no list explains is the client's.
    let other = Upstream::start().await;
    let page = move |seen: &testkit::Received| {
        let last = seen.json()["params"]["cursor"] == "more";
        let mut result = json!({ "tools": [tool(if last { "late" } else { "early" })], "resultType": "complete" });
        if !last {
            result["nextCursor"] = "more".into();
        }
        result
    };
    other.always("tools/list", move |seen| Answer::result(&seen.id(), &page(seen)));
    other.always("tools/call", |seen| match seen.header("mcp-param-region") {
        Some("eu") => Answer::result(&seen.id(), &json!({ "content": [], "resultType": "complete" })),
        _ => Answer::error(&seen.id(), -32020, "no header").with_status(StatusCode::BAD_REQUEST),
    });
    let mut client = Client::start(&other.url(), None);
    for (id, tool, asked) in [(1, "late", 2), (2, "late", 2), (3, "none", 4)] {
        let params = json!({ "name": tool, "arguments": { "region": "eu" } });
        client.send(&modern(id, "tools/call", params)).await;
        let answer = client.hear().await;
        let is_refused = answer["error"]["code"] == -32020;
        assert!(answer["id"] == id && is_refused == (tool == "none"), "{answer}");
        assert_eq!(other.seen("tools/list").len(), asked);
    }
    assert_eq!(other.seen("tools/call").len(), 2 + 1 + 1, "who learned nothing asks no second time");
    let list = other.seen("tools/list").remove(0);
    assert_eq!(list.header("mcp-method"), Some("tools/list"));
    assert_eq!(client.end().await.0, Some(0));
}

#[tokio::test]
async fn subscriptions_are_made_again_until_the_client_wants_no_more() {
    let upstream = Upstream::start().await;
    let subscription = json!({ "io.modelcontextprotocol/subscriptionId": "s" });
    let acknowledged = json!({
        "jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
        "params": { "notifications": {}, "_meta": subscription },
    });
    let changed =
        json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": { "_meta": subscription } });
    let text = |message: &Value| format!("data: {message}\n\n");
    let broken = Answer::event_text(text(&acknowledged));
    let (again, feed) = Answer::events();
    upstream.next("subscriptions/listen", broken).next("subscriptions/listen", again);
    let mut client = Client::start(&upstream.url(), None);
    client.send(&modern("s", "subscriptions/listen", json!({ "notifications": { "toolsListChanged": true } }))).await;
    assert_eq!(client.hear().await, acknowledged);
    upstream.arrived("subscriptions/listen", 2).await;
    feed.message(&acknowledged).await;
    feed.message(&changed).await;
    assert_eq!(client.hear().await, changed, "the second acknowledgement is nothing new");
    client.send(&cancelled("s")).await;
    soon(feed.closed()).await;
    let (code, rest, _) = client.end().await;
    assert_eq!((code, rest), (Some(0), vec![]));
    assert_eq!(upstream.seen("subscriptions/listen").len(), 2);
}

#[tokio::test]
async fn a_modern_listener_hears_of_a_restart_only_that_its_lists_may_have_changed() {
    let upstream = Upstream::start().await;
    let ((first, feed), (second, other)) = (Answer::events(), Answer::events());
    upstream.next("subscriptions/listen", first).next("subscriptions/listen", second);
    let listen = format!("listen: 127.0.0.1:{}\n", free_port());
    let body = format!("{listen}servers:\n{}", world::http("files", &upstream));
    let world = World::with(&body, world::ALL).await;
    let (alice, bob) = (world.alice.clone(), world.bob.clone());
    let mut client = Client::start(&world.url("/mcp/files"), Some(&alice));
    let wanted = json!({ "toolsListChanged": true });
    client.send(&modern("s", "subscriptions/listen", json!({ "notifications": wanted }))).await;
    let about = |method: &str, params: &Value| json!({ "jsonrpc": "2.0", "method": method, "params": params });
    let acknowledged = |id: &Value| {
        let params = json!({ "notifications": wanted, "_meta": { "io.modelcontextprotocol/subscriptionId": id } });
        about("notifications/subscriptions/acknowledged", &params)
    };
    feed.message(&acknowledged(&upstream.arrived("subscriptions/listen", 1).await.id())).await;
    assert_eq!(client.hear().await, acknowledged(&json!("s")));
    let folder = world.kill(Signal::TERM).await;
    let world = World::launch(folder, alice, bob).await;
    other.message(&acknowledged(&upstream.arrived("subscriptions/listen", 2).await.id())).await;
    let meta = json!({ "_meta": { "io.modelcontextprotocol/subscriptionId": "s" } });
    let changed = about("notifications/tools/list_changed", &meta);
    assert_eq!(client.hear().await, changed, "neither a result nor another acknowledgement comes before");
    let said = about("notifications/resources/list_changed", &meta);
    other.message(&said).await;
    assert_eq!(client.hear().await, said, "once, and of what it listens to");
    client.send(&cancelled("s")).await;
    soon(other.closed()).await;
    let (code, rest, _) = client.end().await;
    assert_eq!((code, rest), (Some(0), vec![]));
    world.stop().await;
}

#[tokio::test]
async fn a_listener_that_is_not_heard_again_gets_its_result() {
    let upstream = Upstream::start().await;
    let about = json!({ "io.modelcontextprotocol/subscriptionId": "s" });
    let acknowledged = json!({
        "jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
        "params": { "notifications": {}, "_meta": about },
    });
    let again = json!({ "io.modelcontextprotocol/subscriptionId": "s", "durward/listenAgain": true });
    let result = json!({ "jsonrpc": "2.0", "id": "s", "result": { "resultType": "complete", "_meta": again } });
    let ended = || Answer::event_text(format!("data: {acknowledged}\n\ndata: {result}\n\n"));
    let refused = Answer::error(&json!("s"), -32601, "no").with_status(StatusCode::NOT_FOUND);
    let busy = Answer::status(StatusCode::SERVICE_UNAVAILABLE);
    upstream.next("subscriptions/listen", ended()).next("subscriptions/listen", busy);
    upstream.next("subscriptions/listen", ended()).next("subscriptions/listen", refused);
    let mut client = Client::start(&upstream.url(), None);
    let begun = Instant::now();
    client.send(&modern("s", "subscriptions/listen", json!({ "notifications": {} }))).await;
    assert_eq!(client.hear().await, acknowledged);
    assert_eq!(client.hear().await, result, "once, and no error");
    assert!(begun.elapsed() >= Duration::from_millis(250 + 500 + 1000), "it is asked ever less often");
    assert_eq!(upstream.seen("subscriptions/listen").len(), 4);

    // A result that does not ask for it is the server's word.
    let over = json!({ "jsonrpc": "2.0", "id": "s", "result": { "resultType": "complete", "_meta": about } });
    let ended = Answer::event_text(format!("data: {acknowledged}\n\ndata: {over}\n\n"));
    upstream.next("subscriptions/listen", ended);
    client.send(&modern("s", "subscriptions/listen", json!({ "notifications": {} }))).await;
    assert_eq!((client.hear().await, client.hear().await), (acknowledged, over));
    let (code, rest, _) = client.end().await;
    assert_eq!((code, rest), (Some(0), vec![]));
    assert_eq!(upstream.seen("subscriptions/listen").len(), 5);
}

#[tokio::test]
async fn a_listener_that_was_not_acknowledged_when_the_gateway_stopped_is_acknowledged_by_the_next() {
    let upstream = Upstream::start().await;
    let about = json!({ "io.modelcontextprotocol/subscriptionId": "s" });
    let again = json!({ "io.modelcontextprotocol/subscriptionId": "s", "durward/listenAgain": true });
    let result = json!({ "jsonrpc": "2.0", "id": "s", "result": { "resultType": "complete", "_meta": again } });
    let acknowledged = json!({
        "jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
        "params": { "notifications": {}, "_meta": about },
    });
    let ended = || Answer::event_text(format!("data: {result}\n\n"));
    let (next, feed) = Answer::events();
    let busy = Answer::status(StatusCode::SERVICE_UNAVAILABLE);
    upstream
        .next("subscriptions/listen", ended())
        .next("subscriptions/listen", busy)
        .next("subscriptions/listen", next);
    let mut client = Client::start(&upstream.url(), None);
    client.send(&modern("s", "subscriptions/listen", json!({ "notifications": {} }))).await;
    upstream.arrived("subscriptions/listen", 3).await;
    feed.message(&acknowledged).await;
    assert_eq!(client.hear().await, acknowledged, "and no result before it");
    client.send(&cancelled("s")).await;
    soon(feed.closed()).await;

    // Where it is refused then, the client is told so: nothing was acknowledged that could have ended.
    let refused = Answer::error(&json!("s"), -32601, "no").with_status(StatusCode::NOT_FOUND);
    upstream.next("subscriptions/listen", ended()).next("subscriptions/listen", refused);
    client.send(&modern("s", "subscriptions/listen", json!({ "notifications": {} }))).await;
    let heard = client.hear().await;
    assert_eq!((&heard["id"], &heard["error"]["code"]), (&json!("s"), &json!(-32601)), "{heard}");
    let (code, rest, _) = client.end().await;
    assert_eq!((code, rest), (Some(0), vec![]));
    assert_eq!(upstream.seen("subscriptions/listen").len(), 5);
}

#[tokio::test]
async fn a_listener_that_was_cut_off_before_it_was_acknowledged_listens_again() {
    let upstream = Upstream::start().await;
    let ((first, cut), (second, feed)) = (Answer::events(), Answer::events());
    upstream.next("subscriptions/listen", first).next("subscriptions/listen", second);
    let mut client = Client::start(&upstream.url(), None);
    client.send(&modern("s", "subscriptions/listen", json!({ "notifications": {} }))).await;
    upstream.arrived("subscriptions/listen", 1).await;
    cut.cut().await;
    upstream.arrived("subscriptions/listen", 2).await;
    let acknowledged = json!({
        "jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
        "params": { "notifications": {}, "_meta": { "io.modelcontextprotocol/subscriptionId": "s" } },
    });
    feed.message(&acknowledged).await;
    assert_eq!(client.hear().await, acknowledged, "and no error before it");
    client.send(&cancelled("s")).await;
    soon(feed.closed()).await;
    let (code, rest, _) = client.end().await;
    assert_eq!((code, rest), (Some(0), vec![]));
}

#[tokio::test]
async fn a_listener_that_is_never_acknowledged_is_told_so() {
    let upstream = Upstream::start().await;
    for _ in 0..6 {
        upstream.next("subscriptions/listen", Answer::event_text(": nothing\n\n"));
    }
    let mut client = Client::start(&upstream.url(), None);
    client.send(&modern("s", "subscriptions/listen", json!({ "notifications": {} }))).await;
    let heard = client.hear().await;
    assert_eq!((&heard["id"], &heard["error"]["code"]), (&json!("s"), &json!(-31006)), "{heard}");
    assert_eq!(upstream.seen("subscriptions/listen").len(), 6);
    client.end().await;
}

#[tokio::test]
async fn a_gateway_that_restarts_does_not_lose_its_client() {
    let upstream = Upstream::start().await;
    let listen = format!("listen: 127.0.0.1:{}\n", free_port());
    let body = format!("{listen}servers:\n{}", world::http("files", &upstream));
    let world = World::with(&body, world::ALL).await;
    let (alice, bob) = (world.alice.clone(), world.bob.clone());
    let mut client = Client::legacy(&world.url("/mcp/files"), Some(&alice)).await;
    assert!(client.call(1, json!({})).await.get("result").is_some());
    upstream.always("resources/subscribe", |seen| Answer::result(&seen.id(), &json!({})));
    client.ask(2, "resources/subscribe", json!({ "uri": "file:///a" })).await;

    // What is with the gateway when it dies may have happened, and is not repeated.
    let (answer, _feed) = Answer::events();
    upstream.next("tools/call", answer);
    client.send(&request(3, "tools/call", json!({ "name": "echo", "arguments": {} }))).await;
    upstream.arrived("tools/call", 2).await;
    let folder = world.kill(Signal::KILL).await;
    let lost = client.hear().await;
    assert_eq!((&lost["id"], &lost["error"]["code"]), (&3.into(), &(-31006).into()), "{lost}");
    assert_eq!(lost["error"]["data"]["mayHaveHappened"], true);

    // What comes while it is away waits for it.
    client.send(&request(4, "tools/call", json!({ "name": "echo", "arguments": { "n": 4 } }))).await;
    // A call that was under way may be the first to notice.
    client.says("durward connect stays").await;
    let subscribed = upstream.seen("resources/subscribe").len();
    let world = World::launch(folder, alice, bob).await;
    let changed = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
    assert_eq!(client.hear().await, changed, "what was said of the lists meanwhile is lost");
    let next = client.hear().await;
    assert_eq!(next["id"], 4, "{next}");
    assert!(
        next["result"]["content"][0]["text"].as_str().is_some_and(|text| text.contains('4'))
            || next["error"]["data"]["mayHaveHappened"] == false,
        "{next}"
    );
    let answer = client.call(5, json!({ "n": 5 })).await;
    assert!(answer["result"]["content"][0]["text"].as_str().unwrap().contains('5'), "{answer}");
    assert!(upstream.seen("resources/subscribe").len() > subscribed, "subscriptions are made again");
    let calls: Vec<_> = relayed(&upstream, "tools/call").iter().map(testkit::Received::id).collect();
    assert_eq!(calls.iter().filter(|id| **id == 3).count(), 1, "{calls:?}");
    let (code, rest, talk) = client.end().await;
    assert_eq!((code, rest), (Some(0), vec![]), "{talk}");
    assert!(talk.contains("answers again"), "{talk}");
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_only_listens_is_introduced_again_after_a_restart() {
    let upstream = Upstream::start().await;
    let ((first, feed), (second, other)) = (Answer::events(), Answer::events());
    upstream.next("GET", first).next("GET", second);
    let listen = format!("listen: 127.0.0.1:{}\n", free_port());
    let world = World::with(&format!("{listen}servers:\n{}", world::http("files", &upstream)), world::ALL).await;
    let (alice, bob) = (world.alice.clone(), world.bob.clone());
    let mut client = Client::legacy(&world.url("/mcp/files"), Some(&alice)).await;
    upstream.arrived("GET", 1).await;
    let folder = world.kill(Signal::KILL).await;
    soon(feed.closed()).await;
    // The client says nothing more: that the session is gone is found by the stream that listens in it.
    let world = World::launch(folder, alice, bob).await;
    upstream.arrived("GET", 2).await;
    let changed = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
    assert_eq!(client.hear().await, changed, "of the list whose changes were promised, and of no other");
    let said = json!({ "jsonrpc": "2.0", "method": "notifications/prompts/list_changed" });
    other.message(&said).await;
    assert_eq!(client.hear().await, said);
    let (code, rest, _) = client.end().await;
    assert_eq!((code, rest), (Some(0), vec![]));
    world.stop().await;
}

#[tokio::test]
async fn a_forgotten_session_is_begun_again_before_the_client_notices() {
    let upstream = Upstream::start().await;
    let mut client = Client::legacy(&upstream.url(), None).await;
    upstream.arrived("notifications/initialized", 1).await;
    let first = upstream.seen("notifications/initialized")[0].header("mcp-session-id").unwrap().to_owned();
    let gone = || Answer::status(StatusCode::NOT_FOUND);
    upstream.next("tools/call", gone());
    assert!(client.call(1, json!({})).await.get("result").is_some());
    let [hello, again] = upstream.seen("initialize").try_into().unwrap();
    assert_eq!(hello.body, again.body);
    assert_eq!(again.header("mcp-session-id"), None);
    let [refused, taken] = upstream.seen("tools/call").try_into().unwrap();
    assert_eq!((refused.header("mcp-session-id"), &refused.body), (Some(first.as_str()), &taken.body));
    assert_ne!(taken.header("mcp-session-id"), Some(first.as_str()));
    assert_eq!(upstream.seen("notifications/initialized").len(), 2);

    // Once is enough: a gateway that knows no session at all is told of, not asked for ever.
    upstream.next("tools/call", gone()).next("tools/call", gone());
    let lost = client.call(2, json!({})).await;
    assert!(lost["error"]["message"].as_str().unwrap().contains("404"), "{lost}");
    let (code, rest, _) = client.end().await;
    assert_eq!((code, rest), (Some(0), vec![]));
}

#[tokio::test]
async fn a_gateway_that_is_down_is_named_and_waited_for() {
    let upstream = Upstream::start().await;
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}/mcp/files");
    let mut client = Client::start(&url, Some("dwk_none"));
    let answer = client.initialize().await;
    assert_eq!(answer["error"]["code"], -31006, "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains(&url) && message.to_lowercase().contains("refused"), "{message}");
    assert_eq!(answer["error"]["data"]["mayHaveHappened"], false);
    let (code, _, talk) = client.end().await;
    assert_eq!(code, Some(3), "{talk}");
    assert_eq!(talk.matches(&url).count(), 1, "told once: {talk}");

    let body = format!("listen: 127.0.0.1:{port}\nservers:\n{}", world::http("files", &upstream));
    let (folder, alice, bob) = prepared(&body).await;
    let mut client = Client::start(&url, Some(&alice));
    client.send(&request("hello", "initialize", hello())).await;
    let world = World::launch(folder, alice, bob).await;
    assert!(client.hear().await.get("result").is_some(), "it came while the request waited");
    assert_eq!(client.end().await.0, Some(0));
    world.stop().await;
}

/// A folder with a configuration and two keys, and nothing running on it yet.
async fn prepared(body: &str) -> (tempfile::TempDir, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(folder.path().join("policy.json"), world::ALL).unwrap();
    fs::write(folder.path().join("durward.yaml"), world::complete(body)).unwrap();
    let alice = world::key(&data, "alice", None).await;
    let bob = world::key(&data, "bob", None).await;
    (folder, alice, bob)
}

#[tokio::test]
async fn a_key_that_is_refused_is_told_once_with_what_to_do() {
    let upstream = Upstream::start().await;
    let world = World::start(&world::http("files", &upstream)).await;
    for key in [None, Some("dwk_wrong")] {
        let mut client = Client::start(&world.url("/mcp/files"), key);
        for _ in 0..2 {
            let answer = client.initialize().await;
            let message = answer["error"]["message"].as_str().unwrap().to_owned();
            assert_eq!(answer["id"], "hello");
            assert!(!message.is_empty() && !message.contains("dwk_wrong"), "{message}");
        }
        let (code, _, talk) = client.end().await;
        assert_eq!(code, Some(1), "{talk}");
        assert_eq!(talk.matches("durward agent key create").count(), 1, "{talk}");
        assert!(!talk.contains("dwk_wrong"), "{talk}");
    }

    // A key that is revoked in the middle.
    let mut client = Client::legacy(&world.url("/mcp/files"), Some(&world.alice)).await;
    assert!(client.call(1, json!({})).await.get("result").is_some());
    revoke(&world, &world.alice).await;
    let before = relayed(&upstream, "tools/call").len();
    let refused = client.call(2, json!({})).await;
    assert!(refused.get("error").is_some(), "{refused}");
    client.says("does not accept the key").await;
    assert!(client.call(3, json!({})).await.get("error").is_some());
    assert_eq!(relayed(&upstream, "tools/call").len(), before);
    let (code, rest, talk) = client.end().await;
    assert_eq!((code, rest), (Some(0), vec![]));
    assert_eq!(talk.matches("does not accept the key").count(), 1, "{talk}");
}

#[expect(clippy::disallowed_methods, reason = "a test starts the product")]
async fn revoke(world: &World, key: &str) {
    let id = key.split('_').nth(1).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_durward"));
    command.args(["agent", "key", "revoke", id, "--config"]).arg(world.folder().join("durward.yaml"));
    let output = soon(command.arg("--data").arg(world.data()).output()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn the_key_comes_from_a_file_that_is_nobody_elses() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    fs::write(&file, "token-one\n").unwrap();
    let with_file = || {
        let mut command = command(&upstream.url());
        command.arg("--key-file").arg(&file).env("DURWARD_KEY", "token-of-the-environment");
        Client::run(command)
    };
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, said, talk) = with_file().end().await;
    assert_eq!((code, said), (Some(1), vec![]));
    assert!(talk.contains("chmod 600") && !talk.contains("token-one"), "{talk}");

    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let mut client = with_file();
    client.initialize().await;
    assert_eq!(upstream.arrived("initialize", 1).await.header("authorization"), Some("Bearer token-one"));
    // A token that was renewed meanwhile is taken from the file when the old one is refused.
    upstream.always("tools/call", |seen| match seen.header("authorization") {
        Some("Bearer token-two") => Answer::result(&seen.id(), &json!({ "content": [] })),
        _ => Answer::status(StatusCode::UNAUTHORIZED),
    });
    fs::write(&file, "token-two\n").unwrap();
    assert!(client.call(1, json!({})).await.get("result").is_some());
    let (code, _, talk) = client.end().await;
    assert_eq!((code, talk.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_key_that_cannot_be_read_again_is_told_once_for_each_cause_and_when_it_can() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    let open = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    fs::write(&file, "token-one\n").unwrap();
    open(0o600);
    let mut command = command(&upstream.url());
    command.arg("--key-file").arg(&file);
    let mut client = Client::run(command);
    client.initialize().await;
    upstream.always("tools/call", |_| Answer::status(StatusCode::UNAUTHORIZED));
    let mut call = 0;
    let mut refused = async || {
        for _ in 0..3 {
            call += 1;
            assert!(client.call(call, json!({})).await.get("error").is_some());
        }
    };
    refused().await;
    open(0o644);
    refused().await;
    fs::rename(&file, folder.path().join("away")).unwrap();
    refused().await;
    fs::rename(folder.path().join("away"), &file).unwrap();
    refused().await;
    open(0o600);
    refused().await;
    open(0o644);
    refused().await;
    let (code, _, talk) = client.end().await;
    assert_eq!(code, Some(0));
    let told: Vec<&str> = talk.lines().filter(|line| line.starts_with("durward: the key ")).collect();
    let causes = ["others may read", "No such file", "others may read", "is readable again", "others may read"];
    assert_eq!(told.len(), causes.len(), "{talk}");
    assert!(told.iter().zip(causes).all(|(told, cause)| told.contains(cause)), "{talk}");
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_and_the_next_line_is_read() {
    let upstream = Upstream::start().await;
    let mut client = Client::start(&upstream.url(), None);
    for (line, id, code) in [
        ("not json".to_owned(), Value::Null, -32700),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,".to_owned(), Value::Null, -32700),
        ("{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"a\",\"method\":\"b\"}".to_owned(), json!(4), -32600),
        ("[]".to_owned(), Value::Null, -32600),
        (
            format!("{{\"method\":\"tools/call\",\"params\":{{\"t\":\"{}\"}},\"id\":9}}", "x".repeat(17 << 20)),
            json!(9),
            -32600,
        ),
    ] {
        client.write(&line).await;
        let answer = client.hear().await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&id, &code.into()), "{answer}");
    }
    assert_eq!(upstream.received(), 0);
    client.write("").await;
    assert!(client.initialize().await.get("result").is_some());
    assert_eq!(client.end().await.0, Some(0));
}

#[tokio::test]
async fn a_variable_that_holds_nothing_is_none() {
    let upstream = Upstream::start().await;
    let names = ["KEY", "KEY_FILE", "SOCKET", "CA_FILE", "URL", "CONFIG", "DATA"];
    let mut command = command(&upstream.url());
    command.envs(names.map(|name| (format!("DURWARD_{name}"), "")));
    let mut client = Client::run(command);
    assert!(client.initialize().await.get("result").is_some());
    let (code, _, talk) = client.end().await;
    assert_eq!((code, talk.as_str()), (Some(0), ""));
    // An argument that holds nothing is a mistake all the same.
    let mut command = self::command(&upstream.url());
    command.args(["--ca-file", ""]);
    assert_eq!(Client::run(command).ended().await.code(), Some(2));
}

#[tokio::test]
async fn a_slow_answer_holds_up_nobody_and_too_many_wait_their_turn() {
    let upstream = Upstream::start().await;
    let mut client = Client::legacy(&upstream.url(), None).await;
    upstream.arrived("notifications/initialized", 1).await;
    let mut held = Vec::new();
    for _ in 0..256 {
        let (answer, release) = Answer::status(StatusCode::OK).held();
        upstream.next("tools/call", answer);
        held.push(release);
    }
    for id in 0..300 {
        client.send(&request(id, "tools/call", json!({ "name": "echo", "arguments": { "id": id } }))).await;
    }
    upstream.arrived("tools/call", 256).await;
    // What nobody waits for passes those who wait.
    client.send(&json!({ "jsonrpc": "2.0", "method": "notifications/roots/list_changed" })).await;
    upstream.arrived("notifications/roots/list_changed", 1).await;
    assert_eq!(upstream.seen("tools/call").len(), 256, "no more are with the gateway at once");
    drop(held);
    let mut answered = std::collections::BTreeSet::new();
    let mut results = 0;
    while answered.len() < 300 {
        let answer = client.hear().await;
        results += usize::from(answer.get("result").is_some());
        assert!(answered.insert(answer["id"].as_u64().unwrap()), "answered twice: {answer}");
    }
    assert_eq!(results, 44, "an empty answer is none, and is told as one");
    let (code, rest, _) = client.end().await;
    assert_eq!((code, rest), (Some(0), vec![]));
}

#[tokio::test]
async fn whoever_ends_the_input_or_sends_a_signal_is_not_kept_waiting() {
    let upstream = Upstream::start().await;
    upstream.always("tools/call", |_| Answer::hang());
    for signal in [None, Some(Signal::TERM), Some(Signal::INT)] {
        let mut client = Client::legacy(&upstream.url(), None).await;
        let before = upstream.seen("DELETE").len();
        let calls = upstream.seen("tools/call").len();
        client.send(&request(1, "tools/call", json!({ "name": "echo", "arguments": {} }))).await;
        upstream.arrived("tools/call", calls + 1).await;
        if let Some(signal) = signal {
            let pid = Pid::from_raw(client.process.id().unwrap().try_into().unwrap()).unwrap();
            kill_process(pid, signal).unwrap();
            assert_eq!(client.ended().await.code(), Some(0));
        }
        let (code, rest, talk) = client.end().await;
        assert_eq!(code, Some(0), "{talk}");
        assert_eq!(rest.iter().map(|answer| answer["id"].clone()).collect::<Vec<_>>(), [1], "{rest:?}");
        assert_eq!(rest[0]["error"]["data"]["mayHaveHappened"], true);
        upstream.arrived("DELETE", before + 1).await;
    }
    // A client that dies without a word: nobody reads.
    let mut client = Client::legacy(&upstream.url(), None).await;
    let input = client.input.take();
    drop(std::mem::replace(&mut client.output, quiet().await));
    let mut input = input.unwrap();
    input.write_all(b"{}\n").await.unwrap();
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(10), client.process.wait()).await.unwrap().unwrap().code(),
        Some(0)
    );
}

/// The output of a process that says nothing. It is over: until a process has become another program, it holds every
/// pipe that was open when it began.
#[expect(clippy::disallowed_methods, reason = "a test starts a program")]
async fn quiet() -> Lines<BufReader<ChildStdout>> {
    let mut process = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    let output = process.stdout.take().unwrap();
    assert!(soon(process.wait()).await.unwrap().success());
    BufReader::new(output).lines()
}
