//! The tour, as a stranger takes it: the real program, its real output, its real end.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what the test stands on must be there, or the test has failed"
)]

use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::{self, BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};
use testkit::Agent;

#[expect(clippy::disallowed_methods, reason = "the test runs the program")]
fn durward(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_durward"));
    command.args(arguments).current_dir(folder).env_remove("DURWARD_DATA").env_remove("CLICOLOR_FORCE");
    command.env_remove("DURWARD_CONFIG");
    command.env("TMPDIR", folder.join("tmp")).stdin(Stdio::null());
    command
}

/// A folder for the program to run in, with one in it for what passes.
fn home() -> io::Result<tempfile::TempDir> {
    let home = tempfile::tempdir()?;
    fs::create_dir(home.path().join("tmp"))?;
    Ok(home)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn what_the_demo_does_not_have_is_said_and_so_is_a_screen_that_takes_nothing() {
    let home = home().unwrap();
    for arguments in [["demo", "--output", "json"], ["demo", "--config", "durward.yaml"]] {
        let output = durward(home.path(), &arguments).output().unwrap();
        let talk = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{talk}");
        assert!(talk.contains("has a configuration of its own"), "{talk}");
    }
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = durward(home.path(), &["demo", "--once"]).stdout(full).output().unwrap();
    let talk = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{talk}");
    assert!(talk.contains("the screen cannot be written"), "{talk}");
}

#[test]
fn the_tour_does_what_it_says_and_leaves_nothing_behind() {
    let home = home().unwrap();
    let mut command = durward(home.path(), &["demo", "--once"]);
    // What other commands are told is nothing to the tour: there is no such file.
    let output = command.env("DURWARD_CONFIG", "durward.yaml").output().unwrap();
    let (said, talk) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{said}\n{talk}");
    assert_eq!(talk, "", "the tour speaks for itself");

    let steps: Vec<&str> = said.lines().filter(|line| line.starts_with("  ✓ ") || line.starts_with("  ✗ ")).collect();
    assert_eq!(steps.len(), 9, "{said}");
    assert!(steps.iter().all(|step| step.starts_with("  ✓ ")), "{said}");
    for line in [
        "it sees 6 of 9 tools",
        "not there for it: run_sql, delete_file, run_command",
        "`customers`",
        "`keep-real-customers`",
        "try again in",
        "[redacted:aws-access-key]",
        "got the credential: yes",
        "error -32602 at /id",
        "9 of 9 steps did what they say",
    ] {
        assert!(said.contains(line), "no {line:?} in:\n{said}");
    }
    assert!(!said.contains('\u{1b}'), "colours are for terminals");
    assert_eq!(names(home.path()), ["tmp"]);
    assert_eq!(names(&home.path().join("tmp")), Vec::<String>::new());
}

/// A demo that stays up; killed if the test ends early.
struct Staying(Child);

impl Drop for Staying {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_demo_that_stays_serves_whoever_connects_and_stops_when_told() {
    let home = home().unwrap();
    let mut command = durward(home.path(), &["demo"]);
    let mut demo = Staying(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let lines = BufReader::new(demo.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut said = Vec::new();
    for line in lines {
        let is_last = line.contains("Ctrl-C");
        said.push(line);
        if is_last {
            break;
        }
    }
    let line = |start: &str| said.iter().map(|line| line.trim()).find(|line| line.starts_with(start)).unwrap();
    let claude: Vec<&str> = line("claude mcp add").split_whitespace().collect();
    let [url, key] = [claude[6], claude[10].trim_end_matches('"')];
    assert!(line("metrics").ends_with("/metrics"));

    // Either era, with what was printed.
    let modern = Agent::modern(url, Some(key));
    let legacy = Agent::legacy(url, Some(key)).await;
    for agent in [&modern, &legacy] {
        let mut tools = agent.tools().await;
        tools.sort();
        assert_eq!(
            tools,
            [
                "customers__delete_customer",
                "customers__export_customers",
                "customers__find_customer",
                "customers__show_connection",
                "files__list_files",
                "files__read_file"
            ]
        );
    }
    let found = modern.call("customers__find_customer", serde_json::json!({"id": 1})).await;
    assert_eq!(found["result"]["content"][0]["text"], "Ada Lovelace, London");

    kill_process(Pid::from_raw(demo.0.id().try_into().unwrap()).unwrap(), Signal::INT).unwrap();
    assert_eq!(demo.0.wait().unwrap().code(), Some(0));
    assert_eq!(names(home.path()), ["durward-demo", "tmp"]);
    let folder = names(&home.path().join("durward-demo"));
    assert_eq!(folder, ["data", "durward.yaml", "log-changed", "policies"]);
}

#[test]
fn a_folder_that_no_demo_made_is_left_alone() {
    let home = home().unwrap();
    let mine = home.path().join("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("durward.yaml"), "data: data\n").unwrap();
    let output = durward(home.path(), &["demo", "--once", "--data", "mine"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("no demo wrote"));
    assert_eq!(names(&mine), ["durward.yaml"]);
}

/// Runs a program where there is no network but loopback, and writes down what was tried beyond it: before and after
/// this shell has tried once itself.
const ALONE: &str = r#"
ip link set lo up || ifconfig lo up || exit 91
"$@" > said 2> talk
code=$?
cat /proc/net/snmp /proc/net/snmp6 > tried
(echo > /dev/udp/192.0.2.1/9) 2> /dev/null
cat /proc/net/snmp > tried-once
exit $code
"#;

/// A count of the kernel's, from what `/proc/net/snmp` and `snmp6` say.
fn counted(text: &str, of: &str, name: &str) -> u64 {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let pairs = lines.windows(2).find(|pair| pair.iter().all(|line| line.first() == Some(&of)));
    let in_table = pairs.and_then(|pair| pair[1].get(pair[0].iter().position(|word| *word == name)?));
    let alone = || lines.iter().find(|line| line.first() == Some(&name)).and_then(|line| line.get(1));
    in_table.or_else(alone).unwrap_or_else(|| panic!("no {of} {name} in:\n{text}")).parse().unwrap()
}

#[test]
fn nothing_is_missing_and_nobody_is_called_where_there_is_no_network() {
    let home = home().unwrap();
    let mut alone = durward(home.path(), &[]);
    let program = alone.get_program().to_owned();
    #[expect(clippy::disallowed_methods, reason = "the test runs the program")]
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "bash", "-c", ALONE, "bash"]).arg(program);
    command.args(["demo", "--once"]).current_dir(home.path()).stdin(Stdio::null());
    for (name, value) in alone.stdout(Stdio::null()).get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = command.output().expect("`unshare` of util-linux, and `bash`");
    let read = |name: &str| fs::read_to_string(home.path().join(name)).unwrap_or_default();
    let (said, tried) = (read("said"), read("tried"));
    assert!(
        !tried.is_empty(),
        "this test needs a network of its own, which this machine refuses. Allow user and network namespaces to whoever \
         runs it: `sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0`; in a \
         container, `--security-opt seccomp=unconfined` or a profile that allows `unshare`; and have `ip` or `ifconfig` \
         there.\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(0), "{said}\n{}", read("talk"));
    assert!(said.contains("9 of 9 steps did what they say"), "{said}");

    // Nothing was sent where no way leads, and nobody was asked for the address of a name.
    for (of, name) in
        [("Ip:", "OutNoRoutes"), ("Ip6", "Ip6OutNoRoutes"), ("Udp:", "OutDatagrams"), ("Udp6", "Udp6OutDatagrams")]
    {
        assert_eq!(counted(&tried, of, name), 0, "{name}:\n{tried}");
    }
    assert!(counted(&tried, "Tcp:", "ActiveOpens") > 0, "what goes on inside is counted");
    assert_eq!(counted(&read("tried-once"), "Ip:", "OutNoRoutes"), 1, "an attempt is counted");
}

#[test]
fn what_is_in_memory_ends_in_no_core_file() {
    let home = home().unwrap();
    let program = durward(home.path(), &[]).get_program().to_owned();
    #[expect(clippy::disallowed_methods, reason = "the test runs the program")]
    let mut command = Command::new("sh");
    // As much as whoever runs the test may allow.
    command.args(["-c", r#"ulimit -S -c "$(ulimit -H -c)"; exec "$@""#, "sh"]).arg(program).arg("demo");
    command.current_dir(home.path()).env("TMPDIR", home.path().join("tmp")).stdin(Stdio::null());
    let mut demo = Staying(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut lines = BufReader::new(demo.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("Ctrl-C")), "it is up");

    // Threads and processes may end while one looks: those are left out. A file of one that has ended may be empty, too.
    let limit = |pid: &str| {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
        limits.lines().find(|line| line.starts_with("Max core file size")).map(str::to_owned)
    };
    let own = demo.0.id().to_string();
    let threads = fs::read_dir(format!("/proc/{own}/task")).unwrap().filter_map(Result::ok);
    let servers: Vec<String> =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok()).collect();
    let servers = servers.concat();
    let limits: Vec<String> = servers.split_whitespace().filter_map(limit).collect();
    assert!(!limits.is_empty(), "it has server processes: {servers}");
    for line in limits.iter().chain(&[limit(&own).unwrap()]) {
        let words: Vec<&str> = line.split_whitespace().rev().take(3).collect();
        assert_eq!(words, ["bytes", "0", "0"], "{line}");
    }
    kill_process(Pid::from_raw(demo.0.id().try_into().unwrap()).unwrap(), Signal::INT).unwrap();
    assert_eq!(demo.0.wait().unwrap().code(), Some(0));
}
