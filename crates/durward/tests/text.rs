//! Texts beside the log: kept where that is configured, shown to who may see them, checked, and gone when they should be.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "these tests start the binary, and fail where it does not do what it should"
)]

mod rig;
mod world;

use audit::{Commitment, DayKey, Fingerprint, Intent, Keeping, Leaf, Log, Options, Sealer, Signer, Text, Tree};
use bytes::Bytes;
use rig::{call_of, leaves, prepared, with_secrets};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::Output,
    sync::Arc,
    time::{Duration, Instant},
};
use testkit::{Answer, Ask, Upstream};
use vault::{KeySource, Vault};
use vocab::{CallId, Day, Side, TenantId, Timestamp};
use world::{ALL, World, http};

const KEPT: &str = "log: { keep_text: 30d }\n";
const SECRET: &str = "ghp_A7dK2mQ9xR4tV8wZ1cF6hJ3nP5sY0u2Kq9Lb";
const CREDENTIAL: &str = "canary-vault-6f1d0c2b9a";
const ARGUMENT: &str = "what-alice-asked-55cd9e2f";
const RESULT: &str = "what-the-server-said-1b7e4f90";

fn body(upstream: &Upstream, more: &str) -> String {
    format!("servers:\n{}{more}", http("files", upstream))
}

/// An upstream whose tool answers this.
async fn saying(text: &str) -> Upstream {
    let upstream = Upstream::start().await;
    let text = text.to_owned();
    upstream.always("tools/call", move |request| {
        Answer::result(&request.id(), &json!({"content": [{"type": "text", "text": text}]}))
    });
    upstream
}

/// Calls the tool with this argument, and gives the id of the call.
async fn echo(world: &World, argument: &str) -> String {
    let reply = world.calling("/mcp/files", Some(&world.alice), "echo", &json!({ "text": argument })).send().await;
    let call = call_of(&reply);
    reply.text().await;
    call
}

/// `durward …` beside the gateway of this folder.
async fn durward(folder: &Path, line: &str) -> (i32, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_durward"));
    command.args(line.split_whitespace()).arg("--config").arg(folder.join("durward.yaml"));
    let Output { status, stdout, stderr } = command.arg("--data").arg(folder.join("data")).output().await.unwrap();
    let text = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (status.code().unwrap(), text)
}

/// What `audit show` says of both texts of a call.
async fn shown(folder: &Path, call: &str) -> (i32, [Value; 2]) {
    let (code, said) = durward(folder, &format!("audit show {call} --output json")).await;
    let lines: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let text = |side: &str| {
        let found = lines.iter().find(|line| line["kind"] == "text" && line["text"]["side"] == side);
        found.map(|line| line["text"].clone()).unwrap_or_default()
    };
    (code, [text("arguments"), text("result")])
}

/// Whether any file below `folder` holds `needle`.
fn holds(folder: &Path, needle: &str) -> bool {
    fs::read_dir(folder).unwrap().flatten().any(|entry| {
        let path = entry.path();
        let found = |text: Vec<u8>| text.windows(needle.len()).any(|window| window == needle.as_bytes());
        if path.is_dir() { holds(&path, needle) } else { fs::read(&path).is_ok_and(found) }
    })
}

fn system(data: &Path) -> Vec<Value> {
    leaves(&data.join("log"), &Tree::System).into_iter().map(|(_, record)| record).collect()
}

fn tenant(data: &Path) -> Vec<(String, Value)> {
    leaves(&data.join("log"), &Tree::Tenant(TenantId::default_tenant()))
}

/// The log of a gateway that does not run, with its texts.
fn log(data: &Path) -> Log {
    let tenant = TenantId::default_tenant();
    let now = Timestamp::from_seconds(1_795_248_000);
    let key = KeySource::File(data.join("master.key")).load(data).unwrap();
    let vault = Arc::new(Vault::open(data, key, tenant.clone(), now).unwrap());
    let signer = vault.audit_signer().unwrap();
    let name = "durward/default".to_owned();
    let options = Options::new(data.join("log"), name.clone(), tenant, now);
    let log = Log::open(options, Signer { name, public: signer.public, sign: signer.sign }).unwrap();
    let making = Arc::clone(&vault);
    log.with_texts(Sealer {
        make: Box::new(move |label| Ok(making.make_text_key(label)?)),
        open: Box::new(move |label, sealed| {
            let key = Arc::new(vault.open_text_key(label, sealed)?);
            let own = Arc::clone(&key);
            Ok(DayKey {
                seal: Box::new(move |label, text| Ok(own.seal(label, text)?)),
                open: Box::new(move |label, sealed| Ok(key.open(label, sealed).ok_or("it does not open")?)),
            })
        }),
    })
}

