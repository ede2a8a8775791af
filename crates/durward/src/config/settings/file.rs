//! Which policies the configuration names.

use serde::Serialize;
use std::path::PathBuf;

/// Where the policies are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct PolicyFiles {
    /// Where the globs begin.
    #[serde(skip)]
    pub(crate) base: PathBuf,
    /// The globs, as written.
    pub(crate) patterns: Vec<String>,
    /// The files they matched, sorted, test cases left out.
    pub(crate) files: Vec<PathBuf>,
}
