//! `/mcp/{server}` changes nothing: bodies, events, statuses and headers arrive as they were sent.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod world;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use testkit::{Agent, Answer, Ask, MODERN, Upstream, soon};
use world::{World, http};

/// What decoders like to lose: annotations, icons, `_meta`, vendor keys, big and odd numbers, order, escapes, blanks.
const ODD: &str = r#"{ "zebra":1,"content":[{"type":"text","text":"caf\u00e9 \u2028 \/ \ud83d\ude00","annotations":{"audience":["user"],"priority":1.0}}],
 "structuredContent":{"big":12345678901234567890123,"one":1,"one_point":1.0,"exp":1e2,"neg":-0,"deep":[[[{}]]],"null":null},
 "_meta":{"vendor.example/x":{"b":1,"a":2}},"execution":{"taskSupport":"optional"},"icons":[{"src":"data:,","sizes":["any"]}],"title":"T","apple" : false }"#;

/// The requests of one call as the upstream saw them: those that carry our call id, not the gateway's own.
fn relayed(upstream: &Upstream, name: &str) -> Vec<testkit::Received> {
    upstream.seen(name).into_iter().filter(|request| request.header("durward-call-id").is_some()).collect()
}

async fn one() -> (Upstream, World) {
    let upstream = Upstream::start().await;
    let world = World::start(&http("files", &upstream)).await;
    (upstream, world)
}

#[tokio::test]
async fn bodies_arrive_byte_for_byte_in_both_directions() {
    let (upstream, world) = one().await;
    for id in ["7", "\"7\"", "\"\\u0061 b\"", "9007199254740993", "0", "-3"] {
        let answer = format!("{{\"jsonrpc\":\"2.0\",\"result\":{ODD},\"id\":{id}}}");
        upstream.next("tools/call", Answer::json(answer.clone()));
        let body = format!(
            "{{\"params\": {{\"arguments\":{ODD}, \"name\":\"echo\",\"x-vendor\":[1.0,1,1e0]}},\n\t\"id\":{id}, \"method\":\"tools/call\",\"jsonrpc\":\"2.0\",\"extra\":null}}"
        );
        let agent = world.legacy("/mcp/files").await;
        let ask = world.post("/mcp/files", &body).header("mcp-session-id", agent.session().unwrap());
        let reply = ask.send().await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.text().await, answer);
        assert_eq!(relayed(&upstream, "tools/call").last().unwrap().body, body.as_bytes());
    }
}

#[tokio::test]
async fn modern_bodies_arrive_byte_for_byte_too() {
    let (upstream, world) = one().await;
    let answer = format!("{{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"result\":{ODD}}}");
    upstream.next("tools/call", Answer::json(answer.clone()));
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{{"name":"echo","arguments":{ODD},"_meta":{{"z":1.0,"io.modelcontextprotocol/protocolVersion":"{MODERN}","io.modelcontextprotocol/clientCapabilities":{{}},"a":{{}}}}}}}}"#
    );
    let ask = world.post("/mcp/files", &body);
    let ask = ask.header("mcp-protocol-version", MODERN).header("mcp-method", "tools/call");
    let ask = ask.header("mcp-name", "echo").header("mcp-param-extra", "kept").header("mcp-session-id", "ignored");
    let reply = ask.send().await;
    assert!(reply.header("mcp-session-id").is_none(), "modern traffic leaves no session");
    assert_eq!(reply.text().await, answer);
    let seen = relayed(&upstream, "tools/call").remove(0);
    assert_eq!(seen.body, body.as_bytes());
    assert_eq!(seen.header("mcp-protocol-version"), Some(MODERN));
    assert_eq!((seen.header("mcp-method"), seen.header("mcp-name")), (Some("tools/call"), Some("echo")));
    assert_eq!((seen.header("mcp-param-extra"), seen.header("mcp-session-id")), (Some("kept"), None));
}

#[tokio::test]
async fn unknown_methods_and_notifications_pass_where_policy_lets_them() {
    let (upstream, world) = one().await;
    let agent = world.legacy("/mcp/files").await;
    let session = agent.session().unwrap().to_owned();
    let raw = r#"{"jsonrpc":"2.0","id":1,"result":{"v" : 1.0}}"#;
    upstream.next("vendor/thing", Answer::json(raw));
    let ask = r#"{"jsonrpc":"2.0","id":1,"method":"vendor/thing","params":{"deep":{"a":[1.0]}}}"#;
    let reply = world.post("/mcp/files", ask).header("mcp-session-id", &session).send().await;
    assert_eq!(reply.text().await, raw);
    let note = r#"{"jsonrpc":"2.0","method":"notifications/vendor","params":{"b":1,"a":2}}"#;
    let reply = world.post("/mcp/files", note).header("mcp-session-id", &session).send().await;
    assert_eq!(reply.status, 202);
    assert!(reply.header("content-type").is_none());
    assert!(reply.bytes().await.is_empty());
    assert_eq!(relayed(&upstream, "notifications/vendor")[0].body, note.as_bytes());
}

