//! TLS in front: what is shown, when it changes, and what a client gets that does not speak it.

use crate::{Identity, behind_tls, dial, echo, is_answer, over_tls, rig, unlaid, world};
use serde_json::json;
use std::{fs, time::Duration};
use testkit::{Ask, Connection, Upstream, soon};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use world::World;

const BOTH: [&[u8]; 2] = [b"h2", b"http/1.1"];

#[tokio::test]
async fn a_client_that_trusts_the_certificate_calls_over_tls() {
    let (identity, upstream) = (Identity::new(), Upstream::start().await);
    let world = behind_tls(&identity, &upstream, "").await;
    assert!(world.said().iter().any(|line| line.contains("https://127.0.0.1:")), "{:?}", world.said());

    let stream = over_tls(&world, &identity.trusted(&[b"http/1.1"])).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let reply = echo(&world, 1).over(stream).await.unwrap();
    let call = reply.header("durward-call-id").unwrap().to_owned();
    assert!(is_answer(&reply.json().await));
    assert_eq!(world.record(&call).await["peer"], "127.0.0.1");

    // A client that offers nothing speaks HTTP/1.1; one that trusts another certificate does not speak at all.
    let silent = over_tls(&world, &identity.trusted(&[])).await.unwrap();
    assert!(is_answer(&echo(&world, 2).over(silent).await.unwrap().json().await));
    assert!(over_tls(&world, &Identity::new().trusted(&BOTH)).await.is_err());
    assert!(over_tls(&world, &identity.trusted(&[b"gopher"])).await.is_err());
}

