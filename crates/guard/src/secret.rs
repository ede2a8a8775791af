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

impl Detector for Secrets {
    fn family(&self) -> &'static str {
        "secrets"
    }

    fn find(&self, text: &str, found: &mut Vec<Match>) {
        // Nothing that is worth keeping is shorter.
        if text.len() < 8 {
            return;
        }
        let (mut known, mut assigned) = (Vec::new(), Vec::new());
        for hit in KEYWORDS.automaton.find_overlapping_iter(text) {
            let at = hit.start()..hit.end();
            match KEYWORDS.rules.get(hit.pattern().as_usize()) {
                Some(Rule::Format(format)) => known.extend(format.at(text, &at)),
                Some(Rule::Shape(shape)) => known.extend(shape.at(text, &at)),
                Some(Rule::Name(strength)) => assigned.extend(assignment::at(text, &at, *strength)),
                None => {}
            }
        }
        let mut taken = Taken::default();
        for m in known.into_iter().chain(assigned) {
            taken.add(m);
        }
        entropy::find(text, &mut taken);
        found.append(&mut taken.matches);
    }
}

/// Matches that do not overlap: the first to take a place has it.
#[derive(Default)]
struct Taken {
    matches: Vec<Match>,
}

impl Taken {
    fn add(&mut self, m: Match) {
        let at = self.matches.partition_point(|known| known.span.end <= m.span.start);
        if self.matches.get(at).is_none_or(|next| m.span.end <= next.span.start) {
            self.matches.insert(at, m);
        }
    }

    fn overlaps(&self, span: &Range<usize>) -> bool {
        let at = self.matches.partition_point(|known| known.span.end <= span.start);
        self.matches.get(at).is_some_and(|next| next.span.start < span.end)
    }

    fn any(&self, kind: &str) -> bool {
        self.matches.iter().any(|m| m.kind == kind)
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
