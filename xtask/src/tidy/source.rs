//! What no file may hold, and what only some may.

use super::{Findings, Page};
use anyhow::Result;
use regex::Regex;

/// A file of this many lines tells two stories.
const LONG: usize = 600;

/// A pattern, why it is a fault, and the paths where it is none.
struct Rule {
    pattern: Regex,
    why: &'static str,
    rooms: &'static [&'static str],
}

fn rule(pattern: &str, why: &'static str, rooms: &'static [&'static str]) -> Result<Rule> {
    Ok(Rule { pattern: Regex::new(pattern)?, why, rooms })
}

/// Rules for Rust. Patterns are written so that they do not match themselves.
fn rust() -> Result<Vec<Rule>> {
    Ok(vec![
        // What several test programs share, each uses in part: there an expectation could not hold.
        rule(r"#!?\[allow\(", "say `expect` with a reason", &["crates/durward/tests/", "crates/gateway/tests/"])?,
        rule(r"#\[ignore", "a test that does not run proves nothing", &[])?,
        rule(r"\b(todo|unimplemented)!\s*[(\[{]", "unfinished", &[])?,
        rule(r"\b(TO-?DO|FIX-?ME|XX-?X)\b[:( ]", "an issue is the place for plans", &[])?,
        rule(
            r"\bstd::env::(vars?|vars?_os|args|args_os|set_var|temp_dir|home_dir|current_dir)\b",
            "only the binary reads its environment and arguments",
            &["crates/durward/", "crates/guard/examples/", "xtask/", "fuzz/"],
        )?,
        rule(
            r"\bSystemTime::now\b",
            "time comes from the clock",
            &["crates/gateway/src/clock.rs", "crates/durward/", "xtask/", "fuzz/"],
        )?,
        rule(r"\bthread::sleep\b", "nothing here sleeps: wait for the event", &["xtask/"])?,
    ])
}

/// Rules for every text.
fn any() -> Result<Vec<Rule>> {
    Ok(vec![
        rule(r"(?:^|[^\w.])/(root|home|work)/[a-z.]", "a path of one machine", &["xtask/src/tidy/source.rs"])?,
        rule(r"\.\./share[d]/", "a path outside the repository", &[])?,
        rule(r#""resolve[d]":\s*"https?:"#, "a lock file names a registry: set omit-lockfile-registry-resolved", &[])?,
        rule(
            r"(?i)^\s*(registry|index-url|extra-index-url|replace-with|--index-url)\s*[= ]",
            "a registry is the business of the machine",
            &[],
        )?,
    ])
}

pub(super) fn check(pages: &[Page], findings: &mut Findings) -> Result<()> {
    let (rust, any) = (rust()?, any()?);
    for page in pages {
        let is_rust = page.is("rs");
        for (index, line) in page.text.lines().enumerate() {
            let rules = any.iter().chain(rust.iter().filter(|_| is_rust));
            for rule in rules {
                let is_room = rule.rooms.iter().any(|room| page.path.starts_with(room));
                if !is_room && rule.pattern.is_match(line) {
                    findings.fault(&page.path, index + 1, rule.why);
                }
            }
        }
        if is_rust {
            shape(page, findings);
        }
    }
    Ok(())
}

fn shape(page: &Page, findings: &mut Findings) {
    let is_test = page.path.ends_with("tests.rs") || page.path.contains("/tests/");
    let code = page.text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = code.lines().count();
    if !is_test && lines > LONG {
        findings.warnings.push(format!("{}: {lines} lines: look for a second topic", page.path));
    }
    if !is_test && !page.text.starts_with("//!") {
        findings.fault(&page.path, 1, "begin with `//!`: what the file owns and what it never does");
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::{Findings, Page};

    fn faults(path: &str, text: &str) -> Vec<String> {
        let mut findings = Findings::default();
        check(&[Page { path: path.to_owned(), text: format!("//! Owns a test.\n{text}\n") }], &mut findings).unwrap();
        findings.faults
    }

    #[test]
    fn each_rule_finds_its_breach_and_only_that() {
        let breaches = [
            concat!("#[al", "low(dead_code)]"),
            concat!("#[ig", "nore]"),
            concat!("to", "do!()"),
            concat!("unim", "plemented!()"),
            concat!("// TO", "DO: later"),
            concat!("let a = std::en", "v::var(\"A\");"),
            concat!("let t = SystemT", "ime::now();"),
            concat!("std::thread::sl", "eep(second);"),
            concat!("let p = \"/ro", "ot/thing\";"),
            concat!("include!(\"../sha", "red/x\");"),
            concat!("\"resol", "ved\": \"https://host/x.tgz\""),
            concat!("regi", "stry = https://host"),
        ];
        for breach in breaches {
            assert_eq!(faults("crates/mcp/src/a.rs", breach).len(), 1, "{breach}");
        }
        for fine in ["#[expect(dead_code, reason = \"x\")]", "env!(\"CARGO_MANIFEST_DIR\")", "a.env(\"A\", \"b\")"] {
            assert_eq!(faults("crates/mcp/src/a.rs", fine), Vec::<String>::new(), "{fine}");
        }
    }

    #[test]
    fn rooms_are_exempt_and_a_file_without_purpose_is_not() {
        assert!(faults("crates/gateway/src/clock.rs", concat!("SystemT", "ime::now()")).is_empty());
        let mut findings = Findings::default();
        check(&[Page { path: "a.rs".to_owned(), text: "fn a() {}\n".to_owned() }], &mut findings).unwrap();
        assert_eq!(findings.faults.len(), 1);
    }
}
