//! What a configuration names beside itself.

use super::{PolicyFiles, Settings, base_of, contents, pattern};
use crate::config::tree::{self, Node};
use std::path::{Path, PathBuf};

/// Files and folders that a configuration speaks of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Named {
    /// Policies left out.
    pub(crate) files: Vec<PathBuf>,
    /// The policies.
    pub(crate) policies: PolicyFiles,
}

impl Named {
    /// By settings that hold.
    pub(crate) fn of(settings: &Settings) -> Self {
        Self { files: settings.files.clone(), policies: settings.policies.clone() }
    }

    /// By the file at `path`, whatever else is wrong with it.
    pub(crate) fn at(path: &Path) -> Self {
        let Some(root) = contents(path).ok().and_then(|source| tree::parse(&source).ok()) else {
            return Self::default();
        };
        let base = base_of(path);
        let files = places(&root, base).into_iter().map(|place| place.path).collect();
        let patterns: Vec<String> = patterns(&root).map(|(_, pattern)| pattern.to_owned()).collect();
        let found = patterns.iter().filter_map(|pattern| pattern::expand(base, pattern).ok()).flatten().collect();
        Self { files, policies: PolicyFiles { base: base.to_owned(), patterns, files: found } }
    }
}

/// A file or a folder that is named.
pub(super) struct Place<'n> {
    pub(super) node: &'n Node,
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
}

/// What must be at a place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file without which a gateway that runs can go on.
    Certificate,
    /// A file.
    File,
    /// A folder.
    Folder,
}

/// Files whose contents count from the next reload on, policies left out.
pub(super) fn files(root: &Node, base: &Path) -> Vec<PathBuf> {
    let counts = |place: &Place| match place.kind {
        Kind::Certificate | Kind::File => true,
        Kind::Folder => false,
    };
    places(root, base).into_iter().filter(counts).map(|place| place.path).collect()
}

/// Every file and folder that is named, policies left out. Paths begin at `base`.
pub(super) fn places<'n>(root: &'n Node, base: &Path) -> Vec<Place<'n>> {
    let mut places = Vec::new();
    let mut add = |node: Option<&'n Node>, key: &str, kind: Kind| {
        let named = node.and_then(|node| node.get(key)).and_then(|node| Some((node, node.text()?)));
        places.extend(named.map(|(node, text)| Place { node, path: base.join(text), kind }));
    };
    add(root.get("tls"), "certificate", Kind::Certificate);
    add(root.get("tls"), "key", Kind::Certificate);
    for server in root.get("servers").map(Node::entries).unwrap_or_default() {
        add(Some(&server.node), "ca", Kind::File);
        add(Some(&server.node), "directory", Kind::Folder);
    }
    for issuer in root.get("issuers").map(Node::each).unwrap_or_default() {
        add(issuer.get("jwks"), "file", Kind::File);
    }
    places
}

/// The patterns of policies, and where they stand.
pub(super) fn patterns(root: &Node) -> impl Iterator<Item = (&Node, &str)> {
    let nodes = root.get("policies").map(Node::each).unwrap_or_default();
    nodes.iter().filter_map(|node| Some((node, node.text()?))).filter(|(_, text)| {
        // What is meant by a variable nobody knows.
        !text.trim().is_empty() && !text.contains("${")
    })
}
