//! Hostile peers on every leg: what they send stays inside the stated bounds, and honest ones are served meanwhile.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what the test stands on must be there, or the test has failed"
)]

mod rig;
mod world;

use rig::{call_of, outcome, relayed};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use testkit::{Agent, Answer, Ask, Upstream, soon};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use world::{ALL, World, http};

/// The stated bounds of memory, for a build with debug assertions; a release build needs less.
const SESSIONS: usize = 10_000;
const MEGABYTES_FOR_SESSIONS: u64 = 200;
const MEGABYTES_UNDER_ATTACK: u64 = 256;
/// Slow bodies of 64 KiB of nobody that is known, and of 4 MB of a caller.
const STRANGERS: usize = 4000;
const GREEDY: usize = 60;

fn resident(world: &World) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

async fn one(bounds: &str) -> (Upstream, World) {
    let upstream = Upstream::start().await;
    let world = World::with(&format!("{bounds}\nservers:\n{}", http("files", &upstream)), ALL).await;
    let answer = world.calling("/mcp/files", Some(&world.alice), "echo", &json!({})).send().await.json().await;
    assert_eq!(answer["error"], Value::Null);
    (upstream, world)
}

#[expect(clippy::disallowed_methods, reason = "a test dials what it is told to")]
async fn raw(world: &World, text: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(text).await.unwrap();
    stream
}

