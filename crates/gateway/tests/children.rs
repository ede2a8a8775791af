//! Nobody is left behind: processes come and go by the thousand, with their clients, by themselves and by reloads.
//!
//! Alone in their file, and run one by one, so that every child of this process is one of these.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::EraSettings;
use inside::{Inside, Plan};
use serde_json::json;
use std::{fs, path::Path, sync::Arc, time::Duration};
use testkit::{Agent, Ask, Upstream};

const CONNECTS: usize = 1000;
/// Of each kind that is not the first one.
const OTHERS: usize = 100;
/// One that fell is not started again for 100 ms: the others go on meanwhile.
const SERVERS: [&str; 16] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"];

/// A server in a line of shell: answers everything, dies when it is told to, and leaves a mark when it begins.
const SCRIPT: &str = r#"printf x >> "$1"; n=0
while read -r line; do case $line in
  *x/die*) kill -9 $$ ;;
  *'"id"'*) n=$((n+1)); echo "{\"jsonrpc\":\"2.0\",\"id\":$n,\"result\":{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{},\"serverInfo\":{\"name\":\"s\",\"version\":\"1\"}}}" ;;
esac; done"#;

/// The same for a server of either era, `$2`. One of the old ends on what comes before `initialize`.
const OF_AN_ERA: &str = r#"printf x >> "$1"
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  result() { echo '{"jsonrpc":"2.0","id":'"$id"',"result":{"resultType":"complete",'"$1"'"ttlMs":0,"cacheScope":"private"}}'; }
  case $2$line in
    *x/die*) kill -9 $$ ;;
    legacy*'"server/discover"'*) exit ;;
    modern*'"server/discover"'*) result '"supportedVersions":["2026-07-28"],"capabilities":{},' ;;
    modern*'"initialize"'*) echo '{"jsonrpc":"2.0","id":'"$id"',"error":{"code":-32601,"message":"no"}}' ;;
    *'"initialize"'*) result '"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"s","version":"1"},' ;;
    *'"id"'*) result '"tools":[],"prompts":[],"resources":[],"resourceTemplates":[],' ;;
  esac
done"#;

fn plan(upstream: &Upstream, marks: &Path, generation: usize) -> Plan {
    let command = ["/bin/sh", "-c", SCRIPT, "server", &marks.to_string_lossy(), &generation.to_string()];
    Plan {
        servers: SERVERS.map(|name| (name, String::new())).to_vec(),
        command: Some(command.map(str::to_owned).to_vec()),
        era: EraSettings::Legacy,
        children: 64,
        ..Plan::of(upstream)
    }
}

/// Children of this process that run, and those that nobody waited for.
fn children() -> usize {
    let me = std::process::id().to_string();
    let stats =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats.filter(|stat| stat.rsplit(')').next().unwrap_or_default().split_whitespace().nth(1) == Some(&me)).count()
}

/// Opens a session, as soon as the server may start.
async fn connect(inside: &Inside, url: &str) -> String {
    let introduction = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}});
    let mut turns = tokio::time::interval(Duration::from_millis(10));
    loop {
        turns.tick().await;
        let reply = Ask::post(url, introduction.to_string()).bearer(&inside.alice).send().await;
        if let Some(session) = reply.header("mcp-session-id") {
            return session.to_owned();
        }
    }
}

