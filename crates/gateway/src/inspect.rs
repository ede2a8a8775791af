//! Detectors over one message: over what it says, and over what stands beside that.
//!
//! SECURITY: all of a message, so that members of vendors are no way around. What the protocol hands out to get it back
//! stands in what a message says and nowhere else: beside that nothing is spared.

use crate::text;
use guard::{Screening, Verdict};
use mcp::{Message, Span};
use std::sync::Arc;
use vocab::Finding;

/// What is put around a member, so that it is looked at as what a tool is told.
const OPEN: &[u8] = br#"{"arguments":{"#;
const CLOSE: &[u8] = b"}}";
const AT: &str = "/arguments";

/// A part of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Its params, its result or its error.
    Said,
    /// A member that says nothing to what it is.
    Beside,
}

/// What was found, and what is to be done about it.
pub(crate) struct Inspected {
    /// By places that start at what the message says, or at the message for what stands beside that.
    pub(crate) findings: Vec<Finding>,
    /// Nothing that was found is in what is left.
    pub(crate) clear: bool,
    /// What masks it. `None`: it cannot be masked, or must not.
    pub(crate) edits: Option<Vec<(Span, Vec<u8>)>>,
}

/// Looks at all of a message.
pub(crate) fn message(message: &Message, mut detect: impl FnMut(&[u8], Part) -> Screening) -> Inspected {
    let mut all = Inspected { findings: Vec::new(), clear: true, edits: Some(Vec::new()) };
    if let Some(said) = message.said_member() {
        all.add(detect(said.raw, Part::Said), said.span, Some);
    }
    for span in message.beside() {
        let mut screening = detect(&wrapped(message, span.clone()), Part::Beside);
        for finding in &mut screening.findings {
            if let Some(inside) = finding.pointer.strip_prefix(AT).map(Arc::from) {
                finding.pointer = inside;
            }
        }
        all.add(screening, span, |text| Some(text.strip_prefix(OPEN)?.strip_suffix(CLOSE)?.to_vec()));
    }
    all
}

/// What of a message is larger than what is looked into, said for whoever reads that it does not pass.
pub(crate) fn too_large(message: &Message) -> Option<String> {
    let said = message.said_member().and_then(|said| guard::too_large(said.raw));
    said.or_else(|| message.beside().find_map(|span| guard::too_large(&wrapped(message, span))))
}

fn wrapped(message: &Message, span: Span) -> Vec<u8> {
    [OPEN, message.bytes().get(span).unwrap_or_default(), CLOSE].concat()
}

impl Inspected {
    fn add(&mut self, screening: Screening, span: Span, taken: impl Fn(Vec<u8>) -> Option<Vec<u8>>) {
        self.clear &= text::is_clear(&screening);
        self.findings.extend(screening.findings);
        let edit = match screening.verdict {
            Verdict::Clean => return,
            Verdict::Masked(text) => taken(text),
            Verdict::Refused => None,
        };
        match (edit, &mut self.edits) {
            (Some(text), Some(edits)) => edits.push((span, text)),
            (None, _) | (_, None) => self.edits = None,
        }
    }
}
