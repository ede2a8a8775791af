//! Fail closed: for every stage and every way it can say no, nothing reaches the server (or, where it already has,
//! the outcome is withheld), and exactly one record says so. What panics is tested where the line can be taken apart:
//! `gateway/tests/panic.rs`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what the test stands on must be there, or the test has failed"
)]

mod rig;
mod world;

use audit::Tree;
use rig::{call_of, outcome, policy, relayed, with_secrets};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use testkit::{Answer, Ask, Issuer, Kind, Upstream, soon};
use tokio::net::UnixStream;
use vocab::TenantId;
use world::{ALL, World};

/// What is told at once is told by then, on a machine with much to do.
const AT_ONCE: Duration = Duration::from_secs(8);

/// A key that every scanner of secrets knows.
const SECRET: &str = "ghp_A7dK2mQ9xR4tV8wZ1cF6hJ3nP5sY0u2Kq9Lb";

fn tools() -> Vec<Value> {
    let object = json!({"type": "object"});
    vec![
        json!({"name": "echo", "inputSchema": object}),
        json!({"name": "erase", "inputSchema": object}),
        json!({"name": "pay", "inputSchema": object}),
        json!({"name": "rare", "inputSchema": object}),
        json!({"name": "broken", "inputSchema": {"type": "object", "properties": {"a": {"type": "nonsense"}}}}),
        json!({"name": "strict", "inputSchema": {"type": "object", "additionalProperties": false, "required": ["n"],
            "properties": {"n": {"type": "integer"}, "list": {"type": "array", "items": {"type": "string"}}}}}),
    ]
}

/// One server that works, and one for each way of not working.
struct Stage {
    upstream: Upstream,
    mute: Upstream,
    issuer: Issuer,
    slow_issuer: Issuer,
    world: World,
}

impl Stage {
    async fn set() -> Self {
        let upstream = Upstream::at("127.0.0.1:0".parse().unwrap(), tools()).await;
        let mute = Upstream::start().await;
        for method in ["server/discover", "initialize"] {
            mute.always(method, |_| Answer::hang());
        }
        let issuer = Issuer::start(Kind::Ed25519).await;
        issuer.server().always("GET", |_| Answer::status(http::StatusCode::INTERNAL_SERVER_ERROR));
        let slow_issuer = Issuer::start(Kind::Ed25519).await;
        slow_issuer.server().always("GET", |_| Answer::hang());
        let body = format!(
            "servers:\n\
             \x20 files: {{ url: \"{url}\", internal: true, deadline: 500ms }}\n\
             \x20 locked: {{ url: \"{url}\", internal: true, credential: {{ bearer: not-there }} }}\n\
             \x20 mute: {{ url: \"{mute}\", internal: true, deadline: 300ms }}\n\
             \x20 gone: {{ url: \"http://127.0.0.1:9/mcp\", internal: true }}\n\
             \x20 full: {{ url: \"{url}\", internal: true, deadline: 500ms, calls_in_flight: 1 }}\n\
             issuers:\n\
             \x20 - {{ url: \"{issuer}\", audience: here, agent: \"claim:azp\", internal: true }}\n\
             \x20 - {{ url: \"{slow}\", audience: here, agent: \"claim:azp\", internal: true }}\n\
             limits: [{{ for: {{ agent: \"*\", tool: \"files/rare\" }}, rate: 1/h, burst: 1 }}]\n\
             bounds: {{ stream_idle: 1s }}\n\
             detect: {{ secrets: {{ results: mask, arguments: refuse }} }}\n",
            url = upstream.url(),
            mute = mute.url(),
            issuer = issuer.url(),
            slow = slow_issuer.url(),
        );
        let rules = json!([
            {"id": "all", "action": "*", "target": "*/*", "effect": "allow"},
            {"id": "no-force", "action": "tool.execute", "target": "files/erase", "effect": "deny", "when": "has(args.force)"},
            {"id": "cap", "action": "tool.execute", "target": "files/pay", "effect": "deny", "when": "args.amount > 5"},
            {"id": "secret", "action": "*", "target": "files/hidden", "effect": "deny"},
        ]);
        let world = with_secrets(&body, &policy(&rules), &[]).await;
        // The server is known before anything is counted.
        let ask = world.calling("/mcp/files", Some(&world.alice), "echo", &json!({}));
        assert_eq!(ask.send().await.status, 200);
        Self { upstream, mute, issuer, slow_issuer, world }
    }

    fn ask(&self, tool: &str, arguments: &Value) -> Ask {
        self.world.calling("/mcp/files", Some(&self.world.alice), tool, arguments)
    }