#[tokio::test]
async fn events_arrive_as_they_were_sent() {
    let (upstream, world) = one().await;
    let agent = world.legacy("/mcp/files").await;
    let text = ": hello\n\nid: 1\nretry: 250\ndata: \n\nid: 2\nevent: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\n\
        data: \"params\":{\"progressToken\":1,\"progress\":1.0}}\n\n:\n\nid:3\r\ndata:{\"jsonrpc\":\"2.0\",\"id\":77,\"result\":{\"v\":1.0}}\r\n\r\n";
    upstream.next("tools/call", Answer::event_text(text));
    let call = json!({"jsonrpc": "2.0", "id": 77, "method": "tools/call", "params": {"name": "echo"}});
    let reply = agent.ask("tools/call", &call).send().await;
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    assert_eq!(reply.header("x-accel-buffering"), Some("no"));
    assert_eq!(reply.header("cache-control"), Some("no-cache"));
    assert_eq!(reply.text().await, text);
}

#[tokio::test]
async fn the_first_event_does_not_wait_for_the_last() {
    let (upstream, world) = one().await;
    for agent in [world.legacy("/mcp/files").await, world.modern("/mcp/files")] {
        let (answer, feed) = Answer::events();
        upstream.next("tools/call", answer);
        let mut reply = soon(agent.request("tools/call", json!({"name": "echo"}))).await;
        assert_eq!(reply.status, 200);
        let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}});
        feed.message(&progress).await;
        assert_eq!(soon(reply.event()).await.unwrap().json(), progress);
        let id = relayed(&upstream, "tools/call").last().unwrap().id();
        let result = json!({"content": [], "resultType": "complete"});
        feed.message(&json!({"jsonrpc": "2.0", "id": id, "result": result})).await;
        assert_eq!(soon(reply.json()).await["result"], result);
    }
}

#[tokio::test]
async fn statuses_keep_their_meaning() {
    let (upstream, world) = one().await;
    let agent = world.legacy("/mcp/files").await;
    let rpc = r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"no"}}"#;
    for (status, body) in [(400, rpc), (409, r#"{"detail" : "Conflict"}"#), (500, rpc), (503, "[1,2]"), (400, "")] {
        let status = StatusCode::from_u16(status).unwrap();
        upstream.next("tools/call", Answer::json(body).with_status(status));
        let reply = agent.request("tools/call", json!({"name": "echo"})).await;
        assert_eq!(reply.status, status);
        assert_eq!(reply.text().await, body);
    }
    upstream.next("tools/call", Answer::status(StatusCode::TOO_MANY_REQUESTS).header("retry-after", "7"));
    let reply = agent.request("tools/call", json!({"name": "echo"})).await;
    assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (429, Some("7")));
    let reply = agent.listen().await;
    assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, Some("POST, DELETE")));
}

#[tokio::test]
async fn an_upstream_that_refuses_the_gateway_does_not_send_the_client_to_sign_in() {
    let (upstream, world) = one().await;
    let agent = world.legacy("/mcp/files").await;
    for status in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
        let refusal = || Answer::status(status).header("www-authenticate", "Bearer resource_metadata=\"http://evil\"");
        upstream.next("tools/call", refusal()).next("notifications/roots/list_changed", refusal());
        let reply = agent.request("tools/call", json!({"name": "echo"})).await;
        assert_eq!(reply.status, 200);
        assert!(reply.header("www-authenticate").is_none());
        assert_eq!(reply.json().await["error"]["code"], -31006);
        let reply = agent.notify("notifications/roots/list_changed", json!({})).await;
        assert_eq!(reply.status, 502);
        assert!(reply.header("www-authenticate").is_none());
    }
}

