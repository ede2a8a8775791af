//! Keys of the configuration through the binary: what is written of agents, servers, tools and issuers is what decides.
//!
//! Each key is taken away from a configuration that has them all, and the same call has another end.
#![expect(clippy::unwrap_used, reason = "what a test stands on must be there, or the test has failed")]

mod rig;
mod world;

use rcgen::{CertifiedKey, KeyPair};
use rustix::process::Signal;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use testkit::{Agent, Answer, Ask, Issuer, Kind, SigningKey, Upstream, soon};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use world::{ALL, World, http, put};

/// A policy that allows what this condition holds for.
fn when(condition: &str) -> String {
    rig::policy(&json!([{"id": "only", "action": "*", "target": "*/*", "effect": "allow", "when": condition}]))
}

/// Whether the call is carried out for whoever has this key or token.
async fn may_call(world: &World, credential: &str) -> bool {
    let reply = Agent::modern(&world.url("/mcp/files"), Some(credential))
        .request("tools/call", json!({"name": "echo", "arguments": {}}))
        .await;
    reply.status == 200 && reply.json().await.get("result").is_some_and(Value::is_object)
}

#[tokio::test]
async fn what_is_written_of_agents_servers_and_tools_is_what_rules_ask() {
    let upstream = Upstream::with_tools(["echo"]).await;
    let all = format!(
        "agents: {{ alice: {{ roles: [dev], groups: [build], environments: [lab] }}, bob: {{}} }}\n\
         servers: {{ files: {{ url: \"{}\", internal: true, environment: lab, \
         tools: {{ \"ec*\": {{ class: read, labels: [open] }} }} }} }}\n",
        upstream.url()
    );
    let world = World::with(&all, ALL).await;
    for (key, condition) in [
        ("roles: [dev], ", "'dev' in principal.roles"),
        ("groups: [build], ", "'build' in principal.groups"),
        (", environments: [lab]", "'lab' in principal.environments"),
        ("environment: lab, ", "has(target.environment) && target.environment == 'lab'"),
        ("class: read, ", "target.class == 'read'"),
        (", labels: [open]", "'open' in target.labels"),
    ] {
        world.judge(&when(condition)).await;
        assert!(may_call(&world, &world.alice).await, "{key}");
        assert!(all.contains(key));
        world.reload(&all.replace(key, "")).await;
        assert!(!may_call(&world, &world.alice).await, "{key}");
        world.reload(&all).await;
    }

    // Above all rules: who is bound to an environment reaches no server of another.
    world.judge(ALL).await;
    assert!(may_call(&world, &world.alice).await);
    world.reload(&all.replace("environments: [lab]", "environments: [prod]")).await;
    assert!(!may_call(&world, &world.alice).await);
    world.reload(&all.replace(", environments: [lab]", "")).await;
    assert!(may_call(&world, &world.alice).await);
}

#[tokio::test]
async fn what_is_written_of_issuers_decides_over_tokens() {
    let upstream = Upstream::with_tools(["echo"]).await;
    let key = SigningKey::generate(Kind::Ed25519, "one");
    let issuers = "issuers: [{ url: \"https://idp.example\", audience: durward, agent: \"claim:azp\", \
                   user: \"claim:who\", roles: \"claim:jobs\", groups: \"claim:teams\", scopes: \"claim:may\", \
                   algorithms: [EdDSA], jwks: { file: keys.json } }]\n";
    let all = format!("{issuers}servers:\n{}", http("files", &upstream));
    let (folder, alice, bob) = rig::prepared(&all, ALL, &[]).await;
    put(folder.path(), "keys.json", &json!({"keys": [key.jwk()]}).to_string());
    let world = World::launch(folder, alice, bob).await;
    let token = key.token(&json!({
        "iss": "https://idp.example", "aud": "durward", "azp": "alice", "exp": 4_000_000_000_u64,
        "who": "ada", "jobs": ["dev"], "teams": ["build"], "may": "read write",
    }));
    for (key, condition) in [
        ("user: \"claim:who\", ", "has(principal.user) && principal.user == 'ada'"),
        ("roles: \"claim:jobs\", ", "'dev' in principal.roles"),
        ("groups: \"claim:teams\", ", "'build' in principal.groups"),
        ("scopes: \"claim:may\", ", "'write' in principal.scopes"),
    ] {
        world.judge(&when(condition)).await;
        assert!(may_call(&world, &token).await, "{key}");
        assert!(all.contains(key));
        world.reload(&all.replace(key, "")).await;
        assert!(!may_call(&world, &token).await, "{key}");
        world.reload(&all).await;
    }

    world.judge(ALL).await;
    for (of, other) in [
        ("https://idp.example", "https://other.example"),
        ("audience: durward", "audience: another"),
        ("claim:azp", "claim:who"),
        ("algorithms: [EdDSA]", "algorithms: [ES256]"),
        ("algorithms: [EdDSA]", "type: odd+jwt"),
    ] {
        assert!(may_call(&world, &token).await, "before {other}");
        world.reload(&all.replace(of, other)).await;
        assert!(!may_call(&world, &token).await, "{other}");
        world.reload(&all).await;
    }
}

