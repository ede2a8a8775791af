//! Killed at any moment: the log verifies, what was answered was intended, nothing is there twice, and what nobody
//! knows the end of is closed as unknown.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what the test stands on must be there, or the test has failed"
)]

mod rig;
mod world;

use audit::Tree;
use rig::{leaves, prepared, relayed};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use testkit::Upstream;
use vocab::TenantId;
use world::{ALL, World, http};

const ROUNDS: usize = 20;
const CLIENTS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_under_load_lose_and_repeat_nothing() {
    let upstream = Upstream::start().await;
    let body = format!("servers:\n{}", http("files", &upstream));
    let (mut folder, alice, bob) = prepared(&body, ALL, &[]).await;
    let answered: Arc<Mutex<HashSet<String>>> = Arc::default();
    for round in 0..ROUNDS {
        let world = World::launch(folder, alice.clone(), bob.clone()).await;
        let done = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (answered, done) = (Arc::clone(&answered), Arc::clone(&done));
                let ask = world.calling("/mcp/files", Some(&world.alice), "echo", &json!({"round": round}));
                tokio::spawn(async move {
                    // Until the gateway is gone.
                    while let Ok(Ok(reply)) = tokio::spawn(ask.clone().try_send()).await {
                        let call = reply.header("durward-call-id").unwrap_or_default().to_owned();
                        let whole = reply.json().await;
                        if whole.get("result").is_some() {
                            answered.lock().unwrap().insert(call);
                            done.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                })
            })
            .collect();
        // A different moment each round: after so many answers, in the middle of the next.
        let enough = 3 + (round * 37) % 101;
        world.until(|| done.load(Ordering::SeqCst) >= enough).await;
        folder = world.kill(Signal::KILL).await;
        for client in clients {
            client.abort();
            let _ended = client.await;
        }
        check(&folder.path().join("data"), &answered.lock().unwrap());
    }
    // One more start closes what the last kill left open; a stop in order leaves nothing open.
    let world = World::launch(folder, alice, bob).await;
    let (status, folder) = world.stop().await;
    assert!(status.success());
    let data = folder.path().join("data");
    check(&data, &answered.lock().unwrap());
    let tree = leaves(&data.join("log"), &Tree::Tenant(TenantId::default_tenant()));
    let mut open: HashSet<String> = HashSet::new();
    let mut ends: HashMap<String, Vec<Value>> = HashMap::new();
    for (kind, record) in &tree {
        let call = record["call"].as_str().unwrap_or_default().to_owned();
        match kind.as_str() {
            "intent" => assert!(open.insert(call), "an intent twice"),
            "call" => ends.entry(call).or_default().push(record["outcome"]["is"].clone()),
            _ => {}
        }
    }
    for call in &open {
        let ends = ends.get(call).unwrap_or_else(|| panic!("call {call} was never closed"));
        assert_eq!(ends.len(), 1, "one call, one end: {ends:?}");
    }
    assert!(ends.values().flatten().any(|end| end == "unknown"), "twenty kills under load interrupt something");
    // Whatever reached the server was intended, and reached it once.
    let mut arrived = HashSet::new();
    for request in relayed(&upstream, "tools/call") {
        let call = request.header("durward-call-id").unwrap().to_owned();
        assert!(open.contains(&call), "call {call} arrived without a word in the log");
        assert!(arrived.insert(call), "a call arrived twice");
    }
    assert!(answered.lock().unwrap().is_subset(&arrived));
}

/// The log as the kill left it.
fn check(data: &Path, answered: &HashSet<String>) {
    let public = std::fs::read_to_string(data.join("log.pub")).unwrap();
    let verified = audit::verify(&data.join("log"), &key(&public), None).unwrap_or_else(|broken| panic!("{broken}"));
    drop(verified);
    // The journal, not the tiles alone: the last second may not be in a tile yet.
    let mut text = String::new();
    for entry in std::fs::read_dir(data.join("log/journal")).unwrap().flatten() {
        text.push_str(&String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()));
    }
    for call in answered {
        assert!(text.contains(&format!("\"call\":\"{call}\"")), "answered call {call} has no intent on disk");
    }
}

/// The key in a verifier line: `NAME+ID+BASE64(1 algorithm byte, key)`.
fn key(line: &str) -> [u8; 32] {
    use base64::Engine;
    let encoded = line.trim().splitn(3, '+').nth(2).unwrap();
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
    bytes[1..].try_into().unwrap()
}
