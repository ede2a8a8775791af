//! Promises about what operators write: any file is either understood or refused, and understood the same twice.

use policy::{Policies, Source, run_cases};
use std::{fs, path::PathBuf, process::Command, process::Stdio, sync::OnceLock};

/// A policy file compiles or is refused; its own cases run, and come out the same again.
pub fn policy(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    for name in ["p.yaml", "p.json"] {
        let source = Source { name: name.to_owned(), text: text.to_owned() };
        let Ok(policies) = Policies::compile(std::slice::from_ref(&source)) else { continue };
        let once = format!("{:?}", run_cases(&policies, &source));
        let again = Policies::compile(std::slice::from_ref(&source)).expect("it compiled before");
        assert_eq!(policies.version(), again.version(), "one text, two versions");
        assert_eq!(once, format!("{:?}", run_cases(&again, &source)), "one text, two decisions");
    }
}

/// What `durward check` may end with: no errors, or errors, which it names. The others that it documents are of other
/// commands, of a wrong command line, and of a gateway that is asked.
const CHECKED: [Option<i32>; 2] = [Some(0), Some(1)];

/// `durward check` ends by itself, with a status it documents, whatever the file says.
#[expect(clippy::disallowed_methods, reason = "the configuration is read by the binary and nowhere else")]
pub fn configuration(input: &[u8]) {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a folder")).path();
    let file = folder.join("durward.yaml");
    fs::write(&file, input).expect("the folder is ours");
    let mut command = Command::new(binary());
    command.arg("check").arg("--config").arg(&file).current_dir(folder);
    let output = command.stdin(Stdio::null()).output().expect("the gateway was built beside this");
    let status = output.status.code();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(CHECKED.contains(&status), "it ended with {status:?} and said {said}");
    let report = String::from_utf8_lossy(&output.stdout);
    let faulty = report.lines().any(|line| line.starts_with("error"));
    assert_eq!(faulty, status == Some(1), "{status:?} is not what it said: {report}");
}

/// The gateway lies beside whoever runs this, or one folder up from a test.
fn binary() -> PathBuf {
    let own = std::env::current_exe().expect("this program is somewhere");
    let beside = own.ancestors().skip(1).map(|folder| folder.join("durward")).find(|path| path.is_file());
    beside.unwrap_or_else(|| panic!("build the gateway first: cargo build --package durward"))
}