#[tokio::test]
async fn a_legacy_call_goes_on_without_its_client() {
    let (upstream, world) = one().await;
    let agent = world.legacy("/mcp/files").await;
    let (answer, feed) = Answer::events();
    upstream.next("tools/call", answer);
    let reply = agent.request("tools/call", json!({"name": "echo"})).await;
    let id = upstream.arrived("tools/call", 1).await.id();
    drop(reply);
    // The stream upstream is still read long after the client is gone.
    for n in 0..100 {
        assert!(feed.message(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": n}})).await);
    }
    assert!(feed.message(&json!({"jsonrpc": "2.0", "id": id, "result": {}})).await);
    drop(feed);
    assert_eq!(outcome(&world, "tools/call").await, "answered");
}

#[tokio::test]
async fn a_modern_call_ends_with_its_client() {
    let (upstream, world) = one().await;
    let agent = world.modern("/mcp/files");
    let (answer, feed) = Answer::events();
    upstream.next("tools/call", answer).next("tools/call", Answer::hang());
    drop(agent.request("tools/call", json!({"name": "echo"})).await);
    soon(feed.closed()).await;
    assert_eq!(outcome(&world, "tools/call").await, "abandoned");
    let waiting = tokio::spawn(async move { agent.request("tools/call", json!({"name": "echo"})).await.status });
    upstream.arrived("tools/call", 2).await;
    waiting.abort();
    upstream.abandoned(2).await;
}

/// How the first call of this method ended, by the log.
async fn outcome(world: &World, method: &str) -> String {
    let mut found = None;
    let log = world.data().join("log");
    world
        .until(|| {
            found = world::records(&log).into_iter().find(|record| record["method"] == method);
            found.is_some()
        })
        .await;
    found.unwrap()["outcome"]["is"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_stream_that_may_be_resumed_gets_no_end_of_ours() {
    let (upstream, world) = one().await;
    let agent = world.legacy("/mcp/files").await;
    let start = "id: a-1\nretry: 10\ndata: \n\n";
    upstream.next("tools/call", Answer::event_text(start));
    let reply = agent.request("tools/call", json!({"name": "echo"})).await;
    assert_eq!(reply.text().await, start);
    let id = relayed(&upstream, "tools/call")[0].id();
    let rest = format!("id: a-2\ndata: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"late\":true}}}}\n\n");
    upstream.next("GET", Answer::event_text(rest.clone()));
    let resume = Ask::get(&world.url("/mcp/files")).bearer(&world.alice).header("accept", "text/event-stream");
    let resume = resume.header("mcp-session-id", agent.session().unwrap()).header("last-event-id", "a-1");
    assert_eq!(resume.send().await.text().await, rest);
    assert_eq!(relayed(&upstream, "GET")[0].header("last-event-id"), Some("a-1"));
    // A stream without ids that ends early is a failure, and is told as one.
    upstream.next("tools/call", Answer::event_text(": nothing\n\n"));
    let answer = agent.request("tools/call", json!({"name": "echo"})).await.json().await;
    assert_eq!(answer["error"]["code"], -31006);
}

#[tokio::test]
async fn a_resumed_list_is_narrowed_as_the_list_was() {
    let upstream = Upstream::with_tools(["read", "erase"]).await;
    let policy = r#"{"policy": "t", "rules": [{"id": "r", "action": "tool.execute", "target": "files/read", "effect": "allow"}]}"#;
    let world = World::with(&format!("servers:\n{}", http("files", &upstream)), policy).await;
    let agent = world.legacy("/mcp/files").await;
    assert_eq!(agent.tools().await, ["read"]);
    let list = r#"{"jsonrpc":"2.0","id":9,"result":{"tools":[{"name":"erase"},{"name":"read","x":1.0}]}}"#;
    upstream.next("GET", Answer::event_text(format!("id: 5\ndata: {list}\n\n")));
    let text = agent.listen().await.text().await;
    assert!(
        !text.contains("erase") && text.contains(r#"{"name":"read","x":1.0}"#) && text.starts_with("id: 5\n"),
        "{text}"
    );
}

#[tokio::test]
async fn each_hop_has_its_own_headers() {
    let (upstream, world) = one().await;
    let agent = world.legacy("/mcp/files").await;
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo"}});
    let ask = agent.ask("tools/call", &call);
    let ask = ask.header("cookie", "a=b").header("x-forwarded-proto", "https").header("x-forwarded-for", "1.2.3.4");
    let ask = ask.header("origin", "http://localhost:1").header("mcp-method", "lies");
    assert_eq!(ask.send().await.status, 200);
    let seen = relayed(&upstream, "tools/call").remove(0);
    for name in ["authorization", "cookie", "x-forwarded-proto", "x-forwarded-for", "origin", "mcp-method"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.header("mcp-protocol-version"), Some("2025-11-25"));
    assert_eq!(seen.header("accept"), Some("application/json, text/event-stream"));
    assert_eq!(seen.header("host"), Some(upstream.address().to_string().as_str()));
    assert_ne!(seen.header("mcp-session-id"), agent.session());
}

#[tokio::test]
async fn smuggled_headers_are_refused() {
    let (upstream, world) = one().await;
    let agent = world.modern("/mcp/files");
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "_meta": testkit::meta()}});
    let good = || agent.ask("tools/call", &call);
    let before = good().send().await;
    assert_eq!(before.status, 200);
    let seen = relayed(&upstream, "tools/call").len();
    for (what, ask) in [
        ("two names", good().header("mcp-name", "echo")),
        ("two methods", good().header("mcp-method", "tools/list")),
        ("another name", good().replace("mcp-name", "erase")),
        ("another method", good().replace("mcp-method", "tools/list")),
        ("another version", good().replace("mcp-protocol-version", "2025-11-25")),
        ("two versions", good().header("mcp-protocol-version", "2026-07-28")),
        ("bad base64", good().replace("mcp-name", "=?base64?%%%?=")),
        ("two parameters", good().header("mcp-param-a", "1").header("mcp-param-a", "2")),
        ("oversized", good().header("mcp-param-a", &"x".repeat(20_000))),
    ] {
        let reply = ask.send().await;
        assert_eq!(reply.status, 400, "{what}");
        let answer = reply.json().await;
        assert_eq!(answer["error"]["code"], -32020, "{what}: {answer}");
    }
    assert_eq!(good().replace("mcp-name", "=?base64?ZWNobw==?=").send().await.status, 200, "the sentinel is decoded");
    assert_eq!(relayed(&upstream, "tools/call").len(), seen + 1);
}

#[tokio::test]
async fn versions_that_do_not_exist_are_refused() {
    let (_upstream, world) = one().await;
    let agent = world.legacy("/mcp/files").await;
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    for version in ["1999-01-01", "2025-11-26", "nonsense"] {
        let reply = agent.ask("ping", &ping).replace("mcp-protocol-version", version).send().await;
        assert_eq!(reply.status, 400, "{version}");
    }
    let reply = agent.ask("ping", &ping).replace("mcp-protocol-version", MODERN).send().await;
    assert_eq!(reply.status, 400, "the header alone does not make a request modern");
}

#[tokio::test]
async fn it_answers_to_the_address_it_listens_on() {
    let upstream = Upstream::start().await;
    let world = World::with(&format!("listen: 127.0.0.2:0\nservers:\n{}", http("files", &upstream)), world::ALL).await;
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for (host, expected) in
        [("127.0.0.2", 200), ("127.0.0.2:7420", 200), ("127.0.0.3", 403), ("127.0.0.2.evil.example", 403)]
    {
        let status = world.post("/mcp/files", call).replace("host", host).send().await.status.as_u16();
        assert_eq!(status, expected, "{host}");
    }
}

#[tokio::test]
async fn pages_in_browsers_do_not_reach_it() {
    let (upstream, world) = one().await;
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for (header, value, expected) in [
        ("host", "evil.example", 403),
        ("host", "evil.example:7420", 403),
        ("host", "127.0.0.1.evil.example", 403),
        ("origin", "http://evil.example", 403),
        ("origin", "null", 403),
        ("origin", "http://localhost.evil.example", 403),
        ("host", "localhost:1", 200),
        ("origin", "http://localhost:6274", 200),
    ] {
        for path in ["/mcp/files", "/mcp"] {
            let ask = world.post(path, call).replace(header, value);
            let status = ask.send().await.status.as_u16();
            if expected == 403 || path == "/mcp/files" {
                assert_eq!(status, expected, "{header}: {value}");
            }
        }
        assert_eq!(
            Ask::get(&world.url("/mcp/files")).bearer(&world.alice).replace(header, value).send().await.status == 403,
            expected == 403
        );
    }
    assert_eq!(relayed(&upstream, "ping").len(), 2);
}

#[tokio::test]
async fn pages_that_may_call_are_told_what_they_may_do_and_read() {
    let upstream = Upstream::start().await;
    let body = format!(
        "origins: [\"https://app.example\"]\nservers:\n  files: {{ url: \"{}\", internal: true, headers: [x-team, x-unasked] }}\n",
        upstream.url()
    );
    let world = World::with(&body, world::ALL).await;
    let preflight = |origin: &str| {
        Ask::new(Method::OPTIONS, &world.url("/mcp/files"))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization, mcp-param-repo, x-other, x-team")
    };
    // What the gateway asks on its own account comes when it comes.
    let calls = || upstream.requests().iter().filter(|seen| seen.header("durward-call-id").is_some()).count();
    for origin in ["https://app.example", "http://localhost:6274"] {
        let reply = preflight(origin).send().await;
        assert_eq!(reply.status, 204);
        assert_eq!(reply.header("access-control-allow-origin"), Some(origin), "named, never *");
        assert_eq!(reply.header("access-control-allow-credentials"), None);
        assert_eq!(reply.header("vary"), Some("Origin"));
        assert_eq!(reply.header("access-control-allow-methods"), Some("GET, POST, DELETE"));
        let allowed: Vec<&str> = reply.header("access-control-allow-headers").unwrap().split(", ").collect();
        for needed in [
            "authorization",
            "content-type",
            "mcp-protocol-version",
            "mcp-session-id",
            "last-event-id",
            "mcp-method",
            "mcp-name",
            "mcp-param-repo",
            "x-api-key",
            "traceparent",
            "tracestate",
            "x-team",
        ] {
            assert!(allowed.contains(&needed), "{needed}: {allowed:?}");
        }
        for other in ["x-other", "x-unasked"] {
            assert!(!allowed.contains(&other), "{allowed:?}");
        }
    }
    for origin in ["https://evil.example", "null"] {
        let reply = preflight(origin).send().await;
        assert_eq!((reply.status.as_u16(), reply.header("access-control-allow-origin")), (403, None));
    }
    assert_eq!(calls(), 0, "a preflight is no call");
    // Answers can be read, refusals too.
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let ask = || world.post("/mcp/files", ping).header("origin", "https://app.example");
    for (ask, status) in [(ask(), 200), (ask().replace("authorization", "Bearer wrong"), 401)] {
        let reply = ask.send().await;
        assert_eq!(reply.status, status);
        assert_eq!(reply.header("access-control-allow-origin"), Some("https://app.example"));
        let readable = reply.header("access-control-expose-headers").unwrap();
        let readable: Vec<&str> = readable.split(", ").collect();
        for needed in [
            "mcp-session-id",
            "mcp-protocol-version",
            "www-authenticate",
            "durward-call-id",
            "retry-after",
            "ratelimit",
            "ratelimit-policy",
        ] {
            assert!(readable.contains(&needed), "{needed}: {readable:?}");
        }
    }
    // Who is no browser is told nothing of all this.
    assert_eq!(world.post("/mcp/files", ping).send().await.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn only_the_doors_are_doors() {
    let (upstream, world) = one().await;
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let before = relayed(&upstream, "ping").len();
    for path in [
        "/",
        "/mcp/",
        "/mcp/files/",
        "/mcp//files",
        "//mcp/files",
        "/mcp/files%2F",
        "/mcp/%66iles",
        "/mcp/files/../files",
        "/MCP/files",
        "/mcp/files/x",
        "/mcpx",
        "/mcp/other",
        "/mcp/FILES",
        "/sse/",
        "/sse/files/",
        "/messages",
        "/messages/",
        "/mcp;files",
    ] {
        let reply = world.post(path, call).send().await;
        assert_eq!(reply.status, 404, "{path}");
    }
    assert_eq!(relayed(&upstream, "ping").len(), before);
    for method in [Method::HEAD, Method::OPTIONS, Method::PUT, Method::PATCH] {
        let reply = Ask::new(method.clone(), &world.url("/mcp/files")).bearer(&world.alice).send().await;
        assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, Some("GET, POST, DELETE")), "{method}");
    }
    for method in [Method::GET, Method::DELETE] {
        let ask = Ask::new(method, &world.url("/mcp/files")).bearer(&world.alice);
        let reply = ask.header("mcp-protocol-version", MODERN).send().await;
        assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, Some("POST")));
    }
    let reply = world.post("/mcp/files", call).replace("content-type", "text/plain").send().await;
    assert_eq!(reply.status, 415);
}

