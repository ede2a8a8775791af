//! The commands, through the real binary: what they print, where, and with which exit code; with a gateway and without.
#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "these tests start the binary, and fail where it does not do what it should"
)]

use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Output, Stdio},
};
use tempfile::TempDir;
use testkit::Upstream;

const CONFIG: &str = "listen: 127.0.0.1:0\nadmin: { listen: 127.0.0.1:0 }\ndata: data\nworkers: 1\n\
    policies: [policies/*.json]\nagents: { ci: { roles: [developer] }, off: { disabled: true } }\n\
    servers:\n  files: { url: \"http://127.0.0.1:9/mcp?key=canary\", internal: true, tools: { \"read_*\": { class: read } } }\n";
const POLICY: &str = r#"{"policy": "p", "rules": [
    {"id": "reads", "action": "tool.execute", "target": "*/*", "effect": "allow", "roles": ["developer"], "classes": ["read"]},
    {"id": "no-secrets", "action": "tool.execute", "target": "*/*", "effect": "deny", "when": "has(args.path) && args.path == '/etc/shadow'"}
]}"#;

/// A folder with a configuration.
struct Site(TempDir);

/// A gateway that is stopped with the test.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Self { code: output.status.code().expect("a code"), out: text(output.stdout), err: text(output.stderr) }
    }

    #[track_caller]
    fn with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).expect("JSON on stdout")
    }
}

impl Site {
    fn new() -> Self {
        let site = Self::empty();
        fs::write(site.path().join("durward.yaml"), CONFIG).expect("a file");
        fs::create_dir(site.path().join("policies")).expect("a folder");
        fs::write(site.path().join("policies/p.json"), POLICY).expect("a file");
        site
    }

    fn empty() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_durward"));
        command
            .current_dir(self.path())
            .args(line.split_whitespace())
            .env_remove("DURWARD_DATA")
            .env_remove("DURWARD_CONFIG");
        command
    }

    fn run(&self, line: &str) -> Said {
        self.told(line, "")
    }

    fn told(&self, line: &str, stdin: &str) -> Said {
        let mut command = self.command(line);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        // A command that takes nothing may be gone already.
        let _ = child.stdin.take().expect("a stdin").write_all(stdin.as_bytes());
        Said::of(child.wait_with_output().expect("it ends"))
    }

    fn up(&self) -> Gateway {
        let mut child = self.command("up").stderr(Stdio::piped()).spawn().expect("it starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("its stderr"));
        let mut said = String::new();
        while !said.contains("data directory") {
            assert!(stderr.read_line(&mut said).expect("text") > 0, "it did not start: {said}");
        }
        // Whatever it says later is read too, so that it never waits for us.
        std::thread::spawn(move || stderr.read_to_end(&mut Vec::new()));
        Gateway(child)
    }

    /// Both ways: the same commands on a directory nobody holds, and through a gateway that runs.
    fn both() -> [(Self, Option<Gateway>); 2] {
        let (alone, running) = (Self::new(), Self::new());
        // Listing needs a directory that was made.
        alone.run("agent key create off").with(0);
        let gateway = running.up();
        running.run("agent key create off").with(0);
        [(alone, None), (running, Some(gateway))]
    }
}

#[test]
fn agents_are_listed_disabled_and_enabled() {
    for (site, _gateway) in Site::both() {
        let listed = site.run("agent list").with(0);
        assert!(listed.out.starts_with("AGENT"), "{}", listed.out);
        site.run("agent disable ci --reason leaked").with(0);
        let agents = site.run("agent list --output json").with(0).json();
        let (ci, off) = (&agents["agents"][0], &agents["agents"][1]);
        assert_eq!((ci["state"].as_str(), ci["reason"].as_str()), (Some("disabled"), Some("leaked")));
        assert_eq!(off["state"], "disabled in the configuration");
        let enabled = site.run("agent enable ci").with(0);
        assert!(enabled.out.is_empty() && enabled.err.contains("enabled"), "{}", enabled.err);
        let unknown = site.run("agent disable nobody").with(1);
        assert!(unknown.err.contains("there is no agent `nobody`") && unknown.out.is_empty(), "{}", unknown.err);
        let found = site.run("audit search --output json").with(0);
        for action in ["agent.disable", "agent.enable", "agent.key.create"] {
            assert!(found.out.contains(action), "{action} left no record: {}", found.out);
        }
    }
}

