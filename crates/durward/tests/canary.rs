//! Canaries in every store: none of them may be found where they do not belong.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what the test stands on must be there, or the test has failed"
)]

mod rig;
mod world;

use rig::{prepared, relayed};
use serde_json::{Value, json};
use std::{
    io::{BufRead, Write},
    path::Path,
};
use testkit::{Answer, Ask, Upstream};
use world::{ALL, World};

const VAULT: &str = "canary-vault-6f1d0c2b9a";
const HEADER: &str = "canary-header-77aa01b3";
const QUERY: &str = "canary-query-0192ab4d";
const CHILD: &str = "canary-child-d41e77a0";
const PLAIN: &str = "canary of a plain variable";
const ARGUMENT: &str = "canary-argument-55cd9e2f";
const RESULT: &str = "canary-result-1b7e4f90";
const CLIENT: &str = "canary-client-header-9c3f";
/// One that detectors know, in what calls name.
const NAMED: &str = "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";
/// The half of it that is left where a long name is cut.
const HALF: &str = "ghp_A7dK2mQ9xR4t";
/// What no detector knows but by its place in an address.
const SIGNED_IN: &str = "canary-signed-in-3b08";
const TOKEN: &str = "canary.bearer.c2lnbmVkLW5vdA";

/// Not a test unless the gateway starts it: then it is a server until its input ends.
#[test]
#[expect(clippy::disallowed_methods, reason = "the gateway says through the environment what this process is")]
fn the_server_itself() {
    if std::env::var("MARK").is_err() {
        return;
    }
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        let result = match message["method"].as_str() {
            Some("initialize") => json!({"protocolVersion": message["params"]["protocolVersion"],
                "capabilities": {"tools": {}}, "serverInfo": {"name": "self", "version": "1"}}),
            Some("tools/list") => json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}),
            // It tells all that it knows.
            _ => {
                let own: Vec<_> = std::env::vars().filter(|(name, _)| name.ends_with("TOKEN")).collect();
                json!({"content": [{"type": "text", "text": RESULT}, {"type": "text", "text": json!(own).to_string()}]})
            }
        };
        if !message["id"].is_null() {
            let mut out = std::io::stdout().lock();
            out.write_all(format!("{}\n", json!({"jsonrpc": "2.0", "id": message["id"], "result": result})).as_bytes())
                .unwrap();
            out.flush().unwrap();
        }
    }
    std::process::exit(0);
}

/// A server that is this binary, marked in its environment.
fn process(name: &str, mark: &str, more: &str) -> String {
    let program = std::env::current_exe().unwrap();
    format!(
        "  {name}: {{ command: [\"{}\", --exact, the_server_itself, --nocapture], env: {{ MARK: {mark}, OWN: {PLAIN} }}, era: legacy{more} }}\n",
        program.display()
    )
}

/// The environment and the command line of the process that carries this mark.
fn environment(mark: &str) -> String {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let read = |path: std::path::PathBuf| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let found = all.filter_map(|entry| Some((read(entry.path().join("environ")).ok()?, entry.path())));
    let mut found = found.filter(|(environ, _)| environ.split('\0').any(|one| one == format!("MARK={mark}")));
    let (environ, path) = found.next().expect("the process runs");
    environ + &read(path.join("cmdline")).unwrap()
}

