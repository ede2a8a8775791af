//! Globs over one name, for limits and classes of tools: `*` matches any run, `/` included; `?` and
//! `[…]` match one character; case matters.

use globset::{GlobBuilder, GlobMatcher};
use regex::Regex;

/// A compiled glob. The two common kinds need no engine.
pub(crate) enum Pattern {
    Any,
    Exactly(Box<str>),
    Glob(Box<GlobMatcher>),
    Characters(Box<Regex>),
}

/// Why a text is not a glob.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    /// It is not written as one.
    #[error(transparent)]
    Glob(#[from] globset::Error),
    /// It takes too much to match it.
    #[error(transparent)]
    Engine(#[from] regex::Error),
}

impl Pattern {
    /// Reads a glob as globset does, to which `**` may mean whole path components.
    pub(crate) fn new(text: &str) -> Result<Self, PatternError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if !text.contains(['*', '?', '[', ']', '{', '}', '\\', '!']) {
            return Ok(Self::Exactly(text.into()));
        }
        let glob = GlobBuilder::new(text).literal_separator(false).backslash_escape(true).build()?;
        if policy::by_character(text) {
            return Ok(Self::Characters(Box::new(policy::engine(&glob)?)));
        }
        Ok(Self::Glob(Box::new(glob.compile_matcher())))
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(name) => **name == *text,
            Self::Glob(glob) => glob.is_match(text),
            Self::Characters(glob) => glob.is_match(text),
        }
    }
}

/// The glob with one `*` for each run of them.
pub(crate) fn single_stars(text: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]
        /// What is kept from the engine means what the engine would say.
        #[test]
        fn every_glob_means_what_the_engine_says(
            glob in r"\*{0,3}|[ab,.-]{0,3}|[ab./*?{},!\[\]\\-]{0,5}",
            text in r"[ab./*?{},!\[\]\\\n-]{0,4}",
        ) {
            if let Ok(engine) = GlobBuilder::new(&glob).literal_separator(false).build() {
                prop_assert_eq!(Pattern::new(&glob).unwrap().matches(&text), engine.compile_matcher().is_match(&text));
            }
        }
    }

    #[test]
    fn one_character_is_one_however_many_bytes_it_takes() {
        for (glob, text) in [("h?llo", "hállo"), ("[éü]", "ü"), ("[!a]*", "éa"), ("?", "字"), (r"é\?{a,?}", "é?ü")]
        {
            assert!(Pattern::new(glob).unwrap().matches(text), "{glob} misses {text}");
        }
        for (glob, text) in [("??", "é"), ("[éü]", "è"), ("[!é]", "é")] {
            assert!(!Pattern::new(glob).unwrap().matches(text), "{glob} matches {text}");
        }
    }

    #[test]
    fn a_run_of_stars_is_one_unless_it_is_escaped() {
        for (text, single) in [("**", "*"), ("a***b*", "a*b*"), (r"\**", r"\**"), (r"\\**", r"\\*")] {
            assert_eq!(single_stars(text), single, "{text}");
        }
    }
}