#[test]
fn keys_are_shown_once_and_revoked() {
    for (site, _gateway) in Site::both() {
        let made = site.run("agent key create ci --expires 90d --label build").with(0);
        assert!(made.out.starts_with("dwk_") && made.out.trim().lines().count() == 1, "{}", made.out);
        assert!(!made.err.contains(made.out.trim()), "the key is on stdout only");
        let id = made.out.split('_').nth(1).expect("an id");
        let listed = site.run("agent key list").with(0);
        assert!(listed.out.contains(id) && !listed.out.contains(made.out.trim()), "{}", listed.out);
        site.run(&format!("agent key revoke {id}")).with(0);
        assert!(site.run("agent key list").with(0).out.contains("revoked"));
        site.run("agent key revoke aaaaaaaa").with(1);
        site.run("agent key create nobody").with(1);
        site.run("agent key create").with(2);
        let for_ever = site.run("agent key create ci --expires 99999999999d").with(2);
        assert!(for_ever.err.contains("write at most `36500d`"), "{}", for_ever.err);
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(site.run(&format!("agent revoke-token {digest} --expires 1h")).with(0).err.contains("refused until"));
        assert!(site.run(&format!("agent revoke-token token:{digest}")).with(0).err.contains("refused until"));
        // The digest in records is that of what is signed; `printf a.b | sha256sum`.
        let named = "sha256:2e7336dc8eba87ef472df568c35482abf2575dc3e5eac0c5c62b8ffaeac2c934";
        let revoked = site.told("agent revoke-token --output json", "a.b.signature\n").with(0).json();
        assert_eq!(revoked["token"], named);
        let said = site.told("agent revoke-token", "a.b.signature").with(0).err;
        assert!(said.contains(&format!("the token (token:{named}) is refused until")), "{said}");
        for no_token in ["dwk_a_canary", named] {
            let refused = site.told("agent revoke-token", no_token).with(1).err;
            assert!(refused.contains("no token of an issuer") && !refused.contains("canary"), "{refused}");
        }
        for command in ["agent revoke-token", "agent key revoke", "admin key revoke"] {
            let refused = site.run(&format!("{command} dwk_canary/eyJhbGciOi.canary")).with(2);
            assert!(!refused.err.contains("canary") && refused.err.contains("[hidden]"), "{}", refused.err);
        }
        let admin = site.run("admin key create --role viewer --output json").with(0).json();
        assert!(admin["key"].as_str().expect("a key").starts_with("dwa_"));
        assert!(site.run("admin key list").with(0).out.contains("viewer"));
        site.run(&format!("admin key revoke {}", admin["id"].as_str().expect("an id"))).with(0);
        site.run(&format!("agent key revoke {}", admin["id"].as_str().expect("an id"))).with(1);
    }
}

#[test]
fn secrets_come_from_stdin_and_stay_inside() {
    const CANARY: &str = "canary-5182";
    for (site, _gateway) in Site::both() {
        let mut said = Vec::new();
        said.push(site.told("secret set token", &format!("{CANARY}\n")).with(0));
        said.push(site.told("secret rotate token", CANARY).with(0));
        said.push(site.told("secret rotate nothing", CANARY).with(1));
        said.push(site.told("secret set empty", "").with(1));
        said.push(site.run("secret list").with(0));
        assert!(said[4].out.starts_with("NAME") && said[4].out.contains("token"), "{}", said[4].out);
        said.push(site.run("secret rotate-master").with(0));
        said.push(site.run("secret rm token").with(0));
        said.push(site.run("secret rm token").with(1));
        said.push(site.run(&format!("secret set a {CANARY}")).with(2));
        fs::write(site.path().join("tokens"), "a not-a-token\n").expect("a file");
        said.push(site.told("secret import-fernet tokens", "bad key").with(1));
        said.push(site.run("audit search --output json").with(0));
        assert!(said.pop().expect("records").out.contains("secret.rotate-master"));
        // The command line that was wrong is quoted back; nothing else is.
        for said in said.iter().filter(|said| said.code != 2) {
            assert!(!said.out.contains(CANARY) && !said.err.contains(CANARY), "{} {}", said.out, said.err);
        }
    }
}

#[test]
fn an_import_says_what_it_replaced_and_takes_no_name_twice() {
    // The key and token of the Fernet specification (`verify.json`).
    const KEY: &str = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=";
    const TOKEN: &str =
        "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==";
    for (site, _gateway) in Site::both() {
        let file = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|name| format!("{name} {TOKEN}")).collect();
            fs::write(site.path().join("tokens"), lines.join("\n")).expect("a file");
            site.told("secret import-fernet tokens", KEY)
        };
        let twice = file(&["a", "b", "c", "a"]).with(1);
        assert!(twice.err.contains("tokens: lines 1 and 4 both name a; nothing was imported"), "{}", twice.err);
        assert!(!site.run("secret list --output json").with(0).out.contains("\"a\""), "nothing was");
        let first = file(&["a", "b"]).with(0);
        assert!(first.err.contains("imported 2 secrets") && !first.err.contains("replaced"), "{}", first.err);
        let second = file(&["b", "c"]).with(0);
        assert!(
            second.err.contains("imported 2 secrets, of which these were there and are replaced: b"),
            "{}",
            second.err
        );
        let records = site.run("audit search --output json").with(0).out;
        assert!(records.contains("b, c; replaced b"), "{records}");
    }
}

#[test]
fn servers_are_listed_with_what_keeps_them_from_being_used() {
    for (site, gateway) in Site::both() {
        let servers = site.run("server list --output json").with(0);
        assert!(!servers.out.contains("canary"), "a query may hold a secret: {}", servers.out);
        let servers = servers.json();
        let server = &servers["servers"][0];
        assert_eq!((server["server"].as_str(), server["transport"].as_str()), (Some("files"), Some("http")));
        let state = server["state"].as_str().expect("a state");
        assert_eq!(state == "not running", gateway.is_none(), "{state}");
        assert!(site.run("server list").with(0).out.contains("files"));
    }
}

