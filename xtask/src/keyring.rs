//! `durward connect --keyring` with a keyring as people have it: GNOME Keyring, on a bus and in a home of its own.

use crate::{
    process::{self, program},
    world::{self, World},
};
use anyhow::{Result, ensure};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// Opens the keyring, puts the key there, introduces a client with it, takes it out, and does without.
const STORY: &str = r#"
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
export HOME="$home" XDG_DATA_HOME="$home" XDG_RUNTIME_DIR="$home"
unset DISPLAY WAYLAND_DISPLAY
printf 'opened with this' | gnome-keyring-daemon --unlock --components=secrets > "$home/daemon"
"$DURWARD" connect "$URL" --keyring 2> "$home/empty" < /dev/null && exit 10
grep -q 'holds nothing' "$home/empty"
printf '%s' "$KEY" | "$DURWARD" connect "$URL" --keyring --save
grep -rq "$KEY" "$home" && exit 11
printf '%s\n' "$HELLO" | "$DURWARD" connect "$URL" --keyring
"$DURWARD" connect "$URL" --keyring --forget
"$DURWARD" connect "$URL" --keyring 2> "$home/empty" < /dev/null && exit 12
grep -q 'holds nothing' "$home/empty"
"#;

const HELLO: &str = concat!(
    r#"{"jsonrpc":"2.0","id":"hello","method":"initialize","params":{"protocolVersion":"2025-11-25","#,
    r#""capabilities":{},"clientInfo":{"name":"desk","version":"1"}}}"#
);

/// Until when a call is in the log.
const IN_THE_LOG: Duration = Duration::from_secs(10);

pub(crate) fn run(root: &Path) -> Result<()> {
    let binary = world::built(root)?;
    let mut world = World::new(root, "keyring")?;
    // Where there is nothing to see, nobody is introduced.
    world.stdio("demo", &[&binary.to_string_lossy(), "demo-server"])?;
    world.agent("desk")?;
    let address = world.gateway(root)?;
    let key = world.key(root, "desk")?;
    let mut story = program("timeout");
    story.args(["60", "dbus-run-session", "--", "sh", "-c", STORY]).env("DURWARD", &binary).env("KEY", &key);
    story.env("URL", format!("http://{address}/mcp")).env("HELLO", HELLO);
    for variable in ["DURWARD_KEY", "DURWARD_KEY_FILE", "DURWARD_SOCKET", "DURWARD_CA_FILE"] {
        story.env_remove(variable);
    }
    let said = process::output(&mut story)?;
    ensure!(said.contains(r#""protocolVersion":"2025-11-25""#), "the client was not introduced: {said}");
    // Without a key it would have been somebody else. The log is written behind the calls.
    let mut found = String::new();
    let begun = Instant::now();
    while !found.contains("initialize") {
        ensure!(begun.elapsed() < IN_THE_LOG, "the log knows of no call of the agent whose key it was: {found}");
        let mut search = program(&binary);
        search.args(["audit", "search", "--agent", "desk", "--output", "json", "--data", "data", "--config"]);
        found = process::output(search.arg("durward.yaml").current_dir(world.folder()))?;
    }
    eprintln!("a key was put into GNOME Keyring, used from there, and taken out");
    Ok(())
}