#[tokio::test]
async fn batches_exist_in_one_revision() {
    let (upstream, world) = one().await;
    let url = world.url("/mcp/files");
    let agent = Agent::of("2025-03-26", &url, Some(&world.alice)).await;
    let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"a":1}}},
        {"jsonrpc":"2.0","method":"notifications/initialized"},{"jsonrpc":"2.0","id":"1","method":"ping"}]"#;
    let post = |version: &str, body: &str| {
        let ask = world.post("/mcp/files", body).header("mcp-session-id", agent.session().unwrap());
        ask.header("mcp-protocol-version", version)
    };
    // What the session agreed on counts, whatever a header says, or does not say.
    for version in ["2025-06-18", "2025-11-25"] {
        let other = Agent::of(version, &url, Some(&world.alice)).await;
        let ask = || world.post("/mcp/files", batch).header("mcp-session-id", other.session().unwrap());
        assert_eq!(post(version, batch).send().await.status, 400, "{version}");
        assert_eq!(ask().send().await.status, 400, "{version}");
        assert_eq!(ask().header("mcp-protocol-version", "2025-03-26").send().await.status, 400, "{version}");
    }
    assert_eq!(relayed(&upstream, "tools/call").len(), 0);
    let mut reply = post("2025-03-26", batch).send().await;
    assert_eq!(reply.status, 200);
    let (first, second) = (soon(reply.event()).await.unwrap(), soon(reply.event()).await.unwrap());
    assert!(soon(reply.event()).await.is_none());
    let mut ids = [first.json()["id"].to_string(), second.json()["id"].to_string()];
    ids.sort();
    assert_eq!(ids, ["\"1\"", "1"]);
    // A server that answers with a stream of its own: its events come as they are, not as data of others.
    let text = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#;
    upstream.next("tools/call", Answer::event_text(format!("id: e1\ndata: {text}\n\n")));
    let mut reply = post("2025-03-26", batch).send().await;
    let (first, second) = (soon(reply.event()).await.unwrap(), soon(reply.event()).await.unwrap());
    assert!(soon(reply.event()).await.is_none());
    let streamed = if first.json()["id"] == 1 { first } else { second };
    assert_eq!(streamed.json(), serde_json::from_str::<Value>(text).unwrap());
    assert_eq!(relayed(&upstream, "batch").len(), 0, "each message is a call of its own");
    let notes = r#"[{"jsonrpc":"2.0","method":"notifications/initialized"}]"#;
    let reply = post("2025-03-26", notes).send().await;
    assert_eq!(reply.status, 202);
    assert!(reply.bytes().await.is_empty());
    for bad in ["[]", r#"[{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}]"#, "[1]"] {
        assert_eq!(post("2025-03-26", bad).send().await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_request_has_one_answer() {
    let (upstream, world) = one().await;
    let agent = world.legacy("/mcp/files").await;
    let (answer, feed) = Answer::events();
    upstream.next("tools/call", answer);
    let mut reply = agent.request("tools/call", json!({"name": "echo"})).await;
    let id = upstream.seen("tools/call").last().unwrap().json()["id"].clone();
    for word in ["first", "second"] {
        feed.message(&json!({"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": word}]}}))
            .await;
    }
    drop(feed);
    let answer = soon(reply.event()).await.unwrap();
    assert_eq!(answer.json()["result"]["content"][0]["text"], "first");
    assert!(soon(reply.event()).await.is_none(), "what the record does not know of does not pass");
}