#[test]
fn policies_are_checked_tested_and_explained_without_a_gateway() {
    let site = Site::new();
    assert!(site.run("policy check").with(0).out.contains("2 rules"));
    fs::write(site.path().join("bad.json"), r#"{"policy": "b", "rules": [{"efect": "allow"}]}"#).expect("a file");
    let bad = site.run("policy check bad.json").with(1);
    assert!(bad.out.contains("bad.json:1") && bad.out.contains("efect"), "{}", bad.out);
    let report = site.run("policy check bad.json --output json").with(1).json();
    assert!(!report["errors"].as_array().expect("errors").is_empty());

    assert!(site.run("policy test").with(1).err.contains("no test cases"));
    let case = |expect| {
        format!(
            r#"{{"cases": [{{"agent": "ci", "roles": ["developer"], "target": "files/read_it", "class": "read", "expect": "{expect}"}}]}}"#
        )
    };
    fs::write(site.path().join("policies/p.test.json"), case("allow")).expect("a file");
    assert!(site.run("policy test").with(0).out.contains("1 case, 0 failed"));
    fs::write(site.path().join("other.test.json"), case("deny")).expect("a file");
    assert!(site.run("policy test other.test.json").with(1).out.contains("FAIL  1: expected deny; got allow"));

    let allowed = site.run("policy explain --agent ci --tool files/read_it").with(0);
    assert!(allowed.out.contains("allowed by rule `reads`"), "{}", allowed.out);
    assert!(allowed.out.contains("judged by the rules alone"), "{}", allowed.out);
    let denied =
        site.told("policy explain --agent ci --tool files/read_it --arguments -", r#"{"path": "/etc/shadow"}"#).with(1);
    assert!(denied.out.contains("denied by rule `no-secrets`"), "{}", denied.out);
    let hidden = site.run("policy explain --agent ci --tool files/write_it").with(1);
    assert!(hidden.out.contains("hidden"), "{}", hidden.out);
    assert!(hidden.out.contains("made from: ") && hidden.out.contains("; class "), "{}", hidden.out);
    let unknown = site.run("policy explain --agent nobody --role developer --tool files/read_it --output json").with(1);
    assert_eq!(unknown.json()["obstacles"][0], "agent `nobody` is not in the configuration");
    site.run("policy explain --agent ci --tool files/read_it --arguments {").with(1);
    site.run("policy explain --agent ci --tool files/read_it --running").with(3);
}

#[test]
fn cases_in_folders_without_a_policy_are_run() {
    let site = Site::new();
    let config = CONFIG.replace("policies/*.json", "policies/**/*.json");
    fs::write(site.path().join("durward.yaml"), config).expect("a file");
    fs::create_dir(site.path().join("policies/tests")).expect("a folder");
    let case = "cases: [{ agent: ci, target: files/read_it, expect: allow }]\n";
    fs::write(site.path().join("policies/tests/a.test.yaml"), case).expect("a file");
    let failed = site.run("policy test").with(1);
    assert!(failed.out.contains("1 case, 1 failed") && failed.out.contains("a.test.yaml"), "{}", failed.out);
}

/// The second case has two faults: a key that is none, and so one that is missing.
const BROKEN_CASES: &str = "cases:\n  - { agent: ci, target: files/read_it, expect: deny }\n  - { agnet: ci, target: files/read_it, expect: deny }\n";

#[test]
fn a_broken_file_of_cases_is_reported_by_check_and_keeps_nothing_from_starting() {
    let site = Site::new();
    fs::write(site.path().join("policies/a.test.yaml"), BROKEN_CASES).expect("a file");
    fs::write(site.path().join("policies/b.test.json"), "{\n  \"cases\": [}\n").expect("a file");
    fs::write(site.path().join("policies/c.test.json"), [0xff]).expect("a file");
    let shown = [
        "error: case 2: a case has no key `agnet`\n --> policies/a.test.yaml:3:7\n",
        "      ^^^^^\n",
        "help: did you mean `agent`?\n",
        "error: case 2: `agent` is missing\n",
        "error: this is not JSON: ",
        " --> policies/b.test.json:2:13\n",
        "help: correct the syntax",
        "error: cannot read policies/c.test.json\n",
        "help: its name says that it holds test cases",
        "4 errors in policies/a.test.yaml, policies/b.test.json, policies/c.test.json\n",
    ];
    let said = site.run("check").with(1);
    for text in shown {
        assert!(said.out.contains(text), "{text}: {}", said.out);
    }
    let report = site.run("check --output json").with(1).json();
    assert_eq!(report["errors"], 4, "{report}");
    let faults = report["faults"].as_array().expect("faults");
    let first = faults.iter().find(|fault| fault["file"] == "policies/a.test.yaml").expect("it is named");
    assert_eq!((&first["severity"], &first["line"]), (&json!("error"), &json!(3)));
    // Nor does one fault hide another.
    fs::write(site.path().join("durward.yaml"), format!("{CONFIG}nonsense: 1\n")).expect("a file");
    let said = site.run("check").with(1);
    assert!(said.out.contains("nonsense") && said.out.contains("case 2: "), "{}", said.out);

    fs::write(site.path().join("durward.yaml"), CONFIG).expect("a file");
    let _gateway = site.up();
    site.run("agent list").with(0);
}

#[test]
fn a_test_names_what_is_wrong_with_each_file_of_cases_as_check_does() {
    let site = Site::new();
    fs::write(site.path().join("policies/a.test.yaml"), BROKEN_CASES).expect("a file");
    fs::write(site.path().join("policies/b.test.json"), "{\n  \"cases\": [}\n").expect("a file");
    let said = site.run("policy test").with(1);
    assert!(said.out.is_empty(), "{}", said.out);
    for text in [
        "error: case 2: a case has no key `agnet`\n --> policies/a.test.yaml:3:7\n",
        "      ^^^^^\n",
        "help: did you mean `agent`?\n",
        "2 errors in policies/a.test.yaml\n",
        "1 error in policies/b.test.json\n",
        "no result is shown before these files are correct: policies/a.test.yaml, policies/b.test.json\n",
    ] {
        assert!(said.err.contains(text), "{text}: {}", said.err);
    }
    assert!(!said.err.contains("rule"), "{}", said.err);
}

#[test]
fn an_address_that_is_taken_is_named_with_what_to_do() {
    let site = Site::new();
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a free address");
    let place = held.local_addr().expect("an address");
    for (key, what) in [
        ("listen: 127.0.0.1:0\n", format!("durward: cannot listen on {place}; ")),
        (
            "admin: { listen: 127.0.0.1:0 }",
            format!("durward: management cannot listen on {place} (`admin: {{ listen: … }}`); "),
        ),
    ] {
        let taken = key.replace("127.0.0.1:0", &place.to_string());
        fs::write(site.path().join("durward.yaml"), CONFIG.replace(key, &taken)).expect("a file");
        let said = site.run("up").with(1);
        let fault = format!("{what}stop what listens there, or choose another port: Address already in use");
        assert!(said.err.contains(&fault), "{}", said.err);
    }
}

#[test]
fn an_address_with_a_key_in_it_is_refused_and_not_repeated() {
    let site = Site::empty();
    for address in
        ["http://me:canary@127.0.0.1:9/mcp", "https://canary@gate.example", "me:canary@gate.example", "canary"]
    {
        let named = site.run(&format!("connect {address}")).with(2);
        let meant = site.command("connect").env("DURWARD_URL", address).stdin(Stdio::null()).output();
        let meant = Said::of(meant.expect("it ends")).with(2);
        for said in [named, meant] {
            assert!(!said.err.contains("canary") && said.err.contains("[hidden]"), "{}", said.err);
            let places = ["--keyring --save", "--key-file", "DURWARD_KEY"];
            let told = places.iter().all(|place| said.err.contains(place));
            assert_eq!(told, address.contains("://"), "{}", said.err);
        }
    }
    let mut help = site.command("connect --help");
    let said =
        Said::of(help.env("DURWARD_URL", "https://gate.example/mcp?key=canary").output().expect("it ends")).with(0);
    assert!(said.out.contains("DURWARD_URL") && !said.out.contains("canary"), "{}", said.out);
}

/// Runs a program where its addresses are nobody else's.
const ALONE: &str = r#"ip link set lo up || ifconfig lo up || exit 91; exec "$@""#;

#[test]
fn without_a_configuration_it_starts_empty_says_what_to_do_next_and_writes_into_its_directory_alone() {
    let site = Site::empty();
    for folder in ["here", "home", "tmp"] {
        fs::create_dir(site.path().join(folder)).expect("a folder");
    }
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--net", "bash", "-c", ALONE, "bash", env!("CARGO_BIN_EXE_durward"), "up"])
        .current_dir(site.path().join("here"))
        .env_remove("DURWARD_DATA")
        .env_remove("DURWARD_CONFIG")
        .env("HOME", site.path().join("home"))
        .env("TMPDIR", site.path().join("tmp"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("`unshare` of util-linux, and `bash`");
    let mut stderr = BufReader::new(child.stderr.take().expect("its stderr"));
    let mut said = String::new();
    while !said.contains("every call is refused") {
        let more = stderr.read_line(&mut said).expect("text");
        assert!(more > 0, "it did not start; it needs a network of its own, as the test of `demo` does: {said}");
    }
    let pid = rustix::process::Pid::from_raw(child.id().try_into().expect("a number")).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    stderr.read_to_string(&mut said).expect("text");
    let ended = Said::of(child.wait_with_output().expect("it ends"));

    assert_eq!((ended.code, ended.out.as_str()), (0, ""), "{said}");
    for text in [
        "agents connect to  http://127.0.0.1:7420/mcp",
        "data directory     durward-data",
        "configuration      none yet: `durward init` writes one to start from, then start again",
        "there are no servers, no agents, and every call is refused",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
    let names = |folder: &str| -> Vec<_> {
        let entries = fs::read_dir(site.path().join(folder)).expect("a folder");
        entries.map(|entry| entry.expect("an entry").file_name()).collect()
    };
    assert_eq!(names("here"), ["durward-data"]);
    assert!(names("home").is_empty() && names("tmp").is_empty());
}

#[test]
fn the_running_gateway_explains_what_it_has() {
    let site = Site::new();
    let _gateway = site.up();
    let explained = site.run("policy explain --agent ci --tool files/read_it --running --output json").with(1).json();
    assert_eq!(explained["policy"]["decision"], "allow");
    let obstacle = explained["obstacles"][0].as_str().expect("an obstacle");
    assert!(obstacle.starts_with("server `files` is down: "), "nothing listens there: {obstacle}");
    site.run("agent disable ci").with(0);
    let disabled = site.run("policy explain --agent ci --tool files/read_it --running").with(1);
    assert!(disabled.out.contains("agent `ci` is disabled"), "{}", disabled.out);
    assert!(!disabled.out.contains("judged by the rules alone"), "{}", disabled.out);
}

#[test]
fn the_log_is_read_proven_and_verified() {
    for (site, _gateway) in Site::both() {
        site.run("agent disable ci").with(0);
        let tail = site.run("audit tail -n 1").with(0);
        let call = tail.out.split_whitespace().nth(1).expect("a call").to_owned();
        assert_eq!(call.len(), 32, "{}", tail.out);
        // What was just done may not be signed yet; showing it waits for that.
        assert!(site.run(&format!("audit show {call}")).with(0).out.contains("agent."));
        assert_eq!(site.run(&format!("audit search --call {call}")).with(0).out.lines().count(), 1);
        let proof = site.run(&format!("audit prove {call}")).with(0).out;
        assert!(proof.starts_with("c2sp.org/tlog-proof@v1\n"));
        site.run(&format!("audit show {}", "0".repeat(32))).with(1);
        let key = site.run("audit key").with(0);
        fs::write(site.path().join("key"), &key.out).expect("a file");
        let checkpoint = site.run("audit checkpoint").with(0);
        fs::write(site.path().join("checkpoint"), &checkpoint.out).expect("a file");
        assert!(site.run("audit verify --checkpoint checkpoint").with(0).out.contains("the log holds"));
        assert!(site.run("audit search --agent nobody").with(0).out.is_empty());
        assert!(site.run("audit search --target files/*").with(0).err.contains("--target takes no globs"));
        assert!(!site.run("audit search --target files").with(0).err.contains("globs"));
        let log = site.path().join("data/log");
        let elsewhere = Site::empty();
        fs::copy(site.path().join("key"), elsewhere.path().join("key")).expect("a copy");
        let verify = format!("audit verify --log {} --key key --output json", log.display());
        assert_eq!(elsewhere.run(&verify).with(0).json()["holds"], true);
        // So does a proof, with the key alone, until a byte of it is another.
        let checked = |proof: &str, code: i32| {
            fs::write(elsewhere.path().join("proof"), proof).expect("a file");
            elsewhere.run("audit verify --proof proof --key key --output json").with(code).json()
        };
        let held = checked(&proof, 0);
        assert_eq!(
            (&held["holds"], &held["record"]["record"]["call"]),
            (&Value::Bool(true), &Value::from(call.as_str()))
        );
        let changed = proof.replacen("\nextra eyJ", "\nextra eyK", 1);
        assert_ne!(changed, proof);
        assert_eq!(checked(&changed, 4)["holds"], false);
        assert!(elsewhere.run("audit verify --proof proof --key key").with(4).out.contains("the proof does not hold"));
        elsewhere.run("audit verify --proof proof --log .").with(2);
        fs::write(elsewhere.path().join("key"), "no key").expect("a file");
        elsewhere.run(&verify).with(1);
    }
}

#[test]
fn a_changed_log_has_its_own_exit_code() {
    let site = Site::new();
    site.run("agent key create ci").with(0);
    site.run("agent disable ci").with(0);
    assert_eq!(change(&site.path().join("data/log")), 1);
    let broken = site.run("audit verify").with(4);
    assert!(broken.out.contains("the log does not hold: record "), "{}", broken.out);
    assert_eq!(site.run("audit verify --output json").with(4).json()["holds"], false);
}

#[test]
fn a_tree_that_was_put_in_moved_or_taken_away_has_it_too() {
    let site = Site::new();
    site.run("agent key create ci").with(0);
    let (own, other) = (site.path().join("data/log/tenant/default"), site.path().join("data/log/tenant/other"));
    let named = "`tenant/other`: the checkpoint is that of `durward/default`, not of `durward/other`";
    copy(&own, &other);
    let broken = site.run("audit verify").with(4);
    assert!(broken.out.contains(named), "{}", broken.out);
    fs::remove_dir_all(&own).expect("the tree");
    let broken = site.run("audit verify").with(4);
    assert!(broken.out.contains(named), "{}", broken.out);
    fs::remove_dir_all(&other).expect("the tree");
    let broken = site.run("audit verify").with(4);
    assert!(broken.out.contains("there is no tree of `durward/default`, which was signed"), "{}", broken.out);
    // Nor is one read in the place of another. What is missing at a start stands in the system tree.
    fs::remove_file(site.path().join("data/log.newest")).expect("what is kept beside it");
    site.run("agent disable ci").with(0);
    fs::remove_dir_all(&own).expect("the tree");
    copy(&site.path().join("data/log/system"), &own);
    let refused = site.run("audit search").with(4);
    assert!(refused.err.contains("is that of `durward/default/system`"), "{}", refused.err);
}

#[test]
fn whoever_reads_a_log_whose_tree_is_not_there_is_told_what_verify_says() {
    let site = Site::new();
    site.run("agent key create ci").with(0);
    let tail = site.run("audit tail -n 1 --output json").with(0).json();
    let call = tail["record"]["call"].as_str().expect("a call").to_owned();
    let (own, other) = (site.path().join("data/log/tenant/default"), site.path().join("data/log/tenant/other"));
    let following = site.command("audit tail --follow").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut following = following.expect("it starts");
    let mut first = String::new();
    let mut lines = BufReader::new(following.stdout.take().expect("its stdout"));
    lines.read_line(&mut first).expect("a line");
    assert!(first.contains("agent.key.create"), "{first}");

    fs::rename(&own, &other).expect("the tree");
    let said = Said::of(following.wait_with_output().expect("it ends")).with(1);
    assert!(said.err.contains("records that were there are gone"), "{}", said.err);
    let verified = site.run("audit verify").with(4).out;
    for command in ["tail", "tail --follow", "search", "checkpoint", &format!("show {call}"), &format!("prove {call}")]
    {
        let said = site.run(&format!("audit {command}")).with(4);
        assert!(said.out.is_empty() && said.err.contains(verified.trim()), "{command}: {}", said.err);
    }
    fs::remove_dir_all(&other).expect("the tree");
    assert!(site.run("audit tail").with(4).err.contains("there is no tree of `durward/default`, which was signed"));
}

#[test]
fn a_log_of_which_nothing_is_signed_yet_is_read_as_empty() {
    let site = Site::new();
    drop(site.up());
    assert!(site.run("audit tail").with(0).out.is_empty());
    assert!(site.run("audit search --agent ci").with(0).out.is_empty());
}

/// Changes one letter of a record in the tenant's tree; says in how many files.
fn change(log: &Path) -> usize {
    let mut changed = 0;
    for entry in fs::read_dir(log).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            changed += change(&path);
        } else if path.components().any(|part| part.as_os_str() == "entries") {
            let mut bytes = fs::read(&path).expect("a file");
            if let Some(at) = bytes.windows(13).position(|window| window == b"agent.disable") {
                bytes[at] = b'A';
                fs::write(&path, bytes).expect("a file");
                changed += 1;
            }
        }
    }
    changed
}

#[test]
fn an_issuers_file_of_keys_that_cannot_be_used_is_no_start() {
    let site = Site::new();
    let issuer =
        "issuers: [{ url: \"https://idp.example\", audience: x, agent: claim:azp, jwks: { file: keys.json } }]\n";
    fs::write(site.path().join("durward.yaml"), format!("{CONFIG}{issuer}")).expect("a file");
    for useless in ["{", "{\"keys\": [{\"kty\": \"oct\", \"k\": \"AA\"}]}"] {
        fs::write(site.path().join("keys.json"), useless).expect("a file");
        assert!(
            site.run("check").with(1).out.contains("error: no token could be verified with this file"),
            "{useless}"
        );
        assert!(site.run("up").with(1).err.contains("no token could be verified with this file"), "{useless}");
    }
    // Nobody is let in by it, and that can be meant.
    fs::write(site.path().join("keys.json"), "{\"keys\": []}").expect("a file");
    site.run("check").with(0);
}

#[test]
fn a_log_that_was_set_back_stops_the_start_until_the_operator_says_it_was_restored() {
    let site = Site::new();
    site.run("agent key create ci").with(0);
    let log = site.path().join("data/log");
    let aside = site.path().join("log-of-yesterday");
    copy(&log, &aside);
    site.run("agent disable ci").with(0);
    assert_eq!(site.run("audit verify --output json").with(0).json()["anchored"], true);

    fs::remove_dir_all(&log).expect("the log");
    copy(&aside, &log);
    let broken = site.run("audit verify").with(4);
    assert!(broken.out.contains("the checkpoint kept beside the log covers"), "{}", broken.out);
    let refused = site.run("up").with(1);
    assert!(refused.err.contains("was set back") && refused.err.contains("restored from a backup"), "{}", refused.err);
    // A copy holds by itself: what lies beside it says nothing of another directory.
    let key = site.path().join("data/log.pub");
    let alone = format!("audit verify --log {} --key {}", aside.display(), key.display());
    assert!(site.run(&alone).with(0).out.contains("nothing says how long it was"));

    fs::remove_file(site.path().join("data/log.newest")).expect("the newest checkpoints");
    let restored = site.run("agent enable ci").with(0);
    assert!(restored.err.contains("restored"), "{}", restored.err);
    assert_eq!(site.run("audit verify --output json").with(0).json()["anchored"], true);
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file");
        }
    }
}

#[test]
fn init_writes_what_check_accepts_and_overwrites_nothing() {
    let site = Site::empty();
    let written = site.run("init").with(0);
    assert_eq!(written.out.lines().count(), 3, "{}", written.out);
    let checked = site.run("check").with(0);
    assert!(!checked.out.contains("warning"), "{}", checked.out);
    assert!(site.run("policy test").with(0).out.contains(" 0 failed"));
    fs::write(site.path().join("durward.yaml"), "mine").expect("a file");
    fs::remove_dir_all(site.path().join("policies")).expect("a folder");
    let refused = site.run("init").with(1);
    assert!(refused.err.contains("already there"), "{}", refused.err);
    assert_eq!(fs::read_to_string(site.path().join("durward.yaml")).expect("a file"), "mine");
    assert!(!site.path().join("policies").exists(), "all or nothing");
}

#[test]
fn configuration_schema_and_completions_are_data() {
    let site = Site::new();
    assert!(site.run("config schema").with(0).json()["properties"]["servers"].is_object());
    assert_eq!(site.run("config show").with(0).json()["workers"], 1);
    for shell in ["bash", "zsh", "fish"] {
        assert!(site.run(&format!("completions {shell}")).with(0).out.contains("durward"));
    }
    fs::write(site.path().join("durward.yaml"), "listne: 1\n").expect("a file");
    let bad = site.run("config show").with(1);
    assert!(bad.err.contains("listen") && bad.out.is_empty(), "{}", bad.err);
    site.run("agent list").with(1);
}

#[test]
fn a_directory_that_nobody_can_be_asked_about_is_unreachable() {
    let site = Site::new();
    assert!(site.run("agent list").with(1).err.contains("--data DIR names another"));
    assert!(!site.path().join("data").exists(), "looking makes nothing");
    let _gateway = site.up();
    fs::remove_file(site.path().join("data/control.sock")).expect("a socket");
    let held = site.run("agent list").with(3);
    assert!(held.err.contains("another process holds"), "{}", held.err);
    site.run("up").with(3);
}

#[test]
fn a_gateway_answers_although_its_configuration_was_broken_since() {
    let site = Site::new();
    let _gateway = site.up();
    for broken in ["listne: 1\ndata: data\n", "data: data # here\nlisten: [\n", "listne: 1\ndata: elsewhere\n"] {
        // At once: a reload that came between would find an empty file, which is a good one without an agent.
        fs::write(site.path().join("next"), broken).expect("a file");
        fs::rename(site.path().join("next"), site.path().join("durward.yaml")).expect("it takes its place");
        let (code, data) = if broken.contains("elsewhere") { (1, " --data data") } else { (0, "") };
        for command in ["agent disable ci", "agent enable ci", "audit tail", "audit verify"] {
            let said = site.run(command).with(code);
            assert_eq!(said.err.contains("add --data DIR to reach a running gateway"), code == 1, "{}", said.err);
            site.run(&format!("{command}{data}")).with(0);
        }
    }
}

#[test]
fn a_changed_data_directory_waits_for_the_next_start_and_says_so() {
    let site = Site::new();
    let mut child = site.command("up").stderr(Stdio::piped()).spawn().expect("it starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("its stderr"));
    let gateway = Gateway(child);
    let mut until = |text: &str| {
        let mut said = String::new();
        while !said.contains(text) {
            assert!(stderr.read_line(&mut said).expect("text") > 0, "it never said {text}: {said}");
        }
    };
    until("data directory");
    let hangup = || {
        let process = rustix::process::Pid::from_child(&gateway.0);
        rustix::process::kill_process(process, rustix::process::Signal::HUP).expect("a signal");
    };
    hangup();
    until("reloaded, nothing changed");
    fs::write(site.path().join("durward.yaml"), CONFIG.replace("data: data\n", "data: other\n")).expect("a file");
    hangup();
    until("at the next start: ~ data: ");
    hangup();
    until("reloaded, nothing changed\n  as before: at the next start: ~ data: ");
    fs::write(site.path().join("durward.yaml"), CONFIG).expect("a file");
    hangup();
    until("as it was at the start: it waits no longer");
    hangup();
    until("reloaded, nothing changed");
}

#[test]
fn whoever_stops_reading_ends_the_command_quietly() {
    let site = Site::new();
    let mut child =
        site.command("completions bash").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop(child.stdout.take());
    let said = Said::of(child.wait_with_output().expect("it ends")).with(0);
    assert!(said.err.is_empty(), "{}", said.err);
}

#[test]
fn the_socket_and_the_directory_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::new();
    let gateway = site.up();
    let mode = |path: &str| fs::metadata(site.path().join(path)).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode("data"), mode("data/control.sock")), (0o700, 0o600));
    drop(gateway);
    // One that was killed leaves its socket; the next takes its place.
    let _gateway = site.up();
    site.run("agent list").with(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_servers_call_their_tools_moves_no_cursor_and_fills_no_screen() {
    let unlisted = |name: &str| json!({"name": name, "description": null, "inputSchema": {"type": "object"}});
    let mut tools = vec![unlisted("red\u{1b}[31m\nfake: fine")];
    tools.push(json!({"name": "odd\u{9b}2J", "inputSchema": {"type": "object", "properties": {"\u{7}": {"type": 7}}}}));
    tools.extend((0..102).map(|at| {
        json!({"name": format!("odd\u{202e}{at}"), "inputSchema": {"type": "object", "properties": {"x": {"type": 7}}}})
    }));
    tools.extend((0..104).map(|at| unlisted(&format!("bare{at}"))));
    let upstream = Upstream::at("127.0.0.1:0".parse().expect("an address"), tools).await;
    let site = Site::new();
    let text = CONFIG.replace("http://127.0.0.1:9/mcp?key=canary", &upstream.url());
    fs::write(site.path().join("durward.yaml"), text).expect("a file");
    let said = site.run("check --servers").with(1);
    assert!(said.out.contains("files/red\u{fffd}[31m\u{fffd}fake: fine: `/mcp` leaves it out"), "{}", said.out);
    assert!(said.out.contains("files/odd\u{fffd}2J: its calls are refused"), "{}", said.out);
    assert!(!said.out.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'), "{:?}", said.out);
    assert!(said.out.contains("files: and 3 tools more whose calls are refused"), "{}", said.out);
    assert_eq!(said.out.matches("leaves it out of").count(), 100, "{}", said.out);
    assert!(said.out.contains("files: and 5 entries more that `/mcp` leaves out"), "{}", said.out);
    let server = site.run("check --servers --output json").with(1).json()["servers"][0].clone();
    assert_eq!(server["left_out"].as_array().map(Vec::len), Some(100), "{server}");
    assert_eq!(server["unusable"].as_array().map(Vec::len), Some(100), "{server}");
    assert_eq!(server["unusable_more"], 3);
    assert_eq!(
        (&server["left_out"][0]["name"], &server["left_out_more"]),
        (&json!("red\u{1b}[31m\nfake: fine"), &json!(5))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_tells_which_servers_and_tools_cannot_be_used() {
    let odd = json!({"name": "odd", "inputSchema": {"type": "object", "properties": {"x": {"type": 7}}}});
    let fine = json!({"name": "fine", "inputSchema": {"type": "object"}});
    let bare = json!({"name": "bare"});
    let upstream = Upstream::at("127.0.0.1:0".parse().expect("an address"), vec![odd, fine, bare]).await;
    let site = Site::new();
    let configure = |more: &str| {
        let text = CONFIG.replace("http://127.0.0.1:9/mcp?key=canary", &upstream.url());
        let text = text.replace("{ \"read_*\"", &format!("{{ {more}\"read_*\""));
        fs::write(site.path().join("durward.yaml"), text).expect("a file");
    };
    configure("");
    let refused = "files/odd: its calls are refused, its schema cannot be used";
    // Alone it asks nobody, and makes nothing.
    let said = site.run("check").with(0);
    assert!(!said.out.contains("odd"), "{}", said.out);
    assert_eq!(upstream.received(), 0);
    assert!(!site.path().join("data").exists());
    // Asked to look, it looks.
    let said = site.run("check --servers").with(1);
    assert!(said.out.contains(refused) && said.out.contains("legacy,modern"), "{}", said.out);
    // What is left out on `/mcp` is said, and is no fault.
    let unchecked = "files/bare: its calls are refused, its schema cannot be used: it has no `inputSchema`";
    assert!(said.out.contains(unchecked), "{}", said.out);
    let left_out = "files/bare: `/mcp` leaves it out of `tools/list`, clients refuse the whole list for it: it has no `inputSchema`";
    assert!(said.out.contains(left_out), "{}", said.out);
    let servers = site.run("check --servers --output json").with(1).json()["servers"].clone();
    assert_eq!((&servers[0]["state"], &servers[0]["catalog"]["tools"]), (&json!("up"), &json!(3)), "{servers}");
    let unusable = ["bare", "odd"]
        .map(|tool| servers[0]["unusable"].as_array().into_iter().flatten().any(|one| one["tool"] == tool));
    assert_eq!(unusable, [true, true], "{servers}");
    let why = "it has no `inputSchema`";
    assert_eq!(servers[0]["left_out"], json!([{"list": "tools/list", "name": "bare", "why": why}]));
    assert_eq!(servers[0]["left_out_more"], 0);
    // What the operator waives is no fault.
    configure("odd: { danger_skip_schema: true }, bare: { danger_skip_schema: true }, ");
    site.run("check --servers").with(0);
    configure("");
    // The running gateway knows, and is asked without being told to look. A warning is no failure.
    let gateway = site.up();
    site.run("check --servers").with(1);
    let said = site.run("check").with(0);
    assert!(said.out.contains(refused), "{}", said.out);
    drop(gateway);
    // A server that is not there is a fault, too.
    drop(upstream);
    let said = site.run("check --servers").with(1);
    assert!(said.out.contains("down") && said.out.contains("files: "), "{}", said.out);
    // Nor is a file with errors any reason to ask anybody.
    fs::write(site.path().join("durward.yaml"), "nonsense: 1\n").expect("a file");
    let said = site.run("check --servers").with(1);
    assert!(said.out.contains("nonsense") && !said.out.contains("files"), "{}", said.out);
}
