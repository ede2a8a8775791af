//! `durward check`: says everything that is wrong with a configuration and its policies. Changes nothing.

use crate::{
    cli::{Exit, Output},
    config::{self, Loaded, Report},
};
use serde_json::{Value, json};
use std::{
    io::{self, IsTerminal as _, Write},
    path::Path,
};

/// Checks the configuration at `named`, or the usual one, and prints what it finds to stdout.
pub(crate) fn run(named: Option<&Path>, output: Output) -> io::Result<Exit> {
    let mut out = io::stdout().lock();
    let colour = out.is_terminal();
    let Some(path) = config::find(named) else {
        writeln!(io::stderr(), "there is no {}; `durward init` writes one to start from", config::USUAL_FILE)?;
        return Ok(Exit::Failed);
    };
    check(&config::load(&path), output, colour, &mut out)
}

/// Prints what loading found.
fn check(result: &Result<Loaded, Report>, output: Output, colour: bool, out: &mut dyn Write) -> io::Result<Exit> {
    let (report, exit) = match result {
        Ok(loaded) => (&loaded.report, Exit::Done),
        Err(report) => (report, Exit::Failed),
    };
    match output {
        Output::Json => writeln!(out, "{}", describe(report))?,
        Output::Table => {
            write!(out, "{}", report.render(colour))?;
            if let Ok(loaded) = result {
                writeln!(out, "{}", summary(loaded))?;
            }
        }
    }
    Ok(exit)
}

/// `3 servers, 1 agent, 2 rules in 1 file, 1 limit`
fn summary(loaded: &Loaded) -> String {
    let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    let Loaded { settings, policies, .. } = loaded;
    [
        count(settings.servers.len(), "server"),
        count(settings.agents.len(), "agent"),
        count(settings.issuers.len(), "issuer"),
        format!("{} in {}", count(policies.rule_count(), "rule"), count(settings.policies.files.len(), "file")),
        count(settings.limits.len(), "limit"),
    ]
    .join(", ")
}

/// The report for programs.
fn describe(report: &Report) -> Value {
    let faults: Vec<_> = report
        .faults()
        .iter()
        .map(|fault| {
            let place = report.place(fault);
            json!({
                "severity": if fault.stops() { "error" } else { "warning" },
                "what": fault.what,
                "cause": fault.cause(),
                "fix": fault.advice(),
                "file": place.map(|(file, ..)| file),
                "line": place.map(|(_, line, _)| line),
                "column": place.map(|(.., column)| column),
            })
        })
        .collect();
    json!({ "file": report.path(), "errors": report.errors(), "warnings": report.warnings(), "faults": faults })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(case: &str, output: Output) -> (Exit, String) {
        let mut out = Vec::new();
        let result = config::load(&Path::new("tests/config").join(case));
        let exit = check(&result, output, false, &mut out).expect("memory takes everything");
        (exit, String::from_utf8(out).expect("text"))
    }

    #[test]
    fn a_good_file_is_summed_up() {
        let (exit, text) = printed("02-smallest.yaml", Output::Table);
        assert_eq!(exit, Exit::Done);
        assert!(text.ends_with("1 server, 1 agent, 0 issuers, 1 rule in 1 file, 0 limits\n"), "{text}");
    }

    #[test]
    fn warnings_alone_do_not_fail() {
        assert_eq!(printed("41-open-listener-accepted.yaml", Output::Table).0, Exit::Done);
        assert_eq!(printed("40-open-listener.yaml", Output::Table).0, Exit::Failed);
    }

    #[test]
    fn programs_are_given_every_fault_with_its_place() {
        let (exit, text) = printed("13-misspelled-in-tools.yaml", Output::Json);
        let report: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(exit, Exit::Failed);
        assert_eq!((report["errors"].as_u64(), report["faults"].as_array().map(Vec::len)), (Some(4), Some(4)));
        let first = &report["faults"][0];
        assert_eq!((first["line"].as_u64(), first["column"].as_u64()), (Some(5), Some(18)));
        assert_eq!(first["cause"], "did you mean `class`?");
        assert_eq!(first["severity"], "error");
    }

    #[test]
    fn faults_of_policies_are_placed_in_their_own_file() {
        let (_, text) = printed("61-broken-policy.yaml", Output::Json);
        let report: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(report["faults"][0]["file"], "tests/config/broken/rule.json");
        assert_eq!(report["faults"][0]["line"], 4);
    }
}