#[tokio::test]
async fn texts_are_kept_sealed_shown_and_checked_against_the_record() {
    let upstream = saying(RESULT).await;
    let servers = format!(
        "servers:\n  files: {{ url: \"{}\", internal: true, credential: {{ bearer: token }} }}\n{KEPT}",
        upstream.url()
    );
    let world = with_secrets(&servers, ALL, &[("token", CREDENTIAL)]).await;
    let reply = world.calling("/mcp/files", Some(&world.alice), "echo", &json!({ "text": ARGUMENT })).send().await;
    let (call, answer) = (call_of(&reply), reply.text().await);
    let record = world.record(&call).await;

    let (code, [arguments, result]) = shown(world.folder(), &call).await;

    assert_eq!(code, 0);
    for (text, side) in [(&arguments, "arguments"), (&result, "result")] {
        assert_eq!((&text["state"], &text["matches"], &text["cut"]), (&json!("kept"), &json!(true), &json!(false)));
        assert_eq!(text["bytes"], record[side]["bytes"], "the bytes that the digest is of");
    }
    assert!(arguments["text"].as_str().unwrap().contains(ARGUMENT));
    assert!(answer.contains(result["text"].as_str().unwrap()), "{answer}");
    let all = format!("{arguments}{result}");
    assert!(!all.contains(CREDENTIAL) && !all.contains(&world.alice), "credentials are no part of it: {all}");
    let (_, table) = durward(world.folder(), &format!("audit show {call}")).await;
    assert!(table.contains(", as recorded\n{\"") && table.contains(ARGUMENT), "{table}");
    // Who read is on record, with what was there to be read.
    let data = world.data();
    world.until(|| tenant(&data).iter().filter(|(_, record)| record["action"] == "audit.texts").count() == 2).await;
    let read = tenant(&data).into_iter().find(|(_, record)| record["action"] == "audit.texts").unwrap().1;
    assert_eq!((&read["target"], &read["detail"]), (&json!(call), &json!("arguments kept, result kept")));
    // Nothing lies in the clear, beside a gateway or after it.
    let (status, folder) = world.stop().await;
    assert!(status.success());
    for text in [ARGUMENT, RESULT] {
        assert!(!holds(&data, text), "a file holds {text}");
    }
    let (code, [arguments, _]) = shown(folder.path(), &call).await;
    assert_eq!((code, &arguments["matches"]), (0, &json!(true)), "without a gateway, too");
    assert_eq!(durward(folder.path(), "audit verify").await.0, 0);
}

#[tokio::test]
async fn nothing_is_kept_unless_it_is_configured() {
    let upstream = saying(RESULT).await;
    let world = World::with(&body(&upstream, ""), ALL).await;
    let before = echo(&world, ARGUMENT).await;
    assert!(!world.data().join("log/text").exists());
    // A reload is enough, for both.
    world.reload(&body(&upstream, KEPT)).await;
    let during = echo(&world, ARGUMENT).await;
    assert_eq!(shown(world.folder(), &during).await.1[0]["state"], "kept");
    world.reload(&body(&upstream, "")).await;
    world.says("nothing erases them any more").await;
    let after = echo(&world, ARGUMENT).await;
    for call in [before, after] {
        let (code, [arguments, result]) = shown(world.folder(), &call).await;
        assert_eq!((code, &arguments["state"], &result["state"]), (0, &json!("not-kept"), &json!("not-kept")));
    }
}

#[tokio::test]
async fn a_secret_that_was_found_is_kept_masked_or_not_at_all() {
    let upstream = saying(&format!("token {SECRET}")).await;
    let world = World::with(&body(&upstream, ""), ALL).await;
    for (mode, state) in [("report", "not-kept"), ("mask", "kept"), ("refuse", "not-kept")] {
        let detect = format!("detect: {{ secrets: {{ arguments: {mode}, results: mask }} }}\n{KEPT}");
        world.reload(&body(&upstream, &detect)).await;
        let call = echo(&world, &format!("{ARGUMENT} {SECRET}")).await;
        world.record(&call).await;
        let (code, [arguments, result]) = shown(world.folder(), &call).await;
        assert_eq!((code, &arguments["state"]), (0, &json!(state)), "{mode}");
        let all = format!("{arguments}{result}");
        assert!(!all.contains(SECRET), "{mode}: {all}");
        assert_eq!(result["state"], if mode == "refuse" { "not-kept" } else { "kept" });
        if state == "kept" {
            assert!(all.contains(ARGUMENT), "{all}");
            assert_eq!(arguments["matches"], true, "the record commits to what was sent on");
        }
        assert!(!all.contains("\"matches\":false"), "{all}");
    }
    let detect = format!("detect: {{ secrets: {{ results: report }} }}\n{KEPT}");
    world.reload(&body(&upstream, &detect)).await;
    let call = echo(&world, ARGUMENT).await;
    let [arguments, result] = shown(world.folder(), &call).await.1;
    assert_eq!((&arguments["state"], &result["state"]), (&json!("kept"), &json!("not-kept")));
}

