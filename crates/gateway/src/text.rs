//! The texts of a call on their way beside the log: handed over as the record commits to them, and only where they may
//! lie there.
//!
//! SECURITY: what is kept has passed the detectors, and holds nothing that they found. Credentials are injected later
//! and are no part of it. Costs the call a reference, and no more where no text is kept.

use crate::{journal::Journal, trail::Facts};
use bytes::Bytes;
use guard::{Screening, Verdict};
use mcp::{Kind, Message};
use std::{fmt, mem, sync::Arc};
use vocab::{Finding, Side};

/// What a caller says, once the detectors let it through and nothing that they found is in it.
#[derive(Clone, Default)]
pub struct Cleared(Bytes);

impl Cleared {
    /// What was let through, if it is `clear` of what was found.
    pub(crate) fn of(said: Bytes, clear: bool) -> Self {
        if clear { Self(said) } else { Self::default() }
    }

    /// The text, once.
    pub(crate) fn take(&mut self) -> Bytes {
        mem::take(&mut self.0)
    }
}

impl fmt::Debug for Cleared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cleared({} bytes)", self.0.len())
    }
}

/// Whether what is sent on holds nothing that was found: either nothing was, or it was masked.
pub(crate) fn is_clear(screening: &Screening) -> bool {
    match screening.verdict {
        Verdict::Clean => screening.findings.is_empty(),
        Verdict::Masked(_) => true,
        Verdict::Refused => false,
    }
}

/// Whether a message that was masked is still the same one: what makes it that is never masked.
pub(crate) fn is_same(before: &Message, masked: &Message) -> bool {
    (before.kind(), before.id(), before.method()) == (masked.kind(), masked.id(), masked.method())
}

/// What was found in all of a message, by places that start at what it says. What stands beside that keeps its own.
pub(crate) fn placed(message: &Message, mut findings: Vec<Finding>) -> Vec<Finding> {
    let said = match message.kind() {
        Kind::Request | Kind::Notification => "/params",
        Kind::Response if message.error().is_some() => "/error",
        Kind::Response => "/result",
    };
    for finding in &mut findings {
        let inside = finding.pointer.strip_prefix(said).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        if let Some(inside) = inside.map(Arc::from) {
            finding.pointer = inside;
        }
    }
    findings
}

impl Journal {
    /// Hands over a text of a call, which the record commits to.
    pub(crate) fn keep(&self, facts: &Facts, side: Side, text: Bytes) {
        if let Some(texts) = self.log().texts().filter(|_| !text.is_empty()) {
            texts.keep(audit::Text { call: facts.call, at: facts.at, side, text });
        }
    }
}
