//! Case files: each policy under `tests/cases` is run against its own tests and its `*.test.*` neighbours.

use crate::{Policies, Source, run_cases};
use std::{fs, path::Path};

fn read(path: &Path) -> Source {
    Source { name: path.display().to_string(), text: fs::read_to_string(path).unwrap() }
}

fn check(policy: &str, cases: &str, at_least: usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let policies = Policies::compile(&[read(&folder.join(policy))]).unwrap();
    let results = run_cases(&policies, &read(&folder.join(cases))).unwrap();
    assert!(results.len() >= at_least, "only {} cases in {cases}", results.len());
    let failed: Vec<_> = results.iter().filter(|result| !result.passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn the_example_document_loads_unchanged() {
    check("junior-dev-access.json", "junior-dev-access.test.yaml", 6);
}

#[test]
fn agents_and_tools() {
    check("agents.yaml", "agents.yaml", 9);
}

#[test]
fn parameters() {
    check("parameters.yaml", "parameters.yaml", 30);
}

#[test]
fn hours_and_dates() {
    check("context.yaml", "context.yaml", 9);
}

#[test]
fn environments_roles_classes_and_labels() {
    check("environments.yaml", "environments.yaml", 13);
}

#[test]
fn a_case_that_expects_otherwise_fails() {
    let policy = "{policy: p, rules: [{action: '*', target: 'a/*', effect: allow}], tests: [
        {agent: x, target: a/b, expect: deny}, {agent: x, target: a/b, expect: allow, rule: 'p#2'},
        {agent: x, target: a/b, expect: allow, visible: false}, {agent: x, target: a/b, expect: allow, rule: 'p#1', visible: true}]}";
    let source = Source { name: String::from("p.yaml"), text: format!("# a comment makes it YAML\n{policy}") };
    let policies = Policies::compile(std::slice::from_ref(&source)).unwrap();
    let passed: Vec<bool> = run_cases(&policies, &source).unwrap().iter().map(|result| result.passed).collect();
    assert_eq!(passed, [false, false, false, true]);
}

#[test]
fn faults_in_cases_are_all_told() {
    let text = "cases:\n  - {agent: x, target: ab, expect: allow}\n  - {agnet: x, target: a/b, expect: maybe}\n";
    let faults = run_cases(&super::policies("{policy: p, rules: []}"), &super::source(text)).unwrap_err();
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 4, "{told:#?}");
    assert!(told[0].starts_with("test.yaml:2:") && told[0].contains(": case 1: "), "{told:#?}");
    assert!(told.iter().all(|told| !told.contains("rule")), "{told:#?}");
    assert!(told[1].contains("did you mean `agent`?"), "{told:#?}");
}
