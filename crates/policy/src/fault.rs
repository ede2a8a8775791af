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
    /// The rule, as far as it is known.
    pub rule: Option<String>,
    /// The test case it is about, if it is about one: its position counted from 1.
    pub case: Option<usize>,
    /// Where in the file.
    pub place: Option<Place>,
    /// What is wrong.
    pub cause: String,
    /// What to do about it.
    pub fix: String,
}

impl PolicyFault {
    /// What is wrong, and with which rule or case.
    pub fn what(&self) -> String {
        match (&self.rule, self.case) {
            (Some(rule), _) => format!("rule `{rule}`: {}", self.cause),
            (None, Some(case)) => format!("case {case}: {}", self.cause),
            (None, None) => self.cause.clone(),
        }
    }
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        locate(f, &self.file, self.place)?;
        write!(f, "{} ({})", self.what(), self.fix)
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
        locate(f, &self.file, self.place)?;
        write!(f, "rule `{}`: {}", self.rule, self.text)
    }
}

fn locate(f: &mut fmt::Formatter<'_>, file: &str, place: Option<Place>) -> fmt::Result {
    f.write_str(file)?;
    if let Some(Place { line, column }) = place {
        write!(f, ":{line}:{column}")?;
    }
    f.write_str(": ")
}
