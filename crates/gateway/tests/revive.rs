//! A process that ends while a legacy client listens: the next one is started, and heard, without a request.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::EraSettings;
use inside::{Inside, Plan};
use serde_json::{Value, json};
use testkit::{Agent, Reply, Upstream, soon};

/// A process that tells of a resource as soon as somebody follows it, and falls when it is told to.
const SCRIPT: &str = r#"
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  answer() { echo '{"jsonrpc":"2.0","id":'"$id"',"result":'"$1"'}'; }
  case "$line" in
    *'"initialize"'*) answer '{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"resources":{"subscribe":true}},"serverInfo":{"name":"sh","version":"1"}}' ;;
    *'"tools/list"'*) answer '{"tools":[{"name":"echo","inputSchema":{"type":"object"}},{"name":"die","inputSchema":{"type":"object"}}]}' ;;
    *'"name":"die"'*) kill -9 $$ ;;
    *'"tools/call"'*) answer '{"content":[]}' ;;
    *'"resources/subscribe"'*) answer '{}'
      echo '{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"file:///a","_meta":{"by":"'"$1"'"}}}' ;;
    *'"id"'*) answer '{"resources":[],"resourceTemplates":[]}' ;;
  esac
done"#;

fn plan(upstream: &Upstream, shared: bool, by: &str) -> Plan {
    let command = ["/bin/sh", "-c", SCRIPT, "server", by].map(str::to_owned).to_vec();
    Plan { command: Some(command), shared, era: EraSettings::Legacy, ..Plan::of(upstream) }
}

/// A door, what a tool is called there, and a resource.
const DOORS: [(&str, &str, &str); 2] =
    [("/mcp/files", "", "file:///a"), ("/mcp", "files__", "durward://files/file:///a")];

async fn subscribe(agent: &Agent, uri: &str) {
    let answer = agent.request("resources/subscribe", json!({"uri": uri})).await.json().await;
    assert!(answer["result"].is_object(), "{answer}");
}

async fn falls(agent: &Agent, prefix: &str) {
    let answer = agent.call(&format!("{prefix}die"), json!({})).await;
    assert_eq!(answer["error"]["code"], -31006, "{answer}");
}

/// Who told that the resource has changed.
async fn told(listener: &mut Reply, uri: &str) -> Value {
    soon(async {
        loop {
            // A reload changes lists, too.
            let told = listener.event().await.unwrap().json();
            if told["params"]["uri"] == uri {
                return told["params"]["_meta"]["by"].clone();
            }
        }
    })
    .await
}

#[tokio::test]
async fn who_listens_hears_the_next_process_without_a_request() {
    for (door, prefix, uri) in DOORS {
        for shared in [false, true] {
            let upstream = Upstream::start().await;
            let inside = Inside::start(plan(&upstream, shared, "one")).await;
            let alice = inside.legacy(door, &inside.alice).await;
            let mut listener = alice.listen().await;
            subscribe(&alice, uri).await;
            assert_eq!(told(&mut listener, uri).await, "one");
            for _ in 0..2 {
                falls(&alice, prefix).await;
                assert_eq!(told(&mut listener, uri).await, "one", "{door}, shared: {shared}");
            }
        }
    }
}

#[tokio::test]
async fn who_begins_to_listen_when_the_process_has_ended_hears_the_next_one() {
    for (door, prefix, uri) in DOORS {
        let upstream = Upstream::start().await;
        let inside = Inside::start(plan(&upstream, false, "one")).await;
        let alice = inside.legacy(door, &inside.alice).await;
        subscribe(&alice, uri).await;
        falls(&alice, prefix).await;
        let mut turns = tokio::time::interval(std::time::Duration::from_millis(5));
        soon(async {
            while inside.state.children.running() > 0 {
                turns.tick().await;
            }
        })
        .await;
        let mut listener = alice.listen().await;
        assert_eq!(told(&mut listener, uri).await, "one", "{door}");
    }
}

#[tokio::test]
async fn who_listens_hears_the_process_that_a_reload_puts_in_place() {
    for (door, _, uri) in DOORS {
        let upstream = Upstream::start().await;
        let inside = Inside::start(plan(&upstream, false, "one")).await;
        let alice = inside.legacy(door, &inside.alice).await;
        let mut listener = alice.listen().await;
        subscribe(&alice, uri).await;
        assert_eq!(told(&mut listener, uri).await, "one");
        // The second comes while the first is still looked at whether it stays.
        for next in ["two", "three"] {
            inside.swap(plan(&upstream, false, next));
            inside.state.sweep();
            assert_eq!(told(&mut listener, uri).await, next, "{door}");
        }
    }
}