    /// Sends it; nothing may arrive, and one record says `expected`. Gives what the caller read.
    async fn refuses(&self, ask: Ask, expected: &str) -> (u16, Value) {
        let before = relayed(&self.upstream, "tools/call").len();
        let reply = ask.send().await;
        let (status, call) = (reply.status.as_u16(), call_of(&reply));
        let answer = reply.json().await;
        let record = self.world.record(&call).await;
        assert_eq!(outcome(&record), expected, "{answer} {record:#}");
        assert_eq!(relayed(&self.upstream, "tools/call").len(), before, "nothing may reach the server: {expected}");
        assert_eq!(relayed(&self.mute, "tools/call").len(), 0);
        assert_eq!(answer["error"]["data"]["call"], call, "{answer}");
        assert_eq!(record["http_status"], status);
        (status, answer)
    }
}

#[tokio::test]
async fn receive_refuses_what_it_cannot_read() {
    let stage = Stage::set().await;
    let url = stage.world.url("/mcp/files");
    let raw = |text: &str| Ask::post(&url, text.to_owned()).bearer(&stage.world.alice);
    for (text, status) in [
        ("{", 400),
        ("[]", 400),
        ("\u{1}", 400),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","name":"erase"}}"#, 400),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"a":1,"\u0061":2}}}"#,
            400,
        ),
    ] {
        let (got, _) = stage.refuses(raw(text), "refused body receive").await;
        assert_eq!(got, status, "{text}");
    }
    stage.refuses(raw("{}").replace("content-type", "text/plain"), "refused content-type receive").await;
    stage.refuses(stage.ask("echo", &json!({})).replace("mcp-method", "ping"), "refused header receive").await;
    stage.refuses(stage.ask("echo", &json!({})).replace("mcp-name", "erase"), "refused header receive").await;
    stage.refuses(stage.ask("echo", &json!({})).header("mcp-name", "echo"), "refused header receive").await;
    stage
        .refuses(stage.ask("echo", &json!({})).header("origin", "http://evil.example"), "refused origin receive")
        .await;
}

#[tokio::test]
async fn authenticate_refuses_fails_and_times_out_closed() {
    let stage = Stage::set().await;
    let with = |token: Option<&str>| stage.world.calling("/mcp/files", token, "echo", &json!({}));
    assert_eq!(stage.refuses(with(None), "refused missing authenticate").await.0, 401);
    assert_eq!(stage.refuses(with(Some("dwk_nonsense")), "refused malformed authenticate").await.0, 401);
    let claims = json!({"aud": "here", "azp": "alice", "exp": 4_000_000_000_u64});
    let failing = stage.issuer.token(claims.clone());
    assert_eq!(stage.refuses(with(Some(&failing)), "refused unavailable authenticate").await.0, 503);
    let hanging = stage.slow_issuer.token(claims);
    assert_eq!(stage.refuses(with(Some(&hanging)), "refused unavailable authenticate").await.0, 503);
}

#[tokio::test]
async fn resolve_refuses_fails_and_times_out_closed() {
    let stage = Stage::set().await;
    let (_, unknown) = stage.refuses(stage.ask("nothing", &json!({})), "refused unknown resolve").await;
    assert_eq!(unknown["error"]["code"], -32602);
    let reply = stage.ask("hidden", &json!({})).send().await;
    let record = stage.world.record(&call_of(&reply)).await;
    // The caller learns nothing; the log knows who asked for what, and which rule hid it.
    assert_eq!(reply.json().await["error"]["message"], "Unknown tool: hidden");
    assert_eq!(outcome(&record), "refused hidden resolve");
    assert_eq!(record["rules"], json!(["secret"]), "{record:#}");
    assert_eq!([&record["server"], &record["target"], &record["agent"]], ["files", "hidden", "alice"]);
    let on = |server: &str| stage.world.calling(server, Some(&stage.world.alice), "echo", &json!({}));
    assert_eq!(stage.refuses(on("/mcp/nowhere"), "refused unknown-server resolve").await.0, 404);
    let (_, down) = stage.refuses(on("/mcp/gone"), "faulted upstream-down resolve").await;
    assert!(down["error"]["message"].as_str().unwrap().contains("gone"), "{down}");
    stage.refuses(on("/mcp/mute"), "faulted upstream-timeout resolve").await;
}

