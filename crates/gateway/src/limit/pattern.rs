//! Globs over one name: `*` matches any run, `/` included; case matters.

use globset::{GlobBuilder, GlobMatcher};

/// A compiled glob. The two common kinds need no engine.
pub(super) enum Pattern {
    Any,
    Exactly(Box<str>),
    Glob(Box<GlobMatcher>),
}

impl Pattern {
    pub(super) fn new(text: &str) -> Result<Self, globset::Error> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if !text.contains(['*', '?', '[', ']', '{', '}', '\\', '!']) {
            return Ok(Self::Exactly(text.into()));
        }
        let glob = GlobBuilder::new(&single_stars(text)).literal_separator(false).backslash_escape(true).build()?;
        Ok(Self::Glob(Box::new(glob.compile_matcher())))
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(name) => **name == *text,
            Self::Glob(glob) => glob.is_match(text),
        }
    }
}

/// `**` would mean whole path components, and names are no paths.
fn single_stars(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut escaped, mut after_star) = (false, false);
    for letter in text.chars() {
        let star = letter == '*' && !escaped;
        if !(star && after_star) {
            out.push(letter);
        }
        after_star = star;
        escaped = letter == '\\' && !escaped;
    }
    out
}