async fn say(inside: &Inside, url: &str, session: &str, method: &str) {
    let message = json!({"jsonrpc": "2.0", "id": 2, "method": method});
    let ask = Ask::post(url, message.to_string()).bearer(&inside.alice).header("mcp-session-id", session);
    ask.send().await.text().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connects_kills_and_reloads_leave_no_child() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let marks = folder.path().join("marks");
    let inside = Arc::new(Inside::start(plan(&upstream, &marks, 0)).await);
    let run = async {
        for turn in 0..=CONNECTS / SERVERS.len() {
            let sessions = SERVERS.iter().enumerate().map(|(at, name)| {
                let inside = Arc::clone(&inside);
                async move {
                    let url = inside.url(&format!("/mcp/{name}"));
                    let session = connect(&inside, &url).await;
                    // A third dies in mid-work, a third sees a reload, a third just ends.
                    let method = if (turn + at).is_multiple_of(3) { "x/die" } else { "ping" };
                    say(&inside, &url, &session, method).await;
                    (url, session, (turn + at) % 3)
                }
            });
            let sessions = futures_util::future::join_all(sessions).await;
            if turn.is_multiple_of(4) {
                inside.swap(plan(&upstream, &marks, turn));
            }
            let ends = sessions.iter().map(|(url, session, kind)| {
                let inside = Arc::clone(&inside);
                async move {
                    if *kind == 1 {
                        say(&inside, url, session, "ping").await;
                    }
                    let ask = Ask::new(http::Method::DELETE, url).bearer(&inside.alice);
                    ask.header("mcp-session-id", session).send().await.text().await;
                }
            });
            futures_util::future::join_all(ends).await;
        }
        let mut turns = tokio::time::interval(Duration::from_millis(10));
        while inside.state.children.running() > 0 || children() > 0 {
            turns.tick().await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_mins(3), run).await;
    assert!(ended.is_ok(), "{} run, {} are left", inside.state.children.running(), children());
    let began = fs::read(&marks).unwrap().len();
    assert!(began >= CONNECTS, "{began}");
}

/// Has a modern client's call answered, as soon as the server may start.
async fn works(agent: &Agent) {
    let mut turns = tokio::time::interval(Duration::from_millis(10));
    loop {
        turns.tick().await;
        let answer = agent.request("x/work", json!({})).await.json().await;
        if answer["result"].is_object() {
            return;
        }
    }
}

async fn connects_leave_no_child(spoken: &str, era: EraSettings, probed: bool) {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let marks = folder.path().join("marks");
    let plan = |generation: usize| {
        let command = ["/bin/sh", "-c", OF_AN_ERA, "server", &marks.to_string_lossy(), spoken, &generation.to_string()];
        Plan { command: Some(command.map(str::to_owned).to_vec()), era, probed, ..plan(&upstream, &marks, generation) }
    };
    let inside = Inside::start(plan(0)).await;
    let run = async {
        for turn in 0..=OTHERS / SERVERS.len() {
            let calls = SERVERS.iter().enumerate().map(|(at, name)| {
                let agent = inside.modern(&format!("/mcp/{name}"), &inside.alice);
                async move {
                    works(&agent).await;
                    // A third dies in mid-work; the others see the reload.
                    if (turn + at).is_multiple_of(3) {
                        agent.request("x/die", json!({})).await.text().await;
                    }
                }
            });
            futures_util::future::join_all(calls).await;
            inside.swap(plan(turn + 1));
            inside.state.sweep();
        }
        // No server is a process any more.
        inside.swap(Plan::of(&upstream));
        let mut turns = tokio::time::interval(Duration::from_millis(10));
        while inside.state.children.running() > 0 || children() > 0 {
            inside.state.sweep();
            turns.tick().await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_mins(1), run).await;
    assert!(ended.is_ok(), "{spoken} {probed}: {} run, {} are left", inside.state.children.running(), children());
    let began = fs::read(&marks).unwrap().len();
    assert!(began >= OTHERS, "{spoken} {probed}: {began}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_modern_clients_on_processes_of_either_era_known_or_not_leave_no_child() {
    connects_leave_no_child("modern", EraSettings::Modern, false).await;
    connects_leave_no_child("legacy", EraSettings::Legacy, false).await;
    connects_leave_no_child("modern", EraSettings::Both, true).await;
    connects_leave_no_child("legacy", EraSettings::Both, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_principal_leaves_processes_for_others() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let marks = folder.path().join("marks");
    let bounded = |plan| Plan { children: 3, children_each: 2, ..plan };

    let inside = Inside::start(bounded(plan(&upstream, &marks, 0))).await;
    let url = inside.url("/mcp/a");
    let sessions = [connect(&inside, &url).await, connect(&inside, &url).await];
    let introduction = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}});
    let open = |key: &str| Ask::post(&inside.url("/mcp/a"), introduction.to_string()).bearer(key).send();
    let refused = open(&inside.alice).await.json().await;
    assert_eq!(refused["error"]["code"], -31002, "{refused}");
    let why = refused["error"]["message"].as_str().unwrap();
    assert!(why.contains("2 server processes") && why.contains("bounds.children_per_principal"), "{why}");
    assert!(open(&inside.bob).await.header("mcp-session-id").is_some(), "there is room for another");
    // The place of a session that ended is free when its process has ended.
    let ended = Ask::new(http::Method::DELETE, &url).bearer(&inside.alice).header("mcp-session-id", &sessions[0]);
    ended.send().await.text().await;
    connect(&inside, &url).await;
    drop(inside);

    let command = ["/bin/sh", "-c", OF_AN_ERA, "server", &marks.to_string_lossy(), "modern"];
    let modern = Plan { command: Some(command.map(str::to_owned).to_vec()), ..plan(&upstream, &marks, 0) };
    let inside = Inside::start(bounded(Plan { era: EraSettings::Modern, ..modern })).await;
    for server in ["a", "b"] {
        works(&inside.modern(&format!("/mcp/{server}"), &inside.alice)).await;
    }
    let refused = inside.modern("/mcp/c", &inside.alice).request("x/work", json!({})).await.json().await;
    assert_eq!(refused["error"]["code"], -31002, "{refused}");
    works(&inside.modern("/mcp/c", &inside.bob)).await;
}
