//! Bounds on what is read.

/// How much of a body is accepted. Every default is stated in the configuration guide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest body, in bytes. At most 4 GiB − 1, whatever is set here.
    pub body: usize,
    /// Deepest nesting of arrays and objects. At most [`Limits::DEEPEST`], whatever is set here.
    pub depth: usize,
    /// Most messages in one batch.
    pub batch: usize,
}

impl Limits {
    /// No text nests deeper than this, whatever is configured: trees built from it are walked recursively.
    pub const DEEPEST: usize = 128;

    /// What holds for a text that already passed a scan with whatever limits were configured.
    pub(crate) const WIDEST: Self = Self { body: usize::MAX, depth: Self::DEEPEST, batch: usize::MAX };
}

impl Default for Limits {
    fn default() -> Self {
        Self { body: 4 << 20, depth: 64, batch: 64 }
    }
}
