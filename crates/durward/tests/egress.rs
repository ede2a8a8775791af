//! What the gateway dials: what is configured, if its address is one it may dial, and nothing it is sent to.

mod rig;
mod world;

use rig::{call_of, outcome, relayed};
use serde_json::json;
use testkit::{Answer, Upstream};
use world::{ALL, World};

#[tokio::test]
async fn private_addresses_are_dialled_only_where_the_server_is_internal() {
    let (hidden, upstream) = (Upstream::start().await, Upstream::start().await);
    let (port, open) = (hidden.address().port(), upstream.address().port());
    // The machine's own name says nothing of where it leads: it is resolved, and the address judged.
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let body = format!(
        "servers:\n\
         \x20 name: {{ url: \"https://{}:{port}/mcp\", deadline: 2s }}\n\
         \x20 open: {{ url: \"http://localhost:{open}/mcp\", internal: true }}\n",
        own.trim()
    );
    let world = World::with(&body, ALL).await;
    let reply = world.calling("/mcp/name", Some(&world.alice), "echo", &json!({})).send().await;
    let call = call_of(&reply);
    let answer = reply.json().await;
    assert!(!answer.to_string().contains(own.trim()), "addresses are the operator's: {answer}");
    let record = world.record(&call).await;
    assert_eq!(outcome(&record), "faulted upstream-down resolve", "{record:#}");
    let why = record["error"].as_str().unwrap();
    assert!(
        why.contains("internal: true"),
        "the operator reads why. A machine that does not know its own name shows nothing here: `127.0.0.1 {}` belongs \
         into its /etc/hosts. {record:#}",
        own.trim()
    );
    assert_eq!(hidden.connections(), 0, "not even a handshake");
    let before = upstream.received();
    let ask = world.calling("/mcp/open", Some(&world.alice), "echo", &json!({}));
    assert!(ask.send().await.json().await["error"].is_null());
    assert!(upstream.received() > before);
}

#[tokio::test]
async fn addresses_written_as_numbers_need_the_mark_too() {
    for url in [
        "https://127.0.0.1/mcp",
        "https://[::1]/mcp",
        "https://[::ffff:127.0.0.1]/mcp",
        "https://10.1.2.3/mcp",
        "https://192.168.0.1/mcp",
        "https://169.254.169.254/mcp",
        "https://2130706433/mcp",
        "https://0x7f.1/mcp",
        "https://0/mcp",
        "https://localhost/mcp",
        "https://a.localhost/mcp",
        // Never, marked or not.
        "https://169.254.169.254/mcp\", internal: true, \"era\": \"both",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let text = world::complete(&format!("servers: {{ x: {{ url: \"{url}\" }} }}\n"));
        std::fs::write(folder.path().join("durward.yaml"), text).unwrap();
        std::fs::write(folder.path().join("policy.json"), ALL).unwrap();
        let ended = world::command(folder.path()).output();
        let ended =
            tokio::time::timeout(std::time::Duration::from_secs(10), ended).await.expect("it does not start").unwrap();
        assert!(!ended.status.success(), "{url}");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(said.contains("internal: true") || said.contains("never reached"), "{url}: {said}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (upstream, trap) = (Upstream::start().await, Upstream::start().await);
    let world = World::start(&world::http("files", &upstream)).await;
    let warm = world.calling("/mcp/files", Some(&world.alice), "echo", &json!({}));
    assert!(warm.send().await.json().await["error"].is_null());
    for status in [301, 302, 303, 307, 308] {
        let status = http::StatusCode::from_u16(status).unwrap();
        upstream.next("tools/call", Answer::status(status).header("location", &trap.url()));
        let reply = world.calling("/mcp/files", Some(&world.alice), "echo", &json!({})).send().await;
        assert!(reply.header("location").is_none(), "where the server is stays here");
    }
    assert_eq!(trap.connections(), 0);
    assert_eq!(relayed(&upstream, "tools/call").len(), 6, "and nothing is tried again");
}

#[tokio::test]
async fn a_server_behind_a_socket_is_used_like_another() {
    let upstream = Upstream::with_tools(["read"]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("files.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let behind = upstream.address();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                #[expect(clippy::disallowed_methods, reason = "a fake server passes on")]
                let mut far = tokio::net::TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    let servers = format!("  files: {{ url: \"http://files/mcp\", socket: \"{}\", internal: true }}\n", path.display());
    let world = World::start(&servers).await;
    let legacy = world.legacy("/mcp/files").await;
    assert_eq!(legacy.tools().await, ["read"]);
    assert!(legacy.call("read", json!({})).await["result"].is_object());
    assert!(world.modern("/mcp").call("files__read", json!({})).await["result"].is_object());
    assert_eq!(upstream.seen("tools/call")[0].header("host"), Some("files"));
}