/// A stream on which the server asks the client something.
async fn asked(upstream: &Upstream, agent: &Agent, question: &Value) -> (testkit::Reply, testkit::Feed) {
    let (answer, feed) = Answer::events();
    upstream.next("tools/call", answer);
    let reply = agent.request("tools/call", json!({"name": "echo"})).await;
    feed.message(question).await;
    (reply, feed)
}

#[tokio::test]
async fn a_server_may_ask_and_gets_the_answer() {
    let (upstream, world) = one().await;
    let agent = world.legacy("/mcp/files").await;
    let form = json!({"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}, "x": 1.5});
    for (n, (method, id, params)) in [
        ("sampling/createMessage", json!("ask-1"), json!({"messages": [], "maxTokens": 1, "x": 1.5})),
        ("elicitation/create", json!(7), form),
        ("roots/list", json!("7"), json!({"x": 1.5})),
        ("ping", json!(0), json!({"x": 1.5})),
    ]
    .into_iter()
    .enumerate()
    {
        let question = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let (mut reply, feed) = asked(&upstream, &agent, &question).await;
        assert_eq!(soon(reply.event()).await.unwrap().json(), question);
        let result = match method {
            "sampling/createMessage" => {
                r#"{"role":"assistant","model":"m","content":{"type":"text","text":""},"v":1.0}"#
            }
            "elicitation/create" => r#"{"action":"decline","v":1.0}"#,
            "roots/list" => r#"{"roots":[],"v":1.0}"#,
            _ => "{ }",
        };
        let answer = format!("{{\"result\":{result}, \"id\":{id},\"jsonrpc\":\"2.0\"}}");
        let post = |body: &str| world.post("/mcp/files", body).header("mcp-session-id", agent.session().unwrap());
        let sent = post(&answer).send().await;
        assert_eq!(sent.status, 202, "{method}");
        assert_eq!(upstream.arrived("response", n + 1).await.body, answer.as_bytes());
        assert_eq!(post(&answer).send().await.status, 400, "a question is answered once");
        let call = relayed(&upstream, "tools/call").pop().unwrap();
        feed.message(&json!({"jsonrpc": "2.0", "id": call.id(), "result": {"content": []}})).await;
        assert!(soon(reply.json()).await.get("result").is_some());
        assert_eq!(
            relayed(&upstream, "response").pop().unwrap().header("mcp-session-id"),
            call.header("mcp-session-id")
        );
    }
}

#[tokio::test]
async fn a_question_that_policy_denies_is_answered_by_the_gateway() {
    let upstream = Upstream::start().await;
    let policy =
        r#"{"policy": "t", "rules": [{"id": "tools", "action": "tool.execute", "target": "*/*", "effect": "allow"}]}"#;
    let world = World::with(&format!("servers:\n{}", http("files", &upstream)), policy).await;
    let agent = world.legacy("/mcp/files").await;
    let question = json!({"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": {}});
    let (mut reply, feed) = asked(&upstream, &agent, &question).await;
    let answer = upstream.arrived("response", 1).await.json();
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("q"), &json!(-31001)));
    let call = relayed(&upstream, "tools/call").pop().unwrap();
    feed.message(&json!({"jsonrpc": "2.0", "id": call.id(), "result": {"content": [], "done": true}})).await;
    // What the client hears first is the result.
    assert_eq!(soon(reply.event()).await.unwrap().json()["result"]["done"], true);
}

