//! Which crate may see which. The table is the one of ARCHITECTURE.md.

use super::Findings;
use crate::process;
use anyhow::{Context, Result};
use serde_json::Value;
use std::{collections::BTreeSet, path::Path};

const KERNEL: &[&str] = &["vocab"];
const LINE: &[&str] = &["vocab", "mcp", "policy", "guard", "audit", "vault", "egress", "identity", "store"];

/// A crate, and what of ours it may depend on.
const EDGES: [(&str, &[&str]); 17] = [
    ("vocab", &[]),
    ("mcp", KERNEL),
    ("policy", KERNEL),
    ("guard", KERNEL),
    ("audit", KERNEL),
    ("egress", KERNEL),
    ("store", KERNEL),
    ("vault", &["vocab", "egress"]),
    ("identity", &["vocab", "egress"]),
    ("gateway", LINE),
    ("admin", &["vocab", "mcp", "policy", "guard", "audit", "vault", "egress", "identity", "store", "gateway"]),
    (
        "durward",
        &["vocab", "mcp", "policy", "guard", "audit", "vault", "egress", "identity", "store", "gateway", "admin"],
    ),
    ("testkit", KERNEL),
    (
        "fuzz",
        &["vocab", "mcp", "policy", "guard", "audit", "vault", "egress", "identity", "store", "gateway", "durward"],
    ),
    ("xtask", &[]),
    ("bench", &["testkit"]),
    ("witness", &["testkit"]),
];

/// Only tests may see these.
const ONLY_FOR_TESTS: [&str; 1] = ["testkit"];

/// Only these may see anyhow outside their tests.
const MAY_USE_ANYHOW: [&str; 5] = ["durward", "fuzz", "xtask", "bench", "witness"];

pub(super) fn check(root: &Path, findings: &mut Findings) -> Result<()> {
    let mut cargo = process::cargo(root);
    cargo.args(["metadata", "--no-deps", "--format-version", "1", "--offline"]);
    let text = process::output(&mut cargo)?;
    let metadata = serde_json::from_str(&text).context("cargo metadata is no JSON")?;
    judge(&metadata, findings);
    Ok(())
}

fn judge(metadata: &Value, findings: &mut Findings) {
    let packages = metadata.get("packages").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let name = |value: &Value| value.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    for package in packages {
        let own = name(package);
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| *known == own) else {
            findings.faults.push(format!("crate {own} is in no line of the table of crates (xtask/src/tidy/edges.rs)"));
            continue;
        };
        for dependency in package.get("dependencies").and_then(Value::as_array).into_iter().flatten() {
            let seen = name(dependency);
            let is_dev = dependency.get("kind").and_then(Value::as_str) == Some("dev");
            let is_allowed = allowed.contains(&seen.as_str()) || (is_dev && ONLY_FOR_TESTS.contains(&seen.as_str()));
            if ours.contains(&seen) && !is_allowed {
                findings.faults.push(format!("crate {own} must not see crate {seen}"));
            }
            if seen == "anyhow" && !is_dev && !MAY_USE_ANYHOW.contains(&own.as_str()) {
                findings.faults.push(format!("crate {own} must not use anyhow"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Findings, judge};
    use serde_json::json;

    #[test]
    fn an_edge_outside_the_table_is_a_fault() {
        let package = |name: &str, dependencies: &[(&str, Option<&str>)]| {
            let dependencies: Vec<_> =
                dependencies.iter().map(|(name, kind)| json!({"name": name, "kind": kind})).collect();
            json!({"name": name, "dependencies": dependencies})
        };
        let mut findings = Findings::default();
        judge(
            &json!({"packages": [
                package("vocab", &[]),
                package("testkit", &[("vocab", None)]),
                package("mcp", &[("vocab", None), ("testkit", Some("dev")), ("serde", None)]),
                package("policy", &[("mcp", None), ("testkit", None), ("anyhow", None)]),
                package("newcomer", &[]),
            ]}),
            &mut findings,
        );
        assert_eq!(
            findings.faults,
            [
                "crate policy must not see crate mcp",
                "crate policy must not see crate testkit",
                "crate policy must not use anyhow",
                "crate newcomer is in no line of the table of crates (xtask/src/tidy/edges.rs)"
            ]
        );
    }
}
