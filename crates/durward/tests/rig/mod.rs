//! What safety tests add to the world: secrets in the vault, tokens, both trees of the log, and one count of records.
#![allow(dead_code, clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "each test file uses its share")]

use crate::world::{self, World};
use audit::{Filter, Order, Query, Reader, Tree};
use serde_json::Value;
use std::{fs, path::Path, process::Stdio};
use tempfile::TempDir;
use testkit::{Ask, Received, Reply, Upstream, soon};
use tokio::io::AsyncWriteExt;
use vault::{KeySource, Vault};
use vocab::{Secret, SecretName, TenantId, Timestamp};

/// A folder with configuration, policy, secrets and the two keys, and nothing running on it yet.
pub(crate) async fn prepared(body: &str, policy: &str, secrets: &[(&str, &str)]) -> (TempDir, String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    fs::create_dir(&data).expect("a data directory");
    fs::write(folder.path().join("policy.json"), policy).expect("a policy");
    fs::write(folder.path().join("durward.yaml"), world::complete(body)).expect("a configuration");
    let alice = world::key(&data, "alice", None).await;
    let bob = world::key(&data, "bob", None).await;
    for (name, value) in secrets {
        secret(&data, name, value);
    }
    (folder, alice, bob)
}

/// A gateway with secrets in its vault.
pub(crate) async fn with_secrets(body: &str, policy: &str, secrets: &[(&str, &str)]) -> World {
    let (folder, alice, bob) = prepared(body, policy, secrets).await;
    World::launch(folder, alice, bob).await
}

/// Puts a secret into the vault of a gateway that does not run.
pub(crate) fn secret(data: &Path, name: &str, value: &str) {
    let key = KeySource::File(data.join("master.key")).load(data).expect("a master key");
    let now = Timestamp::from_seconds(1_795_248_000);
    let vault = Vault::open(data, key, TenantId::default_tenant(), now).expect("a vault");
    vault.set(&SecretName::new(name).expect("a name"), &Secret::new(value.to_owned()), now).expect("it is kept");
}

/// Gives a secret of a running gateway another value.
#[expect(clippy::disallowed_methods, reason = "a test runs the product")]
pub(crate) async fn rotate(world: &World, name: &str, value: &str) {
    let mut rotating = tokio::process::Command::new(env!("CARGO_BIN_EXE_durward"))
        .args(["secret", "rotate", name, "--data"])
        .arg(world.data())
        .current_dir(world.folder())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    rotating.stdin.take().unwrap().write_all(value.as_bytes()).await.unwrap();
    assert!(soon(rotating.wait()).await.unwrap().success());
}

/// A policy of these rules.
pub(crate) fn policy(rules: &Value) -> String {
    serde_json::json!({ "policy": "test", "rules": rules }).to_string()
}

/// The requests of calls, without those the gateway makes on its own account.
pub(crate) fn relayed(upstream: &Upstream, name: &str) -> Vec<Received> {
    upstream.seen(name).into_iter().filter(|request| request.header("durward-call-id").is_some()).collect()
}

/// The call id that an answer carries.
pub(crate) fn call_of(reply: &Reply) -> String {
    reply.header("durward-call-id").expect("each answer carries its call id").to_owned()
}

/// Every record of one tree, oldest first, with its kind.
pub(crate) fn leaves(log: &Path, tree: &Tree) -> Vec<(String, Value)> {
    let Ok(reader) = Reader::open(log, tree) else { return Vec::new() };
    let query =
        Query { filter: Filter::default(), order: Order::Oldest, from: None, limit: usize::MAX, scan: u64::MAX };
    let page = reader.page(&query).unwrap_or_default();
    let of = |entry: audit::Entry| {
        let kind = entry.value.get("kind")?.as_str()?.to_owned();
        Some((kind, entry.value.get("record")?.clone()))
    };
    page.entries.into_iter().filter_map(of).collect()
}

/// The closed records of a call, in both trees.
pub(crate) fn closed(log: &Path, call: &str) -> Vec<Value> {
    let tenant = leaves(log, &Tree::Tenant(TenantId::default_tenant()));
    let system = leaves(log, &Tree::System);
    tenant
        .into_iter()
        .filter(|(kind, _)| kind == "call")
        .chain(system)
        .map(|(_, record)| record)
        .filter(|record| record["call"] == call)
        .collect()
}

/// The log of a data directory verifies.
pub(crate) fn verify(data: &Path) {
    let public = fs::read_to_string(data.join("log.pub")).expect("the key of the log");
    let verified = audit::verify(&data.join("log"), &verifier(&public), None, None);
    drop(verified.unwrap_or_else(|broken| panic!("{broken}")));
}

/// The key in a verifier line: `NAME+ID+BASE64(1 algorithm byte, key)`.
fn verifier(line: &str) -> [u8; 32] {
    use base64::Engine;
    let encoded = line.trim().splitn(3, '+').nth(2).expect("three parts");
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).expect("base64");
    bytes.get(1..).and_then(|key| key.try_into().ok()).expect("32 bytes")
}

impl World {
    /// The one closed record of a call, once it is there.
    pub(crate) async fn record(&self, call: &str) -> Value {
        let log = self.data().join("log");
        let mut found = Vec::new();
        self.until(|| {
            found = closed(&log, call);
            !found.is_empty()
        })
        .await;
        assert_eq!(found.len(), 1, "one call, one record: {found:#?}");
        found.remove(0)
    }

    /// A modern call of a tool with this credential, ready to be sent.
    pub(crate) fn calling(&self, path: &str, token: Option<&str>, tool: &str, arguments: &Value) -> Ask {
        let agent = testkit::Agent::modern(&self.url(path), token);
        let params = serde_json::json!({ "name": tool, "arguments": arguments, "_meta": testkit::meta() });
        agent.ask(
            "tools/call",
            &serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}),
        )
    }
}

/// `reason` and `stage` of an outcome, after what it is: `refused rate limit`.
pub(crate) fn outcome(record: &Value) -> String {
    let outcome = &record["outcome"];
    ["is", "reason", "stage"].iter().filter_map(|member| outcome[member].as_str()).collect::<Vec<_>>().join(" ")
}
