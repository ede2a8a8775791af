//! The key from the keyring of the system. Here the keyring is a script in the place of `secret-tool`; `cargo xtask
//! keyring` does the same with GNOME Keyring.

use super::{Client, called, command, soon, world::World};
use http::StatusCode;
use serde_json::json;
use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Output, time::Duration};
use tempfile::TempDir;
use testkit::{Answer, Upstream};
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

/// Keeps each value in a file named after its attributes, and writes down what it was called with.
const KEYRING: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$@" >> "$here/arguments"
verb=$1
shift
if [ "$verb" = store ]; then shift; fi
place="$here/$(echo "$@" | tr -c 'a-zA-Z0-9\n' _)"
case $verb in
  lookup) cat "$place" 2>/dev/null ;;
  store) cat > "$place" ;;
  clear) rm "$place" 2>/dev/null ;;
esac
"#;

/// A folder with this in the place of the program.
fn keyring(script: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tool = folder.path().join("secret-tool");
    fs::write(&tool, script).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn with_keyring(url: &str, keyring: &Path) -> Command {
    let mut command = command(url);
    command.arg("--keyring").env("PATH", format!("{}:/usr/bin:/bin", keyring.display()));
    command
}

/// Runs it to its end with this on its stdin.
async fn finish(mut command: Command, input: &str) -> (Option<i32>, String) {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    soon(async { stdin.write_all(input.as_bytes()).await.unwrap() }).await;
    drop(stdin);
    let Output { status, stderr, .. } = soon(child.wait_with_output()).await.unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

async fn save(url: &str, keyring: &Path, key: &str) {
    let mut command = with_keyring(url, keyring);
    command.arg("--save");
    let (code, told) = finish(command, &format!("{key}\n")).await;
    assert!(code == Some(0) && told.contains("is in the keyring") && !told.contains(key), "{told}");
}

#[tokio::test]
async fn a_key_in_the_keyring_travels_to_the_gateway_that_it_is_for_and_to_no_other() {
    let upstream = Upstream::start().await;
    let world = World::start(&super::world::http("files", &upstream)).await;
    let keyring = keyring(KEYRING);
    let (url, keyring) = (world.url("/mcp"), keyring.path());
    save(&url, keyring, &world.alice).await;

    // The same gateway, another server of it.
    let mut client = Client::run(with_keyring(&world.url("/mcp/files"), keyring));
    assert!(client.initialize().await.get("result").is_some());
    called(&world, "alice").await;
    assert_eq!(client.end().await.0, Some(0));
    // What the environment says for other clients is no argument against the flag; another flag is.
    let mut explicit = with_keyring(&url, keyring);
    explicit.env("DURWARD_KEY_FILE", keyring.join("none"));
    let mut client = Client::run(explicit);
    assert!(client.initialize().await.get("result").is_some());
    assert_eq!(client.end().await.0, Some(0));
    let mut both = with_keyring(&url, keyring);
    both.args(["--key-file", "none"]);
    let (code, told) = finish(both, "").await;
    assert!(code == Some(2) && told.contains("--key-file"), "{told}");
    // Another name of the gateway may be another gateway.
    let elsewhere = url.replace("127.0.0.1", "localhost");
    let (code, told) = finish(with_keyring(&elsewhere, keyring), "").await;
    assert!(code == Some(1) && told.contains("http://localhost") && told.contains("--save"), "{told}");
    // One gateway, several agents.
    let mut other = command(&url);
    other.args(["--keyring=bob", "--save"]).env("PATH", format!("{}:/usr/bin:/bin", keyring.display()));
    assert_eq!(finish(other, &world.bob).await.0, Some(0));
    let mut client = Client::run(with_keyring(&url, keyring));
    client.initialize().await;
    assert_eq!(client.end().await.0, Some(0));
    let records = world.records(3).await;
    assert!(records.iter().all(|record| record["agent"] != "bob"), "{records:?}");

    let mut forget = with_keyring(&url, keyring);
    forget.arg("--forget");
    assert_eq!(finish(forget, "").await.0, Some(0));
    let (code, told) = finish(with_keyring(&url, keyring), "").await;
    assert!(code == Some(1) && told.contains("holds nothing"), "{told}");
    // Every user of the machine can read what a program is called with.
    let seen = fs::read_to_string(keyring.join("arguments")).unwrap();
    assert!(seen.contains("lookup service durward gateway http://127.0.0.1:"), "{seen}");
    assert!(!seen.contains(&world.alice) && !seen.contains(&world.bob), "{seen}");
}

#[tokio::test]
async fn a_key_that_was_replaced_in_the_keyring_is_found_after_a_refusal() {
    let upstream = Upstream::start().await;
    let world = World::start(&super::world::http("files", &upstream)).await;
    let keyring = keyring(KEYRING);
    save(&world.url("/mcp"), keyring.path(), "dwk_of_yesterday").await;
    let mut client = Client::run(with_keyring(&world.url("/mcp"), keyring.path()));
    assert!(client.initialize().await.get("error").is_some());
    save(&world.url("/mcp"), keyring.path(), &world.alice).await;
    assert!(client.initialize().await.get("result").is_some());
}

#[tokio::test]
async fn a_stream_that_is_refused_opens_no_keyring_and_uses_what_a_call_found_there() {
    let upstream = Upstream::start().await;
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    let heard = changed.clone();
    upstream.always("GET", move |seen| match seen.header("authorization") {
        Some("Bearer token-two") => Answer::event_text(format!("data: {heard}\n\n")),
        _ => Answer::status(StatusCode::UNAUTHORIZED),
    });
    let keyring = keyring(KEYRING);
    save(&upstream.url(), keyring.path(), "token-one").await;
    let lookups = || {
        let asked = fs::read_to_string(keyring.path().join("arguments")).unwrap();
        asked.lines().filter(|line| line.starts_with("lookup")).count()
    };
    let mut client = Client::run(with_keyring(&upstream.url(), keyring.path()));
    client.initialize().await;
    let before = lookups();
    save(&upstream.url(), keyring.path(), "token-two").await;
    upstream.arrived("GET", 1).await;
    let again = timeout(Duration::from_secs(1), upstream.arrived("GET", 2)).await;
    assert!(again.is_err(), "nothing is new that it knows of");
    assert_eq!(lookups(), before, "a person was asked to open it for a stream");
    // A call is refused, too, and somebody waits for it.
    upstream.next("tools/call", Answer::status(StatusCode::UNAUTHORIZED));
    assert!(client.call(1, json!({})).await.get("result").is_some());
    assert_eq!(lookups(), before + 1);
    assert_eq!(client.hear().await, changed);
    assert_eq!(lookups(), before + 1);
    assert_eq!(client.end().await.0, Some(0));
}

#[tokio::test]
async fn without_a_keyring_the_cause_and_the_other_ways_are_told() {
    let silent = "#!/bin/sh\nexit 1\n";
    let broken = "#!/bin/sh\necho 'secret-tool: Cannot autolaunch D-Bus without X11 $DISPLAY' >&2\nexit 1\n";
    let odd = "#!/bin/sh\necho 'dwk_hunter2 and more'\n";
    for (script, words) in [
        (Some(broken), &["Cannot autolaunch D-Bus", "Secret Service"][..]),
        (Some(silent), &["holds nothing", "locked"][..]),
        (None, &["no `secret-tool`", "libsecret-tools"][..]),
    ] {
        let keyring = script.map_or_else(|| tempfile::tempdir().unwrap(), keyring);
        for more in [None, Some("--save")] {
            if script == Some(silent) && more.is_some() {
                continue;
            }
            let mut command = with_keyring("http://127.0.0.1:7420/mcp", keyring.path());
            // No other one is found by accident.
            command.args(more).env("PATH", format!("{}:/nowhere", keyring.path().display()));
            let (code, told) = finish(command, "dwk_hunter2").await;
            assert_eq!(code, Some(1), "{told}");
            for word in words.iter().chain(&["DURWARD_KEY", "--key-file"]) {
                assert!(told.contains(word), "{word}: {told}");
            }
            assert!(!told.contains("hunter2"), "{told}");
        }
    }
    let keyring = keyring(odd);
    let (code, told) = finish(with_keyring("http://127.0.0.1:7420/mcp", keyring.path()), "").await;
    assert!(code == Some(1) && told.contains("no key or token") && !told.contains("hunter2"), "{told}");
}
