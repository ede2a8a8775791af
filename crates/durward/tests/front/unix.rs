//! Sockets in the file system, beside an address: the same gateway behind another door.

use crate::{Identity, behind_tls, echo, is_answer, unlaid, world};
use rustix::process::Signal;
use std::{fs, os::unix::fs::PermissionsExt};
use testkit::{Multiplexed, Upstream, soon};
use tokio::net::UnixStream;
use world::{World, http};

const LISTEN: &str = "listen: [127.0.0.1:0, \"unix:agents.sock\"]\n";

#[tokio::test]
async fn a_socket_serves_what_the_address_serves_and_is_gone_at_the_end() {
    let upstream = Upstream::start().await;
    let body = format!("{LISTEN}socket_access: group\nservers:\n{}", http("files", &upstream));
    let world = World::with(&body, world::ALL).await;
    let path = world.folder().join("agents.sock");
    world.says("agents.sock").await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);

    let reply = echo(&world, 1).over(UnixStream::connect(&path).await.unwrap()).await.unwrap();
    let call = reply.header("durward-call-id").unwrap().to_owned();
    assert!(is_answer(&reply.json().await));
    // A record names an address: whoever is on this machine counts as this machine.
    assert_eq!(world.record(&call).await["peer"], "127.0.0.1");
    let open = Multiplexed::over(UnixStream::connect(&path).await.unwrap()).await.unwrap();
    assert!(is_answer(&open.send(echo(&world, 2)).await.unwrap().json().await));
    assert!(is_answer(&echo(&world, 3).send().await.json().await), "the address is served, too");
    // Without a credential nobody is anybody, whatever the socket lets in.
    let nobody = world.calling("/mcp/files", None, "echo", &serde_json::json!({}));
    assert_eq!(nobody.over(UnixStream::connect(&path).await.unwrap()).await.unwrap().status, 401);
    let evil = echo(&world, 4).replace("host", "evil.example");
    assert_eq!(evil.over(UnixStream::connect(&path).await.unwrap()).await.unwrap().status, 403);
    drop(open);

    let (status, folder) = world.stop().await;
    assert!(status.success() && !folder.path().join("agents.sock").exists());
}

#[tokio::test]
async fn what_a_killed_gateway_leaves_is_replaced_and_a_living_one_keeps_its_socket() {
    let upstream = Upstream::start().await;
    let body = format!("{LISTEN}servers:\n{}", http("files", &upstream));
    let world = World::with(&body, world::ALL).await;
    let path = world.folder().join("agents.sock");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "the owner alone, unless told");

    // Another gateway, over a directory of its own, that wants the same socket.
    let wanted = format!("listen: [127.0.0.1:0, \"unix:{}\"]\nservers:\n{}", path.display(), http("files", &upstream));
    let (folder, ..) = unlaid(&wanted).await;
    let ended = soon(world::command(folder.path()).output()).await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.code() == Some(1) && said.contains("another process listens on unix:"), "{said}");
    assert!(is_answer(&echo(&world, 1).over(UnixStream::connect(&path).await.unwrap()).await.unwrap().json().await));

    let (alice, bob) = (world.alice.clone(), world.bob.clone());
    let folder = world.kill(Signal::KILL).await;
    assert!(path.exists(), "the dead remove nothing");
    let world = World::launch(folder, alice, bob).await;
    assert!(is_answer(&echo(&world, 2).over(UnixStream::connect(&path).await.unwrap()).await.unwrap().json().await));
}

#[tokio::test]
async fn tls_is_for_the_network_and_the_bound_of_connections_for_all() {
    let (identity, upstream) = (Identity::new(), Upstream::start().await);
    let world = behind_tls(&identity, &upstream, "bounds: { connections: 2 }\n").await;
    let path = world.folder().join("agents.sock");
    let stream = crate::over_tls(&world, &identity.trusted(&[b"http/1.1"])).await.unwrap();
    assert!(is_answer(&echo(&world, 1).over(UnixStream::connect(&path).await.unwrap()).await.unwrap().json().await));
    let held = UnixStream::connect(&path).await.unwrap();
    crate::until_full(async || UnixStream::connect(&path).await.unwrap()).await;
    drop((stream, held));
}