#[tokio::test]
async fn a_tool_whose_schema_is_skipped_is_called_with_anything() {
    let counted = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let tools = vec![json!({"name": "echo", "inputSchema": counted})];
    let upstream = Upstream::at("127.0.0.1:0".parse().unwrap(), tools).await;
    let skipped = ", tools: { echo: { danger_skip_schema: true } }";
    let body = |more: &str| format!("servers:\n  files: {{ url: \"{}\", internal: true{more} }}\n", upstream.url());
    let world = World::with(&body(""), ALL).await;
    assert!(!may_call(&world, &world.alice).await);
    world.reload(&body(skipped)).await;
    assert!(may_call(&world, &world.alice).await);
    world.reload(&body("")).await;
    assert!(!may_call(&world, &world.alice).await);
    assert_eq!(rig::relayed(&upstream, "tools/call").len(), 1);
}

#[tokio::test]
async fn what_servers_send_is_masked_only_where_results_say_so() {
    const TOKEN: &str = "ghp_A7dK2mQ9xR4tV8wZ1cF6hJ3nP5sY0u2Kq9Lb";
    let upstream = Upstream::with_tools(["echo"]).await;
    upstream.always("tools/call", |request| {
        let content = json!([{"type": "text", "text": format!("token {TOKEN}")}]);
        Answer::result(&request.id(), &json!({"content": content, "resultType": "complete"}))
    });
    let body = |results: &str| format!("{results}servers:\n{}", http("files", &upstream));
    let world = World::with(&body(""), ALL).await;
    for (results, passes) in [("off", true), ("", false), ("report", true), ("mask", false)] {
        let line = if results.is_empty() {
            String::new()
        } else {
            format!("detect: {{ secrets: {{ results: {results} }} }}\n")
        };
        world.reload(&body(&line)).await;
        let answer = world.calling("/mcp/files", Some(&world.alice), "echo", &json!({})).send().await.text().await;
        assert_eq!(answer.contains(TOKEN), passes, "{results}: {answer}");
    }
}

#[tokio::test]
async fn a_limit_counts_what_its_globs_name() {
    let (files, wiki) = (Upstream::with_tools(["echo"]).await, Upstream::with_tools(["echo"]).await);
    let servers = format!("servers:\n{}{}", http("files", &files), http("wiki", &wiki));
    let body = |named: &str| format!("{servers}limits: [{{ for: {{ {named} }}, rate: 1/h }}]\n");
    let world = World::with(&servers, ALL).await;
    let refused = async |server: &str| {
        let path = format!("/mcp/{server}");
        let answer = world.calling(&path, Some(&world.alice), "echo", &json!({})).send().await.json().await;
        answer["error"]["code"] == -31002
    };
    for (named, expected) in [
        // One bucket each; one for both; none, for nobody is of that tenant; one for the one server.
        ("server: \"*\"", [false, false, true, true]),
        ("tenant: \"*\"", [false, true, true, true]),
        ("tenant: other", [false, false, false, false]),
        ("server: wiki", [false, false, false, true]),
    ] {
        world.reload(&body(named)).await;
        let seen = [refused("files").await, refused("wiki").await, refused("files").await, refused("wiki").await];
        assert_eq!(seen, expected, "{named}");
        world.reload(&servers).await;
    }
}

