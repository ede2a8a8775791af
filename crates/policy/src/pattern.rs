//! Globs over `server/name`: one way to write them, one meaning.
//!
//! A target is split at its first `/`; `*` matches any run, `/` included; `?` and `[…]` match one character, of however
//! many bytes; case matters. Knows nothing of rules.

use crate::character;
use foldhash::fast::RandomState;
use globset::{Candidate, Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use regex::RegexSet;
use std::collections::HashMap;

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

/// Whether the glob matches every text: a run of `*` means what one means.
fn is_any(glob: &str) -> bool {
    !glob.is_empty() && glob.bytes().all(|letter| letter == b'*')
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

/// Many globs, asked at once. Most are `*` or name one thing, and what asks these on every call needs no engine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Patterns {
    /// Where the globs stand that match anything.
    any: Vec<usize>,
    /// Where those stand that match one text.
    literals: HashMap<Box<str>, Vec<usize>, RandomState>,
    /// The rest; none where there is none.
    globs: Option<Globs>,
    /// Of the rest, those that go by characters.
    characters: Option<Characters>,
}

/// Globs that take an engine, and where each of them stands.
#[derive(Debug, Clone)]
struct Globs {
    set: GlobSet,
    places: Vec<usize>,
}

/// The same for those that take one character somewhere.
#[derive(Debug, Clone)]
struct Characters {
    set: RegexSet,
    places: Vec<usize>,
}

impl Patterns {
    /// Compiles all of `texts`, in their order.
    pub(crate) fn compile<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, PatternError> {
        let mut patterns = Self::default();
        let (mut builder, mut places) = (GlobSetBuilder::new(), Vec::new());
        let (mut single, mut singles) = (Vec::new(), Vec::new());
        let together = |why: String| PatternError { glob: String::from("all together"), why };
        for (place, text) in texts.into_iter().enumerate() {
            if is_any(text) {
                patterns.any.push(place);
            } else if is_literal(text) {
                patterns.literals.entry(text.into()).or_default().push(place);
            } else if character::by_character(text) {
                single.push(compile(text)?);
                singles.push(place);
            } else {
                builder.add(compile(text)?);
                places.push(place);
            }
        }
        if !places.is_empty() {
            let set = builder.build().map_err(|error| together(error.to_string()))?;
            patterns.globs = Some(Globs { set, places });
        }
        if !singles.is_empty() {
            let set = character::engines(&single).map_err(|error| together(error.to_string()))?;
            patterns.characters = Some(Characters { set, places: singles });
        }
        Ok(patterns)
    }

    /// Whether any glob matches.
    pub(crate) fn matches(&self, text: &str) -> bool {
        !self.any.is_empty()
            || self.literals.contains_key(text)
            || self.globs.as_ref().is_some_and(|globs| globs.set.is_match_candidate(&Candidate::new(text)))
            || self.characters.as_ref().is_some_and(|globs| globs.set.is_match(text))
    }

    /// The positions of all globs that match, each once, in no order.
    pub(crate) fn positions(&self, text: &str) -> impl Iterator<Item = usize> {
        let literal = self.literals.get(text).into_iter().flatten();
        let globs = self.globs.as_ref().into_iter().flat_map(move |globs| globs.positions(text));
        let characters = self.characters.as_ref().into_iter().flat_map(move |globs| globs.positions(text));
        self.any.iter().chain(literal).copied().chain(globs).chain(characters)
    }
}

impl Globs {
    fn positions(&self, text: &str) -> impl Iterator<Item = usize> {
        let matching = self.set.matches_candidate(&Candidate::new(text));
        matching.into_iter().filter_map(|at| self.places.get(at).copied())
    }
}

impl Characters {
    fn positions(&self, text: &str) -> impl Iterator<Item = usize> {
        self.set.matches(text).into_iter().filter_map(|at| self.places.get(at).copied())
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

    #[test]
    fn one_character_is_one_however_many_bytes_it_takes() {
        for (glob, text) in [
            ("h?llo", "hállo"),
            ("file:///srv/?.key", "file:///srv/é.key"),
            ("h??llo", "ha\u{301}llo"),
            ("?", "字"),
            ("?", "🔑"),
            ("?", "\n"),
            ("[éü]", "é"),
            ("[éü]", "ü"),
            ("[à-ü]x", "éx"),
            ("[!a]", "é"),
            ("{?,ab}é", "üé"),
            (r"\[é\]?", "[é]ü"),
            (r"\\xc3?", r"\xc3é"),
            ("é*[.]", "éü."),
        ] {
            assert!(matches(glob, text), "{glob} misses {text}");
        }
        for (glob, text) in [
            ("??", "é"),
            ("h?llo", "ha\u{301}llo"),
            ("[éü]", "è"),
            ("[éü]?", "é"),
            ("[!é]", "é"),
            ("[!a]", "ab"),
            (r"\?é", "üé"),
        ] {
            assert!(!matches(glob, text), "{glob} matches {text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn globs_mean_what_they_say(glob in "[a./*]{0,6}", text in "[a./]{0,6}") {
            let expected = plainly(glob.as_bytes(), text.as_bytes());
            let patterns = Patterns::compile([glob.as_str()]).unwrap();
            prop_assert_eq!(patterns.matches(&text), expected);
            prop_assert_eq!(patterns.positions(&text).count(), usize::from(expected));
        }

        /// Letters of two and three bytes mean what those of one do, in the same order.
        #[test]
        fn letters_of_many_bytes_are_letters(
            glob in r"[ab./*?,!\[\]\\-]{0,6}",
            text in r"[ab./*?,!\n]{0,5}",
        ) {
            let wide = |text: &str| text.replace('a', "é").replace('b', "字");
            if let Ok(engine) = compile(&glob) {
                prop_assert_eq!(matches(&wide(&glob), &wide(&text)), engine.compile_matcher().is_match(&text));
            }
        }

        /// What is kept from the engine means what the engine would say.
        #[test]
        fn many_globs_mean_what_the_engine_says(
            globs in prop::collection::vec(r"[ab*]{0,2}|[ab./*?{},!\[\]\\-]{0,4}", 0..8),
            text in r"[ab*./?{},!\[\]\\\n-]{0,4}",
        ) {
            let compiled: Vec<(&str, Glob)> =
                globs.iter().filter_map(|glob| Some((glob.as_str(), compile(glob).ok()?))).collect();
            let engine = GlobSet::new(compiled.iter().map(|(_, glob)| glob)).unwrap();
            let patterns = Patterns::compile(compiled.iter().map(|(glob, _)| *glob)).unwrap();
            let mut found: Vec<usize> = patterns.positions(&text).collect();
            found.sort_unstable();
            prop_assert_eq!(patterns.matches(&text), engine.is_match(&text));
            prop_assert_eq!(found, engine.matches(&text));
        }
    }
}
