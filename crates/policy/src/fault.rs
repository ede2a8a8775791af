//! What is wrong, or looks wrong, with a policy file: where, why, and what to do.

use serde::Serialize;
use std::fmt;

/// A place in a file, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column.
    pub column: u64,
}

/// Something that keeps policies from loading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyFault {
    /// The file.
    pub file: String,
    /// The rule or case, as far as it is known.
    pub rule: Option<String>,
    /// Where in the file.
    pub place: Option<Place>,
    /// What is wrong.
    pub cause: String,
    /// What to do about it.
    pub fix: String,
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        locate(f, &self.file, self.place, self.rule.as_deref())?;
        write!(f, "{} ({})", self.cause, self.fix)
    }
}

impl std::error::Error for PolicyFault {}

/// Something that loads, but hardly says what its author means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyWarning {
    /// The file.
    pub file: String,
    /// The rule.
    pub rule: String,
    /// Where in the file.
    pub place: Option<Place>,
    /// What looks wrong, and what to do about it.
    pub text: String,
}

impl fmt::Display for PolicyWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        locate(f, &self.file, self.place, Some(&self.rule))?;
        f.write_str(&self.text)
    }
}

fn locate(f: &mut fmt::Formatter<'_>, file: &str, place: Option<Place>, rule: Option<&str>) -> fmt::Result {
    f.write_str(file)?;
    if let Some(Place { line, column }) = place {
        write!(f, ":{line}:{column}")?;
    }
    f.write_str(": ")?;
    match rule {
        Some(rule) => write!(f, "rule `{rule}`: "),
        None => Ok(()),
    }
}
