//! A gateway behind a Unix socket, and arguments that would be ignored.

use super::{Client, called, command, world::World};
use serde_json::json;
use testkit::Upstream;

#[tokio::test]
async fn a_gateway_behind_a_socket_is_reached_like_another() {
    let upstream = Upstream::start().await;
    let listen = "listen: [127.0.0.1:0, \"unix:agents.sock\"]\n";
    let body = format!("{listen}servers:\n{}", super::world::http("files", &upstream));
    let world = World::with(&body, super::world::ALL).await;
    let path = world.folder().join("agents.sock");
    // What stands in the address is not dialled: nobody listens there.
    let mut through = command("http://localhost:1/mcp/files");
    through.arg("--socket").arg(&path).env("DURWARD_KEY", &world.alice);
    let mut client = Client::run(through);
    assert!(client.initialize().await.get("result").is_some());
    assert!(client.call(1, json!({})).await["result"]["content"].is_array());
    called(&world, "alice").await;
    let (code, _, talk) = client.end().await;
    assert_eq!((code, talk.as_str()), (Some(0), ""));

    let mut nowhere = command("http://gate.example/mcp");
    nowhere.arg("--socket").arg(path.with_file_name("none.sock")).env("DURWARD_KEY", &world.alice);
    let mut client = Client::run(nowhere);
    let answer = client.initialize().await;
    let said = answer["error"]["message"].as_str().unwrap();
    assert!(said.contains("none.sock"), "{answer}");
    assert_eq!(answer["error"]["data"]["mayHaveHappened"], false);
    let (code, _, talk) = client.end().await;
    // Nothing crosses a network on the way to a socket.
    assert!(code == Some(3) && talk.contains("none.sock") && !talk.contains("encryption"), "{talk}");
}

#[tokio::test]
async fn an_argument_that_would_be_ignored_is_refused() {
    for (url, argument, value, word) in [
        ("http://127.0.0.1:1/mcp", "--ca-file", "roots.pem", "https"),
        ("https://127.0.0.1:1/mcp", "--socket", "agents.sock", "no TLS"),
    ] {
        let mut command = command(url);
        command.args([argument, value]);
        let (code, rest, talk) = Client::run(command).end().await;
        assert!(code == Some(2) && rest.is_empty(), "{talk}");
        assert!(talk.contains(argument) && talk.contains(word), "{talk}");
    }
}
