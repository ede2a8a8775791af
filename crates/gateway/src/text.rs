//! The texts of a call on their way beside the log: handed over as the record commits to them, and only where they may
//! lie there.
//!
//! SECURITY: what is kept has passed the detectors, and holds nothing that they found. Credentials are injected later
//! and are no part of it. Costs the call a reference, and no more where no text is kept.

use crate::{journal::Journal, trail::Facts};
use bytes::Bytes;
use guard::{Screening, Verdict};
use std::{fmt, mem};
use vocab::Side;

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

impl Journal {
    /// Hands over a text of a call, which the record commits to.
    pub(crate) fn keep(&self, facts: &Facts, side: Side, text: Bytes) {
        if let Some(texts) = self.log().texts().filter(|_| !text.is_empty()) {
            texts.keep(audit::Text { call: facts.call, at: facts.at, side, text });
        }
    }
}