#[tokio::test]
async fn what_clients_send_is_bounded_before_it_is_read() {
    let (upstream, world) = one("bounds: { body: 64KiB, depth: 16 }").await;
    let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
    let wide = "x".repeat(70_000);
    let call = |arguments: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"echo","arguments":{arguments}}}}}"#
        )
    };
    for (what, body, status) in [
        ("too deep", call(&format!("{{\"a\":{deep}}}")), 400),
        ("too large", call(&format!("{{\"a\":\"{wide}\"}}")), 413),
        ("twice the same key", call(r#"{"a":1,"a":2}"#), 400),
        ("twice the same key, escaped", call(r#"{"a":1,"\u0061":2}"#), 400),
        ("a lone surrogate", call(r#"{"a":"\ud800"}"#), 400),
        ("two methods", r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#.to_owned(), 400),
        ("a bare control character", call("{\"a\":\"\u{0}\"}"), 400),
    ] {
        let reply = world.post("/mcp/files", &body).send().await;
        assert_eq!(reply.status.as_u16(), status, "{what}");
        assert_eq!(world.record(&call_of(&reply)).await["outcome"]["stage"], "receive", "{what}");
    }
    for (what, bytes) in
        [("no UTF-8", &b"\xff"[..]), ("a character cut short", b"\xc3"), ("too long a form", b"\xc0\xaf")]
    {
        let (start, end) = (br#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":""#, br#""}}"#);
        let body = [&start[..], bytes, &end[..]].concat();
        let reply = Ask::post(&world.url("/mcp/files"), body).bearer(&world.alice).send().await;
        assert_eq!(reply.status.as_u16(), 400, "{what}");
        assert_eq!(world.record(&call_of(&reply)).await["outcome"]["reason"], "body", "{what}");
    }
    // Who writes before it reads learns why, too.
    let (wide, head) = (" ".repeat(3 << 20), |more: &str| {
        format!(
            "POST /mcp/files HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n{more}\r\n",
            world.address, world.alice
        )
    });
    let length = format!("content-length: {}\r\n", wide.len());
    for (more, body) in [
        (length.clone(), wide.clone()),
        ("transfer-encoding: chunked\r\n".to_owned(), format!("{:x}\r\n{wide}\r\n0\r\n\r\n", wide.len())),
        // And who asks first is spared the writing.
        (format!("{length}expect: 100-continue\r\n"), String::new()),
    ] {
        let mut stream = raw(&world, head(&more).as_bytes()).await;
        soon(stream.write_all(body.as_bytes())).await.unwrap();
        let mut start = [0; 12];
        soon(stream.read_exact(&mut start)).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 413", "{more}");
    }
    // A body that says nothing of its length is cut at the same bound.
    let head = format!(
        "POST /mcp/files HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n",
        world.address, world.alice
    );
    let mut stream = raw(&world, head.as_bytes()).await;
    for _ in 0..8 {
        stream.write_all(format!("2000\r\n{}\r\n", " ".repeat(0x2000)).as_bytes()).await.unwrap();
    }
    // The first byte beyond: nothing is left unread that could take the answer along.
    stream.write_all(b"1\r\n \r\n").await.unwrap();
    let mut start = [0; 12];
    soon(stream.read_exact(&mut start)).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
    // Heads without end, and with too many fields.
    for head in [format!("GET /{} HTTP/1.1\r\n", "a".repeat(100_000)), "a: b\r\n".repeat(20_000)] {
        let text = format!("POST /mcp HTTP/1.1\r\nhost: {}\r\n{head}", world.address);
        let mut stream = raw(&world, b"").await;
        let _refused = stream.write_all(text.as_bytes()).await;
        let mut answer = Vec::new();
        let _closed = soon(stream.read_to_end(&mut answer)).await;
        assert!(!String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 2"));
    }
    assert_eq!(relayed(&upstream, "tools/call").len(), 1, "only the honest call arrived");
    assert!(resident(&world) < MEGABYTES_UNDER_ATTACK);
}

#[tokio::test]
async fn who_proves_nothing_is_refused_before_a_large_body_is_read() {
    let (_upstream, world) = one("").await;
    let head = |more: &str| {
        format!(
            "POST /mcp/files HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n{more}\r\n\r\n",
            world.address
        )
    };
    for (more, status) in [
        ("content-length: 4000000", "401"),
        ("transfer-encoding: chunked", "401"),
        ("content-length: 4000000\r\nauthorization: Bearer dwk_abcdefgh_guess", "401"),
    ] {
        // Not a byte of the body is sent: whoever waits for it does not answer.
        let mut stream = raw(&world, head(more).as_bytes()).await;
        let mut start = [0; 12];
        soon(stream.read_exact(&mut start)).await.unwrap();
        assert_eq!(&start[9..], status.as_bytes(), "{more}");
    }
    // Who proves it may send as much as is allowed.
    let wide = json!({ "a": "x".repeat(1_000_000) });
    let answer = world.calling("/mcp/files", Some(&world.alice), "echo", &wide).send().await.json().await;
    assert_eq!(answer["error"], Value::Null);
    // Each refusal is recorded once.
    let log = world.data().join("log");
    let mut refused = Vec::new();
    world
        .until(|| {
            let leaves = rig::leaves(&log, &audit::Tree::System).into_iter().map(|(_, record)| record);
            refused = leaves.filter(|record| record["outcome"]["stage"] == "authenticate").collect();
            refused.len() >= 3
        })
        .await;
    assert_eq!(refused.len(), 3, "{refused:#?}");
}

#[tokio::test]
async fn slow_clients_are_let_go_while_honest_ones_are_served() {
    let (_upstream, world) = one("").await;
    let mut slow = Vec::new();
    let body = format!(
        "POST /mcp/files HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: 100\r\n\r\n{{",
        world.address, world.alice
    );
    for _ in 0..100 {
        slow.push(raw(&world, b"POST /mcp/files HTTP/1.1\r\nhost: a\r\nx: ").await);
        slow.push(raw(&world, body.as_bytes()).await);
    }
    for _ in 0..20 {
        let ask = world.calling("/mcp/files", Some(&world.alice), "echo", &json!({}));
        let answer = tokio::time::timeout(Duration::from_secs(2), ask.send()).await.expect("honest clients are served");
        assert_eq!(answer.json().await["error"], Value::Null);
    }
    // 15 s for a head, 30 s for a body: all of them are gone after that.
    let gone = async {
        for stream in &mut slow {
            let mut text = Vec::new();
            let _closed = stream.read_to_end(&mut text).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(45), gone).await.expect("slow clients are let go");
}

#[tokio::test]
async fn what_many_slow_bodies_hold_together_is_bounded() {
    let (_upstream, world) = one("").await;
    let head = |more: &str| {
        format!(
            "POST /mcp/files HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n{more}\r\n\r\n",
            world.address
        )
    };
    // Each holds back the last of the 64 KiB that anybody may send.
    let stranger = head("content-length: 65536") + &" ".repeat(65_000);
    let mut slow = Vec::new();
    for _ in 0..STRANGERS {
        let mut stream = raw(&world, b"").await;
        // Those for whom there is no room are told so before they have sent all of it.
        let _refused = stream.write_all(stranger.as_bytes()).await;
        slow.push(stream);
    }
    // Who holds a key sends more, and holds back as well.
    let of_alice = head(&format!("authorization: Bearer {}\r\ncontent-length: 4000000", world.alice));
    let most = " ".repeat(3_999_000);
    let mut greedy = JoinSet::new();
    for _ in 0..GREEDY {
        let mut stream = raw(&world, of_alice.as_bytes()).await;
        let _refused = soon(stream.write_all(most.as_bytes())).await;
        greedy.spawn(async move {
            let mut start = [0; 12];
            let told = stream.read_exact(&mut start).await;
            assert!(told.is_err() || start == *b"HTTP/1.1 429", "{start:?}");
        });
    }
    // For half of what there is for callers she has room.
    while greedy.len() > 9 {
        soon(greedy.join_next()).await.unwrap().unwrap();
    }
    let held = resident(&world);
    println!("{held} MB with {STRANGERS} strangers, and {} of {GREEDY} bodies of a caller", greedy.len());
    assert!(held < MEGABYTES_UNDER_ATTACK, "{held} MB");
    // Nobody else is kept from sending, little or much.
    let wide = json!({ "a": "x".repeat(1_000_000) });
    for arguments in [json!({}), wide.clone()] {
        let answer = world.calling("/mcp/files", Some(&world.bob), "echo", &arguments).send().await.json().await;
        assert_eq!(answer["error"], Value::Null);
    }
    let answer = world.calling("/mcp/files", Some(&world.alice), "echo", &json!({})).send().await.json().await;
    assert_eq!(answer["error"], Value::Null);
    // She had room for the others, which wait for their rest.
    while let Some(told) = greedy.try_join_next() {
        told.unwrap();
    }
    assert!(!greedy.is_empty(), "she had no room");
    // What they let go of is free again.
    drop((slow, greedy));
    let again = async {
        loop {
            let answer = world.calling("/mcp/files", Some(&world.alice), "echo", &wide).send().await.json().await;
            if answer["error"].is_null() {
                break;
            }
            assert_eq!(answer["error"]["code"], -31002, "{answer}");
        }
    };
    soon(again).await;
}

#[tokio::test]
async fn what_servers_send_is_bounded_too() {
    let (upstream, world) = one("bounds: { answer: 256KiB, depth: 16 }").await;
    let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
    let answer = |result: &str| Answer::json(format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#));
    let line = "x".repeat(1 << 20);
    for (what, answer, expected) in [
        ("a whole answer too large", Answer::oversized(&json!(1), 1 << 20), "faulted upstream-too-big forward"),
        ("one line without end", Answer::event_text(format!("data: {line}")), "faulted upstream-too-big forward"),
        ("an endless line", Answer::endless("data: xxxxxxxxxxxxxxxx"), "faulted upstream-too-big forward"),
        ("an endless event", Answer::endless("data: xxxxxxxxxxxxxxxx\n"), "faulted upstream-too-big forward"),
        ("too deep", answer(&deep), "withheld upstream-protocol release"),
        ("twice the same key", answer(r#"{"a":1,"a":2}"#), "withheld upstream-protocol release"),
        ("endless JSON", Answer::endless("[[[[").header("content-type", "application/json"), ""),
    ] {
        upstream.next("tools/call", answer);
        let reply = soon(world.calling("/mcp/files", Some(&world.alice), "echo", &json!({})).send()).await;
        let call = call_of(&reply);
        let text = soon(reply.text()).await;
        assert!(text.contains("\"error\"") && text.len() < 2048, "{what}: {}", text.len());
        let record = world.record(&call).await;
        if expected.is_empty() {
            assert_ne!(record["outcome"]["is"], "answered", "{what}");
        } else {
            assert_eq!(outcome(&record), expected, "{what}");
        }
    }
    assert!(resident(&world) < MEGABYTES_UNDER_ATTACK, "{} MB", resident(&world));
    let honest = world.calling("/mcp/files", Some(&world.alice), "echo", &json!({})).send().await.json().await;
    assert_eq!(honest["error"], Value::Null);
}

#[tokio::test]
async fn an_endless_stream_whose_client_is_gone_is_let_go() {
    let (upstream, world) = one("").await;
    let note =
        json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}});
    upstream.next("tools/call", Answer::endless(format!("data: {note}\n\n")));
    let mut reply = world.calling("/mcp/files", Some(&world.alice), "echo", &json!({})).send().await;
    let call = call_of(&reply);
    assert!(soon(reply.chunk()).await.is_some());
    drop(reply);
    upstream.abandoned(1).await;
    assert_eq!(world.record(&call).await["outcome"]["is"], "abandoned");
}

#[tokio::test]
async fn ten_thousand_sessions_with_open_streams_fit_into_the_stated_memory() {
    let upstream = Upstream::start().await;
    let body = format!(
        "bounds: {{ sessions_per_principal: 20000, connections: 16384 }}\nservers:\n{}",
        http("files", &upstream)
    );
    let world = Arc::new(World::with(&body, ALL).await);
    let before = resident(&world);
    let opened = Arc::new(AtomicUsize::new(0));
    let openers: Vec<_> = (0..8)
        .map(|_| {
            let (world, opened) = (Arc::clone(&world), Arc::clone(&opened));
            tokio::spawn(async move {
                let mut streams = Vec::new();
                while opened.fetch_add(1, Ordering::SeqCst) < SESSIONS {
                    let agent = Agent::legacy(&world.url("/mcp"), Some(&world.alice)).await;
                    let listening = agent.listen().await;
                    assert_eq!(listening.status, 200);
                    streams.push(listening);
                }
                streams
            })
        })
        .collect();
    let mut streams = Vec::with_capacity(SESSIONS);
    for opener in openers {
        streams.extend(opener.await.unwrap());
    }
    let after = resident(&world);
    println!("idle {before} MB; {} sessions that listen {after} MB", streams.len());
    assert!(streams.len() == SESSIONS && after < MEGABYTES_FOR_SESSIONS, "{after} MB");
    // All of them still live, and one more caller is served.
    let answer = world.calling("/mcp/files", Some(&world.bob), "echo", &json!({})).send().await.json().await;
    assert_eq!(answer["error"], Value::Null);
    drop(streams);
}