#[tokio::test]
async fn another_certificate_is_shown_at_once_and_open_connections_go_on() {
    let (first, second, upstream) = (Identity::new(), Identity::new(), Upstream::start().await);
    let world = behind_tls(&first, &upstream, "").await;
    let (sender, connection) = {
        let stream = over_tls(&world, &first.trusted(&[b"h2"])).await.unwrap();
        let open = testkit::Multiplexed::over(stream).await.unwrap();
        assert!(is_answer(&open.send(echo(&world, 1)).await.unwrap().json().await));
        (open, over_tls(&world, &first.trusted(&[b"http/1.1"])).await.unwrap())
    };

    // Nobody sends a signal: the files are watched.
    second.lay(world.folder());
    world.says("tls: another certificate is shown").await;
    let fresh = over_tls(&world, &second.trusted(&BOTH)).await.unwrap();
    assert!(over_tls(&world, &first.trusted(&BOTH)).await.is_err(), "the old one is still shown");
    assert!(is_answer(&sender.send(echo(&world, 2)).await.unwrap().json().await));
    assert!(is_answer(&echo(&world, 3).over(connection).await.unwrap().json().await));
    drop(fresh);

    // What cannot be used is not shown, and it is said; the rest of the configuration is taken.
    fs::write(world.folder().join("tls.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    let file = world.folder().join("durward.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}hosts: [gate.test]\n")).unwrap();
    world.signal(rustix::process::Signal::HUP);
    world.says("hosts").await;
    let said = world.says("the certificate of before is shown on").await;
    assert!(said.contains("tls.pem cannot be used"), "{said}");
    let stream = over_tls(&world, &second.trusted(&[b"http/1.1"])).await.expect("the last good one is shown");
    let named = echo(&world, 4).replace("host", "gate.test").over(stream).await.unwrap();
    assert!(is_answer(&named.json().await), "what else was configured is in force");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_told_once_for_each_cause_and_to_whoever_asks() {
    let (identity, upstream) = (Identity::new(), Upstream::start().await);
    let world = behind_tls(&identity, &upstream, "").await;
    let other = |name: &str| rig::policy(&json!([{"id": name, "action": "*", "target": "*/*", "effect": "allow"}]));
    let trouble = "tls: the certificate of before is shown on";
    let before = world.said().len();
    world.notices(|folder| fs::write(folder.join("tls.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap()).await;
    world.says_after(before, trouble).await;

    let before = world.said().len();
    for name in ["one", "two"] {
        world.notices(|folder| world::put(folder, "policy.json", &other(name))).await;
    }
    assert!(!world.said().iter().skip(before).any(|line| line.contains("tls: ")), "{:#?}", world.said());
    world.signal(rustix::process::Signal::HUP);
    world.says_after(before, "durward: configuration reloaded, nothing changed").await;
    world.says_after(before, &format!("  as before: {trouble}")).await;

    let before = world.said().len();
    world.notices(|folder| fs::write(folder.join("tls.pem"), "no certificate").unwrap()).await;
    let said = world.says_after(before, trouble).await;
    assert!(said.contains("there is no certificate in it") && !said.contains("as before"), "{said}");

    let before = world.said().len();
    world.notices(|folder| identity.lay(folder)).await;
    world.says_after(before, "tls: certificate and key can be used").await;
    let before = world.said().len();
    world.signal(rustix::process::Signal::HUP);
    world.says_after(before, "durward: configuration reloaded, nothing changed").await;
    assert!(!world.said().iter().skip(before).any(|line| line.contains("tls: ")), "{:#?}", world.said());
}

#[tokio::test]
async fn tls_that_is_added_counts_at_the_next_start_and_nobody_is_told_before() {
    let upstream = Upstream::start().await;
    let issuers = "issuers: [{ url: \"https://idp.example.com\", audience: x, agent: \"claim:azp\", jwks: { file: keys.json } }]\n";
    let body = format!("{issuers}servers:\n{}", world::http("files", &upstream));
    let (folder, alice, bob) = unlaid(&body).await;
    fs::copy("tests/config/keys.json", folder.path().join("keys.json")).unwrap();
    let world = World::launch(folder, alice, bob).await;
    Identity::new().lay(world.folder());
    let file = world.folder().join("durward.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}tls: {{ certificate: tls.pem, key: tls.key }}\n")).unwrap();
    world.signal(rustix::process::Signal::HUP);
    world.says("at the next start: + tls").await;
    let path = "/.well-known/oauth-protected-resource/mcp/files";
    let document = Ask::get(&world.url(path)).send().await.json().await;
    assert_eq!(document["resource"], format!("http://{}/mcp/files", world.address), "{document}");
}

#[tokio::test]
async fn without_a_certificate_that_fits_nothing_starts() {
    let upstream = Upstream::start().await;
    let body = format!("tls: {{ certificate: tls.pem, key: tls.key }}\nservers:\n{}", world::http("files", &upstream));
    let (folder, ..) = unlaid(&body).await;
    Identity::new().lay(folder.path());
    fs::write(folder.path().join("tls.pem"), &Identity::new().certificate).unwrap();
    let ended = soon(world::command(folder.path()).output()).await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("tls.key cannot be used: the private key belongs to another certificate"), "{said}");
}

#[tokio::test]
async fn whoever_does_not_speak_tls_is_let_go_and_holds_nothing() {
    let (identity, upstream) = (Identity::new(), Upstream::start().await);
    let world = behind_tls(&identity, &upstream, "bounds: { connections: 3 }\n").await;
    for garbage in [&b"POST /mcp HTTP/1.1\r\nhost: localhost\r\n\r\n"[..], b"\x16\x03\x01\xff\xff", &[0; 4096]] {
        let mut stream = dial(&world).await;
        stream.write_all(garbage).await.unwrap();
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        // It may be reset, for what was sent is not read.
        let _ = soon(stream.read_to_end(&mut answer)).await;
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }

    // Whoever says nothing takes a place until it is over, and no longer.
    let mut silent = [dial(&world).await, dial(&world).await, dial(&world).await];
    crate::until_full(|| dial(&world)).await;
    world.says("too many are open").await;
    for stream in &mut silent {
        let ended = timeout(Duration::from_secs(20), stream.read(&mut [0])).await.expect("a handshake has its time");
        assert!(ended.is_ok_and(|read| read == 0));
    }
    let stream = over_tls(&world, &identity.trusted(&[b"http/1.1"])).await.unwrap();
    assert!(is_answer(&echo(&world, 1).over(stream).await.unwrap().json().await));
}

#[tokio::test]
async fn what_clients_are_told_to_dial_begins_with_https() {
    let (identity, upstream) = (Identity::new(), Upstream::start().await);
    let issuers = "issuers: [{ url: \"https://idp.example.com\", audience: x, agent: \"claim:azp\", jwks: { file: keys.json } }]\n";
    let body = format!(
        "tls: {{ certificate: tls.pem, key: tls.key }}\n{issuers}servers:\n{}",
        world::http("files", &upstream)
    );
    let (folder, alice, bob) = unlaid(&body).await;
    identity.lay(folder.path());
    fs::copy("tests/config/keys.json", folder.path().join("keys.json")).unwrap();
    let world = World::launch(folder, alice, bob).await;
    let stream = over_tls(&world, &identity.trusted(&[b"h2"])).await.unwrap();
    let open = testkit::Multiplexed::over(stream).await.unwrap();
    let url = format!("https://{}/.well-known/oauth-protected-resource/mcp/files", world.address);
    let document = open.send(Ask::get(&url)).await.unwrap().json().await;
    assert_eq!(document["resource"], format!("https://{}/mcp/files", world.address), "{document}");
}

#[tokio::test]
async fn a_plain_listener_stays_as_it_was() {
    let upstream = Upstream::start().await;
    let world = World::start(&world::http("files", &upstream)).await;
    let mut kept = Connection::open(&echo(&world, 0)).await;
    for n in 0..3 {
        let (status, body) = kept.send(echo(&world, n)).await.unwrap();
        assert_eq!(status, 200, "{body:?}");
    }
}
