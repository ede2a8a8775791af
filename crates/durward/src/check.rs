//! `durward check`: says everything that is wrong with a configuration, its policies and their test cases, and what servers
//! say where they can be asked. Changes nothing, but that looking at servers makes the data directory where there is none.

use crate::{
    cli::{Exit, Output, Shared},
    command::{
        office::{Office, Site},
        print, server,
    },
    config::{self, Loaded, Report},
};
use anyhow::Result;
use http::Method;
use serde_json::{Value, json};
use std::io::{self, IsTerminal as _, Write};

/// Checks the configuration and prints what it finds to stdout. `look`: servers are looked at, too.
pub(crate) async fn run(shared: &Shared, look: bool) -> Result<Exit> {
    let Some(path) = config::find(shared.config.as_deref()) else {
        print::say(&format!("there is no {}; `durward init` writes one to start from", config::USUAL_FILE));
        return Ok(Exit::Failed);
    };
    let mut result = config::load(&path);
    let report = match &mut result {
        Ok(loaded) => {
            if let Some(data) = &shared.data {
                loaded.settings.data.clone_from(data);
            }
            loaded.look_for_secrets();
            &mut loaded.report
        }
        Err(report) => report,
    };
    config::look_at_cases(&path, report);
    let servers = match &result {
        Ok(_) => servers(shared, look).await?,
        Err(_) => None,
    };
    let exit = {
        let mut out = io::stdout().lock();
        let colour = out.is_terminal();
        check(&result, servers.as_ref(), shared.output, colour, &mut out)?
    };
    let Some(servers) = servers else { return Ok(exit) };
    let known = servers.get("servers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let troubled = known.iter().any(server::is_troubled);
    if shared.output == Output::Table && (look || troubled) {
        print::data("")?;
        server::table(&servers)?;
        server::troubles(&servers)?;
    }
    Ok(if look && troubled { Exit::Failed } else { exit })
}

/// What is known of the servers: to the gateway that runs, or after a look. None where nobody can be asked.
async fn servers(shared: &Shared, look: bool) -> Result<Option<Value>> {
    let site = Site::find(shared)?;
    if look {
        let office = Office::open_to_look(&site).await?;
        let answer = office.ask(Method::POST, "/api/servers/look", None).await;
        office.close().await?;
        return answer?.value().map(Some);
    }
    if !Office::is_running(&site).await {
        return Ok(None);
    }
    let asked = async { Office::open(&site, false).await?.ask(Method::GET, "/api/servers", None).await?.value() };
    match asked.await {
        Ok(servers) => Ok(Some(servers)),
        Err(fault) => {
            print::say(&format!("durward: the running gateway does not say how its servers are: {fault:#}"));
            Ok(None)
        }
    }
}

/// Prints what loading found.
fn check(
    result: &Result<Loaded, Report>,
    servers: Option<&Value>,
    output: Output,
    colour: bool,
    out: &mut dyn Write,
) -> io::Result<Exit> {
    let report = match result {
        Ok(loaded) => &loaded.report,
        Err(report) => report,
    };
    // What would start has errors, too, where a test case has.
    let exit = if report.errors() == 0 { Exit::Done } else { Exit::Failed };
    match output {
        Output::Json => writeln!(out, "{}", describe(report, servers))?,
        Output::Table => {
            write!(out, "{}", report.render(colour))?;
            if let Ok(loaded) = result
                && exit == Exit::Done
            {
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
fn describe(report: &Report, servers: Option<&Value>) -> Value {
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
    json!({
        "file": report.path(),
        "errors": report.errors(),
        "warnings": report.warnings(),
        "faults": faults,
        "servers": servers.and_then(|servers| servers.get("servers")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn printed(case: &str, output: Output) -> (Exit, String) {
        let mut out = Vec::new();
        let result = config::load(&Path::new("tests/config").join(case));
        let exit = check(&result, None, output, false, &mut out).expect("memory takes everything");
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