#[tokio::test]
async fn no_canary_is_found_where_it_does_not_belong() {
    let upstream = Upstream::start().await;
    // It tells all that it was told.
    upstream.always("tools/call", |request| {
        let told = format!("{:?} {}", request.headers, request.path);
        Answer::result(
            &request.id(),
            &json!({"content": [{"type": "text", "text": RESULT}, {"type": "text", "text": told}]}),
        )
    });
    let collector = Upstream::start().await;
    let body = format!(
        "telemetry: {{ otlp: {{ endpoint: \"http://{collector}/base/\" }} }}\n\
         servers:\n\
         \x20 files:\n\
         \x20   url: \"{url}\"\n\
         \x20   internal: true\n\
         \x20   credential:\n\
         \x20     - {{ bearer: upstream-token }}\n\
         \x20     - {{ header: X-Key, secret: upstream-header }}\n\
         \x20     - {{ query: key, secret: upstream-query }}\n\
         {trusted}{other}\
         \x20 down: {{ url: \"http://127.0.0.1:9/mcp\", internal: true, credential: {{ query: key, secret: upstream-query }} }}\n",
        url = upstream.url(),
        collector = collector.address(),
        trusted = process("trusted", "trusted-one", ", credential: { env: CHILD_TOKEN, secret: child-token }"),
        other = process("other", "other-one", ""),
    );
    let secrets =
        [("upstream-token", VAULT), ("upstream-header", HEADER), ("upstream-query", QUERY), ("child-token", CHILD)];
    let (folder, alice, bob) = prepared(&body, ALL, &secrets).await;
    // Everything that can be said is said.
    let mut command = world::command(folder.path());
    command.env("DURWARD_LOG", "trace").env("RUST_BACKTRACE", "1");
    let world = World::run(command, folder, alice, bob).await;
    let mut seen = Vec::new();
    let arguments = json!({"text": ARGUMENT, "deep": [{ARGUMENT: 1}]});
    let call = |path: &str, tool: &str| world.calling(path, Some(&world.alice), tool, &arguments);
    // Answered, unknown, down, unread, unauthenticated, twice over.
    let asks = [
        call("/mcp/files", "echo").header("cookie", CLIENT).header("x-private", CLIENT),
        call("/mcp", "files__echo"),
        call("/mcp/files", "missing"),
        call("/mcp/down", "echo"),
        call("/mcp/nowhere", "echo"),
        Ask::post(&world.url("/mcp/files"), format!("{{\"{ARGUMENT}\"")).bearer(&world.alice),
        Ask::post(&world.url("/mcp/files"), format!("{{\"jsonrpc\":\"2.0\",\"{ARGUMENT}\":1,\"{ARGUMENT}\":2}}"))
            .bearer(&world.alice),
        Ask::post(&world.url("/mcp/files"), "{}".to_owned()).bearer(TOKEN),
        call("/mcp/files", "echo").bearer(TOKEN),
        call("/mcp/files", "echo").header("x-api-key", &world.bob),
    ];
    for (at, ask) in asks.into_iter().enumerate() {
        let reply = ask.send().await;
        let head = format!("{reply:?}");
        let text = format!("{head} {}", reply.text().await);
        for canary in [VAULT, HEADER, QUERY, CHILD, PLAIN, CLIENT, TOKEN, &world.alice, &world.bob] {
            assert!(!text.contains(canary), "answer {at} holds {canary}: {text}");
        }
        // The server did tell: three credentials, each where it was.
        assert!(at > 1 || text.matches("[redacted:").count() >= 3, "answer {at}: {text}");
        seen.push(text);
    }
    let sent = relayed(&upstream, "tools/call");
    assert_eq!(sent.len(), 2);
    for request in &sent {
        assert_eq!(request.header("authorization"), Some(format!("Bearer {VAULT}").as_str()));
        assert_eq!(request.header("x-key"), Some(HEADER));
        assert!(request.path.contains(&format!("key={QUERY}")), "{}", request.path);
        // Nothing of the caller's own travels on.
        let headers = format!("{:?}", request.headers);
        assert!(
            !headers.contains(CLIENT) && !headers.contains(&world.alice) && !headers.contains("cookie"),
            "{headers}"
        );
    }

    assert_eq!(names(&world).await, 150);

    // A secret of a process is in that process's environment, and in no other one's.
    let sessions = [world.legacy("/mcp/trusted").await, world.legacy("/mcp/other").await];
    for (agent, told) in sessions.iter().zip([r#"[["CHILD_TOKEN","[redacted:credential]"]]"#, "[]"]) {
        let said = agent.call("echo", arguments.clone()).await;
        assert_eq!(said["result"]["content"][0]["text"], RESULT);
        assert_eq!(said["result"]["content"][1]["text"], told);
    }
    let (trusted, other) = (environment("trusted-one"), environment("other-one"));
    assert!(trusted.contains(&format!("CHILD_TOKEN={CHILD}")), "{trusted}");
    let own = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", world.pid())).unwrap();
    let gateway = own("environ") + &own("cmdline");
    for canary in [VAULT, HEADER, QUERY, TOKEN, &world.alice, &world.bob] {
        assert!(!trusted.contains(canary) && !other.contains(canary), "a process was given {canary}");
        assert!(!gateway.contains(canary));
    }
    assert!(!other.contains(CHILD) && !gateway.contains(CHILD));

    let (alice, bob, folder) = (world.alice.clone(), world.bob.clone(), world.folder().to_owned());
    let session = world.legacy("/mcp").await.session().unwrap().to_owned();
    world.until(|| world.said().iter().any(|line| line.contains("echo"))).await;
    let management = world.says("management").await;
    let address = management.split_once("http://").unwrap().1.split_whitespace().next().unwrap();
    let mut told = vec![("metrics", Ask::get(&format!("http://{address}/metrics")).send().await.text().await)];
    told.extend(COMMANDS.iter().map(|line| (*line, said_by(&folder, line))));
    let kept = texts(&folder.join("data"));
    let master = std::fs::read_to_string(folder.join("data/master.key")).unwrap();
    // Its own task reads what it says: what it said last is there when it has ended.
    let listening = world.listening();
    let (status, _folder) = world.stop().await;
    assert!(status.success());
    told.push(("stderr", listening.everything().await.join("\n")));
    told.extend(COMMANDS.iter().map(|line| (*line, said_by(&folder, line))));
    let after = texts(&folder.join("data"));
    let exported = collector.requests();
    assert!(exported.iter().any(|request| request.path.ends_with("/traces")), "spans were exported");
    for canary in [
        VAULT,
        HEADER,
        QUERY,
        CHILD,
        PLAIN,
        ARGUMENT,
        RESULT,
        CLIENT,
        TOKEN,
        NAMED,
        HALF,
        SIGNED_IN,
        &alice,
        &bob,
        &session,
        master.trim(),
    ] {
        for (who, text) in &told {
            assert!(!text.contains(canary), "`{who}` says {canary}:\n{text}");
        }
        for request in &exported {
            let head = format!("{} {:?}", request.path, request.headers);
            assert!(!contains(&request.body, canary.as_bytes()) && !head.contains(canary), "a collector got {canary}");
        }
        for (file, text) in kept.iter().chain(&after) {
            let is_the_key = file.ends_with("master.key") && canary == master.trim();
            assert!(is_the_key || !contains(text, canary.as_bytes()), "{file} holds {canary}");
        }
    }
    assert!(after.len() > 5, "the scan saw the log, the store and the vault: {}", after.len());
    drop(seen);
}

/// Canaries in all that a call can name, known or not, in both eras and on both doors. How many calls there were.
async fn names(world: &World) -> usize {
    let mut said = 0;
    for (path, of) in [("/mcp/files", ""), ("/mcp", "files__"), ("/mcp", "")] {
        let (modern, legacy) = (world.modern(path), world.legacy(path).await);
        // An error that quotes the last one cuts it in the middle of the secret.
        let cut = format!("{of}{}.{NAMED}", "x".repeat(127 - of.len() - HALF.len()));
        for name in [format!("{of}{NAMED}"), format!("{of}read.{NAMED}"), cut] {
            let prompt = json!({"type": "ref/prompt", "name": name});
            for (method, params) in [
                ("tools/call", json!({"name": name, "arguments": {}})),
                ("prompts/get", json!({"name": name})),
                ("completion/complete", json!({"ref": prompt, "argument": {"name": "a", "value": ""}})),
                ("tasks/get", json!({"taskId": name})),
                (name.trim_start_matches(of), json!({})),
            ] {
                modern.request(method, params.clone()).await.text().await;
                legacy.request(method, params).await.text().await;
                said += 2;
            }
        }
        for uri in [
            format!("file:///home/{NAMED}"),
            format!("https://host/?token={NAMED}"),
            format!("https://app:{SIGNED_IN}@host/{NAMED}"),
            format!("postgres://{SIGNED_IN}@host/x"),
        ] {
            let uri = if of.is_empty() { uri } else { format!("durward://files/{uri}") };
            let resource = json!({"type": "ref/resource", "uri": uri});
            let complete = json!({"ref": resource, "argument": {"name": "a", "value": ""}});
            for (method, params) in [("resources/read", json!({"uri": uri})), ("completion/complete", complete)] {
                modern.request(method, params.clone()).await.text().await;
                legacy.request(method, params).await.text().await;
                said += 2;
            }
            legacy.request("resources/subscribe", json!({"uri": uri})).await.text().await;
            said += 1;
        }
    }
    said
}

/// What people ask, of a gateway that runs and of a directory that nobody holds.
const COMMANDS: [&str; 12] = [
    "check",
    "config show",
    "config schema",
    "agent list",
    "server list",
    "secret list",
    "policy check",
    "policy explain --agent alice --tool files/echo",
    "audit tail",
    "audit tail --output json",
    "audit search --agent alice --output json",
    "audit verify",
];

/// All that a command says, whatever it ends with.
#[expect(clippy::disallowed_methods, reason = "a test starts the product")]
fn said_by(folder: &Path, line: &str) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_durward"));
    command.args(line.split_whitespace()).env("DURWARD_LOG", "trace").env("RUST_BACKTRACE", "1");
    let command = command.arg("--config").arg(folder.join("durward.yaml")).arg("--data").arg(folder.join("data"));
    let output = command.output().unwrap();
    assert_ne!(output.status.code(), Some(2), "`{line}` is no command: {}", String::from_utf8_lossy(&output.stderr));
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn contains(text: &[u8], what: &[u8]) -> bool {
    text.windows(what.len()).any(|window| window == what)
}

/// Every file below a folder.
fn texts(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(texts(&path));
        } else if let Ok(text) = std::fs::read(&path) {
            found.push((path.display().to_string(), text));
        }
    }
    found
}