#[tokio::test]
async fn roots_of_a_server_are_those_of_its_file() {
    let upstream = Upstream::with_tools(["echo"]).await;
    let (own, other) = (identity(), identity());
    let port = behind_tls(&own, &upstream).await;
    let body =
        |more: &str| format!("servers:\n  files: {{ url: \"https://localhost:{port}/mcp\", internal: true{more} }}\n");
    let (folder, alice, bob) = rig::prepared(&body(", ca: own.pem"), ALL, &[]).await;
    put(folder.path(), "own.pem", &own.cert.pem());
    put(folder.path(), "other.pem", &other.cert.pem());
    let world = World::launch(folder, alice, bob).await;
    assert!(may_call(&world, &world.alice).await);
    for more in ["", ", ca: other.pem"] {
        world.reload(&body(more)).await;
        assert!(!may_call(&world, &world.alice).await, "{more}");
        world.reload(&body(", ca: own.pem")).await;
        assert!(may_call(&world, &world.alice).await, "{more}");
    }
}

#[tokio::test]
async fn a_server_is_spoken_to_as_it_is_written_that_it_speaks() {
    // This one speaks HTTP/1.1, and streamable HTTP.
    let upstream = Upstream::with_tools(["echo"]).await;
    let body = |more: &str| format!("servers:\n  files: {{ url: \"{}\", internal: true{more} }}\n", upstream.url());
    let world = World::with(&body(""), ALL).await;
    for more in [", transport: sse", ", http2: true"] {
        assert!(may_call(&world, &world.alice).await, "before {more}");
        world.reload(&body(more)).await;
        assert!(!may_call(&world, &world.alice).await, "{more}");
        world.reload(&body("")).await;
    }
}

#[tokio::test]
async fn what_says_nothing_is_waited_for_as_long_as_the_bounds_say() {
    let upstream = Upstream::with_tools(["echo"]).await;
    let body = |bounds: &str| format!("{bounds}servers:\n{}", http("files", &upstream));
    let world = World::with(&body(""), ALL).await;
    assert!(may_call(&world, &world.alice).await);
    let ended = async || {
        let call = world.calling("/mcp/files", Some(&world.alice), "echo", &json!({}));
        let whole = async { call.send().await.text().await };
        timeout(Duration::from_secs(2), whole).await.is_ok()
    };
    for (key, silent) in [("deadline", true), ("stream_idle", false)] {
        for (bounds, ends) in [(format!("bounds: {{ {key}: 300ms }}\n"), true), (String::new(), false)] {
            world.reload(&body(&bounds)).await;
            let (answer, feed) = Answer::events();
            upstream.next("tools/call", if silent { Answer::hang() } else { answer });
            assert_eq!(ended().await, ends, "{key} {bounds}");
            drop(feed);
        }
    }
}

#[tokio::test]
async fn keys_of_issuers_come_from_where_it_is_written_and_clocks_may_differ_so_much() {
    let upstream = Upstream::with_tools(["echo"]).await;
    let (issuer, stranger) = (Issuer::start(Kind::Ed25519).await, Issuer::start(Kind::Ed25519).await);
    let all = format!(
        "issuers: [{{ url: \"https://idp.example\", audience: durward, agent: \"claim:azp\", internal: true, leeway: 5m, \
         jwks: {{ url: \"{}\" }} }}]\nservers:\n{}",
        issuer.jwks_url(),
        http("files", &upstream)
    );
    let world = World::with(&all, ALL).await;
    #[expect(clippy::disallowed_methods, reason = "tokens are judged by the clock of this machine")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = |exp: u64| json!({"iss": "https://idp.example", "aud": "durward", "azp": "alice", "exp": exp});
    let (fresh, late) = (issuer.token(claims(now + 3600)), issuer.token(claims(now - 120)));
    assert!(may_call(&world, &fresh).await);
    assert!(may_call(&world, &late).await, "two minutes are less than five");
    world.reload(&all.replace("leeway: 5m, ", "")).await;
    assert!(!may_call(&world, &late).await, "and more than what is usual");
    world.reload(&all.replace(&issuer.jwks_url(), &stranger.jwks_url())).await;
    assert!(!may_call(&world, &fresh).await, "its key is not among those of the other address");

    // Plain HTTP on this machine is for issuers that are marked.
    let before = world.said().len();
    put(world.folder(), "durward.yaml", &world::complete(&all.replace("internal: true, leeway", "leeway")));
    world.signal(Signal::HUP);
    world.says_after(before, "internal").await;
}

