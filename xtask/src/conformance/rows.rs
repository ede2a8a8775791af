//! Rows of the suite's output: (scenario, check, status), counted. Judges nothing.

use anyhow::{Context, Result};
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path};

/// A row: scenario, check, status.
type Row = (String, String, String);

/// How often each row came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rows(BTreeMap<Row, usize>);

impl Rows {
    /// Reads every `checks.json` under the suite's output folder.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let mut rows = Self::default();
        if folder.exists() {
            rows.collect(folder, folder)?;
        }
        Ok(rows)
    }

    fn collect(&mut self, top: &Path, folder: &Path) -> Result<()> {
        let inside = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in inside {
            let path = entry?.path();
            if path.is_dir() {
                self.collect(top, &path)?;
            } else if path.file_name().is_some_and(|name| name == "checks.json") {
                // A scenario's name may hold a slash, so the folder may be a path.
                let run = folder.strip_prefix(top).unwrap_or(folder).to_string_lossy().into_owned();
                let text = fs::read_to_string(&path)?;
                let checks = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
                self.add(scenario(&run), &checks);
            }
        }
        Ok(())
    }

    fn add(&mut self, scenario: &str, checks: &Value) {
        for check in checks.as_array().into_iter().flatten().filter(|check| !is_own(check)) {
            let word = |key| check.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
            *self.0.entry((scenario.to_owned(), word("id"), word("status"))).or_default() += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The failed rows in words, if there are any.
    pub(super) fn failed(&self) -> Option<String> {
        let failed: Vec<String> = self.0.keys().filter(|row| row.2 == "FAILURE").map(words).collect();
        (!failed.is_empty()).then(|| failed.join("; "))
    }

    /// The rows that say good or bad, without those that only log.
    pub(super) fn judged(&self) -> Self {
        let judged = self.0.iter().filter(|(row, _)| row.2 != "INFO");
        Self(judged.map(|(row, count)| (row.clone(), *count)).collect())
    }

    /// Totals by status.
    pub(super) fn summary(&self) -> String {
        let mut totals = BTreeMap::<&str, usize>::new();
        for (row, count) in &self.0 {
            *totals.entry(&row.2).or_default() += count;
        }
        totals.iter().map(|(status, count)| format!("{count} {status}")).collect::<Vec<_>>().join(", ")
    }

    /// One line per row whose count differs: `- 2× …` for here, `+ 1× …` for there.
    pub(super) fn differences(&self, there: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for row in self.0.keys().chain(there.0.keys().filter(|row| !self.0.contains_key(*row))) {
            let (here, there) = (self.0.get(row).unwrap_or(&0), there.0.get(row).unwrap_or(&0));
            if here > there {
                lines.push(format!("- {}× {}", here - there, words(row)));
            }
            if there > here {
                lines.push(format!("+ {}× {}", there - here, words(row)));
            }
        }
        lines
    }
}

fn words((scenario, check, status): &Row) -> String {
    format!("{scenario} {check} {status}")
}

/// Whether the check is about the gateway's own introduction, which the suite's server hears beside the client's: the
/// gateway looks at a server before anybody calls it.
fn is_own(check: &Value) -> bool {
    check.pointer("/details/clientName").is_some_and(|name| name == "durward")
}

/// The scenario of an output folder such as `server-tools-list-2026-11-21T02-58-44-249Z`.
fn scenario(run: &str) -> &str {
    const STAMP: usize = "-2026-11-21T02-58-44-249Z".len();
    let run = run.len().checked_sub(STAMP).and_then(|end| run.get(..end)).unwrap_or(run);
    run.strip_prefix("server-").unwrap_or(run)
}

#[cfg(test)]
mod tests {
    use super::{Rows, scenario};
    use serde_json::json;

    fn rows(checks: &[(&str, &str)]) -> Rows {
        let mut rows = Rows::default();
        let checks: Vec<_> = checks.iter().map(|(id, status)| json!({"id": id, "status": status})).collect();
        rows.add("tools-list", &json!(checks));
        rows
    }

    #[test]
    fn scenario_is_the_folder_without_its_time() {
        assert_eq!(scenario("server-tools-list-2026-11-21T02-58-44-249Z"), "tools-list");
        assert_eq!(scenario("tools_call-2026-11-21T02-58-44-249Z"), "tools_call");
    }

    #[test]
    fn what_the_gateway_says_for_itself_is_no_row() {
        let mut rows = Rows::default();
        let of = |name: &str| json!({"id": "hello", "status": "SUCCESS", "details": {"clientName": name}});
        rows.add("initialize", &json!([of("durward"), of("durward-conformance-client")]));
        assert_eq!(rows.summary(), "1 SUCCESS");
    }

    #[test]
    fn a_lost_check_and_a_changed_status_are_both_seen() {
        let direct = rows(&[("a", "SUCCESS"), ("b", "SUCCESS"), ("b", "SUCCESS")]);
        assert!(direct.differences(&rows(&[("b", "SUCCESS"), ("a", "SUCCESS"), ("b", "SUCCESS")])).is_empty());
        assert_eq!(
            direct.differences(&rows(&[("a", "FAILURE"), ("b", "SUCCESS")])),
            ["- 1× tools-list a SUCCESS", "- 1× tools-list b SUCCESS", "+ 1× tools-list a FAILURE"]
        );
        assert_eq!(rows(&[("a", "FAILURE")]).failed().as_deref(), Some("tools-list a FAILURE"));
    }
}
