//! The secrets family: known key formats, assignments to secret-like names, and strings that are plainly random.
//!
//! One automaton finds the keywords of all formats; a keyword selects the one rule to be tried at that place. Every
//! rule reads a bounded window, so the whole is linear in the text.

mod assignment;
pub(crate) mod checksum;
mod entropy;
mod format;
mod shape;

use crate::detector::{Detector, Match};
use aho_corasick::{AhoCorasick, AhoCorasickKind};
use std::ops::Range;
use std::sync::LazyLock;

/// Finds secrets. The tables are shared; the value itself holds nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Secrets;

impl Secrets {
    /// Whether a text begins as keys of a known format do, however it goes on: one that was cut or mistyped is still
    /// none to be shown. Beginnings that are words, too, say nothing.
    pub fn begins_like_a_key(text: &str) -> bool {
        const WORDS: [&str; 6] = ["secret_", "key-", "pat", "SK", "EAA", "pul-"];
        format::FORMATS.iter().any(|format| !WORDS.contains(&format.prefix) && text.starts_with(format.prefix))
    }
}

/// What a keyword selects.
#[derive(Clone, Copy)]
enum Rule {
    Format(&'static format::Format),
    Shape(&'static shape::Shape),
    Name(assignment::Strength),
}

struct Keywords {
    automaton: AhoCorasick,
    rules: Vec<Rule>,
}

static KEYWORDS: LazyLock<Keywords> = LazyLock::new(|| {
    let formats = format::FORMATS.iter().map(|format| (format.prefix, Rule::Format(format)));
    let shapes = shape::SHAPES.iter().map(|shape| (shape.keyword, Rule::Shape(shape)));
    let names = assignment::NAMES.iter().map(|(name, strength)| (*name, Rule::Name(*strength)));
    let (words, rules): (Vec<&str>, Vec<Rule>) = formats.chain(shapes).chain(names).unzip();
    let mut builder = AhoCorasick::builder();
    builder.ascii_case_insensitive(true).kind(Some(AhoCorasickKind::DFA));
    #[expect(clippy::expect_used, reason = "the words are constants, and every test builds the automaton")]
    let automaton = builder.build(&words).expect("the keyword table builds");
    Keywords { automaton, rules }
});

/// Every keyword.
#[cfg(test)]
pub(crate) fn keywords() -> impl Iterator<Item = &'static str> {
    let formats = format::FORMATS.iter().map(|format| format.prefix);
    formats
        .chain(shape::SHAPES.iter().map(|shape| shape.keyword))
        .chain(assignment::NAMES.iter().map(|(name, _)| *name))
}

impl Detector for Secrets {
    fn family(&self) -> &'static str {
        "secrets"
    }

    // No keyword holds a quotation mark, and no random word does: what lies in a string or spans its name and its value
    // shows in the text as a whole, too.
    fn may_find(&self, json: &str) -> bool {
        entropy::may_find(json) || KEYWORDS.automaton.is_match(json)
    }

    fn find(&self, text: &str, found: &mut Vec<Match>) {
        // Nothing that is worth keeping is shorter.
        if text.len() < 8 {
            return;
        }
        let mut matches = Vec::new();
        let mut seen = assignment::Seen::default();
        for hit in KEYWORDS.automaton.find_overlapping_iter(text) {
            let at = hit.start()..hit.end();
            match KEYWORDS.rules.get(hit.pattern().as_usize()) {
                Some(Rule::Format(format)) => matches.extend(format.at(text, &at).map(|m| (Rank::Format, m))),
                Some(Rule::Shape(shape)) => matches.extend(shape.at(text, &at).map(|m| (Rank::Shape, m))),
                Some(Rule::Name(strength)) => {
                    matches.extend(assignment::at(text, &at, *strength, &mut seen).map(|m| (Rank::Name, m)));
                }
                None => {}
            }
        }
        let taken = Taken::of(matches);
        let random = entropy::find(text, &taken);
        found.extend(taken.matches);
        found.extend(random);
    }

    fn begun(&self, text: &str) -> Option<Match> {
        let begun = |hit: aho_corasick::Match| match KEYWORDS.rules.get(hit.pattern().as_usize())? {
            Rule::Format(format) => format.begun_at(text, &(hit.start()..hit.end())),
            Rule::Shape(_) | Rule::Name(_) => None,
        };
        KEYWORDS.automaton.find_overlapping_iter(text).find_map(begun)
    }
}

/// Whose name a match gets where several overlap.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Format,
    Shape,
    Name,
}

/// Matches in order that do not overlap.
struct Taken {
    matches: Vec<Match>,
}

impl Taken {
    /// Those that overlap become one: all of what either covers is secret.
    fn of(mut ranked: Vec<(Rank, Match)>) -> Self {
        ranked.sort_by_key(|(rank, m)| (m.span.start, *rank));
        let mut merged: Vec<(Rank, Match)> = Vec::with_capacity(ranked.len());
        for (rank, m) in ranked {
            match merged.last_mut().filter(|(_, last)| m.span.start < last.span.end) {
                Some((best, last)) => {
                    last.span.end = last.span.end.max(m.span.end);
                    if rank < *best {
                        *best = rank;
                        last.kind = m.kind;
                    }
                }
                None => merged.push((rank, m)),
            }
        }
        Self { matches: merged.into_iter().map(|(_, m)| m).collect() }
    }

    fn overlaps(&self, span: &Range<usize>) -> bool {
        let at = self.matches.partition_point(|known| known.span.end <= span.start);
        self.matches.get(at).is_some_and(|next| next.span.start < span.end)
    }
}

/// The byte before a place is part of a longer word.
fn inside_word(text: &str, at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    let bytes = before.as_bytes();
    let Some(last) = bytes.last() else { return false };
    if !last.is_ascii_alphanumeric() && *last != b'_' {
        return false;
    }
    // `%3D` before a token is an escaped sign, no word.
    let escape = bytes.len().checked_sub(3).and_then(|start| bytes.get(start..));
    !escape.is_some_and(|e| e.first() == Some(&b'%') && e.iter().skip(1).all(u8::is_ascii_hexdigit))
}
