//! No place left, and said so.

use crate::{
    management,
    world::{self, World},
};
use std::fs;
use testkit::soon;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const FULL: &str = "connections of management are taken: new ones are let go";

/// Begins a request that never ends.
#[expect(clippy::disallowed_methods, reason = "a test dials what it is told to")]
async fn begun(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // Who was let go already cannot be told anything.
    let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a").await;
    stream
}

#[tokio::test]
async fn that_management_is_full_is_said_once_and_not_for_each_who_is_let_go() {
    let world = World::start("  {}\n").await;
    let address = management(&world).await;
    let told = || world.said().iter().filter(|line| line.contains(FULL)).count();
    let mut held = Vec::new();
    while held.len() < 128 {
        held.push(begun(&address).await);
    }
    assert_eq!(told(), 0, "there was a place for each");
    soon(async {
        while told() == 0 {
            held.push(begun(&address).await);
        }
    })
    .await;
    for _ in 0..3 {
        let mut more = begun(&address).await;
        // Whether it ends in order or is reset, it ends.
        let _ = soon(more.read(&mut [0])).await;
    }
    assert_eq!(told(), 1, "once a minute");
}

#[tokio::test]
async fn a_place_of_management_that_agents_have_is_not_blamed_on_somebody_else() {
    let port = testkit::free_port();
    let body = format!("listen: \"[::]:{port}\"\ndanger_plain_http: true\nservers: {{}}\n");
    let (folder, ..) = crate::unlaid(&body).await;
    let file = folder.path().join("durward.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("admin: { listen: 127.0.0.1:0 }", &format!("admin: {{ listen: 127.0.0.1:{port} }}")))
        .unwrap();

    let ended = soon(world::command(folder.path()).output()).await.unwrap();

    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(!ended.status.success(), "{said}");
    let fault =
        format!("management cannot listen on 127.0.0.1:{port} (`admin: {{ listen: … }}`): `listen` has [::]:{port}");
    assert!(said.contains(&fault), "{said}");
}
