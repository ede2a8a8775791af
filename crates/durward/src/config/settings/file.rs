//! Which policies the configuration names.

use std::path::PathBuf;

/// Where the policies are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PolicyFiles {
    /// Where the globs begin.
    pub(crate) base: PathBuf,
    /// The globs, as written.
    pub(crate) patterns: Vec<String>,
    /// The files they matched, sorted, test cases left out.
    pub(crate) files: Vec<PathBuf>,
}
