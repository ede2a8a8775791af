//! The tour, as a stranger takes it: the real program, its real output, its real end.

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
fn the_tour_does_what_it_says_and_leaves_nothing_behind() {
    let home = home().unwrap();
    let output = durward(home.path(), &["demo", "--once"]).output().unwrap();
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
