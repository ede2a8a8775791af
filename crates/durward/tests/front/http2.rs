//! HTTP/2 to clients: with TLS by ALPN, without it by prior knowledge; the same calls, and bounds of its own.

use crate::{Identity, behind_tls, dial, echo, is_answer, over_tls, world};
use futures_util::future::join_all;
use serde_json::json;
use std::time::Duration;
use testkit::{Answer, Multiplexed, Upstream, soon};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use world::{World, http};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ENHANCE_YOUR_CALM: u8 = 11;

async fn plain() -> (Upstream, World) {
    let upstream = Upstream::start().await;
    let world = World::start(&http("files", &upstream)).await;
    (upstream, world)
}

#[tokio::test]
async fn one_connection_carries_many_calls_with_tls_and_without() {
    let (identity, upstream) = (Identity::new(), Upstream::start().await);
    let world = behind_tls(&identity, &upstream, "").await;
    let stream = over_tls(&world, &identity.trusted(&[b"h2", b"http/1.1"])).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "the better one is chosen");
    let (_upstream, bare) = plain().await;
    let known = dial(&bare).await;
    for (world, open) in
        [(&world, Multiplexed::over(stream).await.unwrap()), (&bare, Multiplexed::over(known).await.unwrap())]
    {
        let calls = (0..300).map(|n| {
            let sent = open.send(echo(world, n));
            async move { sent.await.unwrap().json().await }
        });
        let answers = soon(join_all(calls)).await;
        assert!(answers.iter().all(is_answer), "{:?}", answers.iter().find(|answer| !is_answer(answer)));
    }
}

#[tokio::test]
async fn events_come_as_they_are_said_and_a_reset_stream_is_a_client_that_left() {
    let (upstream, world) = plain().await;
    let open = Multiplexed::over(dial(&world).await).await.unwrap();
    let (answer, feed) = Answer::events();
    upstream.next("tools/call", answer);
    let sent = open.send(echo(&world, 1));
    let feeding = async {
        upstream.arrived("tools/call", 1).await;
        feed.message(
            &json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}),
        )
        .await;
    };
    let (reply, ()) = soon(async { tokio::join!(sent, feeding) }).await;
    let mut reply = reply.unwrap();
    let call = reply.header("durward-call-id").unwrap().to_owned();
    assert_eq!(soon(reply.event()).await.unwrap().json()["params"]["data"], 1, "the first does not wait for the last");

    // The stream is reset, the connection stays.
    drop(reply);
    upstream.abandoned(1).await;
    assert_eq!(world.record(&call).await["outcome"]["is"], "abandoned");
    assert!(is_answer(&open.send(echo(&world, 2)).await.unwrap().json().await));

    // Nor does anybody wait for an answer that has not begun.
    upstream.next("tools/call", Answer::hang());
    let waiting = open.send(echo(&world, 3));
    let is_answered = soon(async {
        tokio::select! {
            _ = waiting => true,
            _ = upstream.arrived("tools/call", 3) => false,
        }
    });
    assert!(!is_answered.await);
    upstream.abandoned(2).await;
    assert!(is_answer(&open.send(echo(&world, 4)).await.unwrap().json().await));
}

