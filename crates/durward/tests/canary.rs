//! Canaries in every store: none of them may be found where they do not belong.
#![expect(clippy::unwrap_used, reason = "what the test stands on must be there, or the test has failed")]

mod rig;
mod world;

use rig::{relayed, with_secrets};
use serde_json::json;
use std::path::Path;
use testkit::{Answer, Ask, Upstream};
use world::{ALL, World};

const VAULT: &str = "canary-vault-6f1d0c2b9a";
const HEADER: &str = "canary-header-77aa01b3";
const QUERY: &str = "canary-query-0192ab4d";
const ARGUMENT: &str = "canary-argument-55cd9e2f";
const RESULT: &str = "canary-result-1b7e4f90";
const CLIENT: &str = "canary-client-header-9c3f";
const TOKEN: &str = "canary.bearer.c2lnbmVkLW5vdA";

#[tokio::test]
async fn no_canary_is_found_where_it_does_not_belong() {
    let upstream = Upstream::start().await;
    upstream.always("tools/call", |request| {
        Answer::result(&request.id(), &json!({"content": [{"type": "text", "text": RESULT}]}))
    });
    let body = format!(
        "servers:\n\
         \x20 files:\n\
         \x20   url: \"{url}\"\n\
         \x20   internal: true\n\
         \x20   credential:\n\
         \x20     - {{ bearer: upstream-token }}\n\
         \x20     - {{ header: X-Key, secret: upstream-header }}\n\
         \x20     - {{ query: key, secret: upstream-query }}\n\
         \x20 down: {{ url: \"http://127.0.0.1:9/mcp\", internal: true, credential: {{ query: key, secret: upstream-query }} }}\n",
        url = upstream.url()
    );
    let secrets = [("upstream-token", VAULT), ("upstream-header", HEADER), ("upstream-query", QUERY)];
    let world = with_secrets(&body, ALL, &secrets).await;
    let mut seen = Vec::new();
    let arguments = json!({"text": ARGUMENT, "deep": [{ARGUMENT: 1}]});
    let call = |path: &str, tool: &str| world.calling(path, Some(&world.alice), tool, &arguments);
    // Answered, unknown, down, unread, unauthenticated, twice over.
    let asks = [
        call("/mcp/files", "echo").header("cookie", CLIENT).header("x-private", CLIENT),
        call("/mcp", "files__echo"),
        call("/mcp/files", "missing"),
        call("/mcp/down", "echo"),
        call("/mcp/nowhere", "echo"),
        Ask::post(&world.url("/mcp/files"), format!("{{\"{ARGUMENT}\"")).bearer(&world.alice),
        Ask::post(&world.url("/mcp/files"), format!("{{\"jsonrpc\":\"2.0\",\"{ARGUMENT}\":1,\"{ARGUMENT}\":2}}"))
            .bearer(&world.alice),
        Ask::post(&world.url("/mcp/files"), "{}".to_owned()).bearer(TOKEN),
        call("/mcp/files", "echo").bearer(TOKEN),
        call("/mcp/files", "echo").header("x-api-key", &world.bob),
    ];
    for (at, ask) in asks.into_iter().enumerate() {
        let reply = ask.send().await;
        let head = format!("{reply:?}");
        let text = format!("{head} {}", reply.text().await);
        for canary in [VAULT, HEADER, QUERY, CLIENT, TOKEN, &world.alice, &world.bob] {
            assert!(!text.contains(canary), "answer {at} holds {canary}: {text}");
        }
        seen.push(text);
    }
    let sent = relayed(&upstream, "tools/call");
    assert_eq!(sent.len(), 2);
    for request in &sent {
        assert_eq!(request.header("authorization"), Some(format!("Bearer {VAULT}").as_str()));
        assert_eq!(request.header("x-key"), Some(HEADER));
        assert!(request.path.contains(&format!("key={QUERY}")), "{}", request.path);
        // Nothing of the caller's own travels on.
        let headers = format!("{:?}", request.headers);
        assert!(
            !headers.contains(CLIENT) && !headers.contains(&world.alice) && !headers.contains("cookie"),
            "{headers}"
        );
    }

    let (alice, bob, folder) = (world.alice.clone(), world.bob.clone(), world.folder().to_owned());
    let session = world.legacy("/mcp").await.session().unwrap().to_owned();
    world.until(|| world.said().iter().any(|line| line.contains("echo"))).await;
    let said = world.said().join("\n");
    let kept = texts(&folder.join("data"));
    let (status, _folder) = stop(world).await;
    assert!(status.success());
    let after = texts(&folder.join("data"));
    for canary in [VAULT, HEADER, QUERY, ARGUMENT, RESULT, CLIENT, TOKEN, &alice, &bob, &session] {
        assert!(!said.contains(canary), "stderr holds {canary}:\n{said}");
        for (file, text) in kept.iter().chain(&after) {
            assert!(!contains(text, canary.as_bytes()), "{file} holds {canary}");
        }
    }
    assert!(after.len() > 5, "the scan saw the log, the store and the vault: {}", after.len());
    drop(seen);
}

async fn stop(world: World) -> (std::process::ExitStatus, tempfile::TempDir) {
    world.stop().await
}

fn contains(text: &[u8], what: &[u8]) -> bool {
    text.windows(what.len()).any(|window| window == what)
}

/// Every file below a folder.
fn texts(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(texts(&path));
        } else if let Ok(text) = std::fs::read(&path) {
            found.push((path.display().to_string(), text));
        }
    }
    found
}