#[tokio::test]
async fn listeners_and_workers_are_what_is_written() {
    let upstream = Upstream::with_tools(["echo"]).await;
    let body = format!("public_url: \"https://gate.example.com/\"\nservers:\n{}", http("files", &upstream));
    let (folder, alice, bob) = rig::prepared(&body, ALL, &[]).await;
    let text = world::complete(&body).replace("admin: { listen: 127.0.0.1:0 }", "admin: { listen: 127.0.0.2:0 }");
    put(folder.path(), "durward.yaml", &text.replace("workers: 2", "workers: 3"));
    let world = World::launch(folder, alice, bob).await;
    world
        .until(|| {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", world.pid())).unwrap().flatten();
            let named = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
            named.filter(|name| name.starts_with("worker-")).count() == 3
        })
        .await;
    let management = world.says("management").await;
    let (_, rest) = management.split_once("http://").unwrap();
    let place = rest.split_whitespace().next().unwrap().trim_end_matches('/');
    assert!(place.starts_with("127.0.0.2:"), "{management}");
    assert_eq!(Ask::get(&format!("http://{place}/metrics")).send().await.status, 200);

    let through_proxy = async || {
        let ask = world.calling("/mcp/files", Some(&world.alice), "echo", &json!({}));
        ask.replace("host", "gate.example.com").send().await.status
    };
    assert_eq!(through_proxy().await, 200);
    world.reload(&body.replace("public_url", "hosts: [elsewhere.example.com]\n#")).await;
    assert_eq!(through_proxy().await, 403);
}

#[tokio::test]
async fn keys_cross_the_network_in_the_clear_only_where_that_is_written() {
    let upstream = Upstream::with_tools(["echo"]).await;
    let body = |more: &str| format!("listen: 0.0.0.0:0\n{more}servers:\n{}", http("files", &upstream));
    let (folder, alice, bob) = rig::prepared(&body(""), ALL, &[]).await;
    let ended = soon(world::command(folder.path()).output()).await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success() && said.contains("danger_plain_http"), "{said}");
    put(folder.path(), "durward.yaml", &world::complete(&body("danger_plain_http: true\n")));
    let world = World::launch(folder, alice, bob).await;
    world.says("keys and calls cross the network in the clear").await;
    let url = format!("http://127.0.0.1:{}/mcp/files", world.address.port());
    assert!(Agent::modern(&url, Some(&world.alice)).call("echo", json!({})).await["result"].is_object());
}

#[tokio::test]
async fn the_master_key_is_where_it_is_written() {
    let upstream = Upstream::with_tools(["echo"]).await;
    let body = |vault: &str| {
        let server =
            format!("files: {{ url: \"{}\", internal: true, credential: {{ bearer: token }} }}", upstream.url());
        format!("{vault}servers: {{ {server} }}\n")
    };
    for (vault, variable) in [
        ("vault: { key: { file: keys/own.key } }\n", false),
        ("vault: { key: { command: [cat, keys/own.key] } }\n", false),
        ("vault: { key: { env: OWN_KEY } }\n", true),
    ] {
        let (folder, alice, bob) = rig::prepared(&body(""), ALL, &[("token", "what-the-server-wants")]).await;
        // The key moves; where it was, there is none.
        std::fs::create_dir(folder.path().join("keys")).unwrap();
        std::fs::rename(folder.path().join("data/master.key"), folder.path().join("keys/own.key")).unwrap();
        let key = std::fs::read_to_string(folder.path().join("keys/own.key")).unwrap();
        let started = || {
            let mut command = world::command(folder.path());
            command.current_dir(folder.path());
            if variable {
                command.env("OWN_KEY", key.trim());
            }
            command
        };
        let ended = soon(started().output()).await.unwrap();
        assert!(!ended.status.success(), "{vault}: {}", String::from_utf8_lossy(&ended.stderr));
        put(folder.path(), "durward.yaml", &world::complete(&body(vault)));
        let world = World::run(started(), folder, alice, bob).await;
        assert!(may_call(&world, &world.alice).await, "{vault}");
        let sent = rig::relayed(&upstream, "tools/call").pop().unwrap();
        assert_eq!(sent.header("authorization"), Some("Bearer what-the-server-wants"), "{vault}");
    }
}