#[tokio::test]
async fn what_was_dialled_is_judged_in_either_place() {
    let (upstream, world) = plain().await;
    let open = Multiplexed::over(dial(&world).await).await.unwrap();
    let own = world.address.to_string();
    for (authority, host, status) in [
        (own.as_str(), None, 200),
        ("localhost:1", None, 200),
        (&own, Some(own.as_str()), 200),
        // A name that somebody else bound to this address.
        ("evil.example", None, 403),
        ("evil.example", Some("localhost"), 403),
        ("localhost", Some("evil.example"), 403),
        ("localhost", Some("127.0.0.1"), 403),
    ] {
        let agent = testkit::Agent::modern(&format!("http://{authority}/mcp/files"), Some(&world.alice));
        let params = json!({"name": "echo", "arguments": {}, "_meta": testkit::meta()});
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        let mut ask = agent.ask("tools/call", &message);
        if let Some(host) = host {
            ask = ask.header("host", host);
        }
        let reply = open.send(ask).await.unwrap();
        assert_eq!(reply.status.as_u16(), status, "{authority} {host:?}");
    }
    assert_eq!(upstream.seen("tools/call").len(), 3);

    // HTTP/1 has the same two places.
    let mut stream = dial(&world).await;
    let text = format!("GET http://evil.example/mcp HTTP/1.1\r\nhost: {own}\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[tokio::test]
async fn requests_that_are_taken_back_at_once_end_the_connection_and_no_other() {
    let (upstream, world) = plain().await;
    let friend = Multiplexed::over(dial(&world).await).await.unwrap();
    let mut stream = raw(&world).await;
    let mut flood = Vec::new();
    for n in 0..500 {
        frame(&mut flood, 1, 0x5, 2 * n + 1, &head());
        frame(&mut flood, RST_STREAM, 0, 2 * n + 1, &8u32.to_be_bytes());
    }
    let _ = stream.write_all(&flood).await;
    let (last, _) = soon(until(&mut stream, GOAWAY)).await.expect("the connection is ended with a word");
    assert_eq!(last.get(4..8), Some(&u32::from(ENHANCE_YOUR_CALM).to_be_bytes()[..]), "{last:?}");
    assert!(is_answer(&friend.send(echo(&world, 1)).await.unwrap().json().await));
    assert_eq!(upstream.seen("tools/call").len(), 1);
}

#[tokio::test]
async fn the_bounds_are_said_at_the_start_and_kept() {
    let (_upstream, world) = plain().await;
    let mut stream = raw(&world).await;
    let (settings, _) = soon(until(&mut stream, SETTINGS)).await.unwrap();
    let said = |id: u16| {
        let entry = settings.chunks(6).find(|entry| entry.starts_with(&id.to_be_bytes())).unwrap_or_default();
        entry.get(2..6).map(|value| u32::from_be_bytes(value.try_into().unwrap()))
    };
    // Streams at one time, the window of one, the size of the head.
    assert_eq!((said(3), said(4), said(6)), (Some(100), Some(256 << 10), Some(16 << 10)));

    // One more than that is refused. These wait for their bodies.
    let mut many = Vec::new();
    for n in 0..101 {
        frame(&mut many, 1, 0x4, 2 * n + 1, &post());
    }
    stream.write_all(&many).await.unwrap();
    let (code, refused) = soon(until(&mut stream, RST_STREAM)).await.unwrap();
    assert_eq!((code.as_slice(), refused), (&7u32.to_be_bytes()[..], 201), "REFUSED_STREAM");

    // A head that does not end, sent as slowly as one likes, is one that is too long.
    let mut stream = raw(&world).await;
    let mut endless = Vec::new();
    frame(&mut endless, 1, 0, 1, &head());
    for _ in 0..100 {
        // Without END_HEADERS: a header `a` of 8 KiB.
        let mut field = vec![0, 1, b'a', 0x7f, 0x81, 0x3f];
        field.extend_from_slice(&[b'x'; 8192]);
        frame(&mut endless, 9, 0, 1, &field);
    }
    let _ = stream.write_all(&endless).await;
    let mut rest = Vec::new();
    // It is told, or just ended; it is not listened to any longer.
    let _ = soon(stream.read_to_end(&mut rest)).await;
    assert!(is_answer(&echo(&world, 1).send().await.json().await));
}

#[tokio::test]
async fn a_client_that_begins_nothing_is_let_go() {
    let (_upstream, world) = plain().await;
    // Half a preface, a whole one with nothing after it, a head that does not end.
    let mut half = dial(&world).await;
    half.write_all(&PREFACE[..10]).await.unwrap();
    let mut whole = raw(&world).await;
    let mut slow = raw(&world).await;
    let mut begun = Vec::new();
    frame(&mut begun, 1, 0, 1, &head());
    slow.write_all(&begun).await.unwrap();
    for stream in [&mut half, &mut whole, &mut slow] {
        let ended = timeout(Duration::from_secs(25), stream.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "a connection without a request is kept for a while only");
    }
}

#[tokio::test]
async fn calls_that_are_begun_and_left_are_bounded_and_end_as_their_era_says() {
    // On one server.
    const MOST: usize = 32;
    let upstream = Upstream::start().await;
    let world = World::start(&format!("{}{}", http("files", &upstream), http("notes", &upstream))).await;
    let agent = world.legacy("/mcp/files").await;
    let open = Multiplexed::over(dial(&world).await).await.unwrap();
    let call = |id: usize| {
        let params = json!({"name": "echo", "arguments": {}});
        agent.ask("tools/call", &json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}))
    };
    let mut held = Vec::new();
    for n in 1..=MOST {
        let (answer, go) = Answer::result(&json!(n), &json!({"content": [], "resultType": "complete"})).held();
        upstream.next("tools/call", answer);
        held.push(go);
        tokio::select! {
            reply = open.send(call(n)) => panic!("it was answered: {reply:?}"),
            // Left as soon as it is on its way: its stream is reset.
            _ = upstream.arrived("tools/call", n) => {}
        }
    }
    let refused = soon(async {
        loop {
            let answer = open.send(call(1000)).await.unwrap().json().await;
            if !is_answer(&answer) {
                return answer;
            }
        }
    })
    .await;
    assert_eq!(refused["error"]["code"], -31002, "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("run on"), "{refused}");
    assert!(crate::metrics(&world).await.contains(&format!("durward_calls_absent {MOST}\n")));
    // Another server has room for her yet; others are none of its business, and what takes calls back comes through.
    let notes = world.calling("/mcp/notes", Some(&world.alice), "echo", &json!({}));
    assert!(is_answer(&notes.send().await.json().await));
    let bob = world.calling("/mcp/files", Some(&world.bob), "echo", &json!({}));
    assert!(is_answer(&bob.send().await.json().await));
    let cancelled = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}});
    assert_eq!(open.send(agent.ask("notifications/cancelled", &cancelled)).await.unwrap().status, 202);

    for go in held {
        let _ = go.send(());
    }
    soon(async { while !is_answer(&open.send(call(2000)).await.unwrap().json().await) {} }).await;
}

