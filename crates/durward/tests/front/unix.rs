//! Sockets in the file system, beside an address: the same gateway behind another door.
#![expect(clippy::disallowed_methods, reason = "a test dials what it is told to, and starts itself again")]

use crate::{Identity, behind_tls, echo, is_answer, unlaid, world};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    time::Duration,
};
use testkit::{Agent, Multiplexed, Upstream, soon};
use tokio::{net::UnixStream, process::Command};
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

/// Where the client of the test below finds what it needs to know.
const ALONE: &str = "DURWARD_TEST_ALONE";

#[tokio::test]
async fn a_client_that_reaches_no_server_uses_every_one_through_the_one_door() {
    if let Ok(scene) = std::env::var(ALONE) {
        return alone(&serde_json::from_str(&scene).unwrap()).await;
    }
    let (one, two, three) = (Upstream::start().await, Upstream::start().await, Upstream::start().await);
    let servers = [http("one", &one), http("two", &two), http("three", &three)].concat();
    let world = World::with(&format!("{LISTEN}servers:\n{servers}"), world::ALL).await;
    let places = [one.url(), two.url(), three.url(), format!("http://{}/mcp", world.address)].map(|url| {
        let rest = url.trim_start_matches("http://").to_owned();
        rest.split('/').next().unwrap_or_default().to_owned()
    });
    for place in &places {
        assert!(TcpStream::connect(place).is_ok(), "{place} is there for whoever is in this network");
    }
    let socket = world.folder().join("agents.sock");
    let scene = json!({"socket": socket, "token": world.alice, "places": places});
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net"]).arg(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "unix::a_client_that_reaches_no_server_uses_every_one_through_the_one_door",
        "--nocapture",
    ]);
    let ended = command.env(ALONE, scene.to_string()).kill_on_drop(true).output();
    let ended = tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap().expect("`unshare` of util-linux");
    let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    assert!(
        ended.status.success() && said.contains("1 passed"),
        "the client in a network of its own did not do what it should. If `unshare` was refused: user and network \
         namespaces must be allowed to whoever runs this test (`sysctl kernel.unprivileged_userns_clone=1 \
         kernel.apparmor_restrict_unprivileged_userns=0`; in a container a seccomp profile that allows `unshare`).\n{said}"
    );
    for upstream in [one, two, three] {
        assert_eq!(upstream.seen("tools/call").len(), 1);
    }
}

/// The client, where there is no network but its own, which has nobody in it.
async fn alone(scene: &Value) {
    for place in scene["places"].as_array().unwrap() {
        let place: SocketAddr = place.as_str().unwrap().parse().unwrap();
        let dialled = TcpStream::connect_timeout(&place, Duration::from_secs(1));
        assert!(dialled.is_err(), "{place} can be reached from here");
    }
    let agent = Agent::modern("http://localhost/mcp", scene["token"].as_str());
    let socket = scene["socket"].as_str().unwrap();
    let asked = async |id: u64, method: &str, params: Value| {
        let mut params = params;
        params["_meta"] = testkit::meta();
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let reply = agent.ask(method, &message).over(UnixStream::connect(socket).await.unwrap()).await.unwrap();
        soon(reply.json()).await
    };
    let listed = asked(1, "tools/list", json!({})).await;
    let mut tools: Vec<&str> =
        listed["result"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    tools.sort_unstable();
    assert_eq!(tools, ["one__echo", "three__echo", "two__echo"], "{listed}");
    for (id, tool) in (2..).zip(tools) {
        let answer = asked(id, "tools/call", json!({"name": tool, "arguments": {"n": id}})).await;
        assert!(is_answer(&answer), "{tool}: {answer}");
    }
}
