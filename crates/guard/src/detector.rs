//! What every detector promises, and what is done about its matches.

use std::ops::Range;
use vocab::Side;

/// The kind of a match that rests on randomness alone. Ids, cursors and media data may look like that by right, so
/// the guards drop matches of this kind there.
pub const HIGH_ENTROPY: &str = "high-entropy";

/// Finds one family of things in a text.
///
/// INVARIANT: time is linear in the text, and every span lies inside the text on character boundaries.
pub trait Detector: Send + Sync {
    /// The family, as findings name it: `secrets`.
    fn family(&self) -> &'static str;

    /// Whether something may be found in a JSON text without escapes: in one of its strings, or in one read together
    /// with its name. A no is a promise, and saves the looking at each string.
    fn may_find(&self, _json: &str) -> bool {
        true
    }

    /// Adds what is in `text` to `found`.
    fn find(&self, text: &str, found: &mut Vec<Match>);

    /// What begins in `text`, ends with it and may go on, if so much of it is there that it can hardly be something else.
    /// Asked where a string goes on with an earlier one: what is said in many small pieces is hidden from there on.
    fn begun(&self, _text: &str) -> Option<Match> {
        None
    }
}

/// One thing found in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// What it is: `aws-access-key`. Appears in `[redacted:KIND]`, so it needs no escaping in JSON.
    pub kind: &'static str,
    /// Where it is, in bytes.
    pub span: Range<usize>,
}

/// What is done about a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Nothing is looked for.
    Off,
    /// The finding is recorded, the text passes.
    Report,
    /// The match is replaced by `[redacted:KIND]`.
    #[default]
    Mask,
    /// The text does not pass.
    Refuse,
}

/// The modes of one detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// For what servers send.
    pub results: Mode,
    /// For what callers send.
    pub arguments: Mode,
}

impl Setting {
    /// The mode for one direction.
    pub const fn mode(self, side: Side) -> Mode {
        match side {
            Side::Arguments => self.arguments,
            Side::Result => self.results,
        }
    }
}
