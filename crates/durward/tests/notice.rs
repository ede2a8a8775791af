//! Changed files are noticed without a signal: the configuration, policies wherever a pattern finds them, roots, keys.
//!
//! What came before anything was watched is looked for once, without a change. A first change is therefore no proof:
//! each test makes another one when it is in force.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what the test stands on must be there, or the test has failed"
)]

mod rig;
mod world;

use audit::Tree;
use rig::leaves;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{fs, path::Path, time::Duration};
use tempfile::TempDir;
use testkit::{Agent, Answer, Ask, Kind, SigningKey, Upstream, soon};
use tokio::{net::UnixStream, time::timeout};
use world::{ALL, World, http, put};

/// A policy of one rule for everything, and no other like it.
fn everything(effect: &str, name: &str) -> String {
    json!({"policy": name, "rules": [{"id": name, "action": "*", "target": "*/*", "effect": effect}]}).to_string()
}

/// Runs a gateway on a folder with this configuration.
async fn launched(folder: TempDir, configuration: &str) -> World {
    fs::write(folder.path().join("durward.yaml"), configuration).unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let (alice, bob) = (world::key(&data, "alice", None).await, world::key(&data, "bob", None).await);
    World::launch(folder, alice, bob).await
}

/// A file of these keys.
fn published(keys: &[&SigningKey]) -> String {
    let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

async fn may_call(world: &World) -> bool {
    world.modern("/mcp/files").call("echo", json!({})).await["result"].is_object()
}

/// What reloads changed, as it is on record.
fn reloads(world: &World) -> Vec<String> {
    let system = leaves(&world.data().join("log"), &Tree::System).into_iter().map(|(_, record)| record);
    let reloads = system.filter(|record| record["event"] == "reloaded");
    reloads.map(|record| record["detail"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_policy_is_noticed_wherever_a_pattern_finds_it() {
    let upstream = Upstream::with_tools(["echo"]).await;
    for (glob, first, late) in [
        ("policies/*.json", "policies/first.json", "policies/late.json"),
        ("policies/**/*.json", "policies/first.json", "policies/new/deep/late.json"),
        // What a policy is called is the pattern's affair.
        ("policies/*", "policies/first.policy", "policies/late.policy"),
        ("policies/*/rules.d/*", "policies/a/rules.d/first", "policies/b/rules.d/late"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), first, &everything("allow", "zero"));
        let text = world::complete(&format!("servers:\n{}", http("files", &upstream)));
        let world = launched(folder, &text.replace("policies: policy.json", &format!("policies: [\"{glob}\"]"))).await;
        world.notices(|folder| put(folder, first, &everything("allow", "one"))).await;
        assert!(may_call(&world).await, "{glob}");

        world.notices(|folder| put(folder, late, &everything("deny", "two"))).await;
        assert!(!may_call(&world).await, "{glob}: a file that comes counts");
        // Where a folder came, it was looked into once more when it was watched: the second of these is told.
        for (effect, name) in [("allow", "three"), ("deny", "four"), ("allow", "five")] {
            world.notices(|folder| put(folder, late, &everything(effect, name))).await;
            assert_eq!(may_call(&world).await, effect == "allow", "{glob}: a file that changes counts");
        }
        world.notices(|folder| put(folder, late, &everything("deny", "six"))).await;
        world.notices(|folder| fs::remove_file(folder.join(late)).unwrap()).await;
        assert!(may_call(&world).await, "{glob}: a file that goes counts");
    }
}

#[tokio::test]
async fn a_folder_of_policies_that_is_replaced_is_noticed() {
    let upstream = Upstream::with_tools(["echo"]).await;
    let folder = tempfile::tempdir().unwrap();
    for (release, effect) in [("one", "allow"), ("two", "deny"), ("three", "allow")] {
        put(folder.path(), &format!("{release}/p.json"), &everything(effect, release));
    }
    let lead = |folder: &Path, release: &str| {
        std::os::unix::fs::symlink(release, folder.join("next")).unwrap();
        fs::rename(folder.join("next"), folder.join("policies")).unwrap();
    };
    lead(folder.path(), "one");
    let text = world::complete(&format!("servers:\n{}", http("files", &upstream)));
    let world = launched(folder, &text.replace("policies: policy.json", "policies: [policies/*.json]")).await;
    assert!(may_call(&world).await);
    for (release, effect) in [("two", "deny"), ("three", "allow"), ("two", "deny"), ("one", "allow")] {
        world.notices(|folder| lead(folder, release)).await;
        assert_eq!(may_call(&world).await, effect == "allow", "{release}");
    }
}

#[tokio::test]
async fn a_changed_configuration_is_noticed() {
    let upstream = Upstream::with_tools(["echo"]).await;
    let world = World::start(&http("files", &upstream)).await;
    for disabled in [true, false, true] {
        let agents = format!("agents: {{ alice: {{ disabled: {disabled} }}, bob: {{}} }}\n");
        let text = world::complete(&format!("{agents}servers:\n{}", http("files", &upstream)));
        world.notices(|folder| put(folder, "durward.yaml", &text)).await;
        assert_eq!(may_call(&world).await, !disabled);
    }
}

#[tokio::test]
async fn what_a_refused_configuration_names_is_watched_until_it_is_taken() {
    let upstream = Upstream::with_tools(["echo"]).await;
    let world = World::start(&http("files", &upstream)).await;
    for folder in ["rules", "idp"] {
        fs::create_dir(world.folder().join(folder)).unwrap();
    }
    let issuer = "issuers: [{ url: \"https://idp.example\", audience: durward, agent: \"claim:azp\", \
                  jwks: { file: idp/keys.json } }]\n";
    let text = world::complete(&format!("{issuer}servers:\n{}", http("files", &upstream)));
    let refused = "durward: not reloaded";
    let mut before = world.said().len();
    put(world.folder(), "durward.yaml", &text.replace("policies: policy.json", "policies: [rules/*.json]"));
    world.says_after(before, "no policy matches this").await;
    world.says_after(before, refused).await;
    before = world.said().len();
    let again = timeout(Duration::from_secs(1), world.says_after(before, refused)).await;
    assert!(again.is_err(), "what is watched now is looked at, and what was said is not said again");

    for (rules, told) in [("{".to_owned(), "mine.json"), (everything("deny", "mine"), "this file does not exist")] {
        before = world.said().len();
        put(world.folder(), "rules/mine.json", &rules);
        world.says_after(before, told).await;
        world.says_after(before, refused).await;
        assert!(may_call(&world).await, "nothing of it is in force");
    }
    let keys = json!({ "keys": [SigningKey::generate(Kind::Ed25519, "one").jwk()] }).to_string();
    world.notices(|folder| put(folder, "idp/keys.json", &keys)).await;
    assert!(!may_call(&world).await, "all of it is");
}

/// What is said of a file of keys that cannot be used.
const NOT_TAKEN: &str = "issuers: the file of keys of https://idp.example is not taken";

/// A gateway that cannot use the file of keys of its issuer any more and has said so, and its configuration.
async fn without_keys(upstream: &Upstream) -> (World, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("policy.json"), ALL).unwrap();
    put(folder.path(), "idp/keys.json", r#"{"keys": []}"#);
    let issuer = "issuers: [{ url: \"https://idp.example\", audience: durward, agent: \"claim:azp\", \
                  jwks: { file: idp/keys.json } }]\n";
    let configuration = world::complete(&format!("{issuer}servers:\n{}", http("files", upstream)));
    let world = launched(folder, &configuration).await;
    world.notices(|folder| put(folder, "idp/keys.json", "{")).await;
    world.says(NOT_TAKEN).await;
    (world, configuration)
}

#[tokio::test]
async fn a_file_of_keys_that_cannot_be_used_is_told_once() {
    let upstream = Upstream::with_tools(["echo"]).await;
    let (world, _) = without_keys(&upstream).await;
    let before = world.said().len();
    for name in ["one", "two"] {
        world.notices(|folder| put(folder, "policy.json", &everything("allow", name))).await;
    }
    world.notices(|folder| put(folder, "idp/keys.json", r#"{"keys": []}"#)).await;
    world.says_after(before, "issuers: the file of keys of https://idp.example is taken again").await;
    let told = world.said().into_iter().skip(before).filter(|line| line.contains(NOT_TAKEN)).count();
    assert_eq!(told, 0, "{:#?}", world.said());
}

#[tokio::test]
async fn an_issuer_whose_file_of_keys_was_never_good_is_not_taken() {
    let upstream = Upstream::with_tools(["echo"]).await;
    let keys = || json!({ "keys": [SigningKey::generate(Kind::Ed25519, "one").jwk()] }).to_string();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("policy.json"), ALL).unwrap();
    put(folder.path(), "idp/keys.json", &keys());
    put(folder.path(), "idp/late.json", "{");
    let issuer = |name: &str, file: &str| {
        format!(
            "  - {{ url: \"https://{name}.example\", audience: durward, agent: \"claim:azp\", jwks: {{ file: idp/{file} }} }}\n"
        )
    };
    let with = |issuers: &str| world::complete(&format!("issuers:\n{issuers}servers:\n{}", http("files", &upstream)));
    let known = issuer("idp", "keys.json");
    let world = launched(folder, &with(&known)).await;

    // One that is added, and one whose keys lie elsewhere now.
    for issuers in [format!("{known}{}", issuer("late", "late.json")), issuer("idp", "late.json")] {
        for (text, why) in [("{", "it is not readable"), (r#"{"keys": [{"kty": "oct"}]}"#, "no public key")] {
            let before = world.said().len();
            put(world.folder(), "idp/late.json", text);
            let agents = "agents: { alice: { disabled: true }, bob: {} }\n";
            put(
                world.folder(),
                "durward.yaml",
                &format!("{}{agents}", with(&issuers).replace("agents: { alice: {}, bob: {} }\n", "")),
            );
            world.signal(Signal::HUP);
            world.says_after(before, "durward: not reloaded; what was in force before goes on").await;
            world.says_after(before, "error: no token could be verified with this file").await;
            world.says_after(before, why).await;
            assert!(may_call(&world).await, "nothing of it is in force");
        }
    }
    // A file that was good keeps nothing else back: the keys of before stay in force.
    world
        .notices(|folder| put(folder, "durward.yaml", &with(&known).replace("alice: {}", "alice: { roles: [one] }")))
        .await;
    world.notices(|folder| put(folder, "idp/keys.json", "{")).await;
    world.notices(|folder| put(folder, "policy.json", &everything("deny", "one"))).await;
    assert!(!may_call(&world).await);
    put(world.folder(), "idp/late.json", &keys());
    world
        .notices(|folder| put(folder, "durward.yaml", &with(&format!("{known}{}", issuer("late", "late.json")))))
        .await;
}

#[tokio::test]
async fn a_file_of_keys_that_is_gone_keeps_nothing_back_and_its_keys_stay() {
    let upstream = Upstream::with_tools(["echo"]).await;
    let key = SigningKey::generate(Kind::Ed25519, "one");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("policy.json"), ALL).unwrap();
    let keys = published(&[&key]);
    put(folder.path(), "idp/keys.json", &keys);
    let issuer = "issuers: [{ url: \"https://idp.example\", audience: durward, agent: \"claim:azp\", \
                  jwks: { file: idp/keys.json } }]\n";
    let configuration = world::complete(&format!("{issuer}servers:\n{}", http("files", &upstream)));
    let world = launched(folder, &configuration).await;
    let token = key.token(&json!({
        "iss": "https://idp.example", "aud": "durward", "azp": "alice", "exp": 4_000_000_000_u64,
    }));
    let status = async || world.calling("/mcp/files", Some(&token), "echo", &json!({})).send().await.status;
    assert_eq!(status().await, 200);

    world.notices(|folder| fs::remove_file(folder.join("idp/keys.json")).unwrap()).await;
    world.says(NOT_TAKEN).await;
    assert_eq!(status().await, 200, "the keys of before stay in force");
    // All else of a configuration is taken, and whoever asks hears what is not.
    let before = world.said().len();
    put(world.folder(), "durward.yaml", &configuration.replace("alice: {}", "alice: { disabled: true }"));
    world.signal(Signal::HUP);
    world.says_after(before, "durward: reloaded").await;
    world.says_after(before, &format!("  as before: {NOT_TAKEN}")).await;
    assert_eq!(status().await, 403);
    // A file that is another one must be there.
    let before = world.said().len();
    put(world.folder(), "durward.yaml", &configuration.replace("idp/keys.json", "idp/other.json"));
    world.says_after(before, "this file does not exist").await;
    world.says_after(before, "durward: not reloaded").await;
    // It is taken again when it is back.
    let before = world.said().len();
    put(world.folder(), "durward.yaml", &configuration);
    put(world.folder(), "idp/keys.json", &keys);
    world.says_after(before, "issuers: the file of keys of https://idp.example is taken again").await;
    assert_eq!(status().await, 200);
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test dials what it is told to")]
async fn whoever_asks_for_a_reload_is_told_what_is_still_refused() {
    let upstream = Upstream::with_tools(["echo"]).await;
    let (world, configuration) = without_keys(&upstream).await;
    let still = format!("  as before: {NOT_TAKEN}");

    for broken in [false, true, false] {
        put(world.folder(), "durward.yaml", if broken { "{" } else { &configuration });
        let before = world.said().len();
        world.signal(Signal::HUP);
        let answer = if broken { "durward: not reloaded" } else { "durward: configuration reloaded, nothing changed" };
        world.says_after(before, answer).await;
        world.says_after(before, &still).await;
    }
    let asked = Ask::new(http::Method::POST, "http://localhost/api/reload");
    let socket = UnixStream::connect(world.data().join("control.sock")).await.unwrap();
    let answer = asked.over(socket).await.unwrap().json().await;
    assert_eq!(answer["changes"], json!([]), "{answer}");
    assert!(answer["still"][0].as_str().unwrap().starts_with(NOT_TAKEN), "{answer}");
    // What is no news is on no record.
    assert_eq!(reloads(&world).len(), 1, "the file broke once: {:#?}", reloads(&world));
}

#[tokio::test]
async fn other_roots_under_the_same_name_are_noticed_said_and_on_record() {
    let roots = || rcgen::generate_simple_self_signed(vec!["files.example".to_owned()]).unwrap().cert.pem();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("policy.json"), ALL).unwrap();
    put(folder.path(), "trust/roots.pem", &roots());
    let servers = "servers:\n  files: { url: \"https://127.0.0.1:9/mcp\", internal: true, ca: trust/roots.pem }\n";
    let world = launched(folder, &world::complete(servers)).await;
    for count in 1..=2 {
        let before = world.said().len();
        world.notices(|folder| put(folder, "trust/roots.pem", &roots())).await;
        world.says_after(before, "servers.files.ca: the file holds other roots").await;
        world.until(|| reloads(&world).len() == count).await;
        assert!(reloads(&world)[count - 1].contains("servers.files.ca"));
    }
}

#[tokio::test]
async fn a_key_taken_out_of_its_file_ends_the_streams_of_its_tokens() {
    let upstream = Upstream::with_tools(["echo"]).await;
    let (kept, stolen) = (SigningKey::generate(Kind::Ed25519, "kept"), SigningKey::generate(Kind::Ed25519, "stolen"));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("policy.json"), ALL).unwrap();
    put(folder.path(), "idp/keys.json", &published(&[&kept]));
    let issuer = "issuers: [{ url: \"https://idp.example\", audience: durward, agent: \"claim:azp\", \
                  jwks: { file: idp/keys.json } }]\n";
    let world = launched(folder, &world::complete(&format!("{issuer}servers:\n{}", http("files", &upstream)))).await;
    let write = |keys: &[&SigningKey]| {
        let text = published(keys);
        move |folder: &Path| put(folder, "idp/keys.json", &text)
    };
    let before = world.said().len();
    world.notices(write(&[&kept, &stolen])).await;
    world.says_after(before, "issuers: other keys of https://idp.example are in force").await;
    let token = |key: &SigningKey| {
        key.token(&json!({"iss": "https://idp.example", "aud": "durward", "azp": "alice", "exp": 4_000_000_000_u64}))
    };
    let url = world.url("/mcp/files");
    let owner = Agent::legacy(&url, Some(&token(&kept))).await;
    let thief = Agent::legacy(&url, Some(&token(&stolen))).await;
    let mut feeds = Vec::new();
    let mut streams = Vec::new();
    for agent in [&owner, &thief] {
        let (answer, feed) = Answer::events();
        upstream.next("GET", answer);
        streams.push(agent.listen().await);
        feeds.push(feed);
    }

    world.notices(write(&[&kept])).await;

    assert_eq!(thief.request("ping", json!({})).await.status, 401);
    let mut of_thief = streams.pop().unwrap();
    soon(async { while of_thief.chunk().await.is_some() {} }).await;
    assert_eq!(owner.request("ping", json!({})).await.status, 200);
    // Its own stream goes on: what its server says now arrives.
    feeds[0].message(&json!({"jsonrpc": "2.0", "method": "notifications/said"})).await;
    let heard = soon(streams[0].event()).await.expect("the stream goes on");
    assert!(heard.data.contains("notifications/said"), "{}", heard.data);
}