#[tokio::test]
async fn limit_refuses_closed() {
    let stage = Stage::set().await;
    assert_eq!(stage.ask("rare", &json!({})).send().await.status, 200);
    let (_, limited) = stage.refuses(stage.ask("rare", &json!({})), "refused rate limit").await;
    assert!(limited["error"]["data"]["retryAfter"].as_u64().unwrap() > 3000, "{limited}");

    // A server with all its room taken.
    let on_full = || stage.world.calling("/mcp/full", Some(&stage.world.alice), "echo", &json!({}));
    assert_eq!(on_full().send().await.status, 200);
    let (answer, feed) = Answer::events();
    let before = relayed(&stage.upstream, "tools/call").len();
    stage.upstream.next("tools/call", answer);
    let first = on_full().send().await;
    stage.upstream.arrived("tools/call", before + 1).await;
    let (_, busy) = stage.refuses(on_full(), "refused busy limit").await;
    assert_eq!(busy["error"]["data"]["retryAfter"], 1);
    drop((first, feed));
}

#[tokio::test]
async fn validate_and_screen_and_authorize_refuse_and_fail_closed() {
    let stage = Stage::set().await;
    let (_, faults) = stage
        .refuses(stage.ask("strict", &json!({"n": "7", "list": [1], "more": true})), "refused arguments validate")
        .await;
    let pointers: Vec<&str> =
        faults["error"]["data"]["faults"].as_array().unwrap().iter().map(|f| f["pointer"].as_str().unwrap()).collect();
    assert!(pointers.contains(&"/n") && pointers.contains(&"/list/0"), "{faults}");
    assert!(!faults.to_string().contains("\\\"7\\\""), "values of the caller are not quoted: {faults}");
    for odd in [json!([1]), json!("text"), json!(7), Value::Null] {
        stage.refuses(stage.ask("echo", &odd), "refused arguments validate").await;
    }
    let (_, broken) = stage.refuses(stage.ask("broken", &json!({"a": 1})), "refused schema-unusable validate").await;
    assert!(broken["error"]["message"].as_str().unwrap().contains("schema"), "{broken}");

    let (_, guarded) =
        stage.refuses(stage.ask("echo", &json!({"deep": [{"key": SECRET}]})), "refused guard screen").await;
    assert_eq!(guarded["error"]["data"]["findings"][0]["pointer"], "/arguments/deep/0/key", "{guarded}");
    assert!(!guarded.to_string().contains(SECRET));

    let (_, denied) = stage.refuses(stage.ask("erase", &json!({"force": 1})), "refused denied authorize").await;
    assert_eq!(denied["error"]["data"]["rules"], json!(["no-force"]));
    // A condition that cannot be evaluated denies, and names its rule.
    let (_, failed) = stage.refuses(stage.ask("pay", &json!({"amount": "much"})), "refused denied authorize").await;
    assert_eq!(failed["error"]["data"]["rules"], json!(["cap"]));
    stage.refuses(stage.ask("pay", &json!({"amount": 6})), "refused denied authorize").await;
    assert_eq!(stage.ask("pay", &json!({"amount": 5})).send().await.json().await["error"], Value::Null);
}

#[tokio::test]
async fn inject_fails_closed_and_names_no_secret() {
    let stage = Stage::set().await;
    let before = relayed(&stage.upstream, "tools/call").len();
    let ask = stage.world.calling("/mcp/locked", Some(&stage.world.alice), "echo", &json!({}));
    let reply = ask.send().await;
    let call = call_of(&reply);
    let answer = reply.json().await;
    assert_eq!(relayed(&stage.upstream, "tools/call").len(), before);
    assert!(!answer.to_string().contains("not-there"), "the name of a secret is the operator's: {answer}");
    let record = stage.world.record(&call).await;
    assert_eq!(record["outcome"]["is"], "faulted", "{record:#}");
    assert!(record["error"].as_str().unwrap().contains("not-there"), "the log tells the operator: {record:#}");
}