#[tokio::test]
async fn what_a_server_says_unasked_comes_on_the_get_stream() {
    let (upstream, world) = one().await;
    let agent = world.legacy("/mcp/files").await;
    let (answer, feed) = Answer::events();
    upstream.next("GET", answer);
    let mut stream = agent.listen().await;
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    let raw = "event: message\nid: e1\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":1.0}}\n\n";
    feed.raw(raw).await;
    assert_eq!(soon(stream.event()).await.unwrap().raw, raw);
    let question = json!({"jsonrpc": "2.0", "id": 5, "method": "roots/list"});
    feed.message(&question).await;
    assert_eq!(soon(stream.event()).await.unwrap().json(), question);
    let answer = r#"{"jsonrpc":"2.0","id":5,"result":{"roots":[]}}"#;
    let sent = world.post("/mcp/files", answer).header("mcp-session-id", agent.session().unwrap()).send().await;
    assert_eq!(sent.status, 202);
    assert_eq!(upstream.arrived("response", 1).await.body, answer.as_bytes());
    // The stream ends upstream when the client leaves.
    drop(stream);
    soon(feed.closed()).await;
}

#[tokio::test]
async fn a_subscription_asks_only_for_what_policy_allows() {
    let upstream = Upstream::start().await;
    let policy = r#"{"policy": "t", "rules": [
        {"id": "a", "action": "*", "target": "*/*", "effect": "allow"},
        {"id": "d", "action": "resource.subscribe", "target": "files/file:///secret*", "effect": "deny"}]}"#;
    let world = World::with(&format!("servers:\n{}", http("files", &upstream)), policy).await;
    let agent = world.modern("/mcp/files");
    let (answer, feed) = Answer::events();
    upstream.next("subscriptions/listen", answer);
    let wanted = json!({"notifications": {"toolsListChanged": true, "resourceSubscriptions": ["file:///open", "file:///secret/1"]}});
    let mut stream = agent.request("subscriptions/listen", wanted).await;
    let seen = upstream.arrived("subscriptions/listen", 1).await.json();
    assert_eq!(
        seen["params"]["notifications"],
        json!({"toolsListChanged": true, "resourceSubscriptions": ["file:///open"]})
    );
    let update =
        json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "file:///open"}});
    feed.message(&update).await;
    assert_eq!(soon(stream.event()).await.unwrap().json(), update);
    drop(stream);
    soon(feed.closed()).await;
    // What is no list cannot be judged, and is refused before a server is asked.
    let odd = json!({"notifications": {"resourceSubscriptions": {"0": "file:///secret/1"}}});
    let answer = agent.request("subscriptions/listen", odd).await.json().await;
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
    assert_eq!(upstream.seen("subscriptions/listen").len(), 1);
}