/// A server in a few lines of shell, of the old era: its name says where it runs, its version how much memory it may have.
const SCRIPT: &str = r#"while read -r line; do case $line in
  *'"initialize"'*)
    id=${line#*\"id\":}; id=${id%%[,\}]*}
    echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{},\"serverInfo\":{\"name\":\"$PWD\",\"version\":\"$(ulimit -d)\"}}}" ;;
esac; done"#;

/// A gateway before that server, with these keys of it and these bounds.
async fn before_a_process(keys: &str, bounds: &str) -> World {
    let (folder, alice, bob) = rig::prepared("", ALL, &[]).await;
    put(folder.path(), "there/serve.sh", SCRIPT);
    let script = folder.path().join("there/serve.sh");
    let server = format!("files: {{ command: [/bin/sh, \"{}\"], era: legacy{keys} }}", script.display());
    put(folder.path(), "durward.yaml", &world::complete(&format!("{bounds}servers: {{ {server} }}\n")));
    World::launch(folder, alice, bob).await
}

/// What whoever has this key is told of the server when it opens a session.
async fn introduced(world: &World, key: &str) -> Value {
    let params =
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}});
    let introduction = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    Ask::post(&world.url("/mcp/files"), introduction.to_string()).bearer(key).send().await.json().await
}

#[tokio::test]
async fn a_command_runs_where_it_is_written_and_with_the_memory_that_is_written() {
    let world = before_a_process("", "").await;
    let here = std::fs::canonicalize(world.folder()).unwrap();
    let told = introduced(&world, &world.alice).await["result"]["serverInfo"].clone();
    assert_eq!((&told["name"], &told["version"]), (&json!(here), &json!("2097152")), "where the file is, and 2 GiB");
    let world = before_a_process(", directory: there, memory: 64MiB", "").await;
    let there = std::fs::canonicalize(world.folder()).unwrap().join("there");
    let told = introduced(&world, &world.alice).await["result"]["serverInfo"].clone();
    assert_eq!((&told["name"], &told["version"]), (&json!(there), &json!("65536")));
}

#[tokio::test]
async fn so_many_processes_run_as_the_bounds_say() {
    for (bounds, expected) in [
        ("", [true, true, true]),
        ("bounds: { children_per_principal: 1 }\n", [true, false, true]),
        ("bounds: { children: 2, children_per_principal: 2 }\n", [true, true, false]),
    ] {
        let world = before_a_process("", bounds).await;
        let mut opened = Vec::new();
        for (key, opens) in [&world.alice, &world.alice, &world.bob].into_iter().zip(expected) {
            let mut answer = introduced(&world, key).await;
            // The gateway's own look has a process for a moment, too.
            for _ in 0..40 {
                if !opens || answer["result"].is_object() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                answer = introduced(&world, key).await;
            }
            if let Some(call) = answer["error"]["data"]["call"].as_str() {
                let record = world.record(call).await;
                assert!(record["error"].as_str().is_some_and(|why| why.contains("processes")), "{record:#}");
            }
            opened.push(answer["result"].is_object());
        }
        assert_eq!(opened, expected, "{bounds}");
    }
}

fn identity() -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap()
}

/// A port where TLS leads to this server.
async fn behind_tls(identity: &CertifiedKey<KeyPair>, upstream: &Upstream) -> u16 {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![identity.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, behind) = (listener.local_addr().unwrap().port(), upstream.address());
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut near) = acceptor.accept(near).await else { return };
                #[expect(clippy::disallowed_methods, reason = "a fake server passes on")]
                let mut far = TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    port
}