#[tokio::test]
async fn a_stop_lets_what_is_under_way_end_and_takes_nothing_new() {
    let (upstream, world) = plain().await;
    let open = Multiplexed::over(dial(&world).await).await.unwrap();
    let (answer, go) = Answer::result(&json!(1), &json!({"content": [], "resultType": "complete"})).held();
    upstream.next("tools/call", answer);
    let call = open.send(echo(&world, 1));
    let stopping = async {
        upstream.arrived("tools/call", 1).await;
        world.signal(rustix::process::Signal::TERM);
        world.says("stopping").await;
        // What the goodbye crosses is still served; what comes after it is not.
        while open.send(echo(&world, 2)).await.is_ok() {}
        let _ = go.send(());
    };
    let (reply, ()) = soon(async { tokio::join!(call, stopping) }).await;
    assert!(is_answer(&reply.unwrap().json().await));
    let (status, _folder) = world.stop().await;
    assert!(status.success());
}

/// A connection on which the preface and empty settings were said.
async fn raw(world: &World) -> TcpStream {
    let mut stream = dial(world).await;
    let mut hello = PREFACE.to_vec();
    frame(&mut hello, SETTINGS, 0, 0, &[]);
    stream.write_all(&hello).await.unwrap();
    stream
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// `GET /` of localhost, compressed with the static table alone.
fn head() -> Vec<u8> {
    [&[0x82, 0x86, 0x84, 0x01, 9][..], b"localhost"].concat()
}

/// `POST /mcp` of localhost, a JSON text without a credential.
fn post() -> Vec<u8> {
    [&[0x83, 0x86, 0x04, 4][..], b"/mcp", &[0x01, 9], b"localhost", &[0x0f, 0x0d, 2], b"10"].concat()
}

/// The next frame of this kind, and its stream. None at the end.
async fn until(stream: &mut TcpStream, wanted: u8) -> Option<(Vec<u8>, u32)> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await.ok()?;
        if kind == wanted && !(kind == SETTINGS && flags & 1 == 1) {
            return Some((payload, u32::from_be_bytes(id)));
        }
    }
}