/// A key of a known format: what must not pass.
const SECRET: &str = "AKIAIOSFODNN7EXAMPLE";

#[tokio::test]
async fn secrets_are_masked_wherever_they_stand() {
    let (upstream, world) = one().await;
    let result = json!({"content": [
            {"type": "text", "text": format!("key {SECRET} end")},
            {"type": "resource", "resource": {"uri": "file:///k", "text": SECRET}}],
        "structuredContent": {"deep": [{"key": SECRET}], "n": 1.0}, "isError": false, "resultType": "complete"});
    for agent in [world.legacy("/mcp/files").await, world.modern("/mcp/files")] {
        let whole = result.clone();
        upstream.always("tools/call", move |request| Answer::result(&request.id(), &whole));
        let answer = agent.call("echo", json!({})).await;
        assert!(!answer.to_string().contains(SECRET), "{answer}");
        let clean = answer.to_string().replace("key ", "");
        assert!(clean.contains("structuredContent") && answer["result"]["structuredContent"]["n"] == 1.0, "{answer}");
        assert!(answer["result"]["content"][0]["text"].as_str().unwrap().starts_with("key "));
        let (streamed, feed) = Answer::events();
        upstream.next("tools/call", streamed);
        let mut reply = agent.request("tools/call", json!({"name": "echo"})).await;
        let (head, tail) = SECRET.split_at(9);
        let say = |text: &str| json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": text}});
        feed.message(&say(&format!("it is {head}"))).await;
        feed.message(&say(&format!("{tail} and no more"))).await;
        let first = soon(reply.event()).await.unwrap().data;
        let second = soon(reply.event()).await.unwrap().data;
        assert!(first.contains("it is") && !second.contains(tail) && second.contains("no more"), "{first} {second}");
    }
}

