//! What a server offers in one era: its lists, what it says it can, what it says about its use.

use super::{LeftOut, Tool, view::Sums};
use mcp::{Era, ListKind};
use serde_json::Value;
use std::{collections::HashMap, sync::Arc};
use vocab::Digest;

/// What a server offers to whom speaks to it in one era.
pub struct Offer {
    /// The era.
    pub era: Era,
    /// The credential that it was read with.
    pub(super) credential: u64,
    /// When it was read, in ticks.
    pub(super) read_at: u64,
    /// Tools by name.
    pub tools: HashMap<Box<str>, Arc<Tool>>,
    /// Names of prompts, with the digests of their definitions.
    pub prompts: HashMap<Box<str>, Digest>,
    /// URIs of resources, likewise.
    pub resources: HashMap<Box<str>, Digest>,
    /// URI templates, likewise.
    pub templates: Vec<(Box<str>, Digest)>,
    /// Entries that lists leave out.
    pub left_out: Vec<LeftOut>,
    /// The sums of all of these.
    pub(crate) sums: Sums,
    /// What the server says it can.
    pub capabilities: Value,
    /// What it says about its use. Untrusted.
    pub instructions: Option<String>,
}

impl Offer {
    /// Whether a list of this kind has an entry of this name.
    pub(super) fn lists(&self, kind: ListKind, name: &str) -> bool {
        match kind {
            ListKind::Tools => self.tools.contains_key(name),
            ListKind::Prompts => self.prompts.contains_key(name),
            ListKind::Resources => self.resources.contains_key(name),
            ListKind::Templates => self.templates.iter().any(|(template, _)| **template == *name),
        }
    }

    /// Whether `uri` is one of the server's resources, listed or by template.
    pub fn has_resource(&self, uri: &str) -> bool {
        self.resources.contains_key(uri) || self.templates.iter().any(|(template, _)| matches_template(template, uri))
    }
}

/// Whether a URI could come from a template (RFC 6570), by the literal parts around its expressions.
fn matches_template(template: &str, uri: &str) -> bool {
    let mut rest = uri;
    let mut first = true;
    for part in template.split('}') {
        let (literal, has_more) = match part.split_once('{') {
            Some((literal, _)) => (literal, true),
            None => (part, false),
        };
        let found = if first {
            rest.starts_with(literal).then_some(0)
        } else if has_more || !literal.is_empty() {
            rest.rfind(literal)
        } else {
            Some(rest.len())
        };
        let Some(at) = found else { return false };
        rest = rest.get(at + literal.len()..).unwrap_or_default();
        first = false;
    }
    rest.is_empty() || template.ends_with('}')
}

#[cfg(test)]
mod template {
    use super::matches_template;

    #[test]
    fn templates_match_by_their_literal_parts() {
        for (template, uri, expected) in [
            ("file:///{path}", "file:///a/b", true),
            ("db://{table}/rows/{id}", "db://users/rows/7", true),
            ("db://{table}/rows", "db://users/rows", true),
            ("db://{table}/rows", "db://users/cols", false),
            ("file:///{path}", "http://a", false),
            ("test://static", "test://static", true),
            ("test://static", "test://static2", false),
        ] {
            assert_eq!(matches_template(template, uri), expected, "{template} {uri}");
        }
    }
}
