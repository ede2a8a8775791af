//! Documentation keeps its word: links lead somewhere, and every claim names a test that exists.

use super::{Findings, Page};
use anyhow::Result;
use regex::Regex;
use std::collections::BTreeSet;

const CLAIMS: &str = "docs/claims.md";

/// Proofs that are a chore of their own and not a test function.
const CHORES: [&str; 8] = [
    "xtask conformance",
    "xtask strangers",
    "xtask matrix",
    "xtask keyring",
    "xtask bench",
    "xtask soak",
    "xtask tidy",
    "fuzz smoke",
];

pub(super) fn check(pages: &[Page], exists: &dyn Fn(&str) -> bool, findings: &mut Findings) -> Result<()> {
    links(pages, exists, findings)?;
    claims(pages, findings)
}

fn links(pages: &[Page], exists: &dyn Fn(&str) -> bool, findings: &mut Findings) -> Result<()> {
    let link = Regex::new(r"\]\(([^)\s]+)(?:\s[^)]*)?\)")?;
    for page in pages.iter().filter(|page| page.is("md")) {
        let mut is_code = false;
        for (index, line) in page.text.lines().enumerate() {
            is_code ^= line.trim_start().starts_with("```");
            if is_code {
                continue;
            }
            for target in link.captures_iter(line).filter_map(|found| found.get(1)) {
                if let Some(why) = broken(page, target.as_str(), pages, exists) {
                    findings.fault(&page.path, index + 1, &why);
                }
            }
        }
    }
    Ok(())
}

fn broken(page: &Page, target: &str, pages: &[Page], exists: &dyn Fn(&str) -> bool) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let path = if path.is_empty() { page.path.clone() } else { resolved(&page.path, path) };
    if !exists(&path) {
        return Some(format!("link to {path}, which does not exist"));
    }
    let anchor = anchor?;
    let there = pages.iter().find(|page| page.path == path)?;
    (!anchors(&there.text).contains(anchor)).then(|| format!("link to {path}#{anchor}, which has no such heading"))
}

/// `link` as seen from the folder of `page`, from the root.
fn resolved(page: &str, link: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Headings the way that forges name them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let kept = line.trim_start_matches('#').trim().to_lowercase();
            let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// Rows of the form `| claim | test | real server or fake |`.
fn claims(pages: &[Page], findings: &mut Findings) -> Result<()> {
    let Some(page) = pages.iter().find(|page| page.path == CLAIMS) else {
        findings.warnings.push(format!("{CLAIMS} does not exist yet: no claim is checked"));
        return Ok(());
    };
    let tests = tests(pages)?;
    let code = Regex::new(r"`([^`]+)`")?;
    let mut count = 0;
    for (index, line) in page.text.lines().enumerate() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [claim, proof, with, ..] = cells.as_slice() else { continue };
        if !line.starts_with('|') || claim.starts_with("--") || *proof == "test" {
            continue;
        }
        count += 1;
        if with.is_empty() {
            findings.fault(CLAIMS, index + 1, &format!("{claim}: say whether it meets a real server or a fake"));
        }
        let named: Vec<&str> = code.captures_iter(proof).filter_map(|found| Some(found.get(1)?.as_str())).collect();
        if named.is_empty() {
            findings.fault(CLAIMS, index + 1, &format!("{claim}: no test is named"));
        }
        for name in named {
            let is_chore = CHORES.iter().any(|chore| name.ends_with(chore));
            let function = name.rsplit("::").next().unwrap_or(name);
            if !is_chore && !tests.contains(function) {
                findings.fault(CLAIMS, index + 1, &format!("{claim}: there is no test `{name}`"));
            }
        }
    }
    if count == 0 {
        findings.fault(CLAIMS, 1, "the table of claims is empty");
    }
    Ok(())
}

/// The names of all test functions.
fn tests(pages: &[Page]) -> Result<BTreeSet<String>> {
    let test = Regex::new(r"#\[(?:\w+::)?test(?:\([^\]]*\))?\]\s*(?:#\[[^\]]*\]\s*)*(?:async\s+)?fn\s+(\w+)")?;
    let mut names = BTreeSet::new();
    for page in pages.iter().filter(|page| page.is("rs")) {
        names.extend(test.captures_iter(&page.text).filter_map(|found| Some(found.get(1)?.as_str().to_owned())));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::{Findings, Page};

    fn page(path: &str, text: &str) -> Page {
        Page { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn dead_links_and_dead_anchors_are_faults() {
        let pages = [
            page(
                "README.md",
                "# One\n[a](docs/b.md#two-words) [c](docs/none.md) [d](#gone) [e](https://x.example/y)\n",
            ),
            page("docs/b.md", "## Two words\n[back](../README.md#one)\n```\n[code](nowhere)\n```\n"),
            page("docs/claims.md", "| a | `it_works` | fake |\n"),
            page("a.rs", "#[test]\nfn it_works() {}\n"),
        ];
        let mut findings = Findings::default();
        check(&pages, &|path| pages.iter().any(|page| page.path == path), &mut findings).unwrap();
        assert_eq!(
            findings.faults,
            [
                "README.md:2: link to docs/none.md, which does not exist",
                "README.md:2: link to README.md#gone, which has no such heading"
            ]
        );
    }

    #[test]
    fn a_claim_needs_a_test_that_exists() {
        let claims = "| row | test | with |\n|---|---|---|\n| R-1 | `a::good` | fake |\n| R-2 | `bad` | real |\n\
                      | R-3 | none | real |\n| R-4 | `cargo xtask conformance` |  |\n\
                      | R-5 | `property`, `helper` | fake |\n";
        let source = "#[tokio::test]\nasync fn good() {}\nfn bad() {}\n\
                      proptest! {\n/// Of any.\n#[test]\nfn property(n in 0..9) {}\n}\nfn helper(n: u8) {}\n";
        let pages = [page("docs/claims.md", claims), page("a.rs", source)];
        let mut findings = Findings::default();
        check(&pages, &|_| true, &mut findings).unwrap();
        assert_eq!(
            findings.faults,
            [
                "docs/claims.md:4: R-2: there is no test `bad`",
                "docs/claims.md:5: R-3: no test is named",
                "docs/claims.md:6: R-4: say whether it meets a real server or a fake",
                "docs/claims.md:7: R-5: there is no test `helper`"
            ]
        );
    }
}