#[tokio::test]
async fn a_changed_text_is_named() {
    let upstream = saying(RESULT).await;
    let world = World::with(&body(&upstream, KEPT), ALL).await;
    let call = echo(&world, ARGUMENT).await;
    let at = Timestamp::from_micros(world.record(&call).await["at"].as_i64().unwrap());
    let (_, folder) = world.stop().await;
    let data = folder.path().join("data");

    // Whoever has all keys can seal another text. The record does not vouch for it.
    let id: CallId = call.parse().unwrap();
    {
        let log = log(&data);
        let texts = log.texts().unwrap();
        texts.set(Some(Keeping { time: Duration::from_hours(24), per_day: 1 << 30 })).unwrap();
        texts.keep(Text { call: id, at, side: Side::Result, text: Bytes::from_static(b"nothing happened") });
    }
    let (code, [arguments, result]) = shown(folder.path(), &call).await;
    assert_eq!((code, &arguments["matches"], &result["matches"]), (4, &json!(true), &json!(false)));
    let (_, table) = durward(folder.path(), &format!("audit show {call}")).await;
    assert!(table.contains("result: 16 bytes, CHANGED"), "{table}");

    // Who has none can only break it.
    let day = data.join("log/text/default").join(Day::of(at).to_string());
    let mut sealed = fs::read(day.join("0000")).unwrap();
    *sealed.last_mut().unwrap() ^= 1;
    fs::write(day.join("0000"), sealed).unwrap();
    fs::remove_file(day.join("0001")).unwrap();
    let (code, [_, result]) = shown(folder.path(), &call).await;
    assert_eq!((code, &result["state"]), (4, &json!("damaged")));
    assert_eq!(durward(folder.path(), "audit verify").await.0, 0, "the record is another matter");
}

#[tokio::test]
async fn erased_texts_are_gone_and_the_log_verifies() {
    let upstream = saying(RESULT).await;
    let world = World::with(&body(&upstream, KEPT), ALL).await;
    let call = echo(&world, ARGUMENT).await;
    let at = Timestamp::from_micros(world.record(&call).await["at"].as_i64().unwrap());
    let day = Day::of(at);
    assert_eq!(shown(world.folder(), &call).await.1[0]["state"], "kept");

    let (code, said) = durward(world.folder(), &format!("audit erase --day {day}")).await;

    assert_eq!((code, said.contains(&day.to_string())), (0, true), "{said}");
    let (code, said) = durward(world.folder(), "audit erase --day 2999-01-01").await;
    assert!(code == 0 && said.contains("nothing is kept of 2999-01-01: nothing was erased"), "{said}");
    let (code, [arguments, result]) = shown(world.folder(), &call).await;
    assert_eq!((code, &arguments["state"], &result["state"]), (0, &json!("erased"), &json!("erased")));
    let data = world.data();
    let erasure = tenant(&data).into_iter().find(|(_, record)| record["action"] == "audit.erase").unwrap().1;
    assert_eq!((&erasure["target"], &erasure["detail"]), (&json!(day.to_string()), &json!(day.to_string())));
    // The day is not over: what comes next is kept again.
    let next = echo(&world, ARGUMENT).await;
    world.record(&next).await;
    assert_eq!(shown(world.folder(), &next).await.1[0]["state"], "kept");
    assert_eq!(durward(world.folder(), "audit verify").await.0, 0);
    let (_, folder) = world.stop().await;
    // Without a gateway, and for every day.
    let (code, _) = durward(folder.path(), "audit erase --before 2999-01-01").await;
    assert_eq!((code, &shown(folder.path(), &next).await.1[0]["state"]), (0, &json!("erased")));
    assert_eq!(durward(folder.path(), "audit verify").await.0, 0);
    for wrong in ["audit erase", "audit erase --day yesterday", "audit erase --day 2026-01-01 --before 2026-01-02"] {
        assert_eq!(durward(folder.path(), wrong).await.0, 2, "{wrong}");
    }
}

