//! Which files the configuration names.

use super::{Jwks, Reach, Settings};
use serde::Serialize;
use std::path::{Path, PathBuf};

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

impl Settings {
    /// Files whose contents count from the next reload on, policies left out.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let tls = self.tls.iter().flat_map(|tls| [&tls.certificate, &tls.key]);
        let roots = self.servers.values().filter_map(|server| match &server.reach {
            Reach::Http { ca, .. } => ca.as_ref(),
            Reach::Command { .. } => None,
        });
        let keys = self.issuers.iter().filter_map(|issuer| match &issuer.jwks {
            Jwks::File(file) => Some(file),
            Jwks::Discovery | Jwks::Url(_) => None,
        });
        tls.chain(roots).chain(keys).map(PathBuf::as_path)
    }
}