#[tokio::test]
async fn secrets_are_masked_in_all_that_stands_beside_the_data_of_an_event() {
    // Random ids are what ids are.
    const ID: &str = "kX9vQ2mB7nR4tY8wZ1pL6sD3fG5hJ0aC";
    let (upstream, world) = one().await;
    let agent = world.legacy("/mcp/files").await;
    let (answer, feed) = Answer::events();
    upstream.next("GET", answer);
    let mut stream = agent.listen().await;
    let data = r#"data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1.0}}"#;
    for (beside, shown) in [
        (format!(": {SECRET} it is\n"), ": [redacted:aws-access-key] it is\n"),
        (format!("id: {SECRET}\n"), "id: [redacted:aws-access-key]\n"),
        (format!("retry: {SECRET}\n"), "retry: [redacted:aws-access-key]\n"),
        (format!("{SECRET}\n"), "[redacted:aws-access-key]\n"),
        (format!(": {SECRET}\nid: {ID}\n"), &format!(": [redacted:aws-access-key]\nid: {ID}\n")),
    ] {
        feed.raw(format!("{beside}{data}\n\n")).await;
        assert_eq!(soon(stream.event()).await.unwrap().raw, format!("{shown}{data}\n\n"));
    }
    // What is no message of ours passes, too, and is masked, type and all.
    feed.raw(format!("event: {SECRET}\nid: a-{SECRET}\n\n: {SECRET}\n\nid: last\n{data}\n\n")).await;
    let mut said = String::new();
    while !said.contains("id: last") {
        said.push_str(&soon(stream.any_event()).await.unwrap().raw);
    }
    assert!(!said.contains(SECRET) && said.starts_with("event: [redacted:"), "{said}");
    drop(stream);
    // A client goes on from the id that it was shown, and the server says what it makes of it.
    upstream.next("GET", Answer::event_text(format!("id: more\n{data}\n\n")));
    let resume = Ask::get(&world.url("/mcp/files")).bearer(&world.alice).header("accept", "text/event-stream");
    let resume = resume.header("mcp-session-id", agent.session().unwrap());
    let resumed = resume.header("last-event-id", "[redacted:aws-access-key]").send().await;
    assert!(resumed.text().await.starts_with("id: more"));
    let asked = relayed(&upstream, "GET").pop().unwrap();
    assert_eq!(asked.header("last-event-id"), Some("[redacted:aws-access-key]"));
    // The record says where it was.
    let log = world.data().join("log");
    let said = |pointer: &str| {
        let records = world::records(&log);
        let of = |record: &Value| {
            record["findings"].as_array().is_some_and(|found| found.iter().any(|it| it["pointer"] == pointer))
        };
        records.iter().any(of)
    };
    world.until(|| said("/line") && said("/id")).await;
}
