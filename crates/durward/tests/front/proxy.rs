//! The PROXY protocol: who connected is what a trusted proxy says, and nobody else's word counts.

use crate::{Identity, behind_tls, dial, echo, is_answer, world};
use std::time::Duration;
use testkit::{Upstream, soon};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};
use world::{World, http};

const ONE: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 5678 443\r\n";

fn two(command: u8) -> Vec<u8> {
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, 0x11, 0, 12], &[192, 0, 2, 8, 198, 51, 100, 1], &[0, 1, 0, 2]].concat()
}

async fn proxied(trusted: &str) -> (Upstream, World) {
    let upstream = Upstream::start().await;
    let more = format!("trusted_proxies: [{trusted}]\nproxy_protocol: true\n");
    let world = World::with(&format!("{more}servers:\n{}", http("files", &upstream)), world::ALL).await;
    (upstream, world)
}

#[tokio::test]
async fn a_record_names_whom_the_proxy_names() {
    let (_upstream, world) = proxied("127.0.0.1").await;
    for (header, peer) in [
        (ONE.to_vec(), "192.0.2.7"),
        (two(0x21), "192.0.2.8"),
        // The proxy itself, which looks whether we live.
        (two(0x20), "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ] {
        let mut stream = dial(&world).await;
        stream.write_all(&header).await.unwrap();
        // What a client says of itself passes a balancer, whether that knows the client or not.
        let reply = echo(&world, 1).header("x-forwarded-for", "203.0.113.9").over(stream).await.unwrap();
        let call = reply.header("durward-call-id").unwrap().to_owned();
        assert!(is_answer(&reply.json().await));
        assert_eq!(world.record(&call).await["peer"], peer);
    }
    // Whom the proxy names is no proxy: what it says of itself counts for nothing. The address it dialled is served.
    let mut stream = dial(&world).await;
    stream.write_all(ONE).await.unwrap();
    let ask = echo(&world, 2).header("x-forwarded-for", "203.0.113.9").replace("host", "198.51.100.1");
    let reply = ask.over(stream).await.unwrap();
    let call = reply.header("durward-call-id").unwrap().to_owned();
    assert_eq!(world.record(&call).await["peer"], "192.0.2.7");
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn without_a_header_in_time_there_is_no_connection() {
    let (upstream, world) = proxied("127.0.0.1").await;
    for (start, said) in [
        (&b"POST /mcp/files HTTP/1.1\r\nhost: localhost\r\n\r\n"[..], "begins with no header"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.8 1\r\n", "malformed"),
        (b"PROXY TCP4 192.0", "broke within the header"),
    ] {
        let mut stream = dial(&world).await;
        stream.write_all(start).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(9), stream.read_to_end(&mut answer)).await.expect("it is closed");
        assert!(answer.is_empty(), "{answer:?}");
        world.says(said).await;
    }
    assert_eq!(upstream.seen("tools/call").len(), 0);
}

#[tokio::test]
async fn a_stranger_cannot_say_who_it_is() {
    let (upstream, world) = proxied("192.0.2.99").await;
    let mut stream = dial(&world).await;
    let _ = stream.write_all(ONE).await;
    let _ = soon(stream.read_to_end(&mut Vec::new())).await;
    world.says("this peer is not among `trusted_proxies`").await;
    assert_eq!(upstream.seen("tools/call").len(), 0);
}

#[tokio::test]
async fn the_header_comes_before_tls_and_not_on_sockets() {
    let (identity, upstream) = (Identity::new(), Upstream::start().await);
    let more = "trusted_proxies: [127.0.0.1]\nproxy_protocol: true\n";
    let world = behind_tls(&identity, &upstream, more).await;
    let mut stream = dial(&world).await;
    stream.write_all(ONE).await.unwrap();
    let stream = identity.trusted(&[b"h2"]).connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let open = testkit::Multiplexed::over(stream).await.unwrap();
    let reply = open.send(echo(&world, 1)).await.unwrap();
    let call = reply.header("durward-call-id").unwrap().to_owned();
    assert!(is_answer(&reply.json().await));
    assert_eq!(world.record(&call).await["peer"], "192.0.2.7");

    #[expect(clippy::disallowed_methods, reason = "a test dials what it is told to")]
    let local = UnixStream::connect(world.folder().join("agents.sock")).await.unwrap();
    assert!(is_answer(&echo(&world, 2).over(local).await.unwrap().json().await));
}

#[tokio::test]
async fn whoever_is_let_go_is_counted_and_fills_no_log() {
    let (_upstream, world) = proxied("127.0.0.1").await;
    for _ in 0..50 {
        let mut stream = dial(&world).await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let _ = soon(stream.read_to_end(&mut Vec::new())).await;
    }
    world.says("begins with no header").await;
    // A connection may end before it is counted, and is counted once.
    let counted = async || {
        let metrics = crate::metrics(&world).await;
        let mut lines = metrics.lines();
        let line = lines.find(|line| line.contains("durward_clients_dropped_total{reason=\"header-missing\"}"));
        line.and_then(|line| line.split_whitespace().last()?.parse::<u32>().ok()).unwrap_or(0)
    };
    soon(async { while counted().await < 50 {} }).await;
    assert_eq!(counted().await, 50);
    let said = world.said();
    let lines = said.iter().filter(|line| line.contains("begins with no header")).count();
    // One, and another for each while that all of this took.
    assert!((1..=5).contains(&lines), "{said:?}");
}