#[tokio::test]
async fn a_gateway_erases_what_was_kept_long_enough_when_it_starts() {
    let upstream = saying(RESULT).await;
    let (folder, alice, bob) = prepared(&body(&upstream, KEPT), ALL, &[("token", CREDENTIAL)]).await;
    let data = folder.path().join("data");
    let (old, id) = (Timestamp::from_seconds(1_700_000_000), CallId::from_bytes([7; 16]));
    {
        let log = log(&data);
        let texts = log.texts().unwrap();
        texts.set(Some(Keeping { time: Duration::from_hours(24), per_day: 1 << 30 })).unwrap();
        texts.keep(Text { call: id, at: old, side: Side::Arguments, text: Bytes::from_static(b"long ago") });
    }
    let day = data.join("log/text/default").join(Day::of(old).to_string());
    assert!(day.join("key").exists());
    let world = World::launch(folder, alice, bob).await;
    world.until(|| system(&data).iter().any(|record| record["event"] == "erased")).await;
    let record = system(&data).into_iter().find(|record| record["event"] == "erased").unwrap();
    assert_eq!(record["detail"], "texts that were kept long enough: 2023-11-14");
    let left: Vec<_> = fs::read_dir(&day).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["erased"]);
}

#[tokio::test]
async fn texts_that_cannot_be_written_stop_no_call() {
    let upstream = saying(RESULT).await;
    let world = World::with(&body(&upstream, KEPT), ALL).await;
    // Where the texts should be is a file: whatever is written there fails.
    fs::write(world.data().join("log/text"), "").unwrap();
    let call = echo(&world, ARGUMENT).await;
    assert_eq!(world.record(&call).await["outcome"]["is"], "answered");
    world.says("texts of calls cannot be kept").await;
    let management = world.says("management").await;
    let (_, address) = management.split_once("http://").unwrap();
    let url = format!("http://{}/metrics", address.split_whitespace().next().unwrap());
    // Each of the two is tried, and counted, when its turn comes.
    let waited = Instant::now();
    loop {
        let metrics = Ask::get(&url).send().await.text().await;
        if metrics.contains("durward_texts_dropped_total{reason=\"disk\"} 2") {
            break;
        }
        assert!(waited.elapsed() < Duration::from_secs(20), "{metrics}");
    }
    echo(&world, ARGUMENT).await;
    let said = world.said().iter().filter(|line| line.contains("texts of calls cannot be kept")).count();
    assert_eq!(said, 1, "it is said once");
    fs::remove_file(world.data().join("log/text")).unwrap();
    let call = echo(&world, ARGUMENT).await;
    assert_eq!(shown(world.folder(), &call).await.1[0]["state"], "kept", "it goes on by itself");
}

#[tokio::test]
async fn a_day_takes_so_many_texts_as_it_may() {
    let upstream = saying(RESULT).await;
    let bounded = KEPT.replace("30d", "30d, text_per_day: 1MiB");
    let world = World::with(&body(&upstream, &bounded), ALL).await;
    // Of each the first 64 KiB are kept: sixteen would be more than the day takes.
    let long = "x".repeat(64 << 10);
    let mut calls = Vec::new();
    for _ in 0..16 {
        calls.push(echo(&world, &long).await);
    }
    let kept = async |call: &str| shown(world.folder(), call).await.1[0]["state"].clone();
    assert_eq!((kept(&calls[0]).await, kept(&calls[15]).await), (json!("kept"), json!("not-kept")));
    world.reload(&body(&upstream, KEPT)).await;
    let call = echo(&world, &long).await;
    assert_eq!(kept(&call).await, "kept", "and where more may be kept, it is");
}