#[tokio::test]
async fn forward_never_repeats_and_records_what_failed() {
    let stage = Stage::set().await;
    for (answer, expected) in [
        (Answer::hang(), "faulted upstream-timeout forward"),
        (Answer::cut_off("{\"jsonrpc\":"), "faulted upstream-cut forward"),
        (Answer::json("not JSON"), "withheld upstream-protocol release"),
        (Answer::json(r#"{"jsonrpc":"2.0","id":2,"result":{}}"#), "withheld answer-id release"),
        (Answer::json(r#"[{"jsonrpc":"2.0","id":1,"result":{}}]"#), "withheld upstream-protocol release"),
        (Answer::json(r#"{"jsonrpc":"2.0","id":1,"result":{"a":1,"a":2}}"#), "withheld upstream-protocol release"),
        (Answer::status(http::StatusCode::UNAUTHORIZED), "faulted upstream-credential forward"),
    ] {
        let before = relayed(&stage.upstream, "tools/call").len();
        stage.upstream.next("tools/call", answer);
        let reply = stage.ask("echo", &json!({})).send().await;
        let call = call_of(&reply);
        let answer = reply.json().await;
        assert!(answer.get("error").is_some(), "{expected}: {answer}");
        let record = stage.world.record(&call).await;
        assert_eq!(outcome(&record), expected, "{record:#}");
        assert!(record["intent"].is_u64(), "what was sent was intended: {record:#}");
        assert_eq!(relayed(&stage.upstream, "tools/call").len(), before + 1, "sent once: {expected}");
    }
}

#[tokio::test]
async fn release_withholds_what_must_not_pass_whole_or_streamed() {
    let stage = Stage::set().await;
    // A text too large to be looked into cannot be masked, so it does not pass.
    let secret = json!({"content": [{"type": "text", "text": "x ".repeat(3 << 20) + SECRET}]});
    stage.upstream.next("tools/call", Answer::result(&json!(1), &secret));
    let event = format!("data: {}\n\n", json!({"jsonrpc": "2.0", "id": 1, "result": secret}));
    stage.upstream.next("tools/call", Answer::event_text(event));
    for _ in 0..2 {
        let reply = stage.ask("echo", &json!({})).send().await;
        let call = call_of(&reply);
        let text = reply.text().await;
        assert!(!text.contains(SECRET) && text.contains("-31004"), "{}", text.len());
        assert_eq!(outcome(&stage.world.record(&call).await), "withheld guard release");
    }
    // A stream that stops in the middle, and one that says nothing more.
    stage.upstream.next("tools/call", Answer::event_text(": begin\n\n"));
    let reply = stage.ask("echo", &json!({})).send().await;
    let call = call_of(&reply);
    assert!(reply.text().await.contains("error"));
    assert_eq!(outcome(&stage.world.record(&call).await), "faulted upstream-cut forward");
    let (answer, feed) = Answer::events();
    stage.upstream.next("tools/call", answer);
    let reply = stage.ask("echo", &json!({})).send().await;
    let call = call_of(&reply);
    assert!(soon(reply.json()).await.get("error").is_some());
    assert_eq!(outcome(&stage.world.record(&call).await), "faulted upstream-timeout forward");
    drop(feed);
}

#[tokio::test]
async fn without_room_for_the_log_calls_stop_say_why_and_go_on() {
    let upstream = Upstream::start().await;
    let world = with_a_limit(&upstream).await;
    let ask = || world.calling("/mcp/files", Some(&world.alice), "echo", &json!({"n": 1}));
    assert_eq!(ask().send().await.json().await["error"], Value::Null);
    let done = relayed(&upstream, "tools/call").len();

    let before = room(&world, Some(1));
    // Those that find out together were never sent, and are told like those after them: far before their deadline of 60 s.
    let at_once = async |ask: Ask| {
        let reply = tokio::time::timeout(AT_ONCE, ask.send()).await.expect("told, not kept waiting");
        let call = call_of(&reply);
        (call, reply.json().await)
    };
    let (first, second, third) = tokio::join!(at_once(ask()), at_once(ask()), at_once(ask()));
    let later = at_once(ask()).await;
    let mut refused = Vec::new();
    for (call, answer) in [first, second, third, later] {
        assert_eq!(answer["error"]["code"], -31005, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("log"), "{answer}");
        refused.push(call);
    }
    assert_eq!(relayed(&upstream, "tools/call").len(), done, "nothing leaves that the log does not know of");
    world.says("the log cannot be written").await;

    room(&world, before.current);
    world.says("the log can be written again").await;
    let reply = ask().send().await;
    let call = call_of(&reply);
    assert_eq!(reply.json().await["error"], Value::Null);
    assert_eq!(world.record(&call).await["outcome"]["is"], "answered");
    // What was refused meanwhile is recorded all the same.
    for call in refused {
        assert_eq!(outcome(&world.record(&call).await), "faulted log intend");
    }
    let (status, folder) = world.stop().await;
    assert!(status.success());
    rig::verify(&folder.path().join("data"));
}

#[tokio::test]
async fn without_room_for_the_log_management_says_why_and_what_holds() {
    let upstream = Upstream::start().await;
    let world = with_a_limit(&upstream).await;
    let before = room(&world, Some(1));
    // The first one finds out, and fails for the same cause. Those after it are not begun.
    for (status, said) in [(500, "the agent was not disabled"), (503, "nothing is done that cannot be recorded")] {
        let (got, answer) = tokio::time::timeout(AT_ONCE, disable(&world)).await.expect("told, not kept waiting");
        let message = answer["error"]["message"].as_str().unwrap();
        assert_eq!(got, status, "{answer}");
        assert!(message.contains(said) && message.contains("the log cannot be written: File too large"), "{answer}");
    }
    room(&world, before.current);
    world.says("the log can be written again").await;
    // What was said to be so is so, and the record that waited is there.
    let reply = world.calling("/mcp/files", Some(&world.bob), "echo", &json!({"n": 1})).send().await;
    assert_eq!(reply.json().await["error"], Value::Null);
    assert_eq!(disable(&world).await.0, 200);
    let (status, folder) = world.stop().await;
    assert!(status.success());
    let data = folder.path().join("data");
    let tenant = rig::leaves(&data.join("log"), &Tree::Tenant(TenantId::default_tenant()));
    let actions: Vec<&str> = tenant
        .iter()
        .filter(|(kind, record)| kind == "admin" && record["action"] == "agent.disable")
        .map(|(_, record)| record["outcome"]["is"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["faulted", "faulted", "answered"]);
    rig::verify(&data);
}

/// A gateway whose room on the disk can be taken away.
async fn with_a_limit(upstream: &Upstream) -> World {
    let (folder, alice, bob) = rig::prepared(&format!("servers:\n{}", world::http("files", upstream)), ALL, &[]).await;
    // The signal that tells of the limit must not end the process: a full disk has none.
    #[expect(clippy::disallowed_methods, reason = "a test starts the product")]
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" up --config \"$1/durward.yaml\" --data \"$1/data\""]);
    command.arg(env!("CARGO_BIN_EXE_durward")).arg(folder.path());
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    command.stderr(std::process::Stdio::piped()).kill_on_drop(true);
    World::run(command, folder, alice, bob).await
}

/// Lets no file of a gateway grow beyond so much. Gives what held before.
fn room(world: &World, current: Option<u64>) -> Rlimit {
    let pid = Pid::from_raw(i32::try_from(world.pid()).unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current, maximum: None }).unwrap()
}

/// Bob's agent is switched off by the operator.
async fn disable(world: &World) -> (u16, Value) {
    let asked = Ask::new(http::Method::POST, "http://localhost/api/agents/bob/disable");
    #[expect(clippy::disallowed_methods, reason = "a test dials what it is told to")]
    let socket = UnixStream::connect(world.data().join("control.sock")).await.unwrap();
    let reply = asked.over(socket).await.unwrap();
    (reply.status.as_u16(), reply.json().await)
}

#[tokio::test]
async fn without_the_salt_key_of_the_day_the_gateway_is_not_ready_and_says_so() {
    let upstream = Upstream::start().await;
    let (folder, alice, bob) = rig::prepared(&format!("servers:\n{}", world::http("files", &upstream)), ALL, &[]).await;
    // Of today, and of the day that may begin meanwhile.
    #[expect(clippy::disallowed_methods, reason = "the gateway runs on the clock of the system")]
    let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 86_400;
    let obstructions = [today, today + 1].map(|day| folder.path().join(format!("data/log/salt/{day}")));
    for path in &obstructions {
        fs::create_dir_all(path).unwrap();
    }
    let world = World::launch(folder, alice, bob).await;
    let management = world.says("management").await;
    let (_, rest) = management.split_once("http://").unwrap();
    let management = format!("http://{}", rest.split_whitespace().next().unwrap());
    let ready = async || Ask::get(&format!("{management}/readyz")).send().await.json().await;
    let ask = || world.calling("/mcp/files", Some(&world.alice), "echo", &json!({"n": 1}));

    let reply = ask().send().await;
    let refused = call_of(&reply);
    assert_eq!(reply.json().await["error"]["code"], -31005);
    assert_eq!(relayed(&upstream, "tools/call").len(), 0);
    assert_eq!(ready().await["log"], false);
    assert!(Ask::get(&format!("{management}/metrics")).send().await.text().await.contains("durward_log_healthy 0\n"));
    world.says("the salt key of the day cannot be had").await;

    for path in &obstructions {
        fs::remove_dir(path).unwrap();
    }
    // Whoever asks brings it back: a gateway that gets no calls because it is not ready stays so otherwise.
    let said = ready().await;
    assert_eq!((&said["log"], &said["ready"]), (&json!(true), &json!(true)), "{said}");
    world.says("can be had again").await;
    let reply = ask().send().await;
    let call = call_of(&reply);
    assert_eq!(reply.json().await["error"], Value::Null);
    assert!(world.record(&call).await["arguments"]["digest"].is_string());
    assert_eq!(outcome(&world.record(&refused).await), "faulted log intend");
}
