//! Globs over `server/name`: one way to write them, one meaning.
//!
//! A target is split at its first `/`; `*` matches any run, `/` included; case matters. Knows nothing of rules.

use globset::{Candidate, Glob, GlobBuilder, GlobSet, GlobSetBuilder};

/// Why a text is not a glob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{glob}` is not a glob: {why}")]
pub(crate) struct PatternError {
    glob: String,
    why: String,
}

/// A target glob, split into its two halves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// What the server's name must match.
    pub(crate) server: String,
    /// What the rest must match.
    pub(crate) name: String,
}

impl Target {
    /// Splits at the first `/`; none without one.
    pub(crate) fn split(text: &str) -> Option<Self> {
        let (server, name) = text.split_once('/')?;
        Some(Self { server: server.to_owned(), name: name.to_owned() })
    }
}

/// The letters that mean something in a glob.
const SPECIAL: [char; 8] = ['*', '?', '[', ']', '{', '}', '\\', ','];

/// Whether the text matches itself and nothing else.
pub(crate) fn is_literal(text: &str) -> bool {
    !text.contains(SPECIAL)
}

/// A cheap look at the glob's beginning: false if it cannot match.
pub(crate) fn may_match(glob: &str, text: &str) -> bool {
    let beginning = glob.split(SPECIAL).next().unwrap_or_default();
    if beginning.len() == glob.len() { glob == text } else { text.starts_with(beginning) }
}

/// Compiles one glob.
pub(crate) fn compile(text: &str) -> Result<Glob, PatternError> {
    GlobBuilder::new(&plain(text))
        .literal_separator(false)
        .backslash_escape(true)
        .build()
        .map_err(|error| PatternError { glob: text.to_owned(), why: error.kind().to_string() })
}

/// Takes from globset what it knows about paths, for names are none.
///
/// `**` would be a path component of its own; here a run of `*` means what one means.
/// SECURITY: globset sees no extension in a name such as `a/..`, and a glob that ends in `.` would miss it;
/// written as a class, the dot is matched like any letter.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len() + 2);
    let (mut escaped, mut after_star, mut ends_in_dot) = (false, false, false);
    for letter in text.chars() {
        let star = letter == '*' && !escaped;
        if !(star && after_star) {
            if letter == '.' && escaped {
                plain.pop();
            }
            plain.push(letter);
        }
        ends_in_dot = letter == '.';
        after_star = star;
        escaped = letter == '\\' && !escaped;
    }
    if ends_in_dot {
        plain.pop();
        plain.push_str("[.]");
    }
    plain
}

/// Many globs, asked at once.
#[derive(Debug, Clone)]
pub(crate) struct Patterns(GlobSet);

impl Patterns {
    /// Compiles all of `texts`, in their order.
    pub(crate) fn compile<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, PatternError> {
        let mut builder = GlobSetBuilder::new();
        for text in texts {
            builder.add(compile(text)?);
        }
        builder
            .build()
            .map(Self)
            .map_err(|error| PatternError { glob: String::from("all together"), why: error.to_string() })
    }

    /// Whether any glob matches.
    pub(crate) fn matches(&self, text: &str) -> bool {
        self.0.is_match_candidate(&Candidate::new(text))
    }

    /// Puts the positions of all globs that match into `into`.
    pub(crate) fn positions(&self, text: &str, into: &mut Vec<usize>) {
        self.0.matches_candidate_into(&Candidate::new(text), into);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(glob: &str, text: &str) -> bool {
        Patterns::compile([glob]).unwrap().matches(text)
    }

    /// What `*` means, without any cleverness.
    fn plainly(glob: &[u8], text: &[u8]) -> bool {
        match (glob.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) if plainly(rest, text) => true,
            (Some((b'*', _)), Some((_, rest))) => plainly(glob, rest),
            (Some((a, glob)), Some((b, text))) if a == b => plainly(glob, text),
            _ => false,
        }
    }

    #[test]
    fn a_star_crosses_slashes_and_case_matters() {
        assert!(matches("file:///docs/*", "file:///docs/a/b.txt"));
        assert!(matches("a**b", "a/x/b") && matches("**/b", "a/b") && !matches("**/b", "b"));
        assert!(!matches("Read", "read"));
        assert!(matches(r"a\*b", "a*b") && !matches(r"a\*b", "axb"));
        assert!(compile("a[").is_err() && compile("{a").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn globs_mean_what_they_say(glob in "[a./*]{0,6}", text in "[a./]{0,6}") {
            let expected = plainly(glob.as_bytes(), text.as_bytes());
            let patterns = Patterns::compile([glob.as_str()]).unwrap();
            let mut at = Vec::new();
            patterns.positions(&text, &mut at);
            prop_assert_eq!(patterns.matches(&text), expected);
            prop_assert_eq!(!at.is_empty(), expected);
        }
    }
}
