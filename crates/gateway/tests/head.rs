//! What the heads of requests and answers say: on each hop its own, once, and not too much.

mod inside;

use gateway::settings::EraSettings;
use http::Method;
use inside::{Inside, Plan};
use serde_json::json;
use testkit::{Agent, Answer, Ask, LEGACY, Upstream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const VERSION: &str = "mcp-protocol-version";
const ALL: [&str; 5] = ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

fn ping(inside: &Inside, path: &str, agent: &Agent) -> Ask {
    let ask = Ask::post(&inside.url(path), json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string());
    let ask = ask.bearer(&inside.alice);
    match agent.session() {
        Some(session) => ask.header("mcp-session-id", session),
        None => ask,
    }
}

#[tokio::test]
async fn a_server_is_told_what_was_agreed_with_it_whatever_its_client_says() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    for (asked, agreed, told) in [
        (LEGACY, LEGACY, Some(LEGACY)),
        (LEGACY, "2025-06-18", Some("2025-06-18")),
        (LEGACY, "2025-03-26", None),
        ("2025-03-26", "2025-03-26", None),
    ] {
        upstream.always("initialize", move |request| {
            let result = json!({"protocolVersion": agreed, "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}});
            Answer::result(&request.id(), &result).header("mcp-session-id", "one")
        });
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": asked, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
        let reply = Ask::post(&inside.url("/mcp/files"), hello.to_string()).bearer(&inside.alice).send().await;
        let session = reply.header("mcp-session-id").unwrap().to_owned();
        reply.bytes().await;
        let ask = || {
            let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
            Ask::post(&inside.url("/mcp/files"), ping).bearer(&inside.alice).header("mcp-session-id", &session)
        };
        for ask in [ask(), ask().header(VERSION, agreed)] {
            assert_eq!(ask.send().await.status, 200, "{asked} {agreed}");
            let seen = upstream.seen("ping").pop().unwrap();
            assert_eq!(seen.header(VERSION), told, "{asked} {agreed}");
        }
    }
}

#[tokio::test]
async fn a_version_that_the_session_did_not_agree_on_is_refused() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    for path in ["/mcp/files", "/mcp"] {
        let alice = inside.legacy(path, &inside.alice).await;
        let before = upstream.received();
        for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-26", ""] {
            let reply = ping(&inside, path, &alice).header(VERSION, version).send().await;
            assert_eq!(reply.status, 400, "{path} {version}");
            let answer = reply.json().await;
            let code = if version.is_empty() || version == "2025-11-26" { -32022 } else { -32020 };
            assert_eq!(answer["error"]["code"], code, "{path} {version}: {answer}");
            let listening = alice.to_listen().replace(VERSION, version).send().await;
            assert_eq!(listening.status, 400, "{path} {version}");
        }
        assert_eq!(upstream.received(), before, "{path}");
        assert_eq!(ping(&inside, path, &alice).send().await.status, 200, "some clients say none");
        assert_eq!(ping(&inside, path, &alice).header(VERSION, LEGACY).send().await.status, 200);
        let leave = Ask::new(Method::DELETE, &inside.url(path)).bearer(&inside.alice);
        let leave = leave.header("mcp-session-id", alice.session().unwrap());
        assert_eq!(leave.clone().header(VERSION, "2025-06-18").send().await.status, 400, "{path}");
        assert_eq!(leave.send().await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn whoever_asks_for_a_version_that_is_none_is_told_those_of_the_door() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let supported = async |ask: Ask| {
        let reply = ask.header(VERSION, "2099-01-01").send().await;
        assert_eq!(reply.status, 400);
        let answer = reply.json().await;
        assert_eq!(answer["error"]["code"], -32022, "{answer}");
        assert_eq!(answer["error"]["data"]["requested"], "2099-01-01", "{answer}");
        answer["error"]["data"]["supported"].clone()
    };
    for path in ["/mcp", "/mcp/files", "/mcp/none"] {
        let alice = inside.modern(path, &inside.alice);
        assert_eq!(supported(ping(&inside, path, &alice)).await, json!(ALL), "{path}");
        // What is of the modern era is told what `server/discover` says.
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2099-01-01"});
        let discover = json!({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": meta}});
        let discover = Ask::post(&inside.url(path), discover.to_string()).bearer(&inside.alice);
        assert_eq!(supported(discover).await, json!(ALL[..1]), "{path}");
    }
    inside.swap(Plan { bridged: false, era: EraSettings::Legacy, ..Plan::of(&upstream) });
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    assert_eq!(supported(ping(&inside, "/mcp/files", &alice)).await, json!(ALL[1..]));
    // Nobody learns of a server that is none of theirs.
    for path in ["/mcp/files", "/mcp/none"] {
        let stranger = ping(&inside, path, &alice).without("authorization");
        assert_eq!(supported(stranger).await, json!(ALL), "{path}");
    }
}

#[tokio::test]
async fn what_two_readers_could_read_in_two_ways_is_refused() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let before = upstream.received();
    let here = inside.url("");
    for ask in [
        ping(&inside, "/mcp/files", &alice).header("content-type", "application/json"),
        ping(&inside, "/mcp/files", &alice).header("content-type", "text/plain"),
        ping(&inside, "/mcp/files", &alice).header("origin", &here).header("origin", &here),
        ping(&inside, "/mcp/files", &alice).header("origin", &here).header("origin", "http://evil.example"),
    ] {
        let reply = ask.send().await;
        assert_eq!(reply.status, 400);
        assert!(reply.text().await.contains("more than one"));
    }
    assert_eq!(upstream.received(), before);
    assert_eq!(ping(&inside, "/mcp/files", &alice).header("origin", "http://localhost:1").send().await.status, 200);
}

#[tokio::test]
async fn a_compressed_body_is_refused_as_one() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    for coding in ["gzip", "identity, br"] {
        let reply = ping(&inside, "/mcp/files", &alice).header("content-encoding", coding).body("\x1f").send().await;
        assert_eq!((reply.status.as_u16(), reply.header("accept-encoding")), (415, Some("identity")), "{coding}");
        assert!(reply.text().await.contains("Content-Encoding"));
    }
    assert_eq!(ping(&inside, "/mcp/files", &alice).header("content-encoding", "identity").send().await.status, 200);
}

#[tokio::test]
async fn a_body_in_a_transfer_coding_that_is_not_read_is_refused_as_one() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    for (coding, status) in [("gzip, chunked", "501"), ("chunked", "200"), ("Chunked", "200")] {
        let reply = raw_ping(&inside, &alice, coding).await;
        assert!(reply.starts_with(&format!("HTTP/1.1 {status}")), "{coding}: {reply}");
    }
}

/// The test's own client: another does not say what it does not do.
#[expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a client of the gateway under test")]
async fn raw_ping(inside: &Inside, alice: &Agent, coding: &str) -> String {
    let mut stream = TcpStream::connect(inside.address()).await.unwrap();
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let request = format!(
        "POST /mcp/files HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\nmcp-session-id: {}\r\n\
         accept: application/json, text/event-stream\r\ncontent-type: application/json\r\nconnection: close\r\n\
         transfer-encoding: {coding}\r\n\r\n{:x}\r\n{ping}\r\n0\r\n\r\n",
        inside.address(),
        inside.alice,
        alice.session().unwrap(),
        ping.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

#[tokio::test]
async fn an_answer_of_no_type_is_told_to_have_none() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    upstream.next("tools/call", Answer::text(r#"{"jsonrpc":"2.0","id":2,"result":{}}"#));
    let answer = alice.call("echo", json!({})).await;
    assert_eq!(answer["error"]["code"], -31006, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("Content-Type"), "{answer}");
}

#[tokio::test]
async fn a_head_is_as_long_as_is_said_and_no_longer() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    for (length, status) in [(60_000, 200), (66_000, 431), (100_000, 431)] {
        let ask = ping(&inside, "/mcp/files", &alice).header("x-long", &"a".repeat(length));
        assert_eq!(ask.send().await.status, status, "{length}");
    }
    let long = format!("/mcp/files?{}", "a".repeat(65_500));
    assert_eq!(ping(&inside, &long, &alice).send().await.status, 431);
}