#[tokio::test]
async fn a_text_of_a_call_without_its_end_is_shown_unchecked_and_is_no_alarm() {
    let upstream = saying(RESULT).await;
    let world = World::with(&body(&upstream, KEPT), ALL).await;
    let (_, folder) = world.stop().await;
    let data = folder.path().join("data");
    // The call arrived before midnight of another day than the one on which recovery closes it.
    let (at, id) = (Timestamp::from_seconds(1_795_000_000), CallId::from_bytes([9; 16]));
    {
        let log = log(&data);
        let texts = log.texts().unwrap();
        texts.set(Some(Keeping { time: Duration::from_hours(24 * 36500), per_day: 1 << 30 })).unwrap();
        let said = Bytes::from_static(b"asked for");
        let fingerprint = Fingerprint::of(&said);
        let arguments = Some(log.salts().of(&id, at).unwrap().commit(Side::Arguments, &fingerprint));
        log.append_unwatched(Leaf::Intent(intent(id, at, arguments))).unwrap();
        texts.keep(Text { call: id, at, side: Side::Arguments, text: said });
        texts.keep(Text { call: id, at, side: Side::Result, text: Bytes::from_static(b"answered") });
        log.flush().await.unwrap();
        texts.flush();
    }
    // Asking opens the log, which closes what was left open as unknown.
    let (code, [arguments, result]) = shown(folder.path(), &id.to_string()).await;
    assert_eq!((code, &arguments["matches"]), (0, &json!(true)), "{arguments}");
    assert_eq!((&result["state"], &result["matches"]), (&json!("kept"), &json!(null)), "{result}");
    assert_eq!(result["unchecked"], "no-digest");
    let (_, records) = durward(folder.path(), &format!("audit show {id} --output json")).await;
    assert!(records.contains("unknown"), "{records}");
    let (code, table) = durward(folder.path(), &format!("audit show {id}")).await;
    assert!(code == 0 && table.contains("result: 8 bytes, unchecked: no digest of it is recorded"), "{table}");
}

#[tokio::test]
async fn a_call_under_way_is_shown_with_what_is_known_of_it() {
    let upstream = Upstream::start().await;
    upstream.always("tools/call", |_| Answer::hang());
    let world = World::with(&body(&upstream, KEPT), ALL).await;
    let calling = world.calling("/mcp/files", Some(&world.alice), "echo", &json!({ "text": ARGUMENT }));
    let calling = tokio::spawn(calling.send());
    let data = world.data();
    let intent = || tenant(&data).into_iter().find(|(kind, _)| kind == "intent");
    world.until(|| intent().is_some()).await;
    let call = intent().unwrap().1["call"].as_str().unwrap().to_owned();
    let (code, [arguments, result]) = shown(world.folder(), &call).await;
    assert_eq!((code, &arguments["state"], &arguments["matches"]), (0, &json!("kept"), &json!(true)), "{arguments}");
    assert_eq!(result["state"], "not-kept");
    calling.abort();
}

fn intent(call: CallId, at: Timestamp, arguments: Option<Commitment>) -> Intent {
    Intent {
        action: None,
        agent: None,
        arguments,
        at,
        call,
        class: None,
        issuer: None,
        method: None,
        parent: None,
        policy: None,
        rules: [].into(),
        server: None,
        target: None,
        tenant: TenantId::default_tenant(),
        trace: None,
        user: None,
    }
}

#[tokio::test]
async fn a_copy_of_the_log_shows_its_records_without_its_texts() {
    let upstream = saying(RESULT).await;
    let world = World::with(&body(&upstream, KEPT), ALL).await;
    let call = echo(&world, ARGUMENT).await;
    world.record(&call).await;
    assert_eq!(shown(world.folder(), &call).await.1[0]["state"], "kept");
    let (_, folder) = world.stop().await;
    let data = folder.path().join("data");
    for entry in fs::read_dir(&data).unwrap().flatten().filter(|entry| entry.file_name() != "log") {
        if entry.path().is_dir() {
            fs::remove_dir_all(entry.path()).unwrap();
        } else {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let (code, said) = durward(folder.path(), &format!("audit show {call}")).await;
    assert!(code == 0 && said.contains(&call) && said.contains("cannot be shown: there is no vault"), "{said}");
    assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "nothing was made");
    // Of a day without texts nobody is asked.
    fs::remove_dir_all(data.join("log/text/default")).unwrap();
    let (code, said) = durward(folder.path(), &format!("audit show {call}")).await;
    assert!(code == 0 && !said.contains("cannot be shown"), "{said}");
}

#[tokio::test]
async fn a_killed_gateway_loses_no_text_that_was_written() {
    let upstream = saying(RESULT).await;
    let world = World::with(&body(&upstream, KEPT), ALL).await;
    let call = echo(&world, ARGUMENT).await;
    world.record(&call).await;
    assert_eq!(shown(world.folder(), &call).await.1[1]["state"], "kept");
    let (alice, bob) = (world.alice.clone(), world.bob.clone());
    let folder = world.kill(Signal::KILL).await;
    let world = World::launch(folder, alice, bob).await;
    let next = echo(&world, ARGUMENT).await;
    world.record(&next).await;
    for call in [call, next] {
        let (code, [arguments, result]) = shown(world.folder(), &call).await;
        assert_eq!((code, &arguments["matches"], &result["matches"]), (0, &json!(true), &json!(true)));
    }
    assert_eq!(durward(world.folder(), "audit verify").await.0, 0);
}
